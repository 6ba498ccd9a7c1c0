"""Do hazards stay proportional: tests and plots of Schoenfeld residuals."""

from __future__ import annotations

from typing import Any

import numpy as np

from aiene.risk.analyse.record import Column, Figure, Part, Skipped, Table, Text
from aiene.risk.analyse.regression import MARKER, MARKER_TERM, Sample
from aiene.risk.analyse.settings import AnalysisSettings
from aiene.risk.analyse.show import p_text, plain, plain_rows
from aiene.risk.stats import NotEstimableError, proportional_hazards, schoenfeld


def hazards_part(sample: Sample, settings: AnalysisSettings) -> Part:
    """Tests of the adjusted model's terms, and the residuals of each over time."""
    complete, design, count = sample.complete()
    what = f"{complete.label}, {sample.label}: proportional hazards"
    matrix = design.matrix.assign(**{MARKER: count})[[MARKER, *design.matrix.columns]]
    matrix = matrix[[c for c in matrix if matrix[c].nunique() > 1]]
    if complete.n_events < 3 or not matrix.shape[1]:
        return Part((), (Skipped(what, f"too few events among the complete cases ({complete.n_events})."),))
    try:
        tests = proportional_hazards(complete.time, complete.event, matrix)
        residuals = schoenfeld(complete.time, complete.event, matrix)
    except NotEstimableError as error:
        return Part((Text(f"{what}: {error}", "warning"),), (Skipped(what, str(error)),))
    labels = {
        c: _label(t.label, lev)
        for t in (MARKER_TERM, *design.terms)
        for c, lev in zip(t.columns, t.levels, strict=True)
    }
    rows: list[dict[str, Any]] = [
        {"term": labels.get(r.name, "All terms together"), "statistic": r.statistic, "df": r.df, "p": r.p}
        for r in (*tests.rows, tests.overall)
    ]
    low = [r["term"] for r in rows if r["p"] is not None and r["p"] < 0.05]
    verdict = (
        f"Evidence against proportional hazards (p < 0.05): {', '.join(low)}; read these hazard ratios "
        "as averages over "
        "follow-up, and see the restricted means."
        if low
        else "No evidence against proportional hazards at the 5 % level."
    )
    columns = (
        Column("term", "Factor"),
        Column("statistic", "Chi-squared", "number3"),
        Column("df", "df", "count"),
        Column("p", "p", "p"),
    )
    name = f"{complete.name}_{sample.name}"
    note = (
        f"Scaled Schoenfeld residuals against the {tests.transform} of time; n = {complete.n}, events = "
        f"{complete.n_events}. {verdict}"
    )
    table = Table(f"ph_{name}", what, columns, plain_rows(rows), note)
    p_of = {r.name: plain(r.p) for r in tests.rows}
    if sample.name != "all":
        return Part((table,))
    return Part((_figure(name, what, residuals, labels, p_of, complete), table))


def _label(term: str, level: str) -> str:
    return f"{term}: {level}" if level else term


def _figure(
    name: str, what: str, residuals: Any, labels: dict[str, str], p_of: dict[str, Any], outcome: Any
) -> Figure:
    panels = []
    data: dict[str, list[Any]] = {k: [] for k in ("factor", "time", "residual")}
    for number, column in enumerate(residuals.names):
        values = residuals.residuals[:, number]
        smooth = residuals.smooth.get(column)
        low, high = np.percentile(values, (2, 98)) if values.size else (-1.0, 1.0)
        pad = 0.15 * (high - low) or 1.0
        panels.append(
            {
                "title": f"{labels[column]} (p {_signed(p_of.get(column))})",
                "time": plain(residuals.times),
                "residual": plain(values),
                "smooth_time": plain(smooth[0]) if smooth else [],
                "smooth": plain(smooth[1]) if smooth else [],
                "low": plain(smooth[2]) if smooth else [],
                "high": plain(smooth[3]) if smooth else [],
                "coefficient": float(np.mean(values)) if values.size else 0.0,
                "y_range": [float(min(low - pad, 0)), float(max(high + pad, 0))],
            }
        )
        data["factor"] += [labels[column]] * len(values)
        data["time"] += plain(residuals.times)
        data["residual"] += plain(values)
    legend = (
        f"{what}: scaled Schoenfeld residuals, one point per event; line: smooth with its 95 % band; "
        "dashed: their mean, "
        f"the coefficient of the model. A line that rises or falls is a hazard ratio that changes. "
        f"n = {outcome.n}, events = {outcome.n_events}. The outer 4 % of the points may lie beyond an axis."
    )
    content = {"panels": panels, "x_label": "Years", "y_label": "log hazard ratio"}
    return Figure(f"schoenfeld_{name}", what, legend, "residuals", content, data, wide=True)


def _signed(p: float | None) -> str:
    text = p_text(p)
    return text if text[0] == "<" else f"= {text}"
