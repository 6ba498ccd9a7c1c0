"""Quantiles and tails of the normal and chi-squared distribution."""

from __future__ import annotations

import numpy as np
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
