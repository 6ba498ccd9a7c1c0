"""Names of metrics as people write them, and how their numbers are shown."""

from __future__ import annotations

from typing import NamedTuple

from aiene.benchmark.comparators.adapters import adapters
from aiene.report.formatting import NumberKind, shown


class Metric(NamedTuple):
    """A metric of segmentation as it is shown."""

    title: str
    kind: NumberKind


METRICS = {
    "dice": Metric("Dice", "ratio"),
    "iou": Metric("IoU", "ratio"),
    "hd95_mm": Metric("95 % Hausdorff (mm)", "mm"),
    "assd_mm": Metric("Surface distance (mm)", "mm"),
    "surface_dice_1mm": Metric("Surface Dice 1 mm", "ratio"),
    "surface_dice_2mm": Metric("Surface Dice 2 mm", "ratio"),
    "volume_error_ml": Metric("Size of volume error (ml)", "ml"),
    "volume_error_relative": Metric("Size of volume error (share)", "ratio"),
    "node_sensitivity": Metric("Node sensitivity", "ratio"),
    "node_dice": Metric("Dice of single nodes", "ratio"),
    "froc": Metric("Free-response score", "ratio"),
    "auc": Metric("AUC", "ratio"),
}
"""In the order of the tables."""


def kind_title(kind: object) -> object:
    """A kind of model as it is shown; one that is not known here keeps its word."""
    known = adapters().get(str(kind))
    return kind if known is None else known.title


def metric(name: str) -> Metric:
    """A metric as it is shown; one that this report does not know keeps its name."""
    return METRICS.get(name, Metric(name, "ratio"))


def endpoint_title(name: str, label: str) -> str:
    """An endpoint as it is shown: "Dice of GTVn", "AUC of extranodal extension, end to end"."""
    if name == "auc":
        track = "end to end" if label.endswith("end_to_end") else "on the truth's nodes"
        return f"AUC of extranodal extension, {track}"
    title = metric(name).title
    return title if name.startswith(("node", "froc")) or not label else f"{title} of {label}"


def equals(p: float | None) -> str:
    """What stands behind "p"."""
    said = shown(p, "p")
    return said if said.startswith("<") else f"= {said}"


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{number} {one if number == 1 else many or one + 's'}"
