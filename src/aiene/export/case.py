"""One case as every export sees it: the source series, and the findings on its slices.

`Findings` holds masks voxel by voxel on the source slices; each DICOM object shows these and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from aiene.errors import CaseError
from aiene.export.source_series import SourceSeries, on_source
from aiene.geometry.grid import Volume
from aiene.nodes.node import GTVP
from aiene.results.records import CaseResult, NodeResult

PRIMARY = "GTVp"
Block = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Maker:
    """What made the result: software, bundle, settings, and when.

    Parameters
    ----------
    software_version : of this package at the time of the run.
    bundle_name, bundle_version, bundle_sha256 : the model bundle.
    notice : the bundle's own sentence, to stand wherever its results are shown.
    ene_threshold : a node counts as ENE where its probability is over this.
    own_masks : the user's masks took the place of the segmenter.
    started : when the run began (UTC); the date of every exported object, so that an export repeats.
    """

    software_version: str
    bundle_name: str
    bundle_version: str
    bundle_sha256: str
    notice: str
    ene_threshold: float
    own_masks: bool
    started: datetime


@dataclass(frozen=True, eq=False)
class ExportCase:
    """One case of a run, with its source series found again.

    Parameters
    ----------
    result : the record of `case.json`; status `ok` or `no_nodes`.
    nodes : uint16 node map, value k for `GTVn_k`, on the run's native grid (see `source.on_source`).
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
    warnings: tuple[str, ...]
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
        raise CaseError(
            f"{', '.join(lost)} lies outside the slices of the source series",
            "give the complete series that the run was made from",
        )
    primary = on_source(case.labels, case.source) == GTVP  # labels that were chosen as nodes are 2 there
    names = ", ".join(node.name for node in missing)
    return Findings(
        nodes=nodes,
        primary=primary,
        present=tuple(n for n, count in zip(case.result.nodes, counts, strict=True) if count),
        warnings=(f"{names}: it contains no voxel centre of the CT, so it has no segment",)
        if missing
        else (),
        block=_around(block_of(nodes), block_of(primary)),
    )


def block_of(array: npt.NDArray[Any]) -> Block:
    """The smallest block that holds every voxel that is not zero; empty where there is none."""
    slices = np.flatnonzero(array.any(axis=(1, 2)))
    if not len(slices):
        return slice(0), slice(0), slice(0)
    z = slice(int(slices[0]), int(slices[-1]) + 1)
    rows = np.flatnonzero(array[z].any(axis=(0, 2)))
    y = slice(int(rows[0]), int(rows[-1]) + 1)
    columns = np.flatnonzero(array[z, y].any(axis=(0, 1)))
    return z, y, slice(int(columns[0]), int(columns[-1]) + 1)


def _around(a: Block, b: Block) -> Block:
    """The smallest block around two, either of which may be empty."""
    if not a[0].stop or not b[0].stop:
        return a if a[0].stop else b
    z, y, x = (slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(a, b, strict=True))
    return z, y, x


def _counts(nodes: npt.NDArray[Any]) -> dict[int, int]:
    """Voxels by value, 0 left out."""
    values, counts = np.unique(nodes[block_of(nodes)], return_counts=True)
    return {int(v): int(n) for v, n in zip(values, counts, strict=True) if v}


def _check_record(case: ExportCase, counts: dict[int, int]) -> None:
    """Whether the map of the nodes holds what the record tells, voxel for voxel."""
    values = {node.value: node for node in case.result.nodes}
    voxel = case.nodes.grid.voxel_volume_mm3
    other = any(
        abs(counts.get(value, 0) * voxel - node.native_volume_mm3) > 0.5 * voxel
        for value, node in values.items()
    )
    if other or counts.keys() - values.keys():
        raise CaseError(
            "nodes.nii.gz and case.json no longer belong together",
            "run the case again with --overwrite",
        )
