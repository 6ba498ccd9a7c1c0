"""Small runs without networks: a DICOM series, planted nodes, and the folder that a run would have left."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import CTImageStorage
from pydicom.valuerep import format_number_as_ds

from aiene.export.case import ExportCase, SourceSeries
from aiene.finished_runs import Maker
from aiene.geometry.grid import Grid, Volume
from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.ingest.fingerprint import content_sha256, voxels_sha256
from aiene.ingest.read import read_case
from aiene.phantom.phantom import write_dicom_series
from aiene.results.records import CaseArrays, CaseResult, NodeResult
from aiene.results.store import RunStore

SHA = "ab" * 32
STARTED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
HEADER = {"PatientName": "Zoë^Test", "PatientID": "ID-77", "SpecificCharacterSet": "ISO_IR 100"}


def turned(degrees: tuple[float, float, float], flip: bool = False) -> tuple[Any, Any, Any]:
    """Direction vectors along z, y, x turned about three axes; `flip` stacks downwards (left-handed)."""
    a, b, c = np.radians(degrees)
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    x, y, z = (rz @ ry @ rx).T
    if flip:
        z = -z
    return tuple(z), tuple(y), tuple(x)


AXIAL = turned((0, 0, 0))
OBLIQUE = turned((17, -9, 5))
OBLIQUE_DOWN = turned((17, -9, 5), flip=True)


foot = np.zeros((9, 11, 13), np.uint16)
foot[2:7, 3, 4] = 1  # long in z,
foot[2, 3:6, 4] = 1  # shorter in y,
foot[2, 3, 4:6] = 1  # shortest in x: no flip or swap of axes leaves it as it is
foot[5:8, 8:10, 7:12] = 2
FOOT_GRID = Grid(foot.shape, (3.0, 2.1, 1.7), (-31.0, 12.5, 700.0), turned((11, -20, 33)))


@dataclass(frozen=True)
class Planted:
    """A ball of a node: where, how large, and what the classifier said."""

    centre: tuple[float, float, float]  # fractions of the grid along z, y, x
    radius_mm: float
    side: str = "left"
    pos: float | None = 0.9
    ene: float | None = 0.6


NODES = (Planted((0.35, 0.3, 0.7), 9.0, "left"), Planted((0.7, 0.6, 0.2), 6.0, "right", 0.8, 0.1))


@dataclass(frozen=True)
class Run:
    """A run's folder and the series that it was made from."""

    out: Path
    series: Path
    native: Grid
    result: CaseResult
    labels: np.ndarray
    nodes: np.ndarray


def ball(grid: Grid, planted: Planted) -> np.ndarray:
    """Voxels whose centre lies in a ball, elongated towards the patient's left."""
    centre = grid.points(np.array(planted.centre) * (np.array(grid.size) - 1))
    points = grid.points(np.moveaxis(np.indices(grid.size), 0, -1)) - centre
    points[..., 0] *= np.where(points[..., 0] > 0, 0.6, 1.0)  # asymmetric: no flip leaves it as it is
    return (points**2).sum(axis=-1) <= planted.radius_mm**2


