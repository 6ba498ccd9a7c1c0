"""The models against each other: the primary endpoint, every pair, and ranks with their stability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from aiene.benchmark.config import BenchmarkConfig
from aiene.benchmark.endpoints import Endpoint, Models, endpoints
from aiene.benchmark.records import TruthRecord
from aiene.stats.bootstrap import cluster_bootstrap
from aiene.stats.elementary import holm
from aiene.stats.paired import (
    LEVEL,
    difference_test,
    equivalence,
    paired,
    sign_flip_p,
    subtracted,
    superiority_table,
)
from aiene.stats.ranking import critical_difference, rank_statistics, ranking
from aiene.stats.roc import delong_test

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
        _judge(family, "p_holm")
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
    """Difference, test and p of two models.

    Parameters
    ----------
    whole : with all that a comparison with the reference says.
    """
    how = _how(config)
    if endpoint.scores and whole:
        found = paired(
            endpoint.scores[model],
            endpoint.scores[other],
            endpoint.patients,
            higher_is_better=endpoint.better,
            **how,
        )
        difference = asdict(found.mean_difference)
        return {
            "n": found.n,
            "difference": difference,
            "test": "permutation",
            "p": found.permutation_p,
            "paired": asdict(found),
        }
    apart = subtracted(endpoint.statistics[model], endpoint.statistics[other])
    if endpoint.scores or endpoint.sums:
        mine, yours = (_by_patient(endpoint, name) for name in (model, other))
        estimate = cluster_bootstrap(apart, endpoint.rows, endpoint.clusters, of_difference=True, **how)
        p = sign_flip_p(mine - yours, seed=config.seed) if len(mine) > 1 else None
        return {"n": len(mine), "difference": asdict(estimate), "test": "permutation", "p": p}
    test = difference_test(apart, endpoint.rows, endpoint.clusters, **how)
    row = {"n": endpoint.rows, "difference": asdict(test.difference), "test": "bootstrap", "p": test.p}
    if endpoint.node_scores:
        scores = endpoint.node_scores
        row["p_delong"] = delong_test(endpoint.labels, scores[model], scores[other]).p
    return row


def _how(config: BenchmarkConfig) -> Any:
    """The words that every bootstrap takes."""
    return {"resamples": config.resamples, "seed": config.seed}


def _by_patient(endpoint: Endpoint, model: str) -> Any:
    """What the permutation test flips: a model's value of each patient."""
    if endpoint.sums:
        return endpoint.sums[model]
    rows = np.eye(endpoint.rows)
    return endpoint.statistics[model](rows)


def _judge(rows: list[dict[str, Any]], name: str) -> None:
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row[name] = p
        row["verdict"] = _verdict(row, p)


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
    how = _how(config)
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
            {
                "model": name,
                "value": asdict(cluster_bootstrap(statistic, endpoint.rows, endpoint.clusters, **how)),
            }
            for name, statistic in endpoint.statistics.items()
        ],
    }


def _rankings(config: BenchmarkConfig, endpoint: Endpoint, *, whole: bool) -> list[dict[str, Any]]:
    """The orders of the models: by the mean, by the mean of each patient's ranks; or by the value.

    Parameters
    ----------
    whole : with Friedman's and Nemenyi's tests, whose distribution takes long to compute.
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
