"""Command line: python3 -m femto train FOLDER -o NAME.basis"""

import argparse
import os
import sys
from pathlib import Path

# One thread: sums in another order would round otherwise, and the same pictures should give the
# same basis. Must be set before NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")


def _train(options: argparse.Namespace) -> int:
    import numpy as np

    from . import bases, pictures, training
    from .errors import LaffError

    folder = Path(options.folder)
    if not folder.is_dir():
        raise LaffError(f"{folder}: no such folder: give one with training pictures")
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
            image = (image >> 8).astype(np.uint8)
        loaded.append(image)
    if not loaded:
        raise LaffError(f"{folder}: no pictures to train on: give a folder that has some")
    output = Path(options.output)
    basis = training.train(
        loaded, name=options.name or output.stem, count=options.classes - 1, seed=options.seed
    )
    digest = bases.save_basis(basis, output)
    print(f"{output}: {output.stat().st_size} bytes, sha256 {digest}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, or 2 for bad input."""
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
    options = parser.parse_args(arguments)
    from .errors import LaffError

    try:
        return options.run(options)
    except (LaffError, OSError) as error:
        print(f"femto: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
