"""Features and small pictures beside decoding JPEG and PNG: CPU time and bytes read.

    python3 bench/features.py PICTURE …

Every picture is compressed to an archive and to JPEG of the same quality, and written as PNG. Per
picture: libjpeg-turbo (by Pillow) decodes all of the JPEG, and an eighth of it (Pillow's draft);
Pillow decodes the PNG; femto reads the first layer's features, pooled to a vector, and makes an
eighth of the picture. At last many at once: so many copies of the files read one after the other,
by `femto.sklearn.LaffFeatures` and by Pillow.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bench  # isort: skip  # noqa: F401  one thread, femto of this checkout
import numpy as np
from PIL import Image

import femto
from bench.report import markdown


def milliseconds(call, rounds: int) -> float:
    """CPU time of a call, the least of so many, the first not counted."""
    call()
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return 1000 * best


def bytes_read(call) -> int | None:
    """How many bytes a call reads from files; None where Linux does not tell."""
    counts = Path("/proc/self/io")
    if not counts.is_file():
        return None

    def so_far() -> int:
        return int(counts.read_text().split()[1])

    call()
    before = so_far()
    between = so_far() - before  # what asking itself reads
    call()
    return so_far() - before - 2 * between


def pixels(path: Path, scale: int = 1) -> np.ndarray:
    with Image.open(path) as image:
        if scale > 1:
            image.draft(image.mode, (image.width // scale, image.height // scale))
        return np.asarray(image)


def make(picture: Path, folder: Path, quality: int, size: int | None) -> dict[str, Path]:
    """The files of one picture: archive, JPEG, PNG."""
    with Image.open(picture) as image:
        image = image if image.mode == "L" else image.convert("RGB")
        if size is not None:
            image = image.crop((0, 0, min(size, image.width), min(size, image.height)))
        paths = {kind: folder / f"{picture.stem}.{kind}" for kind in ("laff.gz", "jpg", "png")}
        image.save(paths["jpg"], quality=quality, optimize=True)
        image.save(paths["png"], optimize=True)
        paths["laff.gz"].write_bytes(femto.encode(np.asarray(image), quality=quality))
    return paths


def row_of(paths: dict[str, Path], rounds: int) -> list[str]:
    """A row of the table."""
    archive, jpeg, png = paths["laff.gz"], paths["jpg"], paths["png"]
    calls = [
        lambda: pixels(jpeg),
        lambda: pixels(jpeg, 8),
        lambda: pixels(png),
        lambda: femto.features(archive).vector(),
        lambda: femto.decode(archive, scale=8),
    ]
    header = femto.parse(archive, layers=1).header
    read = bytes_read(calls[3])
    return [
        archive.name.removesuffix(".laff.gz"),
        f"{header.width} x {header.height} {header.mode}",
        *(str(path.stat().st_size) for path in (jpeg, png, archive)),
        "" if read is None else str(read),
        *(f"{milliseconds(call, rounds):.2f}" for call in calls),
    ]


def many_at_once(paths: list[dict[str, Path]], count: int) -> str:
    """How fast so many files are read, one after the other, on one core."""
    from femto.sklearn import LaffFeatures

    rates = {}
    for kind, read in (
        ("laff.gz", lambda names: LaffFeatures().transform(names)),
        ("jpg", lambda names: [pixels(name, 8) for name in names]),
        ("png", lambda names: [pixels(name) for name in names]),
    ):
        names = [paths[n % len(paths)][kind] for n in range(count)]
        read(names[: len(paths)])
        start = time.process_time()
        read(names)
        rates[kind] = count / (time.process_time() - start)
    return (
        f"{count} files a kind, per CPU second: {rates['laff.gz']:.0f} vectors of features, "
        f"{rates['png']:.0f} PNG decoded ({rates['laff.gz'] / rates['png']:.2f} times that), "
        f"{rates['jpg']:.0f} JPEG decoded at 1/8"
    )


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    parser.add_argument("--quality", type=int, default=75)
    parser.add_argument("--size", type=int, metavar="N", help="cut pictures to N x N pixels")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--count", type=int, default=1000, help="how many at once")
    options = parser.parse_args(argv)
    header = ["picture", "pixels", "JPEG bytes", "PNG bytes", "archive bytes", "read of it",
              "JPEG ms", "JPEG 1/8 ms", "PNG ms", "features ms", "scale=8 ms"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        made = [make(p, Path(folder), options.quality, options.size) for p in options.pictures]
        print(markdown(header, [row_of(paths, options.rounds) for paths in made]))
        print()
        print(many_at_once(made, options.count))


if __name__ == "__main__":
    main()
