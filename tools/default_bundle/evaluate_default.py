"""Judge the default bundle on phantoms that it has never seen, and write the figures onto its cards.

    python -m tools.default_bundle.evaluate_default
    python -m tools.default_bundle.evaluate_default --first-seed 91000 --store-as second_evaluation

Each phantom goes the whole road of the package: prepare, segment, split, classify. A planted node counts as
found where one found node, used once, holds at least 30 % of its voxels on the crop (`matching`); planted
nodes that the crop does not hold count as missed. A found node is false where less than a tenth of it lies in
planted nodes; further parts of a planted node are fragments and are counted by themselves.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aiene.classify.classifier import Classifier, load_bundle_classifier
from aiene.errors import CaseError
from aiene.ingest.case import NativeCt
from aiene.models.bundle import Bundle, read_bundle, verify_bundle
from aiene.nodes.split import split_nodes
from aiene.phantom.phantom import make_phantom
from aiene.preprocess.preprocess import prepare, read_template
from aiene.preprocess.profile import profile_named
from aiene.preprocess.registration import Template
from aiene.segment.segmenter import Segmenter, load_bundle_segmenter
from tools.default_bundle.bundle_card import DEFAULT_BUNDLE, stored
from tools.default_bundle.figures import auc_interval
from tools.default_bundle.matching import match
from tools.default_bundle.organs import NODE
from tools.default_bundle.phantom_crops import TEST_SEED, on_crop, scan_settings


@dataclass(frozen=True)
class Road:
    """Everything of a bundle that a case needs."""

    bundle: Bundle
    template: Template
    segmenter: Segmenter
    classifier: Classifier


@dataclass(frozen=True)
class CaseFigures:
    """What became of one phantom.

    Parameters
    ----------
    planted : planted nodes.
    found : of these, how many were found.
    false, fragments : found nodes that are none, and further parts of planted ones.
    missed_mm : mean diameter (mm) of each node that was not found.
    dice : of each found node.
    rows : (strength of ENE signs, pos, ene) of each found planted node.
    false_pos : `pos` of each false node.
    seconds : wall time of the road.
    """

    planted: int
    found: int
    false: int
    fragments: int
    missed_mm: tuple[float, ...]
    dice: tuple[float, ...]
    rows: tuple[tuple[float, float, float], ...]
    false_pos: tuple[float, ...]
    seconds: float


def load_road(path: Path) -> Road:
    """A bundle's template and networks on the CPU."""
    bundle = read_bundle(path)
    verify_bundle(bundle)
    card = bundle.card
    profile = profile_named(card.profile, rescue=card.rescue_registration)
    cpu = torch.device("cpu")
    return Road(
        bundle,
        read_template(bundle.template_file, profile, card.neck_centre_lps_mm),
        load_bundle_segmenter(bundle, cpu),
        load_bundle_classifier(bundle, cpu),
    )


def judge(seed: int, road: Road) -> CaseFigures:
    """One unseen phantom through the road.

    Raises
    ------
    CaseError : the road gives no result.
    """
    card = road.bundle.card
    phantom = make_phantom(seed, scan_settings(seed))
    began = time.monotonic()
    profile = profile_named(card.profile, rescue=card.rescue_registration)
    prepared = prepare(NativeCt(phantom.ct, 2), road.template, profile)
    found = road.segmenter.predict(prepared.crop)
    nodes = split_nodes(found, fg_labels=(NODE,), axes=False)
    scores = road.classifier.scores(prepared.crop, nodes)
    seconds = time.monotonic() - began
    numbers = on_crop(phantom.node_map, prepared)
    matched = match([n.mask for n in nodes], numbers, segmented=found.array == NODE)
    rows = []
    for partner, score in zip(matched.partner, scores, strict=True):
        if partner and score is not None:
            rows.append((phantom.nodes[partner - 1].ene_strength, score.pos, score.ene))
    missed = [n for n in phantom.nodes if n.label not in matched.dice]
    return CaseFigures(
        planted=len(phantom.nodes),
        found=len(matched.dice),
        false=len(matched.false),
        fragments=len(matched.fragments),
        missed_mm=tuple(round(2 * float(np.prod(n.radii)) ** (1 / 3), 1) for n in missed),
        dice=tuple(matched.dice.values()),
        rows=tuple(rows),
        false_pos=tuple(s.pos for k in matched.false if (s := scores[k]) is not None),
        seconds=seconds,
    )


def summary(cases: list[CaseFigures], threshold: float, failed: int, first_seed: int) -> dict[str, Any]:
    """The figures of all cases, ready for JSON."""
    planted, found = sum(c.planted for c in cases), sum(c.found for c in cases)
    rows = np.array([r for c in cases for r in c.rows]).reshape(-1, 3)
    groups = np.repeat(np.arange(len(cases)), [len(c.rows) for c in cases])
    truth, ene = rows[:, 0] > 0, rows[:, 2]
    area = auc_interval(ene, truth, groups)
    dice = np.array([d for c in cases for d in c.dice])
    return {
        "cases": len(cases),
        "cases_failed": failed,
        "first_seed": first_seed,
        "planted_nodes": planted,
        "found_nodes": found,
        "sensitivity": _rounded(found / planted),
        "false_nodes_per_case": _rounded(sum(c.false for c in cases) / len(cases)),
        "fragments_per_case": _rounded(sum(c.fragments for c in cases) / len(cases)),
        "missed_diameters_mm": sorted(d for c in cases for d in c.missed_mm),
        "dice_per_found_node_mean": _rounded(dice.mean()),
        "dice_per_found_node_quartiles": [_rounded(q) for q in np.percentile(dice, [25, 50, 75])],
        "ene_nodes": int(truth.sum()),
        "ene_auc": _rounded(area.value),
        "ene_auc_95": [_rounded(area.low), _rounded(area.high)],
        "ene_sensitivity_at_threshold": _rounded((ene[truth] > threshold).mean()),
        "ene_specificity_at_threshold": _rounded((ene[~truth] <= threshold).mean()),
        "pos_of_found_nodes_median": _rounded(np.median(rows[:, 1])),
        "pos_of_false_nodes": [_rounded(p) for c in cases for p in c.false_pos],
        "seconds_per_case_median": _rounded(np.median([c.seconds for c in cases])),
    }


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 4)


def run(road: Road, count: int, first_seed: int = TEST_SEED) -> tuple[dict[str, Any], list[CaseFigures]]:
    """Judge that many unseen phantoms."""
    cases: list[CaseFigures] = []
    failed = 0
    for seed in range(first_seed, first_seed + count):
        try:
            case = judge(seed, road)
        except CaseError as error:
            failed += 1
            print(f"{seed}: {error}", flush=True)
            continue
        cases.append(case)
        print(
            f"{seed}: {case.found} of {case.planted} found, {case.false} false, {case.fragments} fragments, "
            f"{case.seconds:.1f} s",
            flush=True,
        )
    return summary(cases, road.bundle.card.ene_threshold, failed, first_seed), cases


def main() -> None:
    """Run it, and write the figures onto the bundle's cards."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=TEST_SEED)
    parser.add_argument("--store-as", default="evaluation", help="name of these figures on the card")
    parser.add_argument("--dry-run", action="store_true", help="leave the bundle's cards as they are")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    road = load_road(DEFAULT_BUNDLE)
    figures, _ = run(road, options.cases, options.first_seed)
    print(json.dumps(figures, indent=2))
    if not options.dry_run:
        stored(DEFAULT_BUNDLE, options.store_as, figures)


if __name__ == "__main__":
    main()
