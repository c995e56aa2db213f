"""How an archive is read: string by string, all of it or as far as it has arrived."""

import io
import os
import stat
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from ..errors import LaffError
from ..tiles import tile_count
from .archive import Archive, ByteStream, Layers, Stored, Wanted
from .header import BROKEN, check_header
from .strings import Spool, Strings, temporary, unseal
from .text import Cut, Text

_STRINGS = ("blocks", "strings")
_HEADER = {
    "format", "version", "image", "metadata", "basis", "step", "tile", "crc", "passes", "tune",
    "max_error",
}  # fmt: skip
_KEYS = {*_HEADER, *_STRINGS}
"""Other keys are passed over."""


def read(
    archive: Stored, *, layers: Layers = None, wanted: Wanted = None, keep: bool = True
) -> Archive:
    """Parse and check an archive: bytes, or the path of a file; gzip-ed or plain text.

    With `layers`, a number or a function that gives one for the JSON object, only the first
    so many are read, unpacked and checked where possible; damage behind them, or that they are
    all that arrived of a file, is then no error. `nbytes` counts the whole file even so. `wanted`
    and `keep` are as for `_Reading`.

    Every limit is checked before anything is allocated for the picture, and what an archive claims
    costs nothing before its strings are there. Memory does not follow the archive: its strings are
    put aside in a temporary file if they are long. Raises LaffError if the archive is missing, cut
    short, damaged, of an unknown version or not an archive.
    """
    name = os.fspath(archive) if isinstance(archive, (str, os.PathLike)) else "archive"
    with open_stored(archive, name) as stream:
        size = stream.seek(0, io.SEEK_END)

        def restart() -> Text:
            stream.seek(0)
            return Text(stream, name, size)

        reading = _Reading(restart, name, layers=layers, wanted=wanted, keep=keep)
        *_, last = reading.states()
    return replace(last, nbytes=size)


def arriving(
    stream: ByteStream, name: str = "archive", *, wanted: Wanted = None
) -> Iterator[Archive]:
    """Parse and check an archive while it arrives on a binary stream: yields what there is of it
    after every layer. Raises LaffError for what is no archive, and for one that is cut short or
    damaged, when what is good of it has been yielded. `wanted` is as for `_Reading`."""
    kept = _Kept(stream)

    def restart() -> Text:
        if not kept.nbytes:
            return Text(kept, name, None)
        return Text(kept.again(), name, kept.nbytes)

    def accepted(archive: Archive) -> Collection[int] | None:
        kept.forget()
        return None if wanted is None else wanted(archive)

    yield from _Reading(restart, name, wanted=accepted, each=True).states()


