"""What is known of a tile while it is coded, and the features that predict its scores.

A plain description of every feature is in docs/SPEC.md; each is an integer.
"""

import functools
from typing import NamedTuple

import numpy as np

from .blocks import DCT, SIZES, ZIGZAG, ZONE_OF, ZONES, Layout, list_blocks
from .kernels import f64, i32, i64, inlined, kernel, packed, u8, u16

SETS = 4
"""Neighbour weights differ between blocks of 8, 16 and 32 pixels, and trained ones of 8."""
TRAINED_SET = 3
MAGNITUDES = 34
"""Features of a score's magnitude level."""
ZONE_FEATURES = 26
"""Features of a zone's magnitude level."""
ZONE_CONSTANT, CONSTANT = 20, 23
"""Which of a zone's features, and of a magnitude's, is always 1."""
SIGNED = 16
"""Features of a score's signed prediction."""
PASSES = 3
"""Kinds of pass, with weights of their own: the first, those that refine, the last."""
SIGN_ZONES = 28
"""In larger blocks only the signs of these zones are predicted."""
LARGE_SIGN_KEYS = SIGN_ZONES * 4 + SIGN_ZONES * 16
_STEPS_AWAY = [(-1, 0), (0, -1), (-1, -1), (-2, 0), (0, -2), (-1, 1), (1, -1), (1, 0), (0, 1)]
LINES = np.rint(1024 * DCT).astype(np.int64)
"""(sizes, frequency, sample): the cosines in 1/1024."""


class Tile(NamedTuple):
    """A field's arrays, as compiled code takes them; see `Field`."""

    values: i32[:]
    magnitudes: u8[:]
    zones: u16[:]
    left_lines: i32[:]
    right_lines: i32[:]
    top_lines: i32[:]
    bottom_lines: i32[:]
    means: i32[:]
    energy: i32[:]
    totals: i32[:]
    silence: u8[:]
    sizes: u8[:, :]
    classes: u8[:]
    luma_list: i32[:, :]
    chroma_list: i32[:, :]
    score_steps: i64[:, :, :]
    zone_steps: i64[:, :]
    planes: int
    stride: int
    cells: int


class Learned(NamedTuple):
    """What compiled code needs of a Basis; see `bases.Basis`."""

    edges: i32[:, :, :, :]
    expect: i32[:, :, :]
    foreseen: i32[:, :, :, :]
    zone_weights: i32[:, :, :, :, :]
    weights: i32[:, :, :, :, :]
    sign_weights: i32[:, :, :, :]


class Block(NamedTuple):
    """One zone of one block: plane, zone, size, class, place, what its class expects, and whether
    an earlier pass has been here."""

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
    refining: int


@functools.lru_cache(maxsize=16)
def _score_steps(cells: int, stride: int) -> np.ndarray:
    """(sizes, 1024, 9): distance in the lattice from score number zone * r² + i * r + j to
    its neighbours in frequency; to an empty zone where there is none. The mean is no
    neighbour of anything: it codes a difference."""
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


@functools.lru_cache(maxsize=16)
def _zone_steps(cells: int) -> np.ndarray:
    """(64, 9): distance in the lattice from a zone to its neighbours in frequency; to an empty
    zone where there is none."""
    a, b = ZIGZAG.T
    steps = np.zeros((ZONES, 9), np.int64)
    for n, (da, db) in enumerate(_STEPS_AWAY):
        inside = (a + da >= 0) & (a + da < 8) & (b + db >= 0) & (b + db < 8)
        there = ZONE_OF[np.clip(a + da, 0, 7), np.clip(b + db, 0, 7)]
        steps[:, n] = (np.where(inside, there, ZONES) - np.arange(ZONES)) * cells
    return steps


