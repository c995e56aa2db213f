"""Whether archives are what they were: what femto verify does.

What a folder's records say is looked up on disk, and archives are decoded tile by tile: memory
follows neither their number nor their pixels.
"""

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from .. import codec
from ..basis.bases import basis_of
from ..container import check_pixels
from ..errors import LaffError, printable
from ..files import journal
from ..files.whole import whole_file
from . import proof
from .archives import find_archives, no_archives
from .decompressing import Telling, say
from .pool import Died, Pool, cores
from .records import STATE_FOLDER
from .salvaging import losses, salvaged

MANIFEST = "SHA256SUMS"
GOOD, DAMAGED, CHANGED, MISSING, UNKNOWN = "good", "damaged", "changed", "missing", "unknown basis"
STATES = (GOOD, DAMAGED, CHANGED, MISSING, UNKNOWN)


@dataclass(frozen=True)
class Record:
    """What a job has remembered of an archive: its bytes, and the SHA-256 of file and pixels, None
    if it was not verified then."""

    nbytes: int
    archive_sha256: str | None
    pixels_sha256: str | None


@dataclass(frozen=True)
class Verdict:
    """What an archive is (one of `STATES`), what is said of it, and its SHA-256."""

    state: str
    text: str = ""
    sha256: str | None = None


def verify(
    path: str, record: Record | None, *, basis: str | None = None, max_pixels: int | None = None
) -> Verdict:
    """Read, decode and compare an archive. Raises LaffError if that is not possible."""
    try:
        sha256 = proof.file_digest(path, from_disk=True)
    except OSError as error:
        raise LaffError(f"{path}: cannot be read ({error.strerror}): check it") from None
    try:
        parsed = codec.parse(
            path,
            basis=basis,
            wanted=lambda parsed: check_pixels(
                parsed, parsed.header.height * parsed.header.width, max_pixels, streamed=True
            ),
        )
    except LaffError as error:
        return Verdict(DAMAGED, _damage(path, error, max_pixels), sha256)
    try:
        basis_of(parsed)
    except LaffError as error:
        return Verdict(UNKNOWN, _without(path, error), sha256)
    try:
        tiles = range(len(parsed.blocks))
        digests = [proof.tile_digest(codec.decode_tile(parsed, tile)) for tile in tiles]
    except LaffError as error:
        return Verdict(DAMAGED, _without(path, error), sha256)
    if record is None:
        return Verdict(GOOD, "no record", sha256)
    if record.archive_sha256 is None:
        if record.nbytes != os.path.getsize(path):
            return Verdict(CHANGED, "it is whole, but not as long as recorded", sha256)
        return Verdict(GOOD, "recorded without having been verified", sha256)
    if record.archive_sha256 != sha256:
        return Verdict(CHANGED, "it is whole, but not the file that is recorded", sha256)
    if record.pixels_sha256 != proof.whole_digest(digests):
        return Verdict(
            DAMAGED, "it gives other pixels than when it was made: report it, with the archive",
            sha256,
        )  # fmt: skip
    return Verdict(GOOD, "", sha256)


def _damage(path: str, error: LaffError, max_pixels: int | None) -> str:
    """What is damaged of an archive that cannot be read."""
    try:
        return losses(salvaged(path, max_pixels))
    except LaffError as worse:
        return _without(path, worse if "header" in str(worse) else error)


def _without(path: str, error: LaffError) -> str:
    """What is said of an archive, without its name."""
    return str(error).removeprefix(f"{printable(path)}: ")


