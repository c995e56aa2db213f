"""Rate-distortion curves of a results file as a picture."""

import itertools
from pathlib import Path

import matplotlib
import numpy as np

from bench.labels import label, metrics_of

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {
    "femto": "#c1121f",
    "femto-fast": "#f28482",
    "femto-perceptual": "#e07a1f",
    "avif444": "#1d4e89",
    "jxl": "#2a9d8f",
    "jp2": "#8a5a00",
    "webp": "#6a4c93",
    "jpeg444": "#9a9a9a",
    "jpeg420": "#4a4a4a",
}
NAMES = {
    "femto-fast": "femto, fast",
    "femto-perceptual": "femto, perceptual",
    "avif444": "AVIF 4:4:4",
    "jxl": "JPEG XL",
    "jp2": "JPEG 2000",
    "webp": "WebP",
    "jpeg444": "JPEG 4:4:4",
    "jpeg420": "JPEG 4:2:0",
}


def averaged(results, codec, metric):
    """[(rate, quality), …] of a codec, one point per setting: geometric mean of bpp and mean of the
    metric over the pictures; only settings that every picture of the codec has. (Points at a given
    ratio are of another kind, one quality for each picture, and would bend the curve.)"""
    settings = {}
    for row in results["rows"]:
        asked = str(row["quality"]).startswith("ratio")
        if row["codec"] == codec and row.get(metric) is not None and not asked:
            settings.setdefault(str(row["quality"]), []).append((row["bpp"], row[metric]))
    if not settings:
        return []
    full = max(map(len, settings.values()))
    points = [np.array(points) for points in settings.values() if len(points) == full]
    return sorted((float(np.exp(np.log(p[:, 0]).mean())), float(p[:, 1].mean())) for p in points)


def spread_out(positions, gap):
    """Positions moved apart to at least `gap`, order kept, as near to the old ones as is simple."""
    order = np.argsort(positions)
    moved = np.array(positions, float)
    for _ in range(200):
        for low, high in itertools.pairwise(order):
            lack = gap - (moved[high] - moved[low])
            if lack > 1e-9:
                moved[low] -= lack / 2
                moved[high] += lack / 2
    return moved


def draw(results, path):
    """One panel per metric, every curve labelled at its end; PNG at `path`."""
    metrics = metrics_of(results)
    columns = min(2, len(metrics))
    rows = -(-len(metrics) // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(6.4 * columns, 5.2 * rows), squeeze=False, layout="constrained"
    )
    for panel in panels.flat[len(metrics) :]:
        panel.set_axis_off()
    for panel, metric in zip(panels.flat, metrics, strict=False):
        lines = {codec: averaged(results, codec, metric) for codec in results["codecs"]}
        lines = {codec: line for codec, line in lines.items() if line}
        for codec, line in lines.items():
            ours = codec == "femto"
            panel.plot(
                *zip(*line, strict=True),
                color=COLOURS.get(codec, COLOURS["femto"]),
                linewidth=2.6 if ours else 1.5,
                marker="o",
                markersize=4 if ours else 3,
                zorder=3 if ours else 2,
            )
        # From where most codecs begin: a single curve's long tail would squeeze all the others.
        left = 0.8 * float(np.median([line[0][0] for line in lines.values()]))
        seen = [point for line in lines.values() for point in line if point[0] >= left]
        rates, values = zip(*seen, strict=True)
        low, high = min(values), max(values)
        panel.set_ylim(low - 0.05 * (high - low), high + 0.2 * (high - low))
        ends = spread_out([line[-1][1] for line in lines.values()], (high - low) * 0.055)
        margin = max(rates) * 1.12
        for (codec, line), y in zip(lines.items(), ends, strict=True):
            colour = COLOURS.get(codec, COLOURS["femto"])
            panel.plot([line[-1][0], margin], [line[-1][1], y], color=colour, linewidth=0.5)
            panel.text(
                margin * 1.03,
                y,
                NAMES.get(codec, codec),
                color=colour,
                va="center",
                fontsize=10,
                fontweight="bold" if codec == "femto" else "normal",
            )
        panel.set_xscale("log")
        panel.set_xlim(left, margin * (margin / left) ** 0.3)
        ticks = [t for t in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10) if left < t < margin]
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.set_xticks([], minor=True)
        panel.set_xlabel("bits per pixel (file as it lies on disk)")
        unit = " (dB)" if metric.startswith("psnr") else ""
        panel.set_title(label(results, metric) + unit, loc="left")
        panel.grid(color="#e4e4e4", linewidth=0.7)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{results['folder']}: mean of {len(results['pictures'])} pictures")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
