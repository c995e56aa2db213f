"""Restore a folder of .laff archives to pictures, on Spark: the way back from compress.py.

spark-submit femto_job/restore.py --input archive --output pictures
spark-submit --master spark://HOST:7077 femto_job/restore.py --input archive --output pictures
python3 femto_job/restore.py --recursive --format tiff   the same on this machine alone
"""

import sys
from functools import partial

from femto import cli
from femto.cli import restore

main = partial(cli.script, restore, "restore.py")

if __name__ == "__main__":
    sys.exit(main())
