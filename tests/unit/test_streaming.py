"""Archives that arrive on a pipe, layer by layer."""

import contextlib
import io
import os
import subprocess
import sys
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image
from test_codec import psnr, scene
from test_decompressor import HANGS, SCRIPT

import femto
from femto.container import bounds

IMAGE = scene(150, 200)


@pytest.fixture(scope="module")
def archive():
    return femto.encode(IMAGE, quality=80)


def ends(archive: bytes) -> list[int]:
    """How many bytes of the archive have to arrive until each layer is there."""
    unpack, text, found = zlib.decompressobj(31), b"", []
    layers = femto.info(archive)["layers"]
    for at in range(len(archive)):
        text += unpack.decompress(archive[at : at + 1])
        begin = text.find(b'"strings":[')
        while begin >= 0 and len(found) < min(layers, text[begin + 11 :].count(b"]")):
            found.append(at + 1)
    return found


@pytest.mark.parametrize("effort", ["full", "fast"])
def test_every_layer_is_decoded_when_it_is_there(effort):
    """The writer sends the next layer only when the picture of the last has been seen."""
    archive = femto.encode(IMAGE, quality=80, effort=effort)
    layers = femto.info(archive)["layers"]
    seen = threading.Semaphore(0)
    reading, writing = os.pipe()

    def write():
        with open(writing, "wb", buffering=0) as pipe:
            begin = 0
            for end in ends(archive):
                pipe.write(archive[begin:end])
                begin = end
                assert seen.acquire(timeout=HANGS)
            pipe.write(archive[begin:])

    writer = threading.Thread(target=write)
    writer.start()
    qualities = []
    with open(reading, "rb") as pipe:
        for count, picture in enumerate(femto.decode_layers(pipe), 1):
            assert (picture == femto.decode(archive, layers=count)).all()
            qualities.append(psnr(IMAGE, picture))
            seen.release()
    writer.join()
    assert len(qualities) == layers
    assert qualities == sorted(qualities)


@pytest.mark.parametrize("plain", [False, True])
def test_a_file_gives_the_same_pictures(archive, plain):
    data = zlib.decompress(archive, 31) if plain else archive
    pictures = list(femto.decode_layers(io.BytesIO(data)))
    assert len(pictures) == femto.info(archive)["layers"]
    assert (pictures[-1] == femto.decode(archive)).all()


def test_what_came_before_a_cut_is_good(archive):
    layers = ends(archive)
    for cut in (0, 5, layers[0] - 1, layers[0], (layers[3] + layers[4]) // 2, len(archive) - 1):
        pictures = femto.decode_layers(io.BytesIO(archive[:cut]))
        whole = sum(end <= cut for end in layers)
        for count in range(1, whole + 1):
            assert (next(pictures) == femto.decode(archive, layers=count)).all()
        with pytest.raises(femto.LaffError) as caught:
            next(pictures)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"x" * 5000, b"{}", b"{" * 5000, b"\x1f\x8b" + b"x" * 99, b'{"strings":[[]]}']
)
def test_what_is_no_archive_is_refused(data):
    with pytest.raises(femto.LaffError) as caught:
        list(femto.decode_layers(io.BytesIO(data)))
    assert "\n" not in str(caught.value)


def test_damage_is_noticed_at_the_latest_at_the_end(archive):
    rng = np.random.default_rng(1)
    for _ in range(40):
        data = bytearray(archive)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        with contextlib.suppress(femto.LaffError):
            *_, last = femto.decode_layers(io.BytesIO(data))
            assert (last == femto.decode(bytes(data))).all()


@pytest.mark.parametrize(
    "begin, goes_on, words",
    [
        (b"", b"{", "not a whole"),
        (b"{", b" ", "longer than"),
        (b'{"more":', b"[7]," * 9, "not a whole"),
        (b'{"more":[', b"[7]," * 9, "longer than"),
        (b'{"metadata":"', b"x", "a string is longer"),
        (b'{"metadata":[', b"[7],", "header is longer"),
    ],
)
def test_an_endless_stream_is_given_up(begin, goes_on, words, monkeypatch):
    class Endless:
        begun = False

        def read1(self, nbytes):
            data = b"" if self.begun else begin
            self.begun = True
            return data or goes_on * (nbytes // len(goes_on))

        read = read1

    monkeypatch.setattr(bounds, "MAX_STREAM", 1 << 20)
    monkeypatch.setattr(bounds, "MAX_HEADER", 1 << 18)
    with pytest.raises(femto.LaffError, match=words):
        list(femto.decode_layers(Endless()))


def test_the_decompressor_writes_what_has_arrived(archive, tmp_path):
    begin = ends(archive)[2]
    with subprocess.Popen(
        [sys.executable, SCRIPT, "-", "-o", "a.png", "--progressive"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as program:
        program.stdin.write(archive[:begin])
        program.stdin.flush()
        coarse = femto.decode(archive, layers=3)
        end = time.monotonic() + HANGS
        while True:
            with contextlib.suppress(OSError), Image.open(tmp_path / "a.png") as picture:
                if (np.asarray(picture) == coarse).all():
                    break
            assert program.poll() is None, program.stderr.read()
            assert time.monotonic() < end, "the coarse picture does not appear"
            time.sleep(0.1)
        program.stdin.write(archive[begin:])
        program.stdin.close()
        assert program.wait(HANGS) == 0, program.stderr.read()
    with Image.open(tmp_path / "a.png") as picture:
        assert (np.asarray(picture) == femto.decode(archive)).all()


def test_a_cut_stream_leaves_the_last_good_picture(archive, tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "-", "-o", "a.png", "--progressive"],
        cwd=tmp_path,
        input=archive[: ends(archive)[4] + 1],
        capture_output=True,
        timeout=HANGS,
    )
    assert done.returncode == 1
    assert done.stderr.decode().count("\n") == 1
    assert b"standard input" in done.stderr
    with Image.open(tmp_path / "a.png") as picture:
        assert (np.asarray(picture) == femto.decode(archive, layers=5)).all()


@pytest.mark.parametrize("arguments", [["a.laff.gz"], ["-", "--layers", "2"], ["-", "--info"]])
def test_progressive_is_for_standard_input_alone(arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--progressive", *arguments],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=HANGS,
    )
    assert done.returncode == 2
    assert b"--progressive" in done.stderr
