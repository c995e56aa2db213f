"""The lab of real hosts, for tests of the roles and playbooks; see molecule/shared/engine.

Files run in the order of ORDER: later ones go on with the hosts of earlier ones, and each also
runs alone. With $LAB_KEEP set, hosts are left running at the end, and found ones are taken over.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lab import ENGINE, KEEP, Lab

ORDER = [
    "test_engine",
    "test_preflight",
    "test_roles",
    "test_cluster",
    "test_faults",
    "test_guards",
    "test_jupyter",
    "test_operations",
]
HERE = Path(__file__).parent
_why_not = []


def pytest_collection_modifyitems(items):
    def rank(item):
        return ORDER.index(item.path.stem) if item.path.parent == HERE else -1

    items.sort(key=rank)


def pytest_terminal_summary(terminalreporter):
    for reason in _why_not:
        terminalreporter.section("THE CLUSTER WAS NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.line(f"Molecule and the tests on hosts were skipped: {reason}")
        terminalreporter.line("They need podman or docker, or root on Ubuntu or Debian.")


@pytest.fixture(scope="session")
def lab(tmp_path_factory) -> Lab:
    """The engine and the hosts' image; every test that wants it is skipped where none can run."""
    prepared = subprocess.run(
        [ENGINE, "--prepare"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"LAB_PYTHON": sys.executable},
    )
    print(prepared.stderr)
    if prepared.returncode == 3:
        _why_not.append((prepared.stderr.strip().splitlines() or ["no engine"])[-1])
        pytest.skip(_why_not[-1])
    assert prepared.returncode == 0, prepared.stderr
    os.environ["LAB_ENGINE"] = prepared.stdout.split()[-1]
    lab = Lab(tmp_path_factory.mktemp("lab"))
    if not KEEP:
        lab.remove_all()
    yield lab
    if not KEEP:
        lab.remove_all()
        lab.engine("--release")


@pytest.fixture(scope="session")
def cluster(lab) -> Lab:
    """A master and two workers, built by site.yml from bare hosts."""
    if not (KEEP and lab.exists("femto-master")):
        lab.build()
    lab.wait_alive("femto-worker1", "femto-worker2")
    return lab
