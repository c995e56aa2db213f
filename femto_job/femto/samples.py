"""What samples mean: their bits, the levels that a picture uses of them, what they stand for.

Samples are coded as they are, uint8 or uint16; nothing scales them. What follows the picture's
own range of levels is how finely they are coded, and what is said of their errors.
"""

import math
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import LaffError

FULL = 1 << 16
"""How many values a sample of 16 bits can have."""
WHOLE = 1.03
"""A range that all but this fills a whole number of bits from 0 on counts as that."""
RARE = 1e-4
"""Samples are outliers only if no more than this share of all lies so far outside."""
INTEGERS = ("int8", "int16", "int32", "int64", "uint32", "uint64")
FLOATS = ("float16", "float32", "float64")
"""Types of samples that are not coded as they are but mapped to uint8 or uint16."""


class Picture(Protocol):
    """What can be compressed: an array, or whatever gives windows of one as arrays."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(h, w) of grey pictures, (h, w, 3) of RGB pictures."""

    @property
    def dtype(self) -> Any:
        """NumPy's type of the samples."""

    def __getitem__(self, window: tuple[slice, slice], /) -> Any:
        """The samples of picture[y0:y1, x0:x1]."""


class Levels(NamedTuple):
    """The least and the greatest level of a range, both part of it."""

    low: int
    high: int

    @property
    def range(self) -> int:
        """What 255 is to a picture of 8 bits."""
        return self.high - self.low

    @property
    def scale(self) -> float:
        """How many levels there are to one of a picture of 8 bits."""
        return (self.high - self.low) / 255

    @property
    def middle(self) -> float:
        """The level that is 0 to the coder: what 128 is to a picture of 8 bits."""
        return self.low + 128 * self.scale


def dtype_of(bits: int) -> np.dtype[Any]:
    """The type of samples of 1 to 16 bits."""
    return np.dtype(np.uint8 if bits <= 8 else np.uint16)


def levels_of(bits: int) -> Levels:
    """All levels of samples of so many bits."""
    return Levels(0, (1 << bits) - 1)


class Span(NamedTuple):
    """The levels that a picture's steps and PSNR follow; the limits between which all its samples
    lie, where some lie outside of these levels; and how many do."""

    levels: Levels
    limits: Levels
    outliers: int = 0


class Counts:
    """How often every value occurs among samples of 16 bits, int64 (65536); can be added up."""

    def __init__(self, counts: NDArray[Any]):
        self.counts = counts

    @classmethod
    def of(cls, pixels: NDArray[Any]) -> "Counts":
        """Of uint8 or uint16 pixels of any shape."""
        return cls(np.bincount(pixels.ravel(), minlength=FULL))

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.counts + other.counts)

    def pack(self) -> bytes:
        """As compressed bytes, for the network."""
        return zlib.compress(self.counts.astype("<u4").tobytes(), 1)

    @classmethod
    def unpack(cls, data: bytes) -> "Counts":
        """Those that were packed."""
        return cls(np.frombuffer(zlib.decompress(data), "<u4").astype(np.int64))

    def span(self, declared: Levels | None = None) -> Span:
        """The levels that these samples use, if their file does not declare them.

        - A picture of 8 bits that was stretched to more (shifted, multiplied, mapped to a range)
          still has levels at equal distances, at most 256: it gets the range that its 8 bits have.
        - Else it is from the least to the greatest sample; from 0 to 2^n - 1 if that is nearly so.
        - Outliers, such as hot pixels, don't count: those that lie farther outside of what all but
          1 in 10,000 samples fill than that is wide.
        """
        values = np.flatnonzero(self.counts)
        least, most = int(values[0]), int(values[-1])
        low, high = levels = declared or _stretched(values) or self._used(values)
        limits = Levels(min(low, least), max(high, most))
        outside = int(self.counts[:low].sum() + self.counts[high + 1 :].sum())
        return Span(levels, limits, outside)

    def _used(self, values: NDArray[Any]) -> Levels:
        inner = self._without_outliers(values)
        low, high = int(inner[0]), int(inner[-1])
        full = levels_of(max(high.bit_length(), 1))
        if full.range <= WHOLE * (high - low):
            return full
        if low == high:  # a range of one level would have no step
            return Levels(low, high + 1) if high + 1 < FULL else Levels(low - 1, high)
        return Levels(low, high)

    def _without_outliers(self, values: NDArray[Any]) -> NDArray[Any]:
        """The values that are no outliers."""
        running = np.cumsum(self.counts[values])
        total = int(running[-1])
        rare = min(RARE * total + 4, total / 100)
        first = values[np.searchsorted(running, rare / 2, side="right")]
        last = values[np.searchsorted(running, total - rare / 2)]
        reach = max(int(last) - int(first), 1)
        return values[(values >= first - reach) & (values <= last + reach)]


