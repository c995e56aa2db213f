"""What an archive says of its picture, and an archive as it is read."""

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypedDict

import numpy as np

from ..errors import LaffError
from ..samples import Levels, dtype_of, levels_of
from . import bounds

FORMAT = "laff"
VERSION = 2
"""What is written and read."""
PASSES = (4, 1)
"""In how many passes a picture may be coded; the first is what a header without them means."""
TUNES = ("psnr", "perceptual")
"""What the quantiser may be tuned for; likewise."""


AnyPath: TypeAlias = str | os.PathLike[str]
Stored: TypeAlias = bytes | bytearray | memoryview | AnyPath
"""An archive: its bytes, or the path of its file."""


class ByteStream(Protocol):
    """Where an archive comes from while it arrives: a pipe, a socket's file, an open file."""

    def read(self, nbytes: int, /) -> bytes:
        """At most so many bytes; none at the end."""


@dataclass(frozen=True)
class ImageHeader:
    """What an archive says of its picture.

    `width` and `height` in pixels; `mode` "L" (grey) or "RGB"; `bits` per sample, 1 to 16: they
    are uint8 up to 8 and uint16 above; `source` the picture file's name; `icc` an ICC profile;
    `metadata` a dict whose values are JSON or bytes. `levels`, the range that the picture uses,
    which its step and PSNR follow: all that its bits have, if not given; `limits`, between which
    its samples lie, where these are wider than the levels. `mapping`: what a sample stands for
    is sample * slope + intercept, of a type, see `samples.check_mapping`; None if it is itself.
    """

    width: int
    height: int
    mode: str
    bits: int
    source: str | None = None
    icc: bytes | None = None
    metadata: dict[str, Any] | None = None
    levels: Levels = None  # type: ignore[assignment]  # which is told from the bits then
    limits: Levels = None  # type: ignore[assignment]
    mapping: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        levels = levels_of(self.bits) if self.levels is None else Levels(*self.levels)
        object.__setattr__(self, "levels", levels)
        limits = levels if self.limits is None else Levels(*self.limits)
        object.__setattr__(self, "limits", limits)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the samples, uint8 or uint16."""
        return dtype_of(self.bits)

    @property
    def channels(self) -> int:
        """Samples per pixel: 1 or 3."""
        return 3 if self.mode == "RGB" else 1

    @property
    def raw_nbytes(self) -> int:
        """Bytes of the uncompressed samples."""
        return self.width * self.height * self.channels * self.dtype.itemsize


@dataclass(frozen=True)
class Archive:
    """A parsed archive, as `femto.parse` returns it: what it says, and its strings.

    `header`: its picture; `basis_name` and `basis_sha256` (first digits) of the basis that it
    needs; `step`, the quantiser's, in grey levels; `passes` 4 or 1; `tune`; `tile`, the edge of its
    tiles in pixels; `blocks[tile]` and `layers[layer][tile]`, the strings; `nbytes` of the archive
    and `layer_nbytes` of each layer's strings; `name`, its path, for messages. Notebooks show it
    as its picture.
    """

    header: ImageHeader
    basis_name: str
    basis_sha256: str
    step: float
    passes: int
    tune: str
    tile: int
    blocks: Sequence[bytes]
    layers: list[Sequence[bytes]]
    nbytes: int
    layer_nbytes: list[int] = field(default_factory=list)
    name: str = "archive"
    basis_file: str | None = None
    """A basis file to look into before those beside the archive."""
    packed: str | None = None
    """The metadata as the archive has them."""
    max_error: int | None = None
    """By how many levels its samples may differ once the residual, its last layer, is there; None
    if it was made without one."""
    preview: Callable[["Archive"], dict[str, str]] | None = field(
        default=None, repr=False, compare=False
    )
    """What a notebook shows of it, which takes a decoder."""

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": repr(self)} if self.preview is None else self.preview(self)


class Info(TypedDict):
    """What `femto.info` tells of an archive."""

    format: str
    version: int
    width: int
    height: int
    mode: str
    bits: int
    levels: list[int]
    limits: list[int]
    mapping: dict[str, Any] | None
    source: str | None
    icc: bytes | None
    metadata: dict[str, Any] | None
    properties: dict[str, str]
    basis: dict[str, str]
    step: float
    passes: int
    tune: str
    max_error: int | None
    tile: int
    tiles: int
    layers: int
    nbytes: int
    layer_nbytes: list[int]


Layers: TypeAlias = int | Callable[[dict[str, Any]], int] | None
"""How many layers of an archive to read: see `_Reading`."""
Wanted: TypeAlias = Callable[[Archive], Collection[int] | None] | None
"""Which tiles of an archive to keep: see `_Reading`."""


def check_pixels(
    archive: Archive, pixels: int, most: int | None, *, streamed: bool = False
) -> None:
    """LaffError if an archive would have more pixels made of it than `most`, None being any number.

    Where the picture is never in memory as a whole (`streamed`), memory is no matter, but time and
    what is written are: there `most` is for every MiB of the archive begun, which no small archive
    outgrows, and which true archives come nowhere near.
    """
    if most is None:
        return
    if isinstance(most, bool) or not isinstance(most, (int, np.integer)) or most < 1:
        raise LaffError(f"max_pixels {most!r} is not possible: give a number from 1, or None")
    most *= -(-archive.nbytes >> 20) if streamed else 1
    if pixels > most:
        raise LaffError(
            f"{archive.name}: {pixels} pixels are more than the {most} that an archive "
            + ("of its size " if streamed else "")
            + "is believed to hold: give a larger max_pixels (--max-pixels) if you trust it"
            + ("" if streamed else ", or a smaller region")
        )


def finest_step(levels: Levels, limits: Levels) -> float:
    """The finest quantiser step of a picture that uses `levels` and has samples within `limits`:
    the coder's integers stay below 2^31."""
    return bounds.MIN_STEP * max(min(1.0, levels.scale), limits.range / 65535)
