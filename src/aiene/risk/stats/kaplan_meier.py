"""Survival curves by Kaplan and Meier, and the follow-up by the reversed curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from aiene.errors import UsageError
from aiene.risk.stats.checks import Floats, check_fraction, check_groups, check_outcome, known_until
from aiene.risk.stats.life_table import at_risk_before, estimate_at, life_table, step, survival_steps
from aiene.risk.stats.normal import normal_quantile
from aiene.risk.stats.records import Estimate, Interval

SurvivalInterval = Literal["log-log", "log", "plain"]


@dataclass(frozen=True)
class SurvivalCurve:
    """A Kaplan-Meier curve; every array starts with time 0.

    Parameters
    ----------
    times : (k,) distinct times; survival holds from each on.
    survival, lower, upper, std_error : (k,) Greenwood's error; the interval is of the kind named,
        NaN where survival is 0.
    at_risk : (k,) patients followed up to just before the time.
    n_events, n_censored : (k,) at the time.
    n, events : patients and events in all.
    last_time : the longest observation.
    known_until : the same, or infinity where nobody was censored at it, so that the curve is known for ever.
    """

    times: Floats
    survival: Floats
    lower: Floats
    upper: Floats
    std_error: Floats
    at_risk: Floats
    n_events: Floats
    n_censored: Floats
    n: int
    events: int
    interval: str
    confidence: float
    last_time: float
    known_until: float

    def values_at(self, times: ArrayLike) -> Floats:
        """Survival at any times, after the last one its last value."""
        return step(self.times, self.survival, np.asarray(times, dtype=np.float64), 1.0)

    def at(self, horizons: Sequence[float]) -> tuple[Estimate, ...]:
        """Survival at each horizon with its interval."""
        return tuple(estimate_at(self, self.survival, float(horizon)) for horizon in horizons)

    def at_risk_at(self, ticks: Sequence[float]) -> list[int]:
        """How many patients are followed up to just before each tick."""
        return at_risk_before(self.times, self.at_risk, ticks)

    def quantile(self, p: float = 0.5) -> Interval:
        """First time at which survival is not above 1 - p; NaN where it is not reached.

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
        below = np.flatnonzero(curve <= level + 1e-12)
        return float(self.times[below[0]]) if below.size else float("nan")


def kaplan_meier(
    time: ArrayLike,
    event: ArrayLike,
    *,
    confidence: float = 0.95,
    interval: SurvivalInterval = "log-log",
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
    z = normal_quantile(0.5 + check_fraction(confidence, "confidence") / 2)
    lower, upper = _limits(survival, greenwood, z, interval)
    has_zero = table.times[0] == 0.0
    lead = [] if has_zero else [0.0]
    return SurvivalCurve(
        times=np.concatenate([lead, table.times]),
        survival=_led(survival, lead, 1.0),
        lower=_led(lower, lead, 1.0),
        upper=_led(upper, lead, 1.0),
        std_error=_led(error, lead, 0.0),
        at_risk=_led(at_risk, lead, float(times.size)),
        n_events=_led(deaths, lead, 0.0),
        n_censored=_led(table.censored, lead, 0.0),
        n=times.size,
        events=int(deaths.sum()),
        interval=interval,
        confidence=confidence,
        last_time=float(times.max()),
        known_until=known_until(times, codes),
    )


def kaplan_meier_by_group(
    time: ArrayLike,
    event: ArrayLike,
    group: ArrayLike,
    *,
    order: Sequence[Any] | None = None,
    confidence: float = 0.95,
    interval: SurvivalInterval = "log-log",
) -> dict[str, SurvivalCurve]:
    """A curve for each group that occurs, in the order given.

    Raises
    ------
    UsageError, NotEstimableError : see `kaplan_meier`, `check_groups`.
    """
    times, codes = check_outcome(time, event)
    place, names = check_groups(group, times.size, order)
    return {
        name: kaplan_meier(
            times[place == index], codes[place == index], confidence=confidence, interval=interval
        )
        for index, name in enumerate(names)
    }


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


def _limits(
    survival: Floats, greenwood: Floats, z: float, interval: SurvivalInterval
) -> tuple[Floats, Floats]:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        width = z * np.sqrt(greenwood)
        if interval == "log-log":
            scaled = width / np.log(survival)
            lower, upper = survival ** np.exp(-scaled), survival ** np.exp(scaled)
        elif interval == "log":
            lower, upper = survival * np.exp(-width), survival * np.exp(width)
        elif interval == "plain":
            lower, upper = survival * (1.0 - width), survival * (1.0 + width)
        else:
            raise UsageError(f"interval {interval}: choose log-log, log or plain.")
    edge = np.where(survival > 0, survival, np.nan)  # nothing is known of the interval once nobody is left
    inside = (survival > 0) & (survival < 1)
    lower, upper = np.where(inside, lower, edge), np.where(inside, upper, edge)
    return np.clip(lower, 0.0, 1.0), np.clip(upper, 0.0, 1.0)


def _led(values: Floats, lead: list[float], first: float) -> Floats:
    return np.concatenate([[first] * len(lead), values])
