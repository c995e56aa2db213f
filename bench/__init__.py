"""Side-by-side measurements of femto and of other picture codecs; see bench/README.md."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# femto is measured as it lies in this checkout, never an installed copy of another version.
sys.path.insert(0, str(ROOT / "femto_job"))

# One thread for every library, set before any of them starts its pool.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
