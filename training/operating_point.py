"""How sure the segmenter must be of a node: chosen on validation phantoms, kept in the last layer's bias."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aiene.geometry import Volume
from aiene.nodes import split_nodes
from aiene.segment import Segmenter
from matching import match
from phantom_crops import CROP_GRID, Crop

OFFSETS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
MOST_FALSE = 0.75
"""False nodes per case that are put up with."""


class Point(NamedTuple):
    """What an offset gives on the validation phantoms."""

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
        logits = np.log(np.maximum(probability, 1e-12))
        for k, offset in enumerate(OFFSETS):
            labels = np.stack([logits[0], logits[1], logits[2] - offset]).argmax(axis=0).astype(np.uint8)
            nodes = split_nodes(Volume(labels, CROP_GRID), fg_labels=(2,), axes=False)
            matched = match([n.mask for n in nodes], crop.numbers, segmented=labels == 2)
            found[k] += len(matched.dice)
            false[k] += len(matched.false)
            dice[k] += matched.dice.values()
    return [
        Point(o, float(found[k] / planted), float(false[k] / len(crops)), float(np.mean(dice[k] or [0.0])))
        for k, o in enumerate(OFFSETS)
    ]


def chosen(found: list[Point]) -> Point:
    """The most sensitive point of few false nodes; the one of fewest false nodes where none has few."""
    few = [p for p in found if p.false_per_case <= MOST_FALSE]
    if not few:
        return min(found, key=lambda p: p.false_per_case)
    return max(few, key=lambda p: (p.sensitivity, p.dice))
