"""Originals that are deleted when their archives are proven, see docs/TRUST.md.

An original goes when every picture in its file has an archive that was verified, is good enough and
is on disk now, as its SHA-256 says; when the file is, by its SHA-256, the one that these were made
of; and when the records say so already: whatever ends the process, there is the original, or its
archives are there and nothing replaces them.
"""

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path, PurePosixPath

from ..errors import LaffError
from ..pictures.common import RAW_EXTENSIONS
from . import proof
from .records import Records
from .settings import Settings

TOGETHER = 100
"""Files that are recorded in one transaction, and then deleted."""
THUMBNAILS = frozenset(f"{kind} thumbnail not kept" for kind in ("EXIF", "XMP", "Photoshop"))
"""Notes of what nobody misses: these show the picture that is kept."""
DELETED = "original_deleted"
"""The mark of a record whose archive is the only copy of its picture."""


@dataclass
class Gone:
    """How many originals were deleted, of how many bytes; why others stay, with the first name of
    each reason."""

    files: int = 0
    nbytes: int = 0
    stay: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def keep(self, name: str, reason: str) -> None:
        self.stay[reason] += 1
        self.first.setdefault(reason, name)


def delete(settings: Settings, records: Records, rows: Iterable[dict]) -> Gone:
    """Delete the originals of a run's rows that may go. The records are this process's alone, and
    all that was appended to them is merged. Raises OSError."""
    gone = Gone()
    waiting: list[list[dict]] = []
    for name, group in groupby(rows, key=lambda row: row["picture"]):
        of_file = list(group)
        reason = why_kept(settings, of_file)
        if reason is None:
            waiting.append(of_file)
        else:
            gone.keep(name, reason)
        if len(waiting) == TOGETHER:
            _delete(settings, records, waiting, gone)
            waiting = []
    _delete(settings, records, waiting, gone)
    return gone


def why_kept(settings: Settings, rows: list[dict]) -> str | None:
    """Why the original of these rows stays by what they say; None if it may go."""
    name = rows[0]["picture"]
    if any(row["status"] == "failed" for row in rows):
        return "a picture of it failed"
    if len(rows) != rows[0]["pages"]:
        return "not all of its pictures are archives"
    if PurePosixPath(name).suffix.lower() in RAW_EXTENSIONS:
        return "camera RAW is developed, and cannot be had back"
    for row in rows:
        if row.get("archive_sha256") is None:
            return "its archive was made without --verify: use --overwrite once"
        floor = settings.options.min_psnr
        if row["psnr"] is None or row["psnr"] < (math.inf if floor is None else floor):
            return "it is not exact" if floor is None else f"less than {floor:g} dB"
        if row["warnings"]:
            return "it has warnings"
        if set(row["notes"]) - THUMBNAILS:
            return "it has notes"
    return None


def _delete(settings: Settings, records: Records, files: list[list[dict]], gone: Gone) -> None:
    """Delete the originals of some files if they and their archives are what the records say."""
    proven: list[tuple[list[dict], str, tuple]] = []
    folders: set[Path] = set()
    for rows in files:
        path = os.path.join(settings.folders.input, rows[0]["picture"])
        try:
            status = _prove(settings, rows, path, folders)
        except (LaffError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            gone.keep(rows[0]["picture"], why or "it cannot be read")
            continue
        proven.append((rows, path, status))
    for folder in folders:
        _sync(folder)
    records.update(_marked(rows for rows, *_ in proven))
    for rows, path, status in proven:
        if _status(path) != status:
            gone.keep(rows[0]["picture"], "it changed meanwhile")
            continue
        try:
            os.unlink(path)
        except OSError as error:
            gone.keep(rows[0]["picture"], f"it cannot be deleted: {error.strerror}")
            continue
        gone.files += 1
        gone.nbytes += status[0]


def _prove(settings: Settings, rows: list[dict], path: str, folders: set[Path]) -> tuple:
    """The status of an original that is the one of these records, whose archives are on disk; the
    folders that hold these are added. Raises LaffError, OSError."""
    status = _status(path)
    if os.path.islink(path):
        raise LaffError("it is a link")
    if status[:2] != (rows[0]["source_bytes"], rows[0]["source_mtime_ns"]):
        raise LaffError("it changed meanwhile")
    if {row["source_sha256"] for row in rows} != {proof.file_digest(path)}:
        raise LaffError("it is not the file that was compressed")
    output = Path(settings.folders.output)
    for row in rows:
        archive = output / row["archive"]
        _sync(archive)
        if proof.file_digest(archive, from_disk=True) != row["archive_sha256"]:
            raise LaffError("its archive is not the one that was verified")
        folders |= {archive.parent, *(output / p for p in Path(row["archive"]).parents)}
    folders.add(output.parent)
    return status


def _marked(files: Iterable[list[dict]]) -> Iterator[dict]:
    """The records of these rows, which say that the originals are gone."""
    for rows in files:
        for row in rows:
            yield {k: v for k, v in row.items() if k not in ("status", "error")} | {DELETED: True}


def is_only_copy(record: dict | None, nbytes: int, mtime_ns: int, *, own: bool) -> bool:
    """Whether an archive must not be replaced, because its original is gone: a file of `nbytes`
    bytes and that time of change is to become its picture, which is its `own` by name or not."""
    if record is None or not record.get(DELETED):
        return False
    return not (own and (record["source_bytes"], record["source_mtime_ns"]) == (nbytes, mtime_ns))


def _status(path: str) -> tuple:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino


def _sync(path: Path) -> None:
    """See to it that a file or a folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
