"""Predictions judged at a horizon: cumulative/dynamic AUC, and the Brier score weighted for censoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from aiene.errors import UsageError
from aiene.stats.bootstrap import OnProgress, percentiles, resample_counts
from aiene.stats.concordance import check_compared
from aiene.stats.records import (
    Difference,
    Floats,
    Interval,
    Ints,
    NotEstimableError,
    check_followed,
    check_horizons,
    check_outcome,
    check_scores,
    normal_quantile,
    two_sided,
)
from aiene.stats.survival_curves import Moments


@dataclass(frozen=True)
class Brier:
    """Brier score at each horizon.

    Parameters
    ----------
    score, null, scaled : (k,) of the predictions, of the cohort's own curve for everybody, and 1 - score /
        null.
    """

    horizons: Floats
    score: Floats
    null: Floats
    scaled: Floats


class IntegratedBrier(NamedTuple):
    """Mean Brier score over `start` to `end`, that of the cohort's own curve, and 1 - value / null."""

    value: float
    null: float
    scaled: float
    start: float
    end: float


def brier_score(time: ArrayLike, event: ArrayLike, predicted: ArrayLike, horizons: ArrayLike) -> Brier:
    """Mean squared distance of predicted risk and outcome, by inverse probability of censoring.

    Events by T weigh 1 / G(T-), patients beyond the horizon t 1 / G(t), as R's riskRegression has it.

    Parameters
    ----------
    event : (n,) 0 censored, 1 event, 2 competing event (outcome 0 from then on).
    predicted : (n, k) or (n,) risk of the event by each horizon.
    horizons : rising.

    Raises
    ------
    UsageError : see `check_outcome`; or predictions that do not fit.
    NotEstimableError : nobody is followed up to a horizon.

    References
    ----------
    Graf et al. 1999, Stat Med 18:2529; with competing events Schoop et al. 2011, Biom J 53:88.
    """
    times, codes = check_outcome(time, event, competing=True)
    ends = check_horizons(horizons)
    chances = _matrix(predicted, times.size, ends.size)
    moments = Moments(times, codes)
    ones = np.ones((times.size, 1))
    weights = _weights(moments, times, codes, ends)
    happened = ((times[:, None] <= ends) & (codes == 1)[:, None]).astype(np.float64)
    own = np.array([moments.incidence(ones, end)[0] for end in ends])
    score = (weights * (happened - chances) ** 2).mean(axis=0)
    null = (weights * (happened - own) ** 2).mean(axis=0)
    scaled = 1.0 - np.divide(score, null, out=np.full_like(score, np.nan), where=null > 0)
    return Brier(ends, score, null, scaled)


def compared_brier(
    time: ArrayLike,
    event: ArrayLike,
    predicted: Mapping[str, ArrayLike],
    horizon: float,
    compare: Sequence[tuple[str, str]],
    *,
    confidence: float = 0.95,
) -> tuple[dict[str, Interval], dict[tuple[str, str], Difference]]:
    """Brier scores at one horizon and their paired differences (second less first), with normal intervals.

    The censoring curve is taken as known, so the intervals are rather too wide: `conservative=TRUE` of R's
    riskRegression, whose numbers these are.

    Parameters
    ----------
    event : (n,) 0 censored, 1 event, 2 competing event.
    predicted : (n,) risk of the event by the horizon, by name.
    compare : pairs of names.

    Raises
    ------
    UsageError, NotEstimableError : see `brier_score`.
    """
    times, codes = check_outcome(time, event, competing=True)
    ends = check_horizons(horizon)
    weights = _weights(Moments(times, codes), times, codes, ends)[:, 0]
    happened = (times <= ends[0]) & (codes == 1)
    parts = {
        name: weights * (happened - _matrix(values, times.size, 1)[:, 0]) ** 2
        for name, values in predicted.items()
    }
    quantile = normal_quantile(confidence)

    def told(values: Floats) -> tuple[float, float]:
        return float(values.mean()), float(values.std(ddof=1) / times.size**0.5)

    scores = {}
    for name, own in parts.items():
        value, error = told(own)
        scores[name] = Interval(value, value - quantile * error, value + quantile * error)
    gaps = {}
    for first, second in compare:
        value, error = told(parts[second] - parts[first])
        p = two_sided(value / error) if error > 0 else 1.0
        gaps[first, second] = Difference(value, value - quantile * error, value + quantile * error, p)
    return scores, gaps


