"""The first layer alone: what features and small pictures are read from.

Of a tile whose further layers nobody asks for, `kstrings` would fill arrays for 64 zones and a
state for all their statistics, to use a seventieth of them. Here the block string and zone 0 of
all planes are decoded with what they need and nothing else: the statistics of zone 0 in the first
pass, laid out by themselves; features that zone 0 has, the others being zero before any further
zone is known; of border lines, the ones that lie between what is coded and what comes next.

The bits, and what they mean, are those of `kstrings`; tests hold the two to each other.
"""

import threading
from typing import NamedTuple

import numpy as np

from . import contexts, model
from .blocks import NO_SIZE, SIZES, SUPER, ZONES, Layout
from .contexts import CONSTANT, SIGN_ZONES, TRAINED_SET, Learned
from .entropy import (
    CONFIDENCE,
    MOST_INPUTS,
    RATE,
    SQUASH,
    STRETCH,
    STRETCH_LIMIT,
    TABLES,
)
from .kernels import called, f32, i32, i64, inlined, kernel, packed, u8, u16
from .kstrings import (
    GOLOMB_LIMIT,
    LEARNING,
    LIMIT,
    MEAN_OFFSET,
    STEP_OF,
    UNARY,
    level_of,
    sign3,
    sum_level,
)
from .model import (
    CLASS_INPUTS,
    CLASSES,
    GROUP,
    GROUPS,
    INPUTS,
    LEVELS,
    PLANES,
    SIGN_INPUTS,
    SPLIT_INPUTS,
)

FIRST = int(GROUP[0, 0])
"""Zone 0 has the groups of scores from this one on."""
SCORES = GROUPS - FIRST
STEPS = 8
"""Kinds of decision about a magnitude that the first pass has."""
LINES = contexts.LINES.astype(np.int32)


def _choose() -> tuple[list[int], np.ndarray, int]:
    """The state of zone 0 in the first pass: where each of its parts begins, those of the planes
    counted from the plane's own beginning; which places of the whole state it is made of; and the
    length of a plane's.

    First comes what planes share, then plane after plane, so that grey pictures need not have all.
    Decisions about a magnitude lie side by side.
    """
    whole = np.arange(model.SLOTS + model.WEIGHTS)
    q = slice(FIRST, None)

    def of(start, *shape):
        return whole[start : start + int(np.prod(shape))].reshape(shape)

    kinds = (PLANES, model.STEPS)
    contexts_ = [
        of(model.C0, GROUPS, 16, *kinds)[q],
        of(model.C1, GROUPS, 16, *kinds)[q],
        of(model.C2, 16, 16, 8, 8, *kinds)[:, :, :, 0],  # of the first band of zones
        of(model.C3, GROUPS, LEVELS, *kinds)[q],
        of(model.C4, SIZES, 8, 16, 12, *kinds)[:, 0],
        of(model.C5, 16, 8, 8, 8, *kinds)[:, 0, 0],  # no zone was silent yet
        of(model.C6, GROUPS, 12, 12, *kinds)[q, :, 0],  # and none had energy
        of(model.C7, SIZES * 243, 8, *kinds)[:, 0],
    ]
    parts = [np.moveaxis(part[..., :STEPS], -2, 0) for part in contexts_]
    parts += [
        of(model.S0, PLANES, GROUPS, 24)[:, q],
        of(model.S1, PLANES, 24, 9, 3),
        of(model.S2, PLANES, GROUPS, 9)[:, q],
        of(model.S3, PLANES, GROUPS, 9)[:, q],
        of(model.S4, PLANES, GROUPS, 27)[:, q],
        of(model.S5, PLANES, 24, 9, 3),
        of(model.W_LEVEL, PLANES, model.STEPS, LEVELS, INPUTS + 1)[:, :STEPS],
        of(model.W_GROUP, PLANES, model.STEPS, GROUPS, INPUTS + 1)[:, :STEPS, q],
        of(model.W_SIGN_LEVEL, PLANES, LEVELS, SIGN_INPUTS + 1),
        of(model.W_SIGN_GROUP, PLANES, GROUPS, SIGN_INPUTS + 1)[:, q],
    ]
    parts = [part.reshape(PLANES, -1) for part in parts]
    shared = [
        of(model.GOLOMB, 2 * 64),
        of(model.K0, CLASSES * (CLASSES + 1)),
        of(model.K1, CLASSES * (CLASSES + 1)),
        of(model.K2, CLASSES * (CLASSES + 1)),
        of(model.P0, 2 * 2 * 4**4),
        of(model.P1, 2 * 2 * 4**4),
        of(model.P2, 2 * 2 * 4**4),
        of(model.W_CLASS, 2 * CLASSES * (CLASS_INPUTS + 1)),
        of(model.W_SPLIT, 4 * (SPLIT_INPUTS + 1)),
    ]
    ends = np.cumsum([part.size for part in shared] + [part.shape[1] for part in parts])
    begins = [0, *ends[:-1].tolist()]
    length = int(ends[-1]) - begins[len(shared)]
    return begins, np.concatenate([*shared, np.hstack(parts).ravel()]), length


