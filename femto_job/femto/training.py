"""Learning a basis from pictures: block classes, size costs, neighbour weights, coder state.

Stages, each on what those before it have learned:

1. *Classes*: SVD bases of clusters of small blocks, chosen and updated for code length.
2. *Size costs*: what blocks of each size cost in the coder, as tables of their scores.
3. *Weights*: how the magnitudes and signs around a score predict it (least squares, non-negative
   for magnitudes).
4. *State*: the adaptive models are run over the pictures once; what they have learned ships.

Deterministic for given pictures, in a given order, and a seed.
"""

import sys

import numpy as np
from scipy.optimize import linear_sum_assignment, nnls

from . import bases, classes, kstrings, model, partition
from .blocks import DCT, ZIGZAG, ZONES, Layout, dct_matrix
from .contexts import (
    LARGE_SIGN_KEYS,
    MAGNITUDES,
    SETS,
    SIGNED,
    ZONE_FEATURES,
    Field,
    block_at,
    close_zone,
    draw_lines,
    magnitude_features,
    sign_key,
    signed_features,
    zone_features,
)
from .jit import njit
from .kstrings import ZONE_THRESHOLD
from .model import GROUP, GROUPS, PLANES

STEPS = (9.0, 15.0, 24.0, 38.0, 12.0, 20.0, 30.0)
"""Quantiser steps at which the training pictures are coded, in turn."""
MEAN_SCALE = 1024


def report(line: str) -> None:
    """Progress, for whoever watches a training run."""
    print(line, file=sys.stderr, flush=True)


# --- classes ---------------------------------------------------------------------------------


def _small_blocks(pictures: list[np.ndarray]) -> np.ndarray:
    """Luma DCT scores 1 … 63 (zigzag) of every 8 x 8 block, float32 (n, 63)."""
    out = []
    for picture in pictures:
        luma = picture.astype(np.float64).reshape(*picture.shape[:2], -1)
        luma = luma.sum(axis=2) / np.sqrt(luma.shape[2])
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


