"""A lymph node: where it is, how large, and what the classifier says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from aiene.errors import UsageError, joined, ours, said

Side = Literal["left", "right", "midline"]

SMALLEST_SEED = 100
"""Voxels that a connected seed needs."""

UNSCORED = "no tissue under the node's mask, so the classifier gives no probability"
"""Why `Classifier.scores` gives None for a node, for the case's warnings."""


@dataclass(frozen=True)
class Axes:
    """Long and short axes in mm, in the plane of largest area of each orientation."""

    short_axial: float
    short_coronal: float
    short_sagittal: float
    long_axial: float
    long_coronal: float
    long_sagittal: float

    @property
    def largest_short(self) -> float:
        """The largest of the three short axes; 0 if none is over 0."""
        return max(self.short_axial, self.short_coronal, self.short_sagittal, 0.0)


@dataclass(frozen=True, eq=False)
class Node:
    """One malignant lymph node on the crop.

    The published method grows the contour twice. Its masks and sizes are for the classifier and the published
    table alone; everything else is told of the contour itself.

    Parameters
    ----------
    number : the published numbering: watershed label, with gaps.
    contour : bool (64, 160, 160) on the crop: the segmentation's own voxels. Empty where the watershed made a
        node of the layer alone.
    mask : bool, `contour` and the layer of the watershed around it.
    dilated : bool, the classifier's mask: `mask` grown by 4 voxels in plane.
    contour_mm3, volume_before_mm3, volume_after_mm3 : of `contour`, `mask` and `dilated` on the crop.
    axes : of `mask`, as published; None where they were not asked for.
    touches_border : `contour` reaches the crop's edge, so a part of the node may be missing.
    """

    number: int
    contour: npt.NDArray[np.bool_]
    mask: npt.NDArray[np.bool_]
    dilated: npt.NDArray[np.bool_]
    contour_mm3: float
    volume_before_mm3: float
    volume_after_mm3: float
    axes: Axes | None
    touches_border: bool


@dataclass(frozen=True)
class NativePlace:
    """A node on the patient's own CT: its contour there, without any layer around it.

    Parameters
    ----------
    centroid_lps_mm : mean of the voxel centres, (x, y, z).
    volume_mm3 : voxels on the native grid times their volume; 0 where none lies in the node.
    long_axis_mm, short_axis_mm : `measure.axial_axes` on the native grid; None where the volume is 0.
    side : of the neck, by the centroid against the template's midline.
    touches_border : the node reaches the native CT's edge.
    """

    centroid_lps_mm: tuple[float, float, float]
    volume_mm3: float
    long_axis_mm: float | None
    short_axis_mm: float | None
    side: Side
    touches_border: bool


@dataclass(frozen=True)
class NoNode:
    """A part of the contours that belongs to no node: told, never lost in silence.

    Parameters
    ----------
    volume_mm3, centroid_lps_mm : on the native CT.
    outside : it lies wholly outside the crop that the networks see; else it is too small for a node.
    """

    volume_mm3: float
    centroid_lps_mm: tuple[float, float, float]
    outside: bool


@dataclass(frozen=True)
class Score:
    """The classifier's two outputs, each 0 to 1."""

    pos: float
    ene: float


@dataclass(frozen=True)
class CountingRule:
    """What the AI-ENE node number counts.

    Parameters
    ----------
    ene_threshold : a node has extension where its probability is over this.
    pos_from : the classifier must give a found node at least so much `pos` (0 to 1) for it to count; 0: every
        found node counts, as published.

    Raises
    ------
    UsageError : one of them is no probability.
    """

    ene_threshold: float
    pos_from: float = 0.0

    def __post_init__(self) -> None:
        for what, value in (("the ENE threshold", self.ene_threshold), ("the minimum of pos", self.pos_from)):
            if not 0 <= value <= 1:
                raise UsageError(said("{} is {:g}; it must be a probability from 0 to 1.", ours(what), value))

    def counts(self, pos: float | None) -> bool:
        """Whether a found node counts as one at all; one that nobody judged does."""
        return pos is None or pos >= self.pos_from

    def is_ene(self, pos: float | None, ene: float | None) -> bool:
        """Whether a node counts as one with extension; both compared in float64."""
        return ene is not None and ene > self.ene_threshold and self.counts(pos)

    @property
    def sentence(self) -> str:
        """The rule in words, for tables and reports."""
        least = said(" and `pos` is {:g} or more", self.pos_from) if self.pos_from else said("")
        return said(
            "a node counts as AI-ENE where its ENE probability is over {:g}{}", self.ene_threshold, least
        )


