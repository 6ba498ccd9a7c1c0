"""Tests of differences between groups, and what they share.

The log-rank test (of k groups, of each pair, for a trend) for survival; Gray's test for cumulative incidence
with competing events; Holm's correction for several tests; tails of the normal and chi-squared distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from aiene.errors import UsageError, need
from aiene.stats.records import (
    EVENT,
    Floats,
    Ints,
    NotEstimableError,
    Pair,
    check_groups,
    check_outcome,
    check_several,
    check_strata,
    chi2_tail,
    two_sided,
)
from aiene.stats.survival_curves import Bools

_ROUNDING = 1e-9
"""Relative tolerance of the covariance's rank: its rows sum to 0 only up to this with a million patients."""


class GroupCount(NamedTuple):
    """Observed and expected events of one group."""

    group: str
    n: int
    observed: int
    expected: float


class LogRank(NamedTuple):
    """The log-rank test of k groups, chi-squared with `df` degrees of freedom."""

    statistic: float
    df: int
    p: float
    rows: tuple[GroupCount, ...]


class Trend(NamedTuple):
    """The log-rank test for a trend; z is positive where a higher score means more events."""

    statistic: float
    p: float
    z: float
    scores: tuple[float, ...]


class _Sums(NamedTuple):
    """Observed, expected (k,) and covariance (k, k) of the events by group."""

    observed: Floats
    expected: Floats
    covariance: Floats


def log_rank(
    time: ArrayLike,
    event: ArrayLike,
    group: ArrayLike,
    *,
    order: Sequence[Any] | None = None,
    strata: ArrayLike | None = None,
) -> LogRank:
    """Test whether k groups have the same survival.

    Parameters
    ----------
    time, event, group : (n,) see `check_outcome`, `check_groups`.
    strata : (n,) sums are taken within each of these.

    Raises
    ------
    UsageError : see `check_outcome`, `check_groups`.
    NotEstimableError : one group, or no event that could tell them apart.

    References
    ----------
    Mantel 1966, Cancer Chemother Rep 50:163; covariance of the hypergeometric distribution.
    """
    times, codes, place, names = _checked(time, event, group, order, "the log-rank test")
    sums = _sums(times, codes, place, len(names), _strata(strata, times.size))
    statistic, df = _chi2(sums)
    rows = tuple(
        GroupCount(name, int((place == index).sum()), int(sums.observed[index]), float(sums.expected[index]))
        for index, name in enumerate(names)
    )
    return LogRank(statistic, df, chi2_tail(statistic, df), rows)


def log_rank_pairwise(
    time: ArrayLike,
    event: ArrayLike,
    group: ArrayLike,
    *,
    order: Sequence[Any] | None = None,
    strata: ArrayLike | None = None,
) -> tuple[Pair, ...]:
    """Log-rank tests of each two groups, with Holm's correction; NaN where two cannot be told apart.

    Raises
    ------
    UsageError, NotEstimableError : see `log_rank`.
    """
    times, codes, place, names = _checked(time, event, group, order, "the log-rank test")
    layers = _strata(strata, times.size)

    def test(chosen: Bools) -> tuple[float, float]:
        found = log_rank(times[chosen], codes[chosen], place[chosen], strata=layers[chosen])
        return found.statistic, found.p

    return _pairwise(names, place, test)


def _pairwise(
    names: Sequence[str], place: Ints, test: Callable[[Bools], tuple[float, float]]
) -> tuple[Pair, ...]:
    """Statistic and p of the patients of each two groups, corrected by Holm; NaN where there is none."""
    pairs = list(combinations(range(len(names)), 2))
    results = []
    for pair in pairs:
        try:
            results.append(test(np.isin(place, pair)))
        except NotEstimableError:
            results.append((float("nan"), float("nan")))
    corrected = holm([p for _, p in results])
    return tuple(
        Pair(names[first], names[second], statistic, p, float("nan") if adjusted is None else adjusted)
        for (first, second), (statistic, p), adjusted in zip(pairs, results, corrected, strict=True)
    )


