"""PNG, JPEG, WebP and BMP, by Pillow; 16-bit PNG of colour by imagecodecs."""

import numpy as np

from ..errors import LaffError
from .common import Source, check_promise, check_size, silent_stderr
from .page import Plan, Reading
from .pixels import CmykToRgb, on_white

# The most raw bytes that one byte of a file can stand for, so that a header that promises more
# than the file can hold is refused before anything is allocated. Deflate has an exact bound; the
# others are generous (WebP has none, but no photograph comes near).
_EXPANSION = {"BMP": 256, "PNG": 1100, "JPEG": 8192, "WEBP": 8192}


class _PillowPlan(Plan):
    """A picture that Pillow reads; it decodes the whole of it at the first window."""

    def __init__(self, source: Source, image, *, depth: int = 8):
        # depth: bits of a PNG's samples, which Pillow does not tell for 2 and 4.
        self._image = image
        mode = image.mode
        self._palette = None
        self._key = None
        self._cmyk = None
        bits, channels = 8, 3
        transparency = image.info.get("transparency")
        if mode == "P":
            self._palette = self._flat_palette(image, transparency)
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
        super().__init__(
            0,
            *image.size,
            channels,
            bits,
            icc=image.info.get("icc_profile"),
            orientation=_exif_orientation(image),
        )

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
            return on_white(colour, pixels[..., -1])
        if self._key is not None:
            pixels = pixels.copy()
            hidden = pixels == self._key
            pixels[hidden.all(axis=-1) if pixels.ndim == 3 else hidden] = np.iinfo(pixels.dtype).max
        return pixels[..., :3] if pixels.ndim == 3 else pixels

    def close(self):
        self._image.close()


class _Png16Plan(Plan):
    """A 16-bit PNG with colour or alpha, which Pillow would cut down to 8 bits."""

    def __init__(self, source: Source, image, colour_type: int):
        self._source = source
        self._pixels = None
        super().__init__(
            0,
            *image.size,
            1 if colour_type == 4 else 3,
            16,
            icc=image.info.get("icc_profile"),
            orientation=_exif_orientation(image),
        )
        self._key = image.info.get("transparency") if colour_type == 2 else None
        image.close()

    def window(self, y0, y1, x0, x1):
        if self._pixels is None:
            import imagecodecs

            with self._source.open() as file, silent_stderr():
                pixels = imagecodecs.png_decode(file.read())
            if pixels.dtype != np.uint16 or pixels.shape[:2] != self.size:
                raise ValueError(f"decoded to {pixels.dtype} {pixels.shape}")
            self._pixels = pixels
        pixels = self._pixels[y0:y1, x0:x1]
        if pixels.shape[2] == 2:
            return on_white(pixels[..., 0], pixels[..., 1])
        if pixels.shape[2] == 4:
            return on_white(pixels[..., :3], pixels[..., 3])
        if isinstance(self._key, tuple):
            pixels = pixels.copy()
            pixels[(pixels == np.array(self._key, np.uint16)).all(axis=-1)] = 65535
        return pixels

    def close(self):
        self._pixels = None


def _exif_orientation(image) -> int:
    # Not image.getexif(): for a PNG without EXIF it would decode the pixels to look for one.
    from PIL import Image

    data = image.info.get("exif")
    if not data:
        return 1
    try:
        exif = Image.Exif()
        exif.load(data)
        return int(exif.get(0x0112, 1))
    except Exception:  # damaged EXIF: the pixels are as good as without
        return 1


def pillow_plan(source: Source, kind: str, reading: Reading) -> Plan:
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
        return _Png16Plan(source, image, colour_type)
    return _PillowPlan(source, image, depth=depth)
