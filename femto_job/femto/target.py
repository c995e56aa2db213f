"""From what the user asks for (a quality, a ratio, a PSNR) to the quantiser step."""

import math
from itertools import pairwise

from .coding.blocks import GREY_SCALE
from .container import finest_step
from .errors import LaffError
from .samples import Levels

DEFAULT_QUALITY = 75
RESIDUAL_QUALITY = 20
"""Of what lies below a residual: there most pictures take the fewest bytes or nearly so."""
RATIO_TOLERANCE = 0.015
"""Half of the 3 % that is promised: a search that stops earlier costs nobody anything."""
PSNR_TOLERANCE = 0.05
"""Half of the 0.1 dB that is promised."""
MAX_ROUNDS = 14


EIGHT_BITS = Levels(0, 255)


def quality_to_step(quality: float, levels: Levels = EIGHT_BITS, channels: int = 3) -> float:
    """Quantiser step in grey levels of a picture that uses `levels`, for a quality of 1 to 100.

    Of RGB pictures quality 100 is one step per 8-bit grey level, 75 about 16, 1 is 256. The curve
    is steeper at the top, so that equal differences in quality look about equal. Whatever levels a
    picture uses, the step is the same share of their range. A grey picture (`channels` 1) gets the
    error that it would have as an RGB picture.

    Raises LaffError outside 1 to 100.
    """
    if not 1 <= quality <= 100:
        raise LaffError(f"quality {quality} is not possible: choose 1 (smallest) to 100 (best)")
    step = 2.0 ** (8.0 * ((100 - quality) / 99) ** 0.5) / (GREY_SCALE if channels == 1 else 1)
    return _rounded(step * levels.range / 255)


def psnr(sse: float, samples: int, peak: float) -> float:
    """Peak signal-to-noise ratio in dB of a sum of squared errors over `samples` samples; `peak`
    is the range of the picture's levels."""
    if sse <= 0:
        return math.inf
    return 10 * math.log10(peak**2 * samples / sse)


def _rounded(step: float) -> float:
    """Six digits are plenty, and keep the number short in the archive."""
    return float(f"{step:.6g}")


