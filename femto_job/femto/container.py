"""The archive: JSON text that holds the k-strings, gzip-ed (see docs/SPEC.md).

Everything here is about bytes and text; what the strings mean is the coder's business.
"""

import base64
import binascii
import io
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .errors import LaffError
from .samples import Levels, check_mapping, dtype_of, levels_of
from .tiles import TILE, tile_grid

FORMAT = "laff"
VERSION = 2
"""What is written; all versions from 1 on are read."""
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
MAX_TEXT = 1 << 33
"""Largest archive text, in characters, that is unpacked."""
MAX_EXPANSION = 12
"""gzip-ed base64 grows to at most 8/6 and its metadata to little more: anything that unpacks to
far more than its size is not an archive but a trap."""
MAX_METADATA = 1 << 24
"""Most bytes of metadata, unpacked."""


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
    metadata: dict | None = None
    levels: Levels | None = None
    limits: Levels | None = None
    mapping: dict | None = None

    def __post_init__(self):
        levels = levels_of(self.bits) if self.levels is None else Levels(*self.levels)
        object.__setattr__(self, "levels", levels)
        limits = levels if self.limits is None else Levels(*self.limits)
        object.__setattr__(self, "limits", limits)

    @property
    def dtype(self) -> np.dtype:
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


@dataclass(frozen=True)
class Archive:
    """A parsed archive: header, and the strings of its layers (`layers[layer][tile]`)."""

    header: ImageHeader
    version: int
    basis_name: str
    basis_sha256: str
    step: float
    passes: int
    tune: str
    tile: int
    blocks: list[bytes]
    layers: list[list[bytes]]
    nbytes: int
    layer_nbytes: list[int] = field(default_factory=list)
    name: str = "archive"
    basis_file: str | None = None
    """A basis file to look into before those beside the archive."""
    packed: str | None = None
    """The metadata as the archive has them."""

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
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
    version: int,
    metadata: str | dict | None,
) -> dict:
    image = {
        "width": header.width,
        "height": header.height,
        "mode": header.mode,
        "bits": header.bits,
        "source": header.source,
        "icc": None if header.icc is None else base64.b64encode(header.icc).decode(),
    }
    if header.levels != levels_of(header.bits):
        image["levels"] = list(header.levels)
    if header.limits != header.levels:
        image["limits"] = list(header.limits)
    if header.mapping is not None:
        image["mapping"] = header.mapping
    head = {
        "format": FORMAT,
        "version": version,
        "image": image,
        "metadata": metadata,
        "basis": {"name": basis_name, "sha256": basis_sha256},
        "step": step,
        "tile": tile,
    }
    if version > 1:
        # Small pictures feel every byte: what is not there is not named.
        for part, key in ((image, "source"), (image, "icc"), (head, "metadata")):
            if part[key] is None:
                del part[key]
        head["basis"]["sha256"] = basis_sha256[:HASH_DIGITS]
        if passes != PASSES[0]:
            head["passes"] = passes
        if tune != TUNES[0]:
            head["tune"] = tune
    return head


def _dump(value) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _crc(head: dict) -> int:
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


def _unseal(text, head_crc: int, layer: int, tile: int) -> bytes:
    if not isinstance(text, str):
        raise ValueError("a string is missing")
    data = base64.b64decode(text, validate=True)
    if len(data) < 4:
        raise ValueError("a string is too short")
    crc = zlib.crc32(data[:-4], zlib.crc32(b"%d,%d" % (layer, tile), head_crc))
    if crc != int.from_bytes(data[-4:], "big"):
        raise ValueError("a checksum does not match")
    return data[:-4]


def pack_metadata(metadata: dict) -> str:
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
    if len(data) > MAX_METADATA:
        raise LaffError(
            f"{len(data)} bytes of metadata are more than an archive keeps ({MAX_METADATA}): "
            "leave some out"
        )
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    return base64.b64encode(deflate.compress(data) + deflate.flush()).decode()


def unpack_metadata(text: str) -> dict:
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
    try:
        values, lengths = json.loads(line)
        blobs = dict.fromkeys(lengths, b"") | values
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


