"""--delete-originals: every picture is there as its original or as a verified archive."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from job_tools import JOB, archives, picture, save
from test_proof import Here

import femto
from femto import __main__ as command
from femto.job import originals
from femto.job.compressing import Job, Options
from femto.job.records import Records
from femto.job.summary import summary

DELETING = {"delete_originals": True, "min_psnr": 30.0}


@pytest.fixture
def run(tmp_path):
    """Run a job over tmp_path/in that deletes originals."""

    def run(**changes):
        (tmp_path / "in").mkdir(exist_ok=True)
        wanted = {"report": False, "quiet": True, "recursive": True, **DELETING, **changes}
        options = Options(tmp_path / "in", tmp_path / "out", **wanted)
        outcome = Job(options, Here).run()
        return outcome, summary(options, outcome)

    run.input, run.output = tmp_path / "in", tmp_path / "out"
    return run


def left(folder) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_what_is_proven_goes_and_the_same_command_is_content(run):
    for name in ("a.png", "sub/b.tif"):
        save(run.input / name, picture(40, 50, 1))
    with tifffile.TiffWriter(run.input / "pages.tif") as tif:
        for i in range(2):
            tif.write(picture(30, 40, i), metadata=None)
    expected = femto.encode(picture(40, 50, 1), source="a.png")
    _, said = run()
    assert left(run.input) == []
    assert "3 originals deleted" in said and "0 stay" in said
    assert archives(run.output)["a.laff.gz"] == expected and len(archives(run.output)) == 4
    outcome, said = run()
    assert not list(outcome.rows) and "0 originals deleted" in said
    assert len(archives(run.output)) == 4
    assert command.main(["verify", str(run.output), "--recursive", "-j", "1"]) == 0


def broken(run):
    (run.input / "a.png").write_bytes(b"nothing")


def with_alpha(run):
    pixels = np.dstack([picture(40, 50, 1), np.full((40, 50), 99, np.uint8)])
    save(run.input / "a.png", pixels)


def label_image(run):
    save(run.input / "a.png", np.kron(np.random.default_rng(1).integers(0, 9, (8, 9)) * 20,
                                      np.ones((40, 40))).astype(np.uint8))  # fmt: skip


def of_two_pages_one_bad(run):
    with tifffile.TiffWriter(run.input / "a.tif") as tif:
        tif.write(picture(30, 40, 1), metadata=None)
        tif.write(picture(30, 40, 2), metadata=None, compression="zlib")
    data = bytearray((run.input / "a.tif").read_bytes())
    with tifffile.TiffFile(run.input / "a.tif") as tif:
        offset = tif.pages[1].dataoffsets[0]
    data[offset : offset + 40] = bytes(40)
    (run.input / "a.tif").write_bytes(data)


def link(run):
    save(run.input.parent / "elsewhere.png", picture(40, 50, 1))
    (run.input / "a.png").symlink_to(run.input.parent / "elsewhere.png")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (broken, "failed"),
        (with_alpha, "it has notes"),
        (label_image, "it has warnings"),
        (of_two_pages_one_bad, "failed"),
        (link, "it is a link"),
    ],
)
def test_what_is_not_all_in_its_archives_stays(run, make, reason):
    run.input.mkdir()
    make(run)
    before = {name: (run.input / name).read_bytes() for name in left(run.input)}
    _, said = run()
    assert {name: (run.input / name).read_bytes() for name in left(run.input)} == before
    assert "0 originals deleted" in said and f"{reason} (as a." in said


def test_what_is_not_good_enough_stays(run):
    save(run.input / "a.png", picture(40, 50, 1))
    _, said = run(min_psnr=70.0)
    assert left(run.input) == ["a.png"] and "less than 70 dB" in said
    _, said = run(min_psnr=30.0)
    assert left(run.input) == [] and "1 originals deleted" in said


def test_what_is_exact_goes_without_a_floor(run):
    save(run.input / "a.png", picture(24, 1100, 4))
    _, said = run(min_psnr=None)
    assert left(run.input) == ["a.png"] and "it is not exact" in said
    _, said = run(min_psnr=None, max_error=0, cut_above=0.001)
    assert left(run.input) == [] and "1 originals deleted" in said
    assert np.array_equal(femto.decode(run.output / "a.laff.gz"), picture(24, 1100, 4))


def test_thumbnails_are_not_missed_and_raw_files_are_kept():
    row = {
        "picture": "a.jpg", "status": "done", "pages": 1, "archive_sha256": "x", "psnr": 50.0,
        "warnings": [], "notes": ["EXIF thumbnail not kept"],
    }  # fmt: skip

    class Settings:
        options = Options(Path("in"), Path("out"), **DELETING)

    assert originals.why_kept(Settings, [row]) is None
    assert "RAW" in originals.why_kept(Settings, [row | {"picture": "a.NEF"}])
    assert "notes" in originals.why_kept(Settings, [row | {"notes": ["12 bands not archived"]}])
    assert "--verify" in originals.why_kept(Settings, [row | {"archive_sha256": None}])
    assert "not all" in originals.why_kept(Settings, [row | {"pages": 2}])


@pytest.mark.parametrize("harm", ["archive", "original", "original again", "no archive"])
def test_what_is_on_disk_now_decides(run, harm):
    """Not what was there when the archive was made."""
    path = save(run.input / "a.png", picture(40, 50, 1))
    run(delete_originals=False, min_psnr=None)
    archive = run.output / "a.laff.gz"
    if harm == "archive":
        data = bytearray(archive.read_bytes())
        data[300] ^= 1
        archive.write_bytes(data)
    elif harm == "no archive":
        archive.unlink()
    else:
        status = path.stat()
        data = bytearray(path.read_bytes())
        data[-20] ^= 1
        path.write_bytes(data)
        if harm == "original":
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    before = path.read_bytes()
    _, said = run()
    if harm == "no archive":  # it is made again
        assert left(run.input) == [] and femto.decode(archive).shape == (40, 50, 3)
    else:
        assert path.read_bytes() == before and "0 originals deleted" in said, said


def test_it_is_on_disk_before_the_original_goes(run, monkeypatch):
    """Archive, its folder and the folders above it, the record: then the original is unlinked."""
    save(run.input / "sub" / "a.png", picture(40, 50, 1))
    synced, unlink, fsync = [], os.unlink, os.fsync

    def seen(descriptor):
        synced.append(os.path.realpath(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def checked(path, **how):
        if str(path).endswith("a.png"):
            for name in ("sub/a.laff.gz", "sub", ".", ".."):
                assert os.path.realpath(run.output / name) in synced
            data = (run.output / ".femto-job" / "records.sqlite").read_bytes()
            assert originals.DELETED.encode() in data
            assert not (run.output / ".femto-job" / "records.sqlite-journal").exists()
            synced.append("unlinked")
        unlink(path, **how)

    monkeypatch.setattr(os, "fsync", seen)
    monkeypatch.setattr(originals.os, "unlink", checked)
    run()
    assert synced[-1] == "unlinked" and left(run.input) == []


def test_the_only_copy_is_not_replaced(run):
    """Cameras begin again with IMG_0001."""
    save(run.input / "a.png", picture(40, 50, 1))
    run()
    kept = archives(run.output)
    for changes in ({}, {"overwrite": True}, {"delete_originals": False, "min_psnr": None}):
        save(run.input / "a.png", picture(60, 70, 2))
        outcome, _ = run(**changes)
        (row,) = outcome.rows
        assert row["status"] == "failed" and "the only copy of another picture" in row["error"]
        assert archives(run.output) == kept and left(run.input) == ["a.png"]


def test_an_original_that_is_still_there_goes_later_or_is_made_anew(run, monkeypatch):
    """As after a kill between the record and the unlinking."""
    path = save(run.input / "a.png", picture(40, 50, 1))

    unlink = os.unlink

    def killed(path, **how):
        if str(path).endswith("a.png"):
            raise KeyboardInterrupt
        unlink(path, **how)

    for changes, status in (({"target": {"quality": 60}}, "done"), ({}, "done"), ({}, "skipped")):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(originals.os, "unlink", killed)
            run(**changes)
        with Records(run.output) as records:
            assert [r[originals.DELETED] for r in records] == [True]
        assert path.exists(), status
    outcome, _ = run()
    assert [r["status"] for r in outcome.rows] == ["skipped"] and not path.exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--delete-originals"],
        ["--delete-originals", "--max-error", "2"],
        ["--min-psnr", "40"],
        ["--delete-originals", "--min-psnr", "0"],
        *(
            ["--delete-originals", "--min-psnr", "40", *more]
            for more in (["--no-verify"], ["--strip-metadata"], ["--gray"], ["--bands", "1"],
                         ["--no-alpha"], ["--range", "0", "1"])
        ),
    ],
)  # fmt: skip
def test_it_goes_with_verify_a_floor_and_all_of_the_picture(tmp_path, capsys, words):
    path = save(tmp_path / "in" / "a.png", picture(20, 20, 1))
    with pytest.raises(SystemExit) as end:
        command.main(["compress", str(path.parent), str(tmp_path / "out"), *words])
    assert end.value.code == 2 and path.exists()
    assert "--delete-originals" in capsys.readouterr().err


def test_a_basis_of_ones_own_lies_beside_the_archives(tmp_path, own_basis, capsys):
    path = save(tmp_path / "in" / "a.png", picture(20, 20, 1))
    words = ["compress", str(path.parent), str(tmp_path / "out"), "--basis", str(own_basis)]
    assert command.main([*words, "--delete-originals", "--min-psnr", "20", "-j", "1"]) == 2
    assert "own.basis: is not the basis of these archives" in capsys.readouterr().err
    assert path.exists()


# --- kill -9 ----------------------------------------------------------------------------------

NAMES = [f"{i}.png" for i in range(4)] + ["wide.png", "pages.tif"]
CHILD = """\
import os, signal, sys
from pathlib import Path
sys.path[:0] = {paths!r}
from femto.job.compressing import Job, Options
from test_proof import Here

