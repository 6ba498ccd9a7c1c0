"""Awkward inputs that people reported (the numbers are the reports' own), each with others of its kind."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLSNearLossless,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
    SegmentationStorage,
)
from scipy.spatial.transform import Rotation

from aiene.errors import InputError
from aiene.ingest.case import Case, NativeCt, Refusal
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from builders.dicom_files import AXIAL, ct, enhanced, save, slice_dataset, uid, write_nifti, write_series
from builders.dicom_stacks import mark_points, only, read, refusal, tilted
from builders.dicom_studies import dose, report, screenshot, structure_set


def stored(hu: np.ndarray) -> np.ndarray:
    return (hu.astype(np.int32) + 1024).astype(np.uint16)


# 1: missing slices and uneven positions


TURN = Rotation.from_euler("xyz", (12, -7, 25), degrees=True).as_matrix()


@pytest.mark.parametrize(
    ("orientation", "step"),
    [
        (AXIAL, (0, 0, 3.0)),
        (AXIAL, (0, 0, -3.0)),
        (AXIAL, (0, 0, 0.6)),
        (tilted(18.5), (0, 0, 3.0)),
        ([float(f"{v:.9g}") for v in (*TURN[:, 0], *TURN[:, 1])], tuple(3.0 * TURN[:, 2])),
    ],
    ids=["rising", "falling", "thin", "tilted", "oblique"],
)
@pytest.mark.parametrize("missing", [[4], [1], [3, 4]])
def test_1_a_gap_is_refused_whatever_way_the_stack_lies(
    tmp_path: Path, orientation: Sequence[float], step: Sequence[float], missing: list[int]
) -> None:
    write_series(tmp_path / "gap", orientation=orientation, step=step, leave_out=missing)
    text = refusal(tmp_path / "gap")
    assert ("1 slice is" if len(missing) == 1 else "2 slices are") + " missing within z = " in text


def test_1_a_frame_missing_in_an_enhanced_ct_is_a_gap_too(tmp_path: Path) -> None:
    path = save(enhanced(ct(8), order=[0, 1, 2, 4, 5, 6, 7]), tmp_path / "many.dcm")
    assert "1 slice is missing within z = 105.0 to 110.0 mm" in refusal(path)


@pytest.mark.parametrize(("jitter", "fine"), [(0.02, True), (0.09, True), (0.5, False)])
def test_1_jitter_is_accepted_below_a_tenth_of_a_millimetre(
    tmp_path: Path, jitter: float, fine: bool
) -> None:
    def shake(index: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [-20, -15, f"{100 + 3 * index + jitter * (index in (2, 3, 6)):.4f}"]

    write_series(tmp_path / "jitter", change=shake)
    if fine:
        np.testing.assert_array_equal(read(tmp_path / "jitter").volume.array, ct())
    else:
        assert "unevenly spaced" in refusal(tmp_path / "jitter")


# 2: two images at one place


@pytest.mark.parametrize("where", ["copy.dcm", "sub/CT003.dcm", "no ending"])
@pytest.mark.parametrize("how_many", [1, 8])
def test_2_copies_of_files_anywhere_count_once(tmp_path: Path, where: str, how_many: int) -> None:
    for k, file in enumerate(write_series(tmp_path / "one")[-how_many:]):
        target = (tmp_path / "one" / where).with_name(f"{k} {Path(where).name}")
        target.parent.mkdir(exist_ok=True)
        shutil.copy(file, target)
    found = read(tmp_path / "one")
    np.testing.assert_array_equal(found.volume.array, ct())
    assert found.volume.grid.spacing[0] == 3.0
    assert found.source["slices"] == 8
    assert any("duplicated with the same pixels" in warning for warning in found.warnings)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_2_the_same_image_stored_in_another_way_counts_once(tmp_path: Path, syntax: Any) -> None:
    write_series(tmp_path / "one")
    twin = slice_dataset(stored(ct()[3]), position=(-20, -15, 109), name="twin")
    twin.compress(syntax, generate_instance_uid=False)
    save(twin, tmp_path / "one" / "twin.dcm")
    np.testing.assert_array_equal(read(tmp_path / "one").volume.array, ct())


@pytest.mark.parametrize("sop", ["twin", str((-20.0, -15.0, 109.0))], ids=["new UID", "same UID"])
@pytest.mark.parametrize("off", [0.0, 0.005])
def test_2_another_image_at_the_same_place_is_refused_with_both_names(
    tmp_path: Path, sop: str, off: float
) -> None:
    write_series(tmp_path / "one")
    twin = slice_dataset(stored(ct()[3] + np.int16(1)), position=(-20, -15, 109 + off), name=sop)
    save(twin, tmp_path / "one" / "twin.dcm")
    text = refusal(tmp_path / "one")
    assert "CT003.dcm" in text
    assert "twin.dcm" in text


def test_2_two_whole_series_over_each_other_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "one", prefix="a")
    write_series(tmp_path / "one", prefix="b", name="b", hu=ct() + np.int16(1), change=_own_uid)
    assert "have the same position but show different images" in refusal(tmp_path / "one")


def _own_uid(index: int, ds: Dataset) -> None:
    ds.SOPInstanceUID = uid("own", str(index))


# 3: gantry tilt


def _mark_middle(found: NativeCt) -> np.ndarray:
    """LPS of the mark's middle, each voxel counted by its grey: all else is darker than water."""
    grey = np.clip(found.volume.array, 0, None)
    return np.average(found.volume.grid.points(np.argwhere(grey > 0)), axis=0, weights=grey[grey > 0])


