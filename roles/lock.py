"""Write the locks of what the roles install: every package, its version and its hashes.

    python3 roles/lock.py              after a change of requirements.txt or of a packages.txt
    python3 roles/lock.py --upgrade    all; newer versions of what requirements.txt does not pin
    python3 roles/lock.py --check      change nothing; say which locks are old, exit status 1

One lock for each role and each Python: roles/ROLE/files/locks/PYTHON.txt, from the names in
roles/ROLE/files/packages.txt and the versions in requirements.txt. They hold for x86_64 and
aarch64, and for every system that the roles support. Needs uv (requirements.txt) and a package
index; --check needs neither.
"""

import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROLES = Path(__file__).resolve().parent
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
# The oldest C library among the supported systems is Ubuntu 22.04's.
PLATFORMS = {"x86_64": "x86_64-manylinux_2_35", "aarch64": "aarch64-manylinux_2_35"}
# What packages are installed with, and those are built with that come as source.
TOOLS = ("pip", "setuptools")
# Source packages without compiled parts: nodes build them. Any other would need a compiler there.
SOURCES = ("pyspark",)
REMEDY = "run: python3 roles/lock.py"


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names_of(role: Path) -> list[str]:
    lines = (role / "files/packages.txt").read_text(encoding="utf-8").splitlines()
    return [*TOOLS, *(normal(n) for n in lines if n and not n.startswith("#"))]


def pins_for(python: str) -> dict[str, str]:
    """Name -> version of what requirements.txt pins for this Python."""
    found = {}
    for line in (ROLES.parent / "requirements.txt").read_text(encoding="utf-8").splitlines():
        pin = re.match(
            r'([\w.-]+)(?:\[[\w,-]+\])?==([\w.+!]+)(?:; python_version (<|>=) "([\d.]+)")?$', line
        )
        if pin:
            name, version, relation, than = pin.groups()
            newer = than is None or number(python) >= number(than)
            if relation is None or newer == (relation == ">="):
                found[normal(name)] = version
        elif line and not line.startswith("#"):
            sys.exit(f'requirements.txt: {line}: a pin is NAME==VERSION; python_version >= "3.N"')
    return found


def number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def versions_in(lock: Path) -> dict[str, str]:
    if not lock.is_file():
        return {}
    return dict(re.findall(r"^([\w.-]+)==([\w.+!]+)", lock.read_text(encoding="utf-8"), re.M))


def header(names: list[str]) -> str:
    return (
        "# Written by roles/lock.py from packages.txt and requirements.txt: change those, "
        "and run it.\n"
        f"# For: {' '.join(names)}\n"
    )


def faults(role: Path, python: str) -> list[str]:
    """What of this lock is not as its packages.txt and requirements.txt say."""
    lock, names, pins = role / f"files/locks/{python}.txt", names_of(role), pins_for(python)
    if not lock.is_file():
        return [f"{lock}: is missing"]
    found = []
    if not lock.read_text(encoding="utf-8").startswith(header(names)):
        found.append(f"{lock}: is not for the names in {role / 'files/packages.txt'}")
    locked = versions_in(lock)
    found += [
        f"{lock}: has {name} {version}, requirements.txt {pins[name]}"
        for name, version in locked.items()
        if pins.get(name, version) != version
    ]
    return found + [
        f"{lock}: {name} is not pinned in requirements.txt" for name in names if name not in pins
    ]


def resolve(names: list[str], versions: dict[str, str], python: str, platform: str):
    """uv's list of packages for one Python and one kind of machine; None if there is none."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, constraints, lock = (Path(folder, n) for n in ("in", "constraints", "pylock.toml"))
        wanted.write_text("\n".join(names))
        constraints.write_text("\n".join(f"{n}=={v}" for n, v in versions.items()))
        options = f"--python-version {python} --python-platform {platform} --format pylock.toml"
        command = [sys.executable, "-m", "uv", "pip", "compile", "--no-config", "--quiet"]
        done = subprocess.run(
            [*command, *options.split(), "-c", constraints, "-o", lock, wanted],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        if done.returncode:
            print(done.stderr.strip(), file=sys.stderr)
            return None
        return read(lock.read_text(encoding="utf-8"))


def read(pylock: str) -> dict[tuple[str, str], set[str]]:
    """(name, version) -> hashes of the wheels; of the source where there is no wheel."""
    packages = {}
    for block in pylock.split("[[packages]]\n")[1:]:
        name = re.search(r'^name = "(.+)"', block, re.M)[1]
        version = re.search(r'^version = "(.+)"', block, re.M)[1]
        wheels = re.search(r"^wheels = \[(.*?)\]$", block, re.M | re.S)
        if wheels is None and name not in SOURCES:
            sys.exit(
                f"{name} {version} has no wheel, and nodes have no compiler: pin another version"
            )
        part = wheels[1] if wheels else re.search(r"^sdist = (.*)$", block, re.M)[1]
        packages[name, version] = set(re.findall(r'sha256 = "([0-9a-f]{64})"', part))
    return packages


def lock(role: Path, python: str, upgrade: bool) -> str:
    target, names, pins = role / f"files/locks/{python}.txt", names_of(role), pins_for(python)
    kept = {} if upgrade else versions_in(target)
    found: dict[tuple[str, str], dict[str, set[str]]] = {}
    for machine, platform in PLATFORMS.items():
        # What was locked stays, where it still fits.
        packages = kept and resolve(names, kept | pins, python, platform)
        packages = packages or resolve(names, pins, python, platform)
        if not packages:
            sys.exit(f"{role.name}: no versions fit for Python {python} on {machine}")
        for package, hashes in packages.items():
            found.setdefault(package, {})[machine] = hashes
    lines = []
    for (name, version), machines in sorted(found.items()):
        (*_, only) = machines
        marker = "" if len(machines) == len(PLATFORMS) else f' ; platform_machine == "{only}"'
        lines.append(
            " \\\n    ".join(
                [f"{name}=={version}{marker}"]
                + [f"--hash=sha256:{h}" for h in sorted(set().union(*machines.values()))]
            )
        )
    built = [name for name, _ in sorted(found) if name in SOURCES]
    told = f"# From source: {' '.join(built)}\n" if built else ""
    target.parent.mkdir(exist_ok=True)
    target.write_text(header(names) + told + "\n".join(lines) + "\n", encoding="utf-8")
    return f"{target}: {len(found)} packages"


def main() -> int:
    roles = sorted(p.parent.parent for p in ROLES.glob("*/files/packages.txt"))
    wrong = [f for role in roles for python in PYTHONS for f in faults(role, python)]
    if sys.argv[1:] == ["--check"]:
        for fault in wrong:
            print(fault, file=sys.stderr)
        if wrong:
            print(REMEDY, file=sys.stderr)
        return 1 if wrong else 0
    unpinned = sorted({f for f in wrong if f.endswith("is not pinned in requirements.txt")})
    if unpinned:
        sys.exit("\n".join(unpinned))
    upgrade = sys.argv[1:] == ["--upgrade"]
    old = [(r, p, upgrade) for r in roles for p in PYTHONS if upgrade or faults(r, p)]
    # Most of the time is spent waiting for the index.
    with ThreadPoolExecutor(4) as pool:
        for said in pool.map(lambda job: lock(*job), old):
            print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
