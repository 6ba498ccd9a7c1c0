"""Resampling, validation, imputation, pooling, reclassification and calibration keep their promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aiene.stats.bootstrap import bootstrap, resample_counts, resample_indices
from aiene.stats.calibration import calibration
from aiene.stats.centre_models import random_effects
from aiene.stats.clinical_utility import decision_curve, groome, reclassification
from aiene.stats.competing_risks import fine_gray
from aiene.stats.concordance import concordance, harrell_c, uno_c
from aiene.stats.count_covariate import count_columns, restricted_cubic_spline, spline_knots
from aiene.stats.cox import cox
from aiene.stats.cox_model import find_separation, fit_cox
from aiene.stats.imputation import draw_number, impute, rubin
from aiene.stats.internal_validation import cross_validate, optimism, permutation_control
from aiene.stats.records import NotEstimableError
from aiene.stats.survival_curves import kaplan_meier, rmst_difference
from aiene.stats.time_dependent_accuracy import time_dependent_aucs
from builders.survival_cohorts import as_json, lung, simulated

TABLE = simulated(250, 31)
TIME, EVENT, X, Z = (TABLE[name].to_numpy() for name in ("time", "state", "x", "z"))


def whole_analysis(seed: int) -> str:
    """Every seeded analysis, as JSON text."""
    scores = {"z": Z, "x": X}
    chance = 1 / (1 + np.exp(-X))
    old, new = np.where(Z > 0, "high", "low"), np.where(X > 0, "high", "low")

    def fit(patients: Any, rng: Any) -> Any:
        return fit_cox(TIME[patients], EVENT[patients], X[patients, None])

    def score(model: Any, patients: Any) -> Any:
        return [harrell_c(TIME[patients], EVENT[patients], model.risk(X[patients, None])).c]

    missing = TABLE.assign(x=TABLE.x.where(np.arange(250) % 5 > 0))[["x", "z"]]
    results = [
        concordance(TIME, EVENT, scores, compare=[("z", "x")], n_boot=30, seed=seed),
        concordance(TIME, EVENT, scores, compare=[("z", "x")], kind="uno", tau=3.0, n_boot=30, seed=seed),
        time_dependent_aucs(TIME, EVENT, scores, [1.0, 2.0], compare=[("z", "x")], n_boot=30, seed=seed),
        calibration(TIME, EVENT, chance, 2.0, n_boot=10, seed=seed),
        decision_curve(TIME, EVENT, {"x": chance}, 2.0, [0.2, 0.5], n_boot=30, seed=seed),
        reclassification(TIME, EVENT, old, new, levels=["low", "high"], horizon=2.0, n_boot=30, seed=seed),
        optimism(fit, score, 250, names=["c"], n_boot=10, seed=seed),
        cross_validate(fit, score, 250, names=["c"], folds=5, seed=seed),
        permutation_control(lambda marker: harrell_c(TIME, EVENT, marker).c, X, n_perm=20, seed=seed),
        [t.x.tolist() for t in impute(missing, ["x"], predictors=["z"], time=TIME, event=EVENT, m=2).tables],
    ]
    return json.dumps([as_json(result) for result in results], allow_nan=False)


@pytest.mark.slow
def test_each_run_gives_the_same_bits_and_another_seed_gives_others() -> None:
    assert whole_analysis(1) == whole_analysis(1)
    assert whole_analysis(1) != whole_analysis(2)


def test_counts_and_indices_are_the_same_resamples_whatever_the_number_asked_for() -> None:
    few = np.concatenate(list(resample_counts(50, 3, 7)), axis=1)
    many = np.concatenate(list(resample_counts(50, 150, 7)), axis=1)
    np.testing.assert_array_equal(few, many[:, :3])
    np.testing.assert_array_equal(many[:, 120], np.bincount(resample_indices(50, 120, 7), minlength=50))


@pytest.mark.slow
def test_bootstrap_of_a_mean_has_its_textbook_error() -> None:
    values = np.random.default_rng(2).normal(size=400)
    found = bootstrap(lambda i: [values[i].mean()], 400, names=["mean"], n_boot=800, seed=1)
    assert found.std_error["mean"] == pytest.approx(values.std() / 20, rel=0.08)
    interval = found.values["mean"]
    assert interval.lower < interval.value < interval.upper
    assert (found.n_failed, found.replicates.shape) == (0, (800, 1))


@pytest.mark.slow
def test_failed_resamples_are_counted_and_left_out() -> None:
    found = (
        bootstrap(
            lambda i: [harrell_c(TIME[:4][i], EVENT[:4][i] * 0 + (i == 0), X[:4][i]).c],
            4,
            names=["c"],
            n_boot=60,
            seed=1,
        )
        if TIME[0] < TIME[:4].max()
        else None
    )
    assert found is not None
    assert 0 < found.n_failed < 60


@pytest.mark.slow
def test_progress_is_told_to_the_end() -> None:
    told = []
    concordance(TIME, EVENT, {"x": X}, n_boot=250, on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (250, 250)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.slow
def test_a_strong_marker_beats_noise_and_noise_does_not_beat_noise() -> None:
    noise = np.random.default_rng(5).normal(size=250)
    found = concordance(
        TIME, EVENT, {"z": Z, "x": X, "noise": noise}, compare=[("z", "x"), ("z", "noise")], n_boot=400
    )
    assert found.differences["x - z"].lower > 0
    assert found.differences["x - z"].p < 0.01
    assert found.differences["noise - z"].lower < 0 < found.differences["noise - z"].upper


@pytest.mark.slow
def test_interval_of_c_covers_as_a_normal_one_would() -> None:
    found = concordance(TIME, EVENT, {"x": X}, n_boot=500).values["x"]
    assert 0.02 < found.upper - found.lower < 0.12
    assert found.value == harrell_c(TIME, EVENT, X).c
    uno = concordance(TIME, EVENT, {"x": X}, kind="uno", tau=3.0, n_boot=20).values["x"]
    assert uno.value == uno_c(TIME, EVENT, X, tau=3.0)


@pytest.mark.slow
def test_optimism_of_many_noise_covariates_is_seen_and_taken_away() -> None:
    noise = np.random.default_rng(9).normal(size=(120, 15))
    table = simulated(120, 32, effect=0.0)
    time, event = table.time.to_numpy(), table.state.to_numpy()

    def fit(patients: Any, rng: Any) -> Any:
        return fit_cox(time[patients], event[patients], noise[patients])

    def score(model: Any, patients: Any) -> Any:
        return [harrell_c(time[patients], event[patients], model.risk(noise[patients])).c]

    row = optimism(fit, score, 120, names=["c"], n_boot=60).rows[0]
    assert row.apparent > 0.6
    assert row.optimism > 0.05
    assert abs(row.corrected - 0.5) < 0.1
    held_out = cross_validate(fit, score, 120, names=["c"], folds=6, repeats=2, strata=event)
    assert abs(held_out.values["c"].value - 0.5) < 0.1
    assert held_out.n_failed == 0


def test_every_patient_is_left_out_once_in_each_repeat() -> None:
    seen = []
    cross_validate(
        lambda i, rng: set(i.tolist()),
        lambda train, i: [float(seen.append((train, set(i.tolist()))) is None)],  # type: ignore[func-returns-value]
        23,
        names=["n"],
        folds=5,
        repeats=2,
        strata=np.arange(23) % 2,
    )
    for repeat in (seen[:5], seen[5:]):
        assert sorted(p for _, part in repeat for p in part) == list(range(23))
        assert all(not (train & part) for train, part in repeat)


def test_permutation_control_tells_a_real_marker_from_a_shuffled_one() -> None:
    real = permutation_control(lambda m: harrell_c(TIME, EVENT, m).c, X, n_perm=60)
    assert real.side == "above"
    assert real.p < 0.05
    false = permutation_control(lambda m: harrell_c(TIME, EVENT, m).c, Z, n_perm=60)
    assert false.side == "inside"
    turned = permutation_control(lambda m: harrell_c(TIME, EVENT, -m).c, X, n_perm=60)
    assert turned.side == "below"


def test_shuffling_within_groups_keeps_each_groups_values() -> None:
    marker, group = np.arange(30.0), np.arange(30) % 3
    sums = permutation_control(lambda m: float(m[group == 1].sum()), marker, within=group, n_perm=10)
    assert (sums.null == sums.observed).all()


@pytest.mark.slow
def test_imputation_leaves_what_is_known_and_finds_the_planted_effect() -> None:
    table = simulated(600, 33)
    event = (table.state == 1).astype(int)
    rng = np.random.default_rng(4)
    full = pd.DataFrame(
        {
            "x": table.x,
            "w": table.x + rng.normal(size=600),
            "sex": np.where(rng.random(600) < 0.5, "male", "female"),
            "grade": pd.Series(rng.choice(["I", "II", "III"], 600), dtype="string"),
            "ecog": pd.Series(rng.integers(0, 3, 600), dtype="Int64"),
            "flag": pd.Series(rng.random(600) < 0.3, dtype="boolean"),
        }
    )
    holed = full.copy()
    for place, column in enumerate(["x", "sex", "grade", "ecog", "flag"]):
        holed.loc[np.arange(600) % 6 == place, column] = pd.NA if column != "x" else np.nan
    columns = ["x", "sex", "grade", "ecog", "flag"]
    found = impute(holed, columns, predictors=["w"], time=table.time, event=event, m=5)
    assert found.filled == dict.fromkeys(columns, 100)
    methods = {"x": "pmm", "sex": "logistic", "grade": "multinomial", "ecog": "pmm", "flag": "logistic"}
    assert found.methods == methods
    for filled in found.tables:
        assert not filled[columns].isna().any().any()
        for column in columns:
            assert filled[column].dtype == holed[column].dtype
            known = holed[column].notna()
            assert (filled[column][known] == holed[column][known]).all()
            assert set(filled[column].unique()) <= set(holed[column].dropna().unique())
    assert (found.tables[0].x != found.tables[1].x).any()
    assert holed.x.isna().sum() == 100
    pooled = rubin([cox(table.time, event, t[["x"]]) for t in found.tables])
    row = pooled.rows[0]
    assert abs(row.coef - 0.7) < 2.5 * row.std_error
    complete = cox(table.time, event, full[["x"]]).rows[0]
    assert row.std_error > complete.std_error
    assert 0 < row.fraction_missing < 0.6
    assert row.lower < np.exp(0.7) < row.upper


def test_a_patient_beyond_all_others_is_still_given_one_of_five_donors() -> None:
    x = np.linspace(0, 1, 40)
    known = np.stack([np.ones(40), x], axis=1)
    far = np.stack([np.ones(400), np.full(400, 3.0)], axis=1)
    drawn = draw_number(known, 10 * x, far, np.random.default_rng(1))
    values, counts = np.unique(drawn, return_counts=True)
    assert values == pytest.approx(10 * x[-5:])
    assert counts.min() > 50


def test_imputed_values_follow_what_predicts_them() -> None:
    table = simulated(500, 34)
    w = table.x + np.random.default_rng(1).normal(scale=0.2, size=500)
    missing = np.arange(500) % 4 == 0
    frame = pd.DataFrame({"x": table.x.where(~missing), "w": w})
    found = impute(frame, ["x"], predictors=["w"], time=table.time, event=table.state, m=3)
    for filled in found.tables:
        assert np.corrcoef(filled.x[missing], table.x[missing])[0, 1] > 0.9


def test_donors_that_are_predicted_alike_are_all_drawn() -> None:
    known = np.stack([np.ones(300), np.repeat([0.0, 1.0, 2.0], 100)], axis=1)
    values = np.arange(300.0)
    missing = np.stack([np.ones(4000), np.repeat([0.0, 2.0], 2000)], axis=1)
    drawn = draw_number(known, values, missing, np.random.default_rng(3))
    for group, own in enumerate((drawn[:2000], drawn[2000:])):
        seen, counts = np.unique(own, return_counts=True)
        assert seen.tolist() == [*range(200 * group, 200 * group + 100)]
        assert counts.max() < 50  # 20 each


def test_values_are_drawn_within_the_bounds_of_each_patient_and_death_predicts() -> None:
    random = np.random.default_rng(8)
    table = simulated(400, 36, competing=True)
    years = random.gamma(1.2, 18, 400)
    missing, heavy = random.random(400) < 0.4, years > 10
    low = np.where(heavy, np.nextafter(10.0, 11.0), 0.0)
    high = np.where(heavy, np.inf, 10.0)
    low[:50], high[:50] = -np.inf, np.inf
    frame = pd.DataFrame({"years": np.where(missing, np.nan, years), "z": table.z})
    for seed in range(3):
        found = impute(frame, ["years"], predictors=["z"], time=table.time, event=table.state,
                       bounds={"years": (low, high)}, m=4, seed=seed)  # fmt: skip
        for filled in found.tables:
            assert (((filled.years >= low) & (filled.years <= high)) | ~missing).all()
            assert (filled.years > 10)[50:].tolist() == heavy[50:].tolist()
    with pytest.raises(NotEstimableError, match="no known value lies between 500 and inf"):
        impute(frame, ["years"], time=table.time, event=table.state,
               bounds={"years": (np.full(400, 500.0), high + np.inf)}, m=2)  # fmt: skip
    # a value that goes with death alone is found only where death is among the predictors
    dead = (table.state == 2).to_numpy()
    tied = pd.DataFrame({"x": np.where(missing, np.nan, dead + 0.2 * random.normal(size=400))})
    told = impute(tied, ["x"], time=table.time, event=table.state, m=2).tables[0].x
    assert np.corrcoef(told[missing], dead[missing])[0, 1] > 0.85


def test_a_missing_category_may_predict_as_its_own_level_but_a_missing_number_may_not() -> None:
    table = simulated(60, 35)
    frame = pd.DataFrame(
        {"x": table.x.where(np.arange(60) % 5 > 0), "hpv": ["positive", None, "negative"] * 20}
    )
    found = impute(frame, ["x"], predictors=["hpv"], time=table.time, event=table.state, m=2)
    assert found.tables[0].hpv.isna().sum() == 20
    with pytest.raises(Exception, match="is missing in 12 patients"):
        impute(frame.assign(y=frame.x), ["x"], predictors=["y"], time=table.time, event=table.state, m=2)


def test_rubins_rules_and_random_effects_are_those_of_mice_and_metafor() -> None:
    stored = json.loads((Path(__file__).parent / "r_references" / "pooling.json").read_text())
    table = lung("age", "sex", "ph.karno")
    holes = np.arange(2, len(table), 4)
    fits = []
    for k in range(1, 6):
        filled = table.copy()
        filled.loc[holes, "ph.karno"] = 50 + 10 * ((np.arange(1, holes.size + 1) * k) % 6)
        fits.append(cox(filled.time, filled.status == 1, filled[["age", "sex", "ph.karno"]]))
    pooled = rubin(fits)
    assert pooled.events == stored["events"]
    columns = {"estimate": "coef", "std_error": "std_error", "df": "df", "p": "p", "fmi": "fraction_missing"}
    for theirs, ours in columns.items():
        found = [getattr(row, ours) for row in pooled.rows]
        np.testing.assert_allclose(found, stored[theirs], rtol=1e-6, err_msg=theirs)
    np.testing.assert_allclose(np.log([row.lower for row in pooled.rows]), stored["low"], rtol=1e-6)
    narrow = rubin(fits, confidence=0.8).rows[0]
    assert narrow.lower > pooled.rows[0].lower
    effects = random_effects([0.12, 0.35, 0.55, -0.08, 0.31], [0.10, 0.15, 0.22, 0.18, 0.09])
    found = [effects.value, effects.lower, effects.upper, effects.tau2, effects.i2, effects.q, effects.q_p]
    np.testing.assert_allclose(found, stored["random"], rtol=1e-6)
    alike = random_effects([1.0, 1.0], [0.1, 0.2])
    assert (alike.value, alike.tau2, alike.i2) == (1.0, 0.0, 0.0)


@pytest.mark.slow
def test_reclassification_rewards_the_true_grouping_and_its_table_adds_up() -> None:
    levels = ["low", "middle", "high"]
    new = np.select([X < -0.5, X < 0.5], levels[:2], levels[2])
    old = np.select([Z < -0.5, Z < 0.5], levels[:2], levels[2])
    found = reclassification(TIME, EVENT, old, new, levels=levels, horizon=2.0, n_boot=200)
    assert sum(cell.n for cell in found.cells) == 250
    assert len(found.cells) == 9
    assert found.nri.lower > 0
    assert found.nri.value == pytest.approx(found.event_part.value + found.non_event_part.value)
    back = reclassification(TIME, EVENT, new, old, levels=levels, horizon=2.0, n_boot=0)
    assert back.event_part.value == pytest.approx(-found.event_part.value)
    assert "cross table" in found.warnings[0]


def test_nri_without_censoring_is_the_plain_share_of_moves() -> None:
    time, event = np.minimum(TIME, 2.0), np.where(TIME < 2.0, 1, 0)
    old, new = np.where(Z > 0, "high", "low"), np.where(X > 0, "high", "low")
    found = reclassification(time, event, old, new, levels=["low", "high"], horizon=1.99, n_boot=0)
    up, down, dead = (old == "low") & (new == "high"), (old == "high") & (new == "low"), event == 1
    assert found.event_part.value == pytest.approx(up[dead].mean() - down[dead].mean())
    assert found.non_event_part.value == pytest.approx(down[~dead].mean() - up[~dead].mean())


def true_risk(horizon: float) -> np.ndarray:
    return 1 - np.exp(-0.3 * np.exp(0.7 * X) * horizon)


def test_true_risks_are_calibrated_and_distorted_ones_are_not() -> None:
    good = calibration(TIME, EVENT, true_risk(2.0), 2.0, n_boot=40)
    assert good.slope.lower < 1 < good.slope.upper
    assert good.observed_expected.lower < 1 < good.observed_expected.upper
    assert good.in_the_large.lower < 0 < good.in_the_large.upper
    assert good.ici < 0.06
    assert good.ici_interval.lower <= good.ici_interval.upper  # type: ignore[union-attr]
    assert sum(row.n for row in good.rows) == 250
    low = calibration(TIME, EVENT, true_risk(2.0) / 2, 2.0)
    assert low.observed_expected.lower > 1
    assert low.in_the_large.lower > 0
    assert low.ici > good.ici
    extreme = calibration(TIME, EVENT, 1 - np.exp(-0.3 * np.exp(2.1 * X) * 2), 2.0)
    assert extreme.slope.upper < 1


def test_calibration_with_competing_events_uses_incidence() -> None:
    table = simulated(500, 36, competing=True)
    fit = fine_gray(table.time, table.state, table[["x"]])
    risk = fit.predict(table[["x"]], [2.0])[:, 0]
    found = calibration(table.time, table.state, risk, 2.0)
    assert found.slope.value == pytest.approx(1, abs=1e-3)
    assert found.observed_expected.lower < 1 < found.observed_expected.upper
    naive = 1 - kaplan_meier(table.time, table.state == 1).at([2.0])[0].value
    assert found.observed < naive


def test_one_prediction_for_all_has_no_slope_but_a_level() -> None:
    found = calibration(TIME, EVENT, np.full(250, 0.4), 2.0)
    assert np.isnan(found.slope.value)
    assert len(found.rows) == 1
    assert found.warnings == ("all patients have the same prediction: no slope",)


def test_risk_of_groups_calibrates_in_as_many_groups_as_there_are() -> None:
    found = calibration(TIME, EVENT, np.where(X > 0, 0.6, 0.3), 2.0)
    assert [row.n for row in found.rows] == [int((X <= 0).sum()), int((X > 0).sum())]


def test_a_spline_is_straight_beyond_its_knots_and_smooth_between() -> None:
    x = np.linspace(-1, 11, 2401)
    knots = np.array([2.0, 5.0, 8.0])
    basis = restricted_cubic_spline(x, knots)
    assert basis.shape == (2401, 2)
    second = np.diff(basis[:, 1], 2)
    assert np.abs(second[(x[1:-1] < 1.99) | (x[1:-1] > 8.01)]).max() < 1e-10
    assert np.abs(np.diff(second)).max() < 1e-6
    counts = np.repeat([0, 1, 2, 3, 4, 5], [80, 8, 5, 4, 2, 1])
    assert (np.diff(spline_knots(counts)) > 0).all()


def test_a_count_in_each_form() -> None:
    count = [0, 1, 2, 3, 5, 9]
    assert count_columns(count).iloc[:, 0].tolist() == [0, 1, 2, 3, 5, 9]
    assert count_columns(count, form="capped").iloc[:, 0].tolist() == [0, 1, 2, 3, 3, 3]
    assert count_columns(count, form="log1p").iloc[1, 0] == pytest.approx(np.log(2))
    classes = count_columns(count, form="categorical", cutoffs=(1, 2, 4))
    assert classes.columns.tolist() == ["n_ai_ene 1", "n_ai_ene 2-3", "n_ai_ene >= 4"]
    assert classes.sum().tolist() == [1, 2, 2]
    assert count_columns(count, form="spline").shape == (6, 2)


@pytest.mark.slow
def test_restricted_means_of_the_sexes_in_lung_differ_as_their_curves_do() -> None:
    table = lung("sex")
    found = rmst_difference(table.time, table.status, table.sex, 365.0)
    grid = np.linspace(0, 365, 36501)
    for group, restricted in ((1, found.first), (2, found.second)):
        of = table[table.sex == group]
        curve = kaplan_meier(of.time, of.status).at(grid[:-1].tolist())
        area = sum(at.value for at in curve) * (grid[1] - grid[0])
        assert restricted.value == pytest.approx(area, abs=0.1)
    assert found.difference.lower > 0
    assert found.p < 0.01


def test_a_telling_grouping_explains_more_than_a_random_one() -> None:
    true = np.select([X < -0.5, X < 0.5], ["a", "b"], "c")
    random = np.array(["a", "b", "c"])[np.arange(250) % 3]
    good = groome(TIME, EVENT, true, order=["a", "b", "c"], horizon=2.0, subgroups=random)
    bad = groome(TIME, EVENT, random, order=["a", "b", "c"], horizon=2.0)
    assert good.explained > bad.explained
    assert good.discrimination < bad.discrimination
    assert good.consistency > 0


def test_rows_in_another_order_change_nothing() -> None:
    mixed = np.random.default_rng(8).permutation(250)
    one, other = (cox(TIME[i], EVENT[i], TABLE[["x", "z"]].iloc[i]) for i in (np.arange(250), mixed))
    assert one.coef == pytest.approx(other.coef, abs=1e-10)
    assert one.concordance == other.concordance
    assert find_separation(TIME[mixed], EVENT[mixed], TABLE[["x", "z"]].iloc[mixed]) == ()
