"""bench/: BD-rate, metrics, adapters, cache, tables, on synthetic curves and pictures."""

import io
import json
import math
import os
from dataclasses import dataclass

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from bench import (
    adapters,
    bdrate,
    features,
    figure,
    lossless,
    measure,
    memory,
    metrics,
    report,
    run,
    scaling,
    speed,
)


def picture(height=48, width=64, channels=3, bits=8, seed=0):
    """A smooth picture with a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = [np.sin(x / (5 + c)) * np.cos(y / (7 - c)) for c in range(channels)]
    image = 0.5 + 0.35 * np.stack(planes, -1) + rng.normal(0, 0.02, (height, width, channels))
    top = 2**bits - 1
    image = np.clip(image * top, 0, top).astype(np.uint8 if bits == 8 else np.uint16)
    return image[..., 0] if channels == 1 else image


def curve(scale=1.0, low=28.0, high=44.0, count=9):
    """(rate, quality) of a codec that spends a factor of two per 6 dB."""
    return [(scale * 2 ** (q / 6 - 5), q) for q in np.linspace(low, high, count)]


# --- BD-rate


@pytest.mark.parametrize("scale", [0.9, 0.5, 1.0, 1.25])
def test_bd_rate_of_a_scaled_curve_is_the_scale(scale):
    assert bdrate.bd_rate(curve(), curve(scale)) == pytest.approx(100 * (scale - 1), abs=1e-9)


def test_bd_rate_does_not_depend_on_where_or_in_which_order_a_curve_is_sampled():
    test = curve(0.9, 30.3, 43.1, 17)[::-1]
    assert bdrate.bd_rate(curve(), test) == pytest.approx(-10, abs=1e-6)


def test_bd_rate_of_a_gap_that_grows_linearly_in_log_rate():
    anchor = curve(low=30, high=40, count=11)
    test = [(rate * math.exp(-0.02 * (q - 30)), q) for rate, q in anchor]
    # The mean of 0.02 (q - 30) over 30 to 40 is 0.1; over 30 to 35 it is 0.05.
    assert bdrate.bd_rate(anchor, test) == pytest.approx(100 * math.expm1(-0.1), abs=1e-6)
    value = bdrate.bd_rate(anchor, test, low=30, high=35)
    assert value == pytest.approx(100 * math.expm1(-0.05), abs=1e-6)
    assert bdrate.worst_excess(anchor, test, low=30, high=40) == pytest.approx(0, abs=1e-9)
    assert bdrate.worst_excess(test, anchor, low=30, high=40) == pytest.approx(
        100 * math.expm1(0.2), abs=1e-6
    )


def test_bd_rate_swaps_to_its_inverse():
    there, back = bdrate.bd_rate(curve(), curve(0.8)), bdrate.bd_rate(curve(0.8), curve())
    assert (1 + there / 100) * (1 + back / 100) == pytest.approx(1)


@pytest.mark.parametrize(
    "test",
    [curve(low=45, high=50), curve(low=43.9, high=50), curve()[:1], [], [(1.0, math.inf)] * 3],
    ids=["apart", "hardly touching", "one point", "empty", "lossless"],
)
def test_bd_rate_without_overlap_is_none(test):
    assert bdrate.bd_rate(curve(), test) is None


def test_quality_at_a_rate_lies_on_the_curve_and_not_outside_it():
    points = curve(count=33)
    assert bdrate.quality_at(points, 2 ** (37.3 / 6 - 5)) == pytest.approx(37.3, abs=1e-3)
    assert bdrate.quality_at(points, 100.0) is None
    assert bdrate.quality_at(points, 1e-6) is None


# --- metrics


def test_psnr_of_a_constant_error():
    image = np.full((8, 8, 3), 100, np.uint8)
    values = metrics.psnr(image, image + np.uint8(5))
    expected = 20 * math.log10(255 / 5)
    assert values["psnr_rgb"] == pytest.approx(expected)
    assert values["psnr_y"] == pytest.approx(expected)
    assert metrics.psnr(image, image)["psnr_rgb"] == math.inf


def test_psnr_of_16_bits_uses_their_peak():
    image = np.full((8, 8), 1000, np.uint16)
    value = metrics.psnr(image, image + np.uint16(257))["psnr_rgb"]
    assert value == pytest.approx(20 * math.log10(255))


def test_an_error_in_blue_counts_little_in_luma():
    image = np.full((8, 8, 3), 100, np.uint8)
    decoded = image.copy()
    decoded[..., 2] += 10
    values = metrics.psnr(image, decoded)
    assert values["psnr_y"] == pytest.approx(20 * math.log10(255 / 1.14))
    assert values["psnr_rgb"] == pytest.approx(20 * math.log10(255 / 10) + 10 * math.log10(3))


def test_ssim_agrees_with_scikit_image():
    reference = pytest.importorskip("skimage.metrics").structural_similarity
    x = picture(channels=1).astype(float)
    y = x + np.random.default_rng(1).normal(0, 12, x.shape)
    ours, _ = metrics.ssim_terms(x, y, 255)
    # scikit-image truncates at the same radius 5 and crops it from the mean.
    theirs = reference(
        x, y, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_ms_ssim_is_one_for_equal_pictures_falls_with_noise_and_needs_176_pixels():
    image = picture(180, 180)
    noise = np.random.default_rng(2).normal(0, 1, image.shape)
    values = [
        metrics.ms_ssim(image, np.clip(image + s * noise, 0, 255).astype(np.uint8))["ms_ssim"]
        for s in (0, 5, 20)
    ]
    assert values[0] == 1 and 1 > values[1] > values[2] > 0
    assert metrics.ms_ssim(image[:170], image[:170])["ms_ssim"] is None


def test_ssimulacra2_is_100_for_equal_pictures_and_8_bits_only():
    pytest.importorskip("ssimulacra2")
    image = picture(64, 64)
    assert metrics.ssimulacra2(image, image)["ssimulacra2"] == pytest.approx(100)
    worse = (image // 16) * 16
    assert metrics.ssimulacra2(image, worse)["ssimulacra2"] < 90
    grey = picture(64, 64, channels=1)
    assert metrics.ssimulacra2(grey, grey)["ssimulacra2"] == pytest.approx(100)
    assert metrics.ssimulacra2(picture(bits=16), picture(bits=16))["ssimulacra2"] is None


# --- adapters


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", adapters.PEERS)
def test_peers_round_trip_and_obey_their_quality(name, channels):
    codec, image = adapters.get_codec(name), picture(channels=channels)
    if name == "jpeg444" and channels == 1:
        with pytest.raises(adapters.NotSupported, match="grey"):
            codec.check(image)
        return
    codec.check(image)
    steps = [codec.qualities[1], codec.typical]
    low, high = (measure.measure_point(codec, image, q, ["psnr"]) for q in steps)
    if name == "jxl":  # a distance: smaller is better
        low, high = high, low
    assert low["nbytes"] < high["nbytes"]
    psnr = [point[metrics.cache_key("psnr")]["psnr_rgb"] for point in (low, high)]
    assert 20 < psnr[0] < psnr[1] < 60


@pytest.mark.parametrize("name", ["jxl", "jp2"])
def test_peers_with_16_bits(name):
    codec, image = adapters.get_codec(name), picture(bits=16)
    codec.check(image)
    point = measure.measure_point(codec, image, codec.typical, ["psnr"])
    assert 30 < point[metrics.cache_key("psnr")]["psnr_rgb"] < 60


@pytest.mark.parametrize("name", ["jpeg420", "jpeg444", "webp", "avif444"])
def test_peers_without_16_bits_say_so(name):
    with pytest.raises(adapters.NotSupported, match=r"8 bits|ends at 12"):
        adapters.get_codec(name).check(picture(bits=16))


def test_jpeg_2000_has_its_colour_transform_on():
    codec = adapters.get_codec("jp2")
    for channels, expected in ((3, 1), (1, 0)):
        data = codec.encode(picture(channels=channels), 40)
        cod = data.index(b"\xff\x52")  # marker, length 2, Scod 1, progression 1, layers 2, MCT 1
        assert data[cod + 8] == expected
        assert data[cod + 13] == 0  # 9/7 irreversible wavelet


def test_jpeg_subsampling_is_what_the_name_says():
    for name, expected in (("jpeg420", 2), ("jpeg444", 0)):
        file = Image.open(io.BytesIO(adapters.get_codec(name).encode(picture(), 75)))
        sampling = {layer[1:3] for layer in file.layer}
        assert sampling == ({(2, 2), (1, 1)} if expected else {(1, 1)})


def test_femto_round_trip_with_a_quality_and_a_target():
    femto = adapters.get_codec("femto")
    image = picture(96, 96)
    by_quality = measure.measure_point(femto, image, 75, ["psnr"])
    assert by_quality["nbytes"] < image.nbytes
    assert by_quality[metrics.cache_key("psnr")]["psnr_rgb"] > 30
    by_target = measure.measure_point(femto, image, "psnr=36", ["psnr"])
    assert by_target[metrics.cache_key("psnr")]["psnr_rgb"] == pytest.approx(36, abs=0.5)


def test_names_of_femto_variants_and_of_nobody():
    assert adapters.femto_options("femto:effort=fast,tune=psnr") == {
        "effort": "fast",
        "tune": "psnr",
    }
    assert run._names("femto,femto:effort=fast,tune=psnr,webp") == [
        "femto",
        "femto:effort=fast,tune=psnr",
        "webp",
    ]
    with pytest.raises(ValueError, match="unknown codec gif: use femto"):
        adapters.get_codec("gif")


def test_version_of_femto_changes_with_its_files(tmp_path):
    (tmp_path / "a.py").write_text("1")
    before = adapters.femto_version(tmp_path)
    assert before == adapters.femto_version(tmp_path)
    (tmp_path / "a.py").write_text("2")
    assert adapters.femto_version(tmp_path) != before


# --- measuring, with a codec of the tests


@dataclass(frozen=True)
class Coarse(adapters.Codec):
    """Drops low bits; fails or kills its process on demand."""

    calls: str = ""  # file to which every encoding adds a letter

    def encode(self, image, quality):
        with open(self.calls, "a") as file:
            file.write("x")
        if self.settings == "fails on grey" and image.ndim == 2:
            raise RuntimeError("no grey today\nsecond line")
        if self.settings == "dies on grey" and image.ndim == 2:
            os._exit(3)
        np.save(self.calls + ".npy", image >> int(8 - quality) << int(8 - quality))
        return bytes(int(quality) * image.size // 8)

    def decode(self, data):
        return np.load(self.calls + ".npy")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(picture(seed=1)).save(folder / "a.png")
    Image.fromarray(picture(channels=1)).save(folder / "b grey.png")
    tifffile.imwrite(folder / "c.tif", picture(seed=2), photometric="rgb")
    return folder


def coarse(tmp_path, settings="", version="1", qualities=(3, 4, 5)):
    return Coarse("coarse", qualities, 4, version, settings, str(tmp_path / "calls"))


def calls(tmp_path):
    file = tmp_path / "calls"
    return len(file.read_text()) if file.exists() else 0


def go(tmp_path, pictures, codecs, groups=("psnr",), **options):
    lines = []
    cache = tmp_path / "cache"
    return measure.measure(pictures, codecs, groups, cache=cache, say=lines.append, **options)


def test_a_finished_measurement_is_not_repeated(tmp_path, folder):
    pictures, unread = measure.find(folder)
    assert [p.name for p in pictures] == ["a.png", "b grey.png", "c.tif"] and not unread
    rows, failures = go(tmp_path, pictures, [coarse(tmp_path)])
    assert len(rows) == 9 and not failures and calls(tmp_path) == 9
    again, _ = go(tmp_path, pictures, [coarse(tmp_path)])
    assert again == rows and calls(tmp_path) == 9


def test_the_cache_is_keyed_by_pixels_codec_version_settings_and_quality(tmp_path, folder):
    one = [measure.describe(folder / "a.png")]
    go(tmp_path, one, [coarse(tmp_path)])
    (folder / "a.png").rename(folder / "renamed.png")
    one = [measure.describe(folder / "renamed.png")]
    rows, _ = go(tmp_path, one, [coarse(tmp_path, qualities=(3.0, 4, 5))])
    assert calls(tmp_path) == 3 and rows[0]["picture"] == "renamed.png"
    go(tmp_path, one, [coarse(tmp_path, qualities=(3, 4, 6))])
    assert calls(tmp_path) == 4
    go(tmp_path, one, [coarse(tmp_path, version="2")])
    assert calls(tmp_path) == 7
    go(tmp_path, one, [coarse(tmp_path, settings="other")])
    assert calls(tmp_path) == 10
    Image.fromarray(picture(seed=9)).save(folder / "renamed.png")
    go(tmp_path, [measure.describe(folder / "renamed.png")], [coarse(tmp_path)])
    assert calls(tmp_path) == 13


def test_a_new_metric_joins_the_known_point_and_fresh_measures_again(tmp_path, folder):
    one = [measure.describe(folder / "a.png")]
    first, _ = go(tmp_path, one, [coarse(tmp_path)])
    rows, _ = go(tmp_path, one, [coarse(tmp_path)], ("psnr", "ms-ssim"))
    assert [r["psnr_rgb"] for r in rows] == [r["psnr_rgb"] for r in first]
    assert "ms_ssim_db" in rows[0] and calls(tmp_path) == 6
    go(tmp_path, one, [coarse(tmp_path)], fresh=["coarse"])
    assert calls(tmp_path) == 9


def test_two_runs_on_one_picture_keep_each_other_s_points(tmp_path, folder):
    one = measure.describe(folder / "a.png")
    stores = [measure.Cache(one, tmp_path / "cache") for _ in range(2)]
    for quality, store in enumerate(stores):
        store.add(coarse(tmp_path), quality, {"nbytes": quality})
        store.save()
    points = measure.Cache(one, tmp_path / "cache").points
    assert points == {coarse(tmp_path).key(): {"0": {"nbytes": 0}, "1": {"nbytes": 1}}}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [("fails on grey", "RuntimeError: no grey today"), ("dies on grey", "killed its process")],
)
def test_a_codec_failing_on_one_picture_loses_nothing_else(tmp_path, folder, settings, reason):
    pictures, _ = measure.find(folder)
    codecs = [adapters.get_codec("jpeg420"), coarse(tmp_path, settings)]
    rows, failures = go(tmp_path, pictures, codecs)
    assert {(f[0], f[1], f[3]) for f in failures} == {("coarse", "b grey.png", reason)}
    assert len(failures) == 3
    assert sum(r["codec"] == "coarse" for r in rows) == 6
    assert sum(r["codec"] == "jpeg420" for r in rows) == 27


def test_a_codec_not_made_for_a_picture_is_left_out_once(tmp_path, folder):
    pictures, _ = measure.find(folder)
    rows, failures = go(tmp_path, pictures, [adapters.get_codec("jpeg444")])
    assert len(rows) == 18
    assert [(f[1], f[2]) for f in failures] == [("b grey.png", None)]


def test_slow_metric_at_a_subset_with_both_ends():
    assert measure.spread([1, 2, 3, 4, 5, 6, 7, 8, 9], 5) == [1, 3, 5, 7, 9]
    assert measure.spread([1, 2, 3], 5) == [1, 2, 3]
    missing = measure._missing(
        adapters.get_codec("jpeg420"), {}, ["psnr", "ssimulacra2"], slow_points=3
    )
    assert [q for q, groups in missing if "ssimulacra2" in groups] == [20, 75, 98]
    assert all("psnr" in groups for _, groups in missing)


def test_pictures_that_cannot_be_read_are_named(tmp_path, folder):
    (folder / "broken.png").write_bytes(b"not a picture")
    pictures, unread = measure.find(folder)
    assert len(pictures) == 3 and len(unread) == 1 and "broken.png: " in unread[0]
    with pytest.raises(ValueError, match="no such folder"):
        measure.find(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no readable picture"):
        measure.find(tmp_path / "empty")


def test_16_bit_png_and_tiff_are_read_whole(tmp_path):
    image = picture(bits=16)
    tifffile.imwrite(tmp_path / "x.tif", image, photometric="rgb")
    (tmp_path / "x.png").write_bytes(imagecodecs.png_encode(image))
    for name in ("x.tif", "x.png"):
        assert np.array_equal(measure.load(tmp_path / name), image)
        assert measure.describe(tmp_path / name).bits == 16


def test_speed_is_megapixels_by_the_clock(tmp_path, folder, monkeypatch):
    """Of the best of its repeats, with a clock that runs as told."""
    picture = measure.describe(folder / "a.png")
    # Each call looks twice at either clock: encode, decode, and both once more.
    walls = iter([0, 4, 0, 1, 0, 3, 0, 2])
    cpus = iter([0, 2, 0, 1, 0, 3, 0, 0.5])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(walls))
    monkeypatch.setattr(speed.time, "process_time", lambda: next(cpus))
    found, _ = speed.measure_speed([picture], [coarse(tmp_path)], repeats=2, say=lambda line: None)
    seconds = {"encode": 2, "decode": 0.5, "encode_wall": 3, "decode_wall": 1}
    for name, wanted in seconds.items():
        assert found["coarse"][name] == pytest.approx(picture.megapixels / wanted)


def test_speed_counts_the_codecs_that_can(tmp_path, folder):
    pictures, _ = measure.find(folder)
    codecs = [adapters.get_codec(name) for name in ("jpeg420", "jpeg444", "webp")]
    codecs.append(coarse(tmp_path, "fails on grey"))
    speeds, failures = speed.measure_speed(pictures, codecs, repeats=1, say=lambda line: None)
    assert [(f[0], f[1]) for f in failures] == [("jpeg444", "b grey.png"), ("coarse", "b grey.png")]
    assert {name: s["pictures"] for name, s in speeds.items()} == {
        "jpeg420": 3,
        "jpeg444": 2,
        "webp": 3,
        "coarse": 2,
    }
    assert all(s["encode"] > 0 and s["decode"] > 0 for s in speeds.values())


# --- report


@pytest.fixture
def results(tmp_path, folder, monkeypatch, capsys):
    """Results of a run of the command on the tiny folder, and what it printed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    output = tmp_path / "out" / "tiny.json"
    arguments = [folder, "-o", output, "--codecs", "jpeg420,jpeg444,webp", "--metrics", "psnr"]
    arguments += ["--speed-pictures", "1", "--figure", tmp_path / "out" / "tiny.png"]
    run.main([str(a) for a in arguments])
    return output, capsys.readouterr().out


