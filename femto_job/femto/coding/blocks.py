"""Blocks: where they lie, their DCT scores, and the way back to pixels.

A tile is cut into superblocks of 32 x 32 pixels and each of these, as a quadtree, into blocks of
32 x 32, 16 x 16 or 8 x 8; luma and chroma are cut differently. All scores live on one lattice,
whatever the sizes: one value per *zone* and *cell*. A cell is 8 x 8 pixels. A zone (a, b) of the
8 x 8 zones holds, of a block of r x r cells, the r² scores with the frequencies (a r + i, b r + j);
the score (i, j) of the zone lies in the block's cell (i, j). Zones are numbered along the zigzag.

So the lattice of a zone covers the tile without gaps, a zone's neighbours in space are its
neighbours in the lattice, and a block of any size is a square of it.
"""

import numpy as np

from ..samples import Levels
from .kernels import called, f32, i32, i64, kernel, u8, u16

CELL = 8
SUPER = 32
ZONES = 64
SIZES = 3
"""Block sizes: 0, 1, 2 for 8, 16 and 32 pixels (1, 2 and 4 cells)."""
NO_SIZE = 3
PAD = 8
"""Cells of margin on every side, so that neighbours need no checks."""

LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114])
LUMA_SHARE = 1.5
"""How much an error of luminance counts beside those of R, G and B together."""
GREY_AXES = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]) / np.sqrt([[3], [2], [6]])
"""A rotation of R, G and B into their sum and two differences: a frame for all pictures."""


def _error_metric() -> tuple[np.ndarray, np.ndarray]:
    """The symmetric matrix of determinant 1 that turns an error e of R, G, B into one whose length
    squared is, up to a factor, |e|² + LUMA_SHARE (LUMA_WEIGHTS e)²; and its inverse."""
    length = float(LUMA_WEIGHTS @ LUMA_WEIGHTS)
    stretch = np.sqrt(1 + LUMA_SHARE * length)
    along = np.outer(LUMA_WEIGHTS, LUMA_WEIGHTS) / length
    scale = stretch ** (1 / 3)
    return (np.eye(3) + (stretch - 1) * along) / scale, (
        np.eye(3) + (1 / stretch - 1) * along
    ) * scale


_METRIC, _INVERSE_METRIC = _error_metric()
GREY_SCALE = float(np.sqrt((_METRIC.sum(axis=1) ** 2).sum()))
"""How much larger a grey level is in the luma of an RGB picture than in a grey picture."""


@kernel
def _difference_products(pixels: u8[:, :, :] | u16[:, :, :], out: i64[:, :]):
    """Sums of products of the channels' differences between neighbours, into out (3, 3)."""
    height, width, _ = pixels.shape
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0)):
                if y + dy < height and x + dx < width:
                    r = np.int64(pixels[y + dy, x + dx, 0]) - np.int64(pixels[y, x, 0])
                    g = np.int64(pixels[y + dy, x + dx, 1]) - np.int64(pixels[y, x, 1])
                    b = np.int64(pixels[y + dy, x + dx, 2]) - np.int64(pixels[y, x, 2])
                    out[0, 0] += r * r
                    out[0, 1] += r * g
                    out[0, 2] += r * b
                    out[1, 1] += g * g
                    out[1, 2] += g * b
                    out[2, 2] += b * b


def _product(*matrices: np.ndarray) -> np.ndarray:
    """Product of 3 x 3 matrices, in plain arithmetic: a BLAS or LAPACK would round it otherwise
    on every kind of processor, and archives should not depend on that."""
    result = matrices[0].tolist()
    for other in matrices[1:]:
        b = other.tolist()
        result = [
            [row[0] * b[0][j] + row[1] * b[1][j] + row[2] * b[2][j] for j in range(3)]
            for row in result
        ]
    return np.array(result)


def _eigenvectors(matrix: np.ndarray) -> np.ndarray:
    """Rows: eigenvectors of a symmetric 3 x 3 matrix, largest eigenvalue first (Jacobi)."""
    matrix, vectors = matrix.copy(), np.eye(3)
    for _ in range(12):
        for p, q in ((0, 1), (0, 2), (1, 2)):
            if abs(matrix[p, q]) > 1e-30:
                tau = (matrix[q, q] - matrix[p, p]) / (2 * matrix[p, q])
                t = (1.0 if tau >= 0 else -1.0) / (abs(tau) + np.sqrt(1 + tau * tau))
                c = 1 / np.sqrt(1 + t * t)
                turn = np.eye(3)
                turn[p, p] = turn[q, q] = c
                turn[p, q], turn[q, p] = t * c, -t * c
                matrix = _product(turn.T, matrix, turn)
                vectors = _product(vectors, turn)
    return vectors.T[np.argsort(-np.diag(matrix), kind="stable")]


