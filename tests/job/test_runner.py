"""Work spread over Spark: what kills its process, what is fed, and when things are taken."""

import itertools
import os
import threading
import tracemalloc
from functools import partial
from pathlib import Path

import pytest

from bench import scale
from femto.job import runner
from femto.job.compressing import Job, Options
from femto.job.plan import Source
from femto.job.runner import Work
from femto_spark.runner import SparkRunner


class Numbers(Work):
    """Counts what it is given; things are the names of files of some size."""

    def __init__(self, task, nbytes: int = 1):
        self.task, self._nbytes = task, nbytes
        self.taken: list[str] = []
        self.failed: dict[str, str] = {}

    def describe(self, count):
        return f"{count} numbers"

    def key(self, thing):
        return thing

    def source(self, thing):
        return Source(thing, self._nbytes, 0)

    def load(self, thing):
        return thing.encode()

    def take(self, thing, result):
        self.taken.append(thing)

    def fail(self, thing, reason, *, fatal=False):
        self.failed[thing] = reason


def echo(poison: str | None = None):
    """A task function that gives every thing back, but is killed by one."""

    def task(groups):
        for items in groups:
            for item in items:
                if item.thing == poison:
                    os.kill(os.getpid(), 9)
                yield {"key": item.thing}

    return task


@pytest.fixture
def spreads(monkeypatch) -> list[int]:
    """The number of tasks of every Spark job that a runner has started."""
    sizes = []
    spread = SparkRunner.spread

    def counting(self, function, parts, description):
        sizes.append(len(parts))
        return spread(self, function, parts, description)

    monkeypatch.setattr(SparkRunner, "spread", counting)
    return sizes


def test_what_kills_its_process_is_found_by_halving(context, folders, spreads):
    """Of 10,000 things one is poison: everything else is done, in a few more jobs."""
    names = [str(i) for i in range(10_000)]
    groups = [names[i : i + 250] for i in range(0, 10_000, 250)]
    work = Numbers(echo(poison="6789"))
    with SparkRunner(context, folders) as one:
        one.run([lambda: one._do_batch(groups, work)])
    assert sorted(work.taken) == sorted(set(names) - {"6789"})
    assert list(work.failed) == ["6789"] and "lack of memory" in work.failed["6789"]
    assert len(spreads) <= 1 + 2 * 6 + 2 * 8
    assert sum(spreads) < 200


def test_what_workers_do_not_see_is_done_once(context, folders):
    given = context.accumulator(0)

    def blind(groups):
        for items in groups:
            for item in items:
                given.add(item.payload is not None)
                yield {"key": item.thing, **({} if item.payload else {"unseen": True})}

    work = Numbers(blind)
    with SparkRunner(context, folders) as one:
        one.run(one.batches([["a", "b"], ["c"]], work))
    assert sorted(work.taken) == ["a", "b", "c"] and given.value == 3


def test_feeding_keeps_every_core_busy(context, folders, monkeypatch):
    """Files of 20 MB on 16 cores: as many tasks are on their way at a time."""
    monkeypatch.setattr(SparkRunner, "cores", 16)
    spread, changed = SparkRunner.spread, threading.Condition()
    under_way, most = [], []

    def waiting(self, function, parts, description):
        with changed:
            under_way.append(len(parts))
            most.append(sum(under_way))
            changed.notify_all()
            # Until there are enough, or no batch can come that is not here.
            changed.wait_for(
                lambda: max(most) >= 16 or len(under_way) == runner.BATCHES_IN_FLIGHT,
                timeout=600,
            )
        results = spread(self, function, parts, description)
        with changed:
            under_way.remove(len(parts))
        return results

    monkeypatch.setattr(SparkRunner, "spread", waiting)
    work = Numbers(echo(), nbytes=20 << 20)
    names = [str(i) for i in range(64)]
    with SparkRunner(context, folders, reader="driver") as one:
        one.run(one.batches([[name] for name in names], work))
    assert sorted(work.taken) == sorted(names)
    assert max(most) >= 16


def test_things_are_taken_when_they_are_needed(context, folders):
    """A million groups are not held: no more than some batches are ahead of what is done."""
    work = Numbers(echo())
    ahead = []

    def groups():
        for i in range(200):
            ahead.append(i - len(work.taken))
            yield [str(i)]

    with SparkRunner(context, folders) as one:
        one.run(one.batches(groups(), work))
        assert len(work.taken) == 200
        assert max(ahead) <= one.cores * (runner.BATCHES_IN_FLIGHT + 1)


def peak_of_a_job(context, folder: Path, count: int) -> int:
    """The most bytes that a job over so many files that do not exist holds at a time in Python."""
    (folder / "in").mkdir(parents=True)
    options = Options(folder / "in", folder / "out", report=False, quiet=True)
    tracemalloc.start()
    try:
        with scale.made_up(count):
            outcome = Job(options, partial(SparkRunner, context)).run()
        assert outcome.count("done") + outcome.count("failed") == count
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_driver_holds_no_list_of_files(context, tmp_path):
    """Files, headers, names, records and rows are on disk: each takes less than a name's bytes.

    What is in flight differs by some megabytes between runs; a list would be in all of them.
    """
    runs = itertools.count()

    def peak(files: int) -> int:
        return peak_of_a_job(context, tmp_path / str(next(runs)), files)

    few = min(peak(1_500) for _ in range(3))
    assert any(peak(6_000) - few < 4_500 * 200 for _ in range(4))
