"""Compiled code on this machine: of which sources it is, where it lies, which of it runs here."""

import functools
import hashlib
import importlib.resources
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..files.whole import write_whole

SOURCES = (
    "build.py", "coding/blocks.py", "coding/cells.py", "coding/classes.py", "coding/contexts.py",
    "coding/entropy.py", "coding/equations.py", "coding/first_layer.py", "coding/kernels.py",
    "coding/kstrings.py", "coding/model.py", "coding/partition.py", "coding/rendition.py",
    "coding/residual.py", "coding/restore.py", "coding/signatures.py", "learning/feature_map.py",
)  # fmt: skip
"""The modules that hold kernels, or constants that are compiled into them."""
FEMTO = __package__.partition(".")[0]
"""The package that they are in."""


@functools.cache
def fingerprint() -> str:
    """SHA-256 of the sources that compiled code is made from; "" if they are not there."""
    digest = hashlib.sha256()
    package = importlib.resources.files(FEMTO)
    try:
        for name in SOURCES:
            digest.update(name.encode() + b"\0" + (package / name).read_bytes())
    except OSError:
        return ""
    return digest.hexdigest()


def _private_folder(path: Path) -> bool:
    """Make `path` a folder that only this user can write, and say whether that succeeded.

    What lies there is executed, so a folder that another account could have filled (below /tmp,
    say) must not be used.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            return False
        if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
            return False
        with tempfile.TemporaryFile(dir=path):
            return True
    except OSError:
        return False


@functools.cache
def cache_folder() -> Path | None:
    """This account's folder for code compiled from these sources; None if there is no place to
    write.

    It is named after the sources' content, so that an update in place can never run stale code, and
    equal copies (an installation, the link to it, the zip that Spark brings) compile once for an
    account.
    """
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    candidates = []
    if os.environ.get("FEMTO_CACHE"):
        candidates.append(Path(os.environ["FEMTO_CACHE"]))
    if os.environ.get("XDG_CACHE_HOME"):
        candidates.append(Path(os.environ["XDG_CACHE_HOME"]) / "femto")
    if os.environ.get("HOME") and Path(os.environ["HOME"]).is_dir():
        candidates.append(Path(os.environ["HOME"]) / ".cache" / "femto")
    candidates.append(Path(tempfile.gettempdir()) / f"femto-{user}")
    for folder in candidates:
        # Both levels: whoever could rename the inner folder could replace it.
        inner = folder / fingerprint()[:16]
        if _private_folder(folder) and _private_folder(inner):
            return inner
    return None


def places() -> Iterator[Path]:
    """The folders in which libraries may lie, the best first: that of the package, those of other
    packages femto in `sys.path`, and the cache of this account, which is not made before it is
    asked for; there is what came with the package in a zip, too. Raises OSError if that cannot be
    put there."""
    package = importlib.resources.files(FEMTO)
    if isinstance(package, Path):
        yield package / "_library"
    yield from (Path(entry, FEMTO, "_library") for entry in sys.path if entry)
    folder = cache_folder()
    if folder is None:
        return
    if not isinstance(package, Path):
        for name in map(library_name, targets()):
            zipped, kept = package / "_library" / name, folder / name
            if usable(zipped):
                data = zipped.read_bytes()
                if not kept.is_file() or kept.read_bytes() != data:
                    write_whole(kept, data)
    yield folder


def trusted(path: Path) -> bool:
    """Whether none but this account and root can have written a file, or can put another in its
    place; False where that cannot be told, as on Windows."""
    if not hasattr(os, "getuid"):
        return False
    path = Path(os.path.realpath(path))
    try:
        for place in (path, *path.parents):
            status = place.lstat()
            # In a folder like /tmp everybody may write, but nobody rename what is another's.
            shared = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
            if status.st_uid not in (0, os.getuid()) or (status.st_mode & 0o022 and not shared):
                return False
    except OSError:
        return False
    return True


_V2 = {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}
_V3 = _V2 | {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}


def _cpu_flags() -> set[str] | None:
    """What Linux says the processor can; None where that cannot be told."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("flags"):
                    return set(line.partition(":")[2].split())
    except OSError:
        pass
    return None


def machine() -> str:
    """This machine's system and processor, as the names of targets begin."""
    name = os.uname().machine if hasattr(os, "uname") else os.environ["PROCESSOR_ARCHITECTURE"]
    name = {"amd64": "x86_64", "arm64": "aarch64"}.get(name.lower(), name.lower())
    return f"{'windows' if sys.platform == 'win32' else sys.platform}-{name}"


def targets() -> list[str]:
    """Names of the targets of `build` whose libraries run on this machine, best first.

    Only such as all golden archives were coded with: none on macOS.
    """
    if sys.maxsize < 1 << 32 or sys.byteorder != "little":
        return []
    here = machine()
    if here == "linux-aarch64":
        return [here]
    flags = _cpu_flags()
    levels = [("v3", flags is not None and flags >= _V3), ("v2", flags is None or flags >= _V2)]
    names = {"linux-x86_64": ("v3", "v2"), "windows-x86_64": ("v2",)}.get(here, ())
    return [f"{here}-{level}" for level, fits in levels if fits and level in names]


def library_name(target: str) -> str:
    """The file name of a target's library."""
    suffix = {"macos": "dylib", "windows": "dll", "wasm32": "wasm", "wasm64": "wasm"}
    return f"{target}.{suffix.get(target.partition('-')[0], 'so')}"


def usable(path) -> bool:
    """Whether a file is a library made from these sources: it says so itself."""
    return path.is_file() and bool(fingerprint()) and fingerprint().encode() in path.read_bytes()
