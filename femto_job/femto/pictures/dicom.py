"""DICOM: a picture a frame, with the samples that are stored and what they stand for.

pydicom reads the header and samples that are not compressed or by RLE, imagecodecs the others.
Windowing is not applied.
"""

import io
from dataclasses import replace

import numpy as np

from ..errors import LaffError
from .common import MAX_PAGES, Source, check_promise, check_size, silent_stderr
from .metadata import MAX_SHARED_BYTES
from .page import PageInfo, StoredPage

_JPEG = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70))
_JPEG_LS = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (80, 81))
_JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 92, 93, 201, 202, 203))
_RLE, _DEFLATED = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.99"
_PLAIN = frozenset(("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"))
_PRINTED = 60


def _header(source: Source):
    """The data set without its pixels, and the file's bytes before them."""
    import pydicom

    with source.open() as file:
        data = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        end = file.tell()
        if _syntax(data) == _DEFLATED:
            made = io.BytesIO()
            pydicom.dcmwrite(made, data, enforce_file_format=False)
            return data, made.getvalue()
        file.seek(0)
        return data, file.read(end)


def _syntax(data) -> str:
    meta = getattr(data, "file_meta", None)
    return str(getattr(meta, "TransferSyntaxUID", "") or "1.2.840.10008.1.2")


def dicom_pages(source: Source, only: int | None) -> list[StoredPage]:
    """What reads every frame, or for frame `only`. Raises LaffError."""
    data, header = _header(source)
    if "Rows" not in data or "Columns" not in data:
        raise LaffError(f"{source.name}: a DICOM file without pixels; give one of a picture")
    count = int(data.get("NumberOfFrames") or 1)
    if not 1 <= count <= MAX_PAGES:
        raise LaffError(f"{source.name}: {count} frames; femto reads 1 to {MAX_PAGES} in a file")
    if only is not None and not 0 <= only < count:
        raise LaffError(f"{source.name}: has no page {only}; its pages are 0 to {count - 1}")
    shared = _Shared(source, data, header, count)
    return [DicomPage(shared, n) for n in (range(count) if only is None else [only])]


class _Shared:
    """What the frames of a file have in common. Raises LaffError for what is not coded."""

    def __init__(self, source: Source, data, header: bytes, count: int):
        self.source, self.data, self.header, self.count = source, data, header, count
        self.syntax = _syntax(data)
        self.width, self.height = int(data.Columns), int(data.Rows)
        self.samples = int(data.get("SamplesPerPixel", 1))
        self.allocated = int(data.get("BitsAllocated", 8))
        self.stored = int(data.get("BitsStored", self.allocated))
        self.signed = int(data.get("PixelRepresentation", 0)) == 1
        self.photometric = str(data.get("PhotometricInterpretation", "MONOCHROME2")).strip()
        check_size(source.name, self.width, self.height, whole=True)
        colours = 1 if self.photometric in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR") else 3
        known = self.syntax in _PLAIN | _JPEG | _JPEG_LS | _JPEG_2000
        for wrong, what, remedy in (
            (
                "FloatPixelData" in data or "DoubleFloatPixelData" in data,
                "floating-point samples are not read",
                "convert it to 16 bits",
            ),
            (
                not known and self.syntax not in (_RLE, _DEFLATED),
                f"its transfer syntax {self.syntax} is not read",
                "convert it to an uncompressed one",
            ),
            (
                self.samples != colours or (colours == 3 and not self._is_colour()),
                f"{self.samples} samples of {self.photometric} are not read",
                "convert it to RGB or MONOCHROME2",
            ),
            (
                self.allocated not in (1, 8, 16) or not 1 <= self.stored <= self.allocated,
                f"{self.stored} bits in {self.allocated} are not read",
                "convert it to 16 bits",
            ),
            (
                int(data.get("HighBit", self.stored - 1)) != self.stored - 1,
                "its samples do not end at the lowest bit",
                "convert it to a plain one",
            ),
            (
                colours == 3 and (self.stored not in (8, 16) or self.stored != self.allocated),
                f"colours of {self.stored} bits in {self.allocated}",
                "convert it to 8 bits",
            ),
            (self.signed and colours == 3, "signed colours", "convert it to RGB"),
        ):
            if wrong:
                raise LaffError(f"{source.name}: {what}; {remedy}")
        frame = self.width * self.height * self.samples * self.allocated / 8
        if self.syntax in _PLAIN:
            # Of chroma every second sample may be left out.
            least = frame * (2 / 3 if self.photometric.endswith("422") else 1)
            check_promise(source.name, least * self.count, source.nbytes, 1)
        else:
            check_promise(source.name, frame, source.nbytes, 65536)

    def _is_colour(self) -> bool:
        return self.photometric == "RGB" or self.photometric.startswith("YBR_")

    def lookup(self) -> tuple[int, int]:
        """Entries and bits of a palette."""
        entries, _, bits = (int(v) for v in self.data.RedPaletteColorLookupTableDescriptor)
        return entries or 65536, 16 if bits == 16 else 8


