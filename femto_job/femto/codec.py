"""Encoding and decoding of whole pictures, tile by tile."""

import contextlib
import dataclasses
import functools
import io
import operator
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import container, display
from .basis.bases import Basis, basis_of, load_basis
from .coding import blocks, cells, first_layer, kstrings, partition, rendition, residual
from .coding.blocks import Layout
from .coding.contexts import Field
from .container import (
    BELIEVED_PIXELS,
    AnyPath,
    Archive,
    ByteStream,
    EncodedTile,
    ImageHeader,
    Info,
    Layers,
    Stored,
    Tiles,
    Wanted,
    check_pixels,
)
from .errors import LaffError
from .samples import (
    Counts,
    Levels,
    Mapped,
    Picture,
    Span,
    dtype_of,
    is_exact,
    levels_of,
    mapped,
    restore,
)
from .target import StepSearch
from .tiles import Region, Tile, tile_at, tile_grid, tile_rows

__all__ = [
    "EncodedTile",
    "ImageHeader",
    "Info",
    "StepSearch",
    "Tile",
    "Tiles",
    "assemble",
    "decode",
    "decode_bands",
    "decode_layers",
    "decode_tile",
    "encode",
    "encode_tile",
    "info",
    "parse",
    "tile_grid",
    "truncate",
]


EFFORTS = ("full", "fast")
AnyArchive: TypeAlias = Stored | Archive
"""An archive: its bytes, the path of its file, or what `parse` returned."""
COARSE_STEP = 32.0
"""From this step on, in grey levels of an RGB picture of 8 bits, pictures are coded in one pass:
eight such steps, in which the first of four passes counts, are all the grey levels there are."""


def check_method(effort: str, tune: str, max_error: int | None = None) -> None:
    """LaffError if there is no such effort, nothing of that name to tune for, or no such bound."""
    if effort not in EFFORTS:
        raise LaffError(f"effort {effort!r} is not possible: choose {' or '.join(EFFORTS)}")
    if tune not in container.TUNES:
        raise LaffError(f"tune {tune!r} is not possible: choose {' or '.join(container.TUNES)}")
    if max_error is not None and not (
        isinstance(max_error, (int, np.integer))
        and not isinstance(max_error, bool)
        and 0 <= max_error <= container.MAX_ERROR
    ):
        raise LaffError(
            f"max_error {max_error!r} is not possible: choose 0 to {container.MAX_ERROR} levels"
        )


def passes_of(effort: str, step: float, levels: Levels, channels: int) -> int:
    """In how many passes pictures are coded."""
    alike = step * (blocks.GREY_SCALE if channels == 1 else 1) / levels.scale
    return 4 if effort == "full" and alike < COARSE_STEP else 1


def encode_tile(
    pixels: NDArray[Any],
    *,
    step: float,
    levels: Levels | None = None,
    limits: Levels | None = None,
    basis: str = "photo",
    effort: str = "full",
    tune: str = "psnr",
    max_error: int | None = None,
    watch: Callable[[NDArray[Any], NDArray[Any]], Any] | None = None,
) -> EncodedTile:
    """Code one tile.

    Parameters: `pixels` (h, w) or (h, w, 3), uint8 or uint16, at most 1024 x 1024; `step`, the
    quantiser step in grey levels; `levels` that the whole picture uses, all of the type if None;
    `limits` of its samples, the levels if None; `basis`, a name or the path of a basis file;
    `effort`, `tune` and `max_error` as for `encode`; `watch(pixels, decoded)` is called with the
    tile as the archive will give it back, and what it returns is kept. Raises LaffError for samples
    beyond the limits.
    """
    levels = levels_of(8 * pixels.itemsize) if levels is None else levels
    limits = levels if limits is None else limits
    check_limits(pixels, limits)
    settings: dict[str, Any] = {
        "levels": levels,
        "limits": limits,
        "passes": passes_of(effort, step, levels, 1 if pixels.ndim == 2 else 3),
        "tune": tune,
        "classes": effort != "fast",
        "max_error": max_error,
    }
    first = pixels[0, 0]
    if not ((pixels[0] == first).all() and (pixels == first).all()):
        return code_tile(pixels, step, load_basis(basis), watch=watch, **settings)
    sample = tuple(np.ravel(first).tolist())
    blank = _code_blank(pixels.shape, pixels.dtype.str, sample, step, basis, **settings)
    seen = None if watch is None else watch(pixels, blank.seen)
    return dataclasses.replace(blank, seen=seen)


