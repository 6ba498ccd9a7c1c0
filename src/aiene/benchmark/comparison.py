"""The models against each other: the primary endpoint, every pair, and ranks with their stability.

Rows are patients for segmentation (the mean of a patient's cases), cases for detection, labelled nodes for
ENE. The rows and who takes part follow from the truth and from what a model is, never from how it fared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from aiene.benchmark.comparators.protocol import Entrant
from aiene.benchmark.config import GTVN, BenchmarkConfig
from aiene.benchmark.counting import labels_that_count, matches_of, node_scores, tracks_of
from aiene.benchmark.metrics.nodes import froc_score, node_dice
from aiene.benchmark.records import SEGMENTATION_METRICS, CaseRecord, TruthRecord, higher_is_better
from aiene.stats.bootstrap import Statistic, cluster_bootstrap, mean, ratio
from aiene.stats.paired import (
    LEVEL,
    difference_test,
    equivalence,
    paired,
    score_table,
    sign_flip_p,
    subtracted,
    superiority_table,
)
from aiene.stats.ranking import critical_difference, rank_statistics, ranking
from aiene.stats.records import Floats
from aiene.stats.roc import auc, delong_test
from aiene.stats.tests import holm

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
    statistics: dict[str, Statistic] = field(default_factory=dict)
    rows: int = 0
    clusters: list[str] = field(default_factory=list)
    scores: dict[str, list[float | None]] = field(default_factory=dict)
    patients: list[str] = field(default_factory=list)
    sums: dict[str, Floats] = field(default_factory=dict)
    labels: list[int] = field(default_factory=list)
    node_scores: dict[str, list[float]] = field(default_factory=dict)
    reason: str = ""


def endpoints(config: BenchmarkConfig, models: Models, truths: Sequence[TruthRecord]) -> list[Endpoint]:
    """Every endpoint that these data allow; the primary one first, also where it cannot be given."""
    found = [*_segmentation(config, models, truths), *_detection(models, truths), *_ene(models)]
    primary = [one for one in found if one.name == config.primary]
    if not primary:
        reason = f"models and ground truth give no {config.primary}; name another endpoint with --primary"
        metric, _, label = config.primary.partition("_GTV")
        primary = [Endpoint(config.primary, metric, f"GTV{label}" if label else "", True, reason=reason)]
    return [*primary, *(one for one in found if one.name != config.primary and not one.reason)]


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
            given = (statistics, rows, clusters, scores, patients)
            result.append(Endpoint(name, metric, label, better, *given, reason=reason))
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
        return Endpoint(name, name, GTVN, True, statistics, len(truths), patients, sums=by_patient)

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
        given = (f"auc_{track}", "auc", f"ENE {track}", True, statistics, len(nodes), patients)
        result.append(Endpoint(*given, labels=labels, node_scores=values))
    return result


RANK_RESAMPLES = 1000
"""Resamples of ranks at most: shares of ranks need fewer than the ends of an interval."""
RATIO_MARGIN = 0.05
"""The equivalence margin where none is given, for endpoints from 0 to 1. Dice of two readers who outline the
same node differ by more."""


def compare_models(
    config: BenchmarkConfig, models: Models, truths: Sequence[TruthRecord], reference: str | None
) -> dict[str, Any]:
    """The primary endpoint, comparisons with the reference, all pairs and ranks, as JSON values.

    The p values of the primary endpoint are corrected by Holm over its models; those of all other endpoints
    together, over endpoints and models, since any of them could be the one that is quoted.
    """
    primary, *others = endpoints(config, models, truths)
    every = [primary, *others]
    pairs = {one.name: _pairs(config, one, reference) for one in every}
    first = [row for row in pairs[primary.name] if row["reference"] == reference]
    second = [row for one in others for row in pairs[one.name] if row["reference"] == reference]
    for family in (first, second):
        for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
            row["p_holm"] = p
            row["verdict"] = _verdict(row, p)
    for one in every:
        rows = pairs[one.name]
        for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
            row["p_all_pairs"] = p
            row["verdict_of_pair"] = _verdict(row, p)
    return {
        "primary": _primary(config, primary, first, truths),
        "comparisons": [
            {**row, "primary": number < len(first)} for number, row in enumerate([*first, *second])
        ],
        "pairs": [row for one in every for row in pairs[one.name]],
        "ranking": [ranks for one in every for ranks in _rankings(config, one, whole=one is primary)],
    }


def _pairs(config: BenchmarkConfig, endpoint: Endpoint, reference: str | None) -> list[dict[str, Any]]:
    """Every pair of models, the reference always second."""
    rows = []
    for one, two in combinations(endpoint.statistics, 2):
        model, other = (two, one) if one == reference else (one, two)
        rows.append(
            {
                "endpoint": endpoint.name,
                "metric": endpoint.metric,
                "label": endpoint.label,
                "model": model,
                "reference": other,
                "better": endpoint.better,
                **_compared(config, endpoint, model, other, whole=other == reference),
            }
        )
    return rows


def _compared(
    config: BenchmarkConfig, endpoint: Endpoint, model: str, other: str, *, whole: bool
) -> dict[str, Any]:
    """Difference, test and p of two models; `whole` with all that a comparison with the reference says."""
    how: Any = config.bootstrap
    if endpoint.scores and whole:
        found = paired(
            endpoint.scores[model],
            endpoint.scores[other],
            endpoint.patients,
            higher_is_better=endpoint.better,
            **how,
        )
        row = {"n": found.n, "difference": asdict(found.mean_difference), "test": "permutation"}
        return {**row, "p": found.permutation_p, "paired": asdict(found)}
    apart = subtracted(endpoint.statistics[model], endpoint.statistics[other])
    if endpoint.scores or endpoint.sums:
        mine, yours = (
            endpoint.sums[name] if endpoint.sums else endpoint.statistics[name](np.eye(endpoint.rows))
            for name in (model, other)
        )
        estimate = cluster_bootstrap(apart, endpoint.rows, endpoint.clusters, of_difference=True, **how)
        p = sign_flip_p(mine - yours, seed=config.seed) if len(mine) > 1 else None
        return {"n": len(mine), "difference": asdict(estimate), "test": "permutation", "p": p}
    test = difference_test(apart, endpoint.rows, endpoint.clusters, **how)
    row = {"n": endpoint.rows, "difference": asdict(test.difference), "test": "bootstrap", "p": test.p}
    if endpoint.node_scores:
        scores = endpoint.node_scores
        row["p_delong"] = delong_test(endpoint.labels, scores[model], scores[other]).p
    return row


def _verdict(row: dict[str, Any], p: float | None) -> str:
    gap = row["difference"]["value"]
    if p is None or gap is None:
        return "not comparable"
    if p >= LEVEL or gap == 0:
        return "no difference shown"
    return "better" if (gap > 0) == (row["better"] is True) else "worse"


def _primary(
    config: BenchmarkConfig, endpoint: Endpoint, rows: list[dict[str, Any]], truths: Sequence[TruthRecord]
) -> dict[str, Any]:
    """What the report opens with: each model's value, and its verdict against the reference."""
    how: Any = config.bootstrap
    of_ratio = not endpoint.metric.endswith(("_mm", "_ml", "_relative"))
    margin = config.equivalence_margin or (RATIO_MARGIN if of_ratio else None)
    if margin is not None:
        for row in rows:
            apart = subtracted(endpoint.statistics[row["model"]], endpoint.statistics[row["reference"]])
            row["equivalence"] = asdict(equivalence(apart, endpoint.rows, endpoint.clusters, margin, **how))
    return {
        "endpoint": endpoint.name,
        "metric": endpoint.metric,
        "label": endpoint.label,
        "better": endpoint.better,
        "margin": margin,
        "cases": len(truths),
        "patients": len({truth.patient_id for truth in truths}),
        "nodes": sum(len(truth.nodes) for truth in truths),
        "without_label": sum(not truth.voxels.get(endpoint.label) for truth in truths)
        if endpoint.scores
        else None,
        "reason": endpoint.reason,
        "models": [
            {"model": name, "value": asdict(cluster_bootstrap(one, endpoint.rows, endpoint.clusters, **how))}
            for name, one in endpoint.statistics.items()
        ],
    }


