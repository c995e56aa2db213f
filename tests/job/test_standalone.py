"""The job on a real standalone cluster: a master and two workers as processes."""

import json
import zipfile
from collections import defaultdict
from functools import partial

import pytest
from job_tools import archives, picture, rows, save

from femto import build
from femto.coding import libraries
from femto.errors import JobError, LaffError
from femto.job.compressing import Job, Options
from femto_spark import session
from femto_spark.runner import SparkRunner

BOTH = {  # no task before both executors are there, however busy the machine
    "spark.cores.max": "2",
    "spark.scheduler.minRegisteredResourcesRatio": "1.0",
    "spark.scheduler.maxRegisteredResourcesWaitingTime": "1800s",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, context):
    """Pictures, one of them wide enough to be shared, and their archives as made locally."""
    here = tmp_path_factory.mktemp("pictures")
    for i in range(12):
        save(here / "in" / f"small {i}.png", picture(64, 64 + i, i))
    save(here / "in" / "grey.tif", picture(50, 60, 77, channels=1))
    save(here / "in" / "wide.png", picture(24, 6 * 1024, 99))
    (here / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    options = Options(here / "in", here / "local", target={"psnr": 36.0}, cut_above=0.1, quiet=True)
    assert Job(options, partial(SparkRunner, context)).run().count("failed") == 1
    return here


def logged(log) -> dict[str, str]:
    """Settings: write an event log into the folder, which is made."""
    log.mkdir()
    return {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": log.as_uri(),
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
    }


def tasks_by_executor(log_folder) -> dict[str, dict[str, int]]:
    """From Spark's own event log: how many tasks each executor ended, by job description."""
    described, counts = {}, defaultdict(lambda: defaultdict(int))
    (log,) = log_folder.iterdir()
    for line in log.read_text().splitlines():
        event = json.loads(line)
        if event["Event"] == "SparkListenerStageSubmitted":
            described[event["Stage Info"]["Stage ID"]] = event["Properties"].get(
                "spark.job.description"
            )
        elif event["Event"] == "SparkListenerTaskEnd":
            assert event["Task End Reason"]["Reason"] == "Success"
            executor = event["Task Info"]["Executor ID"]
            counts[described[event["Stage ID"]]][executor] += 1
    return counts


@pytest.mark.parametrize("reader", ["auto", "driver"])
def test_a_cluster_makes_the_same_archives(cluster, folder, reader):
    log = folder / f"events {reader}"
    done = cluster.submit(
        "--psnr", 36, "--cut-above", 0.1, "--reader", reader,
        "--input", folder / "in", "--output", folder / reader, conf=logged(log) | BOTH,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "ERROR" not in done.stderr and "Traceback" not in done.stderr
    expected = archives(folder / "local")
    assert len(expected) == 14
    assert archives(folder / reader) == expected
    local, table = rows(folder / "local"), rows(folder / reader)
    for name, row in table.items():
        for column in ("status", "archive", "archive_bytes", "psnr_db", "ssim", "error"):
            assert row[column] == local[name][column]
    counts = tasks_by_executor(log)
    assert ("who sees the input" in counts) == (reader == "auto")
    assert ("reading headers" in counts) == (reader == "auto")
    assert sum(counts["tiles of wide.png"].values()) > 1
    used = {e for by_executor in counts.values() for e in by_executor}
    assert used == {"0", "1"}


def test_one_huge_picture_is_worked_on_by_both_workers(cluster, tmp_path):
    save(tmp_path / "in" / "wide.png", picture(24, 6 * 1024, 99))
    done = cluster.submit(
        "--psnr", 36, "--cut-above", 0.1, "--input", tmp_path / "in", "--output", tmp_path / "out",
        conf=logged(tmp_path / "events") | BOTH,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    counts = tasks_by_executor(tmp_path / "events")
    assert set(counts["tiles of wide.png"]) == {"0", "1"}


def test_no_master_is_told_in_plain_words():
    # What PySpark raises a minute after it was given the address of no master.
    error = RuntimeError("Cannot call methods on a stopped SparkContext.\nThis stopped ...")
    assert "no master answers" in session._why_no_spark(error)
    assert "\n" not in session._why_no_spark(error)


def test_the_packages_travel_as_a_zip_that_does_not_change(tmp_path, library):
    first = session._zip_packages(tmp_path / "1.zip")
    assert session._zip_packages(tmp_path / "2.zip").read_bytes() == first.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.read(f"femto/_library/{library.name}") == library.read_bytes()


def test_what_workers_run_is_compiled_by_the_driver(tmp_path, monkeypatch, library):
    monkeypatch.setattr(libraries, "usable", lambda path: False)
    asked = []

    def compiled(names, folder, say):
        asked.append(names)
        return [library]

    monkeypatch.setattr(build, "build", compiled)
    path = session._zip_packages(tmp_path / "femto.zip")
    assert asked == [libraries.targets()]
    assert f"femto/_library/{library.name}" in zipfile.ZipFile(path).namelist()

    def without_a_linker(names, folder, say):
        raise LaffError("there is no linker")

    monkeypatch.setattr(build, "build", without_a_linker)
    with pytest.raises(JobError, match="cannot be compiled for the workers: there is no linker"):
        session._zip_packages(tmp_path / "femto.zip")
