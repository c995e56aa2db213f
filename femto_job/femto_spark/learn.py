"""Learning a basis on Spark: executors keep the samples."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from femto.errors import JobError
from femto.job import learning
from femto.job.learning import Samples, Wanted

from . import session


class SparkSamples(Samples):
    """Samples in the memory of executors, or on their disks. Parameters: the SparkContext, and a
    folder, which is not used."""

    def __init__(self, context, folder=None):
        self._context = context
        self._found = None

    def done(self):
        return self._context.accumulator(0)

    def sample(self, wanted: list[Wanted]) -> list[tuple[Wanted, int, str | None]]:
        if self._found is not None:
            self._found.unpersist()
        self._found = self._spread(wanted)
        return self._run("reading pictures", self._found.mapPartitions(_facts).collect)

    def _spread(self, wanted: list[Wanted]):
        from pyspark import StorageLevel

        cores = max(1, self._context.defaultParallelism)
        parts = min(len(wanted), 4 * cores)
        found = self._context.parallelize(wanted, parts).mapPartitions(_sample)
        return found.persist(StorageLevel.MEMORY_AND_DISK)

    def total(self, empty: Callable, one: Callable, basis, done) -> bytes:
        shared = self._context.broadcast(basis)
        sums = self._found.mapPartitions(partial(_sum, empty, one, shared, done))
        return self._run("sums", partial(sums.treeReduce, partial(_add, empty, shared)))

    def state(self, basis, last: int, done) -> np.ndarray:
        shared = self._context.broadcast(basis)
        state = self._found.coalesce(1).mapPartitions(partial(_state, shared, done, last))
        return self._run("state", state.collect)[0]

    def judge(self, judged: list, done) -> list[tuple]:
        shared = self._context.broadcast(judged)
        rows = self._found.mapPartitions(partial(_judge, shared, done))
        return self._run("comparing", rows.collect)

    def _run(self, title: str, action: Callable):
        try:
            self._context.setJobDescription(title)
            return action()
        except Exception as error:
            if session.is_stopped(self._context) or "SparkContext was shut down" in str(error):
                raise JobError(session.GONE) from None
            raise JobError(f"{title}: {session.why_lost(error)}") from None


# What executors do; functions of this package, which brings the others along (see unpack).


def _sample(wanted: Iterator[Wanted]) -> Iterator[tuple]:
    return learning.sample(wanted)


def _facts(found: Iterator[tuple]) -> Iterator[tuple]:
    return learning.facts_of(found)


def _sum(empty: Callable, one: Callable, shared, done, found: Iterator[tuple]) -> Iterator[bytes]:
    yield learning.sum_of(empty, one, shared.value, done, found)


def _add(empty: Callable, shared, a: bytes, b: bytes) -> bytes:
    return learning.add_packed(empty, shared.value, a, b)


def _state(shared, done, last: int, found: Iterator[tuple]) -> Iterator[np.ndarray]:
    yield learning.state_of(shared.value, done, last, found)


def _judge(shared, done, found: Iterator[tuple]) -> Iterator[tuple]:
    return learning.judge(shared.value, done, found)
