"""The entropy decoder's integer machinery: adaptive bit models, logistic mixing, range decoder.

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

from typing import NamedTuple

import numpy as np

from ..jit import inlined, njit

PROBABILITY_BITS = 22
STRETCH_LIMIT = 2047
APM_BINS = 33
"""Ends of the 32 intervals of 128 into which stretched probabilities -2048 to 2048 are cut."""


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
    return np.concatenate([stretch, squash, confidence, rate]).astype(np.int32)


TABLES = _tables()
STRETCH, SQUASH = 0, 4096 + 2048  # SQUASH points at the middle: a stretched value is added to it
CONFIDENCE = 4096 + 4097
RATE = CONFIDENCE + 256

LOW, HIGH, CODE, POSITION = range(4)
"""The range decoder's registers."""
MOST_INPUTS = 8
# Places in `scratch` after the stretched inputs and their bias.
OUTPUT_A, OUTPUT_B, APM_PLACE = MOST_INPUTS + 1, MOST_INPUTS + 2, MOST_INPUTS + 3


class Coder(NamedTuple):
    """A string that is being decoded, and the model it was coded with.

    data       uint8: the string
    registers  int64: the range decoder's
    state      int32: the adaptive state
    slots      int64: places in the state of the slots that predict the next bit
    scratch    int64: what `mixed_probability` leaves for `learn`
    """

    data: np.ndarray
    registers: np.ndarray
    state: np.ndarray
    slots: np.ndarray
    scratch: np.ndarray


def new_coder(string: bytes, state: np.ndarray) -> Coder:
    """A coder at the beginning of the string, which goes on in zeros after its end."""
    registers = np.zeros(4, np.int64)
    registers[HIGH] = 0xFFFFFFFF
    registers[CODE] = int.from_bytes(string[:4].ljust(4, b"\0"), "big")
    registers[POSITION] = 4
    return Coder(
        np.frombuffer(string, np.uint8),
        registers,
        state,
        np.zeros(MOST_INPUTS, np.int64),
        np.zeros(MOST_INPUTS + 4, np.int64),
    )


@inlined
def decode_bit(p, coder):
    """Decode one bit whose probability of being one is p / 65536 (4 to 65532)."""
    registers, data = coder.registers, coder.data
    low, high = registers[LOW], registers[HIGH]
    middle = low + (((high - low) * p) >> 16)
    bit = 1 if registers[CODE] <= middle else 0
    if bit:
        high = middle
    else:
        low = middle + 1
    while ((low ^ high) & 0xFF000000) == 0:
        position = registers[POSITION]
        byte = np.int64(0)
        if position < len(data):
            byte = np.int64(data[position])
        registers[CODE] = ((registers[CODE] << 8) & 0xFFFFFFFF) | byte
        registers[POSITION] = position + 1
        low = (low << 8) & 0xFFFFFFFF
        high = ((high << 8) & 0xFFFFFFFF) | 0xFF
    registers[LOW] = low
    registers[HIGH] = high
    return bit


@inlined
def update_slot(state, at, bit, limit):
    """Move a slot towards the bit decoded, by 1 / (count + 1.6); the count stops at `limit`."""
    slot = state[at]
    count = slot & 255
    p = slot >> 8
    target = 4194303 if bit else 0
    p += ((target - p) * TABLES[RATE + count]) >> 16
    if count < limit:
        count += 1
    state[at] = (p << 8) | count


@inlined
def slot_probability(slot):
    """A slot's probability of a one, in 16 bits, kept off the ends."""
    return min(max(np.int64(slot) >> 14, 4), 65532)


@njit
def decode_direct(at, limit, coder):
    """Decode one bit with the probability of a single slot."""
    bit = decode_bit(slot_probability(coder.state[at]), coder)
    update_slot(coder.state, at, bit, limit)
    return bit


@inlined
def mixed_probability(n, weights_a, weights_b, apm_a, apm_b, coder):
    """Probability (16 bits) of a one from n slots, two weight vectors of n + 1, and two APMs.

    Leaves in `scratch` what `learn` needs: the inputs, the two mixers' outputs, the APM place.
    """
    state, slots, scratch = coder.state, coder.slots, coder.scratch
    dot_a = np.int64(0)
    dot_b = np.int64(0)
    for i in range(n):
        slot = state[slots[i]]
        x = (TABLES[STRETCH + (slot >> 18)] * TABLES[CONFIDENCE + (slot & 255)]) >> 8
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
    scratch[OUTPUT_A] = TABLES[SQUASH + dot_a]
    scratch[OUTPUT_B] = TABLES[SQUASH + dot_b]
    scratch[APM_PLACE] = place + (1 if part >= 64 else 0)
    p = (2 * TABLES[SQUASH + dot] + (refined >> 7)) >> 2
    return min(max(p, 4), 65532)


@inlined
def learn(bit, n, weights_a, weights_b, apm_a, apm_b, limit, rate, coder):
    """Update everything that took part in `mixed_probability` with the bit just decoded."""
    state, slots, scratch = coder.state, coder.slots, coder.scratch
    error_a = ((bit << 16) - scratch[OUTPUT_A]) * rate
    error_b = ((bit << 16) - scratch[OUTPUT_B]) * rate
    for i in range(n + 1):
        x = scratch[i]
        state[weights_a + i] += (x * error_a + (1 << 23)) >> 24
        state[weights_b + i] += (x * error_b + (1 << 23)) >> 24
    target = 65535 if bit else 0
    a = apm_a + scratch[APM_PLACE]
    b = apm_b + scratch[APM_PLACE]
    state[a] += (target - state[a]) >> 6
    state[b] += (target - state[b]) >> 6
    for i in range(n):
        update_slot(state, slots[i], bit, limit)
