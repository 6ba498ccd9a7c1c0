"""Two models by any statistic of the same rows: is one better, and are both equal within a margin?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aiene.errors import UsageError
from aiene.stats.bootstrap import Statistic, bootstrap_draws, cluster_bootstrap, one_sided_p
from aiene.stats.records import Estimate, Floats

LEVEL = 0.05


@dataclass(frozen=True)
class DifferenceTest:
    """The first statistic less the second.

    Parameters
    ----------
    difference : with its 95 % interval.
    p : two-sided, of the same resamples, so that it is under 0.05 where the interval leaves 0 out.
    """

    difference: Estimate
    p: float | None


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests (Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987).

    Parameters
    ----------
    margin : the largest difference that is taken for none, in the unit of the statistic.
    interval : the difference with its 90 % interval; equal within the margin where that lies inside it.
    p : the larger of both one-sided tests.
    equivalent : `p` is under 0.05; None where there is no test.
    """

    margin: float
    interval: Estimate
    p: float | None
    equivalent: bool | None


def subtracted(first: Statistic, second: Statistic) -> Statistic:
    """The statistic first less second, without what is mere rounding."""

    def statistic(weights: Floats) -> Floats:
        one, two = first(weights), second(weights)
        apart = one - two
        return np.where(np.abs(apart) <= 1e-12 * np.maximum(np.abs(one), np.abs(two)), 0.0, apart)

    return statistic


def difference_test(
    difference: Statistic, n: int, clusters: Sequence[str] | None, *, resamples: int, seed: int
) -> DifferenceTest:
    """Whether a difference is 0, by bootstrap over patients.

    Parameters
    ----------
    difference, n, clusters : as of `cluster_bootstrap`.
    """
    found = cluster_bootstrap(difference, n, clusters, resamples=resamples, seed=seed, of_difference=True)
    draws, count = _good(difference, n, clusters, resamples, seed)
    if found.value is None or count < 2 or len(draws) < resamples / 2:
        return DifferenceTest(found, None)
    above = one_sided_p(draws, 0.0, count)
    below = one_sided_p(-draws, 0.0, count)
    return DifferenceTest(found, min(1.0, 2 * min(above, below)))


def equivalence(
    difference: Statistic, n: int, clusters: Sequence[str] | None, margin: float, *, resamples: int, seed: int
) -> Equivalence:
    """Whether a difference lies within a margin on both sides of 0.

    Raises
    ------
    UsageError : the margin is not over 0.
    """
    if not margin > 0:
        raise UsageError(f"an equivalence margin of {margin:g} is none; it must be over 0.")
    found = cluster_bootstrap(
        difference, n, clusters, resamples=resamples, seed=seed, confidence=1 - 2 * LEVEL, of_difference=True
    )
    draws, count = _good(difference, n, clusters, resamples, seed)
    if found.value is None or count < 2 or len(draws) < resamples / 2:
        return Equivalence(margin, found, None, None)
    p = max(one_sided_p(draws, -margin, count), one_sided_p(-draws, -margin, count))
    return Equivalence(margin, found, p, p < LEVEL)


def _good(
    difference: Statistic, n: int, clusters: Sequence[str] | None, resamples: int, seed: int
) -> tuple[Floats, int]:
    _, draws, count = bootstrap_draws(difference, n, clusters, resamples=resamples, seed=seed)
    return draws[np.isfinite(draws)], count
