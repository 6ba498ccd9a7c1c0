"""A run to be reviewed."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders.export_runs import Run
from builders.viewer_runs import write_patterned_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return write_patterned_run(tmp_path)
