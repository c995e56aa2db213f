"""Restoration: what the decoder does against blocking and ringing, at no cost in bits.

A classified Wiener filter (as the adaptive loop filter of VVC, here trained beforehand and outside
any loop). Every pixel gets a correction that is linear in the clipped differences between its
neighbours and itself, `clip(a - x) + clip(b - x)` for the neighbours a and b on opposite sides,
with three limits of clipping: the narrow ones see quantisation noise and the wide one edges. The
weights belong to the pixel's class: local activity in quantiser steps, local direction (from the
structure tensor, where that has one) and the distances to the nearest borders of its block.
Luma and chroma have weights of their own.

Everything is measured in the plane's quantiser step, so that one table serves all steps and bit
depths. Arithmetic is float32 in a fixed order: equal input gives equal output everywhere.
"""

from typing import NamedTuple

import numpy as np

from .blocks import CELL, Layout
from .kernels import called, f32, f64, i64, kernel, u8, u32

TAPS = np.array(
    [(0, 1), (0, 2), (0, 3), (1, -2), (1, -1), (1, 0), (1, 1), (1, 2), (2, -1), (2, 0), (2, 1),
     (3, 0)],
    np.int64,
)  # fmt: skip
"""One (row, column) of each opposite pair: a 7 x 7 diamond."""
LIMITS = np.array([0.25, 0.7, 2.0], np.float32)
"""Where the differences are clipped, in steps."""
FEATURES = len(TAPS) * len(LIMITS)

ACTIVITIES = (2.0 ** ((np.arange(1, 12) - 6) / 2)).astype(np.float32)
"""Bounds between classes of activity: sums of the two second differences, in steps."""
ANGLES = 8
COHERENCES = np.array([0.4, 0.7], np.float32)
"""A group whose structure tensor is less coherent than the first has no direction; those that are
more coherent than the second are told from the others."""
DIRECTIONS = 1 + ANGLES * len(COHERENCES)
FAR = 2
"""Distance from a block's border at which it no longer matters."""
PLACES = (FAR + 1) ** 2
CLASSES = (len(ACTIVITIES) + 1) * DIRECTIONS * PLACES
GROUP = 2
"""Side of the groups of pixels that share an activity and a direction."""
MARGIN = 4
"""Rows and columns that go on outside the tile."""
WEIGHT_ONE = 4096
"""A weight of 1 in the table."""
_EIGHTH = np.float32(np.tan(np.pi / 8))
_TWO = np.float32(2)
_RUN = 64
"""Pixels filtered at a time; their features fit into the first-level cache."""


class Table(NamedTuple):
    """Trained weights in 1/WEIGHT_ONE, int16 (CLASSES, FEATURES)."""

    luma: np.ndarray
    chroma: np.ndarray


def no_weights() -> Table:
    """Those of a filter that changes nothing."""
    return Table(*np.zeros((2, CLASSES, FEATURES), np.int16))


