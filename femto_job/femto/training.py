"""Learning a basis from pictures: block classes, neighbour weights, the coder's state.

Three stages, each on what the one before it has learned:

1. *Classes*: SVD bases of clusters of blocks, chosen and updated for code length.
2. *Weights*: how the magnitudes and signs around a score predict it (least squares, non-negative
   for magnitudes).
3. *State*: the adaptive models are run over the pictures once; what they have learned ships.

Deterministic for given pictures, in a given order, and a seed.
"""

import sys

import numpy as np
from scipy.optimize import linear_sum_assignment, nnls

from . import blocks, classes, kstrings
from .jit import njit
from .kstrings import (
    GROUPS,
    LOW,
    MAGNITUDES,
    PLANES,
    SETS,
    SIGNED,
    SUB,
    ZONE_FEATURES,
    ZONE_THRESHOLD,
    Field,
    magnitude_features,
    note,
    signed_features,
    zone_features,
)

STEPS = (9.0, 15.0, 24.0, 38.0, 12.0, 20.0, 30.0)
"""Quantiser steps at which the training pictures are coded, in turn."""


def report(line: str) -> None:
    """Progress, for whoever watches a training run."""
    print(line, file=sys.stderr, flush=True)


@njit
def _accumulate(g, n, target, weight, gram, moment):
    for i in range(n):
        if g[i] != 0:
            x = g[i] * weight
            moment[i] += x * target
            for j in range(n):
                gram[i, j] += x * g[j]


@njit
def _gather(coded, values, magnitudes, zones, borders, energy, expected, classes, shape,
            frequency_steps, zone_steps, used, edges, means, zone_means, zone_weights, weights,
            sign_weights, group, low_of, zone_gram, zone_moment, gram, moment, sign_gram,
            sign_moment):  # fmt: skip
    """Walk a coded tile as the coder does and add every prediction to the normal equations."""
    planes, rows, columns, stride, cells = shape
    g = np.zeros(32, np.int64)
    f = np.zeros(SIGNED, np.int64)
    same = np.zeros(4, np.bool_)
    x = np.zeros(32, np.float64)
    for z in range(64):
        for p in range(planes):
            if z >= used[p]:
                continue
            kind = min(p, 1)
            for by in range(rows):
                for bx in range(columns):
                    cell = (by + 2) * stride + bx + 2
                    plane_cell = p * cells + cell
                    zone_at = (p * 65 + z) * cells + cell
                    c = np.int64(classes[cell])
                    trained = 1 if c > 0 else 0
                    total = np.int64(0)
                    for i in range(SUB):
                        if z + i > 0:
                            total += abs(coded[zone_at * SUB + i])
                    open_zone = True
                    if z > 0:
                        zone_features(g, zones, zone_at, p, z, stride, cells, zone_steps, energy,
                                      expected, plane_cell, zone_means[c, kind, z])  # fmt: skip
                        estimate = np.int64(0)
                        for i in range(ZONE_FEATURES):
                            x[i] = g[i] / 16
                            estimate += g[i] * zone_weights[p, trained, z, i]
                        estimate >>= 8
                        mu = max(estimate / 256, 0.0) + 0.03
                        _accumulate(x, ZONE_FEATURES, min(total, 64), 1 / (mu + mu * mu / 2),
                                    zone_gram[p, trained, z], zone_moment[p, trained, z])  # fmt: skip
                        open_zone = estimate >= ZONE_THRESHOLD or total > 0
                        if not open_zone:
                            expected[plane_cell] += zone_means[c, kind, z]
                            continue
                    for i in range(4):
                        there = cell - 1 - (i > 0) * (stride - 1)
                        if i == 2:
                            there = cell - stride - 1
                        elif i == 3:
                            there = cell - stride + 1
                        same[i] = classes[there] == c
                    in_zone = 0
                    for sub in range(SUB):
                        k = z * SUB + sub
                        at = zone_at * SUB + sub
                        dc = k == 0
                        low = low_of[k]
                        e = max(low, 0)
                        value = np.int64(coded[at])
                        prediction = np.int64(0)
                        if low >= 0:
                            signed_features(f, values, borders, at, cell, p, stride, cells,
                                            edges[c, e], same, dc)  # fmt: skip
                            for i in range(SIGNED):
                                prediction += f[i] * sign_weights[p, c, e, i]
                                x[i] = f[i] / 64
                            prediction >>= 12
                            _accumulate(x, SIGNED, value, 1.0, sign_gram[p, c, e],
                                        sign_moment[p, c, e])  # fmt: skip
                        offset = (prediction + 32) >> 6 if dc else np.int64(0)
                        mean = np.int64(means[c, kind, k])
                        magnitude_features(g, magnitudes, zones, at, zone_at, p, k, stride, cells,
                                           frequency_steps, energy, expected, plane_cell,
                                           mean)  # fmt: skip
                        if not dc:
                            g[26] = min(abs(prediction), 1 << 20) >> 2
                        q = group[k]
                        estimate = np.int64(0)
                        for i in range(MAGNITUDES):
                            x[i] = g[i] / 16
                            estimate += g[i] * weights[p, trained, q, i]
                        mu = max(estimate / 65536, 0.0) + 0.03
                        size = min(abs(value - offset), 64)
                        _accumulate(x, MAGNITUDES, size, 1 / (mu + mu * mu / 2),
                                    gram[p, trained, q], moment[p, trained, q])  # fmt: skip
                        note(value, values, magnitudes, borders, energy, expected, at, cell, p,
                             cells, edges[c, e], low, mean, value - offset)  # fmt: skip
                        if not dc:
                            in_zone += abs(value)
                    zones[zone_at] = min(in_zone, 255)


