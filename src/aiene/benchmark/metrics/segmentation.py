"""Segmentation metrics: label by label, of a whole case with its nodes, and aggregated over a cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aiene.benchmark.metrics.masks import (
    LabelArray,
    Spacing,
    as_labels,
    check_pair,
    check_spacing,
)
from aiene.benchmark.metrics.matching import (
    IOU_THRESHOLD,
    NodeMatch,
    components,
    match_checked,
    without_prediction,
)
from aiene.benchmark.metrics.surfaces import surface_metrics
from aiene.errors import UsageError
from aiene.geometry.grid import bounding_box
from aiene.nodes.node import GTVN
from aiene.stats.bootstrap import cluster_bootstrap, ratio
from aiene.stats.records import Estimate, missing

SEGMENTATION_METRICS = (
    "dice",
    "iou",
    "hd95_mm",
    "assd_mm",
    "surface_dice_1mm",
    "surface_dice_2mm",
    "volume_error_ml",
    "volume_error_relative",
)

BOTH_ABSENT = "absent in truth and prediction"
LOST = "no prediction of this case"
NOT_PREDICTED = "nothing predicted, so that no distance can be given"
NOT_IN_TRUTH = "nothing in the truth, so that no distance can be given"

_DISTANCES = ("hd95_mm", "assd_mm")
_ERRORS = ("volume_error_ml", "volume_error_relative")

_ABOUT_ZERO = (
    "volume_error_ml",
    "volume_error_relative",
    "volume_bias",
    "intercept",
    "calibration_intercept",
)
_LOWER_WORDS = (
    "hd95",
    "assd",
    "distance",
    "brier",
    "expected_error",
    "ece",
    "false",
    "missed",
    "splits",
    "merges",
    "seconds",
    "memory",
    "_bytes",
    "_mb",
    "_gb",
    "gib",
    "mib",
    "flops",
    "parameters",
    "size",
    "rank",
    "failed",
)
_ABOUT_ONE = ("calibration_slope", "slope")


@dataclass(frozen=True)
class LabelMetrics:
    """One label of one case, prediction against truth.

    Empty masks: where truth and prediction are both empty there is nothing to overlap, so Dice, IoU, surface
    Dice and the distances are None. Where only one is empty, Dice, IoU and surface Dice are 0 and the
    distances None, since they are infinite. What counts in a cohort is `cohort_value`, which is never None
    for one model and a number for another.

    Parameters
    ----------
    truth_voxels, predicted_voxels, shared_voxels : counts, from which the cohort's aggregate is made.
    truth_ml, predicted_ml : volumes.
    hd95_mm, assd_mm, surface_dice_1mm, surface_dice_2mm : by `surface_metrics`, where the conventions stand.
    volume_error_ml : predicted less truth.
    volume_error_relative : the same as a share of the truth's volume; None where that is 0.
    worst_mm : the image's diagonal between the centres of its corner voxels.
    reason : why something is None; empty where all is there.
    """

    label: int
    truth_voxels: int
    predicted_voxels: int
    shared_voxels: int
    truth_ml: float
    predicted_ml: float
    dice: float | None
    iou: float | None
    hd95_mm: float | None
    assd_mm: float | None
    surface_dice_1mm: float | None
    surface_dice_2mm: float | None
    volume_error_ml: float
    volume_error_relative: float | None
    worst_mm: float
    reason: str = ""

    def cohort_value(self, name: str) -> float | None:
        """A metric for means, tests and ranks over a cohort; None only where the truth alone forbids one.

        Both masks empty is right (Maier-Hein et al., Metrics Reloaded, Nat. Methods 21, 2024): overlaps are 1
        and distances 0. Where one of the two is empty a distance is the image's diagonal, the worst that can
        be. Volume errors are taken by their size, so that errors of two cases do not cancel.

        Raises
        ------
        UsageError : a name that is not in `SEGMENTATION_METRICS`.
        """
        if name not in SEGMENTATION_METRICS:
            raise UsageError(
                f"{name} is no segmentation metric; there are {', '.join(SEGMENTATION_METRICS)}."
            )
        value: float | None = getattr(self, name)
        if name in _ERRORS:
            return None if value is None else abs(value)
        if self.dice is None:  # absent in both
            return 0.0 if name in _DISTANCES else 1.0
        return self.worst_mm if value is None else value


def label_metrics(
    truth: npt.ArrayLike, prediction: npt.ArrayLike, spacing: Sequence[float], *, label: int
) -> LabelMetrics:
    """Every metric of one label.

    Parameters
    ----------
    truth, prediction : label maps (z, y, x) on one grid.
    spacing : mm along z, y, x.

    Raises
    ------
    UsageError : the maps do not fit together, hold values that are no labels, or the spacing is none.
    """
    true_map, found_map = as_labels(truth, "the truth"), as_labels(prediction, "the prediction")
    check_pair(true_map, found_map)
    return compare_label(true_map, found_map, check_spacing(spacing), label=label)


def compare_label(truth: LabelArray, prediction: LabelArray, spacing: Spacing, *, label: int) -> LabelMetrics:
    """`label_metrics` of maps and spacing that are checked already."""
    true_mask, found_mask = truth == label, prediction == label
    block = bounding_box(true_mask | found_mask)
    voxel_ml = float(np.prod(spacing)) / 1000.0
    worst = float(np.linalg.norm((np.array(truth.shape) - 1) * np.array(spacing)))
    if block is None:
        nothing = (None,) * 6
        return LabelMetrics(label, 0, 0, 0, 0.0, 0.0, *nothing, 0.0, None, worst, BOTH_ABSENT)
    true_mask, found_mask = true_mask[block], found_mask[block]
    n_true, n_found = int(np.count_nonzero(true_mask)), int(np.count_nonzero(found_mask))
    shared = int(np.count_nonzero(true_mask & found_mask))
    hd95: float | None = None
    assd: float | None = None
    within: tuple[float, ...] = (0.0, 0.0)
    if n_true and n_found:
        hd95, assd, within = surface_metrics(true_mask, found_mask, spacing)
    return LabelMetrics(
        label=label,
        truth_voxels=n_true,
        predicted_voxels=n_found,
        shared_voxels=shared,
        truth_ml=n_true * voxel_ml,
        predicted_ml=n_found * voxel_ml,
        dice=2 * shared / (n_true + n_found),
        iou=shared / (n_true + n_found - shared),
        hd95_mm=hd95,
        assd_mm=assd,
        surface_dice_1mm=within[0],
        surface_dice_2mm=within[1],
        volume_error_ml=(n_found - n_true) * voxel_ml,
        volume_error_relative=(n_found - n_true) / n_true if n_true else None,
        worst_mm=worst,
        reason="" if n_true and n_found else (NOT_PREDICTED if n_true else NOT_IN_TRUTH),
    )


def lost_metrics(
    label: int, voxels: int, voxel_ml: float, image_ml: float, diagonal_mm: float
) -> LabelMetrics:
    """A label of a case for which a model gave nothing: the worst that any prediction could have got.

    Parameters
    ----------
    voxels : of the label in the truth.
    image_ml : volume of the whole image, to which the largest error of volume belongs.
    diagonal_mm : of the image; see `LabelMetrics.worst_mm`.
    """
    truth_ml = voxels * voxel_ml
    error = max(truth_ml, image_ml - truth_ml)
    return LabelMetrics(
        label=label,
        truth_voxels=voxels,
        predicted_voxels=0,
        shared_voxels=0,
        truth_ml=truth_ml,
        predicted_ml=0.0,
        dice=0.0,
        iou=0.0,
        hd95_mm=diagonal_mm,
        assd_mm=diagonal_mm,
        surface_dice_1mm=0.0,
        surface_dice_2mm=0.0,
        volume_error_ml=error,
        volume_error_relative=error / truth_ml if voxels else None,
        worst_mm=diagonal_mm,
        reason=LOST,
    )


def aggregated_dice(cases: Sequence[LabelMetrics]) -> Estimate:
    """Twice the shared volume of all cases over the sizes of all masks, as HECKTOR 2022 ranks.

    A case without the label in truth and prediction adds nothing, a false one counts against it. HECKTOR sums
    voxels of one spacing; volumes are summed here, which is the same there and fair where spacings differ.
    Source: Andrearczyk et al., HECKTOR 2022 overview (LNCS 13626, 2023).

    Parameters
    ----------
    cases : one label of every case.

    Returns
    -------
    Without an interval; see `aggregated_dice_interval`. None where no case holds the label, and where a case
    has no prediction: how much false volume it would have added is not known.
    """
    reason = without_prediction(sum(case.reason == LOST for case in cases), len(cases))
    if reason:
        return missing(reason, len(cases))
    shared, sizes = _aggregate_parts(cases)
    total = float(sizes.sum())
    if total == 0:
        return missing("no case holds this label in truth or prediction", len(cases))
    return Estimate(float(2 * shared.sum() / total), n=len(cases))


def aggregated_dice_interval(
    cases: Sequence[LabelMetrics],
    patients: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """`aggregated_dice` with a bootstrap interval over patients (each case its own where None)."""
    if not cases or aggregated_dice(cases).value is None:
        return aggregated_dice(cases)
    shared, sizes = _aggregate_parts(cases)
    return cluster_bootstrap(ratio(2 * shared, sizes), len(cases), patients, resamples=resamples, seed=seed)


def _aggregate_parts(
    cases: Sequence[LabelMetrics],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Shared and summed volume of each case, in ml."""
    voxel = np.array([_voxel_ml(case) for case in cases], dtype=np.float64)
    shared = np.array([case.shared_voxels for case in cases], dtype=np.float64) * voxel
    sizes = np.array([case.truth_voxels + case.predicted_voxels for case in cases], dtype=np.float64) * voxel
    return shared, sizes


