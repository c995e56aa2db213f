"""Python environments in two layers: locked packages, which many share, and femto on top."""

DOCUMENTATION = r"""
module: femto_environment
short_description: Python environments of locked packages, with femto on top
description:
  - >-
    A folder of packages is named after its lock and after everything else that decides what is in
    it; it is built once and shared by all environments that want the same.
  - >-
    An environment below O(settings.root) is femto and a link to its packages. One of them is
    C(current).
  - What is whole has a file C(.complete), written last.
author: The femto authors
options:
  state:
    description:
      - C(look) changes nothing and tells what is there; C(packages) builds the packages.
      - C(environment) installs femto on top of them, which takes seconds and asks no index.
      - >-
        C(active) switches C(current) to the environment in one step, and removes environments and
        packages that are neither kept nor used by a process.
    type: str
    choices: [look, packages, environment, active]
    default: look
  lock:
    description: The lock itself, for O(state=packages).
    type: str
    default: ""
  archive:
    description: >-
      femto as a C(.tar) on the host, for O(state=environment): its wheel, and the commands that lie
      beside it.
    type: path
  settings:
    description: What is wanted; the same in every state.
    type: dict
    required: true
    suboptions:
      root:
        description: Folder of the environments, in C(envs), and of C(current).
        type: path
        default: /opt/femto
      packages_folder:
        description: Folder of the packages; C(packages) below O(settings.root) if not given.
        type: path
      python:
        description: The Python that environments are made with.
        type: path
        default: /usr/bin/python3
      locks:
        description: Minor version of Python, such as C(3.12), to the SHA-256 of its lock.
        type: dict
        default: {}
      extra:
        description: Further packages, as pip's requirements, which no lock has.
        type: list
        elements: str
        default: []
      pip_options:
        description: Further options of pip.
        type: list
        elements: str
        default: []
      cache:
        description: Folder for pip's cache, its temporary files, and the wheels that it has built.
        type: path
      needed_mb:
        description: Free space to begin with, in MB.
        type: int
        default: 0
      version:
        description: femto's version.
        type: str
        default: ""
      digest:
        description: Digest of femto's files. Without it there are only packages.
        type: str
        default: ""
      name:
        description: An environment that is there already, instead of what follows from the above.
        type: str
        default: ""
      keep:
        description: How many environments to keep, the active one included.
        type: int
        default: 2
      account:
        description: Account that is asked for.
        type: str
        default: ""
"""

EXAMPLES = r"""
- name: Which environment this host has, and which it should have
  femto_environment:
    settings:
      locks: {"3.12": 1f0c…}
      version: 0.1.0
      digest: 9a7d…
"""

RETURN = r"""
python:
  description: Minor version of the Python that environments are made with.
  returned: always
  type: str
name:
  description: Name of the environment.
  returned: if there is to be femto
  type: str
path:
  description: Folder of the environment.
  returned: if there is to be femto
  type: str
complete:
  description: Whether the environment is there, and whole.
  returned: if there is to be femto
  type: bool
packages:
  description: Folder of the packages.
  returned: always
  type: str
packages_complete:
  description: Whether they are there, and whole.
  returned: always
  type: bool
stale:
  description: Whether O(state=active) would change anything.
  returned: if there is to be femto
  type: bool
spark:
  description: Spark's folder in the active environment and in this one, without links, or empty.
  returned: if there is to be femto
  type: list
missing:
  description: Debian packages without which nothing can be built.
  returned: always
  type: list
account:
  description: Whether the account is there.
  returned: always
  type: bool
removed:
  description: Folders that were removed.
  returned: always
  type: list
"""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import pwd
import re
import shutil
import subprocess
import tarfile

from ansible.module_utils.basic import AnsibleModule

TOOLS = ("pip", "setuptools")
# What Python reads as it starts: the environment's own modules, then those of its packages.
PATHS = """\
import os, sys; sys.path[:] = map(os.path.realpath, sys.path)
import site; site.addsitedir({!r})
"""


class Failure(Exception):
    """What the user is told."""


def run(*command, **options):
    """Raises Failure with the command's own words."""
    done = subprocess.run(
        [str(c) for c in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        **options,
    )
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        told = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["no message"]
        raise Failure(told[0])
    return done.stdout.strip()


def digest(*what) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o644)


def is_complete(folder: str) -> bool:
    return os.path.isfile(f"{folder}/.complete")


