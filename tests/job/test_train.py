"""train.py: the basis of a folder of pictures, learned on Spark."""

import os
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tifffile
from job_tools import JOB, archives, assert_plain_error, command, command_here, picture, save

pytest.importorskip("scipy")

import decompressor
import femto
import train
from femto.basis import bases
from femto.errors import JobError
from femto.files.folder import find
from femto.job import learning
from femto.job.learning import Learning, LocalSamples, Options
from femto_spark.learn import SparkSamples


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine small pictures, one of 16 bits, one grey, and one that cannot be read."""
    here = tmp_path_factory.mktemp("pictures")
    for i in range(8):
        save(here / f"{i}.png", picture(72, 88 + i, i))
    save(here / "grey.tif", picture(90, 70, 9, channels=1).astype(np.uint16) * 257)
    (here / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    return here


@pytest.fixture
def run(context, folder, tmp_path):
    """Learn from the folder; gives the Outcome and the path of the basis."""

    def run(name: str = "own.basis", start=None, **changes):
        output = tmp_path / name
        options = {"input": folder, "output": output, "name": output.stem, "quiet": True}
        options = Options(**options | {"megapixels": 1.0} | changes)
        return Learning(options, start or partial(SparkSamples, context)).run(), options.output

    return run


@pytest.fixture(scope="module")
def own(folder, tmp_path_factory):
    """(what train.py printed, the basis's path), on two cores."""
    path = tmp_path_factory.mktemp("own") / "own.basis"
    done = command("--input", folder, "--output", path, "--megapixels", 1, program=JOB / "train.py")
    assert done.returncode == 0, done.stderr
    return done, path


def test_the_command_tells_what_it_does_and_what_it_was_worth(own, folder):
    done, path = own
    assert "left out: broken.jpg: " in done.stdout
    assert "Traceback" not in done.stdout + done.stderr and "WARN" not in done.stderr
    assert "classes, round 5 of 5: " in done.stdout
    assert "smaller at equal PSNR by" in done.stdout
    assert bases.read_basis(path).sha256 in done.stdout
    assert bases.read_basis(path).name == "own"
    assert path.stat().st_size < 2_000_000
    assert [p.name for p in path.parent.iterdir()] == ["own.basis"]


def test_the_same_basis_on_any_number_of_partitions(own, run, monkeypatch):
    wanted = bases.read_basis(own[1]).sha256
    spread = SparkSamples._spread

    class One:
        """A context that has but one core."""

        def __init__(self, context):
            self._context = context

        defaultParallelism = 0.25

        def __getattr__(self, name):
            return getattr(self._context, name)

    def on_one(self, pictures):
        context, self._context = self._context, One(self._context)
        try:
            found = spread(self, pictures)
        finally:
            self._context = context
        parts.append(found.getNumPartitions())
        return found

    parts = []
    monkeypatch.setattr(SparkSamples, "_spread", on_one)
    outcome, _ = run()
    assert outcome.sha256 == wanted
    assert parts[0] < 8


def test_without_spark_it_learns_the_same_basis(own, folder, tmp_path):
    (tmp_path / "pyspark.py").write_text("raise ImportError('absent')")
    words = ["train", folder, "-o", tmp_path / "own.basis", "--megapixels", 1, "-j", 2]
    path = os.pathsep.join([str(tmp_path), str(JOB)])
    done = command("femto", *words, program="-m", env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    ways = (process.stdout.splitlines() for process in (done, own[0]))
    here, there = ([x for x in way if "smaller at equal" in x or "classes, r" in x] for way in ways)
    assert here == there and len(here) == 6
    assert bases.read_basis(tmp_path / "own.basis").sha256 == bases.read_basis(own[1]).sha256
    assert (tmp_path / "own.basis").read_bytes() == own[1].read_bytes()
    assert not list(tmp_path.glob("*.work"))


def dies(*arguments):
    os.kill(os.getpid(), 9)


def test_a_process_that_dies_is_told_and_what_was_learned_stays(run, monkeypatch):
    monkeypatch.setattr(learning, "sum_of", dies)
    with pytest.raises(JobError, match="a process that learns died, most likely for lack of"):
        run(start=partial(LocalSamples, jobs=2))


def test_an_interrupted_run_goes_on_where_it_was(own, run, monkeypatch, capsys):
    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Learning, "_weights", stop)
        with pytest.raises(KeyboardInterrupt):
            run()

    def never(*arguments):
        raise AssertionError("the classes were learned already")

    monkeypatch.setattr(Learning, "_classes", never)
    outcome, path = run(quiet=False)
    assert "classes: done in an earlier run" in capsys.readouterr().out
    assert outcome.sha256 == bases.read_basis(own[1]).sha256
    assert not path.with_name("own.basis.work").exists()


def test_a_full_disk_is_told_in_one_line(run, monkeypatch):
    def full(basis, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(learning.bases, "save_basis", full)
    monkeypatch.setattr(Learning, "_classes", lambda self, prior: prior)
    with pytest.raises(JobError, match=r"classes\.basis: cannot be written \(No space left"):
        run()


def test_pictures_that_workers_do_not_see_are_read_by_the_driver(own, run, monkeypatch, capsys):
    choose = learning.choose

    def other_files(*arguments):
        return [replace(w, source=replace(w.source, nbytes=0)) for w in choose(*arguments)]

    monkeypatch.setattr(learning, "choose", other_files)
    outcome, _ = run(quiet=False)
    assert "the driver reads these" in capsys.readouterr().out
    assert outcome.sha256 == bases.read_basis(own[1]).sha256
    assert {name for name, _ in outcome.left_out} == {"broken.jpg"}
    assert (outcome.pictures, outcome.held_out) == (8, 1)


def test_a_cluster_learns_the_same_basis(own, folder, cluster, tmp_path):
    done = cluster.submit(
        "--input", folder, "--output", tmp_path / "own.basis", "--megapixels", 1,
        program=JOB / "train.py",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ERROR" not in done.stderr and "Traceback" not in done.stderr
    assert bases.read_basis(own[1]).sha256 in done.stdout


def test_windows_are_drawn_from_all_of_a_large_picture(tmp_path):
    save(tmp_path / "wide.png", picture(700, 2100, 1, channels=1))
    (source,) = find(tmp_path, {".png"}, recursive=False).sources
    options = Options(input=tmp_path, output=tmp_path / "x.basis", name="x", megapixels=1.0)
    sandbox = learning.Sandbox()
    try:
        typical = learning.typical_pixels([source], tmp_path, sandbox)
        assert typical == 700 * 2100
        (wanted,) = learning.choose([source], typical, options)
        assert wanted.windows == 4 and not wanted.held_out
        windows = learning.take(wanted, sandbox)
    finally:
        sandbox.close()
    assert len(windows) == 4
    whole = picture(700, 2100, 1, channels=1)
    assert [sample.number for sample in windows] == [0, 1, 2, 3]
    places = set()
    for _, window, levels in windows:
        assert window.size <= 512 * 512 and levels == (0, 255)
        (place,) = [
            (y, x)
            for y in range(0, 700, 512)
            for x in range(0, 2100, 512)
            if np.array_equal(whole[y : y + 512, x : x + 512], window)
        ]
        places.add(place)
    assert len(places) == 4


def test_levels_are_those_of_the_whole_picture(tmp_path):
    """Of 12 bits in a file of 16, whatever the window has of them; and those that a file says."""
    pixels = picture(600, 1100, 1, channels=1).astype(np.uint16) * 4
    pixels[540:, :] = np.linspace(0, 4095, 1100)
    tifffile.imwrite(tmp_path / "found.tif", pixels)
    tifffile.imwrite(tmp_path / "said.tif", pixels, extratags=[(341, 3, 1, 16383)])
    sandbox = learning.Sandbox()
    try:
        for name, expected in (("found.tif", (0, 4095)), ("said.tif", (0, 16383))):
            source = learning.Source(name, (tmp_path / name).stat().st_size, 0)
            (wanted,) = learning.choose(
                [source], pixels.size, Options(tmp_path, tmp_path / "x.basis", "x", megapixels=0.2)
            )
            (sample,) = learning.take(wanted, sandbox)
            assert sample.levels == expected and sample.pixels.max() < 1100
    finally:
        sandbox.close()


def test_a_budget_chooses_pictures_alike_everywhere():
    sources = [learning.Source(f"{i}.png", 10, 0) for i in range(1000)]
    options = Options(learning.Path("/in"), learning.Path("/x.basis"), "x", megapixels=4.0)
    drawn = learning.draw(sources, 1)
    assert drawn == learning.draw(sources[::-1], 1) != learning.draw(sources, 2)
    wanted = learning.choose(drawn, 3_000_000, options)
    assert [w.source for w in wanted] == drawn[:16]
    assert {w.windows for w in wanted} == {1}
    assert len({w.number for w in wanted}) == 16
    assert sum(w.held_out for w in wanted) == 2
    assert len(learning.choose(drawn, 10_000, options)) == 400
    few = learning.choose(drawn[:3], 3_000_000, options)
    assert {w.windows for w in few} == {6} and not any(w.held_out for w in few)


def test_compressing_with_it_and_back(own, folder, tmp_path):
    _, path = own
    done = command("--input", folder, "--output", tmp_path / "out", "--basis", path, "--no-report")
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stderr
    archive = tmp_path / "out" / "0.laff.gz"
    assert archives(tmp_path / "out")["0.laff.gz"] == femto.encode(
        picture(72, 88, 0), source="0.png", basis=str(path)
    )

    def back(*arguments):
        return command_here(decompressor.main, archive, "-o", *arguments, cwd=tmp_path)

    lost = back("a.png")
    assert_plain_error(lost, "0.laff.gz", "'own'", "--basis", status=1)
    there = back("a.png", "--basis", path)
    assert there.returncode == 0, there.stderr
    photo = JOB / "femto" / "data" / "photo.basis"
    wrong = back("b.png", "--basis", photo)
    assert_plain_error(wrong, "0.laff.gz", "photo.basis is not", status=1)
    (tmp_path / "out" / "basis").mkdir()
    shutil.copy(path, tmp_path / "out" / "basis")
    # A process that has not seen this basis yet.
    beside = command(archive, "-o", tmp_path / "c.png", program=JOB / "decompressor.py")
    assert beside.returncode == 0, beside.stderr
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "c.png").read_bytes()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--input", "nowhere", "--output", "x.basis"], ["nowhere", "--input"]),
        (["--input", ".", "--output", "x.basis"], ["no pictures", "--recursive"]),
        (["--input", ".", "--output", "x.zip"], ["x.zip", "NAME.basis"]),
        (["--input", ".", "--output", "no/x.basis"], ["no", "make it"]),
        (["--input", ".", "--output", "x.basis", "--megapixels", "0"], ["--megapixels"]),
    ],
)
def test_wrong_arguments(arguments, words, tmp_path):
    (tmp_path / "sub").mkdir()
    assert_plain_error(command_here(train.main, *arguments, cwd=tmp_path), *words)


def test_a_basis_that_is_none(run, tmp_path):
    (tmp_path / "bad.basis").write_bytes(b"nothing")
    with pytest.raises(JobError, match=r"bad\.basis"):
        run(basis=str(tmp_path / "bad.basis"))


def test_no_picture_that_can_be_read(run, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"\xff\xd8\xff nothing")
    with pytest.raises(JobError, match="none of its pictures"):
        run(input=tmp_path / "in")
