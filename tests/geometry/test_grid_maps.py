"""Grids against SimpleITK, on any lattice: oblique, left-handed, flipped, anisotropic."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from aiene.geometry.grid import Grid, RigidTransform, Volume, grid_of, to_sitk, triple, volume_of
from aiene.geometry.resample import pull_labels, resample

ANGLES = st.tuples(*[st.floats(-180, 180, width=32, allow_subnormal=False)] * 3)
PERMUTATIONS = st.permutations([0, 1, 2])
SIGNS = st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3)
SPACINGS = st.tuples(*[st.floats(0.3, 6.0)] * 3)
ORIGINS = st.tuples(*[st.floats(-900, 900)] * 3)
SIZES = st.tuples(*[st.integers(1, 12)] * 3)
INDICES = st.lists(st.tuples(*[st.floats(-20, 20)] * 3), min_size=1, max_size=5)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """A lattice of any axis order and sign, turned at will."""
    axes = np.eye(3)[list(draw(PERMUTATIONS))] * np.array(draw(SIGNS))[:, None]
    turned = axes @ Rotation.from_euler("xyz", draw(ANGLES), degrees=True).as_matrix().T
    z, y, x = (tuple(float(v) for v in row) for row in turned)
    return Grid(draw(SIZES), draw(SPACINGS), draw(ORIGINS), (triple(z), triple(y), triple(x)))


@st.composite
def rigids(draw: st.DrawFn) -> RigidTransform:
    """Any turn and shift."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", draw(ANGLES), degrees=True).as_matrix()
    matrix[:3, 3] = draw(ORIGINS)
    return RigidTransform.from_matrix(matrix)


def image_on(grid: Grid) -> sitk.Image:
    """An empty SimpleITK image, its geometry set by hand (not by the code under test)."""
    image = sitk.Image([int(n) for n in grid.size[::-1]], sitk.sitkUInt8)
    image.SetSpacing(grid.spacing[::-1])
    image.SetOrigin(grid.origin)
    z, y, x = grid.direction
    image.SetDirection([x[0], y[0], z[0], x[1], y[1], z[1], x[2], y[2], z[2]])
    return image


@given(grids(), INDICES)
@pytest.mark.slow
def test_points_of_indices_are_those_of_simpleitk(grid: Grid, indices: list[tuple[float, ...]]) -> None:
    image = image_on(grid)
    expected = [image.TransformContinuousIndexToPhysicalPoint(i[::-1]) for i in indices]
    np.testing.assert_allclose(grid.points(indices), expected, atol=1e-6)


@given(grids(), INDICES)
@pytest.mark.slow
def test_indices_of_points_are_those_of_simpleitk(grid: Grid, indices: list[tuple[float, ...]]) -> None:
    image = image_on(grid)
    points = [image.TransformContinuousIndexToPhysicalPoint(i[::-1]) for i in indices]
    back = [image.TransformPhysicalPointToContinuousIndex(p)[::-1] for p in points]
    np.testing.assert_allclose(grid.indices(points), back, atol=1e-6)
    np.testing.assert_allclose(grid.indices(points), indices, atol=1e-6)


@given(grids(), grids(), INDICES)
@pytest.mark.slow
def test_the_index_map_leads_through_physical_space(
    a: Grid, b: Grid, indices: list[tuple[float, ...]]
) -> None:
    homogeneous = np.c_[indices, np.ones(len(indices))]
    there = (homogeneous @ a.index_map(b).T)[:, :3]
    np.testing.assert_allclose(a.points(there), b.points(indices), atol=1e-6)


@given(grids())
@pytest.mark.slow
def test_the_bridge_to_simpleitk_keeps_every_voxel_in_its_place(grid: Grid) -> None:
    array = np.arange(np.prod(grid.size), dtype=np.int32).reshape(grid.size)
    image = to_sitk(Volume(array, grid))
    last = tuple(n - 1 for n in grid.size)
    assert image[tuple(int(i) for i in last[::-1])] == array[last]
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(last[::-1]), grid.points(last), atol=1e-6)
    shift, turn = grid.differences(grid_of(image))
    assert (shift, turn) == pytest.approx((0, 0), abs=1e-9)
    np.testing.assert_array_equal(volume_of(image).array, array)


