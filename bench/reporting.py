"""What the report costs, and what verifying costs: CPU seconds of the tasks without the report,
with it, with SSIM of all, and with archives decoded again.

python3 bench/reporting.py ../shared/data      # Kodak, and crops of the large pictures
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bench  # noqa: F401  isort: skip  one thread, femto of this checkout
from femto import pictures
from femto.job import plan, tasks
from femto.job.runner import Folders, Item
from femto.job.settings import Options, Settings

CROP, CROPS = 2048, 3
"""Edge of the crops, in pixels, and the most of them that are cut from one picture."""
WAYS = {
    "no report": {"report": False, "verify": False},
    "report": {"verify": False},
    "report, SSIM of all": {"ssim": "all", "verify": False},
    "report, verified": {},
}


def collect(data: Path, folder: Path) -> list[tuple[Path, tuple[int, ...]]]:
    """Write the crops; the paths and shapes of everything."""
    found = sorted((data / "kodak").glob("*.png"))
    for path in sorted((data / "large").glob("*.tif")):
        with pictures.open_page(path) as page:
            height, width = page.shape[:2]
            for i in range(min(CROPS, width // CROP)):
                pixels = np.asarray(page[: min(CROP, height), i * CROP : (i + 1) * CROP])
                found.append(folder / f"{path.stem}-{i}.png")
                Image.fromarray(pixels).save(found[-1], compress_level=1)
    shapes = []
    for path in found:
        with pictures.open_page(path) as page:
            shapes.append(page.shape)
    return list(zip(found, shapes, strict=True))


def things(found: list, folder: Path) -> list[plan.Picture]:
    """The pictures as the job plans them: plan.SHOWN are shown."""
    every = -(-len(found) // plan.SHOWN)
    made = []
    for i, (path, shape) in enumerate(found):
        name = os.path.relpath(path, folder)
        source = plan.Source(name, path.stat().st_size, 0)
        made.append(
            plan.Picture(
                source, page=0, pages=1, width=shape[1], height=shape[0],
                channels=1 if len(shape) == 2 else 3, bits=8, archive=f"{i}.laff.gz", base=str(i),
                shown=i % every == 0,
            )
        )  # fmt: skip
    return made


def seconds(settings: Settings, picture: plan.Picture) -> tuple[float, int]:
    """CPU seconds of one task, and the bytes of its archive."""
    data = Path(settings.folders.path(picture.source)).read_bytes()
    began = time.process_time()
    (result,) = tasks.compress_pictures(settings, iter([[Item(picture, data)]]))
    return time.process_time() - began, len(result["data"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="FOLDER", help="has kodak/ and large/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = things(collect(options.data, folder), folder)
        folders = Folders(input=name, output=name, run="bench")
        settings = {
            way: Settings(folders, Options(folder, folder, **options))
            for way, options in WAYS.items()
        }
        for picture in made[:1] + made[-1:]:  # compiled code is loaded
            seconds(settings["report, SSIM of all"], picture)
        took, nbytes = dict.fromkeys(WAYS, 0.0), dict.fromkeys(WAYS, 0)
        for picture in made:
            for way in WAYS:  # in turns: the machine's mood is the same for all
                cpu, size = seconds(settings[way], picture)
                took[way] += cpu
                nbytes[way] += size
    megapixels = sum(p.pixels for p in made) / 1e6
    print(f"{len(made)} pictures, {megapixels:.1f} Mpixel, {sum(p.shown for p in made)} shown")
    for way, cpu in took.items():
        more = cpu / took["no report"] - 1
        print(
            f"{way:20} {cpu:6.1f} s of CPU, {megapixels / cpu:.3f} Mpixel/s a core, "
            f"{100 * more:+5.1f} %, {nbytes[way]} bytes of archives"
        )


if __name__ == "__main__":
    main()
