"""`benchmark_results_<time>.csv`: one row per case and model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from aiene.benchmark.comparators.protocol import Entrant
from aiene.benchmark.config import LABEL_VALUES
from aiene.benchmark.metrics.records import SEGMENTATION_METRICS
from aiene.benchmark.records import CaseRecord, Pairing, TruthRecord, model_files, read_record
from aiene.cells import rows_bytes
from aiene.nodes.node import CountingRule

STEPS = ("load", "preprocess", "inference", "postprocess")
LABEL_COLUMNS = (*SEGMENTATION_METRICS[:-2], "truth_ml", "predicted_ml", *SEGMENTATION_METRICS[-2:])
COLUMNS = (
    *("case_id", "patient_id", "model", "kind", "status", "reason"),
    *(f"{column}_{label}" for label in LABEL_VALUES for column in LABEL_COLUMNS),
    *("nodes_true", "nodes_found", "nodes_matched", "nodes_missed", "nodes_false", "splits", "merges"),
    *("ene_true", "ene_on_truth", "ene_end_to_end"),
    *(f"{step}_seconds" for step in STEPS),
    *("total_seconds", "cpu_seconds", "peak_rss_mib", "peak_gpu_mib", "warnings"),
)


def results_csv(
    out: Path, pairing: Pairing, truths: Sequence[TruthRecord], entrants: Sequence[Entrant]
) -> tuple[bytes, int]:
    """The table, and how many of its rows are failures.

    A case that cannot be used has one row without a model, a model that cannot be used one without a case.
    """
    rows = list(_rows(out, pairing, truths, entrants))
    table = [["" if row.get(column) is None else row[column] for column in COLUMNS] for row in rows]
    return rows_bytes([COLUMNS, *table]), sum(row["status"] == "failed" for row in rows)


def records_of(out: Path, key: str, truths: Sequence[TruthRecord]) -> Iterator[CaseRecord]:
    """A model's record of each usable case, one at a time."""
    for truth in truths:
        record = read_record(model_files(out, key, truth.case_id)[0]) if truth.status == "ok" else None
        if record is not None:
            yield record


def _rows(
    out: Path, pairing: Pairing, truths: Sequence[TruthRecord], entrants: Sequence[Entrant]
) -> Iterator[dict[str, Any]]:
    for refused in pairing.refused:
        yield {"case_id": refused.case_id, "status": "failed", "reason": refused.reason}
    for truth in truths:
        if truth.status != "ok":
            row = {"case_id": truth.case_id, "patient_id": truth.patient_id}
            yield {**row, "status": "failed", "reason": truth.reason}
    for entrant in entrants:
        if entrant.facts is None:
            yield {"model": entrant.name, "kind": entrant.kind, "status": "failed", "reason": entrant.reason}
            continue
        for record in records_of(out, entrant.key, truths):
            threshold = entrant.facts.ene_threshold
            yield _row(record, None if threshold is None else CountingRule(threshold, entrant.facts.pos_from))


def _row(record: CaseRecord, rule: CountingRule | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "case_id": record.case_id,
        "patient_id": record.patient_id,
        "model": record.model,
        "kind": record.kind,
        "status": record.status,
        "reason": record.reason,
        "nodes_true": len(record.truth_nodes),
        "ene_true": sum(node.ene == 1 for node in record.truth_nodes),
        "warnings": "; ".join(record.warnings),
    }
    for label, metrics in (record.segmentation or {}).items():
        row.update({f"{column}_{label}": _rounded(getattr(metrics, column)) for column in LABEL_COLUMNS})
    if record.matching is not None:
        match = record.matching
        row.update(
            nodes_found=len(match.predicted),
            nodes_matched=len(match.pairs),
            nodes_missed=len(match.missed),
            nodes_false=len(match.false),
            splits=len(match.splits),
            merges=len(match.merges),
        )
    if rule is not None and record.status == "ok":
        row["ene_on_truth"] = _count([(None, node.ene_on_truth) for node in record.truth_nodes], rule)
        row["ene_end_to_end"] = _count([(node.confidence, node.ene) for node in record.found_nodes], rule)
    if record.seconds:
        row.update({f"{step}_seconds": record.seconds.get(step) for step in STEPS})
        row["total_seconds"] = round(sum(record.seconds.values()), 4)
        row["cpu_seconds"] = round(sum(record.cpu_seconds.values()), 4)
        row.update(peak_rss_mib=record.peak_rss_mib, peak_gpu_mib=record.peak_gpu_mib)
    return row


def _count(nodes: Sequence[tuple[float | None, float | None]], rule: CountingRule) -> int | None:
    """How many of (pos, ene) count as ENE; None where nothing was judged."""
    judged = [node for node in nodes if node[1] is not None]
    return sum(rule.is_ene(*node) for node in judged) if judged else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)