def integrated_brier(
    time: ArrayLike, event: ArrayLike, predicted: ArrayLike, times: ArrayLike
) -> IntegratedBrier:
    """Brier score averaged over a grid of at least two times.

    Raises
    ------
    UsageError, NotEstimableError : see `brier_score`.
    """
    scores = brier_score(time, event, predicted, times)
    grid = scores.horizons
    if grid.size < 2:
        raise UsageError("an integrated Brier score needs at least two times.")
    span = float(grid[-1] - grid[0])
    value, null = (float(np.trapezoid(curve, grid)) / span for curve in (scores.score, scores.null))
    return IntegratedBrier(
        value, null, 1.0 - value / null if null > 0 else float("nan"), float(grid[0]), float(grid[-1])
    )


def _matrix(predicted: ArrayLike, n: int, k: int) -> Floats:
    chances = np.asarray(predicted, dtype=np.float64)
    if chances.ndim == 1 and k == 1:
        chances = chances[:, None]
    if chances.shape != (n, k):
        raise UsageError(f"predicted must be {n} patients by {k} horizons.")
    if not ((chances >= 0) & (chances <= 1)).all():
        raise UsageError("predicted must lie from 0 to 1.")
    return chances


def _weights(moments: Moments, time: Floats, event: Ints, ends: Floats) -> Floats:
    curve = moments.uncensored(np.ones((time.size, 1)))
    own, at_end = moments.steps_at(curve, time, left=True)[:, 0], moments.steps_at(curve, ends)[:, 0]
    followed = time[:, None] > ends
    check_followed(time, event, float(ends[-1]))
    by_then = (time[:, None] <= ends) & (event > 0)[:, None]
    of_event = np.divide(1.0, own, out=np.zeros_like(own), where=own > 0)
    of_end = np.divide(1.0, at_end, out=np.zeros_like(at_end), where=at_end > 0)
    return np.where(by_then, of_event[:, None], 0.0) + np.where(followed, of_end, 0.0)


class TimeAuc(NamedTuple):
    """AUC at a horizon, with how many had the event by then and how many did not."""

    time: float
    auc: float
    cases: int
    controls: int


@dataclass(frozen=True)
class TimeAucs:
    """AUC of each score at each horizon, and differences `new - old` on the same resamples."""

    values: dict[str, tuple[Interval, ...]]
    differences: dict[str, tuple[Difference, ...]]
    n_failed: int


def time_dependent_auc(
    time: ArrayLike, event: ArrayLike, risk: ArrayLike, horizons: ArrayLike
) -> tuple[TimeAuc, ...]:
    """AUC of those with the event by each horizon against those without, weighted for censoring.

    Cases and competing events at T weigh 1 / G(T-), patients beyond the horizon t 1 / G(t), as R's
    riskRegression has it.

    Parameters
    ----------
    event : (n,) 0 censored, 1 event, 2 competing event: a patient with it by the horizon is a control.
    risk : (n,) higher is worse; equal scores count one half.
    horizons : rising.

    Raises
    ------
    UsageError : see `check_outcome`, `check_scores`, `check_horizons`.
    NotEstimableError : nobody had the event by a horizon, or nobody is left without it.

    References
    ----------
    Uno et al. 2007, J Am Stat Assoc 102:527; with competing events Blanche et al. 2013, Stat Med 32:5381.
    """
    times, codes = check_outcome(time, event, competing=True)
    scores, ends = check_scores(risk, times.size), check_horizons(horizons)
    cohort = _Cohort(times, codes, ends)
    aucs = cohort.aucs(_Sorted(scores), np.ones((times.size, 1)))[:, 0]
    results = []
    for end, auc in zip(ends, aucs, strict=True):
        cases = int(((times <= end) & (codes == 1)).sum())
        controls = int(((times > end) | ((times <= end) & (codes == 2))).sum())
        if not (cases and controls):
            lacking = "had the event by" if not cases else "was followed without the event beyond"
            raise NotEstimableError(f"nobody {lacking} {end:g}", "choose another horizon")
        results.append(TimeAuc(float(end), float(auc), cases, controls))
    return tuple(results)