class Known:
    """What the records of an output folder say; a context manager. Raises LaffError if a job is
    writing there. Nothing is written there.

    The newest records are in journals, and what a killed job left must be set right first: all of
    it is copied into a temporary folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._state = folder / STATE_FOLDER

    def __enter__(self) -> "Known":
        self._copies = tempfile.TemporaryDirectory(prefix="femto-verify-")
        self._db = sqlite3.connect(Path(self._copies.name, "known.sqlite"), isolation_level=None)
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(
            "CREATE TABLE known (archive BLOB PRIMARY KEY, nbytes INTEGER, archive_sha256 TEXT, "
            "pixels_sha256 TEXT, seen INTEGER DEFAULT 0)"
        )
        self._db.execute("BEGIN")
        try:
            with self._no_job():
                self._db.executemany(
                    "INSERT OR REPLACE INTO known (archive, nbytes, archive_sha256, pixels_sha256) "
                    "VALUES (?, ?, ?, ?)",
                    self._records(),
                )
        except BaseException:
            self.__exit__()
            raise
        self._db.execute("COMMIT")
        return self

    def __exit__(self, *exception) -> None:
        self._db.close()
        self._copies.cleanup()

    @contextlib.contextmanager
    def _no_job(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # there was no job, or locks are not known here
                lock = stack.enter_context(open(self._state / "lock"))
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise LaffError(
                        f"{self.folder}: a job is writing to this folder: wait until it ends"
                    ) from None
            yield

    def _records(self) -> Iterator[tuple]:
        def row(record: dict) -> Iterator[tuple]:
            with contextlib.suppress(KeyError, TypeError):  # no record of a job
                yield (
                    os.fsencode(record["archive"]),
                    int(record["archive_bytes"]),
                    record.get("archive_sha256"),
                    record.get("pixels_sha256"),
                )

        path = self._state / "records.sqlite"
        try:
            for part in self._state.glob(f"{path.name}*"):
                shutil.copy(part, self._copies.name)
            copy = Path(self._copies.name, path.name)
            if copy.exists():
                with contextlib.closing(sqlite3.connect(copy)) as records:
                    for (text,) in records.execute("SELECT record FROM records"):
                        yield from row(json.loads(text))
        except (OSError, sqlite3.Error, ValueError) as error:
            raise LaffError(
                f"{path}: cannot be read ({error}): move it away to verify archives without it"
            ) from None
        for record in journal.read(self._state):
            yield from row(record)

    def __bool__(self) -> bool:
        return self._db.execute("SELECT 1 FROM known").fetchone() is not None

    def get(self, archive: str) -> Record | None:
        """What is recorded of an archive, a path below the folder, which is seen from now on."""
        name = (os.fsencode(archive),)
        self._db.execute("UPDATE known SET seen = 1 WHERE archive = ?", name)
        found = self._db.execute(
            "SELECT nbytes, archive_sha256, pixels_sha256 FROM known WHERE archive = ?", name
        ).fetchone()
        return None if found is None else Record(*found)

    def unseen(self) -> Iterator[str]:
        """Archives that are recorded and were not asked for."""
        found = self._db.execute("SELECT archive FROM known WHERE NOT seen ORDER BY archive")
        return (os.fsdecode(name) for (name,) in found)


@dataclass(frozen=True)
class Group:
    """Archives of one folder: all of them, or those that were named."""

    folder: Path
    names: list[str]
    all: bool

    @property
    def root(self) -> Path:
        """The output folder of the job that has records of them, else the folder itself."""
        for folder in (self.folder, *self.folder.resolve().parents):
            if (folder / STATE_FOLDER).is_dir():
                return folder
        return self.folder

    @property
    def below(self) -> str:
        """The folder's path below the root, with a / at its end, or nothing."""
        if self.root == self.folder:
            return ""
        return self.folder.resolve().relative_to(self.root).as_posix() + "/"


def groups_of(names: list[str], *, recursive: bool, say: Callable[[str], None]) -> list[Group]:
    """The archives that are meant by names of archives and folders; `say` is called with every
    reason why one cannot be used."""
    groups: list[Group] = []
    single: dict[Path, Group] = {}
    for name in dict.fromkeys(names):
        path = Path(name)
        if path.is_dir():
            try:
                found = find_archives(path, recursive=recursive)
            except OSError as error:
                say(f"{name}: {error.strerror}: allow this user to read it")
                continue
            for place, why in found.failed:
                say(f"{os.path.join(name, place)}: {why}")
            group = Group(path, [source.name for source in found.sources], True)
            if not found.sources and not found.failed and not (group.root / STATE_FOLDER).is_dir():
                say(f"{name}: {no_archives(found.left_out)}")
                continue
            groups.append(group)
        elif path.is_file():
            if path.parent not in single:
                groups.append(single.setdefault(path.parent, Group(path.parent, [], False)))
            single[path.parent].names.append(path.name)
        else:
            say(f"{name}: there is no such file; name archives or folders of such")
    return groups


