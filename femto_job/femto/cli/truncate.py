"""femto truncate: a shorter archive of the same picture."""

import argparse
from pathlib import Path

from .options import Parser, fraction, positive

ABOUT = {
    "description": "Write an archive that holds only the first layers of another one. Nothing is "
    "encoded again; the first layer is always kept.",
    "epilog": "Exit status: 0 it is written, 2 wrong arguments, no archive, or it cannot be "
    "written.",
}


def add_arguments(parser: Parser, *, script: bool = False) -> None:
    """Which archive, and how much is kept of it."""
    add = parser.add_argument
    add("archive", type=Path, metavar="ARCHIVE", help=".laff.gz or .laff")
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="archive to write")
    kept = parser.add_mutually_exclusive_group(required=True)
    kept.add_argument("--nbytes", type=positive, metavar="N", help="at most so many bytes")
    kept.add_argument("--layers", type=positive, metavar="N", help="the first N layers")
    kept.add_argument("--fraction", type=fraction, metavar="F", help="so much of the data (0 to 1)")
    add("--overwrite", action="store_true", help="replace a file that is there")


def check(parser: Parser, options: argparse.Namespace) -> None:
    """End the program if it would write over what is there."""
    if options.output.is_dir():
        parser.error(f"{options.output} is a folder; name a file with -o")
    if options.output.exists() and not options.overwrite:
        parser.error(f"{options.output}: is there already; add --overwrite or choose a new name")


def run(options: argparse.Namespace) -> int:
    """Write the shorter archive; returns the exit status. Raises LaffError."""
    from .. import LaffError, truncate
    from ..errors import printable
    from ..files.whole import write_whole

    data = truncate(
        options.archive,
        nbytes=options.nbytes,
        layers=options.layers,
        fraction=options.fraction,
    )
    try:
        write_whole(options.output, data, below=options.output.parent)
    except OSError as error:
        raise LaffError(
            f"{options.output}: cannot be written ({error.strerror}): check it"
        ) from None
    before = options.archive.stat().st_size
    print(printable(f"{options.output}: {len(data):,} of {before:,} bytes"))
    return 0
