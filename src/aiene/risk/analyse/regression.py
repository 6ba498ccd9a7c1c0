"""Cox regression of one endpoint in one population: univariable, adjusted, imputed; Fine-Gray beside it.

A fit ends in a result or in one sentence that says why there is none. Proportional hazards are tested and
plotted by Schoenfeld residuals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from aiene.errors import UsageError
from aiene.report.document import Figure, Text
from aiene.report.formatting import NOTHING, interval_text, p_text, plain, plain_rows
from aiene.risk.analyse.charts.curves import draw_residuals
from aiene.risk.analyse.charts.forest import draw_forest
from aiene.risk.analyse.cohort import Cohort, Outcome, check_events, numeric, outcome_of, small
from aiene.risk.analyse.design import Design, Term, estimable, make_design, varying
from aiene.risk.analyse.records import AnalysisSettings, Endpoint, Part, Skipped, effect, figure_of, table_of
from aiene.stats.competing_risks import fine_gray
from aiene.stats.cox import Engine
from aiene.stats.cox import cox as _cox
from aiene.stats.cox_model import CoxFit
from aiene.stats.proportional_hazards import proportional_hazards, schoenfeld
from aiene.stats.records import NotEstimableError
from aiene.stats.sample_size import information

MARKER = "n_ai_ene"
MARKER_TERM = Term(MARKER, "AI-ENE, per node", "", (MARKER,), ("",))
FEWEST_FOR_EFFECT = 10
"""Events that a subgroup or centre needs for a hazard ratio of its own, and for each of its parameters."""


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
    return Part.failed(what, reason)


def too_few(error: Exception) -> str:
    """Why a model could not be fitted, for the remark of its row."""
    return str(error) if isinstance(error, NotEstimableError) else "there are too few patients for it"


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


def with_count(matrix: pd.DataFrame, count: np.ndarray) -> pd.DataFrame:
    """Columns of covariates with the count (n,) as the first."""
    return matrix.assign(**{MARKER: count})[[MARKER, *matrix.columns]]


def count_effect(outcome: Outcome, matrix: pd.DataFrame, settings: AnalysisSettings) -> dict[str, Any]:
    """The count's hazard ratio in some patients; unadjusted where the events are few for the covariates."""
    columns = varying(matrix)
    row: dict[str, Any] = {**outcome.counts}
    if outcome.n_events < FEWEST_FOR_EFFECT or MARKER not in columns:
        return row | {"remark": f"fewer than {FEWEST_FOR_EFFECT} events, or one count"}
    if outcome.n_events < FEWEST_FOR_EFFECT * columns.shape[1]:
        columns, row["remark"] = columns[[MARKER]], "unadjusted"
    try:
        return row | effect(cox(outcome.time, outcome.event, columns, confidence=settings.confidence).rows[0])
    except (NotEstimableError, np.linalg.LinAlgError) as error:
        return row | {"remark": too_few(error)}


