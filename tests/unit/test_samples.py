"""Samples keep their meaning: whatever levels a picture uses, it is coded as at 8 bits."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import decompressor
import femto
from femto import codec, pictures
from femto.samples import Counts, Levels

ROOT = Path(__file__).resolve().parents[2]
RANGES = {
    "12 bits": (0, 4095),
    "offset": (8000, 9200),
    "full": (0, 65535),
    "left-justified": (0, 255 << 4),
    "shifted by 8": (0, 255 << 8),
}


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A crop of a photograph in colour, from 0 to 255."""
    with pictures.open_page(ROOT / "samples" / "dragonfly.png") as reader:
        crop = np.asarray(reader[60:188, 80:240]).astype(float)
    return np.rint((crop - crop.min()) * (255 / np.ptp(crop))).astype(np.uint8)


def mapped(pixels: np.ndarray, low: int, high: int) -> np.ndarray:
    return np.rint(low + pixels * ((high - low) / 255)).astype(np.uint16)


def psnr(a: np.ndarray, b: np.ndarray, peak: float) -> float:
    error = np.mean((a.astype(float) - b) ** 2)
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize(
    ("method", "grey"),
    [
        ({"quality": 30}, False),
        ({"quality": 75}, False),
        ({"quality": 75, "effort": "fast"}, True),
        ({"quality": 95}, True),
        ({"psnr": 36}, True),
        ({"ratio": 12, "effort": "fast"}, False),
    ],
    ids=str,
)
def test_any_range_gets_what_8_bits_get(photo, name, method, grey):
    """Within 3 % of the bytes, and no more than 0.3 dB below: near lossless, 8 bits lose more by
    rounding to whole levels."""
    low, high = RANGES[name]
    pixels = np.ascontiguousarray(photo[..., 1]) if grey else photo
    deep = mapped(pixels, low, high)
    ours = method | ({"ratio": 2 * method["ratio"]} if "ratio" in method else {})
    small, archive = femto.encode(pixels, **method), femto.encode(deep, **ours)
    assert len(archive) == pytest.approx(len(small), rel=0.03)
    decoded = femto.decode(archive)
    assert decoded.dtype == np.uint16
    expected = psnr(pixels, femto.decode(small), 255)
    found = psnr(deep, decoded, high - low)
    assert found > expected - 0.3
    assert found < expected + (0.3 if expected < 45 else 2.5)


@pytest.mark.parametrize("quality", [30, 75])
def test_few_levels_get_what_their_picture_of_8_bits_gets(photo, quality):
    """Of 32 levels. Rounding what is decoded to them costs up to a twelfth of a level squared."""
    coarse = photo >> 3
    shown = np.rint(coarse * (255 / 31)).astype(np.uint8)
    small, archive = (femto.encode(p, quality=quality) for p in (shown, coarse.astype(np.uint16)))
    assert femto.info(archive)["levels"] == [0, 31]
    assert len(archive) == pytest.approx(len(small), rel=0.03)
    expected = np.mean((shown.astype(float) - femto.decode(small)) ** 2) * (31 / 255) ** 2
    found = np.mean((coarse.astype(float) - femto.decode(archive)) ** 2)
    assert found < 1.072 * (expected + 1 / 12)  # 0.3 dB


def test_declared_bits_are_kept(photo):
    deep = mapped(photo, 100, 3000)
    info = femto.info(femto.encode(deep, bits=12))
    assert (info["bits"], info["levels"]) == (12, [0, 4095])
    decoded = femto.decode(femto.encode(deep, bits=12, quality=95))
    assert decoded.dtype == np.uint16 and decoded.max() <= 4095
    with pytest.raises(femto.LaffError, match="declared"):
        femto.encode(deep, bits=11)


