"""What notebooks show: the parts of an archive, an archive itself, figures."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

import femto
from femto import anatomy, display, samples
from femto.coding import blocks


@pytest.fixture(scope="module")
def picture():
    """Smooth, with an edge and some noise; neither side is a multiple of 8."""
    random = np.random.default_rng(3)
    y, x = np.mgrid[:100, :140]
    shade = 90 + 40 * np.sin(x / 30) + 60 * (x + y > 120)
    grey = shade[..., None] + random.normal(0, 4, (100, 140, 1)) + [0, 10, -20]
    return np.clip(grey, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def archive(picture):
    return femto.encode(picture, quality=70, source="a <b>.png")


def test_blocks_cover_the_picture_once(archive, picture):
    for plane in range(3):
        count = np.zeros((128, 160), int)
        for y, x, size, label in anatomy.block_map(archive, plane=plane):
            assert size in (8, 16, 32)
            assert label == 0 or (size == 8 and plane == 0 and 0 < label < 32)
            count[y : y + size, x : x + size] += 1
        assert (count[: picture.shape[0], : picture.shape[1]] == 1).all()
        assert count.max() == 1
    with pytest.raises(ValueError, match="planes 0 to 2"):
        anatomy.block_map(archive, plane=3)


def test_all_components_are_the_decoded_picture(archive, picture):
    assert np.array_equal(anatomy.decode_components(archive, 64), femto.decode(archive))
    errors = [
        np.mean((anatomy.decode_components(archive, n).astype(float) - picture) ** 2)
        for n in (0, 1, 10, 64)
    ]
    assert errors == sorted(errors, reverse=True)


def test_score_maps_say_where_there_is_something(archive):
    edge = anatomy.score_map(archive, 1)
    assert edge.shape == (13, 18)
    assert edge.any()
    with pytest.raises(ValueError, match="components 0 to 63"):
        anatomy.score_map(archive, 64)


def test_layers_are_passes_over_all_components(archive, picture):
    layers = anatomy.layers(archive)
    assert len(layers) == femto.info(archive)["layers"]
    scores = anatomy.score_map(archive, 1)
    for n, (step, first, stop) in enumerate(layers, 1):
        part = femto.truncate(archive, layers=n)
        assert anatomy.layers(part) == layers[:n]
        assert first == (layers[n - 2].stop % 64 if n > 1 else 0)
        if stop == 64:
            known = step * anatomy.score_map(part, 1)
            assert np.abs(known - scores).max() < step
    assert [layer.step for layer in layers if layer.stop == 64] == [8, 4, 2, 1]
    fast = femto.encode(picture, effort="fast")
    assert {layer.step for layer in anatomy.layers(fast)} == {1}


def test_bases_are_orthonormal_and_class_0_is_the_cosine_basis():
    bases = anatomy.bases()
    flat = bases.reshape(len(bases), 64, 64)
    assert np.abs(flat @ flat.transpose(0, 2, 1) - np.eye(64)).max() < 1e-5
    x = np.arange(8)
    assert np.allclose(bases[0, 0], 1 / 8)
    assert np.allclose(bases[0, 1], np.cos((2 * x + 1) * np.pi / 16) / np.sqrt(32), atol=1e-6)


def test_colour_planes_are_a_basis_in_which_the_first_holds_most(picture):
    planes = anatomy.colour_planes(picture)
    assert planes.shape == (3, 100, 140)
    back = blocks.colour_matrices(blocks.choose_colour(picture))[1]
    assert np.allclose(np.einsum("pyx,pc->yxc", planes, back), picture - 128.0, atol=1e-3)
    energy = ((planes - planes.mean((1, 2), keepdims=True)) ** 2).mean((1, 2))
    assert energy[0] > 10 * energy[1:].max()


def test_patches_are_the_whole_blocks_row_by_row():
    plane = np.arange(20 * 30).reshape(20, 30)
    patches = anatomy.patches(plane)
    assert patches.shape == (6, 64)
    assert np.array_equal(patches[4], plane[8:16, 8:16].ravel())


def shown_picture(bundle) -> Image.Image:
    data = re.search(r"data:image/png;base64,([^\"]+)", bundle["text/html"])[1]
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_an_archive_shows_itself(archive, tmp_path):
    (tmp_path / "a.laff.gz").write_bytes(archive)
    parsed = femto.parse(tmp_path / "a.laff.gz")
    bundle = parsed._repr_mimebundle_()
    assert np.array_equal(np.asarray(shown_picture(bundle)), femto.decode(archive))
    line = bundle["text/plain"]
    assert "a <b>.png" in line and "140 × 100 RGB, 8 bits" in line
    assert f"{len(archive):,} bytes" in line
    assert "a &lt;b&gt;.png" in bundle["text/html"] and "<b>" not in bundle["text/html"]


def test_large_archives_are_shown_small_and_coarsely(archive, monkeypatch):
    monkeypatch.setattr(display, "PREVIEW", 70)
    monkeypatch.setattr(display, "COARSE_ABOVE", 1000)
    bundle = femto.parse(archive)._repr_mimebundle_()
    assert shown_picture(bundle).size == (70, 50)
    assert "first layer only" in bundle["text/plain"]
    monkeypatch.setattr(display, "FACTS_ABOVE", 1000)
    bundle = femto.parse(archive)._repr_mimebundle_()
    assert "too large to show" in bundle["text/plain"]
    assert "<img" not in bundle["text/html"]


def test_16_bits_are_shown_in_8():
    deep = np.array([[0, 65535], [32768, 257]], np.uint16)
    assert samples.to_bytes(deep).tolist() == [[0, 255], [128, 1]]
    assert np.asarray(Image.open(io.BytesIO(display.png(deep)))).tolist() == [[0, 255], [128, 1]]


@pytest.fixture
def figures():
    pytest.importorskip("matplotlib").use("Agg")
    from femto.anatomy import figures

    yield figures
    figures.plt.close("all")


def test_figures_draw_blocks_tiles_and_pictures(figures, archive, picture):
    figure, axes = figures.plt.subplots(1, 3)
    blocks = anatomy.block_map(archive)
    figures.draw_blocks(axes[0], picture, blocks)
    squares, dark, light = axes[0].collections
    assert len(squares.get_paths()) == sum(block.label > 0 for block in blocks)
    assert len(dark.get_segments()) == len(light.get_segments()) == len(blocks)
    figures.draw_blocks(axes[1], picture, blocks, zoom=(40, 40, 32))
    assert axes[1].get_xlim() == (39.5, 71.5)
    assert len(axes[1].collections[1].get_segments()) < len(blocks)
    figures.draw_tiles(axes[2], anatomy.bases()[3, :16])
    figure.canvas.draw()
    shown = figures.show({"one": picture, "two": picture[..., 0]}, columns=1)
    assert [axis.get_title() for axis in shown.axes] == ["one", "two"]


@pytest.mark.parametrize("planes", [1, 3])
def test_curves_are_rates_in_bits_per_pixel(figures, picture, planes, monkeypatch):
    image = picture if planes == 3 else picture[..., 0]
    monkeypatch.setattr(figures, "QUALITIES", {"femto": (30, 80), "JPEG": (40, 90)})
    found = figures.curves(image, ("femto", "JPEG"))
    for codec, quality in (("femto", 80), ("JPEG", 90)):
        data, decoded = figures.compress(codec, image, quality)
        assert found[codec][-1] == pytest.approx(
            (8 * len(data) / (100 * 140), figures.psnr(image, decoded))
        )
    assert (np.diff(found["femto"], axis=0) > 0).all()
    double = found["JPEG"] * [2, 1]
    assert figures.share_of_bytes(double, found["JPEG"]) == pytest.approx(2)


def test_a_folder_without_pictures_is_told(figures, tmp_path, picture):
    with pytest.raises(femto.LaffError, match="no pictures there"):
        figures.open_picture(tmp_path, "a.png")
    Image.fromarray(picture).save(tmp_path / "b.png")
    path, pixels = figures.open_picture(tmp_path, "a.png", crop=64)
    assert path.name == "b.png"
    assert np.array_equal(pixels, picture[18:82, 38:102])
