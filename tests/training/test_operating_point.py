"""The two operating points: few false nodes, or few missed ones."""

from __future__ import annotations

import numpy as np

from tools.default_bundle.bundle_card import NOT_YET, _points
from tools.default_bundle.curve import CropCounts
from tools.default_bundle.operating_point import Point, chosen, froc

CURVE = [
    Point(-1.0, 0.97, 0.99, 9.0, 0.6),
    Point(0.0, 0.95, 0.98, 4.0, 0.7),
    Point(1.0, 0.90, 0.95, 0.9, 0.7),
    Point(2.0, 0.60, 0.70, 0.1, 0.6),
]


def test_each_point_is_the_most_sensitive_that_its_false_nodes_allow() -> None:
    found = chosen(CURVE)
    assert found.points["balanced"].offset == 1.0
    assert found.points["sensitive"].offset == 0.0
    assert found.bias == 1.0


def test_where_no_offset_is_quiet_enough_the_quietest_is_taken() -> None:
    found = chosen(CURVE[:2])
    assert found.points["balanced"].offset == 0.0


def test_the_card_counts_offsets_from_the_packed_model() -> None:
    card = chosen(CURVE).card()
    assert card["balanced"]["offset"] == 0
    assert card["sensitive"]["offset"] == -1
    assert [row["offset"] for row in card["froc"]] == [-2, -1, 0, 1]
    assert card["balanced"]["sensitivity_10_mm"] == 0.95


def test_the_curve_counts_all_crops_together() -> None:
    counts = [
        CropCounts((12.0, 8.0), np.array([[0.8, 0.6], [0.6, 0.0]]), np.array([3.0, 1.0]), None),
        CropCounts((11.0,), np.array([[0.0], [0.0]]), np.array([1.0, 0.0]), None),
    ]
    low, high = froc(counts, offsets=(0.0, 1.0))
    assert (low.sensitivity, low.sensitivity_10_mm, low.false_per_case) == (0.6667, 0.5, 2.0)
    assert (high.sensitivity, high.sensitivity_10_mm, high.false_per_case) == (0.3333, 0.5, 0.5)
    assert low.dice == 0.7


def test_the_card_shows_both_points_and_the_curve() -> None:
    table = _points(chosen(CURVE).card())
    assert "| balanced | +0.0 | 0.90 | 0.95 | 0.90 | 0.70 |" in table
    assert "| sensitive | -1.0 | 0.95 | 0.98 | 4.00 | 0.70 |" in table
    assert table.count("\n") == 1 + 2 + len(CURVE)
    assert _points([{"offset": 0.0}]) == NOT_YET  # a card of before
