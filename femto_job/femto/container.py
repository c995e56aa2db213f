"""The archive: JSON text that holds the k-strings, gzip-ed (see docs/SPEC.md).

Everything here is about bytes and text; what the strings mean is the coder's business.
"""

import base64
import binascii
import io
import json
import math
import os
import re
import stat
import tempfile
import threading
import weakref
import zlib
from array import array
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Protocol, TypeAlias, overload

import numpy as np

from .errors import LaffError
from .samples import Levels, check_mapping, dtype_of, levels_of
from .tiles import TILE, tile_count

FORMAT = "laff"
VERSION = 2
"""What is written and read."""
PASSES = (4, 1)
"""In how many passes a picture may be coded; the first is what a header without them means."""
TUNES = ("psnr", "perceptual")
"""What the quantiser may be tuned for; likewise."""
HASH_DIGITS = 16
"""Of its basis's hash an archive holds the first digits."""
MAX_SIDE = 1 << 20
"""Largest width or height of a picture, in pixels."""
MAX_PIXELS = 1 << 36
"""Largest picture, in pixels."""
MIN_STEP = 0.05
"""Finest quantiser step in grey levels, of a picture that uses at least 256 of them."""
MAX_STREAM = 1 << 32
"""Longest archive that is read from a stream, in bytes: one without end must not fill memory."""
MAX_TILE = 2048
"""Largest edge of a tile, in pixels: a small file must not make a decoder need gigabytes."""
MAX_TEXT = 1 << 38
"""Largest archive text, in characters, that is unpacked."""
MAX_EXPANSION = 12
"""gzip-ed base64 grows to at most 8/6 and its metadata to little more: anything that unpacks to
far more than its size is not an archive but a trap."""
MAX_METADATA = 1 << 24
"""Most bytes of metadata, unpacked."""
MAX_PARTS = 1 << 20
"""Most lists, dicts and their members in metadata, and in each part of an archive's header."""
MAX_HEADER = 1 << 26
"""Longest text of an archive without its strings, in bytes: ICC profile and metadata go into it."""
SPOOL = 1 << 24
"""So many bytes of strings are kept in memory; more go into a file in the folder of temporary ones,
so that memory does not follow the archive."""
BELIEVED_PIXELS = (1 << 31) // 12
"""How many pixels an archive is believed to hold unless its reader says more: as many as Pillow
opens, 179 million (see `check_pixels`)."""


AnyPath: TypeAlias = str | os.PathLike[str]
Stored: TypeAlias = bytes | bytearray | memoryview | AnyPath
"""An archive: its bytes, or the path of its file."""


class ByteStream(Protocol):
    """Where an archive comes from while it arrives: a pipe, a socket's file, an open file."""

    def read(self, nbytes: int, /) -> bytes:
        """At most so many bytes; none at the end."""


def finest_step(levels: Levels, limits: Levels) -> float:
    """The finest quantiser step of a picture that uses `levels` and has samples within `limits`:
    the coder's integers stay below 2^31."""
    return MIN_STEP * max(min(1.0, levels.scale), limits.range / 65535)


