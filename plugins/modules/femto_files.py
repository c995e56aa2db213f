"""Write all files and folders of a role in one execution, and restart what uses changed ones."""

DOCUMENTATION = r"""
module: femto_files
short_description: Write files and folders, all in one execution
description:
  - Content, owner, group and mode of many files and folders, with check mode and diff.
  - >-
    Every file that would change is validated before the first one is replaced; each is replaced in
    one step. No link is followed below what is named, neither by reading nor by changing owners.
  - >-
    When units of systemd have changed it is reloaded, and services that use a changed file are
    restarted, unless they do not run.
author: The femto authors
options:
  files:
    description: What there shall be, in this order.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Where it is.
        type: path
        required: true
      state:
        description: A file, a folder, or nothing (what is there is removed).
        type: str
        choices: [file, directory, absent]
        default: file
      content:
        description: The file's text.
        type: str
      secret:
        description: The file's text instead of C(content), if no output may show it.
        type: str
      keep:
        description: Leave the text of a file that is there.
        type: bool
        default: false
      owner:
        description: Its owner.
        type: str
        default: root
      group:
        description: Its group.
        type: str
        default: root
      mode:
        description: Its mode, octal; 0644 for files and 0755 for folders if not given.
        type: str
      validate:
        description: >-
          Command that fails if the text is wrong. %s is a file of the same name with the text.
        type: str
      restarts:
        description: Services to restart when it has changed.
        type: list
        elements: str
        default: []
"""

EXAMPLES = r"""
- name: Write the settings
  femto_files:
    files:
      - {path: /etc/spark, state: directory}
      - path: /etc/spark/spark-env.sh
        content: "{{ lookup('ansible.builtin.template', 'spark-env.sh.j2') | string }}"
        validate: bash -n %s
        restarts: [spark-worker.service]
"""

RETURN = r"""
paths:
  description: What has changed.
  returned: always
  type: list
restarted:
  description: Services that use it; those of them that ran were restarted.
  returned: always
  type: list
"""

import contextlib
import grp
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import tempfile

from ansible.module_utils.basic import AnsibleModule

MOST = 1 << 20  # bytes of text that a diff shows


class Wrong(Exception):
    """What cannot be done, in one line with its remedy."""


