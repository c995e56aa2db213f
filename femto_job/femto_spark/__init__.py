"""The Spark side of femto: how a folder of pictures is planned, spread over a cluster, compressed
and reported. `femto` itself knows nothing of Spark.

plan      which files are pictures, what their archives are called, how work is cut
catalog   the files and pages of one run, on disk
records   files written whole or not at all, and the memory of what earlier runs did
sandbox   picture files decoded in a process of their own, with limits
measure   PSNR, SSIM, thumbnails and crops
tasks     what runs in an executor
session   the Spark context, the packages on every node
unpack    the packages on a worker, kept for the next job
runner    work spread over Spark: batches, feeding, what kills its process
job       compressing a folder: the driver
restoring restoring a folder: the driver, and what runs in an executor
progress  what is printed while it runs
pulse     how far the processes are
report    report.parquet, report.csv, failures.csv, and page: report.html
summary   what is printed at the end
"""

from pathlib import Path as _Path

_here = _Path(__file__).parent
if _here.parent.is_file():  # a zip, on a worker
    from .unpack import settle as _settle

    if (_folder := _settle(_here.parent)) is not None:
        __path__ = [str(_folder / _here.name)]
