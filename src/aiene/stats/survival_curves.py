"""Life tables, survival curves by Kaplan and Meier, follow-up by the reversed curve, and restricted means.

All follow from who is at risk at each time. `Moments` has the sums for many weighted copies of one cohort at
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aiene.errors import UsageError
from aiene.stats.records import (
    Floats,
    HorizonEstimate,
    Interval,
    Ints,
    NotEstimableError,
    check_fraction,
    check_groups,
    check_horizons,
    check_outcome,
    known_until,
    normal_quantile,
    two_sided,
)


class LifeTable(NamedTuple):
    """Counts at the distinct times, rising.

    Parameters
    ----------
    times : (k,)
    at_risk : (k,) patients whose time is not before it.
    events : (k, c) by code 1 to c.
    censored : (k,)
    """

    times: Floats
    at_risk: Floats
    events: Floats
    censored: Floats


def life_table(time: Floats, event: Ints, *, codes: int = 1) -> LifeTable:
    """Count at each distinct time.

    Parameters
    ----------
    codes : the greatest event code to count; all are at risk until their time.
    """
    times, place = np.unique(time, return_inverse=True)
    here = np.bincount(place)
    at_risk = (time.size - np.concatenate([[0], np.cumsum(here)[:-1]])).astype(np.float64)
    events = np.stack(
        [np.bincount(place[event == code], minlength=times.size) for code in range(1, codes + 1)], axis=1
    ).astype(np.float64)
    return LifeTable(times, at_risk, events, here - events.sum(axis=1))


def survival_steps(table: LifeTable) -> Floats:
    """Kaplan-Meier survival after each time of the table, for an event of any code."""
    return np.cumprod(1.0 - table.events.sum(axis=1) / table.at_risk)


def censoring_steps(time: Floats, event: Ints) -> tuple[Floats, Floats]:
    """Times and Kaplan-Meier curve G of staying uncensored; at one time events come before censorings.

    A patient whose time is T was seen there with probability G(T-), the curve just before T, since whoever is
    censored at T was still followed there. A patient followed beyond a horizon t was so with G(t).
    """
    table = life_table(time, np.minimum(event, 1))
    at_risk = table.at_risk - table.events[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.where(at_risk > 0, 1.0 - table.censored / at_risk, 1.0)
    return table.times, np.asarray(np.cumprod(factor), dtype=np.float64)


def nelson_aalen(time: Floats, event: Ints) -> Floats:
    """Cumulative hazard at each patient's own time.

    Parameters
    ----------
    time, event : (n,) see `check_outcome`.

    References
    ----------
    Aalen 1978, Ann Stat 6:701.
    """
    time, event = check_outcome(time, event)
    table = life_table(time, event)
    hazard = np.cumsum(table.events[:, 0] / table.at_risk)
    return step(table.times, hazard, time, 0.0)


class Moments:
    """The distinct times of a cohort, sorted once, and sums over them for any weights.

    Parameters
    ----------
    time, event : (n,) checked.
    """

    def __init__(self, time: Floats, event: Ints) -> None:
        self.times, self.place = np.unique(time, return_inverse=True)
        self._order = np.argsort(self.place, kind="stable")
        self._starts = np.searchsorted(self.place[self._order], np.arange(self.times.size))
        self._event = event

    def sums(self, weights: Floats) -> Floats:
        """Sum of the weights (n, b) at each distinct time (k, b)."""
        return np.asarray(np.add.reduceat(weights[self._order], self._starts, axis=0))

    def at_risk(self, weights: Floats) -> Floats:
        """Sum of the weights of those not yet gone, at each distinct time (k, b)."""
        return np.asarray(np.cumsum(self.sums(weights)[::-1], axis=0)[::-1])

    def of(self, weights: Floats, code: int) -> Floats:
        """Sum of the weights of those with this code, at each distinct time (k, b)."""
        return self.sums(weights * (self._event == code)[:, None])

    def uncensored(self, weights: Floats) -> Floats:
        """Censoring curve G after each distinct time (k, b); events come before censorings at one time."""
        events = self.sums(weights * (self._event > 0)[:, None])
        at_risk = self.at_risk(weights) - events
        censored = self.of(weights, 0)
        return np.asarray(np.cumprod(1.0 - _share(censored, at_risk), axis=0), dtype=np.float64)

    def incidence(self, weights: Floats, horizon: float) -> Floats:
        """Aalen-Johansen incidence of code 1 by the horizon (b,); without code 2 that is 1 - Kaplan-Meier."""
        stop = int(np.searchsorted(self.times, horizon, side="right"))
        rows = self._order[: np.append(self._starts, self._order.size)[stop]]
        happened = self._event[rows] > 0
        if not happened.any():
            return np.zeros(weights.shape[1])
        inside = weights[rows]
        gone = np.concatenate([np.zeros((1, weights.shape[1])), np.cumsum(inside, axis=0)])
        moments = self.place[rows][happened]
        busy, first = np.unique(moments, return_index=True)
        at_risk = weights.sum(axis=0) - gone[self._starts[busy]]
        events = inside[happened]
        every = np.add.reduceat(events, first, axis=0)
        own = np.add.reduceat(events * (self._event[rows][happened] == 1)[:, None], first, axis=0)
        survival = np.cumprod(1.0 - _share(every, at_risk), axis=0)
        before = np.concatenate([np.ones((1, survival.shape[1])), survival[:-1]])
        return np.asarray(np.sum(before * _share(own, at_risk), axis=0))

    def steps_at(self, curve: Floats, query: Floats, *, left: bool = False) -> Floats:
        """Values (q, b) of a curve (k, b) that starts at 1, at any times; with `left` just before them."""
        padded = np.concatenate([np.ones((1, curve.shape[1])), curve])
        return padded[np.searchsorted(self.times, query, side="left" if left else "right")]


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


Bools = NDArray[np.bool_]
_TOUCHES = 1.5e-8  # a curve this near to a level is at it: the tolerance of R's survfit


@dataclass(frozen=True, kw_only=True)
class StepCurve:
    """What every estimated step curve knows besides its values; every array starts with time 0.

    Parameters
    ----------
    times : (k,) distinct times; a value holds from each on.
    lower, upper, std_error : (k,) before the first event the interval is that of Clopper and Pearson (see
        `unseen_limit`); NaN where nobody is left to have the event.
    at_risk : (k,) patients without any event, followed up to just before the time.
    n_events : (k,) at the time.
    n, events : patients and events in all.
    known_until : the longest observation, or infinity where nobody was censored at it, so that the curve is
        known for ever.
    """

    times: Floats
    lower: Floats
    upper: Floats
    std_error: Floats
    at_risk: Floats
    n_events: Floats
    n: int
    events: int
    confidence: float
    known_until: float

    def at_risk_at(self, ticks: Sequence[float]) -> list[int]:
        """How many patients without any event are followed up to just before each tick; none at the end."""
        places = np.searchsorted(self.times, np.asarray(ticks, dtype=np.float64), side="left")
        return [int(n) for n in np.concatenate([self.at_risk, [0.0]])[places]]

    def estimate_at(self, values: Floats, horizon: float) -> HorizonEstimate:
        """A curve at a horizon, with its interval.

        Parameters
        ----------
        values : (k,) of the curve at its times.
        """
        place = int(np.searchsorted(self.times, horizon, side="right")) - 1
        return HorizonEstimate(
            time=horizon,
            value=float(values[place]),
            lower=float(self.lower[place]),
            upper=float(self.upper[place]),
            std_error=float(self.std_error[place]),
            at_risk=self.at_risk_at([horizon])[0],
            n_events=int(self.n_events[: place + 1].sum()),
            beyond_followup=horizon > self.known_until,
        )


@dataclass(frozen=True, kw_only=True)
class SurvivalCurve(StepCurve):
    """A Kaplan-Meier curve: survival (k,) with Greenwood's error."""

    survival: Floats

    def at(self, horizons: Sequence[float]) -> tuple[HorizonEstimate, ...]:
        """Survival at each horizon with its interval; before the first event by the patients at risk."""
        found = [self.estimate_at(self.survival, float(horizon)) for horizon in horizons]
        return tuple(
            one
            if one.n_events or not one.at_risk
            else one._replace(lower=1.0 - float(unseen_limit(one.at_risk, self.confidence)))
            for one in found
        )

    def quantile(self, p: float = 0.5) -> Interval:
        """First time at which survival is not above 1 - p; NaN where it is not reached.

        Where the curve runs level at 1 - p and falls later, the middle of that step, as R's survfit says.
        The interval holds the times at which the interval of the curve crosses (Brookmeyer and Crowley 1982).
        """
        level = 1.0 - check_fraction(p, "p")
        crossings = (self._first_below(curve, level) for curve in (self.survival, self.lower, self.upper))
        return Interval(*crossings)

    @property
    def median(self) -> Interval:
        """Median survival time with its interval."""
        return self.quantile(0.5)

    def _first_below(self, curve: Floats, level: float) -> float:
        below = np.flatnonzero((curve <= level + _TOUCHES) & (self.survival < 1))
        if not below.size:
            return float("nan")
        first = below[0]
        lower = np.flatnonzero(curve[first:] < level - _TOUCHES)
        level_step = abs(curve[first] - level) <= _TOUCHES and lower.size
        last = first + lower[0] if level_step else first
        return float((self.times[first] + self.times[last]) / 2)


