"""A picture is coded in tiles, each on its own, so that memory follows the tile."""

from collections.abc import Iterator
from typing import NamedTuple

TILE = 1024
"""Edge of a full tile in pixels; the last tiles of a row or column are what remains."""


class Tile(NamedTuple):
    """One tile's number and its window in the picture, in pixels."""

    index: int  # type: ignore[assignment]  # tuples have a method of that name
    y: int
    x: int
    height: int
    width: int


class Region(NamedTuple):
    """A part of a picture, in pixels: rows from y, columns from x."""

    y: int
    x: int
    height: int
    width: int


def tile_count(height: int, width: int, tile: int = TILE) -> int:
    """How many tiles a picture of `height` x `width` pixels has."""
    return -(-height // tile) * -(-width // tile)


def tile_at(index: int, height: int, width: int, tile: int = TILE) -> Tile:
    """Tile number `index` of a picture of `height` x `width` pixels."""
    row, column = divmod(index, -(-width // tile))
    y, x = row * tile, column * tile
    return Tile(index, y, x, min(tile, height - y), min(tile, width - x))


def tile_rows(
    height: int, width: int, tile: int = TILE, region: Region | None = None
) -> Iterator[list[Tile]]:
    """The rows of tiles of a picture of `height` x `width` pixels, from the top; only the tiles
    that `region` touches, if one is given."""
    region = Region(0, 0, height, width) if region is None else region
    columns = -(-width // tile)
    first, last = region.x // tile, (region.x + region.width - 1) // tile
    for row in range(region.y // tile, (region.y + region.height - 1) // tile + 1):
        numbers = range(row * columns + first, row * columns + last + 1)
        yield [tile_at(n, height, width, tile) for n in numbers]


def tile_grid(height: int, width: int, tile: int = TILE) -> list[Tile]:
    """Cut a picture of `height` x `width` pixels into tiles, row by row.

    Returns the tiles in the order in which an archive lists them.
    """
    return [tile for row in tile_rows(height, width, tile) for tile in row]
