"""What lies in a folder: the files of some kinds, and what else there is."""

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..errors import printable

ARCHIVES = (".laff.gz", ".laff")
"""What the names of archives end in."""
LISTED = 100
"""Most names that are kept of what is left out."""
KINDS = 1000
"""Most extensions that are told apart."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file: its path below the folder (with /), size and time of change."""

    name: str
    nbytes: int
    mtime_ns: int


@dataclass
class Names:
    """How many there are of a kind, and the first names."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return self.count > 0

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.first) < LISTED:
            self.first.append(name)


@dataclass
class LeftOut:
    """What lies in a folder and is not looked at.

    `files` by their name, and `kinds`: how many of each extension; `linked`: folders that are
    links, which are not followed; `folders`: sub-folders, of a search that is not recursive.
    """

    files: Names = field(default_factory=Names)
    kinds: Counter[str] = field(default_factory=Counter)
    linked: Names = field(default_factory=Names)
    folders: Names = field(default_factory=Names)

    def __bool__(self) -> bool:
        return bool(self.files or self.linked or self.folders)

    def add_file(self, name: str) -> None:
        kind = PurePosixPath(name).suffix.lower() or "no extension"
        self.files.add(name)
        self.kinds[kind if kind in self.kinds or len(self.kinds) < KINDS else "others"] += 1

    def add(self, other: "LeftOut") -> None:
        """What is left out of another folder is left out here, too."""
        self.kinds += other.kinds
        for mine, more in (
            (self.files, other.files),
            (self.linked, other.linked),
            (self.folders, other.folders),
        ):
            mine.count += more.count
            mine.first = (mine.first + more.first)[:LISTED]

    def texts(self, kinds: int = 6) -> list[str]:
        """What was not looked at, each with its number and what would help."""
        parts = []
        if self.files:
            common = self.kinds.most_common(kinds)
            rest = self.files.count - sum(count for _, count in common)
            named = [f"{count} {printable(kind)}" for kind, count in common]
            named += [f"{rest} of other kinds"] if rest else []
            parts.append(f"{_number(self.files.count, 'other file')} ({', '.join(named)})")
        if self.linked:
            parts.append(f"{_number(self.linked.count, 'linked folder')} (links are not followed)")
        if self.folders:
            parts.append(f"{_number(self.folders.count, 'sub-folder')} (--recursive includes them)")
        return parts

    def hint(self, remedy: str) -> str:
        """What helps where nothing was found: the `remedy`, after what is at hand."""
        if self.linked:
            remedy = "linked folders are not followed, " + remedy
        if self.folders:
            remedy = "add --recursive to look into its sub-folders, or " + remedy
        return remedy


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


@dataclass
class Found:
    """What lies in a folder: files that were looked for, those that cannot be used (path and
    reason), and what is left out. Paths are below the folder, with /."""

    sources: list[Source] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)


def find(
    folder: Path,
    suffixes: Iterable[str],
    *,
    recursive: bool,
    skip: Path | None = None,
    into: Found | None = None,
    hidden: tuple[str, ...] = (".",),
) -> Found:
    """List the files of a folder that end in one of `suffixes` (lower case), whatever their case,
    in the order of their names.

    Files and folders whose names begin as `hidden` says are passed over; so is the folder `skip`.
    What else is not looked at is counted. What is found is added to `into`, if that is given.
    Raises OSError if the folder itself cannot be listed.
    """
    found = into or Found()
    suffixes = tuple(suffixes)
    os.scandir(folder).close()

    def unlistable(error: OSError) -> None:
        name = Path(os.path.relpath(error.filename, folder)).as_posix()
        found.failed.append((name, f"{error.strerror}: allow this user to read it"))

    for here, folders, names in os.walk(folder, onerror=unlistable):
        below = []
        for name in sorted(folders):
            path = Path(here, name)
            if name.startswith(hidden) or (skip is not None and _same(path, skip)):
                continue
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink():
                found.left_out.linked.add(relative)
            elif not recursive:
                found.left_out.folders.add(relative)
            else:
                below.append(name)
        folders[:] = below
        for name in sorted(names):
            if name.startswith(hidden):
                continue
            path = Path(here, name)
            relative = path.relative_to(folder).as_posix()
            if not name.lower().endswith(suffixes):
                found.left_out.add_file(relative)
                continue
            try:
                status = path.stat()
            except OSError as error:
                found.failed.append((relative, f"{error.strerror}: mend the link or remove it"))
                continue
            if not stat.S_ISREG(status.st_mode):
                found.failed.append((relative, "not an ordinary file: remove it or rename it"))
            elif status.st_size == 0:
                found.failed.append((relative, "the file is empty (0 bytes): copy it again"))
            else:
                found.sources.append(Source(relative, status.st_size, status.st_mtime_ns))
    return found


def folded(name: str) -> str:
    """A name such that some file system takes all names with the same one for one: case and
    Unicode composition."""
    return unicodedata.normalize("NFC", name).casefold()


def _same(a: Path, b: Path) -> bool:
    try:
        return a.samefile(b)
    except OSError:
        return False
