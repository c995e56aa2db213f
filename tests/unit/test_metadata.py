"""What a picture file says of its picture: into the archive, and back into a file."""

import base64
import io
import json
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

import decompressor
import femto
from femto import container
from femto.container import bounds
from femto.pictures import embedding, open_page, properties, write_picture
from femto.pictures import metadata as about

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 255, (24, 40), np.uint8)
COLOUR = RNG.integers(0, 255, (24, 40, 3), np.uint8)
XMP = (
    '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="1" tiff:ImageWidth="40">'
    "<tiff:Make>Größe</tiff:Make></rdf:Description></rdf:RDF></x:xmpmeta>"
)
IPTC = b"\x1c\x02\x78\x00\x05Hello\x1c\x02\x19\x00\x03one\x1c\x02\x19\x00\x03two"


def exif(orientation=1, thumbnail=False) -> bytes:
    """EXIF with all its directories, as a camera writes it."""
    made = Image.Exif()
    made[0x010F], made[0x0110], made[0x0112] = "Maker", "Model 3", orientation
    made[0x9C9B] = "Größe\0".encode("utf-16le")
    inner = made.get_ifd(0x8769)
    inner[0x829A], inner[0x9003] = 1 / 125, "2021:02:03 04:05:06"
    inner[0xA002], inner[0xA003] = 640, 480
    inner[0x927C] = b"MAKER\0" + bytes(range(200))
    made.get_ifd(0x8825)[1] = "N"
    made.get_ifd(0x8825)[2] = (48.0, 51.0, 29.5)
    data = made.tobytes().removeprefix(b"Exif\0\0")
    if thumbnail:
        at = len(data)
        order, found, _ = about.ifd.parse(data)
        following = 8 + 2 + 12 * len(found[0])
        picture = b"\xff\xd8thumbnail\xff\xd9"
        tags = [about.ifd.number(513, 4, [at + 2 + 24 + 4], order)]
        tags += [about.ifd.number(514, 4, [len(picture)], order)]
        data = bytearray(data + about.ifd.written(tags, at, order) + picture)
        struct.pack_into(order + "I", data, following, at)
    return bytes(data)


