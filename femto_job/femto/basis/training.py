"""Learning a basis from pictures: block classes, size costs, neighbour weights, coder state.

Stages, each on what those before it have learned:

1. *Classes*: SVD bases of clusters of small blocks, chosen and updated for code length.
2. *Size costs*: what blocks of each size cost in the coder, as tables of their scores.
3. *Weights*: how the magnitudes and signs around a score predict it (least squares, non-negative
   for magnitudes).
4. *State*: the adaptive models are run over the pictures once; what they have learned ships.
5. *Restoration*: the decoder's filter, least squares on the errors that are left.

Deterministic for given pictures, in a given order, and a seed.
"""

import sys

import numpy as np
from scipy.optimize import linear_sum_assignment, nnls

from ..coding import classes, kstrings, model, partition, restore
from ..coding.blocks import (
    DCT,
    ZIGZAG,
    ZONES,
    Layout,
    choose_colour,
    colour_matrices,
    dct_matrix,
    inverse,
)
from ..coding.contexts import CONSTANT, SIGNED, ZONE_CONSTANT, Field, sum_magnitudes
from ..coding.equations import new_equations
from ..samples import Levels, levels_of
from . import bases

STEPS = (7.0, 18.0, 50.0, 10.0, 33.0, 13.0, 24.0)
"""Quantiser steps at which the training pictures are coded, in turn. Their number has no divisor in
common with that of the block sizes, which take turns too."""
CLASS_STEPS = (9.0, 15.0, 25.0, 40.0)
"""Quantiser steps of RGB pictures at which small blocks are assigned to classes."""
TURNS = 4
"""Every picture is learned from in so many positions: as it is, turned by a quarter and by a half,
and mirrored at the diagonal."""
MEAN_SCALE = 1024
PLANS = (1, 4)
"""In how many passes every picture is learned from."""
TRUST = 20
"""Counts of the coder's state are cut to this, so that a new picture can still change it."""


def report(line: str) -> None:
    """Progress, for whoever watches a training run."""
    print(line, file=sys.stderr, flush=True)


# --- classes ---------------------------------------------------------------------------------


def small_blocks(pictures: list[np.ndarray]) -> np.ndarray:
    """Luma DCT scores 1 … 63 (zigzag) of every 8 x 8 block, float32 (n, 63), in the pictures' grey
    levels."""
    out = []
    for picture in pictures:
        luma = picture.astype(np.float64)
        if picture.ndim == 3:
            luma = luma @ colour_matrices(choose_colour(picture))[0][0]
        rows, columns = luma.shape[0] // 8, luma.shape[1] // 8
        x = luma[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8).transpose(0, 2, 1, 3)
        scores = dct_matrix(8) @ x.reshape(-1, 8, 8) @ dct_matrix(8).T
        out.append(scores[:, ZIGZAG[1:, 0], ZIGZAG[1:, 1]].astype(np.float32))
    return np.concatenate(out)


