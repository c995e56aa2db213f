"""Bjøntegaard delta rate: the mean difference of file size of two codecs at equal quality."""

import math

import numpy as np
from scipy.interpolate import PchipInterpolator


def _curve(points):
    """(rate, quality) points as (quality, log rate), quality strictly rising, lossless left out."""
    best = {}
    for rate, quality in points:
        if rate > 0 and quality is not None and math.isfinite(quality):
            best[quality] = min(rate, best.get(quality, math.inf))
    quality = np.array(sorted(best))
    return quality, np.log([best[q] for q in quality])


def bd_rate(anchor, test, *, low=None, high=None, min_overlap=0.3):
    """Mean rate of `test` relative to `anchor` at equal quality, in per cent (negative: smaller).

    anchor, test: lists of (rate, quality); the unit of the rate cancels out, quality is any measure
    that rises (dB here). Log rate is interpolated over quality by PCHIP (Fritsch and Butland's
    monotone cubic, as in later practice of the JCT-VC; Bjøntegaard's single cubic of VCEG-M33
    oscillates with more than four points) and integrated exactly over the overlap of both curves,
    cut to [low, high] when given. None when the overlap is shorter than `min_overlap` or a curve
    has fewer than two points.
    """
    qa, ra = _curve(anchor)
    qt, rt = _curve(test)
    if len(qa) < 2 or len(qt) < 2:
        return None
    start = max(qa[0], qt[0], -math.inf if low is None else low)
    stop = min(qa[-1], qt[-1], math.inf if high is None else high)
    if stop - start < min_overlap:
        return None
    area = PchipInterpolator(qt, rt).integrate(start, stop)
    area -= PchipInterpolator(qa, ra).integrate(start, stop)
    return 100.0 * math.expm1(float(area) / (stop - start))


def worst_excess(anchor, test, *, low, high, steps=41):
    """Largest rate of `test` relative to `anchor` at one quality in [low, high], in per cent.

    Where `bd_rate` averages, this looks at every quality: positive when `test` is larger anywhere.
    None when the curves share nothing of the range.
    """
    qa, ra = _curve(anchor)
    qt, rt = _curve(test)
    if len(qa) < 2 or len(qt) < 2:
        return None
    start, stop = max(qa[0], qt[0], low), min(qa[-1], qt[-1], high)
    if stop <= start:
        return None
    grid = np.linspace(start, stop, steps)
    excess = PchipInterpolator(qt, rt)(grid) - PchipInterpolator(qa, ra)(grid)
    return 100.0 * math.expm1(float(excess.max()))


def quality_at(points, rate):
    """Quality interpolated at `rate` (PCHIP over log rate), or None outside the measured points."""
    quality, log_rate = _curve(points)
    # The best quality of any cheaper point: PCHIP needs strictly rising rates.
    order = np.argsort(log_rate, kind="stable")
    quality, log_rate = np.maximum.accumulate(quality[order]), log_rate[order]
    log_rate, first = np.unique(log_rate, return_index=True)
    if len(log_rate) < 2 or not log_rate[0] <= math.log(rate) <= log_rate[-1]:
        return None
    return float(PchipInterpolator(log_rate, quality[first])(math.log(rate)))