@pytest.mark.parametrize("degrees", [-25.0, -18.5, 8.0, 18.5, 30.0])
@pytest.mark.parametrize("step", [3.0, -3.0])
def test_3_a_tilt_either_way_keeps_the_mark_in_its_place(tmp_path: Path, degrees: float, step: float) -> None:
    write_series(tmp_path / "tilt", orientation=tilted(degrees), step=(0, 0, step), slices=16)
    found = read(tmp_path / "tilt")
    assert found.source["gantry_tilt_degrees"] == pytest.approx(abs(degrees), abs=0.01)
    index = np.argwhere(ct(16) > 800)
    column = np.array(tilted(degrees)[3:])
    expected = np.array([-20, -15, 100]) + index[:, :1] * [0, 0, step]
    expected = expected + index[:, 1:2] * 0.9 * column + index[:, 2:] * [0.8, 0, 0]
    np.testing.assert_allclose(_mark_middle(found), expected.mean(axis=0), atol=0.1)


def test_3_a_tilt_about_the_other_axis_is_undone_too(tmp_path: Path) -> None:
    t = np.radians(15)
    write_series(tmp_path / "swivel", orientation=(np.cos(t), 0, np.sin(t), 0, 1, 0), slices=16)
    assert read(tmp_path / "swivel").source["gantry_tilt_degrees"] == pytest.approx(15, abs=0.01)


