"""The k-strings: a tile's quantised scores as entropy-coded strings, zone by zone.

Order: zone, then plane, then block, then the scores of the zone. So the strings of the first
zones are a coarser picture of the whole tile. Consecutive zones make a layer, and each layer is a
string of its own.

Every bit is predicted from the neighbourhood that encoder and decoder share at that point:

- *magnitude*: a weighted sum of the magnitudes around a score (the same score in neighbouring
  blocks, the neighbouring frequencies here and there, the other planes, and what blocks of the
  class have in this zone, given the energy that the block has shown so far) gives the level M on
  which most contexts are built. The weights are trained (non-negative least squares).
- *border prediction*: the border lines that a block's coded components produce must continue
  those of its neighbours. What is missing, projected on a component's own border lines, predicts
  its sign.
- *empty zones*: where little is expected, one flag says that all scores of the zone are zero.

Quantisation happens here too, because the choice between two neighbouring values is made by
what each would cost (rate-distortion optimised quantisation).
"""

import threading
from typing import NamedTuple

import numpy as np

from ..errors import LaffError
from .blocks import ZIGZAG, ZONES, inverse
from .contexts import (
    MAGNITUDES,
    SIGNED,
    ZONE_FEATURES,
    Field,
    Learned,
    Tile,
    block_at,
    close_zone,
    double_precision,
    draw_lines,
    magnitude_features,
    sign_key,
    signed_features,
    zone_features,
)
from .entropy import (
    COST,
    POSITION,
    SPENT,
    TABLES,
    Coder,
    code_bit,
    code_direct,
    finish,
    learn,
    mixed_probability,
    new_coder,
    slot_probability,
)
from .equations import Equations, gather_magnitude, gather_sign, gather_zone
from .kernels import called, f32, i32, i64, inlined, kernel, only, u8
from .model import (
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
    DIGIT,
    DIGITS,
    FLAG,
    FLAG_LEVELS,
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
    MEAN,
    MEAN_LEVELS,
    P0,
    P1,
    P2,
    PLANES,
    S0,
    S1,
    S2,
    S3,
    S4,
    S5,
    SIGN_INPUTS,
    SIZES,
    SPLIT_INPUTS,
    STEPS,
    SUM_LIMIT,
    W_CLASS,
    W_GROUP,
    W_LEVEL,
    W_SIGN_GROUP,
    W_SIGN_LEVEL,
    W_SPLIT,
    ZERO,
    ZERO_LAST,
)  # fmt: skip
from .restore import restore

LAYERS = {
    4: (
        (3, 1), (3, 3), (3, 10), (3, 64), (2, 6), (2, 15), (2, 28), (2, 64), (1, 15), (1, 28),
        (1, 64), (0, 21), (0, 64),
    ),
    1: ((0, 1), (0, 3), (0, 6), (0, 10), (0, 21), (0, 64)),
}  # fmt: skip
"""What each layer holds, for an archive of four passes or of one: its pass and the zone after its
last. Pass n codes the magnitudes in steps of 2ⁿ; all zones are coded once in every pass."""
LIMIT = 255
"""Where the count of a slot stops."""
LEARNING = 20
"""Learning rate of the mixers."""
STEP_OF = np.array([0, 1, 2, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6] + [7] * 8, np.int64)
"""Kind of the decision whether a magnitude is more than n."""
UNARY = 20
"""Magnitudes above this go on in Exp-Golomb code."""
GOLOMB_LIMIT = 30
MEAN_OFFSET = 5
"""Added to the means of 8 x 8 blocks, in steps, and as much in grey levels to those of larger ones,
before they are cut into passes: the coarse intervals then have zero, where the chroma of nearly
grey pictures lies, near their middles."""
MOST_BYTES = 64
"""No score takes more: at the least probable, a bit takes 14."""
ZONE_THRESHOLD = np.array([15, 8, 8], np.int64)
"""Expected sum of a zone's magnitudes (in 1/256) below which a flag is coded for the zone; all
lie in the first FLAG_LEVELS levels."""
TRADE = 0.09
"""Lagrangian of the quantiser: squared error, in steps², that one bit must save."""
_BIT = np.float32(1 / 4096)
_FREQUENCY = np.hypot(*ZIGZAG.T) / 7
PERCEPTUAL = (
    np.rint(64 * (1 - 0.5 * _FREQUENCY + 0.5 * np.exp(-6 * _FREQUENCY))).astype(np.float32) / 64
)
"""Weights of the zones' scores where eyes are to judge. Coarser where they see less: high
frequencies; found by the SSIMULACRA2 of held-out training pictures."""
PASSED = np.array([1.35, 0.0, -1.0, -1.0, 0.5, -1.0], np.float32)
"""Bits saved beside the decision itself when a score is quantised to one less: where it becomes
zero in pass 0, 1, 2 and 3; and where it stays above, in pass 0 and before."""


