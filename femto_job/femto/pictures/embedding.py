"""Metadata, see `metadata`, as picture files hold them: TIFF, PNG, JPEG and WebP."""

import contextlib
import functools
import json
import re
import struct
import zlib

from ..errors import printable
from . import ifd
from .ifd import Tag
from .metadata import (
    CAMERA,
    DESCRIPTION,
    IPTC,
    LAYOUT,
    PHOTOSHOP,
    PNG_CHUNKS,
    UNIT,
    X_RESOLUTION,
    XMP,
    Y_RESOLUTION,
)

_TYPES = {
    "exif": bytes,
    "xmp": (str, bytes),
    "xmp_extended": bytes,
    "iptc": bytes,
    "photoshop": bytes,
    "resolution": (list, tuple),
    "text": (list, tuple),
    "png": (list, tuple),
    "dicom": bytes,
}


def _careful(convert):
    """`convert` without the values that it cannot use, which are named among what the file does not
    hold: archives come from strangers."""

    @functools.wraps(convert)
    def careful(metadata: dict):
        sound = {k: v for k, v in metadata.items() if isinstance(v, _TYPES.get(k, object))}
        damaged = [key for key in metadata if key not in sound]
        try:
            *result, lost = convert(sound)
        except Exception:  # one of them, or several: each is tried by itself
            for key in list(sound):
                try:
                    convert({key: sound[key]})
                except Exception:
                    damaged.append(key)
                    del sound[key]
            *result, lost = convert(sound)
        return *result, lost + damaged

    return careful


@_careful
def for_tiff(metadata: dict) -> tuple[str, dict[int, list[Tag]], list[str]]:
    """Byte order and directories (see ifd.tree) of a TIFF with these metadata, and what it cannot
    hold."""
    order, directories, lost = "<", {0: []}, []
    if "exif" in metadata:
        with contextlib.suppress(ValueError, struct.error):
            order, directories, _ = ifd.parse(metadata["exif"])
    tags = {
        tag.code: tag
        for tag in directories[0]
        if tag.code not in LAYOUT and tag.code not in ifd.POINTERS
    }
    if DESCRIPTION in tags and tags[DESCRIPTION].type == 2:
        description = tags[DESCRIPTION].data
        tags[DESCRIPTION] = Tag(DESCRIPTION, 2, _one_plane(description))
        if not tags[DESCRIPTION].data:
            del tags[DESCRIPTION]
    for code, value in _text_tags(metadata.get("text", []), tags).items():
        tags[code] = ifd.text(code, value)
    if "resolution" in metadata:
        *values, unit = metadata["resolution"]
        for code, value in zip((X_RESOLUTION, Y_RESOLUTION), values, strict=True):
            tags[code] = ifd.number(code, 5, ifd.fraction(value), order)
        code = {"none": 1, "inch": 2, "cm": 3}[unit]
        tags[UNIT] = ifd.number(UNIT, 3, [code], order)
    for key, code in (("xmp", XMP), ("iptc", IPTC), ("photoshop", PHOTOSHOP)):
        if key in metadata:
            value = metadata[key]
            data = value.encode() if isinstance(value, str) else value
            tags[code] = Tag(code, 7 if code == IPTC else 1, data)
    lost += [key for key in ("xmp_extended", "png", "dicom") if key in metadata]
    return order, directories | {0: list(tags.values())}, lost


def _text_tags(texts: list, taken: dict) -> dict[int, str]:
    """Texts as TIFF tags: those that have one get it, the others become the description."""
    tags, rest = {}, []
    for keyword, value in texts:
        code = {"Author": 315, "Copyright": 33432, "Software": 305}.get(keyword)
        if code and code not in taken and code not in tags:
            tags[code] = value
        else:
            rest.append((keyword, value))
    if rest and DESCRIPTION not in taken:
        only = len(rest) == 1 and rest[0][0] in ("Description", "Comment")
        lines = [value if only else f"{keyword}: {value}" for keyword, value in rest]
        tags[DESCRIPTION] = "\n".join(lines)
    return tags