def test_3_a_tilted_stack_of_varying_steps_is_refused(tmp_path: Path) -> None:
    def vary(index: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [-20, -15, 100 + 3 * min(index, 4) + 7 * max(index - 4, 0)]

    write_series(tmp_path / "both", orientation=tilted(18.5), change=vary)
    assert "unevenly spaced" in refusal(tmp_path / "both")


# 5: images of another kind under the CT's series UID


CORONAL, SAGITTAL = (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)
SCOUT = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
STRANGERS: dict[str, dict[str, Any]] = {
    "coronal scout": {"orientation": CORONAL, "ImageType": SCOUT},
    "sagittal scout": {"orientation": SAGITTAL, "ImageType": SCOUT},
    "scout that does not say so": {"orientation": SAGITTAL},
    "axial scout between the slices": {"ImageType": SCOUT, "position": (-20, -15, 101.5)},
    "axial scout next to the slices": {"ImageType": SCOUT, "position": (-20, -15, 124)},
    "axial scout on a slice": {"ImageType": SCOUT, "position": (-20, -15, 109)},
    "small": {"rows": 16, "columns": 16, "position": (-20, -15, 124)},
    "other pixel spacing": {"pixel_spacing": (0.5, 0.5), "position": (-20, -15, 124)},
    "dose page": {"ImagePositionPatient": None, "ImageOrientationPatient": None},
    "page without type or place": {"ImagePositionPatient": None, "ImageType": None},
}


@pytest.mark.parametrize("kind", STRANGERS)
@pytest.mark.parametrize("name", ["A.dcm", "Z"])
def test_5_a_stranger_under_the_series_uid_does_not_touch_the_stack(
    tmp_path: Path, kind: str, name: str
) -> None:
    tags = dict(STRANGERS[kind])
    shape = tags.pop("rows", 32), tags.pop("columns", 40)
    write_series(tmp_path / "one")
    save(slice_dataset(np.full(shape, 1000, np.uint16), name="s", **tags), tmp_path / "one" / name)
    case = only(tmp_path / "one")
    np.testing.assert_array_equal(read_case(case).volume.array, ct())
    (aside,) = case.aside
    assert aside.slices == 1


# 6: objects that are no image, one of them under the CT's series UID


def _as(sop_class: str, modality: str) -> Callable[[Dataset], None]:
    def change(ds: Dataset) -> None:
        ds.SOPClassUID, ds.Modality = sop_class, modality
        del ds.PixelData

    return change


OBJECTS: dict[str, tuple[Callable[[Dataset], None], str]] = {
    "RTSTRUCT": (structure_set, "RTSTRUCT"),
    "RTDOSE": (dose, "RTDOSE"),
    "SR": (report, "SR"),
    "screenshot": (screenshot, "secondary capture"),
    "SEG": (_as(SegmentationStorage, "SEG"), "SEG"),
    "PR": (_as("1.2.840.10008.5.1.4.1.1.11.1", "PR"), "PR"),
    "KO": (_as("1.2.840.10008.5.1.4.1.1.88.59", "KO"), "KO"),
    "REG": (_as("1.2.840.10008.5.1.4.1.1.66.1", "REG"), "REG"),
    "PDF": (_as("1.2.840.10008.5.1.4.1.1.104.1", "DOC"), "DOC"),
    "private": (_as("1.2.3.4.5", "OT"), "OT"),
}


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize("same_series", [True, False])
def test_6_an_object_that_is_no_ct_is_set_aside_whatever_its_series(
    tmp_path: Path, kind: str, same_series: bool
) -> None:
    change, word = OBJECTS[kind]
    write_series(tmp_path / "one")
    ds = slice_dataset(stored(ct()[0]), series="series" if same_series else "else", name="object")
    change(ds)
    if same_series:
        ds.SeriesInstanceUID = uid("series", "study", "one")
    save(ds, tmp_path / "one" / "A")
    case = only(tmp_path / "one")
    np.testing.assert_array_equal(read_case(case).volume.array, ct())
    assert f"left out: 1 x {word}" in case.notes


# 9: several frames in one file


def test_9_an_enhanced_ct_in_several_files_is_one_stack(tmp_path: Path) -> None:
    for k, frames in enumerate(([5, 0, 2], [1, 3, 4])):
        part = enhanced(ct(6), order=frames)
        part.SOPInstanceUID = uid("part", str(k))
        save(part, tmp_path / "parts" / f"{k}")
    np.testing.assert_array_equal(read(tmp_path / "parts").volume.array, ct(6))


def test_9_a_converted_enhanced_ct_is_read_alike(tmp_path: Path) -> None:
    ds = enhanced(ct(6))
    ds.SOPClassUID = LegacyConvertedEnhancedCTImageStorage
    np.testing.assert_array_equal(read(save(ds, tmp_path / "x.dcm")).volume.array, ct(6))


def test_9_one_frame_without_its_position_is_not_guessed(tmp_path: Path) -> None:
    ds = enhanced(ct(6))
    del ds.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence
    assert "have no usable position" in refusal(save(ds, tmp_path / "x.dcm"))


def test_9_frames_that_are_rescaled_each_by_its_own_keep_their_hu(tmp_path: Path) -> None:
    ds = enhanced(ct(6))
    del ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    frames = stored(ct(6))
    for k, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        item = Dataset()
        item.RescaleSlope, item.RescaleIntercept = "1", str(-1024 - 10 * k)
        group.PixelValueTransformationSequence = [item]
        frames[k] += 10 * k
    ds.PixelData = frames.astype("<u2").tobytes()
    np.testing.assert_array_equal(read(save(ds, tmp_path / "x.dcm")).volume.array, ct(6))


# 10: compression


def test_10_a_nearly_lossless_series_is_read_and_told(tmp_path: Path) -> None:
    def encode(index: int, ds: Dataset) -> None:
        ds.compress(JPEGLSNearLossless, jls_error=2, generate_instance_uid=False)
        if "LossyImageCompression" in ds:
            del ds.LossyImageCompression

    write_series(tmp_path / "near", change=encode)
    found = read(tmp_path / "near")
    assert np.abs(found.volume.array.astype(int) - ct()).max() <= 2
    assert "the images have undergone lossy compression" in found.warnings


def test_10_slices_of_one_series_may_be_stored_in_different_ways(tmp_path: Path) -> None:
    def encode(index: int, ds: Dataset) -> None:
        if index % 3:
            ds.compress([RLELossless, JPEG2000Lossless][index % 3 - 1], generate_instance_uid=False)

    write_series(tmp_path / "mixed", change=encode)
    np.testing.assert_array_equal(read(tmp_path / "mixed").volume.array, ct())


# 11: two statements of one NIfTI header


SFORM = np.array([[1.0, 0, 0, 10], [0, 1, 0, 20], [0, 0, 3, -40], [0, 0, 0, 1]])
QFORM = np.array([[-1.0, 0, 0, 60], [0, -1, 0, 70], [0, 0, 3, -40], [0, 0, 0, 1]])


def conflicting(tmp_path: Path, **options: Any) -> Case:
    path = write_nifti(tmp_path / "two.nii.gz", ct(), sform=SFORM, qform=QFORM)
    (case,) = find_cases(path, **options)[0]
    assert isinstance(case, Case)
    return case


def test_11_a_conflict_is_refused_unasked_and_says_how_to_ask(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="with --affine sform or --affine qform"):
        read_case(conflicting(tmp_path))


@pytest.mark.parametrize(("asked", "affine"), [("sform", SFORM), ("qform", QFORM)])
def test_11_the_affine_that_is_asked_for_places_the_mark_and_both_are_named(
    tmp_path: Path, asked: str, affine: np.ndarray
) -> None:
    found = read_case(conflicting(tmp_path, affine=asked))
    assert found.source["affine_rule"] == asked
    ijk = np.argwhere(ct() > 800)[:, ::-1]
    ras = ijk @ affine[:3, :3].T + affine[:3, 3]
    np.testing.assert_allclose(mark_points(found).mean(axis=0), (ras * [-1, -1, 1]).mean(axis=0), atol=1e-4)
    (warning,) = (w for w in found.warnings if "differ" in w)
    assert warning.startswith("sform and qform (codes 1 and 1) differ by up to ")
    assert warning.endswith(f"mm: the {asked} was used, as requested")


@pytest.mark.parametrize(("asked", "codes"), [("sform", (0, 1)), ("qform", (1, 0)), ("qform", (0, 0))])
def test_11_an_affine_that_is_not_there_cannot_be_asked_for(
    tmp_path: Path, asked: Any, codes: tuple[int, int]
) -> None:
    write_nifti(tmp_path / "one.nii.gz", ct(), codes=codes)
    (case,) = find_cases(tmp_path, affine=asked)[0]
    assert isinstance(case, Case)
    with pytest.raises(InputError, match=f"it has no {asked}"):
        read_case(case)


@pytest.mark.parametrize("asked", ["auto", "sform", "qform"])
def test_11_two_that_agree_are_taken_without_a_word(tmp_path: Path, asked: Any) -> None:
    write_nifti(tmp_path / "one.nii.gz", ct(), sform=SFORM, qform=SFORM)
    (case,) = find_cases(tmp_path, affine=asked)[0]
    assert isinstance(case, Case)
    assert not any("differ" in warning for warning in read_case(case).warnings)


def test_11_a_reader_of_the_shared_rule_does_not_disturb_dicom(tmp_path: Path) -> None:
    write_series(tmp_path / "one")
    (case,) = find_cases(tmp_path / "one", affine="qform")[0]
    assert isinstance(case, Case)
    np.testing.assert_array_equal(read_case(case).volume.array, ct())


# 16 and 31: the order of the files


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("step", [3.0, -3.0])
def test_16_the_order_of_the_files_means_nothing(tmp_path: Path, seed: int, step: float) -> None:
    order = np.random.default_rng(seed).permutation(8)
    files = write_series(tmp_path / "one", step=(0, 0, step))
    for name, file in zip(order, files, strict=True):
        file.rename(file.with_name(f"IM{name}"))
    found = read(tmp_path / "one")
    hu = ct() if step > 0 else ct()[::-1]
    np.testing.assert_array_equal(found.volume.array, hu)
    np.testing.assert_allclose(found.volume.grid.origin, [-20, -15, min(100, 100 + 7 * step)])


# every case apart from the others


@pytest.mark.slow
def test_one_awkward_patient_after_another_and_none_disturbs_the_next(tmp_path: Path) -> None:
    """The whole list at once: a row for each, and the sound ones are read."""
    write_series(tmp_path / "gap", patient="gap", leave_out=[3])
    write_series(tmp_path / "few", patient="few", slices=2)
    write_series(tmp_path / "nowhere", patient="nowhere", change=_without_place)
    write_series(tmp_path / "sagittal", patient="sag", orientation=SAGITTAL, step=(3, 0, 0))
    write_series(tmp_path / "mr", patient="mr", SOPClassUID="1.2.840.10008.5.1.4.1.1.4", Modality="MR")
    (tmp_path / "zip.zip").write_text("words")
    (tmp_path / "broken.nii.gz").write_text("words")
    for name in ("aaa", "mmm", "zzz"):
        write_series(tmp_path / name, patient=name)
    cases, _ = find_cases(tmp_path)
    refused = {case.case_id: case.reason for case in cases if isinstance(case, Refusal)}
    assert set(refused) == {"gap", "few", "nowhere", "sagittal", "mr", "zip", "broken"}
    for reason in refused.values():
        assert reason.endswith(".")
        assert "\n" not in reason
        assert str(tmp_path) not in reason
    sound = [case for case in cases if isinstance(case, Case)]
    assert [case.case_id for case in sound] == ["aaa", "mmm", "zzz"]
    for case in sound:
        np.testing.assert_array_equal(read_case(case).volume.array, ct())


def _without_place(index: int, ds: Dataset) -> None:
    del ds.ImagePositionPatient
