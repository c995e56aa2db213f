"""Learn a basis from the pictures of an archive of one's own, on Spark.

spark-submit femto_job/train.py --input scans --output my.basis
spark-submit femto_job/compress.py --input scans --output archive --basis my.basis
python3 femto_job/decompressor.py archive/*.laff.gz --basis my.basis
"""

import argparse
import os
import sys
from pathlib import Path

# One thread: sums in another order would round otherwise, and the same pictures should give the
# same basis. Must be set before NumPy is imported.
for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[_variable] = "1"

from femto import cli  # noqa: E402
from femto.cli.options import Parser, add_quiet  # noqa: E402
from femto.errors import JobError  # noqa: E402

_EPILOG = """\
exit status: 0 the basis is written; 2 wrong options, no pictures that can be learned from or no
Spark; 3 a fault of femto; 130 interrupted. After 2, 3 and 130 the same command goes on where it
was.
"""


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; ends the program for wrong options."""
    parser = Parser(
        "train.py", "Learn a basis from a folder of pictures, on Spark.", epilog=_EPILOG
    )
    add = parser.add_argument
    add("--input", type=Path, required=True, metavar="FOLDER", help="pictures to learn from")
    add("--output", type=Path, required=True, metavar="FILE", help="basis to write: NAME.basis")
    add("--basis", default="photo", metavar="NAME", help="basis to begin with, a name or a file")
    add("--name", help="the new basis's name (default: that of its file)")
    add(
        "--megapixels",
        type=float,
        default=48.0,
        metavar="N",
        help="how much to learn from, sampled from all pictures (default: 48)",
    )
    add("--seed", type=int, default=1, help="which samples are drawn (default: 1)")
    add("--gray", action="store_true", help="turn colour pictures into grey ones")
    add("--recursive", action="store_true", help="sub-folders too")
    add_quiet(parser)
    options = parser.parse_args(arguments)
    if not 1 <= options.megapixels <= 1000:
        parser.error("--megapixels is a number from 1 to 1000")
    return options


def run(options: argparse.Namespace, get_context) -> int:
    """Learn, and return the exit status. Raises JobError."""
    cli.check_input(options.input)
    if options.output.suffix != ".basis" or options.output.is_dir():
        raise JobError(f"{options.output}: not a name for a basis: name a file NAME.basis")
    if not options.output.parent.is_dir():
        raise JobError(f"{options.output.parent}: no such folder: make it, or choose another")
    from femto_spark import learn

    wanted = learn.Options(**vars(options))
    outcome = learn.Learning(wanted, get_context).run()
    if not options.quiet:
        print(learn.summary(wanted, outcome))
    return cli.DONE


def main(arguments: list[str] | None = None) -> int:
    """The command: returns the exit status."""
    options = parse_options(arguments)
    return cli.execute(run, options, prog="train.py", spark_name="femto train")


if __name__ == "__main__":
    sys.exit(main())
