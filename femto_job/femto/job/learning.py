"""Learning a basis from a folder of pictures, on many processes.

These read the samples and keep them; what travels are bases, one way, and sums, the other. The same
pictures, seed and budget give the same basis, on any number of cores: see `femto.basis.adaptation`.
"""

import contextlib
import hashlib
import json
import math
import os
import pickle
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from pathlib import Path

import numpy as np

from .. import LaffError, __version__, codec
from ..basis import adaptation, bases
from ..basis.adaptation import Sample
from ..errors import JobError, printable
from ..files.folder import Source
from ..samples import Counts, Levels
from . import plan
from .pool import Died, Pool, cores
from .progress import Progress, bytes_text, seconds_text
from .pulse import Seen
from .sandbox import Sandbox, UnreadablePicture

WINDOW = 512
"""Samples are windows of so many pixels square, or whole pictures that are smaller."""
HELD_OUT = 8
"""Of so many pictures one is not learned from, but tells what learning was worth."""
STATE_PIXELS = 24_000_000
"""The coder's state learns from no more: it forgets what was longer ago."""
PROBED = 16
"""Pictures whose headers tell how large pictures of this folder are."""
STAGES = ("classes", "weights", "state", "filter")
"""What is learned, in this order; see `femto.basis.adaptation`."""
FEWEST = 4
"""Fewer pictures are all learned from."""

_sandbox = Sandbox()
"""One per process."""


@dataclass(frozen=True)
class Options:
    """What the user asked for; see femto.cli.train."""

    input: Path
    output: Path
    name: str
    basis: str = bases.DEFAULT
    megapixels: float = 48.0
    seed: int = 1
    recursive: bool = False
    gray: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class Wanted:
    """A picture that is to be sampled: its number, its path, how many windows at most, and whether
    it is held out; `taken`, what the driver has sampled for workers that do not see the file."""

    number: int
    source: Source
    path: str
    windows: int
    held_out: bool
    seed: int
    gray: bool
    taken: tuple[Sample, ...] | None = None


@dataclass
class Outcome:
    """What came of it. `gains` is by how much held-out pictures became smaller at equal PSNR, 0.05
    for 5 %, after every stage; empty if none were held out."""

    sha256: str = ""
    nbytes: int = 0
    pictures: int = 0
    pixels: int = 0
    held_out: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)
    gains: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    sent_bytes: int = 0


# --- choosing --------------------------------------------------------------------------------


def _draw(*key) -> bytes:
    """A number for a key, the same everywhere."""
    return hashlib.sha256("\0".join(map(str, key)).encode("utf-8", "surrogateescape")).digest()


def draw(sources: list[Source], seed: int) -> list[Source]:
    """All pictures, in the random order in which they are sampled."""
    return sorted(sources, key=lambda s: (_draw(seed, s.name), s.name))


