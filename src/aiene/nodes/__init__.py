"""Lymph nodes: split from the segmentation, measured, and placed on the patient's own CT."""

from aiene.nodes.measure import axial_axes, measure_axes
from aiene.nodes.node import (
    GTVN,
    GTVP,
    Axes,
    FgLabels,
    NativePlace,
    Node,
    NoNode,
    Score,
    Side,
    check_known,
    contours,
    parse_fg_labels,
)
from aiene.nodes.placement import NativeNodes, names_by_volume, native_nodes, ranks_by_volume
from aiene.nodes.split import split_nodes

__all__ = [
    "GTVN",
    "GTVP",
    "Axes",
    "FgLabels",
    "NativeNodes",
    "NativePlace",
    "NoNode",
    "Node",
    "Score",
    "Side",
    "axial_axes",
    "check_known",
    "contours",
    "measure_axes",
    "names_by_volume",
    "native_nodes",
    "parse_fg_labels",
    "ranks_by_volume",
    "split_nodes",
]
