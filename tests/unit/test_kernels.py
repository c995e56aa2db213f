"""Kernels: what they take, and where compiled ones come from and are not taken from."""

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import resolve_name
from pathlib import Path

import numpy as np
import pytest

import femto
from femto.coding import blocks, contexts, kernels, kstrings, libraries, signatures
from femto.coding.kernels import packed
from femto.coding.signatures import KERNELS
from femto.errors import LaffError

FEMTO = Path(femto.__file__).parent
ROAD = (
    "from femto.coding import kernels\n"
    "road = kernels.road()\n"
    "print(road.name, getattr(road, 'path', ''))"
)


def run(code: str, path: Path, **environment) -> str:
    """What a process prints that has femto from `path`."""
    kept = {k: v for k, v in os.environ.items() if k not in ("FEMTO_CACHE", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | {"PYTHONPATH": str(path), "FEMTO_JIT": ""} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path, library) -> Path:
    """A copy of the package with the library in it, as a wheel has them; its folder."""
    folder = tmp_path / "installed"
    without = shutil.ignore_patterns("__pycache__", "_library")
    shutil.copytree(FEMTO, folder / "femto", ignore=without)
    (folder / "femto" / "_library").mkdir()
    shutil.copy(library, folder / "femto" / "_library")
    return folder


@pytest.fixture
def nowhere(tmp_path) -> dict:
    """Environment of an account that has compiled nothing."""
    (tmp_path / "home").mkdir()
    return {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}


# --- what kernels take -----------------------------------------------------------------------


def test_arrays_of_another_kind_are_refused():
    sizes, out = np.zeros(9, np.uint8), np.zeros((9, 3), np.int32)
    with pytest.raises(TypeError, match=r"list_blocks: sizes: .* float64 \(9,\) where .* u8"):
        blocks.list_blocks(sizes.astype(float), 1, 1, 1, 0, out)
    with pytest.raises(TypeError, match=r"out: .*not in C order"):
        blocks.list_blocks(sizes, 1, 1, 1, 0, np.asfortranarray(out))
    with pytest.raises(TypeError, match="sizes: NoneType where an array"):
        blocks.list_blocks(None, 1, 1, 1, 0, out)
    with pytest.raises(TypeError, match=r"list_blocks: .*integer"):
        blocks.list_blocks(sizes, 1.5, 1, 1, 0, out)
    with pytest.raises(TypeError, match="takes 6 arguments, not 2"):
        blocks.list_blocks(sizes, 1)


def test_every_alternative_is_a_variant_of_its_own():
    names = [variant.name for variant in contexts._double.variants + kstrings._code_zones.variants]
    assert names == [
        "contexts_double_u8",
        "contexts_double_u16",
        "contexts_double_i32",
        "kstrings_code_zones_encoding",
        "kstrings_code_zones_no_encoding",
    ]
    for dtype in (np.uint8, np.uint16, np.int32):
        values = np.array([0, 3, 200], dtype)
        contexts._double(values, 255)
        assert values.tolist() == [0, 6, 255]


def test_memory_that_cannot_be_written_can_be_read():
    pixels = np.frombuffer(bytes(range(48)), np.uint8).reshape(4, 4, 3)
    out = np.zeros((3, 3), np.int64)
    blocks._difference_products(pixels, out)
    assert out.any()


def test_what_is_packed_stays_of_its_process():
    """Addresses mean nothing elsewhere."""
    import copy

    basis_like = packed(
        contexts.Learned(*[np.zeros((1,) * n, np.int32) for n in (4, 3, 4, 5, 5, 4)])
    )
    kind = signatures._kinds(contexts.Learned, "learned")[0][1]
    slots = basis_like.slots(kind)
    again = copy.deepcopy(basis_like)
    assert again._slots is None
    assert again.slots(kind) != slots


# --- sources ---------------------------------------------------------------------------------


def test_the_fingerprint_is_of_all_modules_that_are_compiled():
    """Those that define kernels, and those from which they have constants or functions."""
    from femto import build

    build.all_variants()
    copies = signatures.Copies(lambda function, copy: copy)
    for kernel in KERNELS:
        copies(kernel.function)
    functions = list(copies.made)
    modules = {f.__module__ for f in functions}
    coding = {"blocks", "contexts", "entropy", "kstrings", "partition", "restore"}
    assert {f"femto.coding.{name}" for name in coding} <= modules
    used = {name for f in functions for name in f.__code__.co_names}
    for module in sorted(modules):
        package = module.rpartition(".")[0]
        for node in ast.walk(ast.parse(file_of(module).read_text())):
            names = {a.name for a in node.names} if isinstance(node, ast.ImportFrom) else set()
            if used & names and node.level:
                base = resolve_name("." * node.level + (node.module or ""), package)
                inside = [base] if file_of(base).is_file() else [f"{base}.{n}" for n in names]
                modules |= {m for m in inside if file_of(m).is_file()}
    found = {str(file_of(module).relative_to(FEMTO)) for module in modules}
    door = {"build.py", "coding/kernels.py", "coding/signatures.py"}
    assert found | door == set(libraries.SOURCES)


def file_of(module: str) -> Path:
    return FEMTO.parent / f"{module.replace('.', '/')}.py"


def test_kernels_are_written_once_for_all_roads():
    """No module but these knows of numba or LLVM."""
    for source in FEMTO.rglob("*.py"):
        if source.name != "build.py":
            tree = ast.parse(source.read_text())
            for node in ast.walk(tree):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not [n for n in names if n.split(".")[0] in ("numba", "llvmlite")], source


# --- libraries -------------------------------------------------------------------------------


def test_a_library_in_the_package_is_taken(package, nowhere):
    name, _, path = run(ROAD, package, **nowhere).partition(" ")
    assert name == "library"
    assert Path(path).parent == package / "femto" / "_library"


def test_a_library_of_other_sources_is_not_loaded(package, nowhere):
    with open(package / "femto" / "coding" / "kstrings.py", "a") as file:
        file.write("# changed\n")
    assert run(ROAD, package, **nowhere) == "compiler"


def test_a_library_that_others_could_have_written_is_not_loaded(package, nowhere, library):
    """Neither in a folder that all may write to, nor below one."""
    shutil.rmtree(package / "femto" / "_library")
    cache = Path(nowhere["HOME"]) / ".cache" / "femto"
    inner = cache / libraries.fingerprint()[:16]
    inner.mkdir(parents=True)
    shutil.copy(library, inner)
    os.chmod(cache, 0o700)
    os.chmod(inner, 0o700)
    assert run(ROAD, package, **nowhere) == f"library {inner / library.name}"
    for open_to_all in (inner, cache):
        os.chmod(open_to_all, 0o777)
        assert run(ROAD, package, **nowhere) == "compiler"
        os.chmod(open_to_all, 0o700)


def test_a_library_in_a_zip_is_copied_out_of_it(package, nowhere, tmp_path):
    """A zip is how Spark brings the package to its workers; some have no home."""
    archive = tmp_path / "femto.zip"
    with zipfile.ZipFile(archive, "w") as z:
        for path in sorted(package.rglob("*")):
            if "__pycache__" not in path.parts:
                z.write(path, path.relative_to(package))
    without_home = {"HOME": "/nonexistent", "TMPDIR": str(tmp_path)}
    for environment in (nowhere, without_home):
        road, _, path = run(ROAD, archive, **environment).partition(" ")
        assert road == "library"
        assert archive not in Path(path).parents
        assert Path(path).stat().st_mode & 0o022 == 0
        Path(path).write_bytes(b"cut off")
        assert run(ROAD, archive, **environment) == f"library {path}"


def test_a_zip_from_another_kind_of_machine_takes_the_library_that_is_installed_here(
    package, nowhere, tmp_path
):
    """If it is of these very sources."""
    archive = tmp_path / "femto.zip"
    with zipfile.ZipFile(archive, "w") as z:
        for path in sorted(package.rglob("*.*")):
            if not {"__pycache__", "_library"} & set(path.parts):
                z.write(path, path.relative_to(package))
    ask = "from femto.coding import kernels; print(kernels.library())"
    installed = f"import sys; sys.path.append({str(package)!r}); "
    here = package / "femto" / "_library"
    assert Path(run(installed + ask, archive, **nowhere)).parent == here
    assert run(ask, archive, **nowhere) == "None"
    with open(package / "femto" / "coding" / "kstrings.py", "a") as file:
        file.write("# changed\n")
    assert run(ask, package, **nowhere) == "None"
    assert Path(run(installed + ask, archive, **nowhere)).parent == here


def test_a_library_that_is_named_is_taken_or_refused(package, nowhere, library, monkeypatch):
    shutil.rmtree(package / "femto" / "_library")
    named = nowhere | {"FEMTO_LIBRARY": str(library)}
    assert run(ROAD, package, **named) == f"library {library}"
    for name, reason in (
        (package / "femto" / "errors.py", "not made of"),
        (package, "not made of"),
    ):
        monkeypatch.setenv("FEMTO_LIBRARY", str(name))
        with pytest.raises(LaffError, match=rf"FEMTO_LIBRARY=.*{reason}.*python -m femto.build"):
            kernels.library()


def test_the_cache_is_where_it_is_wanted(package, nowhere, tmp_path):
    ask = "from femto.coding import libraries; print(libraries.cache_folder().parent)"
    for name, folder in (
        ("FEMTO_CACHE", "wanted"),
        ("XDG_CACHE_HOME", "wanted/femto"),
        ("HOME", "wanted/.cache/femto"),
    ):
        (tmp_path / "wanted").mkdir(exist_ok=True)
        named = nowhere | {name: str(tmp_path / "wanted")}
        assert run(ask, package, **named) == str(tmp_path / folder)


def test_a_library_that_does_not_load_is_passed_over(package, nowhere, library):
    (package / "femto" / "_library" / library.name).write_bytes(libraries.fingerprint().encode())
    assert run(ROAD, package, **nowhere) == "compiler"


def test_without_library_and_compiler_one_line_says_what_to_do(monkeypatch):
    monkeypatch.setattr(kernels, "_find_library", lambda: None)
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LaffError, match=r"install femto's wheel .* pip install numba"):
        kernels._choose("")
    with pytest.raises(LaffError, match="FEMTO_JIT=2 is not possible: set it to 0 or 1"):
        kernels._choose("2")


