"""Many fits of the same models on resamples of the same patients, at the least cost.

What all resamples share is made once: scaled columns, a first guess, and which patients a model cannot tell
apart. The numbers are those of `fit_cox` and `harrell_c`; only the work is less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from aiene.stats.cox_model import RiskSets, derivatives, fit_cox, linear_predictor, risk_sets
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
        own, ends = own[taken], self.outliving[taken]
        rank = np.unique(risk, return_inverse=True)[1]
        level, other = rank[self.event_rows[taken]], rank[self.order]
        sorted_weights = weights[self.order]
        won = _won(level, ends, other, sorted_weights)
        total = np.concatenate([[0.0], np.cumsum(sorted_weights)])[ends]
        return _share(float(own @ won), float(own @ total))


def _won(level: np.ndarray, ends: np.ndarray, other: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weight of the first `ends` patients that have a lower rank, ties half; (e,).

    Patients are counted in blocks of about the root of their number: whole blocks off a table of sums, the
    rest one by one. So the work is n to the power of 1.5, not events times patients.

    Parameters
    ----------
    level, ends : (e,) rank of each event's score, and how many outlive it.
    other, weights : (n,) rank and weight of the patients, the longest followed first.
    """
    n = other.size
    width = math.ceil(n**0.5)
    blocks, ranks = -(-n // width), int(other.max()) + 1
    block = np.arange(n) // width
    sums = np.bincount(other * blocks + block, weights=weights, minlength=ranks * blocks)
    below = np.zeros((ranks + 1, blocks + 1))
    below[1:, 1:] = sums.reshape(ranks, blocks).cumsum(axis=0).cumsum(axis=1)
    whole = ends // width
    won = 0.5 * (below[level, whole] + below[level + 1, whole])
    rest = whole[:, None] * width + np.arange(width)
    inside = rest < ends[:, None]
    rest = np.minimum(rest, n - 1)
    lower = (level[:, None] > other[rest]) + 0.5 * (level[:, None] == other[rest])
    return np.asarray(won + (lower * inside * weights[rest]).sum(axis=1))


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
        self.columns = {name: (x - x.mean(axis=0)) / x.std(axis=0) for name, x in matrices.items()}
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
        time, event = self.time[rows], self.event[rows]
        if not event.any():
            raise NotEstimableError("no event happened", "choose another endpoint or more patients")
        sets = risk_sets(time, event)
        return {name: self._fit(x[rows], name, time, event, sets) for name, x in self.columns.items()}

    def _fit(
        self, x: np.ndarray, name: str, time: np.ndarray, event: np.ndarray, sets: RiskSets
    ) -> np.ndarray:
        varying = x.std(axis=0) > 0  # a column that does not vary in a resample says nothing and gets 0
        beta = np.zeros(x.shape[1])
        found = newton(x[:, varying][sets.order], sets, self.start[name][varying])
        beta[varying] = fit_cox(time, event, x[:, varying]).beta if found is None else found
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

    def slopes(self, betas: Mapping[str, np.ndarray], rows: np.ndarray | None) -> dict[str, float]:
        """Slope of each model: Cox on its linear predictor; 1 on the patients that it was fitted on."""
        if rows is not None:
            return dict.fromkeys(betas, 1.0)
        result = {}
        for name, beta in betas.items():
            risk = (self.columns[name] @ beta)[:, None]
            scale = float(risk.std())
            if not scale > 0:
                raise NotEstimableError(
                    "the model gives every patient the same prediction", "a slope needs a spread"
                )
            found = newton((risk / scale)[self.sets.order], self.sets, np.array([scale]))
            beta_1 = fit_cox(self.time, self.event, risk / scale).beta if found is None else found
            result[name] = float(beta_1[0]) / scale
        return result


def newton(x: np.ndarray, sets: RiskSets, start: np.ndarray, *, most: int = 12) -> np.ndarray | None:
    """Plain Newton steps from a good first guess; None where they do not settle, for a more careful fit.

    Parameters
    ----------
    x : (n, p) in the order of `sets`, columns of about unit spread.
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


def names_of(models: Sequence[str], compared: Sequence[tuple[str, str]]) -> list[str]:
    """Names of what `values_of` gives."""
    return [
        *(f"c {m}" for m in models),
        *(f"slope {m}" for m in models),
        *(f"delta {new}" for _, new in compared),
    ]


def values_of(
    refit: Refit,
    betas: Mapping[str, np.ndarray],
    rows: np.ndarray | None,
    compared: Sequence[tuple[str, str]],
) -> list[float]:
    """C and slope of each model, and the differences in C."""
    c = refit.c(betas, rows)
    return [*c.values(), *refit.slopes(betas, rows).values(), *(c[new] - c[old] for old, new in compared)]