@kernel
def _activity_and_direction(
    around: f32[:, :], step: f32, sums: f32[:, :, :], s: f32[:, :], classes: i64[:, :]
):
    """Fill classes (group rows, group columns) with activity * DIRECTIONS + direction.

    around: the plane with its margin. Sums run over the 3 x 3 groups around each group. Room:
    `sums` (group rows, group columns, 4) and `s` (group columns + 2, 4).
    """
    rows, columns = classes.shape
    for i in range(rows):
        for j in range(columns):
            activity, xx, yy, xy = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for y in range(MARGIN + GROUP * i, MARGIN + GROUP * i + GROUP):
                for x in range(MARGIN + GROUP * j, MARGIN + GROUP * j + GROUP):
                    twice = _TWO * around[y, x]
                    left, right = around[y, x - 1], around[y, x + 1]
                    above, below = around[y - 1, x], around[y + 1, x]
                    activity += abs(twice - left - right) + abs(twice - above - below)
                    dx, dy = right - left, below - above
                    xx += dx * dx
                    yy += dy * dy
                    xy += dx * dy
            sums[i, j, 0], sums[i, j, 1], sums[i, j, 2], sums[i, j, 3] = activity, xx, yy, xy
    pixels = np.float32(9 * GROUP * GROUP)
    floor = np.float32(1e-4) * step * step * pixels
    for i in range(rows):
        above, below = max(i - 1, 0), min(i + 1, rows - 1)
        for j in range(columns):
            for e in range(4):
                s[j + 1, e] = sums[above, j, e] + sums[i, j, e] + sums[below, j, e]
        for e in range(4):
            s[0, e], s[columns + 1, e] = s[1, e], s[columns, e]
        for j in range(columns):
            activity = s[j, 0] + s[j + 1, 0] + s[j + 2, 0]
            xx = s[j, 1] + s[j + 1, 1] + s[j + 2, 1]
            yy = s[j, 2] + s[j + 1, 2] + s[j + 2, 2]
            xy = s[j, 3] + s[j + 1, 3] + s[j + 2, 3]
            level = 0
            for bound in range(len(ACTIVITIES)):
                if activity >= ACTIVITIES[bound] * step * pixels:
                    level += 1
            # The vector (u, v) has twice the angle of the gradient.
            u, v = xx - yy, _TWO * xy
            length, total = u * u + v * v, xx + yy + floor
            direction = 0
            if length > COHERENCES[0] * COHERENCES[0] * total * total:
                if abs(v) <= _EIGHTH * abs(u):
                    direction = 1 if u > 0 else 5
                elif abs(u) <= _EIGHTH * abs(v):
                    direction = 3 if v > 0 else 7
                elif u > 0:
                    direction = 2 if v > 0 else 8
                else:
                    direction = 4 if v > 0 else 6
                if length > COHERENCES[1] * COHERENCES[1] * total * total:
                    direction += ANGLES
            classes[i, j] = level * DIRECTIONS + direction


@called
def _places(sizes, stride, origin, y, out):
    """Fill out (width) with the place of row y's pixels in their blocks."""
    for x in range(len(out)):
        last = (CELL << np.int64(sizes[origin + (y >> 3) * stride + (x >> 3)])) - 1
        i, j = y & last, x & last
        out[x] = (FAR + 1) * min(i, last - i, FAR) + min(j, last - j, FAR)


@called
def _pairs(around, y, x, n, limits, out):
    """Fill out (taps * limits, n) with the clipped differences of n pixels from (y, x) on."""
    centre = around[y + MARGIN, x + MARGIN : x + MARGIN + n]
    for t in range(len(TAPS)):
        dy, dx = TAPS[t, 0], TAPS[t, 1]
        a = around[y + MARGIN + dy, x + MARGIN + dx : x + MARGIN + dx + n]
        b = around[y + MARGIN - dy, x + MARGIN - dx : x + MARGIN - dx + n]
        for c in range(len(limits)):
            limit = limits[c]
            row = out[c * len(TAPS) + t]
            for i in range(n):
                row[i] = min(max(a[i] - centre[i], -limit), limit) + min(
                    max(b[i] - centre[i], -limit), limit
                )


class Room(NamedTuple):
    """What `_filter` and `_gather` need room for."""

    features: f32[:, :]
    spread: f32[:, :]
    places: i64[:]
    total: f32[:]
    at: u32[:]
    column: f64[:]


def _new_room(width: int) -> Room:
    return Room(
        np.empty((FEATURES, _RUN), np.float32),
        np.empty((FEATURES, _RUN), np.float32),
        np.empty(width, np.int64),
        np.empty(_RUN, np.float32),
        np.empty(_RUN, np.uint32),
        np.empty(FEATURES),
    )


@kernel
def _filter(
    around: f32[:, :],
    groups: i64[:, :],
    sizes: u8[:],
    stride: int,
    origin: int,
    limits: f32[:],
    room: Room,
    weights: f32[:, :],
    out: f32[:, :],
):
    """Correct one plane with weights (features, classes).

    They are first laid out beside their features, so that the sum runs over whole vectors;
    unsigned indices spare the compiler the case of negative ones.
    """
    height, width = out.shape
    count = weights.shape[0]
    features, spread, places = room.features, room.spread, room.places
    total, at = room.total, room.at
    for y in range(height):
        _places(sizes, stride, origin, y, places)
        for x in range(0, width, _RUN):
            n = min(_RUN, width - x)
            _pairs(around, y, x, n, limits, features)
            for i in range(n):
                total[i] = np.float32(0)
                at[i] = groups[y >> 1, (x + i) >> 1] * PLACES + places[x + i]
            for f in range(count):
                of_class, weight = weights[f], spread[f]
                for i in range(n):
                    weight[i] = of_class[at[i]]
            for f in range(count):
                weight, feature = spread[f], features[f]
                for i in range(n):
                    total[i] += weight[i] * feature[i]
            for i in range(n):
                out[y, x + i] = around[y + MARGIN, x + MARGIN + i] + total[i]


