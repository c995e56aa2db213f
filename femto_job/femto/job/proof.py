"""Proof that an archive on disk gives back what its encoder said that it would.

The encoder says of every tile what its archive will give back, and measures its error by that:
the SHA-256 of these samples is its word (`Word`). The file, under its temporary name, is read back
and decoded; a sample that differs, and the archive never gets its name. So its PSNR is the one that
was measured, to the last digit. What is remembered of it:

    source_sha256    of the picture's file
    archive_sha256   of the archive's file
    pixels_sha256    of the SHA-256 digests of its tiles' samples, one after the other (see
                     `whole_digest`): tiles may be decoded anywhere, in any order
"""

import contextlib
import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import codec
from ..container import Archive, ImageHeader, pack_metadata
from ..errors import LaffError
from ..files.folder import Source
from .sandbox import UnreadablePicture

_PIECE = 1 << 20


@dataclass(frozen=True)
class Word:
    """What was said of a tile while it was coded: the digest of the samples that it will give
    back, and whatever else was `seen` of it (see measure.Seen)."""

    digest: bytes
    seen: Any = None


class Witness:
    """A `watch` of femto.codec that takes the encoder's word; `also`, another one."""

    def __init__(self, also: Callable[..., Any] | None):
        self._also = also

    def __call__(self, tile, levels, pixels: np.ndarray, decoded: np.ndarray) -> Word:
        seen = None if self._also is None else self._also(tile, levels, pixels, decoded)
        return Word(tile_digest(decoded), seen)


@dataclass(frozen=True)
class Strings:
    """Some tiles of a large archive for a task, which decodes them: what the archive says, without
    its strings; the numbers of the tiles, the strings of each, and what their digests must be."""

    archive: Archive
    tiles: list[int]
    blocks: list[bytes]
    layers: list[list[bytes]]
    digests: list[bytes]

    def faults(self) -> Iterator[int]:
        """The numbers of the tiles that do not give what they must. Raises LaffError."""
        columns = [dict(zip(self.tiles, one, strict=True)) for one in self.layers]
        # Only what is looked up by a tile's number is asked of an archive's strings.
        archive: Any = replace(
            self.archive,
            blocks=dict(zip(self.tiles, self.blocks, strict=True)),  # type: ignore[arg-type]
            layers=columns,
        )
        for tile, digest in zip(self.tiles, self.digests, strict=True):
            if tile_digest(codec.decode_tile(archive, tile)) != digest:
                yield tile


def tile_digest(samples: np.ndarray) -> bytes:
    """The SHA-256 of a tile's samples, uint8 or little-endian uint16, row by row."""
    samples = np.ascontiguousarray(samples, samples.dtype.newbyteorder("<"))
    return hashlib.sha256(memoryview(samples).cast("B")).digest()


def whole_digest(digests: Iterable[bytes]) -> str:
    """The `pixels_sha256` of a picture, of its tiles' digests in their order."""
    return hashlib.sha256(b"".join(digests)).hexdigest()


def file_digest(path: str | os.PathLike, *, from_disk: bool = False) -> str:
    """The SHA-256 of a file, in hexadecimal digits. `from_disk`: what the system has of it in
    memory is given up first, as far as it lets go. Raises OSError."""
    found = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        if from_disk and hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.hexdigest()


@functools.lru_cache(maxsize=16)
def _known_digest(path: str, status: tuple[int, ...]) -> str:
    """Of a file as it is now: those of many pages are asked for often."""
    return file_digest(path)


def source_digest(path: str, source: Source) -> str:
    """The SHA-256 of a picture's file. Raises UnreadablePicture if it is no more the one that was
    found."""
    try:
        digest = _known_digest(path, _status(path))
    except OSError as error:
        raise UnreadablePicture(f"cannot be read again ({error.strerror}): restore it") from None
    require_unchanged(path, source)
    return digest


def require_unchanged(path: str, source: Source) -> None:
    """UnreadablePicture if a file is no more the one that was found."""
    try:
        nbytes, mtime_ns, *_ = _status(path)
    except OSError as error:
        raise UnreadablePicture(f"cannot be read again ({error.strerror}): restore it") from None
    if (nbytes, mtime_ns) != (source.nbytes, source.mtime_ns):
        raise UnreadablePicture(
            "it changed while it was compressed: when nobody writes to it any more, run the same "
            "command again"
        )


def _status(path: str) -> tuple[int, ...]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino


def prove(archive: bytes | Path, header: ImageHeader, words: list[Word], basis: str | None) -> dict:
    """Decode an archive, a tile at a time, and compare it with its encoder's word.

    Parameters: its bytes or its file, which is read from disk; what it must say of its picture; a
    Word for each tile; the file of its basis, if that is not femto's own. Returns `archive_sha256`
    and `pixels_sha256` of its record. Raises LaffError.
    """
    if isinstance(archive, bytes):
        found = hashlib.sha256(archive).hexdigest()
    else:
        found = file_digest(archive, from_disk=True)
    parsed = parse(archive, header, basis)
    wrong = [
        index
        for index, word in enumerate(words)
        if tile_digest(codec.decode_tile(parsed, index)) != word.digest
    ]
    require_equal(wrong, len(parsed.blocks), len(words))
    return {"archive_sha256": found, "pixels_sha256": whole_digest(w.digest for w in words)}


NOT_AS_WRITTEN = (
    "its archive is not on disk as it was written, and gets no name: look after the disk of the "
    "output folder, then run the same command again"
)


def parse(archive: bytes | Path, header: ImageHeader, basis: str | None) -> Archive:
    """An archive that was just written. Raises LaffError if it cannot be read, or does not say
    what it must."""
    try:
        parsed = codec.parse(archive, basis=basis)
    except LaffError as error:
        raise LaffError(f"{NOT_AS_WRITTEN} ({_reason(error)})") from error
    if _told(parsed.header) != _told(header):
        raise LaffError("its archive does not say what it should of its picture: report it")
    return parsed


def _reason(error: LaffError) -> str:
    """What is said of an archive, without its temporary name."""
    return str(error).partition(": ")[2]


def _told(header: ImageHeader) -> tuple:
    """What a header says, as an archive keeps it."""
    metadata = None if header.metadata is None else pack_metadata(header.metadata)
    source = header.source
    if source is not None:
        source = source.encode("utf-8", "backslashreplace").decode()
    return replace(header, metadata=None, source=source, mapping=None), metadata


def require_equal(wrong: list[int], tiles: int, words: int) -> None:
    """LaffError unless all tiles are as they should be."""
    if wrong or tiles != words:
        which = f"tile {wrong[0]} and {len(wrong) - 1} others" if wrong else "the number of tiles"
        raise LaffError(
            f"its archive does not give back what it was made of ({which}), and gets no name: "
            "report it, with the picture"
        )


class Watch:
    """How many CPU seconds of this thread something takes, added up; a context manager."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> "Watch":
        self._began = time.thread_time()
        return self

    def __exit__(self, *exception) -> None:
        self.seconds += time.thread_time() - self._began
