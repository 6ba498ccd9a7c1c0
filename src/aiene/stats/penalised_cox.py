"""Penalised Cox regressions for sparse groups: Firth's, whose estimates are always finite, and the ridge.

`find_separation` names the columns whose unpenalised estimate would be infinite, before a fit is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import optimize

from aiene.errors import UsageError
from aiene.stats.cox_model import (
    CoxFit,
    RiskSets,
    derivatives,
    event_sums,
    fit_cox,
    monotone,
    risk_sets,
    wald_rows,
)
from aiene.stats.elementary import chi2_tail, normal_quantile
from aiene.stats.pair_counts import stratified_c
from aiene.stats.records import (
    Coefficient,
    Floats,
    Ints,
    NotEstimableError,
    check_design,
    check_fraction,
    check_groups,
    check_outcome,
)

_FAR = 40.0  # standard deviations of a column: a bound beyond this is reported as infinite
_MOST = 60  # Newton steps of one climb
_BUDGET = 400  # Newton steps to find one end of an interval; a profile that wants more is not worth the wait

_FLAT = 1e-6  # information left along a direction, as a share of what there was at the start
_COUNTS = 0.1  # a column takes part in a direction where its share is over this


def ridge(
    time: ArrayLike,
    event: ArrayLike,
    X: pd.DataFrame,
    *,
    penalty: float = 0.1,
    strata: ArrayLike | None = None,
    confidence: float = 0.95,
) -> CoxFit:
    """Cox regression with a penalty on the squared coefficients of the standardised columns.

    Parameters
    ----------
    penalty : `penalty` times the number of events multiplies half the sum of squares.

    The intervals are Wald's on the penalised information: of the shrunken, not of the true value.

    Raises
    ------
    UsageError, NotEstimableError : see `check_outcome`, `check_design`.

    References
    ----------
    Verweij and van Houwelingen 1994, Stat Med 13:2427.
    """
    times, codes = check_outcome(time, event)
    matrix, names = check_design(X, times.size)
    if not penalty > 0:
        raise UsageError("the ridge's penalty must be positive.")
    model = fit_cox(times, codes, matrix, strata=strata, ridge=penalty * int(codes.sum()))
    covariance: Floats = np.asarray(np.linalg.inv(model.information), dtype=np.float64)
    layers = None if strata is None else check_groups(strata, times.size)[0]
    return CoxFit(
        method="ridge",
        rows=wald_rows(names, model.beta, covariance, check_fraction(confidence, "confidence")),
        covariance=covariance,
        n=times.size,
        events=int(codes.sum()),
        log_likelihood=model.log_likelihood,
        log_likelihood_null=model.log_likelihood_null,
        lrt=float("nan"),
        lrt_df=len(names),
        lrt_p=float("nan"),
        aic=float("nan"),
        concordance=stratified_c(times, codes, model.risk(matrix), layers),
        strata=strata is not None,
        warnings=(f"ridge penalty {penalty:g}: the hazard ratios are shrunken towards 1",),
        separation=(),
        model=model,
    )


def firth(
    time: ArrayLike,
    event: ArrayLike,
    X: pd.DataFrame,
    *,
    strata: ArrayLike | None = None,
    confidence: float = 0.95,
) -> CoxFit:
    """Cox regression with Jeffreys' prior: finite also where a group has no event.

    Intervals and p values are of the profile of the penalised likelihood, since Wald's mislead here. An end
    that is not found within so many steps is NaN, and a warning says so.

    Raises
    ------
    UsageError, NotEstimableError : see `check_outcome`, `check_design`; no event; or patients so few that the
        information is singular.

    References
    ----------
    Firth 1993, Biometrika 80:27; Heinze and Schemper 2001, Biometrics 57:114; ties by Efron.
    """
    times, codes = check_outcome(time, event)
    matrix, names = check_design(X, times.size)
    level = check_fraction(confidence, "confidence")
    if not codes.any():
        raise NotEstimableError("no event happened", "choose another endpoint or more patients")
    layers = None if strata is None else check_groups(strata, times.size)[0]
    sets = risk_sets(times, codes, layers)
    mean, scale = matrix.mean(axis=0), matrix.std(axis=0)
    problem = _Problem(((matrix - mean) / scale)[sets.order], sets)
    try:
        best = problem.maximise(np.zeros(scale.size))
        null = problem.value(np.zeros(scale.size))
        inverse = np.linalg.inv(derivatives(problem.X, sets, best.beta).information)
        covariance = inverse / np.outer(scale, scale)
        rows = _profile_rows(problem, best, names, scale, np.sqrt(np.diag(covariance)), level)
    except np.linalg.LinAlgError as error:
        what = "Firth's estimate does not exist: too few patients for this model (singular information)"
        raise NotEstimableError(what, "leave out covariates or merge sparse levels") from error
    beta = best.beta / scale
    statistic = 2.0 * (best.value - null)
    base = fit_cox(times, codes, matrix, strata=strata, start=beta, max_iterations=0)
    model = replace(base, converged=True, iterations=best.iterations)
    return CoxFit(
        method="firth",
        rows=rows,
        covariance=covariance,
        n=times.size,
        events=int(codes.sum()),
        log_likelihood=best.value,
        log_likelihood_null=null,
        lrt=statistic,
        lrt_df=len(names),
        lrt_p=chi2_tail(statistic, len(names)),
        aic=float("nan"),
        concordance=stratified_c(times, codes, model.risk(matrix), layers),
        strata=strata is not None,
        warnings=("Firth's penalised likelihood; intervals and p values by its profile", *_open(rows)),
        separation=(),
        model=model,
    )


def _open(rows: tuple[Coefficient, ...]) -> tuple[str, ...]:
    missing = [row.name for row in rows if np.isnan(row.lower) or np.isnan(row.upper)]
    return (f"no end of the profile interval was found for {', '.join(missing)}",) if missing else ()


class _Best(NamedTuple):
    beta: Floats
    value: float
    iterations: int


class _Problem:
    """Firth's likelihood l(b) + log det I(b) / 2 on standardised columns."""

    def __init__(self, X: Floats, sets: RiskSets) -> None:
        self.X, self._sets = X, sets

    def value(self, beta: Floats) -> float:
        """Penalised log-likelihood; minus infinity where the information is singular."""
        there = derivatives(self.X, self._sets, beta)
        sign, log_det = np.linalg.slogdet(there.information)
        good = sign > 0 and np.isfinite(log_det) and np.isfinite(there.value)
        return there.value + 0.5 * float(log_det) if good else -np.inf

    def gradient(self, beta: Floats) -> tuple[Floats, Floats]:
        """Gradient of the penalised likelihood, and the information."""
        there = derivatives(self.X, self._sets, beta)
        half = np.linalg.cholesky(np.linalg.inv(there.information))
        third = self._third_moments(beta, self.X @ half)
        return there.score + 0.5 * np.linalg.solve(half.T, third), there.information

    def _third_moments(self, beta: Floats, y: Floats) -> Floats:
        """Sum over events of E[(y - m) |y - m|^2] in the risk set, where the information of y is 1."""
        eta = self.X @ beta
        r = np.exp(eta - eta.max())
        size, p = y.shape
        products = (y[:, :, None] * y[:, None, :]).reshape(size, p * p)
        cubes = y * (y**2).sum(axis=1)[:, None]
        sums = event_sums(
            r[:, None] * np.concatenate([np.ones((size, 1)), y, products, cubes], axis=1), self._sets
        )
        moments = sums[:, 1:] / np.maximum(sums[:, :1], np.finfo(np.float64).tiny)
        m, second, cube = moments[:, :p], moments[:, p : p + p * p].reshape(-1, p, p), moments[:, p + p * p :]
        trace = np.einsum("ekk->e", second)[:, None]
        squared = (m**2).sum(axis=1)[:, None]
        central = cube - 2.0 * np.einsum("ekl,el->ek", second, m) - m * trace + 2.0 * m * squared
        return np.asarray(central.sum(axis=0))

    def maximise(self, beta: Floats, fixed: int | None = None) -> _Best:
        """Climb from `beta`, with one coefficient held where it is if `fixed` is given."""
        free = [column for column in range(beta.size) if column != fixed]
        value, iteration = self.value(beta), 0
        while free and iteration < _MOST:
            iteration += 1
            gradient, information = self.gradient(beta)
            move = np.zeros_like(beta)
            move[free] = np.linalg.solve(information[np.ix_(free, free)], gradient[free])
            farthest = float(np.abs(self.X @ move).max())
            move *= min(1.0, 5.0 / farthest) if farthest > 0 else 1.0
            gain = float(gradient @ move)
            tried, then = self._uphill(beta, value, move)
            if then < value - 1e-12 * abs(value):
                break
            beta, value = tried, then
            if gain < 1e-12:
                break
        return _Best(beta, value, iteration)

    def _uphill(self, beta: Floats, value: float, move: Floats) -> tuple[Floats, float]:
        """The longest of the halved steps that does not lead down; the shortest where all do."""
        size = 1.0
        while True:
            tried = beta + size * move
            then = self.value(tried)
            if then >= value - 1e-12 * abs(value) or size < 1e-8:
                return tried, then
            size *= 0.5


