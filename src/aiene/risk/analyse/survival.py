"""Survival and cumulative incidence by group: curves, tables and tests.

With death competing: Aalen-Johansen curves and Gray's test, and 1 - Kaplan-Meier beside them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from aiene.report.document import Column, Figure, Table, Text
from aiene.report.formatting import p_phrase, plain, plain_rows
from aiene.risk.analyse.charts.curves import draw_curves
from aiene.risk.analyse.cohort import Outcome
from aiene.risk.analyse.grouping import Grouping
from aiene.risk.analyse.records import Part, Skipped
from aiene.risk.analyse.settings import AnalysisSettings
from aiene.stats.cumulative_incidence import cumulative_incidence
from aiene.stats.records import NotEstimableError
from aiene.stats.survival_curves import follow_up, kaplan_meier, rmst
from aiene.stats.tests import gray_pairwise, gray_test, log_rank, log_rank_pairwise, log_rank_trend

_TEST_COLUMNS = (
    Column("population", "Patients"),
    Column("test", "Test"),
    Column("statistic", "Chi-squared", "number3"),
    Column("df", "df", "count"),
    Column("p", "p", "p"),
    Column("p_holm", "p, Holm", "p"),
    Column("reason", "Remark"),
)
_TESTS = (
    Column("population", "Patients"),
    Column("test", "Test"),
    Column("statistic", "Chi-squared", "number3"),
    Column("df", "df", "count"),
    Column("p", "p", "p"),
    Column("p_holm", "p, Holm", "p"),
    Column("reason", "Remark"),
)


class Stratum:
    """Patients of one population in one grouping, for one endpoint."""

    def __init__(
        self, name: str, label: str, outcome: Outcome, ranks: np.ndarray, grouping: Grouping
    ) -> None:
        inside = ranks >= 0
        self.name, self.label, self.grouping = name, label, grouping
        self.outcome = outcome.take(inside)
        self.ranks = ranks[inside]

    @property
    def present(self) -> tuple[int, ...]:
        """Groups that hold a patient."""
        return self.grouping.present(self.ranks)

    def of(self, rank: int) -> Outcome:
        """The patients of one group."""
        return self.outcome.take(self.ranks == rank)

    @property
    def order(self) -> list[str]:
        """Names of the groups that hold a patient, best first."""
        return [self.grouping.order[r] for r in self.present]

    @property
    def labels(self) -> np.ndarray:
        """Name of each patient's group."""
        return np.array([self.grouping.order[r] for r in self.ranks], dtype=object)


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
    tests = [_tests(s) for s in usable]
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
        _TEST_COLUMNS,
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


def _tests(stratum: Stratum) -> list[dict[str, Any]]:
    outcome, order = stratum.outcome, stratum.order
    head = {"population": stratum.label}
    if len(order) < 2:
        return [head | {"test": "Log-rank", "reason": f"every patient is in one group ({order[0]})"}]
    args = (outcome.time, outcome.event, stratum.labels)
    try:
        overall = log_rank(*args, order=order)
        rows = [head | {"test": "Log-rank", "statistic": overall.statistic, "df": overall.df, "p": overall.p}]
        if len(order) > 2:
            trend = log_rank_trend(*args, order=order)
            rows.append(head | {"test": "Trend", "statistic": trend.statistic, "df": 1, "p": trend.p})
            rows += [
                head
                | {
                    "test": f"{p.second} against {p.first}",
                    "statistic": p.statistic,
                    "df": 1,
                    "p": p.p,
                    "p_holm": p.p_holm,
                }
                for p in log_rank_pairwise(*args, order=order)
            ]
    except NotEstimableError as error:
        return [head | {"test": "Log-rank", "reason": str(error)}]
    return rows


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
        f"{title}, {_small(whole)}: Kaplan-Meier; {_counted(strata)}; "
        f"shaded: {settings.confidence:.0%} intervals (log-log, pointwise). "
        + " ".join(
            f"{f'{s.label}: ' if len(strata) > 1 else ''}{p['test']}."
            for s, p in zip(strata, panels, strict=True)
        )
    )
    return Figure(
        name,
        f"{title}: {_small(whole)}",
        legend,
        partial(draw_curves, content),
        curve_data(panels),
        wide=len(panels) > 1,
    )


