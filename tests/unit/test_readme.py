"""What README.md tells people to type works."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

import femto
from femto import cli, pictures
from femto.cli import restore


@pytest.fixture(scope="module")
def text(repository):
    return (repository / "README.md").read_text(encoding="utf-8")


def test_it_opens_with_the_two_commands(text, repository):
    commands = re.findall(r"^    (\S+)", text, re.MULTILINE)
    assert commands[:2] == ["./run.sh", "./test.sh"]
    for name in ("run.sh", "test.sh", ".ci/run"):
        assert (repository / name).stat().st_mode & 0o111, name


def test_the_python_example_runs(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where it writes
    example, _ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    image = np.random.default_rng(1).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    names = {"image": image}
    exec(example, names)
    assert names["image"].shape == image.shape
    assert len(names["smaller"]) <= 20_000


def test_the_data_set_is_what_a_loader_takes(text, tmp_path):
    """A sequence of samples that processes can be handed; with PyTorch, where that is installed."""
    _, example = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {"femto": femto, "__name__": "data_set"}
    exec(example, names)
    paths = [tmp_path / f"{i}.laff.gz" for i in range(3)]
    for i, path in enumerate(paths):
        path.write_bytes(femto.encode(np.full((64, 40, 3), 100 * i, np.uint8)))
    found = names["Archives"](paths, [5, 6, 7])
    assert len(found) == 3
    for i in range(3):
        pixels, label = found[i]
        assert label == 5 + i and (pixels.shape, pixels.dtype) == ((8, 5, 3), np.float32)
        assert np.abs(pixels - 100 * i / 255).max() < 0.02
    with pytest.raises(IndexError):  # which ends a loop over it
        found[3]
    if importlib.util.find_spec("torch"):
        from torch.utils.data import DataLoader

        ((batch, labels),) = DataLoader(found, batch_size=3)
        assert tuple(batch.shape) == (3, 8, 5, 3) and labels.tolist() == [5, 6, 7]


def test_the_decompressor_lines_run(text, repository, tmp_path):
    lines = re.findall(r"^    (.*decompressor\.py.*)$", text, re.MULTILINE)
    assert len(lines) >= 5
    (tmp_path / "images_out").mkdir()
    archive = femto.encode(np.full((20, 30), 9, np.uint8), source="photo.png")
    (tmp_path / "images_out" / "photo.laff.gz").write_bytes(archive)
    (tmp_path / "photo.laff.gz").write_bytes(archive)
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "scan.laff.gz").write_bytes(archive)
    shutil.copy(
        repository / "femto_job" / "femto" / "data" / "photo.basis", tmp_path / "scans.basis"
    )
    for line in lines:
        command = line.split("  #")[0].replace(
            "python3 femto_job", f"{sys.executable} {repository}/femto_job"
        )
        done = subprocess.run(
            command + " --overwrite" * ("--info" not in command),
            shell=True,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (line, done.stderr)
    assert pictures.probe(tmp_path / "images_out" / "photo.png")[0].width == 30


def test_the_lines_that_restore_are_understood(text):
    lines = re.findall(r"^    .*femto_job/restore\.py(.*?)(?:  #.*)?$", text, re.MULTILINE)
    assert len(lines) >= 3
    for line in lines:
        assert cli.parse(restore, "restore.py", shlex.split(line))


def test_the_jobs_options_are_all_told(text, repository):
    shown = subprocess.run(
        [sys.executable, repository / "femto_job" / "compress.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    table = text[text.index("| option |") :].split("\n\n")[0]
    for option in re.findall(r"--[a-z][a-z-]*", table):
        assert option in shown, option


def test_files_and_options_that_it_names_exist(text, repository):
    for name in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (repository / name).exists(), name
    for script, options in re.findall(r"python3 (bench/\w+\.py)([^\n]*)", text):
        source = "".join(p.read_text() for p in (repository / "bench").glob("*.py"))
        assert (repository / script).is_file()
        for option in re.findall(r"--[a-z0-9-]+", options):
            assert f'"{option}"' in source, option
