"""The entropy coder's tables and its arithmetic."""

import zlib

import numpy as np
import pytest

from femto.coding import contexts, entropy, model
from femto.coding.entropy import TABLES
from femto.coding.kernels import lifted, plain

NO_STATE = np.zeros(1, np.int32)
code_bit, finish, learn, mixed_probability, update_slot = (
    plain(function)
    for function in (
        entropy.code_bit,
        entropy.finish,
        entropy.learn,
        entropy.mixed_probability,
        entropy.update_slot,
    )
)


def new_coder(decoding, data, state) -> entropy.Coder:
    """A coder for functions on the plain road."""
    encoding, *arrays = entropy.new_coder(decoding, data, state)
    return entropy.Coder(encoding, *map(lifted, arrays))


def test_constant_tables_are_the_same_everywhere():
    """Archives depend on them: a difference on some machine must not go unnoticed."""
    tables = {
        "TABLES": TABLES[: entropy.COST],
        "LEVEL": model.LEVEL,
        "LINES": contexts.LINES,
        "GROUP": model.GROUP,
    }
    found = {name: zlib.crc32(np.ascontiguousarray(t).tobytes()) for name, t in tables.items()}
    assert found == CHECKSUMS


CHECKSUMS = {
    "TABLES": 1926008519,
    "LEVEL": 1997667691,
    "LINES": 3719506559,
    "GROUP": 1212584486,
}


def code(bits, probabilities, data=None):
    decoding = data is not None
    buffer = np.zeros(4 * len(bits) + 16, np.uint8) if data is None else data
    coder = new_coder(decoding, buffer, NO_STATE)
    out = [
        code_bit(0 if decoding else int(bit), int(p), coder)
        for bit, p in zip(bits, probabilities, strict=True)
    ]
    return out if decoding else buffer[: finish(coder)].copy()


@pytest.mark.parametrize("seed", range(5))
def test_bits_come_back(seed):
    rng = np.random.default_rng(seed)
    p = rng.choice([4, 100, 32768, 65000, 65532], 5000)
    bits = rng.random(5000) * 65536 < p
    data = code(bits, p)
    assert code(bits, p, data) == bits.astype(int).tolist()
    entropy_bits = -np.log2(np.where(bits, p, 65536 - p) / 65536).sum()
    assert len(data) * 8 < entropy_bits * 1.002 + 40


def test_unlikely_bits_come_back():
    bits = np.arange(400) % 2 == 0
    p = np.where(bits, 4, 65532)
    assert code(bits, p, code(bits, p)) == bits.astype(int).tolist()


def test_reading_past_the_end_gives_bits_and_stays_in_bounds():
    data = code(np.ones(100, bool), np.full(100, 500))
    for cut in (0, 1, 2, len(data)):
        assert len(code(np.ones(5000, bool), np.full(5000, 32768), data[:cut].copy())) == 5000


def test_slots_learn_their_frequency():
    state = lifted(np.full(1, entropy.EVEN_SLOT, np.int32))
    rng = np.random.default_rng(1)
    for bit in rng.random(4000) < 0.9:
        update_slot(state, 0, int(bit), 255)
    assert state[0] & 255 == 255
    assert (state[0] >> 8) / 2**22 == pytest.approx(0.9, abs=0.03)


def test_mixing_finds_the_input_that_knows():
    """One input tells the bit, two are noise: the mixed probability soon follows the first."""
    state = entropy.fresh_state(6, 8, 0.3)
    coder = new_coder(False, np.zeros(8, np.uint8), state)
    rng = np.random.default_rng(2)
    cost = []
    for bit in (rng.random(3000) < 0.5).astype(int):
        coder.slots[:3] = bit, 2 + rng.integers(2), 4 + rng.integers(2)
        p = mixed_probability(3, 6, 10, coder)
        cost.append(-np.log2((p if bit else 65536 - p) / 65536))
        learn(bit, 3, 6, 10, 255, 14, coder)
    assert np.mean(cost[:20]) > 0.3
    assert np.mean(cost[-500:]) < 0.04
