"""Nodes: which predicted one is which true one, and detection over a cohort.

Sensitivity, false nodes, and the free-response (FROC) curve, which gives the share of nodes found against
false nodes per case as the confidence threshold falls. Masks are checked before they are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from aiene.benchmark.records import (
    IOU_THRESHOLD,
    SIZE_CLASSES,
    NodeInfo,
    NodeMatch,
    NodePair,
    SizeClass,
    size_class,
    without_prediction,
)
from aiene.errors import UsageError
from aiene.geometry.grid import bounding_box
from aiene.nodes.split import measure_axes
from aiene.stats.bootstrap import Statistic, cluster_bootstrap, cluster_codes, ratio
from aiene.stats.records import Estimate, missing
from aiene.stats.roc import wilson

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
    lines, columns = len(true_numbers) + 1, len(found_numbers) + 1
    inside = (true_index != 0) | (found_index != 0)  # the background, most of the map, is not counted
    pairs_of = true_index[inside] * columns + found_index[inside]
    voxels = np.bincount(pairs_of, minlength=lines * columns).reshape(lines, columns)
    shared, true_sizes, found_sizes = voxels[1:, 1:], voxels[1:].sum(axis=1), voxels[:, 1:].sum(axis=0)
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
    """The values over 0 of a map of nodes, rising, and the map with 1, 2, ... in their places."""
    if int(nodes.max()) <= _COUNTED_TO:  # no need to sort all voxels
        there = np.bincount(nodes.ravel().astype(np.intp, copy=False)) > 0
        there[0] = False
        rank = np.where(there, np.cumsum(there), 0)
        return [int(value) for value in np.flatnonzero(there)], np.take(rank, nodes)
    values, index = np.unique(nodes, return_inverse=True)
    index = index.reshape(nodes.shape).astype(np.int64) + int(values[0] != 0)
    return [int(value) for value in values if value != 0], index


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


FloatArray = npt.NDArray[np.float64]

Rate = Callable[[FloatArray, FloatArray, str], Estimate]

FALSE_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False nodes per case at which sensitivity is read, as in LUNA16."""


@dataclass(frozen=True)
class SizeDetection:
    """Detection of one class of size.

    Parameters
    ----------
    n_truth, n_matched : true nodes of this size, and how many of them are found.
    n_predicted, n_false : predicted nodes of this size, by their own short axis, and how many are false.
    precision : share of the predicted nodes of this size that have a partner of whatever size.
    """

    size_class: SizeClass
    n_truth: int
    n_matched: int
    n_predicted: int
    n_false: int
    sensitivity: Estimate
    precision: Estimate
    false_per_case: Estimate


@dataclass(frozen=True)
class Detection:
    """Node-wise detection over a cohort; intervals by bootstrap over patients.

    A case without a prediction counts as all its nodes missed. What rests on false nodes too (precision, F1,
    false nodes a case, panoptic quality) cannot be given then: nobody knows what would be false there, and a
    model that fails on its hard cases must not gain by it.

    Parameters
    ----------
    n_lost : cases without a prediction.
    sensitivity, precision, f1 : over all nodes of the cohort together; None where there is nothing to count.
    node_dice : mean Dice of each true node with the predicted node that was matched to it, 0 where it was
        missed.
    panoptic_quality : sum of the matched pairs' IoU over matched + (false + missed) / 2 (Kirillov et al.,
        CVPR 2019), which is `segmentation_quality` (their mean IoU) times F1.
    splits, merges : true nodes in several predicted parts, predicted nodes that hold several true ones.
    iou_threshold : from which a pair could match.
    """

    n_cases: int
    n_lost: int
    n_truth: int
    n_predicted: int
    n_matched: int
    n_false: int
    sensitivity: Estimate
    precision: Estimate
    f1: Estimate
    node_dice: Estimate
    panoptic_quality: Estimate
    segmentation_quality: Estimate
    false_per_case: Estimate
    splits: int
    merges: int
    iou_threshold: float
    by_size: tuple[SizeDetection, ...]


