"""Values beyond the range of CT change nothing but themselves, and are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from aiene.errors import InputError
from aiene.ingest.checks import HIGHEST_HU, in_ct_range
from aiene.ingest.lattice import AIR_HU
from builders.dicom_files import write_nifti, write_series
from builders.dicom_stacks import read, refusal
from builders.hu_plausibility_inputs import patient


def test_a_ct_within_its_range_is_the_very_same_array(tmp_path: Path) -> None:
    hu = np.clip(patient(), -1024, None)
    hu[20, 20, 20] = 27012  # dental metal on the extended scale
    found = in_ct_range(tmp_path, hu)
    assert found.array is hu
    assert (found.facts, found.warnings, found.record) == ({}, (), {})


@pytest.mark.parametrize("value", [30711.0, 58976.0, 1e8, 1e30, 3e38])
def test_one_absurd_voxel_is_the_end_of_the_scale_and_the_rest_is_untouched(
    tmp_path: Path, value: float
) -> None:
    hu = np.clip(patient(), -1024, None).astype(np.float32)
    hu[20, 20, 20] = value
    found = read(write_nifti(tmp_path / "one.nii.gz", hu))
    expected = np.clip(patient(), -1024, None)
    expected[20, 20, 20] = HIGHEST_HU
    np.testing.assert_array_equal(found.volume.array, expected)
    assert found.volume.array.dtype == np.int16
    (told,) = [w for w in found.warnings if "no CT holds" in w]
    assert told == f"1 voxel has a value that no CT holds (up to {value:g} HU): taken as 30710 HU"
    assert found.source["out_of_range_voxels"] == {"above_ct_range": 1, "padding_above_ct_range": 0}


@pytest.mark.parametrize("value", [-1025, -2000, -3024, -32768])
def test_untagged_padding_is_air_and_gives_the_ct_of_tagged_padding(tmp_path: Path, value: int) -> None:
    hu = np.clip(patient(), -1024, None)
    there = np.zeros(hu.shape, dtype=bool)
    there[:, :5, :5] = there[:, -5:, -5:] = True
    expected, padded = hu.copy(), hu.copy()
    expected[there], padded[there] = AIR_HU, value
    write_series(tmp_path / "pad", hu=padded, PixelRepresentation=1, change=_signed(padded))
    found = read(tmp_path / "pad")
    np.testing.assert_array_equal(found.volume.array, expected)
    assert found.source["out_of_range_voxels"] == {"below_air": 40 * 50}
    assert not [w for w in found.warnings if "HU" in w]


def _signed(hu: np.ndarray) -> Callable[[int, Dataset], None]:
    def change(index: int, ds: Dataset) -> None:
        ds.RescaleIntercept = "0"
        ds.PixelData = hu[index].astype("<i2").tobytes()

    return change


def test_padding_that_was_read_unsigned_is_air_where_it_touches_a_face(tmp_path: Path) -> None:
    hu = np.clip(patient(), -1024, None).astype(np.int32)
    hu[:, :5, :5] = 63536 - 1024  # -2000 as a number without sign
    hu[20, 20, 20] = 60000
    found = in_ct_range(tmp_path, hu.astype(np.float32))
    assert (found.array[:, :5, :5] == AIR_HU).all()
    assert found.array[20, 20, 20] == HIGHEST_HU
    assert found.facts == {"above_ct_range": 1, "padding_above_ct_range": 40 * 25}
    assert "1000 at the edge were taken as padding (air), the others as 30710 HU" in found.warnings[0]


def test_values_below_16_bits_are_warned_of(tmp_path: Path) -> None:
    hu = patient().astype(np.float32)
    hu[3, 3, 3] = -1e30
    found = in_ct_range(tmp_path, hu)
    assert found.array.min() == AIR_HU
    assert found.warnings == (
        "it holds values down to -1e+30 HU, which no CT does: all below -1024 were taken as air",
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_and_counted(tmp_path: Path, bad: float) -> None:
    hu = patient().astype(np.float32)
    hu[1, 2, 3:5] = bad
    with pytest.raises(InputError, match="2 of its 64000 voxels are NaN or infinite"):
        in_ct_range(tmp_path, hu)


def test_an_absurd_voxel_is_tamed_before_a_shear_is_undone(tmp_path: Path) -> None:
    sform = np.diag([1.0, 1.0, 3.0, 1.0])
    sform[0, 2] = 0.9
    plain = np.clip(patient(), -1024, None).astype(np.float32)
    odd = plain.copy()
    plain[20, 20, 20], odd[20, 20, 20] = HIGHEST_HU, 1e30
    one = read(write_nifti(tmp_path / "a" / "one.nii", plain, sform=sform, codes=(1, 0)))
    two = read(write_nifti(tmp_path / "b" / "two.nii", odd, sform=sform, codes=(1, 0)))
    np.testing.assert_array_equal(one.volume.array, two.volume.array)
    assert any("no CT holds" in warning for warning in two.warnings)


@pytest.mark.parametrize("offset", [1000, 1024])
def test_unsigned_values_without_their_intercept_are_told(tmp_path: Path, offset: int) -> None:
    stored = (np.clip(patient(), -1000, None).astype(np.int32) + offset).astype(np.uint16)
    assert "1024 above HU" in refusal(write_nifti(tmp_path / "stored.nii", stored))
