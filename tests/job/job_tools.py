"""What the tests of the Spark job use: small pictures, the command line, a real cluster."""

import contextlib
import csv
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

JOB = Path(__file__).resolve().parents[2] / "femto_job"
# What takes longer than this hangs, on the busiest machine.
HANGS = 1800


def picture(height: int, width: int, seed: int, *, channels: int = 3) -> np.ndarray:
    """A smooth synthetic picture with some texture, (h, w) or (h, w, 3) uint8."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = []
    for _ in range(channels):
        fy, fx, phase = random.uniform(0.01, 0.12, 3)
        plane = 128 + 70 * np.sin(fy * y + phase) * np.cos(fx * x) + random.normal(0, 4, y.shape)
        planes.append(plane)
    pixels = np.clip(np.rint(np.stack(planes, -1)), 0, 255).astype(np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    """Write a picture file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def environment() -> dict:
    """The environment of a command: this Python everywhere, nothing of the caller's Spark."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("SPARK_", "PYSPARK_"))}
    return keep | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}


def command(*arguments, program: Path = JOB / "compress.py", **options):
    """Run compress.py as a person would, on two cores; the finished process with its text."""
    return subprocess.run(
        [sys.executable, program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=HANGS,
        **{"env": environment(), **options},
    )


def command_here(main, *arguments, cwd: Path) -> subprocess.CompletedProcess:
    """The same by the program's `main` in this process, which saves the seconds of a start."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    folder, on_term = os.getcwd(), signal.getsignal(signal.SIGTERM)
    os.chdir(cwd)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(list(map(str, arguments)))
    except SystemExit as end:
        status = end.code
    finally:
        os.chdir(folder)
        signal.signal(signal.SIGTERM, on_term)
    texts = (stream.buffer.getvalue().decode() for stream in (out, err))
    return subprocess.CompletedProcess(arguments, status, *texts)


def rows(output: Path) -> dict[str, dict]:
    """The rows of report.csv by picture (and page, for pages after the first)."""
    with open(output / "report.csv", newline="", encoding="utf-8") as file:
        return {
            r["picture"] + ("" if r["page"] == "1" else f"#{r['page']}"): r
            for r in csv.DictReader(file)
        }


def archives(output: Path) -> dict[str, bytes]:
    """All archives below a folder, by their path."""
    return {p.relative_to(output).as_posix(): p.read_bytes() for p in output.rglob("*.laff.gz")}


def errors(process) -> list[str]:
    """The lines on stderr, without those that a slow machine gets to see of the progress."""
    lines = process.stderr.splitlines()
    return [line for line in lines if line and not re.match(r"\d\d:\d\d:\d\d ", line)]


def assert_plain_error(process, *words: str, status: int = 2) -> None:
    """One line on stderr that has these words, the exit status, no stack trace."""
    assert process.returncode == status, process.stderr
    lines = errors(process)
    assert len(lines) == 1, process.stderr
    assert "Traceback" not in process.stdout + process.stderr
    for word in words:
        assert word in lines[0]


class Cluster:
    """A standalone master and two workers of one core each, as processes on 127.0.0.1.

    Used in a with statement: they run inside of it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.processes: list[subprocess.Popen] = []

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *raised):
        self._stop()

    def _start(self) -> None:
        import pyspark

        home = Path(pyspark.__file__).parent
        conf = self.folder / "conf"
        conf.mkdir()
        (conf / "spark-defaults.conf").write_text("spark.master.rest.enabled false\n")
        self.env = environment() | {
            "SPARK_HOME": str(home),
            "SPARK_CONF_DIR": str(conf),
            "SPARK_LOCAL_DIRS": str(self.folder / "local"),
            "SPARK_DAEMON_MEMORY": "256m",
        }
        port = free_port()
        self.url = f"spark://127.0.0.1:{port}"
        self._spawn(home, "master", "Master", "--port", str(port), "--webui-port", "0")
        self._wait("master", "I have been elected leader")
        for name in ("worker-1", "worker-2"):
            work = self.folder / name
            work.mkdir()
            self._spawn(
                home, name, "Worker", "--cores", "1", "--memory", "1g", "--webui-port", "0",
                "--work-dir", str(work), self.url, cwd=work,
            )  # fmt: skip
        for name in ("worker-1", "worker-2"):
            self._wait(name, "Successfully registered with master")

    def _spawn(self, home: Path, name: str, kind: str, *arguments: str, cwd=None) -> None:
        with open(self.folder / f"{name}.log", "wb") as log:
            self.processes.append(
                subprocess.Popen(
                    [home / "bin" / "spark-class",
                     f"org.apache.spark.deploy.{kind.lower()}.{kind}",
                     "--host", "127.0.0.1", *arguments],
                    env=self.env, cwd=cwd or self.folder, stdout=log, stderr=log,
                    start_new_session=True,
                )
            )  # fmt: skip

    def _wait(self, name: str, text: str) -> None:
        end = time.monotonic() + HANGS
        while True:
            running = all(p.poll() is None for p in self.processes)
            log = (self.folder / f"{name}.log").read_text(errors="replace")
            if re.search(text, log):
                return
            assert running and time.monotonic() < end, f"{name} does not say {text!r}:\n{log}"
            time.sleep(0.1)

    def submit(self, *arguments, conf: dict | None = None, program=JOB / "compress.py", **options):
        """spark-submit compress.py to this cluster."""
        import pyspark

        settings = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.executor.memory": "512m",
            **(conf or {}),
        }
        pairs = [x for k, v in settings.items() for x in ("--conf", f"{k}={v}")]
        return subprocess.run(
            [Path(pyspark.__file__).parent / "bin" / "spark-submit", "--master", self.url,
             *pairs, program, *map(str, arguments)],
            env=self.env, capture_output=True, text=True, timeout=HANGS, **options,
        )  # fmt: skip

    def _stop(self) -> None:
        for process in reversed(self.processes):
            os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
