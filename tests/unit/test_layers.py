"""Environments in two layers (femto_environment.py): what is built, kept, removed."""

import ensurepip
import hashlib
import importlib.util
import os
import platform
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("ansible")


@pytest.fixture(scope="module")
def module(repository):
    spec = importlib.util.spec_from_file_location(
        "femto_environment", repository / "plugins/modules/femto_environment.py"
    )
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


PYTHON = "{}.{}".format(*sys.version_info[:2])


class Host:
    """A folder of environments, with time that the test sets."""

    def __init__(self, module, root: Path):
        self.module, self.root, self.clock = module, root, time.time() - 10_000

    def layers(self, femto: str = "1", lock: str = "1", **other):
        wanted = {
            "root": str(self.root),
            "packages_folder": None,
            "python": sys.executable,
            "locks": {PYTHON: lock},
            "extra": [],
            "pip_options": [],
            "cache": None,
            "needed_mb": 0,
            "version": "0.1.0",
            "digest": femto,
            "name": "",
            "keep": 2,
            "account": "",
        }
        return self.module.Layers(wanted | other)

    def build(self, femto: str, lock: str = "1", complete: bool = True):
        layers = self.layers(femto, lock)
        for folder in (layers.packages, layers.path):
            Path(folder).mkdir(parents=True, exist_ok=True)
        Path(layers.packages, ".complete").touch()
        Path(layers.packages, "module.so").touch()
        link = Path(layers.path, "packages")
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(layers.packages, layers.path))
        if complete:
            Path(layers.path, ".complete").touch()
        self._date(layers.path)
        return layers

    def activate(self, layers) -> list[str]:
        before = {p: p.stat().st_mtime for p in self.root.glob("envs/*/.[al]*")}
        removed = layers.activate()
        self.clock += 100
        for path in self.root.glob("envs/*/.[al]*"):
            if before.get(path) != path.stat().st_mtime:
                os.utime(path, (self.clock, self.clock))
        return removed

    def activate_new(self, *femtos: str) -> list:
        layers = []
        for femto in femtos:
            layers.append(self.build(femto))
            self.activate(layers[-1])
        return layers

    def _date(self, folder: str) -> None:
        self.clock += 100
        for path in (Path(folder, ".complete"), Path(folder)):
            if path.exists():
                os.utime(path, (self.clock, self.clock))

    def names(self) -> set[str]:
        return {p.name for p in (self.root / "envs").iterdir() if p.is_dir()}


@pytest.fixture
def host(module, tmp_path):
    return Host(module, tmp_path / "femto")


def test_only_femto_changed_means_the_same_packages(host):
    one, other = host.layers("1"), host.layers("2")
    assert one.packages == other.packages and one.name != other.name
    assert host.layers("1", extra=["tabulate"]).packages != one.packages
    assert host.layers("1", lock="2").packages != one.packages
    assert one.packages == host.layers("1").packages and one.name == host.layers("1").name


def test_failed_builds_do_not_push_out_the_last_good_environment(host):
    good, active = host.build("good"), host.build("active")
    host.activate(good)
    host.activate(active)
    failed = [host.build(str(n), complete=False) for n in range(3)]
    removed = host.activate(active)
    assert host.names() == {good.name, active.name}
    assert set(removed) == {layers.path for layers in failed}
    # Also the run that fails removes nothing.
    with pytest.raises(host.module.Failure, match="is not complete"):
        host.activate(host.build("again", complete=False))
    assert {good.name, active.name} <= host.names()


def test_the_environment_before_is_kept_not_the_one_built_last(host):
    first = host.build("1")
    host.activate(first)
    host.activate(host.build("2"))
    host.activate(first)
    third = host.build("3")
    host.activate(third)
    assert host.names() == {first.name, third.name}


def test_what_a_process_uses_stays_until_it_ends(host):
    old = host.build("old", lock="old")
    with subprocess.Popen(["sleep", "100"], cwd=old.path) as process:
        try:
            host.activate(old)
            others = host.activate_new("1", "2", "3")
            assert old.name in host.names() and os.path.isdir(old.packages)
            assert others[0].name not in host.names()
        finally:
            process.kill()
    assert set(host.activate(others[2])) == {old.path, old.packages}
    assert host.names() == {others[1].name, others[2].name}


def test_a_process_that_began_with_an_environment_keeps_it_by_its_packages(host):
    """femto's own modules leave no trace of a process that has read them."""
    old = host.build("old")
    file = f"{old.packages}/module.so"
    code = f"import time; file = open({file!r}); print(flush=True); time.sleep(100)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            host.clock = time.time() + 1000
            host.activate(old)
            _, newest = host.activate_new("new", "newest")
            assert old.name in host.names()
            # One that began after the environment was left has the next.
            past = time.time() - 1000
            os.utime(f"{old.path}/.left", (past, past))
            assert host.activate(newest) == [old.path]
            assert os.path.isdir(old.packages)
        finally:
            process.kill()


