"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def shared_folder() -> Path:
    """Where the data that is not part of the repository lies, if it is there."""
    return Path(os.environ.get("AIENE_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared data; the test skips where it is absent."""
    folder = shared_folder()
    if not (folder / "golden").is_dir():
        pytest.skip("the shared golden data is absent (set AIENE_SHARED)")
    return folder


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """The golden data made by the published code."""
    return shared / "golden"


@pytest.fixture(scope="session")
def openkbp(shared: Path) -> Path:
    """105 real CTs."""
    return shared / "data" / "openkbp"
