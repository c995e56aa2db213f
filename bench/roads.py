"""Kernels compiled beforehand beside kernels that numba compiles.

    python3 bench/roads.py ../shared/data/kodak/kodim05.png ../shared/data/kodak/kodim23.png

Of each road one process, which codes the pictures on one thread; they take turns on one core, and
the best CPU time of each picture counts. Besides: the CPU seconds of a new process that decodes the
first picture's archive, the start of Python included, where nothing was compiled before.
"""

import argparse
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bench  # noqa: F401  isort: skip  one thread, femto of this checkout
import femto
from bench.measure import load
from bench.report import markdown
from femto.coding import kernels

ROADS = {"library": "", "compiler": "1"}
"""What FEMTO_JIT is for each."""


def serve(pipe, paths: list[Path]) -> None:
    """Say which road this process takes; then answer numbers of pictures with the CPU seconds that
    encoding and decoding them took."""
    if hasattr(os, "sched_setaffinity"):  # what else runs there slows both
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    images = [load(path) for path in paths]
    for image in images:  # all code is loaded
        femto.decode(femto.encode(image[:96, :96].copy()))
    pipe.send(kernels.road().name)
    while (number := pipe.recv()) is not None:
        times = [time.process_time()]
        archive = femto.encode(images[number])
        times.append(time.process_time())
        femto.decode(archive)
        times.append(time.process_time())
        pipe.send((times[1] - times[0], times[2] - times[1]))


def speeds(paths: list[Path], repeats: int) -> dict[str, tuple[float, float]]:
    """Megapixels per CPU second of encoding and decoding on each road."""
    start = multiprocessing.get_context("spawn")
    pipes, best = {}, {road: [[9e9, 9e9] for _ in paths] for road in ROADS}
    for road, wanted in ROADS.items():
        os.environ["FEMTO_JIT"] = wanted
        pipes[road], other = start.Pipe()
        start.Process(target=serve, args=(other, paths), daemon=True).start()
        taken = pipes[road].recv()
        if taken != road:
            sys.exit(f"there is no {road} here: kernels take the road {taken}")
    for turn in range(repeats):
        for number in range(len(paths)):
            for road in sorted(ROADS, reverse=turn % 2 == 1):
                pipes[road].send(number)
                kept = best[road][number]
                kept[:] = map(min, kept, pipes[road].recv())
        print(f"turn {turn + 1} of {repeats}", file=sys.stderr, flush=True)
    for pipe in pipes.values():
        pipe.send(None)
    shapes = [load(path).shape for path in paths]
    megapixels = sum(height * width for height, width, *_ in shapes) / 1e6
    return {
        road: tuple(megapixels / sum(times) for times in zip(*best[road], strict=True))
        for road in ROADS
    }


def first(road: str, archive: Path, library: Path) -> float:
    """CPU seconds of a process in which femto decodes for the first time on this machine."""
    code = "import sys, femto; femto.decode(sys.argv[1])"
    with tempfile.TemporaryDirectory() as cache:
        named = {"FEMTO_JIT": ROADS[road], "FEMTO_CACHE": cache, "FEMTO_LIBRARY": str(library)}
        path = os.pathsep.join(sys.path)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-c", code, archive]
        subprocess.run(command, env=os.environ | named | {"PYTHONPATH": path}, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--repeats", type=int, default=7, help="turns (%(default)s)")
    options = parser.parse_args(argv)
    library = kernels.library()
    if library is None:
        sys.exit("there is no library for this machine: PYTHONPATH=femto_job python -m femto.build")
    found = speeds(options.pictures, options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "first.laff.gz")
        archive.write_bytes(femto.encode(load(options.pictures[0])))
        seconds = {"library": min(first("library", archive, library) for _ in range(3))}
        seconds["compiler"] = first("compiler", archive, library)
    rows = [
        [road, f"{encode:.3f}", f"{decode:.3f}", f"{seconds[road]:.2f}"]
        for road, (encode, decode) in found.items()
    ]
    rows[0][0] = library.name  # which of the processor's levels
    changes = (100 * (a / b - 1) for a, b in zip(*found.values(), strict=True))
    rows.append(["difference", *(f"{change:+.1f} %" for change in changes), ""])
    print(markdown(["", "encode, MP/s", "decode, MP/s", "first decode, CPU s"], rows))


if __name__ == "__main__":
    main()
