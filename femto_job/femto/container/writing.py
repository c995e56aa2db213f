"""How an archive is written."""

import io
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from ..errors import LaffError
from ..samples import check_mapping
from ..tiles import TILE
from . import bounds
from .archive import PASSES, TUNES, ImageHeader
from .header import checksum, dump, head_of, pack_metadata
from .strings import seal


def write(
    header: ImageHeader,
    *,
    basis_name: str,
    basis_sha256: str,
    step: float,
    blocks: Iterable[bytes],
    layers: Iterable[Iterable[bytes]],
    passes: int = PASSES[0],
    tune: str = TUNES[0],
    max_error: int | None = None,
    tile: int = TILE,
    packed: str | None = None,
    file: BinaryIO | None = None,
) -> bytes | int:
    """The gzip-ed archive of a picture whose tiles are coded as `blocks[tile]` and
    `layers[layer][tile]`. `packed` are the metadata as another archive has them; default: those of
    the header, packed.

    With `file`, a binary one, the archive is written into it, string by string, and its bytes are
    counted. Raises LaffError for what an archive cannot keep.
    """
    if packed is None and header.metadata is not None:
        packed = pack_metadata(header.metadata)
    source, mapping = _plain_source(header.source), _plain_mapping(header)
    header = replace(header, source=source, mapping=mapping)
    head = head_of(header, basis_name, basis_sha256, step, passes, tune, tile, packed, max_error)
    crc = checksum(head)
    begin = dump(head | {"crc": crc})
    if len(begin) > bounds.MAX_HEADER - (1 << 16):
        raise LaffError(
            f"{len(begin)} characters of ICC profile and metadata are more than an archive keeps "
            f"({bounds.MAX_HEADER}): leave some out"
        )

    def pieces() -> Iterator[str]:
        yield f'{begin[:-1]},"blocks":'
        yield from _listed(blocks, crc, -1)
        yield ',"strings":['
        for layer, strings in enumerate(layers):
            yield "," if layer else ""
            yield from _listed(strings, crc, layer)
        yield "]}"

    if file is not None:
        return _gzip(pieces(), file)
    with io.BytesIO() as made:
        _gzip(pieces(), made)
        return made.getvalue()


def _plain_source(source: str | None) -> str | None:
    """A source as it will be read back, as UTF-8: a file name that is not (lone surrogates, as
    Python reads it) is written with escapes."""
    if source is None:
        return None
    if not isinstance(source, str):
        raise LaffError(f"the source {source!r} is not a file name: give a str")
    return source.encode("utf-8", "backslashreplace").decode()


def _plain_mapping(header: ImageHeader) -> dict[str, Any] | None:
    """A mapping as it will be read back. Raises LaffError for one that cannot be kept."""
    try:
        return check_mapping(header.mapping, header.limits)
    except ValueError as error:
        raise LaffError(f"the mapping cannot be kept ({error}): give another") from None


def _listed(strings: Iterable[bytes], head_crc: int, layer: int) -> Iterator[str]:
    """The text of an array of sealed strings."""
    yield "["
    for tile, data in enumerate(strings):
        yield f'{"," if tile else ""}"{seal(data, head_crc, layer, tile)}"'
    yield "]"


def _gzip(pieces: Iterable[str], file: BinaryIO) -> int:
    """Write text gzip-ed with Huffman codes only: base64 has no repeats that a search could find,
    and leaving the search out makes the text smaller, not just the work. No time stamp: equal
    pictures give equal archives. Returns the bytes."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31, 9, zlib.Z_HUFFMAN_ONLY)
    nbytes = 0
    for piece in pieces:
        nbytes += file.write(deflate.compress(piece.encode()))
    return nbytes + file.write(deflate.flush())
