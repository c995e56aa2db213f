"""The lab of real hosts, for tests of the roles and playbooks; see molecule/shared/engine.

Files go on with the hosts of those before them (tests/conftest.py has the order), and each also
runs alone. The roles have a host of their own, and are tested while the cluster is, if pytest has
two processes. With $LAB_KEEP set, hosts are left running at the end, and found ones are taken over.
"""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from lab import ENGINE, KEEP, Job, Lab, compress_locally, crops

NO_LAB = "no hosts: "
# Many rounds for every picture.
LONG = ("--psnr", "38")


def pytest_terminal_summary(terminalreporter):
    skipped = [r.longrepr for r in terminalreporter.stats.get("skipped", ())]
    # Only their reports come from the processes of pytest-xdist: (file, line, reason).
    told = {r[2].partition(NO_LAB)[2] for r in skipped if isinstance(r, tuple)}
    for reason in told - {""}:
        terminalreporter.section("THE CLUSTER WAS NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.line(f"Molecule and the tests on hosts were skipped: {reason}")
        terminalreporter.line("They need podman or docker, or root on Ubuntu or Debian.")


def _alone(lock) -> bool:
    """Whether no other process of pytest-xdist has the lab; waits for one that makes it ready."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(lock, fcntl.LOCK_SH)
        return False
    return True


@pytest.fixture(scope="session")
def lab(tmp_path_factory) -> Iterator[Lab]:
    """The engine and the hosts' image; every test that wants it is skipped where none can run."""
    # Beside the folders of all processes of this run.
    with tmp_path_factory.getbasetemp().with_name("lab.lock").open("w") as lock:
        first = _alone(lock)
        prepared = subprocess.run(
            [ENGINE, "--prepare"],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"LAB_PYTHON": sys.executable},
        )
        print(prepared.stderr)
        if prepared.returncode == 3:
            pytest.skip(NO_LAB + (prepared.stderr.strip().splitlines() or ["no engine"])[-1])
        assert prepared.returncode == 0, prepared.stderr
        os.environ["LAB_ENGINE"] = prepared.stdout.split()[-1]
        lab = Lab(tmp_path_factory.mktemp("lab"))
        if first and not KEEP:
            lab.remove_all()
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield lab
        if not KEEP and _alone(lock):
            lab.remove_all()
            lab.engine("--release")


@pytest.fixture(scope="session")
def cluster(lab) -> Lab:
    """A master and two workers, built by site.yml from bare hosts."""
    if not (KEEP and lab.exists("femto-master")):
        lab.build()
    lab.wait_alive("femto-worker1", "femto-worker2")
    return lab


@pytest.fixture(scope="session")
def long_archives(tmp_path_factory) -> dict[str, bytes]:
    """The archives that a long job makes, made without a cluster."""
    folder = tmp_path_factory.mktemp("long")
    return compress_locally(crops(folder / "in", 48), folder / "local", "--no-report", *LONG)


@pytest.fixture
def start_long_job(cluster, tmp_path):
    """Start a job that is still running when something else has been done on all hosts."""
    jobs = []

    def start(name: str) -> Job:
        jobs.append(Job(cluster, name, crops(tmp_path / "in", 48), *LONG))
        return jobs[-1]

    yield start
    for job in jobs:
        job.stop()
