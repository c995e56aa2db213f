"""An archive gets its name when it was read back and decoded: the job in this process."""

import hashlib
import os
import threading

import numpy as np
import pytest
from job_tools import archives, picture, rows, save

import femto
from femto import codec
from femto.files import whole
from femto.job import proof, tasks
from femto.job.compressing import Job, Options
from femto.job.records import Records
from femto.job.runner import Runner
from femto.job.summary import summary
from femto.tiles import tile_grid

WAYS = {
    "whole": {},
    "fed": {"reader": "driver"},
    "cut": {"cut_above": 0.001},
    "cut and fed": {"cut_above": 0.001, "reader": "driver"},
}


class Here(Runner):
    """Runs all functions in this process, one at a time: it is one worker."""

    cores, shared, memory_nbytes = 2, True, 1 << 30
    free = threading.Lock()

    def spread_safely(self, function, parts, description, lost):
        with self.free:
            return list(function(iter(parts)))


@pytest.fixture
def run(tmp_path):
    """Run a job over tmp_path/in, which has a picture of two tiles."""
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / "wide.png", picture(24, 1100, 4))

    def run(**changes):
        options = Options(tmp_path / "in", tmp_path / "out", quiet=True, **changes)
        run.options, outcome = options, Job(options, Here).run()
        return outcome

    run.input, run.output = tmp_path / "in", tmp_path / "out"
    return run


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def nothing_is_left(run) -> None:
    """No archive, no part of one, and no record."""
    assert [p.name for p in run.output.iterdir() if p.suffix in (".gz", ".part")] == []
    with Records(run.output) as records:
        assert list(records) == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_remembered_is_what_anybody_computes(run, way, dtype):
    pixels = picture(24, 1100, 4, channels=1).astype(dtype) * (1 if dtype == np.uint8 else 200)
    source = save(run.input / "wide.png", pixels)
    (row,) = run(**WAYS[way]).rows
    assert row["status"] == "done", row["error"]
    path = run.output / "wide.laff.gz"
    samples = femto.decode(path, samples=True)
    tiles = [
        sha256(samples[y : y + h, x : x + w].astype(samples.dtype.newbyteorder("<")).tobytes())
        for _, y, x, h, w in tile_grid(24, 1100)
    ]
    expected = {
        "source_sha256": sha256(source.read_bytes()),
        "archive_sha256": sha256(path.read_bytes()),
        "pixels_sha256": sha256(bytes.fromhex("".join(tiles))),
    }
    assert {key: row[key] for key in expected} == expected
    assert {key: rows(run.output)["wide.png"][key] for key in expected} == expected
    with Records(run.output) as records:
        (record,) = records
    assert {key: record[key] for key in expected} == expected
    assert row["verify_seconds"] > 0 and row["cpu_seconds"] > 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("harm", ["a byte", "the end"])
