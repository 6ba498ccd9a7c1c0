"""Nodes of the training crops, each with what the table says of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.classify.dualnet import BOX_SIZE
from aiene.nodes import Node, names_by_volume, split_nodes
from aiene.nodes.split import padded_block
from aiene.training.node_table import NodeRow
from aiene.training.prepared import TrainingCrop

NEAR_MM = 10.0
"""A point this far from the nearest node still means that node."""
_MARGIN = (4, 12, 12)  # voxels beyond the classifier's box, so that a turned node still has its surroundings


@dataclass(frozen=True, eq=False)
class Example:
    """A node to learn from.

    Parameters
    ----------
    image : float16 (z, y, x), HU scaled to [0, 1], a window around the node; the crop's spacing.
    mask : bool of the same shape: the node before dilation.
    spacing : mm along z, y, x.
    pos, ene : 1, 0, or -1 where unknown.
    """

    case_id: str
    patient_id: str
    name: str
    image: npt.NDArray[np.float16]
    mask: npt.NDArray[np.bool_]
    spacing: tuple[float, float, float]
    pos: float
    ene: float


@dataclass(frozen=True)
class Matched:
    """The examples of one crop, the rows that no node fits, and the nodes that no row names."""

    examples: tuple[Example, ...]
    problems: tuple[str, ...]
    unnamed: int


def examples_of(crop: TrainingCrop, rows: Sequence[NodeRow]) -> Matched:
    """Split the crop's nodes as the road does, and give each its row.

    Parameters
    ----------
    crop : with label 2 where nodes are.
    rows : of this case.
    """
    nodes = split_nodes(crop.labels, fg_labels=(2,), axes=False)
    names = names_by_volume(nodes)
    taken: dict[int, list[NodeRow]] = defaultdict(list)
    problems = []
    for row in rows:
        index = _node_of(row, crop, nodes, names)
        if index is None:
            where = row.name or "near its point"
            problems.append(f"line {row.line}: the case {crop.case_id} has no node {where}.")
        else:
            taken[index].append(row)
    for index, several in taken.items():
        if len(several) > 1:
            lines = ", ".join(str(row.line) for row in several)
            problems.append(f"lines {lines}: they name the same node, {names[index]} of {crop.case_id}.")
    examples = tuple(
        _example(crop, nodes[index], names[index], several[0]) for index, several in sorted(taken.items())
    )
    return Matched(examples, tuple(problems), len(nodes) - len(taken))


def _node_of(row: NodeRow, crop: TrainingCrop, nodes: Sequence[Node], names: Sequence[str]) -> int | None:
    if row.point_lps_mm is None:
        return names.index(row.name) if row.name in names else None
    here = crop.to_native.inverse().apply(np.array(row.point_lps_mm))
    distances = [_distance_mm(crop, node, here) for node in nodes]
    nearest = int(np.argmin(distances)) if distances else -1
    return nearest if distances and distances[nearest] <= NEAR_MM else None


def _distance_mm(crop: TrainingCrop, node: Node, point: npt.NDArray[np.float64]) -> float:
    """From a point of the template's space to the nearest voxel centre of a node."""
    return float(np.linalg.norm(crop.labels.grid.points(np.argwhere(node.mask)) - point, axis=1).min())


def _example(crop: TrainingCrop, node: Node, name: str, row: NodeRow) -> Example:
    block = padded_block(node.mask, (0, 0, 0))
    if block is None:
        raise ValueError("a node without a voxel")
    window = []
    for span, size, more, limit in zip(block, BOX_SIZE, _MARGIN, node.mask.shape, strict=True):
        middle = (span.start + span.stop - 1) // 2
        first = max(0, middle - size // 2 - more)
        window.append(slice(first, min(limit, middle - size // 2 + size + more)))
    part = tuple(window)
    return Example(
        crop.case_id,
        crop.patient_id,
        name,
        crop.image.array[part].astype(np.float16),
        node.mask[part].copy(),
        crop.image.grid.spacing,
        -1.0 if row.pos is None else float(row.pos),
        -1.0 if row.ene is None else float(row.ene),
    )


def jittered(mask: npt.NDArray[np.bool_], step: int) -> npt.NDArray[np.bool_]:
    """A contour drawn a voxel wider (1) or tighter (-1) in plane; never empty."""
    cross = ndimage.generate_binary_structure(2, 1)[None]
    if step > 0:
        return np.asarray(ndimage.binary_dilation(mask, cross))
    if step < 0:
        tighter = np.asarray(ndimage.binary_erosion(mask, cross))
        return tighter if tighter.any() else mask
    return mask
