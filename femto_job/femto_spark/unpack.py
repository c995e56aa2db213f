"""A worker gets the packages as a zip in a folder of its application; this unpacks them once.

In a folder named after the content of the zip the next job finds again what Python has compiled,
and femto's library is a file that can be loaded; the application's own folder goes with the
application. Nothing else of the package may be imported here: this runs before anything else does.
"""

import hashlib
import os
import shutil
import stat
import sys
import tempfile
import time
import zipfile
from pathlib import Path

KEPT_SECONDS = 30 * 24 * 3600


def settle(zipped: Path) -> Path | None:
    """Unpack a zip of packages into this user's cache folder, unless that was done before.

    Returns the folder, now first in `sys.path`; None if there is no folder to unpack into.
    """
    digest = hashlib.sha256(zipped.read_bytes()).hexdigest()[:16]
    for cache in _cache_folders():
        folder = cache / f"code-{digest}"
        try:
            if not _is_private(cache):
                continue
            if not folder.is_dir():
                _extract(zipped, folder)
            os.utime(folder)
            _forget_old(cache)
        except OSError:
            continue
        sys.path.insert(0, str(folder))
        return folder
    return None


def _forget_old(cache: Path) -> None:
    """Remove versions that no job has used for a month."""
    for folder in cache.glob("code-*"):
        if folder.stat().st_mtime < time.time() - KEPT_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _cache_folders() -> list[Path]:
    folders = []
    if os.environ.get("XDG_CACHE_HOME"):
        folders.append(Path(os.environ["XDG_CACHE_HOME"], "femto"))
    home = os.environ.get("HOME")
    if home and Path(home).is_dir():
        folders.append(Path(home, ".cache", "femto"))
    return [*folders, Path(tempfile.gettempdir(), f"femto-{os.getuid()}")]


def _is_private(folder: Path) -> bool:
    """Make a folder that only this user writes to: code is run from it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    return (
        stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022
    )


def _extract(zipped: Path, folder: Path) -> None:
    """Unpack so that the folder appears only when it is complete, whoever else does the same."""
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        with zipfile.ZipFile(zipped) as archive:
            archive.extractall(part)
        os.rename(part, folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
