"""AI-ENE, or just more nodes: the count beside number and volume of nodes and a user's own columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from aiene.errors import UsageError
from aiene.report.document import Column, Table
from aiene.report.formatting import plain_rows
from aiene.risk.analyse.cohort import Outcome, numeric
from aiene.risk.analyse.records import Part, Skipped
from aiene.risk.analyse.regression import MARKER, Sample, cox
from aiene.risk.analyse.settings import AnalysisSettings
from aiene.stats.cox_model import nested_lrt
from aiene.stats.records import NotEstimableError

BURDEN = {
    "n_ai_nodes": "Nodes found by the software",
    "ai_node_volume_ml": "Volume of all nodes",
    "n_nodes": "Involved nodes, as reported",
    "largest_node_cm": "Largest node",
}
_COLUMNS = (
    Column("adjusted", "Adjusted also for"),
    Column("n", "n", "count"),
    Column("events", "Events", "count"),
    Column("hr", "HR per AI-ENE node (interval)", "number", "lower", "upper"),
    Column("p", "p of AI-ENE, LRT", "p"),
    Column("other_hr", "HR of the other, per SD (interval)", "number", "other_lower", "other_upper"),
    Column("other_p", "p of the other, LRT", "p"),
    Column("remark", "Remark"),
)


def check_also(table: pd.DataFrame, names: tuple[str, ...]) -> None:
    """That each column named on the command line is there and holds numbers.

    Raises
    ------
    UsageError : one is not, with what can be done.
    """
    for name in names:
        if name not in table:
            raise UsageError(
                f"--also {name}: the table has no such column; it has {', '.join(table.columns)}."
            )
        values = pd.to_numeric(table[name], errors="coerce")
        bad = table[name].notna() & values.isna()
        if bad.any() or not values.notna().any():
            shown = f'"{table[name][bad].iloc[0]}"' if bad.any() else "no value"
            raise UsageError(
                f"--also {name}: a covariate must be a column of numbers, this one holds {shown}."
            )


def burden_part(sample: Sample, settings: AnalysisSettings) -> Part:
    """The hazard ratio of the count beside each measure of nodes alone, and beside all of them."""
    what = f"{sample.outcome.label}: AI-ENE, or just more nodes?"
    names = {**BURDEN, **{name: name for name in settings.also}}
    columns = {label: _standard(sample.table, name) for name, label in names.items() if name in sample.table}
    columns = {label: values for label, values in columns.items() if values is not None}
    if not columns:
        return Part((), (Skipped(what, "the table has no number, volume or size of nodes."),))
    complete = sample.design.complete
    rows = [_row("nothing more", sample, complete, pd.DataFrame(index=range(int(complete.sum()))), settings)]
    measures = [
        (label, pd.DataFrame({label: values})) for label, values in columns.items() if values is not None
    ]
    if len(measures) > 1:
        measures.append(("all of these", pd.concat([frame for _, frame in measures], axis=1)))
    for label, frame in measures:
        known = complete & frame.notna().all(axis=1).to_numpy()
        rows.append(_row(label, sample, known, frame.loc[known].reset_index(drop=True), settings))
    note = (
        "Cox models of the covariates, the count (uncapped) and the named measures, each in standard "
        "deviations "
        "(SD) of all patients, on patients with all of them. p by likelihood-ratio tests of leaving "
        "out the count, "
        "or the measures. The number of AI-ENE nodes is part of the number of nodes, so the two "
        "share what they tell."
    )
    return Part((Table(f"burden_{sample.outcome.name}", what, _COLUMNS, plain_rows(rows), note),))


def _standard(table: pd.DataFrame, name: str) -> np.ndarray | None:
    values = numeric(table.assign(**{name: pd.to_numeric(table[name], errors="coerce")}), name)
    spread = float(np.nanstd(values)) if np.isfinite(values).any() else 0.0
    return values / spread if spread > 0 else None


def _row(
    label: str, sample: Sample, known: np.ndarray, frame: pd.DataFrame, settings: AnalysisSettings
) -> dict[str, Any]:
    outcome: Outcome = sample.outcome.take(known)
    covariates = sample.design.matrix.loc[known].reset_index(drop=True)
    covariates = covariates[[c for c in covariates if covariates[c].nunique() > 1]]
    marker = pd.DataFrame({MARKER: sample.count[known]})
    row: dict[str, Any] = {"adjusted": label, "n": outcome.n, "events": outcome.n_events}
    try:
        whole = pd.concat([marker, frame, covariates], axis=1)
        fit = cox(outcome.time, outcome.event, whole, confidence=settings.confidence)
        row |= {"hr": fit.rows[0].hr, "lower": fit.rows[0].lower, "upper": fit.rows[0].upper}
        rest = whole.drop(columns=MARKER)
        if rest.shape[1]:
            row["p"] = nested_lrt(cox(outcome.time, outcome.event, rest), fit).p
        if frame.shape[1]:
            row["other_p"] = nested_lrt(
                cox(outcome.time, outcome.event, whole.drop(columns=list(frame))), fit
            ).p
        if frame.shape[1] == 1:
            other = fit.rows[1]
            row |= {"other_hr": other.hr, "other_lower": other.lower, "other_upper": other.upper}
    except NotEstimableError as error:
        row["remark"] = str(error)
    return row
