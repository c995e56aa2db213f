"""All roads that kernels take give the same strings and the same pixels."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from elsewhere import HOST, MachO
from test_golden import MANIFEST

from femto import build
from femto.coding import libraries
from femto.errors import LaffError

FOLDER = Path(__file__).parent
SMALL = (
    "v2-pixel", "v2-row", "v2-constant", "v2-near-grey-fast", "v2-photo-error-2", "v2-hot-lossless",
)  # fmt: skip
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


def test_the_library_for_older_processors_gives_the_same(compiled_beforehand, library):
    """That of x86-64 level v2, where this machine is of v3."""
    older = libraries.targets()[1:]
    if not older:
        pytest.skip("there is one library for this processor")
    path = library.parent / libraries.library_name(older[0])
    found = on_a_road("", MANIFEST, FEMTO_LIBRARY=str(path))
    assert found.pop("library") == str(path)
    assert found == {k: v for k, v in compiled_beforehand.items() if k != "library"}


def made_for(target: str, folder: Path) -> Path:
    """The library for another kind of machine; the test is skipped where nothing links it."""
    try:
        build._linker(target)
    except LaffError as error:
        pytest.skip(str(error))
    return build.build([target], folder)[0]


def host_for(system: str, folder: Path) -> Path:
    """The program that runs kernels of such a library."""
    source, host = folder / "host.c", folder / "host.exe"
    source.write_text(HOST)
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", system]
    subprocess.run([*zig, "-O1", "-o", host, source], check=True)
    return host


def gives_the_same_elsewhere(place, expected: dict, **environment) -> None:
    found = on_a_road("", MANIFEST, ELSEWHERE=json.dumps(place), **environment)
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
    command = [emulator, "-L", str(system), str(host_for("aarch64-linux-gnu", tmp_path)), str(path)]
    gives_the_same_elsewhere(command, compiled_beforehand)


@pytest.mark.slow
def test_windows_gives_what_the_library_gives(compiled_beforehand, tmp_path):
    """In Wine; needs ziglang, and Debian's wine64."""
    wine = shutil.which("wine64") or shutil.which("wine64", path="/usr/lib/wine")
    if wine is None:
        pytest.skip("needs Debian's wine64")
    path = made_for("windows-x86_64-v2", tmp_path)
    command = [wine, str(host_for("x86_64-windows-gnu", tmp_path)), str(path)]
    environment = {"WINEPREFIX": str(tmp_path / "wine"), "WINEDEBUG": "-all"}
    gives_the_same_elsewhere(command, compiled_beforehand, **environment)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["wasm32", "wasm64"])
def test_webassembly_gives_what_the_library_gives(compiled_beforehand, tmp_path, target):
    """With addresses of either size; needs ziglang and wasmtime, wasm32 also binaryen."""
    pytest.importorskip("wasmtime")
    gives_the_same_elsewhere(str(made_for(target, tmp_path)), compiled_beforehand)


@pytest.mark.slow
def test_the_library_for_macos_has_what_macos_wants(tmp_path):
    """As far as can be seen without one: it is a signed library for Apple's processors, from macOS
    11 on, that gives all kernels and takes nothing. Needs ziglang."""
    found = MachO(made_for("macos-arm64", tmp_path).read_bytes())
    assert found.name == "@rpath/macos-arm64.dylib"
    assert found.oldest == "11.0"
    assert found.libraries == {"/usr/lib/libSystem.B.dylib"}
    assert found.signed
    names = {f"_{variant.name}" for variant in build.all_variants()} | {"_femto_fingerprint"}
    assert found.exported == names | {"___dso_handle", "__mh_dylib_header"}  # the linker's own
    assert found.undefined <= {"dyld_stub_binder"}  # of libSystem, in every library
