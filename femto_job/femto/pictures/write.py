"""Writing PNG, TIFF, JPEG and WebP."""

import filecmp
import io
import itertools
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import LaffError
from ..files.whole import whole_file
from ..samples import Levels, dtype_of, levels_of, to_bytes
from .common import check_size, missing, os_error, quiet
from .embedding import for_jpeg, for_png, for_tiff, for_webp
from .ifd import Tag, number, tree

if TYPE_CHECKING:
    from PIL import Image

FORMATS = {
    ".png": "png",
    ".tif": "tif",
    ".tiff": "tif",
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".webp": "webp",
}

_ADVICE = {
    28: "free some space or choose another folder",
    30: "choose another folder",
    122: "free some space or choose another folder",
}


def write_picture(
    path: str | os.PathLike[str],
    bands_or_array: NDArray[Any] | Iterable[tuple[int, NDArray[Any]]],
    *,
    width: int,
    height: int,
    mode: str,
    bits: int,
    icc: bytes | None = None,
    metadata: dict[str, Any] | None = None,
    format: str | None = None,
    overwrite: bool = True,
    levels: tuple[int, int] | None = None,
    dtype: Any = None,
) -> bool:
    """Write a picture file; it appears under its name only when it is whole.

    bands_or_array: (h, w) or (h, w, 3), uint8 or uint16; or an iterable of bands (y, array), full
    rows from top to bottom, as femto.decode_bands gives. mode: "L" or "RGB"; bits: 1 to 16; icc:
    profile to embed; metadata: see the module `metadata`, of which the file gets what its format
    holds (`embedding.unheld` tells the rest); format: "png", "tif", "jpg" or "webp" (default: by
    the suffix). PNG and TIFF are written band by band; JPEG and WebP (lossless) need the whole
    picture and hold 8 bits, so the levels are stretched to these.
    levels: that the picture uses, all that its bits have if None; PNG and TIFF get the samples as
    they are, whatever these are. dtype: of TIFF, if not uint8 or uint16.
    overwrite: whether another file of this name may be replaced. Returns False if the very same
    file was there already. Raises LaffError (unknown format, full disk, no permission, another
    file there, bands that do not fit).
    """
    path = Path(path)
    kind = format or FORMATS.get(path.suffix.lower())
    if kind is None or kind not in FORMATS.values():
        raise LaffError(f"{path}: no format femto writes; use .png, .tif, .jpg or .webp")
    if isinstance(bands_or_array, np.ndarray):
        bands_or_array = [(0, bands_or_array)]
    bands = _checked_bands(str(path), bands_or_array, width, height, mode, dtype or dtype_of(bits))
    used = Levels(*(levels or levels_of(bits)))
    write = {"png": _write_png, "tif": _write_tiff, "jpg": _write_jpeg, "webp": _write_webp}[kind]
    try:
        with quiet:
            return _write_whole(
                path,
                overwrite,
                lambda file: write(file, bands, width, height, mode, used, icc, metadata or {}),
            )
    except LaffError:
        raise
    except ImportError as exc:
        raise missing(str(path), exc.name or str(exc)) from exc
    except OSError as exc:
        advice = _ADVICE.get(
            exc.errno or 0, "check that the folder exists and that you may write there"
        )
        raise os_error(str(path), exc, "written", advice) from exc


def _checked_bands(
    name: str,
    bands: Iterable[tuple[int, NDArray[Any]]],
    width: int,
    height: int,
    mode: str,
    dtype: Any,
) -> Iterator[NDArray[Any]]:
    shape: tuple[int, ...] = (width,) if mode == "L" else (width, 3)
    expected = 0
    for y, band in bands:
        if y != expected or band.shape[1:] != shape or band.dtype != dtype:
            raise LaffError(
                f"{name}: band {y} {band.dtype} {band.shape} does not fit at row {expected} of "
                f"{width} x {height} {mode}, {np.dtype(dtype)}"
            )
        expected += len(band)
        yield band
    if expected != height:
        raise LaffError(f"{name}: {expected} rows came, {height} were announced")


def _write_whole(path: Path, overwrite: bool, write: Callable[[BinaryIO], None]) -> bool:
    """Let write(file) fill a file that takes the name `path` at the end, or vanishes."""
    # Through a link to what it points to; and a device or a pipe cannot be replaced by a file.
    final = Path(os.path.realpath(path))
    if final.exists() and not final.is_file():
        with open(final, "wb") as device:
            write(device)
        return True

    def check(part: Path) -> None:
        if final.exists() and not overwrite:
            if filecmp.cmp(part, final, shallow=False):
                raise _Same
            raise LaffError(f"{path}: another file is there; overwrite it or choose a new name")

    try:
        with whole_file(final, below=final.parent, before_rename=check) as file:
            write(file)
    except _Same:
        return False
    return True


class _Same(Exception):
    """The very same file is there already."""


def _write_png(
    file: BinaryIO,
    bands: Iterator[NDArray[Any]],
    width: int,
    height: int,
    mode: str,
    levels: Levels,
    icc: bytes | None,
    metadata: dict[str, Any],
) -> None:
    """PNG 1.2 as a stream; Pillow writes no 16-bit RGB and wants the whole picture at once."""

    def chunk(kind: bytes, data: bytes) -> None:
        file.write(struct.pack(">I", len(data)) + kind + data)
        file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))

    first = next(bands)
    bits = 8 * first.itemsize
    file.write(b"\x89PNG\r\n\x1a\n")
    chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0 if mode == "L" else 2, 0, 0, 0))
    if icc:
        chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc, 9))
    for kind, data in for_png(metadata)[0]:
        chunk(kind, data)
    pixel = (1 if mode == "L" else 3) * bits // 8
    deflate = zlib.compressobj(6, zlib.DEFLATED, 15, 8, zlib.Z_FILTERED)
    above = np.zeros(width * pixel, np.uint8)
    for band in itertools.chain([first], bands):
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


