"""Picture files: read them as the arrays that femto codes, write what it decodes.

What is done to transparency, palettes, CMYK, orientation, ICC profiles and RAW, and what is
refused, is said in docs/PICTURES.md. Pillow is always there; tifffile, imagecodecs and rawpy are
imported only when a picture needs them.
"""

import contextlib
import filecmp
import io
import logging
import os
import struct
import threading
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .errors import LaffError

# fmt: off
RAW_EXTENSIONS = frozenset((
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos",
    ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw",
    ".x3f",
))
# fmt: on
EXTENSIONS = RAW_EXTENSIONS | {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".webp", ".bmp"}

# Pixels of a picture that is read by window, and of one that must be decoded as a whole (at most
# 1 GiB in Pillow, which keeps RGB as four bytes).
MAX_PIXELS = 1 << 32
MAX_WHOLE_PIXELS = 1 << 28
MAX_SIDE = 1 << 20
MAX_PAGES = 1 << 16

# Decoded strips and tiles of a TIFF that are kept for the next window.
SEGMENT_CACHE_BYTES = 128 << 20

# The most raw bytes that one byte of a file can stand for, so that a header that promises more
# than the file can hold is refused before anything is allocated. Deflate and PackBits have exact
# bounds; the others are generous (WebP has none, but no photograph comes near). What is not named
# here is not checked.
_EXPANSION = {"BMP": 256, "PNG": 1100, "JPEG": 8192, "WEBP": 8192}
_TIFF_EXPANSION = {
    5: 4096,  # LZW
    6: 8192,  # JPEG, old style
    7: 8192,  # JPEG
    8: 1100,  # deflate
    32946: 1100,
    32773: 64,  # PackBits
}


@dataclass(frozen=True)
class PageInfo:
    """One picture of a file, as it will be coded.

    page: its number in the file, from 0; width, height: pixels, after its orientation was applied;
    channels: 1 or 3; bits: 8 or 16; error: why it cannot be read (only in a file that has other
    pages which can), else None.
    """

    page: int
    width: int
    height: int
    channels: int
    bits: int
    error: str | None = None


# ------------------------------------------------------------------------------------------------
# Keeping libraries quiet, and their exceptions at home


class _Quiet:
    """Within it, the libraries print no warnings, and Pillow has no size limit of its own.

    Counted, so that threads that are inside at the same time do not undo each other's settings.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._depth = 0

    def __enter__(self):
        from PIL import Image

        with self._lock:
            if self._depth == 0:
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.simplefilter("ignore")
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
                self._loggers = [logging.getLogger(name) for name in ("tifffile", "PIL")]
                self._disabled = [logger.disabled for logger in self._loggers]
                for logger in self._loggers:
                    logger.disabled = True
            self._depth += 1

    def __exit__(self, *exc):
        from PIL import Image

        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                for logger, disabled in zip(self._loggers, self._disabled, strict=True):
                    logger.disabled = disabled
                Image.MAX_IMAGE_PIXELS = self._limit
                self._warnings.__exit__(None, None, None)


_quiet = _Quiet()
_stderr_lock = threading.Lock()


@contextlib.contextmanager
def _silent_stderr():
    """Within it, what C libraries print on standard error is dropped (LibRaw, libtiff)."""
    with _stderr_lock:
        try:
            kept = os.dup(2)
        except OSError:  # no standard error at all
            yield
            return
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(null)


@contextlib.contextmanager
def _decoding(name: str):
    """Within it, whatever a library raises about the file `name` becomes a LaffError."""
    try:
        with _quiet:
            yield
    except LaffError:
        raise
    except MemoryError as exc:
        raise LaffError(
            f"{name}: too little memory to decode it; free some, or cut the picture into parts"
        ) from exc
    except ImportError as exc:
        raise _missing(name, exc.name or str(exc)) from exc
    except Exception as exc:
        said = exc.args[0] if exc.args and isinstance(exc.args[0], bytes) else str(exc)
        said = said.decode(errors="replace") if isinstance(said, bytes) else said
        reason = " ".join(said.split())[:200] or type(exc).__name__
        if "imagecodecs" in reason and "requires" in reason:
            raise _missing(name, "imagecodecs") from exc
        raise LaffError(
            f"{name}: cannot be decoded, the file is damaged or of an unusual kind ({reason}); "
            "open it in an image editor and save it again"
        ) from exc


def _missing(name: str, module: str) -> LaffError:
    module = module.partition(".")[0]
    return LaffError(f"{name}: reading or writing it needs {module}; run: pip install {module}")


def _os_error(name: str, exc: OSError, verb: str, remedy: str) -> LaffError:
    return LaffError(f"{name}: cannot be {verb}: {exc.strerror or exc}; {remedy}")


# ------------------------------------------------------------------------------------------------
# Conversions of pixels: arrays in, arrays out


def _on_white(colour: np.ndarray, alpha: np.ndarray, premultiplied: bool = False) -> np.ndarray:
    """Composite (h, w[, 3]) on white with alpha (h, w) of the same type, rounded."""
    full = np.iinfo(colour.dtype).max
    alpha = alpha if colour.ndim == 2 else alpha[..., None]
    alpha = alpha.astype(np.uint32)
    if premultiplied:
        out = np.minimum(colour + (full - alpha), full)
    else:
        out = (colour * alpha + full * (full - alpha) + full // 2) // full
    return out.astype(colour.dtype)


def _luma(rgb: np.ndarray) -> np.ndarray:
    """(h, w, 3) to (h, w) by ITU-R BT.601 in 16-bit fixed point, as Pillow's mode L."""
    r, g, b = (rgb[..., i].astype(np.uint32) for i in range(3))
    if rgb.dtype == np.uint8:
        return ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16).astype(np.uint8)
    # The weights add up to 65536, so the sum of 16-bit values fits 32 bits without the rounding.
    return ((r * 19595 + g * 38470 + b * 7471) >> 16).astype(np.uint16)


