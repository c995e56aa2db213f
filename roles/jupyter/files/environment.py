"""The environments of JupyterLab on this host, named after their lock.

Standard input is JSON: Python's minor version -> the SHA-256 of its lock.

    python3 environment.py look ROOT
        Print as JSON the name, whether it is complete, and the digest of the notebooks that are
        installed.
    python3 environment.py tidy ROOT UNIT
        Remove those of old versions, and print which.

Removed is nothing that the service's unit names or a process uses, and nothing at all unless the
environment of this lock is complete.
"""

import hashlib
import json
import os
import platform
import shutil
import sys
from pathlib import Path


def name_of(locks: dict) -> str:
    """As the module femto_environment, which builds them, names packages."""
    release = ".".join(map(str, sys.version_info[:2]))
    if release not in locks:
        sys.exit(f"no lock for Python {release}: name one of {', '.join(locks)} in jupyter_python")
    what = json.dumps([locks[release], [], platform.machine()])
    return f"{release}-{hashlib.sha256(what.encode()).hexdigest()[:12]}"


def text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:  # not there, or a process that has ended
        return ""


def look(wanted: str, root: Path) -> None:
    found = {
        "name": wanted,
        "complete": (root / "envs" / wanted / ".complete").exists(),
        "notebooks": text_of(root / "notebooks.digest"),
    }
    print(json.dumps(found))


def tidy(wanted: str, root: Path, unit: Path) -> None:
    if not (root / "envs" / wanted / ".complete").exists():
        return
    processes = [
        p for p in Path("/proc").iterdir() if p.name.isdigit() and p.name != str(os.getpid())
    ]
    used = [text_of(unit)] + [text_of(p / name) for p in processes for name in ("cmdline", "maps")]
    for path in sorted(p for p in (root / "envs").iterdir() if p.is_dir()):
        if path.name != wanted and not any(f"{path}/" in text for text in used):
            shutil.rmtree(path)
            print("removed", path)


def main() -> None:
    act = {"look": look, "tidy": tidy}[sys.argv[1]]
    act(name_of(json.load(sys.stdin)), *map(Path, sys.argv[2:]))


main()