_BEGINS, _PLACES, PLANE = _choose()
(
    GOLOMB, K0, K1, K2, P0, P1, P2, W_CLASS, W_SPLIT,
    C0, C1, C2, C3, C4, C5, C6, C7, S0, S1, S2, S3, S4, S5,
    W_LEVEL, W_GROUP, W_SIGN_LEVEL, W_SIGN_GROUP,
) = _BEGINS  # fmt: skip


def state_of(whole: np.ndarray) -> np.ndarray:
    """The state that this module starts from, of a basis's whole state."""
    return whole[_PLACES]


class Room(NamedTuple):
    """What is known of a tile, and room for the work.

    Of every plane and cell (planes, cells): zone 0's integers and their magnitudes, the mean
    magnitude of zone 0 and the energy of the block, in 1/16, its mean, and zone 0's scores; sizes,
    uint8 (kinds, cells), and classes; zones that are used, (passes, planes). Border samples, in
    1/1024 step: of what lies to the left of the superblock's rows and above the tile's columns, and
    the block's own four sides. Their products with the cosines of each frequency of zone 0: of the
    samples to the left and above, and of the four sides, with how much was drawn when these were
    made. State, its places for the next bit, and that bit's inputs.
    """

    values: i32[:, :]
    magnitudes: u8[:, :]
    zones: u16[:, :]
    energy: i32[:, :]
    means: i32[:, :]
    scores: f32[:, :]
    sizes: u8[:, :]
    classes: u8[:]
    used: i64[:, :]
    left: i32[:]
    top: i32[:]
    own: i32[:, :]
    products: i64[:, :]
    drawn: i64[:, :]
    state: i32[:]
    slots: i64[:]
    scratch: i64[:]


@inlined
def _next(p, low, high, code, position, data):
    """Read a bit whose probability of being one is p / 65536."""
    middle = low + (((high - low) * p) >> 16)
    bit = 1 if code <= middle else 0
    if bit:
        high = middle
    else:
        low = middle + 1
    while ((low ^ high) & 0xFF000000) == 0:
        byte = np.int64(0)
        if position < len(data):
            byte = np.int64(data[np.uint64(position)])
        code = ((code << 8) & 0xFFFFFFFF) | byte
        position += 1
        low = (low << 8) & 0xFFFFFFFF
        high = ((high << 8) & 0xFFFFFFFF) | 0xFF
    return bit, low, high, code, position


@inlined
def _update(state, at, bit, limit):
    """As `entropy.update_slot`."""
    slot = np.int64(state[np.uint64(at)])
    count = slot & 255
    p = slot >> 8
    target = 4194303 if bit else 0
    p += ((target - p) * TABLES[np.uint64(RATE + count)]) >> 16
    if count < limit:
        count += 1
    state[np.uint64(at)] = (p << 8) | count


@inlined
def _direct(at, limit, low, high, code, position, data, state):
    p = min(max(np.int64(state[np.uint64(at)]) >> 14, 4), 65532)
    bit, low, high, code, position = _next(p, low, high, code, position, data)
    _update(state, at, bit, limit)
    return bit, low, high, code, position


