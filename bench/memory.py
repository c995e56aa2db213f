"""Peak memory of femto's encoder and decoder over the size of the picture.

    python3 bench/memory.py --megapixels 1 4 16 64

Every measurement is a fresh process that codes a mosaic computed window by window, so that neither
the picture nor its reconstruction is ever in memory: what remains is the codec's own, and the
archive. The peak is the kernel's maximum resident set size of the process (Linux), Python and
femto's compiled code included (the 64 x 64 row shows that floor).
"""

import argparse
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bench  # noqa: F401  one thread, femto of this checkout


class Mosaic:
    """A picture of side x side pixels made of copies of a small one, computed where it is read."""

    def __init__(self, small, side):
        self.small = small
        self.shape = (side, side, *small.shape[2:])
        self.dtype = small.dtype

    def __getitem__(self, window):
        rows, columns = (
            np.arange(*part.indices(self.shape[axis])) % self.small.shape[axis]
            for axis, part in enumerate(window[:2])
        )
        return self.small[np.ix_(rows, columns)]


def texture(side=512, seed=1):
    """A synthetic RGB picture with the falling spectrum of photographs (1/f), uint8."""
    rng = np.random.default_rng(seed)
    fy, fx = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
    fall = 1 / np.maximum(np.hypot(fy, fx), 1 / side)
    planes = [np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) * fall) for _ in range(3)]
    grey, *colour = (plane / plane.std() for plane in planes)
    image = np.stack([grey, grey + 0.25 * colour[0], grey + 0.25 * colour[1]], -1)
    return np.clip(128 + 45 * image, 0, 255).astype(np.uint8)


def peak_bytes():
    """Maximum resident set size of this process so far (Linux).

    Not getrusage's ru_maxrss: a started program inherits that of the process that started it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def child(task, side, archive, small):
    """One measurement in this process, its peak printed. small: .npy file of the small picture."""
    import femto

    small = np.load(small)
    if task == "import":
        femto.decode(femto.encode(small[:64, :64].copy()))
    elif task == "encode":
        Path(archive).write_bytes(femto.encode(Mosaic(small, side)))
    else:
        rows = sum(band.shape[0] for _, band in femto.decode_bands(archive))
        if rows != side:
            raise ValueError(f"decoded {rows} rows of {side}")
    print(peak_bytes())


def measure(task, side, archive, small):
    """Peak bytes of a task in a fresh process. ValueError when it fails."""
    command = [sys.executable, __file__, "--child", task, str(side), str(archive), str(small)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{task} of {side} x {side}: {done.stderr.strip().splitlines()[-1]}")
    return int(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 4, 16])
    parser.add_argument("--picture", help="picture to tile the mosaic with (default: synthetic)")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        task, side, archive, small = options.child
        child(task, int(side), archive, small)
        return
    # Not at the top: the libraries of the other codecs would count in the child's memory.
    from bench.measure import load
    from bench.report import markdown

    rows = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            archive, small = Path(folder) / "mosaic.laff.gz", Path(folder) / "small.npy"
            np.save(small, load(options.picture) if options.picture else texture())
            measure("import", 0, archive, small)  # fills the cache of compiled code
            idle = f"{measure('import', 0, archive, small) / 1e6:.0f}"
            rows.append(["64 x 64", idle, idle, "–", "–"])
            for megapixels in options.megapixels:
                side = round(math.sqrt(megapixels) * 1024)
                encode = measure("encode", side, archive, small)
                decode = measure("decode", side, archive, small)
                rows.append(
                    [
                        f"{side} x {side}",
                        *(f"{peak / 1e6:.0f}" for peak in (encode, decode)),
                        f"{np.prod(Mosaic(np.load(small), side).shape) / 1e6:.0f}",
                        f"{archive.stat().st_size / 1e6:.1f}",
                    ]
                )
    except ValueError as error:
        sys.exit(f"bench: {error}")
    header = ["picture", "encode, peak MB", "decode, peak MB", "raw pixels MB", "archive MB"]
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
