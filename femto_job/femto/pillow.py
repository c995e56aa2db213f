"""Archives in Pillow: after `import femto.pillow`, Image.open and Image.save know `.laff.gz`.

    import femto.pillow
    from PIL import Image

    with Image.open("photo.laff.gz") as image:  # its header alone
        image.thumbnail((256, 256))             # its first layers alone
    image.save("small.laff.gz", quality=80)

Reading. The mode is L, I;16 (grey of 9 to 16 bits) or RGB; of RGB with other bits than 8, which
Pillow does not have, the levels that the picture uses become 0 to 255. Grey samples that stand for
others become I (integers) or F (floating-point numbers), with the values that they stand for.
`draft`, and so `thumbnail`, and `reduce` by 2, 4 or 8 of a picture that is not yet loaded read the
first layers alone, see `scale` of `femto.decode`. `info` has `bits` and, if they are not all of
these, the `levels` that the picture uses; and what there is of `mapping`, what samples stand for,
`source`, `metadata`, which are femto's own (see femto/pictures/metadata.py), `icc_profile`, `exif`,
`xmp` and `dpi`. An archive of a basis of one's own finds it beside itself.

Other files raise UnidentifiedImageError, damaged archives OSError. Pillow's own limit of pixels
holds. With ImageFile.LOAD_TRUNCATED_IMAGES an archive that is cut short gives what its whole layers
show.

Writing. Modes L, RGB, I;16, I;16B, I and F; others raise OSError: convert them. Options are those
of `femto.encode`: quality, ratio, psnr, lossless, max_error, basis, effort, tune, bits, range,
source, metadata, strip_metadata, threads; and Pillow's exif, xmp, dpi and icc_profile, the last
also from `info`.
What femto.encode cannot use raises LaffError, which is a ValueError.
"""

import os
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from . import codec, container, samples
from .container import Archive, ByteStream, ImageHeader
from .errors import LaffError

__all__ = ["FORMAT", "LaffImageFile"]

FORMAT = "LAFF"
"""The name under which Pillow knows archives, for `format=` and `formats=`."""
SUFFIXES = (".laff", ".laff.gz")
_RAW = {"L": "L", "RGB": "RGB", "I;16": "I;16", "I": "I;32S", "F": "F;32F"}
_TYPES = {"L": "u1", "RGB": "u1", "I;16": "<u2", "I": "<i4", "F": "<f4"}
"""What `tobytes` gives of each mode, and Pillow's name for that."""
_WRITTEN = ("L", "RGB", "I;16", "I;16B", "I", "F")
_ENCODE = (
    "quality", "ratio", "psnr", "lossless", "max_error", "basis", "effort", "tune", "bits", "range",
    "source", "strip_metadata", "threads",
)  # fmt: skip


def _mode(header: ImageHeader) -> str:
    """Pillow's mode of an archive's picture. Raises OSError if it has none that holds it."""
    if header.channels == 3:
        return "RGB"
    mapping = header.mapping
    if mapping is None:
        return "L" if header.bits <= 8 else "I;16"
    if mapping["type"] in samples.FLOATS:
        return "F"
    ends = [level * mapping["slope"] + mapping["intercept"] for level in header.limits]
    if min(ends) < -(1 << 31) or max(ends) >= 1 << 31:
        raise OSError(
            f"samples of type {mapping['type']} from {min(ends)} to {max(ends)} fit no mode of "
            "Pillow's: use femto.decode"
        )
    return "I"


def _read(stream: ByteStream, name: str, scale: int) -> Archive:
    """As much of an archive as a picture `scale` times smaller takes. Raises LaffError."""
    found: Archive | None = None
    try:
        for found in container.arriving(stream, name):
            if scale > 1 and len(found.layers) == codec.small_layers(scale, found.passes):
                break
    except LaffError:
        if found is None or not ImageFile.LOAD_TRUNCATED_IMAGES:
            raise
    assert found is not None  # what has no layer is damaged
    return found


def _pixels(stream: ByteStream, name: str, scale: int, mode: str) -> NDArray[Any]:
    """The picture of an archive, as `mode` has it. Raises OSError."""
    try:
        archive = _read(stream, name, scale)
        header = archive.header
        # How many pixels are too many is Pillow's to say, and it has.
        pixels = codec.decode(archive, scale=scale, samples=mode == "RGB", max_pixels=None)
    except LaffError as error:
        raise OSError(str(error)) from None
    if mode == "RGB" and (header.bits != 8 or header.mapping is not None):
        pixels = samples.to_bytes(pixels, header.levels)
    return pixels.astype(_TYPES[mode], copy=False)


