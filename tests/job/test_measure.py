"""PSNR and SSIM against other implementations, and the pictures of the report."""

import base64
import io

import numpy as np
import pytest
from job_tools import picture
from PIL import Image

from femto.codec import tile_grid
from femto.samples import levels_of
from femto_spark import measure


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
    fidelity = measure.Fidelity()
    fidelity.add_tile(a, b, 255)
    assert fidelity.ssim() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_psnr_of_a_known_error(dtype):
    a = np.full((20, 30), 100, dtype)
    b = a.copy()
    b[::2] += 3
    fidelity = measure.Fidelity()
    fidelity.add_tile(a, b, 255)
    assert fidelity.psnr(255) == pytest.approx(10 * np.log10(255**2 / 4.5))
    assert fidelity.psnr(4095) == pytest.approx(10 * np.log10(4095**2 / 4.5))


def test_sums_over_parts_equal_the_whole():
    pairs = [(picture(40, 50, s), noisy(picture(40, 50, s))) for s in range(3)]
    whole, parts = measure.Fidelity(), measure.Fidelity()
    for a, b in pairs:
        whole.add_tile(a, b, 255)
        one = measure.Fidelity()
        one.add_tile(a, b, 255)
        parts.add(measure.Fidelity(**vars(one)))
    assert vars(whole) == vars(parts)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (7, 3, 3), (11, 11)])
def test_pictures_smaller_than_a_window(shape):
    a = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    fidelity = measure.Fidelity()
    fidelity.add_tile(a, a, 255)
    assert fidelity.ssim() == pytest.approx(1)
    assert fidelity.psnr(255) == np.inf


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


def test_a_thumbnail_joined_from_tiles():
    y, x = np.mgrid[:1500, :2100]
    pixels = (y * 150 // 1500 + x * 100 // 2100).astype(np.uint8)
    width, height = measure.thumbnail_size(2100, 1500)
    pieces = []
    for t in tile_grid(1500, 2100):
        x0, x1 = (round(x * width / 2100) for x in (t.x, t.x + t.width))
        y0, y1 = (round(y * height / 1500) for y in (t.y, t.y + t.height))
        part = pixels[t.y : t.y + t.height, t.x : t.x + t.width]
        pieces.append((y0, x0, measure.thumbnail(part, x1 - x0, y1 - y0)))
    joined = measure.join_pieces(pieces, width, height)
    whole = measure.thumbnail(pixels, width, height)
    assert np.abs(joined - whole).max() < 2
