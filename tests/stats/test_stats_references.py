"""Against lifelines, scikit-survival, statsmodels, dcurves and comprisk, and against brute force."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiene.stats.bootstrap import resample_counts, resample_indices
from aiene.stats.clinical_utility import decision_curve
from aiene.stats.competing_risks import cumulative_incidence
from aiene.stats.concordance import _Pairs, concordance, harrell_c, uno_c
from aiene.stats.cox import _Problem, cox, firth
from aiene.stats.cox_model import Resampling, derivatives, fit_cox, nested_lrt, risk_sets
from aiene.stats.proportional_hazards import proportional_hazards, schoenfeld
from aiene.stats.survival_curves import kaplan_meier, rmst
from aiene.stats.tests import log_rank, log_rank_pairwise, log_rank_trend
from aiene.stats.time_dependent_accuracy import (
    brier_score,
    integrated_brier,
    time_dependent_auc,
    time_dependent_aucs,
)
from builders.survival_cohorts import first, lung, rossi, rossi_columns, simulated, sksurv_data

EXACT = {"precision": 1e-13, "r_precision": 1e-15}


def test_kaplan_meier_and_its_interval_are_those_of_lifelines() -> None:
    from lifelines import KaplanMeierFitter

    table = lung()
    other = KaplanMeierFitter().fit(table.time, table.status)
    curve = kaplan_meier(table.time, table.status)
    horizons = [10, 100, 365, 700, 1000]
    expected = other.survival_function_at_times(horizons).to_numpy()
    assert [at.value for at in curve.at(horizons)] == pytest.approx(expected, abs=1e-12)
    limits = other.confidence_interval_survival_function_
    for estimate in curve.at(horizons):
        low, high = limits.loc[: estimate.time].iloc[-1]
        assert (estimate.lower, estimate.upper) == pytest.approx((low, high), abs=1e-9)


def test_the_interval_of_the_median_is_that_of_r_for_lung() -> None:
    """R prints 285 to 363 with conf.type = "log", its default."""
    table = lung()
    assert kaplan_meier(table.time, table.status, interval="log").median == (310, 285, 363)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_incidence_is_that_of_scikit_survival_and_its_error_that_of_comprisk(seed: Any) -> None:
    from comprisk import CumulativeIncidence
    from sksurv.nonparametric import cumulative_incidence_competing_risks  # type: ignore[import-untyped]

    table = simulated(200, seed, competing=True).round({"time": 1})
    time, state, horizons = table.time.to_numpy(), table.state.to_numpy(), [0.5, 1.5, 3.0, 5.0]
    times, values, limits = cumulative_incidence_competing_risks(
        state, time, conf_type="log-log", var_type="Aalen"
    )
    variances = CumulativeIncidence().fit(time, state).timepoints(horizons)[1]
    for cause in (1, 2):
        found = cumulative_incidence(time, first(state, cause)).at(horizons)
        for place, estimate in enumerate(found):
            index = np.searchsorted(times, estimate.time, side="right") - 1
            assert estimate.value == pytest.approx(values[cause, index], abs=1e-12)
            # scikit-survival does not correct for ties
            limit = limits[cause, :, index]
            assert (estimate.lower, estimate.upper) == pytest.approx(limit, abs=1e-2)
            assert estimate.std_error**2 == pytest.approx(variances[cause - 1, place], abs=1e-12)


@pytest.mark.parametrize("strata", [False, True])
def test_the_lean_cox_is_that_of_lifelines_to_eight_digits(strata: bool) -> None:
    from lifelines import CoxPHFitter

    table = rossi()
    columns = [name for name in rossi_columns() if not (strata and name in ("fin", "wexp"))]
    other = CoxPHFitter().fit(
        table, "week", "arrest", strata=["fin", "wexp"] if strata else None, fit_options=EXACT
    )
    layers = table.fin * 2 + table.wexp if strata else None
    model = fit_cox(table.week, table.arrest, table[columns], strata=layers)
    assert model.converged
    assert model.beta == pytest.approx(other.params_[columns].to_numpy(), abs=1e-8)
    assert model.log_likelihood == pytest.approx(other.log_likelihood_, abs=1e-8)
    errors = np.sqrt(np.diag(np.linalg.inv(model.information)))
    assert errors == pytest.approx(other.standard_errors_[columns].to_numpy(), abs=1e-8)


def test_the_road_for_very_many_patients_gives_the_same_table(monkeypatch: pytest.MonkeyPatch) -> None:
    table = rossi()
    usual = cox(table.week, table.arrest, table[rossi_columns()])
    monkeypatch.setattr(sys.modules["aiene.stats.cox"], "_MANY", 10)
    lean = cox(table.week, table.arrest, table[rossi_columns()])
    for row, other in zip(usual.rows, lean.rows, strict=True):
        assert row[1:] == pytest.approx(other[1:], rel=1e-6)
    assert (usual.lrt, usual.aic) == pytest.approx((lean.lrt, lean.aic), abs=1e-8)


@pytest.mark.slow
def test_the_lean_cox_of_tied_resamples_is_that_of_statsmodels() -> None:
    from statsmodels.duration.hazard_regression import PHReg

    table = rossi()
    for number in range(3):
        drawn = table.iloc[resample_indices(len(table), number, 5)]
        X = drawn[["age", "prio"]].to_numpy(dtype=float)
        other = PHReg(drawn.week.to_numpy(float), X, drawn.arrest.to_numpy(), ties="efron").fit(disp=0)
        assert fit_cox(drawn.week, drawn.arrest, X).beta == pytest.approx(other.params, abs=1e-8)


def test_information_is_the_derivative_of_the_score_and_that_of_the_likelihood() -> None:
    table = simulated(60, 3).round({"time": 1})
    X = table[["x", "z"]].to_numpy()
    sets = risk_sets(table.time.to_numpy(), (table.state == 1).to_numpy().astype(int))
    X, beta, h = X[sets.order], np.array([0.4, -0.3]), 1e-5
    at = derivatives(X, sets, beta)
    for k in range(2):
        step = np.eye(2)[k] * h
        up, down = derivatives(X, sets, beta + step), derivatives(X, sets, beta - step)
        assert (up.value - down.value) / (2 * h) == pytest.approx(at.score[k], abs=1e-7)
        assert (down.score - up.score) / (2 * h) == pytest.approx(at.information[k], abs=1e-6)


def test_proportional_hazards_tests_are_those_of_lifelines() -> None:
    from lifelines import CoxPHFitter
    from lifelines.statistics import proportional_hazard_test

    table = rossi()
    fitted = CoxPHFitter().fit(table, "week", "arrest")
    for transform in ("rank", "km", "identity", "log"):
        expected = proportional_hazard_test(fitted, table, time_transform=transform)
        expected = dict(zip(fitted.params_.index, expected.test_statistic, strict=True))
        found = proportional_hazards(
            table.week, table.arrest, table[rossi_columns()], transform=transform, method="approximate"
        )
        assert {row.name: row.statistic for row in found.rows} == pytest.approx(expected, abs=1e-4)
        assert found.overall.df == 7


def test_the_score_test_of_proportional_hazards_is_that_of_r() -> None:
    """What tutorials show of cox.zph (survival 3) for lung on age, sex and weight loss; from memory."""
    table = lung("age", "sex", "wt.loss")
    found = proportional_hazards(table.time, table.status, table[["age", "sex", "wt.loss"]])
    assert [row.statistic for row in found.rows] == pytest.approx([0.5077, 2.5489, 0.0144], abs=5e-5)
    assert (found.overall.statistic, found.overall.df) == (pytest.approx(3.0051, abs=5e-5), 3)


def test_schoenfeld_residuals_are_those_of_lifelines_and_mean_the_coefficient() -> None:
    from lifelines import CoxPHFitter

    table = lung("age", "sex")
    fitted = CoxPHFitter().fit(table, "time", "status", fit_options=EXACT)
    expected = fitted.compute_residuals(table, "scaled_schoenfeld").to_numpy()
    found = schoenfeld(table.time, table.status, table[["age", "sex"]])
    centred = found.residuals - fitted.params_.to_numpy()
    assert np.sort(centred, axis=0) == pytest.approx(np.sort(expected, axis=0), abs=1e-5)
    assert found.residuals.mean(axis=0) == pytest.approx(fitted.params_.to_numpy(), abs=1e-6)
    grid, mean, lower, upper = found.smooth["age"]
    assert (lower < mean).all()
    assert (mean < upper).all()
    assert grid[0] == found.times[0]


@pytest.mark.slow
def test_pairwise_log_rank_is_that_of_lifelines_and_the_trend_is_the_score_test_of_cox() -> None:
    from lifelines.statistics import pairwise_logrank_test

    X, time, event = sksurv_data("veterans_lung_cancer")
    groups = X.Celltype.astype(str)
    expected = pairwise_logrank_test(time, groups, event).summary.test_statistic
    found = log_rank_pairwise(time, event, groups)
    assert len(found) == 6
    for pair in found:
        assert pair.statistic == pytest.approx(expected[pair.first, pair.second], abs=1e-8)
        assert pair.p_holm >= pair.p
    order = ["squamous", "large", "smallcell", "adeno"]
    trend = log_rank_trend(time, event, groups, order=order)
    codes = groups.map(order.index).to_numpy(float)[:, None]
    sets = risk_sets(time, event)
    # Breslow's score is that of the trend; with few ties Efron's is near
    score = derivatives(codes[sets.order], sets, np.zeros(1))
    assert trend.statistic == pytest.approx(float(score.score[0] ** 2 / score.information[0, 0]), rel=0.02)


@pytest.mark.slow
def test_stratified_log_rank_is_that_of_statsmodels() -> None:
    from statsmodels.duration.survfunc import survdiff

    table = rossi()
    expected = survdiff(table.week, table.arrest, table.fin, strata=table.race)[0]
    found = log_rank(table.week, table.arrest, table.fin, strata=table.race)
    assert found.statistic == pytest.approx(expected, abs=1e-8)


def test_restricted_mean_is_that_of_lifelines() -> None:
    from lifelines import KaplanMeierFitter
    from lifelines.utils import restricted_mean_survival_time

    table = lung()
    other = KaplanMeierFitter().fit(table.time, table.status)
    expected = restricted_mean_survival_time(other, t=365)
    assert rmst(table.time, table.status, 365).value == pytest.approx(expected, abs=1e-3)


def test_firth_is_the_maximum_found_by_a_general_optimiser() -> None:
    from scipy.optimize import minimize

    table = simulated(60, 8)
    event = (table.state == 1).astype(int)
    never = ((event == 0) & (np.arange(60) % 3 == 0)).astype(float)
    X = pd.DataFrame({"x": table.x, "never": never})
    fit = firth(table.time, event, X)
    sets = risk_sets(table.time.to_numpy(), event.to_numpy())  # type: ignore[arg-type]
    problem = _Problem(X.to_numpy()[sets.order], sets)
    best = minimize(lambda b: -problem.value(b), np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-9})
    assert fit.coef == pytest.approx(best.x, abs=1e-5)
    for column, row in enumerate(fit.rows):
        # at each end of the interval the profile has fallen by half of the chi-squared quantile
        for bound in np.log([row.lower, row.upper]):
            rest = minimize(
                lambda b, c=column, v=bound: -problem.value(np.insert(b, c, v)), [0.0], method="BFGS"
            )
            assert problem.value(fit.coef) + rest.fun == pytest.approx(3.841458820694124 / 2, abs=1e-4)


def test_gradient_of_the_firth_likelihood_is_its_derivative() -> None:
    table = simulated(50, 9).round({"time": 1})
    X = table[["x", "z"]].to_numpy()
    sets = risk_sets(table.time.to_numpy(), (table.state == 1).to_numpy().astype(int))
    problem, beta, h = _Problem(X[sets.order], sets), np.array([0.3, 0.8]), 1e-5
    numeric = [(problem.value(beta + h * e) - problem.value(beta - h * e)) / (2 * h) for e in np.eye(2)]
    assert problem.gradient(beta)[0] == pytest.approx(numeric, abs=1e-6)


def test_nested_likelihood_ratio() -> None:
    table = lung("age", "sex", "ph.ecog")
    small = cox(table.time, table.status, table[["age"]])
    large = cox(table.time, table.status, table[["age", "sex", "ph.ecog"]])
    test = nested_lrt(small, large)
    assert test.statistic == pytest.approx(2 * (large.log_likelihood - small.log_likelihood))
    assert test.df == 2
    assert test.aic_larger - test.aic_smaller == pytest.approx(4 - test.statistic)


def brute_c(time: Any, event: Any, risk: Any) -> Any:
    won = tied = pairs = 0
    for i in np.flatnonzero(event):
        for j in range(time.size):
            if time[j] > time[i] or (time[j] == time[i] and not event[j]):
                pairs += 1
                won += risk[i] > risk[j]
                tied += risk[i] == risk[j]
    return won, tied, pairs


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1), st.integers(0, 4)), min_size=2, max_size=40))
@pytest.mark.slow
def test_c_counts_every_pair_that_brute_force_counts(patients: Any) -> None:
    time, event, risk = np.array(patients, dtype=float).T
    won, tied, pairs = brute_c(time, event, risk)
    if pairs:
        found = harrell_c(time, event, risk)
        assert (found.concordant, found.tied_risk, found.comparable) == (won, tied, pairs)


@pytest.mark.parametrize("kind", ["harrell", "uno"])
def test_bootstrapped_c_is_that_of_each_resample(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    table = simulated(70, 21).round({"time": 1})
    time, event, x = (table[name].to_numpy() for name in ("time", "state", "x"))
    scores = {"x": x, "rounded": np.round(x)}
    limit = 4.0 if kind == "uno" else np.inf
    counts = np.concatenate(list(resample_counts(70, 12, 4)), axis=1)
    whole = _Pairs(time, event, scores, kind, limit).chunk(counts)
    monkeypatch.setattr("aiene.stats.concordance._AT_ONCE", 500)
    parts = _Pairs(time, event, scores, kind, limit)
    assert len(parts._parts) > 2
    for name, risk in scores.items():
        assert whole[name] == pytest.approx(parts.chunk(counts)[name], abs=1e-12)
        for number in range(12):
            i = resample_indices(70, number, 4)
            if kind == "harrell":
                expected = harrell_c(time[i], event[i], risk[i]).c
            else:
                expected = uno_c(time[i], event[i], risk[i], tau=4.0)
            assert whole[name][number] == pytest.approx(expected, abs=1e-12)


def test_bootstrapped_auc_is_that_of_each_resample() -> None:
    table = simulated(80, 22)
    time, event, x = (table[name].to_numpy() for name in ("time", "state", "x"))
    found = time_dependent_aucs(time, event, {"x": x, "z": table.z}, [2.0], compare=[("z", "x")], n_boot=30)
    replicates = []
    for number in range(30):
        i = resample_indices(80, number, 1)
        replicates.append(time_dependent_auc(time[i], event[i], x[i], [2.0])[0].auc)
    low, high = np.quantile(replicates, [0.025, 0.975])
    assert found.values["x"][0][1:] == pytest.approx((low, high), abs=1e-12)
    assert found.differences["x - z"][0].value == pytest.approx(
        found.values["x"][0].value - found.values["z"][0].value
    )


def untied(table: pd.DataFrame) -> pd.DataFrame:
    """Times without ties: scikit-survival weighs by the censoring curve at an event, not just before it."""
    return table.assign(time=table.time + np.arange(len(table)) / 1e6)


@pytest.mark.slow
def test_brier_scores_are_those_of_scikit_survival() -> None:
    from sksurv.metrics import brier_score as other_brier  # type: ignore[import-untyped]
    from sksurv.metrics import integrated_brier_score
    from sksurv.util import Surv  # type: ignore[import-untyped]

    table = untied(lung("age", "sex"))
    model = fit_cox(table.time, table.status, table[["age", "sex"]])
    grid = np.array([100.0, 200.0, 365.0, 500.0])
    survival = model.survival(table[["age", "sex"]], grid)
    y = Surv.from_arrays(table.status == 1, table.time)
    expected = other_brier(y, y, survival, grid)[1]
    assert brier_score(table.time, table.status, 1 - survival, grid).score == pytest.approx(
        expected, abs=1e-12
    )
    whole = integrated_brier(table.time, table.status, 1 - survival, grid)
    assert whole.value == pytest.approx(integrated_brier_score(y, y, survival, grid), abs=1e-12)
    assert whole.scaled == pytest.approx(1 - whole.value / whole.null)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_decision_curves_are_those_of_dcurves() -> None:
    from dcurves import dca

    table = lung("age", "sex")
    model = fit_cox(table.time, table.status, table[["age", "sex"]])
    risk = 1 - model.survival(table[["age", "sex"]], [365])[:, 0]
    thresholds = np.array([0.4, 0.5, 0.55, 0.6, 0.65, 0.7])
    frame = pd.DataFrame({"time": table.time, "status": table.status, "model": risk})
    other = dca(frame, "status", ["model"], thresholds=thresholds, time=365, time_to_outcome_col="time")
    expected = other[other.model == "model"].sort_values("threshold").net_benefit.to_numpy()
    found = decision_curve(table.time, table.status, {"model": risk}, 365, thresholds, n_boot=0)
    assert found.curves["model"].net_benefit == pytest.approx(expected, abs=1e-9)


def test_a_competing_event_as_code_2_or_as_censoring_are_two_questions() -> None:
    table = simulated(400, 23, competing=True)
    risk = {"x": table.x}
    specific = concordance(table.time, table.state == 1, risk, n_boot=20)
    both = time_dependent_auc(table.time, table.state, table.x, [3.0])[0]
    censored = time_dependent_auc(table.time, table.state == 1, table.x, [3.0])[0]
    assert specific.values["x"].value > 0.6
    assert both.controls > censored.controls
    assert both.auc != censored.auc


@pytest.mark.slow
def test_auc_and_brier_with_competing_events_are_those_of_comprisk() -> None:
    from comprisk import score_cr

    table = simulated(300, 24, competing=True)
    predicted = 1 / (1 + np.exp(-table.x.to_numpy()))
    result = score_cr(
        {"m": predicted[:, None]}, table.time.to_numpy(), table.state.to_numpy(), np.array([2.0]), n_jobs=1
    )
    auc = time_dependent_auc(table.time, table.state, predicted, [2.0])[0].auc
    brier = brier_score(table.time, table.state, predicted, [2.0]).score[0]
    assert auc == pytest.approx(float(result.auc.AUC.iloc[0]), abs=1e-10)
    assert brier == pytest.approx(float(result.brier.Brier.iloc[0]), abs=1e-10)


@pytest.mark.parametrize("ties", [False, True])
def test_a_row_that_counts_twice_is_two_rows(ties: bool) -> None:
    random = np.random.default_rng(3)
    n, x = 120, random.normal(size=(120, 3))
    time = random.exponential(size=n)
    time = np.ceil(time * 5) if ties else time
    event = (random.random(n) < 0.6).astype(int)
    rows = random.integers(0, n, n)
    weighted = Resampling(time, event).sets(np.bincount(rows, minlength=n))
    repeated = risk_sets(time[rows], event[rows])
    beta = np.array([0.3, -0.5, 0.1])
    found = derivatives(x[weighted.order], weighted, beta)
    wanted = derivatives(x[rows][repeated.order], repeated, beta)
    assert found.value == pytest.approx(wanted.value, rel=1e-12)
    np.testing.assert_allclose(found.score, wanted.score, atol=1e-9)
    np.testing.assert_allclose(found.information, wanted.information, atol=1e-9)
