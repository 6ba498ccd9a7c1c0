"""The two operating points: few false nodes, or few missed ones; and the border of what is found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools.default_bundle import train_default
from tools.default_bundle.bundle_card import NOT_YET, _points
from tools.default_bundle.curve import PRIMARY_CONTOURS, Bar, CropCounts, counts_from
from tools.default_bundle.operating_point import (
    BARS,
    CONTOURS,
    CORES,
    Point,
    chosen,
    curves,
    froc,
    primary_contour,
    primary_core,
)
from tools.default_bundle.organs import IGNORE, PRIMARY
from tools.default_bundle.phantom_crops import CROP_GRID, Crop

CURVE = [
    Point(-1.0, 0.97, 0.99, 9.0, 0.6),
    Point(0.0, 0.95, 0.98, 4.0, 0.7),
    Point(1.0, 0.90, 0.95, 0.9, 0.7),
    Point(2.0, 0.60, 0.70, 0.1, 0.6),
]


def test_each_point_is_the_most_sensitive_that_its_false_nodes_allow() -> None:
    found = chosen({0.0: CURVE})
    assert found.points["balanced"].offset == 1.0
    assert found.points["sensitive"].offset == 0.0


def test_the_contour_is_the_one_that_draws_all_nodes_best() -> None:
    """A missed node counts as drawn with a Dice of 0: neither sensitivity nor Dice decides alone."""
    sharper = [p._replace(dice=p.dice + 0.1, sensitivity=p.sensitivity - 0.05) for p in CURVE]
    blunter = [p._replace(dice=p.dice - 0.1, sensitivity=p.sensitivity + 0.05) for p in CURVE]
    found = chosen({-1.0: blunter, 0.0: CURVE, 1.0: sharper})
    assert (found.contour, found.froc) == (1.0, tuple(sharper))
    assert chosen({-1.0: blunter, 0.0: CURVE}).contour == 0.0


def test_each_contour_has_a_curve_over_all_cores() -> None:
    dice = np.arange(len(BARS), dtype=float)[:, None] / len(BARS) + 0.01
    found = curves([CropCounts((12.0,), dice, np.zeros(len(BARS)), None)])
    assert list(found) == list(CONTOURS)
    assert all([p.offset for p in curve] == list(CORES) for curve in found.values())
    for contour, curve in found.items():
        at = BARS.index(Bar(contour, contour + CORES[2]))
        assert curve[2].dice == pytest.approx(dice[at, 0], abs=1e-4)


def test_where_no_core_is_quiet_enough_the_quietest_is_taken() -> None:
    found = chosen({0.0: CURVE[:2]})
    assert found.points["balanced"].offset == 0.0


def test_the_card_counts_offsets_from_the_balanced_point() -> None:
    card = chosen({0.0: CURVE}).card()
    assert card["balanced"]["offset"] == 0
    assert card["sensitive"]["offset"] == -1
    assert [row["offset"] for row in card["froc"]] == [-2, -1, 0, 1]
    assert card["balanced"]["sensitivity_10_mm"] == 0.95


def test_the_core_of_primaries_lets_one_false_piece_through_in_twenty_crops() -> None:
    none = CropCounts((), np.zeros((1, 0)), np.zeros(1), None)
    some = [replace(none, false_primaries=(4.2, 0.3)), replace(none, false_primaries=(2.7,)), *[none] * 18]
    assert primary_core(some) == 3.0
    assert primary_core([none]) == 0.0
    assert primary_core([replace(none, false_primaries=(99.0,))]) == CORES[-1]


def test_the_core_of_primaries_keeps_away_from_the_false_and_from_the_planted_ones() -> None:
    none = CropCounts((), np.zeros((1, 0)), np.zeros(1), None)
    drawn = [replace(none, primary=0.9, primary_lead=lead) for lead in (7.8, 12.0)]
    faint = replace(none, primary=0.2, primary_lead=2.1)  # drawn by a fifth: not found at any core
    false = [replace(none, false_primaries=(lead,)) for lead in (2.7, 9.0)]
    assert primary_core([*drawn, faint, *false, *[none] * 15]) == 5.0  # the middle of 3 to 7
    assert primary_core([drawn[1], faint, *false, *[none] * 16]) == 5.5  # of 3 to 10


def test_the_contour_of_primaries_draws_them_best_on_the_average() -> None:
    none = CropCounts((), np.zeros((1, 0)), np.zeros(1), None)
    drawn = [(0.4, 0.6, 0.5, 0.3, 0.0), (0.8, 0.7, 0.7, 0.7, 0.7)]
    assert primary_contour([none, *(replace(none, primary_dice=d) for d in drawn)]) == PRIMARY_CONTOURS[1]
    assert primary_contour([none]) == 0.0


def test_a_primary_is_drawn_by_the_pieces_that_meet_it() -> None:
    labels = np.zeros(CROP_GRID.size, np.uint8)
    labels[10:20, 40:60, 40:60] = PRIMARY
    labels[10:20, 40:60, 60:70] = IGNORE
    logits = np.zeros((3, *CROP_GRID.size), np.float32)
    logits[0] = 20
    logits[PRIMARY, 10:20, 40:60, 40:50] = 24  # half of it is sure
    logits[PRIMARY, 10:20, 40:60, 50:70] = 18.5  # the rest, and as much of what nobody knows, 1.5 short
    logits[PRIMARY, 40:50, 100:110, 100:110] = 25  # another place
    probability = np.exp(logits - logits.max(0))
    probability /= probability.sum(0)
    crop = Crop(np.zeros(CROP_GRID.size, np.float16), labels, np.zeros_like(labels), np.zeros(0, np.float32))
    counts = counts_from(probability, crop, [])
    by_contour = dict(zip(PRIMARY_CONTOURS, counts.primary_dice, strict=True))
    assert by_contour[-2.0] == 1.0
    assert by_contour[0.0] == pytest.approx(2 / 3)
    assert counts.primary_lead == pytest.approx(4, abs=1e-3)
    assert counts.false_primaries == pytest.approx((5,), abs=1e-3)


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
    table = _points(chosen({0.0: CURVE}).card())
    assert "| balanced | +0.0 | 0.90 | 0.95 | 0.90 | 0.70 |" in table
    assert "| sensitive | -1.0 | 0.95 | 0.98 | 4.00 | 0.70 |" in table
    assert table.count("\n") == 1 + 2 + len(CURVE)
    assert _points([{"offset": 0.0}]) == NOT_YET  # a card of before


def test_the_classifier_learns_false_nodes_from_the_sensitive_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {"balanced": {"offset": 0.0}, "sensitive": {"offset": -4.0}, "cores": {"GTVn": 3.0, "GTVp": 7.0}}
    (tmp_path / "operating_point.json").write_text(json.dumps(points))
    asked: list[Any] = []
    monkeypatch.setattr(train_default, "load_segmenter", lambda folder, **words: asked.append(words))
    train_default.node_set([], tmp_path / "segmenter", "balanced")
    train_default.node_set([], tmp_path / "segmenter", "sensitive")
    assert [(words["node_offset"], words["cores"]) for words in asked] == [
        (0.0, {"GTVn": 3.0, "GTVp": 7.0}),
        (-1.0, {"GTVn": 0.0, "GTVp": 7.0}),
    ]
    assert train_default.REAL_NODES["training"][-1] == "plain"
