"""What all readers share: limits, errors, quiet libraries, a picture's bytes."""

import contextlib
import io
import logging
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from ..errors import LaffError

# fmt: off
RAW_EXTENSIONS = frozenset((
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos",
    ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw",
    ".x3f",
))
# fmt: on
# Where RAW files that are no TIFF, or look like a plain one, say what they are: Canon's three,
# Fujifilm, Sigma, Olympus, Panasonic, Minolta.
RAW_MARKS = (
    (4, b"\x10\0\0\0CR\x02"),
    (6, b"HEAPCCDR"),
    (4, b"ftypcrx "),
    (0, b"FUJIFILMCCD-RAW"),
    (0, b"FOVb"),
    (0, b"IIRO"),
    (0, b"IIRS"),
    (0, b"MMOR"),
    (0, b"IIU\0"),
    (0, b"\0MRM"),
)

# Pixels of a picture that is read by window (as many as an archive holds), and of one that must be
# decoded as a whole (at most 1 GiB in Pillow, which keeps RGB as four bytes).
MAX_PIXELS = 1 << 36
MAX_WHOLE_PIXELS = 1 << 28
MAX_SIDE = 1 << 20
MAX_PAGES = 1 << 16

_ROWS_AT_ONCE = 256

# Texts and profiles of a PNG, unpacked.
MAX_TEXT_NBYTES = 1 << 28


class Quiet:
    """Within it, the libraries print no warnings, and Pillow's limits of size are femto's.

    Counted, so that threads that are inside at the same time do not undo each other's settings.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0

    def __enter__(self) -> None:
        from PIL import Image, PngImagePlugin

        with self._lock:
            if self._depth == 0:
                self._text = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
                PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = MAX_TEXT_NBYTES
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.simplefilter("ignore")
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
                self._loggers = [logging.getLogger(name) for name in ("tifffile", "PIL")]
                self._disabled = [logger.disabled for logger in self._loggers]
                for logger in self._loggers:
                    logger.disabled = True
            self._depth += 1

    def __exit__(self, *exc: object) -> None:
        from PIL import Image, PngImagePlugin

        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                for logger, disabled in zip(self._loggers, self._disabled, strict=True):
                    logger.disabled = disabled
                Image.MAX_IMAGE_PIXELS = self._limit
                PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = self._text
                self._warnings.__exit__(None, None, None)


quiet = Quiet()
_stderr_lock = threading.Lock()


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Within it, what C libraries print on standard error is dropped (LibRaw, libtiff)."""
    with _stderr_lock:
        try:
            kept = os.dup(2)
        except OSError:  # no standard error at all
            yield
            return
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(null)


@contextlib.contextmanager
def decoding(name: str) -> Iterator[None]:
    """Within it, whatever a library raises about the file `name` becomes a LaffError."""
    try:
        with quiet:
            yield
    except LaffError:
        raise
    except MemoryError as exc:
        raise LaffError(
            f"{name}: too little memory to decode it; free some, or cut the picture into parts"
        ) from exc
    except ImportError as exc:
        raise missing(name, exc.name or str(exc)) from exc
    except Exception as exc:
        said = exc.args[0] if exc.args and isinstance(exc.args[0], bytes) else str(exc)
        said = said.decode(errors="replace") if isinstance(said, bytes) else said
        reason = " ".join(said.split())[:200] or type(exc).__name__
        if "imagecodecs" in reason and "requires" in reason:
            raise missing(name, "imagecodecs") from exc
        raise LaffError(
            f"{name}: cannot be decoded, the file is damaged or of an unusual kind ({reason}); "
            "open it in an image editor and save it again"
        ) from exc


def missing(name: str, module: str) -> LaffError:
    module = module.partition(".")[0].replace("_", "-")
    return LaffError(f"{name}: reading or writing it needs {module}; run: pip install {module}")


def os_error(name: str, exc: OSError, verb: str, remedy: str) -> LaffError:
    return LaffError(f"{name}: cannot be {verb}: {exc.strerror or exc}; {remedy}")


_ISO_BRANDS = {
    "AVIF": (b"avif", b"avis"),
    "HEIF": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
}
DICOM_SUFFIXES = frozenset((".dcm", ".dicom", ".dic", ".ima"))


def _newer_kind(head: bytes) -> str | None:
    """The format, told by a file's first bytes, or None."""
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[i : i + 4] for i in range(16, len(head) - 3, 4))]
        length = int.from_bytes(head[:4], "big")
        brands = [b for i, b in enumerate(brands) if i == 0 or 16 + 4 * i <= length]
        for kind, known in _ISO_BRANDS.items():
            if any(brand in known for brand in brands):
                return kind
    if head[:12] == b"\0\0\0\x0cJXL \r\n\x87\n" or head[:2] == b"\xff\x0a":
        return "JXL"
    if head[:12] == b"\0\0\0\x0cjP  \r\n\x87\n" or head[:4] == b"\xff\x4f\xff\x51":
        return "JPEG2000"
    return "GIF" if head[:6] in (b"GIF87a", b"GIF89a") else None


def is_dicom(head: bytes, suffix: str) -> bool:
    """Whether a file of these first bytes is DICOM; without its preamble, by its suffix too."""
    if head[128:132] == b"DICM":
        return True
    return suffix in DICOM_SUFFIXES and head[:1] in (b"\x02", b"\x08") and head[1:2] == b"\0"


