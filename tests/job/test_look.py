"""What does not belong into a lossy codec is told apart from photographs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from femto import codec, pictures
from femto.job.look import Look

ROOT = Path(__file__).resolve().parents[2]
PHOTOGRAPHS = [p for p in sorted((ROOT / "samples").iterdir()) if p.suffix != ".md"]
PHOTOGRAPHS += sorted((ROOT / "notebooks/xray").glob("*.png"))


def regions(count: int) -> np.ndarray:
    """Numbers of the regions of a plane, (300, 400)."""
    points = np.random.default_rng(count).random((count, 2)) * [300, 400]
    y, x = np.mgrid[:300, :400]
    return np.argmin([(y - a) ** 2 + (x - b) ** 2 for a, b in points], axis=0)


def blobs() -> np.ndarray:
    noise = np.random.default_rng(3).normal(size=(300, 400))
    return ndimage.gaussian_filter(noise, 6) > 0.03


def coloured() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (30, 3), np.uint8)


def lines() -> np.ndarray:
    image = Image.new("L", (400, 300), 255)
    draw = ImageDraw.Draw(image)
    for ends in np.random.default_rng(4).integers(0, 400, (40, 4)).tolist():
        draw.line(ends, fill=0, width=2)
    draw.text((10, 10), "line art and text\n" * 12, fill=0)
    return np.asarray(image)


def screenshot() -> np.ndarray:
    random = np.random.default_rng(5)
    image = Image.new("RGB", (400, 300), (240, 240, 240))
    draw = ImageDraw.Draw(image)
    for _ in range(25):
        x, y = random.integers(0, 350), random.integers(0, 250)
        fill = tuple(random.choice([0, 64, 128, 192, 255], 3).tolist())
        draw.rectangle([x, y, x + 60, y + 40], fill=fill, outline=(0, 0, 0))
        draw.text((x + 3, y + 3), "Button", fill=(255, 255, 255))
    return np.asarray(image)


def antialiased(colour: bool) -> np.ndarray:
    """Line art and text drawn four times as large, and made smaller: grey edges."""
    image = Image.new("RGB", (1600, 1200), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    for ends in np.random.default_rng(6).integers(0, 1600, (30, 4)).tolist():
        draw.line(ends, fill=(200, 30, 30) if colour else (0, 0, 0), width=8)
    font = ImageFont.load_default(48)
    for row in range(12):
        draw.text((40, 90 * row), "All that is written here is text", fill=(0, 0, 90), font=font)
    small = image.resize((400, 300), Image.Resampling.BOX)
    return np.asarray(small if colour else small.convert("L"))


DRAWN = {
    **{f"{count} labels": lambda n=count: regions(n).astype(np.uint8) for count in (2, 5, 12, 40)},
    "labels up to 5000": lambda: np.sort(
        np.random.default_rng(7).choice(5001, 120, replace=False)
    ).astype(np.uint16)[regions(120)],
    "anti-aliased line art": lambda: antialiased(False),
    "anti-aliased text in colour": lambda: antialiased(True),
    "labels": lambda: regions(30).astype(np.uint8),
    "labels of 16 bits": lambda: regions(300).astype(np.uint16),
    "instances": lambda: ndimage.label(blobs())[0].astype(np.uint16),
    "coloured map": lambda: coloured()[regions(30)],
    "mask": lambda: blobs().astype(np.uint8) * 255,
    "mask of ones": lambda: blobs().astype(np.uint8),
    "line art": lines,
    "screenshot": screenshot,
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWN)
def test_drawings_are_drawn(name):
    assert Look.of(DRAWN[name]()).drawn


@pytest.mark.parametrize("bits", [8, 5, 4, 3])
@pytest.mark.parametrize("path", PHOTOGRAPHS, ids=lambda path: path.name)
def test_photographs_are_not_however_few_levels_they_have(path, bits):
    with pictures.open_page(path) as reader:
        height, width = reader.shape[:2]
        pixels = np.asarray(reader[: min(height, 1024), : min(width, 1024)])
    for shown in (pixels, pixels if pixels.ndim == 2 else pixels[..., 1]):
        assert not Look.of(shown >> (8 * shown.itemsize - bits)).drawn


def test_no_photograph_or_x_ray_is_drawn(femto_data):
    """Of those that are not in the repository, all but the many to learn from, of which some."""
    paths = [p for folder in ("kodak", "large", "xray") for p in (femto_data / folder).rglob("*")]
    paths += sorted((femto_data / "train").rglob("*"))[::5]
    seen = 0
    for path in paths:
        if path.suffix not in (".png", ".jpg", ".jpeg", ".tif"):
            continue
        with pictures.open_page(path) as reader:
            pixels = reader[:, :]
        seen += 1
        for bits in (8, 5, 4, 3):
            shown = pixels >> (8 * pixels.itemsize - bits)
            # What samples are multiplied by, and the type that holds them, make no difference.
            for kept in (shown, shown.astype(np.uint16) * 16):
                look = Look.nothing()
                for tile in codec.tile_grid(*kept.shape[:2]):
                    look += Look.of(kept[tile.y : tile.y + 1024, tile.x : tile.x + 1024])
                assert not look.drawn, f"{path} of {bits} bits in {kept.dtype}"
    assert seen > 100


def test_counted_light_is_not():
    random = np.random.default_rng(2)
    for mean in (0.02, 0.2, 2):
        assert not Look.of(random.poisson(mean, (300, 300)).astype(np.uint16)).drawn


def test_looks_add_up():
    tiles = [regions(30)[:, :200].astype(np.uint8), regions(30)[:, 200:].astype(np.uint8)]
    both = Look.of(tiles[0]) + Look.of(tiles[1])
    assert both.drawn and not both.constant
    same = Look.of(np.full((9, 9), 3, np.uint8)) + Look.of(np.full((9, 9), 3, np.uint8))
    assert same.constant and not same.drawn
    assert not (same + Look.of(np.full((9, 9), 4, np.uint8))).constant
