"""The operating point: as sensitive as few false nodes allow."""

from __future__ import annotations

from operating_point import MOST_FALSE, Point, chosen


def test_the_most_sensitive_point_of_few_false_nodes_is_taken() -> None:
    found = [
        Point(0.0, 0.95, MOST_FALSE + 0.5, 0.8),
        Point(1.0, 0.90, MOST_FALSE, 0.7),
        Point(2.0, 0.85, 0.1, 0.6),
    ]
    assert chosen(found).offset == 1.0


def test_where_no_point_has_few_false_nodes_the_fewest_are_taken() -> None:
    found = [Point(0.0, 0.95, 4.0, 0.8), Point(1.0, 0.90, 3.0, 0.7)]
    assert chosen(found).offset == 1.0
