"""The job on a local SparkContext: the same archives as femto.encode, resuming, failures."""

import base64
import io
import itertools
import os
from functools import partial

import numpy as np
import pytest
import tifffile
from job_tools import JOB, archives, picture, rows, save
from PIL import Image

import femto
from femto import cli
from femto.cli import compress
from femto.errors import JobError
from femto.job import compressing, plan, records, runner, tasks
from femto.job.compressing import Job, Options
from femto_spark.runner import SparkRunner


@pytest.fixture
def run(context, tmp_path, monkeypatch):
    """Run a job over tmp_path/in; gives its Outcome, with `parts`: tasks by description."""

    def run(**changes):
        (tmp_path / "in").mkdir(exist_ok=True)
        options = Options(
            **{"input": tmp_path / "in", "output": tmp_path / "out", "quiet": True} | changes
        )
        one = Job(options, partial(SparkRunner, context))
        parts = {}
        spread = SparkRunner.spread

        def counting(runner, function, groups, description):
            parts.setdefault(description, []).append(len(groups))
            return spread(runner, function, groups, description)

        with monkeypatch.context() as patched:
            patched.setattr(SparkRunner, "spread", counting)
            outcome = one.run()
        outcome.parts = parts
        return outcome

    run.input, run.output = tmp_path / "in", tmp_path / "out"
    return run


def statuses(outcome) -> dict[str, str]:
    return {r["picture"]: r["status"] for r in outcome.rows}


def never():
    raise AssertionError("Spark was started although there is nothing to do")


def test_archives_are_those_of_femto_encode(run):
    colour, grey = picture(60, 70, 1), picture(33, 41, 2, channels=1)
    save(run.input / "sp ace ü.png", colour, icc_profile=b"not a real profile")
    save(run.input / "grey.tif", grey)
    outcome = run()
    assert statuses(outcome) == {"sp ace ü.png": "done", "grey.tif": "done"}
    made = archives(run.output)
    assert made["grey.laff.gz"] == femto.encode(grey, source="grey.tif")
    info = femto.info(made["sp ace ü.laff.gz"])
    assert info["source"] == "sp ace ü.png"
    assert made["sp ace ü.laff.gz"] == femto.encode(colour, source="sp ace ü.png", icc=info["icc"])
    # The figures of the report are those of the archive on disk.
    row = next(r for r in outcome.rows if r["picture"] == "grey.tif")
    error = femto.decode(made["grey.laff.gz"]).astype(float) - grey
    assert row["psnr"] == pytest.approx(10 * np.log10(255**2 / np.mean(error**2)))
    assert row["archive_bytes"] == len(made["grey.laff.gz"])
    assert row["raw_bytes"] == grey.size


def test_effort_and_tune(run):
    """They reach pictures that one task codes and such as many share, and a change of them codes
    again."""
    small, wide = picture(30, 40, 1), picture(24, 2 * 1024 + 100, 4)
    save(run.input / "small.png", small)
    save(run.input / "wide.png", wide)
    for chosen in ({"effort": "fast"}, {"tune": "perceptual"}):
        outcome = run(cut_above=0.01, **chosen)
        assert set(statuses(outcome).values()) == {"done"}
        made = archives(run.output)
        assert made["small.laff.gz"] == femto.encode(small, source="small.png", **chosen)
        assert made["wide.laff.gz"] == femto.encode(wide, source="wide.png", **chosen)
        row = next(r for r in outcome.rows if r["picture"] == "wide.png")
        error = femto.decode(made["wide.laff.gz"]).astype(float) - wide
        assert row["psnr"] == pytest.approx(10 * np.log10(255**2 / np.mean(error**2)))
    assert set(statuses(run(cut_above=0.01, **chosen)).values()) == {"skipped"}


