"""What a job says while it runs, and how far its processes are."""

import io
import re
import threading
import time
from functools import partial

import pytest
from job_tools import HANGS, picture, save

from femto import build
from femto.coding import signatures
from femto.job import progress, pulse, tasks
from femto.job.compressing import Job, Options
from femto.job.progress import Progress
from femto.job.pulse import Pulse, Seen, Share
from femto_spark.runner import SparkRunner

LINE = re.compile(r"\d\d:\d\d:\d\d (.*)\n")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def until(condition) -> None:
    end = time.monotonic() + HANGS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_pictures_and_what_is_seen_of_those_under_way():
    seen = Seen()
    said = Progress(stream=io.StringIO())
    said.LINE_SECONDS, progress.LOOK_SECONDS = 0, 0
    said.begin(4, 20_000_000, look=lambda: seen)
    assert said.text().startswith("[--------------------] 0/4 pictures, 0.0/20.0 Mpixel, 0.00 Mp")
    # One of 12 megapixels moves the line while its task lasts.
    for megapixels, bar in ((3, "###"), (6, "######"), (11.8, "############")):
        seen = Seen(megapixels * 1e6)
        said.refresh()
        assert f"[{bar}{'-' * (20 - len(bar))}] 0/4 pictures, {megapixels:.1f}/20.0" in said.text()
    said.add(pixels=12_000_000)
    assert "] 1/4 pictures, 12.0/20.0 Mpixel" in said.text()
    said.add(pixels=2_000_000, failed=True)
    assert "] 2/4 pictures, 1 failed, 14.0/20.0 Mpixel" in said.text()
    # One that many tasks share, in about two passes, by processes that are seen and others.
    said.watch("big", 4_000_000, 2)
    said.count("big", 1_000_000)
    seen = Seen(14e6, {pulse.short("big"): 3e6})
    said.refresh()
    assert "16.0/20.0 Mpixel" in said.text() and said.text().endswith(" left")
    seen = Seen(2e6, {}, compiling=True)  # a process has ended: what was reached stays
    said.refresh()
    assert "16.0/20.0 Mpixel" in said.text() and "compiling (once on every machine)" in said.text()
    said.add(pixels=4_000_000, key="big")
    seen = Seen(18e6)
    said.refresh()
    assert "3/4 pictures, 1 failed, 20.0/20.0" in said.text()


def test_phases_are_named_while_they_last():
    said = Progress(stream=io.StringIO())
    said.phase("starting Spark")
    assert said.text() == "starting Spark, 0 s"
    said.phase("reading headers", total=200, unit="files")
    assert said.text() == "[--------------------] reading headers: 0/200 files"
    said.step(50)
    assert said.text().startswith("[#####---------------] reading headers: 50/200 files, ")


def test_in_logs_no_line_comes_twice_and_none_before_its_time(monkeypatch):
    stream = io.StringIO()
    said = Progress(stream=stream)
    clock = time.monotonic()
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock)
    said.phase("reading headers", total=9, unit="files")
    said.step()
    for _ in range(100):
        clock += 0.9
        said.refresh()
    lines = LINE.findall(stream.getvalue())
    assert len(lines) == 2 and len(set(lines)) == 2 and "\r" not in stream.getvalue()
    monkeypatch.setattr(said, "text", lambda: "nothing new")
    for _ in range(100):
        clock += 0.9
        said.refresh()
    assert LINE.findall(stream.getvalue())[2:] == ["nothing new"]


def test_the_playbook_knows_a_line_of_progress(repository):
    stream = io.StringIO()
    said = Progress(stream=stream)
    said.LINE_SECONDS = 0
    said.refresh()
    watch = (repository / "plugins" / "action" / "femto_watch.py").read_text()
    pattern = re.search(r'^PROGRESS = "(.+)"$', watch, re.MULTILINE)[1]
    assert re.match(pattern, stream.getvalue())
    assert not re.match(pattern, "compress.py: interrupted")


