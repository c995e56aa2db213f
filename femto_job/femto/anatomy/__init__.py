"""What an archive is made of, to look at: blocks, bases, components, scores.

Notebooks and drawings see the codec's insides through these few functions alone.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..basis.bases import Basis, load_basis
from ..codec import AnyArchive, decode_field, parse
from ..coding import blocks, kstrings
from ..coding.blocks import CELL, ZIGZAG, ZONES
from ..coding.contexts import Field
from ..container import Archive
from ..samples import levels_of
from ..tiles import Tile, tile_grid


class Block(NamedTuple):
    """A block of a picture: its corner and edge in pixels, and its class.

    Class 0 is the plain cosine basis; blocks larger than 8 pixels have no other.
    """

    y: int
    x: int
    size: int
    label: int


class Layer(NamedTuple):
    """What a layer adds: the scores of the components from `first` to before `stop`, which are
    known in whole multiples of `step` quantiser steps then."""

    step: int
    first: int
    stop: int


def _decoded(parsed: Archive) -> Iterator[tuple[Tile, Field, Basis]]:
    """The tiles of an archive, what their strings say, and its basis."""
    for tile in tile_grid(parsed.header.height, parsed.header.width, parsed.tile):
        yield tile, *decode_field(parsed, tile.index)


def _check_plane(parsed: Archive, plane: int) -> None:
    if not 0 <= plane < parsed.header.channels:
        last = parsed.header.channels - 1
        raise ValueError(f"plane {plane}: this picture has planes 0 to {last}")


def layers(archive: AnyArchive) -> list[Layer]:
    """What each layer of an archive adds, in their order."""
    parsed = parse(archive)
    found, before, first = [], None, 0
    for level, stop in kstrings.LAYERS[parsed.passes][: len(parsed.layers)]:
        first = first if level == before else 0
        found.append(Layer(1 << level, first, stop))
        before, first = level, stop
    return found


def block_map(archive: AnyArchive, *, plane: int = 0) -> list[Block]:
    """How a plane of an archive's picture is cut into blocks, and the class of each.

    `archive` is bytes, a path or what `femto.parse` returned; `plane` 0 is luma, 1 and 2 chroma.
    Blocks at the right and lower edge may hang over the picture.
    """
    parsed = parse(archive)
    _check_plane(parsed, plane)
    found = []
    for tile, field, _ in _decoded(parsed):
        layout = field.layout
        for cell, size, _ in field.lists[min(plane, 1)].tolist():
            row, column = divmod(cell - layout.origin, layout.stride)
            label = int(field.classes[cell]) if plane == 0 and size == 0 else 0
            found.append(Block(tile.y + CELL * row, tile.x + CELL * column, CELL << size, label))
    return found


def score_map(archive: AnyArchive, component: int, *, plane: int = 0) -> NDArray[Any]:
    """The integers that an archive stores for one component, where their blocks lie.

    int32 (⌈height / 8⌉, ⌈width / 8⌉): a small block has one score per component, larger blocks
    have one for each of their 8 x 8 cells. Of an archive that was cut where a pass ends they are in
    the steps of that pass. Parameters as for `block_map`; `component` 0 to 63.
    """
    parsed = parse(archive)
    _check_plane(parsed, plane)
    if not 0 <= component < ZONES:
        raise ValueError(f"component {component}: there are components 0 to {ZONES - 1}")
    header = parsed.header
    out = np.zeros((-(-header.height // CELL), -(-header.width // CELL)), np.int32)
    for tile, field, _ in _decoded(parsed):
        layout = field.layout
        values = field.values.reshape(layout.planes, ZONES + 1, -1, layout.stride)
        row, column = divmod(layout.origin, layout.stride)
        inside = np.s_[row : row + layout.rows, column : column + layout.columns]
        found = values[plane, component][inside]
        if component == 0 and field.used[0, plane]:
            sizes = field.sizes[min(plane, 1)].reshape(-1, layout.stride)[inside]
            corners = [b[0] - layout.origin for b in field.lists[min(plane, 1)].tolist()]
            means = np.zeros(found.shape, bool)
            means[tuple(np.divmod(corners, layout.stride))] = True
            found = found - np.where(means, kstrings.MEAN_OFFSET << sizes.astype(np.int32), 0)
        y, x = tile.y // CELL, tile.x // CELL
        out[y : y + layout.rows, x : x + layout.columns] = found
    return out


def decode_components(archive: AnyArchive, count: int) -> NDArray[Any]:
    """The picture as its first `count` components (0 to 64) alone show it.

    Returns (h, w) or (h, w, 3), uint8 or uint16, as `femto.decode` does, which takes whole
    layers.
    """
    parsed = parse(archive)
    header = parsed.header
    shape = (header.height, header.width) + ((3,) if header.channels == 3 else ())
    image: NDArray[Any] = np.empty(shape, header.dtype)
    for tile, field, basis in _decoded(parsed):
        layout = field.layout
        field.values.reshape(layout.planes, ZONES + 1, -1)[:, count:] = 0
        np.minimum(field.used, count, out=field.used)
        scores = kstrings.dequantise(field, parsed.step, basis)
        planes = kstrings.planes_of(scores, field, parsed.step, basis)
        image[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] = blocks.to_pixels(
            planes, field.colour, header.dtype, header.levels, header.limits
        )
    return image


def bases(name: str = "photo") -> NDArray[Any]:
    """The SVD bases of a basis's classes as pictures of 8 x 8 pixels.

    float32 (classes, 64, 8, 8): of each class its components, orthonormal, the mean first; class
    0 is the cosine basis.
    """
    rotations = load_basis(name).backward
    dct = blocks.dct_matrix(CELL)
    waves = np.einsum("ki,kj->kij", dct[ZIGZAG[:, 0]], dct[ZIGZAG[:, 1]])
    return np.einsum("ckz,zij->ckij", rotations, waves).astype(np.float32)


def colour_planes(image: NDArray[Any]) -> NDArray[Any]:
    """The planes in which femto codes a picture of one tile, float64 (planes, h, w), about 0: one
    of brightness and two of colour. Of a grey picture the one plane. In the units of the picture.
    """
    centred = image.astype(np.float64) - levels_of(8 * image.dtype.itemsize).middle
    if image.ndim == 2:
        return centred[None]
    forward, _ = blocks.colour_matrices(blocks.choose_colour(image))
    return np.einsum("pc,yxc->pyx", forward, centred)


def patches(plane: NDArray[Any]) -> NDArray[Any]:
    """The whole 8 x 8 blocks of a plane (h, w), row by row: (blocks, 64)."""
    rows, columns = plane.shape[0] // CELL, plane.shape[1] // CELL
    cut = plane[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL)
    return cut.swapaxes(1, 2).reshape(rows * columns, CELL * CELL)
