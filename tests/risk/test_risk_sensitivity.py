"""Does the effect of the count hold: centres, other nodes, time, subgroups, several tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from aiene.errors import UsageError
from aiene.report.document import Figure, Section, Table
from aiene.risk.analyse.bootstrap_refit import Pairs
from aiene.risk.analyse.cohort import Outcome
from aiene.risk.analyse.grouping import Grouping, Stratum
from aiene.risk.analyse.records import AnalysisSettings
from aiene.risk.analyse.regression import make_sample
from aiene.risk.analyse.sensitivity.other_models import (
    burden_part,
    check_also,
    e_value,
    groups_part,
    models_part,
)
from aiene.risk.analyse.sensitivity.subgroups import centre_part, subgroups_part
from aiene.risk.analyse.text import multiplicity_section
from aiene.stats.concordance import harrell_c
from aiene.stats.cox import cox
from builders.risk_cohorts import drawn

SETTINGS = AnalysisSettings(bootstraps=0, also=("own",))
RANDOM = np.random.default_rng(5)
N = 900
TABLE = drawn(N, center=RANDOM.choice(["A", "B", "C"], N), n_ai_nodes=RANDOM.integers(0, 12, N))
COUNT = TABLE["n_ai_ene"].to_numpy(float)


def sample_of(
    log_hazard: Any,
    *,
    table: Any = TABLE,
    name: Any = "os",
    covariates: tuple[str, ...] = ("age", "hpv"),
    death: float = 0.0,
) -> Any:
    """Constant hazards exp(log_hazard) / 10 per year, censored between 2 and 8 years; `death` competes."""
    random = np.random.default_rng(9)
    failure = random.exponential(10 / np.exp(log_hazard))
    died = random.exponential(1 / death, N) if death else np.full(N, np.inf)
    end = np.minimum(died, random.uniform(2, 8, N))
    event = (failure <= end).astype(int)
    state = np.where(event == 1, 1, np.where(died <= end, 2, 0))
    outcome = Outcome(name, np.arange(N), np.minimum(failure, end), event, state)
    return make_sample("all", "All patients", table, outcome, covariates)


def rows_of(part: Any, key: Any) -> Any:
    return {r[key]: r for i in part.items if isinstance(i, Table) for r in i.rows}


@pytest.mark.slow
def test_an_effect_that_is_the_same_in_all_centres_is_found_by_every_model() -> None:
    rows = rows_of(centre_part(sample_of(0.3 * COUNT), SETTINGS), "model")
    for name in (
        "Centres not respected",
        "Centre as covariate",
        "Frailty of centres",
        "Pooled over 3 centres",
    ):
        assert rows[name]["hr"] == pytest.approx(np.exp(0.3), abs=0.1)
    assert rows["Pooled over 3 centres"]["i2"] < 0.5
    assert rows["Test: does the effect differ by centre?"]["p"] > 0.05
    assert sum(rows[f"Centre {c}"]["n"] for c in "ABC") == rows["Centres not respected"]["n"]


def test_an_effect_of_one_centre_alone_shows_as_heterogeneity() -> None:
    own = np.where(TABLE["center"] == "A", 0.5, 0.0)
    rows = rows_of(centre_part(sample_of(own * COUNT), SETTINGS), "model")
    assert rows["Pooled over 3 centres"]["i2"] > 0.6
    assert rows["Test: does the effect differ by centre?"]["p"] < 0.001
    assert rows["Centre A"]["hr"] > 1.4 > 1.15 > rows["Centre B"]["hr"]


def test_a_baseline_that_differs_by_centre_is_taken_up_by_strata_and_frailty() -> None:
    worse = np.where(TABLE["center"] == "A", 1.5, 0.0)
    rows = rows_of(centre_part(sample_of(0.3 * COUNT + worse), SETTINGS), "model")
    assert float(rows["Frailty of centres"]["remark"].split()[-1]) > 0.1
    assert rows["Frailty of centres"]["hr"] == pytest.approx(
        rows["Baseline of each centre (stratified)"]["hr"], abs=0.01
    )


def test_one_centre_is_said_and_not_analysed() -> None:
    part = centre_part(sample_of(0.3 * COUNT, table=TABLE.assign(center="A")), SETTINGS)
    assert not part.items
    assert "one centre" in part.skipped[0].reason


def test_a_count_that_only_follows_the_number_of_nodes_loses_its_effect() -> None:
    nodes = (2 * COUNT + RANDOM.integers(0, 3, N)).astype(int)
    table = TABLE.assign(n_ai_nodes=pd.array(nodes, dtype="Int64"), own=RANDOM.normal(size=N))
    rows = rows_of(burden_part(sample_of(0.2 * nodes, table=table), SETTINGS), "adjusted")
    assert rows["nothing more"]["hr"] > 1.3
    beside = rows["Nodes found by the software"]
    assert beside["lower"] < 1 < beside["upper"]
    assert beside["other_p"] < 0.001 < beside["p"]
    assert rows["own"]["other_p"] > 0.01
    assert rows["all of these"]["n"] == N - TABLE["hpv"].isna().sum()


@pytest.mark.parametrize(("column", "words"), [("nowhere", "no such column"), ("sex", "column of numbers")])
def test_a_column_that_is_none_of_numbers_is_refused_by_name(column: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"--also {column}.*{words}"):
        check_also(TABLE, (column,))


def test_an_effect_of_the_first_year_alone_shows_in_the_periods() -> None:
    random = np.random.default_rng(2)
    early = random.exponential(10 / np.exp(0.6 * COUNT))
    late = random.exponential(np.full(N, 10.0))
    failure = np.where(early < 1, early, 1 + late)
    last = random.uniform(2, 8, N)
    event = (failure <= last).astype(int)
    outcome = Outcome("os", np.arange(N), np.minimum(failure, last), event, event)
    sample = make_sample("all", "All patients", TABLE, outcome, ("age", "pack_years"))
    rows = rows_of(models_part(sample, SETTINGS), "model")
    assert rows["In years 0 to 1"]["hr"] == pytest.approx(np.exp(0.6), abs=0.2)
    assert rows["In years 1 to 3"]["lower"] < 1 < rows["In years 1 to 3"]["upper"]
    landmark = rows["Landmark: at risk after 12 months"]
    assert landmark["n"] == (outcome.time[sample.design.complete] > 1).sum()
    assert landmark["lower"] < 1 < landmark["upper"]
    assert "curvature" in rows["Splines of age and pack-years"]["remark"]
    assert "E-value" in rows["Proportional hazards"]["remark"]


@pytest.mark.slow
def test_late_entry_counts_patients_from_their_entry_on() -> None:
    entry = np.where(np.arange(N) % 2 == 0, 0.5, -1.0)
    sample = sample_of(0.3 * COUNT, table=TABLE.assign(entry_time=entry))
    rows = rows_of(models_part(sample, SETTINGS), "model")
    late = rows["Delayed entry (entry_time)"]
    time = sample.outcome.time[sample.design.complete]
    assert late["n"] == (entry[sample.design.complete] < time).sum()
    assert late["hr"] == pytest.approx(rows["Proportional hazards"]["hr"], abs=0.1)


def test_groups_are_compared_by_restricted_means_and_weighted_tests() -> None:
    grouping = Grouping(
        "marker", "Number of AI-ENE nodes", "marker_class", ("0", "1", ">=2"), ("0", "1", "2+")
    )
    outcome = sample_of(0.6 * COUNT).outcome
    part = groups_part(Stratum("all", "All patients", outcome, grouping.rank(TABLE), grouping), SETTINGS)
    means, tests = (i for i in part.items if isinstance(i, Table))
    assert [r["group"] for r in means.rows] == ["1", "2+"]
    assert means.rows[1]["upper"] < 0
    assert means.rows[1]["p"] < 0.001
    assert len(tests.rows) == 3
    assert all(r["p"] < 0.001 for r in tests.rows)


def test_subgroups_find_a_planted_interaction_and_name_no_other() -> None:
    own = np.where((TABLE["hpv"] == "negative").fillna(False), 0.5, 0.0)
    part = subgroups_part(sample_of(own * COUNT, covariates=("age", "hpv", "sex")), SETTINGS)
    rows = [r for i in part.items if isinstance(i, Table) for r in i.rows]
    tests = {r["factor"]: r["interaction_p"] for r in rows if r.get("interaction_p") is not None}
    assert tests["HPV"] < 0.001
    assert tests["Sex"] > 0.01
    assert tests["Age"] > 0.01
    hpv = {r["level"]: r for r in rows if r["factor"] == "HPV"}
    assert hpv["positive"]["n"] + hpv["negative"]["n"] == rows[0]["n"]
    assert "Fine-Gray" not in {r["factor"] for r in rows}
    figure = next(i for i in part.items if isinstance(i, Figure))
    assert figure.draw().get_axes()


@pytest.mark.slow
def test_subgroups_of_a_competing_endpoint_test_the_subdistribution_too() -> None:
    own = np.where((TABLE["hpv"] == "negative").fillna(False), 0.5, 0.0)
    part = subgroups_part(sample_of(own * COUNT, name="dc", death=0.1), SETTINGS)
    row = rows_of(part, "factor")["Fine-Gray"]
    assert row["interaction_p"] < 0.01
    assert row["lower"] > 1


def test_several_endpoints_are_corrected_within_their_family() -> None:
    def table(name: Any, p: Any) -> Any:
        return Table(name, "", (), ({"column": "n_ai_ene", "adj_hr": 1.2, "adj_p": p},))

    tables = (table("cox_os_all", 0.03), table("cox_dc_all", 0.02), table("cox_os_hpv_positive", 0.04))
    populations = [
        ("all", "All patients"),
        ("hpv_positive", "HPV-positive"),
        ("hpv_negative", "HPV-negative"),
    ]
    found = multiplicity_section([Section("x", "X", tables)], ("os", "dc"), populations)
    by = {(r["endpoint"], r["population"]): r["p_holm"] for r in found.tables[0].rows}
    assert by["Overall survival", "All patients"] == pytest.approx(0.04)
    assert by["Distant control", "All patients"] == pytest.approx(0.04)
    assert by["Overall survival", "HPV-positive"] == pytest.approx(0.04)
    assert by["Distant control", "HPV-negative"] is None


def test_e_value_of_the_published_example_and_of_a_common_outcome() -> None:
    assert e_value(3.9, 1.8, 8.7, common=False) == pytest.approx((7.26, 3.0), abs=0.01)
    assert e_value(1 / 3.9, 1 / 8.7, 1 / 1.8, common=False) == pytest.approx((7.26, 3.0), abs=0.01)
    assert e_value(1.2, 0.9, 1.6, common=False).interval == 1
    ratio = (1 - 0.5**2**0.5) / (1 - 0.5**0.5**0.5)
    assert e_value(2.0, 1.5, 3.0, common=True).estimate == pytest.approx(ratio + (ratio * (ratio - 1)) ** 0.5)
    with pytest.raises(UsageError, match="within its interval"):
        e_value(2.0, 2.5, 3.0, common=False)


@pytest.mark.slow
def test_the_plain_row_is_the_adjusted_model_of_the_report() -> None:
    sample = sample_of(0.3 * COUNT)
    complete, design, count = sample.complete()
    matrix = pd.concat([pd.DataFrame({"n_ai_ene": count}), design.matrix], axis=1)
    found = cox(complete.time, complete.event, matrix).rows[0]
    for part in (centre_part(sample, SETTINGS), models_part(sample, SETTINGS)):
        rows = rows_of(part, "model")
        row = rows.get("Centres not respected") or rows["Proportional hazards"]
        assert row["hr"] == pytest.approx(found.hr, rel=1e-6)


@pytest.mark.parametrize(("n", "rate"), [(700, 0.3), (61, 0.5), (7, 0.7)])
def test_c_by_blocks_is_that_of_the_patients_counted_one_by_one(n: int, rate: float) -> None:
    random = np.random.default_rng(n)
    time, event = np.ceil(random.exponential(30, n)), (random.random(n) < rate).astype(int)
    event[0], time[0] = 1, 1
    score = random.normal(size=n).round(1)
    pairs = Pairs(time, event)
    for _ in range(5):
        rows = random.integers(0, n, n)
        rows[:2] = (0, int(np.argmax(time)))
        weights = np.bincount(rows, minlength=n).astype(float)
        wanted = harrell_c(time[rows], event[rows], score[rows]).c
        assert pairs.weighted_c(score, weights) == pytest.approx(wanted, abs=1e-12)
