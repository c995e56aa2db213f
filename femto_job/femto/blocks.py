"""From pixels to the DCT scores of blocks and back: colour transform, 16x16 blocks, zones.

Scores are kept in zone order, the order in which they are coded. The 8x8 zones (a, b) of a block
hold four scores each, those of the frequencies (2a, 2b), (2a, 2b + 1), (2a + 1, 2b) and
(2a + 1, 2b + 1); zones are numbered along the zigzag. An array of scores has the shape
(planes, 64 zones, block rows, block columns, 4).
"""

import numpy as np

from .jit import njit

BLOCK = 16
ZONES = 64
SUB = 4
"""Scores in a zone."""

COLOUR = np.array(
    [
        [1 / 3**0.5, 1 / 3**0.5, 1 / 3**0.5],
        [1 / 2**0.5, 0, -1 / 2**0.5],
        [-1 / 6**0.5, 2 / 6**0.5, -1 / 6**0.5],
    ]
)
"""Rows: luma and two chroma planes. Orthonormal, so that one quantiser step for all planes
minimises the error of R, G and B together."""


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

_DCT = np.ascontiguousarray(dct_matrix(BLOCK).astype(np.float32))
_DCT_T = np.ascontiguousarray(_DCT.T)
_COLOUR = COLOUR.astype(np.float32)


@njit
def _forward(pixels, middle, dct, dct_t, colour, zone_of, out):
    height, width, channels = pixels.shape
    x = np.empty((channels, 16, 16), np.float32)
    half = np.empty((16, 16), np.float32)
    full = np.empty((16, 16), np.float32)
    for by in range(out.shape[2]):
        for bx in range(out.shape[3]):
            for i in range(16):
                # Outside the picture its last row and column go on: no new edges to code.
                y = min(by * 16 + i, height - 1)
                for j in range(16):
                    xx = min(bx * 16 + j, width - 1)
                    if channels == 1:
                        x[0, i, j] = np.float32(pixels[y, xx, 0]) - middle
                    else:
                        r = np.float32(pixels[y, xx, 0]) - middle
                        g = np.float32(pixels[y, xx, 1]) - middle
                        b = np.float32(pixels[y, xx, 2]) - middle
                        for p in range(3):
                            x[p, i, j] = colour[p, 0] * r + colour[p, 1] * g + colour[p, 2] * b
            for p in range(channels):
                for u in range(16):
                    for j in range(16):
                        half[u, j] = np.float32(0)
                    for i in range(16):
                        c = dct[u, i]
                        for j in range(16):
                            half[u, j] += c * x[p, i, j]
                for u in range(16):
                    for v in range(16):
                        full[u, v] = np.float32(0)
                    for j in range(16):
                        c = half[u, j]
                        for v in range(16):
                            full[u, v] += c * dct_t[j, v]
                for a in range(8):
                    for b in range(8):
                        z = zone_of[a, b]
                        out[p, z, by, bx, 0] = full[2 * a, 2 * b]
                        out[p, z, by, bx, 1] = full[2 * a, 2 * b + 1]
                        out[p, z, by, bx, 2] = full[2 * a + 1, 2 * b]
                        out[p, z, by, bx, 3] = full[2 * a + 1, 2 * b + 1]


@njit
def _inverse(scores, middle, peak, dct, dct_t, colour, zone_of, out):
    height, width, channels = out.shape
    x = np.empty((channels, 16, 16), np.float32)
    half = np.empty((16, 16), np.float32)
    full = np.empty((16, 16), np.float32)
    for by in range(scores.shape[2]):
        for bx in range(scores.shape[3]):
            for p in range(channels):
                last = 0
                for a in range(8):
                    for b in range(8):
                        z = zone_of[a, b]
                        for i in range(4):
                            value = scores[p, z, by, bx, i]
                            full[2 * a + (i >> 1), 2 * b + (i & 1)] = value
                            if value != 0:
                                last = 2 * a + 2
                for u in range(last):
                    for j in range(16):
                        half[u, j] = np.float32(0)
                    for v in range(16):
                        c = full[u, v]
                        if c != 0:
                            for j in range(16):
                                half[u, j] += c * dct[v, j]
                for i in range(16):
                    for j in range(16):
                        x[p, i, j] = np.float32(0)
                    for u in range(last):
                        c = dct_t[i, u]
                        for j in range(16):
                            x[p, i, j] += c * half[u, j]
            for i in range(min(16, height - by * 16)):
                y = by * 16 + i
                for j in range(min(16, width - bx * 16)):
                    xx = bx * 16 + j
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
                        out[y, xx, c] = min(max(np.rint(value), np.float32(0)), peak)


def forward(pixels: np.ndarray, bits: int) -> np.ndarray:
    """DCT scores of a tile.

    Parameters: `pixels` (h, w) or (h, w, 3), uint8 or uint16; `bits` 8 or 16.
    Returns float32 (planes, 64, ceil(h / 16), ceil(w / 16), 4), in grey levels.
    """
    pixels = np.ascontiguousarray(pixels).reshape(*pixels.shape[:2], -1)
    height, width, channels = pixels.shape
    out = np.empty((channels, ZONES, -(-height // BLOCK), -(-width // BLOCK), SUB), np.float32)
    middle = np.float32(1 << (bits - 1))
    _forward(pixels, middle, _DCT, _DCT_T, _COLOUR, ZONE_OF, out)
    return out


def inverse(scores: np.ndarray, height: int, width: int, bits: int) -> np.ndarray:
    """The tile whose DCT scores are `scores`, float32 as `forward` returns them.

    Returns uint8 or uint16 (h, w) for one plane, (h, w, 3) for three.
    """
    channels = scores.shape[0]
    out = np.empty((height, width, channels), np.uint8 if bits == 8 else np.uint16)
    middle, peak = np.float32(1 << (bits - 1)), np.float32((1 << bits) - 1)
    _inverse(scores, middle, peak, _DCT, _DCT_T, _COLOUR, ZONE_OF, out)
    return out if channels == 3 else out[:, :, 0]