def _profile_rows(
    problem: _Problem, best: _Best, names: tuple[str, ...], scale: Floats, errors: Floats, level: float
) -> tuple[Coefficient, ...]:
    drop = 0.5 * normal_quantile(0.5 + level / 2) ** 2
    rows = []
    for column, name in enumerate(names):
        without = best.beta.copy()
        without[column] = 0.0
        statistic = 2.0 * (best.value - problem.maximise(without, column).value)
        low, high = (
            _bound(problem, best, column, side * float(errors[column] * scale[column]), drop)
            for side in (-1, 1)
        )
        beta = float(best.beta[column] / scale[column])
        with np.errstate(over="ignore"):
            ratio, lower, upper = np.exp([beta, low / scale[column], high / scale[column]])
        z = float(np.sign(beta) * np.sqrt(max(statistic, 0.0)))
        rows.append(
            Coefficient(
                name,
                beta,
                float(errors[column]),
                z,
                chi2_tail(statistic, 1),
                float(ratio),
                float(lower),
                float(upper),
            )
        )
    return tuple(rows)


def _bound(problem: _Problem, best: _Best, column: int, stride: float, drop: float) -> float:
    """Where the profile has fallen by `drop`, seeking in the direction of `stride`; NaN past the budget."""
    centre = float(best.beta[column])
    warm, steps = best.beta, 0

    def height(place: float) -> float:
        nonlocal warm, steps
        if steps > _BUDGET:
            raise _SpentError
        start = warm.copy()
        start[column] = place
        there = problem.maximise(start, column)
        warm, steps = there.beta, steps + there.iterations
        return there.value - (best.value - drop)

    try:
        return _crossing(height, centre, stride)
    except (_SpentError, ValueError):  # ValueError: the profile is so flat that its ends have one sign
        return float("nan")


