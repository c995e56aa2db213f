"""How femto compiles: numba in nopython mode, compiled code cached on disk.

numba keeps its cache beside the source file, which fails where that place cannot be written (a
read-only installation, a zip on a Spark worker, a daemon without a home: "no locator available"),
it notices a change in the file of a function only, not in what the function calls or reads from
other files, and it tells copies of a source apart by their paths. So femto's compiled code goes to
a folder of its own, named after the content of all its sources: an update in place can never run
stale code, and equal copies (an installation, the link to it, the zip that Spark brings) compile
once for an account.
"""

import hashlib
import importlib.resources
import os
import stat
import tempfile
from pathlib import Path

import numba
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    IndexDataCacheFile,
    _CacheLocator,
)


def _fingerprint() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(importlib.resources.files(__package__).iterdir(), key=lambda s: s.name):
        if source.name.endswith(".py"):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:16]


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


def _cache_folder() -> str:
    """The folder for compiled code, or "" if there is no place to write: then it is not cached."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    candidates = [Path(__file__).resolve().parent / "__pycache__"]
    if os.environ.get("NUMBA_CACHE_DIR"):
        candidates.insert(0, Path(os.environ["NUMBA_CACHE_DIR"]) / "femto")
    if os.environ.get("XDG_CACHE_HOME"):
        candidates.append(Path(os.environ["XDG_CACHE_HOME"]) / "femto")
    if os.environ.get("HOME") and Path(os.environ["HOME"]).is_dir():
        candidates.append(Path(os.environ["HOME"]) / ".cache" / "femto")
    candidates.append(Path(tempfile.gettempdir()) / f"femto-{user}")
    fingerprint = _fingerprint()
    for folder in candidates:
        # Both levels: whoever could rename the inner folder could replace it.
        if _private_folder(folder) and _private_folder(folder / fingerprint):
            return str(folder / fingerprint)
    return ""


_FOLDER = _cache_folder()


class _Locator(_CacheLocator):
    """Where numba keeps a function of femto, wherever its source lies."""

    def __init__(self, function, path):
        self._function = function
        self._py_file = path  # what numba names when it warns

    @classmethod
    def from_function(cls, function, path):
        return cls(function, path)

    def get_cache_path(self):
        return _FOLDER

    def get_source_stamp(self):
        return None  # the folder's name vouches for the sources

    def get_disambiguator(self):
        return str(self._function.__code__.co_firstlineno)


class _Implementation(CompileResultCacheImpl):
    _locator_classes = (_Locator,)


class _Files(IndexDataCacheFile):
    """Files named after what they are compiled for.

    numba numbers them: two processes that save at the same time give two of them one number, and
    then one process runs what was compiled for other types.
    """

    def save(self, key, data):
        overloads = self._load_index()
        name = hashlib.sha256(repr(key).encode()).digest()[:8]
        overloads[key] = self._data_name(int.from_bytes(name, "big"))
        self._save_data(overloads[key], data)
        self._save_index(overloads)


class _Cache(FunctionCache):
    _impl_class = _Implementation

    def __init__(self, function):
        super().__init__(function)
        self._cache_file = _Files(_FOLDER, self._impl.filename_base, source_stamp=None)


def _compiled(function, **options):
    dispatcher = numba.njit(nogil=True, **options)(function)
    if _FOLDER:
        dispatcher._cache = _Cache(function)  # as cache=True does with numba's own
    return dispatcher


def njit(function):
    """Compile `function` when it is first called, without the GIL, and cache the result.

    No fastmath: without it every operation is rounded as written, so that all machines compute
    the same coefficients, and archives are identical wherever they are made.
    """
    return _compiled(function)


def in_place(function):
    """As `njit`, for functions that make no arrays: they leave out the counting of references,
    which takes half of the coder's time. Numba refuses what would need it."""
    return _compiled(function, _nrt=False)


def inlined(function):
    """As `in_place`, for the small parts of the innermost loops: always merged into their
    callers."""
    return _compiled(function, forceinline=True, _nrt=False)
