"""Look at a host once: what later tasks would otherwise ask for one by one."""

DOCUMENTATION = r"""
module: femto_host
short_description: Look at a host once
description: Tells in one execution what is on the host. Changes nothing.
author: The femto authors
options:
  packages:
    description: Debian packages to look for.
    type: list
    elements: str
    default: []
  accounts:
    description: Accounts to look for.
    type: list
    elements: str
    default: []
  paths:
    description: Paths to look for; links are followed.
    type: list
    elements: path
    default: []
  ssh_ports:
    description: Whether to ask on which ports sshd listens.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Look at this host
  femto_host:
    packages: [curl, nftables]
    accounts: [spark]
    paths: [/opt/femto/current/spark]
"""

RETURN = r"""
missing_packages:
  description: Those of the packages that are not installed.
  returned: always
  type: list
missing_accounts:
  description: Those of the accounts that there are not.
  returned: always
  type: list
paths:
  description: Path to what it is without links; empty if it is not there.
  returned: always
  type: dict
ssh_ports:
  description: Ports on which sshd listens or, by its settings, will.
  returned: always
  type: list
"""

import os
import pwd
import re
import subprocess

from ansible.module_utils.basic import AnsibleModule


def output(*command: str) -> str:
    """What the command writes; nothing if it is not there or fails."""
    environment = dict(os.environ, LC_ALL="C")
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
    except OSError:
        return ""
    return done.stdout


def missing_packages(names: list) -> list:
    if not names:
        return []
    known = output("dpkg-query", "--show", "--showformat=${Package} ${db:Status-Abbrev}\n", *names)
    installed = {line.split()[0] for line in known.splitlines() if line.split()[1:2] == ["ii"]}
    return [name for name in names if name not in installed]


def has_account(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def ssh_ports() -> list:
    """By sshd's own word, and by that of its socket, which systemd may listen on in its place."""
    said = output("/usr/sbin/sshd", "-T")
    said += output("systemctl", "show", "--property=Listen", "ssh.socket")
    return sorted(
        {int(port) for port in re.findall(r"(?m)(?:^port |:)(\d+)(?:$| \(Stream\))", said)}
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "default": []},
            "accounts": {"type": "list", "elements": "str", "default": []},
            "paths": {"type": "list", "elements": "path", "default": []},
            "ssh_ports": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    module.exit_json(
        changed=False,
        missing_packages=missing_packages(wanted["packages"]),
        missing_accounts=[name for name in wanted["accounts"] if not has_account(name)],
        paths={p: os.path.realpath(p) if os.path.exists(p) else "" for p in wanted["paths"]},
        ssh_ports=ssh_ports() if wanted["ssh_ports"] else [],
    )


if __name__ == "__main__":
    main()
