"""Restoring a folder of archives: the way back, by the same runner as compressing.

An archive is restored by one task, band by band, so that memory does not grow with the picture;
the largest archives come first. What is there already is known by what decompressor.py keeps, too
(see `written`): where one of them stopped, either goes on.
"""

import contextlib
import errno
import itertools
import os
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from .. import LaffError
from ..errors import JobError, printable
from ..files.folder import Found, Source
from ..files.whole import remove_parts, write_whole
from . import report
from .archives import find_archives, no_archives, picture_names
from .progress import bytes_text, seconds_text
from .reconstruction import Made, Wanted, make_picture
from .records import Records
from .runner import Folders, Item, Runner, Work, failure, gone, local_file
from .written import Written, remember

COLUMNS = (
    "archive",
    "status",
    "picture",
    "width",
    "height",
    "mode",
    "bits",
    "archive_bytes",
    "raw_bytes",
    "picture_bytes",
    "seconds",
    "notes",
    "error",
)
FAILED_COLUMNS = ("archive", "archive_bytes", "error")
FIXED_COST = 4_000
"""What opening an archive and naming a picture costs, in bytes' worth of decoding."""
TASK_BYTES = 300_000
"""Most archives in one task, so that progress shows and a lost task costs little."""
FED_BYTES = 2 << 20
"""The driver itself restores a larger archive that the workers cannot read."""
LARGER = 10
"""About how many times larger pictures are than archives."""
WORDS = {"verb": "restore", "made": "picture"}
LISTED = 10
"""Most failures that are printed."""


@dataclass(frozen=True)
class Options:
    """What the user asked for; see femto.cli.restore."""

    input: Path
    output: Path
    wanted: Wanted = field(default_factory=Wanted)
    basis: str | None = None
    recursive: bool = False
    overwrite: bool = False
    report: bool = True
    reader: str = "auto"
    quiet: bool = False


@dataclass
class Outcome:
    """What came of a job: how many archives ended as "done", "skipped" or "failed", the first that
    failed (name, reason), what was made, and how long it took."""

    found: Found
    counts: Counter = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    noted: int = 0
    pixels: int = 0
    archive_bytes: int = 0
    picture_bytes: int = 0
    seconds: float = 0.0
    cores: int = 0
    reports: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Archive:
    """An archive that is to be restored, its picture's path below the output folder, whether
    another file may be replaced by it, and whether there is one."""

    source: Source
    picture: str
    overwrite: bool
    there: bool


@dataclass(frozen=True)
class Settings:
    """What every task of a job has to know; `basis` is a file as the driver names it."""

    folders: Folders
    wanted: Wanted
    basis: str | None

    @property
    def output(self) -> Path:
        return Path(self.folders.output)

    def local_basis(self) -> str | None:
        """The basis as a path in this process."""
        return None if self.basis is None else local_file(self.basis)


# In the executors --------------------------------------------------------------------------------


def _groups(archives: Iterable[Archive], limit: float) -> Iterator[list[Archive]]:
    """Archives for one task each, as they come: of a cost of at most `limit`, or a single one."""
    group: list[Archive] = []
    filled = 0
    for archive in archives:
        cost = archive.source.nbytes + FIXED_COST
        if group and filled + cost > limit:
            yield group
            group, filled = [], 0
        group.append(archive)
        filled += cost
    if group:
        yield group


def restore_archives(settings: Settings, groups: Iterator[list[Item]]) -> Iterator[dict]:
    """A partition of archives, each restored as a whole.

    Yields for each a dict: `key` and either `record` (see femto.job.written) and `new`, or `data`,
    `suffix` and `facts` of a picture that the driver is to write, or `error` (with `fatal`), or
    `unseen`.
    """
    for items in groups:
        seen = None
        for item in items:
            if item.payload is None and seen is None:
                seen = settings.folders.are_seen()
            key = {"key": item.thing.source.name}
            if item.payload is None and not seen:
                yield key | {"unseen": True}
                continue
            try:
                if item.payload is None:
                    yield key | restore_file(settings, item.thing)
                else:
                    yield key | _restore_bytes(settings, item.thing, item.payload)
            except Exception as error:  # one archive must not stop the others
                yield key | failure(error, **WORDS)


def restore_file(settings: Settings, archive: Archive, *, threads: int = 1) -> dict:
    """Restore an archive that this process can read, and remember its picture."""
    path = settings.folders.path(archive.source)
    before = os.stat(path)
    # An output folder that somebody has removed is not made anew.
    for folder in list(reversed(Path(archive.picture).parents))[1:]:
        (settings.output / folder).mkdir(exist_ok=True)
    if not settings.output.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    made = make_picture(
        path,
        settings.output / archive.picture,
        settings.wanted,
        overwrite=archive.overwrite,
        basis=settings.local_basis(),
        threads=threads,
    )
    return {
        "record": remember(settings.output, path, before, made, settings.wanted),
        "new": made.new,
    }


