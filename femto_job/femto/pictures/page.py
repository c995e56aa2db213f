"""A page of a picture file: what is said of it, how it is read, and windows of its pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import LaffError
from .common import decoding
from .metadata import Found
from .pixels import luma, usable_profile

MAPPED = "mapped to 65536 levels"
"""What a note says of samples that were not all given a level of their own."""


@dataclass(frozen=True)
class PageInfo:
    """One picture of a file, as it will be coded.

    page: its number in the file, from 0; width, height: pixels, after its orientation was applied;
    channels: 1 or 3; bits: of a sample; error: why it cannot be read (only in a file that has
    other pages which can), else None. levels: the least and the greatest sample that the file
    declares, or that were found where all samples had to be looked at, else None. mapping: of
    samples that are not the file's own, {"type": numpy's name of the file's type, "slope",
    "intercept"}, original = sample * slope + intercept; None also where probe() would have to read
    all pixels to know it, which open_page() does. label: what tells this picture from the others
    of its file, such as "z3" or "t01c2"; None if that is its number. notes: what is not archived,
    and what else the user should know of how it was read, a phrase each. segment: height and width
    of what must be decoded at once for any pixel of it, None where that does not matter; place:
    where the page lies in a file of many, for open_page() (plain JSON; nothing else is promised).
    """

    page: int
    width: int
    height: int
    channels: int
    bits: int
    error: str | None = None
    levels: tuple[int, int] | None = None
    mapping: dict[str, Any] | None = None
    label: str | None = None
    notes: tuple[str, ...] = ()
    segment: tuple[int, int] | None = field(default=None, compare=False)
    place: dict[str, Any] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Reading:
    """What is read where a file leaves it open.

    bands: of a TIFF with more bands than colours, the one or three (from 1) that make the picture,
    or "each": every band is a picture; None: such files are refused. alpha: False leaves out
    transparency, and keeps the colours behind it, instead of blending with white. range: the
    values of floating-point samples, and of integers that do not fit 16 bits, that become 0 and
    65535; None: the least and the greatest of the page.
    """

    bands: tuple[int, ...] | str | None = None
    alpha: bool = True
    range: tuple[float, float] | None = None

    @classmethod
    def checked(
        cls, bands: Sequence[int] | str | None, alpha: bool, range: Sequence[float] | None
    ) -> "Reading":
        """From what a caller gave; LaffError if it makes no sense."""
        if bands is not None and bands != "each":
            bands = () if isinstance(bands, str) else tuple(bands)
            if len(bands) not in (1, 3) or not all(isinstance(b, int) and b > 0 for b in bands):
                raise LaffError('bands: give one or three numbers from 1, or "each"')
        if range is not None:
            range = tuple(map(float, range))
            if len(range) != 2 or not -math.inf < range[0] < range[1] < math.inf:
                raise LaffError("range: give two numbers, the lower one first")
            return cls(bands, bool(alpha), (range[0], range[1]))
        return cls(bands, bool(alpha))


class StoredPage:
    """How one page is read. Made from the header alone; pixels are decoded by window()."""

    def __init__(
        self,
        page: int,
        width: int,
        height: int,
        channels: int,
        bits: int,
        *,
        icc: bytes | None = None,
        orientation: int = 1,
    ):
        self.size = (height, width)
        self.orientation = orientation if orientation in range(1, 9) else 1
        self.icc = usable_profile(icc, b"GRAY" if channels == 1 else b"RGB ")
        if self.orientation >= 5:
            width, height = height, width
        self.info = PageInfo(page, width, height, channels, bits)

    def measure(self) -> None:
        """Complete `info` where that needs all pixels."""

    def window(self, y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
        raise NotImplementedError

    def close(self) -> None:
        pass


class PictureReader:
    """A page of a picture file that gives windows: reader[y0:y1, x0:x1].

    A window is (h, w) or (h, w, 3), uint8 or uint16, in the picture's own upright orientation.
    shape, dtype: of the whole page; icc: its ICC profile or None; info: its PageInfo; metadata:
    what the file says about the picture, see the module `metadata`, or None.
    Raises LaffError when pixels cannot be decoded. Use as a context manager.
    """

    def __init__(self, name: str, stored: "StoredPage", gray: bool, found: Found):
        self.name = name
        notes = (*stored.info.notes, *found.notes)
        channels = 1 if gray else stored.info.channels
        self.info = replace(stored.info, channels=channels, notes=notes)
        self.metadata = found.values or None
        # A profile of a colour picture says nothing about its grey version.
        self.icc = stored.icc if self.info.channels == stored.info.channels else None
        self.dtype = np.dtype(np.uint8 if self.info.bits <= 8 else np.uint16)
        size = (self.info.height, self.info.width)
        self.shape: tuple[int, ...] = size if self.info.channels == 1 else (*size, 3)
        self.ndim = len(self.shape)
        self._stored = stored

    def __enter__(self) -> "PictureReader":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._stored.close()

    def __getitem__(self, key: slice | tuple[slice, slice]) -> NDArray[Any]:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        y0, y1, step_y = rows.indices(self.shape[0])
        x0, x1, step_x = columns.indices(self.shape[1])
        if step_y != 1 or step_x != 1:
            raise IndexError("a picture is read by windows [y0:y1, x0:x1] without steps")
        if y1 <= y0 or x1 <= x0:
            return np.zeros((max(y1 - y0, 0), max(x1 - x0, 0), *self.shape[2:]), self.dtype)
        with decoding(self.name):
            window = self._upright(y0, y1, x0, x1)
        if self.info.channels == 1 and window.ndim == 3:
            window = luma(window)
        return np.ascontiguousarray(window, dtype=self.dtype)

    def _upright(self, y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
        """The window of the upright picture, from the window of the stored one (TIFF 6.0, 274)."""
        orientation = self._stored.orientation
        swapped = orientation >= 5
        if swapped:
            y0, y1, x0, x1 = x0, x1, y0, y1
        height, width = self._stored.size
        from_bottom, from_right = orientation in (3, 4, 6, 7), orientation in (2, 3, 7, 8)
        if from_bottom:
            y0, y1 = height - y1, height - y0
        if from_right:
            x0, x1 = width - x1, width - x0
        window = self._stored.window(y0, y1, x0, x1)
        if from_bottom:
            window = window[::-1]
        if from_right:
            window = window[:, ::-1]
        return window.swapaxes(0, 1) if swapped else window
