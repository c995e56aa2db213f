"""Which blocks a tile is cut into, and the class of each small one (the first clustering).

Both are chosen before anything is coded, by estimated cost: squared error plus the
quantiser's Lagrangian times bits.

*Sizes.* A block's cost is a sum over its scores of table entries: one for each combination of a
score's magnitude and the mean magnitude around it in frequency, both in steps. The tables, one per
size for luma and chroma, are fitted to what the coder really spent on training pictures.

*Classes.* See `classes`: the cost in a class, relative to that in the DCT, also scales the cost
of the small block when sizes are compared.
"""

import numpy as np

from .blocks import (
    DCT,
    ZIGZAG,
    ZONE_OF,
    Layout,
    choose_colour,
    colour_matrices,
    load_superblock,
    store_block,
    transform_superblock,
    transpose,
)
from .classes import BITS, EIGHTH, EXPECTED, QUARTER, TRADE, ZERO_LEVEL, block_cost
from .jit import in_place, njit
from .kstrings import rotate
from .samples import Levels

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


@in_place
def _bins(transformed, y0, x0, n, inverse_step, capped, wide, out):
    """Number of the table entry of every score of the block at (y0, x0), into out[:n, :n]."""
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


@in_place
def _block_estimate(transformed, y0, x0, n, inverse_step, capped, wide, bins, table):
    _bins(transformed, y0, x0, n, inverse_step, capped, wide, bins)
    cost = table[TERMS - 1]
    for u in range(n):
        for v in range(n):
            cost += table[bins[u, v]]
    cost -= table[bins[0, 0]]
    return max(cost, np.float32(0.01))