def _restore_bytes(settings: Settings, archive: Archive, data: bytes) -> dict:
    with tempfile.TemporaryDirectory(prefix="femto-") as folder:
        made = make_picture(
            data,
            Path(folder, "picture" + settings.wanted.suffix),
            settings.wanted,
            basis=settings.local_basis(),
        )
        return {"data": made.path.read_bytes(), "suffix": made.path.suffix, "facts": made.facts}


# In the driver -----------------------------------------------------------------------------------


class Restore(Work):
    """One run over one folder. Errors of the whole job are raised as JobError."""

    def __init__(self, options: Options, start: Callable[..., Runner]):
        super().__init__(options, start)
        self._lock = threading.Lock()
        self._table: report.Csv | None = None
        self._failures: report.Csv | None = None

    def run(self) -> Outcome:
        """Restore everything that is not done. Raises JobError, KeyboardInterrupt."""
        with self._progress:
            return self._run()

    def _run(self) -> Outcome:
        began = time.monotonic()
        options = self.options
        self._progress.phase("looking for archives")
        try:
            found = find_archives(options.input, recursive=options.recursive, skip=options.output)
        except OSError as error:
            raise JobError(f"{printable(str(options.input))}: {error.strerror}") from None
        if not found.sources and not found.failed:
            why = no_archives(found.left_out)
            raise JobError(f"{printable(str(options.input))}: {why} with --input")
        self.outcome = Outcome(found)
        self._progress.phase("looking what is done")
        try:
            options.output.mkdir(parents=True, exist_ok=True)
            with Records(options.output), contextlib.ExitStack() as stack:
                self._stack = stack
                if options.report:
                    self._table = report.Csv(options.output / report.CSV, stack, COLUMNS)
                for name, reason in found.failed:
                    self._add("failed", {"archive": name, "error": reason})
                self._restore(found)
            self._end_tables()
        except OSError as error:
            raise self.unwritable(error) from None
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    def _restore(self, found: Found) -> None:
        options = self.options
        folders = Folders(
            input=str(options.input.resolve()),
            output=str(options.output.resolve()),
            run=uuid.uuid4().hex[:12],
        )
        basis = None if options.basis is None else os.path.abspath(options.basis)
        self.settings = Settings(folders, options.wanted, basis)
        self.task = partial(restore_archives, self.settings)
        names = [source.name for source in found.sources]
        pictures = picture_names(dict(zip(names, names, strict=True)), options.wanted.suffix)
        for folder in {os.path.dirname(picture) for picture in pictures.values()}:
            remove_parts(options.output / folder)
        with Written(options.output) as written:
            archives = self._archives(found, pictures, written)
            first = next(archives, None)
            if first is not None:
                self._spread(itertools.chain([first], archives), found)

    def _archives(
        self, found: Found, pictures: dict[str, str], written: Written
    ) -> Iterator[Archive]:
        """What is to be restored, the largest first; what is there already is reported."""
        taken: dict[str, str] = {}
        for source in sorted(found.sources, key=lambda source: -source.nbytes):
            name = source.name
            picture, path = pictures[name], self.settings.folders.path(source)
            try:
                if picture in taken:
                    raise LaffError(f"{picture} is already the picture of {taken[picture]}")
                taken[picture] = name
                record, overwrite = written.standing(
                    path, picture, self.options.wanted, overwrite=self.options.overwrite
                )
            except (LaffError, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                self._add("failed", {"archive": name, "error": reason})
                continue
            if record is not None:
                self._add("skipped", record | {"archive": name})
            else:
                there = os.path.exists(os.path.join(self.options.output, picture))
                yield Archive(source, picture, overwrite, there)

    def _spread(self, archives: Iterator[Archive], found: Found) -> None:
        def some(count: int) -> list[Source]:
            return found.sources[:: max(1, len(found.sources) // count)]

        with self.started(self.settings.folders, some) as runner:
            self.outcome.cores = runner.cores
            ended = self.outcome.counts.total()
            self._progress.phase("restoring", total=len(found.sources), unit="archives")
            self._progress.step(ended)
            runner.run(self._jobs(archives))

    def _jobs(self, archives: Iterator[Archive]) -> Iterator[Callable[[], None]]:
        """Large archives that only the driver sees are its own work; all others go in batches."""
        for archive in archives:
            if archive.source.nbytes <= FED_BYTES or not self._runner.is_fed(archive.source):
                archives = itertools.chain([archive], archives)
                break
            yield partial(self._restore_here, archive)
        sources = self.outcome.found.sources
        cost = sum(source.nbytes for source in sources) + FIXED_COST * len(sources)
        limit = min(TASK_BYTES, cost / (8 * self._runner.cores))
        yield from self._runner.batches(_groups(archives, limit), self)

    def _restore_here(self, archive: Archive) -> None:
        try:
            result = restore_file(self.settings, archive, threads=os.cpu_count() or 1)
        except Exception as error:
            self._fail(archive, error)
        else:
            self.take(archive, result)

    # For the runner

    def describe(self, count: int) -> str:
        return f"restoring {count} pictures"

    def key(self, archive: Archive) -> str:
        return archive.source.name

    def source(self, archive: Archive) -> Source:
        return archive.source

    def nbytes(self, archive: Archive) -> int:
        return LARGER * archive.source.nbytes

    def load(self, archive: Archive) -> bytes:
        return Path(self.settings.folders.path(archive.source)).read_bytes()

    def take(self, archive: Archive, result: dict) -> None:
        if "data" in result:
            try:
                result = self._write(archive, **result)
            except (LaffError, OSError) as error:
                self._fail(archive, error)
                return
        row = result["record"] | {"archive": archive.source.name}
        # What was made by a task that was lost then, this job has made, too.
        self._add("done" if result["new"] or not archive.there else "skipped", row)

    def _write(self, archive: Archive, *, data: bytes, suffix: str, facts: dict, **_) -> dict:
        """Write and remember a picture that a worker sent."""
        picture = (self.settings.output / archive.picture).with_suffix(suffix)
        new = archive.overwrite or not picture.exists()
        if not new and picture.read_bytes() != data:
            raise LaffError(f"{picture}: another file is there; overwrite it or choose a new name")
        if new:
            write_whole(picture, data, below=self.settings.output)
        path = self.settings.folders.path(archive.source)
        made = Made(picture, new, facts)
        record = remember(self.settings.output, path, os.stat(path), made, self.options.wanted)
        return {"record": record, "new": new}

    def _fail(self, archive: Archive, error: Exception) -> None:
        failed = failure(error, **WORDS)
        self.fail(archive, failed["error"], fatal=failed["fatal"])

    def fail(self, archive: Archive, reason: str, *, fatal: bool = False) -> None:
        self._add(
            "failed",
            {
                "archive": archive.source.name,
                "archive_bytes": archive.source.nbytes,
                "picture": archive.picture,
                "error": reason,
            },
        )
        if fatal:
            whole = self.outcome.counts["done"] + self.outcome.counts["skipped"]
            self.end_early(reason, f"{whole} pictures")

    # Bookkeeping

    def _add(self, status: str, row: dict) -> None:
        outcome = self.outcome
        self._progress.step()
        with self._lock:
            outcome.counts[status] += 1
            if status == "failed":
                if len(outcome.failures) < LISTED:
                    outcome.failures.append((row["archive"], row["error"]))
            else:
                outcome.noted += bool(row["notes"])
            if status == "done":
                outcome.pixels += row["width"] * row["height"]
                outcome.archive_bytes += row["archive_bytes"]
                outcome.picture_bytes += row["picture_bytes"]
            values = {name: row.get(name) for name in COLUMNS}
            values |= {"status": status, "notes": "; ".join(row.get("notes", ()))}
            if self._table is not None:
                self._table.add(values)
            if status == "failed":
                if self._failures is None:
                    if not self.options.output.is_dir():
                        raise JobError(gone(str(self.options.output)))
                    path = self.options.output / report.FAILURES
                    self._failures = report.Csv(path, self._stack, FAILED_COLUMNS)
                self._failures.add(values)

    def _end_tables(self) -> None:
        """Say which tables were written; one of failures that are over goes."""
        for table in (self._table, self._failures):
            if table is not None:
                self.outcome.reports.append(table.path)
        if self._failures is None:
            (self.options.output / report.FAILURES).unlink(missing_ok=True)


def summary(options: Options, outcome: Outcome) -> str:
    """The end of a run on one screen."""
    done, skipped, failed = (outcome.counts[s] for s in ("done", "skipped", "failed"))
    found = outcome.found
    lines = [f"{done} restored, {skipped} unchanged, {failed} failed"]
    if done:
        lines += [
            f"{outcome.pixels / 1e6:.1f} Mpixel in {seconds_text(outcome.seconds)} "
            f"on {outcome.cores} cores",
            f"{bytes_text(outcome.archive_bytes)} of archives became "
            f"{bytes_text(outcome.picture_bytes)} of pictures",
        ]
    left_out = found.left_out.texts()
    if left_out:
        lines.append(f"left out: {', '.join(left_out)}")
    lines.append(f"pictures: {printable(str(options.output))}")
    lines += [f"report:   {printable(str(path))}" for path in outcome.reports]
    lines += [f"failed: {printable(name)}: {printable(why)}" for name, why in outcome.failures]
    if failed > LISTED:
        lines.append(f"... and {failed - LISTED} more failed, see {report.FAILURES}")
    if outcome.noted:
        lines.append(f"{outcome.noted} with notes, see report.csv")
    return "\n".join(lines)