def jpeg(pixels=COLOUR, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def jpeg_exif(block: bytes) -> bytes:
    return jpeg(exif=b"Exif\0\0" + block)


def through(data, suffix, tmp_path, *, page=0, name="picture") -> tuple:
    """Read, put into an archive's text and back, write: metadata, notes, the file's path."""
    with open_page(data, page, name=name) as reader:
        pixels, found, notes = reader[:, :], reader.metadata, reader.info.notes
    kept = container.unpack_metadata(container.pack_metadata(found)) if found else None
    assert kept == found
    height, width = pixels.shape[:2]
    path = tmp_path / f"back{suffix}"
    mode, bits = "L" if pixels.ndim == 2 else "RGB", 8 * pixels.dtype.itemsize
    write_picture(path, pixels, width=width, height=height, mode=mode, bits=bits, metadata=kept)
    if suffix != ".jpg":
        with open_page(path) as again:
            assert np.array_equal(again[:, :], pixels)
    return found, notes, path


def read_exif(image) -> dict:
    made = image.getexif()
    return {
        **made,
        **{("exif", k): v for k, v in made.get_ifd(0x8769).items()},
        **{("gps", k): v for k, v in made.get_ifd(0x8825).items()},
    }


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_exif_of_a_jpeg_comes_back_and_its_orientation_is_normal(suffix, orientation, tmp_path):
    _, notes, path = through(jpeg_exif(exif(orientation)), suffix, tmp_path)
    with Image.open(path) as image:
        read = read_exif(image)
        assert image.size == ((24, 40) if orientation == 6 else (40, 24))
        size = image.size
    assert (read[0x010F], read[0x0110]) == ("Maker", "Model 3")
    assert read.get(0x0112, 1) == 1
    assert (read["exif", 0xA002], read["exif", 0xA003]) == size
    assert read["exif", 0x9003] == "2021:02:03 04:05:06"
    assert float(read["exif", 0x829A]) == pytest.approx(1 / 125)
    assert read["exif", 0x927C] == b"MAKER\0" + bytes(range(200))
    assert read["gps", 1] == "N"
    assert [float(v) for v in read["gps", 2]] == [48.0, 51.0, 29.5]
    assert not notes


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
def test_the_thumbnail_of_exif_is_left_out_and_that_is_said(suffix, tmp_path):
    found, notes, path = through(jpeg_exif(exif(thumbnail=True)), suffix, tmp_path)
    assert notes == ("EXIF thumbnail not kept",)
    assert b"thumbnail" not in found["exif"] and b"thumbnail" not in path.read_bytes()
    with Image.open(path) as image:
        assert read_exif(image)["exif", 0x927C] == b"MAKER\0" + bytes(range(200))


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
def test_xmp_comes_back_upright(suffix, tmp_path):
    turned = XMP.replace('Orientation="1"', 'Orientation="8"')
    turned = turned.replace("</rdf:Desc", "<tiff:ImageLength>99</tiff:ImageLength></rdf:Desc")
    _, _, path = through(jpeg(xmp=turned.encode()), suffix, tmp_path)
    with Image.open(path) as image:
        packet = image.info["xmp"] if suffix != ".tif" else image.tag_v2[700]
    expected = XMP.replace("</rdf:Desc", "<tiff:ImageLength>24</tiff:ImageLength></rdf:Desc")
    assert packet.decode() == expected


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
def test_iptc_of_a_jpeg_comes_back(suffix, tmp_path):
    other = embedding._resource(1005, b"resolution...")
    resources = embedding._resource(1028, IPTC) + other + embedding._resource(1036, b"thumbnail")
    data = jpeg()
    data = data[:2] + b"\xff\xed" + struct.pack(">H", len(resources) + 16) \
        + b"Photoshop 3.0\0" + resources + data[2:]  # fmt: skip
    found, notes, path = through(data, suffix, tmp_path)
    assert notes == ("Photoshop thumbnail not kept",)
    assert found["iptc"] == IPTC and found["photoshop"] == other
    if suffix == ".tif":
        with tifffile.TiffFile(path) as tif:
            assert bytes(tif.pages[0].tags[33723].value) == IPTC
            assert bytes(tif.pages[0].tags[34377].value) == other
    elif suffix == ".jpg":
        with Image.open(path) as image:
            assert image.info["photoshop"][1028] == IPTC
            assert 1036 not in image.info["photoshop"]
    again = through(path.read_bytes(), ".tif", tmp_path)[0]
    assert again["iptc"] == IPTC
    assert embedding.unheld(found, "png") == ["photoshop"] and not embedding.unheld(found, "tif")


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
@pytest.mark.parametrize("source", ["JPEG", "PNG", "BMP", "TIFF"])
def test_resolution_comes_back(source, suffix, tmp_path):
    file = io.BytesIO()
    Image.fromarray(COLOUR).save(file, source, dpi=(300, 150))
    _, _, path = through(file.getvalue(), suffix, tmp_path)
    with Image.open(path) as image:
        assert [float(v) for v in image.info["dpi"]] == pytest.approx([300, 150], abs=0.02)


def test_the_resolution_of_a_turned_picture_turns_with_it(tmp_path):
    for data in (
        jpeg(dpi=(300, 150), exif=b"Exif\0\0" + exif(6)),
        tiff(COLOUR, extratags=[(274, 3, 1, 6)], resolution=(300, 150)),
    ):
        _, _, path = through(data, ".png", tmp_path)
        with Image.open(path) as image:
            assert image.info["dpi"] == pytest.approx((150, 300), abs=0.02)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
def test_texts_come_back(suffix, tmp_path):
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Title", "A view")
    texts.add_text("Comment", "Größe " * 50, zip=True)
    texts.add_itxt("Author", "Łukasz", "pl", "Autor")
    file = io.BytesIO()
    Image.fromarray(GREY).save(file, "PNG", pnginfo=texts)
    found, _, path = through(file.getvalue(), suffix, tmp_path)
    assert found["text"] == [["Title", "A view"], ["Comment", "Größe " * 50], ["Author", "Łukasz"]]
    with Image.open(path) as image:
        if suffix == ".png":
            assert dict(image.text) == dict(found["text"])
        elif suffix == ".tif":
            with tifffile.TiffFile(path) as tif:
                tags = tif.pages[0].tags
                assert tags[270].value == f"Title: A view\nComment: {'Größe ' * 50}".rstrip()
                assert tags[315].value == "Łukasz"
        else:
            again = through(path.read_bytes(), ".png", tmp_path)[0]["text"]
            assert again == [["Comment", t] for t in
                             ("Title: A view", "Größe " * 50, "Author: Łukasz")]  # fmt: skip


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(COLOUR).save(file, "PNG")
    more = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return file.getvalue()[:33] + more + file.getvalue()[33:]


def png_chunks(path) -> dict[bytes, bytes]:
    data, at, found = path.read_bytes(), 8, {}
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found[data[at + 4 : at + 8]] = data[at + 8 : at + 8 + length]
        at += 12 + length
    return found


def test_what_a_png_says_of_its_colours_and_time_comes_back(tmp_path):
    wide = struct.pack(">8I", 31270, 32900, 70800, 29200, 17000, 79700, 13100, 4600)
    chunks = {b"gAMA": struct.pack(">I", 100000), b"cHRM": wide, b"cICP": b"\x09\x10\x00\x01",
              b"tIME": struct.pack(">HBBBBB", 2021, 2, 3, 4, 5, 6)}  # fmt: skip
    found, notes, path = through(png_with(*chunks.items()), ".png", tmp_path)
    assert not notes
    assert {k: v for k, v in png_chunks(path).items() if k in chunks} == chunks
    shown = properties.describe(found)
    assert (shown["PNG gAMA"], shown["PNG tIME"]) == ("1", "2021-02-03 04:05:06")
    assert embedding.unheld(found, "jpg") == embedding.unheld(found, "tif") == ["png"]
    assert not embedding.unheld(found, "png")


def test_a_png_that_says_srgb_says_nothing_more():
    plain = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    chunks = ((b"gAMA", struct.pack(">I", 45455)), (b"cHRM", plain), (b"sRGB", b"\0"))
    with open_page(png_with(*chunks)) as reader:
        assert reader.metadata is None


def tiff(pixels=GREY, **options) -> bytes:
    file = io.BytesIO()
    options = {"metadata": None} | options
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_all_describing_tags_of_a_tiff_come_back(byteorder, big, tmp_path):
    extra = [
        (270, 2, 0, "A description\nof two lines"),
        (271, 2, 0, "Maker"),
        (33550, 12, 3, (0.5, 0.25, 0.0)),
        (33922, 12, 6, (0.0, 0.0, 0.0, 1e6, -2.5e-3, 0.0)),
        (34735, 3, 8, (1, 1, 0, 1, 1024, 0, 1, 1)),
        (34737, 2, 0, "WGS 84|"),
        (42112, 2, 0, "<GDALMetadata><Item name='x'>1</Item></GDALMetadata>"),
        (42113, 2, 0, "255"),
        (700, 1, len(XMP.encode()), XMP.encode()),
        (33723, 7, len(IPTC), IPTC),
        (65000, 9, 2, (-7, 8)),
        (65001, 11, 1, 1.5),
        (65002, 10, 1, (-1, 3)),
        (65003, 7, 5, b"\x00\x01\x02\x03\x04"),
        (65004, 8, 1, -5),
    ]
    if big:
        extra.append((65005, 16, 1, 123456))
    data = tiff(GREY.astype(np.uint16), byteorder=byteorder, bigtiff=big, extratags=extra,
                resolution=((3000001, 10007), (72, 1)), resolutionunit=3)  # fmt: skip
    found, notes, path = through(data, ".tif", tmp_path)
    assert not notes
    with tifffile.TiffFile(io.BytesIO(data)) as before, tifffile.TiffFile(path) as after:
        a, b = before.pages[0].tags, after.pages[0].tags
        assert after.byteorder == byteorder
        for code in (282, 283, 296, *(tag[0] for tag in extra)):
            assert b[code].value == a[code].value, code
    shown = properties.describe(found)
    assert shown["Make"] == "Maker" and shown["GDAL_NODATA"] == "255"


def test_imagej_metadata_of_a_big_endian_file_come_back(tmp_path):
    file = io.BytesIO()
    labels = ["one", "two", "three"]
    tifffile.imwrite(
        file, np.stack([GREY] * 3).astype(np.uint16), imagej=True, resolution=(3.2, 3.2),
        metadata={"axes": "ZYX", "spacing": 2.5, "unit": "um", "Labels": labels, "Info": "Größe"},
    )  # fmt: skip
    found, _, path = through(file.getvalue(), ".tif", tmp_path)
    assert b"images=3" in found["exif"]
    with tifffile.TiffFile(path) as tif:
        read = tif.imagej_metadata
        assert tif.series[0].shape == GREY.shape
        assert (read["spacing"], read["unit"], read["Info"]) == (2.5, "um", "Größe")
        assert read["Labels"] == labels and "images" not in read


def test_ome_xml_is_kept_whole_and_says_one_plane_in_a_file_of_one(tmp_path):
    file = io.BytesIO()
    tifffile.imwrite(
        file, np.stack([GREY] * 6).reshape(2, 3, *GREY.shape), ome=True,
        metadata={"axes": "CZYX", "PhysicalSizeX": 0.1, "Channel": {"Name": ["a", "b"]}},
    )  # fmt: skip
    file.seek(0)
    with tifffile.TiffFile(file) as tif:
        xml = tif.ome_metadata
    found, _, path = through(file.getvalue(), ".tif", tmp_path)
    assert xml.encode() in found["exif"]
    with tifffile.TiffFile(path) as tif:
        assert tif.series[0].shape == GREY.shape
        assert 'PhysicalSizeX="0.1"' in tif.ome_metadata and 'Name="b"' in tif.ome_metadata
    single = io.BytesIO()
    tifffile.imwrite(single, GREY, ome=True, metadata={"axes": "YX", "PhysicalSizeX": 0.1})
    single.seek(0)
    with tifffile.TiffFile(single) as tif:
        xml = tif.ome_metadata
    _, _, path = through(single.getvalue(), ".tif", tmp_path)
    with tifffile.TiffFile(path) as tif:
        assert tif.ome_metadata == xml


def test_pages_keep_their_own_tags_and_those_they_share(tmp_path):
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tif:
        for number in range(2):
            extra = [(285, 2, 0, f"page {number}"), (306, 2, 0, f"2020:01:0{number + 1} 00:00:00")]
            if not number:
                extra += [(315, 2, 0, "An artist"), (286, 5, 1, (1, 2))]
            tif.write(GREY, metadata=None, description="first" if not number else None,
                      extratags=extra)  # fmt: skip
    _, _, path = through(file.getvalue(), ".tif", tmp_path, page=1)
    with tifffile.TiffFile(path) as tif:
        tags = tif.pages[0].tags
        assert (tags[285].value, tags[306].value) == ("page 1", "2020:01:02 00:00:00")
        assert (tags[315].value, tags[270].value) == ("An artist", "first")
        assert 286 not in tags


def test_exif_of_a_tiff_goes_into_png_and_jpeg(tmp_path):
    path = tmp_path / "exif.tif"
    with open_page(jpeg_exif(exif(3))) as reader:
        write_picture(path, reader[:, :], width=40, height=24, mode="RGB", bits=8,
                      metadata=reader.metadata)  # fmt: skip
    for suffix in (".png", ".jpg"):
        _, _, back = through(path.read_bytes(), suffix, tmp_path)
        with Image.open(back) as image:
            read = read_exif(image)
        assert read[0x010F] == "Maker" and read["gps", 1] == "N"
        assert read["exif", 0x927C] == b"MAKER\0" + bytes(range(200))


def test_what_a_format_cannot_hold_is_named():
    long = b"II*\0\x08\0\0\0" + about.ifd.tree(
        {0: [about.ifd.text(271, "Maker"), about.ifd.text(65000, "x" * 70000)]}, 8, "<"
    )
    assert embedding.unheld({"exif": long}, "jpg") == ["private tags"]
    assert embedding.unheld({"exif": long, "dicom": b"x"}, "tif") == ["dicom"]
    segments, _, _ = embedding.for_jpeg({"exif": long})
    assert b"Maker" in segments and len(segments) < 200
    extended = {"xmp": "x", "xmp_extended": bytes(32) + b"y" * 100000}
    assert embedding.unheld(extended, "png") == ["xmp extended"]
    assert not embedding.unheld(extended, "jpg")


def test_extended_xmp_of_a_jpeg_comes_back(tmp_path):
    guid, whole = b"0123456789ABCDEF" * 2, bytes(RNG.integers(32, 90, 150000, np.uint8))
    segments, _, _ = embedding.for_jpeg(
        {"xmp": f'<x xmpNote:HasExtendedXMP="{guid.decode()}"/>', "xmp_extended": guid + whole}
    )
    data = jpeg()
    found, _, path = through(data[:2] + segments + data[2:], ".jpg", tmp_path)
    assert found["xmp_extended"] == guid + whole
    assert through(path.read_bytes(), ".jpg", tmp_path)[0]["xmp_extended"] == guid + whole


def test_what_is_not_kept_is_counted(tmp_path):
    data = tiff(
        GREY, extratags=[(33629, 5, 1, (1, 2)), (34412, 7, 4, b"abcd"), (37724, 7, 4, b"x")]
    )
    _, notes, _ = through(data, ".tif", tmp_path)
    assert notes == ("Photoshop layers not kept", "2 TIFF tags not kept")
    app = b"\xff\xe5\x00\x08other\0"
    data = jpeg()
    assert through(data[:2] + app + data[2:], ".png", tmp_path)[1] == (
        "1 JPEG segment of other programs not kept",
    )


def test_damaged_metadata_do_not_stop_a_picture(tmp_path):
    good = exif()
    for seed in range(150):
        rng = np.random.default_rng(seed)
        block = bytearray(good)
        for _ in range(rng.integers(1, 10)):
            block[rng.integers(8, len(block))] = rng.integers(256)
        with open_page(jpeg_exif(bytes(block[: rng.integers(8, len(block))]))) as reader:
            kept = reader.metadata or {}
            assert reader.shape[2] == 3
        for format in ("png", "tif", "jpg"):
            embedding.unheld(kept, format)
        properties.describe(kept)


def test_a_picture_without_metadata_has_none_in_its_archive():
    with open_page(tiff(COLOUR, software=False)) as reader:
        assert reader.metadata is None and reader.info.notes == ()
    file = io.BytesIO()
    Image.fromarray(COLOUR).save(file, "PNG")
    with open_page(file.getvalue()) as reader:
        assert reader.metadata is None
    with open_page(jpeg()) as reader:
        assert reader.metadata is None
    archive = femto.encode(COLOUR, quality=20)
    assert b"metadata" not in zlib.decompress(archive, 31)


EVIL = "\x1b]0;evil\x07\x9b31m\u202eabc"


def test_an_archive_keeps_metadata_and_shows_them_without_harm(tmp_path, capsys):
    kept = {"exif": exif(), "text": [["Title" + EVIL, EVIL]], "xmp": XMP, "note": {"a": [1, EVIL]}}
    kept |= {"iptc": IPTC, "resolution": [[3000001, 10007], 72, "inch"]}
    archive = femto.encode(COLOUR, quality=20, metadata=kept, source="name" + EVIL)
    for made in (archive, femto.truncate(archive, layers=1)):
        info = femto.info(made)
        assert info["metadata"] == kept
        assert info["properties"]["Model"] == "Model 3"
        assert info["properties"]["IPTC Keywords"] == "one; two"
        assert all(s.isprintable() for pair in info["properties"].items() for s in pair)
    path = tmp_path / "a.laff.gz"
    path.write_bytes(archive)
    assert decompressor.main([str(path), "--info"]) == 0
    shown = capsys.readouterr().out
    assert "Model: Model 3" in shown and "IPTC Caption: Hello" in shown
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert decompressor.main([str(path), "--info", "--json"]) == 0
    line = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in line)
    told = json.loads(line)
    assert told["metadata"]["exif"] == len(exif()) and told["metadata"]["note"] == kept["note"]


