"""Journals: lines that the processes of a run append, each to a file of its own, in a folder where
the next run takes them over.

A line is a record, a dict that goes into JSON.
"""

import contextlib
import errno
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .whole import locked


def append(folder: Path, record: dict[str, Any]) -> None:
    """Add a record to this process's journal in a folder, which has to be there. Raises OSError."""
    line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
    path = Path(folder, f"journal-{socket.gethostname()}-{os.getpid()}.jsonl")
    while True:
        with open(path, "ab", buffering=0) as file:
            locked(file, wait=True)
            if not os.fstat(file.fileno()).st_nlink:
                continue  # another process has taken it over since it was opened
            end = os.fstat(file.fileno()).st_size
            if file.write(line) != len(line):
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            return


def take_over(
    folder: Path, take: Callable[[Iterator[dict[str, Any]]], bool], *, exclusive: bool = False
) -> None:
    """Call `take` with the records of every journal in a folder, the oldest first, and remove those
    that it returns true for: where there are no locks only if nobody else can write to the folder
    (`exclusive`)."""
    journals = sorted(folder.glob("journal-*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    for path in journals:
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            alone = locked(file, wait=True) or exclusive
            if take(_records(file)) and alone:
                with contextlib.suppress(PermissionError):  # another user's: read again next time
                    path.unlink()


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of every journal in a folder, the oldest journal first; nothing is changed."""
    journals = sorted(folder.glob("journal-*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    for path in journals:
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            yield from _records(file)


def _records(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the last line of a process that was killed while it wrote
        if isinstance(record, dict):
            yield record