class Choice(NamedTuple):
    """What the encoder may still choose in a zone: the exact scores in steps, the magnitudes that
    they are to be rounded to (of the mean: the value), and the Lagrangian of the choice."""

    exact: f32[:]
    target: i64[:]
    trade: f32


class Room(NamedTuple):
    """What one score or zone has of features, and the choice in a zone."""

    magnitude: i32[:]
    zone: i32[:]
    signed: i64[:]
    choice: Choice


def _new_room() -> Room:
    return Room(
        np.zeros(MAGNITUDES, np.int32),
        np.zeros(ZONE_FEATURES, np.int32),
        np.zeros(SIGNED, np.int64),
        Choice(np.zeros(16, np.float32), np.zeros(16, np.int64), TRADE),
    )


@inlined
def level_of(magnitude):
    """One of 24 levels of a magnitude in 1/256."""
    return np.int64(LEVEL[np.uint64(min(max(magnitude, 0), LEVEL_LIMIT - 1))])


@inlined
def sum_level(total):
    """One of 16 levels of a sum in 1/16."""
    return np.int64(LEVEL[np.uint64(LEVEL_LIMIT + min(total, SUM_LIMIT - 1))])


@inlined
def sign3(x):
    """0, 1 or 2 for negative, zero and positive."""
    return 1 + (1 if x > 0 else 0) - (1 if x < 0 else 0)


@inlined
def _saving(p):
    """Bits that a zero takes less than a one whose probability is p / 65536."""
    return _BIT * (TABLES[np.uint64(COST + (p >> 4))] - TABLES[np.uint64(COST + 4096 - (p >> 4))])


@called
def _golomb(value, row, coder):
    """Exp-Golomb code of a number >= 0 with adaptive bits; stops at 2^30 whatever it reads."""
    nbits = 0
    if coder.encoding is not None:
        while (value + 1) >> (nbits + 1):
            nbits += 1
    at = GOLOMB + row * 64
    n = 0
    while n < GOLOMB_LIMIT:
        if code_direct(1 if n < nbits else 0, at + n, 30, coder):
            n += 1
        else:
            break
    result = np.int64(1)
    for i in range(n):
        bit = ((value + 1) >> (n - 1 - i)) & 1
        bit = code_direct(bit, at + 32 + n, 30, coder) if i == 0 else code_bit(bit, 32768, coder)
        result = result * 2 + bit
    return result - 1


@inlined
def coarse(size, level):
    """A magnitude as pass `level` has it, in steps of 2^level.

    Intervals are nested, and those around zero are wide: 0 … 2^level - 2, but 0 … 1 for level 1.
    """
    if level == 0:
        return size
    if level == 1 and size == 1:
        return np.int64(0)
    return (size + 1) >> level


@inlined
def _lowest(size, level):
    """Whether a magnitude is the lowest of its interval in pass `level`."""
    return coarse(size - 1, level) < coarse(size, level)


@inlined
def _code_flag_of_zone(b, level, total, around_level, choice, coder):
    """Code whether a zone of which little is expected holds anything; returns that bit.

    While encoding, a single ±1 that costs more than it is worth is set to zero first.
    """
    p, z, s = b.p, b.z, b.s
    row = (min(b.refining, 1) * 3 + p) * ZONES + z
    at = FLAG + (row * FLAG_LEVELS + level_of(total)) * 4 + min(around_level >> 2, 3)
    probability = slot_probability(coder.state[np.uint64(at)])
    bit = 0
    if coder.encoding is not None:
        count = np.int64(0)
        single = 0
        for sub in range(1 << (2 * s)):
            size = coarse(choice.target[sub], level)
            count += size
            if size > 0:
                single = sub
        if count == 1 and _lowest(choice.target[single], level):
            gain = 2 * (abs(np.float64(choice.exact[single])) - choice.target[single]) + 1
            saved = _saving(probability) + PASSED[level] + np.float32(1.1 * s)
            if gain < choice.trade * saved:
                count = 0
                choice.target[single] -= 1
        bit = 1 if count > 0 else 0
    return code_direct(bit, at, LIMIT, coder)


@inlined
def _worth(level, n, sub, probability, choice):
    """Whether the target of score `sub` stays above n of pass `level`: is the error that one
    less adds worth the bits it saves? If not it becomes one less. While encoding only."""
    size = choice.target[sub]
    if coarse(size, level) != n + 1 or not _lowest(size, level):
        return
    over = abs(np.float64(choice.exact[sub])) - size
    saved = _saving(probability) + (PASSED[level] if n == 0 else PASSED[4 + min(level, 1)])
    if 2 * over + 1 < choice.trade * saved:
        choice.target[sub] -= 1


