"""What the card says of operating points and of which nodes count."""

from __future__ import annotations

import numpy as np
import pytest

from tools.default_bundle.bundle_card import KEPT, _counting, _offsets, _points
from tools.default_bundle.choose_points import OFFSETS, at_the_weights, bar_at, counting_of, points_of_line
from tools.default_bundle.operating_point import Point

CURVE = [
    Point(-2.0, 0.97, 0.99, 9.0, 0.6),
    Point(-1.0, 0.95, 0.98, 4.0, 0.7),
    Point(0.0, 0.90, 0.95, 1.5, 0.7),
    Point(1.0, 0.60, 0.70, 0.1, 0.6),
]


def test_the_balanced_point_is_where_the_bundle_stands() -> None:
    """Also where it costs more false nodes than a new choice would allow."""
    card = at_the_weights(CURVE).card()
    assert card["balanced"]["offset"] == 0
    assert card["balanced"]["false_per_case"] == 1.5
    assert _offsets(card) == {"balanced": 0.0, "sensitive": -1.0}
    assert [row["offset"] for row in card["froc"]] == [-2, -1, 0, 1]
    assert 0.0 in OFFSETS


def test_an_offset_moves_the_core_and_only_below_it_the_contour() -> None:
    assert bar_at({"GTVn": 3.0}, -2.0) == (0.0, 1.0)
    assert bar_at({"GTVn": 3.0}, -4.0) == (-1.0, -1.0)
    assert bar_at({}, 1.0) == (1.0, 1.0)


def test_the_sensitive_point_is_never_the_less_sensitive_one() -> None:
    noisy = [point._replace(false_per_case=point.false_per_case + 5) for point in CURVE]
    points = at_the_weights(noisy).points
    assert points["sensitive"].offset <= points["balanced"].offset


def test_the_least_pos_keeps_the_share_of_planted_nodes_that_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    true, false = rng.beta(6, 2, 400), rng.beta(2, 6, 300)
    pos = np.concatenate([np.column_stack([true, np.ones(400)]), np.column_stack([false, np.zeros(300)])])
    found = counting_of(pos)
    least = found["pos_from"]
    assert (true >= least).mean() >= KEPT > (true >= least + 0.02).mean()
    assert found["planted_nodes_that_count"] == pytest.approx((true >= least).mean(), abs=1e-3)
    assert found["hard_negatives_that_count"] == pytest.approx((false >= least).mean(), abs=1e-3)
    assert f"{least:g} or more" in _counting(least, found)


def test_few_planted_nodes_all_keep_counting_and_none_give_no_rule() -> None:
    assert counting_of(np.array([[0.62, 1.0], [0.9, 1.0], [0.99, 0.0]]))["pos_from"] == 0.62
    with pytest.raises(ValueError, match="no planted node"):
        counting_of(np.array([[0.9, 0.0]]))
    assert _counting(0.0, None) == "Every found node."


def test_a_line_of_the_curve_gives_the_points_of_both_planters_together() -> None:
    line = {
        "disease": {"froc_10_mm": [[-2.0, 7.0, 0.5], [-1.0, 5.0, 0.4], [0.0, 1.0, 0.2]]},
        "round": {"froc_10_mm": [[-2.0, 3.0, 0.9], [-1.0, 3.0, 0.8], [0.0, 1.0, 0.6]]},
    }
    card = points_of_line(line, {"disease": 30, "round": 10})
    assert (card["sensitive"]["offset"], card["sensitive"]["false_per_case"]) == (-1.0, 4.0)
    assert card["sensitive"]["sensitivity_10_mm"] == 0.5  # (0.4 * 30 + 0.8 * 10) / 40
    assert _offsets(card) == {"balanced": 0.0, "sensitive": -1.0}
    assert "| sensitive | -1.0 |  | 0.50 | 4.00 |  |" in _points(card)
