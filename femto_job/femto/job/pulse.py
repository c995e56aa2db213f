"""How far the processes of a job are: each tells it in a small file beside the records, where the
driver reads it, since Spark tells of a task only when it has ended.
"""

import contextlib
import hashlib
import json
import os
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from ..coding import signatures

PREFIX = "progress-"
KEPT = 8
"""Most large pictures of which a process tells how much it has coded; few are under way at once."""
_NBYTES = 2048


@dataclass(frozen=True)
class Seen:
    """What is seen of all processes: `pixels` of pictures that one task codes as a whole, `parts`:
    pixels coded of others, by their keys made `short`, and whether code is being compiled."""

    pixels: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    compiling: bool = False


def short(key: str) -> str:
    """A key of any length in a few bytes."""
    return hashlib.blake2b(os.fsencode(key), digest_size=8).hexdigest()


class Pulse:
    """What this process tells of itself, in the file `path` (see path_of); nothing, if that cannot
    be written.

    While it is open, it is noticed when a kernel is compiled.
    """

    SECONDS = 0.5
    """Tiny pictures are many: it tells of them now and then."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._pixels = 0.0
        self._parts: dict[str, float] = {}
        self._compiling = False
        self._told_at = -self.SECONDS
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        except OSError:
            self._file = None
        signatures.LISTENERS.append(self.compiling)

    def close(self) -> None:
        """Tell nothing more."""
        if self.compiling in signatures.LISTENERS:
            signatures.LISTENERS.remove(self.compiling)
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def add(self, pixels: float, key: str | None = None) -> None:
        """So many more pixels are done, of a picture that processes share if it has a key."""
        if key is None:
            self._pixels += pixels
        else:
            coded = self._parts.pop(short(key), 0) + pixels
            if len(self._parts) == KEPT:
                del self._parts[next(iter(self._parts))]
            self._parts[short(key)] = coded
        news = self._compiling
        self._compiling = False
        if news or time.monotonic() - self._told_at >= self.SECONDS:
            self._tell()

    def compiling(self) -> None:
        """A kernel is about to be compiled, and another one may follow at once."""
        if not self._compiling:
            self._compiling = True
            self._tell()

    def _tell(self) -> None:
        if self._file is not None:
            self._told_at = time.monotonic()
            text = json.dumps([self._pixels, self._parts, self._compiling])
            with contextlib.suppress(OSError):
                os.pwrite(self._file, text.encode().ljust(_NBYTES), 0)


class Share:
    """What is told of one picture that one task codes as a whole, in about so many passes.

    `pulse` is None if this process is not seen. Used in a with statement: at its end the picture
    is done, whatever came of it.
    """

    def __init__(self, pulse: Pulse | None, pixels: int, passes: int):
        self._pulse, self._pixels, self._passes = pulse, pixels, passes
        self._told = 0.0

    def __enter__(self) -> "Share":
        return self

    def __exit__(self, *exception) -> None:
        self._add(self._pixels - self._told)

    def add(self, pixels: int) -> None:
        """So many pixels were coded in a pass."""
        self._add(min(pixels / self._passes, max(0, 0.98 * self._pixels - self._told)))

    def _add(self, pixels: float) -> None:
        self._told += pixels
        if self._pulse is not None:
            self._pulse.add(pixels)


def path_of(folder: str | os.PathLike, run: str) -> Path:
    """The file of this process, below the folder of the records."""
    return Path(folder, f"{PREFIX}{run}-{socket.gethostname()}-{os.getpid()}")


def look(folder: Path, run: str) -> Seen:
    """What the processes of a run have told so far."""
    pixels, parts, compiling = 0.0, {}, False
    for path in folder.glob(f"{PREFIX}{run}-*"):
        # One that is being written is read the next time.
        with contextlib.suppress(OSError, ValueError):
            own, own_parts, own_compiling = json.loads(path.read_bytes())
            pixels += own
            compiling |= own_compiling
            for key, coded in own_parts.items():
                parts[key] = parts.get(key, 0) + coded
    return Seen(pixels, parts, compiling)


def clear(folder: Path) -> None:
    """Remove what processes have told, of runs that are over."""
    for path in folder.glob(f"{PREFIX}*"):
        path.unlink(missing_ok=True)
