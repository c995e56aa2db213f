"""Watch a job that runs as a transient unit of systemd on a host, until it has ended.

    femto_watch:
      unit: femto-compress-1234     its unit, which stays after its end (RemainAfterExit)
      folder: /var/lib/...          where its output is written, to `stdout` and `stderr`
      account: spark                the account that reads them
      lost_seconds: 600             how long to try again after a lost connection

Prints the newest line of its progress (`12:31:05 [####----] 12/48 pictures ...`, on stderr) as it
comes. Every look at the host is a command of seconds: a connection that is lost meanwhile is made
again. Returns the job's exit status `rc`, `stdout` and `stderr`, these without lines of progress.
Fails if the unit is gone.
"""

import shlex
import time

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()

PROGRESS = "^[0-9][0-9]:[0-9][0-9]:[0-9][0-9] "
# Waits some seconds for a new line or the end, then tells the unit's state and the newest line.
LOOK = rf"""
cd "$2" || exit 4
properties=LoadState,ActiveState,SubState,ExecMainCode,ExecMainStatus
last() {{ grep '{PROGRESS}' stderr 2> /dev/null | tail -n 1; }}
for turn in 1 2 3 4 5 6 7 8 9 10; do
    state=$(systemctl show --property=$properties "$1.service")
    case $state in
        *LoadState=not-found* | *SubState=exited*) break ;;
        *ActiveState=failed* | *ActiveState=inactive*) break ;;
    esac
    [ "$(last)" = "$3" ] || break
    sleep 1
done
printf '%s\n' "$state"
printf 'line=%s\n' "$(last)"
"""
READ = rf"""cd "$1" && grep -v '{PROGRESS}' "$2" | tail -c 200000"""
KILLED = ("2", "3")  # of ExecMainCode: by a signal, and with its memory written down


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset({"unit", "folder", "account", "lost_seconds"})

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        self._account = self._task.args["account"]
        unit, folder = self._task.args["unit"], self._task.args["folder"]
        host, line = task_vars["inventory_hostname"], ""
        while True:
            told = self._look(LOOK, unit, folder, line, host=host)
            state = dict(item.partition("=")[::2] for item in told.splitlines() if "=" in item)
            if state["line"] and state["line"] != line:
                line = state["line"]
                display.display(f"{host}: {line}")
            if state["LoadState"] == "not-found" or state["ActiveState"] == "inactive":
                result.update(
                    failed=True,
                    msg=f"{host}: the job is gone ({unit}): somebody has stopped it, or {host} was "
                    "restarted; the same command goes on where it was",
                )
                return result
            if state["SubState"] == "exited" or state["ActiveState"] == "failed":
                break
        rc = int(state["ExecMainStatus"]) + (128 if state["ExecMainCode"] in KILLED else 0)
        # An exit status of its own, for the caller to judge: nothing is wrong with watching it.
        result.update(changed=True, failed=False, rc=rc)
        for stream in ("stdout", "stderr"):
            result[stream] = self._look(READ, folder, stream, host=host).strip()
            result[f"{stream}_lines"] = result[stream].splitlines()
        return result

    def _look(self, script: str, *arguments: str, host: str) -> str:
        """What a short script of the account writes; the connection may be lost meanwhile."""
        account = shlex.quote(self._account)
        command = f"setpriv --reuid={account} --regid={account} --init-groups "
        command += " ".join(map(shlex.quote, ("sh", "-c", script, "sh", *arguments)))
        lost = None
        while True:
            try:
                done = self._low_level_execute_command(command)
            except AnsibleConnectionFailure:
                now = time.monotonic()
                if lost is None:
                    lost = now
                    display.display(
                        f"{host}: the connection is lost, the job goes on; trying again"
                    )
                elif now - lost > float(self._task.args.get("lost_seconds", 600)):
                    raise
                time.sleep(5)
                continue
            # grep ends with 1 where no line is left.
            if done["rc"] not in (0, 1):
                said = done["stderr"] or done["stdout"]
                raise AnsibleError(f"{host}: the job cannot be looked at: {said}")
            return done["stdout"]
