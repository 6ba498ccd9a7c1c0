"""Simulated cohorts: what is planted is found, and every output says that it is simulated."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aiene.errors import UsageError
from aiene.risk.simulate.cohort import (
    CohortSettings,
    Effects,
    expected,
    log_hazard,
    planned_power,
    simulate_cohort,
)
from aiene.risk.simulate.conditional_marker import planted_sd, simulate_onto
from aiene.risk.table.endpoints import endpoint
from aiene.stats.sample_size import power


def design(table: Any) -> Any:
    return pd.DataFrame(
        {
            "hpv_negative": (table["hpv"] == "negative").fillna(False).astype(float),
            "heavy_smoker": (table["pack_years_class"] == "gt10").fillna(False).astype(float),
            "t4": table["t7"].isin(["T4a", "T4b"]).astype(float),
            "n2c_n3": table["n7"].isin(["N2c", "N3"]).astype(float),
            "age_decade": (table["age"] - 60) / 10,
            "n_ai_ene": table["n_ai_ene"].astype(float),
        }
    )


def cox(table: Any, name: Any) -> Any:
    from lifelines import CoxPHFitter

    data = design(table).assign(time=table[f"{name}_time"], event=table[f"{name}_event"].astype(int))
    return CoxPHFitter().fit(data, "time", "event").summary


@pytest.mark.slow
@pytest.mark.parametrize("name", ["os", "dm", "lrf"])
def test_every_planted_hazard_ratio_is_found_within_3_standard_errors(name: str) -> None:
    table = simulate_cohort(8000, seed=3)
    found = cox(table, name)
    planted = getattr(CohortSettings(), name).log
    for effect in found.index:
        assert abs(found.loc[effect, "coef"] - planted[effect]) < 3 * found.loc[effect, "se(coef)"]


def test_the_same_seed_gives_the_same_table_and_another_another() -> None:
    pd.testing.assert_frame_equal(simulate_cohort(50, seed=1), simulate_cohort(50, seed=1))
    assert not simulate_cohort(50, seed=1)["os_time"].equals(simulate_cohort(50, seed=2)["os_time"])


def test_a_simulated_cohort_says_so_in_every_row() -> None:
    table = simulate_cohort(30)
    assert (table["ai_ene_source"] == "simulated").all()
    assert (table["ai_model"] == "simulated").all()
    assert table["patient_id"].str.startswith("SIM-").all()
    assert "do not exist" in table.attrs["notes"][0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["os", "dm", "lrf"])
@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_the_event_rate_that_was_asked_for_comes_out(name: str, rate: float) -> None:
    table = simulate_cohort(1000, event_rate=rate, endpoint=name)
    assert table[f"{name}_event"].astype(float).mean() == pytest.approx(rate, abs=0.002)


def test_no_failure_lies_after_the_end_of_follow_up() -> None:
    table = simulate_cohort(2000)
    for name in ("dm", "lrf", "dfs"):
        assert (table[f"{name}_time"] <= table["os_time"]).all()
    assert (table["os_time"] <= 9).all()


def test_an_interaction_with_hpv_is_planted_on_the_negative_only() -> None:
    people = pd.DataFrame(
        {
            "hpv_negative": [0.0, 1.0],
            "heavy_smoker": 0.0,
            "t4": 0.0,
            "n2c_n3": 0.0,
            "age_decade": 0.0,
            "n_ai_ene": [2.0, 2.0],
        }
    )
    made = log_hazard(people, Effects(hpv_negative=1.0, n_ai_ene=1.5, n_ai_ene_if_hpv_negative=2.0))
    assert made == pytest.approx([2 * math.log(1.5), 2 * math.log(3.0)])


def test_times_follow_the_exponential_law_of_their_hazard() -> None:
    flat = Effects(1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    settings = CohortSettings(
        os=flat, dm=flat, lrf=flat, os_rate=0.1, follow_up=(50.0, 50.0), lost_per_year=0.0
    )
    table = simulate_cohort(20_000, settings=settings)
    for years in (1, 5, 10):
        assert (table["os_time"] > years).mean() == pytest.approx(math.exp(-0.1 * years), abs=0.012)


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: simulate_cohort(0), "at least one patient"),
        (lambda: simulate_cohort(9, event_rate=1.5), "between 0 and 1"),
        (lambda: simulate_cohort(9, event_rate=0.5, endpoint="dfs"), "events can be planned for"),
        (lambda: Effects(t4=0), "the hazard ratio t4"),
        (lambda: Effects(t4=math.inf), "the hazard ratio t4"),
        (lambda: CohortSettings(os_rate=0), "hazards per year"),
        (lambda: CohortSettings(follow_up=(3, 1)), "follow-up"),
        (lambda: CohortSettings(hpv_positive=2), "shares"),
        (lambda: CohortSettings(shape=0), "shape"),
        (lambda: CohortSettings(lost_per_year=-1), "lost"),
        (lambda: simulate_onto(simulate_cohort(50), hazard_ratio=0), "above 0"),
        (lambda: simulate_onto(simulate_cohort(50).assign(dm_event=0)), "no event of dm"),
        (lambda: power(10, hazard_ratio=1, event_rate=0.1, sd=1), "not 1"),
        (lambda: power(10, hazard_ratio=2, event_rate=0, sd=1), "event rate"),
        (lambda: power(10, hazard_ratio=2, event_rate=0.1, sd=0), "vary"),
        (lambda: power(10, hazard_ratio=2, event_rate=0.1, sd=1, r_squared=1), "R squared"),
        (lambda: power(10, hazard_ratio=2, event_rate=0.1, sd=1, alpha=0), "alpha"),
    ],
)
def test_what_cannot_be_simulated_is_one_sentence(make: Any, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        make()


@pytest.mark.parametrize("ratio", [1.0, 1.5])
@pytest.mark.slow
def test_a_count_planted_onto_real_outcomes_has_the_stated_hazard_ratio(ratio: float) -> None:
    """The cohort's own count is taken away; the planted one is found, within the strata it was planted in."""
    from lifelines import CoxPHFitter

    table = simulate_cohort(6000, seed=5).drop(columns=["n_ai_ene"])
    made = simulate_onto(table, endpoint="dm", hazard_ratio=ratio, seed=2)
    data = pd.DataFrame(
        {
            "time": made["dm_time"],
            "event": made["dm_event"].astype(int),
            "x": made["n_ai_ene"].astype(float),
            "stratum": made["hpv"].astype(str) + made["n7"].astype(str),
        }
    )
    found = CoxPHFitter().fit(data, "time", "event", strata=["stratum"]).summary.loc["x"]
    assert abs(found["coef"] - math.log(ratio)) < 3 * found["se(coef)"]