def test_the_processor_decides_which_library(monkeypatch):
    from femto import build

    monkeypatch.setattr(libraries.sys, "platform", "linux")
    for machine, flags, names in (
        ("x86_64", libraries._V3 | {"fpu"}, ["linux-x86_64-v3", "linux-x86_64-v2"]),
        ("x86_64", libraries._V2, ["linux-x86_64-v2"]),
        ("x86_64", None, ["linux-x86_64-v2"]),
        ("x86_64", {"fpu"}, []),
        ("aarch64", None, ["linux-aarch64"]),
        ("riscv64", None, []),
    ):
        monkeypatch.setattr(libraries, "_cpu_flags", lambda flags=flags: flags)
        uname = os.uname_result(("Linux", "host", "6", "1", machine))
        monkeypatch.setattr(libraries.os, "uname", lambda uname=uname: uname)
        assert libraries.targets() == names
        assert set(names) <= set(build.TARGETS)
    monkeypatch.setattr(libraries, "_cpu_flags", lambda: None)
    for system, machine, names in (
        ("win32", "AMD64", ["windows-x86_64-v2"]),
        ("win32", "ARM64", []),
        ("darwin", "arm64", []),  # there is one, but nobody has run it
    ):
        monkeypatch.setattr(libraries.sys, "platform", system)
        uname = os.uname_result(("", "host", "6", "1", machine))
        monkeypatch.setattr(libraries.os, "uname", lambda uname=uname: uname)
        assert libraries.targets() == names
        assert set(names) <= set(build.TARGETS)


