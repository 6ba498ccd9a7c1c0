"""The adjusted model with other covariates: multiply imputed ones, and the number and volume of nodes.

Imputed models are pooled by Rubin's rules. Number and volume tell AI-ENE from just more nodes; a user's own
columns can stand beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from aiene.errors import UsageError
from aiene.report.document import Table, Text
from aiene.risk.analyse.cohort import Outcome, numeric, words
from aiene.risk.analyse.design import Design, estimable, varying
from aiene.risk.analyse.records import AnalysisSettings, Part, Skipped, effect, table_of
from aiene.risk.analyse.regression import MARKER, MARKER_TERM, Sample, cox
from aiene.stats.cox_model import nested_lrt
from aiene.stats.imputation import Imputed, Pooled, impute, rubin
from aiene.stats.records import NotEstimableError

_HELPERS = ("smoking_status",)
"""Columns that predict missing covariates without being in the model."""


def imputed_part(sample: Sample, settings: AnalysisSettings) -> Part:
    """The adjusted model on imputed covariates (never HPV, count or outcome), pooled by Rubin's rules."""
    design, outcome = sample.design, sample.outcome
    what = f"Multiple imputation, {outcome.label}, {sample.label}"
    fixed = [c for c in design.matrix if str(c).startswith("hpv")]
    kept = design.matrix[fixed].notna().all(axis=1).to_numpy(dtype=bool)
    outcome, design = outcome.take(kept), estimable(design, kept)
    factors, gaps = _as_factors(design)
    table = sample.table.loc[kept].reset_index(drop=True)
    matrix = factors.assign(**{MARKER: sample.count[kept]})
    helpers = [name for name in _HELPERS if name not in factors and table[name].nunique() > 1]
    matrix = matrix.assign(**{name: table[name] for name in helpers})
    if not gaps:
        return Part((Text(f"{what}: no covariate is missing, so there is nothing to impute."),))
    try:
        imputed = impute(
            matrix,
            gaps,
            time=outcome.time,
            event=outcome.state,
            predictors=[str(c) for c in matrix if c not in gaps],
            bounds={"pack_years": pack_years_bounds(table)} if "pack_years" in gaps else None,
            m=settings.imputations,
            seed=settings.seed,
        )
        fits = [
            cox(outcome.time, outcome.event, _as_columns(t, design), confidence=settings.confidence)
            for t in imputed.tables
        ]
        pooled = rubin(fits, confidence=settings.confidence)
    except NotEstimableError as error:
        return Part.failed(what, error, asked=True)
    return Part((_table(sample, pooled, imputed, design, int((~kept).sum()), helpers, settings),))


def pack_years_bounds(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Least and most pack-years of each patient by their class, in tens as the covariate is; (n,) each."""
    known = words(table, "pack_years_class")
    above = np.nextafter(1.0, 2.0)  # exactly ten pack-years are at most ten
    return np.where(known == "gt10", above, 0.0), np.where(known == "le10", 1.0, np.inf)


def _table(
    sample: Sample,
    pooled: Pooled,
    imputed: Imputed,
    design: Design,
    lost: int,
    helpers: Sequence[str],
    settings: AnalysisSettings,
) -> Table:
    labels = design.labels(MARKER_TERM)
    rows = [
        {"term": labels[r.name][0].label, "level": labels[r.name][1], **effect(r)}
        | {"fraction_missing": r.fraction_missing}
        for r in pooled.rows
    ]
    filled = ", ".join(f"{name} {n}" for name, n in imputed.filled.items())
    death = ", death before it" if sample.outcome.competes else ""
    others = "".join(f", {name.replace('_', ' ')}" for name in helpers)
    within = " Pack-years are drawn within the patient's pack-years class."
    inside = within if "pack_years" in imputed.filled else ""
    return table_of(
        "imputed",
        rows,
        of=f"{sample.outcome.name}_{sample.name}",
        title=f"{sample.outcome.label}, {sample.label}",
        pooled=pooled,
        death=death,
        others=others,
        inside=inside,
        filled=filled,
        lost=lost,
        settings=settings,
    )


def _as_factors(design: Design) -> tuple[pd.DataFrame, list[str]]:
    """One column per term, so that the levels of a factor are imputed together; and those with gaps."""
    factors: dict[str, Any] = {}
    for term in design.terms:
        own = design.matrix[list(term.columns)]
        if term.reference:
            codes = own.to_numpy(dtype=float) @ np.arange(1, own.shape[1] + 1)
            names = ("reference", *term.columns)
            levels = [None if np.isnan(c) else names[int(c)] for c in codes]
            factors[term.name] = pd.Series(levels, dtype="string")
        else:
            factors[term.name] = own.iloc[:, 0]
    frame = pd.DataFrame(factors)
    return frame, [str(c) for c in frame if frame[c].isna().any()]


def _as_columns(table: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Back to the columns of the design, the count first."""
    columns: dict[str, Any] = {MARKER: table[MARKER].to_numpy(dtype=float)}
    for term in design.terms:
        for column in term.columns:
            values = table[term.name] == column if term.reference else table[term.name]
            columns[column] = values.to_numpy(dtype=float)
    return pd.DataFrame(columns)


BURDEN = {
    "n_ai_nodes": "Nodes found by the software",
    "ai_node_volume_ml": "Volume of all nodes",
    "n_nodes": "Involved nodes, as reported",
    "largest_node_cm": "Largest node",
}


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
    measures = [(label, pd.DataFrame({label: v})) for label, v in columns.items() if v is not None]
    if not measures:
        return Part((), (Skipped(what, "the table has no number, volume or size of nodes."),))
    complete = sample.design.complete
    rows = [_row("nothing more", sample, complete, pd.DataFrame(index=range(int(complete.sum()))), settings)]
    if len(measures) > 1:
        measures.append(("all of these", pd.concat([frame for _, frame in measures], axis=1)))
    for label, frame in measures:
        known = complete & frame.notna().all(axis=1).to_numpy()
        rows.append(_row(label, sample, known, frame.loc[known].reset_index(drop=True), settings))
    return Part((table_of("burden", rows, of=sample.outcome.name, what=what),))


def _standard(table: pd.DataFrame, name: str) -> np.ndarray | None:
    values = numeric(table.assign(**{name: pd.to_numeric(table[name], errors="coerce")}), name)
    spread = float(np.nanstd(values)) if np.isfinite(values).any() else 0.0
    return values / spread if spread > 0 else None


def _row(
    label: str, sample: Sample, known: np.ndarray, frame: pd.DataFrame, settings: AnalysisSettings
) -> dict[str, Any]:
    outcome: Outcome = sample.outcome.take(known)
    covariates = varying(sample.design.matrix.loc[known].reset_index(drop=True))
    marker = pd.DataFrame({MARKER: sample.count[known]})
    row: dict[str, Any] = {"adjusted": label, "n": outcome.n, "events": outcome.n_events}
    try:
        whole = pd.concat([marker, frame, covariates], axis=1)
        fit = cox(outcome.time, outcome.event, whole, confidence=settings.confidence)
        row |= effect(fit.rows[0])
        del row["p"]  # of the likelihood ratio, not of Wald
        for key, left_out in (("p", [MARKER]), ("other_p", list(frame))):
            rest = whole.drop(columns=left_out)
            if left_out and rest.shape[1]:
                row[key] = nested_lrt(cox(outcome.time, outcome.event, rest), fit).p
        if frame.shape[1] == 1:
            other = fit.rows[1]
            row |= {"other_hr": other.hr, "other_lower": other.lower, "other_upper": other.upper}
    except NotEstimableError as error:
        row["remark"] = str(error)
    return row
