"""A job on Spark."""

import threading
from collections.abc import Callable, Iterator
from functools import partial

from femto.errors import JobError, printable
from femto.files.folder import Source
from femto.job.runner import Runner, Stopped, files_are_in, halves

from . import session

WAIT_SECONDS = 15
"""How long a cluster may take to give cores before the user is told."""


class SparkRunner(Runner):
    """Runs one job's functions on Spark.

    Parameters: the SparkContext, and those of Runner.
    """

    def __init__(self, context, *arguments, **options):
        super().__init__(*arguments, **options)
        self.context = context
        self.shared = session.is_local(context)

    def __exit__(self, kind, error, trace) -> None:
        super().__exit__(kind, error, trace)
        # Whatever was called on a Spark that is gone says so in words of its own.
        unexpected = isinstance(error, Exception) and not isinstance(error, (JobError, OSError))
        if unexpected and session.is_stopped(self.context):
            raise JobError(session.GONE) from None

    @property
    def cores(self) -> int:
        return max(1, self.context.defaultParallelism)

    @property
    def memory_nbytes(self) -> int:
        """The heap of Spark's driver."""
        return self.context._jvm.java.lang.Runtime.getRuntime().maxMemory()

    def ship(self, path: str) -> None:
        self.context.addFile(path)

    def cancel(self) -> None:
        if not session.is_stopped(self.context):
            self.context.cancelAllJobs()

    def find_view(self, sources: list[Source]) -> None:
        if not self.shared:
            patience = threading.Timer(WAIT_SECONDS, self._say_if_waiting)
            patience.daemon = True
            patience.start()
        super().find_view(sources)

    def _say_if_waiting(self) -> None:
        try:
            waiting = session.executors(self.context) == 0
        except Exception:  # Spark is ending
            return
        if waiting:
            self._say("no worker has given this job cores yet")

    def spread(self, function: Callable, parts: list, description: str) -> list:
        """Call a function of an iterator once per part, each in a task of its own."""
        self.check()
        context = self.context
        try:
            context.setJobDescription(printable(description))
            task = partial(_in_executor, function)
            return context.parallelize(parts, len(parts)).mapPartitions(task).collect()
        except Exception as error:
            self.check()
            if session.is_stopped(context) or "SparkContext was shut down" in str(error):
                raise JobError(session.GONE) from None
            raise

    def spread_safely(
        self, function: Callable, parts: list, description: str, lost: Callable
    ) -> list:
        try:
            return self.spread(function, parts, description)
        except (JobError, Stopped):
            raise
        except Exception as error:
            reason = session.why_lost(error)
        smaller = halves(parts)
        if not smaller:
            (part,) = parts
            return [lost(part[0] if isinstance(part, list) else part, reason)]
        return [
            result
            for half in smaller
            for result in self.spread_safely(function, half, description, lost)
        ]


def _in_executor(function: Callable, parts: Iterator) -> Iterator:
    from pyspark import SparkFiles

    files_are_in(SparkFiles.getRootDirectory())
    return function(parts)