def _voxel_ml(case: LabelMetrics) -> float:
    voxels = case.truth_voxels + case.predicted_voxels
    return (case.truth_ml + case.predicted_ml) / voxels if voxels else 0.0


# All metrics of one case


@dataclass(frozen=True)
class CaseMetrics:
    """The metrics of each label asked for, and the nodes' matching."""

    labels: tuple[LabelMetrics, ...]
    nodes: NodeMatch


def case_metrics(
    truth: npt.ArrayLike,
    prediction: npt.ArrayLike,
    spacing: Sequence[float],
    *,
    labels: Sequence[int] = (1, GTVN),
    truth_nodes: npt.ArrayLike | None = None,
    predicted_nodes: npt.ArrayLike | None = None,
    confidences: Mapping[int, float] | None = None,
    iou_threshold: float = IOU_THRESHOLD,
    node_label: int = GTVN,
) -> CaseMetrics:
    """Compare a prediction with the truth, label by label and node by node.

    Parameters
    ----------
    truth, prediction : label maps (z, y, x) on one grid; other values than `labels` are not looked at.
    spacing : mm along z, y, x.
    truth_nodes, predicted_nodes : maps whose values are single nodes; None: the connected parts (26
        neighbours) of `node_label`.
    confidences : of the predicted nodes, by their value in `predicted_nodes`, for the free-response curve.

    Raises
    ------
    UsageError : maps, spacing or threshold cannot be used.
    """
    true_map, found_map = as_labels(truth, "the truth"), as_labels(prediction, "the prediction")
    check_pair(true_map, found_map)
    steps = check_spacing(spacing)
    if confidences and predicted_nodes is None:
        raise UsageError("confidences belong to the values of a map of predicted nodes; give it too.")
    true_nodes = (
        components(true_map == node_label)
        if truth_nodes is None
        else as_labels(truth_nodes, "the truth's nodes")
    )
    found_nodes = (
        components(found_map == node_label)
        if predicted_nodes is None
        else as_labels(predicted_nodes, "the predicted nodes")
    )
    check_pair(true_map, true_nodes)
    check_pair(true_nodes, found_nodes)
    return CaseMetrics(
        labels=tuple(compare_label(true_map, found_map, steps, label=label) for label in labels),
        nodes=match_checked(
            true_nodes, found_nodes, steps, iou_threshold=iou_threshold, confidences=confidences or {}
        ),
    )


# Direction of each metric


def higher_is_better(metric: str) -> bool | None:
    """Whether a larger value of a metric is better.

    Parameters
    ----------
    metric : its name, also with what it is of in front or behind: `dice`, `gtvn_hd95_mm`, `wall_seconds`.

    Returns
    -------
    False for distances, errors, counts of mistakes, time and memory; None where neither way is: volume errors
    and calibration intercepts are best near 0, calibration slopes near 1. Otherwise True.
    """
    name = metric.lower()
    if any(word in name for word in (*_ABOUT_ZERO, *_ABOUT_ONE)):
        return None
    return not any(word in name for word in _LOWER_WORDS)


def goodness(metric: str, value: float) -> float:
    """A number that is larger the better the value of a metric is, to sort by."""
    direction = higher_is_better(metric)
    if direction is None:
        best = 1.0 if any(word in metric.lower() for word in _ABOUT_ONE) else 0.0
        return -abs(value - best)
    return value if direction else -value
