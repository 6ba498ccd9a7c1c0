"""Survival by group: Kaplan-Meier curves, tables and log-rank tests, and the follow-up."""

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
    counted,
    curve_data,
    cut,
    group_label,
    group_ratios,
    lower,
    small,
    step_curve,
    ticks_to,
)
from aiene.risk.analyse.group_tests import log_rank_note, log_rank_tests
from aiene.risk.analyse.grouping import Stratum
from aiene.risk.analyse.records import AnalysisSettings, Part, Skipped
from aiene.stats.records import NotEstimableError
from aiene.stats.survival_curves import follow_up, kaplan_meier, rmst


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
            row |= {
                "deaths": outcome.n_events,
                "median": found.median.value,
                "lower": found.median.lower,
                "upper": found.median.upper,
                "q1": found.first_quartile,
                "q3": found.third_quartile,
                "longest": found.longest,
            }
        rows.append(row)
    columns = (
        Column("population", "Patients"),
        Column("n", "n", "count"),
        Column("deaths", "Events", "count"),
        Column("median", "Median follow-up, years (interval)", "number", "lower", "upper"),
        Column("q1", "First quartile", "number"),
        Column("q3", "Third quartile", "number"),
        Column("longest", "Longest", "number"),
    )
    note = (
        "Reverse Kaplan-Meier: the event is the end of follow-up; the endpoint's event, and death before it, "
        "censor it."
    )
    return Table("follow_up", "Follow-up", columns, plain_rows(rows), note)


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
    tests = [log_rank_tests(s) for s in usable]
    estimates = Table(
        stem,
        f"{title}: Kaplan-Meier estimates",
        _estimate_columns(settings.horizons),
        plain_rows([row for s in usable for row in _estimates(s, settings)]),
        "Log-log intervals; – where not reached, or beyond the follow-up of the group.",
    )
    test_table = Table(
        f"{stem}_tests",
        f"{title}: log-rank tests",
        TEST_COLUMNS,
        plain_rows([row for rows in tests for row in rows]),
        "Trend: one degree of freedom over the ordered groups. Pairs: Holm's correction.",
    )
    figures = [
        _figure(f"{stem}{suffix}", title, chosen, settings)
        for suffix, chosen in (("", usable[:1]), ("_hpv", usable[1:]))
        if chosen
    ]
    return Part((*figures, estimates, test_table), skipped)


def _estimate_columns(horizons: Sequence[float]) -> tuple[Column, ...]:
    return (
        Column("population", "Patients"),
        Column("group", "Group"),
        Column("n", "n", "count"),
        Column("events", "Events", "count"),
        Column("median", "Median, years (interval)", "number", "median_lower", "median_upper"),
        *(
            Column(f"s{y:g}", f"{y:g} years (interval)", "percent", f"s{y:g}_lower", f"s{y:g}_upper")
            for y in horizons
        ),
        Column("rmst", "Restricted mean, years", "number", "rmst_lower", "rmst_upper"),
    )


def _estimates(stratum: Stratum, settings: AnalysisSettings) -> list[dict[str, Any]]:
    rows = []
    tau = min(max(settings.horizons), *(float(stratum.of(r).time.max()) for r in stratum.present))
    for rank in stratum.present:
        own = stratum.of(rank)
        curve = kaplan_meier(own.time, own.event, confidence=settings.confidence)
        row: dict[str, Any] = {
            "population": stratum.label,
            "group": stratum.grouping.labels[rank],
            "n": own.n,
            "events": own.n_events,
            "median": curve.median.value,
            "median_lower": curve.median.lower,
            "median_upper": curve.median.upper,
        }
        for year, at in zip(settings.horizons, curve.at(settings.horizons), strict=True):
            known = not at.beyond_followup
            row |= {
                f"s{year:g}": at.value if known else None,
                f"s{year:g}_lower": at.lower if known else None,
                f"s{year:g}_upper": at.upper if known else None,
                f"s{year:g}_at_risk": at.at_risk,
            }
        rows.append(row | _restricted(own, tau, settings.confidence))
    return rows


def _restricted(outcome: Outcome, tau: float, confidence: float) -> dict[str, Any]:
    if tau <= 0:
        return {}
    try:
        mean = rmst(outcome.time, outcome.event, tau, confidence=confidence)
    except NotEstimableError:
        return {}
    return {"rmst": mean.value, "rmst_lower": mean.lower, "rmst_upper": mean.upper, "rmst_tau": tau}


def _figure(name: str, title: str, strata: Sequence[Stratum], settings: AnalysisSettings) -> Figure:
    end = axis_end([s.outcome for s in strata])
    panels = [_panel(s, settings, end) for s in strata]
    if len(panels) == 1:
        panels[0] |= {"title": title, "notes": f"{strata[0].label}. {panels[0]['notes']}"}
    outcome = strata[0].outcome
    content = {
        "panels": panels,
        "y_label": outcome.label,
        "x_label": "Years",
        "y_top": 1.0,
        "x_end": end,
    }
    whole = " and ".join(s.label for s in strata)
    legend = (
        f"{title}, {small(whole)}: Kaplan-Meier; {counted(strata)}; "
        f"shaded: {settings.confidence:.0%} intervals (log-log, pointwise); {DRAWN}. HR: Cox, unadjusted, "
        "against the first group. "
        + " ".join(
            f"{f'{s.label}: ' if len(strata) > 1 else ''}{p['test']}."
            for s, p in zip(strata, panels, strict=True)
        )
    )
    return Figure(
        name,
        f"{title}: {small(whole)}",
        legend,
        partial(draw_curves, content),
        curve_data(panels),
        wide=len(panels) > 1,
    )


def _panel(stratum: Stratum, settings: AnalysisSettings, end: float) -> dict[str, Any]:
    curves, drawn, counts, censored, labels = [], [], [], [], []
    ticks = ticks_to(end)
    ratios = group_ratios(stratum, settings, subdistribution=False)
    for rank in stratum.present:
        own = stratum.of(rank)
        curve = kaplan_meier(own.time, own.event, confidence=settings.confidence)
        label = stratum.grouping.labels[rank]
        curves.append(
            step_curve(
                group_label(stratum, rank, ratios),
                rank,
                curve.times,
                curve.survival,
                curve.lower,
                curve.upper,
            )
        )
        drawn.append(cut(curves[-1], own.time))
        counts.append([int(c) for c in curve.at_risk_at(ticks)])
        censored.append([int(((own.time < t) & (own.event == 0)).sum()) for t in ticks])
        labels.append(label)
    notes = log_rank_note(stratum)
    return {
        "title": stratum.label,
        "curves": drawn,
        "whole": curves,
        "risk": {"times": ticks, "labels": labels, "counts": counts, "censored": censored},
        "notes": notes,
        "test": notes,
    }
