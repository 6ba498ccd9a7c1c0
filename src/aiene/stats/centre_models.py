"""Several centres: Cox regression with robust errors or a random effect, and one value pooled over centres.

Pooling is by random effects, with their heterogeneity and what another centre may show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special, stats

from aiene.errors import UsageError
from aiene.stats.cox_model import Derivatives, derivatives, event_sums, fit_cox, risk_sets, wald_rows
from aiene.stats.records import (
    Coefficient,
    Floats,
    Ints,
    NotEstimableError,
    check_design,
    check_events,
    check_fraction,
    check_groups,
    check_outcome,
    normal_quantile,
)

_MOST_STEPS = 100
_SETTLED = 1e-8


def cluster_robust_cox(
    time: ArrayLike, event: ArrayLike, X: pd.DataFrame, cluster: ArrayLike, *, confidence: float = 0.95
) -> tuple[Coefficient, ...]:
    """The plain estimates with Lin and Wei's sandwich errors, patients of a cluster taken together.

    Parameters
    ----------
    time, event : (n,) see `check_outcome`.
    X : (n, p) numbers without missing values.
    cluster : (n,) labels.

    Raises
    ------
    UsageError : see `check_outcome`, `check_design`.
    NotEstimableError : fewer than two clusters, or the fit does not converge.

    References
    ----------
    Lin and Wei 1989, J Am Stat Assoc 84:1074. Errors as R's coxph; lifelines' differ at ties.
    """
    times, codes = check_outcome(time, event)
    matrix, names = check_design(X, times.size)
    place, labels = check_groups(cluster, times.size)
    if len(labels) < 2:
        raise NotEstimableError("there is one cluster only", "take the plain model")
    check_events(codes)
    model = fit_cox(times, codes, matrix)
    if not model.converged:
        raise NotEstimableError("the Cox regression did not converge", "leave out sparse covariates")
    inverse = np.linalg.inv(model.information)
    shifts = score_residuals(times, codes, matrix, model.beta) @ inverse
    together = np.zeros((len(labels), len(names)))
    np.add.at(together, place, shifts)
    return wald_rows(names, model.beta, together.T @ together, confidence)


def score_residuals(time: Floats, event: Ints, matrix: Floats, beta: Floats) -> Floats:
    """What each patient adds to Efron's score (n, p), as R's residuals(type="score").

    Parameters
    ----------
    time, event : (n,)
    matrix : (n, p); beta : (p,).
    """
    sets = risk_sets(time, event)
    x = matrix[sets.order] - matrix.mean(axis=0)
    eta = x @ beta
    r = np.exp(eta - eta.max())
    sums = event_sums(np.concatenate([r[:, None], x * r[:, None]], axis=1), sets)
    inverse = 1.0 / sums[:, 0]
    mean = sums[:, 1:] * inverse[:, None]
    columns = np.concatenate([inverse[:, None], mean * inverse[:, None]], axis=1)
    running = np.concatenate([np.zeros((1, columns.shape[1])), np.cumsum(columns, axis=0)])
    past = running[sets.until] - running[sets.since]
    first = np.flatnonzero(sets.fraction == 0)
    past[sets.event_rows] -= np.add.reduceat(sets.fraction[:, None] * columns, first, axis=0)[sets.tie]
    residuals = -r[:, None] * (x * past[:, :1] - past[:, 1:])
    ties = np.bincount(sets.tie)
    shared = np.add.reduceat(mean, first, axis=0) / ties[:, None]  # the tied events share their means
    residuals[sets.event_rows] += x[sets.event_rows] - shared[sets.tie]
    out = np.empty_like(residuals)
    out[sets.order] = residuals
    return np.asarray(out)


class Frailty(NamedTuple):
    """A Cox model with a normal random effect of each cluster on the log hazard.

    Parameters
    ----------
    rows : one for each column.
    variance : of the random effects.
    effects : log hazard ratio of each cluster against an average one, by label.
    """

    rows: tuple[Coefficient, ...]
    variance: float
    effects: dict[str, float]


def frailty_cox(
    time: ArrayLike, event: ArrayLike, X: pd.DataFrame, cluster: ArrayLike, *, confidence: float = 0.95
) -> Frailty:
    """Cox regression with a log-normal frailty of each cluster, by penalised partial likelihood.

    The variance is the restricted maximum likelihood estimate, as that of R's
    `frailty(distribution="gaussian", method="reml")`.

    Parameters
    ----------
    time, event : (n,) see `check_outcome`.
    X : (n, p) numbers without missing values.
    cluster : (n,) labels.

    Raises
    ------
    UsageError : see `check_outcome`, `check_design`.
    NotEstimableError : no event, fewer than two clusters, or the fit does not settle.

    References
    ----------
    McGilchrist 1993, Biometrics 49:221; Therneau, Grambsch and Pankratz 2003, J Comput Graph Stat 12:156.
    """
    times, codes = check_outcome(time, event)
    matrix, names = check_design(X, times.size)
    place, labels = check_groups(cluster, times.size)
    if len(labels) < 2 or not codes.any():
        raise NotEstimableError("a frailty needs an event and two clusters", "take the plain model")
    p, k = len(names), len(labels)
    scale = matrix.std(axis=0)
    if (scale == 0).any():
        raise UsageError("a covariate is the same in all patients.")
    sets = risk_sets(times, codes)
    joined = np.concatenate([(matrix - matrix.mean(axis=0)) / scale, np.eye(k)[place]], axis=1)[sets.order]

    def fit(variance: float, start: Floats) -> tuple[Floats, Derivatives, Floats]:
        penalty = np.concatenate([np.zeros(p), np.full(k, 1.0 / variance)])
        beta = start
        for _ in range(_MOST_STEPS):
            with np.errstate(all="ignore"):
                now = derivatives(joined, sets, beta)
            inner = now.information + np.diag(penalty)
            if not np.isfinite(inner).all():
                raise NotEstimableError(
                    "an estimate of the frailty model runs to infinity", "merge sparse levels"
                )
            move = np.linalg.solve(inner, now.score - penalty * beta)
            beta = beta + move / max(1.0, float(np.abs(joined @ move).max()) / 3.0)
            if float(np.abs(move).max()) < _SETTLED:
                return beta, now, np.asarray(np.linalg.inv(inner))
        raise NotEstimableError("the frailty model did not settle", "leave out sparse covariates")

    variance, beta = 0.1, np.zeros(p + k)
    for _ in range(500):
        beta, _, covariance = fit(variance, beta)
        effects = beta[p:]
        then = float(effects @ effects + np.trace(covariance[p:, p:])) / k
        settled = abs(then - variance) < _SETTLED * max(variance, 1e-4)
        variance = max(then, 1e-6)
        if settled or variance == 1e-6:
            break
    rows = wald_rows(names, beta[:p] / scale, covariance[:p, :p] / np.outer(scale, scale), confidence)
    return Frailty(rows, variance, dict(zip(labels, beta[p:].tolist(), strict=True)))


class RandomEffects(NamedTuple):
    """A pooled value.

    Parameters
    ----------
    value, lower, upper : mean over centres with Knapp and Hartung's interval.
    tau2 : variance between centres, by restricted maximum likelihood.
    i2 : share of the variance that is between centres, 0 to 1.
    q, q_p : Cochran's test of heterogeneity.
    expected_low, expected_high : where the true value of a further centre lies; NaN with two centres.
    k : centres.
    """

    value: float
    lower: float
    upper: float
    tau2: float
    i2: float
    q: float
    q_p: float
    expected_low: float
    expected_high: float
    k: int


def random_effects(estimates: ArrayLike, std_errors: ArrayLike, *, confidence: float = 0.95) -> RandomEffects:
    """Pool the estimates of k centres; ratios as logarithms, shares as logits.

    Parameters
    ----------
    estimates, std_errors : (k,) finite, errors over 0.

    Raises
    ------
    UsageError : shapes that do not fit, or an error that is not over 0.
    NotEstimableError : fewer than two centres.

    References
    ----------
    Knapp and Hartung 2003, Stat Med 22:2693; Higgins et al. 2009, J R Stat Soc A 172:137; Debray et al. 2017,
    BMJ 356:i6460. The numbers are those of metafor's `rma(test="knha")`.
    """
    y, error = np.asarray(estimates, np.float64).ravel(), np.asarray(std_errors, np.float64).ravel()
    if y.shape != error.shape or not np.isfinite(y).all() or not (error > 0).all():
        raise UsageError("each estimate needs a standard error over 0.")
    if y.size < 2:
        raise NotEstimableError("fewer than two centres can be pooled", "read the centre's own value")
    level, k, v = check_fraction(confidence, "confidence"), y.size, error**2
    tau2 = _tau2(y, v)
    w = 1.0 / (v + tau2)
    mean = float(w @ y / w.sum())
    spread = float(w @ (y - mean) ** 2) / (k - 1)
    of_mean = (spread / w.sum()) ** 0.5
    width = float(special.stdtrit(k - 1, 0.5 + level / 2)) * of_mean
    fixed = 1.0 / v
    q = float(fixed @ (y - fixed @ y / fixed.sum()) ** 2)
    typical = (k - 1) * fixed.sum() / (fixed.sum() ** 2 - (fixed**2).sum())
    beyond = float("nan")
    if k > 2:
        beyond = float(special.stdtrit(k - 2, 0.5 + level / 2)) * (tau2 + of_mean**2) ** 0.5
    return RandomEffects(
        mean, mean - width, mean + width, tau2, float(tau2 / (tau2 + typical)), q,
        float(stats.chi2.sf(q, k - 1)), mean - beyond, mean + beyond, k,
    )  # fmt: skip


def _tau2(y: Floats, v: Floats) -> float:
    """Fisher scoring of the restricted likelihood, from the variance that is left over."""
    tau2 = max(0.0, float(y.var(ddof=1) - v.mean()))
    for _ in range(200):
        w = 1.0 / (v + tau2)
        p = np.diag(w) - np.outer(w, w) / w.sum()
        projected = p @ y
        step = float(projected @ projected - np.trace(p)) / float((p * p).sum())
        moved = max(0.0, tau2 + step)
        if abs(moved - tau2) < 1e-12 * max(1.0, tau2):
            return moved
        tau2 = moved
    return tau2


# Which centres can judge a model, and one value from all of them

FEWEST_CENTRES = 3
FEWEST_EVENTS = 20
"""Events that a centre needs to judge a model."""

Scale = Literal["plain", "log", "logit"]
_SCALES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[float], float]]] = {
    "plain": (lambda x: x, float),
    "log": (np.log, lambda x: float(np.exp(x))),
    "logit": (lambda x: np.log(x / (1 - x)), lambda x: float(1 / (1 + np.exp(-x)))),
}


def validation_centres(center: np.ndarray, event: np.ndarray) -> tuple[str, ...]:
    """The centres with events enough, in the order of their names; none where they are fewer than three.

    Parameters
    ----------
    center : (n,) names, empty where not known; such patients take part in every fit and judge none.
    event : (n,) 0 or 1.
    """
    found = [str(c) for c in np.unique(center.astype(str)) if c and event[center == c].sum() >= FEWEST_EVENTS]
    return tuple(found) if len(found) >= FEWEST_CENTRES else ()


def pooled(
    rows: Sequence[Mapping[str, Any]], keys: tuple[str, str, str], scale: Scale, confidence: float
) -> RandomEffects | None:
    """Random effects over the rows of centres, back on the scale that they are shown in.

    Parameters
    ----------
    keys : of the value and of the ends of its interval, whose width on `scale` gives the standard error.

    Returns
    -------
    None where fewer than two rows have a value and an interval with a width.
    """
    to, back = _SCALES[scale]
    parts = np.array([[row.get(k) for k in keys] for row in rows], dtype=float).reshape(-1, 3)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = to(parts)
    error = (moved[:, 2] - moved[:, 1]) / (2 * normal_quantile(confidence))
    good = np.isfinite(moved).all(axis=1) & (error > 0)
    if good.sum() < 2:
        return None
    found = random_effects(moved[good, 0], error[good], confidence=confidence)
    names = ("value", "lower", "upper", "expected_low", "expected_high")
    shown: dict[str, Any] = {name: back(getattr(found, name)) for name in names}
    return found._replace(**shown)
