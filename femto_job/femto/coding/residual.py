"""The residual: what is left between a tile and its rendition, coded sample by sample.

Every sample is predicted by a linear regression that learns as it goes, from the samples coded
before around it, those of the other channels, and the rendition, and by five simple guesses. They
are blended by how well each did just before, there and above. What the prediction leaves, divided
by 2 max_error + 1, is coded with the mixer of `entropy`: its sign, then its size in steps that
follow the errors around it, one yes or no after the other, then the digits below the step.

All of it is integer arithmetic on samples that encoder and decoder share. Regression is recursive:
sums of products, which forget slowly, and per sample two rounds of coordinate descent on their
equations, so that nothing has to be inverted.
"""

import numpy as np

from ..samples import Levels
from .entropy import (
    EVEN_SLOT,
    POSITION,
    Coder,
    code_bit,
    code_direct,
    finish,
    learn,
    mixed_probability,
    new_coder,
)
from .kernels import called, i32, i64, inlined, kernel
from .rendition import CHANNELS, FINE, MARGIN

OWN = np.array(
    [(-1, -1), (-1, 1), (0, -2), (-2, 0), (-2, 1), (-1, -2), (-1, 2), (-2, -1), (0, -3), (-3, 0),
     (-2, 2), (-2, -2), (-1, 3), (-1, -3), (-3, 1), (-3, -1), (0, -4), (-4, 0)],
    np.int64,
)  # fmt: skip
"""The samples around, (rows, columns) away, that a sample is predicted from beside W and N, …"""
OTHER = np.array(
    [(0, 0), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, 1), (1, -1), (-1, -2), (-1, 2), (-2, -1),
     (-2, 1)],
    np.int64,
)  # fmt: skip
"""… and those of each channel that is coded before."""
NEIGHBOURS = np.array([18, 8, 6], np.int64)
"""How many of OWN are used, per channel."""
TERMS = 4 + len(OWN) + 2 * (1 + len(OTHER))
"""Most terms of the regression."""
GUESSES = 6
"""The regression, and what is guessed beside it."""
ROWS = 4
"""Of so many rows the errors of all guesses are kept."""
FORGET = 11
"""The sums of the regression are of about the last 2^FORGET samples."""
ROUNDS = 2
FLOOR = 6000
"""What stands on the diagonal of the regression's equations from the start."""
DIFFERENCE = 2047
"""Largest difference between samples, in steps of the regression."""
WEIGHT = 4 << 16
"""Largest weight of the regression, in 1 / 65536."""
TRUST = np.array([4, 3, 3], np.int64)
"""How much more the regression counts than a guess that did as well, per channel."""
LEARNING = 170
LIMIT = 255
UNARY = 20
"""A size of more steps goes on as a number."""
GOLOMB = 20
MOST_BYTES = 112
"""No sample takes more: 60 bits of 14 each at the most, and 20 plain ones."""

KINDS = 26
"""Of decisions: the sign; "more than n steps?" for n = 0 … 11 and above, of either sign."""
INPUTS = 8
_CONTEXTS = [64 * 8, 16 * 64, 12 * 12 * 12, 16 * 128, 16 * 128, 16 * 128, 16 * 128, 32 * 32]
_AT = np.cumsum([0] + [n * KINDS for n in _CONTEXTS]).tolist()
C0, C1, C2, C3, C4, C5, C6, C7, DIGITS = _AT
NUMBER = DIGITS + 16 * 8 * 8
SLOTS = NUMBER + GOLOMB
W_STEP = SLOTS
"""Weights, (kinds, 16 steps, inputs + 1) …"""
W_LEVEL = W_STEP + KINDS * 16 * (INPUTS + 1)
"""… and (kinds, 64 levels, inputs + 1)."""
STATE = W_LEVEL + KINDS * 64 * (INPUTS + 1)
START = 11000
"""All weights in the beginning, in 1 / 65536."""


@inlined
def _level(x):
    """One of 64 levels of a number from 0 on: four an octave from 4 on."""
    n = 0
    while (x >> n) >= 8:
        n += 1
    return min(4 * n + (x >> n), 63)


