"""What each part of the codec is worth: femto without it beside femto with it.

    python3 bench/ablation.py ../shared/data/kodak --every 4 -o bench/ABLATION.md

Each part is taken away from encoder and decoder alike, and nothing is trained again, so what the
others learned beside it is lost as well: the figures are upper bounds of its worth. BD-rate over
five steps, of the k-strings' bytes, before they are put into text.
"""

import argparse
import contextlib
import dataclasses
import sys
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bench  # noqa: F401  isort: skip  one thread, femto of this checkout
from bench.bdrate import bd_rate
from bench.measure import find, load
from bench.metrics import psnr
from bench.report import markdown
from bench.run import say
from femto.basis import bases
from femto.coding import blocks, kstrings, model, partition
from femto.coding.blocks import Layout
from femto.coding.contexts import Field
from femto.samples import levels_of

STEPS = (7.0, 12.0, 20.0, 34.0, 58.0)
SHIPPED = bases.load_basis()
UNTRAINED = bases.untrained()


@dataclasses.dataclass
class Variant:
    """The codec without something: options of the search for blocks, another basis, or functions
    and constants of the codec that are replaced (module, name, value)."""

    search: dict = dataclasses.field(default_factory=dict)
    basis: bases.Basis = dataclasses.field(default_factory=lambda: SHIPPED)
    replaced: tuple = ()
    passes: int = 4


def changed(**parts) -> bases.Basis:
    return dataclasses.replace(SHIPPED, **parts)


def without_state(first: int, last: int) -> Variant:
    """Nothing learned in that part of the coder's state."""
    state = SHIPPED.state.copy()
    state[first:last] = UNTRAINED.state[first:last]
    return Variant(basis=changed(state=state))


def no_filter(planes, *_):
    return planes


VARIANTS = {
    "blocks of 8 x 8 only": Variant({"size": 0}),
    "blocks of 16 x 16 only": Variant({"size": 1}),
    "blocks of 32 x 32 only": Variant({"size": 2}),
    "no trained classes": Variant({"classes": False}),
    "colour axes the same everywhere": Variant(
        replaced=((partition, "choose_colour", lambda pixels: bytes(6)),)
    ),
    "plain rounding, no rate-distortion optimised quantisation": Variant(
        replaced=((kstrings, "TRADE", 0.0),)
    ),
    "no filter in the decoder": Variant(replaced=((kstrings, "restore", no_filter),)),
    "untrained weights of neighbouring magnitudes": Variant(
        basis=changed(weights=UNTRAINED.weights, zone_weights=UNTRAINED.zone_weights)
    ),
    "signs not predicted from border lines": Variant(
        basis=changed(sign_weights=np.zeros_like(SHIPPED.sign_weights))
    ),
    "no pre-trained state": without_state(0, len(SHIPPED.state)),
    "no pre-trained counters": without_state(0, model.SLOTS),
    "no pre-trained mixers": without_state(model.SLOTS, len(SHIPPED.state)),
    "one pass instead of four (the price of fine layers)": Variant(passes=1),
}


def points(variant: Variant, image: np.ndarray) -> list[tuple[int, float, float]]:
    """(bytes, PSNR-RGB, PSNR-Y) of a picture at all steps."""
    found, levels = [], levels_of(8 * image.itemsize)
    with contextlib.ExitStack() as stack:
        for module, name, value in variant.replaced:
            stack.enter_context(mock.patch.object(module, name, value))
        for step in STEPS:
            step = step * levels.scale
            layout = Layout(*image.shape[:2], 1 if image.ndim == 2 else 3)
            field = Field(layout, variant.passes)
            scores = partition.analyse(image, step, levels, variant.basis, field, **variant.search)
            block_string, layers = kstrings.encode(scores, step, variant.basis, field)
            scores = kstrings.dequantise(field, step, variant.basis)
            planes = kstrings.planes_of(scores, field, step, variant.basis)
            quality = psnr(image, blocks.to_pixels(planes, field.colour, image.dtype, levels))
            nbytes = len(block_string) + sum(map(len, layers))
            found.append((nbytes, quality["psnr_rgb"], quality["psnr_y"]))
    return found


def gain(whole, less, column: int) -> float:
    """Mean BD-rate of the variant against the whole codec, in per cent."""
    found = []
    for pair in zip(whole, less, strict=True):
        anchor, test = ([(point[0], point[column]) for point in curve] for curve in pair)
        found.append(bd_rate(anchor, test))
    return float(np.mean(found))


def table(images: list[np.ndarray]) -> str:
    whole = [points(Variant(), image) for image in images]
    rows = []
    for name, variant in VARIANTS.items():
        less = [points(variant, image) for image in images]
        rows.append((name, gain(whole, less, 1), gain(whole, less, 2)))
        say(f"{name}: {rows[-1][1]:+.2f} {rows[-1][2]:+.2f}")
    return markdown(
        ["without it", "PSNR-RGB", "PSNR-Y"], [[n, f"{a:+.2f}", f"{b:+.2f}"] for n, a, b in rows]
    )


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1, help="only every so many pictures")
    parser.add_argument("-o", "--output", type=Path, help="markdown file to write")
    options = parser.parse_args(argv)
    images = [load(p.path)[:1024, :1024] for p in find(options.folder)[0][:: options.every]]
    text = (
        "# What each part is worth\n\n"
        f"BD-rate in per cent of femto without a part against femto with all of them, mean over "
        f"{len(images)} pictures of {options.folder.name}; positive: the part pays. Nothing is "
        "trained again without it, so these are upper bounds.\n\n"
        f"{table(images)}\n\n"
        f"    python3 bench/ablation.py FOLDER --every {options.every} -o bench/ABLATION.md\n"
    )
    if options.output:
        options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