def test_on_a_terminal_it_stays_on_one_line_and_goes_in_the_end():
    stream = Terminal()
    with Progress(stream=stream) as said:
        said.phase("starting Spark")
        until(lambda: "starting Spark, " in stream.getvalue())
        assert "\n" not in stream.getvalue()
        said.say("no worker yet")
    assert "\r\x1b[Kno worker yet\n" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[K")
    stream = Terminal()
    with Progress(stream=stream, quiet=True) as said:
        said.say("a word")
    assert stream.getvalue() == ""


def test_what_processes_tell_adds_up(tmp_path, monkeypatch):
    monkeypatch.setattr(Pulse, "SECONDS", 0)
    names = [tmp_path / f"{pulse.PREFIX}run-{i}" for i in range(2)]
    one, two = map(Pulse, names)
    Pulse(tmp_path / f"{pulse.PREFIX}other-1").add(7)
    (tmp_path / f"{pulse.PREFIX}run-3").write_bytes(b"[1, {")  # it is being written
    one.add(100)
    two.add(10, "a key" * 999)
    one.add(5, "a key" * 999)
    assert pulse.look(tmp_path, "run") == Seen(100, {pulse.short("a key" * 999): 15})
    for i in range(100):
        one.add(1, str(i))
    assert names[0].stat().st_size == 2048
    assert pulse.look(tmp_path, "run").parts[pulse.short("99")] == 1
    for each in (one, two):
        each.close()
        each.add(1)  # nobody hears of it
    pulse.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []
    unheard = Pulse(tmp_path / "no folder" / "name")
    unheard.add(3)
    unheard.close()


def test_tiny_pictures_are_not_told_one_by_one(tmp_path, monkeypatch):
    writes = []
    monkeypatch.setattr(pulse.os, "pwrite", lambda *what: writes.append(what))
    monkeypatch.setattr(Pulse, "SECONDS", HANGS)
    one = Pulse(tmp_path / "told")
    for _ in range(1000):
        one.add(1)
    one.close()
    assert len(writes) == 1


def test_a_picture_counts_once_whatever_came_of_it_and_however_many_passes_it_took(tmp_path):
    one = Pulse(tmp_path / "told")
    with Share(one, 1000, 2) as share:
        for _ in range(2):
            share.add(400)
        assert one._pixels == 400
        for _ in range(20):
            share.add(400)
        assert one._pixels == 980
    assert one._pixels == 1000
    with pytest.raises(ValueError, match="broken"), Share(one, 500, 1):
        raise ValueError("broken")
    assert one._pixels == 1500
    one.close()


def test_compiling_is_noticed_until_a_tile_is_done(tmp_path, monkeypatch):
    one = Pulse(tmp_path / f"{pulse.PREFIX}run-1")
    kernel = signatures.KERNELS[0].variants[0]
    monkeypatch.setattr(build, "cache_folder", lambda: None)
    assert build.address(kernel)
    assert pulse.look(tmp_path, "run").compiling
    one.add(9)
    assert pulse.look(tmp_path, "run") == Seen(9)
    one.close()


@pytest.mark.parametrize("cut_above", [100, 0.01])
def test_a_picture_moves_the_line_before_it_is_done(context, tmp_path, monkeypatch, cut_above):
    save(tmp_path / "in" / "wide.png", picture(16, 3 * 1024, 1))
    phases = []
    phase = Progress.phase
    monkeypatch.setattr(
        Progress,
        "phase",
        lambda self, title, **what: (phases.append(title), phase(self, title, **what))[1],
    )
    monkeypatch.setattr(Progress, "LINE_SECONDS", 0)
    for name in ("compress_pictures", "code_chunks"):
        monkeypatch.setattr(tasks, name, held(getattr(tasks, name), str(tmp_path / "go")))
    stream = io.StringIO()
    monkeypatch.setattr(progress.sys, "stderr", stream)
    options = Options(tmp_path / "in", tmp_path / "out", cut_above=cut_above)
    outcome = []
    one = Job(options, partial(SparkRunner, context))
    thread = threading.Thread(
        target=lambda: outcome.append(one.run()),
        daemon=True,
    )
    thread.start()
    # A third of it is there, while its task, or one of its tasks, is held.
    until(lambda: "[#######-------------] 0/1 pictures, 0.0/0.0 Mpixel" in stream.getvalue())
    assert not outcome
    (tmp_path / "go").touch()
    thread.join(HANGS)
    assert outcome[0].count("done") == 1
    assert [title for title in phases if title != "starting"] == [
        "looking for pictures", "looking what is done", "starting the workers",
        "waiting for the workers", "reading headers", "naming archives", "writing the report",
    ]  # fmt: skip
    assert not list((tmp_path / "out" / ".femto-job").glob(f"{pulse.PREFIX}*"))


def held(original, go: str):
    """A task function that codes no tile but the first before there is a file `go`."""

    def task(settings, *arguments):
        import os
        import time

        from femto import codec

        kept = codec.encode_tile
        first = []

        def encode_tile(pixels, **options):
            if pixels.shape[1] != 1024 or first or os.path.exists(go + "-first"):
                while not os.path.exists(go):
                    time.sleep(0.05)
            first.append(True)
            open(go + "-first", "w").close()
            return kept(pixels, **options)

        codec.encode_tile = encode_tile
        try:
            yield from original(settings, *arguments)
        finally:
            codec.encode_tile = kept

    return task