@pytest.mark.parametrize("target", [{"quality": 40}, {"ratio": 14}, {"psnr": 33}])
@pytest.mark.parametrize("reader", ["workers", "driver"])
def test_a_large_picture_is_shared_and_gives_the_same_bytes(run, target, reader, monkeypatch):
    wide = picture(24, 3 * 1024 + 100, 4)
    save(run.input / "wide.png", wide)
    # So small that memory would hold the picture in portions only, whoever reads it.
    monkeypatch.setattr(runner, "FED_BYTES", 4 * 100_000)
    monkeypatch.setattr(runner, "FED_BYTES_PER_CORE", 0)
    monkeypatch.setattr(compressing, "PORTION_NBYTES", 100_000)
    monkeypatch.setattr(compressing, "PORTION_NBYTES_PER_CORE", 0)
    outcome = run(target=target, cut_above=0.01, reader=reader)
    (row,) = outcome.rows
    assert row["status"] == "done", row["error"]
    rounds = outcome.parts["tiles of wide.png"]
    assert len(rounds) > 1 and max(rounds) > 1
    data = archives(run.output)["wide.laff.gz"]
    assert data == femto.encode(wide, source="wide.png", **target)
    error = femto.decode(data).astype(float) - wide
    assert row["psnr"] == pytest.approx(10 * np.log10(255**2 / np.mean(error**2)))
    crop = Image.open(io.BytesIO(base64.b64decode(row["visual"]["decoded"])))
    assert crop.size == (plan_crop(), 24)


@pytest.mark.parametrize("reader", ["workers", "driver"])
def test_levels_of_a_shared_picture_are_found_over_all_its_tiles(run, reader):
    """Of 12 bits in a file of 16: no tile alone has all its levels."""
    deep = picture(24, 3 * 1024 + 100, 4, channels=1).astype(np.uint16) * 5 + 700
    deep[:, :300], deep[:, 2900:] = deep[:, :300] - 700, deep[:, 2900:] + 2000
    deep[3:9, 5:90], deep[3:9, -90:-5] = 0, 4095
    save(run.input / "deep.png", deep)
    outcome = run(cut_above=0.01, reader=reader)
    (row,) = outcome.rows
    assert row["status"] == "done", row["error"]
    assert max(outcome.parts["levels of deep.png"]) > 1
    data = archives(run.output)["deep.laff.gz"]
    assert data == femto.encode(deep, source="deep.png")
    assert femto.info(data)["levels"] == [0, 4095]
    error = femto.decode(data).astype(float) - deep
    assert row["psnr"] == pytest.approx(10 * np.log10(4095**2 / np.mean(error**2)))
    assert row["warnings"] == [] and row["notes"] == []


def options_of(words):
    """The options of compress.py, from the words of a command line."""
    return cli.parse(compress, "compress.py", list(map(str, words)))


def test_strict_makes_failures_of_warnings(context, tmp_path, capsys):
    """Those of pictures that were done before, too."""
    labels = np.zeros((60, 70), np.uint8)
    labels[10:40, 20:50] = 7
    save(tmp_path / "in" / "labels.png", labels)
    save(tmp_path / "in" / "photo.png", picture(60, 70, 1))

    def compress_py(*more) -> int:
        words = ["--input", tmp_path / "in", "--output", tmp_path / "out", *more]
        return compress.run(options_of(words), partial(SparkRunner, context))

    assert compress_py() == 0
    assert "warning: labels.png: flat areas with hard edges" in capsys.readouterr().out
    assert compress_py("--strict") == 1
    assert "0 compressed, 2 unchanged, 0 failed" in capsys.readouterr().out
    assert compress_py("--strict", "--quiet", "--overwrite") == 1
    said = capsys.readouterr()
    assert not said.out and said.err.count("\n") == 1 and "labels.png: warning: " in said.err
    table = rows(tmp_path / "out")
    assert "PNG" in table["labels.png"]["warnings"] and not table["photo.png"]["warnings"]
    (tmp_path / "in" / "labels.png").unlink()
    assert compress_py("--strict") == 0


@pytest.mark.parametrize("cut_above", [100, 0.01])
def test_a_target_that_cannot_be_met_is_a_column_and_a_line(context, tmp_path, cut_above, capsys):
    save(tmp_path / "in" / "wide.png", picture(24, 1100, 4))
    words = ["--input", tmp_path / "in", "--output", tmp_path / "out", "--cut-above", cut_above]
    for ratio, met, more in ((20000, "no", []), (20, "yes", []), (20000, "no", ["--strict"])):
        options = options_of([*words, "--ratio", ratio, *more])
        assert compress.run(options, partial(SparkRunner, context)) == (1 if more else 0)
        said = capsys.readouterr().out
        assert ("1 missed the target" in said) == (met == "no")
        assert ("wide.png: the target cannot be met: ratio " in said) == (met == "no")
        row = rows(tmp_path / "out")["wide.png"]
        assert (row["status"], row["target_met"]) == ("done", met)
        assert ("instead of 20000" in row["warnings"]) == (met == "no")


