"""Learn a basis from the pictures of an archive of one's own, on Spark.

spark-submit femto_job/train.py --input scans --output my.basis
spark-submit femto_job/compress.py --input scans --output archive --basis my.basis
python3 femto_job/decompressor.py archive/*.laff.gz --basis my.basis
"""

import sys
from functools import partial

from femto import cli
from femto.cli import train

main = partial(cli.script, train, "train.py")

if __name__ == "__main__":
    sys.exit(main())