def test_one_command_measures_writes_prints_and_draws(tmp_path, results):
    output, printed = results
    stored = report.load_results(output)
    assert {r["codec"] for r in stored["rows"]} == {"jpeg420", "jpeg444", "webp"}
    assert len(stored["rows"]) == 9 * 3 + 9 * 2 + 8 * 3
    assert "| codec | PSNR-RGB | PSNR-Y |" in printed
    assert "- jpeg444 left out on 1 picture(s): a grey JPEG" in printed
    assert "| codec | quality | encode MP/s | decode MP/s |" in printed
    assert Image.open(tmp_path / "out" / "tiny.png").width > 600
    assert str(tmp_path) not in output.read_text()  # no path of the machine in a results file


def test_report_prints_the_same_tables_from_the_file(results, capsys):
    output, printed = results
    report.main([str(output)])
    assert capsys.readouterr().out.strip() in printed
    report.main([str(output), "--anchor", "webp", "--range", "30", "40", "--ratio", "8"])
    again = capsys.readouterr().out
    assert "against webp, PSNR from 30 to 40 dB" in again and "8 times smaller" in again


def synthetic(scales, channels=3):
    """Results of codecs whose rates are the first one's times a factor per picture."""
    names = ["p", "q"]
    rows = [
        {"codec": c, "picture": p, "quality": i, "bpp": rate, "psnr_rgb": q, "psnr_y": q + 1}
        for c, factors in scales.items()
        for p, factor in zip(names, factors, strict=True)
        if factor
        for i, (rate, q) in enumerate(curve(factor))
    ]
    return {
        "folder": "made",
        "made": {"date": "2000-01-01", "cpu": "none"},
        "codecs": {c: {"version": "1", "settings": ""} for c in scales},
        "pictures": [
            {"name": p, "width": 10, "height": 10, "channels": channels, "bits": 8} for p in names
        ],
        "rows": rows,
        "speed": {},
        "speed_pictures": [],
        "failures": [],
    }


