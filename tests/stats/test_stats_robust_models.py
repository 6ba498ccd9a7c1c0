"""Centres, delayed entry, periods and weighted tests against R's survival and cmprsk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aiene.errors import UsageError
from aiene.stats.centre_models import cluster_robust_cox, frailty_cox
from aiene.stats.competing_risks import fine_gray
from aiene.stats.cox import cox
from aiene.stats.proportional_hazards import cox_with_entry, episodes, piecewise_cox
from aiene.stats.records import NotEstimableError
from aiene.stats.survival_curves import rmst_difference
from aiene.stats.tests import weighted_log_rank

HERE = Path(__file__).parent
R = json.loads((HERE / "r_references" / "robust_models.json").read_text())
MONTHS = pd.read_csv(HERE / "reference" / "months.csv").assign(event=lambda d: (d.state == 1).astype(int))
CENTRE = MONTHS.group.astype(str) + (np.arange(len(MONTHS)) % 2).astype(str)
X = MONTHS[["x", "z"]].astype(float)


def told(rows: Any) -> Any:
    return [*(r.coef for r in rows), *(r.std_error for r in rows)]


def test_baseline_of_each_centre() -> None:
    rows = cox(MONTHS.months, MONTHS.event, X, strata=CENTRE).rows
    assert told(rows) == pytest.approx(R["stratified"], abs=1e-7)


def test_errors_of_clusters() -> None:
    assert told(cluster_robust_cox(MONTHS.months, MONTHS.event, X, CENTRE)) == pytest.approx(
        R["cluster"], abs=1e-6
    )
    with pytest.raises(NotEstimableError, match="one cluster"):
        cluster_robust_cox(MONTHS.months, MONTHS.event, X, ["a"] * len(MONTHS))


def test_frailty_of_centres() -> None:
    found = frailty_cox(MONTHS.months, MONTHS.event, X, CENTRE)
    assert [*told(found.rows), found.variance] == pytest.approx(R["frailty"], abs=1e-4)
    assert found.effects.keys() == set(CENTRE)


@pytest.mark.slow
def test_centres_that_do_not_differ_have_no_variance_and_change_nothing() -> None:
    random = np.random.default_rng(3)
    n = 600
    x = pd.DataFrame({"x": random.normal(size=n)})
    time = random.exponential(np.exp(-0.5 * x.x))
    found = frailty_cox(time, np.ones(n, int), x, np.arange(n) % 12)
    assert found.variance < 0.02
    assert found.rows[0].coef == pytest.approx(cox(time, np.ones(n, int), x).rows[0].coef, abs=0.02)


def test_delayed_entry() -> None:
    rows = cox_with_entry(MONTHS.months // 3, MONTHS.months, MONTHS.event, X)
    assert told(rows) == pytest.approx(R["entry"], abs=1e-6)
    assert told(cox_with_entry(MONTHS.months * 0 - 1, MONTHS.months, MONTHS.event, X)) == pytest.approx(
        told(cox(MONTHS.months, MONTHS.event, X).rows), abs=1e-6
    )
    with pytest.raises(UsageError, match="before the end"):
        cox_with_entry(MONTHS.months, MONTHS.months, MONTHS.event, X)


def test_hazard_ratios_by_period() -> None:
    rows = piecewise_cox(MONTHS.months, MONTHS.event, MONTHS.x, X[["z"]], (12, 36))
    assert told(rows) == pytest.approx(R["piecewise"], abs=1e-6)
    _, entry, end, event, _ = episodes(MONTHS.months.to_numpy(float), MONTHS.event.to_numpy(), (12, 36))
    assert (end - entry).sum() == MONTHS.months.sum()
    assert event.sum() == MONTHS.event.sum()
    with pytest.raises(NotEstimableError, match="no event"):
        piecewise_cox(MONTHS.months, MONTHS.event, MONTHS.x, X[["z"]], (0.5,))


@pytest.mark.parametrize(("weight", "places"), [("early", (0, 1)), ("at risk", (2,)), ("late", (3,))])
def test_weighted_log_rank(weight: str, places: Any) -> None:
    statistic, df, _ = weighted_log_rank(MONTHS.months, MONTHS.event, MONTHS.z, weight)
    assert df == 1
    assert [statistic] * len(places) == pytest.approx([R["weighted"][i] for i in places], abs=1e-6)


@pytest.mark.parametrize("weight", ["early", "at risk", "late"])
def test_weighted_log_rank_with_events_at_time_0(weight: str) -> None:
    time = [0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 0, 1, 3, 7]
    event = [1, 0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1]
    group = [0, 0, 0, 1, 1, 0, 1, 0, 1, 1, 2, 2, 2, 2]
    wanted = json.loads((HERE / "r_references" / "weighted_log_rank.json").read_text())
    statistic, df, p = weighted_log_rank(time, event, group, weight)
    assert (statistic, df) == (pytest.approx(wanted[weight], abs=1e-9), 2)
    assert 0 < p < 1


def test_the_late_test_of_a_single_event_is_none() -> None:
    with pytest.raises(NotEstimableError, match="no event happened while"):
        weighted_log_rank([1, 2, 3, 4], [1, 0, 0, 0], [0, 0, 1, 1], "late")


def test_difference_of_restricted_means() -> None:
    found = rmst_difference(MONTHS.months / 12, MONTHS.event, MONTHS.z, 5)
    assert [*found.difference, found.p] == pytest.approx(R["rmst"], abs=1e-6)


def test_interaction_in_fine_and_gray() -> None:
    design = X.assign(xz=X.x * X.z)
    row = fine_gray(MONTHS.months, MONTHS.state, design).rows[2]
    assert [row.coef, row.std_error] == pytest.approx(R["finegray"], rel=1e-3)


def test_what_runs_to_infinity_is_said_and_no_warning_is_left(recwarn: pytest.WarningsRecorder) -> None:
    random = np.random.default_rng(1)
    time = random.uniform(1, 5, 40)
    event = np.arange(40) < 12
    design = pd.DataFrame({"x": random.normal(size=40), "apart": event.astype(float)})
    for fit in (
        lambda: cox_with_entry(np.zeros(40) - 1, time, event, design),
        lambda: frailty_cox(time, event, design, np.arange(40) % 4),
    ):
        with pytest.raises(NotEstimableError):
            fit()
    many = pd.DataFrame(random.normal(size=(40, 12)), columns=[f"c{k}" for k in range(12)])
    with pytest.raises(NotEstimableError, match="12 parameters"):
        cox_with_entry(np.zeros(40) - 1, time, event, many)
    assert not recwarn.list
