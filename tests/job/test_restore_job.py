"""restore.py: the way back on Spark, alone and together with decompressor.py."""

import csv
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from job_tools import (
    HANGS,
    JOB,
    assert_plain_error,
    command,
    command_here,
    environment,
    picture,
)

import decompressor
import femto
import restore
from femto import __main__ as femto_command
from femto.errors import JobError
from femto.job import restoring
from femto.job.reconstruction import Wanted
from femto.job.restoring import Options, Restore
from femto.job.written import STATE_FOLDER
from femto.pictures import open_page
from femto_spark.runner import SparkRunner

NAMES = ("a", "b", "sub/c", "sub/deep/d")


def make_archives(folder: Path, names=NAMES) -> dict[str, Path]:
    """Archives of different small pictures, by their names."""
    made = {}
    for i, name in enumerate(names):
        path = folder / f"{name}.laff.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = picture(40 + i, 50, i, channels=1 if i % 2 else 3)
        path.write_bytes(femto.encode(pixels, source=f"{name}.png"))
        made[name] = path
    return made


def spoil(archive: Path) -> None:
    """Damage an archive so that nobody sees it who does not decode it."""
    status, data = archive.stat(), bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 255
    archive.write_bytes(data)
    os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns))


def read(path: Path) -> np.ndarray:
    with open_page(path) as page:
        return page[:, :]