@inlined
def _near(difference, k, half):
    """One of 2 * half levels of a difference in 1 / FINE, each a quarter of 2^k levels wide."""
    return min(max((difference >> (k + 2)) + half, 0), 2 * half - 1)


@called
def _decide(bit, kind, step, level, contexts, coder):
    """Code a decision; returns the bit."""
    for i in range(INPUTS):
        coder.slots[i] = contexts[i] + kind
    a = W_STEP + (kind * 16 + step) * (INPUTS + 1)
    b = W_LEVEL + (kind * 64 + level) * (INPUTS + 1)
    probability = mixed_probability(INPUTS, a, b, coder)
    bit = code_bit(bit, probability, coder)
    learn(bit, INPUTS, a, b, LIMIT, LEARNING, coder)
    return bit


@called
def _code_residual(q, k, level, contexts, coder):
    """Code a residual, in steps of 2^k units; returns it."""
    step = min(k, 15)
    negative = _decide(1 if q < 0 else 0, 0, step, level, contexts, coder)
    size = -q - 1 if negative else q
    count = size >> k
    n = np.int64(0)
    while n < UNARY:
        kind = 1 + min(n, 11) + (12 if negative else 0)
        if _decide(1 if count > n else 0, kind, step, level, contexts, coder) == 0:
            break
        n += 1
    digits = min(n, 3) * 2 + negative
    if n == UNARY:
        rest = count - UNARY + 1
        ones = np.int64(0)
        if coder.encoding is not None:
            while rest >> (ones + 1):
                ones += 1
        i = np.int64(0)
        while i < GOLOMB and code_direct(1 if i < ones else 0, NUMBER + i, LIMIT, coder):
            i += 1
        n = np.int64(1)
        for j in range(i):
            n = 2 * n + code_bit((rest >> (i - 1 - j)) & 1, 32768, coder)
        n += UNARY - 1
    node = np.int64(1)
    for i in range(k):
        bit = (size >> (k - 1 - i)) & 1
        if i < 3:
            bit = code_direct(bit, DIGITS + (step * 8 + digits) * 8 + node, LIMIT, coder)
            node = 2 * node + bit
        else:
            bit = code_bit(bit, 32768, coder)
        n = 2 * n + bit
    return -n - 1 if negative else n


