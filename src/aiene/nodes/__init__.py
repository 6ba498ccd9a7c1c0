"""Lymph nodes: split from the segmentation, measured, and placed on the patient's own CT."""

from aiene.nodes.labels import FgLabels, parse_fg_labels
from aiene.nodes.measure import measure_axes
from aiene.nodes.native import names_by_volume, native_places, ranks_by_volume
from aiene.nodes.node import Axes, NativePlace, Node, Score, Side
from aiene.nodes.split import split_nodes

__all__ = [
    "Axes",
    "FgLabels",
    "NativePlace",
    "Node",
    "Score",
    "Side",
    "measure_axes",
    "names_by_volume",
    "native_places",
    "parse_fg_labels",
    "ranks_by_volume",
    "split_nodes",
]
