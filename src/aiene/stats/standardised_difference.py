"""How far groups of patients differ in a characteristic, in standard deviations: for tables of patients."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike


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
