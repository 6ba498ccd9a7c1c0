"""A cohort of eight patients, every table worked out by hand.

    time   1  2  2  3  4  5  6  8
    state  1  2  1  0  1  0  2  0        1 event, 2 competing event, 0 censored
    group  a  a  b  a  b  a  b  b
    x      2  1  1  0  1  0  0  0        the score

At risk just before 1, 2, 3, 4, 5, 6, 8: 8, 7, 5, 4, 3, 2, 1.
"""

from __future__ import annotations

from math import exp, log, sqrt

import numpy as np
import pytest

from aiene.stats.calibration import calibration
from aiene.stats.clinical_utility import decision_curve, groome, reclassification
from aiene.stats.competing_risks import cumulative_incidence
from aiene.stats.concordance import concordance, harrell_c, uno_c
from aiene.stats.count_covariate import count_distribution, probability_at_least
from aiene.stats.cox_model import fit_cox
from aiene.stats.imputation import rubin_estimates
from aiene.stats.sample_size import information
from aiene.stats.survival_curves import follow_up, kaplan_meier, nelson_aalen, rmst, rmst_difference
from aiene.stats.tests import gray_test, holm, log_rank, log_rank_trend
from aiene.stats.time_dependent_accuracy import brier_score, time_dependent_auc
from builders.survival_cohorts import EIGHT, by_group, first

TIME, STATE, ANY, EVENT = (EIGHT[name].to_numpy() for name in ("time", "state", "any", "event"))
GROUP, X = EIGHT.group.to_numpy(), EIGHT.x.to_numpy()


def test_kaplan_meier_of_any_event() -> None:
    curve = kaplan_meier(TIME, ANY)
    # 7/8, then 5/7, then 3/4, then 1/2
    expected = [1, 7 / 8, 5 / 8, 5 / 8, 15 / 32, 15 / 32, 15 / 64, 15 / 64]
    np.testing.assert_allclose(curve.survival, expected, atol=1e-15)
    np.testing.assert_array_equal(curve.at_risk, [8, 8, 7, 5, 4, 3, 2, 1])
    np.testing.assert_array_equal(curve.n_events, [0, 1, 2, 0, 1, 0, 1, 0])
    assert curve.median.value == 4
    assert curve.at_risk_at([0, 2, 2.5, 8, 9]) == [8, 7, 5, 1, 0]


def test_greenwood_and_the_three_intervals_at_four() -> None:
    greenwood = 1 / (8 * 7) + 2 / (7 * 5) + 1 / (4 * 3)
    s, z = 15 / 32, 1.959963984540054
    error = s * sqrt(greenwood)
    limits = {
        "plain": (s - z * error, s + z * error),
        "log": (s * exp(-z * sqrt(greenwood)), min(1, s * exp(z * sqrt(greenwood)))),
        "log-log": tuple(s ** exp(sign * z * sqrt(greenwood) / -log(s)) for sign in (1, -1)),
    }
    for interval, (low, high) in limits.items():
        at = kaplan_meier(TIME, ANY, interval=interval).at([4])[0]  # type: ignore[arg-type]
        assert (at.lower, at.upper, at.std_error) == pytest.approx((low, high, error), abs=1e-12)
        assert (at.at_risk, at.n_events, at.beyond_followup) == (4, 4, False)


def test_cumulative_incidence_of_both_causes() -> None:
    event = cumulative_incidence(TIME, STATE)
    # 1/8; 7/8 * 1/7; 5/8 * 1/4
    steps = [1 / 8, 1 / 4, 1 / 4 + 5 / 32, 1 / 4 + 5 / 32]
    np.testing.assert_allclose([e.value for e in event.at([1, 2, 4, 8])], steps, atol=1e-15)
    competing = cumulative_incidence(TIME, first(STATE, 2))
    # 7/8 * 1/7; 15/32 * 1/2
    np.testing.assert_allclose([e.value for e in competing.at([2, 6])], [1 / 8, 1 / 8 + 15 / 64], atol=1e-15)
    assert (event.events, competing.events, event.n) == (3, 2, 8)
    # Aalen's variance: 1/64 at 1; at 2 (1 + (1/8 - 1/4) / (7/8))^2 / 64 of that one, 1/64 of the own event
    # at 2 and nothing of the competing one
    assert event.at([1])[0].std_error == pytest.approx(1 / 8, abs=1e-15)
    assert event.at([2])[0].std_error == pytest.approx(sqrt((36 / 49 + 1) / 64), abs=1e-15)


