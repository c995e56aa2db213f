"""Compile all of femto for this account, so that no picture has to wait for it.

    python3 warm.py MARKER

Two copies have to be ready: the installed one, which drivers and people's programs import, and the
one that the Spark job unpacks on workers, in the folder where it will look. MARKER is written at
the end.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

COMPILE = """
import itertools
import numpy as np
import femto
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
"""


def compile_in(folder: str | None) -> None:
    """Run all of the codec with femto from `folder`, or as it is installed."""
    environment = dict(os.environ)
    if folder is not None:
        environment["PYTHONPATH"] = folder
    subprocess.run([sys.executable, "-c", COMPILE], env=environment, check=True)


def lend(installed: Path, shipped: Path) -> None:
    """Give the shipped copy what was compiled for the installed one.

    numba keeps compiled code by the path and the time of its source. Should it not take what is
    lent, it compiles again, which costs a minute and nothing else.
    """
    from numba.core.caching import UserProvidedCacheLocator as Locator

    from femto import jit

    for source in shipped.glob("*.py"):
        original = (installed / source.name).stat()
        os.utime(source, ns=(original.st_atime_ns, original.st_mtime_ns))
    compiled = Path(jit._FOLDER, Locator.get_suitable_cache_subpath(str(installed / "jit.py")))
    target = shipped / "__pycache__" / Path(jit._FOLDER).name
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copytree(
        compiled,
        target / Locator.get_suitable_cache_subpath(str(shipped / "jit.py")),
        dirs_exist_ok=True,
    )


def main() -> None:
    import femto
    from femto_spark import session, unpack

    with tempfile.TemporaryDirectory() as folder:
        shipped = unpack.settle(session._zip_packages(Path(folder) / "femto_packages.zip"))
    compile_in(None)
    if shipped is not None:
        lend(Path(femto.__file__).parent, shipped / "femto")
        compile_in(str(shipped))
    Path(sys.argv[1]).touch()


main()
