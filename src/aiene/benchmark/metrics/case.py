"""Every metric of one case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy.typing as npt

from aiene.benchmark.metrics.checks import as_labels, check_pair, check_spacing
from aiene.benchmark.metrics.matching import IOU_THRESHOLD, NodeMatch, components, match_checked
from aiene.benchmark.metrics.segmentation import LabelMetrics, compare_label
from aiene.errors import UsageError
from aiene.nodes.labels import GTVN


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
    truth, prediction : label maps (z, y, x) on one grid; other values than `labels` are not looked at (see
        `unknown_labels`).
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
