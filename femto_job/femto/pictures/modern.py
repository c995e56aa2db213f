"""HEIC, AVIF of more than 8 bits, JPEG XL and JPEG 2000, by the libraries that read them best.

pillow-heif reads HEIC, imagecodecs the others. Each is decoded as a whole at the first window, with
the bits that its file says; 8-bit AVIF and JPEG 2000 are Pillow's business (see `pillow`).
"""

import struct
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .common import Source, check_promise, check_size, silent_stderr
from .metadata import orientation_of
from .page import Reading, StoredPage
from .pillow import pillow_page
from .pixels import scale

KINDS = frozenset(("HEIF", "AVIF", "JXL", "JPEG2000", "GIF"))
EXPANSION = 65536
"""The most raw bytes that a byte of such a file may stand for; photographs come nowhere near."""
_XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_EXIF_BOX = b"JpgTiffExif->JP2"


def modern_page(source: Source, kind: str, reading: Reading) -> StoredPage:
    """How a file of one of these kinds is read. Raises LaffError or what the libraries raise."""
    if kind == "HEIF":
        return _HeifPage(source, reading)
    if kind == "JXL":
        return _JpegXlPage(source, reading)
    if kind == "JPEG2000" and (size := _jpeg2000_size(source))[2] > 8:
        return _Jpeg2000Page(source, reading, *size)
    if kind == "AVIF" and (bits := _avif_bits(source)) > 8:
        return _AvifPage(source, reading, bits)
    return pillow_page(source, kind, reading)


