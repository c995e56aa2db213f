"""What is left of damaged archives: every string that its checksum vouches for, and no other."""

import base64
import gzip
import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image

import femto
from femto import __main__ as command
from femto import codec, container
from femto.container import salvage
from femto.container.salvage import _backwards, _next_block
from femto.errors import LaffError
from femto.job import salvaging

TILES, ROWS, COLUMNS = 3, 96, 2 * 1024 + 60


def noisy(rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    random = np.random.default_rng(3)
    smooth = np.add.outer(np.arange(rows), np.arange(columns)) % 200
    return (smooth[..., None] + random.integers(0, 50, (rows, columns, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def archive() -> bytes:
    """Of three tiles and of several blocks of deflate."""
    data = femto.encode(noisy(), quality=80, source="photo.png")
    assert len(data) > 100_000
    return data


@pytest.fixture(scope="module")
def strings(archive) -> dict[tuple[int, int], bytes]:
    """By layer (-1: block strings) and tile."""
    parsed = femto.parse(archive)
    rows = [parsed.blocks, *parsed.layers]
    return {(i - 1, t): s for i, row in enumerate(rows) for t, s in enumerate(row)}


def good(found) -> dict[tuple[int, int], bytes]:
    """The strings that were found."""
    kept = {}
    for layer, row in enumerate([found.archive.blocks, *found.archive.layers], -1):
        for tile in range(TILES):
            try:
                kept[layer, tile] = row[tile]
            except KeyError:
                continue
    return kept


def sealed_at(text: bytes, layer: int, tile: int) -> int:
    """Where a string of an archive's text begins."""
    head, _, rest = text.partition(b',"blocks":')
    quotes = [i for i, c in enumerate(rest) if c == 0x22]
    number = (layer + 1) * TILES + tile
    number += layer >= 0  # "strings"
    return len(head) + 10 + quotes[2 * number] + 1


def test_a_whole_archive_has_everything(archive, strings):
    for data in (archive, gzip.decompress(archive), gzip.compress(gzip.decompress(archive))):
        found = salvage(data)
        assert good(found) == strings and found.ended
        assert list(found.damaged()) == []
        assert found.layers == dict.fromkeys(range(TILES), len(found.archive.layers))
        assert "all strings are good" in salvaging.losses(found)


@pytest.mark.parametrize("harm", ["changed", "no letter", "a quote", "shorter", "longer", "gone"])
@pytest.mark.parametrize("place", [(-1, 1), (4, 2), (12, 2)])
def test_what_is_not_touched_is_found(archive, strings, harm, place):
    """Also behind strings that are broken into two, melt into one, or are gone."""
    text = bytearray(gzip.decompress(archive))
    at = sealed_at(text, *place) + 5
    if harm == "changed":
        text[at] = 0x41 if text[at] != 0x41 else 0x42
    elif harm == "no letter":
        text[at] = 0x80
    elif harm == "a quote":
        text[at : at + 1] = b'","'
    elif harm == "shorter":
        del text[at : at + 4]
    elif harm == "longer":
        text[at:at] = b"AAAA"
    else:
        end = text.index(b'"', at)
        del text[at - 6 : end + 2]
    found = salvage(bytes(text))
    expected = dict(strings)
    del expected[place]
    assert good(found) == expected
    layer, tile = place
    assert dict(found.damaged()) == {tile: max(layer, 0)}
    said = salvaging.losses(found)
    assert f"tile {tile} (rows 0 to {ROWS - 1}, columns {1024 * tile} to " in said
    assert ("1 of 3 tiles are lost" in said) == (layer < 1)
    assert layer < 1 or f"from layer {layer + 1} on" in said


@pytest.mark.parametrize("seed", range(5))
def test_behind_a_damaged_sector_the_rest_is_unpacked(archive, strings, seed):
    """512 bytes cost some tens of thousands of letters, not what follows."""
    random = np.random.default_rng(seed)
    harmed = bytearray(archive)
    at = int(random.integers(2_000, len(archive) - 600))
    harmed[at : at + 512] = random.bytes(512) if seed % 2 else bytes(512)
    found = salvage(bytes(harmed))
    kept = good(found)
    assert all(strings[place] == data for place, data in kept.items())
    lost = sum(len(data) for place, data in strings.items() if place not in kept)
    longest = max(map(len, strings.values()))
    assert lost < 70_000 + 2 * longest


@pytest.mark.parametrize("seed", range(10))
def test_any_damage_gives_strings_that_are_right_or_one_line(archive, strings, seed):
    random = np.random.default_rng(seed)
    harmed = bytearray(archive if seed % 2 else gzip.decompress(archive))
    for _ in range(int(random.integers(1, 40))):
        at = int(random.integers(0, len(harmed)))
        kind = random.integers(0, 3)
        if kind == 0:
            harmed[at] ^= 1 << int(random.integers(0, 8))
        elif kind == 1:
            del harmed[at : at + int(random.integers(1, 300))]
        else:
            harmed[at:at] = random.bytes(int(random.integers(1, 300)))
    try:
        found = salvage(bytes(harmed))
    except LaffError as error:
        assert "\n" not in str(error)
        return
    assert all(strings[place] == data for place, data in good(found).items())


def test_a_cut_archive_has_what_is_before_the_cut(archive, strings):
    for share in (0.2, 0.6, 0.98):
        found = salvage(archive[: int(share * len(archive))])
        kept = good(found)
        assert all(strings[place] == data for place, data in kept.items())
        assert sum(map(len, kept.values())) > share * 0.6 * sum(map(len, strings.values()))
        assert not found.ended and "its end is lost" in salvaging.losses(found)


def test_a_damaged_header_is_told(archive):
    harmed = gzip.decompress(archive).replace(b'"width":', b'"wodth":')
    for data in (harmed, gzip.compress(harmed), archive[:40]):
        with pytest.raises(LaffError, match="its header is damaged"):
            salvage(data)
    with pytest.raises(LaffError, match=r"not a \.laff archive"):
        salvage(b"no archive at all")
    with pytest.raises(LaffError, match="empty"):
        salvage(b"")


def test_what_it_claims_is_asked_about_first(archive):
    top = json.loads(gzip.decompress(archive))
    head = {k: v for k, v in top.items() if k not in ("blocks", "strings", "crc")}
    head["image"] |= {"width": 1 << 18, "height": 1 << 18}
    head["tile"] = 16
    data = json.dumps(
        head | {"crc": container.header.checksum(head), "blocks": [], "strings": []}
    ).encode()
    with pytest.raises(LaffError, match="max_pixels"):
        salvaging.salvaged(data, 1 << 20)


def test_checksums_are_run_backwards():
    for data in (b"", b"a", bytes(range(200))):
        for begin in (0, 1, 0xDEADBEEF):
            difference = zlib.crc32(data, begin) ^ zlib.crc32(data)
            assert _backwards(difference, len(data)) == begin


def test_blocks_are_found_at_any_bit():
    letters = base64.b64encode(np.random.default_rng(1).bytes(20_000))
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    block = deflate.compress(letters) + deflate.flush()
    for shift in range(8):
        moved = (int.from_bytes(block, "little") << shift).to_bytes(len(block) + 1, "little")
        assert _next_block(bytes(3) + moved, 0) == 24 + shift
    assert _next_block(b"nothing of the kind" * 400, 0) == -1


# --- pictures ----------------------------------------------------------------------------------


@pytest.fixture
def harmed(archive, tmp_path, monkeypatch):
    """The archive's text, as a file whose tile 1 is lost and whose tile 2 ends at layer 4."""
    monkeypatch.chdir(tmp_path)
    text = bytearray(gzip.decompress(archive))
    for place in ((0, 1), (4, 2)):
        text[sealed_at(text, *place) + 3] ^= 1
    path = tmp_path / "photo.laff"
    path.write_bytes(text)
    return path


def test_the_decompressor_writes_what_is_good(archive, harmed, capsys):
    assert command.main(["decompress", "photo.laff", "-o", "out/"]) == 1
    assert "damaged" in capsys.readouterr().err and not (harmed.parent / "out/photo.png").exists()
    assert command.main(["decompress", "photo.laff", "-o", "out/", "--salvage"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("out/photo.salvaged.png (salvaged: 1 of 3 tiles are lost; 1 of 3 tiles")
    assert "tile 2 (rows 0 to 95, columns 2048 to 2107) from layer 5 on" in said
    assert "filled with level 128" in said
    made = np.asarray(Image.open("out/photo.salvaged.png"))
    parsed = femto.parse(archive)
    assert np.array_equal(made[:, :1024], codec.decode_tile(parsed, 0))
    assert (made[:, 1024:2048] == 128).all()
    assert np.array_equal(made[:, 2048:], codec.decode_tile(parsed, 2, layers=4))
    # When the archive is whole again, its picture has its own name.
    harmed.write_bytes(archive)
    assert command.main(["decompress", "photo.laff", "-o", "out/", "--salvage"]) == 0
    assert capsys.readouterr().out == "out/photo.png\n"
    assert np.array_equal(np.asarray(Image.open("out/photo.png")), femto.decode(archive))


def test_of_a_file_and_of_standard_input(harmed, monkeypatch, capsys):
    assert command.main(["decompress", "photo.laff", "-o", "part.tif", "--salvage"]) == 1
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(harmed.read_bytes())))
    assert command.main(["decompress", "-", "-o", "same.tif", "--salvage"]) == 1
    assert capsys.readouterr().out.count("salvaged: ") == 2
    assert (harmed.parent / "part.tif").read_bytes() == (harmed.parent / "same.tif").read_bytes()


def test_several_archives_one_of_them_damaged(archive, harmed, capsys):
    (harmed.parent / "good.laff.gz").write_bytes(archive)
    (harmed.parent / "none.laff.gz").write_bytes(b"nothing")
    assert command.main(["decompress", ".", "-o", "out", "--salvage", "-j", "1"]) == 1
    said = capsys.readouterr()
    assert "1 restored, 0 were there, 1 failed, 1 damaged and salvaged" in said.err
    names = {p.name for p in (harmed.parent / "out").glob("*.png")}
    assert names == {"good.png", "photo.salvaged.png"}


@pytest.mark.parametrize("more", [["--scale", "2"], ["--layers", "2"], ["--region", *"0011"]])
def test_it_is_for_whole_pictures(harmed, capsys, more):
    with pytest.raises(SystemExit):
        command.main(["decompress", "photo.laff", "--salvage", *more])
    assert "--salvage goes without" in capsys.readouterr().err


def test_a_basis_that_is_missing_is_told(own_archive, own_basis, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.laff").write_bytes(gzip.decompress(own_archive)[:-9])
    assert command.main(["decompress", "own.laff", "-o", "out/", "--salvage"]) == 1
    assert "needs the basis 'own'" in capsys.readouterr().err
    words = ["--salvage", "--basis", str(own_basis)]
    assert command.main(["decompress", "own.laff", "-o", "out/", *words]) == 1
    assert "salvaged: its end is lost" in capsys.readouterr().out
