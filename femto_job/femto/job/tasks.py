"""What runs in an executor. Nothing here raises: every picture becomes a result or a reason.

An exception in a task would make Spark repeat it and then give up the whole job, for one bad file.
"""

import hashlib
import io
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .. import LaffError, codec, target
from ..container import unpack_metadata
from ..files.folder import Source
from ..files.whole import whole_file
from ..pictures.page import MAPPED
from ..samples import Counts, Levels, Span
from . import measure, proof, pulse, runner
from .look import Look
from .plan import Picture
from .records import append_record
from .runner import Item, reason_of
from .sandbox import Sandbox, UnreadablePicture
from .settings import Settings

_sandbox = Sandbox()
"""One per executor process; Spark keeps the process for the tasks that follow."""
_pulse: pulse.Pulse | None = None


@dataclass(frozen=True)
class Pixels:
    """Pixels on their way from the driver to an executor."""

    shape: tuple
    dtype: str
    data: bytes
    icc: bytes | None
    info: dict

    @classmethod
    def of(cls, array: np.ndarray, icc: bytes | None, info: dict) -> "Pixels":
        return cls(array.shape, array.dtype.str, array.tobytes(), icc, info)

    def array(self) -> np.ndarray:
        return np.frombuffer(self.data, self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Chunk:
    """Some tiles of one large picture for a task; `payload` are their pixels if the task cannot
    read the file, `span` the picture's levels; `look`: whether to look at the pixels for what
    should make people wonder."""

    picture: Picture
    tiles: list
    step: float = 0.0
    span: Span | None = None
    look: bool = False
    payload: list[Pixels] | None = None


def _own_pulse(settings: Settings) -> pulse.Pulse:
    """What this process tells of itself in the present job."""
    global _pulse
    path = pulse.path_of(settings.folders.token.parent, settings.folders.run)
    if _pulse is None or _pulse.path != path:
        if _pulse is not None:
            _pulse.close()
        _pulse = pulse.Pulse(path)
    return _pulse


SMALL = 2048
"""A file of so many bytes may well hold nothing worth to speak of."""


def failure(picture: Picture, error: BaseException) -> dict:
    """The result of a picture that failed."""
    return {"key": picture.archive} | runner.failure(error)


def probe_files(
    settings: Settings, batches: Iterator[list[Source]]
) -> Iterator[tuple[str, list[dict] | None, str | None]]:
    """A partition of files: (name, pages, reason), one of the last two None.

    Only "unseen" as the reason means that this executor cannot read the folder at all.
    """
    for sources in batches:
        seen = None
        for source in sources:
            try:
                path, reading = settings.folders.path(source), settings.options.reading
                pages = _sandbox.probe(path, name=source.name, reading=reading)
                yield source.name, pages, None
            except UnreadablePicture as error:
                seen = settings.folders.are_seen() if seen is None else seen
                yield source.name, None, reason_of(error) if seen else "unseen"


def compress_pictures(settings: Settings, groups: Iterator[list[Item]]) -> Iterator[dict]:
    """A partition of ordinary pictures, each compressed as a whole.

    Yields for each picture a dict: `key`, its archive's name, and either `record`, `error` (with
    `fatal`) or `unseen`; also `data`, the archive, if the driver is to write it.
    """
    for items in groups:
        seen = None
        for item in items:
            if item.payload is None and seen is None:
                seen = settings.folders.are_seen()
            if item.payload is None and not seen:
                yield {"key": item.thing.archive, "unseen": True}
                continue
            own = _own_pulse(settings) if item.payload is None else None
            with pulse.Share(own, item.thing.pixels, settings.options.passes) as share:
                try:
                    yield _compress(settings, item, share)
                except Exception as error:
                    yield failure(item.thing, error)


def read_page(settings: Settings, picture: Picture, data: bytes | None = None, sandbox=None):
    """Open a picture's page, from its path or its bytes."""
    return (sandbox or _sandbox).open(
        settings.folders.path(picture.source) if data is None else None,
        data,
        name=picture.source.name,
        page=picture.page,
        gray=settings.options.gray,
        pixels=picture.pixels,
        reading=settings.options.reading,
        place=picture.place,
    )


def _compress(settings: Settings, item: Item, share: pulse.Share) -> dict:
    began, cpu = time.monotonic(), time.thread_time()
    picture = item.thing
    if isinstance(item.payload, Pixels):
        pixels, icc, info = item.payload.array(), item.payload.icc, item.payload.info
    else:
        page = read_page(settings, picture, item.payload)
        pixels, icc, info = page.read(), page.icc, page.info
    check_exact(settings, info)
    levels = info.get("levels")
    grid = codec.tile_grid(*pixels.shape[:2])
    watch = settings.watch(picture, lambda: measure.busiest_tile(pixels, grid))

    witness = proof.Witness(watch)

    def watching(tile, *what):
        share.add(tile.height * tile.width)
        return witness(tile, *what)

    made = codec.encode_picture(
        pixels,
        target=settings.options.target,
        method=settings.options.method | {"basis": settings.local_basis()},
        bits=settings.declared_bits(picture),
        levels=None if levels is None or settings.options.bits is not None else Levels(*levels),
        mapping=info.get("mapping"),
        icc=icc,
        watch=watching,
        **embedded(settings, picture, info),
    )
    data = made.data
    seen = [word.seen for word in made.seen]
    facts = {} if watch is None else watch.facts(seen, icc, made.header.levels)
    look = Look.nothing()
    for tile in grid:
        look += Look.of(pixels[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width])
    span = Span(made.header.levels, made.header.limits, made.outliers)
    facts |= remarks(settings, picture, info, look, span, made.sse, made.outcome, len(data))
    facts |= {"cpu_seconds": time.thread_time() - cpu, "archive_bytes": len(data)}
    record = make_record(settings, picture, pixels.shape, facts)
    result = {"key": picture.archive, "record": record}

    def prove(archive: bytes | Path) -> None:
        with proof.Watch() as taken:
            if isinstance(item.payload, bytes):
                record["source_sha256"] = hashlib.sha256(item.payload).hexdigest()
            elif item.payload is None:
                path = settings.folders.path(picture.source)
                record["source_sha256"] = proof.source_digest(path, picture.source)
            record.update(proof.prove(archive, made.header, made.seen, settings.basis_file()))
        record["verify_seconds"] = taken.seconds

    wanted = settings.options.verify
    record["seconds"] = time.monotonic() - began
    if item.payload is not None:
        if wanted:
            prove(data)
        return result | {"data": data}
    save(settings, picture, record, io.BytesIO(data), prove if wanted else None)
    return result


def check_exact(settings: Settings, info: dict) -> None:
    """LaffError if no error is to be made, or a small one, but reading the picture made some."""
    if settings.options.max_error is not None and any(MAPPED in n for n in info.get("notes", ())):
        raise LaffError(
            f"its samples are {MAPPED}, which is not exact: no --lossless and --max-error for it, "
            "unless you convert it to integers of 16 bits yourself"
        )


def embedded(settings: Settings, picture: Picture, info: dict) -> dict:
    """The `source` and `metadata` that an archive keeps, from what the picture's reader says."""
    if settings.options.strip_metadata:
        return {"source": None, "metadata": None}
    kept = picture.embedded
    if info.get("metadata") is not None:
        kept["metadata"] = unpack_metadata(info["metadata"]) | (kept["metadata"] or {})
    return kept


def save(
    settings: Settings,
    picture: Picture,
    record: dict,
    data: BinaryIO,
    prove: Callable[[Path], Any] | None = None,
) -> None:
    """Write an archive, from the beginning of `data`, and its record. `prove` is called with its
    file on disk before it has its name. Raises OSError; LaffError if a file of other origin has its
    name; what `prove` raises."""
    path = Path(settings.folders.output, record["archive"])
    if picture.unclaimed and path.exists() and not _is_copy(path, data):
        raise LaffError(foreign(picture))
    data.seek(0)

    def before_rename(part: Path) -> None:
        if prove is not None:
            prove(part)
        append_record(settings.folders.output, record)

    with whole_file(path, below=settings.folders.output, before_rename=before_rename) as file:
        shutil.copyfileobj(data, file)


def _is_copy(path: Path, data: BinaryIO) -> bool:
    """Whether a file holds the same bytes."""
    data.seek(0)
    with open(path, "rb") as file:
        while ours := data.read(1 << 20):
            if file.read(len(ours)) != ours:
                return False
        return not file.read(1)


def foreign(picture: Picture) -> str:
    """Why an archive must not be replaced that no record tells of."""
    return (
        f"{picture.archive} exists and was not made from it: move that file away, choose another "
        "--output, or replace it with --overwrite"
    )


def make_record(settings: Settings, picture: Picture, shape: tuple, facts: dict) -> dict:
    """What the output folder remembers of an archive (see records.py)."""
    return {
        "archive": picture.archive,
        "input": settings.folders.input,
        "run": settings.folders.run,
        "picture": picture.source.name,
        "base": picture.base,
        "page": picture.page,
        "pages": picture.pages,
        "label": picture.label,
        "source_bytes": picture.source.nbytes,
        "source_mtime_ns": picture.source.mtime_ns,
        "settings": settings.fingerprint,
        "width": shape[1],
        "height": shape[0],
        "mode": "L" if len(shape) == 2 else "RGB",
        "bits": picture.bits,
        "raw_bytes": picture.raw_nbytes,
        "ssim": None,
        "visual": None,
        "source_sha256": None,
        "archive_sha256": None,
        "pixels_sha256": None,
        "verify_seconds": None,
        **facts,
    }


def remarks(
    settings: Settings,
    picture: Picture,
    info: dict,
    look: Look,
    span: Span,
    sse: float,
    outcome: str | None,
    nbytes: int,
) -> dict:
    """What a record says of a picture that was compressed: its PSNR in dB (infinite without any
    error), notes, warnings, and whether the target was met.

    Parameters: `info` what its reader says, `look` at all its tiles, the squared error of all
    samples, how the target was met (see StepSearch.outcome) and the archive's bytes.
    """
    notes, warnings = list(info.get("notes", ())), []
    psnr = target.psnr(sse, picture.pixels * picture.channels, span.levels.range)
    if (
        settings.options.bits is not None
        and settings.declared_bits(picture) != settings.options.bits
    ):
        notes.append(
            f"its samples have {picture.bits} bits, --bits {settings.options.bits} is not for it"
        )
    if outcome in ("missed", "better"):
        (name, asked), *_ = settings.options.target.items()
        if name == "ratio":
            text = f"ratio {picture.raw_nbytes / nbytes:.2f} instead of {asked:g}"
        else:
            text = f"PSNR {psnr:.1f} dB instead of {asked:g}"
        if outcome == "missed":
            warnings.append(f"the target cannot be met: {text}")
        else:
            notes.append(f"better than the target: {text}")
    if span.outliers:
        notes.append(
            f"{span.outliers} samples lie outside of levels {span.levels.low} to "
            f"{span.levels.high}, which quality follows (from {span.limits.low} to "
            f"{span.limits.high}): use --bits if these are not what the picture uses"
        )
    exact = settings.options.max_error == 0
    if look.drawn and not exact:
        warnings.append(
            "flat areas with hard edges: label images, masks and drawings do not belong into a "
            "lossy codec, keep them as PNG or with --lossless"
        )
    if look.constant and picture.source.nbytes > SMALL + picture.raw_nbytes // 100:
        warnings.append(
            f"all samples are the same, but the file has {picture.source.nbytes} bytes: "
            "look whether it was read right"
        )
    elif sse == 0 and not exact and picture.source.nbytes > SMALL:
        warnings.append("its archive has no error at all: look whether it was read right")
    met = {"met": True, "better": True, "missed": False, None: None}[outcome]
    return {"psnr": psnr, "notes": notes, "warnings": warnings, "target_met": met}


def _chunk_pixels(
    settings: Settings, chunk: Chunk
) -> tuple[Iterator[np.ndarray], bytes | None, dict]:
    """The pixels of a chunk's tiles one after the other, the picture's ICC profile, and what its
    reader says."""
    if chunk.payload is not None:
        arrays = (p.array() for p in chunk.payload)
        icc, info = chunk.payload[0].icc, chunk.payload[0].info
    else:
        arrays, icc, info = read_tiles(settings, chunk.picture, chunk.tiles)
    return arrays, icc, about(chunk.tiles, info)


def about(tiles: list, info: dict) -> dict:
    """What travels of a reader's words with these tiles: the metadata, which may be large, with the
    picture's first ones alone."""
    return info if tiles[0].index == 0 else info | {"metadata": None}


def read_tiles(settings: Settings, picture: Picture, tiles: list, sandbox=None):
    """Tiles of a picture, each read when it is its turn: a row of them may be long. Returns an
    iterator of arrays, the ICC profile and what the reader says."""
    page = read_page(settings, picture, sandbox=sandbox)
    if page.shape[:2] != (picture.height, picture.width):
        raise UnreadablePicture("its header and its pixels disagree: the file is damaged")
    arrays = (page[t.y : t.y + t.height, t.x : t.x + t.width] for t in tiles)
    return arrays, page.icc, page.info


def count_chunks(settings: Settings, chunks: Iterator[Chunk]) -> Iterator[dict]:
    """A partition of chunks of a large picture: find out which levels its samples use.

    Yields dicts with `counts` (packed) and `info`, or `error`, or `unseen`.
    """
    for chunk in chunks:
        try:
            if chunk.payload is None and not settings.folders.are_seen():
                yield {"unseen": True, "key": chunk.picture.archive}
                continue
            arrays, _, info = _chunk_pixels(settings, chunk)
            first, *others = map(Counts.of, arrays)
            yield {"counts": sum(others, first).pack(), "info": info}
        except Exception as error:
            yield failure(chunk.picture, error)


def code_chunks(settings: Settings, chunks: Iterator[Chunk]) -> Iterator[dict]:
    """A partition of chunks of a large picture: code their tiles.

    Yields dicts with `tiles` (pairs of tile number and EncodedTile, which has a proof.Word as what
    was seen), `icc`, `info`, `look` and `cpu_seconds`, or `error`, or `unseen`.
    """
    for chunk in chunks:
        picture = chunk.picture
        try:
            if chunk.payload is None and not settings.folders.are_seen():
                yield {"unseen": True, "key": picture.archive}
                continue
            arrays, icc, info = _chunk_pixels(settings, chunk)
            check_exact(settings, info)
            coded, look, cpu = [], Look.nothing(), time.thread_time()
            grid = codec.tile_grid(picture.height, picture.width)
            watch = settings.watch(picture, lambda grid=grid: grid[len(grid) // 2].index)
            witness = proof.Witness(watch)
            for tile, pixels in zip(chunk.tiles, arrays, strict=True):
                encoded = codec.encode_tile(
                    np.ascontiguousarray(pixels),
                    step=chunk.step,
                    levels=chunk.span.levels,
                    limits=chunk.span.limits,
                    basis=settings.local_basis(),
                    watch=partial(witness, tile, chunk.span.levels),
                    **settings.options.method,
                )
                coded.append((tile.index, encoded))
                if chunk.look:
                    look += Look.of(pixels)
                if chunk.payload is None:
                    _own_pulse(settings).add(tile.height * tile.width, picture.archive)
            cpu = time.thread_time() - cpu
            yield {"tiles": coded, "icc": icc, "info": info, "look": look, "cpu_seconds": cpu}
        except Exception as error:
            yield failure(picture, error)


def prove_strings(settings: Settings, parts: Iterator[proof.Strings]) -> Iterator[dict]:
    """A partition of strings of a large archive: decode them and compare what they give.

    Yields dicts with `wrong`, the numbers of tiles that are not as they should be, and
    `cpu_seconds`; or `error`.
    """
    for part in parts:
        try:
            with proof.Watch() as taken:
                archive = replace(part.archive, basis_file=settings.basis_file())
                part = replace(part, archive=archive)
                wrong = list(part.faults())
            yield {"wrong": wrong, "cpu_seconds": taken.seconds}
        except Exception as error:
            yield runner.failure(error)