def pictures(folder: Path) -> dict[str, bytes]:
    """All pictures below a folder, by their path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*.*")
        if path.suffix in (".png", ".tif", ".jpg", ".webp")
    }


def table(output: Path, name: str = "report.csv") -> dict[str, dict]:
    """The rows of a table by archive."""
    with open(output / name, newline="", encoding="utf-8") as file:
        return {row["archive"]: row for row in csv.DictReader(file)}


@pytest.fixture
def run(context, tmp_path):
    """Run the job from tmp_path/in to tmp_path/out; gives its Outcome."""

    def run(start=None, **changes):
        options = {"input": run.input, "output": run.output, "recursive": True, "quiet": True}
        return Restore(Options(**options | changes), start or partial(SparkRunner, context)).run()

    run.input, run.output = tmp_path / "in", tmp_path / "out"
    return run


def never():
    raise AssertionError("Spark was started although there is nothing to do")


def test_pictures_are_those_of_the_decompressor(run, tmp_path):
    made = make_archives(run.input)
    (run.input / "notes.txt").write_text("no archive")
    outcome = run()
    assert outcome.counts == {"done": 4}
    for name, archive in made.items():
        np.testing.assert_array_equal(read(run.output / f"{name}.png"), femto.decode(archive))
    alone = command_here(
        decompressor.main, "in", "-o", "alone", "--recursive", "-j", "1", cwd=tmp_path
    )
    assert alone.returncode == 0, alone.stderr
    assert pictures(tmp_path / "alone") == pictures(run.output)
    # What one of them has made, the other does not make again.
    for archive in made.values():
        spoil(archive)
    again = command_here(
        decompressor.main, "in", "-o", "out", "--recursive", "-j", "1", cwd=tmp_path
    )
    assert "0 restored, 4 were there, 0 failed; left out: 1 other file (1 .txt)" in again.stderr
    assert run(never, output=tmp_path / "alone").counts == {"skipped": 4}


def test_formats_layers_and_metadata(run):
    (archive,) = make_archives(run.input, ["a"]).values()
    for format, suffix in (("tif", "tif"), ("webp", "webp")):
        run(wanted=Wanted(format=format))
        np.testing.assert_array_equal(read(run.output / f"a.{suffix}"), femto.decode(archive))
    run(wanted=Wanted(layers=1), output=run.output / "coarse")
    coarse = read(run.output / "coarse/a.png")
    np.testing.assert_array_equal(coarse, femto.decode(archive, layers=1))
    run(wanted=Wanted(layers=99), output=run.output / "more")
    run(wanted=Wanted(region=(3, 4, 5, 6)), output=run.output / "part")
    np.testing.assert_array_equal(read(run.output / "part/a.png"), femto.decode(archive)[3:8, 4:10])
    have = femto.info(archive)["layers"]
    assert table(run.output / "more")["a.laff.gz"]["notes"] == f"has {have} layers"


def test_every_archive_has_a_row(run):
    make_archives(run.input)
    (run.input / "bad.laff.gz").write_bytes(b"\x1f\x8b rubbish")
    (run.input / "=cmd.laff").write_bytes(b"")
    outcome = run()
    assert outcome.counts == {"done": 4, "failed": 2}
    rows = table(run.output)
    assert len(rows) == 6
    row = rows["sub/c.laff.gz"]
    assert (row["status"], row["picture"]) == ("done", "sub/c.png")
    assert (row["width"], row["height"], row["mode"], row["bits"]) == ("50", "42", "RGB", "8")
    assert int(row["picture_bytes"]) == (run.output / "sub/c.png").stat().st_size
    assert int(row["archive_bytes"]) == (run.input / "sub/c.laff.gz").stat().st_size
    assert rows["bad.laff.gz"]["status"] == "failed"
    assert set(table(run.output, "failures.csv")) == {"bad.laff.gz", "'=cmd.laff"}
    (run.input / "bad.laff.gz").unlink()
    (run.input / "=cmd.laff").unlink()
    assert run(never).counts == {"skipped": 4}
    assert {r["status"] for r in table(run.output).values()} == {"skipped"}
    assert table(run.output)["sub/c.laff.gz"]["width"] == "50"
    assert not (run.output / "failures.csv").exists()
    shutil.rmtree(run.output)
    run(report=False)
    assert not (run.output / "report.csv").exists()


def test_only_what_is_its_own_is_replaced(run):
    made = make_archives(run.input)
    run()
    # Other options are told apart without decoding anything.
    assert run(never, wanted=Wanted(layers=1)).counts == {"failed": 4}
    assert "with other options" in table(run.output)["a.laff.gz"]["error"]
    made["a"].write_bytes(femto.encode(picture(30, 30, 9)))
    (run.output / "b.png").write_bytes(b"edited")
    (run.output / "sub/c.png").unlink()
    outcome = run()
    assert outcome.counts == {"done": 2, "skipped": 1, "failed": 1}
    assert "another file is there" in table(run.output)["b.laff.gz"]["error"]
    np.testing.assert_array_equal(read(run.output / "a.png"), femto.decode(made["a"]))
    assert (run.output / "b.png").read_bytes() == b"edited"
    assert run(overwrite=True).counts == {"done": 1, "skipped": 3}
    np.testing.assert_array_equal(read(run.output / "b.png"), femto.decode(made["b"]))


def test_an_archive_that_kills_its_process_costs_only_itself(run, monkeypatch):
    make_archives(run.input, [f"{i}" for i in range(7)])
    monkeypatch.setattr(restoring, "restore_archives", dying(restoring.restore_archives))
    outcome = run()
    assert outcome.counts == {"done": 6, "failed": 1}
    assert [name for name, _ in outcome.failures] == ["3.laff.gz"]
    assert "lack of memory" in table(run.output)["3.laff.gz"]["error"]
    assert sorted(pictures(run.output)) == [f"{i}.png" for i in range(7) if i != 3]


def dying(original):
    """A task function whose process is killed when it meets 3.laff.gz."""

    def restore(settings, groups):
        groups = list(groups)
        if any(item.thing.source.name == "3.laff.gz" for items in groups for item in items):
            os.kill(os.getpid(), 9)
        return original(settings, iter(groups))

    return restore


@pytest.mark.parametrize("largest", [restoring.FED_BYTES, 0])
def test_archives_that_only_the_driver_sees(run, monkeypatch, tmp_path, largest):
    """Small ones are sent to the workers, large ones the driver restores by itself."""
    made = make_archives(run.input)
    mapped = picture(20, 30, 5, channels=1).astype(np.float32) / 7
    (run.input / "float.laff.gz").write_bytes(femto.encode(mapped))
    sent = []
    original = restoring.restore_archives

    def counting(settings, groups):
        groups = list(groups)
        assert all(item.payload is not None for items in groups for item in items)
        return original(settings, iter(groups))

    monkeypatch.setattr(restoring, "restore_archives", counting)
    monkeypatch.setattr(restoring, "FED_BYTES", largest)
    load = Restore.load
    monkeypatch.setattr(Restore, "load", lambda *a: (sent.append(a[1]), load(*a))[1])
    assert run(reader="driver").counts == {"done": 5}
    assert len(sent) == (5 if largest else 0)
    for name, archive in made.items():
        np.testing.assert_array_equal(read(run.output / f"{name}.png"), femto.decode(archive))
    assert (run.output / "float.tif").is_file()
    assert run(never).counts == {"skipped": 5}


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_a_full_disk_ends_the_job(run, tmp_path):
    run.input.mkdir()
    for i in range(9):
        (run.input / f"{i}.laff.gz").write_bytes(femto.encode(picture(150, 150, i), quality=95))
    run.output.mkdir()
    options = ["-t", "tmpfs", "-o", "size=128k", "tmpfs", str(run.output)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs a file system of its own: {done.stderr.strip()}")
    try:
        with pytest.raises(JobError, match=r"No space left.*make room, then run"):
            run()
        assert 0 < len(pictures(run.output)) < 9
        assert not list(run.output.rglob("*.part"))
        for name in pictures(run.output):
            np.testing.assert_array_equal(
                read(run.output / name),
                femto.decode(run.input / name.replace(".png", ".laff.gz")),
            )
    finally:
        subprocess.run(["umount", str(run.output)], check=True)


@pytest.mark.parametrize("reader", ["workers", "driver"])
def test_an_output_that_is_removed_ends_the_job_at_once(run, reader, monkeypatch):
    make_archives(run.input, [f"{i:02}" for i in range(40)])
    taken = []
    take = Restore.take

    def removing(self, thing, result):
        taken.append(thing)
        if len(taken) == 1:
            run.output.rename(run.output.parent / "elsewhere")
        take(self, thing, result)

    monkeypatch.setattr(Restore, "take", removing)
    with pytest.raises(JobError, match=r"was removed .* run the same command again"):
        run(reader=reader)
    assert len(taken) < 40
    assert not run.output.exists()


COUNT = 8


def test_a_killed_job_goes_on_where_it_was(tmp_path):
    """kill -9 when some pictures are there: they are not decoded again, by either program."""
    made = make_archives(tmp_path / "images_out", [f"{i}" for i in range(COUNT)])
    copy = tmp_path / "femto_job"
    shutil.copytree(JOB, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with open(copy / "femto" / "job" / "restoring.py", "a") as file:
        file.write(
            "\n_restore_file = restore_file\n"
            "def restore_file(settings, archive):\n"
            "    import glob\n"
            "    while glob.glob('pictures/*.png') and os.path.exists('hold'): time.sleep(0.05)\n"
            "    return _restore_file(settings, archive)\n"
        )
    hold = tmp_path / "hold"
    hold.touch()
    output = tmp_path / "pictures"
    process = subprocess.Popen(
        [sys.executable, copy / "restore.py"], cwd=tmp_path, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + HANGS
        while not list(output.glob("*.png")) or not list(output.glob(f"{STATE_FOLDER}/journal-*")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end, "no picture is done"
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    there = {path.stem: path.stat().st_ino for path in output.glob("*.png")}
    assert 1 <= len(there) < COUNT
    (output / ".femto-12.part").write_bytes(b"half a picture")
    remembered = restoring.Written(output)
    for name in there:
        if remembered.find(f"{name}.png"):
            spoil(made[name])
    again = command("--reader", "workers", program=JOB / "restore.py", cwd=tmp_path)
    hold.unlink()
    assert again.returncode == 0, again.stderr
    rows = table(output)
    assert len(rows) == COUNT
    for name, inode in there.items():
        assert rows[f"{name}.laff.gz"]["status"] == "skipped"
        assert (output / f"{name}.png").stat().st_ino == inode
    assert not list(output.rglob("*.part"))
    assert len(pictures(output)) == COUNT


def test_on_a_cluster(cluster, tmp_path):
    made = make_archives(tmp_path / "archives")
    arguments = ("--input", "archives", "--output", "pictures", "--recursive", "--format", "tiff")
    done = cluster.submit(*arguments, program=JOB / "restore.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "4 restored, 0 unchanged, 0 failed" in done.stdout
    assert "on 2 cores" in done.stdout
    for name, archive in made.items():
        path = tmp_path / "pictures" / f"{name}.tif"
        np.testing.assert_array_equal(read(path), femto.decode(archive))


def test_the_command(context, tmp_path, monkeypatch):
    monkeypatch.setattr("femto_spark.session.start", lambda *_, **__: Kept(context))
    make_archives(tmp_path / "images_out", ["a", "sub/b"])
    (tmp_path / "images_out" / "bad\x1b[31m.laff.gz").write_bytes(b"")
    done = command_here(restore.main, "--layers", "1", cwd=tmp_path)
    assert done.returncode == 1
    assert "1 restored, 0 unchanged, 1 failed" in done.stdout
    assert "left out: 1 sub-folder (--recursive includes them)" in done.stdout
    assert "report:   pictures/report.csv" in done.stdout
    assert "failed: bad\\x1b[31m.laff.gz: " in done.stdout
    done = command_here(restore.main, "--layers", "1", "--quiet", cwd=tmp_path)
    assert done.stdout == ""
    assert done.stderr.startswith("restore.py: bad\\x1b[31m.laff.gz: ")
    assert done.stderr.count("\n") == 1


def test_femto_decompress_hands_a_folder_over(context, tmp_path, monkeypatch, capsys):
    masters = []

    def start(name, overwrite_conf):
        masters.append(overwrite_conf["spark.master"])
        return Kept(context)

    monkeypatch.setattr("femto_spark.session.start", start)
    monkeypatch.chdir(tmp_path)
    made = make_archives(tmp_path / "archives", ["a", "sub/b"])
    words = ["decompress", "archives", "-o", "out", "--recursive", "--master", "spark://host:1"]
    assert femto_command.main(words) == 0
    assert "2 restored, 0 unchanged, 0 failed" in capsys.readouterr().out
    assert masters == ["spark://host:1"]
    np.testing.assert_array_equal(
        read(tmp_path / "out" / "sub" / "b.png"), femto.decode(made["sub/b"])
    )
    assert femto_command.main(words[:-2]) == 0
    assert "0 restored, 2 were there, 0 failed" in capsys.readouterr().err


class Kept:
    """A context that the command does not stop."""

    def __init__(self, context):
        self._context = context

    def __getattr__(self, name):
        return getattr(self._context, name)

    def stop(self):
        pass


def test_wrong_options_are_one_line(tmp_path):
    def fails(*arguments):
        return command_here(restore.main, *arguments, cwd=tmp_path)

    assert_plain_error(fails(), "images_out", "no such folder", "archives")
    (tmp_path / "images_out" / "sub").mkdir(parents=True)
    assert_plain_error(fails(), "no archives in this folder", "--recursive")
    (tmp_path / "file").touch()
    assert_plain_error(fails("--output", "file"), "file: is a file", "--output")
    assert_plain_error(fails("--output", "images_out"), "holds the archives")
    assert_plain_error(fails("--basis", "no.basis"), "no.basis: no such file")
    for wrong in (["--layers", "0"], ["--format", "gif"], ["--fraction", "2"], ["--nonsense"]):
        assert_plain_error(fails(*wrong), "(see restore.py --help)")
    assert not (tmp_path / "pictures").exists()
