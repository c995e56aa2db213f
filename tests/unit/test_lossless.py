"""Lossless archives, and those of a bounded error."""

import io

import numpy as np
import pytest

import decompressor
import femto
from femto import codec
from femto.coding import rendition, residual
from femto.coding.blocks import colour_matrices
from femto.coding.residual import MARGIN
from femto.pictures import open_page
from femto.samples import Levels


def photo(height: int, width: int, colours: int = 3, seed: int = 1) -> np.ndarray:
    """Slopes, an edge, noise; uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    grey = 90 + 40 * np.sin(x / 9) + 0.5 * y + 30 * (x > width // 2)
    planes = [grey * share + rng.normal(0, 3, grey.shape) for share in (1, 0.8, 0.6)][:colours]
    picture = np.clip(np.rint(np.dstack(planes)), 0, 255).astype(np.uint8)
    return picture if colours == 3 else picture[:, :, 0]


GREY = photo(45, 70, 1)
LABELS = (np.add.outer(np.arange(40) // 13, np.arange(50) // 9) * 29 % 7).astype(np.uint8)
NOISE = np.random.default_rng(3)
KINDS = {
    "grey": GREY,
    "colour": photo(33, 50),
    "a pixel": np.array([[[3, 200, 90]]], np.uint8),
    "a row": photo(1, 40),
    "a column": photo(40, 1, 1),
    "labels": LABELS,
    "constant": np.full((30, 31), 200, np.uint8),
    "black and white": np.where(LABELS > 2, np.uint8(255), np.uint8(0)),
    "noise": NOISE.integers(0, 256, (30, 30, 3)).astype(np.uint8),
    "checks": (np.indices((30, 40)).sum(0) % 2 * 255).astype(np.uint8),
    "12 bits": GREY.astype(np.uint16) * 16 + NOISE.integers(0, 16, GREY.shape).astype(np.uint16),
    "16 bits": photo(20, 30).astype(np.uint16) * 256 + 17,
    "noise of 16 bits": NOISE.integers(0, 65536, (25, 30)).astype(np.uint16),
    "a range with an offset": 8000 + 4 * GREY.astype(np.uint16),
    "a hot pixel": np.where(np.arange(70) == 40, 65535, 5 * GREY.astype(np.uint16)).astype("u2"),
    "int8": GREY.astype(np.int16).clip(0, 127).astype(np.int8) - 60,
    "int16": GREY.astype(np.int16) * 100 - 9000,
    "int32": GREY.astype(np.int32) + 1_000_000,
    "uint64": GREY.astype(np.uint64) + np.uint64(1 << 60),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_samples_comes_back_as_it_was(name):
    picture = KINDS[name]
    archive = femto.encode(picture, lossless=True)
    decoded = femto.decode(archive)
    assert decoded.dtype == picture.dtype
    np.testing.assert_array_equal(decoded, picture)
    assert femto.info(archive)["max_error"] == 0


@pytest.mark.parametrize("name", ["grey", "colour", "a hot pixel", "int16", "noise", "labels"])
@pytest.mark.parametrize("bound", [1, 2, 9])
def test_no_sample_differs_by_more_than_the_bound(name, bound):
    picture = KINDS[name]
    archive = femto.encode(picture, max_error=bound)
    error = np.abs(femto.decode(archive).astype(np.int64) - picture.astype(np.int64)).max()
    assert error <= bound
    assert femto.info(archive)["max_error"] == bound
    if name != "labels":  # whose residual is nearly nothing
        assert len(archive) < len(femto.encode(picture, lossless=True))


@pytest.mark.parametrize("options", [
    {"quality": 85}, {"quality": 98}, {"quality": 70, "effort": "fast"}, {"tune": "perceptual"},
    {"quality": 80, "tune": "perceptual"}, {"bits": 8}, {"max_error": 0},
])  # fmt: skip
def test_whatever_lies_below(options):
    picture = KINDS["colour"]
    archive = femto.encode(picture, lossless=True, **options)
    np.testing.assert_array_equal(femto.decode(archive), picture)


@pytest.mark.parametrize("quality", [None, 75])
def test_the_layers_below_are_an_archive_as_any_other(quality):
    picture = photo(64, 80)
    whole = femto.encode(picture, lossless=True, quality=quality)
    lossy = femto.encode(picture, quality=quality or 20)
    layers = femto.info(lossy)["layers"]
    assert femto.info(whole)["layers"] == layers + 1
    cut = femto.truncate(whole, layers=layers)
    assert femto.info(cut)["max_error"] is None
    assert codec.parse(cut).layers[0][0] == codec.parse(lossy).layers[0][0]
    for count in range(1, layers + 1):
        expected = femto.decode(lossy, layers=count)
        np.testing.assert_array_equal(femto.decode(whole, layers=count), expected)
        np.testing.assert_array_equal(femto.decode(cut, layers=count), expected)
    for scale in (2, 4, 8):
        small = femto.decode(lossy, scale=scale)
        np.testing.assert_array_equal(femto.decode(whole, scale=scale), small)
    for components in (1, 6):
        expected = femto.features(lossy, components=components)
        found = femto.features(whole, components=components)
        np.testing.assert_array_equal(found.scores, expected.scores)


def test_regions_bands_threads_streams_and_tiles():
    picture = np.tile(photo(70, 90, 1), (15, 12))[:1040, :1060]
    archive = femto.encode(picture, lossless=True, threads=2)
    assert archive == femto.encode(picture, lossless=True)
    np.testing.assert_array_equal(femto.decode(archive, threads=2), picture)
    part = femto.decode(archive, region=(1000, 1010, 35, 40))
    np.testing.assert_array_equal(part, picture[1000:1035, 1010:1050])
    for y, band in femto.decode_bands(archive):
        np.testing.assert_array_equal(band, picture[y : y + len(band)])
    *_, last = femto.decode_layers(io.BytesIO(archive))
    np.testing.assert_array_equal(last, picture)


def test_what_does_not_go_together_is_refused():
    def refused(match, picture=GREY, **options):
        with pytest.raises(femto.LaffError, match=match):
            femto.encode(picture, **options)

    refused("leave one of them out", lossless=True, max_error=2)
    refused("leave ratio and psnr out", lossless=True, ratio=4)
    refused("leave ratio and psnr out", max_error=1, psnr=40)
    for bad in (-1, 1.5, True, 65536, "1"):
        refused("max_error .* is not possible", max_error=bad)
    refused("not exact", GREY.astype(np.float32), lossless=True)
    refused("not exact", GREY.astype(np.float64), max_error=3, range=(0, 300))


def test_long_strings_find_room():
    """Samples that nothing predicts take more bytes than they have."""
    picture = np.zeros((70, 70, 3), np.uint16)
    picture[::2, 1::3] = 65535
    picture[1::5] = NOISE.integers(0, 65536, (14, 70, 3))
    np.testing.assert_array_equal(femto.decode(femto.encode(picture, lossless=True)), picture)


def _with(archive: bytes, **changes) -> bytes:
    parsed = codec.parse(archive)
    given = {
        "basis_name": parsed.basis_name, "basis_sha256": parsed.basis_sha256, "step": parsed.step,
        "passes": parsed.passes, "tune": parsed.tune, "blocks": parsed.blocks,
        "layers": parsed.layers, "max_error": parsed.max_error,
    }  # fmt: skip
    return codec.container.write(parsed.header, **given | changes)


@pytest.mark.parametrize("seed", range(6))
def test_harm_that_is_sealed_gives_some_picture(seed):
    """Strings that no encoder writes, of any kind of picture, within the picture's limits."""
    rng = np.random.default_rng(seed)
    name = ["colour", "a hot pixel", "labels", "16 bits", "grey", "12 bits"][seed]
    archive = femto.encode(KINDS[name], lossless=True)
    layers = list(codec.parse(archive).layers)
    for string in (b"", rng.bytes(3000), b"\xff" * 900, layers[-1][0][: rng.integers(1, 99)]):
        for bound in (0, 65535):
            harmed = _with(archive, layers=[*layers[:-1], [string]], max_error=bound)
            decoded, limits = femto.decode(harmed), codec.parse(archive).header.limits
            assert decoded.shape == KINDS[name].shape
            assert limits.low <= decoded.min() and decoded.max() <= limits.high
    below = [[rng.bytes(80)] for _ in layers[:-1]]
    femto.decode(_with(archive, layers=[*below, layers[-1]], step=1e6))


