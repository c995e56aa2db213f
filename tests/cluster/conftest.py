"""The lab of real hosts, for tests of the roles and playbooks; see molecule/shared/engine.

Files go on with the hosts of those before them (tests/conftest.py has the order), and each also
runs alone. The roles have a host of their own (test_roles.py), a bare one; what it is when
everything is installed is the image from which the cluster's hosts start. With $LAB_KEEP set, hosts
are left running at the end, and found ones are taken over.
"""

import concurrent.futures
import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import CLUSTER, ENGINE, INVENTORY_SINGLE, KEEP, Job, Lab, compress_locally, crops, wait

NO_LAB = "no hosts: "


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
def node_image(lab, tmp_path_factory):
    """A lock: who holds it makes the image from which the cluster's hosts start, if there is none;
    nobody does the same work a second time meanwhile."""

    @contextlib.contextmanager
    def lock():
        path = tmp_path_factory.getbasetemp().with_name("node_image.lock")
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    return lock


@pytest.fixture(scope="session")
def cluster(lab, node_image) -> Lab:
    """A master and two workers, built by site.yml."""
    if not (KEEP and lab.exists("femto-master")):
        with node_image():
            if not lab.has_node_image():
                lab.remove("femto-single")
                lab.create("femto-single")
                lab.install("femto-single", INVENTORY_SINGLE)
                lab.remove("femto-single")
        lab.build()
    lab.wait_alive(*CLUSTER[1:])
    return lab


@pytest.fixture(scope="session")
def jobs(cluster, tmp_path_factory):
    """The job that tests share: it goes on from one to the next, and is held meanwhile."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        shared = Jobs(cluster, tmp_path_factory.mktemp("job"), pool)
        yield shared
        shared.stop()


class Jobs:
    def __init__(self, cluster: Lab, folder: Path, pool: concurrent.futures.Executor):
        self.cluster = cluster
        self.pictures = crops(folder / "in", 64, 160)
        # Made without a cluster, while hosts boot and masters wait.
        self.expected = pool.submit(
            compress_locally, self.pictures, folder / "local", "--no-report"
        )
        self.job: Job | None = None

    def held(self) -> Job:
        """The running job, or a new one, which uses both workers."""
        wait(lambda: set(CLUSTER[1:]) <= set(self.cluster.alive()), "not both workers are alive")
        if self.job is None or not self.job.running():
            self.job = Job(self.cluster, "disturbed", self.pictures, CLUSTER[1:])
        return self.job

    def complete(self) -> None:
        """Every picture has its one archive, the same as made locally, after all that happened."""
        try:
            self.held().assert_completes(self.expected.result())
        finally:
            self.stop()

    def stop(self) -> None:
        if self.job is not None:
            self.job.stop()
            self.job = None


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture
def job(jobs, request) -> Job:
    """A job in the middle of its work, on both workers; it is not over before `jobs.complete`."""
    yield jobs.held()
    if request.node.stash.get(FAILED, False):
        # Nobody knows what it is like now: the next test has one of its own.
        jobs.stop()
