"""femto.numcodecs: what numcodecs' own tests ask of a codec, and Zarr's format 2."""

import array
import importlib
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("numcodecs")

import numcodecs
from numcodecs.compat import ensure_bytes

import femto
from femto.numcodecs import Laff

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RAMP = np.add.outer(np.arange(40), 2 * np.arange(56))
ARRAYS = {
    "grey": RAMP.astype(np.uint8),
    "deep": (RAMP * 30).astype(np.uint16),
    "colour": np.stack([RAMP, RAMP // 2, RAMP // 3], -1).astype(np.uint8),
    "one of a stack": RAMP.astype(np.uint8)[None],
    "deep colour of a stack": np.stack([RAMP * 30, RAMP, RAMP * 9], -1).astype(np.uint16)[
        None, None
    ],
    "a strided part": RAMP.astype(np.uint8)[::2, ::3],
    "a row": np.arange(0, 200, dtype=np.uint8)[None],
}
CODECS = [
    Laff(),
    Laff(quality=40),
    Laff(ratio=12.5, effort="fast"),
    Laff(psnr=38, tune="perceptual"),
    Laff(lossless=True),
    Laff(quality=50, max_error=2),
]


@pytest.mark.parametrize("pixels", ARRAYS.values(), ids=ARRAYS)
def test_arrays_become_archives_and_come_back(pixels):
    """As numcodecs' `check_encode_decode`, of arrays: bytes alone are no picture."""
    codec = Laff(quality=90)
    archive = codec.encode(pixels)
    shape = pixels.shape[-3:] if pixels.shape[-1] == 3 else pixels.shape[-2:]
    assert archive == femto.encode(pixels.reshape(shape), quality=90)
    expected = femto.decode(archive)
    kept = ensure_bytes(archive)
    for stored in (kept, bytearray(kept), array.array("b", kept), np.frombuffer(kept, "u1")):
        found = codec.decode(stored)
        assert found.dtype == pixels.dtype and (found == expected).all()
    out = np.empty(pixels.shape, pixels.dtype)
    assert codec.decode(archive, out=out) is out
    assert (out.reshape(shape) == expected).all()
    buffer = bytearray(pixels.nbytes)
    codec.decode(archive, out=buffer)
    assert bytes(buffer) == expected.tobytes()
    exact = Laff(lossless=True)
    assert (exact.decode(exact.encode(pixels)) == pixels.reshape(shape)).all()
    with pytest.raises(femto.LaffError, match="out has 3 bytes"):
        codec.decode(archive, out=bytearray(3))


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_a_codec_is_its_configuration(codec):
    config = json.loads(json.dumps(codec.get_config()))
    assert config["id"] == "femto.laff"
    assert numcodecs.get_codec(config) == codec
    assert eval(repr(codec)) == codec
    copied = pickle.loads(pickle.dumps(codec))
    assert copied == codec
    assert copied.encode(ARRAYS["grey"]) == codec.encode(ARRAYS["grey"])
    assert [other for other in CODECS if other == codec] == [codec]


@pytest.mark.parametrize(
    ("pixels", "told"),
    [
        (RAMP.astype(np.int16), "arrays of int16"),
        (RAMP.astype(np.float32), "arrays of float32"),
        (b"bytes", "not coded"),
        (np.zeros((2, 8, 8), np.uint8), r"shape \(2, 8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"shape \(8, 8, 4\)"),
        (np.zeros(8, np.uint8), r"shape \(8,\)"),
        (np.zeros((0, 8), np.uint8), "nothing to code"),
        (RAMP.astype(">u2"), "big-endian"),
        (RAMP.astype(np.uint8).T, "column by column"),
    ],
)
def test_what_is_no_picture_is_refused(pixels, told):
    with pytest.raises(femto.LaffError, match=told):
        Laff().encode(pixels)


@pytest.mark.parametrize(
    "options", [{"quality": 0}, {"quality": 50, "ratio": 3}, {"effort": "no"}, {"bits": 17}]
)
def test_impossible_options_are_told_at_once(options):
    with pytest.raises(femto.LaffError):
        numcodecs.get_codec({"id": "femto.laff", **options})


def test_damage_is_told():
    archive = Laff().encode(ARRAYS["grey"])
    for data in (b"", b"none", archive[:-20]):
        with pytest.raises(femto.LaffError):
            Laff().decode(data)


def test_chunks_of_zarrs_format_2(tmp_path):
    zarr = pytest.importorskip("zarr", minversion="3")
    stack = np.stack([ARRAYS["deep"], ARRAYS["deep"][::-1]])
    options = {"shape": (2, 40, 56), "chunks": (1, 32, 32), "dtype": "uint16", "zarr_format": 2}
    made = zarr.create_array(tmp_path / "a", compressors=Laff(quality=95), **options)
    made[:] = stack
    found = zarr.open_array(tmp_path / "a", mode="r")
    assert np.abs(found[:].astype(int) - stack).max() < 60
    padded = np.zeros((32, 32), np.uint16)
    padded[:8, :24] = stack[1, 32:, 32:]
    assert (tmp_path / "a" / "1.1.1").read_bytes() == femto.encode(padded, quality=95)
    columns = zarr.create_array(tmp_path / "b", compressors=Laff(), order="F", **options)
    with pytest.raises(femto.LaffError, match="column by column"):
        columns[:] = stack


@pytest.fixture
def installed(repository, tmp_path):
    """Where Python finds femto as if it was installed: by what pyproject.toml says of it."""
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder = tmp_path / "femto-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: femto\nVersion: 0\n")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {place}" for name, place in entries.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines))
    return os.environ | {"PYTHONPATH": f"{repository / 'femto_job'}:{tmp_path}"}


@pytest.mark.parametrize("library", ["numcodecs", "zarr"])
def test_installed_it_is_found_by_its_name(installed, library, tmp_path):
    if library == "zarr":
        zarr = pytest.importorskip("zarr", minversion="3")
        from femto.zarr import LaffCodec

        made = zarr.create_array(
            tmp_path / "a", shape=(40, 56), chunks=(40, 56), dtype="uint8",
            serializer=LaffCodec(quality=90), compressors=None,
        )  # fmt: skip
        made[:] = ARRAYS["grey"]
        code = "import sys, zarr; print(zarr.open_array(sys.argv[1], mode='r')[:].sum())"
        expected = str(femto.decode(femto.encode(ARRAYS["grey"], quality=90)).sum())
    else:
        code = "import numcodecs; print(numcodecs.get_codec({'id': 'femto.laff', 'quality': 9}))"
        expected = "Laff(quality=9)"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a"], env=installed, capture_output=True, text=True
    )
    assert done.stdout.strip() == expected, done.stderr


def test_without_numcodecs_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "numcodecs.abc", None)
    monkeypatch.delitem(sys.modules, "femto.numcodecs")
    with pytest.raises(ModuleNotFoundError, match=r"needs numcodecs, .*: pip install numcodecs"):
        importlib.import_module("femto.numcodecs")
