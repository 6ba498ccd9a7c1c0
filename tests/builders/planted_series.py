"""Small CT series with planted nodes, ready to be exported: any orientation, any file order, not square."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from scipy.spatial.transform import Rotation

from aiene.export.case import ExportCase, SourceSeries
from aiene.finished_runs import Maker
from aiene.geometry.grid import Grid, Volume
from aiene.geometry.resample import pull_labels
from aiene.phantom.phantom import write_dicom_series
from aiene.results.records import CaseResult, NodeResult

Array = npt.NDArray[Any]

MAKER = Maker(
    software_version="0.1.0",
    bundle_name="default",
    bundle_version="1.0",
    bundle_sha256="ab" * 32,
    notice="Trained on phantoms; not for patients.",
    ene_threshold=0.5,
    own_masks=False,
    started=datetime(2026, 11, 25, 10, 20, 30, tzinfo=UTC),
)


@dataclass(frozen=True)
class Planted:
    """A case to be exported, and where its nodes were planted.

    Parameters
    ----------
    nodes : (slice, row, column) as planted, in the order in which the slices were written.
    instance : SOPInstanceUID of each of these slices.
    """

    case: ExportCase
    folder: Path
    nodes: Array
    instance: tuple[str, ...]


def grid_of(
    size: tuple[int, int, int],
    *,
    spacing: tuple[float, float, float] = (3.0, 0.9, 0.8),
    degrees: Sequence[float] = (0.0, 0.0, 0.0),
    falling: bool = False,
) -> Grid:
    """A stack that is turned by Euler angles, its slices rising or falling along their normal."""
    turn = Rotation.from_euler("zyx", degrees, degrees=True).as_matrix()
    vectors = turn @ np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], dtype=float)  # columns: z, y, x
    if falling:
        vectors[:, 0] *= -1
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = vectors * np.array(spacing), (-31.0, 12.5, 700.0)
    return Grid.from_affine(affine, size)


def nodes_with_everything(size: tuple[int, int, int]) -> Array:
    """Five nodes, each with its own trap.

    1: a ball with a hole, and with an island in that hole; 2: one voxel; 3: two islands on a slice, at the
    border of the image; 4: two holes; 5: touches itself at a corner.
    """
    z, y, x = np.mgrid[: size[0], : size[1], : size[2]]
    nodes = np.zeros(size, np.uint16)
    away = np.hypot(y - 12, (x - 20) * 1.2)
    ball = (away < 9) & (np.abs(z - 3) <= 2)
    nodes[ball] = 1
    nodes[ball & (away < 5) & (z <= 4)] = 0
    nodes[ball & (away < 2) & (z == 3)] = 1
    nodes[6, 28, 5] = 2
    nodes[2:4, 0:3, 0:4] = 3
    nodes[2:4, 0:5, -3:] = 3
    nodes[5:7, 22:30, 22:35] = 4
    nodes[5:7, 24:26, 24:27] = 0
    nodes[6, 27, 30:32] = 0
    nodes[1, 26:28, 10:12] = 5
    nodes[1, 28:30, 12:14] = 5
    return nodes


def planted(
    folder: Path,
    nodes: Array,
    grid: Grid,
    *,
    primary: Array | None = None,
    change: Callable[[int, Dataset], None] = lambda index, ds: None,
    ene: Sequence[float | None] = (0.823,),
    native: Grid | None = None,
    seed: int = 5,
) -> Planted:
    """Write a series whose files are in random order, and make the case that a run would have left of it.

    `native` is the grid that the run worked on, the series' own if None.
    """
    hu = np.full(grid.size, -1000, np.int16)
    hu[:, 3:-3, 3:-3] = (np.arange(grid.size[0]) - 24)[:, None, None]
    hu[nodes > 0] = 120
    hu[:, 6:12, 6] = 900  # an L near one corner
    hu[:, 6, 6:9] = 900
    files = write_dicom_series(Volume(hu, grid), folder, name="TEST^ONE")
    instances = _shuffled(files, change, seed)
    source = series_in(folder)
    labels = np.where(nodes > 0, 2, 0).astype(np.uint8)
    if primary is not None:
        labels[primary] = 1
    result = CaseResult("one", "ok", nodes=node_results(nodes, grid, ene), has_primary=primary is not None)
    export = ExportCase(
        result=result,
        nodes=pull_labels(Volume(nodes, grid), native or source.grid),
        labels=pull_labels(Volume(labels, grid), native or source.grid),
        source=source,
        maker=MAKER,
    )
    return Planted(export, folder, nodes, instances)


def series_in(folder: Path) -> SourceSeries:
    """The series of a folder, sorted along its normal."""
    found = [(file, pydicom.dcmread(file, stop_before_pixels=True)) for file in folder.glob("*.dcm")]
    cosines = np.array(found[0][1].ImageOrientationPatient, dtype=float)
    up = np.cross(cosines[:3], cosines[3:])
    found.sort(key=lambda pair: float(up @ np.array(pair[1].ImagePositionPatient, dtype=float)))
    places = np.array([ds.ImagePositionPatient for _, ds in found], dtype=float)
    rows, columns = (float(v) for v in found[0][1].PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = (places[-1] - places[0]) / (len(places) - 1)
    affine[:3, 1], affine[:3, 2], affine[:3, 3] = cosines[3:] * rows, cosines[:3] * columns, places[0]
    return SourceSeries(
        datasets=tuple(ds for _, ds in found),
        affine=affine,
        files=tuple(file for file, _ in found),
        frames=(None,) * len(found),
    )


def node_results(nodes: Array, grid: Grid, ene: Sequence[float | None]) -> tuple[NodeResult, ...]:
    """What the run would say of each node."""
    found = []
    for k in range(1, int(nodes.max()) + 1):
        voxels = np.argwhere(nodes == k)
        x, y, z = grid.points(voxels.mean(axis=0)).tolist()
        value = ene[(k - 1) % len(ene)]
        volume = len(voxels) * grid.voxel_volume_mm3
        found.append(
            NodeResult(
                name=f"GTVn_{k:02d}",
                number=k,
                pos=None if value is None else 0.91,
                ene=value,
                ene_classification=None if value is None else int(value > MAKER.ene_threshold),
                volume_before_mm3=volume,
                volume_after_mm3=volume,
                axes=None,
                contour_mm3=volume,
                centroid_lps_mm=(x, y, z),
                side="left" if x > 0 else "right",
                native_volume_mm3=volume,
                native_long_axis_mm=None,
                native_short_axis_mm=None,
                touches_crop_border=False,
                touches_ct_border=False,
            )
        )
    return tuple(found)


def _shuffled(files: Sequence[Path], change: Callable[[int, Dataset], None], seed: int) -> tuple[str, ...]:
    names = [f"{number:03d}.dcm" for number in range(len(files))]
    random.Random(seed).shuffle(names)
    instances = []
    for index, (file, name) in enumerate(zip(files, names, strict=True)):
        ds = pydicom.dcmread(file)
        change(index, ds)
        ds.save_as(file.with_name(name), enforce_file_format=True)
        file.unlink()
        instances.append(str(ds.SOPInstanceUID))
    return tuple(instances)