def kaplan_meier(
    time: ArrayLike,
    event: ArrayLike,
    *,
    confidence: float = 0.95,
    interval: Literal["log-log", "log", "plain"] = "log-log",
) -> SurvivalCurve:
    """Survival with Greenwood's interval.

    Parameters
    ----------
    time : (n,) not negative.
    event : (n,) 0 censored, 1 event.
    interval : scale of the interval; `log` is the default of R's survfit, `log-log` that of lifelines.

    Raises
    ------
    UsageError : see `check_outcome`.
    NotEstimableError : no patient.

    References
    ----------
    Kaplan and Meier 1958, J Am Stat Assoc 53:457; Kalbfleisch and Prentice 2002 for the log-log interval.
    """
    times, codes = check_outcome(time, event)
    table = life_table(times, codes)
    deaths, at_risk = table.events[:, 0], table.at_risk
    survival = survival_steps(table)
    with np.errstate(divide="ignore", invalid="ignore"):
        greenwood = np.cumsum(np.where(deaths > 0, deaths / (at_risk * (at_risk - deaths)), 0.0))
        error = np.where(survival > 0, survival * np.sqrt(greenwood), 0.0)
    z = normal_quantile(confidence)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        width = z * np.sqrt(greenwood)
        scaled = width / np.log(survival)
        lower, upper = {
            "log-log": (survival ** np.exp(-scaled), survival ** np.exp(scaled)),
            "log": (survival * np.exp(-width), survival * np.exp(width)),
            "plain": (survival * (1.0 - width), survival * (1.0 + width)),
        }[interval]
    lower, upper = within_unit(survival, lower, upper, survival > 0)
    lower = np.where(survival < 1, lower, 1.0 - unseen_limit(at_risk, confidence))
    start = partial(from_zero, table.times)
    return SurvivalCurve(
        times=start(table.times, 0.0),
        survival=start(survival, 1.0),
        lower=start(lower, 1.0 - float(unseen_limit(times.size, confidence))),
        upper=start(upper, 1.0),
        std_error=start(error, 0.0),
        at_risk=start(at_risk, float(times.size)),
        n_events=start(deaths, 0.0),
        n=times.size,
        events=int(deaths.sum()),
        confidence=confidence,
        known_until=known_until(times, codes),
    )


