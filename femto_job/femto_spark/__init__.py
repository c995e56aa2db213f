"""Spark: jobs of femto on a cluster, and archives as rows of a DataFrame. `femto` itself knows
nothing of it.

session   the Spark context, the packages on every node
unpack    the packages on a worker, kept for the next job
runner    a job's work spread over Spark
learn     learning a basis
source    the data source `laff`
"""

from pathlib import Path as _Path

_here = _Path(__file__).parent
if _here.parent.is_file():  # a zip, on a worker
    from .unpack import settle as _settle

    if (_folder := _settle(_here.parent)) is not None:
        __path__ = [str(_folder / _here.name)]