def test_log_rank_by_group() -> None:
    test = log_rank(TIME, ANY, GROUP)
    # expected of a: 1 * 4/8 + 2 * 3/7 + 1 * 1/4 + 0
    expected = 4 / 8 + 2 * 3 / 7 + 1 / 4
    variance = 4 * 4 / 64 + 2 * 3 * 4 * 5 / (49 * 6) + 1 * 3 / 16
    assert [row.observed for row in test.rows] == [2, 3]
    assert [row.expected for row in test.rows] == pytest.approx([expected, 5 - expected], abs=1e-14)
    assert test.statistic == pytest.approx((2 - expected) ** 2 / variance, abs=1e-12)
    trend = log_rank_trend(TIME, ANY, GROUP, order=["a", "b"])
    assert trend.statistic == pytest.approx(test.statistic, abs=1e-12)
    assert trend.z == pytest.approx((expected - 2) / sqrt(variance), abs=1e-12)


def test_gray_score_by_group_is_that_of_the_log_rank_while_nothing_competes() -> None:
    alone = log_rank(TIME, EVENT, GROUP)
    gray = gray_test(TIME, EVENT, GROUP)
    assert gray.df == 1
    assert gray.statistic == pytest.approx(alone.statistic, rel=0.15)  # another variance, the same score


def test_follow_up() -> None:
    found = follow_up(TIME, STATE)
    # censored at 3, 5 and 8 of 5, 3 and 1 at risk: 4/5, 8/15, 0
    assert found.median.value == 8
    assert (found.first_quartile, found.third_quartile) == (5, 8)
    assert (found.n, found.n_censored, found.longest) == (8, 3, 8)


def test_nelson_aalen_at_each_patient() -> None:
    h1, h2, h4, h6 = 1 / 8, 1 / 8 + 2 / 7, 1 / 8 + 2 / 7 + 1 / 4, 1 / 8 + 2 / 7 + 1 / 4 + 1 / 2
    np.testing.assert_allclose(nelson_aalen(TIME, ANY), [h1, h2, h2, h2, h4, h4, h6, h6], atol=1e-15)


def test_restricted_mean_to_five_is_the_area() -> None:
    area = 1 + 7 / 8 + 2 * 5 / 8 + 15 / 32
    assert rmst(TIME, ANY, 5).value == pytest.approx(area, abs=1e-14)
    later = [area - 1, 2 * 5 / 8 + 15 / 32, 15 / 32]
    variance = later[0] ** 2 / 56 + later[1] ** 2 * 2 / 35 + later[2] ** 2 / 12
    assert rmst(TIME, ANY, 5).std_error == pytest.approx(sqrt(variance), abs=1e-14)


def test_difference_of_restricted_means_to_four() -> None:
    # a: times 1, 2, 3+, 5+: 3/4 after 1, 1/2 after 2.  b: 2, 4, 6, 8+: 3/4 after 2, 1/2 after 4
    found = rmst_difference(TIME, ANY, GROUP, 4)
    assert found.groups == ("a", "b")
    assert (found.first.value, found.second.value) == pytest.approx((1 + 3 / 4 + 1, 2 + 3 / 2), abs=1e-14)
    assert found.difference.value == pytest.approx(3.5 - 2.75, abs=1e-14)


def test_harrell_c_by_counting_pairs() -> None:
    # events of x: 2 at 1 beats all 7; 1 at 2 (competing, censored here); 1 at 2 outlives: censored at 2 and
    # five more: beats 3, 5, 6, 8 (0), ties with the other at 2 and with 4; 1 at 4 beats 5, 6, 8
    c = harrell_c(TIME, EVENT, X)
    assert (c.comparable, c.concordant, c.tied_risk, c.discordant) == (7 + 6 + 3, 7 + 4 + 3, 2, 0)
    assert c.c == pytest.approx(15 / 16, abs=1e-15)


