"""The whole external validation in one call: patients, measures, one report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aiene.errors import UsageError, counted
from aiene.parallel import OnProgress
from aiene.report.document import Item, Kind, Section, Table, Text
from aiene.report.formatting import interval_text, plain, value_text
from aiene.risk.analyse.cohort import COMPETING, LABELS, Cohort, Outcome, make_cohort, outcome_of, words
from aiene.risk.analyse.grouping import Stratum, make_groupings
from aiene.risk.analyse.locked_model import YEARS, LockedModel
from aiene.risk.analyse.output import take_folder, write_analysis
from aiene.risk.analyse.records import (
    Analysis,
    AnalysisSettings,
    Endpoint,
    Skipped,
    parse_endpoints,
    table_of,
    text_of,
)
from aiene.risk.analyse.survival import survival_part
from aiene.risk.analyse.text import head_of
from aiene.risk.schemes.scheme import Scheme
from aiene.risk.validate.measures import (
    Found,
    Predictor,
    calibration_items,
    centre_items,
    decision_items,
    discrimination_table,
    measured,
)
from aiene.stats.concordance import harrell_c
from aiene.stats.records import NotEstimableError


@dataclass(frozen=True)
class _Applied:
    """Patients that can be judged, what is judged on them, and who cannot be.

    Parameters
    ----------
    rows : positions in the cohort's table, (n,).
    items : what is shown of these patients; last : of the scheme or models themselves.
    left : (position in the table, reason).
    """

    outcome: Outcome
    rows: np.ndarray
    predictors: tuple[Predictor, ...]
    years: tuple[float, ...]
    items: tuple[Item, ...]
    last: tuple[Item, ...]
    left: tuple[tuple[int, str], ...]


def validate(
    locked: Scheme | Sequence[LockedModel],
    table: pd.DataFrame,
    *,
    out: Path,
    settings: AnalysisSettings | None = None,
    endpoint: str | None = None,
    on_progress: OnProgress | None = None,
) -> Analysis:
    """Judge a locked scheme, or models of one endpoint, on a cohort, and write the report into a folder.

    Parameters
    ----------
    locked : a scheme; or models, the one that the others are compared with first.
    table : canonical table with `n_ai_ene`; for a scheme stratified by it.
    out : folder for analysis.json, report.html, tables/, figures/, methods.txt, excluded.csv.
    endpoint : of a scheme, where it is not the scheme's own.

    Raises
    ------
    UsageError : models of different endpoints, editions that differ, or nobody who can be judged.
    OutputError : the results cannot be written.
    """
    settings = settings or AnalysisSettings()
    cohort = make_cohort(table, settings)
    if isinstance(locked, Scheme):
        applied = _apply_scheme(locked, cohort, endpoint, settings)
    else:
        applied = _apply_models(tuple(locked), cohort, settings)
    if not applied.outcome.n_events:
        raise UsageError(f"none of {applied.outcome.n} patients that can be judged has the event.")
    if not applied.outcome.time.max() > 0:
        raise UsageError("every time is 0, so nobody is followed; look at the times of the table.")
    take_folder(out)
    center = words(cohort.table, "center")[applied.rows]
    found = measured(applied.outcome, applied.predictors, applied.years, center, settings, on_progress)
    analysis = _analysis(locked, cohort, applied, found, settings)
    ids = cohort.table["patient_id"]
    excluded = cohort.left_out
    excluded += [
        {"patient_id": ids.iloc[row], "step": "not judged", "reason": why} for row, why in applied.left
    ]
    write_analysis(analysis, out, excluded=excluded, workers=settings.jobs, on_progress=on_progress)
    return analysis


# The scheme or the models applied


def _judged(
    cohort: Cohort, endpoint: Endpoint, reasons: np.ndarray
) -> tuple[Outcome, np.ndarray, tuple[tuple[int, str], ...]]:
    """Outcome and positions of those with an endpoint and without a reason against them; and the others."""
    outcome, _ = outcome_of(cohort.table, endpoint)
    known = np.zeros(len(cohort.table), dtype=bool)
    known[outcome.rows] = True
    why = np.where(known, reasons, "no time and event of this endpoint")
    keep = reasons[outcome.rows] == ""
    if not keep.any():
        raise UsageError(f"no patient can be judged on {LABELS[endpoint].lower()}: {_commonest(why)}.")
    left = tuple((int(row), str(why[row])) for row in np.flatnonzero(why != ""))
    return outcome.take(keep), outcome.rows[keep], left


def _commonest(reasons: np.ndarray) -> str:
    names, counts = np.unique(reasons[reasons != ""].astype(str), return_counts=True)
    return f"{names[counts.argmax()]} ({counts.max()} patients)" if names.size else "the table is empty"


def _apply_models(models: tuple[LockedModel, ...], cohort: Cohort, settings: AnalysisSettings) -> _Applied:
    endpoints = {m.endpoint for m in models}
    if len(endpoints) != 1:
        raise UsageError(f"the models are of different endpoints ({', '.join(sorted(endpoints))}).")
    (endpoint,) = parse_endpoints(tuple(endpoints))
    reasons = np.full(len(cohort.table), "", dtype=object)
    scores = []
    for model in models:
        score, own = model.linear_predictor(cohort.table)
        reasons = np.where(reasons == "", own, reasons)
        scores.append(score)
    outcome, rows, left = _judged(cohort, endpoint, reasons)
    last = min([float(outcome.time.max()), *(m.last_year for m in models)])
    years = tuple(sorted({y for y in (*settings.calibration_years, settings.decision_years) if y < last}))
    labels = [m.title.split(": ", 1)[-1] for m in models]
    if len(set(labels)) < len(labels):
        labels = [f"{label}, {m.sha256[:8]}" for label, m in zip(labels, models, strict=True)]
    if len(set(labels)) < len(labels):
        raise UsageError("the same model is named twice.")
    predictors = tuple(
        Predictor(label, s[rows], m.risk(s[rows], years))
        for label, m, s in zip(labels, models, scores, strict=True)
    )
    items = (_case_mix(models, outcome, predictors),)
    return _Applied(outcome, rows, predictors, years, items, tuple(_coefficients(m) for m in models), left)


def _apply_scheme(
    scheme: Scheme, cohort: Cohort, endpoint: str | None, settings: AnalysisSettings
) -> _Applied:
    (name,) = parse_endpoints((endpoint or scheme.endpoint,))
    groupings = make_groupings(cohort.table, scheme)
    shown = [g for g in (groupings.base, groupings.combined or groupings.marker) if g is not None]
    ranks = [g.rank(cohort.table) for g in shown]
    reasons = np.full(len(cohort.table), "", dtype=object)
    for grouping, rank in zip(shown, ranks, strict=True):
        reasons = np.where((reasons == "") & (rank < 0), f"no group of {grouping.title}", reasons)
    outcome, rows, left = _judged(cohort, name, reasons)
    predictors = tuple(Predictor(g.title, r[rows].astype(float)) for g, r in zip(shown, ranks, strict=True))
    items: list[Item] = []
    for grouping, rank in zip(shown, ranks, strict=True):
        stratum = Stratum("all", "All patients", outcome, rank[rows], grouping)
        items += survival_part([stratum], settings).items
    years = tuple(y for y in settings.horizons if y < outcome.time.max())
    return _Applied(outcome, rows, predictors, years, (), tuple(items), left)


def _case_mix(models: Sequence[LockedModel], outcome: Outcome, predictors: Sequence[Predictor]) -> Table:
    """Are these patients like those that the model was made with: events, spread of the prediction."""
    rows = []
    for model, predictor in zip(models, predictors, strict=True):
        made, label, score = model.development, predictor.label, predictor.score
        row = {"model": label, "where": "development", "n": made["patients"], "events": made["events"]}
        rows.append(row | {"mean": 0.0, "sd": made["sd_linear_predictor"], "c": made["c"]})
        row = {"model": label, "where": "here", **outcome.counts}
        row |= {"mean": float(score.mean()), "sd": float(score.std()), "c": None}
        with suppress(NotEstimableError):
            row["c"] = harrell_c(outcome.time, outcome.event, score).c
        rows.append(row)
    return table_of("case_mix", rows)


def _coefficients(model: LockedModel) -> Table:
    shown = [(t, level) for t in model.terms for level in t.levels]
    rows = [
        {"term": term.label, "level": term.against(level), "coef": beta, "hr": float(np.exp(beta))}
        | {"mean": mean}
        for (term, level), beta, mean in zip(shown, model.coefficients, model.means, strict=True)
    ]
    kind = "Fine-Gray (subdistribution) model" if model.kind == "fine_gray" else "Cox model"
    years = [y for y in YEARS if y <= model.last_year]
    baseline = model.risk(np.zeros(1), years)[0]
    risks = ", ".join(f"{100 * r:.1f} % at {y:g} years" for y, r in zip(years, baseline, strict=True))
    editions = "".join(f" {k.upper()} of edition {v}." for k, v in model.editions.items() if v)
    said = {"of": model.name, "title": model.title, "kind": kind, "model": model, "risks": risks}
    return table_of("locked", rows, **said, editions=editions, signature=model.sha256[:16])


# The report


def _analysis(
    locked: Scheme | Sequence[LockedModel],
    cohort: Cohort,
    applied: _Applied,
    found: Found,
    settings: AnalysisSettings,
) -> Analysis:
    outcome, simulated = applied.outcome, cohort.simulated
    if isinstance(locked, Scheme):
        title, signed = "Curves of the groups", [(f"Scheme {locked.name}", locked.sha256)]
    else:
        title, signed = "The locked models", [(m.title, m.sha256) for m in locked]
        simulated = simulated or any(m.source.get("simulated") for m in locked)
    alone = (Text("Fewer than two centres are named (center), so there is nothing to pool."),)
    sections = [
        Section("cohort", "The cohort", (_flow(cohort, applied), *applied.items)),
        Section("discrimination", "Discrimination", (discrimination_table(found),)),
        Section("calibration", "Calibration", calibration_items(found)),
        Section("accuracy", "Accuracy", (table_of("brier", found.brier),) if found.brier else ()),
        Section("decision", "Would acting on it help?", decision_items(found)),
        Section("centres", "Centres", centre_items(found) or alone),
        Section("locked", title, applied.last),
    ]
    head = {
        **head_of(settings),
        "locked": [{"title": t, "sha256": s} for t, s in signed],
        "endpoints": [outcome.name],
        "summary": _summary(cohort, applied, found, signed),
    }
    return Analysis(
        head=head,
        sections=tuple(s for s in sections if s.items),
        skipped=tuple(Skipped(what.capitalize(), why, asked=True) for what, why in found.skipped),
        warnings=_warnings(applied),
        simulated=simulated,
        methods=_methods(outcome, applied, settings),
    )


def _flow(cohort: Cohort, applied: _Applied) -> Table:
    rows = [{"reason": step.reason, "n": len(step.left)} for step in cohort.steps if step.left]
    reasons = [why for _, why in applied.left]
    rows += [{"reason": why, "n": reasons.count(why)} for why in dict.fromkeys(reasons)]
    rows.append({"reason": "judged", "n": applied.outcome.n})
    return table_of("left_out", rows)


def _summary(
    cohort: Cohort, applied: _Applied, found: Found, signed: Sequence[tuple[str, str]]
) -> list[dict[str, str]]:
    """The key results: who was judged, and the last predictor's C, O/E and slope."""
    outcome = applied.outcome
    rows = [
        *((title, f"SHA-256 {sha[:16]}") for title, sha in signed),
        (
            "Patients",
            f"{cohort.n_input} in the table, {outcome.n} judged, {counted(outcome.n_events, 'event')}",
        ),
    ]
    last = applied.predictors[-1].label
    shown: tuple[tuple[str, list[dict[str, Any]], str, str, Kind], ...] = (
        ("C (Harrell)", found.discrimination, "c", "", "number3"),
        ("Gain in C", found.discrimination, "delta", "delta_", "number3"),
        ("Observed/expected", found.calibration, "oe", "oe_", "number"),
        ("Calibration slope", found.calibration, "slope", "slope_", "number"),
    )
    for title, source, key, prefix, kind in shown:
        own = [r for r in source if r["model"] == last and r.get("kind", "Harrell") == "Harrell" and key in r]
        if own:
            row = plain(own[-1])
            text, low = value_text(row[key], kind), row.get(f"{prefix}lower")
            if low is not None:
                text = interval_text(row[key], low, row[f"{prefix}upper"], kind)
            when = f" at {row['year']:g} years" if "year" in row else ""
            rows.append((f"{title}{when}, {last}", text))
    return [{"name": name, "value": value} for name, value in rows]


def _warnings(applied: _Applied) -> tuple[str, ...]:
    events = applied.outcome.n_events
    if events >= 100:
        return ()
    return (
        f"{counted(events, 'event')}: an external validation needs about 100 events or more, or its "
        "intervals are too wide to be useful (Collins, Ogundimu and Altman 2016, Stat Med 35:214).",
    )


def _methods(outcome: Outcome, applied: _Applied, settings: AnalysisSettings) -> str:
    death = " Death before the event competed with it." if outcome.name in COMPETING else ""
    years = ", ".join(f"{y:g}" for y in applied.years) or "none"
    events, endpoint = counted(outcome.n_events, "event"), outcome.label.lower()
    said = {"outcome": outcome, "events": events, "endpoint": endpoint, "death": death, "years": years}
    return text_of("validated", settings=settings, **said)