def _one_plane(description: bytes) -> bytes:
    """An ImageDescription that says how many planes its file has, for a file that has one."""
    if description.startswith(b"ImageJ="):
        lines = description.rstrip(b"\0").split(b"\n")
        gone = (b"images=", b"channels=", b"slices=", b"frames=", b"hyperstack=")
        return b"\n".join(line for line in lines if not line.startswith(gone)) + b"\0"
    if description.startswith(b'{"shape": ['):
        with contextlib.suppress(ValueError, TypeError):
            told = json.loads(description.rstrip(b"\0"))
            shape = told.pop("shape")
            if len(shape) > 2 and shape[2:] != [3]:
                told.pop("axes", None)
                return json.dumps(told).encode() + b"\0" if told else b""
    if b"<OME" in description[:2000]:
        head, pixels, rest = description.partition(b"<Pixels")
        start, close, inner = rest.partition(b">")
        if re.search(rb'\bSize[ZT]="(?!1")', start) or (b'SizeC="1"' not in start):
            samples = re.search(rb'SamplesPerPixel="(\d+)"', inner)
            count = samples[1] if samples else b"1"
            start = re.sub(rb'\bSize([ZT])="\d+"', rb'Size\1="1"', start)
            start = re.sub(rb'\bSizeC="\d+"', b'SizeC="' + count + b'"', start)
            inner = re.sub(rb"<TiffData\b[^>]*/>|<Plane\b[^>]*/>", b"", inner)
            inner = re.sub(rb"<TiffData\b[^>]*>.*?</TiffData>", b"<TiffData/>", inner, count=1,
                           flags=re.DOTALL)  # fmt: skip
            inner = re.sub(rb"<TiffData\b[^>]+>.*?</TiffData>", b"", inner, flags=re.DOTALL)
            return head + pixels + start + close + inner
    return description


@_careful
def for_png(metadata: dict) -> tuple[list[tuple[bytes, bytes]], list[str]]:
    """Chunks of a PNG with these metadata, and what it cannot hold."""
    chunks, lost = [], []
    for kind, digits in metadata.get("png", []):
        if kind in PNG_CHUNKS and len(digits) == 2 * PNG_CHUNKS[kind]:
            chunks.append((kind.encode(), bytes.fromhex(digits)))
    if "resolution" in metadata:
        *values, unit = metadata["resolution"]
        scale = {"none": 1, "inch": 1 / 0.0254, "cm": 100}[unit]
        x, y = (n * scale / d for n, d in map(ifd.fraction, values))
        if unit == "none" and (x != round(x) or y != round(y)):
            x, y = 1000 * x / max(x, y), 1000 * y / max(x, y)
        x, y = (min(max(round(v), 1), 2**31 - 1) for v in (x, y))
        chunks.append((b"pHYs", struct.pack(">IIB", x, y, unit != "none")))
    if "exif" in metadata:
        chunks.append((b"eXIf", metadata["exif"]))
    if isinstance(metadata.get("xmp"), str):
        data = metadata["xmp"].encode()
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + data))
    if "iptc" in metadata:
        data = _resource(1028, metadata["iptc"])
        digits = data.hex()
        lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
        value = f"\niptc\n{len(data):8d}\n{lines}\n".encode()
        chunks.append((b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(value)))
    for keyword, value in metadata.get("text", []):
        chunks.append(_text_chunk(keyword, value))
    lost += [k for k in ("photoshop", "xmp_extended", "dicom") if k in metadata]
    if isinstance(metadata.get("xmp"), bytes):
        lost.append("xmp")
    return chunks, lost


def _text_chunk(keyword: str, value: str) -> tuple[bytes, bytes]:
    words = " ".join(keyword.encode("latin-1", "replace").decode("latin-1").split())
    key = "".join(c for c in words if c.isprintable())[:79].strip().encode("latin-1") or b"Comment"
    try:
        plain = value.encode("latin-1")
        if b"\0" not in plain:
            return b"tEXt", key + b"\0" + plain
    except UnicodeEncodeError:
        pass
    return b"iTXt", key + b"\0\0\0\0\0" + value.replace("\0", " ").encode()


