"""bench/learning.py: inputs that are to be compared are what they are said to be."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

import femto
from bench import learning  # before femto: bench says which femto it is
from femto.learning.feature_map import vector_names


@pytest.fixture(scope="module")
def image():
    random = np.random.default_rng(2)
    y, x = np.mgrid[:96, :120]
    noise = random.normal(0, 9, y.shape) * (x > 60)
    return np.clip(120 + 60 * np.sin(y / 17) * np.cos(x / 23) + noise, 0, 255).astype(np.uint8)


def test_features_from_pixels_are_those_of_the_archive(image):
    archive = femto.encode(image, psnr=64)
    found = learning.same_features(image, femto.info(archive)["step"], 64)
    expected = femto.features(archive, components=64, layers=13).vector()
    words = np.array([n.startswith(("class", "size")) for n in vector_names(64)])
    assert (found == expected)[words].all()
    assert np.abs(found - expected)[~words].max() < 0.2


def test_a_picture_that_comes_back_exact_has_a_finite_psnr(image):
    assert learning.decibels(image, image) == learning.EXACT
    assert learning.decibels(image, image // 2 * 2) == pytest.approx(51.1, abs=0.1)


def test_plain_features_are_the_energies_of_the_map(image):
    found = learning.plain_features(image, 64)
    expected = femto.features(femto.encode(image, psnr=64), components=64, layers=13).vector()
    assert len(found) == 16 * (65 + 9)
    assert np.abs(found - expected[: len(found)]).max() < 0.2


def test_x_rays_are_split_by_patient(tmp_path):
    for name in ("well/00001_000", "well/00001_001", "ill/00002_000", "ill/00001_004"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    data = learning.xrays(tmp_path)
    group = dict(zip([p.stem for p in data.paths], data.groups, strict=True))
    assert group["00001_000"] == group["00001_001"] == group["00001_004"] != group["00002_000"]
    assert sorted(data.labels) == [0, 0, 1, 1]


def test_a_group_is_never_on_both_sides(image):
    """A classifier that knows each group by heart must not profit from it."""
    random = np.random.default_rng(1)
    groups = np.repeat(np.arange(40), 4)
    labels = np.repeat(random.permutation(40) % 2, 4)
    marks = np.repeat(random.normal(size=(40, 30)), 4, axis=0)
    data = learning.Data("marks", "", [], labels, groups, 5)
    found, _ = learning.predictions(data, marks, 2)
    assert 0.25 < learning.scores_of(data, found)[0] < 0.75
    told, _ = learning.predictions(data, np.c_[marks, 5.0 * labels], 2)
    assert learning.scores_of(data, told)[0] > 0.95
    table = learning.intervals(data, {"a": found, "c": told}, "a", 50)
    assert table["c"]["auc_gain_interval"][0] > 0.2
    assert table["a"]["auc_gain"] == 0


def test_jpeg_made_small_is_its_first_coefficients(image, tmp_path):
    """Component 0 of the plain features of what the file decodes to, but for the rounding of
    pixels; the vector has as many columns as the archive's, without sizes and classes."""
    path = tmp_path / "picture.jpg"
    Image.fromarray(image).save(path, quality=90)
    cells = learning.grey(path).reshape(12, 8, 15, 8).mean((1, 3))
    assert np.abs(learning.eighth(path) - cells).max() <= 1.5
    found = learning.first_coefficients(path)
    expected = learning.plain_features(learning.grey(path), 1)
    assert found.shape == expected.shape
    names = [n for n in vector_names(1) if not n.startswith(("class", "size"))]
    means = np.array([n.endswith("_mean") for n in names])
    assert np.abs(found - expected)[means].max() < 0.5


def test_small_pictures_are_no_smaller_than_what_is_learned_from(image, tmp_path):
    jpeg, archive = tmp_path / "picture.jpg", tmp_path / "picture.laff.gz"
    Image.fromarray(image).save(jpeg, quality=90)
    archive.write_bytes(femto.encode(image, quality=90))
    assert learning.scale_of(archive) == 2
    whole = learning.as_pixels(image)
    for small in (learning.small_jpeg(jpeg), learning.small_archive(archive)):
        assert small.shape == whole.shape
        assert np.corrcoef(small, whole)[0, 1] > 0.97
    read = [learning.bytes_read(name, archive) for name in ("c", "b'", "b")]
    assert read == sorted(read)
    assert read[0] == len(femto.truncate(archive, layers=1))
    assert read[1] == len(femto.truncate(archive, layers=4))
    assert read[2] == archive.stat().st_size