def test_planting_touches_neither_times_nor_events_and_marks_every_row() -> None:
    table = simulate_cohort(300, seed=1)
    made = simulate_onto(table, endpoint="os", hazard_ratio=2.0)
    for name in ("os_time", "os_event", "dm_time", "dm_event"):
        assert made[name].equals(table[name])
    assert (made["ai_ene_source"] == "simulated").all()
    assert made["ai_model"][0] == "simulated: hazard ratio 2 per node on os, seed 0"
    assert made.attrs["warnings"][0].startswith("n_ai_ene is SIMULATED")
    assert (made.loc[made["n7"] == "N0", "n_ai_ene"] == 0).all()
    pd.testing.assert_frame_equal(made, simulate_onto(table, endpoint="os", hazard_ratio=2.0))


def test_patients_without_the_endpoint_get_a_count_too() -> None:
    table = simulate_cohort(400, seed=1)
    table.loc[:9, "dm_time"] = np.nan
    table.loc[:9, "dm_event"] = pd.NA
    made = simulate_onto(table)
    assert made["n_ai_ene"].notna().all()
    assert not endpoint(made, "dm").usable[:10].any()


def test_power_is_schoenfelds_closed_form() -> None:
    """Schoenfeld 1983: 4 (1.96 + 0.8416)^2 / log(2)^2 = 65.3 events for two equal groups, hazard ratio 2."""
    made = power(100, hazard_ratio=2.0, event_rate=0.5, sd=0.5)
    assert made.events_80 == 66
    assert made.events_90 == 88
    assert made.patients_80 == 132
    assert power(132, hazard_ratio=2.0, event_rate=0.5, sd=0.5).power == pytest.approx(0.8, abs=0.005)
    assert power(100, hazard_ratio=0.5, event_rate=0.5, sd=0.5).power == pytest.approx(made.power)
    assert power(100, hazard_ratio=2.0, event_rate=0.5, sd=0.5, r_squared=0.5).events_80 == 131


@pytest.mark.slow
def test_the_power_of_a_cohort_is_that_of_its_law_and_of_no_seed() -> None:
    """Event rate and spread against one large cohort."""
    settings = CohortSettings()
    law = expected(settings, "dm")
    table = simulate_cohort(8_000, seed=1, settings=settings)
    assert law.event_rate == pytest.approx(table["dm_event"].mean(), abs=0.012)
    assert law.sd == pytest.approx(table["n_ai_ene"].std(), rel=0.04)
    assert expected(settings, "dm", 0.2).event_rate == pytest.approx(0.2, abs=1e-9)


def test_schoenfelds_power_is_not_more_than_stored_repeats_of_the_study_found() -> None:
    """tools/measurements/risk_power.py: the count beside all planted covariates, by two tests."""
    path = Path(__file__).parents[2] / "tools" / "measurements" / "results" / "risk_power.json"
    for row in json.loads(path.read_text())["designs"]:
        settings = CohortSettings()
        settings = settings.changed({"dm": replace(settings.dm, n_ai_ene=row["hazard_ratio"])})
        planned = planned_power(settings, "dm", row["patients"], event_rate=row["event_rate"])
        assert planned.power == pytest.approx(row["stated_power"], abs=1e-4)  # type: ignore[union-attr]
        for found in (row["found_wald"], row["found_likelihood_ratio"]):
            assert planned.power - 2 * row["standard_error"] < found < planned.power + 0.15  # type: ignore[union-attr]


def test_nothing_planted_has_no_power_and_a_planted_count_has_the_spread_of_its_law() -> None:
    settings = CohortSettings()
    assert planned_power(settings.changed({"dm": replace(settings.dm, n_ai_ene=1.0)}), "dm", 100) is None
    table = simulate_cohort(1500, seed=4)
    drawn = [simulate_onto(table, hazard_ratio=1.3, seed=seed)["n_ai_ene"].astype(float).std()
             for seed in range(3)]  # fmt: skip
    assert planted_sd(table, "dm") == pytest.approx(np.mean(drawn), rel=0.05)
