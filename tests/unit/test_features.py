"""Features read from archives, beside plain NumPy on what the decoder sees."""

import dataclasses
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from blocky import picture

import femto
from femto import codec, container, pictures
from femto.coding import kstrings
from femto.coding.blocks import DCT, GREY_AXES, ZIGZAG, colour_matrices, dct_matrix
from femto.learning import feature_map


def reference_scores(archive, layers):
    """Float pixels of each tile by the plain inverse DCT, then their 8 x 8 DCT: (rows, columns,
    planes, 64)."""
    parsed = codec.parse(archive)
    header = parsed.header
    out = np.zeros((-(-header.height // 8), -(-header.width // 8), header.channels, 64))
    for tile in codec.tile_grid(header.height, header.width, parsed.tile):
        field, basis = codec.decode_field(parsed, tile.index, layers=layers)
        scores = kstrings.dequantise(field, parsed.step, basis)
        colour = colour_matrices(field.colour)[1] if header.channels == 3 else None
        layout = field.layout
        lattice = scores.reshape(layout.planes, 65, -1, layout.stride)
        sizes = field.sizes.reshape(2, -1, layout.stride)
        pixels = np.zeros((8 * layout.rows + 32, 8 * layout.columns + 32))
        small = dct_matrix(8)
        for p in range(layout.planes):
            for y in range(layout.rows):
                for x in range(layout.columns):
                    s = sizes[min(p, 1), y + 8, x + 8]
                    r = 1 << s
                    if y % r or x % r:
                        continue
                    block = np.zeros((8 * r, 8 * r))
                    for z, (a, b) in enumerate(ZIGZAG):
                        block[a * r : a * r + r, b * r : b * r + r] = lattice[
                            p, z, y + 8 : y + 8 + r, x + 8 : x + 8 + r
                        ]
                    basis = DCT[s, : 8 * r, : 8 * r].astype(float)
                    pixels[8 * y : 8 * (y + r), 8 * x : 8 * (x + r)] = basis.T @ block @ basis
            for y in range(layout.rows):
                for x in range(layout.columns):
                    cell = small @ pixels[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] @ small.T
                    out[tile.y // 8 + y, tile.x // 8 + x, p] = cell[ZIGZAG[:, 0], ZIGZAG[:, 1]]
        window = np.s_[
            tile.y // 8 : tile.y // 8 + layout.rows, tile.x // 8 : tile.x // 8 + layout.columns
        ]
        if colour is not None:
            rgb = np.einsum("yxpk,pc->yxck", out[window], colour)
            out[window] = np.einsum("yxck,qc->yxqk", rgb, GREY_AXES)
    return out / header.levels.scale


CASES = {
    "grey": (picture(150, 203), 50),
    "rgb": (picture(97, 120, 3), 70),
    "16 bit": (picture(90, 130, 1, 65535), 70),
    "16 bit rgb": (picture(64, 72, 3, 65535), 80),
    "one pixel": (np.full((1, 1), 77, np.uint8), 50),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    image, quality = CASES[request.param]
    return image, femto.encode(image, quality=quality)


@pytest.mark.parametrize("components", [1, 3, 8, 10, 64])
def test_scores_are_those_of_the_reference(case, components):
    _, archive = case
    found = femto.features(archive, components=components)
    layers = feature_map.layers_of(components, passes=codec.parse(archive).passes)
    expected = reference_scores(archive, layers)[..., :components]
    assert found.scores.shape == expected.shape
    assert found.scores.dtype == np.float32
    assert np.abs(found.scores - expected).max() < 1e-5 * 2**11


def test_more_layers_come_closer_to_the_picture(case):
    """All layers together differ from the picture by the quantiser's error: the archive's PSNR,
    but for what the decoder's filter does: gain on edges, lose on these pictures' noise."""
    image, archive = case
    if min(image.shape[:2]) < 8:
        return  # no cell lies inside the picture
    levels = codec.parse(archive).header.levels
    pixels = (image - levels.middle) / levels.scale
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels @ GREY_AXES.T
    h, w = (n // 8 * 8 for n in image.shape[:2])
    cells = pixels[:h, :w].reshape(h // 8, 8, w // 8, 8, -1)
    c = dct_matrix(8)
    expected = np.einsum("ui,yixjp,vj->yxpuv", c, cells, c)[..., ZIGZAG[:, 0], ZIGZAG[:, 1]]
    errors = []
    for layers in (4, 8, 11, 13):
        found = femto.features(archive, components=64, layers=layers)
        errors.append(np.mean((found.scores[: h // 8, : w // 8] - expected) ** 2))
    assert errors == sorted(errors, reverse=True)
    decoded = np.mean((image.astype(float) - femto.decode(archive)) ** 2) / levels.scale**2
    assert 0.85 * decoded < errors[-1] < 1.3 * decoded


def test_sizes_and_classes_are_the_blocks(case):
    image, archive = case
    found = femto.features(archive)
    parsed = codec.parse(archive)
    field, _ = codec.decode_field(parsed, 0)
    layout = field.layout
    inside = np.s_[8 : 8 + layout.rows, 8 : 8 + layout.columns]
    assert (found.classes == field.classes.reshape(-1, layout.stride)[inside]).all()
    for kind in range(found.sizes.shape[2]):
        assert (
            found.sizes[..., kind] == field.sizes[kind].reshape(-1, layout.stride)[inside]
        ).all()
    assert found.sizes.shape[2] == (1 if image.ndim == 2 else 2)
    assert found.sizes.max() <= 2
    words = found.words()
    assert (words[found.sizes[..., 0] == 2] == 33).all()
    assert (words[found.sizes[..., 0] == 0] < 32).all()


def test_all_sizes_and_trained_classes_are_tried():
    """The pictures of this file would else prove little."""
    words = np.unique(femto.features(femto.encode(CASES["grey"][0], quality=50)).words())
    assert {32, 33} < set(words.tolist())
    assert ((words > 0) & (words < 32)).sum() > 3


def haar_energies(smooth, gy, gx, grid):
    """Log energies of the Haar details of a part at three scales, by matrices."""
    found = []
    for _ in range(3):
        smooth = np.pad(smooth, [(0, n % 2) for n in smooth.shape], mode="edge")
        low, high = (
            [np.kron(np.eye(n // 2), [1, sign]) / 2**0.5 for n in smooth.shape] for sign in (1, -1)
        )
        for y, x in ((low, high), (high, low), (high, high)):
            details = y[0] @ smooth @ x[1].T
            rows, columns = details.shape
            part = details[gy * rows // grid :, gx * columns // grid :]
            part = part[
                : max((gy + 1) * rows // grid - gy * rows // grid, 1),
                : max((gx + 1) * columns // grid - gx * columns // grid, 1),
            ]
            found.append(np.log(1 + (part**2).mean()))
        smooth = low[0] @ smooth @ low[1].T
    return found


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("grid", [1, 3, 4])
def test_the_vector_is_that_of_plain_numpy(case, grid, colour):
    _, archive = case
    found = femto.features(archive, components=6)
    rows, columns, planes, _ = found.scores.shape
    scores = found.scores.astype(float) / (3**0.5 if planes == 3 else 1)
    if planes == 1 and colour:
        scores = np.concatenate([scores, np.zeros((rows, columns, 2, 6))], axis=2)
    words, expected, shares = found.words(), [], []
    for plane in range(3 if colour else 1):
        for gy in range(grid):
            for gx in range(grid):
                y, x = gy * rows // grid, gx * columns // grid
                part = np.s_[
                    y : max((gy + 1) * rows // grid, y + 1),
                    x : max((gx + 1) * columns // grid, x + 1),
                ]
                cells = scores[part][:, :, plane].reshape(-1, 6)
                expected.append(cells[:, 0].mean() / 8)
                expected.append(np.log(1 + cells[:, 0].var()))
                expected.extend(np.log(1 + (cells[:, 1:] ** 2).mean(0)))
                expected.extend(haar_energies(scores[:, :, plane, 0], gy, gx, grid))
                if plane == 0:
                    w = words[part]
                    shares += [(w < 32).mean(), (w == 32).mean(), (w == 33).mean()]
    expected += shares + [(words == n).mean() for n in range(34)]
    vector = found.vector(grid, colour=colour)
    names = feature_map.vector_names(6, grid, colour=colour)
    assert vector.dtype == np.float32
    assert len(vector) == len(names) == len(set(names)) == len(expected)
    np.testing.assert_allclose(vector, expected, rtol=1e-3, atol=2e-3)


def test_tiles_do_not_show():
    image = picture(200, 330, 3)
    whole = femto.features(femto.encode(image, psnr=44), layers=13)
    coded = [
        codec.encode_tile(image[t.y : t.y + t.height, t.x : t.x + t.width], step=4.0)
        for t in codec.tile_grid(200, 330, 96)
    ]
    header = codec.ImageHeader(330, 200, "RGB", 8)
    basis = codec.load_basis("photo")
    tiled = femto.features(
        container.write(
            header,
            basis_name=basis.name,
            basis_sha256=basis.sha256,
            step=4.0,
            tile=96,
            blocks=[t.blocks for t in coded],
            layers=[list(s) for s in zip(*(t.layers for t in coded), strict=True)],
        ),
        layers=13,
        threads=2,
    )
    assert tiled.scores.shape == whole.scores.shape
    assert tiled.sizes.shape == whole.sizes.shape
    error = np.sqrt(np.mean((tiled.scores - whole.scores)[:, :-1] ** 2))
    assert error < 6  # both are coarser than the picture by some grey levels, no more


def test_grey_scales_of_8_and_16_bits_and_of_rgb_give_like_vectors():
    grey = picture(96, 96)
    pictures = [grey, grey.astype(np.uint16) * 257, np.repeat(grey[..., None], 3, axis=2)]
    a, b, c = (
        femto.features(femto.encode(p, psnr=50), components=10, layers=13).vector()
        for p in pictures
    )
    names = feature_map.vector_names(10)
    means = np.array([n.endswith("_mean") for n in names])
    assert np.abs(a - b)[means].max() < 0.2
    assert np.abs(a - c)[means].max() < 0.2
    # Factors of 256 or √3 would add 11 or 1 to the logarithms.
    pooled = np.array([not n.startswith(("size", "class")) for n in names])
    assert np.abs(a - b)[pooled].mean() < 0.25
    assert np.abs(a - c)[pooled].mean() < 0.25


def test_quality_does_not_scale_the_scores():
    image = picture(384, 384)
    low, high = (femto.features(femto.encode(image, quality=q)).scores for q in (60, 95))
    assert abs(np.polyfit(high[..., 0].ravel(), low[..., 0].ravel(), 1)[0] - 1) < 0.02


def test_a_truncated_archive_lacks_what_was_cut(case):
    _, archive = case
    short = femto.truncate(archive, layers=2)
    whole = femto.features(archive, components=3)
    assert (femto.features(short, components=3).scores == whole.scores).all()
    more = femto.features(short, components=10)
    assert more.scores.shape[3] == 10
    assert (more.classes == whole.classes).all()
    assert np.allclose(more.scores[..., :3], whole.scores, atol=1e-3)


@pytest.mark.parametrize("plain", [False, True])
def test_only_what_is_needed_must_have_arrived(plain, tmp_path):
    """The first layers of a long archive can be read while its end is missing or damaged."""
    archive = femto.encode(picture(400, 500, 3, seed=5), quality=95)
    data = gzip.decompress(archive) if plain else archive
    expected = femto.features(data, components=3)
    share = len(femto.truncate(archive, layers=2)) / len(archive)
    assert share < 0.5
    path = tmp_path / "cut.laff"
    path.write_bytes(data[: int(len(data) * (share + 0.25))])
    found = femto.features(path, components=3)
    assert (found.scores == expected.scores).all()
    with pytest.raises(femto.LaffError, match=r"cut\.laff: .*cut short"):
        femto.features(path, components=3, layers=13)
    path.write_bytes(data[: int(len(data) * share / 2)])
    with pytest.raises(femto.LaffError, match="cut short"):
        femto.features(path, components=3)


def test_any_key_order_and_white_space_will_do():
    archive = femto.encode(picture(64, 64), quality=60, metadata={"strings": ["]]", ['["]']]})
    top = json.loads(gzip.decompress(archive))
    expected = femto.features(archive, components=3).scores
    for text in (
        json.dumps(dict(reversed(top.items())), indent=1),
        json.dumps({"strings": top.pop("strings"), **top}, separators=(",", ":")),
    ):
        assert (femto.features(text.encode(), components=3).scores == expected).all()


def test_damage_is_refused_in_one_line(tmp_path):
    archive = femto.encode(picture(64, 64), quality=60)
    top = json.loads(gzip.decompress(archive))
    top["strings"][0][0] = top["strings"][1][0]
    path = tmp_path / "broken.laff.gz"
    for data in (b"", b"no archive", archive[:40], gzip.compress(json.dumps(top).encode())):
        path.write_bytes(data)
        with pytest.raises(femto.LaffError) as caught:
            femto.features(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(femto.LaffError, match="no such file"):
        femto.features(tmp_path / "none.laff.gz")


@pytest.mark.parametrize("components", [0, 65, -1, True, 2.5, "10"])
def test_impossible_components_are_refused(components):
    with pytest.raises(femto.LaffError, match="1 to 64"):
        femto.features(b"", components=components)


@pytest.mark.parametrize("grid", [0, 65, True, 2.0])
def test_impossible_grids_are_refused(grid):
    found = femto.features(femto.encode(picture(16, 16)))
    with pytest.raises(femto.LaffError, match="1 to 64"):
        found.vector(grid)


def test_tiles_off_the_grid_are_refused(monkeypatch):
    archive = codec.parse(femto.encode(picture(16, 16)))
    monkeypatch.setattr(codec, "parse", lambda *a, **k: dataclasses.replace(archive, tile=20))
    with pytest.raises(femto.LaffError, match="20 pixels"):
        femto.features(b"")


GOLDEN = sorted((Path(__file__).parents[1] / "conformance" / "golden").glob("*.laff.gz"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name.removesuffix(".laff.gz"))
def test_golden_archives_keep_their_features(path):
    """Of grey and RGB pictures, of 8 and 16 bits: the cells' means are those of the pixels that
    are committed beside the archive."""
    found = femto.features(path, components=64, layers=13)
    with pictures.open_page(path.with_name(path.name.replace("laff.gz", "decoded.png"))) as reader:
        pixels = np.asarray(reader[: found.height, : found.width])
    height, width = (n // 8 * 8 for n in pixels.shape[:2])
    rows, columns = -(-pixels.shape[0] // 8), -(-pixels.shape[1] // 8)
    planes = 1 if pixels.ndim == 2 else 3
    assert found.scores.shape == (rows, columns, planes, 64)
    assert len(found.vector()) == len(feature_map.vector_names(64))
    if not height or not width:
        return
    cells = pixels[:height, :width].reshape(height // 8, 8, width // 8, 8, planes)
    levels = codec.parse(path).header.levels
    means = (cells.mean((1, 3)) - levels.middle) / levels.scale
    means = means[..., 0] if planes == 1 else means @ GREY_AXES[0]
    difference = found.scores[: height // 8, : width // 8, 0, 0] / 8 - means
    # The decoder's filter and the rounding of pixels move a mean no further than quantising did:
    # half a step of a score that is 8 times the mean.
    assert np.median(np.abs(difference)) < femto.info(path)["step"] / levels.scale / 16