def _plain_mapping(header: ImageHeader) -> dict | None:
    """A mapping as it will be read back. Raises LaffError for one that cannot be kept."""
    try:
        return check_mapping(header.mapping, header.limits)
    except ValueError as error:
        raise LaffError(f"the mapping cannot be kept ({error}): give another") from None


def _gzip(text: str) -> bytes:
    """gzip with Huffman codes only: base64 has no repeats that a search could find, and leaving
    the search out makes the text smaller, not just the work. No time stamp: equal pictures give
    equal archives."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31, 9, zlib.Z_HUFFMAN_ONLY)
    return deflate.compress(text.encode()) + deflate.flush()


def write(
    header: ImageHeader,
    *,
    basis_name: str,
    basis_sha256: str,
    step: float,
    blocks: list[bytes],
    layers: list[list[bytes]],
    passes: int = PASSES[0],
    tune: str = TUNES[0],
    tile: int = TILE,
    version: int = VERSION,
    packed: str | dict | None = None,
) -> bytes:
    """The gzip-ed archive of a picture whose tiles are coded as `blocks[tile]` and
    `layers[layer][tile]`. `packed` are the metadata as another archive has them; default: those of
    the header, packed."""
    if packed is None and header.metadata is not None:
        packed = pack_metadata(header.metadata)
    source, mapping = _plain_source(header.source), _plain_mapping(header)
    header = replace(header, source=source, mapping=mapping)
    head = _head(header, basis_name, basis_sha256, step, passes, tune, tile, version, packed)
    crc = _crc(head)
    body = {
        "crc": crc,
        "blocks": [_seal(s, crc, -1, t) for t, s in enumerate(blocks)],
        "strings": [
            [_seal(s, crc, k, t) for t, s in enumerate(strings)] for k, strings in enumerate(layers)
        ],
    }
    return _gzip(_dump(head | body))


def _unzip(data: bytes, name: str) -> bytes:
    if not data:
        raise LaffError(f"{name}: the file is empty: copy or compress it again")
    if data[:2] != b"\x1f\x8b":
        if data.lstrip()[:1] != b"{":
            raise LaffError(f"{name}: not a .laff archive: give a file that femto compressed")
        return data
    limit = min(len(data) * MAX_EXPANSION + (1 << 16), MAX_TEXT)
    try:
        inflate = zlib.decompressobj(31)
        text = inflate.decompress(data, limit)
        if inflate.unconsumed_tail:
            raise LaffError(f"{name}: unpacks to more than any archive of its size: not used")
        if not inflate.eof:
            raise LaffError(f"{name}: the archive is cut short: copy or download it again")
        if inflate.unused_data:
            raise LaffError(f"{name}: something follows the archive's end: copy it again")
    except zlib.error as error:
        raise LaffError(f"{name}: the archive is damaged: copy or download it again") from error
    return text


def _integer(value, low: int, high: int, what: str) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{what} is {value!r}, not {low} to {high}")
    return value


def _levels(image: dict, key: str, most: Levels) -> Levels | None:
    """The two levels under this key, None if it is not there."""
    value = image.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"{key} is not two numbers")
    low = _integer(value[0], most.low, most.high, key)
    return Levels(low, _integer(value[1], low, most.high, key))


_CHUNK = 1 << 16
_KEYS = {
    "format",
    "version",
    "image",
    "basis",
    "step",
    "tile",
    "crc",
    "blocks",
    "strings",
}
_STRINGS = b'"strings":['


def _open(archive, name: str):
    """A binary stream of an archive's bytes; LaffError if there is none."""
    if not isinstance(archive, (str, Path)):
        return io.BytesIO(archive)
    try:
        return open(archive, "rb")
    except FileNotFoundError:
        raise LaffError(f"{name}: no such file: check the name") from None
    except OSError as error:
        raise LaffError(f"{name}: cannot be read ({error.strerror}): check it") from None


