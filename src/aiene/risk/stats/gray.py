"""Do groups differ in cumulative incidence: Gray's test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from aiene.extras import need
from aiene.risk.stats.checks import Floats, Ints, check_groups, check_outcome, check_several
from aiene.risk.stats.errors import NotEstimableError
from aiene.risk.stats.log_rank import pairwise
from aiene.risk.stats.records import Pair


class Gray(NamedTuple):
    """Gray's test of k groups, chi-squared with `df` degrees of freedom."""

    statistic: float
    df: int
    p: float
    groups: tuple[str, ...]


def gray_test(
    time: ArrayLike, state: ArrayLike, group: ArrayLike, *, order: Sequence[Any] | None = None, cause: int = 1
) -> Gray:
    """Test whether k groups have the same cumulative incidence of a cause.

    Parameters
    ----------
    time, group : (n,) see `check_outcome`, `check_groups`.
    state : (n,) 0 censored, 1 event, 2 competing event.

    Raises
    ------
    UsageError : see `check_outcome`, `check_groups`.
    NotEstimableError : one group, or no event of the cause that could tell them apart.

    References
    ----------
    Gray 1988, Ann Stat 16:1141; computed by comprisk.
    """
    times, codes = check_outcome(time, state, competing=True)
    place, names = check_groups(group, times.size, order)
    check_several(names, "Gray's test")
    statistic, p = _gray(times, codes, place, cause)
    return Gray(statistic, len(names) - 1, p, names)


def gray_pairwise(
    time: ArrayLike, state: ArrayLike, group: ArrayLike, *, order: Sequence[Any] | None = None, cause: int = 1
) -> tuple[Pair, ...]:
    """Gray's test of each two groups, with Holm's correction; NaN where two cannot be told apart.

    Raises
    ------
    UsageError, NotEstimableError : see `gray_test`.
    """
    times, codes = check_outcome(time, state, competing=True)
    place, names = check_groups(group, times.size, order)
    check_several(names, "Gray's test")

    def one(first: int, second: int) -> tuple[float, float]:
        chosen = (place == first) | (place == second)
        return _gray(times[chosen], codes[chosen], place[chosen], cause)

    return pairwise(names, one)


def _gray(time: Floats, state: Ints, place: Ints, cause: int) -> tuple[float, float]:
    comprisk = need("comprisk", extra="risk", purpose="Gray's test")
    if not (state == cause).any():
        raise NotEstimableError("no event of this cause happened", "choose another endpoint or more patients")
    # An order of equal times that is the same whatever the order of the rows
    order = np.lexsort((place, state, time))
    result = comprisk.gray_test(time[order], state[order], place[order], cause=cause)
    if not np.isfinite(result.stat) or np.linalg.matrix_rank(result.var) < result.df:
        raise NotEstimableError(
            "too few events while two groups were at risk", "choose other groups or a longer follow-up"
        )
    return float(result.stat), float(result.pvalue)
