"""The default bundle's operating points and which nodes count: chosen on validation patients, onto its card.

    python -m tools.default_bundle.choose_points --work DIR [--processes 2]

Measures the packed bundle on the validation crops of a long training (`long_training.py crops`), by both
planters and CTs as they are, and writes the card anew: the sensitive operating point and the whole FROC curve
against the weights as they are, and the least `pos` of a node that counts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from aiene.classify.classifier import load_dualnet
from aiene.models.bundle import read_bundle
from aiene.segment.segmenter import load_bundle_segmenter
from tools.default_bundle import fit_classifier
from tools.default_bundle.bundle_card import DEFAULT_BUNDLE, KEPT, stored
from tools.default_bundle.curve import CropCounts, counts_of
from tools.default_bundle.growing_store import GrowingStore
from tools.default_bundle.long_training import crops_folder
from tools.default_bundle.operating_point import OperatingPoints, chosen, froc

OFFSETS = (-6.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 6.0)
"""Of the FROC curve, against the weights as they are."""
KINDS = ("disease", "round", "plain")


class Measured(NamedTuple):
    """One crop.

    Parameters
    ----------
    counts : at every offset; None for a CT as it is.
    pos : (n, 2), of each found node what the classifier gives and whether it is a planted one.
    """

    counts: CropCounts | None
    pos: npt.NDArray[np.float64]


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="work folder of the long training")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    folders = [crops_folder(options.work) / "validation" / kind for kind in KINDS]
    jobs = [(folder, k) for folder in folders for k in range(len(GrowingStore(folder)))]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        measured = list(pool.map(of_crop, *zip(*jobs, strict=True)))
    points = at_the_weights(froc([m.counts for m in measured if m.counts is not None], OFFSETS))
    counting = counting_of(np.concatenate([m.pos for m in measured]))
    print(json.dumps({**points.card(), "counting": counting}, indent=1))
    stored(DEFAULT_BUNDLE, "operating_point", points.card())
    stored(DEFAULT_BUNDLE, "counting", counting)


def of_crop(store: Path, number: int) -> Measured:
    """One validation crop by the packed bundle, in a process of its own."""
    torch.set_num_threads(1)
    crops, bundle = GrowingStore(store), read_bundle(DEFAULT_BUNDLE)
    segmenter, net = load_bundle_segmenter(bundle), load_dualnet(bundle.classifier_folder)
    crop = crops.whole(number)
    counts = None
    if store.name != "plain":
        counts = counts_of(crop, segmenter, crops.facts(number)["short_axes_mm"], OFFSETS)
    found = fit_classifier.found_nodes(crop, segmenter)
    pos = fit_classifier.scores(net, found)[:, 0]
    return Measured(counts, np.column_stack([pos, [n.pos for n in found]]))


def at_the_weights(curve: Sequence[Any]) -> OperatingPoints:
    """The points of weights that already stand at the balanced one."""
    sensitive = chosen(curve).points["sensitive"]
    balanced = next(point for point in curve if point.offset == 0)
    return OperatingPoints(
        {"balanced": balanced, "sensitive": min(sensitive, balanced, key=lambda p: p.offset)}, tuple(curve)
    )


def counting_of(pos: npt.NDArray[np.float64], kept: float = KEPT) -> dict[str, Any]:
    """The highest least `pos` (two decimals) that keeps such a share of the planted nodes; what it brings.

    Parameters
    ----------
    pos : (n, 2), what the classifier gives, and 1 for a planted node, 0 for a hard negative: anything else
        that the segmenter takes for one.
    """
    true, false = (np.sort(pos[pos[:, 1] == value, 0]) for value in (1, 0))
    if not len(true):
        raise ValueError("no planted node was found, so no least `pos` can be chosen")
    most_lost = int((1 - kept) * len(true) + 1e-9)
    least = float(np.floor(true[most_lost] * 100) / 100)
    return {
        "pos_from": least,
        "planted_nodes": len(true),
        "planted_nodes_that_count": round(float((true >= least).mean()), 3),
        "hard_negatives": len(false),
        "hard_negatives_that_count": round(float((false >= least).mean()), 3) if len(false) else None,
    }


if __name__ == "__main__":
    main()