# Which labels of a segmentation are nodes.


FgLabels = tuple[int, ...] | Literal["any"]

GTVP = 1
"""The primary tumour, by the HECKTOR convention, in label maps of ours and of users."""
GTVN = 2
"""Malignant lymph nodes, likewise."""


def parse_fg_labels(text: str) -> FgLabels:
    """The word behind `--fg-labels`: `2`, `any`, or several values as in `1,2`.

    Text that holds no whole numbers means 2, as in the published code.

    Raises
    ------
    UsageError : a number that no label of an 8-bit map can have.
    """
    word = text.strip().lower()
    if word == "any":
        return "any"
    try:
        values = tuple(sorted({int(part) for part in word.split(",") if part.strip()}))
    except ValueError:
        return (GTVN,)
    if any(not 1 <= value <= 255 for value in values):
        raise UsageError(
            said("--fg-labels {}: labels are 1 to 255; give 2, any, or several as in 1,2.", text)
        )
    return values or (GTVN,)


def check_known(text: str, labels: FgLabels, known: Mapping[str, int]) -> None:
    """Whether a segmenter can give any of the chosen labels at all.

    Parameters
    ----------
    text : the word behind `--fg-labels`.
    known : the segmenter's label values by name.

    Raises
    ------
    UsageError : it cannot; every patient would be without nodes.
    """
    if labels == "any" or set(labels) & set(known.values()):
        return
    there = joined(", ", [said("{} ({})", value, ours(name)) for name, value in known.items()])
    raise UsageError(said("--fg-labels {}: the model gives no such label; it gives {}.", text, there))


def foreground(labels: npt.NDArray[Any], fg_labels: FgLabels) -> npt.NDArray[np.bool_]:
    """Where a label map holds one of the chosen labels."""
    if fg_labels == "any":
        return np.asarray(labels != 0)
    return np.isin(labels, fg_labels)


def contours(
    labels: npt.NDArray[Any], nodes: FgLabels, *, primary: int | None = GTVP
) -> npt.NDArray[np.uint8]:
    """A label map in the values of `labels.nii.gz`, whatever values it came in.

    Parameters
    ----------
    labels : integers of any shape.
    nodes : the labels that are nodes.
    primary : the label of the primary tumour, unless it is chosen as a node; None where there is none.

    Returns
    -------
    `GTVN` at nodes, `GTVP` at the primary tumour, 0 elsewhere.
    """
    result = np.zeros(labels.shape, dtype=np.uint8)
    if primary is not None:
        result[labels == primary] = GTVP
    result[foreground(labels, nodes)] = GTVN
    return result


def ranks_by_volume(nodes: Sequence[Node]) -> list[int]:
    """The rank of each node, from 1 for the largest contour on the crop; ties by number."""
    order = sorted(range(len(nodes)), key=lambda i: (-nodes[i].contour_mm3, nodes[i].number))
    ranks = [0] * len(nodes)
    for rank, index in enumerate(order, start=1):
        ranks[index] = rank
    return ranks


def names_by_volume(nodes: Sequence[Node]) -> list[str]:
    """The one name of each node, `GTVn_01` for the largest, in the order in which the nodes are given."""
    return [f"GTVn_{rank:02d}" for rank in ranks_by_volume(nodes)]
