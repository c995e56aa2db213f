"""Where no engine can run, the lab says why in one line and ends with status 3. Needs no hosts."""

import os
import subprocess

import pytest
from lab import ENGINE


def engine(folder, *arguments, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [ENGINE, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"LAB_CACHE": str(folder / "cache")} | environment,
    )


@pytest.fixture
def broken(tmp_path):
    """A PATH whose podman and docker fail, and whose user is not root."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, script in {"podman": "exit 1", "docker": "exit 1", "id": "echo 1000"}.items():
        (commands / name).write_text(f"#!/bin/sh\n{script}\n")
        (commands / name).chmod(0o755)
    return f"{commands}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ("docker", "docker does not run here"),
        ("lxc", "$LAB_ENGINE is podman or docker, not lxc"),
        ("podman", "neither podman nor docker runs here"),
        ("", "neither podman nor docker runs here"),
    ],
)
def test_no_engine_is_told_in_one_line(tmp_path, broken, chosen, said):
    done = engine(tmp_path, "--prepare", LAB_ENGINE=chosen, PATH=broken)
    assert done.returncode == 3, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert said in line


def test_commands_want_a_prepared_engine(tmp_path):
    done = engine(tmp_path, "ps")
    assert done.returncode == 3
    assert "--prepare" in done.stderr
