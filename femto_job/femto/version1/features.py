"""What is known of a tile while it is decoded, and the features that predict its scores.

Every feature is an integer.
"""

from typing import NamedTuple

import numpy as np

from ..jit import inlined
from .blocks import DCT, NO_SIZE, SIZES, ZIGZAG, ZONE_OF, ZONES, Layout, list_blocks

SETS = 4
"""Neighbour weights differ between blocks of 8, 16 and 32 pixels, and trained ones of 8."""
TRAINED_SET = 3
MAGNITUDES = 28
"""Features of a score's magnitude level."""
ZONE_FEATURES = 22
SIGNED = 14
"""Features of a score's signed prediction."""
SIGN_ZONES = 28
"""In larger blocks only the signs of these zones are predicted."""
LARGE_SIGN_KEYS = SIGN_ZONES * 4 + SIGN_ZONES * 16
_STEPS_AWAY = [(-1, 0), (0, -1), (-1, -1), (-2, 0), (0, -2), (-1, 1), (1, -1), (1, 0), (0, 1)]
LINES = np.rint(1024 * DCT).astype(np.int64)
"""(sizes, frequency, sample): the cosines in 1/1024."""


class Tile(NamedTuple):
    """A field's arrays, as compiled code takes them; see `Field`."""

    values: np.ndarray
    magnitudes: np.ndarray
    zones: np.ndarray
    left_lines: np.ndarray
    right_lines: np.ndarray
    top_lines: np.ndarray
    bottom_lines: np.ndarray
    means: np.ndarray
    energy: np.ndarray
    totals: np.ndarray
    silence: np.ndarray
    sizes: np.ndarray
    classes: np.ndarray
    luma_list: np.ndarray
    chroma_list: np.ndarray
    score_steps: np.ndarray
    zone_steps: np.ndarray
    planes: int
    stride: int
    cells: int


class Learned(NamedTuple):
    """What compiled code needs of a Basis; see `basis.Basis1`."""

    edges: np.ndarray
    expect: np.ndarray
    foreseen: np.ndarray
    zone_weights: np.ndarray
    weights: np.ndarray
    sign_weights: np.ndarray


class Block(NamedTuple):
    """One zone of one block: plane, zone, size, class, place, and what its class expects."""

    p: int
    z: int
    s: int
    c: int
    cell: int
    before: bool
    plane_cell: int
    zone_base: int
    which: int
    mean: int
    seen: int


