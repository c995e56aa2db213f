"""Decoding archives on this machine, several at a time: what femto decompress does."""

import argparse
import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path

import femto

from ..container import MAX_STREAM, arriving
from ..errors import LaffError, printable
from ..files.folder import LeftOut
from ..files.whole import remove_parts
from .archives import find_archives, no_archives, picture_names
from .pool import Died, Pool, cores
from .reconstruction import Wanted, make_picture
from .salvaging import salvaged
from .written import Written, remember


@dataclass(frozen=True)
class Task:
    """One archive and where its picture goes."""

    name: str  # as the user gave it, "-" for standard input
    output: Path
    options: argparse.Namespace
    threads: int
    data: bytes | None = None
    overwrite: bool = False
    folder: Path | None = None  # that remembers the picture


@dataclass(frozen=True)
class End:
    """How an archive ended: its picture was "made", was "there", was "salvaged" as far as it is
    good, or it "failed"; what is said."""

    status: str
    text: str


@dataclass
class Given:
    """The archives that the command line names: each with its place below the output folder, what
    cannot be used with the reason, and what was found in folders and left out."""

    archives: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    folders: int = 0
    left: LeftOut = field(default_factory=LeftOut)


class Telling:
    """Says how archives end, in their order, and counts it. `prog` says it."""

    def __init__(self, prog: str):
        self._prog = prog
        self.counts: Counter = Counter()
        self._ends: dict[int, End] = {}

    def report(self, message: object) -> None:
        """One line on standard error."""
        line = printable(" ".join(str(message).split()))
        print(f"{self._prog}: {line}", file=sys.stderr, flush=True)

    def end(self, number: int, end: End) -> None:
        """The archive of this number has ended: that is said when all before it have."""
        self._ends[number] = end
        while (number := self.counts.total()) in self._ends:
            end = self._ends.pop(number)
            self.counts[end.status] += 1
            if end.status == "failed":
                self.report(end.text)
            else:
                say(printable(end.text))


def run(options: argparse.Namespace) -> int:
    """Decode the archives that the options name (see femto.cli.decompress); returns the exit
    status."""
    telling = Telling(options.prog)
    given = expand(options.archives, options.recursive, options.target)
    options.wanted = Wanted.of(options)
    options.jobs = options.jobs or cores()
    for message in given.failed:
        telling.report(message)
    with contextlib.nullcontext() if options.one_file else Written(options.target) as written:
        items = work(given.archives, options, written)
        decode_all(items, options.jobs, len(given.archives), telling)
    counts = telling.counts
    counts["failed"] += len(given.failed)
    if given.folders and given.archives:
        telling.report(summary(counts, given))
    return 1 if counts["failed"] or counts["salvaged"] else 0


def summary(counts: Counter, given: Given) -> str:
    """How a run over folders ended."""
    text = f"{counts['made']} restored, {counts['there']} were there, {counts['failed']} failed"
    if counts["salvaged"]:
        text += f", {counts['salvaged']} damaged and salvaged"
    left = given.left.texts()
    return text + (f"; left out: {', '.join(left)}" if left else "")


# ------------------------------------------------------------------------------------------------
# Names


def expand(names: list[str], recursive: bool, skip: Path | None) -> Given:
    """The archives that are meant by names of archives and folders, but for those in `skip`."""
    given = Given()
    for name in dict.fromkeys(names):
        if name == "-":
            given.archives[name] = "stdin"
        elif os.path.isdir(name):
            given.folders += 1
            try:
                found = find_archives(Path(name), recursive=recursive, skip=skip)
            except OSError as exc:
                given.failed.append(f"{name}: {exc.strerror}: allow this user to read it")
                continue
            for source in found.sources:
                given.archives.setdefault(os.path.join(name, source.name), source.name)
            given.failed += [f"{os.path.join(name, place)}: {why}" for place, why in found.failed]
            given.left.add(found.left_out)
            if not found.sources and not found.failed:
                given.failed.append(f"{name}: {no_archives(found.left_out)}")
        elif os.path.isfile(name):
            given.archives[name] = os.path.basename(name)
        else:
            given.failed.append(f"{name}: there is no such file; name .laff.gz or .laff files")
    return given


