"""python3 -m femto features."""

import json
import sys

import numpy as np
import pytest

import femto
from femto import __main__ as command

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402


@pytest.fixture
def folder(tmp_path):
    here = tmp_path / "archives"
    (here / "sub").mkdir(parents=True)
    random = np.random.default_rng(1)
    for name, shape in (("b.laff.gz", (20, 30)), ("a é.laff.gz", (33, 40, 3))):
        (here / name).write_bytes(femto.encode(random.integers(0, 255, shape).astype(np.uint8)))
    deep = random.integers(0, 65535, (16, 16)).astype(np.uint16)
    (here / "sub" / "c.laff.gz").write_bytes(femto.encode(deep))
    (here / "notes.txt").write_text("no archive")
    (here / ".femto-job").mkdir()
    (here / ".femto-job" / "x.laff.gz").write_text("a record, no archive")
    return here


def test_one_row_per_archive(folder, tmp_path, capsys):
    output = tmp_path / "features.parquet"
    assert command.main(["features", str(folder), "-o", str(output), "--grid", "2"]) == 0
    table = parquet.read_table(output)
    rows = table.to_pylist()
    assert [r["path"] for r in rows] == ["a é.laff.gz", "b.laff.gz", "sub/c.laff.gz"]
    assert [(r["width"], r["height"], r["bits"]) for r in rows] == [
        (40, 33, 8),
        (30, 20, 8),
        (16, 16, 16),
    ]
    about = json.loads(table.schema.metadata[b"femto"])
    assert about["components"] == 1
    assert len(about["names"]) == table.schema.field("features").type.list_size
    for row in rows:
        path = folder / row["path"]
        assert row["bytes"] == path.stat().st_size
        assert (np.float32(row["features"]) == femto.features(path).vector(2)).all()
    assert "3 archives" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["features.parquet"]


def test_bad_archives_are_named_and_the_rest_is_written(folder, tmp_path, capsys):
    (folder / "bad.laff.gz").write_bytes(b"\x1f\x8bnothing")
    (folder / "empty.laff.gz").touch()
    output = tmp_path / "features.parquet"
    assert command.main(["features", str(folder), "-o", str(output), "--colour"]) == 1
    said = capsys.readouterr()
    assert "bad.laff.gz" in said.err and "empty.laff.gz" in said.err
    assert len(said.err.splitlines()) == 2
    assert "3 archives, 2 could not be read" in said.out
    assert parquet.read_table(output).num_rows == 3


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["nowhere", "-o", "x.parquet"], "no such folder"),
        (["empty", "-o", "x.parquet"], "no archives"),
        (["archives", "-o", "nowhere/x.parquet"], "cannot be written"),
        (["archives", "-o", "x.parquet", "--components", "0"], "1 to 64"),
        (["archives", "-o", "x.parquet", "--grid", "0"], "1 to 64"),
        (["archives", "-o", "x.parquet", "--basis", "no.basis"], "no such basis file"),
    ],
)
def test_wrong_arguments_are_one_line(folder, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert command.main(["features", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1
    assert not (tmp_path / "x.parquet").exists()


def test_archives_of_a_basis_of_ones_own(tmp_path, own_basis, own_archive, capsys):
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "own.laff.gz").write_bytes(own_archive)
    arguments = ["features", str(tmp_path / "archives"), "-o", str(tmp_path / "x.parquet")]
    assert command.main(arguments) == 1
    assert "needs the basis 'own'" in capsys.readouterr().err
    assert command.main([*arguments, "--basis", str(own_basis)]) == 0
    row = parquet.read_table(tmp_path / "x.parquet").to_pylist()[0]
    expected = femto.features(own_archive, basis=own_basis).vector()
    assert (np.float32(row["features"]) == expected).all()


def test_without_pyarrow_it_says_what_to_install(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert command.main(["features", str(folder), "-o", str(tmp_path / "x.parquet")]) == 2
    error = capsys.readouterr().err
    assert "pip install pyarrow" in error and len(error.splitlines()) == 1
