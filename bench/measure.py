"""Rate and distortion of codecs on pictures, with a cache of finished measurements.

A measurement depends on the picture's pixels, the codec (library version and settings), the quality
and the metric, and on nothing else: so it is kept for good under $XDG_CACHE_HOME/femto-bench, one
JSON file per picture, and the slow peers are paid for once.
"""

import concurrent.futures
import hashlib
import json
import math
import os
import tempfile
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import adapters, metrics  # before femto: bench says which femto it is
from femto.pictures import EXTENSIONS, open_page


@dataclass(frozen=True)
class Picture:
    """A picture file of the measured folder and what its pixels are."""

    path: Path
    name: str
    height: int
    width: int
    channels: int
    bits: int
    sha256: str

    @property
    def megapixels(self):
        return self.height * self.width / 1e6


def load(path):
    """Pixels of a picture file as femto codes them: (h, w) or (h, w, 3), uint8 or uint16.

    The first page of a file with several. femto.LaffError (a ValueError) names an unreadable file.
    """
    with open_page(path) as reader:
        return np.ascontiguousarray(reader[0 : reader.shape[0], 0 : reader.shape[1]])


def describe(path):
    """The Picture of a file; its hash is that of the pixels, so a renamed file stays cached."""
    image = load(path)
    digest = hashlib.sha256(f"{image.shape} {image.dtype}".encode() + image.tobytes()).hexdigest()
    channels = 1 if image.ndim == 2 else 3
    bits = image.dtype.itemsize * 8
    return Picture(path, path.name, image.shape[0], image.shape[1], channels, bits, digest)


def find(folder):
    """Pictures of a folder in order of name, and the reasons why others cannot be read."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    pictures, failures = [], []
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS):
        try:
            pictures.append(describe(path))
        except ValueError as error:
            failures.append(str(error))
    if not pictures:
        raise ValueError(f"{folder}: no readable picture in it")
    return pictures, failures


def cache_folder():
    """$XDG_CACHE_HOME/femto-bench, ~/.cache/femto-bench without that variable."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "femto-bench"


def quality_key(quality):
    """The quality as a cache key, the same for 30 and 30.0."""
    return quality if isinstance(quality, str) else f"{quality:g}"


class Cache:
    """Measurements of one picture: {codec key: {quality: {"nbytes": …, metric group key: {…}}}}."""

    def __init__(self, picture, folder=None):
        self.path = (folder or cache_folder()) / f"{picture.sha256[:32]}.json"
        self.points = self._read()
        self.changed = set()

    def _read(self):
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def add(self, codec, quality, point, *, replace=False):
        """Keep a measurement; further metrics of a known point join it unless `replace`."""
        points = self.points.setdefault(codec.key(), {})
        old = {} if replace else points.get(quality_key(quality), {})
        points[quality_key(quality)] = {**old, **point}
        self.changed.add((codec.key(), quality_key(quality)))

    def save(self):
        """Add what is new to the file, where another run may have added points since.

        Written under a temporary name first: an interrupted run leaves the old file whole.
        """
        points = self._read()
        for codec, quality in self.changed:
            points.setdefault(codec, {})[quality] = self.points[codec][quality]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self.path.parent, delete=False) as file:
            json.dump(points, file)
        os.replace(file.name, self.path)


def measure_point(codec, image, quality, groups):
    """Bytes and metrics of one picture at one quality: {"nbytes": …, metric group key: {…}}."""
    data = codec.encode(image, quality)
    decoded = codec.decode(data)
    if image.ndim == 2 and decoded.ndim == 3:
        decoded = decoded[..., 1]  # green: a codec without a grey mode gave RGB back
    if decoded.shape != image.shape or decoded.dtype != image.dtype:
        raise ValueError(f"decoded {decoded.dtype}{decoded.shape}, not {image.dtype}{image.shape}")
    point = {"nbytes": len(data)}
    for group in groups:
        point[metrics.cache_key(group)] = metrics.GROUPS[group](image, decoded)
    return point


