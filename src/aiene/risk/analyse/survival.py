"""Survival and cumulative incidence by group: curves, tables and tests, and the follow-up.

Survival is by Kaplan and Meier with log-rank tests. Where death competes, incidence is by Aalen and Johansen
with Gray's test, and 1 - Kaplan-Meier beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd

from aiene.report.document import Figure, Table, Text
from aiene.report.formatting import interval_text, p_phrase, plain
from aiene.risk.analyse.charts.curves import draw_curves
from aiene.risk.analyse.cohort import FEWEST_EVENTS, Outcome, check_events, lower, small
from aiene.risk.analyse.grouping import Stratum
from aiene.risk.analyse.records import AnalysisSettings, Part, Skipped, figure_of, interval_cells, table_of
from aiene.stats.competing_risks import cumulative_incidence, fine_gray
from aiene.stats.cox import cox
from aiene.stats.records import NotEstimableError, Pair
from aiene.stats.survival_curves import StepCurve, follow_up, kaplan_meier, rmst
from aiene.stats.tests import (
    Gray,
    LogRank,
    gray_pairwise,
    gray_test,
    log_rank,
    log_rank_pairwise,
    log_rank_trend,
)

FEWEST_AT_RISK = 10
"""A curve ends where fewer than these are at risk; that of a group that never has so many is whole."""


def cut(curve: dict[str, Any], time: np.ndarray) -> dict[str, Any]:
    """A curve as it is drawn: up to where ten patients are at risk; its numbers are kept elsewhere.

    Parameters
    ----------
    time : of the patients of its group, (n,).
    """
    if time.size < FEWEST_AT_RISK:
        return curve | {"band": False}
    last = float(np.sort(time)[-FEWEST_AT_RISK])
    kept = sum(t <= last for t in curve["time"])
    columns = {k: list(curve[k][:kept]) for k in ("time", "value", "low", "high")}
    if kept and columns["time"][-1] < last:
        columns = {k: [*v, last if k == "time" else v[-1]] for k, v in columns.items()}
    return curve | columns


def group_ratios(stratum: Stratum, settings: AnalysisSettings, *, subdistribution: bool) -> dict[int, str]:
    """Unadjusted hazard ratio of each group against the first, in words; none where it cannot be estimated.

    Parameters
    ----------
    subdistribution : of the incidence with death competing (Fine and Gray), else of the event's own hazard.
    """
    outcome, present = stratum.outcome, stratum.present
    if len(present) < 2 or outcome.n_events < max(len(present), FEWEST_EVENTS):
        return {}
    columns = {stratum.grouping.labels[r]: (stratum.ranks == r).astype(float) for r in present[1:]}
    matrix = pd.DataFrame(columns)
    try:
        if subdistribution:
            rows = fine_gray(outcome.time, outcome.state, matrix, confidence=settings.confidence).rows
        else:
            of_event = outcome.time, outcome.event, matrix
            rows = cox(*of_event, confidence=settings.confidence, engine="newton").rows
    except (NotEstimableError, np.linalg.LinAlgError):
        return {}
    word = "sHR" if subdistribution else "HR"
    found = {present[0]: f"{word} 1"}
    for rank, row in zip(present[1:], rows, strict=True):
        found[rank] = f"{word} {interval_text(row.hr, row.lower, row.upper)}"
    return found


def group_label(stratum: Stratum, rank: int, ratios: dict[int, str]) -> str:
    """A group in the legend: patients, events and hazard ratio."""
    own = stratum.of(rank)
    counted = f"{stratum.grouping.labels[rank]} (n = {own.n}, events = {own.n_events})"
    return f"{counted}: {ratios[rank]}" if rank in ratios else counted


def step_curve(
    label: str, rank: int, times: np.ndarray, value: np.ndarray, low: np.ndarray, high: np.ndarray
) -> dict[str, Any]:
    """One curve of a figure: the points where it changes, and its last."""
    keep = np.ones(len(times), dtype=bool)
    keep[1:-1] = np.diff(value)[:-1] != 0 if len(times) > 2 else True
    columns = {"time": times, "value": value, "low": low, "high": high}
    return {"label": label, "look": rank, **{key: plain(part[keep]) for key, part in columns.items()}}


def curve_data(panels: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """The numbers of a figure of curves, one row per step."""
    data: dict[str, list[Any]] = {k: [] for k in ("panel", "curve", "time", "value", "lower", "upper")}
    for panel in panels:
        for curve in panel["whole"]:
            n = len(curve["time"])
            data["panel"] += [panel["title"]] * n
            data["curve"] += [curve["label"]] * n
            for key, source in (("time", "time"), ("value", "value"), ("lower", "low"), ("upper", "high")):
                data[key] += curve[source]
    return data


def axis_end(outcomes: Sequence[Outcome]) -> float:
    """Where the axis ends: the last whole year that 5 % of the patients reach; all where they are few."""
    times = np.concatenate([o.time for o in outcomes])
    if times.size < 30:
        return float(max(1, math.ceil(times.max() - 1e-9)))
    return float(max(1, math.floor(np.quantile(times, 0.95))))


def ticks_to(end: float) -> list[float]:
    """At most seven whole years from 0 on, so that numbers at risk and censored have room."""
    step = math.ceil(end / 6)
    return [float(t) for t in range(0, int(end) + 1, step)]


def counted(strata: Sequence[Stratum]) -> str:
    """Patients, events and censored of each population, for a legend."""
    return "; ".join(
        f"{f'{s.label} ' if len(strata) > 1 else ''}n = {s.outcome.n}, events = {s.outcome.n_events}, "
        f"censored = {s.outcome.n - s.outcome.n_events}"
        for s in strata
    )


Rows = list[dict[str, Any]]
Test = Callable[..., LogRank | Gray]


def log_rank_tests(stratum: Stratum) -> Rows:
    """Of all groups, within centres and HPV strata, for a trend, and of pairs; with reasons, not gaps."""
    args, order = (stratum.outcome.time, stratum.outcome.event, stratum.labels), stratum.order

    def trend() -> Rows:
        found = log_rank_trend(*args, order=order)
        return [{"test": "Trend", "statistic": found.statistic, "df": 1, "p": found.p}]

    pairs = partial(log_rank_pairwise, *args, order=order)
    return _tests(stratum, "Log-rank", log_rank, args, {"Trend": trend, "Pairs": lambda: _pairs(pairs())})


def gray_tests(stratum: Stratum) -> Rows:
    """Of all groups, within centres and HPV strata, and of pairs; death competes."""
    args = stratum.outcome.time, stratum.outcome.state, stratum.labels
    pairs = partial(gray_pairwise, *args, order=stratum.order)
    return _tests(stratum, "Gray", gray_test, args, {"Pairs": lambda: _pairs(pairs())})


def log_rank_note(stratum: Stratum) -> str:
    """The test in a word, for the corner of a panel."""
    return _note(stratum, "Log-rank", "Log-rank", log_rank, stratum.outcome.event)


def gray_note(stratum: Stratum) -> str:
    """The same of Gray's test."""
    return _note(stratum, "Gray", "Gray's test", gray_test, stratum.outcome.state)


