"""What a picture file says about its picture: found in files, made upright, put into files.

Metadata are a dict, of which a picture has what its file had:

    exif          bytes: a TIFF structure with the EXIF, GPS and all other tags that describe the
                  picture rather than how the file lays it out (of a TIFF: GeoTIFF, GDAL, ImageJ …)
    xmp           str (bytes if it is not UTF-8): the packet; xmp_extended: bytes, its other part
    iptc          bytes: IPTC-IIM records
    photoshop     bytes: Photoshop's other image resources
    resolution    [across, down, unit]: numbers or [numerator, denominator]; unit "inch", "cm" or
                  "none" (only their ratio matters)
    text          [[keyword, text], …]: PNG's texts, comments of JPEG and GIF
    png           [[chunk, its data in hexadecimal], …]: of a PNG, what its samples mean as colours
                  (gAMA, cHRM, sRGB, cICP, mDCV, cLLI) where that is not plain sRGB, and tIME
    dicom         bytes: a DICOM file without its pixels

Pixels in an archive are upright: so the orientation here is always 1, and sizes and resolution
are those of the upright picture. Thumbnails are left out. Nothing here raises for damaged metadata:
they are left out, and a note says so.
"""

import contextlib
import functools
import json
import re
import struct
import zlib
from collections.abc import Iterator

from ..errors import printable
from . import ifd
from .ifd import EXIF, GPS, INTEROPERABILITY, Tag

MAX_BYTES = 1 << 23
"""Most bytes of metadata of one picture that are kept, so that an archive can hold them."""
MAX_SHARED_BYTES = 1 << 16
"""Most that further pages of a file take over from its first directory: what describes all planes
of a large stack grows with them."""

_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _UNIT = 274, 282, 283, 296
_DESCRIPTION, _XMP, _IPTC, _PHOTOSHOP, _ICC, _MAKER_NOTE = 270, 700, 33723, 34377, 34675, 37500
_UNITS = {1: "none", 2: "inch", 3: "cm"}

# fmt: off
_LAYOUT = frozenset((
    254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281, 284,
    288, 289, 290, 291, 292, 293, 300, 301, 317, 320, 321, 322, 323, 324, 325, 326, 327, 328, 330,
    332, 333, 334, 336, 338, 339, 340, 341, 342, 343, 344, 345, 346, 347, 400, 401, 402, 403, 404,
    405, 433, 434, 435, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 559, 32995,
    32996, 32997, 32998, 33421, 33422,
))
"""Tags that say how a file lays its pixels out, or how values become colours."""
_UNWANTED = (_LAYOUT | {_ICC}) - {_ORIENTATION}
"""Of a TIFF's own directories, what is not even read: the list of strips may be long."""
_STRUCTURE = frozenset((
    *range(33628, 33632),  # MetaMorph STK
    34361, 34362,          # FluoView
    34412,                 # Zeiss LSM
    *range(65420, 65460),  # Hamamatsu NDPI
))
"""Tags of formats that look like TIFF: a reader that meets them expects these formats."""
_OF_ONE_PAGE = frozenset((285, 286, 287, 297))
"""Tags that pages do not take over from the first: name, position, number."""
_GEOREFERENCE = frozenset((33550, 33922, 34264))
_LAYERS = 37724
_PNG_CHUNKS = {"gAMA": 4, "cHRM": 32, "sRGB": 1, "cICP": 4, "mDCV": 24, "cLLI": 8, "tIME": 7}
"""Chunks of PNG that are kept, and their lengths."""
_PNG_SRGB = (
    ("gAMA", "0000b18f"),
    ("cHRM", "00007a26000080840000fa00000080e8000075300000ea6000003a9800001770"),
    *(("sRGB", f"0{intent}") for intent in range(4)),
)
"""Those that say what viewers of PNG assume anyway."""
_CAMERA = frozenset((270, 271, 272, 305, 306, 315, 316, 33432, EXIF, GPS))
"""Of a camera RAW file's first directory, what its developed picture keeps."""
_IIM = {5: "Title", 25: "Keywords", 40: "Instructions", 55: "DateCreated", 80: "By-line",
        90: "City", 101: "Country", 105: "Headline", 110: "Credit", 115: "Source",
        116: "Copyright", 120: "Caption"}