def run(options: argparse.Namespace) -> int:
    """Verify the archives that the options name (see femto.cli.verify); returns the exit status.
    Raises LaffError."""
    telling = Telling(options.prog)
    counts: Counter = Counter()
    unusable = []

    def unused(reason: str) -> None:
        unusable.append(reason)
        telling.report(reason)

    groups = groups_of(options.archives, recursive=options.recursive, say=unused)
    jobs = options.jobs or cores()
    with Pool(jobs) as pool:
        for group in groups:
            with contextlib.ExitStack() as stack:
                known = stack.enter_context(Known(group.root))
                tell = _teller(options, counts, group, _manifest(options, group.folder, stack))
                _all(pool, jobs, options, group, known, tell)
                for place in known.unseen() if group.all else ():
                    own = place.removeprefix(group.below)
                    if own == place and group.below:
                        continue  # of another folder
                    if (options.recursive or "/" not in own) and not (group.folder / own).exists():
                        tell(own, Verdict(MISSING, "it is recorded, and not there"))
    if not options.quiet:
        told = [f"{counts[state]} {state}" for state in STATES if counts[state] or state == GOOD]
        say(", ".join(told))
    return 1 if unusable or counts.total() > counts[GOOD] else 0


def _teller(options: argparse.Namespace, counts: Counter, group: Group, manifest) -> Callable:
    """What is done with the verdict on an archive, by its path below the group's folder."""

    def tell(place: str, verdict: Verdict) -> None:
        counts[verdict.state] += 1
        good = verdict.state == GOOD
        if not (good and options.quiet):
            more = (f" ({verdict.text})" if good else f": {verdict.text}") if verdict.text else ""
            say(printable(f"{group.folder / place}: {verdict.state}{more}"))
        if good and manifest is not None:
            manifest.write(manifest_line(place, verdict.sha256))

    return tell


def _manifest(options: argparse.Namespace, folder: Path, stack: contextlib.ExitStack):
    """The file that gets the manifest, whole when the stack ends."""
    if not options.manifest:
        return None
    try:
        return stack.enter_context(whole_file(folder / MANIFEST))
    except OSError as error:
        raise LaffError(
            f"{folder / MANIFEST}: cannot be written ({error.strerror}): check the folder"
        ) from None


def manifest_line(place: str, sha256: str) -> bytes:
    """A line as sha256sum writes it: names with a backslash or a line break are escaped."""
    name = os.fsencode(place)
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return b"%s%s  %s\n" % (b"\\" if escaped != name else b"", sha256.encode(), escaped)


def _all(
    pool: Pool,
    jobs: int,
    options: argparse.Namespace,
    group: Group,
    known: Known,
    tell: Callable[[str, Verdict], None],
) -> None:
    """Verify the archives of a group, several at a time; they are told in their order."""
    left, number, next_told = iter(group.names), 0, 0
    waiting: dict[Future, tuple[int, str, tuple]] = {}
    done: dict[int, tuple[str, Verdict]] = {}
    while True:
        for place in islice(left, max(0, 2 * jobs - len(waiting) - len(done))):
            record = known.get(group.below + place)
            task = (str(group.folder / place), record, options.basis, options.max_pixels)
            waiting[pool.submit(_task, *task)] = number, place, task
            number += 1
        if not waiting:
            return
        finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for future in finished:
            at, place, task = waiting.pop(future)
            done[at] = place, _verdict(future, pool, task)
        while next_told in done:
            tell(*done.pop(next_told))
            next_told += 1


def _task(path: str, record: Record | None, basis: str | None, max_pixels: int) -> Verdict:
    """In a process of the pool."""
    return verify(path, record, basis=basis, max_pixels=max_pixels or None)


def _verdict(future: Future, pool: Pool, task: tuple) -> Verdict:
    """The verdict on an archive; one whose process was killed is tried once more, alone."""
    for result in (future.result, lambda: pool.alone(_task, *task)):
        with contextlib.suppress(Died):
            try:
                return result()
            except LaffError as error:
                return Verdict(DAMAGED, _without(task[0], error))
    return Verdict(DAMAGED, "its process was killed, most likely for lack of memory: try -j 1")
