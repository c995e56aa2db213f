"""Tables (markdown) and curves of a results file that bench/run.py wrote.

python3 bench/report.py bench/results/kodak.json --anchor avif444 --range 30 40
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.adapters import VARIANTS
from bench.bdrate import bd_rate, quality_at, worst_excess
from bench.labels import LABELS, label, metrics_of


def measured(results):
    """Codecs with at least one point; the others are only among the failures."""
    found = {row["codec"] for row in results["rows"]}
    return [codec for codec in results["codecs"] if codec in found]


def curves(results, metric):
    """{codec: {picture: [(bpp, value), …]}} of all points where the metric was measured."""
    found = {codec: {} for codec in measured(results)}
    for row in results["rows"]:
        if row.get(metric) is not None:
            points = found[row["codec"]].setdefault(row["picture"], [])
            points.append((row["bpp"], row[metric]))
    return found


def per_picture(results, metric, anchor, codec, function=bd_rate, **limits):
    """{picture: function(anchor's points, codec's points)} where it is not None."""
    if not metric.startswith("psnr"):
        limits = {}  # a range is one of dB
    found = curves(results, metric)
    values = {
        picture: function(found[anchor].get(picture, []), points, **limits)
        for picture, points in found[codec].items()
    }
    return {picture: value for picture, value in values.items() if value is not None}


def mean_bd_rate(results, metric, anchor, codec, low=None, high=None):
    """(mean over pictures of the BD-rate, number of pictures), (None, 0) without any overlap."""
    values = per_picture(results, metric, anchor, codec, low=low, high=high).values()
    return (sum(values) / len(values), len(values)) if values else (None, 0)


def markdown(header, rows):
    """A markdown table; first column to the left, numbers to the right."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _percent(value, count, pictures):
    if value is None:
        return "none"
    return f"{value:+.1f}" + (f" ({count} of {pictures})" if count < pictures else "")


def bd_table(results, anchor, low=None, high=None):
    """Mean BD-rate of every codec against the anchor, one column per metric."""
    metrics = metrics_of(results)
    rows = []
    for codec in measured(results):
        if codec != anchor:
            means = (mean_bd_rate(results, metric, anchor, codec, low, high) for metric in metrics)
            rows.append([codec, *(_percent(*mean, len(results["pictures"])) for mean in means)])
    return markdown(["codec", *(label(results, metric) for metric in metrics)], rows)


def pair_table(results, metric, low=None, high=None):
    """Mean BD-rate of every codec (row) against every other (column) in one metric."""
    codecs = measured(results)
    rows = []
    for codec in codecs:
        cells = []
        for anchor in codecs:
            mean = mean_bd_rate(results, metric, anchor, codec, low, high)
            cells.append("–" if codec == anchor else _percent(*mean, len(results["pictures"])))
        rows.append([codec, *cells])
    return markdown(["codec \\ against", *codecs], rows)


def worst_table(results, anchor, low, high):
    """The picture where each codec does worst against the anchor in PSNR over [low, high] dB."""
    rows = []
    for codec in measured(results):
        if codec == anchor:
            continue
        limits = {"low": low, "high": high}
        mean = per_picture(results, "psnr_rgb", anchor, codec, **limits)
        point = per_picture(results, "psnr_rgb", anchor, codec, worst_excess, **limits)
        cells = []
        for values in (mean, point):
            name = max(values, key=values.get, default=None)
            cells.append("none" if name is None else f"{values[name]:+.1f} ({name})")
        larger = sum(value > 0 for value in mean.values())
        rows.append([codec, f"{larger} of {len(mean)}", *cells])
    header = ["codec", "pictures larger", "largest mean", "largest at any one quality"]
    return markdown(header, rows)


