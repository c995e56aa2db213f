"""Compile all of femto for this account, so that no picture has to wait for it.

    python3 warm.py MARKER

Compiled is the copy that the Spark job unpacks on workers, in the folder where the job will look
for it. At the end that folder's path is written to MARKER: femto-compress uses it for drivers too.
"""

import os
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


def main() -> None:
    from femto_spark import session, unpack

    with tempfile.TemporaryDirectory() as folder:
        shipped = unpack.settle(session._zip_packages(Path(folder) / "femto_packages.zip"))
    environment = os.environ | {"PYTHONPATH": str(shipped)}
    subprocess.run([sys.executable, "-c", COMPILE], env=environment, check=True)
    Path(sys.argv[1]).write_text(f"{shipped}\n")


main()
