"""What stands in an archive before its strings: written, read and checked."""

import base64
import binascii
import json
import math
import re
import zlib
from typing import Any

from ..errors import LaffError
from ..samples import Levels, check_mapping, levels_of
from . import bounds
from .archive import FORMAT, PASSES, TUNES, VERSION, Archive, ImageHeader, finest_step


def head_of(
    header: ImageHeader,
    basis_name: str,
    basis_sha256: str,
    step: float,
    passes: int,
    tune: str,
    tile: int,
    metadata: str | None,
    max_error: int | None = None,
) -> dict[str, Any]:
    """The JSON object of an archive as far as its checksum goes; `metadata` packed."""
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
        "basis": {"name": basis_name, "sha256": basis_sha256[: bounds.HASH_DIGITS]},
        "step": step,
        "tile": tile,
    }
    if metadata is None:
        del head["metadata"]
    if passes != PASSES[0]:
        head["passes"] = passes
    if tune != TUNES[0]:
        head["tune"] = tune
    if max_error is not None:
        head["max_error"] = max_error
    return head


def checksum(head: dict[str, Any]) -> int:
    """Checksum of the header's values, whatever the white space and the order of its keys."""
    text = json.dumps(head, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return zlib.crc32(text.encode())


def parts_of(text: bytes) -> int:
    """At least how many lists, dicts and members JSON text has: each needs more memory than text.
    Brackets and colons in strings count too."""
    return sum(map(text.count, (b"[", b"{", b":")))


def dump(value: object) -> str:
    """A value as the archive's JSON text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


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
        line = dump([values, {key: len(blob) for key, blob in blobs.items()}]).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise LaffError(f"the metadata cannot be written as JSON ({error})") from None
    data = b"\n".join([line, b"".join(blobs.values())]) if blobs else line
    if parts_of(line) > bounds.MAX_PARTS:
        raise LaffError(f"metadata of more than {bounds.MAX_PARTS} parts: leave some out")
    if len(data) > bounds.MAX_METADATA:
        raise LaffError(
            f"{len(data)} bytes of metadata are more than an archive keeps "
            f"({bounds.MAX_METADATA}): leave some out"
        )
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    return base64.b64encode(deflate.compress(data) + deflate.flush()).decode()


def unpack_metadata(text: str) -> dict[str, Any]:
    """The metadata that `pack_metadata` packed. Raises ValueError if they are damaged."""
    if not isinstance(text, str):
        raise ValueError("metadata are not a string")
    inflate = zlib.decompressobj(-15)
    try:
        data = inflate.decompress(base64.b64decode(text, validate=True), bounds.MAX_METADATA + 1)
    except (zlib.error, binascii.Error):
        raise ValueError("metadata are damaged") from None
    if len(data) > bounds.MAX_METADATA or not inflate.eof or inflate.unused_data:
        raise ValueError("metadata are damaged or too long")
    line, _, data = data.partition(b"\n")
    if parts_of(line) > bounds.MAX_PARTS:
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


_HASH = re.compile("[0-9a-f]{0,64}")
BROKEN = (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError)
"""What is raised where a header is not as it should be."""


def check_header(top: dict[str, Any], name: str) -> tuple[Archive, int]:
    """What an archive says beside its strings, all limits checked, and its checksum. Raises
    LaffError, or what `BROKEN` names."""
    if top.get("format") != FORMAT:
        raise LaffError(f"{name}: not a .laff archive: give a file that femto compressed")
    version = top.get("version")
    if type(version) is not int or version != VERSION:
        raise LaffError(
            f"{name}: version {_shown(version)} of the format is unknown here "
            f"(this femto reads {VERSION}): use the femto that wrote it"
        )
    image, basis = top["image"], top["basis"]
    width = _integer(image["width"], 1, bounds.MAX_SIDE, "width")
    height = _integer(image["height"], 1, bounds.MAX_SIDE, "height")
    _integer(width * height, 1, bounds.MAX_PIXELS, "number of pixels")
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
    tile = _integer(top["tile"], 16, bounds.MAX_TILE, "tile")
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
    max_error = top.get("max_error")
    if max_error is not None:
        max_error = _integer(max_error, 0, bounds.MAX_ERROR, "max_error")
    if not is_plain(basis["name"]):
        raise ValueError(f"the basis's name {_shown(basis['name'])} is not a plain one")
    if not isinstance(basis["sha256"], str) or not _HASH.fullmatch(basis["sha256"]):
        raise ValueError(f"the basis's hash is {_shown(basis['sha256'])}")
    head = head_of(
        header, basis["name"], basis["sha256"], step, passes, tune, tile, packed, max_error
    )
    crc = checksum(head)
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
        max_error=max_error,
    )
    return archive, crc


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


def _shown(value: object) -> str:
    """What an archive says, for a message: it may be long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
