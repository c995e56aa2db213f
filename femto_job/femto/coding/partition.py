"""Which blocks a tile is cut into, and the class of each small one (the first clustering).

Both are chosen before anything is coded, by estimated cost: squared error plus the
quantiser's Lagrangian times bits.

*Sizes.* A block's cost is a sum over its scores of table entries: one for each combination of a
score's magnitude and the mean magnitude around it in frequency, both in steps. The tables, one per
size for luma and chroma, are fitted to what the coder really spent on training pictures.

*Classes.* See `classes`: the cost in a class, relative to that in the DCT, also scales the cost
of the small block when sizes are compared.
"""

from typing import NamedTuple

import numpy as np

from ..samples import Levels
from .blocks import (
    DCT,
    ZIGZAG,
    Layout,
    choose_colour,
    colour_matrices,
    load_superblock,
    store_block,
    transform_superblock,
    transpose,
)
from .classes import TRADE, ZERO_LEVEL, block_cost
from .kernels import called, f32, i32, i64, kernel, u8, u16
from .kstrings import rotate

_MAGNITUDE_ENDS = [0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.1, 1.4, 1.8, 2.5, 3.5, 5, 8, 16]
_AROUND_ENDS = [0.08, 0.13, 0.2, 0.3, 0.42, 0.6, 0.9, 1.4, 2.2, 4]
MAGNITUDE_BINS, AROUND_BINS = len(_MAGNITUDE_ENDS) + 1, len(_AROUND_ENDS) + 1
TERMS = MAGNITUDE_BINS * AROUND_BINS + 1
"""Entries of a cost table: the combinations, and a constant."""
MARGIN = np.float32(1.15)
"""How much better a class must look than the DCT: the best of many estimates is too good."""
_FINENESS = 32
"""Entries of the lookup tables per step."""
_LOOKUP = 1024
MAGNITUDE_BIN = np.searchsorted(_MAGNITUDE_ENDS, np.arange(_LOOKUP) / _FINENESS).astype(np.int16)
AROUND_BIN = np.searchsorted(_AROUND_ENDS, np.arange(_LOOKUP) / _FINENESS).astype(np.int16)


class Learned(NamedTuple):
    """What the choice takes of a basis: of size costs (2, 3, terms), of bases forward (classes, 64,
    64), of the classes' levels (classes, 63) and prices (classes)."""

    tables: f32[:, :, :]
    forward: f32[:, :, :]
    levels: i32[:, :]
    prices: f32[:]


class Room(NamedTuple):
    """Room for one superblock: pixels, (planes, 32, 32) and turned; its scores, (planes, sizes, 32,
    32); magnitudes and sums of them, with a margin; table entries; of the 16 small blocks costs and
    classes; a small block's scores as they are and turned to a class; how many blocks are stored
    of luma and chroma."""

    pixels: f32[:, :, :]
    across: f32[:, :]
    half: f32[:, :, :]
    transformed: f32[:, :, :, :]
    capped: f32[:, :]
    wide: f32[:, :]
    bins: i64[:, :]
    small: f32[:]
    chosen: i64[:]
    plain: f32[:]
    turned: f32[:]
    stored: i64[:]


def _new_room(planes: int) -> Room:
    return Room(
        np.empty((planes, 32, 32), np.float32),
        np.empty((32, 32), np.float32),
        np.empty((2, 32, 32), np.float32),
        np.empty((planes, 3, 32, 32), np.float32),
        np.zeros((34, 34), np.float32),
        np.zeros((34, 32), np.float32),
        np.zeros((32, 32), np.int64),
        np.zeros(16, np.float32),
        np.zeros(16, np.int64),
        np.zeros(64, np.float32),
        np.zeros(64, np.float32),
        np.zeros(2, np.int64),
    )


@called
def _bins(transformed, y0, x0, n, inverse_step, room):
    """Number of the table entry of every score of the block at (y0, x0), into room.bins[:n, :n]."""
    capped, wide, out = room.capped, room.wide, room.bins
    for u in range(n):
        capped[u + 1, 0] = np.float32(0)
        capped[u + 1, n + 1] = np.float32(0)
        for v in range(n):
            a = abs(transformed[y0 + u, x0 + v]) * inverse_step
            capped[u + 1, v + 1] = min(a, np.float32(4) + a * np.float32(0.25))
    capped[1, 1] = np.float32(0)
    for v in range(n + 2):
        capped[0, v] = np.float32(0)
        capped[n + 1, v] = np.float32(0)
    for u in range(n + 2):
        for v in range(n):
            wide[u, v] = capped[u, v] + capped[u, v + 1] + capped[u, v + 2]
    for u in range(n):
        for v in range(n):
            a = abs(transformed[y0 + u, x0 + v]) * inverse_step
            around = (wide[u, v] + wide[u + 1, v] + wide[u + 2, v] - capped[u + 1, v + 1]) / 8
            i = MAGNITUDE_BIN[np.int64(min(a * _FINENESS, np.float32(_LOOKUP - 1)))]
            j = AROUND_BIN[np.int64(min(around * _FINENESS, np.float32(_LOOKUP - 1)))]
            out[u, v] = i * AROUND_BINS + j