def log_rank_trend(
    time: ArrayLike,
    event: ArrayLike,
    group: ArrayLike,
    *,
    order: Sequence[Any],
    scores: Sequence[float] | None = None,
    strata: ArrayLike | None = None,
) -> Trend:
    """Test whether events become more frequent along ordered groups (one degree of freedom).

    Parameters
    ----------
    order : all labels, in the order in which risk is thought to rise.
    scores : one for each label of `order`; 0, 1, 2, ... if None.

    Raises
    ------
    UsageError : see `log_rank`; or scores that do not fit the order.
    NotEstimableError : one group, or no event that could tell them apart.

    References
    ----------
    Tarone 1975, Biometrika 62:679.
    """
    times, codes, place, names = _checked(time, event, group, order, "the trend test")
    weights = (
        np.arange(len(order), dtype=np.float64) if scores is None else np.asarray(scores, dtype=np.float64)
    )
    if weights.shape != (len(order),):
        raise UsageError(f"{weights.size} scores for {len(order)} groups.")
    present = weights[[list(map(str, order)).index(name) for name in names]]
    sums = _sums(times, codes, place, len(names), _strata(strata, times.size))
    variance = float(present @ sums.covariance @ present)
    if variance <= 1e-12:
        raise NotEstimableError(
            "no event happened while two groups were at risk", "choose other groups or a longer follow-up"
        )
    z = float(present @ (sums.observed - sums.expected)) / variance**0.5
    return Trend(z * z, two_sided(z), z, tuple(present.tolist()))


def _checked(
    time: ArrayLike,
    event: ArrayLike,
    group: ArrayLike,
    order: Sequence[Any] | None,
    purpose: str,
    *,
    competing: bool = False,
) -> tuple[Floats, Ints, Ints, tuple[str, ...]]:
    """Times, codes, numbers of the groups and their names, of two groups or more."""
    times, codes = check_outcome(time, event, competing=competing)
    place, names = check_groups(group, times.size, order)
    check_several(names, purpose)
    return times, codes, place, names


def _strata(strata: ArrayLike | None, n: int) -> Ints:
    layers = check_strata(strata, n)
    return np.zeros(n, dtype=np.int64) if layers is None else layers


def _sums(time: Floats, event: Ints, place: Ints, k: int, strata: Ints) -> _Sums:
    parts = [
        _stratum_sums(time[strata == layer], event[strata == layer], place[strata == layer], k)
        for layer in np.unique(strata)
    ]
    return _Sums(*(np.sum(piece, axis=0) for piece in zip(*parts, strict=True)))


def _chi2(sums: _Sums) -> tuple[float, int]:
    """Statistic and degrees of freedom.

    Raises
    ------
    NotEstimableError : no event could tell the groups apart.
    """
    least = _ROUNDING * float(np.abs(sums.covariance).max())
    df = int(np.linalg.matrix_rank(sums.covariance, tol=least, hermitian=True)) if least > 0 else 0
    if df == 0:
        raise NotEstimableError(
            "no event happened while two groups were at risk", "choose other groups or a longer follow-up"
        )
    gap = sums.observed - sums.expected
    return float(gap @ np.linalg.pinv(sums.covariance, rcond=_ROUNDING, hermitian=True) @ gap), df


Weight = Callable[[Floats, Floats], Floats]
"""From the numbers at risk and the events of all groups at each time with an event, (t,) to (t,)."""


def _stratum_sums(time: Floats, event: Ints, place: Ints, k: int, weigh: Weight | None = None) -> _Sums:
    times, moment = np.unique(time, return_inverse=True)
    flat = moment * k + place
    here = np.bincount(flat, minlength=times.size * k).reshape(times.size, k)
    at_risk = np.cumsum(here[::-1], axis=0)[::-1].astype(np.float64)
    dead = np.bincount(flat, weights=event, minlength=times.size * k).reshape(times.size, k)
    kept = dead.sum(axis=1) > 0
    at_risk, dead = at_risk[kept], dead[kept]
    total, deaths = at_risk.sum(axis=1), dead.sum(axis=1)
    share = at_risk / total[:, None]
    weight = np.where(total > 1, deaths * (total - deaths) / np.maximum(total - 1, 1), 0.0)
    w = np.ones(total.size) if weigh is None else weigh(total, deaths)
    weight = weight * w**2
    covariance = np.diag((share * weight[:, None]).sum(axis=0)) - (share * weight[:, None]).T @ share
    return _Sums(w @ dead, (share * (w * deaths)[:, None]).sum(axis=0), covariance)


