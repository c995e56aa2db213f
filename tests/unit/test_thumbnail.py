"""femto thumbnail, and the files in desktop/ that have file managers call it."""

import configparser
import gzip
import io
import os
import shutil
import subprocess
import xml.etree.ElementTree as xml

import numpy as np
import pytest
from PIL import Image

import femto
from femto import pillow
from femto.__main__ import command_line, main

TYPES = {"photo.laff.gz": "image/x-laff", "photo.laff": "image/x-laff-text"}


@pytest.fixture(scope="module")
def pixels():
    """A disc on a ramp, 700 x 500, that noise makes long."""
    y, x = np.mgrid[:500, :700]
    noise = np.random.default_rng(1).normal(0, 6, y.shape)
    disc = 90 * ((y - 250) ** 2 + (x - 300) ** 2 < 150**2)
    return np.clip(40 + x / 8 + disc + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def archive(pixels, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "photo.laff.gz"
    path.write_bytes(femto.encode(pixels, quality=90))
    return path


@pytest.mark.parametrize(("size", "scale"), [(64, 8), (87, 8), (88, 4), (256, 2), (400, 1)])
def test_it_is_the_picture_made_small(archive, pixels, tmp_path, size, scale):
    out = tmp_path / "out.png"
    assert main(["thumbnail", str(archive), str(out), "--size", str(size)]) == 0
    with Image.open(out) as small:
        assert (small.format, small.mode) == ("PNG", "L")
        assert max(small.size) == size and abs(small.size[1] - size * 5 / 7) <= 1
        whole = Image.fromarray(pixels)
        whole.thumbnail((size, size), Image.Resampling.LANCZOS)
        assert np.abs(np.asarray(small).astype(int) - np.asarray(whole)).mean() < 4
        expected = Image.fromarray(femto.decode(archive, scale=scale))
        expected.thumbnail((size, size), Image.Resampling.LANCZOS)
        assert (np.asarray(small) == np.asarray(expected)).all()
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]


def test_nothing_behind_the_first_layers_is_read(archive, tmp_path):
    whole = archive.read_bytes()
    cut = tmp_path / "cut.laff.gz"
    for size, share in ((64, 0.06), (256, 0.4)):
        cut.write_bytes(whole[: int(len(whole) * share)])
        outs = []
        for path in (archive, cut):
            outs.append(tmp_path / f"{path.stem}.png")
            assert (
                main(["thumbnail", str(path), str(outs[-1]), f"--size={size}", "--overwrite"]) == 0
            )
        assert outs[0].read_bytes() == outs[1].read_bytes()


def test_other_pictures(tmp_path):
    """Small ones stay as they are; those of more bits are shown from black to white."""
    ramp = np.tile(np.arange(1000, 3000, 50, dtype=np.uint16), (20, 1))
    colour = np.stack([ramp % 256, ramp // 9 % 256, 255 - ramp % 256], -1).astype(np.uint8)
    floats = ramp.astype(np.float32) / 7
    for image, mode in ((ramp, "L"), (colour, "RGB"), (floats, "L")):
        path, out = tmp_path / "a.laff.gz", tmp_path / "a.png"
        path.write_bytes(femto.encode(image, quality=95))
        assert main(["thumbnail", str(path), str(out), "--overwrite"]) == 0
        with Image.open(out) as small:
            assert (small.size, small.mode) == ((40, 20), mode)
            if mode == "L":
                assert np.asarray(small).min() < 20 and np.asarray(small).max() > 235


def test_what_is_there_stays_and_bad_archives_are_told(archive, tmp_path, capsys):
    out = tmp_path / "out.png"
    out.write_bytes(b"mine")
    bad = tmp_path / "bad.laff.gz"
    bad.write_bytes(archive.read_bytes()[:90])
    with pytest.raises(SystemExit):
        main(["thumbnail", str(archive), str(out)])
    assert "is there already" in capsys.readouterr().err
    assert main(["thumbnail", str(bad), str(out), "--overwrite"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "bad.laff.gz" in error and "cut short" in error
    assert out.read_bytes() == b"mine"


def test_archives_of_a_basis_of_ones_own(own_basis, own_archive, tmp_path, capsys):
    path, out = tmp_path / "a.laff.gz", tmp_path / "a.png"
    path.write_bytes(own_archive)
    assert main(["thumbnail", str(path), str(out)]) == 2
    assert "needs the basis 'own'" in capsys.readouterr().err
    assert main(["thumbnail", str(path), str(out), "--basis", str(own_basis)]) == 0
    assert out.exists()


# ------------------------------------------------------------------------------------------------
# The desktop


@pytest.fixture(scope="module")
def entries(repository):
    """File in desktop/ -> its one group of keys."""
    found = {}
    for name in ("femto.desktop", "femto.thumbnailer"):
        parser = configparser.RawConfigParser()
        parser.optionxform = str
        parser.read(repository / "desktop" / name, encoding="utf-8")
        (group,) = parser.sections()
        found[name] = (group, dict(parser[group]))
    return found


def test_file_managers_call_what_there_is(entries, archive, tmp_path):
    """With what the specifications have the placeholders stand for. Tumbler makes the file
    beforehand and reads it through what it has open; GNOME makes it, too."""
    group, keys = entries["femto.thumbnailer"]
    assert group == "Thumbnailer Entry"
    out = tmp_path / "made before.png"
    out.write_bytes(b"longer than any thumbnail" * 9999)
    given = {"%s": "128", "%i": str(archive), "%o": str(out)}
    program, *words = (given.get(word, word) for word in keys["Exec"].split())
    assert program == keys["TryExec"] == "femto"
    with open(out, "rb") as held:
        assert main(words) == 0
        with Image.open(io.BytesIO(held.read())) as small:
            assert small.size == (128, 91)
        assert held.seek(0, os.SEEK_END) < 40_000
    group, keys = entries["femto.desktop"]
    assert group == "Desktop Entry" and keys["Type"] == "Application"
    program, *words = keys["Exec"].split()
    assert (program, words.pop()) == ("femto", "%F")
    parser, _ = command_line()
    assert parser.parse_args([*words, str(archive)]).archives == [str(archive)]


def test_types_are_the_same_everywhere(entries, repository):
    tree = xml.parse(repository / "desktop" / "femto.xml").getroot()
    space = {"x": "http://www.freedesktop.org/standards/shared-mime-info"}
    globs = {
        glob.get("pattern"): kind.get("type")
        for kind in tree.findall("x:mime-type", space)
        for glob in kind.findall("x:glob", space)
    }
    assert globs == {"*.laff.gz": "image/x-laff", "*.laff": "image/x-laff-text"}
    for _, keys in entries.values():
        assert keys["MimeType"] == "image/x-laff;image/x-laff-text;"
    assert Image.MIME[pillow.FORMAT] == "image/x-laff"
    (magic,) = (match.get("value") for match in tree.findall(".//x:match", space))
    assert gzip.decompress(femto.encode(np.zeros((1, 1), np.uint8))).startswith(magic.encode())


@pytest.mark.parametrize("tool", ["xdg-mime", "gio"])
def test_the_desktop_knows_archives(archive, repository, tmp_path, tool):
    """By the desktop's own tools, in a home of its own."""
    # Where there is no desktop, xdg-mime asks `mimetype`.
    needed = ["update-mime-database", tool, *(["mimetype"] if tool == "xdg-mime" else [])]
    if missing := [name for name in needed if not shutil.which(name)]:
        packages = "shared-mime-info, xdg-utils, libfile-mimeinfo-perl, libglib2.0-bin"
        pytest.skip(f"{' and '.join(missing)} not here ({packages})")
    mime = tmp_path / "share" / "mime"
    (mime / "packages").mkdir(parents=True)
    shutil.copy(repository / "desktop" / "femto.xml", mime / "packages")
    desktop = ("DESKTOP_SESSION", "KDE_FULL_SESSION", "XDG_CURRENT_DESKTOP")
    env = {key: value for key, value in os.environ.items() if key not in desktop}
    env |= {"XDG_DATA_HOME": str(tmp_path / "share"), "HOME": str(tmp_path)}
    done = subprocess.run(["update-mime-database", mime], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for name, kind in TYPES.items():
        path = tmp_path / name
        data = archive.read_bytes()
        path.write_bytes(data if name.endswith(".gz") else gzip.decompress(data))
        command = {
            "xdg-mime": ["xdg-mime", "query", "filetype"],
            "gio": ["gio", "info", "-a", "standard::content-type"],
        }[tool]
        told = subprocess.run([*command, path], env=env, capture_output=True, text=True, check=True)
        assert told.stdout.split()[-1] == kind


def test_the_entry_is_valid(repository):
    if shutil.which("desktop-file-validate") is None:
        pytest.skip("desktop-file-validate is not here (desktop-file-utils)")
    path = repository / "desktop" / "femto.desktop"
    done = subprocess.run(["desktop-file-validate", path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
