"""Fitting a basis to samples: sums that add up exactly, knowledge that stays, gain that is real."""

import numpy as np
import pytest

import femto

pytest.importorskip("scipy")

from femto.basis import adaptation, bases
from femto.basis.adaptation import Judged, Sample
from femto.samples import Levels


def weave(seed: int, *, colour: bool = False) -> np.ndarray:
    """Dense diagonal strokes, 160 x 192: what no photograph looks like."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:160, :192]
    strokes = np.sin((x + y) * 1.3 + random.uniform(0, 6)) + np.sin((x - 2 * y) * 0.9)
    grey = 128 + 50 * np.sign(strokes) + random.normal(0, 3, x.shape)
    grey = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    return np.dstack([grey, grey[::-1], grey // 2]) if colour else grey


def sample(number: int, pixels: np.ndarray, low: int = 0, high: int = 255) -> Sample:
    """A sample whose levels, 0 to 255 of 8 bits, become `low` to `high`."""
    if (low, high) != (0, 255):
        pixels = np.rint(low + pixels * ((high - low) / 255)).astype(np.uint16)
    return Sample(number, pixels, Levels(low, high))


@pytest.fixture(scope="module")
def prior():
    return bases.load_basis()


def learn(prior, samples: list[Sample]) -> list:
    """The basis after the classes, the weights, the state and the filter."""
    basis = prior
    for _ in range(2):
        sums = adaptation.no_class_sums(basis)
        for one in samples:
            sums.add(adaptation.class_sums(basis, one, 1))
        basis = adaptation.update_classes(prior, basis, sums)
    found = [basis]
    sums = adaptation.no_weight_sums(basis)
    for one in samples:
        sums.add(adaptation.weight_sums(basis, one))
    found.append(adaptation.update_weights(basis, sums))
    found.append(adaptation.continue_state(found[-1], samples))
    sums = adaptation.no_filter_sums(basis)
    for one in samples:
        sums.add(adaptation.filter_sums(found[-1], one))
    found.append(adaptation.update_filter(found[-1], sums))
    return found


@pytest.fixture(scope="module")
def learned(prior):
    """What four samples teach."""
    return learn(prior, [sample(seed, weave(seed)) for seed in range(4)])


def equal(a, b) -> bool:
    names = ("components", "means", "levels", "prices", "zone_weights", "weights", "sign_weights")
    return all(
        np.array_equal(x, y)
        for x, y in (
            *((getattr(a, n), getattr(b, n)) for n in (*names, "state")),
            *zip(a.restoration, b.restoration, strict=True),
        )
    )


@pytest.mark.parametrize(
    "empty, one",
    [
        (adaptation.no_class_sums, lambda b, x: adaptation.class_sums(b, x, 1)),
        (adaptation.no_weight_sums, adaptation.weight_sums),
        (adaptation.no_filter_sums, adaptation.filter_sums),
    ],
)
def test_sums_are_the_same_in_any_order_and_on_any_way(prior, empty, one):
    parts = [one(prior, sample(i, weave(i, colour=i == 2))) for i in range(3)]
    forth = empty(prior)
    for part in parts:
        forth.add(part)
    back = parts[2] + (parts[1] + parts[0])
    travelled = empty(prior).unpack(back.pack())
    for a, b, c in zip(forth.arrays, back.arrays, travelled.arrays, strict=True):
        assert a.dtype == b.dtype == np.int64
        assert (a == b).all() and (a == c).all()
    assert any(a.any() for a in forth.arrays)


def test_nothing_seen_changes_nothing_that_is_known(prior):
    basis = adaptation.update_classes(prior, prior, adaptation.no_class_sums(prior))
    assert (basis.levels == prior.levels).all()
    assert np.allclose(basis.prices, prior.prices, atol=0.02)
    same = np.abs((basis.backward[:, 1:, 1:] * prior.backward[:, 1:, 1:]).sum(2))
    assert same.min() > 0.99999
    assert equal(adaptation.update_weights(prior, adaptation.no_weight_sums(prior)), prior)
    assert equal(adaptation.continue_state(prior, []), prior)
    assert equal(adaptation.update_filter(prior, adaptation.no_filter_sums(prior)), prior)


def test_the_basis_that_learning_began_with_is_left_as_it_is(prior, learned):
    assert equal(prior, bases.read_basis(bases.Path(femto.__file__).parent / "data/photo.basis"))
    for basis in learned:
        assert not equal(basis, prior)
        for forth, back in zip(basis.forward, basis.backward, strict=True):
            assert np.allclose(forth @ back, np.eye(64), atol=1e-5)


def test_learning_makes_pictures_of_the_kind_smaller(prior, learned):
    fresh = sample(0, weave(99))
    before = adaptation.judge(prior, fresh)
    gains = [adaptation.gain(before, adaptation.judge(basis, fresh)) for basis in learned]
    assert gains[0] > -0.005
    assert gains[1] > 0.03
    assert gains[2] > gains[1]
    assert gains[3] > gains[2]


def test_classes_learn_the_blocks_of_their_kind(prior, learned):
    def cost(basis) -> int:
        return adaptation.class_sums(basis, sample(0, weave(99)), 1).arrays[3][0]

    assert cost(learned[0]) < 0.97 * cost(prior)


def test_a_learned_basis_is_a_basis_file(learned, tmp_path):
    bases.save_basis(learned[-1], tmp_path / "own.basis")
    found = bases.read_basis(tmp_path / "own.basis")
    assert (tmp_path / "own.basis").stat().st_size < 2_000_000
    assert (found.components == learned[-1].components).all()
    assert (found.weights == learned[-1].weights).all()


# Full range; 12 bits; an offset.
@pytest.mark.parametrize("levels", [(0, 65535), (0, 255 * 16), (8000, 8000 + 255 * 5)], ids=str)
def test_sixteen_bits_say_the_same_as_eight(prior, levels):
    pixels = weave(5)
    eight, sixteen = sample(0, pixels), sample(0, pixels, *levels)
    for a, b in zip(
        adaptation.class_sums(prior, eight, 1).arrays,
        adaptation.class_sums(prior, sixteen, 1).arrays,
        strict=True,
    ):
        assert np.allclose(a, b, rtol=1e-4, atol=100)
    a, b = (adaptation.filter_sums(prior, s).values() for s in (eight, sixteen))
    assert np.allclose(a[0].sum((1, 2)), b[0].sum((1, 2)), rtol=0.05, atol=200)
    assert np.allclose(a[1].sum(0), b[1].sum(0), rtol=0.1, atol=20)
    a, b = (adaptation.judge(prior, s) for s in (eight, sixteen))
    assert np.allclose(a.nbytes, b.nbytes, rtol=0.01)
    assert np.allclose(a.errors, b.errors, rtol=0.1)


def test_twelve_bits_teach_what_eight_do(prior, learned):
    deep = learn(prior, [sample(seed, weave(seed), 0, 4095) for seed in range(4)])
    fresh = sample(0, weave(99))
    before = adaptation.judge(prior, fresh)
    for eight, twelve in zip(learned, deep, strict=True):
        assert np.abs(2.0**-eight.prices - 2.0**-twelve.prices).max() < 0.01
        alike = np.abs((eight.components / 32767 * (twelve.components / 32767)).sum(2))
        assert np.median(alike) > 0.999
        a, b = (adaptation.gain(before, adaptation.judge(x, fresh)) for x in (eight, twelve))
        assert a == pytest.approx(b, abs=0.005)


def test_hot_pixels_are_judged_as_they_are(prior):
    calm = sample(0, weave(5), 0, 4095)
    hot = calm._replace(pixels=calm.pixels.copy())
    hot.pixels[80, 90] = 65535
    a, b = (adaptation.judge(prior, s) for s in (calm, hot))
    # Clipping alone would add (61440 / 16)², more than the whole error.
    assert (b.errors < a.errors + 1e6).all()


def test_a_flat_sample_is_no_obstacle(prior):
    flat = sample(0, np.full((64, 64), 200, np.uint8))
    assert not any(a.any() for a in adaptation.class_sums(prior, flat, 1).arrays)
    adaptation.weight_sums(prior, flat)
    adaptation.filter_sums(prior, flat)
    assert adaptation.judge(prior, flat).samples == 64 * 64


def test_gain_is_at_equal_error():
    errors = np.array([1e4, 4e4, 16e4])
    before = Judged(np.array([4000.0, 2000.0, 1000.0]), errors, 1000)
    assert adaptation.gain(before, before) == pytest.approx(0, abs=1e-6)
    half = before._replace(nbytes=before.nbytes / 2)
    assert adaptation.gain(before, half) == pytest.approx(0.5)
    # Bytes halve where the error is four times as large: worse by that is no gain.
    coarser = Judged(before.nbytes / 2, 4 * errors, 1000)
    assert adaptation.gain(before, coarser) == pytest.approx(0, abs=1e-6)
    both = adaptation.together([before, half])
    assert both.samples == 2000 and both.nbytes[0] == 6000