@dataclass(frozen=True)
class FollowUp:
    """How long patients were followed, by the reversed Kaplan-Meier curve.

    Parameters
    ----------
    median : with its interval; NaN where more than half had the event so early that it is not reached.
    first_quartile, third_quartile : of the same curve.
    n, n_censored : patients, and those without an event.
    longest : the longest time.
    """

    median: Interval
    first_quartile: float
    third_quartile: float
    n: int
    n_censored: int
    longest: float
    curve: SurvivalCurve


def follow_up(time: ArrayLike, event: ArrayLike) -> FollowUp:
    """Potential follow-up: the Kaplan-Meier curve in which censoring is the event.

    Parameters
    ----------
    event : (n,) 0 censored; 1 and 2 both end the follow-up by an event.

    References
    ----------
    Schemper and Smith 1996, Control Clin Trials 17:343.
    """
    times, codes = check_outcome(time, event, competing=True)
    curve = kaplan_meier(times, codes == 0)
    return FollowUp(
        median=curve.median,
        first_quartile=curve.quantile(0.25).value,
        third_quartile=curve.quantile(0.75).value,
        n=times.size,
        n_censored=int((codes == 0).sum()),
        longest=float(times.max()),
        curve=curve,
    )


def from_zero(times: Floats, values: Floats, first: float) -> Floats:
    """Values (k,) at the times of a table, before them the `first` at time 0 where the table lacks it."""
    return values if times[0] == 0.0 else np.concatenate([[first], values])


def within_unit(values: Floats, lower: Floats, upper: Floats, someone_left: Bools) -> tuple[Floats, Floats]:
    """Limits between 0 and 1; those of 0 or 1 are the value itself, and not known once nobody is left."""
    edge = np.where(someone_left, values, np.nan)
    inside = (values > 0) & (values < 1)
    lower, upper = np.where(inside, lower, edge), np.where(inside, upper, edge)
    return np.clip(lower, 0.0, 1.0), np.clip(upper, 0.0, 1.0)


# Restricted mean survival time, for hazards that are not proportional


class Restricted(NamedTuple):
    """Mean time lived up to `tau`, in the unit of time; no interval (NaN) where nobody had the event."""

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
    z = normal_quantile(confidence)
    value, error = _area(times, codes, limit)
    width = z * error if error > 0 else float("nan")
    return Restricted(value, value - width, value + width, error, limit)


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
    z = normal_quantile(confidence)
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


def step(
    times: NDArray[np.float64],
    values: NDArray[np.float64],
    query: NDArray[np.float64],
    before: float,
    *,
    left: bool = False,
) -> NDArray[np.float64]:
    """A right-continuous step function at `query`; with `left` its value just before it.

    Parameters
    ----------
    before : the value ahead of the first step.
    """
    place = np.searchsorted(times, query, side="left" if left else "right")
    return np.concatenate([[before], values])[place]


def unseen_limit(n: ArrayLike, confidence: float) -> NDArray[np.float64]:
    """Upper limit of the share of an event that none of n patients had: 1 - (alpha / 2)^(1/n).

    Before the first event the error of a curve is 0 and no interval follows from it; that of Clopper and
    Pearson does, for the patients whose state is known at the time: those still followed, and with competing
    events those who had one before.

    References
    ----------
    Clopper and Pearson 1934, Biometrika 26:404.
    """
    known = np.maximum(np.asarray(n, dtype=np.float64), 1.0)
    return np.asarray(1.0 - ((1.0 - confidence) / 2.0) ** (1.0 / known))
