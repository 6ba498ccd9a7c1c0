"""How sure the segmenter must be of a node: two points, chosen on patients that it has not seen.

A node's contour and its find have a bar each (`Bar`): one bar for both would make sure nodes too small. The
contour's is kept in the segmenter's last bias, so that every program that runs the model draws the same; the
core that `balanced` asks for stands on the card, and `sensitive` as a shift against it with the whole curve.
A primary has a contour and a core of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from aiene.segment.segmenter import load_segmenter
from tools.default_bundle.bundle_card import MIRRORING
from tools.default_bundle.curve import LARGE_MM, PRIMARY_CONTOURS, Bar, CropCounts, counts_of
from tools.default_bundle.growing_store import GrowingStore
from tools.default_bundle.matching import LEAST_OF_PRIMARY

FALSE_PER_CASE = {"balanced": 0.9, "sensitive": 4.0}
"""Most false nodes a case at each point: the issue of the balanced one is trust, of the sensitive one that a
reader who looks at everything misses little. The kept-out CTs have 1.1 to 1.4 times as many as these eight
patients (1.27 and 1.52 against 1.13 with 7,052 steps); balanced aims at about one there."""
FALSE_PRIMARIES_PER_CASE = 0.05
"""Most pieces that are wrongly called a primary: a patient has one or none, so one in twenty patients."""
CONTOURS = (-2.0, -1.0, 0.0, 1.0)
"""About the network's own border, where its logits are equal."""
CORES = (0.0, 1.0, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0, 10.0)
"""Over the contour."""
BARS = tuple(Bar(contour, contour + core) for contour in CONTOURS for core in CORES)


class Point(NamedTuple):
    """What a bar for nodes gives on the validation crops.

    Parameters
    ----------
    offset : the core, over the contour or, on a card, against the balanced one.
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
    froc : at every core, rising.
    contour : what is taken off the nodes' logit in the packed model.
    """

    points: dict[str, Point]
    froc: tuple[Point, ...]
    contour: float = 0.0

    def card(self) -> dict[str, Any]:
        """For the card: offsets are against the balanced point, which is 0."""
        balanced = self.points["balanced"].offset

        def shown(point: Point) -> dict[str, float]:
            return {**point._asdict(), "offset": round(point.offset - balanced, 3)}

        return {
            **{name: shown(point) for name, point in self.points.items()},
            "froc": [shown(point) for point in self.froc],
        }


def measured(stores: Sequence[Path], folder: Path, workers: int) -> list[CropCounts]:
    """Counts of every crop of some stores at all of `BARS`.

    Parameters
    ----------
    stores : folders of validation crops.
    folder : of the segmenter as it was trained.
    workers : processes of one thread.
    """
    jobs = [(store, k) for store in stores for k in range(len(GrowingStore(store)))]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(_of_crop, *zip(*jobs, strict=True), [folder] * len(jobs)))


def _of_crop(store: Path, number: int, folder: Path) -> CropCounts:
    torch.set_num_threads(1)
    crops = GrowingStore(store)
    segmenter = load_segmenter(folder, mirroring=MIRRORING)
    return counts_of(crops.whole(number), segmenter, crops.facts(number)["short_axes_mm"], BARS)


def froc(counts: Sequence[CropCounts], offsets: Sequence[float]) -> tuple[Point, ...]:
    """Figures at every bar, by the name that each is given."""
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


def curves(counts: Sequence[CropCounts]) -> dict[float, tuple[Point, ...]]:
    """The curve at each of `CONTOURS`, of what was counted at `BARS`."""
    rows = froc(counts, [bar.core - bar.contour for bar in BARS])
    return {c: rows[k * len(CORES) : (k + 1) * len(CORES)] for k, c in enumerate(CONTOURS)}


def chosen(curves: Mapping[float, Sequence[Point]]) -> OperatingPoints:
    """The contour whose balanced point has the best mean Dice of all nodes, a missed one as 0.

    Each point is the lowest core whose false nodes are few enough; the highest where none is.

    Parameters
    ----------
    curves : by contour, cores rising.
    """
    found = [
        OperatingPoints({name: _quiet(curve, most) for name, most in FALSE_PER_CASE.items()}, tuple(curve), c)
        for c, curve in curves.items()
    ]
    return max(found, key=lambda f: f.points["balanced"].sensitivity * f.points["balanced"].dice)


def primary_contour(counts: Sequence[CropCounts]) -> float:
    """The contour with the best mean Dice of planted primaries, a missed one as 0; the border without any."""
    dice = [c.primary_dice for c in counts if c.primary_dice]
    return PRIMARY_CONTOURS[int(np.mean(dice, axis=0).argmax())] if dice else 0.0


def primary_core(counts: Sequence[CropCounts]) -> float:
    """Of primaries: few enough false pieces, and as many planted ones found as with the lowest such core.

    Of all cores that do that it is the middle one: with so few primaries each end of them stands beside a
    single crop. The highest there is, where every core leaves too many false pieces.
    """
    leads = [lead for c in counts for lead in c.false_primaries]
    most = FALSE_PRIMARIES_PER_CASE * len(counts)
    quiet = [core for core in CORES if sum(lead > core for lead in leads) <= most]
    if not quiet:
        return CORES[-1]
    drawn = [c for c in counts if c.primary is not None and c.primary >= LEAST_OF_PRIMARY]
    if not drawn:
        return quiet[0]
    found = [sum(c.primary_lead is not None and c.primary_lead > core for c in drawn) for core in quiet]
    alike = [core for core, number in zip(quiet, found, strict=True) if number == found[0]]
    return alike[len(alike) // 2]


def _quiet(curve: Sequence[Point], most: float) -> Point:
    return next((p for p in curve if p.false_per_case <= most), curve[-1])
