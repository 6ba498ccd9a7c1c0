"""A count in a regression: how it is coded, and its hazard ratio where it is known only by probabilities.

A count read off probabilities is measured with error, which pulls its hazard ratio towards 1. Draws of the
true count from its probabilities *and the patient's outcome*, pooled by Rubin's rules, take that away where
the probabilities are calibrated; draws that do not look at the outcome would pull it further. SIMEX needs
only the variance of the error: it adds more of it, and reads the trend back to none.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import ArrayLike

from aiene.errors import UsageError
from aiene.stats.cox_model import CoxModel, fit_cox
from aiene.stats.imputation import rubin_estimates
from aiene.stats.records import Floats, Ints, NotEstimableError, check_outcome, normal_quantile
from aiene.stats.survival_curves import step

Form = Literal["continuous", "log1p", "capped", "categorical", "spline"]

_QUANTILES = {3: (0.10, 0.50, 0.90), 4: (0.05, 0.35, 0.65, 0.95), 5: (0.05, 0.275, 0.50, 0.725, 0.95)}


def spline_knots(x: ArrayLike, n_knots: int = 3) -> Floats:
    """Harrell's knots at fixed quantiles; where those coincide, as with counts, of the distinct values.

    Raises
    ------
    UsageError : not 3, 4 or 5 knots.
    NotEstimableError : too few distinct values.
    """
    values = np.asarray(x, dtype=np.float64)
    if n_knots not in _QUANTILES:
        raise UsageError("a spline has 3, 4 or 5 knots.")
    distinct = np.unique(values)
    if distinct.size < n_knots:
        raise NotEstimableError(
            f"{distinct.size} distinct values are too few for a spline of {n_knots} knots",
            "take the count as it is, or in classes",
        )
    knots = np.unique(np.quantile(values, _QUANTILES[n_knots]))
    if knots.size < n_knots:
        knots = np.quantile(distinct, _QUANTILES[n_knots])
    return np.asarray(knots)


def restricted_cubic_spline(x: ArrayLike, knots: ArrayLike | None = None, *, n_knots: int = 3) -> Floats:
    """Basis (n, k - 1) of a cubic spline that is straight beyond the outer knots; the first column is x.

    Parameters
    ----------
    knots : (k,) rising; `spline_knots(x, n_knots)` if None.

    Raises
    ------
    UsageError : fewer than 3 knots, or not rising.
    NotEstimableError : see `spline_knots`.

    References
    ----------
    Harrell 2015, Regression Modeling Strategies, section 2.4.5, with the columns divided by the knots' span
    squared.
    """
    values = np.asarray(x, dtype=np.float64)
    t = spline_knots(values, n_knots) if knots is None else np.asarray(knots, dtype=np.float64)
    if t.size < 3 or (np.diff(t) <= 0).any():
        raise UsageError("a spline needs at least 3 rising knots.")
    cube = np.maximum(values[:, None] - t[None, :], 0.0) ** 3
    last, before = t[-1], t[-2]
    left = cube[:, :-2]
    right = -cube[:, [-2]] * (last - t[:-2]) / (last - before) + cube[:, [-1]] * (before - t[:-2]) / (
        last - before
    )
    return np.concatenate([values[:, None], (left + right) / (last - t[0]) ** 2], axis=1)


def count_columns(
    count: ArrayLike,
    *,
    form: Form = "continuous",
    cap: int = 3,
    cutoffs: Sequence[int] = (1, 2),
    name: str = "n_ai_ene",
) -> pd.DataFrame:
    """Columns of a design for a count.

    Parameters
    ----------
    count : (n,) not negative, none missing.
    form : `continuous` as it is; `log1p` of it; `capped` at `cap`; `categorical` in classes with a column for
        each class above the first; `spline` with 3 knots.
    cutoffs : lower limits of the classes above the first: (1, 2) makes 0, 1 and >= 2.

    Raises
    ------
    UsageError : a count is missing or negative, or the cut-offs do not rise.
    NotEstimableError : too few distinct counts for a spline.
    """
    values = np.asarray(count, dtype=np.float64)
    if not np.isfinite(values).all() or (values < 0).any():
        raise UsageError(f"{name} must be counts, none missing.")
    if form == "continuous":
        return pd.DataFrame({name: values})
    if form == "log1p":
        return pd.DataFrame({f"log1p({name})": np.log1p(values)})
    if form == "capped":
        return pd.DataFrame({f"min({name}, {cap})": np.minimum(values, cap)})
    if form == "spline":
        basis = restricted_cubic_spline(values)
        return pd.DataFrame({name: basis[:, 0], f"{name}'": basis[:, 1]})
    if form == "categorical":
        return _classes(values, cutoffs, name)
    raise UsageError(f"form {form}: choose continuous, log1p, capped, categorical or spline.")


def _classes(values: Floats, cutoffs: Sequence[int], name: str) -> pd.DataFrame:
    limits = list(cutoffs)
    if not limits or limits[0] <= 0 or any(b <= a for a, b in pairwise(limits)):
        raise UsageError("cut-offs must be positive and rise.")
    columns = {}
    for low, following in zip(limits, [*limits[1:], None], strict=True):
        if following is None:
            label, inside = f"{name} >= {low}", values >= low
        else:
            span = f"{low}" if following == low + 1 else f"{low}-{following - 1}"
            label, inside = f"{name} {span}", (values >= low) & (values < following)
        columns[label] = inside.astype(np.float64)
    return pd.DataFrame(columns)


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
    row = pooled.rows[0]
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
    width = normal_quantile(confidence) * error
    low, high = np.exp([coef - width, coef + width])
    return Corrected(float(np.exp(coef)), float(low), float(high), coef, error)


def count_distribution(probabilities: ArrayLike) -> Floats:
    """Chances (k + 1,) that 0, 1, ..., k of k nodes are positive, if they are independent (Poisson-binomial).

    Parameters
    ----------
    probabilities : (k,) of each node; none gives a count of 0 for certain.

    Raises
    ------
    UsageError : a probability is missing or outside 0 to 1.
    """
    chances = np.asarray(probabilities, dtype=np.float64).ravel()
    if not ((chances >= 0) & (chances <= 1)).all():
        raise UsageError("probabilities must lie from 0 to 1, none missing.")
    distribution = np.ones(1)
    for chance in chances:
        distribution = np.convolve(distribution, [1.0 - chance, chance])
    return distribution


def probability_at_least(probabilities: ArrayLike, cutoff: int) -> float:
    """Chance that at least `cutoff` nodes are positive.

    Raises
    ------
    UsageError : see `count_distribution`.
    """
    if cutoff <= 0:
        return 1.0
    return float(min(1.0, count_distribution(probabilities)[cutoff:].sum()))
