"""Log-rank tests that weigh early or late events, for hazards that are not proportional."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from aiene.extras import need
from aiene.stats.records import NotEstimableError, check_groups, check_outcome, check_several
from aiene.stats.tests import chi2_tail

WEIGHTS: dict[str, dict[str, Any]] = {
    "early": {"weightings": "fleming-harrington", "p": 1, "q": 0},
    "at risk": {"weightings": "wilcoxon"},
    "late": {"weightings": "fleming-harrington", "p": 0, "q": 1},
}
"""Survival before the event (Fleming-Harrington's rho 1), numbers at risk (Gehan), 1 less the survival."""


def weighted_log_rank(
    time: ArrayLike, event: ArrayLike, group: ArrayLike, weight: str, *, order: Sequence[Any] | None = None
) -> tuple[float, int, float]:
    """Statistic, degrees of freedom and p of a weighted log-rank test of k groups.

    Parameters
    ----------
    time, event, group : (n,) see `check_outcome`, `check_groups`.
    weight : key of `WEIGHTS`.

    Raises
    ------
    UsageError : see `check_outcome`, `check_groups`.
    NotEstimableError : one group, or no event that could tell them apart.

    References
    ----------
    Fleming and Harrington 1991, Counting Processes and Survival Analysis; computed by lifelines.
    """
    times, codes = check_outcome(time, event)
    place, names = check_groups(group, times.size, order)
    check_several(names, "the weighted log-rank test")
    statistics = need("lifelines.statistics", extra="risk", purpose="The weighted log-rank test")
    with np.errstate(all="ignore"):
        found = statistics.multivariate_logrank_test(times, place, codes, **WEIGHTS[weight])
    if not np.isfinite(found.test_statistic):
        raise NotEstimableError(
            "no event happened while two groups were at risk", "choose other groups or a longer follow-up"
        )
    df = len(names) - 1
    statistic = float(found.test_statistic)
    return statistic, df, chi2_tail(statistic, df)