class _Equations:
    """Normal equations of all predictors."""

    def __init__(self, classes: int):
        self.zone = (np.zeros((PLANES, SETS, 64, ZONE_FEATURES, ZONE_FEATURES)),
                     np.zeros((PLANES, SETS, 64, ZONE_FEATURES)))  # fmt: skip
        self.size = (np.zeros((PLANES, SETS, GROUPS, MAGNITUDES, MAGNITUDES)),
                     np.zeros((PLANES, SETS, GROUPS, MAGNITUDES)))  # fmt: skip
        self.sign = (np.zeros((PLANES, classes, LOW, SIGNED, SIGNED)),
                     np.zeros((PLANES, classes, LOW, SIGNED)))  # fmt: skip

    def add(self, coded: Field, used: np.ndarray, basis) -> None:
        field = Field(coded.planes, coded.rows, coded.columns)
        _gather(coded.values, field.values, field.magnitudes, field.zones, field.borders,
                field.energy, field.expected, coded.classes, field.shape, field.frequency_steps,
                field.zone_steps, used, basis.edges, basis.means, basis.zone_means,
                basis.zone_weights, basis.weights, basis.sign_weights, kstrings.GROUP,
                kstrings.LOW_OF, *self.zone, *self.size, *self.sign)  # fmt: skip


def _non_negative(gram: np.ndarray, moment: np.ndarray, ridge: float) -> np.ndarray:
    """Solve least squares with weights >= 0 from normal equations; fixed point 1/4096."""
    n = len(moment)
    gram = gram + np.eye(n) * (ridge + 1e-4 * np.trace(gram) / n)
    factor = np.linalg.cholesky(gram)
    solution, _ = nnls(factor.T, np.linalg.solve(factor, moment))
    return np.rint(np.minimum(solution, 7.9) * 4096).astype(np.int32)


def _solve(equations: _Equations, basis, enough: float = 30.0) -> None:
    """Replace the basis's weights by the solutions; rows that saw little borrow from others."""
    for (grams, moments), out in (
        (equations.zone, basis.zone_weights),
        (equations.size, basis.weights),
    ):
        constant = 21 if out is basis.zone_weights else 23
        for p in range(PLANES):
            for s in range(SETS):
                for k in range(out.shape[2]):
                    gram, moment = grams[p, s, k], moments[p, s, k]
                    if gram[constant, constant] < enough:
                        # Unused in this plane or set: what all planes and sets know together.
                        gram, moment = grams[:, :, k].sum((0, 1)), moments[:, :, k].sum((0, 1))
                    if gram[constant, constant] >= enough:
                        out[p, s, k] = _non_negative(gram, moment, 1.0)
    grams, moments = equations.sign
    for index in np.ndindex(*grams.shape[:3]):
        gram = grams[index] + np.eye(SIGNED) * (5 + 1e-3 * np.trace(grams[index]) / SIGNED)
        weights = np.linalg.solve(gram, moments[index])
        basis.sign_weights[index] = np.rint(np.clip(weights, -7.9, 7.9) * 4096)


def _blocks_of(tiles) -> np.ndarray:
    """The low luma scores of every block of the tiles, float32 (n, 63), in coding order."""
    low = kstrings.LOW_SCORES[1:]
    return np.concatenate(
        [s[0].transpose(1, 2, 0, 3).reshape(-1, 256)[:, low] for s, _ in tiles]
    )


