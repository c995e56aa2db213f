"""Figures that several notebooks draw: blocks and classes, bases, rate and distortion.

Needs matplotlib, and imagecodecs for the comparison with AVIF and JPEG XL.
"""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.patches import Rectangle
from PIL import Image

from .. import anatomy, pictures, target
from ..codec import decode, encode, span_of, squared_error
from ..errors import LaffError
from ..samples import Counts, to_bytes

COLOURS = {
    "femto": "#2457c5",
    "JPEG": "#6b7280",
    "AVIF": "#d9730d",
    "JPEG XL": "#1a8f5c",
}
"""One colour per codec, the same in every figure."""
QUALITIES = {
    "femto": (20, 40, 55, 70, 80, 90),
    "JPEG": (15, 30, 50, 70, 82, 90, 95),
    "AVIF": (30, 45, 60, 72, 82, 90),
    "JPEG XL": (7, 4.5, 3, 2, 1.2, 0.6),
}
"""Settings that a rate-distortion curve is made of, in each codec's own unit."""


def pictures_of(folder) -> list[Path]:
    """The pictures of a folder, by name. Raises LaffError if there are none."""
    folder = Path(folder)
    found = [
        p
        for p in (sorted(folder.iterdir()) if folder.is_dir() else [])
        if p.suffix.lower() in pictures.EXTENSIONS and p.is_file()
    ]
    if not found:
        raise LaffError(f"{folder}: no pictures there: set IMAGES to a folder that has some")
    return found


def open_picture(
    folder, name: str, *, gray: bool = False, crop: int | None = None
) -> tuple[Path, np.ndarray]:
    """A picture of a folder: its path and its pixels, (h, w) or (h, w, 3).

    The picture `name`, or the first of the folder if it has none of that name. `gray` makes it
    grey; `crop` takes the middle of larger ones, at most `crop` pixels a side. Raises LaffError.
    """
    path = Path(folder, name)
    if not path.is_file():
        path = pictures_of(folder)[0]
    with pictures.open_page(path, gray=gray) as page:
        height, width = page.shape[:2]
        high, wide = min(height, crop or height), min(width, crop or width)
        y, x = (height - high) // 2, (width - wide) // 2
        return path, np.array(page[y : y + high, x : x + wide])


