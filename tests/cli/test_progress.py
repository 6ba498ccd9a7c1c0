"""What `aiene run` tells while it runs: on a pipe, quietly, in detail, and in a file."""

from __future__ import annotations

import io
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from aiene.cli.console import RunProgress, counted, duration, logging_to  # type: ignore[attr-defined]
from aiene.cohort import Progress
from aiene.device import device_name, resolve_device
from aiene.errors import UsageError
from aiene.results.records import CaseResult


def told(*results: CaseResult, terminal: bool = False, **how: Any) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=200, color_system=None)
    with RunProgress(console, **how) as telling:
        for number, result in enumerate(results, 1):
            telling.tell(Progress(number, len(results), result, False, "cpu"))
    return stream.getvalue()


DONE = CaseResult("a", "no_nodes", seconds={"read": 1.0, "prepare": 2.5}, warnings=("look at it",))
FAILED = CaseResult("b", "failed", "b.nii: it is broken; mend it.")
LAST = CaseResult("c", "no_nodes")


def test_a_pipe_gets_a_line_a_case_with_pace_time_left_and_device() -> None:
    first, warning, second, last = told(DONE, FAILED, LAST).splitlines()
    assert first.startswith("[1/3] a: no nodes (3.5 s)  [")
    assert first.endswith("left, cpu]")
    assert "s a case" in first
    assert warning == "    warning: look at it"
    assert second.startswith("[2/3] b: failed: b.nii: it is broken; mend it.")
    assert last == "[3/3] c: no nodes (0.0 s)"


def test_quiet_tells_failures_alone_and_verbose_the_stages() -> None:
    assert told(DONE, FAILED, LAST, quiet=True).splitlines() == [
        "[2/3] b: failed: b.nii: it is broken; mend it."
    ]
    assert "    read 1.0 s, prepare 2.5 s" in told(DONE, verbose=True).splitlines()


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    shown = told(DONE, FAILED, LAST, terminal=True)
    assert "1/3" in shown
    assert "3/3" in shown
    assert "[1/3] a: no nodes (3.5 s)" in shown


def test_what_is_told_lands_in_the_log_file_too(tmp_path: Path) -> None:
    with logging_to(tmp_path / "run.log"):
        told(DONE, FAILED)
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split("INFO ")[1] for line in lines] == [
        "[1/2] a: no nodes (3.5 s)",
        "    warning: look at it",
        "[2/2] b: failed: b.nii: it is broken; mend it.",
    ]


def test_a_log_file_that_cannot_be_written_is_told_before_the_run(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"--log-file gone\.log: it cannot be written"),
        logging_to(tmp_path / "nowhere" / "gone.log"),
    ):
        raise AssertionError("the run began")


def test_numbers_in_words() -> None:
    assert [counted(n, "node") for n in (0, 1, 2)] == ["0 nodes", "1 node", "2 nodes"]
    assert [duration(s) for s in (12.3, 200, 9000)] == ["12 s", "3 min", "2.5 h"]


@pytest.mark.parametrize("word", ["cpu", "auto"])
def test_a_device_has_the_same_name_whether_torch_was_asked_or_not(word: str) -> None:
    assert device_name(word) == str(resolve_device(word))


@pytest.mark.parametrize(
    ("version", "driver", "asked"),
    [
        ("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", False, False),
        ("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", True, True),
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\n", True, False),
        ("nothing of the kind\n", False, True),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="drivers are looked for on Linux alone")
def test_torch_is_loaded_only_where_it_could_find_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, driver: bool, asked: bool
) -> None:
    """The usual wheel is built for CUDA; loading it takes seconds, which a finished run does not need."""
    (tmp_path / "version.py").write_text(version)
    spec = ModuleSpec("torch", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr("importlib.util.find_spec", lambda _: spec)
    monkeypatch.setattr("aiene.device._has_cuda_driver", lambda: driver)
    monkeypatch.setattr("aiene.device.resolve_device", lambda text: f"asked for {text}")
    assert device_name("auto") == ("asked for auto" if asked else "cpu")


def test_a_device_that_is_none_is_told() -> None:
    with pytest.raises(UsageError, match="no such device"):
        device_name("abacus")


def test_an_analysis_tells_at_once_and_then_every_ten_seconds_what_it_does() -> None:
    from aiene.cli.risk_options import lines_of_progress
    from aiene.parallel import Progress as Step

    now: list[float] = [100.0]
    lines: list[str] = []
    follow = lines_of_progress(lines.append, clock=lambda: now[0])
    for second, what in ((0, "overall survival"), (4, "Cox"), (11, "Brier"), (15, "AUC"), (30, "derivation")):
        now[0] = 100.0 + second
        follow(Step(second, 30, what))
    assert lines == ["  0%     0 s  overall survival", " 37%    11 s  Brier", "100%    30 s  derivation"]
