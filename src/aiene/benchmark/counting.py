"""What counts: every usable case once for every model, by one rule for figures, tests, ranks and leaderboard.

The truth alone decides what is counted, so that which models take part, and which of them fail, changes no
other model's figures. What a model left out counts as the worst that it could have said:

- Both masks empty is right: Dice 1, distances 0 (`LabelMetrics.cohort_value`).
- No prediction of a case: Dice 0, distances the image's diagonal, volume error the image's volume, each node
  missed (`lost_metrics`, `lost_match`).
- No probability for a labelled node: it counts as the wrong one, 0 with extension and 1 without, below which
  no rank is worse; its patient counts as wrong.
- A labelled node that was missed, end to end: the wrong one too. Taken as 0 it would be right where there is
  no extension, and missing such nodes would pay. Its patient's number is what the model says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from aiene.benchmark.comparators.protocol import Entrant
from aiene.benchmark.config import GTVN, LABEL_VALUES, BenchmarkConfig
from aiene.benchmark.metrics.classification import Calibration, classification, patient_agreement
from aiene.benchmark.records import (
    CaseRecord,
    NodeInfo,
    NodeMatch,
    TruthRecord,
    lost_match,
    lost_metrics,
    size_class,
)
from aiene.nodes.node import CountingRule
from aiene.stats.records import missing

RULE = 3
"""Raised when what counts changes, so that figures of two rules never meet on one leaderboard."""

Track = Literal["on_truth", "end_to_end"]


@dataclass(frozen=True)
class NodeScore:
    """A labelled node of the truth and the probability that counts for it.

    Parameters
    ----------
    judged : False where the model gave none for a node that it had, so that the score is the wrong one.
    missed : it found no such node, or one that does not count by its rule; the score is the wrong one too.
    """

    case_id: str
    patient_id: str
    node: str
    ene: int
    score: float
    judged: bool = True
    missed: bool = False


def counted_records(
    records: Mapping[str, CaseRecord], truths: Sequence[TruthRecord], iou_threshold: float, *, segments: bool
) -> tuple[CaseRecord, ...]:
    """One record for each case of the truth, in its order; `status` is failed where the model gave nothing.

    Parameters
    ----------
    records : of a model, by case id.
    segments : the model is one that segments.
    """
    result = []
    for truth in truths:
        record = records.get(truth.case_id)
        done = record is not None and record.status == "ok" and not (segments and record.segmentation is None)
        result.append(record if record is not None and done else _lost(truth, iou_threshold, segments))
    return tuple(result)


def _lost(truth: TruthRecord, iou_threshold: float, segments: bool) -> CaseRecord:
    infos = tuple(
        NodeInfo(node.value, node.volume_ml, node.short_axis_mm, size_class(node.short_axis_mm))
        for node in truth.nodes
    )
    return CaseRecord(
        model="",
        key="",
        kind="",
        case_id=truth.case_id,
        patient_id=truth.patient_id,
        status="failed",
        segmentation={
            name: lost_metrics(
                value, truth.voxels.get(name, 0), truth.voxel_ml, truth.image_ml, truth.diagonal_mm
            )
            for name, value in LABEL_VALUES.items()
        }
        if segments
        else None,
        matching=lost_match(infos, iou_threshold) if segments else None,
        truth_nodes=truth.nodes,
    )


def labels_that_count(truths: Sequence[TruthRecord]) -> list[str]:
    """Labels that some truth holds; where none holds any, the nodes, so that false ones are seen."""
    return [name for name in LABEL_VALUES if any(truth.voxels.get(name) for truth in truths)] or [GTVN]


def matches_of(records: Sequence[CaseRecord]) -> list[NodeMatch]:
    """The nodes' matching of each counted case."""
    return [record.matching for record in records if record.matching is not None]


def node_scores(records: Sequence[CaseRecord], track: Track, *, pos_from: float = 0.0) -> list[NodeScore]:
    """Each labelled node of the counted cases with the probability that counts.

    Parameters
    ----------
    pos_from : the least `pos` of a found node that counts, by the model's own rule; 0 for one that does not.
    """
    result = []
    for record in records:
        for node in record.truth_nodes:
            if node.ene is None:
                continue
            said, missed = node.ene_on_truth, False
            if track == "end_to_end" and record.status == "ok":
                found = next((n for n in record.found_nodes if n.value == node.found_as), None)
                kept = found is None or found.confidence is None or found.confidence >= pos_from
                missed = node.found_as is None or not kept
                said = None if missed else node.ene_end_to_end
            score = float(1 - node.ene) if said is None else said
            judged = missed or said is not None
            result.append(
                NodeScore(record.case_id, record.patient_id, node.name, node.ene, score, judged, missed)
            )
    return result


def tracks_of(entrant: Entrant) -> tuple[Track, ...]:
    """The tracks that a model is judged on, by what it is and not by what it managed."""
    facts = entrant.facts
    if facts is None or not facts.classifies:
        return ()
    found: list[Track] = []
    if (facts.features and not entrant.probe_reason) or facts.judges_truth:
        found.append("on_truth")
    if facts.segments:
        found.append("end_to_end")
    return tuple(found)


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
    result: dict[str, Any] = dict.fromkeys(("on_truth", "end_to_end"))
    if entrant.probe_reason:
        result["on_truth"] = {"n": 0, "scores": [], "reason": entrant.probe_reason}
    for track in tracks_of(entrant):
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
        calibrated=[0.0 if one.missed else one.score for one in scores],
        **config.bootstrap,
    )
    unjudged = sum(not one.judged for one in scores)
    if unjudged:
        reason = f"{unjudged} of {len(scores)} labelled nodes have no probability"
        nothing = missing(reason, len(scores))
        fit = Calibration(nothing, nothing, nothing, figures.calibration.table, None, reason)
        figures = replace(figures, calibration=fit)
    return {
        **asdict(figures),
        "threshold": threshold,
        "missed": sum(one.missed for one in scores),
        "not_judged": unjudged,
        "false_nodes_called_ene": sum(
            node.matched is None and rule.is_ene(node.confidence, node.ene)
            for record in records
            for node in record.found_nodes
        )
        if track == "end_to_end"
        else None,
        "patients": _patients(config, records, scores, track, rule),
        "scores": [asdict(one) for one in scores],
    }


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
        **config.bootstrap,
    )
    return {**asdict(figures), "left_out": len(unknown), "without_whole_answer": len(lost & true.keys())}
