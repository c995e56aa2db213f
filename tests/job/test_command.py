"""The command line as people use it: exit statuses, messages, interruption."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pyspark
import pytest
from job_tools import (
    HANGS,
    JOB,
    archives,
    assert_plain_error,
    command,
    command_here,
    environment,
    errors,
    picture,
    rows,
    save,
)

import compress
import femto
from femto.job.records import Records

SPARK_SUBMIT = Path(pyspark.__file__).parent / "bin" / "spark-submit"


def test_spark_submit_from_images_to_images_out(tmp_path):
    pixels = picture(40, 50, 1)
    save(tmp_path / "images" / "a b.png", pixels)
    (tmp_path / "images" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "images" / "notes.txt").touch()
    (tmp_path / "images" / "more").mkdir()
    done = subprocess.run(
        [SPARK_SUBMIT, JOB / "compress.py"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=HANGS,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    output = tmp_path / "images_out"
    assert archives(output) == {"a b.laff.gz": femto.encode(pixels, source="a b.png")}
    table = rows(output)
    assert table["a b.png"]["status"] == "done" and float(table["a b.png"]["psnr_db"]) > 20
    assert table["broken.png"]["status"] == "failed"
    assert "1 compressed, 0 unchanged, 1 failed\n" in done.stdout
    left_out = "left out: 1 other file (1 .txt), 1 sub-folder (--recursive includes them)\n"
    assert left_out in done.stdout
    assert "failed: broken.png: " in done.stdout
    assert "data:image/webp" in (output / "report.html").read_text()
    # Spark is quiet: what the JVM says before this program runs cannot be helped.
    noise = [x for x in done.stderr.splitlines() if "INFO" in x or "ERROR" in x or "\tat " in x]
    assert noise == []
    # No part of a file is left, and no token of the job.
    left = [p.name for p in output.rglob("*") if p.suffix == ".part" or "token" in p.name]
    assert left == []


BAD = {
    "missing folder": (["--input", "nowhere"], ["nowhere", "--input"]),
    "file as input": (["--input", "file"], ["file", "folder"]),
    "unreadable folder": (["--input", "loop"], ["loop", "cannot be read"]),
    "empty folder": (["--input", "empty"], ["empty", "no pictures", "--input"]),
    "only other files": (["--input", "texts"], ["texts", "no pictures"]),
    "only sub-folders": (["--input", "deep"], ["deep", "--recursive"]),
    "output is a file": (["--output", "file"], ["file", "--output"]),
    "output below a file": (["--output", "file/out"], ["file/out", "--output"]),
    "output not writable": (["--output", "/proc/femto_out"], ["/proc/femto_out", "--output"]),
    "two targets": (["--quality", "3", "--ratio", "9"], ["--ratio", "not allowed with"]),
    "quality 0": (["--quality", "0"], ["quality", "1", "100"]),
    "quality 101": (["--quality", "101"], ["quality", "1", "100"]),
    "quality nan": (["--quality", "nan"], ["quality"]),
    "quality word": (["--quality", "best"], ["--quality", "best"]),
    "ratio 1": (["--ratio", "1"], ["ratio", "more than 1"]),
    "psnr 500": (["--psnr", "500"], ["psnr"]),
    "unknown basis": (["--basis", "nosuch"], ["nosuch"]),
    "unknown option": (["--fast"], ["--fast", "--help"]),
    "stray word": (["pictures"], ["pictures", "--help"]),
    "negative size": (["--cut-above", "-1"], ["--cut-above"]),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_done_is_said_in_one_line(case, tmp_path):
    arguments, words = BAD[case]
    save(tmp_path / "images" / "a.png", picture(8, 8, 1))
    save(tmp_path / "deep" / "sub" / "a.png", picture(8, 8, 1))
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").touch()
    # As programs of their own: one that the parser refuses, and one that is refused later.
    if case in ("unknown option", "missing folder"):
        done = command(*arguments, cwd=tmp_path)
    else:
        done = command_here(compress.main, *arguments, cwd=tmp_path)
    assert_plain_error(done, *words)
    assert not (tmp_path / "images_out").exists() or not archives(tmp_path / "images_out")


def test_no_pyspark(tmp_path):
    save(tmp_path / "images" / "a.png", picture(8, 8, 1))
    (tmp_path / "pyspark.py").write_text("raise ImportError('absent')")
    failed = command(cwd=tmp_path, env=environment() | {"PYTHONPATH": str(tmp_path)})
    assert_plain_error(failed, "pyspark", "pip install")


def test_no_java(tmp_path):
    save(tmp_path / "images" / "a.png", picture(8, 8, 1))
    failed = command(cwd=tmp_path, env=environment() | {"JAVA_HOME": str(tmp_path)})
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
    assert "JAVA_HOME" in failed.stderr.splitlines()[-1]


def changed_program(folder: Path, open_page: str) -> Path:
    """A copy of the program below the folder, whose `open_page` does first what is given."""
    copy = folder / "femto_job"
    shutil.copytree(JOB, copy, ignore=shutil.ignore_patterns(".part-*", "__pycache__"))
    with open(copy / "femto" / "pictures" / "__init__.py", "a") as file:
        file.write(
            "\n_open = open_page\n"
            "def open_page(source, page=0, **options):\n"
            "    import ctypes, glob, os, time\n"
            "    name = options['name']\n"
            f"    {open_page}\n"
            "    return _open(source, page, **options)\n"
        )
    return copy


COUNT = 8


@pytest.fixture(scope="module")
def held_program(tmp_path_factory) -> Path:
    """The program, but it opens no picture while there are archives and the file `hold`."""
    copy = changed_program(
        tmp_path_factory.mktemp("held"),
        "while glob.glob('images_out/*.laff.gz') and os.path.exists('hold'): time.sleep(0.05)",
    )
    limits = copy / "femto" / "job" / "sandbox.py"
    limits.write_text(limits.read_text().replace("BASE_SECONDS = 60", f"BASE_SECONDS = {HANGS}"))
    return copy


WAYS = {"compress.py": ["compress.py"], "femto compress": ["-m", "femto", "compress"]}
"""On Spark, and on the processes of this machine."""


@pytest.fixture(params=WAYS)
def start_held_job(request, tmp_path, held_program):
    """Start a job that does some of its pictures, and waits with the others for its end."""
    (program, *words) = WAYS[request.param]
    program = held_program / program if program.endswith(".py") else program
    processes = []
    for i in range(COUNT):
        save(tmp_path / "images" / f"{i}.png", picture(40, 50, i))
    (tmp_path / "hold").touch()

    def start(*arguments) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, program, *words, *arguments],
            cwd=tmp_path, env=environment() | {"PYTHONPATH": held_program},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
            # Also where the tests run in the background, which ignores it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        processes.append(process)
        end = time.monotonic() + HANGS
        while not list(tmp_path.glob("images_out/*.laff.gz")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end, "no picture is done"
            time.sleep(0.02)
        return process

    yield start
    (tmp_path / "hold").unlink()
    for process in processes:
        process.kill()
        process.communicate()


def test_a_killed_job_goes_on_where_it_was(start_held_job, tmp_path):
    output = tmp_path / "images_out"
    process = start_held_job("--no-report")
    process.kill()
    process.communicate()
    made = {p.name: p.stat().st_ino for p in output.glob("*.laff.gz")}
    assert 1 <= len(made) < COUNT
    (output / ".femto-left.part").write_bytes(b"half an archive")
    again = command(cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    table = rows(output)
    assert len(table) == COUNT
    for name, inode in made.items():
        assert table[name.replace(".laff.gz", ".png")]["status"] == "skipped"
        assert (output / name).stat().st_ino == inode
    assert sum(r["status"] == "done" for r in table.values()) > 0
    assert not list(output.rglob("*.part"))
    for i in range(COUNT):
        assert (output / f"{i}.laff.gz").read_bytes() == femto.encode(
            picture(40, 50, i), source=f"{i}.png"
        )


def test_an_interrupted_job_says_so_in_one_line(start_held_job, request, tmp_path):
    process = start_held_job()
    way = request.node.callspec.params["start_held_job"]
    if way == "compress.py":
        process.send_signal(signal.SIGINT)
    else:  # as a terminal does it
        os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=HANGS)
    assert process.returncode == 130, err
    ended = subprocess.CompletedProcess([], 130, out, err)
    assert errors(ended) == [f"{way}: interrupted; the same command goes on where it was"]
    assert "Traceback" not in out
    if way == "femto compress":
        assert not list((tmp_path / "images_out").rglob("*.part"))
        while True:  # its processes are gone, or about to go
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                break
            time.sleep(0.05)


def test_a_worker_that_dies_costs_only_its_picture(tmp_path):
    """A copy of the program whose decoders kill who asked them for some pictures."""
    copy = changed_program(tmp_path, "if 'poison' in name: os.kill(os.getppid(), 9)")
    for name in ("a.png", "poison.png", "b.png", "more poison.png", "c.png"):
        save(tmp_path / "images" / name, picture(20, 20, 1))
    done = command(
        "femto", "compress", program="-m", cwd=tmp_path, env=environment() | {"PYTHONPATH": copy}
    )
    assert done.returncode == 1, done.stderr
    table = rows(tmp_path / "images_out")
    died = {
        name for name, row in table.items() if "died again when it was tried alone" in row["error"]
    }
    assert died == {"poison.png", "more poison.png"}
    assert {n for n, r in table.items() if r["status"] == "done"} == {"a.png", "b.png", "c.png"}
    assert errors(done) == []


def test_two_jobs_on_one_output(tmp_path):
    save(tmp_path / "images" / "a.png", picture(8, 8, 1))
    with Records(tmp_path / "images_out"):
        done = command_here(compress.main, cwd=tmp_path)
    assert_plain_error(done, "images_out", "another job", "--output")


def test_decoders_that_crash_or_hang_cost_one_row(tmp_path):
    """A copy of the program whose decoders crash and hang on some files."""
    copy = changed_program(
        tmp_path,
        "if 'crash' in name: os.write(2, b'libpng error\\n'); ctypes.string_at(0)\n"
        "    while 'hang' in name: time.sleep(1)",
    )
    # Only what hangs is short of time, on a busy machine too.
    limits = copy / "femto" / "job" / "sandbox.py"
    text = limits.read_text()
    assert "seconds = self._seconds +" in text
    short = "seconds = 3 if 'hang' in request.get('name', '') else self._seconds +"
    limits.write_text(text.replace("seconds = self._seconds +", short))
    for name in ("crash.png", "good.png", "hang.png", "good too.png"):
        save(tmp_path / "images" / name, picture(20, 20, 1))
    done = command(program=copy / "compress.py", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert errors(done) == []
    table = rows(tmp_path / "images_out")
    assert {n: r["status"] for n, r in table.items()} == {
        "crash.png": "failed", "good.png": "done", "hang.png": "failed", "good too.png": "done"
    }  # fmt: skip
    assert "SIGSEGV" in table["crash.png"]["error"]
    assert "more than 3 s" in table["hang.png"]["error"]


def test_a_full_disk(tmp_path):
    output = tmp_path / "images_out"
    output.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", output], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        noise = np.random.default_rng(1)
        for i in range(10):
            save(
                tmp_path / "images" / f"{i}.png",
                noise.integers(0, 255, (100, 100, 3), dtype=np.uint8),
            )
        failed = command("--quality", "95", "--no-report", cwd=tmp_path)
        assert_plain_error(failed, "images_out", "No space left on device", "again")
        for data in archives(output).values():
            assert femto.decode(data).shape == (100, 100, 3)
        assert not [p for p in output.rglob("*.part")]
        subprocess.run(["mount", "-o", "remount,size=20m", output], check=True)
        again = command("--quality", "95", "--no-report", cwd=tmp_path)
        assert again.returncode == 0, again.stderr
        assert len(archives(output)) == 10
    finally:
        subprocess.run(["umount", output], check=True)


@pytest.mark.parametrize("way", WAYS)
def test_a_fault_of_the_driver_is_one_line_and_a_status_of_its_own(tmp_path, way):
    """A copy of the program whose driver has a fault, after some pictures are done."""
    for i in range(3):
        save(tmp_path / "images" / f"{i}.png", picture(20, 20, i))
    copy = tmp_path / "femto_job"
    shutil.copytree(JOB, copy, ignore=shutil.ignore_patterns(".part-*", "__pycache__"))
    program = copy / "femto" / "job" / "compressing.py"
    text = program.read_text()
    assert "    def take(" in text
    with open(program, "a") as file:
        file.write("\n\ndef _fault(*_):\n    raise KeyError('un\\nforeseen')\nJob.take = _fault\n")
    (start, *words) = WAYS[way]
    start = copy / start if start.endswith(".py") else start

    def run() -> subprocess.CompletedProcess:
        here = environment() | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(copy)}
        return command(*words, program=start, cwd=tmp_path, env=here)

    failed = run()
    assert_plain_error(failed, f"{way}: a fault of femto: KeyError", "goes on", status=3)
    (log,) = tmp_path.glob("femto-fault-*.log")
    assert str(log) in failed.stderr and "Traceback" in log.read_text()
    program.write_text(text)
    again = run()
    assert again.returncode == 0, again.stderr
    assert "unchanged, 0 failed" in again.stdout and "3 compressed" not in again.stdout


def test_quiet(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "broken.png").touch()
    done = command("--quiet", cwd=tmp_path)
    assert_plain_error(done, "broken.png", status=1)
    assert done.stdout == ""


def test_help_tells_the_exit_statuses(tmp_path):
    done = command_here(compress.main, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "exit status" in done.stdout and os.fspath("images_out") in done.stdout


HIDE = """
import os, sys
from importlib.machinery import PathFinder
class Visible(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name not in os.environ["HIDDEN"].split(","):
            return super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Visible
"""


def test_it_needs_no_more_than_run_sh_installs(tmp_path):
    """Other packages that happen to be here are hidden from all of the job's processes."""
    lines = re.findall(r"^femto_python (.+)$", (JOB.parent / "run.sh").read_text(), re.M)
    known = {_plain(d.metadata["Name"]): d for d in metadata.distributions()}
    wanted, left = set(), [_plain(name) for line in lines for name in line.split()]
    while left:
        name = left.pop()
        if name in known and name not in wanted:
            wanted.add(name)
            needs = (r for r in known[name].requires or () if "extra ==" not in r)
            left += [_plain(re.match(r"[\w.-]+", need)[0]) for need in needs]
    assert {"numpy", "pyspark"} <= wanted < set(known)
    hidden = [
        module
        for module, owners in metadata.packages_distributions().items()
        if module.isidentifier() and not {_plain(owner) for owner in owners} & wanted
    ]
    assert "pytest" in hidden
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HIDE)
    save(tmp_path / "in" / "a.png", picture(20, 30, 1))
    done = subprocess.run(
        [sys.executable, JOB / "compress.py", "--input", "in", "--output", "out"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "hook"), "HIDDEN": ",".join(hidden)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 compressed" in done.stdout
    assert (tmp_path / "out" / "report.parquet").is_file()


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
