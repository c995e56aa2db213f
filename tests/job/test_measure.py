"""PSNR and SSIM against other implementations, and the pictures of the report."""

import base64
import io

import numpy as np
import pytest
from job_tools import picture
from PIL import Image

import femto
from femto import codec
from femto.codec import tile_grid
from femto.job import measure
from femto.samples import levels_of


def noisy(pixels, seed=0, sigma=6):
    noise = np.random.default_rng(seed).normal(0, sigma, pixels.shape)
    peak = np.iinfo(pixels.dtype).max
    return np.clip(np.rint(pixels + noise), 0, peak).astype(pixels.dtype)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_scikit_image(channels):
    metrics = pytest.importorskip("skimage.metrics")
    a = picture(90, 110, 3, channels=channels)
    b = noisy(a)
    expected = metrics.structural_similarity(
        measure.luma(a),
        measure.luma(b),
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert measure.Similarity.of(a, b, 255).mean == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("size", [(90, 110), (11, 40), (5, 7)])
def test_equal_tiles_are_not_measured_for_long(size):
    a = picture(*size, 3)
    expected = measure.ssim_map(measure.luma(a), measure.luma(a), 255)
    found = measure.Similarity.of(a, a.copy(), 255)
    assert (found.windows, found.total) == (expected.size, pytest.approx(expected.sum()))


def test_sums_over_parts_equal_the_whole():
    pairs = [(picture(40, 50, s), noisy(picture(40, 50, s))) for s in range(3)]
    parts = [measure.Similarity.of(a, b, 255) for a, b in pairs]
    whole = sum(parts, measure.Similarity())
    assert whole.windows == 3 * parts[0].windows
    assert whole.mean == pytest.approx(np.mean([p.mean for p in parts]))


SAMPLES = {
    "colour": lambda: picture(90, 120, 1),
    "grey": lambda: picture(90, 120, 2, channels=1),
    "deep": lambda: picture(90, 120, 3, channels=1).astype(np.uint16) * 257,
    "deep colour of 12 bits": lambda: picture(70, 80, 4).astype(np.uint16) * 16,
    "clipped": lambda: noisy(np.where(picture(90, 120, 5) > 128, 255, 0).astype(np.uint8)),
    "constant": lambda: np.full((40, 50), 7, np.uint8),
    "tiles": lambda: picture(60, 2100, 6, channels=1),
}
PLANS = {
    "as always": ({}, {}),
    "filtered strongly": ({"quality": 5}, {}),
    "fast": ({"quality": 90}, {"effort": "fast"}),
    "perceptual": ({}, {"tune": "perceptual"}),
    "to a ratio": ({"ratio": 12}, {}),
}


@pytest.mark.parametrize(
    ("kind", "plan"),
    [(kind, "as always") for kind in SAMPLES] + [("colour", plan) for plan in PLANS][1:],
)
def test_what_is_watched_is_what_the_archive_gives_back(kind, plan):
    """So the report's figures need no decoding."""
    pixels = SAMPLES[kind]()
    target, plan = PLANS[plan]
    rounds = []

    def watch(tile, levels, original, decoded):
        assert np.array_equal(original, pixels[tile.y : tile.y + 1024, tile.x : tile.x + 1024])
        rounds.append(tile)
        return decoded

    made = codec.encode_picture(
        pixels,
        target=target,
        method={"basis": "photo", "effort": "full", "tune": "psnr"} | plan,
        watch=watch,
    )
    whole = femto.decode(made.data)
    assert np.array_equal(np.concatenate(made.seen, axis=1), whole)
    assert len(rounds) % len(tile_grid(*pixels.shape[:2])) == 0
    assert made.sse == np.square(pixels.astype(np.int64) - whole).sum()
    assert made.data == femto.encode(pixels, **target, **plan)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (7, 3, 3), (11, 11)])
def test_pictures_smaller_than_a_window(shape):
    a = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    assert measure.Similarity.of(a, a, 255).mean == pytest.approx(1)


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (700, 500, 3), (1, 3, 3)])
def test_thumbnail_and_crops(shape):
    pixels = (np.indices(shape).sum(0) % 256).astype(np.uint8)
    width, height = measure.thumbnail_size(shape[1], shape[0])
    small = measure.thumbnail(pixels, width, height)
    assert small.shape == (height, width, *shape[2:])
    assert max(small.shape[:2]) <= measure.THUMBNAIL
    window = measure.busiest_window(pixels)
    data = measure.visual(small, pixels[window], pixels[window], None, levels_of(8))
    image = Image.open(io.BytesIO(base64.b64decode(data["original"])))
    shown = np.asarray(image.convert("RGB"))
    assert np.array_equal(
        shown[..., 0], pixels[window] if len(shape) == 2 else pixels[window][..., 0]
    )


def test_the_crop_shows_detail():
    pixels = np.full((900, 900), 50, np.uint8)
    pixels[600:760, 610:770] = np.random.default_rng(1).integers(0, 255, (160, 160))
    rows, columns = measure.busiest_window(pixels)
    assert rows.start <= 640 < rows.stop and columns.start <= 650 < columns.stop


def test_a_thumbnail_and_crops_from_tiles():
    y, x = np.mgrid[:1500, :2100]
    pixels = (y * 150 // 1500 + x * 100 // 2100).astype(np.uint8)
    pixels[1100:1300, 1300:1500] = np.random.default_rng(1).integers(0, 255, (200, 200))
    grid = tile_grid(1500, 2100)
    tile = measure.busiest_tile(pixels, grid)
    assert grid[tile][1:3] == (1024, 1024)
    watch = measure.Watch(2100, 1500, tile)
    seen = []
    for t in grid:
        part = pixels[t.y : t.y + t.height, t.x : t.x + t.width]
        seen.append(watch(t, levels_of(8), part, noisy(part)))
    facts = watch.facts(seen, None, levels_of(8))
    assert 0.1 < facts["ssim"] < 1
    size = measure.thumbnail_size(2100, 1500)
    joined = measure.join_pieces([s.piece for s in seen], *size)
    assert np.median(np.abs(joined - measure.thumbnail(pixels, *size))) < 1
    crop = np.asarray(Image.open(io.BytesIO(base64.b64decode(facts["visual"]["original"]))))
    assert crop.std() > 50
    bare = measure.Watch(2100, 1500, None)
    seen = [bare(grid[0], levels_of(8), pixels[:1024, :1024], pixels[:1024, :1024])]
    assert bare.facts(seen, None, levels_of(8)) == {"ssim": pytest.approx(1)}
