"""Hazard ratio of a count that is known only by probabilities: multiple draws, and simulation-extrapolation.

A count read off probabilities is measured with error, which pulls its hazard ratio towards 1. Draws of the
true count from its probabilities *and the patient's outcome*, pooled by Rubin's rules, take that away where
the probabilities are calibrated; draws that do not look at the outcome would pull it further. SIMEX needs
only the variance of the error: it adds more of it, and reads the trend back to none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from aiene.errors import UsageError
from aiene.stats.cox_model import CoxModel, fit_cox
from aiene.stats.elementary import normal_quantile, step
from aiene.stats.imputation import PooledCoefficient, rubin_estimates
from aiene.stats.records import Floats, Ints, NotEstimableError, check_outcome
from aiene.stats.sample_size import count_distribution

_ADDED = (0.5, 1.0, 1.5, 2.0)
"""Multiples of the error's variance that SIMEX adds."""


class Corrected(NamedTuple):
    """A hazard ratio per unit with its interval and the log ratio behind it."""

    hr: float
    lower: float
    upper: float
    coef: float
    std_error: float


def count_chances(probabilities: Sequence[ArrayLike]) -> Floats:
    """Chances (n, k) of each count 0, 1, ... of n patients from the probabilities of their nodes."""
    own = [count_distribution(p) for p in probabilities]
    out = np.zeros((len(own), max(part.size for part in own)))
    for row, part in zip(out, own, strict=True):
        row[: part.size] = part
    return out


def drawn_counts(
    time: ArrayLike,
    event: ArrayLike,
    chances: Floats,
    others: Floats,
    *,
    m: int = 20,
    iterations: int = 10,
    seed: int = 1,
    confidence: float = 0.95,
) -> Corrected:
    """Cox regression pooled over m draws of the counts, each compatible with that very regression.

    In turn a count is drawn for each patient with a chance proportional to that of its nodes times the
    likelihood of the patient's outcome, and the regression is fitted and its coefficients drawn anew.

    Parameters
    ----------
    time, event : (n,); event 0 or 1.
    chances : (n, k) of each count, see `count_chances`.
    others : (n, p) further covariates; p may be 0.

    Raises
    ------
    UsageError : shapes that do not fit.
    NotEstimableError : the regression cannot be fitted.

    References
    ----------
    Bartlett et al. 2015, Stat Methods Med Res 24:462; Rubin 1987.
    """
    times, codes = check_outcome(time, event)
    if chances.shape[0] != times.size or others.shape[0] != times.size or m < 2:
        raise UsageError("chances, covariates and outcomes are of different patients, or m is under 2.")
    estimates, covariances = [], []
    for number in range(m):
        rng = np.random.default_rng([seed, number])
        count = _draw(chances, rng)
        for _ in range(iterations):
            model = _fit(times, codes, count, others)
            count = _draw(chances * _likelihood(times, codes, others, model, chances.shape[1], rng), rng)
        model = _fit(times, codes, count, others)
        estimates.append(model.beta)
        covariances.append(np.linalg.inv(model.information))
    names = ["count", *(f"x{k}" for k in range(others.shape[1]))]
    pooled = rubin_estimates(
        np.stack(estimates), np.stack(covariances), names, times.size,
        events=int(codes.sum()), confidence=confidence,
    )  # fmt: skip
    return _of_row(pooled.rows[0])


def _of_row(row: PooledCoefficient) -> Corrected:
    return Corrected(row.hr, row.lower, row.upper, row.coef, row.std_error)


def _fit(time: Floats, event: Ints, count: Floats, others: Floats) -> CoxModel:
    model = fit_cox(time, event, np.column_stack([count, others]))
    if not model.converged:
        raise NotEstimableError("the Cox regression did not converge", "leave out sparse covariates")
    return model


def _draw(weights: Floats, rng: Generator) -> Floats:
    below = np.cumsum(weights, axis=1)
    return np.asarray((rng.random((weights.shape[0], 1)) * below[:, -1:] > below[:, :-1]).sum(axis=1), float)


def _likelihood(time: Floats, event: Ints, others: Floats, model: CoxModel, k: int, rng: Generator) -> Floats:
    """Likelihood (n, k) of each patient's outcome with each count, up to a factor of the patient."""
    half = np.linalg.cholesky(np.linalg.inv(model.information))
    beta = model.beta + half @ rng.standard_normal(model.beta.size)
    hazard = step(model.baseline_times, model.baseline_hazard, time, 0.0)
    score = beta[0] * np.arange(k)[None, :] + (others @ beta[1:])[:, None]
    log = event[:, None] * score - hazard[:, None] * np.exp(score)
    return np.asarray(np.exp(log - log.max(axis=1, keepdims=True)))


def simex(
    time: ArrayLike,
    event: ArrayLike,
    count: ArrayLike,
    error_variance: ArrayLike,
    others: Floats,
    *,
    n_sim: int = 50,
    seed: int = 1,
    confidence: float = 0.95,
) -> Corrected:
    """Simulation-extrapolation with a quadratic.

    Parameters
    ----------
    count : (n,) as measured.
    error_variance : (n,) of the measured count around the true one.
    others : (n, p) further covariates.
    n_sim : additions of error at each multiple.

    Raises
    ------
    NotEstimableError : the regression cannot be fitted, or the extrapolated variance is not over 0.

    References
    ----------
    Cook and Stefanski 1994, J Am Stat Assoc 89:1314; the variance of Stefanski and Cook 1995, J Am Stat Assoc
    90:1247.
    """
    times, codes = check_outcome(time, event)
    measured, spread = np.asarray(count, dtype=float), np.sqrt(np.asarray(error_variance, dtype=float))
    plain = _fit(times, codes, measured, others)
    means, variances = [float(plain.beta[0])], [float(np.linalg.inv(plain.information)[0, 0])]
    rng = np.random.default_rng(seed)
    for multiple in _ADDED:
        found = []
        for _ in range(n_sim):
            noisy = measured + multiple**0.5 * spread * rng.standard_normal(measured.size)
            model = _fit(times, codes, noisy, others)
            found.append((model.beta[0], np.linalg.inv(model.information)[0, 0]))
        estimates, own = np.array(found).T
        means.append(float(estimates.mean()))
        variances.append(float(own.mean() - estimates.var(ddof=1)))
    coef, variance = (
        float(np.polyval(np.polyfit((0.0, *_ADDED), values, 2), -1.0)) for values in (means, variances)
    )
    if not variance > 0:
        raise NotEstimableError("the error of the count is too large for SIMEX", "read the multiple draws")
    error = variance**0.5
    width = normal_quantile(0.5 + confidence / 2) * error
    low, high = np.exp([coef - width, coef + width])
    return Corrected(float(np.exp(coef)), float(low), float(high), coef, error)
