"""A job on the cores of this machine: a pool of processes."""

import os
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from itertools import chain

from .pool import Died, Pool, cores
from .runner import Runner, Stopped, halves

DIED = (
    "the process that worked on it died, and died again when it was tried alone, most likely for "
    "lack of memory: free some"
)


class LocalRunner(Runner):
    """Runs one job's functions on `jobs` processes of this machine, by default one for each core.

    Further parameters: those of Runner.
    """

    shared = True

    def __init__(self, *arguments, jobs: int | None = None, **options):
        super().__init__(*arguments, **options)
        self.cores = jobs or cores()
        self._pool = Pool(self.cores)

    def __exit__(self, *exception) -> None:
        self._pool.close()
        super().__exit__(*exception)

    def spread_safely(
        self, function: Callable, parts: list, description: str, lost: Callable
    ) -> list:
        self.check()
        futures = [self._pool.submit(_results, function, part) for part in parts]
        return list(
            chain.from_iterable(
                self._result(future, function, part, description, lost)
                for future, part in zip(futures, parts, strict=True)
            )
        )

    def _result(self, future: Future, function: Callable, part, description: str, lost) -> list:
        try:
            return future.result()
        except CancelledError:
            raise Stopped from None
        except Exception as error:
            self.check()
            reason = _why(error)
        if smaller := halves([part]):
            return self.spread_safely(function, [half for (half,) in smaller], description, lost)
        try:
            # It may have been killed for what others did, such as to fill the memory.
            return self._pool.alone(_results, function, part)
        except Exception as error:
            self.check()
            reason = _why(error)
        return [lost(part[0] if isinstance(part, list) else part, reason)]

    def cancel(self) -> None:
        self._pool.close()

    @property
    def memory_nbytes(self) -> int:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _results(function: Callable, part) -> list:
    return list(function(iter([part])))


def _why(error: Exception) -> str:
    if isinstance(error, Died):
        return DIED
    text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return f"its task failed ({text}): report this as a fault of femto"
