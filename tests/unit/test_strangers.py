"""Archives from strangers: what they claim, name and quote."""

import base64
import gzip
import io
import itertools
import json
import os
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from claims import GIGAPIXEL, claiming

import decompressor
import femto
from femto import __main__ as command
from femto import codec, errors
from femto.basis import bases
from femto.container import bounds

ROOT = Path(__file__).resolve().parents[2]
EVIL = "\x1b]0;evil\x07\x9b31m\u202eabc\n"
DOORS = {
    "info": femto.info,
    "decode": femto.decode,
    "decode_bands": lambda archive, **options: list(femto.decode_bands(archive, **options)),
    "decode_layers": lambda archive, **options: list(
        femto.decode_layers(io.BytesIO(archive), **options)
    ),
    "features": femto.features,
    "truncate": lambda archive: femto.truncate(archive, layers=1),
}
MAKERS = [name for name in DOORS if name not in ("info", "truncate")]
"""Those that make pixels, or what follows their number."""


@pytest.mark.parametrize("door", DOORS)
def test_a_claim_costs_nothing_before_its_strings_are_there(door):
    archive = claiming(1 << 16, 1 << 16, tile=16, strings=False)
    assert len(archive) < 200
    DOORS[door](femto.encode(np.zeros((8, 8), np.uint8)))  # loads what it needs
    tracemalloc.start()
    with pytest.raises(femto.LaffError, match=r"16777216 tiles|4294967296 pixels"):
        DOORS[door](archive)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("door", MAKERS)
def test_a_gigapixel_in_a_few_bytes_is_not_believed(door, monkeypatch):
    def never(*_, **__):
        raise AssertionError("a tile was decoded")

    monkeypatch.setattr(codec, "decode_field", never)
    archive = claiming(*GIGAPIXEL)
    assert len(archive) < 20_000
    with pytest.raises(femto.LaffError, match=r"1073741824 pixels.*max_pixels") as caught:
        DOORS[door](archive)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("door", MAKERS)
def test_max_pixels_is_what_the_caller_says(door):
    archive = femto.encode(np.add.outer(np.arange(30), np.arange(40)).astype(np.uint8))
    for most in (1200, 10**12, None, np.int64(1200)):
        DOORS[door](archive, max_pixels=most)
    with pytest.raises(femto.LaffError, match="1200 pixels are more than the 1199"):
        DOORS[door](archive, max_pixels=1199)
    for wrong in (0, -1, 1.5, "many", True):
        with pytest.raises(femto.LaffError, match="max_pixels"):
            DOORS[door](archive, max_pixels=wrong)


def test_max_pixels_is_for_the_region_that_is_made():
    archive = claiming(*GIGAPIXEL)
    part = femto.decode(archive, region=(1 << 19, 5, 30, 40))
    assert part.shape == (30, 40)
    with pytest.raises(femto.LaffError, match="179306496 pixels"):
        femto.decode(archive, region=(0, 0, 175104, 1024))


def test_large_archives_pass_in_bands():
    """In bands, max_pixels is for every MiB of the archive: a gigapixel of seven is believed."""
    text = gzip.decompress(claiming(*GIGAPIXEL)) + b" " * (6 << 20)
    y, band = next(femto.decode_bands(text))
    assert (y, band.shape) == (0, (1024, 1024))
    with pytest.raises(femto.LaffError, match="1073741824 pixels"):
        femto.decode(text)


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_formats_that_are_written_from_memory_have_the_limit_as_it_is(kind, tmp_path, capsys):
    path = tmp_path / "a.laff"
    path.write_bytes(gzip.decompress(claiming(32768, 32768)) + b" " * (6 << 20))
    assert decompressor.main([str(path), "-o", str(tmp_path), "--format", kind]) == 1
    assert "1073741824 pixels are more than the 178956970" in capsys.readouterr().err


