"""pyspark.sh says clearly what is missing. The server itself: tests/cluster/test_jupyter.py."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NODE = "SPARK_LOCAL_IP={own}\nSPARK_MASTER_HOST=192.0.2.10\nMASTER=spark://192.0.2.10:7077\n"


@pytest.fixture
def settings(tmp_path) -> Path:
    """A host's /etc, of a worker unless a test changes it."""
    (tmp_path / "etc" / "spark").mkdir(parents=True)
    (tmp_path / "etc" / "spark" / "node.env").write_text(NODE.format(own="192.0.2.11"))
    return tmp_path / "etc"


def says(settings: Path, *arguments: str, commands: dict[str, str] | None = None) -> str:
    """The one line with which pyspark.sh fails; `commands` are fakes of the system's."""
    fakes = settings.parent / "fakes"
    fakes.mkdir(exist_ok=True)
    for name, text in (commands or {}).items():
        (fakes / name).write_text(f"#!/bin/sh\n{text}\n")
        (fakes / name).chmod(0o755)
    done = subprocess.run(
        [ROOT / "pyspark.sh", *arguments],
        env={
            "PATH": f"{fakes}:{os.environ['PATH']}",
            "FEMTO_ETC": str(settings),
            "FEMTO_VENV": str(settings.parent / "no environment"),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def master(settings: Path) -> None:
    (settings / "spark" / "node.env").write_text(NODE.format(own="192.0.2.10"))


def test_on_a_worker_it_names_the_master(settings):
    assert "this host is a worker: run it on the master, 192.0.2.10" in says(settings)


def test_on_a_master_without_jupyter_it_says_what_installs_it(settings):
    master(settings)
    assert "not installed on this master: run site.yml" in says(settings)


def test_on_a_master_it_wants_root_and_the_running_master(settings):
    master(settings)
    (settings / "jupyter").mkdir()
    (settings / "jupyter" / "server.py").touch()
    assert "you are not root" in says(settings, commands={"id": "echo 1000"})
    stopped = {"id": "echo 0", "systemctl": "exit 3"}
    assert "the cluster's master does not run: startmaster" in says(settings, commands=stopped)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "web"], "web is no port"),
        (["--port"], "--port wants a number"),
        (["notebook.ipynb"], "unknown argument notebook.ipynb"),
    ],
)
def test_wrong_arguments_are_refused(settings, arguments, said):
    assert said in says(settings, *arguments)


def test_help_is_the_comment_at_its_top():
    done = subprocess.run([ROOT / "pyspark.sh", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("Start JupyterLab with PySpark") and "--local" in done.stdout
