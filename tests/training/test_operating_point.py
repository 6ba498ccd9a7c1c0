"""The operating point: what a false node costs is weighed against what is found, over all kinds of crops."""

from __future__ import annotations

from operating_point import PRICE, Point, chosen


def test_sensitivity_is_bought_while_it_is_worth_its_price() -> None:
    found = [Point(0.0, 0.95, 4.0, 0.8), Point(1.0, 0.90, 1.0, 0.7), Point(2.0, 0.60, 0.1, 0.6)]
    assert chosen(found)[0].offset == 1.0
    assert found[1].sensitivity - PRICE > found[0].sensitivity - 4 * PRICE


def test_one_offset_serves_all_kinds() -> None:
    phantoms = [Point(0.0, 0.95, 0.0, 0.8), Point(1.0, 0.90, 0.0, 0.8)]
    real = [Point(0.0, 0.90, 6.0, 0.6), Point(1.0, 0.85, 1.0, 0.6)]
    assert [p.offset for p in chosen(phantoms, real)] == [1.0, 1.0]