class Field:
    """What is known of a tile while it is coded, on the lattice of its layout.

    values       int32 (values): quantised scores
    magnitudes   uint8 (values): their magnitudes, at most 255, of the mean only the unpredicted
    zones        uint16 (values): mean magnitude of the block's zone, in 1/16, in all its cells
    colour       six bytes: the colour transform of a tile of three planes
    passes       in how many passes it is coded: 4 or 1
    used         int64 (passes, planes): the zones from this one on are empty
    tune         what its quantiser is tuned for: "psnr" or "perceptual"
    coded        how many layers it holds
    lines        four int32 arrays: border samples left, right, top, bottom of every block
    """

    def __init__(self, layout: Layout, passes: int = 4, tune: str = "psnr"):
        self.layout, self.passes, self.tune = layout, passes, tune
        planes, cells = layout.planes, layout.cells
        self.values = np.zeros(layout.values, np.int32)
        self.magnitudes = np.zeros(layout.values, np.uint8)
        self.zones = np.zeros(layout.values, np.uint16)
        self.lines = tuple(np.zeros(planes * cells * 8, np.int32) for _ in range(4))
        self.means = np.zeros(planes * cells, np.int32)
        self.energy = np.zeros(planes * cells, np.int32)
        self.total = np.zeros(planes * cells, np.int32)
        self.silence = np.zeros(planes * cells, np.uint8)
        self.sizes = layout.no_sizes()
        self.classes = np.zeros(cells, np.uint8)
        self.score_steps = _score_steps(cells, layout.stride)
        self.zone_steps = _zone_steps(cells)
        self.lists: tuple[np.ndarray, ...] = ()
        self._tile: packed | None = None
        self.colour = b""
        self.used = np.zeros((passes, planes), np.int64)
        self.coded = 0

    def list_blocks(self) -> None:
        """List the blocks once the sizes are known: luma's, and chroma's if there is any."""
        layout, lists = self.layout, []
        for sizes in self.sizes:
            out = np.zeros((layout.rows * layout.columns, 3), np.int32)
            n = list_blocks(sizes, layout.rows, layout.columns, layout.stride, layout.origin, out)
            lists.append(out[:n].copy())
        self.lists = tuple(lists)
        self._tile = None

    def tile(self) -> packed:
        """The field's arrays as a Tile, once the blocks are listed."""
        if self._tile is None:
            self._tile = packed(
                Tile(
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
            )
        return self._tile


@inlined
def zone_features(g, t, b):
    """Fill g with what is known about the mean magnitude of zone z of a block (26 features, 1/16).

    Levels that are not yet coded are zero.
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
    g[0] = zones[np.uint64(left)]
    g[1] = zones[np.uint64(top)]
    g[2] = zones[np.uint64(at - stride - 1)]
    g[3] = zones[np.uint64(at - stride + r)] if before else zones[np.uint64(top)]
    g[4] = zones[np.uint64(left - r)]
    g[5] = zones[np.uint64(top - r * stride)]
    # Known from an earlier pass only.
    g[22] = zones[np.uint64(right)]
    g[23] = zones[np.uint64(bottom)]
    g[24] = zones[np.uint64(at + steps[z, 7])] + zones[np.uint64(at + steps[z, 8])]
    g[25] = zones[np.uint64(bottom - middle - 1)] + zones[np.uint64(bottom - middle + r)]
    up = steps[z, 0]
    back = steps[z, 1]
    diagonal = steps[z, 2]
    down = steps[z, 7]
    on = steps[z, 8]
    g[6] = zones[np.uint64(at + up)]
    g[7] = zones[np.uint64(at + back)]
    g[8] = zones[np.uint64(at + diagonal)]
    g[9] = zones[np.uint64(at + steps[z, 3])] + zones[np.uint64(at + steps[z, 4])]
    g[10] = zones[np.uint64(at + steps[z, 5])] + zones[np.uint64(at + steps[z, 6])]
    g[11] = (
        zones[np.uint64(left + up)]
        + zones[np.uint64(left + back)]
        + zones[np.uint64(left + down)]
        + zones[np.uint64(left + on)]
    )
    g[12] = (
        zones[np.uint64(top + up)]
        + zones[np.uint64(top + back)]
        + zones[np.uint64(top + down)]
        + zones[np.uint64(top + on)]
    )
    g[13] = (
        zones[np.uint64(right + up)]
        + zones[np.uint64(right + back)]
        + zones[np.uint64(right + diagonal)]
    )
    g[14] = (
        zones[np.uint64(bottom + up)]
        + zones[np.uint64(bottom + back)]
        + zones[np.uint64(bottom + diagonal)]
    )
    g[15] = 0
    g[16] = 0
    g[17] = 0
    g[18] = 0
    if p > 0:
        luma = at - p * 65 * cells
        far = (r - 1) * stride + r - 1
        middle_of = middle * stride + middle
        g[15] = (
            zones[np.uint64(luma)]
            + zones[np.uint64(luma + far)]
            + zones[np.uint64(luma + middle_of)]
            + zones[np.uint64(luma + r - 1)]
        )
        luma += middle_of
        g[16] = (
            zones[np.uint64(luma + up)]
            + zones[np.uint64(luma + back)]
            + zones[np.uint64(luma + down)]
            + zones[np.uint64(luma + on)]
        )
        if p > 1:
            chroma = at - 65 * cells
            g[17] = zones[np.uint64(chroma)]
            g[18] = (
                zones[np.uint64(chroma + up)]
                + zones[np.uint64(chroma + back)]
                + zones[np.uint64(chroma + down)]
                + zones[np.uint64(chroma + on)]
            )
    g[19] = min((np.int64(energy[np.uint64(plane_cell)]) * mean) // (seen + 16), 65535)
    g[ZONE_CONSTANT] = 16
    around = (
        np.int64(energy[np.uint64(plane_cell + middle * stride - 1)])
        + energy[np.uint64(plane_cell - stride + middle)]
        + energy[np.uint64(plane_cell + middle * stride + r)]
        + energy[np.uint64(plane_cell + r * stride + middle)]
    )
    g[21] = min((around * mean) // (4 * seen + 64), 65535)


@inlined
def magnitude_features(g, t, b, i, j, k):
    """Fill g with what is known about the magnitude of score (i, j) of the zone, whose number is
    k (34 features, 1/16)."""
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
    if sizes[np.uint64(left - zone_base)] == s:
        here = at - r
        g[0] = m[np.uint64(here)] << 4
        g[6] = (m[np.uint64(here + up)] + m[np.uint64(here + down)]) << 4
        g[7] = (m[np.uint64(here + back)] + m[np.uint64(here + on)]) << 4
    else:
        g[0] = zones[np.uint64(left)]
        g[6] = zones[np.uint64(left + zone_up)] + zones[np.uint64(left + zone_steps[z, 7])]
        g[7] = zones[np.uint64(left + zone_back)] + zones[np.uint64(left + zone_steps[z, 8])]
    if sizes[np.uint64(top - zone_base)] == s:
        here = at - r * stride
        g[1] = m[np.uint64(here)] << 4
        g[8] = (m[np.uint64(here + up)] + m[np.uint64(here + down)]) << 4
        g[9] = (m[np.uint64(here + back)] + m[np.uint64(here + on)]) << 4
    else:
        g[1] = zones[np.uint64(top)]
        g[8] = zones[np.uint64(top + zone_up)] + zones[np.uint64(top + zone_steps[z, 7])]
        g[9] = zones[np.uint64(top + zone_back)] + zones[np.uint64(top + zone_steps[z, 8])]
    if sizes[np.uint64(cell - stride - 1)] == s:
        g[2] = m[np.uint64(at - r * stride - r)] << 4
    else:
        g[2] = zones[np.uint64(zone_base + cell - stride - 1)]
    if not before:
        g[3] = g[1]
    elif sizes[np.uint64(cell - stride + r)] == s:
        g[3] = m[np.uint64(at - r * stride + r)] << 4
    else:
        g[3] = zones[np.uint64(zone_base + cell - stride + r)]
    g[4] = zones[np.uint64(left - r)]
    g[5] = zones[np.uint64(top - r * stride)]
    g[10] = m[np.uint64(at + up)] << 4
    g[11] = m[np.uint64(at + back)] << 4
    g[12] = m[np.uint64(at + steps[s, k, 2])] << 4
    g[13] = m[np.uint64(at + steps[s, k, 3])] << 4
    g[14] = m[np.uint64(at + steps[s, k, 4])] << 4
    g[15] = m[np.uint64(at + steps[s, k, 5])] << 4
    g[16] = m[np.uint64(at + steps[s, k, 6])] << 4
    if sizes[np.uint64(right - zone_base)] == s:
        g[17] = (m[np.uint64(at + r + up)] + m[np.uint64(at + r + back)]) << 4
    else:
        g[17] = zones[np.uint64(right + zone_up)] + zones[np.uint64(right + zone_back)]
    if sizes[np.uint64(bottom - zone_base)] == s:
        here = at + r * stride
        g[18] = (m[np.uint64(here + up)] + m[np.uint64(here + back)]) << 4
    else:
        g[18] = zones[np.uint64(bottom + zone_up)] + zones[np.uint64(bottom + zone_back)]
    g[19] = 0
    g[20] = 0
    g[21] = 0
    g[22] = 0
    if p > 0:
        luma = at - p * 65 * cells
        if luma_sizes[np.uint64(cell)] == s:
            g[19] = m[np.uint64(luma)] << 4
            g[20] = (
                m[np.uint64(luma + up)]
                + m[np.uint64(luma + back)]
                + m[np.uint64(luma + down)]
                + m[np.uint64(luma + on)]
            ) << 4
        else:
            g[19] = zones[np.uint64(luma)]
            g[20] = (
                zones[np.uint64(luma + zone_up)]
                + zones[np.uint64(luma + zone_back)]
                + zones[np.uint64(luma + zone_steps[z, 7])]
                + zones[np.uint64(luma + zone_steps[z, 8])]
            )
        if p > 1:
            chroma = at - 65 * cells
            g[21] = m[np.uint64(chroma)] << 4
            g[22] = (
                m[np.uint64(chroma + up)]
                + m[np.uint64(chroma + back)]
                + m[np.uint64(chroma + down)]
                + m[np.uint64(chroma + on)]
            ) << 4
    g[CONSTANT] = 16
    g[24] = min((np.int64(energy[np.uint64(plane_cell)]) * mean) // (seen + 16), 65535)
    g[25] = zones[np.uint64(left)] + zones[np.uint64(top)]
    g[26] = 0  # the signed prediction's magnitude: set by the caller
    own = zone_base + cell
    g[27] = zones[np.uint64(own + zone_up)] + zones[np.uint64(own + zone_back)]
    # Known from an earlier pass only.
    if b.refining:
        g[28] = (
            m[np.uint64(at + r)] << 4
            if sizes[np.uint64(right - zone_base)] == s
            else zones[np.uint64(right)]
        )
        g[29] = (
            m[np.uint64(at + r * stride)] << 4
            if sizes[np.uint64(bottom - zone_base)] == s
            else zones[np.uint64(bottom)]
        )
        g[30] = (m[np.uint64(at + down)] + m[np.uint64(at + on)]) << 4
        g[31] = zones[np.uint64(own + r * stride - 1)] + zones[np.uint64(own + r * stride + r)]
        g[32] = zones[np.uint64(own + zone_steps[z, 7])] + zones[np.uint64(own + zone_steps[z, 8])]
        g[33] = zones[np.uint64(own)]
    else:
        for e in range(28, 34):
            g[e] = 0


@inlined
def signed_features(f, t, learned, b, i, j):
    """Fill f with the signed predictors of score (i, j) of the zone (16 features, in 1/64 steps).

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
                f[0] += right_lines[np.uint64(before_left + e)] * w
                f[1] += left_lines[np.uint64(vertical + e)] * w
                w = np.int64(edges[c, z, 1, e])
                f[2] += left_lines[np.uint64(after_right + e)] * w
                f[3] += right_lines[np.uint64(own_right + e)] * w
                w = np.int64(edges[c, z, 2, e])
                f[4] += bottom_lines[np.uint64(before_top + e)] * w
                f[5] += top_lines[np.uint64(horizontal + e)] * w
                w = np.int64(edges[c, z, 3, e])
                f[6] += top_lines[np.uint64(after_bottom + e)] * w
                f[7] += bottom_lines[np.uint64(own_bottom + e)] * w
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
                a0 += right_lines[np.uint64(before_left + e)] * w
                a1 += left_lines[np.uint64(vertical + e)] * w
                a2 += left_lines[np.uint64(after_right + e)] * w
                a3 += right_lines[np.uint64(own_right + e)] * w
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
                a0 += bottom_lines[np.uint64(before_top + e)] * w
                a1 += top_lines[np.uint64(horizontal + e)] * w
                a2 += top_lines[np.uint64(after_bottom + e)] * w
                a3 += bottom_lines[np.uint64(own_bottom + e)] * w
            f[4] = (a0 * LINES[s, u, 0]) >> 24
            f[5] = (a1 * LINES[s, u, 0]) >> 24
            f[6] = (a2 * LINES[s, u, n - 1]) >> 24
            f[7] = (a3 * LINES[s, u, n - 1]) >> 24
        there = cell - 1
        if sizes[np.uint64(there)] == s and (p > 0 or classes[np.uint64(there)] == c):
            f[8] = np.int64(values[np.uint64(at - r)]) << 6
        there = cell - stride
        if sizes[np.uint64(there)] == s and (p > 0 or classes[np.uint64(there)] == c):
            f[9] = np.int64(values[np.uint64(at - r * stride)]) << 6
        there = cell - stride - 1
        if sizes[np.uint64(there)] == s and (p > 0 or classes[np.uint64(there)] == c):
            f[10] = np.int64(values[np.uint64(at - r * stride - r)]) << 6
        there = cell - stride + r
        if before and sizes[np.uint64(there)] == s and (p > 0 or classes[np.uint64(there)] == c):
            f[11] = np.int64(values[np.uint64(at - r * stride + r)]) << 6
        if b.refining:
            there = cell + r
            if sizes[np.uint64(there)] == s and (p > 0 or classes[np.uint64(there)] == c):
                f[14] = np.int64(values[np.uint64(at + r)]) << 6
            there = cell + r * stride
            if sizes[np.uint64(there)] == s and (p > 0 or classes[np.uint64(there)] == c):
                f[15] = np.int64(values[np.uint64(at + r * stride)]) << 6
        if p > 0:
            if luma_sizes[np.uint64(cell)] == s and (s > 0 or classes[np.uint64(cell)] == 0):
                f[12] = np.int64(values[np.uint64(at - p * 65 * cells)]) << 6
            if p > 1:
                f[13] = np.int64(values[np.uint64(at - 65 * cells)]) << 6
    else:
        middle = r >> 1
        f[8] = np.int64(means[np.uint64(plane_cell + middle * stride - 1)]) << s
        f[9] = np.int64(means[np.uint64(plane_cell - stride + middle)]) << s
        f[10] = np.int64(means[np.uint64(plane_cell - stride - 1)]) << s
        f[11] = np.int64(means[np.uint64(plane_cell - stride + r)]) << s if before else f[9]
        if p > 0:
            f[12] = np.int64(means[np.uint64(plane_cell - p * cells)]) << s
            if p > 1:
                f[13] = np.int64(means[np.uint64(plane_cell - cells)]) << s
        if b.refining:
            f[0] = np.int64(means[np.uint64(plane_cell)]) << s
            f[14] = np.int64(means[np.uint64(plane_cell + middle * stride + r)]) << s
            f[15] = np.int64(means[np.uint64(plane_cell + r * stride + middle)]) << s


@inlined
def draw_lines(value, t, learned, b, i, j):
    """Add a coded score to the border lines of its block."""
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
def close_zone(total, before, t, b):
    """Record a zone's sum of magnitudes, which was `before`, in all cells of its block."""
    s, cell, plane_cell, zone_base, stride = b.s, b.cell, b.plane_cell, b.zone_base, t.stride
    zones, energy, totals = t.zones, t.energy, t.totals
    r = 1 << s
    mean = min((total << 4) >> (2 * s), 65535)
    grown = totals[plane_cell] + min(total, 1 << 20) - min(before, 1 << 20)
    totals[plane_cell] = min(max(grown, 0), 1 << 26)
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
def block_at(t, learned, listed, index, p, z, refining):
    """The Block of zone z of plane p of a list's block number `index`."""
    cell = np.int64(listed[index, 0])
    s = np.int64(listed[index, 1])
    before = refining > 0 or listed[index, 2] != 0
    c = np.int64(t.classes[cell]) if p == 0 and s == 0 else np.int64(0)
    which = TRAINED_SET if c > 0 else s
    row = c if s == 0 else len(learned.edges) - 1 + s
    kind = min(p, 1)
    mean = np.int64(learned.expect[row, kind, z])
    seen = np.int64(learned.foreseen[min(refining, 1), row, kind, z])
    plane_cell, zone_base = p * t.cells + cell, (p * 65 + z) * t.cells
    return Block(p, z, s, c, cell, before, plane_cell, zone_base, which, mean, seen, refining)


@kernel
def _double(a: u8[:] | u16[:] | i32[:], most: int):
    for i in range(len(a)):
        if a[i] != 0:
            a[i] = min(np.int64(a[i]) * 2, most)


def double_precision(field: Field) -> None:
    """Count everything in steps of half the size, before a pass that refines it."""
    _double(field.values, 1 << 30)
    _double(field.magnitudes, 255)
    _double(field.zones, 65535)
    for line in field.lines:
        _double(line, 1 << 30)
    _double(field.means, 1 << 30)
    _double(field.energy, 1 << 30)
    _double(field.total, 1 << 26)
    field.silence[:] = 0


@kernel
def sum_magnitudes(
    values: i32[:],
    listed: i32[:, :],
    classes: u8[:],
    p: int,
    stride: int,
    cells: int,
    count: int,
    total: f64[:, :, :],
    number: f64[:, :, :],
):
    """Add to total and number (classes + 2, 2, 64) the magnitudes, and how many they are, in every
    zone of plane p of a coded tile, by class and size; for training."""
    for index in range(len(listed)):
        cell, s = np.int64(listed[index, 0]), np.int64(listed[index, 1])
        r = 1 << s
        row = count - 1 + s
        if s == 0:
            row = np.int64(classes[cell]) if p == 0 else np.int64(0)
        for z in range(ZONES):
            in_zone = np.int64(0)
            for sub in range(r * r):
                if z + sub > 0:
                    at = (p * 65 + z) * cells + cell + (sub >> s) * stride + (sub & (r - 1))
                    in_zone += abs(values[at])
            total[row, min(p, 1), z] += min(in_zone, 64 * r * r)
            number[row, min(p, 1), z] += r * r
