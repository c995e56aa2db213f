"""roles/spark/files/parcel.py: how folders travel between the controller and the master."""

import io
import os
import subprocess
import sys
import tarfile

import pytest

NOWHERE = "/nonexistent/link"


@pytest.fixture
def parcel(repository):
    def run(*arguments, **options) -> subprocess.CompletedProcess:
        script = repository / "roles/spark/files/parcel.py"
        return subprocess.run([sys.executable, script, *arguments], capture_output=True, **options)

    return run


@pytest.fixture
def pictures(tmp_path):
    """A folder with all that may lie among pictures, beside a file that is none of its business."""
    (tmp_path / "outside.png").write_bytes(b"outside")
    folder = tmp_path / "in"
    (folder / "more/.hidden").mkdir(parents=True)
    (folder / "out").mkdir()
    for name in ("a.png", "more/b é.png", ".c.png", "more/.hidden/d.png", "out/a.laff.gz"):
        (folder / name).write_bytes(name.encode())
    os.utime(folder / "a.png", ns=(10**18, 10**18 + 123_456_789))
    with open(os.fsencode(folder) + b"/\xff.png", "wb") as file:
        file.write(b"no UTF-8")
    (folder / "empty").mkdir()
    links = {
        "inner.png": "more/b é.png",
        "absolute.png": str(folder / "a.png"),
        "outer.png": "../outside.png",
        "root.png": "/etc/passwd",
        "dangling.png": "nothing",
        "around": "more",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe.png")
    return folder


def listed(folder) -> dict[str, bytes | str]:
    found = {}
    for here, folders, names in os.walk(os.fsencode(folder)):
        for name in folders + names:
            path = os.path.join(here, name)
            key = os.fsdecode(os.path.relpath(path, os.fsencode(folder)))
            if os.path.islink(path):
                found[key] = os.fsdecode(os.readlink(path))
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    found[key] = file.read()
            else:
                found[key] = "folder"
    return found


def test_a_folder_arrives_without_what_its_links_point_to(parcel, pictures, tmp_path):
    packed = parcel("pack", pictures, tmp_path / "in.tar", pictures / "out")
    assert packed.returncode == 0, packed.stderr
    left = ["around", "dangling.png", "outer.png", "pipe.png", "root.png"]
    assert sorted(packed.stdout.decode().split()) == left
    target = tmp_path / "there"
    target.mkdir()
    with (tmp_path / "in.tar").open("rb") as file:
        done = parcel("unpack", target, stdin=file)
    assert done.returncode == 0, done.stderr
    assert listed(target) == {
        "a.png": b"a.png",
        "absolute.png": b"a.png",
        "more": "folder",
        "more/b é.png": "more/b é.png".encode(),
        "inner.png": "more/b é.png".encode(),
        os.fsdecode(b"\xff.png"): b"no UTF-8",
        "empty": "folder",
    } | dict.fromkeys(left, NOWHERE)
    # Packed again it has the same times: for a job that goes on, the pictures are the same.
    first = (target / "a.png").stat().st_mtime_ns
    assert abs(first - (pictures / "a.png").stat().st_mtime_ns) < 1000
    assert (tmp_path / "outside.png").read_bytes() == b"outside"


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.mode, info.uid = 0o4777, 0
    if kind == tarfile.REGTYPE:
        info.size = 4
    return info


HOSTILE = {
    "absolute": [member("/{outside}/new.png")],
    "above": [member("../new.png")],
    "above, from within": [member("a/../../new.png")],
    "a hard link": [member("a.png", tarfile.LNKTYPE, "{outside}/file.png")],
    "a device": [member("null.png", tarfile.CHRTYPE)],
    "through a link that was there": [member("link/new.png")],
    "a folder in the place of a link": [member("link", tarfile.DIRTYPE)],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_nothing_is_written_outside_the_folder(parcel, tmp_path, case):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file.png").write_bytes(b"mine")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for info in HOSTILE[case]:
            info.name = info.name.replace("/{outside}", str(outside))
            info.linkname = info.linkname.replace("{outside}", str(outside))
            tar.addfile(info, io.BytesIO(b"evil"))
    done = parcel("unpack", folder, input=data.getvalue())
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.endswith(("nothing more is unpacked", "move it away"))
    assert listed(outside) == {"file.png": b"mine"}
    assert listed(tmp_path).keys() == {"in", "in/link", "outside", "outside/file.png"}


def test_links_and_modes_that_travel_are_not_those_that_were_sent(parcel, tmp_path):
    (tmp_path / "secret").write_bytes(b"mine")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "old.png").symlink_to(tmp_path / "secret")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.addfile(member("a.png", tarfile.SYMTYPE, "/etc/passwd"))
        tar.addfile(member("b.png"), io.BytesIO(b"evil"))
        tar.addfile(member("old.png"), io.BytesIO(b"evil"))
    assert parcel("unpack", folder, input=data.getvalue()).returncode == 0
    assert listed(folder) == {"a.png": NOWHERE, "b.png": b"evil", "old.png": b"evil"}
    assert (tmp_path / "secret").read_bytes() == b"mine"
    assert (folder / "b.png").stat().st_mode & 0o7111 == 0


def test_what_is_cut_short_is_told_in_one_line(parcel, pictures, tmp_path):
    parcel("pack", pictures, tmp_path / "in.tar")
    (tmp_path / "there").mkdir()
    data = (tmp_path / "in.tar").read_bytes()
    done = parcel("unpack", tmp_path / "there", input=data[:700])
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert "run the same command again" in line
