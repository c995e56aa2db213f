"""Lossless archives, and those of a bounded error, beside other codecs, in one run.

    python3 bench/lossless.py ../shared/data                   # all of its folders
    python3 bench/lossless.py FOLDER… --pictures 3 --crop 800  # the middle of the first three

Prints tables as markdown: bytes on disk of everything together, beside JPEG XL at effort 7, and
megapixels a CPU second each way. Every archive and every file is decoded and compared with its
picture. `--as-12-bits` makes x-rays of 12 bits, in 16-bit samples, of those of 8 by noise.
"""

import argparse
import io
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bench  # noqa: F401  isort: skip  one thread, femto of this checkout
import femto
from femto import pictures

FOLDERS = ("kodak", "large", "xray/test")
BOUNDS = (1, 2, 4)
Codec = tuple[Callable[[np.ndarray], bytes], Callable[[bytes], np.ndarray]]


def _jpegxl(effort: int) -> Codec:
    encode = partial(imagecodecs.jpegxl_encode, lossless=True, effort=effort, numthreads=1)
    return encode, partial(imagecodecs.jpegxl_decode, numthreads=1)


def _tiff(compression: str) -> Codec:
    import tifffile

    def encode(picture: np.ndarray) -> bytes:
        out = io.BytesIO()
        kind = "rgb" if picture.ndim == 3 else "minisblack"
        tifffile.imwrite(
            out, picture, photometric=kind, compression=compression, predictor=True, metadata=None
        )
        return out.getvalue()

    return encode, lambda data: tifffile.imread(io.BytesIO(data))


def _webp(picture: np.ndarray) -> bytes:
    if picture.dtype != np.uint8:
        raise ValueError("WebP has 8 bits")
    rgb = picture if picture.ndim == 3 else np.dstack([picture] * 3)
    return imagecodecs.webp_encode(rgb, lossless=True, level=100, method=6)


def _femto(basis: str, **options) -> Codec:
    other = None if basis == "photo" else basis
    encode = partial(femto.encode, basis=basis, strip_metadata=True, **options)
    return encode, partial(femto.decode, basis=other)


def lossless(basis: str) -> dict[str, Codec]:
    """Name -> how pictures are encoded and decoded."""
    return {
        "femto": _femto(basis, lossless=True),
        "jxl e7": _jpegxl(7),
        "jxl e9": _jpegxl(9),
        "jpeg 2000": (
            partial(imagecodecs.jpeg2k_encode, reversible=True, level=0, numthreads=1),
            imagecodecs.jpeg2k_decode,
        ),
        "jpeg-ls": (imagecodecs.jpegls_encode, imagecodecs.jpegls_decode),
        "webp": (_webp, imagecodecs.webp_decode),
        "png": (partial(imagecodecs.png_encode, level=9), imagecodecs.png_decode),
        "tiff deflate": _tiff("deflate"),
        "tiff zstd": _tiff("zstd"),
    }


def bounded(basis: str, bound: int) -> dict[str, Codec]:
    """The same, of archives and files whose samples differ by at most `bound`."""
    return {
        "femto": _femto(basis, max_error=bound),
        "jpeg-ls": (partial(imagecodecs.jpegls_encode, level=bound), imagecodecs.jpegls_decode),
    }


def measure(codec: Codec, picture: np.ndarray, bound: int) -> tuple[int, float, float]:
    """Bytes, and CPU seconds of encoding and decoding. ValueError if the picture does not come
    back within `bound`."""
    encode, decode = codec
    began = time.process_time()
    data = encode(picture)
    middle = time.process_time()
    decoded = decode(data)
    end = time.process_time()
    if picture.ndim == 2 and decoded.ndim == 3:
        decoded = decoded[:, :, 0]
    error = int(np.abs(decoded.astype(np.int64) - picture).max())
    if error > bound:
        raise ValueError(f"off by {error}")
    return len(data), middle - began, end - middle


def read(path: Path, crop: int | None) -> np.ndarray:
    """A picture, or the middle of it."""
    with pictures.open_page(path) as page:
        height, width = page.shape[:2]
        h, w = (height, width) if crop is None else (min(crop, height), min(crop, width))
        y, x = (height - h) // 2, (width - w) // 2
        return np.ascontiguousarray(page[y : y + h, x : x + w])


def as_12_bits(picture: np.ndarray) -> np.ndarray:
    """A picture of 8 bits as one of 12: the new digits are noise of a film's grain."""
    noise = np.random.default_rng(1).normal(0, 8, picture.shape)
    return np.clip(np.rint(picture * 16.0 + noise), 0, 4095).astype(np.uint16)


def table(found: list[np.ndarray], codecs: dict[str, Codec], bound: int, beside: str) -> list[str]:
    """Lines of a table of these pictures."""
    sums: dict[str, np.ndarray] = {}
    errors: dict[str, str] = {}
    for picture in found:
        for name, codec in codecs.items():
            if name in errors:
                continue
            try:
                row = np.array(measure(codec, picture, bound))
            except Exception as error:  # a codec that has no mode for it is left out, and named
                errors[name] = f"{type(error).__name__}: {error}"
                continue
            sums[name] = sums.get(name, np.zeros(3)) + row
    pixels = sum(p.shape[0] * p.shape[1] for p in found)
    lines = [f"| | bytes | beside {beside} | bits per pixel | encode, MP/s | decode, MP/s |",
             "| :-- | --: | --: | --: | --: | --: |"]  # fmt: skip
    for name in codecs:
        if name in errors:
            lines.append(f"| {name} | {errors[name]} | | | | |")
            continue
        nbytes, there, back = sums[name]
        change = f"{100 * (nbytes / sums[beside][0] - 1):+.2f} %" if beside in sums else ""
        speeds = " | ".join(f"{pixels / 1e6 / max(s, 1e-9):.2f}" for s in (there, back))
        bits = 8 * nbytes / pixels
        lines.append(f"| {name} | {nbytes:,.0f} | {change} | {bits:.3f} | {speeds} |")
    return lines


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="pictures, or a folder of kodak, …")
    parser.add_argument("--pictures", type=int, help="only so many of each folder")
    parser.add_argument("--crop", type=int, help="only the middle, of so many pixels a side")
    parser.add_argument("--basis", default="photo", help="femto's basis, a name or a file")
    parser.add_argument("--codecs", help="only these, separated by commas")
    parser.add_argument("--bounds", type=int, nargs="*", default=BOUNDS, help="max_error, each")
    parser.add_argument("--as-12-bits", action="store_true", help="of pictures of 8 bits")
    options = parser.parse_args(argv)
    wanted = None if options.codecs is None else options.codecs.split(",")
    folders = []
    for folder in options.folders:
        inside = [folder / name for name in FOLDERS if (folder / name).is_dir()]
        folders += inside or [folder]
    for folder in folders:
        paths = sorted(p for p in folder.iterdir() if p.is_file())[: options.pictures]
        found = [read(path, options.crop) for path in paths]
        if options.as_12_bits:
            found = [as_12_bits(picture) for picture in found]
        for bound in (0, *options.bounds):
            codecs = bounded(options.basis, bound) if bound else lossless(options.basis)
            codecs = {k: v for k, v in codecs.items() if wanted is None or k in wanted}
            femto.decode(codecs["femto"][0](found[0][:64, :64])) if "femto" in codecs else None
            title = "lossless" if bound == 0 else f"max_error {bound}"
            print(f"\n{folder.name}, {len(found)} pictures, {title}\n")
            beside = "jpeg-ls" if bound else "jxl e7"
            print("\n".join(table(found, codecs, bound, beside)), flush=True)


if __name__ == "__main__":
    main()
