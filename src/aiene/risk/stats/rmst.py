"""Restricted mean survival time: what to report where hazards are not proportional."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from aiene.errors import UsageError
from aiene.risk.stats.checks import Floats, Ints, check_fraction, check_groups, check_horizons, check_outcome
from aiene.risk.stats.errors import NotEstimableError
from aiene.risk.stats.life_table import life_table, survival_steps
from aiene.risk.stats.normal import normal_quantile, two_sided
from aiene.risk.stats.records import Interval


class Restricted(NamedTuple):
    """Mean time lived up to `tau`, in the unit of time."""

    value: float
    lower: float
    upper: float
    std_error: float
    tau: float


class RestrictedDifference(NamedTuple):
    """Second group less first, on the same `tau`."""

    groups: tuple[str, str]
    first: Restricted
    second: Restricted
    difference: Interval
    std_error: float
    p: float
    tau: float


def rmst(time: ArrayLike, event: ArrayLike, tau: float, *, confidence: float = 0.95) -> Restricted:
    """Area under the Kaplan-Meier curve up to `tau`.

    Raises
    ------
    UsageError : see `check_outcome`.
    NotEstimableError : nobody was followed up to `tau` and the curve is not 0 by then.

    References
    ----------
    Royston and Parmar 2013, BMC Med Res Methodol 13:152; variance by Klein and Moeschberger 2003.
    """
    times, codes = check_outcome(time, event)
    limit = float(check_horizons(tau)[0])
    z = normal_quantile(0.5 + check_fraction(confidence, "confidence") / 2)
    value, error = _area(times, codes, limit)
    return Restricted(value, value - z * error, value + z * error, error, limit)


def rmst_difference(
    time: ArrayLike,
    event: ArrayLike,
    group: ArrayLike,
    tau: float,
    *,
    order: Sequence[Any] | None = None,
    confidence: float = 0.95,
) -> RestrictedDifference:
    """Difference of restricted mean survival between two groups.

    Raises
    ------
    UsageError : see `rmst`; or there are not exactly two groups.
    NotEstimableError : see `rmst`.
    """
    times, codes = check_outcome(time, event)
    place, names = check_groups(group, times.size, order)
    if len(names) != 2:
        raise UsageError(f"the difference of restricted means is of two groups, there are {len(names)}.")
    first, second = (
        rmst(times[place == index], codes[place == index], tau, confidence=confidence) for index in (0, 1)
    )
    gap, error = second.value - first.value, float(np.hypot(first.std_error, second.std_error))
    z = normal_quantile(0.5 + confidence / 2)
    interval = Interval(gap, gap - z * error, gap + z * error)
    p = two_sided(gap / error) if error > 0 else float("nan")
    return RestrictedDifference((names[0], names[1]), first, second, interval, error, p, first.tau)


def _area(time: Floats, event: Ints, tau: float) -> tuple[float, float]:
    table = life_table(time, event)
    survival = survival_steps(table)
    if time.max() < tau and survival[-1] > 0:
        raise NotEstimableError(f"nobody was followed up to {tau:g}", "choose an earlier horizon")
    inside = table.times < tau
    edges = np.concatenate([[0.0], table.times[inside], [tau]])
    heights = np.concatenate([[1.0], survival[inside]])
    pieces = heights * np.diff(edges)
    later = np.cumsum(pieces[::-1])[::-1][1:]  # area from each time of the table on
    deaths, at_risk = table.events[inside, 0], table.at_risk[inside]
    left = at_risk - deaths
    terms = np.divide(deaths, at_risk * left, out=np.zeros_like(deaths), where=left > 0)
    return float(pieces.sum()), float(np.sqrt(np.sum(later**2 * terms)))
