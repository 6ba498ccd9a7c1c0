"""The tables of a run, each made from the records of its cases."""

from __future__ import annotations

import io
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import pandas as pd

from aiene.csv_tables import probability
from aiene.errors import need
from aiene.nodes.node import CountingRule
from aiene.results.records import CaseResult, NodeResult

PUBLISHED = (
    "case_id", "node", "pos", "ene", "ene_classification",
    "tumor_volume_after_dilation", "tumor_volume_before_dilation",
)  # fmt: skip
"""Columns of the published table, in its order."""

AXES = (
    "short_axis_axial", "short_axis_coronal", "short_axis_sagittal",
    "long_axis_axial", "long_axis_coronal", "long_axis_sagittal", "largest_short_axis",
)  # fmt: skip
"""Its further columns with `--include-short-axes`."""

_NODE_COLUMNS: Final[dict[str, Callable[[NodeResult], Any]]] = {
    "name": lambda node: node.name,
    "side": lambda node: node.side,
    "centroid_x_mm": lambda node: node.centroid_lps_mm[0],
    "centroid_y_mm": lambda node: node.centroid_lps_mm[1],
    "centroid_z_mm": lambda node: node.centroid_lps_mm[2],
    "native_volume_mm3": lambda node: node.native_volume_mm3,
    "native_long_axis_mm": lambda node: node.native_long_axis_mm,
    "native_short_axis_mm": lambda node: node.native_short_axis_mm,
    "counts": lambda node: int(node.counts),
    "ene_entropy_bits": lambda node: entropy_bits(node.ene),
    "touches_crop_border": lambda node: node.touches_crop_border,
    "touches_ct_border": lambda node: node.touches_ct_border,
}
"""Columns of `nodes.csv` after the published ones."""

_COUNTS: Final[dict[str, Callable[[CaseResult], Any]]] = {
    "n_ai_ene": lambda case: case.n_ai_ene,
    "n_ai_nodes": lambda case: len(case.nodes),
    "n_left": lambda case: _on_side(case, "left"),
    "n_right": lambda case: _on_side(case, "right"),
    "max_ene": lambda case: max((n.ene for n in case.nodes if n.ene is not None and n.counts), default=None),
    "largest_node_mm3": lambda case: max((node.native_volume_mm3 for node in case.nodes), default=0.0),
    "total_node_mm3": lambda case: sum(node.native_volume_mm3 for node in case.nodes),
    "primary_found": lambda case: case.has_primary,
}
"""What `patients.csv` counts; empty of a failed case."""


def published_table(results: Iterable[CaseResult], *, axes: bool) -> pd.DataFrame:
    """The published table, column for column.

    One row per node, cases by name in byte order, nodes by the published number. A case where only labels
    that were not chosen were found has one row of node -1 and zeros; one without any label has none.
    """
    rows: list[dict[str, Any]] = []
    for result in sorted(results, key=lambda r: r.case_id.encode()):
        if result.status == "no_nodes" and result.has_primary and not result.has_chosen:
            rows.append({"case_id": result.case_id, "node": -1, "ene_classification": 0})
        rows.extend(_published_row(result, n) for n in sorted(result.nodes, key=lambda n: n.number))
    columns = [*PUBLISHED, *AXES] if axes else list(PUBLISHED)
    table = pd.DataFrame(rows, columns=columns)
    placeholder = table["node"] == -1
    floats = [c for c in columns if c not in ("case_id", "node", "ene_classification")]
    table[floats] = table[floats].astype("float64")
    table.loc[placeholder, floats] = 0.0
    return table.astype({"node": "int64", "ene_classification": "Int64"})


def nodes_table(results: Iterable[CaseResult], *, axes: bool, rule: CountingRule) -> pd.DataFrame:
    """One row per node: the published columns, then place, native size, uncertainty and flags.

    Rounded for people: mm with one decimal, mm3 with none, probabilities with four
    (`csv_tables.probability`). The published table and the record of each case have every digit.

    `counts` is whether the node counts at all (`CountingRule`); where not, `ene_classification` is 0.
    `ene_entropy_bits` is the entropy of the ENE probability: 0 certain, 1 undecided.
    """
    rows = [
        {**_published_row(result, node), **{name: value(node) for name, value in _NODE_COLUMNS.items()}}
        for result in sorted(results, key=lambda r: r.case_id.encode())
        for node in result.nodes
    ]
    columns = [*PUBLISHED, *(AXES if axes else ()), *_NODE_COLUMNS]
    table = pd.DataFrame(rows, columns=columns).astype({"ene_classification": "Int64"})
    return _rounded(table, rule)


