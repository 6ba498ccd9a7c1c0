"""Cohorts of judged cases without an image, for what must hold of every benchmark."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from aiene.benchmark.comparators.protocol import Entrant, ModelFacts
from aiene.benchmark.comparison import Models
from aiene.benchmark.config import BenchmarkConfig
from aiene.benchmark.counting import counted_records
from aiene.benchmark.records import (
    CaseRecord,
    FoundNode,
    LabelMetrics,
    NodeInfo,
    NodeMatch,
    NodePair,
    TruthNode,
    TruthRecord,
    size_class,
)

PLACE = (0.0, 0.0, 0.0)
DIAGONAL, VOXEL_ML, IMAGE_ML = 300.0, 0.01, 9000.0
CONFIG = BenchmarkConfig(resamples=100)
FACTS = ModelFacts("bundle", "0" * 64, segments=True, classifies=True, judges_truth=True, ene_threshold=0.5)
Random = np.random.Generator


def truths(random: Random, cases: int) -> list[TruthRecord]:
    """Cases of one or two for a patient, a third of them without a node."""
    result = []
    for number in range(cases):
        count = int(random.integers(0, 4)) if random.random() > 0.3 else 0
        nodes = tuple(
            TruthNode(k, f"GTVn_{k:02d}", 3.0 / k, PLACE, int(random.integers(2)), short_axis_mm=4.0 + 4 * k)
            for k in range(1, count + 1)
        )
        result.append(
            TruthRecord(
                case_id=f"c{number}",
                patient_id=f"p{number if number % 5 else max(0, number - 1)}",
                status="ok",
                content_sha256=f"{number:064x}",
                voxel_ml=VOXEL_ML,
                diagonal_mm=DIAGONAL,
                image_ml=IMAGE_ML,
                voxels={"GTVp": int(random.integers(0, 2)) * 400, "GTVn": count * 100},
                nodes=nodes,
            )
        )
    return result


def label(number: int, true: int, found: int, share: float) -> LabelMetrics:
    """The metrics of two masks of so many voxels, of which a share of the smaller one is common to both."""
    shared = int(share * min(true, found))
    if true == found == 0:
        nothing = (None,) * 6
        return LabelMetrics(number, 0, 0, 0, 0.0, 0.0, *nothing, 0.0, None, DIAGONAL)
    both = bool(true and found)
    return LabelMetrics(
        label=number,
        truth_voxels=true,
        predicted_voxels=found,
        shared_voxels=shared,
        truth_ml=true * VOXEL_ML,
        predicted_ml=found * VOXEL_ML,
        dice=2 * shared / (true + found),
        iou=shared / (true + found - shared),
        hd95_mm=40 * (1 - share) if both else None,
        assd_mm=10 * (1 - share) if both else None,
        surface_dice_1mm=share**2 if both else 0.0,
        surface_dice_2mm=share if both else 0.0,
        volume_error_ml=(found - true) * VOXEL_ML,
        volume_error_relative=(found - true) / true if true else None,
        worst_mm=DIAGONAL,
    )


def record(truth: TruthRecord, random: Random, skill: float) -> CaseRecord:
    """What a model of some skill made of a case."""
    found = [node.value for node in truth.nodes if random.random() < skill]
    pairs = tuple(
        NodePair(v, v, iou, 2 * iou / (1 + iou)) for v in found if (iou := float(random.uniform(0.3, 1)))
    )
    false = tuple(range(50, 50 + int(random.integers(0, 3))))
    odds = {v: float(random.random()) for v in (*found, *false)}
    predicted = tuple(
        NodeInfo(v, 1.0, 9.0, size_class(9.0), float(random.random())) for v in (*found, *false)
    )
    infos = tuple(
        NodeInfo(n.value, n.volume_ml, n.short_axis_mm, size_class(n.short_axis_mm)) for n in truth.nodes
    )
    missed = tuple(node.value for node in truth.nodes if node.value not in found)
    share = float(np.clip(random.normal(skill, 0.15), 0, 1))
    primary, nodes = (truth.voxels[name] for name in ("GTVp", "GTVn"))
    size = int(nodes * random.uniform(0.6, 1.4)) if found or false else 0
    return CaseRecord(
        model="m",
        key="m",
        kind="bundle",
        case_id=truth.case_id,
        patient_id=truth.patient_id,
        status="ok",
        segmentation={
            "GTVp": label(1, primary, primary, share),
            "GTVn": label(2, nodes, max(size, 30) if found or false else 0, share if found else 0.0),
        },
        matching=NodeMatch(infos, predicted, pairs, pairs, missed, false, (), (), 0.3),
        truth_nodes=tuple(
            replace(
                node,
                found_as=node.value if node.value in found else None,
                ene_end_to_end=odds.get(node.value),
                ene_on_truth=float(random.random()),
            )
            for node in truth.nodes
        ),
        found_nodes=tuple(
            FoundNode(v, 1.0, PLACE, None, odds[v], v if v in found else None) for v in (*found, *false)
        ),
    )


def empty(truth: TruthRecord) -> CaseRecord:
    """An empty prediction of a case."""
    infos = tuple(
        NodeInfo(n.value, n.volume_ml, n.short_axis_mm, size_class(n.short_axis_mm)) for n in truth.nodes
    )
    return CaseRecord(
        model="m",
        key="m",
        kind="bundle",
        case_id=truth.case_id,
        patient_id=truth.patient_id,
        status="ok",
        segmentation={
            "GTVp": label(1, truth.voxels["GTVp"], 0, 0.0),
            "GTVn": label(2, truth.voxels["GTVn"], 0, 0.0),
        },
        matching=NodeMatch(infos, (), (), (), tuple(n.value for n in truth.nodes), (), (), (), 0.3),
        truth_nodes=tuple(replace(node, ene_on_truth=0.5) for node in truth.nodes),
    )


Answers = dict[str, CaseRecord]


def answers(cohort: list[TruthRecord], random: Random, skill: float) -> Answers:
    """What a model made of every case."""
    return {truth.case_id: record(truth, random, skill) for truth in cohort}


def entrant(name: str) -> Entrant:
    """A model that segments and judges."""
    return Entrant(name, name, name, "bundle", 0, None, facts=FACTS)


def counted(cohort: list[TruthRecord], said: dict[str, Answers]) -> Models:
    """The models with their counted cases; a case that a model lacks was left out by it."""
    return {
        name: (entrant(name), counted_records(records, cohort, 0.3, segments=True))
        for name, records in said.items()
    }