class LaffImageFile(ImageFile.ImageFile):
    """An archive that Pillow has opened; see the module."""

    format = FORMAT
    format_description = "femto archive"
    _scale = 1

    def _open(self) -> None:
        assert self.fp is not None
        if not container.is_archive(self.fp.read(1 << 12)):
            raise SyntaxError("not a .laff archive")
        self.fp.seek(0)
        self._name = os.fsdecode(self.filename) or "archive"
        try:
            header = container.read_header(self.fp, self._name).header
        except LaffError as error:
            raise OSError(str(error)) from None
        self._mode = _mode(header)
        self._whole = self._size = (header.width, header.height)
        self.info |= _info(header)
        self._set_tile()

    def _set_tile(self) -> None:
        self.tile = [("laff", (0, 0, *self._size), 0, (self._name, self._scale))]  # type: ignore[list-item]

    def draft(
        self, mode: str | None, size: tuple[int, int] | None
    ) -> tuple[str, tuple[int, int, float, float]] | None:
        """Have a smaller picture loaded, 2, 4 or 8 times smaller and no smaller than `size`, from
        the first layers; the mode stays. Returns the mode and which part of the new picture was
        the old one, or None once it is loaded."""
        if not self.tile or self._scale > 1:
            return None
        width, height = self._whole
        if size is not None:
            scale = min(width // max(size[0], 1), height // max(size[1], 1))
            self._scale = next(s for s in (8, 4, 2, 1) if s <= max(scale, 1))
        self._size = (-(-width // self._scale), -(-height // self._scale))
        self._set_tile()
        return self.mode, (0, 0, width / self._scale, height / self._scale)

    def reduce(
        self, factor: int | tuple[int, int], box: tuple[int, int, int, int] | None = None
    ) -> Image.Image:
        """A smaller picture; by 2, 4 or 8, while this one is not loaded, from the first layers."""
        scale = factor if isinstance(factor, int) else factor[0]
        known = factor in (scale, (scale, scale)) and scale in (2, 4, 8)
        if not known or box is not None or not self.tile or self._scale > 1 or self.fp is None:
            return super().reduce(factor, box)
        self.fp.seek(0)
        pixels = _pixels(self.fp, self._name, scale, self.mode)
        size = pixels.shape[1], pixels.shape[0]
        image = Image.frombytes(self.mode, size, pixels.tobytes(), "raw", _RAW[self.mode])
        image.info = self.info.copy()
        return image

    def verify(self) -> None:
        """Check all of the archive's checksums, without decoding. Raises OSError. As with other
        formats the picture must be opened again afterwards."""
        assert self.fp is not None
        self.fp.seek(0)
        try:
            for _ in container.arriving(self.fp, self._name):
                pass
        except LaffError as error:
            raise OSError(str(error)) from None
        finally:
            super().verify()


class _Decoder(ImageFile.PyDecoder):
    _pulls_fd = True

    def decode(self, buffer: Any) -> tuple[int, int]:
        assert self.fd is not None
        name, scale = self.args
        pixels = _pixels(self.fd, name, scale, self.mode)
        self.set_as_raw(pixels.tobytes(), _RAW[self.mode])
        return -1, 0


def _info(header: ImageHeader) -> dict[str | tuple[int, int], Any]:
    """What Pillow keeps of a picture beside its pixels. Archives come from strangers: what is not
    of its type or form is in `metadata` alone."""
    info: dict[str | tuple[int, int], Any] = {"bits": header.bits}
    if header.levels != samples.levels_of(header.bits):
        info["levels"] = tuple(header.levels)
    if header.mapping is not None:
        info["mapping"] = header.mapping
    if header.source is not None:
        info["source"] = header.source
    if header.icc:
        info["icc_profile"] = header.icc
    metadata = header.metadata
    if metadata is None:
        return info
    info["metadata"] = metadata
    exif = metadata.get("exif")
    if isinstance(exif, bytes) and exif[:4] in (b"II*\0", b"MM\0*"):
        info["exif"] = b"Exif\0\0" + exif
    xmp = metadata.get("xmp")
    if isinstance(xmp, str | bytes):
        info["xmp"] = xmp.encode("utf-8", "surrogatepass") if isinstance(xmp, str) else xmp
    try:
        *values, unit = metadata["resolution"]
        x, y = (v[0] / v[1] if isinstance(v, list) else float(v) for v in values)
        info["dpi"] = tuple(v * {"inch": 1.0, "cm": 2.54}[unit] for v in (x, y))
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError, OverflowError):
        pass  # none, or only their ratio matters
    return info


def _metadata(told: dict[str, Any]) -> dict[str, Any] | None:
    """femto's metadata of the options of Image.save."""
    metadata = dict(told.get("metadata") or {})
    exif = told.get("exif")
    if exif:
        block = exif.tobytes() if isinstance(exif, Image.Exif) else bytes(exif)
        metadata["exif"] = block.removeprefix(b"Exif\0\0")
    xmp = told.get("xmp")
    if xmp:
        try:
            metadata["xmp"] = xmp if isinstance(xmp, str) else bytes(xmp).decode()
        except UnicodeDecodeError:
            metadata["xmp"] = bytes(xmp)
    if told.get("dpi"):
        metadata["resolution"] = [*map(float, told["dpi"]), "inch"]
    return metadata or None


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    name = os.fsdecode(filename).lower()
    if name.endswith(".gz") and not name.endswith(SUFFIXES):
        raise ValueError(
            f"{name}: archives of pictures are called NAME.laff.gz: choose such a name"
        )
    if image.mode not in _WRITTEN:
        raise OSError(f"cannot write mode {image.mode} as {FORMAT}: convert it to RGB or L")
    told = image.encoderinfo
    file.write(
        codec.encode(
            np.asarray(image),
            icc=told.get("icc_profile", image.info.get("icc_profile")),
            metadata=_metadata(told),
            **{key: told[key] for key in _ENCODE if key in told},
        )
    )


def _accept(prefix: bytes) -> bool:
    return prefix[:2] == b"\x1f\x8b" or prefix.lstrip()[:1] == b"{"


Image.register_open(FORMAT, LaffImageFile, _accept)
Image.register_decoder("laff", _Decoder)
Image.register_save(FORMAT, _save)
# Of NAME.laff.gz Pillow looks at the last suffix; `_save` at the rest.
Image.register_extensions(FORMAT, [".laff", ".gz"])
Image.register_mime(FORMAT, "image/x-laff")