@functools.lru_cache(maxsize=4)
def _code_blank(
    shape: tuple[int, ...],
    dtype: str,
    sample: tuple[int, ...],
    step: float,
    basis: str,
    **settings: Any,
) -> EncodedTile:
    """A tile of one colour, and its reconstruction as what was seen of it. Scans and slides have
    thousands of these, which are coded once."""
    pixels = np.full(shape, sample if len(shape) == 3 else sample[0], dtype)
    return code_tile(pixels, step, load_basis(basis), watch=lambda _, decoded: decoded, **settings)


def check_limits(pixels: NDArray[Any], limits: Levels) -> None:
    """LaffError for samples that an archive with these limits could not give back."""
    if limits == levels_of(8 * pixels.itemsize):
        return
    low, high = int(pixels.min()), int(pixels.max())
    if low < limits.low or high > limits.high:
        raise LaffError(
            f"samples from {low} to {high} are beyond the levels {limits.low} to {limits.high} "
            "that were declared: give more bits, or leave them to be found"
        )


def code_tile(
    pixels: NDArray[Any],
    step: float,
    basis: Basis,
    *,
    levels: Levels,
    limits: Levels | None = None,
    passes: int,
    tune: str = "psnr",
    classes: bool = True,
    max_error: int | None = None,
    watch: Callable[[NDArray[Any], NDArray[Any]], Any] | None = None,
) -> EncodedTile:
    """As `encode_tile`, with a basis that is at hand, in 1 or 4 passes, looking for the classes of
    blocks or not."""
    height, width = pixels.shape[:2]
    field = Field(Layout(height, width, 1 if pixels.ndim == 2 else 3), passes, tune)
    scores = partition.analyse(pixels, step, levels, basis, field, classes=classes)
    block_string, layers = kstrings.encode(scores, step, basis, field)
    del scores
    if max_error is None:
        planes = kstrings.planes_of(kstrings.dequantise(field, step, basis), field, step, basis)
        decoded = blocks.to_pixels(planes, field.colour, pixels.dtype, levels, limits)
    else:
        limits = levels if limits is None else limits
        rendered = rendition.render(field, step, basis, levels, limits)
        string, decoded = residual.encode(rendered, pixels, limits, max_error)
        layers = (*layers, string)
    seen = None if watch is None else watch(pixels, decoded)
    return EncodedTile(block_string, layers, squared_error(pixels, decoded), seen)


