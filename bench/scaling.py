"""How compressing and learning scale with cores, and what a model makes of it.

    python3 bench/scaling.py ../shared/data/large -o docs/scaling.json

Runs both jobs, compressing with --no-verify, on local Spark with 1 and 2 cores, and on a cluster of
1 and of 2 workers of one core each (Spark's local-cluster: master, workers and executors as on a
real one, executors as processes of their own, all on this machine), each with little and with much
work, so that what a run takes anyway and what every megapixel takes can be told apart. Then
predicts the last run from the others. Wall-clock times, to be run on a quiet machine of two cores;
about 15 minutes.
"""

import argparse
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bench  # noqa: F401  one thread, femto of this checkout

MASTERS = {
    "1 core": ("local[1]", 1),
    "2 cores": ("local[2]", 2),
    "1 worker": ("local-cluster[1,1,2048]", 1),
    "2 workers": ("local-cluster[2,1,2048]", 2),
}
"""Spark's name for each, and its cores."""


# --- one run, in a process of its own --------------------------------------------------------


def child(job: str, folder: Path, target: Path, megapixels: float) -> None:
    """Run a job and print what it took, as JSON."""
    from femto.job import compressing, learning
    from femto_spark import session
    from femto_spark.learn import SparkSamples
    from femto_spark.runner import SparkRunner

    began = time.perf_counter()
    context = session.start("femto scaling")
    java = context._jvm.java.lang.ProcessHandle.current().pid()

    def cpu() -> float:
        """CPU seconds of this process and of Spark's driver."""
        spent = Path(f"/proc/{java}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, spent)) / os.sysconf("SC_CLK_TCK") + time.process_time()

    ready, before = time.perf_counter(), cpu()
    if job == "compress":
        # What docs/SCALING.md tells of; what verifying costs is bench/reporting.py's business.
        options = compressing.Options(input=folder, output=target, verify=False, quiet=True)
        outcome = compressing.Job(options, partial(SparkRunner, context)).run()
        done = {"pixels": outcome.coded_pixels, "failed": outcome.count("failed")}
        done["archive_nbytes"] = sum(p.stat().st_size for p in target.glob("*.laff.gz"))
    else:
        options = learning.Options(folder, target, target.stem, megapixels=megapixels, quiet=True)
        outcome = learning.Learning(options, partial(SparkSamples, context)).run()
        done = {"pixels": outcome.pixels, "stages": outcome.stage_seconds}
        done["sums_nbytes"] = outcome.sent_bytes
    done |= {"start": ready - began, "seconds": time.perf_counter() - ready}
    done["driver_cpu"] = cpu() - before
    context.stop()
    print(json.dumps(done))


def tasks(events: Path) -> dict:
    """Of all tasks that a run's event log tells of: their number, seconds, bytes of their results
    and of what they sent to other executors."""
    found = {"tasks": 0, "task_seconds": 0.0, "result_nbytes": 0, "shuffle_nbytes": 0}
    for log in events.rglob("*"):
        if not log.is_file() or log.name.startswith("."):
            continue
        for line in log.read_text().splitlines():
            event = json.loads(line)
            if event.get("Event") != "SparkListenerTaskEnd" or "Task Metrics" not in event:
                continue
            metrics = event["Task Metrics"]
            found["tasks"] += 1
            found["task_seconds"] += metrics["Executor Run Time"] / 1000
            found["result_nbytes"] += metrics["Result Size"]
            found["shuffle_nbytes"] += metrics["Shuffle Write Metrics"]["Shuffle Bytes Written"]
    return found


def run(job: str, where: str, folder: Path, megapixels: float) -> dict:
    """One run in a fresh process."""
    master, _ = MASTERS[where]
    with tempfile.TemporaryDirectory() as work:
        events = Path(work) / "events"
        events.mkdir()
        target = Path(work) / ("out" if job == "compress" else "own.basis")
        command = [sys.executable, __file__, folder, "--child", job, target, str(megapixels)]
        conf = {"enabled": "true", "compress": "false", "dir": events.as_uri()}
        spark = ["--master", master, *(f"--conf spark.eventLog.{k}={v}" for k, v in conf.items())]
        environment = os.environ | {"PYSPARK_SUBMIT_ARGS": " ".join([*spark, "pyspark-shell"])}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"bench: {job} on {where}: {done.stderr.strip().splitlines()[-1]}")
        found = json.loads(done.stdout.splitlines()[-1]) | tasks(events)
    if found.get("failed"):
        sys.exit(f"bench: {job} on {where}: {found['failed']} pictures failed")
    found |= {"job": job, "where": where}
    print(f"{job}, {where}: {found['pixels'] / 1e6:.1f} Mpixel in {found['seconds']:.1f} s",
          file=sys.stderr, flush=True)  # fmt: skip
    return found


# --- what follows from them ------------------------------------------------------------------


def line(runs: list[dict]) -> tuple[float, float]:
    """Seconds that a run takes anyway, and seconds of a megapixel, from little and much work."""
    little, much = sorted(runs, key=lambda r: r["pixels"])
    slope = (much["seconds"] - little["seconds"]) / (much["pixels"] - little["pixels"]) * 1e6
    return much["seconds"] - slope * much["pixels"] / 1e6, slope


def scaling_rows(runs: list[dict], job: str) -> list[list]:
    rows, alone = [], None
    for where, (_, cores) in MASTERS.items():
        some = [r for r in runs if r["job"] == job and r["where"] == where]
        fixed, slope = line(some)
        much = max(some, key=lambda r: r["pixels"])
        alone = much["seconds"] if cores == 1 else alone
        rows.append([
            where, *(f"{r['seconds']:.1f}" for r in sorted(some, key=lambda r: r["pixels"])),
            f"{fixed:.1f}", f"{1 / slope / cores:.2f}",
            f"{100 * alone / much['seconds'] / cores:.0f} %",
            f"{100 * (1 - much['task_seconds'] / cores / much['seconds']):.0f} %",
            f"{much['driver_cpu'] / much['tasks'] * 1000:.0f}",
        ])  # fmt: skip
    return rows


