"""Metadata, see `metadata`, as names and lines for people."""

import contextlib
import json
import struct

from ..errors import printable
from . import ifd
from .ifd import GPS, Tag

# fmt: off
_IIM = {5: "Title", 25: "Keywords", 40: "Instructions", 55: "DateCreated", 80: "By-line",
        90: "City", 101: "Country", 105: "Headline", 110: "Credit", 115: "Source",
        116: "Copyright", 120: "Caption"}
"""Names of datasets of IPTC."""
# fmt: on


def describe(metadata: dict | None) -> dict[str, str]:
    """The metadata as names and texts of one printable line each; of what is not text, how long it
    is."""
    lines: dict[str, str] = {}
    for key, value in (metadata or {}).items():
        told: dict[str, str] = {}
        # Archives come from strangers: what cannot be read is still said to be there.
        with contextlib.suppress(Exception):
            told = _TELLERS.get(key, lambda value: {})(value)
        if key not in _TELLERS and not isinstance(value, bytes):
            told = {key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}
        if not told:
            told = {key: f"{len(value):,} bytes" if isinstance(value, (bytes, str)) else "damaged"}
        lines |= {printable(str(k)): _line(v) for k, v in told.items()}
    return lines


def _line(value: str) -> str:
    line = printable(" ".join(str(value).split()))
    return line if len(line) <= 200 else f"{line[:200]} … ({len(str(value)):,} characters)"


def _tell_exif(block: bytes) -> dict[str, str]:
    from PIL import ExifTags, TiffTags

    order, found, _ = ifd.parse(block)
    told = {"exif": f"{len(block):,} bytes"}
    for directory, tags in found.items():
        for tag in tags:
            if tag.code in ifd.POINTERS:
                continue
            if directory == GPS:
                name = ExifTags.GPSTAGS.get(tag.code)
            else:
                name = ExifTags.TAGS.get(tag.code) or TiffTags.lookup(tag.code).name
            name = name if name and name != "unknown" else f"tag {tag.code}"
            told[name] = _tell_tag(tag, order)
    return told


def _tell_tag(tag: Tag, order: str) -> str:
    values = tag.values(order)
    if isinstance(values, str):
        return values
    if tag.type == 7 and tag.count > 4:
        text = tag.data.rstrip(b"\0")
        return text.decode() if text.isascii() and text else f"{tag.count:,} bytes"
    if tag.type in (5, 10):
        pairs = zip(values[::2], values[1::2], strict=True)
        values = tuple(f"{n}/{d}" if d != 1 else n for n, d in pairs)
    return " ".join(map(str, values)) if len(values) <= 32 else f"{len(values):,} values"


def _tell_iptc(records: bytes) -> dict[str, str]:
    told = {"iptc": f"{len(records):,} bytes"}
    at = 0
    while at + 5 <= len(records) and records[at] == 0x1C:
        record, dataset, length = struct.unpack_from(">BBH", records, at + 1)
        data = records[at + 5 : at + 5 + length]
        if record == 2 and dataset in _IIM:
            name, value = f"IPTC {_IIM[dataset]}", data.decode("utf-8", "replace")
            told[name] = f"{told[name]}; {value}" if name in told else value
        at += 5 + length
    return told


def _tell_resolution(value: list) -> dict[str, str]:
    x, y, unit = value
    x, y = (f"{n / d:.6g}" for n, d in map(ifd.fraction, (x, y)))
    per = {"none": "aspect only", "inch": "per inch", "cm": "per cm"}[unit]
    return {"resolution": f"{x} x {y} {per}"}


def _tell_text(value: list) -> dict[str, str]:
    told: dict[str, str] = {}
    for keyword, text in value:
        told[keyword] = f"{told[keyword]}; {text}" if keyword in told else text
    return told


def _tell_png(value: list) -> dict[str, str]:
    told = {}
    for kind, digits in value:
        data = bytes.fromhex(digits)
        told[f"PNG {kind}"] = digits
        if kind == "gAMA":
            told["PNG gAMA"] = f"{int.from_bytes(data, 'big') / 100000:g}"
        elif kind == "tIME":
            told["PNG tIME"] = "{}-{:02}-{:02} {:02}:{:02}:{:02}".format(
                *struct.unpack(">HBBBBB", data)
            )
    return told


def _tell_dicom(data: bytes) -> dict[str, str]:
    told = {"dicom": f"{len(data):,} bytes"}
    with contextlib.suppress(ImportError):
        from .dicom import describe_header

        told |= describe_header(data)
    return told


_TELLERS = {
    "exif": _tell_exif,
    "xmp": lambda value: {"xmp": f"{len(value):,} {'characters' if value else ''}"},
    "xmp_extended": lambda value: {"xmp extended": f"{len(value):,} bytes"},
    "iptc": _tell_iptc,
    "photoshop": lambda value: {"photoshop": f"{len(value):,} bytes"},
    "resolution": _tell_resolution,
    "text": _tell_text,
    "png": _tell_png,
    "dicom": _tell_dicom,
}