def test_metadata_go_from_the_archive_into_the_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    kept = {"exif": exif(), "xmp": XMP, "dicom": b"x"}
    (tmp_path / "a.laff.gz").write_bytes(femto.encode(COLOUR, quality=20, metadata=kept))
    for suffix in ("tif", "png", "jpg"):
        assert decompressor.main(["a.laff.gz", "-o", f"a.{suffix}"]) == 0
        assert "without dicom" in capsys.readouterr().out
        with Image.open(f"a.{suffix}") as image:
            assert read_exif(image)[0x010F] == "Maker"
        assert decompressor.main(["a.laff.gz", "-o", f"b.{suffix}", "--strip-metadata"]) == 0
        assert "without" not in capsys.readouterr().out
        with Image.open(f"b.{suffix}") as image:
            assert not {"exif", "xmp"} & image.info.keys() and 0x010F not in image.getexif()


def test_strip_metadata_leaves_nothing():
    plain = femto.encode(COLOUR, quality=20)
    stripped = femto.encode(COLOUR, quality=20, metadata={"exif": exif()}, source="private.jpg",
                            strip_metadata=True)  # fmt: skip
    assert stripped == plain


def test_sound_metadata_are_converted_once(monkeypatch):
    parsed = []
    original = about.ifd.parse
    monkeypatch.setattr(about.ifd, "parse", lambda data: parsed.append(1) or original(data))
    sound = {"exif": exif(), "xmp": "<x/>", "text": [["Author", "me"]]}
    for damage, lost in ({}, []), ({"resolution": ["x"]}, ["resolution"]):
        parsed.clear()
        _, directories, left_out = embedding.for_tiff(sound | damage)
        assert {0x0110, 700, 315} <= {tag.code for tag in directories[0]}
        assert left_out == lost
        assert len(parsed) == 1 or damage


