"""What a picture file says about its picture: found in files and made upright.

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
they are left out, and a note says so. `embedding` puts them into files, `properties` tells them to
people.
"""

import contextlib
import re
import struct
import zlib
from collections.abc import Iterator

from . import ifd
from .ifd import EXIF, GPS, INTEROPERABILITY, Tag

MAX_BYTES = 1 << 23
"""Most bytes of metadata of one picture that are kept, so that an archive can hold them."""
MAX_SHARED_BYTES = 1 << 16
"""Most that further pages of a file take over from its first directory: what describes all planes
of a large stack grows with them."""

_ORIENTATION, X_RESOLUTION, Y_RESOLUTION, UNIT = 274, 282, 283, 296
DESCRIPTION, XMP, IPTC, PHOTOSHOP, _ICC, _MAKER_NOTE = 270, 700, 33723, 34377, 34675, 37500
_UNITS = {1: "none", 2: "inch", 3: "cm"}

# fmt: off
LAYOUT = frozenset((
    254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281, 284,
    288, 289, 290, 291, 292, 293, 300, 301, 317, 320, 321, 322, 323, 324, 325, 326, 327, 328, 330,
    332, 333, 334, 336, 338, 339, 340, 341, 342, 343, 344, 345, 346, 347, 400, 401, 402, 403, 404,
    405, 433, 434, 435, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 559, 32995,
    32996, 32997, 32998, 33421, 33422,
))
"""Tags that say how a file lays its pixels out, or how values become colours."""
_UNWANTED = (LAYOUT | {_ICC}) - {_ORIENTATION}
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
PNG_CHUNKS = {"gAMA": 4, "cHRM": 32, "sRGB": 1, "cICP": 4, "mDCV": 24, "cLLI": 8, "tIME": 7}
"""Chunks of PNG that are kept, and their lengths."""
_PNG_SRGB = (
    ("gAMA", "0000b18f"),
    ("cHRM", "00007a26000080840000fa00000080e8000075300000ea6000003a9800001770"),
    *(("sRGB", f"0{intent}") for intent in range(4)),
)
"""Those that say what viewers of PNG assume anyway."""
CAMERA = frozenset((270, 271, 272, 305, 306, 315, 316, 33432, EXIF, GPS))
"""Of a camera RAW file's first directory, what its developed picture keeps."""
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
            if X_RESOLUTION in tags and Y_RESOLUTION in tags:
                x, y = tags[X_RESOLUTION], tags[Y_RESOLUTION]
                block[x.at : x.at + 8], block[y.at : y.at + 8] = y.data, x.data
        known = (_ORIENTATION, X_RESOLUTION, Y_RESOLUTION, UNIT, *LAYOUT, *ifd.POINTERS)
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
        if len(data) == PNG_CHUNKS[chunk] and (chunk, data.hex()) not in _PNG_SRGB:
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
    x, y = found.get(X_RESOLUTION), found.get(Y_RESOLUTION)
    if x is None or y is None or x.type != 5 or y.type != 5:
        return None
    unit = found.get(UNIT)
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


def gather(source, stored) -> Found:
    """The metadata of a page that `stored` reads from `source`. Raises nothing because of them."""
    kind = source.kind()
    if kind == "TIFF" and not hasattr(stored, "ifd_offset"):
        kind = "RAW"  # a DNG under another name
    info = stored.info
    found = Found(info.width, info.height, stored.orientation)
    try:
        own = getattr(stored, "gather", None)
        if own is not None:
            own(found)
        elif kind == "TIFF":
            _from_tiff(stored, found)
        elif kind in ("JPEG", "PNG", "RAW"):
            with source.open() as file:
                {"JPEG": _from_jpeg, "PNG": _from_png, "RAW": _from_raw}[kind](file, found)
        else:
            with source.open() as file:
                _from_pillow(file, kind, found)
    except Exception as exc:  # metadata are the least of a picture: it is read without them
        found.note(f"metadata not kept ({type(exc).__name__})")
    return found


def _from_tiff(stored, found: Found) -> None:
    file = stored.file
    if stored.has_high_offsets:
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
        limit = MAX_BYTES if own or stored.info.page == 0 else MAX_SHARED_BYTES
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
    page = stored.ifd_offset
    take(page, 0, True)
    orientation = directories.get(0, {}).get(_ORIENTATION)
    if page != first:
        take(first, 0, False)
    main = directories.get(0, {})
    if orientation is not None and orientation.type in (1, 3, 4):
        found._swapped = orientation.values(order)[0] in (5, 6, 7, 8)
    for code, put in ((XMP, found.xmp), (PHOTOSHOP, found.photoshop), (IPTC, found.iptc)):
        if code in main:
            put(main.pop(code).data)
    resolution = _resolution(list(main.values()), order)
    if resolution:
        found.resolution(*resolution)
    for code in (X_RESOLUTION, Y_RESOLUTION, UNIT, _ORIENTATION):
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
        if length == PNG_CHUNKS.get(name) and name not in seen:
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
        if tag.code in (XMP, IPTC):
            (found.xmp if tag.code == XMP else found.iptc)(tag.data)
        elif tag.code in (EXIF, GPS) and tag.type in (4, 13):
            with contextlib.suppress(ValueError):
                inner = ifd.read(tag.values(order)[0], order, big, fetch, MAX_BYTES)[0]
                kept[tag.code] = [t for t in inner if t.code not in (_MAKER_NOTE, 40965)]
                if len(kept[tag.code]) < len(inner):
                    found.note("maker's notes not kept")
        elif tag.code in CAMERA:
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
