"""A picture is coded in tiles, each on its own, so that memory follows the tile."""

from typing import NamedTuple

TILE = 1024
"""Edge of a full tile in pixels; the last tiles of a row or column are what remains."""


class Tile(NamedTuple):
    """One tile's number and its window in the picture, in pixels."""

    index: int
    y: int
    x: int
    height: int
    width: int


def tile_grid(height: int, width: int, tile: int = TILE) -> list[Tile]:
    """Cut a picture of `height` x `width` pixels into tiles, row by row.

    Returns the tiles in the order in which an archive lists them.
    """
    return [
        Tile(i, y, x, min(tile, height - y), min(tile, width - x))
        for i, (y, x) in enumerate(
            (y, x) for y in range(0, height, tile) for x in range(0, width, tile)
        )
    ]
