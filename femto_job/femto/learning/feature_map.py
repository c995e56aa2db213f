"""Features of archives for machine learning, read without decoding pixels.

An archive is read as far as its first layers go; of these, the k-strings are entropy-decoded and
nothing else. What comes out is on one grid of 8 x 8 pixels, whatever sizes of blocks an encoder
chose: the archive's scores as those of an 8 x 8 DCT. That is the one basis which all blocks share:

- blocks of 8 x 8 pixels in a trained class: their components times the class's SVD basis, which is
  orthonormal and given in DCT scores, are DCT scores;
- blocks of 16 x 16 and 32 x 32 pixels: an orthonormal map, the larger DCT backward and the smaller
  ones forward, done in the frequency domain and only for the frequencies that are there.

So a score means the same everywhere, and with all layers the map is the 8 x 8 DCT of the decoded
picture but for its rounding. Which SVD basis and which size the encoder found best for a place,
the picture's visual words, are arrays of their own.

The same goes for colour: an archive's tiles have each its own axes, whose scores are turned to
those of one frame.

This module knows of the codec's internals what `codec.decode_scores` returns, the lattice of
`blocks`, and the zones that end each layer, and nothing of how strings are coded.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import codec
from ..coding import kstrings
from ..coding.blocks import CELL, GREY_AXES, SIZES, SUPER, ZIGZAG, ZONES, dct_matrix
from ..coding.kernels import f32, f64, inlined, kernel, u8
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


def _split_matrices() -> np.ndarray:
    """float32 (SIZES, 4, 8, 32): [s, p] takes the DCT of 8·2^s samples to the 8-point DCT of the
    p-th eight of them."""
    matrices = np.zeros((SIZES, 4, 8, SUPER), np.float32)
    small = dct_matrix(CELL)
    for s in range(SIZES):
        n = CELL << s
        for p in range(1 << s):
            matrices[s, p, :, :n] = small @ dct_matrix(n)[:, CELL * p : CELL * (p + 1)].T
    return matrices


_SPLIT = _split_matrices()


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
        values = np.ascontiguousarray(self.scores, np.float32)
        _pool(values, self.words(), 1 / unit, means, histogram)
        for plane in range(min(planes, wanted)):
            scores = np.ascontiguousarray(values[:, :, plane])
            parts = [scores]
            smooth = np.ascontiguousarray(scores[:, :, 0])
            for _ in range(SCALES):
                smooth, details = _haar_step(smooth)
                parts.append(details)
            first = 0
            for part in parts:
                found = np.zeros((grid, grid, part.shape[2]))
                _pool_squares(part, 1 / unit, found)
                energies[:, :, plane, first : first + part.shape[2]] = found
                first += part.shape[2]
        energies[..., 0] = np.maximum(energies[..., 0] - means * means, 0)
        pooled = np.empty((grid, grid, wanted, energies.shape[3] + 1), np.float32)
        pooled[..., 0] = means / CELL
        pooled[..., 1:] = np.log(FLOOR + energies)
        counts = histogram.sum(axis=2, keepdims=True)
        shares = histogram / counts
        sizes = np.concatenate(
            [shares[..., :CLASSES].sum(axis=2, keepdims=True), shares[..., CLASSES:]], axis=2
        )
        whole = np.bincount(self.words().ravel(), minlength=WORDS) / (rows * columns)
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


@kernel
def _pool(
    scores: f32[:, :, :, :],
    words: u8[:, :],
    scale: float,
    means: f64[:, :, :],
    histogram: f64[:, :, :],
):
    """Per part and plane the mean of component 0; and how often every word occurs."""
    rows, columns, planes, _ = scores.shape
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


@kernel
def _pool_squares(values: f32[:, :, :], scale: float, out: f64[:, :, :]):
    """Per part the mean squares of each of values (rows, columns, n), into out (grid, grid, n)."""
    rows, columns, n = values.shape
    grid = len(out)
    for gy in range(grid):
        top, bottom = _part(rows, gy, grid)
        for gx in range(grid):
            left, right = _part(columns, gx, grid)
            for y in range(top, bottom):
                for x in range(left, right):
                    for k in range(n):
                        value = np.float64(values[y, x, k])
                        out[gy, gx, k] += value * value
            for k in range(n):
                out[gy, gx, k] *= scale * scale / ((bottom - top) * (right - left))


@kernel
def _haar(smooth: f32[:, :], coarser: f32[:, :], details: f32[:, :, :]):
    height, width = smooth.shape
    rows, columns = coarser.shape
    for y in range(rows):
        y0, y1 = 2 * y, min(2 * y + 1, height - 1)
        for x in range(columns):
            x0, x1 = 2 * x, min(2 * x + 1, width - 1)
            a, b, c, d = smooth[y0, x0], smooth[y0, x1], smooth[y1, x0], smooth[y1, x1]
            coarser[y, x] = (a + b + c + d) / 2
            details[y, x, 0] = (a - b + c - d) / 2
            details[y, x, 1] = (a + b - c - d) / 2
            details[y, x, 2] = (a - b - c + d) / 2


def _haar_step(smooth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One step of the orthonormal Haar decomposition of (rows, columns): what is smooth, of half
    the size, rounded up, and the details (…, 3) in x, in y and in both."""
    shape = tuple((n + 1) // 2 for n in smooth.shape)
    coarser, details = np.empty(shape, np.float32), np.empty((*shape, 3), np.float32)
    _haar(smooth, coarser, details)
    return coarser, details


@kernel
def _spread(
    scores: f32[:],
    sizes: u8[:, :],
    stride: int,
    cells: int,
    origin: int,
    last: int,
    half: f32[:, :, :],
    there: u8[:],
    out: f32[:, :, :, :],
):
    """Fill out (rows, columns, planes, components) with the 8 x 8 DCT scores of a tile's cells,
    from the zones before `last` of the lattice. Room: `half` (4, 8, 32) and `there` (32)."""
    rows, columns, planes, components = out.shape
    reach = np.int64(0)  # frequencies of the zones that are there, and of the components
    for z in range(last):
        reach = max(reach, ZIGZAG[z, 0] + 1, ZIGZAG[z, 1] + 1)
    wanted = np.int64(0)
    for k in range(components):
        wanted = max(wanted, ZIGZAG[k, 0] + 1, ZIGZAG[k, 1] + 1)
    for p in range(planes):
        plane_at = p * 65 * cells
        for y in range(rows):
            for x in range(columns):
                cell = origin + y * stride + x
                s = np.int64(sizes[min(p, 1), cell])
                if s == 0:
                    for k in range(components):
                        out[y, x, p, k] = scores[plane_at + k * cells + cell]
                    continue
                r = np.int64(1) << s
                if (y & (r - 1)) or (x & (r - 1)):
                    continue
                n = reach * r
                for v in range(n):
                    there[v] = 0
                for z in range(last):
                    for i in range(r):
                        for j in range(r):
                            value = scores[plane_at + z * cells + cell + i * stride + j]
                            if value == 0:
                                continue
                            u, v = ZIGZAG[z, 0] * r + i, ZIGZAG[z, 1] * r + j
                            if not there[v]:
                                there[v] = 1
                                for q in range(r):
                                    for e in range(wanted):
                                        half[q, e, v] = np.float32(0)
                            for q in range(r):
                                for e in range(wanted):
                                    half[q, e, v] += _SPLIT[s, q, e, u] * value
                for i in range(min(r, rows - y)):
                    for j in range(min(r, columns - x)):
                        for k in range(components):
                            a, b = ZIGZAG[k, 0], ZIGZAG[k, 1]
                            total = np.float32(0)
                            for v in range(n):
                                if there[v]:
                                    total += half[i, a, v] * _SPLIT[s, j, b, v]
                            out[y + i, x + j, p, k] = total


def place_tile(coded, field, colour, last: int, scores, classes, sizes) -> None:
    """Put a tile into the arrays of `Features`, which are filled in place.

    Parameters: `coded` DCT scores on the tile's lattice, its `field` and `colour`, as from
    `codec.decode_scores`; `last`, zones from this one on are empty.
    """
    layout = field.layout
    found = np.empty(scores.shape, np.float32)
    half, there = np.empty((4, CELL, SUPER), np.float32), np.empty(SUPER, np.uint8)
    _spread(
        coded,
        field.sizes,
        layout.stride,
        layout.cells,
        layout.origin,
        last,
        half,
        there,
        found,
    )
    if colour is not None:
        turn = (colour @ GREY_AXES.T).astype(np.float32)  # from the tile's planes to the frame's
        found = np.einsum("yxpk,pq->yxqk", found, turn)
    scores[:] = found
    top, left = divmod(layout.origin, layout.stride)
    inside = np.s_[top : top + layout.rows, left : left + layout.columns]
    classes[:] = field.classes.reshape(-1, layout.stride)[inside]
    for kind in range(sizes.shape[2]):
        sizes[:, :, kind] = field.sizes[kind].reshape(-1, layout.stride)[inside]


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
    if parsed.tile % CELL:
        raise LaffError(
            f"{parsed.name}: tiles of {parsed.tile} pixels do not lie on a grid of {CELL}: "
            "decode it and compress it again"
        )
    rows, columns = -(-header.height // CELL), -(-header.width // CELL)
    kinds = min(header.channels, 2)
    scores = np.empty((rows, columns, header.channels, components), np.float32)
    classes = np.empty((rows, columns), np.uint8)
    sizes = np.empty((rows, columns, kinds), np.uint8)
    ends = kstrings.zone_ends(parsed.passes)
    last = ends[min(layers, len(parsed.layers), len(ends)) - 1] if parsed.layers else 0

    def fill(tile) -> None:
        coded, field, colour = codec.decode_scores(parsed, tile.index, layers=layers)
        y, x = tile.y // CELL, tile.x // CELL
        window = np.s_[y : y + field.layout.rows, x : x + field.layout.columns]
        place_tile(coded, field, colour, last, scores[window], classes[window], sizes[window])

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