def test_bd_table_is_the_mean_over_pictures_and_says_how_many():
    results = synthetic({"jpeg420": [1, 1], "x": [0.5, 0.7], "y": [0.8, None], "z": [1, 1]})
    for row in results["rows"]:
        if row["codec"] == "z":  # far above the others' quality
            row.update(psnr_rgb=row["psnr_rgb"] + 50, psnr_y=row["psnr_y"] + 50)
    results["codecs"]["without a point"] = {"version": "1", "settings": ""}
    lines = report.bd_table(results, "jpeg420").splitlines()
    assert lines == [
        "| codec | PSNR-RGB | PSNR-Y |",
        "| :-- | --: | --: |",
        "| x | -40.0 | -40.0 |",
        "| y | -20.0 (1 of 2) | -20.0 (1 of 2) |",
        "| z | none | none |",
    ]


def test_pair_table_and_worst_picture():
    results = synthetic({"jpeg420": [1, 1], "x": [0.5, 1.2]})
    assert "| x | -15.0 | – |" in report.pair_table(results, "psnr_rgb")
    worst = report.worst_table(results, "jpeg420", 30, 40)
    assert "| x | 1 of 2 | +20.0 (q) | +20.0 (q) |" in worst


def test_ratio_table_counts_raw_bits():
    results = synthetic({"x": [1, 1]})
    # 24 bits / 8 = 3 bits per pixel, 2 ** (q / 6 - 5) = 3 at q = 6 (5 + log2 3).
    expected = 6 * (5 + math.log2(3))
    assert f"| p | {expected:.2f} |" in report.ratio_table(results, 8)
    assert "| p | – |" in report.ratio_table(results, 1000)


