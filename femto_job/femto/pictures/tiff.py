"""TIFF and BigTIFF, by window."""

import contextlib
import io
import math
import threading
from collections import OrderedDict
from dataclasses import replace

import numpy as np

from ..errors import LaffError
from ..samples import levels_of, to_bytes
from .common import Source, check_promise, check_size, decoding, silent_stderr
from .page import MAPPED, PageInfo, Reading, StoredPage
from .pixels import CmykToRgb, on_white, scale, ycbcr_to_rgb
from .stacks import Plane, planes_of

# Decoded strips and tiles of a TIFF that are kept for the next window: so many bytes; where they
# are wider than a window, all that its rows touch, for its neighbour needs the same ones again.
SEGMENT_CACHE_BYTES = 128 << 20
MAX_SEGMENT_CACHE_BYTES = 1 << 30

# The most raw bytes that one byte of a strip can stand for (see pillow.py). Deflate and PackBits
# have exact bounds; what is not named here is not checked.
_EXPANSION = {
    5: 4096,  # LZW
    6: 8192,  # JPEG, old style
    7: 8192,  # JPEG
    8: 1100,  # deflate
    32946: 1100,
    32773: 64,  # PackBits
}

# None, LZW, JPEG, deflate and PackBits: their decoders never print.
_SILENT_COMPRESSIONS = frozenset((1, 5, 7, 8, 32773, 32946))

# Strips and tiles of these (JPEG, JPEG 2000, PNG, WebP) are pictures with headers of their own.
_CODESTREAM_COMPRESSIONS = frozenset((7, 33003, 33004, 33005, 34712, 34933, 50001))

# Of fax, 0 is white where nothing else is said.
_FAX_COMPRESSIONS = frozenset((2, 3, 4, 32771))

_PHOTOMETRIC_REFUSED = {
    4: "a transparency mask",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32844: "CIE Log L",
    32845: "CIE Log Luv",
}

_NEEDED_BANDS = {2: 3, 5: 4, 6: 3}

# A band that is called alpha is looked at in so many places; of transparency at least this share is
# opaque or clear.
_PLACES = 16
_TRANSPARENCY = 0.01

_NUMBERS = {1: "u", 2: "i", 3: "f", 4: "u"}


def _integer(value, default: int) -> int:
    """A tag's value of any integer type; some writers use BYTE or LONG where SHORT is meant."""
    if isinstance(value, bytes | tuple) and len(value):
        value = value[0]
    return int(value) if isinstance(value, int | np.integer) else default


def _photometric(page) -> int:
    """What the page says its samples mean, or what libtiff takes for it."""
    samples = int(page.samplesperpixel)
    fallback = 2 if samples in (3, 4) else 0 if int(page.compression) in _FAX_COMPRESSIONS else 1
    return _integer(page.tags.valueof(262), fallback)


def _bands_beyond(page) -> int:
    return int(page.samplesperpixel) - _NEEDED_BANDS.get(_photometric(page), 1)


def _extras(page) -> list[int]:
    return [int(kind) for kind in page.extrasamples] if page.extrasamples else []


def _choices(plane: Plane, reading: Reading) -> list[tuple[tuple[int, ...] | None, str]]:
    """The pictures that a plane becomes: bands (from 0, None: all, as the file means them), and
    what their label adds to the plane's."""
    samples, beyond = int(plane.page.samplesperpixel), _bands_beyond(plane.page)
    width = len(str(samples))
    if plane.split and samples > 1:
        return [((band,), f"c{band + 1:0{width}}") for band in range(samples)]
    if beyond <= 0 or reading.bands is None:
        return [(None, "")]
    if reading.bands == "each":
        return [((band,), f"b{band + 1:0{width}}") for band in range(samples)]
    return [(tuple(band - 1 for band in reading.bands), "")]


