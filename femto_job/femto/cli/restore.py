"""Restoring a folder of archives as a job: the script restore.py, and femto decompress --master."""

import argparse
import sys
from pathlib import Path

from ..errors import JobError, printable
from . import DONE, SOME_FAILED, check_input, check_output, place
from .options import (
    Parser,
    add_folders,
    add_job,
    add_pictures,
    add_place,
    check_pictures,
)

ABOUT = {
    "description": "Restore a folder of .laff archives to pictures, on Spark.",
    "epilog": """\
exit status: 0 all archives are restored; 1 some failed, the others are restored; 2 wrong options,
folders, a full disk or no Spark; 3 a fault of femto; 130 interrupted. After all but 0 the same
command goes on where it was.
""",
}


def add_arguments(parser: Parser, *, script: bool = True) -> None:
    """All that can be said of how archives become pictures."""
    add_folders(parser, "images_out", "pictures", "archives", script=script)
    add_pictures(parser)
    add_job(parser, "report.csv")
    add_place(parser, script=script)


def check(parser: Parser, options: argparse.Namespace) -> None:
    """End the program if options do not go together."""
    check_pictures(parser, options)


def run(options: argparse.Namespace, start=None) -> int:
    """Run the job and return the exit status; `start` as in femto.cli.compress. Raises JobError."""
    check_input(options.input, "archives")
    check_output(options.output)
    if options.output.resolve() == options.input.resolve():
        raise JobError(f"{options.output}: holds the archives: name another folder with --output")
    if options.basis is not None and not Path(options.basis).is_file():
        raise JobError(f"{options.basis}: no such file: name a .basis file with --basis")
    from ..job import restoring
    from ..job.reconstruction import Wanted

    wanted = restoring.Options(
        input=options.input,
        output=options.output,
        wanted=Wanted.of(options),
        basis=options.basis,
        recursive=options.recursive,
        overwrite=options.overwrite,
        report=options.report,
        reader=options.reader,
        quiet=options.quiet,
    )
    with place(options, "femto decompress", start) as start:
        outcome = restoring.Restore(wanted, start).run()
    if not options.quiet:
        print(restoring.summary(wanted, outcome))
    else:
        for name, reason in outcome.failures:
            print(f"{options.prog}: {printable(name)}: {printable(reason)}", file=sys.stderr)
        more = outcome.counts["failed"] - len(outcome.failures)
        if more:
            print(f"{options.prog}: {more} more failed, see failures.csv", file=sys.stderr)
    return SOME_FAILED if outcome.counts["failed"] else DONE