@inlined
def _code_magnitude(
    learned,
    b,
    level,
    k,
    sub,
    size,
    alone,
    kept,
    around_level,
    quiet,
    prediction_size,
    choice,
    g,
    coder,
):
    """Code the magnitude of a score in pass `level` and return it; while encoding the target may
    become one less.

    `size` is the magnitude to code (of the mean: of its difference; for other scores the target
    says it). After the first pass it is 0 or 1. `alone`: it is not zero, because the
    zone was flagged and all others are; `kept`: for that reason it must not become zero.
    """
    p, s, dc = b.p, b.s, k == 0
    q = GROUP[s, k]
    band = BAND[b.z]
    total = np.int64(0)
    row = learned.weights[b.refining, p, b.which, q]
    for e in range(MAGNITUDES):
        total += np.int64(g[e]) * np.int64(row[e])
    m = level_of(total >> 8)
    own_level = sum_level(
        2 * (g[10] + g[11] + g[30]) + g[12] + g[13] + g[14] + g[15] + g[16] + g[33]
    )
    beside_level = sum_level(2 * (g[0] + g[1] + g[28] + g[29]) + g[2] + g[3])
    beyond_level = sum_level(g[6] + g[7] + g[8] + g[9] + g[17] + g[18])
    if p > 0:
        other_level = sum_level(4 * g[19] + g[20] + 6 * g[21] + g[22])
    else:
        other_level = sum_level(2 * (g[4] + g[5]) + g[2] + g[3])
    sure = level_of(prediction_size * 2)
    shape_level = level_of(g[24] << 4)
    across = g[21] if p > 1 else g[19]
    near = (
        (
            (min((g[0] + g[28] + 7) >> 4, 2) * 3 + min((g[1] + g[29] + 7) >> 4, 2)) * 3
            + min((g[10] + (g[30] >> 1)) >> 4, 2)
        )
        * 3
        + min((g[11] + (g[30] >> 1)) >> 4, 2)
    ) * 3 + min((across + 7) >> 4, 2)
    c0 = C0 + (q * 16 + beside_level) * KINDS
    c1 = C1 + (q * 16 + own_level) * KINDS
    c2 = C2 + (((own_level * 16 + beside_level) * 8 + (beyond_level >> 1)) * 8 + band) * KINDS
    c3 = C3 + (q * LEVELS + m) * KINDS
    c4 = C4 + (((s * 8 + band) * 16 + other_level) * 12 + (m >> 1)) * KINDS
    c5 = C5 + (((around_level * 8 + quiet) * 8 + band) * 8 + m // 3) * KINDS
    c6 = C6 + ((q * 12 + (sure >> 1)) * 12 + (shape_level >> 1)) * KINDS
    c7 = C7 + ((s * 243 + near) * 8 + band) * KINDS
    n = np.int64(0)
    last = UNARY
    if b.refining:
        last = np.int64(1)
    if alone:
        n = np.int64(1)
    while n < last:
        step = STEP_OF[n]
        if b.refining:
            step = ZERO_LAST if level == 0 else ZERO
        kind = p * STEPS + step
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
        probability = mixed_probability(INPUTS, wa, wb, coder)
        if coder.encoding is not None and not dc:
            if not (kept and n == 0):
                _worth(level, n, sub, probability, choice)
            size = coarse(choice.target[sub], level)
        bit = code_bit(1 if size > n else 0, probability, coder)
        learn(bit, INPUTS, wa, wb, LIMIT, LEARNING, coder)
        if not bit:
            break
        n += 1
    if n == UNARY and not b.refining:
        n += _golomb(size - UNARY, 1 if dc else 0, coder)
    return n


@inlined
def _code_sign(t, b, k, at, negative, size, prediction, f, coder):
    """Code whether a score is negative; returns the bit."""
    p, s = b.p, b.s
    q = GROUP[s, k]
    sure = level_of(min(abs(prediction), 1 << 20) * 2)
    sign_level = 12 + (sure >> 1) if prediction > 0 else 11 - (sure >> 1)
    if k == 0:
        sign_level = 0
    beside = sign3(f[8] + f[14]) * 3 + sign3(f[9] + f[15])
    across = sign3(f[12]) * 3 + sign3(f[13])
    steps = t.score_steps
    own = sign3(t.values[np.uint64(at + steps[s, k, 0])]) * 3 + sign3(
        t.values[np.uint64(at + steps[s, k, 1])]
    )
    own2 = sign3(t.values[np.uint64(at + steps[s, k, 3])]) * 3 + sign3(
        t.values[np.uint64(at + steps[s, k, 4])]
    )
    big = min(size, 3) - 1
    coder.slots[0] = S0 + (p * GROUPS + q) * 24 + sign_level
    coder.slots[1] = S1 + ((p * 24 + sign_level) * 9 + across) * 3 + big
    coder.slots[2] = S2 + (p * GROUPS + q) * 9 + beside
    coder.slots[3] = S3 + (p * GROUPS + q) * 9 + across
    coder.slots[4] = S4 + (p * GROUPS + q) * 27 + own * 3 + sign3(f[8])
    coder.slots[5] = S5 + ((p * 24 + sign_level) * 9 + own2) * 3 + big
    wa = W_SIGN_LEVEL + (p * LEVELS + sure) * (SIGN_INPUTS + 1)
    wb = W_SIGN_GROUP + (p * GROUPS + q) * (SIGN_INPUTS + 1)
    probability = mixed_probability(SIGN_INPUTS, wa, wb, coder)
    bit = code_bit(negative, probability, coder)
    learn(bit, SIGN_INPUTS, wa, wb, LIMIT, LEARNING, coder)
    return bit


@inlined
def _code_digit(b, level, k, known, sub, choice, coder):
    """Code in which half of its interval a magnitude lies that was not zero, `known`, in the
    pass before; returns it. While encoding the target may become one less."""
    first = 2 * known
    if level == 0:
        first -= 1
        if known == 1:
            return np.int64(2)
    bit = 0
    at = DIGIT + ((min(level, 1) * PLANES + b.p) * GROUPS + GROUP[b.s, k]) * DIGITS
    at += min(known, DIGITS) - 1
    if coder.encoding is not None:
        _worth(level, first, sub, slot_probability(coder.state[np.uint64(at)]), choice)
        bit = coarse(choice.target[sub], level) - first
    return first + code_direct(bit, at, LIMIT, coder)


@inlined
def _code_mean_digit(b, ahead, bit, coder):
    """Code the next binary digit of a mean, which is predicted to be `ahead` of the middle of the
    interval that is known of it (in 1/64 steps of the digit); returns it."""
    place = min(max((ahead + 192) >> 3, 0), 47)
    return code_direct(bit, MEAN + (b.p * SIZES + b.s) * MEAN_LEVELS + place, 255, coder)


@called
def _code_zone(
    z, p, level, refining, t, learned, scores, targets, inverse_step, spent, coder, gather, room
):  # fmt: skip
    """Code one zone of a plane; see `_code_zones`."""
    stride, energy, silence = t.stride, t.energy, t.silence
    decoding = coder.encoding is None
    g, h, f, choice = room.magnitude, room.zone, room.signed, room.choice
    kind = min(p, 1)
    listed = t.luma_list if p == 0 else t.chroma_list
    for index in range(len(listed)):
        b = block_at(t, learned, listed, index, p, z, refining)
        cell, s, plane_cell = b.cell, b.s, b.plane_cell
        r = 1 << s
        inside = r * r
        error = np.float64(0)
        spent_before = coder.registers[SPENT]
        known_total = np.int64(0)
        if refining:
            for sub in range(inside):
                at = b.zone_base + cell + (sub >> s) * stride + (sub & (r - 1))
                if z + sub > 0:
                    known_total += abs(t.values[np.uint64(at)])
        if not decoding:
            for sub in range(inside):
                at = b.zone_base + cell + (sub >> s) * stride + (sub & (r - 1))
                choice.exact[sub] = scores[at] * inverse_step
                choice.target[sub] = targets[at]
            if z == 0:
                choice.exact[0] += np.float32(MEAN_OFFSET << s)
        quiet = min(np.int64(silence[np.uint64(plane_cell)]), 7)
        middle = r >> 1
        around_level = sum_level(
            (
                np.int64(energy[np.uint64(plane_cell + middle * stride - 1)])
                + energy[np.uint64(plane_cell - stride + middle)]
                + energy[np.uint64(plane_cell + middle * stride + r)]
                + energy[np.uint64(plane_cell + r * stride + middle)]
            )
            >> 2
        )
        flagged = False
        estimate = np.int64(0)
        if z > 0 and known_total == 0:
            zone_features(h, t, b)
            estimate = np.int64(0)
            row = learned.zone_weights[refining, p, b.which, z]
            for e in range(ZONE_FEATURES):
                estimate += np.int64(h[e]) * np.int64(row[e])
            total = (estimate << (2 * s)) >> 8
            if total < ZONE_THRESHOLD[refining]:
                flagged = True
                if not _code_flag_of_zone(b, level, total, around_level, choice, coder):
                    if gather is not None:
                        gather_zone(gather, h, b, estimate, 0)
                    silence[np.uint64(plane_cell)] = min(
                        np.int64(silence[np.uint64(plane_cell)]) + 1, 255
                    )
                    if not decoding:
                        for sub in range(inside):
                            at = b.zone_base + cell + (sub >> s) * stride + (sub & (r - 1))
                            targets[at] = choice.target[sub]
                            error += choice.exact[sub] * choice.exact[sub]
                        if level > 0:
                            error = np.float64(0)
                        spent[kind, index] += error + choice.trade * _BIT * np.float32(
                            coder.registers[SPENT] - spent_before
                        )
                    continue

        in_zone = np.int64(0)
        for sub in range(inside):
            i = sub >> s
            j = sub & (r - 1)
            k = z * inside + sub
            at = b.zone_base + cell + i * stride + j
            dc = k == 0
            known = np.int64(t.values[np.uint64(at)])
            fresh = dc or known == 0
            prediction = np.int64(0)
            key = sign_key(b.c, len(learned.edges), z, s, sub)
            if key >= 0 and fresh:
                signed_features(f, t, learned, b, i, j)
                for e in range(SIGNED):
                    prediction += f[e] * learned.sign_weights[refining, p, key, e]
                prediction >>= 12
            value = np.int64(0)
            if dc and refining:
                bit = 0
                if not decoding:
                    bit = (np.int64(choice.target[sub]) >> level) & 1
                value = known + _code_mean_digit(b, prediction - 64 * (known + 1), bit, coder)
            elif not fresh:
                size = _code_digit(b, level, k, abs(known) >> 1, sub, choice, coder)
                t.magnitudes[np.uint64(at)] = min(size, 255)
                value = size if known > 0 else -size
            else:
                # The mean codes its difference to the prediction.
                offset = np.int64(0)
                if dc:
                    offset = (prediction + (32 if level == 0 else 0)) >> 6
                prediction_size = min(abs(prediction), 1 << 20)
                magnitude_features(g, t, b, i, j, k)
                if not dc:
                    g[26] = prediction_size >> 2
                if not decoding:
                    if dc:
                        value = (np.int64(choice.target[sub]) >> level) - offset
                    elif choice.exact[sub] < 0:
                        value = np.int64(-1)
                    else:
                        value = np.int64(1)
                alone = flagged and sub == inside - 1 and in_zone == 0
                kept = np.int64(0)
                if not decoding and flagged and in_zone == 0:
                    # A zone that was flagged keeps what is left of it.
                    kept = np.int64(1)
                    for later in range(sub + 1, inside):
                        if coarse(choice.target[later], level) > 0:
                            kept = np.int64(0)
                size = _code_magnitude(
                    learned,
                    b,
                    level,
                    k,
                    sub,
                    abs(value),
                    alone,
                    kept,
                    around_level,
                    quiet,
                    prediction_size,
                    choice,
                    g,
                    coder,
                )
                if size > 0:
                    bit = 1 if value < 0 else 0
                    if key >= 0:
                        bit = _code_sign(t, b, k, at, bit, size, prediction, f, coder)
                    else:
                        bit = code_bit(bit, 32768, coder)
                    value = -size if bit else size
                else:
                    value = np.int64(0)
                t.magnitudes[np.uint64(at)] = min(size, 255)
                value += offset
                if gather is not None:
                    gather_magnitude(gather, learned, g, b, k, size)
            t.values[np.uint64(at)] = value
            exact = value << 6
            if dc and level > 0:
                exact += 32
            if gather is not None and fresh and key >= 0:
                gather_sign(gather, f, b, key, exact)
            if dc:
                for y in range(r):
                    for x_ in range(r):
                        t.means[np.uint64(plane_cell + y * stride + x_)] = exact >> s
            else:
                in_zone += abs(value)
            if value != known and key >= 0:
                draw_lines(value - known, t, learned, b, i, j)
            if not decoding:
                targets[at] = choice.target[sub]
                if level == 0:
                    off = np.float64(choice.exact[sub]) - value
                    error += off * off
        if z > 0:
            if in_zone > 0:
                silence[np.uint64(plane_cell)] = 0
            else:
                silence[np.uint64(plane_cell)] = min(
                    np.int64(silence[np.uint64(plane_cell)]) + 1, 255
                )
        if gather is not None and z > 0 and known_total == 0:
            gather_zone(gather, h, b, estimate, in_zone)
        if in_zone != known_total:
            close_zone(in_zone, known_total, t, b)
        if not decoding:
            spent[kind, index] += error + choice.trade * _BIT * np.float32(
                coder.registers[SPENT] - spent_before
            )


@called
def _zones(
    z, before, level, last, used, t, learned, scores, targets, inverse_step, spent, coder, gather,
    room,
):  # fmt: skip
    """Code zones from z on; see `_code_zones`."""
    refining = 0 if before <= level else 2 if level == 0 else 1
    while z < last:
        if coder.encoding is not None:
            most = t.planes * (MOST_BYTES * t.cells + 64)
            if coder.registers[POSITION] + most > len(coder.data):
                return z
        for p in range(t.planes):
            if z < used[p]:
                _code_zone(
                    z, p, level, refining, t, learned, scores, targets, inverse_step, spent, coder,
                    gather, room,
                )  # fmt: skip
        z += 1
    if coder.encoding is not None:
        finish(coder)
    return z


@kernel
def _code_zones(
    first: int,
    before: int,
    level: int,
    last: int,
    used: i64[:],
    t: Tile,
    learned: Learned,
    scores: f32[:],
    targets: i32[:],
    inverse_step: f32,
    spent: f32[:, :],
    coder: Coder,
    room: Room,
) -> int:
    """Code the zones first … last - 1 of a tile in pass `level` as one string, in either
    direction; returns the zone before which the string's room could be too small, or `last`.

    `used` (planes): zones from this one on are zero in the whole plane and take no bits.
    While encoding only: `scores`; `targets`, the magnitudes that they are to be rounded to;
    `inverse_step`; and `spent` (2, blocks), which grows by each block's cost, squared error (in
    steps²) plus the Lagrangian times bits.
    """
    return _zones(
        first, before, level, last, used, t, learned, scores, targets, inverse_step, spent, coder,
        None, room,
    )  # fmt: skip


@kernel
def _code_zones_gathering(
    first: int,
    before: int,
    level: int,
    last: int,
    used: i64[:],
    t: Tile,
    learned: Learned,
    scores: f32[:],
    targets: i32[:],
    inverse_step: f32,
    spent: f32[:, :],
    coder: only(Coder, encoding=bool),
    room: Room,
    gather: Equations,
) -> int:
    """As `_code_zones`, while encoding, with normal equations to add to."""
    return _zones(
        first, before, level, last, used, t, learned, scores, targets, inverse_step, spent, coder,
        gather, room,
    )  # fmt: skip


# --- sizes and classes -----------------------------------------------------------------------


@called
def _code_flag(bit, a, b, c, w, coder):
    """Code one bit, predicted by three slots and a weight vector."""
    coder.slots[0] = a
    coder.slots[1] = b
    coder.slots[2] = c
    probability = mixed_probability(3, w, w, coder)
    bit = code_bit(bit, probability, coder)
    learn(bit, 3, w, w, LIMIT, LEARNING, coder)
    return bit


@kernel
def _code_blocks(
    sizes: u8[:, :],
    classes: u8[:],
    planes: int,
    rows: int,
    columns: int,
    stride: int,
    origin: int,
    bits: int,
    used: i64[:, :],
    coder: Coder,
):
    """Code the first empty zone of every pass and plane (7 bits each), then for luma and chroma
    the quadtree of every superblock, and the classes of luma's small blocks."""
    for n in range(len(used)):
        for p in range(planes):
            value = np.int64(0)
            for i in range(6, -1, -1):
                bit = code_bit((used[n, p] >> i) & 1, 32768, coder)
                value = value * 2 + bit
            used[n, p] = min(value, ZONES)
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
                whole = _code_flag(
                    1 if sizes[kind, corner] == 2 else 0,
                    P0 + base + (left * 4 + top) * 4 + luma,
                    P1 + base + (left2 * 4 + top2) * 4 + luma,
                    P2 + base + (left * 4 + left2) * 16 + top * 4 + top2,
                    W_SPLIT + kind * (SPLIT_INPUTS + 1),
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
                            size = _code_flag(
                                1 if sizes[kind, cell] == 1 else 0,
                                P0 + base + (left * 4 + top) * 4 + luma,
                                P1 + base + (top * 4 + corner2) * 4 + luma,
                                P2 + base + (left * 4 + left2) * 16 + top * 4 + corner2,
                                W_SPLIT + (2 + kind) * (SPLIT_INPUTS + 1),
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
                for i in range(bits - 1, -1, -1):
                    bit = (np.int64(classes[cell]) >> i) & 1
                    bit = _code_flag(
                        bit,
                        K0 + node * (CLASSES + 1) + left,
                        K1 + node * (CLASSES + 1) + top,
                        K2 + node * (CLASSES + 1) + corner,
                        W_CLASS + (CLASSES * alike + node) * (CLASS_INPUTS + 1),
                        coder,
                    )
                    node = node * 2 + bit
                classes[cell] = node - (1 << bits)
    if coder.encoding is not None:
        finish(coder)


@kernel
def _rotate(
    scores: f32[:],
    luma_list: i32[:, :],
    classes: u8[:],
    cells: int,
    matrices: f32[:, :, :],
    before: f32[:],
    after: f32[:],
):
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


def rotate(scores: np.ndarray, luma_list, classes, cells: int, matrices: np.ndarray) -> None:
    """Multiply the scores of luma's small blocks, but the mean, by their class's matrix, in place.

    The result's component e is the sum of matrices[c, k, e] times the score k; float32 (classes,
    64, 64).
    """
    _rotate(scores, luma_list, classes, cells, matrices, *np.empty((2, ZONES), np.float32))


@kernel
def _round_scores(scores: f32[:], inverse_step: f32, targets: i32[:]):
    """Nearest magnitudes of all scores in steps."""
    for at in range(len(scores)):
        targets[at] = np.int64(np.floor(abs(scores[at]) * inverse_step + np.float32(0.5)))


@kernel
def _sign_means(
    scores: f32[:],
    used: i64[:, :],
    planes: int,
    cells: int,
    luma_list: i32[:, :],
    chroma_list: i32[:, :],
    targets: i32[:],
):
    """Make magnitudes of means values again, and shift them, but in planes that are empty."""
    for p in range(planes):
        listed = luma_list if p == 0 else chroma_list
        for index in range(len(listed)):
            at = p * 65 * cells + np.int64(listed[index, 0])
            if scores[at] < 0:
                targets[at] = -targets[at]
            if used[0, p] > 0:
                targets[at] += MEAN_OFFSET << np.int64(listed[index, 1])


def _used_zones(targets, layout, passes: int) -> np.ndarray:
    """First zone from which on all magnitudes are zero, for every pass and plane, int64. Zone 0,
    with the means, is in every pass of a plane that is not empty."""
    peaks = targets.reshape(layout.planes, ZONES + 1, layout.cells).max(axis=2)
    used = np.zeros((passes, layout.planes), np.int64)
    for level, p in np.ndindex(*used.shape):
        loud = [z for z in range(ZONES) if coarse(peaks[p, z], level) > 0]
        used[level, p] = max(loud, default=0) + 1 if peaks[p].any() else 0
    return used


_NO_SCORES = np.zeros(1, np.float32)
_NO_TARGETS = np.zeros(1, np.int32)
_NOTHING_SPENT = np.zeros((2, 1), np.float32)


def _bytes(string: bytes) -> np.ndarray:
    return np.frombuffer(string, np.uint8).copy()


def zone_ends(passes: int) -> list[int]:
    """The zone after the last of each layer of the first pass."""
    return [last for level, last in LAYERS[passes] if level == passes - 1]


def _layers(passes: int):
    """The pass before (-1 in the first), pass, first zone and zone after the last of all layers."""
    before, level, first = -1, passes - 1, 0
    for now, last in LAYERS[passes]:
        if now != level:
            before, level, first = level, now, 0
        yield before, level, first, last
        first = last


def _last_layer(field: Field) -> tuple[int, int, int, int]:
    """What `_layers` says of the last layer that is coded."""
    return list(_layers(field.passes))[field.coded - 1]


def code_field(
    scores: np.ndarray,
    step: float,
    basis,
    field: Field,
    state: np.ndarray,
    spent: np.ndarray | None = None,
    equations=None,
):
    """Quantise and code the scores of a tile whose block sizes and classes are in `field`.

    Parameters: `scores` float32 on the lattice, grey levels, those of trained classes rotated;
    `state` the model's state, which learns on; `spent` float32 (2, blocks), grows by what each
    block costs; `equations` to gather, for training. Returns (block string, one string per
    layer).
    """
    layout = field.layout
    planes = layout.planes
    inverse_step = np.float32(1 / step)
    targets = np.empty(layout.values, np.int32)
    _round_scores(scores, inverse_step, targets)
    used = field.used = _used_zones(targets, layout, field.passes)
    _sign_means(scores, used, planes, layout.cells, *field.lists, targets)
    room = np.zeros(layout.rows * layout.columns * 4 + 4096, np.uint8)
    coder = new_coder(False, room, state)
    _code_blocks(
        field.sizes,
        field.classes,
        planes,
        layout.rows,
        layout.columns,
        layout.stride,
        layout.origin,
        basis.class_bits,
        used,
        coder,
    )
    block_string = field.colour + room[: coder.registers[POSITION]].tobytes()
    if spent is None:
        spent = np.zeros((2, layout.rows * layout.columns), np.float32)
    layers, choices = [], _new_room()
    for before, level, first, last in _layers(field.passes):
        if before > level and first == 0:
            double_precision(field)
        room = np.empty(planes * layout.cells * (last - first + MOST_BYTES) + 8192, np.uint8)
        coder, z = new_coder(False, room, state), first
        while True:
            arguments = (
                z, before, level, last, used[level], field.tile(), basis.learned, scores, targets,
                inverse_step, spent, coder, choices,
            )  # fmt: skip
            if equations is None:
                z = _code_zones(*arguments)
            else:
                z = _code_zones_gathering(*arguments, equations)
            if z == last:
                break
            room = np.concatenate([coder.data, np.empty_like(coder.data)])
            coder = coder._replace(data=room)
        layers.append(coder.data[: coder.registers[POSITION]].tobytes())
    field.coded = len(layers)
    return block_string, tuple(layers)


@kernel
def _reconstruct(
    values: i32[:],
    used: i64[:, :],
    before: int,
    level: int,
    refined: int,
    zones: int,
    steps: f32[:],
    planes: int,
    cells: int,
    luma_list: i32[:, :],
    chroma_list: i32[:, :],
    scores: f32[:],
):
    """Scores, in grey levels, from what is known of them: zones before `refined` from pass
    `level`, those up to `zones` from pass `before`. `steps`: of every zone, in grey levels."""
    for p in range(planes):
        for z in range(zones):
            step = steps[z]
            for at in range((p * 65 + z) * cells, (p * 65 + z + 1) * cells):
                value = np.int64(values[at])
                if value == 0:
                    scores[at] = np.float32(0)
                    continue
                n = level
                size = abs(value)
                if z >= refined:
                    n = before
                    size >>= before - level
                x = np.float32(size)
                if n == 1:
                    x = np.float32(2 * size) - (np.float32(0.55) if size > 1 else np.float32(0))
                elif n > 1:
                    x = np.float32(size << n) + np.float32(0.45 * (1 << n) - 1.5)
                scores[at] = (x if value > 0 else -x) * step
        if used[0, p] == 0:
            continue
        listed = luma_list if p == 0 else chroma_list
        for index in range(len(listed)):
            at = p * 65 * cells + np.int64(listed[index, 0])
            value = (np.int64(values[at]) << level) - (MEAN_OFFSET << np.int64(listed[index, 1]))
            scores[at] = (np.float32(value) + np.float32(0.5 * ((1 << level) - 1))) * steps[0]


def weights_of(tune: str) -> np.ndarray:
    """What every zone's scores are multiplied by before they are quantised, float32 (64)."""
    return PERCEPTUAL if tune == "perceptual" else np.ones(ZONES, np.float32)


def dequantise(field: Field, step: float, basis) -> np.ndarray:
    """Cosine scores on the lattice, float32 (layout.values), of a coded tile, in grey levels."""
    layout = field.layout
    scores = np.zeros(layout.values, np.float32)
    if field.coded:
        before, level, _, refined = _last_layer(field)
        _reconstruct(
            field.values,
            field.used,
            before,
            level,
            refined,
            refined if before < 0 else ZONES,  # of no others anything is known
            np.float32(step) / weights_of(field.tune),
            layout.planes,
            layout.cells,
            *field.lists,
            scores,
        )
        rotate(scores, field.lists[0], field.classes, layout.cells, basis.backward)
    return scores


def step_of(field: Field, step: float) -> float:
    """The step that most scores of a tile are known to."""
    if not field.coded:
        return step
    before, level, _, refined = _last_layer(field)
    # Of a pass that has just begun most scores are known as the pass before left them.
    return step * 2 ** (level if refined >= 10 else max(before, level))


def planes_of(scores: np.ndarray, field: Field, step: float, basis) -> np.ndarray:
    """The planes of a coded tile with these scores, restored, float32 (planes, h, w), in grey
    levels."""
    planes = inverse(scores, field.sizes, field.layout)
    steps = [step_of(field, step)] * len(planes)
    return restore(planes, field.sizes, field.layout, steps, basis.restoration)


def encode(scores: np.ndarray, step: float, basis, field: Field) -> tuple[bytes, tuple[bytes, ...]]:
    """Quantise and code a tile whose sizes and classes are chosen, see `code_field`; returns
    (block string, one string per layer). The field then holds what a decoder will see; the scores
    are weighted in place."""
    if field.tune != "psnr":
        by_zone = scores.reshape(field.layout.planes, ZONES + 1, field.layout.cells)
        by_zone[:, :ZONES] *= weights_of(field.tune)[:, None]
    return code_field(scores, step, basis, field, basis.state.copy())


_LOCAL = threading.local()


def _fresh_state(basis) -> np.ndarray:
    """A copy of the basis's state that is good until this thread asks for the next: new memory of
    this size would cost a small tile more than its first strings."""
    buffer = getattr(_LOCAL, "state", None)
    if buffer is None or buffer.shape != basis.state.shape:
        buffer = _LOCAL.state = np.empty_like(basis.state)
    buffer[:] = basis.state
    return buffer


def decode(block_string: bytes, layers: list[bytes], basis, field: Field) -> None:
    """Fill a fresh field from its block string and its first layers; what is missing is zero.

    Raises LaffError for more layers than the format has.
    """
    layout = field.layout
    most = len(LAYERS[field.passes])
    if len(layers) > most:
        raise LaffError(f"an archive of {len(layers)} layers: the format has {most}")
    state = _fresh_state(basis)
    used = field.used = np.zeros((field.passes, layout.planes), np.int64)
    colour = 6 if layout.planes == 3 else 0
    field.colour, block_string = block_string[:colour].ljust(colour, b"\0"), block_string[colour:]
    _code_blocks(
        field.sizes,
        field.classes,
        layout.planes,
        layout.rows,
        layout.columns,
        layout.stride,
        layout.origin,
        basis.class_bits,
        used,
        new_coder(True, _bytes(block_string), state),
    )
    # A damaged class cannot get here (strings are checksummed), but memory is worth a look.
    np.minimum(field.classes, basis.classes - 1, out=field.classes)
    field.list_blocks()
    room = _new_room()
    for string, (before, level, first, last) in zip(layers, _layers(field.passes), strict=False):
        if before > level and first == 0:
            double_precision(field)
        _code_zones(
            first,
            before,
            level,
            last,
            used[level],
            field.tile(),
            basis.learned,
            _NO_SCORES,
            _NO_TARGETS,
            1.0,
            _NOTHING_SPENT,
            new_coder(True, _bytes(string), state),
            room,
        )
    field.coded = len(layers)
