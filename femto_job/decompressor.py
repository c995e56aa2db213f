#!/usr/bin/env python3
"""Turn femto's archives back into pictures:  python3 femto_job/decompressor.py NAME.laff.gz ...

Needs numpy and pillow; no Spark, no Ansible. In a clone, where nothing is compiled yet, also numba.
"""

import argparse
import contextlib
import json
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path

import femto
from femto import LaffError
from femto.cli.options import Parser, add_pictures, positive
from femto.container import MAX_STREAM, arriving
from femto.errors import printable
from femto.folder import Found, LeftOut
from femto.pictures import EXTENSIONS, FORMATS
from femto.reconstruction import (
    Wanted,
    find_archives,
    make_picture,
    no_archives,
    picture_names,
    remember,
    standing,
)
from femto.whole import remove_parts
from femto.written import Written

EPILOG = """\
examples:
  decompressor.py images_out/photo.laff.gz                writes images_out/photo.png
  decompressor.py *.laff.gz -o pictures --format tif      writes pictures/NAME.tif
  decompressor.py archive -o pictures --recursive         all archives of a folder
  decompressor.py photo.laff.gz --fraction 0.3            only the first 30 % of the strings
  decompressor.py photo.laff.gz --region 0 0 100 200      100 rows of 200 columns, top left
  curl .../photo.laff.gz | decompressor.py - -o photo.png
  curl .../photo.laff.gz | decompressor.py - -o photo.png --progressive
                                                          better with every layer that arrives
  decompressor.py --info photo.laff.gz                    says what is in it, decodes nothing

What is there is not decoded again: the output folder's .femto-pictures remembers which archive a
picture was made of, and how. The picture of an archive that has changed is made anew; any other
file that is there already stays, unless --overwrite is given. Exit status: 0 all done, 1 some
archives failed, 2 wrong arguments, 130 interrupted; after 1 and 130 the same command goes on.
"""

OUTPUT_FOLDER = "images_out"


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
    """How an archive ended: its picture was "made", was "there", or it "failed"; what is said."""

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


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argument_parser()
    options = parser.parse_args(arguments)
    if options.json and not options.info:
        parser.error("--json goes with --info")
    if options.archives.count("-") > 1:
        parser.error("standard input (-) can be named only once")
    if options.progressive and (options.archives != ["-"] or options.info):
        parser.error("--progressive goes with standard input (-) alone")
    skip = None if options.info else Path(options.output or OUTPUT_FOLDER)
    given = expand(options.archives, options.recursive, skip)
    if options.info:
        return show_all(given, options.json)

    target, one_file = destination(parser, options)
    if options.basis is not None and not Path(options.basis).is_file():
        parser.error(f"--basis {options.basis}: there is no such file; name a .basis file")
    options.wanted = Wanted.of(options)
    for message in given.failed:
        report(message)
    with contextlib.nullcontext() if one_file else Written(target) as written:
        counts = run(plan(given.archives, options, target, written), options, len(given.archives))
    counts["failed"] += len(given.failed)
    if given.folders and given.archives:
        report(summary(counts, given))
    return 1 if counts["failed"] else 0


def destination(parser: Parser, options: argparse.Namespace) -> tuple[Path, bool]:
    """What -o means: a path, and whether it is the file of one picture. Sets the format that its
    suffix tells."""
    target = Path(options.output if options.output is not None else OUTPUT_FOLDER)
    if options.output is None or options.output.endswith(os.sep) or target.is_dir():
        if target.exists() and not target.is_dir():
            parser.error(f"{target} is not a folder; name one with -o")
        return target, False
    suffix = target.suffix.lower()
    if len(options.archives) > 1 or os.path.isdir(options.archives[0]):
        if target.exists() or suffix in EXTENSIONS:
            parser.error(f"-o {options.output} is not a folder; name one for several archives")
        return target, False
    if suffix in FORMATS:
        told = FORMATS[suffix]
        if options.format not in (None, told):
            parser.error(f"-o {options.output} and --format {options.format} contradict each other")
        options.format = told
    elif suffix in EXTENSIONS:
        parser.error(f"-o {options.output}: femto writes {', '.join(FORMATS)}")
    return target, suffix in FORMATS or target.exists()


def argument_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="decompressor.py",
        description="Reconstruct pictures from femto's archives.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "archives",
        nargs="+",
        metavar="ARCHIVE",
        help=".laff.gz or .laff, or a folder of such; - is standard input",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="folder, or for one archive a .png, .tif, .jpg or .webp file "
        f"(default: {OUTPUT_FOLDER})",
    )
    prefix = add_pictures(parser)
    prefix.add_argument(
        "--progressive",
        action="store_true",
        help="of an archive on standard input: write the picture anew after every layer",
    )
    parser.add_argument(
        "-j",
        "--jobs",
        type=positive,
        default=_cores(),
        metavar="N",
        help="how many cores to use (default: all, %(default)s)",
    )
    parser.add_argument(
        "--info", action="store_true", help="print what the archives hold, decode nothing"
    )
    parser.add_argument("--json", action="store_true", help="with --info: one JSON object a line")
    return parser


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def report(message: object):
    """One line on standard error."""
    print(f"decompressor.py: {line_of(message)}", file=sys.stderr, flush=True)


def line_of(text: object) -> str:
    """A text as one line that a terminal takes, whatever names are in it."""
    return printable(" ".join(str(text).split()))


