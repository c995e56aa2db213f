#!/usr/bin/env python3
"""Turn femto's archives back into pictures:  python3 femto_job/decompressor.py NAME.laff.gz ...

Needs numpy, numba and pillow; no Spark, no Ansible.
"""

import argparse
import json
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import femto
from femto import LaffError

EPILOG = """\
examples:
  decompressor.py images_out/photo.laff.gz                writes images_out/photo.png
  decompressor.py *.laff.gz -o pictures --format tif      writes pictures/NAME.tif
  decompressor.py photo.laff.gz --fraction 0.3            only the first 30 % of the strings
  curl .../photo.laff.gz | decompressor.py - -o photo.png
  curl .../photo.laff.gz | decompressor.py - -o photo.png --progressive
                                                          better with every layer that arrives
  decompressor.py --info photo.laff.gz                    says what is in it, decodes nothing

A picture that is already there is left alone unless --overwrite is given; the same picture
once more is no error. Exit status: 0 all done, 1 some archives failed, 2 wrong arguments.
"""

OUTPUT_FOLDER = "images_out"
FORMATS = ("png", "tif", "jpg")
DARK = 1 << 14


@dataclass(frozen=True)
class Task:
    """One archive and where its picture goes."""

    name: str  # as the user gave it, "-" for standard input
    output: Path
    options: argparse.Namespace
    threads: int
    data: bytes | None = None


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
    if options.info:
        return show_all(options.archives, options.json)

    target = Path(options.output) if options.output is not None else Path(OUTPUT_FOLDER)
    one_file = (
        len(options.archives) == 1
        and options.output is not None
        and not options.output.endswith(os.sep)
        and not target.is_dir()
        and (target.suffix.lower() in _suffixes() or target.exists())
    )
    if one_file and target.suffix.lower() in _suffixes():
        told = _suffixes()[target.suffix.lower()]
        if options.format not in (None, told):
            parser.error(f"-o {options.output} and --format {options.format} contradict each other")
        options.format = told
    options.any_format = options.format is None
    options.format = options.format or "png"
    if not one_file and target.exists() and not target.is_dir():
        parser.error(f"-o {options.output} is not a folder; name one for several archives")

    if options.basis is not None and not Path(options.basis).is_file():
        parser.error(f"--basis {options.basis}: there is no such file; name a .basis file")
    tasks, failed = plan(options, target, one_file)
    return 1 if run(tasks, options) + failed else 0


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="decompressor.py",
        description="Reconstruct pictures from femto's archives.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "archives", nargs="+", metavar="ARCHIVE", help=".laff.gz or .laff; - is standard input"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help=f"folder, or for one archive a .png, .tif or .jpg file (default: {OUTPUT_FOLDER})",
    )
    parser.add_argument("--format", choices=FORMATS, help="default: png, or what -o says")
    prefix = parser.add_mutually_exclusive_group()
    prefix.add_argument(
        "--fraction",
        type=_fraction,
        default=1.0,
        metavar="F",
        help="decode only the layers within this share of the data (0 to 1)",
    )
    prefix.add_argument(
        "--layers", type=_positive, metavar="N", help="decode only the first N layers"
    )
    prefix.add_argument(
        "--progressive",
        action="store_true",
        help="of an archive on standard input: write the picture anew after every layer",
    )
    parser.add_argument(
        "--basis",
        metavar="FILE",
        help="the basis of the archives, if it is neither femto's own nor beside them",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace pictures that are there")
    parser.add_argument(
        "--strip-metadata",
        action="store_true",
        help="write pixels and ICC profile alone: no EXIF, no texts, nothing else",
    )
    parser.add_argument(
        "-j",
        "--jobs",
        type=_positive,
        default=_cores(),
        metavar="N",
        help="how many cores to use (default: all, %(default)s)",
    )
    parser.add_argument(
        "--info", action="store_true", help="print what the archives hold, decode nothing"
    )
    parser.add_argument("--json", action="store_true", help="with --info: one JSON object a line")
    parser.add_argument("--version", action="version", version=f"femto {femto.__version__}")
    return parser


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0 and at most 1")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _suffixes() -> dict[str, str]:
    return {".png": "png", ".tif": "tif", ".tiff": "tif", ".jpg": "jpg", ".jpeg": "jpg"}


def report(message: object):
    """One line on standard error."""
    print(f"decompressor.py: {' '.join(str(message).split())}", file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------
# Names


def plan(options: argparse.Namespace, target: Path, one_file: bool) -> tuple[list[Task], int]:
    """Where every archive's picture goes: (tasks, how many archives have failed already)."""
    names = list(dict.fromkeys(options.archives))
    workers = min(options.jobs, len(names))
    threads = max(1, options.jobs // workers)
    outputs = {names[0]: target} if one_file else output_names(names, target, options.format)
    tasks, taken, failed = [], {}, 0
    for name in names:
        output = outputs[name]
        try:
            data = read_standard_input() if name == "-" and not options.progressive else None
            if output in taken:
                raise LaffError(
                    f"{name}: {output} is already the picture of {taken[output]}; "
                    "decode it on its own with another -o"
                )
            if name != "-" and not Path(name).is_file():
                what = "is a folder" if Path(name).is_dir() else "there is no such file"
                raise LaffError(f"{name}: {what}; name .laff.gz or .laff files")
        except LaffError as exc:
            report(exc)
            failed += 1
            continue
        taken[output] = name
        tasks.append(Task(name, output, options, threads, data))
    return tasks, failed


def output_names(names: list[str], folder: Path, kind: str) -> dict[str, Path]:
    """folder/NAME.kind for every archive.

    Archives of one name from several folders keep as much of their folders' path as sets them
    apart: a/x.laff.gz and b/x.laff.gz become folder/a/x.png and folder/b/x.png.
    """
    outputs = {name: f"{stem(name)}.{kind}" for name in names}
    same: dict[str, list[str]] = {}
    for name, output in outputs.items():
        same.setdefault(output.casefold(), []).append(name)
    for group in same.values():
        parents = {name: Path(os.path.abspath(name)).parent for name in group if name != "-"}
        if len(set(parents.values())) > 1:
            common = os.path.commonpath(list(parents.values()))
            for name, parent in parents.items():
                outputs[name] = os.path.join(os.path.relpath(parent, common), outputs[name])
    return {name: Path(os.path.normpath(folder / output)) for name, output in outputs.items()}


def stem(name: str) -> str:
    """The archive's name without its folder and .laff.gz or .laff."""
    if name == "-":
        return "stdin"
    base = os.path.basename(name)
    for suffix in (".laff.gz", ".laff"):
        if base.lower().endswith(suffix) and len(base) > len(suffix):
            return base[: -len(suffix)]
    return base


def read_standard_input() -> bytes:
    """The archive on standard input; LaffError at once if it does not begin like one."""
    from femto.container import MAX_STREAM

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


def run(tasks: list[Task], options: argparse.Namespace) -> int:
    """Decode all, several at a time; how many failed."""
    workers = min(options.jobs, len(tasks))
    if workers <= 1:
        return sum(not finish(*reconstruct(task)) for task in tasks)
    failed = 0
    # Ctrl-C is this process's business; the workers are told by it.
    with ProcessPoolExecutor(
        workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    ) as pool:
        futures = [pool.submit(reconstruct, task) for task in tasks]
        try:
            for task, future in zip(tasks, futures, strict=True):
                try:
                    line, error = future.result()
                except BrokenProcessPool:
                    line, error = None, f"{task.name}: its process was killed; try again with -j 1"
                failed += not finish(line, error)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def finish(line: str | None, error: str | None) -> bool:
    """Say how one archive ended; whether it ended well."""
    if error is not None:
        report(error)
    else:
        say(line)
    return error is None


def say(text: str) -> bool:
    """Print; False if nobody reads any more (head, a closed pager), and then no message at exit."""
    try:
        print(text, flush=True)
        return True
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False


def reconstruct(task: Task) -> tuple[str | None, str | None]:
    """Decode one archive: (line to print, None) or (None, error)."""
    try:
        return _reconstruct(task), None
    except LaffError as exc:
        return None, named(task.name, exc)
    except MemoryError:
        return None, f"{task.name}: too little memory; try -j 1 or close other programs"
    except Exception as exc:  # one archive must not stop the others
        return None, f"{task.name}: femto failed on it ({type(exc).__name__}: {exc}); report it"


def named(name: str, exc: LaffError) -> str:
    """The message, with the archive's name before it unless it tells the name itself."""
    shown = "standard input" if name == "-" else name
    return str(exc) if shown in str(exc) else f"{shown}: {exc}"


def _reconstruct(task: Task) -> str:
    from femto.codec import parse
    from femto.container import arriving
    from femto.pictures import write_picture
    from femto.pictures.metadata import unheld

    options, output = task.options, task.output
    if options.progressive:
        archives = arriving(sys.stdin.buffer, "standard input")
    else:
        archives = [parse(task.data if task.data is not None else task.name)]
    overwrite = options.overwrite
    for archive in archives:
        info = femto.info(archive)
        make_folder(output.parent)
        kind, samples, dtype = form(info, options)
        if kind != options.format:
            output = task.output.with_suffix(".tif")
        metadata = None if options.strip_metadata else info["metadata"]
        new = write_picture(
            output,
            (
                (y, band if dtype is None else band.astype(dtype, copy=False))
                for y, band in femto.decode_bands(
                    archive,
                    fraction=options.fraction,
                    layers=options.layers,
                    basis=options.basis,
                    threads=task.threads,
                    samples=samples,
                )
            ),
            width=info["width"],
            height=info["height"],
            mode=info["mode"],
            bits=info["bits"],
            icc=info["icc"],
            metadata=metadata,
            format=kind,
            overwrite=overwrite,
            levels=info["levels"] if samples or info["mapping"] is None else None,
            dtype=dtype,
        )
        overwrite = True  # what this run has written
    line = str(output) if new else f"{output} (was there)"
    left_out = unheld(metadata, kind)
    line += f" (without {', '.join(left_out)}: not held by this format)" if left_out else ""
    if info["mapping"] is None and info["bits"] > 8 and info["levels"][1] < DARK and kind != "jpg":
        low, high = info["levels"]
        line += f" (samples of {low} to {high}: viewers that expect 65535 show it dark)"
    return line


def form(info: dict, options: argparse.Namespace) -> tuple[str, bool, str | None]:
    """How an archive becomes a file: the format; whether it gets the archive's samples, not what
    they stand for; and the type of what it gets, None for uint8 or uint16 as they are."""
    kind, mapping = options.format, info["mapping"]
    if mapping is None or kind == "jpg":
        return kind, True, None
    ends = (x * mapping["slope"] + mapping["intercept"] for x in info["limits"])
    low, high = sorted(ends)
    integers = not mapping["type"].startswith("float")
    if kind == "png" and integers and low >= 0 and high < 1 << 16:
        return kind, False, "uint16"
    if kind == "png" and not options.any_format:
        raise LaffError(
            f"its samples are {mapping['type']}, which PNG does not hold: use --format tif"
        )
    return "tif", False, mapping["type"]


def make_folder(folder: Path):
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise LaffError(
            f"{folder}: this folder cannot be made: {exc.strerror}; choose another with -o"
        ) from exc


# ------------------------------------------------------------------------------------------------
# --info


def show_all(names: list[str], as_json: bool) -> int:
    """Print what the archives hold; returns the exit status."""
    failed = 0
    for name in names:
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
    from femto.pictures.metadata import printable
    from femto.samples import dtype_of

    width, height = facts["width"], facts["height"]
    channels = 1 if facts["mode"] == "L" else 3
    raw = width * height * channels * dtype_of(facts["bits"]).itemsize
    colour = "grey" if channels == 1 else "RGB"
    lines = [
        f"{'standard input' if name == '-' else name}",
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