@dataclass(frozen=True)
class ImageHeader:
    """What an archive says of its picture.

    `width` and `height` in pixels; `mode` "L" (grey) or "RGB"; `bits` per sample, 1 to 16: they
    are uint8 up to 8 and uint16 above; `source` the picture file's name; `icc` an ICC profile;
    `metadata` a dict whose values are JSON or bytes. `levels`, the range that the picture uses,
    which its step and PSNR follow: all that its bits have, if not given; `limits`, between which
    its samples lie, where these are wider than the levels. `mapping`: what a sample stands for
    is sample * slope + intercept, of a type, see `samples.check_mapping`; None if it is itself.
    """

    width: int
    height: int
    mode: str
    bits: int
    source: str | None = None
    icc: bytes | None = None
    metadata: dict[str, Any] | None = None
    levels: Levels = None  # type: ignore[assignment]  # which is told from the bits then
    limits: Levels = None  # type: ignore[assignment]
    mapping: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        levels = levels_of(self.bits) if self.levels is None else Levels(*self.levels)
        object.__setattr__(self, "levels", levels)
        limits = levels if self.limits is None else Levels(*self.limits)
        object.__setattr__(self, "limits", limits)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the samples, uint8 or uint16."""
        return dtype_of(self.bits)

    @property
    def channels(self) -> int:
        """Samples per pixel: 1 or 3."""
        return 3 if self.mode == "RGB" else 1

    @property
    def raw_nbytes(self) -> int:
        """Bytes of the uncompressed samples."""
        return self.width * self.height * self.channels * self.dtype.itemsize


def _temporary(owner: object) -> tempfile.SpooledTemporaryFile[bytes]:
    """A file without a name, in memory while it is short, that ends with its owner."""
    file = tempfile.SpooledTemporaryFile(max_size=SPOOL)  # noqa: SIM115
    weakref.finalize(owner, file.close)
    return file


class _Spool:
    """Bytes that are put aside, in memory while they are few, then in a file without a name."""

    def __init__(self) -> None:
        self._file = _temporary(self)
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

    def __init__(self, spool: _Spool):
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
        self._spool = _Spool()
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


@dataclass(frozen=True)
class Archive:
    """A parsed archive, as `femto.parse` returns it: what it says, and its strings.

    `header`: its picture; `basis_name` and `basis_sha256` (first digits) of the basis that it
    needs; `step`, the quantiser's, in grey levels; `passes` 4 or 1; `tune`; `tile`, the edge of its
    tiles in pixels; `blocks[tile]` and `layers[layer][tile]`, the strings; `nbytes` of the archive
    and `layer_nbytes` of each layer's strings; `name`, its path, for messages. Notebooks show it
    as its picture.
    """

    header: ImageHeader
    basis_name: str
    basis_sha256: str
    step: float
    passes: int
    tune: str
    tile: int
    blocks: Sequence[bytes]
    layers: list[Sequence[bytes]]
    nbytes: int
    layer_nbytes: list[int] = field(default_factory=list)
    name: str = "archive"
    basis_file: str | None = None
    """A basis file to look into before those beside the archive."""
    packed: str | None = None
    """The metadata as the archive has them."""

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """What a notebook shows of it."""
        from .display import mimebundle

        return mimebundle(self)


def _head(
    header: ImageHeader,
    basis_name: str,
    basis_sha256: str,
    step: float,
    passes: int,
    tune: str,
    tile: int,
    metadata: str | None,
) -> dict[str, Any]:
    image: dict[str, Any] = {
        "width": header.width,
        "height": header.height,
        "mode": header.mode,
        "bits": header.bits,
    }
    # Small pictures feel every byte: what is not there, or is as usual, is not named.
    if header.source is not None:
        image["source"] = header.source
    if header.icc is not None:
        image["icc"] = base64.b64encode(header.icc).decode()
    if header.levels != levels_of(header.bits):
        image["levels"] = list(header.levels)
    if header.limits != header.levels:
        image["limits"] = list(header.limits)
    if header.mapping is not None:
        image["mapping"] = header.mapping
    head: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "image": image,
        "metadata": metadata,
        "basis": {"name": basis_name, "sha256": basis_sha256[:HASH_DIGITS]},
        "step": step,
        "tile": tile,
    }
    if metadata is None:
        del head["metadata"]
    if passes != PASSES[0]:
        head["passes"] = passes
    if tune != TUNES[0]:
        head["tune"] = tune
    return head


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _crc(head: dict[str, Any]) -> int:
    """Checksum of the header's values, whatever the white space and the order of its keys."""
    text = json.dumps(head, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return zlib.crc32(text.encode())


def _seal(data: bytes, head_crc: int, layer: int, tile: int) -> str:
    """A string as text: base64 of the bytes and their CRC-32.

    The checksum starts from the header's and the string's place, so that a string that strayed
    into another archive, layer or tile is noticed.
    """
    crc = zlib.crc32(data, zlib.crc32(b"%d,%d" % (layer, tile), head_crc))
    return base64.b64encode(data + crc.to_bytes(4, "big")).decode()


def _unseal(text: str | bytes, head_crc: int, layer: int, tile: int) -> bytes:
    data = base64.b64decode(text, validate=True)
    if len(data) < 4:
        raise ValueError("a string is too short")
    crc = zlib.crc32(data[:-4], zlib.crc32(b"%d,%d" % (layer, tile), head_crc))
    if crc != int.from_bytes(data[-4:], "big"):
        raise ValueError("a checksum does not match")
    return data[:-4]


def _parts(text: bytes) -> int:
    """At least how many lists, dicts and members JSON text has: each needs more memory than text.
    Brackets and colons in strings count too."""
    return sum(map(text.count, (b"[", b"{", b":")))


def pack_metadata(metadata: dict[str, Any]) -> str:
    """Metadata as an archive keeps them: base64 of raw deflate of a line of JSON, the values and
    the lengths of the bytes, and these bytes. Raises LaffError for what cannot be kept."""
    if not isinstance(metadata, dict):
        raise LaffError(
            "the metadata must be a JSON object, whose values may be bytes: give a dict"
        )
    blobs = {k: bytes(v) for k, v in metadata.items() if isinstance(v, (bytes, bytearray))}
    values = {k: v for k, v in metadata.items() if k not in blobs}
    try:
        line = _dump([values, {key: len(blob) for key, blob in blobs.items()}]).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise LaffError(f"the metadata cannot be written as JSON ({error})") from None
    data = b"\n".join([line, b"".join(blobs.values())]) if blobs else line
    if _parts(line) > MAX_PARTS:
        raise LaffError(f"metadata of more than {MAX_PARTS} parts: leave some out")
    if len(data) > MAX_METADATA:
        raise LaffError(
            f"{len(data)} bytes of metadata are more than an archive keeps ({MAX_METADATA}): "
            "leave some out"
        )
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    return base64.b64encode(deflate.compress(data) + deflate.flush()).decode()


def unpack_metadata(text: str) -> dict[str, Any]:
    """The metadata that `pack_metadata` packed. Raises ValueError if they are damaged."""
    if not isinstance(text, str):
        raise ValueError("metadata are not a string")
    inflate = zlib.decompressobj(-15)
    try:
        data = inflate.decompress(base64.b64decode(text, validate=True), MAX_METADATA + 1)
    except (zlib.error, binascii.Error):
        raise ValueError("metadata are damaged") from None
    if len(data) > MAX_METADATA or not inflate.eof or inflate.unused_data:
        raise ValueError("metadata are damaged or too long")
    line, _, data = data.partition(b"\n")
    if _parts(line) > MAX_PARTS:
        raise ValueError("metadata have too many parts")
    try:
        values, lengths = json.loads(line)
        blobs: dict[str, Any] = dict.fromkeys(lengths, b"") | values
        start = 0
        for key, length in lengths.items():
            blobs[key] = data[start : start + _integer(length, 0, len(data) - start, "length")]
            start += length
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ValueError("metadata are damaged") from None
    if start != len(data):
        raise ValueError("metadata are damaged")
    return blobs


def _plain_source(source: str | None) -> str | None:
    """A source as it will be read back, as UTF-8: a file name that is not (lone surrogates, as
    Python reads it) is written with escapes."""
    if source is None:
        return None
    if not isinstance(source, str):
        raise LaffError(f"the source {source!r} is not a file name: give a str")
    return source.encode("utf-8", "backslashreplace").decode()


def _plain_mapping(header: ImageHeader) -> dict[str, Any] | None:
    """A mapping as it will be read back. Raises LaffError for one that cannot be kept."""
    try:
        return check_mapping(header.mapping, header.limits)
    except ValueError as error:
        raise LaffError(f"the mapping cannot be kept ({error}): give another") from None


def _gzip(pieces: Iterable[str], file: BinaryIO) -> int:
    """Write text gzip-ed with Huffman codes only: base64 has no repeats that a search could find,
    and leaving the search out makes the text smaller, not just the work. No time stamp: equal
    pictures give equal archives. Returns the bytes."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31, 9, zlib.Z_HUFFMAN_ONLY)
    nbytes = 0
    for piece in pieces:
        nbytes += file.write(deflate.compress(piece.encode()))
    return nbytes + file.write(deflate.flush())


def _listed(strings: Iterable[bytes], head_crc: int, layer: int) -> Iterator[str]:
    """The text of an array of sealed strings."""
    yield "["
    for tile, data in enumerate(strings):
        yield f'{"," if tile else ""}"{_seal(data, head_crc, layer, tile)}"'
    yield "]"


def write(
    header: ImageHeader,
    *,
    basis_name: str,
    basis_sha256: str,
    step: float,
    blocks: Iterable[bytes],
    layers: Iterable[Iterable[bytes]],
    passes: int = PASSES[0],
    tune: str = TUNES[0],
    tile: int = TILE,
    packed: str | None = None,
    file: BinaryIO | None = None,
) -> bytes | int:
    """The gzip-ed archive of a picture whose tiles are coded as `blocks[tile]` and
    `layers[layer][tile]`. `packed` are the metadata as another archive has them; default: those of
    the header, packed.

    With `file`, a binary one, the archive is written into it, string by string, and its bytes are
    counted. Raises LaffError for what an archive cannot keep.
    """
    if packed is None and header.metadata is not None:
        packed = pack_metadata(header.metadata)
    source, mapping = _plain_source(header.source), _plain_mapping(header)
    header = replace(header, source=source, mapping=mapping)
    head = _head(header, basis_name, basis_sha256, step, passes, tune, tile, packed)
    crc = _crc(head)
    begin = _dump(head | {"crc": crc})
    if len(begin) > MAX_HEADER - (1 << 16):
        raise LaffError(
            f"{len(begin)} characters of ICC profile and metadata are more than an archive keeps "
            f"({MAX_HEADER}): leave some out"
        )

    def pieces() -> Iterator[str]:
        yield f'{begin[:-1]},"blocks":'
        yield from _listed(blocks, crc, -1)
        yield ',"strings":['
        for layer, strings in enumerate(layers):
            yield "," if layer else ""
            yield from _listed(strings, crc, layer)
        yield "]}"

    if file is not None:
        return _gzip(pieces(), file)
    with io.BytesIO() as made:
        _gzip(pieces(), made)
        return made.getvalue()


def _shown(value: object) -> str:
    """What an archive says, for a message: it may be long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def is_plain(name: object) -> bool:
    """Whether this may be the name of a basis: it becomes that of a file beside the archive, and is
    shown, so it is no path, no hidden file and prints."""
    return (
        isinstance(name, str)
        and 1 <= len(name) <= 100
        and name.isprintable()
        and not name.startswith(".")
        and not set(name) & set("/\\:")
    )


def _integer(value: Any, low: int, high: int, what: str) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{what} is {_shown(value)}, not {low} to {high}")
    return value


def _levels(image: dict[str, Any], key: str, most: Levels) -> Levels | None:
    """The two levels under this key, None if it is not there."""
    value = image.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"{key} is not two numbers")
    low = _integer(value[0], most.low, most.high, key)
    return Levels(low, _integer(value[1], low, most.high, key))