def plan_crop() -> int:
    from femto.job.measure import CROP

    return CROP


def test_feeding_gives_the_same_archives(run):
    save(run.input / "a.png", picture(50, 40, 1))
    save(run.input / "grey.png", picture(50, 40, 2, channels=1))
    pages = [Image.fromarray(picture(30, 30 + i, i)) for i in range(3)]
    pages[0].save(run.input / "scan.tif", save_all=True, append_images=pages[1:])
    run(reader="workers")
    direct = archives(run.output)
    assert sorted(direct) == [
        "a.laff.gz", "grey.laff.gz", "scan.page-0001.laff.gz", "scan.page-0002.laff.gz",
        "scan.page-0003.laff.gz",
    ]  # fmt: skip
    run(reader="driver", output=run.output.parent / "fed")
    assert archives(run.output.parent / "fed") == direct
    second = femto.info(direct["scan.page-0002.laff.gz"])
    assert (second["width"], second["metadata"]) == (31, {"page": 2, "pages": 3})


def test_metadata_come_with_every_way_to_an_archive(run):
    made = Image.Exif()
    made[0x010F] = "Maker"
    for name, width in (("small", 60), ("wide", 1100)):
        save(run.input / f"{name}.jpg", picture(40, width, 1), exif=made, comment="a comment",
             dpi=(300, 300))  # fmt: skip
    pages = [Image.fromarray(picture(30, 30 + i, i)) for i in range(2)]
    pages[0].save(run.input / "scan.tif", save_all=True, append_images=pages[1:], software="me")
    run(reader="workers", cut_above=0.01)
    direct = archives(run.output)
    for name in ("small", "wide"):
        about = femto.info(direct[f"{name}.laff.gz"])
        assert about["metadata"]["text"] == [["Comment", "a comment"]]
        assert about["metadata"]["resolution"] == [300, 300, "inch"]
        assert about["properties"]["Make"] == "Maker" and about["source"] == f"{name}.jpg"
    about = femto.info(direct["scan.page-0002.laff.gz"])
    assert about["properties"]["Software"] == "me" and about["metadata"]["pages"] == 2
    run(reader="driver", output=run.output.parent / "fed", cut_above=0.01)
    assert archives(run.output.parent / "fed") == direct
    run(output=run.output.parent / "bare", cut_above=0.01, strip_metadata=True)
    for data in archives(run.output.parent / "bare").values():
        about = femto.info(data)
        assert about["metadata"] is None and about["source"] is None


def test_a_second_run_does_only_what_is_missing_or_changed(run, context):
    for i in range(4):
        save(run.input / f"{i}.png", picture(20, 20 + i, i))
    first = run()
    kept = {p.name: p.stat().st_ino for p in run.output.glob("*.laff.gz")}
    again = Job(Options(run.input, run.output, quiet=True), never).run()
    assert set(statuses(again).values()) == {"skipped"}
    facts = ("psnr", "ssim", "archive_bytes", "visual", "seconds")
    by_name = {r["picture"]: r for r in first.rows}
    for row in again.rows:
        assert {f: row[f] for f in facts} == {f: by_name[row["picture"]][f] for f in facts}
    (run.output / "0.laff.gz").unlink()
    (run.output / "1.laff.gz").write_bytes(b"cut short")
    save(run.input / "2.png", picture(20, 25, 9))
    third = run()
    assert statuses(third) == {
        "0.png": "done", "1.png": "done", "2.png": "done", "3.png": "skipped"
    }  # fmt: skip
    assert (run.output / "3.laff.gz").stat().st_ino == kept["3.laff.gz"]
    assert femto.info(run.output / "2.laff.gz")["width"] == 25