@kernel
def _code_rows(
    p: int,
    first: int,
    rendition: i32[:, :, :],
    samples: i32[:, :, :],
    errors: i32[:, :, :],
    wrong: i32[:, :, :],
    least: int,
    most: int,
    max_error: int,
    shift: int,
    sums: i64[:, :],
    products: i64[:],
    weights: i64[:],
    terms: i64[:],
    guesses: i64[:],
    contexts: i64[:],
    coder: Coder,
) -> int:
    """Code the rows of channel p from `first` on, in either direction; returns the row before which
    the string's room could be too small, or the one after the last.

    All with a margin: `rendition`; `samples`, which are read while encoding, and become what a
    decoder finds; `errors` of their predictions, in 1 / FINE. `wrong` (GUESSES, ROWS, width):
    what every guess missed. `shift`: differences are taken in steps of 2^shift levels. `sums`,
    `products`, `weights` of the regression, whose term to go on with is the last of `guesses`.
    """
    full, wide = rendition.shape[1:]
    height, width = full - 2 * MARGIN, wide - 2 * MARGIN
    quantum = 2 * max_error + 1
    own, base, missed = samples[p], rendition[p], errors[p]
    next_to, far = samples[max(p - 1, 0)], samples[max(p - 2, 0)]
    around = NEIGHBOURS[p]
    count = 4 + around + p * (1 + len(OTHER))
    trust = TRUST[p]
    for y in range(MARGIN + first, MARGIN + height):
        room = len(coder.data) - coder.registers[POSITION]
        if coder.encoding is not None and room < width * MOST_BYTES + 64:
            return np.int64(y - MARGIN)
        for i in range(MARGIN):
            own[y, i] = own[y - 1, MARGIN]
        now, before, above = y & 3, (y - 1) & 3, (y - 2) & 3
        for i in range(GUESSES):
            for x in range(MARGIN):
                wrong[i, now, x] = wrong[i, before, MARGIN]
        for x in range(MARGIN, MARGIN + width):
            west, north = np.int64(own[y, x - 1]), np.int64(own[y - 1, x])
            corner, east = np.int64(own[y - 1, x - 1]), np.int64(own[y - 1, x + 1])
            west2, north2 = np.int64(own[y, x - 2]), np.int64(own[y - 2, x])
            here = np.int64(base[y, x])
            middle = (west + north) >> 1
            # The terms of the regression, and what it says.
            terms[0] = (here - FINE * middle) >> 4
            terms[1] = (2 * here - np.int64(base[y, x - 1]) - np.int64(base[y - 1, x])) >> 5
            terms[2] = (2 * here - np.int64(base[y, x + 1]) - np.int64(base[y - 1, x + 1])) >> 5
            terms[3] = west - north
            n = 4
            for i in range(around):
                terms[n + i] = np.int64(own[y + OWN[i, 0], x + OWN[i, 1]]) - middle
            n += around
            for j in range(p):
                other = next_to if j == 0 else far
                between = (np.int64(other[y, x - 1]) + np.int64(other[y - 1, x])) >> 1
                terms[n] = np.int64(other[y, x - 1]) - np.int64(other[y - 1, x])
                n += 1
                for i in range(len(OTHER)):
                    terms[n + i] = np.int64(other[y + OTHER[i, 0], x + OTHER[i, 1]]) - between
                n += len(OTHER)
            total = np.int64(0)
            for i in range(count):
                terms[i] = min(max(terms[i] >> shift, -DIFFERENCE), DIFFERENCE)
                total += terms[i] * weights[i]
            # What is guessed beside it.
            guesses[0] = FINE * middle + ((total << shift) >> 12)
            guesses[1] = FINE * (west + north - corner)
            guesses[2] = FINE * (west + east - north)
            guesses[3] = FINE * (north + east - np.int64(own[y - 2, x + 1]))
            guesses[4] = FINE * north
            guesses[5] = FINE * west
            if p > 0:
                there = np.int64(next_to[y, x])
                left = there - np.int64(next_to[y, x - 1])
                up = there - np.int64(next_to[y - 1, x])
                guesses[1] = FINE * (west + left)
                guesses[2] = FINE * (north + up)
                diagonal = there - np.int64(next_to[y - 1, x - 1])
                guesses[3] = FINE * (west + north - corner + left + up - diagonal)
            if p == 2:
                there = np.int64(far[y, x])
                guesses[4] = FINE * (west + there - np.int64(far[y, x - 1]))
                guesses[5] = FINE * (north + there - np.int64(far[y - 1, x]))
            total, blend = np.int64(0), np.int64(0)
            for i in range(GUESSES):
                guesses[i] = min(max(guesses[i], FINE * least), FINE * most)
                miss = np.int64(wrong[i, now, x - 1]) + np.int64(wrong[i, before, x])
                miss += np.int64(wrong[i, before, x + 1])
                half = np.int64(wrong[i, now, x - 2]) + np.int64(wrong[i, before, x - 1])
                miss = ((miss + ((half + np.int64(wrong[i, above, x])) >> 1)) >> 2) + 1
                weight = (np.int64(1) << 34) // (miss * (miss + 40)) + 1
                if i == 0:
                    weight *= trust
                total += weight
                blend += weight * (guesses[i] - FINE * middle)
            expected = FINE * middle + blend // total
            if west == north == corner == east == west2 == north2:
                expected = FINE * west  # flat: nothing tells more
            expected = min(max(expected, FINE * least), FINE * most)
            nearest = (expected + FINE // 2) >> 4
            # How large errors are around, and the contexts.
            left, up = np.int64(missed[y, x - 1]), np.int64(missed[y - 1, x])
            diagonal, right = np.int64(missed[y - 1, x - 1]), np.int64(missed[y - 1, x + 1])
            left2 = np.int64(missed[y, x - 2])
            energy = 2 * (abs(left) + abs(up)) + abs(diagonal) + abs(right) + abs(left2)
            energy += abs(np.int64(missed[y - 2, x]))
            third = diagonal
            one, two = np.int64(0), np.int64(0)
            if p > 0:
                one = np.int64(errors[p - 1, y, x])
                third = one
                energy += 2 * abs(one) + abs(np.int64(errors[p - 1, y, x + 1]))
                energy += abs(np.int64(errors[p - 1, y + 1, x]))
                if p > 1:
                    two = np.int64(errors[0, y, x])
                    energy = (energy + 2 * abs(two)) * 4 // 7
                else:
                    energy = energy * 2 // 3
            else:
                one = FINE * (2 * north - north2) - expected
                two = FINE * (2 * west - west2) - expected
            level = _level((energy >> 2) // quantum)
            k = 0
            while (energy // quantum) >> (k + 8):
                k += 1
            step = min(k, 15)
            spread = np.int64(0)
            for i in range(GUESSES):
                spread += abs(guesses[i] - expected)
            part = step * 128
            w, h = _near(FINE * west - expected, k, 4), _near(FINE * north - expected, k, 4)
            far_east = _near(FINE * east - expected, k, 4)
            first_guess = _near(guesses[1] - expected, k, 8)
            contexts[0] = C0 + (level * 8 + ((expected >> 1) & 7)) * KINDS
            contexts[1] = C1 + (step * 64 + w * 8 + h) * KINDS
            contexts[2] = min(_level((abs(left) + abs(left2)) >> 1) >> 2, 11)
            contexts[2] = 12 * contexts[2] + min(_level((abs(up) + abs(right)) >> 1) >> 2, 11)
            contexts[2] = 12 * contexts[2] + min(_level(abs(third)) >> 2, 11)
            contexts[2] = C2 + contexts[2] * KINDS
            contexts[3] = C3 + (part + _near(here - expected, k, 8) * 8 + far_east) * KINDS
            contexts[4] = C4 + (part + _near(one, k, 8) * 8 + _near(two, k, 4)) * KINDS
            contexts[5] = C5 + (part + _near(left, k, 8) * 8 + _near(up, k, 4)) * KINDS
            h = _near(guesses[2] - expected, k, 4)
            contexts[6] = C6 + (part + first_guess * 8 + h) * KINDS
            contexts[7] = C7 + ((_level(spread >> 2) >> 1) * 32 + (level >> 1)) * KINDS
            # The sample.
            q = np.int64(0)
            if coder.encoding is not None:
                q = (np.int64(own[y, x]) - nearest + max_error) // quantum
            q = _code_residual(q, k, level, contexts, coder)
            value = min(max(nearest + q * quantum, least), most)
            own[y, x] = value
            missed[y, x] = FINE * value - expected
            # What is learned from it.
            for i in range(GUESSES):
                wrong[i, now, x] = abs(guesses[i] - FINE * value)
            target = min(max((value - middle) >> shift, -DIFFERENCE), DIFFERENCE)
            rate = (64 << 12) // ((energy >> 3) + 4)
            for i in range(count):
                scaled = (terms[i] * rate) >> 8
                row = sums[i]
                for j in range(i + 1):
                    row[j] += ((scaled * terms[j]) >> 4) - (row[j] >> FORGET)
                products[i] += ((scaled * target) >> 4) - (products[i] >> FORGET)
            turn = guesses[GUESSES]
            for _ in range(ROUNDS):
                rest = products[turn] << 16
                for j in range(turn):
                    rest -= sums[turn, j] * weights[j]
                for j in range(turn, count):
                    rest -= sums[j, turn] * weights[j]
                weights[turn] += rest // (sums[turn, turn] + FLOOR)
                weights[turn] = min(max(weights[turn], -WEIGHT), WEIGHT)
                turn = turn + 1 if turn + 1 < count else 0
            guesses[GUESSES] = turn
        for i in range(MARGIN):
            own[y, MARGIN + width + i] = own[y, MARGIN + width - 1]
            missed[y, MARGIN + width + i] = missed[y, MARGIN + width - 1]
            for j in range(GUESSES):
                wrong[j, now, MARGIN + width + i] = wrong[j, now, MARGIN + width - 1]
    for y in range(MARGIN + height, full):
        for x in range(wide):
            own[y, x] = own[y - 1, x]
    return np.int64(height)


def _code(
    rendition: np.ndarray,
    samples: np.ndarray,
    limits: Levels,
    max_error: int,
    string: bytes | None = None,
) -> bytes:
    """Code samples, with a margin, in either direction: read them from a string, or write one."""
    planes, full, wide = rendition.shape
    height, width = full - 2 * MARGIN, wide - 2 * MARGIN
    samples[:, :MARGIN] = (rendition[:, :MARGIN] + FINE // 2) >> 4
    errors = np.zeros(rendition.shape, np.int32)
    shift = max((limits.high - limits.low).bit_length() - 12, 0)
    if string is None:
        data = np.empty(planes * height * width * 2 + width * MOST_BYTES + 4096, np.uint8)
    else:
        data = np.frombuffer(string, np.uint8).copy()
    coder = new_coder(string is not None, data, np.empty(STATE, np.int32))
    for p in range(planes):
        coder.state[:SLOTS] = EVEN_SLOT
        coder.state[SLOTS:] = START
        arrays = (
            np.diag(np.full(TERMS, FLOOR, np.int64)),
            np.zeros(TERMS, np.int64),
            np.zeros(TERMS, np.int64),
            np.zeros(TERMS, np.int64),
            np.zeros(GUESSES + 1, np.int64),
            np.zeros(INPUTS, np.int64),
        )
        wrong = np.zeros((GUESSES, ROWS, wide), np.int32)
        row = 0
        while True:
            row = _code_rows(
                p, row, rendition, samples, errors, wrong, limits.low, limits.high, max_error,
                shift, *arrays, coder,
            )  # fmt: skip
            if row == height:
                break
            coder = coder._replace(data=np.concatenate([coder.data, np.empty_like(coder.data)]))
    if string is not None:
        return string
    finish(coder)
    return coder.data[: coder.registers[POSITION]].tobytes()


def _inside(array: np.ndarray) -> np.ndarray:
    return array[:, MARGIN:-MARGIN, MARGIN:-MARGIN]


def _pixels(samples: np.ndarray, dtype) -> np.ndarray:
    """Pixels (h, w) or (h, w, 3) from channels in the order in which they are coded."""
    planes = _inside(samples)
    if len(planes) == 1:
        return planes[0].astype(dtype)
    out = np.empty((*planes.shape[1:], 3), dtype)
    for plane, channel in zip(planes, CHANNELS[3], strict=True):
        out[:, :, channel] = plane
    return out


def encode(
    rendition: np.ndarray, pixels: np.ndarray, limits: Levels, max_error: int
) -> tuple[bytes, np.ndarray]:
    """The string of a tile's residual, and the tile as a decoder will find it: no sample differs by
    more than `max_error`.

    Parameters: the tile's `rendition`; its `pixels`, (h, w) or (h, w, 3), all within `limits`.
    """
    samples = np.empty_like(rendition)
    for p, channel in enumerate(CHANNELS[len(rendition)]):
        _inside(samples)[p] = pixels if pixels.ndim == 2 else pixels[:, :, channel]
    string = _code(rendition, samples, limits, max_error)
    return string, _pixels(samples, pixels.dtype)


def decode(
    rendition: np.ndarray, string: bytes, limits: Levels, max_error: int, dtype
) -> np.ndarray:
    """The tile that a string makes of its rendition: (h, w) or (h, w, 3), of type `dtype`."""
    samples = np.zeros_like(rendition)
    _code(rendition, samples, limits, max_error, string)
    return _pixels(samples, dtype)
