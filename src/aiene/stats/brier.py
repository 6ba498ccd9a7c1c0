"""How far predicted risks are from what happened: the Brier score, weighted for censoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from aiene.errors import UsageError
from aiene.stats.elementary import normal_quantile, two_sided
from aiene.stats.life_table import Moments
from aiene.stats.records import (
    Difference,
    Floats,
    Interval,
    Ints,
    check_followed,
    check_fraction,
    check_horizons,
    check_outcome,
)


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
    quantile = normal_quantile(0.5 + check_fraction(confidence, "confidence") / 2)

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
    value, null = (_area(curve, grid) / span for curve in (scores.score, scores.null))
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


def _area(curve: Floats, grid: Floats) -> float:
    return float(np.sum(np.diff(grid) * (curve[1:] + curve[:-1]) / 2.0))