def _tests(
    stratum: Stratum,
    name: str,
    test: Test,
    args: Sequence[np.ndarray],
    several: dict[str, Callable[[], Rows]],
) -> Rows:
    """One row for each test; one that cannot be made leaves its reason, and takes no other with it."""
    order, head = stratum.order, {"population": stratum.label}
    if len(order) < 2:
        return [head | {"test": name, "reason": f"every patient is in one group ({order[0]})"}]
    try:
        check_events(stratum.outcome.n_events)
    except NotEstimableError as error:
        return [head | {"test": name, "reason": str(error)}]

    def of(title: str, known: np.ndarray | None = None, layer: np.ndarray | None = None) -> Rows:
        among = args if known is None else [a[known] for a in args]
        found = test(*among, order=order, strata=layer)
        return [{"test": title, "statistic": found.statistic, "df": found.df, "p": found.p}]

    steps: dict[str, Callable[[], Rows]] = {name: partial(of, name)}
    for what, known, layer in stratum.layered:
        title = f"{name} within {what}"
        steps[title] = partial(of, title, known, layer)
    rows: Rows = []
    for title, step in (steps | (several if len(order) > 2 else {})).items():
        try:
            rows += step()
        except NotEstimableError as error:
            rows.append({"test": title, "reason": str(error)})
    return [head | row for row in rows]


def _pairs(pairs: Sequence[Pair]) -> Rows:
    return [
        {"test": f"{p.second} against {p.first}", "statistic": p.statistic, "df": 1, "p": p.p}
        | {"p_holm": p.p_holm, "reason": "" if np.isfinite(p.p) else _NOTHING_TELLS}
        for p in pairs
    ]


_NOTHING_TELLS = "no event could tell these two groups apart"


def _note(stratum: Stratum, name: str, whole: str, test: Test, states: np.ndarray) -> str:
    if len(stratum.present) < 2:
        return "one group, no test"
    try:
        check_events(stratum.outcome.n_events)
        found = test(stratum.outcome.time, states, stratum.labels, order=stratum.order)
        return f"{name} {p_phrase(plain(found.p))}"
    except NotEstimableError:
        return f"{whole} not estimable"


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
    return {"population": stratum.label, "group": label, **own.counts}


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
    table = table_of("cif", [row for s in usable for row in _incidences(s, settings)], **told)
    tests = table_of("cif_tests", [row for s in usable for row in gray_tests(s)], **told)
    figures = [_both(stem, title, usable[0], settings)]
    if len(usable) > 1:
        figures.append(_strata(f"{stem}_hpv", title, usable[1:], settings))
    return Part((*figures, table, tests))


def _incidences(stratum: Stratum, settings: AnalysisSettings) -> list[dict[str, Any]]:
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
