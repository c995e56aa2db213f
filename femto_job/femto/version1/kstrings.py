"""The k-strings: a tile's quantised scores as entropy-coded strings, zone by zone.

Order: zone, then plane, then block, then the scores of the zone. So the strings of the first
zones are a coarser picture of the whole tile. Consecutive zones make a layer, and each layer is a
string of its own.

Every bit is predicted from the neighbourhood that encoder and decoder share at that point:

- *magnitude*: a weighted sum of the magnitudes around a score (the same score in neighbouring
  blocks, the neighbouring frequencies here and there, the other planes, and what blocks of the
  class have in this zone, given the energy that the block has shown so far) gives the level M on
  which most contexts are built.
- *border prediction*: the border lines that a block's coded components produce must continue
  those of its neighbours. What is missing, projected on a component's own border lines, predicts
  its sign.
- *empty zones*: where little is expected, one flag says that all scores of the zone are zero.
"""

import numpy as np

from ..errors import LaffError
from ..jit import inlined, njit
from .basis import Basis1
from .blocks import SIZES, ZONES, Layout, inverse
from .entropy import (
    APM_BINS,
    decode_bit,
    decode_direct,
    learn,
    mixed_probability,
    new_coder,
    slot_probability,
    update_slot,
)
from .features import (
    MAGNITUDES,
    SIGNED,
    ZONE_FEATURES,
    Field,
    block_at,
    close_zone,
    draw_lines,
    magnitude_features,
    sign_key,
    signed_features,
    zone_features,
)
from .model import (
    A_CLASS,
    A_GROUP,
    A_LEVEL,
    A_SIGN_GROUP,
    A_SIGN_LEVEL,
    A_SPLIT,
    A_ZONE,
    A_ZONE_LEVEL,
    BAND,
    C0,
    C1,
    C2,
    C3,
    C4,
    C5,
    C6,
    C7,
    CLASS_INPUTS,
    CLASSES,
    GOLOMB,
    GROUP,
    GROUPS,
    INPUTS,
    K0,
    K1,
    K2,
    KINDS,
    LEVEL,
    LEVEL_LIMIT,
    LEVELS,
    P0,
    P1,
    P2,
    S0,
    S1,
    S2,
    S3,
    S4,
    S5,
    SIGN_INPUTS,
    SPLIT_INPUTS,
    STEPS,
    SUM_LIMIT,
    W_CLASS,
    W_GROUP,
    W_LEVEL,
    W_SIGN_GROUP,
    W_SIGN_LEVEL,
    W_SPLIT,
    W_ZONE,
    W_ZONE_LEVEL,
    Z0,
    Z1,
    Z2,
    Z3,
    Z4,
    ZONE_INPUTS,
)  # fmt: skip

LAYER_ENDS = (1, 3, 6, 10, 15, 21, 36, 64)
"""Zone after the last of each layer."""
LIMIT = 255
"""Where the count of a slot stops."""
RATE = 14
"""Learning rate of the mixers."""
STEP_OF = np.array([0, 1, 2, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6] + [7] * 8, np.int64)
"""Kind of the decision whether a magnitude is more than n."""
UNARY = 20
"""Magnitudes above this go on in Exp-Golomb code."""
GOLOMB_LIMIT = 30
ZONE_THRESHOLD = 110
"""Expected sum of a zone's magnitudes (in 1/256) below which a flag is coded for the zone."""
DIRECT_THRESHOLD = 5
"""Level of that sum below which the flag takes a single slot: it is nearly always zero there."""


@inlined
def _level(magnitude):
    """One of 24 levels of a magnitude in 1/256."""
    return np.int64(LEVEL[min(max(magnitude, 0), LEVEL_LIMIT - 1)])


@inlined
def _sum_level(total):
    """One of 16 levels of a sum in 1/16."""
    return np.int64(LEVEL[LEVEL_LIMIT + min(total, SUM_LIMIT - 1)])


@inlined
def _sign3(x):
    """0, 1 or 2 for negative, zero and positive."""
    return 1 + (1 if x > 0 else 0) - (1 if x < 0 else 0)


@njit
def _golomb(row, coder):
    """Exp-Golomb code of a number >= 0 with adaptive bits; stops at 2^30 whatever it reads."""
    at = GOLOMB + row * 64
    n = 0
    while n < GOLOMB_LIMIT:
        if decode_direct(at + n, 30, coder):
            n += 1
        else:
            break
    result = np.int64(1)
    for i in range(n):
        bit = decode_direct(at + 32 + n, 30, coder) if i == 0 else decode_bit(32768, coder)
        result = result * 2 + bit
    return result - 1