@njit
def _analyse(
    pixels,
    forced,
    middle,
    inverse_step,
    dct,
    colour,
    zone_of,
    zigzag,
    tables,
    forward,
    levels,
    prices,
    margin,
    shift,
    bits,
    expected,
    quarter,
    eighth,
    trade,
    rows,
    columns,
    stride,
    cells,
    origin,
    scores,
    sizes,
    classes,
    counts,
):
    """Transform a tile, choose sizes and classes, and store the scores of the chosen blocks.

    `forced` -1, or the size that all blocks get, without classes; then `counts` (2, blocks,
    terms), if it has room, receives the table entries that each block in coding order uses.
    """
    _height, _width, channels = pixels.shape
    x = np.empty((channels, 32, 32), np.float32)
    across = np.empty((32, 32), np.float32)
    room = np.empty((2, 32, 32), np.float32)
    transformed = np.empty((channels, 3, 32, 32), np.float32)
    capped = np.zeros((34, 34), np.float32)
    wide = np.zeros((34, 32), np.float32)
    bins = np.zeros((32, 32), np.int64)
    small = np.zeros(16, np.float32)
    chosen = np.zeros(16, np.int64)
    plain = np.empty(64, np.float32)
    turned = np.empty(64, np.float32)
    listed = np.zeros(2, np.int64)
    count_of_classes = len(forward)
    for sy in range(0, rows, 4):
        for sx in range(0, columns, 4):
            load_superblock(pixels, sy * 8, sx * 8, middle, colour, x)
            corner = origin + sy * stride + sx
            for p in range(channels):
                transpose(x[p], across)
                for s in range(3):
                    if forced < 0 or forced == s:
                        transform_superblock(across, 8 << s, dct[s], room, transformed[p, s])
            for kind in range(min(channels, 2)):
                first, last = (0, 1) if kind == 0 else (1, channels)
                for i in range(16):
                    small[i] = np.float32(0)
                    chosen[i] = 0
                if forced < 0:
                    # Small blocks, and their classes.
                    for i in range(16):
                        cy, cx = i >> 2, i & 3
                        if sy + cy >= rows or sx + cx >= columns:
                            continue
                        for p in range(first, last):
                            small[i] += _block_estimate(
                                transformed[p, 0],
                                8 * cy,
                                8 * cx,
                                8,
                                inverse_step,
                                capped,
                                wide,
                                bins,
                                tables[kind, 0],
                            )
                        if kind == 0 and count_of_classes > 1:
                            busy = False
                            for z in range(1, 64):
                                value = (
                                    inverse_step
                                    * transformed[
                                        0, 0, 8 * cy + zigzag[z, 0], 8 * cx + zigzag[z, 1]
                                    ]
                                )
                                plain[z] = value
                                if abs(value) > np.float32(0.6):
                                    busy = True
                            if busy:
                                dct_cost = np.float32(0)
                                best_cost = np.float32(1e30)
                                for c in range(count_of_classes):
                                    if c == 0:
                                        cost = block_cost(
                                            plain[1:],
                                            63,
                                            levels[0],
                                            shift,
                                            bits,
                                            expected,
                                            quarter,
                                            eighth,
                                            trade,
                                        )
                                        dct_cost = cost
                                    else:
                                        for e in range(64):
                                            turned[e] = np.float32(0)
                                        for z in range(1, 64):
                                            value = plain[z]
                                            for e in range(64):
                                                turned[e] += value * forward[c, z, e]
                                        cost = block_cost(
                                            turned[1:],
                                            63,
                                            levels[c],
                                            shift,
                                            bits,
                                            expected,
                                            quarter,
                                            eighth,
                                            trade,
                                        )
                                    cost += trade * (prices[c] - prices[0])
                                    if c > 0:
                                        cost *= margin
                                    if cost < best_cost:
                                        best_cost = cost
                                        chosen[i] = c
                                if dct_cost > 0:
                                    small[i] *= best_cost / dct_cost
                    whole = np.float32(0)
                    for p in range(first, last):
                        whole += _block_estimate(
                            transformed[p, 2],
                            0,
                            0,
                            32,
                            inverse_step,
                            capped,
                            wide,
                            bins,
                            tables[kind, 2],
                        )
                    parts = np.float32(0)
                    for quad in range(4):
                        qy, qx = 2 * (quad >> 1), 2 * (quad & 1)
                        if sy + qy >= rows or sx + qx >= columns:
                            continue
                        cost = np.float32(0)
                        for p in range(first, last):
                            cost += _block_estimate(
                                transformed[p, 1],
                                8 * qy,
                                8 * qx,
                                16,
                                inverse_step,
                                capped,
                                wide,
                                bins,
                                tables[kind, 1],
                            )
                        at = 4 * qy + qx
                        fours = small[at] + small[at + 1] + small[at + 4] + small[at + 5]
                        size = 1 if cost < fours else 0
                        parts += min(cost, fours)
                        for y in range(2):
                            for xx in range(2):
                                sizes[kind, corner + (qy + y) * stride + qx + xx] = size
                    if whole < parts:
                        for quad in range(4):
                            qy, qx = 2 * (quad >> 1), 2 * (quad & 1)
                            if sy + qy < rows and sx + qx < columns:
                                for y in range(2):
                                    for xx in range(2):
                                        sizes[kind, corner + (qy + y) * stride + qx + xx] = 2
                else:
                    for quad in range(4):
                        qy, qx = 2 * (quad >> 1), 2 * (quad & 1)
                        if sy + qy < rows and sx + qx < columns:
                            for y in range(2):
                                for xx in range(2):
                                    sizes[kind, corner + (qy + y) * stride + qx + xx] = forced
                # Store the scores, in coding order.
                for quad in range(4):
                    for inner in range(4):
                        cy = 2 * (quad >> 1) + (inner >> 1)
                        cx = 2 * (quad & 1) + (inner & 1)
                        if sy + cy >= rows or sx + cx >= columns:
                            continue
                        cell = corner + cy * stride + cx
                        s = np.int64(sizes[kind, cell])
                        r = 1 << s
                        if (cy & (r - 1)) or (cx & (r - 1)):
                            continue
                        for p in range(first, last):
                            store_block(
                                transformed[p, s],
                                8 * cy,
                                8 * cx,
                                s,
                                zone_of,
                                cells,
                                stride,
                                cell,
                                p * 65 * cells,
                                scores,
                            )
                            if listed[kind] < counts.shape[1]:
                                n = 8 << s
                                _bins(
                                    transformed[p, s],
                                    8 * cy,
                                    8 * cx,
                                    n,
                                    inverse_step,
                                    capped,
                                    wide,
                                    bins,
                                )
                                for u in range(n):
                                    for v in range(n):
                                        if u + v > 0:
                                            counts[kind, listed[kind], bins[u, v]] += 1
                                counts[kind, listed[kind], TERMS - 1] += 1
                        listed[kind] += 1
                        if kind == 0 and s == 0:
                            classes[cell] = chosen[4 * cy + cx]


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
    shift = ZERO_LEVEL - round(4 * float(np.log2(step / levels.scale)))
    _analyse(
        pixels,
        size,
        np.float32(levels.middle),
        np.float32(1 / step),
        DCT,
        colour,
        ZONE_OF,
        ZIGZAG,
        basis.size_costs,
        basis.forward if classes else basis.forward[:1],
        basis.levels,
        basis.prices,
        MARGIN,
        shift,
        BITS,
        EXPECTED,
        QUARTER,
        EIGHTH,
        TRADE,
        layout.rows,
        layout.columns,
        layout.stride,
        layout.cells,
        layout.origin,
        scores,
        field.sizes,
        field.classes,
        counts,
    )
    field.list_blocks()
    rotate(scores, field.lists[0], field.classes, layout.cells, basis.forward)
    return scores
