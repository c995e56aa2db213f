"""Delete a cluster at Linode."""

DOCUMENTATION = r"""
module: femto_linode_teardown
short_description: Delete a cluster at Linode
description:
  - >-
    Deletes what belongs to a cluster and nothing else: Linodes and firewalls that carry its tag,
    and its VPC. Waits until they are gone, and fails if something is left. In check mode it tells
    what there is.
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
  keep:
    description: Keys, as in RV(found), of what is left alone.
    type: list
    elements: str
    default: []
  seconds:
    description: How long to wait until all is gone.
    type: int
    default: 300
attributes:
  check_mode: {support: full, description: Says what would be deleted.}
  diff_mode: {support: full, description: Shows what is deleted.}
"""

EXAMPLES = r"""
- name: Delete the cluster
  femto_linode_teardown:
    cluster: demo
"""

RETURN = r"""
found:
  description: What there was besides what is kept, each with key and what, which tells it.
  returned: always
  type: list
  elements: dict
left:
  description: What there still is of it.
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

try:
    from ansible_collections.femto.cluster.plugins.module_utils import femto_linode as common
except ImportError:
    from ansible.module_utils import femto_linode as common


def delete(linode, thing: dict, errors: dict) -> None:
    try:
        linode.call("delete", thing["key"])
        errors.pop(thing["key"], None)
    except common.Wrong as error:
        if error.status != 404:
            errors[thing["key"]] = str(error)


def work(linode, params: dict, check: bool) -> dict:
    def things() -> list:
        return [t for t in linode.things(params["cluster"]) if t["key"] not in params["keep"]]

    found, asked = things(), set()
    listed = common.lines(t["what"] for t in found)
    result = {
        "changed": bool(found),
        "found": found,
        "left": found,
        "diff": {"before": listed, "after": ""},
    }
    if check or not found:
        return result
    deadline, errors, left = common.Deadline(params["seconds"]), {}, found
    while True:
        linodes = [t for t in left if t["what"].startswith("Linode ")]
        # Neither a firewall nor a VPC is deleted while Linodes use it.
        for thing in linodes or left:
            # A Linode is asked to go once, unless it was refused.
            if thing["key"] not in asked or thing["key"] in errors or not linodes:
                delete(linode, thing, errors)
                asked.add(thing["key"])
        left = things()
        if not left or not deadline.wait():
            break
    result["left"] = left
    if left:
        result["diff"]["after"] = common.lines(t["what"] for t in left)
        said = dict.fromkeys(errors[t["key"]] for t in left if t["key"] in errors)
        result["msg"] = (
            f"{len(left)} of {len(found)} could not be deleted in {params['seconds']} s, and may "
            f"cost money: {', '.join(t['what'] for t in left)}"
            + (f" ({'; '.join(said)})" if said else "")
            + ": run teardown.yml again, or delete them at https://cloud.linode.com"
        )
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec=common.arguments(
            keep={"type": "list", "elements": "str", "default": [], "no_log": False},
            seconds={"type": "int", "default": 300},
        ),
        supports_check_mode=True,
    )
    common.run(module, work)


if __name__ == "__main__":
    main()
