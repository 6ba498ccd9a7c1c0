"""How well a bundle finds nodes in real CTs that it has never seen; `--store` puts it onto its card.

    python -m tools.default_bundle.evaluate --openkbp DIR [--bundle NAME] [--plantings 3]
                                              [--no-robustness] [--store]

Each CT is planted by two planters: the older one (round, independent nodes), and by real numbers (`disease`).

Every CT goes the whole road from its native grid. On real CTs the high-dose target, where real tumour lies
that nobody outlined, counts for nothing: neither as a hit nor as a false node. Found and false are as in
`evaluate_default.py`, which judges on phantoms. `evaluate_ene.py` judges the signs of extension.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from aiene.models.bundle import find_bundle
from tools.default_bundle.bundle_card import AS_IT_IS, DEFAULT_BUNDLE, stored
from tools.default_bundle.disturb import DISTURBANCES
from tools.default_bundle.hosts import read_host
from tools.default_bundle.judging import (
    Judged,
    JudgedNode,
    Unplanted,
    blank_places,
    diseased_cts,
    judge,
    load_road,
    planted_cts,
    unplanted,
)
from tools.default_bundle.matching import LEAST_OF_PRIMARY
from tools.default_bundle.real_crops import read_patient, real_patients

SIZES = {"under 10 mm": (0.0, 10.0), "10 to 15 mm": (10.0, 15.0), "over 15 mm": (15.0, 1e9)}
"""By short axis of the planted node."""
GROUPS: dict[str, Callable[[JudgedNode], str]] = {
    "by_voxels_across": lambda n: "under 3" if n.voxels < 3 else "3 to 5" if n.voxels < 5 else "5 and more",
    "by_level": lambda n: n.level,
    "by_contrast": lambda n: (
        "under muscle"
        if n.above_muscle_hu < -3
        else "as muscle"
        if n.above_muscle_hu < 10
        else "above muscle"
    ),
    "by_enhancement": lambda n: {None: "not judged", True: "enhanced", False: "plain"}[n.enhanced],
}
"""Further groups of planted nodes: short axis in the CT's voxels, level, HU, contrast medium."""
LEAST_VOXELS = 3.0
"""A short axis of fewer voxels can hardly be seen: the aim counts nodes from it on."""
SURE = 0.5
"""From this `pos` on the classifier rather takes it for a node than not: told beside the rule."""


@dataclass(frozen=True)
class PatientFigures:
    """One kept-out patient.

    Parameters
    ----------
    judged : by disturbance and planting, disturbed the first planting alone; None where no neck was found.
    diseased : planted by real numbers.
    blank : places of plantings without a node, and how many of them were called one.
    real : the CT without plantings: every found node, and those that count.
    """

    judged: dict[str, list[Judged | None]]
    diseased: list[Judged | None]
    blank: tuple[int, int]
    real: tuple[Unplanted, Unplanted] | None


