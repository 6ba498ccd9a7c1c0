"""The results of a benchmark: `benchmark_summary_<time>.json` and `benchmark_results_<time>.csv`.

The summary has each model over all cases and the models against each other, the table one row per case and
model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiene.benchmark.comparators.protocol import Entrant, ModelFacts, reads_files
from aiene.benchmark.comparison import compare_models
from aiene.benchmark.config import GTVN, LABEL_VALUES, BenchmarkConfig, ModelEntry
from aiene.benchmark.counting import RULE, counted_records, judgement, labels_that_count, matches_of
from aiene.benchmark.ene_labels import EneTable
from aiene.benchmark.metrics.nodes import detection, froc
from aiene.benchmark.metrics.segmentation import aggregated_dice
from aiene.benchmark.records import (
    FORMAT,
    SEGMENTATION_METRICS,
    CaseRecord,
    Pairing,
    TruthRecord,
    model_files,
    read_record,
)
from aiene.csv_tables import rows_bytes
from aiene.hashing import digest
from aiene.nodes.node import CountingRule
from aiene.report.document import RESEARCH_ONLY
from aiene.stats.paired import summarise

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
        if truth.status == "ok":
            record = read_record(CaseRecord, model_files(out, key, truth.case_id)[0])
            yield from () if record is None else (record,)


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
        values = {column: getattr(metrics, column) for column in LABEL_COLUMNS}
        row.update({f"{c}_{label}": None if v is None else round(float(v), 6) for c, v in values.items()})
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


def summary_of(
    config: BenchmarkConfig,
    out: Path,
    pairing: Pairing,
    truths: Sequence[TruthRecord],
    entrants: Sequence[Entrant],
    table: EneTable | None,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """The summary as JSON values.

    Parameters
    ----------
    entrants : in the order in which they were named.
    facts : when, where and with what it was made.
    """
    usable = [truth for truth in truths if truth.status == "ok"]
    counted = {}
    for entrant in entrants:
        if entrant.facts is not None:
            records = {record.case_id: record for record in records_of(out, entrant.key, usable)}
            kept = counted_records(records, usable, config.iou_threshold, segments=entrant.facts.segments)
            counted[entrant.name] = entrant, kept
    models = [model_figures(config, one, counted.get(one.name, (None, ()))[1]) for one in entrants]
    first = next((one.name for one in entrants if one.facts is not None), None)
    reference = first if config.reference is None else config.reference
    compared = compare_models(config, counted, usable, reference)
    return {
        "format": FORMAT,
        "notice": RESEARCH_ONLY,
        **facts,
        "reference": reference,
        "data": _data(config, usable),
        "pairing": _pairing(config, pairing, truths),
        "ene_csv": None if table is None else _ene_facts(table, truths),
        "models": models,
        **compared,
    }


def source_name(source: str) -> str:
    """A hub id or a bundle's name as it is; of a folder only its last name."""
    return Path(source).name if Path(source).exists() else source


def _content_sha256(entrant: Entrant, facts: ModelFacts, done: Sequence[CaseRecord]) -> str:
    """What tells one model from another: its weights and how it was asked; or, of files, what they say.

    Neither the time nor the compression of a file is in it.
    """
    if entrant.request is None:
        return facts.sha256
    if reads_files(entrant.request.kind):
        return digest(sorted(record.answer_sha256 for record in done))
    asked = entrant.request.entry.model_dump(mode="json", exclude={"source", "name", "revision", "kind"})
    usual = ModelEntry(source="-").model_dump(mode="json")
    given = {name: value for name, value in asked.items() if value != usual[name]}
    return digest([facts.sha256, given]) if given else facts.sha256


def _settings_that_count(config: BenchmarkConfig, usable: Sequence[TruthRecord]) -> dict[str, Any]:
    """What the figures depend on besides data and model; `patients` is how the cases are dealt to them."""
    by_patient: dict[str, list[str]] = {}
    for truth in usable:
        by_patient.setdefault(truth.patient_id, []).append(truth.content_sha256)
    return {
        "rule": RULE,
        "iou_threshold": config.iou_threshold,
        "patients": digest(sorted(sorted(cases) for cases in by_patient.values())),
    }


def _data(config: BenchmarkConfig, usable: Sequence[TruthRecord]) -> dict[str, Any]:
    nodes = [node for truth in usable for node in truth.nodes]
    return {
        # of images, masks and ENE labels, whatever their names and order
        "sha256": digest(sorted(truth.content_sha256 for truth in usable)),
        "settings": _settings_that_count(config, usable),
        "cases": len(usable),
        "patients": len({truth.patient_id for truth in usable}),
        "nodes": len(nodes),
        "nodes_labelled": sum(node.ene is not None for node in nodes),
        "nodes_ene": sum(node.ene == 1 for node in nodes),
        "labels": labels_that_count(usable) if usable else [],
        "case_ids": [truth.case_id for truth in usable],
    }


