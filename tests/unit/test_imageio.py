"""femto.imageio: what imageio's own tests ask of a plugin."""

import gzip
import importlib
import io
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("imageio.v3")

import imageio.v3 as iio

import femto
import femto.pillow  # then imageio's own plugin for Pillow can open archives, too
from femto import imageio as plugin

PICTURES = {
    "grey": np.add.outer(np.arange(60), 2 * np.arange(90)).astype(np.uint8),
    "deep": (np.add.outer(np.arange(60), 2 * np.arange(90)) * 40).astype(np.uint16),
    "colour": np.stack(
        [np.add.outer(np.arange(60), c * np.arange(90)) for c in (1, 2, 0)], -1
    ).astype(np.uint8),
    "floats": np.add.outer(np.arange(60), np.arange(90)).astype(np.float32) / 9,
}


@pytest.fixture(params=PICTURES)
def image(request):
    return PICTURES[request.param]


@pytest.mark.parametrize("name", ["a.laff.gz", "a.laff", "A.LAFF.GZ"])
def test_pictures_go_to_archives_and_come_back(image, tmp_path, name):
    path = tmp_path / name
    assert iio.imwrite(path, image, quality=90) is None
    assert path.read_bytes() == femto.encode(image, quality=90)
    expected = femto.decode(path)
    with io.BytesIO(path.read_bytes()) as stream:
        assert (iio.imread(stream) == expected).all()
    for source in (path, str(path), path.read_bytes()):
        for options in ({}, {"plugin": "LAFF"}, {"extension": ".laff.gz"}, {"index": 0}):
            found = iio.imread(source, **options)
            assert found.dtype == image.dtype and (found == expected).all()
        assert (iio.imread(source, index=...) == expected[None]).all()
        (only,) = iio.imiter(source)
        assert (only == expected).all()


def test_archives_are_known_by_their_content(tmp_path):
    path = tmp_path / "a.dat"
    path.write_bytes(femto.encode(PICTURES["colour"]))
    assert (iio.imread(path) == femto.decode(path)).all()


def test_bytes_and_streams_are_written_too(image):
    data = iio.imwrite("<bytes>", image, extension=".laff.gz", effort="fast")
    assert data == femto.encode(image, effort="fast")
    stream = io.BytesIO()
    iio.imwrite(stream, [image], extension=".laff.gz", effort="fast")
    assert stream.getvalue() == data
    assert (
        iio.imwrite("<bytes>", image[None], extension=".laff", is_batch=True, effort="fast") == data
    )


def test_options_are_those_of_decode(tmp_path):
    path = tmp_path / "a.laff.gz"
    iio.imwrite(path, PICTURES["colour"])
    for options in ({"scale": 4}, {"region": (8, 16, 20, 30)}, {"layers": 1}, {"fraction": 0.4}):
        expected = femto.decode(path, **options)
        for source in (path, path.read_bytes()):
            assert (iio.imread(source, **options) == expected).all()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])  # only what is needed is read
    assert (iio.imread(path, scale=8) == femto.decode(whole, scale=8)).all()


def test_properties_and_metadata(image, tmp_path):
    path = tmp_path / "a.laff.gz"
    iio.imwrite(path, image, metadata={"text": [["a", "b"]]}, source="a.png", icc=b"profile")
    for source in (path, path.read_bytes()):
        told = iio.improps(source)
        assert (told.shape, told.dtype, told.is_batch) == (image.shape, image.dtype, False)
        told = iio.improps(source, index=...)
        assert (told.shape, told.n_images, told.is_batch) == ((1, *image.shape), 1, True)
        about = iio.immeta(source)
        assert (about["source"], about["icc"]) == ("a.png", b"profile")
        assert about["metadata"] == {"text": [["a", "b"]]}
        assert "mapping" not in about
        about = iio.immeta(source, exclude_applied=False)
        assert (about["mapping"] is None) == (image.dtype != np.float32)


def test_what_is_not_there_is_refused(tmp_path):
    path = tmp_path / "a.laff.gz"
    iio.imwrite(path, PICTURES["grey"])
    for index in (1, -1, "first"):
        with pytest.raises(ValueError, match="an archive holds one"):
            iio.imread(path, index=index)
        with pytest.raises(ValueError, match="an archive holds one"):
            iio.improps(path, index=index)
    for wrong in (PICTURES["grey"][..., None, None], PICTURES["colour"][..., :2]):
        with pytest.raises(femto.LaffError):
            iio.imwrite(tmp_path / "b.laff.gz", wrong)
    with pytest.raises(femto.LaffError, match="not 2"):
        iio.imwrite(tmp_path / "b.laff.gz", [PICTURES["grey"]] * 2)
    with pytest.raises(femto.LaffError, match="quality"):
        iio.imwrite(path, PICTURES["grey"], quality=0)
    assert [p.name for p in tmp_path.iterdir()] == ["a.laff.gz"]
    assert (iio.imread(path) == femto.decode(path)).all()  # what was there is there


@pytest.mark.parametrize(
    "data", [b"", b"\x1f\x8b damaged", gzip.compress(b"a log\n" * 99, mtime=0)]
)
def test_other_files_are_left_to_others(data, tmp_path):
    path = tmp_path / "a.laff.gz"
    path.write_bytes(data)
    with pytest.raises(OSError):
        iio.imread(path)
    with pytest.raises(OSError, match="can not handle"):
        iio.imread(path, plugin="LAFF")


def test_other_names_are_not_written(tmp_path):
    with pytest.raises(OSError):
        iio.imwrite(tmp_path / "a.nii.gz", PICTURES["grey"], plugin="LAFF")
    with pytest.raises(OSError):
        iio.imwrite(tmp_path / "a.png", PICTURES["grey"], plugin="LAFF")
    for options in ({}, {"plugin": "LAFF"}):  # bytes without an extension are of no format
        with pytest.raises((OSError, ValueError)):
            iio.imwrite("<bytes>", PICTURES["grey"], **options)
    iio.imwrite(tmp_path / "b.png", PICTURES["grey"])
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["b.png"]


def test_damage_names_the_file(tmp_path):
    path = tmp_path / "cut.laff.gz"
    path.write_bytes(femto.encode(PICTURES["colour"])[:-9])
    with pytest.raises(femto.LaffError, match=r"cut\.laff\.gz.*cut short"):
        iio.imread(path)


@pytest.mark.parametrize("module", ["imageio.config"])
def test_without_imageio_it_says_what_to_install(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "femto.imageio")
    with pytest.raises(ModuleNotFoundError, match=r"needs imageio, .*: pip install imageio"):
        importlib.import_module("femto.imageio")


def test_files_are_let_go_of(tmp_path):
    path = tmp_path / "a.laff.gz"
    with iio.imopen(path, "w") as file:
        file.write(PICTURES["grey"])
    with iio.imopen(path, "r") as file:
        assert isinstance(file, plugin.LaffPlugin)
        file.read()
    open_files = [p.resolve() for p in Path("/proc/self/fd").iterdir() if p.exists()]
    assert path not in open_files
