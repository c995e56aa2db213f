"""The Linodes of a cluster."""

DOCUMENTATION = r"""
module: femto_linode_instances
short_description: The Linodes of a cluster
description:
  - >-
    Makes the master and the workers that are missing, in the cluster's VPC and behind its firewall,
    boots what is off, and waits until all run and SSH answers. Those that are there stay as they
    are, of whatever type.
  - >-
    Workers that C(remove-worker.yml) has drained are taken back if there are fewer than O(workers),
    and deleted otherwise. With more that are not drained it fails, and changes nothing.
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
  image:
    description: System, such as V(linode/ubuntu24.04).
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
  ssh_keys:
    description: Public keys of who may sign in as root, or files with such keys.
    type: list
    elements: str
    required: true
  tags:
    description: Further tags.
    type: list
    elements: str
    default: []
  subnet_id:
    description: Subnet of the VPC; not needed in check mode.
    type: int
  firewall_id:
    description: The firewall; not needed in check mode.
    type: int
  ssh_port:
    description: Where SSH answers.
    type: int
    default: 22
  seconds:
    description: How long to wait until all run, and until SSH answers.
    type: int
    default: 600
attributes:
  check_mode: {support: full, description: Says what would be made, changed and deleted.}
  diff_mode: {support: full, description: Shows the cluster's Linodes.}
"""

EXAMPLES = r"""
- name: The Linodes
  femto_linode_instances:
    cluster: demo
    region: de-fra-2
    image: linode/ubuntu24.04
    master_type: g6-standard-2
    worker_type: g6-dedicated-4
    workers: 3
    ssh_keys: [~/.ssh/id_ed25519.pub]
    subnet_id: 7
    firewall_id: 8
"""

RETURN = r"""
nodes:
  description: The cluster's Linodes, with name, role, addresses and what else the inventory has.
  returned: success
  type: list
  elements: dict
created:
  description: Names of those that were made, or in check mode would be.
  returned: success
  type: list
  elements: str
deleted:
  description: Names of those that were deleted, or in check mode would be.
  returned: success
  type: list
  elements: str
"""

import os
import re
import secrets
import socket

from ansible.module_utils.basic import AnsibleModule

try:
    from ansible_collections.femto.cluster.plugins.module_utils import femto_linode as common
except ImportError:
    from ansible.module_utils import femto_linode as common

KEY = re.compile(r"(ssh|ecdsa|sk)-\S+ [A-Za-z0-9+/=]{16,}( .*)?")


def public_keys(given: list) -> list:
    """The keys themselves."""
    found = []
    for text in given:
        if KEY.fullmatch(text.strip()):
            found.append(text.strip())
            continue
        path = os.path.expanduser(text)
        try:
            with open(path, encoding="utf-8") as file:
                some = [line.strip() for line in file if line.strip() and line[0] != "#"]
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no text"
            raise common.Wrong(
                f"linode_ssh_keys: {path}: {reason}: give a file of public keys, such as one that "
                "ssh-keygen -t ed25519 makes, or the key itself"
            ) from None
        if not some or not all(KEY.fullmatch(line) for line in some):
            raise common.Wrong(
                f"linode_ssh_keys: {path} does not hold public keys alone: give the file that ends "
                "in .pub"
            )
        found += some
    if not found:
        raise common.Wrong("linode_ssh_keys is empty: name the public key with which you sign in")
    return found


def plan(cluster: str, nodes: list, workers: int) -> dict:
    """What has to be done so that there are a master and so many workers: names to `create` as
    (name, role); nodes to `delete`, and to `take_back` although they are drained."""
    masters = [n for n in nodes if n["role"] == "master"]
    ours = [n for n in nodes if n["role"] == "worker"]
    active, drained = ([n for n in ours if n["drained"] is is_so] for is_so in (False, True))
    excess = len(active) - workers
    if excess > 0:
        names = ",".join(n["name"] for n in active[-excess:])
        raise common.Wrong(
            f"{cluster} has {len(active)} workers, linode_workers is {workers}, and workers are "
            "deleted only when their tasks have ended: first run ansible-playbook "
            f"playbooks/remove-worker.yml -i INVENTORY -e spark_remove={names}"
        )
    take_back, delete = drained[:-excess], drained[-excess:]
    taken = {n["name"] for n in nodes}
    free = (f"{cluster}-worker-{k}" for k in range(1, len(ours) + workers + 1))
    names = [name for name in free if name not in taken][: -excess - len(take_back)]
    create = [] if masters else [(f"{cluster}-master", "master")]
    return {
        "create": create + [(name, "worker") for name in names],
        "take_back": take_back,
        "delete": delete,
    }


def order(params: dict, name: str, role: str, keys: list, password: str) -> dict:
    """What the API is asked for. The one interface is in the VPC, and a public address leads to it:
    so the nodes' own address, where services listen, is the private one."""
    tag = common.MASTER if role == "master" else common.WORKER
    return {
        "label": name,
        "type": params[f"{role}_type"],
        "region": params["region"],
        "image": params["image"],
        "tags": [common.tag_of(params["cluster"]), tag, *params["tags"]],
        "authorized_keys": keys,
        "root_pass": password,
        "booted": True,
        "firewall_id": params["firewall_id"],
        "interface_generation": "legacy_config",
        "interfaces": [
            {
                "purpose": "vpc",
                "primary": True,
                "subnet_id": params["subnet_id"],
                "ipv4": {"nat_1_1": "any"},
            }
        ],
    }


