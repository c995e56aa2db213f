"""Fitting a basis to an archive of one's own: sums over samples of it, and what follows from them.

Learning starts from a basis that is there and adds what the samples say to what it knows, as if it
had seen some pictures of its own: a few pictures move it a little, many replace it. All steps but
one are sums over samples. They are kept as integers, so that they come out the same however the
samples are spread over machines, and in whatever order they are added.

1. *Classes*: every small block joins the class in which it costs least, and each class gets the
   SVD basis of its blocks, some times in turn (`class_sums`, `update_classes`).
2. *Weights*: the normal equations of the coder's predictors (`weight_sums`, `update_weights`).
3. *State*: the coder's counters and mixers go on learning, sample after sample (`continue_state`).
4. *Filter*: the normal equations of the decoder's restoration filter (`filter_sums`,
   `update_filter`).
"""

import dataclasses
import zlib
from typing import NamedTuple

import numpy as np

from .. import codec
from ..coding import classes, restore
from ..coding.blocks import GREY_SCALE
from ..coding.contexts import CONSTANT, ZONE_CONSTANT
from ..coding.equations import new_equations
from ..samples import Levels
from . import bases, training

ROUNDS = 5
"""Of assigning blocks to classes and updating these."""
COVARIANCE_BLOCKS = 10_000
"""How many blocks what the basis knows counts for, in a class's covariance, …"""
LEVEL_BLOCKS = 300
"""… in its mean magnitudes and frequency, …"""
MEAN_BLOCKS = 4_000
"""… in the mean magnitudes of zones, …"""
WEIGHT_SAMPLES = 2_000
"""… and how many observations in the weights of the neighbourhood."""
FILTER_PIXELS = 4_000
"""How many pixels what the basis knows counts for in every class of the filter."""
JUDGED_STEPS = (7.0, 15.0, 32.0)
"""Quantiser steps of RGB pictures at which two bases are compared."""
_UNIT = 1 << 16
"""Sums are integers in units of 1 / _UNIT."""


def _exact(array: np.ndarray) -> np.ndarray:
    return np.rint(array * _UNIT).astype(np.int64)


class Sums(NamedTuple):
    """Arrays of int64, in fixed point, that add up."""

    arrays: tuple[np.ndarray, ...]

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(tuple(a + b for a, b in zip(self.arrays, other.arrays, strict=True)))

    def add(self, other: "Sums") -> None:
        """Add in place."""
        for mine, more in zip(self.arrays, other.arrays, strict=True):
            mine += more

    def pack(self) -> bytes:
        """As compressed bytes, for the network."""
        return zlib.compress(b"".join(a.tobytes() for a in self.arrays), 1)

    def unpack(self, data: bytes) -> "Sums":
        """Sums of the same shapes as these from packed ones."""
        flat, arrays, at = np.frombuffer(zlib.decompress(data), np.int64), [], 0
        for array in self.arrays:
            arrays.append(flat[at : at + array.size].reshape(array.shape).copy())
            at += array.size
        return Sums(tuple(arrays))

    def values(self) -> list[np.ndarray]:
        """As float64."""
        return [array / _UNIT for array in self.arrays]


class Sample(NamedTuple):
    """A window of a picture: its number, which chooses the steps with which it is coded; its
    pixels, (h, w) or (h, w, 3), uint8 or uint16; the levels that its whole picture uses."""

    number: int
    pixels: np.ndarray
    levels: Levels

    @property
    def grey(self) -> float:
        """By how much grey pictures are coded with finer steps."""
        return GREY_SCALE if self.pixels.ndim == 2 else 1

    def step(self, step: float) -> float:
        """The step, given for RGB pictures of 8 bits, that is as coarse for this sample."""
        return step / self.grey * self.levels.scale


# --- classes ---------------------------------------------------------------------------------


def _rows(basis: bases.Basis) -> list[np.ndarray]:
    return [np.eye(63), *bases.orthonormal(basis.components)]


def no_class_sums(basis: bases.Basis) -> Sums:
    """Sums over no samples."""
    shapes = ((basis.classes, 63, 63), (basis.classes, 63), (basis.classes, 2), (1,))
    return Sums(tuple(np.zeros(shape, np.int64) for shape in shapes))


