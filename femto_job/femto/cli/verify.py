"""femto verify: are archives what they were?"""

import argparse
from pathlib import Path

from .options import Parser, add_jobs, add_quiet, add_reading, add_recursive

ABOUT = {
    "description": "Decode archives, and compare them with the records of the job that made them, "
    "or where there are none with their own checksums.",
    "formatter_class": argparse.RawDescriptionHelpFormatter,
    "epilog": """\
Of each archive it says one of
  good           it is whole and gives the pixels that are recorded (or: that it has no record)
  damaged        which tiles are lost, or lack layers; femto decompress can salvage the rest
  changed        it is whole, but not the file that is recorded: written anew, or truncated
  missing        it is recorded, and not there
  unknown basis  its basis is not here, without which nobody can tell

examples:
  %(prog)s archive                    all archives of a folder
  %(prog)s archive --manifest         and write archive/SHA256SUMS
  (cd archive && sha256sum -c SHA256SUMS)
  %(prog)s *.laff.gz --quiet          only those that are not good

Exit status: 0 all are good, 1 some are not, 2 wrong arguments, 130 interrupted.
""",
}


def add_arguments(parser: Parser, *, script: bool = False) -> None:
    """Which archives, and what is written of them."""
    add = parser.add_argument
    add(
        "archives",
        nargs="+",
        metavar="ARCHIVE",
        help=".laff.gz or .laff, or a folder of such",
    )
    add(
        "--manifest",
        action="store_true",
        help="write SHA256SUMS into each folder, with its good archives, as sha256sum -c reads it",
    )
    add_recursive(parser)
    add_reading(parser)
    add_quiet(parser)
    add_jobs(parser)


def check(parser: Parser, options: argparse.Namespace) -> None:
    """End the program if options do not go together."""
    if options.basis is not None and not Path(options.basis).is_file():
        parser.error(f"--basis {options.basis}: there is no such file; name a .basis file")
    if options.manifest and not all(Path(name).is_dir() for name in options.archives):
        parser.error("--manifest goes with folders of archives")


def run(options: argparse.Namespace) -> int:
    """Verify the archives; returns the exit status. Raises LaffError."""
    from ..job import verifying

    return verifying.run(options)
