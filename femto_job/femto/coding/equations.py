"""Normal equations of the coder's predictors, filled while training pictures are coded."""

from typing import NamedTuple

import numpy as np

from .contexts import (
    LARGE_SIGN_KEYS,
    MAGNITUDES,
    PASSES,
    SETS,
    SIGNED,
    ZONE_FEATURES,
)
from .kernels import f64, inlined
from .model import GROUP, GROUPS, PLANES, ZONES

LARGEST = 64.0
"""Larger magnitudes count as this much: a few of them would rule the rest."""


class Equations(NamedTuple):
    """Sums of xᵀx and xᵀy of zones' mean magnitudes, of scores' magnitudes and of their signs."""

    zone_gram: f64[:, :, :, :, :, :]
    zone_moment: f64[:, :, :, :, :]
    gram: f64[:, :, :, :, :, :]
    moment: f64[:, :, :, :, :]
    sign_gram: f64[:, :, :, :, :]
    sign_moment: f64[:, :, :, :]
    x: f64[:]


def new_equations(classes: int) -> Equations:
    """Empty equations for a basis of so many classes."""
    zone = (PASSES, PLANES, SETS, ZONES, ZONE_FEATURES)
    size = (PASSES, PLANES, SETS, GROUPS, MAGNITUDES)
    sign = (PASSES, PLANES, classes * ZONES + LARGE_SIGN_KEYS, SIGNED)
    arrays = []
    for shape in (zone, size, sign):
        arrays += [np.zeros((*shape, shape[-1])), np.zeros(shape)]
    return Equations(*arrays, np.zeros(max(zone[-1], size[-1], sign[-1])))


@inlined
def _add(x, n, target, weight, gram, moment):
    for i in range(n):
        if x[i] != 0:
            y = x[i] * weight
            moment[i] += y * target
            for j in range(n):
                gram[i, j] += y * x[j]


@inlined
def gather_zone(equations, g, b, estimate, total):
    """Add a zone whose magnitudes sum to `total`; errors count in relation to the variance that
    a magnitude of the estimated size has."""
    for e in range(ZONE_FEATURES):
        equations.x[e] = g[e] / 16
    mean = max(estimate / 65536, 0.0) + 0.02
    _add(
        equations.x,
        ZONE_FEATURES,
        min(total / (1 << (2 * b.s)), LARGEST),
        1 / (mean + mean * mean / 2),
        equations.zone_gram[b.refining, b.p, b.which, b.z],
        equations.zone_moment[b.refining, b.p, b.which, b.z],
    )


@inlined
def gather_magnitude(equations, learned, g, b, k, size):
    """Add the magnitude of score number k."""
    q = GROUP[b.s, k]
    estimate = np.int64(0)
    for e in range(MAGNITUDES):
        equations.x[e] = g[e] / 16
        estimate += g[e] * learned.weights[b.refining, b.p, b.which, q, e]
    mean = max(estimate / 65536, 0.0) + 0.03
    _add(
        equations.x,
        MAGNITUDES,
        min(size, LARGEST),
        1 / (mean + mean * mean / 2),
        equations.gram[b.refining, b.p, b.which, q],
        equations.moment[b.refining, b.p, b.which, q],
    )


@inlined
def gather_sign(equations, f, b, key, value):
    """Add the signed value (in 1/64 steps) of a score whose sign weights have the row `key`."""
    for e in range(SIGNED):
        equations.x[e] = f[e] / 64
    _add(
        equations.x,
        SIGNED,
        value / 64,
        1.0,
        equations.sign_gram[b.refining, b.p, key],
        equations.sign_moment[b.refining, b.p, key],
    )
