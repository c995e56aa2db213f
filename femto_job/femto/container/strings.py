"""The strings of tiles: as text, and put aside so that memory does not follow the archive."""

import base64
import tempfile
import threading
import weakref
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np

from ..errors import LaffError
from .bounds import SPOOL


def seal(data: bytes, head_crc: int, layer: int, tile: int) -> str:
    """A string as text: base64 of the bytes and their CRC-32.

    The checksum starts from the header's and the string's place, so that a string that strayed
    into another archive, layer or tile is noticed.
    """
    crc = zlib.crc32(data, zlib.crc32(b"%d,%d" % (layer, tile), head_crc))
    return base64.b64encode(data + crc.to_bytes(4, "big")).decode()


def unseal(text: str | bytes, head_crc: int, layer: int, tile: int) -> bytes:
    data = base64.b64decode(text, validate=True)
    if len(data) < 4:
        raise ValueError("a string is too short")
    crc = zlib.crc32(data[:-4], zlib.crc32(b"%d,%d" % (layer, tile), head_crc))
    if crc != int.from_bytes(data[-4:], "big"):
        raise ValueError("a checksum does not match")
    return data[:-4]


def temporary(owner: object) -> tempfile.SpooledTemporaryFile[bytes]:
    """A file without a name, in memory while it is short, that ends with its owner."""
    file = tempfile.SpooledTemporaryFile(max_size=SPOOL)  # noqa: SIM115
    weakref.finalize(owner, file.close)
    return file


class Spool:
    """Bytes that are put aside, in memory while they are few, then in a file without a name."""

    def __init__(self) -> None:
        self._file = temporary(self)
        self._lock = threading.Lock()
        self._end = 0

    def put(self, data: bytes) -> int:
        """Keep `data`; where it begins. Raises LaffError if there is no room."""
        with self._lock:
            try:
                self._file.seek(self._end)
                self._file.write(data)
            except OSError as error:
                raise LaffError(
                    f"{tempfile.gettempdir()}: no room for the strings of a large archive "
                    f"({error.strerror}): free some, or name another folder in TMPDIR"
                ) from None
            start, self._end = self._end, self._end + len(data)
        return start

    def get(self, start: int, length: int) -> bytes:
        with self._lock:
            self._file.seek(start)
            return self._file.read(length)


class Strings(Sequence[bytes]):
    """The strings of one layer, a tile each, put aside in a spool; those of tiles that were not
    wanted are not there."""

    def __init__(self, spool: Spool):
        self._spool = spool
        self._starts, self._lengths = array("q"), array("I")

    def append(self, data: bytes | None) -> None:
        """Add the next tile's string, None if it is not wanted."""
        self._starts.append(-1 if data is None else self._spool.put(data))
        self._lengths.append(0 if data is None else len(data))

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = self._starts[index]
        if start < 0:
            raise KeyError(f"the string of tile {index} was not read")
        return self._spool.get(start, self._lengths[index])


@dataclass(frozen=True)
class EncodedTile:
    """One coded tile: its block string, one k-string per layer, and the error it leaves.

    `sse` is the sum over all samples of the squared difference between the tile and its
    reconstruction from all layers; `seen`, what a caller's `watch` said of the two.
    """

    blocks: bytes
    layers: tuple[bytes, ...]
    sse: float
    seen: Any = None

    @property
    def nbytes(self) -> int:
        """Bytes of the strings before they are put into text."""
        return len(self.blocks) + sum(map(len, self.layers))


class Tiles:
    """The encoded tiles of a picture, by number; they may come in any order, from any thread. Their
    strings are put aside, so that memory does not follow the archive."""

    def __init__(self, tiles: Iterable[EncodedTile] = ()):
        self._spool = Spool()
        self._tiles: dict[int, tuple[int, array[int], EncodedTile]] = {}
        for index, tile in enumerate(tiles):
            self[index] = tile

    def __setitem__(self, index: int, tile: EncodedTile) -> None:
        strings = (tile.blocks, *tile.layers)
        start = self._spool.put(b"".join(strings))
        lengths = array("I", map(len, strings))
        self._tiles[index] = (start, lengths, replace(tile, blocks=b"", layers=()))

    def __len__(self) -> int:
        return len(self._tiles)

    def __getitem__(self, index: int) -> EncodedTile:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, lengths, tile = self._tiles[index]
        data, ends = self._spool.get(start, sum(lengths)), np.cumsum(lengths).tolist()
        blocks, *layers = (data[e - n : e] for e, n in zip(ends, lengths, strict=True))
        return replace(tile, blocks=blocks, layers=tuple(layers))

    @property
    def sse(self) -> float:
        """The error that all of them leave."""
        return sum(self._tiles[index][2].sse for index in range(len(self)))

    @property
    def seen(self) -> list[Any]:
        """What was said of each."""
        return [self._tiles[index][2].seen for index in range(len(self))]

    def strings(self) -> tuple[Iterator[bytes], list[Iterator[bytes]]]:
        """Their block strings, and the strings of every layer, in the order of the tiles. Raises
        ValueError if they have not all as many layers."""
        counts = {len(lengths) for _, lengths, _ in self._tiles.values()}
        if len(counts) > 1:
            raise ValueError("tiles have different numbers of layers")

        def of(number: int) -> Iterator[bytes]:
            for index in range(len(self)):
                start, lengths, _ = self._tiles[index]
                yield self._spool.get(start + sum(lengths[:number]), lengths[number])

        return of(0), [of(number) for number in range(1, max(counts, default=1))]