def psnr(original: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio over all samples, in dB; infinite for equal pictures."""
    _, span = span_of(original.dtype, None, counts=Counts.of(original))
    return target.psnr(squared_error(original, other), original.size, span.levels.range)


def show(images: dict[str, np.ndarray], *, columns: int | None = None, width: float = 12, **how):
    """Pictures beside each other with their titles; further options go to `imshow`."""
    columns = min(columns or len(images), len(images))
    rows = -(-len(images) // columns)
    first = next(iter(images.values()))
    height = width / columns * first.shape[0] / first.shape[1] * rows + 0.35 * rows
    figure, axes = plt.subplots(
        rows, columns, figsize=(width, height), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (title, image) in zip(axes.flat, images.items(), strict=False):
        image = to_bytes(image) if image.dtype == np.uint16 else image
        options = {"cmap": "gray", "vmin": 0, "vmax": 255} if image.dtype == np.uint8 else {}
        axis.imshow(image, interpolation="nearest", **(options | how))
        axis.set_title(title, fontsize=10)
    return figure


def draw_blocks(axis, image: np.ndarray, blocks: list[anatomy.Block], *, zoom=None):
    """Draw a picture, its blocks' edges over it, and every class but the cosine basis's in a
    colour of its own. `zoom` (y, x, pixels) shows a square part of it."""
    height, width = image.shape[:2]
    y, x, edge = zoom or (0, 0, max(height, width))
    bottom, right = min(y + edge, height), min(x + edge, width)
    axis.imshow(to_bytes(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    squares, labels, edges = [], [], []
    for block in blocks:
        if block.y >= bottom or block.x >= right or max(y - block.y, x - block.x) >= block.size:
            continue
        corner = (block.x - 0.5, block.y - 0.5)
        if block.label:
            squares.append(Rectangle(corner, block.size, block.size))
            labels.append(block.label)
        edges.append(
            [(corner[0] + block.size, corner[1]), corner, (corner[0], corner[1] + block.size)]
        )
    colours = plt.get_cmap("hsv")(np.array(labels, float) * 0.6180339 % 1) if labels else None
    axis.add_collection(PatchCollection(squares, facecolors=colours, edgecolors="none", alpha=0.45))
    # Two tones: one of them is seen on every picture.
    for colour, line in (("black", 1.1), ("white", 0.45)):
        scale = 1.0 if zoom is None else 1.8
        axis.add_collection(
            LineCollection(edges, colors=colour, linewidths=line * scale, alpha=0.7)
        )
    axis.set_xlim(x - 0.5, right - 0.5)
    axis.set_ylim(bottom - 0.5, y - 0.5)
    axis.set_axis_off()


def draw_tiles(axis, tiles: np.ndarray, *, columns: int = 8):
    """Draw small patterns (n, 8, 8) side by side, each in its own contrast about 0."""
    n, high, wide = tiles.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (high + 1) + 1, columns * (wide + 1) + 1), np.nan)
    for i, tile in enumerate(tiles):
        y, x = 1 + i // columns * (high + 1), 1 + i % columns * (wide + 1)
        sheet[y : y + high, x : x + wide] = tile / max(np.abs(tile).max(), 1e-9)
    colours = plt.get_cmap("RdBu_r").with_extremes(bad="white")
    axis.imshow(sheet, cmap=colours, vmin=-1, vmax=1, interpolation="nearest")
    axis.set_axis_off()


def draw_layers(axis, layers: list[anatomy.Layer], lengths: list[int], other: int = 0):
    """Draw the lengths of an archive's layers as bars in their order, each pass in a tone of its
    own, and before them that of all `other` characters, if it is given."""
    steps = list(dict.fromkeys(layer.step for layer in layers))
    tones = plt.get_cmap("Blues")(np.linspace(0.4, 0.9, len(steps)))
    offset = 1 if other else 0
    names = ["header,\nblocks"] * offset
    if other:
        axis.bar_label(axis.bar([0], [other], color="0.7"), fmt="{:,.0f}", fontsize=9)
    for step, tone in zip(steps, tones, strict=True):
        places = [n for n, layer in enumerate(layers) if layer.step == step]
        bars = axis.bar(
            [n + offset for n in places],
            [lengths[n] for n in places],
            color=tone,
            label=f"in steps of {step}",
        )
        axis.bar_label(bars, fmt="{:,.0f}", fontsize=9)
    for _, first, stop in layers:
        names.append(f"{first}" if stop == first + 1 else f"{first}–{stop - 1}")
    axis.set_xticks(range(len(names)), names)
    axis.set(xlabel="components", ylabel="characters")
    axis.margins(x=0.02, y=0.12)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="upper left")


# Other codecs, to compare with


def _jpeg(image, quality):
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=quality, optimize=True, subsampling=2)
    return out.getvalue(), np.asarray(Image.open(io.BytesIO(out.getvalue())))


def _avif(image, quality):
    import imagecodecs

    # A grey picture is given as RGB and coded without chroma: a plane alone would be lossless.
    pixels = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image
    pixelformat = "400" if image.ndim == 2 else "444"
    data = imagecodecs.avif_encode(pixels, quality, speed=6, pixelformat=pixelformat, numthreads=1)
    decoded = imagecodecs.avif_decode(data, numthreads=1)
    return data, decoded[..., 0] if image.ndim == 2 and decoded.ndim == 3 else decoded


def _jpeg_xl(image, distance):
    import imagecodecs

    data = imagecodecs.jpegxl_encode(image, distance=distance, effort=7, numthreads=1)
    return data, imagecodecs.jpegxl_decode(data, numthreads=1)


def _femto(image, quality):
    data = encode(image, quality=quality)
    return data, decode(data)


_CODECS = {"femto": _femto, "JPEG": _jpeg, "AVIF": _avif, "JPEG XL": _jpeg_xl}


def compress(codec: str, image: np.ndarray, quality: float) -> tuple[bytes, np.ndarray]:
    """A picture's file by a codec of `QUALITIES`, and what it decodes to."""
    data, decoded = _CODECS[codec](image, quality)
    return data, decoded.reshape(image.shape)


def curves(image: np.ndarray, codecs=tuple(QUALITIES)) -> dict[str, np.ndarray]:
    """Rate and distortion of a picture of 8 bits: codec -> (bits per pixel, PSNR), (settings, 2),
    by rate."""
    found = {}
    for codec in codecs:
        points = []
        for quality in QUALITIES[codec]:
            data, decoded = compress(codec, image, quality)
            points.append((8 * len(data) / (image.shape[0] * image.shape[1]), psnr(image, decoded)))
        found[codec] = np.array(sorted(points))
    return found


def share_of_bytes(curve: np.ndarray, other: np.ndarray) -> float:
    """How many bytes a curve needs for each byte of another, at equal PSNR: the mean, in
    logarithms, over the PSNR that both reach (as Bjøntegaard 2001, linear between the points);
    NaN if there is none."""
    low, high = max(curve[0, 1], other[0, 1]), min(curve[-1, 1], other[-1, 1])
    if low >= high:
        return float("nan")
    levels = np.linspace(low, high, 200)
    logs = [np.interp(levels, c[:, 1], np.log(c[:, 0])) for c in (curve, other)]
    return float(np.exp(np.mean(logs[0] - logs[1])))


def draw_curves(axis, found: dict[str, np.ndarray]):
    """Draw the curves of `curves`, named where they end."""
    for codec, curve in found.items():
        main = codec == "femto"
        axis.plot(
            *curve.T,
            color=COLOURS[codec],
            linewidth=2.6 if main else 1.6,
            marker="o",
            markersize=5 if main else 3.5,
            label=codec,
            zorder=3 if main else 2,
        )
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    ticks = [t for t in (0.03, 0.06, 0.12, 0.25, 0.5, 1, 2, 4, 8) if low <= t <= high]
    axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axis.minorticks_off()
    axis.set_xlabel("bits per pixel")
    axis.set_ylabel("PSNR (dB)")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="upper left")
