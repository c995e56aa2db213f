"""Work that is spread over processes: what every job does alike, wherever they are.

Things (pictures, archives) go to the processes in batches of a few tasks, several batches at a
time: enough to keep all cores busy, few enough that memory stays bounded however many things there
are. A thing that kills the process that works on it fails alone. Workers that do not see the
folders are fed by the driver.

`Runner` is what runs there are made of: `femto.job.local` runs on the cores of this machine,
`femto_spark.runner` on Spark.
"""

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import JobError, LaffError, printable
from ..files.folder import Source
from ..files.whole import write_whole
from .progress import Progress
from .records import STATE_FOLDER
from .sandbox import Sandbox, UnreadablePicture

BATCHES_IN_FLIGHT = 4
FED_BYTES = 128 << 20
"""What the driver reads ahead for the workers at least, over all batches in flight; a larger
thing counts for itself."""
FED_BYTES_PER_CORE = 96 << 20
"""What it reads ahead if its memory allows: a picture of 16 megapixels of 16 bits for each core."""
FED_SHARE = 3
"""One of so many bytes of memory may hold what is fed."""


class Stopped(Exception):
    """Another thread has ended the job."""


@dataclass(frozen=True)
class Folders:
    """The folders of a job as the driver means them: absolute paths, and `run`, the job's own name.

    While the job runs, a file `token` in the output folder has `run` as its content; by it an
    worker knows that it sees the same folders as the driver.
    """

    input: str
    output: str
    run: str

    @property
    def token(self) -> Path:
        return Path(self.output, STATE_FOLDER, f"token-{self.run}")

    def path(self, source: Source) -> str:
        """Where a file of the input folder lies."""
        return os.path.join(self.input, source.name)

    def are_seen(self) -> bool:
        """Whether this process sees the output folder that the driver means."""
        try:
            return self.token.read_text() == self.run
        except OSError:
            return False


@dataclass(frozen=True)
class Item:
    """One thing for a task, which reads the thing's file, or gets `payload` in its place."""

    thing: Any
    payload: Any = None


class Work:
    """A job over a folder, and what it does with its things, each of them in one task: a base
    class.

    Parameters: the options, which have `input`, `output`, `basis`, `reader` and `quiet`; and where
    it runs: a function of Folders, `reader` and `say` that gives a Runner, such as LocalRunner,
    and is called only if there is something to do.

    `task` is what workers call: a function (that can be pickled) of an iterator of lists of
    Items. It yields a dict for each Item: `key`, and either `error` (one line, with `fatal`: no
    other thing will fare better), or `unseen`: true if it does not see the folders, or what
    `take` understands. It raises nothing.
    """

    task: Callable[[Iterator[list[Item]]], Iterator[dict]]

    def __init__(self, options, start: Callable[..., "Runner"]):
        self.options = options
        self._start = start
        self._progress = Progress(quiet=options.quiet)
        self._runner: Runner | None = None

    # What a job does with its things

    def describe(self, count: int) -> str:
        """What a batch of so many things is called."""
        raise NotImplementedError

    def key(self, thing) -> str:
        """What tells a thing from all others."""
        raise NotImplementedError

    def source(self, thing) -> Source:
        """The file that it is made of."""
        raise NotImplementedError

    def nbytes(self, thing) -> int:
        """About how large `load` makes it."""
        return self.source(thing).nbytes

    def load(self, thing):
        """What a task gets that cannot read the file. Raises UnreadablePicture, OSError."""
        raise NotImplementedError

    def take(self, thing, result: dict) -> None:
        """A thing is done: in the driver, by one of several threads."""
        raise NotImplementedError

    def fail(self, thing, reason: str, *, fatal: bool = False) -> None:
        """A thing has failed: in the driver, by one of several threads."""
        raise NotImplementedError

    # What all jobs do

    @contextlib.contextmanager
    def started(
        self, folders: "Folders", some: Callable[[int], list[Source]]
    ) -> Iterator["Runner"]:
        """A runner that is ready: workers have the basis, if it is a file, and it is known who sees
        the files, by about so many of them as `some(count)` gives."""
        write_whole(folders.token, folders.run.encode())
        try:
            self._progress.phase("starting the workers")
            with self._start(
                folders, reader=self.options.reader, say=self._progress.say
            ) as self._runner:
                if self.options.basis is not None and os.path.isfile(self.options.basis):
                    self._runner.ship(os.path.abspath(self.options.basis))
                self._progress.phase("waiting for the workers")
                self._runner.find_view(some(2 * self._runner.cores))
                yield self._runner
        finally:
            folders.token.unlink(missing_ok=True)

    def end_early(self, reason: str, whole: str) -> None:
        """End the job for a reason that all other things share, such as a full disk; `whole` files
        are made."""
        self._runner.stop(
            JobError(
                f"{printable(str(self.options.output))}: {reason.rpartition(': ')[2]}: "
                f"{whole} are whole; make room, then run the same command again"
            )
        )

    def unwritable(self, error: OSError) -> JobError:
        """Why there can be nothing in the output folder."""
        output = printable(str(self.options.output))
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            return JobError(f"{output}: is a file: name a folder with --output")
        return JobError(
            f"{output}: cannot be written ({error.strerror}): "
            "allow this user to write there, make room, or choose another --output"
        )