def work(
    archives: dict[str, str], options: argparse.Namespace, written: Written | None
) -> Iterator[Task | End]:
    """What is to be done about every archive, or its end where that is known. Without `written`,
    the target is the file of the only archive."""
    target = options.target
    if written is None:
        places = {name: str(target) for name in archives}
    else:
        names = picture_names(archives, options.wanted.suffix)
        places = {name: os.path.normpath(target / place) for name, place in names.items()}
        for folder in {os.path.dirname(place) for place in places.values()}:
            remove_parts(folder)
    threads = max(1, options.jobs // max(1, min(options.jobs, len(archives))))
    taken: dict[str, str] = {}
    for name, place in places.items():
        if place in taken:
            why = f"{name}: {place} is already the picture of {taken[place]}; "
            yield End("failed", why + "decode it on its own with another -o")
            continue
        taken[place] = name
        task = Task(name, Path(place), options, threads, overwrite=options.overwrite)
        try:
            if name == "-":
                if not options.progressive:
                    task = replace(task, data=read_standard_input())
            elif written is not None:
                record, overwrite = written.standing(
                    name, os.path.relpath(place, target), options.wanted,
                    overwrite=options.overwrite,
                )  # fmt: skip
                if record is not None:
                    there = written.folder / record["picture"]
                    yield End("there", told(Path(os.path.normpath(there)), record["notes"], False))
                    continue
                task = replace(task, overwrite=overwrite, folder=target)
        except LaffError as exc:
            yield End("failed", named(name, exc))
            continue
        yield task


def read_standard_input() -> bytes:
    """The archive on standard input; LaffError at once if it does not begin like one."""
    stream = sys.stdin.buffer
    head = stream.read(64)
    if not (head.startswith(b"\x1f\x8b") or head.lstrip().startswith(b"{")):
        what = "is empty" if not head else "is no archive"
        raise LaffError(f"standard input: {what}; give it a .laff.gz or .laff file")
    data = head + stream.read(MAX_STREAM)
    if len(data) > MAX_STREAM:
        raise LaffError(f"standard input: is longer than {MAX_STREAM} bytes; name a file")
    return data


# ------------------------------------------------------------------------------------------------
# Decoding


def decode_all(items: Iterator[Task | End], jobs: int, count: int, telling: Telling) -> None:
    """Carry out work, several archives at a time."""
    if count <= 1:
        for number, item in enumerate(items):
            telling.end(number, reconstruct(item) if isinstance(item, Task) else item)
        return
    numbered, more = enumerate(items), True
    waiting: dict[Future, tuple[int, Task]] = {}
    with Pool(min(jobs, count)) as pool:
        while more or waiting:
            while more and len(waiting) < 2 * min(jobs, count):
                number, item = next(numbered, (0, None))
                if item is None:
                    more = False
                elif isinstance(item, Task):
                    waiting[pool.submit(reconstruct, item)] = number, item
                else:
                    telling.end(number, item)
            finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                number, task = waiting.pop(future)
                telling.end(number, end_of(future, task, pool))


def end_of(future: Future, task: Task, pool: Pool) -> End:
    """How an archive ended; one whose process was killed is tried once more, alone."""
    for result in (future.result, lambda: pool.alone(reconstruct, task)):
        with contextlib.suppress(Died):
            return result()
    remove_parts(task.output.parent)
    return End("failed", f"{task.name}: its process was killed, most likely for lack of memory")


def say(text: str) -> bool:
    """Print; False if nobody reads any more (head, a closed pager), and then no message at exit."""
    try:
        print(text, flush=True)
        return True
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False


def reconstruct(task: Task) -> End:
    """Decode one archive."""
    try:
        return _reconstruct(task)
    except LaffError as exc:
        return End("failed", named(task.name, exc))
    except MemoryError:
        return End("failed", f"{task.name}: too little memory; try -j 1 or close other programs")
    except Exception as exc:  # one archive must not stop the others
        why = f"femto failed on it ({type(exc).__name__}: {exc}); report it"
        return End("failed", f"{task.name}: {why}")


def named(name: str, exc: LaffError) -> str:
    """The message, with the archive's name before it unless it tells the name itself."""
    shown = "standard input" if name == "-" else name
    return str(exc) if printable(shown) in printable(str(exc)) else f"{shown}: {exc}"


def _reconstruct(task: Task) -> End:
    options, overwrite = task.options, task.overwrite
    if options.progressive:
        archives = arriving(sys.stdin.buffer, "standard input")
    else:
        archives = [task.name if task.data is None else task.data]
    before = os.stat(task.name) if task.folder is not None else None
    if options.salvage:
        try:
            femto.parse(archives[0])
        except LaffError:
            return _salvage(task, archives[0])
    for archive in archives:
        made = make_picture(
            archive,
            task.output,
            options.wanted,
            overwrite=overwrite,
            basis=options.basis,
            threads=task.threads,
        )
        overwrite = True  # what this run has written
    if before is not None:
        # If it cannot be remembered, it is decoded and compared next time.
        with contextlib.suppress(OSError):
            remember(task.folder, task.name, before, made, options.wanted)
    status = "made" if made.new else "there"
    return End(status, told(made.path, made.facts["notes"], made.new))


def _salvage(task: Task, archive) -> End:
    """Make a picture of what is good of a damaged archive. In a folder it is NAME.salvaged.png:
    the other name is that of the whole picture."""
    path, options = task.output, task.options
    if task.folder is not None:
        path = path.with_name(f"{path.stem}.salvaged{path.suffix}")
    found = salvaged(archive, options.wanted.max_pixels)
    made = make_picture(
        found.archive,
        path,
        options.wanted,
        overwrite=options.overwrite,
        basis=options.basis,
        found=found,
    )
    return End("salvaged", told(made.path, made.facts["notes"], made.new))


def told(path: Path, notes: list[str], new: bool) -> str:
    """What is said of a picture."""
    return " ".join([str(path), *(f"({note})" for note in ([] if new else ["was there"]) + notes)])


# ------------------------------------------------------------------------------------------------
# --info


def show_all(options: argparse.Namespace) -> int:
    """Print what the archives hold (see femto.cli.info); returns the exit status."""
    telling = Telling(options.prog)
    given = expand(options.archives, options.recursive, None)
    for message in given.failed:
        telling.report(message)
    failed = len(given.failed)
    for name in given.archives:
        try:
            data = read_standard_input() if name == "-" else name
            facts = femto.info(data)
        except LaffError as exc:
            telling.report(named(name, exc))
            failed += 1
            continue
        if not say(as_line(name, facts) if options.json else as_text(name, facts)):
            break
    return 1 if failed else 0


def as_line(name: str, facts: dict) -> str:
    """The facts as JSON; of bytes, such as the ICC profile, only how many."""
    metadata = {
        key: len(value) if isinstance(value, bytes) else value
        for key, value in (facts["metadata"] or {}).items()
    }
    facts = dict(facts, icc=len(facts["icc"]) if facts["icc"] else None, metadata=metadata or None)
    line = json.dumps({"archive": name, **facts}, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


def as_text(name: str, facts: dict) -> str:
    """The facts for people."""
    from ..display import depth_text
    from ..samples import dtype_of, exactness

    width, height = facts["width"], facts["height"]
    channels = 1 if facts["mode"] == "L" else 3
    raw = width * height * channels * dtype_of(facts["bits"]).itemsize
    colour = "grey" if channels == 1 else "RGB"
    lines = [
        "standard input" if name == "-" else printable(name),
        f"  format    {facts['format']} version {facts['version']}",
        f"  picture   {width} x {height} pixels, {colour}, {depth_text(facts)}"
        + (f", from {printable(facts['source'])}" if facts["source"] else ""),
        f"  size      {facts['nbytes']:,} bytes of {raw:,}: {raw / facts['nbytes']:.1f} times "
        f"smaller, {facts['nbytes'] * 8 / (width * height):.3f} bits per pixel",
        f"  basis     {facts['basis']['name']} (sha256 {facts['basis']['sha256'][:16]}...)",
        f"  step      {facts['step']:g} grey levels, in {facts['passes']} "
        + ("pass" if facts["passes"] == 1 else "passes")
        + (", tuned for the eye" if facts["tune"] == "perceptual" else ""),
        f"  tiles     {facts['tiles']} of at most {facts['tile']} x {facts['tile']} pixels",
    ]
    if facts["max_error"] is not None:
        lines.append(f"  error     {exactness(facts['max_error'])}")
    if facts["icc"]:
        lines.append(f"  profile   ICC, {len(facts['icc']):,} bytes")
    for number, (key, value) in enumerate(facts["properties"].items()):
        lines.append(f"  {'' if number else 'metadata':8}  {key}: {value}")
    total, so_far = sum(facts["layer_nbytes"]) or 1, 0
    for number, nbytes in enumerate(facts["layer_nbytes"], 1):
        so_far += nbytes
        lines.append(f"  layer {number:2}  {nbytes:>12,} bytes, {so_far / total:7.1%} up to here")
    return "\n".join(lines)
