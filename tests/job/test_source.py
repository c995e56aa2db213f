"""The Spark data source `laff`, on local Spark and on a standalone cluster."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from claims import GIGAPIXEL, claiming
from job_tools import HANGS, JOB, environment, picture
from pyspark.ml.classification import LogisticRegression
from pyspark.sql import SparkSession

import femto
from femto import samples
from femto_spark import source
from pyspark_laff import DefaultSource


@pytest.fixture(scope="module")
def spark(context):
    session = SparkSession(context)
    session.dataSource.register(DefaultSource)
    return session


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Grey, colour, 16 bit and broken archives, some in a sub-folder, one in a hidden one."""
    here = tmp_path_factory.mktemp("archives")
    for name in ("sub", ".femto-job"):
        (here / name).mkdir()
    (here / "grey.laff.gz").write_bytes(femto.encode(picture(40, 50, 1, channels=1)))
    (here / "colour é.laff.gz").write_bytes(femto.encode(picture(33, 70, 2)))
    deep = picture(24, 24, 3, channels=1).astype(np.uint16) * 256
    (here / "sub" / "deep.laff.gz").write_bytes(femto.encode(deep))
    (here / "broken.laff.gz").write_bytes(b"\x1f\x8b nothing")
    (here / "notes.txt").write_text("no archive")
    (here / ".femto-job" / "x.laff.gz").write_text("a record")
    return here


def read(spark, folder, schema=None, **options):
    reader = spark.read.format("laff").options(**options)
    return (reader.schema(schema) if schema else reader).load(str(folder))


def by_name(rows):
    return {row.path.rsplit("/", 1)[1]: row for row in rows}


def test_one_row_per_archive_without_features(spark, folder):
    frame = read(spark, folder, recursiveFileLookup="true")
    assert frame.columns == ["path", "width", "height", "bits", "bytes", "error"]
    rows = by_name(frame.collect())
    assert set(rows) == {"grey.laff.gz", "colour é.laff.gz", "deep.laff.gz", "broken.laff.gz"}
    deep = rows["deep.laff.gz"]
    assert (deep.width, deep.height, deep.bits, deep.error) == (24, 24, 16, None)
    for name, row in rows.items():
        assert row.bytes == (folder / row.path).stat().st_size, name
    broken = rows["broken.laff.gz"]
    assert broken.width is None and "broken.laff.gz" in broken.error


def test_sub_folders_only_when_asked_for(spark, folder):
    assert "deep.laff.gz" not in by_name(read(spark, folder).collect())


@pytest.mark.parametrize("colour", [False, True])
def test_features_are_vectors_for_ml(spark, folder, colour):
    options = {"features": "true", "components": "3", "grid": "2", "colour": str(colour).lower()}
    rows = by_name(read(spark, folder, recursiveFileLookup="true", **options).collect())
    for name, row in rows.items():
        if name == "broken.laff.gz":
            assert row.features is None
            continue
        expected = femto.features(row.path, components=3).vector(2, colour=colour)
        assert (np.float32(row.features.toArray()) == expected).all()


def test_a_model_is_fitted_on_them(spark, tmp_path):
    for i in range(8):
        noise = np.random.default_rng(i).normal(0, 40 if i % 2 else 1, (32, 32))
        pixels = np.clip(128 + noise, 0, 255).astype(np.uint8)
        (tmp_path / f"{i}.laff.gz").write_bytes(femto.encode(pixels))
    frame = read(spark, tmp_path, features="true", grid="1", filesPerPartition="3")
    assert frame.rdd.getNumPartitions() == 3
    labelled = frame.selectExpr("features", "double(split(path, '/')[size(split(path, '/')) - 1]"
                                " rlike '^[1357]') as label")  # fmt: skip
    model = LogisticRegression(maxIter=5, regParam=0.1).fit(labelled)
    found = model.transform(labelled).select("label", "prediction").collect()
    assert all(row.label == row.prediction for row in found)