@given(grids(), st.tuples(*[st.integers(-5, 5)] * 3), SIZES)
def test_a_crop_keeps_its_voxels_where_they_were(
    grid: Grid, start: tuple[int, ...], size: tuple[int, ...]
) -> None:
    crop = grid.crop((start[0], start[1], start[2]), (size[0], size[1], size[2]))
    np.testing.assert_allclose(crop.points((1, 2, 3)), grid.points(np.add(start, (1, 2, 3))), atol=1e-6)
    assert crop.spacing == grid.spacing


@given(grids())
def test_an_affine_gives_its_grid_back(grid: Grid) -> None:
    again = Grid.from_affine(grid.affine, grid.size)
    shift, turn = grid.differences(again)
    assert (shift, turn) == pytest.approx((0, 0), abs=1e-9)
    assert again.spacing == pytest.approx(grid.spacing)


@given(rigids(), INDICES)
def test_a_rigid_transform_and_its_inverse_cancel(
    rigid: RigidTransform, points: list[tuple[float, ...]]
) -> None:
    np.testing.assert_allclose(rigid.inverse().apply(rigid.apply(points)), points, atol=1e-7)


@given(rigids(), rigids(), INDICES)
@pytest.mark.slow
def test_after_applies_the_first_transform_first(
    second: RigidTransform, first: RigidTransform, points: list[tuple[float, ...]]
) -> None:
    expected = second.apply(first.apply(points))
    np.testing.assert_allclose(second.after(first).apply(points), expected, atol=1e-6)


@given(st.floats(-179, 179), st.sampled_from(["x", "y", "z"]))
def test_the_angle_is_the_size_of_the_turn(angle: float, axis: str) -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler(axis, angle, degrees=True).as_matrix()
    # The arc cosine loses half the digits near 0.
    assert RigidTransform.from_matrix(matrix).angle_degrees == pytest.approx(abs(angle), abs=1e-5)


def sitk_transform(rigid: RigidTransform) -> sitk.AffineTransform:
    """The same transform, written down for SimpleITK."""
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(np.ravel(rigid.rotation).tolist())
    transform.SetTranslation(rigid.translation)
    return transform


@st.composite
def overlapping(draw: st.DrawFn) -> tuple[Volume, Grid, RigidTransform]:
    """A random volume, a grid somewhere on it, and a turn between their spaces."""
    source, onto, rigid = draw(grids()), draw(grids()), draw(rigids())
    middle = rigid.apply(onto.centre)
    shift = tuple(float(v) for v in np.array(source.centre) - middle + np.array(rigid.translation))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = rng.integers(0, 4, source.size).astype(np.uint8)
    return Volume(labels, source), onto, RigidTransform(rigid.rotation, (shift[0], shift[1], shift[2]))


@settings(deadline=None)
@given(overlapping())
@pytest.mark.slow
def test_pulled_labels_are_simpleitks_nearest_neighbours(scene: tuple[Volume, Grid, RigidTransform]) -> None:
    labels, onto, rigid = scene
    reference = sitk.Resample(
        to_sitk(labels), image_on(onto), sitk_transform(rigid), sitk.sitkNearestNeighbor, 0.0, sitk.sitkUInt8
    )
    expected = sitk.GetArrayFromImage(reference)
    found = pull_labels(labels, onto, rigid).array
    points = rigid.apply(onto.points(np.argwhere(np.ones(onto.size, bool))))
    at = labels.grid.indices(points).reshape(*onto.size, 3)
    # Where a voxel's centre lies between two labels to the last digit, either is right.
    clear = (np.abs(at - np.floor(at) - 0.5) > 1e-6).all(axis=-1)
    np.testing.assert_array_equal(found[clear], expected[clear])


