"""Regression on the cumulative incidence with competing events: Fine and Gray's model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from aiene.errors import UsageError
from aiene.extras import need
from aiene.stats.cox_model import monotone, risk_sets, wald_rows
from aiene.stats.elementary import chi2_tail, step
from aiene.stats.records import (
    Coefficient,
    Floats,
    Ints,
    NotEstimableError,
    check_design,
    check_fraction,
    check_outcome,
)


@dataclass(frozen=True)
class FineGrayFit:
    """A Fine-Gray regression.

    Parameters
    ----------
    rows : one for each column; `hr` is the subdistribution hazard ratio.
    covariance : (p, p) robust.
    n, events, competing : patients, events of the cause, competing events.
    log_likelihood, log_likelihood_null : pseudo partial likelihood of the fit and without covariates.
    lrt, lrt_df, lrt_p : test of the whole model on the pseudo likelihood, as R's crr prints it.
    warnings : what the reader must be told.
    baseline_times, baseline_hazard : (k,) cumulative subdistribution hazard at x = 0.
    """

    rows: tuple[Coefficient, ...]
    covariance: Floats
    n: int
    events: int
    competing: int
    log_likelihood: float
    log_likelihood_null: float
    lrt: float
    lrt_df: int
    lrt_p: float
    warnings: tuple[str, ...]
    baseline_times: Floats
    baseline_hazard: Floats

    @property
    def coef(self) -> Floats:
        """Log subdistribution hazard ratios (p,)."""
        return np.array([row.coef for row in self.rows])

    def predict(self, X: ArrayLike, horizons: ArrayLike) -> Floats:
        """Cumulative incidence (n, k) at each horizon."""
        hazard = step(
            self.baseline_times, self.baseline_hazard, np.atleast_1d(horizons).astype(np.float64), 0.0
        )
        eta = np.asarray(X, dtype=np.float64) @ self.coef
        return np.asarray(1.0 - np.exp(-np.exp(eta)[:, None] * hazard[None, :]))


def fine_gray(
    time: ArrayLike, state: ArrayLike, X: pd.DataFrame, *, cause: int = 1, confidence: float = 0.95
) -> FineGrayFit:
    """Regression on the subdistribution hazard with robust errors, ties by Breslow, as R's cmprsk.

    Parameters
    ----------
    time : (n,) not negative. Only their order matters to the coefficients.
    state : (n,) 0 censored, 1 event, 2 competing event.
    X : (n, p) numbers without missing values.

    Raises
    ------
    UsageError : see `check_outcome`, `check_design`; or `cause` is neither 1 nor 2.
    NotEstimableError : no event of the cause, or a column separates those with the event from all others.

    References
    ----------
    Fine and Gray 1999, J Am Stat Assoc 94:496; computed by comprisk.
    """
    times, codes = check_outcome(time, state, competing=True)
    if cause not in (1, 2):
        raise UsageError(f"cause {cause}: choose 1 or 2.")
    level = check_fraction(confidence, "confidence")
    own = codes == cause
    if not own.any():
        raise NotEstimableError("no event of this cause happened", "choose another endpoint or more patients")
    matrix, names = check_design(X, times.size)
    moments, rank = np.unique(times, return_inverse=True)
    _refuse_separation(rank, codes, own, matrix, names)
    mean, scale = matrix.mean(axis=0), matrix.std(axis=0)
    comprisk = need("comprisk", extra="risk", purpose="Fine-Gray regression")
    model = comprisk.FineGrayRegression(cause=cause, robust_se=True, max_iter=50, gtol=1e-10)
    try:
        model.fit((matrix - mean) / scale, time=rank + 1.0, event=codes)
    except (RuntimeError, np.linalg.LinAlgError) as error:
        raise _diverged(names) from error
    _refuse_divergence(model, names)
    beta, covariance = model.coef_ / scale, model.var_ / np.outer(scale, scale)
    places = model._state.baseline_times.astype(np.int64) - 1
    jumps = model._state.baseline_hazard_increments * np.exp(-float(beta @ mean))
    statistic = 2.0 * float(model.log_likelihood_ - model.log_likelihood_null_)
    per = int(own.sum()) / len(names)
    return FineGrayFit(
        rows=wald_rows(names, beta, covariance, level),
        covariance=covariance,
        n=times.size,
        events=int(own.sum()),
        competing=int(((codes != 0) & ~own).sum()),
        log_likelihood=float(model.log_likelihood_),
        log_likelihood_null=float(model.log_likelihood_null_),
        lrt=statistic,
        lrt_df=len(names),
        lrt_p=chi2_tail(statistic, len(names)),
        warnings=(f"{per:.1f} events per parameter (fewer than 10): unstable",) if per < 10 else (),
        baseline_times=moments[places],
        baseline_hazard=np.cumsum(jumps),
    )


def _refuse_separation(
    rank: Ints, codes: Ints, own: np.ndarray, matrix: Floats, names: tuple[str, ...]
) -> None:
    """In the subdistribution's risk sets a patient with the competing event stays for ever."""
    forever = np.where((codes != 0) & ~own, rank.max() + 1, rank).astype(np.float64)
    sets = risk_sets(forever, own.astype(np.int64))
    found = [name for column, name in enumerate(names) if monotone(matrix[sets.order, column], sets)]
    if found:
        raise _diverged(found)


def _refuse_divergence(model: object, names: tuple[str, ...]) -> None:
    beta, score, information = (getattr(model, name) for name in ("coef_", "score_", "information_"))
    error = np.sqrt(np.diag(np.linalg.inv(information)))
    far = (np.abs(beta) > 12.0) | (np.abs(score) * error > 1e-3) | ~np.isfinite(error)
    if far.any():
        raise _diverged([name for name, is_far in zip(names, far, strict=True) if is_far])


def _diverged(names: object) -> NotEstimableError:
    listed = ", ".join(names) if isinstance(names, list | tuple) else str(names)
    return NotEstimableError(
        f"the Fine-Gray estimate of {listed} runs to infinity (separation)",
        "merge sparse levels, or read the Firth estimate of the cause-specific hazard",
    )