def _pairing(config: BenchmarkConfig, pairing: Pairing, truths: Sequence[TruthRecord]) -> dict[str, Any]:
    refused = [{"case_id": r.case_id, "reason": r.reason} for r in pairing.refused]
    refused += [{"case_id": t.case_id, "reason": t.reason} for t in truths if t.status != "ok"]
    return {
        "paired": len(pairing.pairs),
        "images_without_mask": list(pairing.images_without_mask),
        "masks_without_image": list(pairing.masks_without_image),
        "refused": refused,
        "beyond_max_cases": len(pairing.pairs) - len(truths),
        "notes": [*pairing.notes, *(f"{t.case_id}: {said}" for t in truths for said in t.warnings)],
    }


def _ene_facts(table: EneTable, truths: Sequence[TruthRecord]) -> dict[str, Any]:
    known = {truth.case_id for truth in truths}
    cases = {row.row: row.case_id for row in table.rows}
    unmatched = [(row, reason) for truth in truths for row, reason in truth.ene_unmatched]
    unmatched += [
        (row.row, "no such case in this benchmark") for row in table.rows if row.case_id not in known
    ]
    unmatched += [
        (row.row, "its case could not be used")
        for truth in truths
        if truth.status != "ok"
        for row in table.of(truth.case_id)
    ]
    return {
        "rows": len(table.rows),
        "matched": sum(truth.ene_matched for truth in truths),
        "unmatched": [{"row": r, "case_id": cases.get(r, ""), "reason": why} for r, why in sorted(unmatched)],
    }


def model_figures(config: BenchmarkConfig, entrant: Entrant, records: Sequence[CaseRecord]) -> dict[str, Any]:
    """The figures of one model over its counted cases, as JSON values; other models have no part in them."""
    facts, request = entrant.facts, entrant.request
    entry: dict[str, Any] = {
        "name": entrant.name,
        "key": entrant.key,
        "kind": entrant.kind,
        "source": source_name(entrant.source),
        "status": "failed" if facts is None else "ok",
        "reason": entrant.reason,
    }
    if facts is None:
        return entry
    done = [record for record in records if record.status == "ok"]
    flops = next((record.flops for record in done if record.flops is not None), None)
    segments = facts.segments and bool(records)
    return {
        **entry,
        "said": list(facts.said),
        "sha256": _content_sha256(entrant, facts, done),
        "parameters": facts.parameters,
        "size_bytes": facts.size_bytes,
        "flops": flops,
        "ene_threshold": facts.ene_threshold,
        # figures of finding nodes mean another thing where the boxes come from the truth
        "prompts": request.entry.prompts if request and request.kind == "promptable" else "none",
        "cases": {"ok": len(done), "failed": len(records) - len(done)},
        "segmentation": {n: _segmentation(config, records, n) for n in LABEL_VALUES} if segments else None,
        "aggregated_dice": {n: _aggregated(config, records, n) for n in LABEL_VALUES} if segments else None,
        "detection": _detection(config, records) if segments else None,
        "classification": judgement(config, entrant, records) if facts.classifies else None,
        "resources": _resources(config, done),
    }


def _segmentation(config: BenchmarkConfig, records: Sequence[CaseRecord], label: str) -> dict[str, Any]:
    patients = [record.patient_id for record in records]
    return {
        name: asdict(
            summarise(
                [(record.segmentation or {})[label].cohort_value(name) for record in records],
                patients,
                **config.bootstrap,
            )
        )
        for name in SEGMENTATION_METRICS
    }


def _aggregated(config: BenchmarkConfig, records: Sequence[CaseRecord], label: str) -> dict[str, Any]:
    metrics, patients = [(r.segmentation or {})[label] for r in records], [r.patient_id for r in records]
    return asdict(aggregated_dice(metrics, patients, **config.bootstrap))


def _detection(config: BenchmarkConfig, records: Sequence[CaseRecord]) -> dict[str, Any]:
    matches, patients = matches_of(records), [record.patient_id for record in records]
    figures = detection(matches, patients, **config.bootstrap)
    return {"label": GTVN, **asdict(figures), "froc": asdict(froc(matches, patients, **config.bootstrap))}


def _resources(config: BenchmarkConfig, records: Sequence[CaseRecord]) -> dict[str, Any]:
    patients = [record.patient_id for record in records]

    def by_step(spent: Sequence[dict[str, float]]) -> dict[str, Any]:
        values = {step: [one.get(step) for one in spent] for step in STEPS}
        values["total"] = [sum(one.values()) for one in spent]
        return {step: asdict(summarise(v, patients, **config.bootstrap)) for step, v in values.items()}

    rss = [r.peak_rss_mib for r in records if r.peak_rss_mib is not None]
    gpu = [r.peak_gpu_mib for r in records if r.peak_gpu_mib is not None]
    return {
        "seconds": by_step([record.seconds for record in records]),
        "cpu_seconds": by_step([record.cpu_seconds for record in records]),
        "inference_repeats": max((r.inference_repeats for r in records), default=None),
        "peak_rss_mib": {"max": max(rss, default=None), "mean": sum(rss) / len(rss) if rss else None},
        "peak_gpu_mib": {"max": max(gpu), "mean": sum(gpu) / len(gpu)} if gpu else None,
    }
