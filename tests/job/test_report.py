"""The report as a page and as a table, and what is printed."""

import csv
import dataclasses
import math
import re
import tracemalloc
from pathlib import Path

import pyarrow.parquet
import pytest
from job_tools import rows as read_rows

from femto.files.folder import LeftOut
from femto.job import page, plan, report
from femto.job.compressing import Options, Outcome
from femto.job.progress import bytes_text, seconds_text
from femto.job.summary import summary


def done(name: str, **changes) -> dict:
    return {
        "picture": name, "page": 0, "pages": 1, "label": None, "status": "done", "error": None,
        "archive": name + ".laff.gz", "width": 300, "height": 200, "mode": "RGB", "bits": 8,
        "source_bytes": 5000, "raw_bytes": 180_000, "archive_bytes": 6000, "psnr": 38.5,
        "ssim": 0.97, "seconds": 1.25, "visual": None, "target_met": None, "notes": [],
        "warnings": [], **changes,
    }  # fmt: skip


def failed(name: str, reason: str) -> dict:
    return {
        "picture": name,
        "page": 0,
        "pages": 1,
        "label": None,
        "status": "failed",
        "error": reason,
    }


@pytest.fixture
def options(tmp_path):
    return Options(input=Path("my <pictures>"), output=tmp_path)


def left_out(*names: str) -> LeftOut:
    found = LeftOut()
    for name in names:
        found.add_file(name)
    return found


def parquet(folder: Path) -> list[dict]:
    return pyarrow.parquet.read_table(folder / "report.parquet").to_pylist()


def test_page_and_tables_hold_every_picture(options):
    visual = {"thumbnail": "QUJD", "original": "QUJE", "decoded": "QUJF"}
    rows = [done(f"{i:04}.png", visual=visual) for i in range(300)]
    rows += [failed("<b>.png", "it's <broken>: mend & retry"), done("x.png", status="skipped")]
    outcome = Outcome(rows, left_out("notes.txt"), 12.0, 18_000_000, 2)
    text = report.write(options, outcome)[0].read_text()
    assert text.count("<tr class=") == 302
    assert text.count("<article>") == plan.SHOWN
    assert "&lt;b&gt;.png" in text and "<b>.png" not in text
    assert "it&#x27;s &lt;broken&gt;: mend &amp; retry" in text
    assert "1 other file (1 .txt): notes.txt" in text and "viewport" in text
    # Self-contained: nothing is fetched, nothing runs.
    assert 'src="data:' in text
    assert not re.search(r'(?:src|href)=(?!"data:)', text)
    assert not re.search(r"https?://|<script|@import|url\(", text)
    assert len(read_rows(options.output)) == 302
    row = read_rows(options.output)["0000.png"]
    assert (row["ratio"], row["psnr_db"], row["ssim"]) == ("30.000", "38.50", "0.97000")
    assert read_rows(options.output)["<b>.png"]["error"].startswith("it's")
    table = parquet(options.output)
    assert [r["picture"] for r in table] == [r["picture"] for r in rows]
    assert table[0]["psnr_db"] == 38.5 and table[0]["archive_bytes"] == 6000
    assert table[300]["error"] == "it's <broken>: mend & retry" and table[300]["ratio"] is None


class Once:
    """Rows that are made as they are read, and count who reads: every third one failed."""

    def __init__(self, count: int, **changes):
        self.count, self.changes, self.passes = count, changes, 0

    def __iter__(self):
        self.passes += 1
        for i in range(self.count):
            name = f"{i:07}{self.changes.get('name', '.png')}"
            if i % 3 == 0:
                yield failed(name, "<broken>" * 300)
            else:
                notes = ["<noted>" * 400]
                yield done(name, psnr=30 + i % 7, warnings=notes, notes=notes, visual=VISUAL)


VISUAL = {"thumbnail": "A" * 9_000, "original": "B" * 400_000, "decoded": "C" * 400_000}
"""Crops of noise."""


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> dict[int, tuple]:
    """Folders of reports by their number of rows: folder, passes over the rows, peak of memory."""
    made = {}
    for count in (2_000, 8_000):
        folder = tmp_path_factory.mktemp("report")
        rows = Once(count, name="<&>" * 900 + ".png")
        wanted = Options(input=Path("<in>" * 900), output=folder)
        outcome = Outcome(rows, left_out(*(f"<{i}>" * 900 for i in range(500))))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(report, "BATCH", 500)
            tracemalloc.start()
            report.write(wanted, outcome)
        made[count] = folder, rows.passes, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return made


