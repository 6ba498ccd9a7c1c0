"""Cumulative incidence of one cause while another competes, by Aalen and Johansen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from aiene.errors import UsageError
from aiene.stats.elementary import normal_quantile, step, unseen_limit
from aiene.stats.life_table import LifeTable, at_risk_before, life_table, survival_steps
from aiene.stats.records import (
    Floats,
    HorizonEstimate,
    check_fraction,
    check_groups,
    check_outcome,
    known_until,
)
from aiene.stats.survival_curves import estimate_at

IncidenceInterval = Literal["log-log", "plain"]


@dataclass(frozen=True)
class IncidenceCurve:
    """Cumulative incidence of one cause; every array starts with time 0.

    Parameters
    ----------
    times : (k,) distinct times; the incidence holds from each on.
    incidence, lower, upper, std_error : (k,) before the first event of the cause the interval is that of
        Clopper and Pearson (see `unseen_limit`); NaN where the incidence is 1.
    at_risk : (k,) patients without any event, followed up to just before the time.
    n_events, n_competing : (k,) events of the cause, and of the other, at the time.
    n, events : patients, and events of the cause in all.
    last_time : the longest observation.
    known_until : the same, or infinity where nobody was censored at it, so that the curve is known for ever.
    """

    times: Floats
    incidence: Floats
    lower: Floats
    upper: Floats
    std_error: Floats
    at_risk: Floats
    n_events: Floats
    n_competing: Floats
    n: int
    events: int
    cause: int
    interval: str
    confidence: float
    last_time: float
    known_until: float

    def values_at(self, times: ArrayLike) -> Floats:
        """Incidence at any times, after the last one its last value."""
        return step(self.times, self.incidence, np.asarray(times, dtype=np.float64), 0.0)

    def at(self, horizons: Sequence[float]) -> tuple[HorizonEstimate, ...]:
        """Incidence at each horizon with its interval; before the first event by the patients known there."""
        found = [estimate_at(self, self.incidence, float(horizon)) for horizon in horizons]
        return tuple(one if one.n_events else one._replace(upper=self._unseen(one)) for one in found)

    def _unseen(self, at: HorizonEstimate) -> float:
        known = at.at_risk + self.n_competing[self.times < at.time].sum()
        return float(unseen_limit(known, self.confidence)) if known else float("nan")

    def at_risk_at(self, ticks: Sequence[float]) -> list[int]:
        """How many patients are without any event and followed up to just before each tick."""
        return at_risk_before(self.times, self.at_risk, ticks)


def cumulative_incidence(
    time: ArrayLike,
    state: ArrayLike,
    *,
    cause: int = 1,
    confidence: float = 0.95,
    interval: IncidenceInterval = "log-log",
) -> IncidenceCurve:
    """Cumulative incidence of one cause while the other competes.

    Parameters
    ----------
    time : (n,) not negative.
    state : (n,) 0 censored, 1 event, 2 competing event.
    interval : scale of the interval; `log-log` is log(-log(incidence)), which stays within 0 and 1.

    Raises
    ------
    UsageError : see `check_outcome`; or `cause` is neither 1 nor 2.
    NotEstimableError : no patient.

    References
    ----------
    Aalen and Johansen 1978, Scand J Stat 5:141; variance of Aalen 1978, Ann Stat 6:701.
    """
    times, codes = check_outcome(time, state, competing=True)
    if cause not in (1, 2):
        raise UsageError(f"cause {cause}: choose 1 or 2.")
    table = life_table(times, codes, codes=2)
    before = np.concatenate([[1.0], survival_steps(table)[:-1]])
    incidence = np.cumsum(before * table.events[:, cause - 1] / table.at_risk)
    error = np.sqrt(_variance(table, before, incidence, cause))
    z = normal_quantile(0.5 + check_fraction(confidence, "confidence") / 2)
    lower, upper = _incidence_limits(incidence, error, z, interval)
    other = table.events[:, 2 - cause]
    known = table.at_risk + np.cumsum(other) - other
    upper = np.where(incidence > 0, upper, unseen_limit(known, confidence))
    lead = [] if table.times[0] == 0.0 else [0.0]
    zeros = np.zeros(len(lead))
    return IncidenceCurve(
        times=np.concatenate([lead, table.times]),
        incidence=np.concatenate([zeros, incidence]),
        lower=np.concatenate([zeros, lower]),
        upper=np.concatenate([zeros + unseen_limit(times.size, confidence), upper]),
        std_error=np.concatenate([zeros, error]),
        at_risk=np.concatenate([zeros + times.size, table.at_risk]),
        n_events=np.concatenate([zeros, table.events[:, cause - 1]]),
        n_competing=np.concatenate([zeros, other]),
        n=times.size,
        events=int((codes == cause).sum()),
        cause=cause,
        interval=interval,
        confidence=confidence,
        last_time=float(times.max()),
        known_until=known_until(times, codes),
    )


def cumulative_incidence_by_group(
    time: ArrayLike,
    state: ArrayLike,
    group: ArrayLike,
    *,
    order: Sequence[Any] | None = None,
    cause: int = 1,
    confidence: float = 0.95,
    interval: IncidenceInterval = "log-log",
) -> dict[str, IncidenceCurve]:
    """A curve for each group that occurs, in the order given.

    Raises
    ------
    UsageError, NotEstimableError : see `cumulative_incidence`, `check_groups`.
    """
    times, codes = check_outcome(time, state, competing=True)
    place, names = check_groups(group, times.size, order)
    return {
        name: cumulative_incidence(
            times[place == index],
            codes[place == index],
            cause=cause,
            confidence=confidence,
            interval=interval,
        )
        for index, name in enumerate(names)
    }


def _variance(table: LifeTable, before: Floats, incidence: Floats, cause: int) -> Floats:
    """Aalen's variance, with the correction for ties: R's cuminc gives the same.

    Each event of the own cause adds (1 + (F(u) - F(t)) / S(u))^2 times its share of the variance, each event
    of the other ((F(u) - F(t)) / S(u))^2; the squares are multiplied out, so that sums run over u alone.
    """
    n, own = table.at_risk, table.events[:, cause - 1]
    after = before * (1.0 - table.events.sum(axis=1) / n)
    known = after > 1e-15  # once nobody is left only the last own events add to the variance
    inverse = np.divide(1.0, after, out=np.zeros_like(after), where=known)
    ratio = incidence * inverse
    squares, crosses, parts = (np.zeros_like(after) for _ in range(3))
    for deaths, start in ((own, 1.0), (table.events.sum(axis=1) - own, 0.0)):
        shares = before**2 * deaths / n**2 * (1.0 - np.maximum(deaths - 1.0, 0.0) / np.maximum(n - 1.0, 1.0))
        squares += np.cumsum((start + ratio) ** 2 * shares)
        crosses += np.cumsum((start + ratio) * inverse * shares)
        parts += np.cumsum(inverse**2 * shares)
    return np.asarray(np.maximum(squares - 2.0 * incidence * crosses + incidence**2 * parts, 0.0))


def _incidence_limits(
    incidence: Floats, error: Floats, z: float, interval: IncidenceInterval
) -> tuple[Floats, Floats]:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if interval == "log-log":
            scaled = z * error / (incidence * np.log(incidence))
            lower, upper = incidence ** np.exp(-scaled), incidence ** np.exp(scaled)
        elif interval == "plain":
            lower, upper = incidence - z * error, incidence + z * error
        else:
            raise UsageError(f"interval {interval}: choose log-log or plain.")
    inside = (incidence > 0) & (incidence < 1)
    edge = np.where(
        incidence < 1, incidence, np.nan
    )  # nothing is known of the interval once all had the event
    lower, upper = np.where(inside, lower, edge), np.where(inside, upper, edge)
    return np.clip(lower, 0.0, 1.0), np.clip(upper, 0.0, 1.0)
