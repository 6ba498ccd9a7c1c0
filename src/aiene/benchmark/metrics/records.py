"""What the metrics of one case are: its nodes and their matching, its labels, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aiene.errors import UsageError

SizeClass = Literal["<10 mm", "10-15 mm", ">15 mm"]
SIZE_CLASSES: tuple[SizeClass, ...] = ("<10 mm", "10-15 mm", ">15 mm")
IOU_THRESHOLD = 0.3
"""A predicted node can be a true one where their intersection over union is at least this."""


@dataclass(frozen=True)
class NodeInfo:
    """One node of a case.

    Parameters
    ----------
    number : its value in the map of nodes.
    short_axis_mm : short axis in the axial slice of largest area, between pixel centres (`measure_axes`).
    confidence : of a predicted node, where the model gives one.
    """

    number: int
    volume_ml: float
    short_axis_mm: float
    size_class: SizeClass
    confidence: float | None = None


@dataclass(frozen=True)
class NodePair:
    """A true and a predicted node that overlap enough to be one."""

    truth: int
    predicted: int
    iou: float
    dice: float


@dataclass(frozen=True)
class NodeMatch:
    """The predicted nodes of one case against the true ones.

    Parameters
    ----------
    candidates : every pair whose IoU is at least the threshold.
    pairs : the one-to-one matching out of these.
    missed : true nodes without a partner.
    false : predicted nodes without a partner, second parts of a true node among them.
    splits : true nodes that two or more predicted nodes lie mostly within.
    merges : predicted nodes that two or more true nodes lie mostly within.
    lost : the model gave nothing for this case: every true node is missed, what is false is not known.
    """

    truth: tuple[NodeInfo, ...]
    predicted: tuple[NodeInfo, ...]
    candidates: tuple[NodePair, ...]
    pairs: tuple[NodePair, ...]
    missed: tuple[int, ...]
    false: tuple[int, ...]
    splits: tuple[int, ...]
    merges: tuple[int, ...]
    iou_threshold: float
    lost: bool = False


def lost_match(truth: tuple[NodeInfo, ...], iou_threshold: float) -> NodeMatch:
    """The match of a case for which a model gave nothing."""
    missed = tuple(node.number for node in truth)
    return NodeMatch(truth, (), (), (), missed, (), (), (), iou_threshold, lost=True)


def without_prediction(lost: int, cases: int) -> str:
    """Why a figure that needs what was predicted cannot be given; empty where every case has a prediction."""
    if not lost:
        return ""
    return f"{lost} of {cases} cases without a prediction, and what would be false there is not known"


def size_class(short_axis_mm: float) -> SizeClass:
    """Under 10 mm, from 10 to 15 mm (both included), over 15 mm."""
    if short_axis_mm < 10:
        return "<10 mm"
    return "10-15 mm" if short_axis_mm <= 15 else ">15 mm"


_DISTANCES = ("hd95_mm", "assd_mm")
_ERRORS = ("volume_error_ml", "volume_error_relative")
SEGMENTATION_METRICS = ("dice", "iou", *_DISTANCES, "surface_dice_1mm", "surface_dice_2mm", *_ERRORS)
LOST = "no prediction of this case"
_ABOUT_ZERO = ("volume_error_ml", "volume_error_relative", "volume_bias", "intercept")
_LOWER_WORDS = (
    *("hd95", "assd", "distance", "brier", "expected_error", "ece", "false", "missed", "splits", "merges"),
    *(
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
    ),
)
_ABOUT_ONE = "slope"


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
                f"{name} is not a segmentation metric; use one of {', '.join(SEGMENTATION_METRICS)}."
            )
        value: float | None = getattr(self, name)
        if name in _ERRORS:
            return None if value is None else abs(value)
        if self.dice is None:  # absent in both
            return 0.0 if name in _DISTANCES else 1.0
        return self.worst_mm if value is None else value


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


@dataclass(frozen=True)
class CaseMetrics:
    """The metrics of each label asked for, and the nodes' matching."""

    labels: tuple[LabelMetrics, ...]
    nodes: NodeMatch


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
    if any(word in name for word in (*_ABOUT_ZERO, _ABOUT_ONE)):
        return None
    return not any(word in name for word in _LOWER_WORDS)


def goodness(metric: str, value: float) -> float:
    """A number that is larger the better the value of a metric is, to sort by."""
    direction = higher_is_better(metric)
    if direction is None:
        best = 1.0 if _ABOUT_ONE in metric.lower() else 0.0
        return -abs(value - best)
    return value if direction else -value
