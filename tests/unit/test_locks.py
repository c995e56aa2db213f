"""Locks of what the roles install: whole, with hashes, and as new as what they are made from."""

import re
import shutil
import subprocess
import sys

import pytest

LOCKS = [
    (role, python)
    for role in ("scipy", "jupyter")
    for python in ("3.10", "3.11", "3.12", "3.13", "3.14")
]


def check(repository) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, repository / "roles/lock.py", "--check"], capture_output=True, text=True
    )


def test_locks_are_as_new_as_their_requirements(repository):
    """If this fails, run: python3 roles/lock.py"""
    done = check(repository)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("role", "python"), LOCKS)
def test_every_package_has_a_version_and_hashes(repository, role, python):
    lock = (repository / f"roles/{role}/files/locks/{python}.txt").read_text()
    body = "".join(line for line in lock.splitlines(True) if not line.startswith("#"))
    name = r'[a-z0-9-]+==[\w.+!]+(?: ; platform_machine == "\w+")?'
    entry = name + r"(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n"
    assert re.fullmatch(f"(?:{entry})+", body)
    # Nothing that says where it came from.
    assert "://" not in lock and "index" not in lock.lower()
    sources = re.findall(r"^# From source: (.*)$", lock, re.M)
    assert sources == (["pyspark"] if role == "scipy" else [])


@pytest.fixture
def copy(repository, tmp_path):
    shutil.copytree(repository / "roles", tmp_path / "roles")
    shutil.copy(repository / "requirements.txt", tmp_path)
    return tmp_path


def test_a_pin_that_changed_makes_locks_old(copy):
    requirements = copy / "requirements.txt"
    requirements.write_text(
        re.sub(r"^pandas==.*$", "pandas==99.1", requirements.read_text(), flags=re.M)
    )
    done = check(copy)
    assert done.returncode == 1
    assert "3.12.txt: has pandas" in done.stderr and "requirements.txt 99.1" in done.stderr
    assert "run: python3 roles/lock.py" in done.stderr


@pytest.mark.parametrize(("role", "change"), [("scipy", "pydicom\n"), ("jupyter", "")])
def test_names_that_changed_make_locks_old(copy, role, change):
    names = copy / f"roles/{role}/files/packages.txt"
    lines = names.read_text().splitlines(True)
    names.write_text("".join([*lines, change] if change else lines[:-1]))
    done = check(copy)
    assert done.returncode == 1
    assert f"locks/3.10.txt: is not for the names in {names}" in done.stderr
    assert done.stderr.endswith("run: python3 roles/lock.py\n")


def test_a_lock_that_is_missing_is_named(copy):
    (copy / "roles/scipy/files/locks/3.13.txt").unlink()
    done = check(copy)
    assert done.returncode == 1 and "locks/3.13.txt: is missing" in done.stderr
