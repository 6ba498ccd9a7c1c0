"""Records of fitted regressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from aiene.errors import UsageError
from aiene.risk.stats.checks import Floats
from aiene.risk.stats.cox_fast import CoxModel
from aiene.risk.stats.errors import NotEstimableError
from aiene.risk.stats.normal import chi2_tail, normal_quantile, two_sided
from aiene.risk.stats.records import Coefficient, Interval

Method = Literal["efron", "firth", "ridge"]


@dataclass(frozen=True)
class CoxFit:
    """A Cox regression.

    Parameters
    ----------
    method : `efron` for the maximum of Efron's partial likelihood, `firth` or `ridge` for a penalised one.
    rows : one for each column.
    covariance : (p, p) of the coefficients.
    n, events : patients and events in the model.
    log_likelihood, log_likelihood_null : of the fit and without covariates; penalised for `firth`.
    lrt, lrt_df, lrt_p : likelihood-ratio test of the whole model; NaN for `ridge`.
    aic : NaN where the likelihood is penalised.
    concordance : Harrell's C on the same patients, within strata.
    strata : the model has strata.
    warnings : what the reader must be told.
    separation : columns whose estimate would run to infinity.
    model : for prediction.
    """

    method: Method
    rows: tuple[Coefficient, ...]
    covariance: Floats
    n: int
    events: int
    log_likelihood: float
    log_likelihood_null: float
    lrt: float
    lrt_df: int
    lrt_p: float
    aic: float
    concordance: float
    strata: bool
    warnings: tuple[str, ...]
    separation: tuple[str, ...]
    model: CoxModel

    @property
    def coef(self) -> Floats:
        """Log hazard ratios (p,)."""
        return np.array([row.coef for row in self.rows])

    @property
    def hazard_ratios(self) -> dict[str, Interval]:
        """Hazard ratio of each column with its interval."""
        return {row.name: Interval(row.hr, row.lower, row.upper) for row in self.rows}


class LikelihoodRatio(NamedTuple):
    """Does the larger model fit better: twice the gain of log-likelihood, chi-squared."""

    statistic: float
    df: int
    p: float
    aic_smaller: float
    aic_larger: float


class Wald(NamedTuple):
    """Joint test of several coefficients, chi-squared."""

    statistic: float
    df: int
    p: float


def wald_rows(
    names: Sequence[str], coef: Floats, covariance: Floats, confidence: float
) -> tuple[Coefficient, ...]:
    """Rows of a table of coefficients with Wald tests and intervals."""
    quantile = normal_quantile(0.5 + confidence / 2)
    rows = []
    for name, beta, variance in zip(names, coef, np.diag(covariance), strict=True):
        error = float(np.sqrt(max(float(variance), 0.0)))
        z = float(beta) / error if error > 0 else float("nan")
        with np.errstate(over="ignore"):
            ratio, low, high = np.exp([beta, beta - quantile * error, beta + quantile * error])
        rows.append(
            Coefficient(name, float(beta), error, z, two_sided(z), float(ratio), float(low), float(high))
        )
    return tuple(rows)


def nested_lrt(smaller: CoxFit, larger: CoxFit) -> LikelihoodRatio:
    """Likelihood-ratio test of two nested models on the same patients.

    Raises
    ------
    UsageError : the models are not nested, or not of the same patients.
    NotEstimableError : one of them is penalised, so its likelihood does not follow the chi-squared.
    """
    if (smaller.n, smaller.events) != (larger.n, larger.events):
        raise UsageError(
            f"the two models are of {smaller.n} and {larger.n} patients; compare them on the same ones."
        )
    if smaller.strata != larger.strata:
        raise UsageError("one of the two models has strata, the other not.")
    names, wider = {row.name for row in smaller.rows}, {row.name for row in larger.rows}
    if not names < wider:
        raise UsageError("the larger model must hold every covariate of the smaller one, and more.")
    if "efron" not in (smaller.method, larger.method) or smaller.method != larger.method:
        raise NotEstimableError(
            "a penalised model has no likelihood-ratio test", "merge the sparse levels and compare again"
        )
    statistic = 2.0 * (larger.log_likelihood - smaller.log_likelihood)
    df = len(wider) - len(names)
    return LikelihoodRatio(statistic, df, chi2_tail(statistic, df), smaller.aic, larger.aic)


def lrt_against_null(
    fit: CoxFit,
) -> LikelihoodRatio:
    """Likelihood-ratio test of a model against one without covariates."""
    return LikelihoodRatio(fit.lrt, fit.lrt_df, fit.lrt_p, -2.0 * fit.log_likelihood_null, fit.aic)


def term_test(fit: CoxFit, columns: Sequence[str]) -> Wald:
    """Joint Wald test of the columns of one term, such as the levels of a category.

    Raises
    ------
    UsageError : a column is not in the model.
    """
    names = [row.name for row in fit.rows]
    unknown = [column for column in columns if column not in names]
    if unknown or not columns:
        raise UsageError(f"not in the model: {', '.join(unknown) or 'no column given'}.")
    chosen = [names.index(column) for column in columns]
    beta = fit.coef[chosen]
    inner = fit.covariance[np.ix_(chosen, chosen)]
    statistic = float(beta @ np.linalg.pinv(inner, hermitian=True) @ beta)
    return Wald(statistic, len(chosen), chi2_tail(statistic, len(chosen)))
