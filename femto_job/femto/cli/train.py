"""femto train: learn a basis from pictures of one's own."""

import argparse
import os
import sys
from pathlib import Path

from ..errors import JobError, LaffError, printable
from . import DONE, check_input, require
from .options import Parser, add_by_place, add_place, add_quiet

ABOUT = {
    "description": "Learn a basis from a folder of pictures.",
    "epilog": """\
exit status: 0 the basis is written; 2 wrong options, no pictures that can be learned from or no
Spark; 3 a fault of femto; 130 interrupted. After 2, 3 and 130 the same command goes on where it
was.
""",
}


def add_arguments(parser: Parser, *, script: bool = False) -> None:
    """From what is learned, and how."""
    add = parser.add_argument
    add("--input", type=Path, required=script, metavar="FOLDER", help="pictures to learn from")
    add(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="basis to write: NAME.basis",
    )
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
    if script:
        parser.set_defaults(from_scratch=False)
    else:
        add_by_place(parser, "input", "FOLDER")
        add(
            "--from-scratch",
            action="store_true",
            help="begin with no basis, as femto's own was made: all pictures, sub-folders too, in "
            "memory, on one core",
        )
        add(
            "--classes",
            type=int,
            choices=range(1, 33),
            default=32,
            metavar="1…32",
            help="from scratch: classes of small blocks, the DCT included (default: 32)",
        )
    add_place(parser, script=script)


def check(parser: Parser, options: argparse.Namespace) -> None:
    """End the program if options cannot be what they are."""
    if options.input is None:
        parser.error("name the folder of your pictures")
    if not 1 <= options.megapixels <= 1000:
        parser.error("--megapixels is a number from 1 to 1000")


def run(options: argparse.Namespace) -> int:
    """Learn, and return the exit status. Raises JobError, LaffError."""
    # One thread: sums in another order would round otherwise, and the same pictures should give
    # the same basis. NumPy, which is imported from here on, looks at these.
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[variable] = "1"
    check_input(options.input)
    if options.output.suffix != ".basis" or options.output.is_dir():
        raise JobError(f"{options.output}: not a name for a basis: name a file NAME.basis")
    if not options.output.parent.is_dir():
        raise JobError(f"{options.output.parent}: no such folder: make it, or choose another")
    require("scipy", what="learning")
    from ..basis.bases import check_name

    options.name = options.name or options.output.stem
    check_name(options.name)  # not after hours of learning
    return _from_scratch(options) if options.from_scratch else _learn(options)


def _learn(options: argparse.Namespace) -> int:
    from contextlib import nullcontext
    from dataclasses import fields
    from functools import partial

    from ..job.learning import Learning, LocalSamples, Options, summary

    wanted = Options(**{f.name: getattr(options, f.name) for f in fields(Options)})
    if options.master is None:
        place = nullcontext(partial(LocalSamples, jobs=options.jobs))
    else:
        from femto_spark import session
        from femto_spark.learn import SparkSamples

        place = session.made(SparkSamples, "femto train", options.master)
    with place as start:
        outcome = Learning(wanted, start).run()
    if not options.quiet:
        print(summary(wanted, outcome))
    return DONE


def _from_scratch(options: argparse.Namespace) -> int:
    import numpy as np

    from .. import pictures
    from ..basis import bases, training
    from ..samples import to_bytes

    loaded = []
    for path in sorted(options.input.rglob("*")):
        if not path.is_file() or path.suffix.lower() not in pictures.EXTENSIONS:
            continue
        try:
            with pictures.open_page(path) as reader:
                height, width = reader.shape[:2]
                image = np.asarray(reader[:height, :width])
        except LaffError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        loaded.append(to_bytes(image))
    if not loaded:
        raise LaffError(f"{options.input}: no pictures to train on: give a folder that has some")
    basis = training.train(loaded, name=options.name, count=options.classes - 1, seed=options.seed)
    digest = bases.save_basis(basis, options.output)
    size = options.output.stat().st_size
    print(f"{printable(str(options.output))}: {size} bytes, sha256 {digest}")
    return DONE
