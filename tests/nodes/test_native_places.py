"""Nodes on the native CT: balls whose place and volume are known, on grids of any order and sign."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiene.geometry.grid import ORDERS, Grid, RigidTransform, Volume
from aiene.geometry.resample import pull_labels
from aiene.nodes.node import Node, names_by_volume
from aiene.nodes.placement import NativeNodes, native_nodes
from aiene.nodes.split import node_of

CROP = Grid((64, 160, 160), (3.0, 1.0, 1.0), (-80.0, -90.0, 40.0))
MIDDLE = np.array([0.0, -10.0, 135.0])  # LPS, near the middle of the crop
TURN = RigidTransform.from_matrix(
    np.array(
        [
            [math.cos(0.3), -math.sin(0.3), 0.0, 17.0],
            [math.sin(0.3), math.cos(0.3), 0.0, -8.0],
            [0.0, 0.0, 1.0, -300.0],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
)


def ball_mask(centre: np.ndarray, radius: float) -> np.ndarray:
    z, y, x = np.indices(CROP.size, sparse=True)
    centre_z, centre_y, centre_x = CROP.indices(centre)
    return ((z - centre_z) * 3) ** 2 + (y - centre_y) ** 2 + (x - centre_x) ** 2 <= radius**2


def node(number: int, mask: np.ndarray) -> Node:
    return node_of(number, mask, mask, CROP, axes=False)


def brought_home(
    nodes: list[Node], native: Grid, to_native: RigidTransform, *, midline_x: float = 0.0
) -> NativeNodes:
    """The nodes on a CT whose segmentation was made on the crop."""
    drawn = np.any([n.contour for n in nodes], axis=0) if nodes else np.zeros(CROP.size, bool)
    contours = pull_labels(Volume(drawn, CROP), native, to_native.inverse())
    return native_nodes(nodes, CROP, contours, to_native, midline_x=midline_x)


def native_grid(order: tuple[int, ...], signs: tuple[int, ...], centre: np.ndarray) -> Grid:
    """A grid of 1.2, 1.5 and 2 mm around a point, whose array axes run along any patient axes."""
    unit = np.eye(3)[list(order)] * np.array(signs)[:, None]
    direction = tuple(tuple(float(v) for v in row) for row in unit)
    grid = Grid((140, 120, 100), (1.2, 1.5, 2.0), (0.0, 0.0, 0.0), direction)  # type: ignore[arg-type]
    origin = centre - np.array(grid.centre)
    return replace(grid, origin=tuple(float(v) for v in origin))  # type: ignore[arg-type]


@given(
    order=st.sampled_from(list(permutations(range(3)))),
    signs=st.sampled_from(list(product((-1, 1), repeat=3))),
    offset=st.tuples(*[st.floats(-30, 30)] * 3),
)
@settings(max_examples=15, deadline=None)
@pytest.mark.slow
def test_a_ball_comes_back_in_place_and_size_whatever_the_axes(
    order: tuple[int, ...], signs: tuple[int, ...], offset: tuple[float, float, float]
) -> None:
    centre = MIDDLE + offset
    native = native_grid(order, signs, TURN.apply(MIDDLE))
    home = brought_home([node(4, ball_mask(centre, 12))], native, TURN)
    placed, (place,) = home.map, home.places
    apart = np.linalg.norm(np.array(place.centroid_lps_mm) - TURN.apply(centre))
    assert apart < native.voxel_diagonal_mm / 2
    assert place.volume_mm3 == pytest.approx(4 / 3 * math.pi * 12**3, rel=0.05)
    assert place.volume_mm3 == pytest.approx(np.count_nonzero(placed.array == 1) * native.voxel_volume_mm3)
    assert place.long_axis_mm == pytest.approx(24, abs=2.5)
    assert place.short_axis_mm == pytest.approx(24, abs=3.5)
    assert not place.touches_border
    assert not home.no_node
    assert home.in_crop == 1
    assert placed.array.dtype == np.uint16
    assert placed.grid == native


@pytest.mark.parametrize("signs", list(product((-1, 1), repeat=3)))
def test_the_side_is_the_patients_on_flipped_grids_too(signs: tuple[int, ...]) -> None:
    native = native_grid((2, 1, 0), signs, TURN.apply(MIDDLE))
    nodes = [
        node(i, ball_mask(MIDDLE + np.array([x, 0, 0]), 8)) for i, x in enumerate((-30, -2, 30), start=1)
    ]
    places = brought_home(nodes, native, TURN).places
    assert [p.side for p in places] == ["right", "midline", "left"]
    places = brought_home(nodes, native, TURN, midline_x=-30.0).places
    assert [p.side for p in places] == ["midline", "left", "left"]


def test_names_and_map_values_go_by_falling_volume_with_ties_by_number() -> None:
    centres = [MIDDLE + np.array([x, 0, 0]) for x in (-50, -10, 30)]
    nodes = [node(n, ball_mask(c, r)) for n, c, r in zip((7, 2, 3), centres, (8, 8, 14), strict=True)]
    assert nodes[0].contour_mm3 == nodes[1].contour_mm3
    assert names_by_volume(nodes) == ["GTVn_03", "GTVn_02", "GTVn_01"]
    native = native_grid((2, 1, 0), (1, 1, 1), MIDDLE)
    placed = brought_home(nodes, native, RigidTransform()).map
    at = [tuple(np.round(native.indices(c)).astype(int)) for c in centres]
    assert [int(placed.array[i]) for i in at] == [3, 2, 1]


def test_a_node_between_native_voxel_centres_keeps_its_row() -> None:
    mask = np.zeros(CROP.size, dtype=bool)
    mask[30, 80, 80] = True
    point = CROP.points((30, 80, 80))
    native = Grid((10, 10, 10), (9.0, 9.0, 9.0), tuple(point - 40.5))  # the point is a corner of voxels
    home = brought_home([node(1, mask)], native, RigidTransform())
    (place,) = home.places
    assert not home.map.array.any()
    assert (place.volume_mm3, place.long_axis_mm, place.short_axis_mm) == (0, None, None)
    np.testing.assert_allclose(place.centroid_lps_mm, point)
    assert not place.touches_border


@pytest.mark.parametrize("shift", [0.0, 500.0])
def test_a_node_cut_by_the_native_edge_or_beyond_it_says_so(shift: float) -> None:
    inside = native_grid((2, 1, 0), (1, 1, 1), MIDDLE)
    native = replace(inside, origin=tuple(inside.points((70, 0, 0)) + np.array([0, 0, shift])))
    (place,) = brought_home([node(1, ball_mask(MIDDLE, 12))], native, RigidTransform()).places
    assert place.touches_border
    assert (place.volume_mm3 > 0) is (shift == 0)


def test_no_nodes_give_an_empty_map() -> None:
    native = native_grid((2, 1, 0), (1, 1, 1), MIDDLE)
    home = brought_home([], native, TURN)
    assert home.places == ()
    assert not home.map.array.any()


@pytest.mark.parametrize("tie", [0.0, 1e-12, -1e-12])
@pytest.mark.slow
def test_voxels_between_two_are_the_same_in_all_48_storage_orders(tie: float) -> None:
    """Own masks on a lattice half a voxel beside the crop's: every voxel lies between two."""
    rng = np.random.default_rng(5)
    grid = Grid((20, 24, 28), (3.0, 1.0, 1.0), (-30.5 + tie, -40.5 - tie, 98.5 + tie))
    labels = Volume(rng.integers(0, 3, grid.size).astype(np.uint8), grid)
    first = pull_labels(labels, CROP)
    assert {0, 1, 2} == set(np.unique(first.array))
    for order in ORDERS:
        np.testing.assert_array_equal(pull_labels(labels.reordered(order), CROP).array, first.array)


