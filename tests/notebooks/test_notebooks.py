"""Every notebook, executed from top to bottom on this machine, and how it is kept in git."""

import json
import os
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

import femto

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
NAMES = {
    "color_image_compression",
    "grayscale_compression",
    "progressive",
    "spark_image_compression",
    "xray_analysis",
}
SAMPLES = {"Löwenzahn (dandelion)", "chest-xray", "dragonfly", "mountain ridge"}


class Executed:
    """An executed notebook: its figures (PNG files), and all text that its cells showed."""

    def __init__(self, cells):
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        bundles = [output.get("data", {}) for output in outputs]
        self.figures = [data["image/png"] for data in bundles if "image/png" in data]
        self.html = "".join(data.get("text/html", "") for data in bundles)
        self.text = "\n".join(
            output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs
        )


@pytest.fixture
def execute(tmp_path, monkeypatch):
    monkeypatch.setenv("FEMTO_OUT", str(tmp_path))
    monkeypatch.delenv("FEMTO_IMAGES", raising=False)
    # Where a user starts Jupyter, femto can be imported.
    paths = [str(ROOT / "femto_job"), os.environ.get("PYTHONPATH")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))

    def run(name: str, more: str = "") -> Executed:
        notebook = nbformat.read(NOTEBOOKS[name], 4)
        if more:
            notebook.cells.append(nbformat.v4.new_code_cell(more))
        resources = {"metadata": {"path": str(NOTEBOOKS[name].parent)}}
        # What takes longer than this hangs, on the busiest machine.
        limits = {"timeout": 1800, "startup_timeout": 1800}
        NotebookClient(notebook, kernel_name="python3", resources=resources, **limits).execute()
        return Executed(notebook.cells)

    return run


def names(folder: Path) -> set[str]:
    return {path.name.removesuffix(".laff.gz") for path in folder.glob("*.laff.gz")}


def test_the_notebooks_are_these():
    assert set(NOTEBOOKS) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_no_output_is_kept_in_git(name):
    text = NOTEBOOKS[name].read_text()
    notebook = json.loads(text)
    nbformat.validate(nbformat.from_dict(notebook))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    kept = [c["source"] for c in code if c["outputs"] or c["execution_count"] is not None]
    assert not kept, f"strip the outputs: jupyter nbconvert --clear-output notebooks/{name}.ipynb"
    assert not any(cell["metadata"] for cell in notebook["cells"])
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    # What there is to choose stands first.
    assert re.match("# Set your chosen constants, target a (picture|folder)", code[0]["source"][0])


@pytest.mark.parametrize(
    "name, figures", [("color_image_compression", 12), ("grayscale_compression", 11)]
)
def test_compression(execute, tmp_path, name, figures):
    done = execute(name)
    assert len(done.figures) == figures
    assert names(tmp_path) == SAMPLES
    for path in tmp_path.glob("*.laff.gz"):
        assert femto.decode(path).ndim == (
            2 if name == "grayscale_compression" or path.name.startswith("chest") else 3
        )
    assert "data:image/png;base64," in done.html  # the archive has shown itself
    shares = dict(re.findall(r"(\S.*\S) +needs (\d+)% of the bytes of JPEG", done.text))
    assert set(shares) == {"femto", "JPEG", "AVIF", "JPEG XL"}
    assert int(shares["femto"]) < int(shares["JPEG"]) == 100


def test_progressive(execute):
    moved = """
print("ALL", len(archive), line.value)
slider.value = 1.0
whole = screen.value
print("MOVED", line.value)
slider.value = 0.2
print("CHANGED", screen.value != whole)
"""
    done = execute("progressive", moved)
    assert len(done.figures) == 3
    size = int(re.search(r"ALL (\d+)", done.text)[1])
    assert f"MOVED {size:,} of {size:,} bytes" in done.text
    assert "CHANGED True" in done.text


@pytest.mark.slow  # the gate runs it on the cluster
def test_spark_image_compression(execute, tmp_path):
    shown = 'print("ENDED", sorted(table.status), bool((speed > 0).all()), list(speed.index)[0])'
    done = execute("spark_image_compression", shown)
    assert "master: local[*]" in done.text
    assert "ENDED ['done', 'done', 'done', 'done'] True 1" in done.text
    assert len(done.figures) == 2
    assert names(tmp_path) == SAMPLES


def test_xray_analysis(execute, tmp_path):
    shown = 'print("MEANS", means.f1.to_json())'
    done = execute("xray_analysis", shown)
    f1 = json.loads(re.search("MEANS (.*)", done.text)[1])
    assert all(0 <= score <= 1 for score in f1.values())
    # The sharpest archives are about as good as the original, the smallest are not.
    assert f1["95"] > 0.9 > 0.5 > f1["15"]
    assert np.mean([f1["95"], f1["85"]]) > np.mean([f1["50"], f1["30"]])
    assert len(done.figures) == 2
    assert len(list(tmp_path.glob("*.laff.gz"))) == 6 * (len(f1) - 1)
