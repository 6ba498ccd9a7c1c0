"""NIfTI: which affine counts, what is refused, and the same voxels in the same place as other readers."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from aiene.errors import InputError
from aiene.geometry.grid import volume_of
from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from builders.dicom_files import MARK, ct, write_nifti
from builders.dicom_stacks import read, refusal

RAS = np.diag([-0.8, -0.9, 3.0, 1.0])
RAS[:3, 3] = [20, 15, 100]
HU = np.int16


def deviation(path: Path) -> tuple[float, float]:
    """Distance and turn between our grid and SimpleITK's; the voxels must be the same."""
    reference, mine = volume_of(sitk.ReadImage(str(path))), read(path).volume
    np.testing.assert_allclose(mine.array, reference.array, atol=1e-4)
    return mine.grid.differences(reference.grid)


def test_a_plain_file_lies_in_lps(tmp_path: Path) -> None:
    found = read(write_nifti(tmp_path / "one.nii.gz", ct(), sform=RAS))
    np.testing.assert_array_equal(found.volume.array, ct())
    np.testing.assert_allclose(found.volume.grid.origin, (-20, -15, 100), atol=1e-6)
    np.testing.assert_allclose(found.volume.grid.spacing, (3, 0.9, 0.8), atol=1e-6)
    assert found.source["affine_rule"] == "sform"
    assert found.source["orientation_known"] is True


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    angles=st.tuples(*[st.floats(-180, 180, width=32, allow_subnormal=False)] * 3),
    signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    axes=st.permutations(range(3)),
    spacing=st.tuples(*[st.floats(0.5, 5)] * 3),
)
def test_any_axis_order_sign_and_turn_lies_where_simpleitk_puts_it(
    tmp_path: Path,
    angles: tuple[float, ...],
    signs: tuple[float, ...],
    axes: list[int],
    spacing: tuple[float, ...],
) -> None:
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = (turn * signs)[:, axes] * spacing
    affine[:3, 3] = [11, -7, 300]
    shift, turned = deviation(write_nifti(tmp_path / "any.nii", ct(), sform=affine))
    assert shift < 1e-3
    assert turned < 1e-5


@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (2, 0), (0, 1), (4, 0), (0, 2)])
def test_the_affine_that_is_there_is_taken(tmp_path: Path, codes: tuple[int, int]) -> None:
    shift, turned = deviation(write_nifti(tmp_path / "one.nii", ct(), sform=RAS, codes=codes))
    assert max(shift, turned) < 1e-4


def test_of_two_that_differ_a_little_the_sform_is_taken_with_a_warning(tmp_path: Path) -> None:
    qform = RAS.copy()
    qform[0, 3] += 0.4  # half a voxel
    found = read(write_nifti(tmp_path / "both.nii", ct(), sform=RAS, qform=qform))
    assert found.volume.grid.origin[0] == pytest.approx(-20)
    assert "sform and qform (codes 1 and 1) differ by up to 0.50 voxels: the sform was used" in found.warnings


def test_two_that_differ_by_more_than_a_voxel_are_refused(tmp_path: Path) -> None:
    qform = RAS.copy()
    qform[0, 3] += 10
    text = refusal(write_nifti(tmp_path / "both.nii", ct(), sform=RAS, qform=qform))
    assert "both.nii: its sform and qform differ by up to 12.5 voxels" in text


def test_two_of_opposite_handedness_are_refused(tmp_path: Path) -> None:
    """Bug report 11 has them turned; a mirror is worse: the sides of the neck change."""
    text = refusal(
        write_nifti(tmp_path / "both.nii", ct(), sform=np.diag([1, 1, 3, 1]), qform=np.diag([-1, 1, 3, 1]))
    )
    assert "its sform and qform differ in handedness" in text


def test_the_reported_conflict_is_refused(tmp_path: Path) -> None:
    qform = np.diag([-1.0, -1.0, 3.0, 1.0])
    qform[:3, 3] = [5, 5, 0]
    text = refusal(write_nifti(tmp_path / "both.nii", ct(), sform=np.diag([1, 1, 3, 1]), qform=qform))
    assert "its sform and qform differ by up to" in text


def test_an_sform_against_pixdim_is_refused(tmp_path: Path) -> None:
    text = refusal(write_nifti(tmp_path / "p.nii", ct(), sform=RAS, codes=(1, 0), pixdim=(0.8, 0.9, 5)))
    assert "its sform and pixdim differ" in text


def test_both_codes_zero_is_read_like_stock_readers_with_a_warning(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "zero.nii", ct(), sform=RAS, codes=(0, 0))
    found = read(path)
    assert max(deviation(path)) < 1e-5
    assert any("the sides of the neck cannot be known" in warning for warning in found.warnings)
    assert found.source["orientation_known"] is False


def sheared(noise: float) -> np.ndarray:
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[0, 2] = noise
    return affine


