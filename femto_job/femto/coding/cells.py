"""The scores of a tile's cells: those that an 8 x 8 DCT would have, whatever its blocks are.

That is the one basis which all blocks share:

- blocks of 8 x 8 pixels in a trained class: their components times the class's SVD basis, which is
  orthonormal and given in DCT scores, are DCT scores;
- blocks of 16 x 16 and 32 x 32 pixels: an orthonormal map, the larger DCT backward and the smaller
  ones forward, done in the frequency domain and only for the frequencies that are there.

Features are these scores; a small picture is their lowest frequencies.
"""

from typing import NamedTuple

import numpy as np

from .blocks import CELL, SIZES, SUPER, ZIGZAG, dct_matrix
from .kernels import f32, kernel, u8


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


SCALES = {2: 25, 4: 5, 8: 1}
"""By what a picture may be made smaller, and how many scores of a cell, along the zigzag, hold the
lowest 4 x 4, 2 x 2 and 1 x 1 that the cell then has as pixels."""


@kernel
def _spread(
    scores: f32[:],
    sizes: u8[:, :],
    stride: int,
    cells: int,
    pitch: int,
    origin: int,
    last: int,
    half: f32[:, :, :],
    there: u8[:],
    out: f32[:, :, :, :],
):
    """Fill out (rows, columns, planes, components) with the 8 x 8 DCT scores of a tile's cells,
    from the zones before `last` of the lattice, of which each plane takes `pitch` values. Room:
    `half` (4, 8, 32) and `there` (32)."""
    rows, columns, planes, components = out.shape
    reach = np.int64(0)  # frequencies of the zones that are there, and of the components
    for z in range(last):
        reach = max(reach, ZIGZAG[z, 0] + 1, ZIGZAG[z, 1] + 1)
    wanted = np.int64(0)
    for k in range(components):
        wanted = max(wanted, ZIGZAG[k, 0] + 1, ZIGZAG[k, 1] + 1)
    for p in range(planes):
        plane_at = p * pitch
        for y in range(rows):
            for x in range(columns):
                cell = origin + y * stride + x
                s = np.int64(sizes[min(p, 1), cell])
                if s == 0:
                    for k in range(components):
                        there_is = k * cells < pitch
                        out[y, x, p, k] = (
                            scores[plane_at + k * cells + cell] if there_is else np.float32(0)
                        )
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


class TileCells(NamedTuple):
    """The cells of a tile: scores, float32 (rows, columns, planes, components), in grey levels;
    sizes, uint8 (2, rows, columns), of luma's and chroma's blocks; classes, uint8 (rows, columns);
    and of three planes the six bytes of their colour transform, else none.
    """

    scores: np.ndarray
    sizes: np.ndarray
    classes: np.ndarray
    colour: bytes


def cells_of(scores: np.ndarray, coded, last: int, components: int) -> TileCells:
    """The cells of a tile, with so many scores along the zigzag.

    Parameters: `scores` float32 on the lattice, plane by plane, of all zones, or of zone 0 alone;
    `coded`, a `Field` or `FirstLayer`; zones from `last` on are empty.
    """
    layout = coded.layout
    out = np.empty((layout.rows, layout.columns, layout.planes, components), np.float32)
    half, there = np.empty((4, CELL, SUPER), np.float32), np.empty(SUPER, np.uint8)
    _spread(
        scores,
        coded.sizes,
        layout.stride,
        layout.cells,
        len(scores) // layout.planes,
        layout.origin,
        last,
        half,
        there,
        out,
    )
    top, left = divmod(layout.origin, layout.stride)
    rows, columns = np.s_[top : top + layout.rows, left : left + layout.columns]
    return TileCells(
        out,
        coded.sizes.reshape(2, -1, layout.stride)[:, rows, columns],
        coded.classes.reshape(-1, layout.stride)[rows, columns],
        coded.colour,
    )


@kernel
def _turn(scores: f32[:, :, :, :], matrix: f32[:, :]):
    rows, columns, _, components = scores.shape
    for y in range(rows):
        for x in range(columns):
            for k in range(components):
                a, b, c = scores[y, x, 0, k], scores[y, x, 1, k], scores[y, x, 2, k]
                for q in range(3):
                    scores[y, x, q, k] = a * matrix[0, q] + b * matrix[1, q] + c * matrix[2, q]


def turn(scores: np.ndarray, matrix: np.ndarray) -> None:
    """Turn scores (rows, columns, 3, components) to other axes of colour, in place; row p of the
    matrix (3, 3) is what plane p adds to each."""
    _turn(scores, np.ascontiguousarray(matrix, np.float32))


@kernel
def _shrink(scores: f32[:, :, :, :], cosines: f32[:, :], out: f32[:, :, :]):
    components, n = scores.shape[3], len(cosines)
    planes, height, width = out.shape
    for p in range(planes):
        for y in range(height):
            for x in range(width):
                total = np.float32(0)
                for k in range(components):
                    u, v = ZIGZAG[k, 0], ZIGZAG[k, 1]
                    if u < n and v < n:
                        total += scores[y // n, x // n, p, k] * (
                            cosines[u, y % n] * cosines[v, x % n]
                        )
                out[p, y, x] = total


def shrink(scores: np.ndarray, scale: int, height: int, width: int) -> np.ndarray:
    """A tile of height x width pixels, `scale` times smaller, from the scores of its cells: planes,
    float32 (planes, height / scale, width / scale), rounded up.

    Of every cell the lowest n x n frequencies, n = 8 / scale, are those of n x n pixels.
    """
    n = CELL // scale
    cosines = dct_matrix(n) / np.sqrt(scale)
    out = np.empty((scores.shape[2], -(-height // scale), -(-width // scale)), np.float32)
    _shrink(scores, cosines.astype(np.float32), out)
    return out