@inlined
def _mixed(n, step, wa, wb, room, low, high, code, position, data):
    """Read a bit from n slots, all `step` after those in the room, and two vectors of weights."""
    state, slots, scratch = room.state, room.slots, room.scratch
    dot_a = np.int64(256) * state[np.uint64(wa + n)]
    dot_b = np.int64(256) * state[np.uint64(wb + n)]
    for i in range(n):
        slot = state[np.uint64(slots[i] + step)]
        x = (
            TABLES[np.uint64(STRETCH + (slot >> 18))] * TABLES[np.uint64(CONFIDENCE + (slot & 255))]
        ) >> 8
        scratch[i] = x
        dot_a += x * state[np.uint64(wa + i)]
        dot_b += x * state[np.uint64(wb + i)]
    dot_a = min(max(dot_a >> 16, -STRETCH_LIMIT), STRETCH_LIMIT)
    dot_b = min(max(dot_b >> 16, -STRETCH_LIMIT), STRETCH_LIMIT)
    p = np.int64(TABLES[np.uint64(SQUASH + ((dot_a + dot_b) >> 1))])
    bit, low, high, code, position = _next(p, low, high, code, position, data)
    error_a = ((bit << 16) - np.int64(TABLES[np.uint64(SQUASH + dot_a)])) * LEARNING
    error_b = ((bit << 16) - np.int64(TABLES[np.uint64(SQUASH + dot_b)])) * LEARNING
    scratch[n] = 256
    for i in range(n + 1):
        x = scratch[i]
        state[np.uint64(wa + i)] += (x * error_a + (1 << 23)) >> 24
        state[np.uint64(wb + i)] += (x * error_b + (1 << 23)) >> 24
    for i in range(n):
        _update(state, slots[i] + step, bit, LIMIT)
    return bit, low, high, code, position


@inlined
def _flag(a, b, c, w, low, high, code, position, data, room):
    room.slots[0] = a
    room.slots[1] = b
    room.slots[2] = c
    return _mixed(3, 0, w, w, room, low, high, code, position, data)


@called
def _golomb(row, state, low, high, code, position, data):
    """Read an Exp-Golomb number; see `kstrings._golomb`."""
    n = np.int64(0)
    while n < GOLOMB_LIMIT:
        bit, low, high, code, position = _direct(
            row + n, GOLOMB_LIMIT, low, high, code, position, data, state
        )
        if not bit:
            break
        n += 1
    result = np.int64(1)
    for i in range(n):
        if i == 0:
            bit, low, high, code, position = _direct(
                row + 32 + n, GOLOMB_LIMIT, low, high, code, position, data, state
            )
        else:
            bit, low, high, code, position = _next(32768, low, high, code, position, data)
        result = result * 2 + bit
    return result - 1, low, high, code, position


@called
def _begin(data):
    """The range decoder's code at the beginning of a string."""
    code = np.int64(0)
    for i in range(4):
        code <<= 8
        if i < len(data):
            code |= np.int64(data[np.uint64(i)])
    return code


@called
def _blocks(data, passes, planes, rows, columns, stride, origin, classes, room):
    """Read a block string: used zones, sizes and classes; see `kstrings._code_blocks`."""
    sizes, class_of, used = room.sizes, room.classes, room.used
    low, high, position = np.int64(0), np.int64(0xFFFFFFFF), np.int64(4)
    code = _begin(data)
    for n in range(passes):
        for p in range(planes):
            value = np.int64(0)
            for _ in range(7):
                bit, low, high, code, position = _next(32768, low, high, code, position, data)
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
                whole, low, high, code, position = _flag(
                    P0 + base + (left * 4 + top) * 4 + luma,
                    P1 + base + (left2 * 4 + top2) * 4 + luma,
                    P2 + base + (left * 4 + left2) * 16 + top * 4 + top2,
                    W_SPLIT + kind * (SPLIT_INPUTS + 1),
                    low, high, code, position, data, room,
                )  # fmt: skip
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
                            size, low, high, code, position = _flag(
                                P0 + base + (left * 4 + top) * 4 + luma,
                                P1 + base + (top * 4 + corner2) * 4 + luma,
                                P2 + base + (left * 4 + left2) * 16 + top * 4 + corner2,
                                W_SPLIT + (2 + kind) * (SPLIT_INPUTS + 1),
                                low, high, code, position, data, room,
                            )  # fmt: skip
                        for y in range(2):
                            for x in range(2):
                                sizes[kind, cell + y * stride + x] = size
    bits = 0
    while (classes - 1) >> bits:
        bits += 1
    if bits == 0:
        return
    for y in range(rows):
        for x in range(columns):
            cell = origin + y * stride + x
            if sizes[0, cell] != 0:
                continue
            left = np.int64(class_of[cell - 1])
            top = np.int64(class_of[cell - stride])
            corner = np.int64(class_of[cell - stride + 1])
            alike = 1 if left == top else 0
            node = np.int64(1)
            for _ in range(bits):
                bit, low, high, code, position = _flag(
                    K0 + node * (CLASSES + 1) + left,
                    K1 + node * (CLASSES + 1) + top,
                    K2 + node * (CLASSES + 1) + corner,
                    W_CLASS + (CLASSES * alike + node) * (CLASS_INPUTS + 1),
                    low, high, code, position, data, room,
                )  # fmt: skip
                node = node * 2 + bit
            class_of[cell] = node - (1 << bits)
    for cell in range(len(class_of)):
        class_of[cell] = min(class_of[cell], classes - 1)


