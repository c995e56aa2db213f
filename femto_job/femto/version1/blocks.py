"""Blocks: where they lie, and the way back from DCT scores to pixels.

A tile is cut into superblocks of 32 x 32 pixels and each of these, as a quadtree, into blocks of
32 x 32, 16 x 16 or 8 x 8; luma and chroma are cut differently. All scores live on one lattice,
whatever the sizes: one value per *zone* and *cell*. A cell is 8 x 8 pixels. A zone (a, b) of the
8 x 8 zones holds, of a block of r x r cells, the r² scores with the frequencies (a r + i, b r + j);
the score (i, j) of the zone lies in the block's cell (i, j). Zones are numbered along the zigzag.
"""

import numpy as np

from ..jit import njit

CELL = 8
SUPER = 32
ZONES = 64
SIZES = 3
"""Block sizes: 0, 1, 2 for 8, 16 and 32 pixels (1, 2 and 4 cells)."""
NO_SIZE = 3
PAD = 8
"""Cells of margin on every side, so that neighbours need no checks."""

_COLOUR = np.array(
    [
        [1 / 3**0.5, 1 / 3**0.5, 1 / 3**0.5],
        [1 / 2**0.5, 0, -1 / 2**0.5],
        [-1 / 6**0.5, 2 / 6**0.5, -1 / 6**0.5],
    ]
).astype(np.float32)
"""Rows: luma and two chroma planes; orthonormal."""


def _dct_matrix(n: int) -> np.ndarray:
    """Orthonormal DCT-II, shape (n, n): row = frequency, column = sample."""
    k, x = np.arange(n)[:, None], np.arange(n)[None, :]
    matrix = np.sqrt(2 / n) * np.cos(np.pi * (2 * x + 1) * k / (2 * n))
    matrix[0] /= np.sqrt(2)
    return matrix


def _zigzag(n: int) -> np.ndarray:
    """The cells (row, column) of an n x n square along the zigzag, shape (n², 2)."""
    cells = [(u + v, u if (u + v) % 2 else v, u, v) for u in range(n) for v in range(n)]
    return np.array([cell[2:] for cell in sorted(cells)], np.int64)


ZIGZAG = _zigzag(8)
"""Zone number -> (a, b)."""
ZONE_OF = np.empty((8, 8), np.int64)
ZONE_OF[ZIGZAG[:, 0], ZIGZAG[:, 1]] = np.arange(ZONES)

DCT = np.zeros((SIZES, SUPER, SUPER), np.float32)
for _s in range(SIZES):
    DCT[_s, : 8 << _s, : 8 << _s] = _dct_matrix(8 << _s)


class Layout:
    """The lattice of a tile of `height` x `width` pixels.

    rows, columns: cells that hold pixels; stride, cells: the padded lattice, in which the cell
    (0, 0) is number `origin`; values are numbered (plane * 65 + zone) * cells + cell, where the
    zone 64 of every plane is always empty.
    """

    def __init__(self, height: int, width: int, planes: int):
        self.height, self.width, self.planes = height, width, planes
        self.rows, self.columns = -(-height // CELL), -(-width // CELL)
        self.stride = 4 * -(-width // SUPER) + 2 * PAD
        self.cells = (4 * -(-height // SUPER) + 2 * PAD) * self.stride
        self.origin = PAD * self.stride + PAD
        self.values = planes * (ZONES + 1) * self.cells


@njit
def list_blocks(sizes, rows, columns, stride, origin, out):
    """Blocks in coding order: superblocks in raster order, in each along the z-curve.

    Fills out (n, 3) int32 with (cell, size, 1 if the block above to the right comes before) and
    returns n. Blocks that hold no pixel are left out.
    """
    n = 0
    for sy in range(0, rows, 4):
        for sx in range(0, columns, 4):
            for quarter in range(4):
                qy, qx = sy + 2 * (quarter >> 1), sx + 2 * (quarter & 1)
                for cell_in in range(4):
                    cy, cx = qy + (cell_in >> 1), qx + (cell_in & 1)
                    if cy >= rows or cx >= columns:
                        continue
                    cell = origin + cy * stride + cx
                    s = np.int64(sizes[cell])
                    r = 1 << s
                    if s == 3 or (cy & (r - 1)) or (cx & (r - 1)):
                        continue
                    before = 1
                    if s == 1 and quarter == 3:
                        before = 0
                    if s == 0 and (cell_in == 3 or (cell_in == 1 and quarter == 3)):
                        before = 0
                    out[n, 0] = cell
                    out[n, 1] = s
                    out[n, 2] = before
                    n += 1
    return n


@njit
def _inverse(scores, sizes, stride, cells, origin, middle, peak, dct, colour, zone_of, out):
    height, width, channels = out.shape
    x = np.empty((channels, 32, 32), np.float32)
    full = np.empty((32, 32), np.float32)
    half = np.empty((32, 32), np.float32)
    for y0 in range(0, height, 32):
        for x0 in range(0, width, 32):
            for p in range(channels):
                plane_at = p * 65 * cells
                for cy in range(4):
                    for cx in range(4):
                        cell = origin + (y0 // 8 + cy) * stride + x0 // 8 + cx
                        s = sizes[min(p, 1), cell]
                        r = 1 << s
                        if s == 3 or (cy & (r - 1)) or (cx & (r - 1)):
                            continue
                        n = 8 * r
                        last = 0
                        for u in range(n):
                            for v in range(n):
                                z = zone_of[u >> s, v >> s]
                                value = scores[
                                    plane_at
                                    + z * cells
                                    + cell
                                    + (u & (r - 1)) * stride
                                    + (v & (r - 1))
                                ]
                                full[u, v] = value
                                if value != 0:
                                    last = u + 1
                        for u in range(last):
                            for j in range(n):
                                half[u, j] = np.float32(0)
                            for v in range(n):
                                c = full[u, v]
                                if c != 0:
                                    for j in range(n):
                                        half[u, j] += c * dct[s, v, j]
                        for i in range(n):
                            for j in range(n):
                                x[p, 8 * cy + i, 8 * cx + j] = np.float32(0)
                            for u in range(last):
                                c = dct[s, u, i]
                                for j in range(n):
                                    x[p, 8 * cy + i, 8 * cx + j] += c * half[u, j]
            for i in range(min(32, height - y0)):
                for j in range(min(32, width - x0)):
                    for c in range(channels):
                        if channels == 1:
                            value = x[0, i, j]
                        else:
                            value = (
                                colour[0, c] * x[0, i, j]
                                + colour[1, c] * x[1, i, j]
                                + colour[2, c] * x[2, i, j]
                            )
                        value += middle
                        out[y0 + i, x0 + j, c] = min(max(np.rint(value), np.float32(0)), peak)


def inverse(scores: np.ndarray, sizes: np.ndarray, layout: Layout, bits: int) -> np.ndarray:
    """The tile whose DCT scores lie on the lattice.

    Parameters: `scores` float32 (layout.values), grey levels; `sizes` uint8 (2, cells).
    Returns uint8 or uint16 (h, w) for one plane, (h, w, 3) for three.
    """
    out = np.empty(
        (layout.height, layout.width, layout.planes), np.uint8 if bits == 8 else np.uint16
    )
    middle, peak = np.float32(1 << (bits - 1)), np.float32((1 << bits) - 1)
    _inverse(
        scores,
        sizes,
        layout.stride,
        layout.cells,
        layout.origin,
        middle,
        peak,
        DCT,
        _COLOUR,
        ZONE_OF,
        out,
    )
    return out if layout.planes == 3 else out[:, :, 0]
