"""Tests of differences and ranks, against scipy, statsmodels, plain loops and printed tables."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import asdict
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from aiene.errors import UsageError
from aiene.stats.bootstrap import cluster_bootstrap
from aiene.stats.paired import paired, sign_flip_p, subtracted, superiority_table
from aiene.stats.ranking import critical_difference, kendall_taus, ranking
from aiene.stats.roc import auc, delong_auc, delong_test
from aiene.stats.tests import holm

Floats = npt.NDArray[np.float64]


def _nodes(seed: int, n: int = 80, *, ties: bool = False) -> tuple[Floats, Floats, Floats]:
    random = np.random.default_rng(seed)
    labels = (random.random(n) < 0.35).astype(float)
    first = labels + random.normal(size=n)
    second = 0.6 * labels + 0.5 * first + random.normal(size=n)
    return labels, np.round(first) if ties else first, np.round(second) if ties else second


def _delong_by_definition(labels: Floats, *scores: Floats) -> tuple[Floats, Floats]:
    """Areas and covariance from the kernel of every pair of nodes (DeLong et al. 1988, equations 3 to 6)."""
    kernels = []
    for score in scores:
        gap = score[labels == 1][:, None] - score[labels == 0][None]
        kernels.append((gap > 0) + 0.5 * (gap == 0))
    by_positive = np.array([k.mean(axis=1) for k in kernels])
    by_negative = np.array([k.mean(axis=0) for k in kernels])
    areas = np.array([k.mean() for k in kernels])
    m, n = by_positive.shape[1], by_negative.shape[1]
    s10 = (by_positive - areas[:, None]) @ (by_positive - areas[:, None]).T / (m - 1)
    s01 = (by_negative - areas[:, None]) @ (by_negative - areas[:, None]).T / (n - 1)
    return areas, s10 / m + s01 / n


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_delong_is_what_its_definition_gives(seed: int, ties: bool) -> None:
    labels, first, second = _nodes(seed, ties=ties)
    areas, covariance = _delong_by_definition(labels, first, second)
    one = delong_auc(labels, first)
    reach = 1.959963984540054 * math.sqrt(covariance[0, 0])
    assert (one.value, one.low) == pytest.approx((areas[0], areas[0] - reach), abs=1e-12)
    assert one.high == pytest.approx(min(areas[0] + reach, 1), abs=1e-12)
    test = delong_test(labels, first, second)
    z = (areas[0] - areas[1]) / math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert (test.first, test.second) == pytest.approx(tuple(areas), abs=1e-12)
    assert test.z == pytest.approx(z, abs=1e-9)
    assert test.p == pytest.approx(2 * stats.norm.sf(abs(z)), abs=1e-9)
    assert test.difference.value == pytest.approx(areas[0] - areas[1], abs=1e-12)


def test_the_interval_of_an_area_stays_between_0_and_1() -> None:
    labels, scores = [0, 0, 0, 1, 1, 1], [1, 2, 3.5, 3, 4, 5]
    high, low = delong_auc(labels, scores), delong_auc(labels, [-s for s in scores])
    assert (high.value, high.high) == (pytest.approx(8 / 9), 1.0)
    assert (low.value, low.low) == (pytest.approx(1 / 9), 0.0)


def test_delong_does_not_care_for_scale_and_turns_with_the_order() -> None:
    labels, first, second = _nodes(1)
    one = delong_test(labels, first, second)
    other = delong_test(labels, np.exp(second), 3 * first - 7)
    assert one.z is not None
    assert other.z == pytest.approx(-one.z)


def test_the_same_scores_twice_are_no_difference() -> None:
    labels, first, _ = _nodes(2)
    for second in (first, first * 2 + 1):
        test = delong_test(labels, first, second)
        assert (test.p, test.z, test.difference.value) == (1.0, 0.0, 0.0)
        assert (test.difference.low, test.difference.high) == (0.0, 0.0)


def test_areas_without_variance_cannot_be_tested() -> None:
    test = delong_test([0, 0, 1, 1], [1, 2, 3, 4], [4, 3, 2, 1])
    assert (test.first, test.second, test.p) == (1.0, 0.0, None)
    assert "variance" in test.reason


@pytest.mark.parametrize(
    ("labels", "scores", "said"),
    [
        ([1, 1], [0.2, 0.3], "only positive"),
        ([0, 0], [0.2, 0.3], "only negative"),
        ([0, 1], [0.2, math.nan], "1 of 2 scores"),
        ([0, 1], [0.2, None], "1 of 2 scores"),
        ([], [], "no nodes"),
        ([0, 3], [0.1, 0.2], "other than 0 and 1"),
    ],
)
def test_delong_says_why_it_has_no_number(labels: list[int], scores: list[float], said: str) -> None:
    good = [0.5] * len(labels)
    for test in (delong_test(labels, scores, good), delong_test(labels, good, scores)):
        assert (test.p, test.first) == (None, None)
        assert said in test.reason
        json.dumps(asdict(test), allow_nan=False)
    assert said in delong_auc(labels, scores).reason


def test_one_node_of_a_class_has_an_area_but_no_test() -> None:
    test = delong_test([1, 0, 0], [0.5, 0.2, 0.9], [0.9, 0.2, 0.3])
    assert (test.first, test.second, test.p) == (0.5, 1.0, None)
    assert "one node of a class" in test.reason
    assert delong_auc([1, 0, 0], [0.5, 0.2, 0.9]).low is None


def test_the_clustered_difference_is_the_difference_of_the_areas() -> None:
    labels, first, second = _nodes(3)
    patients = [f"P{k // 3}" for k in range(80)]
    found = cluster_bootstrap(subtracted(auc(labels, first), auc(labels, second)), 80, patients)
    assert found.value == pytest.approx(delong_test(labels, first, second).difference.value)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high  # type: ignore[operator]
    assert found.n == 27


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_holm_is_that_of_statsmodels(seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        multitest = pytest.importorskip("statsmodels.stats.multitest")
    random = np.random.default_rng(seed)
    p_values = (
        random.choice([0.01, 0.05, 0.2, 1.0, 0.0], 9) * random.choice([1, random.random()], 9)
    ).tolist()
    assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1], abs=1e-12)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_step_by_step(p_values: list[float]) -> None:
    """From the smallest on, each is rejected while it is within its share of the level."""
    for alpha in (0.013, 0.05, 0.2):
        rejected = set()
        for step, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if p_values[place] * (len(p_values) - step) > alpha:
                break
            rejected.add(place)
        assert {k for k, p in enumerate(holm(p_values)) if p is not None and p <= alpha} == rejected


def test_holm_leaves_what_is_missing_out_of_the_family() -> None:
    assert holm([0.01, None, 0.04, math.nan]) == (0.02, None, 0.04, None)
    assert holm([]) == ()


def test_sign_flips_of_few_patients_are_all_tried() -> None:
    values = np.array([0.3, -0.1, 0.5, 0.2, 0.2, -0.4])
    sums = [abs(np.dot(signs, values)) for signs in product((-1, 1), repeat=6)]
    assert sign_flip_p(values) == np.mean([s >= abs(values.sum()) - 1e-12 for s in sums])
    assert sign_flip_p([1.0, 1.0, 1.0]) == 0.25  # two of eight patterns


@pytest.mark.slow
def test_random_sign_flips_are_those_of_scipy_within_chance() -> None:
    values = np.random.default_rng(0).normal(0.25, 1, 40)
    theirs = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(1)
    )
    assert sign_flip_p(values) == pytest.approx(theirs.pvalue, abs=0.015)


def test_the_paired_comparison_is_counted_as_by_hand() -> None:
    first, second = [0.8, 0.7, 0.9, 0.5, 0.6], [0.7, 0.7, 0.6, 0.6, 0.4]
    found = paired(first, second)
    assert found.mean_difference.value == pytest.approx((0.1 + 0 + 0.3 - 0.1 + 0.2) / 5)
    assert found.median_difference.value == pytest.approx(0.1)
    assert found.superiority.value == pytest.approx((3 + 0.5) / 5)
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(np.round([0.1, 0.3, -0.1, 0.2], 9)).pvalue)
    flips = [abs(np.dot(s, [0.1, 0, 0.3, -0.1, 0.2])) >= 0.5 - 1e-9 for s in product((-1, 1), repeat=5)]
    assert found.permutation_p == np.mean(flips)
    assert (found.n, found.left_out, found.reason) == (5, 0, "")


@pytest.mark.parametrize("seed", range(3))
def test_wilcoxon_is_scipys(seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second = random.random(30), random.random(30)
    found = paired(first.tolist(), second.tolist(), resamples=10)
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(first, second).pvalue)


def test_less_is_better_where_it_is_said() -> None:
    near, far = [1.0, 2.0, 3.0], [2.0, 2.5, 9.0]
    assert paired(near, far, higher_is_better=False).superiority.value == 1.0
    assert paired(near, far).superiority.value == 0.0
    assert paired([-0.1, 0.2], [1.0, -3.0], higher_is_better=None).superiority.value == 1.0


def test_cases_of_one_patient_are_one_observation() -> None:
    found = paired([1.0, 0.0, 0.5], [0.0, 0.0, 0.4], ["A", "A", "B"])
    assert found.n == 2
    assert found.mean_difference.value == pytest.approx((0.5 + 0.1) / 2)
    turned = paired([-1.0, 1.0], [0.5, 0.5], ["A", "A"], higher_is_better=None)
    assert turned.superiority.value == 0.0  # errors of either sign do not cancel


def test_a_model_against_itself_is_never_a_difference() -> None:
    scores = np.random.default_rng(1).random(30).tolist()
    found = paired(scores, list(scores))
    assert (found.wilcoxon_p, found.permutation_p, found.superiority.value) == (1.0, 1.0, 0.5)
    assert (found.mean_difference.value, found.mean_difference.low, found.mean_difference.high) == (0, 0, 0)


def test_differences_by_rounding_only_are_ties() -> None:
    first = np.random.default_rng(1).random(20)
    second = np.nextafter(first, 1)
    assert paired(first.tolist(), second.tolist()).permutation_p == 1.0


def test_missing_scores_leave_the_case_out_and_are_counted() -> None:
    found = paired([0.5, None, 0.7, math.nan], [0.4, 0.5, 0.5, 0.5])
    assert (found.n, found.left_out) == (2, 2)


def test_one_patient_gives_a_difference_but_no_test() -> None:
    found = paired([0.5], [0.4])
    assert (found.mean_difference.value, found.wilcoxon_p, found.permutation_p) == (
        pytest.approx(0.1),
        None,
        None,
    )
    assert "one patient only" in found.reason


def test_wrong_words_are_refused() -> None:
    with pytest.raises(UsageError, match="same cases"):
        paired([0.5, 0.2], [0.1])
    with pytest.raises(UsageError, match="same cases"):
        ranking({"a": [0.5, 0.2], "b": [0.1]})
    with pytest.raises(UsageError, match="one for each"):
        paired([0.5, 0.2], [0.1, 0.2], ["A"])


def test_superiority_is_the_share_of_patients() -> None:
    found = superiority_table({"a": [0.9, 0.8, 0.5], "b": [0.8, 0.8, 0.6], "c": [0.0, 0.0, None]})
    assert found.models == ("a", "b", "c")
    assert (found.n, found.left_out) == (2, 1)
    assert found.probability == ((None, 0.75, 1.0), (0.25, None, 1.0), (0.0, 0.0, None))
    nothing = superiority_table({"a": [None], "b": [1.0]})
    assert nothing.probability == ((None, None), (None, None))
    assert nothing.reason


@pytest.mark.parametrize(("k", "q"), [(3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_is_that_of_demsars_table(k: int, q: float) -> None:
    scores = {f"m{j}": np.random.default_rng(j).random(14).tolist() for j in range(k)}
    found = critical_difference(scores)
    assert found.critical_difference == pytest.approx(q * math.sqrt(k * (k + 1) / (6 * 14)), abs=1e-3)


def test_friedman_and_mean_ranks_are_scipys() -> None:
    random = np.random.default_rng(2)
    table = random.random((20, 4)) + np.array([0, 0.2, 0.4, 0.45])
    scores = dict(zip("abcd", table.T.tolist(), strict=True))
    found = critical_difference(scores)
    assert found.friedman_p == pytest.approx(stats.friedmanchisquare(*table.T).pvalue)
    ranks = stats.rankdata(-table, axis=1).mean(axis=0)
    assert dict(zip(found.models, found.mean_ranks, strict=True)) == pytest.approx(
        dict(zip("abcd", ranks, strict=True))
    )
    assert list(found.mean_ranks) == sorted(found.mean_ranks)
    reach = found.critical_difference
    assert reach is not None
    for i, j in product(range(4), repeat=2):
        apart = abs(found.mean_ranks[i] - found.mean_ranks[j])
        assert (found.nemenyi_p[i][j] < 0.05) == (apart > reach)
    for group in found.groups:
        places = [found.models.index(model) for model in group]
        assert found.mean_ranks[places[-1]] - found.mean_ranks[places[0]] <= reach


def test_equal_models_are_one_group() -> None:
    scores = [0.5, 0.6, 0.7, 0.9]
    found = critical_difference({"a": scores, "b": scores, "c": scores})
    assert (found.friedman_p, found.groups) == (1.0, (("a", "b", "c"),))
    assert found.mean_ranks == (2.0, 2.0, 2.0)


def test_models_far_apart_are_in_no_group() -> None:
    base = np.random.default_rng(0).random(40)
    found = critical_difference({name: (base + j).tolist() for j, name in enumerate("abc")})
    assert found.models == ("c", "b", "a")
    assert found.groups == ()
    assert found.friedman_p is not None
    assert found.friedman_p < 1e-6


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({"a": [1.0, 2.0], "b": [2.0, 3.0]}, "three models"),
        ({"a": [1.0], "b": [2.0], "c": [3.0]}, "two patients"),
        ({}, "three models"),
    ],
)
def test_too_little_for_friedman_is_a_reason(scores: dict[str, list[float]], said: str) -> None:
    found = critical_difference(scores)  # type: ignore[arg-type]
    assert said in found.reason
    assert found.friedman_p is None
    json.dumps(asdict(found), allow_nan=False)


def test_ranks_are_those_of_the_means() -> None:
    found = ranking({"a": [0.9, 0.1, 0.1], "b": [0.5, 0.5, 0.5], "c": [0.4, 0.4, 0.6]})
    assert [(m.model, m.rank) for m in found.models] == [("b", 1), ("c", 2), ("a", 3)]
    assert found.models[0].mean == pytest.approx(0.5)
    assert found.models[2].mean_rank == pytest.approx((1 + 3 + 3) / 3)
    by_rank = ranking({"a": [0.9, 0.1, 0.1], "b": [0.5, 0.5, 0.5], "c": [0.4, 0.4, 0.6]}, by="rank_then_mean")
    assert [m.rank for m in by_rank.models] == [1, 2, 3]
    assert [m.model for m in by_rank.models] == ["b", "c", "a"]
    errors = ranking({"a": [3.0, -3.0], "b": [1.0, -1.5]}, higher_is_better=None)
    assert [m.model for m in errors.models] == ["b", "a"]


def test_a_clear_ranking_is_stable_and_a_chance_one_is_not() -> None:
    random = np.random.default_rng(0)
    base = random.random(30)
    clear = ranking({name: (base - j).tolist() for j, name in enumerate("abc")})
    assert clear.kendall_tau.value == 1.0
    assert [m.share_by_rank for m in clear.models] == [(1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0)]
    chance = ranking({name: random.random(30).tolist() for name in "abc"})
    assert chance.kendall_tau.value is not None
    assert chance.kendall_tau.value < 0.95
    for model in chance.models:
        assert sum(model.share_by_rank) == pytest.approx(1)
        assert model.rank_low is not None
        assert model.rank_high is not None
        assert 1 <= model.rank_low <= model.rank <= model.rank_high <= 3


def test_models_that_tie_share_the_better_rank() -> None:
    scores = [0.1, 0.2, 0.3]
    found = ranking({"a": scores, "b": scores, "c": [0.0, 0.0, 0.0]})
    assert [m.rank for m in found.models] == [1, 1, 3]
    same = ranking({"a": scores, "b": scores})
    assert (same.kendall_tau.value, same.kendall_tau.reason) == (None, "all models tie, so no stability")
    json.dumps(asdict(same), allow_nan=False)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(1, 5), min_size=3, max_size=6), st.randoms())
def test_kendalls_tau_is_scipys(full: list[int], random: object) -> None:
    drawn = [np.random.default_rng(k).integers(1, 5, len(full)).tolist() for k in range(4)]
    ours = kendall_taus(full, drawn)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = [stats.kendalltau(full, one).statistic for one in drawn]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_ranks_of_nothing_and_of_one_patient_say_so() -> None:
    for scores in ({}, {"a": []}, {"a": [None], "b": [0.5]}):  # type: ignore[var-annotated]
        found = ranking(scores)  # type: ignore[arg-type]
        assert found.models == ()
        assert found.reason
        json.dumps(asdict(found), allow_nan=False)
    one = ranking({"a": [0.5], "b": [0.7]})
    assert [m.model for m in one.models] == ["b", "a"]
    assert "one patient only" in one.reason
    assert one.models[0].rank_low is None
    alone = ranking({"a": [0.5, 0.6]})
    assert (alone.models[0].rank, alone.models[0].share_by_rank) == (1, (1.0,))