def write_series(
    folder: Path,
    grid: Grid,
    *,
    name: str = "case",
    header: dict[str, Any] | None = None,
    shuffle: bool = True,
) -> list[Path]:
    """A CT series with a gradient, its files in random order of names, header words replaced.

    A header value of None takes the attribute away.
    """
    z, y, x = np.indices(grid.size)
    hu = (40 + z + 2 * (y % 50) - (x % 30)).astype(np.int16)
    hu[:, : grid.size[1] // 8] = -1000
    files = write_dicom_series(Volume(hu, grid), folder, name=name)
    order = np.random.default_rng(3).permutation(len(files)) if shuffle else np.arange(len(files))
    moved = [folder / f"{number:04d}.dcm" for number in order]
    for file, target in zip(files, moved, strict=True):
        dataset = pydicom.dcmread(file)
        for keyword, value in (HEADER | (header or {})).items():
            if value is None:
                dataset.pop(keyword, None)
            else:
                setattr(dataset, keyword, value)
        file.unlink()
        dataset.save_as(target, enforce_file_format=True)
    return moved


def node_result(name: str, planted: Planted, mask: np.ndarray, grid: Grid, axes: bool) -> NodeResult:
    where = np.argwhere(mask)
    middle = grid.points(where.mean(axis=0)) if len(where) else grid.points(np.array(planted.centre))
    return NodeResult(
        name=name,
        number=int(name[-2:]) + 10,
        pos=planted.pos,
        ene=planted.ene,
        ene_classification=None if planted.ene is None else int(planted.ene > 0.3),
        volume_before_mm3=float(len(where) * grid.voxel_volume_mm3),
        volume_after_mm3=float(2 * len(where) * grid.voxel_volume_mm3),
        axes={"long_axis_axial": 18.5, "short_axis_axial": 11.25} if axes else None,
        contour_mm3=float(len(where) * grid.voxel_volume_mm3),
        centroid_lps_mm=tuple(float(v) for v in middle),  # type: ignore[arg-type]
        side=planted.side,
        native_volume_mm3=float(len(where) * grid.voxel_volume_mm3),
        native_long_axis_mm=18.5 if axes else None,
        native_short_axis_mm=11.25 if axes else None,
        touches_crop_border=False,
        touches_ct_border=False,
    )


def write_run(
    out: Path,
    source: Path,
    *,
    planted: Sequence[Planted] = NODES,
    primary: Planted | None = Planted((0.5, 0.5, 0.5), 7.0),
    axes: bool = False,
    masks: bool = False,
    case_id: str | None = None,
    edit: Callable[[np.ndarray], np.ndarray] = lambda nodes: nodes,
) -> Run:
    """The folder that a run of every case of `source` would have left, the same nodes in each."""
    store = RunStore(out)
    settings = {
        "input": str(source.resolve()),
        "ene_threshold": 0.3,
        "masks": "own" if masks else None,
        "series": None,
        "model": "default",
        "model_sha256": SHA,
        "aiene": "0.1.0",
    }
    store.open(settings, overwrite=False)
    bundle = {
        "name": "default",
        "version": "2",
        "sha256": SHA,
        "notice": "Trained on phantoms.",
        "profile": "open",
    }
    store.write_run({"format": 1, "settings": settings, "bundle": bundle, "started": STARTED.isoformat()})
    made = None
    for case in find_cases(source)[0]:
        assert isinstance(case, Case), case
        made = _write_case(store, case, case_id, planted, primary, axes, edit)
    assert made is not None
    return replace(made, out=out, series=source)


def _write_case(store: Any, case: Any, case_id: Any, planted: Any, primary: Any, axes: Any, edit: Any) -> Run:
    ct = read_case(case)
    grid = ct.volume.grid
    nodes = np.zeros(grid.size, np.uint16)
    for value, one in enumerate(planted, start=1):
        nodes[ball(grid, one)] = value
    nodes = edit(nodes)
    labels = np.where(nodes > 0, 2, 0).astype(np.uint8)
    if primary is not None:
        labels[ball(grid, primary)] = 1
    found = [
        node_result(f"GTVn_{value:02d}", one, nodes == value, grid, axes)
        for value, one in enumerate(planted, start=1)
    ]
    native = {
        "size_zyx": list(grid.size),
        "spacing_zyx_mm": list(grid.spacing),
        "origin_lps_mm": list(grid.origin),
        "direction_zyx_lps": [list(v) for v in grid.direction],
    }
    given = {
        "kind": case.kind,
        "files": len(case.files),
        "sha256": content_sha256(case.files),
        "voxels_sha256": voxels_sha256(ct.volume),
        **ct.source,
    }
    result = CaseResult(
        case_id=case_id or case.case_id,
        status="ok" if found else "no_nodes",
        nodes=tuple(found),
        has_primary=primary is not None,
        has_chosen=bool(found),
        facts={"input": given, "native": native},
    )
    store.write_case(result, CaseArrays(Volume(labels, grid), Volume(nodes, grid)))
    return Run(store.root, Path(), grid, result, labels, nodes)


def small_grid(direction: Any = AXIAL, size: tuple[int, int, int] = (24, 30, 41)) -> Grid:
    """A grid on which no two sizes or spacings are alike; it spans what ingest asks of a neck CT."""
    return Grid(size, (3.0, 2.1, 1.7), (-40.5, -61.25, 12.125), direction)


def gdcm_pixels(file: Path) -> np.ndarray:
    """The frames (frame, row, column) of a binary segmentation as SimpleITK's GDCM reads them.

    Where the bits of all frames fill no whole number of bytes, GDCM leaves the last one to seven pixels as
    they happened to lie in memory (SimpleITK 2.5.7): these are taken from pydicom instead.
    """
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(file))) > 0
    odd = stored.size % 8
    if odd:
        dataset = pydicom.dcmread(file)
        bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little", count=stored.size)
        stored.reshape(-1)[-odd:] = bits[-odd:]
    return stored


