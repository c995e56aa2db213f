"""Files that are whole or absent, and the memory of what earlier runs did.

The job keeps a folder `.femto-job` inside the output folder:

    lock              held (flock) while a job runs
    records.jsonl     one record per archive, merged at the start of each run
    journal-*.jsonl   records that the processes of a run appended; each process has its own

A process appends an archive's record just before it renames the archive to its final name, so a
kill at any moment leaves either both, or a record without an archive of that size, which counts
as not done.
"""

import contextlib
import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

STATE_FOLDER = ".femto-job"
PART_PREFIX, PART_SUFFIX = ".femto-", ".part"


class JobError(Exception):
    """The job as a whole cannot go on. The message is one line: what is wrong, what to do."""


@contextlib.contextmanager
def whole_file(path: str | os.PathLike, *, before_rename=None) -> Iterator[BinaryIO]:
    """A file to write into, which appears under its name only when it is complete and on disk.

    `before_rename` is called when the data is safe, just before the name appears. If the body of
    the with statement raises, no file appears, and one of that name stays. Raises OSError.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f"{PART_PREFIX}{uuid.uuid4().hex}{PART_SUFFIX}"
    try:
        with open(part, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if before_rename is not None:
            before_rename()
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_whole(path: str | os.PathLike, data: bytes, *, before_rename=None) -> None:
    """Write a file as `whole_file` does. Raises OSError."""
    with whole_file(path, before_rename=before_rename) as file:
        file.write(data)


def remove_parts(output: Path) -> int:
    """Remove temporary files that killed processes left in the output folder; how many."""
    count = 0
    for folder, _, names in os.walk(output):
        for name in names:
            if name.startswith(PART_PREFIX) and name.endswith(PART_SUFFIX):
                Path(folder, name).unlink(missing_ok=True)
                count += 1
    return count


def append_record(output: str | os.PathLike, writer: str, record: dict) -> None:
    """Append one record to the journal of `writer` (a name unique to the process)."""
    line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
    path = Path(output, STATE_FOLDER, f"journal-{writer}.jsonl")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        if os.write(descriptor, line) != len(line):
            raise OSError(28, "No space left on device", str(path))
    finally:
        os.close(descriptor)


class Records:
    """The records of an output folder, held by one job at a time. A context manager.

    `by_archive` maps an archive's path below the output folder to its record.
    """

    def __init__(self, output: Path):
        self.output = output
        self.folder = output / STATE_FOLDER
        self.by_archive: dict[str, dict] = {}
        self._lock = None

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
        remove_parts(self.output)
        self._load()
        return self

    def __exit__(self, *exception) -> None:
        self._lock.close()

    def _load(self) -> None:
        """Read all records, the newest of an archive last, and merge them into one file."""
        merged = self.folder / "records.jsonl"
        journals = sorted(self.folder.glob("journal-*.jsonl"), key=lambda p: p.stat().st_mtime_ns)
        for path in [merged, *journals]:
            if not path.exists():
                continue
            for line in path.read_bytes().splitlines():
                try:
                    record = json.loads(line)
                    self.by_archive[record["archive"]] = record
                except (ValueError, KeyError, TypeError):
                    continue  # the last line of a process that was killed while it wrote
        if journals:
            write_whole(
                merged,
                b"".join(
                    json.dumps(r, separators=(",", ":")).encode() + b"\n"
                    for r in self.by_archive.values()
                ),
            )
            for path in journals:
                path.unlink(missing_ok=True)