@pytest.mark.parametrize("codes", [(1, 0), (1, 1)])
def test_noise_in_the_affine_is_straightened_and_told(tmp_path: Path, codes: tuple[int, int]) -> None:
    found = read(write_nifti(tmp_path / "noise.nii", ct(), sform=sheared(1e-3), codes=codes))
    np.testing.assert_array_equal(found.volume.array, ct())
    assert any("off right angles: they were straightened" in warning for warning in found.warnings)


@pytest.mark.parametrize("codes", [(1, 0), (1, 1)])
def test_a_real_shear_is_resampled_and_each_voxel_keeps_its_place(
    tmp_path: Path, codes: tuple[int, int]
) -> None:
    affine, gradient = sheared(0.9), np.array([1.5, -2.0, 1.0])
    index = np.stack(np.indices((40, 32, 12)), axis=-1)  # type: ignore[call-overload]
    hu = ((index @ affine[:3, :3].T) @ gradient).astype(np.float32)  # (i, j, k), linear in space
    hu[:3] = -1000
    path = write_nifti(tmp_path / "shear.nii", hu.transpose(2, 1, 0), sform=affine, codes=codes)
    found = read(path)
    inside = np.pad(found.volume.array, 1, constant_values=-1024) > -500
    for axis in range(3):
        inside = inside & np.roll(inside, 1, axis) & np.roll(inside, -1, axis)
    inside = inside[1:-1, 1:-1, 1:-1]
    points = found.volume.grid.points(np.argwhere(inside)) * [-1, -1, 1]
    assert inside.sum() > 0.5 * hu.size
    np.testing.assert_allclose(found.volume.array[inside], points @ gradient, atol=1e-3)
    assert any("resampled onto the nearest rectangular grid" in warning for warning in found.warnings)
    assert found.source["off_right_angles_degrees"] == pytest.approx(np.degrees(np.arctan(0.3)), abs=0.01)


def test_the_mark_of_a_sheared_volume_comes_back_onto_its_source_voxels(tmp_path: Path) -> None:
    found = read(write_nifti(tmp_path / "shear.nii", ct(), sform=sheared(0.9), codes=(1, 0)))
    lattice = np.array(found.source["lattice"]["index_zyx_to_lps_mm"])
    index = np.argwhere(ct() == MARK)
    points = index @ lattice[:3, :3].T + lattice[:3, 3]
    at = np.rint(found.volume.grid.indices(points)).astype(int)
    assert (found.volume.array[tuple(at.T)] > -400).mean() > 0.9


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"])
@pytest.mark.parametrize("slope", [None, (1.0, 0.0), (1.0, -1000.0), (0.5, -1000.0), (2.0, -1000.0)])
def test_values_and_pixel_type_are_simpleitks(
    tmp_path: Path, dtype: str, slope: tuple[float, float] | None
) -> None:
    from aiene.ingest.case import Case
    from aiene.ingest.readers.nifti import read_nifti

    stored = (ct() // 16 + 65).astype(dtype)
    path = write_nifti(tmp_path / "one.nii", stored, slope=slope)
    mine, reference = read_nifti(Case("one", "nifti", (path,))), sitk.ReadImage(str(path))
    assert mine.pixel_type == reference.GetPixelID()
    np.testing.assert_array_equal(mine.volume.array, sitk.GetArrayFromImage(reference))
    whole = slope is None or slope[0] != 0.5
    assert mine.volume.array.dtype == (np.int16 if whole else np.float32)


def test_a_big_endian_file_is_read(tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.Nifti1Image(ct().T.astype(">i2"), RAS, header).to_filename(tmp_path / "big.nii")
    assert max(deviation(tmp_path / "big.nii")) < 1e-4


def test_nifti_2_and_the_pair_of_files_are_read(tmp_path: Path) -> None:
    nib.Nifti2Image(ct().T, RAS).to_filename(tmp_path / "two.nii.gz")
    nib.Nifti1Pair(ct().T, RAS).to_filename(tmp_path / "pair.hdr")
    for name in ("two.nii.gz", "pair.hdr"):
        np.testing.assert_array_equal(read(tmp_path / name).volume.array, ct())
    (tmp_path / "pair.img").unlink()
    assert "its file with the voxels (.img) is missing" in refusal(tmp_path / "pair.hdr")


def test_micrometres_are_converted(tmp_path: Path) -> None:
    affine = np.diag([800.0, 900.0, 3000.0, 1.0])
    path = write_nifti(tmp_path / "one.nii", ct(), sform=affine)
    content = bytearray(path.read_bytes())
    content[123] = 3  # xyzt_units: micrometre
    path.write_bytes(content)
    assert read(path).volume.grid.spacing == pytest.approx((3, 0.9, 0.8))


def test_four_dimensions_of_one_volume_are_read(tmp_path: Path) -> None:
    nib.Nifti1Image(ct().T[..., None], RAS).to_filename(tmp_path / "four.nii.gz")
    np.testing.assert_array_equal(read(tmp_path / "four.nii.gz").volume.array, ct())


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((40, 32, 8, 3), "it holds 3 volumes instead of one"),
        ((40, 32), "a single two-dimensional image"),
        ((40, 32, 1), "a single two-dimensional image"),
        ((40, 32, 3), "only 3 slices"),
    ],
)
def test_what_is_no_single_volume_is_refused(tmp_path: Path, shape: tuple[int, ...], words: str) -> None:
    nib.Nifti1Image(np.zeros(shape, np.int16), RAS).to_filename(tmp_path / "odd.nii.gz")
    assert words in refusal(tmp_path / "odd.nii.gz")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_voxels_that_are_no_numbers_are_refused_and_counted(tmp_path: Path, bad: float) -> None:
    hu = ct().astype(np.float64)
    hu[2, 3:5, 5] = bad
    text = refusal(write_nifti(tmp_path / "nan.nii.gz", hu))
    assert "nan.nii.gz: 2 of its 10240 voxels are NaN or infinite" in text