def main() -> None:
    """Evaluate, print and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--openkbp", type=Path, required=True)
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--plantings", type=int, default=3, help="of each planter in each CT")
    parser.add_argument("--no-robustness", action="store_true", help="leave out the disturbed CTs")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--store", action="store_true", help="put the figures onto the default bundle's card")
    options = parser.parse_args()
    began = time.monotonic()
    kept = real_patients(options.openkbp).kept_out
    changes = [AS_IT_IS, *(() if options.no_robustness else DISTURBANCES)]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(of_patient, options.openkbp, p, n, options.bundle, options.plantings, changes)
            for n, p in enumerate(kept)
        ]
        patients = [job.result() for job in jobs]
    words = f"--plantings {options.plantings}{' --no-robustness' if options.no_robustness else ''}"
    card = find_bundle(options.bundle).card
    figures = {
        "command": f"python -m tools.default_bundle.evaluate --openkbp DIR {words}",
        "segmenter_sha256": card.files["segmenter/fold_0/checkpoint_final.pth"],
        "pos_from": card.pos_from,
        "kept_out": kept,
        **figures_of(patients, changes, card.pos_from),
    }
    print(json.dumps(figures, indent=2))
    print(f"{time.monotonic() - began:.0f} s")
    if options.store:
        stored(DEFAULT_BUNDLE, "real_evaluation", figures)


def of_patient(
    openkbp: Path, patient: str, number: int, bundle: str, plantings: int, changes: list[str]
) -> PatientFigures:
    """Everything of one patient, in a process of its own."""
    road = load_road(bundle)
    known = read_patient(openkbp, patient, road.preparation.template)
    cases = list(planted_cts(known, number, plantings))
    judged = {
        name: [judge(road, case) for case in cases]
        if name == AS_IT_IS
        else [judge(road, cases[0], DISTURBANCES[name])]
        for name in changes
    }
    host = read_host(openkbp / patient, road.preparation.template)
    diseased = [judge(road, case) for case in diseased_cts(host, number, plantings)]
    print(f"{patient} done", flush=True)
    return PatientFigures(judged, diseased, blank_places(road, known, number), unplanted(road, known, number))


def figures_of(patients: list[PatientFigures], changes: list[str], pos_from: float) -> dict[str, Any]:
    """All figures, ready for JSON."""
    disturbed = {name: summary([p.judged[name][0] for p in patients], pos_from) for name in changes}
    return {
        "planted_in_real": summary([j for p in patients for j in p.judged[AS_IT_IS]], pos_from),
        "planted_by_real_numbers": summary([j for p in patients for j in p.diseased], pos_from),
        "robustness": disturbed if len(changes) > 1 else {},
        "blank_plantings": {
            "places": sum(p.blank[0] for p in patients),
            "new_nodes_found": sum(p.blank[1] for p in patients),
        },
        "real_nodes": _real_nodes([p.real[0] for p in patients if p.real is not None]),
        "real_nodes_that_count": _real_nodes([p.real[1] for p in patients if p.real is not None]),
    }


def summary(results: list[Judged | None], pos_from: float) -> dict[str, Any]:
    """Of one kind of CTs: every found node, and those from `pos_from` and from `SURE` on."""
    done = [r for r in results if r is not None]
    nodes = [n for r in done for n in r.nodes]
    axes = np.array([n.short_axis_mm for n in nodes])
    dice = np.array([n.dice for n in nodes])
    false = np.array([r.false for r in done])
    by_size = {
        name: {"nodes": int(chosen.sum()), "found": int((dice[chosen] > 0).sum())}
        for name, (low, high) in SIZES.items()
        if (chosen := (axes >= low) & (axes < high)).any()
    }
    primaries = [r.primary for r in done if r.primary is not None]
    return {
        "cases": len(results),
        "cases_failed": len(results) - len(done),
        "nodes": len(axes),
        "sensitivity": _rounded((dice > 0).mean()),
        **_from(0.0, done),
        "by_short_axis": by_size,
        **{name: _counted(nodes, group) for name, group in GROUPS.items()},
        "primaries": len(primaries),
        "primaries_found": _rounded(np.mean([p >= LEAST_OF_PRIMARY for p in primaries]))
        if primaries
        else None,
        "false_primaries_per_case": _rounded(np.mean([r.false_primaries for r in done])),
        "false_nodes_median": float(np.median(false)),
        "fragments_per_case": _rounded(np.mean([r.fragments for r in done])),
        "dice_per_found_node": _rounded(dice[dice > 0].mean()) if (dice > 0).any() else None,
        "dice_of_a_perfect_hand": _mean([n.drawn for n in nodes if n.dice > 0]),
        "by_pos": [{"pos_from": pos, **_from(pos, done)} for pos in sorted({pos_from, SURE})],
        "false_ene_nodes_per_case": _rounded(np.mean([r.false_ene for r in done])),
    }


def _from(pos: float, done: list[Judged]) -> dict[str, float | None]:
    """What is found, and falsely found, of nodes with such a `pos` or a higher one; 0 takes every node."""
    large = [n for r in done for n in r.nodes if n.short_axis_mm >= 10]
    found = np.array([n.dice > 0 and n.pos >= pos for n in large])
    seen = np.array([n.voxels >= LEAST_VOXELS for n in large])
    return {
        "sensitivity_10_mm_and_more": _rounded(found.mean()),
        "sensitivity_10_mm_and_3_voxels": _rounded(found[seen].mean()) if seen.any() else None,
        "false_nodes_per_case": _rounded(np.mean([sum(p >= pos for p in r.false_pos) for r in done])),
    }


def _counted(nodes: list[JudgedNode], group: Callable[[JudgedNode], str]) -> dict[str, dict[str, int]]:
    """How many nodes of each group there are, and how many are found."""
    counts: dict[str, dict[str, int]] = {}
    for node in nodes:
        one = counts.setdefault(group(node), {"nodes": 0, "found": 0})
        one["nodes"] += 1
        one["found"] += node.dice > 0
    return dict(sorted(counts.items()))


def _real_nodes(real: list[Unplanted]) -> dict[str, Any]:
    some = [r for r in real if r.volume]
    return {
        "patients": len(real),
        "nodes_per_patient_median": float(np.median([r.nodes for r in real])),
        "share_of_found_volume_in_high_dose_target": _mean([r.hit / r.volume for r in some]),
        "the_same_by_chance": _mean([r.chance for r in some]),
        "by_chance_at_like_places": _mean([r.chance_matched for r in some]),
        "patients_with_a_node_in_the_target": _rounded(np.mean([r.anywhere for r in real])),
        "chance": "each blob at 10 random places of the neck's soft tissue",
        "like_places": "10 random places each, on either side, as bright to 10 HU, to 10 mm at its height "
        "and distance from the midline",
    }


def _mean(values: list[float]) -> float | None:
    return _rounded(np.mean(values)) if values else None


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 3)


if __name__ == "__main__":
    main()