def tool(name: str) -> str:
    """A program beside this Python or on the path; the test skips where it is absent."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def says(program: str, *words: str | Path) -> tuple[int, str]:
    """Exit code and all that a program says."""
    done = subprocess.run([tool(program), *map(str, words)], capture_output=True, check=False)
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


def series_of(grid: Grid, header: dict[str, Any] | None = None) -> SourceSeries:
    """A source series in memory, its slices rising along their normal; no file is written."""
    rising = np.cross(grid.direction[2], grid.direction[1]) @ np.array(grid.direction[0]) > 0
    order = range(grid.size[0]) if rising else range(grid.size[0] - 1, -1, -1)
    datasets = tuple(slice_of(grid, k, header or {}) for k in order)
    affine = grid.affine.copy()
    if not rising:
        affine[:3, 3] += affine[:3, 0] * (grid.size[0] - 1)
        affine[:3, 0] *= -1
    names = tuple(Path(f"{k}.dcm") for k in order)
    return SourceSeries(datasets, affine, names, (None,) * len(datasets))


def slice_of(grid: Grid, k: int, header: dict[str, Any]) -> pydicom.Dataset:
    """The header of one slice."""
    made = pydicom.Dataset()
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, f"1.2.3.{k + 1}"
    made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = "1.2.1", "1.2.2", "1.2.4"
    made.PatientName, made.PatientID, made.Modality = "Case^A", "A1", "CT"
    made.PatientBirthDate, made.PatientSex = "19610203", "F"
    made.StudyDate, made.StudyTime, made.StudyID, made.AccessionNumber = "20260101", "101112", "7", "A9"
    made.Rows, made.Columns = grid.size[1], grid.size[2]
    made.ImagePositionPatient = [format_number_as_ds(v) for v in grid.points(np.array([k, 0, 0])).tolist()]
    made.ImageOrientationPatient = [
        format_number_as_ds(float(v)) for v in (*grid.direction[2], *grid.direction[1])
    ]
    made.PixelSpacing = [format_number_as_ds(v) for v in grid.spacing[1:]]
    for keyword, value in header.items():
        setattr(made, keyword, value)
    return made


MAKER = Maker("0.1.0", "default", "2", SHA, "Trained on phantoms.", 0.3, False, STARTED)


def case_of(
    nodes: np.ndarray,
    grid: Grid,
    *,
    labels: np.ndarray | None = None,
    series: SourceSeries | None = None,
    maker: Maker = MAKER,
) -> ExportCase:
    """An export's case in memory: a node map on the run's grid."""
    found = [
        node_result(f"GTVn_{value:02d}", Planted((0.5, 0.5, 0.5), 1.0), nodes == value, grid, axes=False)
        for value in np.unique(nodes[nodes > 0]).tolist()
    ]
    marks = np.zeros(grid.size, np.uint8) if labels is None else labels.astype(np.uint8)
    result = CaseResult(
        "case", "ok" if found else "no_nodes", nodes=tuple(found), has_primary=bool((marks == 1).any())
    )
    return ExportCase(
        result,
        Volume(nodes.astype(np.uint16), grid),
        Volume(marks, grid),
        series or series_of(grid),
        maker,
    )
