"""Compile all of femto for this account, so that no picture has to wait for it.

    python3 warm.py ENVIRONMENT CURRENT MARKER

numba keeps compiled code by the path of its source, and there are three of them: ENVIRONMENT, from
which femto-compress imports; CURRENT, the link to it, which executors and people use; and the copy
that the Spark job unpacks on workers, in the folder where it will look. MARKER is written last.
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


def lend(owner: Path, package: Path, cache: Path) -> None:
    """Give femto in one folder, `package`, what was compiled for the same one in another, `owner`,
    if anything was.

    Should numba not take what it is lent, it compiles again, which costs a minute and nothing else.
    """
    from numba.core.caching import UserProvidedCacheLocator as Locator

    from femto import jit

    compiled = Path(jit._FOLDER, Locator.get_suitable_cache_subpath(str(owner / "jit.py")))
    target = cache / Path(jit._FOLDER).name
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    if compiled.is_dir():
        shutil.copytree(
            compiled,
            target / Locator.get_suitable_cache_subpath(str(package / "jit.py")),
            dirs_exist_ok=True,
        )


def main() -> None:
    from femto import jit
    from femto_spark import session, unpack

    environment, current, marker = map(Path, sys.argv[1:])
    installed = Path(jit.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        shipped = unpack.settle(session._zip_packages(Path(folder) / "femto_packages.zip"))
    linked, cache = current / installed.relative_to(environment), Path(jit._FOLDER).parent
    # The environment before this one may have had the same femto.
    lend(linked, installed, cache)
    compile_in(None)
    lend(installed, linked, cache)
    if shipped is not None:
        # numba also compares the time of the source.
        for source in (shipped / "femto").glob("*.py"):
            original = (installed / source.name).stat()
            os.utime(source, ns=(original.st_atime_ns, original.st_mtime_ns))
        lend(installed, shipped / "femto", shipped / "femto" / "__pycache__")
        compile_in(str(shipped))
    marker.touch()


main()