# The same scenes each time: ITK steps along a row, and its rounding rarely exceeds the tolerance.
@settings(deadline=None, derandomize=True)
@given(overlapping())
@pytest.mark.slow
def test_linear_sampling_is_simpleitks_within_the_outermost_centres(
    scene: tuple[Volume, Grid, RigidTransform],
) -> None:
    labels, onto, rigid = scene
    volume = labels.with_array(labels.array.astype(np.float64) * 100)
    reference = sitk.Resample(
        to_sitk(volume), image_on(onto), sitk_transform(rigid), sitk.sitkLinear, -1.0, sitk.sitkFloat64
    )
    found = resample(volume, onto, order=1, outside=-1.0, world=rigid).array
    points = rigid.apply(onto.points(np.argwhere(np.ones(onto.size, bool))))
    at = labels.grid.indices(points).reshape(*onto.size, 3)
    within = ((at > 1e-6) & (at < np.array(labels.grid.size) - 1 - 1e-6)).all(axis=-1)
    np.testing.assert_allclose(found[within], sitk.GetArrayFromImage(reference)[within], atol=1e-3)


FOOT = np.zeros((9, 11, 13), np.uint8)
FOOT[2:7, 3, 4] = 1  # long in z,
FOOT[2, 3:6, 4] = 2  # shorter in y,
FOOT[2, 3, 4:6] = 3  # shortest in x: no flip or swap leaves it as it is


@given(ANGLES, SPACINGS)
@pytest.mark.slow
def test_a_crop_and_the_way_back_leave_every_voxel_in_its_place(
    angles: tuple[float, float, float], spacing: tuple[float, float, float]
) -> None:
    z, y, x = (
        tuple(float(v) for v in row) for row in Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    )
    native = Volume(FOOT, Grid((9, 11, 13), spacing, (-31.0, 12.5, 700.0), (triple(z), triple(y), triple(x))))
    crop = native.grid.crop(start=(1, 2, 3), size=(7, 6, 5))
    there = pull_labels(native, crop)
    np.testing.assert_array_equal(there.array, FOOT[1:8, 2:8, 3:8])
    np.testing.assert_array_equal(pull_labels(there, native.grid).array, FOOT)


@pytest.mark.parametrize(
    ("size", "spacing", "direction"),
    [
        ((0, 2, 2), (1.0, 1.0, 1.0), ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))),
        ((2, 2, 2), (0.0, 1.0, 1.0), ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))),
        ((2, 2, 2), (float("nan"), 1.0, 1.0), ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))),
        ((2, 2, 2), (1.0, 1.0, 1.0), ((0.0, 0.1, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))),
    ],
)
def test_what_is_no_lattice_is_refused(
    size: tuple[int, int, int],
    spacing: tuple[float, float, float],
    direction: tuple[tuple[float, float, float], ...],
) -> None:
    with pytest.raises(ValueError, match=r"grid|space|orthonormal"):
        Grid(size, spacing, (0.0, 0.0, 0.0), direction)  # type: ignore[arg-type]


def test_an_array_of_another_shape_finds_no_place() -> None:
    grid = Grid((2, 3, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="shape"):
        Volume(np.zeros((4, 3, 2)), grid)


def test_a_mirror_is_no_rigid_transform() -> None:
    with pytest.raises(ValueError, match="mirrors"):
        RigidTransform(((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))


def test_an_empty_label_map_comes_back_empty() -> None:
    grid = Grid((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    far = Grid((4, 4, 4), (1.0, 1.0, 1.0), (500.0, 0.0, 0.0))
    assert pull_labels(Volume(np.zeros((4, 4, 4), np.uint8), grid), grid).array.max() == 0
    assert pull_labels(Volume(np.ones((4, 4, 4), np.uint8), grid), far).array.max() == 0
