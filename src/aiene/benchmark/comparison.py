"""The models against each other: paired tests against a reference, and ranks with their stability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiene.benchmark.config import LABEL_VALUES, BenchmarkConfig
from aiene.benchmark.ene_evaluation import NodeScore, scores_of
from aiene.benchmark.metrics.segmentation import SEGMENTATION_METRICS, LabelMetrics, higher_is_better
from aiene.benchmark.models import Entrant
from aiene.benchmark.records import CaseRecord, TruthRecord
from aiene.benchmark.results_table import records_of
from aiene.stats.paired import compare_with_reference, superiority_table
from aiene.stats.ranking import critical_difference, ranking
from aiene.stats.roc import clustered_auc_difference, delong_test
from aiene.stats.tests import holm

Scores = dict[str, list[float | None]]
_ALPHA = 0.05


def compare_models(
    config: BenchmarkConfig,
    out: Path,
    entrants: Sequence[Entrant],
    truths: Sequence[TruthRecord],
    reference: str | None,
) -> dict[str, Any]:
    """Comparisons and ranks, as JSON values; empty lists where there is nothing to compare.

    A case that failed, or where a model has no record, counts as an empty prediction: a model gains nothing
    by failing on hard cases.
    """
    segmenters = [e for e in entrants if e.facts is not None and e.facts.segments]
    records = {e.name: {r.case_id: r for r in records_of(out, e.key, truths)} for e in entrants}
    comparisons: list[dict[str, Any]] = []
    ranks: list[dict[str, Any]] = []
    patients = [truth.patient_id for truth in truths]
    for label, number in LABEL_VALUES.items():
        present = any(truth.voxels.get(label) for truth in truths)
        if not present or len(segmenters) < 2:
            continue
        for metric in SEGMENTATION_METRICS:
            scores: Scores = {
                e.name: [_value(records[e.name].get(t.case_id), t, label, number, metric) for t in truths]
                for e in segmenters
            }
            said = {"metric": metric, "label": label}
            comparisons += [{**said, **one} for one in _compared(config, scores, metric, reference, patients)]
            ranks.append({**said, **_ranked(config, scores, metric, patients)})
    comparisons += _areas(config, entrants, {n: list(r.values()) for n, r in records.items()}, reference)
    return {"comparisons": comparisons, "ranking": ranks}


def empty_prediction(truth: TruthRecord, label: str, number: int) -> LabelMetrics:
    """The metrics of a case for which there is no prediction."""
    voxels = truth.voxels.get(label, 0)
    nothing = 0.0 if voxels else None
    volume = voxels * truth.voxel_ml
    return LabelMetrics(
        label=number,
        truth_voxels=voxels,
        predicted_voxels=0,
        shared_voxels=0,
        truth_ml=volume,
        predicted_ml=0.0,
        dice=nothing,
        iou=nothing,
        hd95_mm=None,
        assd_mm=None,
        surface_dice_1mm=nothing,
        surface_dice_2mm=nothing,
        volume_error_ml=-volume,
        volume_error_relative=-1.0 if voxels else None,
        worst_mm=truth.diagonal_mm,
        reason="no prediction",
    )


def _value(
    record: CaseRecord | None, truth: TruthRecord, label: str, number: int, metric: str
) -> float | None:
    if record is None or record.segmentation is None:
        return empty_prediction(truth, label, number).cohort_value(metric)
    return record.segmentation[label].cohort_value(metric)


def _compared(
    config: BenchmarkConfig, scores: Scores, metric: str, reference: str | None, patients: list[str]
) -> list[dict[str, Any]]:
    if reference not in scores:
        return []
    found = compare_with_reference(
        scores,
        reference,
        patients,
        higher_is_better=higher_is_better(metric),
        resamples=config.resamples,
        seed=config.seed,
    )
    return [asdict(one) for one in found]


def _ranked(config: BenchmarkConfig, scores: Scores, metric: str, patients: list[str]) -> dict[str, Any]:
    better = higher_is_better(metric)
    ranks = ranking(
        scores, patients, higher_is_better=better, resamples=min(1000, config.resamples), seed=config.seed
    )
    return {
        **asdict(ranks),
        "critical_difference": asdict(critical_difference(scores, patients, higher_is_better=better)),
        "superiority": asdict(superiority_table(scores, patients, higher_is_better=better)),
    }


def _areas(
    config: BenchmarkConfig,
    entrants: Sequence[Entrant],
    records: dict[str, list[CaseRecord]],
    reference: str | None,
) -> list[dict[str, Any]]:
    """Areas under the ROC curve on the truth's nodes, paired by node.

    A difference is shown where the interval by bootstrap over patients leaves 0 out, and DeLong's test,
    corrected by Holm over the models, is under 0.05.
    """
    by_node = {
        e.name: {(s.case_id, s.node): s for s in scores_of(records[e.name], "on_truth")} for e in entrants
    }
    known = by_node.pop(reference, {}) if reference is not None else {}
    result = [
        _area(config, name, reference, known, scores)
        for name, scores in by_node.items()
        if known.keys() & scores.keys()
    ]
    for row, p in zip(result, holm([row["p_delong"] for row in result]), strict=True):
        low, high = row["difference"]["low"], row["difference"]["high"]
        shown = p is not None and p < _ALPHA and low is not None and (low > 0 or high < 0)
        unknown = p is None or low is None
        row["p_holm"] = p
        row["verdict"] = (
            "not comparable" if unknown else "no difference shown" if not shown else _side(low > 0)
        )
    return result


def _side(better: bool) -> str:
    return "better" if better else "worse"


def _area(
    config: BenchmarkConfig,
    name: str,
    reference: str | None,
    known: dict[tuple[str, str], NodeScore],
    scores: dict[tuple[str, str], NodeScore],
) -> dict[str, Any]:
    both = [node for node in known if node in scores]
    labels = [known[node].ene for node in both]
    first, second = [scores[node].score for node in both], [known[node].score for node in both]
    patients = [known[node].patient_id for node in both]
    difference = clustered_auc_difference(
        labels, first, second, patients, resamples=config.resamples, seed=config.seed
    )
    return {
        "metric": "auc",
        "label": "ENE",
        "model": name,
        "reference": reference,
        "n": len(both),
        "difference": asdict(difference),
        "p_delong": delong_test(labels, first, second).p,
    }
