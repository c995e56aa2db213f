"""Pictures of damaged archives, as far as these are good."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from .. import codec
from ..basis.bases import basis_of
from ..container import AnyPath, Archive, Salvaged, Stored, check_pixels, salvage
from ..errors import LaffError
from ..samples import restore
from ..tiles import tile_at, tile_rows

LISTED = 5
"""Most tiles that are named."""


def salvaged(archive: Stored, max_pixels: int | None) -> Salvaged:
    """What is left of an archive. Raises LaffError if that is nothing, or if it has more pixels
    than is believed."""

    def accept(parsed: Archive) -> None:
        pixels = parsed.header.height * parsed.header.width
        check_pixels(parsed, pixels, max_pixels, streamed=True)

    found = salvage(archive, accept=accept)
    if not found.layers:
        raise LaffError(
            f"{found.archive.name}: no tile has both strings that a picture takes: "
            "look for another copy"
        )
    return found


def fill(archive: Archive) -> int:
    """The sample that stands where a tile is lost: the middle of the levels."""
    low, high = archive.header.levels
    return (low + high + 1) // 2


def bands(
    found: Salvaged, archive: Archive, *, samples: bool, basis: AnyPath | None, **whole: object
) -> Iterator[tuple[int, np.ndarray]]:
    """As femto.decode_bands of a `whole` picture: every tile from as many layers as it has, those
    that have none filled. Raises LaffError if its basis is not there."""
    parsed = codec.parse(archive, basis=basis)
    basis_of(parsed)
    header = parsed.header
    colours = (3,) if header.channels == 3 else ()
    for row in tile_rows(header.height, header.width, parsed.tile):
        band = np.full((row[0].height, header.width, *colours), fill(parsed), header.dtype)
        for tile in row:
            if have := found.layers.get(tile.index):
                pixels = codec.decode_tile(parsed, tile.index, layers=have)
                band[:, tile.x : tile.x + tile.width] = pixels
        yield row[0].y, band if samples else restore(band, header.mapping)


def losses(found: Salvaged) -> str:
    """What is missing, in one line."""
    archive = found.archive
    most = len(archive.layers)
    place = partial(
        tile_at, height=archive.header.height, width=archive.header.width, tile=archive.tile
    )
    lost, coarse, named = 0, 0, []
    for index, have in found.damaged():
        lost += not have
        coarse += have > 0
        if len(named) < LISTED:
            tile = place(index)
            where = (
                f"tile {index} (rows {tile.y} to {tile.y + tile.height - 1}, "
                f"columns {tile.x} to {tile.x + tile.width - 1})"
            )
            named.append(f"{where} from layer {have + 1} on" if have else where)
    parts = []
    if lost:
        parts.append(f"{lost} of {found.tiles} tiles are lost")
    if coarse:
        parts.append(f"{coarse} of {found.tiles} tiles lack some of the {most} layers")
    if not found.ended:
        parts.append(f"its end is lost, and with it whatever came behind layer {most}")
    if not parts:
        return "all strings are good, what is between them is not"
    more = lost + coarse - len(named)
    names = ", ".join(named) + (f" and {more} more" if more else "")
    return "; ".join(parts) + (f": {names}" if names else "")