def model(runs: list[dict]) -> dict:
    """Constants of the model in docs/SCALING.md, from the runs on one worker."""
    compress = [r for r in runs if r["job"] == "compress" and r["where"] == "1 worker"]
    little, much = sorted(compress, key=lambda r: r["pixels"])
    fixed, slope = line(compress)
    tasks_more = much["tasks"] - little["tasks"]
    pixels_more = much["pixels"] - little["pixels"]
    return {
        "fixed_seconds": fixed + much["start"],
        "megapixels_per_core_second": 1 / slope,
        "driver_seconds_per_megapixel": (much["driver_cpu"] - little["driver_cpu"])
        / pixels_more * 1e6,
        "pixels_per_task": pixels_more / tasks_more,
        "archive_bytes_per_pixel": much["archive_nbytes"] / much["pixels"],
        "result_bytes_per_pixel": (much["result_nbytes"] - little["result_nbytes"]) / pixels_more,
    }  # fmt: skip


def predict(constants: dict, megapixels: float, cores: int) -> float:
    """Seconds to compress so many megapixels, Spark's start included."""
    work = megapixels / constants["megapixels_per_core_second"] / cores
    driver = megapixels * constants["driver_seconds_per_megapixel"]
    return constants["fixed_seconds"] + max(work, driver)


def terabyte_rows(constants: dict) -> tuple[list[list], float]:
    """1 TB of RGB pixels of 8 bits on N workers of 8 cores: hours, and megabytes a second from and
    to storage; and the hours for which the driver itself is busy."""
    megapixels = 1e12 / 3 / 1e6
    nbytes = 1e12 + constants["archive_bytes_per_pixel"] * megapixels * 1e6
    rows = []
    for workers in (1, 2, 4, 8, 16, 32, 64):
        seconds = predict(constants, megapixels, 8 * workers)
        rate = nbytes / 1e6 / seconds
        rows.append([workers, 8 * workers, f"{seconds / 3600:.1f}", f"{rate:.0f}"])
    driver = megapixels * constants["driver_seconds_per_megapixel"] / 3600
    return rows, driver


def report(runs: list[dict]) -> str:
    from bench.report import markdown

    head = ["", "little, s", "much, s", "fixed, s", "MP/s per core", "efficiency",
            "cores idle", "driver CPU ms per task"]  # fmt: skip
    constants = model(runs)
    two = [r for r in runs if r["job"] == "compress" and r["where"] == "2 workers"]
    checks = [
        [f"{r['pixels'] / 1e6:.0f}", f"{predict(constants, r['pixels'] / 1e6, 2):.1f}",
         f"{r['start'] + r['seconds']:.1f}"]
        for r in sorted(two, key=lambda r: r["pixels"])
    ]  # fmt: skip
    terabyte, driver = terabyte_rows(constants)
    trained = [r for r in runs if r["job"] == "train"]
    stages = [
        [r["where"], f"{r['pixels'] / 1e6:.1f}", *(f"{s:.1f}" for s in r["stages"].values()),
         f"{r['shuffle_nbytes'] / 1e6:.0f}", f"{r['sums_nbytes'] / 1e6:.0f}"]
        for r in trained
    ]  # fmt: skip
    parts = [
        "Compressing", markdown(head, scaling_rows(runs, "compress")),
        "Learning", markdown(head, scaling_rows(runs, "train")),
        "Stages of learning, seconds",
        markdown(["", "MP", *trained[0]["stages"], "shuffled MB", "sums to the driver MB"], stages),
        "Model", markdown(["", ""], [[k, f"{v:.3g}"] for k, v in constants.items()]),
        "Two workers, predicted from one",
        markdown(["MP", "predicted, s", "measured, s"], checks),
        f"1 TB of pixels; the driver itself is busy for {driver:.1f} h",
        markdown(["workers", "cores", "hours", "MB/s from and to storage"], terabyte),
    ]  # fmt: skip
    return "\n\n".join(parts)


def copies(folder: Path, into: Path, count: int) -> Path:
    """The folder's pictures, each so many times."""
    into.mkdir()
    for n in range(count):
        for path in sorted(folder.iterdir()):
            if path.is_file():
                shutil.copy(path, into / f"{n}-{path.name}")
    return into


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="pictures, some 10 megapixels in all")
    parser.add_argument("--copies", type=int, default=2, help="of the folder, as much work")
    parser.add_argument("--megapixels", type=float, default=4, help="to learn from, as much work")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for all that was measured")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        job, target, megapixels = options.child
        child(job, options.folder, Path(target), float(megapixels))
        return
    if not options.folder.is_dir():
        sys.exit(f"bench: {options.folder}: no such folder: name one with pictures")
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    runs = []
    with tempfile.TemporaryDirectory() as work:
        folders = {n: copies(options.folder, Path(work) / str(n), n) for n in (1, options.copies)}
        # Fills the caches of compiled code, this checkout's and the executors'.
        for where in ("1 core", "1 worker"):
            run("compress", where, folders[1], 0)
        for where in MASTERS:
            for folder in folders.values():
                runs.append(run("compress", where, folder, 0))
            for share in (4, 1):
                megapixels = math.ceil(options.megapixels / share)
                runs.append(run("train", where, folders[options.copies], megapixels))
    from femto.basis.bases import load_basis

    found = {"runs": runs, "basis_nbytes": len(pickle.dumps(load_basis()))}
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    print(report(runs))


if __name__ == "__main__":
    main()