def test_touching_a_picture_or_changing_settings_does_it_again(run):
    path = save(run.input / "a.png", picture(20, 20, 1))
    assert statuses(run()) == {"a.png": "done"}
    assert statuses(run(target={"quality": 75})) == {"a.png": "skipped"}
    assert statuses(run(target={"quality": 30})) == {"a.png": "done"}
    assert statuses(run(target={"quality": 30}, gray=True)) == {"a.png": "done"}
    assert femto.info(run.output / "a.laff.gz")["mode"] == "L"
    assert statuses(run(target={"quality": 30}, gray=True)) == {"a.png": "skipped"}
    os.utime(path, ns=(1, 1))
    assert statuses(run(target={"quality": 30}, gray=True)) == {"a.png": "done"}
    assert statuses(run(target={"quality": 30}, gray=True, overwrite=True)) == {"a.png": "done"}


def test_another_basis_of_the_same_name_does_it_again(run, monkeypatch):
    save(run.input / "a.png", picture(20, 20, 1))
    run()

    class Other:
        name, sha256 = "photo", "another"

    monkeypatch.setattr(compressing, "load_basis", lambda name: Other)
    assert statuses(run()) == {"a.png": "done"}


def test_pages_of_one_file_are_done_one_by_one(run):
    pages = [Image.fromarray(picture(30, 30 + i, i)) for i in range(3)]
    run.input.mkdir()
    pages[0].save(run.input / "scan.tif", save_all=True, append_images=pages[1:])
    run()
    (run.output / "scan.page-0002.laff.gz").unlink()
    outcome = run()
    assert [r["status"] for r in sorted(outcome.rows, key=lambda r: r["page"])] == [
        "skipped", "done", "skipped"
    ]  # fmt: skip
    # A file with fewer pages than before is settled after one run, too.
    pages[0].save(run.input / "scan.tif")
    assert statuses(run()) == {"scan.tif": "done"}
    assert statuses(run()) == {"scan.tif": "skipped"}


def test_planes_and_bands_are_named_by_what_they_are(run):
    planes = [picture(40, 50, i, channels=1) for i in range(3)]
    run.input.mkdir()
    tifffile.imwrite(
        run.input / "cells.tif", np.stack(planes), imagej=True, metadata={"axes": "ZYX"}
    )
    tifffile.imwrite(
        run.input / "field.tif", np.dstack(planes), photometric="minisblack", planarconfig="contig"
    )
    outcome = run(report=False)
    assert statuses(outcome) == {"cells.tif": "done", "field.tif": "failed"}
    assert "--bands" in next(r["error"] for r in outcome.rows if r["error"])
    assert sorted(archives(run.output)) == [f"cells.z{i}.laff.gz" for i in (1, 2, 3)]
    # What is read is part of what an archive is made of.
    assert set(statuses(run(report=False, bands="each")).values()) == {"done"}
    made = archives(run.output)
    assert sorted(made)[3:] == [f"field.b{i}.laff.gz" for i in (1, 2, 3)]
    for i, plane in enumerate(planes, 1):
        for name in (f"cells.z{i}", f"field.b{i}"):
            decoded = femto.decode(made[f"{name}.laff.gz"]).astype(int)
            assert np.abs(decoded - plane).mean() < 5
    assert set(statuses(run(report=False, bands="each")).values()) == {"skipped"}


def test_a_basis_from_a_file(run):
    path = str(next((JOB / "femto" / "data").glob("*.basis")))
    save(run.input / "a.png", picture(20, 20, 1))
    save(run.input / "wide.png", picture(24, 2200, 4))
    run(basis=path, cut_above=0.01)
    assert archives(run.output) == {
        "a.laff.gz": femto.encode(picture(20, 20, 1), source="a.png", basis=path),
        "wide.laff.gz": femto.encode(picture(24, 2200, 4), source="wide.png", basis=path),
    }


def test_a_rival_added_later_takes_nothing_away(run):
    save(run.input / "a.png", picture(20, 20, 1))
    run()
    before = (run.output / "a.laff.gz").stat().st_ino
    save(run.input / "a.tif", picture(20, 24, 2))
    assert statuses(run()) == {"a.png": "skipped", "a.tif": "done"}
    assert (run.output / "a.laff.gz").stat().st_ino == before
    assert femto.info(run.output / "a.tif.laff.gz")["width"] == 24
    # In a folder of its own both keep their full names, whatever is done first.
    run(output=run.output.parent / "new")
    assert sorted(archives(run.output.parent / "new")) == ["a.png.laff.gz", "a.tif.laff.gz"]


