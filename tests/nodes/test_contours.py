"""A contour comes back as it was drawn: every voxel in one node, or told of, on grids of any kind."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiene.errors import UsageError
from aiene.geometry.grid import Grid, RigidTransform, Volume, triple
from aiene.geometry.resample import pull_labels
from aiene.nodes.node import Node, check_known, contours, parse_fg_labels
from aiene.nodes.placement import NativeNodes, native_nodes
from aiene.nodes.split import axial_axes, split_nodes
from aiene.results.records import contour_warnings

CROP = Grid((64, 160, 160), (3.0, 1.0, 1.0), (-80.0, -90.0, 40.0))
MIDDLE = np.array([0.0, -10.0, 135.0])
STAY = RigidTransform()


def turn(degrees: tuple[float, float, float]) -> np.ndarray:
    """A rotation about x, then y, then z."""
    made = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = [k for k in range(3) if k != axis]
        one = np.eye(3)
        one[a, a] = one[b, b] = math.cos(angle)
        one[a, b], one[b, a] = -math.sin(angle), math.sin(angle)
        made = one @ made
    return made


def grid_around(
    middle: np.ndarray, spacing: tuple[float, float, float], axes: np.ndarray, extent_mm: float = 80.0
) -> Grid:
    """A grid with its middle at a point; the columns of `axes` are the directions of z, y, x."""
    size = tuple(int(extent_mm / s) for s in spacing)
    direction = tuple(tuple(float(v) for v in axes[:, k]) for k in range(3))
    grid = Grid(size, spacing, (0.0, 0.0, 0.0), direction)  # type: ignore[arg-type]
    origin = middle - np.array(grid.centre)
    return replace(grid, origin=triple(origin))


def drawn(grid: Grid, *balls: tuple[np.ndarray, float]) -> Volume:
    """Own contours: the voxels of a grid whose centres lie in any of some balls (LPS mm, radius)."""
    points = grid.points(np.moveaxis(np.indices(grid.size), 0, -1))
    inside = np.zeros(grid.size, bool)
    for centre, radius in balls:
        inside |= ((points - centre) ** 2).sum(axis=-1) <= radius**2
    return Volume(inside, grid)


def road(own: Volume, to_native: RigidTransform = STAY) -> tuple[list[Node], NativeNodes]:
    """Own contours through the road from the crop on, as `pipeline.finish` takes them."""
    on_crop = pull_labels(own.with_array(contours(own.array, (1,))), CROP, to_native)
    nodes = split_nodes(on_crop, fg_labels=(2,), axes=False)
    return nodes, native_nodes(nodes, CROP, own, to_native, midline_x=0.0)


def check_whole(own: Volume, home: NativeNodes) -> None:
    """Every voxel of the contours is in one node or told of, and no other voxel is in one."""
    voxel = own.grid.voxel_volume_mm3
    assert not (home.map.array[~own.array]).any()
    lost = sum(part.volume_mm3 for part in home.no_node)
    total = sum(place.volume_mm3 for place in home.places) + lost
    assert total == pytest.approx(own.array.sum() * voxel, rel=1e-12)
    counted = np.bincount(home.map.array.ravel(), minlength=len(home.places) + 1)[1:] * voxel
    np.testing.assert_allclose(sorted(counted), sorted(place.volume_mm3 for place in home.places))


orders = st.permutations([0, 1, 2])
signs = st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3)
angles = st.tuples(*[st.floats(-40, 40)] * 3)
spacings = st.tuples(st.floats(0.8, 5.0), st.floats(0.7, 2.0), st.floats(0.7, 2.0))


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(orders, signs, angles, angles, spacings, st.floats(5, 14), st.floats(0, 1))
def test_nodes_are_the_contour_on_oblique_anisotropic_flipped_grids(
    order: Any, sign: Any, oblique: Any, moved: Any, spacing: Any, radius: Any, apart: Any
) -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = turn(moved)
    matrix[:3, 3] = (31.0, -12.0, -440.0)
    to_native = RigidTransform.from_matrix(matrix)
    axes = turn(oblique) @ np.eye(3)[:, ::-1][:, list(order)] * np.array(sign)
    middle = to_native.apply(MIDDLE)
    native = grid_around(middle, spacing, axes)
    second = middle + np.array([12.0, 7.0, 3.0]) * (0.6 + apart)  # touching, or apart; nothing is symmetric
    own = drawn(
        native, (middle, radius), (second, 0.6 * radius), (middle + np.array([-21.0, 9.0, -14.0]), 6.0)
    )
    nodes, home = road(own, to_native)
    assert nodes
    check_whole(own, home)
    assert home.in_crop == 1
    assert not home.no_node
    for place in home.places:
        assert place.long_axis_mm is not None
        assert place.short_axis_mm is not None
        assert 0 < place.short_axis_mm <= place.long_axis_mm + 1e-9


def plain(spacing: tuple[float, float, float] = (1.5, 1.0, 1.0), extent_mm: float = 80.0) -> Grid:
    return grid_around(MIDDLE, spacing, np.eye(3)[:, ::-1], extent_mm)


def test_a_ball_is_as_large_as_it_was_drawn_and_not_a_layer_larger() -> None:
    own = drawn(plain(), (MIDDLE, 9.78))  # 3,918 mm3
    (node,), home = road(own)
    (place,) = home.places
    assert place.volume_mm3 == own.array.sum() * 1.5
    assert place.volume_mm3 == pytest.approx(4 / 3 * math.pi * 9.78**3, rel=0.02)
    assert node.volume_before_mm3 > 1.4 * place.volume_mm3  # the published column keeps its layer
    assert place.long_axis_mm == pytest.approx(2 * 9.78, abs=1.0)


def test_two_nodes_that_touch_share_the_contour_without_a_voxel_in_both() -> None:
    apart = np.array([12.0, 16.0, 2.0])
    own = drawn(plain(), (MIDDLE, 12.0), (MIDDLE + apart, 11.0))
    nodes, home = road(own)
    assert len(nodes) == 2
    check_whole(own, home)
    large, small = home.places
    assert np.linalg.norm(np.array(large.centroid_lps_mm) - MIDDLE) < 2
    assert np.linalg.norm(np.array(small.centroid_lps_mm) - MIDDLE - apart) < 2


def test_a_hole_in_a_contour_stays_a_hole() -> None:
    own = drawn(plain(), (MIDDLE, 12.0))
    hole = drawn(plain(), (MIDDLE, 6.0)).array
    own = own.with_array(own.array & ~hole)
    _, home = road(own)
    check_whole(own, home)
    assert not home.map.array[hole].any()


def test_a_node_that_leaves_the_crop_is_measured_whole_and_says_so() -> None:
    edge = MIDDLE + np.array([0.0, 0.0, 99.0])  # the crop ends at z = 229 mm, half a voxel counted 230.5
    native = grid_around(edge, (2.0, 1.0, 1.0), np.eye(3)[:, ::-1])
    own = drawn(native, (edge, 11.0))
    (node,), home = road(own)
    (place,) = home.places
    assert node.touches_border
    assert 0.2 < home.in_crop < 0.8
    assert place.volume_mm3 == own.array.sum() * 2.0
    assert not place.touches_border


@pytest.mark.slow
def test_contours_wholly_outside_the_crop_are_told_and_are_no_node() -> None:
    native = grid_around(MIDDLE, (4.0, 2.0, 2.0), np.eye(3)[:, ::-1], extent_mm=320.0)
    far = MIDDLE + np.array([0.0, 0.0, 140.0])
    own = drawn(native, (MIDDLE, 10.0), (far, 10.0))
    nodes, home = road(own)
    assert len(nodes) == 1
    check_whole(own, home)
    (lost,) = home.no_node
    assert lost.outside
    np.testing.assert_allclose(lost.centroid_lps_mm, far, atol=1.0)
    (said,) = contour_warnings(home.no_node)
    assert "outside the crop" in said
    assert f"{lost.volume_mm3:.4g} mm3" in said
    assert "(0, -10, 275) mm LPS" in said


def test_single_voxels_and_thin_sheets_that_vanish_on_the_crop_are_told() -> None:
    native = plain((0.5, 0.5, 0.5), 60.0)
    own = drawn(native, (MIDDLE, 9.0)).array.copy()
    own[4, 60, 60] = True  # a single voxel
    z = int(np.floor(native.indices(CROP.points((31, 80, 80)))[0])) + 3  # between two slices of the crop
    own[z, 2:22, 2:22] = True  # 10 x 10 x 0.5 mm
    nodes, home = road(Volume(own, native))
    assert len(nodes) == 1
    check_whole(Volume(own, native), home)
    assert [part.volume_mm3 for part in home.no_node] == [50.0, 0.125]
    assert not any(part.outside for part in home.no_node)
    (said,) = contour_warnings(home.no_node)
    assert said.startswith("2 parts of the contours of nodes (50.12 mm3) are too small for a node")


def test_no_contour_at_all_is_no_node_and_no_word() -> None:
    nodes, home = road(drawn(plain()))
    assert (nodes, home.places, home.no_node, home.in_crop) == ([], (), (), 1.0)


def test_a_segmentation_of_the_crop_comes_home_as_its_contour() -> None:
    """The network's way: the contour on the CT is the crop's, by nearest neighbour; nothing around it."""
    z, y, x = np.indices(CROP.size, sparse=True)
    labels = (((z - 30) * 3) ** 2 + (y - 70) ** 2 + (x - 90) ** 2 <= 12**2).astype(np.uint8) * 2
    labels[10, 20, 20] = 2  # a speck of the network's
    found = Volume(labels, CROP)
    (node,) = split_nodes(found, fg_labels=(2,), axes=False)
    home = native_nodes([node], CROP, Volume(labels == 2, CROP), STAY, midline_x=0.0)
    np.testing.assert_array_equal(home.map.array, node.contour)
    assert home.places[0].volume_mm3 == node.contour_mm3 == (labels == 2).sum() * 3 - 3
    assert [part.volume_mm3 for part in home.no_node] == [3.0]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_axes_are_axial_whatever_axis_of_the_array_runs_upright(order: tuple[int, ...]) -> None:
    own = np.zeros((12, 40, 30), bool)
    own[3:9, 5:26, 8:19] = True  # 21 rows of 0.8 mm, 11 columns of 1.1 mm
    spacing, directions = np.array([2.5, 0.8, 1.1]), np.eye(3)[::-1]
    grid = Grid(
        tuple(np.array(own.shape)[list(order)]),
        tuple(spacing[list(order)]),
        tuple(MIDDLE - 10),
        (triple(directions[order[0]]), triple(directions[order[1]]), triple(directions[order[2]])),
    )
    _, home = road(Volume(own.transpose(order), grid))
    (place,) = home.places
    height, width = 20 * 0.8, 10 * 1.1
    diagonal = math.hypot(height, width)
    assert place.long_axis_mm == pytest.approx(diagonal)
    assert place.short_axis_mm == pytest.approx(2 * height * width / diagonal)


def test_axes_of_a_contour_in_closed_form_and_at_its_limits() -> None:
    line = np.zeros((3, 9, 9), bool)
    line[1, 4, 2:8] = True
    assert axial_axes(line, (3.0, 0.5, 0.7)) == pytest.approx((5 * 0.7, 0.0))
    line[:] = False
    assert axial_axes(line, (3.0, 0.5, 0.7)) == (0.0, 0.0)
    line[1, 4, 4] = True
    assert axial_axes(line, (3.0, 0.5, 0.7)) == (0.0, 0.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.tuples(st.booleans(), st.booleans()))
def test_axes_do_not_change_where_rows_or_columns_run_the_other_way(seed: Any, flips: Any) -> None:
    plane = np.random.default_rng(seed).random((1, 7, 9)) < 0.4
    other = np.flip(plane, tuple(axis + 1 for axis in range(2) if flips[axis]))
    assert axial_axes(plane, (1.0, 0.6, 0.9)) == pytest.approx(axial_axes(other, (1.0, 0.6, 0.9)), abs=1e-9)


def test_labels_come_in_the_values_of_the_label_map() -> None:
    given = np.array([0, 1, 2, 3, 255], np.uint8)
    assert contours(given, (2,)).tolist() == [0, 1, 2, 0, 0]
    assert contours(given, (255,)).tolist() == [0, 1, 0, 0, 2]
    assert contours(given, (1, 3)).tolist() == [0, 2, 0, 2, 0]  # what is chosen as a node is no primary
    assert contours(given, parse_fg_labels("any")).tolist() == [0, 2, 2, 2, 2]
    assert contours(given, (1,), primary=2).tolist() == [0, 2, 1, 0, 0]
    assert contours(given, (1,), primary=None).tolist() == [0, 2, 0, 0, 0]


def test_labels_that_no_segmenter_gives_are_refused_before_anything_is_run() -> None:
    known = {"GTVp": 1, "GTVn": 2}
    for text in ("2", "any", "1,3"):
        check_known(text, parse_fg_labels(text), known)
    with pytest.raises(UsageError, match=r"--fg-labels 3: .* it gives 1 \(GTVp\), 2 \(GTVn\)"):
        check_known("3", (3,), known)
