"""One value from several centres: random effects, their heterogeneity, and what another centre may show."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from aiene.errors import UsageError
from aiene.stats.records import Floats, NotEstimableError, check_fraction


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