# fmt: on


class Found:
    """Metadata while they are gathered; `values` is the dict, `notes` say what is left out."""

    def __init__(self, width: int, height: int, orientation: int = 1):
        self.values: dict = {}
        self.notes: list[str] = []
        self._size = (width, height)
        self._swapped = orientation >= 5
        self._left = MAX_BYTES

    def _put(self, key: str, value, nbytes: int) -> None:
        if key in self.values or not nbytes:
            return
        if nbytes > self._left:
            self.note(f"{key.replace('_', ' ')} of {nbytes} bytes not kept")
            return
        self._left -= nbytes
        self.values[key] = value

    def note(self, text: str) -> None:
        """Say once what is left out."""
        if text not in self.notes:
            self.notes.append(text)

    def exif(self, block: bytes) -> None:
        """EXIF as JPEG, PNG and others hold it, with or without its six bytes in front."""
        block = block.removeprefix(b"Exif\0\0")
        try:
            order, found, thumbnail = ifd.parse(block)
        except (ValueError, struct.error):
            self.note("damaged EXIF not kept")
            return
        block = bytearray(block)
        if thumbnail:
            self.note("EXIF thumbnail not kept")
            _cut_thumbnail(block, order, found, thumbnail)
        width, height = self._size
        wanted = {(0, 274): 1, (0, 256): width, (0, 257): height}
        wanted |= {(EXIF, 40962): width, (EXIF, 40963): height}
        for (directory, number), value in wanted.items():
            for tag in found.get(directory, ()):
                if tag.code == number and tag.type in (3, 4) and tag.count == 1:
                    code = "H" if tag.type == 3 and value <= 65535 else "I"
                    if len(tag.data) == struct.calcsize(order + code):
                        struct.pack_into(order + code, block, tag.at, value)
        if self._swapped:
            tags = {t.code: t for t in found[0] if t.type == 5 and t.count == 1}
            if _X_RESOLUTION in tags and _Y_RESOLUTION in tags:
                x, y = tags[_X_RESOLUTION], tags[_Y_RESOLUTION]
                block[x.at : x.at + 8], block[y.at : y.at + 8] = y.data, x.data
        known = (_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _UNIT, *_LAYOUT, *ifd.POINTERS)
        if any(tag.code not in known for tags in found.values() for tag in tags):
            self._put("exif", bytes(block), len(block))
        # Where the container has a resolution of its own, that came before and stays.
        resolution = _resolution(found[0], order)
        if resolution:
            self.resolution(*resolution)

    def xmp(self, packet: bytes | str) -> None:
        """An XMP packet."""
        packet = packet.encode() if isinstance(packet, str) else packet.strip(b"\0")
        packet = _upright_xmp(packet, *self._size)
        shorter = re.sub(rb"<xmp:Thumbnails>.*?</xmp:Thumbnails>", b"", packet, flags=re.DOTALL)
        if shorter != packet:
            self.note("XMP thumbnail not kept")
        with contextlib.suppress(UnicodeDecodeError):
            self._put("xmp", shorter.decode(), len(shorter))
            return
        self._put("xmp", shorter, len(shorter))

    def xmp_extended(self, data: bytes) -> None:
        """The other part of an XMP packet that is too long for JPEG."""
        self._put("xmp_extended", data, len(data))

    def iptc(self, records: bytes) -> None:
        """IPTC-IIM records."""
        records = records.rstrip(b"\0") if records[:1] == b"\x1c" else b""
        self._put("iptc", records, len(records))

    def photoshop(self, resources: bytes) -> None:
        """Photoshop's image resources, as APP13 of JPEG and tag 34377 of TIFF have them."""
        kept = b""
        for number, whole, data in _resources(resources):
            if number == 1028:
                self.iptc(data)
            elif number in (1033, 1036):
                self.note("Photoshop thumbnail not kept")
            elif number not in (1039, 1058, 1060):  # the profile, EXIF and XMP once more
                kept += whole
        self._put("photoshop", kept, len(kept))

    def resolution(self, x, y, unit: str) -> None:
        """Pixels per unit, across and down, as the file has them (not upright)."""
        values = [x, y]
        if any((v[0] <= 0 or v[1] <= 0) if isinstance(v, list) else not v > 0 for v in values):
            return
        if unit == "none" and values[0] == values[1]:
            return
        x, y = (v[0] // v[1] if isinstance(v, list) and v[0] % v[1] == 0 else v for v in values)
        self._put("resolution", [y, x, unit] if self._swapped else [x, y, unit], 1)

    def text(self, keyword: str, value: str) -> None:
        """A text with its keyword."""
        if len(value) > self._left:
            self.note(f"text {keyword!r} of {len(value)} characters not kept")
            return
        self._left -= len(value)
        pair = [part.encode("utf-8", "replace").decode() for part in (keyword, value)]
        texts = self.values.setdefault("text", [])
        if pair not in texts:
            texts.append(pair)

    def png(self, chunk: str, data: bytes) -> None:
        """A chunk of a PNG."""
        if len(data) == _PNG_CHUNKS[chunk] and (chunk, data.hex()) not in _PNG_SRGB:
            self.values.setdefault("png", []).append([chunk, data.hex()])

    def dicom(self, data: bytes) -> None:
        """A DICOM file without pixels."""
        self._put("dicom", data, len(data))


def _cut_thumbnail(block: bytearray, order: str, found: dict, at: int) -> None:
    """Take the second directory and its picture out of an EXIF block; offsets stay as they are."""
    start = struct.unpack_from(order + "I", block, 4)[0]
    (count,) = struct.unpack_from(order + "H", block, start)
    following = start + 2 + count * 12
    if following + 4 > len(block):
        return
    struct.pack_into(order + "I", block, following, 0)
    end = following + 4
    for code, tags in found.items():
        if code:
            pointer = next(t for d in found.values() for t in d if t.code == code)
            end = max(end, pointer.values(order)[0] + 2 + len(tags) * 12 + 4)
        end = max([end, *(tag.at + len(tag.data) for tag in tags)])
    if at >= end:
        del block[end:]


def _resolution(tags: list[Tag], order: str) -> tuple | None:
    found = {tag.code: tag for tag in tags if tag.count == 1}
    x, y = found.get(_X_RESOLUTION), found.get(_Y_RESOLUTION)
    if x is None or y is None or x.type != 5 or y.type != 5:
        return None
    unit = found.get(_UNIT)
    name = "inch"
    if unit is not None and unit.type == 3:
        name = _UNITS.get(unit.values(order)[0], "inch")
    return list(x.values(order)), list(y.values(order)), name


def orientation_of(block: bytes | None) -> int:
    """The orientation that EXIF tells, 1 to 8; 1 if it tells none."""
    with contextlib.suppress(ValueError, struct.error):
        order, found, _ = ifd.parse((block or b"").removeprefix(b"Exif\0\0"))
        for tag in found[0]:
            if tag.code == _ORIENTATION and tag.type in (1, 3, 4) and tag.count == 1:
                return min(max(tag.values(order)[0], 1), 8)
    return 1


def _upright_xmp(packet: bytes, width: int, height: int) -> bytes:
    """The packet with orientation 1 and the sizes of the upright picture, where it has them."""
    for name, value in (
        (b"tiff:Orientation", b"1"),
        (b"tiff:ImageWidth", b"%d" % width),
        (b"tiff:ImageLength", b"%d" % height),
        (b"exif:PixelXDimension", b"%d" % width),
        (b"exif:PixelYDimension", b"%d" % height),
    ):
        packet = re.sub(
            name + rb"(\s*=\s*[\"']|\s*>\s*)\d+", lambda m, n=name, v=value: n + m[1] + v, packet
        )
    return packet


def _resources(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Photoshop's image resources: number, the whole of it, its data; up to the first damage."""
    at = 0
    while data[at : at + 4] == b"8BIM" and at + 12 <= len(data):
        number, length = struct.unpack_from(">HB", data, at + 4)
        start = at + 6 + (length + 2) // 2 * 2
        if start + 4 > len(data):
            return
        (nbytes,) = struct.unpack_from(">I", data, start)
        end = start + 4 + nbytes
        if end > len(data):
            return
        yield number, data[at:end] + b"\0" * (nbytes % 2), data[start + 4 : end]
        at = end + nbytes % 2


# In ---------------------------------------------------------------------------------------------


def gather(source, plan) -> Found:
    """The metadata of a page that `plan` reads from `source`. Raises nothing because of them."""
    kind = source.kind()
    if kind == "TIFF" and not hasattr(plan, "ifd_offset"):
        kind = "RAW"  # a DNG under another name
    info = plan.info
    found = Found(info.width, info.height, plan.orientation)
    try:
        own = getattr(plan, "gather", None)
        if own is not None:
            own(found)
        elif kind == "TIFF":
            _from_tiff(plan, found)
        elif kind in ("JPEG", "PNG", "RAW"):
            with source.open() as file:
                {"JPEG": _from_jpeg, "PNG": _from_png, "RAW": _from_raw}[kind](file, found)
        else:
            with source.open() as file:
                _from_pillow(file, kind, found)
    except Exception as exc:  # metadata are the least of a picture: it is read without them
        found.note(f"metadata not kept ({type(exc).__name__})")
    return found


def _from_tiff(plan, found: Found) -> None:
    file = plan.file
    if plan.has_high_offsets:
        found.note("metadata of a slide beyond 4 GB not kept")
        return
    file.seek(0)
    order, big, first = ifd.header(file.read(16))

    def fetch(at: int, nbytes: int) -> bytes:
        file.seek(at)
        return file.read(nbytes)

    directories: dict[int, dict[int, Tag]] = {}
    lost: set[int] = set()

    def take(at: int, directory: int, own: bool) -> None:
        limit = MAX_BYTES if own or plan.info.page == 0 else MAX_SHARED_BYTES
        try:
            unwanted = () if directory else _UNWANTED
            tags, _, bad = ifd.read(at, order, big, fetch, limit, unwanted)
        except (ValueError, struct.error):
            lost.add(directory)
            return
        kept = directories.setdefault(directory, {})
        bad = [code for code in bad if code not in kept and code != _ORIENTATION]
        if limit == MAX_BYTES:
            lost.update(bad)
        elif bad:
            many = "s" if len(bad) > 1 else ""
            found.note(f"{len(bad)} long TIFF tag{many} kept with the file's first picture alone")
        for tag in tags:
            if tag.code in POINTED[directory]:
                if tag.type in (4, 13, 16, 18) and tag.count == 1:
                    take(tag.values(order)[0], tag.code, own)
            elif directory or own or tag.code not in _OF_ONE_PAGE:
                kept.setdefault(tag.code, tag)

    POINTED = {0: (EXIF, GPS), EXIF: (INTEROPERABILITY,), GPS: (), INTEROPERABILITY: ()}
    page = plan.ifd_offset
    take(page, 0, True)
    orientation = directories.get(0, {}).get(_ORIENTATION)
    if page != first:
        take(first, 0, False)
    main = directories.get(0, {})
    if orientation is not None and orientation.type in (1, 3, 4):
        found._swapped = orientation.values(order)[0] in (5, 6, 7, 8)
    for code, put in ((_XMP, found.xmp), (_PHOTOSHOP, found.photoshop), (_IPTC, found.iptc)):
        if code in main:
            put(main.pop(code).data)
    resolution = _resolution(list(main.values()), order)
    if resolution:
        found.resolution(*resolution)
    for code in (_X_RESOLUTION, _Y_RESOLUTION, _UNIT, _ORIENTATION):
        main.pop(code, None)
    if _LAYERS in main:
        del main[_LAYERS]
        found.note("Photoshop layers not kept")
    turned = orientation is not None and orientation.values(order)[0] != 1
    for code in list(main):
        if code in _STRUCTURE or (turned and code in _GEOREFERENCE):
            del main[code]
            lost.add(code)
    classic = {}
    for directory, tags in directories.items():
        classic[directory] = []
        for tag in tags.values():
            tag = _classic(tag, order)
            (classic[directory].append(tag) if tag else lost.add(0))
    for tag in list(classic.get(EXIF, ())):
        if tag.code in (40962, 40963):
            classic[EXIF].remove(tag)
            size = found._size[tag.code - 40962]
            classic[EXIF].append(ifd.number(tag.code, 4, [size], order))
    if lost:
        found.note(f"{len(lost)} TIFF tag{'s' if len(lost) > 1 else ''} not kept")
    if any(classic.values()):
        mark = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
        found._put("exif", mark + (block := ifd.tree(classic, 8, order)), len(block))


def _classic(tag: Tag, order: str) -> Tag | None:
    """The tag as a TIFF that is not big can hold it; None if it cannot."""
    if tag.type in (16, 17):
        try:
            return ifd.number(tag.code, 4 if tag.type == 16 else 9, tag.values(order), order)
        except struct.error:
            return None
    return None if tag.type in (13, 18) else tag


def _from_jpeg(file, found: Found) -> None:
    exif, xmp, parts, photoshop, others = b"", b"", {}, b"", 0
    comments = []
    if file.read(2) != b"\xff\xd8":
        return
    while (mark := file.read(2)) and mark[0] == 0xFF:
        while mark[1] == 0xFF:
            mark = mark[1:] + file.read(1)
        if mark[1] in (0xDA, 0xD9) or len(mark) < 2:
            break
        head = file.read(2)
        if len(head) < 2 or (length := int.from_bytes(head, "big")) < 2:
            break
        if not (0xE0 <= mark[1] <= 0xEF or mark[1] == 0xFE):
            file.seek(length - 2, 1)
            continue
        data = file.read(length - 2)
        name, _, rest = data.partition(b"\0")
        if mark[1] == 0xFE:
            comments.append(data.rstrip(b"\0").decode("utf-8", "replace"))
        elif mark[1] == 0xE0 and name == b"JFIF" and len(data) >= 12:
            unit, x, y = struct.unpack_from(">BHH", data, 7)
            found.resolution(x, y, {1: "inch", 2: "cm"}.get(unit, "none"))
        elif data.startswith(b"Exif\0\0"):
            exif = exif or data
        elif name == b"http://ns.adobe.com/xap/1.0/":
            xmp = xmp or rest
        elif name == b"http://ns.adobe.com/xmp/extension/" and len(rest) >= 40:
            total, at = struct.unpack_from(">II", rest, 32)
            parts.setdefault((rest[:32], total), {})[at] = rest[40:]
        elif mark[1] == 0xED and name == b"Photoshop 3.0":
            photoshop += rest
        elif name not in (b"JFIF", b"JFXX", b"Adobe", b"ICC_PROFILE", b"MPF", b"Ducky", b"FPXR"):
            others += not data.startswith(b"Adobe")
    if exif:
        found.exif(exif)
    if xmp:
        found.xmp(xmp)
    for (guid, total), pieces in parts.items():
        whole = b"".join(pieces[at] for at in sorted(pieces))
        if guid in xmp and len(whole) == total:
            found.xmp_extended(guid + whole)
    if photoshop:
        found.photoshop(photoshop)
    for comment in comments:
        found.text("Comment", comment)
    if others:
        found.note(f"{others} JPEG segment{'s' if others > 1 else ''} of other programs not kept")


def _from_png(file, found: Found) -> None:
    seen: set[str] = set()
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            break
        name = kind.decode("latin-1")
        if length == _PNG_CHUNKS.get(name) and name not in seen:
            seen.add(name)
            found.png(name, file.read(length))
            file.seek(4, 1)
            continue
        if kind not in (b"eXIf", b"pHYs", b"tEXt", b"zTXt", b"iTXt") or length > MAX_BYTES:
            if kind in (b"tEXt", b"zTXt", b"iTXt"):
                found.note(f"text of {length} bytes not kept")
            file.seek(length + 4, 1)
            continue
        data = file.read(length)
        if len(data) < length:
            break
        file.seek(4, 1)
        if kind == b"eXIf":
            found.exif(data)
        elif kind == b"pHYs" and length == 9:
            x, y, metre = struct.unpack(">IIB", data)
            unit = "cm" if metre == 1 else "none"
            found.resolution(*(([x, 100], [y, 100]) if metre == 1 else (x, y)), unit)
        elif kind != b"pHYs":
            _png_text(kind, data, found)


def _inflated(data: bytes) -> bytes:
    inflate = zlib.decompressobj()
    out = inflate.decompress(data, MAX_BYTES)
    if not inflate.eof:
        raise ValueError("too long")
    return out


def _png_text(kind: bytes, data: bytes, found: Found) -> None:
    name, _, rest = data.partition(b"\0")
    keyword = name.decode("latin-1")
    try:
        if kind == b"iTXt":
            packed = rest[:1] == b"\1"
            _, _, rest = rest[2:].partition(b"\0")  # the language
            _, _, rest = rest.partition(b"\0")  # the translated keyword
            value = (_inflated(rest) if packed else rest).decode("utf-8", "replace")
        else:
            value = (_inflated(rest[1:]) if kind == b"zTXt" else rest).decode("latin-1")
    except (ValueError, zlib.error):
        found.note(f"damaged text {keyword!r} not kept")
        return
    if keyword == "XML:com.adobe.xmp":
        found.xmp(value)
    elif keyword.startswith("Raw profile type "):
        _raw_profile(keyword.removeprefix("Raw profile type "), value, found)
    else:
        found.text(keyword, value)


def _raw_profile(name: str, value: str, found: Found) -> None:
    """ImageMagick's way to put EXIF and others into texts: name, length, hexadecimal digits."""
    parts = value.split(None, 2)
    try:
        data = bytes.fromhex(parts[2])
    except (IndexError, ValueError):
        found.note(f"damaged {name} profile not kept")
        return
    if name == "exif" or (name == "APP1" and data.startswith(b"Exif\0\0")):
        found.exif(data)
    elif name in ("xmp", "APP1"):
        found.xmp(data.removeprefix(b"http://ns.adobe.com/xap/1.0/\0"))
    elif name in ("iptc", "8bim"):
        (found.photoshop if data.startswith(b"8BIM") else found.iptc)(data)
    elif name != "icc":
        found.note(f"{name} profile not kept")


def _from_raw(file, found: Found) -> None:
    """EXIF of those camera RAW files that look like TIFF, without what only the sensor's data, or
    the camera's maker, can make use of."""
    head = file.read(16)
    if head[:2] not in (b"II", b"MM"):
        found.note("metadata of this kind of camera RAW not kept")
        return
    order, big, first = ifd.header(head)

    def fetch(at: int, nbytes: int) -> bytes:
        file.seek(at)
        return file.read(nbytes)

    kept: dict[int, list[Tag]] = {0: []}
    for tag in ifd.read(first, order, big, fetch, MAX_BYTES)[0]:
        if tag.code in (_XMP, _IPTC):
            (found.xmp if tag.code == _XMP else found.iptc)(tag.data)
        elif tag.code in (EXIF, GPS) and tag.type in (4, 13):
            with contextlib.suppress(ValueError):
                inner = ifd.read(tag.values(order)[0], order, big, fetch, MAX_BYTES)[0]
                kept[tag.code] = [t for t in inner if t.code not in (_MAKER_NOTE, 40965)]
                if len(kept[tag.code]) < len(inner):
                    found.note("maker's notes not kept")
        elif tag.code in _CAMERA:
            kept[0].append(tag)
    if any(kept.values()):
        mark = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
        found.exif(mark + ifd.tree(kept, 8, order))


def _from_pillow(file, kind: str, found: Found) -> None:
    from PIL import Image

    with Image.open(file, formats=[kind]) as image:
        take_info(image.info, found)


def take_info(info: dict, found: Found) -> None:
    """What Pillow found in a file."""
    if isinstance(info.get("exif"), bytes) and info["exif"]:
        found.exif(info["exif"])
    if isinstance(info.get("xmp"), bytes) and info["xmp"]:
        found.xmp(info["xmp"])
    if isinstance(info.get("comment"), bytes) and info["comment"]:
        found.text("Comment", info["comment"].rstrip(b"\0").decode("utf-8", "replace"))
    dpi = info.get("dpi")
    if isinstance(dpi, tuple) and len(dpi) == 2 and all(0 < float(v) < 1e6 for v in dpi):
        # BMP and others count pixels per metre.
        found.resolution(*([round(float(v) / 0.0254), 100] for v in dpi), "cm")


# Out --------------------------------------------------------------------------------------------


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
        if tag.code not in _LAYOUT and tag.code not in ifd.POINTERS
    }
    if _DESCRIPTION in tags and tags[_DESCRIPTION].type == 2:
        description = tags[_DESCRIPTION].data
        tags[_DESCRIPTION] = Tag(_DESCRIPTION, 2, _one_plane(description))
        if not tags[_DESCRIPTION].data:
            del tags[_DESCRIPTION]
    for code, value in _text_tags(metadata.get("text", []), tags).items():
        tags[code] = ifd.text(code, value)
    if "resolution" in metadata:
        *values, unit = metadata["resolution"]
        for code, value in zip((_X_RESOLUTION, _Y_RESOLUTION), values, strict=True):
            tags[code] = ifd.number(code, 5, _fraction(value), order)
        code = {"none": 1, "inch": 2, "cm": 3}[unit]
        tags[_UNIT] = ifd.number(_UNIT, 3, [code], order)
    for key, code in (("xmp", _XMP), ("iptc", _IPTC), ("photoshop", _PHOTOSHOP)):
        if key in metadata:
            value = metadata[key]
            data = value.encode() if isinstance(value, str) else value
            tags[code] = Tag(code, 7 if code == _IPTC else 1, data)
    lost += [key for key in ("xmp_extended", "png", "dicom") if key in metadata]
    return order, directories | {0: list(tags.values())}, lost


def _fraction(value) -> list[int]:
    return value if isinstance(value, list) else [value, 1]


def _text_tags(texts: list, taken: dict) -> dict[int, str]:
    """Texts as TIFF tags: those that have one get it, the others become the description."""
    tags, rest = {}, []
    for keyword, value in texts:
        code = {"Author": 315, "Copyright": 33432, "Software": 305}.get(keyword)
        if code and code not in taken and code not in tags:
            tags[code] = value
        else:
            rest.append((keyword, value))
    if rest and _DESCRIPTION not in taken:
        only = len(rest) == 1 and rest[0][0] in ("Description", "Comment")
        lines = [value if only else f"{keyword}: {value}" for keyword, value in rest]
        tags[_DESCRIPTION] = "\n".join(lines)
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
        if kind in _PNG_CHUNKS and len(digits) == 2 * _PNG_CHUNKS[kind]:
            chunks.append((kind.encode(), bytes.fromhex(digits)))
    if "resolution" in metadata:
        *values, unit = metadata["resolution"]
        scale = {"none": 1, "inch": 1 / 0.0254, "cm": 100}[unit]
        x, y = (n * scale / d for n, d in map(_fraction, values))
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
        x, y = (n / d for n, d in map(_fraction, values))
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
        found[0] = [t for t in found[0] if t.code in _CAMERA and len(t.data) < 32768]
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


# For people -------------------------------------------------------------------------------------


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
    x, y = (f"{n / d:.6g}" for n, d in map(_fraction, (x, y)))
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
