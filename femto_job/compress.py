"""Compress a folder of pictures into .laff archives, on Spark: `femto compress` for spark-submit.

spark-submit femto_job/compress.py                     images/ -> images_out/
spark-submit --master spark://HOST:7077 femto_job/compress.py --input scans --output archive
python3 femto_job/compress.py --ratio 30 --recursive   the same on this machine alone
"""

import sys
from functools import partial

from femto import cli
from femto.cli import compress

main = partial(cli.script, compress, "compress.py")

if __name__ == "__main__":
    sys.exit(main())