def test_pictures_in_the_schema_of_pyspark(spark, folder):
    rows = by_name(read(spark, folder, image="true", recursiveFileLookup="true").collect())
    for name, channels in (("grey.laff.gz", 1), ("colour é.laff.gz", 3), ("deep.laff.gz", 1)):
        image, pixels = rows[name].image, femto.decode(rows[name].path)
        if pixels.dtype == np.uint16:
            levels = femto.parse(rows[name].path).header.levels
            # The sixteen bits of this picture are few of their levels, a multiple of 256 each.
            assert levels.high - levels.low < 60000
            pixels = samples.to_bytes(pixels, levels)
        found = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, -1)
        assert image.nChannels == channels and image.origin == rows[name].path
        assert (found[..., ::-1] == pixels.reshape(found.shape)).all()
    from pyspark.ml.image import ImageSchema

    assert ImageSchema.imageSchema["image"].dataType.fieldNames() == source.IMAGE.fieldNames()
    assert [f.dataType for f in ImageSchema.imageSchema["image"].dataType] == [
        f.dataType for f in source.IMAGE
    ]
    assert rows["grey.laff.gz"].image.mode == ImageSchema.ocvTypes["CV_8UC1"]
    assert rows["colour é.laff.gz"].image.mode == ImageSchema.ocvTypes["CV_8UC3"]


def test_a_schema_of_ones_own_prunes_columns(spark, folder):
    rows = read(spark, folder, "bits int, features array<float>", components="1").collect()
    assert sorted(len(r.features) for r in rows if r.features) == [16 * 11 + 48 + 34] * 2
    # The broken archive is no error where nothing of it is read.
    named = read(spark, folder, "path string, bytes bigint", mode="FAILFAST").collect()
    assert len(named) == 3


def test_no_features_are_computed_unless_asked_for(folder, monkeypatch):
    read = []
    monkeypatch.setattr(femto, "features", lambda path, **_: read.append(path), raising=False)
    monkeypatch.setattr(femto, "decode", lambda path, **_: read.append(path), raising=False)
    plain = DefaultSource({"path": str(folder)})
    reader = plain.reader(plain.schema())
    (partition,) = reader.partitions()
    assert len(list(reader.read(partition))) == 3
    assert read == []
    asked = DefaultSource({"path": str(folder), "features": "true"})
    reader = asked.reader(asked.schema())
    list(reader.read(partition))
    assert sorted(read) == sorted(partition.value)


FAULTS = {
    "claims.laff.gz": "1073741824 pixels",
    "empty.laff.gz": "empty",
    "evil.laff.gz": "not a plain one",
    "gone.laff.gz": "No such file",
    "memory.laff.gz": "more memory",
    "odd.laff.gz": "KeyError",
    "unreadable.laff.gz": "Input/output error",
}


@pytest.mark.parametrize("mode", ["PERMISSIVE", "DROPMALFORMED", "FAILFAST"])
def test_every_fault_of_an_archive_is_a_row(mode, tmp_path, monkeypatch):
    """Also those that are no LaffError; as Spark's own sources do, FAILFAST raises instead."""
    good = femto.encode(picture(20, 30, 1))
    for name in ("good.laff.gz", *FAULTS):
        (tmp_path / name).write_bytes(good)
    (tmp_path / "claims.laff.gz").write_bytes(claiming(*GIGAPIXEL))
    (tmp_path / "empty.laff.gz").write_bytes(b"")
    (tmp_path / "evil.laff.gz").write_bytes(claiming(8, 8, basis_name="../../evil"))
    raised = {
        "memory.laff.gz": MemoryError("Unable to allocate 9 GiB"),
        "odd.laff.gz": KeyError("odd"),
        "unreadable.laff.gz": OSError(5, "Input/output error"),
    }

    def decode(parsed, real=femto.decode, **options):
        error = raised.get(Path(parsed.name).name)
        if error is not None:
            raise error
        return real(parsed, **options)

    monkeypatch.setattr(femto, "decode", decode, raising=False)
    asked = DefaultSource({"path": str(tmp_path), "image": "true", "mode": mode})
    reader = asked.reader(asked.schema())
    (partition,) = reader.partitions()
    (tmp_path / "gone.laff.gz").unlink()
    if mode == "FAILFAST":
        for path in partition.value:
            if not path.endswith("good.laff.gz"):
                words = FAULTS[Path(path).name]
                with pytest.raises(femto.LaffError, match=f"{Path(path).name}.*{words}.*FAILFAST"):
                    list(reader.read(source._Files([path])))
        return
    names = [field.name for field in asked.schema().fields]
    rows = {Path(r["path"]).name: r for r in (dict(zip(names, row, strict=True))
                                              for row in reader.read(partition))}  # fmt: skip
    assert rows.pop("good.laff.gz")["error"] is None
    assert set(rows) == (set(FAULTS) if mode == "PERMISSIVE" else set())
    for name, row in rows.items():
        assert FAULTS[name] in row["error"] and name in row["error"], row
        assert row["error"].isprintable()
        assert row["image"] is row["width"] is None
        assert (row["bytes"] is None) == (name == "gone.laff.gz")