def _panel(stratum: Stratum, settings: AnalysisSettings, end: float) -> dict[str, Any]:
    curves, counts, labels = [], [], []
    ticks = ticks_to(end)
    for rank in stratum.present:
        own = stratum.of(rank)
        curve = kaplan_meier(own.time, own.event, confidence=settings.confidence)
        label = stratum.grouping.labels[rank]
        curves.append(
            step_curve(
                f"{label} (n = {own.n}, events = {own.n_events})",
                rank,
                curve.times,
                curve.survival,
                curve.lower,
                curve.upper,
            )
        )
        counts.append([int(c) for c in curve.at_risk_at(ticks)])
        labels.append(label)
    notes = "one group, no test"
    if len(stratum.present) > 1:
        try:
            outcome = stratum.outcome
            test = log_rank(outcome.time, outcome.event, stratum.labels, order=stratum.order)
            notes = f"Log-rank {p_phrase(plain(test.p))}"
        except NotEstimableError:
            notes = "Log-rank not estimable"
    return {
        "title": stratum.label,
        "curves": curves,
        "risk": {"times": ticks, "labels": labels, "counts": counts},
        "notes": notes,
        "test": notes,
    }


def step_curve(
    label: str,
    rank: int,
    times: np.ndarray,
    value: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    **more: Any,
) -> dict[str, Any]:
    """One curve of a figure: the points where it changes, and its last."""
    keep = np.ones(len(times), dtype=bool)
    keep[1:-1] = np.diff(value)[:-1] != 0 if len(times) > 2 else True
    return {
        "label": label,
        "look": rank,
        "time": plain(times[keep]),
        "value": plain(value[keep]),
        "low": plain(low[keep]),
        "high": plain(high[keep]),
        **more,
    }


