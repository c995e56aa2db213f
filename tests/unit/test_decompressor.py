"""The standalone decompressor, run as users run it."""

import contextlib
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

import decompressor
import femto
from femto.job.written import STATE_FOLDER
from femto.pictures import open_page

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "femto_job" / "decompressor.py"
# What takes longer than this hangs, on the busiest machine.
HANGS = 1800
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(height=50, width=70, channels=3, dtype=np.uint8) -> np.ndarray:
    rng = np.random.default_rng(height * width)
    y, x = np.mgrid[:height, :width]
    planes = [
        (90 + 50 * np.sin(x / (5 + c)) + 40 * np.cos(y / (7 + c))) * (1 + 256 * (dtype != np.uint8))
        for c in range(channels)
    ]
    pixels = np.stack(planes, axis=-1) + rng.integers(0, 9, (height, width, channels))
    pixels = np.clip(pixels, 0, np.iinfo(dtype).max).astype(dtype)
    return pixels if channels == 3 else pixels[..., 0]


@pytest.fixture(scope="session")
def archives(tmp_path_factory) -> Path:
    """A folder of archives: rgb, grey, deep (16 bits), icc (with a profile)."""
    folder = tmp_path_factory.mktemp("archives")
    for name, pixels, options in (
        ("rgb", picture(), {"source": "photo.tif", "metadata": {"note": "Grüße"}}),
        ("grey", picture(channels=1), {}),
        ("deep", picture(dtype=np.uint16), {}),
        ("icc", picture(), {"icc": SRGB}),
    ):
        (folder / f"{name}.laff.gz").write_bytes(femto.encode(pixels, quality=80, **options))
    return folder


@pytest.fixture
def here(tmp_path, archives) -> Path:
    """An empty working folder with copies of the archives."""
    for path in archives.iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path


