"""The entropy coder's integer machinery: adaptive bit models, logistic mixing, range coder.

The method is context mixing as in lpaq and paq8 (Matt Mahoney): several adaptive probabilities
for the next bit, each from a context of its own, are stretched to the logistic domain, mixed with
weights that learn online, and squashed back. All of it is integer arithmetic, so that every machine
computes the same bits.

Indices are unsigned wherever time counts: for signed ones the compiler looks after the case of
negative ones, which costs a tenth of the time.

All adaptive state lies in one int32 array:

- a *slot* is a probability of a one in 22 bits, shifted left by 8, plus a count of 0 to 255;
- a mixer *weight* is 16.16 fixed point.
"""

from typing import NamedTuple

import numpy as np

from .kernels import called, i32, i64, inlined, u8

PROBABILITY_BITS = 22
EVEN_SLOT = (1 << (PROBABILITY_BITS - 1)) << 8
"""A slot that has seen nothing."""
STRETCH_LIMIT = 2047


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

# The range coder's registers. SPENT counts what the encoder has written, in 1/4096 bits.
LOW, HIGH, CODE, POSITION, SPENT = range(5)
MOST_INPUTS = 8
# Places in `scratch` after the stretched inputs and their bias.
OUTPUT_A, OUTPUT_B = MOST_INPUTS + 1, MOST_INPUTS + 2


class Coder(NamedTuple):
    """A string that is being coded, in either direction, and the model it is coded with.

    encoding   None while bits are read from data: compiled code is then of its own type, without
               what only an encoder does; True while they are written to it
    data       uint8: the string
    registers  int64: the range coder's
    state      int32: the adaptive state
    slots      int64: places in the state of the slots that predict the next bit
    scratch    int64: what `mixed_probability` leaves for `learn`
    """

    encoding: bool | None
    data: u8[:]
    registers: i64[:]
    state: i32[:]
    slots: i64[:]
    scratch: i64[:]


def new_coder(decoding: bool, data: np.ndarray, state: np.ndarray) -> Coder:
    """A coder at the beginning of the string `data`."""
    coder = Coder(
        None if decoding else True,
        data,
        np.zeros(5, np.int64),
        state,
        np.zeros(MOST_INPUTS, np.int64),
        np.zeros(MOST_INPUTS + 3, np.int64),
    )
    coder.registers[HIGH] = 0xFFFFFFFF
    if decoding:
        for byte in data[:4]:
            coder.registers[CODE] = (coder.registers[CODE] << 8) | int(byte)
        coder.registers[CODE] <<= 8 * (4 - len(data[:4]))
        coder.registers[POSITION] = 4
    return coder


def fresh_state(slots: int, weights: int, weight: float) -> np.ndarray:
    """Untrained state: `slots` even slots, then `weights` equal weights."""
    state = np.empty(slots + weights, np.int32)
    state[:slots] = EVEN_SLOT
    state[slots:] = round(weight * 65536)
    return state


@inlined
def finish(coder):
    """Close a string that is being written and return its length in bytes.

    One byte says it all: the decoder reads zeros after the end, and a high byte equal to that of
    HIGH (which differs from that of LOW) followed by zeros lies between the two.
    """
    registers = coder.registers
    coder.data[registers[POSITION]] = registers[HIGH] >> 24
    registers[POSITION] += 1
    return registers[POSITION]


@inlined
def code_bit(bit, p, coder):
    """Code one bit whose probability of being one is p / 65536 (4 to 65532); returns the bit."""
    registers, data = coder.registers, coder.data
    low, high = registers[LOW], registers[HIGH]
    middle = low + (((high - low) * p) >> 16)
    if coder.encoding is None:
        bit = 1 if registers[CODE] <= middle else 0
    else:
        registers[SPENT] += TABLES[np.uint64(COST + ((p >> 4) if bit else 4096 - (p >> 4)))]
    if bit:
        high = middle
    else:
        low = middle + 1
    while ((low ^ high) & 0xFF000000) == 0:
        position = registers[POSITION]
        if coder.encoding is None:
            byte = np.int64(0)
            if position < len(data):
                byte = np.int64(data[np.uint64(position)])
            registers[CODE] = ((registers[CODE] << 8) & 0xFFFFFFFF) | byte
        else:
            data[np.uint64(position)] = high >> 24
        registers[POSITION] = position + 1
        low = (low << 8) & 0xFFFFFFFF
        high = ((high << 8) & 0xFFFFFFFF) | 0xFF
    registers[LOW] = low
    registers[HIGH] = high
    return bit


@inlined
def update_slot(state, at, bit, limit):
    """Move a slot towards the bit just coded, by 1 / (count + 1.6); the count stops at `limit`."""
    slot = state[np.uint64(at)]
    count = slot & 255
    p = slot >> 8
    target = 4194303 if bit else 0
    p += ((target - p) * TABLES[np.uint64(RATE + count)]) >> 16
    if count < limit:
        count += 1
    state[np.uint64(at)] = (p << 8) | count


@inlined
def slot_probability(slot):
    """A slot's probability of a one, in 16 bits, kept off the ends."""
    return min(max(np.int64(slot) >> 14, 4), 65532)


@called
def code_direct(bit, at, limit, coder):
    """Code one bit with the probability of a single slot."""
    bit = code_bit(bit, slot_probability(coder.state[at]), coder)
    update_slot(coder.state, at, bit, limit)
    return bit


@inlined
def mixed_probability(n, weights_a, weights_b, coder):
    """Probability (16 bits) of a one from n slots and two weight vectors of n + 1.

    Leaves in `scratch` what `learn` needs: the inputs and the two mixers' outputs.
    """
    state, slots, scratch = coder.state, coder.slots, coder.scratch
    dot_a = np.int64(0)
    dot_b = np.int64(0)
    for i in range(n):
        slot = state[np.uint64(slots[i])]
        x = (
            TABLES[np.uint64(STRETCH + (slot >> 18))] * TABLES[np.uint64(CONFIDENCE + (slot & 255))]
        ) >> 8
        scratch[i] = x
        dot_a += x * state[np.uint64(weights_a + i)]
        dot_b += x * state[np.uint64(weights_b + i)]
    scratch[n] = 256
    dot_a = (dot_a + 256 * state[np.uint64(weights_a + n)]) >> 16
    dot_b = (dot_b + 256 * state[np.uint64(weights_b + n)]) >> 16
    dot_a = min(max(dot_a, -STRETCH_LIMIT), STRETCH_LIMIT)
    dot_b = min(max(dot_b, -STRETCH_LIMIT), STRETCH_LIMIT)
    scratch[OUTPUT_A] = TABLES[np.uint64(SQUASH + dot_a)]
    scratch[OUTPUT_B] = TABLES[np.uint64(SQUASH + dot_b)]
    return np.int64(TABLES[np.uint64(SQUASH + ((dot_a + dot_b) >> 1))])


@inlined
def learn(bit, n, weights_a, weights_b, limit, rate, coder):
    """Update everything that took part in `mixed_probability` with the bit just coded."""
    state, slots, scratch = coder.state, coder.slots, coder.scratch
    error_a = ((bit << 16) - scratch[OUTPUT_A]) * rate
    error_b = ((bit << 16) - scratch[OUTPUT_B]) * rate
    for i in range(n + 1):
        x = scratch[i]
        state[np.uint64(weights_a + i)] += (x * error_a + (1 << 23)) >> 24
        state[np.uint64(weights_b + i)] += (x * error_b + (1 << 23)) >> 24
    for i in range(n):
        update_slot(state, slots[i], bit, limit)
