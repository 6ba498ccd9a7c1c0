"""Curves of many weighted copies of one cohort at a time: what vectorised bootstraps are made of."""

from __future__ import annotations

import numpy as np

from aiene.risk.stats.checks import Floats, Ints


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

    def steps_at(self, curve: Floats, query: Floats) -> Floats:
        """Values (q, b) of a curve (k, b) that starts at 1, at any times."""
        padded = np.concatenate([np.ones((1, curve.shape[1])), curve])
        return padded[np.searchsorted(self.times, query, side="right")]


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
