"""Survival and cumulative incidence by group: curves, tables and tests, and the follow-up.

Survival is by Kaplan and Meier with log-rank tests. Where death competes, incidence is by Aalen and Johansen
with Gray's test, and 1 - Kaplan-Meier beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from aiene.report.document import Figure, Table, Text
from aiene.risk.analyse.charts.curves import draw_curves
from aiene.risk.analyse.cohort import Outcome, lower, small
from aiene.risk.analyse.curve_panels import (
    axis_end,
    counted,
    curve_data,
    cut,
    gray_note,
    gray_tests,
    group_label,
    group_ratios,
    log_rank_note,
    log_rank_tests,
    step_curve,
    ticks_to,
)
from aiene.risk.analyse.grouping import Stratum
from aiene.risk.analyse.records import AnalysisSettings, Part, Skipped, figure_of, interval_cells, table_of
from aiene.stats.competing_risks import cumulative_incidence
from aiene.stats.records import NotEstimableError
from aiene.stats.survival_curves import StepCurve, follow_up, kaplan_meier, rmst


def follow_up_table(strata: Sequence[tuple[str, Outcome]]) -> Table:
    """Median follow-up by reverse Kaplan-Meier, and what was observed."""
    rows = []
    for label, outcome in strata:
        if outcome.n == 0:
            continue
        row: dict[str, Any] = {"population": label, "n": outcome.n}
        try:
            found = follow_up(outcome.time, outcome.state)
        except NotEstimableError as error:
            row |= {"reason": str(error)}
        else:
            median, lower_end, upper_end = found.median
            row |= {"deaths": outcome.n_events, "median": median, "lower": lower_end, "upper": upper_end}
            row |= {"q1": found.first_quartile, "q3": found.third_quartile, "longest": found.longest}
        rows.append(row)
    return table_of("follow_up", rows)


def survival_part(strata: Sequence[Stratum], settings: AnalysisSettings) -> Part:
    """Tables, tests and figures of one endpoint in one grouping, over its populations."""
    first = strata[0]
    outcome, grouping = first.outcome, first.grouping
    stem = f"km_{outcome.name}_{grouping.name}"
    title = f"{outcome.label} by {lower(grouping.title)}"
    usable = [s for s in strata if s.outcome.n]
    skipped = tuple(
        Skipped(f"{title}, {s.label.lower()}", "no patient is in a group") for s in strata if not s.outcome.n
    )
    if not usable:
        return Part((Text(f"{title}: no patient is in a group.", kind="warning"),), skipped)
    told = {"stem": stem, "title": title, "year": settings.horizons}
    estimates = table_of("km", [row for s in usable for row in _estimates(s, settings)], **told)
    tests = table_of("km_tests", [row for s in usable for row in log_rank_tests(s)], **told)
    figures = [
        _figure(f"{stem}{suffix}", title, chosen, settings)
        for suffix, chosen in (("", usable[:1]), ("_hpv", usable[1:]))
        if chosen
    ]
    return Part((*figures, estimates, tests), skipped)


def _estimates(stratum: Stratum, settings: AnalysisSettings) -> list[dict[str, Any]]:
    rows = []
    tau = min(max(settings.horizons), *(float(stratum.of(r).time.max()) for r in stratum.present))
    for rank in stratum.present:
        own = stratum.of(rank)
        curve = kaplan_meier(own.time, own.event, confidence=settings.confidence)
        row = _group(stratum, rank) | interval_cells("median", curve.median)
        for year, at in zip(settings.horizons, curve.at(settings.horizons), strict=True):
            row |= interval_cells(f"s{year:g}", None if at.beyond_followup else at)
            row[f"s{year:g}_at_risk"] = at.at_risk
        rows.append(row | _restricted(own, tau, settings.confidence))
    return rows


def _restricted(outcome: Outcome, tau: float, confidence: float) -> dict[str, Any]:
    if tau <= 0:
        return {}
    try:
        mean = rmst(outcome.time, outcome.event, tau, confidence=confidence)
    except NotEstimableError:
        return {}
    return interval_cells("rmst", mean) | {"rmst_tau": tau}


def _group(stratum: Stratum, rank: int) -> dict[str, Any]:
    """The cells that a row about one group begins with."""
    own, label = stratum.of(rank), stratum.grouping.labels[rank]
    return {"population": stratum.label, "group": label, "n": own.n, "events": own.n_events}


def _figure(name: str, title: str, strata: Sequence[Stratum], settings: AnalysisSettings) -> Figure:
    end = axis_end([s.outcome for s in strata])
    tests = [log_rank_note(s) for s in strata]
    panels = [
        _panel("survival", s, settings, end, title=s.label, notes=test)
        for s, test in zip(strata, tests, strict=True)
    ]
    if len(panels) == 1:
        panels[0] |= {"title": title, "notes": f"{strata[0].label}. {tests[0]}"}
    outcome = strata[0].outcome
    content = {"panels": panels, "y_label": outcome.label, "x_label": "Years", "y_top": 1.0, "x_end": end}
    told = " ".join(
        f"{f'{s.label}: ' if len(strata) > 1 else ''}{test}." for s, test in zip(strata, tests, strict=True)
    )
    whole = small(" and ".join(s.label for s in strata))
    said = {"name": name, "title": title, "whole": whole, "counted": counted(strata), "tests": told}
    data, wide = curve_data(panels), len(panels) > 1
    return figure_of("km", draw_curves, content, data, wide=wide, settings=settings, **said)


def _panel(
    kind: Literal["survival", "incidence", "1 - survival"],
    stratum: Stratum,
    settings: AnalysisSettings,
    end: float,
    *,
    title: str,
    notes: str,
) -> dict[str, Any]:
    """The curves of each group with the numbers at risk and censored below them."""
    curves, drawn, counts, censored = [], [], [], []
    ticks = ticks_to(end)
    ratios = group_ratios(stratum, settings, subdistribution=kind == "incidence")
    for rank in stratum.present:
        own = stratum.of(rank)
        curve: StepCurve
        if kind == "incidence":
            curve = found = cumulative_incidence(own.time, own.state, confidence=settings.confidence)
            values = found.incidence, found.lower, found.upper
        else:
            curve = km = kaplan_meier(own.time, own.event, confidence=settings.confidence)
            values = km.survival, km.lower, km.upper
            if kind == "1 - survival":
                values = 1 - km.survival, 1 - km.upper, 1 - km.lower
        curves.append(step_curve(group_label(stratum, rank, ratios), rank, curve.times, *values))
        drawn.append(cut(curves[-1], own.time))
        counts.append(curve.at_risk_at(ticks))
        gone = (own.event if kind == "survival" else own.state) == 0
        censored.append([int(((own.time < t) & gone).sum()) for t in ticks])
    labels = [stratum.grouping.labels[rank] for rank in stratum.present]
    risk = {"times": ticks, "labels": labels, "counts": counts, "censored": censored}
    return {"title": title, "curves": drawn, "whole": curves, "risk": risk, "notes": notes}


def competing_part(strata: Sequence[Stratum], settings: AnalysisSettings) -> Part:
    """Tables, tests and figures of one endpoint in one grouping, death before the event competing."""
    usable = [s for s in strata if s.outcome.n]
    if not usable:
        return Part()
    outcome, grouping = usable[0].outcome, usable[0].grouping
    stem = f"cif_{outcome.name}_{grouping.name}"
    title = f"{outcome.event_word.capitalize()} by {lower(grouping.title)}"
    if not any(s.outcome.n_events for s in usable):
        return Part((Text(f"{title}: no event, so there is no incidence to show.", kind="warning"),))
    told = {"stem": stem, "title": title, "year": settings.horizons}
    table = table_of("cif", [row for s in usable for row in _rows(s, settings)], **told)
    tests = table_of("cif_tests", [row for s in usable for row in gray_tests(s)], **told)
    figures = [_both(stem, title, usable[0], settings)]
    if len(usable) > 1:
        figures.append(_strata(f"{stem}_hpv", title, usable[1:], settings))
    return Part((*figures, table, tests))


def _rows(stratum: Stratum, settings: AnalysisSettings) -> list[dict[str, Any]]:
    rows = []
    for rank in stratum.present:
        own = stratum.of(rank)
        row = _group(stratum, rank) | {"competing": int((own.state == 2).sum())}
        incidence = cumulative_incidence(own.time, own.state, confidence=settings.confidence)
        survival = kaplan_meier(own.time, own.event, confidence=settings.confidence)
        years = settings.horizons
        for year, at, km in zip(years, incidence.at(years), survival.at(years), strict=True):
            if not at.beyond_followup:
                row |= interval_cells(f"cif{year:g}", at) | {f"km{year:g}": 1 - km.value}
        rows.append(row)
    return rows


def _both(name: str, title: str, stratum: Stratum, settings: AnalysisSettings) -> Figure:
    """Cumulative incidence and 1 - KM of all patients side by side, on one scale."""
    end, notes = axis_end([stratum.outcome]), f"Cumulative incidence. {gray_note(stratum)}"
    beside, warning = "1 - Kaplan-Meier, for comparison", "Death treated as censoring: overstates the risk"
    panels = [
        _panel("incidence", stratum, settings, end, title=title, notes=notes),
        _panel("1 - survival", stratum, settings, end, title=beside, notes=warning),
    ]
    outcome, died = stratum.outcome, int((stratum.outcome.state == 2).sum())
    content = _incidence(panels, outcome, end)
    said = {"name": name, "title": title, "population": stratum.label.lower(), "test": gray_note(stratum)}
    return figure_of(
        "cif",
        draw_curves,
        content,
        curve_data(panels),
        wide=True,
        outcome=outcome,
        died=died,
        settings=settings,
        **said,
    )


def _strata(name: str, title: str, strata: Sequence[Stratum], settings: AnalysisSettings) -> Figure:
    end = axis_end([s.outcome for s in strata])
    panels = [_panel("incidence", s, settings, end, title=s.label, notes=gray_note(s)) for s in strata]
    content, data = _incidence(panels, strata[0].outcome, end), curve_data(panels)
    numbers = "; ".join(f"{s.label} n = {s.outcome.n}, events = {s.outcome.n_events}" for s in strata)
    tests = " ".join(f"{s.label}: {p['notes']}." for s, p in zip(strata, panels, strict=True))
    said = {"name": name, "title": title, "counted": numbers, "tests": tests, "settings": settings}
    return figure_of("cif_hpv", draw_curves, content, data, wide=True, **said)


def _incidence(panels: list[dict[str, Any]], outcome: Outcome, end: float) -> dict[str, Any]:
    tallest = max(_highest(c, end) for p in panels for c in p["curves"])
    return {
        "panels": panels,
        "y_label": outcome.event_word.capitalize(),
        "x_label": "Years",
        "y_top": min(1.0, max(0.1, 0.1 * (int(tallest * 10) + 1))),
        "x_end": end,
    }


def _highest(curve: dict[str, Any], end: float) -> float:
    seen = [
        h if h is not None else v
        for t, v, h in zip(curve["time"], curve["value"], curve["high"], strict=True)
        if t <= end
    ]
    return float(max(seen, default=0.0))