@inlined
def _product(line, at, s, frequency, n):
    """n border samples times the cosine of a frequency."""
    cosine = LINES[s, frequency]
    total = np.int64(0)
    for e in range(n):
        total += np.int64(line[np.uint64(at + e)]) * np.int64(cosine[e])
    return total


@inlined
def _own(side, frequency, s, n, drawn, room):
    """The same of one of the block's own sides. It is worked out again only when something was
    drawn since, which seldom happens: most scores of the first pass are zero."""
    at = 2 + side
    if room.drawn[at, frequency] != drawn:
        room.drawn[at, frequency] = drawn
        room.products[at, frequency] = _product(room.own[side], 0, s, frequency, n)
    return room.products[at, frequency]


@inlined
def _beside(m, at, i, j, r, stride):
    """Magnitudes of the scores left and right of one of a block in frequency, and of those above
    and below: as far as they are in zone 0, and no means."""
    across, along = np.int64(0), np.int64(0)
    if i > 0 and i + j > 1:
        along += m[np.uint64(at - stride)]
    if i < r - 1:
        along += m[np.uint64(at + stride)]
    if j > 0 and i + j > 1:
        across += m[np.uint64(at - 1)]
    if j < r - 1:
        across += m[np.uint64(at + 1)]
    return across << 4, along << 4


