"""Elementary functions of the estimators: tails of distributions, correction of p values, step curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special


def normal_quantile(p: float) -> float:
    """The standard normal quantile."""
    return float(special.ndtri(p))


def two_sided(z: float) -> float:
    """Two-sided p value of a standard normal statistic."""
    return float(2.0 * special.ndtr(-abs(z)))


def chi2_tail(statistic: float, df: int) -> float:
    """P value of a chi-squared statistic; NaN without a degree of freedom."""
    return (
        float(special.chdtrc(df, max(statistic, 0.0))) if df > 0 and np.isfinite(statistic) else float("nan")
    )


def holm(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
    """P values after Holm's step-down correction, in the order given.

    A missing one (None, NaN) gives None and does not count as a test.

    References
    ----------
    Holm 1979, Scand J Stat 6:65.
    """
    p = np.array(p_values, dtype=np.float64)
    valid = np.flatnonzero(np.isfinite(p))
    order = valid[np.argsort(p[valid], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    corrected = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    adjusted = dict(zip(order.tolist(), corrected.tolist(), strict=True))
    return tuple(adjusted.get(place) for place in range(p.size))


def step(
    times: NDArray[np.float64],
    values: NDArray[np.float64],
    query: NDArray[np.float64],
    before: float,
    *,
    left: bool = False,
) -> NDArray[np.float64]:
    """A right-continuous step function at `query`; with `left` its value just before it.

    Parameters
    ----------
    before : the value ahead of the first step.
    """
    place = np.searchsorted(times, query, side="left" if left else "right")
    return np.concatenate([[before], values])[place]


def unseen_limit(n: ArrayLike, confidence: float) -> NDArray[np.float64]:
    """Upper limit of the share of an event that none of n patients had: 1 - (alpha / 2)^(1/n).

    Before the first event the error of a curve is 0 and no interval follows from it; that of Clopper and
    Pearson does, for the patients whose state is known at the time: those still followed, and with competing
    events those who had one before.

    References
    ----------
    Clopper and Pearson 1934, Biometrika 26:404.
    """
    known = np.maximum(np.asarray(n, dtype=np.float64), 1.0)
    return np.asarray(1.0 - ((1.0 - confidence) / 2.0) ** (1.0 / known))


# How far groups differ in a characteristic


def standardised_difference(first: ArrayLike, second: ArrayLike) -> float:
    """Difference of two means over the root of the mean of the two variances; NaN where it has none.

    Parameters
    ----------
    first, second : (n,) and (m,) numbers of the two groups; NaN where not known.
    """
    a, b = (np.asarray(x, dtype=float) for x in (first, second))
    a, b = a[~np.isnan(a)], b[~np.isnan(b)]
    if a.size < 2 or b.size < 2:
        return float("nan")
    difference, spread = float(a.mean() - b.mean()), float((a.var(ddof=1) + b.var(ddof=1)) / 2)
    if spread == 0:
        return 0.0 if difference == 0 else float("nan")
    return difference / math.sqrt(spread)


def standardised_difference_of_levels(first: ArrayLike, second: ArrayLike) -> float:
    """The same for a characteristic of several levels (Yang and Dalton 2012); never negative.

    Parameters
    ----------
    first, second : (k,) patients of each group by level, in the same order.
    """
    a, b = (np.asarray(x, dtype=float) for x in (first, second))
    if not a.sum() or not b.sum():
        return float("nan")
    present = (a + b) > 0
    p, q = (a / a.sum())[present][1:], (b / b.sum())[present][1:]
    covariance = (np.diag(p) - np.outer(p, p) + np.diag(q) - np.outer(q, q)) / 2
    if np.allclose(p, q):
        return 0.0
    if not covariance.any():  # each group is all of one level: no spread to measure by
        return float("nan")
    distance = (p - q) @ np.linalg.pinv(covariance) @ (p - q)
    return float(distance**0.5)


def largest_difference(groups: list[np.ndarray], *, levels: bool) -> float | None:
    """The largest absolute value over all pairs of groups; None where no pair has one.

    Parameters
    ----------
    groups : numbers of each group, or with `levels` its patients by level.
    """
    of = standardised_difference_of_levels if levels else standardised_difference
    found = [abs(of(a, b)) for a, b in combinations(groups, 2)]
    known = [d for d in found if not np.isnan(d)]
    return max(known) if known else None