def measure_missing(codec, path, wanted):
    """Measure [(quality, metric groups), …]: [(quality, point or None, error or None), …].

    Runs in a worker process. An error is the codec's own and ends only its point. A picture that
    the codec is not made for gives a single result, its quality None.
    """
    image = load(path)
    try:
        codec.check(image)
    except adapters.NotSupported as reason:
        return [(None, None, str(reason))]
    results = []
    for quality, groups in wanted:
        try:
            results.append((quality, measure_point(codec, image, quality, groups), None))
        except Exception as error:  # a codec may raise anything; the other points stay
            results.append((quality, None, f"{type(error).__name__}: {error}".splitlines()[0]))
    return results


def spread(qualities, count):
    """`count` of the qualities, evenly over the list, both ends included."""
    if count >= len(qualities):
        return list(qualities)
    return [qualities[round(i * (len(qualities) - 1) / (count - 1))] for i in range(count)]


def row(picture, codec, quality, point, groups):
    """A line of the results: rate and every metric of the groups (None where not measured)."""
    values = {
        "codec": codec.name,
        "picture": picture.name,
        "quality": quality,
        "bpp": 8 * point["nbytes"] / (picture.height * picture.width),
        "nbytes": point["nbytes"],
    }
    for group in groups:
        measured = point.get(metrics.cache_key(group), {})
        for name in metrics.NAMES[group]:
            value = measured.get(name)
            values[name] = value if value is None or math.isfinite(value) else None
    return values


def _missing(codec, known, groups, slow_points):
    """[(quality, metric groups), …] of a codec that are not among the known points."""
    slow = spread([q for q in codec.qualities if not isinstance(q, str)], slow_points)
    wanted = []
    for quality in codec.qualities:
        have = known.get(quality_key(quality), {})
        missing = [
            group
            for group in groups
            if metrics.cache_key(group) not in have and (group != "ssimulacra2" or quality in slow)
        ]
        if missing or "nbytes" not in have:
            wanted.append((quality, missing))
    return wanted


class _Workers:
    """A pool of processes that survives a codec which kills its process."""

    def __init__(self, jobs):
        self.jobs = jobs
        self.pool = concurrent.futures.ProcessPoolExecutor(jobs)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.pool.shutdown(cancel_futures=True)

    def run(self, tasks):
        """Yield (task, results of measure_missing) as they are done."""
        running = {self.pool.submit(measure_missing, *task): task for task in tasks}
        lost = []
        for job in concurrent.futures.as_completed(running):
            try:
                yield running[job], job.result()
            except BrokenProcessPool:  # this task or another one killed the process
                lost.append(running[job])
        if lost:
            self.pool = concurrent.futures.ProcessPoolExecutor(self.jobs)
        for task in lost:
            with concurrent.futures.ProcessPoolExecutor(1) as single:
                try:
                    yield task, single.submit(measure_missing, *task).result()
                except BrokenProcessPool:
                    yield task, [(quality, None, "killed its process") for quality, _ in task[2]]


def measure(pictures, codecs, groups, *, slow_points=5, jobs=1, fresh=(), cache=None, say=print):
    """Rows of all codecs on all pictures, and failures as (codec, picture, quality, reason); the
    quality is None where a codec is not made for a picture.

    groups: of metrics.GROUPS. slow_points: SSIMULACRA2, the slow one, is measured at so many of a
    codec's qualities. jobs: processes, one (picture, codec) at a time each. fresh: names of codecs
    whose cached points are measured again. cache: folder.
    """
    rows, failures = [], []
    with _Workers(jobs) as workers:
        for done, picture in enumerate(pictures, 1):
            store = Cache(picture, cache)
            tasks = []
            for codec in codecs:
                known = {} if codec.name in fresh else store.points.get(codec.key(), {})
                wanted = _missing(codec, known, groups, slow_points)
                if wanted:
                    tasks.append((codec, picture.path, wanted))
            failed = set()
            for (codec, _, _), results in workers.run(tasks):
                for quality, point, error in results:
                    if error is None:
                        store.add(codec, quality, point, replace=codec.name in fresh)
                    else:
                        failures.append((codec.name, picture.name, quality, error))
                        failed |= {(codec, q) for q in codec.qualities if quality in (q, None)}
                store.save()
            for codec in codecs:
                for quality in codec.qualities:
                    if (codec, quality) not in failed:
                        point = store.points[codec.key()][quality_key(quality)]
                        rows.append(row(picture, codec, quality, point, groups))
            if tasks:
                say(f"{done}/{len(pictures)} {picture.name}")
    return rows, failures
