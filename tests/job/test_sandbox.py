"""Decoders that crash, hang, print or ask for too much memory, behind the sandbox."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from job_tools import JOB, picture, save

from femto.job import sandbox, tasks
from femto.job.plan import Picture, Source
from femto.job.runner import Folders
from femto.job.sandbox import Sandbox, UnreadablePicture

DECODERS = '''
"""Stands in for femto.pictures: does what a file's name says."""
import os, signal, sys, time
from dataclasses import dataclass
import numpy as np
from . import LaffError

@dataclass
class PageInfo:
    page: int = 0
    width: int = 5
    height: int = 4
    channels: int = 3
    bits: int = 8
    error: str = None

class Reader:
    shape, dtype, icc, info = (4, 5, 3), np.uint8, b"profile", PageInfo()
    metadata = {"text": []}
    def __exit__(self, *_): pass
    def __enter__(self): return self
    def __getitem__(self, window):
        return np.full(self.shape, 7, np.uint8)[window]

def probe(source, *, name):
    if "crash" in name: os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in name: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]); time.sleep(1e6)
    if "bomb" in name: np.ones(1 << 33, np.uint8)
    if "print" in name: os.write(1, b"libtiff: warning\\n"); os.write(2, b"libpng: error\\n")
    if "raise" in name: raise RuntimeError("two\\nlines")
    if "refuse" in name: raise LaffError(name + ": is not wanted; take another")
    if "exit" in name: os._exit(0)
    if "burn" in name:
        while True: pass
    for word in ("KILL", "STOP"):
        marker = os.path.join(os.path.dirname(__file__), word)
        if word in name and ("always" in name or not os.path.exists(marker)):
            open(marker, "w").close()
            os.kill(os.getpid(), getattr(signal, "SIG" + word))
    return [PageInfo()]

