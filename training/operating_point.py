"""How sure the segmenter must be of a node: chosen on persons it has not seen, kept in its last bias."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aiene.geometry import Volume
from aiene.nodes import split_nodes
from aiene.segment import Segmenter
from fit_classifier import MOST_UNKNOWN
from fit_segmenter import IGNORE
from matching import match
from phantom_crops import CROP_GRID, Crop

OFFSETS = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
PRICE = 0.1
"""A false node per case costs as much as this share of the nodes."""


class Point(NamedTuple):
    """What an offset gives on one kind of crops."""

    offset: float
    sensitivity: float
    false_per_case: float
    dice: float


def points(crops: list[Crop], segmenter: Segmenter) -> list[Point]:
    """Sensitivity and false nodes for each offset that is taken off the nodes' logit."""
    planted = sum(len(crop.ene) for crop in crops)
    found, false = np.zeros(len(OFFSETS)), np.zeros(len(OFFSETS))
    dice: list[list[float]] = [[] for _ in OFFSETS]
    for crop in crops:
        probability = segmenter.probabilities(Volume(crop.image.astype(np.float32), CROP_GRID))
        unknown = crop.labels == IGNORE
        logits = np.log(np.maximum(probability, 1e-12))
        for k, offset in enumerate(OFFSETS):
            labels = np.stack([logits[0], logits[1], logits[2] - offset]).argmax(axis=0).astype(np.uint8)
            nodes = split_nodes(Volume(labels, CROP_GRID), fg_labels=(2,), axes=False)
            matched = match([n.mask for n in nodes], crop.numbers, segmented=labels == 2)
            found[k] += len(matched.dice)
            false[k] += sum(unknown[nodes[f].mask].mean() <= MOST_UNKNOWN for f in matched.false)
            dice[k] += matched.dice.values()
    return [
        Point(o, float(found[k] / planted), float(false[k] / len(crops)), float(np.mean(dice[k] or [0.0])))
        for k, o in enumerate(OFFSETS)
    ]


def chosen(*kinds: list[Point]) -> tuple[Point, ...]:
    """Of each kind of crops the point at the offset that is best over all kinds; the lower of equal ones.

    Sensitivity less the price of false nodes, summed over the kinds.
    """
    worth = [
        sum(p.sensitivity - PRICE * p.false_per_case for p in points) for points in zip(*kinds, strict=True)
    ]
    best = int(np.argmax(worth))
    return tuple(kind[best] for kind in kinds)
