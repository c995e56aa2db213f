"""TIFF and BigTIFF, by window."""

import contextlib
import io
import threading
from collections import OrderedDict

import numpy as np

from ..errors import LaffError
from .common import MAX_PAGES, Source, check_promise, check_size, decoding, silent_stderr
from .page import PageInfo, Plan, Reading
from .pixels import CmykToRgb, on_white, scale, ycbcr_to_rgb

# Decoded strips and tiles of a TIFF that are kept for the next window.
SEGMENT_CACHE_BYTES = 128 << 20

# The most raw bytes that one byte of a strip can stand for (see pillow.py). Deflate and PackBits
# have exact bounds; what is not named here is not checked.
_TIFF_EXPANSION = {
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


class _TiffPlan(Plan):
    """One page of a TIFF. Decodes only the strips or tiles that a window touches."""

    def __init__(self, source: Source, tif, page, number: int):
        self._source = source
        self._page = page
        self.ifd_offset = page.offset
        self._file = tif.filehandle
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._cache_nbytes = 0
        width, height = int(page.imagewidth), int(page.imagelength)
        check_size(source.name, width, height, whole=False)
        self._photometric = self._meaning(page)
        channels = 3 if self._photometric in (2, 3, 5, 6) else 1
        bits = 8 if self._bits <= 8 or self._photometric in (3, 5) else 16
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
            check_promise(
                name,
                float(full[present].sum()),
                min(float(nbytes.sum()), self._source.nbytes),
                _TIFF_EXPANSION[compression],
            )
        # One strip or tile is decoded as a whole, whatever the window.
        check_size(name, wide, tall, whole=True)
        if page.is_subsampled and (compression not in (6, 7) or self._planes > 1):
            return self._through_libtiff()
        if compression == 6:
            return self._through_libtiff()
        self._whole = None
        return None

    def _through_libtiff(self):
        """Subsampled YCbCr and old-style JPEG: rare, and only libtiff (in Pillow) reads them."""
        check_size(self._source.name, self.size[1], self.size[0], whole=True)
        if self._photometric not in (2, 6) or self._bits != 8:
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
            with silent_stderr() if talks else contextlib.nullcontext():
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
        pixels = scale(pixels, self._bits)
        if self._photometric == 5:
            if pixels.dtype == np.uint16:
                pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
            return self._cmyk(pixels)
        channels = self.info.channels
        colour = pixels[..., :channels] if channels == 3 else pixels[..., 0]
        if self._photometric == 6 and int(self._page.compression) != 7:
            colour = ycbcr_to_rgb(colour)
        if self._photometric == 0:
            colour = ~colour
        if self._alpha:
            return on_white(colour, pixels[..., channels], premultiplied=self._alpha == 1)
        return colour

    def close(self):
        self._cache.clear()
        self._cache_nbytes = 0
        self._mapped = None
        self._whole_pixels = None
        self._page.parent.close()


def _integer(value, default: int) -> int:
    return value if isinstance(value, int) else default


def tiff_plans(source: Source, reading: Reading, only: int | None) -> list["_TiffPlan | PageInfo"]:
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
                    with decoding(source.name):
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
