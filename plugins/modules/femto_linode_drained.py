"""Mark workers at Linode as drained."""

DOCUMENTATION = r"""
module: femto_linode_drained
short_description: Mark workers at Linode as drained
description:
  - >-
    Gives Linodes of a cluster a tag that leaves them out of the inventory's workers, and lets
    C(provision.yml) delete them.
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
  names:
    description: The workers.
    type: list
    elements: str
    required: true
attributes:
  check_mode: {support: full, description: Says whether a tag would be given.}
  diff_mode: {support: full, description: Shows the tags.}
"""

EXAMPLES = r"""
- name: It has no more tasks
  femto_linode_drained:
    cluster: demo
    names: [demo-worker-3]
"""

RETURN = r"""
workers:
  description: How many workers are left that are not drained.
  returned: success
  type: int
"""

from ansible.module_utils.basic import AnsibleModule

try:
    from ansible_collections.femto.cluster.plugins.module_utils import femto_linode as common
except ImportError:
    from ansible.module_utils import femto_linode as common


def work(linode, params: dict, check: bool) -> dict:
    workers = [n for n in linode.nodes(params["cluster"]) if n["role"] == "worker"]
    missing = set(params["names"]) - {n["name"] for n in workers}
    if missing:
        raise common.Wrong(f"{params['cluster']} has no worker {', '.join(sorted(missing))}")
    new = [n for n in workers if n["name"] in params["names"] and not n["drained"]]
    for node in [] if check else new:
        path, tags = f"/linode/instances/{node['id']}", [*node["tags"], common.DRAINED]
        linode.call("put", path, data={"tags": tags})
    before = common.lines(f"{n['name']}: {', '.join(n['tags'])}" for n in new)
    return {
        "changed": bool(new),
        "workers": sum(not n["drained"] for n in workers) - len(new),
        "diff": {"before": before, "after": before.replace("\n", f", {common.DRAINED}\n")},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec=common.arguments(names={"type": "list", "elements": "str", "required": True}),
        supports_check_mode=True,
    )
    common.run(module, work)


if __name__ == "__main__":
    main()
