"""Features of archives for machine learning, read without decoding pixels.

An archive is read as far as its first layers go; of these, the k-strings are entropy-decoded and
nothing else. What comes out is on one grid of 8 x 8 pixels, whatever sizes of blocks an encoder
chose: the archive's scores as those of an 8 x 8 DCT (see `cells`). So a score means the same
everywhere, and with all layers the map is the 8 x 8 DCT of the decoded picture but for its
rounding. Which SVD basis and which size the encoder found best for a place, the picture's visual
words, are arrays of their own.

The same goes for colour: an archive's tiles have each its own axes, whose scores are turned to
those of one frame.

This module knows of the codec's internals what `codec.decode_cells` returns and the zones that end
each layer, and nothing of how strings are coded.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import codec
from ..coding import cells, kstrings
from ..coding.blocks import CELL, GREY_AXES, SIZES, ZONES, colour_matrices
from ..coding.kernels import called, f32, f64, inlined, kernel, u8
from ..coding.model import CLASSES
from ..container import BELIEVED_PIXELS, PASSES, AnyPath, check_pixels
from ..errors import LaffError
from ..tiles import tile_grid

COMPONENTS = 1
"""Default number of components: the first layer's. The coder adapts to what it has read, so that
every score takes its time; of x-rays, two more layers take half as long again and tell no more."""
WORDS = CLASSES + SIZES - 1
"""Visual words of luma: the classes of 8 x 8 blocks, then blocks of 16 x 16 and of 32 x 32."""
FLOOR = 1.0
"""Added to mean energies (squared 8-bit grey levels) before the logarithm: a score below the
quantiser's step is zero, and its energy should be small, not minus infinity."""
SCALES = 3
"""Levels of the wavelet decomposition of the cells' means: details of 16, 32 and 64 pixels."""


