"""Outlines of masks: any mask, drawn again, is the mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from aiene.export.case import Plane
from aiene.geometry.outlines import outlines

Array = npt.NDArray[Any]

drawn_masks = array_shapes(min_dims=2, max_dims=2, max_side=12).flatmap(
    lambda shape: st.floats(0, 1).flatmap(
        lambda share: arrays(bool, shape, elements=st.floats(0, 1).map(lambda v: v < share))
    )
)

scattered_masks = st.builds(
    lambda seed, share, shape: np.random.default_rng(seed).random(shape) < share,
    st.integers(0, 2**32 - 1),
    st.floats(0.1, 0.95),
    array_shapes(min_dims=2, max_dims=2, max_side=16),
)
masks = st.one_of(drawn_masks, scattered_masks)


def crossings(outline: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """For each pixel centre: how often a ray to the right crosses the outline, and with which net sense."""
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(float)
    count, net = np.zeros(shape, int), np.zeros(shape, int)
    for here, there in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        if here[0] == there[0]:
            continue
        spans = (here[0] > rows) != (there[0] > rows)
        at = here[1] + (rows - here[0]) * (there[1] - here[1]) / (there[0] - here[0])
        hit = spans & (columns < at)
        count += hit
        net += hit * (1 if there[0] > here[0] else -1)
    return count, net


def area(outline: Array) -> float:
    after = np.roll(outline, -1, axis=0)
    return abs(float(np.sum(outline[:, 0] * after[:, 1] - outline[:, 1] * after[:, 0]))) / 2


@settings(max_examples=300, deadline=None)
@given(masks)
@pytest.mark.slow
def test_any_mask_comes_back_by_either_rule_of_filling(mask: Array) -> None:
    odd, net = np.zeros(mask.shape, bool), np.zeros(mask.shape, bool)
    for outline in outlines(mask):
        count, sense = crossings(outline, mask.shape)
        odd ^= count % 2 == 1
        net |= sense != 0
    np.testing.assert_array_equal(odd, mask)
    np.testing.assert_array_equal(net, mask)


@settings(max_examples=200, deadline=None)
@given(masks)
@pytest.mark.slow
def test_there_is_one_outline_an_island_and_its_area_is_half_a_pixel_off_for_each_boundary(
    mask: Array,
) -> None:
    islands = ndimage.label(mask)[1]
    holes = ndimage.label(np.pad(~mask, 1, constant_values=True), np.ones((3, 3)))[1] - 1
    found = outlines(mask)
    assert len(found) == islands
    assert sum(map(area, found)) == pytest.approx(np.count_nonzero(mask) - islands / 2 + holes / 2)


@settings(max_examples=200, deadline=None)
@given(masks)
@pytest.mark.slow
def test_no_outline_comes_near_a_pixel_centre(mask: Array) -> None:
    centres = np.argwhere(np.ones(mask.shape, bool)).astype(float)
    for outline in outlines(mask):
        for here, there in zip(outline, np.roll(outline, -1, axis=0), strict=True):
            way = there - here
            along = np.clip((centres - here) @ way / max(way @ way, 1e-12), 0, 1)
            away = np.linalg.norm(centres - here - along[:, None] * way, axis=1)
            assert away.min() > 0.35


def test_one_pixel_is_a_diamond_around_its_centre() -> None:
    (outline,) = outlines(np.ones((1, 1)))
    assert {tuple(p) for p in outline.tolist()} == {(0.5, 0), (0, 0.5), (-0.5, 0), (0, -0.5)}


def test_an_empty_mask_has_no_outline() -> None:
    assert outlines(np.zeros((4, 5))) == []


def test_straight_sides_keep_their_corners_only() -> None:
    (outline,) = outlines(np.ones((30, 50)))
    assert len(outline) == 8  # a rectangle whose corners are cut


def test_points_lie_where_the_slices_header_says() -> None:
    plane = Plane(
        origin=np.array([10.0, 20.0, 30.0]),
        along_row=np.array([0.0, 1.0, 0.0]),
        along_column=np.array([0.0, 0.0, -1.0]),
        row_spacing=2.0,
        column_spacing=0.5,
    )
    points = plane.points(np.array([0.0, 1.0, 0.0, 1.5]), np.array([0.0, 0.0, 4.0, 2.0]))
    np.testing.assert_allclose(points, [[10, 20, 30], [10, 20, 28], [10, 22, 30], [10, 21, 27]])
