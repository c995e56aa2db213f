"""Guard the host with a table of nftables, without locking out who does it."""

DOCUMENTATION = r"""
module: femto_firewall
short_description: Load a table of nftables, without locking out who does it
description:
  - >-
    The rules are C(table inet femto) in C(firewall.nft) of O(folder), which includes
    C(nodes.d/*.nft) and C(rules.d/*.nft) there. They are loaded into an empty network namespace
    first: what cannot be loaded replaces nothing, and what can is compared with the rules that hold
    on the host now.
  - >-
    V(tried) loads rules that differ, for O(seconds) seconds: then the former ones come back.
    V(kept), called through a fresh connection, makes them those of the next boot. A run that is cut
    off between the two leaves nothing behind.
author: The femto authors
options:
  folder:
    description: Where the rules are.
    type: path
    required: true
  state:
    description: >-
      V(tried) and V(kept) as above; V(present) loads what differs at once, for a O(fragment), which
      only opens; V(absent) removes table, rules and unit.
    choices: [tried, kept, present, absent]
    type: str
    default: present
  rules:
    description: Text of C(firewall.nft); without it, the one that is there.
    type: str
  fragment:
    description: Name of a file in C(rules.d).
    type: str
  text:
    description: Text of the fragment.
    type: str
    default: ""
  unit:
    description: Service that loads the rules at boot.
    type: str
    default: femto-firewall.service
  seconds:
    description: After how many seconds rules that are not kept are taken back.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Try the rules
  femto_firewall:
    folder: /etc/spark
    state: tried
    rules: "{{ lookup('ansible.builtin.template', 'firewall.nft.j2') | string }}"
"""

RETURN = r"""
trying:
  description: Whether rules hold that have still to be kept.
  returned: always
  type: bool
"""

import glob
import os
import re
import subprocess
import tempfile

from ansible.module_utils.basic import AnsibleModule

TABLE = ("table", "inet", "femto")
UNDO = "femto-firewall-undo"
FORMER = "/run/femto-firewall-former.nft"
LIST = ("nft", "--stateless", "list", *TABLE)
# Nothing of the host's is touched in a namespace of its own.
LOAD_APART = 'nft --file "$1" && nft --stateless list table inet femto'


