"""Fixtures that several folders of tests use."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The clone's folder."""
    return ROOT


@pytest.fixture(scope="session")
def femto_data() -> Path:
    """The folder of photographs that are not in the repository; the test is skipped without it."""
    folder = Path(os.environ.get("FEMTO_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the test photographs: {folder} is not there (set FEMTO_DATA)")
    return folder
