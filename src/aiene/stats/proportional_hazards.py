"""Are hazards proportional: Schoenfeld residuals, tests on them, and hazard ratios by period of time.

Periods are rows of a patient that come under observation late, so the Cox regression with delayed entry is
here too.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from aiene.errors import UsageError, need
from aiene.stats.cox_model import event_sums, find_separation, fit_cox, risk_sets, wald_rows
from aiene.stats.records import (
    Coefficient,
    Floats,
    Ints,
    NotEstimableError,
    check_design,
    check_events,
    check_outcome,
    chi2_tail,
    normal_quantile,
)
from aiene.stats.survival_curves import life_table, step, survival_steps

Transform = Literal["rank", "km", "identity", "log"]
PHMethod = Literal["score", "approximate"]


_GRID = 60
"""Points of a smooth curve of residuals."""


class PHRow(NamedTuple):
    """Test of one column, or of all: a small p says that its effect changes with time."""

    name: str
    statistic: float
    df: int
    p: float


class ProportionalHazards(NamedTuple):
    """Tests of proportional hazards on a transformed time."""

    rows: tuple[PHRow, ...]
    overall: PHRow
    transform: str
    method: str


@dataclass(frozen=True)
class Schoenfeld:
    """Scaled Schoenfeld residuals plus the coefficient: an estimate of the effect at each event's time.

    Parameters
    ----------
    times : (e,) of the events, rising.
    residuals : (e, p)
    names : (p,)
    smooth : by name a grid of times, a local mean, and its lower and upper limit (g,).
    """

    times: Floats
    residuals: Floats
    names: tuple[str, ...]
    smooth: dict[str, tuple[Floats, Floats, Floats, Floats]]


class _Residuals(NamedTuple):
    """Of each event, by rising time: x less the mean of the risk set, and the risk set's covariance of x.

    `raw` takes the mean over tied events, `single` the one of each by Efron's shares.
    """

    times: Floats
    raw: Floats
    single: Floats
    moments: Floats
    beta: Floats
    variance: Floats


def proportional_hazards(
    time: ArrayLike,
    event: ArrayLike,
    X: pd.DataFrame,
    *,
    transform: Transform = "km",
    method: PHMethod = "score",
) -> ProportionalHazards:
    """Test each column, and all together, for an effect that changes with time.

    Parameters
    ----------
    transform : of time: 1 less Kaplan-Meier, rank of the event (tied ones in the order of the rows, as
        lifelines), none, or logarithm.
    method : `score` tests x times the transformed time as a further covariate, as R's survival does from
        version 3 on; `approximate` takes the variance as the same at all events, as earlier versions and
        lifelines do.

    Raises
    ------
    UsageError : see `check_outcome`, `check_design`.
    NotEstimableError : fewer than 3 events, all at one time, or the model has no finite estimate.

    References
    ----------
    Grambsch and Therneau 1994, Biometrika 81:515.
    """
    times, codes = check_outcome(time, event)
    if method not in ("score", "approximate"):
        raise UsageError(f"method {method}: choose score or approximate.")
    names, found = _residuals(times, codes, X)
    moved = _transformed(found.times, times, codes, transform, left=method == "score")
    centred = moved - moved.mean()
    if not np.ptp(found.times) > 0 or float(centred @ centred) == 0:
        raise NotEstimableError("all events happened at one time", "the hazards cannot be followed over time")
    statistics, overall = (_score_tests if method == "score" else _approximate_tests)(centred, found)
    rows = tuple(
        PHRow(name, float(value), 1, chi2_tail(float(value), 1))
        for name, value in zip(names, statistics, strict=True)
    )
    df = len(names)
    return ProportionalHazards(rows, PHRow("all", overall, df, chi2_tail(overall, df)), transform, method)


def _approximate_tests(centred: Floats, found: _Residuals) -> tuple[Floats, float]:
    events, spread = found.times.size, float(centred @ centred)
    weighted = centred @ found.raw  # (p,)
    scaled = events * weighted @ found.variance
    statistics = scaled**2 / (events * np.diag(found.variance) * spread)
    return statistics, float(events * weighted @ found.variance @ weighted / spread)


def _score_tests(centred: Floats, found: _Residuals) -> tuple[Floats, float]:
    """Score tests of x times the transformed time; the score of x itself is 0 at the estimate."""
    score = centred @ found.single
    plain = found.moments.sum(axis=0)
    mixed = np.einsum("e,ekl->kl", centred, found.moments)
    square = np.einsum("e,ekl->kl", centred**2, found.moments)
    left = square - mixed.T @ np.linalg.solve(plain, mixed)  # information of the new columns, given the old
    statistics = []
    for column in range(score.size):
        own = mixed[:, column]
        statistics.append(score[column] ** 2 / (square[column, column] - own @ np.linalg.solve(plain, own)))
    return np.array(statistics), float(score @ np.linalg.pinv(left, hermitian=True) @ score)


def schoenfeld(time: ArrayLike, event: ArrayLike, X: pd.DataFrame) -> Schoenfeld:
    """Residuals for the plot of each effect over time, with a smooth curve and its 95 % interval.

    The curve is a local linear mean with Gaussian weights, as wide as a quarter of the events, on ranked
    time.

    Raises
    ------
    UsageError, NotEstimableError : see `proportional_hazards`.
    """
    times, codes = check_outcome(time, event)
    names, found = _residuals(times, codes, X)
    residuals = found.times.size * found.raw @ found.variance + found.beta
    smooth = {name: _smooth(found.times, residuals[:, column]) for column, name in enumerate(names)}
    return Schoenfeld(found.times, residuals, names, smooth)


def _residuals(time: Floats, event: Ints, X: pd.DataFrame) -> tuple[tuple[str, ...], _Residuals]:
    matrix, names = check_design(X, time.size)
    if event.sum() < 3:
        raise NotEstimableError("fewer than 3 events happened", "the hazards cannot be followed over time")
    if separated := find_separation(time, event, X):
        raise NotEstimableError(
            f"the estimate of {', '.join(separated)} runs to infinity", "leave it out to test the others"
        )
    fit = fit_cox(time, event, matrix)
    sets = risk_sets(time, event)
    ordered = (matrix - matrix.mean(axis=0))[sets.order]
    eta = ordered @ fit.beta
    r = np.exp(eta - eta.max())[:, None]
    size, p = ordered.shape
    products = (ordered[:, :, None] * ordered[:, None, :]).reshape(size, p * p)
    sums = event_sums(r * np.concatenate([np.ones((size, 1)), ordered, products], axis=1), sets)
    means = sums[:, 1:] / sums[:, :1]
    mean = means[:, :p]
    moments = means[:, p:].reshape(-1, p, p) - mean[:, :, None] * mean[:, None, :]
    first = np.flatnonzero(sets.fraction == 0)
    of_tie = np.add.reduceat(mean, first, axis=0) / np.bincount(sets.tie)[:, None]
    at_event = ordered[sets.event_rows]
    patients = sets.order[sets.event_rows]
    rising = np.lexsort((patients, time[patients]))
    return names, _Residuals(
        times=time[patients][rising],
        raw=(at_event - of_tie[sets.tie])[rising],
        single=(at_event - mean)[rising],
        moments=moments[rising],
        beta=fit.beta,
        variance=np.asarray(np.linalg.inv(fit.information), dtype=np.float64),
    )


def _transformed(at: Floats, time: Floats, event: Ints, transform: Transform, *, left: bool) -> Floats:
    if transform == "rank":
        return np.asarray(stats.rankdata(at, method="ordinal"), dtype=np.float64)
    if transform == "identity":
        return at
    if transform == "log":
        if (at <= 0).any():
            raise NotEstimableError(
                "an event happened at time 0, which has no logarithm", "choose another transform"
            )
        return np.asarray(np.log(at))
    if transform == "km":
        table = life_table(time, event)
        return 1.0 - step(table.times, survival_steps(table), at, 1.0, left=left)
    raise UsageError(f"transform {transform}: choose rank, km, identity or log.")


def _smooth(times: Floats, values: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    place = stats.rankdata(times) / times.size
    width = max(0.25 / 2, 2.0 / times.size)
    at = np.linspace(times.min(), times.max(), _GRID)
    centre = np.interp(at, times, place)
    kernel = np.exp(-0.5 * ((place[None, :] - centre[:, None]) / width) ** 2)
    offset = place[None, :] - centre[:, None]
    s0, s1, s2 = kernel.sum(1), (kernel * offset).sum(1), (kernel * offset**2).sum(1)
    weights = kernel * (s2[:, None] - s1[:, None] * offset)
    determinant = s0 * s2 - s1**2
    local = np.where(determinant[:, None] > 1e-12, weights, kernel)
    local /= local.sum(axis=1, keepdims=True)
    mean = local @ values
    own = np.interp(place, centre, mean) if np.ptp(centre) > 0 else np.full_like(values, mean.mean())
    error = np.sqrt((local**2).sum(axis=1) * float(np.mean((values - own) ** 2)))
    z = normal_quantile(0.95)
    return at, mean, mean - z * error, mean + z * error


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
    check_events(codes)
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
    return wald_rows(names, fit.params_.to_numpy(dtype=np.float64), covariance, confidence)


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
