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
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from ..errors import LaffError
from ..files import journal
from .reconstruction import Made, Wanted

STATE_FOLDER = ".femto-pictures"


def remember(folder: Path, archive: str, before: os.stat_result, made: Made, wanted: Wanted):
    """Keep the record of a picture and return it; `before` is the archive's status when it was
    opened. Raises OSError."""
    status = os.stat(made.path)
    record = {
        "picture": os.path.relpath(made.path, folder),
        "picture_bytes": status.st_size,
        "picture_mtime_ns": status.st_mtime_ns,
        "archive": os.path.realpath(archive),
        "archive_bytes": before.st_size,
        "archive_mtime_ns": before.st_mtime_ns,
        "content": wanted.content,
        **made.facts,
    }
    state = Path(folder, STATE_FOLDER)
    state.mkdir(parents=True, exist_ok=True)
    journal.append(state, record)
    return record


class Written:
    """The records of a folder of pictures, as they are when this is made; a context manager.

    Nothing is written to a folder that has none. Unlike a job's records, several runs may use them
    at a time.
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
        journal.take_over(state, self._take)

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

    def standing(
        self, archive: str, picture: str, wanted: Wanted, *, overwrite: bool
    ) -> tuple[dict | None, bool]:
        """Whether an archive's picture is there.

        Parameters: paths of both, the picture's below this folder. Returns its record if it is
        there as it is wanted, else None; and whether another file may be replaced by it: one that
        was made of this archive before that changed, or any if `overwrite` says so. Raises
        LaffError if another picture is there and stays.
        """
        names = [picture]
        if wanted.format is None:
            names.append(str(Path(picture).with_suffix(".tif")))
        for name in names:
            path = self.folder / name
            record = self.find(name)
            if record is None or not _is_file(path, record, "picture"):
                continue  # nothing there, or nothing that femto knows: that is compared
            own = record["archive"] == os.path.realpath(archive)
            same = own and _is_file(archive, record, "archive")
            if same and record["content"] == wanted.content:
                return record, False
            if overwrite:
                return None, True
            if same:
                raise LaffError(
                    f"{path}: was made of it with other options; overwrite it or choose a new name"
                )
            if own:
                return None, True
            if os.path.exists(record["archive"]):
                raise LaffError(
                    f"{path}: is the picture of {record['archive']}; overwrite it or choose "
                    "a new name"
                )
        return None, overwrite

    def _take(self, records: Iterator[dict]) -> bool:
        fresh = {r["picture"]: r for r in records if isinstance(r.get("picture"), str)}
        try:
            if self._table is not None:
                with self._table:
                    self._table.executemany(
                        "INSERT OR REPLACE INTO pictures VALUES (?, ?)",
                        ((_key(name), json.dumps(record)) for name, record in fresh.items()),
                    )
                return True
        except sqlite3.Error:
            pass
        self._fresh |= fresh
        return False


def _key(picture: str) -> str:
    """A file name as SQLite takes it, whatever bytes it is made of."""
    return json.dumps(picture)


def _is_file(path, record: dict, kind: str) -> bool:
    """Whether a file is the one that a record tells of, unchanged."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    told = (record.get(f"{kind}_bytes"), record.get(f"{kind}_mtime_ns"))
    return told == (status.st_size, status.st_mtime_ns)
