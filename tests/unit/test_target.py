"""The search for the step that meets a target, without any picture."""

import math

import pytest

from femto import LaffError
from femto.samples import levels_of
from femto.target import EIGHT_BITS, MAX_ROUNDS, StepSearch, quality_to_step


def rounds(search: StepSearch, nbytes, sse) -> list:
    """Run a search on made-up rate and distortion functions of the step."""
    history, step = [], search.first()
    while step is not None:
        history.append((step, nbytes(step), sse(step)))
        step = search.next(history)
    assert len(history) <= MAX_ROUNDS
    return history


def test_quality_is_one_round():
    search = StepSearch(quality=75, levels=EIGHT_BITS, channels=3, raw_nbytes=100, samples=100)
    assert rounds(search, lambda s: 10, lambda s: 1.0) == [(16.2251, 10, 1.0)]
    assert quality_to_step(100) == 1
    assert quality_to_step(1) == 256
    assert quality_to_step(100, levels_of(16)) == 257
    assert quality_to_step(75, channels=1) == pytest.approx(16.2251 / 1.9475, rel=1e-3)


@pytest.mark.parametrize("exponent", [0.3, 0.8, 1.5, 3])
@pytest.mark.parametrize("ratio", [2, 8, 40, 300])
def test_ratio_is_found_on_any_smooth_curve(exponent, ratio):
    search = StepSearch(ratio=ratio, levels=EIGHT_BITS, channels=3, raw_nbytes=10**7, samples=10**7)
    history = rounds(search, lambda s: int(4e6 / s**exponent) + 300, lambda s: s * s)
    got = 10**7 / history[search.best(history)][1]
    reachable = 10**7 / (4e6 / 512**exponent + 300) > ratio > 10**7 / (4e6 / 0.05**exponent + 300)
    if reachable:
        assert got == pytest.approx(ratio, rel=0.03)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("target", [20, 35, 50])
def test_psnr_is_found(target, bits):
    search = StepSearch(
        psnr=target, levels=levels_of(bits), channels=1, raw_nbytes=1000, samples=1000
    )
    history = rounds(search, lambda s: 1000, lambda s: 1000 * (s**1.7 / 15))
    mse = history[search.best(history)][2] / 1000
    if mse == pytest.approx((512 * (2**bits - 1) / 255) ** 1.7 / 15):
        return  # the coarsest step there is: the curve goes no lower
    assert 10 * math.log10((2**bits - 1) ** 2 / mse) == pytest.approx(target, abs=0.1)


def test_jumps_end_the_search():
    search = StepSearch(ratio=10, levels=EIGHT_BITS, channels=3, raw_nbytes=10_000, samples=10_000)
    history = rounds(search, lambda s: 500 if s > 20 else 5000, lambda s: s)
    assert history[search.best(history)][1] in (500, 5000)


def test_constant_size_and_no_error_end_the_search():
    search = StepSearch(ratio=10, levels=EIGHT_BITS, channels=3, raw_nbytes=10_000, samples=10_000)
    rounds(search, lambda s: 50, lambda s: 0.0)
    search = StepSearch(psnr=60, levels=EIGHT_BITS, channels=3, raw_nbytes=10_000, samples=10_000)
    rounds(search, lambda s: 50, lambda s: 0.0)


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 3, "psnr": 4},
        {"ratio": 0.5},
        {"psnr": 1},
        {"psnr": math.nan},
        {"quality": 0},
        {"quality": "high"},
    ],
)
def test_impossible_targets(options):
    with pytest.raises(LaffError):
        StepSearch(**options, levels=EIGHT_BITS, channels=3, raw_nbytes=1, samples=1).first()