@pytest.mark.parametrize("scale", [(0, 1, 1), (1, 1, 50), (1e-4, 1, 1), (np.nan, 1, 1), (0, 0, 0)])
@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (0, 0)])
def test_absurd_spacing_is_refused(tmp_path: Path, scale: tuple[float, ...], codes: tuple[int, int]) -> None:
    path = write_nifti(tmp_path / "absurd.nii", ct(), codes=codes, pixdim=scale)
    content = bytearray(path.read_bytes())
    content[280:328] = np.diag([*scale, 1.0])[:3].astype("<f4").tobytes()
    path.write_bytes(content)
    assert refusal(path).startswith("absurd.nii: its ")


def test_a_truncated_gzip_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write_nifti(tmp_path / "cut.nii.gz", ct() + rng.integers(0, 50, ct().shape).astype(HU))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert refusal(path) == (
        "cut.nii.gz: it cannot be read as NIfTI; the file is cut off or damaged: copy it again."
    )


def test_a_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "short.nii", ct())
    path.write_bytes(path.read_bytes()[:-1000])
    assert "its header announces" in refusal(path)
    packed = tmp_path / "short.nii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert "it ends before its last voxel" in refusal(packed)


@pytest.mark.parametrize("name", ["lie.nii", "lie.nii.gz"])
def test_a_header_that_promises_gigabytes_is_refused_before_they_are_asked_for(
    tmp_path: Path, name: str
) -> None:
    path = write_nifti(tmp_path / "lie.nii", ct())
    content = bytearray(path.read_bytes())
    content[42:48] = np.array([2000, 2000, 600], "<i2").tobytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert "its header announces 4.47 GiB" in refusal(tmp_path / name)


def test_a_volume_larger_than_the_memory_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    path = write_nifti(tmp_path / "large.nii", ct())
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    assert "large.nii: reading its 10240 voxels needs" in refusal(path)


def test_colour_and_complex_voxels_are_refused(tmp_path: Path) -> None:
    nib.Nifti1Image(ct().T.astype(np.complex64), RAS).to_filename(tmp_path / "c.nii")
    assert "instead of plain numbers" in refusal(tmp_path / "c.nii")


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("intercept", [0.0, -5.0, np.nan])
def test_a_slope_that_is_none_scales_nothing(tmp_path: Path, slope: float, intercept: float) -> None:
    found = read(write_nifti(tmp_path / "a.nii", ct(), slope=(slope, intercept)))
    np.testing.assert_array_equal(found.volume.array, ct())


@pytest.mark.parametrize("intercept", [np.nan, np.inf])
def test_an_intercept_that_is_no_number_is_0_and_told(tmp_path: Path, intercept: float) -> None:
    found = read(write_nifti(tmp_path / "a.nii", ct(), slope=(1.0, intercept)))
    np.testing.assert_array_equal(found.volume.array, ct())
    assert f"its scl_inter is {intercept}, not a number: 0 was used" in found.warnings


@pytest.mark.parametrize(
    ("code", "said"),
    [(1, "its unit is metre"), (3, "its unit is micrometre"), (0, "not stated, taken as mm")],
)
def test_a_unit_that_does_not_fit_is_named(tmp_path: Path, code: int, said: str) -> None:
    path = write_nifti(tmp_path / "a.nii", ct(), sform=np.diag([0.01, 0.01, 0.03, 1]) if code == 0 else None)
    content = bytearray(path.read_bytes())
    content[123] = code
    path.write_bytes(content)
    assert "is not that of a CT" in refusal(path)
    assert said in refusal(path)


@pytest.mark.parametrize("asked", ["auto", "sform"])
def test_a_qform_without_a_rotation_is_not_called_damage(tmp_path: Path, asked: str) -> None:
    path = write_nifti(tmp_path / "a.nii", ct())
    content = bytearray(path.read_bytes())
    content[256:268] = np.array([3, 3, 3], "<f4").tobytes()  # a quaternion longer than 1
    path.write_bytes(content)
    (case,) = find_cases(path, affine=asked)[0]  # type: ignore[arg-type]
    assert isinstance(case, Case)
    if asked == "sform":
        assert any("its qform holds no valid rotation or position" in w for w in read_case(case).warnings)
        return
    with pytest.raises(InputError, match="its qform holds no valid rotation") as error:
        read_case(case)
    assert "damaged" not in str(error.value)
