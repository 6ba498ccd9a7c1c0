"""Against numbers of R (survival, cmprsk, riskRegression) on follow-up in whole months; see reference/."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aiene.stats.calibration import calibration
from aiene.stats.competing_risks import cumulative_incidence
from aiene.stats.concordance import harrell_c, uno_c
from aiene.stats.cox_model import fit_cox
from aiene.stats.survival_curves import follow_up, kaplan_meier, rmst
from aiene.stats.time_dependent_accuracy import brier_score, time_dependent_auc

REFERENCE = Path(__file__).parent / "reference"
HORIZONS = [1, 2, 3.5, 5]
Numbers = Callable[[str], list[float]]


@pytest.fixture(scope="module")
def r() -> Numbers:
    """R's numbers of a name, one or several."""
    with (REFERENCE / "r_numbers.csv").open(encoding="utf-8") as file:
        rows = [(row["name"], float(row["value"])) for row in csv.DictReader(file)]
    return lambda name: [v for n, v in rows if n == name or n.rpartition(" ")[0] == name]


@pytest.fixture(scope="module")
def months() -> pd.DataFrame:
    table = pd.read_csv(REFERENCE / "months.csv")
    return table.assign(time=table.months / 12, event=(table.state == 1).astype(int))


def test_follow_up_is_censored_by_every_event(r: Numbers, months: pd.DataFrame) -> None:
    found = follow_up(months.time, months.state)
    assert list(found.median) == pytest.approx(r("follow-up"), abs=1e-9)
    assert [found.first_quartile, found.third_quartile] == pytest.approx(r("follow-up quartiles"), abs=1e-9)
    assert follow_up(months.time, months.event).median.value < found.median.value


@pytest.mark.parametrize("score", ["group", "risk"])
def test_c_of_ranks_and_uno_with_the_censoring_curve_just_before_the_event(
    r: Numbers, months: pd.DataFrame, score: str
) -> None:
    args = months.time, months.event, months[score]
    assert harrell_c(*args).c == pytest.approx(r(f"C of {score}")[0], abs=1e-9)
    assert uno_c(*args) == pytest.approx(r(f"Uno C of {score}")[0], abs=1e-9)
    assert uno_c(*args, tau=4.99) == pytest.approx(r(f"Uno C to 4.99 years of {score}")[0], abs=1e-9)


@pytest.mark.parametrize("score", ["group", "risk"])
@pytest.mark.parametrize("competing", [False, True])
def test_auc_and_brier_score_are_those_of_risk_regression(
    r: Numbers, months: pd.DataFrame, score: str, competing: bool
) -> None:
    name = f"of {score}, competing" if competing else f"of {score}"
    state = months.state if competing else months.event
    chances = months[score] / 4 if score == "group" else months[score]
    aucs = [auc.auc for auc in time_dependent_auc(months.time, state, chances, HORIZONS)]
    assert aucs == pytest.approx(r(f"AUC {name}"), abs=1e-9)
    scores = brier_score(months.time, state, np.repeat(chances.to_numpy()[:, None], 4, axis=1), HORIZONS)
    assert scores.score == pytest.approx(r(f"Brier {name}"), abs=1e-9)
    assert scores.null == pytest.approx(r(f"Brier of no model {name}"), abs=1e-9)


def test_a_constant_half_has_a_brier_score_of_a_quarter_where_times_tie(
    r: Numbers, months: pd.DataFrame
) -> None:
    score = brier_score(months.time, months.event, np.full((len(months), 4), 0.5), HORIZONS).score
    assert score == pytest.approx([0.25] * 4, abs=1e-12)
    assert r("Brier of one half") == pytest.approx([0.25] * 4, abs=1e-12)


def test_absolute_risks_take_the_baseline_of_the_efron_fit(r: Numbers, months: pd.DataFrame) -> None:
    design = months[["x", "z"]].to_numpy(float)
    model = fit_cox(months.time, months.event, design)
    assert model.beta == pytest.approx(r("Cox coefficients"), abs=1e-8)
    at_zero = -np.log(model.survival(np.zeros((1, 2)), HORIZONS)[0])
    assert at_zero == pytest.approx(r("Cox baseline hazard"), abs=1e-8)
    risk = 1 - model.survival(design, [2])[:, 0]
    assert risk.mean() == pytest.approx(r("mean predicted at 2 years")[0], abs=1e-8)
    found = calibration(months.time, months.event, risk, 2).observed_expected.value
    assert found == pytest.approx(r("observed over expected at 2 years")[0], abs=1e-7)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_median_of_a_curve_that_touches_one_half(r: Numbers, number: int) -> None:
    events = {1: [1, 1, 0, 1], 2: [1, 1, 0, 0], 3: [1, 1, 1, 1]}[number]
    assert kaplan_meier([1, 2, 3, 4], events).median.value == r(f"median touching {number}")[0]


def test_before_the_first_event_the_interval_is_exact_for_those_whose_state_is_known(r: Numbers) -> None:
    everyone = kaplan_meier(np.full(17, 5.0), np.zeros(17)).at([3])[0]
    assert (everyone.value, everyone.upper) == (1, 1)
    assert everyone.lower == pytest.approx(r("exact lower limit of 17")[0], abs=1e-12)
    time, state = [1, 1.5, 2, *[4] * 6, 2.5], [2, 2, 2, *[0] * 6, 0]  # the last is not followed to year 3
    none = cumulative_incidence(time, state).at([3])[0]
    assert (none.value, none.lower) == (0, 0)
    assert none.upper == pytest.approx(r("exact upper limit of 9")[0], abs=1e-12)
    later = kaplan_meier([1, 2, 3, 4], [0, 1, 0, 0])
    assert later.at([1.5])[0].lower == pytest.approx(0.025 ** (1 / 3))
    assert later.median.lower == 2  # the exact limit is no crossing of the curve's own interval


def test_no_interval_has_no_width() -> None:
    """Nobody had the event, or everybody: the one is exact, the other has none."""
    nobody, all_of_them = ([2.0, 3, 4], [0, 0, 0]), ([1.0, 2, 3], [1, 1, 1])
    for curve in (kaplan_meier(*nobody), kaplan_meier(*all_of_them)):
        assert not (curve.upper - curve.lower == 0).any()
    for curve in (cumulative_incidence(*nobody), cumulative_incidence(*all_of_them)):  # type: ignore[assignment]
        assert not (curve.upper - curve.lower == 0).any()
    assert np.isnan(rmst(*nobody, 3.0).lower)