def _orientation(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angle (0 to pi) and coherence (0 to 1) of blocks given by their scores (n, 63), from the
    structure tensor."""
    u, v = ZIGZAG[1:].T
    cosines = DCT[0, :8, :8]
    planes = np.einsum("ne,ei,ej->nij", x, cosines[u], cosines[v], optimize=True)
    gy, gx = np.gradient(planes, axis=(1, 2))
    xx, yy, xy = ((p * q).sum((1, 2)) for p, q in ((gx, gx), (gy, gy), (gx, gy)))
    angle = 0.5 * np.arctan2(2 * xy, xx - yy) % np.pi
    return angle, np.hypot(xx - yy, 2 * xy) / (xx + yy + 1e-9)


def in_places(rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Components, the rows of (63, 63), in the places of those of `known` that they are like."""
    place, row = linear_sum_assignment(-((rows @ known.T) ** 2).T)
    return rows[row[np.argsort(place)]]


def _svd_basis(x: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Orthonormal components (63, 63), row = component, of weighted blocks (n, 63).

    The covariance is shrunk towards a diagonal one, which is the DCT's.
    """
    weighted = classes.weighted(x, steps)
    covariance = weighted.T @ weighted / len(x)
    shrink = 200 / (200 + len(x))
    covariance = (1 - shrink) * covariance + shrink * np.diag(np.diag(covariance))
    rows = np.linalg.eigh(covariance)[1].T[::-1]
    # So a trained component has the place, and the neighbours, of its dominant frequency.
    rows = in_places(rows, np.eye(63))
    return rows * np.sign(rows[np.arange(63), np.abs(rows).argmax(1)])[:, None]


def train_classes(pictures, count: int, seed: int = 1, iterations: int = 10, limit: int = 150_000):
    """Learn `count` classes besides the DCT from the pictures' small luma blocks.

    Alternates between assigning blocks to the class in which they cost least and recomputing
    each class's SVD basis and mean magnitudes ("likelihood training").
    Returns (components int16 (count, 63, 63), levels (count + 1, 63), prices (count + 1)).
    """
    rng = np.random.default_rng(seed)
    x = small_blocks(pictures)
    x = x[(np.abs(x) > 6).any(1)]
    x = x[np.sort(rng.permutation(len(x))[:limit])]
    steps = np.array(CLASS_STEPS)[rng.integers(0, len(CLASS_STEPS), len(x))]
    angle, coherence = _orientation(x)
    own = np.where(coherence < 0.5, 0, 1 + (angle / np.pi * count).astype(int) % count)
    rows = [np.eye(63)] * (count + 1)
    levels = np.zeros((count + 1, 63), np.int32)
    prices = np.full(count + 1, np.log2(count + 1))
    common = np.abs(x).mean(0)
    for iteration in range(iterations + 1):
        for c in range(count + 1):
            mine = own == c
            if c > 0 and mine.sum() >= 100:
                rows[c] = _svd_basis(x[mine], steps[mine])
            magnitudes = np.abs(x[mine] @ rows[c].T)
            mean = (magnitudes.sum(0) + 50 * common) / (len(magnitudes) + 50)
            levels[c] = classes.levels_of(mean)
        costs = classes.class_costs(x, steps, rows, levels, prices)
        own = costs.argmin(1)
        usage = np.bincount(own, minlength=count + 1)
        prices = -np.log2((usage + 50) / (len(x) + 50 * (count + 1)))
        report(
            f"classes {iteration}: cost {costs.min(1).mean():.4f}, DCT alone "
            f"{costs[:, 0].mean():.4f}, usage {usage.min()} to {usage.max()}"
        )
    components = np.rint(np.stack(rows[1:]) * 32767).astype(np.int16)
    return components, levels, prices.astype(np.float32)


def _turned(picture: np.ndarray, turn: int) -> np.ndarray:
    """The picture in one of TURNS positions."""
    flipped = picture.swapaxes(0, 1) if turn % 2 else picture
    views = (flipped, flipped[:, ::-1], flipped[::-1, ::-1], flipped)
    return np.ascontiguousarray(views[turn])


def off_grid(picture: np.ndarray) -> np.ndarray:
    """The picture without its first rows and columns, so that block edges lie in the middle of
    those of 8 x 8 pixels that a JPEG has left, if it ever was one: edges that happen to coincide
    with ours teach what no other picture has."""
    height, width = ((n - 4) // 8 * 8 for n in picture.shape[:2])
    return picture[4 : 4 + height, 4 : 4 + width]


def lessons(pictures: list[np.ndarray]) -> list[tuple[np.ndarray, float]]:
    """What there is to learn from: pictures in all positions, every time with another step."""
    return [
        (_turned(picture, turn), STEPS[(i + 3 * turn) % len(STEPS)])
        for turn in range(TURNS)
        for i, picture in enumerate(pictures)
    ]


# --- weights ---------------------------------------------------------------------------------


class Means:
    """Mean magnitudes of every class and zone."""

    def __init__(self, count: int):
        self.total, self.number = (np.zeros((count + 2, 2, ZONES)) for _ in range(2))

    def add(self, field: Field, basis) -> None:
        """Add a coded tile."""
        layout = field.layout
        for p in range(layout.planes):
            sum_magnitudes(
                field.values,
                field.lists[min(p, 1)],
                field.classes,
                p,
                layout.stride,
                layout.cells,
                basis.classes,
                self.total,
                self.number,
            )

    def solve(self) -> np.ndarray:
        """int32 (classes + 2, 2, 64), in 1/1024. A class that saw little looks like all
        together."""
        common = (self.total.sum(0) + 0.01) / (self.number.sum(0) + 1)
        means = (self.total + 1000 * common) / (self.number + 1000)
        return np.clip(np.rint(means * MEAN_SCALE), 1, 65535).astype(np.int32)


def fit_magnitudes(gram, moment, strength, known=0.0) -> np.ndarray:
    """Weights >= 0 by least squares from normal equations, (n, n) and (n), as if they had been
    observed `strength` (n) times to be `known` (n); int32, fixed point 1/4096."""
    factor = np.linalg.cholesky(gram + np.diag(strength))
    solution, _ = nnls(factor.T, np.linalg.solve(factor, moment + strength * known))
    return np.rint(np.minimum(solution, 7.9) * 4096).astype(np.int32)


def fit_signs(gram, moment, strength, known=0.0) -> np.ndarray:
    """As `fit_magnitudes`, for weights of any sign."""
    solution = np.linalg.solve(gram + np.diag(strength), moment + strength * known)
    return np.rint(np.clip(solution, -7.9, 7.9) * 4096).astype(np.int32)


def _solve(equations, basis, enough: float = 500.0) -> None:
    """Replace the basis's weights by what the equations say.

    Rows that saw little borrow from the other planes and sets.
    """
    for all_grams, all_moments, all_out, constant in (
        (equations.zone_gram, equations.zone_moment, basis.zone_weights, ZONE_CONSTANT),
        (equations.gram, equations.moment, basis.weights, CONSTANT),
    ):
        for grams, moments, out in zip(all_grams, all_moments, all_out, strict=True):
            for p, s, k in np.ndindex(*out.shape[:3]):
                gram, moment = grams[p, s, k], moments[p, s, k]
                if gram[constant, constant] < enough:
                    gram, moment = grams[:, s, k].sum(0), moments[:, s, k].sum(0)
                if gram[constant, constant] < enough:
                    gram, moment = grams[:, :, k].sum((0, 1)), moments[:, :, k].sum((0, 1))
                if gram[constant, constant] >= enough:
                    n = len(moment)
                    strength = np.full(n, 1.0 + 1e-4 * np.trace(gram) / n)
                    out[p, s, k] = fit_magnitudes(gram, moment, strength)
    grams, moments = equations.sign_gram, equations.sign_moment
    for index in np.ndindex(*grams.shape[:3]):
        strength = np.full(SIGNED, 5 + 1e-3 * np.trace(grams[index]) / SIGNED)
        basis.sign_weights[index] = fit_signs(grams[index], moments[index], strength)


def code(
    picture: np.ndarray,
    step: float,
    basis,
    *,
    levels: Levels | None = None,
    passes: int = 4,
    state=None,
    size: int = -1,
    counts=None,
    spent=None,
    equations=None,
):
    """Code a training picture as one tile; returns (field, bytes). It uses `levels`, all of its
    type if None."""
    planes = 1 if picture.ndim == 2 else 3
    field = Field(Layout(*picture.shape[:2], planes), passes)
    levels = levels_of(8 * picture.dtype.itemsize) if levels is None else levels
    scores = partition.analyse(picture, step, levels, basis, field, size=size, counts=counts)
    state = basis.state.copy() if state is None else state
    block_string, layers = kstrings.code_field(scores, step, basis, field, state, spent, equations)
    return field, len(block_string) + sum(map(len, layers))


def train_weights(work, basis, size_of=lambda i: -1) -> None:
    """Fit neighbour weights and means of `basis`, in place, to `work`, pairs of picture and step;
    `size_of(i)` forces the block size of picture i."""
    equations, means = new_equations(basis.classes), Means(basis.classes)
    for i, (picture, step) in enumerate(work):
        for passes in PLANS:
            field, _ = code(
                picture, step, basis, passes=passes, size=size_of(i), equations=equations
            )
        means.add(field, basis)
    _solve(equations, basis)
    basis.means = means.solve()
    basis.__post_init__()


def cut_counts(state: np.ndarray) -> None:
    """Cut the counts of a coder's state to TRUST, in place."""
    slots = state[: model.SLOTS]
    state[: model.SLOTS] = (slots & ~255) | np.minimum(slots & 255, TRUST)


def train_state(work, basis, size_of=lambda i: -1) -> int:
    """Run the coder over `work` and keep its state in `basis`; returns the bytes it took."""
    state, nbytes = model.fresh_state(), 0
    for i, (picture, step) in enumerate(work):
        for passes in PLANS:
            nbytes += code(picture, step, basis, passes=passes, state=state, size=size_of(i))[1]
    cut_counts(state)
    basis.state = state
    return nbytes


def train_size_costs(work, basis) -> None:
    """Fit the cost tables of block sizes, in place, to what the coder spends on each block."""
    gram = np.zeros((2, 3, partition.TERMS, partition.TERMS))
    moment = np.zeros((2, 3, partition.TERMS))
    for picture, step in work:
        for size in range(3):
            layout = Layout(*picture.shape[:2], 1 if picture.ndim == 2 else 3)
            counts = np.zeros((2, layout.rows * layout.columns, partition.TERMS), np.float32)
            spent = np.zeros((2, layout.rows * layout.columns), np.float32)
            field, _ = code(picture, step, basis, size=size, counts=counts, spent=spent)
            for kind in range(2 if layout.planes == 3 else 1):
                n = len(field.lists[kind])
                x, y = counts[kind, :n].astype(np.float64), spent[kind, :n].astype(np.float64)
                weight = 1 / (y.mean() + y)
                gram[kind, size] += (x * weight[:, None]).T @ x
                moment[kind, size] += (x * weight[:, None]).T @ y
    for index in np.ndindex(2, 3):
        if moment[index].any():
            ridge = np.eye(partition.TERMS) * 0.1
            basis.size_costs[index] = np.linalg.solve(gram[index] + ridge, moment[index])


def filter_step(number: int) -> float:
    """The step at which the filter learns from picture `number`: evenly spread on a logarithmic
    scale, by the golden ratio."""
    return 4.5 * (95 / 4.5) ** (number * 0.6180339887 % 1)


def gather_filter(equations, picture: np.ndarray, step: float, basis, levels: Levels) -> None:
    """Add a picture that uses `levels`, coded with `step`, to the equations of the restoration
    filter."""
    field, _ = code(picture, step, basis, levels=levels, passes=max(PLANS))
    planes = inverse(kstrings.dequantise(field, step, basis), field.sizes, field.layout)
    step = kstrings.step_of(field, step)
    middle = np.float32(levels.middle)
    pixels = picture.reshape(*picture.shape[:2], -1).astype(np.float32) - middle
    if len(planes) == 3:
        pixels = pixels @ colour_matrices(field.colour)[0].T
    original = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    steps = [step] * len(planes)
    restore.gather(equations, original, planes, field.sizes, field.layout, steps)


def train_restoration(work, basis) -> None:
    """Fit the filter of `basis`, in place, to the errors left in the pictures of `work`."""
    equations = restore.no_equations()
    for i, (picture, _) in enumerate(work):
        gather_filter(equations, picture, filter_step(i), basis, levels_of(8))
    basis.restoration = restore.solve(equations, restore.no_weights())


def train(pictures: list[np.ndarray], *, name: str, count: int = 31, seed: int = 1):
    """Learn a basis from pictures, uint8 (h, w) or (h, w, 3), in the given order.

    Parameters: `name` of the basis; `count` of trained classes besides the DCT, 0 to 31; `seed`.
    Returns a Basis, not yet saved.
    """
    pictures = [off_grid(picture) for picture in pictures if min(picture.shape[:2]) >= 40]
    work = lessons(pictures)
    basis = bases.untrained()
    if count:
        basis.components, basis.levels, basis.prices = train_classes(pictures, count, seed)
        basis.means = np.concatenate([np.repeat(basis.means[:1], count, axis=0), basis.means])
        small = np.repeat(basis.sign_weights[:, :, :ZONES], count, axis=2)
        basis.sign_weights = np.ascontiguousarray(
            np.concatenate([small, basis.sign_weights], axis=2)
        )
        basis.__post_init__()
    some = work[::8]
    cycle = lambda i: i % 3  # noqa: E731
    train_weights(some, basis, cycle)
    report("first weights, from blocks of one size a picture")
    report(f"first state: {train_state(some, basis, cycle)} bytes")
    train_size_costs(work[4::16], basis)
    report("size costs")
    for part in (work[1::6], work):
        train_weights(work[::4], basis)
        report("weights")
        report(f"state: {train_state(part, basis)} bytes")
    # The filter's equations are turned and mirrored by themselves.
    train_restoration(work[: len(pictures)], basis)
    report("restoration")
    basis.name = name
    return basis