def test_uno_c_by_weighting_pairs() -> None:
    # G is 1 up to 2, where one of six leaves after the event: 5/6; at 3 one of five: 4/5
    g2, g4 = 1, 5 / 6 * 4 / 5
    total = 7 + 6 / g2**2 + 3 / g4**2
    won = 7 + 5 / g2**2 + 3 / g4**2
    assert uno_c(TIME, EVENT, X) == pytest.approx(won / total, abs=1e-14)
    assert uno_c(TIME, EVENT, X, tau=4) == pytest.approx((7 + 5 / g2**2) / (7 + 6 / g2**2), abs=1e-14)


def test_auc_at_four_and_a_half() -> None:
    # any event by 4.5: times 1, 2, 2, 4 (x 2 1 1 1), G 1, 1, 1, 4/5; beyond: x 0 0 0: all pairs won
    assert time_dependent_auc(TIME, ANY, X, [4.5])[0] == (4.5, 1.0, 4, 3)
    other = np.array([0, 0, 1, 0, 1, 0, 1, 0.0])
    # cases 0, 0, 1, 1 of weights 1, 1, 1, 5/4; controls 0, 1, 0
    won = (0.5 + 0 + 0.5) * 2 + (1 + 0.5 + 1) * (1 + 5 / 4)
    assert time_dependent_auc(TIME, ANY, other, [4.5])[0].auc == pytest.approx(won / (3 * (3 + 5 / 4)))


def test_auc_counts_competing_events_as_controls() -> None:
    # cases of state 1 by 4.5: times 1, 2, 4; controls: the one with state 2 at 2, and three beyond
    found = time_dependent_auc(TIME, STATE, X, [4.5])[0]
    assert (found.cases, found.controls) == (3, 4)
    # G is 1 at 1 and 2, 4/5 from 3 on; the competing one weighs 1, the three beyond 5/4 each, x 1, 0, 0, 0
    controls = 1 + 3 * 5 / 4
    won = controls + (0.5 + 3 * 5 / 4) * (1 + 5 / 4)
    assert found.auc == pytest.approx(won / (controls * (2 + 5 / 4)), abs=1e-14)


def test_brier_score_at_four_and_a_half() -> None:
    predicted = np.array([0.9, 0.5, 0.5, 0.5, 0.5, 0.2, 0.2, 0.2])
    # the one censored at 3 drops out; weights 1, 1, 1, 0, 5/4, 5/4, 5/4, 5/4
    expected = (0.01 + 0.25 + 0.25 + 5 / 4 * 0.25 + 3 * 5 / 4 * 0.04) / 8
    found = brier_score(TIME, ANY, predicted, [4.5])
    assert found.score[0] == pytest.approx(expected, abs=1e-15)
    risk = 17 / 32
    null = ((1 - risk) ** 2 * (3 + 5 / 4) + risk**2 * 3 * 5 / 4) / 8
    assert found.null[0] == pytest.approx(null, abs=1e-15)
    assert found.scaled[0] == pytest.approx(1 - expected / null, abs=1e-14)


def test_cox_with_one_tie_by_efron() -> None:
    beta = fit_cox(TIME, ANY, (GROUP == "b").astype(float)[:, None]).beta[0]
    # score of Efron's likelihood: each event's covariate (1 in b) less its mean in the risk set; the two at 2
    # leave the second risk set by half
    e = exp(beta)
    at_1 = 0 - 4 * e / (4 * e + 4)
    at_2 = 1 - 4 * e / (4 * e + 3) - (4 * e - e / 2) / (4 * e + 3 - (e + 1) / 2)
    at_4 = 1 - 3 * e / (3 * e + 1)
    at_6 = 1 - 1
    assert at_1 + at_2 + at_4 + at_6 == pytest.approx(0, abs=1e-12)