def _resource(number: int, data: bytes) -> bytes:
    head = b"8BIM" + struct.pack(">H", number) + b"\0\0" + struct.pack(">I", len(data))
    return head + data + b"\0" * (len(data) % 2)


@_careful
def for_jpeg(metadata: dict) -> tuple[bytes, tuple[int, int, int] | None, list[str]]:
    """Segments of a JPEG with these metadata, the density for its JFIF header (unit, across,
    down), and what it cannot hold."""
    segments, lost = b"", []

    def segment(marker: int, data: bytes, what: str) -> bytes:
        if len(data) > 65533:
            lost.append(what)
            return b""
        return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data

    if "exif" in metadata:
        block = metadata["exif"]
        if len(block) > 65527:
            block = _short_exif(block)
            lost.append("private tags")
        segments += segment(0xE1, b"Exif\0\0" + block, "exif") if block else b""
    if "xmp" in metadata:
        xmp = metadata["xmp"]
        xmp = xmp.encode() if isinstance(xmp, str) else xmp
        segments += segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp, "xmp")
    if "xmp_extended" in metadata:
        guid, whole = metadata["xmp_extended"][:32], metadata["xmp_extended"][32:]
        for at in range(0, len(whole), 65000):
            head = b"http://ns.adobe.com/xmp/extension/\0" + guid
            head += struct.pack(">II", len(whole), at)
            segments += segment(0xE1, head + whole[at : at + 65000], "xmp_extended")
    resources = metadata.get("photoshop", b"")
    if "iptc" in metadata:
        resources = _resource(1028, metadata["iptc"]) + resources
    for at in range(0, len(resources), 65000):
        data = b"Photoshop 3.0\0" + resources[at : at + 65000]
        segments += segment(0xED, data, "photoshop")
    for keyword, value in metadata.get("text", []):
        value = value if keyword == "Comment" else f"{keyword}: {value}"
        segments += segment(0xFE, value.encode(), "text")
    density = None
    if "resolution" in metadata:
        *values, unit = metadata["resolution"]
        x, y = (n / d for n, d in map(ifd.fraction, values))
        if unit == "cm" and (x != round(x) or y != round(y)):
            x, y, unit = x * 2.54, y * 2.54, "inch"
        if unit == "none" and (x != round(x) or y != round(y)):
            x, y = 1000 * x / max(x, y), 1000 * y / max(x, y)
        x, y = (min(max(round(v), 1), 65535) for v in (x, y))
        density = ({"none": 0, "inch": 1, "cm": 2}[unit], x, y)
    lost += [key for key in ("png", "dicom") if key in metadata]
    return segments, density, lost


def _short_exif(block: bytes) -> bytes:
    """Of an EXIF block that is too long for JPEG, the tags of a camera; b"" if still too long."""
    with contextlib.suppress(ValueError, struct.error):
        order, found, _ = ifd.parse(block)
        found[0] = [t for t in found[0] if t.code in CAMERA and len(t.data) < 32768]
        short = block[:4] + struct.pack(order + "I", 8) + ifd.tree(found, 8, order)
        return short if len(short) <= 65527 else b""
    return b""


def for_webp(metadata: dict) -> tuple[bytes, bytes, list[str]]:
    """EXIF and XMP of a WebP with these metadata, and what it cannot hold."""
    xmp = metadata.get("xmp", b"")
    others = ("iptc", "photoshop", "xmp_extended", "resolution", "text", "png", "dicom")
    lost = [key for key in others if key in metadata]
    return metadata.get("exif", b""), xmp.encode() if isinstance(xmp, str) else xmp, lost


def unheld(metadata: dict | None, format: str) -> list[str]:
    """What of the metadata a picture of this format ("png", "tif", "jpg", "webp") does not hold."""
    convert = {"png": for_png, "tif": for_tiff, "jpg": for_jpeg, "webp": for_webp}[format]
    return [printable(key).replace("_", " ") for key in convert(metadata or {})[-1]]