def test_pictures_have_the_limit_of_the_option(tmp_path):
    (tmp_path / "a.laff.gz").write_bytes(femto.encode(picture(20, 30, 1)))
    for most, refused in (("599", True), ("600", False), ("0", False)):
        for what in ("image", "features"):
            asked = DefaultSource({"path": str(tmp_path), what: "true", "maxPixels": most})
            reader = asked.reader(asked.schema())
            (row,) = reader.read(*reader.partitions())
            assert ("600 pixels" in str(row[5])) == refused


def test_archives_that_cannot_be_read(spark, folder):
    assert "broken.laff.gz" not in by_name(read(spark, folder, mode="dropMalformed").collect())
    with pytest.raises(Exception, match=r"broken\.laff\.gz.*FAILFAST"):
        read(spark, folder, mode="FAILFAST").collect()


def test_archives_of_a_basis_of_ones_own(spark, tmp_path, own_basis, own_archive):
    (tmp_path / "own.laff.gz").write_bytes(own_archive)
    wanted = {"features": "true", "image": "true"}
    assert "needs the basis 'own'" in read(spark, tmp_path, **wanted).collect()[0].error
    for given in (str(own_basis), own_basis.as_uri()):
        row = read(spark, tmp_path, basis=given, **wanted).collect()[0]
        expected = femto.features(own_archive, basis=own_basis).vector()
        assert (np.float32(row.features.toArray()) == expected).all()
        pixels = femto.decode(own_archive, basis=own_basis)
        assert row.image.data == pixels.tobytes()


@pytest.mark.parametrize(
    "options, schema, words",
    [
        ({"mode": "LAX"}, None, "PERMISSIVE"),
        ({"features": "yes"}, None, "true or false"),
        ({"components": "0"}, None, "1 to 64"),
        ({"grid": "two"}, None, "whole number"),
        ({"feature": "true"}, None, "no option"),
        ({"filesPerPartition": "0"}, None, "at least 1"),
        ({"basis": "no.basis"}, None, "no such basis file"),
        ({}, "path string, size int", "no column 'size'"),
        ({}, "path int", "no column 'path' of type int"),
    ],
)
def test_wrong_options_are_told(spark, folder, options, schema, words):
    with pytest.raises(Exception, match=words):
        read(spark, folder, schema, **options).collect()


def test_folders_that_are_not_there(spark, folder, tmp_path):
    with pytest.raises(Exception, match="no such file or folder"):
        read(spark, tmp_path / "none").collect()
    with pytest.raises(Exception, match="only files"):
        read(spark, "s3a://bucket/archives").collect()
    assert read(spark, tmp_path).collect() == []
    uri = (folder / "grey.laff.gz").as_uri()
    assert len(spark.read.format("laff").load([uri, str(folder)]).collect()) == 4


SCRIPT = """
import sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
frame = spark.read.format("laff").option("features", "true").option("filesPerPartition", "1")
rows = frame.load(sys.argv[1]).collect()
import json
print(json.dumps({r.path: r.features and list(r.features.toArray()) for r in rows}))
"""


@pytest.mark.parametrize("where", [pytest.param("local", marks=pytest.mark.slow), "cluster"])
def test_it_registers_by_itself(where, folder, tmp_path, request):
    """With the packages installed, which PYTHONPATH stands for here, nothing is to be set up."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    if where == "cluster":
        running = request.getfixturevalue("cluster")
        master, env = running.url, running.env
    else:
        master, env = "local[1]", environment()
    env = env | {"PYTHONPATH": str(JOB)}
    settings = {
        "spark.master": master,
        "spark.executorEnv.PYTHONPATH": str(JOB),
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.executor.memory": "512m",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pyspark.find_spark_home"],
        capture_output=True, text=True, check=True, env=env,
    )  # fmt: skip
    submit = f"{done.stdout.strip()}/bin/spark-submit"
    pairs = [x for k, v in settings.items() for x in ("--conf", f"{k}={v}")]
    done = subprocess.run(
        [submit, *pairs, script, folder],
        capture_output=True, text=True, timeout=HANGS, env=env, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(found) == 3
    for path, vector in found.items():
        if "broken" in path:
            assert vector is None
        else:
            assert (np.float32(vector) == femto.features(path).vector()).all()