def _layer_ends(stream):
    """Unpack an archive's text no further than it is asked for: yields (text, end) where its
    layers begin and then behind every layer; text[:end] and "]}" are then a JSON object. Ends
    without a sound where the text does, or is not as it should be.

    Works on text whose last key is "strings", as femto writes it. Base64 holds no brackets, so
    layers end where brackets close.
    """
    text, inflate, position = bytearray(), None, 0
    read = getattr(stream, "read1", stream.read)  # of a pipe, what is there
    while data := read(_CHUNK):
        if not text and data[:2] == b"\x1f\x8b":
            inflate = zlib.decompressobj(31)
        if inflate is not None:
            try:
                data = inflate.decompress(data, MAX_EXPANSION * _CHUNK)
            except zlib.error:
                return
        text += data
        if not position:
            found = text.find(_STRINGS)
            if found < 0:
                continue
            position = found + len(_STRINGS)
            yield text, position
        while (found := text.find(b"]", position)) >= 0:
            if text.find(b"[", position, found) < 0:
                return
            position = found + 1
            yield text, position


def _first_layers(stream, layers_of) -> dict | None:
    """The JSON object of an archive whose layers after the first `layers_of(object)` are left
    away, unpacked no further than they begin; None if that does not work out, for whatever
    reason."""
    try:
        layers = None
        for count, (text, end) in enumerate(_layer_ends(stream)):
            if layers is None:
                layers = layers_of(json.loads(text[:end] + b"]}"))
            if count == layers:
                top = json.loads(text[:end] + b"]}")
                return top if top.keys() >= _KEYS and len(top["strings"]) == layers else None
    except (ValueError, RecursionError, KeyError, AttributeError, TypeError):
        pass
    return None


def _whole(stream, name: str) -> tuple[dict, int]:
    """The JSON object of an archive, and its bytes."""
    data = stream.read()
    text = _unzip(data, name)
    try:
        top = json.loads(text)
    except (ValueError, RecursionError):
        raise LaffError(
            f"{name}: not a whole .laff archive (cut short or damaged): copy it again"
        ) from None
    return top, len(data)


def read(archive: bytes | bytearray | memoryview | str | Path, *, layers=None) -> Archive:
    """Parse and check an archive: bytes, or the path of a file; gzip-ed or plain text.

    With `layers`, a number or a function that gives one for the JSON object, only the first
    so many are read, unpacked and checked where possible; damage behind them, or that they are
    all that arrived of a file, is then no error. `nbytes` counts the whole file even so.

    Every limit is checked before anything is allocated for the picture. Raises LaffError if
    the archive is missing, cut short, damaged, of an unknown version or not an archive.
    """
    name = str(archive) if isinstance(archive, (str, Path)) else "archive"
    with _open(archive, name) as stream:
        try:
            layers_of = layers if callable(layers) else lambda top: layers
            top = None if layers is None else _first_layers(stream, layers_of)
            if top is None:
                stream.seek(0)
                top, nbytes = _whole(stream, name)
            else:
                nbytes = stream.seek(0, io.SEEK_END)
        except OSError as error:
            raise LaffError(f"{name}: cannot be read ({error.strerror}): check it") from None
    return _archive(top, nbytes, name)


def arriving(stream, name: str = "archive") -> Iterator[Archive]:
    """Parse and check an archive while it arrives on a binary stream: yields what there is of it
    after every layer. Raises LaffError for what is no archive, and for one that is cut short or
    damaged, when what is good of it has been yielded."""
    last = None
    kept = _Kept(stream, name)
    for count, (text, end) in enumerate(_layer_ends(kept)):
        if count:
            try:
                top = json.loads(text[:end] + b"]}")
            except (ValueError, RecursionError):
                break
            last = _archive(top, len(kept.data), name)
            yield last
    while kept.read(_CHUNK):
        pass
    whole = _archive(_whole(io.BytesIO(kept.data), name)[0], len(kept.data), name)
    if last is None or len(whole.layers) > len(last.layers):
        yield whole


class _Kept:
    """A stream that keeps what was read of it."""

    def __init__(self, stream, name: str):
        self._read = getattr(stream, "read1", stream.read)
        self._name = name
        self.data = bytearray()

    def read(self, nbytes: int) -> bytes:
        """What is there, at most `nbytes`."""
        data = self._read(nbytes)
        self.data += data
        if len(self.data) > MAX_STREAM:
            raise LaffError(f"{self._name}: is longer than {MAX_STREAM} bytes: name a file")
        return data


