"""docs/SPEC.md is complete and true: the decoder written from it reads femto's archives.

The reference decoder must find the same integers, bit by bit, and pixels that differ by at most 1,
after every layer.
"""

import functools
import gzip
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from make_golden import GOLDEN
from PIL import Image
from test_golden import picture

import femto
from femto import codec
from femto.basis.bases import load_basis
from femto.coding import blocks, kstrings, rendition, residual
from femto.coding.blocks import Layout
from femto.coding.contexts import Field
from femto.coding.rendition import MARGIN

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BASIS = Path(femto.__file__).parent / "data" / "photo.basis"
SPEC = (ROOT / "docs" / "SPEC.md").read_text(encoding="utf-8")
CLOSE = 1e-5
"""Comparisons closer than this may go either way in single precision."""

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


def _weave() -> np.ndarray:
    """A fine weave: few scores of large blocks, in zones without predicted signs, of magnitudes
    that are found in every pass."""
    weave = np.full((32, 64), 128.0)
    for frequency, magnitude in {21: 60, 22: 5.2, 23: 5, 20: 2.2, 19: 2, 24: 1.45, 25: 1.4}.items():
        wave = np.cos(np.pi * (2 * np.arange(64) + 1) * frequency / 64)
        weave += magnitude * np.outer(wave[:32], wave)
    return np.rint(weave).astype(np.uint8)


def _near_grey(bits: int = 8) -> np.ndarray:
    """A picture with a faint cast in one direction of colour, and so with an empty plane."""
    y, x = np.mgrid[:35, :43]
    grey = 128 + 0.6 * (x - 20) + 20 * np.sin(0.3 * y)
    cast = np.where(x < 25, 3, -2)
    picture = np.rint(np.dstack([grey + cast, grey, grey - cast]))
    return picture.astype(np.uint8) if bits == 8 else (picture * 257).astype(np.uint16)


def _mapped(picture: np.ndarray) -> np.ndarray:
    return np.rint(8000 + picture * (1200 / 255)).astype(np.uint16)


def _hot(picture: np.ndarray) -> np.ndarray:
    """With one sample far outside of the others."""
    picture = picture.astype(np.uint16) * 16
    picture[5, 7] = 65535
    return picture


