"""Areas under curves as statistics of weighted rows, for the bootstrap over patients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from aiene.benchmark.estimate import Estimate, missing
from aiene.benchmark.statistics.bootstrap import Statistic, bootstrap
from aiene.benchmark.statistics.delong import check_scores, one_class

FloatArray = npt.NDArray[np.float64]


def auc(labels: FloatArray, scores: FloatArray) -> Statistic:
    """The statistic area under the ROC curve (ties count half); NaN where a resample holds one class only."""
    order, ends = _falling(scores)

    def statistic(weights: FloatArray) -> FloatArray:
        hits, false = _sums(weights, labels, order, ends)
        rise, run = np.diff(hits, axis=1, prepend=0.0), np.diff(false, axis=1, prepend=0.0)
        area = (run * (hits - rise / 2)).sum(axis=1)
        whole = hits[:, -1] * false[:, -1]
        return np.where(whole > 0, area / np.where(whole > 0, whole, 1.0), np.nan)

    return statistic


def average_precision(labels: FloatArray, scores: FloatArray) -> Statistic:
    """The statistic average precision: precision at each threshold, weighed by the recall it adds."""
    order, ends = _falling(scores)

    def statistic(weights: FloatArray) -> FloatArray:
        hits, false = _sums(weights, labels, order, ends)
        rise = np.diff(hits, axis=1, prepend=0.0)
        kept = hits + false
        precision = hits / np.where(kept > 0, kept, 1.0)
        total = hits[:, -1]
        gained = (rise * precision).sum(axis=1)
        return np.where(total > 0, gained / np.where(total > 0, total, 1.0), np.nan)

    return statistic


def clustered_auc_difference(
    labels: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    patients: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Area of the first score less that of the second, with an interval by bootstrap over patients."""
    truth, one, reason_one = check_scores(labels, first)
    _, two, reason_two = check_scores(labels, second)
    reason = reason_one or reason_two or one_class(truth)
    if reason:
        return missing(reason, truth.size)
    area_one, area_two = auc(truth, one), auc(truth, two)
    return bootstrap(
        lambda weights: area_one(weights) - area_two(weights),
        truth.size,
        patients,
        resamples=resamples,
        seed=seed,
    )


def _falling(scores: FloatArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows in falling order of score, and where each run of equal scores ends."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(scores) - 1)
    return order.astype(np.int64), ends.astype(np.int64)


def _sums(
    weights: FloatArray,
    labels: FloatArray,
    order: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
) -> tuple[FloatArray, FloatArray]:
    """Positives and negatives (resamples, thresholds) at or over each threshold."""
    drawn = weights[:, order]
    positive = labels[order]
    return (drawn * positive).cumsum(axis=1)[:, ends], (drawn * (1 - positive)).cumsum(axis=1)[:, ends]
