"""Regression values on the real RADCURE table, by RTOG-0129 group and edition-8 stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aiene.risk.importers.registry import import_table
from aiene.risk.staging.stage import stage_table
from aiene.risk.table.endpoints import competing, endpoint
from aiene.stats.competing_risks import cumulative_incidence, fine_gray
from aiene.stats.cox import cox
from aiene.stats.survival_curves import follow_up, kaplan_meier
from aiene.stats.tests import gray_test, log_rank

GROUPS = ["low", "intermediate", "high"]


@pytest.fixture(scope="module")
def oropharynx(shared: Path) -> pd.DataFrame:
    """The 1,501 oropharynx patients: times in years, OS events, states of distant metastasis, groups."""
    path = shared / "data" / "clinical" / "RADCURE_Clinical_v04_20241219.csv"
    table = import_table(path, "radcure").table
    staged = stage_table(table)
    os, dm = endpoint(table, "os"), competing(table, "dm")
    # The anchors count survival up to the last follow-up; the importer takes the date of death, which
    # differs in one patient.
    raw = pd.read_csv(path)
    start, last = (pd.to_datetime(raw[name], format="%m/%d/%Y") for name in ("RT Start", "Last FU"))
    followed = (last - start).dt.days / 365.25
    assert (np.abs(followed - os.time) > 1e-9)[table["site"] == "oropharynx"].sum() <= 1
    whole = pd.DataFrame(
        {
            "site": table["site"],
            "hpv": table["hpv"],
            "os_time": followed,
            "os_event": os.event,
            "dm_time": dm.time,
            "dm_state": dm.event,
            "group": staged["rtog0129_fakhry2019"],
            "stage": staged["ajcc8_stage"],
        }
    )
    return whole[whole.site == "oropharynx"].reset_index(drop=True)


@pytest.fixture(scope="module")
def grouped(oropharynx: pd.DataFrame) -> pd.DataFrame:
    return oropharynx[oropharynx.group.isin(GROUPS)].reset_index(drop=True)


def dummies(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({name: (table.group == name).astype(float) for name in GROUPS[1:]})


@pytest.mark.slow
def test_sizes_events_and_follow_up(oropharynx: pd.DataFrame) -> None:
    assert len(oropharynx) == 1501
    assert int(oropharynx.os_event.sum()) == 450
    assert int((oropharynx.dm_state == 1).sum()) == 201
    assert follow_up(oropharynx.os_time, oropharynx.os_event).median.value == pytest.approx(5.054, abs=1e-3)


@pytest.mark.parametrize(
    ("group", "n", "deaths", "metastases", "survival", "incidence", "naive"),
    [
        ("low", 639, 98, 55, (0.9306, 0.8929, 0.8457), (0.0699, 0.0795, 0.0945), 0.0822),
        ("intermediate", 414, 104, 60, (0.8634, 0.8079, 0.7304), (0.1216, 0.1362, 0.1504), 0.1432),
        ("high", 303, 186, 61, (0.5847, 0.4948, 0.3911), (0.1812, 0.1994, 0.2036), 0.2386),
    ],
)
def test_curves_of_each_group(
    grouped: pd.DataFrame,
    group: str,
    n: int,
    deaths: int,
    metastases: int,
    survival: tuple[float, float, float],
    incidence: tuple[float, float, float],
    naive: float,
) -> None:
    of = grouped[grouped.group == group]
    os = kaplan_meier(of.os_time, of.os_event)
    dm = cumulative_incidence(of.dm_time, of.dm_state)
    assert (os.n, os.events, dm.events) == (n, deaths, metastases)
    assert [e.value for e in os.at([2, 3, 5])] == pytest.approx(survival, abs=5e-5)
    assert [e.value for e in dm.at([2, 3, 5])] == pytest.approx(incidence, abs=5e-5)
    assert 1 - kaplan_meier(of.dm_time, of.dm_state == 1).at([3])[0].value == pytest.approx(naive, abs=5e-5)


def test_the_high_group_at_three_years_with_its_error(grouped: pd.DataFrame) -> None:
    high = grouped[grouped.group == "high"]
    estimate = cumulative_incidence(high.dm_time, high.dm_state).at([3])[0]
    assert (estimate.value, estimate.std_error) == pytest.approx((0.19944, 0.0233), abs=5e-5)


def test_survival_by_group(grouped: pd.DataFrame) -> None:
    test = log_rank(grouped.os_time, grouped.os_event, grouped.group, order=GROUPS)
    assert (test.statistic, test.df) == (pytest.approx(263.516, abs=1e-3), 2)
    fit = cox(grouped.os_time, grouped.os_event, dummies(grouped))
    found = [value for row in fit.rows for value in (row.hr, row.lower, row.upper)]
    assert found == pytest.approx([1.752, 1.329, 2.309, 5.675, 4.440, 7.253], abs=6e-4)
    assert fit.concordance == pytest.approx(0.6959, abs=5e-5)


def test_distant_metastasis_by_group(grouped: pd.DataFrame) -> None:
    test = gray_test(grouped.dm_time, grouped.dm_state, grouped.group, order=GROUPS)
    assert test.statistic == pytest.approx(24.7733, abs=5e-5)
    assert (test.df, test.p) == (2, pytest.approx(4.174e-06, rel=1e-3))
    fit = fine_gray(grouped.dm_time, grouped.dm_state, dummies(grouped))
    assert [row.hr for row in fit.rows] == pytest.approx([1.721, 2.498], abs=6e-4)
    assert [row.std_error for row in fit.rows] == pytest.approx([0.1855, 0.1868], abs=5e-5)
    specific = cox(grouped.dm_time, grouped.dm_state == 1, dummies(grouped))
    assert [row.hr for row in specific.rows] == pytest.approx([1.766, 3.091], abs=6e-4)


@pytest.mark.parametrize(
    ("stage", "n", "deaths", "metastases", "survival"),
    [
        ("I", 459, 52, 24, (0.9341, 0.8946)),
        ("II", 338, 69, 41, (0.8560, 0.7836)),
        ("III", 220, 69, 46, (0.7284, 0.6440)),
    ],
)
def test_stages_of_p16_positive_disease(
    oropharynx: pd.DataFrame, stage: str, n: int, deaths: int, metastases: int, survival: tuple[float, float]
) -> None:
    of = oropharynx[(oropharynx.hpv == "positive") & (oropharynx.stage == stage)]
    curve = kaplan_meier(of.os_time, of.os_event)
    assert (curve.n, curve.events, int((of.dm_state == 1).sum())) == (n, deaths, metastases)
    assert [e.value for e in curve.at([3, 5])] == pytest.approx(survival, abs=5e-5)


def test_another_order_of_the_rows_gives_the_same_numbers(grouped: pd.DataFrame) -> None:
    mixed = grouped.iloc[np.random.default_rng(1).permutation(len(grouped))]
    for test in (log_rank, gray_test):
        first = test(grouped.dm_time, grouped.dm_state == 1, grouped.group, order=GROUPS)
        second = test(mixed.dm_time, mixed.dm_state == 1, mixed.group, order=GROUPS)
        assert first.statistic == pytest.approx(second.statistic, rel=1e-12)