def ratio_table(results, ratio):
    """PSNR-RGB of every picture at raw pixels / ratio, on each codec's measured curve."""
    found = curves(results, "psnr_rgb")
    rows = []
    for picture in results["pictures"]:
        rate = picture["channels"] * picture["bits"] / ratio
        values = (quality_at(found[c].get(picture["name"], []), rate) for c in found)
        rows.append([picture["name"], *("–" if v is None else f"{v:.2f}" for v in values)])
    return markdown(["picture", *found], rows)


def larger_lines(results, codec, anchor, low, high):
    """One line per picture on which a file of the codec is larger than one of the anchor at equal
    PSNR-RGB somewhere over [low, high] dB."""
    limits = {"low": low, "high": high}
    excess = per_picture(results, "psnr_rgb", anchor, codec, worst_excess, **limits)
    mean = per_picture(results, "psnr_rgb", anchor, codec, **limits)
    for picture, value in excess.items():
        if value > 0:
            whole = f"{mean[picture]:+.1f} % on the whole" if picture in mean else "few points"
            yield f"- {picture}: up to {value:+.1f} %, {whole}"


def headline(results, ratio=None):
    """The figures of femto that README.md tells, as markdown."""
    codecs, pictures = measured(results), len(results["pictures"])
    parts, rows = [f"## {results['folder']}: {pictures} pictures"], []

    def compare(metric, anchor, codec="femto"):
        if anchor in codecs and codec in codecs and metric in metrics_of(results):
            mean = mean_bd_rate(results, metric, anchor, codec)
            rows.append([codec, anchor, label(results, metric), _percent(*mean, pictures)])

    if all(picture["channels"] == 1 for picture in results["pictures"]):
        for anchor in ("jp2", "jxl", "avif444"):
            compare("psnr_rgb", anchor)
        means = (mean_bd_rate(results, "psnr_rgb", row[1], "femto")[0] for row in rows)
        known = [(mean, row[1]) for mean, row in zip(means, rows, strict=True) if mean is not None]
        if known:
            mean, name = max(known)
            parts.append(f"The best of the others by PSNR is {name}: femto {mean:+.1f} %.")
    else:
        for metric in LABELS:
            compare(metric, "jpeg420")
        compare("psnr_rgb", "avif444")
    for name in VARIANTS:
        compare("psnr_rgb", "femto", name)
        compare("ssimulacra2", "femto", name)
    parts.append(markdown(["codec", "against", "metric", "BD-rate %"], rows))
    if ratio:
        parts += [f"PSNR in dB at ratio {ratio:g}:", ratio_table(results, ratio)]
    if {"femto", "avif444"} <= set(codecs):
        lines = list(larger_lines(results, "femto", "avif444", 30, 40))
        parts += [
            "femto larger than AVIF 4:4:4 at equal PSNR somewhere from 30 to 40 dB:",
            "\n".join(lines) if lines else "- no picture",
        ]
    return "\n\n".join(parts)


def speed_table(results):
    """MP/s of encoding and decoding."""
    rows = [
        [codec, f"{speed['quality']:g}", f"{speed['encode']:.2f}", f"{speed['decode']:.2f}"]
        for codec, speed in results["speed"].items()
    ]
    return markdown(["codec", "quality", "encode MP/s", "decode MP/s"], rows)


def failure_lines(results):
    """One line per codec and reason."""
    kinds = Counter((f["codec"], f["quality"] is None, f["reason"]) for f in results["failures"])
    for (codec, unfit, reason), count in kinds.items():
        what = "left out on" if unfit else "FAILED at"
        unit = "picture(s)" if unfit else "point(s)"
        yield f"- {codec} {what} {count} {unit}: {reason}"