class _SpentError(Exception):
    """The steps for one end of an interval are used up."""


def _crossing(height: Callable[[float], float], centre: float, stride: float) -> float:
    inside, outside = centre, centre + 2.0 * stride
    while height(outside) > 0:
        if abs(outside - centre) > _FAR:
            return float(np.copysign(np.inf, stride))
        inside, outside = outside, centre + 2.0 * (outside - centre)
    return float(optimize.brentq(height, inside, outside, xtol=1e-8))


# Separation (monotone likelihood)


def find_separation(
    time: ArrayLike, event: ArrayLike, X: pd.DataFrame, *, strata: ArrayLike | None = None
) -> tuple[str, ...]:
    """Columns whose coefficient has no finite estimate (monotone likelihood).

    A single column is judged exactly: it separates where at every event the patient has the greatest (or at
    every event the least) value of the risk set, and some risk set holds another value. Combinations are
    judged by the fit: a direction in which the information has all but vanished while the coefficients grew.

    Raises
    ------
    UsageError, NotEstimableError : see `check_outcome`, `check_design`.

    References
    ----------
    Bryson and Johnson 1981, Technometrics 23:381; Heinze and Schemper 2001, Biometrics 57:114.
    """
    times, codes = check_outcome(time, event)
    matrix, names = check_design(X, times.size)
    layers = None if strata is None else check_groups(strata, times.size)[0]
    sets = risk_sets(times, codes, layers)
    alone = [monotone(matrix[sets.order, column], sets) for column in range(matrix.shape[1])]
    if any(alone):
        return tuple(name for name, found in zip(names, alone, strict=True) if found)
    if matrix.shape[1] == 1 or not codes.any():
        return ()
    return tuple(names[column] for column in _flat_direction(times, codes, matrix, layers, sets))


def _flat_direction(
    time: Floats, event: Ints, matrix: Floats, strata: Ints | None, sets: RiskSets
) -> list[int]:
    fit = fit_cox(time, event, matrix, strata=strata)
    scale = matrix.std(axis=0)
    standard = ((matrix - matrix.mean(axis=0)) / scale)[sets.order]
    before = derivatives(standard, sets, np.zeros(scale.size)).information
    after = derivatives(standard, sets, fit.beta * scale).information
    values, vectors = np.linalg.eigh(after)
    flat = values < _FLAT * np.einsum("ij,ik,kj->j", vectors, before, vectors)
    if not flat.any():
        return []
    share = np.abs(vectors[:, flat]).max(axis=1)
    return [int(column) for column in np.flatnonzero(share > _COUNTS * share.max())]