def test_what_the_disk_does_not_give_back_gets_no_name(run, monkeypatch, way, harm):
    fsync = os.fsync

    def harmed(descriptor):
        fsync(descriptor)
        size = os.fstat(descriptor).st_size
        path = f"/proc/self/fd/{descriptor}"
        if os.path.realpath(path).endswith(".part") and size > 2000:
            with open(path, "r+b") as file:
                if harm == "the end":
                    file.truncate(size - 100)
                    return
                file.seek(size // 2)
                byte = file.read(1)
                file.seek(size // 2)
                file.write(bytes([byte[0] ^ 4]))

    monkeypatch.setattr(whole.os, "fsync", harmed)
    (row,) = run(report=False, **WAYS[way]).rows
    assert row["status"] == "failed" and "not on disk as it was written" in row["error"]
    assert ".part" not in row["error"] and "\n" not in row["error"]
    monkeypatch.undo()
    nothing_is_left(run)
    assert run(**WAYS[way]).count("done") == 1


@pytest.mark.parametrize("way", WAYS)
def test_what_decodes_to_other_pixels_gets_no_name(run, monkeypatch, way):
    """One sample, by one level, is enough."""
    decode = codec.decode_tile

    def wrong(parsed, index, **options):
        pixels = decode(parsed, index, **options)
        if index == 1:
            pixels[0, 0] ^= 1
        return pixels

    monkeypatch.setattr(codec, "decode_tile", wrong)
    (row,) = run(**WAYS[way]).rows
    assert row["status"] == "failed" and "does not give back" in row["error"]
    assert "tile 1" in row["error"]
    nothing_is_left(run)


@pytest.mark.parametrize("way", WAYS)
def test_what_loses_its_metadata_gets_no_name(run, monkeypatch, way):
    unpack = femto.container.header.unpack_metadata
    save(run.input / "wide.png", picture(24, 1100, 4), dpi=(300, 300))
    monkeypatch.setattr(
        femto.container.header, "unpack_metadata", lambda text: {**unpack(text), "more": 1}
    )
    (row,) = run(**WAYS[way]).rows
    assert row["status"] == "failed" and "does not say what it should" in row["error"]
    nothing_is_left(run)


@pytest.mark.parametrize("way", WAYS)
def test_a_source_that_changes_meanwhile_is_told(run, monkeypatch, way):
    encode = codec.encode_tile

    def changing(pixels, **options):
        with open(run.input / "wide.png", "ab") as file:
            file.write(b" ")
        return encode(pixels, **options)

    monkeypatch.setattr(codec, "encode_tile", changing)
    (row,) = run(**WAYS[way]).rows
    assert row["status"] == "failed" and "changed while it was compressed" in row["error"]
    nothing_is_left(run)
    monkeypatch.undo()
    assert run(**WAYS[way]).count("done") == 1


@pytest.mark.parametrize("way", WAYS)
def test_without_it_nothing_is_decoded_and_the_bytes_are_the_same(run, monkeypatch, way):
    assert run(**WAYS[way]).count("done") == 1
    made = archives(run.output)
    monkeypatch.setattr(codec, "decode_field", None)
    outcome = run(verify=False, overwrite=True, **WAYS[way])
    (row,) = outcome.rows
    assert row["status"] == "done" and row["archive_sha256"] is row["pixels_sha256"] is None
    assert archives(run.output) == made
    assert "verified: none (--no-verify)" in summary(run.options, outcome)


def test_its_cost_is_told_and_what_was_done_is_not_done_again(run):
    outcome = run()
    said = summary(run.options, outcome)
    (row,) = outcome.rows
    cost = f"{row['verify_seconds']:.1f} CPU s beside {row['cpu_seconds']:.1f} of compressing"
    assert f"verified: 1 archives were read back and decoded, in {cost}" in said
    assert float(rows(run.output)["wide.png"]["verify_seconds"]) >= 0
    outcome = run()
    assert outcome.count("skipped") == 1 and "verified" not in summary(run.options, outcome)


def test_a_file_of_many_pages_is_hashed_once(run, monkeypatch):
    import tifffile

    with tifffile.TiffWriter(run.input / "pages.tif") as tif:
        for i in range(5):
            tif.write(picture(30, 40, i), metadata=None)
    hashed = []
    digest = proof.file_digest
    monkeypatch.setattr(
        proof, "file_digest", lambda path, **how: (hashed.append(str(path)), digest(path, **how))[1]
    )
    outcome = run()
    assert outcome.count("done") == 6
    assert sum(path.endswith("pages.tif") for path in hashed) == 1
    of = {r["source_sha256"] for r in outcome.rows if r["picture"] == "pages.tif"}
    assert of == {sha256((run.input / "pages.tif").read_bytes())}


@pytest.mark.parametrize("way", ["whole", "cut"])
def test_a_basis_of_ones_own(run, own_basis, way):
    (row,) = run(basis=str(own_basis), **WAYS[way]).rows
    assert row["status"] == "done" and row["pixels_sha256"]


def test_memory_holds_one_tile(run, monkeypatch):
    """However many there are: each is decoded, hashed and forgotten."""
    alive, most = 0, 0
    decode = codec.decode_tile

    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= self.base is not None and not isinstance(self.base, Counted)

    def counted(parsed, index, **options):
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        return decode(parsed, index, **options).view(Counted)

    made = codec.encode_picture(
        picture(40, 5 * 1024, 1),
        target={"quality": 50},
        method={"basis": "photo", "effort": "fast", "tune": "psnr"},
        watch=proof.Witness(None),
    )
    monkeypatch.setattr(codec, "decode_tile", counted)
    proof.prove(made.data, made.header, made.seen, None)
    assert len(made.seen) == 5 and most == 1


def test_the_driver_hands_on_strings_of_a_few_tiles_at_a_time(run, monkeypatch):
    """And no pixels: of a large archive each task gets what its tiles need."""
    sent = []
    prove = tasks.prove_strings

    def seen(settings, parts):
        parts = list(parts)
        sent.extend(parts)
        return prove(settings, iter(parts))

    monkeypatch.setattr(tasks, "prove_strings", seen)
    save(run.input / "wide.png", picture(24, 5 * 1024, 4), icc_profile=b"x" * 100_000)
    (row,) = run(**WAYS["cut"]).rows
    assert row["status"] == "done", row["error"]
    assert sorted(tile for part in sent for tile in part.tiles) == list(range(5))
    nbytes = os.path.getsize(run.output / "wide.laff.gz")
    assert sum(len(s) for p in sent for one in (p.blocks, *p.layers) for s in one) < nbytes
    assert all(p.archive.header.icc is None for p in sent)
