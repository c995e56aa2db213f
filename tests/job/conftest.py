"""A local SparkContext and a standalone cluster for the tests of the Spark job."""

import os
import sys

import pytest

pytest.importorskip("pyspark")

from job_tools import Cluster


@pytest.fixture(scope="session")
def context():
    """A SparkContext on two local cores, made as compress.py makes it."""
    from femto_spark import session

    before = {k: os.environ.get(k) for k in ("PYSPARK_PYTHON", "SPARK_LOCAL_IP")}
    os.environ |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    spark = session.start("femto tests", overwrite_conf={"spark.master": "local[2]"})
    yield spark
    spark.stop()
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A running standalone cluster with two workers."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def folders(tmp_path):
    """Two folders, and the token by which executors know them."""
    from femto.job.runner import Folders

    made = Folders(str(tmp_path / "in"), str(tmp_path / "out"), "run")
    made.token.parent.mkdir(parents=True)
    made.token.write_text(made.run)
    return made
