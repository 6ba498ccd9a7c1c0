"""Segmentation metrics: label by label, of a whole case with its nodes, and aggregated over a cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from aiene.benchmark.metrics.masks import (
    LabelArray,
    Spacing,
    as_labels,
    check_pair,
    check_spacing,
)
from aiene.benchmark.metrics.matching import components, match_checked
from aiene.benchmark.metrics.records import (
    IOU_THRESHOLD,
    LOST,
    CaseMetrics,
    LabelMetrics,
    without_prediction,
)
from aiene.benchmark.metrics.surfaces import surface_metrics
from aiene.errors import UsageError
from aiene.geometry.grid import bounding_box
from aiene.nodes.node import GTVN
from aiene.stats.bootstrap import cluster_bootstrap, ratio
from aiene.stats.records import Estimate, missing

BOTH_ABSENT = "absent in truth and prediction"
NOT_PREDICTED = "nothing predicted, so that no distance can be given"
NOT_IN_TRUTH = "nothing in the truth, so that no distance can be given"


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
