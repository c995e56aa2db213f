"""Files that are whole or absent."""

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, Any, BinaryIO

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows: nobody can tell which parts are being written, and all stay
    fcntl = None

PREFIX, SUFFIX = ".femto-", ".part"


@contextlib.contextmanager
def whole_file(
    path: str | os.PathLike[str],
    *,
    below: str | os.PathLike[str] | None = None,
    before_rename: Callable[[Path], object] | None = None,
) -> Iterator[BinaryIO]:
    """A file to write into, which appears under its name only when it is complete and on disk.

    Folders are made as needed, but only `below` one that has to be there, if that is given.
    `before_rename` is called with the file's present path when the data is safe, just before the
    name appears. If it or the body of the with statement raises, no file appears, and one of that
    name stays. Raises OSError.
    """
    path = Path(path)
    if below is None:
        path.parent.mkdir(parents=True, exist_ok=True)
    else:
        for folder in list(reversed(path.relative_to(below).parents))[1:]:
            Path(below, folder).mkdir(exist_ok=True)
    part = path.parent / f"{PREFIX}{uuid.uuid4().hex}{SUFFIX}"
    try:
        with open(part, "xb") as file:
            locked(file, wait=True)  # parts that nobody locks are left by killed processes
            yield file
            file.flush()
            os.fsync(file.fileno())
            if before_rename is not None:
                before_rename(part)
            if fcntl is not None:
                os.replace(part, path)
        if fcntl is None:  # Windows renames no open file
            os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_whole(path: str | os.PathLike[str], data: bytes, **options: Any) -> None:
    """Write a file as `whole_file` does, with its options. Raises OSError."""
    with whole_file(path, **options) as file:
        file.write(data)


def remove_parts(folder: str | os.PathLike[str], *, recursive: bool = False) -> None:
    """Remove what killed processes left of files that they were writing into this folder."""
    folders = [os.fspath(folder)]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders += [entry.path] * recursive
                elif entry.name.startswith(PREFIX) and entry.name.endswith(SUFFIX):
                    with contextlib.suppress(OSError), open(entry.path, "rb") as file:
                        if locked(file, wait=False):
                            os.unlink(entry.path)


def locked(file: IO[Any], *, wait: bool) -> bool:
    """Lock an open file until it is closed; whether that worked."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # somebody else has it, or the file system has no locks
        return False
    return True