class Field:
    """What is known of a tile while it is decoded, on the lattice of its layout.

    values       int32 (values): quantised scores
    magnitudes   uint8 (values): their magnitudes, at most 255, of the mean only the unpredicted
    zones        uint16 (values): mean magnitude of the block's zone, in 1/16, in all its cells
    lines        four int32 arrays: border samples left, right, top, bottom of every block
    """

    def __init__(self, layout: Layout):
        self.layout = layout
        planes, cells = layout.planes, layout.cells
        self.values = np.zeros(layout.values, np.int32)
        self.magnitudes = np.zeros(layout.values, np.uint8)
        self.zones = np.zeros(layout.values, np.uint16)
        self.lines = tuple(np.zeros(planes * cells * 8, np.int32) for _ in range(4))
        self.means = np.zeros(planes * cells, np.int32)
        self.energy = np.zeros(planes * cells, np.int32)
        self.total = np.zeros(planes * cells, np.int32)
        self.silence = np.zeros(planes * cells, np.uint8)
        self.sizes = np.full((2, cells), NO_SIZE, np.uint8)
        self.classes = np.zeros(cells, np.uint8)
        self.score_steps = self._score_steps()
        a, b = ZIGZAG.T
        self.zone_steps = np.zeros((ZONES, 9), np.int64)
        for n, (da, db) in enumerate(_STEPS_AWAY):
            inside = (a + da >= 0) & (a + da < 8) & (b + db >= 0) & (b + db < 8)
            there = ZONE_OF[np.clip(a + da, 0, 7), np.clip(b + db, 0, 7)]
            self.zone_steps[:, n] = (np.where(inside, there, ZONES) - np.arange(ZONES)) * cells
        self.lists: tuple[np.ndarray, ...] = ()

    def _score_steps(self) -> np.ndarray:
        """(sizes, 1024, 9): distance in the lattice from score number zone * r² + i * r + j to
        its neighbours in frequency; to an empty zone where there is none. The mean is no
        neighbour of anything: it codes a difference."""
        cells, stride = self.layout.cells, self.layout.stride
        steps = np.zeros((SIZES, 1024, 9), np.int64)
        for s in range(SIZES):
            r = 1 << s
            k = np.arange(64 * r * r)
            zone, i, j = k // (r * r), k // r % r, k % r
            u, v = ZIGZAG[zone, 0] * r + i, ZIGZAG[zone, 1] * r + j
            for n, (du, dv) in enumerate(_STEPS_AWAY):
                uu, vv = u + du, v + dv
                inside = (uu >= 0) & (uu < 8 * r) & (vv >= 0) & (vv < 8 * r) & (uu + vv > 0)
                uu, vv = np.where(inside, uu, 0), np.where(inside, vv, 0)
                there = ZONE_OF[uu // r, vv // r] * cells + (uu % r - i) * stride + vv % r - j
                there = np.where(inside, there, ZONES * cells)
                steps[s, : len(k), n] = there - zone * cells
        return steps

    def list_blocks(self) -> None:
        """List the blocks once the sizes are known: luma's, and chroma's if there is any."""
        layout, lists = self.layout, []
        for sizes in self.sizes:
            out = np.zeros((layout.rows * layout.columns, 3), np.int32)
            n = list_blocks(sizes, layout.rows, layout.columns, layout.stride, layout.origin, out)
            lists.append(out[:n].copy())
        self.lists = tuple(lists)

    def tile(self) -> Tile:
        """The field's arrays, for compiled code."""
        return Tile(
            self.values,
            self.magnitudes,
            self.zones,
            *self.lines,
            self.means,
            self.energy,
            self.total,
            self.silence,
            self.sizes,
            self.classes,
            *self.lists,
            self.score_steps,
            self.zone_steps,
            self.layout.planes,
            self.layout.stride,
            self.layout.cells,
        )


@inlined
def zone_features(g, t, b):
    """Fill g with what is known about the mean magnitude of zone z of a block (22 features, 1/16).

    Levels that are not yet known are zero.
    """
    zones, energy, stride, cells, steps = t.zones, t.energy, t.stride, t.cells, t.zone_steps
    p, z, s, cell, before, plane_cell = b.p, b.z, b.s, b.cell, b.before, b.plane_cell
    mean, seen, zone_base = b.mean, b.seen, b.zone_base
    r = 1 << s
    middle = r >> 1
    at = zone_base + cell
    left = at + middle * stride - 1
    top = at - stride + middle
    right = at + middle * stride + r
    bottom = at + r * stride + middle
    g[0] = zones[left]
    g[1] = zones[top]
    g[2] = zones[at - stride - 1]
    g[3] = zones[at - stride + r] if before else zones[top]
    g[4] = zones[left - r]
    g[5] = zones[top - r * stride]
    up = steps[z, 0]
    back = steps[z, 1]
    diagonal = steps[z, 2]
    down = steps[z, 7]
    on = steps[z, 8]
    g[6] = zones[at + up]
    g[7] = zones[at + back]
    g[8] = zones[at + diagonal]
    g[9] = zones[at + steps[z, 3]] + zones[at + steps[z, 4]]
    g[10] = zones[at + steps[z, 5]] + zones[at + steps[z, 6]]
    g[11] = zones[left + up] + zones[left + back] + zones[left + down] + zones[left + on]
    g[12] = zones[top + up] + zones[top + back] + zones[top + down] + zones[top + on]
    g[13] = zones[right + up] + zones[right + back] + zones[right + diagonal]
    g[14] = zones[bottom + up] + zones[bottom + back] + zones[bottom + diagonal]
    g[15] = 0
    g[16] = 0
    g[17] = 0
    g[18] = 0
    if p > 0:
        luma = at - p * 65 * cells
        far = (r - 1) * stride + r - 1
        middle_of = middle * stride + middle
        g[15] = zones[luma] + zones[luma + far] + zones[luma + middle_of] + zones[luma + r - 1]
        luma += middle_of
        g[16] = zones[luma + up] + zones[luma + back] + zones[luma + down] + zones[luma + on]
        if p > 1:
            chroma = at - 65 * cells
            g[17] = zones[chroma]
            g[18] = (
                zones[chroma + up]
                + zones[chroma + back]
                + zones[chroma + down]
                + zones[chroma + on]
            )
    g[19] = min((np.int64(energy[plane_cell]) * mean) // (seen + 16), 65535)
    g[20] = 16
    around = (
        np.int64(energy[plane_cell + middle * stride - 1])
        + energy[plane_cell - stride + middle]
        + energy[plane_cell + middle * stride + r]
        + energy[plane_cell + r * stride + middle]
    )
    g[21] = min((around * mean) // (4 * seen + 64), 65535)


@inlined
def magnitude_features(g, t, b, i, j, k):
    """Fill g with what is known about the magnitude of score (i, j) of the zone, whose number is
    k (28 features, 1/16)."""
    m, zones, energy, stride, cells = t.magnitudes, t.zones, t.energy, t.stride, t.cells
    steps, zone_steps = t.score_steps, t.zone_steps
    p, z, s, cell, before, plane_cell = b.p, b.z, b.s, b.cell, b.before, b.plane_cell
    mean, seen, zone_base = b.mean, b.seen, b.zone_base
    sizes, luma_sizes = t.sizes[min(p, 1)], t.sizes[0]
    r = 1 << s
    at = zone_base + cell + i * stride + j
    left = zone_base + cell + i * stride - 1
    top = zone_base + cell - stride + j
    right = left + r + 1
    bottom = top + (r + 1) * stride
    up = steps[s, k, 0]
    back = steps[s, k, 1]
    down = steps[s, k, 7]
    on = steps[s, k, 8]
    zone_up = zone_steps[z, 0]
    zone_back = zone_steps[z, 1]
    if sizes[left - zone_base] == s:
        here = at - r
        g[0] = m[here] << 4
        g[6] = (m[here + up] + m[here + down]) << 4
        g[7] = (m[here + back] + m[here + on]) << 4
    else:
        g[0] = zones[left]
        g[6] = zones[left + zone_up] + zones[left + zone_steps[z, 7]]
        g[7] = zones[left + zone_back] + zones[left + zone_steps[z, 8]]
    if sizes[top - zone_base] == s:
        here = at - r * stride
        g[1] = m[here] << 4
        g[8] = (m[here + up] + m[here + down]) << 4
        g[9] = (m[here + back] + m[here + on]) << 4
    else:
        g[1] = zones[top]
        g[8] = zones[top + zone_up] + zones[top + zone_steps[z, 7]]
        g[9] = zones[top + zone_back] + zones[top + zone_steps[z, 8]]
    if sizes[cell - stride - 1] == s:
        g[2] = m[at - r * stride - r] << 4
    else:
        g[2] = zones[zone_base + cell - stride - 1]
    if not before:
        g[3] = g[1]
    elif sizes[cell - stride + r] == s:
        g[3] = m[at - r * stride + r] << 4
    else:
        g[3] = zones[zone_base + cell - stride + r]
    g[4] = zones[left - r]
    g[5] = zones[top - r * stride]
    g[10] = m[at + up] << 4
    g[11] = m[at + back] << 4
    g[12] = m[at + steps[s, k, 2]] << 4
    g[13] = m[at + steps[s, k, 3]] << 4
    g[14] = m[at + steps[s, k, 4]] << 4
    g[15] = m[at + steps[s, k, 5]] << 4
    g[16] = m[at + steps[s, k, 6]] << 4
    if sizes[right - zone_base] == s:
        g[17] = (m[at + r + up] + m[at + r + back]) << 4
    else:
        g[17] = zones[right + zone_up] + zones[right + zone_back]
    if sizes[bottom - zone_base] == s:
        here = at + r * stride
        g[18] = (m[here + up] + m[here + back]) << 4
    else:
        g[18] = zones[bottom + zone_up] + zones[bottom + zone_back]
    g[19] = 0
    g[20] = 0
    g[21] = 0
    g[22] = 0
    if p > 0:
        luma = at - p * 65 * cells
        if luma_sizes[cell] == s:
            g[19] = m[luma] << 4
            g[20] = (m[luma + up] + m[luma + back] + m[luma + down] + m[luma + on]) << 4
        else:
            g[19] = zones[luma]
            g[20] = (
                zones[luma + zone_up]
                + zones[luma + zone_back]
                + zones[luma + zone_steps[z, 7]]
                + zones[luma + zone_steps[z, 8]]
            )
        if p > 1:
            chroma = at - 65 * cells
            g[21] = m[chroma] << 4
            g[22] = (m[chroma + up] + m[chroma + back] + m[chroma + down] + m[chroma + on]) << 4
    g[23] = 16
    g[24] = min((np.int64(energy[plane_cell]) * mean) // (seen + 16), 65535)
    g[25] = zones[left] + zones[top]
    g[26] = 0  # the signed prediction's magnitude: set by the caller
    g[27] = zones[zone_base + cell + zone_up] + zones[zone_base + cell + zone_back]


@inlined
def signed_features(f, t, learned, b, i, j):
    """Fill f with the signed predictors of score (i, j) of the zone (14 features, in 1/64 steps).

    The border lines of the block and its neighbours, projected on the component's own; the same
    component in the neighbouring blocks, if they are of the same size and class; the other
    planes. The mean is comparable everywhere.
    """
    values, means, stride, cells, classes = t.values, t.means, t.stride, t.cells, t.classes
    left_lines, right_lines = t.left_lines, t.right_lines
    top_lines, bottom_lines = t.top_lines, t.bottom_lines
    p, z, s, c, cell, before = b.p, b.z, b.s, b.c, b.cell, b.before
    zone_base, plane_cell = b.zone_base, b.plane_cell
    sizes, luma_sizes = t.sizes[min(p, 1)], t.sizes[0]
    edges = learned.edges
    r = 1 << s
    n = 8 * r
    at = zone_base + cell + i * stride + j
    dc = z == 0 and i == 0 and j == 0
    for e in range(SIGNED):
        f[e] = 0
    row = cell // stride
    column = cell - row * stride
    height = (cells // stride) * 8
    width = stride * 8
    if not dc:
        vertical = (p * stride + column) * height + row * 8
        horizontal = (p * (cells // stride) + row) * width + column * 8
        before_left = vertical - height
        own_right = vertical + (r - 1) * height
        after_right = vertical + r * height
        before_top = horizontal - width
        own_bottom = horizontal + (r - 1) * width
        after_bottom = horizontal + r * width
        if s == 0:
            for e in range(8):
                w = np.int64(edges[c, z, 0, e])
                f[0] += right_lines[before_left + e] * w
                f[1] += left_lines[vertical + e] * w
                w = np.int64(edges[c, z, 1, e])
                f[2] += left_lines[after_right + e] * w
                f[3] += right_lines[own_right + e] * w
                w = np.int64(edges[c, z, 2, e])
                f[4] += bottom_lines[before_top + e] * w
                f[5] += top_lines[horizontal + e] * w
                w = np.int64(edges[c, z, 3, e])
                f[6] += top_lines[after_bottom + e] * w
                f[7] += bottom_lines[own_bottom + e] * w
            for e in range(8):
                f[e] >>= 14
        else:
            u = ZIGZAG[z, 0] * r + i
            v = ZIGZAG[z, 1] * r + j
            a0 = np.int64(0)
            a1 = np.int64(0)
            a2 = np.int64(0)
            a3 = np.int64(0)
            for e in range(n):
                w = LINES[s, u, e]
                a0 += right_lines[before_left + e] * w
                a1 += left_lines[vertical + e] * w
                a2 += left_lines[after_right + e] * w
                a3 += right_lines[own_right + e] * w
            f[0] = (a0 * LINES[s, v, 0]) >> 24
            f[1] = (a1 * LINES[s, v, 0]) >> 24
            f[2] = (a2 * LINES[s, v, n - 1]) >> 24
            f[3] = (a3 * LINES[s, v, n - 1]) >> 24
            a0 = 0
            a1 = 0
            a2 = 0
            a3 = 0
            for e in range(n):
                w = LINES[s, v, e]
                a0 += bottom_lines[before_top + e] * w
                a1 += top_lines[horizontal + e] * w
                a2 += top_lines[after_bottom + e] * w
                a3 += bottom_lines[own_bottom + e] * w
            f[4] = (a0 * LINES[s, u, 0]) >> 24
            f[5] = (a1 * LINES[s, u, 0]) >> 24
            f[6] = (a2 * LINES[s, u, n - 1]) >> 24
            f[7] = (a3 * LINES[s, u, n - 1]) >> 24
        there = cell - 1
        if sizes[there] == s and (p > 0 or classes[there] == c):
            f[8] = np.int64(values[at - r]) << 6
        there = cell - stride
        if sizes[there] == s and (p > 0 or classes[there] == c):
            f[9] = np.int64(values[at - r * stride]) << 6
        there = cell - stride - 1
        if sizes[there] == s and (p > 0 or classes[there] == c):
            f[10] = np.int64(values[at - r * stride - r]) << 6
        there = cell - stride + r
        if before and sizes[there] == s and (p > 0 or classes[there] == c):
            f[11] = np.int64(values[at - r * stride + r]) << 6
        if p > 0:
            if luma_sizes[cell] == s and (s > 0 or classes[cell] == 0):
                f[12] = np.int64(values[at - p * 65 * cells]) << 6
            if p > 1:
                f[13] = np.int64(values[at - 65 * cells]) << 6
    else:
        middle = r >> 1
        f[8] = np.int64(means[plane_cell + middle * stride - 1]) << s
        f[9] = np.int64(means[plane_cell - stride + middle]) << s
        f[10] = np.int64(means[plane_cell - stride - 1]) << s
        f[11] = np.int64(means[plane_cell - stride + r]) << s if before else f[9]
        if p > 0:
            f[12] = np.int64(means[plane_cell - p * cells]) << s
            if p > 1:
                f[13] = np.int64(means[plane_cell - cells]) << s


@inlined
def draw_lines(value, t, learned, b, i, j):
    """Add a decoded score to the border lines of its block."""
    left_lines, right_lines = t.left_lines, t.right_lines
    top_lines, bottom_lines = t.top_lines, t.bottom_lines
    p, z, s, c, cell, stride, cells = b.p, b.z, b.s, b.c, b.cell, t.stride, t.cells
    edges = learned.edges
    r = 1 << s
    row = cell // stride
    column = cell - row * stride
    height = (cells // stride) * 8
    width = stride * 8
    vertical = (p * stride + column) * height + row * 8
    horizontal = (p * (cells // stride) + row) * width + column * 8
    own_right = vertical + (r - 1) * height
    own_bottom = horizontal + (r - 1) * width
    if s == 0:
        for e in range(8):
            left_lines[vertical + e] += edges[c, z, 0, e] * value
            right_lines[own_right + e] += edges[c, z, 1, e] * value
            top_lines[horizontal + e] += edges[c, z, 2, e] * value
            bottom_lines[own_bottom + e] += edges[c, z, 3, e] * value
    else:
        n = 8 * r
        u = ZIGZAG[z, 0] * r + i
        v = ZIGZAG[z, 1] * r + j
        first_v = LINES[s, v, 0] * value
        last_v = LINES[s, v, n - 1] * value
        first_u = LINES[s, u, 0] * value
        last_u = LINES[s, u, n - 1] * value
        for e in range(n):
            w = LINES[s, u, e]
            left_lines[vertical + e] += (w * first_v) >> 10
            right_lines[own_right + e] += (w * last_v) >> 10
            w = LINES[s, v, e]
            top_lines[horizontal + e] += (w * first_u) >> 10
            bottom_lines[own_bottom + e] += (w * last_u) >> 10


@inlined
def close_zone(total, t, b):
    """Record a zone's sum of magnitudes in all cells of its block."""
    s, cell, plane_cell, zone_base, stride = b.s, b.cell, b.plane_cell, b.zone_base, t.stride
    zones, energy, totals = t.zones, t.energy, t.totals
    r = 1 << s
    mean = min((total << 4) >> (2 * s), 65535)
    totals[plane_cell] = min(totals[plane_cell] + min(total, 1 << 20), 1 << 26)
    spread = (np.int64(totals[plane_cell]) << 4) >> (2 * s)
    for i in range(r):
        for j in range(r):
            zones[zone_base + cell + i * stride + j] = mean
            energy[plane_cell + i * stride + j] = spread


@inlined
def sign_key(c, classes, z, s, sub):
    """Row of the sign weights for a score: per class at size 8, shared above; -1: none."""
    if s == 0:
        return c * 64 + z
    if z >= SIGN_ZONES:
        return -1
    if s == 1:
        return classes * 64 + z * 4 + sub
    return classes * 64 + SIGN_ZONES * 4 + z * 16 + sub


@inlined
def block_at(t, learned, listed, index, p, z):
    """The Block of zone z of plane p of a list's block number `index`."""
    cell = np.int64(listed[index, 0])
    s = np.int64(listed[index, 1])
    before = listed[index, 2] != 0
    c = np.int64(t.classes[cell]) if p == 0 and s == 0 else np.int64(0)
    which = TRAINED_SET if c > 0 else s
    row = c if s == 0 else len(learned.edges) - 1 + s
    kind = min(p, 1)
    mean = np.int64(learned.expect[row, kind, z])
    seen = np.int64(learned.foreseen[row, kind, z])
    return Block(
        p, z, s, c, cell, before, p * t.cells + cell, (p * 65 + z) * t.cells, which, mean, seen
    )
