"""All roads that kernels take give the same strings and the same pixels."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from elsewhere import HOST
from test_golden import MANIFEST

from femto import build
from femto.coding import kernels
from femto.errors import LaffError

FOLDER = Path(__file__).parent
SMALL = ("v2-pixel", "v2-row", "v2-constant", "v2-near-grey-fast")
"""Pictures for which plain Python has the time."""


def on_a_road(road: str, names, **environment) -> dict:
    """What came out of golden archives in a process on this road."""
    path = [str(FOLDER.parents[1] / "femto_job"), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"FEMTO_JIT": road, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    env |= environment
    done = subprocess.run(
        [sys.executable, FOLDER / "on_a_road.py", *names],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def compiled_beforehand(library) -> dict:
    return on_a_road("", MANIFEST)


def test_the_library_gives_the_golden_strings_and_imports_no_compiler(compiled_beforehand):
    assert compiled_beforehand["road"] == "library"
    assert compiled_beforehand["modules"] == []
    for name, facts in MANIFEST.items():
        assert compiled_beforehand[name][1] == facts["strings"], name


def test_the_compiler_gives_what_the_library_gives(compiled_beforehand):
    found = on_a_road("1", MANIFEST)
    assert found["road"] == "compiler"
    assert "llvmlite" in found["modules"]
    for name in MANIFEST:
        assert found[name] == compiled_beforehand[name], name


def test_plain_python_gives_what_the_library_gives(compiled_beforehand):
    found = on_a_road("0", SMALL)
    assert found["road"] == "plain"
    assert found["modules"] == []
    for name in SMALL:
        assert found[name] == compiled_beforehand[name], name


def test_the_library_for_older_processors_gives_the_same(compiled_beforehand, library, tmp_path):
    """That of x86-64 level v2, where this machine is of v3."""
    older = kernels.targets()[1:]
    if not older:
        pytest.skip("there is one library for this processor")
    package = tmp_path / "femto"
    without = shutil.ignore_patterns("__pycache__", "_library")
    shutil.copytree(Path(build.__file__).parent, package, ignore=without)
    (package / "_library").mkdir()
    shutil.copy(library.parent / kernels.library_name(older[0]), package / "_library")
    environment = {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "empty")}
    found = on_a_road("", MANIFEST, **environment)
    assert Path(found.pop("library")).name == kernels.library_name(older[0])
    assert found == {k: v for k, v in compiled_beforehand.items() if k != "library"}


def made_for(target: str, folder: Path) -> Path:
    """The library for another kind of machine; the test is skipped where none can be made."""
    try:
        return build.build([target], folder)[0]
    except LaffError as error:
        pytest.skip(str(error))


def gives_the_same_elsewhere(place, expected: dict) -> None:
    found = on_a_road("", MANIFEST, ELSEWHERE=json.dumps(place))
    assert found["road"] == "elsewhere"
    for name in MANIFEST:
        assert found[name] == expected[name], name


@pytest.mark.slow
def test_an_arm_processor_gives_what_the_library_gives(compiled_beforehand, tmp_path):
    """Under emulation; needs ziglang, and of Debian qemu-user and libc6-arm64-cross."""
    emulator, system = shutil.which("qemu-aarch64"), Path("/usr/aarch64-linux-gnu")
    if emulator is None or not system.is_dir():
        pytest.skip("needs Debian's qemu-user and libc6-arm64-cross")
    path = made_for("linux-aarch64", tmp_path)
    source, host = tmp_path / "host.c", tmp_path / "host"
    source.write_text(HOST)
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu"]
    subprocess.run([*zig, "-O1", "-o", host, source], check=True)
    command = [emulator, "-L", str(system), str(host), str(path)]
    gives_the_same_elsewhere(command, compiled_beforehand)


@pytest.mark.slow
def test_webassembly_gives_what_the_library_gives(compiled_beforehand, tmp_path):
    """With addresses of 64 bits; needs ziglang and wasmtime."""
    pytest.importorskip("wasmtime")
    gives_the_same_elsewhere(str(made_for("wasm64", tmp_path)), compiled_beforehand)
