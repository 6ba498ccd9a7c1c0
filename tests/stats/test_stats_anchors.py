"""The 26 check numbers of the project's anchors: printed results of R, of other programs, and identities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aiene.stats.calibration import calibration
from aiene.stats.clinical_utility import decision_curve, reclassification
from aiene.stats.competing_risks import cumulative_incidence, fine_gray
from aiene.stats.concordance import harrell_c, uno_c
from aiene.stats.cox import cox
from aiene.stats.cox_model import fit_cox, linear_predictor
from aiene.stats.internal_validation import optimism
from aiene.stats.proportional_hazards import proportional_hazards
from aiene.stats.survival_curves import kaplan_meier
from aiene.stats.tests import gray_test, log_rank
from aiene.stats.time_dependent_accuracy import time_dependent_auc
from builders.survival_cohorts import (
    bmtcrr,
    by_group,
    first,
    lung,
    rossi,
    rossi_columns,
    simulated,
    sksurv_data,
)

LUNG_MODEL = ["age", "sex", "ph.ecog"]


def lung_risk() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = lung(*LUNG_MODEL)
    time, event = table.time.to_numpy(), table.status.to_numpy()
    return time, event, fit_cox(time, event, table[LUNG_MODEL]).risk(table[LUNG_MODEL])


def test_row_1_log_rank_of_sex_in_lung_is_that_of_r() -> None:
    table = lung("sex")
    test = log_rank(table.time, table.status, table.sex)
    assert test.statistic == pytest.approx(10.3267, abs=1e-4)
    assert test.p == pytest.approx(0.00131116, abs=1e-4)
    assert [row.expected for row in test.rows] == pytest.approx([91.5817, 73.4183], abs=1e-4)
    assert [(row.n, row.observed) for row in test.rows] == [(138, 112), (90, 53)]


def test_rows_2_and_3_medians_and_one_year_survival_in_lung() -> None:
    table = lung("sex")
    curves = [kaplan_meier(table.time, table.status)]
    curves += by_group(kaplan_meier, table.time, table.status, table.sex).values()
    assert [curve.median.value for curve in curves] == [310, 270, 426]
    at_year = [curve.at([365.25])[0].value for curve in curves]
    assert at_year == pytest.approx([0.40924, 0.33609, 0.52646], abs=1e-5)


def test_row_4_cox_of_sex_in_lung() -> None:
    table = lung("sex")
    fit = cox(table.time, table.status, table[["sex"]])
    row = fit.rows[0]
    assert (row.coef, row.std_error) == pytest.approx((-0.53102, 0.16718), abs=1e-5)
    assert row.hr == pytest.approx(0.588, abs=1e-3)
    assert row.p == pytest.approx(0.00149, abs=1e-5)
    assert fit.concordance == pytest.approx(0.5786, abs=1e-4)


def test_row_5_cox_of_three_covariates_in_lung() -> None:
    table = lung(*LUNG_MODEL)
    fit = cox(table.time, table.status, table[LUNG_MODEL])
    assert fit.n == 227
    assert fit.coef == pytest.approx([0.011067, -0.552610, 0.463728], abs=1e-5)
    assert fit.concordance == pytest.approx(0.63714, abs=1e-5)


def test_row_6_cox_of_seven_covariates_in_rossi() -> None:
    table = rossi()
    fit = cox(table.week, table.arrest, table[rossi_columns()])
    expected = [-0.37942, -0.05744, 0.31390, -0.14980, -0.43370, -0.08487, 0.09150]
    assert fit.coef == pytest.approx(expected, abs=1e-5)
    assert fit.lrt == pytest.approx(33.266, abs=1e-3)
    assert fit.log_likelihood == pytest.approx(-658.748, abs=1e-3)
    assert fit.concordance == pytest.approx(0.6403, abs=1e-4)


def test_row_7_schoenfeld_test_in_rossi() -> None:
    table = rossi()
    test = proportional_hazards(
        table.week, table.arrest, table[rossi_columns()], transform="rank", method="approximate"
    )
    found = {row.name: row.statistic for row in test.rows}
    expected = {"age": 11.4535, "wexp": 7.3149, "fin": 0.0151}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-3)


def test_row_8_log_rank_of_four_cell_types_in_veterans() -> None:
    X, time, event = sksurv_data("veterans_lung_cancer")
    test = log_rank(time, event, X.Celltype.astype(str))
    assert test.statistic == pytest.approx(25.4037003458, abs=1e-6)
    assert (test.df, test.p) == (3, pytest.approx(1.2712e-05, rel=1e-4))


def test_row_9_log_rank_of_race_in_rossi() -> None:
    table = rossi()
    assert log_rank(table.week, table.arrest, table.race).statistic == pytest.approx(0.576101713684, abs=1e-6)


def test_rows_10_and_11_c_and_auc_are_those_of_r_on_whas500() -> None:
    """The file that the anchors name is not installed: the same cohort with an own score, by R (reference/).

    scikit-survival, which the anchors quote, takes the censoring curve at the event's time, R just before it.
    """
    X, time, event = sksurv_data("whas500")
    design = X[["age", "hr", "sysbp", "bmi", "los"]].astype(float)
    risk = fit_cox(time, event, design).risk(design)
    assert harrell_c(time, event, risk).c == pytest.approx(0.754061930298474, abs=1e-9)
    expected = {None: 0.7902686318248, 399.5: 0.75296826430601, 1499.5: 0.750739693101086}
    for tau, value in expected.items():
        assert uno_c(time, event, risk, tau=tau) == pytest.approx(value, abs=1e-9)
    horizons = [7, 31, 90, 180, 365, 1000, 2000]
    found = [auc.auc for auc in time_dependent_auc(time, event, risk, horizons)]
    by_r = [
        0.754670537742994, 0.761936339522546, 0.765281593406593, 0.777902097902098, 0.791916886860437,
        0.815395581011947, 0.802339449533056,
    ]  # fmt: skip
    assert found == pytest.approx(by_r, abs=1e-9)


def test_row_12_uno_c_and_auc_of_the_lung_model() -> None:
    """By R (reference/); scikit-survival has 0.62638, 0.63332, 0.69808 and 0.64752, since times tie."""
    time, event, risk = lung_risk()
    assert uno_c(time, event, risk) == pytest.approx(0.62614829521427, abs=1e-9)
    assert uno_c(time, event, risk, tau=365.25) == pytest.approx(0.633096748424652, abs=1e-9)
    aucs = [auc.auc for auc in time_dependent_auc(time, event, risk, [180, 365])]
    assert aucs == pytest.approx([0.698024965769445, 0.647397660015363], abs=1e-9)


@pytest.mark.slow
def test_row_13_gray_test_is_that_of_r(shared: Path) -> None:
    table = bmtcrr(shared)
    for cause, statistic, p in ((1, 2.8623325, 0.09067592), (2, 0.4481279, 0.50322531)):
        test = gray_test(table.ftime, first(table.Status, cause), table.D)
        assert (test.statistic, test.p) == pytest.approx((statistic, p), abs=1e-6)


def test_row_14_cumulative_incidence_is_that_of_r(shared: Path) -> None:
    table = bmtcrr(shared)
    expected = {
        ("ALL", 1): {20: 0.3713851, 40: 0.3875571, 60: 0.3875571},
        ("AML", 1): {20: 0.2414530, 40: 0.2663827, 60: 0.2810390},
        ("ALL", 2): {20: 0.3698630, 40: 0.3860350},
        ("AML", 2): {20: 0.4439103, 40: 0.4551473},
    }
    for (group, cause), values in expected.items():
        curves = by_group(cumulative_incidence, table.ftime, first(table.Status, cause), table.D)
        curve = curves[group]
        found = [estimate.value for estimate in curve.at(list(values))]
        assert found == pytest.approx(list(values.values()), abs=1e-6)


def test_row_15_fine_gray_is_that_of_r(shared: Path) -> None:
    table = bmtcrr(shared)
    fit = fine_gray(table.ftime, table.Status, table[["Sex_", "D_", "Phase_", "Age", "Source_"]])
    assert fit.coef == pytest.approx([0.0494, -0.4860, 0.4144, -0.0174, 0.9526], abs=1e-4)
    assert fit.coef == pytest.approx([0.04940, -0.48598, 0.41443, -0.01736, 0.95258], abs=1e-5)
    errors = [row.std_error for row in fit.rows]
    assert errors == pytest.approx([0.2867, 0.3040, 0.1194, 0.0118, 0.5469], abs=2e-4)
    phase = fit.rows[2]
    assert (phase.hr, phase.lower, phase.upper) == pytest.approx((1.514, 1.198, 1.91), abs=3e-3)
    assert phase.p == pytest.approx(0.00052, abs=1e-5)
    assert fit.log_likelihood == pytest.approx(-267, abs=0.5)
    assert (fit.lrt, fit.lrt_df) == (pytest.approx(23.6, abs=0.05), 5)


def test_row_16_cumulative_incidence_of_35_transplants() -> None:
    _, time, state = sksurv_data("bmt")
    expected = {1: [0.204926, 0.237712, 0.272839, 0.272839], 2: [0.175792, 0.340760, 0.411015, 0.481270]}
    for cause, values in expected.items():
        found = [e.value for e in cumulative_incidence(time, first(state, cause)).at([5, 10, 20, 40])]
        assert found == pytest.approx(values, abs=1e-6)


def test_row_17_gray_and_fine_gray_of_35_transplants() -> None:
    X, time, state = sksurv_data("bmt")
    disease = X.dis.astype(str)
    dummy = pd.DataFrame({"dis": (disease == disease.max()).astype(float)})
    expected = {1: (1.301635, 0.253915, 0.76517, 0.69812), 2: (7.082278, 0.007785, -1.60447, 0.64085)}
    for cause, (statistic, p, coef, error) in expected.items():
        test = gray_test(time, first(state, cause), disease)
        assert (test.statistic, test.p) == pytest.approx((statistic, p), abs=1e-5)
        row = fine_gray(time, first(state, cause), dummy).rows[0]
        assert (row.coef, row.std_error) == pytest.approx((coef, error), abs=1e-5)


def breslow(time: np.ndarray, event: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Cox with Breslow's ties, by statsmodels."""
    from statsmodels.duration.hazard_regression import PHReg

    return PHReg(time, X, event, ties="breslow").fit(disp=0).params