def _svd_basis(x: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Orthonormal components (63, 63), row = component, of weighted blocks (n, 63).

    Busy blocks would otherwise rule: each is weighted by the inverse of its size, with the step
    as a floor. The covariance is shrunk towards a diagonal one, which is the DCT's.
    """
    weight = 1 / np.sqrt((x**2).mean(1) + 0.3 * steps**2)
    weighted = x.astype(np.float64) * weight[:, None]
    covariance = weighted.T @ weighted / len(x)
    shrink = 200 / (200 + len(x))
    covariance = (1 - shrink) * covariance + shrink * np.diag(np.diag(covariance))
    rows = np.linalg.eigh(covariance)[1].T[::-1]
    # Component and frequency meet where they are most alike, so that a trained component has
    # the place, and the neighbours, of its dominant frequency.
    place, row = linear_sum_assignment(-(rows**2).T)
    rows = rows[row[np.argsort(place)]]
    return rows * np.sign(rows[np.arange(63), np.abs(rows).argmax(1)])[:, None]


def train_classes(pictures, count: int, seed: int = 1, iterations: int = 10, limit: int = 150_000):
    """Learn `count` classes besides the DCT from the pictures' small luma blocks.

    Alternates between assigning blocks to the class in which they cost least and recomputing
    each class's SVD basis and mean magnitudes ("likelihood training").
    Returns (components int16 (count, 63, 63), levels (count + 1, 63), prices (count + 1)).
    """
    rng = np.random.default_rng(seed)
    x = _small_blocks(pictures)
    x = x[(np.abs(x) > 6).any(1)]
    x = x[np.sort(rng.permutation(len(x))[:limit])]
    steps = np.array([9.0, 15.0, 25.0, 40.0])[rng.integers(0, 4, len(x))]
    angle, coherence = _orientation(x)
    own = np.where(coherence < 0.5, 0, 1 + (angle / np.pi * count).astype(int) % count)
    rows = [np.eye(63)] * (count + 1)
    levels = np.zeros((count + 1, 63), np.int32)
    prices = np.full(count + 1, np.log2(count + 1))
    common = np.abs(x).mean(0)
    for iteration in range(iterations + 1):
        costs = np.empty((len(x), count + 1), np.float32)
        for c in range(count + 1):
            mine = own == c
            if c > 0 and mine.sum() >= 100:
                rows[c] = _svd_basis(x[mine], steps[mine])
            magnitudes = np.abs(x[mine] @ rows[c].T)
            mean = (magnitudes.sum(0) + 50 * common) / (len(magnitudes) + 50)
            levels[c] = classes.levels_of(mean)
            costs[:, c] = (
                classes.patch_costs(
                    np.ascontiguousarray(x @ rows[c].T.astype(np.float32)), steps, levels[c]
                )
                + classes.TRADE * prices[c]
            )
        own = costs.argmin(1)
        usage = np.bincount(own, minlength=count + 1)
        prices = -np.log2((usage + 50) / (len(x) + 50 * (count + 1)))
        report(
            f"classes {iteration}: cost {costs.min(1).mean():.4f}, DCT alone "
            f"{costs[:, 0].mean():.4f}, usage {usage.min()} to {usage.max()}"
        )
    components = np.rint(np.stack(rows[1:]) * 32767).astype(np.int16)
    return components, levels, prices.astype(np.float32)


# --- weights ---------------------------------------------------------------------------------


@njit
def _accumulate(x, n, target, weight, gram, moment):
    for i in range(n):
        if x[i] != 0:
            y = x[i] * weight
            moment[i] += y * target
            for j in range(n):
                gram[i, j] += y * x[j]


@njit
def _gather(
    coded,
    t,
    learned,
    used,
    zone_gram,
    zone_moment,
    gram,
    moment,
    sign_gram,
    sign_moment,
    mean_sum,
    mean_count,
):
    """Walk a tile whose values are `coded` as the coder does, with the fresh field t, and add
    every prediction to the normal equations."""
    stride, classes = t.stride, len(learned.edges)
    g = np.zeros(32, np.int64)
    f = np.zeros(SIGNED, np.int64)
    x = np.zeros(32, np.float64)
    for z in range(64):
        for p in range(t.planes):
            listed = t.luma_list if p == 0 else t.chroma_list
            for index in range(len(listed)):
                b = block_at(t, learned, listed, index, p, z)
                cell, s, plane_cell = b.cell, b.s, b.plane_cell
                r = 1 << s
                inside = r * r
                total = np.int64(0)
                for sub in range(inside):
                    if z + sub > 0:
                        total += abs(
                            coded[b.zone_base + cell + (sub >> s) * stride + (sub & (r - 1))]
                        )
                row = b.c if s == 0 else classes - 1 + s
                mean_sum[row, min(p, 1), z] += min(total, 64 * inside)
                mean_count[row, min(p, 1), z] += inside
                if z >= used[p]:
                    continue
                if z > 0:
                    zone_features(g, t, b)
                    estimate = np.int64(0)
                    for e in range(ZONE_FEATURES):
                        x[e] = g[e] / 16
                        estimate += g[e] * learned.zone_weights[p, b.which, z, e]
                    mu = max(estimate / 65536, 0.0) + 0.02
                    _accumulate(
                        x,
                        ZONE_FEATURES,
                        min(total / inside, 64.0),
                        1 / (mu + mu * mu / 2),
                        zone_gram[p, b.which, z],
                        zone_moment[p, b.which, z],
                    )
                    if ((estimate << (2 * s)) >> 8) < ZONE_THRESHOLD and total == 0:
                        continue
                in_zone = np.int64(0)
                for sub in range(inside):
                    i = sub >> s
                    j = sub & (r - 1)
                    k = z * inside + sub
                    at = b.zone_base + cell + i * stride + j
                    dc = k == 0
                    value = np.int64(coded[at])
                    prediction = np.int64(0)
                    key = sign_key(b.c, classes, z, s, sub)
                    if key >= 0:
                        signed_features(f, t, learned, b, i, j)
                        for e in range(SIGNED):
                            prediction += f[e] * learned.sign_weights[p, key, e]
                            x[e] = f[e] / 64
                        prediction >>= 12
                        _accumulate(x, SIGNED, value, 1.0, sign_gram[p, key], sign_moment[p, key])
                    offset = (prediction + 32) >> 6 if dc else np.int64(0)
                    magnitude_features(g, t, b, i, j, k)
                    if not dc:
                        g[26] = min(abs(prediction), 1 << 20) >> 2
                    q = GROUP[s, k]
                    estimate = np.int64(0)
                    for e in range(MAGNITUDES):
                        x[e] = g[e] / 16
                        estimate += g[e] * learned.weights[p, b.which, q, e]
                    mu = max(estimate / 65536, 0.0) + 0.03
                    size = min(abs(value - offset), 64)
                    _accumulate(
                        x,
                        MAGNITUDES,
                        size,
                        1 / (mu + mu * mu / 2),
                        gram[p, b.which, q],
                        moment[p, b.which, q],
                    )
                    t.magnitudes[at] = min(abs(value - offset), 255)
                    t.values[at] = value
                    if dc:
                        for y in range(r):
                            for e in range(r):
                                t.means[plane_cell + y * stride + e] = (value << 6) >> s
                    else:
                        in_zone += abs(value)
                    if value != 0 and key >= 0:
                        draw_lines(value, t, learned, b, i, j)
                if in_zone > 0:
                    close_zone(in_zone, t, b)


class _Equations:
    """Normal equations of all predictors, and the sums behind a basis's means."""

    def __init__(self, count: int):
        keys = count * ZONES + LARGE_SIGN_KEYS
        self.zone = (
            np.zeros((PLANES, SETS, ZONES, ZONE_FEATURES, ZONE_FEATURES)),
            np.zeros((PLANES, SETS, ZONES, ZONE_FEATURES)),
        )
        self.size = (
            np.zeros((PLANES, SETS, GROUPS, MAGNITUDES, MAGNITUDES)),
            np.zeros((PLANES, SETS, GROUPS, MAGNITUDES)),
        )
        self.sign = (np.zeros((PLANES, keys, SIGNED, SIGNED)), np.zeros((PLANES, keys, SIGNED)))
        self.means = (np.zeros((count + 2, 2, ZONES)), np.zeros((count + 2, 2, ZONES)))

    def add(self, coded: Field, used: np.ndarray, basis) -> None:
        """Add the predictions of a coded tile."""
        field = Field(coded.layout)
        field.sizes, field.classes, field.lists = coded.sizes, coded.classes, coded.lists
        _gather(
            coded.values,
            field.tile(),
            basis.learned,
            used,
            *self.zone,
            *self.size,
            *self.sign,
            *self.means,
        )


def _non_negative(gram: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """Solve least squares with weights >= 0 from normal equations; fixed point 1/4096."""
    n = len(moment)
    gram = gram + np.eye(n) * (1.0 + 1e-4 * np.trace(gram) / n)
    factor = np.linalg.cholesky(gram)
    solution, _ = nnls(factor.T, np.linalg.solve(factor, moment))
    return np.rint(np.minimum(solution, 7.9) * 4096).astype(np.int32)


def _solve(equations: _Equations, basis, enough: float = 500.0) -> None:
    """Replace the basis's weights and means by what the equations say.

    Rows that saw little borrow from the other planes and sets.
    """
    for (grams, moments), out, constant in (
        (equations.zone, basis.zone_weights, 20),
        (equations.size, basis.weights, 23),
    ):
        for p, s, k in np.ndindex(*out.shape[:3]):
            gram, moment = grams[p, s, k], moments[p, s, k]
            if gram[constant, constant] < enough:
                gram, moment = grams[:, s, k].sum(0), moments[:, s, k].sum(0)
            if gram[constant, constant] < enough:
                gram, moment = grams[:, :, k].sum((0, 1)), moments[:, :, k].sum((0, 1))
            if gram[constant, constant] >= enough:
                out[p, s, k] = _non_negative(gram, moment)
    grams, moments = equations.sign
    for index in np.ndindex(*grams.shape[:2]):
        gram = grams[index] + np.eye(SIGNED) * (5 + 1e-3 * np.trace(grams[index]) / SIGNED)
        weights = np.linalg.solve(gram, moments[index])
        basis.sign_weights[index] = np.rint(np.clip(weights, -7.9, 7.9) * 4096)
    total, count = equations.means
    # A class that saw little looks like all classes together.
    common = (total.sum(0) + 0.01) / (count.sum(0) + 1)
    means = (total + 1000 * common) / (count + 1000)
    basis.means = np.clip(np.rint(means * MEAN_SCALE), 1, 65535).astype(np.int32)
    basis.__post_init__()


def code(
    picture: np.ndarray, step: float, basis, *, state=None, size: int = -1, counts=None, spent=None
):
    """Code a training picture as one tile; returns (field, used zones, bytes)."""
    planes = 1 if picture.ndim == 2 else 3
    field = Field(Layout(*picture.shape[:2], planes))
    scores = partition.analyse(picture, step, 8, basis, field, size=size, counts=counts)
    used, block_string, layers = kstrings.code_field(
        scores, step, basis, field, basis.state.copy() if state is None else state, spent
    )
    return field, used, len(block_string) + sum(map(len, layers))


def train_weights(work, basis, size_of=lambda i: -1) -> None:
    """Fit neighbour weights and means of `basis`, in place, to `work`, pairs of picture and step;
    `size_of(i)` forces the block size of picture i."""
    equations = _Equations(basis.classes)
    for i, (picture, step) in enumerate(work):
        field, used, _ = code(picture, step, basis, size=size_of(i))
        equations.add(field, used, basis)
    _solve(equations, basis)


def train_state(work, basis, size_of=lambda i: -1, trust: int = 30) -> int:
    """Run the coder over `work` and keep its state in `basis`; returns the bytes it took.

    Counts are cut to `trust`, so that a new picture can still change what was learned.
    """
    state, nbytes = model.fresh_state(), 0
    for i, (picture, step) in enumerate(work):
        nbytes += code(picture, step, basis, state=state, size=size_of(i))[2]
    slots = state[: model.SLOTS]
    state[: model.SLOTS] = (slots & ~255) | np.minimum(slots & 255, trust)
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
            field, _, _ = code(picture, step, basis, size=size, counts=counts, spent=spent)
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


def train(pictures: list[np.ndarray], *, name: str, count: int = 31, seed: int = 1):
    """Learn a basis from pictures, uint8 (h, w) or (h, w, 3), in the given order.

    Parameters: `name` of the basis; `count` of trained classes besides the DCT, 0 to 31; `seed`.
    Returns a Basis, not yet saved.
    """
    work = [(picture, STEPS[i % len(STEPS)]) for i, picture in enumerate(pictures)]
    basis = bases.untrained()
    if count:
        basis.components, basis.levels, basis.prices = train_classes(pictures, count, seed)
        basis.means = np.concatenate([np.repeat(basis.means[:1], count, axis=0), basis.means])
        small = np.repeat(basis.sign_weights[:, :ZONES], count, axis=1)
        basis.sign_weights = np.ascontiguousarray(
            np.concatenate([small, basis.sign_weights], axis=1)
        )
        basis.__post_init__()
    some = work[::4]
    cycle = lambda i: i % 3  # noqa: E731
    train_weights(some, basis, cycle)
    report("first weights, from blocks of one size a picture")
    report(f"first state: {train_state(some, basis, cycle)} bytes")
    train_size_costs(work[2::8], basis)
    report("size costs")
    for part in (work[1::3], work):
        train_weights(work[::2], basis)
        report("weights")
        report(f"state: {train_state(part, basis)} bytes")
    basis.name = name
    return basis
