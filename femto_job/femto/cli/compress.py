"""femto compress: a folder of pictures becomes a folder of archives."""

import argparse
import math
import sys
from dataclasses import fields
from pathlib import Path

from ..errors import JobError, LaffError, printable
from . import DONE, SOME_FAILED, check_input, check_output, place, require
from .options import Parser, add_folders, add_job, add_place, add_recursive, whole

ABOUT = {
    "description": "Compress a folder of pictures into .laff archives.",
    "epilog": """\
exit status: 0 all pictures are compressed; 1 some failed, the others are compressed (with --strict
also: some have warnings); 2 wrong options, folders, a full disk or no Spark; 3 a fault of femto;
130 interrupted. After 1, 2, 3 and 130 the same command goes on where it was; after 1, with
--overwrite, it begins again.
""",
}
TARGETS = ("quality", "ratio", "psnr")
MAX_ERROR = (1 << 16) - 1
"""As femto.container.MAX_ERROR."""


def add_arguments(parser: Parser, *, script: bool = False) -> None:
    """All that can be said of how pictures become archives."""
    add = parser.add_argument
    add_folders(parser, "images", "images_out", script=script)
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--quality", type=float, help="1 (smallest) to 100 (best), default 75")
    target.add_argument("--ratio", type=float, help="instead: so many times smaller")
    target.add_argument("--psnr", type=float, help="instead: so many dB")
    exact = parser.add_mutually_exclusive_group()
    exact.add_argument(
        "--lossless",
        dest="max_error",
        action="store_const",
        const=0,
        help="keep every sample as it is, in one more layer above a picture of --quality, which is "
        "then 20 by default; not of floating-point samples",
    )
    exact.add_argument(
        "--max-error",
        type=whole,
        metavar="N",
        help="the same, but samples may differ by up to N levels",
    )
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
    add(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="read every archive back from disk and decode it before it gets its name; SHA-256 of "
        "picture file, archive and pixels go into the report (default: yes)",
    )
    add(
        "--delete-originals",
        action="store_true",
        help="delete every picture file whose archives are verified, --lossless or of --min-psnr, "
        "have all metadata, and neither warnings nor notes: read docs/TRUST.md before",
    )
    add(
        "--min-psnr",
        type=float,
        metavar="DB",
        help="with --delete-originals: originals stay whose archives have less",
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
    add_place(parser, script=script)


def check(parser: Parser, options: argparse.Namespace) -> None:
    """End the program if options are no numbers that they can be."""
    if options.cut_above is not None and not options.cut_above >= 0:
        parser.error("--cut-above is a number of megapixels, 0 or more")
    if options.max_error is not None and not (options.ratio is options.psnr is None):
        parser.error("--lossless and --max-error go without --ratio and --psnr")
    if options.max_error is not None and options.max_error > MAX_ERROR:
        parser.error(f"--max-error is a number of levels, at most {MAX_ERROR}")
    if options.range is not None and not -math.inf < options.range[0] < options.range[1] < math.inf:
        parser.error("--range is two numbers, the lower one first")
    _check_deleting(parser, options)


def _check_deleting(parser: Parser, options: argparse.Namespace) -> None:
    """End the program if originals were to be deleted whose archives do not hold all of them."""
    if not options.delete_originals:
        if options.min_psnr is not None:
            parser.error("--min-psnr goes with --delete-originals")
        return
    if options.min_psnr is None and options.max_error != 0:
        parser.error("--delete-originals goes with --lossless, or --min-psnr DB: what is enough")
    if options.min_psnr is not None and not 0 < options.min_psnr < math.inf:
        parser.error("--min-psnr is a number of dB, more than 0 (see --delete-originals)")
    less = {
        "--no-verify": not options.verify,
        "--strip-metadata": options.strip_metadata,
        "--gray": options.gray,
        "--bands": options.bands is not None,
        "--no-alpha": not options.alpha,
        "--range": options.range is not None,
    }
    for option, given in less.items():
        if given:
            parser.error(f"--delete-originals goes without {option}")


def _require_basis(path: Path, sha256: str) -> None:
    """JobError unless a basis lies beside the archives, which nobody reads without it."""
    from ..basis.bases import load_basis

    try:
        if load_basis(str(path)).sha256 == sha256:
            return
    except LaffError:
        pass
    raise JobError(
        f"{path}: is not the basis of these archives, which nobody reads without it: "
        "put a copy there before originals are deleted"
    )


def _bands(text: str) -> list[int] | str:
    if text == "each":
        return text
    bands = [int(part) if part.isdecimal() else 0 for part in text.split(",")]
    if len(bands) not in (1, 3) or min(bands) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: one or three numbers from 1, or each")
    return bands


def run(options: argparse.Namespace, start=None) -> int:
    """Run the job and return the exit status. `start`: where it runs, if not where the options say
    (see femto.job.runner.Work). Raises JobError."""
    check_input(options.input)
    check_output(options.output)
    if options.report:
        require("pyarrow", "scipy", what="the report", remedy=", or choose --no-report")
    from ..basis.bases import DEFAULT, load_basis
    from ..codec import StepSearch
    from ..job.compressing import Job, Options
    from ..job.summary import summary
    from ..samples import levels_of

    target = {name: value for name in TARGETS if (value := getattr(options, name)) is not None}
    try:
        StepSearch(**target, levels=levels_of(8), channels=3, raw_nbytes=3, samples=3).first()
        basis = load_basis(options.basis)
    except LaffError as error:
        raise JobError(str(error)) from None
    if options.delete_originals and options.basis != DEFAULT:
        _require_basis(options.output / f"{basis.name}.basis", basis.sha256)
    named = {f.name: getattr(options, f.name) for f in fields(Options) if f.name != "target"}
    wanted = Options(**named, target=target)
    with place(options, "femto compress", start) as start:
        outcome = Job(wanted, start).run()
    if not options.quiet:
        print(summary(wanted, outcome))
    else:
        for row in outcome.rows:
            name = f"{options.prog}: {printable(row['picture'])}"
            if row["status"] == "failed":
                print(f"{name}: {printable(row['error'])}", file=sys.stderr)
            for text in row.get("warnings", ()):
                print(f"{name}: warning: {printable(text)}", file=sys.stderr)
    warned = options.strict and any(row.get("warnings") for row in outcome.rows)
    return SOME_FAILED if warned or outcome.count("failed") else DONE
