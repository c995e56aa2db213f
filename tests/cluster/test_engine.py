"""Where no engine can run, the lab says why in one line and ends with status 3; what it keeps is
what the pins want. Needs no hosts."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from lab import ENGINE


def engine(folder, *arguments, **environment) -> subprocess.CompletedProcess:
    # The fixture `lab` of other tests has chosen an engine for its process.
    mine = {name: value for name, value in os.environ.items() if not name.startswith("LAB_")}
    return subprocess.run(
        [ENGINE, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=mine | {"LAB_CACHE": str(folder / "cache")} | environment,
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


# What an engine or the machine answers, and what shall be said of it.
ROOTLESS = "case $* in *Rootless*) echo 'v2 rootless=true' ;; *) echo v2 ;; esac"
DENIED = "echo 'permission denied while trying to connect to the Docker daemon socket' >&2; exit 1"
NOTICED = {
    "podman without root": ({"podman": ROOTLESS}, "podman runs without root here"),
    "docker without root": (
        {"docker": "echo 'v2 rootless=[name=seccomp name=rootless]'"},
        "docker runs without root here",
    ),
    "docker of others": ({"docker": DENIED}, "docker runs, but .* may not use it"),
    "another system": ({"uname": "echo Darwin"}, "the lab needs Linux, and this is Darwin"),
    "a full disk": ({"df": "echo Avail; echo 100"}, "has 100 MB free"),
}


@pytest.mark.parametrize("case", NOTICED)
def test_what_a_contributor_lacks_is_told_in_one_line(tmp_path, broken, case):
    commands, said = NOTICED[case]
    for name, script in commands.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    done = engine(tmp_path, "--prepare", PATH=broken)
    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.splitlines()
    assert re.search(said, line)


def test_a_cache_that_cannot_be_written_is_told(tmp_path, broken):
    (tmp_path / "file").touch()
    done = engine(tmp_path, "--prepare", PATH=broken, LAB_CACHE=str(tmp_path / "file"))
    assert done.returncode == 3
    assert "LAB_CACHE" in done.stderr


def test_commands_want_a_prepared_engine(tmp_path):
    done = engine(tmp_path, "ps")
    assert done.returncode == 3
    assert "--prepare" in done.stderr


def test_a_wheel_of_spark_that_is_pinned_no_more_goes(tmp_path):
    """A wheel is kept by the hash of the source that it was built of: another is never taken."""
    copy = tmp_path / "molecule/shared/engine"
    copy.parent.mkdir(parents=True)
    shutil.copy(ENGINE, copy)
    locks = tmp_path / "roles/scipy/files/locks"
    locks.mkdir(parents=True)
    new, older, old = ("8" * 64, "7" * 64, "4" * 64)
    for python, version, source in (("3.12", "8.1.0", new), ("3.10", "7.9.9", older)):
        (locks / f"{python}.txt").write_text(
            f"pip==1 \\\n    --hash=sha256:1\n"
            f"pyspark=={version} \\\n    --hash=sha256:{source}\nrawpy==1 \\\n    --hash=sha256:0\n"
        )
    # An engine that is content with everything, and a pip that builds what it was asked for.
    commands = tmp_path / "bin"
    commands.mkdir()
    wheels = tmp_path / "cache/wheels"
    scripts = {
        "podman": "echo v2",
        "python": f"""\
case "$*" in
    *"pip wheel"*)
        echo "$*" >> {tmp_path}/asked
        cat {wheels}/{new[:32]}/part/requirements.txt >> {tmp_path}/asked
        touch {wheels}/{new[:32]}/part/pyspark-8.1.0-py3-none-any.whl ;;
    *) exec {sys.executable} "$@" ;;
esac""",
    }
    for name, script in scripts.items():
        (commands / name).write_text(f"#!/bin/sh\n{script}\n")
        (commands / name).chmod(0o755)
    for source, version in ((old, "8.1.0"), (older, "7.9.9")):
        (wheels / source[:32]).mkdir(parents=True)
        (wheels / source[:32] / f"pyspark-{version}-py3-none-any.whl").touch()

    def prepare() -> str:
        environment = os.environ | {
            "LAB_CACHE": str(tmp_path / "cache"),
            "LAB_PYTHON": str(commands / "python"),
            "LAB_ENGINE": "podman",
            "PATH": f"{commands}:{os.environ['PATH']}",
        }
        return subprocess.run(
            [copy, "--prepare"], capture_output=True, text=True, check=True, env=environment
        ).stderr

    (copy.parent / "Dockerfile").touch()
    said = prepare()
    assert f"a wheel of Spark goes, which no lock has any more ({old[:32]})" in said
    # The other lock's is for hosts with an older Python.
    found = sorted(p.relative_to(wheels).as_posix() for p in wheels.rglob("*.whl"))
    assert found == [
        f"{older[:32]}/pyspark-7.9.9-py3-none-any.whl",
        f"{new[:32]}/pyspark-8.1.0-py3-none-any.whl",
    ]
    command, *requirements = (tmp_path / "asked").read_text().splitlines()
    assert "--require-hashes" in command
    assert requirements == ["pyspark==8.1.0 \\", f"    --hash=sha256:{new}"]
    assert "wheel" not in prepare()
    assert len((tmp_path / "asked").read_text().splitlines()) == 3
