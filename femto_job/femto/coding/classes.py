"""Block classes: which SVD basis suits a block best (the first clustering).

A class is judged by what the block would cost in it, squared error plus TRADE times bits. Bits are
estimated from Laplacians: a component's mean magnitude in the class, scaled by the block's own
gain, gives the probability of every quantised magnitude. Levels of magnitude are quarter octaves
and everything is looked up, so that the choice needs no logarithm or exponential per score.
"""

import numpy as np

from .kernels import called, f32, i32, i64, kernel

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
QUARTER = np.float32(2 ** (1 / LEVEL_STEPS))
EIGHTH = np.float32(2 ** (1 / (2 * LEVEL_STEPS)))


def levels_of(means: np.ndarray) -> np.ndarray:
    """Mean magnitudes as levels, int32."""
    return np.rint(LEVEL_STEPS * np.log2(np.maximum(means, 1e-6))).astype(np.int32)


@called
def block_cost(x, n, levels, shift):
    """Cost (steps²) of the quantised scores x[:n], whose mean magnitudes have the given levels
    plus `shift`, in coding order. Zeros after the last nonzero score cost next to nothing."""
    total = np.float64(0.5)
    foreseen = np.float32(0.5)
    last = 0
    for i in range(n):
        size = np.int64(abs(x[i]) + np.float32(0.4))
        if size > 0:
            last = i + 1
            total += size
        at = min(max(levels[i] + shift, 0), LEVELS - 1)
        foreseen += EXPECTED[at]
    gain = 0
    ratio = total / foreseen
    while ratio > EIGHTH and gain < 14:
        ratio /= QUARTER
        gain += 1
    while ratio * EIGHTH < 1 and gain > -14:
        ratio *= QUARTER
        gain -= 1
    distortion = np.float64(0)
    rate = np.float64(0)
    for i in range(n):
        a = abs(x[i])
        size = np.int64(a + np.float32(0.4))
        if i < last:
            at = min(max(levels[i] + shift + gain, 0), LEVELS - 1)
            if size < SIZES:
                rate += BITS[at, size]
            else:
                rate += BITS[at, SIZES - 1] + (size - SIZES + 1) * BITS[at, SIZES]
        off = np.float64(a) - size
        distortion += off * off
    return distortion + TRADE * rate


# --- for training ----------------------------------------------------------------------------


@kernel
def _patch_costs(
    x: f32[:, :], steps: f32[:], levels: i32[:], shifts: i64[:], scaled: f32[:], out: f32[:]
):
    n = x.shape[1]
    for i in range(len(x)):
        for j in range(n):
            scaled[j] = x[i, j] / steps[i]
        out[i] = block_cost(scaled, n, levels, shifts[i])


def patch_costs(components: np.ndarray, steps: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Cost (steps²) of blocks given as components (n, 63) of one class with `levels` (63), each
    quantised with its own step (n); float32 (n)."""
    shifts = ZERO_LEVEL - np.rint(LEVEL_STEPS * np.log2(steps)).astype(np.int64)
    out = np.empty(len(components), np.float32)
    _patch_costs(
        np.ascontiguousarray(components, np.float32),
        steps.astype(np.float32),
        levels,
        shifts,
        np.empty(components.shape[1], np.float32),
        out,
    )
    return out


def class_costs(x: np.ndarray, steps: np.ndarray, rows, levels, prices) -> np.ndarray:
    """Cost (steps²) of blocks in every class, naming it included.

    `x` float32 (n, 63): scores; `steps` (n): what each is quantised with; of every class `rows`
    (63, 63), row = component, `levels` (63) and `prices`. Returns float32 (n, classes).
    """
    costs = np.empty((len(x), len(levels)), np.float32)
    for c in range(len(levels)):
        components = np.ascontiguousarray(x @ rows[c].T.astype(np.float32))
        costs[:, c] = patch_costs(components, steps, levels[c]) + TRADE * prices[c]
    return costs


def weighted(x: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Blocks (n, 63) in proportion to their size, with the step (n) as a floor, float64: busy
    blocks would otherwise rule a basis."""
    weight = 1 / np.sqrt((x**2).mean(1) + 0.3 * steps**2)
    return x.astype(np.float64) * weight[:, None]
