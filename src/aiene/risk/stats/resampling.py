"""Bootstrap resamples: the same for every analysis of one cohort and seed, so that comparisons are paired."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from aiene.errors import UsageError
from aiene.risk.stats.checks import Floats, Ints, check_fraction, check_groups
from aiene.risk.stats.errors import NotEstimableError
from aiene.risk.stats.records import Difference, Interval

OnProgress = Callable[[int, int], None]

_CHUNK = 100


def resample_indices(n: int, number: int, seed: int, strata: Ints | None = None) -> Ints:
    """Patients (n,) of the resample of this number, rising; each depends on seed and number alone.

    Parameters
    ----------
    strata : (n,) numbers; each keeps its size.
    """
    rng = np.random.default_rng([seed, number])
    if strata is None:
        return np.sort(rng.integers(0, n, n))
    parts = []
    for layer in np.unique(strata):
        members = np.flatnonzero(strata == layer)
        parts.append(members[rng.integers(0, members.size, members.size)])
    return np.sort(np.concatenate(parts))


def resample_counts(
    n: int, n_boot: int, seed: int, on_progress: OnProgress | None = None
) -> Iterator[Floats]:
    """Chunks (n, b) of how often each patient is in each resample; those of `resample_indices`."""
    check_boot(n_boot)
    chunk = max(1, min(_CHUNK, 20_000_000 // n))
    for first in range(0, n_boot, chunk):
        numbers = range(first, min(first + chunk, n_boot))
        columns = [np.bincount(resample_indices(n, number, seed), minlength=n) for number in numbers]
        yield np.stack(columns, axis=1).astype(np.float64)
        if on_progress is not None:
            on_progress(numbers.stop, n_boot)


def check_boot(n_boot: int) -> None:
    """Refuse too few resamples for an interval.

    Raises
    ------
    UsageError : fewer than 2.
    """
    if n_boot < 2:
        raise UsageError("a bootstrap needs at least 2 resamples.")


def percentile(value: float, replicates: Floats, confidence: float) -> Interval:
    """A value with the percentile interval of its finite replicates."""
    finite = replicates[np.isfinite(replicates)]
    if finite.size < 2:
        return Interval(float(value), float("nan"), float("nan"))
    tail = (1.0 - check_fraction(confidence, "confidence")) / 2
    low, high = np.quantile(finite, [tail, 1.0 - tail])
    return Interval(float(value), float(low), float(high))


def percentile_difference(value: float, replicates: Floats, confidence: float) -> Difference:
    """A difference with its percentile interval, and twice the smaller share of replicates beyond zero.

    One is added to both counts, so that p is never 0 (Davison and Hinkley 1997, section 4.2).
    """
    finite = replicates[np.isfinite(replicates)]
    interval = percentile(value, replicates, confidence)
    beyond = min(int((finite <= 0).sum()), int((finite >= 0).sum()))
    p = min(1.0, 2.0 * (beyond + 1) / (finite.size + 1)) if finite.size else float("nan")
    return Difference(*interval, p)


@dataclass(frozen=True)
class Bootstrap:
    """Percentile intervals of any statistics.

    Parameters
    ----------
    values : of each name, at the data with its interval.
    std_error : standard deviation over the resamples.
    replicates : (n_boot, k); NaN where a resample could not be estimated.
    n_failed : resamples with a NaN.
    """

    names: tuple[str, ...]
    values: dict[str, Interval]
    std_error: dict[str, float]
    replicates: Floats
    n_boot: int
    n_failed: int
    seed: int


def bootstrap(
    statistic: Callable[[Ints], Sequence[float]],
    n: int,
    *,
    names: Sequence[str],
    n_boot: int = 1000,
    seed: int = 1,
    confidence: float = 0.95,
    strata: ArrayLike | None = None,
    on_progress: OnProgress | None = None,
) -> Bootstrap:
    """Resample patients and repeat a statistic.

    Parameters
    ----------
    statistic : from patient numbers, with repeats, to one number for each name; a `NotEstimableError` or NaN
        is a failed resample and counted.
    n : number of patients.
    strata : (n,) labels; each keeps its size in every resample.

    Raises
    ------
    UsageError : fewer than 2 resamples, or names that do not fit.
    NotEstimableError : the statistic cannot be given on the data themselves.

    References
    ----------
    Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    check_boot(n_boot)
    layers = None if strata is None else check_groups(strata, n)[0]
    at_data = np.asarray(statistic(np.arange(n)), dtype=np.float64)
    if at_data.shape != (len(names),):
        raise UsageError(f"the statistic gives {at_data.size} numbers for {len(names)} names.")
    replicates = np.full((n_boot, len(names)), np.nan)
    for number in range(n_boot):
        replicates[number] = attempt(statistic, resample_indices(n, number, seed, layers), len(names))
        if on_progress is not None:
            on_progress(number + 1, n_boot)
    return Bootstrap(
        names=tuple(names),
        values={
            name: percentile(at_data[place], replicates[:, place], confidence)
            for place, name in enumerate(names)
        },
        std_error={name: spread(replicates[:, place]) for place, name in enumerate(names)},
        replicates=replicates,
        n_boot=n_boot,
        n_failed=int((~np.isfinite(replicates)).any(axis=1).sum()),
        seed=seed,
    )


def attempt(statistic: Callable[[Ints], Sequence[float]], indices: Ints, k: int) -> Floats:
    """The statistic of a resample; NaN where it cannot be estimated there."""
    try:
        return np.asarray(statistic(indices), dtype=np.float64)
    except (NotEstimableError, np.linalg.LinAlgError):
        return np.full(k, np.nan)


def spread(replicates: Floats) -> float:
    """Standard deviation of the finite replicates; NaN for fewer than two."""
    finite = replicates[np.isfinite(replicates)]
    return float(finite.std(ddof=1)) if finite.size > 1 else float("nan")
