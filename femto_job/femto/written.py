"""What femto remembers of the pictures that it wrote into a folder.

By this a picture that is there is known to belong to its archive without decoding it again, and
never to be somebody else's. The folder holds `.femto-pictures`:

    pictures.sqlite     the newest record of every picture
    journal-*.jsonl     records that processes appended, each to its own; merged by the next run

A record is appended when its picture has got its name. A kill between the two leaves a picture
that nobody remembers: the next run decodes its archive once more, sees that the file is the same,
and remembers it.
"""

import contextlib
import json
import os
import re
import socket
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: records are read, and nothing is cleared away
    fcntl = None

STATE_FOLDER = ".femto-pictures"
_PART = re.compile(r"\..*\.\d+-\d+\.part")


def append(folder: Path, record: dict) -> None:
    """Remember a picture: `record` has its name below the folder as `picture`. Raises OSError."""
    state = Path(folder, STATE_FOLDER)
    state.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
    path = state / f"journal-{socket.gethostname()}-{os.getpid()}.jsonl"
    while True:
        with open(path, "ab") as file:
            _lock(file, wait=True)
            if os.fstat(file.fileno()).st_nlink:
                file.write(line)
                return
        # Another process has merged and removed it since it was opened.


class Written:
    """The records of a folder of pictures, as they are when this is made; a context manager.

    Nothing is written to a folder that has none.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._table = None
        self._fresh: dict[str, dict] = {}
        state = self.folder / STATE_FOLDER
        if not state.is_dir():
            return
        with contextlib.suppress(sqlite3.Error):  # cannot be written: its journals still count
            self._table = sqlite3.connect(state / "pictures.sqlite", timeout=60)
            self._table.execute(
                "CREATE TABLE IF NOT EXISTS pictures (picture TEXT PRIMARY KEY, record TEXT)"
            )
        journals = sorted(state.glob("journal-*.jsonl"), key=lambda p: p.stat().st_mtime_ns)
        for path in journals:
            with contextlib.suppress(FileNotFoundError):
                self._merge(path)

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *exception) -> None:
        if self._table is not None:
            self._table.close()

    def find(self, picture: str) -> dict | None:
        """The record of a picture by its name below the folder."""
        if picture in self._fresh:
            return self._fresh[picture]
        if self._table is None:
            return None
        with contextlib.suppress(sqlite3.Error, ValueError):
            found = self._table.execute(
                "SELECT record FROM pictures WHERE picture = ?", (_key(picture),)
            ).fetchone()
            return json.loads(found[0]) if found else None
        return None

    def _merge(self, path: Path) -> None:
        with open(path, "rb") as file:
            try:
                if self._table is None or not _lock(file, wait=True):
                    raise sqlite3.OperationalError
                with self._table:
                    self._table.executemany(
                        "INSERT OR REPLACE INTO pictures VALUES (?, ?)",
                        ((_key(r["picture"]), json.dumps(r)) for r in _records(file)),
                    )
                path.unlink()
            except (sqlite3.Error, PermissionError):
                file.seek(0)
                self._fresh |= {r["picture"]: r for r in _records(file)}


def _key(picture: str) -> str:
    """A file name as SQLite takes it, whatever bytes it is made of."""
    return json.dumps(picture)


def _records(lines: Iterable[bytes]) -> Iterator[dict]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the last line of a process that was killed while it wrote
        if isinstance(record, dict) and isinstance(record.get("picture"), str):
            yield record


def remove_parts(folder: Path) -> None:
    """Remove what killed processes left of pictures that they were writing into this folder."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _PART.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError), open(entry.path, "rb") as file:
                    if _lock(file, wait=False):
                        os.unlink(entry.path)


def _lock(file, *, wait: bool) -> bool:
    """Lock an open file until it is closed; whether that worked."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
