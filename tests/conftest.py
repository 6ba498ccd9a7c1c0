"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

from aiene.device import keep_freed_memory

# Under xdist each core has a test process of its own: threads of torch, OpenBLAS and SimpleITK would wait
# for each other. Said before any is loaded, and to all processes that a test starts; no result depends on it.
if "PYTEST_XDIST_WORKER" in os.environ:
    for _name in ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "ITK_GLOBAL_DEFAULT_NUMBER_OF"):
        os.environ.setdefault(f"{_name}_THREADS", "1")

keep_freed_memory()  # as the program's own workers do: else the pages of each large array are taken anew

ROOT = Path(__file__).resolve().parent.parent
WITHOUT_SHARED_DATA = "the shared data is absent"
SLOW_SECONDS = 1.0  # what takes longer belongs out of `make check`, by `@pytest.mark.slow`

# hypothesis lets an example fail that takes 200 ms: that would be a test of the machine
# the same examples each time: a change is judged by what it changes. AIENE_EXPLORE=1 draws new ones.
hypothesis.settings.register_profile("aiene", deadline=None, derandomize="AIENE_EXPLORE" not in os.environ)
hypothesis.settings.load_profile("aiene")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: else one process would be left with a long one at the end."""
    slow = {item.path for item in items if "slow" in item.keywords}
    items.sort(key=lambda item: (item.path not in slow, "training" not in item.path.parts))


def shared_folder() -> Path:
    """Where the data that is not part of the repository lies, if it is there."""
    return Path(os.environ.get("AIENE_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared data; the test skips where it is absent."""
    folder = shared_folder()
    if not (folder / "golden").is_dir():
        pytest.skip(f"{WITHOUT_SHARED_DATA} (set AIENE_SHARED)")
    return folder


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """The golden data made by the published code."""
    return shared / "golden"


@pytest.fixture(scope="session")
def openkbp(shared: Path) -> Path:
    """105 real CTs."""
    return shared / "data" / "openkbp"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for all tests that need the shared data, and the names of tests that lack the mark `slow`."""
    stats = terminalreporter.stats
    skipped = sum(WITHOUT_SHARED_DATA in str(report.longrepr) for report in stats.get("skipped", ()))
    if skipped:
        terminalreporter.write_line(
            f"{skipped} tests skipped because {WITHOUT_SHARED_DATA} (set AIENE_SHARED)."
        )
    unmarked = [
        f"{report.duration:.0f} s {report.nodeid}"
        for report in stats.get("passed", ())
        if report.duration > SLOW_SECONDS and "slow" not in report.keywords
    ]
    if unmarked:
        terminalreporter.write_line(f"Over {SLOW_SECONDS:.0f} s on this machine and not marked slow:")
        terminalreporter.write_line("\n".join(unmarked))