def time_dependent_aucs(
    time: ArrayLike,
    event: ArrayLike,
    risks: Mapping[str, ArrayLike],
    horizons: ArrayLike,
    *,
    compare: Sequence[tuple[str, str]] = (),
    n_boot: int = 1000,
    seed: int = 1,
    confidence: float = 0.95,
    on_progress: OnProgress | None = None,
) -> TimeAucs:
    """AUC of several scores with percentile intervals; the scores are held fixed, patients are resampled.

    Parameters
    ----------
    compare : pairs (old, new) whose difference new - old is wanted.

    Raises
    ------
    UsageError, NotEstimableError : see `time_dependent_auc`.
    """
    times, codes = check_outcome(time, event, competing=True)
    scores = {name: check_scores(risk, times.size, name) for name, risk in risks.items()}
    check_compared(scores, compare)
    ends = check_horizons(horizons)
    at_data = {
        name: np.array([auc.auc for auc in time_dependent_auc(times, codes, risk, ends)])
        for name, risk in scores.items()
    }
    cohort = _Cohort(times, codes, ends)
    ranked = {name: _Sorted(risk) for name, risk in scores.items()}
    chunks = [
        {name: cohort.aucs(order, counts) for name, order in ranked.items()}
        for counts in resample_counts(times.size, n_boot, seed, on_progress)
    ]
    replicates = {name: np.concatenate([chunk[name] for chunk in chunks], axis=1) for name in scores}
    at_each = [
        percentiles(
            {name: auc[h] for name, auc in at_data.items()},
            {name: drawn[h] for name, drawn in replicates.items()},
            compare,
            confidence,
        )
        for h in range(ends.size)
    ]
    values, differences = (
        {name: tuple(found[name] for found in part) for name in part[0]}
        for part in zip(*at_each, strict=True)
    )
    failed = int((~np.isfinite(np.concatenate(list(replicates.values())))).any(axis=0).sum())
    return TimeAucs(values, differences, failed)


class _Sorted:
    """Patients by rising score, and for each where its ties start and end."""

    def __init__(self, risk: Floats) -> None:
        self.order = np.argsort(risk, kind="stable")
        ranked = risk[self.order]
        self.start = np.searchsorted(ranked, ranked, side="left")
        self.end = np.searchsorted(ranked, ranked, side="right")


class _Cohort:
    def __init__(self, time: Floats, event: Ints, horizons: Floats) -> None:
        self._time, self._event, self._horizons = time, event, horizons
        self._moments = Moments(time, event)

    def aucs(self, ranked: _Sorted, counts: Floats) -> Floats:
        """AUC (h, b) in each resample with these counts (n, b); NaN without cases or controls."""
        censoring = self._moments.uncensored(counts)
        own = self._moments.steps_at(censoring, self._time, left=True)
        weight = np.divide(counts, own, out=np.zeros_like(counts), where=own > 0)
        at_end = self._moments.steps_at(censoring, self._horizons)
        out = np.full((self._horizons.size, counts.shape[1]), np.nan)
        for place, end in enumerate(self._horizons):
            by_then = self._time <= end
            cases = weight * (by_then & (self._event == 1))[:, None]
            free = np.divide(counts, at_end[place], out=np.zeros_like(counts), where=at_end[place] > 0)
            controls = weight * (by_then & (self._event == 2))[:, None] + free * (~by_then)[:, None]
            cases, controls = cases[ranked.order], controls[ranked.order]
            running = np.concatenate([np.zeros((1, controls.shape[1])), np.cumsum(controls, axis=0)])
            won = (cases * (running[ranked.start] + running[ranked.end])).sum(axis=0) / 2.0
            total = cases.sum(axis=0) * running[-1]
            np.divide(won, total, out=out[place], where=total > 0)
        return out
