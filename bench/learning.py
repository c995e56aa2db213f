"""Learning on archives beside learning on pictures: accuracy, bytes read, seconds.

    python3 bench/learning.py -o bench/results/learning.json --figure docs/figures/learning.png

The same splits and the same classifier on (a) pixels of the original files, (b) pixels of decoded
archives, (b') the same made small from the first layers, (c) features read from the archives, (d)
the same features computed from decoded JPEG files of the same quality, (d') the plain features that
need no search, log energies of 8 x 8 DCT scores, from the same JPEG files, and what is quickest to
have of a JPEG file: (e) its pixels, made small while they are decoded, (e') the plain features of
its first DCT coefficients. See bench/README.md for what is measured and how.
"""

import argparse
import io
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bench  # isort: skip  one thread, femto of this checkout
import matplotlib
import scipy.fft
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import femto
from bench.metrics import psnr_db
from bench.report import markdown
from bench.run import machine, say
from femto.basis.bases import load_basis
from femto.coding import cells, kstrings, partition
from femto.coding.blocks import ZIGZAG, Layout
from femto.coding.contexts import Field
from femto.container import PASSES
from femto.learning import feature_map
from femto.samples import levels_of

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SHARE = 0.10
"""Archives may have so much of the original files' bytes."""
QUALITIES = (85, 80, 75, 70, 65, 60, 50, 40, 30, 25)
NEARBY = (-10, -5, -2, 0, 2, 5, 10)
"""Differences to that quality, at which (c) and (c') are measured too: what one quality says is no
more certain than that its neighbours say the same."""
EXACT = 60.0
"""Decibels of a picture without any error, in means."""
SIDE = 48
"""Pixels a side of pictures that are learned from as pixels."""


@dataclass
class Data:
    """Pictures as PNG files, with labels 0…n-1 and the groups that a split must not part."""

    name: str
    about: str
    paths: list[Path]
    labels: np.ndarray
    groups: np.ndarray
    folds: int


def xrays(folder: Path) -> Data:
    """`classes/CLASS/PATIENT_NUMBER.png`; groups are patients."""
    classes = sorted(p for p in folder.iterdir() if p.is_dir())
    found = [(path, i) for i, c in enumerate(classes) for path in sorted(c.glob("*.png"))]
    patients = [path.name.split("_")[0] for path, _ in found]
    return Data(
        "xray",
        f"chest x-rays, {' or '.join(c.name for c in classes)}, split by patient",
        [path for path, _ in found],
        np.array([label for _, label in found]),
        np.unique(patients, return_inverse=True)[1],
        5,
    )