@contextlib.contextmanager
def chdir(folder):
    """contextlib.chdir, which came with Python 3.11."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run_program(folder, *arguments, status=0, stdin=b"", python=(sys.executable, str(SCRIPT))):
    """Run it in `folder`; check the exit status and that nobody sees a stack trace."""
    done = subprocess.run(
        [*python, *map(str, arguments)], cwd=folder, input=stdin, capture_output=True, timeout=HANGS
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err, err
    assert done.returncode == status, (out, err)
    return out, err


def run(folder, *arguments, status=0, stdin=b""):
    """The same in this process, which saves the second that every start takes."""
    out, err = io.StringIO(), io.StringIO()
    with (
        chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            done = decompressor.main([*map(str, arguments)])
        except SystemExit as exc:  # wrong arguments
            done = exc.code
    if status is not None:
        assert done == status, (out.getvalue(), err.getvalue())
    return out.getvalue(), err.getvalue()


def failure(folder, *arguments, status=1, stdin=b"") -> str:
    """The one line that it says when all goes wrong."""
    out, err = run(folder, *arguments, status=status, stdin=stdin)
    assert out == ""
    assert err.startswith("decompressor.py: ")
    assert err.count("\n") == 1
    return err


def shown(folder: Path) -> list[str]:
    """The names in a folder, without what it remembers of them."""
    return sorted(p.name for p in folder.iterdir() if p.name != STATE_FOLDER)


def read(path) -> np.ndarray:
    with open_page(path) as reader:
        return reader[:, :]


def test_writes_png_into_images_out_by_default(here):
    out, err = run(here, "rgb.laff.gz")
    assert (out, err) == ("images_out/rgb.png\n", "")
    np.testing.assert_array_equal(
        read(here / "images_out/rgb.png"), femto.decode(here / "rgb.laff.gz")
    )


def test_the_program_itself(here):
    """As a program of its own, by its path and through a link, from another folder."""
    link = here / "unlaff"
    link.symlink_to(SCRIPT)
    assert os.access(SCRIPT, os.X_OK)
    for python in ([sys.executable, str(SCRIPT)], [sys.executable, str(link)]):
        out, err = run_program(here, "grey.laff.gz", "rgb.laff.gz", "-j", "2", python=python)
        assert out.splitlines()[0].startswith("images_out/grey.png")
        assert err == ""
    data = (here / "rgb.laff.gz").read_bytes()
    run_program(here, "-", stdin=data)
    np.testing.assert_array_equal(read(here / "images_out/stdin.png"), femto.decode(data))
    run_program(here, "none.laff.gz", status=1)
    run_program(here, "rgb.laff.gz", "--layers", "none", status=2)


@pytest.mark.parametrize("name", ["rgb", "grey", "deep", "icc"])
@pytest.mark.parametrize("kind", ["png", "tif", "jpg"])
def test_every_kind_of_picture_in_every_format(here, name, kind):
    run(here, f"{name}.laff.gz", "--format", kind)
    path = here / "images_out" / f"{name}.{kind}"
    want = femto.decode(here / f"{name}.laff.gz")
    got = read(path)
    if kind == "jpg":
        low, high = femto.info(here / f"{name}.laff.gz")["levels"]
        want = (want.astype(float) - low) * (255 / (high - low))
        assert np.abs(got - want).mean() < 3
    else:
        np.testing.assert_array_equal(got, want)
    with open_page(path) as reader:
        assert reader.icc == (SRGB if name == "icc" else None)


def test_output_file_tells_the_format(here):
    run(here, "rgb.laff.gz", "-o", "out.tif")
    run(here, "rgb.laff.gz", "-o", "new/deeper/out.jpg")
    with Image.open(here / "out.tif") as a, Image.open(here / "new/deeper/out.jpg") as b:
        assert (a.format, b.format) == ("TIFF", "JPEG")
    _, err = run(here, "rgb.laff.gz", "-o", "out.tif", "--format", "png", status=2)
    assert "contradict" in err


def test_output_folder(here):
    run(here, "rgb.laff.gz", "grey.laff.gz", "-o", "pictures")
    assert shown(here / "pictures") == ["grey.png", "rgb.png"]
    run(here, "icc.laff.gz", "-o", "pictures")
    assert (here / "pictures/icc.png").is_file()


def test_plain_text_archive_and_standard_input(here):
    data = (here / "rgb.laff.gz").read_bytes()
    want = femto.decode(data)
    (here / "plain.laff").write_bytes(gzip.decompress(data))
    run(here, "plain.laff")
    np.testing.assert_array_equal(read(here / "images_out/plain.png"), want)
    for text in (data, gzip.decompress(data)):
        run(here, "-", stdin=text)
        np.testing.assert_array_equal(read(here / "images_out/stdin.png"), want)
    run(here, "-", "-o", "x.png", stdin=data)
    assert (here / "x.png").read_bytes() == (here / "images_out/stdin.png").read_bytes()


def test_a_prefix_is_a_coarser_picture(here):
    archive = here / "rgb.laff.gz"
    layers = femto.info(archive)["layers"]
    for option, value, prefix in (
        ("--layers", 1, {"layers": 1}),
        ("--layers", layers - 1, {"layers": layers - 1}),
        ("--fraction", 0.7, {"fraction": 0.7}),
        ("--fraction", 1, {}),
    ):
        run(here, "rgb.laff.gz", "--overwrite", option, value)
        pixels = read(here / "images_out/rgb.png")
        np.testing.assert_array_equal(pixels, femto.decode(archive, **prefix))
    run(here, "rgb.laff.gz", "--layers", 1, "-o", "coarse.png")
    coarse, fine = read(here / "coarse.png"), read(here / "images_out/rgb.png")
    original = picture().astype(int)
    assert ((coarse - original) ** 2).mean() > 2 * ((fine - original) ** 2).mean()
    for bad in (["--fraction", "0"], ["--fraction", "1.1"], ["--layers", "0"], ["--layers", "x"]):
        _, err = run(here, "rgb.laff.gz", *bad, status=2)
        assert bad[0] in err


def test_a_region_is_what_the_whole_has_there(here):
    tall = np.repeat(np.repeat(picture(96, 32), 24, axis=0), 64, axis=1)
    (here / "tall.laff.gz").write_bytes(femto.encode(tall, metadata={"text": [["a", "b"]]}))
    whole = femto.decode(here / "tall.laff.gz")
    assert whole.shape == (2304, 2048, 3)
    for name, region in (("png", (1000, 1000, 300, 200)), ("tif", (0, 0, 2304, 2048))):
        y, x, height, width = region
        out, _ = run(here, "tall.laff.gz", "--region", *region, "-o", f"part.{name}")
        assert "without its metadata: they speak of the whole picture" in out
        np.testing.assert_array_equal(
            read(here / f"part.{name}"), whole[y : y + height, x : x + width]
        )
    run(here, "rgb.laff.gz", "--region", 9, 8, 7, 6)
    assert "(was there)" in run(here, "rgb.laff.gz", "--region", 9, 8, 7, 6)[0]
    assert "with other options" in failure(here, "rgb.laff.gz")
    for wrong in ((0, 0, 51, 1), (-1, 0, 2, 2), (0, 0, 0, 5), (0, 70, 1, 1)):
        message = failure(here, "rgb.laff.gz", "--region", *wrong, "-o", "no.png")
        assert "rgb.laff.gz" in message
        assert "region" in message
    assert "--region" in failure(here, "rgb.laff.gz", "--region", 1, 2, 3, status=2)
    assert not (here / "no.png").exists()


def test_only_the_tiles_of_a_region_are_decoded(here, monkeypatch):
    flat = np.full((2100, 3100), 7, np.uint8)  # 3 x 4 tiles
    (here / "flat.laff.gz").write_bytes(femto.encode(flat))
    decoded = []
    original = femto.codec.decode_tile
    monkeypatch.setattr(
        femto.codec, "decode_tile", lambda *a, **b: (decoded.append(a[1]), original(*a, **b))[1]
    )
    run(here, "flat.laff.gz", "--region", 1030, 1000, 20, 100, "-o", "part.png")
    assert sorted(decoded) == [4, 5]


def test_info_tells_what_is_in_it(here):
    out, _ = run(here, "--info", "rgb.laff.gz", "icc.laff.gz")
    assert "rgb.laff.gz\n" in out
    assert "70 x 50 pixels, RGB, 8 bits, from photo.tif" in out
    assert "Grüße" in out
    assert f"ICC, {len(SRGB):,} bytes" in out
    assert not (here / "images_out").exists()


def test_info_as_json_is_femto_info(here):
    out, _ = run(here, "--info", "--json", "rgb.laff.gz", "icc.laff.gz")
    rgb, icc = map(json.loads, out.splitlines())
    want = femto.info(here / "rgb.laff.gz")
    assert rgb == {"archive": "rgb.laff.gz", **want}
    assert icc["icc"] == len(SRGB)
    _, err = run(here, "--json", "rgb.laff.gz", status=2)
    assert "--info" in err


def test_info_into_a_pipe_that_closes(here):
    line = f"'{sys.executable}' '{SCRIPT}' --info --json {'rgb.laff.gz ' * 300} | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=here, capture_output=True, timeout=HANGS
    )
    assert done.stderr == b""
    assert done.returncode == 0
    assert done.stdout.count(b"\n") == 1


def test_the_same_again_is_fine_another_picture_is_not(here):
    run(here, "rgb.laff.gz")
    path = here / "images_out/rgb.png"
    before = path.read_bytes()
    out, _ = run(here, "rgb.laff.gz")
    assert out == "images_out/rgb.png (was there)\n"
    message = failure(here, "rgb.laff.gz", "--layers", 1)
    assert "images_out/rgb.png" in message
    assert "overwrite" in message
    assert path.read_bytes() == before
    run(here, "rgb.laff.gz", "--layers", 1, "--overwrite")
    assert path.read_bytes() != before
    assert shown(path.parent) == ["rgb.png"]


def test_equal_names_from_several_folders(here):
    for folder, name in (("a", "rgb"), ("b", "grey"), ("b/c", "icc")):
        (here / folder).mkdir(exist_ok=True)
        shutil.copy(here / f"{name}.laff.gz", here / folder / "x.laff.gz")
    names = ["a/x.laff.gz", "b/x.laff.gz", "b/c/x.laff.gz", "deep.laff.gz"]
    out, _ = run(here, *names)
    written = ["images_out/a/x.png", "images_out/b/x.png", "images_out/b/c/x.png"]
    assert out.splitlines() == [*written, "images_out/deep.png"]
    for name, path in zip(names[:3], written, strict=True):
        np.testing.assert_array_equal(read(here / path), femto.decode(here / name))
    # x.laff.gz and x.laff of one folder: both are written, none over the other.
    (here / "a/x.laff").write_bytes(gzip.decompress((here / "deep.laff.gz").read_bytes()))
    for arguments in (["a/x.laff.gz", "a/x.laff"], ["a"]):
        out, _ = run(here, *arguments, "-o", f"new{len(arguments)}")
        assert shown(here / f"new{len(arguments)}") == ["x.laff.png", "x.png"]
    np.testing.assert_array_equal(
        read(here / "new1/x.laff.png"), read(here / "images_out/deep.png")
    )
    # The same archive twice is one picture.
    out, _ = run(here, "rgb.laff.gz", "rgb.laff.gz", "-o", "once")
    assert out == "once/rgb.png\n"


def spoil(archive: Path):
    """Damage an archive so that nobody sees it who does not decode it."""
    status, data = archive.stat(), bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 255
    archive.write_bytes(data)
    os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def tree(tmp_path, archives) -> Path:
    """A working folder with a folder of archives, one of them in a sub-folder, and other things."""
    for name, place in (("rgb", "a/rgb"), ("grey", "a/b/grey"), ("deep", "a/deep")):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(archives / f"{name}.laff.gz", tmp_path / f"{place}.laff.gz")
    for name in ("notes.txt", "more.txt", "README", ".hidden.laff.gz"):
        (tmp_path / "a" / name).write_bytes(b"")
    (tmp_path / "a/link").symlink_to(tmp_path / "a/b")
    return tmp_path


def test_a_folder_is_restored_once(tree):
    out, err = run(tree, "a", "-o", "out")
    assert out.splitlines()[1] == "out/rgb.png"
    assert err == (
        "decompressor.py: 2 restored, 0 were there, 0 failed; left out: 3 other files (2 .txt, "
        "1 no extension), 1 linked folder (links are not followed), 1 sub-folder (--recursive "
        "includes them)\n"
    )
    out, err = run(tree, "a", "-o", "out", "--recursive")
    assert [line.split()[0] for line in out.splitlines()] == [
        "out/deep.png", "out/rgb.png", "out/b/grey.png",
    ]  # fmt: skip
    assert "1 restored, 2 were there, 0 failed; left out: 3 other files" in err
    for place in ("rgb", "deep", "b/grey"):
        want = femto.decode(tree / f"a/{place}.laff.gz")
        np.testing.assert_array_equal(read(tree / f"out/{place}.png"), want)
    # Nothing is decoded again, for it could not be: not with --overwrite either, in any process.
    for archive in (tree / "a").glob("**/[!.]*.laff.gz"):
        spoil(archive)
    for again in ([], ["--overwrite"], ["--format", "png"], ["-j", "1"]):
        out, err = run(tree, "a", "-o", "out", "--recursive", *again)
        assert out.count("(was there)") == 3
        assert "0 restored, 3 were there, 0 failed" in err
    (tree / "out/rgb.png").unlink()
    out, err = run(tree, "a", "-o", "out", "--recursive", status=1)
    assert "a/rgb.laff.gz" in err
    assert "0 restored, 2 were there, 1 failed" in err


def test_info_of_a_folder(tree):
    out, _ = run(tree, "--info", "--json", "a", "--recursive")
    assert [json.loads(line)["archive"] for line in out.splitlines()] == [
        "a/deep.laff.gz", "a/rgb.laff.gz", "a/b/grey.laff.gz",
    ]  # fmt: skip


def test_an_archive_that_changed_is_restored_anew_and_nothing_else_is_replaced(tree, archives):
    run(tree, "a", "-o", "out")
    shutil.copy(archives / "icc.laff.gz", tree / "a/rgb.laff.gz")
    out, _ = run(tree, "a", "-o", "out")
    assert "out/rgb.png\n" in out
    assert "out/deep.png (was there)" in out
    np.testing.assert_array_equal(read(tree / "out/rgb.png"), femto.decode(tree / "a/rgb.laff.gz"))

    def refused(*words: str):
        before = (tree / "out/rgb.png").read_bytes()
        out, err = run(tree, *words[1:], "-o", "out", status=1)
        assert out.count("\n") == 1
        assert words[0] in err
        assert (tree / "out/rgb.png").read_bytes() == before

    # With other options; of another archive, not decoded for that; by somebody else.
    _, err = run(tree, "a", "-o", "out", "--layers", "1", status=1)
    assert err.count("was made of it with other options; overwrite it") == 2
    (tree / "c").mkdir()
    for name in ("rgb", "grey"):
        shutil.copy(archives / f"{name}.laff.gz", tree / "c")
    spoil(tree / "c/rgb.laff.gz")
    refused(f"is the picture of {tree}/a/rgb.laff.gz; overwrite it", "c")
    shutil.copy(archives / "rgb.laff.gz", tree / "a/rgb.laff.gz")
    (tree / "out/rgb.png").write_bytes(b"edited")
    refused("another file is there; overwrite it", "a")
    run(tree, "a", "-o", "out", "--overwrite")
    np.testing.assert_array_equal(read(tree / "out/rgb.png"), femto.decode(tree / "a/rgb.laff.gz"))
    # Archives that were moved: what is there is the same, and theirs from then on.
    (tree / "a").rename(tree / "moved")
    for _ in range(2):
        out, err = run(tree, "moved", "-o", "out")
        assert "0 restored, 2 were there, 0 failed" in err
        spoil(tree / "moved/rgb.laff.gz")


def test_a_killed_run_goes_on_and_leaves_no_process(tree, archives):
    names = [f"{i:02}" for i in range(40)]
    for name in names:
        shutil.copy(archives / "rgb.laff.gz", tree / f"a/{name}.laff.gz")
    command = [sys.executable, str(SCRIPT), "a", "-o", "out", "-j", "2"]
    process = subprocess.Popen(command, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    told = [process.stdout.readline().decode().strip() for _ in range(3)]
    threads = Path(f"/proc/{process.pid}/task").glob("*/children")
    assert len([child for thread in threads for child in thread.read_text().split()]) >= 2
    process.kill()
    # Their pipes are closed when the last of them is gone.
    told += process.communicate(timeout=HANGS)[0].decode().split()
    assert len(told) < len(names)
    part = tree / "out/.femto-12.part"
    part.write_bytes(b"begun")
    for line in told:
        spoil(tree / f"a/{Path(line).stem}.laff.gz")
    out, _ = run(tree, "a", "-o", "out")
    assert out.count("(was there)") >= len(told)
    assert not part.exists()
    want = femto.decode(archives / "rgb.laff.gz")
    for name in names:
        np.testing.assert_array_equal(read(tree / f"out/{name}.png"), want)


def test_an_archive_that_kills_its_process_costs_only_itself(tree, archives):
    for i in range(9):
        shutil.copy(archives / "rgb.laff.gz", tree / f"a/{i}{'poison' * (i in (3, 4))}.laff.gz")
    (tree / "poisoned.py").write_text(
        f"import os, signal, sys; sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        "import decompressor\n"
        "from femto.job import decompressing\n"
        "make_picture = decompressing.make_picture\n"
        "def poisoned(archive, *arguments, **options):\n"
        "    if 'poison' in archive:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return make_picture(archive, *arguments, **options)\n"
        "decompressing.make_picture = poisoned\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(decompressor.main(sys.argv[1:]))\n"
    )
    poisoned = (sys.executable, "poisoned.py")
    out, err = run_program(tree, "a", "-o", "out", "-j", "2", status=1, python=poisoned)
    assert len(out.splitlines()) == 9
    assert err.count("poison.laff.gz: its process was killed") == 2
    assert "9 restored, 0 were there, 2 failed" in err
    assert len(shown(tree / "out")) == 9


def test_the_output_is_a_file_if_its_suffix_is_one_of_a_picture(here):
    run(here, "rgb.laff.gz", "-o", "x.webp")
    np.testing.assert_array_equal(read(here / "x.webp"), femto.decode(here / "rgb.laff.gz"))
    with Image.open(here / "x.webp") as image:
        assert image.format == "WEBP"
    run(here, "icc.laff.gz", "-o", "icc.WEBP")
    with open_page(here / "icc.WEBP") as reader:
        assert reader.icc == SRGB
    run(here, "deep.laff.gz", "--format", "webp")
    assert shown(here / "images_out") == ["deep.webp"]
    assert "femto writes .png, .tif" in failure(here, "rgb.laff.gz", "-o", "x.gif", status=2)
    for several in (["rgb.laff.gz", "grey.laff.gz"], ["."]):
        assert "is not a folder" in failure(here, *several, "-o", "y.webp", status=2)
    assert not (here / "y.webp").exists()
    run(here, "rgb.laff.gz", "-o", "v1.2")
    assert shown(here / "v1.2") == ["rgb.png"]
    # Nothing is kept beside a file that was named.
    assert not (here / STATE_FOLDER).exists()


def test_more_layers_than_there_are(here):
    have = femto.info(here / "rgb.laff.gz")["layers"]
    out, _ = run(here, "rgb.laff.gz", "--layers", "99")
    assert out == f"images_out/rgb.png (has {have} layers)\n"
    out, _ = run(here, "rgb.laff.gz", "--layers", "99")
    assert out == f"images_out/rgb.png (was there) (has {have} layers)\n"
    out, _ = run(here, "grey.laff.gz", "--layers", have)
    assert out == "images_out/grey.png\n"


def test_wrong_arguments_are_one_line(here):
    for wrong in ([], ["--layers", "x", "a"], ["--jobs", "0", "a"], ["--format", "gif", "a"],
                  ["--nonsense", "a"], ["--json", "a"]):  # fmt: skip
        message = failure(here, *wrong, status=2)
        assert "usage" not in message
        assert "(see decompressor.py --help)" in message


def test_names_are_printable(here):
    name = os.fsdecode(b"r\x1b[31m\n\xff.laff.gz")
    shutil.copy(here / "rgb.laff.gz", here / name)
    out, _ = run(here, name)
    assert out == "images_out/r\\x1b[31m\\n\\udcff.png\n"
    (here / name).write_bytes(b"")
    for option in ([], ["--info"]):
        message = failure(here, name, *option)
        assert "r\\x1b[31m" in message
        assert "\x1b" not in message
    shutil.copy(here / "rgb.laff.gz", here / name)
    assert "r\\x1b[31m" in run(here, "--info", name)[0]


def test_several_in_parallel_are_the_same_as_one_by_one(here):
    names = ["rgb.laff.gz", "grey.laff.gz", "deep.laff.gz", "icc.laff.gz"]
    run(here, *names, "-o", "parallel", "-j", "4")
    run(here, *names, "-o", "single", "-j", "1")
    for name in shown(here / "single"):
        assert (here / "single" / name).read_bytes() == (here / "parallel" / name).read_bytes()


def test_one_bad_archive_does_not_stop_the_others(here):
    (here / "bad.laff.gz").write_bytes(b"\x1f\x8b rubbish")
    for jobs in ("1", "3"):
        out, err = run(
            here, "rgb.laff.gz", "bad.laff.gz", "none.laff.gz", "grey.laff.gz",
            "-j", jobs, "-o", f"out{jobs}", status=1,
        )  # fmt: skip
        assert out.splitlines() == [f"out{jobs}/rgb.png", f"out{jobs}/grey.png"]
        assert err.count("\n") == 2
        assert "bad.laff.gz" in err
        assert "none.laff.gz: there is no such file" in err


def changed(path, **fields) -> bytes:
    """The archive with top-level fields of its JSON replaced."""
    content = json.loads(gzip.decompress(path.read_bytes()))
    return gzip.compress(json.dumps({**content, **fields}).encode())


def test_what_is_no_archive_is_refused_by_name(here):
    (here / "images").mkdir()
    good = here / "rgb.laff.gz"
    huge = json.loads(gzip.decompress(good.read_bytes()))["image"] | {"width": 1 << 30}
    for name, content in {
        "empty.laff.gz": b"",
        "text.laff": b"hello",
        "json.laff": b'{"format": "other"}',
        "list.laff": b"[1, 2, 3]",
        "deep.laff": b"[" * 100_000,
        "picture.laff.gz": (ROOT / "samples/dragonfly.png").read_bytes(),
        "version.laff.gz": changed(good, version=99),
        "limit.laff.gz": changed(good, image=huge),
    }.items():
        (here / name).write_bytes(content)
        assert name in failure(here, name)
        assert name in failure(here, "--info", name)
    assert "images: no archives in this folder" in failure(here, "images")
    assert "missing.laff.gz" in failure(here, "missing.laff.gz")
    assert "missing.laff.gz" in failure(here, "--info", "missing.laff.gz")
    assert "99" in failure(here, "version.laff.gz")
    assert not list(here.glob("images_out/*"))


def test_standard_input_that_is_no_archive_is_refused_at_once(here):
    assert "standard input: is empty" in failure(here, "-")
    assert "standard input: is no archive" in failure(here, "-", stdin=b"hello" * 9)
    assert "standard input" in failure(here, "-", stdin=b"\x1f\x8bhello")
    with open("/dev/zero", "rb") as endless:
        done = subprocess.run(
            [sys.executable, str(SCRIPT), "-"],
            cwd=here,
            stdin=endless,
            capture_output=True,
            timeout=HANGS,
        )
    assert done.returncode == 1
    assert b"is no archive" in done.stderr
    _, err = run(here, "-", "-", status=2)
    assert "only once" in err


def test_archives_cut_short_are_refused_or_give_whole_layers(here):
    data = (here / "rgb.laff.gz").read_bytes()
    wholes = [femto.decode(data, layers=n + 1) for n in range(femto.info(data)["layers"])]
    for keep in [1, 2, 9, 10, 11, 30, *range(60, len(data), len(data) // 12), len(data) - 1]:
        (here / "short.laff.gz").write_bytes(data[:keep])
        out, err = run_either(here, "short.laff.gz", "-o", f"{keep}.png")
        if out:
            pixels = read(here / f"{keep}.png")
            assert any(np.array_equal(pixels, whole) for whole in wholes)
        else:
            assert "short.laff.gz" in err
            assert not (here / f"{keep}.png").exists()


def run_either(folder, *arguments):
    """What the program prints, whether it succeeds or fails."""
    out, err = run(folder, *arguments, status=None)
    assert (bool(out), err.count("\n")) in ((True, 0), (False, 1)), (out, err)
    return out, err


@pytest.mark.parametrize("kind", ["gz", "plain"])
def test_one_flipped_byte_is_an_error_or_changes_nothing(here, kind):
    data = (here / "grey.laff.gz").read_bytes()
    want = femto.decode(data)
    name = "x.laff.gz"
    if kind == "plain":
        data, name = gzip.decompress(data), "x.laff"
    rng = np.random.default_rng(5)
    positions = [*range(0, min(len(data), 400), 7), *rng.integers(0, len(data), 100), len(data) - 1]
    refused = 0
    for position in positions:
        wrong = bytearray(data)
        wrong[position] ^= 1 << rng.integers(8)
        (here / name).write_bytes(wrong)
        out, err = run_either(here, name, "-o", "x.png", "--overwrite")
        if out:
            np.testing.assert_array_equal(read(here / "x.png"), want)
        else:
            refused += 1
            assert name in err
    assert refused > len(positions) // 2


def test_output_that_cannot_be_written(here):
    (here / "a file").write_bytes(b"")
    assert "a file" in failure(here, "rgb.laff.gz", "-o", "a file/x.png")
    _, err = run(here, "rgb.laff.gz", "grey.laff.gz", "-o", "a file", status=2)
    assert "not a folder" in err
    message = failure(here, "rgb.laff.gz", "-o", "/dev/full")
    assert "/dev/full" in message
    assert "No space left" in message


@pytest.fixture
def mounted(tmp_path):
    """A function that mounts a small file system: mounted(options) -> folder."""
    folders = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"mount{len(folders)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"needs a file system of its own: {done.stderr.strip()}")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_full_disk(here, mounted):
    folder = mounted("size=16k")
    for kind in ("png", "tif", "jpg"):
        with contextlib.suppress(OSError):
            (folder / "filler").write_bytes(b"x" * 20_000)
        message = failure(here, "deep.laff.gz", "-o", f"{folder}/", "--format", kind)
        assert "No space left" in message
        assert f"deep.{kind}" in message
        assert [p.name for p in folder.iterdir()] == ["filler"]


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_read_only_folder(here, mounted):
    folder = mounted("ro")
    assert "Read-only" in failure(here, "rgb.laff.gz", "-o", f"{folder}/")
    assert "Read-only" in failure(here, "rgb.laff.gz", "-o", f"{folder}/new/")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_tall_picture_is_written_in_bounded_memory(here):
    """6 tile rows of 1024 x 3072; the picture is 57 MB of 16-bit samples, twice that as int32."""
    tall = np.repeat(np.repeat(picture(96, 32, dtype=np.uint16), 64, axis=0), 96, axis=1)
    (here / "tall.laff.gz").write_bytes(femto.encode(tall, quality=20))
    peaks = []
    for name in ("deep.laff.gz", "tall.laff.gz"):
        code = (
            f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import decompressor;"
            "assert decompressor.main(sys.argv[1:]) == 0;"
            "print(*(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
        )
        python = [sys.executable, "-c", code]
        out, _ = run_program(here, name, "-j", "1", python=python)
        peaks.append(int(out.split()[-2]) / 1024)
    # 60 bytes a pixel for one row of tiles: 3 x 1024 x 1024.
    assert peaks[1] - peaks[0] < 60 * 3 + 40, peaks


def test_help_and_version():
    out, _ = run(ROOT, "--help")
    assert "--fraction" in out
    out, _ = run(ROOT, "--version")
    assert out == f"femto {femto.__version__}\n"
    run(ROOT, status=2)
