"""What a cluster at Linode costs."""

DOCUMENTATION = r"""
module: femto_linode_cost
short_description: What a cluster at Linode costs
description:
  - >-
    Tells from the API's price list what a cluster costs, and from measured rates what compressing
    so many gigapixels on it takes and costs. Changes nothing, and needs no cluster. Fails if there
    is no such type or region, or the region has no VPCs.
  - Only tested against a stand-in for the API, served by femto's tests.
requirements: [linode-api4]
author: The femto authors
options:
  cluster:
    description: Name of the cluster.
    type: str
    required: true
  token:
    description: A personal access token. By default from the environment variable E(LINODE_TOKEN).
    type: str
  api_url:
    description: The API, https alone. By default from E(LINODE_API_URL).
    type: str
    default: https://api.linode.com/v4
  region:
    description: Where, such as V(de-fra-2).
    type: str
    required: true
  master_type:
    description: Type of the master, such as V(g6-standard-2).
    type: str
    required: true
  worker_type:
    description: Type of the workers.
    type: str
    required: true
  workers:
    description: How many workers.
    type: int
    required: true
  gigapixels:
    description: Size of a job; 0 for none.
    type: float
    default: 0
  scaling:
    description: File of bench/scaling.py with what a job takes.
    type: path
  rate:
    description: Megapixels a second and core, instead of what O(scaling) says; 0 for that.
    type: float
    default: 0
attributes:
  check_mode: {support: full, description: Nothing is changed anyway.}
  diff_mode: {support: none, description: Nothing is changed.}
"""

EXAMPLES = r"""
- name: What would it cost?
  femto_linode_cost:
    cluster: demo
    region: de-fra-2
    master_type: g6-standard-2
    worker_type: g6-dedicated-4
    workers: 3
    gigapixels: 333
    scaling: docs/scaling.json
"""

RETURN = r"""
hourly:
  description: US dollars an hour.
  returned: success
  type: float
monthly:
  description: US dollars a month, which is the most that a month's hours cost.
  returned: success
  type: float
job:
  description: Of the job, seconds, hours that are billed, and US dollars; empty without one.
  returned: success
  type: dict
lines:
  description: All of it, to read.
  returned: success
  type: list
  elements: str
"""

import json
import math

from ansible.module_utils.basic import AnsibleModule

try:
    from ansible_collections.femto.cluster.plugins.module_utils import femto_linode as common
except ImportError:
    from ansible.module_utils import femto_linode as common

NEEDED = {"Linodes", "Cloud Firewall", "VPCs"}


def constants(path) -> dict:
    """Of the model in docs/SCALING.md, from runs on one worker whose driver has a core of its own:
    seconds anyway, megapixels a second and core, and the driver's seconds for a megapixel."""
    try:
        with open(path, encoding="utf-8") as file:
            runs = json.load(file)["runs"]
        some = [r for r in runs if r["job"] == "compress" and r["where"] == "1 worker"]
        little, much = sorted(some, key=lambda r: r["pixels"])
        more = (much["pixels"] - little["pixels"]) / 1e6
        slope = (much["seconds"] - little["seconds"]) / more
        return {
            "fixed": much["start"] + much["seconds"] - slope * much["pixels"] / 1e6,
            "rate": 1 / slope,
            "driver": (much["driver_cpu"] - little["driver_cpu"]) / more,
        }
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        reason = getattr(error, "strerror", None) or "is not as bench/scaling.py writes it"
        raise common.Wrong(
            f"{path}: {reason}: run in a clone of femto, or name a file of bench/scaling.py in "
            "linode_scaling"
        ) from None


def seconds_of(model: dict, megapixels: float, cores: int) -> float:
    return model["fixed"] + max(megapixels / model["rate"] / cores, megapixels * model["driver"])


def price(types: dict, name: str, region: str) -> dict:
    if name not in types:
        raise common.Wrong(
            f"Linode has no type {name}: correct linode_master_type or linode_worker_type, with "
            f"one of {', '.join(sorted(types))}"
        )
    own = [p for p in types[name].get("region_prices") or [] if p["id"] == region]
    return own[0] if own else types[name]["price"]


def work(linode, params: dict, check: bool) -> dict:
    regions = {r["id"]: r for r in linode.all("/regions")}
    region = params["region"]
    able = sorted(r for r, what in regions.items() if set(what["capabilities"]) >= NEEDED)
    if region not in able:
        there = set(regions.get(region, {}).get("capabilities", NEEDED))
        lacks = ", ".join(sorted(NEEDED - there))
        raise common.Wrong(
            (f"the region {region} has no {lacks}" if lacks else f"Linode has no region {region}")
            + f": set linode_region to one of {', '.join(able)}"
        )
    types = {t["id"]: t for t in linode.all("/linode/types")}
    told, hourly, monthly = [], 0.0, 0.0
    for count, role in ((1, "master"), (params["workers"], "worker")):
        name = params[f"{role}_type"]
        one = price(types, name, region)
        hourly += count * one["hourly"]
        monthly += count * one["monthly"]
        told.append(
            f"{count} {role}{'s' if count > 1 else ''} {name} ({types[name]['vcpus']} cores, "
            f"{types[name]['memory'] // 1024} GB each): ${count * one['hourly']:.3f} an hour, "
            f"${count * one['monthly']:.2f} a month"
        )
    told.append(
        f"together in {region}: ${hourly:.3f} an hour, at most ${monthly:.2f} a month, without "
        "tax; VPC and firewall cost nothing, traffic beyond what is included does"
    )
    job = {}
    if params["gigapixels"]:
        cores = params["workers"] * types[params["worker_type"]]["vcpus"]
        model = constants(params["scaling"])
        model["rate"] = params["rate"] or model["rate"]
        megapixels = params["gigapixels"] * 1000
        seconds = seconds_of(model, megapixels, cores)
        hours = math.ceil(seconds / 3600)
        limit = megapixels * model["driver"] > megapixels / model["rate"] / cores
        job = {"seconds": seconds, "hours": hours, "dollars": hours * hourly}
        told.append(
            f"{params['gigapixels']:g} gigapixels on {cores} cores at {model['rate']:.3f} "
            f"megapixels a second and core: {seconds / 3600:.1f} hours"
            + (", of which the driver is the limit" if limit else "")
            + f"; begun hours count, so ${job['dollars']:.2f}, and the time to build and fill the "
            "cluster besides"
        )
    return {"changed": False, "hourly": hourly, "monthly": monthly, "job": job, "lines": told}


def main() -> None:
    module = AnsibleModule(
        argument_spec=common.arguments(
            region={"type": "str", "required": True},
            master_type={"type": "str", "required": True},
            worker_type={"type": "str", "required": True},
            workers={"type": "int", "required": True},
            gigapixels={"type": "float", "default": 0},
            scaling={"type": "path"},
            rate={"type": "float", "default": 0},
        ),
        supports_check_mode=True,
    )
    common.run(module, work)


if __name__ == "__main__":
    main()
