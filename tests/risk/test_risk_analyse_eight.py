"""Eight patients, every table worked out by hand (the arithmetic stands in the comments)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aiene.report.document import Table
from aiene.risk.analyse.cohort import make_cohort, outcome_of
from aiene.risk.analyse.descriptives import flow_table, missing_table, table_one, table_one_hpv
from aiene.risk.analyse.grouping import Stratum, make_groupings
from aiene.risk.analyse.records import AnalysisSettings
from aiene.risk.analyse.survival import competing_part, follow_up_table, survival_part
from builders.risk_cohorts import eight, plain_scheme

SETTINGS = AnalysisSettings(bootstraps=0, horizons=(2.0, 3.0))
COHORT = make_cohort(eight(), SETTINGS)
GROUPINGS = make_groupings(COHORT.table, plain_scheme())


def stratum(endpoint: Any) -> Any:
    outcome, _ = outcome_of(COHORT.table, endpoint)
    ranks = GROUPINGS.marker.rank(COHORT.table)[outcome.rows]
    return Stratum("all", "All patients", outcome, ranks, GROUPINGS.marker)


def tables(part: Any) -> Any:
    return {i.name: i for i in part.items if isinstance(i, Table)}


def test_nobody_is_lost_on_the_way() -> None:
    rows = {r["step"]: r["remaining"] for r in flow_table(COHORT, GROUPINGS).rows}
    assert rows["Rows in the table"] == rows["Analysed"] == 8
    assert (rows["of these HPV-positive"], rows["of these HPV-negative"], rows["of these HPV unknown"]) == (
        3,
        4,
        1,
    )


def test_table_one_counts_and_medians() -> None:
    rows = {(r["characteristic"], r["level"]): r for r in table_one(COHORT, GROUPINGS.marker).rows}
    age = rows["Age, years", "median (quartiles)"]
    assert (age["all_value"], age["all_low"], age["all_high"]) == (65, 57.5, 72.5)  # 50 55 60 65 70 75 80
    assert (age["g0_value"], age["g0_low"], age["g0_high"]) == (65, 57.5, 72.5)  # 50 60 70 80
    assert age["g1_value"] == 65  # 55 65 75
    assert (rows["Age, years", "missing"]["all_value"], rows["Age, years", "missing"]["g0_value"]) == (1, 0)
    male = rows["Sex", "Male"]
    assert (male["all_value"], male["all_low"], male["g1_value"], male["g1_low"]) == (6, 0.75, 2, 0.5)
    assert rows["Patients", ""]["g0_value"] == rows["Patients", ""]["g1_value"] == 4


def test_table_one_keeps_hpv_unknown_apart() -> None:
    rows = {(r["characteristic"], r["level"]): r for r in table_one_hpv(COHORT).rows}
    assert [rows["Patients", ""][f"{g}_value"] for g in ("positive", "negative", "unknown")] == [3, 4, 1]
    assert rows["HPV", "Negative"]["all_low"] == pytest.approx(4 / 7)  # of the seven that are known


def test_missing_covariates_are_counted() -> None:
    rows = {r["covariate"]: r for r in missing_table(COHORT, ("hpv", "age", "sex", "pack_years")).rows}
    assert (rows["HPV"]["missing"], rows["Age, per 10 years"]["missing"], rows["Sex"]["missing"]) == (1, 1, 0)
    assert rows["Any of these"]["missing"] == 1  # H lacks both
    assert "missing in every patient" in rows["Pack-years, per 10"]["reason"]


def test_follow_up_is_the_reversed_curve() -> None:
    outcome, _ = outcome_of(COHORT.table, "os")
    row = follow_up_table([("All", outcome)]).rows[0]
    # ends of follow-up at 2 (6 at risk), 4 (3), 5 (2): 5/6, 5/9, 5/18
    assert (row["n"], row["deaths"], row["median"], row["longest"]) == (8, 5, 5.0, 6.0)


def test_kaplan_meier_by_hand() -> None:
    low, high = tables(survival_part([stratum("os")], SETTINGS))["km_os_marker"].rows
    assert (low["n"], low["events"], high["n"], high["events"]) == (4, 2, 4, 3)
    assert (low["s2"], low["s3"], low["median"]) == (pytest.approx(3 / 4), pytest.approx(1 / 2), 3.0)
    assert (high["s2"], high["s3"], high["median"]) == (pytest.approx(1 / 2), pytest.approx(1 / 2), 4.0)
    assert low["rmst"] == pytest.approx(1 + 0.75 * 2)  # to 3 years
    assert high["rmst"] == pytest.approx(1 + 0.75 * 1 + 0.5 * 1)


def test_log_rank_by_hand() -> None:
    row = tables(survival_part([stratum("os")], SETTINGS))["km_os_marker_tests"].rows[0]
    # time 1: 2 of 8, 4 in each; time 2: 1 of 6, 3 in each; time 3: 1 of 4, 3 low; time 6: 1 of 1
    expected, variance = 1 + 1 / 2 + 3 / 4, 3 / 7 + 1 / 4 + 3 / 16
    assert row["statistic"] == pytest.approx((2 - expected) ** 2 / variance)
    assert row["df"] == 1


def test_numbers_at_risk_by_hand() -> None:
    part = survival_part([stratum("os")], SETTINGS)
    panel: Any = part.items[0].draw.args[0]["panels"][0]  # type: ignore[union-attr]
    assert panel["risk"]["times"] == [0, 1, 2, 3, 4, 5, 6]
    assert panel["risk"]["counts"] == [[4, 4, 3, 3, 2, 1, 0], [4, 4, 3, 1, 1, 1, 1]]


def test_cumulative_incidence_and_one_minus_kaplan_meier_by_hand() -> None:
    low, high = tables(competing_part([stratum("dc")], SETTINGS))["cif_dc_marker"].rows
    # low: A dies first at 1, B at 2 among three; high: E at 0.5 among four, F at 2 among three
    assert (low["cif2"], low["km2"]) == (pytest.approx(1 / 4), pytest.approx(1 / 3))
    assert (high["cif2"], high["km2"]) == (pytest.approx(1 / 2), pytest.approx(1 / 2))
    assert (low["events"], low["competing"], high["events"], high["competing"]) == (1, 1, 2, 1)


def test_a_horizon_beyond_the_follow_up_has_no_value() -> None:
    part = survival_part([stratum("os")], AnalysisSettings(bootstraps=0, horizons=(5.5,)))
    low, high = tables(part)["km_os_marker"].rows
    assert low["s5.5"] is None
    assert high["s5.5"] == pytest.approx(0.5)


def test_groups_are_numbered_from_the_best() -> None:
    np.testing.assert_array_equal(GROUPINGS.marker.rank(COHORT.table), [0, 0, 0, 0, 1, 1, 1, 1])
    assert GROUPINGS.base is None
    assert GROUPINGS.combined is None
