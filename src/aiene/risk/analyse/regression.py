"""Cox regression of one endpoint in one population: univariable, adjusted, imputed; Fine-Gray beside it.

A fit ends in a result or in one sentence that says why there is none. Proportional hazards are tested and
plotted by Schoenfeld residuals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from aiene.errors import UsageError
from aiene.report.document import Column, Figure, Table, Text
from aiene.report.formatting import NOTHING, interval_text, p_text, plain, plain_rows
from aiene.risk.analyse.charts.curves import draw_residuals
from aiene.risk.analyse.charts.forest import draw_forest
from aiene.risk.analyse.cohort import Outcome, check_events, numeric
from aiene.risk.analyse.design import Design, Term, estimable, make_design
from aiene.risk.analyse.records import AnalysisSettings, Part, Skipped
from aiene.stats.competing_risks import fine_gray
from aiene.stats.cox import Engine
from aiene.stats.cox import cox as _cox
from aiene.stats.cox_model import CoxFit
from aiene.stats.proportional_hazards import proportional_hazards, schoenfeld
from aiene.stats.records import NotEstimableError
from aiene.stats.sample_size import information

MARKER = "n_ai_ene"
MARKER_TERM = Term(MARKER, "AI-ENE, per node", "", (MARKER,), ("",))
COUNT_MODELS = (
    Column("model", "Model"),
    Column("n", "n", "count"),
    Column("events", "Events", "count"),
    Column("hr", "HR per AI-ENE node (interval)", "number", "lower", "upper"),
    Column("p", "p", "p"),
    Column("remark", "Remark"),
)
"""Of a table of models, each with its hazard ratio of the count."""
_COLUMNS = (
    Column("term", "Factor"),
    Column("level", "Level"),
    Column("uni_n", "n", "count"),
    Column("uni_events", "Events", "count"),
    Column("uni_hr", "HR alone (interval)", "number", "uni_lower", "uni_upper"),
    Column("uni_p", "p", "p"),
    Column("adj_hr", "HR adjusted (interval)", "number", "adj_lower", "adj_upper"),
    Column("adj_p", "p", "p"),
    Column("without_hr", "adjusted, without AI-ENE", "number", "without_lower", "without_upper"),
)
_FG = (
    Column("term", "Factor"),
    Column("level", "Level"),
    Column("shr", "Subdistribution HR (interval)", "number", "shr_lower", "shr_upper"),
    Column("shr_p", "p", "p"),
    Column("hr", "Cause-specific HR (interval)", "number", "lower", "upper"),
    Column("p", "p", "p"),
)


# Fits


def cox(
    time: np.ndarray, event: np.ndarray, matrix: pd.DataFrame, *, engine: Engine = "newton", **settings: Any
) -> CoxFit:
    """`aiene.stats.cox`, but no model with as many parameters as events, and no error of a matrix.

    Parameters
    ----------
    engine : the quick one for the many models compared; the tables of hazard ratios ask for lifelines.

    Raises
    ------
    NotEstimableError : the data hold too little for this model.
    """
    events, parameters = int(np.sum(event)), matrix.shape[1]
    check_events(events)
    if parameters > 1 and parameters >= events:
        raise NotEstimableError(
            f"a model of {parameters} parameters cannot be fitted to {events} event{'s' * (events != 1)}",
            "leave out covariates",
        )
    try:
        return _cox(time, event, matrix, engine=engine, **settings)
    except np.linalg.LinAlgError as error:
        problem = "there are too few patients for this model (a singular information matrix)"
        raise NotEstimableError(problem, "leave out covariates or merge sparse levels") from error


def guarded(what: str, function: Any, *arguments: Any) -> Any:
    """The result of a step, or a part that says why there is none."""
    try:
        return function(*arguments)
    except (NotEstimableError, UsageError) as error:  # patients that one step cannot take; the others can
        reason = str(error)
    except np.linalg.LinAlgError:
        reason = "there are too few patients for it (a singular matrix)."
    return Part((Text(f"{what}: {reason}", kind="warning"),), (Skipped(what, reason),))


@dataclass(frozen=True)
class Sample:
    """Patients of one population with one endpoint, and their covariates.

    Parameters
    ----------
    name, label : of the population.
    outcome : n patients.
    table : the same n patients, plain index.
    design : covariates of the same n patients.
    """

    name: str
    label: str
    outcome: Outcome
    table: pd.DataFrame
    design: Design

    @property
    def count(self) -> np.ndarray:
        """AI-ENE nodes; float (n,)."""
        return numeric(self.table, MARKER)

    def complete(self) -> tuple[Outcome, Design, np.ndarray]:
        """Outcome, covariates that can be estimated, and count of those without a missing covariate."""
        keep = self.design.complete
        return self.outcome.take(keep), estimable(self.design, keep), self.count[keep]


def make_sample(
    name: str, label: str, table: pd.DataFrame, outcome: Outcome, covariates: Sequence[str]
) -> Sample:
    """The patients of a population that have the endpoint; HPV is no covariate within an HPV stratum."""
    own = table.iloc[outcome.rows].reset_index(drop=True)
    names = [c for c in covariates if c != "hpv" or name == "all"]
    return Sample(name, label, outcome, own, make_design(own, names))


def cox_part(sample: Sample, settings: AnalysisSettings) -> Part:
    """The table of hazard ratios, its forest, and what had to be done to get them."""
    outcome, title = sample.outcome, f"{sample.outcome.label}, {_small(sample.label)}"
    if not outcome.n_events:
        reason = f"{title}: none of {outcome.n} patients has the event, so no model can be fitted."
        return Part((Text(reason, kind="warning"),), (Skipped(f"Cox, {title}", reason),))
    terms = (MARKER_TERM, *sample.design.terms)
    complete, design, count = sample.complete()
    matrix = design.matrix.assign(**{MARKER: count})[[MARKER, *design.matrix.columns]]
    rows = _univariable(sample, terms, settings)
    notes, warnings, skipped = [_lost(sample, complete)], [], []
    try:
        with_marker = cox(
            complete.time, complete.event, matrix, confidence=settings.confidence, engine="lifelines"
        )
    except NotEstimableError as error:
        notes.append(f"Adjusted model not estimable: {error}")
        skipped.append(Skipped(f"Adjusted Cox model, {title}", str(error)))
    else:
        _add(rows, with_marker, "adj")
        notes += _said(with_marker)
        told = information(complete.n_events, matrix.shape[1])
        notes.append(f"Events per parameter of the adjusted model: {told.epv:.1f}.")
        warnings += [f"Cox, {title}: {r}" for r in told.reasons]
        _add_without(rows, complete, design, settings)
    notes += [f"{label} is not used: {why}." for label, why in design.dropped]
    stem = f"cox_{outcome.name}_{sample.name}"
    table = Table(stem, f"{title}: Cox regression", _COLUMNS, plain_rows(rows), " ".join(notes))
    items: list[Any] = [table]
    if any(r.get("adj_hr") is not None for r in rows) and sample.name == "all":
        items.insert(0, _forest(stem, title, rows, complete, matrix, settings))
    return Part(tuple(items), tuple(skipped), tuple(warnings))


def _univariable(sample: Sample, terms: Sequence[Term], settings: AnalysisSettings) -> list[dict[str, Any]]:
    matrix = sample.design.matrix.assign(**{MARKER: sample.count})
    rows: list[dict[str, Any]] = []
    for term in terms:
        own = matrix[list(term.columns)]
        known = own.notna().all(axis=1).to_numpy(dtype=bool)
        kept = sample.outcome.take(known)
        head = {"term": term.label, "reference": term.reference, "uni_n": kept.n, "uni_events": kept.n_events}
        found: dict[str, Any] = {}
        try:
            design = own.loc[known].reset_index(drop=True)
            fit = cox(kept.time, kept.event, design, confidence=settings.confidence, engine="lifelines")
            found = {r.name: r for r in fit.rows}
            head["uni_method"] = fit.method
        except NotEstimableError as error:
            head["uni_reason"] = str(error)
        for column, level in zip(term.columns, term.levels, strict=True):
            row = head | {"column": column, "level": _level(level, term.reference)}
            if column in found:
                r = found[column]
                row |= {"uni_hr": r.hr, "uni_lower": r.lower, "uni_upper": r.upper, "uni_p": r.p}
            rows.append(row)
    return rows


def _level(level: str, reference: str) -> str:
    return f"{level} (against {reference})" if reference else ""


def _add(rows: list[dict[str, Any]], fit: CoxFit, prefix: str) -> None:
    """Write the estimates of a fit into the rows of its columns."""
    found = {r.name: r for r in fit.rows}
    for row in rows:
        if row["column"] in found:
            r = found[row["column"]]
            row |= {
                f"{prefix}_hr": r.hr,
                f"{prefix}_lower": r.lower,
                f"{prefix}_upper": r.upper,
                f"{prefix}_p": r.p,
            }
        row |= {f"{prefix}_n": fit.n, f"{prefix}_events": fit.events, f"{prefix}_method": fit.method}


def _add_without(
    rows: list[dict[str, Any]], outcome: Outcome, design: Design, settings: AnalysisSettings
) -> None:
    if not design.matrix.shape[1]:
        return
    try:
        fit = cox(
            outcome.time, outcome.event, design.matrix, confidence=settings.confidence, engine="lifelines"
        )
    except NotEstimableError:
        return
    _add(rows, fit, "without")


def _lost(sample: Sample, complete: Outcome) -> str:
    lost = sample.outcome.n - complete.n
    gone = sample.outcome.n_events - complete.n_events
    return (
        f"Adjusted model on complete cases: n = {complete.n}, events = {complete.n_events}; "
        f"{lost} of {sample.outcome.n} patients ({gone} events) are lost to missing covariates."
    )


def _said(fit: CoxFit) -> list[str]:
    said = []
    if fit.separation:
        named = ", ".join(fit.separation)
        said.append(
            f"Separation: {named} would run to infinity, so the model was fitted by "
            f"{'Firth' if fit.method == 'firth' else fit.method}'s penalised likelihood."
            if fit.method != "ridge"
            else f"Separation: {named} would run to infinity, so the model was fitted with a ridge penalty."
        )
    return said + [w if w.endswith(".") else f"{w}." for w in fit.warnings]


def _forest(
    stem: str,
    title: str,
    rows: Sequence[dict[str, Any]],
    complete: Outcome,
    matrix: pd.DataFrame,
    settings: AnalysisSettings,
) -> Figure:
    shown: list[dict[str, Any]] = []
    for row in rows:
        value = row.get("adj_hr")
        text = NOTHING
        if value is not None:
            shown_value = interval_text(value, row["adj_lower"], row["adj_upper"])
            text = f"{shown_value}, p {_with_sign(row['adj_p'])}"
        column, term, levelled = row["column"], row["term"], bool(row["level"])
        if levelled and (not shown or shown[-1]["term"] != term):
            own = [r["column"] for r in rows if r["term"] == term and r["column"] in matrix]
            inside = ~(matrix[own] == 1).any(axis=1).to_numpy() if own else np.zeros(complete.n, dtype=bool)
            label = f"{term}: {row['reference']} (reference)"
            shown.append(_line(term, label, complete.take(inside), value=1.0, text="1"))
        among = (
            (matrix[column] == 1).to_numpy() if levelled and column in matrix else np.ones(complete.n, bool)
        )
        own_patients = complete.take(among) if column in matrix else None
        label = f"{term}: {row['level'].split(' (against ')[0]}" if levelled else term
        line = _line(term, label, own_patients, value=value, text=text)
        line |= {"low": row.get("adj_lower"), "high": row.get("adj_upper"), "p": row.get("adj_p")}
        shown.append(line | {"head": column == MARKER, "look": 2 if column == MARKER else 0})
    shown = list(plain_rows(shown))
    legend = (
        f"{title}: adjusted hazard ratios, Cox regression (Efron ties), all factors in one model; n and "
        "events by level; "
        f"n = {complete.n}, events = {complete.n_events}; {settings.confidence:.0%} Wald intervals."
    )
    content = {
        "rows": shown,
        "x_label": "Hazard ratio (logarithmic axis)",
        "heading": "HR (interval), p",
    }
    data = {
        "factor": [r["label"] for r in shown],
        "n": [r["n"] for r in shown],
        "events": [r["events"] for r in shown],
        "hr": [r["value"] for r in shown],
        "lower": [r["low"] for r in shown],
        "upper": [r["high"] for r in shown],
    }
    return Figure(
        f"forest_{stem.removeprefix('cox_')}",
        f"{title}: adjusted hazard ratios",
        legend,
        partial(draw_forest, content),
        data,
        wide=True,
    )


def _line(
    term: str, label: str, patients: Outcome | None, *, value: float | None, text: str
) -> dict[str, Any]:
    """A line of the forest, without an interval."""
    n, events = (patients.n, patients.n_events) if patients is not None else (None, None)
    counts = f"{n} / {events}" if patients is not None else ""
    line = {"term": term, "label": label, "head": False, "value": value, "low": None, "high": None}
    return line | {"text": text, "look": 0, "n": n, "events": events, "counts": counts}


def fine_gray_part(sample: Sample, settings: AnalysisSettings) -> Part:
    """Subdistribution hazard ratios of the adjusted model, beside the cause-specific ones."""
    complete, design, count = sample.complete()
    title = f"{complete.event_word.capitalize()}, {_small(sample.label)}"
    matrix = design.matrix.assign(**{MARKER: count})[[MARKER, *design.matrix.columns]]
    what = f"Fine-Gray, {title}"
    if not complete.n_events:
        return Part((), (Skipped(what, "no event among the complete cases"),))
    rows = []
    try:
        fit = fine_gray(complete.time, complete.state, matrix, confidence=settings.confidence)
        specific = cox(complete.time, complete.event, matrix, confidence=settings.confidence)
    except NotEstimableError as error:
        return Part((Text(f"{what}: {error}", kind="warning"),), (Skipped(what, str(error)),))
    cause = {r.name: r for r in specific.rows}
    labels = {
        c: (t, lev) for t in (MARKER_TERM, *design.terms) for c, lev in zip(t.columns, t.levels, strict=True)
    }
    for r in fit.rows:
        term, level = labels[r.name]
        rows.append(
            {
                "term": term.label,
                "level": _level(level, term.reference),
                "shr": r.hr,
                "shr_lower": r.lower,
                "shr_upper": r.upper,
                "shr_p": r.p,
                "hr": cause[r.name].hr,
                "lower": cause[r.name].lower,
                "upper": cause[r.name].upper,
                "p": cause[r.name].p,
            }
        )
    note = (
        f"n = {fit.n}, events = {fit.events}, died first = {fit.competing}. The subdistribution ratio speaks "
        "of the share of patients who get the event, the cause-specific one of its rate among those still at "
        "risk."
    )
    note = " ".join([note, *(w if w.endswith(".") else f"{w}." for w in fit.warnings)])
    return Part(
        (
            Table(
                f"finegray_{complete.name}_{sample.name}", f"{title}: Fine-Gray", _FG, plain_rows(rows), note
            ),
        )
    )


def _with_sign(p: float | None) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def _small(text: str) -> str:
    return text[0].lower() + text[1:] if text.startswith("All") else text


# Proportional hazards


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
        return Part((Text(f"{what}: {error}", kind="warning"),), (Skipped(what, str(error)),))
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
        f"Evidence against proportional hazards (p < 0.05): {', '.join(low)}; read these hazard ratios as "
        "averages over follow-up, and see the restricted means."
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
    return Figure(f"schoenfeld_{name}", what, legend, partial(draw_residuals, content), data, wide=True)


def _signed(p: float | None) -> str:
    text = p_text(p)
    return text if text[0] == "<" else f"= {text}"
