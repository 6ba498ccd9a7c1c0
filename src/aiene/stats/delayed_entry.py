"""Cox regression of patients who come under observation late, and of hazard ratios that change with time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from aiene.errors import UsageError
from aiene.extras import need
from aiene.stats.cox_model import wald_rows
from aiene.stats.records import (
    Coefficient,
    Floats,
    NotEstimableError,
    check_design,
    check_fraction,
    check_outcome,
)


def cox_with_entry(
    entry: ArrayLike, time: ArrayLike, event: ArrayLike, X: pd.DataFrame, *, confidence: float = 0.95
) -> tuple[Coefficient, ...]:
    """Cox regression in which each row is at risk from its entry to its time (Efron's ties).

    Parameters
    ----------
    entry : (n,) from when a row is at risk, before `time`.
    time, event : (n,) see `check_outcome`.
    X : (n, p) numbers without missing values.

    Raises
    ------
    UsageError : see `check_outcome`, `check_design`; or an entry that is not before its time.
    NotEstimableError : no event, or the fit does not converge.
    """
    times, codes = check_outcome(time, event)
    starts = np.asarray(entry, dtype=np.float64)
    matrix, names = check_design(X, times.size)
    if starts.shape != times.shape or not (starts < times).all():
        raise UsageError("each entry must lie before the end of its follow-up.")
    if not codes.any():
        raise NotEstimableError("no event happened", "choose another endpoint or more patients")
    if matrix.shape[1] > 1 and matrix.shape[1] >= codes.sum():
        raise NotEstimableError(
            f"a model of {matrix.shape[1]} parameters cannot be fitted to {codes.sum()} events",
            "leave out covariates",
        )
    lifelines = need("lifelines", extra="risk", purpose="Cox regression")
    exceptions = need("lifelines.exceptions", extra="risk", purpose="Cox regression")
    columns = [f"x{number}" for number in range(matrix.shape[1])]
    table = pd.DataFrame(matrix, columns=columns).assign(_entry=starts, _time=times, _event=codes)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            fit = lifelines.CoxPHFitter().fit(
                table, "_time", "_event", entry_col="_entry", fit_options={"precision": 1e-10}
            )
    except (exceptions.ConvergenceError, np.linalg.LinAlgError) as error:
        raise NotEstimableError(
            "the Cox regression did not converge", "leave out sparse covariates"
        ) from error
    if any("norm(delta)" in str(line.message) for line in told):
        raise NotEstimableError("an estimate runs to infinity (perfect separation)", "merge sparse levels")
    covariance = fit.variance_matrix_.to_numpy(dtype=np.float64)
    level = check_fraction(confidence, "confidence")
    return wald_rows(names, fit.params_.to_numpy(dtype=np.float64), covariance, level)


def episodes(
    time: Floats, event: np.ndarray, cuts: Sequence[float]
) -> tuple[np.ndarray, Floats, Floats, np.ndarray, np.ndarray]:
    """The follow-up of each patient in pieces, as R's survSplit.

    Parameters
    ----------
    cuts : rising; a piece runs from one (not included) to the next (included).

    Returns
    -------
    Patient, entry, end, event and number of the period of each piece.
    """
    edges = [0.0, *cuts, np.inf]
    parts = []
    for number, (low, high) in enumerate(pairwise(edges)):
        rows = np.flatnonzero(time > low)
        happened = ((event[rows] == 1) & (time[rows] <= high)).astype(int)
        end = np.minimum(time[rows], high)
        parts.append((rows, np.full(rows.size, low), end, happened, np.full(rows.size, number)))
    patient, entry, ends, events, period = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return patient, entry, ends, events, period


def piecewise_cox(
    time: ArrayLike,
    event: ArrayLike,
    marker: ArrayLike,
    X: pd.DataFrame,
    cuts: Sequence[float],
    *,
    confidence: float = 0.95,
) -> tuple[Coefficient, ...]:
    """Hazard ratio of a marker in each period of the follow-up; those of the other covariates do not change.

    Parameters
    ----------
    marker : (n,) numbers.
    X : (n, p) other covariates; p may be 0.
    cuts : rising times between periods.

    Returns
    -------
    One row for each period, in their order.

    Raises
    ------
    UsageError : see `cox_with_entry`.
    NotEstimableError : a period without an event, or see `cox_with_entry`.
    """
    times, codes = check_outcome(time, event)
    rows, entry, end, happened, period = episodes(times, codes, cuts)
    if (np.bincount(period, weights=happened, minlength=len(cuts) + 1) == 0).any():
        raise NotEstimableError("a period has no event", "take fewer or other periods")
    value = np.asarray(marker, dtype=np.float64)[rows]
    pieces = {f"period {k + 1}": np.where(period == k, value, 0.0) for k in range(len(cuts) + 1)}
    design = pd.concat([pd.DataFrame(pieces), X.iloc[rows].reset_index(drop=True)], axis=1)
    return cox_with_entry(entry, end, happened, design, confidence=confidence)[: len(cuts) + 1]
