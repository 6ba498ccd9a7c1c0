"""RTSTRUCT: what it says, and that readers which share nothing with the writer draw our masks again."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from aiene.errors import CaseError
from aiene.export import rtstruct
from aiene.export.case import findings_of
from aiene.export.identity import encoded
from aiene.export.verification import check_rtstruct
from aiene.geometry.grid import Grid, Volume
from aiene.geometry.resample import pull_labels
from builders import planted_series as series
from builders import rtstruct_readers as readers

SIZE = (8, 32, 40)
ORIENTATIONS = {
    "axial": ((0, 0, 0), False),
    "axial, falling": ((0, 0, 0), True),
    "oblique": ((20, -12, 9), False),
    "oblique, falling": ((-25, 14, 31), True),
    "coronal": ((0, 0, -90), False),
    "head first prone": ((180, 0, 0), False),
}


@pytest.fixture(params=ORIENTATIONS)
def planted(request: pytest.FixtureRequest, tmp_path: Path) -> series.Planted:
    """Five nodes, each with its own trap, in a series of some orientation, its files in random order."""
    degrees, falling = ORIENTATIONS[request.param]
    grid = series.grid_of(SIZE, degrees=degrees, falling=falling)
    return series.planted(tmp_path / "ct", series.nodes_with_everything(SIZE), grid, ene=(0.823, None, 0.2))


@pytest.fixture
def axial(tmp_path: Path) -> series.Planted:
    """The same, axial."""
    return series.planted(
        tmp_path / "ct", series.nodes_with_everything(SIZE), series.grid_of(SIZE), ene=(0.823, None, 0.2)
    )


def write(ds: Dataset, folder: Path) -> Path:
    file = folder / "rtstruct.dcm"
    ds.save_as(file, enforce_file_format=True)
    return file


def one_node(size: tuple[int, int, int] = SIZE) -> npt.NDArray[Any]:
    nodes = np.zeros(size, np.uint16)
    nodes[2:5, 8:14, 20:29] = 1
    return nodes


def on(image: sitk.Image, at: series.Planted) -> npt.NDArray[Any]:
    """A mask of another reader, in the order in which the slices were written."""
    directions = np.array(image.GetDirection()).reshape(3, 3).T[::-1]
    grid = Grid(
        image.GetSize()[::-1],
        image.GetSpacing()[::-1],
        image.GetOrigin(),
        tuple(map(tuple, directions)),  # type: ignore[arg-type]
    )
    array = (sitk.GetArrayFromImage(image) > 0).astype(np.uint8)
    rising = pull_labels(Volume(array, grid), at.case.source.grid).array
    order = [str(ds.SOPInstanceUID) for ds in at.case.source.datasets]
    return np.stack([rising[order.index(uid)] for uid in at.instance]) > 0


def dice(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def test_a_reader_that_asks_which_pixel_centres_lie_inside_gets_every_voxel_back(
    planted: series.Planted, tmp_path: Path
) -> None:
    file = write(rtstruct.build(planted.case), tmp_path)
    masks = readers.by_point_in_polygon(file, planted.folder)
    blank = np.zeros(SIZE[1:], bool)
    for node in planted.case.result.nodes:
        drawn = np.stack([masks[node.name].get(uid, blank) for uid in planted.instance])
        np.testing.assert_array_equal(drawn, planted.nodes == node.value, err_msg=node.name)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    share=st.floats(0.02, 0.98),
    degrees=st.tuples(*[st.floats(-180, 180, width=32, allow_subnormal=False)] * 3),
    falling=st.booleans(),
)
def test_any_mask_in_any_orientation_comes_back_voxel_by_voxel(
    seed: int, share: float, degrees: tuple[float, ...], falling: bool
) -> None:
    nodes = (np.random.default_rng(seed).random((4, 9, 13)) < share).astype(np.uint16)
    nodes[1, 4, 6] = 1
    with tempfile.TemporaryDirectory() as folder:
        grid = series.grid_of(nodes.shape, degrees=degrees, falling=falling)
        at = series.planted(Path(folder) / "ct", nodes, grid, seed=seed)
        masks = readers.by_point_in_polygon(write(rtstruct.build(at.case), Path(folder)), at.folder)
    blank = np.zeros(nodes.shape[1:], bool)
    drawn = np.stack([masks["GTVn_01"].get(uid, blank) for uid in at.instance])
    np.testing.assert_array_equal(drawn, nodes == 1)


@pytest.mark.slow
def test_dcmrtstruct2nii_draws_the_mask_where_it_was_planted(
    planted: series.Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(rtstruct.build(planted.case), tmp_path)
    masks = readers.by_dcmrtstruct2nii(file, planted.folder, monkeypatch)
    for node in planted.case.result.nodes:
        assert dice(on(masks[node.name], planted), planted.nodes == node.value) >= 0.98


@pytest.mark.slow
def test_plastimatch_draws_the_mask_where_it_was_planted(planted: series.Planted, tmp_path: Path) -> None:
    file = write(rtstruct.build(planted.case), tmp_path)
    masks = readers.by_plastimatch(file, planted.folder, tmp_path / "drawn")
    for node in planted.case.result.nodes:
        assert dice(on(masks[node.name], planted), planted.nodes == node.value) >= 0.98


@pytest.mark.slow
def test_the_validator_has_no_word_against_it(planted: series.Planted, tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    primary = np.zeros(SIZE, bool)
    primary[6:8, 5:8, 20:24] = True
    file = write(rtstruct.build(planted.case), tmp_path)
    said = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False)
    assert "Error" not in said.stdout + said.stderr
    assert "Warning" not in said.stdout + said.stderr


def test_each_node_is_one_roi_that_says_its_ene_value_beside_its_name(axial: series.Planted) -> None:
    made = rtstruct.build(axial.case)
    rois = made.StructureSetROISequence
    assert [roi.ROIName for roi in rois] == [f"GTVn_{k:02d}" for k in range(1, 6)]
    assert all(len(roi.ROIName) <= 16 and roi.ROIGenerationAlgorithm == "AUTOMATIC" for roi in rois)
    assert rois[0].ROIDescription.startswith("ENE probability 0.8230 (threshold 0.5: ENE), pos 0.9100")
    assert "not judged" in rois[1].ROIDescription
    assert "0.2000 (threshold 0.5: no ENE)" in rois[2].ROIDescription
    seen = made.RTROIObservationsSequence
    assert [item.ROIObservationLabel for item in seen[:3]] == ["ENE 0.8230", "not judged", "ENE 0.2000"]
    assert {item.RTROIInterpretedType for item in seen} == {"GTV"}
    assert seen[0].RTROIIdentificationCodeSequence[0].CodeValue == "130051"  # GTV Nodal
    for word in ("aiene 0.1.0", "default 1.0", "abababababab", "not a medical device"):
        assert word in rois[0].ROIDescription
    volume = axial.case.result.nodes[0].native_volume_mm3
    assert float(rois[0].ROIVolume) == pytest.approx(volume / 1000, abs=1e-4)  # ml


def test_the_primary_tumour_is_a_roi_of_its_own_where_it_was_found(tmp_path: Path) -> None:
    primary = np.zeros(SIZE, bool)
    primary[5:7, 20:26, 10:17] = True
    at = series.planted(tmp_path / "ct", one_node(), series.grid_of(SIZE), primary=primary)
    file = write(rtstruct.build(at.case), tmp_path)
    made = pydicom.dcmread(file)
    assert [roi.ROIName for roi in made.StructureSetROISequence] == ["GTVn_01", "GTVp"]
    assert made.RTROIObservationsSequence[1].RTROIIdentificationCodeSequence[0].CodeValue == "130052"
    drawn = readers.by_point_in_polygon(file, at.folder)["GTVp"]
    blank = np.zeros(SIZE[1:], bool)
    np.testing.assert_array_equal(np.stack([drawn.get(uid, blank) for uid in at.instance]), primary)


def test_patient_and_study_are_copied_and_nothing_is_invented(tmp_path: Path) -> None:
    def tell(_: int, ds: Dataset) -> None:
        ds.PatientBirthDate, ds.PatientAge, ds.AccessionNumber = "19500101", "076Y", "A77"
        ds.StudyDescription, ds.SpecificCharacterSet = "Neck", "ISO_IR 100"
        ds.PatientName = "Müller^Änne"
        del ds.PatientSex

    at = series.planted(tmp_path / "ct", one_node(), series.grid_of(SIZE), change=tell)
    made = pydicom.dcmread(write(rtstruct.build(at.case), tmp_path))
    source = at.case.source.datasets[0]
    for keyword in (
        *("PatientName", "PatientID", "PatientBirthDate", "PatientAge", "AccessionNumber"),
        *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyDescription", "FrameOfReferenceUID"),
    ):
        assert made[keyword].value == source[keyword].value, keyword
    assert made.PatientSex == ""
    for invented in ("PatientWeight", "InstitutionName", "DeviceSerialNumber", "StationName"):
        assert invented not in made
    assert made.SeriesInstanceUID != source.SeriesInstanceUID
    assert "not for clinical use" in made.SeriesDescription


def test_every_reference_leads_to_the_source(axial: series.Planted) -> None:
    made = rtstruct.build(axial.case)
    source = axial.case.source.datasets
    (frame,) = made.ReferencedFrameOfReferenceSequence
    (study,) = frame.RTReferencedStudySequence
    (listed,) = study.RTReferencedSeriesSequence
    assert frame.FrameOfReferenceUID == source[0].FrameOfReferenceUID
    assert study.ReferencedSOPInstanceUID == source[0].StudyInstanceUID
    assert listed.SeriesInstanceUID == source[0].SeriesInstanceUID
    uids = [item.ReferencedSOPInstanceUID for item in listed.ContourImageSequence]
    assert sorted(uids) == sorted(axial.instance)
    for roi in made.StructureSetROISequence:
        assert roi.ReferencedFrameOfReferenceUID == source[0].FrameOfReferenceUID


def test_the_same_case_gives_the_same_bytes_and_another_value_another_uid(tmp_path: Path) -> None:
    files = []
    for name, ene in (("a", 0.823), ("b", 0.823), ("c", 0.824)):
        at = series.planted(tmp_path / name, one_node(), series.grid_of(SIZE), ene=(ene,))
        files.append(write(rtstruct.build(at.case), tmp_path / name).read_bytes())
    assert files[0] == files[1]
    uids = [pydicom.dcmread(tmp_path / n / "rtstruct.dcm").SOPInstanceUID for n in "ac"]
    assert uids[0] != uids[1]


def test_a_long_outline_is_kept_whole(tmp_path: Path) -> None:
    size = (4, 200, 220)
    nodes = np.zeros(size, np.uint16)
    nodes[1, 2:-2, 2:-2] = 1
    nodes[1, 3:-3:2, 3:-3] = 0  # a comb
    nodes[1, 3:-3, 3] = 1
    at = series.planted(tmp_path / "ct", nodes, series.grid_of(size))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pydicom warns where a value does not fit
        file = write(rtstruct.build(at.case), tmp_path)
    drawn = readers.by_point_in_polygon(file, at.folder)["GTVn_01"]
    np.testing.assert_array_equal(drawn[at.instance[1]], nodes[1] == 1)


def test_values_fit_the_sixteen_characters_of_a_decimal_string(tmp_path: Path) -> None:
    grid = Grid(SIZE, (3.0, 0.9, 0.8), (-123456.789123, 98765.4321, -7000.25), series.grid_of(SIZE).direction)
    at = series.planted(tmp_path / "ct", one_node(), grid)
    made = rtstruct.build(at.case)
    texts = [str(v) for c in made.ROIContourSequence[0].ContourSequence for v in c.ContourData]
    assert max(map(len, texts)) <= 16


@pytest.mark.slow
def test_masks_of_a_tilted_gantry_come_back_onto_the_slices_planes(tmp_path: Path) -> None:
    shift = 3.0 * np.tan(np.radians(18.5))

    def tilt(index: int, ds: Dataset) -> None:
        position = [float(v) for v in ds.ImagePositionPatient]
        position[1] += index * shift
        ds.ImagePositionPatient = [f"{v:.6f}" for v in position]

    upright = series.grid_of((8, 44, 40))
    wide = Grid((8, 60, 40), upright.spacing, upright.origin, upright.direction)
    nodes = np.zeros(wide.size, np.uint16)
    nodes[2:5, 20:26, 10:22] = 1  # where the run's rectangular grid has it
    plain = series.planted(tmp_path / "ct", np.zeros(upright.size, np.uint16), upright, change=tilt)
    result = series.CaseResult("one", "ok", nodes=series.node_results(nodes, wide, (0.8,)))  # type: ignore[attr-defined]
    case = series.ExportCase(  # type: ignore[attr-defined]
        result,
        Volume(nodes, wide),
        Volume((nodes > 0).astype(np.uint8) * 2, wide),
        plain.case.source,
        series.MAKER,
    )
    assert case.source.is_tilted
    file = write(rtstruct.build(case), tmp_path)
    drawn = readers.by_point_in_polygon(file, plain.folder)["GTVn_01"]
    for k, uid in enumerate(plain.instance):
        rows = np.arange(44) + k * shift / 0.9  # of the wide grid, in fractions
        expected = np.zeros((44, 40), bool)
        if 2 <= k < 5:
            expected[np.ix_((rows >= 19.5) & (rows < 25.5), np.arange(10, 22))] = True
        np.testing.assert_array_equal(drawn.get(uid, np.zeros((44, 40), bool)), expected)


def test_contours_on_a_multi_frame_source_name_their_frame(axial: series.Planted) -> None:
    from dataclasses import replace

    first = axial.case.source.datasets[0]
    for ds in axial.case.source.datasets:
        ds.SOPInstanceUID = first.SOPInstanceUID
    source = replace(axial.case.source, frames=tuple(range(1, 9)))
    made = rtstruct.build(replace(axial.case, source=source))
    images = made.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    assert len(images.RTReferencedSeriesSequence[0].ContourImageSequence) == 1
    (item,) = made.ROIContourSequence[1].ContourSequence  # one voxel on slice 6
    assert item.ContourImageSequence[0].ReferencedFrameNumber == 7


def test_a_case_without_findings_has_nothing_to_outline(tmp_path: Path) -> None:
    at = series.planted(tmp_path / "ct", np.zeros(SIZE, np.uint16), series.grid_of(SIZE))
    with pytest.raises(CaseError, match="nothing to outline"):
        rtstruct.build(at.case)


def test_a_node_outside_the_source_is_named_and_not_lost(tmp_path: Path) -> None:
    from dataclasses import replace

    at = series.planted(tmp_path / "ct", one_node(), series.grid_of(SIZE))
    away = Grid(SIZE, (3.0, 0.9, 0.8), (500.0, 500.0, 0.0))
    moved = replace(at.case, nodes=Volume(one_node(), away), labels=Volume(one_node(), away))
    with pytest.raises(CaseError, match="GTVn_01 lies outside the slices"):
        rtstruct.build(moved)


def test_a_source_without_frame_of_reference_is_refused_in_a_sentence(tmp_path: Path) -> None:
    def strip(_: int, ds: Dataset) -> None:
        del ds.FrameOfReferenceUID

    at = series.planted(tmp_path / "ct", one_node(), series.grid_of(SIZE), change=strip)
    with pytest.raises(CaseError, match="frame of reference"):
        rtstruct.build(at.case)


def read_back(at: series.Planted) -> None:
    check_rtstruct(encoded(rtstruct.build(at.case)), at.case, findings_of(at.case))


def test_reading_back_finds_every_node_as_it_was(planted: series.Planted) -> None:
    read_back(planted)


def test_an_outline_on_the_wrong_slice_does_not_count_as_done(
    axial: series.Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = rtstruct._outlines
    monkeypatch.setattr(rtstruct, "_outlines", lambda mask: [(k - 1, outline) for k, outline in right(mask)])
    with pytest.raises(CaseError, match=r"voxels of GTVn_01 differ when the RTSTRUCT is read back"):
        read_back(axial)


def test_an_outline_of_another_shape_does_not_count_as_done(
    axial: series.Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = rtstruct._outlines
    larger = [(k, outline * 1.1) for k, outline in right(findings_of(axial.case).mask("GTVn_01"))]
    monkeypatch.setattr(rtstruct, "_outlines", lambda _: larger)
    with pytest.raises(CaseError, match=r"differ when the RTSTRUCT is read back"):
        read_back(axial)


def test_a_contour_off_its_plane_or_of_another_image_does_not_count_as_done(axial: series.Planted) -> None:
    for spoil in (
        lambda contour: setattr(contour, "ContourData", [float(v) + 1 for v in contour.ContourData]),
        lambda contour: setattr(contour.ContourImageSequence[0], "ReferencedSOPInstanceUID", "1.2.3"),
    ):
        made = rtstruct.build(axial.case)
        spoil(made.ROIContourSequence[0].ContourSequence[0])
        with pytest.raises(CaseError, match=r"not in the plane|no image of the source series"):
            check_rtstruct(encoded(made), axial.case, findings_of(axial.case))