def test_headers_that_cannot_be_are_refused():
    archive = femto.encode(GREY, lossless=True)
    layers = codec.parse(archive).layers
    with pytest.raises(femto.LaffError, match="has 6"):
        femto.decode(_with(archive, max_error=None))
    with pytest.raises(femto.LaffError, match="has 6"):
        femto.decode(_with(archive, layers=[*layers, layers[-1]]))
    for bad in (-1, 65536, 1.0, True, "0"):
        with pytest.raises(femto.LaffError, match="max_error is"):
            femto.decode(_with(archive, max_error=bad))


def test_the_rendition_is_the_picture_in_integers():
    """It is near to what floating-point numbers make of the same scores, before the filter."""
    picture = photo(64, 96)
    parsed = codec.parse(femto.encode(picture, quality=90))
    field, basis = codec.decode_field(parsed, 0)
    levels = Levels(0, 255)
    found = rendition.render(field, parsed.step, basis, levels, levels)
    assert found.dtype == np.int32 and found.shape == (3, 64 + 2 * MARGIN, 96 + 2 * MARGIN)
    inner = found[:, MARGIN:-MARGIN, MARGIN:-MARGIN] / rendition.FINE
    expected = femto.decode(femto.encode(picture, quality=90))
    for plane, channel in zip(inner, rendition.CHANNELS[3], strict=True):
        assert np.abs(plane - expected[:, :, channel]).mean() < 1
    assert (found[:, 0] == found[:, MARGIN]).all() and (found[:, :, -1] == found[:, :, -5]).all()


