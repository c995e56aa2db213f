"""Round trips through encode and decode."""

import itertools
import json
import math
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import femto
from femto import codec, tiles
from femto.samples import Counts


def scene(height: int, width: int, channels: int = 3, bits: int = 8, seed: int = 0) -> np.ndarray:
    """A picture with slopes, edges and some texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 64
    layers = [
        0.5 + 0.25 * np.sin(x * 3 + c) + 0.2 * (np.hypot(x - 1, y - 0.7 - 0.1 * c) < 0.6)
        for c in range(max(channels, 1))
    ]
    image = np.stack(layers, axis=2) + 0.02 * rng.standard_normal((height, width, 1))
    image = np.clip(image, 0, 1) * (2**bits - 1)
    image = np.rint(image).astype(np.uint8 if bits == 8 else np.uint16)
    return image if channels == 3 else image[:, :, 0]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    peak = 255 if a.dtype == np.uint8 else Counts.of(a).span().levels.range
    error = ((a.astype(np.float64) - b) ** 2).mean()
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 1), (8, 8), (31, 65), (100, 130)])
def test_every_kind_and_size_round_trips(size, bits, channels):
    image = scene(*size, channels, bits)
    decoded = femto.decode(femto.encode(image, quality=90))
    assert decoded.shape == image.shape
    assert decoded.dtype == image.dtype
    assert psnr(image, decoded) > 36


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    channels=st.sampled_from([1, 3]),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    kind=st.sampled_from(["noise", "constant", "checks", "extremes"]),
    quality=st.floats(1, 100),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_content_round_trips(height, width, channels, dtype, kind, quality, seed):
    rng = np.random.default_rng(seed)
    peak = np.iinfo(dtype).max
    shape = (height, width, 3) if channels == 3 else (height, width)
    if kind == "noise":
        image = rng.integers(0, peak + 1, shape)
    elif kind == "constant":
        image = np.full(shape, rng.integers(0, peak + 1))
    elif kind == "checks":
        image = np.broadcast_to(
            (np.indices(shape[:2]).sum(0) % 2 * peak)[..., None], (*shape[:2], 3)
        )
        image = image if channels == 3 else image[..., 0]
    else:
        image = rng.choice([0, peak], shape)
    image = image.astype(dtype)
    archive = femto.encode(image, quality=quality)
    decoded = femto.decode(archive)
    assert decoded.shape == image.shape
    assert decoded.dtype == dtype
    # Rounding each score to the next step and dropping small ones bounds the error.
    step = femto.info(archive)["step"]
    error = np.abs(decoded.astype(np.float64) - image)
    assert np.sqrt((error**2).mean()) <= 0.75 * step + 1


@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_a_constant_picture_is_exact_and_small(value):
    image = np.full((200, 300, 3), value, np.uint8)
    archive = femto.encode(image)
    assert len(archive) < 800
    assert np.abs(femto.decode(archive).astype(int) - image).max() <= 1


def test_best_quality_is_nearly_lossless():
    image = scene(120, 150)
    assert psnr(image, femto.decode(femto.encode(image, quality=100))) > 50
    assert psnr(image, femto.decode(femto.encode(image, psnr=58))) > 57.9


def test_quality_is_monotonic_in_size_and_psnr():
    image = scene(128, 192)
    results = [
        (len(archive), psnr(image, femto.decode(archive)))
        for archive in (femto.encode(image, quality=q) for q in (1, 20, 40, 60, 75, 85, 95, 100))
    ]
    assert results == sorted(results)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(results))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("target", [10.0, 25.0])
def test_ratio_is_met_within_three_percent(target, bits):
    image = scene(256, 300, 3, bits)
    archive = femto.encode(image, ratio=target)
    assert image.nbytes / len(archive) == pytest.approx(target, rel=0.03)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("target", [32.0, 38.0, 45.0])
def test_psnr_is_met_within_a_tenth(target, bits):
    image = scene(200, 300, 3, bits)
    assert psnr(image, femto.decode(femto.encode(image, psnr=target))) == pytest.approx(
        target, abs=0.1
    )


def test_grey_and_colour_agree():
    """A grey picture and the same picture as RGB reach about the same quality."""
    grey = scene(160, 160, 1)
    colour = np.repeat(grey[:, :, None], 3, axis=2)
    a = psnr(grey, femto.decode(femto.encode(grey, quality=80)))
    b = psnr(colour, femto.decode(femto.encode(colour, quality=80)))
    assert abs(a - b) < 0.5


def test_equal_pictures_give_equal_archives_whatever_the_threads():
    image = scene(1100, 1200)
    assert femto.encode(image, threads=2) == femto.encode(image)


def test_tiles_decode_alone_and_in_bands():
    image = scene(1100, 1060)
    archive = femto.encode(image, quality=60)
    decoded = femto.decode(archive)
    assert femto.info(archive)["tiles"] == 4
    parsed = codec.parse(archive)
    for tile in tiles.tile_grid(1100, 1060):
        window = decoded[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
        assert (codec.decode_tile(parsed, tile.index) == window).all()
    bands = list(femto.decode_bands(archive, threads=2))
    assert [y for y, _ in bands] == [0, 1024]
    assert (np.concatenate([band for _, band in bands]) == decoded).all()


@pytest.mark.parametrize("white", [200, (200, 10, 90)])
def test_tiles_of_one_colour_are_coded_once(white, monkeypatch):
    code_tile, coded, seen = codec.code_tile, [], []

    def counted(pixels, *args, **options):
        coded.append(pixels.shape[:2])
        return code_tile(pixels, *args, **options)

    image = np.full((64, 4 * 1024 + 8, *np.shape(white)), white, np.uint8)
    image[7, 1030] = 0
    cut = [image[:, t.x : t.x + t.width] for t in tiles.tile_grid(*image.shape[:2])]
    expected = [codec.encode_tile(pixels, step=5.5) for pixels in cut]
    codec._code_blank.cache_clear()
    monkeypatch.setattr(codec, "code_tile", counted)
    for pixels, right in zip(cut, expected, strict=True):
        made = codec.encode_tile(pixels, step=5.5, watch=lambda *pair: seen.append(pair))
        assert (made.blocks, made.layers, made.sse) == (right.blocks, right.layers, right.sse)
        assert np.array_equal(seen[-1][0], pixels)
        assert ((seen[-1][1] - pixels.astype(float)) ** 2).sum() == made.sse
    assert coded == [(64, 1024), (64, 1024), (64, 8)]


def test_array_likes_are_read_a_tile_at_a_time():
    image = scene(1100, 1060)
    seen = []

    class Windowed:
        shape, dtype = image.shape, image.dtype

        def __getitem__(self, window):
            seen.append(window)
            return image[window]

    assert femto.encode(Windowed()) == femto.encode(image)
    assert len(seen) == 4


@pytest.mark.parametrize("effort", ["full", "fast"])
@pytest.mark.parametrize("tune", ["psnr", "perceptual"])
def test_each_layer_improves_the_picture(effort, tune):
    image = scene(256, 320)
    archive = femto.encode(image, quality=85, effort=effort, tune=tune)
    count = femto.info(archive)["layers"]
    qualities = [psnr(image, femto.decode(archive, layers=n)) for n in range(1, count + 1)]
    assert qualities == sorted(qualities)
    assert qualities[0] > 14
    assert (femto.decode(archive, fraction=1.0) == femto.decode(archive)).all()


@pytest.mark.parametrize("effort", ["full", "fast"])
@pytest.mark.parametrize("tune", ["psnr", "perceptual"])
def test_truncation_is_the_same_as_decoding_a_prefix(effort, tune):
    archive = femto.encode(scene(200, 200), quality=85, effort=effort, tune=tune)
    for n in range(1, femto.info(archive)["layers"] + 1):
        shorter = femto.truncate(archive, layers=n)
        assert len(shorter) <= len(archive)
        assert (femto.decode(shorter) == femto.decode(archive, layers=n)).all()
    budget = len(archive) * 2 // 3
    assert len(femto.truncate(archive, nbytes=budget)) <= budget
    assert femto.truncate(archive, fraction=1.0) == archive


def test_efforts_differ_in_layers_not_in_quality():
    image = scene(200, 300)
    full, fast = (femto.encode(image, quality=70, effort=effort) for effort in ("full", "fast"))
    assert (femto.info(full)["passes"], femto.info(fast)["passes"]) == (4, 1)
    assert abs(psnr(image, femto.decode(full)) - psnr(image, femto.decode(fast))) < 0.5
    assert len(fast) < 1.06 * len(full)
    # The first layers of four passes show more for their bytes.
    budget = len(full) // 5
    cut = [femto.truncate(archive, nbytes=budget) for archive in (full, fast)]
    assert psnr(image, femto.decode(cut[0])) > psnr(image, femto.decode(cut[1])) + 1


def test_tuned_for_the_eye_low_frequencies_are_finer_and_high_ones_coarser():
    image = scene(256, 256, 1, seed=3)
    errors = []
    for tune in ("psnr", "perceptual"):
        archive = femto.encode(image, psnr=38, tune=tune)
        assert femto.info(archive)["tune"] == tune
        error = femto.decode(archive).astype(float) - image
        mean = error.reshape(32, 8, 32, 8).mean((1, 3))
        errors.append((np.square(mean).mean(), np.square(error).mean()))
    (low, whole), (tuned_low, tuned_whole) = errors
    assert tuned_low / tuned_whole < 0.8 * low / whole


def test_first_layers_of_a_grey_picture_have_no_colour():
    """A grey picture saved as RGB stays exactly grey. In a nearly grey one, intervals of coarse
    means have zero near their middles."""
    grey = np.repeat(scene(128, 128, 1)[:, :, None], 3, axis=2)
    toned = np.clip(np.rint(grey * [1.0, 0.99, 0.98]), 0, 255).astype(np.uint8)
    for layers in (1, 4, 6, 13):
        decoded = femto.decode(femto.encode(grey, quality=75), layers=layers)
        assert (decoded == decoded[:, :, :1]).all()
        error = femto.decode(femto.encode(toned, quality=75), layers=layers) - toned.astype(float)
        assert np.ptp(error.mean((0, 1))) < 3


def test_info_tells_what_was_put_in():
    image = scene(64, 96)
    archive = femto.encode(
        image, source="Straße 7.tif", icc=b"profile", metadata={"a": [1, {"b": None}]}
    )
    info = femto.info(archive)
    assert (info["width"], info["height"], info["mode"], info["bits"]) == (96, 64, "RGB", 8)
    assert info["source"] == "Straße 7.tif"
    assert info["icc"] == b"profile"
    assert info["metadata"] == {"a": [1, {"b": None}]}
    assert info["nbytes"] == len(archive)
    assert info["basis"]["name"] == "photo"


def test_an_archive_is_gzip_of_json_text(tmp_path):
    image = scene(64, 64)
    archive = femto.encode(image)
    text = zlib.decompress(archive, 31)
    assert json.loads(text)["format"] == "laff"
    assert (femto.decode(text) == femto.decode(archive)).all()
    path = tmp_path / "a b.laff.gz"
    path.write_bytes(archive)
    assert (femto.decode(path) == femto.decode(str(path))).all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.complex64),
        np.zeros((4, 4), bool),
        np.full((4, 4), np.nan, np.float32),
        np.array([[1.0, np.inf]]),
        np.array([[0, 1 << 16]], np.int32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(image):
    with pytest.raises(femto.LaffError) as caught:
        femto.encode(image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 0},
        {"quality": 101},
        {"quality": math.nan},
        {"quality": 50, "ratio": 4},
        {"ratio": 1},
        {"ratio": -3},
        {"psnr": 500},
        {"psnr": math.inf},
        {"basis": "nowhere.basis"},
        {"effort": "best"},
        {"tune": "ssim"},
        {"bits": 0},
        {"bits": 12},
        {"bits": 7},
        {"bits": 7.5},
        {"range": (0, 1)},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(femto.LaffError) as caught:
        femto.encode(scene(8, 8), **options)
    assert "\n" not in str(caught.value)


def test_targets_out_of_reach_end_with_the_nearest():
    flat = np.full((64, 64, 3), 90, np.uint8)
    assert flat.nbytes / len(femto.encode(flat, ratio=2)) > 2
    assert (femto.decode(femto.encode(np.full((1, 1), 7, np.uint8), ratio=9)) < 60).all()