_CHUNK = 1 << 16
_PIECE = 1 << 20
_SPACE = re.compile(rb"[ \t\n\r]*")
_MARK = re.compile(rb'["\[\]{}]')
_PLAIN = re.compile(rb'[^\s",:\[\]{}]*')
_HASH = re.compile("[0-9a-f]{0,64}")
_STRINGS = ("blocks", "strings")
_KEYS = {
    "format", "version", "image", "metadata", "basis", "step", "tile", "crc", "passes", "tune",
    *_STRINGS,
}  # fmt: skip
"""Other keys are passed over."""
_BROKEN = (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError)
"""What is raised where a header is not as it should be."""


def _past(pattern: re.Pattern[bytes], text: bytearray, at: int) -> int:
    """Where what matches from there on ends."""
    found = pattern.match(text, at)
    return at if found is None else found.end()


class _Cut(Exception):
    """The text is no JSON object, or ends before it does."""


class _Text:
    """An archive's text, unpacked no further than it is asked for, and read as JSON.

    `buffer` holds what is at hand, from `at` on it is not yet used. Raises LaffError for bytes that
    cannot be unpacked, _Cut for what is not JSON.
    """

    def __init__(self, stream: ByteStream, name: str, size: int | None):
        # Of a pipe, what is there.
        self._read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        self._name, self.size = name, size
        self._inflate: Any = None
        self._tail, self._begun = b"", False
        self._unpacked = self._header = 0
        self.nbytes = 0
        self.buffer, self.at = bytearray(), 0

    def _piece(self) -> bytes:
        """The next piece of text; none at its end."""
        data = self._tail or self._read(_CHUNK)
        if not self._tail:
            while not self._begun and len(data) == 1 and (more := self._read(_CHUNK)):
                data += more
            self.nbytes += len(data)
            if self.size is None and self.nbytes > MAX_STREAM:
                raise LaffError(f"{self._name}: is longer than {MAX_STREAM} bytes: name a file")
            if not self._begun:
                self._begun = True
                if not data:
                    raise LaffError(f"{self._name}: the file is empty: copy or compress it again")
                if data[:2] == b"\x1f\x8b":
                    self._inflate = zlib.decompressobj(31)
        if self._inflate is not None:
            data = self._unzip(data)
        self._unpacked += len(data)
        room = 1 << 16 if self.size is not None else MAX_HEADER
        if self._unpacked > min((self.size or self.nbytes) * MAX_EXPANSION + room, MAX_TEXT):
            raise LaffError(f"{self._name}: unpacks to more than any archive of its size: not used")
        return data

    def _unzip(self, data: bytes) -> bytes:
        inflate, text = self._inflate, b""
        while not text:
            if inflate.eof and (data or inflate.unused_data):
                raise LaffError(f"{self._name}: something follows the archive's end: copy it again")
            if inflate.eof:
                break
            ends = not data
            try:
                text = inflate.decompress(data, _PIECE)
            except zlib.error:
                raise LaffError(
                    f"{self._name}: the archive is damaged: copy or download it again"
                ) from None
            self._tail = inflate.unconsumed_tail
            if ends and not text and not inflate.eof:
                raise LaffError(
                    f"{self._name}: the archive is cut short: copy or download it again"
                )
            if not text:
                data = self._read(_CHUNK)
                self.nbytes += len(data)
        return text

    def more(self) -> bool:
        """Get another piece; whether there was one. What was used is forgotten."""
        del self.buffer[: self.at]
        self.at = 0
        piece = self._piece()
        self.buffer += piece
        return bool(piece)

    def _must(self) -> None:
        if not self.more():
            raise _Cut

    def peek(self) -> str:
        """The next character that is not white space, if it is ASCII; none at the text's end."""
        while True:
            if self.at < len(self.buffer):
                if self.buffer[self.at] > 0x20:
                    return chr(self.buffer[self.at])
                self.at = _past(_SPACE, self.buffer, self.at)
                if self.at < len(self.buffer):
                    return chr(self.buffer[self.at])
            if not self.more():
                return ""

    def take(self, characters: str) -> str:
        """Go past one of these characters, and which it is."""
        found = self.peek()
        if not found or found not in characters:
            raise _Cut
        self.at += 1
        return found

    def _closing(self, offset: int, most: int) -> int:
        """Where the string ends whose inside begins at `offset`; both count from `at`."""
        while True:
            found = self.buffer.find(b'"', self.at + offset)
            if found >= 0:
                before = found
                while before > self.at and self.buffer[before - 1] == 0x5C:
                    before -= 1
                offset = found - self.at
                if (found - before) % 2 == 0:
                    return offset
                offset += 1
            else:
                offset = len(self.buffer) - self.at
                if offset > most:
                    raise ValueError("a string is longer than any of an archive")
                self._must()

    def string(self, most: int) -> bytes:
        """A string of base64, which is hardly longer than `most`."""
        self.take('"')
        end = self._closing(0, most)
        data = bytes(self.buffer[self.at : self.at + end])
        self.at += end + 1
        return data if b"\\" not in data else json.loads(b'"' + data + b'"').encode()

    def value(self) -> Any:
        """Any value, as Python has it."""
        self.peek()
        depth = offset = 0
        while True:
            mark = _MARK.search(self.buffer, self.at + offset)
            if depth == 0 and (mark is None or mark.start() > self.at):
                end = _past(_PLAIN, self.buffer, self.at)
                if end < len(self.buffer):
                    offset = end - self.at
                    break
                mark = None
            if mark is None:
                offset = 0 if depth == 0 else len(self.buffer) - self.at
                self._limit(len(self.buffer) - self.at)
                self._must()
                continue
            offset = mark.end() - self.at
            if mark[0] == b'"':
                offset = self._closing(offset, MAX_HEADER) + 1
            else:
                depth += 1 if mark[0] in b"[{" else -1
            self._limit(offset)
            if depth <= 0:
                break
        self._limit(offset)
        self._header += offset
        data = bytes(self.buffer[self.at : self.at + offset])
        self.at += offset
        if _parts(data) > MAX_PARTS:
            raise ValueError("its header has too many parts")
        try:
            return json.loads(data.decode())
        except (ValueError, RecursionError):
            raise _Cut from None

    def _limit(self, nbytes: int) -> None:
        if self._header + nbytes > MAX_HEADER:
            raise ValueError(f"its header is longer than {MAX_HEADER} bytes")

    def skip(self) -> None:
        """Go past a value; it is not looked at closely."""
        depth = 0
        while True:
            found = self.peek()
            if found == '"':
                self.string(MAX_HEADER)
            elif found and found in "[]{},:":
                depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found, 0)
                self.at += 1
            else:
                end = _past(_PLAIN, self.buffer, self.at)
                if not found or end == self.at:
                    raise _Cut
                self.at = end
            if depth <= 0:
                return

    def members(self) -> Iterator[str]:
        """The keys of an object; whoever gets one takes the value."""
        self.take("{")
        if self.peek() == "}":
            self.at += 1
            return
        while True:
            if self.peek() != '"':
                raise _Cut
            key = self.value()
            self.take(":")
            yield key
            if self.take(",}") == "}":
                return

    def items(self) -> Iterator[None]:
        """The places of an array; whoever comes to one takes the value."""
        self.take("[")
        if self.peek() == "]":
            self.at += 1
            return
        while True:
            yield
            if self.take(",]") == "]":
                return


