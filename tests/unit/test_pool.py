"""Processes of this machine that share work."""

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from femto.files.whole import whole_file
from femto.job.pool import Died, Pool


def square(number: int) -> int:
    return number * number


def fail(text: str):
    raise ValueError(text)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_unless(path: str) -> str:
    """Die the first time."""
    if not os.path.exists(path):
        Path(path).touch()
        die()
    return "alive"


def write_for_ever(path: str) -> None:
    with whole_file(path):
        Path(path + ".begun").touch()
        while True:
            time.sleep(0.01)


def spends() -> tuple[int, float, float]:
    """This process, and when it began and ended to work."""
    began = time.monotonic()
    time.sleep(0.2)
    return os.getpid(), began, time.monotonic()


def test_results_and_errors_come_back():
    with Pool(2) as pool:
        results = [pool.submit(square, i) for i in range(9)]
        failed = pool.submit(fail, "seven")
        assert [result.result() for result in results] == [i * i for i in range(9)]
        with pytest.raises(ValueError, match="seven"):
            failed.result()


def test_a_pipe_is_not_closed_while_another_thread_knows_of_it(monkeypatch):
    """Closed twice, the second time could be the end of some other file."""
    meeting, close = threading.Barrier(2), Connection._close

    def slowly(connection):
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(5)
        close(connection)

    with Pool(1) as pool, ThreadPoolExecutor(2) as threads:
        assert pool.submit(square, 3).result() == 9
        (process,) = pool._processes
        monkeypatch.setattr(Connection, "_close", slowly)
        for ended in [threads.submit(process.end) for _ in range(2)]:
            ended.result()
        monkeypatch.undo()
        assert not process.is_alive()
        assert pool.submit(square, 4).result() == 16


def test_a_process_that_dies_costs_only_what_it_was_doing(tmp_path):
    with Pool(2) as pool:
        before = [pool.submit(square, i) for i in range(5)]
        dead = [pool.submit(die), pool.submit(die_unless, str(tmp_path / "died"))]
        after = [pool.submit(square, i) for i in range(5)]
        for one in dead:
            with pytest.raises(Died):
                one.result()
        assert [one.result() for one in before + after] == [i * i for i in range(5)] * 2
        with pytest.raises(Died):
            pool.alone(die)
        assert pool.alone(die_unless, str(tmp_path / "died")) == "alive"


def test_alone_is_alone():
    with Pool(2) as pool:
        others = [pool.submit(spends) for _ in range(6)]
        _, began, ended = pool.alone(spends)
        assert len({pid for pid, *_ in (one.result() for one in others)}) <= 2
        for one in others:
            _, other_began, other_ended = one.result()
            assert other_ended <= began or other_began >= ended


def test_what_is_being_written_when_it_ends_is_not_left_behind(tmp_path):
    with Pool(1) as pool:
        held = pool.submit(write_for_ever, str(tmp_path / "file"))
        while not (tmp_path / "file.begun").exists():
            time.sleep(0.01)
        assert list(tmp_path.glob("*.part"))
    with pytest.raises(Died):
        held.result()
    assert [path.name for path in tmp_path.iterdir()] == ["file.begun"]