class _WholePage(StoredPage):
    """Decodes all of it at the first window; _decode() gives (h, w[, samples]) of `bits` bits."""

    def __init__(self, source: Source, reading: Reading, width, height, samples, bits, **options):
        self._source = source
        self._blend = reading.alpha
        self._samples = samples
        self._pixels = None
        channels = 1 if samples < 3 else 3
        check_size(source.name, width, height, whole=True)
        nbytes = width * height * samples * (1 if bits <= 8 else 2)
        check_promise(source.name, nbytes, source.nbytes, EXPANSION)
        self._stored = bits
        super().__init__(0, width, height, channels, max(bits, 8), **options)
        if samples in (2, 4):
            self.note(
                "its transparency was blended with white (--no-alpha leaves it out)"
                if self._blend
                else "its transparency not archived"
            )

    def note(self, text: str):
        self.info = replace(self.info, notes=(*self.info.notes, text))

    def _decode(self) -> np.ndarray:
        raise NotImplementedError

    def window(self, y0, y1, x0, x1):
        if self._pixels is None:
            with silent_stderr():
                pixels = self._decode()
            if pixels.shape[:2] != self.size or pixels.dtype not in (np.uint8, np.uint16):
                raise ValueError(f"decoded to {pixels.dtype} {pixels.shape}")
            self._pixels = pixels.reshape(*self.size, -1)
            if self._stored < 8:
                self._pixels = scale(self._pixels, self._stored)
            if self._pixels.shape[2] != self._samples:
                raise ValueError(f"decoded to {pixels.shape}")
        pixels = self._pixels[y0:y1, x0:x1]
        colour = pixels[..., 0] if self.info.channels == 1 else pixels[..., :3]
        if pixels.shape[2] in (2, 4) and self._blend:
            full = np.uint32((1 << self.info.bits) - 1)
            alpha = (pixels[..., -1] if colour.ndim == 2 else pixels[..., -1:]).astype(np.uint32)
            mixed = colour * alpha + full * (full - alpha) + full // 2
            return (mixed // full).astype(pixels.dtype)
        return colour

    def close(self):
        self._pixels = None


class _HeifPage(_WholePage):
    """HEIC. libheif turns it upright, whatever its EXIF says."""

    def __init__(self, source: Source, reading: Reading):
        import pillow_heif

        with source.open() as file:
            data = file.read()
        self._file = pillow_heif.open_heif(
            data, convert_hdr_to_8bit=False, hdr_to_16bit=False, bgr_mode=False
        )
        self._facts = dict(self._file.info)
        samples = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[self._file.mode.partition(";")[0]]
        bits = int(self._facts.get("bit_depth", 8))
        super().__init__(
            source, reading, *self._file.size, samples, bits, icc=self._facts.get("icc_profile")
        )
        further = len(self._file) - 1
        if further:
            self.note(f"{further} further picture{'s' if further > 1 else ''} not archived")
        for key, what in (("depth_images", "depth map"), ("aux", "auxiliary picture")):
            count = len(self._facts.get(key) or ())
            if count:
                self.note(f"{count} {what}{'s' if count > 1 else ''} not archived")

    def _decode(self) -> np.ndarray:
        return np.asarray(self._file)

    def gather(self, found):
        """Metadata, see `metadata`."""
        if self._facts.get("exif"):
            found.exif(self._facts["exif"])
        if self._facts.get("xmp"):
            found.xmp(self._facts["xmp"])

    def close(self):
        super().close()
        self._file = None


def _avif_bits(source: Source) -> int:
    """The bits of an AVIF's samples, by the first codec configuration in it."""
    with source.open() as file:
        head = file.read(1 << 16)
    at = head.find(b"av1C")
    if at < 0 or at + 7 > len(head) or not head[at + 6] & 0x40:
        return 8
    return 12 if head[at + 6] & 0x20 else 10


class _AvifPage(_WholePage):
    """AVIF of 10 or 12 bits, which Pillow would cut down to 8."""

    def __init__(self, source: Source, reading: Reading, bits: int):
        from PIL import Image

        with Image.open(source.open(), formats=["AVIF"]) as image:
            samples = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[image.mode]
            super().__init__(
                source,
                reading,
                *image.size,
                samples,
                bits,
                icc=image.info.get("icc_profile"),
                orientation=orientation_of(image.info.get("exif")),
            )
            further = getattr(image, "n_frames", 1) - 1
        if further > 0:
            self.note(f"{further} further frame{'s' if further > 1 else ''} not archived")

    def _decode(self) -> np.ndarray:
        import imagecodecs

        with self._source.open() as file:
            return imagecodecs.avif_decode(file.read(), index=0)


# JPEG 2000 --------------------------------------------------------------------------------------


def boxes(source: Source, limit: int = 1000) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of an ISO file at its top: type, where its content begins and ends."""
    with source.open() as file:
        at = 0
        for _ in range(limit):
            file.seek(at)
            head = file.read(16)
            if len(head) < 8:
                return
            length, kind = struct.unpack(">I4s", head[:8])
            start = at + 8
            if length == 1 and len(head) == 16:
                (length,) = struct.unpack(">Q", head[8:])
                start += 8
            end = source.nbytes if length == 0 else at + length
            if end < start or end > source.nbytes:
                end = source.nbytes
            yield kind, start, end
            at = end


def _part(source: Source, start: int, nbytes: int) -> bytes:
    with source.open() as file:
        file.seek(start)
        return file.read(nbytes)


def _jpeg2000_size(source: Source) -> tuple[int, int, int, int]:
    """Width, height, bits and samples that a JPEG 2000 codestream promises."""
    start = 0
    if _part(source, 0, 2) != b"\xff\x4f":
        start = next((at for kind, at, _ in boxes(source) if kind == b"jp2c"), None)
        if start is None:
            raise ValueError("no codestream")
    head = _part(source, start, 4096)
    if head[:4] != b"\xff\x4f\xff\x51" or len(head) < 45:
        raise ValueError("no size")
    x1, y1, x0, y0 = struct.unpack_from(">4I", head, 8)
    (samples,) = struct.unpack_from(">H", head, 40)
    parts = head[42 : 42 + 3 * samples]
    depths = set(parts[::3])
    if samples > 4 or len(parts) < 3 * samples or any(depth & 0x80 for depth in depths):
        raise ValueError(f"{samples} bands, or signed ones")
    bits = max(depths) + 1
    if bits > 8 and (len(depths) > 1 or set(parts[1::3]) | set(parts[2::3]) != {1}):
        raise ValueError("bands of different depth or size")
    if bits > 16:
        raise ValueError(f"{bits} bits")
    return x1 - x0, y1 - y0, bits, samples


class _Jpeg2000Page(_WholePage):
    """JPEG 2000 of more than 8 bits."""

    def __init__(self, source: Source, reading: Reading, width, height, bits, samples):
        icc = None
        for kind, start, end in boxes(source):
            if kind == b"jp2h":
                header = _part(source, start, min(end - start, 1 << 22))
                at = header.find(b"colr")
                if at >= 4 and header[at + 4] == 2:
                    (length,) = struct.unpack_from(">I", header, at - 4)
                    icc = header[at + 7 : at - 4 + length]
                elif at >= 4 and header[at + 4 : at + 5] == b"\1":
                    (space,) = struct.unpack_from(">I", header, at + 7)
                    if space not in (16, 17):
                        raise ValueError(f"colour space {space} of more than 8 bits")
                if b"pclr" in header:
                    raise ValueError("a palette of more than 8 bits")
        super().__init__(source, reading, width, height, samples, bits, icc=icc)

    def _decode(self) -> np.ndarray:
        import imagecodecs

        with self._source.open() as file:
            return imagecodecs.jpeg2k_decode(file.read())

    def gather(self, found):
        """Metadata, see `metadata`."""
        from_boxes(self._source, found)


def from_boxes(source: Source, found) -> None:
    """Metadata of a file of boxes: JPEG 2000, JPEG XL."""
    if _part(source, 4, 4) not in (b"jP  ", b"JXL "):
        return
    for kind, start, end in boxes(source):
        if kind == b"brob":
            import imagecodecs

            kind = _part(source, start, 4)
            if kind not in (b"Exif", b"xml "):
                continue
            packed = _part(source, start + 4, min(end - start - 4, 1 << 23))
            data = imagecodecs.brotli_decode(packed, out=1 << 23)
        elif kind in (b"Exif", b"xml ", b"uuid"):
            data = _part(source, start, min(end - start, 1 << 24))
        else:
            continue
        if kind == b"Exif" and len(data) > 4:
            found.exif(data[4 + int.from_bytes(data[:4], "big") :])
        elif kind == b"xml ":
            found.xmp(data)
        elif data[:16] == _XMP_BOX:
            found.xmp(data[16:])
        elif data[:16] == _EXIF_BOX:
            found.exif(data[16:])
        elif kind == b"uuid":
            found.note("a private box not kept")


# JPEG XL ----------------------------------------------------------------------------------------


class _Bits:
    """Reads a JPEG XL header, least significant bits first."""

    def __init__(self, data: bytes):
        self._value, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def u(self, bits: int) -> int:
        self._left -= bits
        if self._left < 0:
            raise ValueError("its header is cut short")
        value, self._value = self._value & ((1 << bits) - 1), self._value >> bits
        return value

    def choice(self, *options: tuple[int, int]) -> int:
        """A number of one of four kinds: (what is added, bits)."""
        added, bits = options[self.u(2)]
        return added + self.u(bits)


def _jpeg_xl_size(read: _Bits) -> tuple[int, int]:
    lengths = ((1, 9), (1, 13), (1, 18), (1, 30))
    small = read.u(1)
    height = 8 * (1 + read.u(5)) if small else read.choice(*lengths)
    ratio = read.u(3)
    if ratio == 0:
        return (8 * (1 + read.u(5)) if small else read.choice(*lengths)), height
    up, down = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * up // down, height


def _jpeg_xl_depth(read: _Bits) -> int:
    if read.u(1):
        raise ValueError("floating-point samples")
    return read.choice((8, 0), (10, 0), (12, 0), (1, 6))


def _enumerated(read: _Bits) -> int:
    return read.choice((0, 0), (1, 0), (2, 4), (18, 6))


def _is_alpha(read: _Bits) -> bool:
    """Skip what is said of an extra channel; whether it is alpha."""
    if read.u(1):
        return True
    kind = _enumerated(read)
    _jpeg_xl_depth(read)
    read.choice((0, 0), (3, 0), (4, 0), (1, 3))
    read.u(8 * read.choice((0, 0), (0, 4), (16, 5), (48, 10)))
    if kind == 0 and read.u(1):
        raise ValueError("premultiplied alpha")
    if kind == 2:
        read.u(64)
    if kind == 5:
        read.choice((1, 0), (0, 2), (3, 4), (19, 8))
    return kind == 0


def jpeg_xl_header(data: bytes) -> dict:
    """What the beginning of a codestream says (ISO/IEC 18181-1, annex D): width and height
    (upright), samples of a pixel, bits; further: extra channels that are no alpha; animation:
    whether there are more frames; profile: whether it has an ICC profile. Raises ValueError for
    what femto does not code."""
    if data[:2] != b"\xff\x0a":
        raise ValueError("no codestream")
    read = _Bits(data[2:])
    width, height = _jpeg_xl_size(read)
    bits, alpha, further, orientation = 8, 0, 0, 1
    grey = animation = profile = False
    if not read.u(1):
        if read.u(1):
            orientation = 1 + read.u(3)
            if read.u(1):
                _jpeg_xl_size(read)
            if read.u(1):
                raise ValueError("a preview")
            animation = bool(read.u(1))
            if animation:
                read.choice((100, 0), (1000, 0), (1, 10), (1, 30))
                read.choice((1, 0), (1001, 0), (1, 8), (1, 10))
                read.choice((0, 0), (0, 3), (0, 16), (0, 32))
                read.u(1)
        bits = _jpeg_xl_depth(read)
        read.u(1)
        for _ in range(read.choice((0, 0), (1, 0), (2, 4), (1, 12))):
            if _is_alpha(read):
                alpha += 1
            else:
                further += 1
        read.u(1)
        if not read.u(1):
            profile = bool(read.u(1))
            grey = _enumerated(read) == 1
    if bits > 16 or alpha > 1:
        raise ValueError(f"{bits} bits, {alpha} alphas")
    if orientation >= 5:
        width, height = height, width
    samples = (1 if grey else 3) + alpha
    return {
        "width": width,
        "height": height,
        "samples": samples,
        "bits": bits,
        "further": further,
        "animation": animation,
        "profile": profile,
    }


class _JpegXlPage(_WholePage):
    """JPEG XL. libjxl turns it upright."""

    def __init__(self, source: Source, reading: Reading):
        start = 0
        if _part(source, 0, 2) != b"\xff\x0a":
            for kind, at, _ in boxes(source):
                if kind in (b"jxlc", b"jxlp"):
                    start = at + (4 if kind == b"jxlp" else 0)
                    break
        header = jpeg_xl_header(_part(source, start, 4096))
        size = (header["width"], header["height"], header["samples"], header["bits"])
        super().__init__(source, reading, *size)
        if header["animation"]:
            self.note("further frames not archived")
        if header["further"]:
            self.note(f"{header['further']} extra channels not archived")
        if header["profile"]:
            self.note("its colour profile not kept")

    def _decode(self) -> np.ndarray:
        import imagecodecs

        with self._source.open() as file:
            pixels = imagecodecs.jpegxl_decode(file.read())
        return pixels[0] if pixels.shape[1:3] == self.size else pixels

    def gather(self, found):
        """Metadata, see `metadata`."""
        from_boxes(self._source, found)
