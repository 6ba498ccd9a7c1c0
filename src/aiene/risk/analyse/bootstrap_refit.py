"""Many fits of the same models on resamples of the same patients, at the least cost.

What all resamples share is made once: the order of the patients, scaled columns, a first guess, and which
patients a model cannot tell apart. A patient who is drawn twice is one row that counts twice. The numbers are
those of `fit_cox` and `harrell_c`; only the work is less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from aiene.stats.cox_model import Resampling, RiskSets, derivatives, fit_cox, linear_predictor, risk_sets
from aiene.stats.records import NotEstimableError

FEW_LEVELS = 64
"""With no more distinct rows of the design than this, C is computed over distinct rows, not over patients."""


class Pairs:
    """Harrell's C of any score on the same patients, each counted with a weight.

    Parameters
    ----------
    time, event : (n,); event 0 or 1.
    """

    def __init__(self, time: np.ndarray, event: np.ndarray) -> None:
        self.time, self.event = time, event
        key = 2 * np.unique(time, return_inverse=True)[1] + (
            1 - event
        )  # at one time, censored outlive events
        self.order = np.argsort(-key, kind="stable")
        sorted_key = key[self.order]
        self.event_rows = np.flatnonzero(event == 1)
        self.outliving = np.searchsorted(-sorted_key, -key[self.event_rows], side="left")

    def of_levels(self, level: np.ndarray, n_levels: int, weights: np.ndarray) -> np.ndarray:
        """Weighted pairs by level of the event and level of the one who outlives it; (levels, levels)."""
        n = self.time.size
        spread = np.zeros((n + 1, n_levels))
        spread[np.arange(1, n + 1), level[self.order]] = weights[self.order]
        np.cumsum(spread, axis=0, out=spread)
        own = np.zeros((self.event_rows.size, n_levels))
        own[np.arange(self.event_rows.size), level[self.event_rows]] = weights[self.event_rows]
        return np.asarray(own.T @ spread[self.outliving])

    def weighted_c(self, risk: np.ndarray, weights: np.ndarray) -> float:
        """C with patients counted by weight (whole numbers).

        Raises
        ------
        NotEstimableError : no pair can be compared.
        """
        own = weights[self.event_rows]
        taken = own > 0
        if not taken.any():
            return _share(0.0, 0.0)
        drawn = self.order[weights[self.order] > 0]  # the others take part in no pair
        before = np.concatenate([[0], np.cumsum(weights[self.order] > 0)])
        own, ends = own[taken], before[self.outliving[taken]]
        rank = np.zeros(risk.size, dtype=np.int64)
        rank[drawn] = np.unique(risk[drawn], return_inverse=True)[1]
        won = _won(rank[self.event_rows[taken]], ends, rank[drawn], weights[drawn])
        total = np.concatenate([[0.0], np.cumsum(weights[drawn])])[ends]
        return _share(float(own @ won), float(own @ total))


def _won(level: np.ndarray, ends: np.ndarray, other: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weight of the first `ends` patients that have a lower rank, ties half; (e,).

    Patients are counted in blocks of about the root of their number: whole blocks off a table of sums, the
    rest one by one. So the work is n to the power of 1.5, not events times patients. The table has a bin for
    each rank of an event (odd ones) and for what lies between two of them (even ones).

    Parameters
    ----------
    level, ends : (e,) rank of each event's score, and how many outlive it.
    other, weights : (n,) rank and weight of the patients, the longest followed first.
    """
    seen, place = np.unique(level, return_inverse=True)
    at = np.searchsorted(seen, other)
    theirs, own = 2 * at + (seen[np.minimum(at, seen.size - 1)] == other), 2 * place + 1
    n, bins = other.size, 2 * seen.size + 1
    width = math.ceil(n**0.5)
    blocks = n // width + 1  # the last one is never full
    sums = np.bincount(np.arange(n) // width * bins + theirs, weights=weights, minlength=blocks * bins)
    below = np.zeros((blocks + 1, bins + 1))
    np.cumsum(sums.reshape(blocks, bins), axis=1, out=below[1:, 1:])
    np.cumsum(below, axis=0, out=below)
    whole = ends // width
    won = 0.5 * (below[whole, own] + below[whole, own + 1])
    padding = (0, blocks * width - n)
    rest = np.pad(theirs, padding).reshape(blocks, width)[whole]
    counted = np.pad(weights, padding).reshape(blocks, width)[whole]
    counted = counted * (np.arange(width) < (ends - whole * width)[:, None])
    lower = (rest < own[:, None]) + 0.5 * (rest == own[:, None])
    return np.asarray(won + np.einsum("ij,ij->i", counted, lower))


def c_of_levels(pairs: np.ndarray, risk: np.ndarray) -> float:
    """C from the pairs of levels and the score of each level."""
    won = (risk[:, None] > risk[None, :]) + 0.5 * (risk[:, None] == risk[None, :])
    return _share(float((pairs * won).sum()), float(pairs.sum()))


def _share(won: float, total: float) -> float:
    if total <= 0:
        raise NotEstimableError("no two patients can be compared", "C needs an event that others outlive")
    return won / total


class Refit:
    """The models of a comparison, ready to be fitted on resamples.

    Parameters
    ----------
    time, event : (n,); event 0 or 1.
    matrices : (n, p) by name of the model; no column is constant.

    Raises
    ------
    NotEstimableError : a model cannot be fitted on the patients themselves.
    """

    def __init__(self, time: np.ndarray, event: np.ndarray, matrices: Mapping[str, np.ndarray]) -> None:
        self.time, self.event = time, event
        self.pairs = Pairs(time, event)
        self.sets = risk_sets(time, event)
        self.resampling = Resampling(time, event)
        self.columns = {name: (x - x.mean(axis=0)) / x.std(axis=0) for name, x in matrices.items()}
        self.rows = {name: np.ascontiguousarray(x.T) for name, x in self.columns.items()}
        self.start = {name: fit_cox(time, event, x).beta for name, x in self.columns.items()}
        self.levels = {name: _levels(x) for name, x in self.columns.items()}
        everybody = np.ones(time.size)
        self.all_pairs = {
            name: self.pairs.of_levels(level, values.shape[0], everybody)
            for name, (level, values) in self.levels.items()
            if values.shape[0] <= FEW_LEVELS
        }

    def fit(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Coefficients of each model on patients (numbers, with repeats)."""
        if not self.event[rows].any():
            raise NotEstimableError("no event happened", "choose another endpoint or more patients")
        sets = self.resampling.sets(np.bincount(rows, minlength=self.time.size))
        return {name: self._fit(name, sets, rows) for name in self.columns}

    def _fit(self, name: str, sets: RiskSets, rows: np.ndarray) -> np.ndarray:
        drawn = self.rows[name][:, sets.order]
        varying = drawn.max(axis=1) > drawn.min(axis=1)  # one that does not says nothing here and gets 0
        beta = np.zeros(varying.size)
        found = newton(drawn[varying].T, sets, self.start[name][varying])
        if found is None:
            found = fit_cox(self.time[rows], self.event[rows], self.columns[name][rows][:, varying]).beta
        beta[varying] = found
        return beta

    def c(self, betas: Mapping[str, np.ndarray], rows: np.ndarray | None) -> dict[str, float]:
        """Harrell's C of each model on patients (numbers, with repeats; None: everybody)."""
        n = self.time.size
        weights = np.ones(n) if rows is None else np.bincount(rows, minlength=n).astype(float)
        result = {}
        for name, beta in betas.items():
            if name in self.all_pairs:
                level, values = self.levels[name]
                pairs = (
                    self.all_pairs[name]
                    if rows is None
                    else self.pairs.of_levels(level, values.shape[0], weights)
                )
                result[name] = c_of_levels(pairs, linear_predictor(values, beta))
            else:
                result[name] = self.pairs.weighted_c(linear_predictor(self.columns[name], beta), weights)
        return result

    def slope(self, name: str, beta: np.ndarray) -> float:
        """Of a model in all patients: Cox on its linear predictor.

        Raises
        ------
        NotEstimableError : the model gives every patient the same prediction.
        """
        risk = self.columns[name] @ beta
        scale = float(risk.std())
        if not scale > 0:
            raise NotEstimableError(
                "the model gives every patient the same prediction", "a slope needs a spread"
            )
        found = newton((risk / scale)[self.sets.order][:, None], self.sets, np.array([scale]))
        if found is None:
            found = fit_cox(self.time, self.event, (risk / scale)[:, None]).beta
        return float(found[0]) / scale


def newton(x: np.ndarray, sets: RiskSets, start: np.ndarray, *, most: int = 6) -> np.ndarray | None:
    """Plain Newton steps from a good first guess; None where they do not settle, for a more careful fit.

    Parameters
    ----------
    x : (n, p) in the order of `sets`, columns of about unit spread, each in one piece.
    most : steps; what settles at all settles in three to five, and what runs to infinity never does.
    """
    beta, before = start.copy(), -np.inf
    for _ in range(most):
        now = derivatives(x, sets, beta)
        if not np.isfinite(now.value) or now.value < before - 1e-9 * abs(before):
            return None
        try:
            move = np.linalg.solve(now.information, now.score)
        except np.linalg.LinAlgError:
            return None
        if np.abs(move).max(initial=0.0) > 3.0:
            return None
        beta, before = beta + move, now.value
        if float(now.score @ move) < 1e-10:
            return np.asarray(beta)
    return None


def _levels(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which kind of patient each is, and the columns of each kind."""
    values, level = np.unique(x, axis=0, return_inverse=True)
    return level.reshape(-1), values


Measure = Literal["c", "slope", "delta"]


def measures(
    models: Sequence[str], sloped: Sequence[str], compared: Sequence[tuple[str, str]]
) -> list[tuple[Measure, str]]:
    """What `values_of` gives, in its order."""
    return [
        *(("c", m) for m in models),
        *(("slope", m) for m in sloped),
        *(("delta", new) for _, new in compared),
    ]


def values_of(
    refit: Refit,
    betas: Mapping[str, np.ndarray],
    rows: np.ndarray | None,
    sloped: Sequence[str],
    compared: Sequence[tuple[str, str]],
) -> list[float]:
    """C of each model, slope of some, and the differences in C.

    Parameters
    ----------
    rows : the patients that the models were fitted on, where every slope is 1; None: everybody.
    """
    c = refit.c(betas, rows)
    slopes = [1.0 if rows is not None else refit.slope(name, betas[name]) for name in sloped]
    return [*c.values(), *slopes, *(c[new] - c[old] for old, new in compared)]