AnySource: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str]
"""A picture file: its bytes, or its path."""


class Source:
    """A picture's bytes, in a file or in memory, and what to call it in messages."""

    def __init__(self, path_or_bytes: AnySource, name: str | None):
        self.data = None
        self.path = None
        self.mtime_ns: int | None = None
        if isinstance(path_or_bytes, bytes | bytearray | memoryview):
            self.data = bytes(path_or_bytes)
            self.name = name or "picture"
            self.nbytes = len(self.data)
        else:
            self.path = Path(path_or_bytes)
            self.name = name or str(path_or_bytes)
            try:
                status = self.path.stat()
                if not stat.S_ISREG(status.st_mode):
                    raise LaffError(f"{self.name}: is not a file; name a picture file")
                self.nbytes, self.mtime_ns = status.st_size, status.st_mtime_ns
            except OSError as exc:
                raise os_error(
                    self.name, exc, "read", "check its name and that you may read it"
                ) from exc
            except ValueError as exc:  # a null byte in the name
                raise LaffError(f"{self.name!r}: is not a file name; check it") from exc
        if self.nbytes == 0:
            raise LaffError(f"{self.name}: is empty (0 bytes); copy it again from where it came")
        self.suffix = Path(self.name).suffix.lower()
        self._kind: str | None = None

    def open(self):
        if self.data is not None:
            return io.BytesIO(self.data)
        try:
            return open(self.path, "rb")
        except OSError as exc:
            raise os_error(
                self.name, exc, "read", "check its name and that you may read it"
            ) from exc

    def bytes_at(self, file, at: int, nbytes: int) -> bytes:
        """Bytes of `file`, as open() gave it, that are there by its size. Raises LaffError if they
        are no longer."""
        data = bytearray(nbytes)
        self.read_into(file, at, data)
        return bytes(data)

    def read_into(self, file, at: int, array) -> None:
        """Fill a contiguous array, or another buffer, with bytes of the file."""
        left = memoryview(array).cast("B")
        if self.data is not None:
            left[:] = memoryview(self.data)[at : at + len(left)]
            return
        while left:
            count = os.preadv(file.fileno(), (left,), at)
            if count == 0:
                raise LaffError(f"{self.name}: became shorter while it was read; copy it again")
            left, at = left[count:], at + count

    def read_rows(self, file, at: int, step: int, rows) -> None:
        """Fill the rows of a contiguous array with bytes that lie `step` bytes apart."""
        whole = memoryview(rows).cast("B")
        nbytes = len(whole) // len(rows)
        parts = [whole[i : i + nbytes] for i in range(0, len(whole), nbytes)]
        # One call for many rows, where what lies between them is little.
        between = [bytearray(step - nbytes)] if step - nbytes <= 3 * nbytes else None
        together = _ROWS_AT_ONCE if between and self.data is None else 1
        for first in range(0, len(parts), together):
            some = parts[first : first + together]
            where = at + first * step
            if len(some) > 1:
                into = [part for row in some for part in (row, *between)][:-1]
                if os.preadv(file.fileno(), into, where) == (len(some) - 1) * step + nbytes:
                    continue
            for number, part in enumerate(some):
                self.read_into(file, where + number * step, part)

    def kind(self) -> str:
        """The format, told by the first bytes; RAW without a mark of its own by the name."""
        if self._kind is None:
            self._kind = self._told_kind()
        return self._kind

    def _told_kind(self) -> str:
        with self.open() as file:
            head = file.read(132)
        # Its first 128 bytes are free, and TIFF's are found there.
        if is_dicom(head, self.suffix):
            return "DICOM"
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            return "PNG"
        if head.startswith(b"\xff\xd8\xff"):
            return "JPEG"
        if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            return "WEBP"
        if self.suffix in RAW_EXTENSIONS or any(head[at:].startswith(m) for at, m in RAW_MARKS):
            return "RAW"
        if head.startswith(b"BM"):
            return "BMP"
        if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return "TIFF"
        kind = _newer_kind(head)
        if kind is not None:
            return kind
        raise LaffError(
            f"{self.name}: is not a picture that femto reads; convert it to TIFF, PNG, JPEG, WebP "
            "or BMP, or give a camera RAW file its own suffix (.dng, .nef, .cr2 ...)"
        )


def check_size(name: str, width: int, height: int, *, whole: bool) -> None:
    if width < 1 or height < 1:
        raise LaffError(f"{name}: has no pixels ({width} x {height}); save it again")
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise LaffError(
            f"{name}: {width} x {height} pixels are more than femto takes "
            f"({MAX_SIDE} a side, {MAX_PIXELS} in all); cut it into parts"
        )
    if whole and width * height > MAX_WHOLE_PIXELS:
        raise LaffError(
            f"{name}: {width} x {height} pixels are too many for a format that must be decoded as "
            f"a whole ({MAX_WHOLE_PIXELS}); save it as a tiled TIFF or cut it into parts"
        )


def check_promise(name: str, raw_nbytes: int, file_nbytes: int, expansion: int) -> None:
    # Small blank pictures can be a few bytes in any format, and do no harm.
    if raw_nbytes > file_nbytes * expansion + (1 << 24):
        raise LaffError(
            f"{name}: its header promises more pixels than {file_nbytes} bytes can hold; "
            "the file is damaged or cut short: copy it again"
        )