def test_a_file_of_other_origin_is_not_replaced(run):
    save(run.input / "a.png", picture(20, 20, 1))
    run.output.mkdir()
    mine = run.output / "a.laff.gz"
    mine.write_bytes(b"my own file")
    outcome = run()
    assert statuses(outcome) == {"a.png": "failed"}
    assert "--overwrite" in next(iter(outcome.rows))["error"]
    assert mine.read_bytes() == b"my own file"
    assert statuses(run(overwrite=True)) == {"a.png": "done"}


def forget(output) -> None:
    for path in (output / records.STATE_FOLDER).iterdir():
        path.unlink()


@pytest.mark.parametrize("reader", ["workers", "driver"])
def test_forgotten_records_are_no_obstacle(run, reader):
    """An archive that is byte for byte what would be made is known again, no other."""
    save(run.input / "a.png", picture(20, 20, 1))
    save(run.input / "wide.png", picture(24, 2200, 4))
    run(cut_above=0.01)
    forget(run.output)
    made = archives(run.output)
    # Of another picture of the same name and size, made by somebody else.
    mine = femto.encode(picture(20, 20, 2), source="a.png")
    (run.output / "a.laff.gz").write_bytes(mine)
    outcome = run(cut_above=0.01, reader=reader)
    assert statuses(outcome) == {"a.png": "failed", "wide.png": "done"}
    assert "was not made from it" in next(iter(outcome.rows))["error"]
    assert archives(run.output) == made | {"a.laff.gz": mine}
    assert statuses(run(cut_above=0.01))["wide.png"] == "skipped"


@pytest.mark.parametrize("reader", ["workers", "driver"])
def test_a_second_folder_replaces_no_archive_of_the_first(run, reader):
    """Neither of small pictures nor of shared ones; what has no rival goes into the same output."""
    second = run.input.parent / "second"
    for folder, seed in ((run.input, 1), (second, 2)):
        save(folder / "a.png", picture(20, 20, seed))
        save(folder / "wide.png", picture(24, 2200, seed))
        save(folder / f"{seed}.png", picture(20, 20, seed))
    run(cut_above=0.01, reader=reader)
    made = archives(run.output)
    outcome = run(cut_above=0.01, reader=reader, input=second)
    assert statuses(outcome) == {"a.png": "failed", "wide.png": "failed", "2.png": "done"}
    row = next(iter(r for r in outcome.rows if r["status"] == "failed"))
    assert f"a.laff.gz is the archive of a.png in {run.input}" in row["error"]
    assert "another --output" in row["error"] and "--overwrite" in row["error"]
    assert "\n" not in row["error"]
    assert {k: v for k, v in archives(run.output).items() if k != "2.laff.gz"} == made
    assert set(statuses(run(cut_above=0.01, reader=reader)).values()) == {"skipped"}
    # Where the user says so, they are replaced; the first folder then has lost them.
    assert set(statuses(run(cut_above=0.01, input=second, overwrite=True)).values()) == {"done"}
    assert statuses(run(cut_above=0.01)) == {
        "a.png": "failed", "wide.png": "failed", "1.png": "skipped"
    }  # fmt: skip


def test_a_folder_that_was_moved_keeps_its_archives(run):
    old, new = run.input, run.input.parent / "new"
    for name in ("a.png", "b.png"):
        save(old / name, picture(20, 20, 1))
    run()
    made = {p.name: p.stat().st_ino for p in run.output.glob("*.laff.gz")}
    old.rename(new)
    outcome = run(input=new)
    assert set(statuses(outcome).values()) == {"failed"}
    assert f"--moved-from {old}" in next(iter(outcome.rows))["error"]
    with pytest.raises(JobError, match=f"nowhere: no archive in .* --moved-from takes {old}"):
        run(input=new, moved_from=old.parent / "nowhere")
    assert set(statuses(run(input=new, moved_from=old)).values()) == {"skipped"}
    assert set(statuses(run(input=new)).values()) == {"skipped"}
    assert {p.name: p.stat().st_ino for p in run.output.glob("*.laff.gz")} == made


