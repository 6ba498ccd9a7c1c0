"""Who is at risk at each time, and the steps that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from aiene.stats.elementary import step
from aiene.stats.records import Floats, Ints, check_outcome


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


def at_risk_before(times: Floats, at_risk: Floats, ticks: Sequence[float]) -> list[int]:
    """How many patients are at risk just before each tick; none after the last time.

    Parameters
    ----------
    times, at_risk : (k,) of a curve, times rising.
    """
    places = np.searchsorted(times, np.asarray(ticks, dtype=np.float64), side="left")
    return [int(n) for n in np.concatenate([at_risk, [0.0]])[places]]


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
