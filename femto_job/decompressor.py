#!/usr/bin/env python3
"""Turn femto's archives back into pictures:  python3 femto_job/decompressor.py NAME.laff.gz ...

The same as `femto decompress`. Needs numpy and pillow; no Spark, no Ansible. In a clone, where
nothing is compiled yet, also numba.
"""

import sys
from functools import partial

from femto import cli
from femto.cli import decompress

main = partial(cli.script, decompress, "decompressor.py")

if __name__ == "__main__":
    sys.exit(main())