def detection(
    cases: Sequence[NodeMatch],
    patients: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Detection:
    """Detection over the cases of a cohort, in all and by class of size.

    Parameters
    ----------
    cases : matched with one threshold; a case without any node belongs here too.
    patients : of each case; None: each case is a patient.

    Raises
    ------
    UsageError : the cases were matched with different thresholds, or patients are not one for each.
    """
    thresholds = {case.iou_threshold for case in cases}
    if len(thresholds) > 1:
        raise UsageError("the cases were matched with different IoU thresholds; match them with one.")

    lost = sum(case.lost for case in cases)
    unknown = without_prediction(lost, len(cases))

    def rate(above: FloatArray, below: FloatArray, nothing: str) -> Estimate:
        if not cases:
            return missing("no cases")
        if below.sum() == 0:
            return missing(nothing, len(cases))
        return cluster_bootstrap(ratio(above, below), len(cases), patients, resamples=resamples, seed=seed)

    def share(above: FloatArray, below: FloatArray, nothing: str) -> Estimate:
        return _wilson_at_the_ends(rate(above, below, nothing), below, patients)

    def known(by: Rate, above: FloatArray, below: FloatArray, nothing: str) -> Estimate:
        return missing(unknown, len(cases)) if unknown else by(above, below, nothing)

    def of_size(name: SizeClass) -> SizeDetection:
        truth = _counts(cases, lambda c: sum(n.size_class == name for n in c.truth))
        missed = _counts(cases, lambda c: sum(n.size_class == name and n.number in c.missed for n in c.truth))
        found = _counts(cases, lambda c: sum(n.size_class == name for n in c.predicted))
        false = _counts(
            cases, lambda c: sum(n.size_class == name and n.number in c.false for n in c.predicted)
        )
        return SizeDetection(
            size_class=name,
            n_truth=int(truth.sum()),
            n_matched=int((truth - missed).sum()),
            n_predicted=int(found.sum()),
            n_false=int(false.sum()),
            sensitivity=share(truth - missed, truth, "no true nodes of this size"),
            precision=known(share, found - false, found, "no predicted nodes of this size"),
            false_per_case=known(rate, false, every, "no cases"),
        )

    every = np.ones(len(cases))
    truth, found = _counts(cases, lambda c: len(c.truth)), _counts(cases, lambda c: len(c.predicted))
    hits, false = _counts(cases, lambda c: len(c.pairs)), _counts(cases, lambda c: len(c.false))
    overlap = _counts(cases, lambda c: math.fsum(pair.iou for pair in c.pairs))
    return Detection(
        n_cases=len(cases),
        n_lost=lost,
        n_truth=int(truth.sum()),
        n_predicted=int(found.sum()),
        n_matched=int(hits.sum()),
        n_false=int(false.sum()),
        sensitivity=share(hits, truth, "no true nodes"),
        precision=known(share, hits, found, "no predicted nodes"),
        f1=known(rate, 2 * hits, truth + found, "no nodes"),
        node_dice=rate(node_dice(cases), truth, "no true nodes"),
        panoptic_quality=known(rate, 2 * overlap, truth + found, "no nodes"),
        segmentation_quality=known(rate, overlap, hits, "no node was found"),
        false_per_case=known(rate, false, every, "no cases"),
        splits=sum(len(case.splits) for case in cases),
        merges=sum(len(case.merges) for case in cases),
        iou_threshold=thresholds.pop() if thresholds else IOU_THRESHOLD,
        by_size=tuple(of_size(name) for name in SIZE_CLASSES),
    )


def node_dice(cases: Sequence[NodeMatch]) -> FloatArray:
    """Sum of the Dice of each case's true nodes with their partners; 0 for those that were missed."""
    return _counts(cases, lambda c: math.fsum(pair.dice for pair in c.pairs))


def _wilson_at_the_ends(found: Estimate, below: FloatArray, patients: Sequence[str] | None) -> Estimate:
    """A share of 0 or 1, where resampling shows no spread, with Wilson's interval.

    Nodes of one patient are found or missed together, so the patients are counted that have such a node; this
    makes the interval wide rather than narrow.
    """
    if found.value not in (0.0, 1.0):
        return found
    codes, _ = cluster_codes(len(below), patients)
    n = len(np.unique(codes[below > 0]))
    if n < 2:
        return found
    return wilson(n if found.value else 0, n)


def _counts(cases: Sequence[NodeMatch], count: Callable[[NodeMatch], float]) -> FloatArray:
    return np.array([count(case) for case in cases], dtype=np.float64)


# Free-response curve


@dataclass(frozen=True)
class Froc:
    """A free-response curve.

    Parameters
    ----------
    thresholds : confidences, falling; a node counts where its own is at least this.
    sensitivity, false_per_case : at each threshold; both rise.
    at : for each of `FALSE_RATES` the largest sensitivity with no more false nodes per case than that.
    score : the mean of these (competition performance metric, Setio et al., Med. Image Anal. 2017), with an
        interval by bootstrap over patients.
    reason : why there is no curve; empty where there is one.
    """

    thresholds: tuple[float, ...]
    sensitivity: tuple[float, ...]
    false_per_case: tuple[float, ...]
    at: tuple[tuple[float, float | None], ...]
    score: float | None
    interval: Estimate
    n_cases: int
    n_truth: int
    reason: str = ""


def froc(
    cases: Sequence[NodeMatch],
    patients: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Froc:
    """The free-response curve of a cohort.

    At each threshold the nodes that are confident enough are matched anew, one to one. Between two points of
    the curve nothing is interpolated.

    Parameters
    ----------
    cases : a case without nodes belongs here too.
    patients : of each case; None: each case is a patient.

    Returns
    -------
    No curve, and the reason, where a predicted node has no confidence, a case no prediction, or there is no
    true node.
    """
    n_truth = sum(len(case.truth) for case in cases)
    reason = "no true nodes" if n_truth == 0 else no_froc(cases)
    if reason:
        none = tuple((rate, None) for rate in FALSE_RATES)
        return Froc((), (), (), none, None, missing(reason, len(cases)), len(cases), n_truth, reason)
    events = _events(cases)
    hits, kept = np.cumsum(events.hit)[events.ends], events.ends + 1
    sensitivity, false = hits / n_truth, (kept - hits) / len(cases)
    at = [float(np.where(false <= rate, sensitivity, 0.0).max(initial=0.0)) for rate in FALSE_RATES]
    score = cluster_bootstrap(froc_score(cases), len(cases), patients, resamples=resamples, seed=seed)
    return Froc(
        thresholds=tuple(float(v) for v in events.confidence[events.ends]),
        sensitivity=tuple(float(v) for v in sensitivity),
        false_per_case=tuple(float(v) for v in false),
        at=tuple(zip(FALSE_RATES, at, strict=True)),
        score=sum(at) / len(at),
        interval=score,
        n_cases=len(cases),
        n_truth=n_truth,
    )


def no_froc(cases: Sequence[NodeMatch]) -> str:
    """Why a model's nodes give no curve; empty where they do."""
    bare = sum(node.confidence is None for case in cases for node in case.predicted)
    if bare:
        return f"{bare} predicted nodes have no confidence"
    return without_prediction(sum(case.lost for case in cases), len(cases))


def froc_score(cases: Sequence[NodeMatch]) -> Statistic:
    """The statistic mean sensitivity at `FALSE_RATES`, of weighted cases.

    Where there is no curve (see `no_froc`) it is 0: a model gains nothing by a case that it leaves out. NaN
    for a resample without a true node.
    """
    truth = _counts(cases, lambda c: len(c.truth))
    events = _events(cases)
    nothing = bool(no_froc(cases)) or len(events.ends) == 0

    def statistic(weights: FloatArray) -> FloatArray:
        nodes = weights @ truth
        if nothing:
            return np.where(nodes > 0, 0.0, np.nan)
        drawn = weights[:, events.place]
        hits = np.cumsum(drawn * events.hit, axis=1)[:, events.ends]
        false = np.cumsum(drawn * (1 - events.hit), axis=1)[:, events.ends]
        per_case = false / weights.sum(axis=1, keepdims=True)
        found = [np.where(per_case <= rate, hits, 0.0).max(axis=1) for rate in FALSE_RATES]
        return np.where(nodes > 0, np.mean(found, axis=0) / np.where(nodes > 0, nodes, 1.0), np.nan)

    return statistic


class _Events(NamedTuple):
    """The predicted nodes of a cohort in falling confidence.

    Parameters
    ----------
    place : of the case of each.
    hit : 1 where it adds a pair to its case's matching, else 0.
    ends : of each run of equal confidences.
    """

    confidence: FloatArray
    place: npt.NDArray[np.int64]
    hit: FloatArray
    ends: npt.NDArray[np.int64]


def _events(cases: Sequence[NodeMatch]) -> _Events:
    rows: list[tuple[float, int, int]] = []
    for place, case in enumerate(cases):
        kept: set[int] = set()
        before = 0
        nodes = [(node.confidence, node.number) for node in case.predicted if node.confidence is not None]
        for confidence, number in sorted(nodes, key=lambda one: (-one[0], one[1])):
            kept.add(number)
            hits = len(one_to_one([pair for pair in case.candidates if pair.predicted in kept]))
            rows.append((confidence, place, hits - before))
            before = hits
    each = np.array([row[0] for row in rows], dtype=np.float64)
    order = np.argsort(-each, kind="stable")
    falling = each[order]
    ends = np.append(np.flatnonzero(np.diff(falling)), len(rows) - 1) if rows else np.zeros(0, np.int64)
    return _Events(
        falling,
        np.array([row[1] for row in rows], dtype=np.int64)[order],
        np.array([row[2] for row in rows], dtype=np.float64)[order],
        ends.astype(np.int64),
    )