def test_metadata_of_strangers_are_limited():
    for damaged in (
        "%%%",
        "AAAA",
        base64.b64encode(zlib.compress(b"[]")).decode(),
        *(packed(data) for data in (b"", b"{}", b"[]", b'[{},{"a":1}]', b'[{},{"a":-1}]\nx',
                                    b"[{},{}]\nx", b'[[],{"a":"x"}]', b"[" * 100000,
                                    b'[{},{}]' + bytes(bounds.MAX_METADATA))),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="metadata"):
            container.unpack_metadata(damaged)
    with pytest.raises(femto.LaffError, match="more than an archive keeps"):
        container.pack_metadata({"a": bytes(bounds.MAX_METADATA)})


def packed(data: bytes) -> str:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return base64.b64encode(deflate.compress(data) + deflate.flush()).decode()


@pytest.mark.parametrize("format", ["png", "tif", "jpg"])
def test_metadata_of_a_wrong_shape_are_left_out_and_named(tmp_path, format):
    given = {
        "resolution": 5,
        "text": [1],
        "png": 5,
        "exif": "no bytes",
        "xmp": 7,
        "xmp_extended": 1,
        "iptc": [2],
        "photoshop": {},
        "tiff": "no tags",
        "dicom": None,
        "anything": {"else": [1]},
    }
    path = tmp_path / f"picture.{format}"
    pixels = np.full((8, 8), 90, np.uint8)
    write_picture(path, pixels, width=8, height=8, mode="L", bits=8, metadata=given)
    with Image.open(path) as image:
        assert image.size == (8, 8)
    assert {"resolution", "text"} <= set(embedding.unheld(given, format))
    assert properties.describe(given).keys() >= given.keys() - {"xmp"}
