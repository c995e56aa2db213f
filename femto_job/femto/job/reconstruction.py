"""From archives to picture files: which there are, what their pictures are called, whether these
are there already, and how they are made. What decompressor.py and restore.py have in common."""

import argparse
import itertools
import os
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import femto

from ..container import BELIEVED_PIXELS, check_pixels
from ..errors import LaffError
from ..files.folder import ARCHIVES, Found, LeftOut, find, folded
from ..pictures import write_picture
from ..pictures.metadata import unheld
from ..samples import dtype_of
from .written import Written, append

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


def find_archives(folder: Path, *, recursive: bool, skip: Path | None = None) -> Found:
    """The archives of a folder as `femto.files.folder.find` lists them. Raises OSError."""
    return find(folder, ARCHIVES, recursive=recursive, skip=skip)


def no_archives(left_out: LeftOut) -> str:
    """What is said of a folder without archives."""
    hint = left_out.hint("name a folder of .laff.gz or .laff files")
    return f"no archives in this folder: {hint}"


def stem(name: str) -> str:
    """An archive's name without .laff.gz or .laff."""
    for suffix in ARCHIVES:
        if name.lower().endswith(suffix) and len(os.path.basename(name)) > len(suffix):
            return name[: -len(suffix)]
    return name


def picture_names(archives: dict[str, str], suffix: str) -> dict[str, str]:
    """The name of every archive's picture below the output folder.

    `archives` are paths of archives, each with its place below the output folder, as `a/x.laff.gz`
    for a/x.png. Archives of one place from several folders keep as much of their folders' path as
    sets them apart; those of one folder (x.laff.gz and x.laff) keep their whole name but for the
    first, and become x.png and x.laff.png.
    """
    pictures = {path: stem(place) + suffix for path, place in archives.items()}
    for group in _alike(pictures):
        parents = {path: Path(os.path.abspath(path)).parent for path in group}
        if len(set(parents.values())) > 1:
            common = os.path.commonpath(list(parents.values()))
            for path, parent in parents.items():
                name = os.path.basename(pictures[path])
                pictures[path] = os.path.normpath(
                    os.path.join(os.path.relpath(parent, common), name)
                )
    for group in _alike(pictures):
        group.sort(key=lambda path: (not path.endswith(ARCHIVES[0]), path))
        for path in group[1:]:
            folder = os.path.dirname(pictures[path])
            pictures[path] = os.path.join(folder, os.path.basename(path) + suffix)
    return pictures


def _alike(pictures: dict[str, str]) -> list[list[str]]:
    """Groups of archives whose pictures some file system takes for one: case, composition."""
    counts = Counter(map(folded, pictures.values()))
    groups = defaultdict(list)
    if len(counts) < len(pictures):
        for path, name in pictures.items():
            if counts[folded(name)] > 1:
                groups[folded(name)].append(path)
    return list(groups.values())


# ------------------------------------------------------------------------------------------------
# What is there


def standing(
    archive: str, picture: str, written: Written, wanted: Wanted, *, overwrite: bool
) -> tuple[dict | None, bool]:
    """Whether an archive's picture is there.

    Parameters: paths of both, the picture's below the folder of `written`. Returns its record if
    it is there as it is wanted, else None; and whether another file may be replaced by it: one
    that was made of this archive before that changed, or any if `overwrite` says so. Raises
    LaffError if another picture is there and stays.
    """
    names = [picture]
    if wanted.format is None:
        names.append(str(Path(picture).with_suffix(".tif")))
    for name in names:
        path = written.folder / name
        record = written.find(name)
        if record is None or not _is_file(path, record, "picture"):
            continue  # nothing there, or nothing that femto knows: that is compared
        own = record["archive"] == os.path.realpath(archive)
        same = own and _is_file(archive, record, "archive")
        if same and record["content"] == wanted.content:
            return record, False
        if overwrite:
            return None, True
        if same:
            raise LaffError(
                f"{path}: was made of it with other options; overwrite it or choose a new name"
            )
        if own:
            return None, True
        if os.path.exists(record["archive"]):
            raise LaffError(
                f"{path}: is the picture of {record['archive']}; overwrite it or choose a new name"
            )
    return None, overwrite


def _is_file(path, record: dict, kind: str) -> bool:
    """Whether a file is the one that a record tells of, unchanged."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    told = (record.get(f"{kind}_bytes"), record.get(f"{kind}_mtime_ns"))
    return told == (status.st_size, status.st_mtime_ns)


def remember(folder: Path, archive: str, before: os.stat_result, made: "Made", wanted: Wanted):
    """Keep the record of a picture and return it; `before` is the archive's status when it was
    opened. Raises OSError."""
    status = os.stat(made.path)
    record = {
        "picture": os.path.relpath(made.path, folder),
        "picture_bytes": status.st_size,
        "picture_mtime_ns": status.st_mtime_ns,
        "archive": os.path.realpath(archive),
        "archive_bytes": before.st_size,
        "archive_mtime_ns": before.st_mtime_ns,
        "content": wanted.content,
        **made.facts,
    }
    append(folder, record)
    return record


# ------------------------------------------------------------------------------------------------
# Making pictures


@dataclass(frozen=True)
class Made:
    """A picture that was written: whether it is `new` or the very same file was there; `facts` of
    its record: width, height, mode, bits, raw_bytes, seconds, notes."""

    path: Path
    new: bool
    facts: dict


def make_picture(
    archive, path: Path, wanted: Wanted, *, overwrite=False, basis=None, threads: int = 1
) -> Made:
    """Decode an archive (bytes, a path or parsed) into a picture file, band by band in bounded
    memory, and the folder that it lies in if need be.

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
    bands = femto.decode_bands(
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
