"""Runs of NIfTI and NRRD files: the series that the CT was made from is found by its voxels, or refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from aiene.export.run import export_run
from aiene.export.source_lookup import fits
from aiene.geometry.grid import Grid, Volume
from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from aiene.results.nifti import write_nifti
from builders.export_runs import (
    AXIAL,
    OBLIQUE,
    OBLIQUE_DOWN,
    Run,
    gdcm_pixels,
    small_grid,
    write_run,
    write_series,
)

pytest.importorskip("highdicom", reason="the dicom extra is not installed")

ORDERS = {
    "as it lies": (),
    "slices the other way": (0,),
    "rows the other way": (1,),
    "everything the other way": (0, 1, 2),
}


def turned_over(volume: Volume, axes: tuple[int, ...]) -> Volume:
    """The same voxels in the same place, some index axes running the other way."""
    affine = volume.grid.affine.copy()
    for axis in axes:
        affine[:3, 3] += affine[:3, axis] * (volume.grid.size[axis] - 1)
        affine[:3, axis] *= -1
    return Volume(np.flip(volume.array, axes), Grid.from_affine(affine, volume.grid.size))


def run_of_nifti(tmp_path: Path, axes: tuple[int, ...] = (), direction: Any = OBLIQUE) -> Run:
    """A run of a NIfTI file that a converter made from a series."""
    write_series(tmp_path / "series", small_grid(direction))
    (case,), _ = find_cases(tmp_path / "series")
    assert isinstance(case, Case)
    (tmp_path / "in").mkdir()
    write_nifti(turned_over(read_case(case).volume, axes), tmp_path / "in/pat.nii.gz")
    return write_run(tmp_path / "out", tmp_path / "in")


def centroids(out: Path) -> list[np.ndarray]:
    """LPS centroid of each segment, by SimpleITK's pixels and the file's own positions."""
    file = out / "cases/pat/dicom/seg.dcm"
    dataset, stored = pydicom.dcmread(file), gdcm_pixels(file)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    points: dict[int, list[np.ndarray]] = {}
    for frame, group in zip(stored, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        r, c = np.nonzero(frame)
        origin = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        lps = origin + np.outer(c * spacing[1], cosines[:3]) + np.outer(r * spacing[0], cosines[3:])
        points.setdefault(int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber), []).append(lps)
    return [np.concatenate(points[number]).mean(axis=0) for number in sorted(points)]


def reason(run: Run, folder: Path | None) -> str:
    (row,) = export_run(run.out, ["dicom-seg"], source_dicom=folder).rows
    assert row.status == "failed"
    return row.reason


@pytest.mark.slow
@pytest.mark.parametrize("axes", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("direction", [AXIAL, OBLIQUE_DOWN], ids=["axial", "oblique down"])
def test_nodes_of_a_nifti_lie_in_the_series_where_they_were_found(
    tmp_path: Path, axes: Any, direction: Any
) -> None:
    run = run_of_nifti(tmp_path, axes, direction)
    summary = export_run(run.out, ["dicom-seg", "dicom-sr", "rtstruct"], source_dicom=tmp_path / "series")
    assert summary.exit_code == 0, summary.rows
    assert "its geometry and its voxels" in summary.rows[0].warnings[0]
    for node, found in zip(run.result.nodes, centroids(run.out), strict=False):
        np.testing.assert_allclose(found, node.centroid_lps_mm, atol=1e-3)


def test_without_a_folder_one_sentence_says_what_is_needed(tmp_path: Path) -> None:
    run = run_of_nifti(tmp_path)
    summary = export_run(run.out, ["dicom-seg"])
    assert (summary.rows[0].status, summary.exit_code) == ("skipped", 1)  # 0 where another case was exported
    assert summary.rows[0].reason == (
        "the CT came from a NIfTI file, and DICOM objects need the DICOM series that it was made from; "
        "name the folder of that series with --source-dicom."
    )


@pytest.mark.slow
def test_a_series_on_another_grid_is_refused_with_the_tolerance(tmp_path: Path) -> None:
    run = run_of_nifti(tmp_path)
    grid = small_grid(OBLIQUE)
    others = {
        "shifted": replace(grid, origin=(-40.5 + 0.4, -61.25, 12.125)),
        "longer": replace(grid, size=(25, 30, 41)),
        "coarser": replace(grid, spacing=(3.0, 2.1, 1.72)),
        "turned": replace(grid, direction=AXIAL),
    }
    for name, other in others.items():
        write_series(tmp_path / "others" / name, other, name=name)
    said = reason(run, tmp_path / "others")
    assert "none of its 4 CT series lies on the grid" in said
    assert "0.1 voxel" in said
    (tmp_path / "empty").mkdir()
    assert "none of its 0 CT series" in reason(run, tmp_path / "empty")


@pytest.mark.slow
def test_a_series_of_another_patient_on_the_same_grid_is_not_taken(tmp_path: Path) -> None:
    run = run_of_nifti(tmp_path)
    files = write_series(tmp_path / "other", small_grid(OBLIQUE), name="other")
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.PixelData = np.roll(dataset.pixel_array, 7, axis=0).tobytes()
        dataset.save_as(file)
    assert "shows other voxels" in reason(run, tmp_path / "other")
    shutil.copytree(tmp_path / "series", tmp_path / "other/mine")
    assert export_run(run.out, ["dicom-seg"], source_dicom=tmp_path / "other").exit_code == 0
    written = pydicom.dcmread(run.out / "cases/pat/dicom/seg.dcm")
    mine = pydicom.dcmread(next((tmp_path / "series").iterdir()))
    assert written.ReferencedSeriesSequence[0].SeriesInstanceUID == mine.SeriesInstanceUID


@pytest.mark.slow
def test_two_series_of_the_same_voxels_cannot_be_told_apart(tmp_path: Path) -> None:
    run = run_of_nifti(tmp_path)
    write_series(tmp_path / "series/twin", small_grid(OBLIQUE), name="twin")
    assert "2 of its CT series lie on the grid" in reason(run, tmp_path / "series")


@pytest.mark.slow
def test_where_the_input_is_gone_the_geometry_alone_decides_and_says_so(tmp_path: Path) -> None:
    run = run_of_nifti(tmp_path)
    shutil.rmtree(tmp_path / "in")
    summary = export_run(run.out, ["dicom-seg"], source_dicom=tmp_path / "series")
    assert summary.exit_code == 0
    assert "geometry alone" in summary.rows[0].warnings[0]


@pytest.mark.slow
def test_an_nrrd_is_matched_as_well(tmp_path: Path) -> None:
    write_series(tmp_path / "series", small_grid(OBLIQUE_DOWN))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "series")))  # GDCM's own conversion
    (tmp_path / "in").mkdir()
    sitk.WriteImage(reader.Execute(), str(tmp_path / "in/pat.nrrd"))
    run = write_run(tmp_path / "out", tmp_path / "in")
    assert export_run(run.out, ["dicom-seg"], source_dicom=tmp_path / "series").exit_code == 0
    for node, found in zip(run.result.nodes, centroids(run.out), strict=False):
        np.testing.assert_allclose(found, node.centroid_lps_mm, atol=1e-2)


sizes = st.tuples(*[st.integers(2, 9)] * 3)
spacings = st.tuples(*[st.floats(0.4, 5)] * 3)


@settings(max_examples=150, deadline=None)
@given(
    sizes, spacings, st.permutations([0, 1, 2]), st.sets(st.sampled_from([0, 1, 2])), st.floats(0, 0.3),
    st.sampled_from([0, 1, 2]),
)  # fmt: skip
@pytest.mark.slow
def test_a_lattice_fits_in_any_order_of_axes_up_to_the_tolerance(
    size: Any, spacing: Any, order: Any, flips: Any, off: Any, axis: Any
) -> None:
    grid = Grid(size, spacing, (-31.0, 12.5, 700.0), OBLIQUE)
    volume = turned_over(Volume(np.zeros(size, np.uint8), grid), tuple(flips))
    affine = volume.grid.affine[:, [*order, 3]].copy()
    affine[:3, 3] += off * volume.grid.affine[:3, axis]
    if abs(off - 0.1) > 1e-6:
        assert fits(grid, affine, tuple(size[a] for a in order)) == (off < 0.1)
