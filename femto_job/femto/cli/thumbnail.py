"""femto thumbnail: a small picture of an archive, for file managers."""

import argparse
from pathlib import Path

from .options import Parser, positive

ABOUT = {
    "description": "Write a small picture of an archive, a PNG of 8 bits, from its first layers: "
    "nothing behind them is read. docs/DESKTOP.md says how file managers come to use it.",
    "epilog": "Exit status: 0 it is written, 2 wrong arguments, no archive, or it cannot be "
    "written.",
}
SIZE = 256


def add_arguments(parser: Parser, *, script: bool = False) -> None:
    """Of which archive, where to, and how large."""
    add = parser.add_argument
    add("archive", type=Path, metavar="ARCHIVE", help=".laff.gz or .laff")
    add("output", type=Path, metavar="OUT", help="PNG file to write")
    add(
        "--size",
        type=positive,
        default=SIZE,
        metavar="N",
        help="its longest edge in pixels, unless the picture is smaller (default: %(default)s)",
    )
    add(
        "--basis",
        metavar="FILE",
        help="the basis of the archive, if it is neither femto's own nor beside it",
    )
    add("--overwrite", action="store_true", help="replace a file that is there")


def check(parser: Parser, options: argparse.Namespace) -> None:
    """End the program if it would write over what is there."""
    if options.output.is_dir():
        parser.error(f"{options.output} is a folder; name a file")
    if options.output.exists() and not options.overwrite:
        parser.error(f"{options.output}: is there already; add --overwrite or choose a new name")


def run(options: argparse.Namespace) -> int:
    """Write the small picture; returns the exit status. Raises LaffError."""
    from ..codec import decode
    from ..container import read_header
    from ..display import png
    from ..errors import LaffError
    from ..files.whole import write_whole

    name = str(options.archive)
    try:
        with open(options.archive, "rb") as file:
            header = read_header(file, name).header
    except OSError as error:
        raise LaffError(f"{name}: cannot be read ({error.strerror}): check the name") from None
    longest = max(header.width, header.height)
    scale = next((scale for scale in (8, 4, 2) if longest // scale >= options.size), 1)
    image = decode(options.archive, scale=scale, basis=options.basis, samples=True)
    data = png(image, longest=options.size, levels=header.levels)
    try:
        if options.output.exists():
            # Into the same file: Tumbler makes it, holds it open, and reads what it holds.
            with open(options.output, "r+b") as into:
                into.write(data)
                into.truncate()
        else:
            write_whole(options.output, data, below=options.output.parent)
    except OSError as error:
        raise LaffError(
            f"{options.output}: cannot be written ({error.strerror}): check it"
        ) from None
    return 0