@inlined
def _flag_of_zone(t, b, total, around_level, quiet, g, coder):
    """Decode whether a zone of which little is expected holds anything."""
    p, z, s = b.p, b.z, b.s
    m = _level(total)
    at = Z4 + (p * ZONES + z) * LEVELS
    wa = W_ZONE_LEVEL + (p * LEVELS + m) * (ZONE_INPUTS + 1)
    wb = W_ZONE + (p * ZONES + z) * (ZONE_INPUTS + 1)
    aa = A_ZONE_LEVEL + (p * LEVELS + m) * APM_BINS
    ab = A_ZONE + (p * ZONES + z) * APM_BINS
    direct = m < DIRECT_THRESHOLD
    if direct:
        at += m * 4 + min(around_level >> 2, 3)
        probability = slot_probability(coder.state[at])
    else:
        near = (
            min((g[0] + 7) >> 4, 3) * 16
            + min((g[1] + 7) >> 4, 3) * 4
            + min((g[6] + g[7] + 7) >> 4, 3)
        )
        other = g[11] + g[12] + g[13] + g[14] if p == 0 else g[15] + g[16] + 3 * g[17] + g[18]
        coder.slots[0] = Z0 + ((p * SIZES + s) * ZONES + z) * LEVELS + m
        coder.slots[1] = Z1 + (p * ZONES + z) * 64 + near
        coder.slots[2] = Z2 + (((p * SIZES + s) * LEVELS + m) * 16 + around_level) * 8 + quiet
        coder.slots[3] = (
            Z3 + (((p * SIZES + s) * 8 + BAND[z]) * 12 + (m >> 1)) * 16 + _sum_level(other << s)
        )
        coder.slots[4] = at + _level(g[19] << (3 + s))
        probability = mixed_probability(ZONE_INPUTS, wa, wb, aa, ab, coder)
    bit = decode_bit(probability, coder)
    if direct:
        update_slot(coder.state, at, bit, LIMIT)
    else:
        learn(bit, ZONE_INPUTS, wa, wb, aa, ab, LIMIT, RATE, coder)
    return bit