USE = """
import sys
import numpy as np
import femto
from femto.coding import kernels
pixels = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8)
archive = femto.encode(pixels, quality=60)
assert femto.decode(femto.truncate(archive, layers=3)).shape == pixels.shape
assert femto.features(archive).vector().any()
open(made, "wb").write(archive)
"""
TELL = "print(kernels.road().name, sorted({'numba', 'llvmlite', 'scipy'} & set(sys.modules)))"


def test_the_command_says_what_it_made_and_where(monkeypatch, tmp_path, capsys):
    from femto import build

    asked = []

    def made(names):
        asked.extend(names)
        return [libraries.fingerprint().encode() for _ in names]

    monkeypatch.setattr(build, "_made", made)
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(build, "__file__", str(tmp_path / "nowhere" / "build.py"))
    (tmp_path / "cache").mkdir()
    assert build.main(["native", "--output", str(tmp_path / "out")]) == 0
    best = libraries.targets()[0]
    path = tmp_path / "out" / libraries.library_name(best)
    told = capsys.readouterr()
    assert asked == [best] and path.is_file()
    assert told.out == f"femto is compiled: {path}\n"
    assert told.err == f"Compiling femto for {best} (once: half a minute) ...\n"
    assert build.main(["native"]) == 0  # made before
    told = capsys.readouterr()
    assert asked == [best] and not told.err
    assert build.main(["linux-vax"]) == 1
    assert "linux-vax is no target: choose of linux-" in capsys.readouterr().err