@called
def _plane(p, level, data, low, high, code, position, rows, columns, stride, origin, learned, room):
    """Read zone 0 of a plane in the first pass; see `kstrings._code_zone` and `contexts`, whose
    numbers the features have here too."""
    kind, base, other = min(p, 1), p * PLANE, 1 if p > 1 else 0
    values, m, zones = room.values[p], room.magnitudes[p], room.zones[p]
    energy, means, classes = room.energy[p], room.means[p], room.classes
    sizes, luma_sizes = room.sizes[kind], room.sizes[0]
    luma_values, luma_m, luma_zones = room.values[0], room.magnitudes[0], room.zones[0]
    luma_means, other_means = room.means[0], room.means[other]
    other_values, other_m = room.values[other], room.magnitudes[other]
    other_zones = room.zones[other]
    left_line, top_line, own = room.left, room.top, room.own
    products, slots, state = room.products, room.slots, room.state
    trained = len(learned.edges)
    flat = np.int64(learned.edges[0, 0, 0, 0])  # what a small block's mean draws, everywhere
    zero = np.int64(0)
    for x in range(len(top_line)):
        top_line[x] = 0
    sy, sx = zero, np.int64(-4)
    for place in range(16 * ((rows + 3) >> 2) * ((columns + 3) >> 2)):
        quarter, inner = (place >> 2) & 3, place & 3
        if (place & 15) == 0:
            sx += 4
            if sx >= columns:
                sy, sx = sy + 4, zero
            if sx == 0:
                for y in range(SUPER):
                    left_line[y] = 0
        by, bx = 2 * (quarter >> 1) + (inner >> 1), 2 * (quarter & 1) + (inner & 1)
        cell = origin + (sy + by) * stride + sx + bx
        row, column = 8 * by, 8 * (sx + bx)
        s = np.int64(sizes[np.uint64(cell)])
        if sy + by >= rows or sx + bx >= columns:
            if s == 0 or (s == NO_SIZE and sizes[origin + sy * stride + sx] != 2):
                # No block reaches here from inside.
                for e in range(8):
                    left_line[np.uint64(row + e)] = 0
                    top_line[np.uint64(column + e)] = 0
            continue
        r = np.int64(1) << s
        if (by & (r - 1)) or (bx & (r - 1)):
            continue
        before = not (
            (s == 1 and quarter == 3) or (s == 0 and (inner == 3 or (inner == 1 and quarter == 3)))
        )
        n, middle = 8 * r, r >> 1
        c = np.int64(classes[np.uint64(cell)]) if p == 0 and s == 0 else zero
        which = TRAINED_SET if c > 0 else s
        key = c * ZONES
        if s > 0:
            key = trained * ZONES + (SIGN_ZONES * 4 if s == 2 else 0)
        first = zero if s == 0 else np.int64(1) if s == 1 else np.int64(5)
        at_left, at_top = cell + middle * stride - 1, cell - stride + middle
        around_level = sum_level(
            (np.int64(energy[np.uint64(at_left)]) + energy[np.uint64(at_top)]) >> 2
        )
        like_before = sizes[np.uint64(cell - stride - 1)] == s
        like_after = before and sizes[np.uint64(cell - stride + r)] == s
        like_luma = p > 0 and luma_sizes[np.uint64(cell)] == s
        in_zone, drawn = zero, zero
        if s > 0:
            for side in range(4):
                for e in range(n):
                    own[side, e] = 0
            for k in range(r):
                products[0, k] = _product(left_line, row, s, k, n)
                products[1, k] = _product(top_line, column, s, k, n)
                for side in range(2, 6):
                    products[side, k] = 0
                    room.drawn[side, k] = 0
        for sub in range(r * r):
            i, j = sub >> s, sub & (r - 1)
            at, dc = cell + i * stride + j, sub == 0
            q = first + sub
            left, top = at - j - 1, at - (i + 1) * stride
            signed = learned.sign_weights[0, p, key + sub]
            f12, f13 = zero, zero
            if dc:
                f8 = np.int64(means[np.uint64(at_left)]) << s
                f9 = np.int64(means[np.uint64(at_top)]) << s
                f10 = np.int64(means[np.uint64(cell - stride - 1)]) << s
                f11 = f9
                if before:
                    f11 = np.int64(means[np.uint64(cell - stride + r)]) << s
                if p > 0:
                    f12 = np.int64(luma_means[np.uint64(cell)]) << s
                if p > 1:
                    f13 = np.int64(other_means[np.uint64(cell)]) << s
                prediction = zero
            else:
                f8, f9, f10, f11 = zero, zero, zero, zero
                if sizes[np.uint64(cell - 1)] == s:
                    f8 = np.int64(values[np.uint64(at - r)]) << 6
                if sizes[np.uint64(cell - stride)] == s:
                    f9 = np.int64(values[np.uint64(at - r * stride)]) << 6
                if like_before:
                    f10 = np.int64(values[np.uint64(at - r * stride - r)]) << 6
                if like_after:
                    f11 = np.int64(values[np.uint64(at - r * stride + r)]) << 6
                if like_luma:
                    f12 = np.int64(luma_values[np.uint64(at)]) << 6
                if p > 1:
                    f13 = np.int64(other_values[np.uint64(at)]) << 6
                begin_u, end_u = np.int64(LINES[s, i, 0]), np.int64(LINES[s, i, n - 1])
                begin_v, end_v = np.int64(LINES[s, j, 0]), np.int64(LINES[s, j, n - 1])
                prediction = (
                    ((products[0, i] * begin_v) >> 24) * signed[0]
                    + ((_own(0, i, s, n, drawn, room) * begin_v) >> 24) * signed[1]
                    + ((_own(1, i, s, n, drawn, room) * end_v) >> 24) * signed[3]
                    + ((products[1, j] * begin_u) >> 24) * signed[4]
                    + ((_own(2, j, s, n, drawn, room) * begin_u) >> 24) * signed[5]
                    + ((_own(3, j, s, n, drawn, room) * end_u) >> 24) * signed[7]
                )
            prediction += (
                f8 * signed[8] + f9 * signed[9] + f10 * signed[10] + f11 * signed[11]
                + f12 * signed[12] + f13 * signed[13]
            )  # fmt: skip
            prediction >>= 12
            prediction_size = min(abs(prediction), 1 << 20)
            sure = level_of(prediction_size * 2)

            # Both are read and one is taken: branches that follow the picture's blocks are
            # mispredicted.
            same, other_sized = np.int64(m[np.uint64(at - r)]), np.int64(zones[np.uint64(left)])
            like_left = sizes[np.uint64(left)] == s
            g0 = same << 4 if like_left else other_sized
            same, other_sized = (
                np.int64(m[np.uint64(at - r * stride)]),
                np.int64(zones[np.uint64(top)]),
            )
            like_top = sizes[np.uint64(top)] == s
            g1 = same << 4 if like_top else other_sized
            same = np.int64(m[np.uint64(at - r * stride - r)])
            other_sized = np.int64(zones[np.uint64(cell - stride - 1)])
            g2 = same << 4 if like_before else other_sized
            same = np.int64(m[np.uint64(at - r * stride + r)])
            other_sized = np.int64(zones[np.uint64(cell - stride + r)])
            g3 = same << 4 if like_after else other_sized
            g3 = g3 if before else g1
            g4 = np.int64(zones[np.uint64(left - r)])
            g5 = np.int64(zones[np.uint64(top - r * stride)])
            g25 = np.int64(zones[np.uint64(left)]) + zones[np.uint64(top)]
            weights = learned.weights[0, p, which, FIRST + q]
            total = (
                g0 * weights[0] + g1 * weights[1] + g2 * weights[2] + g3 * weights[3]
                + g4 * weights[4] + g5 * weights[5] + 16 * weights[CONSTANT] + g25 * weights[25]
            )  # fmt: skip
            g10, g11, beyond, own_sum = zero, zero, zero, zero
            up, back, up2, back2 = zero, zero, zero, zero
            if s > 0:
                g6, g7, g8, g9 = zero, zero, zero, zero
                # Where nothing is but a mean, there are no magnitudes to look for.
                if like_left and zones[np.uint64(left)] > 0:
                    g7, g6 = _beside(m, at - r, i, j, r, stride)
                if like_top and zones[np.uint64(top)] > 0:
                    g9, g8 = _beside(m, at - r * stride, i, j, r, stride)
                beyond = g6 + g7 + g8 + g9
                total += g6 * weights[6] + g7 * weights[7] + g8 * weights[8] + g9 * weights[9]
            if in_zone > 0:
                g12, g13, g14, g15 = zero, zero, zero, zero
                if i > 0 and sub != r:
                    g10 = np.int64(m[np.uint64(at - stride)]) << 4
                    up = np.int64(values[np.uint64(at - stride)])
                if j > 0 and sub != 1:
                    g11 = np.int64(m[np.uint64(at - 1)]) << 4
                    back = np.int64(values[np.uint64(at - 1)])
                if i > 0 and j > 0 and sub != r + 1:
                    g12 = np.int64(m[np.uint64(at - stride - 1)]) << 4
                if i > 1 and sub != 2 * r:
                    g13 = np.int64(m[np.uint64(at - 2 * stride)]) << 4
                    up2 = np.int64(values[np.uint64(at - 2 * stride)])
                if j > 1 and sub != 2:
                    g14 = np.int64(m[np.uint64(at - 2)]) << 4
                    back2 = np.int64(values[np.uint64(at - 2)])
                if i > 0 and j < r - 1:
                    g15 = np.int64(m[np.uint64(at - stride + 1)]) << 4
                own_sum = 2 * (g10 + g11) + g12 + g13 + g14 + g15
                total += (
                    g10 * weights[10] + g11 * weights[11] + g12 * weights[12]
                    + g13 * weights[13] + g14 * weights[14] + g15 * weights[15]
                )  # fmt: skip
            across = zero
            if p == 0:
                other_level = sum_level(2 * (g4 + g5) + g2 + g3)
            else:
                g20, g21, g22 = zero, zero, zero
                if like_luma:
                    g19 = np.int64(luma_m[np.uint64(at)]) << 4
                    if luma_zones[np.uint64(cell)] > 0:
                        x, y = _beside(luma_m, at, i, j, r, stride)
                        g20 = x + y
                else:
                    g19 = np.int64(luma_zones[np.uint64(at)])
                across = g19
                if p > 1:
                    g21 = np.int64(other_m[np.uint64(at)]) << 4
                    if other_zones[np.uint64(cell)] > 0:
                        x, y = _beside(other_m, at, i, j, r, stride)
                        g22 = x + y
                    across = g21
                other_level = sum_level(4 * g19 + g20 + 6 * g21 + g22)
                total += (
                    g19 * weights[19] + g20 * weights[20] + g21 * weights[21] + g22 * weights[22]
                )
            if not dc:
                total += (prediction_size >> 2) * weights[26]
            expected = level_of(total >> 8)
            own_level, beyond_level = sum_level(own_sum), sum_level(beyond)
            beside_level = sum_level(2 * (g0 + g1) + g2 + g3)
            near = (
                (
                    (min((g0 + 7) >> 4, 2) * 3 + min((g1 + 7) >> 4, 2)) * 3
                    + min(g10 >> 4, 2)
                )
                * 3
                + min(g11 >> 4, 2)
            ) * 3 + min((across + 7) >> 4, 2)  # fmt: skip
            slots[0] = base + C0 + (q * 16 + beside_level) * STEPS
            slots[1] = base + C1 + (q * 16 + own_level) * STEPS
            slots[2] = (
                base + C2 + ((own_level * 16 + beside_level) * 8 + (beyond_level >> 1)) * STEPS
            )
            slots[3] = base + C3 + (q * LEVELS + expected) * STEPS
            slots[4] = base + C4 + ((s * 16 + other_level) * 12 + (expected >> 1)) * STEPS
            slots[5] = base + C5 + (around_level * 8 + expected // 3) * STEPS
            slots[6] = base + C6 + (q * 12 + (sure >> 1)) * STEPS
            slots[7] = base + C7 + (s * 243 + near) * STEPS
            size = zero
            while size < UNARY:
                step = STEP_OF[np.uint64(size)]
                bit, low, high, code, position = _mixed(
                    INPUTS,
                    step,
                    base + W_LEVEL + (step * LEVELS + expected) * (INPUTS + 1),
                    base + W_GROUP + (step * SCORES + q) * (INPUTS + 1),
                    room, low, high, code, position, data,
                )  # fmt: skip
                if not bit:
                    break
                size += 1
            if size == UNARY:
                more, low, high, code, position = _golomb(
                    GOLOMB + (64 if dc else 0), state, low, high, code, position, data
                )
                size += more
            value = zero
            if size > 0:
                sign_level = 12 + (sure >> 1) if prediction > 0 else 11 - (sure >> 1)
                if dc:
                    sign_level = zero
                others = sign3(f12) * 3 + sign3(f13)
                big = min(size, 3) - 1
                slots[0] = base + S0 + q * 24 + sign_level
                slots[1] = base + S1 + (sign_level * 9 + others) * 3 + big
                slots[2] = base + S2 + q * 9 + sign3(f8) * 3 + sign3(f9)
                slots[3] = base + S3 + q * 9 + others
                slots[4] = base + S4 + q * 27 + sign3(up) * 9 + sign3(back) * 3 + sign3(f8)
                slots[5] = base + S5 + (sign_level * 9 + sign3(up2) * 3 + sign3(back2)) * 3 + big
                bit, low, high, code, position = _mixed(
                    SIGN_INPUTS,
                    0,
                    base + W_SIGN_LEVEL + sure * (SIGN_INPUTS + 1),
                    base + W_SIGN_GROUP + q * (SIGN_INPUTS + 1),
                    room, low, high, code, position, data,
                )  # fmt: skip
                value = -size if bit else size
            m[np.uint64(at)] = min(size, 255)
            if dc:
                value += (prediction + (32 if level == 0 else 0)) >> 6
                mean = ((value << 6) + (32 if level > 0 else 0)) >> s
                for y in range(r):
                    for x in range(r):
                        means[np.uint64(cell + y * stride + x)] = mean
            else:
                in_zone += abs(value)
            values[np.uint64(at)] = value
            if s == 0:
                line = flat * value
                for e in range(8):
                    left_line[np.uint64(row + e)] = line
                    top_line[np.uint64(column + e)] = line
            elif value != 0:
                drawn += 1
                begin_u, end_u = LINES[s, i, 0] * value, LINES[s, i, n - 1] * value
                begin_v, end_v = LINES[s, j, 0] * value, LINES[s, j, n - 1] * value
                down, along = LINES[s, i], LINES[s, j]
                for e in range(n):
                    own[0, e] += (down[e] * begin_v) >> 10
                    own[1, e] += (down[e] * end_v) >> 10
                    own[2, e] += (along[e] * begin_u) >> 10
                    own[3, e] += (along[e] * end_u) >> 10
        if s > 0:
            for e in range(n):
                left_line[np.uint64(row + e)] = own[1, e]
                top_line[np.uint64(column + e)] = own[3, e]
        if in_zone != 0:
            mean = min((in_zone << 4) >> (2 * s), 65535)
            spread = (min(in_zone, 1 << 20) << 4) >> (2 * s)
            for y in range(r):
                for x in range(r):
                    zones[np.uint64(cell + y * stride + x)] = mean
                    energy[np.uint64(cell + y * stride + x)] = spread
    return low, high, code, position


@called
def _dequantise(p, level, step, rows, columns, stride, origin, room):
    """Scores of zone 0 of a plane, in grey levels, see `kstrings._reconstruct`."""
    values, scores, sizes = room.values[p], room.scores[p], room.sizes[min(p, 1)]
    # Blocks may hang over the tile.
    for y in range((rows + 3) // 4 * 4):
        for x in range((columns + 3) // 4 * 4):
            cell = origin + y * stride + x
            value, s = np.int64(values[cell]), np.int64(sizes[cell])
            r = np.int64(1) << s
            first = y < rows and x < columns and (y & (r - 1)) == 0 and (x & (r - 1)) == 0
            if first and room.used[0, p] > 0:
                mean = (value << level) - (MEAN_OFFSET << s)
                scores[cell] = (np.float32(mean) + np.float32(0.5 * ((1 << level) - 1))) * step
            elif value == 0:
                scores[cell] = np.float32(0)
            else:
                size = np.float32(abs(value) << level)
                if level > 0:
                    size += np.float32(0.45 * (1 << level) - 1.5)
                scores[cell] = (size if value > 0 else -size) * step


@kernel
def _read(
    blocks: u8[:],
    layer: u8[:] | None,
    passes: int,
    planes: int,
    rows: int,
    columns: int,
    stride: int,
    origin: int,
    step: f32,
    learned: Learned,
    room: Room,
):
    """Read the block string and the first layer, if there is one, of a tile into a room that is
    as new; `step` is that of zone 0, in grey levels."""
    _blocks(blocks, passes, planes, rows, columns, stride, origin, len(learned.edges), room)
    level = passes - 1
    if layer is None:
        return
    low, high, position = np.int64(0), np.int64(0xFFFFFFFF), np.int64(4)
    code = _begin(layer)
    for p in range(planes):
        if room.used[level, p] > 0:
            low, high, code, position = _plane(
                p, level, layer, low, high, code, position, rows, columns, stride, origin, learned,
                room,
            )  # fmt: skip
        _dequantise(p, level, step, rows, columns, stride, origin, room)


class FirstLayer(NamedTuple):
    """What a tile's first layer says: its sizes and classes on the lattice of `layout`, as in a
    `Field`, its colour transform, and zone 0's scores in grey levels, float32 (planes * cells).
    The arrays are good until this thread reads the next tile."""

    layout: Layout
    sizes: np.ndarray
    classes: np.ndarray
    colour: bytes
    scores: np.ndarray


_LOCAL = threading.local()


def _room_for(layout: Layout, passes: int) -> packed:
    """This thread's room; a picture of the same shape as the last finds it made."""
    shape = (layout.height, layout.width, layout.planes, passes)
    if getattr(_LOCAL, "shape", None) != shape:
        planes, cells = layout.planes, layout.cells
        per_cell = [np.empty((planes, cells), t) for t in ("i4", "u1", "u2", "i4", "i4", "f4")]
        _LOCAL.room = packed(
            Room(
                *per_cell,
                np.empty((2, cells), np.uint8),
                np.empty(cells, np.uint8),
                np.empty((passes, planes), np.int64),
                np.empty(SUPER, np.int32),
                np.empty(SUPER * layout.super_columns, np.int32),
                np.empty((4, SUPER), np.int32),
                np.empty((6, 4), np.int64),
                np.empty((6, 4), np.int64),
                np.empty(C0 + planes * PLANE, np.int32),
                np.empty(MOST_INPUTS, np.int64),
                np.empty(MOST_INPUTS + 1, np.int64),
            )
        )
        _LOCAL.shape = shape
    return _LOCAL.room


def read(
    block_string: bytes, layer: bytes | None, layout: Layout, passes: int, step: float, basis
) -> FirstLayer:
    """Decode a tile's block string and its first layer, None if it has none. `step` is that of
    zone 0, in grey levels."""
    room = _room_for(layout, passes)
    found = room.value
    found.state[:] = basis.first_state[: len(found.state)]
    found.sizes.fill(NO_SIZE)
    for array in (
        found.values, found.magnitudes, found.zones, found.energy, found.means, found.scores,
        found.classes,
    ):  # fmt: skip
        array.fill(0)
    colour = 6 if layout.planes == 3 else 0
    _read(
        np.frombuffer(block_string, np.uint8, offset=min(colour, len(block_string))),
        None if layer is None else np.frombuffer(layer, np.uint8),
        passes,
        layout.planes,
        layout.rows,
        layout.columns,
        layout.stride,
        layout.origin,
        step,
        basis.learned,
        room,
    )
    stored = block_string[:colour].ljust(colour, b"\0")
    return FirstLayer(layout, found.sizes, found.classes, stored, found.scores.reshape(-1))
