"""What is costly is made once in a test run, also where several processes share the tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first process to ask fills; nobody may write into it afterwards."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # each process has a folder of its own in that of the run
    folder = root / name
    with FileLock(root / f"{name}.lock"):
        if not folder.exists():
            part = root / f"{name}.part"
            shutil.rmtree(part, ignore_errors=True)  # of one that failed
            part.mkdir()
            make(part)
            part.rename(folder)
    return folder
