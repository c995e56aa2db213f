"""femto.pillow: what Pillow's own tests ask of a format, and what archives add to it."""

import gzip
import io
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, ImageSequence, UnidentifiedImageError

import femto
from femto import pillow  # registers the format
from femto.container import is_archive, read_header

KINDS = {"L": (255, 1), "RGB": (255, 3), "I;16": (4095, 1)}


def picture(height=90, width=130, channels=1, high=255):
    """A ramp with noise: an archive of it has many layers."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(1).normal(0, 0.03, (height, width, channels))
    plane = np.stack([(y + (c + 1) * x) / (height + (c + 1) * width) for c in range(channels)], -1)
    pixels = np.clip(np.rint((plane + noise) * high), 0, high)
    pixels = pixels.astype(np.uint8 if high < 256 else np.uint16)
    return pixels[..., 0] if channels == 1 else pixels


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Mode -> the path of an archive that has it."""
    folder = tmp_path_factory.mktemp("archives")
    for mode, (high, channels) in KINDS.items():
        path = folder / f"{mode.replace(';', '')}.laff.gz"
        path.write_bytes(femto.encode(picture(channels=channels, high=high), quality=85))
    return {mode: folder / f"{mode.replace(';', '')}.laff.gz" for mode in KINDS}


class Counting(io.BytesIO):
    """A file that knows how much of it was read."""

    most = 0

    def _read(self, nbytes):
        data = super().read(nbytes)
        self.most = max(self.most, self.tell())
        return data

    read = read1 = lambda self, nbytes=-1: self._read(nbytes)


@pytest.mark.parametrize("mode", KINDS)
def test_an_archive_is_a_picture_of_pillow(files, mode):
    with Image.open(files[mode]) as image:
        assert (image.format, image.mode, image.size) == ("LAFF", mode, (130, 90))
        assert image.get_format_mimetype() == "image/x-laff"
        image.load()
        assert (np.asarray(image) == femto.decode(files[mode])).all()
        assert len(list(ImageSequence.Iterator(image))) == 1
    for source in (io.BytesIO(files[mode].read_bytes()), str(files[mode])):
        with Image.open(source, formats=["LAFF"]) as image:
            assert (np.asarray(image) == femto.decode(files[mode])).all()
    plain = gzip.decompress(files[mode].read_bytes())
    with Image.open(io.BytesIO(plain)) as image:
        assert image.tobytes() == femto.decode(plain).tobytes()


def test_files_are_closed_when_pillow_closes_them(files):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Image.open(files["L"]) as image:
            image.load()
        image = Image.open(files["L"])
        image.close()
        with Image.open(files["L"]) as image:
            pass
    with pytest.warns(ResourceWarning):
        Image.open(files["L"])
    stream = io.BytesIO(files["L"].read_bytes())
    with Image.open(stream) as image:
        image.load()
    assert not stream.closed


def test_only_the_header_is_read_until_pixels_are_wanted():
    """And of a smaller picture the first layers."""
    data = femto.encode(picture(640, 800), quality=95)
    assert len(data) > 200_000
    stream = Counting(data)
    with Image.open(stream) as image:
        assert stream.most <= 1 << 12
        image.draft("L", (100, 80))
        assert np.asarray(image).shape == (80, 100)
    assert stream.most < len(data) / 10
    stream = Counting(data)
    with Image.open(stream) as image:
        image.thumbnail((64, 64))
    assert image.size == (64, 51) and stream.most < len(data) / 5
    stream = Counting(data)
    with Image.open(stream) as image:
        small = image.reduce(8)
        assert stream.most < len(data) / 10
        image.load()
        assert image.size == (800, 640) and stream.most == len(data)
    assert (np.asarray(small) == femto.decode(data, scale=8)).all()


