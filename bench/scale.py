"""What very many files cost: the job's driver at a million of them, and tiny files coded for real.

    python3 bench/scale.py --files 1000000          the driver alone: nothing is read or coded
    python3 bench/scale.py --files 20000 --real     so many pictures of one pixel, compressed
    python3 bench/scale.py --files 2000 --real --reader driver    the same, fed by the driver

Without --real the files do not exist: the list of them, their headers and their records are made
up, of every hundredth a failure. All else is the job itself: Spark, tasks, names, records, rows and
the report. It runs twice: from nothing, then again over the records of the first run. Memory is the
peak of the resident set of the driver's two processes, Python and Java (Linux); so are
CPU seconds theirs alone.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bench  # noqa: F401  one thread, femto of this checkout


@contextlib.contextmanager
def made_up(count: int):
    """Inside, a job's input is `count` files that do not exist, of one pixel each, and its tasks
    make up what they answer."""
    from femto.job import compressing, plan, tasks

    def require_pictures(folder, *, into, **options):
        for i in range(count):
            into.sources.append(
                plan.Source(f"scans/box {i // 1000:04}/IMG_{i:08}.png", 70 + i % 7, 10**18 + i)
            )
        return into

    def probe_files(settings, batches):
        from dataclasses import asdict

        from femto.pictures.page import PageInfo

        for sources in batches:
            for source in sources:
                yield source.name, [asdict(PageInfo(0, 1, 1, 3, 8))], None

    def compress_pictures(settings, groups):
        from femto.job.tasks import make_record

        facts = {
            "psnr": 47.3, "seconds": 0.01, "archive_bytes": 353, "target_met": None, "notes": [],
            "warnings": [],
        }  # fmt: skip
        for items in groups:
            for item in items:
                picture = item.thing
                if picture.source.name.endswith("99.png"):
                    reason = "its header and its pixels disagree: the file is damaged"
                    yield {"key": picture.archive, "error": reason}
                else:
                    record = make_record(settings, picture, (1, 1, 3), facts)
                    yield {"key": picture.archive, "record": record}

    def is_current(self, record, source):
        return record["source_mtime_ns"] == source.mtime_ns

    with (
        mock.patch.object(plan, "require_pictures", require_pictures),
        mock.patch.object(tasks, "probe_files", probe_files),
        mock.patch.object(tasks, "compress_pictures", compress_pictures),
        mock.patch.object(compressing.Job, "_is_current", is_current),
    ):
        yield


def remember(outcome, output: Path) -> None:
    """Write the records that made-up tasks have not written."""
    from femto.job.records import append_record

    for row in outcome.rows:
        if row["status"] == "done":
            append_record(output, row)


def peak(pid: int | str) -> int:
    """Maximum resident set of a process so far, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def cpu_seconds(pid: int | str) -> float:
    """CPU time of a process so far, without that of its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def child(options, work: Path) -> None:
    """One run in this process; prints what it took, as JSON."""
    from femto.job.compressing import Job, Options
    from femto_spark import session
    from femto_spark.runner import SparkRunner

    context = session.start("femto scale")
    java = context._jvm.java.lang.ProcessHandle.current().pid()
    output = work / "out"
    wanted = Options(
        work / "in", output, reader=options.reader, report=options.report, verify=False, quiet=True
    )
    began = time.perf_counter()
    with contextlib.ExitStack() as stack:
        if not options.real:
            stack.enter_context(made_up(options.files))
        outcome = Job(wanted, partial(SparkRunner, context)).run()
    found = {
        "seconds": time.perf_counter() - began,
        "cpu": cpu_seconds("self") + cpu_seconds(java),
        "python": peak("self"),
        "java": peak(java),
        **{status: outcome.count(status) for status in ("done", "skipped", "failed")},
        "written": {p.name: p.stat().st_size for p in outcome.reports},
    }
    if not options.real:
        remember(outcome, output)
    context.stop()
    print(json.dumps(found))


def run(options, work: Path) -> dict:
    """One run in a fresh process: what `child` tells."""
    words = ["--files", str(options.files), "--reader", options.reader, "--child", str(work)]
    words += ["--real"] if options.real else []
    words += [] if options.report else ["--no-report"]
    done = subprocess.run(
        [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"bench: a run ended with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def report(files: int, runs: dict[str, dict]) -> str:
    from bench.report import markdown

    head = ["", "seconds", "CPU s", "ms a file", "Python, MB", "Java, MB", "compressed",
            "unchanged", "failed"]  # fmt: skip
    rows = [
        [name, f"{r['seconds']:.0f}", f"{r['cpu']:.0f}", f"{1000 * r['seconds'] / files:.2f}",
         f"{r['python'] / 1e6:.0f}", f"{r['java'] / 1e6:.0f}", r["done"], r["skipped"], r["failed"]]
        for name, r in runs.items()
    ]  # fmt: skip
    last = list(runs.values())[-1]
    sizes = ", ".join(f"{name} {n / 1e6:.1f} MB" for name, n in last["written"].items())
    return f"{files} files\n\n{markdown(head, rows)}\n\n{sizes or 'no report'}"


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000, help="how many (default: 100000)")
    parser.add_argument("--real", action="store_true", help="files of one pixel, coded for real")
    parser.add_argument(
        "--reader", choices=("auto", "driver"), default="auto", help="who reads them"
    )
    parser.add_argument(
        "--no-report", dest="report", action="store_false", help="without report.html and the like"
    )
    parser.add_argument("-o", "--output", type=Path, help="JSON file for all that was measured")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if options.child:
        child(options, options.child)
        return
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "in").mkdir()
        if options.real:
            from PIL import Image

            for i in range(options.files):
                colour = (i % 256, i // 256 % 256, 128)
                Image.new("RGB", (1, 1), colour).save(work / "in" / f"{i:07}.png")
        runs = {"from nothing": run(options, work), "again": run(options, work)}
    if options.output:
        options.output.write_text(
            json.dumps({"files": options.files, "runs": runs}, indent=1) + "\n"
        )
    print(report(options.files, runs))


if __name__ == "__main__":
    main()
