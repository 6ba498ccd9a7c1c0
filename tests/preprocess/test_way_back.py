"""What is found on the crop comes back to where it lies in the patient."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from aiene.geometry.grid import Grid, RigidTransform, Triple, Volume
from aiene.ingest.case import NativeCt
from aiene.preprocess.preprocess import Prepared, prepare, to_native
from aiene.preprocess.profile import OPEN
from aiene.preprocess.registration import Template
from aiene.preprocess.registration_quality import RegistrationReport
from builders.head_phantom import NODE_HU, SPHERES, Head, turned_grid

CROP = Grid((64, 160, 160), (3.0, 1.0, 1.0), (-80.0, -75.0, -96.0))
REPORT = RegistrationReport("geometry", -1.0, (), 1.0, 0.0, 0.0, 1.0, None, True)
ORDERS = st.permutations([0, 1, 2])
# Two parallel lattices beat: at 1.7 mm nearest neighbours miss a sphere's volume by 9 %, whatever the code
# does. So the lattices are turned against each other here, by up to 20 degrees in all.
TURNS = st.floats(3.0, 11.5) | st.floats(-11.5, -3.0)
SIGNS = st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3)


def rigid(angles: tuple[float, float, float], shift: Triple) -> RigidTransform:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return RigidTransform.from_matrix(matrix)


def centroids(labels: Volume) -> dict[int, tuple[np.ndarray, float]]:
    """Centroid (LPS mm) and volume (mm3) of each label, by SimpleITK's label statistics."""
    image = sitk.GetImageFromArray(labels.array)
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(image)
    return {
        n: (
            labels.grid.points(shape.GetCentroid(n)[::-1]),
            shape.GetPhysicalSize(n) * labels.grid.voxel_volume_mm3,
        )
        for n in shape.GetLabels()
    }


@pytest.fixture(scope="module")
def spheres() -> Volume:
    """The spheres' labels on the crop."""
    points = CROP.points(np.moveaxis(np.indices(CROP.size), 0, -1).reshape(-1, 3))
    labels = np.zeros(len(points), np.uint8)
    for n, (*centre, radius) in enumerate(SPHERES, start=1):
        labels[((points - centre) ** 2).sum(axis=1) <= radius**2] = n
    return Volume(labels.reshape(CROP.size), CROP)


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(
    st.tuples(*[TURNS] * 3),
    st.tuples(*[st.floats(-60, 60)] * 3),
    ORDERS,
    SIGNS,
    st.tuples(*[st.floats(0.8, 2.0)] * 3),
)
def test_planted_spheres_come_back_through_any_turn_shift_and_axis_order(
    spheres: Volume,
    angles: tuple[float, float, float],
    shift: Triple,
    order: list[int],
    signs: tuple[float, float, float],
    spacing: Triple,
) -> None:
    pose = rigid(angles, shift)
    native = turned_grid((order[0], order[1], order[2]), signs, spacing)
    # The native grid moves along, so that the spheres lie within it.
    moved = Grid(native.size, native.spacing, tuple(np.add(native.origin, shift).tolist()), native.direction)
    back = to_native(spheres, Prepared(spheres, moved, pose, REPORT))
    found = centroids(back)
    assert sorted(found) == [1, 2, 3, 4, 5]
    for n, (*centre, radius) in enumerate(SPHERES, start=1):
        place, volume = found[n]
        assert np.linalg.norm(place - pose.apply(centre)) <= moved.voxel_diagonal_mm
        assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.05)


@pytest.fixture(scope="module")
def standard() -> Template:
    """A template of the same head, without spheres and upright."""
    grid = Grid((110, 125, 125), (3.0, 2.0, 2.0), (-124.0, -124.0, -140.0))
    return Template(Head(spheres=()).on(grid), (0.0, 0.0, 0.0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "signs", "spacing", "angles", "shift"),
    [
        ((0, 1, 2), (1, 1, 1), (2.5, 1.5, 1.5), (12, -8, 9), (15, -20, 40)),
        ((0, 1, 2), (-1, 1, 1), (3.0, 2.0, 1.5), (-14, 6, -8), (-25, 10, -700)),
        ((2, 0, 1), (-1, -1, 1), (1.5, 2.5, 2.0), (-10, 5, 14), (120, 30, 300)),
        ((1, 2, 0), (1, -1, -1), (2.0, 1.5, 2.2), (9, 10, -12), (0, -400, 12)),
    ],
    ids=["axial", "left-handed", "sagittal", "coronal"],
)
def test_spheres_seen_on_the_crop_of_a_turned_head_come_back_to_their_native_place(
    standard: Template,
    order: tuple[int, int, int],
    signs: tuple[float, float, float],
    spacing: Triple,
    angles: tuple[float, float, float],
    shift: Triple,
) -> None:
    head = Head(rigid(angles, shift))
    grid = turned_grid(order, signs, spacing)
    moved = Grid(grid.size, grid.spacing, tuple(np.add(grid.origin, shift).tolist()), grid.direction)
    prepared = prepare(NativeCt(head.on(moved), 8), standard, OPEN)
    back = to_native(nodes_seen(prepared.crop), prepared)
    found = list(centroids(back).values())
    assert prepared.registration.trusted
    assert len(found) == len(SPHERES)
    for centre, (*_, radius) in zip(head.centres(), SPHERES, strict=True):
        place, volume = min(found, key=lambda node: float(np.linalg.norm(node[0] - centre)))
        assert np.linalg.norm(place - centre) <= moved.voxel_diagonal_mm
        assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.05)


def nodes_seen(crop: Volume) -> Volume:
    """Bright parts of a sphere's size: found in the image alone."""
    middle = ((NODE_HU + 40) / 2 + 175) / 450
    parts, n = ndimage.label(crop.array > middle)
    sizes = np.bincount(parts.ravel(), minlength=n + 1) * crop.grid.voxel_volume_mm3
    keep = [k for k in range(1, n + 1) if 3000 < sizes[k] < 12000]
    return crop.with_array(np.where(np.isin(parts, keep), parts, 0).astype(np.uint16))