def test_calibration_of_two_groups_at_four_and_a_half() -> None:
    predicted = np.where(X > 0, 0.8, 0.1)
    found = calibration(TIME, ANY, predicted, 4.5)
    low, high = found.rows
    assert (low.n, low.events, low.observed, low.predicted) == (4, 0, 0.0, pytest.approx(0.1))
    assert (high.n, high.events, high.observed, high.predicted) == (4, 4, 1.0, pytest.approx(0.8))
    assert found.observed == pytest.approx(17 / 32, abs=1e-15)
    assert found.observed_expected.value == pytest.approx(17 / 32 / 0.45, abs=1e-12)
    assert found.in_the_large.value == pytest.approx(log(log(15 / 32) / log(0.55)), abs=1e-12)


def test_net_benefit_at_one_half() -> None:
    predicted = {"x": np.where(X > 0, 0.8, 0.1)}
    curve = decision_curve(TIME, STATE, predicted, 4.5, [0.5], n_boot=0)
    # of the four treated three had the event by 4.5 and one the competing one: 4/8 * (3/4 - 1/4 * 1)
    assert curve.curves["x"].net_benefit[0] == pytest.approx(0.25, abs=1e-15)
    risk = 13 / 32
    assert curve.treat_all[0] == pytest.approx(risk - (1 - risk), abs=1e-15)


def test_reclassification_by_hand() -> None:
    old = np.array(["low"] * 8)
    new = np.where(X > 0, "high", "low")
    found = reclassification(TIME, ANY, old, new, levels=["low", "high"], horizon=4.5, n_boot=0)
    # four move up, all four have the event: risk 1 there, 17/32 in all
    assert (found.up, found.down) == (4, 0)
    assert found.event_part.value == pytest.approx(1 * (4 / 8) / (17 / 32), abs=1e-14)
    assert found.non_event_part.value == pytest.approx(0, abs=1e-14)
    cells = {(cell.old, cell.new): cell for cell in found.cells}
    assert sum(cell.n for cell in found.cells) == 8
    assert (cells["low", "high"].n, cells["low", "high"].risk, cells["low", "high"].events) == (4, 1.0, 4.0)
    assert (cells["low", "low"].n, cells["low", "low"].risk, cells["low", "low"].non_events) == (4, 0.0, 4.0)
    assert cells["high", "low"].n == 0


def test_bootstrap_of_c_repeats_the_c_of_each_resample() -> None:
    found = concordance(TIME, EVENT, {"x": X, "minus": -X}, compare=[("minus", "x")], n_boot=50, seed=2)
    assert found.values["x"].value == pytest.approx(15 / 16)
    assert found.differences["x - minus"].value == pytest.approx(15 / 16 - 1 / 16)


def test_staging_criteria() -> None:
    found = groome(TIME, ANY, GROUP, order=["b", "a"], horizon=4.5)
    # survival at 4.5: b 1/2, a 1/2: no span, shares alike
    assert (found.discrimination, found.balance, found.consistency) == (1.0, 0.0, 0.0)
    curves = by_group(kaplan_meier, TIME, ANY, GROUP)
    assert {name: curve.at([4.5])[0].value for name, curve in curves.items()} == {"a": 0.5, "b": 0.5}


def test_small_sums_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, float("nan")])[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.01, float("nan")])[1] is None
    np.testing.assert_allclose(count_distribution([0.5, 0.2]), [0.4, 0.5, 0.1], atol=1e-15)
    assert probability_at_least([0.5, 0.2], 1) == pytest.approx(0.6)
    assert probability_at_least([], 1) == 0
    assert probability_at_least([], 0) == 1
    assert not information(30, 3).unstable
    assert information(29, 3).unstable
    assert information(100, 3, smallest_group_events=4).reasons == (
        "4 events in the smallest group, fewer than 5",
    )


def test_rubin_by_hand() -> None:
    pooled = rubin_estimates([[1.0], [2.0], [3.0]], [[[0.5]], [[0.5]], [[0.5]]], ["x"], 100)
    row = pooled.rows[0]
    # within 1/2, between 1, total 1/2 + 4/3
    assert (row.coef, row.std_error) == pytest.approx((2.0, sqrt(0.5 + 4 / 3)))
    lost = (4 / 3) / (0.5 + 4 / 3)
    old, observed = 2 / lost**2, 100 / 102 * 99 * (1 - lost)
    assert row.df == pytest.approx(1 / (1 / old + 1 / observed))