def _orientation(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angle (0 to pi) and coherence (0 to 1) of blocks given by their low scores (n, 63), from
    the structure tensor of the 8 x 8 picture that these scores make."""
    u, v = kstrings.FREQUENCY[kstrings.LOW_SCORES[1:]].T
    cosines = blocks.dct_matrix(8)
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


def train_classes(tiles, count: int, seed: int = 1, iterations: int = 8, limit: int = 80_000):
    """Learn `count` classes besides the DCT from the tiles' luma blocks.

    Alternates between assigning blocks to the class in which they cost least and recomputing
    each class's SVD basis and mean magnitudes ("likelihood training").
    Returns (components int16 (count, 63, 63), levels (count + 1, 63), prices (count + 1)).
    """
    rng = np.random.default_rng(seed)
    x = _blocks_of(tiles)
    x = x[(np.abs(x) > 6).any(1)]
    x = x[np.sort(rng.permutation(len(x))[:limit])]
    steps = np.array([9.0, 15.0, 25.0, 40.0])[rng.integers(0, 4, len(x))]
    angle, coherence = _orientation(x)
    own = np.where(coherence < 0.5, 0, 1 + (angle / np.pi * count).astype(int) % count)
    rows = [np.eye(63)] * (count + 1)
    levels = np.zeros((count + 1, 63), np.int32)
    prices = np.full(count + 1, np.log2(count + 1))
    for iteration in range(iterations + 1):
        costs = np.empty((len(x), count + 1), np.float32)
        for c in range(count + 1):
            mine = own == c
            if c > 0 and mine.sum() >= 100:
                rows[c] = _svd_basis(x[mine], steps[mine])
            magnitudes = np.abs(x[mine] @ rows[c].T)
            common = np.abs(x).mean(0)
            mean = (magnitudes.sum(0) + 50 * common) / (len(magnitudes) + 50)
            levels[c] = classes.levels_of(mean)
            costs[:, c] = classes.patch_costs(
                np.ascontiguousarray(x @ rows[c].T.astype(np.float32)), steps, levels[c]
            ) + classes.TRADE * prices[c]  # fmt: skip
        own = costs.argmin(1)
        usage = np.bincount(own, minlength=count + 1)
        prices = -np.log2((usage + 50) / (len(x) + 50 * (count + 1)))
        report(f"classes {iteration}: cost {costs.min(1).mean():.4f}, DCT alone "
               f"{costs[:, 0].mean():.4f}, usage {usage.min()} to {usage.max()}")  # fmt: skip
    components = np.rint(np.stack(rows[1:]) * 32767).astype(np.int16)
    return components, levels, prices


MEAN_SCALE = 1024


def train_means(tiles, basis) -> None:
    """Measure what each class expects of its components: mean quantised magnitudes."""
    total = np.zeros((basis.classes, 2, 256))
    count = np.zeros((basis.classes, 2))
    for scores, step in tiles:
        work = scores.copy()
        chosen = basis.classify(work, step)
        field = Field(*work.shape[:1], *work.shape[2:4])
        field.inner_classes()[...] = chosen
        kstrings.rotate(work, field.classes, field.stride, basis.forward, kstrings.LOW_SCORES)
        sizes = np.floor(np.abs(work) / step + 0.4).transpose(0, 2, 3, 1, 4).reshape(
            len(work), -1, 256)  # fmt: skip
        for c in range(basis.classes):
            mine = chosen.ravel() == c
            for p in range(len(work)):
                total[c, min(p, 1)] += np.minimum(sizes[p, mine], 64).sum(0)
                count[c, min(p, 1)] += mine.sum()
    # A class that saw little looks like all classes together.
    common = (total.sum(0) + 0.01) / (count.sum(0)[:, None] + 1)
    means = (total + 200 * common) / (count[:, :, None] + 200)
    basis.means = np.clip(np.rint(means * MEAN_SCALE), 1, 65535).astype(np.int32)
    basis.__post_init__()


def train_weights(tiles: list[tuple[np.ndarray, float]], basis, passes: int = 2) -> None:
    """Fit the neighbour weights of `basis`, in place, to tiles given as (scores, step)."""
    for _ in range(passes):
        equations = _Equations(basis.classes)
        for scores, step in tiles:
            work = scores.copy()
            classes = basis.classify(work, step)
            field, used, _, _ = kstrings.code_field(work, step, basis, classes, basis.state.copy())
            equations.add(field, used, basis)
        _solve(equations, basis)


def train_state(tiles: list[tuple[np.ndarray, float]], basis, trust: int = 30) -> int:
    """Run the coder over the tiles and keep its state in `basis`; returns the bytes it took.

    Counts are cut to `trust`, so that a new picture can still change what was learned.
    """
    state, nbytes = kstrings.fresh_state(), 0
    for scores, step in tiles:
        work = scores.copy()
        classes = basis.classify(work, step)
        _, _, block_string, layers = kstrings.code_field(work, step, basis, classes, state)
        nbytes += len(block_string) + sum(map(len, layers))
    slots = state[: kstrings.SLOTS]
    np.minimum(slots & 255, trust, out=(counts := np.empty_like(slots)))
    state[: kstrings.SLOTS] = (slots & ~255) | counts
    basis.state = state
    return nbytes
