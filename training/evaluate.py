"""How well a bundle's segmenter finds nodes in real CTs that it has never seen; stored with the bundle.

    python training/evaluate.py --openkbp DIR [--bundle NAME] [--plantings 2] [-o FILE]

Every CT goes the whole road from its native grid. On real CTs the high-dose target, where real tumour lies
that nobody outlined, counts for nothing: neither as a hit nor as a false node. Found and false are as in
`evaluate_default.py`, which judges on phantoms, extension too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from aiene.errors import CaseError
from aiene.geometry import RigidTransform, Volume, pull_labels
from aiene.ingest.case import NativeCt
from aiene.models.store import find_bundle
from aiene.nodes import Node, split_nodes
from aiene.pipeline import Networks, Preparation, load_networks, load_preparation
from aiene.prepare import Prepared, prepare
from disturb import DISTURBANCES, Disturbed
from matching import match
from real_crops import mark, read_patient, real_patients
from real_planting import Patient, RealNode, decoys, draw_nodes, planted

SEED = 7_000_000
SIZES = {"under 10 mm": (0.0, 10.0), "10 to 15 mm": (10.0, 15.0), "over 15 mm": (15.0, 1e9)}
"""By short axis of the planted ellipsoid."""
CHANCE_DRAWS = 100


@dataclass(frozen=True, eq=False)
class Judged:
    """One CT's found nodes against the planted ones.

    Parameters
    ----------
    short_axes : mm, of every planted node that lies in the crop.
    dice : of its partner; 0 where it was missed.
    false : found nodes that are no planted one, nor lie by more than a third in the real patient's target.
    fragments : further parts of planted nodes that are found.
    """

    short_axes: list[float]
    dice: list[float]
    false: int
    fragments: int


@dataclass(frozen=True, eq=False)
class Found:
    """What the road gives of one CT: its crop, the nodes, and where the segmenter sees nodes at all."""

    prepared: Prepared
    nodes: list[Node]
    segmented: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Road:
    """The bundle, loaded."""

    preparation: Preparation
    networks: Networks

    def look(self, ct: Volume) -> Found:
        """Every node that is found in a CT.

        Raises
        ------
        CaseError : no neck.
        """
        prepared = prepare(NativeCt(ct, 2), self.preparation.template, self.preparation.profile)
        if self.networks.segmenter is None:
            raise ValueError("a bundle without a segmenter")
        labels = self.networks.segmenter(prepared.crop)
        nodes = split_nodes(labels, fg_labels=(2,), axes=False)
        return Found(prepared, nodes, labels.array == 2)


def main() -> None:
    """Evaluate, print and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--openkbp", type=Path, required=True)
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--plantings", type=int, default=2)
    parser.add_argument("--no-robustness", action="store_true", help="leave out the disturbed CTs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bundle = find_bundle(options.bundle)
    preparation = load_preparation(bundle)
    road = Road(preparation, load_networks(bundle, torch.device("cpu"), own_masks=False))
    _, kept = real_patients(options.openkbp)
    patients = {p: read_patient(options.openkbp, p, preparation.template) for p in kept}
    planted_cts = list(_planted(patients, options.plantings))
    figures: dict[str, Any] = {
        "command": f"python training/evaluate.py --openkbp DIR --plantings {options.plantings}",
        "segmenter_sha256": bundle.card.files["segmenter/fold_0/checkpoint_final.pth"],
        "kept_out": kept,
    }
    figures["planted_in_real"] = _told("planted in real CTs", _summary(_judge_all(road, planted_cts)))
    if not options.no_robustness:
        figures["robustness"] = {
            name: _told(name, _summary(_judge_all(road, planted_cts, change)))
            for name, change in DISTURBANCES.items()
        }
    figures["blank_plantings"] = _told("blank", _blank(road, patients))
    figures["real_nodes"] = _told("real nodes", _real_nodes(road, patients))
    if options.out is not None:
        options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _told(name: str, value: dict[str, Any]) -> dict[str, Any]:
    print(f"{name}: {json.dumps(value)}", flush=True)
    return value


@dataclass(frozen=True, eq=False)
class PlantedCt:
    """A kept-out CT with nodes planted into it."""

    patient: Patient
    ct: Volume
    nodes: list[RealNode]


def _planted(patients: dict[str, Patient], plantings: int) -> Iterable[PlantedCt]:
    for number, patient in enumerate(patients.values()):
        for k in range(plantings):
            rng = np.random.default_rng((SEED, number, k))
            nodes = draw_nodes(patient, rng, int(rng.integers(1, 7)), 0.3)
            ct = planted(patient, [*(n.lesion for n in nodes), *decoys(patient, rng)], rng)
            yield PlantedCt(patient, ct, nodes)


def _judge_all(
    road: Road, cases: list[PlantedCt], change: Callable[[Volume], Disturbed] | None = None
) -> list[Judged | None]:
    return [_judge(road, case, change) for case in cases]


def _judge(road: Road, case: PlantedCt, change: Callable[[Volume], Disturbed] | None) -> Judged | None:
    """None where the road found no neck."""
    ct, back = change(case.ct) if change else (case.ct, RigidTransform())
    try:
        found = road.look(ct)
    except CaseError:
        return None
    place = replace(found.prepared, to_native=back.after(found.prepared.to_native))
    shape = place.crop.grid.size
    labels, numbers = np.zeros(shape, dtype=np.uint8), np.zeros(shape, dtype=np.uint8)
    for number, node in enumerate(case.nodes, start=1):
        mark(labels, numbers, node.lesion, place, number)
    matched = match([n.mask for n in found.nodes], numbers, segmented=found.segmented)
    target = _on_crop(case.patient.target, case.patient, place)
    there = [k for k in range(1, len(case.nodes) + 1) if (numbers == k).any()]
    return Judged(
        [case.nodes[k - 1].short_axis_mm for k in there],
        [matched.dice.get(k, 0.0) for k in there],
        sum(target[found.nodes[f].mask].mean() <= 1 / 3 for f in matched.false),
        len(matched.fragments),
    )


def _summary(results: list[Judged | None]) -> dict[str, Any]:
    done = [r for r in results if r is not None]
    axes = np.array([a for r in done for a in r.short_axes])
    dice = np.array([d for r in done for d in r.dice])
    false = np.array([r.false for r in done])
    by_size = {
        name: {"nodes": int(chosen.sum()), "found": int((dice[chosen] > 0).sum())}
        for name, (low, high) in SIZES.items()
        if (chosen := (axes >= low) & (axes < high)).any()
    }
    large = axes >= 10
    return {
        "cases": len(results),
        "cases_failed": len(results) - len(done),
        "nodes": len(axes),
        "sensitivity": round(float((dice > 0).mean()), 3),
        "sensitivity_10_mm_and_more": round(float((dice[large] > 0).mean()), 3),
        "by_short_axis": by_size,
        "false_nodes_per_case": round(float(false.mean()), 3),
        "false_nodes_median": float(np.median(false)),
        "fragments_per_case": round(float(np.mean([r.fragments for r in done])), 3),
        "dice_per_found_node": round(float(dice[dice > 0].mean()), 3) if (dice > 0).any() else None,
    }


def _blank(road: Road, patients: dict[str, Patient]) -> dict[str, Any]:
    """The planting done without a node: how many places hold a found node that was not there before."""
    places = new = 0
    for number, patient in enumerate(patients.values()):
        rng = np.random.default_rng((SEED + 1, number))
        nodes = draw_nodes(patient, rng, 5, 0.3)
        ct = planted(patient, [n.lesion for n in nodes], rng, blank=True)
        try:
            after, before = road.look(ct), road.look(_plain(patient))
        except CaseError:
            continue
        for node in nodes:
            places += 1
            new += _covered(node, after) and not _covered(node, before)
    return {"places": places, "new_nodes_found": new}


def _covered(node: RealNode, found: Found) -> bool:
    numbers = np.zeros(found.prepared.crop.grid.size, dtype=np.uint8)
    mark(np.zeros_like(numbers), numbers, node.lesion, found.prepared, 1)
    return 1 in match([n.mask for n in found.nodes], numbers, segmented=found.segmented).dice


def _plain(patient: Patient) -> Volume:
    """The CT as it was read."""
    return patient.ct.with_array(np.rint(patient.ct.array).astype(np.int16))


def _real_nodes(road: Road, patients: dict[str, Patient]) -> dict[str, Any]:
    """Real CTs as they are: does what is found lie where the doctors saw tumour, more than by chance?"""
    rng = np.random.default_rng(SEED + 2)
    inside, chance, anywhere, counts = [], [], [], []
    for patient in patients.values():
        try:
            found = road.look(_plain(patient))
        except CaseError:
            continue
        nodes, prepared = found.nodes, found.prepared
        target = _on_crop(patient.target, patient, prepared)
        counts.append(len(nodes))
        volume = sum(int(n.mask.sum()) for n in nodes)
        hit = sum(int(target[n.mask].sum()) for n in nodes)
        anywhere.append(any(target[n.mask].mean() > 0.5 for n in nodes))
        if volume:
            inside.append(hit / volume)
            chance.append(_by_chance(nodes, target, prepared, rng))
    return {
        "patients": len(counts),
        "nodes_per_patient_median": float(np.median(counts)),
        "share_of_found_volume_in_high_dose_target": round(float(np.mean(inside)), 3),
        "the_same_by_chance": round(float(np.mean(chance)), 3),
        "patients_with_a_node_in_the_target": round(float(np.mean(anywhere)), 3),
        "chance": f"the same blobs at {CHANCE_DRAWS} random places of the neck's soft tissue",
    }


def _by_chance(
    nodes: list[Node], target: npt.NDArray[np.bool_], prepared: Prepared, rng: np.random.Generator
) -> float:
    soft = ndimage.binary_erosion((prepared.crop.array > 0.35) & (prepared.crop.array < 0.75))
    places = np.argwhere(soft)
    shares, weights = [], []
    for node in nodes:
        voxels = np.argwhere(node.mask)
        voxels = voxels - voxels.mean(axis=0).round().astype(int)
        for _ in range(CHANCE_DRAWS // 10):
            moved = voxels + places[int(rng.integers(len(places)))]
            inside = ((moved >= 0) & (moved < np.array(target.shape))).all(axis=1)
            hit = target[tuple(moved[inside].T)]
            shares.append(float(hit.sum() / len(voxels)))
            weights.append(len(voxels))
    return float(np.average(shares, weights=weights))


def _on_crop(mask: npt.NDArray[np.bool_], patient: Patient, prepared: Prepared) -> npt.NDArray[np.bool_]:
    on_grid = Volume(mask.astype(np.uint8), patient.ct.grid)
    return pull_labels(on_grid, prepared.crop.grid, world=prepared.to_native).array > 0


if __name__ == "__main__":
    main()
