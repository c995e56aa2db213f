"""Restore a folder of .laff archives to pictures, on Spark: the way back from compress.py.

spark-submit femto_job/restore.py --input archive --output pictures
spark-submit --master spark://HOST:7077 femto_job/restore.py --input archive --output pictures
python3 femto_job/restore.py --recursive --format tiff   the same on this machine alone
"""

import argparse
import sys
from pathlib import Path

from femto import cli
from femto.cli.options import Parser, add_folders, add_job, add_pictures
from femto.errors import JobError, printable

_EPILOG = """\
exit status: 0 all archives are restored; 1 some failed, the others are restored; 2 wrong options,
folders, a full disk or no Spark; 3 a fault of femto; 130 interrupted. After all but 0 the same
command goes on where it was.
"""


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; ends the program for wrong options."""
    parser = Parser(
        "restore.py", "Restore a folder of .laff archives to pictures, on Spark.", epilog=_EPILOG
    )
    add_folders(parser, "images_out", "pictures", "of archives")
    add_pictures(parser)
    add_job(parser, "report.csv")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, get_context) -> int:
    """Run the job and return the exit status. Raises JobError."""
    cli.check_input(options.input, "archives")
    if options.output.exists() and not options.output.is_dir():
        raise JobError(f"{options.output}: is a file: name a folder with --output")
    if options.output.resolve() == options.input.resolve():
        raise JobError(f"{options.output}: holds the archives: name another folder with --output")
    if options.basis is not None and not Path(options.basis).is_file():
        raise JobError(f"{options.basis}: no such file: name a .basis file with --basis")
    from femto.reconstruction import Wanted
    from femto_spark import restoring

    job = restoring.Restore(
        restoring.Options(
            input=options.input,
            output=options.output,
            wanted=Wanted.of(options),
            basis=options.basis,
            recursive=options.recursive,
            overwrite=options.overwrite,
            report=options.report,
            reader=options.reader,
            quiet=options.quiet,
        ),
        get_context,
    )
    outcome = job.run()
    if not options.quiet:
        print(restoring.summary(job.options, outcome))
    else:
        for name, reason in outcome.failures:
            print(f"restore.py: {printable(name)}: {printable(reason)}", file=sys.stderr)
        more = outcome.counts["failed"] - len(outcome.failures)
        if more:
            print(f"restore.py: {more} more failed, see failures.csv", file=sys.stderr)
    return cli.SOME_FAILED if outcome.counts["failed"] else cli.DONE


def main(arguments: list[str] | None = None) -> int:
    """The command: returns the exit status."""
    options = parse_options(arguments)
    return cli.execute(run, options, prog="restore.py", spark_name="femto restore")


if __name__ == "__main__":
    sys.exit(main())
