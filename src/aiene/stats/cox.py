"""Cox regressions for the tables of a report: Efron's ties by lifelines, penalised ones for sparse groups.

Where a column separates those with an event from those without, no plain estimate is finite: Firth's
penalised likelihood stands in.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import optimize

from aiene.errors import UsageError, need
from aiene.stats.concordance import stratified_c
from aiene.stats.cox_model import (
    CoxFit,
    CoxModel,
    RiskSets,
    derivatives,
    event_sums,
    find_separation,
    fit_cox,
    risk_sets,
    unstable,
    wald_rows,
)
from aiene.stats.records import (
    Coefficient,
    Floats,
    Ints,
    NotEstimableError,
    check_design,
    check_events,
    check_outcome,
    check_strata,
    chi2_tail,
    normal_quantile,
)

_FAR = 40.0  # standard deviations of a column: a bound beyond this is reported as infinite
_MOST = 60  # Newton steps of one climb
_BUDGET = 400  # Newton steps to find one end of an interval; a profile that wants more is not worth the wait


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
    check_events(codes)
    layers = check_strata(strata, times.size)
    sets = risk_sets(times, codes, layers)
    mean, scale = matrix.mean(axis=0), matrix.std(axis=0)
    problem = _Problem(((matrix - mean) / scale)[sets.order], sets)
    try:
        best = problem.maximise(np.zeros(scale.size))
        null = problem.value(np.zeros(scale.size))
        inverse = np.linalg.inv(derivatives(problem.X, sets, best.beta).information)
        covariance = inverse / np.outer(scale, scale)
        rows = _profile_rows(problem, best, names, scale, np.sqrt(np.diag(covariance)), confidence)
    except np.linalg.LinAlgError as error:
        what = "Firth's estimate does not exist: too few patients for this model (singular information)"
        raise NotEstimableError(what, "leave out covariates or merge sparse levels") from error
    base = fit_cox(times, codes, matrix, strata=strata, start=best.beta / scale, max_iterations=0)
    model = replace(base, converged=True, iterations=best.iterations)
    penalised = replace(model, log_likelihood=best.value, log_likelihood_null=null)
    told = ("Firth's penalised likelihood; intervals and p values by its profile", *_open(rows))
    fit = _fitted(times, codes, matrix, layers, rows, covariance, penalised, told)
    return replace(fit, method="firth", model=model)


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
    problem: _Problem, best: _Best, names: tuple[str, ...], scale: Floats, errors: Floats, confidence: float
) -> tuple[Coefficient, ...]:
    drop = 0.5 * normal_quantile(confidence) ** 2
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


Engine = Literal["lifelines", "newton"]

_MANY = 20_000  # patients from which lifelines takes minutes; `fit_cox` agrees with it to 8 digits


def cox(
    time: ArrayLike,
    event: ArrayLike,
    X: pd.DataFrame,
    *,
    strata: ArrayLike | None = None,
    confidence: float = 0.95,
    engine: Engine = "lifelines",
) -> CoxFit:
    """Cox regression; where an estimate has no finite value, Firth's, which says so.

    Parameters
    ----------
    time, event : (n,) see `check_outcome`.
    X : (n, p) numbers without missing values; the column names become the row names.
    strata : (n,) labels; each has its own baseline.
    engine : `newton` is `fit_cox`, some fifty times quicker; the two agree to 8 digits.

    Raises
    ------
    UsageError : see `check_outcome`, `check_design`; or no such engine.
    NotEstimableError : no event; columns that follow from one another.

    References
    ----------
    Cox 1972, J R Stat Soc B 34:187; Efron 1977, J Am Stat Assoc 72:557.
    """
    times, codes = check_outcome(time, event)
    check_events(codes)
    matrix, names = check_design(X, times.size)
    if engine not in ("lifelines", "newton"):
        raise UsageError(f"engine {engine}: choose lifelines or newton.")
    if separated := find_separation(times, codes, X, strata=strata):
        fit = firth(times, codes, X, strata=strata, confidence=confidence)
        listed = ", ".join(separated)
        told = (
            f"perfect separation by {listed}: Cox's estimate runs to infinity, so this is the firth estimate"
        )
        return replace(fit, warnings=(told, *fit.warnings), separation=separated)
    layers = check_strata(strata, times.size)
    if engine == "lifelines" and times.size <= _MANY:
        model, covariance = _by_lifelines(times, codes, matrix, layers)
    else:
        model = fit_cox(times, codes, matrix, strata=layers)
        if not model.converged:
            raise _diverged()
        covariance = np.asarray(np.linalg.inv(model.information), dtype=np.float64)
    rows = wald_rows(names, model.beta, covariance, confidence)
    fit = _fitted(
        times, codes, matrix, layers, rows, covariance, model, unstable(int(codes.sum()), len(names))
    )
    return replace(fit, aic=2.0 * len(names) - 2.0 * model.log_likelihood)


def _fitted(
    time: Floats,
    event: Ints,
    matrix: Floats,
    layers: Ints | None,
    rows: tuple[Coefficient, ...],
    covariance: Floats,
    model: CoxModel,
    told: tuple[str, ...],
) -> CoxFit:
    """The record of a fit by Efron's likelihood, as yet without its AIC."""
    statistic = 2.0 * (model.log_likelihood - model.log_likelihood_null)
    return CoxFit(
        method="efron",
        rows=rows,
        covariance=covariance,
        n=time.size,
        events=int(event.sum()),
        log_likelihood=model.log_likelihood,
        log_likelihood_null=model.log_likelihood_null,
        lrt=statistic,
        lrt_df=len(rows),
        lrt_p=chi2_tail(statistic, len(rows)),
        aic=float("nan"),
        concordance=stratified_c(time, event, model.risk(matrix), layers),
        strata=layers is not None,
        warnings=told,
        separation=(),
        model=model,
    )


def _by_lifelines(time: Floats, event: Ints, matrix: Floats, layers: Ints | None) -> tuple[CoxModel, Floats]:
    """The same by lifelines, which starts where Newton's steps ended: that halves its time."""
    lifelines = need("lifelines", extra="risk", purpose="Cox regression")
    exceptions = need("lifelines.exceptions", extra="risk", purpose="Cox regression")
    columns = [f"x{place}" for place in range(matrix.shape[1])]
    table = pd.DataFrame(matrix, columns=columns).assign(_time=time, _event=event)
    if layers is not None:
        table["_stratum"] = layers
    near = fit_cox(time, event, matrix, strata=layers)
    start = near.beta * matrix.std(axis=0, ddof=1) if near.converged else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = lifelines.CoxPHFitter().fit(
                table,
                "_time",
                "_event",
                strata=None if layers is None else ["_stratum"],
                initial_point=start,
                fit_options={"precision": 1e-13, "r_precision": 1e-15},
            )
    except (exceptions.ConvergenceError, np.linalg.LinAlgError) as error:
        raise _diverged() from error
    beta = fitted.params_.to_numpy(dtype=np.float64)
    model = fit_cox(time, event, matrix, strata=layers, start=beta)
    return replace(model, beta=beta), fitted.variance_matrix_.to_numpy(dtype=np.float64)


def _diverged() -> NotEstimableError:
    return NotEstimableError(
        "the Cox regression did not converge", "leave out sparse or strongly correlated covariates"
    )
