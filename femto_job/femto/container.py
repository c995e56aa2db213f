"""The archive: JSON text that holds the k-strings, gzip-ed (see docs/SPEC.md).

Everything here is about bytes and text; what the strings mean is the coder's business.
"""

import base64
import binascii
import io
import json
import math
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from .errors import LaffError
from .tiles import TILE, tile_grid

FORMAT = "laff"
VERSION = 1
MAX_SIDE = 1 << 20
"""Largest width or height of a picture, in pixels."""
MAX_PIXELS = 1 << 32
"""Largest picture, in pixels."""
MAX_TILE = 2048
"""Largest edge of a tile, in pixels: a small file must not make a decoder need gigabytes."""
MAX_TEXT = 1 << 33
"""Largest archive text, in characters, that is unpacked."""
MAX_EXPANSION = 12
"""gzip-ed base64 grows to at most 8/6 and its metadata to little more: anything that unpacks to
far more than its size is not an archive but a trap."""


@dataclass(frozen=True)
class ImageHeader:
    """What an archive says of its picture.

    `width` and `height` in pixels; `mode` "L" (grey) or "RGB"; `bits` 8 or 16 per sample;
    `source` the picture file's name; `icc` an ICC profile; `metadata` any JSON object.
    """

    width: int
    height: int
    mode: str
    bits: int
    source: str | None = None
    icc: bytes | None = None
    metadata: dict | None = None

    @property
    def channels(self) -> int:
        """Samples per pixel: 1 or 3."""
        return 3 if self.mode == "RGB" else 1

    @property
    def raw_nbytes(self) -> int:
        """Bytes of the uncompressed samples."""
        return self.width * self.height * self.channels * self.bits // 8


@dataclass(frozen=True)
class EncodedTile:
    """One coded tile: its block string, one k-string per layer, and the error it leaves.

    `sse` is the sum over all samples of the squared difference between the tile and its
    reconstruction from all layers.
    """

    blocks: bytes
    layers: tuple[bytes, ...]
    sse: float

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
    tile: int
    blocks: list[bytes]
    layers: list[list[bytes]]
    nbytes: int
    layer_nbytes: list[int] = field(default_factory=list)
    name: str = "archive"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        """What a notebook shows of it."""
        from .display import mimebundle

        return mimebundle(self)


def _head(header: ImageHeader, basis_name: str, basis_sha256: str, step: float, tile: int) -> dict:
    return {
        "format": FORMAT,
        "version": VERSION,
        "image": {
            "width": header.width,
            "height": header.height,
            "mode": header.mode,
            "bits": header.bits,
            "source": header.source,
            "icc": None if header.icc is None else base64.b64encode(header.icc).decode(),
        },
        "metadata": header.metadata,
        "basis": {"name": basis_name, "sha256": basis_sha256},
        "step": step,
        "tile": tile,
    }


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


def _plain(header: ImageHeader) -> ImageHeader:
    """The header as it will be read back: its metadata as JSON has it, its source as UTF-8.

    A file name that is not UTF-8 (lone surrogates, as Python reads it) is written with escapes.
    Raises LaffError for metadata that is no JSON object.
    """
    source, metadata = header.source, header.metadata
    if source is not None:
        if not isinstance(source, str):
            raise LaffError(f"the source {source!r} is not a file name: give a str")
        source = source.encode("utf-8", "backslashreplace").decode()
    if metadata is not None:
        try:
            metadata = json.loads(_dump(metadata))
            _dump(metadata).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise LaffError(f"the metadata cannot be written as JSON ({error})") from None
        if not isinstance(metadata, dict):
            raise LaffError("the metadata must be a JSON object: give a dict")
    return replace(header, source=source, metadata=metadata)


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
    tile: int = TILE,
) -> bytes:
    """The gzip-ed archive of a picture whose tiles are coded as `blocks[tile]` and
    `layers[layer][tile]`."""
    head = _head(_plain(header), basis_name, basis_sha256, step, tile)
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


