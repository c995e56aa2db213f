"""What all commands share: exit statuses, interrupts, faults."""

import contextlib
import os
import signal
import sys
import tempfile
import traceback
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from ..errors import JobError, printable

DONE, SOME_FAILED, NOT_RUN, FAULT, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit statuses."""


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


def execute(run: Callable, options: Namespace, *, prog: str, spark_name: str) -> int:
    """Run a command to its end, however that comes, and return its exit status.

    `run(options, get_context)` returns a status or raises JobError; `get_context` starts Spark,
    which then is stopped here. An interrupt ends this process.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    contexts = []

    def get_context():
        from femto_spark import session

        contexts.append(session.start(spark_name))
        return contexts[0]

    try:
        status = run(options, get_context)
    except JobError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        status = NOT_RUN
    except Exception as error:
        print(f"{prog}: {_fault(error)}", file=sys.stderr)
        status = FAULT
    except KeyboardInterrupt:
        print(f"\n{prog}: interrupted; the same command goes on where it was", file=sys.stderr)
        sys.stderr.flush()
        # Spark may be stopping too (Ctrl-C reaches it as well): don't wait for it.
        os._exit(INTERRUPTED)
    for context in contexts:
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a Spark that is gone already is no news
            context.stop()
    return status
