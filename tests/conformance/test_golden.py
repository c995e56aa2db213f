"""Archives that were written once still give the same pictures."""

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from make_golden import GOLDEN, strings_hash

import femto
from femto import codec, container, pictures

MANIFEST = json.loads((GOLDEN / "manifest.json").read_text())


def picture(path: Path) -> np.ndarray:
    with pictures.open_page(path) as reader:
        height, width = reader.shape[:2]
        return np.asarray(reader[:height, :width])


def test_there_is_something_to_compare():
    assert {name.split("-")[0] for name in MANIFEST} == {f"v{container.VERSION}"}
    assert {path.name for path in GOLDEN.glob("*.laff.gz")} == {f"{n}.laff.gz" for n in MANIFEST}


@pytest.mark.parametrize("name", MANIFEST)
def test_golden_archives_decode(name):
    """Pixels may differ by one step where a machine rounds otherwise, no more."""
    archive = GOLDEN / f"{name}.laff.gz"
    assert strings_hash(archive.read_bytes()) == MANIFEST[name]["strings"]
    decoded, expected = femto.decode(archive), picture(GOLDEN / f"{name}.decoded.png")
    assert decoded.dtype == expected.dtype
    assert np.abs(decoded.astype(int) - expected).max() <= 1
    digest = hashlib.sha256(expected.astype(">u2").tobytes()).hexdigest()
    assert digest == MANIFEST[name]["pixels"]


@pytest.mark.parametrize("name", MANIFEST)
def test_the_encoder_writes_the_same_strings(name):
    """On every machine: archives must not depend on which node of a cluster made them."""
    source = picture(GOLDEN / f"{name}.source.png")
    archive = femto.encode(source, **MANIFEST[name]["options"])
    assert strings_hash(archive) == MANIFEST[name]["strings"]
    assert codec.parse(archive).step == codec.parse(GOLDEN / f"{name}.laff.gz").step


@pytest.mark.parametrize("name", MANIFEST)
def test_golden_archives_are_gzip_and_json_to_anybody(name):
    text = gzip.decompress((GOLDEN / f"{name}.laff.gz").read_bytes()).decode()
    assert json.loads(text)["format"] == "laff"
