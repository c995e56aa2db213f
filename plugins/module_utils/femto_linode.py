"""What the modules for Linode and the inventory share: a client whose errors give nothing away, and
what of an account belongs to a cluster.

What belongs to the cluster NAME carries the tag femto-cluster-NAME; a VPC, which cannot carry tags,
has a label and a description that no other has.
"""

import functools
import re
import time
import urllib.parse

from ansible.module_utils.basic import env_fallback

URL = "https://api.linode.com/v4"
MASTER, WORKER, DRAINED = "femto-master", "femto-worker", "femto-drained"
NAME = re.compile(r"(?=.{2,24}\Z)[a-z][a-z0-9]*(-[a-z0-9]+)*")
NO_TOKEN = (
    "there is no token: set LINODE_TOKEN (or linode_token, from a vault) to a personal access "
    "token that may read and write Linodes, Firewalls and VPCs: "
    "https://cloud.linode.com/profile/tokens"
)
# What ends a call that will never be answered.
CALL_SECONDS = 60


class Wrong(Exception):
    """What cannot be done, in one line with its remedy. `status` is the API's, or None."""

    def __init__(self, message: str, status=None):
        super().__init__(message)
        self.status = status


def name_of(cluster: str) -> str:
    """The name, if it can be one. Wrong otherwise."""
    if not NAME.fullmatch(cluster):
        raise Wrong(
            f"{cluster!r} cannot be the name of a cluster: give 2 to 24 small letters, digits and "
            "single hyphens, a letter first"
        )
    return cluster


def tag_of(cluster: str) -> str:
    return f"femto-cluster-{cluster}"


def label_of(cluster: str) -> str:
    """The label of firewall and VPC."""
    return f"femto-{cluster}"


def description_of(cluster: str) -> str:
    return f"Made by femto's provision.yml for the cluster {cluster}, and deleted with it."


class Linode:
    """The API. Every error is Wrong, in one line in which neither the token nor what was added to
    `secrets` stands."""

    def __init__(self, token, url: str = URL):
        if not token:
            raise Wrong(NO_TOKEN)
        where = urllib.parse.urlsplit(url)
        if where.scheme != "https" and where.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise Wrong(f"LINODE_API_URL is {url}: the token goes over https alone")
        try:
            import linode_api4
            import requests
        except ImportError as error:
            raise Wrong(
                f"{error.name} is missing for the Python that runs Ansible: pip install linode-api4"
            ) from None
        self.secrets = [token]
        self._refused, self._unreachable = linode_api4.ApiError, requests.RequestException
        # Answers 429, which say how long to wait, are repeated by the library; 503 is said while
        # the API is maintained.
        self.client = linode_api4.LinodeClient(
            token, base_url=url.rstrip("/"), user_agent="femto", retry_statuses=[503]
        )
        session = self.client.session
        session.request = functools.partial(session.request, timeout=CALL_SECONDS)

    def scrub(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "********")
        return " ".join(text.split())[:600]

    def call(self, method: str, path: str, **more):
        """The answer's JSON. `more`: data, filters."""
        try:
            return getattr(self.client, method)(path, **more)
        except self._refused as error:
            said = self.scrub(str(error))
            if error.status == 401:
                reasons = "; ".join(map(self.scrub, error.errors))
                raise Wrong(
                    f"Linode does not accept the token ({reasons}): "
                    "set LINODE_TOKEN to a personal access token that may read and write Linodes, "
                    "Firewalls and VPCs: https://cloud.linode.com/profile/tokens",
                    401,
                ) from None
            raise Wrong(f"Linode refuses {said}", error.status) from None
        except self._unreachable as error:
            raise Wrong(
                f"Linode's API cannot be reached at {self.client.base_url} "
                f"({self.scrub(str(error))}): check this machine's network and proxy, then run the "
                "same command again"
            ) from None
        except (ValueError, RuntimeError) as error:
            raise Wrong(
                f"{self.client.base_url}{path} answers with what is no JSON "
                f"({self.scrub(str(error))}): check LINODE_API_URL and this machine's proxy"
            ) from None

    def all(self, path: str, filters=None) -> list:
        """All objects of a collection, from all of its pages; each once, though others come and go
        meanwhile."""
        found, page, pages = {}, 1, 1
        while page <= pages:
            answer = self.call("get", f"{path}?page={page}&page_size=100", filters=filters)
            for thing in answer["data"]:
                found[thing.get("id", thing.get("address"))] = thing
            page, pages = page + 1, answer["pages"]
        return list(found.values())

    def instances(self, cluster: str) -> list:
        """Linodes that carry the cluster's tag, in the order of their numbers."""
        tag = tag_of(cluster)
        found = self.all("/linode/instances", {"tags": tag})
        return sorted((i for i in found if tag in i["tags"]), key=lambda i: number_of(i["label"]))

    def firewalls(self, cluster: str) -> list:
        return [f for f in self.all("/networking/firewalls") if tag_of(cluster) in f["tags"]]

    def vpcs(self, cluster: str) -> list:
        return [
            vpc
            for vpc in self.all("/vpcs")
            if vpc["label"] == label_of(cluster) and vpc["description"] == description_of(cluster)
        ]

    def addresses(self, cluster: str) -> dict:
        """Number of a Linode -> (address within the VPC, public address that leads to it)."""
        return {
            a["linode_id"]: (a["address"], a.get("nat_1_1"))
            for vpc in self.vpcs(cluster)
            for a in self.all(f"/vpcs/{vpc['id']}/ips")
            if a.get("address")
        }

    def nodes(self, cluster: str) -> list:
        """What the inventory and the playbooks tell of each Linode of the cluster."""
        addresses = self.addresses(cluster)
        return [node_of(i, *addresses.get(i["id"], (None, None))) for i in self.instances(cluster)]

    def things(self, cluster: str) -> list:
        """All that belongs to the cluster, in the order in which it can be deleted."""
        return [
            {"key": f"{path}/{thing['id']}", "what": f"{kind} {thing['label']} ({thing['id']})"}
            for kind, path, some in (
                ("Linode", "/linode/instances", self.instances(cluster)),
                ("firewall", "/networking/firewalls", self.firewalls(cluster)),
                ("VPC", "/vpcs", self.vpcs(cluster)),
            )
            for thing in some
        ]


