"""femto verify: archives beside their records, and by themselves."""

import fcntl
import gzip
import os
import shutil
import subprocess
from concurrent.futures import Future

import pytest
from job_tools import picture, save
from test_proof import Here

import femto
from femto import __main__ as command
from femto.files import journal
from femto.job import verifying
from femto.job.compressing import Job, Options
from femto.job.records import Records


class Alone:
    """The pool, in this process."""

    def __init__(self, size):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def submit(self, function, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """A folder that a job has made, its records still in a journal."""
    here = tmp_path_factory.mktemp("made")
    for name in ("a.png", "b\\ \n c.png", "sub/d.png", "sub/e.png"):
        save(here / "in" / name, picture(40, 1100 if name == "a.png" else 50, 7))
    options = Options(here / "in", here / "out", recursive=True, report=False, quiet=True)
    assert Job(options, Here).run().count("done") == 4
    return here / "out"


@pytest.fixture
def output(collection, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verifying, "Pool", Alone)
    shutil.copytree(collection, "out")
    return tmp_path / "out"


def verified(capsys, *words) -> tuple[int, list[str]]:
    status = command.main(["verify", *words, "-j", "1"])
    said = capsys.readouterr()
    return status, (said.out + said.err).splitlines()


def everything(folder) -> dict:
    return {p: (p.stat().st_mtime_ns, p.is_file() and p.read_bytes()) for p in folder.rglob("*")}


def test_a_collection_is_good_and_stays_as_it_is(output, capsys):
    before = everything(output)
    assert verified(capsys, "out", "--recursive") == (
        0,
        [
            "out/a.laff.gz: good",
            "out/b\\ \\n c.laff.gz: good",
            "out/sub/d.laff.gz: good",
            "out/sub/e.laff.gz: good",
            "4 good",
        ],
    )
    assert verified(capsys, "out", "--quiet") == (0, [])
    assert everything(output) == before
    # The next run of the job merges its journals; nothing changes by that.
    with Records(output) as records:
        assert len(list(records)) == 4
    assert verified(capsys, "out", "--recursive")[1][-1] == "4 good"


def test_every_state_is_told(output, capsys, own_archive):
    text = bytearray(gzip.decompress((output / "a.laff.gz").read_bytes()))
    text[text.index(b'"strings":[["') + 30] ^= 1
    (output / "a.laff.gz").write_bytes(gzip.compress(bytes(text)))
    (output / "sub" / "e.laff.gz").unlink()
    femto_made = femto.truncate(output / "sub" / "d.laff.gz", layers=2)
    (output / "sub" / "d.laff.gz").write_bytes(femto_made)
    (output / "own.laff.gz").write_bytes(own_archive)
    (output / "new.laff.gz").write_bytes(femto.encode(picture(20, 30, 1)))
    (output / "none.laff.gz").write_bytes(b"nothing")
    status, said = verified(capsys, "out", "nowhere", "--recursive")
    assert status == 1
    told = {line.partition(": ")[0]: line.partition(": ")[2] for line in said}
    assert told["out/a.laff.gz"] == (
        "damaged: 1 of 2 tiles are lost: tile 0 (rows 0 to 39, columns 0 to 1023)"
    )
    assert told["out/sub/e.laff.gz"] == "missing: it is recorded, and not there"
    assert told["out/sub/d.laff.gz"].startswith("changed: it is whole, but not the file")
    assert told["out/own.laff.gz"].startswith("unknown basis: needs the basis 'own'")
    assert told["out/new.laff.gz"] == "good (no record)"
    assert told["out/none.laff.gz"].startswith("damaged: not a .laff archive")
    assert told["femto verify"].startswith("nowhere: there is no such file")
    assert "2 good, 2 damaged, 1 changed, 1 missing, 1 unknown basis" in said
    status, said = verified(capsys, "out", "--recursive", "--quiet")
    assert status == 1 and len(said) == 5


def test_other_pixels_than_were_recorded(output, capsys, monkeypatch):
    """The same file, another decoder."""
    decode = verifying.codec.decode_tile
    monkeypatch.setattr(verifying.codec, "decode_tile", lambda *what: decode(*what) ^ 1)
    status, said = verified(capsys, "out/a.laff.gz")
    assert status == 1 and "damaged: it gives other pixels than when it was made" in said[0]


def test_parts_of_a_collection_find_its_records(output, capsys, monkeypatch):
    (output / "sub" / "d.laff.gz").write_bytes((output / "sub" / "e.laff.gz").read_bytes())
    status, said = verified(capsys, "out/sub", "out/sub/e.laff.gz", "out/a.laff.gz")
    assert status == 1 and said[-1] == "3 good, 1 changed"
    assert said[0].startswith("out/sub/d.laff.gz: changed")
    # What is not looked at is not missing.
    (output / "sub" / "e.laff.gz").unlink()
    (output / "sub" / "d.laff.gz").unlink()
    assert verified(capsys, "out") == (0, [*verified(capsys, "out")[1]])
    assert verified(capsys, "out/sub")[1][-1] == "0 good, 2 missing"


def test_an_archive_that_was_not_verified_when_it_was_made(output, capsys):
    record = {"archive": "a.laff.gz", "input": "/in", "picture": "a.png", "archive_bytes": 7}
    journal.append(output / ".femto-job", record)
    assert "changed: it is whole, but not as long as recorded" in verified(capsys, "out")[1][0]
    record["archive_bytes"] = os.path.getsize(output / "a.laff.gz")
    journal.append(output / ".femto-job", record)
    assert "good (recorded without having been verified)" in verified(capsys, "out")[1][0]


def test_the_manifest_is_read_by_sha256sum(output, capsys):
    (output / "none.laff.gz").write_bytes(b"nothing")
    assert verified(capsys, "out", "--recursive", "--manifest", "--quiet")[0] == 1
    check = ["sha256sum", "-c", "SHA256SUMS"]
    done = subprocess.run(check, cwd=output, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count(": OK") == 4
    assert "none.laff.gz" not in (output / "SHA256SUMS").read_text()
    with open(output / "sub" / "d.laff.gz", "ab") as file:
        file.write(b" ")
    done = subprocess.run(check, cwd=output, capture_output=True, text=True)
    assert done.returncode == 1 and "sub/d.laff.gz: FAILED" in done.stdout


def test_a_running_job_and_unreadable_records_are_told(output, capsys):
    with open(output / ".femto-job" / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, said = verified(capsys, "out")
        assert status == 2 and said == [
            "femto verify: out: a job is writing to this folder: wait until it ends"
        ]
    (output / ".femto-job" / "records.sqlite").write_bytes(b"no database" * 999)
    status, said = verified(capsys, "out")
    assert status == 2 and "move it away to verify archives without it" in said[0]


def test_an_empty_folder_is_told(tmp_path, capsys):
    (tmp_path / "photo.png").touch()
    status, said = verified(capsys, str(tmp_path))
    assert status == 1 and "no archives in this folder" in said[1]


def test_in_processes_of_its_own(output, capsys, monkeypatch):
    monkeypatch.undo()
    assert command.main(["verify", str(output), "-j", "2", "--recursive"]) == 0
    assert capsys.readouterr().out.endswith("4 good\n")