class StepSearch:
    """Finds the quantiser step that meets a target, by rounds of encoding.

    A plain state machine without a picture, so that the same search runs in one process and
    across a cluster: encode with `first()`, record `(step, archive_nbytes, sse)`, ask `next()`
    with all rounds so far, until it answers None; `best()` is then the round to keep.

    A target that no step can meet (a constant picture is always smaller than a ratio of 8, a
    single pixel never) ends with the nearest step there is.

    Parameters: exactly one of `quality` (1 to 100), `ratio` (raw bytes over archive bytes, more
    than 1) and `psnr` (dB, 10 to 120), none for quality 75; with a `max_error`, which is met
    whatever the step is, only a quality, none for 20; `levels` of the picture, and the
    `limits` of its samples where they are wider; `channels` 1 or 3;
    `raw_nbytes` of the picture's samples; `samples`, their number. Raises LaffError for impossible
    values.
    """

    def __init__(
        self,
        *,
        quality: float | None = None,
        ratio: float | None = None,
        psnr: float | None = None,
        levels: Levels,
        limits: Levels | None = None,
        channels: int,
        raw_nbytes: int,
        samples: int,
        max_error: int | None = None,
    ):
        given = [x for x in (quality, ratio, psnr) if x is not None]
        if len(given) > 1:
            raise LaffError("quality, ratio and psnr exclude each other: give one of them")
        if given and not (isinstance(given[0], (int, float)) and math.isfinite(given[0])):
            raise LaffError(f"{given[0]!r} is not a number that quality, ratio or psnr can take")
        if ratio is not None and not 1 < ratio <= 100_000:
            raise LaffError(f"ratio {ratio} is not possible: choose more than 1, 100000 at most")
        if psnr is not None and not 10 <= psnr <= 120:
            raise LaffError(f"psnr {psnr} is not possible: choose 10 to 120 dB")
        if max_error is not None and (ratio is not None or psnr is not None):
            raise LaffError(
                "lossless and max_error take as many bytes as they need: leave ratio and psnr out"
            )
        if not given:
            quality = DEFAULT_QUALITY if max_error is None else RESIDUAL_QUALITY
        self.quality, self.ratio, self.psnr = quality, ratio, psnr
        self.levels, self.channels = levels, channels
        self.raw_nbytes, self.samples = raw_nbytes, samples
        self.finest = _rounded(finest_step(levels, limits or levels))
        self.coarsest = max(_rounded(512 * levels.scale), self.finest)

    def first(self) -> float:
        """The step of the first round."""
        if self.quality is not None:
            return max(quality_to_step(self.quality, self.levels, self.channels), self.finest)
        if self.psnr is not None:
            # At high rates the error is step²/12 per sample; at low rates less than that.
            return self._clip(math.sqrt(12.0) * self.levels.range * 10 ** (-self.psnr / 20))
        return self._clip(quality_to_step(DEFAULT_QUALITY, self.levels, self.channels))

    def _clip(self, step: float) -> float:
        return _rounded(min(max(step, self.finest), self.coarsest))

    def _miss(self, entry: tuple[float, int, float]) -> float:
        """How far a round is from the target, in units of the tolerance; positive: too coarse."""
        _, nbytes, sse = entry
        if self.ratio is not None:
            return math.log(self.raw_nbytes / nbytes / self.ratio) / RATIO_TOLERANCE
        if self.psnr is not None:
            return min(max((self.psnr - psnr(sse, self.samples, self.levels.range)), -99), 99) / (
                PSNR_TOLERANCE
            )
        return 0.0

    def outcome(self, entry: tuple[float, int, float]) -> str | None:
        """What a round makes of the target: "met", "better" than asked (larger ratio, higher
        PSNR) or "missed"; None if there is none (a quality)."""
        miss, tolerance = self._miss(entry), 2  # twice half of what is promised
        if self.ratio is not None:
            return "met" if abs(miss) <= tolerance else "better" if miss > 0 else "missed"
        if self.psnr is not None:
            return "met" if abs(miss) <= tolerance else "better" if miss < 0 else "missed"
        return None

    def best(self, history: list[tuple[float, int, float]]) -> int:
        """Index of the round to keep: the nearest to the target."""
        return min(range(len(history)), key=lambda i: (abs(self._miss(history[i])), i))

    def next(self, history: list[tuple[float, int, float]]) -> float | None:
        """The step of the next round, or None if the search is over."""
        if self.quality is not None or not history:
            return None if history else self.first()
        rounds = sorted((math.log(e[0]), self._miss(e)) for e in history)
        if min(abs(m) for _, m in rounds) <= 1 or len(rounds) >= MAX_ROUNDS:
            return None
        # Where the number of passes changes, a coarser step can be a little better: only
        # neighbours bracket the target.
        brackets = [pair for pair in pairwise(rounds) if pair[0][1] < 0 < pair[1][1]]
        if brackets:
            (a, miss_a), (b, miss_b) = brackets[0]
            if b - a < 1e-5:
                return None
            # Regula falsi, kept off the ends so that a bent curve cannot stall it.
            share = min(max(miss_a / (miss_a - miss_b), 0.1), 0.9)
            return self._clip(math.exp(a + share * (b - a)))
        # No bracket yet: follow the usual slopes (6 dB, or about half the bytes, per doubling).
        log_step, miss = rounds[-1] if rounds[-1][1] < 0 else rounds[0]
        if self.psnr is not None:
            move = -miss * PSNR_TOLERANCE / 5.0 * math.log(2)
        else:
            move = -miss * RATIO_TOLERANCE * 1.2
        move += math.copysign(0.02, move)
        step = self._clip(math.exp(log_step + move))
        return None if any(abs(math.log(step) - s) < 1e-6 for s, _ in rounds) else step
