"""Check on the controller what a role was asked to do; no host is asked.

    femto_preflight:
      prefix: spark            variables of this prefix that the role's argument specs do not name
                               are told in a warning
      addresses:               variable -> list of IPv4 addresses and networks, or one of them
      wrong: []                what else is wrong, in one line each with its remedy

Fails with one line. Returns `networks`, variable -> its networks without those that lie in another,
and `public`, variable -> whether one of them is outside the private networks.
"""

import ipaddress
from pathlib import Path

import yaml
from ansible.plugins.action import ActionBase

# Private use, this host, and this link: what routers of the internet do not pass on.
PRIVATE = [
    ipaddress.ip_network(network)
    for network in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "127.0.0.0/8",
        "169.254.0.0/16",
    )
]


def network_of(text: str, variable: str) -> ipaddress.IPv4Network:
    """The network, or that of one address. ValueError, in one line, if it is none."""
    address = text.partition("/")[0]
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        version = None
    if version == 6:
        raise ValueError(
            f"{variable}: {text} is an address of IPv6, and the cluster's services listen on IPv4 "
            "alone: give one of IPv4, or come in through SSH"
        )
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        if "host bits" in str(error):
            wide = ipaddress.IPv4Network(text, strict=False)
            raise ValueError(
                f"{variable}: {text} is an address, but no network: write {wide} for all of it, "
                f"or {address}"
            ) from None
    raise ValueError(
        f"{variable}: {text} is neither an address nor a network such as 198.51.100.0/24: "
        "correct it"
    )


def unknown(prefix: str, role: str, names) -> list[str]:
    specs = yaml.safe_load(Path(role, "meta/argument_specs.yml").read_text(encoding="utf-8"))
    known = specs["argument_specs"]["main"]["options"]
    return sorted(n for n in names if n.startswith(f"{prefix}_") and n not in known)


class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        args, wrong = self._task.args, []
        networks, public = {}, {}
        for variable, given in (args.get("addresses") or {}).items():
            found = []
            for text in [given] if isinstance(given, str) else given or []:
                try:
                    found.append(network_of(str(text), variable))
                except ValueError as error:
                    wrong.append(str(error))
            networks[variable] = [str(n) for n in ipaddress.collapse_addresses(found)]
            public[variable] = not all(any(n.subnet_of(p) for p in PRIVATE) for n in found)
        wrong += args.get("wrong") or []
        strange = (
            unknown(args["prefix"], task_vars["role_path"], task_vars) if "prefix" in args else []
        )
        if strange:
            some, them = ("s", "them") if len(strange) > 1 else ("", "it")
            result["warnings"] = [
                f"unknown variable{some} {', '.join(strange)}: correct or remove {them}, unless "
                f"another role of your inventory has {them}; those there are stand in "
                f"roles/{args['prefix']}/README.md"
            ]
        result.update(changed=False, networks=networks, public=public)
        if wrong:
            result.update(failed=True, msg="; ".join(dict.fromkeys(wrong)))
        return result
