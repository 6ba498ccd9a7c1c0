"""The bootstrap over patients and summaries, against plain loops and closed forms."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from aiene.errors import UsageError
from aiene.stats.bootstrap import (
    Statistic,
    cluster_bootstrap,
    drawn_weights,
    expanded_tail,
    mean,
    median,
    percentile,
    percentile_difference,
    ratio,
)
from aiene.stats.concordance import concordance
from aiene.stats.paired import summarise
from aiene.stats.roc import auc, average_precision

Floats = npt.NDArray[np.float64]
RANDOM = np.random.default_rng(11)
VALUES = np.round(RANDOM.normal(size=23), 1)
LABELS = (RANDOM.random(23) < 0.4).astype(float)


def _loop_auc(rows: list[int]) -> float:
    pairs = [
        (VALUES[i] > VALUES[j]) + 0.5 * (VALUES[i] == VALUES[j])
        for i in rows
        for j in rows
        if LABELS[i] == 1 and LABELS[j] == 0
    ]
    return float(np.mean(pairs))


def _loop_average_precision(rows: list[int]) -> float:
    total, before = 0.0, 0.0
    for threshold in sorted(set(VALUES[rows]), reverse=True):
        kept = [i for i in rows if VALUES[i] >= threshold]
        hits = sum(LABELS[i] for i in kept)
        total += (hits - before) * hits / len(kept)
        before = hits
    return float(total / before)


@pytest.mark.parametrize(
    ("statistic", "loop"),
    [
        (mean(VALUES), lambda rows: float(np.mean(VALUES[rows]))),
        (median(VALUES), lambda rows: float(np.median(VALUES[rows]))),
        (ratio(VALUES, VALUES**2), lambda rows: float(VALUES[rows].sum() / (VALUES[rows] ** 2).sum())),
        (auc(LABELS, VALUES), _loop_auc),
        (average_precision(LABELS, VALUES), _loop_average_precision),
    ],
    ids=["mean", "median", "ratio", "auc", "average precision"],
)
def test_a_statistic_of_weights_is_that_of_the_rows_repeated(
    statistic: Statistic, loop: Callable[[list[int]], float]
) -> None:
    weights = next(iter(drawn_weights(np.arange(23), 23, resamples=30, seed=5)))
    repeated = [np.repeat(np.arange(23), row.astype(int)).tolist() for row in weights]
    assert statistic(weights) == pytest.approx([loop(rows) for rows in repeated], abs=1e-12)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), st.data())
def test_the_weighted_median_is_numpys(values: list[float], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(0, 4), min_size=len(values), max_size=len(values)))
    if sum(weights):
        expected = np.median(np.repeat(values, weights))
        assert median(values)(np.array([weights], float))[0] == pytest.approx(expected)


@pytest.mark.slow
def test_whole_patients_are_drawn() -> None:
    codes = np.array([0, 0, 0, 1, 2, 2])
    drawn = np.concatenate(list(drawn_weights(codes, 3, resamples=4000, seed=1)))
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, 4] == drawn[:, 5]).all()
    assert (drawn[:, [0, 3, 4]].sum(axis=1) == 3).all()
    assert drawn[:, [0, 3, 4]].mean(axis=0) == pytest.approx([1, 1, 1], abs=0.05)


def test_blocks_hold_every_resample_whatever_their_size() -> None:
    rows = 500_000
    blocks = list(drawn_weights(np.arange(rows), rows, resamples=9, seed=0))
    assert [len(block) for block in blocks] == [4, 4, 1]


@pytest.mark.slow
def test_the_interval_of_a_mean_is_near_that_of_normal_theory() -> None:
    values = np.random.default_rng(3).normal(10, 2, 400)
    found = cluster_bootstrap(mean(values), 400, resamples=4000)
    reach = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - reach, abs=0.02)
    assert found.high == pytest.approx(values.mean() + reach, abs=0.02)
    assert (found.n, found.reason) == (400, "")


def test_percentiles_are_moved_out_as_hesterberg_has_them() -> None:
    assert expanded_tail(10) == pytest.approx(stats.norm.cdf(-math.sqrt(10 / 9) * 2.262157), abs=1e-6)
    assert expanded_tail(100_000) == pytest.approx(0.025, abs=1e-4)
    assert 0 <= expanded_tail(2) < 1e-6


def test_the_interval_is_the_percentiles_of_a_plain_loop() -> None:
    draws = np.concatenate(list(drawn_weights(np.arange(23), 23, resamples=500, seed=7)))
    means = [np.repeat(VALUES, w.astype(int)).mean() for w in draws]
    tail = stats.norm.cdf(-math.sqrt(23 / 22) * stats.t.ppf(0.9, 22))
    found = cluster_bootstrap(mean(VALUES), 23, resamples=500, seed=7, confidence=0.8)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [tail, 1 - tail])))


def test_the_same_seed_gives_the_same_interval_and_another_another() -> None:
    one, two, other = (cluster_bootstrap(mean(VALUES), 23, seed=seed) for seed in (1, 1, 2))
    assert one == two
    assert one.low != other.low


def test_a_statistic_that_is_mostly_undefined_has_a_value_but_no_interval() -> None:
    labels = np.zeros(12)
    labels[0] = 1
    sparse = np.zeros(12)
    sparse[0] = 1.0

    def rarely(weights: Floats) -> Floats:
        return np.where((weights[:, :3] >= 1).all(axis=1), 1.0, np.nan)

    found = cluster_bootstrap(rarely, 12, resamples=400)
    assert (found.value, found.low) == (1.0, None)
    assert "of 400 resamples" in found.reason
    assert cluster_bootstrap(ratio(sparse, np.zeros(12)), 12).value is None


def test_patients_must_be_one_for_each_row() -> None:
    with pytest.raises(UsageError, match="3 patients are named for 23 rows"):
        cluster_bootstrap(mean(VALUES), 23, ["A", "B", "C"])


def test_nothing_and_one_patient_are_reasons() -> None:
    assert cluster_bootstrap(mean([]), 0).reason == "no observations"
    found = cluster_bootstrap(mean([2.0, 4.0]), 2, ["A", "A"])
    assert (found.value, found.low, found.n) == (3.0, None, 1)
    assert found.reason == "one patient only, so no interval"


def test_a_summary_is_what_numpy_says() -> None:
    found = summarise(VALUES.tolist())
    assert found.mean.value == pytest.approx(VALUES.mean())
    assert found.median.value == pytest.approx(np.median(VALUES))
    assert found.sd == pytest.approx(VALUES.std(ddof=1))
    assert (found.q1, found.q3) == pytest.approx(tuple(np.quantile(VALUES, [0.25, 0.75])))
    assert (found.minimum, found.maximum, found.n, found.missing) == (VALUES.min(), VALUES.max(), 23, 0)


def test_missing_values_are_left_out_and_counted() -> None:
    found = summarise([1.0, None, 3.0, math.nan, math.inf], ["A", "B", "A", "C", "D"])
    assert (found.n, found.missing, found.n_patients, found.mean.value) == (2, 3, 1, 2.0)
    assert found.mean.reason == "one patient only, so no interval"
    json.dumps(asdict(found), allow_nan=False)


@pytest.mark.parametrize(
    ("values", "said"), [([], "no cases"), ([None, math.nan], "none of 2 cases has a value")]
)
def test_nothing_to_summarise_is_a_reason(values: list[float | None], said: str) -> None:
    found = summarise(values)
    assert (found.n, found.reason, found.mean.value, found.mean.reason) == (0, said, None, said)
    json.dumps(asdict(found), allow_nan=False)


def test_one_value_has_no_spread() -> None:
    found = summarise([0.7])
    assert (found.mean.value, found.sd, found.q1) == (0.7, None, 0.7)
    json.dumps(asdict(found), allow_nan=False)


def test_patients_that_are_not_one_for_each_value_are_refused() -> None:
    with pytest.raises(UsageError, match="one for each"):
        summarise([1.0, 2.0], ["A"])
    with pytest.raises(UsageError, match="not numbers"):
        summarise(["good"])  # type: ignore[list-item]


def test_patients_with_many_cases_widen_the_interval() -> None:
    random = np.random.default_rng(0)
    patients = [f"P{k}" for k in np.repeat(np.arange(15), 6)]
    values = (np.repeat(random.normal(size=15), 6) + 0.1 * random.normal(size=90)).tolist()
    by_patient, by_case = summarise(values, patients).mean, summarise(values).mean
    assert by_patient.value == pytest.approx(by_case.value)
    assert None not in (by_patient.low, by_patient.high, by_case.low, by_case.high)
    assert by_patient.high - by_patient.low > 1.8 * (by_case.high - by_case.low)  # type: ignore[operator]


def test_resamples_without_spread_make_no_interval_and_no_p() -> None:
    same = np.full(50, 1.0)
    assert np.isnan(percentile(1.0, same, 0.95)[1:]).all()
    found = percentile_difference(0.4, np.full(50, 0.4), 0.95)
    assert np.isnan([found.lower, found.upper, found.p]).all()
    nothing = percentile_difference(0.0, np.zeros(50), 0.95)  # two models that rank alike: a finding
    assert (nothing.lower, nothing.upper, nothing.p) == (0.0, 0.0, 1.0)


def test_c_of_one_event_has_no_interval() -> None:
    found = concordance([1, 2, 3, 4], [1, 0, 0, 0], {"score": [4.0, 3.0, 2.0, 1.0]}, n_boot=40)
    assert found.values["score"].value == 1.0
    assert np.isnan(found.values["score"].lower)
