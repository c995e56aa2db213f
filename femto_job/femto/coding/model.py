"""The coder's model: which contexts there are and where each lies in the adaptive state.

See `entropy` for slots and weights, and `kstrings` for what the contexts mean.
"""

import numpy as np

from . import entropy
from .blocks import SIZES, ZIGZAG, ZONES

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

STEPS = 10
"""Kinds of decision about a magnitude. In the first pass: > 0, > 1, > 2, > 3, > 4…5, > 6…8,
> 9…12, > 13…19. In later ones: whether a zero stays one, in the last pass and before."""
ZERO_LAST, ZERO = 8, 9
DIGITS = 8
"""Magnitudes below this have statistics of their own for their next digit."""
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
FLAG_LEVELS = 5
"""Of what is expected of a zone that is flagged."""
MEAN_LEVELS = 48
"""Of where a mean is predicted in the interval that is known of it."""
CLASS_INPUTS = 3
SPLIT_INPUTS = 3


def _layout() -> tuple[dict[str, int], int, int]:
    """Offsets of every part of the state, and the numbers of slots and weights."""
    at, total = {}, 0

    def add(name: str, size: int) -> None:
        nonlocal total
        at[name] = total
        total += size

    for i, size in enumerate(_CONTEXTS):
        add(f"context{i}", size * KINDS)
    for i, size in enumerate(_SIGN_CONTEXTS):
        add(f"sign{i}", size * PLANES)
    add("flag", 2 * PLANES * ZONES * FLAG_LEVELS * 4)
    add("golomb", 2 * 64)
    add("mean", PLANES * SIZES * MEAN_LEVELS)
    add("digit", 2 * PLANES * GROUPS * DIGITS)
    for i in range(CLASS_INPUTS):
        add(f"class{i}", CLASSES * (CLASSES + 1))
    for i in range(SPLIT_INPUTS):
        add(f"split{i}", 2 * 2 * 4 * 4 * 4 * 4)
    slots = total
    add("weights_level", KINDS * LEVELS * (INPUTS + 1))
    add("weights_group", KINDS * GROUPS * (INPUTS + 1))
    add("weights_sign_level", PLANES * LEVELS * (SIGN_INPUTS + 1))
    add("weights_sign_group", PLANES * GROUPS * (SIGN_INPUTS + 1))
    add("weights_class", 2 * CLASSES * (CLASS_INPUTS + 1))
    add("weights_split", 4 * (SPLIT_INPUTS + 1))
    return at, slots, total - slots


_AT, SLOTS, WEIGHTS = _layout()
(
    C0, C1, C2, C3, C4, C5, C6, C7, S0, S1, S2, S3, S4, S5, FLAG, GOLOMB, MEAN, DIGIT,
    K0, K1, K2, P0, P1, P2, W_LEVEL, W_GROUP, W_SIGN_LEVEL, W_SIGN_GROUP,
    W_CLASS, W_SPLIT,
) = _AT.values()  # fmt: skip


def fresh_state() -> np.ndarray:
    """The model before it has seen anything."""
    return entropy.fresh_state(SLOTS, WEIGHTS, 0.25)