def _rankings(config: BenchmarkConfig, endpoint: Endpoint, *, whole: bool) -> list[dict[str, Any]]:
    """The orders of the models: by the mean, by the mean of each patient's ranks; or by the value.

    `whole` has Friedman's and Nemenyi's tests, whose distribution takes long to compute.
    """
    if len(endpoint.statistics) < 2:
        return []
    said = {"endpoint": endpoint.name, "metric": endpoint.metric, "label": endpoint.label}
    resamples = min(RANK_RESAMPLES, config.resamples)
    if not endpoint.scores:
        found = rank_statistics(
            endpoint.statistics, endpoint.rows, endpoint.clusters, resamples=resamples, seed=config.seed
        )
        return [{**said, **asdict(found)}]
    scores, patients, better = endpoint.scores, endpoint.patients, endpoint.better
    result = []
    for by in ("mean_then_rank", "rank_then_mean"):
        ranks = ranking(
            scores, patients, higher_is_better=better, by=by, resamples=resamples, seed=config.seed
        )  # type: ignore[call-overload, unused-ignore]
        result.append({**said, **asdict(ranks)})
    if whole:
        result[0] |= {
            "critical_difference": asdict(critical_difference(scores, patients, higher_is_better=better)),
            "superiority": asdict(superiority_table(scores, patients, higher_is_better=better)),
        }
    return result
