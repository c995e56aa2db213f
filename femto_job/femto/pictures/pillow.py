"""PNG, JPEG, WebP and BMP, by Pillow; 16-bit PNG of colour by imagecodecs."""

import contextlib
import os
import re
import struct
import zlib
from dataclasses import replace

import numpy as np

from ..errors import LaffError
from .common import MAX_TEXT_NBYTES, Source, check_promise, check_size, silent_stderr
from .page import Reading, StoredPage
from .pixels import CmykToRgb, on_white

# The most raw bytes that one byte of a file can stand for, so that a header that promises more
# than the file can hold is refused before anything is allocated. Deflate has an exact bound; the
# others are generous (WebP has none, but no photograph comes near).
_EXPANSION = {"BMP": 256, "PNG": 1100, "JPEG": 8192, "WEBP": 8192}


class _WholePage(StoredPage):
    """A picture that is decoded as a whole; its transparency is looked at before windows are."""

    def __init__(self, source: Source, image, reading: Reading, channels: int, bits: int):
        self._blend = reading.alpha
        super().__init__(
            0,
            *image.size,
            channels,
            bits,
            icc=image.info.get("icc_profile"),
            orientation=_orientation(source, image),
        )
        further = getattr(image, "n_frames", 1) - 1
        if further > 0:
            self._note(f"{further} further frame{'s' if further > 1 else ''} not archived")

    def _note(self, text: str):
        self.info = replace(self.info, notes=(*self.info.notes, text))

    def _note_transparency(self):
        self._note(
            "its transparency was blended with white (--no-alpha leaves it out)"
            if self._blend
            else "its transparency not archived"
        )


class _PillowPage(_WholePage):
    """A picture that Pillow reads; it decodes the whole of it at the first window."""

    def __init__(self, source: Source, image, reading: Reading, *, depth: int = 8):
        # depth: bits of a PNG's samples, which Pillow does not tell for 2 and 4.
        self._image = image
        mode = image.mode
        self._palette = None
        self._key = None
        self._cmyk = None
        bits, channels = 8, 3
        transparency = image.info.get("transparency")
        self._transparent = transparency is not None or mode in ("LA", "RGBA")
        if mode == "P":
            self._palette = self._flat_palette(image, transparency if reading.alpha else None)
            channels = 1 if self._palette.ndim == 1 else 3
        elif mode in ("1", "L", "LA", "I;16"):
            channels = 1
            bits = 16 if mode == "I;16" else 8
            if isinstance(transparency, int):
                self._key = transparency * 255 // ((1 << depth) - 1) if depth < 8 else transparency
        elif mode == "CMYK":
            self._cmyk = CmykToRgb(image.info.get("icc_profile"))
        elif mode == "RGB":
            if isinstance(transparency, tuple):
                self._key = np.array(transparency, np.uint16)
        elif mode not in ("RGBA", "RGBX"):
            raise LaffError(
                f"{source.name}: pixels of Pillow's mode {mode} are not read; save it as 8-bit "
                "RGB or grey"
            )
        super().__init__(source, image, reading, channels, bits)

    @staticmethod
    def _flat_palette(image, transparency) -> np.ndarray:
        """The palette on white, (256, 3), or (256,) where every entry is grey; uint8."""
        colours = np.zeros((256, 3), np.uint8)
        entries = np.array(image.getpalette() or [], np.uint8).reshape(-1, 3)[:256]
        colours[: len(entries)] = entries
        alpha = np.full(256, 255, np.uint8)
        if isinstance(transparency, bytes):
            alpha[: len(transparency)] = np.frombuffer(transparency[:256], np.uint8)
        elif isinstance(transparency, int) and transparency < 256:
            alpha[transparency] = 0
        flat = on_white(colours[None], alpha[None])[0]
        grey = (entries == entries[:, :1]).all()
        return flat[:, 0].copy() if grey else flat

    def measure(self):
        if not self._transparent:
            return
        if self._image.mode not in ("LA", "RGBA"):
            self._note_transparency()
            return
        least, most = self._image.getchannel("A").getextrema()
        if self._image.format == "BMP" and most == 0:
            # Programs that do not know BMP's alpha leave zeros there.
            self._blend = False
            self._note("its alpha, 0 everywhere, was taken for opaque")
        elif least == 255:
            self._blend = False
        else:
            self._note_transparency()

    def window(self, y0, y1, x0, x1):
        box = self._image.crop((x0, y0, x1, y1))
        if box.mode == "1":
            box = box.convert("L")
        pixels = np.asarray(box)
        if self._palette is not None:
            return self._palette[pixels]
        if self._cmyk is not None:
            return self._cmyk(pixels)
        if box.mode in ("LA", "RGBA"):
            colour = pixels[..., 0] if box.mode == "LA" else pixels[..., :3]
            return on_white(colour, pixels[..., -1]) if self._blend else colour
        if self._key is not None and self._blend:
            pixels = pixels.copy()
            hidden = pixels == self._key
            pixels[hidden.all(axis=-1) if pixels.ndim == 3 else hidden] = np.iinfo(pixels.dtype).max
        return pixels[..., :3] if pixels.ndim == 3 else pixels

    def close(self):
        self._image.close()