def test_packages_stay_while_an_environment_needs_them(host):
    first, second = host.activate_new("1", "2")
    third = host.build("3", lock="other")
    assert host.activate(third) == [first.path]
    assert os.path.isdir(second.packages)


def test_an_environment_that_was_half_removed_is_not_whole(host, monkeypatch):
    first, _ = host.activate_new("1", "2")
    third = host.build("3")

    def cut_off(folder, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(host.module.shutil, "rmtree", cut_off)
        host.activate(third)
    assert not host.module.is_complete(first.path)


# Real installations, of packages that lie on this disk


def wheel(folder: Path, name: str, version: str, *, files=None, requires: str = "") -> str:
    """A wheel, by default of one module; its SHA-256."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in (files or {f"{name}.py": f"version = {version!r}\n"}).items():
            archive.writestr(file, text)
        needed = f"Requires-Dist: {requires}\n" if requires else ""
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def archive_of(folder: Path, *, requires: str, fits: bool = True) -> str:
    """What the controller sends: a wheel of something like femto, and a command beside it."""
    files = {
        "femto/__init__.py": "import sample\n\ndef main(): print('femto 1.0')\n",
        "femto/coding/kernels.py": "def road():\n    "
        + ("pass\n" if fits else "raise ValueError('no')\n"),
        "femto-1.0.dist-info/entry_points.txt": "[console_scripts]\nfemto = femto:main\n",
    }
    wheel(folder, "femto", "1.0", files=files, requires=requires)
    with tarfile.open(folder / "femto.tar", "w") as archive:
        archive.add(folder / "femto-1.0-py3-none-any.whl", "femto-1.0-py3-none-any.whl")
        archive.addfile(tarfile.TarInfo("femto_job/compress.py"))
    return str(folder / "femto.tar")


def run(*command) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def shelf(tmp_path):
    """A folder of wheels, and the lock of pip itself."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    (bundled,) = Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl")
    (folder / bundled.name).write_bytes(bundled.read_bytes())
    version = bundled.name.split("-")[1]
    content = hashlib.sha256(bundled.read_bytes()).hexdigest()
    return folder, f"pip=={version} \\\n    --hash=sha256:{content}\n"


def test_packages_are_checked_by_their_hashes_and_femto_lies_on_top(host, shelf, tmp_path):
    folder, lock = shelf
    lock += f"sample==1.0 \\\n    --hash=sha256:{wheel(folder, 'sample', '1.0')}\n"
    layers = host.layers(pip_options=["--no-index", f"--find-links={folder}"])
    content = wheel(folder, "sample", "1.0")
    with pytest.raises(host.module.Failure, match=r"could not install the packages.*HASH"):
        layers.build_packages(lock.replace(content, "0" * 64))
    assert not host.module.is_complete(layers.packages)
    layers.build_packages(lock)
    # What does not fit this host is told now, not by the first job.
    told = r"^femto-1\.0-.*\.whl could not be installed: "
    with pytest.raises(host.module.Failure, match=told + "femto 1.0 has requirement sample>=2"):
        layers.build_environment(archive_of(tmp_path, requires="sample>=2"))
    with pytest.raises(host.module.Failure, match=f"{told}ValueError: no$"):
        layers.build_environment(archive_of(tmp_path, requires="sample>=1", fits=False))
    assert not host.module.is_complete(layers.path)
    layers.build_environment(archive_of(tmp_path, requires="sample>=1"))
    layers.activate()
    told = run(
        host.root / "current/bin/python",
        "-c",
        "import femto; print(femto.__file__, femto.sample.__file__)",
    )
    # Real paths: the process keeps its environment when another one becomes current.
    modules = f"lib/python{PYTHON}/site-packages"
    assert told.split() == [
        f"{layers.path}/{modules}/femto/__init__.py",
        f"{layers.packages}/{modules}/sample.py",
    ]
    assert run(host.root / "current/bin/femto") == "femto 1.0\n"
    listed = run(host.root / "current/bin/python", "-m", "pip", "freeze", "--all")
    assert {"femto==1.0", "sample==1.0"} <= set(listed.split())
    assert {p.name for p in Path(layers.path, "femto_job").iterdir()} == {"compress.py"}
    assert not list(Path(layers.path).glob("*.whl"))
    look = layers.look()
    assert look["complete"] and not look["stale"]


def test_a_python_without_a_lock_is_refused_by_name(host):
    with pytest.raises(
        host.module.Failure,
        match=f"is Python {PYTHON}, for which there is no lock: name one of 3.9, 3.99",
    ):
        host.layers(locks={"3.99": "", "3.9": ""})
    with pytest.raises(host.module.Failure, match="no-such-python does not run"):
        host.layers(python="/no-such-python")


def test_machines_of_another_kind_have_other_names(host, monkeypatch):
    name = host.layers().packages
    monkeypatch.setattr(platform, "machine", lambda: "another")
    assert host.layers().packages != name
