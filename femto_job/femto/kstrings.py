"""The k-strings: a tile's quantised scores as entropy-coded strings, zone by zone.

Order: zone, then plane, then block (raster), then the four scores of the zone. So the strings of
the first zones are a coarser picture of the whole tile. Consecutive zones make a layer, and each
layer is a string of its own.

Every bit is predicted from the neighbourhood that encoder and decoder share at that point:

- *magnitude*: a weighted sum of the magnitudes around a score (the same score in neighbouring
  blocks, the neighbouring frequencies here and there, the other planes, and what the block's
  class expects of this component given the energy that the block has shown so far) gives the
  level M on which most contexts are built. The weights are trained (non-negative least squares).
- *border prediction*: the border lines that a block's coded components produce must continue
  those of its neighbours. What is missing, projected on a component's own border lines, predicts
  its sign.
- *empty zones*: where little is expected, one flag says that all four scores are zero.

Quantisation happens here too, because the choice between two neighbouring values is made by
what each would cost (rate-distortion optimised quantisation).
"""

import numpy as np

from . import entropy
from .blocks import SUB, ZIGZAG, ZONE_OF, ZONES, dct_matrix
from .entropy import (
    APM_BINS,
    COST,
    END,
    POSITION,
    REGISTERS,
    TABLES,
    code_bit,
    code_direct,
    finish,
    learn,
    mixed_probability,
    start,
    update_slot,
)
from .errors import LaffError
from .jit import njit

LAYER_ENDS = (1, 3, 6, 10, 15, 21, 36, 64)
"""Zone after the last of each layer."""
ROTATED = 8
"""Classes rotate the scores of the lowest 8 x 8 frequencies, except the mean."""
LOW = ROTATED * ROTATED
PLANES = 3
SETS = 2
"""Neighbour weights differ between the DCT class and the trained ones."""

# --- which score is where -------------------------------------------------------------------
# A score's number k is zone * 4 + sub. FREQUENCY[k] = (u, v).
FREQUENCY = np.array(
    [(2 * a + (i >> 1), 2 * b + (i & 1)) for a, b in ZIGZAG for i in range(SUB)], np.int64
)
K_OF = np.empty((16, 16), np.int64)
K_OF[FREQUENCY[:, 0], FREQUENCY[:, 1]] = np.arange(256)
LOW_SCORES = np.array([k for k, (u, v) in enumerate(FREQUENCY) if max(u, v) < ROTATED], np.int64)
"""The scores of the lowest 8 x 8 frequencies in coding order; the mean is the first."""
LOW_OF = np.full(256, -1, np.int64)
LOW_OF[LOW_SCORES] = np.arange(LOW)
"""Rank of score k among them, or -1."""


