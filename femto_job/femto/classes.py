"""Block classes: which SVD basis suits a block best (the first clustering).

A class is judged by what the block would cost in it, squared error plus TRADE times bits. Bits are
estimated from Laplacians: a component's mean magnitude in the class, scaled by the block's own
gain, gives the probability of every quantised magnitude. Levels of magnitude are quarter octaves
and everything is looked up, so that the choice needs no logarithm or exponential per score.
"""

import numpy as np

from .jit import njit
from .kstrings import LOW_SCORES

TRADE = np.float32(0.1)
LEVEL_STEPS = 4
"""Magnitude levels per octave."""
LEVELS = 64
ZERO_LEVEL = 36
"""The level of a mean magnitude of one step."""
SIZES = 16
"""Magnitudes with a cost of their own; a larger one costs linearly more."""
_DEAD_ZONE = 0.6
"""Magnitudes below this many steps become zero."""


def _cost_tables() -> tuple[np.ndarray, np.ndarray]:
    """Bits of every quantised magnitude (levels, sizes + 1), sign included, and the magnitude to
    expect at every level (levels). Column `SIZES` is the cost of each further step."""
    mean = 2.0 ** ((np.arange(LEVELS) - ZERO_LEVEL) / LEVEL_STEPS)
    zero = np.exp(-_DEAD_ZONE / mean)  # probability of a nonzero value
    decay = np.exp(-1 / np.maximum(mean, 0.15))
    bits = np.empty((LEVELS, SIZES + 1))
    bits[:, 0] = -np.log2(1 - zero + 1e-3)
    n = np.arange(1, SIZES)[None, :]
    with np.errstate(divide="ignore"):
        nonzero = 1 - np.log2(np.maximum(zero, 1e-6)) - np.log2(1 - decay)
    bits[:, 1:SIZES] = nonzero[:, None] - np.log2(decay)[:, None] * (n - 1)
    bits[:, SIZES] = -np.log2(decay)
    return bits.astype(np.float32), (zero / (1 - decay)).astype(np.float32)


BITS, EXPECTED = _cost_tables()
_QUARTER = np.float32(2 ** (1 / LEVEL_STEPS))
_EIGHTH = np.float32(2 ** (1 / (2 * LEVEL_STEPS)))


def levels_of(means: np.ndarray) -> np.ndarray:
    """Mean magnitudes as levels, int32."""
    return np.rint(LEVEL_STEPS * np.log2(np.maximum(means, 1e-6))).astype(np.int32)


@njit
def block_cost(x, n, levels, shift, bits, expected, quarter, eighth, trade):
    """Cost (steps²) of the quantised scores x[:n], whose mean magnitudes have the given levels
    plus `shift`, in coding order. Zeros after the last nonzero score cost next to nothing."""
    total = np.float32(0.5)
    foreseen = np.float32(0.5)
    last = 0
    for i in range(n):
        size = np.int64(abs(x[i]) + np.float32(0.4))
        if size > 0:
            last = i + 1
            total += size
        at = min(max(levels[i] + shift, 0), LEVELS - 1)
        foreseen += expected[at]
    gain = 0
    ratio = total / foreseen
    while ratio > eighth and gain < 14:
        ratio /= quarter
        gain += 1
    while ratio * eighth < 1 and gain > -14:
        ratio *= quarter
        gain -= 1
    distortion = np.float32(0)
    rate = np.float32(0)
    for i in range(n):
        a = abs(x[i])
        size = np.int64(a + np.float32(0.4))
        if i < last:
            at = min(max(levels[i] + shift + gain, 0), LEVELS - 1)
            if size < SIZES:
                rate += bits[at, size]
            else:
                rate += bits[at, SIZES - 1] + (size - SIZES + 1) * bits[at, SIZES]
        a -= size
        distortion += a * a
    return distortion + trade * rate


@njit
def _choose(scores, planes, inverse_step, forward, order, levels, prices, shift, bits, expected,
             quarter, eighth, trade, out):  # fmt: skip
    """Choose the cheapest class of every block.

    scores float32 (planes, 64, rows, columns, 4); forward float32 (classes, 64, 64), as `rotate`
    takes it; order (64): number k of each low score; levels (classes, 2, 63) in coding order;
    prices float32 (classes): bits that naming the class takes; shift: levels of one grey level
    in steps. Only the first `planes` planes have a say.
    """
    classes = len(forward)
    n = len(order) - 1
    before = np.empty((planes, n + 1), np.float32)
    after = np.empty(n + 1, np.float32)
    for by in range(out.shape[0]):
        for bx in range(out.shape[1]):
            busy = False
            for p in range(planes):
                for e in range(1, n + 1):
                    k = order[e]
                    x = scores[p, k >> 2, by, bx, k & 3] * inverse_step
                    before[p, e] = x
                    if abs(x) > np.float32(0.6):
                        busy = True
            best = 0
            if busy:
                best_cost = np.float32(1e30)
                for c in range(classes):
                    cost = trade * prices[c]
                    for p in range(planes):
                        for i in range(n + 1):
                            after[i] = np.float32(0)
                        for e in range(1, n + 1):
                            x = before[p, e]
                            for i in range(n + 1):
                                after[i] += x * forward[c, e, i]
                        cost += block_cost(after[1:], n, levels[c, min(p, 1)], shift, bits,
                                           expected, quarter, eighth, trade)  # fmt: skip
                        if cost >= best_cost:
                            break
                    if cost < best_cost:
                        best_cost = cost
                        best = c
            out[by, bx] = best


def choose(scores: np.ndarray, step: float, forward: np.ndarray, levels: np.ndarray,
           prices: np.ndarray, shift: int, out: np.ndarray, planes: int = 1) -> None:  # fmt: skip
    """Write the cheapest class of every block into `out`, uint8 (rows, columns).

    Parameters as for the tables of a Basis; only the first `planes` planes have a say.
    """
    planes = min(planes, len(scores))
    _choose(scores, planes, np.float32(1 / step), forward, LOW_SCORES, levels, prices, shift, BITS,
            EXPECTED, _QUARTER, _EIGHTH, TRADE, out)  # fmt: skip


@njit
def _patch_costs(x, steps, levels, shifts, bits, expected, quarter, eighth, trade, out):
    n = x.shape[1]
    scaled = np.empty(n, np.float32)
    for i in range(len(x)):
        for j in range(n):
            scaled[j] = x[i, j] / steps[i]
        out[i] = block_cost(scaled, n, levels, shifts[i], bits, expected, quarter, eighth, trade)


def patch_costs(components: np.ndarray, steps: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Cost (steps²) of blocks given as components (n, 63) of one class with `levels` (63), each
    quantised with its own step (n); float32 (n). For training."""
    shifts = ZERO_LEVEL - np.rint(LEVEL_STEPS * np.log2(steps)).astype(np.int64)
    out = np.empty(len(components), np.float32)
    _patch_costs(components, steps.astype(np.float32), levels, shifts, BITS, EXPECTED, _QUARTER,
                 _EIGHTH, TRADE, out)  # fmt: skip
    return out
