"""One answer from several completed tables: Rubin's rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from aiene.errors import UsageError
from aiene.risk.stats.checks import Floats, check_fraction
from aiene.risk.stats.fits import CoxFit


class PooledCoefficient(NamedTuple):
    """A pooled coefficient; `fraction_missing` is the share of information lost to missing values."""

    name: str
    coef: float
    std_error: float
    t: float
    df: float
    p: float
    hr: float
    lower: float
    upper: float
    fraction_missing: float


@dataclass(frozen=True)
class Pooled:
    """A regression pooled over m completed tables.

    Parameters
    ----------
    covariance : (p, p) total.
    """

    rows: tuple[PooledCoefficient, ...]
    m: int
    n: int
    events: int
    covariance: Floats


def rubin(fits: Sequence[CoxFit], *, confidence: float = 0.95) -> Pooled:
    """Pool the same regression over completed tables.

    Raises
    ------
    UsageError : fewer than two fits, or not of the same columns and patients.
    """
    if len(fits) < 2:
        raise UsageError("Rubin's rules need at least two completed tables.")
    names = [row.name for row in fits[0].rows]
    for fit in fits:
        if [row.name for row in fit.rows] != names or (fit.n, fit.events) != (fits[0].n, fits[0].events):
            raise UsageError("the completed tables were not fitted with the same columns and patients.")
    return rubin_estimates(
        np.stack([fit.coef for fit in fits]),
        np.stack([fit.covariance for fit in fits]),
        names,
        fits[0].n,
        events=fits[0].events,
        confidence=confidence,
    )


def rubin_estimates(
    estimates: ArrayLike,
    covariances: ArrayLike,
    names: Sequence[str],
    n: int,
    *,
    events: int = 0,
    confidence: float = 0.95,
) -> Pooled:
    """Pool estimates (m, p) with their covariances (m, p, p).

    Parameters
    ----------
    n : patients; n - p are the degrees of freedom with complete data.

    Raises
    ------
    UsageError : shapes that do not fit, or fewer than two estimates.

    References
    ----------
    Rubin 1987, Multiple Imputation for Nonresponse in Surveys; Barnard and Rubin 1999, Biometrika 86:948.
    """
    values, within_each = np.asarray(estimates, np.float64), np.asarray(covariances, np.float64)
    m, p = values.shape
    if m < 2 or within_each.shape != (m, p, p) or len(names) != p:
        raise UsageError("estimates and covariances must be of at least two tables and the same columns.")
    level = check_fraction(confidence, "confidence")
    mean, within = values.mean(axis=0), within_each.mean(axis=0)
    between = np.atleast_2d(np.cov(values, rowvar=False, ddof=1))
    total = within + (1.0 + 1.0 / m) * between
    rows = tuple(
        _row(name, float(mean[k]), float(total[k, k]), (1 + 1 / m) * float(between[k, k]), m, n - p, level)
        for k, name in enumerate(names)
    )
    return Pooled(rows, m, n, events, total)


def _row(
    name: str, coef: float, total: float, extra: float, m: int, complete_df: int, level: float
) -> PooledCoefficient:
    lost = extra / total
    observed = (complete_df + 1) / (complete_df + 3) * complete_df * (1 - lost)
    df = observed if lost < 1e-12 else 1.0 / (lost**2 / (m - 1) + 1.0 / observed)
    error = total**0.5
    t = coef / error
    p = float(2.0 * special.stdtr(df, -abs(t)))
    width = float(special.stdtrit(df, 0.5 + level / 2)) * error
    r = extra / (total - extra) if total > extra else np.inf
    fraction = (r + 2.0 / (df + 3.0)) / (r + 1.0) if lost >= 1e-12 else 0.0
    with np.errstate(over="ignore"):
        ratio, low, high = np.exp([coef, coef - width, coef + width])
    return PooledCoefficient(
        name, coef, error, t, df, p, float(ratio), float(low), float(high), float(fraction)
    )