class Wrong(Exception):
    """What cannot be done, in one line with its remedy."""


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise Wrong(
            f"{command[0]}: {error.strerror}: install nftables, or set spark_firewall to false"
        ) from None
    if check and done.returncode:
        raise Wrong(f"{' '.join(command)}: {' '.join((done.stderr or done.stdout).split())[:2000]}")
    return done


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def replace(path: str, text: str, mode: int = 0o644) -> None:
    part = path + ".part"
    with open(part, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
    os.replace(part, path)


class Firewall:
    def __init__(self, options: dict):
        self.folder, self.unit = options["folder"], options["unit"]
        self.seconds = options["seconds"]
        self.path = os.path.join(self.folder, "firewall.nft")
        self.written = read(self.path)
        self.rules = self.written if options["rules"] is None else options["rules"]
        self.fragments = {}
        if options["fragment"]:
            self.fragments[os.path.join(self.folder, "rules.d", options["fragment"])] = options[
                "text"
            ]

    def whole(self) -> str:
        """The rules with what they include, and the fragments as they shall be."""

        def included(match) -> str:
            pattern = match.group(1)
            there = {path: read(path) for path in glob.glob(pattern)}
            folder = os.path.dirname(pattern)
            there.update({p: t for p, t in self.fragments.items() if os.path.dirname(p) == folder})
            return "\n".join(there[path] for path in sorted(there))

        return re.sub(r'(?m)^include "(.*)"$', included, self.rules)

    def wanted(self) -> str:
        """The rules as nft lists them once they are loaded."""
        with tempfile.NamedTemporaryFile("w", suffix=".nft") as file:
            file.write(self.whole())
            file.flush()
            apart = ("unshare", "--net", "sh", "-c", LOAD_APART, "sh", file.name)
            try:
                return run(*apart).stdout
            except Wrong as error:
                said = str(error).split(f"{file.name}:", 1)[-1]
                raise Wrong(f"the rules would be wrong, and stay as they were: {said}") from None

    def loaded(self) -> str:
        return run(*LIST, check=False).stdout

    def fragments_differ(self) -> bool:
        return any(read(path) != text for path, text in self.fragments.items())

    def write_fragments(self) -> None:
        for path, text in self.fragments.items():
            if text:
                replace(path, text)
            elif os.path.exists(path):
                os.unlink(path)

    def plan_undo(self) -> None:
        """What holds now comes back by itself. If an earlier run was cut off, that is what held
        before it: its own rules are as unproven as ours."""
        run("systemctl", "stop", UNDO + ".timer", check=False)
        if not os.path.exists(FORMER):
            clear = f"{' '.join(TABLE)}\ndelete {' '.join(TABLE)}\n"
            replace(FORMER, clear + run("nft", "list", *TABLE, check=False).stdout, 0o600)
        run(
            "systemd-run", "--quiet", "--collect", "--unit=" + UNDO,
            f"--on-active={self.seconds}", "--timer-property=AccuracySec=1s",
            "sh", "-c", f"nft --file {FORMER} && rm {FORMER}",
        )  # fmt: skip

    def forget_undo(self) -> None:
        run("systemctl", "stop", UNDO + ".timer", check=False)
        if os.path.exists(FORMER):
            os.unlink(FORMER)

    def boot_differs(self) -> list:
        """What systemctl has to do, so that the rules come back with the host."""
        show = ("systemctl", "show", "--property=ActiveState,UnitFileState", self.unit)
        state = dict(line.split("=", 1) for line in run(*show).stdout.splitlines())
        verbs = [] if state["UnitFileState"] == "enabled" else ["enable"]
        return verbs + ([] if state["ActiveState"] == "active" else ["start"])


def change(firewall: Firewall, state: str, check: bool) -> dict:
    if state == "absent":
        loaded = os.path.exists("/usr/sbin/nft") and bool(firewall.loaded())
        unit = os.path.join("/etc/systemd/system", firewall.unit)
        files = [path for path in (firewall.path, unit) if os.path.exists(path)]
        if not check and (loaded or files):
            if os.path.exists(unit):
                # Not stopped: services that require it would stop with it.
                run("systemctl", "disable", firewall.unit)
            if loaded:
                run("nft", "delete", *TABLE)
            for path in files:
                os.unlink(path)
            run("systemctl", "daemon-reload")
        return {"changed": bool(loaded or files), "trying": False}

    if check and not (os.path.exists("/usr/sbin/nft") and os.path.isdir(firewall.folder)):
        return {"changed": True, "trying": False}
    candidate = firewall.path + ".new"
    if state == "kept":
        firewall.rules = read(candidate) or firewall.written
    wanted = firewall.wanted()
    differs = wanted != firewall.loaded()
    if state == "kept":
        if differs:
            raise Wrong(
                f"the new rules were taken back after {firewall.seconds} s, before a fresh "
                "connection had proven the way in: run the same command again; if it stays so, "
                "see spark_ssh_ports"
            )
        if os.path.exists(candidate):
            os.replace(candidate, firewall.path)
        firewall.forget_undo()
    elif state == "tried" and (
        differs or firewall.rules != firewall.written or os.path.exists(FORMER)
    ):
        if not check:
            replace(candidate, firewall.rules)
            firewall.plan_undo()
            run("nft", "--file", candidate)
        return {"changed": True, "trying": not check}
    elif state == "present":
        differs = differs or firewall.fragments_differ()
        if differs and not check:
            firewall.write_fragments()
            run("nft", "--file", firewall.path)
        return {"changed": differs, "trying": False}
    verbs = firewall.boot_differs()
    if not check:
        for verb in verbs:
            run("systemctl", verb, firewall.unit)
    return {"changed": bool(verbs) or state == "kept", "trying": False}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "state": {"choices": ["tried", "kept", "present", "absent"], "default": "present"},
            "rules": {"type": "str"},
            "fragment": {"type": "str"},
            "text": {"type": "str", "default": ""},
            "unit": {"type": "str", "default": "femto-firewall.service"},
            "seconds": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    firewall = Firewall(module.params)
    if module.params["state"] == "present" and not firewall.written:
        module.exit_json(changed=False, trying=False, msg="there is no firewall of ours")
    try:
        result = change(firewall, module.params["state"], module.check_mode)
    except (Wrong, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
