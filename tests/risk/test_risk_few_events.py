"""Too few events for a p: it is not given, and the reason stands in its place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aiene.report.formatting import interval_text
from aiene.risk.analyse.cohort import FEWEST_EVENTS, make_cohort, outcome_of
from aiene.risk.analyse.grouping import Stratum, make_groupings
from aiene.risk.analyse.records import AnalysisSettings
from aiene.risk.analyse.regression import cox_part, guarded, make_sample
from aiene.risk.analyse.run import _usable
from aiene.risk.analyse.sensitivity.other_models import groups_part
from aiene.risk.analyse.survival import (
    gray_note,
    gray_tests,
    group_label,
    group_ratios,
    log_rank_note,
    log_rank_tests,
)
from aiene.risk.schemes.scheme import read_scheme
from aiene.risk.validate.measures import _calibration_figure
from aiene.risk.validate.run import _summary
from aiene.stats.calibration import calibration
from builders.risk_cohorts import SCHEME, drawn

SETTINGS = AnalysisSettings(bootstraps=0, jobs=1, hpv_strata=False)


def cohort_of(table: Any) -> Any:
    cohort = make_cohort(table, SETTINGS)
    return cohort, make_groupings(cohort.table, read_scheme(SCHEME)).marker


def stratum_of(table: Any, endpoint: Any = "os") -> Any:
    cohort, grouping = cohort_of(table)
    outcome, _ = outcome_of(cohort.table, endpoint)
    layer = np.arange(outcome.n).astype(object)
    return Stratum(
        "all", "All patients", outcome, grouping.rank(cohort.table)[outcome.rows], grouping, {"rows": layer}
    )


def with_deaths(table: Any, deaths: Any) -> Any:
    table["os_event"] = 0
    table.loc[: deaths - 1, "os_event"] = 1
    return table


@pytest.mark.parametrize("deaths", [0, 1, 2])
def test_two_events_make_no_test_and_no_hazard_ratio(deaths: int) -> None:
    stratum = stratum_of(with_deaths(drawn(80), deaths))
    (row,) = log_rank_tests(stratum)
    assert "p" not in row
    assert str(FEWEST_EVENTS) in row["reason"]
    assert log_rank_note(stratum) == "Log-rank not estimable"
    assert group_ratios(stratum, SETTINGS, subdistribution=False) == {}
    part = guarded("weighted tests", groups_part, stratum, SETTINGS)
    assert str(FEWEST_EVENTS) in part.skipped[0].reason


def test_a_test_that_cannot_be_made_takes_no_other_with_it() -> None:
    stratum = stratum_of(with_deaths(drawn(80), 12))
    rows = {row["test"]: row for row in log_rank_tests(stratum)}
    assert 0 < rows["Log-rank"]["p"] <= 1
    assert "no event happened while two groups" in rows["Log-rank within rows"]["reason"]
    assert log_rank_note(stratum).startswith("Log-rank p ")


def test_the_same_of_gray() -> None:
    table = drawn(80)
    table["dm_event"] = 0
    table.loc[:1, "dm_event"] = 1
    stratum = stratum_of(table, "dc")
    assert str(FEWEST_EVENTS) in gray_tests(stratum)[0]["reason"]
    assert gray_note(stratum) == "Gray's test not estimable"


def test_a_regression_of_two_deaths_has_reasons_in_place_of_ratios() -> None:
    table = with_deaths(drawn(80), 2)
    cohort, _ = cohort_of(table)
    outcome, _ = outcome_of(cohort.table, "os")
    part = cox_part(make_sample("all", "All patients", cohort.table, outcome, ("age", "sex")), SETTINGS)
    rows = part.items[0].rows  # type: ignore[union-attr]
    assert all(row.get("uni_hr") is None and row.get("adj_hr") is None for row in rows)  # type: ignore[union-attr]
    assert all("only 2 events" in row["uni_reason"] for row in rows)  # type: ignore[call-overload]


def test_a_cohort_that_nobody_is_followed_in_is_refused_by_endpoint() -> None:
    table = drawn(40)
    table["os_time"] = 0.0
    cohort, _ = cohort_of(table)
    usable, skipped = _usable(cohort, ("os",))
    assert not usable
    assert "every time is 0" in skipped[0].reason


def test_a_group_of_time_zero_has_no_restricted_mean() -> None:
    table = drawn(80)
    table.loc[table["n_ai_ene"] >= 2, ["os_time", "dfs_time"]] = 0.0
    part = groups_part(stratum_of(table), SETTINGS)
    assert "not followed beyond time 0" in part.skipped[0].reason


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.5, 2.0, "1.20 (0.50 to 2.00)"),
        (float("nan"), 2.0, "1.20 (– to 2.00)"),
        (0.5, float("inf"), "1.20 (0.50 to –)"),
        (None, None, "1.20 (– to –)"),
    ],
)
def test_an_end_that_was_not_found_is_a_dash(low: Any, high: Any, text: str) -> None:
    assert interval_text(1.2, low, high) == text


def test_the_key_facts_of_a_validation_hold_no_nan() -> None:
    nothing = float("nan")
    model = SimpleNamespace(label="model")
    outcome = SimpleNamespace(n=3, n_events=1)
    rows = [{"model": "model", "kind": "Harrell", "c": 0.5, "lower": nothing, "upper": nothing}]
    slopes = [
        {"model": "model", "year": 2.0, "slope": nothing, "oe": 1.1, "oe_lower": 0.2, "oe_upper": nothing}
    ]
    facts = _summary(
        SimpleNamespace(n_input=3),  # type: ignore[arg-type]
        SimpleNamespace(outcome=outcome, predictors=[model]),  # type: ignore[arg-type]
        SimpleNamespace(discrimination=rows, calibration=slopes),  # type: ignore[arg-type]
        [],
    )
    told = {fact["name"]: fact["value"] for fact in facts}
    assert told["Patients"].endswith("1 event")
    assert told["C (Harrell), model"] == "0.500"
    assert told["Observed/expected at 2 years, model"] == "1.10 (0.20 to –)"
    assert told["Calibration slope at 2 years, model"] == "–"


def test_a_ratio_without_an_end_is_no_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    from aiene.risk.analyse import survival

    real = survival.cox  # type: ignore[attr-defined]

    def endless(*args: Any, **settings: Any) -> Any:
        fit = real(*args, **settings)
        object.__setattr__(fit, "rows", tuple(r._replace(upper=float("nan")) for r in fit.rows))
        return fit

    monkeypatch.setattr(survival, "cox", endless)
    stratum = stratum_of(with_deaths(drawn(80), 30))
    ratios = group_ratios(stratum, SETTINGS, subdistribution=False)
    labels = [group_label(stratum, rank, ratios) for rank in stratum.present]
    assert any("to –)" in label for label in labels)
    assert not any("nan" in label for label in labels)


def test_a_group_that_is_not_followed_to_the_horizon_leaves_the_other_points() -> None:
    predicted = np.repeat([0.1, 0.2, 0.3, 0.4, 0.5], 6)
    time = np.where(predicted == 0.5, 0.5, np.tile([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 5))
    event = (np.arange(30) % 3 == 0) & (predicted < 0.5)
    result = calibration(time, event, predicted, 3.0)
    assert any(not np.isfinite(row.observed) for row in result.rows)
    of = SimpleNamespace(n=30)
    found = SimpleNamespace(smooth={("model", 3.0): result}, outcome=of, settings=SETTINGS)
    figure = _calibration_figure(found)  # type: ignore[arg-type]
    assert figure.draw() is not None


def test_predictions_that_separate_the_event_have_no_slope() -> None:
    result = calibration([1, 4, 5, 6], [1, 0, 0, 0], [0.9, 0.2, 0.3, 0.1], 3.0)
    assert np.isnan(result.slope.value)
    assert "separate" in result.warnings[0]
