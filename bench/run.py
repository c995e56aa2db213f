"""Measure femto beside other codecs on a folder of pictures: rate, distortion, speed.

    python3 bench/run.py FOLDER -o bench/results/NAME.json --figure docs/figures/rd_NAME.png

See bench/README.md for what is measured and how.
"""

import argparse
import datetime
import os
import platform
import sys
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import adapters, measure, metrics, report, speed


def say(line):
    """Progress goes to standard error: standard output is the report."""
    print(line, file=sys.stderr, flush=True)


def cpu_model():
    """Name of the processor, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def machine():
    """When and on what a measurement was made."""
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_model(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="of pictures")
    parser.add_argument(
        "-o", "--output", type=Path, help="JSON file (default: bench/results/FOLDER's name.json)"
    )
    parser.add_argument(
        "--codecs",
        default=",".join(("femto", *adapters.PEERS)),
        help="names with commas, femto[:option=value] among them (default: %(default)s)",
    )
    parser.add_argument("--metrics", default=",".join(metrics.GROUPS), help="default: %(default)s")
    parser.add_argument(
        "--qualities",
        action="append",
        default=[],
        metavar="CODEC=Q,Q,…",
        help="other settings for one codec; can be repeated",
    )
    parser.add_argument(
        "--ssimulacra2-points",
        type=int,
        default=5,
        help="settings per codec at which the slow SSIMULACRA2 is measured (%(default)s)",
    )
    parser.add_argument(
        "--speed-pictures",
        type=int,
        default=3,
        help="measure speed on the first so many pictures, 0: not at all (%(default)s)",
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes (%(default)s)")
    parser.add_argument("--fresh", default="", help="codecs whose cached points are measured again")
    report.add_report_options(parser)
    return parser.parse_args(argv)


def chosen_codecs(options):
    """Codecs by --codecs with --qualities and --ratio applied. ValueError on a wrong name."""
    other = {}
    for item in options.qualities:
        name, found, values = item.partition("=")
        if not found:
            raise ValueError(f"--qualities {item}: write CODEC=Q,Q,…")
        numbers = map(float, values.split(","))
        other[name] = tuple(int(q) if q.is_integer() else q for q in numbers)  # libavif wants int
    codecs = []
    for name in _names(options.codecs):
        codec = adapters.get_codec(name)
        codec = replace(codec, qualities=other.pop(name, codec.qualities))
        if options.ratio and isinstance(codec, adapters.Femto):
            codec = replace(codec, qualities=(*codec.qualities, f"ratio={options.ratio:g}"))
        codecs.append(codec)
    if other:
        raise ValueError(f"--qualities {next(iter(other))}: not among --codecs")
    return codecs


def _names(text):
    """Names between commas; a comma inside femto's options belongs to them."""
    names = []
    for item in filter(None, text.split(",")):
        if names and ":" in names[-1] and "=" in item and ":" not in item:
            names[-1] += f",{item}"
        else:
            names.append(item)
    return names


def name_of(folder):
    """A folder's name in reports; what is only a part of a set has the set's before it."""
    folder = folder.resolve()
    part = folder.name in ("train", "test")
    return f"{folder.parent.name}-{folder.name}" if part else folder.name


def run(options, folder):
    """Measure one folder; the results."""
    codecs = chosen_codecs(options)
    groups = _names(options.metrics)
    if unknown := set(groups) - set(metrics.GROUPS):
        raise ValueError(f"--metrics {unknown.pop()}: use {', '.join(metrics.GROUPS)}")
    pictures, unread = measure.find(folder)
    for reason in unread:
        say(f"bench: {reason}; left out")
    rows, failures = measure.measure(
        pictures,
        codecs,
        groups,
        slow_points=options.ssimulacra2_points,
        jobs=options.jobs,
        fresh=_names(options.fresh),
        say=say,
    )
    timed = pictures[: options.speed_pictures]
    speeds, more = speed.measure_speed(timed, codecs, say=say)
    failures += [failure for failure in more if failure not in failures]
    return {
        "folder": name_of(folder),
        "made": machine(),
        "codecs": {
            codec.name: {"version": codec.version, "settings": codec.settings} for codec in codecs
        },
        "metrics": [metrics.cache_key(group) for group in groups],
        "pictures": [
            {k: v for k, v in asdict(picture).items() if k != "path"} for picture in pictures
        ],
        "speed_pictures": [picture.name for picture in timed],
        "speed": {
            name: {k: round(v, 3) if isinstance(v, float) else v for k, v in values.items()}
            for name, values in speeds.items()
        },
        "failures": [
            dict(zip(("codec", "picture", "quality", "reason"), failure, strict=True))
            for failure in failures
        ],
        "rows": rows,
    }


def main(argv=None):
    options = parse(argv)
    failed = False
    try:
        report.check_figure(options, options.folders)
        if options.output and len(options.folders) > 1:
            raise ValueError("-o: of several folders each has a file of its own")
        for folder in options.folders:
            results = run(options, folder)
            output = options.output
            if output is None:
                output = Path(__file__).parent / "results" / f"{results['folder']}.json"
            report.save_results(output, results)
            report.finish(results, options)
            print(f"\nResults: {output}\n")
            failed |= any(failure["quality"] is not None for failure in results["failures"])
    except (ValueError, ImportError) as error:
        sys.exit(f"bench: {error}")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
