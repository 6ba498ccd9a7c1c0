"""Profile `open`: how a CT is stored, and what lies around the patient, changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from aiene.geometry.grid import AXIAL, ORDERS, AxisOrder, Grid, RigidTransform, Volume, triple
from aiene.ingest.case import NativeCt
from aiene.preprocess.patient import patient_of
from aiene.preprocess.preprocess import prepare
from aiene.preprocess.profile import OPEN
from aiene.preprocess.registration import Template
from aiene.preprocess.resampling import Working, open_working
from builders.head_phantom import Head

PADDINGS = [
    (((0, 0), (0, 0), (0, 0)), -1000.0),
    (((0, 3), (7, 1), (2, 11)), -1024.0),
    (((5, 1), (0, 13), (6, 0)), -3024.0),
]


def padded(volume: Volume, wide: tuple[tuple[int, int], ...], hu: float) -> Volume:
    """More of nothing around a volume."""
    (z, y, x), array = (low for low, _ in wide), np.pad(volume.array, wide, constant_values=hu)
    return Volume(array, volume.grid.crop((-z, -y, -x), array.shape))


@pytest.fixture(scope="module")
def ct() -> Volume:
    """A turned head on a turned anisotropic lattice, cut off below and above, with noise."""
    turn = Rotation.from_euler("xyz", (7, -4, 11), degrees=True).as_matrix()
    z, y, x = (tuple(float(v) for v in turn @ axis) for axis in AXIAL)
    size, spacing = np.array((34, 60, 70)), np.array((5.0, 4.4, 4.1))
    first = np.array([4.0, -3.0, 12.0]) - ((size - 1) / 2 * spacing) @ np.array([z, y, x])
    grid = Grid((34, 60, 70), (5.0, 4.4, 4.1), triple(first), (triple(z), triple(y), triple(x)))
    head = Head(RigidTransform(translation=(3.0, 5.0, -2.0))).on(grid)
    noise = np.random.default_rng(3).normal(0, 12, grid.size).astype(np.float32)
    return head.with_array(np.where(head.array > -900, head.array + noise, head.array))


@pytest.fixture(scope="module")
def working(ct: Volume) -> Working:
    return open_working(NativeCt(ct, 8), OPEN)


@pytest.fixture(scope="module")
def template() -> Template:
    grid = Grid((66, 62, 62), (5.0, 4.0, 4.0), (-122.0, -122.0, -140.0))
    return Template(Head(spheres=()).on(grid), (0.0, 0.0, 0.0))


def assert_same(found: Working, expected: Working) -> None:
    """What registration and crop are made from, to the bit, at the same place."""
    np.testing.assert_array_equal(found.volume.array, expected.volume.array)
    assert found.volume.grid == expected.volume.grid
    shift = np.subtract(found.to_native.translation, expected.to_native.translation)
    np.testing.assert_allclose(shift, 0, atol=1e-9)
    for point in ((0, 0, 0), np.subtract(expected.known.size, 1)):
        np.testing.assert_allclose(found.known.points(point), expected.known.points(point), atol=1e-9)
    assert found.known.size == expected.known.size


@pytest.mark.slow
@pytest.mark.parametrize(("wide", "hu"), PADDINGS)
def test_the_same_bits_are_registered_in_all_48_orders(
    ct: Volume, working: Working, wide: tuple[tuple[int, int], ...], hu: float
) -> None:
    around = padded(ct, wide, hu)
    for order in ORDERS:
        assert_same(open_working(NativeCt(around.reordered(order), 8), OPEN), working)


def test_blocks_of_thin_voxels_are_the_same_in_every_order_and_padding() -> None:
    """Voxels so small that they are averaged, for the body's mask and for the crop."""
    rng = np.random.default_rng(7)
    points = np.moveaxis(np.indices((55, 150, 140)), 0, -1) * (1.3, 0.45, 0.4) - (36.0, 34.0, 28.0)
    hu = np.where((points**2 / (33.0**2, 30.0**2, 24.0**2)).sum(axis=-1) < 1, 40.0, -1000.0)
    hu += np.where(hu > 0, rng.normal(0, 40, hu.shape), 0)
    z, y, x = (tuple(float(v) for v in row) for row in Rotation.from_euler("x", 45, degrees=True).as_matrix())
    thin = Volume(
        hu.astype(np.int16),
        Grid((55, 150, 140), (1.3, 0.45, 0.4), (0.0, 0.0, 0.0), (triple(z), triple(y), triple(x))),
    )
    first = open_working(NativeCt(thin, 2), OPEN)
    assert min(first.volume.grid.spacing) > 0.8
    for order, (wide, pad) in zip(ORDERS[5::9], PADDINGS * 2, strict=False):
        assert_same(open_working(NativeCt(padded(thin, wide, pad).reordered(order), 2), OPEN), first)


def test_what_the_registration_sees_is_the_ct_at_its_place(ct: Volume, working: Working) -> None:
    """Whole blocks of the CT's own voxels: at 4 to 5 mm none is averaged."""
    points = working.to_native.apply(
        working.volume.grid.points(np.argwhere(np.ones(working.volume.grid.size, bool)))
    )
    at = ct.grid.indices(points)
    np.testing.assert_allclose(at, np.rint(at), atol=1e-3)
    index = np.rint(at).astype(int)
    inside = ((index >= 0) & (index < ct.grid.size)).all(axis=1)
    values = working.volume.array.ravel()
    np.testing.assert_allclose(values[inside], ct.array[tuple(index[inside].T)], atol=1e-3)
    assert (values[~inside] == -1000).all()