def test_the_command_writes_beside_the_sources_if_it_may(monkeypatch, tmp_path, capsys):
    """There any account finds it, and it travels with the sources."""
    from femto import build

    monkeypatch.setattr(
        build, "_made", lambda names: [libraries.fingerprint().encode() for _ in names]
    )
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(build, "__file__", str(tmp_path / "femto" / "build.py"))
    name = libraries.library_name(libraries.targets()[0])
    for folder in (tmp_path, tmp_path / "femto" / "_library"):
        assert build.main(["native"]) == 0
        assert capsys.readouterr().out == f"femto is compiled: {folder / name}\n"
        (tmp_path / "femto").mkdir(exist_ok=True)


@pytest.mark.parametrize("place", ["out", "femto/_library"])
def test_what_lies_there_is_taken_unless_others_could_have_written_it(monkeypatch, tmp_path, place):
    """In the folder where it is wanted, or in the package."""
    from femto import build

    sound = libraries.fingerprint().encode()
    monkeypatch.setattr(build, "_made", lambda names: [sound + b" made" for _ in names])
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(build, "__file__", str(tmp_path / "femto" / "build.py"))
    name = libraries.targets()[0]
    lying = tmp_path / place / libraries.library_name(name)
    lying.parent.mkdir(parents=True, mode=0o755)

    def built() -> bytes:
        for other in {"cache", "out"} - {place}:
            shutil.rmtree(tmp_path / other, ignore_errors=True)
        (tmp_path / "cache").mkdir()
        lying.write_bytes(sound + b" lying")
        (path,) = build.build([name], tmp_path / "out")
        assert path.parent == tmp_path / "out"
        assert (tmp_path / "cache" / path.name).read_bytes() == path.read_bytes()
        return path.read_bytes()

    assert built() == sound + b" lying"
    for written_by_all in (lying, lying.parent, tmp_path):
        before = written_by_all.stat().st_mode & 0o777
        written_by_all.chmod(0o777)
        assert built() == sound + b" made"
        if written_by_all.is_dir():
            written_by_all.chmod(before)
        lying.unlink()
    target = tmp_path / "aside"
    target.mkdir(mode=0o755)
    target.chmod(0o777)
    (target / lying.name).write_bytes(sound + b" lying")
    lying.symlink_to(target / lying.name)
    assert not libraries.trusted(lying)
    assert not libraries.trusted(tmp_path / "none")


def test_what_cannot_be_linked_is_told_before_anything_is_compiled(monkeypatch, tmp_path):
    from femto import build

    monkeypatch.setattr(build, "_made", None)
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(build, "__file__", str(tmp_path / "nowhere" / "build.py"))
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    for target in build.TARGETS:
        remedy = "npm install binaryen" if target == "wasm32" else "pip install ziglang"
        with pytest.raises(
            LaffError, match=rf"{target} .*{remedy}|no linker for {target}: .*{remedy}"
        ):
            build.build([target], tmp_path)