_CHUNK = 1 << 16
_KEYS = {
    "format",
    "version",
    "image",
    "metadata",
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


def _first_layers(stream, layers: int) -> dict | None:
    """The JSON object of an archive whose further layers are left away, unpacked no further than
    they begin; None if that does not work out, for whatever reason.

    Works on text whose last key is "strings", as femto writes it. Base64 holds no brackets, so
    layers end where brackets close.
    """
    text, inflate = bytearray(), None
    begun, ends, position = False, 0, 0
    while ends < layers:
        data = stream.read(_CHUNK)
        if not data:
            return None
        if not text and data[:2] == b"\x1f\x8b":
            inflate = zlib.decompressobj(31)
        if inflate is not None:
            try:
                data = inflate.decompress(data, MAX_EXPANSION * _CHUNK)
            except zlib.error:
                return None
        text += data
        if not begun:
            found = text.find(_STRINGS)
            begun, position = found >= 0, found + len(_STRINGS)
        while begun and ends < layers:
            found = text.find(b"]", position)
            if found < 0:
                position = len(text)
                break
            ends, position = ends + 1, found + 1
    try:
        top = json.loads(text[:position] + b"]}")
        return top if top.keys() >= _KEYS and len(top["strings"]) == layers else None
    except (ValueError, RecursionError, AttributeError, TypeError):
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


def read(
    archive: bytes | bytearray | memoryview | str | Path, *, layers: int | None = None
) -> Archive:
    """Parse and check an archive: bytes, or the path of a file; gzip-ed or plain text.

    With `layers`, only the first so many are read, unpacked and checked where possible; damage
    behind them, or that they are all that arrived of a file, is then no error. `nbytes` counts
    the whole file even so.

    Every limit is checked before anything is allocated for the picture. Raises LaffError if
    the archive is missing, cut short, damaged, of an unknown version or not an archive.
    """
    name = str(archive) if isinstance(archive, (str, Path)) else "archive"
    with _open(archive, name) as stream:
        try:
            top = None if layers is None else _first_layers(stream, layers)
            if top is None:
                stream.seek(0)
                top, nbytes = _whole(stream, name)
            else:
                nbytes = stream.seek(0, io.SEEK_END)
        except OSError as error:
            raise LaffError(f"{name}: cannot be read ({error.strerror}): check it") from None
    if not isinstance(top, dict) or top.get("format") != FORMAT:
        raise LaffError(f"{name}: not a .laff archive: give a file that femto compressed")
    version = top.get("version")
    if type(version) is not int or version != VERSION:
        raise LaffError(
            f"{name}: version {version!r} of the format is unknown here "
            f"(this femto reads version {VERSION}): install a newer femto"
        )
    try:
        return _checked(top, nbytes, name)
    except (KeyError, TypeError, AttributeError, ValueError, binascii.Error) as error:
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
    if image["bits"] not in (8, 16):
        raise ValueError(f"bits is {image['bits']!r}, not 8 or 16")
    tile = _integer(top["tile"], 16, MAX_TILE, "tile")
    step = top["step"]
    if type(step) not in (int, float) or not math.isfinite(step) or not 1e-3 <= step <= 1e6:
        raise ValueError(f"step is {step!r}")
    icc = image["icc"]
    if not isinstance(image["source"], (str, type(None))):
        raise ValueError("source is not a string")
    if not isinstance(top["metadata"], (dict, type(None))):
        raise ValueError("metadata is not an object")
    header = ImageHeader(
        width=width,
        height=height,
        mode=image["mode"],
        bits=image["bits"],
        source=image["source"],
        icc=None if icc is None else base64.b64decode(icc, validate=True),
        metadata=top["metadata"],
    )
    head = _head(header, str(basis["name"]), str(basis["sha256"]), step, tile)
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
        tile=tile,
        blocks=[_unseal(s, crc, -1, t) for t, s in enumerate(top["blocks"])],
        layers=[
            [_unseal(s, crc, k, t) for t, s in enumerate(strings)]
            for k, strings in enumerate(top["strings"])
        ],
        nbytes=nbytes,
        layer_nbytes=[sum(map(len, strings)) for strings in top["strings"]],
        name=name,
    )
