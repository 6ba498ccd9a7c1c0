"""The source series of a case: its slices in order, where each lies, and the masks of a run on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from aiene.geometry.grid import Grid, Volume, triple
from aiene.ingest.lattice import Matrix, keep_planes

_SAME_VOXELS: Final = 0.51
"""A stack is the run's own grid where no corner leaves it by more voxels; ingest snaps up to half a voxel."""


class Plane(NamedTuple):
    """Where one source slice lies.

    Parameters
    ----------
    origin : LPS mm (3,) of the centre of the first pixel: ImagePositionPatient.
    along_row, along_column : unit vectors (LPS): the way of rising column index, and of rising row index.
    row_spacing, column_spacing : mm between neighbouring rows, and between neighbouring columns.
    """

    origin: npt.NDArray[np.float64]
    along_row: npt.NDArray[np.float64]
    along_column: npt.NDArray[np.float64]
    row_spacing: float
    column_spacing: float


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """The slices of a series in the order in which they lie, whatever their files' order.

    Parameters
    ----------
    datasets : the header of each slice, without pixels, rising along the slice normal, so that `datasets[k]`
        is slice k of an array from `on_source`. Those of a multi-frame file are made from its functional
        groups: position, orientation and spacing stand at the top level there too.
    affine : 4 x 4, from (slice, row, column, 1) to LPS mm; sheared where the gantry was tilted.
    files : the file of each slice.
    frames : the frame number of each slice in its multi-frame file, from 1; None for single-frame files.
    warnings : what the user should know of how it was found.
    """

    datasets: tuple[Dataset, ...]
    affine: Matrix
    files: tuple[Path, ...]
    frames: tuple[int | None, ...]
    warnings: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        first = self.datasets[0]
        return len(self.datasets), int(first.Rows), int(first.Columns)

    @property
    def grid(self) -> Grid:
        """The stack's grid; with a tilted gantry the rectangular one of the same planes and first slice."""
        affine = self.affine.copy()
        affine[:3, :3] = keep_planes(self.affine, self.size).vectors
        return Grid.from_affine(affine, self.size)

    @property
    def is_tilted(self) -> bool:
        """The slices are shifted against each other within their planes by more than rounding."""
        return not keep_planes(self.affine, self.size).snaps


def planes(series: SourceSeries) -> list[Plane]:
    """Where each slice lies, by its own header."""
    return [_plane(dataset) for dataset in series.datasets]


def on_source(labels: Volume, series: SourceSeries) -> npt.NDArray[Any]:
    """A label map of the run on the source slices.

    Parameters
    ----------
    labels : on the run's native grid.
    series : its source, in any order of axes; a tilted one was resampled by ingest.

    Returns
    -------
    (slice, row, column) of the same dtype: voxel for voxel where the run's grid is the stack itself, else the
    value of the nearest voxel (0 outside), slice by slice on the slice's own plane.
    """
    if labels.grid.size == series.size and _apart_voxels(labels.grid, series) <= _SAME_VOXELS:
        return labels.array
    result = np.zeros(series.size, dtype=labels.array.dtype)
    rows, columns = np.mgrid[: series.size[1], : series.size[2]]
    for k, plane in enumerate(planes(series)):
        points = (
            plane.origin
            + rows[..., None] * (plane.row_spacing * plane.along_column)
            + columns[..., None] * (plane.column_spacing * plane.along_row)
        )
        nearest = np.floor(labels.grid.indices(points) + 0.5).astype(np.int64)
        inside = ((nearest >= 0) & (nearest < labels.grid.size)).all(axis=-1)
        result[k][inside] = labels.array[tuple(nearest[inside].T)]
    return result


def _plane(dataset: Dataset) -> Plane:
    cosines = np.array([float(v) for v in dataset.ImageOrientationPatient])
    return Plane(
        origin=np.array([float(v) for v in dataset.ImagePositionPatient]),
        along_row=cosines[:3],
        along_column=cosines[3:],
        row_spacing=float(dataset.PixelSpacing[0]),
        column_spacing=float(dataset.PixelSpacing[1]),
    )


def _apart_voxels(grid: Grid, series: SourceSeries) -> float:
    """The largest distance of a corner voxel of the stack from the same voxel of the grid, in voxels."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(series.size) - 1)
    points = corners @ series.affine[:3, :3].T + series.affine[:3, 3]
    return float(np.linalg.norm(points - grid.corners(), axis=1).max() / min(grid.spacing))


def grid_of_facts(native: dict[str, Any]) -> Grid:
    """The native grid of a case from its record."""
    z, y, x = (triple(vector) for vector in native["direction_zyx_lps"])
    return Grid(
        size=tuple(native["size_zyx"]),
        spacing=triple(native["spacing_zyx_mm"]),
        origin=triple(native["origin_lps_mm"]),
        direction=(z, y, x),
    )