def textures(folder: Path) -> Data:
    """Patches of scikit-image's brick, grass and gravel; groups are quadrants of the pictures."""
    from skimage import data

    paths, labels, groups = [], [], []
    for label, name in enumerate(("brick", "grass", "gravel")):
        picture = getattr(data, name)()
        for quadrant in range(4):
            top, left = 256 * (quadrant // 2), 256 * (quadrant % 2)
            for y in range(top, top + 129, 32):
                for x in range(left, left + 129, 32):
                    path = folder / f"{name}_{y}_{x}.png"
                    Image.fromarray(picture[y : y + 128, x : x + 128]).save(path, optimize=True)
                    paths.append(path)
                    labels.append(label)
                    groups.append(quadrant)
    about = "128 x 128 patches of brick, grass and gravel (scikit-image), split by quadrant"
    return Data("textures", about, paths, np.array(labels), np.array(groups), 4)


def faces(folder: Path) -> Data:
    """scikit-image's lfw_subset: 100 faces, 100 other patches, 25 x 25 pixels."""
    from skimage import data

    paths = []
    images = data.lfw_subset()
    for i, image in enumerate(images):
        paths.append(folder / f"face_{i:03}.png")
        pixels = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(paths[-1], optimize=True)
    labels = np.repeat([1, 0], 100)
    about = "faces or not, 25 x 25 pixels (scikit-image, lfw_subset)"
    return Data("faces", about, paths, labels, np.arange(len(images)), 5)


def grey(source) -> np.ndarray:
    with Image.open(source) as image:
        return np.asarray(image.convert("L"))


def eighth(path) -> np.ndarray:
    """A grey JPEG file at 1/8, as libjpeg-turbo decodes it: the DC coefficient of every block, over
    8, and nothing is computed of the others."""
    with Image.open(path) as image:
        image.draft("L", (1, 1))
        return np.asarray(image)


def small_jpeg(path) -> np.ndarray:
    """A grey JPEG file as pixels, decoded as small as libjpeg-turbo can without being smaller."""
    with Image.open(path) as image:
        image.draft("L", (SIDE, SIDE))
        return as_pixels(np.asarray(image))


def scale_of(path) -> int:
    """How many times smaller an archive's picture may be without being smaller than SIDE."""
    header = femto.parse(path, layers=1).header
    fitting = [k for k in (1, 2, 4, 8) if min(header.height, header.width) // k >= SIDE]
    return max(fitting, default=1)


def small_archive(path) -> np.ndarray:
    """The same of an archive."""
    return as_pixels(femto.decode(path, scale=scale_of(path)))


def bytes_read(name: str, path) -> int:
    """Bytes of a file as far as an input needs it: of an archive, the layers that are read."""
    layers = {"c": 1}.get(name)
    if name == "b'" and (scale := scale_of(path)) > 1:
        ends = kstrings.zone_ends(femto.info(path)["passes"])
        layers = int(np.searchsorted(ends, cells.SCALES[scale])) + 1
    return path.stat().st_size if layers is None else len(femto.truncate(path, layers=layers))


def as_pixels(image: np.ndarray) -> np.ndarray:
    """A picture of SIDE x SIDE pixels (box filter; smaller pictures as they are), as a vector."""
    side = (min(SIDE, image.shape[1]), min(SIDE, image.shape[0]))
    return np.asarray(Image.fromarray(image).resize(side, Image.Resampling.BOX), float).ravel()


def same_features(image: np.ndarray, step: float, components: int) -> np.ndarray:
    """What `femto.features` gives, from pixels: femto's choice of blocks and classes, scores."""
    basis = load_basis("photo")
    layout = Layout(*image.shape, 1)
    field = Field(layout)
    scores = partition.analyse(image, step, levels_of(8), basis, field)
    kstrings.rotate(scores, field.lists[0], field.classes, layout.cells, basis.backward)
    tile = cells.cells_of(scores, field, 64, components)
    found = feature_map.Features(
        tile.scores, tile.classes, tile.sizes[0, :, :, None], *image.shape, 8
    )
    return found.vector()


def plain_features(image: np.ndarray, components: int) -> np.ndarray:
    """The features of 8 x 8 DCT scores, pooled alike: no classes, no sizes."""
    rows, columns = -(-image.shape[0] // 8), -(-image.shape[1] // 8)
    pad = (8 * rows - image.shape[0], 8 * columns - image.shape[1])
    cells = np.pad(image, [(0, pad[0]), (0, pad[1])], mode="edge").astype(np.float32) - 128
    cells = cells.reshape(rows, 8, columns, 8).transpose(0, 2, 1, 3)
    scores = scipy.fft.dctn(cells, axes=(2, 3), norm="ortho")
    scores = np.ascontiguousarray(scores[..., ZIGZAG[:components, 0], ZIGZAG[:components, 1]])
    found = feature_map.Features(
        scores[:, :, None],
        np.zeros((rows, columns), np.uint8),
        np.zeros((rows, columns, 1), np.uint8),
        *image.shape,
        8,
    )
    names = feature_map.vector_names(components)
    return found.vector()[[not n.startswith(("size", "class")) for n in names]]


def first_coefficients(path) -> np.ndarray:
    """The plain features of a JPEG file's first coefficients."""
    with Image.open(path) as image:
        size = image.size[::-1]
    small = eighth(path)
    found = feature_map.Features(
        8 * (small[:, :, None, None].astype(np.float32) - 128),
        np.zeros(small.shape, np.uint8),
        np.zeros((*small.shape, 1), np.uint8),
        *size,
        8,
    )
    return found.vector()[[not n.startswith(("size", "class")) for n in feature_map.vector_names()]]


def by_quality(data: Data, quality: int, components: int, repeats: int) -> list[dict]:
    """AUC of (c) and (c') from archives of qualities near `quality`."""
    rows = []
    for near in (quality + difference for difference in NEARBY):
        archives = [femto.encode(grey(path), quality=near) for path in data.paths]
        layers = femto.info(archives[0])["layers"]
        row = {"quality": near, "archive_bytes": sum(map(len, archives))}
        for name, reader in (
            ("c", lambda a: femto.features(a).vector()),
            ("c'", all_layers(components, layers)),
        ):
            found, _ = predictions(data, np.stack([reader(a) for a in archives]), repeats)
            row[name] = round(float(scores_of(data, found)[0]), 4)
        rows.append(row)
        say(f"{data.name}: {row}")
    return rows


def encode_archives(data: Data, folder: Path) -> tuple[int, list[Path]]:
    """Archives of the best quality whose bytes are SHARE of the originals' (or the worst quality
    there is); that quality is found on every sixth picture, and then checked on all."""
    original = [path.stat().st_size for path in data.paths]
    images = [grey(path) for path in data.paths]
    for quality in QUALITIES:
        sample = [len(femto.encode(image, quality=quality)) for image in images[::6]]
        if quality != QUALITIES[-1] and sum(sample) > SHARE * sum(original[::6]):
            continue
        archives = [femto.encode(image, quality=quality) for image in images]
        if quality == QUALITIES[-1] or sum(map(len, archives)) <= SHARE * sum(original):
            break
    paths = []
    for path, archive in zip(data.paths, archives, strict=True):
        paths.append(folder / f"{data.name}_{path.parent.name}_{path.stem}.laff.gz")
        paths[-1].write_bytes(archive)
    return quality, paths


def decibels(image: np.ndarray, decoded: np.ndarray) -> float:
    """PSNR, of a picture that came back exact (a flat one) as EXACT."""
    return min(psnr_db(image, decoded, 255), EXACT)


def encode_jpegs(data: Data, archives: list[Path], folder: Path) -> tuple[int, list[Path], float]:
    """JPEG files of the one quality whose mean PSNR is next to that of the archives."""
    images = [grey(path) for path in data.paths]
    every = [decibels(i, femto.decode(a)) for i, a in zip(images, archives, strict=True)]

    def jpeg(image, quality):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality, optimize=True)
        return file.getvalue()

    def reached(quality):
        return np.mean([decibels(i, grey(io.BytesIO(jpeg(i, quality)))) for i in images[::6]])

    aim = np.mean(every[::6])
    low, high = 5, 95
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if reached(middle) < aim else (low, middle)
    quality = min((low, high), key=lambda q: abs(reached(q) - aim))
    paths = []
    for image, archive in zip(images, archives, strict=True):
        paths.append(folder / archive.name.replace(".laff.gz", ".jpg"))
        paths[-1].write_bytes(jpeg(image, quality))
    return quality, paths, float(np.mean(every))


def load(paths, reader, repeats=3):
    """The matrix of all pictures, and CPU milliseconds per picture: the median over every fourth
    picture of the best of `repeats` rounds, everything compiled and the files in the system's
    cache."""
    matrix = np.stack([reader(path) for path in paths])
    timed = paths[::4]
    best = np.full(len(timed), np.inf)
    for _ in range(repeats):
        for i, path in enumerate(timed):
            start = time.process_time()
            reader(path)
            best[i] = min(best[i], time.process_time() - start)
    return matrix, float(1000 * np.median(best))


def predictions(data: Data, matrix: np.ndarray, repeats: int):
    """Out-of-fold class probabilities (repeats, n, classes), and seconds that one fit takes.

    Standardised, 60 principal components, logistic regression; its strength is chosen inside of
    each training part, on folds that keep groups together too.
    """
    classes = int(data.labels.max()) + 1
    found = np.zeros((repeats, len(matrix), classes))
    seconds = []
    inner = 3
    for repeat in range(repeats):
        outer = StratifiedGroupKFold(data.folds, shuffle=True, random_state=repeat)
        for train, test in outer.split(matrix, data.labels, data.groups):
            size = min(60, matrix.shape[1], int(len(train) * (1 - 1 / inner)) - 2)
            model = make_pipeline(
                StandardScaler(),
                PCA(size, svd_solver="full"),
                LogisticRegression(max_iter=3000),
            )
            search = GridSearchCV(
                model,
                {"logisticregression__C": [1e-3, 1e-2, 1e-1]},
                cv=StratifiedGroupKFold(inner, shuffle=True, random_state=repeat),
                scoring="neg_log_loss",
            )
            start = time.process_time()
            search.fit(matrix[train], data.labels[train], groups=data.groups[train])
            seconds.append(time.process_time() - start)
            found[repeat, test] = search.predict_proba(matrix[test])
    return found, float(np.median(seconds))


def auc(labels, probabilities) -> float:
    if probabilities.shape[1] == 2:
        return float(roc_auc_score(labels, probabilities[:, 1]))
    return float(roc_auc_score(labels, probabilities, multi_class="ovr"))


def scores_of(data: Data, found: np.ndarray, chosen=slice(None)) -> tuple[float, float]:
    """AUC and accuracy, each the mean over repeats, of the chosen pictures."""
    labels = data.labels[chosen]
    aucs = [auc(labels, p[chosen]) for p in found]
    return np.mean(aucs), np.mean([accuracy_score(labels, p[chosen].argmax(1)) for p in found])


def intervals(data: Data, all_found: dict, reference: str, draws: int) -> dict:
    """95 % intervals by bootstrap over groups (over pictures where there are fewer than 20 groups):
    AUC and accuracy of each input, and the differences of AUC to `reference`."""
    random = np.random.default_rng(0)
    groups = data.groups if data.groups.max() >= 19 else np.arange(len(data.labels))
    members = [np.flatnonzero(groups == g) for g in range(groups.max() + 1)]
    drawn = {name: [] for name in all_found}
    while len(drawn[reference]) < draws:
        chosen = np.concatenate(
            [members[g] for g in random.integers(0, len(members), len(members))]
        )
        if len(np.unique(data.labels[chosen])) <= data.labels.max():
            continue
        for name, found in all_found.items():
            drawn[name].append(scores_of(data, found, chosen))
    drawn = {name: np.array(values) for name, values in drawn.items()}
    base = scores_of(data, all_found[reference])

    def interval(values):
        return [round(float(v), 4) for v in np.percentile(values, (2.5, 97.5))]

    table = {}
    for name, found in all_found.items():
        value, accuracy = scores_of(data, found)
        table[name] = {
            "auc": round(float(value), 4),
            "auc_interval": interval(drawn[name][:, 0]),
            "accuracy": round(float(accuracy), 4),
            "accuracy_interval": interval(drawn[name][:, 1]),
            "auc_gain": round(float(value - base[0]), 4),
            "auc_gain_interval": interval(drawn[name][:, 0] - drawn[reference][:, 0]),
        }
    return table


def what_tells(data: Data, matrix: np.ndarray, archives: list[Path], components: int, repeats: int):
    """AUC from parts of the features alone: is it the scene that is recognised, or how its files
    were made? The corners of an x-ray hold the device's marks and little anatomy."""
    names = np.array(feature_map.vector_names(components))
    place = [tuple(int(n.split(f"_{axis}")[1][0]) if f"_{axis}" in n else -1 for axis in "yx")
             for n in names]  # fmt: skip
    corner = np.array([y in (0, 3) and x in (0, 3) for y, x in place])
    centre = np.array([y in (1, 2) and x in (1, 2) for y, x in place])
    word = np.array([n.startswith(("class", "size")) for n in names])
    mean = np.array([n.endswith("_mean") for n in names])
    order = np.array([[int(p.stem.split("_")[0])] if p.stem[0].isdigit() else [0]
                      for p in data.paths])  # fmt: skip
    parts = {
        "four centre parts": matrix[:, centre],
        "four corner parts": matrix[:, corner],
        "sizes and classes alone": matrix[:, word],
        "means alone": matrix[:, mean],
        "all but the means": matrix[:, ~mean],
        "bytes of the archive alone": np.array([[p.stat().st_size] for p in archives], float),
        "bytes of the original alone": np.array([[p.stat().st_size] for p in data.paths], float),
    }
    if order.any():
        parts["the patient's number alone"] = order.astype(float)
    return {
        name: round(float(scores_of(data, predictions(data, part, repeats)[0])[0]), 4)
        for name, part in parts.items()
    }


def all_layers(components: int, layers: int):
    """The function from an archive to its features, so many layers read."""
    return lambda path: femto.features(path, components=components, layers=layers).vector()


def measure(data: Data, folder: Path, options) -> dict:
    """All that is measured on one data set."""
    say(f"{data.name}: {len(data.paths)} pictures; compressing")
    quality, archives = encode_archives(data, folder)
    jpeg_quality, jpegs, psnr = encode_jpegs(data, archives, folder)
    components = options.components
    layers = femto.info(archives[0])["layers"]
    step = femto.info(archives[0])["step"]
    inputs = {
        "a": (data.paths, lambda p: as_pixels(grey(p))),
        "b": (archives, lambda p: as_pixels(femto.decode(p))),
        "b'": (archives, small_archive),
        "c": (archives, lambda p: femto.features(p).vector()),
        "c'": (archives, all_layers(components, layers)),
        "d": (jpegs, lambda p: same_features(grey(p), step, components)),
        "d'": (jpegs, lambda p: plain_features(grey(p), components)),
        "e": (jpegs, small_jpeg),
        "e'": (jpegs, first_coefficients),
    }
    original = sum(p.stat().st_size for p in data.paths)
    table, found, matrices = {}, {}, {}
    for name, (paths, reader) in inputs.items():
        matrices[name], milliseconds = load(paths, reader)
        found[name], seconds = predictions(data, matrices[name], options.repeats)
        nbytes = sum(bytes_read(name, p) for p in paths)
        table[name] = {
            "bytes_read": nbytes,
            "share_of_original": round(nbytes / original, 4),
            "load_ms": round(milliseconds, 3),
            "fit_s": round(seconds, 3),
            "columns": matrices[name].shape[1],
        }
        say(f"{data.name}: ({name}) {table[name]} AUC {scores_of(data, found[name])[0]:.3f}")
    for name, row in intervals(data, found, "a", options.draws).items():
        table[name] |= row
    sweep = []
    for count in range(1, layers + 1):
        known = kstrings.zone_ends(PASSES[0])[:count][-1]
        matrix, milliseconds = load(archives, all_layers(min(components, known), count))
        value = scores_of(data, predictions(data, matrix, options.repeats)[0])[0]
        nbytes = sum(len(femto.truncate(p, layers=count)) for p in archives)
        sweep.append(
            {
                "components": min(components, known),
                "layers": count,
                "share_of_archive": round(nbytes / sum(p.stat().st_size for p in archives), 4),
                "load_ms": round(milliseconds, 3),
                "auc": round(float(value), 4),
            }
        )
        say(f"{data.name}: {sweep[-1]}")
    decoding = load(archives, lambda p: femto.decode(p).ravel())[1]
    shapes = sorted({grey(p).shape for p in data.paths})
    return {
        "about": data.about,
        "pictures": len(data.paths),
        "groups": int(data.groups.max()) + 1,
        "sizes": [list(shape) for shape in shapes],
        "quality": quality,
        "jpeg_quality": jpeg_quality,
        "psnr_db": round(psnr, 2),
        "original_bytes": original,
        "archive_bytes": sum(p.stat().st_size for p in archives),
        "components": components,
        "inputs": table,
        "layers": sweep,
        "qualities": by_quality(data, quality, components, options.repeats),
        "decode_ms": round(decoding, 3),
        "what_tells": what_tells(data, matrices["c'"], archives, components, options.repeats),
    }


LABELS = {
    "a": "(a) pixels of the originals",
    "b": "(b) pixels of decoded archives",
    "b'": "(b') pixels of archives made small",
    "c": "(c) features, first layer (default)",
    "c'": "(c') features, all layers",
    "d": "(d) the same features from JPEG",
    "d'": "(d') plain DCT energies from JPEG",
    "e": "(e) pixels of JPEG made small",
    "e'": "(e') first DCT coefficients of JPEG",
}


def tables(results: dict) -> str:
    """The results as markdown."""
    lines = []
    for data in results["data"].values():
        lines.append(
            f"{data['about']}: {data['pictures']} pictures, {data['groups']} groups, archives "
            f"{100 * data['archive_bytes'] / data['original_bytes']:.1f} % of the originals' bytes "
            f"({data['psnr_db']} dB)\n"
        )
        rows = []
        for name, row in data["inputs"].items():
            rows.append(
                [
                    LABELS[name],
                    f"{row['auc']:.3f} ({row['auc_interval'][0]:.3f}–{row['auc_interval'][1]:.3f})",
                    f"{100 * row['auc_gain']:+.1f} ({100 * row['auc_gain_interval'][0]:+.1f} to "
                    f"{100 * row['auc_gain_interval'][1]:+.1f})",
                    f"{100 * row['accuracy']:.1f}",
                    f"{100 * row['share_of_original']:.1f}",
                    f"{row['load_ms']:.2f}",
                    f"{row['fit_s']:.2f}",
                ]
            )
        header = ["input", "AUC (95 %)", "points over (a)", "accuracy %", "bytes read %",
                  "load ms", "fit s"]  # fmt: skip
        lines.append(markdown(header, rows))
        reference, near = data["inputs"]["a"]["auc"], data["qualities"]
        for name in ("c", "c'"):
            gains = [100 * (row[name] - reference) for row in near]
            lines.append(
                f"\n({name}) at qualities {near[0]['quality']} to {near[-1]['quality']}: "
                f"{np.mean(gains):+.1f} points over (a), {min(gains):+.1f} to {max(gains):+.1f}."
            )
        told = ", ".join(f"{name} {value:.2f}" for name, value in data["what_tells"].items())
        lines.append(f"\nAUC from less: {told}.\n")
    return "\n".join(lines)


def draw(results: dict, path: Path) -> None:
    """Cost and AUC over the share of the archive that is read."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    for name, data in results["data"].items():
        share = [100 * row["share_of_archive"] for row in data["layers"]]
        left.plot(share, [row["load_ms"] for row in data["layers"]], "o-", label=name)
        right.plot(share, [row["auc"] for row in data["layers"]], "o-", label=name)
    left.set_ylabel("CPU ms per picture")
    left.set_ylim(0)
    right.set_ylabel("AUC")
    for axes in (left, right):
        axes.set_xlabel("share of the archive read, %")
        axes.grid(alpha=0.3)
    left.legend(frameon=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, help="JSON file to write")
    parser.add_argument("--figure", type=Path, help="PNG file of cost and AUC over layers")
    parser.add_argument("--components", type=int, default=6, help="of (c'), (d), (d')")
    parser.add_argument("--repeats", type=int, default=3, help="of the cross-validation")
    parser.add_argument("--draws", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--data", default="xray,textures,faces")
    options = parser.parse_args(argv)
    root = Path(os.environ.get("FEMTO_DATA", bench.ROOT.parent / "shared" / "data"))
    results = {"made": machine(), "repeats": options.repeats, "draws": options.draws, "data": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.data.split(","):
            if name == "xray":
                source = root / "xray" / "classes"
                if not source.is_dir():
                    say(f"xray left out: no folder {source}; set FEMTO_DATA")
                    continue
                data = xrays(source)
            else:
                data = {"textures": textures, "faces": faces}[name](Path(folder))
            results["data"][name] = measure(data, Path(folder), options)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    if options.figure:
        draw(results, options.figure)
    print(tables(results))


if __name__ == "__main__":
    main()
