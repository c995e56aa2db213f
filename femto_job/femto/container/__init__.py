"""The archive: JSON text that holds the k-strings, gzip-ed (see docs/SPEC.md).

Everything here is about bytes and text; what the strings mean is the coder's business.
"""

from .archive import (
    FORMAT,
    PASSES,
    TUNES,
    VERSION,
    AnyPath,
    Archive,
    ByteStream,
    ImageHeader,
    Info,
    Layers,
    Stored,
    Wanted,
    check_pixels,
    finest_step,
)
from .bounds import BELIEVED_PIXELS, MAX_ERROR, MAX_PIXELS, MAX_SIDE, MAX_STREAM
from .header import is_plain, pack_metadata, unpack_metadata
from .reading import arriving, read
from .salvage import Salvaged, salvage
from .strings import EncodedTile, Tiles
from .telling import is_archive, read_header
from .writing import write

__all__ = [
    "BELIEVED_PIXELS",
    "FORMAT",
    "MAX_ERROR",
    "MAX_PIXELS",
    "MAX_SIDE",
    "MAX_STREAM",
    "PASSES",
    "TUNES",
    "VERSION",
    "AnyPath",
    "Archive",
    "ByteStream",
    "EncodedTile",
    "ImageHeader",
    "Info",
    "Layers",
    "Salvaged",
    "Stored",
    "Tiles",
    "Wanted",
    "arriving",
    "check_pixels",
    "finest_step",
    "is_archive",
    "is_plain",
    "pack_metadata",
    "read",
    "read_header",
    "salvage",
    "unpack_metadata",
    "write",
]
