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
from dataclasses import dataclass
from typing import Literal

from aiene.benchmark.comparators.protocol import Entrant
from aiene.benchmark.config import GTVN, LABEL_VALUES
from aiene.benchmark.metrics.records import NodeInfo, NodeMatch, lost_match, lost_metrics, size_class
from aiene.benchmark.records import CaseRecord, TruthRecord

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
        matching=lost_match(_infos(truth), iou_threshold) if segments else None,
        truth_nodes=truth.nodes,
    )


def _infos(truth: TruthRecord) -> tuple[NodeInfo, ...]:
    return tuple(
        NodeInfo(node.value, node.volume_ml, node.short_axis_mm, size_class(node.short_axis_mm))
        for node in truth.nodes
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
