"""The ground truth of one case, checked against its CT and named as the road names nodes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aiene.benchmark.config import GTVN, LABEL_VALUES, BenchmarkConfig
from aiene.benchmark.ene_labels import EneRow, EneTable, match_rows
from aiene.benchmark.label_maps import by_volume, in_our_values, read_labels
from aiene.benchmark.metrics import components
from aiene.benchmark.pairing import Pair
from aiene.benchmark.records import TruthNode, TruthRecord
from aiene.errors import UsageError
from aiene.geometry import Grid, Volume, triple
from aiene.ingest import read_case
from aiene.ingest.fingerprint import content_sha256
from aiene.provenance import digest


@dataclass(frozen=True, eq=False)
class Truth:
    """The ground truth of a case in memory.

    Parameters
    ----------
    labels : uint8 on the CT's grid, 1 GTVp, 2 GTVn.
    nodes : uint16 there, value k for `GTVn_k` in order of falling volume.
    """

    record: TruthRecord
    labels: Volume
    nodes: Volume


def read_truth_of(
    pair: Pair, config: BenchmarkConfig, node_map_file: Path | None, rows: tuple[EneRow, ...], patient: str
) -> Truth:
    """Labels, nodes and ENE of a case.

    Parameters
    ----------
    node_map_file : the case's map of single nodes, where the user gives one.
    rows : of the ENE table, of this case.

    Raises
    ------
    InputError : image or mask cannot be used, or do not belong together.
    """
    ct = read_case(pair.image)
    grid = ct.volume.grid
    raw = read_labels(pair.mask, grid, resample=config.resample)
    labels = in_our_values(pair.mask, raw, config.labels)
    inside = labels.array == LABEL_VALUES[GTVN]
    if node_map_file is not None:
        own = read_labels(node_map_file, grid, resample=config.resample).array
        parts: npt.NDArray[np.integer[Any]] = np.where(inside, own, 0).astype(np.int64)
    elif config.nodes == "values":
        parts = np.where(inside, raw.array, 0).astype(np.int64)
    else:
        parts = components(inside).astype(np.int64)
    nodes, old_values = by_volume(parts)
    by_old_value = node_map_file is not None or config.nodes == "values"
    numbers = {old: new for new, old in old_values.items()} if by_old_value else {n: n for n in old_values}
    node_map = Volume(nodes, grid)
    matched = match_rows(rows, node_map, numbers)
    found = tuple(
        replace(node, ene=None if (ene := matched.values.get(node.value)) is None else int(ene))
        for node in truth_nodes(node_map)
    )
    files = [pair.mask, *([node_map_file] if node_map_file is not None else [])]
    content = [content_sha256(pair.image.files), content_sha256(files), [node.ene for node in found]]
    record = TruthRecord(
        case_id=pair.case_id,
        patient_id=patient,
        status="ok",
        content_sha256=digest(content),
        voxel_ml=grid.voxel_volume_mm3 / 1000,
        diagonal_mm=diagonal_mm(grid),
        voxels={name: int(np.count_nonzero(labels.array == v)) for name, v in LABEL_VALUES.items()},
        nodes=found,
        ene_matched=len(rows) - len(matched.unmatched),
        ene_unmatched=tuple((row.row, row.reason) for row in matched.unmatched),
    )
    return Truth(record, labels, node_map)


def truth_nodes(node_map: Volume) -> list[TruthNode]:
    """Each node's name, volume and place."""
    result = []
    voxel_ml = node_map.grid.voxel_volume_mm3 / 1000
    for value, place in centroids(node_map).items():
        count, middle = place
        result.append(TruthNode(value, f"GTVn_{value:02d}", count * voxel_ml, triple(middle)))
    return result


def centroids(node_map: Volume) -> dict[int, tuple[int, npt.NDArray[np.float64]]]:
    """Voxels and centroid (LPS mm) of each node of a map, by value."""
    at = np.argwhere(node_map.array)
    values = node_map.array[tuple(at.T)].astype(np.int64)
    counts = np.bincount(values)
    sums = np.stack([np.bincount(values, weights=at[:, axis]) for axis in range(3)], axis=1)
    return {
        int(value): (int(counts[value]), node_map.grid.points(sums[value] / counts[value]))
        for value in np.flatnonzero(counts)
    }


def diagonal_mm(grid: Grid) -> float:
    """Between the centres of opposite corner voxels: the largest distance that two voxels can have."""
    return float(np.linalg.norm((np.array(grid.size) - 1) * np.array(grid.spacing)))


def patient_finder(config: BenchmarkConfig, table: EneTable | None) -> Any:
    """A function from case id to patient id.

    Raises
    ------
    UsageError : the pattern is no regular expression.
    """
    listed = {} if table is None else table.patients()
    try:
        pattern = None if config.patient_pattern is None else re.compile(config.patient_pattern)
    except re.error as error:
        raise UsageError(f"patient_pattern: no regular expression ({error}).") from error

    def patient(case_id: str) -> str:
        if case_id in listed:
            return listed[case_id]
        found = None if pattern is None else pattern.search(case_id)
        if found is None:
            return case_id
        return found[1] if found.lastindex else found[0]

    return patient
