"""Segmentations lie where the nodes are, by readers that know nothing of how they were written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial import cKDTree

from aiene.errors import CaseError
from aiene.export import codes, seg
from aiene.export.case import findings_of, on_source
from aiene.export.identity import encoded, tracking_uid
from aiene.export.run import export_run
from aiene.export.verification import check_fractional, check_segmentation, parsed, read_segments
from aiene.geometry.grid import Grid
from builders.export_runs import (
    AXIAL,
    FOOT_GRID,
    MAKER,
    OBLIQUE,
    OBLIQUE_DOWN,
    case_of,
    foot,
    gdcm_pixels,
    says,
    series_of,
    small_grid,
    turned,
    write_run,
    write_series,
)

hd = pytest.importorskip("highdicom", reason="the dicom extra is not installed")


def made(case: Any) -> bytes:
    return encoded(seg.build(case, findings_of(case)))


def physical(dataset: pydicom.Dataset, stored: np.ndarray) -> dict[int, np.ndarray]:
    """LPS points of the set pixels of each segment, by each frame's own words: nothing of ours is used."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    row_mm, column_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    points: dict[int, list[np.ndarray]] = {}
    for frame, group in zip(stored, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        number = (group.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence)[
            0
        ].ReferencedSegmentNumber
        origin = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        r, c = np.nonzero(frame)
        lps = origin + np.outer(c * column_mm, cosines[:3]) + np.outer(r * row_mm, cosines[3:])
        points.setdefault(int(number), []).append(lps)
    return {number: np.concatenate(parts) for number, parts in points.items()}


def same_points(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two clouds are the same to a hundredth of a millimetre."""
    return a.shape == b.shape and bool(cKDTree(a).query(b)[0].max() < 0.01)


@pytest.mark.parametrize("direction", [AXIAL, OBLIQUE, OBLIQUE_DOWN], ids=["axial", "oblique", "down"])
@pytest.mark.slow
def test_a_segment_lies_where_the_node_was_planted_whatever_the_files_order(
    tmp_path: Path, direction: Any
) -> None:
    write_series(tmp_path / "case", small_grid(direction))
    run = write_run(tmp_path / "out", tmp_path / "case")
    assert export_run(run.out, ["dicom-seg"]).exit_code == 0
    file = run.out / "cases/case/dicom/seg.dcm"
    clouds = physical(pydicom.dcmread(file), gdcm_pixels(file))
    for number, node in enumerate(run.result.nodes, start=1):
        planted = run.native.points(np.argwhere(run.nodes == node.value))
        assert same_points(clouds[number], planted)
        np.testing.assert_allclose(clouds[number].mean(axis=0), node.centroid_lps_mm, atol=1e-3)
    assert same_points(clouds[3], run.native.points(np.argwhere(run.labels == 1)))


def test_highdicoms_own_reader_gives_the_mask_back_voxel_by_voxel(tmp_path: Path) -> None:
    case = case_of(foot, FOOT_GRID, labels=np.where(foot == 2, 1, 0))  # the primary overlaps a node
    (tmp_path / "seg.dcm").write_bytes(made(case))
    volume = hd.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=False)
    for index, mask in enumerate((foot == 1, foot == 2, foot == 2)):
        there = np.argwhere(volume.array[..., index])
        lps = there @ volume.affine[:3, :3].T + volume.affine[:3, 3]
        assert same_points(lps, FOOT_GRID.points(np.argwhere(mask)))


@pytest.mark.slow
def test_dcmqi_gives_the_mask_back_voxel_by_voxel(tmp_path: Path) -> None:
    (tmp_path / "seg.dcm").write_bytes(made(case_of(foot, FOOT_GRID)))
    code, said = says(
        "segimage2itkimage", "--inputDICOM", tmp_path / "seg.dcm", "--outputDirectory", tmp_path, "-p", "x",
        "-t", "nrrd",
    )  # fmt: skip
    assert code == 0, said
    for value in (1, 2):
        image = sitk.ReadImage(str(tmp_path / f"x-{value}.nrrd"))
        there = np.argwhere(sitk.GetArrayFromImage(image))[:, ::-1]
        lps = np.array([image.TransformIndexToPhysicalPoint(i.tolist()) for i in there])
        assert same_points(lps, FOOT_GRID.points(np.argwhere(foot == value)))
    meta = json.loads((tmp_path / "x-meta.json").read_text())
    assert [s[0]["SegmentLabel"] for s in meta["segmentAttributes"]] == ["GTVn_01", "GTVn_02"]


@st.composite
def cases(draw: st.DrawFn) -> Any:
    """Any grid and any mask, the stack rising or falling, left- or right-handed."""
    size: Any = tuple(draw(st.integers(1 if axis else 2, 7)) for axis in range(3))
    spacing: Any = tuple(draw(st.floats(0.3, 7)) for _ in range(3))
    origin: Any = tuple(draw(st.floats(-900, 900)) for _ in range(3))
    angles: Any = tuple(draw(st.floats(-180, 180, width=32, allow_subnormal=False)) for _ in range(3))
    grid = Grid(size, spacing, origin, turned(angles, flip=draw(st.booleans())))
    nodes = draw(arrays.arrays(np.uint16, size, elements=st.integers(0, 3)))
    primary = draw(arrays.arrays(np.uint8, size, elements=st.sampled_from([0, 0, 1])))
    return nodes, primary, grid


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(cases())
def test_any_mask_on_any_grid_comes_out_as_it_went_in(drawn: Any) -> None:
    nodes, primary, grid = drawn
    case = case_of(nodes, grid, labels=primary)
    found = findings_of(case)
    if not found.names:
        with pytest.raises(CaseError, match="nothing was found"):
            seg.build(case, found)
        return
    content = made(case)
    dataset = parsed(content)
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    shape = int(dataset.NumberOfFrames), int(dataset.Rows), int(dataset.Columns)
    clouds = physical(dataset, bits[: np.prod(shape)].reshape(shape))
    labels = [str(s.SegmentLabel) for s in dataset.SegmentSequence]
    for number, label in enumerate(labels, start=1):
        mask = primary == 1 if label == "GTVp" else nodes == int(label[-2:])
        assert same_points(clouds[number], grid.points(np.argwhere(mask)))
    segments = read_segments(dataset, case.source)
    for label, segment in segments.items():
        np.testing.assert_array_equal(segment.voxels, found.mask(label))


def test_every_segment_says_what_it_is_where_and_by_which_algorithm() -> None:
    case = case_of(foot, FOOT_GRID, labels=np.where(foot == 0, np.indices(foot.shape)[0] == 0, 0))
    nodes = tuple(replace(n, side=s) for n, s in zip(case.result.nodes, ("right", "midline"), strict=True))
    case = replace(case, result=replace(case.result, nodes=nodes))
    first, second, primary = parsed(made(case)).SegmentSequence
    assert [first.SegmentLabel, first.TrackingID, first.TrackingUID] == [
        "GTVn_01", "GTVn_01", tracking_uid(case, "GTVn_01"),
    ]  # fmt: skip
    assert first.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == "14799000"
    assert primary.SegmentedPropertyTypeCodeSequence[0].CodeValue == "372087000"
    sides = [s.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0].CodeValue for s in (first, second)]
    assert sides == [codes.SIDES["right"].value, codes.SIDES["midline"].value]
    assert first.SegmentAlgorithmType == "AUTOMATIC"
    by = first.SegmentationAlgorithmIdentificationSequence[0]
    assert by.AlgorithmVersion == "0.1.0, bundle 2"
    assert f"bundle_sha256={MAKER.bundle_sha256}" in by.AlgorithmParameters
    assert by.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"


def test_masks_of_the_users_own_are_not_called_automatic() -> None:
    case = case_of(foot, FOOT_GRID, maker=replace(MAKER, own_masks=True))
    assert parsed(made(case)).SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"


def test_the_whole_series_is_referenced_and_each_frame_names_its_slice() -> None:
    case = case_of(foot, FOOT_GRID)
    dataset = parsed(made(case))
    (series,) = dataset.ReferencedSeriesSequence
    every = [d.SOPInstanceUID for d in case.source.datasets]
    assert series.SeriesInstanceUID == "1.2.2"
    assert [i.ReferencedSOPInstanceUID for i in series.ReferencedInstanceSequence] == every
    assert dataset.FrameOfReferenceUID == "1.2.4"
    for group in dataset.PerFrameFunctionalGroupsSequence:
        image = group.DerivationImageSequence[0].SourceImageSequence[0]
        k = every.index(image.ReferencedSOPInstanceUID)
        place = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        np.testing.assert_allclose(place, np.array(case.source.datasets[k].ImagePositionPatient, float))


def test_patient_and_study_are_copied_and_nothing_is_invented() -> None:
    header = {"PatientAge": "065Y", "StudyDescription": "Neck", "PatientSex": "O"}
    case = case_of(foot, FOOT_GRID, series=series_of(FOOT_GRID, header))
    dataset = parsed(made(case))
    source = case.source.datasets[0]
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge",
                    "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "StudyDescription"):  # fmt: skip
        assert dataset.get(keyword) == source.get(keyword), keyword
    assert dataset.ReferringPhysicianName == ""
    for keyword in ("InstitutionName", "OperatorsName", "PatientWeight", "OtherPatientIDs"):
        assert keyword not in dataset


def test_the_same_result_gives_the_same_bytes_and_another_one_another_uid() -> None:
    case = case_of(foot, FOOT_GRID)
    first = made(case)
    assert made(case_of(foot.copy(), FOOT_GRID)) == first
    grown = foot.copy()
    grown[8, 9, 12] = 2
    other = parsed(made(case_of(grown, FOOT_GRID)))
    assert other.SOPInstanceUID != parsed(first).SOPInstanceUID
    assert other.SeriesInstanceUID != parsed(first).SeriesInstanceUID


def swap_frames(dataset: pydicom.Dataset) -> None:
    frames = dataset.PerFrameFunctionalGroupsSequence
    frames[0], frames[4] = frames[4], frames[0]


def name_another_image(dataset: pydicom.Dataset) -> None:
    frames = dataset.PerFrameFunctionalGroupsSequence
    a, b = (frames[k].DerivationImageSequence[0].SourceImageSequence[0] for k in (0, 1))
    a.ReferencedSOPInstanceUID = b.ReferencedSOPInstanceUID


def turn_one_bit(dataset: pydicom.Dataset) -> None:
    dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]


def shift_a_frame(dataset: pydicom.Dataset) -> None:
    place = dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    place.ImagePositionPatient = [float(v) + 1 for v in place.ImagePositionPatient]


def swap_axes(dataset: pydicom.Dataset) -> None:
    plane = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    cosines = plane.ImageOrientationPatient
    plane.ImageOrientationPatient = [*cosines[3:], *cosines[:3]]


def change_patient(dataset: pydicom.Dataset) -> None:
    dataset.PatientID = "B2"


def change_space(dataset: pydicom.Dataset) -> None:
    dataset.FrameOfReferenceUID = "1.9"


def change_tracking(dataset: pydicom.Dataset) -> None:
    dataset.SegmentSequence[0].TrackingUID = "1.9"


@pytest.mark.parametrize(
    "flaw",
    [
        *(swap_frames, name_another_image, turn_one_bit, shift_a_frame, swap_axes),
        *(change_patient, change_space, change_tracking),
    ],
)
def test_a_flaw_in_the_file_is_found_when_it_is_read_back(flaw: Any) -> None:
    case = case_of(foot, FOOT_GRID)
    found = findings_of(case)
    content = made(case)
    check_segmentation(content, case, found)
    dataset = parsed(content)
    flaw(dataset)
    with pytest.raises(CaseError, match="report this"):
        check_segmentation(encoded(dataset), case, found)


def test_probabilities_are_stored_to_a_255th_and_come_back() -> None:
    case = case_of(foot, FOOT_GRID)
    ramp = np.linspace(0, 1, foot.size, dtype=np.float32).reshape(foot.shape)
    ramp[3] = 0  # an empty slice between others
    values = {"GTVn": ramp, "GTVp": np.zeros_like(ramp)}
    content = encoded(seg.build_fractional(case, values))
    dataset = parsed(content)
    assert dataset.SegmentationType == "FRACTIONAL"
    assert dataset.SegmentationFractionalType == "PROBABILITY"
    assert [s.SegmentLabel for s in dataset.SegmentSequence] == ["GTVn"]
    back = read_segments(dataset, case.source)["GTVn"].voxels / 255
    assert np.abs(back - on_grid(ramp, case)).max() <= 0.5 / 255 + 1e-6
    stored = {name: seg.quantised(value) for name, value in values.items()}
    check_fractional(content, case, stored)
    stored["GTVn"] = np.where(stored["GTVn"] == 200, 201, stored["GTVn"])
    with pytest.raises(CaseError, match="probabilities differ"):
        check_fractional(content, case, stored)


def test_probabilities_of_nothing_make_no_object() -> None:
    case = case_of(foot, FOOT_GRID)
    with pytest.raises(CaseError, match="no voxel has a probability"):
        seg.build_fractional(case, {"GTVn": np.full(foot.shape, 1e-4, np.float32)})


@pytest.mark.parametrize(
    "keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"]
)
def test_a_source_without_what_every_object_must_copy_is_refused(keyword: str) -> None:
    series = series_of(FOOT_GRID)
    delattr(series.datasets[3], keyword)
    with pytest.raises(CaseError, match="have no"):
        made(case_of(foot, FOOT_GRID, series=series))


def test_a_node_outside_the_source_is_told_and_one_without_a_voxel_only_warned_of() -> None:
    case = case_of(foot, FOOT_GRID)
    half = replace(
        case.source,
        datasets=case.source.datasets[:5],
        files=case.source.files[:5],
        frames=case.source.frames[:5],
    )
    with pytest.raises(CaseError, match="GTVn_02 lies outside"):
        findings_of(replace(case, source=half))
    tiny = replace(case.result.nodes[1], name="GTVn_03", native_volume_mm3=0.0)
    result = replace(case.result, nodes=(*case.result.nodes, tiny))
    found = findings_of(replace(case, result=result))
    assert found.names == ("GTVn_01", "GTVn_02")
    assert "GTVn_03" in found.warnings[0]


def test_a_map_that_does_not_belong_to_the_record_is_refused() -> None:
    case = case_of(foot, FOOT_GRID)
    for edited in (np.where(foot == 2, 3, foot), np.where(foot == 2, 0, foot)):
        nodes = case.nodes.with_array(edited.astype(np.uint16))
        with pytest.raises(CaseError, match="no longer belong together"):
            findings_of(replace(case, nodes=nodes))


@pytest.mark.slow
def test_the_validators_find_no_error(tmp_path: Path) -> None:
    case = case_of(foot, FOOT_GRID, labels=np.where(foot == 2, 1, 0))
    (tmp_path / "seg.dcm").write_bytes(made(case))
    ramp = np.linspace(0, 1, foot.size, dtype=np.float32).reshape(foot.shape)
    (tmp_path / "fractional.dcm").write_bytes(encoded(seg.build_fractional(case, {"GTVn": ramp})))
    for name in ("seg.dcm", "fractional.dcm"):
        said = says("dciodvfy", tmp_path / name)[1]
        assert "Error" not in said, said
        code, dump = says("dcmdump", tmp_path / name)
        assert code == 0
        assert "SegmentSequence" in dump


def on_grid(values: np.ndarray, case: Any) -> np.ndarray:
    return on_source(case.nodes.with_array(values), case.source)