def class_sums(basis: bases.Basis, sample: Sample, seed: int) -> Sums:
    """What the small blocks of a sample say of the classes that they join: weighted covariances
    (classes, 63, 63), magnitudes (classes, 63), blocks and weighted energies (classes, 2); and the
    cost of all (1), in squared steps.

    Busy blocks are weighted down as in `training`. Blocks are quantised with steps that `seed`
    draws.
    """
    sums = no_class_sums(basis)
    covariances, magnitudes, usage, cost = sums.arrays
    x = training.small_blocks([sample.pixels]) * np.float32(1 / sample.levels.scale)
    x = x[(np.abs(x) > 6).any(1)]
    if not len(x):
        return sums
    steps = np.array(training.CLASS_STEPS)
    drawn = np.random.default_rng([seed, sample.number]).integers(0, len(steps), len(x))
    steps = steps[drawn] / sample.grey
    rows = _rows(basis)
    costs = classes.class_costs(x, steps, rows, basis.levels, basis.prices)
    own = costs.argmin(1)
    weighted = classes.weighted(x, steps)
    for c in range(basis.classes):
        mine = own == c
        covariances[c] = _exact(weighted[mine].T @ weighted[mine])
        magnitudes[c] = _exact(np.abs(x[mine] @ rows[c].T).sum(0))
        usage[c] = _exact(np.array([mine.sum(), (weighted[mine] ** 2).sum()]))
    cost[:] = _exact(costs.min(1).sum(dtype=np.float64))
    return sums


def update_classes(prior: bases.Basis, basis: bases.Basis, sums: Sums) -> bases.Basis:
    """`basis` with the classes that the blocks of `sums` and the knowledge of `prior` make."""
    covariances, magnitudes, usage, _ = sums.values()
    blocks, energies = usage.T
    known, rows = 2.0 ** (prior.levels / classes.LEVEL_STEPS), _rows(prior)
    new = _copy(basis)
    for c in range(1, basis.classes):
        # Scores are about Laplacian: of mean magnitude m they have the variance 2 m². The factor
        # keeps components apart whose magnitudes are known as equal.
        variances = 2 * known[c] ** 2 * (1 - np.arange(63) / 200)
        expected = rows[c].T @ np.diag(variances) @ rows[c]
        energy = energies[c] / blocks[c] if blocks[c] else 1.0
        expected *= COVARIANCE_BLOCKS * energy / np.trace(expected)
        found = np.linalg.eigh(covariances[c] + expected)[1].T
        # Components keep the places of those that they are most like: what is known of a
        # component's neighbours stays true.
        found = training.in_places(found, rows[c])
        found *= np.sign((found * rows[c]).sum(1))[:, None]
        new.components[c - 1] = np.rint(found * 32767)
    means = (magnitudes + LEVEL_BLOCKS * known) / (blocks + LEVEL_BLOCKS)[:, None]
    new.levels[:] = classes.levels_of(means)
    shares = (blocks + LEVEL_BLOCKS * 2.0**-prior.prices) / (blocks.sum() + LEVEL_BLOCKS)
    new.prices[:] = -np.log2(shares)
    return _settled(new)


# --- weights ---------------------------------------------------------------------------------


def no_weight_sums(basis: bases.Basis) -> Sums:
    """Sums over no samples."""
    return _weight_sums(new_equations(basis.classes), training.Means(basis.classes))


def _weight_sums(equations, means: training.Means) -> Sums:
    return Sums(tuple(map(_exact, (*equations[:6], means.total, means.number))))


def weight_sums(basis: bases.Basis, sample: Sample) -> Sums:
    """The normal equations of the coder's predictors and the magnitudes of zones, from coding a
    sample with the basis as it is."""
    equations, means = new_equations(basis.classes), training.Means(basis.classes)
    for passes in training.PLANS:
        field, _ = _code(basis, sample, passes, basis.state.copy(), equations)
    means.add(field, basis)
    return _weight_sums(equations, means)


def _code(basis, sample: Sample, passes, state, equations=None):
    step = sample.step(training.STEPS[sample.number % len(training.STEPS)])
    return training.code(
        sample.pixels,
        step,
        basis,
        levels=sample.levels,
        passes=passes,
        state=state,
        equations=equations,
    )


