"""The first layer read by itself, beside all of it read as a whole; and small pictures."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from blocky import picture
from PIL import Image

import femto
from femto import codec
from femto.__main__ import main
from femto.basis.bases import basis_of, load_basis
from femto.coding import cells, first_layer, kernels, kstrings
from femto.coding.blocks import CELL, ZIGZAG, Layout, to_pixels
from femto.coding.contexts import Field
from femto.container import reading, text

GOLDEN = sorted((Path(__file__).parents[1] / "conformance" / "golden").glob("*.laff.gz"))


def by_itself(parsed, index, layers):
    """The first layer of a tile as `first_layer` reads it."""
    header = parsed.header
    tile = codec.tile_grid(header.height, header.width, parsed.tile)[index]
    return first_layer.read(
        parsed.blocks[index],
        parsed.layers[0][index] if layers else None,
        Layout(tile.height, tile.width, header.channels),
        parsed.passes,
        np.float32(parsed.step) / kstrings.weights_of(parsed.tune)[0],
        basis_of(parsed),
    )


def assert_same(parsed, index, layers):
    """What `first_layer` reads is what `kstrings` decodes, bit for bit."""
    found = by_itself(parsed, index, layers)
    field, basis = codec.decode_field(parsed, index, layers=layers)
    scores = kstrings.dequantise(field, parsed.step, basis)
    kinds, planes, layout = min(field.layout.planes, 2), field.layout.planes, field.layout
    assert found.colour == field.colour
    assert (found.sizes[:kinds] == field.sizes[:kinds]).all()
    assert (found.classes == field.classes).all()
    inside = np.zeros((planes, layout.cells // layout.stride, layout.stride), bool)
    inside[:, CELL : CELL + layout.rows, CELL : CELL + layout.columns] = True
    whole = scores.reshape(planes, 65, -1)[:, 0][inside.reshape(planes, -1)]
    own = found.scores.reshape(planes, -1)[inside.reshape(planes, -1)]
    assert whole.tobytes() == own.tobytes()
    for components in (1, 3, 64):
        a = cells.cells_of(scores, field, layers, components)
        b = cells.cells_of(found.scores, found, layers, components)
        assert a.scores.tobytes() == b.scores.tobytes()
        assert (a.classes == b.classes).all() and (a.sizes[:kinds] == b.sizes[:kinds]).all()


@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name.removesuffix(".laff.gz"))
def test_golden_archives_say_the_same(path, layers):
    assert_same(codec.parse(path), 0, layers)


KINDS = {
    "grey, four passes": (picture(150, 203), {"quality": 80}),
    "grey, one pass": (picture(150, 203, seed=2), {"quality": 30}),
    "rgb, four passes": (picture(100, 133, 3), {"quality": 90}),
    "rgb, one pass": (picture(97, 130, 3, seed=3), {"quality": 40}),
    "finest steps": (picture(70, 90, 3, 65535), {"quality": 100}),
    "large magnitudes": (picture(64, 64, 1, 65535), {"quality": 100, "effort": "fast"}),
    "perceptual": (picture(90, 61, 3, seed=4), {"quality": 70, "tune": "perceptual"}),
    "no classes": (picture(60, 60, seed=5), {"quality": 60, "effort": "fast"}),
    "flat": (np.full((50, 70, 3), 40, np.uint8), {"quality": 75}),
    "noise": (
        np.random.default_rng(0).integers(0, 256, (61, 47, 3), dtype=np.uint8),
        {"quality": 95},
    ),
    "one pixel": (np.full((1, 1), 77, np.uint8), {"quality": 50}),
    "one row": (picture(1, 300), {"quality": 75}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_all_kinds_say_the_same(kind):
    image, options = KINDS[kind]
    parsed = codec.parse(femto.encode(image, **options))
    assert_same(parsed, 0, 1)


def test_the_room_of_one_picture_is_as_new_for_the_next():
    """Of the same shape, which takes the same room, and of others in between."""
    small, *alike = (
        codec.parse(femto.encode(picture(*shape, seed=seed), quality=75))
        for seed, shape in enumerate([(33, 40), (90, 64), (90, 64)])
    )
    for parsed in (*alike, small, *alike):
        assert_same(parsed, 0, 1)


def test_any_string_says_the_same():
    """Also what no encoder writes: a decoder of strings from strangers must not differ."""
    random = np.random.default_rng(7)
    basis = load_basis()
    for case in range(60):
        planes, passes = (1, 3)[case % 2], (4, 1)[case // 2 % 2]
        layout = Layout(*random.integers(1, 100, 2).tolist(), planes)
        # Long runs of equal bytes make large numbers.
        strings = [
            np.repeat(random.integers(0, 256, 400, dtype=np.uint8), random.integers(1, 9)).tobytes()
            for _ in range(2)
        ]
        if case % 5 == 0:
            strings[case % 2] = bytes([0, 255][case % 3 > 0] for _ in range(random.integers(0, 40)))
        field = Field(layout, passes)
        kstrings.decode(strings[0], [strings[1]], basis, field)
        scores = kstrings.dequantise(field, 3.0, basis)
        found = first_layer.read(*strings, layout, passes, np.float32(3), basis)
        a = cells.cells_of(scores, field, 1, 1)
        b = cells.cells_of(found.scores, found, 1, 1)
        assert a.scores.tobytes() == b.scores.tobytes(), case
        kinds = min(planes, 2)
        assert (a.sizes[:kinds] == b.sizes[:kinds]).all() and (a.classes == b.classes).all()


def test_features_of_all_components_start_with_those_of_the_first_layer():
    """By themselves or with others, as long as no further layer is read."""
    archive = femto.truncate(femto.encode(picture(120, 90, 3), quality=85), layers=1)
    one, many = femto.features(archive), femto.features(archive, components=10)
    assert one.scores.tobytes() == np.ascontiguousarray(many.scores[..., :1]).tobytes()


def test_tiles_lie_where_they_belong():
    image = picture(1030, 1050)
    parsed = codec.parse(femto.encode(image, quality=40))
    assert len(parsed.blocks) == 4
    for index in range(4):
        assert_same(parsed, index, 1)


def test_plain_python_says_the_same():
    """Without any compiled code."""
    archive = femto.encode(picture(20, 37, 3), quality=80)
    code = (
        "import sys, femto; found = femto.features(sys.stdin.buffer.read()); "
        "small = femto.decode(bytes.fromhex(sys.argv[1]), scale=4); "
        "sys.stdout.buffer.write(found.scores.tobytes() + small.tobytes())"
    )
    made = subprocess.run(
        [sys.executable, "-c", code, archive.hex()],
        input=archive,
        stdout=subprocess.PIPE,
        env=os.environ | {"FEMTO_JIT": "0", "PYTHONPATH": str(Path(femto.__file__).parents[1])},
        check=True,
    ).stdout
    assert kernels.road().name != "plain"
    found = femto.features(archive)
    assert made == found.scores.tobytes() + femto.decode(archive, scale=4).tobytes()


# --- small pictures -----------------------------------------------------------------------------


def reference(archive, scale, layers):
    """A small picture by the plain road: the unfiltered planes of all pixels, of each 8 x 8 of them
    the lowest frequencies, of these fewer pixels. float64."""
    parsed = codec.parse(archive)
    header = parsed.header
    n = 8 // scale
    out = np.zeros((-(-header.height // scale), -(-header.width // scale), header.channels))
    for tile in codec.tile_grid(header.height, header.width, parsed.tile):
        coded = codec.decode_cells(parsed, tile.index, layers=layers, components=64)
        rows, columns, planes, _ = coded.scores.shape
        block = np.zeros((rows, columns, planes, 8, 8))
        block[..., ZIGZAG[:, 0], ZIGZAG[:, 1]] = coded.scores
        low = scipy.fft.idctn(block[..., :n, :n], axes=(3, 4), norm="ortho") * n / 8
        low = low.transpose(2, 0, 3, 1, 4).reshape(planes, rows * n, columns * n)
        height, width = -(-tile.height // scale), -(-tile.width // scale)
        y, x = tile.y // scale, tile.x // scale
        pixels = to_pixels(
            np.ascontiguousarray(low[:, :height, :width], np.float32),
            coded.colour,
            np.uint16,
            header.levels,
            header.limits,
        )
        out[y : y + height, x : x + width] = pixels.reshape(height, width, -1)
    return out[..., 0] if header.channels == 1 else out


@pytest.mark.parametrize("scale, layers", [(8, 1), (4, 3), (2, 4)])
@pytest.mark.parametrize("kind", ["grey, four passes", "rgb, four passes", "finest steps"])
def test_a_small_picture_is_the_lowest_frequencies_of_every_cell(kind, scale, layers):
    image, options = KINDS[kind]
    archive = femto.encode(image, **options)
    small = femto.decode(archive, scale=scale)
    height, width = image.shape[:2]
    assert small.shape[:2] == (-(-height // scale), -(-width // scale))
    assert small.shape[2:] == image.shape[2:] and small.dtype == image.dtype
    assert np.abs(small - reference(archive, scale, layers)).max() <= 1
    shorter = femto.truncate(archive, layers=layers)
    assert (femto.decode(shorter, scale=scale) == small).all()
    finer = femto.decode(archive, scale=scale, layers=13)
    assert np.abs(finer - reference(archive, scale, 13)).max() <= 1


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_small_picture_of_all_layers_is_the_picture_shrunk(scale):
    """Means of scale x scale pixels; nothing is left but the filter and what lies between the
    two ways to shrink."""
    image = picture(160, 240, 3)
    archive = femto.encode(image, quality=98)
    small = femto.decode(archive, scale=scale, layers=13).astype(float)
    means = image.reshape(160 // scale, scale, 240 // scale, scale, 3).mean((1, 3))
    assert np.abs(small - means).mean() < (1 if scale == 8 else 4)
    bands = list(femto.decode_bands(archive, scale=scale, layers=13))
    assert (np.concatenate([band for _, band in bands]) == small).all()


def test_pixels_of_an_eighth_are_the_features():
    """Component 0 is 8 times the mean less the middle grey."""
    archive = femto.encode(picture(96, 120), quality=75)
    scores = femto.features(archive).scores[:, :, 0, 0]
    expected = np.clip(np.rint(scores / 8 + 128), 0, 255)
    assert (femto.decode(archive, scale=8) == expected).all()


def test_many_tiles_make_one_small_picture():
    image = picture(1030, 1050)
    archive = femto.encode(image, quality=40)
    small = femto.decode(archive, scale=8)
    assert small.shape == (129, 132)
    assert (small == femto.decode(archive, scale=8, threads=2)).all()
    assert (small == femto.decode(codec.parse(archive), scale=8)).all()
    bands = dict(femto.decode_bands(archive, scale=8))
    assert list(bands) == [0, 128]
    means = image[:1024, :1048].reshape(128, 8, 131, 8).mean((1, 3))
    assert np.corrcoef(small[:128, :131].ravel(), means.ravel())[0, 1] > 0.98


def test_floating_point_samples_come_back_small():
    image = picture(64, 80).astype(np.float32) / 7
    small = femto.decode(femto.encode(image, quality=95), scale=8, layers=13)
    assert small.dtype == np.float32 and small.shape == (8, 10)
    assert np.abs(small - image.reshape(8, 8, 10, 8).mean((1, 3))).max() < 0.5


def test_only_the_first_layers_must_have_arrived(tmp_path):
    archive = femto.encode(picture(300, 400, 3), quality=95)
    share = len(femto.truncate(archive, layers=1))
    path = tmp_path / "cut.laff.gz"
    path.write_bytes(archive[: share + 3000])
    assert (femto.decode(path, scale=8) == femto.decode(archive, scale=8)).all()
    with pytest.raises(femto.LaffError, match="cut short"):
        femto.decode(path, scale=2)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"scale": 3}, "choose 1, 2, 4 or 8"),
        ({"scale": True}, "choose 1, 2, 4 or 8"),
        ({"scale": 8, "region": (0, 0, 8, 8)}, "without a region"),
        ({"scale": 8, "fraction": 0.5}, "without a fraction"),
        ({"scale": 8, "layers": 0}, "1 or more"),
        ({"scale": 8, "max_pixels": 11}, "12 pixels are more"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    archive = femto.encode(picture(24, 32), quality=75)
    with pytest.raises(femto.LaffError, match=message):
        femto.decode(archive, **options)


def test_tiles_off_the_grid_cannot_be_made_small():
    archive = dataclasses.replace(codec.parse(femto.encode(picture(16, 16))), tile=20)
    with pytest.raises(femto.LaffError, match="20 pixels"):
        femto.decode(archive, scale=8)


def test_little_is_read_of_a_long_file(tmp_path):
    """Bytes that are read grow with the first layer, not with the archive."""
    path = tmp_path / "long.laff.gz"
    path.write_bytes(femto.encode(picture(384, 384, seed=3), quality=98))
    assert path.stat().st_size > 60_000
    read = []

    class Counted:
        def __init__(self, stream):
            self._stream = stream

        def read(self, nbytes):
            data = self._stream.read(nbytes)
            read.append(len(data))
            return data

    with path.open("rb") as stream:
        counted = text.Text(Counted(stream), "long", path.stat().st_size)
        (parsed,) = reading._Reading(lambda: counted, "long", layers=1).states()
    assert len(parsed.layers) == 1
    assert sum(read) < 4 * len(femto.truncate(path, layers=1)) < path.stat().st_size


def test_the_program_makes_small_pictures(tmp_path, capsys):
    archive = tmp_path / "photo.laff.gz"
    resolution = {"resolution": [300, 300, "inch"]}
    archive.write_bytes(femto.encode(picture(70, 90, 3), quality=75, metadata=resolution))
    out = tmp_path / "small"
    assert main(["decompress", str(archive), "-o", str(out), "--scale", "8"]) == 0
    assert "in full size" in capsys.readouterr().out
    assert "dpi" not in Image.open(out / "photo.png").info
    assert main(["decompress", str(archive), "-o", str(tmp_path / "whole.png")]) == 0
    assert "dpi" in Image.open(tmp_path / "whole.png").info
    made = np.asarray(Image.open(out / "photo.png"))
    assert (made == femto.decode(archive, scale=8)).all()
    # Another scale is another picture: the one that is there stays.
    assert main(["decompress", str(archive), "-o", str(out), "--scale", "4"]) == 1
    assert "other options" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["decompress", str(archive), "-o", str(out), "--scale", "8", "--fraction", "0.5"])
    assert ended.value.code == 2
    assert "--scale goes without" in capsys.readouterr().err
