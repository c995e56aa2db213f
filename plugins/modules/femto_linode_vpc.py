"""The private network of a cluster at Linode."""

DOCUMENTATION = r"""
module: femto_linode_vpc
short_description: The private network of a cluster at Linode
description:
  - Makes the VPC of a cluster with one subnet, if there is none. One that is there stays as it is.
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
  network:
    description: Addresses of the nodes among themselves.
    type: str
    required: true
attributes:
  check_mode: {support: full, description: Says whether the VPC would be made.}
  diff_mode: {support: full, description: Shows the VPC that is made.}
"""

EXAMPLES = r"""
- name: The private network
  femto_linode_vpc:
    cluster: demo
    region: de-fra-2
    network: 10.0.0.0/24
"""

RETURN = r"""
id:
  description: Number of the VPC; none in check mode, where it would be made.
  returned: always
  type: int
subnet_id:
  description: Number of its subnet; none in check mode, where it would be made.
  returned: always
  type: int
"""

from ansible.module_utils.basic import AnsibleModule

try:
    from ansible_collections.femto.cluster.plugins.module_utils import femto_linode as common
except ImportError:
    from ansible.module_utils import femto_linode as common


def existing(linode, params: dict):
    """The cluster's VPC, or None. Wrong if it is not as it shall be, for that cannot be changed."""
    cluster = params["cluster"]
    found = linode.vpcs(cluster)
    if not found:
        return None
    vpc = found[0]
    networks = [subnet["ipv4"] for subnet in vpc["subnets"]]
    if vpc["region"] != params["region"] or networks != [params["network"]]:
        raise common.Wrong(
            f"the VPC {vpc['label']} is in {vpc['region']} with "
            f"{', '.join(networks) or 'no subnet'}, and shall be in {params['region']} with "
            f"{params['network']}: neither can be changed; "
            "correct linode_region and linode_network, or delete the cluster first (teardown.yml)"
        )
    return vpc


def work(linode, params: dict, check: bool) -> dict:
    vpc, cluster = existing(linode, params), params["cluster"]
    if vpc:
        return {"changed": False, "id": vpc["id"], "subnet_id": vpc["subnets"][0]["id"]}
    label = common.label_of(cluster)
    new = common.lines([f"VPC {label} in {params['region']}, {params['network']}"])
    result = {"changed": True, "id": None, "subnet_id": None, "diff": {"before": "", "after": new}}
    if check:
        return result
    wanted = {
        "label": label,
        "description": common.description_of(cluster),
        "region": params["region"],
        "subnets": [{"label": "nodes", "ipv4": params["network"]}],
    }
    try:
        vpc = linode.call("post", "/vpcs", data=wanted)
    except common.Wrong:
        # An answer may be lost after all was done.
        vpc = existing(linode, params)
        if not vpc:
            raise
    return result | {"id": vpc["id"], "subnet_id": vpc["subnets"][0]["id"]}


def main() -> None:
    module = AnsibleModule(
        argument_spec=common.arguments(
            region={"type": "str", "required": True},
            network={"type": "str", "required": True},
        ),
        supports_check_mode=True,
    )
    common.run(module, work)


if __name__ == "__main__":
    main()