def text(results, *, anchor="jpeg420", low=None, high=None, ratio=None):
    """The whole report as markdown."""
    made = results["made"]
    count = len(results["pictures"])
    megapixels = sum(p["width"] * p["height"] / 1e6 for p in results["pictures"])
    within = "" if low is None else f", PSNR from {low:g} to {high:g} dB"
    parts = [
        f"## {results['folder']}: {count} pictures, {megapixels:.1f} MP",
        f"Measured {made['date']} on {made['cpu']}.",
    ]
    if anchor in measured(results):
        parts += [
            f"Mean BD-rate in % against {anchor}{within} (negative: smaller files):",
            bd_table(results, anchor, low, high),
        ]
        if low is not None:
            parts += [
                f"Worst pictures against {anchor} in PSNR, {low:g} to {high:g} dB, in %:",
                worst_table(results, anchor, low, high),
            ]
    for metric in metrics_of(results):
        parts += [
            f"Mean BD-rate in % by {label(results, metric)}, row against column:",
            pair_table(results, metric, low, high),
        ]
    if ratio:
        parts += [
            f"PSNR in dB at {ratio:g} times smaller than the raw pixels (–: outside the curve):",
            ratio_table(results, ratio),
        ]
    if results["speed"]:
        names = ", ".join(results["speed_pictures"])
        parts += [f"Speed, one thread, in one run on {names}:", speed_table(results)]
    if results["failures"]:
        parts.append("\n".join(failure_lines(results)))
    codecs = results["codecs"].items()
    parts.append("\n".join(f"- {name}: {c['version']}; {c['settings']}" for name, c in codecs))
    return "\n\n".join(parts)


def load_results(path):
    """Results of a file. ValueError with its name when it holds none."""
    try:
        results = json.loads(Path(path).read_text())
        results["rows"] = [
            dict(zip(results["columns"], row, strict=True)) for row in results["rows"]
        ]
        return results
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no results of bench/run.py ({error})") from error


def save_results(path, results):
    """JSON with one row per line, so that a new measurement reads well as a diff."""
    columns = list(results["rows"][0]) if results["rows"] else []
    lines = []
    for row in results["rows"]:
        values = [round(v, 4) if isinstance(v, float) else v for v in row.values()]
        lines.append(json.dumps(values, ensure_ascii=False))
    head = {k: v for k, v in results.items() if k not in ("rows", "columns")}
    body = json.dumps({**head, "columns": columns}, indent=1, ensure_ascii=False)
    rows = ",\n  ".join(lines)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{body[:-2]},\n "rows": [\n  {rows}\n ]\n}}\n')


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", help="JSON files that bench/run.py wrote")
    add_report_options(parser)
    options = parser.parse_args(argv)
    try:
        check_figure(options, options.results)
        loaded = [load_results(path) for path in options.results]
    except ValueError as error:
        sys.exit(f"bench: {error}")
    for results in loaded:
        finish(results, options)


def check_figure(options, given):
    """ValueError if one figure is to show more than one folder."""
    if options.figure and len(given) > 1:
        raise ValueError("--figure: draws one folder's results")


def add_report_options(parser):
    """Options of what is printed and drawn, shared with bench/run.py."""
    parser.add_argument("--anchor", default="jpeg420", help="codec to compare with (%(default)s)")
    parser.add_argument(
        "--range",
        nargs=2,
        type=float,
        default=(None, None),
        metavar=("LOW", "HIGH"),
        help="dB of PSNR to compare over, e.g. 30 40 (default: all the overlap)",
    )
    parser.add_argument("--ratio", type=float, help="PSNR table at this ratio to the raw pixels")
    parser.add_argument(
        "--headline", action="store_true", help="print only the figures that README.md tells"
    )
    parser.add_argument("--figure", help="draw the curves into this PNG file")


def finish(results, options):
    """Print the report and draw the figure."""
    low, high = options.range
    if options.figure:
        from bench.figure import draw  # matplotlib takes its time

        draw(results, options.figure)
    if options.headline:
        print(headline(results, options.ratio), end="\n\n")
    else:
        print(text(results, anchor=options.anchor, low=low, high=high, ratio=options.ratio))
    if options.figure:
        print(f"\nCurves: {options.figure}")


if __name__ == "__main__":
    main()