Layers: TypeAlias = int | Callable[[dict[str, Any]], int] | None
"""How many layers of an archive to read: see `_Reading`."""
Wanted: TypeAlias = Callable[[Archive], Collection[int] | None] | None
"""Which tiles of an archive to keep: see `_Reading`."""


class _Reading:
    """An archive that is read, string by string.

    `restart` gives its text from the beginning, again if it must: where the header does not come
    before the strings, it is gathered first. `layers` is how many to read, a number or a function
    of the header's JSON object, None for all. `wanted` is told the archive without its strings
    before any is kept; it gives the numbers of the tiles that are (None: all), or raises LaffError.
    Without `keep`, all are checked and none is kept. With `each`, there is an archive after every
    layer.
    """

    def __init__(
        self,
        restart: Callable[[], _Text],
        name: str,
        *,
        layers: Layers = None,
        wanted: Wanted = None,
        keep: bool = True,
        each: bool = False,
    ):
        self._restart, self._name, self._keep, self._each = restart, name, keep, each
        self._layers, self._wanted = layers, wanted
        self._top: dict[str, Any] = {}
        self._archive: Archive | None = None
        self._spool = _Spool()

    def states(self) -> Iterator[Archive]:
        """The archive, at last with all its layers. Raises LaffError."""
        try:
            yield from self._states()
        except LaffError:
            raise
        except _Cut:
            raise LaffError(
                f"{self._name}: not a whole .laff archive (cut short or damaged): copy it again"
            ) from None
        except _BROKEN as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise LaffError(
                f"{self._name}: the archive is damaged ({reason}): copy or download it again"
            ) from None
        except OSError as error:
            raise LaffError(f"{self._name}: cannot be read ({error.strerror}): check it") from None

    def _states(self) -> Iterator[Archive]:
        text = self._restart()
        complete = yield from self._pass(text, first=True)
        if not complete:
            checked, text = _checked(self._top, self._name), self._restart()
            self._accept(*checked, text)
            yield from self._pass(text, first=False)

    def _accept(self, archive: Archive, crc: int, text: _Text) -> None:
        self._archive, self._crc = replace(archive, nbytes=text.size or text.nbytes), crc
        header = archive.header
        self._tiles = tile_count(header.height, header.width, self._archive.tile)
        # As a coder of 16 bits a sample could not fill it.
        edge = self._archive.tile
        self._most = (1 << 16) + 16 * header.channels * (
            min(edge, header.width) * min(edge, header.height)
        )
        self._chosen = None if self._wanted is None else self._wanted(self._archive)
        self._last = self._layers(self._top) if callable(self._layers) else self._layers

    def _pass(self, text: _Text, *, first: bool) -> Generator[Archive, None, bool]:
        """Read the text; False if it must be read again because the header came too late."""
        if text.peek() != "{":
            raise LaffError(f"{self._name}: not a .laff archive: give a file that femto compressed")
        blocks: Strings | None = None
        layers: list[Strings] | None = None
        sizes: list[int] = []
        seen: set[str] = set()
        skipped, late, given = False, False, 0
        for key in text.members():
            if key not in _KEYS:
                text.skip()
                continue
            if key in seen:
                raise ValueError(f"{key!r} comes twice")
            seen.add(key)
            if key not in _STRINGS:
                value = text.value()
                if first:
                    self._top[key] = value
                    late |= self._archive is not None
                continue
            if first and self._archive is None and not skipped:
                try:
                    checked = _checked(self._top, self._name)
                except _BROKEN:  # the rest may come; if not, it is told then
                    skipped = True
                else:
                    self._accept(*checked, text)
            if skipped:
                text.skip()
            elif key == "blocks":
                blocks, _ = self._strings(text, -1)
            else:
                layers = []
                for _ in text.items():
                    strings, nbytes = self._strings(text, len(layers))
                    layers.append(strings)
                    sizes.append(nbytes)
                    if blocks is None:
                        continue
                    if len(layers) == self._last:
                        yield self._state(text, blocks, layers, sizes)
                        return True
                    if self._each:
                        given = len(layers)
                        yield self._state(text, blocks, layers, sizes)
        if text.peek():
            raise LaffError(f"{self._name}: something follows the archive's end: copy it again")
        if skipped or self._archive is None:
            return False
        if late:
            _checked(self._top, self._name)
        if blocks is None:
            raise KeyError("blocks")
        if layers is None:
            raise KeyError("strings")
        if given < len(layers) or not layers:
            yield self._state(text, blocks, layers, sizes)
        return True

    def _state(
        self, text: _Text, blocks: Strings, layers: list[Strings], sizes: list[int]
    ) -> Archive:
        assert self._archive is not None  # without a header no strings are read
        return replace(
            self._archive,
            blocks=blocks,
            layers=list(layers),
            nbytes=text.nbytes,
            layer_nbytes=list(sizes),
        )

    def _strings(self, text: _Text, layer: int) -> tuple[Strings, int]:
        """An array of strings, one a tile, and how long they are as text."""
        strings, nbytes = Strings(self._spool), 0
        for _ in text.items():
            tile = len(strings)
            if tile == self._tiles:
                break
            sealed = text.string(self._most)
            nbytes += len(sealed)
            data = None
            if self._chosen is None or tile in self._chosen:
                data = _unseal(sealed, self._crc, layer, tile)
            strings.append(data if self._keep else None)
        else:
            if len(strings) == self._tiles:
                return strings, nbytes
        raise ValueError(f"it does not hold the strings of its {self._tiles} tiles")