def test_grey_pictures_have_one_psnr():
    results = synthetic({"jpeg420": [1, 1], "x": [0.5, 0.5]}, channels=1)
    assert report.bd_table(results, "jpeg420").splitlines()[0] == "| codec | PSNR |"


def test_wrong_arguments_end_in_one_line(folder, tmp_path):
    for arguments, message in (
        ([tmp_path / "nowhere"], "no such folder"),
        ([folder, "--codecs", "gif"], "unknown codec gif"),
        ([folder, "--metrics", "vmaf"], "--metrics vmaf: use psnr"),
        ([folder, "--codecs", "webp", "--qualities", "jxl=1"], "--qualities jxl: not among"),
    ):
        with pytest.raises(SystemExit) as end:
            run.main([str(a) for a in arguments])
        assert message in str(end.value) and "\n" not in str(end.value)
    (tmp_path / "x.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(SystemExit, match=r"x\.json: no results"):
        report.main([str(tmp_path / "x.json")])


def test_labels_in_a_figure_keep_their_distance_and_order():
    moved = figure.spread_out([1.0, 1.01, 1.02, 5.0], 0.5)
    assert min(np.diff(moved)) >= 0.5 - 1e-6 and np.mean(moved[:3]) == pytest.approx(1.01)


# --- memory


def test_mosaic_gives_the_windows_of_the_whole():
    mosaic = memory.Mosaic(picture(8, 10), 25)
    whole = np.tile(picture(8, 10), (4, 3, 1))[:25, :25]
    assert mosaic.shape == (25, 25, 3) and mosaic.dtype == np.uint8
    assert np.array_equal(mosaic[5:20, 7:23], whole[5:20, 7:23])
    assert np.array_equal(mosaic[0:1024, 0:1024], whole)


def test_peak_memory_is_that_of_a_process_of_its_own(tmp_path):
    np.save(tmp_path / "small.npy", memory.texture(64))
    ballast = np.ones(400_000_000, np.uint8)  # of this process, not of the measured one
    found = memory.measure("import", 0, tmp_path / "x", tmp_path / "small.npy")
    assert 20e6 < found < ballast.nbytes
    with pytest.raises(ValueError, match="decode of 0 x 0: "):
        memory.measure("decode", 0, tmp_path / "no archive", tmp_path / "small.npy")


def test_variants_are_femto_with_an_option_and_cached_apart():
    codecs = [adapters.get_codec(name) for name in ("femto", *adapters.VARIANTS)]
    assert len({codec.key() for codec in codecs}) == 3
    assert adapters.femto_options("femto-fast") == {"effort": "fast"}
    assert adapters.femto_options("femto-perceptual") == {"tune": "perceptual"}


def test_headline_names_pictures_larger_than_avif():
    def rows(codec, name, scale):
        return [
            {"codec": codec, "picture": name, "quality": q, "bpp": rate, "psnr_rgb": q}
            for rate, q in curve(scale)
        ]

    kinds = {"channels": 3, "bits": 8, "width": 64, "height": 48}
    stored = {
        "folder": "some",
        "pictures": [{"name": "a.png", **kinds}, {"name": "b.png", **kinds}],
        "codecs": dict.fromkeys(("femto", "jpeg420", "avif444")),
        "rows": [
            *rows("femto", "a.png", 1.1),
            *rows("femto", "b.png", 0.9),
            *(row for c in ("jpeg420", "avif444") for n in "ab" for row in rows(c, f"{n}.png", 1)),
        ],
    }
    told = report.headline(stored, 8)
    assert "- a.png: up to +10.0 %, +10.0 % on the whole" in told
    assert "- b.png" not in told
    assert "| femto | jpeg420 | PSNR-RGB | +0.0 |" in told or "| -0.0 |" in told


# --- scaling


def scaling_run(job: str, where: str, megapixels: float, fixed: float, rate: float) -> dict:
    """What bench/scaling.py would measure where every core does `rate` megapixels a second."""
    cores = scaling.MASTERS[where][1]
    return {
        "job": job,
        "where": where,
        "pixels": megapixels * 1e6,
        "start": 4.0,
        "seconds": fixed + megapixels / rate / cores,
        "driver_cpu": 1 + 0.01 * megapixels,
        "tasks": int(megapixels / 2),
        "task_seconds": megapixels / rate,
        "result_nbytes": 1000 * megapixels,
        "shuffle_nbytes": 0,
        "archive_nbytes": 2e5 * megapixels,
        "sums_nbytes": 10,
        "stages": {"classes": 1.0, "state": 2.0},
    }


def test_scaling_tells_what_a_run_takes_anyway_from_what_a_megapixel_takes():
    runs = [
        scaling_run(job, where, megapixels, 3.0, 0.5)
        for job in ("compress", "train")
        for where in scaling.MASTERS
        for megapixels in (10, 20)
    ]
    assert scaling.line(runs[:2]) == pytest.approx((3.0, 2.0))
    constants = scaling.model(runs)
    assert constants["fixed_seconds"] == pytest.approx(7)
    assert constants["megapixels_per_core_second"] == pytest.approx(0.5)
    assert constants["pixels_per_task"] == pytest.approx(2e6)
    assert constants["archive_bytes_per_pixel"] == pytest.approx(0.2)
    assert scaling.predict(constants, 20, 2) == pytest.approx(27)
    # So many cores that the driver is the limit.
    assert scaling.predict(constants, 20, 10_000) == pytest.approx(7.2)
    one, two = scaling.scaling_rows(runs, "compress")[:2]
    assert one[:6] == ["1 core", "23.0", "43.0", "3.0", "0.50", "100 %"]
    assert two[:6] == ["2 cores", "13.0", "23.0", "3.0", "0.50", "93 %"]
    text = scaling.report(runs)
    assert "| 20 | 27.0 | 27.0 |" in text


def test_features_are_measured_beside_jpeg_and_png(tmp_path, capsys):
    """Once each; the bytes that are read of an archive are those of its beginning."""
    random = np.random.default_rng(3)
    image = np.clip(random.normal(120, 40, (200, 256)), 0, 255).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "noise.png")
    features.main([str(tmp_path / "noise.png"), "--rounds", "1", "--count", "2", "--size", "192"])
    header, _, row, _, many = capsys.readouterr().out.splitlines()
    told = dict(zip(header.split("|"), row.split("|"), strict=True))
    told = {key.strip(): value.strip() for key, value in told.items()}
    assert told["picture"] == "noise" and told["pixels"] == "192 x 192 L"
    assert int(told["archive bytes"]) > 16384
    if told["read of it"]:
        assert int(told["read of it"]) < int(told["archive bytes"]) / 2
    assert many.startswith("2 files a kind")


def test_lossless_codecs_are_checked_and_counted(tmp_path, capsys):
    for i, shape in enumerate([(40, 50), (30, 44)]):
        imagecodecs.imwrite(tmp_path / f"{i}.png", picture(*shape, seed=i))
    lossless.main([str(tmp_path), "--crop", "36", "--bounds", "2"])
    exact, bounded = capsys.readouterr().out.split("max_error 2")
    for name in lossless.lossless("photo"):
        assert f"\n| {name} | " in exact and "Error" not in exact
    assert "\n| jpeg-ls | " in bounded and "+0.00 %" in bounded
    wrong = (lambda image: b"", lambda data: np.zeros((40, 50), np.uint8))
    lines = lossless.table([picture(40, 50, 1)], {"wrong": wrong}, 3, "wrong")
    assert lines[-1].startswith("| wrong | ValueError: off by ")
    deep = lossless.as_12_bits(picture(9, 9, 1))
    assert deep.dtype == np.uint16 and deep.max() > 255
