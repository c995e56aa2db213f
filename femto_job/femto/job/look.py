"""A look at samples for what should make people wonder: drawings, and nothing at all."""

from dataclasses import dataclass, field

import numpy as np

WINDOW = 512
"""Of larger tiles, the middle of so many pixels a side tells whether they are drawn."""
BINS = 64
FLAT, HARD = 0.7, 0.4
"""In drawings at least so many neighbours are equal, and of those that differ so many differ by
more than a fifth of the range. Photographs have 0.46 and 0.11, of 16 levels 0.94 and 0.25."""
FEW, CLEAN = 16, 0.2
"""In pictures of fewer levels noise has such steps too: of all steps so many must lie between pairs
of equal neighbours."""


@dataclass
class Look:
    """What was seen of some tiles of a picture; can be added up.

    low, high: the least and the greatest sample; pairs: neighbours that were compared; steps: how
    many of them differ, by the logarithm of the difference; clean: how many of these have an equal
    neighbour on both sides.
    """

    low: int = 1 << 16
    high: int = -1
    pairs: int = 0
    steps: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    clean: int = 0

    @classmethod
    def nothing(cls) -> "Look":
        return cls()

    @classmethod
    def of(cls, pixels: np.ndarray) -> "Look":
        """Of a tile, (h, w) or (h, w, 3), uint8 or uint16."""
        look = cls(int(pixels.min()), int(pixels.max()))
        if look.constant:
            look.pairs = 2 * pixels.shape[0] * pixels.shape[1]
            return look
        y, x = (max(0, n - WINDOW) // 2 for n in pixels.shape[:2])
        window = pixels[y : y + WINDOW, x : x + WINDOW].astype(np.int32)
        for axis in (0, 1):
            steps = np.abs(np.diff(window, axis=axis))
            steps = steps if steps.ndim == 2 else steps.max(axis=2)
            steps = steps if axis == 1 else steps.T
            differ = steps > 0
            bins = (4 * np.log2(steps[differ])).astype(np.int64)
            look.pairs += steps.size
            look.steps += np.bincount(bins, minlength=BINS)
            look.clean += int((differ[:, 1:-1] & ~differ[:, :-2] & ~differ[:, 2:]).sum())
        return look

    def __add__(self, other: "Look") -> "Look":
        return Look(
            min(self.low, other.low),
            max(self.high, other.high),
            self.pairs + other.pairs,
            self.steps + other.steps,
            self.clean + other.clean,
        )

    @property
    def constant(self) -> bool:
        """Whether all samples are the same."""
        return self.low == self.high

    @property
    def drawn(self) -> bool:
        """Whether this is a label image, a mask or a drawing: flat areas with hard edges between
        them, as no photograph has."""
        all_steps, span = int(self.steps.sum()), self.high - self.low
        if not all_steps or all_steps > (1 - FLAT) * self.pairs:
            return False
        # Levels may lie apart: a picture of 8 levels is one, whatever it was multiplied by.
        edges = 2.0 ** (np.arange(BINS) / 4)
        gap = edges[np.flatnonzero(self.steps)[0]]
        two = span < 1.5 * gap
        # A photograph of very few levels has steps of one, a mask of two values has no others.
        least = 0 if two else max(span / 5, gap)
        hard = int(self.steps[edges > least].sum())
        few = span < FEW or (span < FEW * gap and not two)
        clean = not few or self.clean >= CLEAN * all_steps
        return clean and hard >= HARD * all_steps
