"""The cloud firewall of a cluster at Linode."""

DOCUMENTATION = r"""
module: femto_linode_firewall
short_description: The cloud firewall of a cluster at Linode
description:
  - >-
    Makes the firewall of a cluster, or gives it these rules: what is O(open) from the addresses
    named there, everything among the nodes in O(network), nothing else; the nodes reach everybody.
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
  network:
    description: Addresses of the nodes among themselves.
    type: str
    required: true
  open:
    description: What is open to whom.
    type: list
    elements: dict
    default: []
    suboptions:
      label:
        description: Name of the rule.
        type: str
        required: true
      ports:
        description: Ports of TCP, such as V(8080) or V(4040-4071).
        type: list
        elements: str
        required: true
      cidrs:
        description: Networks of IPv4. Without any there is no rule.
        type: list
        elements: str
        required: true
attributes:
  check_mode: {support: full, description: Says whether the rules would change.}
  diff_mode: {support: full, description: Shows the rules.}
"""

EXAMPLES = r"""
- name: The firewall
  femto_linode_firewall:
    cluster: demo
    network: 10.0.0.0/24
    open:
      - {label: ssh, ports: ["22"], cidrs: [198.51.100.7/32]}
"""

RETURN = r"""
id:
  description: Number of the firewall; none in check mode, where it would be made.
  returned: always
  type: int
"""

from ansible.module_utils.basic import AnsibleModule

try:
    from ansible_collections.femto.cluster.plugins.module_utils import femto_linode as common
except ImportError:
    from ansible.module_utils import femto_linode as common


def rule(label: str, protocol: str, cidrs: list, ports="") -> dict:
    return {
        "label": label,
        "action": "ACCEPT",
        "protocol": protocol,
        "addresses": {"ipv4": sorted(cidrs)},
    } | ({"ports": ports} if ports else {})


def wanted(params: dict) -> dict:
    inside = [params["network"]]
    return {
        "inbound_policy": "DROP",
        "outbound_policy": "ACCEPT",
        "inbound": [
            *(
                rule(some["label"], "TCP", some["cidrs"], ", ".join(some["ports"]))
                for some in params["open"]
                if some["cidrs"]
            ),
            rule("nodes-tcp", "TCP", inside, "1-65535"),
            rule("nodes-udp", "UDP", inside, "1-65535"),
            rule("nodes-icmp", "ICMP", inside),
        ],
        "outbound": [],
    }


def plain(rules: dict) -> dict:
    """Rules as the API gives them, without what it adds to those that it was given."""

    def one(r: dict) -> dict:
        addresses = {k: sorted(v) for k, v in (r.get("addresses") or {}).items() if v}
        kept = {k: r.get(k) for k in ("label", "action", "protocol", "ports") if r.get(k)}
        if "ports" in kept:
            kept["ports"] = ", ".join(p.strip() for p in kept["ports"].split(","))
        return kept | {"addresses": addresses}

    return {
        "inbound_policy": rules["inbound_policy"],
        "outbound_policy": rules["outbound_policy"],
        "inbound": [one(r) for r in rules["inbound"]],
        "outbound": [one(r) for r in rules["outbound"]],
    }


def told(rules) -> str:
    if not rules:
        return ""
    return common.lines(
        f"{way} {r.get('label', '')}: {r['action']} {r['protocol']} {r.get('ports', '')} from "
        f"{', '.join(a for some in r['addresses'].values() for a in some)}"
        for way in ("inbound", "outbound")
        for r in rules[way]
    ) + common.lines(
        f"{way}, otherwise: {rules[f'{way}_policy']}" for way in ("inbound", "outbound")
    )


def work(linode, params: dict, check: bool) -> dict:
    cluster = params["cluster"]
    rules, there = wanted(params), next(iter(linode.firewalls(cluster)), None)
    old = plain(there["rules"]) if there else None
    result = {"changed": old != rules, "id": there and there["id"]}
    if old == rules:
        return result
    result["diff"] = {"before": told(old), "after": told(rules)}
    if check:
        return result
    if there:
        linode.call("put", f"/networking/firewalls/{there['id']}/rules", data=rules)
        return result
    new = {"label": common.label_of(cluster), "tags": [common.tag_of(cluster)], "rules": rules}
    try:
        there = linode.call("post", "/networking/firewalls", data=new)
    except common.Wrong:
        # An answer may be lost after all was done.
        there = next(iter(linode.firewalls(cluster)), None)
        if not there:
            raise
    return result | {"id": there["id"]}


def main() -> None:
    opened = {
        "label": {"type": "str", "required": True},
        "ports": {"type": "list", "elements": "str", "required": True},
        "cidrs": {"type": "list", "elements": "str", "required": True},
    }
    module = AnsibleModule(
        argument_spec=common.arguments(
            network={"type": "str", "required": True},
            open={"type": "list", "elements": "dict", "default": [], "options": opened},
        ),
        supports_check_mode=True,
    )
    common.run(module, work)


if __name__ == "__main__":
    main()
