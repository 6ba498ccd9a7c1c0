"""`progress=` of the calls from Python: a bar, a function of the caller's, or nothing."""

from __future__ import annotations

import pytest

from aiene.pipeline import follower


def test_nothing_is_shown_unless_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    follower(False, unit="case")(1, 2, "a: ok")
    assert capsys.readouterr() == ("", "")


def test_the_callers_function_is_told_of_each_step() -> None:
    seen: list[tuple[int, int, str]] = []
    tell = follower(lambda *step: seen.append(step), unit="case")
    tell(1, 2, "a: ok")
    tell(2, 2, "b: failed")
    assert seen == [(1, 2, "a: ok"), (2, 2, "b: failed")]


def test_a_bar_stands_on_stderr_and_ends_at_its_total(capsys: pytest.CaptureFixture[str]) -> None:
    tell = follower(True, unit="case")
    for step in (1, 3, 4):
        tell(step, 4, f"case {step}: ok")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "4/4" in printed.err
    assert "case 4: ok" in printed.err
    assert printed.err.endswith("\n")