def number_of(label: str):
    """What puts demo-worker-10 behind demo-worker-9."""
    end = re.search(r"(\d+)\Z", label)
    return (int(end.group(1)) if end else 0, label)


def node_of(instance: dict, private, public) -> dict:
    tags = instance["tags"]
    return {
        "id": instance["id"],
        "name": instance["label"],
        "role": "master" if MASTER in tags else "worker" if WORKER in tags else "",
        "drained": DRAINED in tags,
        "public": public or next(iter(instance["ipv4"]), ""),
        "private": private or "",
        "type": instance["type"],
        "region": instance["region"],
        "status": instance["status"],
        "tags": tags,
    }


class Deadline:
    """Waits a little longer each time, for so many seconds altogether."""

    def __init__(self, seconds: float):
        self.end, self.step = time.monotonic() + seconds, 0.1

    def wait(self) -> bool:
        """Whether there was time left to wait."""
        left = self.end - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(self.step, left))
        self.step = min(self.step * 1.5, 5)
        return True


def arguments(**more) -> dict:
    """Argument spec of a module."""
    return {
        "cluster": {"type": "str", "required": True},
        "token": {"type": "str", "no_log": True, "fallback": (env_fallback, ["LINODE_TOKEN"])},
        "api_url": {"type": "str", "fallback": (env_fallback, ["LINODE_API_URL"]), "default": URL},
        **more,
    }


def run(module, work) -> None:
    """Do the module's work, `work(linode, params, check mode)`, which gives the result; with a key
    `diff` that is told if it was asked for."""
    params = module.params
    try:
        name_of(params["cluster"])
        linode = Linode(params["token"], params["api_url"])
        result = work(linode, params, module.check_mode)
    except Wrong as error:
        module.fail_json(msg=str(error))
    for warning in result.pop("warnings", []):
        module.warn(warning)
    difference = result.pop("diff", None)
    if module._diff and difference:
        result["diff"] = difference
    if "msg" in result:
        module.fail_json(**result)
    module.exit_json(**result)


def lines(some) -> str:
    """For a diff."""
    return "".join(f"{line}\n" for line in some)
