"""Counts at each distinct time: what every curve and test starts from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aiene.risk.stats.checks import Floats, Ints


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
