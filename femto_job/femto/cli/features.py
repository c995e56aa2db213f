"""femto features: the features of a folder of archives as a Parquet file."""

import argparse
import sys
from pathlib import Path

from .options import Parser, add_reading

ABOUT = {
    "description": "Write the features of a folder of archives, and of its sub-folders, as a "
    "Parquet file.",
    "epilog": "Exit status: 0 all archives are in it, 1 some could not be read, 2 wrong arguments "
    "or no archives.",
}


def add_arguments(parser: Parser, *, script: bool = False) -> None:
    """Which archives, and which features."""
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="of archives, searched with its sub-folders")
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="Parquet file to write")
    add(
        "--components",
        type=int,
        default=1,
        metavar="1…64",
        help="DCT components per 8 x 8 pixels (default: %(default)s)",
    )
    add(
        "--grid",
        type=int,
        default=4,
        metavar="N",
        help="pool over N x N parts of the picture (default: %(default)s)",
    )
    add("--colour", action="store_true", help="chroma too")
    add_reading(parser)


def check(parser: Parser, options: argparse.Namespace) -> None:
    """What is wrong is found when it runs."""


def run(options: argparse.Namespace) -> int:
    """Write the file; returns the exit status. Raises LaffError."""
    from ..basis import bases
    from ..errors import printable
    from ..learning import feature_map, feature_table

    feature_map.check_components(options.components)
    feature_map.check_grid(options.grid)
    bases.check_basis(options.basis)
    failures = 0

    def failed(error: Exception) -> None:
        nonlocal failures
        failures += 1
        print(f"left out: {error}", file=sys.stderr)

    rows = feature_table.write_features(
        options.folder,
        options.output,
        components=options.components,
        grid=options.grid,
        colour=options.colour,
        basis=options.basis,
        max_pixels=options.max_pixels or None,
        failed=failed,
    )
    left_out = f", {failures} could not be read" if failures else ""
    print(f"{printable(str(options.output))}: {rows} archives{left_out}")
    return 1 if failures else 0
