"""One case as every export sees it: the slices of its source series in order, and the findings on them.

`Findings` holds masks voxel by voxel on the source slices; each DICOM object shows these and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from aiene.errors import CaseError, Said, joined, ours, said
from aiene.geometry.grid import Block, Grid, Volume, bounding_box
from aiene.ingest.lattice import Matrix, keep_planes
from aiene.nodes.node import GTVP
from aiene.results.records import CaseResult, NodeResult

if TYPE_CHECKING:
    from aiene.finished_runs import Maker

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

    def points(self, rows: npt.NDArray[Any], columns: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """LPS mm (..., 3) of places on the slice; whole numbers are pixel centres."""
        down, right = self.row_spacing * self.along_column, self.column_spacing * self.along_row
        return np.asarray(self.origin + rows[..., None] * down + columns[..., None] * right)


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
    warnings: tuple[Said, ...] = ()

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
    found = []
    for dataset in series.datasets:
        cosines = np.array([float(v) for v in dataset.ImageOrientationPatient])
        origin = np.array([float(v) for v in dataset.ImagePositionPatient])
        row_spacing, column_spacing = (float(v) for v in dataset.PixelSpacing)
        found.append(Plane(origin, cosines[:3], cosines[3:], row_spacing, column_spacing))
    return found


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
    grid = labels.grid
    if grid.size == series.size and grid.apart_mm(series.affine) / min(grid.spacing) <= _SAME_VOXELS:
        return labels.array
    result = np.zeros(series.size, dtype=labels.array.dtype)
    rows, columns = np.mgrid[: series.size[1], : series.size[2]]
    for k, plane in enumerate(planes(series)):
        nearest = np.floor(labels.grid.indices(plane.points(rows, columns)) + 0.5).astype(np.int64)
        inside = ((nearest >= 0) & (nearest < labels.grid.size)).all(axis=-1)
        result[k][inside] = labels.array[tuple(nearest[inside].T)]
    return result


PRIMARY = "GTVp"


@dataclass(frozen=True, eq=False)
class ExportCase:
    """One case of a run, with its source series found again.

    Parameters
    ----------
    result : the record of `case.json`; status `ok` or `no_nodes`.
    nodes : uint16 node map, value k for `GTVn_k`, on the run's native grid (see `on_source`).
    labels : uint8 label map there: 1 GTVp, 2 GTVn.
    source : the headers of the source slices.
    maker : what made the result.
    """

    result: CaseResult
    nodes: Volume
    labels: Volume
    source: SourceSeries
    maker: Maker


# Findings


@dataclass(frozen=True, eq=False)
class Findings:
    """The nodes and the primary tumour of a case on its source slices.

    Parameters
    ----------
    nodes : (slice, row, column), value k for `GTVn_k`.
    primary : bool there.
    present : the nodes that hold a voxel, in order of falling volume.
    warnings : what cannot be shown, and why.
    block : the smallest block of voxels that holds all of it.
    """

    nodes: npt.NDArray[np.unsignedinteger[Any]]
    primary: npt.NDArray[np.bool_]
    present: tuple[NodeResult, ...]
    warnings: tuple[Said, ...]
    block: Block

    @property
    def names(self) -> tuple[str, ...]:
        """What has voxels, in the order of the segments: the nodes, then the primary tumour."""
        primary = bool(self.primary[self.block].any())
        return (*(node.name for node in self.present), *((PRIMARY,) if primary else ()))

    def mask(self, name: str) -> npt.NDArray[np.bool_]:
        """Where a finding lies."""
        whole = np.zeros(self.nodes.shape, dtype=bool)
        whole[self.block] = self.mask_in_block(name)
        return whole

    def mask_in_block(self, name: str) -> npt.NDArray[np.bool_]:
        """Where a finding lies within `block`; it has nothing outside."""
        if name == PRIMARY:
            return self.primary[self.block]
        value = int(name.rsplit("_", 1)[1])
        mask: npt.NDArray[np.bool_] = self.nodes[self.block] == value
        return mask


def findings_of(case: ExportCase) -> Findings:
    """The findings of a case on its source slices.

    Raises
    ------
    CaseError : the label maps do not belong to the record, or a node lies outside the source's slices.
    """
    nodes = on_source(case.nodes, case.source)
    there = _counts(case.nodes.array)
    here = there if nodes is case.nodes.array else _counts(nodes)
    _check_record(case, there)
    counts = [here.get(node.value, 0) for node in case.result.nodes]
    missing = [node for node, count in zip(case.result.nodes, counts, strict=True) if not count]
    lost = [node.name for node in missing if there.get(node.value)]
    if lost:
        problem = said("{} lies outside the slices of the source series", joined(", ", map(ours, lost)))
        raise CaseError(problem, "give the complete series that the run was made from")
    primary = on_source(case.labels, case.source) == GTVP  # labels that were chosen as nodes are 2 there
    names = joined(", ", [ours(node.name) for node in missing])
    return Findings(
        nodes=nodes,
        primary=primary,
        present=tuple(n for n, count in zip(case.result.nodes, counts, strict=True) if count),
        warnings=(said("{}: it contains no voxel centre of the CT, so it has no segment", names),)
        if missing
        else (),
        block=_around(block_of(nodes), block_of(primary)),
    )


def block_of(array: npt.NDArray[Any]) -> Block:
    """The smallest block that holds every voxel that is not zero; empty where there is none."""
    return bounding_box(array) or (slice(0), slice(0), slice(0))


def _around(a: Block, b: Block) -> Block:
    """The smallest block around two, either of which may be empty."""
    if not a[0].stop or not b[0].stop:
        return a if a[0].stop else b
    z, y, x = (slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(a, b, strict=True))
    return z, y, x


def _counts(nodes: npt.NDArray[Any]) -> dict[int, int]:
    values, counts = np.unique(nodes[block_of(nodes)], return_counts=True)
    return {int(v): int(n) for v, n in zip(values, counts, strict=True) if v}


def _check_record(case: ExportCase, counts: dict[int, int]) -> None:
    values = {node.value: node for node in case.result.nodes}
    voxel = case.nodes.grid.voxel_volume_mm3
    other = any(
        abs(counts.get(value, 0) * voxel - node.native_volume_mm3) > 0.5 * voxel
        for value, node in values.items()
    )
    if other or counts.keys() - values.keys():
        problem = "nodes.nii.gz and case.json no longer belong together"
        raise CaseError(problem, "run the case again with --overwrite")