def curve_data(panels: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """The numbers of a figure of curves, one row per step."""
    data: dict[str, list[Any]] = {k: [] for k in ("panel", "curve", "time", "value", "lower", "upper")}
    for panel in panels:
        for curve in panel["curves"]:
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
    """At most eleven whole years from 0 on."""
    step = math.ceil(end / 10)
    return [float(t) for t in range(0, int(end) + 1, step)]


def _counted(strata: Sequence[Stratum]) -> str:
    if len(strata) == 1:
        return f"n = {strata[0].outcome.n}, events = {strata[0].outcome.n_events}"
    return "; ".join(f"{s.label} n = {s.outcome.n}, events = {s.outcome.n_events}" for s in strata)


def lower(title: str) -> str:
    """A title inside a sentence: abbreviations stay as they are."""
    return title[0].lower() + title[1:] if title[:2].istitle() else title


def _small(text: str) -> str:
    return text[0].lower() + text[1:] if text.startswith("All") else text


# Competing risks


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
        f"{title}: cumulative incidence beside 1 - Kaplan-Meier",
        _columns(settings.horizons),
        plain_rows([row for s in usable for row in _rows(s, settings)]),
        "Cumulative incidence by Aalen-Johansen, death before the event competing; 1 - KM takes death for "
        "censoring and so overstates the risk where many die first.",
    )
    tests = Table(
        f"{stem}_tests",
        f"{title}: Gray's test",
        _TESTS,
        plain_rows([row for s in usable for row in _gray_tests(s)]),
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


def _gray_tests(stratum: Stratum) -> list[dict[str, Any]]:
    outcome, order = stratum.outcome, stratum.order
    head = {"population": stratum.label}
    if len(order) < 2:
        return [head | {"test": "Gray", "reason": f"every patient is in one group ({order[0]})"}]
    args = (outcome.time, outcome.state, stratum.labels)
    try:
        overall = gray_test(*args, order=order)
        rows = [head | {"test": "Gray", "statistic": overall.statistic, "df": overall.df, "p": overall.p}]
        if len(order) > 2:
            rows += [
                head
                | {
                    "test": f"{p.second} against {p.first}",
                    "statistic": p.statistic,
                    "df": 1,
                    "p": p.p,
                    "p_holm": p.p_holm,
                }
                for p in gray_pairwise(*args, order=order)
            ]
    except NotEstimableError as error:
        return [head | {"test": "Gray", "reason": str(error)}]
    return rows


def _incidence_panel(
    stratum: Stratum, settings: AnalysisSettings, end: float, *, kind: str, title: str, notes: str
) -> dict[str, Any]:
    curves, counts, labels = [], [], []
    ticks = ticks_to(end)
    for rank in stratum.present:
        own = stratum.of(rank)
        label = stratum.grouping.labels[rank]
        shown = f"{label} (n = {own.n}, events = {own.n_events})"
        if kind == "cif":
            curve = cumulative_incidence(own.time, own.state, confidence=settings.confidence)
            curves.append(step_curve(shown, rank, curve.times, curve.incidence, curve.lower, curve.upper))
        else:
            km = kaplan_meier(own.time, own.event, confidence=settings.confidence)
            curves.append(step_curve(shown, rank, km.times, 1 - km.survival, 1 - km.upper, 1 - km.lower))
        counts.append(_at_risk(own, ticks))
        labels.append(label)
    risk = {"times": ticks, "labels": labels, "counts": counts}
    return {"title": title, "curves": curves, "risk": risk, "notes": notes}


def _at_risk(outcome: Outcome, ticks: Sequence[float]) -> list[int]:
    return [int((outcome.time >= t).sum()) for t in ticks]


def _gray_notes(stratum: Stratum) -> str:
    if len(stratum.present) < 2:
        return "one group, no test"
    outcome = stratum.outcome
    try:
        test = gray_test(outcome.time, outcome.state, stratum.labels, order=stratum.order)
    except NotEstimableError:
        return "Gray's test not estimable"
    return f"Gray {p_phrase(plain(test.p))}"


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
            notes=f"Cumulative incidence. {_gray_notes(stratum)}",
        ),
        _incidence_panel(
            stratum,
            settings,
            end,
            kind="km",
            title="1 - Kaplan-Meier, for comparison",
            notes="Death taken for censoring: overstates the risk",
        ),
    ]
    outcome = stratum.outcome
    died = int((outcome.state == 2).sum())
    legend = (
        f"{title}, {stratum.label.lower()}: left, cumulative incidence (Aalen-Johansen, death "
        "competing); right, "
        f"1 - Kaplan-Meier; n = {outcome.n}, events = {outcome.n_events}, died first = {died}; "
        f"shaded: {settings.confidence:.0%} intervals (log-log, pointwise). {_gray_notes(stratum)}."
    )
    return _incidence_figure(name, title, panels, outcome, end, legend)


def _strata(name: str, title: str, strata: Sequence[Stratum], settings: AnalysisSettings) -> Figure:
    end = axis_end([s.outcome for s in strata])
    panels = [
        _incidence_panel(s, settings, end, kind="cif", title=s.label, notes=_gray_notes(s)) for s in strata
    ]
    counted = "; ".join(f"{s.label} n = {s.outcome.n}, events = {s.outcome.n_events}" for s in strata)
    tests = " ".join(f"{s.label}: {p['notes']}." for s, p in zip(strata, panels, strict=True))
    legend = (
        f"{title} within HPV strata: cumulative incidence (Aalen-Johansen, death competing); {counted}; "
        f"shaded: {settings.confidence:.0%} intervals (log-log, pointwise). {tests}"
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
