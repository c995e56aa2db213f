"""Fixtures that several folders of tests use."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from femto.coding import libraries

ROOT = Path(__file__).resolve().parents[1]

# What one process has compiled serves all others, those that tests give another home too.
if compiled := libraries.cache_folder():
    os.environ.setdefault("FEMTO_CACHE", str(compiled.parent))

# These go on with one cluster of hosts, in this order: a job that the guards look at is the one to
# which the faults happen.
ON_HOSTS = (
    "test_cluster",
    "test_compress",
    "test_guards",
    "test_faults",
    "test_jupyter",
    "test_operations",
)
# Two processes take files in this order. The hosts take longest, and often wait. One process begins
# with a bare host, which becomes the image of the others when this test has passed; then they go
# before all else.
INSTALLED = "test_installation_leaves_nothing_that_other_hosts_must_not_have"
ORDER = (
    "test_roles",
    "unit",
    "conformance",
    "job",
    "notebooks",
    "test_engine",
    "test_preflight",
    "test_ssh",
    "test_setup",
    *ON_HOSTS,
)


LEFT_OUT = pytest.StashKey[set]()
PREPARATION = pytest.StashKey[subprocess.Popen]()


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="run the tests marked slow, too")


def pytest_configure(config):
    config.stash[LEFT_OUT] = set()


def pytest_collection_modifyitems(config, items):
    def rank(item):
        folder = item.path.parent.name
        name = item.path.stem if folder == "cluster" else folder
        return ORDER.index(name) if name in ORDER else len(ORDER)

    items.sort(key=rank)
    if not config.option.all:
        slow = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if item not in slow]
        config.hook.pytest_deselected(items=slow)
        config.stash[LEFT_OUT] = {item.nodeid for item in slow}


def pytest_collection_finish(session):
    """The hosts' image takes minutes to make: that begins at once, where tests want hosts.

    Their fixture `lab` does the same, waits for this one, finds all of it made, and tells what is
    missing.
    """
    first = os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0"
    wanted = any("lab" in getattr(item, "fixturenames", ()) for item in session.items)
    if first and wanted and not session.config.option.collectonly:
        session.config.stash[PREPARATION] = subprocess.Popen(
            [ROOT / "molecule" / "shared" / "engine", "--prepare"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"LAB_PYTHON": sys.executable},
        )


def pytest_sessionfinish(session):
    if PREPARATION in session.config.stash:
        session.config.stash[PREPARATION].wait()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left out"] = sorted(session.config.stash[LEFT_OUT])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    node.config.stash[LEFT_OUT] |= set(getattr(node, "workeroutput", {}).get("left out", ()))


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[LEFT_OUT]:
        terminalreporter.section("left to ./test.sh --all")
        for test in sorted(config.stash[LEFT_OUT]):
            terminalreporter.line(test)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Two processes of pytest-xdist take files in turn; those that go on with the same cluster of
    hosts count for one file, which waits for the image from which the hosts start."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        image = False

        def _split_scope(self, nodeid: str) -> str:
            path = Path(nodeid.partition("::")[0])
            return str(path.parent if path.stem in ON_HOSTS else path)

        def mark_test_complete(self, node, item_index, duration=0):
            self.image |= self.registered_collections[node][item_index].endswith(INSTALLED)
            super().mark_test_complete(node, item_index, duration)

        def _assign_work_unit(self, node):
            made = self.image or not any(name.endswith(INSTALLED) for name in self.collection)
            for scope in [scope for scope in self.workqueue if not scope.endswith(".py")]:
                self.workqueue.move_to_end(scope, last=not made)
            super()._assign_work_unit(node)

    return Files(config, log)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The clone's folder."""
    return ROOT


@pytest.fixture(scope="session")
def library(repository) -> Path:
    """femto's kernels compiled beforehand, where femto finds them; made once for these sources."""
    from femto import build

    return build.build(libraries.targets(), libraries.cache_folder())[0]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory, repository, library) -> Path:
    """As pip makes it of a clone; what is compiled is taken from the cache."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.py", "backend.py", "README.md", "LICENSE"):
        shutil.copy(repository / name, folder)
    without = shutil.ignore_patterns("__pycache__", "_library")
    shutil.copytree(repository / "femto_job", folder / "femto_job", ignore=without)
    pip = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check"]
    command = [*pip, "--no-deps", "--no-build-isolation", "-w", folder / "dist", "-v", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "femto is compiled: " in done.stdout + done.stderr
    (path,) = (folder / "dist").iterdir()
    return path


@pytest.fixture(scope="session")
def femto_data() -> Path:
    """The folder of photographs that are not in the repository; the test is skipped without it."""
    folder = Path(os.environ.get("FEMTO_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the test photographs: {folder} is not there (set FEMTO_DATA)")
    return folder


@pytest.fixture(scope="session")
def own_basis(tmp_path_factory) -> Path:
    """The file of a basis that does not ship: the shipped one with other prices of classes."""
    from femto.basis import bases

    photo = bases.load_basis()
    path = tmp_path_factory.mktemp("basis of one's own") / "own.basis"
    bases.save_basis(dataclasses.replace(photo, name="own", prices=photo.prices + 1), path)
    return path


@pytest.fixture(scope="session")
def own_archive(own_basis) -> bytes:
    """An archive made with that basis."""
    import numpy as np

    import femto

    random = np.random.default_rng(5)
    pixels = np.add.outer(np.arange(40), 2 * np.arange(56)) + random.normal(0, 5, (40, 56))
    return femto.encode(pixels.astype(np.uint8), basis=str(own_basis))