def _scale(values: np.ndarray, bits: int) -> np.ndarray:
    """Integers of `bits` bits to the full range of uint8 (up to 8 bits) or uint16, rounded."""
    dtype = np.uint8 if bits <= 8 else np.uint16
    if bits in (8, 16):
        return values.astype(dtype, copy=False)
    full, top = np.iinfo(dtype).max, (1 << bits) - 1
    return ((values.astype(np.uint32) * full + top // 2) // top).astype(dtype)


def _usable_profile(icc: bytes | None, space: bytes) -> bytes | None:
    """The ICC profile if it is one, and one of the colour space `space` (such as b"RGB ")."""
    if not icc or len(icc) < 132 or icc[36:40] != b"acsp" or icc[16:20] != space:
        return None
    return bytes(icc)


class _CmykToRgb:
    """CMYK (h, w, 4) uint8, 255 = full ink, to sRGB: by its ICC profile, else (1-C)(1-K)."""

    def __init__(self, icc: bytes | None):
        self._transform = None
        icc = _usable_profile(icc, b"CMYK")
        if icc:
            from PIL import ImageCms

            with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
                self._transform = ImageCms.buildTransform(
                    ImageCms.ImageCmsProfile(io.BytesIO(icc)),
                    ImageCms.createProfile("sRGB"),
                    "CMYK",
                    "RGB",
                    ImageCms.Intent.RELATIVE_COLORIMETRIC,
                    ImageCms.Flags.BLACKPOINTCOMPENSATION,
                )

    def __call__(self, cmyk: np.ndarray) -> np.ndarray:
        if self._transform is not None:
            from PIL import Image, ImageCms

            image = Image.fromarray(np.ascontiguousarray(cmyk), "CMYK")
            return np.asarray(ImageCms.applyTransform(image, self._transform))
        white = 255 - cmyk.astype(np.uint32)
        return ((white[..., :3] * white[..., 3:] + 127) // 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------------
# Reading


class PictureReader:
    """A page of a picture file that gives windows: reader[y0:y1, x0:x1].

    A window is (h, w) or (h, w, 3), uint8 or uint16, in the picture's own upright orientation.
    shape, dtype: of the whole page; icc: its ICC profile or None; info: its PageInfo.
    Raises LaffError when pixels cannot be decoded. Use as a context manager.
    """

    def __init__(self, name: str, plan: "_Plan", gray: bool):
        self.name = name
        self.info = plan.info if not gray else replace(plan.info, channels=1)
        # A profile of a colour picture says nothing about its grey version.
        self.icc = plan.icc if self.info.channels == plan.info.channels else None
        self.dtype = np.dtype(np.uint8 if self.info.bits == 8 else np.uint16)
        size = (self.info.height, self.info.width)
        self.shape = size if self.info.channels == 1 else (*size, 3)
        self.ndim = len(self.shape)
        self._plan = plan

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self._plan.close()

    def __getitem__(self, key) -> np.ndarray:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        y0, y1, step_y = rows.indices(self.shape[0])
        x0, x1, step_x = columns.indices(self.shape[1])
        if step_y != 1 or step_x != 1:
            raise IndexError("a picture is read by windows [y0:y1, x0:x1] without steps")
        if y1 <= y0 or x1 <= x0:
            return np.zeros((max(y1 - y0, 0), max(x1 - x0, 0), *self.shape[2:]), self.dtype)
        with _decoding(self.name):
            window = self._upright(y0, y1, x0, x1)
        if self.info.channels == 1 and window.ndim == 3:
            window = _luma(window)
        return np.ascontiguousarray(window, dtype=self.dtype)

    def _upright(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """The window of the upright picture, from the window of the stored one (TIFF 6.0, 274)."""
        orientation = self._plan.orientation
        swapped = orientation >= 5
        if swapped:
            y0, y1, x0, x1 = x0, x1, y0, y1
        height, width = self._plan.size
        from_bottom, from_right = orientation in (3, 4, 6, 7), orientation in (2, 3, 7, 8)
        if from_bottom:
            y0, y1 = height - y1, height - y0
        if from_right:
            x0, x1 = width - x1, width - x0
        window = self._plan.window(y0, y1, x0, x1)
        if from_bottom:
            window = window[::-1]
        if from_right:
            window = window[:, ::-1]
        return window.swapaxes(0, 1) if swapped else window


class _Plan:
    """How one page is read. Made from the header alone; pixels are decoded by window()."""

    def __init__(
        self,
        page: int,
        width: int,
        height: int,
        channels: int,
        bits: int,
        *,
        icc: bytes | None = None,
        orientation: int = 1,
    ):
        self.size = (height, width)
        self.orientation = orientation if orientation in range(1, 9) else 1
        self.icc = _usable_profile(icc, b"GRAY" if channels == 1 else b"RGB ")
        if self.orientation >= 5:
            width, height = height, width
        self.info = PageInfo(page, width, height, channels, bits)

    def window(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        raise NotImplementedError

    def close(self):
        pass


class _Source:
    """A picture's bytes, in a file or in memory, and what to call it in messages."""

    def __init__(self, path_or_bytes, name: str | None):
        self.data = None
        self.path = None
        if isinstance(path_or_bytes, bytes | bytearray | memoryview):
            self.data = bytes(path_or_bytes)
            self.name = name or "picture"
            self.nbytes = len(self.data)
        else:
            self.path = Path(path_or_bytes)
            self.name = name or str(path_or_bytes)
            try:
                if not self.path.is_file():
                    self.path.stat()  # says "No such file or directory" where that is the reason
                    raise LaffError(f"{self.name}: is not a file; name a picture file")
                self.nbytes = self.path.stat().st_size
            except OSError as exc:
                raise _os_error(
                    self.name, exc, "read", "check its name and that you may read it"
                ) from exc
            except ValueError as exc:  # a null byte in the name
                raise LaffError(f"{self.name!r}: is not a file name; check it") from exc
        if self.nbytes == 0:
            raise LaffError(f"{self.name}: is empty (0 bytes); copy it again from where it came")
        self.suffix = Path(self.name).suffix.lower()

    def open(self):
        if self.data is not None:
            return io.BytesIO(self.data)
        try:
            return open(self.path, "rb")
        except OSError as exc:
            raise _os_error(
                self.name, exc, "read", "check its name and that you may read it"
            ) from exc

    def kind(self) -> str:
        """The format, told by the first bytes; RAW is told by the name."""
        if self.suffix in RAW_EXTENSIONS:
            return "RAW"
        with self.open() as file:
            head = file.read(16)
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            return "PNG"
        if head.startswith(b"\xff\xd8\xff"):
            return "JPEG"
        if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            return "WEBP"
        if head.startswith(b"BM"):
            return "BMP"
        if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return "TIFF"
        raise LaffError(
            f"{self.name}: is not a picture that femto reads; convert it to TIFF, PNG, JPEG, WebP "
            "or BMP, or give a camera RAW file its own suffix (.dng, .nef, .cr2 ...)"
        )


def _check_size(name: str, width: int, height: int, *, whole: bool):
    if width < 1 or height < 1:
        raise LaffError(f"{name}: has no pixels ({width} x {height}); save it again")
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise LaffError(
            f"{name}: {width} x {height} pixels are more than femto takes "
            f"({MAX_SIDE} a side, {MAX_PIXELS} in all); cut it into parts"
        )
    if whole and width * height > MAX_WHOLE_PIXELS:
        raise LaffError(
            f"{name}: {width} x {height} pixels are too many for a format that must be decoded as "
            f"a whole ({MAX_WHOLE_PIXELS}); save it as a tiled TIFF or cut it into parts"
        )


def _check_promise(name: str, raw_nbytes: int, file_nbytes: int, expansion: int):
    # Small blank pictures can be a few bytes in any format, and do no harm.
    if raw_nbytes > file_nbytes * expansion + (1 << 24):
        raise LaffError(
            f"{name}: its header promises more pixels than {file_nbytes} bytes can hold; "
            "the file is damaged or cut short: copy it again"
        )


# PNG, JPEG, WebP, BMP ---------------------------------------------------------------------------


class _PillowPlan(_Plan):
    """A picture that Pillow reads; it decodes the whole of it at the first window."""

    def __init__(self, source: _Source, image, *, depth: int = 8):
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
            self._cmyk = _CmykToRgb(image.info.get("icc_profile"))
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
        flat = _on_white(colours[None], alpha[None])[0]
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
            return _on_white(colour, pixels[..., -1])
        if self._key is not None:
            pixels = pixels.copy()
            hidden = pixels == self._key
            pixels[hidden.all(axis=-1) if pixels.ndim == 3 else hidden] = np.iinfo(pixels.dtype).max
        return pixels[..., :3] if pixels.ndim == 3 else pixels

    def close(self):
        self._image.close()


class _Png16Plan(_Plan):
    """A 16-bit PNG with colour or alpha, which Pillow would cut down to 8 bits."""

    def __init__(self, source: _Source, image, colour_type: int):
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

            with self._source.open() as file, _silent_stderr():
                pixels = imagecodecs.png_decode(file.read())
            if pixels.dtype != np.uint16 or pixels.shape[:2] != self.size:
                raise ValueError(f"decoded to {pixels.dtype} {pixels.shape}")
            self._pixels = pixels
        pixels = self._pixels[y0:y1, x0:x1]
        if pixels.shape[2] == 2:
            return _on_white(pixels[..., 0], pixels[..., 1])
        if pixels.shape[2] == 4:
            return _on_white(pixels[..., :3], pixels[..., 3])
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


def _pillow_plan(source: _Source, kind: str) -> _Plan:
    from PIL import Image

    depth, colour_type = 8, None
    if kind == "PNG":
        with source.open() as file:
            head = file.read(26)
        if len(head) == 26:
            depth, colour_type = head[24], head[25]
    image = Image.open(source.open(), formats=[kind])
    width, height = image.size
    _check_size(source.name, width, height, whole=True)
    if kind in _EXPANSION:
        bands = {"1": 1 / 8, "L": depth / 8, "P": depth / 8, "I;16": 2}.get(
            image.mode, len(image.getbands())
        )
        _check_promise(source.name, int(width * height * bands), source.nbytes, _EXPANSION[kind])
    if depth == 16 and colour_type in (2, 4, 6):
        return _Png16Plan(source, image, colour_type)
    return _PillowPlan(source, image, depth=depth)


# Camera RAW -------------------------------------------------------------------------------------


class _RawPlan(_Plan):
    """A camera RAW picture, developed as a whole at the first window: 8-bit sRGB."""

    def __init__(self, source: _Source):
        import rawpy

        self._source = source
        self._pixels = None
        with self._opened(rawpy) as raw:
            sizes = raw.sizes
        height, width = sizes.iheight, sizes.iwidth
        if sizes.pixel_aspect and sizes.pixel_aspect != 1:
            # LibRaw's stretch(): the shorter side grows until pixels are square.
            if sizes.pixel_aspect < 1:
                height = int(height / sizes.pixel_aspect + 0.5)
            else:
                width = int(width * sizes.pixel_aspect + 0.5)
        if sizes.flip & 4:
            height, width = width, height
        _check_size(source.name, width, height, whole=True)
        super().__init__(0, width, height, 3, 8)

    @contextlib.contextmanager
    def _opened(self, rawpy):
        with self._source.open() as file, _silent_stderr(), rawpy.imread(file) as raw:
            yield raw

    def window(self, y0, y1, x0, x1):
        if self._pixels is None:
            import rawpy

            with self._opened(rawpy) as raw:
                pixels = raw.postprocess(
                    use_camera_wb=True,
                    output_color=rawpy.ColorSpace.sRGB,
                    gamma=(2.4, 12.92),
                    output_bps=8,
                )
            if pixels.ndim == 3 and pixels.shape[2] == 1:
                pixels = np.repeat(pixels, 3, axis=2)
            if pixels.shape != (*self.size, 3):
                raise ValueError(f"developed to {pixels.shape}, expected {self.size}")
            self._pixels = pixels
        return self._pixels[y0:y1, x0:x1]

    def close(self):
        self._pixels = None


# TIFF -------------------------------------------------------------------------------------------

# None, LZW, JPEG, deflate and PackBits: their decoders never print.
_SILENT_COMPRESSIONS = frozenset((1, 5, 7, 8, 32773, 32946))

# Strips and tiles of these (JPEG, JPEG 2000, PNG, WebP) are pictures with headers of their own.
_CODESTREAM_COMPRESSIONS = frozenset((7, 33003, 33004, 33005, 34712, 34933, 50001))

_PHOTOMETRIC_REFUSED = {
    4: "a transparency mask",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "a camera sensor's own pattern (give it its RAW suffix, such as .dng)",
    32844: "CIE Log L",
    32845: "CIE Log Luv",
    34892: "linear RAW (give it its RAW suffix, such as .dng)",
}


class _TiffPlan(_Plan):
    """One page of a TIFF. Decodes only the strips or tiles that a window touches."""

    def __init__(self, source: _Source, tif, page, number: int):
        self._source = source
        self._page = page
        self._file = tif.filehandle
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._cache_nbytes = 0
        width, height = int(page.imagewidth), int(page.imagelength)
        _check_size(source.name, width, height, whole=False)
        self._photometric = self._meaning(page)
        channels = 3 if self._photometric in (2, 3, 5, 6) else 1
        bits = 8 if self._bits <= 8 or self._photometric in (3, 5) else 16
        if self._photometric == 3:
            self._palette = self._colour_map(page)
            channels = 1 if self._palette.ndim == 1 else 3
        icc = page.iccprofile
        if self._photometric == 5:
            self._cmyk = _CmykToRgb(icc)
        super().__init__(
            number,
            width,
            height,
            channels,
            bits,
            icc=icc,
            orientation=_integer(page.tags.valueof(274, 1), 1),
        )
        self._lay_out(page)

    def _refuse(self, what: str, remedy: str) -> LaffError:
        return LaffError(f"{self._source.name}: {what}; {remedy}")

    def _meaning(self, page) -> int:
        """Check that the samples are what femto codes; the photometric interpretation."""
        self._bits = page.bitspersample
        self._samples = int(page.samplesperpixel)
        photometric = page.tags.valueof(262)
        if photometric is None:
            photometric = 2 if self._samples in (3, 4) else 1
        photometric = int(photometric)
        if photometric in _PHOTOMETRIC_REFUSED:
            raise self._refuse(
                f"its pixels are {_PHOTOMETRIC_REFUSED[photometric]}", "convert it to RGB first"
            )
        if photometric not in (0, 1, 2, 3, 5, 6):
            raise self._refuse(
                f"has the unknown photometric interpretation {photometric}", "convert it to RGB"
            )
        if int(page.sampleformat) == 3 or not isinstance(self._bits, int):
            kind = "floating-point" if int(page.sampleformat) == 3 else "unequal-depth"
            raise self._refuse(f"{kind} samples are not read", "convert it to 8 or 16 bits")
        if int(page.sampleformat) not in (1, 4):
            raise self._refuse("signed or complex samples are not read", "convert it to 16 bits")
        if not 1 <= self._bits <= 16:
            raise self._refuse(f"{self._bits}-bit samples are not read", "convert it to 16 bits")
        if page.imagedepth != 1 or page.tiledepth not in (0, 1):
            raise self._refuse("a volume is not a picture", "save its slices as pages")
        needed = {2: 3, 5: 4, 6: 3}.get(photometric, 1)
        extra = [int(kind) for kind in page.extrasamples] if page.extrasamples else []
        beyond = self._samples - needed
        if beyond < 0:
            raise self._refuse(
                f"has {self._samples} bands where its colour space needs {needed}", "save it again"
            )
        # An extra band is dropped only where the file itself says that it is alpha.
        self._alpha = extra[0] if beyond == 1 and extra and extra[0] in (1, 2) else 0
        if beyond and (not self._alpha or photometric in (3, 5)):
            raise self._refuse(
                f"has {self._samples} bands, and femto codes grey and RGB (with alpha if the file "
                "declares it)",
                "extract the bands that make the picture",
            )
        return photometric

    def _colour_map(self, page) -> np.ndarray:
        """The colour map, (2^bits, 3), or (2^bits,) where every entry is grey; uint8."""
        colours = page.colormap
        if colours is None or self._bits > 8 or colours.shape != (3, 1 << self._bits):
            raise self._refuse("its colour map is missing or of a wrong size", "save it again")
        # 16 bits a colour by the standard; some writers put 8.
        colours = colours.T
        colours = (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)
        grey = (colours == colours[:, :1]).all()
        return colours[:, 0].copy() if grey else colours

    def _lay_out(self, page):
        """Where the strips or tiles lie; raises LaffError if the file cannot hold them."""
        name = self._source.name
        height, width = self.size
        self._planes = self._samples if int(page.planarconfig) == 2 and self._samples > 1 else 1
        if page.is_tiled:
            tall, wide = int(page.tilelength), int(page.tilewidth)
        else:
            tall, wide = min(int(page.rowsperstrip), height), width
        if tall < 1 or wide < 1:
            raise self._refuse("its strips or tiles have no size", "save it again")
        self._segment = (tall, wide)
        rows, self._across = -(-height // tall), -(-width // wide)
        self._per_plane = rows * self._across
        count = self._per_plane * self._planes
        if len(page.dataoffsets) < count or len(page.databytecounts) < count:
            raise self._refuse("its table of strips or tiles is cut short", "copy the file again")
        offsets = np.array(page.dataoffsets[:count], dtype=np.uint64).astype(np.float64)
        nbytes = np.array(page.databytecounts[:count], dtype=np.uint64).astype(np.float64)
        if (offsets + nbytes > self._source.nbytes).any():
            raise self._refuse("its pixels lie beyond its end, it is cut short", "copy it again")

        compression = int(page.compression)
        in_pixel = self._samples if self._planes == 1 else 1
        row_nbytes = (wide * in_pixel * self._bits + 7) // 8
        full = np.full(count, tall * row_nbytes, np.float64)
        if not page.is_tiled and height % tall:
            full[rows - 1 :: rows] = height % tall * row_nbytes
        present = nbytes > 0
        self._mapped = None
        if compression == 1:
            short = present & (nbytes < full)
            if short.any() or not present.any():
                if page.is_subsampled:
                    return self._through_libtiff()
                raise self._refuse("holds fewer pixels than its header says", "copy it again")
            if self._map(page, offsets, full):
                return None
        elif compression in _TIFF_EXPANSION:
            _check_promise(
                name,
                float(full[present].sum()),
                min(float(nbytes.sum()), self._source.nbytes),
                _TIFF_EXPANSION[compression],
            )
        # One strip or tile is decoded as a whole, whatever the window.
        _check_size(name, wide, tall, whole=True)
        if page.is_subsampled and (compression not in (6, 7) or self._planes > 1):
            return self._through_libtiff()
        if compression == 6:
            return self._through_libtiff()
        self._whole = None
        return None

    def _through_libtiff(self):
        """Subsampled YCbCr and old-style JPEG: rare, and only libtiff (in Pillow) reads them."""
        _check_size(self._source.name, self.size[1], self.size[0], whole=True)
        if self._photometric not in (2, 6) or self._bits != 8:
            raise self._refuse("is of a kind that cannot be read", "save it again as RGB")
        self._whole = self._libtiff_pixels
        # Pillow turns a TIFF upright itself.
        self.size, self.orientation = (self.info.height, self.info.width), 1

    _whole = None
    _whole_pixels = None

    def _libtiff_pixels(self) -> np.ndarray:
        from PIL import Image, TiffImagePlugin

        with _silent_stderr():
            # Only libtiff knows subsampling; Pillow's own reader, for uncompressed files, does not.
            kept, TiffImagePlugin.READ_LIBTIFF = TiffImagePlugin.READ_LIBTIFF, True
            try:
                with Image.open(self._source.open(), formats=["TIFF"]) as image:
                    # Pillow counts all image file directories, also the reduced ones.
                    image.seek(self._page.index)
                    pixels = np.asarray(image.convert("RGB"))
            finally:
                TiffImagePlugin.READ_LIBTIFF = kept
        if pixels.shape[:2] != self.size:
            raise ValueError("its size is told in two ways")
        return pixels

    def _map(self, page, offsets, full) -> bool:
        """Map the pixels into memory, if they lie in one piece; whether they do."""
        if (
            page.is_tiled
            or self._bits not in (8, 16)
            or int(page.fillorder) != 1
            or int(page.predictor) != 1
            or page.is_subsampled
            or (offsets[1:] != offsets[:-1] + full[:-1]).any()
        ):
            return False
        dtype = np.dtype(f"{self._page.parent.byteorder}u{self._bits // 8}")
        height, width = self.size
        shape = (height, width, self._samples)
        if self._planes > 1:
            shape = (self._samples, height, width)
        offset = int(offsets[0])
        if self._source.data is not None:
            count = height * width * self._samples
            pixels = np.frombuffer(self._source.data, dtype, count, offset).reshape(shape)
        else:
            pixels = np.memmap(self._source.path, dtype, "r", offset, shape)
        self._mapped = pixels if self._planes == 1 else pixels.transpose(1, 2, 0)
        return True

    def _decoded(self, index: int) -> np.ndarray | None:
        """Strip or tile `index` as (h, w, samples), None if the file leaves it out."""
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
            nbytes = int(self._page.databytecounts[index])
            if nbytes == 0:
                return None
            self._file.seek(int(self._page.dataoffsets[index]))
            data = self._file.read(nbytes)
            if len(data) != nbytes:
                raise ValueError("cut short")
            self._check_codestream(data)
            talks = int(self._page.compression) not in _SILENT_COMPRESSIONS
            with _silent_stderr() if talks else contextlib.nullcontext():
                pixels, _, _ = self._page.decode(data, index, jpegtables=self._page.jpegtables)
            if pixels is None or pixels.ndim != 4:
                raise ValueError(f"strip or tile {index} has no pixels")
            pixels = pixels[0]
            if pixels.dtype == bool:
                pixels = pixels.view(np.uint8)
            if pixels.dtype.kind != "u" or pixels.dtype.itemsize > 2:
                raise ValueError(f"decoded to {pixels.dtype}")
            self._cache[index] = pixels
            self._cache_nbytes += pixels.nbytes
            while self._cache_nbytes > SEGMENT_CACHE_BYTES and len(self._cache) > 1:
                self._cache_nbytes -= self._cache.popitem(last=False)[1].nbytes
            return pixels

    def _check_codestream(self, data: bytes):
        """Refuse a strip or tile that is a larger picture than the page says, before decoding."""
        if int(self._page.compression) in _CODESTREAM_COMPRESSIONS:
            from PIL import Image

            # What Pillow cannot tell (12-bit JPEG, JPEG without its header) is left to the decoder.
            with contextlib.suppress(OSError, SyntaxError), Image.open(io.BytesIO(data)) as image:
                tall, wide = self._segment
                if image.width > wide or image.height > tall:
                    raise LaffError(
                        f"{self._source.name}: a strip or tile holds {image.width} x "
                        f"{image.height} pixels where {wide} x {tall} fit; save it again"
                    )

    def _stored(self, y0, y1, x0, x1) -> np.ndarray:
        """The window's samples as the file stores them: (h, w, samples), uint8 or uint16."""
        if self._whole is not None:
            if self._whole_pixels is None:
                self._whole_pixels = self._whole()
            return self._whole_pixels[y0:y1, x0:x1]
        if self._mapped is not None:
            pixels = self._mapped[y0:y1, x0:x1]
            return pixels.astype(pixels.dtype.newbyteorder("="))
        tall, wide = self._segment
        dtype = np.uint8 if self._bits <= 8 else np.uint16
        out = np.empty((y1 - y0, x1 - x0, self._samples), dtype)
        for plane in range(self._planes):
            target = out[..., plane : plane + 1] if self._planes > 1 else out
            for row in range(y0 // tall, -(-y1 // tall)):
                top = max(y0, row * tall)
                bottom = min(y1, (row + 1) * tall)
                for column in range(x0 // wide, -(-x1 // wide)):
                    left, right = max(x0, column * wide), min(x1, (column + 1) * wide)
                    into = target[top - y0 : bottom - y0, left - x0 : right - x0]
                    index = plane * self._per_plane + row * self._across + column
                    pixels = self._decoded(index)
                    if pixels is None:
                        into[...] = 0  # GDAL's sparse files: a missing tile is black
                        continue
                    part = pixels[
                        top - row * tall : bottom - row * tall,
                        left - column * wide : right - column * wide,
                    ]
                    if part.shape != into.shape:
                        raise ValueError(f"strip or tile {index} is {pixels.shape}")
                    into[...] = part
        return out

    def window(self, y0, y1, x0, x1):
        pixels = self._stored(y0, y1, x0, x1)
        if self._whole is not None:
            return pixels
        if self._photometric == 3:
            return self._palette[pixels[..., 0] & (len(self._palette) - 1)]
        pixels = _scale(pixels, self._bits)
        if self._photometric == 5:
            if pixels.dtype == np.uint16:
                pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
            return self._cmyk(pixels)
        channels = self.info.channels
        colour = pixels[..., :channels] if channels == 3 else pixels[..., 0]
        if self._photometric == 6 and int(self._page.compression) != 7:
            colour = _ycbcr_to_rgb(colour)
        if self._photometric == 0:
            colour = ~colour
        if self._alpha:
            return _on_white(colour, pixels[..., channels], premultiplied=self._alpha == 1)
        return colour

    def close(self):
        self._cache.clear()
        self._cache_nbytes = 0
        self._mapped = None
        self._whole_pixels = None
        self._page.parent.close()


def _ycbcr_to_rgb(ycbcr: np.ndarray) -> np.ndarray:
    """Full-range BT.601 YCbCr (JFIF) to RGB, same shape and type."""
    full = np.iinfo(ycbcr.dtype).max
    y, cb, cr = (ycbcr[..., i].astype(np.float64) for i in range(3))
    cb -= (full + 1) // 2
    cr -= (full + 1) // 2
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1)
    return np.clip(np.rint(rgb), 0, full).astype(ycbcr.dtype)


def _integer(value, default: int) -> int:
    return value if isinstance(value, int) else default


def _tiff_plans(source: _Source, only: int | None) -> list["_TiffPlan | PageInfo"]:
    """The plan of every page, or of page `only`; a PageInfo with its error for a bad one."""
    import tifffile

    # The file stays open until a plan is closed.
    tif = tifffile.TiffFile(source.open() if source.path is None else source.path)
    try:
        pages, offsets = [], set()
        for page in tif.pages:
            if page.offset in offsets:
                raise LaffError(f"{source.name}: its list of pages has no end; save it again")
            offsets.add(page.offset)
            if len(pages) >= MAX_PAGES:
                raise LaffError(f"{source.name}: more than {MAX_PAGES} pages; split the file")
            pages.append(page)
        # Thumbnails, pyramid levels and masks are not pages, unless there is nothing else.
        full = [p for p in pages if not (p.is_reduced or p.is_mask or p.is_subifd)] or pages[:1]
        if not full:
            raise LaffError(f"{source.name}: has no page; the file is damaged: copy it again")
        images = (tif.imagej_metadata or {}).get("images", 1) if tif.is_imagej else 1
        if isinstance(images, int) and images > len(pages):
            raise LaffError(
                f"{source.name}: an ImageJ stack that keeps {images} images under one page; "
                "save it as a multi-page TIFF"
            )
        if only is not None and not 0 <= only < len(full):
            raise LaffError(
                f"{source.name}: has no page {only}; its pages are 0 to {len(full) - 1}"
            )
        plans, errors = [], []
        for number, page in enumerate(full):
            if only is None or number == only:
                try:
                    with _decoding(source.name):
                        plans.append(_TiffPlan(source, tif, page, number))
                except LaffError as exc:
                    errors.append(exc)
                    size = (int(page.imagewidth), int(page.imagelength))
                    plans.append(PageInfo(number, *size, 1, 8, error=str(exc)))
        if len(errors) == len(plans):
            raise errors[0]
        return plans
    except BaseException:
        tif.close()
        raise


def _plans(source: _Source, page: int | None) -> list["_Plan | PageInfo"]:
    """A plan for every page, or for page `page`. Raises LaffError if none can be read."""
    kind = source.kind()
    if kind != "TIFF":
        if page not in (None, 0):
            raise LaffError(f"{source.name}: has no page {page}; its only page is 0")
        return [_RawPlan(source) if kind == "RAW" else _pillow_plan(source, kind)]
    return _tiff_plans(source, page)


def probe(path_or_bytes, *, name: str | None = None) -> list[PageInfo]:
    """The pictures of a file, told from its header: [PageInfo, ...], one per page.

    path_or_bytes: a path, or the file's bytes; name: what to call it in messages, and whose suffix
    tells camera RAW (default: the path). Raises LaffError if nothing in it can be read.
    """
    source = _Source(path_or_bytes, name)
    with _decoding(source.name):
        plans = _plans(source, None)
        infos = [plan if isinstance(plan, PageInfo) else plan.info for plan in plans]
        for plan in plans:
            if isinstance(plan, _Plan):
                plan.close()
    return infos


def open_page(
    path_or_bytes, page: int = 0, *, name: str | None = None, gray: bool = False
) -> PictureReader:
    """Open one page for reading by window; a context manager.

    page: as PageInfo.page; gray: convert colour to grey (BT.601 luma); path_or_bytes and name as
    for probe(). Strips and tiles of a TIFF are decoded as windows need them, uncompressed ones are
    mapped; other formats are decoded as a whole at the first window. Raises LaffError.
    """
    source = _Source(path_or_bytes, name)
    with _decoding(source.name):
        (plan,) = _plans(source, page)
        return PictureReader(source.name, plan, gray)


# ------------------------------------------------------------------------------------------------
# Writing

FORMATS = {".png": "png", ".tif": "tif", ".tiff": "tif", ".jpg": "jpg", ".jpeg": "jpg"}

_ADVICE = {
    28: "free some space or choose another folder",
    30: "choose another folder",
    122: "free some space or choose another folder",
}


def write_picture(
    path,
    bands_or_array,
    *,
    width: int,
    height: int,
    mode: str,
    bits: int,
    icc: bytes | None = None,
    format: str | None = None,
    overwrite: bool = True,
) -> bool:
    """Write a picture file; it appears under its name only when it is whole.

    bands_or_array: (h, w) or (h, w, 3), uint8 or uint16; or an iterable of bands (y, array), full
    rows from top to bottom, as femto.decode_bands gives. mode: "L" or "RGB"; bits: 8 or 16; icc:
    profile to embed; format: "png", "tif" or "jpg" (default: by the suffix). PNG and TIFF are
    written band by band; JPEG needs the whole picture and holds 8 bits, so 16 are rounded to 8.
    overwrite: whether another file of this name may be replaced. Returns False if the very same
    file was there already. Raises LaffError (unknown format, full disk, no permission, another
    file there, bands that do not fit).
    """
    path = Path(path)
    kind = format or FORMATS.get(path.suffix.lower())
    if kind not in ("png", "tif", "jpg"):
        raise LaffError(f"{path}: no format femto writes; use .png, .tif or .jpg")
    if isinstance(bands_or_array, np.ndarray):
        bands_or_array = [(0, bands_or_array)]
    bands = _checked_bands(str(path), bands_or_array, width, height, mode, bits)
    write = {"png": _write_png, "tif": _write_tiff, "jpg": _write_jpeg}[kind]
    try:
        with _quiet:
            return _write_whole(
                path, overwrite, lambda file: write(file, bands, width, height, mode, bits, icc)
            )
    except LaffError:
        raise
    except ImportError as exc:
        raise _missing(str(path), exc.name or str(exc)) from exc
    except OSError as exc:
        advice = _ADVICE.get(exc.errno, "check that the folder exists and that you may write there")
        raise _os_error(str(path), exc, "written", advice) from exc


def _checked_bands(name, bands, width, height, mode, bits) -> Iterator[np.ndarray]:
    shape = (width,) if mode == "L" else (width, 3)
    dtype = np.uint8 if bits == 8 else np.uint16
    expected = 0
    for y, band in bands:
        if y != expected or band.shape[1:] != shape or band.dtype != dtype:
            raise LaffError(
                f"{name}: band {y} {band.dtype} {band.shape} does not fit at row {expected} of "
                f"{width} x {height} {mode}, {bits} bits"
            )
        expected += len(band)
        yield band
    if expected != height:
        raise LaffError(f"{name}: {expected} rows came, {height} were announced")


def _write_whole(path: Path, overwrite: bool, write) -> bool:
    """Let write(file) fill a file that takes the name `path` at the end, or vanishes."""
    # Through a link to what it points to; and a device or a pipe cannot be replaced by a file.
    final = Path(os.path.realpath(path))
    if final.exists() and not final.is_file():
        with open(final, "wb") as file:
            write(file)
        return True
    part = final.with_name(f".{final.name[:100]}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with open(part, "xb") as file:
            write(file)
        if final.exists() and not overwrite:
            if not filecmp.cmp(part, final, shallow=False):
                raise LaffError(f"{path}: another file is there; overwrite it or choose a new name")
            part.unlink()
            return False
        os.replace(part, final)
        return True
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def _write_png(file, bands: Iterable[np.ndarray], width, height, mode, bits, icc):
    """PNG 1.2 as a stream; Pillow writes no 16-bit RGB and wants the whole picture at once."""

    def chunk(kind: bytes, data: bytes):
        file.write(struct.pack(">I", len(data)) + kind + data)
        file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))

    file.write(b"\x89PNG\r\n\x1a\n")
    chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0 if mode == "L" else 2, 0, 0, 0))
    if icc:
        chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc, 9))
    pixel = (1 if mode == "L" else 3) * bits // 8
    deflate = zlib.compressobj(6, zlib.DEFLATED, 15, 8, zlib.Z_FILTERED)
    above = np.zeros(width * pixel, np.uint8)
    for band in bands:
        rows = np.ascontiguousarray(band, dtype=band.dtype.newbyteorder(">"))
        rows = rows.view(np.uint8).reshape(len(band), -1)
        for top in range(0, len(rows), 64):
            part = rows[top : top + 64]
            data = deflate.compress(_filtered(part, above, pixel))
            above = part[-1]
            if data:
                chunk(b"IDAT", data)
    chunk(b"IDAT", deflate.flush())
    chunk(b"IEND", b"")


def _filtered(rows: np.ndarray, above: np.ndarray, pixel: int) -> bytes:
    """Rows (n, bytes) of a PNG, each by the filter with the least sum of absolute differences."""
    up = np.vstack([above[None], rows[:-1]])
    left = np.zeros_like(rows)
    left[:, pixel:] = rows[:, :-pixel]
    corner = np.zeros_like(rows)
    corner[:, pixel:] = up[:, :-pixel]
    a, b, c = left.astype(np.int16), up.astype(np.int16), corner.astype(np.int16)
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    paeth = np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, up, corner))
    average = ((a + b) >> 1).astype(np.uint8)
    choices = np.stack([rows, rows - left, rows - up, rows - average, rows - paeth])
    cost = np.abs(choices.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64)
    best = cost.argmin(axis=0)
    out = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    out[:, 0] = best
    out[:, 1:] = choices[best, np.arange(len(rows))]
    return out.tobytes()


