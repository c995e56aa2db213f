"""roles/scipy/files/pack.py: the wheel that the controller builds for the nodes."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("numba")
pytest.importorskip("setuptools")


def pack(repository: Path, *arguments, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, repository / "roles/scipy/files/pack.py", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def digest(repository: Path, source: Path) -> str:
    return json.loads(pack(repository, source).stdout)["digest"]


@pytest.fixture
def source(repository, tmp_path) -> Path:
    """A checkout, in which somebody has worked."""
    folder = tmp_path / "femto"
    left = shutil.ignore_patterns("__pycache__", "_library")
    shutil.copytree(repository / "femto_job", folder / "femto_job", ignore=left)
    for name in (
        *("pyproject.toml", "setup.py", "backend.py", "requirements.txt"),
        *("README.md", "LICENSE"),
    ):
        shutil.copy(repository / name, folder)
    return folder


def test_only_what_is_built_decides_what_is_new(repository, source):
    first = digest(repository, source)
    for name in (
        "femto/__pycache__/a.py",
        "femto/_library/a.so",
        "femto/a.pyc",
        "femto.egg-info/a",
    ):
        path = source / "femto_job" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("left behind")
    (source / "README.md").write_text("Another text.\n")
    assert digest(repository, source) == first
    found = {first}
    for name in ("femto_job/femto/__init__.py", "femto_job/compress.py", "setup.py"):
        with (source / name).open("a") as file:
            file.write("# new\n")
        found.add(digest(repository, source))
    assert len(found) == 4


def test_nodes_get_a_wheel_with_the_library_and_it_is_built_once(repository, source, library):
    machine = library.name.split("-")[1]
    told = pack(repository, source, digest(repository, source), machine)
    assert told.returncode == 0, told.stderr
    archive = Path(json.loads(told.stdout)[machine])
    with tarfile.open(archive) as packed:
        *commands, wheel = packed.getnames()
        files = zipfile.ZipFile(io.BytesIO(packed.extractfile(wheel).read())).namelist()
    assert "femto_job/compress.py" in commands and "femto_job/decompressor.py" in commands
    assert f"_{machine}." in wheel
    assert f"femto/_library/{library.name}" in files
    assert {"femto", "femto_spark", "pyspark_laff"} <= {name.split("/")[0] for name in files}
    # Nothing else is left there; what came of it stays as it is.
    assert {p.name for p in (source / "build").iterdir()} == {archive.name, ".lock"}
    before = archive.stat().st_mtime_ns
    again = pack(repository, source, digest(repository, source), machine, PATH="/nowhere")
    assert again.stdout == told.stdout and archive.stat().st_mtime_ns == before


def test_a_machine_that_cannot_build_it_is_told_what_to_do(repository, source, tmp_path):
    """It has neither numba nor a package index."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata\n"
        "def version(name): raise importlib.metadata.PackageNotFoundError(name)\n"
        "importlib.metadata.version = version\n"
    )
    done = pack(
        repository, source, digest(repository, source), "x86_64",
        PYTHONPATH=str(tmp_path), PIP_NO_INDEX="1",
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("femto's wheel for x86_64 cannot be built on this machine: ")
    assert "give it a package index, or install" in line and "/requirements.txt" in line
    assert not list((source / "build").glob("*.tar"))


def test_other_files_than_were_looked_at_are_not_built(repository, source, tmp_path):
    done = pack(repository, source, "0" * 64, "x86_64")
    assert done.returncode == 1
    assert done.stderr == f"{source}: files were changed meanwhile: run the same command again\n"
    done = pack(repository, tmp_path)
    assert done.returncode == 1
    assert "femto is not there: name a checkout of femto in scipy_source" in done.stderr
