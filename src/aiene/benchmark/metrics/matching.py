"""Which predicted node is which true node, and what masks must be before they are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from aiene.benchmark.metrics.records import IOU_THRESHOLD, NodeInfo, NodeMatch, NodePair, size_class
from aiene.errors import UsageError
from aiene.geometry.grid import bounding_box
from aiene.nodes.split import measure_axes

LabelArray = npt.NDArray[Any]
Spacing = tuple[float, float, float]
BoolArray = npt.NDArray[np.bool_]


def as_labels(array: npt.ArrayLike, what: str) -> LabelArray:
    """A label map of whole numbers, also out of bools and of whole numbers that were stored as floats.

    Parameters
    ----------
    array : (z, y, x).
    what : its name in the sentence: "the prediction".

    Raises
    ------
    UsageError : it has not three axes, or holds values that are no labels (fractions, NaN, negative numbers).
    """
    labels = np.asarray(array)
    if labels.ndim != 3 or labels.size == 0:
        raise UsageError(f"{what} has the shape {labels.shape}, not three axes (z, y, x) with voxels.")
    if labels.dtype == np.bool_:
        return labels.astype(np.uint8)
    if np.issubdtype(labels.dtype, np.floating):
        if not np.isfinite(labels).all() or (labels != np.rint(labels)).any():
            raise UsageError(
                f"{what} holds values that are not whole-number labels (fractions, NaN or infinite)."
            )
        labels = labels.astype(np.int64)
    if not np.issubdtype(labels.dtype, np.integer):
        raise UsageError(f"{what} holds {labels.dtype} values, not labels.")
    if labels.min() < 0:
        raise UsageError(f"{what} holds negative values, so it is not a label map.")
    return labels


def check_pair(truth: LabelArray, prediction: LabelArray) -> None:
    """Both must lie on one grid.

    Raises
    ------
    UsageError : their shapes differ.
    """
    if truth.shape != prediction.shape:
        raise UsageError(
            f"the truth has {truth.shape} voxels and the prediction {prediction.shape}; "
            "they must be on one grid."
        )


def check_spacing(spacing: Sequence[float]) -> Spacing:
    """Three lengths in mm along z, y, x.

    Raises
    ------
    UsageError : they are not three positive finite numbers.
    """
    steps = tuple(float(step) for step in spacing)
    if len(steps) != 3 or not np.isfinite(steps).all() or min(steps) <= 0:
        raise UsageError(f"voxel spacing {steps} is not three lengths in mm over 0.")
    return steps[0], steps[1], steps[2]


def values_of(nodes: LabelArray) -> list[int]:
    """The values over 0 that a map of nodes holds, rising."""
    return [int(value) for value in np.flatnonzero(np.bincount(nodes.ravel())) if value]


MOSTLY_WITHIN = 0.5
"""Share of a node's voxels that lie in another for it to count as a part of that (splits and merges)."""


def match_nodes(
    truth_nodes: npt.ArrayLike,
    predicted_nodes: npt.ArrayLike,
    spacing: Sequence[float],
    *,
    iou_threshold: float = IOU_THRESHOLD,
    confidences: Mapping[int, float] | None = None,
) -> NodeMatch:
    """One-to-one matching of nodes by overlap.

    As many pairs as can be of an IoU at or over the threshold, and among these the largest sum of IoU
    (Hungarian method, Kuhn 1955). Over 0.5 no other matching exists (Kirillov et al., CVPR 2019).

    Parameters
    ----------
    truth_nodes, predicted_nodes : maps (z, y, x) on one grid; 0 background, every other value a node.
    spacing : mm along z, y, x.
    iou_threshold : over 0, at most 1.
    confidences : of predicted nodes, by their value in the map; a node without one, or of NaN, has none.

    Raises
    ------
    UsageError : maps, spacing or threshold cannot be used.
    """
    truth, predicted = as_labels(truth_nodes, "the truth"), as_labels(predicted_nodes, "the prediction")
    check_pair(truth, predicted)
    steps = check_spacing(spacing)
    if not 0 < iou_threshold <= 1:
        raise UsageError(f"the IoU threshold {iou_threshold} is not over 0 and at most 1.")
    block = bounding_box((truth != 0) | (predicted != 0))
    if block is not None:
        truth, predicted = truth[block], predicted[block]
    true_numbers, true_index = _numbered(truth)
    found_numbers, found_index = _numbered(predicted)
    shared = _shared_voxels(true_index, found_index, len(true_numbers), len(found_numbers))
    true_sizes, found_sizes = _sizes(true_index, len(true_numbers)), _sizes(found_index, len(found_numbers))
    sizes = true_sizes[:, None] + found_sizes[None, :]
    iou, dice = shared / np.maximum(sizes - shared, 1), 2 * shared / np.maximum(sizes, 1)
    candidates = tuple(
        NodePair(true_numbers[row], found_numbers[column], float(iou[row, column]), float(dice[row, column]))
        for row, column in np.argwhere(iou >= iou_threshold).tolist()
    )
    pairs = one_to_one(candidates)
    hit, used = {pair.truth for pair in pairs}, {pair.predicted for pair in pairs}
    within_truth = shared >= MOSTLY_WITHIN * found_sizes[None, :]
    within_found = shared >= MOSTLY_WITHIN * true_sizes[:, None]
    return NodeMatch(
        truth=_infos(true_index, true_numbers, steps, {}),
        predicted=_infos(found_index, found_numbers, steps, confidences or {}),
        candidates=candidates,
        pairs=pairs,
        missed=tuple(number for number in true_numbers if number not in hit),
        false=tuple(number for number in found_numbers if number not in used),
        splits=tuple(n for n, row in zip(true_numbers, within_truth, strict=True) if row.sum() >= 2),
        merges=tuple(n for n, row in zip(found_numbers, within_found.T, strict=True) if row.sum() >= 2),
        iou_threshold=iou_threshold,
    )