class _Reading:
    """An archive that is read, string by string.

    `restart` gives its text from the beginning, again if it must: where the header does not come
    before the strings, it is gathered first. `layers` is how many to read, a number or a function
    of the header's JSON object, None for all. `wanted` is told the archive without its strings
    before any is kept; it gives the numbers of the tiles that are (None: all), or raises LaffError.
    Without `keep`, all are checked and none is kept. With `each`, there is an archive after every
    layer.
    """

    def __init__(
        self,
        restart: Callable[[], Text],
        name: str,
        *,
        layers: Layers = None,
        wanted: Wanted = None,
        keep: bool = True,
        each: bool = False,
    ):
        self._restart, self._name, self._keep, self._each = restart, name, keep, each
        self._layers, self._wanted = layers, wanted
        self._top: dict[str, Any] = {}
        self._archive: Archive | None = None
        self._spool = Spool()

    def states(self) -> Iterator[Archive]:
        """The archive, at last with all its layers. Raises LaffError."""
        try:
            yield from self._states()
        except LaffError:
            raise
        except Cut:
            raise LaffError(
                f"{self._name}: not a whole .laff archive (cut short or damaged): copy it again"
            ) from None
        except BROKEN as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise LaffError(
                f"{self._name}: the archive is damaged ({reason}): copy or download it again"
            ) from None
        except OSError as error:
            raise LaffError(f"{self._name}: cannot be read ({error.strerror}): check it") from None

    def _states(self) -> Iterator[Archive]:
        text = self._restart()
        complete = yield from self._pass(text, first=True)
        if not complete:
            checked, text = check_header(self._top, self._name), self._restart()
            self._accept(*checked, text)
            yield from self._pass(text, first=False)

    def _accept(self, archive: Archive, crc: int, text: Text) -> None:
        self._archive, self._crc = replace(archive, nbytes=text.size or text.nbytes), crc
        header = archive.header
        self._tiles = tile_count(header.height, header.width, self._archive.tile)
        # As a coder of 16 bits a sample could not fill it.
        edge = self._archive.tile
        self._most = (1 << 16) + 16 * header.channels * (
            min(edge, header.width) * min(edge, header.height)
        )
        self._chosen = None if self._wanted is None else self._wanted(self._archive)
        self._last = self._layers(self._top) if callable(self._layers) else self._layers

    def _pass(self, text: Text, *, first: bool) -> Generator[Archive, None, bool]:
        """Read the text; False if it must be read again because the header came too late."""
        if text.peek() != "{":
            raise LaffError(f"{self._name}: not a .laff archive: give a file that femto compressed")
        blocks: Strings | None = None
        layers: list[Strings] | None = None
        sizes: list[int] = []
        skipped, late, given = False, False, 0
        begun = text.header(_HEADER)
        if first:
            self._top |= begun
        seen = set(begun)
        for key in text.members(begun=bool(begun)):
            if key not in _KEYS:
                text.skip()
                continue
            if key in seen:
                raise ValueError(f"{key!r} comes twice")
            seen.add(key)
            if key not in _STRINGS:
                value = text.value()
                if first:
                    self._top[key] = value
                    late |= self._archive is not None
                continue
            if first and self._archive is None and not skipped:
                try:
                    checked = check_header(self._top, self._name)
                except BROKEN:  # the rest may come; if not, it is told then
                    skipped = True
                else:
                    self._accept(*checked, text)
            if skipped:
                text.skip()
            elif key == "blocks":
                blocks, _ = self._strings(text, -1)
            else:
                layers = []
                for _ in text.items():
                    strings, nbytes = self._strings(text, len(layers))
                    layers.append(strings)
                    sizes.append(nbytes)
                    if blocks is None:
                        continue
                    if len(layers) == self._last:
                        yield self._state(text, blocks, layers, sizes)
                        return True
                    if self._each:
                        given = len(layers)
                        yield self._state(text, blocks, layers, sizes)
        if text.peek():
            raise LaffError(f"{self._name}: something follows the archive's end: copy it again")
        if skipped or self._archive is None:
            return False
        if late:
            check_header(self._top, self._name)
        if blocks is None:
            raise KeyError("blocks")
        if layers is None:
            raise KeyError("strings")
        if given < len(layers) or not layers:
            yield self._state(text, blocks, layers, sizes)
        return True

    def _state(
        self, text: Text, blocks: Strings, layers: list[Strings], sizes: list[int]
    ) -> Archive:
        assert self._archive is not None  # without a header no strings are read
        return replace(
            self._archive,
            blocks=blocks,
            layers=list(layers),
            nbytes=text.nbytes,
            layer_nbytes=list(sizes),
        )

    def _strings(self, text: Text, layer: int) -> tuple[Strings, int]:
        """An array of strings, one a tile, and how long they are as text."""
        strings, nbytes = Strings(self._spool), 0
        for _ in text.items():
            tile = len(strings)
            if tile == self._tiles:
                break
            sealed = text.string(self._most)
            nbytes += len(sealed)
            data = None
            if self._chosen is None or tile in self._chosen:
                data = unseal(sealed, self._crc, layer, tile)
            strings.append(data if self._keep else None)
        else:
            if len(strings) == self._tiles:
                return strings, nbytes
        raise ValueError(f"it does not hold the strings of its {self._tiles} tiles")


def open_stored(archive: Stored, name: str) -> BinaryIO:
    """A binary stream of an archive's bytes; LaffError if there is none."""
    if not isinstance(archive, (str, os.PathLike)):
        return io.BytesIO(archive)
    try:
        regular = stat.S_ISREG(os.stat(archive).st_mode)
        if regular:
            return open(archive, "rb")
    except (FileNotFoundError, ValueError):  # ValueError: a null in the name
        raise LaffError(f"{name}: no such file: check the name") from None
    except OSError as error:
        raise LaffError(f"{name}: cannot be read ({error.strerror}): check it") from None
    raise LaffError(f"{name}: cannot be read (it is no file): name a .laff.gz file")


class _Kept:
    """A stream that keeps what was read of it until that is known not to be read again."""

    def __init__(self, stream: ByteStream):
        self._read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        self._file = temporary(self)
        self._keeps = True
        self.nbytes = 0

    def read(self, nbytes: int) -> bytes:
        """What is there, at most `nbytes`."""
        data = self._read(nbytes)
        self.nbytes += len(data)
        if self._keeps:
            self._file.write(data)
        return data

    def again(self) -> ByteStream:
        """What was read so far, which is all."""
        self._keeps = False
        self._file.seek(0)
        return self._file

    def forget(self) -> None:
        if self._keeps:
            self._keeps = False
            self._file.seek(0)
            self._file.truncate()