def _cases() -> dict:
    """Name -> (picture, options of encode)."""
    photo, smooth = _photo(), _smooth(64, 96)
    fast, perceptual = {"effort": "fast"}, {"tune": "perceptual"}
    noise = np.random.default_rng(7).integers(0, 65536, (17, 9), dtype=np.uint16)
    metadata = {"ünï 😀": [1, 2.5, -1e-7, 1e22, None, True, "\x7f\n\\"], "a": {"b": {}}}
    metadata |= {"exif": b"II*\0\n\n\0", "none": b"", "xmp": "\n<x/>"}
    return {
        "photo": (photo, {"quality": 75}),
        "photo, fine": (photo[:35, :33], {"quality": 97, "metadata": metadata}),
        "photo, coarse": (photo, {"quality": 25, "source": "Löwenzahn 😀.png", "icc": b"\0icc"}),
        "photo, grey": (np.ascontiguousarray(photo[:40, :41, 1]), {"quality": 95}),
        "photo, 16 bits": (photo[9:42, :50].astype(np.uint16) * 257, {"quality": 68}),
        "smooth": (np.dstack([smooth, smooth, smooth // 2]), {"quality": 70}),
        "smooth, fine": (smooth, {"quality": 96}),
        "smooth, without colour": (np.dstack([smooth[:33, 50:]] * 3), {"quality": 68}),
        "weave": (_weave(), {"quality": 75}),
        "photo, 12 bits": (photo[9:42, :50].astype(np.uint16) * 16, {"quality": 68, "bits": 12}),
        "photo, 8000 to 9200": (_mapped(photo[9:42, :50]), {"quality": 90}),
        "photo, hot pixel": (_hot(photo[9:42, :50, 0]), {"quality": 80}),
        "photo, signed": (photo[9:42, :50, 2].astype(np.int16) * 9 - 700, {"quality": 80}),
        "noise, 16 bits": (noise, {"quality": 90}),
        "one pixel": (np.full((1, 1), 200, np.uint8), {}),
        "one coloured pixel": (np.array([[[200, 30, 90]]], np.uint8), {"quality": 100}),
        "near grey": (_near_grey(), {"quality": 75}),
        "near grey, coarse": (_near_grey(), {"quality": 15, **perceptual}),
        "near grey, one pass": (_near_grey(16), {"quality": 70, **fast}),
        "photo, one pass": (photo, {"quality": 75, **fast}),
        "photo, one pass, fine": (photo[:25, :33], {"quality": 98, **fast}),
        "photo, perceptual": (photo[:35, 20:60], {"quality": 75, **perceptual}),
        "photo, grey, perceptual": (np.ascontiguousarray(photo[20:, :40, 1]), perceptual),
        "photo, one pass, perceptual": (photo[30:, 9:50], {"quality": 60, **fast, **perceptual}),
        "weave, one pass": (_weave(), {"quality": 90, **fast}),
        "one pixel, one pass": (np.full((1, 1), 20, np.uint8), {**fast, **perceptual}),
        "two tiles": (np.resize(photo[30], (2, 1030, 3)), {"quality": 70}),
    }


CASES = _cases()


class Found(NamedTuple):
    """What the reference finds in an archive: its tiles, after the last layer, and of each after
    0, 1, … layers the integers and the least and the greatest pixels that are right."""

    archive: bytes
    tiles: list
    after: list


@pytest.fixture(scope="module")
def basis():
    return reference.Basis(BASIS)


@pytest.fixture(scope="module")
def found(basis):
    """The function that finds it, by the name of a picture; once, it is slow."""

    @functools.cache
    def find(name: str) -> Found:
        picture, options = CASES[name]
        archive = femto.encode(picture, **options)
        top = reference.read_archive(archive)
        tiles, after = [], []
        for number, place in enumerate(codec.tile_grid(*picture.shape[:2])):
            planes = 3 if picture.ndim == 3 else 1
            block_string, passes = top["blocks"][number], top["passes"]
            tile = reference.Tile(place.height, place.width, planes, basis, block_string, passes)
            steps = []
            for layers in range(len(reference.LAYERS[passes]) + 1):
                if layers > 0:
                    tile.read_layer(top["strings"][layers - 1][number])
                bounds = _pixel_bounds(tile, top)
                steps.append((np.array(tile.V), *bounds))
            tiles.append(tile)
            after.append(steps)
        return Found(archive, tiles, after)

    return find


def _lattice(field):
    """femto's integers of a tile: values (planes, 64, rows, columns), sizes, classes."""
    layout = field.layout
    shape = (layout.cells // layout.stride, layout.stride)
    values = field.values.reshape(layout.planes, 65, *shape)
    return values[:, :64], field.sizes.reshape(2, *shape), field.classes.reshape(shape)


def _check_integers(tile, values_found, field):
    values, sizes, classes = _lattice(field)
    np.testing.assert_array_equal(tile.size, sizes)
    np.testing.assert_array_equal(tile.classes, classes)
    np.testing.assert_array_equal(values_found, values)
    assert tile.colour == field.colour


def _pixel_bounds(tile, top: dict) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest pixels, wherever the calls that are too close may fall."""
    image, tuned = top["image"], (top["step"], top["tune"])
    either = [
        np.stack([reference.restored(tile, *tuned, p, lean) for p in range(tile.planes)], axis=2)
        for lean in (1 - CLOSE, 1 + CLOSE)
    ]
    low, high = np.min(either, axis=0), np.max(either, axis=0)
    if tile.planes == 3:
        rows = reference.colour_rows(tile.colour)
        up, down = np.maximum(rows, 0), np.minimum(rows, 0)
        low, high = low @ up + high @ down, high @ up + low @ down
    return tuple(
        reference.samples_of(x, image["levels"], image["limits"], image["bits"]).astype(int)
        for x in (low, high)
    )


def _check_pixels(low: np.ndarray, high: np.ndarray, pixels: np.ndarray):
    pixels = pixels.reshape(low.shape).astype(np.int64)
    assert (pixels - low).min() >= -1
    assert (pixels - high).max() <= 1


@pytest.mark.parametrize("name", CASES)
def test_same_integers_and_pixels_within_one_after_every_layer(found, name):
    archive, tiles, after = found(name)
    parsed = codec.parse(archive)
    assert len(tiles) == len(parsed.blocks)
    passes = 1 if "one pass" in name or "coarse" in name else 4
    assert len(parsed.layers) == len(reference.LAYERS[passes])
    for number, tile in enumerate(tiles):
        for layers, (values, low, high) in enumerate(after[number]):
            _check_integers(tile, values, codec.decode_field(parsed, number, layers=layers)[0])
            _check_pixels(low, high, codec.decode_tile(parsed, number, layers=layers))


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.laff.gz")), ids=lambda path: path.name)
def test_golden_archives(basis, path):
    """The archives that the specification names as examples, from nothing but itself."""
    top = reference.read_archive(path.read_bytes())
    samples, tiles = reference.decode(path.read_bytes(), basis)
    pixels = picture(path.with_name(path.name.replace(".laff.gz", ".decoded.png")))
    if top.get("max_error") is not None:
        np.testing.assert_array_equal(samples, pixels)
        return
    places = codec.tile_grid(*pixels.shape[:2], top["tile"])
    for place, tile in zip(places, tiles, strict=True):
        window = pixels[place.y : place.y + place.height, place.x : place.x + place.width]
        _check_pixels(*_pixel_bounds(tile, top), window)


def _residual_cases() -> dict:
    """Name -> (picture, options of encode): small, every sample takes long."""
    photo, fast = _photo()[20:33, 30:44], {"effort": "fast"}
    return {
        "photo": (photo, {"max_error": 0}),
        "photo, perceptual": (photo[:9], {"max_error": 1, "quality": 90, "tune": "perceptual"}),
        "near grey": (_near_grey()[:9, 18:32], {"max_error": 0, "quality": 85, **fast}),
        "grey in colour": (np.dstack([photo[:7, :, 1]] * 3), {"max_error": 0}),
        "12 bits": (photo.astype(np.uint16) * 16 + 5, {"max_error": 3, "bits": 12}),
        "hot pixel": (_hot(photo[:, :, 0]), {"max_error": 0}),
        "8000 to 9200": (_mapped(photo[:, :, 1]), {"max_error": 0, "quality": 60}),
        "flat": (np.full((9, 12), 33, np.uint8), {"max_error": 0}),
        "16 bits": (np.random.default_rng(3).integers(0, 65536, (9, 11, 3)).astype(np.uint16),
                    {"max_error": 0}),
    }  # fmt: skip


RESIDUALS = _residual_cases()


@pytest.mark.parametrize("name", RESIDUALS)
def test_residuals_give_the_same_samples(basis, name):
    """Those of archives exactly, and so do strings that no encoder writes."""
    picture, options = RESIDUALS[name]
    archive = femto.encode(picture, **options)
    samples, _ = reference.decode(archive, basis)
    np.testing.assert_array_equal(samples, femto.decode(archive, samples=True))
    if options["max_error"] == 0:
        np.testing.assert_array_equal(samples, picture)
    parsed, rng = codec.parse(archive), np.random.default_rng(len(archive))
    field, used = codec.decode_field(parsed, 0)
    header = parsed.header
    rendered = rendition.render(field, parsed.step, used, header.levels, header.limits)
    inner = rendered[:, MARGIN:-MARGIN, MARGIN:-MARGIN].tolist()
    for string in (rng.bytes(150), b"\xff" * 20):
        expected = reference.Residual(inner, header.limits, 1).read(string)
        found = residual.decode(rendered, string, header.limits, 1, header.dtype)
        np.testing.assert_array_equal(found, expected.reshape(found.shape))


def test_close_calls_are_rare(found):
    """They excuse little."""
    bounds = [steps[-1][1:] for name in CASES for steps in found(name).after]
    assert np.mean(np.concatenate([(low != high).ravel() for low, high in bounds])) < 0.001


def test_tiles_come_to_their_places(found, basis):
    archive = found("two tiles").archive
    pixels, _ = reference.decode(archive, basis)
    expected = femto.decode(archive)
    assert pixels.shape == expected.shape and pixels.dtype == expected.dtype
    assert np.abs(pixels.astype(np.int64) - expected).max() <= 1


def test_pictures_use_all_of_the_format(found):
    """What the pictures above do not contain is not tested by them."""
    tiles = [tile for name in CASES for tile in found(name).tiles]
    events = sum((tile.events for tile in tiles), Counter())
    in_passes = {
        "flag": (3, 2, 1, 0),
        "empty zone": (3, 2, 1, 0),
        "known one": (3, 2, 1, 0),
        "predicted sign": (3, 2, 1, 0),
        "plain sign": (3, 2, 1, 0),
        "golomb": (3,),
        "golomb of a mean": (3,),
        "digit": (2, 1, 0),
        "digit without a bit": (0,),
        "mean digit": (2, 1, 0),
    }
    for event, passes in in_passes.items():
        for number in passes:
            assert events[event, number, 4] > 0, (event, number)
        assert (events[event, 0, 1] > 0) == (3 in passes), f"{event} in a single pass"
    for kind in range(2):
        found = {s for tile in tiles for _, _, s, _ in tile.blocks[kind]}
        assert found == {0, 1, 2}, f"block sizes of kind {kind}"
    assert len({c for tile in tiles for row in tile.classes for c in row}) > 4
    for passes in (4, 1):
        assert any(
            0 in used and max(used) > 0
            for tile in tiles
            if tile.passes == passes
            for used in tile.used
        ), f"an empty plane in {passes} passes"


@pytest.mark.parametrize(
    ("passes", "layers"),
    [(passes, n + 1) for passes, found in reference.LAYERS.items() for n in range(len(found))],
)
def test_archive_cut_short(found, basis, passes, layers):
    name = {4: "one coloured pixel", 1: "one pixel, one pass"}[passes]
    archive, _, ((*_, whole),) = found(name)
    archive = femto.truncate(archive, layers=layers)
    pixels, (tile,) = reference.decode(archive, basis)
    assert tile.passes == passes
    assert tile.layers == len(codec.parse(archive).layers) == layers
    assert np.abs(pixels.astype(np.int64) - femto.decode(archive)).max() <= 1
    if layers == len(reference.LAYERS[passes]):
        np.testing.assert_array_equal(tile.V, whole[0])


@pytest.mark.parametrize(("seed", "passes"), [(n, 4) for n in range(6)] + [(6, 1), (7, 1)])
def test_strings_of_random_bytes(basis, seed, passes):
    """No encoder writes such strings: they reach every corner, and where the integers wrap."""
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(20, 40, 2))
    planes = (1, 3)[seed % 2]
    block_string, strings = rng.bytes((24, 4)[seed == 5]), []
    for kind in rng.integers(0, 3, len(reference.LAYERS[passes])):
        strings.append((b"", bytes(range(int(rng.integers(4)))), rng.bytes(250))[kind])
    tile = reference.Tile(height, width, planes, basis, block_string, passes)
    layout = Layout(height, width, planes)
    for layers, string in enumerate(strings, 1):
        tile.read_layer(string)
        field = Field(layout, passes)
        kstrings.decode(block_string, strings[:layers], load_basis(), field)
        _check_integers(tile, tile.V, field)


@pytest.mark.parametrize(
    "numbers",
    [(0,) * 6, (0, 0, 0, 1, 2, 3), (5, -3, 2, -10, 6, -4), (73, 73, 73, 90, 0, -90)]
    + [tuple(row) for row in np.random.default_rng(1).integers(-128, 128, (3, 6)).tolist()],
)
def test_colour(numbers):
    stored = np.array(numbers, np.int8).tobytes()
    rows = blocks.colour_matrices(stored)[1]
    np.testing.assert_allclose(rows, reference.colour_rows(stored), atol=1e-6)


def test_stands_alone(found, tmp_path):
    """The reference needs no femto: it runs in an isolated interpreter, from plain text too."""
    archive, _, ((*_, (_, low, high)),) = found("photo, grey")
    (tmp_path / "a.laff").write_bytes(gzip.decompress(archive))
    program = [sys.executable, "-I", str(HERE / "reference_decoder.py")]
    subprocess.run([*program, "a.laff", str(BASIS), "a.npy"], cwd=tmp_path, check=True)
    _check_pixels(low, high, np.load(tmp_path / "a.npy"))


def test_damage_is_noticed(found):
    text = bytearray(gzip.decompress(found("one pixel").archive))
    text[text.rindex(b'"') - 9] ^= 1
    with pytest.raises(ValueError):
        reference.read_archive(bytes(text))
    header = gzip.decompress(found("one pixel").archive).replace(b'"width":1', b'"width":2')
    with pytest.raises(ValueError, match="header's checksum"):
        reference.read_archive(header)


def test_metadata_are_as_given(found):
    archive = found("photo, fine").archive
    metadata = CASES["photo, fine"][1]["metadata"]
    assert reference.read_archive(archive)["metadata"] == metadata
    assert femto.info(archive)["metadata"] == metadata
    assert reference.read_archive(found("photo").archive)["metadata"] == {}


def test_metadata_are_checksummed(found):
    text = gzip.decompress(found("photo, fine").archive)
    other = text.replace(b'"metadata":"', b'"metadata":"' + b"A" * 4)
    for damaged in (other, text.replace(b'"metadata"', b'"meta"')):
        assert damaged != text
        with pytest.raises(femto.LaffError):
            femto.info(damaged)
        with pytest.raises(ValueError):
            reference.read_archive(damaged)


def test_null_is_as_good_as_absent(found):
    archive = found("one pixel").archive
    text = gzip.decompress(archive).replace(b'"bits":8', b'"bits":8,"icc":null,"source":null')
    text = text.replace(b'"step"', b'"metadata":null,"step"')
    assert text.count(b"null") == 3
    reference.read_archive(text)
    np.testing.assert_array_equal(femto.decode(text), femto.decode(archive))


def test_usual_passes_and_tune_are_as_good_as_absent(found):
    archive = found("one pixel").archive
    assert b'"passes"' not in gzip.decompress(archive)
    usual = b'"passes":4,"tune":"psnr","step"'
    text = gzip.decompress(archive).replace(b'"step"', usual)
    reference.read_archive(text)
    np.testing.assert_array_equal(femto.decode(text), femto.decode(archive))


@pytest.mark.parametrize(
    "change",
    [b'"passes":1,"step"', b'"tune":"perceptual","step"', b'"passes":2,"step"',
     b'"max_error":0,"step"'],
)  # fmt: skip
def test_passes_and_tune_are_checksummed(found, change):
    text = gzip.decompress(found("one pixel").archive).replace(b'"step"', change)
    with pytest.raises(ValueError):
        reference.read_archive(text)
    with pytest.raises(femto.LaffError):
        femto.parse(text)


def _crc(table) -> str:
    return f"{zlib.crc32(np.array(table).astype('<i4').tobytes()):08x}"


def test_numbers_in_the_specification():
    """The checksums, sizes and examples that docs/SPEC.md gives are those of the decoder."""
    tables = [
        reference.STRETCH,
        list(reference.SQUASH.values()),
        reference.CONFIDENCE,
        reference.RATE,
        *reference.COSINE,
    ]
    for table in tables:
        assert _crc(table) in SPEC
    totals = [part.total for part in (reference.SLOTS, reference.WEIGHTS)]
    slots, weights = (f"{total:,}".replace(",", " ") for total in totals)
    assert f"{slots} slots, then {weights} weights" in SPEC
    for total in totals:
        assert f"({total})" in SPEC
    classes = (reference.ACTIVITIES + 1) * 17 * 9
    assert f"({classes}, {len(reference.CLIP) * len(reference.TAPS)})" in SPEC
    header = next(line.strip() for line in SPEC.splitlines() if '{"basis":{"name":"photo"' in line)
    crc = zlib.crc32(header.encode())
    assert f'"crc":{crc}' in SPEC and f"{crc:08x}" in SPEC
    sealed = b"\2" + zlib.crc32(header.encode() + b"-1,0\2").to_bytes(4, "big")
    assert reference.base64.b64encode(sealed).decode() in SPEC
    for row in reference.colour_rows(bytes(6)):
        assert " ".join(f"{x:.7f}".replace("-", "−") for x in row) in SPEC


def test_the_specification_names_the_basis_that_is_shipped(basis):
    assert f"has K = {basis.classes} and the hash `{basis.sha256}`" in SPEC


@pytest.mark.parametrize(
    ("value", "layers", "tune", "x", "pixel"),
    [
        (-2, 13, "psnr", "−14", 114),
        (-1, 1, "psnr", "−19", 109),
        (-2, 13, "perceptual", "−9.33", 119),
    ],
)
def test_example_of_one_pixel_in_the_specification(basis, value, layers, tune, x, pixel):
    tile = reference.Tile(1, 1, 1, basis, b"")
    corner = reference.MARGIN
    tile.used, tile.layers, tile.blocks = [[1]] * 4, layers, [[(corner, corner, 0, True)], []]
    tile.V[0][0][corner][corner] = value
    image = {"bits": 8, "levels": [0, 255], "limits": [0, 255]}
    assert reference.tile_pixels(tile, 16.0, tune, image).tolist() == [[[pixel]]]
    assert f"{x}, the pixel {pixel}" in SPEC


def test_constants_in_the_specification():
    for name in ("LIMIT", "LEARNING", "GOLOMB", "UNARY", "MEAN_OFFSET", "SIGNED"):
        assert f"| {name} | {getattr(reference, name)} |" in SPEC, name
    assert f"| ACTIVITIES | {reference.ACTIVITIES} |" in SPEC
    for name in ("THRESHOLD[3]", "CLIP[3]", "COHERENCE[2]"):
        values = getattr(reference, name.split("[")[0])
        assert f"| {name} | {', '.join(map(str, values))} |" in SPEC, name
    middles = f"{reference.ABOVE1}, {reference.ABOVE}, {reference.BELOW}"
    assert f"| ABOVE1, ABOVE, BELOW | {middles} |" in SPEC
    for layers in reference.LAYERS.values():
        passes, ends = zip(*layers, strict=True)
        assert f"| pass | {' | '.join(map(str, passes))} |" in SPEC
        assert f"| zones up to but without | {' | '.join(map(str, ends))} |" in SPEC
    assert " ".join(map(str, reference.PERCEPTUAL)) in " ".join(SPEC.split())
    assert " ".join(map(str, reference.DECISION_KIND)) in SPEC
    for places in (reference.OWN, reference.OTHER):
        assert " ".join(f"({y},{x})" for y, x in places).replace("-", "−") in SPEC
    for row in reference.INVERSE:
        assert " ".join(map(str, row)).replace("-", "−") in " ".join(SPEC.split())
    for row in reference.USUAL:
        assert f"({', '.join(map(str, row))})".replace("-", "−") in SPEC
    for name in ("RESIDUAL_LEARNING", "START", "FLOOR"):
        assert f" {getattr(reference, name)}" in SPEC, name
    assert " ".join(f"({y},{x})" for y, x in reference.TAPS).replace("-", "−") in SPEC
