"""How sure the segmenter must be of a node: two points, chosen on patients that it has not seen.

`balanced` is kept in the segmenter's last bias, so that every program that runs the model runs it there;
`sensitive` is a shift of the nodes' logit against it, and stands on the card with the whole FROC curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from aiene.segment.segmenter import load_segmenter
from tools.default_bundle.bundle_card import MIRRORING
from tools.default_bundle.curve import LARGE_MM, OFFSETS, CropCounts, counts_of
from tools.default_bundle.growing_store import GrowingStore

FALSE_PER_CASE = {"balanced": 0.9, "sensitive": 4.0}
"""Most false nodes a case at each point: the issue of the balanced one is trust, of the sensitive one that a
reader who looks at everything misses little. The kept-out CTs have 1.1 to 1.4 times as many as these eight
patients (1.27 and 1.52 against 1.13 with 7,052 steps); balanced aims at about one there."""


class Point(NamedTuple):
    """What an offset, taken off the nodes' logit, gives on the validation crops.

    Parameters
    ----------
    sensitivity_10_mm : of nodes of 10 mm and more in short axis.
    """

    offset: float
    sensitivity: float
    sensitivity_10_mm: float
    false_per_case: float
    dice: float


@dataclass(frozen=True)
class OperatingPoints:
    """The two points and the curve that they are chosen from.

    Parameters
    ----------
    points : by name.
    froc : at every offset, rising.
    """

    points: dict[str, Point]
    froc: tuple[Point, ...]

    @property
    def bias(self) -> float:
        """What is taken off the nodes' logit in the packed model: the balanced point's offset."""
        return self.points["balanced"].offset

    def card(self) -> dict[str, Any]:
        """For the card: offsets are against the packed model, so that balanced is 0."""

        def shown(point: Point) -> dict[str, float]:
            return {**point._asdict(), "offset": round(point.offset - self.bias, 3)}

        return {
            **{name: shown(point) for name, point in self.points.items()},
            "froc": [shown(point) for point in self.froc],
        }


def measured(stores: Sequence[Path], folder: Path, workers: int) -> list[CropCounts]:
    """Counts of every crop of some stores at every offset.

    Parameters
    ----------
    stores : folders of validation crops.
    folder : of the segmenter, without an offset in it.
    workers : processes of one thread.
    """
    jobs = [(store, k) for store in stores for k in range(len(GrowingStore(store)))]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(_of_crop, *zip(*jobs, strict=True), [folder] * len(jobs)))


def _of_crop(store: Path, number: int, folder: Path) -> CropCounts:
    torch.set_num_threads(1)
    crops = GrowingStore(store)
    segmenter = load_segmenter(folder, mirroring=MIRRORING)
    return counts_of(crops.whole(number), segmenter, crops.facts(number)["short_axes_mm"])


def froc(counts: Sequence[CropCounts], offsets: Sequence[float] = OFFSETS) -> tuple[Point, ...]:
    """Figures at every offset."""
    axes = np.array([a for c in counts for a in c.short_axes])
    dice = np.concatenate([c.dice for c in counts], axis=1)
    false = np.mean([c.false for c in counts], axis=0)
    large = axes >= LARGE_MM
    return tuple(
        Point(
            float(offset),
            round(float((dice[k] > 0).mean()), 4),
            round(float((dice[k][large] > 0).mean()), 4),
            round(float(false[k]), 4),
            round(float(dice[k][dice[k] > 0].mean()), 4) if (dice[k] > 0).any() else 0.0,
        )
        for k, offset in enumerate(offsets)
    )


def chosen(curve: Sequence[Point]) -> OperatingPoints:
    """Of each name the lowest offset whose false nodes are few enough; the highest where none is."""
    points = {
        name: next((p for p in curve if p.false_per_case <= most), curve[-1])
        for name, most in FALSE_PER_CASE.items()
    }
    return OperatingPoints(points, tuple(curve))