def _filtered(rows: NDArray[Any], above: NDArray[Any], pixel: int) -> bytes:
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


def _write_tiff(
    file: BinaryIO,
    bands: Iterator[NDArray[Any]],
    width: int,
    height: int,
    mode: str,
    levels: Levels,
    icc: bytes | None,
    metadata: dict[str, Any],
) -> None:
    """Deflate with horizontal prediction, in strips of about 1 MB; the directory at the end."""
    # In the byte order of the metadata: what is inside of private tags has the same.
    order, directories, _ = for_tiff(metadata)
    samples = 1 if mode == "L" else 3
    first = next(bands)
    dtype = first.dtype
    row_nbytes = width * samples * dtype.itemsize
    predictor = 2 if dtype.kind in "iu" and dtype.itemsize < 8 else 1
    rows = max(1, min(height, (1 << 20) // row_nbytes))
    big = row_nbytes * height > 3_900_000_000
    offset, pointer = ("Q", 16) if big else ("I", 4)
    file.write({"<": b"II", ">": b"MM"}[order] + struct.pack(order + "H", 43 if big else 42))
    file.write(struct.pack(order + "HHQ", 8, 0, 0) if big else bytes(4))
    offsets, nbytes = [], []
    for strip in _strips(itertools.chain([first], bands), rows):
        data = _packed(strip, order, predictor)
        offsets.append(file.tell())
        nbytes.append(len(data))
        file.write(data + bytes(len(data) % 2))
    layout = [
        number(256, 4, [width], order),
        number(257, 4, [height], order),
        number(258, 3, [8 * dtype.itemsize] * samples, order),
        number(259, 3, [8], order),
        number(262, 3, [1 if mode == "L" else 2], order),
        number(273, pointer, offsets, order),
        number(277, 3, [samples], order),
        number(278, 4, [rows], order),
        number(279, pointer, nbytes, order),
        number(317, 3, [predictor], order),
    ]
    if dtype.kind != "u":
        layout.append(number(339, 3, [{"i": 2, "f": 3}[dtype.kind]] * samples, order))
    elif dtype == np.uint16 and levels != levels_of(16):
        # SMinSampleValue and SMaxSampleValue: which of the 65536 levels the picture uses.
        layout += [number(340 + i, 3, [value] * samples, order) for i, value in enumerate(levels)]
    if icc:
        layout.append(Tag(34675, 7, icc))
    ours = {tag.code for tag in layout}
    directories[0] = layout + [tag for tag in directories[0] if tag.code not in ours]
    start = file.tell()
    file.write(tree(directories, start, order, big))
    file.seek(8 if big else 4)
    file.write(struct.pack(order + offset, start))


def _packed(rows: NDArray[Any], order: str, predictor: int) -> bytes:
    """A strip as it lies in the file: horizontal differences if the predictor is 2 (TIFF 6.0,
    section 14), deflate."""
    difference = rows.copy()
    if predictor == 2:
        difference[:, 1:] -= rows[:, :-1]
    return zlib.compress(difference.astype(order + rows.dtype.str[1:], copy=False).data, 6)


def _strips(bands: Iterable[NDArray[Any]], rows: int) -> Iterator[NDArray[Any]]:
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


def _write_jpeg(
    file: BinaryIO,
    bands: Iterator[NDArray[Any]],
    width: int,
    height: int,
    mode: str,
    levels: Levels,
    icc: bytes | None,
    metadata: dict[str, Any],
) -> None:
    if max(width, height) > 65500:
        raise LaffError("JPEG holds at most 65500 pixels a side; write PNG or TIFF instead")
    bands = (to_bytes(band, levels) for band in bands)
    coded = io.BytesIO()
    _whole_image(bands, width, height, mode).save(
        coded, "JPEG", quality=95, subsampling=0, optimize=True, icc_profile=icc
    )
    segments, density, _ = for_jpeg(metadata)
    # Pillow begins with the 20 bytes of SOI and JFIF.
    head, rest = coded.getvalue()[:20], coded.getbuffer()[20:]
    if density is not None:
        head = head[:13] + struct.pack(">BHH", *density) + head[18:]
    file.write(head + segments)
    file.write(rest)


def _write_webp(
    file: BinaryIO,
    bands: Iterator[NDArray[Any]],
    width: int,
    height: int,
    mode: str,
    levels: Levels,
    icc: bytes | None,
    metadata: dict[str, Any],
) -> None:
    if max(width, height) > 16383:
        raise LaffError("WebP holds at most 16383 pixels a side; write PNG or TIFF instead")
    exif, xmp, _ = for_webp(metadata)
    image = _whole_image((to_bytes(band, levels) for band in bands), width, height, mode)
    coded = io.BytesIO()
    image.save(coded, "WEBP", lossless=True, icc_profile=icc or b"", exif=exif, xmp=xmp)
    file.write(coded.getbuffer())


def _whole_image(
    bands: Iterable[NDArray[Any]], width: int, height: int, mode: str
) -> "Image.Image":
    from PIL import Image

    check_size("the picture", width, height, whole=True)
    pixels = np.empty((height, width) if mode == "L" else (height, width, 3), np.uint8)
    y = 0
    for band in bands:
        pixels[y : y + len(band)] = band
        y += len(band)
    return Image.fromarray(pixels)
