"""The tools of a reader against shapes that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aiene.errors import UsageError
from aiene.geometry.grid import Grid, Volume
from aiene.nodes.split import join_nodes, split_nodes
from aiene.review.session import cut, fill, grow, interpolate, next_value

SPACING = (3.0, 1.0, 1.0)
SHAPE = (24, 60, 64)


def ball(centre: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    index = np.indices(SHAPE).astype(float)
    return sum(((i - c) * mm) ** 2 for i, c, mm in zip(index, centre, SPACING, strict=True)) <= radius_mm**2


def test_a_click_grows_the_node_and_no_more() -> None:
    node, other = ball((12, 30, 30), 9), ball((12, 30, 52), 6)
    hu = np.where(node | other, 60.0, -90.0) + np.random.default_rng(1).normal(0, 8, SHAPE)
    drawing = np.zeros(SHAPE, np.uint8)
    drawing[other] = 4
    grown = grow(drawing, hu, SPACING, (12, 30, 30), 7)
    dice = 2 * ((grown == 7) & node).sum() / ((grown == 7).sum() + node.sum())
    assert dice > 0.9
    np.testing.assert_array_equal(grown == 4, other)


def test_a_click_in_a_field_of_one_tissue_stays_small() -> None:
    grown = grow(np.zeros(SHAPE, np.uint8), np.full(SHAPE, 50.0), SPACING, (12, 30, 30), 1)
    reached = np.argwhere(grown) - (12, 30, 30)
    assert np.linalg.norm(reached * SPACING, axis=1).max() <= 15


def test_holes_are_filled_and_other_nodes_stay() -> None:
    drawing = np.zeros(SHAPE, np.uint8)
    drawing[5, 10:20, 10:20] = 1
    drawing[5, 13:17, 13:17] = 0
    drawing[5, 14, 14] = 2
    filled = fill(drawing, 1)
    assert (filled[5, 10:20, 10:20] > 0).all()
    assert filled[5, 14, 14] == 2
    assert (filled == 1).sum() == 99


def test_a_cone_is_found_again_from_its_two_ends() -> None:
    drawing = np.zeros(SHAPE, np.uint8)
    y, x = np.indices(SHAPE[1:])
    for z, radius in ((4, 12.0), (12, 4.0)):
        drawing[z][(y - 30) ** 2 + (x - 30) ** 2 <= radius**2] = 3
    between = interpolate(drawing, 3)
    for z in range(5, 12):
        radius = 12 - (z - 4)
        area = (between[z] == 3).sum()
        assert abs(np.sqrt(area / np.pi) - radius) < 0.6, z
    np.testing.assert_array_equal(between[[4, 12]], drawing[[4, 12]])
    with pytest.raises(UsageError, match="one slice alone"):
        interpolate(np.where(np.arange(SHAPE[0])[:, None, None] == 4, drawing, 0).astype(np.uint8), 3)


@pytest.mark.parametrize("angle", [0, 25, 60, 90])
def test_a_cut_makes_two_nodes_of_one_for_the_runs_own_watershed(angle: float) -> None:
    drawing = np.zeros(SHAPE, np.uint8)
    drawing[ball((12, 30, 30), 13)] = 1
    grid = Grid(SHAPE, SPACING, (0.0, 0.0, 0.0))
    assert len(split_nodes(Volume((drawing > 0) * np.uint8(2), grid), fg_labels=(2,), axes=False)) == 1
    across = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))]) * 20
    ends: Any = [(12, *(int(v) for v in np.rint(np.array([30, 30]) + s * across))) for s in (-1, 1)]
    parted = cut(drawing, SPACING, 1, *ends)
    assert set(np.unique(parted)) == {0, 1, 2}
    assert (parted > 0).sum() > 0.8 * (drawing > 0).sum()
    labels = Volume((parted > 0) * np.uint8(2), grid)
    nodes = split_nodes(labels, fg_labels=(2,), axes=False)
    assert len(nodes) == 2
    # and a reader who says that they are one gets one, whose contour is that of both
    points = tuple(grid.points(np.argwhere(parted == v).mean(axis=0)) for v in (1, 2))
    inside = labels.with_array(labels.array == 2)
    (joined,) = join_nodes(nodes, [points], inside, axes=False)  # type: ignore[list-item]
    np.testing.assert_array_equal(joined.contour, parted > 0)
    assert joined.number == min(node.number for node in nodes)
    assert len(join_nodes(nodes, [(points[0], points[0] + 500)], inside, axes=False)) == 2


def test_a_cut_that_parts_nothing_is_told() -> None:
    drawing = np.zeros(SHAPE, np.uint8)
    drawing[ball((12, 30, 30), 8)] = 1
    with pytest.raises(UsageError, match="does not split"):
        cut(drawing, SPACING, 1, (12, 5, 5), (12, 5, 50))
    with pytest.raises(UsageError, match="a line"):
        cut(drawing, SPACING, 1, (12, 5, 5), (12, 5, 5))
    with pytest.raises(UsageError, match="choose a node"):
        cut(drawing, SPACING, 9, (12, 30, 5), (12, 30, 50))


def test_the_lowest_free_value_is_next() -> None:
    assert next_value(np.array([0, 1, 2, 4, 255], np.uint8)) == 3
    with pytest.raises(UsageError, match="250"):
        next_value(np.arange(251, dtype=np.uint8))
