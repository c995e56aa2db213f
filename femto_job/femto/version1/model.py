"""The coder's model: which contexts there are and where each lies in the adaptive state.

See `entropy` for slots, weights and maps, and `kstrings` for what the contexts mean.
"""

import numpy as np

from .blocks import SIZES, ZIGZAG, ZONES
from .entropy import APM_BINS

PLANES = 3
CLASSES = 32
"""Most classes that a basis may have."""


def _groups() -> tuple[np.ndarray, int]:
    """Scores that share statistics, (sizes, 1024): by zone, but in zone 0 each on its own."""
    group = np.empty((SIZES, 1024), np.int64)
    total = ZONES - 1
    for s in range(SIZES):
        inside = 4**s
        group[s] = np.arange(1024) // inside - 1
        group[s, :inside] = total + np.arange(inside)
        total += inside
    return group, total


GROUP, GROUPS = _groups()
BAND = np.array([0 if a + b == 0 else min(a + b, 14) // 2 for a, b in ZIGZAG], np.int64)
"""Eight bands of zones, by a + b."""

LEVELS = 24
_LEVEL_ENDS = [2, 4, 7, 11, 17, 26, 38, 54, 75, 102, 135, 175, 225, 290, 370, 480, 640, 880, 1250,
               1850, 2900, 4800, 8500]  # fmt: skip
_SUM_ENDS = [5, 14, 30, 46, 62, 78, 94, 126, 158, 206, 270, 366, 510, 766, 1278]
LEVEL_LIMIT, SUM_LIMIT = 16384, 2048
LEVEL = np.concatenate(
    [
        np.searchsorted(_LEVEL_ENDS, np.arange(LEVEL_LIMIT), side="right"),
        np.searchsorted(_SUM_ENDS, np.arange(SUM_LIMIT), side="right"),
    ]
).astype(np.int16)
"""Quantisers of the contexts: 24 levels of magnitudes in 1/256, then 16 of sums in 1/16."""

STEPS = 8
"""Kinds of decision about a magnitude: > 0, > 1, > 2, > 3, > 4…5, > 6…8, > 9…12, > 13…19."""
KINDS = PLANES * STEPS
_CONTEXTS = [
    GROUPS * 16,
    GROUPS * 16,
    16 * 16 * 8 * 8,
    GROUPS * LEVELS,
    SIZES * 8 * 16 * 12,
    16 * 8 * 8 * 8,
    GROUPS * 12 * 12,
    243 * 8 * SIZES,
]
INPUTS = len(_CONTEXTS)
_SIGN_CONTEXTS = [GROUPS * 24, 24 * 9 * 3, GROUPS * 9, GROUPS * 9, GROUPS * 27, 24 * 9 * 3]
SIGN_INPUTS = len(_SIGN_CONTEXTS)
_ZONE_CONTEXTS = [
    SIZES * ZONES * LEVELS,
    ZONES * 64,
    SIZES * LEVELS * 16 * 8,
    SIZES * 8 * 12 * 16,
    ZONES * LEVELS,
]
ZONE_INPUTS = len(_ZONE_CONTEXTS)
CLASS_INPUTS = 3
SPLIT_INPUTS = 3


def _layout() -> tuple[dict[str, int], int, int, int]:
    """Offsets of every part of the state, and the numbers of slots, weights and maps."""
    at, total = {}, 0

    def add(name: str, size: int) -> None:
        nonlocal total
        at[name] = total
        total += size

    for i, size in enumerate(_CONTEXTS):
        add(f"context{i}", size * KINDS)
    for i, size in enumerate(_SIGN_CONTEXTS):
        add(f"sign{i}", size * PLANES)
    for i, size in enumerate(_ZONE_CONTEXTS):
        add(f"zone{i}", size * PLANES)
    add("golomb", 2 * 64)
    for i in range(CLASS_INPUTS):
        add(f"class{i}", CLASSES * (CLASSES + 1))
    for i in range(SPLIT_INPUTS):
        add(f"split{i}", 2 * 2 * 4 * 4 * 4 * 4)
    slots = total
    add("weights_level", KINDS * LEVELS * (INPUTS + 1))
    add("weights_group", KINDS * GROUPS * (INPUTS + 1))
    add("weights_sign_level", PLANES * LEVELS * (SIGN_INPUTS + 1))
    add("weights_sign_group", PLANES * GROUPS * (SIGN_INPUTS + 1))
    add("weights_zone_level", PLANES * LEVELS * (ZONE_INPUTS + 1))
    add("weights_zone", PLANES * ZONES * (ZONE_INPUTS + 1))
    add("weights_class", 2 * CLASSES * (CLASS_INPUTS + 1))
    add("weights_split", 4 * (SPLIT_INPUTS + 1))
    weights = total - slots
    add("apm_level", KINDS * LEVELS * APM_BINS)
    add("apm_group", KINDS * GROUPS * APM_BINS)
    add("apm_sign_level", PLANES * 24 * APM_BINS)
    add("apm_sign_group", PLANES * GROUPS * APM_BINS)
    add("apm_zone_level", PLANES * LEVELS * APM_BINS)
    add("apm_zone", PLANES * ZONES * APM_BINS)
    add("apm_class", 2 * CLASSES * APM_BINS)
    add("apm_split", 4 * APM_BINS)
    return at, slots, weights, (total - slots - weights) // APM_BINS


_AT, SLOTS, WEIGHTS, APMS = _layout()
(
    C0, C1, C2, C3, C4, C5, C6, C7, S0, S1, S2, S3, S4, S5, Z0, Z1, Z2, Z3, Z4, GOLOMB, K0, K1,
    K2, P0, P1, P2, W_LEVEL, W_GROUP, W_SIGN_LEVEL, W_SIGN_GROUP, W_ZONE_LEVEL, W_ZONE, W_CLASS,
    W_SPLIT, A_LEVEL, A_GROUP, A_SIGN_LEVEL, A_SIGN_GROUP, A_ZONE_LEVEL, A_ZONE, A_CLASS,
    A_SPLIT,
) = _AT.values()  # fmt: skip