def test_every_program_has_the_same_limit(tmp_path, capsys):
    path = tmp_path / "a.laff.gz"
    path.write_bytes(claiming(*GIGAPIXEL))
    assert decompressor.main([str(path), "-o", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "--max-pixels" in told and told.count("\n") == 1
    small = tmp_path / "small"
    small.mkdir()
    (small / "a.laff.gz").write_bytes(femto.encode(np.zeros((30, 40), np.uint8)))
    for most, status in (("1199", 1), ("1200", 0), ("0", 0)):
        arguments = [str(small / "a.laff.gz"), "-o", str(small), "--max-pixels", most]
        assert decompressor.main([*arguments, "--overwrite"]) == status
    assert "1200 pixels" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        decompressor.main([str(path), "--max-pixels", "-1"])


def test_tables_of_features_have_the_same_limit(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.laff.gz").write_bytes(claiming(*GIGAPIXEL))
    (tmp_path / "b.laff.gz").write_bytes(femto.encode(np.zeros((30, 40), np.uint8)))
    table = ["features", str(tmp_path), "-o", str(tmp_path / "f.parquet")]
    assert command.main(table) == 1
    told = capsys.readouterr()
    assert "a.laff.gz: 1073741824 pixels" in told.err and "1 archives, 1 could not" in told.out
    assert command.main([*table, "--max-pixels", "1199"]) == 1
    assert "0 archives, 2 could not" in capsys.readouterr().out


def test_the_transformer_has_the_same_limit():
    sklearn = pytest.importorskip("femto.sklearn")
    with pytest.raises(femto.LaffError, match="1073741824 pixels"):
        sklearn.LaffFeatures().transform([claiming(*GIGAPIXEL)])
    archive = femto.encode(np.zeros((30, 40), np.uint8))
    assert sklearn.LaffFeatures(max_pixels=1200).transform([archive]).shape[0] == 1
    with pytest.raises(femto.LaffError, match="1200 pixels"):
        sklearn.LaffFeatures(max_pixels=1199).transform([archive])


@pytest.mark.parametrize(
    "name",
    ["../../evil", "/etc/evil", "..", ".evil", "a\\b", "c:evil", "", EVIL, "x" * 101, 7, None],
)
def test_the_name_of_a_basis_is_no_path(name, monkeypatch):
    archive = claiming(8, 8, basis_name=name)
    opened = []
    monkeypatch.setattr(bases, "read_basis", lambda path: opened.append(path))
    for door in DOORS.values():
        with pytest.raises(femto.LaffError, match=r"name .* is not a plain one") as caught:
            door(archive)
        assert str(caught.value).isprintable()
    assert opened == []


@pytest.mark.parametrize("digits", [EVIL, "../" * 5, "XYZ", "0" * 65, 7, None])
def test_the_hash_of_a_basis_is_one(digits):
    archive = json.loads(gzip.decompress(claiming(8, 8)))
    archive["basis"]["sha256"] = digits
    with pytest.raises(femto.LaffError, match="hash") as caught:
        femto.info(json.dumps(archive).encode())
    assert str(caught.value).isprintable()


def test_a_basis_has_a_plain_name(tmp_path, monkeypatch, capsys):
    photo = bases.load_basis()
    monkeypatch.setattr(photo, "name", "../evil")
    with pytest.raises(femto.LaffError, match="not a plain one"):
        bases.save_basis(photo, tmp_path / "a.basis")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(bases, "check_name", lambda name: None)
    bases.save_basis(photo, tmp_path / "a.basis")
    monkeypatch.undo()
    with pytest.raises(femto.LaffError, match="not a plain one"):
        bases.read_basis(tmp_path / "a.basis")
    train = ["train", str(tmp_path), "-o", str(tmp_path / "b.basis"), "--name"]
    assert command.main([*train, "a/b"]) == 2
    assert "not a plain one" in capsys.readouterr().err


def test_what_is_quoted_prints(tmp_path, capsys, monkeypatch):
    """Terminals obey what they are sent: no text of an archive or name of a file gets there raw."""
    monkeypatch.chdir(tmp_path)
    assert str(femto.LaffError(f"a{EVIL}b")).isprintable()
    assert errors.printable("Löwenzahn\x1b") == "Löwenzahn\\x1b"
    said = femto.encode(np.zeros((8, 8), np.uint8), source=f"name{EVIL}")
    top = json.loads(gzip.decompress(said))
    files = {f"good{EVIL}.laff.gz": said, f"bad{EVIL}.laff.gz": b"x"}
    for number, (part, key) in enumerate([("image", "mode"), ("image", "width"), (None, "tune")]):
        other = json.loads(json.dumps(top))
        (other[part] if part else other)[key] = EVIL * 10_000
        files[f"{number}.laff.gz"] = json.dumps(other).encode()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    names = [str(tmp_path / name) for name in files]
    assert decompressor.main([*names, "-o", "out", "-j", "1"]) == 1
    assert decompressor.main([*names, "--info"]) == 1
    assert command.main(["features", str(tmp_path), "-o", str(tmp_path / f"a{EVIL}.parquet")]) == 1
    told = capsys.readouterr()
    lines = (told.out + told.err).splitlines()
    assert len(lines) > 12
    assert [line for line in lines if not line.isprintable() or len(line) > 1000] == []
    assert EVIL not in repr(codec.parse(said)._repr_mimebundle_())


@pytest.fixture(scope="module")
def bombs() -> dict[str, bytes]:
    """Small files that would unpack to much, or whose text needs far more memory than its length.

    All of them unpack to less than 12 times their bytes, but for the metadata.
    """
    text = gzip.decompress(claiming(8, 8)).decode()
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(b'[{"a":[' + b"[]," * 5_000_000 + b"0]},{}]") + deflate.flush()
    packed = base64.b64encode(packed).decode()
    lists, members = "[]," * 6_000_000, "".join(f'"{n}":0,' for n in range(1_500_000))
    texts = {
        "metadata": f'{text[:-1]},"metadata":"{packed}"}}',
        "image": text.replace('"image":{', f'"image":{{"a":[{lists}0],'),
        "members": text.replace('"image":{', f'"image":{{{members}'),
        "a long string": text.replace('"blocks":["', '"blocks":["' + "A" * 160_000_000),
        "depth": '{"image":' + "[" * 1_000_000,
    }
    return {name: text.encode() for name, text in texts.items()}


LIMITED = """
import contextlib, io, pathlib, resource, sys
import numpy as np
import femto
doors = [femto.info, femto.decode, femto.features, lambda a: list(femto.decode_bands(a)),
         lambda a: list(femto.decode_layers(io.BytesIO(a))), lambda a: femto.truncate(a, layers=1)]
good = femto.encode(np.zeros((40, 40), np.uint8))
for door in doors:
    door(good)  # what is compiled and kept is no part of it
status = pathlib.Path("/proc/self/status").read_text()
(used,) = (int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (used + (128 << 20),) * 2)
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    small = path.stat().st_size < 1 << 16
    for door in doors if small else [femto.info]:
        with contextlib.suppress(femto.LaffError):
            door(path.read_bytes() if small else path)
print("survived")
"""


def test_claims_and_bombs_end_in_little_memory(tmp_path, bombs):
    """A process that may have 128 MiB more meets them all, and raises nothing but LaffError."""
    archives = dict(bombs)
    sides = (1, 17, 1 << 16, 1 << 20)
    for height, width, tile in itertools.product(sides, sides, (16, 2048)):
        claims = claiming(height, width, tile=tile, strings=False)
        archives[f"{height} x {width} in {tile}"] = claims
    archives["gigapixel"] = claiming(*GIGAPIXEL)
    for number, data in enumerate(archives.values()):
        (tmp_path / f"{number:03}").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "femto_job")},
        check=False,
    )
    assert done.stdout == "survived\n", done.stderr[-2000:]


@pytest.mark.parametrize("name", ["metadata", "image", "members", "a long string"])
def test_bombs_are_refused(name, bombs):
    with pytest.raises(femto.LaffError, match="the archive is damaged"):
        femto.info(bombs[name])


def test_what_an_archive_could_not_give_back_is_not_written():
    image = np.zeros((8, 8), np.uint8)
    with pytest.raises(femto.LaffError, match="parts"):
        femto.encode(image, metadata={"a": [[]] * (1 << 20)})
    with pytest.raises(femto.LaffError, match="ICC profile"):
        femto.encode(image, icc=bytes(bounds.MAX_HEADER * 3 // 4))


def test_a_key_that_comes_twice_is_refused():
    text = gzip.decompress(claiming(8, 8)).decode()
    for key in ("step", "blocks", "strings"):
        value = json.dumps(json.loads(text)[key])
        with pytest.raises(femto.LaffError, match=f"'{key}' comes twice"):
            femto.info(f'{text[:-1]},"{key}":{value}}}'.encode())
