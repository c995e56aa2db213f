"""Memory follows the tile, not the archive."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import femto
from femto.container import bounds

ROOT = Path(__file__).resolve().parents[2]

BEGIN = """
import io, os, resource, sys
from pathlib import Path
import numpy as np
import femto
from femto import codec, container
from femto.basis import bases

noise = np.random.default_rng(1).integers(0, 256, (128, 128, 3)).astype(np.uint8)
encoded = codec.encode_tile(noise, step=1.0)
sha256 = bases.load_basis("photo").sha256
columns = 16
rows = (64 << 20) // encoded.nbytes // columns
# All that is compiled and kept from now on.
small = femto.encode(noise)
femto.info(small), femto.features(small), femto.decode(small, region=(0, 0, 9, 9))
for _ in femto.decode_layers(io.BytesIO(small)):
    pass
path = Path(sys.argv[1])


def assemble(file):
    tiles = codec.Tiles()
    for index in reversed(range(rows * columns)):  # as they come from a cluster
        tiles[index] = encoded
    blocks, layers = tiles.strings()
    return container.write(
        codec.ImageHeader(columns * 128, rows * 128, "RGB", 8), basis_name="photo",
        basis_sha256=sha256, step=1.0, tile=128, blocks=blocks, layers=layers,
        file=file,
    )


status = Path("/proc/self/status").read_text()
(used,) = (int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (used + int(sys.argv[2]),) * 2)
"""
ROOM = bounds.SPOOL + (24 << 20)
"""What a process may need: the strings that are kept in memory, and as much again for pieces of
text, a thread and the allocator; the archive has 64 MiB."""

READ = """
assert len(codec.parse(path).blocks) == rows * columns
assert femto.info(path)["tiles"] == rows * columns
found = femto.decode(path, region=(1, 2, 126, 125))
assert (found == femto.decode(path, region=(129, 130, 126, 125))).all()
assert next(femto.decode_bands(path))[1].shape == (128, columns * 128, 3)
with open(path, "rb") as stream:
    for parsed in container.arriving(stream):
        assert len(parsed.blocks) == rows * columns
"""
"""Every way to read an archive, but for those whose result is as long."""


def run(script: str, path: Path, room: int = ROOM) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", BEGIN + script, path, str(room)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "femto_job")},
        check=False,
    )


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """An archive of 64 MiB, written by a process that may have 40 MiB."""
    path = tmp_path_factory.mktemp("large") / "a.laff.gz"
    done = run('with open(path, "wb") as file:\n    print(assemble(file))', path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) == path.stat().st_size > 60 << 20
    return path


def test_an_archive_is_written_in_little_memory(large):
    """Its bytes are those that are made in memory."""
    done = run("print(assemble(None) == path.read_bytes())", large, room=1 << 30)
    assert done.stdout == "True\n", done.stderr[-2000:]


def test_an_archive_is_read_in_little_memory(large):
    done = run(READ, large)
    assert done.returncode == 0, done.stderr[-2000:]


def test_no_room_for_the_strings_is_told(large):
    """A disk that is full, which a limit of file sizes stands for."""
    script = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    script += "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20,) * 2)\nfemto.parse(path)"
    done = run(script, large)
    assert done.returncode == 1
    assert "LaffError" in done.stderr and "TMPDIR" in done.stderr.splitlines()[-1]


def test_nothing_is_left_of_the_strings(large, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    parsed = femto.parse(large)
    assert list(tmp_path.iterdir()) == []
    assert parsed.layers[0][3] == parsed.layers[0][4]
