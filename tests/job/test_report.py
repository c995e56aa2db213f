"""The report as a page and as a table, and what is printed."""

import io
import re
import tracemalloc
from pathlib import Path

import pytest
from job_tools import rows as read_rows

from femto_spark import plan, report
from femto_spark.job import Options, Outcome
from femto_spark.progress import Progress, bytes_text, seconds_text
from femto_spark.summary import summary


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


def test_page_and_table_hold_every_picture(options):
    visual = {"thumbnail": "QUJD", "original": "QUJE", "decoded": "QUJF"}
    rows = [done(f"{i:04}.png", visual=visual) for i in range(300)]
    rows += [failed("<b>.png", "it's <broken>: mend & retry"), done("x.png", status="skipped")]
    outcome = Outcome(rows, ["notes.txt"], 12.0, 18_000_000, 2)
    page, _ = report.write(options, outcome)
    text = page.read_text()
    assert text.count("<tr class=") == 302
    assert text.count("<article>") == plan.SHOWN
    assert "&lt;b&gt;.png" in text and "<b>.png" not in text
    assert "it&#x27;s &lt;broken&gt;: mend &amp; retry" in text
    assert "notes.txt" in text and "viewport" in text
    # Self-contained: nothing is fetched, nothing runs.
    assert 'src="data:' in text
    assert not re.search(r'(?:src|href)=(?!"data:)', text)
    assert not re.search(r"https?://|<script|@import|url\(", text)
    assert len(read_rows(options.output)) == 302
    row = read_rows(options.output)["0000.png"]
    assert (row["ratio"], row["psnr_db"], row["ssim"]) == ("30.000", "38.50", "0.97000")
    assert read_rows(options.output)["<b>.png"]["error"].startswith("it's")


def test_unmeasured_and_perfect_pictures(options):
    rows = [done("a", psnr=None, ssim=None), done("b", psnr=None, ssim=1.0)]
    report.write(options, Outcome(rows, []))
    table = read_rows(options.output)
    assert (table["a"]["psnr_db"], table["b"]["psnr_db"]) == ("", "inf")


def test_warnings_and_notes_are_in_page_table_and_summary(options):
    rows = [
        done("a.png", warnings=["the target cannot be met: <so>"], target_met=False),
        done("b.png", notes=["3 further frames", "blended"], target_met=True),
        done("c.png"),
    ]
    outcome = Outcome(rows, [])
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
    report.write(options, Outcome([done(name), failed(name + "2", "x")], []))
    text = summary(options, Outcome([done(name), failed(name + "2", "x")], []))
    assert text.encode()


def test_summary_fits_on_a_screen(options):
    rows = [done("a.png"), done("b.png", status="skipped", psnr=30.0)]
    rows += [failed(f"{i}.png", "broken") for i in range(50)]
    text = summary(options, Outcome(rows, ["a.txt", "b.txt"], 3.0, 60_000, 2))
    assert "1 compressed, 1 unchanged, 50 failed; 2 other files ignored (.txt)" in text
    assert "30.0 times smaller" in text
    assert "lowest PSNR 30.0 dB (b.png)" in text
    assert "and 40 more failed" in text
    assert len(text.splitlines()) < 24


def test_progress_elsewhere_than_on_a_terminal(monkeypatch):
    stream = io.StringIO()
    progress = Progress(4, 4_000_000, stream=stream)
    progress.add(pixels=1_000_000)
    progress.add(pixels=500_000, failed=True)
    progress.watch("big", lambda: 500_000)
    assert re.match(
        r"\[#{10}-{10}\] 2/4 pictures, 1 failed, 2.0/4.0 Mpixel, \d+\.\d\d Mpixel/s, .* left",
        progress.text(),
    )
    progress.refresh()
    assert stream.getvalue() == ""  # too soon for a line
    monkeypatch.setattr(Progress, "LINE_SECONDS", 0)
    progress.refresh()
    progress.close()
    assert "2/4 pictures, 1 failed" in stream.getvalue()
    assert stream.getvalue().endswith("\n") and "\r" not in stream.getvalue()


def test_progress_on_a_terminal_stays_on_one_line():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    progress = Progress(1, 10, stream=stream)
    progress._printed_at -= 10
    progress.refresh()
    progress.close()
    assert "\n" not in stream.getvalue() and stream.getvalue().startswith("\r")


def test_units():
    assert [seconds_text(s) for s in (3.2, 75, 3700)] == ["3 s", "1 min 15 s", "1 h 01 min"]
    assert [bytes_text(n) for n in (999, 12_345, 4.2e9)] == ["999 bytes", "12.3 kB", "4.2 GB"]


class Once:
    """Rows that are made as they are read, a million of them or a few, and counts who reads."""

    def __init__(self, count: int):
        self.count, self.passes = count, 0

    def __iter__(self):
        self.passes += 1
        for i in range(self.count):
            yield failed(f"{i}.png", "broken") if i % 3 == 0 else done(f"{i}.png", psnr=30 + i % 7)


def test_the_summary_reads_rows_once_and_keeps_none(options):
    few, many = Once(300), Once(30_000)
    summary(options, Outcome(few, []))
    tracemalloc.start()
    said = summary(options, Outcome(many, []))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "20000 compressed, 0 unchanged, 10000 failed" in said and "9990 more failed" in said
    assert (few.passes, many.passes) == (1, 1)
    assert peak < 200_000
