"""A coded tile in integers: what residuals refer to.

The picture that a tile's strings stand for is made with floating-point numbers and filtered, and
may differ by a level from one machine to the next. Its rendition is the same picture without the
filter, made of integers alone, so that every machine has the very same one.
"""

import math
from fractions import Fraction

import numpy as np

from ..samples import Levels
from .blocks import SUPER, ZONE_OF, ZONES
from .contexts import LINES, Field
from .kernels import i32, i64, kernel, u8
from .kstrings import MEAN_OFFSET, PERCEPTUAL

UNIT = 256
"""Scores and planes are counted in so many parts of a grey level,"""
TURN = 1 << 14
"""the entries of colour transforms in so many parts of one,"""
FINE = 16
"""and a rendition's samples in so many parts of a level."""
MARGIN = 4
"""Samples around a tile, which go on with what lies at its border."""
_LIMIT = 1 << 30
_INVERSE = ([17039, -1586, -308], [-1586, 14734, -605], [-308, -605, 17729])
"""What undoes the metric of errors, N of docs/SPEC.md, in 1 / TURN."""
_USUAL = ([9235, 10690, 8300], [11222, -432, -11930])
"""The first two axes of a tile that stores none."""
CHANNELS = {1: (0,), 3: (1, 0, 2)}
"""The order in which samples are coded: green, which tells most of the others, first."""


@kernel
def _render(
    values: i32[:],
    used: i64[:],
    sizes: u8[:, :],
    classes: u8[:],
    components: i32[:, :, :],
    steps: i64[:],
    stride: int,
    cells: int,
    origin: int,
    room: i64[:, :, :],
    out: i32[:, :, :],
):
    """Planes, in 1 / UNIT of a grey level, from quantised scores; as `blocks._inverse`."""
    planes, height, width = out.shape
    full, half, turned = room[0], room[1], room[2, 0]
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
                        value = np.int64(values[at])
                        if u == 0 and v == 0:
                            value -= MEAN_OFFSET << s
                        if used[p] == 0:
                            value = np.int64(0)
                        value = min(max(value * steps[z], -_LIMIT), _LIMIT)
                        full[u, v] = value
                        if value != 0:
                            last = u + 1
                c = np.int64(classes[cell])
                if p == 0 and s == 0 and c > 0:
                    for z in range(ZONES - 1):
                        turned[z] = np.int64(0)
                    for u in range(8):
                        for v in range(8):
                            value = full[u, v]
                            if u + v > 0 and value != 0:
                                row = components[c - 1, ZONE_OF[u, v] - 1]
                                for z in range(ZONES - 1):
                                    turned[z] += value * np.int64(row[z])
                    for u in range(8):
                        for v in range(8):
                            if u + v > 0:
                                value = (turned[ZONE_OF[u, v] - 1] + 16384) >> 15
                                full[u, v] = min(max(value, -_LIMIT), _LIMIT)
                    last = 8
                for u in range(last):
                    for j in range(n):
                        half[u, j] = np.int64(512)
                    for v in range(n):
                        value = full[u, v]
                        if value != 0:
                            for j in range(n):
                                half[u, j] += value * LINES[s, v, j]
                    for j in range(n):
                        half[u, j] = half[u, j] >> 10
                for i in range(min(n, height - y0)):
                    for j in range(min(n, width - x0)):
                        total = np.int64(512)
                        for u in range(last):
                            total += LINES[s, u, i] * half[u, j]
                        out[p, y0 + i, x0 + j] = min(max(total >> 10, -_LIMIT), _LIMIT)


@kernel
def _mix(
    planes: i32[:, :, :],
    matrix: i64[:, :],
    middle: int,
    least: int,
    most: int,
    out: i32[:, :, :],
):
    """Samples, in 1 / FINE of a level, from planes; out has a margin on every side."""
    count, height, width = planes.shape
    for c in range(count):
        for y in range(height):
            for x in range(width):
                total = np.int64(1 << 17)
                for p in range(count):
                    total += np.int64(planes[p, y, x]) * matrix[p, c]
                value = middle + (total >> 18)
                out[c, MARGIN + y, MARGIN + x] = min(max(value, least), most)


def _normal(vector: list[int]) -> list[int]:
    """A vector of length TURN."""
    length = math.isqrt(sum(x * x for x in vector) << 20)
    return [(x << 24) // length for x in vector]


def _cross(a: list[int], b: list[int]) -> list[int]:
    return [a[i - 2] * b[i - 1] - a[i - 1] * b[i - 2] for i in range(3)]


def colour_matrix(stored: bytes) -> list[list[int]]:
    """What planes give to R, G and B, in 1 / TURN; row = plane. As `blocks.colour_matrices`, in
    integers."""
    numbers = [x - 256 * (x > 127) for x in stored]
    first, second = numbers[:3], numbers[3:]
    if any(first) and any(_cross(first, second)):
        square, along = sum(x * x for x in first), sum(map(int.__mul__, first, second))
        second = _normal([square * b - along * a for a, b in zip(first, second, strict=True)])
        first = _normal(first)
    else:
        first, second = _USUAL
    third = [x >> 14 for x in _cross(first, second)]
    return [
        [sum(axis[k] * _INVERSE[k][c] for k in range(3)) >> 14 for c in range(3)]
        for axis in (first, second, third)
    ]


def steps_of(step: float, tune: str) -> list[int]:
    """The steps of all zones in 1 / UNIT of a grey level, rounded down."""
    weights = PERCEPTUAL if tune == "perceptual" else np.ones(ZONES)
    return [math.floor(Fraction(step) * UNIT / Fraction(float(weight))) for weight in weights]


def render(field: Field, step: float, basis, levels: Levels, limits: Levels) -> np.ndarray:
    """The rendition of a tile whose layers are all there.

    Returns int32 (planes, MARGIN + h + MARGIN, MARGIN + w + MARGIN), in 1 / FINE of a level,
    channels in the order of CHANNELS.
    """
    layout = field.layout
    count, height, width = layout.planes, layout.height, layout.width
    planes = np.empty((count, height, width), np.int32)
    _render(
        field.values,
        field.used[0],
        field.sizes,
        field.classes,
        basis.components.astype(np.int32),
        np.array(steps_of(step, field.tune), np.int64),
        layout.stride,
        layout.cells,
        layout.origin,
        np.empty((3, SUPER, SUPER * 2), np.int64),
        planes,
    )
    matrix = np.full((1, 1), TURN, np.int64)
    if count == 3:
        matrix = np.array(colour_matrix(field.colour), np.int64)[:, CHANNELS[3]]
    out = np.empty((count, height + 2 * MARGIN, width + 2 * MARGIN), np.int32)
    middle = FINE * levels.low + 128 * FINE * (levels.high - levels.low) // 255
    _mix(
        planes,
        np.ascontiguousarray(matrix),
        middle,
        FINE * limits.low,
        FINE * limits.high,
        out,
    )
    out[:, :, :MARGIN] = out[:, :, MARGIN : MARGIN + 1]
    out[:, :, MARGIN + width :] = out[:, :, MARGIN + width - 1 : MARGIN + width]
    out[:, :MARGIN] = out[:, MARGIN : MARGIN + 1]
    out[:, MARGIN + height :] = out[:, MARGIN + height - 1 : MARGIN + height]
    return out
