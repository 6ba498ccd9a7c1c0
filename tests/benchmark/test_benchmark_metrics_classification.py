"""Classification, calibration and patients, against scikit-learn, statsmodels and hand counts."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiene.benchmark.metrics.classification import (
    calibration,
    classification,
    operating_point,
    patient_agreement,
    roc_curve,
)
from aiene.errors import UsageError
from aiene.stats.roc import wilson

Floats = npt.NDArray[np.float64]


def _sample(seed: int, n: int = 120, *, ties: bool = False) -> tuple[Floats, Floats, list[str]]:
    """Labels, probabilities that are somewhat too extreme, and patients with one to many nodes."""
    random = np.random.default_rng(seed)
    patients = [f"P{k}" for k in random.integers(0, n // 3, n)]
    score = random.normal(size=n)
    labels = (random.random(n) < 1 / (1 + np.exp(-score))).astype(float)
    probabilities = 1 / (1 + np.exp(-(1.6 * score - 0.4)))
    return labels, np.round(probabilities, 1) if ties else probabilities, patients


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [False, True])
def test_areas_and_errors_are_scikit_learns(seed: int, ties: bool) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    labels, probabilities, _ = _sample(seed, ties=ties)
    ours = classification(labels, probabilities, resamples=10)
    assert ours.auc.value == pytest.approx(metrics.roc_auc_score(labels, probabilities), abs=1e-12)
    assert ours.auc_clustered.value == pytest.approx(ours.auc.value, abs=1e-12)
    theirs = metrics.average_precision_score(labels, probabilities)
    assert ours.average_precision.value == pytest.approx(theirs, abs=1e-12)
    assert ours.brier.value == pytest.approx(metrics.brier_score_loss(labels, probabilities), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_the_roc_curve_is_scikit_learns(ties: bool) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    labels, probabilities, _ = _sample(1, ties=ties)
    ours = roc_curve(labels, probabilities)
    false, true, thresholds = metrics.roc_curve(labels, probabilities, drop_intermediate=False)
    assert ours is not None
    assert ours.false_positive == pytest.approx(false)
    assert ours.true_positive == pytest.approx(true)
    assert ours.thresholds == pytest.approx(thresholds[1:])


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.72])
def test_the_operating_point_is_counted_as_by_hand(threshold: float) -> None:
    labels, probabilities, _ = _sample(2)
    ours = operating_point(labels, probabilities, threshold)
    called = [p > threshold for p in probabilities]
    tp = sum(c and y == 1 for c, y in zip(called, labels, strict=True))
    fp = sum(c and y == 0 for c, y in zip(called, labels, strict=True))
    assert (ours.tp, ours.fp) == (tp, fp)
    assert (ours.tn, ours.fn) == ((labels == 0).sum() - fp, (labels == 1).sum() - tp)
    assert ours.sensitivity.value == tp / (labels == 1).sum()
    assert ours.specificity.value == ours.tn / (labels == 0).sum()
    assert ours.ppv.value == tp / (tp + fp)
    assert ours.npv.value == ours.tn / (ours.tn + ours.fn)


def test_a_probability_at_the_threshold_itself_is_not_positive() -> None:
    found = operating_point([1, 0], [0.3, 0.3], 0.3)
    assert (found.tp, found.fp) == (0, 0)
    assert found.ppv.reason == "nothing is called positive"


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (1, 3), (17, 40), (250, 1000)])
def test_wilsons_interval_is_that_of_statsmodels(successes: int, n: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        proportion = pytest.importorskip("statsmodels.stats.proportion")
    low, high = proportion.proportion_confint(successes, n, method="wilson")
    found = wilson(successes, n)
    assert (found.value, found.n) == (successes / n, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)


def test_a_share_of_nothing_is_a_reason_and_an_impossible_one_an_error() -> None:
    assert wilson(0, 0).value is None
    assert wilson(0, 0).reason
    for successes, n in ((3, 2), (-1, 2)):
        with pytest.raises(UsageError):
            wilson(successes, n)


@pytest.mark.slow
@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_recalibration_is_the_logistic_regression_of_statsmodels(seed: int, clustered: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sm = pytest.importorskip("statsmodels.api")
    labels, probabilities, patients = _sample(seed)
    logits = np.log(probabilities / (1 - probabilities))
    groups = np.unique(patients, return_inverse=True)[1]
    how: dict[str, Any] = {}
    if clustered:  # their further factor (n - 1) / (n - k) is taken off
        how = {"cov_type": "cluster", "cov_kwds": {"groups": groups, "use_correction": False}}
    count = len(set(patients))
    widen = math.sqrt(count / (count - 1)) if clustered else 1.0
    both = sm.GLM(labels, sm.add_constant(logits), family=sm.families.Binomial()).fit(**how)
    large = sm.GLM(labels, np.ones_like(labels), family=sm.families.Binomial(), offset=logits).fit(**how)
    ours = calibration(labels, probabilities, patients if clustered else None)
    expected = (
        (ours.slope, both.params[1], both.bse[1]),
        (ours.recalibration_intercept, both.params[0], both.bse[0]),
        (ours.intercept, large.params[0], large.bse[0]),
    )
    for estimate, value, error in expected:
        assert estimate.value == pytest.approx(value, abs=1e-6)
        reach = 1.959964 * error * widen
        assert (estimate.low, estimate.high) == pytest.approx((value - reach, value + reach), abs=1e-5)


def test_probabilities_twice_too_extreme_have_a_slope_of_a_half() -> None:
    """Ten grades of risk in which exactly that share of nodes is positive."""
    labels, probabilities = [], []
    for tenth in range(1, 10):
        labels += [1] * tenth + [0] * (10 - tenth)
        probabilities += [1 / (1 + ((10 - tenth) / tenth) ** 2)] * 10
    ours = calibration(labels, probabilities)
    assert ours.slope.value == pytest.approx(0.5)
    assert ours.recalibration_intercept.value == pytest.approx(0.0, abs=1e-9)
    assert ours.intercept.value == pytest.approx(0.0, abs=1e-9)


def test_the_reliability_table_and_its_error_are_those_counted_by_hand() -> None:
    ours = calibration([0, 0, 1, 1], [0.0, 0.1, 0.15, 0.9], bins=10)
    first, second, last = ours.table[0], ours.table[1], ours.table[8]
    assert (first.n, first.predicted, first.observed) == (2, 0.05, 0.0)  # 0 and the upper limit belong here
    assert (second.n, second.predicted, second.observed) == (1, 0.15, 1.0)
    assert (last.n, last.predicted, last.observed) == (1, 0.9, 1.0)
    assert (ours.table[5].n, ours.table[5].predicted, ours.table[5].observed) == (0, None, None)
    assert ours.expected_error == pytest.approx((2 * 0.05 + 0.85 + 0.1) / 4)
    assert sum(row.n for row in ours.table) == 4


def test_probabilities_of_exactly_0_and_1_are_no_obstacle() -> None:
    ours = calibration([0, 1, 0, 1, 1, 0], [0.0, 1.0, 1.0, 0.0, 0.8, 0.3])
    assert ours.slope.value is not None
    assert math.isfinite(ours.slope.value)


@pytest.mark.parametrize(
    ("labels", "probabilities", "said"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.7, 0.9], "part the classes completely"),
        ([1, 1, 0, 0], [0.1, 0.2, 0.7, 0.9], "part the classes completely"),
        ([0, 0, 1, 1], [0.1, 0.5, 0.5, 0.9], "part the classes completely"),
        ([0, 1, 0, 1], [0.4, 0.4, 0.4, 0.4], "all probabilities are the same"),
        ([1, 1, 1], [0.2, 0.5, 0.9], "only one class"),
        ([0], [0.2], "only one class"),
        ([], [], "no nodes"),
        ([0, 1], [0.2, math.nan], "1 of 2 scores"),
        ([0, 1], [0.2, 1.2], "not between 0 and 1"),
    ],
)
def test_where_there_is_no_slope_there_is_a_reason(
    labels: Sequence[int], probabilities: Sequence[float], said: str
) -> None:
    ours = calibration(labels, probabilities)
    assert ours.slope.value is None
    assert said in ours.reason
    assert said in ours.slope.reason
    json.dumps(asdict(ours), allow_nan=False)


def test_calibration_in_the_large_is_there_where_only_the_slope_is_not() -> None:
    ours = calibration([0, 1, 0, 1], [0.4] * 4)
    assert ours.intercept.value == pytest.approx(math.log(1) - math.log(0.4 / 0.6))


BROKEN = [
    ([0, 1, 1], [0.1, math.nan, 0.4], "1 of 3 scores are missing"),
    ([0, 1, 1], [0.1, None, math.inf], "2 of 3 scores are missing"),
    ([0, 1, 1], [0.1, 0.3, 40.0], "1 of 3 scores are not between 0 and 1"),
    ([0, math.nan, 1], [0.1, 0.2, 0.3], "1 of 3 nodes have no label"),
    ([0, 2, 1], [0.1, 0.2, 0.3], "labels other than 0 and 1"),
    ([], [], "no nodes"),
]


@pytest.mark.parametrize(("labels", "probabilities", "said"), BROKEN)
def test_broken_probabilities_or_labels_give_one_reason_and_no_number(
    labels: Any, probabilities: Any, said: str
) -> None:
    found = classification(labels, probabilities, thresholds=(0.3, 0.5), patients=["A"] * len(labels))
    assert said in found.reason
    estimates = (
        found.auc,
        found.auc_clustered,
        found.average_precision,
        found.brier,
        found.calibration.slope,
    )
    assert [estimate.value for estimate in estimates] == [None] * 5
    assert all(said in estimate.reason for estimate in estimates)
    assert [point.sensitivity.value for point in found.operating] == [None, None]
    assert found.roc is None
    json.dumps(asdict(found), allow_nan=False)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_only_has_reasons_for_the_areas_and_numbers_for_the_rest(label: int) -> None:
    found = classification([label] * 5, [0.1, 0.2, 0.4, 0.6, 0.9])
    assert found.auc.reason == f"only {'positive' if label else 'negative'} nodes, so there is no ROC curve"
    assert found.auc_clustered.value is None
    assert (found.average_precision.value is None) is (label == 0)
    assert found.brier.value is not None
    share, other = found.operating[0].sensitivity, found.operating[0].specificity
    assert ((share if label else other).value, (other if label else share).value) == (
        0.6 if label else 0.4,
        None,
    )
    assert found.reason == ""
    json.dumps(asdict(found), allow_nan=False)


def test_one_node_and_one_patient_give_values_without_intervals() -> None:
    one = classification([1], [0.7])
    assert one.brier.value == pytest.approx(0.09)
    assert one.brier.low is None
    alone = classification([1, 0, 1], [0.7, 0.2, 0.1], patients=["A"] * 3)
    assert alone.auc.value == 0.5
    assert (alone.auc_clustered.low, alone.auc_clustered.reason) == (None, "one patient only, so no interval")
    assert "one patient only" in alone.calibration.reason


def test_a_perfect_classifier_has_an_area_of_1_and_no_feigned_interval() -> None:
    found = classification([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])
    assert (found.auc.value, found.auc.low) == (1.0, None)
    assert "variance" in found.auc.reason
    assert classification([0, 0, 1, 1], [0.9, 0.8, 0.2, 0.1]).auc.value == 0.0


def test_the_interval_over_patients_is_wider_where_patients_repeat_themselves() -> None:
    labels, probabilities, _ = _sample(3, 60)
    names = [f"P{k}" for k in range(60)]
    thrice = classification(np.tile(labels, 3), np.tile(probabilities, 3), patients=names * 3)
    once = classification(labels, probabilities, patients=names)
    assert thrice.auc_clustered == once.auc_clustered  # nothing new was learnt
    assert thrice.n_patients == once.n_patients == 60
    assert thrice.auc.low is not None
    assert once.auc.low is not None
    assert thrice.auc.low > once.auc.low  # DeLong takes them for new nodes


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(UsageError, match="one for each node"):
        classification([0, 1], [0.5])
    with pytest.raises(UsageError, match="one for each"):
        classification([0, 1], [0.5, 0.2], patients=["A"])
    with pytest.raises(UsageError, match="not numbers"):
        classification([0, 1], ["high", "low"])


def test_a_threshold_that_is_no_number_is_a_reason() -> None:
    assert operating_point([0, 1], [0.1, 0.9], math.nan).reason
    json.dumps(asdict(operating_point([0, 1], [0.1, 0.9], math.inf)), allow_nan=False)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 1, width=16)), min_size=1, max_size=25),
)
@pytest.mark.slow
def test_whatever_comes_in_no_nan_comes_out(rows: list[tuple[bool, float]]) -> None:
    labels, probabilities = zip(*rows, strict=True)
    found = classification(labels, probabilities, thresholds=(0.3, 0.5), resamples=20)
    json.dumps(asdict(found), allow_nan=False)
    for estimate in (found.auc, found.auc_clustered, found.average_precision, found.brier):
        assert (estimate.value is not None) or estimate.reason
        assert (estimate.low is not None) or estimate.reason


def test_patients_are_compared_as_counted_by_hand() -> None:
    truth, found = [0, 0, 1, 2, 4], [0, 1, 1, 0, 3]
    ours = patient_agreement(truth, found)
    assert (ours.any_ene.tp, ours.any_ene.fp, ours.any_ene.tn, ours.any_ene.fn) == (2, 1, 1, 1)
    assert ours.any_agreement.value == 3 / 5
    assert ours.count_exact.value == 2 / 5
    assert ours.count_within_one.value == 4 / 5
    assert ours.n == 5
    json.dumps(asdict(ours), allow_nan=False)


@pytest.mark.parametrize("seed", range(4))
def test_weighted_kappa_is_scikit_learns(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(seed)
    truth = random.poisson(1.5, 40)
    found = np.maximum(truth + random.integers(-1, 2, 40), 0)
    ours = patient_agreement(truth.tolist(), found.tolist(), resamples=50)
    values = list(range(int(max(truth.max(), found.max())) + 1))
    for estimate, weights in ((ours.kappa_linear, "linear"), (ours.kappa_quadratic, "quadratic")):
        theirs = metrics.cohen_kappa_score(truth, found, weights=weights, labels=values)
        assert estimate.value == pytest.approx(theirs, abs=1e-12)
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low <= theirs <= estimate.high


def test_counts_that_leave_gaps_are_weighed_by_their_size() -> None:
    """Counts 0 and 5 are five apart, also where nobody has 1 to 4."""
    ours = patient_agreement([0, 5, 5, 1], [0, 5, 0, 0])
    observed = (0 + 0 + 5 + 1) / 4
    expected = sum(abs(a - b) for a in (0, 5, 5, 1) for b in (0, 5, 0, 0)) / 16
    assert ours.kappa_linear.value == pytest.approx(1 - observed / expected)


@pytest.mark.parametrize(
    ("truth", "found", "said"),
    [
        ([], [], "no patients"),
        ([1, None], [1, 2], "1 of 2 patients have no count"),
        ([1, 0], [1, math.nan], "1 of 2 patients have no count"),
        ([1, -1], [1, 2], "not whole numbers"),
        ([1, 0.5], [1, 2], "not whole numbers"),
    ],
)
def test_counts_that_cannot_be_are_a_reason(truth: Any, found: Any, said: str) -> None:
    ours = patient_agreement(truth, found)
    assert said in ours.reason
    assert ours.any_ene.sensitivity.value is ours.kappa_linear.value is ours.count_within_one.value is None
    json.dumps(asdict(ours), allow_nan=False)


def test_where_all_counts_are_the_same_there_is_no_kappa_but_a_reason() -> None:
    ours = patient_agreement([1, 1, 1], [1, 1, 1])
    assert ours.kappa_linear.value is None
    assert "all counts are the same" in ours.kappa_linear.reason
    assert ours.count_exact.value == 1.0


def test_different_numbers_of_patients_are_refused() -> None:
    with pytest.raises(UsageError, match="one for each patient"):
        patient_agreement([1, 2], [1])