def _stretched(values: NDArray[Any]) -> Levels | None:
    """The range of a picture of 8 bits whose levels were stretched to these, or None."""
    if not 64 < len(values) <= 256:
        return None
    gaps = np.diff(values)
    if gaps.min() < 2:
        return None
    gap = float(gaps[gaps <= gaps.min() + 1].mean())
    count = round((int(values[-1]) - int(values[0])) / gap) + 1
    steps = np.rint((values - values[0]) / gap)
    # Dark pictures of 8 bits get what they use, as others do.
    if not 128 < count <= 256 or np.abs(values[0] + steps * gap - values).max() > 1 + gap / 4:
        return None
    gap = (int(values[-1]) - int(values[0])) / (count - 1)
    least = int(values[0])
    below = min(round(least / gap), 256 - count)
    low = max(least - round(below * gap), 0)
    return Levels(low, min(max(low + round(255 * gap), int(values[-1])), FULL - 1))


# ------------------------------------------------------------------------------------------------
# What samples stand for


def check_mapping(mapping: Any, limits: Levels) -> dict[str, Any] | None:
    """A mapping as an archive keeps it: what a sample stands for is sample * slope + intercept, of
    a type of INTEGERS or FLOATS. Raises ValueError if it is none, or if a sample within `limits`
    stands for what its type cannot hold."""
    if mapping is None:
        return None
    if not isinstance(mapping, dict) or not {"type", "slope", "intercept"} <= set(mapping):
        raise ValueError("a mapping needs type, slope and intercept")
    kind, slope, intercept = mapping["type"], mapping["slope"], mapping["intercept"]
    measured = mapping.get("measured", False)
    if kind not in INTEGERS + FLOATS:
        raise ValueError(f"the mapping's type is {kind!r}")
    if type(measured) is not bool:
        raise ValueError(f"the mapping's measured is {measured!r}")
    if not all(type(x) in (int, float) and abs(x) < 1e300 for x in (slope, intercept)):
        raise ValueError("the mapping's slope or intercept is no number")
    if kind in FLOATS:
        slope, intercept = float(slope), float(intercept)
        least, most = -float(np.finfo(kind).max), float(np.finfo(kind).max)
    else:
        # A shift is exact, however large the numbers.
        if slope == int(slope) and intercept == int(intercept):
            slope, intercept = int(slope), int(intercept)
        least, most = int(np.iinfo(kind).min), int(np.iinfo(kind).max)
    if slope == 0 or not all(least <= slope * x + intercept <= most for x in limits):
        raise ValueError("the mapping's values do not fit its type")
    kept = {"type": kind, "slope": slope, "intercept": intercept}
    return kept | ({"measured": True} if measured else {})


def exactness(max_error: int) -> str:
    """What a bound of the error promises, in a few words."""
    if max_error == 0:
        return "lossless"
    return f"within {max_error} level{'s' * (max_error > 1)} of its picture"


def is_exact(mapping: dict[str, Any] | None) -> bool:
    """Whether `mapped` gave every sample a level of its own: of integers it only shifts them."""
    return mapping is None or mapping["type"] in INTEGERS


def restore(pixels: NDArray[Any], mapping: dict[str, Any] | None) -> NDArray[Any]:
    """What samples stand for, in the type that they had."""
    if mapping is None:
        return pixels
    kind = np.dtype(mapping["type"])
    slope, intercept = mapping["slope"], mapping["intercept"]
    if kind.kind == "f":
        return (pixels * slope + intercept).astype(kind)
    if slope != 1 or not isinstance(intercept, int):
        info = np.iinfo(kind)
        return np.clip(np.rint(pixels * slope + intercept), info.min, info.max).astype(kind)
    if kind == np.uint64:
        return pixels.astype(kind) + np.uint64(intercept % (1 << 64))
    return (pixels.astype(np.int64) + intercept).astype(kind)


