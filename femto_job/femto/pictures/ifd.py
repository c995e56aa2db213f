"""Image file directories, as TIFF and EXIF have them: tags in, tags out."""

import struct
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass

MAX_TAGS = 4096
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""Bytes of one value of each type of TIFF 6.0."""
BIG_SIZES = SIZES | {16: 8, 17: 8, 18: 8}
_CODES = {1: "B", 3: "H", 4: "I", 5: "II", 6: "b", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d",
          13: "I", 16: "Q", 17: "q", 18: "Q"}  # fmt: skip
EXIF, GPS, INTEROPERABILITY = 34665, 34853, 40965
POINTERS = (EXIF, GPS, INTEROPERABILITY)


@dataclass(frozen=True)
class Tag:
    """A tag: its number, type, and its values as they lie in the file. at: where they lie."""

    code: int
    type: int
    data: bytes
    at: int = 0

    @property
    def count(self) -> int:
        """How many values."""
        return len(self.data) // BIG_SIZES[self.type]

    def values(self, order: str) -> tuple | str:
        """The values as numbers (rationals as pairs one after the other), or as text (ASCII,
        without the zeros at its end). order: "<" or ">"."""
        if self.type == 2:
            return self.data.rstrip(b"\0").decode("utf-8", "replace")
        if self.type == 7:
            return tuple(self.data)
        codes = _CODES[self.type]
        return struct.unpack(f"{order}{self.count * len(codes)}{codes[0]}", self.data)


def number(code: int, type: int, values, order: str) -> Tag:
    """A tag of numbers."""
    codes = _CODES[type]
    values = list(values)
    return Tag(code, type, struct.pack(f"{order}{len(values)}{codes[0]}", *values))


def text(code: int, value: str) -> Tag:
    """A tag of text, in ASCII or, as everybody writes it, UTF-8."""
    return Tag(code, 2, value.encode("utf-8", "replace") + b"\0")


def header(data: bytes) -> tuple[str, bool, int]:
    """Byte order, whether it is BigTIFF, and where the first directory lies. Raises ValueError."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        raise ValueError("no TIFF header")
    (version,) = struct.unpack(order + "H", data[2:4])
    if version == 43 and len(data) >= 16:
        return order, True, struct.unpack(order + "Q", data[8:16])[0]
    return order, False, struct.unpack(order + "I", data[4:8])[0]


def read(
    at: int,
    order: str,
    big: bool,
    fetch: Callable[[int, int], bytes],
    limit: int,
    unwanted: Container[int] = (),
) -> tuple[list[Tag], int, list[int]]:
    """The directory at `at`: its tags, where the next one lies (0: none), and the numbers of the
    tags whose values are missing, of an unknown type, or longer than `limit` bytes.

    fetch(at, nbytes) gives bytes of the file, fewer where it ends; unwanted: numbers of tags that
    are passed over. Raises ValueError.
    """
    sizes, width, letter = (BIG_SIZES, 20, "Q") if big else (SIZES, 12, "I")
    head = fetch(at, 8 if big else 2)
    if at < 8 or len(head) < (8 if big else 2):
        raise ValueError("a directory lies outside of the file")
    (count,) = struct.unpack(order + ("Q" if big else "H"), head)
    if count > MAX_TAGS:
        raise ValueError("a directory of too many tags")
    at += len(head)
    entries = fetch(at, count * width + (8 if big else 4))
    tags, bad = [], []
    for start in range(0, min(count, len(entries) // width) * width, width):
        code, type, length = struct.unpack_from(order + "HH" + letter, entries, start)
        if code in unwanted:
            continue
        inline = start + width - (8 if big else 4)
        nbytes = length * sizes.get(type, 0)
        if not nbytes or nbytes > limit:
            bad.append(code)
            continue
        if nbytes <= width - inline + start:
            where, data = at + inline, entries[inline : inline + nbytes]
        else:
            (where,) = struct.unpack_from(order + letter, entries, inline)
            data = fetch(where, nbytes)
        limit -= nbytes
        if len(data) == nbytes:
            tags.append(Tag(code, type, data, where))
        else:
            bad.append(code)
    rest = entries[count * width :]
    following = struct.unpack(order + letter, rest)[0] if len(rest) in (4, 8) else 0
    return tags, following, bad


def written(tags: Iterable[Tag], at: int, order: str, big: bool = False) -> bytes:
    """A directory that will lie at `at`, with its values behind it; no other follows it. Raises
    struct.error if they do not fit the file's kind."""
    tags = sorted(tags, key=lambda tag: tag.code)
    letter, width = ("Q", 20) if big else ("I", 12)
    head = struct.pack(order + ("Q" if big else "H"), len(tags))
    end = at + len(head) + len(tags) * width + (8 if big else 4)
    entries, values = bytearray(head), bytearray()
    for tag in tags:
        entries += struct.pack(order + "HH" + letter, tag.code, tag.type, tag.count)
        if len(tag.data) <= (8 if big else 4):
            entries += tag.data.ljust(8 if big else 4, b"\0")
        else:
            values += b"\0" * ((end + len(values)) % 2)
            entries += struct.pack(order + letter, end + len(values))
            values += tag.data
    return bytes(entries + struct.pack(order + letter, 0) + values)


def tree(directories: dict[int, list[Tag]], at: int, order: str, big: bool = False) -> bytes:
    """The first directory (key 0) at `at`, and behind it those that tags EXIF, GPS and, inside of
    EXIF, INTEROPERABILITY point to (the keys)."""
    pointers, pointer = [], 18 if big else 4
    main = {code: list(tags) for code, tags in directories.items() if tags or code == 0}

    def grown(code: int, inner: list[int]) -> list[Tag]:
        kept = [tag for tag in main[code] if tag.code not in POINTERS]
        return kept + [number(c, pointer, [0], order) for c in inner if c in main]

    root = grown(0, [EXIF, GPS])
    at_next = at + len(written(root, at, order, big))
    for code, inner in ((EXIF, [INTEROPERABILITY]), (GPS, []), (INTEROPERABILITY, [])):
        if code not in main:
            continue
        at_next += at_next % 2
        pointers.append((code, at_next))
        main[code] = grown(code, inner)
        at_next += len(written(main[code], at_next, order, big))
    where = dict(pointers)

    def pointed(tags: list[Tag]) -> list[Tag]:
        return [
            number(t.code, pointer, [where[t.code]], order) if t.code in where else t for t in tags
        ]

    placed = written(pointed(root), at, order, big)
    for code, start in pointers:
        placed += b"\0" * (at + len(placed) < start)
        placed += written(pointed(main[code]), start, order, big)
    return placed


def parse(block: bytes) -> tuple[str, dict[int, list[Tag]], int]:
    """Of a TIFF structure in memory, such as EXIF: byte order, its first directory (key 0) and
    those that EXIF, GPS and INTEROPERABILITY point to, and where a second directory (of the
    thumbnail) lies, or 0. Raises ValueError."""
    order, big, at = header(block)

    def fetch(at: int, nbytes: int) -> bytes:
        return block[at : at + nbytes]

    tags, following, _ = read(at, order, big, fetch, len(block))
    found, queue = {0: tags}, [0]
    while queue:
        for tag in found[queue.pop()]:
            if tag.code in POINTERS and tag.code not in found and tag.type in (4, 13):
                try:
                    inner = read(tag.values(order)[0], order, big, fetch, len(block))[0]
                except ValueError:
                    continue
                found[tag.code] = inner
                queue.append(tag.code)
    return order, found, following


def fraction(value) -> list[int]:
    """A number that metadata have, as numerator and denominator."""
    return value if isinstance(value, list) else [value, 1]
