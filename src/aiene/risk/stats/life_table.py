"""Counts at each distinct time: what every curve and test starts from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from aiene.risk.stats.checks import Floats, Ints
from aiene.risk.stats.records import Estimate


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


def step(times: Floats, values: Floats, query: Floats, before: float, *, left: bool = False) -> Floats:
    """A right-continuous step function at `query`; with `left` its value just before it.

    Parameters
    ----------
    before : the value ahead of the first step.
    """
    place = np.searchsorted(times, query, side="left" if left else "right")
    return np.concatenate([[before], values])[place]


def survival_steps(table: LifeTable) -> Floats:
    """Kaplan-Meier survival after each time of the table, for an event of any code."""
    return np.cumprod(1.0 - table.events.sum(axis=1) / table.at_risk)


def censoring_steps(time: Floats, event: Ints) -> tuple[Floats, Floats]:
    """Times and Kaplan-Meier curve G of staying uncensored; at one time events come before censorings."""
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
    from aiene.risk.stats.checks import check_outcome

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


class Curve(Protocol):
    """What an estimated step curve knows besides its own values."""

    @property
    def times(self) -> Floats:
        """Rising."""

    @property
    def lower(self) -> Floats:
        """End of the interval."""

    @property
    def upper(self) -> Floats:
        """End of the interval."""

    @property
    def std_error(self) -> Floats:
        """Of the values."""

    @property
    def at_risk(self) -> Floats:
        """Just before each time."""

    @property
    def n_events(self) -> Floats:
        """At each time."""

    @property
    def known_until(self) -> float:
        """To where the curve can be told."""


def estimate_at(curve: Curve, values: Floats, horizon: float) -> Estimate:
    """A curve at a horizon, with its interval.

    Parameters
    ----------
    values : (k,) of the curve at its times.
    """
    place = int(np.searchsorted(curve.times, horizon, side="right")) - 1
    return Estimate(
        time=horizon,
        value=float(values[place]),
        lower=float(curve.lower[place]),
        upper=float(curve.upper[place]),
        std_error=float(curve.std_error[place]),
        at_risk=at_risk_before(curve.times, curve.at_risk, [horizon])[0],
        n_events=int(curve.n_events[: place + 1].sum()),
        beyond_followup=horizon > curve.known_until,
    )