def create(linode, params: dict, name: str, role: str, keys: list) -> None:
    # Nobody ever knows it: who has a key signs in.
    password = secrets.token_urlsafe(48) + "aA1-"
    linode.secrets.append(password)
    try:
        linode.call("post", "/linode/instances", data=order(params, name, role, keys, password))
    except common.Wrong:
        # An answer may be lost after all was done, and what was asked again is refused then.
        if not any(i["label"] == name for i in linode.instances(params["cluster"])):
            raise


def tags_of(node: dict, params: dict, take_back: list) -> list:
    kept = [t for t in node["tags"] if t != common.DRAINED or node not in take_back]
    return kept + [t for t in params["tags"] if t not in kept]


def wait_until_running(linode, params: dict) -> list:
    deadline = common.Deadline(params["seconds"])
    while True:
        nodes = linode.nodes(params["cluster"])
        late = [f"{n['name']} is {n['status']}" for n in nodes if n["status"] != "running"]
        if not late:
            return nodes
        if not deadline.wait():
            raise common.Wrong(
                f"{', '.join(late)} after {params['seconds']} s: see "
                "https://cloud.linode.com/linodes, and https://status.linode.com"
            )


def ssh_answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=5) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def wait_for_ssh(nodes: list, params: dict) -> None:
    deadline = common.Deadline(params["seconds"])
    for node in nodes:
        while not ssh_answers(node["public"], params["ssh_port"]):
            if not deadline.wait():
                raise common.Wrong(
                    f"SSH of {node['name']} does not answer at {node['public']}:"
                    f"{params['ssh_port']} after {params['seconds']} s: is this machine's public "
                    "address in linode_ssh_cidrs?"
                )


def told(nodes: list) -> str:
    return common.lines(
        f"{n['name']}: {n['type']} in {n['region']}, {', '.join(n['tags'])}" for n in nodes
    )


def after(nodes: list, planned: dict, tags: dict, params: dict) -> list:
    gone = [n["id"] for n in planned["delete"]]
    stay = [n | {"tags": tags.get(n["id"], n["tags"])} for n in nodes if n["id"] not in gone]
    empty = {"id": None, "public": "", "private": "", "drained": False, "status": "to be made"}
    return stay + [
        empty
        | {
            "name": name,
            "role": role,
            "type": params[f"{role}_type"],
            "region": params["region"],
            "tags": order(params, name, role, [], "")["tags"],
        }
        for name, role in planned["create"]
    ]


def work(linode, params: dict, check: bool) -> dict:
    cluster, keys = params["cluster"], public_keys(params["ssh_keys"])
    nodes = linode.nodes(cluster)
    planned = plan(cluster, nodes, params["workers"])
    gone = [n["id"] for n in planned["delete"]]
    stay = [n for n in nodes if n["id"] not in gone]
    tags = {n["id"]: tags_of(n, params, planned["take_back"]) for n in stay}
    tags = {n["id"]: tags[n["id"]] for n in stay if tags[n["id"]] != n["tags"]}
    off = [n for n in stay if n["status"] == "offline"]
    guarded = set()
    if params["firewall_id"]:
        devices = linode.all(f"/networking/firewalls/{params['firewall_id']}/devices")
        guarded = {d["entity"]["id"] for d in devices if d["entity"]["type"] == "linode"}
    bare = [n for n in stay if n["id"] not in guarded]
    wanted = after(nodes, planned, tags, params)
    result = {
        "changed": bool(planned["create"] or planned["delete"] or tags or off or bare),
        "created": [name for name, _ in planned["create"]],
        "deleted": [n["name"] for n in planned["delete"]],
        "taken_back": [n["name"] for n in planned["take_back"]],
        "nodes": wanted,
        "warnings": [
            f"{n['name']} is {n['type']} and stays so: {role}_type is for new ones"
            for n in stay
            for role in [f"linode_{n['role']}"]
            if n["role"] and n["type"] != params[f"{n['role']}_type"]
        ],
        "diff": {"before": told(nodes), "after": told(wanted)},
    }
    if check:
        return result
    for name, role in planned["create"]:
        create(linode, params, name, role, keys)
    for number, some in tags.items():
        linode.call("put", f"/linode/instances/{number}", data={"tags": some})
    for node in bare:
        device = {"type": "linode", "id": node["id"]}
        path = f"/networking/firewalls/{params['firewall_id']}/devices"
        linode.call("post", path, data=device)
    for node in off:
        linode.call("post", f"/linode/instances/{node['id']}/boot")
    for node in planned["delete"]:
        linode.call("delete", f"/linode/instances/{node['id']}")
    deadline = common.Deadline(params["seconds"])
    while any(i["id"] in gone for i in linode.instances(cluster)):
        if not deadline.wait():
            raise common.Wrong(f"Linode does not delete {', '.join(result['deleted'])}: run again")
    nodes = wait_until_running(linode, params)
    wait_for_ssh(nodes, params)
    return result | {"nodes": nodes}


def main() -> None:
    module = AnsibleModule(
        argument_spec=common.arguments(
            region={"type": "str", "required": True},
            image={"type": "str", "required": True},
            master_type={"type": "str", "required": True},
            worker_type={"type": "str", "required": True},
            workers={"type": "int", "required": True},
            # Public ones.
            ssh_keys={"type": "list", "elements": "str", "required": True, "no_log": False},
            tags={"type": "list", "elements": "str", "default": []},
            subnet_id={"type": "int"},
            firewall_id={"type": "int"},
            ssh_port={"type": "int", "default": 22},
            seconds={"type": "int", "default": 600},
        ),
        supports_check_mode=True,
    )
    common.run(module, work)


if __name__ == "__main__":
    main()
