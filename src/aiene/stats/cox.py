"""Cox regressions for the tables of a report, by lifelines with Efron's ties (large ones by `fit_cox`)."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from aiene.errors import UsageError, need
from aiene.stats.cox_model import CoxFit, CoxModel, fit_cox, wald_rows
from aiene.stats.elementary import chi2_tail
from aiene.stats.pair_counts import stratified_c
from aiene.stats.penalised_cox import find_separation, firth, ridge
from aiene.stats.records import (
    Floats,
    Ints,
    NotEstimableError,
    check_design,
    check_fraction,
    check_groups,
    check_outcome,
)

Fallback = Literal["firth", "ridge", "none"]
Engine = Literal["lifelines", "newton"]

_MANY = 20_000  # patients from which lifelines takes minutes; `fit_cox` agrees with it to 8 digits


def cox(
    time: ArrayLike,
    event: ArrayLike,
    X: pd.DataFrame,
    *,
    strata: ArrayLike | None = None,
    fallback: Fallback = "firth",
    confidence: float = 0.95,
    engine: Engine = "lifelines",
) -> CoxFit:
    """Cox regression; where an estimate has no finite value, a penalised one that says so.

    Parameters
    ----------
    time, event : (n,) see `check_outcome`.
    X : (n, p) numbers without missing values; the column names become the row names.
    strata : (n,) labels; each has its own baseline.
    fallback : what to do where a column separates those with an event from those without.
    engine : `newton` is `fit_cox`, some fifty times quicker; the two agree to 8 digits.

    Raises
    ------
    UsageError : see `check_outcome`, `check_design`; or no such fallback or engine.
    NotEstimableError : no event; columns that follow from one another; with `fallback="none"` separation.

    References
    ----------
    Cox 1972, J R Stat Soc B 34:187; Efron 1977, J Am Stat Assoc 72:557.
    """
    times, codes = check_outcome(time, event)
    if not codes.any():
        raise NotEstimableError("no event happened", "choose another endpoint or more patients")
    matrix, names = check_design(X, times.size)
    level = check_fraction(confidence, "confidence")
    if fallback not in ("firth", "ridge", "none"):
        raise UsageError(f"fallback {fallback}: choose firth, ridge or none.")
    if engine not in ("lifelines", "newton"):
        raise UsageError(f"engine {engine}: choose lifelines or newton.")
    separated = find_separation(times, codes, X, strata=strata)
    if separated:
        return _fallen_back(times, codes, X, strata, fallback, level, separated)
    layers = None if strata is None else check_groups(strata, times.size)[0]
    by_lifelines = engine == "lifelines" and times.size <= _MANY
    model, covariance = (_by_lifelines if by_lifelines else _by_newton)(times, codes, matrix, layers)
    return _record(times, codes, matrix, names, layers, level, model, covariance)


def cause_specific_cox(
    time: ArrayLike, state: ArrayLike, X: pd.DataFrame, *, cause: int = 1, **options: Any
) -> CoxFit:
    """Cox regression of one cause, in which patients leave the risk set at the competing event.

    Parameters
    ----------
    state : (n,) 0 censored, 1 event, 2 competing event.
    options : see `cox`.

    Raises
    ------
    UsageError, NotEstimableError : see `cox`.

    References
    ----------
    Prentice et al. 1978, Biometrics 34:541.
    """
    times, codes = check_outcome(time, state, competing=True)
    return cox(times, codes == cause, X, **options)


def _fallen_back(
    time: Floats,
    event: Ints,
    X: pd.DataFrame,
    strata: ArrayLike | None,
    fallback: Fallback,
    level: float,
    separated: tuple[str, ...],
) -> CoxFit:
    listed = ", ".join(separated)
    if fallback == "none":
        raise NotEstimableError(
            f"the estimate of {listed} runs to infinity (perfect separation)",
            "merge sparse levels, or ask for the Firth or ridge estimate",
        )
    penalised = firth if fallback == "firth" else ridge
    fit = penalised(time, event, X, strata=strata, confidence=level)
    told = (
        f"perfect separation by {listed}: Cox's estimate runs to infinity, so this is the {fallback} estimate"
    )
    return replace(fit, warnings=(told, *fit.warnings), separation=separated)


def _record(
    time: Floats,
    event: Ints,
    matrix: Floats,
    names: tuple[str, ...],
    layers: Ints | None,
    level: float,
    model: CoxModel,
    covariance: Floats,
) -> CoxFit:
    df = len(names)
    statistic = 2.0 * (model.log_likelihood - model.log_likelihood_null)
    return CoxFit(
        method="efron",
        rows=wald_rows(names, model.beta, covariance, level),
        covariance=covariance,
        n=time.size,
        events=int(event.sum()),
        log_likelihood=model.log_likelihood,
        log_likelihood_null=model.log_likelihood_null,
        lrt=statistic,
        lrt_df=df,
        lrt_p=chi2_tail(statistic, df),
        aic=2.0 * df - 2.0 * model.log_likelihood,
        concordance=stratified_c(time, event, model.risk(matrix), layers),
        strata=layers is not None,
        warnings=_sparse(event, df),
        separation=(),
        model=model,
    )


def _by_newton(time: Floats, event: Ints, matrix: Floats, layers: Ints | None) -> tuple[CoxModel, Floats]:
    """Fitted model and the covariance (p, p) of its coefficients."""
    model = fit_cox(time, event, matrix, strata=layers)
    if not model.converged:
        raise _diverged()
    return model, np.asarray(np.linalg.inv(model.information), dtype=np.float64)


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


def _sparse(event: Ints, parameters: int) -> tuple[str, ...]:
    per = int(event.sum()) / parameters
    return (f"{per:.1f} events per parameter (fewer than 10): unstable",) if per < 10 else ()