def test_overwriting_goes_on_after_an_interruption(run, monkeypatch):
    for i in range(6):
        save(run.input / f"{i}.png", picture(20, 20, i))
    run()
    first = {p.name: p.stat().st_ino for p in run.output.glob("*.laff.gz")}
    take = Job.take

    def interrupted(self, thing, result):
        take(self, thing, result)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Job, "take", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(overwrite=True)
    second = {p.name: p.stat().st_ino for p in run.output.glob("*.laff.gz")}
    again = {name for name in first if first[name] != second[name]}
    assert again
    outcome = run(overwrite=True)
    done = {r["archive"] for r in outcome.rows if r["status"] == "skipped"}
    assert done >= again and done | {
        r["archive"] for r in outcome.rows if r["status"] == "done"
    } == set(first)
    # That one is over: the next one begins again, and so does one with other settings.
    assert set(statuses(run(overwrite=True)).values()) == {"done"}
    third = {p.name: p.stat().st_ino for p in run.output.glob("*.laff.gz")}
    assert not any(third[name] == second[name] for name in again)


@pytest.mark.parametrize("reader", ["workers", "driver"])
def test_an_output_that_is_removed_ends_the_job_at_once(run, reader, monkeypatch):
    for i in range(60):
        save(run.input / f"{i:02}.png", picture(20, 20, i))
    taken = []
    take = Job.take

    def removing(self, thing, result):
        taken.append(thing)
        if len(taken) == 1:
            run.output.rename(run.output.parent / "elsewhere")
        take(self, thing, result)

    monkeypatch.setattr(Job, "take", removing)
    with pytest.raises(JobError, match=r"was removed .* run the same command again"):
        run(reader=reader)
    assert len(taken) < 60
    assert not run.output.exists()


def test_sub_folders_are_mirrored(run):
    save(run.input / "a.png", picture(20, 20, 1))
    save(run.input / "x y" / "ü" / "a.png", picture(20, 22, 2))
    assert list(archives(run.output)) == [] and statuses(run()) == {"a.png": "done"}
    run(recursive=True)
    assert sorted(archives(run.output)) == ["a.laff.gz", "x y/ü/a.laff.gz"]


def test_output_inside_input_and_beside_the_pictures(run):
    save(run.input / "a.png", picture(20, 20, 1))
    run(output=run.input, recursive=True)
    outcome = run(output=run.input, recursive=True)
    assert statuses(outcome) == {"a.png": "skipped"}
    assert (run.input / "a.laff.gz").exists()


@pytest.mark.parametrize("reader", ["workers", "driver"])
def test_bad_pictures_fail_alone(run, reader):
    good = save(run.input / "good.png", picture(40, 40, 1))
    (run.input / "cut.png").write_bytes(good.read_bytes()[:-700])
    (run.input / "zero.png").touch()
    (run.input / "text.jpg").write_bytes(b"this is no picture")
    (run.input / "notes.txt").touch()
    outcome = run(reader=reader)
    assert statuses(outcome) == {
        "good.png": "done", "cut.png": "failed", "zero.png": "failed", "text.jpg": "failed"
    }  # fmt: skip
    assert outcome.left_out.files.first == ["notes.txt"]
    for row in outcome.rows:
        if row["status"] == "failed":
            assert row["error"] and "\n" not in row["error"]
    assert "empty" in next(r["error"] for r in outcome.rows if r["picture"] == "zero.png")
    assert list(archives(run.output)) == ["good.laff.gz"]


@pytest.mark.parametrize("reader", ["workers", "driver"])
def test_a_large_bad_picture_fails_alone(run, reader):
    path = save(run.input / "wide.png", picture(24, 2200, 1))
    path.write_bytes(path.read_bytes()[:-9000])
    save(run.input / "good.png", picture(24, 24, 1))
    outcome = run(cut_above=0.01, reader=reader)
    assert statuses(outcome) == {"wide.png": "failed", "good.png": "done"}