def tried(model: str, outcome: Outcome, cells: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """A row of a table of models: what the model gives, or why it could not be fitted.

    Parameters
    ----------
    model : in words.
    outcome : of the patients that it is fitted on.
    cells : fits the model and gives the cells of its row.
    """
    try:
        return {"model": model, **outcome.counts, **cells()}
    except (NotEstimableError, np.linalg.LinAlgError) as error:
        return {"model": model, **outcome.counts, "remark": too_few(error)}


def make_sample(
    name: str, label: str, table: pd.DataFrame, outcome: Outcome, covariates: Sequence[str]
) -> Sample:
    """The patients of a population that have the endpoint; HPV is no covariate within an HPV stratum."""
    own = table.iloc[outcome.rows].reset_index(drop=True)
    names = [c for c in covariates if c != "hpv" or name == "all"]
    return Sample(name, label, outcome, own, make_design(own, names))


def sample_of_all(cohort: Cohort, endpoint: Endpoint, settings: AnalysisSettings) -> Sample:
    """All patients that have an endpoint."""
    outcome, _ = outcome_of(cohort.table, endpoint)
    return make_sample("all", "All patients", cohort.table, outcome, settings.covariates)


def cox_part(sample: Sample, settings: AnalysisSettings) -> Part:
    """The table of hazard ratios, its forest, and what had to be done to get them."""
    outcome, title = sample.outcome, f"{sample.outcome.label}, {small(sample.label)}"
    if not outcome.n_events:
        reason = f"{title}: none of {outcome.n} patients has the event, so no model can be fitted."
        return Part((Text(reason, kind="warning"),), (Skipped(f"Cox, {title}", reason),))
    terms = (MARKER_TERM, *sample.design.terms)
    complete, design, count = sample.complete()
    matrix = with_count(design.matrix, count)
    rows = _univariable(sample, terms, settings)
    notes, warnings, skipped = [_lost(sample, complete)], [], []
    try:
        with_marker = _table_cox(complete, matrix, settings)
    except NotEstimableError as error:
        notes.append(f"Adjusted model not estimable: {error}")
        skipped.append(Skipped(f"Adjusted Cox model, {title}", str(error)))
    else:
        _add(rows, with_marker, "adj")
        notes += _said(with_marker)
        told = information(complete.n_events, matrix.shape[1])
        notes.append(f"Events per parameter of the adjusted model: {told.epv:.1f}.")
        warnings += [f"Cox, {title}: {r}" for r in told.reasons]
        with suppress(NotEstimableError):
            if design.matrix.shape[1]:
                _add(rows, _table_cox(complete, design.matrix, settings), "without")
    notes += [f"{label} is not used: {why}." for label, why in design.dropped]
    of = f"{outcome.name}_{sample.name}"
    items: list[Any] = [table_of("cox", rows, of=of, title=title, note=" ".join(notes))]
    if any(r.get("adj_hr") is not None for r in rows) and sample.name == "all":
        items.insert(0, _forest(of, title, rows, complete, matrix, settings))
    return Part(tuple(items), tuple(skipped), tuple(warnings))


def _table_cox(outcome: Outcome, matrix: pd.DataFrame, settings: AnalysisSettings) -> CoxFit:
    return cox(outcome.time, outcome.event, matrix, confidence=settings.confidence, engine="lifelines")


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
            fit = _table_cox(kept, own.loc[known].reset_index(drop=True), settings)
            found = {r.name: r for r in fit.rows}
            head["uni_method"] = fit.method
        except NotEstimableError as error:
            head["uni_reason"] = str(error)
        for column, level in zip(term.columns, term.levels, strict=True):
            row = head | {"column": column, "level": term.against(level)}
            rows.append(row | effect(found[column], "uni_") if column in found else row)
    return rows


def _add(rows: list[dict[str, Any]], fit: CoxFit, prefix: str) -> None:
    """Write the estimates of a fit into the rows of its columns."""
    found = {r.name: r for r in fit.rows}
    for row in rows:
        if row["column"] in found:
            row |= effect(found[row["column"]], f"{prefix}_")
        row |= {f"{prefix}_n": fit.n, f"{prefix}_events": fit.events, f"{prefix}_method": fit.method}


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
        run = f"{', '.join(fit.separation)} would run to infinity"
        said.append(f"Separation: {run}, so the model was fitted by Firth's penalised likelihood.")
    return said + [w if w.endswith(".") else f"{w}." for w in fit.warnings]


def _forest(
    of: str,
    title: str,
    rows: Sequence[dict[str, Any]],
    complete: Outcome,
    matrix: pd.DataFrame,
    settings: AnalysisSettings,
) -> Figure:
    shown: list[dict[str, Any]] = []
    for row in rows:
        value, text = row.get("adj_hr"), NOTHING
        if value is not None:
            shown_value = interval_text(value, row["adj_lower"], row["adj_upper"])
            text = f"{shown_value}, p {_with_sign(row['adj_p'])}"
        column, term, levelled = row["column"], row["term"], bool(row["level"])
        if levelled and (not shown or shown[-1]["term"] != term):
            own = [r["column"] for r in rows if r["term"] == term and r["column"] in matrix]
            inside = ~(matrix[own] == 1).any(axis=1).to_numpy() if own else np.zeros(complete.n, dtype=bool)
            label = f"{term}: {row['reference']} (reference)"
            shown.append(_line(term, label, complete.take(inside), value=1.0, text="1"))
        own_patients = complete if column in matrix else None
        if levelled and column in matrix:
            own_patients = complete.take((matrix[column] == 1).to_numpy())
        label = f"{term}: {row['level'].split(' (against ')[0]}" if levelled else term
        line = _line(term, label, own_patients, value=value, text=text)
        line |= {"low": row.get("adj_lower"), "high": row.get("adj_upper"), "p": row.get("adj_p")}
        shown.append(line | {"head": column == MARKER, "look": 2 if column == MARKER else 0})
    shown = list(plain_rows(shown))
    content = {"rows": shown, "x_label": "Hazard ratio (logarithmic axis)", "heading": "HR (interval), p"}
    data = {
        key: [r[source] for r in shown]
        for key, source in (
            *(("factor", "label"), ("n", "n"), ("events", "events")),
            *(("hr", "value"), ("lower", "low"), ("upper", "high")),
        )
    }
    said = {"of": of, "title": title, "outcome": complete, "settings": settings}
    return figure_of("forest", draw_forest, content, data, wide=True, **said)


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
    title = f"{complete.event_word.capitalize()}, {small(sample.label)}"
    matrix = with_count(design.matrix, count)
    what = f"Fine-Gray, {title}"
    if not complete.n_events:
        return Part((), (Skipped(what, "no event among the complete cases"),))
    try:
        fit = fine_gray(complete.time, complete.state, matrix, confidence=settings.confidence)
        specific = cox(complete.time, complete.event, matrix, confidence=settings.confidence)
    except NotEstimableError as error:
        return Part.failed(what, error)
    cause = {r.name: r for r in specific.rows}
    rows: list[dict[str, Any]] = []
    for r in fit.rows:
        term, level = design.labels(MARKER_TERM)[r.name]
        row = {"term": term.label, "level": term.against(level), "shr": r.hr}
        row |= {"shr_lower": r.lower, "shr_upper": r.upper, "shr_p": r.p}
        rows.append(row | effect(cause[r.name]))
    warnings = "".join(f" {w}" if w.endswith(".") else f" {w}." for w in fit.warnings)
    said = {"of": f"{complete.name}_{sample.name}", "title": title, "fit": fit, "warnings": warnings}
    return Part((table_of("finegray", rows, **said),))


def _with_sign(p: float | None) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


# Proportional hazards


def hazards_part(sample: Sample, settings: AnalysisSettings) -> Part:
    """Tests of the adjusted model's terms, and the residuals of each over time."""
    complete, design, count = sample.complete()
    what = f"{complete.label}, {sample.label}: proportional hazards"
    matrix = varying(with_count(design.matrix, count))
    if complete.n_events < 3 or not matrix.shape[1]:
        return Part((), (Skipped(what, f"too few events among the complete cases ({complete.n_events})."),))
    try:
        tests = proportional_hazards(complete.time, complete.event, matrix)
        residuals = schoenfeld(complete.time, complete.event, matrix)
    except NotEstimableError as error:
        return Part.failed(what, error)
    labels = {
        column: f"{term.label}: {level}" if level else term.label
        for column, (term, level) in design.labels(MARKER_TERM).items()
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
    said = {"of": f"{complete.name}_{sample.name}", "what": what, "outcome": complete}
    table = table_of("ph", rows, **said, transform=tests.transform, verdict=verdict)
    p_of = {r.name: plain(r.p) for r in tests.rows}
    if sample.name != "all":
        return Part((table,))
    return Part((_figure(residuals, labels, p_of, said), table))


def _figure(residuals: Any, labels: dict[str, str], p_of: dict[str, Any], said: dict[str, Any]) -> Figure:
    panels = []
    data: dict[str, list[Any]] = {k: [] for k in ("factor", "time", "residual")}
    for number, column in enumerate(residuals.names):
        values = residuals.residuals[:, number]
        smooth: Sequence[Any] = residuals.smooth.get(column) or ([], [], [], [])
        low, high = np.percentile(values, (2, 98)) if values.size else (-1.0, 1.0)
        pad = 0.15 * (high - low) or 1.0
        panels.append(
            {
                "title": f"{labels[column]} (p {_with_sign(p_of.get(column))})",
                "time": plain(residuals.times),
                "residual": plain(values),
                **dict(zip(("smooth_time", "smooth", "low", "high"), map(plain, smooth), strict=True)),
                "coefficient": float(np.mean(values)) if values.size else 0.0,
                "y_range": [float(min(low - pad, 0)), float(max(high + pad, 0))],
            }
        )
        data["factor"] += [labels[column]] * len(values)
        data["time"] += plain(residuals.times)
        data["residual"] += plain(values)
    content = {"panels": panels, "x_label": "Years", "y_label": "log hazard ratio"}
    return figure_of("schoenfeld", draw_residuals, content, data, wide=True, **said)
