"""Compile all of femto for this account, so that no picture has to wait for it.

    python warm.py MARKER

Run with the Python of an environment. What is compiled is kept in this account's cache, and once
more in the copy of femto that the Spark job unpacks on workers, which has a folder of its own.
Writes MARKER last: the names, in the cache of femto, of both.
"""

import itertools
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

import femto
from femto.coding import kernels
from femto_spark import session, unpack


def use_everything() -> None:
    """Encode and decode pictures of every kind, which compiles whatever that takes."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[:96, :144]
    for kind, depth in itertools.product(((), (3,)), (np.uint8, np.uint16)):
        top = np.iinfo(depth).max
        shade = (0.5 + 0.4 * np.sin(x / 9) * np.cos(y / 7)).reshape(96, 144, *(1 for _ in kind))
        noise = random.normal(0, 0.03, (96, 144, *kind))
        picture = (np.clip(shade + noise, 0, 1) * top).astype(depth)
        picture[:40, :40] = top
        for target in ({"quality": 30}, {"quality": 95}, {"ratio": 8}):
            archive = femto.encode(picture, **target)
            femto.decode(archive)
            femto.decode(archive, fraction=0.5)


def main() -> None:
    marker, compiled = Path(sys.argv[1]), kernels.cache_folder()
    with tempfile.TemporaryDirectory() as folder:
        shipped = unpack.settle(session._zip_packages(Path(folder) / "femto_packages.zip"))
    if shipped is None:
        sys.exit(f"{compiled.parent} cannot be written to")
    use_everything()
    copy = shipped / "femto/__pycache__"
    copy.mkdir(mode=0o700, exist_ok=True)
    shutil.copytree(compiled, copy / compiled.name, dirs_exist_ok=True)
    marker.write_text(f"{compiled.name}\n{shipped.name}\n")


main()
