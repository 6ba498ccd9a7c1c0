"""A lean Cox model for the many fits of a bootstrap: Newton steps, Efron's ties, numpy alone.

One fit of 1,700 patients takes about a millisecond. Nothing of size n x p x p is ever made: the information
is X' diag(w) X less a product over the events, where w sums the weights of all risk sets that a patient is
in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from numpy.typing import ArrayLike

from aiene.errors import UsageError
from aiene.stats.records import (
    Coefficient,
    Floats,
    Ints,
    NotEstimableError,
    check_design,
    check_events,
    check_outcome,
    check_strata,
    chi2_tail,
    normal_quantile,
    two_sided,
)
from aiene.stats.survival_curves import step

_STEP = 30.0  # a linear predictor that moves further than this in one step overflows before it helps

Method = Literal["efron", "firth"]


@dataclass(frozen=True)
class CoxModel:
    """A fitted Cox model.

    Parameters
    ----------
    beta : (p,) log hazard ratios.
    information : (p, p) observed information at `beta`.
    log_likelihood, log_likelihood_null : partial, at `beta` and at 0.
    converged : the Newton decrement fell under the tolerance; False where an estimate runs to infinity.
    baseline_times, baseline_hazard : (k,) cumulative hazard at x = 0, with Efron's ties as the likelihood has
        them (R's basehaz of the same fit); empty with strata.
    """

    beta: Floats
    information: Floats
    log_likelihood: float
    log_likelihood_null: float
    converged: bool
    iterations: int
    baseline_times: Floats
    baseline_hazard: Floats

    def risk(self, X: ArrayLike) -> Floats:
        """Linear predictor (n,): higher is worse."""
        return linear_predictor(np.asarray(X, dtype=np.float64), self.beta)

    def survival(self, X: ArrayLike, horizons: ArrayLike) -> Floats:
        """Predicted survival (n, k) at each horizon.

        Raises
        ------
        UsageError : the model has strata, so no one baseline.
        """
        if self.baseline_times.size == 0:
            raise UsageError("a model with strata has no single baseline to predict from.")
        hazard = step(self.baseline_times, self.baseline_hazard, np.asarray(horizons, dtype=np.float64), 0.0)
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(-np.exp(self.risk(X))[:, None] * np.atleast_1d(hazard)[None, :]))


class RiskSets(NamedTuple):
    """Patients sorted so that every risk set is a run of rows; one entry for each event.

    Parameters
    ----------
    order : (n,) the sorting: by stratum, then by falling time.
    start : (n,) first row of the patient's stratum.
    event_rows : (e,) row of each event; a row that counts w times stands here w times.
    last_row : (e,) last row of the event's risk set, which ends with its ties.
    tie : (e,) number of the tie (same stratum and time) that the event belongs to.
    fraction : (e,) Efron's share l/d for the l-th of d tied events.
    since, until : (n,) the events in whose risk set a patient is, as a run of their numbers [since, until).
    first : (t,) first event of each tie.
    tied_rows : (u,) row of each event, but each row once.
    tied_first : (t,) first of each tie among `tied_rows`.
    events : (n,) how many events a row stands for.
    weight : (n,) how often each row counts; None for once.
    """

    order: Ints
    start: Ints
    event_rows: Ints
    last_row: Ints
    tie: Ints
    fraction: Floats
    since: Ints
    until: Ints
    first: Ints
    tied_rows: Ints
    tied_first: Ints
    events: Ints
    weight: Floats | None


def linear_predictor(X: Floats, beta: Floats) -> Floats:
    """X (n, k) times beta (k,): (n,); equal rows have equal bits.

    A matrix product may round equal rows differently, by their place, and so break ties of a C-index.
    """
    return np.asarray((X * beta).sum(axis=1))


def risk_sets(time: Floats, event: Ints, strata: Ints | None = None) -> RiskSets:
    """Sort once; the same sets serve every step of the fit."""
    layer = np.zeros(time.size, dtype=np.int64) if strata is None else strata
    order = np.lexsort((-time, layer))
    t, s = time[order], layer[order]
    new_moment = np.concatenate([[True], (np.diff(t) != 0) | (np.diff(s) != 0)])
    return _sets(order, np.cumsum(new_moment) - 1, event[order] == 1, s, None)


class Resampling:
    """The risk sets of many resamples of the same patients, who are sorted once.

    A patient who is drawn w times is one row that counts w times; one who is not drawn is no row.

    Parameters
    ----------
    time, event : (n,); event 0 or 1.
    """

    def __init__(self, time: Floats, event: Ints) -> None:
        self.order = np.argsort(-time, kind="stable")
        self._moment = np.cumsum(np.concatenate([[0], np.diff(time[self.order]) != 0]))
        self._event = event[self.order] == 1

    def sets(self, counts: Ints) -> RiskSets:
        """Of the resample that holds each patient so many times (n,); `order` are the patients drawn."""
        counted = counts[self.order]
        drawn = np.flatnonzero(counted)
        layer = np.zeros(drawn.size, dtype=np.int64)
        return _sets(self.order[drawn], self._moment[drawn], self._event[drawn], layer, counted[drawn])


def _sets(
    order: Ints, moment: Ints, event: npt.NDArray[np.bool_], layer: Ints, times: Ints | None
) -> RiskSets:
    """From sorted rows.

    Parameters
    ----------
    moment : (n,) number of the row's time and stratum, rising.
    event : (n,) whether the row has the event.
    layer : (n,) stratum, rising.
    times : (n,) how often each row counts; None for once.
    """
    tied_rows = np.flatnonzero(event)
    rows = tied_rows if times is None else np.repeat(tied_rows, times[tied_rows])
    tie_of = moment[rows]
    new_tie = np.concatenate([[True], tie_of[1:] != tie_of[:-1]])[: rows.size]
    first, tie = np.flatnonzero(new_tie), np.cumsum(new_tie) - 1
    tied = np.diff(np.append(first, rows.size))
    # Events in row order run from late to early, so the risk sets of a patient are a run of them: from the
    # first event at the patient's own time to the last of the stratum.
    return RiskSets(
        order=order,
        start=np.searchsorted(layer, layer, side="left"),
        event_rows=rows,
        last_row=(np.searchsorted(moment, tie_of[first], side="right") - 1)[tie],
        tie=tie,
        fraction=(np.arange(rows.size) - first[tie]) / tied[tie],
        since=np.searchsorted(tie_of, moment, side="left"),
        until=np.searchsorted(rows, np.searchsorted(layer, layer, side="right"), side="left"),
        first=first,
        tied_rows=tied_rows,
        tied_first=np.searchsorted(tied_rows, rows[first]),
        events=np.bincount(rows, minlength=order.size),
        weight=None if times is None else times.astype(np.float64),
    )


class Derivatives(NamedTuple):
    """Log partial likelihood, score (p,) and observed information (p, p)."""

    value: float
    score: Floats
    information: Floats


def derivatives(X: Floats, sets: RiskSets, beta: Floats) -> Derivatives:
    """Efron's partial likelihood and its derivatives.

    Parameters
    ----------
    X : (n, p) in the order of `sets`; quickest where each column lies in one piece (Fortran's order).
    """
    columns = X.T
    eta = beta @ columns
    top = float(eta.max())
    r = np.exp(eta - top)
    counted = r if sets.weight is None else r * sets.weight
    stacked = np.empty((beta.size + 1, eta.size))
    stacked[0] = counted
    xr = np.multiply(columns, counted, out=stacked[1:])
    whole, tied = _tie_sums(stacked, sets)
    fraction, tie, first = sets.fraction, sets.tie, sets.first
    denominator = np.maximum(whole[0, tie] - fraction * tied[0, tie], np.finfo(np.float64).tiny)
    inverse = 1.0 / denominator
    # For each patient the sum of 1 / denominator over the risk sets, less Efron's share at its own event
    running = np.concatenate([[0.0], np.cumsum(inverse)])
    patients = running[sets.until] - running[sets.since]
    patients[sets.event_rows] -= np.add.reduceat(fraction * inverse, first)[tie]
    value = float(sets.events @ eta - inverse.size * top - np.log(denominator).sum())
    score = columns @ (sets.events - counted * patients)
    # The mean over an event's risk set is (whole - l/d tied) / denominator; the sum of its squares over the
    # events of one tie needs three numbers of the tie.
    square, shared = inverse * inverse, inverse * fraction
    powers = np.stack([square, shared * inverse, shared * shared])
    a, b, c = np.add.reduceat(powers, first, axis=1)
    whole, tied = whole[1:], tied[1:]
    means = (whole * a - tied * b) @ whole.T + (tied * c - whole * b) @ tied.T
    return Derivatives(value, score, (xr * patients) @ X - means)


def _tie_sums(rows: Floats, sets: RiskSets) -> tuple[Floats, Floats]:
    """For each tie the sums (k, t) over its risk set, and over its events.

    Parameters
    ----------
    rows : (k, n) in the order of `sets`, each patient as often as it counts.
    """
    running = np.cumsum(rows, axis=1)
    whole = running[:, sets.last_row[sets.first]]
    start = sets.start[sets.event_rows[sets.first]]
    if start.any():
        whole = whole - np.where(start > 0, running[:, start - 1], 0.0)
    tied = rows[:, sets.tied_rows]
    if sets.tied_rows.size > sets.first.size:
        tied = np.add.reduceat(tied, sets.tied_first, axis=1)
    return whole, tied


def event_sums(columns: Floats, sets: RiskSets) -> Floats:
    """For each event the sums (e, c) over its risk set, less Efron's share of the tied events."""
    whole, tied = _tie_sums(np.ascontiguousarray(columns.T), sets)
    return np.asarray((whole[:, sets.tie] - sets.fraction * tied[:, sets.tie]).T)


def fit_cox(
    time: ArrayLike,
    event: ArrayLike,
    X: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    start: ArrayLike | None = None,
    max_iterations: int = 50,
) -> CoxModel:
    """Fit a Cox model by Newton steps on standardised columns.

    Parameters
    ----------
    time, event : (n,) see `check_outcome`.
    X : (n, p) finite numbers.
    strata : (n,) labels; each has its own baseline.
    start : (p,) first guess.

    Raises
    ------
    UsageError : see `check_outcome`; or `X` does not fit.
    NotEstimableError : no event, or a column that says nothing (singular information).

    References
    ----------
    Cox 1972, J R Stat Soc B 34:187; Efron 1977, J Am Stat Assoc 72:557.
    """
    times, codes = check_outcome(time, event)
    matrix = np.asarray(X, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != times.size or not np.isfinite(matrix).all():
        raise UsageError(f"the design must be {times.size} rows of finite numbers.")
    check_events(codes)
    layers = check_strata(strata, times.size)
    sets = risk_sets(times, codes, layers)
    mean, scale = matrix.mean(axis=0), matrix.std(axis=0)
    if (scale == 0).any():
        raise NotEstimableError("a covariate is the same in all patients", "leave it out of the model")
    sorted_x = np.asfortranarray(((matrix - mean) / scale)[sets.order])
    first = np.zeros(matrix.shape[1]) if start is None else np.asarray(start, dtype=np.float64) * scale
    beta, end, converged, iterations = _newton(sorted_x, sets, first, max_iterations)
    null = derivatives(sorted_x, sets, np.zeros_like(beta))
    raw = beta / scale
    hazard_times, hazard = (
        (np.zeros(0), np.zeros(0)) if strata is not None else _cumulative_hazard(times, matrix @ raw, sets)
    )
    return CoxModel(
        beta=raw,
        information=end.information * np.outer(scale, scale),
        log_likelihood=end.value,
        log_likelihood_null=null.value,
        converged=converged and not _vanished(end.information, null.information),
        iterations=iterations,
        baseline_times=hazard_times,
        baseline_hazard=hazard,
    )


def _vanished(information: Floats, at_zero: Floats) -> bool:
    """Whether a direction holds next to no information any more: the estimate runs to infinity along it."""
    try:
        left = np.linalg.eigvals(np.linalg.solve(at_zero, information)).real.min()
    except np.linalg.LinAlgError:
        return True
    return bool(left < 1e-6)


def _newton(
    X: Floats, sets: RiskSets, beta: Floats, max_iterations: int
) -> tuple[Floats, Derivatives, bool, int]:
    now = derivatives(X, sets, beta)
    for iteration in range(1, max_iterations + 1):
        move = _solve(now.information, now.score)
        decrement = float(now.score @ move)
        if decrement < 1e-18 * max(1.0, abs(now.value)):
            return beta, now, True, iteration
        size = 1.0
        farthest = float(np.abs(X @ move).max())
        if farthest > _STEP:
            size = _STEP / farthest
        for _ in range(30):
            tried = beta + size * move
            then = derivatives(X, sets, tried)
            if np.isfinite(then.value) and then.value >= now.value - 1e-12 * abs(now.value):
                break
            size *= 0.5
        else:
            return beta, now, decrement < 1e-8, iteration
        beta, now = tried, then
        if decrement < 1e-12:  # the step just made was quadratic: what is left is its square
            return beta, now, True, iteration
    return beta, now, False, max_iterations


def _solve(information: Floats, score: Floats) -> Floats:
    try:
        move = np.linalg.solve(information, score)
    except np.linalg.LinAlgError:
        move = np.full_like(score, np.nan)
    if not np.isfinite(move).all() or float(score @ move) < 0:
        return np.asarray(np.linalg.lstsq(information, score, rcond=1e-12)[0])
    return np.asarray(move)


def _cumulative_hazard(time: Floats, eta: Floats, sets: RiskSets) -> tuple[Floats, Floats]:
    """Each event adds 1 / (sum over its risk set, less Efron's share of its ties): the d of one tie together
    what the likelihood takes from them."""
    with np.errstate(over="ignore"):
        r = np.exp(eta)
    jumps = 1.0 / event_sums(r[sets.order][:, None], sets)[:, 0]
    times, place = np.unique(time[sets.order][sets.event_rows], return_inverse=True)
    return times, np.cumsum(np.bincount(place, weights=jumps, minlength=times.size))


# Records of fitted regressions


@dataclass(frozen=True)
class CoxFit:
    """A Cox regression.

    Parameters
    ----------
    method : `efron` for the maximum of Efron's partial likelihood, `firth` for the penalised one.
    rows : one for each column.
    covariance : (p, p) of the coefficients.
    n, events : patients and events in the model.
    log_likelihood, log_likelihood_null : of the fit and without covariates; penalised for `firth`.
    lrt, lrt_df, lrt_p : likelihood-ratio test of the whole model.
    aic : NaN where the likelihood is penalised.
    concordance : Harrell's C on the same patients, within strata.
    strata : the model has strata.
    warnings : what the reader must be told.
    separation : columns whose estimate would run to infinity.
    model : for prediction.
    """

    method: Method
    rows: tuple[Coefficient, ...]
    covariance: Floats
    n: int
    events: int
    log_likelihood: float
    log_likelihood_null: float
    lrt: float
    lrt_df: int
    lrt_p: float
    aic: float
    concordance: float
    strata: bool
    warnings: tuple[str, ...]
    separation: tuple[str, ...]
    model: CoxModel

    @property
    def coef(self) -> Floats:
        """Log hazard ratios (p,)."""
        return np.array([row.coef for row in self.rows])


class LikelihoodRatio(NamedTuple):
    """Does the larger model fit better: twice the gain of log-likelihood, chi-squared."""

    statistic: float
    df: int
    p: float
    aic_smaller: float
    aic_larger: float


def wald_rows(
    names: Sequence[str], coef: Floats, covariance: Floats, confidence: float
) -> tuple[Coefficient, ...]:
    """Rows of a table of coefficients with Wald tests and intervals."""
    quantile = normal_quantile(confidence)
    rows = []
    for name, beta, variance in zip(names, coef, np.diag(covariance), strict=True):
        error = float(np.sqrt(max(float(variance), 0.0)))
        z = float(beta) / error if error > 0 else float("nan")
        with np.errstate(over="ignore"):
            ratio, low, high = np.exp([beta, beta - quantile * error, beta + quantile * error])
        rows.append(
            Coefficient(name, float(beta), error, z, two_sided(z), float(ratio), float(low), float(high))
        )
    return tuple(rows)


def unstable(events: int, parameters: int) -> tuple[str, ...]:
    """The warning that a model has fewer than 10 events per parameter; none where it has."""
    per = events / parameters
    return (f"{per:.1f} events per parameter (fewer than 10): unstable",) if per < 10 else ()


def nested_lrt(smaller: CoxFit, larger: CoxFit) -> LikelihoodRatio:
    """Likelihood-ratio test of two nested models on the same patients.

    Raises
    ------
    UsageError : the models are not nested, or not of the same patients.
    NotEstimableError : one of them is penalised, so its likelihood does not follow the chi-squared.
    """
    if (smaller.n, smaller.events) != (larger.n, larger.events):
        raise UsageError(
            f"the two models are of {smaller.n} and {larger.n} patients; compare them on the same ones."
        )
    if smaller.strata != larger.strata:
        raise UsageError("one of the two models has strata, the other not.")
    names, wider = {row.name for row in smaller.rows}, {row.name for row in larger.rows}
    if not names < wider:
        raise UsageError("the larger model must hold every covariate of the smaller one, and more.")
    if "firth" in (smaller.method, larger.method):
        raise NotEstimableError(
            "a penalised model has no likelihood-ratio test", "merge the sparse levels and compare again"
        )
    statistic = 2.0 * (larger.log_likelihood - smaller.log_likelihood)
    df = len(wider) - len(names)
    return LikelihoodRatio(statistic, df, chi2_tail(statistic, df), smaller.aic, larger.aic)


def monotone(values: Floats, sets: RiskSets) -> bool:
    """Whether every event has the greatest (or every one the least) value of its risk set.

    Parameters
    ----------
    values : (n,) in the order of `sets`.
    """
    rows = sets.event_rows
    if rows.size == 0:
        return False
    at_event = values[rows]
    greatest = np.array(_running(values, sets, np.maximum))[sets.last_row]
    least = np.array(_running(values, sets, np.minimum))[sets.last_row]
    informative = bool((greatest > least).any())
    return informative and bool((at_event == greatest).all() or (at_event == least).all())


def _running(values: Floats, sets: RiskSets, pick: np.ufunc) -> Floats:
    out = np.empty_like(values)
    for first in np.unique(sets.start):
        layer = sets.start == first
        out[layer] = pick.accumulate(values[layer])
    return out


_FLAT = 1e-6  # information left along a direction, as a share of what there was at the start
_COUNTS = 0.1  # a column takes part in a direction where its share is over this


def find_separation(
    time: ArrayLike, event: ArrayLike, X: pd.DataFrame, *, strata: ArrayLike | None = None
) -> tuple[str, ...]:
    """Columns whose coefficient has no finite estimate (monotone likelihood).

    A single column is judged exactly: it separates where at every event the patient has the greatest (or at
    every event the least) value of the risk set, and some risk set holds another value. Combinations are
    judged by the fit: a direction in which the information has all but vanished while the coefficients grew.

    Raises
    ------
    UsageError, NotEstimableError : see `check_outcome`, `check_design`.

    References
    ----------
    Bryson and Johnson 1981, Technometrics 23:381; Heinze and Schemper 2001, Biometrics 57:114.
    """
    times, codes = check_outcome(time, event)
    matrix, names = check_design(X, times.size)
    layers = check_strata(strata, times.size)
    sets = risk_sets(times, codes, layers)
    alone = [monotone(matrix[sets.order, column], sets) for column in range(matrix.shape[1])]
    if any(alone):
        return tuple(name for name, found in zip(names, alone, strict=True) if found)
    if matrix.shape[1] == 1 or not codes.any():
        return ()
    return tuple(names[column] for column in _flat_direction(times, codes, matrix, layers, sets))


def _flat_direction(
    time: Floats, event: Ints, matrix: Floats, strata: Ints | None, sets: RiskSets
) -> list[int]:
    fit = fit_cox(time, event, matrix, strata=strata)
    scale = matrix.std(axis=0)
    standard = ((matrix - matrix.mean(axis=0)) / scale)[sets.order]
    before = derivatives(standard, sets, np.zeros(scale.size)).information
    after = derivatives(standard, sets, fit.beta * scale).information
    values, vectors = np.linalg.eigh(after)
    flat = values < _FLAT * np.einsum("ij,ik,kj->j", vectors, before, vectors)
    if not flat.any():
        return []
    share = np.abs(vectors[:, flat]).max(axis=1)
    return [int(column) for column in np.flatnonzero(share > _COUNTS * share.max())]