@called
def _block_estimate(transformed, y0, x0, n, inverse_step, room, table):
    _bins(transformed, y0, x0, n, inverse_step, room)
    bins = room.bins
    cost = table[TERMS - 1]
    for u in range(n):
        for v in range(n):
            cost += table[bins[u, v]]
    cost -= table[bins[0, 0]]
    return max(cost, np.float32(0.01))


@called
def _best_class(transformed, y0, x0, inverse_step, shift, learned, room):
    """The class in which the small block at (y0, x0) costs least, and its cost there relative to
    that in the DCT."""
    plain, turned, forward = room.plain, room.turned, learned.forward
    busy = False
    for z in range(1, 64):
        value = inverse_step * transformed[y0 + ZIGZAG[z, 0], x0 + ZIGZAG[z, 1]]
        plain[z] = value
        if abs(value) > np.float32(0.6):
            busy = True
    best, dct_cost, best_cost = np.int64(0), np.float64(0), np.float64(1e30)
    if busy:
        for c in range(len(forward)):
            if c == 0:
                cost = block_cost(plain[1:], 63, learned.levels[0], shift)
                dct_cost = cost
            else:
                for e in range(64):
                    turned[e] = np.float32(0)
                for z in range(1, 64):
                    value = plain[z]
                    for e in range(64):
                        turned[e] += value * forward[c, z, e]
                cost = block_cost(turned[1:], 63, learned.levels[c], shift)
            cost += TRADE * (learned.prices[c] - learned.prices[0])
            if c > 0:
                cost *= MARGIN
            if cost < best_cost:
                best_cost = cost
                best = np.int64(c)
    if dct_cost > 0:
        return best, best_cost / dct_cost
    return best, np.float64(1)


@called
def _set_size(sizes, cell, stride, size):
    """The size of 2 x 2 cells."""
    for y in range(2):
        for x in range(2):
            sizes[cell + y * stride + x] = size


@called
def _choose(
    kind, first, last, rows, columns, stride, corner, inverse_step, shift, learned, room, sizes
):
    """Choose the sizes of luma's or chroma's blocks in a superblock, planes first … last - 1, of
    which `rows` x `columns` cells hold pixels; and luma's classes, into room.chosen."""
    small, transformed, tables = room.small, room.transformed, learned.tables
    for i in range(16):
        small[i] = np.float32(0)
        room.chosen[i] = 0
        cy, cx = i >> 2, i & 3
        if cy >= rows or cx >= columns:
            continue
        for p in range(first, last):
            small[i] += _block_estimate(
                transformed[p, 0], 8 * cy, 8 * cx, 8, inverse_step, room, tables[kind, 0]
            )
        if kind == 0 and len(learned.forward) > 1:
            best, relative = _best_class(
                transformed[0, 0], 8 * cy, 8 * cx, inverse_step, shift, learned, room
            )
            room.chosen[i] = best
            small[i] *= relative
    whole = np.float32(0)
    for p in range(first, last):
        whole += _block_estimate(transformed[p, 2], 0, 0, 32, inverse_step, room, tables[kind, 2])
    parts = np.float32(0)
    for quad in range(4):
        qy, qx = 2 * (quad >> 1), 2 * (quad & 1)
        if qy >= rows or qx >= columns:
            continue
        cost = np.float32(0)
        for p in range(first, last):
            cost += _block_estimate(
                transformed[p, 1], 8 * qy, 8 * qx, 16, inverse_step, room, tables[kind, 1]
            )
        at = 4 * qy + qx
        fours = small[at] + small[at + 1] + small[at + 4] + small[at + 5]
        _set_size(sizes[kind], corner + qy * stride + qx, stride, 1 if cost < fours else 0)
        parts += min(cost, fours)
    if whole < parts:
        _force(kind, rows, columns, stride, corner, 2, sizes)


@called
def _force(kind, rows, columns, stride, corner, size, sizes):
    """Give all blocks of a superblock one size."""
    for quad in range(4):
        qy, qx = 2 * (quad >> 1), 2 * (quad & 1)
        if qy < rows and qx < columns:
            _set_size(sizes[kind], corner + qy * stride + qx, stride, size)