@inlined
def _magnitude(
    learned, b, k, sub, in_zone, flagged, around_level, quiet, prediction_size, g, coder
):
    """Decode the magnitude of a score; `in_zone` is the sum of those before it in the zone."""
    p, s = b.p, b.s
    q = GROUP[s, k]
    band = BAND[b.z]
    total = np.int64(0)
    for e in range(MAGNITUDES):
        total += g[e] * learned.weights[p, b.which, q, e]
    m = _level(total >> 8)
    own_level = _sum_level(2 * (g[10] + g[11]) + g[12] + g[13] + g[14] + g[15] + g[16])
    beside_level = _sum_level(2 * (g[0] + g[1]) + g[2] + g[3])
    beyond_level = _sum_level(g[6] + g[7] + g[8] + g[9] + g[17] + g[18])
    if p > 0:
        other_level = _sum_level(4 * g[19] + g[20] + 6 * g[21] + g[22])
    else:
        other_level = _sum_level(2 * (g[4] + g[5]) + g[2] + g[3])
    sure = _level(prediction_size * 2)
    shape_level = _level(g[24] << 4)
    across = g[21] if p > 1 else g[19]
    near = (
        ((min((g[0] + 7) >> 4, 2) * 3 + min((g[1] + 7) >> 4, 2)) * 3 + min(g[10] >> 4, 2)) * 3
        + min(g[11] >> 4, 2)
    ) * 3 + min((across + 7) >> 4, 2)
    c0 = C0 + (q * 16 + beside_level) * KINDS
    c1 = C1 + (q * 16 + own_level) * KINDS
    c2 = C2 + (((own_level * 16 + beside_level) * 8 + (beyond_level >> 1)) * 8 + band) * KINDS
    c3 = C3 + (q * LEVELS + m) * KINDS
    c4 = C4 + (((s * 8 + band) * 16 + other_level) * 12 + (m >> 1)) * KINDS
    c5 = C5 + (((around_level * 8 + quiet) * 8 + band) * 8 + m // 3) * KINDS
    c6 = C6 + ((q * 12 + (sure >> 1)) * 12 + (shape_level >> 1)) * KINDS
    c7 = C7 + ((s * 243 + near) * 8 + band) * KINDS
    n = 0
    # The last score of a zone that was flagged is not zero if all others are.
    if flagged and sub == (1 << (2 * s)) - 1 and in_zone == 0:
        n = 1
    while n < UNARY:
        kind = p * STEPS + STEP_OF[n]
        coder.slots[0] = c0 + kind
        coder.slots[1] = c1 + kind
        coder.slots[2] = c2 + kind
        coder.slots[3] = c3 + kind
        coder.slots[4] = c4 + kind
        coder.slots[5] = c5 + kind
        coder.slots[6] = c6 + kind
        coder.slots[7] = c7 + kind
        wa = W_LEVEL + (kind * LEVELS + m) * (INPUTS + 1)
        wb = W_GROUP + (kind * GROUPS + q) * (INPUTS + 1)
        aa = A_LEVEL + (kind * LEVELS + m) * APM_BINS
        ab = A_GROUP + (kind * GROUPS + q) * APM_BINS
        probability = mixed_probability(INPUTS, wa, wb, aa, ab, coder)
        bit = decode_bit(probability, coder)
        learn(bit, INPUTS, wa, wb, aa, ab, LIMIT, RATE, coder)
        if not bit:
            break
        n += 1
    if n == UNARY:
        n += _golomb(1 if k == 0 else 0, coder)
    return n


@inlined
def _sign(t, b, k, at, size, prediction, f, coder):
    """Decode whether a score is negative."""
    p, s = b.p, b.s
    q = GROUP[s, k]
    sure = _level(min(abs(prediction), 1 << 20) * 2)
    sign_level = 12 + (sure >> 1) if prediction > 0 else 11 - (sure >> 1)
    if k == 0:
        sign_level = 0
    beside = _sign3(f[8]) * 3 + _sign3(f[9])
    across = _sign3(f[12]) * 3 + _sign3(f[13])
    steps = t.score_steps
    own = _sign3(t.values[at + steps[s, k, 0]]) * 3 + _sign3(t.values[at + steps[s, k, 1]])
    own2 = _sign3(t.values[at + steps[s, k, 3]]) * 3 + _sign3(t.values[at + steps[s, k, 4]])
    big = min(size, 3) - 1
    coder.slots[0] = S0 + (p * GROUPS + q) * 24 + sign_level
    coder.slots[1] = S1 + ((p * 24 + sign_level) * 9 + across) * 3 + big
    coder.slots[2] = S2 + (p * GROUPS + q) * 9 + beside
    coder.slots[3] = S3 + (p * GROUPS + q) * 9 + across
    coder.slots[4] = S4 + (p * GROUPS + q) * 27 + own * 3 + _sign3(f[8])
    coder.slots[5] = S5 + ((p * 24 + sign_level) * 9 + own2) * 3 + big
    wa = W_SIGN_LEVEL + (p * LEVELS + sure) * (SIGN_INPUTS + 1)
    wb = W_SIGN_GROUP + (p * GROUPS + q) * (SIGN_INPUTS + 1)
    aa = A_SIGN_LEVEL + (p * 24 + sign_level) * APM_BINS
    ab = A_SIGN_GROUP + (p * GROUPS + q) * APM_BINS
    probability = mixed_probability(SIGN_INPUTS, wa, wb, aa, ab, coder)
    bit = decode_bit(probability, coder)
    learn(bit, SIGN_INPUTS, wa, wb, aa, ab, LIMIT, RATE, coder)
    return bit


@njit
def _decode_zones(first, last, used, t, learned, coder):
    """Decode the zones first … last - 1 of a tile from one string.

    `used` (planes): zones from this one on are empty in the whole plane and took no bits.
    """
    stride, energy, silence = t.stride, t.energy, t.silence
    g = np.zeros(32, np.int64)
    f = np.zeros(SIGNED, np.int64)
    for z in range(first, last):
        for p in range(t.planes):
            if z >= used[p]:
                continue
            listed = t.luma_list if p == 0 else t.chroma_list
            for index in range(len(listed)):
                b = block_at(t, learned, listed, index, p, z)
                cell, s, plane_cell = b.cell, b.s, b.plane_cell
                r = 1 << s
                inside = r * r
                quiet = min(np.int64(silence[plane_cell]), 7)
                middle = r >> 1
                around_level = _sum_level(
                    (
                        np.int64(energy[plane_cell + middle * stride - 1])
                        + energy[plane_cell - stride + middle]
                        + energy[plane_cell + middle * stride + r]
                        + energy[plane_cell + r * stride + middle]
                    )
                    >> 2
                )
                flagged = False
                if z > 0:
                    zone_features(g, t, b)
                    total = np.int64(0)
                    for e in range(ZONE_FEATURES):
                        total += g[e] * learned.zone_weights[p, b.which, z, e]
                    total = (total << (2 * s)) >> 8
                    if total < ZONE_THRESHOLD:
                        flagged = True
                        if not _flag_of_zone(t, b, total, around_level, quiet, g, coder):
                            silence[plane_cell] = min(np.int64(silence[plane_cell]) + 1, 255)
                            continue

                in_zone = np.int64(0)
                for sub in range(inside):
                    i = sub >> s
                    j = sub & (r - 1)
                    k = z * inside + sub
                    at = b.zone_base + cell + i * stride + j
                    dc = k == 0
                    prediction = np.int64(0)
                    key = sign_key(b.c, len(learned.edges), z, s, sub)
                    if key >= 0:
                        signed_features(f, t, learned, b, i, j)
                        for e in range(SIGNED):
                            prediction += f[e] * learned.sign_weights[p, key, e]
                        prediction >>= 12
                    # The mean codes its difference to the prediction.
                    offset = (prediction + 32) >> 6 if dc else np.int64(0)
                    prediction_size = min(abs(prediction), 1 << 20)
                    magnitude_features(g, t, b, i, j, k)
                    if not dc:
                        g[26] = prediction_size >> 2
                    size = _magnitude(
                        learned,
                        b,
                        k,
                        sub,
                        in_zone,
                        flagged,
                        around_level,
                        quiet,
                        prediction_size,
                        g,
                        coder,
                    )
                    value = np.int64(size)
                    if size > 0:
                        if key >= 0:
                            negative = _sign(t, b, k, at, size, prediction, f, coder)
                        else:
                            negative = decode_bit(32768, coder)
                        if negative:
                            value = -value
                    t.magnitudes[at] = min(size, 255)
                    value += offset
                    t.values[at] = value
                    if dc:
                        for y in range(r):
                            for x in range(r):
                                t.means[plane_cell + y * stride + x] = (value << 6) >> s
                    else:
                        in_zone += size
                    if value != 0 and key >= 0:
                        draw_lines(value, t, learned, b, i, j)
                if z > 0:
                    if in_zone > 0:
                        silence[plane_cell] = 0
                    else:
                        silence[plane_cell] = min(np.int64(silence[plane_cell]) + 1, 255)
                if in_zone > 0:
                    close_zone(in_zone, t, b)


# --- sizes and classes -----------------------------------------------------------------------


@njit
def _flag(a, b, c, w, aa, coder):
    """Decode one bit, predicted by three slots, a weight vector and a map."""
    coder.slots[0] = a
    coder.slots[1] = b
    coder.slots[2] = c
    probability = mixed_probability(3, w, w, aa, aa, coder)
    bit = decode_bit(probability, coder)
    learn(bit, 3, w, w, aa, aa, LIMIT, RATE, coder)
    return bit


@njit
def _decode_blocks(sizes, classes, planes, rows, columns, stride, origin, bits, used, coder):
    """Decode the first empty zone of every plane (7 bits each), then for luma and chroma the
    quadtree of every superblock, and the classes of luma's small blocks."""
    for p in range(planes):
        value = np.int64(0)
        for _ in range(7):
            value = value * 2 + decode_bit(32768, coder)
        used[p] = min(value, ZONES)
    for kind in range(min(planes, 2)):
        for sy in range(0, rows, 4):
            for sx in range(0, columns, 4):
                corner = origin + sy * stride + sx
                left = np.int64(sizes[kind, corner - 1])
                top = np.int64(sizes[kind, corner - stride])
                left2 = np.int64(sizes[kind, corner + 2 * stride - 1])
                top2 = np.int64(sizes[kind, corner - stride + 2])
                luma = np.int64(sizes[0, corner]) if kind else np.int64(3)
                base = kind * 256
                whole = _flag(
                    P0 + base + (left * 4 + top) * 4 + luma,
                    P1 + base + (left2 * 4 + top2) * 4 + luma,
                    P2 + base + (left * 4 + left2) * 16 + top * 4 + top2,
                    W_SPLIT + kind * (SPLIT_INPUTS + 1),
                    A_SPLIT + kind * APM_BINS,
                    coder,
                )
                for qy in range(0, 4, 2):
                    for qx in range(0, 4, 2):
                        if sy + qy >= rows or sx + qx >= columns:
                            continue
                        cell = corner + qy * stride + qx
                        size = np.int64(2)
                        if not whole:
                            left = np.int64(sizes[kind, cell - 1])
                            top = np.int64(sizes[kind, cell - stride])
                            left2 = np.int64(sizes[kind, cell + stride - 1])
                            corner2 = np.int64(sizes[kind, cell - stride - 1])
                            luma = np.int64(sizes[0, cell]) if kind else np.int64(3)
                            base = 512 + kind * 256
                            size = _flag(
                                P0 + base + (left * 4 + top) * 4 + luma,
                                P1 + base + (top * 4 + corner2) * 4 + luma,
                                P2 + base + (left * 4 + left2) * 16 + top * 4 + corner2,
                                W_SPLIT + (2 + kind) * (SPLIT_INPUTS + 1),
                                A_SPLIT + (2 + kind) * APM_BINS,
                                coder,
                            )
                        for y in range(2):
                            for x in range(2):
                                sizes[kind, cell + y * stride + x] = size
    if bits > 0:
        for y in range(rows):
            for x in range(columns):
                cell = origin + y * stride + x
                if sizes[0, cell] != 0:
                    continue
                left = np.int64(classes[cell - 1])
                top = np.int64(classes[cell - stride])
                corner = np.int64(classes[cell - stride + 1])
                alike = 1 if left == top else 0
                node = np.int64(1)
                for _ in range(bits):
                    bit = _flag(
                        K0 + node * (CLASSES + 1) + left,
                        K1 + node * (CLASSES + 1) + top,
                        K2 + node * (CLASSES + 1) + corner,
                        W_CLASS + (CLASSES * alike + node) * (CLASS_INPUTS + 1),
                        A_CLASS + (CLASSES * alike + node) * APM_BINS,
                        coder,
                    )
                    node = node * 2 + bit
                classes[cell] = node - (1 << bits)


@njit
def _rotate(scores, luma_list, classes, cells, matrices):
    """Multiply the scores of luma's small blocks, but the mean, by their class's matrix, in place.

    The result's component e is the sum of matrices[c, k, e] times the score k; float32 (classes,
    64, 64).
    """
    before = np.empty(ZONES, np.float32)
    after = np.empty(ZONES, np.float32)
    for index in range(len(luma_list)):
        cell = np.int64(luma_list[index, 0])
        c = np.int64(classes[cell])
        if c == 0 or luma_list[index, 1] != 0:
            continue
        for z in range(ZONES):
            before[z] = scores[z * cells + cell]
            after[z] = np.float32(0)
        for k in range(ZONES):
            x = before[k]
            if x != 0:
                for e in range(ZONES):
                    after[e] += x * matrices[c, k, e]
        for z in range(ZONES):
            scores[z * cells + cell] = after[z]


def decode_scores(
    block_string: bytes,
    strings: list[bytes],
    height: int,
    width: int,
    planes: int,
    step: float,
    basis: Basis1,
) -> tuple[np.ndarray, Field]:
    """Decode a tile from its block string and the strings of its first layers.

    Parameters: `height`, `width` of the tile in pixels; `planes` 1 or 3; `step`, the quantiser
    step in grey levels.

    Returns its cosine scores, float32 on the lattice, and the field, which says how it is cut.
    Raises LaffError for more layers than the format has.
    """
    if len(strings) > len(LAYER_ENDS):
        raise LaffError(f"an archive of {len(strings)} layers: the format has {len(LAYER_ENDS)}")
    layout = Layout(height, width, planes)
    field = Field(layout)
    state = basis.state.copy()
    used = np.zeros(planes, np.int64)
    _decode_blocks(
        field.sizes,
        field.classes,
        planes,
        layout.rows,
        layout.columns,
        layout.stride,
        layout.origin,
        basis.class_bits,
        used,
        new_coder(block_string, state),
    )
    # A damaged class cannot get here (strings are checksummed), but memory is worth a look.
    np.minimum(field.classes, basis.classes - 1, out=field.classes)
    field.list_blocks()
    first = 0
    for string, last in zip(strings, LAYER_ENDS, strict=False):
        _decode_zones(first, last, used, field.tile(), basis.learned, new_coder(string, state))
        first = last
    scores = field.values.astype(np.float32)
    scores *= np.float32(step)
    _rotate(scores, field.lists[0], field.classes, layout.cells, basis.backward)
    return scores, field


def to_pixels(scores: np.ndarray, field: Field, bits: int) -> np.ndarray:
    """The tile that `decode_scores` has decoded: (h, w) for one plane, (h, w, 3) for three, uint8
    or uint16."""
    return inverse(scores, field.sizes, field.layout, bits)
