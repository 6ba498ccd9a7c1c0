"""Tests between the groups of a curve: log-rank and Gray's, within strata too, of pairs and for a trend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from aiene.report.formatting import p_phrase, plain
from aiene.risk.analyse.cohort import Outcome, check_events
from aiene.risk.analyse.grouping import Stratum
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

Rows = list[dict[str, Any]]
Test = Callable[..., LogRank | Gray]


def log_rank_tests(stratum: Stratum) -> Rows:
    """Of all groups, within centres and HPV strata, for a trend, and of pairs; with reasons, not gaps."""
    args, order = _survival(stratum.outcome, stratum), stratum.order

    def trend() -> Rows:
        found = log_rank_trend(*args, order=order)
        return [{"test": "Trend", "statistic": found.statistic, "df": 1, "p": found.p}]

    several: dict[str, Callable[[], Rows]] = {
        "Trend": trend,
        "Pairs": lambda: _pairs(log_rank_pairwise(*args, order=order)),
    }
    return _rows(stratum, "Log-rank", log_rank, args, several)


def gray_tests(stratum: Stratum) -> Rows:
    """Of all groups, within centres and HPV strata, and of pairs; death competes."""
    args, order = _incidence(stratum.outcome, stratum), stratum.order
    several = {"Pairs": lambda: _pairs(gray_pairwise(*args, order=order))}
    return _rows(stratum, "Gray", gray_test, args, several)


def log_rank_note(stratum: Stratum) -> str:
    """The test in a word, for the corner of a panel."""
    return _note(stratum, "Log-rank", "Log-rank", log_rank, _survival(stratum.outcome, stratum))


def gray_note(stratum: Stratum) -> str:
    """The same of Gray's test."""
    return _note(stratum, "Gray", "Gray's test", gray_test, _incidence(stratum.outcome, stratum))


def _survival(outcome: Outcome, stratum: Stratum) -> tuple[np.ndarray, ...]:
    return outcome.time, outcome.event, stratum.labels


def _incidence(outcome: Outcome, stratum: Stratum) -> tuple[np.ndarray, ...]:
    return outcome.time, outcome.state, stratum.labels


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
        {
            "test": f"{p.second} against {p.first}",
            "statistic": p.statistic,
            "df": 1,
            "p": p.p,
            "p_holm": p.p_holm,
            "reason": "" if np.isfinite(p.p) else "no event could tell these two groups apart",
        }
        for p in pairs
    ]


def _note(stratum: Stratum, name: str, whole: str, test: Test, args: Sequence[np.ndarray]) -> str:
    if len(stratum.present) < 2:
        return "one group, no test"
    try:
        check_events(stratum.outcome.n_events)
        return f"{name} {p_phrase(plain(test(*args, order=stratum.order).p))}"
    except NotEstimableError:
        return f"{whole} not estimable"
