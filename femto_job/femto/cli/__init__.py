"""The command line: what all commands share. Exit statuses, interrupts, faults.

Each verb of `femto` is a module here: `ABOUT` it, `add_arguments(parser, script)`, where `script`
says that it is one of the scripts in a clone, `check(parser, options)`, and `run(options)`, which
returns an exit status. What they need beyond their options they import when they run.
"""

import contextlib
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from ..errors import JobError, LaffError, printable

DONE, SOME_FAILED, NOT_RUN, FAULT, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit statuses."""


def script(verb, prog: str, arguments: list[str] | None = None) -> int:
    """Run one of the scripts that are a verb by another name; returns its exit status."""
    options = parse(verb, prog, arguments)
    return execute(verb.run, options)


def parse(verb, prog: str, arguments: list[str] | None = None):
    """The options of a script; ends the program for wrong ones."""
    from .options import Parser

    parser = Parser(prog, **verb.ABOUT)
    verb.add_arguments(parser, script=True)
    options = parser.parse_args(arguments, None)
    options.prog = prog
    verb.check(parser, options)
    return options


def check_input(folder: Path, what: str = "pictures") -> None:
    """JobError unless this is a folder that can be listed; `what` it holds."""
    try:
        os.scandir(folder).close()
    except FileNotFoundError:
        remedy = f"no such folder: name the folder of your {what} with --input"
        raise JobError(f"{folder}: {remedy}") from None
    except NotADirectoryError:
        raise JobError(f"{folder}: is not a folder: --input takes a folder of {what}") from None
    except OSError as error:
        remedy = f"cannot be read ({error.strerror}): run as an account that may read it"
        raise JobError(f"{folder}: {remedy}") from None


def check_output(folder: Path) -> None:
    """JobError if this is no name for a folder."""
    if folder.exists() and not folder.is_dir():
        raise JobError(f"{folder}: is a file: name a folder with --output")


def require(*packages: str, what: str, remedy: str = "") -> None:
    """JobError if packages are missing that `what` needs; `remedy` beside installing them."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        are, them = ("are", "them") if len(missing) > 1 else ("is", "it")
        raise JobError(
            f"{' and '.join(missing)} {are} not installed here, and {what} needs {them}: "
            f"pip install {' '.join(missing)}{remedy}"
        )


def place(options, name: str, start: Callable | None = None):
    """Where a job runs, as a context manager that gives what femto.job.runner.Work wants: `start`
    if that is given; on Spark if the options name a `master`; else `jobs` processes of this
    machine."""
    if start is not None:
        return contextlib.nullcontext(start)
    if options.master is not None:
        from femto_spark import session
        from femto_spark.runner import SparkRunner

        return session.made(SparkRunner, name, options.master)
    from functools import partial

    from ..job.local import LocalRunner

    # Every process has its core, and needs no threads of libraries.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    return contextlib.nullcontext(partial(LocalRunner, jobs=options.jobs))


def _fault(error: Exception) -> str:
    """One line on an exception that nobody expected, which goes into a file as a whole."""
    what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    try:
        descriptor, path = tempfile.mkstemp(prefix="femto-fault-", suffix=".log")
        with os.fdopen(descriptor, "w", errors="backslashreplace") as file:
            file.write("".join(traceback.format_exception(error)))
        where = f" (all of it is in {path})"
    except OSError:
        where = ""
    return (
        f"a fault of femto: {printable(what)}{where}: report it; what is done is kept, and the "
        "same command goes on where it was"
    )


def execute(run: Callable, options) -> int:
    """Run a command to its end, however that comes, and return its exit status. `options.prog` is
    what the command is called.

    `run(options)` returns a status or raises JobError or LaffError. An interrupt ends this process.
    """
    prog = options.prog
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")
    on_term = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(options)
    except (JobError, LaffError) as error:
        print(f"{prog}: {printable(str(error))}", file=sys.stderr)
        return NOT_RUN
    except Exception as error:
        print(f"{prog}: {_fault(error)}", file=sys.stderr)
        return FAULT
    except KeyboardInterrupt:
        print(f"\n{prog}: interrupted; the same command goes on where it was", file=sys.stderr)
        sys.stderr.flush()
        # Threads may wait for what is ending too (Ctrl-C reaches Spark as well): don't.
        os._exit(INTERRUPTED)
    finally:
        signal.signal(signal.SIGTERM, on_term)
