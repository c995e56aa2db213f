"""Lossless archives by the job: exact, and said to be."""

import csv

import numpy as np
import pytest
import tifffile
from job_tools import picture, save
from PIL import Image

import femto
from femto import __main__ as command
from femto.job.records import Records


@pytest.fixture
def folder(tmp_path):
    here = tmp_path / "in"
    save(here / "small.png", picture(30, 40, 1))
    save(here / "wide.png", picture(24, 1500, 2, channels=1))  # two tiles, shared by tasks
    save(
        here / "labels.png",
        np.kron(np.arange(80).reshape(8, 10) % 7, np.ones((16, 16), int)).astype(np.uint8) * 30,
    )
    with tifffile.TiffWriter(here / "floats.tif") as tif:
        tif.write(picture(30, 40, 3, channels=1).astype(np.float32) / 7)
    return here


def femto_picture(path):
    """The pixels of a picture file."""
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_folder_is_kept_as_it_is(folder, tmp_path, capsys):
    output = tmp_path / "out"
    words = ["compress", str(folder), str(output), "-j", "1", "--cut-above", "0.03"]
    assert command.main([*words, "--lossless"]) == 1
    printed = capsys.readouterr().out
    assert "every archive is lossless" in printed
    assert "floats.tif: its samples are mapped to 65536 levels, which is not exact" in printed
    with Records(output) as records:
        assert {r["psnr"] for r in records} == {float("inf")}
    with open(output / "report.csv", newline="") as file:
        rows = {row["picture"]: row for row in csv.DictReader(file)}
    for name in ("small", "wide", "labels"):
        expected = femto_picture(folder / f"{name}.png")
        found = femto.decode(output / f"{name}.laff.gz")
        np.testing.assert_array_equal(found, expected)
        assert femto.info(output / f"{name}.laff.gz")["max_error"] == 0
        assert not rows[f"{name}.png"]["warnings"], "that it is exact is no fault"
    assert "lossless, quality 20 below" in (output / "report.html").read_text()
    # Unchanged, and made again where another bound is asked for.
    assert command.main([*words, "--lossless"]) == 1
    assert "3 unchanged" in capsys.readouterr().out
    assert command.main([*words, "--max-error", "2"]) == 1
    assert "3 compressed" in capsys.readouterr().out
    assert femto.info(output / "wide.laff.gz")["max_error"] == 2


@pytest.mark.parametrize(("words", "said"), [
    (["--lossless", "--ratio", "9"], "go without --ratio and --psnr"),
    (["--max-error", "1", "--psnr", "40"], "go without --ratio and --psnr"),
    (["--max-error", "65536"], "at most 65535"),
    (["--lossless", "--max-error", "1"], "not allowed with"),
])  # fmt: skip
def test_options_that_do_not_go_together(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["compress", "in", "out", *words])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
