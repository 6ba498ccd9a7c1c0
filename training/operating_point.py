"""How sure the segmenter must be of a node: chosen on persons it has not seen, kept in its last bias."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from aiene.geometry import Volume
from aiene.nodes import split_nodes
from aiene.segment import load_segmenter
from bundle_card import MIRRORING
from fit_classifier import MOST_UNKNOWN
from fit_segmenter import IGNORE
from matching import match
from phantom_crops import CROP_GRID, load_crop

OFFSETS = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
PRICE = 0.1
"""A false node per case costs as much as this share of the nodes."""


class Point(NamedTuple):
    """What an offset gives on one kind of crops."""

    offset: float
    sensitivity: float
    false_per_case: float
    dice: float


@dataclass(frozen=True)
class Counts:
    """What one crop gives at each offset: planted nodes that are found, false nodes, and the Dice's sum."""

    planted: int
    found: npt.NDArray[np.float64]
    false: npt.NDArray[np.float64]
    dice: npt.NDArray[np.float64]


def points(files: list[Path], folder: Path, workers: int) -> list[Point]:
    """Sensitivity and false nodes for each offset that is taken off the nodes' logit.

    Parameters
    ----------
    files : of the crops.
    folder : of the segmenter.
    workers : processes of one thread.
    """
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        counts = list(pool.map(of_crop, files, [folder] * len(files)))
    planted = sum(c.planted for c in counts)
    found, false, dice = (sum(getattr(c, name) for c in counts) for name in ("found", "false", "dice"))
    return [
        Point(o, found[k] / planted, false[k] / len(files), dice[k] / max(found[k], 1))
        for k, o in enumerate(OFFSETS)
    ]


def of_crop(file: Path, folder: Path) -> Counts:
    """One crop, in a process of its own."""
    torch.set_num_threads(1)
    crop = load_crop(file)
    segmenter = load_segmenter(folder, mirroring=MIRRORING)
    probability = segmenter.probabilities(Volume(crop.image.astype(np.float32), CROP_GRID))
    logits = np.log(np.maximum(probability, 1e-12))
    unknown = crop.labels == IGNORE
    found, false, dice = np.zeros((3, len(OFFSETS)))
    for k, offset in enumerate(OFFSETS):
        labels = np.stack([logits[0], logits[1], logits[2] - offset]).argmax(axis=0).astype(np.uint8)
        nodes = split_nodes(Volume(labels, CROP_GRID), fg_labels=(2,), axes=False)
        matched = match([n.mask for n in nodes], crop.numbers, segmented=labels == 2)
        found[k] = len(matched.dice)
        false[k] = sum(unknown[nodes[f].mask].mean() <= MOST_UNKNOWN for f in matched.false)
        dice[k] = sum(matched.dice.values())
    return Counts(len(crop.ene), found, false, dice)


def chosen(*kinds: list[Point]) -> tuple[Point, ...]:
    """Of each kind of crops the point at the offset that is best over all kinds; the lower of equal ones.

    Sensitivity less the price of false nodes, summed over the kinds.
    """
    worth = [
        sum(p.sensitivity - PRICE * p.false_per_case for p in points) for points in zip(*kinds, strict=True)
    ]
    best = int(np.argmax(worth))
    return tuple(kind[best] for kind in kinds)