def _with_margin(plane: np.ndarray) -> np.ndarray:
    """The plane, its last rows and columns going on outside; even numbers of both inside."""
    height, width = plane.shape
    margin = ((MARGIN, MARGIN + height % GROUP), (MARGIN, MARGIN + width % GROUP))
    return np.pad(np.asarray(plane, np.float32), margin, mode="edge")


def _groups(around: np.ndarray, height: int, width: int, step: np.float32) -> np.ndarray:
    rows, columns = -(-height // GROUP), -(-width // GROUP)
    groups = np.empty((rows, columns), np.int64)
    sums, s = np.empty((rows, columns, 4), np.float32), np.empty((columns + 2, 4), np.float32)
    _activity_and_direction(around, step, sums, s, groups)
    return groups


def _prepared(plane: np.ndarray, kind: int, sizes: np.ndarray, layout: Layout, step: np.float32):
    """What `_filter` and `_gather` take of a plane first; `kind` is 0 for luma, 1 for chroma."""
    around = _with_margin(plane)
    groups = _groups(around, *plane.shape, step)
    room = _new_room(plane.shape[1])
    return around, groups, sizes[kind], layout.stride, layout.origin, LIMITS * step, room


def _weights(stored: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(stored.T).astype(np.float32) / np.float32(WEIGHT_ONE)


def restore(planes: np.ndarray, sizes: np.ndarray, layout: Layout, steps, table) -> np.ndarray:
    """Remove some of the quantisation error of a decoded tile.

    Parameters
    ----------
    planes : float32 (p, h, w), p = 1 or 3
        Luma, or luma and two chroma planes, as they come from the inverse block transform.
    sizes : uint8 (2, layout.cells)
        Block sizes of luma and chroma (`Field.sizes`).
    layout : Layout
        The tile's.
    steps : p numbers
        The quantiser step of each plane, in its units.
    table : Table
        Trained weights, from `solve`.

    Returns float32 (p, h, w); the input is not changed.
    """
    out = np.empty(planes.shape, np.float32)
    for p in range(len(planes)):
        kind = min(p, 1)
        prepared = _prepared(planes[p], kind, sizes, layout, np.float32(steps[p]))
        _filter(*prepared, _weights(table[kind]), out[p])
    return out


# --- training --------------------------------------------------------------------------------

BORROWED = 1000
"""Pixels that a class borrows from the more general one, so that small classes are not
overfitted."""


class Equations(NamedTuple):
    """Normal equations of the filter's weights, in steps, of luma or of chroma: sums of xᵀx
    (CLASSES, FEATURES, FEATURES), of xᵀy (CLASSES, FEATURES), and pixels (CLASSES)."""

    gram: f64[:, :, :]
    moment: f64[:, :]
    pixels: f64[:]


@kernel
def _gather(
    around: f32[:, :],
    groups: i64[:, :],
    sizes: u8[:],
    stride: int,
    origin: int,
    limits: f32[:],
    room: Room,
    error: f32[:, :],
    step: f32,
    equations: Equations,
):
    """Add one plane to the normal equations; everything in steps."""
    height, width = error.shape
    gram, moment, pixels = equations.gram, equations.moment, equations.pixels
    count = gram.shape[1]
    features, places, column = room.features, room.places, room.column
    for y in range(height):
        _places(sizes, stride, origin, y, places)
        for x in range(0, width, _RUN):
            n = min(_RUN, width - x)
            _pairs(around, y, x, n, limits, features)
            for i in range(n):
                at = groups[y >> 1, (x + i) >> 1] * PLACES + places[x + i]
                target = error[y, x + i] / step
                for f in range(count):
                    column[f] = features[f, i] / step
                for f in range(count):
                    value = column[f]
                    moment[at, f] += value * target
                    for e in range(count):
                        gram[at, f, e] += value * column[e]
                pixels[at] += 1


def _feature_order(transposed: bool, mirrored: bool) -> list[int]:
    """Where the features of a transposed or mirrored picture are found in the picture's own."""
    places = {}
    for n, (y, x) in enumerate(TAPS.tolist()):
        places[y, x] = places[-y, -x] = n
    order = []
    for y, x in TAPS.tolist():
        y, x = (x, y) if transposed else (y, x)
        order.append(places[y, -x if mirrored else x])
    return [c * len(TAPS) + n for c in range(len(LIMITS)) for n in order]


def _with_symmetries(gram, moment, pixels):
    """The equations of the pictures and of their transposed and mirrored copies together."""
    level, direction, i, j = np.meshgrid(
        np.arange(len(ACTIVITIES) + 1),
        np.arange(DIRECTIONS),
        np.arange(FAR + 1),
        np.arange(FAR + 1),
        indexing="ij",
    )
    sums = [np.zeros_like(gram), np.zeros_like(moment), np.zeros_like(pixels)]
    for transposed in (False, True):
        for mirrored in (False, True):
            order = _feature_order(transposed, mirrored)
            angle = (direction - 1) % ANGLES  # of the gradient, doubled, in eighths of a turn
            angle = 4 - angle if transposed else angle
            angle = (-angle if mirrored else angle) % ANGLES
            turned = np.where(direction > 0, direction - (direction - 1) % ANGLES + angle, 0)
            row, column = (j, i) if transposed else (i, j)
            place = (FAR + 1) * row + column
            source = ((level * DIRECTIONS + turned) * PLACES + place).ravel()
            sums[0] += gram[source][:, order][:, :, order]
            sums[1] += moment[source][:, order]
            sums[2] += pixels[source]
    return sums


def no_equations() -> tuple[Equations, Equations]:
    """Empty ones of luma and of chroma."""
    shapes = ((CLASSES, FEATURES, FEATURES), (CLASSES, FEATURES), (CLASSES,))
    return tuple(Equations(*map(np.zeros, shapes)) for _ in range(2))


def gather(equations, original, planes, sizes, layout: Layout, steps) -> None:
    """Add a coded tile: `original` float32 (p, h, w) holds its planes before coding, the rest is
    what `restore` gets."""
    for p in range(len(planes)):
        kind, step = min(p, 1), np.float32(steps[p])
        prepared = _prepared(planes[p], kind, sizes, layout, step)
        _gather(*prepared, original[p] - planes[p], step, equations[kind])


def _solve(equations: Equations, known: np.ndarray, trusted: float) -> np.ndarray:
    """Weights of every class. What is to be added to the known ones borrows from the class's
    direction, that from its activity."""
    known = known.astype(np.float64)
    moment = equations.moment - np.einsum("cij,cj->ci", equations.gram, known / WEIGHT_ONE)
    gram, moment, pixels = _with_symmetries(equations.gram, moment, equations.pixels)
    shape = (len(ACTIVITIES) + 1, DIRECTIONS, PLACES)
    gram = gram.reshape(*shape, FEATURES, FEATURES)
    moment, pixels = moment.reshape(*shape, FEATURES), pixels.reshape(shape)
    borrowed = None
    for axes in ((0, 1, 2), (1, 2), (2,), ()):
        found = [x.sum(axes, keepdims=True) for x in (gram, moment, pixels)]
        # As if it had seen so many more pixels at which the known weights were right.
        found[0] *= (1 + trusted / np.maximum(found[2], 1))[..., None, None]
        if borrowed is not None:
            share = BORROWED / np.maximum(borrowed[2], 1)
            found[0] = found[0] + share[..., None, None] * borrowed[0]
            found[1] = found[1] + share[..., None] * borrowed[1]
            found[2] = found[2] + share * borrowed[2]
        borrowed = found
    gram, moment, _ = borrowed
    ridge = 1e-4 * np.trace(gram, axis1=-2, axis2=-1)[..., None, None] / FEATURES + 1e-3
    weights = np.linalg.solve(gram + ridge * np.eye(FEATURES), moment[..., None])[..., 0]
    stored = np.rint(weights * WEIGHT_ONE).reshape(CLASSES, FEATURES) + known
    return np.clip(stored, -32767, 32767).astype(np.int16)


def solve(equations, known: Table, trusted: float = 0) -> Table:
    """The weights that leave the least squared error, in steps, so that every quality has its say;
    near `known` ones, which in every class count for so many pixels."""
    return Table(*(_solve(*both, trusted) for both in zip(equations, known, strict=True)))