@pytest.mark.parametrize("before", [(0, 0, 0), (3, 0, 5)])
@pytest.mark.slow
def test_who_owns_a_voxel_between_two_nodes_does_not_depend_on_the_storage_order(
    before: tuple[int, int, int],
) -> None:
    """A contour that leaves the crop between two nodes: what lies in the middle could go to either."""
    masks = [ball_mask(np.array([x, -85.0, 135.0]), 8) for x in (-9.5, 9.5)]
    nodes = [node(k + 1, mask) for k, mask in enumerate(masks)]
    grid = Grid((40, 60, 61), (1.5, 1.0, 1.0), (-30.0, -119.5, 105.25))
    grid = grid.crop(tuple(-n for n in before), tuple(np.add(grid.size, before)))  # type: ignore[arg-type]
    points = grid.points(np.moveaxis(np.indices(grid.size), 0, -1)) - (0.0, -92.0, 135.0)
    contours = Volume(np.all(np.abs(points) < (20.0, 14.0, 9.0), axis=-1), grid)
    first = native_nodes(nodes, CROP, contours, RigidTransform(), midline_x=0.0)
    assert (first.map.array[contours.array] > 0).all()
    assert {1, 2} <= set(np.unique(first.map.array))
    for order in ORDERS:
        turned = native_nodes(nodes, CROP, contours.reordered(order), RigidTransform(), midline_x=0.0)
        back = turned.map.reordered(order.inverse)
        np.testing.assert_array_equal(back.array, first.map.array)
        for one, other in zip(first.places, turned.places, strict=True):
            assert other.volume_mm3 == one.volume_mm3
            np.testing.assert_allclose(other.centroid_lps_mm, one.centroid_lps_mm, atol=1e-9)