def open_page(source, page, *, name, gray): return Reader()
'''


@pytest.fixture
def strange(tmp_path):
    """A sandbox whose decoders misbehave on demand."""
    package = tmp_path / "femto"
    package.mkdir()
    (package / "__init__.py").write_text("class LaffError(ValueError): pass\n")
    (package / "pictures.py").write_text(DECODERS)
    (package / "container.py").write_text("def pack_metadata(metadata): return 'packed'\n")
    shutil.copytree(JOB / "femto" / "job", package / "job")
    (tmp_path / "a.png").write_bytes(b"x")
    with_limits = Sandbox(base_seconds=600, base_memory=1 << 30, search_path=[str(tmp_path)])
    yield with_limits
    with_limits.close()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("crash.png", r"its decoder crashed \(SIGSEGV\): the file is damaged"),
        ("hang.png", "its decoder took more than 2 s and was stopped"),
        ("burn.png", "its decoder took more than 2 s and was stopped"),
        ("always-KILL.png", r"was ended again and again \(SIGKILL\): memory ran out, or somebody"),
        ("always-STOP.png", "was stopped by a signal again and again"),
        ("bomb.png", "more memory than a picture of its size"),
        ("raise.png", r"cannot be read \(RuntimeError: two lines\)"),
        ("refuse.png", "^is not wanted; take another$"),
        ("exit.png", "ended without an answer"),
    ],
)
def test_a_bad_file_is_a_reason_and_the_next_one_is_read(strange, name, reason, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "LOOK_SECONDS", 0.1)
        if name in ("hang.png", "burn.png"):
            patch.setattr(strange, "_seconds", 2)
        with pytest.raises(UnreadablePicture, match=reason) as caught:
            strange.probe("unused", name=name)
    assert "\n" not in str(caught.value)
    assert strange.probe("unused", name="good.png")[0]["width"] == 5


@pytest.mark.parametrize("name", ["KILL.png", "STOP.png"])
def test_a_process_that_is_killed_or_stopped_once_is_replaced(strange, name, monkeypatch):
    monkeypatch.setattr(sandbox, "LOOK_SECONDS", 0.1)
    assert strange.probe("unused", name=name)[0]["width"] == 5
    assert strange.probe("unused", name="good.png")[0]["width"] == 5


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGSTOP])
@pytest.mark.parametrize("by_bytes", [False, True])
def test_a_process_that_ends_or_stops_between_requests_is_no_fault_of_a_picture(
    tmp_path, how, by_bytes, monkeypatch
):
    monkeypatch.setattr(sandbox, "LOOK_SECONDS", 0.1)
    pixels = picture(300, 400, 1)
    path = save(tmp_path / "a.png", pixels)
    noise = np.random.default_rng(1).integers(0, 255, (300, 400, 3), np.uint8)
    large = save(tmp_path / "b.png", noise).read_bytes()
    assert len(large) > 1 << 16  # more than a pipe holds
    reader = Sandbox()
    try:
        page = reader.open(
            None if by_bytes else str(path),
            path.read_bytes() if by_bytes else None,
            name="a.png",
            page=0,
            gray=False,
            pixels=120_000,
        )
        assert np.array_equal(page[:150, :], pixels[:150])
        for rows in ((150, 200), (200, 300)):
            os.kill(reader._process.pid, how)
            assert np.array_equal(page[rows[0] : rows[1], :], pixels[rows[0] : rows[1]])
        os.kill(reader._process.pid, how)
        assert reader.probe(None, large, name="b.png")[0]["width"] == 400
        os.kill(reader._process.pid, how)
        # Meanwhile the file became another one.
        save(path, picture(20, 40, 2))
        if by_bytes:
            assert np.array_equal(page.read(), pixels)
        else:
            with pytest.raises(UnreadablePicture, match="became another picture while it was"):
                page.read()
    finally:
        reader.close()


def test_a_process_that_cannot_start_is_no_fault_of_a_picture(tmp_path):
    reader = Sandbox(search_path=[str(tmp_path)])
    with pytest.raises(UnreadablePicture, match="its reading process did not start to read it"):
        reader.probe("unused", name="a.png")


def test_a_process_waits_for_nobody_who_is_gone(strange, tmp_path):
    code = (
        "import sys; from femto.job.sandbox import Sandbox; "
        "s = Sandbox(search_path=[sys.argv[1]]); s.probe('unused', name='good.png'); "
        "print(s._process.pid, flush=True); s.probe('unused', name='hang.png')"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(JOB)},
    )
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    while "Z" not in sandbox._threads(child)[0] and Path(f"/proc/{child}").exists():
        time.sleep(0.05)


def test_what_decoders_print_disturbs_nobody(strange, capfd):
    assert strange.probe("unused", name="print.png")[0]["height"] == 4
    assert capfd.readouterr() == ("", "")


def test_windows_and_profile(strange, tmp_path):
    page = strange.open(str(tmp_path / "a.png"), name="a", page=0, gray=False, pixels=20)
    assert (page.shape, page.dtype, page.icc) == ((4, 5, 3), np.uint8, b"profile")
    assert page[1:3, 0:2].shape == (2, 2, 3)
    assert page.read().tolist() == np.full((4, 5, 3), 7).tolist()


def test_real_pictures_by_path_and_by_bytes(tmp_path):
    pixels = picture(30, 40, 1)
    path = save(tmp_path / "a.png", pixels)
    reader = Sandbox()
    try:
        assert reader.probe(str(path), name="a.png") == reader.probe(
            None, path.read_bytes(), name="a.png"
        )
        by_path = reader.open(str(path), name="a.png", page=0, gray=False, pixels=1200)
        assert np.array_equal(by_path.read(), pixels)
        # The same path with other pixels is another picture.
        save(path, picture(20, 40, 2))
        again = reader.open(str(path), name="a.png", page=0, gray=False, pixels=800)
        assert again.shape == (20, 40, 3)
        by_bytes = reader.open(None, path.read_bytes(), name="a.png", page=0, gray=True, pixels=800)
        assert by_bytes.read().shape == (20, 40)
        path.unlink()
        with pytest.raises(UnreadablePicture, match="No such file"):
            reader.open(str(path), name="a.png", page=0, gray=False, pixels=1200)
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("height", "width", "samples"), [(40_000, 30_000, 1), (40_000, 25_000, 3), (83_334, 80_000, 3)]
)
def test_gigabytes_are_read_in_bounded_memory(tmp_path, height, width, samples):
    path = tmp_path / "huge.tif"
    shape = (height, width, samples)
    tifffile.imwrite(
        path,
        shape=shape if samples == 3 else shape[:2],
        dtype=np.uint8,
        photometric="rgb" if samples == 3 else "minisblack",
        metadata=None,
    )
    assert path.stat().st_blocks < 1000  # a hole
    reader = Sandbox()
    try:
        (found,) = reader.probe(str(path), name="huge.tif")
        assert (found["height"], found["width"], found["error"]) == (height, width, None)
        page = reader.open(
            str(path), name="huge.tif", page=0, gray=False, pixels=found["height"] * found["width"]
        )
        for y in (0, height - 1024):
            for x in (0, 1024, width - 1024):
                assert not page[y : y + 1024, x : x + 1024].any()
        peak = Path(f"/proc/{reader._process.pid}/status").read_text().partition("VmHWM:")[2]
        assert int(peak.split()[0]) < 200_000
        os.truncate(path, 1 << 20)
        with pytest.raises(UnreadablePicture, match="became shorter while it was read"):
            page[height - 1024 : height, :1024]
    finally:
        reader.close()


def test_a_task_opens_a_page_without_reading_the_others(tmp_path):
    path = tmp_path / "pages.tif"
    with tifffile.TiffWriter(path) as tif:
        for i in range(1000):
            tif.write(np.full((9, 9), i % 200, np.uint8), contiguous=False, metadata=None)
    status = path.stat()
    source = Source("pages.tif", status.st_size, status.st_mtime_ns)
    settings = SimpleNamespace(
        folders=Folders(str(tmp_path), str(tmp_path), "run"),
        options=SimpleNamespace(gray=False, reading={}),
    )
    reader = Sandbox()

    def read_so_far() -> int:
        counts = Path(f"/proc/{reader._process.pid}/io").read_text()
        return int(counts.partition("rchar:")[2].split()[0])

    try:
        pages = reader.probe(str(path), name="pages.tif")
        whole = read_so_far()
        for page in pages[::100]:
            picture = Picture(source, page["page"], 1000, 9, 9, 1, 8, "a", "a", place=page["place"])
            before = read_so_far()
            opened = tasks.read_page(settings, picture, sandbox=reader)
            assert (opened.read() == page["page"] % 200).all()
            assert read_so_far() - before < 50_000 < whole
    finally:
        reader.close()


def test_a_file_that_this_user_may_not_read(tmp_path, monkeypatch):
    path = save(tmp_path / "secret.png", picture(8, 8, 1))
    path.chmod(0o000)
    if os.getuid() == 0:  # root may read everything, unless it gives that right up
        if shutil.which("setpriv") is None:
            pytest.skip("run by root, and there is no setpriv to give up root's rights")
        without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        start = subprocess.Popen
        monkeypatch.setattr(
            sandbox.subprocess, "Popen", lambda command, **k: start(without + command, **k)
        )
    reader = Sandbox()
    try:
        with pytest.raises(UnreadablePicture, match="Permission denied"):
            reader.probe(str(path), name="secret.png")
    finally:
        reader.close()


def test_hostile_files_never_end_it():
    data = Path(os.environ.get("FEMTO_DATA", JOB.parent.parent / "shared" / "data"), "hostile")
    if not data.is_dir():
        pytest.skip(f"{data} is absent: set FEMTO_DATA to the data folder")
    reader = Sandbox()
    try:
        for path in sorted(data.iterdir()):
            try:
                for page in reader.probe(str(path), name=path.name):
                    if page["error"] is None:
                        reader.open(
                            str(path),
                            name=path.name,
                            page=page["page"],
                            gray=False,
                            pixels=page["width"] * page["height"],
                        ).read()
            except UnreadablePicture as error:
                assert str(error) and "\n" not in str(error)
        assert reader.probe(None, _png(), name="a.png")[0]["width"] == 9
    finally:
        reader.close()


def _png() -> bytes:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture(9, 9, 1)).save(out, "PNG")
    return out.getvalue()