class DicomPage(StoredPage):
    """One frame."""

    def __init__(self, shared: _Shared, frame: int):
        self._shared, self._frame = shared, frame
        self._pixels = None
        data = shared.data
        palette = shared.photometric == "PALETTE COLOR"
        bits = shared.lookup()[1] if palette else max(shared.stored, 8)
        channels = 3 if palette or shared.samples == 3 else 1
        icc = data.get("ICCProfile")
        super().__init__(frame, shared.width, shared.height, channels, bits, icc=icc)
        self._shift = (1 << (shared.stored - 1)) if shared.signed else 0
        notes, mapping = [], None
        if channels == 1:
            mapping = self._mapping(data)
        if shared.photometric == "MONOCHROME1":
            notes.append("MONOCHROME1: inverted, so that 0 is black")
            if mapping is not None:
                notes.append("what its samples stand for is in the header alone")
                mapping = None
        if "ModalityLUTSequence" in data:
            notes.append("its modality lookup table is in the header alone")
        label = f"frame{frame + 1:04}" if shared.count > 1 else None
        self.info: PageInfo = replace(
            self.info, mapping=mapping, label=label, notes=(*self.info.notes, *notes)
        )

    def _mapping(self, data) -> dict | None:
        slope = float(data.get("RescaleSlope") or 1)
        intercept = float(data.get("RescaleIntercept") or 0)
        if slope == 1 and intercept == int(intercept):
            shift = int(intercept) - self._shift
            if shift == 0:
                return None
            fits = shift >= -32768 and (1 << self.info.bits) - 1 + shift <= 32767
            kind = "int16" if fits else "int32"
            return {"type": kind, "slope": 1, "intercept": shift}
        if not slope > 0:
            self.info = replace(
                self.info, notes=("what its samples stand for is in the header alone",)
            )
            return None
        intercept -= slope * self._shift
        return {"type": "float32", "slope": slope, "intercept": intercept}

    def window(self, y0, y1, x0, x1):
        if self._pixels is None:
            with silent_stderr():
                self._pixels = self._decoded()
        return self._pixels[y0:y1, x0:x1]

    def _decoded(self) -> np.ndarray:
        import pydicom

        shared = self._shared
        with shared.source.open() as file:
            if shared.syntax == _DEFLATED:  # as a whole, or not at all
                pixels = pydicom.pixels.pixel_array(
                    pydicom.dcmread(file, force=True), index=self._frame, raw=False
                )
            elif shared.syntax in _PLAIN or shared.syntax == _RLE:
                # Only this frame of the file is read.
                pixels = pydicom.pixels.pixel_array(
                    file, index=self._frame, raw=False, transfer_syntax_uid=shared.syntax
                )
            else:
                pixels = self._decompressed(file)
        shape = self.size if shared.samples == 1 else (*self.size, 3)
        if pixels.shape != shape:
            raise ValueError(f"decoded to {pixels.shape}")
        if shared.photometric == "PALETTE COLOR":
            pixels = pydicom.pixels.apply_color_lut(pixels, shared.data)
            return pixels.astype(np.uint8 if self.info.bits == 8 else np.uint16)
        if shared.samples == 3:
            return pixels.astype(np.uint8 if self.info.bits == 8 else np.uint16)
        return self._unsigned(pixels)

    def _unsigned(self, pixels: np.ndarray) -> np.ndarray:
        """Stored grey samples as those of the archive."""
        stored = self._shared.stored
        if stored == 1:
            values = (pixels != 0).astype(np.int32) * 255
            full = 255
        else:
            full = (1 << stored) - 1
            values = pixels.astype(np.int32)
            if self._shared.signed:
                # Decoders of codestreams give unsigned samples, or ones of too many bits.
                values = ((values & full) ^ self._shift) - self._shift + self._shift
        if values.min() < 0 or values.max() > full:
            raise ValueError(f"samples beyond its {stored} bits")
        if self._shared.photometric == "MONOCHROME1":
            values = full - values
        return values.astype(np.uint8 if self.info.bits == 8 else np.uint16)

    def _decompressed(self, file) -> np.ndarray:
        import imagecodecs
        from pydicom.encaps import get_frame

        shared = self._shared
        file.seek(len(shared.header))
        element = file.read(12)
        if element[:4] != b"\xe0\x7f\x10\x00" or element[8:] != b"\xff\xff\xff\xff":
            raise ValueError("it has no pixels")
        tables = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
        extended = tuple(shared.data.get(name) for name in tables)
        frame = get_frame(
            file,
            self._frame,
            extended_offsets=extended if all(extended) else None,
            number_of_frames=shared.count,
        )
        self._check_frame(frame)
        if shared.syntax in _JPEG:
            if shared.samples == 1:
                return imagecodecs.jpeg8_decode(frame)
            told = "RGB" if shared.photometric == "RGB" else "YCBCR"
            return imagecodecs.jpeg8_decode(frame, colorspace=told, outcolorspace="RGB")
        if shared.syntax in _JPEG_LS:
            pixels = imagecodecs.jpegls_decode(frame)
        else:
            pixels = imagecodecs.jpeg2k_decode(frame)
        if shared.photometric in ("YBR_FULL", "YBR_FULL_422") and shared.stored == 8:
            from pydicom.pixels import convert_color_space

            pixels = convert_color_space(pixels, "YBR_FULL", "RGB")
        return pixels

    def _check_frame(self, frame: bytes):
        """Refuse a codestream that is a larger picture than the header says, before decoding."""
        from PIL import Image

        try:
            with Image.open(io.BytesIO(frame)) as image:
                size = image.size
        except (OSError, SyntaxError, ValueError):
            size = self._size_by_marker(frame)
        if size is not None and size != (self._shared.width, self._shared.height):
            raise ValueError(f"its pixels are {size[0]} x {size[1]}")

    @staticmethod
    def _size_by_marker(frame: bytes) -> tuple[int, int] | None:
        """Width and height of JPEG and JPEG-LS that Pillow does not know."""
        at = 2
        while frame[at : at + 1] == b"\xff" and at + 9 <= len(frame):
            marker = frame[at + 1]
            if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
                height, width = (int.from_bytes(frame[i : i + 2], "big") for i in (at + 5, at + 7))
                return width, height
            at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
        return None

    def gather(self, found):
        """Metadata, see `metadata`."""
        header = self._shared.header
        if self._frame and len(header) > MAX_SHARED_BYTES:  # it may have grown with the frames
            found.note(f"header of {len(header)} bytes kept with the first frame alone")
        else:
            found.dicom(header)
        spacing = self._shared.data.get("PixelSpacing")
        if (
            spacing is not None
            and len(spacing) == 2
            and all(0.0001 < float(v) < 1e4 for v in spacing)
        ):
            down, across = (round(float(v) * 1e5) for v in spacing)
            found.resolution([1000000, across], [1000000, down], "cm")

    def close(self):
        self._pixels = None


def describe_header(header: bytes) -> dict[str, str]:
    """The elements of a header that are short values, by their names."""
    import pydicom

    told = {}
    data = pydicom.dcmread(io.BytesIO(header), force=True, stop_before_pixels=True)
    for element in data:
        if len(told) == _PRINTED:
            break
        if element.VR not in ("SQ", "OB", "OW", "OD", "OF", "OL", "OV", "UN") and element.value:
            name = element.keyword or str(element.tag)
            value = element.value
            several = isinstance(value, (list, pydicom.multival.MultiValue))
            told[name] = "; ".join(map(str, value)) if several else str(value)
    return told
