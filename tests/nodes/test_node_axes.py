"""Axes: closed forms, and the package `feret` as an independent reference."""

from __future__ import annotations

import feret
import numpy as np
import pytest
import SimpleITK as sitk

from aiene.nodes.split import _to_cubes, convex_corners, feret_axes, measure_axes


def test_a_box_has_the_axes_of_its_sides() -> None:
    mask = np.zeros((20, 40, 50), dtype=bool)
    mask[5:9, 10:21, 20:41] = True  # 12 slices of 1 mm, 11 rows, 21 columns
    axes = measure_axes(mask, (3.0, 1.0, 1.0))
    for height, width, name in ((10, 20, "axial"), (11, 20, "coronal"), (11, 10, "sagittal")):
        diagonal = np.hypot(height, width)
        assert getattr(axes, f"long_{name}") == pytest.approx(diagonal, abs=1e-12)
        assert getattr(axes, f"short_{name}") == pytest.approx(2 * height * width / diagonal, abs=1e-12)
    assert axes.largest_short == axes.short_coronal


def test_slices_grow_to_three_but_for_the_lowest() -> None:
    heights = []
    for k in range(4):
        mask = np.zeros((4, 5, 5), dtype=bool)
        mask[k, 1:4, 2] = True
        heights.append(measure_axes(mask, (3.0, 1.0, 1.0)).long_sagittal)
    # pixel centres: 2, 3, 3 and 3 slices are 1, 2, 2 and 2 mm high; 3 rows are 2 mm long
    assert heights == pytest.approx([np.hypot(2, h) for h in (1, 2, 2, 2)], abs=1e-12)


@pytest.mark.parametrize("spacing", [(3.0, 1.0, 1.0), (2.2, 0.7, 1.3)])
def test_cubes_of_1_mm_are_those_of_simpleitk(spacing: tuple[float, float, float]) -> None:
    mask = np.random.default_rng(0).random((9, 12, 11)) < 0.5
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    size = [round(n * s) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    cubes = sitk.Resample(
        image, size, sitk.Transform(), sitk.sitkNearestNeighbor, image.GetOrigin(), (1.0, 1.0, 1.0)
    )
    theirs = sitk.GetArrayFromImage(cubes) != 0
    ours = np.zeros_like(theirs)
    part = _to_cubes(mask, spacing)
    ours[: part.shape[0], : part.shape[1], : part.shape[2]] = part
    np.testing.assert_array_equal(ours, theirs)


def test_a_single_voxel_has_length_zero_and_an_empty_mask_too() -> None:
    mask = np.zeros((6, 5, 5), dtype=bool)
    assert measure_axes(mask, (3.0, 1.0, 1.0)).long_axial == 0
    mask[0, 2, 2] = True
    axes = measure_axes(mask, (3.0, 1.0, 1.0))
    assert (axes.long_axial, axes.short_axial) == (0, 0)
    assert (axes.long_coronal, axes.short_coronal) == (1, 0)
    assert axes.largest_short == 0


@pytest.mark.parametrize("spacing", [(0.4, 0.4, 0.4), (3.0, 0.488, 0.488), (0.5, 1.0, 1.0)])
def test_a_node_too_thin_for_a_cube_has_length_zero(spacing: tuple[float, float, float]) -> None:
    axes = measure_axes(np.ones((1, 1, 1), dtype=bool), spacing)
    assert (axes.long_axial, axes.short_axial, axes.largest_short) == (0, 0, 0)


def test_of_equal_slices_the_first_counts() -> None:
    mask = np.zeros((4, 8, 8), dtype=bool)
    mask[1, 0, 0:4] = True  # a row of four
    mask[2, 2:4, 2:4] = True  # a square of four
    assert measure_axes(mask, (1.0, 1.0, 1.0)).long_axial == 3


def planes(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    found = []
    for i in range(count):
        plane = random.random((random.integers(1, 14), random.integers(1, 14))) < random.choice(
            [0.1, 0.3, 0.8]
        )
        if i % 3 == 0:  # symmetric: several pairs are equally far apart
            plane |= plane[::-1]
            plane |= plane[:, ::-1]
        if i % 7 == 0:
            plane[:] = True
        if plane.sum() > 1:
            found.append(plane)
    y, x = np.mgrid[:40, :40]
    for radius in np.arange(2, 19, 0.5):
        found += [(y - c) ** 2 + ((x - c) * f) ** 2 <= radius**2 for c in (20, 19.5) for f in (1, 1.3)]
    return found


@pytest.mark.slow
def test_axes_and_hull_are_those_of_the_package_feret() -> None:
    for plane in planes(3000):
        reference = feret.calc(plane)
        np.testing.assert_array_equal(convex_corners(plane), reference.hull.T)
        assert feret_axes(plane) == pytest.approx((reference.maxf, reference.maxf90), abs=1e-9)