@dataclass(frozen=True)
class Features:
    """Features of one picture on a grid of 8 x 8 pixels, row by row from the top left.

    Attributes
    ----------
    scores : float32 (rows, columns, planes, components)
        Orthonormal 8 x 8 DCT scores in grey levels of 8 bits, whatever the archive's quality and
        the picture's own levels: their range counts as 255, so that a picture of 12 bits has the
        scores that it has at 8. Components along the JPEG zigzag. Component 0 is 8 times the
        cell's mean less the middle grey. Planes: one of grey pictures; of RGB pictures luma
        (R+G+B)/√3, then (R-B)/√2 and (2G-R-B)/√6. rows and columns are the picture's height and
        width over 8, rounded up; cells that hang over its edge are as the encoder filled them.
    classes : uint8 (rows, columns)
        Number of the SVD basis of luma's blocks of 8 x 8, 0 for the DCT; 0 in larger blocks.
    sizes : uint8 (rows, columns, kinds)
        0, 1, 2 in blocks of 8, 16 and 32 pixels; kinds: luma, and chroma in RGB pictures.
    height, width, bits : int
        The picture's size in pixels, and its bits per sample.
    """

    scores: NDArray[Any]
    classes: NDArray[Any]
    sizes: NDArray[Any]
    height: int
    width: int
    bits: int

    def words(self) -> NDArray[Any]:
        """Visual words of luma, uint8 (rows, columns): the class (0 to 31) in blocks of 8 x 8,
        32 in blocks of 16 x 16, 33 in blocks of 32 x 32."""
        luma = self.sizes[:, :, 0]
        return np.where(luma == 0, self.classes, CLASSES - 1 + luma).astype(np.uint8)

    def vector(self, grid: int = 4, *, colour: bool = False) -> NDArray[Any]:
        """The features pooled over grid x grid equal parts of the picture, float32 (n,).

        In this order, see `vector_names`: for every plane and part (row by row), the mean grey
        level less the middle, the logarithm of the variance of component 0, and of the mean
        energy of every further component, ln(1 + mean square), and of the details of component 0
        at 16, 32 and 64 pixels: its orthonormal Haar wavelet decomposition (Mallat 1989), at each
        scale what differs between left and right, between top and bottom, and along the diagonals
        (a last row or column without a partner is taken twice); then for every part the share of
        its cells in blocks of 8, 16 and 32 pixels; at last the share of every visual word in the
        picture. All in 8-bit grey levels, of RGB pictures those of (R+G+B)/3, so that grey and
        RGB pictures of all depths can be compared.

        `colour` adds the chroma planes; grey pictures have nothing there. Pictures with fewer
        than `grid` cells a side have equal values in several parts.
        """
        check_grid(grid)
        rows, columns, planes, components = self.scores.shape
        wanted = 3 if colour else 1
        unit = 3**0.5 if planes == 3 else 1.0
        means = np.zeros((grid, grid, wanted))
        energies = np.zeros((grid, grid, wanted, components + 3 * SCALES))
        histogram = np.zeros((grid, grid, WORDS))
        words = self.words()
        _pool(
            np.ascontiguousarray(self.scores, np.float32),
            words,
            1 / unit,
            np.empty((2, rows, columns), np.float32),
            np.empty(((rows + 1) // 2, (columns + 1) // 2, 3), np.float32),
            means,
            energies,
            histogram,
        )
        energies[..., 0] = np.maximum(energies[..., 0] - means * means, 0)
        pooled = np.empty((grid, grid, wanted, energies.shape[3] + 1), np.float32)
        pooled[..., 0] = means / CELL
        pooled[..., 1:] = np.log(FLOOR + energies)
        counts = histogram.sum(axis=2, keepdims=True)
        shares = histogram / counts
        sizes = np.concatenate(
            [shares[..., :CLASSES].sum(axis=2, keepdims=True), shares[..., CLASSES:]], axis=2
        )
        whole = np.bincount(words.ravel(), minlength=WORDS) / (rows * columns)
        return np.concatenate(
            [pooled.transpose(2, 0, 1, 3).ravel(), sizes.ravel(), whole], dtype=np.float32
        )


def vector_names(components: int = COMPONENTS, grid: int = 4, *, colour: bool = False) -> list[str]:
    """Names of the entries of `Features.vector`."""
    parts = [(y, x) for y in range(grid) for x in range(grid)]
    planes = ("luma", "chroma1", "chroma2") if colour else ("luma",)
    names = []
    for plane in planes:
        for y, x in parts:
            at = f"{plane}_y{y}_x{x}"
            names += [f"{at}_mean", f"{at}_log_variance"]
            names += [f"{at}_log_energy{k}" for k in range(1, components)]
            names += [
                f"{at}_log_haar{CELL << level}_{direction}"
                for level in range(1, SCALES + 1)
                for direction in ("x", "y", "xy")
            ]
    names += [f"size{8 << s}_y{y}_x{x}" for y, x in parts for s in range(SIZES)]
    names += [f"class{c}" for c in range(CLASSES)] + ["size16", "size32"]
    return names


def check_grid(grid: int) -> None:
    """LaffError if a picture cannot be pooled over grid x grid parts."""
    if isinstance(grid, bool) or not isinstance(grid, (int, np.integer)) or not 1 <= grid <= 64:
        raise LaffError(f"a grid of {grid!r} parts a side is not possible: choose 1 to 64")


@inlined
def _part(n, g, grid):
    """First and last-but-one of the g-th of `grid` equal parts of n; none is empty."""
    first = g * n // grid
    return first, max((g + 1) * n // grid, first + 1)


@called
def _pool_squares(values, rows, columns, n, scale, first, out):
    """Per part the mean squares of each of values[:rows, :columns, :n], into out (grid, grid, …)
    from `first` on."""
    grid = len(out)
    for gy in range(grid):
        top, bottom = _part(rows, gy, grid)
        for gx in range(grid):
            left, right = _part(columns, gx, grid)
            for k in range(n):
                total = np.float64(0)
                for y in range(top, bottom):
                    for x in range(left, right):
                        value = np.float64(values[y, x, k])
                        total += value * value
                total *= scale * scale / ((bottom - top) * (right - left))
                out[gy, gx, first + k] = total


@called
def _haar_step(smooth, height, width, coarser, details):
    """One step of the orthonormal Haar decomposition of smooth[:height, :width]: what is smooth, of
    half the size, rounded up, and the details (…, 3) in x, in y and in both."""
    for y in range((height + 1) // 2):
        y0, y1 = 2 * y, min(2 * y + 1, height - 1)
        for x in range((width + 1) // 2):
            x0, x1 = 2 * x, min(2 * x + 1, width - 1)
            a, b, c, d = smooth[y0, x0], smooth[y0, x1], smooth[y1, x0], smooth[y1, x1]
            coarser[y, x] = (a + b + c + d) / 2
            details[y, x, 0] = (a - b + c - d) / 2
            details[y, x, 1] = (a + b - c - d) / 2
            details[y, x, 2] = (a - b - c + d) / 2


@kernel
def _pool(
    scores: f32[:, :, :, :],
    words: u8[:, :],
    scale: float,
    smooth: f32[:, :, :],
    details: f32[:, :, :],
    means: f64[:, :, :],
    energies: f64[:, :, :, :],
    histogram: f64[:, :, :],
):
    """Per part (grid, grid, …) how often every word occurs, of every plane the mean of component 0
    and the mean squares of all components and of the wavelet's details. Room: `smooth` (2, rows,
    columns) and `details`, half of that and 3 deep."""
    rows, columns, planes, components = scores.shape
    grid = len(means)
    planes = min(planes, means.shape[2])
    for gy in range(grid):
        top, bottom = _part(rows, gy, grid)
        for gx in range(grid):
            left, right = _part(columns, gx, grid)
            for y in range(top, bottom):
                for x in range(left, right):
                    histogram[gy, gx, words[y, x]] += 1
                    for p in range(planes):
                        means[gy, gx, p] += scores[y, x, p, 0]
            for p in range(planes):
                means[gy, gx, p] *= scale / ((bottom - top) * (right - left))
    for p in range(planes):
        _pool_squares(scores[:, :, p], rows, columns, components, scale, 0, energies[:, :, p])
        for y in range(rows):
            for x in range(columns):
                smooth[0, y, x] = scores[y, x, p, 0]
        height, width = rows, columns
        for level in range(SCALES):
            here = level & 1
            _haar_step(smooth[here], height, width, smooth[1 - here], details)
            height, width = (height + 1) // 2, (width + 1) // 2
            first = components + 3 * level
            _pool_squares(details, height, width, 3, scale, first, energies[:, :, p])


def place_tile(tile: cells.TileCells, y: int, x: int, scores, classes, sizes) -> None:
    """Put a tile whose first cell is (y, x) into the arrays of `Features`."""
    if tile.colour:  # from the tile's planes to the frame's
        cells.turn(tile.scores, colour_matrices(tile.colour)[1] @ GREY_AXES.T)
    rows, columns = tile.scores.shape[:2]
    window = np.s_[y : y + rows, x : x + columns]
    scores[window], classes[window] = tile.scores, tile.classes
    for kind in range(sizes.shape[2]):
        sizes[(*window, kind)] = tile.sizes[kind]


def check_components(components: int) -> None:
    """LaffError if a cell cannot have so many components."""
    if (
        isinstance(components, bool)
        or not isinstance(components, (int, np.integer))
        or not 1 <= components <= ZONES
    ):
        raise LaffError(f"{components!r} components are not possible: choose 1 to {ZONES}")


def layers_of(components: int, passes: int = PASSES[0]) -> int:
    """How many layers of an archive hold the first so many components."""
    check_components(components)
    return int(np.searchsorted(kstrings.zone_ends(passes), components)) + 1


def features(
    archive: codec.AnyArchive,
    *,
    components: int = COMPONENTS,
    layers: int | None = None,
    basis: AnyPath | None = None,
    threads: int = 1,
    max_pixels: int | None = BELIEVED_PIXELS,
) -> Features:
    """Features of a picture from the first layers of its archive; no pixels are decoded.

    Parameters
    ----------
    archive : bytes or path
        An archive, gzip-ed or plain text. It is unpacked and checked as far as it is needed, so
        a file of which just that much arrived will do.
    components : 1 to 64
        How many DCT components a cell gets, along the JPEG zigzag. The first layers hold the
        components before 1, 3, 10 and 64, and only whole layers can be read: these numbers cost
        what they give. What an archive was truncated by is zero.
    layers : int
        Read so many layers, where these are more than the components need. The first layers say
        all scores coarsely; each run of further layers halves the step that they are known to.
    basis : path
        The file of the archive's basis, as for `femto.decode`.
    threads : int
        How many tiles are read at a time.
    max_pixels : int or None
        Refuse pictures of more pixels than that for every MiB of the archive begun, as
        `femto.decode_bands`; None: any number.

    Returns `Features`. Raises LaffError if the archive cannot be used.
    """
    check_components(components)
    wanted = layers or 0

    def believed(found) -> None:
        pixels = found.header.height * found.header.width
        check_pixels(found, pixels, max_pixels, streamed=True)

    parsed = codec.parse(
        archive,
        layers=lambda top: max(wanted, layers_of(components, top.get("passes", PASSES[0]))),
        basis=basis,
        wanted=believed,
    )
    layers = max(wanted, layers_of(components, parsed.passes))
    header = parsed.header
    codec.check_grid_of_cells(parsed)
    rows, columns = -(-header.height // CELL), -(-header.width // CELL)
    kinds = min(header.channels, 2)
    scores = np.empty((rows, columns, header.channels, components), np.float32)
    classes = np.empty((rows, columns), np.uint8)
    sizes = np.empty((rows, columns, kinds), np.uint8)

    def fill(tile) -> None:
        found = codec.decode_cells(parsed, tile.index, layers=layers, components=components)
        place_tile(found, tile.y // CELL, tile.x // CELL, scores, classes, sizes)

    tiles = tile_grid(header.height, header.width, parsed.tile)
    if threads > 1 and len(tiles) > 1:
        with ThreadPoolExecutor(max_workers=threads) as pool:
            list(pool.map(fill, tiles))
    else:  # starting a thread takes as long as reading a small picture's first layer
        for tile in tiles:
            fill(tile)
    if header.levels.scale != 1:
        scores /= np.float32(header.levels.scale)
    return Features(scores, classes, sizes, header.height, header.width, header.bits)