def squared_error(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Sum of the squared differences of two pictures of the same shape, exact."""
    total = 0
    for row_a, row_b in zip(a, b, strict=True):
        difference = row_a.astype(np.int64) - row_b
        total += int((difference * difference).sum())
    return float(total)


def assemble(
    header: ImageHeader,
    *,
    step: float,
    basis: str = "photo",
    effort: str = "full",
    tune: str = "psnr",
    max_error: int | None = None,
    tiles: Tiles | list[EncodedTile],
    file: BinaryIO | None = None,
) -> bytes | int:
    """The archive of a picture whose tiles, in the order of `tile_grid`, were coded with `step`,
    `basis`, `effort`, `tune` and `max_error`. Equal input gives equal bytes.

    With `file`, a binary one, it is written there, string by string, and its bytes are counted:
    with that and `Tiles`, memory does not follow the archive.
    """
    used = load_basis(basis)
    coded, layers = (tiles if isinstance(tiles, Tiles) else Tiles(tiles)).strings()
    return container.write(
        header,
        basis_name=used.name,
        basis_sha256=used.sha256,
        step=step,
        passes=passes_of(effort, step, header.levels, header.channels),
        tune=tune,
        max_error=max_error,
        blocks=coded,
        layers=layers,
        file=file,
    )


def check_image(image: Picture) -> tuple[int, int, str]:
    """Height, width and mode of an array that can be coded; LaffError if its shape cannot."""
    shape = tuple(image.shape)
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)):
        raise LaffError(
            f"an array of shape {shape} is not a picture: give (h, w) for grey or (h, w, 3) for RGB"
        )
    height, width = shape[:2]
    if height < 1 or width < 1:
        raise LaffError(f"a picture of {width} x {height} pixels has nothing to code")
    if max(height, width) > container.MAX_SIDE or height * width > container.MAX_PIXELS:
        raise LaffError(
            f"a picture of {width} x {height} pixels is larger than an archive can hold "
            f"({container.MAX_SIDE} a side, {container.MAX_PIXELS} in all): cut it into parts"
        )
    return height, width, "L" if len(shape) == 2 else "RGB"


def needs_counts(dtype: Any, bits: int | None, levels: Levels | None) -> bool:
    """Whether all samples must be looked at before the levels of a picture are known."""
    return levels is not None or (bits is None and bool(np.dtype(dtype) == np.uint16))


def span_of(
    dtype: Any, bits: int | None, levels: Levels | None = None, counts: Counts | None = None
) -> tuple[int, Span]:
    """The bits of a picture's samples, and the levels that its steps and PSNR follow.

    Parameters: `dtype` uint8 or uint16; `bits` and `levels` as they are declared, None if not;
    `counts` of all samples, where `needs_counts` says so. Raises LaffError.
    """
    dtype = np.dtype(dtype)
    most = 8 * dtype.itemsize
    if bits is not None:
        if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or bits < 1:
            raise LaffError(f"bits {bits!r} is not possible: choose 1 to 16")
        if bits > most:
            raise LaffError(f"samples of {most} bits do not have {bits}: choose 1 to {most}")
        if levels is None:
            levels = levels_of(int(bits))
            return int(bits) if dtype_of(bits) == dtype else most, Span(levels, levels)
        most = int(bits)
    if levels is not None:
        low, high = levels
        if not 0 <= low < high <= levels_of(most).high:
            raise LaffError(f"levels {low} to {high} are not possible: choose 0 to 2^{most} - 1")
    elif most == 8:
        return most, Span(levels_of(8), levels_of(8))
    if counts is None:
        raise ValueError("the samples were not counted: see needs_counts")
    return most, counts.span(None if levels is None else Levels(*levels))


@dataclasses.dataclass(frozen=True)
class Encoded:
    """An archive that was made: its bytes, its header, the squared error of all samples, how the
    target was met (see `StepSearch.outcome`), how many samples are outliers (see `Span`), and what
    was seen of each tile."""

    data: bytes
    header: ImageHeader
    sse: float
    outcome: str | None
    outliers: int
    seen: list[Any]


def encode(
    image: Picture,
    *,
    quality: float | None = None,
    ratio: float | None = None,
    psnr: float | None = None,
    lossless: bool = False,
    max_error: int | None = None,
    basis: str = "photo",
    effort: str = "full",
    tune: str = "psnr",
    bits: int | None = None,
    range: tuple[float, float] | None = None,
    source: str | None = None,
    icc: bytes | None = None,
    metadata: dict[str, Any] | None = None,
    strip_metadata: bool = False,
    threads: int = 1,
) -> bytes:
    """Compress a picture into an archive (gzip-ed JSON, the content of NAME.laff.gz).

    Parameters
    ----------
    image : array-like, (h, w) or (h, w, 3), integers or floating-point numbers
        Grey or RGB. Anything that has `shape` and `dtype` and returns arrays for
        `image[y0:y1, x0:x1]` will do (a memory map, a windowed reader): one tile is read at
        a time, twice if the levels of a picture must be found first.

        uint8 and uint16 are coded as they are. Signed integers, and those of 32 and 64 bits that
        differ by less than 65536, are shifted; floating-point samples are mapped to 65536
        levels. The archive keeps what its samples stand for, and `decode` gives that back.
    quality : 1 to 100
        Larger is better and bigger; 75 if no target is given. Steps follow the range of levels
        that the picture uses: all 256 of 8 bits, those that are found of others.
    ratio : more than 1
        Instead of quality: how many times smaller than the raw samples, met within 3 %.
    psnr : 10 to 120
        Instead of quality: peak signal-to-noise ratio in dB over all samples, of the range that
        steps follow, met within 0.1.
    lossless : bool
        Keep every sample as it is, on every machine: one more layer, the last, holds what the
        others leave. These are a picture of the given quality, 20 if none is, which is what
        `truncate` to fewer layers leaves; the lower, the smaller the archive, within some percent.
    max_error : 0 to 65535
        As lossless, but samples may differ by so many levels, no more; 0 is lossless. Neither goes
        with a ratio or a PSNR, nor with floating-point samples and others that are mapped to
        levels with a loss.
    basis : name or path
        "photo", which femto ships, or a basis file.
    effort : "full" or "fast"
        "fast" looks for no classes and codes every score at once, in one pass instead of four:
        sooner made and sooner read, and the first layers are coarser for their bytes. Pictures
        of low quality are always coded in one pass (see `COARSE_STEP`).
    tune : "psnr" or "perceptual"
        "perceptual" quantises low frequencies finer than high ones, as eyes see them.
    bits : 1 to 16
        How many bits of its samples the picture uses, its levels then being 0 to 2^bits - 1, in
        place of those that are found.
    range : (low, high)
        Of floating-point samples: what becomes the first and the last of 65536 levels, instead of
        the least and the greatest sample.
    source, icc, metadata
        File name, ICC profile, and a dict to keep in the archive. Its values are whatever JSON
        has, or bytes, 16 MiB in all; what femto.pictures reads (`PictureReader.metadata`) and
        writes back is said in femto/pictures/metadata.py.
    strip_metadata : bool
        Keep neither source nor metadata: the archive says nothing but how the picture looks. The
        ICC profile stays, without it the colours would be wrong.
    threads : int
        How many tiles are coded at a time. The archive does not depend on it.

    Raises LaffError if the picture or an option cannot be used.
    """
    if strip_metadata:
        source = metadata = None
    if lossless and max_error not in (None, 0):
        raise LaffError(f"lossless is no error at all, not {max_error}: leave one of them out")
    return encode_picture(
        image,
        target={"quality": quality, "ratio": ratio, "psnr": psnr},
        method={
            "basis": basis,
            "effort": effort,
            "tune": tune,
            "max_error": 0 if lossless else max_error,
        },
        bits=bits,
        range=range,
        threads=threads,
        source=source,
        icc=icc,
        metadata=metadata,
    ).data


def encode_picture(
    image: Picture,
    *,
    target: dict[str, Any],
    method: dict[str, Any],
    bits: int | None = None,
    levels: Levels | None = None,
    range: tuple[float, float] | None = None,
    mapping: dict[str, Any] | None = None,
    threads: int = 1,
    watch: Callable[[Tile, Levels, NDArray[Any], NDArray[Any]], Any] | None = None,
    **kept: Any,
) -> Encoded:
    """As `encode`, and tells more.

    `target`: quality, ratio or psnr; `method`: basis, effort, tune, max_error (None if it is not
    there); `levels` that the picture's
    file declares and `mapping` of its samples (see `samples.check_mapping`), if it does;
    `watch(tile, levels, pixels, decoded)` is called for each tile whenever it was coded, and what
    it says of those in the archive is kept; `kept`: source, icc, metadata.
    """
    height, width, mode = check_image(image)
    max_error = method.get("max_error")
    check_method(method["effort"], method["tune"], max_error)
    grid = tile_grid(height, width)

    def window(tile: Tile, of: Picture = image) -> NDArray[Any]:
        return np.asarray(of[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width])

    picture = mapped(image, lambda: map(window, grid), range)
    if isinstance(picture, Mapped) and picture.mapping is not None:
        mapping = picture.mapping
        if bits is not None:
            raise LaffError(
                f"bits are for unsigned samples, these are {mapping['type']}: leave them out"
            )
        if max_error is not None and not is_exact(mapping):
            raise LaffError(
                f"{mapping['type']} samples are mapped to levels, which is not exact: no lossless "
                "and max_error for them, unless you map them to integers of 16 bits yourself"
            )
        if range is not None:
            bits = 16  # the levels are those of the range, whatever the picture uses of it
    with _mapping(threads) as spread:
        counts: Counts | None = None
        if needs_counts(picture.dtype, bits, levels):
            for more in spread(lambda tile: Counts.of(window(tile, picture)), grid):
                counts = more if counts is None else counts + more
        depth, span = span_of(picture.dtype, bits, levels, counts)
        header = ImageHeader(
            width, height, mode, depth, levels=span.levels, limits=span.limits, mapping=mapping,
            **kept,
        )  # fmt: skip
        search = StepSearch(
            **target,
            levels=span.levels,
            limits=span.limits,
            channels=header.channels,
            raw_nbytes=header.raw_nbytes,
            samples=width * height * header.channels,
            max_error=max_error,
        )

        def coded(tile: Tile, step: float) -> EncodedTile:
            pixels = window(tile, picture)
            look = None if watch is None else partial(watch, tile, span.levels)
            return encode_tile(
                pixels, step=step, levels=span.levels, limits=span.limits, watch=look, **method
            )

        history: list[tuple[float, int, float]] = []
        step: float | None = search.first()
        while step is not None:
            tiles = Tiles(spread(lambda tile, step=step: coded(tile, step), grid))
            with io.BytesIO() as file:
                assemble(header, step=step, **method, tiles=tiles, file=file)
                archive = file.getvalue()
            history.append((step, len(archive), tiles.sse))
            if search.best(history) == len(history) - 1:
                best, data, seen = history[-1], archive, tiles.seen
            step = search.next(history)
    return Encoded(data, header, best[2], search.outcome(best), span.outliers, seen)


@contextlib.contextmanager
def _mapping(threads: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """A function like `map` that uses so many threads. A single one is the caller's own, which
    keeps what it needs for every tile: of a small picture that is most of the work."""
    if threads <= 1:
        yield map
        return
    with ThreadPoolExecutor(max_workers=threads) as pool:
        yield pool.map


def parse(
    archive: AnyArchive,
    *,
    layers: Layers = None,
    basis: AnyPath | None = None,
    wanted: Wanted = None,
) -> Archive:
    """Read and check an archive (bytes or a path) without decoding it, all of it or only its
    first `layers` layers (a number, or a function of the JSON object). `basis` is the file of the
    basis that it was made with, if that is neither femto's own nor beside it. `wanted`, a function
    of what the archive says, may choose tiles or refuse it (see `container.read`). Raises
    LaffError."""
    if isinstance(archive, Archive):
        parsed = archive
        if wanted is not None:
            wanted(parsed)
    else:
        parsed = container.read(archive, layers=layers, wanted=wanted)
    basis_file = parsed.basis_file if basis is None else str(basis)
    return dataclasses.replace(parsed, basis_file=basis_file, preview=_preview)


def _preview(parsed: Archive) -> dict[str, str]:
    """What a notebook shows of a parsed archive."""
    return display.mimebundle(info(parsed), partial(decode, parsed, samples=True))


def _prefix(parsed: Archive, fraction: float, layers: int | None) -> int:
    """How many layers to decode."""
    have = len(parsed.layers)
    if layers is not None:
        if not layers >= 1:
            raise LaffError(f"layers {layers} is not possible: choose 1 to {have}")
        return min(layers, have)
    if not 0 < fraction <= 1:
        raise LaffError(f"fraction {fraction} is not possible: choose more than 0, at most 1")
    budget = fraction * sum(parsed.layer_nbytes)
    used, count = 0, 0
    for nbytes in parsed.layer_nbytes:
        used += nbytes
        if used > budget:
            break
        count += 1
    return max(count, 1) if have else 0


def has_residual(parsed: Archive, layers: int | None = None) -> bool:
    """Whether a residual is among the first `layers` layers of an archive: of one that has one, the
    last."""
    count = len(kstrings.LAYERS[parsed.passes]) + 1
    return parsed.max_error is not None and len(parsed.layers[:layers]) == count


def decode_field(parsed: Archive, index: int, *, layers: int | None = None) -> tuple[Field, Basis]:
    """What the strings of tile number `index` of an archive say, as far as its first `layers`
    layers go: its blocks and integers, and the basis that they are of. Raises LaffError."""
    header = parsed.header
    tile = tile_at(index, header.height, header.width, parsed.tile)
    layout = Layout(tile.height, tile.width, header.channels)
    basis = basis_of(parsed)
    strings = [strings[index] for strings in parsed.layers[:layers]]
    if has_residual(parsed, layers):
        del strings[-1]
    field = Field(layout, parsed.passes, parsed.tune)
    kstrings.decode(parsed.blocks[index], strings, basis, field)
    return field, basis


def decode_cells(parsed: Archive, index: int, *, layers: int, components: int) -> cells.TileCells:
    """The scores of the cells of tile number `index`, so many along the zigzag, from its first
    `layers` layers; no pixels. The arrays are good until this thread decodes the next tile."""
    strings = parsed.layers[:layers]
    if len(strings) > 1:
        field, basis = decode_field(parsed, index, layers=layers)
        scores = kstrings.dequantise(field, parsed.step, basis)
        ends = kstrings.zone_ends(parsed.passes)
        return cells.cells_of(scores, field, ends[min(len(strings), len(ends)) - 1], components)
    header = parsed.header
    tile = tile_at(index, header.height, header.width, parsed.tile)
    found = first_layer.read(
        parsed.blocks[index],
        strings[0][index] if strings else None,
        Layout(tile.height, tile.width, header.channels),
        parsed.passes,
        np.float32(parsed.step) / kstrings.weights_of(parsed.tune)[0],
        basis_of(parsed),
    )
    return cells.cells_of(found.scores, found, len(strings), components)


def decode_tile(parsed: Archive, index: int, *, layers: int | None = None) -> NDArray[Any]:
    """Decode tile number `index` of a parsed archive from its first `layers` layers.

    Returns its samples, (h, w) or (h, w, 3), uint8 or uint16.
    """
    header = parsed.header
    field, basis = decode_field(parsed, index, layers=layers)
    if has_residual(parsed, layers):
        assert parsed.max_error is not None
        rendered = rendition.render(field, parsed.step, basis, header.levels, header.limits)
        string = parsed.layers[:layers][-1][index]
        return residual.decode(rendered, string, header.limits, parsed.max_error, header.dtype)
    scores = kstrings.dequantise(field, parsed.step, basis)
    planes = kstrings.planes_of(scores, field, parsed.step, basis)
    return blocks.to_pixels(planes, field.colour, header.dtype, header.levels, header.limits)


def _region(header: ImageHeader, region: tuple[int, int, int, int] | None) -> Region:
    """The part of a picture that is asked for, all of it if None. Raises LaffError."""
    if region is None:
        return Region(0, 0, header.height, header.width)
    try:
        found = Region(*map(operator.index, region))
    except TypeError:
        raise LaffError(
            f"region {region!r} is not possible: give y, x, height and width in whole pixels"
        ) from None
    if not (
        0 <= found.y < found.y + found.height <= header.height
        and 0 <= found.x < found.x + found.width <= header.width
    ):
        raise LaffError(
            f"region {tuple(found)} is not within the picture: give y, x, height and width in "
            f"pixels, of {header.height} rows and {header.width} columns"
        )
    return found


def _check_scale(scale: int, region: object, fraction: float) -> None:
    """LaffError for a scale that cannot be, or not with the others."""
    if isinstance(scale, bool) or scale not in (1, *cells.SCALES):
        raise LaffError(f"scale {scale!r} is not possible: choose 1, 2, 4 or 8")
    if scale > 1 and (region is not None or fraction != 1):
        other = "a region" if region is not None else "a fraction"
        raise LaffError(f"scale {scale} goes without {other}: leave one of them out")


def small_layers(scale: int, passes: int, layers: int | None = None) -> int:
    """How many layers a picture that is made smaller takes: those that hold its frequencies, or as
    many as were asked for. `passes` are those of its archive. Raises LaffError."""
    if layers is not None and not layers >= 1:
        raise LaffError(f"layers {layers} is not possible: choose 1 or more")
    first = int(np.searchsorted(kstrings.zone_ends(passes), cells.SCALES[scale])) + 1
    return first if layers is None else layers


def _parse(
    archive: AnyArchive,
    region: tuple[int, int, int, int] | None,
    basis: AnyPath | None,
    max_pixels: int | None,
    *,
    streamed: bool,
    scale: int,
    layers: int | None,
) -> tuple[Archive, Region]:
    """A parsed archive that may be made into pixels, and the part of it that is to be. Only the
    strings of tiles that this touches are kept; of a picture that is made smaller, only the layers
    that this takes are read."""

    def wanted(parsed: Archive) -> set[int] | None:
        header, part = parsed.header, _region(parsed.header, region)
        pixels = -(-part.height // scale) * -(-part.width // scale)
        check_pixels(parsed, pixels, max_pixels, streamed=streamed)
        rows = tile_rows(header.height, header.width, parsed.tile, part)
        return None if region is None else {tile.index for row in rows for tile in row}

    def needed(top: dict[str, Any]) -> int:
        return small_layers(scale, top.get("passes", container.PASSES[0]), layers)

    parsed = parse(archive, basis=basis, wanted=wanted, layers=needed if scale > 1 else None)
    if scale > 1:
        check_grid_of_cells(parsed)
    return parsed, _region(parsed.header, region)


def check_grid_of_cells(parsed: Archive) -> None:
    """LaffError if an archive's tiles, which femto did not write, do not begin with a cell."""
    if parsed.tile % blocks.CELL:
        raise LaffError(
            f"{parsed.name}: tiles of {parsed.tile} pixels do not lie on a grid of {blocks.CELL}: "
            "decode it and compress it again"
        )


def _small_bands(
    parsed: Archive, scale: int, layers: int | None, threads: int
) -> Iterator[tuple[int, NDArray[Any]]]:
    """As `decode_bands`, of the archive's samples, `scale` times smaller and without the filter."""
    header = parsed.header
    count = small_layers(scale, parsed.passes, layers)
    colours = (3,) if header.channels == 3 else ()

    def place(tile: Tile, band: NDArray[Any]) -> None:
        found = decode_cells(parsed, tile.index, layers=count, components=cells.SCALES[scale])
        planes = cells.shrink(found.scores, scale, tile.height, tile.width)
        left = tile.x // scale
        band[:, left : left + planes.shape[2]] = blocks.to_pixels(
            planes, found.colour, header.dtype, header.levels, header.limits
        )

    with _mapping(threads) as spread:
        for row in tile_rows(header.height, header.width, parsed.tile):
            rows, columns = -(-row[0].height // scale), -(-header.width // scale)
            band = np.empty((rows, columns, *colours), header.dtype)
            list(spread(place, row, repeat(band)))
            yield row[0].y // scale, band


def decode_bands(
    archive: AnyArchive,
    *,
    region: tuple[int, int, int, int] | None = None,
    fraction: float = 1.0,
    layers: int | None = None,
    basis: AnyPath | None = None,
    threads: int = 1,
    samples: bool = False,
    scale: int = 1,
    max_pixels: int | None = BELIEVED_PIXELS,
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Decode a picture from top to bottom, one row of tiles at a time, in bounded memory.

    Yields (y, band): the band's first row, from the top of the region if there is one, and its
    pixels, (rows, width) or (rows, width, 3). Parameters as for `decode`; but for every MiB of the
    archive begun there may be `max_pixels`, so that large archives pass and small ones do not claim
    what takes hours.
    """
    _check_scale(scale, region, fraction)
    parsed, part = _parse(
        archive, region, basis, max_pixels, streamed=True, scale=scale, layers=layers
    )
    header = parsed.header
    if scale > 1:
        for y, band in _small_bands(parsed, scale, layers, threads):
            yield y, band if samples else restore(band, header.mapping)
        return
    count = _prefix(parsed, fraction, layers)
    colours = (3,) if header.channels == 3 else ()

    def place(tile: Tile, band: NDArray[Any], top: int) -> None:
        pixels = decode_tile(parsed, tile.index, layers=count)
        left, right = max(tile.x, part.x), min(tile.x + tile.width, part.x + part.width)
        band[:, left - part.x : right - part.x] = pixels[
            top - tile.y : top - tile.y + len(band), left - tile.x : right - tile.x
        ]

    with _mapping(threads) as spread:
        for row in tile_rows(header.height, header.width, parsed.tile, part):
            top, end = row[0].y, row[0].y + row[0].height
            top, end = max(top, part.y), min(end, part.y + part.height)
            band = np.empty((end - top, part.width, *colours), header.dtype)
            list(spread(place, row, repeat(band), repeat(top)))
            yield top - part.y, band if samples else restore(band, header.mapping)


def decode(
    archive: AnyArchive,
    *,
    region: tuple[int, int, int, int] | None = None,
    fraction: float = 1.0,
    layers: int | None = None,
    basis: AnyPath | None = None,
    threads: int = 1,
    samples: bool = False,
    scale: int = 1,
    max_pixels: int | None = BELIEVED_PIXELS,
) -> NDArray[Any]:
    """Reconstruct a picture, a part of it, or a small one of it.

    Parameters
    ----------
    archive : bytes or path
        An archive, gzip-ed or plain text.
    region : (y, x, height, width)
        Only so many rows from row y and columns from column x, in pixels: what the whole has there.
        Nothing but the tiles that it touches is kept in memory and decoded.
    fraction : more than 0, at most 1
        Use only the layers that fit into this share of the strings' bytes (always the first).
    layers : int
        Instead of fraction: use only the first so many layers.
    basis : path
        The file of the basis that the archive was made with. One that ships with femto, or that
        lies beside the archive or in a folder `basis` there, is found without.
    threads : int
        How many tiles are decoded at a time.
    samples : bool
        Give the archive's own samples, uint8 or uint16, also of a picture that had others.
    scale : 1, 2, 4 or 8
        Make a picture so many times smaller, its height and width rounded up, as Pillow's `draft`
        does with a JPEG file: of every 8 x 8 pixels the lowest 4 x 4, 2 x 2 or 1 x 1 frequencies,
        without the filter. Only the first layers that hold these are read, an eighth from the
        first alone, and they are as coarse as these layers know them: more `layers` make them
        finer. Not with a region or a fraction.
    max_pixels : int or None
        Refuse to make more pixels than that, of the region if there is one: an archive of a few
        bytes may claim any number. By default 179 million, as Pillow opens; None: any number.

    Returns (h, w) or (h, w, 3), in the type that the picture had: uint8 or uint16, or what its
    samples stand for (see `encode`). Raises LaffError if the archive cannot be used, or the region
    is not within the picture.
    """
    _check_scale(scale, region, fraction)
    parsed, part = _parse(
        archive, region, basis, max_pixels, streamed=False, scale=scale, layers=layers
    )
    header = parsed.header
    colours = (3,) if header.channels == 3 else ()
    shape = (-(-part.height // scale), -(-part.width // scale), *colours)
    mapping = None if samples else header.mapping
    image = np.empty(shape, header.dtype if mapping is None else mapping["type"])
    bands = decode_bands(
        parsed, region=part if scale == 1 else None, fraction=fraction, layers=layers,
        threads=threads, samples=samples, scale=scale, max_pixels=None,
    )  # fmt: skip
    for y, band in bands:
        image[y : y + len(band)] = band
    return image


def decode_layers(
    stream: ByteStream,
    *,
    basis: AnyPath | None = None,
    threads: int = 1,
    max_pixels: int | None = BELIEVED_PIXELS,
) -> Iterator[NDArray[Any]]:
    """Reconstruct a picture while its archive arrives.

    Yields it once for every layer, as soon as the layer is there: coarse at first, at last as
    `decode` returns it. `stream` is a binary one: a pipe, a socket's file, an open file. Raises
    LaffError if what arrives cannot be used, or ends before the archive does; what was yielded
    until then is good. `basis` and `max_pixels` are as for `decode`.
    """

    def wanted(parsed: Archive) -> None:
        check_pixels(parsed, parsed.header.height * parsed.header.width, max_pixels)

    for parsed in container.arriving(stream, wanted=wanted):
        yield decode(parsed, basis=basis, threads=threads, max_pixels=None)


def info(archive: AnyArchive) -> Info:
    """What an archive holds, without decoding it.

    Keys: format, version, width, height (pixels), mode ("L" or "RGB"), bits, levels (that the
    picture uses: low, high), limits (of its samples: least, greatest), mapping (type, slope,
    intercept of what they stand for, or None), source, icc, metadata
    (bytes as they are), properties (the same as names and printable lines, for people), basis
    (name, sha256), step (grey levels), passes (4 or 1), tune, max_error (levels by which samples
    may differ from the picture that was encoded: 0 is lossless, None any number), tile (pixels),
    tiles, layers, nbytes (of the archive), layer_nbytes (of the strings of each layer). Raises
    LaffError.
    """
    from .pictures.properties import describe

    parsed = archive if isinstance(archive, Archive) else container.read(archive, keep=False)
    header, residue = parsed.header, has_residual(parsed)
    return {
        "format": container.FORMAT,
        "version": container.VERSION,
        "width": header.width,
        "height": header.height,
        "mode": header.mode,
        "bits": header.bits,
        "levels": list(header.levels),
        "limits": list(header.limits),
        "mapping": header.mapping,
        "source": header.source,
        "icc": header.icc,
        "metadata": header.metadata,
        "properties": describe(header.metadata),
        "basis": {"name": parsed.basis_name, "sha256": parsed.basis_sha256},
        "step": parsed.step,
        "passes": parsed.passes,
        "tune": parsed.tune,
        "max_error": parsed.max_error if residue else None,
        "tile": parsed.tile,
        "tiles": len(parsed.blocks),
        "layers": len(parsed.layers),
        "nbytes": parsed.nbytes,
        "layer_nbytes": parsed.layer_nbytes,
    }


def truncate(
    archive: AnyArchive,
    *,
    fraction: float | None = None,
    nbytes: int | None = None,
    layers: int | None = None,
) -> bytes:
    """A shorter archive that holds only the first layers; nothing is encoded again.

    Give one of `fraction` (share of the strings' bytes), `nbytes` (of the new archive) and
    `layers`. Returns the new archive; the first layer is always kept, so the result can be
    larger than asked for. Raises LaffError.
    """
    if sum(x is not None for x in (fraction, nbytes, layers)) != 1:
        raise LaffError("truncate takes one of fraction, nbytes and layers")
    parsed = parse(archive)

    def cut(count: int) -> bytes:
        with io.BytesIO() as file:
            container.write(
                parsed.header,
                basis_name=parsed.basis_name,
                basis_sha256=parsed.basis_sha256,
                step=parsed.step,
                passes=parsed.passes,
                tune=parsed.tune,
                max_error=parsed.max_error,
                blocks=parsed.blocks,
                layers=parsed.layers[:count],
                tile=parsed.tile,
                packed=parsed.packed,
                file=file,
            )
            return file.getvalue()

    if nbytes is None:
        return cut(_prefix(parsed, 1.0 if fraction is None else fraction, layers))
    count = len(parsed.layers)
    while count > 1 and len(shorter := cut(count)) > nbytes:
        count -= 1
    return cut(1) if count == 1 else shorter
