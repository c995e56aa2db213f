"""What a job says while it runs, on stderr."""

import os
import sys
import threading
import time
from collections.abc import Callable

from .pulse import Seen, short


def seconds_text(seconds: float) -> str:
    """A duration as people write it."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"


def bytes_text(nbytes: float) -> str:
    """A size with a decimal unit."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "bytes" else f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


CLEAR = "\r\x1b[K"
"""Takes a terminal back to the beginning of an empty line."""
LOOK_SECONDS = 1


class Progress:
    """One line that moves on a terminal, and in logs a line with the time every half minute.

    It names what is being done: a phase (`phase`, `step`), or pictures with their pixels (`begin`,
    `add`), of which those count that are under way too. Used in a with statement, in which a thread
    of its own prints. Parameters: the `stream`, stderr if None; `quiet`, to print nothing.
    """

    LINE_SECONDS = 30
    TICK_SECONDS = 0.2

    def __init__(self, *, stream=None, quiet: bool = False):
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        if stream is None and self._terminal:
            # Standard error may be filtered line by line for a while, see session.py.
            self._stream = os.fdopen(os.dup(2), "w", errors="backslashreplace")
        self._quiet = quiet
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._print_on, daemon=True)
        self._printed_at = time.monotonic()
        self._printed = ""
        self.phase("starting")

    def __enter__(self) -> "Progress":
        if not self._quiet:
            self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._over.set()
        if not self._quiet:
            self._thread.join()
            if self._terminal:
                self._write(CLEAR)

    def phase(self, title: str, *, total: int = 0, unit: str = "") -> None:
        """Name what is done from now on: `total` steps, if that is known, of a `unit` (files)."""
        with self._lock:
            self._title, self._unit = title, unit
            self._pictures = None
            self._begin(total)

    def step(self, count: int = 1) -> None:
        """So many more steps of the phase are done."""
        with self._lock:
            self._finished += count

    def begin(
        self,
        pictures: int,
        pixels: int,
        *,
        title: str = "",
        look: Callable[[], Seen] | None = None,
    ) -> None:
        """From now on pictures are worked on. `look` tells what is seen of the processes that do
        it; a `title` is printed instead of the pictures' numbers."""
        with self._lock:
            self._title, self._unit = title, ""
            self._pictures = pictures
            self._begin(pixels, look)

    def _begin(self, total: int, look: Callable[[], Seen] | None = None) -> None:
        self._total, self._look = total, look
        self._done = self._failed = 0
        self._finished = self._reached = 0.0
        self._large: dict[str, tuple[int, float]] = {}
        self._large_finished = 0.0
        self._counted: dict[str, float] = {}
        self._seen, self._looked_at = Seen(), 0.0
        self._began = time.monotonic()

    def add(self, *, pixels: int, failed: bool = False, key: str | None = None) -> None:
        """One picture is done, or has failed; `key` if it was watched."""
        with self._lock:
            self._done += 1
            self._failed += failed
            if self._large.pop(key, None) is None:
                self._finished += pixels
            else:
                self._large_finished += pixels
                self._counted.pop(key, None)

    def watch(self, key: str, pixels: int, passes: float) -> None:
        """A picture that many tasks share is begun; it takes about so many passes."""
        with self._lock:
            self._large[key] = pixels, passes

    def count(self, key: str, pixels: int) -> None:
        """So many more pixels of a picture that is watched were coded in a pass, by a process that
        is not seen."""
        with self._lock:
            self._counted[key] = self._counted.get(key, 0) + pixels

    def say(self, text: str) -> None:
        """Print a line of its own."""
        if not self._quiet:
            self._write(f"{CLEAR if self._terminal else ''}{text}\n")

    def text(self) -> str:
        """The line as it is now."""
        with self._lock:
            passed = max(time.monotonic() - self._began, 1e-3)
            if not self._total:
                return f"{self._title}, {seconds_text(passed)}"
            # What was reached stays, also if a process ends before its work is accounted for.
            done = self._reached = max(self._reached, min(self._all_done(), self._total))
            rate = done / passed
            filled = round(20 * done / self._total)
            parts = [f"[{'#' * filled}{'-' * (20 - filled)}] {self._what(done)}"]
            if self._pictures is not None:
                parts.append(f"{done / 1e6:.1f}/{self._total / 1e6:.1f} Mpixel")
                parts.append(f"{rate / 1e6:.2f} Mpixel/s")
            if self._seen.compiling:
                parts.append("compiling (once on every machine)")
            if rate > 0:
                parts.append(f"{seconds_text((self._total - done) / rate)} left")
            return ", ".join(parts)

    def _what(self, done: float) -> str:
        if self._pictures is None:
            return f"{self._title}: {done:.0f}/{self._total} {self._unit}".rstrip()
        failed = f", {self._failed} failed" if self._failed else ""
        return self._title or f"{self._done}/{self._pictures} pictures{failed}"

    def _all_done(self) -> float:
        under_way = self._large_finished
        for key, (pixels, passes) in self._large.items():
            coded = self._counted.get(key, 0) + self._seen.parts.get(short(key), 0)
            under_way += min(coded / passes, 0.98 * pixels)
        # Pictures that are done were seen before, unless nothing is seen of their processes.
        return under_way + max(self._finished, self._seen.pixels)

    def refresh(self) -> None:
        """Print the line, if it is time to and it says something new."""
        now = time.monotonic()
        if not self._terminal and now - self._printed_at < self.LINE_SECONDS:
            return
        look = self._look
        if look is not None and now - self._looked_at >= LOOK_SECONDS:
            self._looked_at, seen = now, look()  # files, perhaps of a slow disk: nobody waits
            with self._lock:
                if self._look is look:
                    self._seen = seen
        text = self.text()
        if text == self._printed:
            return
        self._printed_at, self._printed = now, text
        self._write(CLEAR + text if self._terminal else f"{time.strftime('%H:%M:%S')} {text}\n")

    def _write(self, text: str) -> None:
        with self._lock:
            self._stream.write(text)
            self._stream.flush()

    def _print_on(self) -> None:
        while not self._over.wait(self.TICK_SECONDS):
            self.refresh()