def test_the_report_of_any_number_of_rows_is_small_and_made_in_one_pass(reports):
    few, many = reports[2_000], reports[8_000]
    assert (few[1], many[1]) == (1, 1)
    assert many[2] < 1.1 * few[2] + 1_000_000
    sizes = [(folder / "report.html").stat().st_size for folder, *_ in (few, many)]
    assert max(sizes) < page.MAX_BYTES and sizes[1] < 1.1 * sizes[0]
    for count, (folder, *_) in reports.items():
        with open(folder / "report.csv", newline="") as file:
            assert sum(1 for _ in csv.reader(file)) == count + 1
        assert pyarrow.parquet.read_metadata(folder / "report.parquet").num_rows == count
        text = (folder / "report.html").read_text()
        assert f"The first 100 of {-(-count // 3)}; all are in failures.csv" in text
        assert 1 <= text.count("<article>") < plan.SHOWN


def test_the_table_is_a_sample_that_is_spread_evenly(options):
    rows = [done(f"{i:05}.png") for i in range(page.ROWS * 3)]
    text = report.write(options, Outcome(rows))[0].read_text()
    names = re.findall(r"<td>(\d+).png", text)
    assert names == [f"{i:05}" for i in range(0, 3 * page.ROWS, 4)]
    assert f"{len(names)} of {3 * page.ROWS}" in text and "report.parquet" in text


