"""Ordered groups are judged by their given order; stages within chapters; one edition of T and N."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aiene.errors import UsageError
from aiene.risk.analyse.cohort import make_cohort, missing_reason, outcome_of
from aiene.risk.analyse.descriptives import migration_figure, table_one
from aiene.risk.analyse.design import edition_warnings, make_design, with_one_edition
from aiene.risk.analyse.grouping import make_groupings
from aiene.risk.analyse.incremental_value import assess
from aiene.risk.analyse.model_comparison import ModelComparison, model_comparisons
from aiene.risk.analyse.records import AnalysisSettings
from aiene.risk.analyse.regression import make_sample
from aiene.risk.analyse.survival import follow_up_table
from aiene.risk.schemes.scheme import read_scheme
from aiene.risk.staging.stage import StagingOptions
from aiene.risk.stratify import stratify
from aiene.risk.table.read import complete
from aiene.stats.competing_risks import cumulative_incidence
from aiene.stats.concordance import harrell_c, uno_c
from aiene.stats.survival_curves import follow_up
from aiene.stats.time_dependent_accuracy import time_dependent_auc
from builders.risk_cohorts import SCHEME, drawn

SETTINGS = AnalysisSettings(
    bootstraps=2, jobs=1, horizons=(2.0,), calibration_years=(2.0,), decision_years=2.0
)


def comparisons(table: pd.DataFrame, endpoint: str, scheme: Any = None) -> tuple[ModelComparison, ...]:
    cohort = make_cohort(table, SETTINGS)
    outcome, _ = outcome_of(cohort.table, endpoint)  # type: ignore[arg-type]
    sample = make_sample("all", "All patients", cohort.table, outcome, ("age", "sex"))
    return model_comparisons(sample, make_groupings(cohort.table, scheme or read_scheme(SCHEME)), 5)


@pytest.fixture(scope="module")
def wrong_way() -> Any:
    """A count that lowers the hazard, in a scheme that takes it for a worse group."""
    base = next(c for c in comparisons(drawn(300, effect=-0.7, seed=3), "dc") if c.name == "base")
    return base, assess(base, SETTINGS).rows


@pytest.mark.slow
def test_c_and_auc_of_groups_are_those_of_their_own_order(wrong_way: Any) -> None:
    comparison, rows = wrong_way
    outcome = comparison.outcome
    c = {(row["key"], row["kind"]): row["c"] for row in rows["c"]}
    auc = {row["key"]: row["auc"] for row in rows["auc"]}
    for model in (comparison.old, comparison.groups):
        own = model.ranks.astype(float)
        assert c[model.name, "Harrell"] == harrell_c(outcome.time, outcome.event, own).c
        assert c[model.name, "Uno"] == uno_c(outcome.time, outcome.event, own, tau=2.0)
        assert auc[model.name] == time_dependent_auc(outcome.time, outcome.state, own, [2.0])[0].auc
    gain = next(row for row in rows["delta"] if row["key"] == "groups" and row["kind"] == "Harrell")
    assert gain["delta"] == pytest.approx(c["groups", "Harrell"] - c["old", "Harrell"])
    assert gain["against"] == comparison.old.label
    assert gain["delta"] < -0.03  # the order learned from the outcome would show a gain
    order = {row["key"]: row for row in rows["order"]}
    assert not order["groups"]["holds"]
    assert order["groups"]["verdict"].startswith("does not hold: ")


def test_the_count_is_not_credited_with_putting_the_old_groups_in_order() -> None:
    """RTOG groups of random patients upside down: a count of noise beside them gains nothing."""
    table = drawn(300, effect=0.0, seed=5)
    flipped = table["base_group"].map({"low": "high", "high": "low", "intermediate": "intermediate"})
    comparison = next(c for c in comparisons(table.assign(base_group=flipped), "os") if c.name == "base")
    rows = assess(comparison, SETTINGS).rows
    c = {row["key"]: row["c"] for row in rows["c"] if row["kind"] == "Harrell"}
    gain = next(row for row in rows["delta"] if row["key"] == "new" and row["kind"] == "Harrell")
    assert c["relearned"] > 0.5 > c["old"]
    assert gain["delta"] == pytest.approx(c["new"] - c["relearned"])
    assert gain["against"].endswith("order learned here")


@pytest.mark.slow
def test_what_is_zero_by_construction_is_not_printed(wrong_way: Any) -> None:
    _, rows = wrong_way
    assert {row["key"] for row in rows["optimism"]} == {"c new", "slope new", "delta new"}
    assert {row["key"] for row in rows["calibration"]} == {"new"}
    alone = next(c for c in comparisons(drawn(300, seed=3), "os") if c.name == "clinical")
    alone = replace(alone, old=replace(alone.old, matrix=alone.old.matrix[["age"]]))
    assert "slope old" not in {row["key"] for row in assess(alone, SETTINGS).rows["optimism"]}
    assert all(0 < row["consistency"] < 0.5 for row in rows["separation"])


@pytest.mark.slow
def test_reclassification_names_its_groups_and_lets_death_compete(wrong_way: Any) -> None:
    comparison, rows = wrong_way
    outcome, cells = comparison.outcome, rows["reclassified"]
    assert {row["new"] for row in cells} == set(comparison.groups.groups)
    assert {"low", "intermediate", "high"} <= {row["old"] for row in cells}
    cell = next(row for row in cells if row["old"] == row["new"] == "low")
    inside = (comparison.ranks_old == 0) & (comparison.ranks_new == 0)
    risk = cumulative_incidence(outcome.time[inside], outcome.state[inside]).at([2.0])[0].value
    assert (cell["n"], cell["risk"]) == (inside.sum(), risk)


@pytest.mark.slow
def test_a_stage_of_one_chapter_is_never_pooled_with_that_of_the_other() -> None:
    table = stratify(drawn(300, seed=2), read_scheme(SCHEME), options=StagingOptions(ene_unknown="negative"))
    pooled = replace(
        read_scheme("count-0-1-2plus"), name="pooled", base="ajcc8", groups=("low", "high"), monotone=False,
        mapping=dict.fromkeys(("0", "I", "II", "III", "IV", "IVA", "IVB", "IVC"), ("low", "low", "high")),
    )  # fmt: skip
    for scheme, at in ((read_scheme(SCHEME), table), (pooled, stratify(table, pooled))):
        found = [c for c in comparisons(at, "os", scheme) if "AJCC-8" in c.title]
        titles = {"AJCC-8 stage, p16-positive", "AJCC-8 stage, p16-negative or untested"}
        assert {c.title for c in found} == titles
        positive = next(c for c in found if c.title == "AJCC-8 stage, p16-positive")
        assert positive.outcome.n == ((at.hpv == "positive") & at.ajcc8_stage.isin(["I", "II", "III"])).sum()
    cohort = make_cohort(stratify(table, pooled), SETTINGS)
    groupings = make_groupings(cohort.table, pooled)
    assert "p16-positive III" in migration_figure(cohort, groupings).data["old"]  # type: ignore[union-attr]
    rows = [r for r in table_one(cohort, groupings.main).rows if r["characteristic"].startswith("AJCC-8")]
    assert {r["characteristic"] for r in rows} == titles
    thirds = [r["all_value"] for r in rows if r["level"] == "III"]
    assert len(thirds) == 2
    assert sum(thirds) == (cohort.table.ajcc8_stage == "III").sum()


def editions(table: pd.DataFrame, converted: dict[str, str]) -> pd.DataFrame:
    """Half of the patients by edition 8."""
    half = np.arange(len(table)) % 2 == 0
    n8 = table.n7.map(converted).where(half)
    mixed = table.drop(columns=[c for c in table if c.startswith(("ajcc", "v9", "rtog", "base", "comb"))])  # type: ignore[attr-defined]
    mixed = mixed.assign(n8=n8, n7=table.n7.mask(half), edition_n=np.where(half, "8", "7"))
    return stratify(complete(mixed), read_scheme(SCHEME))


TO_8 = {"N0": "N0", "N1": "N1", "N2a": "N1", "N2b": "N1", "N2c": "N2", "N3": "N3"}


@pytest.mark.slow
def test_editions_are_brought_to_one_where_that_loses_nothing_and_stand_in_the_label() -> None:
    table = drawn(200, hpv="positive")
    assert make_design(table, ["n"]).terms[0].label == "N, edition 7"
    mixed = editions(table, TO_8)
    design = make_design(mixed, ["n", "t"])
    assert [term.label for term in design.terms] == ["N, edition 8", "T, edition 7"]
    whole = table.n7.map(TO_8)
    assert design.matrix["n_N2"].tolist() == (whole == "N2").astype(float).tolist()
    told = edition_warnings(with_one_edition(mixed, ["n"]))
    assert told == ["N of edition 7 in 100 patients was converted to edition 8, which the others have."]


@pytest.mark.slow
def test_editions_that_cannot_be_brought_to_one_are_refused() -> None:
    mixed = editions(drawn(200, hpv="negative"), {n: n for n in TO_8} | {"N3": "N3a"})
    with pytest.raises(UsageError, match=r"cannot be converted without loss .p16-negative .* clinical_ene"):
        make_design(mixed, ["n"])
    told = stratify(mixed, read_scheme(SCHEME), options=StagingOptions(ene_unknown="negative"))
    assert make_design(told, ["n"]).terms[0].label == "N, edition 8"


def test_endpoints_have_the_names_of_what_they_are() -> None:
    table = drawn(80).assign(lrf_time=np.nan, lrf_event=pd.NA, dfs_time=np.nan, dfs_event=pd.NA)  # type: ignore[arg-type]
    assert "ask for dmfs" in missing_reason(table, "dfs")
    assert missing_reason(table, "dmfs") == ""
    outcome, _ = outcome_of(table, "dmfs")
    assert outcome.label == "Distant-metastasis-free survival"
    assert outcome.n_events == ((table.os_event == 1) | (table.dm_event == 1)).sum()


def test_follow_up_for_a_failure_is_censored_by_death() -> None:
    outcome, _ = outcome_of(drawn(150), "dc")
    row = follow_up_table([("all", outcome)]).rows[0]
    assert row["median"] == follow_up(outcome.time, outcome.state).median.value
    assert row["median"] > follow_up(outcome.time, outcome.event).median.value


def test_what_death_after_the_imaging_means_is_a_setting() -> None:
    table = drawn(150)
    early = table.assign(dm_time=table.dm_time.where(table.dm_event == 1, table.dm_time / 2))
    at_end, at_imaging = (
        outcome_of(make_cohort(early, replace(SETTINGS, dm_censor_at=choice)).table, "dc")[0]
        for choice in ("last_followup", "last_imaging")
    )
    assert (at_end.state == 2).sum() == ((early.os_event == 1) & (early.dm_event == 0)).sum()
    assert (at_imaging.state == 2).sum() == 0
    assert (at_end.time >= at_imaging.time).all()