def one_to_one(candidates: Sequence[NodePair]) -> tuple[NodePair, ...]:
    """As many of the pairs as can be side by side, then the largest sum of IoU; by rising true number."""
    if not candidates:
        return ()
    rows = {number: row for row, number in enumerate(sorted({pair.truth for pair in candidates}))}
    columns = {number: column for column, number in enumerate(sorted({p.predicted for p in candidates}))}
    worth = np.zeros((len(rows), len(columns)))
    by_place = {}
    for pair in candidates:
        place = rows[pair.truth], columns[pair.predicted]
        worth[place] = min(worth.shape) + 1 + pair.iou  # one pair more outweighs any sum of IoU
        by_place[place] = pair
    chosen = zip(*linear_sum_assignment(worth, maximize=True), strict=True)
    places = [(int(row), int(column)) for row, column in chosen]
    return tuple(by_place[place] for place in sorted(places) if place in by_place)


def components(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """A mask as nodes: parts that touch by a face, edge or corner, numbered from 1 in falling size.

    Parameters
    ----------
    mask : bool (z, y, x).
    """
    parts = np.zeros(mask.shape, dtype=np.int32)
    block = bounding_box(mask)
    if block is None:
        return parts
    labelled, count = ndimage.label(mask[block], structure=np.ones((3, 3, 3)))
    inside = mask[block]
    values = labelled[inside]
    ranks = np.zeros(count + 1, dtype=np.int32)
    ranks[1 + np.argsort(-np.bincount(values, minlength=count + 1)[1:], kind="stable")] = np.arange(
        1, count + 1
    )
    parts[block][inside] = np.take(ranks, values)
    return parts


_COUNTED_TO = 2**16
"""Largest number of a node up to which a table over all numbers is quicker than sorting the voxels."""


def _numbered(nodes: LabelArray) -> tuple[list[int], npt.NDArray[np.int64]]:
    """The values of a map of nodes, rising, and the map with 1, 2, ... in their places."""
    if nodes.size and int(nodes.min()) >= 0 and int(nodes.max()) <= _COUNTED_TO:  # no need to sort all voxels
        there = np.bincount(nodes.ravel().astype(np.intp, copy=False)) > 0
        there[0] = False
        rank = np.where(there, np.cumsum(there), 0)
        return [int(value) for value in np.flatnonzero(there)], np.take(rank, nodes)
    values, index = np.unique(nodes, return_inverse=True)
    index = index.reshape(nodes.shape).astype(np.int64)
    background = np.flatnonzero(values == 0)
    if background.size == 0:
        return [int(value) for value in values], index + 1
    zero = int(background[0])
    order = np.arange(len(values)) + (np.arange(len(values)) < zero)
    order[zero] = 0
    return [int(value) for value in values if value != 0], order[index]


def _shared_voxels(
    truth: npt.NDArray[np.int64], found: npt.NDArray[np.int64], n_true: int, n_found: int
) -> npt.NDArray[np.int64]:
    """Voxels (true, predicted) that each pair of nodes has in common."""
    both = (truth != 0) & (found != 0)
    pairs = (truth[both] - 1) * n_found + found[both] - 1
    return np.bincount(pairs, minlength=n_true * n_found).reshape(n_true, n_found)


def _sizes(index: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Voxels of each of the nodes 1, 2, ...; the background, most of the map, is not counted."""
    return np.bincount(index[index != 0], minlength=count + 1)[1:]


def node_infos(nodes: LabelArray, spacing: Spacing) -> tuple[NodeInfo, ...]:
    """Volume, short axis and size class of each node of a map (z, y, x), by rising value."""
    numbers, index = _numbered(nodes)
    return _infos(index, numbers, spacing, {})


def _infos(
    index: npt.NDArray[np.int64], numbers: Sequence[int], spacing: Spacing, confidences: Mapping[int, float]
) -> tuple[NodeInfo, ...]:
    voxel_ml = float(np.prod(spacing)) / 1000.0
    infos = []
    blocks = ndimage.find_objects(index, max_label=len(numbers)) if numbers else []
    for place, (number, block) in enumerate(zip(numbers, blocks, strict=True), start=1):
        mask: BoolArray = index[block] == place
        short = max(measure_axes(mask, spacing).short_axial, 0.0)
        volume = float(np.count_nonzero(mask) * voxel_ml)
        given = confidences.get(number)
        confidence = float(given) if given is not None and np.isfinite(given) else None
        infos.append(NodeInfo(number, volume, short, size_class(short), confidence))
    return tuple(infos)