FORMULAS = ['=HYPERLINK("x")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"]


def test_no_name_and_no_reason_becomes_a_formula(options):
    rows = [failed(name + ".png", name) for name in FORMULAS]
    rows += [done(name + ".tif", warnings=[name], notes=[name], archive=name) for name in FORMULAS]
    report.write(options, Outcome([*rows, failed("a=1.png", "b-1")]))
    for name in ("report.csv", "failures.csv"):
        with open(options.output / name, newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [c for c in cells if c.startswith(("=", "+", "-", "@", "\t", "\r"))]
        assert {"'" + f + ".png" for f in FORMULAS} | {"a=1.png", "b-1"} <= set(cells)
    # For computing they are as they are.
    table = parquet(options.output)
    assert [r["error"] for r in table[:6]] == FORMULAS
    assert [r["archive"] for r in table[6:12]] == FORMULAS


def test_failures_have_a_file_as_long_as_there_are_any(options):
    written = report.write(options, Outcome([done("a.png"), failed("b.png", "broken, so")]))
    table = options.output / "failures.csv"
    assert written[-1] == table
    assert table.read_text().splitlines() == [
        "picture,page,which,source_bytes,error", 'b.png,1,,,"broken, so"'
    ]  # fmt: skip
    options = dataclasses.replace(options, report=False)
    assert report.write(options, Outcome([failed("c.png", "no")])) == [table]
    assert "c.png" in table.read_text()
    assert report.write(options, Outcome([done("a.png")])) == [] and not table.exists()


def test_a_report_that_cannot_be_written_leaves_the_last_one(options, monkeypatch):
    report.write(options, Outcome([done("a.png"), failed("b.png", "x")]))
    before = {p.name: p.read_bytes() for p in options.output.iterdir()}

    class Broken:
        def __iter__(self):
            yield failed("c.png", "y")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        report.write(options, Outcome(Broken()))
    assert {p.name: p.read_bytes() for p in options.output.iterdir()} == before


def test_unmeasured_and_perfect_pictures(options):
    rows = [done("a", psnr=None, ssim=None), done("b", psnr=math.inf, ssim=None), done("c")]
    text = report.write(options, Outcome(rows))[0].read_text()
    table = read_rows(options.output)
    assert [table[n]["psnr_db"] for n in "abc"] == ["", "inf", "38.50"]
    assert [table[n]["ssim"] for n in "abc"] == ["", "", "0.97000"]
    assert "mean SSIM of 1 of 3 pictures" in text
    said = summary(options, Outcome(rows))
    assert "PSNR 38.5 dB on average" in said
    assert "SSIM 0.9700 on average, of 1 of 3 pictures" in said


def test_sizes_speak_of_files_first_and_of_raw_pixels_second(options):
    two = {"pages": 2, "source_bytes": 30_000}
    rows = [done("a", page=0, **two), done("a", page=1, **two), done("b", source_bytes=6000)]
    said = summary(options, Outcome(rows)).splitlines()
    files = "36 kB of files became 18 kB of archives: 2.0 times smaller, 18 kB saved"
    assert said[2:4] == [files, "540 kB of raw pixels: 30.0 times smaller, 0.80 bits per pixel"]
    text = report.write(options, Outcome(rows))[0].read_text()
    assert "<b>2.0×</b><span>smaller files: 36 kB → 18 kB, 18 kB saved</span>" in text
    assert text.index("smaller files") < text.index("smaller than 540 kB of raw pixels")
    # Of a file of which one picture failed, the others count for their share.
    said = summary(options, Outcome([rows[0], failed("a", "no"), rows[2]]))
    assert "21 kB of files became 12 kB of archives" in said
    said = summary(options, Outcome([done("b", source_bytes=3000)]))
    assert "3 kB of files became 6 kB of archives: 2.0 times larger\n" in said


def test_what_was_left_out_is_told(options):
    found = left_out(*(f"{i}.txt" for i in range(30)), *(f"n.{c}" for c in "abcdefgh"))
    found.linked.add("old <scans>")
    found.folders.add("more")
    outcome = Outcome([done("a")], found)
    kinds = "38 other files (30 .txt, 1 .a, 1 .b, 1 .c, 1 .d, 1 .e, 3 of other kinds)"
    folders = ["1 linked folder (links are not followed)", "1 sub-folder (--recursive includes"]
    said, text = summary(options, outcome), report.write(options, outcome)[0].read_text()
    for words in (kinds, *folders):
        assert words in said and words in text
    assert "old &lt;scans&gt;" in text
    said = summary(options, Outcome([done("a")]))
    assert "left out" not in said and "SSIM 0.9700 on average\n" in said


def test_warnings_and_notes_are_in_page_table_and_summary(options):
    rows = [
        done("a.png", warnings=["the target cannot be met: <so>"], target_met=False),
        done("b.png", notes=["3 further frames", "blended"], target_met=True),
        done("c.png"),
    ]
    outcome = Outcome(rows)
    text = report.write(options, outcome)[0].read_text()
    assert "cannot be met: &lt;so&gt;" in text and "3 further frames; blended" in text
    table = read_rows(options.output)
    assert [table[n]["target_met"] for n in ("a.png", "b.png", "c.png")] == ["no", "yes", ""]
    assert table["a.png"]["warnings"] == "the target cannot be met: <so>"
    assert table["b.png"]["notes"] == "3 further frames; blended"
    said = summary(options, outcome)
    assert "1 with warnings, 1 with notes" in said
    assert "1 missed the target" in said
    assert "warning: a.png: the target cannot be met: <so>" in said


def test_names_that_are_no_unicode(options):
    name = b"\xff\xfe.png".decode("utf-8", "surrogateescape")
    report.write(options, Outcome([done(name), failed(name + "2", "x")]))
    assert [r["picture"] for r in parquet(options.output)] == [
        r"\udcff\udcfe.png",
        r"\udcff\udcfe.png2",
    ]
    text = summary(options, Outcome([done(name), failed(name + "2", "x")]))
    assert text.encode()


def test_summary_fits_on_a_screen(options):
    rows = [done("a.png"), done("b.png", status="skipped", psnr=30.0)]
    rows += [failed(f"{i}.png", "broken") for i in range(50)]
    text = summary(options, Outcome(rows, left_out("a.txt", "b.txt"), 3.0, 60_000, 2))
    assert "1 compressed, 1 unchanged, 50 failed\n" in text
    assert "left out: 2 other files (2 .txt)\n" in text
    assert "30.0 times smaller" in text
    assert "lowest 30.0 dB (b.png)" in text
    assert "and 40 more failed" in text
    assert len(text.splitlines()) < 24


def test_units():
    assert [seconds_text(s) for s in (3.2, 75, 3700)] == ["3 s", "1 min 15 s", "1 h 01 min"]
    assert [bytes_text(n) for n in (999, 12_345, 4.2e9)] == ["999 bytes", "12.3 kB", "4.2 GB"]


def test_the_summary_reads_rows_once_and_keeps_none(options):
    few, many = Once(300), Once(30_000)
    summary(options, Outcome(few))
    tracemalloc.start()
    said = summary(options, Outcome(many))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "20000 compressed, 0 unchanged, 10000 failed" in said and "9990 more failed" in said
    assert (few.passes, many.passes) == (1, 1)
    assert peak < 1_000_000
