"""femto.zarr: chunks of Zarr's format 3."""

import importlib
import json
import pickle
import sys

import numpy as np
import pytest

pytest.importorskip("zarr", minversion="3", reason="Zarr 3 is for Python 3.11 and newer")

import zarr
from zarr.storage import MemoryStore

import femto
from femto.zarr import LaffCodec

RAMP = np.add.outer(np.arange(40), 2 * np.arange(56))
STACK = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]])
ARRAYS = {
    "grey": (RAMP.astype(np.uint8), (32, 32)),
    "deep": (STACK.astype(np.uint16) * 30, (1, 40, 32)),
    "colour": (np.stack([RAMP, RAMP // 2, RAMP // 3], -1).astype(np.uint8), (24, 56, 3)),
    "deep colours": (np.moveaxis(STACK, 0, -1)[None].astype(np.uint16) * 300, (1, 20, 56, 3)),
    "big-endian": (RAMP.astype(">u2"), (40, 56)),
}


def create(store, pixels, chunks, codec=None, **options):
    """An array of Zarr's, with femto's codec, filled."""
    made = zarr.create_array(
        store,
        shape=pixels.shape,
        chunks=chunks,
        dtype=pixels.dtype,
        serializer=LaffCodec(quality=95) if codec is None else codec,
        compressors=None,
        **options,
    )
    made[...] = pixels
    return made


@pytest.mark.parametrize(("pixels", "chunks"), ARRAYS.values(), ids=ARRAYS)
def test_arrays_become_archives_and_come_back(pixels, chunks, tmp_path):
    create(tmp_path / "a", pixels, chunks)
    found = zarr.open_array(tmp_path / "a", mode="r")
    assert found.dtype == pixels.dtype.newbyteorder("=")
    assert np.abs(found[...].astype(int) - pixels).max() <= 0.02 * np.ptp(pixels) + 2
    assert (found[..., :7, :] == found[...][..., :7, :]).all()
    # A chunk is an archive that anybody reads.
    first = tuple(slice(0, n) for n in chunks)
    (path,) = (tmp_path / "a" / "c").glob("/".join("0" * pixels.ndim))
    assert (femto.decode(path) == found[first].reshape(femto.decode(path).shape)).all()


def test_lossless_chunks_and_those_of_a_bounded_error(tmp_path):
    pixels = ARRAYS["deep"][0]
    made = create(tmp_path / "a", pixels, (1, 32, 32), LaffCodec(lossless=True))
    assert (made[...] == pixels).all()
    made[1, 5:9, 30:40] = 65535  # in part: the rest of the chunks stays as it is
    found = zarr.open_array(tmp_path / "a", mode="r")
    changed = pixels.copy()
    changed[1, 5:9, 30:40] = 65535
    assert (found[...] == changed).all()
    near = create(tmp_path / "b", pixels, (1, 40, 56), LaffCodec(max_error=3))
    assert np.abs(near[...].astype(int) - pixels).max() <= 3


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_order_in_memory_does_not_matter(order):
    pixels = np.asarray(ARRAYS["colour"][0], order=order)
    store, other = MemoryStore(), MemoryStore()
    create(store, pixels, (40, 56, 3), config={"order": order})
    create(other, np.ascontiguousarray(pixels), (40, 56, 3))
    assert (zarr.open_array(store, mode="r")[:] == zarr.open_array(other, mode="r")[:]).all()


def test_shards_hold_archives():
    store = MemoryStore()
    pixels, _ = ARRAYS["grey"]
    made = create(store, pixels, (20, 28), shards=(40, 56))
    assert np.abs(made[:].astype(int) - pixels).max() < 8
    assert (made[20:, :28] == femto.decode(femto.encode(pixels[20:, :28], quality=95))).all()


def test_chunks_that_are_not_there_are_the_fill_value():
    store = MemoryStore()
    made = create(store, np.full((64, 64), 7, np.uint8), (32, 32), fill_value=7)
    assert made.nchunks_initialized == 0
    made[:32, :32] = 200
    assert made.nchunks_initialized == 1
    assert (made[:32, :32] == 200).all() and (made[32:] == 7).all()


def test_the_codec_is_in_the_metadata(tmp_path):
    codec = LaffCodec(ratio=10, effort="fast")
    create(tmp_path / "a", ARRAYS["grey"][0], (32, 32), codec)
    told = json.loads((tmp_path / "a" / "zarr.json").read_text())["codecs"]
    assert told == [{"name": "femto.laff", "configuration": {"ratio": 10, "effort": "fast"}}]
    found = zarr.open_array(tmp_path / "a").metadata.codecs[0]
    assert found == codec and found.to_dict() == codec.to_dict()
    assert pickle.loads(pickle.dumps(codec)) == codec and LaffCodec() != codec
    assert LaffCodec.from_dict({"name": "femto.laff"}) == LaffCodec()
    with pytest.raises(NotImplementedError):
        codec.compute_encoded_size(1, None)


@pytest.mark.parametrize(
    ("shape", "dtype", "told"),
    [
        ((8, 8), "float32", "arrays of float32"),
        ((8, 8), "int16", "arrays of int16"),
        ((2, 8, 8), "uint8", r"shape \(2, 8, 8\)"),
        ((8,), "uint8", r"shape \(8,\)"),
    ],
)
def test_what_is_no_picture_is_refused_when_an_array_is_made(shape, dtype, told):
    store = MemoryStore()
    with pytest.raises(femto.LaffError, match=told):
        create(store, np.zeros(shape, dtype), shape)
    assert not store._store_dict


def test_impossible_options_are_told_at_once():
    for options in ({"quality": 0}, {"effort": "none"}, {"quality": 3, "psnr": 40}):
        with pytest.raises(femto.LaffError):
            LaffCodec(**options)
        with pytest.raises(femto.LaffError):
            LaffCodec.from_dict({"name": "femto.laff", "configuration": options})
    with pytest.raises(femto.LaffError, match="no colour, size"):
        LaffCodec.from_dict({"name": "femto.laff", "configuration": {"size": 3, "colour": 4}})


@pytest.mark.parametrize(
    "chunk",
    [
        b"",
        b"nothing",
        femto.encode(RAMP.astype(np.uint8))[:-30],
        femto.encode(RAMP.astype(np.uint8)[:20]),
        femto.encode(RAMP.astype(np.uint16)),
    ],
    ids=["empty", "none", "cut", "smaller", "deeper"],
)
def test_damaged_chunks_are_told(chunk, tmp_path):
    create(tmp_path / "a", RAMP.astype(np.uint8), RAMP.shape)
    (tmp_path / "a" / "c" / "0" / "0").write_bytes(chunk)
    with pytest.raises(femto.LaffError):
        zarr.open_array(tmp_path / "a", mode="r")[:]


@pytest.mark.parametrize("module", ["zarr.abc.codec"])
def test_without_zarr_it_says_what_to_install(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "femto.zarr")
    with pytest.raises(ModuleNotFoundError, match=r"needs Zarr 3, .*: pip install 'zarr>=3'"):
        importlib.import_module("femto.zarr")