def test_strips_are_read_by_rows_of_tiles(run):
    pixels = picture(1100, 5000, 1)
    run.input.mkdir()
    tifffile.imwrite(run.input / "strips.tif", pixels, compression="lzw", rowsperstrip=50)
    tifffile.imwrite(run.input / "tiles.tif", pixels, compression="lzw", tile=(512, 512))
    outcome = run(cut_above=0.01, report=False)
    assert statuses(outcome) == {"strips.tif": "done", "tiles.tif": "done"}
    strips, tiles = (
        [sum(n) for what, n in outcome.parts.items() if what.startswith("tiles of " + name)]
        for name in ("strips", "tiles")
    )
    # Two rows of tiles on two cores: each row is a task.
    assert strips == [2] and tiles[0] > 2
    first, second = (femto.decode(path) for path in sorted(run.output.glob("*.laff.gz")))
    assert np.array_equal(first, second)


def test_a_file_that_shrinks_is_a_failed_row(run, monkeypatch):
    run.input.mkdir()
    path = run.input / "shrinks.tif"
    tifffile.imwrite(path, picture(1200, 1300, 1))
    save(run.input / "good.png", picture(24, 24, 1))
    group = plan.group_tiles

    def meanwhile(*arguments):
        os.truncate(path, 4096)
        return group(*arguments)

    monkeypatch.setattr(plan, "group_tiles", meanwhile)
    outcome = run(cut_above=0.5)
    assert statuses(outcome) == {"good.png": "done", "shrinks.tif": "failed"}
    (row,) = (row for row in outcome.rows if row["status"] == "failed")
    assert "copy it again" in row["error"]


def test_a_picture_larger_than_the_limit(run):
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 1 << 20, 1 << 20, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    data += struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 0) + b"IDAT"
    data += struct.pack(">I", zlib.crc32(b"IDAT"))
    run.input.mkdir()
    (run.input / "huge.png").write_bytes(data)
    outcome = run()
    assert statuses(outcome) == {"huge.png": "failed"}
    assert "pixels" in next(iter(outcome.rows))["error"]


def test_a_task_that_dies_costs_only_its_picture(run, monkeypatch):
    for i in range(6):
        save(run.input / f"{i}.png", picture(20, 20, i))
    original = tasks.compress_pictures
    monkeypatch.setattr(tasks, "compress_pictures", dying(original))
    outcome = run()
    assert [n for n, s in statuses(outcome).items() if s == "failed"] == ["3.png"]
    assert "lack of memory" in next(r["error"] for r in outcome.rows if r["error"])
    assert len(archives(run.output)) == 5


def dying(original):
    """A task function whose process is killed when it meets 3.png."""

    def compress(settings, groups):
        groups = list(groups)
        if any(item.thing.source.name == "3.png" for items in groups for item in items):
            os.kill(os.getpid(), 9)
        return original(settings, iter(groups))

    return compress


def test_a_fault_in_a_task_is_told_as_such(run, monkeypatch):
    save(run.input / "a.png", picture(20, 20, 1))

    def faulty(settings, groups):
        raise RuntimeError("a fault")

    monkeypatch.setattr(tasks, "compress_pictures", faulty)
    outcome = run()
    assert "RuntimeError: a fault" in next(iter(outcome.rows))["error"]


def test_workers_that_do_not_see_the_folders_are_fed(run, monkeypatch):
    save(run.input / "a.png", picture(20, 20, 1))
    save(run.input / "wide.png", picture(24, 2200, 4))
    monkeypatch.setattr(tasks, "compress_pictures", blind(tasks.compress_pictures))
    monkeypatch.setattr(tasks, "code_chunks", blind(tasks.code_chunks))
    outcome = run(cut_above=0.01)
    assert statuses(outcome) == {"a.png": "done", "wide.png": "done"}
    assert archives(run.output)["a.laff.gz"] == femto.encode(picture(20, 20, 1), source="a.png")
    with pytest.raises(JobError, match="--reader driver"):
        run(reader="workers", overwrite=True)


def blind(original):
    """A task function in an executor that does not see the output folder."""

    def elsewhere(settings, *arguments):
        from dataclasses import replace

        nowhere = replace(settings.folders, output="/nowhere", input="/nowhere")
        return original(replace(settings, folders=nowhere), *arguments)

    return elsewhere