class _TiffPage(StoredPage):
    """One picture of a TIFF. Decodes only the strips or tiles that a window touches.

    file: the open file, which is closed with the page; bands: those that make the picture, or None:
    what the colour space says, and alpha.
    """

    def __init__(
        self,
        source: Source,
        file,
        plane: Plane,
        reading: Reading,
        bands: tuple[int, ...] | None,
        number: int,
        label: str | None,
    ):
        self._source = source
        self._page = page = plane.page
        self.ifd_offset = page.offset
        self._frame = plane.frame
        self._bands = bands
        self.file = file
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._cache_nbytes = 0
        self._kept_nbytes = SEGMENT_CACHE_BYTES
        self._notes = list(plane.notes)
        width, height = int(page.imagewidth), int(page.imagelength)
        check_size(source.name, width, height, whole=False)
        self._photometric = self._meaning(page, reading)
        channels = 3 if self._photometric in (2, 3, 5, 6) else 1
        # 9 to 15 bits keep their values.
        depth = max(8, self._bits) if self._plain or self._bits == 8 else 16
        depth = 8 if self._photometric in (3, 5) else depth
        if self._photometric == 3:
            self._palette = self._colour_map(page)
            channels = 1 if self._palette.ndim == 1 else 3
        icc = page.iccprofile
        if self._photometric == 5:
            self._cmyk = CmykToRgb(icc)
        super().__init__(
            number,
            width,
            height,
            channels,
            depth,
            icc=icc,
            orientation=_integer(page.tags.valueof(274), 1),
        )
        self._range = reading.range
        self._map_samples()
        self._lay_out(page)
        segment = None if self._flat else self._segment if self._whole is None else self.size
        if segment is not None and self.orientation >= 5:
            segment = segment[::-1]
        self.info = replace(self.info, label=label, notes=tuple(self._notes), segment=segment)

    def _refuse(self, what: str, remedy: str) -> LaffError:
        return LaffError(f"{self._source.name}: {what}; {remedy}")

    def _meaning(self, page, reading: Reading) -> int:
        """Check that the samples are what femto codes; the photometric interpretation."""
        self._bits = page.bitspersample
        self._samples = int(page.samplesperpixel)
        self._alpha = 0
        photometric = _photometric(page)
        if photometric in _PHOTOMETRIC_REFUSED:
            raise self._refuse(
                f"its pixels are {_PHOTOMETRIC_REFUSED[photometric]}", "convert it to RGB first"
            )
        if photometric not in (0, 1, 2, 3, 5, 6):
            raise self._refuse(
                f"has the unknown photometric interpretation {photometric}", "convert it to RGB"
            )
        if not isinstance(self._bits, int):
            raise self._refuse("unequal-depth samples are not read", "convert it to 8 or 16 bits")
        self._number = _NUMBERS.get(int(page.sampleformat))
        if self._number is None:
            raise self._refuse("complex samples are not read", "save their magnitude, or two bands")
        possible = {
            "u": 1 <= self._bits <= 32 or self._bits == 64,
            "i": self._bits in (8, 16, 32, 64),
            "f": self._bits in (16, 32, 64),
        }
        if not possible[self._number]:
            kind = {"u": "", "i": "signed ", "f": "floating-point "}[self._number]
            raise self._refuse(
                f"{self._bits}-bit {kind}samples are not read", "convert it to 16 bits"
            )
        if page.imagedepth != 1 or page.tiledepth not in (0, 1):
            raise self._refuse("a volume is not a picture", "save its slices as pages")
        if self._bands is not None:
            return self._chosen(photometric, reading.bands in (None, "each"))
        beyond = self._samples - _NEEDED_BANDS.get(photometric, 1)
        if beyond < 0:
            raise self._refuse(
                f"has {self._samples} bands where its colour space needs "
                f"{_NEEDED_BANDS[photometric]}",
                "save it again",
            )
        if beyond:
            self._say_alpha(page, photometric, beyond, reading)
        if not self._plain and photometric not in (0, 1, 2):
            raise self._refuse("its colours are not unsigned integers", "convert it to RGB")
        return photometric

    @property
    def has_high_offsets(self) -> bool:
        """Whether offsets have further 32 bits where only readers of Hamamatsu's NDPI look."""
        return self._page.parent.is_ndpi and self._source.nbytes >= 1 << 32

    @property
    def _plain(self) -> bool:
        """Whether samples are unsigned and at most 16 bits: coded as they are."""
        return self._number == "u" and self._bits <= 16

    def _chosen(self, photometric: int, each: bool) -> int:
        """What the bands mean that the caller chose; each: the others are pictures, too."""
        if max(self._bands) >= self._samples:
            raise self._refuse(
                f"has {self._samples} bands, and --bands asks for band {max(self._bands) + 1}",
                f"name bands from 1 to {self._samples}",
            )
        left = self._samples - len(set(self._bands))
        if left and not each:
            self._notes.append(f"{left} of {self._samples} bands not archived")
        inverted = photometric == 0
        return 2 if len(self._bands) == 3 else 0 if inverted else 1

    def _say_alpha(self, page, photometric: int, beyond: int, reading: Reading):
        """An extra band is alpha only where the file itself says so."""
        extras = _extras(page)
        alpha = extras[0] if beyond == 1 and extras and extras[0] in (1, 2) else 0
        if not alpha or photometric == 3:
            example = "3,2,1" if self._samples > 4 else "1,2,3" if self._samples > 2 else "1"
            choose = "" if photometric == 5 else f"choose with --bands {example}, or "
            raise self._refuse(
                f"has {self._samples} bands, and nothing says which of them make a picture",
                f"{choose}take every band with --bands each",
            )
        band = self._samples
        if not reading.alpha:
            self._notes.append(f"its alpha (band {band}) not archived")
            self._bands = tuple(range(self._samples - 1))
        elif photometric == 5 or not self._plain:
            raise self._refuse(
                f"has {self._samples} bands, the last of them transparency, which is not read here",
                "leave it out with --no-alpha",
            )
        else:
            self._alpha = alpha
            self._blended = (
                f"its alpha (band {band}) was blended with white (--no-alpha leaves it out)"
            )
            self._notes.append(self._blended)

    def _doubt_alpha(self):
        """Some programs declare any fourth band alpha, such as near infrared: what is almost
        nowhere opaque or clear is no transparency, and colours that were blended with it could not
        be had back. Told from some places, for tasks open a large page again and again."""
        height, width = self.size
        known, seen = 0, 0
        for place in range(_PLACES):
            y = (2 * place + 1) * height // (2 * _PLACES)
            x = (2 * (7 * place % _PLACES) + 1) * width // (2 * _PLACES)
            band = self._stored(y, min(height, y + 64), x, min(width, x + 64))[..., -1]
            known += int(((band == 0) | (band == (1 << self._bits) - 1)).sum())
            seen += band.size
        if known < _TRANSPARENCY * seen:
            self._alpha = 0
            self._notes[self._notes.index(self._blended)] = (
                f"band {self._samples}, which the file calls alpha, is almost nowhere opaque or "
                "clear: taken for a further band, not archived (--bands each keeps it)"
            )
            self.info = replace(self.info, notes=tuple(self._notes))

    def _colour_map(self, page) -> np.ndarray:
        """The colour map, (2^bits, 3), or (2^bits,) where every entry is grey; uint8."""
        colours = page.colormap
        if colours is None or not self._plain or colours.shape != (3, 1 << self._bits):
            raise self._refuse("its colour map is missing or of a wrong size", "save it again")
        # 16 bits a colour by the standard; some writers put 8.
        colours = colours.T
        colours = (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)
        grey = (colours == colours[:, :1]).all()
        return colours[:, 0].copy() if grey else colours

    # Samples that are not coded as they are

    def _map_samples(self):
        """What is known from the header of levels, and of the mapping of other types."""
        self._low, self._slope = 0.0, 1.0
        self._measured = not self._plain and (self._number == "f" or self._bits > 16)
        if self._plain:
            self._declare_levels()
        elif not self._measured:
            self._low = -float(1 << (self._bits - 1))
            self._tell_mapping()

    def _declare_levels(self):
        """Levels that the file says it uses (MinSampleValue, MaxSampleValue and their signed
        relatives), where they are fewer than its bits hold."""
        tags, top = self._page.tags, (1 << self._bits) - 1
        if self._bits <= 8 or self._photometric not in (0, 1, 2) or self._bands is not None:
            return
        for low_tag, high_tag in ((340, 341), (280, 281)):
            low, high = tags.valueof(low_tag), tags.valueof(high_tag)
            if high is None:
                continue
            with contextlib.suppress(TypeError, ValueError, OverflowError):
                low = int(np.min(0 if low is None else low))
                high = int(np.max(high))
                if 0 <= low < high <= top and (low, high) != (0, top):
                    if self._photometric == 0:
                        low, high = top - high, top - low
                    self.info = replace(self.info, levels=(low, high))
                    return

    def _tell_mapping(self, levels: tuple[int, int] | None = None):
        slope, low = self._slope, self._low
        if self._photometric == 0:  # sample s is kept as 65535 - s
            top = 255 if self.info.bits == 8 else 65535
            slope, low = -slope, low + top * slope
            levels = None if levels is None else (top - levels[1], top - levels[0])
        mapping = {"type": self._dtype.name, "slope": float(slope), "intercept": float(low)}
        self.info = replace(self.info, mapping=mapping, levels=levels)

    def measure(self):
        """Look at all samples once, where the mapping of 32-bit and floating-point ones needs it,
        and at some of what may be no transparency.

        Raises LaffError for integers that do not fit 16 bits without a range.
        """
        if self._alpha == 2:
            self._doubt_alpha()
        if not self._measured:
            return
        height, width = self.size
        least, most, strange, hidden, below, above = math.inf, -math.inf, 0, 0, 0, 0
        rows = max(1, min(height, (1 << 22) // max(1, width * self._samples)))
        nodata = self._nodata()
        for y in range(0, height, rows):
            values = self._stored(y, min(height, y + rows), 0, width)
            if self._number == "f":
                values = values.astype(np.float64)
                finite = np.isfinite(values)
                strange += values.size - int(finite.sum())
                values = values[finite]
            if nodata is not None:
                known = values != nodata
                hidden += values.size - int(known.sum())
                values = values[known]
            if values.size:
                least, most = min(least, values.min().item()), max(most, values.max().item())
                if self._range is not None:
                    below += int((values < self._range[0]).sum())
                    above += int((values > self._range[1]).sum())
        self._measured = False
        self._set_mapping(least, most, below + above)
        whole = f" of {height * width * (len(self._bands) if self._bands else self._samples)}"
        if strange:
            self._notes.append(f"{strange}{whole} samples that are no numbers became the least")
        if hidden:
            self._notes.append(f"{hidden}{whole} samples without data became the least")
        self.info = replace(self.info, notes=tuple(self._notes))

    def _set_mapping(self, least, most, outside: int):
        name = {"u": "unsigned", "i": "signed", "f": "floating-point"}[self._number]
        if least > most:
            least = most = 0  # not one sample is a number
        if self._number != "f" and most - least <= 65535:
            self._low = least
            return self._tell_mapping((0, max(1, most - least)))
        if self._range is not None:
            low, high = self._range
            if outside:
                self._notes.append(f"{outside} samples beyond {low:g} to {high:g} were clipped")
        elif self._number == "f":
            low, high = self._declared_range(least, most)
        else:
            raise self._refuse(
                f"its {self._bits}-bit {name} samples go from {least} to {most}, more than 16 bits "
                "hold",
                "say which of them matter with --range LOW HIGH, or convert it to 16 bits",
            )
        self._low = low
        self._slope = (high - low) / 65535 if high > low else 1.0
        if not 0 < self._slope < math.inf:
            raise self._refuse(
                f"its {name} samples from {low:g} to {high:g} cannot be mapped to 16 bits",
                "say which of them matter with --range LOW HIGH",
            )
        self._notes.append(f"{name} samples from {low:g} to {high:g} {MAPPED}")
        return self._tell_mapping()

    def _declared_range(self, least: float, most: float) -> tuple[float, float]:
        """The range that the file declares (SMinSampleValue, SMaxSampleValue) if it holds."""
        low, high = self._page.tags.valueof(340), self._page.tags.valueof(341)
        with contextlib.suppress(TypeError, ValueError):
            low, high = float(np.min(low)), float(np.max(high))
            if -math.inf < low <= least and most <= high < math.inf and low < high:
                return low, high
        return least, most

    def _nodata(self) -> int | float | None:
        """GDAL's nodata value, if samples can have it: what sparse tiles are made of."""
        text = self._page.tags.valueof(42113)
        if not isinstance(text, str):
            return None
        try:
            value = float(text.strip().strip("\0"))
        except ValueError:
            return None
        if self._number == "f":
            with np.errstate(over="ignore"):
                value = float(self._dtype.type(value))  # as rounded as the samples are
            return value if math.isfinite(value) else None
        limits = np.iinfo(self._dtype)
        fits = value == math.floor(value) if math.isfinite(value) else False
        return int(value) if fits and limits.min <= value <= limits.max else None

    @property
    def _dtype(self) -> np.dtype:
        """Of stored samples, in native byte order."""
        size = next(size for size in (1, 2, 4, 8) if self._bits <= 8 * size)
        return np.dtype(f"{self._number}{size}")

    def _to_levels(self, values: np.ndarray) -> np.ndarray:
        """Samples of other types, by the mapping."""
        if self._number != "f" and self._slope == 1.0:
            if self._bits <= 16:
                signed = np.dtype(f"u{values.itemsize}")
                return values.view(signed) ^ signed.type(1 << (self._bits - 1))
            top, low = 65535, int(self._low)
            if self._bits == 64:
                inside = np.clip(values, max(low, np.iinfo(values.dtype).min), None)
                return np.minimum(inside - values.dtype.type(low), top).astype(np.uint16)
            return np.clip(values.astype(np.int64) - low, 0, top).astype(np.uint16)
        with np.errstate(all="ignore"):
            levels = np.rint((values.astype(np.float64) - self._low) / self._slope)
            return np.nan_to_num(np.clip(levels, 0, 65535), nan=0.0).astype(np.uint16)

    # Where the pixels lie

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
        compression = int(page.compression)
        in_pixel = self._samples if self._planes == 1 else 1
        row_nbytes = (wide * in_pixel * self._bits + 7) // 8
        full = np.full(count, tall * row_nbytes, np.float64)
        if not page.is_tiled and height % tall:
            full[rows - 1 :: rows] = height % tall * row_nbytes
        offsets, nbytes = self._segments(page, count, full)
        self._whole = None
        present = nbytes > 0
        self._flat = False
        if compression == 1:
            short = present & (nbytes < full)
            if short.any() or not (present.any() or self._left_out_by_gdal(page)):
                if page.is_subsampled:
                    return self._through_libtiff()
                raise self._refuse("holds fewer pixels than its header says", "copy it again")
            self._flat = present.all() and self._lies_flat(page, offsets, full)
            if self._flat:
                return None
        elif compression in _EXPANSION:
            check_promise(
                name,
                float(full[present].sum()),
                min(float(nbytes.sum()), self._source.nbytes),
                _EXPANSION[compression],
            )
        # One strip or tile is decoded as a whole, whatever the window.
        check_size(name, wide, tall, whole=True)
        if page.is_subsampled and (compression not in (6, 7) or self._planes > 1):
            return self._through_libtiff()
        if compression == 6:
            return self._through_libtiff()
        return None

    def _left_out_by_gdal(self, page) -> bool:
        """Whether a file without any pixels means a picture of nothing but nodata."""
        return page.is_tiled and self._nodata() is not None

    def _segments(self, page, count: int, full: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Offsets and lengths of strips or tiles, mended where the pixels are there all the same;
        float64, so that no sum overflows.

        Lengths that the file gives as 0, too large or too small are common; what follows a strip
        (another one, the page's tags, the end of the file) tells how long it can be.
        """
        if len(page.dataoffsets) < count:
            raise self._refuse("its table of strips or tiles is cut short", "copy the file again")
        offsets = np.array(page.dataoffsets[:count], dtype=np.uint64).astype(np.float64)
        nbytes = np.zeros(count)
        given = np.array(page.databytecounts[:count], dtype=np.uint64).astype(np.float64)
        nbytes[: len(given)] = given
        if self._frame:
            step = full.sum()
            offsets += self._frame * step
        size = self._source.nbytes
        raw = int(page.compression) == 1 and not page.is_subsampled
        self._offsets, self._nbytes = offsets, nbytes
        if (nbytes >= (full if raw else 1)).all() and (offsets + nbytes <= size).all():
            return offsets, nbytes
        if ((offsets >= size) & (offsets + nbytes > 0)).any():
            raise self._refuse("its pixels lie beyond its end, it is cut short", "copy it again")
        room = self._rooms(page, offsets, full)
        wrong = (nbytes == 0) & (room > 0) | (offsets + nbytes > size)
        if raw:
            wrong |= (nbytes < full) & (room >= full) & (nbytes > 0)
            mended = np.where(wrong, np.minimum(room, full), nbytes)
        else:
            mended = np.where(wrong, np.minimum(room, size - offsets), nbytes)
        if raw and (offsets + np.minimum(mended, full) > size).any():
            raise self._refuse("its pixels lie beyond its end, it is cut short", "copy it again")
        if wrong.any():
            count, kind = int(wrong.sum()), "tile" if page.is_tiled else "strip"
            many = "" if count == 1 else "s"
            self._notes.append(f"wrong length{many} of {count} {kind}{many} mended")
        self._nbytes = mended
        return offsets, mended

    def _rooms(self, page, offsets: np.ndarray, full: np.ndarray) -> np.ndarray:
        """How many bytes each strip or tile can have, by what follows it."""
        size = self._source.nbytes
        if self._frame:
            return np.minimum(size - offsets, full)
        marks = np.unique(np.append(offsets, [page.offset, size]))
        room = marks[np.searchsorted(marks, offsets, side="right").clip(max=len(marks) - 1)]
        return np.where(offsets > 0, room - offsets, 0)

    def _through_libtiff(self):
        """Subsampled YCbCr and old-style JPEG: rare, and only libtiff (in Pillow) reads them."""
        check_size(self._source.name, self.size[1], self.size[0], whole=True)
        usual = self._photometric in (2, 6) and self._bits == 8 and not self._frame
        if not usual or len(self._page.treeindex) > 1:
            raise self._refuse("is of a kind that cannot be read", "save it again as RGB")
        self._whole = self._libtiff_pixels
        # Pillow turns a TIFF upright itself.
        self.size, self.orientation = (self.info.height, self.info.width), 1

    _whole = None
    _whole_pixels = None

    def _libtiff_pixels(self) -> np.ndarray:
        from PIL import Image, TiffImagePlugin

        with silent_stderr():
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

    def _lies_flat(self, page, offsets, full) -> bool:
        """Whether the pixels lie in one piece, so that any part of a row is read by itself. Not
        mapped into memory: a file that shrinks meanwhile would end the process."""
        return not (
            page.is_tiled
            or (self._bits > 16 and self._bits not in (32, 64))
            or int(page.fillorder) != 1
            or int(page.predictor) != 1
            or page.is_subsampled
            or (offsets[1:] != offsets[:-1] + full[:-1]).any()
        )

    def _flat_window(self, y0, y1, x0, x1, bands) -> np.ndarray:
        """The window of `bands`, or all, of pixels that lie in one piece; as _stored."""
        height, width = self.size
        dtype = self._dtype.newbyteorder(self._page.parent.byteorder)
        apart = self._planes > 1
        in_pixel = 1 if apart else self._samples
        planes = (range(self._samples) if bands is None else bands) if apart else (0,)
        # Eight samples are whole bytes, however few bits they have.
        packed = self._bits < 8 * dtype.itemsize
        left, right = (x0 - x0 % 8, min(width, x1 + -x1 % 8)) if packed else (x0, x1)
        row = (width * in_pixel * self._bits + 7) // 8
        nbytes = ((right - left) * in_pixel * self._bits + 7) // 8
        raw = np.empty((len(planes), y1 - y0, nbytes), np.uint8)
        for plane, part in zip(planes, raw, strict=True):
            at = int(self._offsets[0]) + (plane * height + y0) * row
            if nbytes == row:
                self._source.read_into(self.file, at, part)
            else:
                at += left * in_pixel * self._bits // 8
                self._source.read_rows(self.file, at, row, part)
        run = (right - left) * in_pixel
        if self._bits == 1:
            raw = np.unpackbits(raw, axis=-1, count=run)
        elif packed:
            import imagecodecs

            raw = imagecodecs.packints_decode(raw.ravel(), self._dtype, self._bits, runlen=run)
        else:
            raw = raw.view(dtype)
        out = raw.reshape(len(planes), y1 - y0, right - left, in_pixel)
        out = out[:, :, x0 - left : x1 - left]
        out = out[..., 0].transpose(1, 2, 0) if apart else out[0]
        if bands is not None and not apart:
            out = out[..., list(bands)]
        return out.astype(self._dtype, copy=False)

    # Decoding

    def _decoded(self, index: int) -> np.ndarray | None:
        """Strip or tile `index` as (h, w, samples), None if the file leaves it out."""
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
            nbytes = int(self._nbytes[index])
            if nbytes == 0:
                return None
            try:
                pixels = self._decoded_from(index, nbytes)
            except LaffError:
                raise
            except Exception:
                # Its length may be too small, or not even known: try all that can be its own.
                rooms = self._rooms(self._page, self._offsets, np.float64(self._raw_nbytes(index)))
                room = max(int(rooms[index]), nbytes)
                pixels = self._decoded_from(index, room, packed=True)
            self._cache[index] = pixels
            self._cache_nbytes += pixels.nbytes
            while self._cache_nbytes > self._kept_nbytes and len(self._cache) > 1:
                self._cache_nbytes -= self._cache.popitem(last=False)[1].nbytes
            return pixels

    def _decoded_from(self, index: int, nbytes: int, *, packed: bool = False) -> np.ndarray:
        """The same from `nbytes` of the file; packed: more may follow than PackBits allows."""
        data = self._source.bytes_at(self.file, int(self._offsets[index]), nbytes)
        if packed and int(self._page.compression) == 32773:
            data = _first_packbits(data, self._raw_nbytes(index))
        self._check_codestream(data)
        pixels = self._decompressed(data, index)
        whole = self._page.jpegheader is None  # Hamamatsu's tiles are parts of one JPEG
        if whole and int(self._page.compression) == 7 and data.rfind(b"\xff\xd9") < 0:
            self._check_jpeg_end(data, index)
        return pixels

    def _raw_nbytes(self, index: int) -> int:
        tall, wide = self._segment
        if not self._page.is_tiled:
            row = index % self._per_plane
            tall = min(tall, self.size[0] - row * tall)
        in_pixel = self._samples if self._planes == 1 else 1
        return tall * ((wide * in_pixel * self._bits + 7) // 8)

    def _decompressed(self, data: bytes, index: int) -> np.ndarray:
        talks = int(self._page.compression) not in _SILENT_COMPRESSIONS
        with silent_stderr() if talks else contextlib.nullcontext():
            options = {"jpegtables": self._page.jpegtables}
            if self._page.jpegheader is not None:
                options["jpegheader"] = self._page.jpegheader
            pixels, _, _ = self._page.decode(data, index, **options)
        if pixels is None or pixels.ndim != 4:
            raise ValueError(f"strip or tile {index} has no pixels")
        pixels = pixels[0]
        if pixels.dtype == bool:
            pixels = pixels.view(np.uint8)
        wanted = self._dtype
        if pixels.dtype.kind != wanted.kind or pixels.dtype.itemsize > wanted.itemsize:
            raise ValueError(f"decoded to {pixels.dtype}")
        return pixels

    def _check_jpeg_end(self, data: bytes, index: int):
        """Refuse a JPEG strip without its end, unless only the mark of the end is missing.

        libjpeg makes up what is missing and says nothing; but what it makes up depends on what
        follows, and whole pixels do not.
        """
        tails = (b"\0" * 64 + b"\xff\xd9", b"\x55\xaa" * 32 + b"\xff\xd9")
        first, second = (self._decompressed(data + tail, index) for tail in tails)
        if not np.array_equal(first, second):
            raise self._refuse(
                f"strip or tile {index} ends before its pixels do, it is cut short", "copy it again"
            )

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
        """The window's samples as the file stores them, of the chosen bands: (h, w, bands)."""
        bands = range(self._samples) if self._bands is None else self._bands
        if self._flat:
            return self._flat_window(y0, y1, x0, x1, self._bands)
        tall, wide = self._segment
        apart = self._planes > 1
        if wide > x1 - x0:
            touched = (-(-y1 // tall) - y0 // tall) * tall * self._across * wide
            touched *= self._samples * self._dtype.itemsize
            self._kept_nbytes = max(SEGMENT_CACHE_BYTES, min(MAX_SEGMENT_CACHE_BYTES, touched))
        out = np.empty((y1 - y0, x1 - x0, len(bands) if apart else self._samples), self._dtype)
        for place, plane in enumerate(bands if apart else (0,)):
            target = out[..., place : place + 1] if apart else out
            for row in range(y0 // tall, -(-y1 // tall)):
                top = max(y0, row * tall)
                bottom = min(y1, (row + 1) * tall)
                for column in range(x0 // wide, -(-x1 // wide)):
                    left, right = max(x0, column * wide), min(x1, (column + 1) * wide)
                    into = target[top - y0 : bottom - y0, left - x0 : right - x0]
                    index = plane * self._per_plane + row * self._across + column
                    pixels = self._decoded(index)
                    if pixels is None:
                        into[...] = self._nodata() or 0
                        continue
                    part = pixels[
                        top - row * tall : bottom - row * tall,
                        left - column * wide : right - column * wide,
                    ]
                    if part.shape != into.shape:
                        raise ValueError(f"strip or tile {index} is {pixels.shape}")
                    into[...] = part
        return out if apart or self._bands is None else out[..., list(bands)]

    def window(self, y0, y1, x0, x1):
        if self._whole is not None:
            if self._whole_pixels is None:
                self._whole_pixels = self._whole()
            return self._whole_pixels[y0:y1, x0:x1]
        pixels = self._stored(y0, y1, x0, x1)
        if self._photometric == 3:
            return self._palette[pixels[..., 0] & (len(self._palette) - 1)]
        if not self._plain:
            pixels = self._to_levels(pixels)
        elif self._bits < 8 or self._photometric == 5:
            pixels = scale(pixels, self._bits)
        if self._photometric == 5:
            if pixels.dtype == np.uint16:
                pixels = to_bytes(pixels, levels_of(16))
            return self._cmyk(pixels)
        channels = self.info.channels
        colour = pixels[..., :channels] if channels == 3 else pixels[..., 0]
        if self._photometric == 6 and (int(self._page.compression) != 7 or self._planes > 1):
            colour = ycbcr_to_rgb(
                colour,
                self.info.bits,
                self._page.tags.valueof(529),
                self._page.tags.valueof(532),
                self._bits,
            )
        if self._photometric == 0:
            colour = colour.dtype.type((1 << self.info.bits) - 1) - colour
        if self._alpha:
            return on_white(
                colour, pixels[..., channels], self.info.bits, premultiplied=self._alpha == 1
            )
        return colour

    def close(self):
        self._cache.clear()
        self._cache_nbytes = 0
        self._whole_pixels = None
        self._page.parent.close()
        self.file.close()


def _first_packbits(data: bytes, nbytes: int) -> bytes:
    """As much of PackBits data (TIFF 6.0, section 9) as stands for `nbytes`."""
    at = done = 0
    while done < nbytes and at < len(data):
        code = data[at]
        if code < 128:
            done += code + 1
            at += code + 2
        else:
            done += 257 - code if code > 128 else 0
            at += 2 if code > 128 else 1
    return data[:at]


def _place(source: Source, tif, plane: Plane, bands, label: str | None) -> dict | None:
    """Where a picture lies, for _page_at(); None where tifffile needs the whole file to know."""
    if tif.is_lsm or tif.is_ndpi or tif.is_scanimage or not hasattr(plane.page, "tags"):
        return None
    return {
        "file": [source.nbytes, source.mtime_ns],
        "directory": plane.page.offset,
        "index": list(plane.page.treeindex),
        "frame": plane.frame,
        "bands": None if bands is None else list(bands),
        "label": label,
        "notes": list(plane.notes),
    }


def _is_same(source: Source, place: dict) -> bool:
    """Whether this is the file, as far as can be told, that a place was told of."""
    nbytes, mtime_ns = place["file"]
    return nbytes == source.nbytes and (
        None in (mtime_ns, source.mtime_ns) or (mtime_ns == source.mtime_ns)
    )


def _page_at(source: Source, reading: Reading, number: int, place: dict) -> "_TiffPage":
    """What reads the picture at a place: only its own directory, and the first, are read."""
    import tifffile

    file = source.open()
    try:
        tif = tifffile.TiffFile(file, name=source.name, _multifile=False)
        index = place["index"]
        file.seek(place["directory"])
        page = tifffile.TiffPage(tif, index=index if len(index) > 1 else index[0])
        plane = Plane(page, place["frame"], notes=tuple(place["notes"]))
        bands = None if place["bands"] is None else tuple(place["bands"])
        return _TiffPage(source, file, plane, reading, bands, number, place["label"])
    except BaseException:
        file.close()
        raise


def tiff_pages(
    source: Source, reading: Reading, only: int | None, place: dict | None = None
) -> list["_TiffPage | PageInfo"] | None:
    """What reads every picture, or picture `only`; a PageInfo with its error for a bad one.

    None if the file is a camera's RAW file.
    """
    import tifffile

    if only is not None and place is not None and _is_same(source, place):
        return [_page_at(source, reading, only, place)]

    # The file stays open until a page is closed. OME-TIFF may name further files; none is opened.
    file = source.open()
    try:
        tif = tifffile.TiffFile(file, name=source.name, _multifile=False)
        planes = planes_of(source, tif)
        if planes is None:
            file.close()
            return None
        found = [(plane, *choice) for plane in planes for choice in _choices(plane, reading)]
        if only is not None and not 0 <= only < len(found):
            raise LaffError(
                f"{source.name}: has no page {only}; its pages are 0 to {len(found) - 1}"
            )
        pages, errors = [], []
        numbers = {id(plane): number for number, plane in enumerate(planes, 1)}
        for number, (plane, bands, band_label) in enumerate(found):
            if only is None or number == only:
                label = _joined_label(plane, band_label, numbers)
                try:
                    with decoding(source.name):
                        stored = _TiffPage(source, file, plane, reading, bands, number, label)
                    if len(found) > 1:
                        place = _place(source, tif, plane, bands, label)
                        stored.info = replace(stored.info, place=place)
                    pages.append(stored)
                except LaffError as exc:
                    errors.append(exc)
                    size = (int(plane.page.imagewidth), int(plane.page.imagelength))
                    pages.append(PageInfo(number, *size, 1, 8, error=str(exc), label=label))
        if len(errors) == len(pages):
            raise errors[0]
        return pages
    except BaseException:
        file.close()
        raise


def _joined_label(plane: Plane, band: str, numbers: dict[int, int]) -> str | None:
    """The label of a plane's bands; that of a plane without one tells which page it is."""
    if not band or plane.label:
        return (plane.label or "") + band or None
    return band if len(numbers) == 1 else f"page-{numbers[id(plane)]:04}.{band}"