@called
def _store(
    kind, first, last, rows, columns, stride, cells, corner, inverse_step, room, scores, sizes,
    classes, counts,
):  # fmt: skip
    """Store the scores, and classes, of a superblock's blocks in coding order."""
    bins, stored = room.bins, room.stored
    for place in range(16):
        quad, inner = place >> 2, place & 3
        cy, cx = 2 * (quad >> 1) + (inner >> 1), 2 * (quad & 1) + (inner & 1)
        if cy >= rows or cx >= columns:
            continue
        cell = corner + cy * stride + cx
        s = np.int64(sizes[kind, cell])
        r = 1 << s
        if (cy & (r - 1)) or (cx & (r - 1)):
            continue
        for p in range(first, last):
            transformed = room.transformed[p, s]
            store_block(transformed, 8 * cy, 8 * cx, s, cells, stride, cell, p * 65 * cells, scores)
            if stored[kind] < counts.shape[1]:
                n = 8 << s
                _bins(transformed, 8 * cy, 8 * cx, n, inverse_step, room)
                for u in range(n):
                    for v in range(n):
                        if u + v > 0:
                            counts[kind, stored[kind], bins[u, v]] += 1
                counts[kind, stored[kind], TERMS - 1] += 1
        stored[kind] += 1
        if kind == 0 and s == 0:
            classes[cell] = room.chosen[4 * cy + cx]


@kernel
def _analyse(
    pixels: u8[:, :, :] | u16[:, :, :],
    forced: int,
    middle: f32,
    inverse_step: f32,
    shift: int,
    colour: f32[:, :],
    learned: Learned,
    rows: int,
    columns: int,
    stride: int,
    cells: int,
    origin: int,
    room: Room,
    scores: f32[:],
    sizes: u8[:, :],
    classes: u8[:],
    counts: f32[:, :, :],
):
    """Transform a tile, choose sizes and classes, and store the scores of the chosen blocks.

    `forced` -1, or the size that all blocks get, without classes; then `counts` (2, blocks,
    terms), if it has room, receives the table entries that each block in coding order uses.
    """
    channels = pixels.shape[2]
    for sy in range(0, rows, 4):
        for sx in range(0, columns, 4):
            load_superblock(pixels, sy * 8, sx * 8, middle, colour, room.pixels)
            corner = origin + sy * stride + sx
            there_y, there_x = rows - sy, columns - sx  # cells that hold pixels
            for p in range(channels):
                transpose(room.pixels[p], room.across)
                for s in range(3):
                    if forced < 0 or forced == s:
                        transform_superblock(
                            room.across, 8 << s, DCT[s], room.half, room.transformed[p, s]
                        )
            for kind in range(min(channels, 2)):
                first, last = (0, 1) if kind == 0 else (1, channels)
                if forced < 0:
                    _choose(
                        kind, first, last, there_y, there_x, stride, corner, inverse_step, shift,
                        learned, room, sizes,
                    )  # fmt: skip
                else:
                    _force(kind, there_y, there_x, stride, corner, forced, sizes)
                _store(
                    kind, first, last, there_y, there_x, stride, cells, corner, inverse_step,
                    room, scores, sizes, classes, counts,
                )  # fmt: skip


def analyse(
    pixels: np.ndarray,
    step: float,
    levels: Levels,
    basis,
    field,
    *,
    classes: bool = True,
    size: int = -1,
    counts: np.ndarray | None = None,
) -> np.ndarray:
    """Choose the blocks of a tile and compute their scores.

    Parameters: `pixels` (h, w) or (h, w, 3), uint8 or uint16; `step` in grey levels; `levels`
    that the picture uses; `basis` a Basis; `field` a fresh Field, whose sizes and classes are
    set; `classes`, whether to look for classes, which takes most of the time. For training, `size`
    forces all blocks to one size and `counts` receives the terms of every block.
    Returns the scores, float32 on the lattice, those of trained classes rotated.
    """
    layout: Layout = field.layout
    pixels = np.ascontiguousarray(pixels).reshape(layout.height, layout.width, layout.planes)
    scores = np.zeros(layout.values, np.float32)
    colour = np.eye(3, dtype=np.float32)
    if layout.planes == 3:
        field.colour = choose_colour(pixels)
        colour = colour_matrices(field.colour)[0]
    if counts is None:
        counts = np.zeros((2, 0, TERMS), np.float32)
    forward = basis.forward if classes else basis.forward[:1]
    learned = Learned(basis.size_costs, forward, basis.levels, basis.prices)
    shift = ZERO_LEVEL - round(4 * float(np.log2(step / levels.scale)))
    _analyse(
        pixels,
        size,
        levels.middle,
        1 / step,
        shift,
        colour,
        learned,
        layout.rows,
        layout.columns,
        layout.stride,
        layout.cells,
        layout.origin,
        _new_room(layout.planes),
        scores,
        field.sizes,
        field.classes,
        counts,
    )
    field.list_blocks()
    rotate(scores, field.lists[0], field.classes, layout.cells, basis.forward)
    return scores
