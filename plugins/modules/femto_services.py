"""Start and stop services, all in one execution."""

DOCUMENTATION = r"""
module: femto_services
short_description: Start and stop services, all in one execution
description: Services of systemd, now and at boot, with check mode.
author: The femto authors
options:
  started:
    description: Services that shall run, started in this order.
    type: list
    elements: str
    default: []
  stopped:
    description: Services that shall not run. Those that are not installed are left alone.
    type: list
    elements: str
    default: []
  boot:
    description: Whether the same shall hold when the host starts; otherwise that stays as it is.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Run what belongs on this host
  femto_services:
    started: [spark-worker.service]
    stopped: [spark-master.service]
"""

RETURN = r"""
started:
  description: What was started or is started at boot now.
  returned: always
  type: list
stopped:
  description: What was stopped or is no more started at boot.
  returned: always
  type: list
"""

import subprocess

from ansible.module_utils.basic import AnsibleModule

PROPERTIES = ("Id", "LoadState", "ActiveState", "UnitFileState")


def states(names: list) -> dict:
    """Unit -> its properties."""
    if not names:
        return {}
    command = ["systemctl", "show", "--property=" + ",".join(PROPERTIES), *names]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    blocks = [dict(x.split("=", 1) for x in b.splitlines()) for b in said.strip().split("\n\n")]
    return dict(zip(names, blocks, strict=True))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "started": {"type": "list", "elements": "str", "default": []},
            "stopped": {"type": "list", "elements": "str", "default": []},
            "boot": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    started, stopped = module.params["started"], module.params["stopped"]
    boot = module.params["boot"]
    found = states(started + stopped)

    def systemctl(verb: str, names: list) -> None:
        if not names or module.check_mode:
            return
        done = subprocess.run(["systemctl", verb, *names], capture_output=True, text=True)
        if done.returncode:
            said = " ".join(done.stderr.split())
            units = " ".join(f"-u {name}" for name in names)
            module.fail_json(msg=f"systemctl {verb}: {said} (on the host, see: journalctl {units})")

    absent = [name for name in started if found[name]["LoadState"] == "not-found"]
    if absent and not module.check_mode:
        module.fail_json(msg=f"{', '.join(absent)} is not installed: run site.yml first")
    stopped = [name for name in stopped if found[name]["LoadState"] != "not-found"]
    idle = ("inactive", "failed", "deactivating")
    stop = [name for name in stopped if found[name]["ActiveState"] not in ("inactive", "failed")]
    disable = [n for n in stopped if boot and found[n]["UnitFileState"].startswith("enabled")]
    enable = [n for n in started if boot and found[n]["UnitFileState"] != "enabled"]
    start = [name for name in started if found[name]["ActiveState"] in idle]
    systemctl("disable", disable)
    systemctl("stop", stop)
    systemctl("enable", enable)
    systemctl("start", start)
    module.exit_json(
        changed=bool(disable or stop or enable or start),
        started=sorted({*start, *enable}),
        stopped=sorted({*stop, *disable}),
    )


if __name__ == "__main__":
    main()
