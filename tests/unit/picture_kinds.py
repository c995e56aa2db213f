"""Kinds of picture files, and what becomes of each: the table of docs/PICTURES.md is made of this.

    python3 tests/unit/picture_kinds.py     writes the table anew

A kind is a file, how it is read, and what is right; test_picture_kinds.py reads them all.
"""

import io
import re
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
FOUND = ROOT / "tests" / "found"
RIGHT = dict(np.load(FOUND / "right.npz"))
PICTURES_MD = ROOT / "docs" / "PICTURES.md"

RGB = RIGHT["bytecount_too_big.tif"][:61, :83].copy()
RGB[0, 0], RGB[-1, -1] = 0, 255
GREY = RGB[..., 1].copy()
COUNTS = GREY.astype(np.int64)


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    family, name, becomes: the columns of the table; make: gives the file's bytes; options: of
    probe() and open_page(); planes: the right pixels of each picture, or None where they are not
    compared; tolerance: the largest difference; labels: of the pictures; notes: a pattern that
    the first picture's notes match, "" if there are none; mapping: whether the original values
    are what the mapping says; refused: a pattern of the one line that refuses it.
    """

    family: str
    name: str
    becomes: str
    make: Callable[[], bytes]
    options: dict = field(default_factory=dict)
    planes: list | None = None
    tolerance: float = 0
    labels: tuple | None = None
    notes: str = ""
    mapping: bool = False
    refused: str | None = None
    suffix: str = ".tif"


def found(name: str) -> Callable[[], bytes]:
    return (FOUND / name).read_bytes


def tiff(pixels, *, metadata=None, **options) -> Callable[[], bytes]:
    def make():
        file = io.BytesIO()
        tifffile.imwrite(file, pixels, metadata=metadata, **options)
        return file.getvalue()

    return make


def saved(image, kind, **options) -> Callable[[], bytes]:
    def make():
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    return make


def tag(data: bytes, code: int, *values: int, kind: int | None = None) -> bytes:
    """A little-endian TIFF whose first page has other values in a tag that fits four bytes."""
    at = struct.unpack_from("<I", data, 4)[0]
    for entry in range(struct.unpack_from("<H", data, at)[0]):
        place = at + 2 + 12 * entry
        found_code, found_kind, count = struct.unpack_from("<HHI", data, place)
        if found_code == code:
            kind = kind or found_kind
            packed = struct.pack(f"<{count}{ {1: 'B', 3: 'H', 4: 'I'}[kind] }", *values)
            changed = struct.pack("<HHI", code, kind, count) + packed.ljust(4, b"\0")
            return data[:place] + changed + data[place + 12 :]
    raise KeyError(code)


def without_tag(data: bytes, code: int) -> bytes:
    """The same under a private tag number that sorts last, so that nobody finds it."""
    at = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, at)[0]
    entries = [data[at + 2 + 12 * i : at + 14 + 12 * i] for i in range(count)]
    entries = [e if e[:2] != struct.pack("<H", code) else b"\xe8\xfd" + e[2:] for e in entries]
    entries.sort(key=lambda e: struct.unpack_from("<H", e)[0])
    return data[: at + 2] + b"".join(entries) + data[at + 2 + 12 * count :]


def stack(shape: tuple[int, ...]) -> np.ndarray:
    """Planes (..., h, w) that differ from each other."""
    count = int(np.prod(shape))
    return np.stack([np.roll(GREY, 7 * i, axis=1) for i in range(count)]).reshape(
        *shape, *GREY.shape
    )


def flat(planes: np.ndarray) -> list[np.ndarray]:
    return list(planes.reshape(-1, *GREY.shape))


def imagej(planes: np.ndarray, axes: str) -> Callable[[], bytes]:
    return tiff(planes, imagej=True, metadata={"axes": axes})


def ome(planes: np.ndarray, axes: str, **options) -> Callable[[], bytes]:
    return tiff(planes, ome=True, metadata={"axes": axes}, photometric="minisblack", **options)


def shaped(planes: np.ndarray, axes: str, **options) -> Callable[[], bytes]:
    return tiff(planes, metadata={"axes": axes}, photometric="minisblack", **options)


def pyramid(file, base: np.ndarray, levels: int, *, description=None, **options):
    """A picture, and halves of it that do not say that they are reduced, in tiles."""
    with tifffile.TiffWriter(file) as tif:
        for level in range(levels + 1):
            small = base[:: 1 << level, :: 1 << level]
            text = description and f"{description}\n{level}"
            tile = None if text and level == 1 else (64, 64)
            tif.write(small, tile=tile, description=text, metadata=None, **options)
            if text and level == 0:
                tif.write(base[::8, ::8], description=text + " thumbnail", metadata=None)
        if text:
            tif.write(base[::9, ::9], description="label", subfiletype=1, metadata=None)


def ndpi(pages: list[tuple[np.ndarray, float]]) -> bytes:
    """Hamamatsu's slides: each page one JPEG with restart markers, whose places are told, and
    offsets of 64 bits of which classic TIFF sees the lower half."""
    out = bytearray(b"II*\0" + bytes(8))
    link = 4
    for pixels, power in pages:
        height, width = pixels.shape[:2]
        jpeg = io.BytesIO()
        image = Image.fromarray(pixels)
        image.save(jpeg, "JPEG", quality=95, subsampling=0, restart_marker_blocks=width // 16)
        jpeg = jpeg.getvalue()
        scan = jpeg.index(b"\xff\xda")
        scan += 2 + struct.unpack(">H", jpeg[scan + 2 : scan + 4])[0]
        marks = [m.end() for m in re.finditer(rb"\xff[\xd0-\xd7]", jpeg[scan:])]
        starts = np.array([scan, *(scan + end for end in marks)], "<u4")
        at = len(out)
        out += jpeg
        where = len(out)
        out += starts.tobytes()
        entries = [
            (254, 4, 1, 0),
            (256, 4, 1, width),
            (257, 4, 1, height),
            (258, 3, 1, 8),
            (259, 3, 1, 7),
            (262, 3, 1, 6),
            (271, 2, 4, int.from_bytes(b"Ham\0", "little")),
            (273, 4, 1, at),
            (277, 3, 1, 3),
            (278, 4, 1, height),
            (279, 4, 1, len(jpeg)),
            (65420, 4, 1, 1),
            (65421, 11, 1, struct.unpack("<I", struct.pack("<f", power))[0]),
            (65426, 4, len(starts), where),
        ]
        struct.pack_into("<Q", out, link, len(out))
        out += struct.pack("<H", len(entries))
        out += b"".join(struct.pack("<HHII", *entry) for entry in entries)
        link = len(out)
        out += bytes(8 + 4 * len(entries))
    return bytes(out)


def slide(levels: int, **options) -> Callable[[], bytes]:
    def make() -> bytes:
        file = io.BytesIO()
        pyramid(file, np.tile(RGB, (4, 4, 1)), levels, photometric="rgb", **options)
        return file.getvalue()

    return make


def png_with(*chunks: tuple[bytes, bytes], last: bool = False) -> Callable[[], bytes]:
    """RGB as a PNG with more chunks behind its header, or behind its pixels."""

    def make():
        data = saved(Image.fromarray(RGB), "PNG")()
        at = len(data) - 12 if last else 33
        more = b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        )
        return data[:at] + more + data[at:]

    return make


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes().removeprefix(b"Exif\0\0")


def raw_profile(orientation: int) -> bytes:
    """EXIF as ImageMagick keeps it in a text."""
    data = (b"Exif\0\0" + exif(orientation)).hex()
    lines = "\n".join(data[i : i + 72] for i in range(0, len(data), 72))
    return f"\nexif\n{len(data) // 2:8}\n{lines}\n".encode()


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    b'syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"'
    b"/></rdf:RDF></x:xmpmeta>"
)
UPRIGHT = np.rot90(RGB, -1)
TEXT = zlib.compress(b"x" * (3 << 20))
BANDS = np.dstack([np.roll(GREY, 5 * i, axis=0) for i in range(5)])
BROAD = COUNTS * 3_000_000 - 70_000


def floats(scale: float, dtype=np.float32) -> np.ndarray:
    return (COUNTS / 255 * scale - 1).astype(dtype)


def with_gaps() -> np.ndarray:
    values = floats(3)
    values[3, 4], values[5, 6], values[7, 8] = np.nan, np.inf, -9999
    return values


JPEG = imagecodecs.jpeg_encode(RGB, level=95, colorspace="RGB", outcolorspace="YCBCR")


def jpeg_strip(cut) -> Callable[[], bytes]:
    """RGB in one JPEG strip of a TIFF, and of it what `cut` leaves."""

    def make():
        strip = cut(JPEG)
        tags = [
            (256, 4, RGB.shape[1]), (257, 4, RGB.shape[0]), (258, 3, 8), (259, 3, 7), (262, 3, 6),
            (273, 4, 8), (277, 3, 3), (278, 4, RGB.shape[0]), (279, 4, len(strip)),
        ]  # fmt: skip
        strip += b"\0" * (len(strip) % 2)
        data = b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip
        entries = b"".join(
            struct.pack("<HHIHH", c, k, 3, 0, 0) if c == 258 else struct.pack("<HHII", c, k, 1, v)
            for c, k, v in tags
        )
        at = len(data) + 2 + len(entries) + 4
        entries = entries.replace(
            struct.pack("<HHIHH", 258, 3, 3, 0, 0), struct.pack("<HHII", 258, 3, 3, at)
        )
        return (
            data + struct.pack("<H", len(tags)) + entries + bytes(4) + struct.pack("<3H", 8, 8, 8)
        )

    return make


def heic() -> bytes:
    import pillow_heif

    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(RGB)).save(file, quality=95, chroma=444)
    return file.getvalue()


def dicom() -> bytes:
    import pydicom
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, generate_uid()
    made.Rows, made.Columns = GREY.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.WindowCenter, made.WindowWidth = 100, 50
    made.PixelData = (GREY.astype(np.uint16) * 16).tobytes()
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def changed(make, change) -> Callable[[], bytes]:
    return lambda: change(make())


ONE_STRIP = {"photometric": "rgb", "rowsperstrip": 1000, "byteorder": "<"}
TIFF, PNG, OTHER = "TIFF", "PNG", "others"
STACKS, SLIDES, NUMBERS, BAND_SETS, REFUSED = "stacks", "slides", "numbers", "bands", "refused"


def _strips() -> list[Kind]:
    kinds = [
        Kind(TIFF, "StripByteCounts 0, LZW or deflate", "read as far as the data go; a note",
             found(f"bytecounts_zero_{c}.tif"), planes=[RIGHT[f"bytecounts_zero_{c}.tif"]],
             notes="wrong length of 1 strip mended")
        for c in ("lzw", "zlib")
    ]  # fmt: skip
    for compression in (None, "lzw", "zlib", "packbits", "zstd", "jpeg"):
        name = {None: "uncompressed", "zlib": "deflate", "jpeg": "JPEG", "lzw": "LZW"}
        name = name.get(compression, compression)
        for rows in (1000, 16):
            whole = tiff(
                RGB, compression=compression, photometric="rgb", rowsperstrip=rows, byteorder="<"
            )
            pixels = [RGB]
            if compression == "jpeg":
                pixels = [tifffile.imread(io.BytesIO(whole()))]
            for what, count in (("0", 0), ("too large", 10**6), ("too small", 7)):
                if what == "too large" and rows == 16:
                    continue  # what follows a strip is then another one, and decoders stop in time
                if compression == "zstd":
                    continue  # a frame must be given whole, no more and no less
                kinds.append(
                    Kind(TIFF, f"StripByteCounts {what}, {name}", "read; a note where mended",
                         changed(whole, lambda d, n=count: counts_replaced(d, n)), planes=pixels,
                         notes=".*")
                )  # fmt: skip
    return kinds


def counts_replaced(data: bytes, count: int) -> bytes:
    """A TIFF whose StripByteCounts are all `count`."""
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        found_tag = tif.pages.first.tags[279]
        size = {3: 2, 4: 4, 16: 8}[int(found_tag.dtype)]
        at, number = found_tag.valueoffset, found_tag.count
    count = min(count, (1 << 8 * size) - 1)
    packed = count.to_bytes(size, "little") * number
    return data[:at] + packed + data[at + len(packed) :]


def _kinds() -> list[Kind]:
    from PIL import TiffImagePlugin

    def libtiff_rgb(name: str) -> np.ndarray:
        kept, TiffImagePlugin.READ_LIBTIFF = TiffImagePlugin.READ_LIBTIFF, True
        try:
            return np.asarray(Image.open(FOUND / name).convert("RGB"))
        finally:
            TiffImagePlugin.READ_LIBTIFF = kept

    zoned = stack((2, 3, 2))
    edges = np.where(np.arange(GREY.shape[1]) < 40, 255, GREY).astype(np.uint8)
    left_out = changed(
        tiff(np.dstack([RGB, edges]), photometric="rgb", extrasamples=["unassalpha"]), lambda d: d
    )
    grey_bmp = Image.fromarray(np.dstack([RGB, np.zeros_like(GREY)]), "RGBA")
    return [
        *_strips(),
        Kind(TIFF, "StripByteCounts beyond the end, all pixels there", "read; a note",
             found("bytecount_too_big.tif"), planes=[RIGHT["bytecount_too_big.tif"]],
             notes="wrong length of 1 strip mended"),
        Kind(TIFF, "a thumbnail above, the picture in its SubIFD", "the largest picture; a note",
             found("thumb_then_subifd.tif"), planes=[RIGHT["thumb_then_subifd.tif"]],
             notes="1 thumbnail or pyramid level not archived"),
        Kind(TIFF, "DNG named .tif", "developed as a DNG is",
             found("dng_renamed.tif"), planes=[None]),
        Kind(TIFF, "every page says that it is a reduced one", "all pages",
             found("three_pages_all_reduced.tif"), planes=[RIGHT["three_pages_all_reduced.tif"],
             None, None]),
        Kind(TIFF, "Orientation of type BYTE", "upright",
             found("orientation6_as_byte.tif"), planes=[RIGHT["orientation6_as_byte.tif"]]),
        *[Kind(TIFF, f"Orientation of type {name}", "upright",
               changed(tiff(RGB, extratags=[(274, 3, 1, 1, True)], **ONE_STRIP),
                       lambda d, k=kind: tag(d, 274, 6, kind=k)), planes=[UPRIGHT])
          for name, kind in (("SHORT", 3), ("LONG", 4))],
        *[Kind(TIFF, f"sparse tiles, GDAL's nodata {value}", "the nodata value",
               found(f"sparse_nodata{value}.tif"), planes=[RIGHT[f"sparse_nodata{value}.tif"]])
          for value in (255, 65535)],
        Kind(TIFF, "YCbCr with ReferenceBlackWhite",
             "RGB as libtiff computes it, but not rounded on the way",
             found("ycbcr_reference_black_white.tif"), tolerance=3,
             planes=[libtiff_rgb("ycbcr_reference_black_white.tif")]),
        Kind(TIFF, "JPEG in separate planes, YCbCr", "RGB as libtiff computes it",
             found("jpeg_planar_ycbcr.tif"), planes=[libtiff_rgb("jpeg_planar_ycbcr.tif")],
             tolerance=1),
        Kind(TIFF, "CCITT fax without PhotometricInterpretation", "0 is white",
             found("fax_g4_no_photometric.tif"), planes=[RIGHT["fax_g4_no_photometric.tif"]]),
        Kind(TIFF, "a JPEG strip that is cut short", "refused, as a .jpg is",
             found("jpeg_strip_cut_short.tif"), refused="cut short"),
        *[Kind(TIFF, f"a JPEG strip cut at {keep} %", "refused, as a .jpg is",
               jpeg_strip(lambda d, k=keep: d[: len(d) * k // 100]), refused="cut short|decoded")
          for keep in (30, 60, 90, 97)],
        Kind(TIFF, "a JPEG strip without the mark of its end", "read, nothing else is missing",
             jpeg_strip(lambda d: d[:-2]), planes=[imagecodecs.jpeg_decode(JPEG)]),
        Kind(TIFF, "alpha", "blended with white; a note",
             left_out, planes=[None], notes="alpha .band 4. was blended with white"),
        Kind(TIFF, "alpha, --no-alpha", "left out; a note", left_out, {"alpha": False}, [RGB],
             notes="alpha .band 4. not archived"),
        *[Kind(TIFF, f"GDAL's four bands, near infrared declared alpha{option}",
               "the colours as they are; a note", found("gdal_rgb_plus_nir.tif"), options,
               [RIGHT["gdal_rgb_plus_nir.tif"]], notes="not archived")
          for option, options in (("", {}), ("; --no-alpha", {"alpha": False}))],
        Kind(TIFF, "16-bit samples that use few levels", "as they are",
             found("u16_photo_0to31.tif"), planes=[RIGHT["u16_photo_0to31.tif"]]),
        Kind(STACKS, "tifffile, `truncate`", "an archive a plane",
             found("stack5_tifffile_truncate.tif"),
             planes=[RIGHT["stack5_tifffile_truncate.tif"], *[None] * 4]),
        Kind(STACKS, "MetaMorph STK", "an archive a plane", found("stack5_metamorph_stk.tif"),
             planes=[RIGHT["stack5_metamorph_stk.tif"], *[None] * 4],
             notes="^2 TIFF tags not kept$"),
        Kind(STACKS, "tifffile's own, ZYX under one page", "NAME.z1 …",
             shaped(stack((3,)), "ZYX", truncate=True), planes=flat(stack((3,))),
             labels=("z1", "z2", "z3")),
        Kind(STACKS, "tifffile's own, TZYX, a page a plane", "NAME.t1z1 …",
             shaped(stack((2, 2)), "TZYX", compression="zlib"), planes=flat(stack((2, 2))),
             labels=("t1z1", "t1z2", "t2z1", "t2z2")),
        Kind(STACKS, "ImageJ hyperstack, TZCYX", "NAME.t1z1c1 …", imagej(zoned, "TZCYX"),
             planes=flat(zoned), labels=tuple(f"t{t}z{z}c{c}" for t in (1, 2) for z in (1, 2, 3)
                                              for c in (1, 2))),
        Kind(STACKS, "ImageJ stack of RGB pictures", "NAME.z1 …",
             tiff(np.stack([RGB, RGB[::-1]])[None, :, None], imagej=True,
                  metadata={"axes": "TZCYXS"}),
             planes=[RGB, RGB[::-1]], labels=("z1", "z2")),
        Kind(STACKS, "ImageJ stack that is cut short", "refused",
             changed(imagej(stack((5,)), "ZYX"), lambda d: d[: len(d) // 2]), refused="cut short"),
        Kind(STACKS, "OME-TIFF, CZYX", "NAME.c1z1 …", ome(stack((2, 2)), "CZYX"),
             planes=flat(stack((2, 2))), labels=("c1z1", "c1z2", "c2z1", "c2z2")),
        Kind(STACKS, "OME-TIFF, ten times, compressed", "NAME.t01 … NAME.t10",
             ome(stack((10,)), "TYX", compression="zlib"), planes=flat(stack((10,))),
             labels=tuple(f"t{i:02}" for i in range(1, 11))),
        Kind(STACKS, "OME-TIFF, channels as bands of a page", "NAME.c1 …",
             ome(stack((3,)), "CYX", planarconfig="separate"), planes=flat(stack((3,))),
             labels=("c1", "c2", "c3")),
        Kind(SLIDES, "Aperio's SVS", "the largest level; a note",
             slide(3, description="Aperio Image Library"), planes=[np.tile(RGB, (4, 4, 1))],
             notes="^5 thumbnails or pyramid levels not archived$", suffix=".svs"),
        Kind(SLIDES, "Hamamatsu's NDPI", "the largest level; a note",
             lambda: ndpi([(np.tile(RGB[:56, :80], (4, 4, 1)), 20.0), (RGB[:56, :80], 5.0)]),
             planes=[np.tile(RGB[:56, :80], (4, 4, 1))], tolerance=24,
             notes="^1 thumbnail or pyramid level not archived; 3 TIFF tags not kept$",
             suffix=".ndpi"),
        Kind(SLIDES, "NDPI with focal planes", "NAME.z1 …",
             lambda: ndpi([(np.tile(RGB[:56, :80], (4, 4, 1)), 20.0)] * 2), planes=[None] * 2,
             labels=("z1", "z2"), notes="^3 TIFF tags not kept$", suffix=".ndpi"),
        Kind(SLIDES, "tiles, halved at least twice, not marked as reduced",
             "the largest level; a note", slide(2), planes=[np.tile(RGB, (4, 4, 1))],
             notes="^2 thumbnails or pyramid levels not archived$", suffix=".btf"),
        Kind(PNG, "orientation in eXIf before or behind the pixels", "upright",
             png_with((b"eXIf", exif(6)), last=True), planes=[UPRIGHT], suffix=".png"),
        Kind(PNG, "orientation in zTXt (ImageMagick)", "upright",
             found("png_orientation6_in_ztxt.png"), suffix=".png",
             planes=[RIGHT["png_orientation6_in_ztxt.png"]]),
        *[Kind(PNG, f"orientation in {kind.decode()} (ImageMagick)", "upright",
               png_with((kind, b"Raw profile type exif\0" + between + body)), planes=[UPRIGHT],
               suffix=".png")
          for kind, between, body in (
              (b"tEXt", b"", raw_profile(6)), (b"zTXt", b"\0", zlib.compress(raw_profile(6))),
              (b"iTXt", b"\0\0\0\0", raw_profile(6)))],
        *[Kind(PNG, f"orientation in XMP{name}", "upright",
               png_with((b"iTXt", b"XML:com.adobe.xmp\0" + between + body), last=True),
               planes=[UPRIGHT], suffix=".png")
          for name, between, body in (
              ("", b"\0\0\0\0", XMP), (", compressed", b"\1\0\0\0", zlib.compress(XMP)))],
        Kind(PNG, "text over 1 MiB", "read", found("png_text_over_1MiB.png"), suffix=".png",
             planes=[RIGHT["png_text_over_1MiB.png"]]),
        Kind(PNG, "text over 1 MiB, iTXt", "read", suffix=".png", planes=[RGB],
             make=png_with((b"iTXt", b"Comment\0\1\0\0\0" + TEXT))),
        Kind(PNG, "ICC profile over 1 MiB", "read", found("png_icc_over_1MiB.png"), suffix=".png",
             planes=[RIGHT["png_icc_over_1MiB.png"]]),
        Kind(PNG, "transparency", "blended with white; a note", suffix=".png", planes=[None],
             make=saved(Image.fromarray(np.dstack([RGB, GREY])), "PNG"),
             notes="blended with white"),
        Kind(PNG, "transparency, --no-alpha", "left out; a note", suffix=".png", planes=[RGB],
             make=saved(Image.fromarray(np.dstack([RGB, GREY])), "PNG"), options={"alpha": False},
             notes="transparency not archived"),
        Kind(PNG, "an alpha channel that is opaque", "the colours", suffix=".png", planes=[RGB],
             make=saved(Image.fromarray(np.dstack([RGB, np.full_like(GREY, 255)])), "PNG")),
        Kind(OTHER, "BMP whose alpha is 0 everywhere", "opaque; a note", suffix=".bmp",
             make=found("bmp_v5_alpha_all_zero.bmp"), notes="taken for opaque",
             planes=[RIGHT["bmp_v5_alpha_all_zero.bmp"]]),
        Kind(OTHER, "BMP of 32 bits", "read", suffix=".bmp", make=saved(grey_bmp, "BMP"),
             planes=[RGB], notes=".*"),
        *[Kind(OTHER, f"{kind} of several frames", "the first; a note", suffix=suffix,
               make=saved(Image.fromarray(RGB), kind, save_all=True, **options,
                          append_images=[Image.fromarray(np.roll(RGB, i, 0)) for i in (9, 30)]),
               planes=[RGB], tolerance=40, notes="2 further frames not archived")
          for kind, suffix, options in (("WebP", ".webp", {"lossless": True}),
                                        ("MPO", ".jpg", {"quality": 95}), ("PNG", ".png", {}))],
        Kind(OTHER, "GIF of several frames", "the first; a note", suffix=".gif", planes=[GREY],
             make=saved(Image.fromarray(GREY), "GIF", save_all=True,
                        append_images=[Image.fromarray(GREY[::-1])]),
             notes="1 further frame not archived"),
        Kind(OTHER, "AVIF", "8 bits", suffix=".avif", planes=[RGB], tolerance=60,
             make=saved(Image.fromarray(RGB), "AVIF", quality=95, subsampling="4:4:4")),
        Kind(OTHER, "HEIC", "its primary picture", suffix=".heic", planes=[RGB], tolerance=60,
             make=heic),
        Kind(OTHER, "JPEG XL, lossless", "read", suffix=".jxl", planes=[RGB],
             make=lambda: imagecodecs.jpegxl_encode(RGB, lossless=True)),
        Kind(OTHER, "JPEG 2000", "read", suffix=".jp2", planes=[RGB],
             make=saved(Image.fromarray(RGB), "JPEG2000")),
        Kind(OTHER, "DICOM of 12 bits", "12 bits; its window is not applied, its rescale kept",
             suffix=".dcm", planes=[GREY.astype(np.uint16) * 16], make=dicom),
        Kind(NUMBERS, "signed 8 bits", "offset by 128, the mapping kept",
             tiff((COUNTS - 128).astype(np.int8)), planes=[GREY], mapping=True),
        Kind(NUMBERS, "signed 16 bits", "offset by 32768, the mapping kept", mapping=True,
             make=tiff((COUNTS * 100 - 9000).astype(np.int16), compression="lzw", predictor=True),
             planes=[(COUNTS * 100 - 9000 + 32768).astype(np.uint16)]),
        *[Kind(NUMBERS, f"{np.dtype(dtype).name} within 65536 levels",
               "offset by the least sample, the mapping kept",
               tiff((COUNTS * 200 + offset).astype(dtype), compression="zlib"),
               planes=[((COUNTS - COUNTS.min()) * 200).astype(np.uint16)], mapping=True)
          for dtype, offset in ((np.uint32, 3_000_000_000), (np.int32, -90_000),
                                (np.uint64, 1 << 40), (np.int64, -(1 << 40)))],
        Kind(NUMBERS, "int32 beyond 65536 levels", "refused; --range reads it",
             tiff(BROAD.astype(np.int32)), refused="--range"),
        Kind(NUMBERS, "int32 beyond 65536 levels, --range", "mapped to 65536 levels; a note",
             tiff(BROAD.astype(np.int32)), {"range": (-100_000, 800_000_000)}, [None],
             mapping=True, notes="mapped to 65536 levels"),
        *[Kind(NUMBERS, f"{np.dtype(dtype).name}", "measured, mapped to 65536 levels; a note",
               tiff(floats(3, dtype)), planes=[None], mapping=True,
               notes="floating-point samples from -1 to 2 mapped")
          for dtype in (np.float16, np.float32, np.float64)],
        Kind(NUMBERS, "float32, --range", "mapped; what lies beyond is clipped and counted",
             tiff(floats(3)), {"range": (0, 2)}, [None],
             notes="samples beyond 0 to 2 were clipped"),
        Kind(NUMBERS, "float32 with NaN, infinity and GDAL's nodata", "the least level; notes",
             tiff(with_gaps(), extratags=[(42113, 2, 0, "-9999", True)]), planes=[None],
             notes="no numbers.*without data"),
        Kind(NUMBERS, "float32, RGB", "measured over all bands",
             tiff((RGB / 255).astype(np.float32), photometric="rgb"), mapping=True,
             planes=[RGB.astype(np.uint16) * 257], tolerance=1, notes="from 0 to 1 mapped"),
        Kind(NUMBERS, "float32, MinIsWhite", "inverted, and so is the mapping",
             tiff(floats(3), photometric="miniswhite"), planes=[None], mapping=True,
             notes="mapped"),
        Kind(BAND_SETS, "five bands", "refused; --bands reads it",
             tiff(BANDS, photometric="minisblack", planarconfig="contig"), refused="--bands 3,2,1"),
        Kind(BAND_SETS, "three bands without a meaning", "refused; --bands reads it",
             tiff(RGB, photometric="minisblack", planarconfig="contig"), refused="--bands 1,2,3"),
        *[Kind(BAND_SETS, f"five bands {how}, --bands 4,2,1", "those three as RGB; a note",
               tiff(BANDS if how == "chunky" else BANDS.transpose(2, 0, 1),
                    photometric="minisblack",
                    planarconfig="contig" if how == "chunky" else "separate", **layout),
               {"bands": (4, 2, 1)}, [BANDS[..., [3, 1, 0]]], notes="2 of 5 bands not archived")
          for how, layout in (("chunky", {"compression": "lzw"}), ("planar", {"tile": (32, 32)}))],
        Kind(BAND_SETS, "five bands, --bands 2", "that one as grey; a note",
             tiff(BANDS, photometric="minisblack", planarconfig="contig"), {"bands": (2,)},
             [BANDS[..., 1]], notes="4 of 5 bands not archived"),
        Kind(BAND_SETS, "five bands, --bands each", "NAME.b1 … NAME.b5",
             tiff(BANDS, photometric="minisblack", planarconfig="contig"), {"bands": "each"},
             [BANDS[..., i] for i in range(5)], labels=("b1", "b2", "b3", "b4", "b5")),
        Kind(BAND_SETS, "RGB with a fourth band, --bands each", "NAME.b1 … NAME.b4",
             found("gdal_rgb_plus_nir.tif"), {"bands": "each"}, [None] * 4,
             labels=("b1", "b2", "b3", "b4")),
        Kind(BAND_SETS, "RGB, --bands 3,2,1", "as it is: nothing was left open",
             tiff(RGB, photometric="rgb"), {"bands": (3, 2, 1)}, [RGB]),
        Kind(BAND_SETS, "five bands, --bands 9,2,1", "refused", options={"bands": (9, 2, 1)},
             make=tiff(BANDS, photometric="minisblack", planarconfig="contig"), refused="band 9"),
        *[Kind(REFUSED, name, "convert it to RGB",
               changed(tiff(RGB, **ONE_STRIP), lambda d, p=code: tag(d, 262, p)), refused=pattern)
          for name, code, pattern in (
              ("CIE L\\*a\\*b\\*", 8, "CIE L"), ("CIE LogL", 32844, "Log L"),
              ("CIE LogLuv", 32845, "Log Luv"))],
        Kind(REFUSED, "complex samples", "save their magnitude, or two bands",
             tiff(floats(3).astype(np.complex64)), refused="complex"),
    ]  # fmt: skip


KINDS = _kinds()
START, END = "<!-- kinds: made by tests/unit/picture_kinds.py -->", "<!-- end of kinds -->"


def table() -> str:
    """The table of docs/PICTURES.md: one row for each kind and what becomes of it."""
    rows = ["| family | kind of file | becomes |", "| --- | --- | --- |"]
    for kind in KINDS:
        row = f"| {kind.family} | {kind.name} | {kind.becomes} |"
        if row not in rows:
            rows.append(row)
    return "\n".join([START, *rows, END])


def main() -> None:
    text = PICTURES_MD.read_text()
    pattern = re.escape(START) + ".*?" + re.escape(END)
    PICTURES_MD.write_text(re.sub(pattern, lambda _: table(), text, flags=re.DOTALL))


if __name__ == "__main__":
    sys.exit(main())
