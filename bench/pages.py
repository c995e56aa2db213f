"""Make scanned pages of text: an archive of another kind than photographs.

    python3 bench/pages.py FOLDER          # FOLDER/train, 24 pages, and FOLDER/test, 8

The words of pages.txt, set in the fonts that matplotlib brings, in three sizes and one or two
columns, then scanned at 150 dpi: turned a little, blurred, on uneven paper, with noise. The same
pages every time.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import ROOT

WIDTH, HEIGHT = 1240, 1754
MARGIN = 110
FONTS = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral", "DejaVuSerif-Italic")


def set_page(rng: np.random.Generator, vocabulary: list[str]) -> Image.Image:
    """A page of text, black on white."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    size = int(rng.choice([20, 24, 28]))
    font = ImageFont.truetype(str(folder / f"{rng.choice(FONTS)}.ttf"), size)
    page = Image.new("L", (WIDTH, HEIGHT), 255)
    draw = ImageDraw.Draw(page)
    columns = int(rng.integers(1, 3))
    width = (WIDTH - 2 * MARGIN - 50 * (columns - 1)) // columns
    at = int(rng.integers(0, len(vocabulary)))
    for column in range(columns):
        left, y = MARGIN + column * (width + 50), MARGIN
        while y < HEIGHT - MARGIN:
            line = ""
            while draw.textlength(line, font) < width:
                text, line = line, f"{line} {vocabulary[at % len(vocabulary)]}".strip()
                at += 1
            if rng.random() > 0.08:
                draw.text((left, y), text, fill=int(rng.integers(10, 50)), font=font)
            y += int(1.4 * size)
    return page


def scan(page: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """The page as a scanner sees it, uint8 (HEIGHT, WIDTH)."""
    page = page.rotate(float(rng.normal(0, 0.4)), Image.Resampling.BICUBIC, fillcolor=255)
    page = page.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 0.9))))
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    paper = 238 + 6 * rng.normal() + 4 * rng.normal() * x + 4 * rng.normal() * y
    grey = np.asarray(page, np.float64) / 255 * (paper - 25) + 25
    return np.clip(np.rint(grey + rng.normal(0, 2.0, grey.shape)), 0, 255).astype(np.uint8)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(argv)
    vocabulary = (ROOT / "bench" / "pages.txt").read_text(encoding="utf-8").split()
    rng = np.random.default_rng(1)
    for name, count in (("train", 24), ("test", 8)):
        folder = options.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(scan(set_page(rng, vocabulary), rng)).save(folder / f"page-{i:02}.png")


if __name__ == "__main__":
    main()
