"""The text of an archive: unpacked no further than it is asked for, and read as JSON."""

import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import LaffError
from . import bounds
from .archive import ByteStream
from .header import parts_of

_FIRST_CHUNK, _CHUNK = 1 << 12, 1 << 16
"""Bytes that are read at first, and at most at a time: the first layer is near the beginning."""
_PIECE = 1 << 20
_SPACE = re.compile(rb"[ \t\n\r]*")
_MARK = re.compile(rb'["\[\]{}]')
_PLAIN = re.compile(rb'[^\s",:\[\]{}]*')


def _past(pattern: re.Pattern[bytes], text: bytearray, at: int) -> int:
    """Where what matches from there on ends."""
    found = pattern.match(text, at)
    return at if found is None else found.end()


class Cut(Exception):
    """The text is no JSON object, or ends before it does."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of JSON's pairs. Raises ValueError if a key comes twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found


class Text:
    """An archive's text, unpacked no further than it is asked for, and read as JSON.

    `buffer` holds what is at hand, from `at` on it is not yet used. Raises LaffError for bytes that
    cannot be unpacked, Cut for what is not JSON.
    """

    def __init__(self, stream: ByteStream, name: str, size: int | None):
        # Of a pipe, what is there.
        self._read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        self._name, self.size = name, size
        self._inflate: Any = None
        self._tail, self._begun = b"", False
        self._unpacked = self._header = 0
        self._chunk = _FIRST_CHUNK
        self.nbytes = 0
        self.buffer, self.at = bytearray(), 0

    def _bytes(self) -> bytes:
        """The next bytes of the stream, twice as many every time."""
        data = self._read(self._chunk)
        self._chunk = min(2 * self._chunk, _CHUNK)
        self.nbytes += len(data)
        return data

    def _piece(self) -> bytes:
        """The next piece of text; none at its end."""
        data = self._tail or self._bytes()
        if not self._tail:
            while not self._begun and len(data) == 1 and (more := self._bytes()):
                data += more
            if self.size is None and self.nbytes > bounds.MAX_STREAM:
                raise LaffError(
                    f"{self._name}: is longer than {bounds.MAX_STREAM} bytes: name a file"
                )
            if not self._begun:
                self._begun = True
                if not data:
                    raise LaffError(f"{self._name}: the file is empty: copy or compress it again")
                if data[:2] == b"\x1f\x8b":
                    self._inflate = zlib.decompressobj(31)
        if self._inflate is not None:
            data = self._unzip(data)
        self._unpacked += len(data)
        room = 1 << 16 if self.size is not None else bounds.MAX_HEADER
        if self._unpacked > min(
            (self.size or self.nbytes) * bounds.MAX_EXPANSION + room, bounds.MAX_TEXT
        ):
            raise LaffError(f"{self._name}: unpacks to more than any archive of its size: not used")
        return data

    def _unzip(self, data: bytes) -> bytes:
        inflate, text = self._inflate, b""
        while not text:
            if inflate.eof and (data or inflate.unused_data):
                raise LaffError(f"{self._name}: something follows the archive's end: copy it again")
            if inflate.eof:
                break
            ends = not data
            try:
                text = inflate.decompress(data, _PIECE)
            except zlib.error:
                raise LaffError(
                    f"{self._name}: the archive is damaged: copy or download it again"
                ) from None
            self._tail = inflate.unconsumed_tail
            if ends and not text and not inflate.eof:
                raise LaffError(
                    f"{self._name}: the archive is cut short: copy or download it again"
                )
            if not text:
                data = self._bytes()
        return text

    def more(self) -> bool:
        """Get another piece; whether there was one. What was used is forgotten."""
        del self.buffer[: self.at]
        self.at = 0
        piece = self._piece()
        self.buffer += piece
        return bool(piece)

    def _must(self) -> None:
        if not self.more():
            raise Cut

    def peek(self) -> str:
        """The next character that is not white space, if it is ASCII; none at the text's end."""
        while True:
            if self.at < len(self.buffer):
                if self.buffer[self.at] > 0x20:
                    return chr(self.buffer[self.at])
                self.at = _past(_SPACE, self.buffer, self.at)
                if self.at < len(self.buffer):
                    return chr(self.buffer[self.at])
            if not self.more():
                return ""

    def take(self, characters: str) -> str:
        """Go past one of these characters, and which it is."""
        found = self.peek()
        if not found or found not in characters:
            raise Cut
        self.at += 1
        return found

    def _closing(self, offset: int, most: int) -> int:
        """Where the string ends whose inside begins at `offset`; both count from `at`."""
        while True:
            found = self.buffer.find(b'"', self.at + offset)
            if found >= 0:
                before = found
                while before > self.at and self.buffer[before - 1] == 0x5C:
                    before -= 1
                offset = found - self.at
                if (found - before) % 2 == 0:
                    return offset
                offset += 1
            else:
                offset = len(self.buffer) - self.at
                if offset > most:
                    raise ValueError("a string is longer than any of an archive")
                self._must()

    def string(self, most: int) -> bytes:
        """A string of base64, which is hardly longer than `most`."""
        self.take('"')
        end = self._closing(0, most)
        data = bytes(self.buffer[self.at : self.at + end])
        self.at += end + 1
        return data if b"\\" not in data else json.loads(b'"' + data + b'"').encode()

    def value(self) -> Any:
        """Any value, as Python has it."""
        self.peek()
        depth = offset = 0
        while True:
            mark = _MARK.search(self.buffer, self.at + offset)
            if depth == 0 and (mark is None or mark.start() > self.at):
                end = _past(_PLAIN, self.buffer, self.at)
                if end < len(self.buffer):
                    offset = end - self.at
                    break
                mark = None
            if mark is None:
                offset = 0 if depth == 0 else len(self.buffer) - self.at
                self._limit(len(self.buffer) - self.at)
                self._must()
                continue
            offset = mark.end() - self.at
            if mark[0] == b'"':
                offset = self._closing(offset, bounds.MAX_HEADER) + 1
            else:
                depth += 1 if mark[0] in b"[{" else -1
            self._limit(offset)
            if depth <= 0:
                break
        self._limit(offset)
        self._header += offset
        data = bytes(self.buffer[self.at : self.at + offset])
        self.at += offset
        if parts_of(data) > bounds.MAX_PARTS:
            raise ValueError("its header has too many parts")
        try:
            return json.loads(data.decode())
        except (ValueError, RecursionError):
            raise Cut from None

    def _limit(self, nbytes: int) -> None:
        if self._header + nbytes > bounds.MAX_HEADER:
            raise ValueError(f"its header is longer than {bounds.MAX_HEADER} bytes")

    def skip(self) -> None:
        """Go past a value; it is not looked at closely."""
        depth = 0
        while True:
            found = self.peek()
            if found == '"':
                self.string(bounds.MAX_HEADER)
            elif found and found in "[]{},:":
                depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found, 0)
                self.at += 1
            else:
                end = _past(_PLAIN, self.buffer, self.at)
                if not found or end == self.at:
                    raise Cut
                self.at = end
            if depth <= 0:
                return

    def header(self, keys: set[str]) -> dict[str, Any]:
        """The members of an archive's object before its strings, if they are all at hand, and none
        but these keys; else nothing, and nothing was taken. `members` goes on behind them."""
        end = self.buffer.find(b',"blocks":', self.at, self.at + _CHUNK)
        if end < 0:
            return {}
        try:
            found = json.loads(self.buffer[self.at : end] + b"}", object_pairs_hook=_once)
        except (ValueError, RecursionError):
            return {}
        if not isinstance(found, dict) or not keys.issuperset(found):
            return {}
        self._header += end - self.at
        self.at = end + 1
        return found

    def members(self, *, begun: bool = False) -> Iterator[str]:
        """The keys of an object, or those that are left of it; whoever gets one takes the value."""
        if not begun:
            self.take("{")
            if self.peek() == "}":
                self.at += 1
                return
        while True:
            if self.peek() != '"':
                raise Cut
            key = self.value()
            self.take(":")
            yield key
            if self.take(",}") == "}":
                return

    def items(self) -> Iterator[None]:
        """The places of an array; whoever comes to one takes the value."""
        self.take("[")
        if self.peek() == "]":
            self.at += 1
            return
        while True:
            yield
            if self.take(",]") == "]":
                return
