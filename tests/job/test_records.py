"""Files that are whole or absent, and what an output folder remembers."""

import itertools
import json
import os

import pytest

from femto.errors import JobError
from femto.files.whole import write_whole
from femto.job import records
from femto.job.records import Records, Rows, append_record


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    target = tmp_path / "sub" / "a"
    seen = []
    write_whole(target, b"new", before_rename=lambda _: seen.append(target.exists()))
    assert seen == [False]
    assert target.read_bytes() == b"new"
    assert [p.name for p in target.parent.iterdir()] == ["a"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a"
    target.write_bytes(b"old")

    def fail(_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_whole(target, b"new", before_rename=fail)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert target.read_bytes() == b"old"


def record(archive: str, picture: str = "p", folder: str = "/in", **facts) -> dict:
    return {"archive": archive, "picture": picture, "input": folder, **facts}


def test_records_survive_and_the_newest_counts(tmp_path):
    with Records(tmp_path):
        append_record(tmp_path, record("a", n=1))
    with Records(tmp_path) as held:
        assert list(held) == [record("a", n=1)]
        append_record(tmp_path, record("a", n=2))
        append_record(tmp_path, record("b", n=3))
    with Records(tmp_path) as held:
        assert {r["archive"]: r["n"] for r in held} == {"a": 2, "b": 3}
    assert not list((tmp_path / records.STATE_FOLDER).glob("journal-*"))


def test_a_record_is_found_by_what_it_was_made_of_and_by_its_name(tmp_path):
    odd = os.fsdecode(b"\xff.png")
    with Records(tmp_path):
        for one in (record("A", "x"), record("A.2", "x"), record("b", odd), record("c", "x", "/2")):
            append_record(tmp_path, one)
    with Records(tmp_path) as held:
        assert [r["archive"] for r in held.of("/in", "x")] == ["A", "A.2"]
        assert [r["archive"] for r in held.of("/in", odd)] == ["b"]
        assert held.get("a") == held.get("A") == record("A", "x")
        assert held.get("d") is None
        assert held.inputs() == ["/2", "/in"]
        assert held.move("/in", "/new") == 3 and held.move("/in", "/new") == 0
        assert held.get("A") == record("A", "x", "/new")
        assert held.of("/new", odd) == [record("b", odd, "/new")]
        held.note("begun", [1, "x"])
    with Records(tmp_path) as held:
        assert held.noted("begun") == [1, "x"]
        held.note("begun")
        assert held.noted("begun") is None


def test_records_that_are_damaged_are_told(tmp_path):
    with Records(tmp_path):
        pass
    (tmp_path / records.STATE_FOLDER / "records.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(JobError, match=r"records\.sqlite: cannot be used .*remove this file"):
        Records(tmp_path).__enter__()
    (tmp_path / records.STATE_FOLDER / "records.sqlite").unlink()
    with Records(tmp_path) as held:
        assert list(held) == []


def test_rows_are_on_disk_in_order_and_as_often_as_one_likes(tmp_path):
    rows = Rows(tmp_path)
    names = [os.fsdecode(b"\xfe.png"), "b.png", "ä.png", "a.png"]
    for name, page in itertools.product(names, (11, 2)):
        rows.append({"picture": name, "page": page, "status": "failed" if page == 2 else "done"})
    expected = [(n, p) for n in ("a.png", "b.png", "ä.png", names[0]) for p in (2, 11)]
    for _ in range(2):
        assert [(r["picture"], r["page"]) for r in rows] == expected
    for i in range(3000):
        rows.append({"picture": "c", "page": i % 7, "status": "done"})
    assert sum(1 for _ in rows) == 3008 and dict(rows.counts) == {"done": 3004, "failed": 4}
    assert list(tmp_path.glob("run-rows-*"))
    del rows
    assert not list(tmp_path.glob("run-rows-*"))


def test_a_line_cut_short_is_passed_over(tmp_path):
    with Records(tmp_path):
        append_record(tmp_path, record("a"))
    (journal,) = (tmp_path / records.STATE_FOLDER).glob("journal-*.jsonl")
    journal.write_bytes(journal.read_bytes() + json.dumps(record("b")).encode()[:-3])
    with Records(tmp_path) as held:
        assert [r["archive"] for r in held] == ["a"]


def test_two_jobs_do_not_share_an_output(tmp_path):
    with Records(tmp_path), pytest.raises(JobError, match="another job"), Records(tmp_path):
        pass


def test_what_killed_processes_left_is_removed(tmp_path):
    (tmp_path / "sub").mkdir()
    left = tmp_path / "sub" / ".femto-0123.part"
    mine = tmp_path / "notes.part"
    left.touch()
    mine.touch()
    with Records(tmp_path):
        pass
    assert not left.exists()
    assert mine.exists()
