"""How femto compiles: numba in nopython mode, compiled code cached on disk.

numba keeps its cache beside the source file. Where that place cannot be written (a read-only
installation, a zip on a Spark worker), it needs to be told of another folder, and some accounts
(a daemon without a home) have none: then numba refuses to compile at all ("no locator
available"). So the folder is chosen here, before numba is imported for the first time.
"""

import os
import stat
import tempfile
from pathlib import Path


def _private_folder(path: Path) -> bool:
    """Make `path` a folder that only this user can write, and say whether that succeeded.

    numba unpickles what it finds in its cache, so a folder that another account could have
    filled (below /tmp, say) must not be used.
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


def _choose_cache_folder() -> None:
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    package = Path(__file__).resolve().parent
    beside = package / "__pycache__"
    if os.access(beside if beside.is_dir() else package, os.W_OK):
        return
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    candidates = []
    if os.environ.get("XDG_CACHE_HOME"):
        candidates.append(Path(os.environ["XDG_CACHE_HOME"]) / "femto")
    home = os.environ.get("HOME")
    if home and Path(home).is_dir():
        candidates.append(Path(home) / ".cache" / "femto")
    candidates.append(Path(tempfile.gettempdir()) / f"femto-{user}")
    for folder in candidates:
        if _private_folder(folder):
            os.environ["NUMBA_CACHE_DIR"] = str(folder)
            return


_choose_cache_folder()

import numba  # noqa: E402  (the cache folder must be chosen before numba reads its settings)

# No fastmath anywhere: without it every operation is rounded as written, so that all machines
# compute the same coefficients, and archives are identical wherever they are made.
njit = numba.njit(cache=True, nogil=True)
