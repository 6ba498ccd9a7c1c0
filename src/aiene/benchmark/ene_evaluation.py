"""How well a model tells nodes with extranodal extension: alone on the truth's nodes, and end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from aiene.benchmark.comparators.protocol import Entrant
from aiene.benchmark.config import BenchmarkConfig
from aiene.benchmark.counting import NodeScore, Track, node_scores, tracks_of
from aiene.benchmark.metrics.classification import calibration, classification, patient_agreement
from aiene.benchmark.records import CaseRecord
from aiene.nodes.node import CountingRule
from aiene.stats.records import missing

_USUAL_THRESHOLD = 0.5
"""Of a model that tells none."""


def judgement(config: BenchmarkConfig, entrant: Entrant, records: Sequence[CaseRecord]) -> dict[str, Any]:
    """The figures of both tracks; None where a model has no such track.

    `on_truth`: the classifier on the truth's own masks, which isolates it from the segmenter. `end_to_end`:
    what comes out for a labelled node when the model finds the nodes itself; a node that it missed, or that
    does not count by its bundle's rule, counts as judged wrongly, so that missing one never pays. Calibration
    alone takes it as 0, which is what the model says of it. False nodes have no truth and count only in the
    numbers of each patient.

    Parameters
    ----------
    records : the model's counted cases.
    """
    if entrant.facts is None:
        return {}
    told = entrant.facts.ene_threshold
    # 0 is a threshold too
    rule = CountingRule(_USUAL_THRESHOLD if told is None else told, entrant.facts.pos_from)
    tracks = tracks_of(entrant)
    result: dict[str, Any] = dict.fromkeys(("on_truth", "end_to_end"))
    if entrant.probe_reason:
        result["on_truth"] = {"n": 0, "scores": [], "reason": entrant.probe_reason}
    for track in tracks:
        result[track] = _track(config, records, track, rule)
    return result


def _track(
    config: BenchmarkConfig, records: Sequence[CaseRecord], track: Track, rule: CountingRule
) -> dict[str, Any]:
    scores, threshold = node_scores(records, track, pos_from=rule.pos_from), rule.ene_threshold
    if not scores:
        return {"n": 0, "scores": [], "reason": "no node has an ENE label; give --ene-csv"}
    figures = classification(
        [one.ene for one in scores],
        [one.score for one in scores],
        thresholds=tuple(dict.fromkeys((threshold, *config.ene_thresholds))),
        patients=[one.patient_id for one in scores],
        lost=[one.missed or not one.judged for one in scores],
        resamples=config.resamples,
        seed=config.seed,
    )
    if any(one.missed for one in scores):
        said = [0.0 if one.missed else one.score for one in scores]
        fit = calibration([one.ene for one in scores], said, [one.patient_id for one in scores])
        figures = replace(figures, calibration=fit)
    unjudged = sum(not one.judged for one in scores)
    if unjudged:
        reason = f"{unjudged} of {len(scores)} labelled nodes have no probability"
        nothing = missing(reason, len(scores))
        fit = replace(
            figures.calibration,
            slope=nothing,
            intercept=nothing,
            recalibration_intercept=nothing,
            expected_error=None,
            reason=reason,
        )
        figures = replace(figures, calibration=fit)
    return {
        **asdict(figures),
        "threshold": threshold,
        "missed": sum(one.missed for one in scores),
        "not_judged": unjudged,
        "false_nodes_called_ene": _false_calls(records, rule) if track == "end_to_end" else None,
        "patients": _patients(config, records, scores, track, rule),
        "scores": [asdict(one) for one in scores],
    }


def _false_calls(records: Sequence[CaseRecord], rule: CountingRule) -> int:
    return sum(
        node.matched is None and rule.is_ene(node.confidence, node.ene)
        for record in records
        for node in record.found_nodes
    )


def _patients(
    config: BenchmarkConfig,
    records: Sequence[CaseRecord],
    scores: Sequence[NodeScore],
    track: Track,
    rule: CountingRule,
) -> dict[str, Any]:
    """Counts of nodes with ENE by patient, over the patients all of whose nodes are labelled."""
    true: dict[str, int] = {}
    called: dict[str, int] = {}
    unknown = {r.patient_id for r in records if any(n.ene is None for n in r.truth_nodes)}
    lost = {r.patient_id for r in records if r.status != "ok"} | {
        s.patient_id for s in scores if not s.judged
    }
    for record in records:
        if record.patient_id in unknown:
            continue
        calls = (
            [rule.is_ene(None, node.ene_on_truth) for node in record.truth_nodes]
            if track == "on_truth"
            else [rule.is_ene(node.confidence, node.ene) for node in record.found_nodes]
        )
        who = record.patient_id
        true[who] = true.get(who, 0) + sum(node.ene == 1 for node in record.truth_nodes)
        called[who] = called.get(who, 0) + sum(calls)
    if not true:
        return {"n": 0, "reason": "no patient has an ENE label for every node"}
    names = sorted(true)
    figures = patient_agreement(
        [true[who] for who in names],
        [called[who] for who in names],
        lost=[who in lost for who in names],
        resamples=config.resamples,
        seed=config.seed,
    )
    return {**asdict(figures), "left_out": len(unknown), "without_whole_answer": len(lost & true.keys())}
