"""A user's own masks lie on the CT's lattice, or are refused with the difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiene.errors import InputError
from aiene.geometry import AXIAL, Grid, Volume
from aiene.ingest.masks import find_mask, read_mask
from aiene.results.images import write_nifti

FOOT = np.zeros((9, 11, 13), np.uint8)
FOOT[2:7, 3, 4] = 1
FOOT[2, 3:6, 4] = 2
FOOT[2, 3, 4:6] = 2
GRID = Grid(FOOT.shape, (3.0, 1.0, 2.0), (-30.0, 12.0, 700.0), AXIAL)


def written(folder: Path, grid: Grid = GRID, array: np.ndarray = FOOT) -> Path:
    write_nifti(Volume(array, grid), folder / "a.nii.gz")
    return folder / "a.nii.gz"


@given(order=st.permutations([0, 1, 2]), flips=st.tuples(*[st.booleans()] * 3))
def test_the_same_voxels_in_another_order_of_axes_are_taken(tmp_path_factory, order, flips):
    folder = tmp_path_factory.mktemp("masks")
    axes = [a for a in range(3) if flips[a]]
    array = np.flip(FOOT, axes).transpose(order)
    start = [FOOT.shape[a] - 1 if flips[a] else 0 for a in range(3)]
    signs = [-1 if flips[a] else 1 for a in range(3)]
    vectors = [tuple(signs[a] * v for v in GRID.direction[a]) for a in order]
    x, y, z = GRID.points(np.array(start)).tolist()
    spacing = tuple(GRID.spacing[a] for a in order)
    grid = Grid(array.shape, spacing, (x, y, z), tuple(vectors))  # type: ignore[arg-type]
    taken = read_mask(written(folder, grid, np.ascontiguousarray(array)), like=GRID)
    np.testing.assert_array_equal(taken.array, FOOT)


def test_an_origin_off_by_a_rounding_is_taken_and_by_half_a_voxel_refused(tmp_path: Path):
    near = replace(GRID, origin=(-30.0 + 1e-6, 12.0, 700.0))
    np.testing.assert_array_equal(read_mask(written(tmp_path, near), like=GRID).array, FOOT)
    far = replace(GRID, origin=(-30.6, 12.0, 700.0))
    with pytest.raises(InputError, match=r"a\.nii\.gz: it lies 0\.6 mm away from the CT's grid"):
        read_mask(written(tmp_path, far), like=GRID)


@pytest.mark.parametrize(
    "grid",
    [
        replace(GRID, spacing=(6.0, 2.0, 4.0)),
        replace(GRID, direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0))),
    ],
)
def test_another_spacing_or_a_flip_without_its_origin_is_refused(tmp_path: Path, grid: Grid):
    with pytest.raises(InputError, match="mm away from the CT's grid"):
        read_mask(written(tmp_path, grid), like=GRID)


def test_another_size_is_refused_with_both(tmp_path: Path):
    small = Grid((9, 11, 12), GRID.spacing, GRID.origin)
    with pytest.raises(InputError, match=r"size \(9, 11, 12\) \(z, y, x\) is not the CT's, \(9, 11, 13\)"):
        read_mask(written(tmp_path, small, FOOT[:, :, :12].copy()), like=GRID)


@pytest.mark.parametrize("value", [0.5, -1.0, 300.0, np.nan])
def test_values_that_are_no_labels_are_refused(tmp_path: Path, value: float):
    array = FOOT.astype(np.float32)
    array[0, 0, 0] = value
    with pytest.raises(InputError, match="no labels from 0 to 255"):
        read_mask(written(tmp_path, GRID, array), like=GRID)


def test_a_mask_that_is_missing_or_there_twice_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="no mask for the case a"):
        find_mask(tmp_path, "a")
    for ending in (".nii", ".nrrd"):
        (tmp_path / f"a{ending}").touch()
    with pytest.raises(InputError, match=r"a\.nii: a\.nrrd is there too"):
        find_mask(tmp_path, "a")