def typical_pixels(drawn: list[Source], folder: Path, sandbox: Sandbox) -> int:
    """The median size of the first pictures, from their headers."""
    sizes = []
    for source in drawn[:PROBED]:
        with contextlib.suppress(UnreadablePicture):
            pages = sandbox.probe(str(folder / source.name), name=source.name)
            sizes.append(max(page["width"] * page["height"] for page in pages))
    return sorted(sizes)[len(sizes) // 2] if sizes else WINDOW**2


def choose(drawn: list[Source], typical: int, options: Options) -> list[Wanted]:
    """The pictures to sample: as many as fill the budget with a window of each if they have
    `typical` pixels, with more windows of each if there are too few."""
    budget = options.megapixels * 1e6
    drawn = drawn[: math.ceil(budget / min(typical, WINDOW**2))]
    windows = math.ceil(budget / (len(drawn) * WINDOW**2))
    folder = options.input.resolve()
    every = HELD_OUT if len(drawn) >= HELD_OUT else len(drawn)
    return [
        Wanted(
            number=i * windows,
            source=source,
            path=os.path.join(folder, source.name),
            windows=windows,
            held_out=len(drawn) >= FEWEST and i % every == every - 1,
            seed=options.seed,
            gray=options.gray,
        )
        for i, source in enumerate(drawn)
    ]


def take(wanted: Wanted, sandbox: Sandbox) -> tuple[Sample, ...]:
    """The windows of a picture, at random by the seed, at places where blocks of archives lie; of
    a file of many pages, those of one page. Raises UnreadablePicture, LaffError."""
    pages = sandbox.probe(wanted.path, name=wanted.source.name)
    readable = [page for page in pages if page["error"] is None]
    if not readable:
        raise UnreadablePicture(pages[0]["error"])
    key = (wanted.seed, wanted.source.name)
    page = min(readable, key=lambda page: _draw(*key, page["page"]))
    opened = sandbox.open(
        wanted.path,
        name=wanted.source.name,
        page=page["page"],
        gray=wanted.gray,
        pixels=page["width"] * page["height"],
    )
    height, width = opened.shape[:2]
    places = [
        (y, x)
        for y in range(0, max(height - WINDOW // 2, 1), WINDOW)
        for x in range(0, max(width - WINDOW // 2, 1), WINDOW)
    ]
    places.sort(key=lambda place: _draw(*key, *place))
    levels = levels_of_page(opened)
    windows = (opened[y : y + WINDOW, x : x + WINDOW] for y, x in places[: wanted.windows])
    return tuple(
        Sample(wanted.number + i, np.ascontiguousarray(pixels), levels)
        for i, pixels in enumerate(windows)
    )


def levels_of_page(opened) -> Levels:
    """The levels that a page uses, as `femto.encode` finds them: where its file does not declare
    them and samples have 16 bits, all of it is read."""
    info, counts = opened.info, None
    bits = info["bits"] if info["bits"] not in (8, 16) else None
    declared = None if info["levels"] is None else Levels(*info["levels"])
    if codec.needs_counts(opened.dtype, bits, declared):
        for tile in codec.tile_grid(*opened.shape[:2]):
            pixels = opened[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
            more = Counts.of(pixels)
            counts = more if counts is None else counts + more
    return codec.span_of(opened.dtype, bits, declared, counts)[1].levels


# --- in workers ------------------------------------------------------------------------------


def sample(all_wanted: Iterator[Wanted]) -> Iterator[tuple[Wanted, list[Sample], str | None]]:
    """A partition of pictures: (picture, samples, reason), with a reason if there are no samples;
    the reason "unseen" means that this process does not see the file."""
    for wanted in all_wanted:
        samples, reason = wanted.taken, None
        if samples is None:
            try:
                if os.stat(wanted.path).st_size != wanted.source.nbytes:
                    raise FileNotFoundError
                samples = take(wanted, _sandbox)
            except (UnreadablePicture, LaffError) as error:
                reason = " ".join(str(error).split())
            except OSError:
                reason = "unseen"
        yield replace(wanted, taken=None), list(samples or ()), reason


def facts_of(found: Iterator[tuple]) -> Iterator[tuple[Wanted, int, str | None]]:
    for wanted, samples, reason in found:
        yield wanted, sum(s.pixels.shape[0] * s.pixels.shape[1] for s in samples), reason


def _samples(found: Iterator[tuple], done, *, held_out: bool) -> Iterator[Sample]:
    for wanted, samples, _ in found:
        for one in samples if wanted.held_out == held_out else ():
            yield one
            done.add(one.pixels.shape[0] * one.pixels.shape[1])


def sum_of(empty: Callable, one: Callable, basis, done, found: Iterator[tuple]) -> bytes:
    """The packed sums of a partition's samples."""
    total = empty(basis)
    for taken in _samples(found, done, held_out=False):
        total.add(one(basis, taken))
    return total.pack()


def add_packed(empty: Callable, basis, a: bytes, b: bytes) -> bytes:
    """Packed sums of two partitions."""
    shapes = empty(basis)
    return (shapes.unpack(a) + shapes.unpack(b)).pack()


def state_of(basis, done, last: int, found: Iterator[tuple]) -> np.ndarray:
    """The state after the samples of all partitions up to number `last`."""
    samples = [s for w, some, _ in found if not w.held_out for s in some if s.number <= last]
    # Nothing is known of the order in which partitions are joined.
    samples.sort(key=lambda s: s.number)

    def watched():
        for one in samples:
            yield one
            done.add(one.pixels.shape[0] * one.pixels.shape[1])

    return adaptation.continue_state(basis, watched()).state


def judge(judged, done, found: Iterator[tuple]) -> Iterator[tuple]:
    """(number, what every basis of a list takes for it) of a partition's held-out samples."""
    for taken in _samples(found, done, held_out=True):
        yield taken.number, [adaptation.judge(basis, taken) for basis in judged]


# --- the driver ------------------------------------------------------------------------------


class Done:
    """How many pixels are done."""

    def __init__(self):
        self.value = 0

    def add(self, pixels: int) -> None:
        self.value += pixels


class Samples:
    """Where the samples are, and what is computed of them: a base class, and a context manager.

    `done` is told how many pixels are done; errors are JobErrors.
    """

    def __enter__(self) -> "Samples":
        return self

    def __exit__(self, *exception) -> None:
        """Let go of the samples."""

    def done(self) -> Done:
        """A new count."""
        return Done()

    def sample(self, wanted: list[Wanted]) -> list[tuple[Wanted, int, str | None]]:
        """Read the samples of pictures, in place of any others, and keep them: what `facts_of`
        says of all."""
        raise NotImplementedError

    def total(self, empty: Callable, one: Callable, basis, done) -> bytes:
        """The packed sums of all samples that are not held out."""
        raise NotImplementedError

    def state(self, basis, last: int, done) -> np.ndarray:
        """The state after the samples up to number `last`, in the order of their numbers."""
        raise NotImplementedError

    def judge(self, judged: list, done) -> list[tuple]:
        """(number, what every basis of a list takes for it) of the samples that are held out."""
        raise NotImplementedError


class LocalSamples(Samples):
    """On `jobs` processes of this machine, by default one for each core; samples are in files of a
    folder."""

    def __init__(self, folder: Path, *, jobs: int | None = None):
        self._folder = folder
        self._pool = Pool(jobs or cores())
        self._files: list[str] = []

    def __exit__(self, *exception) -> None:
        self._pool.close()

    def sample(self, wanted: list[Wanted]) -> list[tuple[Wanted, int, str | None]]:
        paths = [str(self._folder / f"{one.number}.samples") for one in wanted]
        futures = [
            self._pool.submit(_keep, one, path) for one, path in zip(wanted, paths, strict=True)
        ]
        facts = [_result(future) for future in futures]
        self._files = [path for path, (_, pixels, _) in zip(paths, facts, strict=True) if pixels]
        return facts

    def total(self, empty: Callable, one: Callable, basis, done) -> bytes:
        return reduce(
            partial(add_packed, empty, basis), self._each(done, partial(sum_of, empty, one, basis))
        )

    def state(self, basis, last: int, done) -> np.ndarray:
        function = partial(_with_last, state_of, basis, last)
        return _result(self._pool.submit(_of_files, function, self._files))[0]

    def judge(self, judged: list, done) -> list[tuple]:
        parts = self._each(done, partial(_list_of, judge, judged))
        return [row for part in parts for row in part]

    def _each(self, done, function: Callable) -> Iterator:
        """A function of the samples of every picture."""
        futures = [self._pool.submit(_of_files, function, [path]) for path in self._files]
        for future in futures:
            result, pixels = _result(future)
            done.add(pixels)
            yield result


def _result(future: Future):
    try:
        return future.result()
    except Died:
        raise JobError(
            "a process that learns died, most likely for lack of memory: free some, or use fewer "
            "--jobs, then run the same command again"
        ) from None


def _keep(wanted: Wanted, path: str) -> tuple[Wanted, int, str | None]:
    (found,) = sample(iter([wanted]))
    with open(path, "wb") as file:
        pickle.dump(found, file)
    (facts,) = facts_of(iter([found]))
    return facts


def _of_files(function: Callable, paths: list[str]) -> tuple:
    """What a function of `done` and of what was kept in files gives, and the pixels done."""

    def found() -> Iterator[tuple]:
        for path in paths:
            with open(path, "rb") as file:
                yield pickle.load(file)

    done = Done()
    return function(done, found()), done.value


def _with_last(function: Callable, basis, last: int, done, found):
    return function(basis, done, last, found)


def _list_of(function: Callable, what, done, found) -> list:
    return list(function(what, done, found))


class Learning:
    """One run over one folder.

    Parameters: the options, and a function of a folder for temporary files that gives Samples.
    Errors of the whole run are raised as JobError.
    """

    def __init__(self, options: Options, start: Callable[[Path], Samples]):
        self.options = options
        self._start = start
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Learn, and write the basis. Raises JobError, KeyboardInterrupt."""
        began = time.monotonic()
        options = self.options
        drawn = draw(self._find(), options.seed)
        typical = typical_pixels(drawn, options.input.resolve(), _sandbox)
        wanted = choose(drawn, typical, options)
        try:
            prior = bases.load_basis(options.basis)
        except LaffError as error:
            raise JobError(str(error)) from None
        self._folder = self._work_folder(prior, wanted)
        with Progress(quiet=options.quiet) as progress:
            progress.phase("starting the workers")
            samples = self._start(self._folder)
        with samples as self._samples:
            learned = self._learned(prior, wanted)
        self.outcome.sha256 = _save(replace(learned, name=options.name), options.output)
        self.outcome.nbytes = options.output.stat().st_size
        shutil.rmtree(self._folder.parent, ignore_errors=True)
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    def _learned(self, prior: bases.Basis, wanted: list[Wanted]) -> bases.Basis:
        self._sample(wanted)
        learned = [prior]
        steps = (self._classes, self._weights, self._learn_state, self._filter)
        for stage, learn in zip(STAGES, steps, strict=True):
            learned.append(self._stage(stage, learned[-1], learn))
        self._judge_all(learned)
        return learned[-1]

    def _find(self) -> list[Source]:
        options = self.options
        found = plan.require_pictures(options.input, recursive=options.recursive)
        for name, reason in found.failed:
            self._leave_out(name, reason)
        if not found.sources:
            raise self._nothing_to_learn_from()
        return found.sources

    def _nothing_to_learn_from(self) -> JobError:
        name, reason = self.outcome.left_out[0]
        return JobError(
            f"{printable(str(self.options.input))}: none of its pictures can be learned from "
            f"(the first is {printable(name)}: {printable(reason)}): name another folder with "
            "--input"
        )

    def _work_folder(self, prior: bases.Basis, wanted: list[Wanted]) -> Path:
        """Where the results of stages wait until the run is over: a folder named after all that
        they depend on."""
        options = self.options
        sources = [(w.source.name, w.source.nbytes, w.source.mtime_ns) for w in wanted]
        facts = [
            __version__, prior.sha256, options.megapixels, options.seed, options.gray, sources
        ]  # fmt: skip
        key = hashlib.sha256(json.dumps(facts, ensure_ascii=True).encode()).hexdigest()[:16]
        folder = self.options.output.with_name(self.options.output.name + ".work") / key
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JobError(f"{folder.parent}: cannot be made: {error.strerror}") from None
        return folder

    def _sample(self, wanted: list[Wanted]) -> None:
        """Have the samples read and kept."""
        self._say(f"sampling {len(wanted)} pictures")
        began = time.monotonic()
        facts = self._samples.sample(wanted)
        unseen = [w for w, _, reason in facts if reason == "unseen"]
        if unseen:
            self._say(f"the workers do not see {len(unseen)} of them: the driver reads these")
            taken = {w.number: self._take(w) for w in unseen}
            facts = self._samples.sample([taken.get(w.number, w) for w in wanted])
        for w, pixels, reason in facts:
            if pixels:
                self.outcome.pictures += not w.held_out
                self.outcome.held_out += w.held_out
            elif reason is not None:
                self._leave_out(w.source.name, reason)
        self._pixels = {
            held_out: sum(pixels for w, pixels, _ in facts if w.held_out == held_out)
            for held_out in (False, True)
        }
        if not self._pixels[False]:
            raise self._nothing_to_learn_from()
        self.outcome.pixels = self._pixels[False]
        self._state_pixels = 0
        for w, pixels, _ in facts:
            if not w.held_out and self._state_pixels < STATE_PIXELS:
                self._state_pixels += pixels
                self._last = w.number + w.windows - 1
        self.outcome.stage_seconds["samples"] = time.monotonic() - began

    def _take(self, wanted: Wanted) -> Wanted:
        try:
            return replace(wanted, taken=take(wanted, _sandbox))
        except (UnreadablePicture, LaffError) as error:
            self._leave_out(wanted.source.name, " ".join(str(error).split()))
        except OSError as error:
            self._leave_out(wanted.source.name, f"cannot be read: {error.strerror}")
        return replace(wanted, taken=())

    def _leave_out(self, name: str, reason: str) -> None:
        self.outcome.left_out.append((name, reason))
        self._say(f"left out: {printable(name)}: {printable(reason)}")

    # Stages

    def _stage(self, name: str, basis: bases.Basis, learn: Callable) -> bases.Basis:
        """The basis that `learn(basis)` gives, or gave in a run that was interrupted."""
        path = self._folder / f"{name}.basis"
        with contextlib.suppress(LaffError):
            done = bases.read_basis(path)
            self._say(f"{name}: done in an earlier run")
            return done
        began = time.monotonic()
        learned = learn(basis)
        # What a file holds is a little less than what was learned. All runs go on from there.
        _save(learned, path)
        self.outcome.stage_seconds[name] = time.monotonic() - began
        return bases.read_basis(path)

    def _classes(self, prior: bases.Basis) -> bases.Basis:
        basis = prior
        one = partial(adaptation.class_sums, seed=self.options.seed)
        for number in range(1, adaptation.ROUNDS + 1):
            sums = self._total(
                basis,
                adaptation.no_class_sums,
                one,
                f"classes, round {number} of {adaptation.ROUNDS}",
            )
            _, _, usage, (cost,) = sums.values()
            self._say(
                f"classes, round {number} of {adaptation.ROUNDS}: "
                f"{cost / max(usage[:, 0].sum(), 1):.4f} squared steps a block"
            )
            basis = adaptation.update_classes(prior, basis, sums)
        return basis

    def _weights(self, basis: bases.Basis) -> bases.Basis:
        sums = self._total(basis, adaptation.no_weight_sums, adaptation.weight_sums, "weights")
        return adaptation.update_weights(basis, sums)

    def _learn_state(self, basis: bases.Basis) -> bases.Basis:
        state = self._watched(
            "state", self._state_pixels, partial(self._samples.state, basis, self._last)
        )
        return replace(basis, state=state)

    def _filter(self, basis: bases.Basis) -> bases.Basis:
        sums = self._total(basis, adaptation.no_filter_sums, adaptation.filter_sums, "filter")
        return adaptation.update_filter(basis, sums)

    def _judge_all(self, learned: list[bases.Basis]) -> None:
        """Find out what every stage was worth, on the pictures that were held out."""
        if not self._pixels[True]:
            return
        began = time.monotonic()
        rows = self._watched("comparing", self._pixels[True], partial(self._samples.judge, learned))
        rows.sort(key=lambda row: row[0])
        totals = [adaptation.together(judged) for judged in zip(*(j for _, j in rows), strict=True)]
        for stage, total in zip(STAGES, totals[1:], strict=True):
            self.outcome.gains[stage] = adaptation.gain(totals[0], total)
        self.outcome.stage_seconds["comparing"] = time.monotonic() - began

    def _total(self, basis, empty: Callable, one: Callable, title: str) -> adaptation.Sums:
        """The sums of all samples: added up by the workers, only a few reach the driver."""
        action = partial(self._samples.total, empty, one, basis)
        packed = self._watched(title, self._pixels[False], action)
        self.outcome.sent_bytes += len(packed)
        return empty(basis).unpack(packed)

    def _watched(self, title: str, pixels: int, action: Callable):
        """What an action gives that counts the pixels it has done, showing progress."""
        done = self._samples.done()
        with Progress(quiet=self.options.quiet) as progress:
            progress.begin(0, pixels, title=title, look=lambda: Seen(done.value))
            return action(done)

    def _say(self, line: str) -> None:
        if not self.options.quiet:
            print(line, flush=True)


def _save(basis: bases.Basis, path: Path) -> str:
    try:
        return bases.save_basis(basis, path)
    except OSError as error:
        raise JobError(
            f"{path}: cannot be written ({error.strerror}): make room, or allow this user to write "
            "there, then run the same command again"
        ) from None


def summary(options: Options, outcome: Outcome) -> str:
    """The end of a run on one screen."""
    lines = [
        f"learned from {outcome.pictures} pictures, {outcome.pixels / 1e6:.1f} Mpixel of theirs, "
        f"in {seconds_text(outcome.seconds)}"
    ]
    if outcome.gains:
        worth = outcome.gains[STAGES[-1]]
        steps = ", ".join(f"{100 * gain:.1f} % after {n}" for n, gain in outcome.gains.items())
        lines.append(
            f"{outcome.held_out} pictures that it has not seen become smaller at equal PSNR by "
            f"{100 * worth:.1f} % ({steps})"
        )
        lines.append(
            f"pays for its own {bytes_text(outcome.nbytes)} from "
            f"{bytes_text(outcome.nbytes / worth)} of archives on"
            if worth > 0
            else "this basis is no better than the one it began with: use that one"
        )
    else:
        lines.append(f"fewer than {FEWEST} pictures: none was held out to tell what it is worth")
    lines.append(f"basis: {printable(str(options.output))}, sha256 {outcome.sha256}")
    if outcome.left_out:
        lines.append(f"left out: {len(outcome.left_out)} files")
    return "\n".join(lines)