def test_this_system_is_linked_by_the_compiler_that_is_here(monkeypatch):
    """Whatever level its processor has."""
    from femto import build

    monkeypatch.setattr(libraries, "_cpu_flags", lambda: libraries._V2)
    monkeypatch.setattr(libraries, "machine", lambda: "linux-x86_64")
    monkeypatch.setattr(build.shutil, "which", {"cc": "/usr/bin/cc"}.get)
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: name)
    assert build._linker("linux-x86_64-v3") == ["/usr/bin/cc"]
    assert "ziglang" in build._linker("linux-aarch64")


def test_nothing_of_numba_is_imported_to_use_femto(package, nowhere, tmp_path, repository):
    made = tmp_path / "a.laff.gz"
    assert run(f"made = {str(made)!r}" + USE + TELL, package, **nowhere) == "library []"
    program = str(repository / "femto_job" / "decompressor.py")
    decompress = (
        "import runpy, sys\n"
        f"sys.argv = ['decompressor.py', {str(made)!r}, '-o', {str(tmp_path / 'a.png')!r}]\n"
        "try:\n"
        f"    runpy.run_path({program!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        "from femto.coding import kernels\n"
    )
    assert run(decompress + TELL, package, **nowhere).splitlines()[-1] == "library []"
    assert (tmp_path / "a.png").stat().st_size > 0


# --- the compiler ----------------------------------------------------------------------------

COMPILE = """
import numpy as np
from femto.coding import contexts, kernels, signatures
told = []
signatures.LISTENERS.append(lambda: told.append(1))
contexts._double(np.zeros(3, np.uint8), 9)
print(kernels.road().name, len(told))
"""


@pytest.mark.parametrize("home", [True, False])
def test_compiled_code_is_kept_also_from_a_zip(tmp_path, nowhere, home):
    archive = tmp_path / "femto.zip"
    with zipfile.ZipFile(archive, "w") as z:
        for path in sorted(FEMTO.rglob("*.py")):
            z.write(path, path.relative_to(FEMTO.parent))
    place = nowhere if home else {"HOME": "/nonexistent", "TMPDIR": str(tmp_path)}
    assert run(COMPILE, archive, **place) == "compiler 1"
    assert run(COMPILE, archive, **place) == "compiler 0"
    # An equal copy elsewhere need not be compiled again.
    copy = archive.rename(tmp_path / "copy.zip")
    assert run(COMPILE, copy, **place) == "compiler 0"


def test_equal_sources_give_equal_libraries(tmp_path, library):
    """Of three kernels, each compiled in a process of its own."""
    code = (
        "import hashlib\n"
        "from femto import build\n"
        "from femto.coding import signatures\n"
        "build.all_variants()\n"
        "chosen = [k.variants[0] for k in signatures.KERNELS if k.name in\n"
        "          ('classes_patch_costs', 'kstrings_code_blocks', 'cells_spread')]\n"
        "target = build.TARGETS['linux-x86_64-v3']\n"
        "code = [build._frontend()(variant) for variant in chosen]\n"
        "made = build._object(code, [variant.name for variant in chosen], target)\n"
        "print(len(chosen), hashlib.sha256(made).hexdigest())"
    )
    first, second = (run(code, FEMTO.parent, PYTHONHASHSEED=seed) for seed in ("1", "2"))
    assert first.startswith("3 ")
    assert first == second


def test_a_kernel_that_would_make_arrays_is_refused():
    """It would need numba's counting of references, which no library has."""
    code = (
        "import numpy as np\n"
        "from femto import build\n"
        "from femto.coding import kernels\n"
        "from femto.coding.kernels import f32\n"
        "@kernels.kernel\n"
        "def makes(x: f32[:]):\n"
        "    x[0] = np.zeros(3, np.float32)[1]\n"
        "try:\n"
        "    build._frontend()(makes.variants[0])\n"
        "except Exception as error:\n"
        "    print(type(error).__name__)"
    )
    assert "Error" in run(code, FEMTO.parent)
