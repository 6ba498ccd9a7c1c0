"""Bootstrap over patients: whole patients are drawn, with everything that is theirs.

A statistic is a function of weights: how often each row was drawn. It takes (resamples, rows) and gives one
value per resample, so that thousands of resamples are a few matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from aiene.benchmark.estimate import Estimate, missing
from aiene.errors import UsageError

FloatArray = npt.NDArray[np.float64]
Statistic = Callable[[FloatArray], FloatArray]

_AT_ONCE = 2_000_000
"""Weights held in memory at a time."""


def bootstrap(
    statistic: Statistic,
    n: int,
    clusters: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """A statistic with its expanded percentile interval.

    Plain percentiles are too narrow for few patients (with 8 the 95 % interval of a mean leaves out the truth
    some 15 times in 100); they are moved out by as much as Student's t asks for (Hesterberg, Am. Stat. 69,
    2015). With many patients nothing changes.

    Parameters
    ----------
    statistic : takes weights (resamples, rows), gives one value per resample; NaN where it is undefined.
    n : rows.
    clusters : patient of each row; None: each row is a patient.
    resamples : how many; those where the statistic is undefined (one class only) are left out.
    seed : the same seed gives the same interval.

    Returns
    -------
    The value over all rows, its interval, and as `n` the number of patients. No interval, and the reason, for
    one patient only and where the statistic is undefined in more than half of the resamples.

    Raises
    ------
    UsageError : the clusters are not one for each row.
    """
    if n == 0:
        return missing("no observations")
    codes, count = cluster_codes(n, clusters)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(np.ones((1, n)))[0])
        if not np.isfinite(value):
            return missing("it is undefined for these observations", count)
        if count < 2:
            return Estimate(value, reason="one patient only, so no interval", n=count)
        draws = np.concatenate(
            [statistic(weights) for weights in drawn_weights(codes, count, resamples=resamples, seed=seed)]
        )
    good = draws[np.isfinite(draws)]
    if good.size < resamples / 2:
        reason = f"undefined in {resamples - good.size} of {resamples} resamples, so no interval"
        return Estimate(value, reason=reason, n=count)
    tail = expanded_tail(count, confidence)
    low, high = (float(v) for v in np.quantile(good, [tail, 1 - tail]))
    return Estimate(value, low, high, n=count)


def expanded_tail(patients: int, confidence: float = 0.95) -> float:
    """The share of resamples to cut on each side, for two patients or more."""
    t = stats.t.ppf((1 + confidence) / 2, patients - 1) * np.sqrt(patients / (patients - 1))
    return float(stats.norm.sf(t))


def cluster_codes(n: int, clusters: Sequence[str] | None) -> tuple[npt.NDArray[np.int64], int]:
    """The patient of each row as a number from 0, and how many patients.

    Raises
    ------
    UsageError : the clusters are not one for each row.
    """
    if clusters is None:
        return np.arange(n), n
    if len(clusters) != n:
        raise UsageError(f"{len(clusters)} patients are named for {n} rows; there must be one for each.")
    codes = np.unique(np.array([str(c) for c in clusters]), return_inverse=True)[1].astype(np.int64)
    return codes, int(codes.max()) + 1 if n else 0


def drawn_weights(
    codes: npt.NDArray[np.int64], count: int, *, resamples: int, seed: int
) -> Iterator[FloatArray]:
    """How often each row was drawn, in blocks (resamples, rows) of bounded size.

    Parameters
    ----------
    codes : patient of each row, from 0.
    count : patients.
    """
    random = np.random.default_rng(seed)
    block = max(1, _AT_ONCE // max(len(codes), count))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        picks = random.integers(count, size=(rows, count)) + np.arange(rows)[:, None] * count
        drawn = np.bincount(picks.ravel(), minlength=rows * count).reshape(rows, count)
        yield drawn[:, codes].astype(np.float64)


def ratio(above: npt.ArrayLike, below: npt.ArrayLike) -> Statistic:
    """The statistic sum(above) / sum(below); NaN where the lower sum is 0."""
    top, bottom = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)

    def statistic(weights: FloatArray) -> FloatArray:
        lower = weights @ bottom
        return np.where(lower != 0, (weights @ top) / np.where(lower != 0, lower, 1.0), np.nan)

    return statistic


def mean(values: npt.ArrayLike) -> Statistic:
    """The statistic mean of rows."""
    numbers = np.asarray(values, dtype=np.float64)
    return ratio(numbers, np.ones_like(numbers))


def median(values: npt.ArrayLike) -> Statistic:
    """The statistic median of rows; the middle of the two middle ones for an even number."""
    numbers = np.asarray(values, dtype=np.float64)
    order = np.argsort(numbers, kind="stable")
    rising = numbers[order]

    def statistic(weights: FloatArray) -> FloatArray:
        reached = np.cumsum(weights[:, order], axis=1)
        total = reached[:, -1:]
        lower = (reached > (total - 1) // 2).argmax(axis=1)
        upper = (reached > total // 2).argmax(axis=1)
        middle: FloatArray = (rising[lower] + rising[upper]) / 2
        return middle

    return statistic
