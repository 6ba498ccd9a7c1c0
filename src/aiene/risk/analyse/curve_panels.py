"""What curves by group share: patients, hazard ratios, tests between the groups, and where a curve ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from aiene.report.formatting import interval_text, p_phrase, plain
from aiene.risk.analyse.cohort import FEWEST_EVENTS, Outcome, check_events
from aiene.risk.analyse.grouping import Stratum
from aiene.risk.analyse.records import AnalysisSettings
from aiene.stats.competing_risks import fine_gray
from aiene.stats.cox import cox
from aiene.stats.records import NotEstimableError, Pair
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
    return _rows(stratum, "Log-rank", log_rank, args, {"Trend": trend, "Pairs": lambda: _pairs(pairs())})


def gray_tests(stratum: Stratum) -> Rows:
    """Of all groups, within centres and HPV strata, and of pairs; death competes."""
    args = stratum.outcome.time, stratum.outcome.state, stratum.labels
    pairs = partial(gray_pairwise, *args, order=stratum.order)
    return _rows(stratum, "Gray", gray_test, args, {"Pairs": lambda: _pairs(pairs())})


def log_rank_note(stratum: Stratum) -> str:
    """The test in a word, for the corner of a panel."""
    return _note(stratum, "Log-rank", "Log-rank", log_rank, stratum.outcome.event)


def gray_note(stratum: Stratum) -> str:
    """The same of Gray's test."""
    return _note(stratum, "Gray", "Gray's test", gray_test, stratum.outcome.state)


def _rows(
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
