"""The lean refits against the full ones, and what derivation may and may not do."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from aiene.errors import UsageError
from aiene.parallel import Job, run_jobs
from aiene.risk.analyse.bootstrap_refit import Pairs, Refit, values_of
from aiene.risk.analyse.cohort import make_cohort, numeric, outcome_of
from aiene.risk.analyse.grouping import make_groupings
from aiene.risk.analyse.incremental_value import internal_external_validation
from aiene.risk.analyse.model_comparison import Added, model_comparisons
from aiene.risk.analyse.records import AnalysisSettings, chosen_endpoint
from aiene.risk.analyse.regression import make_sample
from aiene.risk.analyse.threshold_sensitivity import threshold_chapter
from aiene.risk.schemes.scheme import read_scheme
from aiene.stats.centre_models import validation_centres
from aiene.stats.concordance import harrell_c
from aiene.stats.cox_model import fit_cox
from builders.risk_cohorts import SCHEME, drawn


def survival(n: Any = 150, seed: Any = 3, *, ties: bool = True) -> Any:
    random = np.random.default_rng(seed)
    x = np.column_stack([random.integers(0, 3, n), random.normal(size=n), random.integers(0, 2, n)]).astype(
        float
    )
    time = random.exponential(np.exp(-0.5 * x[:, 0] - 0.3 * x[:, 1]))
    return (np.ceil(time * 6) / 6 if ties else time), (random.random(n) < 0.6).astype(int), x


@pytest.mark.parametrize("ties", [True, False])
def test_refits_on_resamples_are_those_of_the_careful_fit(ties: bool) -> None:
    time, event, x = survival(ties=ties)
    refit = Refit(time, event, {"few": x[:, :1], "many": x})
    for seed in range(8):
        rows = np.random.default_rng(seed).integers(0, time.size, time.size)
        betas = refit.fit(rows)
        values = dict(
            zip(
                ("few", "many"),
                zip(refit.c(betas, None).values(), refit.c(betas, rows).values(), strict=True),
                strict=True,
            )
        )
        for name, matrix in (("few", x[:, :1]), ("many", x)):
            wanted = fit_cox(time[rows], event[rows], matrix[rows]).beta
            np.testing.assert_allclose(betas[name] / matrix.std(axis=0), wanted, atol=1e-6)
            risk = refit.columns[name] @ betas[name]
            assert values[name][0] == pytest.approx(harrell_c(time, event, risk).c, abs=1e-6)
            assert values[name][1] == pytest.approx(
                harrell_c(time[rows], event[rows], risk[rows]).c, abs=1e-6
            )
            slope = fit_cox(time, event, risk[:, None]).beta[0]
            assert refit.slope(name, betas[name]) == pytest.approx(slope, abs=1e-6)


def test_pairs_by_level_are_pairs_by_patient() -> None:
    time, event, x = survival()
    pairs, level = Pairs(time, event), x[:, 0].astype(int)
    score = np.array([0.3, -1.0, 2.0])
    table = pairs.of_levels(level, 3, np.ones(time.size))
    won = (score[:, None] > score[None, :]) + 0.5 * (score[:, None] == score[None, :])
    assert (table * won).sum() / table.sum() == pytest.approx(
        harrell_c(time, event, score[level]).c, abs=1e-12
    )


def test_slopes_on_the_own_resample_are_one_and_differences_are_differences() -> None:
    time, event, x = survival()
    refit = Refit(time, event, {"old": x[:, :1], "new": x})
    rows = np.random.default_rng(0).integers(0, time.size, time.size)
    values = values_of(refit, refit.fit(rows), rows, ["new"], [("old", "new")])
    assert values[2] == 1.0
    assert values[3] == pytest.approx(values[1] - values[0])


def _square(x: Any) -> Any:
    return x * x


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_processes() -> None:
    jobs = [Job(str(i), _square, (i,), 100.0 + i) for i in range(6)]
    told: list[Any] = []
    assert (
        run_jobs(jobs, workers=2, on_progress=told.append)
        == run_jobs(jobs, workers=1)
        == [0, 1, 4, 9, 16, 25]
    )
    assert told[-1].done == told[-1].total
    assert len(told) == 6


@pytest.mark.slow
def test_other_thresholds_recount_the_nodes() -> None:
    import pandas as pd

    settings = AnalysisSettings(bootstraps=0)
    cohort = make_cohort(drawn(90, n_ai_nodes=0), settings)
    ids = cohort.table["patient_id"]
    count = numeric(cohort.table, "n_ai_ene").astype(int)
    nodes = pd.DataFrame(
        [(i, p) for i, k in zip(ids, count, strict=True) for p in [0.45] * k + [0.25]],
        columns=["patient_id", "ene"],
    )
    scheme = read_scheme(SCHEME)
    groupings = make_groupings(cohort.table, scheme)
    cohort.table["ai_threshold"] = 0.35
    section, _ = threshold_chapter(cohort, groupings, scheme, nodes, ("os",), settings)
    models: Any = next(i for i in section.items if getattr(i, "name", "") == "threshold_models").rows  # type: ignore[union-attr]
    assert [(r["threshold"], r["own"]) for r in models][:3] == [(0.2, ""), (0.3, ""), (0.35, "of this run")]
    same = [r["adj_hr"] for r in models if r["threshold"] in (0.3, 0.35, 0.4)]
    assert same[0] == same[1] == same[2] > 1
    assert models[0]["hr"] != models[0]["adj_hr"]
    rows: Any = {
        r["threshold"]: r  # type: ignore[call-overload]
        for i in section.items
        if getattr(i, "name", "") == "thresholds" and hasattr(i, "rows")
        for r in i.rows
    }
    assert rows[0.3]["changed_count"] == rows[0.4]["changed_count"] == 0
    assert rows[0.2]["changed_count"] == 90  # the node at 0.25 joins in everybody
    assert rows[0.5]["class_0"] == 90
    assert rows[0.5]["changed_class"] == int((count > 0).sum())
    doubtful = nodes.assign(counts=(nodes.ene > 0.3).astype(int))  # by the least `pos` of the run's bundle
    _, part = threshold_chapter(cohort, groupings, scheme, doubtful, ("os",), settings)
    (table,) = (i for i in part.items if getattr(i, "name", "") == "thresholds" and hasattr(i, "rows"))
    assert table.rows[0]["changed_count"] == 0  # type: ignore[call-overload]


def test_groups_are_matched_between_old_and_new_by_name() -> None:
    settings = AnalysisSettings(bootstraps=0)
    scheme = read_scheme(SCHEME)
    cohort = make_cohort(drawn(150), settings)
    groupings = make_groupings(cohort.table, scheme)
    outcome, _ = outcome_of(cohort.table, "os")
    from aiene.risk.analyse.model_comparison import model_comparisons
    from aiene.risk.analyse.regression import make_sample

    sample = make_sample("all", "All patients", cohort.table, outcome, ("age",))
    base = next(c for c in model_comparisons(sample, groupings, 5) if c.name == "base")
    assert (base.ranks_new >= base.ranks_old).all()  # the count only moves up in this scheme


def test_a_centre_judges_models_fitted_without_it_and_too_few_centres_judge_none() -> None:
    table = drawn(330, seed=5, center=np.resize(["A", "B", "C"], 330))
    cohort = make_cohort(table, AnalysisSettings())
    outcome, _ = outcome_of(cohort.table, "os")
    sample = make_sample("all", "All patients", cohort.table, outcome, ("age",))
    comparison = model_comparisons(sample, make_groupings(cohort.table, read_scheme(SCHEME)), 5)[0]
    added = Added()
    internal_external_validation(comparison, {}, added, AnalysisSettings(bootstraps=20))
    rows = {(r["centre"], r["key"]): r for r in added.rows["centres"]}
    together = "pooled over 3 (random effects)"
    assert set(rows) == {(c, m) for c in ("A", "B", "C", together) for m in ("old", "new")}
    pooled = rows[together, "new"]
    assert pooled["delta_lower"] < pooled["delta"] < pooled["delta_upper"]
    assert 0 <= pooled["i2"] <= 1
    held = comparison.center == "A"
    x = comparison.new.matrix.to_numpy(dtype=float)
    time, event = comparison.outcome.time, comparison.outcome.event
    beta = fit_cox(time[~held], event[~held], x[~held]).beta
    assert rows["A", "new"]["c"] == pytest.approx(
        harrell_c(time[held], event[held], x[held] @ beta).c, abs=1e-12
    )
    assert rows["A", "new"]["delta"] == pytest.approx(
        rows["A", "new"]["c"] - rows["A", "old"]["c"], abs=1e-12
    )
    assert validation_centres(np.where(comparison.center == "C", "B", comparison.center), event) == ()


def test_cut_offs_are_derived_for_dc_or_the_first_endpoint_and_only_for_one_that_is_analysed() -> None:
    assert chosen_endpoint(AnalysisSettings(), ("os", "dc")) == "dc"
    assert chosen_endpoint(AnalysisSettings(), ("lrc", "os")) == "lrc"
    with pytest.raises(UsageError, match="derived for dc, not among the endpoints"):
        chosen_endpoint(AnalysisSettings(derive_endpoint="dc"), ("os",))


def test_every_process_has_one_thread_and_the_environment_is_left_as_it_was() -> None:
    before = dict(os.environ)
    jobs = [Job("look", os.getenv, ("OMP_NUM_THREADS",), 300.0)] * 2
    assert run_jobs(jobs, workers=2) == ["1", "1"]
    assert dict(os.environ) == before