def summary(counts: Counter, given: Given) -> str:
    """How a run over folders ended."""
    text = f"{counts['made']} restored, {counts['there']} were there, {counts['failed']} failed"
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
            found = Found(left_out=given.left)
            try:
                find_archives(Path(name), recursive=recursive, skip=skip, into=found)
            except OSError as exc:
                given.failed.append(f"{name}: {exc.strerror}: allow this user to read it")
                continue
            for source in found.sources:
                given.archives.setdefault(os.path.join(name, source.name), source.name)
            given.failed += [f"{os.path.join(name, place)}: {why}" for place, why in found.failed]
            if not found.sources and not found.failed:
                given.failed.append(f"{name}: {no_archives(given.left)}")
        elif os.path.isfile(name):
            given.archives[name] = os.path.basename(name)
        else:
            given.failed.append(f"{name}: there is no such file; name .laff.gz or .laff files")
    return given


def plan(
    archives: dict[str, str], options: argparse.Namespace, target: Path, written: Written | None
) -> Iterator[Task | End]:
    """What is to be done about every archive, or its end where that is known. Without `written`,
    the target is the file of the only archive."""
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
                record, overwrite = standing(
                    name, os.path.relpath(place, target), written, options.wanted,
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


def run(items: Iterator[Task | End], options: argparse.Namespace, count: int) -> Counter:
    """Carry out what is planned, several archives at a time, and say how each ended, in their
    order; how many ended how."""
    counts: Counter = Counter()
    if count <= 1:
        for item in items:
            finish(reconstruct(item) if isinstance(item, Task) else item, counts)
        return counts
    workers = min(options.jobs, count)
    pool = new_pool(workers)
    numbered, more = enumerate(items), True
    waiting: dict = {}
    ends: dict[int, End] = {}
    try:
        while more or waiting:
            while more and len(waiting) < 2 * workers:
                number, item = next(numbered, (0, None))
                if item is None:
                    more = False
                elif isinstance(item, Task):
                    waiting[submit(pool, item)] = number, item
                else:
                    ends[number] = item
                tell(ends, counts)
            finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
            if any(isinstance(f.exception(), BrokenProcessPool) for f in finished):
                # One of them killed its process. Which one, only those show that are tried alone.
                wait(waiting)
                pool.shutdown()
                for future, (number, task) in waiting.items():
                    died = isinstance(future.exception(), BrokenProcessPool)
                    ends[number] = alone(task) if died else future.result()
                    tell(ends, counts)
                waiting, pool = {}, new_pool(workers)
                continue
            for future in finished:
                number, _ = waiting.pop(future)
                ends[number] = future.result()
            tell(ends, counts)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
    return counts


def new_pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, initializer=begin_worker)


def begin_worker():
    # Ctrl-C is the first process's business. When that is killed, nobody tells its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process().sentinel
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()


def end_with(process: int):
    """End this process when that of the sentinel has ended."""
    multiprocessing.connection.wait([process])
    os._exit(1)


def submit(pool: ProcessPoolExecutor, task: Task) -> Future:
    try:
        return pool.submit(reconstruct, task)
    except BrokenProcessPool as exc:
        future: Future = Future()
        future.set_exception(exc)
        return future


def alone(task: Task) -> End:
    """Decode an archive in a process of its own."""
    with new_pool(1) as pool:
        try:
            return pool.submit(reconstruct, task).result()
        except BrokenProcessPool:
            remove_parts(task.output.parent)
            return End(
                "failed", f"{task.name}: its process was killed, most likely for lack of memory"
            )


def tell(ends: dict[int, End], counts: Counter):
    """Say how the next archives ended, as far as that is known without a gap."""
    while (number := counts.total()) in ends:
        finish(ends.pop(number), counts)


def finish(end: End, counts: Counter):
    """Say how one archive ended, and count it."""
    counts[end.status] += 1
    if end.status == "failed":
        report(end.text)
    else:
        say(printable(end.text))


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


def told(path: Path, notes: list[str], new: bool) -> str:
    """What is said of a picture."""
    return " ".join([str(path), *(f"({note})" for note in ([] if new else ["was there"]) + notes)])


# ------------------------------------------------------------------------------------------------
# --info


def show_all(given: Given, as_json: bool) -> int:
    """Print what the archives hold; returns the exit status."""
    for message in given.failed:
        report(message)
    failed = len(given.failed)
    for name in given.archives:
        try:
            data = read_standard_input() if name == "-" else name
            facts = femto.info(data)
        except LaffError as exc:
            report(named(name, exc))
            failed += 1
            continue
        if not say(as_line(name, facts) if as_json else as_text(name, facts)):
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
    from femto.display import depth_text
    from femto.samples import dtype_of

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
    if facts["icc"]:
        lines.append(f"  profile   ICC, {len(facts['icc']):,} bytes")
    for number, (key, value) in enumerate(facts["properties"].items()):
        lines.append(f"  {'' if number else 'metadata':8}  {key}: {value}")
    total, so_far = sum(facts["layer_nbytes"]) or 1, 0
    for number, nbytes in enumerate(facts["layer_nbytes"], 1):
        so_far += nbytes
        lines.append(f"  layer {number:2}  {nbytes:>12,} bytes, {so_far / total:7.1%} up to here")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        report("stopped")
        sys.exit(130)
