"""The frozen decoder of version 1: complete in itself, and always the same pixels."""

import ast
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from make_golden import GOLDEN
from PIL import Image

from femto import LaffError, codec, version1
from femto.tiles import tile_grid
from femto.version1.entropy import TABLES

PACKAGE = Path(version1.__file__).parent
MANIFEST = json.loads((GOLDEN / "manifest.json").read_text())
NAMES = [name for name in MANIFEST if name.startswith("v1-")]
BASIS_SHA256 = "f66f217b6bf2d9b931a80c22cf4119e722cb578c43a0329c2fa2ed1b0ccc6051"
TABLES_SHA256 = "ab7ff7c12d9dede1b8829d08639d5e0a43391b137269f556923634894960c0ef"
LAYERS_SHA256 = {
    "v1-photo-q75": "ca3403546e47a0e5 4760022b2ff125ba ba216cf5d8ed74be 279763cc24a83f56 "
    "c7ebd4328d0e03ab 782674ef055416ef 5efba84fbf9143e9 de5276df19d0301f",
    "v1-xray-q60": "ad2abbd7acddc9bf 96a8d7c047c15644 35e713b8b30d165b 35e713b8b30d165b "
    "35e713b8b30d165b 35e713b8b30d165b 35e713b8b30d165b 35e713b8b30d165b",
    "v1-deep-q80": "517763f059872506 4f011a092f43227a defc004afcf4027e 146e26c1801f1648 "
    "3ff64efb88be9693 3ff64efb88be9693 3ff64efb88be9693 3ff64efb88be9693",
}
"""SHA-256, its first 16 digits, of the pixels from the first 1 to 8 layers."""


@pytest.fixture(scope="module")
def basis():
    return version1.read_basis((PACKAGE / "photo.basis").read_bytes(), "photo")


def decode(name: str, basis, layers: int) -> np.ndarray:
    """A golden archive of one tile, decoded by version1 alone."""
    parsed = codec.parse(GOLDEN / f"{name}.laff.gz")
    header = parsed.header
    (tile,) = tile_grid(header.height, header.width, parsed.tile)
    strings = [strings[0] for strings in parsed.layers[:layers]]
    decoded = version1.decode_scores(
        parsed.blocks[0],
        strings,
        tile.height,
        tile.width,
        header.channels,
        parsed.step,
        basis,
    )
    return version1.to_pixels(*decoded, header.bits)


def pixels_hash(pixels: np.ndarray) -> str:
    return hashlib.sha256(pixels.astype(">u2").tobytes()).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_golden_archives_decode_to_the_same_pixels(name, basis):
    decoded = decode(name, basis, len(version1.LAYER_ENDS))
    with Image.open(GOLDEN / f"{name}.source.png") as source:
        assert decoded.shape[:2] == (source.height, source.width)
    assert decoded.dtype == (np.uint16 if "deep" in name else np.uint8)
    assert pixels_hash(decoded) == MANIFEST[name]["pixels"]


@pytest.mark.parametrize("name", LAYERS_SHA256)
def test_so_do_their_first_layers(name, basis):
    hashes = [pixels_hash(decode(name, basis, n))[:16] for n in range(1, 9)]
    assert hashes == LAYERS_SHA256[name].split()


def test_the_basis_and_the_tables_stay_as_they_are(basis):
    assert (basis.name, basis.sha256) == ("photo", BASIS_SHA256)
    assert hashlib.sha256(TABLES.astype("<i4").tobytes()).hexdigest() == TABLES_SHA256


def test_its_sources_import_nothing_of_femto_but_errors_and_jit():
    sources = sorted(PACKAGE.rglob("*.py"))
    assert len(sources) > 1
    own = {source.stem for source in sources}
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not any(alias.name.split(".")[0] == "femto" for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert node.module.split(".")[0] != "femto", source
            elif isinstance(node, ast.ImportFrom) and node.level == 1:
                assert set((node.module or "").split(".")[:1]) - {""} <= own, source
                if node.module is None:
                    assert {alias.name for alias in node.names} <= own, source
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 2 and node.module in ("errors", "jit"), source


ALONE = """
import sys
from pathlib import Path

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        parts = name.split(".")
        if parts[0] == "femto" and len(parts) > 1 and parts[1] not in ("errors", "jit", "version1"):
            raise ImportError(name + " is not part of version1")

sys.meta_path.insert(0, Forbidden())
from femto import version1

basis = version1.read_basis((Path(version1.__file__).parent / "photo.basis").read_bytes(), "photo")
block_string, *strings = map(bytes.fromhex, sys.argv[1].split(","))
decoded = version1.decode_scores(block_string, strings, 1, 1, 3, float(sys.argv[2]), basis)
print(version1.to_pixels(*decoded, 8).tolist())
"""


def test_it_decodes_where_nothing_else_of_femto_can_be_imported(basis):
    parsed = codec.parse(GOLDEN / "v1-pixel.laff.gz")
    strings = [parsed.blocks[0], *(strings[0] for strings in parsed.layers)]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, ",".join(s.hex() for s in strings), repr(parsed.step)],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parents[1],
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == decode("v1-pixel", basis, 8).tolist()


def test_what_it_cannot_use_is_refused_in_one_line(basis):
    whole = (PACKAGE / "photo.basis").read_bytes()
    npy = b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }"
    bad = [b"", b"PK", b"x" * 100, npy.ljust(127) + b"\n\0", whole[: len(whole) // 2]]
    bad += [whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] for at in (500000, 1000000)]
    bad.append(bytes(version1.MAX_FILE + 1))
    for data in bad:
        with pytest.raises(LaffError, match=r"^some\.basis: ") as error:
            version1.read_basis(data, "some.basis")
        assert "\n" not in str(error.value)
    with pytest.raises(LaffError, match="an archive of 9 layers"):
        version1.decode_scores(b"", [b""] * 9, 8, 8, 1, 1.0, basis)