def _archive(top, nbytes: int, name: str) -> Archive:
    """The archive of a JSON object; LaffError if it is none."""
    if not isinstance(top, dict) or top.get("format") != FORMAT:
        raise LaffError(f"{name}: not a .laff archive: give a file that femto compressed")
    version = top.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise LaffError(
            f"{name}: version {version!r} of the format is unknown here "
            f"(this femto reads 1 to {VERSION}): install a newer femto"
        )
    try:
        return _checked(top, nbytes, name)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        if isinstance(error, LaffError):
            raise
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise LaffError(
            f"{name}: the archive is damaged ({reason}): copy or download it again"
        ) from None


def _checked(top: dict, nbytes: int, name: str) -> Archive:
    image, basis = top["image"], top["basis"]
    width = _integer(image["width"], 1, MAX_SIDE, "width")
    height = _integer(image["height"], 1, MAX_SIDE, "height")
    _integer(width * height, 1, MAX_PIXELS, "number of pixels")
    if image["mode"] not in ("L", "RGB"):
        raise ValueError(f"mode is {image['mode']!r}, not L or RGB")
    bits = _integer(image["bits"], 1, 16, "bits")
    levels, limits, mapping = levels_of(bits), None, None
    if top["version"] == 1:
        if bits not in (8, 16):
            raise ValueError(f"bits is {bits!r}, not 8 or 16")
    else:
        levels = _levels(image, "levels", levels_of(bits)) or levels
        limits = _levels(image, "limits", levels_of(bits))
        if levels.low == levels.high:
            raise ValueError("levels is a single one")
        if limits is not None and not (limits.low <= levels.low and levels.high <= limits.high):
            raise ValueError("limits do not hold the levels")
        mapping = check_mapping(image.get("mapping"), limits or levels)
    tile = _integer(top["tile"], 16, MAX_TILE, "tile")
    step = top["step"]
    least = 1e-3 if top["version"] == 1 else 0.999 * finest_step(levels, limits or levels)
    if type(step) not in (int, float) or not math.isfinite(step) or not least <= step <= 1e6:
        raise ValueError(f"step is {step!r}")
    icc, source, metadata = image.get("icc"), image.get("source"), top.get("metadata")
    if not isinstance(source, (str, type(None))):
        raise ValueError("source is not a string")
    packed = metadata
    if top["version"] > 1 and metadata is not None:
        metadata = unpack_metadata(packed)
    elif not isinstance(metadata, (dict, type(None))):
        raise ValueError("metadata is not an object")
    header = ImageHeader(
        width=width,
        height=height,
        mode=image["mode"],
        bits=bits,
        source=source,
        icc=None if icc is None else base64.b64decode(icc, validate=True),
        metadata=metadata,
        levels=levels,
        limits=limits,
        mapping=mapping,
    )
    passes, tune = top.get("passes", PASSES[0]), top.get("tune", TUNES[0])
    if top["version"] == 1:
        passes, tune = 1, TUNES[0]
    if type(passes) is not int or passes not in PASSES:
        raise ValueError(f"passes is {passes!r}")
    if tune not in TUNES:
        raise ValueError(f"tune is {tune!r}")
    head = _head(
        header,
        str(basis["name"]),
        str(basis["sha256"]),
        step,
        passes,
        tune,
        tile,
        top["version"],
        packed,
    )
    crc = _crc(head)
    if crc != top["crc"]:
        raise ValueError("the header's checksum does not match")
    tiles = len(tile_grid(height, width, tile))
    if len(top["blocks"]) != tiles or any(len(layer) != tiles for layer in top["strings"]):
        raise ValueError(f"it does not hold the strings of its {tiles} tiles")
    return Archive(
        header=header,
        version=top["version"],
        basis_name=head["basis"]["name"],
        basis_sha256=head["basis"]["sha256"],
        step=float(step),
        passes=passes,
        tune=tune,
        tile=tile,
        blocks=[_unseal(s, crc, -1, t) for t, s in enumerate(top["blocks"])],
        layers=[
            [_unseal(s, crc, k, t) for t, s in enumerate(strings)]
            for k, strings in enumerate(top["strings"])
        ],
        nbytes=nbytes,
        layer_nbytes=[sum(map(len, strings)) for strings in top["strings"]],
        name=name,
        packed=packed,
    )
