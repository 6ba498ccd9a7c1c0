"""AUC and threshold against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from tools.default_bundle.figures import auc, auc_interval, youden_threshold


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    rng = np.random.default_rng(3)
    scores = np.round(rng.random(40), 1)  # with ties
    truth = rng.random(40) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[truth] for b in scores[~truth]]
    assert auc(scores, truth) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_auc_of_a_single_class_is_no_number() -> None:
    assert np.isnan(auc(np.array([0.1, 0.2]), np.array([True, True])))


@pytest.mark.slow
def test_the_interval_holds_the_value_and_is_the_same_each_time() -> None:
    rng = np.random.default_rng(4)
    truth = rng.random(60) < 0.5
    scores = truth * 0.5 + rng.random(60)
    groups = np.repeat(np.arange(20), 3)
    one, again = (auc_interval(scores, truth, groups, rounds=200) for _ in range(2))
    assert one == again
    assert one.low <= one.value <= one.high


def test_the_threshold_parts_what_can_be_parted() -> None:
    threshold = youden_threshold(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True]))
    assert threshold == 0.5
