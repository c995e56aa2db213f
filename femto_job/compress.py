"""Compress a folder of pictures into .laff archives, on Spark.

spark-submit femto_job/compress.py                     images/ -> images_out/
spark-submit --master spark://HOST:7077 femto_job/compress.py --input scans --output archive
python3 femto_job/compress.py --ratio 30 --recursive   the same on this machine alone
"""

import argparse
import math
import sys
from pathlib import Path

from femto import LaffError, cli
from femto.cli.options import Parser, add_folders, add_job, add_recursive
from femto.errors import JobError

TARGETS = ("quality", "ratio", "psnr")

_EPILOG = """\
exit status: 0 all pictures are compressed; 1 some failed, the others are compressed (with --strict
also: some have warnings); 2 wrong options, folders, a full disk or no Spark; 3 a fault of femto;
130 interrupted. After 1, 2, 3 and 130 the same command goes on where it was; after 1, with
--overwrite, it begins again.
"""


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; ends the program for wrong options."""
    parser = Parser(
        "compress.py",
        "Compress a folder of pictures into .laff archives, on Spark.",
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add_folders(parser, "images", "images_out")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--quality", type=float, help="1 (smallest) to 100 (best), default 75")
    target.add_argument("--ratio", type=float, help="instead: so many times smaller")
    target.add_argument("--psnr", type=float, help="instead: so many dB")
    add("--gray", action="store_true", help="turn colour pictures into grey ones")
    add(
        "--bands",
        type=_bands,
        metavar="LIST",
        help="of TIFFs with more bands than colours: the band or the three bands that make the "
        "picture, such as 4,3,2, or each to make every band an archive",
    )
    add(
        "--no-alpha",
        dest="alpha",
        action="store_false",
        help="leave out transparency, and keep the colours behind it: the file calls alpha what is "
        "a band of its own (default: blend with white)",
    )
    add(
        "--range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="of floating-point samples, and of integers that do not fit 16 bits: the values that "
        "become the least and the greatest of 65536 levels (default: measured in each picture)",
    )
    add(
        "--bits",
        type=int,
        choices=range(1, 17),
        metavar="N",
        help="so many bits of a sample are used, of levels 0 to 2^N - 1 (default: the levels that "
        "a picture's file declares, or those that it uses)",
    )
    add("--basis", default="photo", metavar="NAME", help="basis to code with, a name or a file")
    add(
        "--effort",
        choices=("full", "fast"),
        default="full",
        help="fast: made and read sooner, its first layers coarser (default: full)",
    )
    add(
        "--tune",
        choices=("psnr", "perceptual"),
        default="psnr",
        help="what to spend bytes on: equal errors everywhere, or what eyes see (default: psnr)",
    )
    add(
        "--strip-metadata",
        action="store_true",
        help="keep nothing of EXIF, GPS, texts and the like, nor the picture's name, in archives; "
        "ICC profiles stay (default: keep them)",
    )
    add_recursive(parser)
    add(
        "--overwrite",
        action="store_true",
        help="compress all pictures again, also unchanged ones, and replace files of other origin; "
        "if it is interrupted, the same command goes on where it was",
    )
    add(
        "--moved-from",
        type=Path,
        metavar="FOLDER",
        help="the input folder was this one when its archives were made: they stay its own",
    )
    add(
        "--ssim",
        choices=("shown", "all"),
        default="shown",
        help="SSIM, beside PSNR, of the pictures that report.html shows, or of all that are "
        "compressed, which costs a tenth more time (default: shown)",
    )
    add(
        "--cut-above",
        type=float,
        metavar="MEGAPIXELS",
        help="pictures above this size are shared by many tasks (default: by the number of cores)",
    )
    add(
        "--strict",
        action="store_true",
        help="warnings, as of a target that cannot be met, are failures: exit status 1",
    )
    add_job(parser, "report.html, report.csv and report.parquet")
    options = parser.parse_args(arguments)
    if options.cut_above is not None and not options.cut_above >= 0:
        parser.error("--cut-above is a number of megapixels, 0 or more")
    if options.range is not None and not -math.inf < options.range[0] < options.range[1] < math.inf:
        parser.error("--range is two numbers, the lower one first")
    return options


def _bands(text: str) -> list[int] | str:
    if text == "each":
        return text
    bands = [int(part) if part.isdecimal() else 0 for part in text.split(",")]
    if len(bands) not in (1, 3) or min(bands) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: one or three numbers from 1, or each")
    return bands


def run(options: argparse.Namespace, get_context) -> int:
    """Run the job and return the exit status. Raises JobError."""
    cli.check_input(options.input)
    if options.output.exists() and not options.output.is_dir():
        raise JobError(f"{options.output}: is a file: name a folder with --output")
    from femto.bases import load_basis
    from femto.codec import StepSearch
    from femto.samples import levels_of
    from femto_spark import job
    from femto_spark.summary import summary

    target = {name: value for name in TARGETS if (value := getattr(options, name)) is not None}
    try:
        StepSearch(**target, levels=levels_of(8), channels=3, raw_nbytes=3, samples=3).first()
        load_basis(options.basis)
    except LaffError as error:
        raise JobError(str(error)) from None
    names = {name: value for name, value in vars(options).items() if name not in TARGETS}
    wanted = job.Options(**names, target=target)
    outcome = job.Job(wanted, get_context).run()
    if not options.quiet:
        print(summary(wanted, outcome))
    else:
        for row in outcome.rows:
            if row["status"] == "failed":
                print(f"compress.py: {row['picture']}: {row['error']}", file=sys.stderr)
            for text in row.get("warnings", ()):
                print(f"compress.py: {row['picture']}: warning: {text}", file=sys.stderr)
    warned = options.strict and any(row.get("warnings") for row in outcome.rows)
    return cli.SOME_FAILED if warned or outcome.count("failed") else cli.DONE


def main(arguments: list[str] | None = None) -> int:
    """The command: returns the exit status."""
    options = parse_options(arguments)
    return cli.execute(run, options, prog="compress.py", spark_name="femto compress")


if __name__ == "__main__":
    sys.exit(main())
