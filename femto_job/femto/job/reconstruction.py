"""How a picture file is made of an archive, as decompressor.py and restore.py do it."""

import argparse
import itertools
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import femto

from ..container import BELIEVED_PIXELS, Salvaged, check_pixels
from ..errors import LaffError
from ..pictures import write_picture
from ..pictures.embedding import unheld
from ..samples import dtype_of
from . import salvaging

DARK = 1 << 14


@dataclass(frozen=True)
class Wanted:
    """What pictures are to be made of archives: "png", "tif", "jpg" or "webp" as `format` (None:
    PNG, and TIFF for what PNG does not hold), of so much of the data, of which region, how many
    times smaller, and of how many pixels at most (see femto.decode_bands)."""

    format: str | None = None
    fraction: float = 1.0
    layers: int | None = None
    region: tuple[int, int, int, int] | None = None
    scale: int = 1
    strip_metadata: bool = False
    max_pixels: int | None = BELIEVED_PIXELS

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Wanted":
        """What the options say, see femto.cli.options."""
        return cls(
            format=options.format,
            fraction=options.fraction,
            layers=options.layers,
            region=options.region and tuple(options.region),
            scale=options.scale,
            strip_metadata=options.strip_metadata,
            max_pixels=options.max_pixels or None,
        )

    @property
    def suffix(self) -> str:
        """What the names of pictures end in."""
        return "." + (self.format or "png")

    @property
    def content(self) -> dict:
        """What decides, besides the name's suffix, what a picture's file holds."""
        others = ("format", "max_pixels")
        told = asdict(self) | {"region": self.region and list(self.region)}
        return {key: value for key, value in told.items() if key not in others}


@dataclass(frozen=True)
class Made:
    """A picture that was written: whether it is `new` or the very same file was there; `facts` of
    its record: width, height, mode, bits, raw_bytes, seconds, notes."""

    path: Path
    new: bool
    facts: dict


def make_picture(
    archive,
    path: Path,
    wanted: Wanted,
    *,
    overwrite=False,
    basis=None,
    threads: int = 1,
    found: Salvaged | None = None,
) -> Made:
    """Decode an archive (bytes, a path or parsed) into a picture file, band by band in bounded
    memory, and the folder that it lies in if need be. `found` is what is left of it, if it is
    damaged.

    The file gets its name when it is whole; .tif in place of .png if no format is wanted and PNG
    does not hold the samples. Raises LaffError, also if another file is there and `overwrite` does
    not let it go.
    """
    began = time.monotonic()
    if wanted.region is None:
        archive = femto.parse(archive)
    about = femto.info(archive)
    height, width = (wanted.region or (0, 0, about["height"], about["width"]))[2:]
    height, width = -(-height // wanted.scale), -(-width // wanted.scale)
    kind, samples, dtype = _form(about, wanted.format)
    if wanted.format is None and kind != "png":
        path = path.with_suffix(f".{kind}")
    if wanted.region is None and kind in ("jpg", "webp"):  # written from memory, not in bands
        check_pixels(archive, height * width, wanted.max_pixels)
    _make_folder(path.parent)
    decode = femto.decode_bands if found is None else partial(salvaging.bands, found)
    bands = decode(
        archive,
        region=wanted.region,
        fraction=wanted.fraction,
        layers=wanted.layers,
        basis=basis,
        threads=threads,
        samples=samples,
        scale=wanted.scale,
        max_pixels=wanted.max_pixels,
    )
    bands = itertools.chain([next(bands)], bands)  # nothing is written of what cannot be decoded
    # What a file says of its picture, such as where on earth it lies and how many pixels make an
    # inch, speaks of all of it.
    whole = wanted.region is None and wanted.scale == 1
    metadata = about["metadata"] if whole and not wanted.strip_metadata else None
    new = write_picture(
        path,
        ((y, band if dtype is None else band.astype(dtype, copy=False)) for y, band in bands),
        width=width,
        height=height,
        mode=about["mode"],
        bits=about["bits"],
        icc=about["icc"],
        metadata=metadata,
        format=kind,
        overwrite=overwrite,
        levels=about["levels"] if samples or about["mapping"] is None else None,
        dtype=dtype,
    )
    channels = 1 if about["mode"] == "L" else 3
    facts = {
        "width": width,
        "height": height,
        "mode": about["mode"],
        "bits": about["bits"],
        "raw_bytes": width * height * channels * dtype_of(about["bits"]).itemsize,
        "seconds": time.monotonic() - began,
        "notes": _notes(about, kind, metadata, wanted),
    }
    if found is not None:
        level = salvaging.fill(found.archive)
        filled = f"; lost tiles are filled with level {level}" * (len(found.layers) < found.tiles)
        facts["notes"].insert(0, f"salvaged: {salvaging.losses(found)}{filled}")
    return Made(path, new, facts)


def _notes(about: dict, kind: str, metadata: dict | None, wanted: Wanted) -> list[str]:
    """What people should know of a picture that was made."""
    notes = []
    if wanted.layers is not None and wanted.layers > about["layers"]:
        notes.append(f"has {about['layers']} layer{'s' * (about['layers'] > 1)}")
    if about["metadata"] and not wanted.strip_metadata:
        if wanted.region:
            notes.append("without its metadata: they speak of the whole picture")
        elif wanted.scale > 1:
            notes.append("without its metadata: they speak of the picture in full size")
    left_out = unheld(metadata, kind)
    if left_out:
        notes.append(f"without {', '.join(left_out)}: not held by this format")
    low, high = about["levels"]
    if about["mapping"] is None and about["bits"] > 8 and high < DARK and kind in ("png", "tif"):
        notes.append(f"samples of {low} to {high}: viewers that expect 65535 show it dark")
    return notes


def _form(about: dict, format: str | None) -> tuple[str, bool, str | None]:
    """How an archive becomes a file: the format; whether it gets the archive's samples, not what
    they stand for; and the type of what it gets, None for uint8 or uint16 as they are."""
    kind, mapping = format or "png", about["mapping"]
    if mapping is None or kind in ("jpg", "webp"):
        return kind, True, None
    ends = (x * mapping["slope"] + mapping["intercept"] for x in about["limits"])
    low, high = sorted(ends)
    integers = not mapping["type"].startswith("float")
    if kind == "png" and integers and low >= 0 and high < 1 << 16:
        return kind, False, "uint16"
    if kind == "png" and format is not None:
        raise LaffError(
            f"its samples are {mapping['type']}, which PNG does not hold: use --format tif"
        )
    return "tif", False, mapping["type"]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LaffError(
            f"{folder}: this folder cannot be made: {error.strerror}; choose another"
        ) from error