def _groups() -> tuple[np.ndarray, int]:
    """Scores that share statistics: each of the lowest 8 x 8 alone, above them zone by zone."""
    group, names = np.empty(256, np.int64), {}
    for k, (u, v) in enumerate(FREQUENCY):
        name = (u, v) if max(u, v) < 8 else (u // 2 + 100, v // 2)
        group[k] = names.setdefault(name, len(names))
    return group, len(names)


GROUP, GROUPS = _groups()
BAND = np.array([0 if u + v == 0 else 1 + min((u + v) // 2, 6) for u, v in FREQUENCY], np.int64)
"""Eight bands of frequencies: the mean, then by u + v."""
NO_ZONE = ZONES
"""A zone that is always empty stands in for neighbours that do not exist."""


def _frequency_neighbours() -> np.ndarray:
    """(256, 9): number of the score at each of nine steps in frequency, or that of an always
    empty one. The mean is no neighbour of anything: it codes a difference."""
    steps = [(-1, 0), (0, -1), (-1, -1), (-2, 0), (0, -2), (-1, 1), (1, -1), (1, 0), (0, 1)]
    table = np.full((256, len(steps)), NO_ZONE * SUB, np.int64)
    for k, (u, v) in enumerate(FREQUENCY):
        for n, (du, dv) in enumerate(steps):
            uu, vv = u + du, v + dv
            if 0 <= uu < 16 and 0 <= vv < 16 and uu + vv > 0:
                table[k, n] = K_OF[uu, vv]
    return table


def _zone_neighbours() -> np.ndarray:
    """(64, 9): the same steps in zones."""
    steps = [(-1, 0), (0, -1), (-1, -1), (-2, 0), (0, -2), (-1, 1), (1, -1), (1, 0), (0, 1)]
    table = np.full((ZONES, len(steps)), NO_ZONE, np.int64)
    for z, (a, b) in enumerate(ZIGZAG):
        for n, (da, db) in enumerate(steps):
            aa, bb = a + da, b + db
            if 0 <= aa < 8 and 0 <= bb < 8:
                table[z, n] = ZONE_OF[aa, bb]
    return table


FREQUENCY_NEIGHBOURS = _frequency_neighbours()
ZONE_NEIGHBOURS = _zone_neighbours()
EDGE = np.rint(64 * dct_matrix(16)[:ROTATED, [0, 15]] * 2).astype(np.int64)
"""(8, 2): first and last sample of the lowest cosines, in 1/128."""

# --- the model's layout ----------------------------------------------------------------------
MAGNITUDES = 28
"""Features of a score's magnitude level."""
ZONE_FEATURES = 24
SIGNED = 14
"""Features of a score's signed prediction."""
LEVELS = 24
CLASSES = 32
"""Most classes that a basis may have."""

_LEVEL_ENDS = [2, 4, 7, 11, 17, 26, 38, 54, 75, 102, 135, 175, 225, 290, 370, 480, 640, 880, 1250,
               1850, 2900, 4800, 8500]  # fmt: skip
_SUM_ENDS = [5, 14, 30, 46, 62, 78, 94, 126, 158, 206, 270, 366, 510, 766, 1278]
LEVEL_LIMIT, SUM_LIMIT = 16384, 2048
LEVEL = np.concatenate(
    [
        np.searchsorted(_LEVEL_ENDS, np.arange(LEVEL_LIMIT), side="right"),
        np.searchsorted(_SUM_ENDS, np.arange(SUM_LIMIT), side="right"),
    ]
).astype(np.int16)
"""Quantisers of the contexts: 24 levels of M (in 1/256), then 16 of sums (in 1/16)."""

STEPS = 8
"""Kinds of decision about a magnitude: > 0, > 1, > 2, > 3, > 4…5, > 6…8, > 9…12, > 13…19."""
KINDS = PLANES * STEPS
_CONTEXTS = [
    GROUPS * 16,
    GROUPS * 16,
    16 * 16 * 8 * 8,
    GROUPS * LEVELS,
    8 * 16 * 12,
    16 * 8 * 8 * 8,
    GROUPS * 12 * 12,
    243 * 8,
]
INPUTS = len(_CONTEXTS)
_SIGN_CONTEXTS = [GROUPS * 24, 24 * 9 * 3, GROUPS * 9, GROUPS * 9, GROUPS * 27, 24 * 9 * 3]
SIGN_INPUTS = len(_SIGN_CONTEXTS)
_ZONE_CONTEXTS = [ZONES * LEVELS, ZONES * 64, LEVELS * 16 * 8, 8 * 12 * 16, ZONES * LEVELS]
ZONE_INPUTS = len(_ZONE_CONTEXTS)
CLASS_INPUTS = 3


def _layout() -> tuple[dict[str, int], int, int, int]:
    """Offsets of every part of the state, and the numbers of slots, weights and maps."""
    at, total = {}, 0

    def add(name: str, size: int) -> None:
        nonlocal total
        at[name] = total
        total += size

    for i, size in enumerate(_CONTEXTS):
        add(f"context{i}", size * KINDS)
    for i, size in enumerate(_SIGN_CONTEXTS):
        add(f"sign{i}", size * PLANES)
    for i, size in enumerate(_ZONE_CONTEXTS):
        add(f"zone{i}", size * PLANES)
    add("golomb", 2 * 64)
    for i in range(CLASS_INPUTS):
        add(f"class{i}", CLASSES * (CLASSES + 1))
    slots = total
    add("weights_level", KINDS * LEVELS * (INPUTS + 1))
    add("weights_group", KINDS * GROUPS * (INPUTS + 1))
    add("weights_sign_level", PLANES * LEVELS * (SIGN_INPUTS + 1))
    add("weights_sign_group", PLANES * GROUPS * (SIGN_INPUTS + 1))
    add("weights_zone_level", PLANES * LEVELS * (ZONE_INPUTS + 1))
    add("weights_zone", PLANES * ZONES * (ZONE_INPUTS + 1))
    add("weights_class", 2 * CLASSES * (CLASS_INPUTS + 1))
    weights = total - slots
    add("apm_level", KINDS * LEVELS * APM_BINS)
    add("apm_group", KINDS * GROUPS * APM_BINS)
    add("apm_sign_level", PLANES * 24 * APM_BINS)
    add("apm_sign_group", PLANES * GROUPS * APM_BINS)
    add("apm_zone_level", PLANES * LEVELS * APM_BINS)
    add("apm_zone", PLANES * ZONES * APM_BINS)
    add("apm_class", 2 * CLASSES * APM_BINS)
    return at, slots, weights, (total - slots - weights) // APM_BINS


_AT, SLOTS, WEIGHTS, APMS = _layout()
PLACES = np.array(list(_AT.values()), np.int64)
(C0, C1, C2, C3, C4, C5, C6, C7, S0, S1, S2, S3, S4, S5, Z0, Z1, Z2, Z3, Z4, GOLOMB, K0, K1, K2,
 W_LEVEL, W_GROUP, W_SIGN_LEVEL, W_SIGN_GROUP, W_ZONE_LEVEL, W_ZONE, W_CLASS,
 A_LEVEL, A_GROUP, A_SIGN_LEVEL, A_SIGN_GROUP, A_ZONE_LEVEL, A_ZONE, A_CLASS) = map(
    int, PLACES)  # fmt: skip

LIMIT = 255
RATE = 14
"""Learning rate of the mixers."""
UNARY = 20
"""Magnitudes above this go on in Exp-Golomb code."""
GOLOMB_LIMIT = 30
ZONE_THRESHOLD = 110
"""Expected zone magnitude (in 1/256) below which a flag is coded for the zone as a whole."""
DIRECT_THRESHOLD = 5
"""Zone level below which the flag takes a single slot: it is nearly always zero there."""


def fresh_state() -> np.ndarray:
    """The model before it has seen anything."""
    state = entropy.fresh_state(SLOTS, WEIGHTS, 0.25, APMS)
    return state


# --- features --------------------------------------------------------------------------------


class Field:
    """The arrays of a tile that is being coded, with margins so that neighbours need no checks.

    Flat arrays; a block at (by, bx) has the cell (by + 2) * columns + bx + 2; the score (p, z,
    cell, i) is at ((p * 65 + z) * cells + cell) * 4 + i.
    """

    def __init__(self, planes: int, rows: int, columns: int):
        self.planes, self.rows, self.columns = planes, rows, columns
        self.stride = columns + 3
        self.cells = (rows + 3) * self.stride
        scores = planes * (ZONES + 1) * self.cells * SUB
        self.values = np.zeros(scores, np.int32)
        self.magnitudes = np.zeros(scores, np.uint8)
        self.zones = np.zeros(planes * (ZONES + 1) * self.cells, np.uint8)
        self.borders = np.zeros(planes * self.cells * 4 * ROTATED, np.int32)
        self.energy = np.zeros(planes * self.cells, np.int32)
        self.expected = np.zeros(planes * self.cells, np.int32)
        self.silence = np.zeros(planes * self.cells, np.uint8)
        self.classes = np.full(self.cells, CLASSES, np.uint8)
        self.shape = np.array([planes, rows, columns, self.stride, self.cells], np.int64)
        # Neighbours in frequency, as distances in the flat arrays.
        k = np.arange(256)[:, None]
        here = k // SUB * self.cells * SUB + k % SUB
        there = FREQUENCY_NEIGHBOURS // SUB * self.cells * SUB + FREQUENCY_NEIGHBOURS % SUB
        self.frequency_steps = there - here
        self.zone_steps = (ZONE_NEIGHBOURS - np.arange(ZONES)[:, None]) * self.cells

    def inner_classes(self) -> np.ndarray:
        """The classes of the tile's own blocks, a view of shape (rows, columns)."""
        return self.classes.reshape(self.rows + 3, self.stride)[2:-1, 2:-1]


@njit
def zone_features(g, zones, at, p, z, stride, cells, steps, energy, expected, cell, mean):
    """Fill g with what is known about the magnitude of zone z of a block (24 features, in 1/16).

    `at` is the zone's place in `zones`; plane p's zones begin at p * 65 * cells.
    """
    g[0] = zones[at - 1] << 4
    g[1] = zones[at - stride] << 4
    g[2] = zones[at - stride - 1] << 4
    g[3] = zones[at - stride + 1] << 4
    g[4] = zones[at - 2] << 4
    g[5] = zones[at - 2 * stride] << 4
    up = at + steps[z, 0]
    back = at + steps[z, 1]
    diagonal = at + steps[z, 2]
    down = at + steps[z, 7]
    on = at + steps[z, 8]
    g[6] = zones[up] << 4
    g[7] = zones[back] << 4
    g[8] = zones[diagonal] << 4
    g[9] = (zones[at + steps[z, 3]] + zones[at + steps[z, 4]]) << 4
    g[10] = (zones[at + steps[z, 5]] + zones[at + steps[z, 6]]) << 4
    g[11] = (zones[up - 1] + zones[back - 1] + zones[down - 1] + zones[on - 1]) << 4
    g[12] = (
        zones[up - stride] + zones[back - stride] + zones[down - stride] + zones[on - stride]
    ) << 4
    g[13] = (zones[up + 1] + zones[back + 1] + zones[diagonal + 1]) << 4
    g[14] = (zones[up + stride] + zones[back + stride] + zones[diagonal + stride]) << 4
    g[15] = 0
    g[16] = 0
    g[17] = 0
    g[18] = 0
    g[19] = 0
    if p > 0:
        luma = at - p * (ZONES + 1) * cells
        g[15] = zones[luma] << 4
        g[16] = (
            zones[luma + steps[z, 0]]
            + zones[luma + steps[z, 1]]
            + zones[luma + steps[z, 7]]
            + zones[luma + steps[z, 8]]
        ) << 4
        g[19] = (zones[luma + 1] + zones[luma + stride]) << 4
        if p > 1:
            chroma = at - (ZONES + 1) * cells
            g[17] = zones[chroma] << 4
            g[18] = (
                zones[chroma + steps[z, 0]]
                + zones[chroma + steps[z, 1]]
                + zones[chroma + steps[z, 7]]
                + zones[chroma + steps[z, 8]]
            ) << 4
    g[20] = min(((energy[cell] << 4) * mean) // (expected[cell] + 16), 65535)
    g[21] = 16
    around = (
        energy[cell - 1] + energy[cell + 1] + energy[cell - stride] + energy[cell + stride]
    ) << 4
    seen = (
        expected[cell - 1] + expected[cell + 1] + expected[cell - stride] + expected[cell + stride]
    )
    g[22] = min((around * mean) // (seen + 64), 65535)
    g[23] = min(mean, 4096) >> 4


@njit
def magnitude_features(
    g, magnitudes, zones, at, zone_at, p, k, stride, cells, steps, energy, expected, cell, mean
):
    """Fill g with what is known about the magnitude of score k of a block (28 features, 1/16)."""
    row = stride * SUB
    m = magnitudes
    g[0] = m[at - SUB] << 4
    g[1] = m[at - row] << 4
    g[2] = m[at - row - SUB] << 4
    g[3] = m[at - row + SUB] << 4
    g[4] = m[at - 2 * SUB] << 4
    g[5] = m[at - 2 * row] << 4
    up = at + steps[k, 0]
    back = at + steps[k, 1]
    diagonal = at + steps[k, 2]
    down = at + steps[k, 7]
    on = at + steps[k, 8]
    g[6] = (m[up - SUB] + m[down - SUB]) << 4
    g[7] = (m[back - SUB] + m[on - SUB]) << 4
    g[8] = (m[up - row] + m[down - row]) << 4
    g[9] = (m[back - row] + m[on - row]) << 4
    g[10] = m[up] << 4
    g[11] = m[back] << 4
    g[12] = m[diagonal] << 4
    g[13] = m[at + steps[k, 3]] << 4
    g[14] = m[at + steps[k, 4]] << 4
    g[15] = m[at + steps[k, 5]] << 4
    g[16] = m[at + steps[k, 6]] << 4
    g[17] = (m[up + SUB] + m[back + SUB]) << 4
    g[18] = (m[up + row] + m[back + row]) << 4
    g[19] = 0
    g[20] = 0
    g[21] = 0
    g[22] = 0
    if p > 0:
        luma = at - p * (ZONES + 1) * cells * SUB
        g[19] = m[luma] << 4
        g[20] = (
            m[luma + steps[k, 0]]
            + m[luma + steps[k, 1]]
            + m[luma + steps[k, 7]]
            + m[luma + steps[k, 8]]
        ) << 4
        if p > 1:
            chroma = at - (ZONES + 1) * cells * SUB
            g[21] = m[chroma] << 4
            g[22] = (
                m[chroma + steps[k, 0]]
                + m[chroma + steps[k, 1]]
                + m[chroma + steps[k, 7]]
                + m[chroma + steps[k, 8]]
            ) << 4
    g[23] = 16
    g[24] = min(((energy[cell] << 4) * mean) // (expected[cell] + 16), 65535)
    g[25] = (zones[zone_at - 1] + zones[zone_at - stride]) << 4
    g[26] = 0  # the signed prediction's magnitude: set by the caller
    g[27] = min(mean, 4096) >> 4


@njit
def signed_features(f, values, borders, at, cell, p, stride, cells, edges, same, dc):
    """Fill f with the signed predictors of a score (14 features, in 1/64 steps).

    `edges` (4, 8): the component's border lines left, right, top, bottom; `same` tells of the
    neighbours left, top, top left and top right whether they are of the same class (only then
    is their score the same component). The mean is comparable in all.
    """
    for i in range(SIGNED):
        f[i] = 0
    if not dc:
        width = 4 * ROTATED
        own = (p * cells + cell) * width
        left, right = own - width, own + width
        top, bottom = own - stride * width, own + stride * width
        for i in range(ROTATED):
            e = edges[0, i]
            f[0] += borders[left + ROTATED + i] * e
            f[1] += borders[own + i] * e
            e = edges[1, i]
            f[2] += borders[right + i] * e
            f[3] += borders[own + ROTATED + i] * e
            e = edges[2, i]
            f[4] += borders[top + 3 * ROTATED + i] * e
            f[5] += borders[own + 2 * ROTATED + i] * e
            e = edges[3, i]
            f[6] += borders[bottom + 2 * ROTATED + i] * e
            f[7] += borders[own + 3 * ROTATED + i] * e
        for i in range(8):
            f[i] >>= 8
    row = stride * SUB
    if same[0] or dc:
        f[8] = values[at - SUB] << 6
    if same[1] or dc:
        f[9] = values[at - row] << 6
    if same[2] or dc:
        f[10] = values[at - row - SUB] << 6
    if same[3] or dc:
        f[11] = values[at - row + SUB] << 6
    if p > 0:
        f[12] = values[at - p * (ZONES + 1) * cells * SUB] << 6
        if p > 1:
            f[13] = values[at - (ZONES + 1) * cells * SUB] << 6


@njit
def note(value, values, magnitudes, borders, energy, expected, at, cell, p, cells, edges, low, mean,
         difference):  # fmt: skip
    """Record a coded score in everything that later predictions read.

    `difference` is what was coded of it: the value itself, or for the mean what was not
    predicted.
    """
    size = abs(difference)
    values[at] = value
    magnitudes[at] = min(size, 255)
    plane_cell = p * cells + cell
    if low != 0:
        energy[plane_cell] += min(size, 4096)
        expected[plane_cell] += mean
    if low >= 0 and value != 0:
        own = plane_cell * 4 * ROTATED
        for line in range(4):
            for i in range(ROTATED):
                borders[own + line * ROTATED + i] += edges[line, i] * value


STEP_OF = np.array([0, 1, 2, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6] + [7] * 8, np.int64)


@njit
def _golomb(value, row, state, tables, coder, data, decoding):
    """Exp-Golomb code of a number >= 0 with adaptive bits; stops at 2^30 whatever it reads."""
    nbits = 0
    if not decoding:
        while (value + 1) >> (nbits + 1):
            nbits += 1
    at = GOLOMB + row * 64
    n = 0
    while n < GOLOMB_LIMIT:
        if code_direct(1 if n < nbits else 0, at + n, 30, state, tables, coder, data, decoding):
            n += 1
        else:
            break
    result = np.int64(1)
    for i in range(n):
        bit = ((value + 1) >> (n - 1 - i)) & 1
        if i == 0:
            bit = code_direct(bit, at + 32 + n, 30, state, tables, coder, data, decoding)
        else:
            bit = code_bit(bit, 32768, coder, data, decoding)
        result = result * 2 + bit
    return result - 1


@njit
def _code_zones(decoding, first, last, used, values, magnitudes, zones, borders, energy, expected,
                silence, classes, shape, frequency_steps, zone_steps, scores, inverse_step, trade,
                edges, means, zone_means, zone_weights, weights, sign_weights, state, tables,
                level, group, band, low_of, step_of, coder, data):  # fmt: skip
    """Code the zones first … last - 1 of a tile as one string, in either direction.

    Returns (length, data): the string's bytes while encoding, in a buffer that may have grown.
    `used` (planes): zones from this one on are empty in the whole plane and take no bits.
    """
    planes, rows, columns, stride, cells = shape
    row_step = stride * SUB
    start(coder, data, decoding)
    slots = np.zeros(16, np.int64)
    scratch = np.zeros(16, np.int64)
    g = np.zeros(32, np.int64)
    f = np.zeros(SIGNED, np.int64)
    same = np.zeros(4, np.bool_)
    rounded = np.zeros(SUB, np.int64)
    exact = np.zeros(SUB, np.float32)
    cost_one = np.float32(1 / 4096)
    for z in range(first, last):
        for p in range(planes):
            if z >= used[p]:
                continue
            kind_of_plane = min(p, 1)
            for by in range(rows):
                for bx in range(columns):
                    cell = (by + 2) * stride + bx + 2
                    plane_cell = p * cells + cell
                    zone_at = (p * (ZONES + 1) + z) * cells + cell
                    zone_base = zone_at * SUB
                    c = np.int64(classes[cell])
                    trained = 1 if c > 0 else 0
                    if not decoding:
                        if coder[POSITION] + 4096 > len(data):
                            grown = np.empty(2 * len(data) + 8192, np.uint8)
                            grown[: len(data)] = data
                            data = grown
                            coder[END] = len(data)
                        for i in range(SUB):
                            exact[i] = scores[p, z, by, bx, i] * inverse_step
                            size = np.int64(np.floor(abs(exact[i]) + np.float32(0.5)))
                            rounded[i] = -size if exact[i] < 0 else size

                    # A flag for the whole zone, where little is expected of it.
                    flagged = False
                    quiet = min(np.int64(silence[plane_cell]), 7)
                    around = (
                        energy[plane_cell - 1]
                        + energy[plane_cell + 1]
                        + energy[plane_cell - stride]
                        + energy[plane_cell + stride]
                    )
                    around_level = level[LEVEL_LIMIT + min(around << 2, SUM_LIMIT - 1)]
                    if z > 0:
                        zone_features(g, zones, zone_at, p, z, stride, cells, zone_steps, energy,
                                      expected, plane_cell, zone_means[c, kind_of_plane, z])
                        total = np.int64(0)
                        for i in range(ZONE_FEATURES):
                            total += g[i] * zone_weights[p, trained, z, i]
                        total = min(max(total >> 8, 0), LEVEL_LIMIT - 1)
                        if total < ZONE_THRESHOLD:
                            flagged = True
                            m = np.int64(level[total])
                            nonzero = 0
                            if not decoding:
                                for i in range(SUB):
                                    nonzero += abs(rounded[i])
                            if m < DIRECT_THRESHOLD:
                                at = Z4 + (p * ZONES + z) * LEVELS + m * 4 + min(around_level >> 2, 3)
                                probability = min(max(state[at] >> 14, 4), 65532)
                            else:
                                slots[0] = Z0 + (p * ZONES + z) * LEVELS + m
                                slots[1] = Z1 + (p * ZONES + z) * 64 + (
                                    min(g[0] >> 4, 3) * 16 + min(g[1] >> 4, 3) * 4
                                    + min((g[6] + g[7]) >> 4, 3)
                                )
                                slots[2] = Z2 + (
                                    (p * LEVELS + m) * 16 + around_level
                                ) * 8 + quiet
                                other = level[LEVEL_LIMIT + min(
                                    2 * g[15] + g[16] + 3 * g[17] + g[18], SUM_LIMIT - 1)]
                                if p == 0:
                                    other = level[LEVEL_LIMIT + min(
                                        g[11] + g[12] + g[13] + g[14], SUM_LIMIT - 1)]
                                slots[3] = Z3 + (
                                    (p * 8 + band[z * SUB]) * 12 + (m >> 1)
                                ) * 16 + other
                                slots[4] = Z4 + (p * ZONES + z) * LEVELS + np.int64(
                                    level[min(g[20] << 3, LEVEL_LIMIT - 1)])
                                wa = W_ZONE_LEVEL + (p * LEVELS + m) * (ZONE_INPUTS + 1)
                                wb = W_ZONE + (p * ZONES + z) * (ZONE_INPUTS + 1)
                                aa = A_ZONE_LEVEL + (p * LEVELS + m) * APM_BINS
                                ab = A_ZONE + (p * ZONES + z) * APM_BINS
                                probability = mixed_probability(
                                    slots, ZONE_INPUTS, wa, wb, aa, ab, state, tables, scratch)
                            if nonzero == 1:
                                # A lone one may be worth less than it costs.
                                gain = np.float32(0)
                                for i in range(SUB):
                                    if rounded[i] != 0:
                                        gain = 2 * abs(exact[i]) - 1
                                saved = cost_one * (
                                    tables[COST + (probability >> 4)]
                                    - tables[COST + 4096 - (probability >> 4)]
                                ) + np.float32(3.5)
                                if gain < trade * saved:
                                    nonzero = 0
                                    for i in range(SUB):
                                        rounded[i] = 0
                            bit = 1 if nonzero > 0 else 0
                            bit = code_bit(bit, probability, coder, data, decoding)
                            if m < DIRECT_THRESHOLD:
                                update_slot(state, at, bit, LIMIT, tables)
                            else:
                                learn(bit, slots, ZONE_INPUTS, wa, wb, aa, ab, LIMIT, RATE, state,
                                      tables, scratch)
                            if not bit:
                                expected[plane_cell] += zone_means[c, kind_of_plane, z]
                                silence[plane_cell] = min(silence[plane_cell] + 1, 255)
                                continue

                    for i in range(4):
                        there = cell - 1 if i == 0 else (
                            cell - stride if i == 1 else (
                                cell - stride - 1 if i == 2 else cell - stride + 1))
                        same[i] = classes[there] == c
                    found = False
                    in_zone = 0
                    for sub in range(SUB):
                        k = z * SUB + sub
                        at = zone_base + sub
                        dc = k == 0
                        low = low_of[k]
                        mean = np.int64(means[c, kind_of_plane, k])
                        e = max(low, 0)
                        prediction = np.int64(0)
                        if low >= 0:
                            signed_features(f, values, borders, at, cell, p, stride, cells,
                                            edges[c, e], same, dc)
                            for i in range(SIGNED):
                                prediction += f[i] * sign_weights[p, c, e, i]
                            prediction >>= 12
                        offset = (prediction + 32) >> 6 if dc else np.int64(0)
                        size_of_prediction = min(abs(prediction), 1 << 20)
                        magnitude_features(g, magnitudes, zones, at, zone_at, p, k, stride, cells,
                                           frequency_steps, energy, expected, plane_cell, mean)
                        if not dc:
                            g[26] = size_of_prediction >> 2
                        q = np.int64(group[k])
                        total = np.int64(0)
                        for i in range(MAGNITUDES):
                            total += g[i] * weights[p, trained, q, i]
                        m = np.int64(level[min(max(total >> 8, 0), LEVEL_LIMIT - 1)])
                        own = 2 * (g[10] + g[11]) + g[12] + g[13] + g[14] + g[15] + g[16]
                        beside = 2 * (g[0] + g[1]) + g[2] + g[3]
                        beyond = g[6] + g[7] + g[8] + g[9] + g[17] + g[18]
                        if p > 0:
                            other = 4 * g[19] + g[20] + 6 * g[21] + g[22]
                        else:
                            other = 2 * (g[4] + g[5]) + g[2] + g[3]
                        own_level = np.int64(level[LEVEL_LIMIT + min(own, SUM_LIMIT - 1)])
                        beside_level = np.int64(level[LEVEL_LIMIT + min(beside, SUM_LIMIT - 1)])
                        beyond_level = np.int64(level[LEVEL_LIMIT + min(beyond, SUM_LIMIT - 1)])
                        other_level = np.int64(level[LEVEL_LIMIT + min(other, SUM_LIMIT - 1)])
                        sure = np.int64(level[min(size_of_prediction * 2, LEVEL_LIMIT - 1)])
                        shape_level = np.int64(level[min(g[24] << 4, LEVEL_LIMIT - 1)])
                        b = band[k]
                        across = g[21] if p > 1 else g[19]
                        near = (
                            ((min((g[0] >> 4), 2) * 3 + min((g[1] >> 4), 2)) * 3
                             + min(g[10] >> 4, 2)) * 3 + min(g[11] >> 4, 2)
                        ) * 3 + min(across >> 4, 2)
                        c0 = C0 + (q * 16 + beside_level) * KINDS
                        c1 = C1 + (q * 16 + own_level) * KINDS
                        c2 = C2 + (((own_level * 16 + beside_level) * 8
                                    + (beyond_level >> 1)) * 8 + b) * KINDS
                        c3 = C3 + (q * LEVELS + m) * KINDS
                        c4 = C4 + ((b * 16 + other_level) * 12 + (m >> 1)) * KINDS
                        c5 = C5 + (((np.int64(around_level) * 8 + quiet) * 8 + b) * 8
                                   + m // 3) * KINDS
                        c6 = C6 + ((q * 12 + (sure >> 1)) * 12 + (shape_level >> 1)) * KINDS
                        c7 = C7 + (near * 8 + b) * KINDS
                        value = np.int64(0)
                        if not decoding:
                            value = rounded[sub] - offset
                        size = abs(value)
                        limit_error = np.float32(0)
                        if not decoding:
                            limit_error = abs(exact[sub]) - size
                        n = 0
                        # The last score of a zone that has been flagged must be nonzero if the
                        # others are not.
                        if flagged and sub == SUB - 1 and in_zone == 0:
                            n = 1
                            size = max(size, 1)
                        while n < UNARY:
                            kind = p * STEPS + step_of[n]
                            slots[0] = c0 + kind
                            slots[1] = c1 + kind
                            slots[2] = c2 + kind
                            slots[3] = c3 + kind
                            slots[4] = c4 + kind
                            slots[5] = c5 + kind
                            slots[6] = c6 + kind
                            slots[7] = c7 + kind
                            wa = W_LEVEL + (kind * LEVELS + m) * (INPUTS + 1)
                            wb = W_GROUP + (kind * GROUPS + q) * (INPUTS + 1)
                            aa = A_LEVEL + (kind * LEVELS + m) * APM_BINS
                            ab = A_GROUP + (kind * GROUPS + q) * APM_BINS
                            probability = mixed_probability(
                                slots, INPUTS, wa, wb, aa, ab, state, tables, scratch)
                            if not decoding and not dc and size == n + 1:
                                # One less: is the error it adds worth the bits it saves?
                                keep = flagged and n == 0 and in_zone == 0
                                for i in range(sub + 1, SUB):
                                    if rounded[i] != 0:
                                        keep = False
                                saved = cost_one * (
                                    tables[COST + (probability >> 4)]
                                    - tables[COST + 4096 - (probability >> 4)]
                                ) + (np.float32(1.35) if n == 0 else np.float32(0.5))
                                if not keep and 2 * limit_error + 1 < trade * saved:
                                    size = n
                            bit = code_bit(1 if size > n else 0, probability, coder, data, decoding)
                            learn(bit, slots, INPUTS, wa, wb, aa, ab, LIMIT, RATE, state, tables,
                                  scratch)
                            if not bit:
                                break
                            n += 1
                        if n == UNARY:
                            n += _golomb(size - UNARY, 1 if dc else 0, state, tables, coder, data,
                                         decoding)
                        size = n
                        if size > 0:
                            if dc or low >= 0:
                                s = sure >> 1
                                sign_level = 12 + s if prediction > 0 else 11 - s
                                if dc:
                                    sign_level = 0
                                left = values[at - SUB] if (same[0] or dc) else 0
                                top = values[at - row_step] if (same[1] or dc) else 0
                                luma = f[12]
                                chroma = f[13]
                                up = values[at + frequency_steps[k, 0]]
                                back = values[at + frequency_steps[k, 1]]
                                up2 = values[at + frequency_steps[k, 3]]
                                back2 = values[at + frequency_steps[k, 4]]
                                l3 = 1 + (1 if left > 0 else 0) - (1 if left < 0 else 0)
                                t3 = 1 + (1 if top > 0 else 0) - (1 if top < 0 else 0)
                                y3 = 1 + (1 if luma > 0 else 0) - (1 if luma < 0 else 0)
                                h3 = 1 + (1 if chroma > 0 else 0) - (1 if chroma < 0 else 0)
                                u3 = 1 + (1 if up > 0 else 0) - (1 if up < 0 else 0)
                                b3 = 1 + (1 if back > 0 else 0) - (1 if back < 0 else 0)
                                v3 = 1 + (1 if up2 > 0 else 0) - (1 if up2 < 0 else 0)
                                w3 = 1 + (1 if back2 > 0 else 0) - (1 if back2 < 0 else 0)
                                big = min(size, 3) - 1
                                slots[0] = S0 + (p * GROUPS + q) * 24 + sign_level
                                slots[1] = S1 + ((p * 24 + sign_level) * 9 + y3 * 3 + h3) * 3 + big
                                slots[2] = S2 + (p * GROUPS + q) * 9 + l3 * 3 + t3
                                slots[3] = S3 + (p * GROUPS + q) * 9 + y3 * 3 + h3
                                slots[4] = S4 + (p * GROUPS + q) * 27 + (u3 * 3 + b3) * 3 + l3
                                slots[5] = S5 + ((p * 24 + sign_level) * 9 + v3 * 3 + w3) * 3 + big
                                wa = W_SIGN_LEVEL + (p * LEVELS + sure) * (SIGN_INPUTS + 1)
                                wb = W_SIGN_GROUP + (p * GROUPS + q) * (SIGN_INPUTS + 1)
                                aa = A_SIGN_LEVEL + (p * 24 + sign_level) * APM_BINS
                                ab = A_SIGN_GROUP + (p * GROUPS + q) * APM_BINS
                                probability = mixed_probability(
                                    slots, SIGN_INPUTS, wa, wb, aa, ab, state, tables, scratch)
                                bit = code_bit(1 if value < 0 else 0, probability, coder, data,
                                               decoding)
                                learn(bit, slots, SIGN_INPUTS, wa, wb, aa, ab, LIMIT, RATE, state,
                                      tables, scratch)
                            else:
                                bit = code_bit(1 if value < 0 else 0, 32768, coder, data, decoding)
                            value = -size if bit else size
                            found = True
                        else:
                            value = np.int64(0)
                        if not dc:
                            in_zone += size
                        note(value + offset, values, magnitudes, borders, energy, expected, at,
                             cell, p, cells, edges[c, e], low, mean, value)
                    zones[zone_at] = min(in_zone, 255)
                    if z > 0:
                        if found:
                            silence[plane_cell] = 0
                        else:
                            silence[plane_cell] = min(silence[plane_cell] + 1, 255)
    if not decoding:
        return finish(coder, data), data
    return coder[POSITION], data


# --- classes ---------------------------------------------------------------------------------


@njit
def _code_classes(decoding, classes, rows, columns, stride, bits, used, state, tables, coder, data):
    """Code the first empty zone of every plane (7 bits each) and the class of every block.

    A class is coded as `bits` binary decisions, predicted from the classes to the left and above.
    """
    start(coder, data, decoding)
    slots = np.zeros(16, np.int64)
    scratch = np.zeros(16, np.int64)
    for p in range(len(used)):
        value = np.int64(0)
        for i in range(6, -1, -1):
            bit = code_bit((used[p] >> i) & 1, 32768, coder, data, decoding)
            value = value * 2 + bit
        used[p] = min(value, ZONES)
    if bits == 0:
        for by in range(rows):
            for bx in range(columns):
                classes[(by + 2) * stride + bx + 2] = 0
    else:
        for by in range(rows):
            for bx in range(columns):
                cell = (by + 2) * stride + bx + 2
                left = np.int64(classes[cell - 1])
                top = np.int64(classes[cell - stride])
                alike = 1 if left == top else 0
                node = np.int64(1)
                for i in range(bits - 1, -1, -1):
                    slots[0] = K0 + node * (CLASSES + 1) + left
                    slots[1] = K1 + node * (CLASSES + 1) + top
                    slots[2] = K2 + node * (CLASSES + 1) + np.int64(classes[cell - stride + 1])
                    wa = W_CLASS + node * (CLASS_INPUTS + 1)
                    wb = W_CLASS + (CLASSES * alike + node) * (CLASS_INPUTS + 1)
                    aa = A_CLASS + node * APM_BINS
                    ab = A_CLASS + (CLASSES * alike + node) * APM_BINS
                    probability = mixed_probability(
                        slots, CLASS_INPUTS, wa, wb, aa, ab, state, tables, scratch)
                    bit = (np.int64(classes[cell]) >> i) & 1
                    bit = code_bit(bit, probability, coder, data, decoding)
                    learn(bit, slots, CLASS_INPUTS, wa, wb, aa, ab, LIMIT, RATE, state, tables,
                          scratch)
                    node = node * 2 + bit
                classes[cell] = node - (1 << bits)
    if not decoding:
        return finish(coder, data)
    return coder[POSITION]


@njit
def rotate(scores, classes, stride, matrices, low_scores):
    """Multiply the low scores of every block by its class's matrix, in place.

    `scores` float32 (planes, 64, rows, columns, 4); `matrices` float32 (classes, 64, 64), the
    result's element i is the sum of matrices[c, e, i] times the element e; `low_scores` (64).
    """
    before = np.empty(LOW, np.float32)
    after = np.empty(LOW, np.float32)
    for by in range(scores.shape[2]):
        for bx in range(scores.shape[3]):
            c = np.int64(classes[(by + 2) * stride + bx + 2])
            if c == 0:
                continue
            for p in range(scores.shape[0]):
                for e in range(LOW):
                    k = low_scores[e]
                    before[e] = scores[p, k >> 2, by, bx, k & 3]
                    after[e] = np.float32(0)
                for e in range(LOW):
                    x = before[e]
                    if x != 0:
                        for i in range(LOW):
                            after[i] += x * matrices[c, e, i]
                for e in range(LOW):
                    k = low_scores[e]
                    scores[p, k >> 2, by, bx, k & 3] = after[e]


@njit
def _to_scores(values, shape, step, out):
    """Dequantise: a field's values into scores (planes, 64, rows, columns, 4)."""
    planes, rows, columns, stride, cells = shape
    for p in range(planes):
        for z in range(ZONES):
            for by in range(rows):
                at = ((p * (ZONES + 1) + z) * cells + (by + 2) * stride + 2) * SUB
                for bx in range(columns):
                    for i in range(SUB):
                        out[p, z, by, bx, i] = values[at + bx * SUB + i] * step


def _run(field: Field, decoding: bool, first: int, last: int, used, basis, state, data, *,
         scores=None, step=1.0, trade=0.0):  # fmt: skip
    """Code one layer; returns its string when encoding."""
    coder = np.zeros(REGISTERS, np.int64)
    if scores is None:
        scores = np.zeros((1, 1, 1, 1, 1), np.float32)
    length, data = _code_zones(
        decoding, first, last, used, field.values, field.magnitudes, field.zones, field.borders,
        field.energy, field.expected, field.silence, field.classes, field.shape,
        field.frequency_steps, field.zone_steps, scores, np.float32(1 / step), np.float32(trade),
        basis.edges, basis.means, basis.zone_means, basis.zone_weights, basis.weights,
        basis.sign_weights, state, TABLES, LEVEL, GROUP, BAND, LOW_OF, STEP_OF, coder, data,
    )  # fmt: skip
    return data[:length].tobytes()


TRADE = 0.105
"""Lagrangian of the quantiser: squared error, in steps², that one bit must save."""


def code_field(scores: np.ndarray, step: float, basis, classes: np.ndarray, state: np.ndarray):
    """Quantise and code the scores of a tile whose block classes are chosen.

    Parameters: `scores` float32 (planes, 64, rows, columns, 4), rotated in place into the
    components of their classes; `step` in grey levels; `classes` uint8 (rows, columns); `state`
    the model's state, which learns on. Returns (field, used zones per plane, block string, one
    string per layer).
    """
    planes, _, rows, columns, _ = scores.shape
    field = Field(planes, rows, columns)
    field.inner_classes()[...] = classes
    rotate(scores, field.classes, field.stride, basis.forward, LOW_SCORES)
    loud = np.abs(scores).max(axis=(2, 3, 4)) >= np.float32(0.5 * step)
    used = np.array([max(np.flatnonzero(row), default=0) + 1 for row in loud], np.int64)
    coder = np.zeros(REGISTERS, np.int64)
    data = np.zeros(rows * columns * 8 + 64, np.uint8)
    length = _code_classes(False, field.classes, rows, columns, field.stride, basis.class_bits,
                           used, state, TABLES, coder, data)  # fmt: skip
    layers, first = [], 0
    for last in LAYER_ENDS:
        buffer = np.empty(rows * columns * planes * (last - first) * 2 + 8192, np.uint8)
        layers.append(_run(field, False, first, last, used, basis, state, buffer, scores=scores,
                           step=step, trade=TRADE))  # fmt: skip
        first = last
    return field, used, data[:length].tobytes(), tuple(layers)


def encode(scores: np.ndarray, step: float, basis) -> tuple[bytes, tuple[bytes, ...]]:
    """Choose classes, quantise and code the scores of a tile.

    Parameters: `scores` float32 (planes, 64, rows, columns, 4), changed in place into the
    quantised scores that a decoder will see; `step` in grey levels; `basis` a Basis.
    Returns (block string, one string per layer).
    """
    classes = basis.classify(scores, step)
    field, _, block_string, layers = code_field(scores, step, basis, classes, basis.state.copy())
    _to_scores(field.values, field.shape, np.float32(step), scores)
    rotate(scores, field.classes, field.stride, basis.backward, LOW_SCORES)
    return block_string, layers


def decode(block_string: bytes, layers: list[bytes], planes: int, rows: int, columns: int,
           step: float, basis) -> np.ndarray:  # fmt: skip
    """Scores of a tile from its block string and its first layers; what is missing is zero.

    Returns float32 (planes, 64, rows, columns, 4). Raises LaffError for more layers than the
    format has.
    """
    if len(layers) > len(LAYER_ENDS):
        raise LaffError(f"an archive of {len(layers)} layers: the format has {len(LAYER_ENDS)}")
    field = Field(planes, rows, columns)
    state = basis.state.copy()
    coder = np.zeros(REGISTERS, np.int64)
    used = np.zeros(planes, np.int64)
    data = np.frombuffer(block_string, np.uint8)
    _code_classes(True, field.classes, rows, columns, field.stride, basis.class_bits, used, state,
                  TABLES, coder, data.copy())  # fmt: skip
    first = 0
    for string, last in zip(layers, LAYER_ENDS, strict=False):
        _run(field, True, first, last, used, basis, state, np.frombuffer(string, np.uint8).copy())
        first = last
    scores = np.empty((planes, ZONES, rows, columns, SUB), np.float32)
    _to_scores(field.values, field.shape, np.float32(step), scores)
    rotate(scores, field.classes, field.stride, basis.backward, LOW_SCORES)
    return scores
