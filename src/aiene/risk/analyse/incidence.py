"""Cumulative incidence by group, death competing: Aalen-Johansen, Gray's test, 1 - Kaplan-Meier beside."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from aiene.report.document import Column, Figure, Table, Text
from aiene.report.formatting import plain_rows
from aiene.risk.analyse.charts.curves import draw_curves
from aiene.risk.analyse.cohort import Outcome
from aiene.risk.analyse.curve_panels import (
    DRAWN,
    TEST_COLUMNS,
    axis_end,
    censored_before,
    curve_data,
    cut,
    group_label,
    group_ratios,
    lower,
    step_curve,
    ticks_to,
)
from aiene.risk.analyse.group_tests import gray_note, gray_tests
from aiene.risk.analyse.grouping import Stratum
from aiene.risk.analyse.records import AnalysisSettings, Part
from aiene.stats.competing_risks import cumulative_incidence
from aiene.stats.survival_curves import kaplan_meier


def competing_part(strata: Sequence[Stratum], settings: AnalysisSettings) -> Part:
    """Tables, tests and figures of one endpoint in one grouping, death before the event competing."""
    usable = [s for s in strata if s.outcome.n]
    if not usable:
        return Part()
    return _part(usable, settings)


def _part(usable: Sequence[Stratum], settings: AnalysisSettings) -> Part:
    outcome, grouping = usable[0].outcome, usable[0].grouping
    stem = f"cif_{outcome.name}_{grouping.name}"
    title = f"{outcome.event_word.capitalize()} by {lower(grouping.title)}"
    if not any(s.outcome.n_events for s in usable):
        return Part((Text(f"{title}: no event, so there is no incidence to show.", kind="warning"),))
    table = Table(
        stem,
        f"{title}: cumulative incidence and 1 - Kaplan-Meier",
        _columns(settings.horizons),
        plain_rows([row for s in usable for row in _rows(s, settings)]),
        "Cumulative incidence by Aalen-Johansen, death before the event competing; 1 - KM takes death for "
        "censoring and so overstates the risk where many die first.",
    )
    tests = Table(
        f"{stem}_tests",
        f"{title}: Gray's test",
        TEST_COLUMNS,
        plain_rows([row for s in usable for row in gray_tests(s)]),
        "Pairs: Holm's correction.",
    )
    figures = [_both(f"{stem}", title, usable[0], settings)]
    if len(usable) > 1:
        figures.append(_strata(f"{stem}_hpv", title, usable[1:], settings))
    return Part((*figures, table, tests))


def _columns(horizons: Sequence[float]) -> tuple[Column, ...]:
    pairs: list[Column] = []
    for year in horizons:
        key = f"cif{year:g}"
        pairs.append(Column(key, f"{year:g} years (interval)", "percent", f"{key}_lower", f"{key}_upper"))
        pairs.append(Column(f"km{year:g}", "1 - KM", "percent"))
    return (
        Column("population", "Patients"),
        Column("group", "Group"),
        Column("n", "n", "count"),
        Column("events", "Events", "count"),
        Column("competing", "Died first", "count"),
        *pairs,
    )


def _rows(stratum: Stratum, settings: AnalysisSettings) -> list[dict[str, Any]]:
    rows = []
    for rank in stratum.present:
        own = stratum.of(rank)
        row: dict[str, Any] = {
            "population": stratum.label,
            "group": stratum.grouping.labels[rank],
            "n": own.n,
            "events": own.n_events,
            "competing": int((own.state == 2).sum()),
        }
        incidence = cumulative_incidence(own.time, own.state, confidence=settings.confidence)
        survival = kaplan_meier(own.time, own.event, confidence=settings.confidence)
        for year, at, km in zip(
            settings.horizons, incidence.at(settings.horizons), survival.at(settings.horizons), strict=True
        ):
            if not at.beyond_followup:
                row |= {
                    f"cif{year:g}": at.value,
                    f"cif{year:g}_lower": at.lower,
                    f"cif{year:g}_upper": at.upper,
                    f"km{year:g}": 1 - km.value,
                }
        rows.append(row)
    return rows


def _incidence_panel(
    stratum: Stratum, settings: AnalysisSettings, end: float, *, kind: str, title: str, notes: str
) -> dict[str, Any]:
    curves, counts, censored, labels = [], [], [], []
    ticks = ticks_to(end)
    ratios = group_ratios(stratum, settings, subdistribution=kind == "cif")
    for rank in stratum.present:
        own = stratum.of(rank)
        label = stratum.grouping.labels[rank]
        shown = group_label(stratum, rank, ratios)
        if kind == "cif":
            curve = cumulative_incidence(own.time, own.state, confidence=settings.confidence)
            curves.append(step_curve(shown, rank, curve.times, curve.incidence, curve.lower, curve.upper))
        else:
            km = kaplan_meier(own.time, own.event, confidence=settings.confidence)
            curves.append(step_curve(shown, rank, km.times, 1 - km.survival, 1 - km.upper, 1 - km.lower))
        counts.append(_at_risk(own, ticks))
        censored.append(censored_before(own, ticks))
        labels.append(label)
    risk = {"times": ticks, "labels": labels, "counts": counts, "censored": censored}
    drawn = [cut(c, stratum.of(r).time) for c, r in zip(curves, stratum.present, strict=True)]
    return {"title": title, "curves": drawn, "whole": curves, "risk": risk, "notes": notes}


def _at_risk(outcome: Outcome, ticks: Sequence[float]) -> list[int]:
    return [int((outcome.time >= t).sum()) for t in ticks]


def _both(name: str, title: str, stratum: Stratum, settings: AnalysisSettings) -> Figure:
    """Cumulative incidence and 1 - KM of all patients side by side, on one scale."""
    end = axis_end([stratum.outcome])
    panels = [
        _incidence_panel(
            stratum,
            settings,
            end,
            kind="cif",
            title=title,
            notes=f"Cumulative incidence. {gray_note(stratum)}",
        ),
        _incidence_panel(
            stratum,
            settings,
            end,
            kind="km",
            title="1 - Kaplan-Meier, for comparison",
            notes="Death treated as censoring: overstates the risk",
        ),
    ]
    outcome = stratum.outcome
    died = int((outcome.state == 2).sum())
    legend = (
        f"{title}, {stratum.label.lower()}: left, cumulative incidence (Aalen-Johansen, death "
        "competing); right, "
        f"1 - Kaplan-Meier; n = {outcome.n}, events = {outcome.n_events}, died first = {died}; "
        f"shaded: {settings.confidence:.0%} intervals (log-log, pointwise); {DRAWN}. sHR: Fine and Gray, "
        f"unadjusted, against the first group. {gray_note(stratum)}."
    )
    return _incidence_figure(name, title, panels, outcome, end, legend)


def _strata(name: str, title: str, strata: Sequence[Stratum], settings: AnalysisSettings) -> Figure:
    end = axis_end([s.outcome for s in strata])
    panels = [
        _incidence_panel(s, settings, end, kind="cif", title=s.label, notes=gray_note(s)) for s in strata
    ]
    counted = "; ".join(f"{s.label} n = {s.outcome.n}, events = {s.outcome.n_events}" for s in strata)
    tests = " ".join(f"{s.label}: {p['notes']}." for s, p in zip(strata, panels, strict=True))
    legend = (
        f"{title} within HPV strata: cumulative incidence (Aalen-Johansen, death competing); {counted}; "
        f"shaded: {settings.confidence:.0%} intervals (log-log, pointwise); {DRAWN}. sHR: Fine and Gray, "
        f"unadjusted, against the first group. {tests}"
    )
    return _incidence_figure(name, f"{title}: HPV strata", panels, strata[0].outcome, end, legend)


def _incidence_figure(
    name: str, title: str, panels: list[dict[str, Any]], outcome: Outcome, end: float, legend: str
) -> Figure:
    tallest = max(_highest(c, end) for p in panels for c in p["curves"])
    content = {
        "panels": panels,
        "y_label": outcome.event_word.capitalize(),
        "x_label": "Years",
        "y_top": min(1.0, max(0.1, 0.1 * (int(tallest * 10) + 1))),
        "x_end": end,
    }
    return Figure(name, title, legend, partial(draw_curves, content), curve_data(panels), wide=True)


def _highest(curve: dict[str, Any], end: float) -> float:
    seen = [
        h if h is not None else v
        for t, v, h in zip(curve["time"], curve["value"], curve["high"], strict=True)
        if t <= end
    ]
    return float(max(seen, default=0.0))
