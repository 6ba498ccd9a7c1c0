"""NIfTI files that every reader places alike."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from aiene.geometry.grid import Grid, RigidTransform, Volume, grid_of
from aiene.results.nifti import nifti_bytes, write_nifti
from aiene.results.store import transform_text

FOOT = np.zeros((9, 11, 13), np.uint8)
FOOT[2:7, 3, 4] = 1  # long in z,
FOOT[2, 3:6, 4] = 2  # shorter in y,
FOOT[2, 3, 4:6] = 3  # shortest in x


def grid(angles: tuple[float, float, float], mirrored: bool, order: tuple[int, int, int]) -> Grid:
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    vectors = [turn[:, axis] for axis in order]
    if mirrored:
        vectors[0] = -vectors[0]
    a, b, c = (tuple(float(x) for x in v) for v in vectors)
    return Grid(FOOT.shape, (3.3, 0.9, 1.7), (-31.0, 12.5, 700.0), (a, b, c))  # type: ignore[arg-type]


@given(
    st.tuples(*[st.floats(-180, 180, width=32, allow_subnormal=False)] * 3),
    st.booleans(),
    st.permutations([0, 1, 2]).map(tuple),
)
@pytest.mark.slow
def test_another_reader_finds_every_voxel_in_its_place(
    tmp_path_factory: pytest.TempPathFactory, angles: Any, mirrored: Any, order: Any
) -> None:
    volume = Volume(FOOT, grid(angles, mirrored, order))
    file = tmp_path_factory.mktemp("nifti") / "foot.nii.gz"
    write_nifti(volume, file)
    image = sitk.ReadImage(str(file))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), FOOT)
    for index in ((0, 0, 0), (8, 10, 12), (2, 3, 4)):
        there = image.TransformIndexToPhysicalPoint(index[::-1])
        np.testing.assert_allclose(there, volume.grid.points(index), atol=1e-3)
    assert grid_of(image).differences(volume.grid)[0] < 1e-3


def test_sform_and_qform_say_the_same() -> None:
    volume = Volume(FOOT, grid((10, 20, 30), True, (2, 1, 0)))
    image = nib.Nifti1Image.from_bytes(gzip.decompress(nifti_bytes(volume)))
    sform, qform = image.get_sform(coded=True), image.get_qform(coded=True)
    assert (sform[1], qform[1]) == (1, 1)
    np.testing.assert_allclose(sform[0], qform[0], atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_the_same_volume_is_the_same_bytes(dtype: Any) -> None:
    volume = Volume(FOOT.astype(dtype), grid((5, 6, 7), False, (0, 1, 2)))
    assert nifti_bytes(volume) == nifti_bytes(volume)


def test_the_written_transform_is_read_as_the_same_way(tmp_path: Path) -> None:
    turn = Rotation.from_euler("xyz", (12, -7, 20), degrees=True).as_matrix()
    pose = RigidTransform(tuple(map(tuple, turn)), (3.0, -40.0, 210.0))
    (tmp_path / "transform.tfm").write_text(transform_text(pose))
    read = sitk.ReadTransform(str(tmp_path / "transform.tfm"))
    for point in grid((10, 20, 30), True, (2, 1, 0)).corners():
        np.testing.assert_allclose(read.TransformPoint(point.tolist()), pose.apply(point), atol=1e-9)