def test_hot_pixels_ruin_nothing_and_are_not_clipped(photo):
    deep = mapped(photo[..., 0], 0, 4095)
    hot = deep.copy()
    hot[40, 50], hot[90, 20] = 65535, 60000
    calm, archive = (femto.encode(p, quality=75) for p in (deep, hot))
    info = femto.info(archive)
    assert (info["levels"], info["limits"]) == ([0, 4095], [0, 65535])
    assert len(archive) < 1.15 * len(calm)
    decoded = femto.decode(archive)
    assert psnr(hot, decoded, 4095) > psnr(deep, femto.decode(calm), 4095) - 0.3
    assert abs(int(decoded[40, 50]) - 65535) < 300


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([5], (5, 6)),
        ([65535], (65534, 65535)),
        ([0, 1], (0, 1)),
        (range(0, 1201), (0, 1200)),
        (range(3, 4090), (0, 4095)),
        (range(8000, 9201), (8000, 9200)),
        (range(0, 228 * 16, 16), (0, 255 * 16)),
        (np.rint(np.arange(10, 228) * (4095 / 255)), (0, 4095)),
        (range(0, 31 * 2048, 2048), (0, 30 * 2048)),
    ],
    ids=str,
)
def test_levels_that_are_found(values, levels):
    span = Counts.of(np.repeat(np.array(values, np.uint16), 9)).span()
    assert np.abs(np.subtract(span.levels, levels)).max() <= 1
    assert span.outliers == 0 and span.limits == span.levels


def test_counts_travel_and_add_up():
    a = Counts.of(np.array([1, 2, 2, 65535], np.uint16))
    both = Counts.unpack((a + a).pack())
    assert both.counts.sum() == 8 and both.counts[2] == 4


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("int8", -100, 120), ("int16", -900, 3000), ("int32", 99_000, 130_000), ("uint32", 5, 60_000),
     ("int64", -(1 << 40), 500 - (1 << 40)), ("uint64", (1 << 63) + 5, (1 << 63) + 500)],
)  # fmt: skip
@pytest.mark.parametrize("order", ["<", ">"])
def test_integers_come_back_in_their_type(photo, dtype, low, high, order):
    values = photo[:40, :50, 0].astype(object) * (high - low) // 255 + low
    image = values.astype(dtype).astype(np.dtype(dtype).newbyteorder(order))
    archive = femto.encode(image, quality=95)
    decoded = femto.decode(archive)
    assert decoded.dtype == np.dtype(dtype)
    # In float64 the differences of such numbers would be lost.
    error = [int(a) - int(b) for a, b in zip(decoded.flat, values.flat, strict=True)]
    assert max(map(abs, error)) < 0.06 * (high - low) + 2
    samples = femto.decode(archive, samples=True)
    assert samples.dtype in (np.uint8, np.uint16)
    mapping = femto.info(archive)["mapping"]
    assert (mapping["type"], mapping["slope"]) == (dtype, 1)
    assert int(samples[3, 4]) + mapping["intercept"] == int(decoded[3, 4])
    bands = np.concatenate([band for _, band in femto.decode_bands(archive)])
    assert (bands == decoded).all() and bands.dtype == decoded.dtype


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f4", "float64"])
@pytest.mark.parametrize("given", [None, (-1.0, 3.0)])
def test_floats_come_back_in_their_type_and_range(photo, dtype, given):
    image = (photo[:64, :64] / 255 * 2.5 - 0.5).astype(dtype)
    archive = femto.encode(image, quality=90, range=given)
    decoded = femto.decode(archive)
    assert decoded.dtype == np.dtype(dtype).newbyteorder("=")
    assert psnr(image, decoded, 2.5) > 36
    mapping = femto.info(archive)["mapping"]
    low, high = given or (-0.5, 2.0)
    assert mapping["intercept"] == pytest.approx(low, abs=1e-3)
    assert 65535 * mapping["slope"] == pytest.approx(high - low, rel=1e-3)
    assert mapping.get("measured", False) == (given is None)


@pytest.mark.parametrize(
    ("image", "options", "word"),
    [
        (np.array([[0.0, np.nan]]), {}, "nan_to_num"),
        (np.array([[0.0, np.inf]]), {"range": (0, 1)}, "nan_to_num"),
        (np.array([[0.0, 2.0]]), {"range": (0, 1)}, "range"),
        (np.array([[0.0, 2.0]]), {"range": (1, 0)}, "range"),
        (np.array([[0.0, 2.0]]), {"bits": 12}, "bits"),
        (np.array([[0, 70_000]], np.int32), {}, "16 bits"),
        (np.array([[0, 300]], np.uint16), {"bits": 8}, "bits"),
    ],
    ids=str,
)
def test_what_cannot_be_kept_is_refused_in_one_line(image, options, word):
    with pytest.raises(femto.LaffError, match=word) as caught:
        femto.encode(image, **options)
    assert "\n" not in str(caught.value)