def _write_tiff(file, bands: Iterable[np.ndarray], width, height, mode, bits, icc):
    """Deflate with horizontal prediction, in strips of about 1 MB."""
    try:
        import tifffile
    except ImportError:
        if bits != 8:
            raise
        # Pillow alone writes 8-bit TIFF, from the whole picture.
        _whole_image(bands, width, height, mode).save(
            file, "TIFF", compression="tiff_adobe_deflate", icc_profile=icc
        )
        return
    row_nbytes = width * (1 if mode == "L" else 3) * bits // 8
    strip = max(1, min(height, (1 << 20) // row_nbytes))
    big = row_nbytes * height > 3_900_000_000
    with tifffile.TiffWriter(file, byteorder="<", bigtiff=big) as tif:
        tif.write(
            (_predicted(rows) for rows in _strips(bands, strip)),
            shape=(height, width) if mode == "L" else (height, width, 3),
            dtype=np.uint8 if bits == 8 else np.uint16,
            photometric="minisblack" if mode == "L" else "rgb",
            rowsperstrip=strip,
            compression="zlib",
            predictor=True,
            iccprofile=icc,
            metadata=None,
            software=False,
        )


def _predicted(rows: np.ndarray) -> bytes:
    """A strip as it lies in the file: horizontal differences (TIFF 6.0, section 14), deflate."""
    # tifffile takes strips one by one only when they are compressed already.
    difference = rows.copy()
    difference[:, 1:] -= rows[:, :-1]
    return zlib.compress(difference.astype(rows.dtype.newbyteorder("<"), copy=False), 6)


def _strips(bands: Iterable[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """The same rows in pieces of `rows`, the last one shorter."""
    rest = None
    for band in bands:
        if rest is not None:
            band = np.concatenate([rest, band])
        whole = len(band) // rows * rows
        for top in range(0, whole, rows):
            yield band[top : top + rows]
        rest = band[whole:] if whole < len(band) else None
    if rest is not None:
        yield rest


def _write_jpeg(file, bands: Iterable[np.ndarray], width, height, mode, bits, icc):
    if max(width, height) > 65500:
        raise LaffError(
            f"{file.name}: JPEG holds at most 65500 pixels a side; write PNG or TIFF instead"
        )
    if bits == 16:
        bands = (((band.astype(np.uint32) + 128) // 257).astype(np.uint8) for band in bands)
    _whole_image(bands, width, height, mode).save(
        file, "JPEG", quality=95, subsampling=0, optimize=True, icc_profile=icc
    )


def _whole_image(bands: Iterable[np.ndarray], width, height, mode):
    from PIL import Image

    _check_size("the picture", width, height, whole=True)
    pixels = np.empty((height, width) if mode == "L" else (height, width, 3), np.uint8)
    y = 0
    for band in bands:
        pixels[y : y + len(band)] = band
        y += len(band)
    return Image.fromarray(pixels)
