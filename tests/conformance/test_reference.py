"""docs/SPEC.md is complete and true: the decoder written from it reads femto's archives.

The reference decoder must find the same integers, bit by bit, and pixels that differ by at most 1.
"""

import gzip
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import femto
from femto import codec, kstrings
from femto.bases import load_basis
from femto.blocks import Layout

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BASIS = Path(femto.__file__).parent / "data" / "photo.basis"
SPEC = (ROOT / "docs" / "SPEC.md").read_text(encoding="utf-8")

sys.path.insert(0, str(HERE))
import reference_decoder as reference  # noqa: E402


def _photo() -> np.ndarray:
    """A crop of a photograph: edges and textures, so that trained classes are chosen."""
    with Image.open(ROOT / "samples" / "dragonfly.png") as image:
        return np.asarray(image.convert("RGB"))[88:155, 120:195]


def _smooth(height: int, width: int) -> np.ndarray:
    """A picture for large blocks, grey, with a faint ripple and one hard edge."""
    y, x = np.mgrid[:height, :width]
    grey = 60 + 0.9 * x + 0.4 * y + 6 * np.sin(0.9 * x + 0.35 * y)
    grey[:, width - 9 :] = 240
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _cases() -> dict:
    """Name -> (picture, options of encode)."""
    photo, smooth = _photo(), _smooth(64, 96)
    noise = np.random.default_rng(7).integers(0, 65536, (17, 9), dtype=np.uint16)
    unicode = {"ünï 😀": [1, 2.5, -1e-7, 1e22, None, True, "\x7f\n\\"], "a": {"b": {}}}
    return {
        "photo": (photo, {"quality": 75}),
        "photo, fine": (photo[:35, :33], {"quality": 97, "metadata": unicode}),
        "photo, coarse": (photo, {"quality": 25, "source": "Löwenzahn 😀.png", "icc": b"\0icc"}),
        "photo, grey": (np.ascontiguousarray(photo[:40, :40, 1]), {"quality": 95}),
        "photo, 16 bits": (photo[9:42, :50].astype(np.uint16) * 257, {"quality": 60}),
        "smooth": (np.dstack([smooth, smooth, smooth // 2]), {"quality": 70}),
        "smooth, fine": (smooth, {"quality": 96}),
        "noise, 16 bits": (noise, {"quality": 90}),
        "one pixel": (np.full((1, 1), 200, np.uint8), {}),
        "two tiles": (np.resize(photo[30], (2, 1030, 3)), {"quality": 50}),
    }


CASES = _cases()


@pytest.fixture(scope="module")
def decoded() -> dict:
    """Name -> (archive, pixels, tiles) as the reference decodes them; decoded once, it is slow."""
    result = {}
    for name, (picture, options) in CASES.items():
        archive = femto.encode(picture, **options)
        result[name] = (archive, *reference.decode(archive, BASIS))
    return result


def _field(parsed, tile, number: int, layers: int):
    """femto's integers of a tile: values (planes, 64, rows, columns), sizes, classes."""
    layout = Layout(tile.height, tile.width, tile.planes)
    strings = [strings[number] for strings in parsed.layers[:layers]]
    return _on_lattice(kstrings.decode(parsed.blocks[number], strings, layout, load_basis()))


def _on_lattice(field):
    layout = field.layout
    shape = (layout.cells // layout.stride, layout.stride)
    values = field.values.reshape(layout.planes, 65, *shape)
    return values[:, :64], field.sizes.reshape(2, *shape), field.classes.reshape(shape)


def _check_tile(tile, field):
    values, sizes, classes = field
    np.testing.assert_array_equal(tile.size, sizes)
    np.testing.assert_array_equal(tile.classes, classes)
    np.testing.assert_array_equal(tile.V, values)


@pytest.mark.parametrize("name", CASES)
def test_same_integers_and_pixels_within_one(decoded, name):
    archive, pixels, tiles = decoded[name]
    picture = CASES[name][0]
    parsed = codec.parse(archive)
    assert len(tiles) == len(parsed.blocks)
    for number, tile in enumerate(tiles):
        _check_tile(tile, _field(parsed, tile, number, len(parsed.layers)))
    assert pixels.shape == picture.shape and pixels.dtype == picture.dtype
    difference = femto.decode(archive).astype(np.int64) - pixels
    assert np.abs(difference).max() <= 1


def test_pictures_use_all_of_the_format(decoded):
    """What the pictures above do not contain is not tested by them."""
    tiles = [tile for _, _, tiles in decoded.values() for tile in tiles]
    events = sum((tile.events for tile in tiles), Counter())
    for event in (
        "flag",
        "direct flag",
        "empty zone",
        "known one",
        "golomb",
        "golomb of a mean",
        "predicted sign",
        "plain sign",
    ):
        assert events[event] > 0, event
    for kind in range(2):
        found = {s for tile in tiles for _, _, s, _ in tile.blocks[kind]}
        assert found == {0, 1, 2}, f"block sizes of kind {kind}"
    assert len({c for tile in tiles for row in tile.classes for c in row}) > 4
    assert max(len(tiles) for _, _, tiles in decoded.values()) == 2


@pytest.mark.parametrize("layers", [1, 4])
def test_archive_cut_short(decoded, layers):
    archive = femto.truncate(decoded["photo, grey"][0], layers=layers)
    pixels, tiles = reference.decode(archive, BASIS)
    _check_tile(tiles[0], _field(codec.parse(archive), tiles[0], 0, layers))
    assert np.abs(femto.decode(archive).astype(np.int64) - pixels).max() <= 1


@pytest.mark.parametrize("seed", [0, 2, 4, 5, 7])
def test_strings_of_random_bytes(seed):
    """No encoder writes such strings: they reach every corner, and where the integers wrap."""
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(20, 40, 2))
    planes = (1, 3)[seed % 2]
    block_string, strings = rng.bytes(20), []
    for kind in rng.integers(0, 3, 8):
        strings.append((b"", bytes(range(int(rng.integers(4)))), rng.bytes(400))[kind])
    tile = reference.Tile(height, width, planes, reference.Basis(BASIS), block_string, strings)
    layout = Layout(height, width, planes)
    _check_tile(tile, _on_lattice(kstrings.decode(block_string, strings, layout, load_basis())))


def test_stands_alone(decoded, tmp_path):
    """The reference needs no femto: it runs in an isolated interpreter, from plain text too."""
    archive, pixels, _ = decoded["photo, 16 bits"]
    (tmp_path / "a.laff").write_bytes(gzip.decompress(archive))
    program = [sys.executable, "-I", str(HERE / "reference_decoder.py")]
    subprocess.run([*program, "a.laff", str(BASIS), "a.npy"], cwd=tmp_path, check=True, timeout=120)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), pixels)


def test_damage_is_noticed(decoded):
    text = bytearray(gzip.decompress(decoded["one pixel"][0]))
    text[text.rindex(b'"') - 9] ^= 1
    with pytest.raises(ValueError):
        reference.read_archive(bytes(text))
    header = gzip.decompress(decoded["one pixel"][0]).replace(b'"width":1', b'"width":2')
    with pytest.raises(ValueError, match="header's checksum"):
        reference.read_archive(header)


def _crc(table) -> str:
    return f"{zlib.crc32(np.array(table).astype('<i4').tobytes()):08x}"


def test_numbers_in_the_specification():
    """The checksums, sizes and the example that docs/SPEC.md gives are those of the decoder."""
    tables = [
        reference.STRETCH,
        list(reference.SQUASH.values()),
        reference.CONFIDENCE,
        reference.RATE,
        *reference.COSINE,
    ]
    for table in tables:
        assert _crc(table) in SPEC
    for places in (reference.SLOTS, reference.WEIGHTS, reference.MAPS):
        assert f"({places.total})" in SPEC
    header = next(line.strip() for line in SPEC.splitlines() if '{"basis":{"name":"photo"' in line)
    crc = zlib.crc32(header.encode())
    assert f'"crc":{crc}' in SPEC and f"{crc:08x}" in SPEC
    sealed = b"\2" + zlib.crc32(header.encode() + b"-1,0\2").to_bytes(4, "big")
    assert reference.base64.b64encode(sealed).decode() in SPEC
