"""HEIC, AVIF, JPEG XL, JPEG 2000, GIF and DICOM: each as its own library reads it."""

import io
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pillow_heif
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate

from femto import LaffError
from femto.pictures import EXTENSIONS, open_page, probe, write_picture

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 256, (24, 40), np.uint8)
COLOUR = RNG.integers(0, 256, (24, 40, 3), np.uint8)
DEEP = RNG.integers(0, 65536, (24, 40)).astype(np.uint16)
TWELVE = DEEP >> 4
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'


def read(data: bytes, page=0, **options):
    with open_page(data, page, **options) as reader:
        return reader[:, :], reader.info, reader.metadata


def exif(orientation=1) -> bytes:
    made = Image.Exif()
    made[0x010F], made[0x0112] = "Maker", orientation
    return made.tobytes()


def saved(pixels, kind, **options) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


def blended(colour, alpha, full) -> np.ndarray:
    alpha = alpha.astype(np.int64)
    alpha = alpha if colour.ndim == 2 else alpha[..., None]
    return (colour * alpha + full * (full - alpha) + full // 2) // full


@pytest.mark.parametrize("pixels", [GREY, COLOUR, DEEP, np.dstack([DEEP] * 3)])
def test_jpeg_xl(pixels):
    data = imagecodecs.jpegxl_encode(pixels, lossless=True)
    got, info, _ = read(data)
    assert np.array_equal(got, pixels) and got.dtype == pixels.dtype
    assert (info.bits, info.notes) == (8 * pixels.itemsize, ())


def test_jpeg_xl_of_ten_bits_with_alpha_and_of_many_frames():
    ten = DEEP >> 6
    got, info, _ = read(imagecodecs.jpegxl_encode(ten, lossless=True, bitspersample=10))
    assert np.array_equal(got, ten) and info.bits == 10
    data = imagecodecs.jpegxl_encode(GREY >> 4, lossless=True, bitspersample=4)
    got, info, _ = read(data)
    assert info.bits == 8 and np.array_equal(got, (GREY >> 4) * 17)
    four = np.dstack([COLOUR, GREY])
    data = imagecodecs.jpegxl_encode(four, lossless=True)
    got, info, _ = read(data)
    assert np.array_equal(got, blended(COLOUR, GREY, 255))
    assert "blended with white" in info.notes[0]
    assert np.array_equal(read(data, alpha=False)[0], COLOUR)
    data = imagecodecs.jpegxl_encode(np.stack([COLOUR, COLOUR[::-1]]), lossless=True)
    got, info, _ = read(data)
    assert np.array_equal(got, COLOUR) and info.notes == ("further frames not archived",)


def test_metadata_of_jpeg_xl():
    def box(kind, content):
        return (8 + len(content)).to_bytes(4, "big") + kind + content

    code = imagecodecs.jpegxl_encode(COLOUR, lossless=True)
    head = b"\0\0\0\x0cJXL \r\n\x87\n" + box(b"ftyp", b"jxl \0\0\0\0jxl ")
    block = exif().removeprefix(b"Exif\0\0")
    packed = imagecodecs.brotli_encode(XMP)
    data = head + box(b"Exif", bytes(4) + block) + box(b"brob", b"xml " + packed)
    got, _, metadata = read(data + box(b"jxlc", code))
    assert np.array_equal(got, COLOUR)
    assert metadata == {"exif": block, "xmp": XMP.decode()}


@pytest.mark.parametrize("container", ["jp2", "j2k"])
@pytest.mark.parametrize(
    "pixels, bits",
    [(GREY, 8), (COLOUR, 8), (TWELVE, 12), (np.dstack([TWELVE] * 3), 12), (DEEP, 16)],
)
def test_jpeg_2000(pixels, bits, container):
    data = imagecodecs.jpeg2k_encode(
        pixels, level=0, reversible=True, bitspersample=bits, codecformat=container
    )
    got, info, _ = read(data)
    assert np.array_equal(got, pixels) and info.bits == bits


@pytest.mark.parametrize("bits", [10, 12])
def test_deep_avif(bits):
    pixels = np.dstack([DEEP >> (16 - bits)] * 3)
    data = imagecodecs.avif_encode(pixels, level=100, bitspersample=bits)
    got, info, _ = read(data)
    assert np.array_equal(got, imagecodecs.avif_decode(data)) and info.bits == bits


def test_avif_and_its_metadata():
    data = saved(COLOUR, "AVIF", quality=90, exif=exif(), xmp=XMP)
    got, info, metadata = read(data)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(got, np.asarray(image))
    assert info.bits == 8 and metadata["xmp"] == XMP.decode() and b"Maker" in metadata["exif"]


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_heic(bits, monkeypatch):
    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
    mode = "RGB" if bits == 8 else "RGB;16"
    pixels = COLOUR if bits == 8 else np.dstack([DEEP] * 3)
    file = io.BytesIO()
    made = pillow_heif.from_bytes(mode, (40, 24), pixels.tobytes())
    made.save(file, quality=-1, chroma=444, matrix_coefficients=0, exif=exif(), xmp=XMP)
    got, info, metadata = read(file.getvalue())
    assert info.bits == bits
    assert np.array_equal(got, pixels if bits == 8 else pixels >> (16 - bits))
    assert metadata["xmp"] == XMP.decode() and b"Maker" in metadata["exif"]


def test_heic_that_is_turned_is_turned_once():
    file = io.BytesIO()
    made = pillow_heif.from_pillow(Image.fromarray(COLOUR))
    made.save(file, quality=-1, chroma=444, matrix_coefficients=0, exif=exif(6))
    with Image.open(io.BytesIO(saved(COLOUR, "PNG", exif=exif(6)))) as image:
        from PIL import ImageOps

        upright = np.asarray(ImageOps.exif_transpose(image))
    got, _, metadata = read(file.getvalue())
    assert np.array_equal(got, upright)
    assert b"\x01\x12\0\x03\0\0\0\x01\0\x06" not in metadata["exif"]


def test_gif():
    frames = [Image.fromarray(p).convert("P") for p in (COLOUR, COLOUR[::-1], COLOUR[:, ::-1])]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], comment=b"a comment")
    got, info, metadata = read(data)
    assert np.array_equal(got, np.asarray(frames[0].convert("RGB")))
    assert metadata["text"] == [["Comment", "a comment"]]
    assert (info.bits, info.notes) == (8, ("2 further frames not archived",))


