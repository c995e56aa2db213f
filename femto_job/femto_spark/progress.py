"""What the job prints while it runs."""

import sys
import threading
import time
from collections.abc import Callable


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


class Progress:
    """A progress bar on a terminal, now and then a line elsewhere.

    Parameters: how many `pictures` and `pixels` there are to do; a `title` to print instead of
    pictures; the `stream`; `quiet`, to print nothing.
    """

    LINE_SECONDS = 15

    def __init__(
        self, pictures: int, pixels: int, *, title: str = "", stream=None, quiet: bool = False
    ):
        self._title = title
        self._stream = stream or sys.stdout
        self._quiet = quiet
        self._terminal = self._stream.isatty()
        self._pictures, self._pixels = pictures, max(1, pixels)
        self._done = self._failed = self._done_pixels = 0
        self._partial: dict[str, Callable[[], float]] = {}
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._printed_at = self._began

    def add(self, *, pixels: int, failed: bool = False) -> None:
        """One picture is done, or has failed."""
        with self._lock:
            self._done += 1
            self._failed += failed
            self._done_pixels += pixels

    def watch(self, key: str, pixels: Callable[[], float] | None) -> None:
        """Count the pixels of a picture that is under way, as `pixels()` tells; None ends it."""
        with self._lock:
            self._partial.pop(key, None)
            if pixels is not None:
                self._partial[key] = pixels

    def text(self) -> str:
        """Pictures, megapixels, rate and time left."""
        with self._lock:
            done = self._done_pixels + sum(f() for f in self._partial.values())
            share = min(1.0, done / self._pixels)
            passed = max(time.monotonic() - self._began, 1e-3)
            rate = done / passed
            left = f"{seconds_text((self._pixels - done) / rate)} left" if rate > 0 else ""
            failed = f", {self._failed} failed" if self._failed else ""
            filled = round(20 * share)
            bar = "#" * filled + "-" * (20 - filled)
            title = self._title or f"{self._done}/{self._pictures} pictures{failed}"
            return (
                f"[{bar}] {title}, "
                f"{done / 1e6:.1f}/{self._pixels / 1e6:.1f} Mpixel, {rate / 1e6:.2f} Mpixel/s"
                f"{', ' if left else ''}{left}"
            )

    def refresh(self) -> None:
        """Print the state, if it is time to."""
        now = time.monotonic()
        if self._quiet or now - self._printed_at < (0.2 if self._terminal else self.LINE_SECONDS):
            return
        self._printed_at = now
        if self._terminal:
            self._stream.write("\r\x1b[K" + self.text())
        else:
            self._stream.write(self.text() + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Leave the terminal's line clean."""
        if self._terminal and not self._quiet:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
