"""Files that are whole or absent, and what an output folder remembers."""

import json

import pytest

from femto_spark import records
from femto_spark.records import JobError, Records, append_record, write_whole


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    target = tmp_path / "sub" / "a"
    seen = []
    write_whole(target, b"new", before_rename=lambda: seen.append(target.exists()))
    assert seen == [False]
    assert target.read_bytes() == b"new"
    assert [p.name for p in target.parent.iterdir()] == ["a"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a"
    target.write_bytes(b"old")

    def fail():
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_whole(target, b"new", before_rename=fail)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert target.read_bytes() == b"old"


def test_records_survive_and_the_newest_counts(tmp_path):
    with Records(tmp_path):
        append_record(tmp_path, "one", {"archive": "a", "n": 1})
    with Records(tmp_path) as held:
        assert held.by_archive == {"a": {"archive": "a", "n": 1}}
        append_record(tmp_path, "two", {"archive": "a", "n": 2})
        append_record(tmp_path, "three", {"archive": "b", "n": 3})
    with Records(tmp_path) as held:
        assert {k: r["n"] for k, r in held.by_archive.items()} == {"a": 2, "b": 3}
    assert not list((tmp_path / records.STATE_FOLDER).glob("journal-*"))


def test_a_line_cut_short_is_passed_over(tmp_path):
    with Records(tmp_path):
        append_record(tmp_path, "one", {"archive": "a"})
    journal = tmp_path / records.STATE_FOLDER / "journal-one.jsonl"
    journal.write_bytes(journal.read_bytes() + json.dumps({"archive": "b"}).encode()[:-3])
    with Records(tmp_path) as held:
        assert list(held.by_archive) == ["a"]


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