def test_row_18_fine_gray_without_competing_events_is_cox() -> None:
    table = lung("sex", "age")
    fit = fine_gray(table.time, table.status, table[["sex", "age"]])
    assert fit.coef == pytest.approx([-0.51256479, 0.01701289], abs=1e-7)
    other = breslow(table.time.to_numpy(), table.status.to_numpy(), table[["sex", "age"]].to_numpy())
    assert fit.coef == pytest.approx(other, abs=1e-7)


def test_row_19_fine_gray_without_censoring_is_cox_with_competing_times_at_infinity() -> None:
    table = lung("sex", "age")
    state = np.where(table.status == 1, 1, 2)
    fit = fine_gray(table.time, state, table[["sex", "age"]])
    assert fit.coef == pytest.approx([-0.63407008, 0.01831176], abs=1e-7)
    never = np.where(state == 2, 1e6, table.time)
    other = breslow(never, (state == 1).astype(int), table[["sex", "age"]].to_numpy())
    assert fit.coef == pytest.approx(other, abs=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_row_20_incidences_sum_to_one_less_survival_from_any_event(seed: Any) -> None:
    table = simulated(150, seed, competing=True).round({"time": 1})
    horizons = np.linspace(0, 7, 40).tolist()
    both = [cumulative_incidence(table.time, first(table.state, cause)).at(horizons) for cause in (1, 2)]
    any_event = kaplan_meier(table.time, table.state > 0).at(horizons)
    for one, other, survival in zip(*both, any_event, strict=True):
        assert one.value + other.value == pytest.approx(1 - survival.value, abs=1e-12)


def test_row_21_uno_is_harrell_without_censoring() -> None:
    time, _, risk = lung_risk()
    everyone = np.ones_like(time)
    assert harrell_c(time, everyone, risk).c == pytest.approx(0.5890772054, abs=1e-10)
    assert uno_c(time, everyone, risk) == pytest.approx(harrell_c(time, everyone, risk).c, abs=1e-12)


def test_row_22_c_of_a_constant_and_of_a_reversed_score() -> None:
    time, event, risk = lung_risk()
    assert harrell_c(time, event, np.zeros_like(time)).c == pytest.approx(0.5, abs=1e-12)
    assert uno_c(time, event, np.zeros_like(time)) == pytest.approx(0.5, abs=1e-12)
    assert harrell_c(time, event, -risk).c == pytest.approx(1 - harrell_c(time, event, risk).c, abs=1e-12)
    assert uno_c(time, event, -risk) == pytest.approx(1 - uno_c(time, event, risk), abs=1e-12)


def test_row_23_decision_curve_of_treating_all_and_none() -> None:
    table = simulated(300, 5)
    event = (table.state == 1).astype(int)
    thresholds = np.array([0.05, 0.2, 0.5, 0.8])
    chances = {"all": np.ones(300), "none": np.zeros(300)}
    curve = decision_curve(table.time, event, chances, 2.0, thresholds, n_boot=0)
    prevalence = 1 - kaplan_meier(table.time, event).at([2.0])[0].value
    expected = prevalence - (1 - prevalence) * thresholds / (1 - thresholds)
    np.testing.assert_allclose(curve.treat_all, expected, atol=1e-12)
    np.testing.assert_allclose(curve.curves["all"].net_benefit, expected, atol=1e-12)
    np.testing.assert_allclose(curve.curves["none"].net_benefit, 0, atol=1e-12)


def test_row_24_calibration_slope_on_own_training_data_is_one() -> None:
    table = lung(*LUNG_MODEL)
    model = fit_cox(table.time, table.status, table[LUNG_MODEL])
    risk = 1 - model.survival(table[LUNG_MODEL], [365.25])[:, 0]
    assert calibration(table.time, table.status, risk, 365.25).slope.value == pytest.approx(1, abs=1e-6)


@pytest.mark.slow
def test_row_25_optimism_of_a_noise_marker_with_a_searched_cut_is_corrected() -> None:
    table = simulated(200, 11)
    time, event, x = (table[name].to_numpy() for name in ("time", "state", "x"))
    marker = np.random.default_rng(12).normal(size=200)
    cuts = np.quantile(marker, np.linspace(0.1, 0.9, 17))

    def gain(patients: Any, cut: Any) -> Any:
        base = fit_cox(time[patients], event[patients], x[patients, None])
        both = np.stack([x, marker > cut], axis=1)
        return base, fit_cox(time[patients], event[patients], both[patients]), cut

    def search(patients: Any, _: Any) -> Any:
        return max((gain(patients, cut) for cut in cuts), key=lambda found: found[1].log_likelihood)

    def delta(found: Any, patients: Any) -> Any:
        base, larger, cut = found
        both = np.stack([x, marker > cut], axis=1)[patients]
        old = harrell_c(time[patients], event[patients], base.risk(x[patients, None])).c
        return [harrell_c(time[patients], event[patients], larger.risk(both)).c - old]

    row = optimism(search, delta, 200, names=["delta"], n_boot=60, seed=3).rows[0]
    assert row.apparent > 0
    spread = row.std_error * 60**0.5
    assert abs(row.corrected) < 2 * spread


def test_row_26_identical_models_reclassify_nobody() -> None:
    table = simulated(200, 6)
    groups = np.where(table.x > 0, "high", "low")
    event = (table.state == 1).astype(int)
    result = reclassification(table.time, event, groups, groups, levels=["low", "high"], horizon=2, n_boot=20)
    assert (result.event_part, result.non_event_part, result.nri) == ((0, 0, 0),) * 3
    assert (result.up, result.down) == (0, 0)


def test_equal_patients_have_equal_risk_to_the_last_bit() -> None:
    rows = np.random.default_rng(0).normal(size=(1, 3)).repeat(257, axis=0)
    assert np.unique(linear_predictor(rows, np.array([0.011067, -0.55261, 0.463728]))).size == 1