def update_weights(basis: bases.Basis, sums: Sums) -> bases.Basis:
    """`basis` with weights and means that are fitted to the sums and, as far as these say little,
    stay what they are."""
    *equations, total, number = sums.values()
    new = _copy(basis)
    for grams, moments, weights, constant in (
        (*equations[0:2], new.zone_weights, ZONE_CONSTANT),
        (*equations[2:4], new.weights, CONSTANT),
    ):
        for index in np.ndindex(*weights.shape[:-1]):
            gram = grams[index]
            observed = gram[constant, constant]
            if observed < WEIGHT_SAMPLES / 10:
                continue
            strength = np.diag(gram) * (WEIGHT_SAMPLES / observed)
            strength = strength + 1e-6 * np.trace(gram) / len(gram)
            known = weights[index] / 4096
            weights[index] = training.fit_magnitudes(gram, moments[index], strength, known)
    for index in np.ndindex(*new.sign_weights.shape[:-1]):
        gram = equations[4][index]
        energy = np.trace(gram)
        if energy < WEIGHT_SAMPLES / 40:
            continue
        strength = (np.diag(gram) + 1) * min(1.0, WEIGHT_SAMPLES / energy) + 5
        known = new.sign_weights[index] / 4096
        new.sign_weights[index] = training.fit_signs(gram, equations[5][index], strength, known)
    means = (total + MEAN_BLOCKS * basis.means / training.MEAN_SCALE) / (number + MEAN_BLOCKS)
    new.means[:] = np.clip(np.rint(means * training.MEAN_SCALE), 1, 65535)
    return _settled(new)


# --- state -----------------------------------------------------------------------------------


def continue_state(basis: bases.Basis, samples) -> bases.Basis:
    """`basis` with the coder's state after `samples`, in the given order. The one step that is no
    sum: what is learned depends on what was learned before."""
    state = basis.state.copy()
    for sample in samples:
        for passes in training.PLANS:
            _code(basis, sample, passes, state)
    training.cut_counts(state)
    return dataclasses.replace(basis, state=state)


# --- filter ----------------------------------------------------------------------------------


def no_filter_sums(basis: bases.Basis) -> Sums:
    """Sums over no samples."""
    return _filter_sums(restore.no_equations())


def _filter_sums(equations) -> Sums:
    return Sums(tuple(_exact(array) for kind in equations for array in kind))


def filter_sums(basis: bases.Basis, sample: Sample) -> Sums:
    """The normal equations of the restoration filter, from coding a sample."""
    equations = restore.no_equations()
    step = sample.step(training.filter_step(sample.number))
    training.gather_filter(equations, sample.pixels, step, basis, sample.levels)
    return _filter_sums(equations)


def update_filter(basis: bases.Basis, sums: Sums) -> bases.Basis:
    """`basis` with a filter that is fitted to the sums and, as far as these say little, stays what
    it is."""
    values = sums.values()
    equations = (restore.Equations(*values[:3]), restore.Equations(*values[3:]))
    table = restore.solve(equations, basis.restoration, FILTER_PIXELS)
    return dataclasses.replace(basis, restoration=table)


# --- what it is worth ------------------------------------------------------------------------


class Judged(NamedTuple):
    """What samples take with a basis: bytes, squared errors in grey levels of 8 bits, per step of
    JUDGED_STEPS; and how many samples of pixels these are."""

    nbytes: np.ndarray
    errors: np.ndarray
    samples: int


def together(judged) -> Judged:
    """What several samples take."""
    return Judged(*(sum(column) for column in zip(*judged, strict=True)))


def judge(basis: bases.Basis, sample: Sample) -> Judged:
    """Code and decode a sample at JUDGED_STEPS."""
    _, pixels, levels = sample
    # Hot pixels, which lie outside of the levels, are not clipped.
    limits = Levels(min(levels.low, int(pixels.min())), max(levels.high, int(pixels.max())))
    nbytes, errors = np.zeros((2, len(JUDGED_STEPS)))
    for i, step in enumerate(map(sample.step, JUDGED_STEPS)):
        tile = codec.code_tile(
            pixels, step, basis, levels=levels, limits=limits, passes=max(training.PLANS)
        )
        nbytes[i] = tile.nbytes
        errors[i] = tile.sse / levels.scale**2
    return Judged(nbytes, errors, pixels.size)


def gain(before: Judged, after: Judged) -> float:
    """By how much archives become smaller at equal PSNR, 0.05 for 5 %: mean over JUDGED_STEPS,
    with the logarithm of the bytes of `before` interpolated in that of the error."""
    x, y = np.log(before.errors + 1e-9), np.log(before.nbytes + 1e-9)
    slopes = np.polyfit(x, y, min(2, len(x) - 1))
    wanted = np.log(after.errors + 1e-9)
    return float(1 - np.exp(np.mean(np.log(after.nbytes + 1e-9) - np.polyval(slopes, wanted))))


# --- copies ----------------------------------------------------------------------------------


def _copy(basis: bases.Basis) -> bases.Basis:
    arrays = {
        field.name: getattr(basis, field.name).copy()
        for field in dataclasses.fields(basis)
        if isinstance(getattr(basis, field.name), np.ndarray)
    }
    return dataclasses.replace(basis, **arrays)


def _settled(basis: bases.Basis) -> bases.Basis:
    """The basis with what it derives from its arrays."""
    basis.__post_init__()
    return basis