def test_a_spark_that_has_stopped_ends_the_job(tmp_path):
    save(tmp_path / "in" / "a.png", picture(20, 20, 1))

    class Stopped:
        master = "spark://nobody:7077"

        @property
        def defaultParallelism(self):
            raise RuntimeError("Cannot call methods on a stopped SparkContext\n\tat ...")

    class Stopping:
        master, defaultParallelism = "spark://nobody:7077", 2

        def setJobDescription(self, text):
            raise RuntimeError("Job 0 cancelled because SparkContext was shut down\n\tat ...")

    for state, reader in itertools.product((Stopped, Stopping), ("auto", "workers")):
        options = Options(tmp_path / "in", tmp_path / "out", reader=reader, quiet=True)
        with pytest.raises(JobError, match="master does not answer") as caught:
            Job(options, partial(SparkRunner, state())).run()
        assert "\n" not in str(caught.value)


def test_a_full_disk_stops_the_job(run, monkeypatch):
    for i in range(3):
        save(run.input / f"{i}.png", picture(20, 20, i))

    def full(settings, picture, record, data, prove):
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr(tasks, "save", full)
    with pytest.raises(JobError, match=r"No space left on device.*run the same command again"):
        run(reader="driver")
    assert archives(run.output) == {}


@pytest.mark.parametrize("cut_above", [100, 0.01])
def test_some_pictures_are_shown_and_have_their_ssim_without_any_decoding(
    run, monkeypatch, cut_above
):
    monkeypatch.setattr(plan, "SHOWN", 3)
    for name in ("compress_pictures", "code_chunks"):
        monkeypatch.setattr(tasks, name, without_decoding(getattr(tasks, name)))
    for i in range(7):
        save(run.input / f"{i}.png", picture(20, 20, i))
    wide = picture(24, 1100, 4)
    save(run.input / "wide.png", wide)
    outcome = run(cut_above=cut_above, verify=False)
    assert set(statuses(outcome).values()) == {"done"}, [r["error"] for r in outcome.rows]
    shown = {r["picture"] for r in outcome.rows if r["visual"]}
    assert 2 <= len(shown) <= 3
    assert {r["picture"] for r in outcome.rows if r["ssim"] is not None} == shown
    assert all(r["psnr"] > 20 for r in outcome.rows)
    table = rows(run.output)
    assert {name for name, row in table.items() if row["ssim"]} == shown
    error = femto.decode(run.output / "wide.laff.gz").astype(float) - wide
    psnr = float(table["wide.png"]["psnr_db"])
    assert psnr == pytest.approx(10 * np.log10(255**2 / np.mean(error**2)), abs=0.01)
    outcome = run(cut_above=cut_above, ssim="all", overwrite=True, verify=False)
    assert all(0.5 < r["ssim"] <= 1 for r in outcome.rows)


def without_decoding(original):
    """A task function in whose process nothing can be decoded meanwhile."""

    def checked(settings, *arguments):
        from femto import codec

        def decode(*arguments, **options):
            raise AssertionError("something is decoded")

        kept = codec.decode_field
        codec.decode_field = decode
        try:
            yield from original(settings, *arguments)
        finally:
            codec.decode_field = kept

    return checked


def test_without_a_report_nothing_is_measured(run):
    save(run.input / "a.png", picture(20, 20, 1))
    outcome = run(report=False)
    (row,) = outcome.rows
    # PSNR is known anyway, and there if a report is wanted later.
    assert row["ssim"] is row["visual"] is None and row["psnr"] > 20
    assert sorted(p.name for p in run.output.iterdir()) == [records.STATE_FOLDER, "a.laff.gz"]


def test_failures_are_in_a_table_of_their_own_with_and_without_a_report(run):
    bad = run.input / "bad.png"
    save(run.input / "good.png", picture(20, 20, 1))
    for report in (True, False):
        bad.touch()
        outcome = run(report=report)
        table = run.output / "failures.csv"
        assert table in outcome.reports
        _, line = table.read_text().splitlines()
        assert line.startswith("bad.png,1,,") and line.endswith("copy it again")
        bad.unlink()
        run(report=report)
        assert not table.exists()
