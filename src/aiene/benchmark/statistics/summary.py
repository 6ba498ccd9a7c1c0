"""A list of values in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aiene.benchmark.estimate import Estimate, missing
from aiene.benchmark.statistics.bootstrap import bootstrap, cluster_codes, mean, median
from aiene.benchmark.statistics.delong import as_floats


@dataclass(frozen=True)
class Summary:
    """What a metric is over a cohort; intervals by bootstrap over patients.

    Parameters
    ----------
    n, missing : values that are there, and that are not (None, NaN, infinite).
    sd : with n - 1; None for one value.
    reason : why there is no number; empty where there is one.
    """

    n: int
    missing: int
    n_patients: int
    mean: Estimate
    median: Estimate
    sd: float | None
    q1: float | None
    q3: float | None
    minimum: float | None
    maximum: float | None
    reason: str = ""


def summarise(
    values: Sequence[float | None],
    patients: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Summary:
    """Mean, median and spread of a metric.

    Parameters
    ----------
    values : one per case; what is missing is left out and counted.
    patients : of each case; None: each case is a patient.

    Raises
    ------
    UsageError : patients are not one for each value.
    """
    numbers = as_floats(values)
    cluster_codes(len(numbers), patients)
    there = np.isfinite(numbers)
    lost = int((~there).sum())
    kept = numbers[there]
    if kept.size == 0:
        reason = f"none of {lost} cases has a value" if lost else "no cases"
        nothing = missing(reason)
        return Summary(0, lost, 0, nothing, nothing, None, None, None, None, None, reason)
    names = None if patients is None else [p for p, good in zip(patients, there, strict=True) if good]
    n_patients = cluster_codes(len(kept), names)[1]
    q1, q3 = (float(v) for v in np.quantile(kept, [0.25, 0.75]))
    return Summary(
        n=len(kept),
        missing=lost,
        n_patients=n_patients,
        mean=bootstrap(mean(kept), len(kept), names, resamples=resamples, seed=seed),
        median=bootstrap(median(kept), len(kept), names, resamples=resamples, seed=seed),
        sd=float(kept.std(ddof=1)) if len(kept) > 1 else None,
        q1=q1,
        q3=q3,
        minimum=float(kept.min()),
        maximum=float(kept.max()),
    )