class Mapped:
    """A picture whose windows are samples, uint8 or uint16, of one that has others.

    `mapping` says what they stand for; None for samples that are only brought to this machine's
    byte order.
    """

    def __init__(self, image: Picture, mapping: dict[str, Any] | None, dtype: Any):
        self._image = image
        self.mapping, self.dtype, self.shape = mapping, np.dtype(dtype), tuple(image.shape)

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[Any]:
        values = np.asarray(self._image[window])
        if self.mapping is None:
            return values.astype(self.dtype)
        slope, intercept = self.mapping["slope"], self.mapping["intercept"]
        if values.dtype.kind == "f":
            _check_finite(values)
            # Half a step may be lost to rounding at the ends, no more.
            found = np.rint((values.astype(np.float64) - intercept) / slope)
        elif intercept >= 0:
            found = values.astype(np.uint64) - np.uint64(intercept)
        else:
            found = values.astype(np.int64) - intercept
        if found.size and (found.min() < 0 or found.max() > np.iinfo(self.dtype).max):
            raise LaffError(
                f"samples from {values.min():g} to {values.max():g} are beyond the range "
                f"{intercept:g} to {intercept + slope * np.iinfo(self.dtype).max:g}: "
                "give a range that holds them all"
            )
        return found.astype(self.dtype)


def _check_finite(values: NDArray[Any]) -> None:
    if not np.isfinite(values).all():
        raise LaffError(
            "samples that are not finite (NaN, infinity) cannot be coded: replace them first, "
            "for example with numpy.nan_to_num"
        )


def mapped(
    image: Picture,
    windows: Callable[[], Iterator[NDArray[Any]]],
    given: tuple[float, float] | None = None,
) -> Picture | Mapped:
    """A picture of any real type as one of uint8 or uint16 samples.

    - uint8 and uint16 stay as they are; int8 and int16 are shifted by 128 and 32768;
    - integers of 32 and 64 bits are shifted by their least sample (by 0 if all fit without);
    - of floats the range `given` (low, high), or that from the least to the greatest sample,
      becomes 0 to 65535.

    Parameters: `image` has shape, dtype and windows; `windows` gives all of them, to be looked at
    where the range must be found; `given` for floats only. Returns a picture with the attribute
    `mapping`, or `image` itself. Raises LaffError.
    """
    dtype = np.dtype(image.dtype)
    name = dtype.name
    if given is not None and name not in FLOATS:
        raise LaffError(
            f"a range is for floating-point samples, these are {name}: leave it out, or give bits"
        )
    if name in ("uint8", "uint16"):
        return image if dtype.isnative else Mapped(image, None, dtype.newbyteorder("="))
    if name in ("int8", "int16"):
        bits = 8 * dtype.itemsize
        mapping = {"type": name, "slope": 1, "intercept": -(1 << (bits - 1))}
        return Mapped(image, mapping, dtype_of(bits))
    if name not in INTEGERS + FLOATS:
        raise LaffError(
            f"samples of type {dtype} cannot be coded: convert them to integers of 8 or 16 bits"
        )
    measured = given is None
    low, high = _ends(windows()) if given is None else _check_range(given)
    if name in FLOATS:
        if not high > low:
            high = low + (abs(low) or 1.0) * 1e-3
        slope = (high - low) / (FULL - 1)
        mapping = {"type": name, "slope": slope, "intercept": low}
        if not (math.isfinite(slope) and slope > 0):
            raise LaffError(f"samples from {low:g} to {high:g} cannot be told apart: scale them")
        return Mapped(image, mapping | ({"measured": True} if measured else {}), np.uint16)
    if high - low >= FULL:
        raise LaffError(
            f"integers from {low} to {high} do not fit 16 bits: "
            "divide them, or give them as floating-point samples"
        )
    shift = 0 if low >= 0 and high < FULL else low
    return Mapped(image, {"type": name, "slope": 1, "intercept": shift}, np.uint16)


def _check_range(given: tuple[float, float]) -> tuple[float, float]:
    try:
        low, high = map(float, given)
    except (TypeError, ValueError):
        raise LaffError(
            f"range {given!r} is not possible: give two numbers, low and high"
        ) from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise LaffError(f"range {low:g} to {high:g} is not possible: give low, then high")
    return low, high


def _ends(windows: Iterator[NDArray[Any]]) -> tuple[Any, Any]:
    """The least and the greatest sample, as Python numbers."""
    low: Any = None
    high: Any = None
    for values in windows:
        if values.dtype.kind == "f":
            _check_finite(values)
        least, most = values.min().item(), values.max().item()
        low = least if low is None else min(low, least)
        high = most if high is None else max(high, most)
    return low, high


def to_bytes(pixels: NDArray[Any], levels: Levels | None = None) -> NDArray[Any]:
    """Samples as a screen shows them: uint8, `levels` from black to white; by default all of 8
    bits, and of samples of 16 bits those that they use."""
    if levels is None:
        levels = levels_of(8) if pixels.dtype == np.uint8 else Counts.of(pixels).span().levels
    if pixels.dtype == np.uint8 and levels == (0, 255):
        return pixels
    values = (pixels.astype(np.float32) - levels.low) * np.float32(1 / levels.scale)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
