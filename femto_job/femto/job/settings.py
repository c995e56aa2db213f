"""What the user asked of a compressing job, and what its tasks have to know."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..basis.bases import DEFAULT
from ..target import DEFAULT_QUALITY, RESIDUAL_QUALITY
from . import measure
from .plan import Picture
from .runner import Folders, local_file


@dataclass(frozen=True)
class Options:
    """What the user asked for; see femto.cli.compress."""

    input: Path
    output: Path
    target: dict = field(default_factory=dict)
    gray: bool = False
    bands: list[int] | str | None = None
    alpha: bool = True
    range: list[float] | None = None
    basis: str = DEFAULT
    effort: str = "full"
    tune: str = "psnr"
    max_error: int | None = None
    recursive: bool = False
    overwrite: bool = False
    moved_from: Path | None = None
    report: bool = True
    ssim: str = "shown"
    reader: str = "auto"
    cut_above: float | None = None
    bits: int | None = None
    strict: bool = False
    strip_metadata: bool = False
    verify: bool = True
    delete_originals: bool = False
    min_psnr: float | None = None
    quiet: bool = False

    @property
    def reading(self) -> dict:
        """What femto.pictures is to read of a file, where that is not plain."""
        return {"bands": self.bands, "alpha": self.alpha, "range": self.range}

    @property
    def method(self) -> dict:
        """Effort, tune and, if there is a bound, max_error, as keywords of femto.encode."""
        bound = {} if self.max_error is None else {"max_error": self.max_error}
        return {"effort": self.effort, "tune": self.tune} | bound

    @property
    def quality(self) -> int:
        """The quality if no target is given."""
        return DEFAULT_QUALITY if self.max_error is None else RESIDUAL_QUALITY

    @property
    def passes(self) -> int:
        """About how often a picture is coded until its target is met."""
        return 4 if "ratio" in self.target or "psnr" in self.target else 1

    def fingerprint(self, basis_sha256: str) -> str:
        """A hash of all that decides what becomes of a picture, which resuming compares."""
        target = self.target or {"quality": self.quality}
        wanted = {
            "target": {k: float(v) for k, v in target.items()},
            "gray": self.gray,
            **self.reading,
            "bits": self.bits,
            "strip": self.strip_metadata,
            "basis": basis_sha256,
            **self.method,
        }
        return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Settings:
    """What every task of a job has to know: its folders, what was asked for, and the fingerprint of
    that."""

    folders: Folders
    options: Options
    fingerprint: str = ""

    def local_basis(self) -> str:
        """The basis as femto wants it in this process: a name or a path."""
        return self.basis_file() or DEFAULT

    def basis_file(self) -> str | None:
        """The file that this process has of the basis, None if it is femto's own."""
        basis = self.options.basis
        return None if basis == DEFAULT else local_file(os.path.abspath(basis))

    def declared_bits(self, picture: Picture) -> int | None:
        """The bits that a picture's samples have, by the user or by its file; None if they are to
        be found."""
        bits = self.options.bits
        if bits is not None and bits <= 8 * picture.dtype.itemsize:
            return bits
        return picture.bits if picture.bits not in (8, 16) else None

    def watch(self, picture: Picture, crop: Callable[[], int]) -> measure.Watch | None:
        """What measures a picture, if something does; `crop` tells which of its tiles is shown."""
        if not self.options.report or not (picture.shown or self.options.ssim == "all"):
            return None
        return measure.Watch(picture.width, picture.height, crop() if picture.shown else None)