def choose_colour(pixels: np.ndarray) -> bytes:
    """The colour transform that suits a tile (h, w, 3) best, as six bytes; see
    `colour_matrices`.

    Its rows are the principal axes of the differences between neighbours, where lengths are
    measured by what an error counts.
    """
    sums = np.zeros((3, 3), np.int64)
    _difference_products(np.ascontiguousarray(pixels), sums)
    products = (sums + np.triu(sums, 1).T).astype(np.float64)
    if (products == products[0, 0]).all():
        return bytes(6)  # R, G and B change together: chroma is exactly flat
    axes = _eigenvectors(_product(_METRIC, products / products.trace(), _METRIC))
    # Opposite axes are the same; those nearest to the grey ones have the usual statistics.
    axes = axes * np.where((axes * GREY_AXES).sum(1) < 0, -1, 1)[:, None]
    return np.rint(axes[:2] * 127).astype(np.int8).tobytes()


def colour_matrices(stored: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The matrices from R, G, B to luma and chroma and back, float32 (3, 3), row = plane in both.

    stored: two rows of a rotation, signed bytes in 1/127. They are made orthonormal; the third
    is perpendicular to them. Zeros stand for rows in which luma is exactly grey.
    """
    first, second = np.frombuffer(stored, np.int8).astype(np.float64).reshape(2, 3)
    if not first.any() or not np.cross(first, second).any():
        first, second = _METRIC.sum(axis=1), GREY_AXES[1]
    first = first / np.sqrt((first * first).sum())
    second = second - (second * first).sum() * first
    second = second / np.sqrt((second * second).sum())
    axes = np.stack([first, second, np.cross(first, second)])
    forward, back = _product(axes, _METRIC), _product(axes, _INVERSE_METRIC)
    return forward.astype(np.float32), back.astype(np.float32)


def dct_matrix(n: int) -> np.ndarray:
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
    DCT[_s, : 8 << _s, : 8 << _s] = dct_matrix(8 << _s)


class Layout:
    """The lattice of a tile of `height` x `width` pixels.

    rows, columns: cells that hold pixels; stride, cells: the padded lattice, in which the cell
    (0, 0) is number `origin`; values are numbered (plane * 65 + zone) * cells + cell, where the
    zone 64 of every plane is always empty.
    """

    def __init__(self, height: int, width: int, planes: int):
        self.height, self.width, self.planes = height, width, planes
        self.rows, self.columns = -(-height // CELL), -(-width // CELL)
        self.super_rows, self.super_columns = -(-height // SUPER), -(-width // SUPER)
        self.stride = 4 * self.super_columns + 2 * PAD
        self.cells = (4 * self.super_rows + 2 * PAD) * self.stride
        self.origin = PAD * self.stride + PAD
        self.values = planes * (ZONES + 1) * self.cells

    def no_sizes(self) -> np.ndarray:
        """Block sizes of every cell before they are known, uint8 (2, cells): luma, chroma."""
        return np.full((2, self.cells), NO_SIZE, np.uint8)


@called
def load_superblock(pixels, y0, x0, middle, colour, out):
    """Colour-transform the 32 x 32 pixels at (y0, x0) into out (planes, 32, 32), float32.

    Outside the picture its last row and column go on: no new edges to code.
    """
    height, width, channels = pixels.shape
    for i in range(32):
        y = min(y0 + i, height - 1)
        for j in range(32):
            x = min(x0 + j, width - 1)
            if channels == 1:
                out[0, i, j] = np.float32(pixels[y, x, 0]) - middle
            else:
                r = np.float32(pixels[y, x, 0]) - middle
                g = np.float32(pixels[y, x, 1]) - middle
                b = np.float32(pixels[y, x, 2]) - middle
                for p in range(3):
                    out[p, i, j] = colour[p, 0] * r + colour[p, 1] * g + colour[p, 2] * b


@called
def _transform_columns(x, n, dct, half, out):
    """DCT of every n samples of every column of x (32, 32), into out; half (32, 32) is room.

    Sums and differences of opposite samples make the even and the odd frequencies: half the work.
    """
    h = n >> 1
    for y0 in range(0, 32, n):
        for i in range(h):
            for j in range(32):
                a, b = x[y0 + i, j], x[y0 + n - 1 - i, j]
                half[i, j] = a + b
                half[h + i, j] = a - b
        for u in range(n):
            at = h * (u & 1)
            for j in range(32):
                out[y0 + u, j] = np.float32(0)
            for i in range(0, h, 4):
                c0, c1, c2, c3 = dct[u, i], dct[u, i + 1], dct[u, i + 2], dct[u, i + 3]
                k = at + i
                for j in range(32):
                    out[y0 + u, j] += (c0 * half[k, j] + c1 * half[k + 1, j]) + (
                        c2 * half[k + 2, j] + c3 * half[k + 3, j]
                    )


@called
def transpose(x, out):
    """Write x (32, 32) into out, rows as columns."""
    for i in range(32):
        for j in range(32):
            out[i, j] = x[j, i]


@called
def transform_superblock(turned, n, dct, room, out):
    """DCT of all n x n blocks of 32 x 32 pixels, given `turned`, rows as columns; out (32, 32)
    holds each block's scores, row = vertical frequency, where the block's pixels lay. `room`
    (2, 32, 32)."""
    _transform_columns(turned, n, dct, room[0], out)
    transpose(out, room[1])
    _transform_columns(room[1], n, dct, room[0], out)


@called
def store_block(transformed, y0, x0, s, cells, stride, cell, plane_at, scores):
    """Copy the scores of the block at (y0, x0) of `transformed` to the lattice."""
    r = 1 << s
    for u in range(8 * r):
        for v in range(8 * r):
            z = ZONE_OF[u >> s, v >> s]
            at = plane_at + z * cells + cell + (u & (r - 1)) * stride + (v & (r - 1))
            scores[at] = transformed[y0 + u, x0 + v]


@kernel
def _inverse(
    scores: f32[:],
    sizes: u8[:, :],
    stride: int,
    cells: int,
    origin: int,
    room: f32[:, :, :],
    out: f32[:, :, :],
):
    planes, height, width = out.shape
    full, half = room[0], room[1]
    for p in range(planes):
        plane_at = p * 65 * cells
        for y0 in range(0, height, 8):
            for x0 in range(0, width, 8):
                cy, cx = y0 >> 3, x0 >> 3
                cell = origin + cy * stride + cx
                s = np.int64(sizes[min(p, 1), cell])
                r = 1 << s
                if s == 3 or (cy & (r - 1)) or (cx & (r - 1)):
                    continue
                n = 8 * r
                last = 0
                for u in range(n):
                    for v in range(n):
                        z = ZONE_OF[u >> s, v >> s]
                        at = plane_at + z * cells + cell + (u & (r - 1)) * stride + (v & (r - 1))
                        value = scores[at]
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
                                half[u, j] += c * DCT[s, v, j]
                for i in range(min(n, height - y0)):
                    row = out[p, y0 + i]
                    for j in range(min(n, width - x0)):
                        row[x0 + j] = np.float32(0)
                    for u in range(last):
                        c = DCT[s, u, i]
                        for j in range(min(n, width - x0)):
                            row[x0 + j] += c * half[u, j]


def inverse(scores: np.ndarray, sizes: np.ndarray, layout: Layout) -> np.ndarray:
    """The planes of the tile whose DCT scores lie on the lattice.

    Parameters: `scores` float32 (layout.values); `sizes` uint8 (2, cells).
    Returns float32 (planes, h, w).
    """
    out = np.empty((layout.planes, layout.height, layout.width), np.float32)
    room = np.empty((2, SUPER, SUPER), np.float32)
    _inverse(scores, sizes, layout.stride, layout.cells, layout.origin, room, out)
    return out


@kernel
def _to_pixels(
    planes: f32[:, :, :],
    colour: f32[:, :],
    middle: f32,
    peak: f32,
    out: u8[:, :, :] | u16[:, :, :],
):
    height, width, channels = out.shape
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                if channels == 1:
                    value = planes[0, y, x]
                else:
                    value = (
                        colour[0, c] * planes[0, y, x]
                        + colour[1, c] * planes[1, y, x]
                        + colour[2, c] * planes[2, y, x]
                    )
                value += middle
                out[y, x, c] = min(max(np.rint(value), np.float32(0)), peak)


def to_pixels(
    planes: np.ndarray, colour: bytes, dtype, levels: Levels, limits: Levels | None = None
) -> np.ndarray:
    """Pixels from planes, float32 (1 or 3, h, w), and the colour transform (six bytes).

    `dtype` uint8 or uint16; `levels` as they were analysed with; `limits` of the samples, the
    levels if None. Returns (h, w) for one plane, (h, w, 3) for three.
    """
    count, height, width = planes.shape
    low, high = levels if limits is None else limits
    out = np.empty((height, width, count), dtype)
    matrix = colour_matrices(colour)[1] if count == 3 else np.eye(3, dtype=np.float32)
    _to_pixels(planes, matrix, np.float32(levels.middle - low), np.float32(high - low), out)
    if low:
        out += out.dtype.type(low)
    return out if count == 3 else out[:, :, 0]


@kernel
def list_blocks(
    sizes: u8[:], rows: int, columns: int, stride: int, origin: int, out: i32[:, :]
) -> int:
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