def _open(archive: Stored, name: str) -> BinaryIO:
    """A binary stream of an archive's bytes; LaffError if there is none."""
    if not isinstance(archive, (str, os.PathLike)):
        return io.BytesIO(archive)
    try:
        regular = stat.S_ISREG(os.stat(archive).st_mode)
        if regular:
            return open(archive, "rb")
    except (FileNotFoundError, ValueError):  # ValueError: a null in the name
        raise LaffError(f"{name}: no such file: check the name") from None
    except OSError as error:
        raise LaffError(f"{name}: cannot be read ({error.strerror}): check it") from None
    raise LaffError(f"{name}: cannot be read (it is no file): name a .laff.gz file")


def read(
    archive: Stored, *, layers: Layers = None, wanted: Wanted = None, keep: bool = True
) -> Archive:
    """Parse and check an archive: bytes, or the path of a file; gzip-ed or plain text.

    With `layers`, a number or a function that gives one for the JSON object, only the first
    so many are read, unpacked and checked where possible; damage behind them, or that they are
    all that arrived of a file, is then no error. `nbytes` counts the whole file even so. `wanted`
    and `keep` are as for `_Reading`.

    Every limit is checked before anything is allocated for the picture, and what an archive claims
    costs nothing before its strings are there. Memory does not follow the archive: its strings are
    put aside in a temporary file if they are long. Raises LaffError if the archive is missing, cut
    short, damaged, of an unknown version or not an archive.
    """
    name = os.fspath(archive) if isinstance(archive, (str, os.PathLike)) else "archive"
    with _open(archive, name) as stream:
        size = stream.seek(0, io.SEEK_END)

        def restart() -> _Text:
            stream.seek(0)
            return _Text(stream, name, size)

        reading = _Reading(restart, name, layers=layers, wanted=wanted, keep=keep)
        *_, last = reading.states()
    return replace(last, nbytes=size)


