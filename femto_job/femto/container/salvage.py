"""What is left of a damaged archive: all strings whose checksums still match.

A string's checksum begins with the header's and its place, so it says by itself where it belongs,
whatever became of the text before it. Text is unpacked up to what gzip cannot go on from, and again
from the next block of deflate that holds an archive's text, at whatever bit it begins.
"""

import base64
import binascii
import io
import json
import mmap
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, overload

import numpy as np

from ..errors import LaffError
from ..tiles import tile_count
from . import bounds
from .archive import Archive, Stored
from .header import BROKEN, check_header
from .reading import open_stored
from .strings import Spool, unseal

_STEP = 64
"""Bytes before damage that may be lost with it."""
_PIECE = 1 << 16
"""Bytes that are unpacked, or searched for a block, at a time."""
_LONGEST = 1 << 26
"""Characters of a string, at most."""
_TRIED, _ENOUGH = 1 << 12, 256
"""Bytes of a block that are unpacked to see what it is, and how much text they must give."""
_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_TOKEN = re.compile(rb"[A-Za-z0-9+/=]+")
_BEGIN = re.compile(rb',\s*"blocks"\s*:')
_MARKS = b'[]{}",: \t\r\n'
_BLOCK = (None, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0)
"""How a block of an archive begins, bit by bit: it may be the last, has codes of its own, and none
for what came before (see `writing`)."""
_MOST_LAYERS = 64
_MOST_PLACES = 1 << 22
"""Of how many strings the places are looked up by their checksums."""

Buffer: TypeAlias = bytes | bytearray | memoryview | mmap.mmap


@dataclass(frozen=True)
class Salvaged:
    """What is left of an archive: it, with those of its strings that are good; `layers`, how many
    of its first layers each tile has, of tiles that have any; and whether the text's end is there,
    so that there are no more layers than these."""

    archive: Archive
    layers: dict[int, int]
    ended: bool

    @property
    def tiles(self) -> int:
        """How many tiles the picture has."""
        header = self.archive.header
        return tile_count(header.height, header.width, self.archive.tile)

    def damaged(self) -> Iterator[tuple[int, int]]:
        """The tiles that lack something, and how many layers they have."""
        most = len(self.archive.layers)
        for tile in range(self.tiles):
            have = self.layers.get(tile, 0)
            if have < most or not most:
                yield tile, have


def salvage(archive: Stored, *, accept: Callable[[Archive], object] | None = None) -> Salvaged:
    """What is good of an archive, bytes or a path, however damaged it is.

    `accept` is told what it says of its picture before anything is kept, and may raise LaffError.
    Raises LaffError if there is no such file, if it is no archive, or if its header is damaged.
    """
    name = os.fspath(archive) if isinstance(archive, (str, os.PathLike)) else "archive"
    with open_stored(archive, name) as stream:
        try:
            if isinstance(stream, io.BytesIO):
                return _Salvage(stream.getvalue(), name).run(accept)
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Salvage(data, name).run(accept)
        except ValueError as error:
            if isinstance(error, LaffError):
                raise
            raise LaffError(f"{name}: the file is empty: copy or compress it again") from None
        except OSError as error:
            raise LaffError(f"{name}: cannot be read ({error.strerror}): check it") from None


