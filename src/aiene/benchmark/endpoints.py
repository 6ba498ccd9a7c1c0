"""What models can be compared by: each endpoint gives each model a statistic of the same rows.

Rows are patients for segmentation (the mean of a patient's cases), cases for detection, labelled nodes for
ENE. The rows and who takes part follow from the truth and from what a model is, never from how it fared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aiene.benchmark.comparators.protocol import Entrant
from aiene.benchmark.config import GTVN, BenchmarkConfig
from aiene.benchmark.counting import labels_that_count, matches_of, node_scores, tracks_of
from aiene.benchmark.metrics.detection import froc_score, node_dice
from aiene.benchmark.metrics.records import SEGMENTATION_METRICS, higher_is_better
from aiene.benchmark.records import CaseRecord, TruthRecord
from aiene.stats.bootstrap import Statistic, mean, ratio
from aiene.stats.paired import score_table
from aiene.stats.records import Floats
from aiene.stats.roc import auc

Models = Mapping[str, tuple[Entrant, Sequence[CaseRecord]]]
"""By name: the model and its counted cases."""


@dataclass(frozen=True, eq=False)
class Endpoint:
    """One way to compare models.

    Parameters
    ----------
    name : `dice_GTVn`, `node_sensitivity`, ...; what `--primary` names.
    metric, label : of the results: `dice` of `GTVn`, `auc` of `ENE on_truth`.
    better : whether more is better; None: nearest to 0 is.
    statistics : of each model that takes part, over `rows` rows.
    clusters : the patient of each row.
    scores : of each model by case, for endpoints that are means over patients; else empty.
    patients : of each case, for `scores`.
    sums : of each model by patient, where the endpoint is their sum over a fixed number of nodes: what the
        permutation test flips.
    labels, node_scores : for areas under the ROC curve, for DeLong's test.
    reason : why there is no figure; empty otherwise.
    """

    name: str
    metric: str
    label: str
    better: bool | None
    statistics: dict[str, Statistic]
    rows: int
    clusters: list[str]
    scores: dict[str, list[float | None]]
    patients: list[str]
    sums: dict[str, Floats]
    labels: list[int]
    node_scores: dict[str, list[float]]
    reason: str = ""


def endpoints(config: BenchmarkConfig, models: Models, truths: Sequence[TruthRecord]) -> list[Endpoint]:
    """Every endpoint that these data allow; the primary one first, also where it cannot be given."""
    found = [*_segmentation(config, models, truths), *_detection(models, truths), *_ene(models)]
    primary = [one for one in found if one.name == config.primary]
    if not primary:
        reason = f"models and ground truth give no {config.primary}; name another endpoint with --primary"
        primary = [_empty(config.primary, reason)]
    return [*primary, *(one for one in found if one.name != config.primary and not one.reason)]


def _empty(name: str, reason: str) -> Endpoint:
    metric, _, label = name.partition("_GTV")
    return Endpoint(name, metric, f"GTV{label}" if label else "", True, {}, 0, [], {}, [], {}, [], {}, reason)


def _segmenters(models: Models) -> dict[str, Sequence[CaseRecord]]:
    return {
        name: records
        for name, (entrant, records) in models.items()
        if entrant.facts is not None and entrant.facts.segments
    }


def _segmentation(config: BenchmarkConfig, models: Models, truths: Sequence[TruthRecord]) -> list[Endpoint]:
    segmenters, patients = _segmenters(models), [truth.patient_id for truth in truths]
    result = []
    for label in labels_that_count(truths) if truths and segmenters else []:
        for metric in SEGMENTATION_METRICS:
            name, better = f"{metric}_{label}", higher_is_better(metric)
            if metric not in config.metrics and name != config.primary:
                continue
            scores: dict[str, list[float | None]] = {
                model: [(r.segmentation or {})[label].cohort_value(metric) for r in records]
                for model, records in segmenters.items()
            }
            table = score_table(scores, patients, higher_is_better=better)
            statistics = {model: mean(table.values[:, column]) for column, model in enumerate(table.models)}
            rows = len(table.values)
            clusters = [str(row) for row in range(rows)]
            reason = "" if rows or not segmenters else "no case of the ground truth allows it"
            result.append(
                Endpoint(
                    name,
                    metric,
                    label,
                    better,
                    statistics,
                    rows,
                    clusters,
                    scores,
                    patients,
                    {},
                    [],
                    {},
                    reason,
                )
            )
    return result


def _detection(models: Models, truths: Sequence[TruthRecord]) -> list[Endpoint]:
    nodes = np.array([len(truth.nodes) for truth in truths], dtype=np.float64)
    patients = [truth.patient_id for truth in truths]
    if not nodes.sum() or not _segmenters(models):
        return []
    matches = {name: matches_of(records) for name, records in _segmenters(models).items()}
    hits = {
        name: np.array([len(case.pairs) for case in cases], dtype=np.float64)
        for name, cases in matches.items()
    }
    dice = {name: node_dice(cases) for name, cases in matches.items()}
    confident = {
        name: cases
        for name, cases in matches.items()
        if not any(case.predicted for case in cases)
        or any(node.confidence is not None for case in cases for node in case.predicted)
    }

    def endpoint(name: str, statistics: dict[str, Statistic], sums: dict[str, Floats]) -> Endpoint:
        by_patient = {model: _by_patient(values, patients) for model, values in sums.items()}
        return Endpoint(name, name, GTVN, True, statistics, len(truths), patients, {}, [], by_patient, [], {})

    return [
        endpoint("node_sensitivity", {m: ratio(v, nodes) for m, v in hits.items()}, hits),
        endpoint("node_dice", {m: ratio(v, nodes) for m, v in dice.items()}, dice),
        endpoint("froc", {m: froc_score(cases) for m, cases in confident.items()}, {}),
    ]


def _by_patient(values: Floats, patients: Sequence[str]) -> Floats:
    sums: dict[str, float] = dict.fromkeys(patients, 0.0)
    for who, one in zip(patients, values, strict=True):
        sums[who] += float(one)
    return np.array(list(sums.values()))


def _ene(models: Models) -> list[Endpoint]:
    result = []
    for track in ("on_truth", "end_to_end"):
        scores = {
            name: node_scores(
                records, track, pos_from=0.0 if entrant.facts is None else entrant.facts.pos_from
            )
            for name, (entrant, records) in models.items()
            if track in tracks_of(entrant)
        }
        nodes = next(iter(scores.values()), [])
        labels = [node.ene for node in nodes]
        if len(set(labels)) < 2:
            continue
        patients = [node.patient_id for node in nodes]
        values = {name: [node.score for node in mine] for name, mine in scores.items()}
        truth = np.array(labels, dtype=np.float64)
        statistics = {name: auc(truth, np.array(one)) for name, one in values.items()}
        result.append(
            Endpoint(
                f"auc_{track}",
                "auc",
                f"ENE {track}",
                True,
                statistics,
                len(nodes),
                patients,
                {},
                [],
                {},
                labels,
                values,
            )
        )
    return result