def arriving(
    stream: ByteStream, name: str = "archive", *, wanted: Wanted = None
) -> Iterator[Archive]:
    """Parse and check an archive while it arrives on a binary stream: yields what there is of it
    after every layer. Raises LaffError for what is no archive, and for one that is cut short or
    damaged, when what is good of it has been yielded. `wanted` is as for `_Reading`."""
    kept = _Kept(stream)

    def restart() -> _Text:
        if not kept.nbytes:
            return _Text(kept, name, None)
        return _Text(kept.again(), name, kept.nbytes)

    def accepted(archive: Archive) -> Collection[int] | None:
        kept.forget()
        return None if wanted is None else wanted(archive)

    yield from _Reading(restart, name, wanted=accepted, each=True).states()


class _Kept:
    """A stream that keeps what was read of it until that is known not to be read again."""

    def __init__(self, stream: ByteStream):
        self._read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        self._file = _temporary(self)
        self._keeps = True
        self.nbytes = 0

    def read(self, nbytes: int) -> bytes:
        """What is there, at most `nbytes`."""
        data = self._read(nbytes)
        self.nbytes += len(data)
        if self._keeps:
            self._file.write(data)
        return data

    def again(self) -> ByteStream:
        """What was read so far, which is all."""
        self._keeps = False
        self._file.seek(0)
        return self._file

    def forget(self) -> None:
        if self._keeps:
            self._keeps = False
            self._file.seek(0)
            self._file.truncate()