def test_eight_bits_have_no_word_of_levels(photo):
    text = femto.parse(femto.encode(photo[:20, :20])).header
    assert text.levels == text.limits == Levels(0, 255) and text.mapping is None


def test_features_of_12_bits_are_those_of_8(photo):
    found = [
        femto.features(femto.encode(p, quality=90), components=10, layers=13)
        for p in (photo, mapped(photo, 0, 4095), mapped(photo, 8000, 9200))
    ]
    for other in found[1:]:
        # A grey level is 8 in component 0; encoders may choose otherwise here and there.
        assert np.sqrt(np.mean((other.scores - found[0].scores) ** 2)) < 4
        assert np.abs(other.vector() - found[0].vector()).mean() < 0.1


def test_truncated_and_rewritten_archives_keep_levels_and_mapping(photo):
    image = photo[:40, :40].astype(np.int16) * 7 - 500
    archive = femto.encode(image, quality=80)
    short = femto.truncate(archive, layers=3)
    for key in ("levels", "limits", "mapping", "bits"):
        assert femto.info(short)[key] == femto.info(archive)[key]
    assert json.dumps(femto.info(archive)["mapping"])
    assert femto.decode(short).dtype == np.int16


def test_readers_give_mappings_of_their_own(photo):
    pixels = photo[:30, :30, 0]
    for mapping, expected in (
        ({"type": "int16", "slope": 1.0, "intercept": -300.0}, pixels.astype(np.int16) - 300),
        ({"type": "int32", "slope": -2.5, "intercept": 9.0}, np.rint(9 - 2.5 * pixels)),
    ):
        method = {"basis": "photo", "effort": "fast", "tune": "psnr"}
        made = codec.encode_picture(pixels, target={"quality": 95}, method=method, mapping=mapping)
        decoded = femto.decode(made.data)
        assert decoded.dtype == mapping["type"]
        assert np.abs(decoded - expected).max() < 30


def test_a_tile_beyond_its_limits_is_not_clipped():
    with pytest.raises(femto.LaffError, match="beyond"):
        codec.encode_tile(np.full((8, 8), 9, np.uint16), step=1.0, levels=Levels(0, 8))


KINDS = {
    "u12": (lambda p: p.astype(np.uint16) * 16, {"bits": 12}, "png"),
    "i16": (lambda p: p.astype(np.int16) * 9 - 800, {}, "tif"),
    "f32": (lambda p: (p / 255).astype(np.float32), {}, "tif"),
    "u32": (lambda p: p.astype(np.uint32) * 200, {}, "png"),
    "rgb": (lambda p: np.dstack([p, p, 255 - p]).astype(np.int16) - 99, {}, "tif"),
}


@pytest.mark.parametrize("name", KINDS)
def test_files_hold_the_samples_as_they_are(photo, tmp_path, name, capsys):
    """TIFF all of them, in their type; PNG those that it can, and is not asked for others."""
    tifffile = pytest.importorskip("tifffile")
    make, options, usual = KINDS[name]
    archive = tmp_path / f"{name}.laff.gz"
    archive.write_bytes(femto.encode(make(photo[:48, :60, 0]), quality=90, **options))
    expected = femto.decode(archive)
    assert decompressor.main([str(archive), "-o", str(tmp_path), "-j", "1"]) == 0
    said = capsys.readouterr().out
    assert f"{name}.{usual}" in said
    assert ("dark" in said) == (name == "u12")
    whole = tmp_path / "whole.tif"
    assert decompressor.main([str(archive), "-o", str(whole)]) == 0
    read = tifffile.imread(whole)
    assert read.dtype == expected.dtype and (read == expected).all()
    asked = decompressor.main([str(archive), "-o", str(tmp_path / "asked.png"), "-j", "1"])
    assert asked == (0 if usual == "png" else 1)
    assert decompressor.main([str(archive), "-o", str(tmp_path / "shown.jpg")]) == 0
    with Image.open(tmp_path / "shown.jpg") as shown:
        assert np.ptp(np.asarray(shown)) > 150
    if usual == "png":
        with Image.open(tmp_path / f"{name}.png") as image:
            assert (np.asarray(image) == expected).all()
    if name == "u12":
        with tifffile.TiffFile(whole) as tif:
            assert [tif.pages[0].tags[code].value for code in (340, 341)] == [0, 4095]
