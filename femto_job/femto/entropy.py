"""The entropy coder's integer machinery: adaptive bit models, logistic mixing, range coder.

The method is context mixing as in lpaq and paq8 (Matt Mahoney): several adaptive probabilities
for the next bit, each from a context of its own, are stretched to the logistic domain, mixed with
weights that learn online, squashed back and refined by two adaptive probability maps (APM), each
interpolated between bins. All of it is integer arithmetic, so that every machine computes the
same bits.

All adaptive state lies in one int32 array:

- a *slot* is a probability of a one in 22 bits, shifted left by 8, plus a count of 0 to 255;
- a mixer *weight* is 16.16 fixed point;
- an APM cell is a probability in 16 bits.
"""

import numpy as np

from .jit import njit

PROBABILITY_BITS = 22
EVEN_SLOT = (1 << (PROBABILITY_BITS - 1)) << 8
"""A slot that has seen nothing."""
STRETCH_LIMIT = 2047
APM_BINS = 33
APM_STEP = 128
"""Stretched probabilities -2048 to 2048 are cut into 32 intervals of this width."""


def _tables() -> np.ndarray:
    """All constant tables in one array; the offsets below say where each begins.

    The logarithms and exponentials are rounded to integers from values that are nowhere close
    to a half, so every machine's libm gives the same tables (a test holds their checksum).
    """
    stretch = np.log((np.arange(4096) + 0.5) / (4095.5 - np.arange(4096))) * 256
    stretch = np.clip(np.rint(stretch), -STRETCH_LIMIT, STRETCH_LIMIT)
    squash = 65536 / (1 + np.exp(-np.arange(-2048, 2049) / 256))
    squash = np.clip(np.rint(squash), 16, 65520)
    count = np.arange(256)
    confidence = np.rint(256 * (count + 0.3) / (count + 1.5))
    rate = np.floor(65536 / (count + 1.6))
    cost = np.rint(-np.log2(np.maximum(np.arange(4097), 0.3) / 4096) * 4096)
    return np.concatenate([stretch, squash, confidence, rate, cost]).astype(np.int32)


TABLES = _tables()
STRETCH, SQUASH = 0, 4096 + 2048  # SQUASH points at the middle: a stretched value is added to it
CONFIDENCE = 4096 + 4097
RATE = CONFIDENCE + 256
COST = RATE + 256
"""COST + p (12 bits): -log2(p / 4096) in 1/4096 bits. For the encoder's choices only."""

# The range coder's registers, an int64 array.
LOW, HIGH, CODE, POSITION, END = range(5)
REGISTERS = 5
MODE_ENCODE, MODE_DECODE = 0, 1


def fresh_state(slots: int, weights: int, weight: float, apms: int) -> np.ndarray:
    """Untrained state: `slots` even slots, then `weights` equal weights, then `apms` maps."""
    state = np.empty(slots + weights + apms * APM_BINS, np.int32)
    state[:slots] = EVEN_SLOT
    state[slots : slots + weights] = round(weight * 65536)
    bins = np.clip(np.arange(APM_BINS) * APM_STEP, 0, 4096)
    state[slots + weights :] = np.tile(TABLES[SQUASH - 2048 + bins], apms)
    return state


@njit
def start(coder, data, decoding):
    """Set the registers to the beginning of a string."""
    coder[LOW] = 0
    coder[HIGH] = 0xFFFFFFFF
    coder[POSITION] = 0
    coder[CODE] = 0
    coder[END] = len(data)
    if decoding:
        for _ in range(4):
            byte = np.int64(0)
            if coder[POSITION] < coder[END]:
                byte = np.int64(data[coder[POSITION]])
            coder[CODE] = (coder[CODE] << 8) | byte
            coder[POSITION] += 1


@njit
def finish(coder, data):
    """Close a string that is being written and return its length in bytes.

    One byte says it all: the decoder reads zeros after the end, and a high byte equal to that of
    HIGH (which differs from that of LOW) followed by zeros lies between the two.
    """
    data[coder[POSITION]] = coder[HIGH] >> 24
    coder[POSITION] += 1
    return coder[POSITION]