@pytest.mark.parametrize("bright", [3071.0, 58_976.0, 1e8, 1e30, -1e30])
def test_nothing_outside_the_patient_moves_anything(ct: Volume, working: Working, bright: float) -> None:
    spoilt = ct.array.copy()
    spoilt[0, 0, 0] = spoilt[-1, -1, 0] = bright  # single voxels far from the patient
    spoilt[3:8, 1:3, 60:69] = min(bright, 2e4)  # a thing that lies there
    assert_same(open_working(NativeCt(ct.with_array(spoilt), 8), OPEN), working)


def test_couch_and_corners_below_air_move_nothing(ct: Volume, working: Working) -> None:
    rows, columns = np.mgrid[: ct.grid.size[1], : ct.grid.size[2]]
    outside = (rows - 29.5) ** 2 / 29.5**2 + (columns - 34.5) ** 2 / 34.5**2 > 1
    spoilt = ct.array.copy()
    assert (spoilt[:, outside] == -1000).all()
    spoilt[:, outside] = -3024
    spoilt[:, -1, 10:60] = 50  # a couch of one voxel
    assert_same(open_working(NativeCt(ct.with_array(spoilt), 8), OPEN), working)


def test_a_damaged_voxel_within_the_patient_is_no_brighter_than_metal(ct: Volume) -> None:
    spoilt = [ct.array.copy() for _ in range(3)]
    for array, value in zip(spoilt, (3071.0, 1e8, 1e30), strict=True):
        array[17, 30, 35] = value
    metal, *damaged = (open_working(NativeCt(ct.with_array(array), 8), OPEN) for array in spoilt)
    for found in damaged:
        assert_same(found, metal)
    assert metal.volume.array.max() == 3071


def test_digits_beyond_what_headers_hold_do_not_count(ct: Volume, working: Working) -> None:
    rng = np.random.default_rng(5)
    for _ in range(10):
        moved: dict[str, Any] = {
            "spacing": tuple(np.array(ct.grid.spacing) * (1 + rng.uniform(-1e-8, 1e-8, 3))),
            "origin": tuple(np.array(ct.grid.origin) + rng.uniform(-3e-5, 3e-5, 3)),
            "direction": tuple(tuple(v + rng.uniform(-1e-8, 1e-8, 3)) for v in np.array(ct.grid.direction)),
        }
        grid = replace(ct.grid, **moved)
        found = open_working(NativeCt(Volume(ct.array, grid), 8), OPEN)
        np.testing.assert_array_equal(found.volume.array, working.volume.array)
        assert found.volume.grid == working.volume.grid
        np.testing.assert_allclose(found.to_native.translation, working.to_native.translation, atol=1e-3)


def test_the_frame_is_the_patients_whatever_place_the_scanner_gives(ct: Volume, working: Working) -> None:
    elsewhere = Volume(ct.array, replace(ct.grid, origin=tuple(np.add(ct.grid.origin, (300, -900.4, 55)))))
    found = open_working(NativeCt(elsewhere, 8), OPEN)
    assert found.volume.grid == working.volume.grid
    shift = np.subtract(found.to_native.translation, working.to_native.translation)
    np.testing.assert_allclose(shift, (300, -900.4, 55), atol=1e-9)


def test_no_air_is_made_up_where_the_ct_cuts_the_patient(ct: Volume, working: Working) -> None:
    patient = patient_of(ct)
    assert patient.cut[0] == (True, True)  # through the shoulders, and through the skull
    assert working.volume.grid.size[0] == ct.grid.size[0]
    assert patient.cut[2] == (False, False)


def test_a_ct_cut_close_beside_the_patient_ends_there(ct: Volume) -> None:
    narrow = Volume(ct.array[:, :, 25:], ct.grid.crop((0, 0, 25), (34, 60, 45)))
    (_, _, (left, right)), found = patient_of(narrow).cut, open_working(NativeCt(narrow, 8), OPEN)
    assert (left, right) == (True, False)
    edge = narrow.grid.points((17, 30, 0))
    assert found.known.indices(edge)[2] == pytest.approx(0)


@pytest.mark.slow
@pytest.mark.parametrize(("order", "wide", "hu"), [(ORDERS[13], *PADDINGS[2]), (ORDERS[30], *PADDINGS[1])])
def test_the_crop_and_its_way_back_are_the_same_however_the_ct_is_stored(
    ct: Volume, template: Template, order: AxisOrder, wide: tuple[tuple[int, int], ...], hu: float
) -> None:
    profile = replace(OPEN, rescue=False, registration=replace(OPEN.registration, iterations=20))
    first = prepare(NativeCt(ct, 8), template, profile)
    stored = padded(ct, wide, hu).reordered(order)
    again = prepare(NativeCt(stored, 2), template, profile)
    np.testing.assert_array_equal(again.crop.array, first.crop.array)
    assert again.crop.grid == first.crop.grid
    assert again.registration == first.registration
    assert again.warnings == first.warnings
    assert again.native == stored.grid
    np.testing.assert_allclose(again.to_native.matrix, first.to_native.matrix, atol=1e-9)
