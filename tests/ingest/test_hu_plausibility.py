"""Values that cannot be Hounsfield units are refused; real CTs pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from aiene.geometry.grid import volume_of
from aiene.ingest.case import Case
from aiene.ingest.checks import check_hounsfield, take_census
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from builders.dicom_files import write_nifti
from builders.dicom_stacks import read, refusal
from builders.hu_plausibility_inputs import patient


def refused(tmp_path: Path, values: np.ndarray) -> str:
    return refusal(write_nifti(tmp_path / "odd.nii", values))


def test_a_patient_in_air_passes_without_a_word(tmp_path: Path) -> None:
    assert check_hounsfield(tmp_path, patient()) == ()


def test_a_mask_is_refused(tmp_path: Path) -> None:
    assert "looks like a mask" in refused(tmp_path, (patient() > -500).astype(np.uint8))
    assert "looks like a mask" in refused(tmp_path, np.digitize(patient(), [-500, 0, 500]).astype(np.float32))


def test_an_mr_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mr = np.abs(rng.normal(0, 20, (40, 40, 40)) + 600 * (patient() > -500)).astype(np.int16)
    assert "it holds no air (lowest value 0), so it is an MR, a mask, or not in HU" in refused(tmp_path, mr)


def test_stored_values_without_their_intercept_are_refused(tmp_path: Path) -> None:
    assert "look like stored values, 1024 above HU" in refused(tmp_path, patient() + np.int16(1024))
    padded = patient() + np.int16(1024)
    padded[:, :3] = -2000  # so that there is something below -500
    assert "look like stored values, 1024 above HU" in refused(tmp_path, padded)


def test_an_intercept_that_was_applied_twice_is_refused(tmp_path: Path) -> None:
    assert "1024 below HU" in refused(tmp_path, patient() - np.int16(1024))


@pytest.mark.parametrize("scaled", [lambda hu: (hu + 1024) / 4000, lambda hu: hu / 1000.0])
def test_normalised_values_are_refused(tmp_path: Path, scaled: object) -> None:
    values = scaled(patient().astype(np.float32))  # type: ignore[operator]
    assert "it holds no air" in refused(tmp_path, values.astype(np.float32))


def test_a_blank_volume_is_refused(tmp_path: Path) -> None:
    assert "every voxel has the value -1024" in refused(tmp_path, np.full((9, 9, 9), -1024, np.int16))


def test_air_alone_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    assert "no soft tissue" in refused(tmp_path, rng.integers(-1024, -900, (20, 20, 20)).astype(np.int16))


def test_padding_far_below_air_does_not_disturb(tmp_path: Path) -> None:
    hu = patient()
    hu[:, :4] = -3024
    assert check_hounsfield(tmp_path, hu) == ()


def test_little_air_and_little_tissue_are_warned_of(tmp_path: Path) -> None:
    hu = patient()[:, 8:32, 8:32].copy()
    hu[0, 0, :3] = -1000
    assert "less than 1 % of the CT is air" in check_hounsfield(tmp_path, hu)[0]
    hu = np.full((40, 40, 40), -1000, np.int16)
    hu[:6, :6, :10] = 30
    assert "less than 1 % of the CT is soft tissue" in check_hounsfield(tmp_path, hu)[0]


def test_a_short_scan_is_warned_of(tmp_path: Path) -> None:
    found = read(write_nifti(tmp_path / "short.nii", patient()[:20], sform=np.diag([1.0, 1, 3, 1])))
    assert found.warnings == (
        "the CT covers only 60 mm from head to foot: a part of the neck may be missing",
    )


def test_the_census_counts_fractions_and_values_beyond_its_ends() -> None:
    census = take_census(np.array([[[-9000.0, 0.4], [0.6, 9000.0]]]))
    assert (census.minimum, census.maximum, census.whole, census.distinct) == (-9000, 9000, False, 4)
    assert census.share(0, 1) == 0.5


@pytest.mark.parametrize("number", ["pt_193", "pt_97", "pt_305", "pt_40", "pt_95"])
def test_real_cts_pass_and_are_what_simpleitk_reads(openkbp: Path, number: str) -> None:
    """Sparse, short and blanked ones among them; all 105 were checked when this was written."""
    path = openkbp / number / "ct.nii.gz"
    reference, found = volume_of(sitk.ReadImage(str(path))), read(path)
    np.testing.assert_array_equal(found.volume.array, reference.array)
    assert found.volume.grid.spacing == reference.grid.spacing
    assert max(found.volume.grid.differences(reference.grid)) < 1e-9
    assert found.pixel_type == sitk.sitkInt16
    assert not [warning for warning in found.warnings if "HU" in warning]


@pytest.mark.slow
def test_the_folder_of_real_cts_is_105_cases(openkbp: Path) -> None:
    cases, _ = find_cases(openkbp)
    assert len(cases) == 105
    assert all(isinstance(case, Case) and case.files[0].name == "ct.nii.gz" for case in cases)


def test_a_real_mask_is_refused(openkbp: Path) -> None:
    assert "looks like a mask" in refusal(openkbp / "pt_193" / "ptv.nii.gz")


def test_the_golden_phantom_passes(golden: Path) -> None:
    (case,) = find_cases(golden / "preprocess" / "phantom" / "native.nrrd")[0]
    assert isinstance(case, Case)
    assert read_case(case).volume.grid.size == (62, 104, 92)


def test_coarse_voxels_are_warned_of(tmp_path: Path) -> None:
    found = read(write_nifti(tmp_path / "coarse.nii", patient(), sform=np.diag([1.0, 1, 10, 1])))
    assert found.warnings == ("its voxels are up to 10.0 mm large: small nodes may be missed",)
