"""The memory of what earlier runs did.

A job keeps a folder `.femto-job` inside the output folder:

    lock              held (flock) while a job runs
    records.sqlite    one record per file that was made
    journal-*.jsonl   records that the processes of a run appended, each to its own; merged into
                      records.sqlite at the start of the next run
    run-*.sqlite      what a run knows of its files, and what came of them; gone when it is over

A process appends a file's record just before it renames the file to its final name, so a kill at
any moment leaves either both, or a record without a file of that size, which counts as not done.
"""

import contextlib
import fcntl
import json
import os
import sqlite3
import threading
import uuid
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import JobError
from ..files import journal
from ..files.folder import folded
from ..files.whole import remove_parts

STATE_FOLDER = ".femto-job"
ROWS_AT_ONCE = 500
"""Rows that are in memory of any that are read in order."""


def append_record(output: str | os.PathLike, record: dict) -> None:
    """Append one record to this process's journal. Raises OSError."""
    journal.append(Path(output, STATE_FOLDER), record)


# Names are kept as bytes: not all of them are Unicode.


def connect(path: Path) -> sqlite3.Connection:
    """A database of this job alone: the lock of the output folder guards it, so that it works on
    file systems without locks, too. May be used by several threads, one at a time."""
    uri = f"{path.absolute().as_uri()}?nolock=1"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


class Records:
    """The records of an output folder, held by one job at a time. A context manager.

    A record is a dict that goes into JSON, with the names of the `archive` that was made (a path
    below the output folder) and of its `picture` (a path below the record's `input`, a folder).

    Raises JobError if another job has the folder, or its records are damaged.
    """

    def __init__(self, output: Path):
        self.output = output
        self.folder = output / STATE_FOLDER
        self._lock = None
        self.db: sqlite3.Connection | None = None

    def __enter__(self) -> "Records":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.folder / "lock", "a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise JobError(
                f"{self.output}: another job is writing to this folder: "
                "wait until it ends, or choose another --output"
            ) from None
        except OSError:
            pass  # a file system without locks: the user sees to it that jobs don't overlap
        remove_parts(self.output, recursive=True)
        for left in self.folder.glob("run-*.sqlite*"):
            left.unlink(missing_ok=True)
        try:
            self._open()
        except sqlite3.Error as error:
            self._lock.close()
            raise JobError(
                f"{self.folder / 'records.sqlite'}: cannot be used ({error}): remove this file "
                "(the archives stay; what they were made from is then found out anew)"
            ) from None
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *exception) -> None:
        self.db.close()
        self._lock.close()

    def _open(self) -> None:
        self.db = connect(self.folder / "records.sqlite")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS records "
            "(made BLOB PRIMARY KEY, folded BLOB, input BLOB, source BLOB, record TEXT)"
        )
        self.db.execute("CREATE INDEX IF NOT EXISTS by_source ON records (source, input)")
        self.db.execute("CREATE INDEX IF NOT EXISTS by_folded ON records (folded)")
        self.db.execute("CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT)")
        self.merge()

    def merge(self) -> None:
        """Take over what processes have appended."""
        journal.take_over(self.folder, self._take, exclusive=True)

    def _take(self, records: Iterator[dict]) -> bool:
        with self.transaction():
            self.db.executemany(
                "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?)", _rows(records)
            )
        return True

    def update(self, records: Iterable[dict]) -> None:
        """Replace records; they are on disk when this returns."""
        self._take(iter(records))

    @contextlib.contextmanager
    def transaction(self):
        """All that is written inside is written as one, when it ends well."""
        self.db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def __iter__(self) -> Iterator[dict]:
        """All records, by the names of the files that were made."""
        return map(_record, fetched(self._select("ORDER BY made")))

    def get(self, made: str) -> dict | None:
        """The record of a file that was made; or else of one that some file systems take for it."""
        found = self._select(
            "WHERE folded = ? ORDER BY made = ? DESC",
            os.fsencode(folded(made)),
            os.fsencode(made),
        ).fetchone()
        return None if found is None else _record(found)

    def of(self, folder: str, source: str) -> list[dict]:
        """The records of all files that were made of one source file."""
        found = self._select(
            "WHERE source = ? AND input = ? ORDER BY made", os.fsencode(source), os.fsencode(folder)
        )
        return list(map(_record, found))

    def _select(self, which: str, *parameters) -> sqlite3.Cursor:
        return self.db.execute(f"SELECT input, record FROM records {which}", parameters)

    def inputs(self) -> list[str]:
        """The folders that files were made of."""
        found = self.db.execute("SELECT DISTINCT input FROM records ORDER BY input")
        return [os.fsdecode(folder) for (folder,) in found]

    def move(self, old: str, new: str) -> int:
        """The input folder `old` is `new` now: returns how many files were made of it."""
        changed = self.db.execute(
            "UPDATE records SET input = ? WHERE input = ?", (os.fsencode(new), os.fsencode(old))
        )
        return changed.rowcount

    def note(self, name: str, value: object = None) -> None:
        """Remember something about the folder; None forgets it."""
        if value is None:
            self.db.execute("DELETE FROM notes WHERE name = ?", (name,))
        else:
            self.db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, json.dumps(value)))

    def noted(self, name: str):
        """What `note` has remembered, or None."""
        found = self.db.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return None if found is None else json.loads(found[0])