def patients_table(results: Iterable[CaseResult], *, model: str, rule: CountingRule) -> pd.DataFrame:
    """One row per patient: of the CT that counts, with the cases of the others.

    `n_ai_nodes` are all nodes that were found; `n_ai_ene` and `max_ene` are of those that count.
    A failed case has empty counts, which is not the same as 0; so has one whose sides cannot be known for
    `n_left` and `n_right`. Rounded as `nodes_table` is.
    """
    rows = [
        {
            "patient_id": result.patient or result.case_id,
            "case_id": result.case_id,
            "status": result.status,
            **({} if result.status == "failed" else {n: count(result) for n, count in _COUNTS.items()}),
            "ai_model": model,
            "ai_threshold": rule.ene_threshold,
            "ai_pos_from": rule.pos_from,
            "ct_date": result.date or None,
            "other_cases": " ".join(other.case_id for other in others),
        }
        for result, others in by_patient(results)
        if result.status != "skipped"
    ]
    columns = ["patient_id", "case_id", "status", *_COUNTS]
    columns += ["ai_model", "ai_threshold", "ai_pos_from", "ct_date", "other_cases"]
    counts = dict.fromkeys(("n_ai_ene", "n_ai_nodes", "n_left", "n_right"), "Int64")
    return _rounded(pd.DataFrame(rows, columns=columns).astype(counts), rule)


def cases_table(results: Sequence[CaseResult]) -> pd.DataFrame:
    """One row per case that went in."""
    rows = [
        {
            "case_id": result.case_id,
            "status": result.status,
            "reason": result.reason,
            "n_ai_nodes": None if result.status in ("failed", "skipped") else len(result.nodes),
            "n_ai_ene": None if result.status in ("failed", "skipped") else result.n_ai_ene,
            "warnings": " | ".join(result.warnings),
            "seconds": round(sum(result.seconds.values()), 1),
            "source": result.source,
            "patient_id": result.patient or result.case_id,
            "ct_date": result.date or None,
            "counts": result.counts,
        }
        for result in sorted(results, key=lambda r: r.case_id.encode())
    ]
    columns = ["case_id", "status", "reason", "n_ai_nodes", "n_ai_ene", "warnings", "seconds", "source"]
    columns += ["patient_id", "ct_date", "counts"]
    return pd.DataFrame(rows, columns=columns).astype({"n_ai_nodes": "Int64", "n_ai_ene": "Int64"})


def _rounded(table: pd.DataFrame, rule: CountingRule) -> pd.DataFrame:
    """The table with as many digits as people read."""
    out = table.copy()
    marks = {"pos": (rule.pos_from,), "ene": (rule.ene_threshold,), "max_ene": (rule.ene_threshold,)}
    for name in table.columns:
        if name in ("pos", "ene", "max_ene", "ene_entropy_bits"):
            shown = [probability(value, marks.get(name, ())) for value in table[name].astype("float64")]
            out[name] = pd.array(shown, dtype="float64")
        elif name.endswith("_mm3") or name.startswith("tumor_volume_"):
            out[name] = table[name].astype("float64").round().astype("Int64")
        elif name.endswith("_mm") or name in AXES:
            out[name] = table[name].astype("float64").round(1)
    return out


def parquet_bytes(table: pd.DataFrame) -> bytes:
    """A table as Parquet: numbers as numbers, everything else as text, null where the CSV is empty.

    Raises
    ------
    MissingExtraError : pyarrow is not installed.
    """
    need("pyarrow", extra="store", purpose="Writing Parquet")
    typed = table.convert_dtypes()
    for name, kind in typed.dtypes.items():
        if pd.api.types.is_object_dtype(kind):
            typed[name] = typed[name].map(str, na_action="ignore").astype("string")
    stream = io.BytesIO()
    typed.to_parquet(stream, index=False)
    return stream.getvalue()


def entropy_bits(probability: float | None) -> float | None:
    """Entropy of a yes-or-no outcome in bits."""
    if probability is None:
        return None
    return -sum(p * math.log2(p) for p in (probability, 1 - probability) if p > 0)


def _published_row(result: CaseResult, node: NodeResult) -> dict[str, Any]:
    return {
        "case_id": result.case_id,
        "node": node.number,
        "pos": node.pos,
        "ene": node.ene,
        "ene_classification": node.ene_classification,
        "tumor_volume_after_dilation": node.volume_after_mm3,
        "tumor_volume_before_dilation": node.volume_before_mm3,
        **(node.axes or {}),
    }


def _on_side(case: CaseResult, side: str) -> int | None:
    return sum(node.side == side for node in case.nodes) if case.sides_known else None


def by_patient(results: Iterable[CaseResult]) -> list[tuple[CaseResult, tuple[CaseResult, ...]]]:
    """Of every patient, in byte order of their names, the result that counts and the others.

    A result without a patient, as older runs left them, is a patient of its own.
    """
    groups: dict[str, list[CaseResult]] = defaultdict(list)
    for result in results:
        groups[result.patient or result.case_id].append(result)
    pairs = []
    for _, group in sorted(groups.items(), key=lambda pair: pair[0].encode("utf-8", "surrogateescape")):
        ordered = sorted(group, key=lambda r: (r.date, r.case_id))
        chosen = next((r for r in ordered if r.counts), ordered[0])
        pairs.append((chosen, tuple(r for r in ordered if r is not chosen)))
    return pairs
