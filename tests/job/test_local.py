"""femto compress without Spark: the same job on the processes of this machine."""

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest
import tifffile
from job_tools import JOB, archives, picture, rows, save
from test_restore_job import Kept
from test_runner import Numbers

from femto import __main__ as command
from femto import cli
from femto.cli import compress
from femto.job.local import DIED, LocalRunner
from femto.job.records import Records
from femto_spark.runner import SparkRunner


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of several kinds, one of them shared by tasks, one of several pages, two broken."""
    here = tmp_path_factory.mktemp("pictures") / "in"
    for i in range(5):
        save(here / f"small {i}.png", picture(40, 50 + i, i))
    save(here / "sub" / "grey.tif", picture(50, 60, 77, channels=1))
    save(here / "wide.png", picture(24, 3 * 1024, 99))
    with tifffile.TiffWriter(here / "pages.tif") as tif:
        for i in range(2):
            tif.write(picture(30, 40, i), metadata=None)
    (here / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (here / "empty.png").touch()
    (here / "notes.txt").touch()
    return here


WORDS = ("--psnr", "36", "--cut-above", "0.05", "--recursive")


def locally(folder, output, *more) -> int:
    return command.main(["compress", str(folder), str(output), "-j", "2", *WORDS, *more])


def on_spark(context, folder, output) -> int:
    words = ["--input", str(folder), "--output", str(output), *WORDS]
    options = cli.parse(compress, "compress.py", words)
    return compress.run(options, partial(SparkRunner, context))


VARYING = ("run", "seconds", "cpu_seconds", "verify_seconds")


def remembered(output) -> dict[str, dict]:
    """The records, without what differs from run to run."""
    with Records(output) as records:
        return {
            record["archive"]: {k: v for k, v in record.items() if k not in VARYING}
            for record in records
        }


def table(output) -> dict[str, dict]:
    return {name: row | dict.fromkeys(VARYING) for name, row in rows(output).items()}


def test_it_makes_what_spark_makes_and_either_goes_on_where_the_other_was(
    context, folder, tmp_path, capsys, monkeypatch
):
    here, there = tmp_path / "here", tmp_path / "there"
    assert locally(folder, here) == 1
    said = capsys.readouterr().out
    assert "9 compressed, 0 unchanged, 2 failed" in said and "on 2 cores" in said
    assert on_spark(context, folder, there) == 1
    assert capsys.readouterr().out.splitlines()[0] == said.splitlines()[0]
    assert len(archives(here)) == 9 and archives(here) == archives(there)
    assert table(here) == table(there)
    assert remembered(here) == remembered(there) and len(remembered(here)) == 9
    names = [sorted(p.name for p in output.iterdir()) for output in (here, there)]
    assert names[0] == names[1]
    with open(here / "failures.csv", newline="") as one, open(there / "failures.csv") as other:
        assert list(csv.reader(one)) == list(csv.reader(other))
    assert locally(folder, there) == 1
    assert "0 compressed, 9 unchanged, 2 failed" in capsys.readouterr().out
    (here / "small 1.laff.gz").unlink()
    monkeypatch.setattr("femto_spark.session.start", lambda *_, **__: Kept(context))
    assert locally(folder, here, "--master", "local[2]") == 1
    assert "1 compressed, 8 unchanged, 2 failed" in capsys.readouterr().out
    assert archives(here) == archives(there)


def test_what_the_driver_reads_becomes_the_same(folder, tmp_path):
    assert locally(folder, tmp_path / "seen") == locally(
        folder, tmp_path / "fed", "--reader", "driver"
    )
    assert archives(tmp_path / "seen") == archives(tmp_path / "fed")


def test_a_basis_from_a_file(folder, tmp_path, own_basis):
    few = tmp_path / "in"
    save(few / "a.png", picture(40, 50, 1))
    assert locally(few, tmp_path / "out", "--basis", str(own_basis)) == 0
    assert locally(few, tmp_path / "photo") == 0
    assert archives(tmp_path / "out") != archives(tmp_path / "photo")


def test_it_needs_neither_pyspark_nor_java(folder, tmp_path):
    (tmp_path / "pyspark.py").write_text("raise ImportError('absent')")
    code = (
        "import sys\n"
        "from femto.__main__ import main\n"
        "if __name__ == '__main__':\n"
        f"    status = main(['compress', {str(folder)!r}, 'out', *{WORDS!r}])\n"
        "    print(status, [m for m in sys.modules if m.startswith(('pyspark', 'femto_spark'))])\n"
    )
    (tmp_path / "main.py").write_text(code)
    done = subprocess.run(
        [sys.executable, tmp_path / "main.py"],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "JAVA_HOME"}
        | {"PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(tmp_path), str(JOB)])},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "1 []", done.stderr
    assert len(archives(tmp_path / "out")) == 9


@pytest.mark.parametrize("package", ["pyarrow", "scipy"])
def test_only_the_report_needs_more_than_the_codec(folder, tmp_path, monkeypatch, capsys, package):
    (tmp_path / f"{package}.py").write_text("raise ImportError('absent')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setitem(sys.modules, package, None)
    assert locally(folder, tmp_path / "out") == 2
    assert f"{package} is not installed here" in capsys.readouterr().err
    assert locally(folder, tmp_path / "out", "--no-report") == 1
    assert len(archives(tmp_path / "out")) == 9


def test_spark_that_is_missing_is_told(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyspark", None)
    assert locally(folder, tmp_path / "out", "--master", "local[2]") == 2
    assert "femto compress: pyspark is not installed" in capsys.readouterr().err


# --- the runner ------------------------------------------------------------------------------


def echo(groups):
    """Give every thing back, but die of poison."""
    for items in groups:
        for item in items:
            if item.thing.startswith("poison"):
                os.kill(os.getpid(), signal.SIGKILL)
            if item.thing == "fault":
                raise KeyError("un\nforeseen")
            yield {"key": item.thing, "data": item.payload}


def sleepy(groups):
    for items in groups:
        for item in items:
            time.sleep(600 if item.thing == "long" else 0)
            yield {"key": item.thing}


def test_what_kills_its_process_costs_only_itself(folders):
    names = [str(i) for i in range(400)] + ["poison", "fault"] + [f"late {i}" for i in range(200)]
    groups = [names[i : i + 50] for i in range(0, len(names), 50)]
    work = Numbers(echo)
    with LocalRunner(folders, jobs=2) as one:
        one.run(one.batches(groups, work))
    assert sorted(work.taken) == sorted(set(names) - {"poison", "fault"})
    assert work.failed["poison"] == DIED
    assert "KeyError" in work.failed["fault"] and "\n" not in work.failed["fault"]


def test_things_are_fed_in_portions(folders):
    work = Numbers(echo, nbytes=20 << 20)
    with LocalRunner(folders, jobs=2, reader="driver") as one:
        one.run(one.batches([[str(i)] for i in range(20)], work))
    assert len(work.taken) == 20


def test_an_end_ends_the_processes(folders):
    """As of a full disk: nobody waits for what is under way."""
    work = Numbers(sleepy)
    with LocalRunner(folders, jobs=2) as one:
        timer = threading.Timer(3, lambda: one.stop(cli.JobError("enough")))
        timer.start()
        began = time.monotonic()
        with pytest.raises(cli.JobError, match="enough"):
            one.run(one.batches([["long"], ["a"], ["long"]], work))
        assert time.monotonic() - began < 500
    timer.join()