def _rows(records: Iterator[dict]) -> Iterator[tuple]:
    for record in records:
        with contextlib.suppress(KeyError, TypeError):  # no record of a job
            yield (
                os.fsencode(record["archive"]),
                os.fsencode(folded(record["archive"])),
                os.fsencode(record["input"]),
                os.fsencode(record["picture"]),
                json.dumps(record),
            )


def _record(found: tuple[bytes, str]) -> dict:
    folder, text = found
    return json.loads(text) | {"input": os.fsdecode(folder)}


def fetched(cursor: sqlite3.Cursor) -> Iterator[tuple]:
    """All rows, some at a time."""
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        yield from rows


class Rows(Iterable[dict]):
    """What became of every file of a run: dicts, on disk. Iterated any number of times, by name.

    Parameters: the folder for the database, which lives as long as this object. Rows have
    `status`, a text, and whatever they are sorted by: `keys`, the first a name, the second a
    number. Safe to use from several threads. `counts` says how many rows have which status.
    """

    def __init__(self, folder: Path, keys: tuple[str, str] = ("picture", "page")):
        self._keys = keys
        self._path = folder / f"run-rows-{uuid.uuid4().hex}.sqlite"
        self._lock = threading.Lock()
        self._db = connect(self._path)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("CREATE TABLE rows (name BLOB, number INTEGER, row TEXT)")
        self._db.execute("CREATE INDEX by_name ON rows (name, number)")
        self.counts: Counter[str] = Counter()
        self._pending: list[tuple] = []
        weakref.finalize(self, self._path.unlink, missing_ok=True)

    def append(self, row: dict) -> None:
        """Add a row."""
        name, number = (row[key] for key in self._keys)
        with self._lock:
            self.counts[row["status"]] += 1
            self._pending.append((os.fsencode(name), number, json.dumps(row)))
            if len(self._pending) >= ROWS_AT_ONCE:
                self._write()

    def _write(self) -> None:
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO rows VALUES (?, ?, ?)", self._pending)
        self._db.execute("COMMIT")
        self._pending.clear()

    def __iter__(self) -> Iterator[dict]:
        last = (b"", -1, -1)
        while True:
            with self._lock:
                self._write()
                found = self._db.execute(
                    "SELECT name, number, rowid, row FROM rows "
                    "WHERE (name, number, rowid) > (?, ?, ?) ORDER BY name, number, rowid LIMIT ?",
                    (*last, ROWS_AT_ONCE),
                ).fetchall()
            if not found:
                return
            for row in found:
                yield json.loads(row[3])
            last = found[-1][:3]
