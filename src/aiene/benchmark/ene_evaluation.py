"""How well a model tells nodes with extranodal extension: alone on the truth's nodes, and end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from aiene.benchmark.config import BenchmarkConfig
from aiene.benchmark.metrics.classification import classification, patient_agreement
from aiene.benchmark.models import Entrant
from aiene.benchmark.records import CaseRecord
from aiene.nodes.node import CountingRule

Track = Literal["on_truth", "end_to_end"]

_USUAL_THRESHOLD = 0.5
"""Of a model that tells none."""


@dataclass(frozen=True)
class NodeScore:
    """A labelled node of the truth and the probability that it got."""

    case_id: str
    patient_id: str
    node: str
    ene: int
    score: float


def judgement(config: BenchmarkConfig, entrant: Entrant, records: Sequence[CaseRecord]) -> dict[str, Any]:
    """The figures of both tracks; None where a model has no such track.

    `on_truth`: the classifier on the truth's own masks, which isolates it from the segmenter. `end_to_end`:
    what comes out for a labelled node when the model finds the nodes itself; a node that it missed, or that
    does not count by its bundle's rule, counts as a probability of 0. False nodes have no truth and count
    only in the numbers of each patient.
    """
    if entrant.facts is None:
        return {}
    features = entrant.facts.features
    told = entrant.facts.ene_threshold
    # 0 is a threshold too
    rule = CountingRule(_USUAL_THRESHOLD if told is None else told, entrant.facts.pos_from)
    result: dict[str, Any] = {"on_truth": None, "end_to_end": None}
    if features or any(n.ene_on_truth is not None for r in records for n in r.truth_nodes):
        result["on_truth"] = _track(config, records, "on_truth", rule, entrant.probe_reason)
    if not features:
        result["end_to_end"] = _track(config, records, "end_to_end", rule, "")
    return result


_EVERY_NODE = CountingRule(_USUAL_THRESHOLD)


def scores_of(
    records: Sequence[CaseRecord], track: Track, rule: CountingRule = _EVERY_NODE
) -> list[NodeScore]:
    """Each labelled node with its probability; nodes that the classifier could not judge are left out."""
    result = []
    for record in records:
        for node in record.truth_nodes:
            score = node.ene_on_truth if track == "on_truth" else _end_to_end(record, node.value, rule)
            if node.ene is not None and score is not None:
                result.append(NodeScore(record.case_id, record.patient_id, node.name, node.ene, score))
    return result


def _end_to_end(record: CaseRecord, value: int, rule: CountingRule) -> float | None:
    node = next(n for n in record.truth_nodes if n.value == value)
    found = next((n for n in record.found_nodes if n.value == node.found_as), None)
    if node.found_as is None or (found is not None and not rule.counts(found.confidence)):
        return 0.0
    return node.ene_end_to_end


def _track(
    config: BenchmarkConfig, records: Sequence[CaseRecord], track: Track, rule: CountingRule, reason: str
) -> dict[str, Any]:
    scores = scores_of(records, track, rule)
    threshold = rule.ene_threshold
    labelled = sum(node.ene is not None for record in records for node in record.truth_nodes)
    thresholds = tuple(dict.fromkeys((threshold, *config.ene_thresholds)))
    missing = reason or ("" if labelled else "no node has an ENE label; give --ene-csv")
    if not scores:
        return {
            "n": 0,
            "scores": [],
            "reason": missing or "the model gave no probability for a labelled node",
        }
    figures = classification(
        [one.ene for one in scores],
        [one.score for one in scores],
        thresholds=thresholds,
        patients=[one.patient_id for one in scores],
        resamples=config.resamples,
        seed=config.seed,
    )
    return {
        **asdict(figures),
        "threshold": threshold,
        "not_judged": labelled - len(scores),
        "false_nodes_called_ene": _false_calls(records, rule) if track == "end_to_end" else None,
        "patients": _patients(config, records, track, rule),
        "scores": [asdict(one) for one in scores],
    }


def _false_calls(records: Sequence[CaseRecord], rule: CountingRule) -> int:
    return sum(
        node.matched is None and rule.is_ene(node.confidence, node.ene)
        for record in records
        for node in record.found_nodes
    )


def _patients(
    config: BenchmarkConfig, records: Sequence[CaseRecord], track: Track, rule: CountingRule
) -> dict[str, Any]:
    """Counts of nodes with ENE by patient, over the patients all of whose nodes are labelled."""
    true: dict[str, int] = {}
    called: dict[str, int] = {}
    unknown = {r.patient_id for r in records if any(n.ene is None for n in r.truth_nodes)}
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
        resamples=config.resamples,
        seed=config.seed,
    )
    return {**asdict(figures), "left_out": len(unknown)}