class _Png16Page(_WholePage):
    """A 16-bit PNG with colour or alpha, which Pillow would cut down to 8 bits."""

    def __init__(self, source: Source, image, reading: Reading, colour_type: int):
        self._source = source
        self._pixels = None
        self._key = image.info.get("transparency") if colour_type == 2 else None
        super().__init__(source, image, reading, 1 if colour_type == 4 else 3, 16)
        image.close()

    def _decoded(self) -> np.ndarray:
        if self._pixels is None:
            import imagecodecs

            with self._source.open() as file, silent_stderr():
                pixels = imagecodecs.png_decode(file.read())
            if pixels.dtype != np.uint16 or pixels.shape[:2] != self.size:
                raise ValueError(f"decoded to {pixels.dtype} {pixels.shape}")
            self._pixels = pixels
        return self._pixels

    def measure(self):
        if isinstance(self._key, tuple):
            self._note_transparency()
        elif self._decoded().shape[2] in (2, 4):
            if self._pixels[..., -1].min() == 65535:
                self._blend = False
            else:
                self._note_transparency()

    def window(self, y0, y1, x0, x1):
        pixels = self._decoded()[y0:y1, x0:x1]
        if pixels.shape[2] in (2, 4):
            colour = pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]
            return on_white(colour, pixels[..., -1]) if self._blend else colour
        if isinstance(self._key, tuple) and self._blend:
            pixels = pixels.copy()
            pixels[(pixels == np.array(self._key, np.uint16)).all(axis=-1)] = 65535
        return pixels

    def close(self):
        self._pixels = None


def _orientation(source: Source, image) -> int:
    """By EXIF; a PNG keeps that in several ways, which are tried as Pillow does."""
    # Not image.getexif(): for a PNG without EXIF it would decode the pixels to look for one.
    if image.format != "PNG":
        return exif_orientation(image.info.get("exif")) or 1
    texts = {}
    for kind, data in _png_texts(source):
        if kind == b"eXIf":
            texts.setdefault("exif", data)
            continue
        with contextlib.suppress(ValueError, zlib.error, IndexError):
            keyword, text = _png_text(kind, data)
            texts.setdefault(keyword, text)
    for name in ("Raw profile type exif", "Raw profile type APP1"):
        with contextlib.suppress(KeyError, ValueError, IndexError):
            # ImageMagick's form: a line of the name, one of the length, then hexadecimal.
            digits = texts[name].decode("latin-1").split("\n", 3)[3]
            texts.setdefault("exif", bytes.fromhex(digits))
    xmp = texts.get("XML:com.adobe.xmp", b"")
    found = re.search(rb"tiff:Orientation(?:\s*=\s*[\"']|>)\s*([1-8])\s*[\"'<]", xmp)
    return exif_orientation(texts.get("exif")) or (int(found[1]) if found else 1)


def exif_orientation(exif: bytes | None) -> int | None:
    """Orientation, 1 to 8, of a block of EXIF, with or without its "Exif" mark."""
    from PIL import Image

    if not exif:
        return None
    try:
        tags = Image.Exif()
        tags.load(exif)
        value = tags.get(0x0112)
        return int(value[0] if isinstance(value, bytes | tuple) else value)
    except Exception:  # damaged EXIF: the pixels are as good as without
        return None


def _png_texts(source: Source):
    """The chunks of a PNG that may tell its orientation, also those behind the pixels."""
    with source.open() as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt") and length <= MAX_TEXT_NBYTES:
                yield kind, file.read(length)
                file.seek(4, os.SEEK_CUR)
            else:
                file.seek(length + 4, os.SEEK_CUR)


def _png_text(kind: bytes, data: bytes) -> tuple[str, bytes]:
    """Keyword and text of a tEXt, zTXt or iTXt chunk (PNG 1.2, section 4.2.3)."""
    keyword, rest = data.split(b"\0", 1)
    packed = kind == b"zTXt"
    if packed:
        rest = rest[1:]
    elif kind == b"iTXt":
        packed, rest = rest[0] == 1, rest[2:].split(b"\0", 2)[2]
    if packed:
        rest = zlib.decompressobj().decompress(rest, MAX_TEXT_NBYTES)
    return keyword.decode("latin-1"), rest


def pillow_page(source: Source, kind: str, reading: Reading) -> StoredPage:
    from PIL import Image

    depth, colour_type = 8, None
    if kind == "PNG":
        with source.open() as file:
            head = file.read(26)
        if len(head) == 26:
            depth, colour_type = head[24], head[25]
    image = Image.open(source.open(), formats=[kind])
    width, height = image.size
    check_size(source.name, width, height, whole=True)
    if kind in _EXPANSION:
        bands = {"1": 1 / 8, "L": depth / 8, "P": depth / 8, "I;16": 2}.get(
            image.mode, len(image.getbands())
        )
        check_promise(source.name, int(width * height * bands), source.nbytes, _EXPANSION[kind])
    if depth == 16 and colour_type in (2, 4, 6):
        return _Png16Page(source, image, reading, colour_type)
    return _PillowPage(source, image, reading, depth=depth)
