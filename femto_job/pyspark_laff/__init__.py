"""Spark data source `laff`: a folder of archives as a DataFrame, one row per archive.

    spark.read.format("laff").option("features", "true").load("images_out")

Spark 4 registers by itself what a package named `pyspark_…` offers as `DefaultSource`, if the
package can be imported; see `femto_spark.source` for columns and options.
"""

from femto_spark.source import LaffDataSource as DefaultSource

__all__ = ["DefaultSource"]
