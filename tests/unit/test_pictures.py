"""Reading picture files: every format gives the pixels that docs/PICTURES.md promises."""

import contextlib
import io
import os
import resource
import struct
import zlib
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
import tifffile
from picture_kinds import ndpi, pyramid
from PIL import Image, ImageCms

from femto import LaffError
from femto.pictures import PageInfo, common, ifd, open_page, probe, write_picture

HEIGHT, WIDTH = 61, 83
_rng = np.random.default_rng(7)
# Smooth, so that lossy formats stay near; with some noise, so that nothing is trivially constant.
RGB8 = np.clip(
    np.add.outer(2 * np.arange(HEIGHT), np.arange(WIDTH))[..., None]
    + np.array([0, 20, 40])
    + _rng.integers(0, 4, (HEIGHT, WIDTH, 3)),
    0,
    255,
).astype(np.uint8)
RGB16 = RGB8.astype(np.uint16) * 200 + _rng.integers(0, 200, RGB8.shape).astype(np.uint16)
ALPHA8 = _rng.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
ALPHA8[:5], ALPHA8[5:10] = 0, 255
PICTURES = {"rgb8": RGB8, "rgb16": RGB16, "grey8": RGB8[..., 1], "grey16": RGB16[..., 1]}
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def tiff(pixels, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, metadata=None, **options)
    return file.getvalue()


