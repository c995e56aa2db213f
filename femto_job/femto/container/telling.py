"""What stands in an archive before its strings, alone: whether a file is an archive, and of which
picture. Nothing behind it is read."""

import re
import zlib

from ..errors import LaffError
from .archive import Archive, ByteStream
from .reading import arriving

_ENOUGH = 1 << 12
_SAYS_SO = re.compile(rb'\s*\{.*?"format"\s*:\s*"laff"', re.DOTALL)


def is_archive(head: bytes) -> bool:
    """Whether a file that begins with these bytes, some hundred at least, is an archive, damaged or
    not: it says so in the first 4096 characters of its text, as all do that femto writes."""
    text = head[:_ENOUGH]
    if head[:2] == b"\x1f\x8b":
        try:
            # No more than is looked at: what is damaged behind it is another matter.
            text = zlib.decompressobj(31).decompress(head, _ENOUGH)
        except zlib.error:
            return False
    return _SAYS_SO.match(text) is not None


def read_header(stream: ByteStream, name: str = "archive") -> Archive:
    """An archive without its strings, from a binary stream that is at its beginning; `name` is for
    messages. Raises LaffError for what is no archive, and for a header that cannot be used."""
    found: list[Archive] = []

    def stop(archive: Archive) -> None:
        found.append(archive)
        raise LaffError("that is all")

    try:
        for _ in arriving(stream, name, wanted=stop):
            pass
    except LaffError:
        if not found:
            raise
    return found[0]