class _Salvage:
    """The strings that are found."""

    def __init__(self, data: Buffer, name: str):
        self._name = name
        self._texts, self._nbytes = _texts(data), len(data)
        self._spool = Spool()
        self._found: dict[int, tuple[int, int]] = {}
        self._next = 0
        self._places: tuple[Any, Any] | None = None

    def run(self, accept: Callable[[Archive], object] | None) -> Salvaged:
        archive, self._crc, text = self._header()
        archive = replace(archive, nbytes=self._nbytes)
        if accept is not None:
            accept(archive)
        header = archive.header
        self._tiles = tile_count(header.height, header.width, archive.tile)
        end = text[-2:]
        while True:
            # What may go on is kept for the next piece; behind a gap, nothing goes on.
            tokens = list(_TOKEN.finditer(text))
            rest = b""
            for token in tokens:
                if token.end() == len(text):
                    rest = token[0]
                else:
                    self._take(token[0])
            more = next(self._texts, b"")
            if more == b"":
                break
            if more is None:
                text, end = b"", b""
                continue
            end = (end + more)[-2:]
            text = rest + more if len(rest) < _LONGEST else more
        return self._salvaged(archive, end == b"]}")

    def _header(self) -> tuple[Archive, int, bytes]:
        """What the archive says, its checksum, and the text behind it. Raises LaffError."""
        text = b""
        for piece in self._texts:
            if piece is None:
                break
            text += piece
            end = _BEGIN.search(text, max(0, len(text) - len(piece) - 64))
            if end is not None:
                try:
                    top = json.loads(text[: end.start()] + b"}")
                    archive, crc = check_header(top, self._name)
                except BROKEN:
                    break
                return archive, crc, text[end.end() :]
            if len(text) > bounds.MAX_HEADER:
                break
        if not self._nbytes:
            raise LaffError(f"{self._name}: the file is empty: copy or compress it again")
        if text and not text.startswith(b"{"):
            raise LaffError(f"{self._name}: not a .laff archive: give a file that femto compressed")
        raise LaffError(
            f"{self._name}: its header is damaged, without which no string can be read: "
            "look for another copy"
        )

    def _take(self, token: bytes) -> None:
        """Put a string where it belongs, if it is whole."""
        place = self._next
        data = self._at(token, place)
        if data is None:
            self._next += 1
            place = self._place_of(token)
            data = None if place < 0 else self._at(token, place)
        if data is not None and place not in self._found:
            self._found[place] = (self._spool.put(data), len(data))
            self._next = place + 1

    def _at(self, token: bytes, place: int) -> bytes | None:
        """What a string holds that is of this place, None if it is not."""
        layer, tile = divmod(place, self._tiles)
        try:
            return unseal(token, self._crc, layer - 1, tile)
        except (ValueError, binascii.Error):
            return None

    def _place_of(self, token: bytes) -> int:
        """Where a string belongs, by its checksum alone; -1 if nowhere."""
        try:
            data = base64.b64decode(token, validate=True)
        except (ValueError, binascii.Error):
            return -1
        if len(data) < 4:
            return -1
        found = int.from_bytes(data[-4:], "big") ^ zlib.crc32(data[:-4])
        begins = _backwards(found, len(data) - 4)
        crcs, places = self._by_checksum()
        at = int(np.searchsorted(crcs, begins))
        return int(places[at]) if at < len(crcs) and int(crcs[at]) == begins else -1

    def _by_checksum(self) -> tuple[Any, Any]:
        """The checksums that strings begin with, in their order, and whose places they are."""
        if self._places is None:
            count = min(self._tiles * _MOST_LAYERS, _MOST_PLACES)
            begins = (
                zlib.crc32(b"%d,%d" % (place // self._tiles - 1, place % self._tiles), self._crc)
                for place in range(count)
            )
            crcs = np.fromiter(begins, np.uint32, count)
            order = np.argsort(crcs, kind="stable")
            self._places = crcs[order], order
        return self._places

    def _salvaged(self, archive: Archive, ended: bool) -> Salvaged:
        most = max(self._found, default=-1) // self._tiles  # the last layer that something is of
        layers = {}
        for place in self._found:
            if place < self._tiles:  # a block string, without which nothing is of use
                have = 0
                while place + (have + 1) * self._tiles in self._found:
                    have += 1
                layers[place] = have
        rows = [_Placed(self, layer * self._tiles) for layer in range(most + 1)]
        nbytes = [sum(row.nbytes()) for row in rows]
        kept = replace(
            archive,
            blocks=rows[0] if rows else [],
            layers=list(rows[1:]),
            layer_nbytes=nbytes[1:],
        )
        return Salvaged(kept, {tile: n for tile, n in layers.items() if n}, ended)

    def string(self, place: int) -> bytes:
        return self._spool.get(*self._found[place])

    def lengths(self, start: int) -> Iterator[int]:
        return (self._found[p][1] for p in range(start, start + self._tiles) if p in self._found)

    @property
    def tiles(self) -> int:
        return self._tiles


class _Placed(Sequence[bytes]):
    """The strings of one layer; KeyError for those that are lost."""

    def __init__(self, salvage: _Salvage, start: int):
        self._salvage, self._start = salvage, start

    def __len__(self) -> int:
        return self._salvage.tiles

    def nbytes(self) -> Iterator[int]:
        return self._salvage.lengths(self._start)

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._salvage.string(self._start + index)


# ------------------------------------------------------------------------------------------------
# Text


def _texts(data: Buffer) -> Iterator[bytes | None]:
    """The text of an archive piece by piece, None where some of it is lost."""
    if bytes(data[:2]) != b"\x1f\x8b":
        for start in range(0, len(data), _PIECE):
            yield bytes(data[start : start + _PIECE])
        return
    inflate, at, shift = zlib.decompressobj(31), 0, 0
    unpacked = 0
    step = _PIECE
    while piece := _shifted(data, at, step, shift):
        before = inflate.copy()
        try:
            text = inflate.decompress(piece)
        except zlib.error:
            if step > _STEP:
                inflate, step = before, _STEP
                continue
            yield None
            found = _next_block(data, 8 * at + shift + 1)
            if found < 0:
                return
            at, shift = divmod(found, 8)
            inflate, step = zlib.decompressobj(-15), _PIECE
            continue
        at += len(piece)
        unpacked += len(text)
        if unpacked > len(data) * bounds.MAX_EXPANSION + bounds.MAX_HEADER:
            return
        if text:
            yield text
        if inflate.eof:
            return


def _shifted(data: Buffer, at: int, nbytes: int, shift: int) -> bytes:
    """Bytes from `shift` bits behind the beginning of byte `at`."""
    if not shift:
        return bytes(data[at : at + nbytes])
    raw = bytes(data[at : at + nbytes + 1])
    shifted = int.from_bytes(raw, "little") >> shift
    return shifted.to_bytes(len(raw), "little")[:nbytes]


def _next_block(data: Buffer, bit: int) -> int:
    """The first bit from there on at which a block of an archive's text begins; -1: none."""
    start = bit // 8
    while start < len(data):
        raw = bytes(data[start : start + _PIECE + 2])
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
        count = min(8 * _PIECE, len(bits) - len(_BLOCK))
        if count <= 0:
            return -1
        fits = np.ones(count, bool)
        for place, value in enumerate(_BLOCK):
            if value is not None:
                fits &= bits[place : place + count] == value
        for offset in np.flatnonzero(fits):
            found = 8 * start + int(offset)
            if found >= bit and _is_block(data, found):
                return found
        start += _PIECE
    return -1


def _is_block(data: Buffer, bit: int) -> bool:
    """Whether an archive's text is unpacked from there on."""
    inflate = zlib.decompressobj(-15)
    text = b""
    try:
        for start in range(0, _TRIED, _STEP):
            text += inflate.decompress(_shifted(data, bit // 8 + start, _STEP, bit % 8))
            if inflate.eof or len(text) >= _ENOUGH:
                break
    except zlib.error:
        return False
    known = not text.translate(None, _LETTERS + _MARKS)
    return bool(text) and known and (len(text) >= _ENOUGH or inflate.eof)


# ------------------------------------------------------------------------------------------------
# Checksums


def _steps() -> tuple[list[int], bytearray]:
    """The table of CRC-32, and which of its entries has which highest byte."""
    table, of_top = [], bytearray(256)
    for entry in range(256):
        value = entry
        for _ in range(8):
            value = (value >> 1) ^ (0xEDB88320 if value & 1 else 0)
        of_top[value >> 24] = entry
        table.append(value)
    return table, of_top


_TABLE, _OF_TOP = _steps()


def _backwards(difference: int, nbytes: int) -> int:
    """By what two checksums differed before both went on over the same `nbytes` bytes, after which
    they differ by this."""
    for _ in range(nbytes):
        entry = _OF_TOP[difference >> 24]
        difference = ((difference ^ _TABLE[entry]) << 8 & 0xFFFFFFFF) | entry
    return difference