def saved(image, kind, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(data, page=0, **options) -> np.ndarray:
    """The page as a whole, after checks that windows and probe() agree with it."""
    with open_page(data, page, **options) as reader:
        whole = reader[:, :]
        assert whole.shape == reader.shape
        assert whole.dtype == reader.dtype
        info = reader.info
        assert (info.height, info.width) == whole.shape[:2]
        assert info.channels == (3 if whole.ndim == 3 else 1)
        assert whole.dtype == (np.uint8 if info.bits <= 8 else np.uint16)
        if not options.get("gray"):
            # Reading all pixels may tell more than the header.
            header = probe(data, name=options.get("name"))[page]
            assert replace(info, notes=header.notes) == header
            assert info.notes[: len(header.notes)] == header.notes
        rng = np.random.default_rng(3)
        for _ in range(6):
            y0, y1 = sorted(rng.integers(0, info.height + 1, 2))
            x0, x1 = sorted(rng.integers(0, info.width + 1, 2))
            window = reader[y0:y1, x0:x1]
            np.testing.assert_array_equal(window, whole[y0:y1, x0:x1])
            assert window.flags.c_contiguous
    return whole


def on_white(colour, alpha, full):
    alpha = (alpha / full)[..., None] if colour.ndim == 3 else alpha / full
    return np.rint(colour * alpha + full * (1 - alpha))


# TIFF -------------------------------------------------------------------------------------------

LAYOUTS = {"strips": {"rowsperstrip": 7}, "tiles": {"tile": (16, 32)}, "one strip": {}}


@pytest.mark.parametrize("compression", [None, "packbits", "lzw", "deflate", "zstd", "lzma"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("picture", PICTURES)
def test_lossless_tiff_gives_its_pixels(compression, layout, picture):
    pixels = PICTURES[picture]
    for byteorder in "<>":
        for bigtiff in (False, True):
            for predictor in (False, True) if compression not in (None, "packbits") else (False,):
                for planar in ("contig", "separate") if pixels.ndim == 3 else ("contig",):
                    data = tiff(
                        pixels if planar == "contig" else pixels.transpose(2, 0, 1),
                        photometric="rgb" if pixels.ndim == 3 else "minisblack",
                        compression=compression,
                        byteorder=byteorder,
                        bigtiff=bigtiff,
                        predictor=predictor,
                        planarconfig=planar if pixels.ndim == 3 else None,
                        **LAYOUTS[layout],
                    )
                    np.testing.assert_array_equal(read(data), pixels)


@pytest.mark.parametrize("compression", ["jpeg", "webp", "jpegxl", "jpeg2000", "png"])
@pytest.mark.parametrize("layout", ["strips", "tiles"])
def test_tiff_of_picture_codecs(compression, layout):
    layout = {"strips": {"rowsperstrip": 16}, "tiles": {"tile": (32, 32)}}[layout]
    data = tiff(RGB8, photometric="rgb", compression=compression, **layout)
    assert np.abs(read(data).astype(int) - RGB8).mean() < 3


def test_tiff_jpeg_with_subsampled_chroma():
    # tifffile stores the samples as they come, here YCbCr already.
    ycbcr = np.asarray(Image.fromarray(RGB8).convert("YCbCr"))
    options = {"photometric": "ycbcr", "subsampling": (2, 2), "tile": (32, 32)}
    data = tiff(ycbcr, compression="jpeg", **options)
    # The writer pads the tiles at the right and the bottom with zeros, which ring.
    assert np.abs(read(data).astype(int) - RGB8)[:32, :64].mean() < 3


def test_uncompressed_ycbcr_tiff():
    data = saved(Image.fromarray(RGB8).convert("YCbCr"), "TIFF")
    assert np.abs(read(data).astype(int) - RGB8).max() <= 3


def subsampled_ycbcr_tiff(orientation=1) -> bytes:
    """32 x 16 pixels, YCbCr 2x2 subsampled, uncompressed (TIFF 6.0, section 21), left half dark."""
    dark, bright = bytes([30] * 4 + [128, 128]), bytes([90] * 4 + [100, 180])
    pixels = (dark * 8 + bright * 8) * 8
    tags = [
        (256, 3, 1, 32),
        (257, 3, 1, 16),
        (258, 3, 3, None),
        (259, 3, 1, 1),
        (262, 3, 1, 6),
        (273, 4, 1, 200),
        (274, 3, 1, orientation),
        (277, 3, 1, 3),
        (278, 3, 1, 16),
        (279, 4, 1, len(pixels)),
        (530, 3, 2, 2 | 2 << 16),
    ]
    at = 8 + 2 + 12 * len(tags) + 4
    data = b"II*\0" + struct.pack("<IH", 8, len(tags))
    for code, kind, count, value in tags:
        data += struct.pack("<HHII", code, kind, count, at if value is None else value)
    data += struct.pack("<IHHH", 0, 8, 8, 8)
    return data.ljust(200, b"\0") + pixels


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_subsampled_ycbcr_without_jpeg(orientation):
    y, cb, cr = 90, 100 - 128, 180 - 128
    want = np.full((16, 32, 3), 30.0)
    want[:, 16:] = (y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb)
    want = np.rot90(want, {1: 0, 3: 2, 6: -1}[orientation])
    pixels = read(subsampled_ycbcr_tiff(orientation))
    assert pixels.shape == want.shape
    assert np.abs(pixels - want).max() <= 2


@pytest.mark.parametrize("compression", ["raw", "packbits", "tiff_lzw", "group3", "group4"])
def test_bilevel_tiff(compression):
    black_and_white = RGB8[..., 0] > 100
    data = saved(Image.fromarray(black_and_white), "TIFF", compression=compression)
    np.testing.assert_array_equal(read(data), black_and_white * 255)


def test_min_is_white_is_inverted():
    np.testing.assert_array_equal(
        read(tiff(RGB16[..., 0], photometric="miniswhite")), 65535 - RGB16[..., 0]
    )
    data = tiff(RGB8[..., 0] > 100, photometric="miniswhite")
    np.testing.assert_array_equal(read(data), np.asarray(Image.open(io.BytesIO(data)).convert("L")))


@pytest.mark.parametrize("bits", [2, 4, 10, 12, 14])
def test_few_bits_fill_the_range_and_more_keep_their_values(bits):
    top = (1 << bits) - 1
    values = _rng.integers(0, top + 1, (9, 24)).astype(np.uint8 if bits <= 8 else np.uint16)
    values[0, :2] = 0, top
    packed = imagecodecs.packints_encode(values, bits)
    data = raw_tiff(24, 9, bits, packed)
    right = np.rint(values * (255 / top)) if bits <= 8 else values
    np.testing.assert_array_equal(read(data), right)
    assert probe(data)[0].bits == max(8, bits)
    inverted = raw_tiff(24, 9, bits, packed, photometric=0)
    np.testing.assert_array_equal(read(inverted), (255 if bits <= 8 else top) - right)


def test_levels_that_a_file_declares():
    values = _rng.integers(0, 4096, (9, 24)).astype(np.uint16)
    for low_tag, high_tag in ((280, 281), (340, 341)):
        tags = [(low_tag, 3, 1, 7), (high_tag, 3, 1, 4095)]
        data = raw_tiff(24, 9, 16, values.tobytes(), extra=tags)
        assert probe(data)[0].levels == (7, 4095)
        np.testing.assert_array_equal(read(data), values)
    inverted = raw_tiff(24, 9, 16, values.tobytes(), photometric=0, extra=[(281, 3, 1, 4095)])
    assert probe(inverted)[0].levels == (65535 - 4095, 65535)
    for senseless in ((281, 3, 1, 65535), (281, 3, 1, 0)):
        data = raw_tiff(24, 9, 16, values.tobytes(), extra=[senseless])
        assert probe(data)[0].levels is None


@contextlib.contextmanager
def limited_memory(nbytes: int):
    """Within it, this process can get so many bytes of address space more."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def raw_tiff(width, height, bits, pixels, *, photometric=1, extra=()) -> bytes:
    """A little-endian TIFF of one uncompressed grey strip; extra: more tags."""
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, bits),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, len(pixels)),
        *extra,
    ]
    pixels += b"\0" * (len(pixels) % 2)
    data = b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(tags))
    return data + b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags)) + b"\0\0\0\0"


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_palette_tiff(compression):
    image = Image.fromarray(RGB8).quantize(200)
    data = saved(image, "TIFF", compression=compression)
    np.testing.assert_array_equal(read(data), np.asarray(image.convert("RGB")))


def test_grey_palette_is_one_plane():
    image = Image.fromarray(RGB8[..., 0], "L").convert("P")
    image.putpalette([v for i in range(256) for v in (255 - i,) * 3])
    for kind in ("TIFF", "PNG", "BMP"):
        np.testing.assert_array_equal(read(saved(image, kind)), 255 - RGB8[..., 0])


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_cmyk_tiff_without_profile(compression):
    cmyk = Image.fromarray(np.dstack([RGB8, ALPHA8]), "CMYK")
    ink = np.asarray(cmyk).astype(float) / 255
    rgb = 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])
    pixels = read(saved(cmyk, "TIFF", compression=compression))
    assert np.abs(pixels - rgb).max() <= 1


def test_16_bit_cmyk_becomes_8_bit_rgb():
    cmyk = np.dstack([RGB16, RGB16[..., 0]])
    ink = cmyk / 65535
    pixels = read(tiff(cmyk, photometric="separated"))
    assert pixels.dtype == np.uint8
    assert np.abs(pixels - 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])).max() <= 1.5


def test_tiff_alpha_is_composited_on_white():
    for full, colour, alpha in (
        (255, RGB8, ALPHA8),
        (65535, RGB16, ALPHA8.astype(np.uint16) * 257),
        (255, RGB8[..., 0], ALPHA8),
    ):
        kind = "rgb" if colour.ndim == 3 else "minisblack"
        data = tiff(
            np.dstack([colour, alpha]),
            photometric=kind,
            extrasamples=["unassalpha"],
            planarconfig="contig",
        )
        assert np.abs(read(data) - on_white(colour, alpha, full)).max() <= 1
        premultiplied = np.rint(
            colour * (alpha[..., None] / full if colour.ndim == 3 else alpha / full)
        ).astype(colour.dtype)
        data = tiff(
            np.dstack([premultiplied, alpha]),
            photometric=kind,
            extrasamples=["assocalpha"],
            planarconfig="contig",
        )
        assert np.abs(read(data) - on_white(colour, alpha, full)).max() <= 1


def test_pages_of_a_tiff_without_its_thumbnails():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tif:
        tif.write(RGB8[:20, :30], subfiletype=1, photometric="rgb")  # a thumbnail first
        tif.write(RGB8, photometric="rgb", compression="lzw")
        tif.write(RGB8[..., 0] > 9, subfiletype=4)  # a mask
        tif.write(RGB16[..., 0], photometric="minisblack")
    data = file.getvalue()
    notes = ("1 mask not archived", "1 thumbnail or pyramid level not archived")
    assert probe(data) == [
        PageInfo(0, WIDTH, HEIGHT, 3, 8, notes=notes),
        PageInfo(1, WIDTH, HEIGHT, 1, 16),
    ]
    np.testing.assert_array_equal(read(data, 0), RGB8)
    np.testing.assert_array_equal(read(data, 1), RGB16[..., 0])
    with pytest.raises(LaffError, match="no page 2"):
        open_page(data, 2)


def test_a_bad_page_does_not_hide_the_others():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tif:
        tif.write(RGB8, photometric="rgb")
        tif.write(RGB8[..., 0].astype(np.complex64))
    first, second = probe(file.getvalue(), name="scan.tif")
    assert first.error is None
    assert second.error.startswith("scan.tif: complex")
    np.testing.assert_array_equal(read(file.getvalue()), RGB8)
    with pytest.raises(LaffError, match="complex"):
        open_page(file.getvalue(), 1)


def test_wide_strips_are_decoded_once_for_a_row_of_tiles(monkeypatch):
    # Decoded, the strips of a row of tiles are 184 MB.
    data = tiff(
        np.zeros((1024 + 8, 60_000, 3), np.uint8),
        photometric="rgb",
        compression="lzw",
        rowsperstrip=16,
    )
    decoded = []
    original = imagecodecs.lzw_decode
    monkeypatch.setattr(
        imagecodecs, "lzw_decode", lambda *a, **k: decoded.append(1) or original(*a, **k)
    )
    monkeypatch.setitem(tifffile.TIFF.DECOMPRESSORS._codecs, 5, imagecodecs.lzw_decode)
    (info,) = probe(data)
    assert info.segment == (16, 60_000)
    with open_page(data) as reader:
        for x in range(0, 60_000, 8 * 1024):
            reader[0:1024, x : x + 1024]
        assert len(decoded) == 1024 / 16
        # The next row of tiles has them to itself.
        reader[1024:1032, 0:1024]
        assert len(decoded) == 1024 / 16 + 1


def many_pages(count: int, *, bits=8, height=4, width=4, tags=()) -> bytes:
    """A TIFF of so many grey pages, page i all of (i % 256); tags: further ones of the first."""
    out, pixels = bytearray(b"II*\0"), height * width * bits // 8
    for i in range(count):
        at = 4 + len(out) if i == 0 else len(out)
        out += struct.pack("<I", at + pixels) if i == 0 else b""
        out += bytes([i % 256]) * pixels
        entries = [
            ifd.number(code, 4, [value], "<")
            for code, value in (
                (256, width),
                (257, height),
                (258, bits),
                (259, 1),
                (262, 1),
                (273, at),
                (278, height),
                (279, pixels),
            )
        ]
        directory = ifd.written([*entries, *(tags if i == 0 else ())], len(out), "<")
        end = 2 + 12 * (len(entries) + (len(tags) if i == 0 else 0))
        following = len(out) + len(directory) + len(directory) % 2 + pixels
        following = struct.pack("<I", following if i + 1 < count else 0)
        out += directory[:end] + following + directory[end + 4 :] + b"\0" * (len(directory) % 2)
    return bytes(out)


def test_a_page_is_opened_without_a_look_at_the_others(tmp_path, monkeypatch):
    path = tmp_path / "pages.tif"
    path.write_bytes(many_pages(300))
    parsed = []
    original = tifffile.TiffPage.__init__
    monkeypatch.setattr(
        tifffile.TiffPage, "__init__", lambda *a, **k: parsed.append(1) or original(*a, **k)
    )
    infos = probe(path)
    assert len(infos) == len(parsed) == 300
    parsed.clear()
    for info in infos[::7]:
        with open_page(path, info.page, place=info.place) as reader:
            assert (reader[:, :] == info.page % 256).all()
            assert reader.info == info
    assert len(parsed) == 2 * len(infos[::7])  # the file's first one, and the page's own
    # In another file the place says nothing.
    os.utime(path, ns=(1, 1))
    with open_page(path, 290, place=infos[5].place) as reader:
        assert (reader[:, :] == 290 % 256).all()


def test_a_page_of_every_kind_is_found_at_its_place(tmp_path):
    stack = np.stack([RGB8[..., 0] + i for i in range(6)]).astype(np.uint8)
    path = tmp_path / "a.tif"
    for options in (
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}, "compression": "lzw"},
        {"metadata": {"axes": "ZYX"}, "description": "x" * 100_000},
        {"metadata": None, "bigtiff": True, "byteorder": ">", "tile": (16, 16)},
    ):
        tifffile.imwrite(path, stack, photometric="minisblack", **options)
        infos = probe(path)
        assert len(infos) == 6
        for info in infos:
            with (
                open_page(path, info.page, place=info.place) as placed,
                open_page(path, info.page) as plain,
            ):
                np.testing.assert_array_equal(placed[:, :], stack[info.page])
                np.testing.assert_array_equal(plain[:, :], stack[info.page])
                assert placed.info == plain.info
                assert placed.metadata == plain.metadata


def test_pages_of_sub_directories_and_bands_are_found_at_their_places(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        for i in range(3):
            tif.write(RGB8[:20, :30] + i, photometric="rgb", subfiletype=1, subifds=1)
            tif.write(RGB8 // 2 + i, photometric="rgb")
    for reading in ({}, {"bands": "each"}):
        infos = probe(path, **reading)
        assert len(infos) == 3
        for info in infos:
            with open_page(path, info.page, place=info.place, **reading) as reader:
                np.testing.assert_array_equal(reader[:, :], RGB8 // 2 + info.page)
    five = np.dstack([RGB8, RGB8[..., :2]])
    with tifffile.TiffWriter(path) as tif:
        for i in range(2):
            tif.write(five // 2 + i, photometric="minisblack", planarconfig="contig")
    for info in probe(path, bands="each"):
        with open_page(path, info.page, bands="each", place=info.place) as reader:
            page, band = divmod(info.page, 5)
            np.testing.assert_array_equal(reader[:, :], five[..., band] // 2 + page)


def test_what_describes_a_large_stack_is_kept_with_its_first_plane():
    data = many_pages(3, tags=[ifd.text(270, "y" * 70_000), ifd.text(315, "me")])
    kept = []
    for info in probe(data):
        with open_page(data, info.page, place=info.place) as reader:
            kept.append(reader.metadata["exif"])
            notes = reader.info.notes
            alone = ("1 long TIFF tag kept with the file's first picture alone",)
            assert notes == (alone if info.page else ())
    assert len(kept[0]) > 70_000 and all(b"me" in exif and len(exif) < 200 for exif in kept[1:])


@pytest.mark.slow
def test_forty_thousand_pages(tmp_path):
    path = tmp_path / "pages.tif"
    path.write_bytes(many_pages(40_000, height=32, width=32))
    with limited_memory(1 << 30):
        infos = probe(path)
        assert len(infos) == 40_000
        for page in (0, 39_999):
            with open_page(path, page, place=infos[page].place) as reader:
                assert (reader[:, :] == page % 256).all()


def test_of_a_slide_the_largest_level_is_read():
    base = np.tile(RGB8, (8, 8, 1))
    file = io.BytesIO()
    description = "Aperio Image Library v11.2.1"
    pyramid(file, base, 3, description=description, photometric="rgb", compression="jpeg")
    (info,) = probe(file.getvalue(), name="slide.svs")
    assert (info.height, info.width) == base.shape[:2]
    assert info.notes == ("5 thumbnails or pyramid levels not archived",)
    assert info.segment == (64, 64)
    assert np.abs(read(file.getvalue()).astype(int) - base).mean() < 3
    for levels, pages in ((3, 1), (1, 2)):  # one half alone may be any picture
        file = io.BytesIO()
        pyramid(file, base, levels, photometric="rgb")
        assert len(probe(file.getvalue(), name="slide.btf")) == pages
        np.testing.assert_array_equal(read(file.getvalue()), base)


def test_of_a_hamamatsu_slide_the_largest_magnification_is_read():
    base = np.tile(RGB8[:56, :80], (8, 8, 1))
    data = ndpi([(base, 20.0), (base[::2, ::2].copy(), 10.0), (base[:64, :64].copy(), -1.0)])
    (info,) = probe(data, name="slide.ndpi")
    assert (info.height, info.width) == base.shape[:2]
    assert info.notes == ("2 thumbnails or pyramid levels not archived",)
    assert info.segment == (8, 320)  # one part of the JPEG, not all of it
    with open_page(data, name="slide.ndpi") as reader:
        assert np.abs(reader[:, :].astype(int) - base).mean() < 2
    # Focal planes of it are pictures.
    data = ndpi([(base, 20.0), (base[::2, ::2].copy(), 10.0), (base[::-1].copy(), 20.0)])
    assert [info.label for info in probe(data, name="slide.ndpi")] == ["z1", "z2"]
    with open_page(data, 1, name="slide.ndpi") as reader:
        assert np.abs(reader[:, :].astype(int) - base[::-1]).mean() < 2


def test_a_strip_is_decoded_once_for_a_row_of_windows(monkeypatch):
    data = tiff(RGB8, photometric="rgb", compression="lzw", rowsperstrip=4)
    decoded = []
    original = imagecodecs.lzw_decode
    monkeypatch.setattr(
        imagecodecs, "lzw_decode", lambda *a, **k: decoded.append(1) or original(*a, **k)
    )
    monkeypatch.setitem(tifffile.TIFF.DECOMPRESSORS._codecs, 5, imagecodecs.lzw_decode)
    with open_page(data) as reader:
        for x in range(0, WIDTH, 10):
            reader[0:8, x : x + 10]
    assert len(decoded) == 2


def huge_tiff(path, shape, *, bits=8, tile=None, planar=False, compression=1) -> None:
    """A TIFF of zeros, all but its header a hole: reading or mapping it would take as much memory
    as it is long."""
    height, width, samples = shape
    planes, in_pixel = (samples, 1) if planar else (1, samples)
    tall, wide = tile or (height, width)
    count = planes * -(-height // tall) * -(-width // wide)
    nbytes = tall * ((wide * in_pixel * bits + 7) // 8)
    size = 4096 + count * 16 + count * nbytes
    big = size >= 1 << 32
    start, kind = size - count * nbytes, 16 if big else 4
    at, lengths = (324, 325) if tile else (273, 279)
    tags = [
        ifd.number(256, 4, [width], "<"),
        ifd.number(257, 4, [height], "<"),
        ifd.number(258, 3, [bits] * samples, "<"),
        ifd.number(259, 3, [compression], "<"),
        ifd.number(262, 3, [2 if samples == 3 else 1], "<"),
        ifd.number(277, 3, [samples], "<"),
        ifd.number(284, 3, [2 if planar else 1], "<"),
        ifd.number(at, kind, [start + i * nbytes for i in range(count)], "<"),
        ifd.number(lengths, kind, [nbytes] * count, "<"),
    ]
    tags += [ifd.number(322, 4, [wide], "<"), ifd.number(323, 4, [tall], "<")] if tile else []
    head = b"II" + (struct.pack("<HHHQ", 43, 8, 0, 16) if big else struct.pack("<HI", 42, 8))
    path.write_bytes(head + ifd.written(tags, len(head), "<", big))
    os.truncate(path, size)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((40_000, 30_000, 1), {}),
        ((25_000, 40_000, 3), {}),
        ((25_000, 40_000, 3), {"planar": True}),
        ((35_000, 30_000, 1), {"bits": 16, "tile": (512, 512)}),
        ((83_334, 80_000, 3), {}),
        ((40_000, 50_001, 1), {"bits": 12}),
        ((100_000, 90_003, 1), {"bits": 1}),
        ((83_334, 80_000, 3), {"tile": (1024, 1024)}),
    ],
)
def test_gigabytes_of_an_uncompressed_tiff_are_read_by_window(tmp_path, shape, options):
    path = tmp_path / "huge.tif"
    huge_tiff(path, shape, **options)
    height, width, samples = shape
    with limited_memory(256 << 20), open_page(path) as reader:
        assert reader.shape == (shape if samples == 3 else shape[:2])
        assert not reader[height - 1000 : height, width - 1000 : width].any()


def test_windows_of_an_uncompressed_tiff_are_read_where_they_lie(tmp_path):
    for order in "<>":
        for planar in ("contig", "separate"):
            pixels = RGB16 if planar == "contig" else RGB16.transpose(2, 0, 1)
            path = tmp_path / "a.tif"
            tifffile.imwrite(path, pixels, photometric="rgb", planarconfig=planar, byteorder=order)
            for source in (path, path.read_bytes()):
                with open_page(source) as reader:
                    for y, x in ((0, 0), (5, 7), (HEIGHT - 3, WIDTH - 2)):
                        np.testing.assert_array_equal(
                            reader[y : y + 9, x : x + 11], RGB16[y : y + 9, x : x + 11]
                        )
                        np.testing.assert_array_equal(reader[y : y + 9, :], RGB16[y : y + 9])


@pytest.mark.parametrize("bits", [1, 2, 4, 7, 9, 12, 15])
def test_windows_of_packed_samples_are_read_where_they_lie(tmp_path, bits):
    height, width = 23, 45
    values = np.random.default_rng(bits).integers(0, 1 << bits, (height, width))
    places = np.arange(bits)[::-1]
    rows = np.packbits((values[..., None] >> places & 1).reshape(height, -1).astype(np.uint8), -1)
    path = tmp_path / "a.tif"
    path.write_bytes(raw_tiff(width, height, bits, rows.tobytes()))
    right = values if bits > 8 else np.rint(values * 255 / ((1 << bits) - 1))
    for source in (path, path.read_bytes()):
        with open_page(source) as reader:
            for y, x, tall, wide in ((0, 0, 23, 45), (3, 7, 9, 11), (22, 44, 1, 1), (5, 8, 2, 37)):
                window = reader[y : y + tall, x : x + wide]
                np.testing.assert_array_equal(window, right[y : y + tall, x : x + wide])


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"compression": "lzw"}])
def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.tile(RGB8, (9, 9, 1)), photometric="rgb", **options)
    with open_page(path) as reader:
        os.truncate(path, 4096)
        with pytest.raises(LaffError, match="became shorter while it was read; copy it"):
            reader[:, :]


def test_the_header_of_a_tiff_is_read_once(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((2000, 1000), np.uint8), rowsperstrip=1, description="said")
    opened, read_bytes = [], []

    class Counted(io.FileIO):
        def __init__(self, *args):
            opened.append(args)
            super().__init__(*args)

        def read(self, size=-1):
            data = super().read(size)
            read_bytes.append(len(data))
            return data

        def readinto(self, buffer):
            count = super().readinto(buffer)
            read_bytes.append(count)
            return count

    monkeypatch.setattr(common.Source, "open", lambda source: Counted(source.path, "rb"))
    with open_page(path) as reader:
        assert b"said" in reader.metadata["exif"]
        assert len(opened) == 2  # once to tell what it is
        # The lists of strips, of 8 bytes a row, are looked at by one reader alone.
        assert sum(read_bytes) < 2000 * 8 + 4096


# PNG, JPEG, WebP, BMP ---------------------------------------------------------------------------


def png(pixels: np.ndarray, colour_type: int, depth: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG without filters, of any kind."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = pixels.astype(">u2" if depth == 16 else np.uint8).reshape(len(pixels), -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], depth, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", head) + b"".join(chunk(*c) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind, options", [("PNG", {}), ("WEBP", {"lossless": True}), ("BMP", {})])
def test_lossless_formats_give_their_pixels(kind, options):
    np.testing.assert_array_equal(read(saved(Image.fromarray(RGB8), kind, **options)), RGB8)


def test_grey_stays_grey_and_equal_channels_stay_rgb():
    grey = RGB8[..., 0]
    for kind in ("PNG", "BMP", "TIFF", "JPEG"):
        assert read(saved(Image.fromarray(grey), kind)).ndim == 2
    assert read(saved(Image.fromarray(np.dstack([grey] * 3)), "PNG")).ndim == 3


def test_16_bit_png_of_every_kind():
    alpha = ALPHA8.astype(np.uint16) * 257
    np.testing.assert_array_equal(read(png(RGB16[..., 0], 0, 16)), RGB16[..., 0])
    np.testing.assert_array_equal(read(png(RGB16, 2, 16)), RGB16)
    for colour, kind in ((RGB16[..., 0], 4), (RGB16, 6)):
        pixels = read(png(np.dstack([colour, alpha]), kind, 16))
        assert pixels.dtype == np.uint16
        assert np.abs(pixels - on_white(colour, alpha, 65535)).max() <= 1


def test_low_depth_grey_png():
    values = np.array([[0, 1, 2, 3]], np.uint8)
    data = png(np.array([[0b00011011]], np.uint8), 0, 2)
    data = data.replace(struct.pack(">II", 1, 1), struct.pack(">II", 4, 1), 1)
    head = data[12:29]
    data = data[:29] + struct.pack(">I", zlib.crc32(head)) + data[33:]
    np.testing.assert_array_equal(read(data), values * 85)


@pytest.mark.parametrize(
    "kind, options", [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})]
)
def test_alpha_is_composited_on_white(kind, options):
    data = saved(Image.fromarray(np.dstack([RGB8, ALPHA8])), kind, **options)
    assert np.abs(read(data) - on_white(RGB8, ALPHA8, 255)).max() <= 1
    if kind == "PNG":
        data = saved(Image.fromarray(np.dstack([RGB8[..., 0], ALPHA8]), "LA"), kind)
        assert np.abs(read(data) - on_white(RGB8[..., 0], ALPHA8, 255)).max() <= 1


def test_transparent_colours_become_white():
    grey = (np.arange(16, dtype=np.uint8) * 17).reshape(4, 4)
    want = np.where(grey == 34, 255, grey)
    np.testing.assert_array_equal(read(png(grey, 0, 8, (b"tRNS", b"\0\x22"))), want)
    rgb = np.dstack([grey, grey, grey[::-1]])
    hit = (rgb == rgb[1, 2]).all(axis=2)
    key = rgb[1, 2].astype(">u2").tobytes()
    want = np.where(hit[..., None], 255, rgb)
    assert hit.sum() == 1
    np.testing.assert_array_equal(read(png(rgb, 2, 8, (b"tRNS", key))), want)
    deep = rgb.astype(np.uint16) * 257
    key = deep[1, 2].astype(">u2").tobytes()
    np.testing.assert_array_equal(
        read(png(deep, 2, 16, (b"tRNS", key))), np.where(hit[..., None], 65535, deep)
    )
    # The key counts in the file's own depth: 2 of 4 levels is pixel value 170.
    data = png(np.array([[0b00011011]], np.uint8), 0, 2, (b"tRNS", b"\0\2"))
    data = data.replace(struct.pack(">II", 1, 1), struct.pack(">II", 4, 1), 1)
    data = data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]
    np.testing.assert_array_equal(read(data), [[0, 85, 255, 255]])


def test_palette_png_with_transparent_entries():
    palette = bytes([255, 0, 0, 0, 255, 0, 0, 0, 255])
    index = np.array([[0, 1, 2]], np.uint8)
    for alpha, want in (
        (b"\x00", [[255, 255, 255], [0, 255, 0], [0, 0, 255]]),
        (b"\xff\x80", [[255, 0, 0], [127, 255, 127], [0, 0, 255]]),
    ):
        data = png(index, 3, 8, (b"PLTE", palette), (b"tRNS", alpha))
        np.testing.assert_array_equal(read(data)[0], want)


def test_jpeg_grey_rgb_and_cmyk():
    image = Image.fromarray(RGB8)
    for progressive in (False, True):
        pixels = read(saved(image, "JPEG", quality=95, progressive=progressive))
        assert np.abs(pixels.astype(int) - RGB8).mean() < 3
    cmyk = image.convert("CMYK")
    want = np.asarray(cmyk.convert("RGB")).astype(int)
    assert np.abs(read(saved(cmyk, "JPEG", quality=95)) - want).mean() < 4


def test_cmyk_goes_through_its_profile(monkeypatch):
    # No CMYK profile is free to ship here: a stand-in for LittleCMS shows what is asked of it.
    asked = {}

    def build(source, target, from_mode, to_mode, intent, flags):
        asked.update(modes=(from_mode, to_mode), intent=intent)
        return "transform"

    monkeypatch.setattr(ImageCms, "ImageCmsProfile", lambda file: file.read())
    monkeypatch.setattr(ImageCms, "createProfile", lambda name: name)
    monkeypatch.setattr(ImageCms, "buildTransform", build)
    monkeypatch.setattr(
        ImageCms,
        "applyTransform",
        lambda image, transform: Image.new("RGB", image.size, (1, 2, 3)),
    )
    profile = bytearray(200)
    profile[16:20], profile[36:40] = b"CMYK", b"acsp"
    image = Image.fromarray(RGB8).convert("CMYK")
    for kind in ("JPEG", "TIFF"):
        data = saved(image, kind, icc_profile=bytes(profile))
        with open_page(data) as reader:
            assert (reader[:3, :4] == [1, 2, 3]).all()
            assert reader.icc is None
    assert asked == {"modes": ("CMYK", "RGB"), "intent": ImageCms.Intent.RELATIVE_COLORIMETRIC}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation):
    turn = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: np.rot90,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(RGB8)
    for data in (
        saved(image, "PNG", exif=exif),
        saved(image, "WEBP", exif=exif, lossless=True),
        tiff(RGB8, photometric="rgb", extratags=[(274, 3, 1, orientation, True)], rowsperstrip=9),
        tiff(
            RGB8,
            photometric="rgb",
            extratags=[(274, 3, 1, orientation, True)],
            compression="zlib",
            tile=(16, 16),
        ),
    ):
        np.testing.assert_array_equal(read(data), turn(RGB8))
    jpeg = saved(image, "JPEG", quality=95, exif=exif)
    assert np.abs(read(jpeg).astype(int) - turn(RGB8)).mean() < 3


def test_icc_profiles_are_kept_where_they_fit():
    image = Image.fromarray(RGB8)
    for kind in ("PNG", "JPEG", "WEBP", "TIFF"):
        with open_page(saved(image, kind, icc_profile=SRGB)) as reader:
            assert reader.icc == SRGB
        with open_page(saved(image, kind, icc_profile=SRGB), gray=True) as reader:
            assert reader.icc is None
        with open_page(saved(image.convert("L"), kind, icc_profile=SRGB)) as reader:
            assert reader.icc is None or kind == "WEBP"  # WebP has no grey
        with open_page(saved(image, kind, icc_profile=SRGB[:100])) as reader:
            assert reader.icc is None


def test_gray_is_bt601_luma():
    want = np.asarray(Image.fromarray(RGB8).convert("L"))
    np.testing.assert_array_equal(read(saved(Image.fromarray(RGB8), "PNG"), gray=True), want)
    pixels = read(tiff(RGB16, photometric="rgb"), gray=True)
    assert pixels.dtype == np.uint16
    assert np.abs(pixels - RGB16 @ np.array([0.299, 0.587, 0.114])).max() <= 1.5
    white = np.full((2, 2, 3), 65535, np.uint16)
    assert (read(tiff(white, photometric="rgb"), gray=True) == 65535).all()


def test_first_picture_of_several():
    first, second = Image.fromarray(RGB8), Image.fromarray(255 - RGB8)
    for kind, options in (
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("MPO", {"quality": 95}),
    ):
        data = saved(first, kind, save_all=True, append_images=[second], **options)
        assert len(probe(data)) == 1
        assert np.abs(read(data).astype(int) - RGB8).mean() < 3


def test_format_is_told_by_content(tmp_path):
    path = tmp_path / "really a jpeg.png"
    path.write_bytes(saved(Image.fromarray(RGB8), "JPEG"))
    assert read(path).shape == RGB8.shape


# Camera RAW -------------------------------------------------------------------------------------


def dng(sensor: np.ndarray, orientation: int = 1) -> bytes:
    """A minimal DNG of an RGGB sensor with a neutral camera profile."""
    one, zero = (1, 1), (0, 1)
    identity = [v for row in range(3) for col in range(3) for v in (one if row == col else zero)]
    tags = [
        (33421, "H", 2, (2, 2), True),
        (33422, "B", 4, bytes([0, 1, 1, 2]), True),
        (50706, "B", 4, bytes([1, 4, 0, 0]), True),
        (50708, "s", 0, "femto test", True),
        (271, "s", 0, "femto", True),
        (272, "s", 0, "test", True),
        (50717, "I", 1, 16383, True),
        (50721, "2i", 9, tuple(identity), True),
        (50728, "2I", 3, (1, 1) * 3, True),
        (274, "H", 1, orientation, True),
    ]
    return tiff(sensor, photometric="cfa", software=False, extratags=tags)


def test_raw_is_developed():
    pytest.importorskip("rawpy", reason="needs rawpy")
    sensor = np.full((200, 300), 8000, np.uint16)
    sensor[:, :150] //= 4
    pixels = read(dng(sensor), name="x.dng")
    assert pixels.shape == (200, 300, 3)
    assert pixels.dtype == np.uint8
    assert pixels[:, :140].mean() < pixels[:, 160:].mean() - 50
    turned = read(dng(sensor, 6), name="x.dng")
    assert turned.shape == (300, 200, 3)
    assert turned[:140].mean() < turned[160:].mean() - 50


@pytest.mark.parametrize("keep", [40, 1000, 60_000])
def test_raw_cut_short_is_refused(keep, capfd):
    pytest.importorskip("rawpy", reason="needs rawpy")
    data = dng(np.full((200, 300), 8000, np.uint16))
    with pytest.raises(LaffError, match=r"^x\.dng: "), open_page(data[:keep], name="x.dng") as r:
        r[:, :]
    assert capfd.readouterr() == ("", "")


# Refusals ---------------------------------------------------------------------------------------


def refusal(data, name="some picture.tif") -> str:
    with pytest.raises(LaffError) as caught, open_page(data, name=name) as reader:
        reader[:, :]
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert "\n" not in message
    assert ";" in message, "a refusal names a remedy"
    return message


@pytest.mark.parametrize(
    "pixels, options, reason",
    [
        (np.zeros((9, 9), np.complex64), {}, "complex"),
        (np.zeros((9, 9, 5), np.uint8), {"photometric": "minisblack"}, "5 bands"),
        (np.zeros((9, 9, 4), np.uint8), {"photometric": "rgb", "extrasamples": [0]}, "4 bands"),
        (np.zeros((9, 9, 3), np.uint8), {"photometric": "cielab"}, r"L\*a\*b\*"),
    ],
)
def test_tiff_that_is_no_photograph_is_refused(pixels, options, reason):
    import re

    if pixels.ndim == 3:
        options = {**options, "planarconfig": "contig"}
    assert re.search(reason, refusal(tiff(pixels, **options)))


def test_not_a_picture(tmp_path):
    assert "empty" in refusal(b"")
    assert "not a picture" in refusal(b"hello, this is text")
    for name in ("missing.png", "folder.png"):
        path = tmp_path / name
        if name == "folder.png":
            path.mkdir()
        with pytest.raises(LaffError, match=name):
            probe(path)


def test_header_that_promises_too_much_allocates_nothing():
    small = png(np.zeros((1, 1), np.uint8), 0, 8)

    def with_size(width, height):
        data = small.replace(struct.pack(">II", 1, 1), struct.pack(">II", width, height), 1)
        return data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]

    assert "promises more" in refusal(with_size(16_000, 16_000), "x.png")
    assert "too many" in refusal(with_size(60_000, 60_000), "x.png")
    assert "more than femto takes" in refusal(with_size(2_000_000, 1), "x.png")
    assert "no pixels" in refusal(raw_tiff(0, 5, 8, b"\0" * 10))
    assert "has no page" in refusal(raw_tiff(5, 5, 8, b"\0" * 25)[:8] + b"\0" * 4)
    assert "fewer pixels" in refusal(raw_tiff(50_000, 50_000, 8, b"\0" * 25))
    deflated = tiff(np.zeros((64, 64), np.uint8), compression="zlib")
    grown = deflated.replace(struct.pack("<I", 64), struct.pack("<I", 30_000))
    assert grown != deflated
    refusal(grown)


def test_a_few_bytes_cannot_be_a_huge_webp():
    blank = saved(Image.new("RGB", (9000, 9000)), "WEBP", lossless=True, quality=0, method=0)
    assert len(blank) < 1000
    assert "promises more" in refusal(blank, "x.webp")
    assert read(saved(Image.new("RGB", (900, 900)), "WEBP")).shape == (900, 900, 3)


def test_pages_that_go_round_in_circles():
    data = raw_tiff(5, 5, 8, b"\0" * 25)
    first = data[4:8]
    assert data.endswith(b"\0\0\0\0")
    assert "no end" in refusal(data[:-4] + first)


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "png", "webp"])
def test_a_tile_larger_than_its_place_is_not_decoded(compression):
    data = tiff(RGB8, photometric="rgb", compression=compression)
    height = struct.pack("<HHII", 257, 4, 1, HEIGHT)
    assert data.count(height) == 1
    lower = data.replace(height, height[:8] + struct.pack("<I", 20))
    assert f"holds {WIDTH} x {HEIGHT} pixels where {WIDTH} x 20 fit" in refusal(lower)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_files_cut_short_are_refused(kind):
    data = saved(Image.fromarray(RGB8), kind)
    for keep in (3, 20, len(data) // 2, len(data) * 9 // 10):
        refusal(data[:keep], f"x.{kind.lower()}")


def test_missing_library_is_named(monkeypatch):
    import sys

    data = png(RGB16, 2, 16)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert "pip install imagecodecs" in refusal(data, "x.png")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    assert "pip install tifffile" in refusal(tiff(RGB8), "x.tif")
    monkeypatch.setitem(sys.modules, "rawpy", None)
    assert "pip install rawpy" in refusal(b"x" * 100, "x.nef")
    read(saved(Image.fromarray(RGB8), "PNG"))


def test_hostile_files_give_a_picture_or_a_refusal(femto_data, capfd):
    files = sorted((femto_data / "hostile").iterdir())
    assert files
    refused = 0
    for path in files:
        try:
            for info in probe(path):
                with open_page(path, info.page) as reader:
                    assert reader[:, :].shape == reader.shape
        except LaffError as exc:
            refused += 1
            assert str(exc).startswith(f"{path}: ")
            assert "\n" not in str(exc)
    assert 0 < refused < len(files)
    assert capfd.readouterr() == ("", "")


def test_mutated_files_give_a_picture_or_a_refusal(capfd):
    image = Image.fromarray(RGB8)
    seeds = [
        tiff(RGB8, photometric="rgb"),
        tiff(RGB8, photometric="rgb", compression="lzw", rowsperstrip=8),
        tiff(RGB8, photometric="rgb", compression="jpeg", tile=(32, 32)),
        tiff(RGB8, photometric="rgb", compression="jpeg2000", tile=(32, 32)),
        tiff(RGB8, photometric="rgb", compression="png"),
        saved(image.convert("1"), "TIFF", compression="group4"),
        saved(image.quantize(16), "TIFF"),
        subsampled_ycbcr_tiff(),
        png(RGB16, 2, 16),
        saved(image, "PNG"),
        saved(image, "JPEG"),
        saved(image.convert("CMYK"), "JPEG", progressive=True),
        saved(image, "WEBP"),
        saved(image.quantize(16), "BMP"),
    ]
    rng = np.random.default_rng(11)
    outcomes = {True: 0, False: 0}
    for turn in range(50 * len(seeds)):
        data = bytearray(seeds[turn % len(seeds)])
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(min(len(data), 400) if turn % 3 else len(data))] = rng.integers(256)
        try:
            for info in probe(bytes(data), name="x"):
                if info.error is None and info.width * info.height < 1 << 24:
                    with open_page(bytes(data), info.page, name="x") as reader:
                        assert reader[:, :].shape == reader.shape
            outcomes[True] += 1
        except LaffError as exc:
            outcomes[False] += 1
            assert str(exc).startswith("x: ")
    assert all(outcomes.values())
    assert capfd.readouterr() == ("", "")


# Writing ----------------------------------------------------------------------------------------


def in_bands(pixels, rows):
    for y in range(0, len(pixels), rows):
        yield y, pixels[y : y + rows]


def facts(pixels):
    return {
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "mode": "L" if pixels.ndim == 2 else "RGB",
        "bits": pixels.dtype.itemsize * 8,
    }


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("rows", [1, 10, 61])
def test_written_pictures_read_back(tmp_path, suffix, picture, rows):
    pixels = PICTURES[picture]
    icc = SRGB if pixels.ndim == 3 else None
    path = tmp_path / f"x{suffix}"
    assert write_picture(path, in_bands(pixels, rows), icc=icc, **facts(pixels))
    np.testing.assert_array_equal(read(path), pixels)
    with open_page(path) as reader:
        assert reader.icc == icc
    if suffix == ".png":
        assert np.array_equal(imagecodecs.png_decode(path.read_bytes()), pixels)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("picture", PICTURES)
def test_written_jpeg(tmp_path, picture):
    pixels = PICTURES[picture]
    path = tmp_path / "x.jpg"
    write_picture(path, in_bands(pixels, 16), **facts(pixels))
    scale = 1 if pixels.dtype == np.uint8 else 257
    assert np.abs(read(path) - pixels / scale).mean() < 3


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (1, 300), (300, 1), (1, 70, 3), (70, 1, 3)])
def test_thin_pictures(tmp_path, shape):
    for dtype in (np.uint8, np.uint16):
        pixels = _rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
        for suffix in (".png", ".tif"):
            write_picture(tmp_path / f"x{suffix}", pixels, **facts(pixels))
            np.testing.assert_array_equal(read(tmp_path / f"x{suffix}"), pixels)


@pytest.mark.parametrize("picture", PICTURES)
def test_tiff_is_written_without_tifffile(tmp_path, monkeypatch, picture):
    import sys

    pixels = PICTURES[picture]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tifffile", None)
        write_picture(tmp_path / "x.tif", pixels, **facts(pixels))
    np.testing.assert_array_equal(read(tmp_path / "x.tif"), pixels)


def test_other_files_are_kept_unless_told(tmp_path):
    path = tmp_path / "x.png"
    assert write_picture(path, RGB8, overwrite=False, **facts(RGB8))
    assert not write_picture(path, RGB8, overwrite=False, **facts(RGB8))
    before = path.read_bytes()
    other = RGB8[::-1].copy()
    with pytest.raises(LaffError, match="another file"):
        write_picture(path, other, overwrite=False, **facts(other))
    assert path.read_bytes() == before
    assert write_picture(path, other, **facts(other))
    np.testing.assert_array_equal(read(path), other)
    assert len(list(tmp_path.iterdir())) == 1


def test_nothing_is_left_when_bands_fail(tmp_path):
    def failing():
        yield 0, RGB8[:10]
        raise LaffError("broken archive")

    with pytest.raises(LaffError, match="broken archive"):
        write_picture(tmp_path / "x.png", failing(), **facts(RGB8))
    with pytest.raises(LaffError, match="rows"):
        write_picture(tmp_path / "x.png", in_bands(RGB8[:20], 10), **facts(RGB8))
    with pytest.raises(LaffError, match="does not fit"):
        write_picture(tmp_path / "x.png", in_bands(RGB16, 10), **facts(RGB8))
    assert not list(tmp_path.iterdir())


def test_writing_errors_name_the_file(tmp_path):
    with pytest.raises(LaffError, match=r"nowhere/x\.png: cannot be written"):
        write_picture(tmp_path / "nowhere" / "x.png", RGB8, **facts(RGB8))
    with pytest.raises(LaffError, match=r"x\.gif: no format"):
        write_picture(tmp_path / "x.gif", RGB8, **facts(RGB8))
    with pytest.raises(LaffError, match="/dev/full: cannot be written: No space left"):
        write_picture("/dev/full", RGB8, format="png", **facts(RGB8))
