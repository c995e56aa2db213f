"""Command line: python3 -m femto train FOLDER -o NAME.basis, … features FOLDER -o NAME.parquet"""

import argparse
import os
import sys
from pathlib import Path

from .errors import LaffError, printable

# One thread: sums in another order would round otherwise, and the same pictures should give the
# same basis. Must be set before NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")


def _train(options: argparse.Namespace) -> int:
    import numpy as np

    from . import bases, display, pictures, training

    folder = Path(options.folder)
    if not folder.is_dir():
        raise LaffError(f"{folder}: no such folder: give one with training pictures")
    output = Path(options.output)
    name = options.name or output.stem
    bases.check_name(name)
    loaded = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix.lower() not in pictures.EXTENSIONS:
            continue
        try:
            with pictures.open_page(path) as reader:
                height, width = reader.shape[:2]
                image = np.asarray(reader[:height, :width])
        except LaffError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        if image.dtype == np.uint16:
            image = display.to_bytes(image)
        loaded.append(image)
    if not loaded:
        raise LaffError(f"{folder}: no pictures to train on: give a folder that has some")
    basis = training.train(loaded, name=name, count=options.classes - 1, seed=options.seed)
    digest = bases.save_basis(basis, output)
    print(f"{printable(str(output))}: {output.stat().st_size} bytes, sha256 {digest}")
    return 0


def _features(options: argparse.Namespace) -> int:
    from . import bases, feature_map, feature_table

    components = feature_map.COMPONENTS if options.components is None else options.components
    feature_map.check_components(components)
    feature_map.check_grid(options.grid)
    bases.check_basis(options.basis)
    failures = 0

    def failed(error: Exception) -> None:
        nonlocal failures
        failures += 1
        print(f"left out: {error}", file=sys.stderr)

    output = Path(options.output)
    rows = feature_table.write_features(
        Path(options.folder),
        output,
        components=components,
        grid=options.grid,
        colour=options.colour,
        basis=options.basis,
        max_pixels=options.max_pixels or None,
        failed=failed,
    )
    left_out = f", {failures} could not be read" if failures else ""
    print(f"{printable(str(output))}: {rows} archives{left_out}")
    return 1 if failures else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 if some archives could not be
    read, or 2 for bad input."""
    from .container import BELIEVED_PIXELS

    parser = argparse.ArgumentParser(prog="python3 -m femto", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="learn a basis from a folder of pictures")
    train.add_argument("folder", help="training pictures, searched with its sub-folders")
    train.add_argument("-o", "--output", required=True, help="basis file to write")
    train.add_argument("--name", help="name of the basis (default: the file's)")
    train.add_argument("--classes", type=int, default=32, choices=range(1, 33), metavar="1…32",
                       help="classes of small blocks, the DCT included (default 32)")  # fmt: skip
    train.add_argument("--seed", type=int, default=1)
    train.set_defaults(run=_train)
    features = commands.add_parser(
        "features", help="the features of a folder of archives, as a Parquet file"
    )
    features.add_argument("folder", help="archives, searched with its sub-folders")
    features.add_argument("-o", "--output", required=True, help="Parquet file to write")
    features.add_argument("--components", type=int, metavar="1…64",
                          help="DCT components per 8 x 8 pixels (default 1)")  # fmt: skip
    features.add_argument("--grid", type=int, default=4, metavar="N",
                          help="pool over N x N parts of the picture (default 4)")  # fmt: skip
    features.add_argument("--colour", action="store_true", help="chroma too")
    features.add_argument("--basis", metavar="FILE", help="the archives' basis, if it is neither "
                          "femto's own nor beside them")  # fmt: skip
    features.add_argument("--max-pixels", type=int, default=BELIEVED_PIXELS, metavar="N",
                          help="refuse pictures of more pixels than that for every MiB of the "
                          "archive (default %(default)s; 0: refuse none)")  # fmt: skip
    features.set_defaults(run=_features)
    options = parser.parse_args(arguments)

    try:
        return options.run(options)
    except (LaffError, OSError) as error:
        print(f"femto: {printable(str(error))}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
