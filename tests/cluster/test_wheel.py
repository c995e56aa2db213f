"""femto's wheel on a host that has Python, and nothing else."""

import hashlib
import json
import subprocess
import sys

import pytest
from lab import ROOT

import femto

DECODE = """
import hashlib, json, shutil, sys, time
import femto
pixels = femto.decode(sys.argv[1])
seconds = time.process_time()
from femto.coding import kernels
print(json.dumps({
    "pixels": hashlib.sha256(pixels.tobytes()).hexdigest(),
    "seconds": seconds,
    "road": kernels.road().name,
    "library": str(kernels.library()),
    "modules": sorted({"numba", "llvmlite"} & set(sys.modules)),
    "tools": [name for name in ("cc", "gcc", "clang", "ld", "pip", "zig") if shutil.which(name)],
}))
"""


@pytest.mark.slow
def test_an_empty_host_decodes_at_once(lab, wheel, tmp_path):
    """Nothing is compiled there, or could be. The CPU seconds are printed, Python's start among
    them."""
    base = lab.base_image()
    run = ("run", "--rm", "--privileged", "--network=none", f"--volume={tmp_path}:/given:ro", base)
    version = lab.engine(*run, "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--python-version", version.stdout.strip(), "--only-binary=:all:"]
    pip += ["-c", ROOT / "requirements.txt", "--target", tmp_path / "packages"]
    subprocess.run([*pip, wheel], check=True)
    archive = ROOT / "tests" / "conformance" / "golden" / "v2-photo-q75.laff.gz"
    (tmp_path / "a.laff.gz").write_bytes(archive.read_bytes())
    environment = ("--env", "PYTHONPATH=/given/packages", "--env", "PYTHONDONTWRITEBYTECODE=1")
    command = ("python3", "-c", DECODE, "/given/a.laff.gz")
    found = json.loads(lab.engine(*run[:-1], *environment, base, *command).stdout)
    print(found)
    assert found["pixels"] == hashlib.sha256(femto.decode(archive).tobytes()).hexdigest()
    assert found["road"] == "library"
    assert found["library"].startswith("/given/packages/femto/_library/")
    assert found["modules"] == found["tools"] == []