def age(path: str) -> float:
    """When the file was last written, seconds; 0 if there is none."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0


@contextlib.contextmanager
def locked(path: str):
    """Wait until no other run works at this."""
    with open(path, "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# What a process uses


def processes(roots: list) -> list:
    """(start, words) of every process whose program, files, folders, arguments or environment name
    something below one of the roots; `start` in seconds since 1970."""
    found = []
    with open("/proc/stat", encoding="ascii") as file:
        boot = int(re.search(r"^btime (\d+)", file.read(), re.M).group(1))
    for number in filter(str.isdigit, os.listdir("/proc")):
        folder = f"/proc/{number}"
        words = []
        for name in ("exe", "cwd", "root"):
            with contextlib.suppress(OSError):
                words.append(os.readlink(f"{folder}/{name}"))
        with contextlib.suppress(OSError):
            for name in os.listdir(f"{folder}/fd"):
                with contextlib.suppress(OSError):
                    words.append(os.readlink(f"{folder}/fd/{name}"))
        for name in ("maps", "cmdline", "environ"):
            with contextlib.suppress(OSError), open(f"{folder}/{name}", "rb") as file:
                words.append(file.read().decode(errors="replace"))
        text = "\0".join(words)
        if any(root in text for root in roots):
            with contextlib.suppress(OSError), open(f"{folder}/stat", encoding="utf-8") as file:
                ticks = int(file.read().rpartition(")")[2].split()[19])
                found.append((boot + ticks / os.sysconf("SC_CLK_TCK"), text))
    return found


def names(text: str, folder: str) -> bool:
    return re.search(re.escape(folder) + r"(?![^/\0\s:])", text) is not None


# The layers


class Layers:
    def __init__(self, wanted: dict):
        self.wanted = wanted
        self.root = wanted["root"].rstrip("/")
        self.envs = f"{self.root}/envs"
        self.current = f"{self.root}/current"
        self.shelf = wanted["packages_folder"] or f"{self.root}/packages"
        self.cache = wanted["cache"] or f"{self.root}/cache"
        try:
            self.python = run(
                wanted["python"], "-c", "import sys; print('%d.%d' % sys.version_info[:2])"
            )
        except (OSError, Failure) as error:
            raise Failure(
                f"{wanted['python']} does not run ({error}): name a Python in scipy_python"
            ) from error
        self.has_femto = bool(wanted["digest"] or wanted["name"])
        if wanted["name"]:
            self.name = wanted["name"]
            self.packages = os.path.realpath(f"{self.envs}/{self.name}/packages")
            return
        if self.python not in wanted["locks"]:
            known = ", ".join(sorted(wanted["locks"], key=lambda v: [int(n) for n in v.split(".")]))
            raise Failure(
                f"{wanted['python']} is Python {self.python}, for which there is no lock: "
                f"name one of {known} in scipy_python"
            )
        # The list alone where it is empty, so that the name is the same as without it.
        key = digest(wanted["locks"][self.python], wanted["extra"], platform.machine())
        self.packages = f"{self.shelf}/{self.python}-{key}"
        self.name = f"{wanted['version']}-{digest(wanted['digest'], self.packages)}"

    @property
    def path(self) -> str:
        return f"{self.envs}/{self.name}"

    def look(self) -> dict:
        found = {
            "python": self.python,
            "packages": self.packages,
            "packages_complete": is_complete(self.packages),
            "missing": self.missing(),
            "account": self.account() is not None,
        }
        if self.has_femto:
            complete = is_complete(self.path) and is_complete(self.packages)
            found.update(
                name=self.name,
                path=self.path,
                complete=complete,
                stale=os.path.realpath(self.current) != self.path or bool(self.removable()),
                spark=[
                    os.path.realpath(p) if os.path.exists(p) else ""
                    for p in (f"{self.current}/spark", f"{self.path}/spark")
                ],
            )
        return found

    def missing(self) -> list:
        found = []
        venv = subprocess.run(
            [self.wanted["python"], "-c", "import ensurepip, venv"], stderr=subprocess.DEVNULL
        )
        if venv.returncode:
            found.append("python3-venv")
        if not os.path.exists("/etc/ssl/certs/ca-certificates.crt"):
            found.append("ca-certificates")
        return found

    def account(self):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(self.wanted["account"])

    def build_packages(self, lock: str) -> None:
        os.makedirs(self.shelf, exist_ok=True)
        os.makedirs(self.cache, exist_ok=True)
        with locked(f"{self.shelf}/.lock"):
            if is_complete(self.packages):
                return
            free = shutil.disk_usage(self.shelf).free >> 20
            if free < self.wanted["needed_mb"]:
                raise Failure(
                    f"{self.root} has {free} MB free, an environment needs "
                    f"{self.wanted['needed_mb']}: free some, or name another scipy_root"
                )
            try:
                self.install(lock)
            except Failure as error:
                raise Failure(
                    f"pip could not install the packages: {error}: check this host's network and "
                    "disk, then run the same command again"
                ) from error
            write(f"{self.packages}/.complete", "")

    def pip(self, *arguments) -> str:
        environment = dict(
            os.environ,
            # /tmp may be small and in memory; what pip has built once, the next environment reuses.
            TMPDIR=self.cache,
            PIP_CACHE_DIR=f"{self.cache}/pip",
            PIP_ROOT_USER_ACTION="ignore",
        )
        options = ["--no-input", "--disable-pip-version-check", "--progress-bar=off", "--quiet"]
        command = [f"{self.packages}/bin/python", "-m", "pip", arguments[0], *options]
        return run(*command, *self.wanted["pip_options"], *arguments[1:], env=environment)

    def install(self, lock: str) -> None:
        place = self.packages
        run(self.wanted["python"], "-m", "venv", "--clear", place)
        entries = re.findall(r"^[\w.-]+==(?:.*\\\n)*.*$", lock, re.M)
        tools = [e for e in entries if e.split("==")[0] in TOOLS]
        write(f"{place}/tools.txt", "\n".join(tools) + "\n")
        hashed = ["--require-hashes", "--no-deps", "--no-compile"]
        self.pip("install", *hashed, "--only-binary=:all:", "-r", f"{place}/tools.txt")
        rest = [e for e in entries if e not in tools]
        sources = re.search(r"^# From source: (.*)$", lock, re.M)
        for name in sources.group(1).split() if sources else []:
            rest = [self.built(e) if e.split("==")[0] == name else e for e in rest]
        write(f"{place}/requirements.txt", "\n".join(rest) + "\n")
        self.pip("install", *hashed, "--only-binary=:all:", "-r", f"{place}/requirements.txt")
        if self.wanted["extra"]:
            versions = re.findall(r"^[\w.-]+==[\w.+!]+", lock, re.M)
            write(f"{place}/versions.txt", "\n".join(versions) + "\n")
            write(f"{place}/extra.txt", "\n".join(self.wanted["extra"]) + "\n")
            self.pip(
                "install", "--no-compile", "-c", f"{place}/versions.txt", "-r", f"{place}/extra.txt"
            )
        run(f"{place}/bin/python", "-m", "pip", "check", "--disable-pip-version-check")
        # Accounts that run Python may not write here. Tests within packages are imported by nobody.
        command = [f"{place}/bin/python", "-m", "compileall", "-q", "-j", "0", "-x", "/tests?/"]
        subprocess.run([*command, f"{place}/lib"], stdout=subprocess.DEVNULL, check=False)

    def built(self, entry: str) -> str:
        """The requirement of a source package, as one of the wheel that is built of it: once for
        all environments, and for all hosts that share the cache."""
        name = entry.split("==")[0]
        checked = "-".join(re.findall(r"--hash=sha256:(\w+)", entry))
        shelf = f"{self.cache}/wheels/{checked[:32]}"
        if not wheels(shelf):
            os.makedirs(shelf, exist_ok=True)
            with locked(f"{shelf}/.lock"):
                if not wheels(shelf):
                    self.build_wheel(entry, shelf)
        (wheel,) = wheels(shelf)
        total = hashlib.sha256()
        with open(f"{shelf}/{wheel}", "rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
        return f"{name} @ file://{shelf}/{wheel} --hash=sha256:{total.hexdigest()}"

    def build_wheel(self, entry: str, shelf: str) -> None:
        part = f"{shelf}/part"
        shutil.rmtree(part, ignore_errors=True)
        os.mkdir(part)
        write(f"{part}/requirements.txt", entry + "\n")
        self.pip(
            *["wheel", "--require-hashes", "--no-deps", "--no-build-isolation"],
            *["--wheel-dir", part, "-r", f"{part}/requirements.txt"],
        )
        (wheel,) = wheels(part)
        os.rename(f"{part}/{wheel}", f"{shelf}/{wheel}")
        shutil.rmtree(part)

    def build_environment(self, archive: str) -> None:
        os.makedirs(self.envs, exist_ok=True)
        path = self.path
        with locked(f"{self.envs}/.lock"):
            if is_complete(path):
                return
            run(self.wanted["python"], "-m", "venv", "--clear", "--without-pip", path)
            os.symlink(os.path.relpath(self.packages, path), f"{path}/packages")
            library = f"lib/python{self.python}/site-packages"
            os.symlink(f"packages/{library}/pyspark", f"{path}/spark")
            # Real paths, not those by way of `current`: who has begun with this environment goes on
            # with it.
            write(f"{path}/{library}/femto.pth", PATHS.format(f"{self.packages}/{library}"))
            with tarfile.open(archive) as packed:
                for entry in packed:
                    target = f"{path}/{entry.name}"
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                    with open(target, "wb") as file:
                        shutil.copyfileobj(packed.extractfile(entry), file)
            (wheel,) = wheels(path)
            try:
                self.install_femto(f"{path}/bin/python")
            except Failure as error:
                raise Failure(f"{wheel} could not be installed: {error}") from error
            os.unlink(f"{path}/{wheel}")
            write(f"{path}/.complete", f"{self.name}\n")

    def install_femto(self, python: str) -> None:
        pip = [python, "-m", "pip", "--isolated", "--disable-pip-version-check"]
        run(*pip, "install", "--no-index", "--no-deps", f"--find-links={self.path}", "femto")
        run(*pip, "check")
        # It came compiled, and nothing is compiled here: better to know now what does not fit.
        run(python, "-c", "from femto.coding import kernels; kernels.road()")

    def activate(self) -> list:
        """Switch, and remove what is not wanted any more; the folders that were removed."""
        if not (is_complete(self.path) and is_complete(self.packages)):
            raise Failure(f"{self.path} is not complete: build it first (--tags scipy_install)")
        with locked(f"{self.envs}/.lock"):
            former = os.path.realpath(self.current)
            if former != self.path:
                if os.path.isdir(former):
                    write(f"{former}/.left", "")
                write(f"{self.path}/.active", "")
                fresh = f"{self.root}/.current"
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(fresh)
                os.symlink(f"envs/{self.name}", fresh)
                os.rename(fresh, self.current)
            return remove(self.removable())

    def removable(self) -> list:
        """Environments that are not kept, and packages that none of the rest needs; nothing that a
        process uses."""
        if not os.path.isdir(self.envs):
            return []
        found = [e.path for e in os.scandir(self.envs) if e.is_dir(follow_symlinks=False)]
        whole = sorted(
            (e for e in found if is_complete(e) and e != self.path),
            key=lambda e: max(age(f"{e}/.active"), age(f"{e}/.left"), age(f"{e}/.complete")),
            reverse=True,
        )
        kept = {self.path, os.path.realpath(self.current), *whole[: self.wanted["keep"] - 1]}
        old = [e for e in found if e not in kept]
        shelf = self.shelf
        shelves = [p.path for p in os.scandir(shelf) if p.is_dir()] if os.path.isdir(shelf) else []
        needed = {os.path.realpath(f"{e}/packages") for e in kept} | {self.packages}
        if not old and needed.issuperset(shelves):
            return []
        running = processes([f"{self.envs}/", f"{shelf}/"])
        old = [e for e in old if not self.is_used(e, running)]
        needed |= {os.path.realpath(f"{e}/packages") for e in found if e not in old}
        return old + unused([p for p in shelves if p not in needed], running)

    def is_used(self, environment: str, running: list) -> bool:
        """Whether a process names it, or began before it was left and uses its packages: modules of
        femto that are loaded leave no trace in /proc."""
        packages = os.path.realpath(f"{environment}/packages")
        left = age(f"{environment}/.left")
        return any(
            names(text, environment) or (start <= left and names(text, packages))
            for start, text in running
        )


def wheels(folder: str) -> list:
    if not os.path.isdir(folder):
        return []
    return [name for name in os.listdir(folder) if name.endswith(".whl")]


def unused(folders: list, running: list) -> list:
    return [f for f in folders if not any(names(text, f) for _, text in running)]


def remove(folders: list) -> list:
    for folder in folders:
        # First what says that it is whole: this may be cut off.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{folder}/.complete")
        shutil.rmtree(folder)
    return folders


def main() -> None:
    text = {"type": "str", "default": ""}
    texts = {"type": "list", "elements": "str", "default": []}
    path = {"type": "path"}
    module = AnsibleModule(
        argument_spec={
            "state": {
                "choices": ["look", "packages", "environment", "active"],
                "default": "look",
            },
            "lock": text,
            "archive": path,
            "settings": {
                "type": "dict",
                "required": True,
                "options": {
                    "root": {"type": "path", "default": "/opt/femto"},
                    "packages_folder": path,
                    "python": {"type": "path", "default": "/usr/bin/python3"},
                    "locks": {"type": "dict", "default": {}},
                    "extra": texts,
                    "pip_options": texts,
                    "cache": path,
                    "needed_mb": {"type": "int", "default": 0},
                    "version": text,
                    "digest": text,
                    "name": text,
                    "keep": {"type": "int", "default": 2},
                    "account": text,
                },
            },
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    state = module.params["state"]
    try:
        layers = Layers(module.params["settings"])
        before = layers.look()
        done = {"look": True, "packages": before["packages_complete"]}
        done.update(environment=before.get("complete"), active=not before.get("stale"))
        changed, removed = not done.get(state, False), []
        if not module.check_mode and changed:
            if state == "packages":
                layers.build_packages(module.params["lock"])
            elif state == "environment":
                layers.build_environment(module.params["archive"])
            else:
                removed = layers.activate()
        module.exit_json(changed=changed, removed=removed, **(layers.look() if changed else before))
    except Failure as failure:
        module.fail_json(msg=str(failure))
    except OSError as error:
        module.fail_json(msg=f"{error}")


if __name__ == "__main__":
    main()
