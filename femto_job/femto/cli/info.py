"""femto info: what is in archives, without decoding them."""

import argparse

from .options import Parser, add_recursive

ABOUT = {
    "description": "Print what archives hold, decode nothing.",
    "epilog": "Exit status: 0 all told, 1 some archives cannot be read, 2 wrong arguments.",
}


def add_arguments(parser: Parser, *, script: bool = False) -> None:
    """Which archives, and how they are told."""
    parser.add_argument(
        "archives",
        nargs="+",
        metavar="ARCHIVE",
        help=".laff.gz or .laff, or a folder of such; - is standard input",
    )
    add_recursive(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def check(parser: Parser, options: argparse.Namespace) -> None:
    """End the program if options do not go together."""
    if options.archives.count("-") > 1:
        parser.error("standard input (-) can be named only once")


def run(options: argparse.Namespace) -> int:
    """Print what the archives hold; returns the exit status."""
    from ..job.decompressing import show_all

    return show_all(options)