@pytest.mark.parametrize("mode", KINDS)
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_draft_and_reduce_are_small_pictures(files, mode, scale):
    expected = femto.decode(files[mode], scale=scale)
    size = (130 // scale, 90 // scale)
    with Image.open(files[mode]) as image:
        told, box = image.draft(None, size)
        assert told == mode and box == (0, 0, 130 / scale, 90 / scale)
        assert image.size == expected.shape[1::-1]
        assert image.draft(None, (1, 1)) is None  # once is all, as with JPEG
        assert (np.asarray(image) == expected).all()
    with Image.open(files[mode]) as image:
        for factor in (scale, (scale, scale)):
            small = image.reduce(factor)
            assert small.mode == mode and (np.asarray(small) == expected).all()
        assert small.info == image.info


def test_what_has_no_small_picture_of_its_own_is_pillows(files):
    def same(one, other):
        return (np.asarray(one) == np.asarray(other)).all()

    whole = Image.fromarray(femto.decode(files["L"]))
    with Image.open(files["L"]) as image:
        assert image.draft("L", (130, 90)) == ("L", (0, 0, 130, 90))
        assert image.draft(None, None) == ("L", (0, 0, 130, 90))
        assert image.size == (130, 90)
        assert same(image.reduce(3), whole.reduce(3))
        assert same(image.reduce(2), whole.reduce(2))  # loaded by now
    with Image.open(files["L"]) as image:
        assert same(image.reduce((2, 4)), whole.reduce((2, 4)))
    with Image.open(files["L"]) as image:
        assert same(image.reduce(2, box=(8, 8, 40, 40)), whole.reduce(2, box=(8, 8, 40, 40)))
        assert image.draft(None, (10, 10)) is None


@pytest.mark.parametrize("mode", KINDS)
def test_saved_is_what_femto_encodes(tmp_path, mode):
    high, channels = KINDS[mode]
    pixels = picture(channels=channels, high=high)
    image = Image.fromarray(pixels)
    assert image.mode == mode
    for options in ({}, {"quality": 30}, {"ratio": 20}, {"psnr": 35}, {"effort": "fast"},
                    {"lossless": True}, {"max_error": 2},
                    {"tune": "perceptual", "source": "a.png"}):  # fmt: skip
        path = tmp_path / "a.laff.gz"
        image.save(path, **options)
        assert path.read_bytes() == femto.encode(pixels, **options)
    stream = io.BytesIO()
    image.save(stream, format="laff", quality=90)
    assert stream.getvalue() == femto.encode(pixels, quality=90)
    image.save(tmp_path / "a.laff", quality=90)
    assert (tmp_path / "a.laff").read_bytes() == stream.getvalue()


def test_modes_of_other_samples_come_back():
    random = np.random.default_rng(2)
    for mode, pixels in (
        ("I", random.integers(-900, 900, (40, 50)).astype(np.int32)),
        ("F", random.normal(0, 1, (40, 50)).astype(np.float32)),
    ):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="LAFF", quality=95)
        with Image.open(stream) as image:
            assert image.mode == mode and image.info["mapping"]["type"] == pixels.dtype.name
            assert (np.asarray(image) == femto.decode(stream.getvalue())).all()
            assert np.abs(np.asarray(image) - pixels).max() < 0.2 * np.ptp(pixels)
    stream = io.BytesIO()
    deep = picture(high=60000)
    Image.frombytes("I;16B", (130, 90), deep.astype(">u2").tobytes()).save(stream, format="LAFF")
    assert stream.getvalue() == femto.encode(deep)
    huge = femto.encode(np.arange(900).reshape(30, 30).astype(np.int64) + (1 << 40))
    with pytest.raises(OSError, match=r"fit no mode of Pillow's: use femto\.decode"):
        Image.open(io.BytesIO(huge))


def test_colour_of_more_bits_is_shown_in_8():
    pixels = picture(channels=3, high=3000)
    data = femto.encode(pixels, quality=95, bits=12)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.mode, image.info["bits"]) == ("RGB", 12)
        assert np.abs(np.asarray(image) - femto.decode(data) * (255 / 4095)).max() <= 0.51
        assert image.reduce(8).mode == "RGB"


def test_metadata_go_in_and_come_out(tmp_path):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x0112] = 6
    image = Image.fromarray(picture(channels=3))
    path = tmp_path / "a.laff.gz"
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    image.save(
        path, exif=exif, icc_profile=icc, dpi=(300, 150), xmp=xmp, metadata={"text": [["a", "b"]]}
    )
    about = femto.info(path)
    assert about["icc"] == icc and about["metadata"]["text"] == [["a", "b"]]
    with Image.open(path) as found:
        assert found.info["dpi"] == (300, 150)
        assert found.info["xmp"] == xmp and found.info["icc_profile"] == icc
        assert found.getexif()[0x010F] == "a camera"
        assert found.getexif()[0x0112] == 6
        # As with PNG the profile goes along and the rest when it is said.
        found.save(tmp_path / "b.laff.gz")
        found.save(tmp_path / "c.png", exif=found.info["exif"])
    assert femto.info(tmp_path / "b.laff.gz")["icc"] == icc
    assert femto.info(tmp_path / "b.laff.gz")["metadata"] is None
    with Image.open(tmp_path / "c.png") as copy:
        assert copy.getexif()[0x010F] == "a camera" and copy.info["icc_profile"] == icc
    image.save(path, exif=exif.tobytes(), source="a.png", strip_metadata=True)
    with Image.open(path) as bare:
        assert set(bare.info) == {"bits"}
    image.save(path, xmp=b"\xff")
    with Image.open(path) as odd:
        assert odd.info["xmp"] == b"\xff"