@pytest.mark.parametrize("numbers", [(0,) * 6, (5, -3, 2, -10, 6, -4), (73, 73, 73, 90, 0, -90)])
def test_colours_in_integers_are_those_of_the_decoder(numbers):
    stored = np.array(numbers, np.int8).tobytes()
    found = np.array(rendition.colour_matrix(stored)) / rendition.TURN
    np.testing.assert_allclose(found, colour_matrices(stored)[1], atol=2e-3)


def test_a_bound_of_half_the_range_takes_next_to_nothing():
    limits = Levels(0, 255)
    field, basis = codec.decode_field(codec.parse(femto.encode(GREY)), 0)
    base = rendition.render(field, 10.0, basis, limits, limits)
    string, decoded = residual.encode(base, GREY, limits, 200)
    assert len(string) < 20
    np.testing.assert_array_equal(residual.decode(base, string, limits, 200, np.uint8), decoded)


def test_a_basis_of_ones_own(own_basis):
    """The residual follows whatever basis the archive is made with."""
    archive = femto.encode(GREY, lossless=True, basis=str(own_basis), quality=60)
    np.testing.assert_array_equal(femto.decode(archive, basis=own_basis), GREY)


@pytest.mark.parametrize(("name", "kind"), [
    ("colour", "png"), ("12 bits", "png"), ("a hot pixel", "tif"), ("16 bits", "tif"),
])  # fmt: skip
def test_written_files_hold_the_same_samples(tmp_path, capsys, name, kind):
    archive, written = tmp_path / "a.laff.gz", tmp_path / f"b.{kind}"
    archive.write_bytes(femto.encode(KINDS[name], lossless=True))
    assert decompressor.main([str(archive), "-o", str(written)]) == 0
    with open_page(written) as reader:
        height, width = reader.shape[:2]
        np.testing.assert_array_equal(reader[:height, :width], KINDS[name])
    assert decompressor.main([str(archive), "--info"]) == 0
    assert "\n  error     lossless\n" in capsys.readouterr().out
