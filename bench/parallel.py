"""How much faster several threads encode and decode: tiles are coded in parallel.

    python3 bench/parallel.py ../shared/data/large/forest.tif

The picture is repeated until it fills eight whole tiles, so that the figures tell of the threads
and not of how a picture happens to be cut. Wall-clock times, the best of three, in turns: to be
run on a quiet machine.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bench  # noqa: F401  isort: skip  one thread, femto of this checkout
import femto
from bench.measure import load
from bench.report import markdown

SHAPE = (2048, 4096)


def mosaic(image: np.ndarray) -> np.ndarray:
    """The picture repeated to SHAPE."""
    times = [-(-size // n) for size, n in zip(SHAPE, image.shape, strict=False)]
    return np.tile(image, times + [1] * (image.ndim - 2))[: SHAPE[0], : SHAPE[1]]


def seconds(call, *arguments, **options) -> float:
    start = time.perf_counter()
    call(*arguments, **options)
    return time.perf_counter() - start


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[os.cpu_count() or 1])
    options = parser.parse_args(argv)
    image = mosaic(load(options.picture))
    megapixels = SHAPE[0] * SHAPE[1] / 1e6
    rows = []
    for effort in ("full", "fast"):
        archive = femto.encode(image, effort=effort)
        best: dict = {}
        for _ in range(3):
            for threads in (1, *options.threads):
                took = {
                    "encode": seconds(femto.encode, image, effort=effort, threads=threads),
                    "decode": seconds(femto.decode, archive, threads=threads),
                }
                for what, value in took.items():
                    best[what, threads] = min(value, best.get((what, threads), value))
        for (what, threads), took in sorted(best.items()):
            efficiency = best[what, 1] / took / threads
            rows.append([f"{what}, {effort}", threads, f"{megapixels / took:.2f}",
                         f"{100 * efficiency:.0f} %"])  # fmt: skip
    print(markdown(["", "threads", "MP/s", "efficiency"], rows))


if __name__ == "__main__":
    main()