def check_pixels(
    archive: Archive, pixels: int, most: int | None, *, streamed: bool = False
) -> None:
    """LaffError if an archive would have more pixels made of it than `most`, None being any number.

    Where the picture is never in memory as a whole (`streamed`), memory is no matter, but time and
    what is written are: there `most` is for every MiB of the archive begun, which no small archive
    outgrows, and which true archives come nowhere near.
    """
    if most is None:
        return
    if isinstance(most, bool) or not isinstance(most, (int, np.integer)) or most < 1:
        raise LaffError(f"max_pixels {most!r} is not possible: give a number from 1, or None")
    most *= -(-archive.nbytes >> 20) if streamed else 1
    if pixels > most:
        raise LaffError(
            f"{archive.name}: {pixels} pixels are more than the {most} that an archive "
            + ("of its size " if streamed else "")
            + "is believed to hold: give a larger max_pixels (--max-pixels) if you trust it"
            + ("" if streamed else ", or a smaller region")
        )


def _checked(top: dict[str, Any], name: str) -> tuple[Archive, int]:
    """What an archive says beside its strings, all limits checked, and its checksum. Raises
    LaffError, or what `_BROKEN` names."""
    if top.get("format") != FORMAT:
        raise LaffError(f"{name}: not a .laff archive: give a file that femto compressed")
    version = top.get("version")
    if type(version) is not int or version != VERSION:
        raise LaffError(
            f"{name}: version {_shown(version)} of the format is unknown here "
            f"(this femto reads {VERSION}): use the femto that wrote it"
        )
    image, basis = top["image"], top["basis"]
    width = _integer(image["width"], 1, MAX_SIDE, "width")
    height = _integer(image["height"], 1, MAX_SIDE, "height")
    _integer(width * height, 1, MAX_PIXELS, "number of pixels")
    if image["mode"] not in ("L", "RGB"):
        raise ValueError(f"mode is {_shown(image['mode'])}, not L or RGB")
    bits = _integer(image["bits"], 1, 16, "bits")
    levels = _levels(image, "levels", levels_of(bits)) or levels_of(bits)
    if levels.low == levels.high:
        raise ValueError("levels is a single one")
    limits = _levels(image, "limits", levels_of(bits)) or levels
    if not (limits.low <= levels.low and levels.high <= limits.high):
        raise ValueError("limits do not hold the levels")
    mapping = check_mapping(image.get("mapping"), limits)
    tile = _integer(top["tile"], 16, MAX_TILE, "tile")
    step = top["step"]
    least = 0.999 * finest_step(levels, limits)
    if type(step) not in (int, float) or not math.isfinite(step) or not least <= step <= 1e6:
        raise ValueError(f"step is {_shown(step)}")
    icc, source, packed = image.get("icc"), image.get("source"), top.get("metadata")
    if not isinstance(source, (str, type(None))):
        raise ValueError("source is not a string")
    header = ImageHeader(
        width=width,
        height=height,
        mode=image["mode"],
        bits=bits,
        source=source,
        icc=None if icc is None else base64.b64decode(icc, validate=True),
        metadata=None if packed is None else unpack_metadata(packed),
        levels=levels,
        limits=limits,
        mapping=mapping,
    )
    passes, tune = top.get("passes", PASSES[0]), top.get("tune", TUNES[0])
    if type(passes) is not int or passes not in PASSES:
        raise ValueError(f"passes is {_shown(passes)}")
    if tune not in TUNES:
        raise ValueError(f"tune is {_shown(tune)}")
    if not is_plain(basis["name"]):
        raise ValueError(f"the basis's name {_shown(basis['name'])} is not a plain one")
    if not isinstance(basis["sha256"], str) or not _HASH.fullmatch(basis["sha256"]):
        raise ValueError(f"the basis's hash is {_shown(basis['sha256'])}")
    head = _head(header, basis["name"], basis["sha256"], step, passes, tune, tile, packed)
    crc = _crc(head)
    if crc != top["crc"]:
        raise ValueError("the header's checksum does not match")
    archive = Archive(
        header=header,
        basis_name=head["basis"]["name"],
        basis_sha256=head["basis"]["sha256"],
        step=float(step),
        passes=passes,
        tune=tune,
        tile=tile,
        blocks=[],
        layers=[],
        nbytes=0,
        name=name,
        packed=packed,
    )
    return archive, crc
