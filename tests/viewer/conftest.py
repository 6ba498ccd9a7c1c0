"""A run over one small CT, and a browser without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builders.browsers import browser
from builders.export_runs import Run
from builders.firefoxes import firefox as started_firefox
from builders.viewer_runs import write_patterned_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return write_patterned_run(tmp_path)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    with browser() as driver:
        driver.execute_cdp_cmd("Network.enable", {})
        nothing = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", nothing)
        yield driver


@pytest.fixture(scope="session")
def firefox() -> Iterator[Any]:
    with started_firefox() as driver:
        yield driver