@pytest.mark.parametrize(
    "metadata",
    [
        {"exif": 7, "xmp": [1], "resolution": [0, 1]},
        {"resolution": [[1, 0], [1, 0], "inch"]},
        {"resolution": ["a", None, "cm"], "exif": "text"},
        {"resolution": [1, 2, "none"]},
        {"resolution": {"a": 1}, "exif": b"damaged"},
    ],
)
def test_odd_metadata_do_no_harm(metadata):
    data = femto.encode(picture(8, 8), metadata=metadata)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        image.getexif()
        assert "dpi" not in image.info
        assert image.info["metadata"] == metadata


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive at all",
        gzip.compress(b"a log\n" * 9999, mtime=0),
        gzip.compress(b'{"format": "geojson", "laff": 1}', mtime=0),
        gzip.compress(b"{" * 9999, mtime=0),
        b'{"a": "format"}',
        b"\x1f\x8b damaged",
        b"\x1f\x8b",
    ],
)
def test_other_files_are_not_identified(data, tmp_path):
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(data))
    with pytest.raises(SyntaxError):
        pillow.LaffImageFile(io.BytesIO(data))
    path = tmp_path / "a.laff.gz"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is closed again
        with pytest.raises(UnidentifiedImageError):
            Image.open(path)


def test_damage_is_an_os_error(files, tmp_path, monkeypatch):
    whole = files["RGB"].read_bytes()
    path = tmp_path / "cut.laff.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with Image.open(path) as image:
        with pytest.raises(OSError, match=r"cut\.laff\.gz.*cut short") as caught:
            image.load()
        assert not isinstance(caught.value, UnidentifiedImageError)
    with Image.open(path) as image, pytest.raises(OSError, match="cut short"):
        image.verify()
    with Image.open(path) as image:  # what a small one takes is there
        assert image.reduce(8).size == (17, 12)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    for what in (bytes(flipped), whole + b"more"):
        with Image.open(io.BytesIO(what)) as image, pytest.raises(OSError):
            image.load()
    with Image.open(files["RGB"]) as image:
        image.verify()
    with pytest.raises(OSError, match="cut short"):  # in the header
        Image.open(io.BytesIO(whole[:60]))
    other = gzip.decompress(whole).replace(b'"version":2', b'"version":9')
    with pytest.raises(OSError, match="version"):
        Image.open(io.BytesIO(other))

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with Image.open(path) as image:
        coarse = np.asarray(image).astype(float)
    assert 0 < np.abs(coarse - femto.decode(files["RGB"])).mean() < 8
    path.write_bytes(whole[:400])
    with Image.open(path) as image, pytest.raises(OSError, match="cut short"):
        image.load()  # not even a first layer


def test_bombs_are_pillows_to_refuse(files, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9000)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(files["L"]).close()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(files["L"])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with Image.open(files["L"]) as image:
        image.load()


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_other_modes_are_not_written(tmp_path, mode):
    path = tmp_path / "a.laff.gz"
    with pytest.raises(OSError, match=f"cannot write mode {mode} as LAFF: convert it"):
        Image.new(mode, (8, 8)).save(path)
    assert not path.exists()


def test_wrong_options_and_names_are_told(tmp_path):
    image = Image.fromarray(picture(16, 16))
    for options, told in (({"quality": 0}, "quality"), ({"effort": "none"}, "effort")):
        with pytest.raises(femto.LaffError, match=told):
            image.save(tmp_path / "a.laff.gz", **options)
    with pytest.raises(ValueError, match=r"called NAME\.laff\.gz"):
        image.save(tmp_path / "a.nii.gz")
    with pytest.raises(femto.LaffError):
        Image.new("L", (0, 4)).save(tmp_path / "a.laff.gz")
    assert list(tmp_path.iterdir()) == []


def test_an_archive_finds_its_basis_beside_itself(own_basis, own_archive, tmp_path):
    path = tmp_path / "a.laff.gz"
    path.write_bytes(own_archive)
    with Image.open(path) as image, pytest.raises(OSError, match="needs the basis 'own'"):
        image.load()
    (tmp_path / "own.basis").write_bytes(own_basis.read_bytes())
    with Image.open(path) as image:
        assert (np.asarray(image) == femto.decode(path)).all()


def test_nothing_is_registered_without_the_import(repository, files):
    code = (
        "import sys\n"
        "from PIL import Image\n"
        "import femto\n"
        "try:\n"
        "    Image.open(sys.argv[1])\n"
        "except Image.UnidentifiedImageError:\n"
        "    print('unknown', '.gz' in Image.registered_extensions())\n"
        "import femto.pillow\n"
        "print(Image.open(sys.argv[1]).size, {'numba', 'scipy'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, files["L"]],
        env=os.environ | {"PYTHONPATH": str(repository / "femto_job")},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == ["unknown False", "(130, 90) set()"], done.stderr


def test_the_beginning_tells_an_archive(files):
    for path in files.values():
        data = path.read_bytes()
        assert is_archive(data[:256]) and is_archive(gzip.decompress(data)[:256])
        assert read_header(io.BytesIO(data)).header == femto.parse(data).header
    assert is_archive(b' {\n "version": 2, "format" : "laff"')
    assert not is_archive(b'["format", "laff"]')
