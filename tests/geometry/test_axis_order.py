"""One order of axes for every storage order of the same voxels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from aiene.geometry.grid import AXIAL, ORDERS, AxisOrder, Grid, Volume, triple

ANGLES = st.tuples(*[st.floats(-180, 180, width=32, allow_subnormal=False)] * 3)


def oblique(
    angles: tuple[float, float, float], spacing: tuple[float, float, float] = (3.0, 0.7, 1.1)
) -> Grid:
    """A small lattice, no two sizes alike, turned about x, y, z by degrees."""
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    z, y, x = (tuple(float(v) for v in turn @ axis) for axis in AXIAL)
    return Grid((2, 3, 4), spacing, (-120.3, 44.7, 810.1), (triple(z), triple(y), triple(x)))


def numbered(grid: Grid) -> Volume:
    return Volume(np.arange(np.prod(grid.size)).reshape(grid.size), grid)


@settings(deadline=None, max_examples=30)
@given(ANGLES, st.tuples(*[st.floats(0.3, 6.0)] * 3), st.sampled_from(ORDERS))
def test_reordering_moves_no_voxel(
    angles: tuple[float, float, float], spacing: tuple[float, float, float], order: AxisOrder
) -> None:
    volume = numbered(oblique(angles, spacing))
    stored = volume.reordered(order)
    for index in np.ndindex(stored.grid.size):
        there = np.unravel_index(stored.array[index], volume.grid.size)
        np.testing.assert_allclose(stored.grid.points(index), volume.grid.points(there), atol=1e-9)


@settings(deadline=None, max_examples=12)
@given(ANGLES)
@pytest.mark.slow
def test_all_48_orders_of_an_oblique_ct_lead_to_one(angles: tuple[float, float, float]) -> None:
    volume = numbered(oblique(angles))
    first = volume.anatomical()
    assert np.linalg.det(first.grid.direction) * np.linalg.det(AXIAL) > 0
    for order in ORDERS:
        again = volume.reordered(order).anatomical()
        np.testing.assert_array_equal(again.array, first.array)
        assert (again.grid.size, again.grid.spacing) == (first.grid.size, first.grid.spacing)
        assert again.grid.direction == first.grid.direction  # to the bit
        np.testing.assert_allclose(again.grid.origin, first.grid.origin, atol=1e-9)


@pytest.mark.parametrize("rounded", [16, 6])
@pytest.mark.parametrize(
    "angles", [(45, 0, 0), (0, 45, 0), (0, 0, 45), (45, 45, 0), (0, -45, 135), (54.7356103172, 45, 0)]
)
def test_a_tie_is_broken_alike_in_all_48_orders(angles: tuple[float, float, float], rounded: int) -> None:
    """Also where the header's cosines are rounded, each stored order in its own way."""
    volume, rng = numbered(oblique(angles)), np.random.default_rng(1)
    kept = volume.anatomical().array
    for order in ORDERS:
        stored = volume.reordered(order)
        noise = rng.uniform(-0.5, 0.5, (3, 3)) * 10.0**-rounded
        z, y, x = (tuple(float(v) for v in row) for row in np.array(stored.grid.direction) + noise)
        header = Grid(
            stored.grid.size, stored.grid.spacing, stored.grid.origin, (triple(z), triple(y), triple(x))
        )
        np.testing.assert_array_equal(Volume(stored.array, header).anatomical().array, kept)


@settings(deadline=None, max_examples=30)
@given(st.tuples(*[st.floats(-20, 20)] * 3))
def test_an_axial_stack_that_rises_to_the_head_stays_as_it_is(angles: tuple[float, float, float]) -> None:
    volume = numbered(oblique(angles))
    assert volume.grid.anatomical_order().is_identity
    assert volume.anatomical().grid == volume.grid
    assert np.shares_memory(volume.anatomical().array, volume.array)


def test_a_sagittal_stack_from_the_right_becomes_axial() -> None:
    sagittal = Grid((4, 2, 3), (1.1, 3.0, 0.7), (-5.0, 6.0, 7.0), ((-1, 0, 0), (0, 0, -1), (0, 1, 0)))
    found = numbered(sagittal).anatomical().grid
    assert (found.size, found.spacing, found.direction) == ((2, 3, 4), (3.0, 0.7, 1.1), AXIAL)
    np.testing.assert_allclose(found.origin, (-5.0 - 3 * 1.1, 6.0, 7.0 - 3.0))