def _survival_before(total: Floats, deaths: Floats) -> Floats:
    """Kaplan-Meier of all patients just before each time with an event."""
    return np.concatenate([[1.0], np.cumprod(1.0 - deaths / total)[:-1]])


WEIGHTS: dict[str, Weight] = {
    "early": _survival_before,
    "at risk": lambda total, deaths: total,
    "late": lambda total, deaths: 1.0 - _survival_before(total, deaths),
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
    Fleming and Harrington 1991, Counting Processes and Survival Analysis.
    """
    times, codes, place, names = _checked(time, event, group, order, "the weighted log-rank test")
    sums = _stratum_sums(times, codes, place, len(names), WEIGHTS[weight])
    statistic, df = _chi2(sums)
    return statistic, df, chi2_tail(statistic, df)


class Gray(NamedTuple):
    """Gray's test of k groups, chi-squared with `df` degrees of freedom."""

    statistic: float
    df: int
    p: float
    groups: tuple[str, ...]


def gray_test(
    time: ArrayLike,
    state: ArrayLike,
    group: ArrayLike,
    *,
    order: Sequence[Any] | None = None,
    strata: ArrayLike | None = None,
) -> Gray:
    """Test whether k groups have the same cumulative incidence of the event.

    Parameters
    ----------
    time, group : (n,) see `check_outcome`, `check_groups`.
    state : (n,) 0 censored, 1 event, 2 competing event.
    strata : (n,) scores and their variances are summed over these.

    Raises
    ------
    UsageError : see `check_outcome`, `check_groups`.
    NotEstimableError : one group, or no event that could tell them apart.

    References
    ----------
    Gray 1988, Ann Stat 16:1141; computed by comprisk.
    """
    times, codes, place, names = _checked(time, state, group, order, "Gray's test", competing=True)
    statistic, p = _gray(times, codes, place, _strata(strata, times.size))
    return Gray(statistic, len(names) - 1, p, names)


def gray_pairwise(
    time: ArrayLike, state: ArrayLike, group: ArrayLike, *, order: Sequence[Any] | None = None
) -> tuple[Pair, ...]:
    """Gray's test of each two groups, with Holm's correction; NaN where two cannot be told apart.

    Raises
    ------
    UsageError, NotEstimableError : see `gray_test`.
    """
    times, codes, place, names = _checked(time, state, group, order, "Gray's test", competing=True)

    def test(chosen: Bools) -> tuple[float, float]:
        two = np.unique(place[chosen], return_inverse=True)[1].astype(np.int64)
        return _gray(times[chosen], codes[chosen], two, np.zeros(two.size, np.int64))

    return _pairwise(names, place, test)


def _gray(time: Floats, state: Ints, place: Ints, strata: Ints) -> tuple[float, float]:
    comprisk = need("comprisk", extra="risk", purpose="Gray's test")
    if not (state == EVENT).any():
        raise NotEstimableError("no event of this cause happened", "choose another endpoint or more patients")
    k = int(place.max()) + 1
    score, covariance = np.zeros(k), np.zeros((k, k))
    # An order of equal times that is the same whatever the order of the rows
    order = np.lexsort((place, state, time))
    for layer in np.unique(strata):
        rows = order[strata[order] == layer]
        groups = np.unique(place[rows])
        if groups.size < 2 or not (state[rows] == EVENT).any():
            continue  # says nothing of a difference
        part = comprisk.gray_test(time[rows], state[rows], place[rows], cause=EVENT)
        whole = np.vstack([np.eye(groups.size - 1), -np.ones(groups.size - 1)])  # scores sum to 0
        score[groups] += whole @ part.score
        covariance[np.ix_(groups, groups)] += whole @ part.var @ whole.T
    df = k - 1
    inner = covariance[:df, :df]
    if not np.isfinite(score).all() or np.linalg.matrix_rank(inner) < df:
        raise NotEstimableError(
            "too few events while two groups were at risk", "choose other groups or a longer follow-up"
        )
    statistic = float(score[:df] @ np.linalg.solve(inner, score[:df]))
    return statistic, chi2_tail(statistic, df)


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