# DICOM ------------------------------------------------------------------------------------------


def dicom(pixels, syntax="1.2.840.10008.1.2.1", frames=None, preamble=True, **elements) -> bytes:
    """A file of these stored values; frames: codestreams instead."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = syntax
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    data.PatientName = "Doe^Jane"
    data.Rows, data.Columns = pixels.shape[-2:] if pixels.shape[-1] != 3 else pixels.shape[:2]
    data.SamplesPerPixel = 3 if pixels.shape[-1] == 3 else 1
    data.PhotometricInterpretation = "RGB" if data.SamplesPerPixel == 3 else "MONOCHROME2"
    if data.SamplesPerPixel == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = 8 * pixels.itemsize
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in elements.items():
        setattr(data, name, value)
    data.HighBit = data.BitsStored - 1
    data.PixelData = encapsulate(frames) if frames else pixels.tobytes()
    data["PixelData"].VR = "OB" if frames or pixels.itemsize == 1 else "OW"
    file = io.BytesIO()
    pydicom.dcmwrite(file, data, enforce_file_format=preamble, implicit_vr=False,
                     little_endian=True)  # fmt: skip
    return file.getvalue()


def meant(got, info) -> np.ndarray:
    """What the samples stand for."""
    mapping = info.mapping or {"slope": 1, "intercept": 0}
    return got.astype(np.float64) * mapping["slope"] + mapping["intercept"]


def test_dicom_keeps_bits_offset_and_rescale():
    got, info, metadata = read(dicom(TWELVE, BitsStored=12))
    assert np.array_equal(got, TWELVE) and (info.bits, info.mapping) == (12, None)
    assert pydicom.dcmread(io.BytesIO(metadata["dicom"])).PatientName == "Doe^Jane"
    assert len(metadata["dicom"]) < 1000

    got, info, _ = read(dicom(TWELVE, BitsStored=12, RescaleSlope=1, RescaleIntercept=-1024))
    assert info.mapping["type"] == "int16"
    assert np.array_equal(meant(got, info), TWELVE.astype(int) - 1024)

    signed = TWELVE.astype(np.int16) - 2048
    got, info, _ = read(dicom(signed, BitsStored=12, RescaleSlope="2.5", RescaleIntercept="10"))
    assert info.bits == 12 and info.mapping["type"] == "float32"
    assert np.array_equal(meant(got, info), signed * 2.5 + 10)

    full = (DEEP.astype(np.int32) - 32768).astype(np.int16)
    got, info, _ = read(dicom(full, WindowCenter=100, WindowWidth=5))
    assert np.array_equal(meant(got, info), full)


def test_dicom_monochrome1_is_inverted_and_that_is_said():
    data = dicom(TWELVE, BitsStored=12, PhotometricInterpretation="MONOCHROME1",
                 RescaleSlope=1, RescaleIntercept=-5)  # fmt: skip
    got, info, _ = read(data)
    assert np.array_equal(got, 4095 - TWELVE) and info.mapping is None
    assert any("inverted" in n for n in info.notes) and any("header" in n for n in info.notes)


def test_dicom_of_colours():
    assert np.array_equal(read(dicom(COLOUR))[0], COLOUR)
    planes = dicom(np.ascontiguousarray(COLOUR.transpose(2, 0, 1)), SamplesPerPixel=3,
                   PhotometricInterpretation="RGB", PlanarConfiguration=1)  # fmt: skip
    assert np.array_equal(read(planes)[0], COLOUR)
    ybr = dicom(COLOUR, PhotometricInterpretation="YBR_FULL")
    expected = pydicom.pixels.pixel_array(pydicom.dcmread(io.BytesIO(ybr)))
    assert np.array_equal(read(ybr)[0], expected)
    entries = RNG.integers(0, 65536, (3, 256)).astype(np.uint16)
    names = ("Red", "Green", "Blue")
    tables = {f"{n}PaletteColorLookupTableDescriptor": [256, 0, 16] for n in names}
    tables |= {f"{n}PaletteColorLookupTableData": e.tobytes()
               for n, e in zip(names, entries, strict=True)}  # fmt: skip
    got, info, _ = read(dicom(GREY, PhotometricInterpretation="PALETTE COLOR", **tables))
    assert info.bits == 16 and np.array_equal(got, np.moveaxis(entries[:, GREY], 0, -1))


@pytest.mark.parametrize(
    "syntax, encode, pixels",
    [
        ("1.2.840.10008.1.2.4.70", lambda a: imagecodecs.ljpeg_encode(a), DEEP),
        ("1.2.840.10008.1.2.4.80", lambda a: imagecodecs.jpegls_encode(a), DEEP),
        ("1.2.840.10008.1.2.4.80", lambda a: imagecodecs.jpegls_encode(a), COLOUR),
        (
            "1.2.840.10008.1.2.4.90",
            lambda a: imagecodecs.jpeg2k_encode(a, level=0, reversible=True, codecformat="j2k"),
            DEEP,
        ),
    ],
)
def test_compressed_dicom_of_several_frames(syntax, encode, pixels):
    frames = [encode(np.ascontiguousarray(pixels)), encode(np.ascontiguousarray(pixels[::-1]))]
    data = dicom(pixels, syntax=syntax, frames=frames, NumberOfFrames=2)
    infos = probe(data)
    assert [info.label for info in infos] == ["frame0001", "frame0002"]
    assert np.array_equal(read(data, 0)[0], pixels)
    assert np.array_equal(read(data, 1)[0], pixels[::-1])
    with pytest.raises(LaffError, match="no page 2"):
        open_page(data, 2)


def test_dicom_by_jpeg_in_both_colour_spaces():
    for told, options in (("YBR_FULL_422", {}), ("RGB", {"keep_rgb": True})):
        frame = saved(COLOUR, "JPEG", quality=95, **options)
        data = dicom(COLOUR, syntax="1.2.840.10008.1.2.4.50", frames=[frame],
                     PhotometricInterpretation=told)  # fmt: skip
        with Image.open(io.BytesIO(frame)) as image:
            expected = np.asarray(image).astype(int)
        assert np.abs(read(data)[0] - expected).max() <= 4


def test_dicom_by_rle_and_without_a_preamble():
    data = pydicom.dcmread(io.BytesIO(dicom(DEEP)))
    data.compress(pydicom.uid.RLELossless)
    file = io.BytesIO()
    data.save_as(file)
    assert np.array_equal(read(file.getvalue())[0], DEEP)
    bare = dicom(DEEP)[132:]
    assert np.array_equal(read(bare, name="a.dcm")[0], DEEP)


def test_a_long_dicom_header_is_kept_with_the_first_frame():
    data = dicom(np.zeros((3, 8, 9), np.uint8), NumberOfFrames=3, TextValue="x" * 70_000)
    for frame in range(3):
        with open_page(data, frame, name="a.dcm") as reader:
            assert bool(reader.metadata and "dicom" in reader.metadata) == (frame == 0)
            notes = "; ".join(reader.info.notes)
            assert ("kept with the first frame alone" in notes) == (frame > 0)


def test_a_frame_of_gigabytes_of_dicom_is_read_alone(tmp_path):
    # 3 GB in 600 frames, all of them a hole.
    path = tmp_path / "huge.dcm"
    data = dicom(np.zeros((2, 2), np.uint16), NumberOfFrames=600, Rows=1500, Columns=1700)
    start = data.index(b"\xe0\x7f\x10\x00OW\0\0")
    nbytes = 600 * 1500 * 1700 * 2
    path.write_bytes(data[: start + 8] + struct.pack("<I", nbytes))
    os.truncate(path, start + 12 + nbytes)
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (256 << 20), before[1]))
    try:
        assert len(probe(path)) == 600
        for frame in (0, 599):
            with open_page(path, frame) as reader:
                assert reader.shape == (1500, 1700) and not reader[:, :].any()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_dicom_whose_preamble_is_a_tiff():
    data = b"II*\0" + dicom(DEEP)[4:]
    assert np.array_equal(read(data)[0], DEEP)


def files() -> dict[str, bytes]:
    heic = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(COLOUR)).save(heic, quality=50)
    return {
        "a.heic": heic.getvalue(),
        "a.avif": saved(COLOUR, "AVIF"),
        "b.avif": imagecodecs.avif_encode(np.dstack([TWELVE] * 3), level=50, bitspersample=12),
        "a.jxl": imagecodecs.jpegxl_encode(COLOUR, lossless=True),
        "a.jp2": imagecodecs.jpeg2k_encode(TWELVE, level=0, codecformat="jp2", bitspersample=12),
        "b.jp2": saved(COLOUR, "JPEG2000"),
        "a.gif": saved(GREY, "GIF"),
        "a.dcm": dicom(TWELVE, BitsStored=12),
        "b.dcm": dicom(DEEP, syntax="1.2.840.10008.1.2.4.80",
                       frames=[imagecodecs.jpegls_encode(DEEP)]),
    }  # fmt: skip


@pytest.mark.parametrize("name, data", files().items())
def test_hostile_files_end_in_one_line(name, data):
    assert Path(name).suffix in EXTENSIONS
    rng = np.random.default_rng(len(data))
    for _ in range(40):
        broken = bytearray(data[: rng.integers(1, len(data) + 1)])
        for _ in range(rng.integers(0, 12)):
            broken[rng.integers(0, min(len(broken), 400))] = rng.integers(256)
        try:
            infos = probe(bytes(broken), name=name)
            if all(info.width * info.height < 1 << 22 for info in infos):
                read(bytes(broken), name=name)
        except LaffError as error:
            assert "\n" not in str(error)


def test_headers_that_promise_too_much_are_refused():
    data = imagecodecs.jpeg2k_encode(TWELVE, level=0, codecformat="j2k", bitspersample=12)
    at = data.index(b"\xff\x51") + 6
    huge = data[:at] + (60000).to_bytes(4, "big") * 2 + data[at + 8 :]
    with pytest.raises(LaffError):
        probe(huge)
    with pytest.raises(LaffError, match=r"promises more|too many"):
        probe(dicom(TWELVE, Rows=60000, Columns=60000))


@pytest.mark.parametrize(
    "module, name, package",
    [("pydicom", "a.dcm", "pydicom"), ("pillow_heif", "a.heic", "pillow-heif"),
     ("imagecodecs", "b.avif", "imagecodecs")],
)  # fmt: skip
def test_a_missing_library_is_named(module, name, package, tmp_path):
    (tmp_path / name).write_bytes(files()[name])
    code = f"import sys; sys.modules[{module!r}] = None\nfrom femto.pictures import open_page\n"
    code += f"try:\n    open_page({name!r})[:, :]\nexcept Exception as e:\n    print(e)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True,
                          text=True, env={"PYTHONPATH": ":".join(sys.path)})  # fmt: skip
    assert f"pip install {package}" in done.stdout, done


def test_a_deep_picture_of_them_goes_into_a_tiff(tmp_path):
    _, _, metadata = read(dicom(TWELVE, BitsStored=12, PixelSpacing=[0.5, 0.25]))
    write_picture(tmp_path / "a.tif", TWELVE, width=40, height=24, mode="L", bits=16,
                  metadata=metadata)  # fmt: skip
    with Image.open(tmp_path / "a.tif") as image:
        assert np.array_equal(np.asarray(image), TWELVE)
        assert image.info["dpi"] == pytest.approx((101.6, 50.8))
