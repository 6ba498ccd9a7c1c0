"""Competing events: cumulative incidence by Aalen and Johansen, and its regression by Fine and Gray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from aiene.errors import need
from aiene.stats.cox_model import monotone, risk_sets, unstable, wald_rows
from aiene.stats.records import (
    EVENT,
    Coefficient,
    Floats,
    HorizonEstimate,
    Ints,
    NotEstimableError,
    check_design,
    check_outcome,
    chi2_tail,
    known_until,
    normal_quantile,
)
from aiene.stats.survival_curves import (
    LifeTable,
    StepCurve,
    from_zero,
    life_table,
    step,
    survival_steps,
    unseen_limit,
    within_unit,
)


@dataclass(frozen=True, kw_only=True)
class IncidenceCurve(StepCurve):
    """Cumulative incidence (k,) of the event, and the competing events (k,) at each time."""

    incidence: Floats
    n_competing: Floats

    def at(self, horizons: Sequence[float]) -> tuple[HorizonEstimate, ...]:
        """Incidence at each horizon with its interval; before the first event by the patients known there."""
        found = [self.estimate_at(self.incidence, float(horizon)) for horizon in horizons]
        return tuple(one if one.n_events else one._replace(upper=self._unseen(one)) for one in found)

    def _unseen(self, at: HorizonEstimate) -> float:
        known = at.at_risk + self.n_competing[self.times < at.time].sum()
        return float(unseen_limit(known, self.confidence)) if known else float("nan")


def cumulative_incidence(time: ArrayLike, state: ArrayLike, *, confidence: float = 0.95) -> IncidenceCurve:
    """Cumulative incidence of the event while another competes.

    The interval is on the scale log(-log(incidence)), which stays within 0 and 1.

    Parameters
    ----------
    time : (n,) not negative.
    state : (n,) 0 censored, 1 event, 2 competing event.

    Raises
    ------
    UsageError : see `check_outcome`.
    NotEstimableError : no patient.

    References
    ----------
    Aalen and Johansen 1978, Scand J Stat 5:141; variance of Aalen 1978, Ann Stat 6:701.
    """
    times, codes = check_outcome(time, state, competing=True)
    table = life_table(times, codes, codes=2)
    before = np.concatenate([[1.0], survival_steps(table)[:-1]])
    own, other = table.events.T
    incidence = np.cumsum(before * own / table.at_risk)
    error = np.sqrt(_variance(table, before, incidence))
    z = normal_quantile(confidence)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scaled = z * error / (incidence * np.log(incidence))
        lower, upper = incidence ** np.exp(-scaled), incidence ** np.exp(scaled)
    lower, upper = within_unit(incidence, lower, upper, incidence < 1)
    known = table.at_risk + np.cumsum(other) - other
    upper = np.where(incidence > 0, upper, unseen_limit(known, confidence))
    start = partial(from_zero, table.times)
    return IncidenceCurve(
        times=start(table.times, 0.0),
        incidence=start(incidence, 0.0),
        lower=start(lower, 0.0),
        upper=start(upper, float(unseen_limit(times.size, confidence))),
        std_error=start(error, 0.0),
        at_risk=start(table.at_risk, float(times.size)),
        n_events=start(own, 0.0),
        n_competing=start(other, 0.0),
        n=times.size,
        events=int((codes == EVENT).sum()),
        confidence=confidence,
        known_until=known_until(times, codes),
    )


def _variance(table: LifeTable, before: Floats, incidence: Floats) -> Floats:
    """Aalen's variance, with the correction for ties: R's cuminc gives the same.

    Each event of the own cause adds (1 + (F(u) - F(t)) / S(u))^2 times its share of the variance, each event
    of the other ((F(u) - F(t)) / S(u))^2; the squares are multiplied out, so that sums run over u alone.
    """
    n, own = table.at_risk, table.events[:, 0]
    after = before * (1.0 - table.events.sum(axis=1) / n)
    known = after > 1e-15  # once nobody is left only the last own events add to the variance
    inverse = np.divide(1.0, after, out=np.zeros_like(after), where=known)
    ratio = incidence * inverse
    squares, crosses, parts = (np.zeros_like(after) for _ in range(3))
    for deaths, start in ((own, 1.0), (table.events.sum(axis=1) - own, 0.0)):
        shares = before**2 * deaths / n**2 * (1.0 - np.maximum(deaths - 1.0, 0.0) / np.maximum(n - 1.0, 1.0))
        squares += np.cumsum((start + ratio) ** 2 * shares)
        crosses += np.cumsum((start + ratio) * inverse * shares)
        parts += np.cumsum(inverse**2 * shares)
    return np.asarray(np.maximum(squares - 2.0 * incidence * crosses + incidence**2 * parts, 0.0))


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


def fine_gray(time: ArrayLike, state: ArrayLike, X: pd.DataFrame, *, confidence: float = 0.95) -> FineGrayFit:
    """Regression on the subdistribution hazard with robust errors, ties by Breslow, as R's cmprsk.

    Parameters
    ----------
    time : (n,) not negative. Only their order matters to the coefficients.
    state : (n,) 0 censored, 1 event, 2 competing event.
    X : (n, p) numbers without missing values.

    Raises
    ------
    UsageError : see `check_outcome`, `check_design`.
    NotEstimableError : no event, or a column separates those with the event from all others.

    References
    ----------
    Fine and Gray 1999, J Am Stat Assoc 94:496; computed by comprisk.
    """
    times, codes = check_outcome(time, state, competing=True)
    own = codes == EVENT
    if not own.any():
        raise NotEstimableError("no event of this cause happened", "choose another endpoint or more patients")
    matrix, names = check_design(X, times.size)
    moments, rank = np.unique(times, return_inverse=True)
    _refuse_separation(rank, codes, own, matrix, names)
    mean, scale = matrix.mean(axis=0), matrix.std(axis=0)
    comprisk = need("comprisk", extra="risk", purpose="Fine-Gray regression")
    model = comprisk.FineGrayRegression(cause=EVENT, robust_se=True, max_iter=50, gtol=1e-10)
    try:
        model.fit((matrix - mean) / scale, time=rank + 1.0, event=codes)
    except (RuntimeError, np.linalg.LinAlgError) as error:
        raise _diverged(names) from error
    _refuse_divergence(model, names)
    beta, covariance = model.coef_ / scale, model.var_ / np.outer(scale, scale)
    places = model._state.baseline_times.astype(np.int64) - 1
    jumps = model._state.baseline_hazard_increments * np.exp(-float(beta @ mean))
    statistic = 2.0 * float(model.log_likelihood_ - model.log_likelihood_null_)
    return FineGrayFit(
        rows=wald_rows(names, beta, covariance, confidence),
        covariance=covariance,
        n=times.size,
        events=int(own.sum()),
        competing=int(((codes != 0) & ~own).sum()),
        log_likelihood=float(model.log_likelihood_),
        log_likelihood_null=float(model.log_likelihood_null_),
        lrt=statistic,
        lrt_df=len(names),
        lrt_p=chi2_tail(statistic, len(names)),
        warnings=unstable(int(own.sum()), len(names)),
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