class Entry:
    """One wanted file or folder, and what is there now."""

    def __init__(self, wanted: dict, check: bool):
        self.path, self.state = wanted["path"], wanted["state"]
        self.keep, self.validate = wanted["keep"], wanted["validate"]
        self.restarts, self.is_secret = wanted["restarts"], wanted["secret"] is not None
        text = wanted["secret"] if self.is_secret else wanted["content"]
        if self.state == "file" and text is None:
            raise Wrong(f"{self.path}: a file needs content or secret")
        self.wanted = (text or "").encode()
        self.mode = int(wanted["mode"] or ("0755" if self.state == "directory" else "0644"), 8)
        # In check mode on a bare host an account may not be there yet.
        self.uid = self.number(pwd.getpwnam, wanted["owner"], "pw_uid", check)
        self.gid = self.number(grp.getgrnam, wanted["group"], "gr_gid", check)
        try:
            self.there = os.lstat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            self.there = None
        self.now = None
        if self.there and stat.S_ISREG(self.there.st_mode) and self.state == "file":
            with open(os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
                self.now = file.read()
            if self.keep:
                self.wanted = self.now
        if self.there and stat.S_ISDIR(self.there.st_mode) and self.state == "file":
            raise Wrong(f"{self.path} is a folder, not a file: move it away")
        if self.there and self.state == "directory" and not stat.S_ISDIR(self.there.st_mode):
            kind = "a link" if stat.S_ISLNK(self.there.st_mode) else "a file"
            raise Wrong(
                f"{self.path} is {kind}, not a folder: name the folder itself, or move it away"
            )

    def number(self, find, name: str, field: str, check: bool):
        try:
            return getattr(find(name), field)
        except KeyError:
            if check:
                return None
            raise Wrong(f"{self.path}: there is no account or group {name} on this host") from None

    def attributes(self):
        return (self.there.st_uid, self.there.st_gid, stat.S_IMODE(self.there.st_mode))

    def text_differs(self) -> bool:
        return self.state == "file" and self.now != self.wanted

    def differs(self) -> bool:
        if self.state == "absent" or self.there is None:
            return (self.state == "absent") != (self.there is None)
        return self.text_differs() or self.attributes() != (self.uid, self.gid, self.mode)

    def check(self) -> None:
        """Run the validation on a copy of the same name, which units of systemd need."""
        if not (self.validate and self.text_differs()):
            return
        with tempfile.TemporaryDirectory() as place:
            copy = os.path.join(place, os.path.basename(self.path))
            with open(os.open(copy, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(self.wanted)
            command = [part.replace("%s", copy) for part in shlex.split(self.validate)]
            try:
                done = subprocess.run(command, capture_output=True, text=True)
            except OSError as error:
                raise Wrong(f"{self.path} cannot be validated: {error}") from None
        if done.returncode:
            said = "" if self.is_secret else ": " + " ".join((done.stderr or done.stdout).split())
            raise Wrong(f"{self.path} would be wrong and stays as it was{said[:2000]}")

    def apply(self) -> None:
        if self.state == "absent":
            # It may have gone with a folder that was named before it.
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISDIR(self.there.st_mode):
                    shutil.rmtree(self.path)
                else:
                    os.unlink(self.path)
            return
        parent = os.path.dirname(self.path)
        os.makedirs(parent, mode=0o755, exist_ok=True)
        if self.state == "directory":
            if self.there is None:
                os.mkdir(self.path, 0o700)
            self.own(os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))
        elif self.text_differs():
            handle, part = tempfile.mkstemp(dir=parent, prefix=".femto-")
            try:
                with open(handle, "wb", closefd=False) as file:
                    file.write(self.wanted)
                self.own(handle)
                os.replace(part, self.path)
            except BaseException:
                os.unlink(part)
                raise
        else:
            self.own(os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW))

    def own(self, handle: int) -> None:
        """Owner before mode: changing the owner clears bits of the mode."""
        os.fchown(handle, self.uid, self.gid)
        os.fchmod(handle, self.mode)
        os.close(handle)

    def diff(self) -> dict:
        before, after = [], []
        if self.there is None or self.state == "absent":
            before.append("absent" if self.there is None else "there")
            after.append(self.state)
        if self.state != "absent":
            if self.there is not None:
                before.append("owner {}:{}, mode {:04o}".format(*self.attributes()))
            after.append(f"owner {self.uid}:{self.gid}, mode {self.mode:04o}")
        if self.text_differs():
            if self.is_secret:
                before.append("(text that is not shown)")
                after.append("(another text that is not shown)")
            else:
                before.append((self.now or b"")[:MOST].decode(errors="replace"))
                after.append(self.wanted[:MOST].decode(errors="replace"))
        header = self.path
        return {
            "before_header": header,
            "after_header": header,
            "before": "\n".join(before) + "\n",
            "after": "\n".join(after) + "\n",
        }


def systemctl(*arguments: str) -> None:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise Wrong(f"systemctl {' '.join(arguments)}: {' '.join(done.stderr.split())}")


def write(entries: list, check: bool) -> list:
    """Bring all entries about; the services that were restarted."""
    restarts = list(dict.fromkeys(unit for entry in entries for unit in entry.restarts))
    # What validates, and what a unit starts, may not be there before the role has been applied.
    if check:
        return restarts
    for entry in entries:
        entry.check()
    written = []
    try:
        for entry in entries:
            entry.apply()
            written.append(entry)
    except OSError as error:
        raise Wrong(f"{error.filename or entry.path}: {error.strerror}") from None
    finally:
        # Also for those before one that failed: the next run would find them as they should be.
        with contextlib.ExitStack() as last:
            units = [unit for entry in written for unit in entry.restarts]
            if units:
                # It leaves alone what does not run: a service that was stopped stays so.
                last.callback(systemctl, "try-restart", *dict.fromkeys(units))
            if any(entry.path.startswith("/etc/systemd/system/") for entry in written):
                last.callback(systemctl, "daemon-reload")
    return restarts


class Module(AnsibleModule):
    def _log_invocation(self) -> None:
        """Not into the host's journal: there texts of several lines are written escaped, so that
        Ansible does not recognise the secrets among them."""


def main() -> None:
    module = Module(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "state": {"choices": ["file", "directory", "absent"], "default": "file"},
                    "content": {"type": "str"},
                    "secret": {"type": "str", "no_log": True},
                    "keep": {"type": "bool", "default": False},
                    "owner": {"type": "str", "default": "root"},
                    "group": {"type": "str", "default": "root"},
                    "mode": {"type": "str"},
                    "validate": {"type": "str"},
                    "restarts": {"type": "list", "elements": "str", "default": []},
                },
                "mutually_exclusive": [["content", "secret"]],
            },
        },
        supports_check_mode=True,
    )
    # For folders above those that are named.
    os.umask(0o022)
    try:
        entries = [Entry(wanted, module.check_mode) for wanted in module.params["files"]]
        differing = [entry for entry in entries if entry.differs()]
        diffs = [entry.diff() for entry in differing]
        restarted = write(differing, module.check_mode)
    except Wrong as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(differing),
        diff=diffs,
        paths=[entry.path for entry in differing],
        restarted=restarted,
    )


if __name__ == "__main__":
    main()
