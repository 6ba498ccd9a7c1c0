"""How the default bundle judges extension by the strength of its signs, on necks that it has never seen.

    python -m tools.default_bundle.evaluate_ene [--necks 40] [--dry-run]

Phantoms of necks at 0.5 to 1 mm in plane. Half of the nodes without extension look a little like it
(lobulated, inflamed), and the weakest extension shows no more than they do: there a certain answer is wrong.
Nodes are those that the bundle's own segmenter finds. Figures go onto the bundle's card.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from aiene.classify.classifier import ClassifierInputs, load_bundle_classifier
from aiene.models.bundle import read_bundle
from aiene.segment.segmenter import load_bundle_segmenter
from aiene.training.classifier_fit import reliability
from tools.default_bundle import fit_classifier
from tools.default_bundle.bundle_card import DEFAULT_BUNDLE, stored
from tools.default_bundle.figures import auc, auc_interval
from tools.default_bundle.phantom_crops import NECK_TEST_SEED, make_neck_crop

STRENGTHS = {"weak": (0.0, 0.3), "plain": (0.3, 0.6), "strong": (0.6, 1.01)}
"""Signs of extension over the first and up to the second bound."""
CERTAIN = 0.95
CALIBRATION_BINS = 5

Floats = npt.NDArray[np.float64]


def main() -> None:
    """Judge, print and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--necks", type=int, default=40)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--dry-run", action="store_true", help="leave the bundle's cards as they are")
    options = parser.parse_args()
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        rows = list(pool.map(of_neck, range(NECK_TEST_SEED, NECK_TEST_SEED + options.necks)))
    groups = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    threshold = read_bundle(DEFAULT_BUNDLE).card.ene_threshold
    figures = {
        "command": f"python -m tools.default_bundle.evaluate_ene --necks {options.necks}",
        "necks": options.necks,
        **figures_of(np.concatenate(rows), groups, threshold),
    }
    print(json.dumps(figures, indent=2))
    if not options.dry_run:
        stored(DEFAULT_BUNDLE, "ene_evaluation", figures)


def of_neck(seed: int) -> Floats:
    """(n, 2): strength of the signs and probability of extension of each planted node that is found."""
    torch.set_num_threads(1)
    bundle = read_bundle(DEFAULT_BUNDLE)
    segmenter = load_bundle_segmenter(bundle)
    classifier = load_bundle_classifier(bundle, "cpu")
    found = [n for n in fit_classifier.found_nodes(make_neck_crop(seed), segmenter) if n.pos == 1]
    inputs = [ClassifierInputs(n.box.astype(np.float32), n.small.astype(np.float32)) for n in found]
    ene = classifier.probabilities(inputs)[:, 1]
    return np.column_stack([[n.strength for n in found], ene]).reshape(-1, 2)


def figures_of(rows: Floats, groups: npt.NDArray[np.int64], threshold: float) -> dict[str, Any]:
    """AUC, calibration, and what becomes of each strength, ready for JSON.

    Parameters
    ----------
    rows : (n, 2) strength of the signs, probability.
    groups : number of each row's patient.
    """
    strength, ene = rows.T
    truth = strength > 0
    area = auc_interval(ene, truth, groups)
    fifths = reliability(ene, truth.astype(np.float64), CALIBRATION_BINS)
    by_strength = {"none": _of_group(ene[~truth], threshold)}
    for name, (low, high) in STRENGTHS.items():
        chosen = (strength > low) & (strength <= high)
        if chosen.any():
            area_here = auc(ene[chosen | ~truth], truth[chosen | ~truth])
            by_strength[name] = {
                **_of_group(ene[chosen], threshold),
                "auc_against_none": _rounded(area_here),
            }
    return {
        "nodes": len(ene),
        "ene_nodes": int(truth.sum()),
        "auc": _rounded(area.value),
        "auc_95": [_rounded(area.low), _rounded(area.high)],
        "brier": _rounded(np.mean((ene - truth) ** 2)),
        "expected_calibration_error": _rounded(
            np.average(
                [abs(one["predicted"] - one["observed"]) for one in fifths],
                weights=[one["n"] for one in fifths],
            )
        ),
        "calibration": [{name: _rounded(value) for name, value in one.items()} for one in fifths],
        "certain": CERTAIN,
        "by_strength": by_strength,
    }


def _of_group(ene: Floats, threshold: float) -> dict[str, Any]:
    return {
        "nodes": len(ene),
        "mean_probability": _rounded(ene.mean()),
        "called": _rounded((ene > threshold).mean()),
        "certain_yes": _rounded((ene > CERTAIN).mean()),
        "certain_no": _rounded((ene < 1 - CERTAIN).mean()),
    }


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 3)


if __name__ == "__main__":
    main()
