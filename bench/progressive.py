"""What the first part of an archive shows.

    python3 bench/progressive.py ../shared/data/kodak \\
        --strip samples/dragonfly.png --figure docs/figures/strip.png

Archives are cut to shares of their bytes and compared with fresh ones of that size, whose PSNR is
interpolated between archives of several qualities. A first layer that is larger than the share is
compared with a fresh archive of its own size. The strip shows one archive at five shares.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bench  # noqa: F401  isort: skip  one thread, femto of this checkout
import femto
from bench.measure import find, load
from bench.metrics import peak, psnr_db
from bench.report import markdown
from bench.run import say

matplotlib.use("Agg")
import matplotlib.pyplot as plt

QUALITY = 75
FRESH = (1, 5, 12, 25, 40, 50, 62, QUALITY)
SHARES = (0.10, 0.25, 0.50)
STRIP = (0.02, 0.05, 0.10, 0.25, 1.0)


def losses(image: np.ndarray) -> list[tuple[float, float]]:
    """(PSNR of the cut archive, dB that a fresh one of the same size is better) at every share."""
    top = peak(image)
    archives = [femto.encode(image, quality=quality) for quality in FRESH]
    sizes = np.log([len(archive) for archive in archives])
    qualities = [psnr_db(image, femto.decode(archive), top) for archive in archives]
    found = []
    for share in SHARES:
        nbytes = int(share * len(archives[-1]))
        cut = femto.truncate(archives[-1], nbytes=nbytes)
        quality = psnr_db(image, femto.decode(cut), top)
        size = np.log(max(nbytes, len(cut)))
        found.append((quality, float(np.interp(size, sizes, qualities)) - quality))
    return found


def table(found: list) -> str:
    """Means and worst over pictures."""
    cut, loss = np.moveaxis(np.array(found), 2, 0)
    rows = [
        [f"{100 * s:g} %", f"{cut[:, i].mean():.2f}", f"{loss[:, i].mean():.2f}",
         f"{loss[:, i].max():.2f}"]
        for i, s in enumerate(SHARES)
    ]  # fmt: skip
    header = [
        "share of the bytes",
        "PSNR dB",
        "dB less than a fresh one",
        "worst picture",
    ]
    return markdown(header, rows)


def draw(image: np.ndarray, path: Path) -> None:
    """The strip: an archive of quality 75 at five shares of its bytes."""
    archive = femto.encode(image, quality=QUALITY)
    figure, axes = plt.subplots(1, len(STRIP), figsize=(12.5, 2.4))
    for axis, share in zip(axes, STRIP, strict=True):
        cut = femto.truncate(archive, nbytes=max(1, int(share * len(archive))))
        decoded = femto.decode(cut)
        axis.imshow(decoded, cmap="gray", vmin=0, vmax=peak(image))
        quality = psnr_db(image, decoded, peak(image))
        title = f"{100 * share:g} %: {len(cut)} bytes, {quality:.1f} dB"
        if len(cut) > share * len(archive):
            title = f"{100 * share:g} %: first layer, {len(cut)} bytes"
        axis.set_title(title, fontsize=8)
        axis.axis("off")
    figure.tight_layout(pad=0.4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--strip", type=Path, help="picture to draw at five shares")
    parser.add_argument("--figure", type=Path, help="PNG file for it")
    options = parser.parse_args(argv)
    if (options.strip is None) != (options.figure is None):
        parser.error("--strip and --figure belong together")
    if options.strip:
        draw(load(options.strip), options.figure)
    found = []
    for picture in find(options.folder)[0]:
        found.append(losses(load(picture.path)))
        say(f"{picture.name}: " + " ".join(f"{loss:.2f}" for _, loss in found[-1]))
    print(f"{options.folder.name}, {len(found)} pictures, quality {QUALITY}:\n\n{table(found)}")


if __name__ == "__main__":
    main()
