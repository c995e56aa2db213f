"""femto decompress: archives become pictures again."""

import argparse
import os
from pathlib import Path

from ..errors import JobError
from .options import Parser, add_jobs, add_pictures, check_pictures

ABOUT = {
    "description": "Reconstruct pictures from femto's archives.",
    "formatter_class": argparse.RawDescriptionHelpFormatter,
    "epilog": """\
examples:
  %(prog)s images_out/photo.laff.gz                writes images_out/photo.png
  %(prog)s *.laff.gz -o pictures --format tif      writes pictures/NAME.tif
  %(prog)s archive -o pictures --recursive         all archives of a folder
  %(prog)s photo.laff.gz --fraction 0.3            only the first 30 %% of the strings
  %(prog)s archive -o small --scale 8              small pictures, from the first layers
  %(prog)s photo.laff.gz --region 0 0 100 200      100 rows of 200 columns, top left
  curl .../photo.laff.gz | %(prog)s - -o photo.png
  curl .../photo.laff.gz | %(prog)s - -o photo.png --progressive
                                                          better with every layer that arrives

What is there is not decoded again: the output folder's .femto-pictures remembers which archive a
picture was made of, and how. The picture of an archive that has changed is made anew; any other
file that is there already stays, unless --overwrite is given. Exit status: 0 all done, 1 some
archives failed, or are damaged and were salvaged, 2 wrong arguments, 130 interrupted; after 1 and
130 the same command goes on.
""",
}
OUTPUT_FOLDER = "images_out"


def add_arguments(parser: Parser, *, script: bool = False) -> None:
    """All that can be said of how archives become pictures; the script also tells what is in
    them."""
    add = parser.add_argument
    add(
        "archives",
        nargs="+",
        metavar="ARCHIVE",
        help=".laff.gz or .laff, or a folder of such; - is standard input",
    )
    add(
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
    add(
        "--salvage",
        action="store_true",
        help="of damaged archives, too: every tile and layer that is good goes into "
        "NAME.salvaged.png, what is missing is said, and the exit status is 1",
    )
    add_jobs(parser)
    if script:
        parser.set_defaults(master=None)
        add("--info", action="store_true", help="print what the archives hold, decode nothing")
        add_json(parser, "with --info: one JSON object a line")
        return
    parser.set_defaults(info=False, json=False)
    add(
        "--master",
        metavar="URL",
        help="of one folder: hand the work over to Spark (default: this machine alone)",
    )


def add_json(parser: Parser, help: str) -> None:
    parser.add_argument("--json", action="store_true", help=help)


def check(parser: Parser, options: argparse.Namespace) -> None:
    """End the program if options do not go together. A path that -o names becomes `target`, which
    is a folder, or the `one_file` of one picture, whose suffix tells the format."""
    if options.json and not options.info:
        parser.error("--json goes with --info")
    if options.archives.count("-") > 1:
        parser.error("standard input (-) can be named only once")
    if options.progressive and (options.archives != ["-"] or options.info):
        parser.error("--progressive goes with standard input (-) alone")
    if options.info:
        return
    check_pictures(parser, options)
    partly = options.region or options.scale > 1 or options.fraction != 1 or options.layers
    if options.salvage and (partly or options.progressive or options.master is not None):
        parser.error(
            "--salvage goes without --region, --scale, --fraction, --layers, --progressive and "
            "--master"
        )
    if options.master is not None:
        (folder, *more) = options.archives
        if more or not os.path.isdir(folder) or options.progressive:
            parser.error("--master goes with one folder of archives")
    options.target, options.one_file = _destination(parser, options)
    if options.basis is not None and not Path(options.basis).is_file():
        parser.error(f"--basis {options.basis}: there is no such file; name a .basis file")


def _destination(parser: Parser, options: argparse.Namespace) -> tuple[Path, bool]:
    from ..pictures import EXTENSIONS, FORMATS

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


def run(options: argparse.Namespace) -> int:
    """Decode the archives, or tell what is in them; returns the exit status."""
    if options.info:
        from . import info

        return info.run(options)
    if options.master is not None:
        return _on_spark(options)
    from ..job import decompressing

    return decompressing.run(options)


def _on_spark(options: argparse.Namespace) -> int:
    from . import restore

    if options.jobs is not None:
        raise JobError("--jobs goes without --master: Spark knows how many cores there are")
    options.input, options.output = Path(options.archives[0]), options.target
    options.report, options.reader, options.quiet = True, "auto", False
    return restore.run(options)
