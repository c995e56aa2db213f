"""What is to be done: which files are pictures, what their archives are called, how work is cut."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ..errors import JobError, printable
from ..files.folder import Found, Source, find
from ..samples import dtype_of

SUFFIX = ".laff.gz"
FIXED_COST = 50_000
"""What opening, naming and writing one picture costs, in pixels' worth of coding."""
TASK_PIXELS = 1 << 21
"""Most work in one task (two full tiles), so that progress shows and a lost task costs little."""
CUT_PIXELS = 16_000_000
"""A larger picture is always shared by several tasks."""
MIN_CUT_PIXELS = 4_000_000
"""A smaller one never is, unless the user asks."""
SHOWN = 12
"""Pictures shown in report.html, so that its size does not grow with the archive."""


@dataclass(frozen=True)
class Picture:
    """One page of one file, and the archive it becomes (a path below the output folder).

    `shown`: in the report; `unclaimed`: a file has the archive's name that no record tells of, and
    which only an equal one may replace.
    `segment` and `place` are those of femto.pictures.PageInfo.
    """

    source: Source
    page: int
    pages: int
    width: int
    height: int
    channels: int
    bits: int
    archive: str
    base: str
    label: str | None = None
    levels: tuple[int, int] | None = None
    segment: tuple[int, int] | None = None
    place: dict | None = None
    shown: bool = False
    unclaimed: bool = False

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def dtype(self) -> np.dtype:
        """The type of the samples, uint8 or uint16."""
        return dtype_of(self.bits)

    @property
    def raw_nbytes(self) -> int:
        """Bytes of the uncompressed samples."""
        return self.pixels * self.channels * self.dtype.itemsize

    @property
    def cost(self) -> int:
        return self.pixels + FIXED_COST

    @property
    def title(self) -> str:
        """The file's name, and which of its pictures if it has several."""
        return self.source.name + which(self.page, self.pages, self.label)

    @property
    def embedded(self) -> dict:
        """The `source` and `metadata` that the archive keeps."""
        name = PurePosixPath(self.source.name).name.encode("utf-8", "replace").decode()
        metadata = {"page": self.page + 1, "pages": self.pages} if self.pages > 1 else None
        if metadata and self.label:
            metadata["label"] = self.label
        return {"source": name, "metadata": metadata}


def require_pictures(
    folder: Path,
    *,
    recursive: bool,
    skip: Path | None = None,
    into: Found | None = None,
    may_be_empty: bool = False,
) -> Found:
    """The pictures of a folder as `femto.files.folder.find` lists them; JobError if it has none at
    all, unless it may be empty."""
    from ..pictures import EXTENSIONS

    try:
        found = find(folder, EXTENSIONS, recursive=recursive, skip=skip, into=into)
    except OSError as error:
        raise JobError(f"{printable(str(folder))}: {error.strerror}") from None
    if not found.sources and not found.failed and not may_be_empty:
        hint = found.left_out.hint("put pictures there, or name another folder with --input")
        raise JobError(f"{printable(str(folder))}: no pictures in this folder: {hint}")
    return found


def which(page: int, pages: int, label: str | None) -> str:
    """What a file's name is followed by in texts: nothing, " (page 3)" or " (z3)"."""
    return f" ({label or f'page {page + 1}'})" if pages > 1 else ""


def archive_name(base: str, page: int, pages: int, label: str | None = None) -> str:
    """The archive's path from its base: NAME.laff.gz; of a file of several pictures
    NAME.page-0001.laff.gz and so on, or by their labels, NAME.z3.laff.gz."""
    return base + (f".{label or f'page-{page + 1:04}'}" if pages > 1 else "") + SUFFIX


def without_extension(name: str) -> str:
    """A file's name, in its folder, without the last extension."""
    path = PurePosixPath(name)
    return (path.parent / path.stem).as_posix()


def cut_limit(pixels: int, cores: int, asked: float | None) -> float:
    """The number of pixels above which a picture is shared by several tasks.

    So few that the largest picture does not keep one core busy while the others are idle.
    `pixels` are those of all pictures; `asked` (megapixels) is the user's own limit.
    """
    if asked is not None:
        return asked * 1e6
    fair = pixels / (2 * max(1, cores))
    return min(CUT_PIXELS, max(MIN_CUT_PIXELS, fair))


def group(pictures: Iterable[Picture], cost: int, cores: int) -> Iterator[list[Picture]]:
    """Group pictures, the largest of which come first, into tasks of about equal work. `cost` is
    that of all of them."""
    size = min(TASK_PIXELS, max(cost / (8 * max(1, cores)), 10 * FIXED_COST))
    group: list[Picture] = []
    filled = 0
    for picture in pictures:
        if group and filled + picture.cost > size:
            yield group
            group, filled = [], 0
        group.append(picture)
        filled += picture.cost
    if group:
        yield group


def group_tiles(tiles: list, cores: int, segment: tuple[int, int] | None = None) -> list[list]:
    """Group the tiles of one picture into tasks: neighbours in a row of tiles, at most
    TASK_PIXELS each, and if possible four tasks per core.

    Where the file has to be decoded by the `segment` (height, width) and these are wider than a
    tile, such as strips, every task of a row decodes them again: then a row is one task, unless
    there are fewer rows than cores.
    """
    if segment is not None and segment[1] > tiles[0].width:
        rows = [list(row) for _, row in itertools.groupby(tiles, key=lambda tile: tile.y)]
        size = -(-len(rows[0]) // -(-max(1, cores) // len(rows)))
        return [row[i : i + size] for row in rows for i in range(0, len(row), size)]
    total = sum(t.height * t.width for t in tiles)
    size = min(TASK_PIXELS, total / (4 * max(1, cores)))
    groups: list[list] = []
    filled = 0
    for tile in tiles:
        pixels = tile.height * tile.width
        if not groups or tile.y != groups[-1][0].y or filled + pixels > size:
            groups.append([])
            filled = 0
        groups[-1].append(tile)
        filled += pixels
    return groups