class Runner:
    """Runs one job's functions on several processes: a base class.

    Parameters: the job's folders; `reader`, who reads and writes the files: "workers", "driver", or
    "auto" to find out; `say`, called with a line that people should see. Used in a with statement.
    """

    cores: int
    """How many tasks run at a time."""
    shared = False
    """Whether all workers are known to see what this process sees."""

    def __init__(
        self, folders: Folders, *, reader: str = "auto", say: Callable[[str], None] = print
    ):
        self.folders = folders
        self._reader, self._say = reader, say
        self._fed: set[str] = set()
        self.all_fed = reader == "driver"
        self._fatal: JobError | None = None
        self._stopping = threading.Event()
        self._local = threading.local()
        self._sandboxes: list[Sandbox] = []

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, kind, error, trace) -> None:
        for sandbox in self._sandboxes:
            sandbox.close()

    # What differs from one kind to another

    def spread_safely(
        self, function: Callable, parts: list, description: str, lost: Callable
    ) -> list:
        """Call a function of an iterator once per part, each in a task of its own: all that it
        yields, in this order. Parts whose process dies are halved (the items of the last one, too,
        of parts that are lists) until what kills it is alone: that becomes `lost(item, reason)`.
        """
        raise NotImplementedError

    def ship(self, path: str) -> None:
        """Give workers a file: `local_file(path)` is what they have of it."""

    def cancel(self) -> None:
        """End what is under way, as far as that is possible."""

    @property
    def memory_nbytes(self) -> int:
        """Bytes of memory that this process may use, with what is on its way."""
        raise NotImplementedError

    # The job's end

    def stop(self, error: JobError) -> None:
        """End the job with this error, in all threads, as soon as they look."""
        self._fatal = error

    def check(self) -> None:
        """Raise what has ended the job, if something has."""
        if self._fatal is not None:
            raise self._fatal
        if self._stopping.is_set():
            raise Stopped

    def run(self, jobs: Iterable[Callable[[], None]]) -> None:
        """Call all `jobs`, some at a time, each taken when it is needed. The first exception ends
        all of them and is raised."""
        jobs = iter(jobs)
        pool = ThreadPoolExecutor(BATCHES_IN_FLIGHT, thread_name_prefix="batch")
        waiting: set[Future] = set()
        try:
            while True:
                for job in islice(jobs, BATCHES_IN_FLIGHT - len(waiting)):
                    waiting.add(pool.submit(job))
                if not waiting:
                    break
                finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                self.check()
                if not self.folders.token.exists():
                    raise JobError(gone(self.folders.output))
        except BaseException:
            self._stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            self.cancel()
            raise
        pool.shutdown()

    # Who reads and writes the files

    def find_view(self, sources: list[Source]) -> None:
        """Find out whether all workers see the folders; if one does not, all are fed."""
        if self.all_fed or self.shared or self._reader == "workers":
            return
        samples = sources[:: max(1, len(sources) // (2 * self.cores))][: 4 * self.cores]
        while len(samples) < 2 * self.cores:
            samples = samples + samples
        seen = self.spread_safely(
            partial(_check_view, self.folders),
            samples,
            "who sees the input",
            lambda sample, reason: False,
        )
        self.all_fed = not all(seen)

    def is_fed(self, source: Source) -> bool:
        """Whether the driver reads this file for the workers."""
        return self.all_fed or source.name in self._fed

    def feed(self, sources: Iterable[Source]) -> None:
        """From now on the driver reads these files. Raises JobError if the workers were to."""
        if self._reader == "workers":
            raise JobError(
                f"{self.folders.output}: not every worker sees the folders: "
                "share them with all nodes, or use --reader driver"
            )
        self._fed |= {source.name for source in sources}

    def sandbox(self) -> Sandbox:
        """This thread's sandbox, to read pictures in the driver."""
        if not hasattr(self._local, "sandbox"):
            self._local.sandbox = Sandbox()
            self._sandboxes.append(self._local.sandbox)
        return self._local.sandbox

    # Batches of things

    def batches(self, groups: Iterable[list], work: Work) -> Iterator[Callable[[], None]]:
        """Jobs for `run`: all groups of things, each group in one task."""
        groups = iter(groups)
        while batch := list(islice(groups, self.cores)):
            yield partial(self._do_batch, batch, work)

    def _do_batch(self, groups: list[list], work: Work) -> None:
        seen = [
            items
            for group in groups
            if (items := [Item(t) for t in group if not self.is_fed(work.source(t))])
        ]
        fed = [own for g in groups if (own := [t for t in g if self.is_fed(work.source(t))])]
        things = {work.key(thing): thing for group in groups for thing in group}
        if seen:
            self._finish(self._do(seen, work), things, work)
        for parts in self._portions(fed, work):
            self._finish(self._do(parts, work), things, work)

    def _do(self, parts: list[list[Item]], work: Work) -> list[dict]:
        return self.spread_safely(
            work.task,
            parts,
            work.describe(sum(map(len, parts))),
            lambda item, reason: {"key": work.key(item.thing), "error": reason},
        )

    def _portions(self, groups: list[list], work: Work) -> Iterator[list[list[Item]]]:
        """Read things for workers that cannot: groups of items, of bounded size."""
        parts: list[list[Item]] = []
        total = 0
        for group in groups:
            parts.append([])
            for thing in group:
                self.check()
                need = work.nbytes(thing)
                if total and total + need > self.portion_nbytes():
                    yield [part for part in parts if part]
                    parts, total = [[]], 0
                try:
                    parts[-1].append(Item(thing, work.load(thing)))
                    total += need
                except (UnreadablePicture, OSError) as error:
                    work.fail(thing, why_unread(error))
        if any(parts):
            yield [part for part in parts if part]

    def portion_nbytes(self) -> int:
        """How many bytes the driver reads for one batch: enough for all cores, over all batches, as
        far as memory allows."""
        wanted = min(self.cores * FED_BYTES_PER_CORE, self.memory_nbytes // FED_SHARE)
        return max(FED_BYTES, wanted) // BATCHES_IN_FLIGHT

    def _finish(self, results: list[dict], things: dict[str, Any], work: Work) -> None:
        """Take the results of a batch; what workers could not see is fed to them."""
        unseen = []
        for result in results:
            thing = things[result["key"]]
            if result.get("unseen"):
                unseen.append(thing)
            elif "error" in result:
                work.fail(thing, result["error"], fatal=result.get("fatal", False))
            else:
                work.take(thing, result)
        if unseen:
            self.feed(map(work.source, unseen))
            self._do_batch([unseen], work)


def halves(parts: list) -> list[list]:
    """Half the parts each, or of a single one half its items each; none if it is one item."""
    if len(parts) > 1:
        middle = len(parts) // 2
        return [parts[:middle], parts[middle:]]
    (part,) = parts
    if not isinstance(part, list) or len(part) < 2:
        return []
    middle = len(part) // 2
    return [[part[:middle]], [part[middle:]]]


_shipped: str | None = None


def files_are_in(folder: str) -> None:
    """In a worker: the files that the driver has shipped are in this folder."""
    global _shipped
    _shipped = folder


def local_file(path: str) -> str:
    """What this process has of a file that the driver has shipped: the file itself, or a copy."""
    return path if _shipped is None else os.path.join(_shipped, os.path.basename(path))


FULL = frozenset({errno.ENOSPC, errno.EROFS, errno.EDQUOT})
"""No later thing will fare better."""


def reason_of(error: BaseException, verb: str = "compress", made: str = "archive") -> str:
    """Why a thing failed, in one line for the report: what was to be done, what was to be made."""
    if isinstance(error, (UnreadablePicture, LaffError)):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return (
            f"not enough memory to {verb} it: let fewer be worked on at a time, or give more memory"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"its {made} cannot be written: {error.strerror}"
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def failure(error: BaseException, **words) -> dict:
    """The result of a thing that failed, with the words of `reason_of`."""
    cause = error.__cause__ if isinstance(error, LaffError) else error
    fatal = isinstance(cause, OSError) and cause.errno in FULL
    return {"error": reason_of(error, **words), "fatal": fatal}


def gone(output: str) -> str:
    """What is said of an output folder that is there no more."""
    return (
        f"{printable(output)}: was removed or replaced while the job ran, or is out of reach: "
        "see to the folder, then run the same command again"
    )


def why_unread(error: Exception) -> str:
    """The reason why the driver could not read a file."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror}: allow this user to read it"
    return str(error)


def _check_view(folders: Folders, samples: Iterator[Source]) -> Iterator[bool]:
    """A partition of samples: does the executor read the input and write the output that the
    driver means?"""
    for sample in samples:
        trial = f"{folders.token}-{socket.gethostname()}-{os.getpid()}"
        try:
            same = os.stat(folders.path(sample)).st_size == sample.nbytes
            write_whole(trial, b"")
            os.unlink(trial)
        except OSError:
            same = False
        yield same and folders.are_seen()
