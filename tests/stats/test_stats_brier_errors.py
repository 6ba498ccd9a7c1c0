"""Intervals of Brier scores and of their differences against R's riskRegression."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from aiene.stats.time_dependent_accuracy import brier_score, compared_brier

HERE = Path(__file__).parent
R = json.loads((HERE / "r_references" / "brier_errors.json").read_text())
MONTHS = pd.read_csv(HERE / "reference" / "months.csv")
ARGS = MONTHS.months / 12, MONTHS.state
RISKS = {"a": MONTHS.risk, "b": MONTHS.group / 4}


def test_scores_and_their_difference_with_death_competing() -> None:
    scores, gaps = compared_brier(*ARGS, RISKS, 3.5, [("a", "b")])
    assert [scores[n].value for n in "ab"] == pytest.approx(R["score"], abs=1e-9)
    assert [scores[n].lower for n in "ab"] == pytest.approx(R["lower"], abs=1e-8)
    assert [scores[n].upper for n in "ab"] == pytest.approx(R["upper"], abs=1e-8)
    assert list(gaps["a", "b"]) == pytest.approx(R["difference"], abs=1e-7)


def test_the_values_are_those_without_an_interval_and_a_model_does_not_differ_from_itself() -> None:
    scores, gaps = compared_brier(*ARGS, RISKS, 3.5, [("a", "a")])
    assert scores["a"].value == pytest.approx(brier_score(*ARGS, RISKS["a"], [3.5]).score[0], abs=1e-12)
    assert gaps["a", "a"].value == 0
    assert gaps["a", "a"].p == 1
