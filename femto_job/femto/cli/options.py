"""The command line: its parser, and the options that several commands have. Asking for help imports
nothing but this."""

import argparse
from pathlib import Path

from .. import __version__

MAX_PIXELS = 178_956_970
"""What the container believes of every MiB of an archive, see femto.container.BELIEVED_PIXELS."""
_SAME = {"tiff": "tif", "jpeg": "jpg"}


class Parser(argparse.ArgumentParser):
    """A parser of command lines that says in one line what is wrong with them, and ends the program
    with status 2 then."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, allow_abbrev=False, **options)
        self.add_argument("--version", action="version", version=f"femto {__version__}")

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def add_folders(
    parser: Parser, input: str, output: str, what: str = "pictures", *, script: bool
) -> None:
    """The folders of a job, with these defaults: by --input, which holds `what`, and --output, and
    but for scripts also by their place."""
    for name, default, text in (
        ("input", input, f"of {what} (default: {input})"),
        ("output", output, f"default: {output}; made if missing"),
    ):
        parser.add_argument(
            f"--{name}", type=Path, default=Path(default), metavar="FOLDER", help=text
        )
        if not script:
            add_by_place(parser, name, {"input": "IN", "output": "OUT"}[name])


def add_by_place(parser: Parser, name: str, metavar: str) -> None:
    """The option --NAME, a path, may also be given by its place."""

    def path(text: str) -> Path | str:
        # What is not given is argparse's business, not a path.
        return text if text is argparse.SUPPRESS else Path(text)

    parser.add_argument(
        name,
        nargs="?",
        type=path,
        default=argparse.SUPPRESS,
        metavar=metavar,
        help=f"the same as --{name}",
    )


def add_place(parser: Parser, *, script: bool) -> None:
    """Where a job runs; see femto.cli.place."""
    if script:  # what spark-submit says
        parser.set_defaults(master="", jobs=None)
        return
    parser.add_argument(
        "--master",
        metavar="URL",
        help="hand the work over to Spark: spark://HOST:7077, local[*] or the like (default: this "
        "machine alone, without Spark)",
    )
    add_jobs(parser)


def add_jobs(parser: Parser) -> None:
    parser.add_argument(
        "-j", "--jobs", type=positive, metavar="N", help="how many cores to use (default: all)"
    )


def add_job(parser: Parser, reports: str) -> None:
    """What every job over a folder has: which `reports` it writes, who reads the files, what it
    prints."""
    add = parser.add_argument
    add(
        "--report",
        action=argparse.BooleanOptionalAction,
        default=True,
        help=f"write {reports} (default: yes)",
    )
    add(
        "--reader",
        choices=("auto", "workers", "driver"),
        default="auto",
        help="who reads and writes the files: the workers, if they share the folders, or the "
        "driver, which then feeds the workers (default: find out)",
    )
    add_quiet(parser)


def add_quiet(parser: Parser) -> None:
    parser.add_argument("--quiet", action="store_true", help="print errors only")


def add_recursive(parser: Parser) -> None:
    parser.add_argument(
        "--recursive", action="store_true", help="sub-folders too; the output mirrors them"
    )


def add_reading(parser: Parser) -> None:
    """What is asked of archives that are read: their basis, and how much they may claim."""
    add = parser.add_argument
    add(
        "--basis",
        metavar="FILE",
        help="the basis of the archives, if it is neither femto's own nor beside them",
    )
    add(
        "--max-pixels",
        type=whole,
        default=MAX_PIXELS,
        metavar="N",
        help="refuse pictures of more pixels than that for every MiB of the archive, which may "
        "claim any number (default: %(default)s; 0: refuse none)",
    )


def add_pictures(parser: Parser):
    """What pictures are wanted and from which archives, see `job.reconstruction.Wanted`. Returns
    the group of the options that say how much of the data is used."""
    add = parser.add_argument
    add(
        "--format",
        type=lambda text: _SAME.get(text, text),
        choices=("png", "tif", "jpg", "webp"),
        help="of the pictures (default: png, and tif for samples that PNG does not hold)",
    )
    prefix = parser.add_mutually_exclusive_group()
    prefix.add_argument(
        "--fraction",
        type=fraction,
        default=1.0,
        metavar="F",
        help="decode only the layers within this share of the data (0 to 1)",
    )
    prefix.add_argument(
        "--layers", type=positive, metavar="N", help="decode only the first N layers"
    )
    add(
        "--region",
        nargs=4,
        type=int,
        metavar=("Y", "X", "HEIGHT", "WIDTH"),
        help="only so many rows from row Y and columns from column X, in pixels, without metadata",
    )
    add(
        "--scale",
        type=int,
        choices=(1, 2, 4, 8),
        default=1,
        help="so many times smaller pictures, quickly: from the first layers, without metadata",
    )
    add_recursive(parser)
    add("--overwrite", action="store_true", help="replace what is there and was not made so")
    add(
        "--strip-metadata",
        action="store_true",
        help="write pixels and ICC profile alone: no EXIF, no texts, nothing else",
    )
    add_reading(parser)
    return prefix


def check_pictures(parser: Parser, options: argparse.Namespace) -> None:
    """End the program if the options of `add_pictures` do not go together."""
    if options.scale > 1 and (options.region or options.fraction != 1):
        parser.error("--scale goes without --region and --fraction")


def whole(text: str) -> int:
    """A number of 0 or more."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return value


def positive(text: str) -> int:
    """A number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def fraction(text: str) -> float:
    """A share, more than 0 and at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0 and at most 1")
    return value