@njit
def code_bit(bit, p, coder, data, decoding):
    """Code one bit whose probability of being one is p / 65536 (4 to 65532); returns the bit."""
    low, high = coder[LOW], coder[HIGH]
    middle = low + (((high - low) * p) >> 16)
    if decoding:
        bit = 1 if coder[CODE] <= middle else 0
    if bit:
        high = middle
    else:
        low = middle + 1
    while ((low ^ high) & 0xFF000000) == 0:
        position = coder[POSITION]
        if decoding:
            byte = np.int64(0)
            if position < coder[END]:
                byte = np.int64(data[position])
            coder[CODE] = ((coder[CODE] << 8) & 0xFFFFFFFF) | byte
        else:
            data[position] = high >> 24
        coder[POSITION] = position + 1
        low = (low << 8) & 0xFFFFFFFF
        high = ((high << 8) & 0xFFFFFFFF) | 0xFF
    coder[LOW] = low
    coder[HIGH] = high
    return bit


@njit
def update_slot(state, at, bit, limit, tables):
    """Move a slot towards the bit just coded, by 1 / (count + 1.6); the count stops at `limit`."""
    slot = state[at]
    count = slot & 255
    p = slot >> 8
    target = 4194303 if bit else 0
    p += ((target - p) * tables[RATE + count]) >> 16
    if count < limit:
        count += 1
    state[at] = (p << 8) | count


@njit
def code_direct(bit, at, limit, state, tables, coder, data, decoding):
    """Code one bit with the probability of a single slot."""
    p = min(max(state[at] >> 14, 4), 65532)
    bit = code_bit(bit, p, coder, data, decoding)
    update_slot(state, at, bit, limit, tables)
    return bit


@njit
def mixed_probability(slots, n, weights_a, weights_b, apm_a, apm_b, state, tables, scratch):
    """Probability (16 bits) of a one from n slots, two weight vectors of n + 1, and two APMs.

    Leaves in `scratch` what `learn` needs: the inputs, the two mixers' outputs, the APM place.
    """
    dot_a = np.int64(0)
    dot_b = np.int64(0)
    for i in range(n):
        slot = state[slots[i]]
        x = (tables[STRETCH + (slot >> 18)] * tables[CONFIDENCE + (slot & 255)]) >> 8
        scratch[i] = x
        dot_a += x * state[weights_a + i]
        dot_b += x * state[weights_b + i]
    scratch[n] = 256
    dot_a = (dot_a + 256 * state[weights_a + n]) >> 16
    dot_b = (dot_b + 256 * state[weights_b + n]) >> 16
    dot_a = min(max(dot_a, -STRETCH_LIMIT), STRETCH_LIMIT)
    dot_b = min(max(dot_b, -STRETCH_LIMIT), STRETCH_LIMIT)
    dot = (dot_a + dot_b) >> 1
    place = (dot + 2048) >> 7
    part = (dot + 2048) & 127
    a = apm_a + place
    b = apm_b + place
    refined = (state[a] + state[b]) * (128 - part) + (state[a + 1] + state[b + 1]) * part
    scratch[10] = tables[SQUASH + dot_a]
    scratch[11] = tables[SQUASH + dot_b]
    scratch[12] = place + (1 if part >= 64 else 0)
    p = (2 * tables[SQUASH + dot] + (refined >> 7)) >> 2
    return min(max(p, 4), 65532)


@njit
def learn(bit, slots, n, weights_a, weights_b, apm_a, apm_b, limit, rate, state, tables, scratch):
    """Update everything that took part in `mixed_probability` with the bit just coded."""
    error_a = ((bit << 16) - scratch[10]) * rate
    error_b = ((bit << 16) - scratch[11]) * rate
    for i in range(n + 1):
        x = scratch[i]
        state[weights_a + i] += (x * error_a + (1 << 23)) >> 24
        state[weights_b + i] += (x * error_b + (1 << 23)) >> 24
    target = 65535 if bit else 0
    a = apm_a + scratch[12]
    b = apm_b + scratch[12]
    state[a] += (target - state[a]) >> 6
    state[b] += (target - state[b]) >> 6
    for i in range(n):
        update_slot(state, slots[i], bit, limit, tables)
