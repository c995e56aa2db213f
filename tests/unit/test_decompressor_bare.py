"""The wheel; the decompressor where that, numpy and pillow are installed, and nothing else."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import femto
from femto.coding.libraries import library_name, targets

ROOT = Path(__file__).resolve().parents[2]


def pip_install(python: Path, *packages: str):
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "-c", ROOT / "requirements.txt", *packages], capture_output=True, text=True
    )
    if done.returncode:
        if os.environ.get("CI"):
            raise AssertionError(done.stderr)
        pytest.skip(f"needs pip and the network: {done.stderr.strip().splitlines()[-1]}")


def test_the_wheel_is_for_any_python(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    here = targets()
    machine = here[0].split("-")[1]
    assert re.fullmatch(rf"femto-[\d.]+-py3-none-manylinux_\w+_{machine}\.\w+\.whl", wheel.name)
    libraries = {library_name(target) for target in here}
    assert {n for n in names if "/_library/" in n} == {f"femto/_library/{n}" for n in libraries}
    assert "femto/data/photo.basis" in names


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory, wheel) -> Path:
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip_install(python, "numpy", "pillow")
    pip_install(python, "--no-index", str(wheel))
    return python


def test_bare_environment(bare_python, tmp_path):
    """Decodes everything without the libraries that read pictures, and without a compiler."""
    # The program alone: nothing of the clone around it helps.
    (tmp_path / "program").mkdir()
    shutil.copy(ROOT / "femto_job" / "decompressor.py", tmp_path / "program")
    rng = np.random.default_rng(2)
    pixels = np.clip(np.add.outer(np.arange(40), np.arange(60)) + 9, 0, 255).astype(np.uint8)
    pixels = np.stack([pixels + rng.integers(0, 20, pixels.shape, np.uint8)] * 3, axis=-1)
    deep = pixels.astype(np.uint16) * 256
    (tmp_path / "rgb.laff.gz").write_bytes(femto.encode(pixels))
    (tmp_path / "deep.laff.gz").write_bytes(femto.encode(deep))

    def run(*arguments) -> subprocess.CompletedProcess:
        # -I: neither PYTHONPATH nor the user's own packages; -S would hide the environment's.
        code = "import sys, runpy; sys.path.insert(0, 'program'); sys.argv = sys.argv[1:]; "
        code += "runpy.run_path(sys.argv[0], run_name='__main__')"
        return subprocess.run(
            [bare_python, "-I", "-c", code, "program/decompressor.py", *arguments],
            cwd=tmp_path,
            # No code but that of the wheel.
            env={"PATH": "/nonexistent", "HOME": str(tmp_path), "LANG": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=1800,
        )

    absent = [
        "numba",
        "llvmlite",
        "scipy",
        "sklearn",
        "pyspark",
        "tifffile",
        "imagecodecs",
        "rawpy",
        "pandas",
    ]
    absent += ["pillow_heif", "pydicom"]
    found = subprocess.run(
        [bare_python, "-I", "-c", "import importlib.util as u, sys; "
         "print([m for m in sys.argv[1:] if u.find_spec(m)])", *absent],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout == "[]\n"

    code = (
        "import femto, numpy as np\n"
        "pixels = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8)\n"
        "assert femto.decode(femto.encode(pixels)).shape == (40, 60)\n"
        "from femto.coding import kernels; print(kernels.road().name)"
    )
    done = subprocess.run([bare_python, "-I", "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("library\n", 0), done.stderr

    done = run("rgb.laff.gz", "deep.laff.gz")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "images_out/rgb.png") as image:
        close(np.asarray(image), femto.decode(tmp_path / "rgb.laff.gz"))
    with Image.open(tmp_path / "images_out/deep.png") as image:
        assert image.size == (60, 40)
    for kind in ("jpg", "tif"):
        done = run("rgb.laff.gz", "--format", kind)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"images_out/rgb.{kind}").is_file()

    done = run("deep.laff.gz", "--format", "tif")
    assert done.returncode == 0, done.stderr
    import tifffile

    close(
        tifffile.imread(tmp_path / "images_out/deep.tif"), femto.decode(tmp_path / "deep.laff.gz")
    )


def test_the_command_in_a_bare_environment(bare_python, tmp_path):
    """What it has not the packages for it says in one line, before anything is done; all else
    works, and archives are those that are made here."""
    rng = np.random.default_rng(4)
    pixels = np.add.outer(np.arange(70), 2 * np.arange(90)) % 200 + rng.integers(0, 9, (70, 90))
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "in" / "a.png")

    def femto_command(*arguments) -> subprocess.CompletedProcess:
        return subprocess.run(
            [bare_python.parent / "femto", *arguments],
            cwd=tmp_path,
            env={"PATH": "/nonexistent", "HOME": str(tmp_path), "LANG": "C.UTF-8"},
            capture_output=True,
            text=True,
        )

    def fails(*arguments) -> str:
        done = femto_command(*arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        return done.stderr

    before = sorted(path.name for path in tmp_path.iterdir())
    assert fails("compress", "in", "out") == (
        "femto compress: pyarrow and scipy are not installed here, and the report needs them: "
        "pip install pyarrow scipy, or choose --no-report\n"
    )
    assert "pip install scipy" in fails("train", "--input", "in", "--output", "own.basis")
    done = femto_command("compress", "in", "out", "--no-report")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 compressed, 0 unchanged, 0 failed\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert "pip install pyarrow" in fails("features", "out", "-o", "features.parquet")
    archive = (tmp_path / "out" / "a.laff.gz").read_bytes()
    expected = femto.decode(femto.encode(pixels.astype(np.uint8)))
    assert np.array_equal(femto.decode(archive), expected)
    assert '"width": 90' in femto_command("info", "--json", "out/a.laff.gz").stdout
    done = femto_command("decompress", "out/a.laff.gz", "-o", "b.png")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "b.png") as image:
        close(np.asarray(image), femto.decode(archive))


def close(a: np.ndarray, b: np.ndarray):
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    assert np.abs(a.astype(int) - b).max() <= 1