moment, count = int(sys.argv[1]), 0
CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "sqlite3.connect", "os.truncate")

def watched(event, arguments):
    global count
    if event in CHANGES and "/work" in str(arguments[:1]):
        count += 1
        if count == moment:
            os.kill(os.getpid(), signal.SIGKILL)

options = Options(Path("work/in").resolve(), Path("work/out").resolve(), report=False, quiet=True,
                  delete_originals=True, min_psnr=20.0, cut_above=0.001)
sys.addaudithook(watched)
outcome = Job(options, Here).run()
print(count, outcome.gone.files, outcome.gone.stay, flush=True)
os._exit(0)
"""


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> tuple[Path, dict[str, bytes]]:
    """A folder of pictures, and the archives that they become."""
    here = tmp_path_factory.mktemp("originals")
    for i in range(4):
        save(here / "in" / f"{i}.png", picture(30, 40, i))
    save(here / "in" / "wide.png", picture(24, 1100, 4))
    with tifffile.TiffWriter(here / "in" / "pages.tif") as tif:
        for i in range(2):
            tif.write(picture(20, 30, i), metadata=None)
    options = Options(here / "in", here / "out", report=False, quiet=True)
    assert Job(options, Here).run().count("done") == 7
    return here / "in", archives(here / "out")


def made_of(name: str) -> list[str]:
    if name == "pages.tif":
        return [f"pages.page-000{i}.laff.gz" for i in (1, 2)]
    return [name.replace(".png", ".laff.gz")]


def nothing_is_lost(work: Path, originals: Path, expected: dict[str, bytes]) -> None:
    """Every picture is there as its original, or as archives, which are whole."""
    there = archives(work / "out") if (work / "out").exists() else {}
    assert all(expected[name] == data for name, data in there.items())
    for name in NAMES:
        path = work / "in" / name
        if path.exists():
            assert path.read_bytes() == (originals / name).read_bytes()
        else:
            assert set(made_of(name)) <= set(there), name


def begin(tmp_path: Path, originals: Path) -> Path:
    """A fresh copy of the pictures."""
    import shutil

    work = tmp_path / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(originals, work / "in", copy_function=shutil.copy2)
    return work


def child(tmp_path: Path, moment: int) -> subprocess.CompletedProcess:
    code = CHILD.format(paths=[str(JOB), str(Path(__file__).parent), *sys.path])
    words = [sys.executable, "-c", code, str(moment)]
    return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)


def killed_at(tmp_path: Path, expected, moments) -> None:
    """Kill a run at each of these moments, and let it run again."""
    originals, made = expected
    for moment in moments:
        work = begin(tmp_path, originals)
        assert child(tmp_path, moment).returncode == -signal.SIGKILL
        nothing_is_lost(work, originals, made)
        done = child(tmp_path, 0)
        assert done.returncode == 0, done.stderr
        nothing_is_lost(work, originals, made)
        assert left(work / "in") == [] and archives(work / "out") == made


def moments_of(tmp_path: Path, expected) -> int:
    """How many moments a run has: before each file that it opens, renames or removes."""
    begin(tmp_path, expected[0])
    done = child(tmp_path, 0)
    assert done.returncode == 0, done.stderr
    count, gone = map(int, done.stdout.split()[:2])
    assert gone == len(NAMES) and count > 40, done.stdout
    return count


def test_kill_9_loses_nothing(tmp_path, expected):
    """At some moments, the last ones among them, when originals go."""
    count = moments_of(tmp_path, expected)
    killed_at(tmp_path, expected, [random.Random(1).randrange(1, count - 9), count - 3])


@pytest.mark.slow
def test_kill_9_at_200_moments_loses_nothing(tmp_path, expected):
    """100 of them in one process, by what it does; 100 of the command, by the clock."""
    count = moments_of(tmp_path, expected)
    draw = random.Random(2)
    killed_at(tmp_path, expected, [draw.randrange(1, count + 1) for _ in range(100)])
    originals, made = expected
    words = [sys.executable, "-m", "femto", "compress", "work/in", "work/out", "--no-report", "-j",
             "2", "--delete-originals", "--min-psnr", "20", "--quiet"]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(JOB)}
    begin(tmp_path, originals)
    began = time.monotonic()
    subprocess.run(words, cwd=tmp_path, env=environment, check=True)
    seconds = time.monotonic() - began
    for _ in range(100):
        work = begin(tmp_path, originals)
        one = subprocess.Popen(words, cwd=tmp_path, env=environment, start_new_session=True)
        time.sleep(draw.uniform(0.3, 1.1) * seconds)
        os.killpg(one.pid, signal.SIGKILL)
        one.wait()
        nothing_is_lost(work, originals, made)
        subprocess.run(words, cwd=tmp_path, env=environment, check=True)
        nothing_is_lost(work, originals, made)
        assert left(work / "in") == [] and archives(work / "out") == made
