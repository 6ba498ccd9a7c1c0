"""Areas under ROC and precision-recall curves, DeLong's test, and Wilson's interval of a proportion.

The areas are also given as statistics of weighted rows, for the cluster bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from aiene.errors import UsageError
from aiene.stats.bootstrap import Statistic
from aiene.stats.records import Estimate, Floats, missing

_Z = float(stats.norm.ppf(0.975))
"""Of the 95 % intervals."""


@dataclass(frozen=True)
class DelongTest:
    """Two areas under the ROC curve on the same nodes.

    Parameters
    ----------
    first, second : the areas.
    difference : first less second, with its interval.
    p : two-sided; it takes nodes of one patient as independent.
    reason : why something is None; empty where all is there.
    """

    first: float | None
    second: float | None
    difference: Estimate
    z: float | None
    p: float | None
    reason: str = ""


def check_scores(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Floats, Floats, str]:
    """Labels and scores as floats, and why no number can be made of them (empty: it can).

    Parameters
    ----------
    labels : 0 or 1, or bool.
    scores : any finite numbers, higher for 1; None counts as missing.

    Raises
    ------
    UsageError : not one score for each label.
    """
    truth, numbers = as_floats(labels), as_floats(scores)
    if truth.shape != numbers.shape or truth.ndim != 1:
        raise UsageError(f"{truth.size} labels but {numbers.size} scores; there must be one for each node.")
    if truth.size == 0:
        return truth, numbers, "no nodes"
    unlabelled = int((~np.isfinite(truth)).sum())
    if unlabelled:
        return truth, numbers, f"{unlabelled} of {truth.size} nodes have no label"
    if not np.isin(truth, (0.0, 1.0)).all():
        return truth, numbers, "there are labels other than 0 and 1"
    lost = int((~np.isfinite(numbers)).sum())
    if lost:
        return truth, numbers, f"{lost} of {numbers.size} scores are missing or not finite numbers"
    return truth, numbers, ""


def as_floats(values: npt.ArrayLike | Sequence[float | None]) -> Floats:
    """Numbers as floats; None becomes NaN.

    Raises
    ------
    UsageError : something is no number.
    """
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError("there are values that are not numbers.") from error


def one_class(labels: Floats) -> str:
    """Why no ROC curve can be drawn: only one class; empty where both are there."""
    if labels.all():
        return "only positive nodes, so there is no ROC curve"
    return "" if labels.any() else "only negative nodes, so there is no ROC curve"


def delong_auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Estimate:
    """Area under the ROC curve; ties count half.

    DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988); midranks after Sun and Xu, IEEE Signal Process.
    Lett. 21 (2014). The interval is normal, cut at 0 and 1. It takes nodes of one patient as independent.

    Parameters
    ----------
    labels, scores : as `check_scores`.

    Returns
    -------
    No interval for fewer than two nodes of a class, nor where the variance is 0 (an area of 0 or 1): normal
    theory says nothing there.
    """
    truth, numbers, reason = check_scores(labels, scores)
    reason = reason or one_class(truth)
    if reason:
        return missing(reason, truth.size)
    areas, covariance = _areas(truth, numbers[None])
    area = float(areas[0])
    if covariance is None:
        return Estimate(area, reason="only one node of a class, so no interval", n=truth.size)
    spread = float(np.sqrt(covariance[0, 0]))
    if spread == 0:
        return Estimate(area, reason="the estimated variance is 0, so no interval", n=truth.size)
    reach = _Z * spread
    return Estimate(area, max(area - reach, 0.0), min(area + reach, 1.0), n=truth.size)


def delong_test(labels: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike) -> DelongTest:
    """Whether two scores of the same nodes have different areas (DeLong et al. 1988).

    Two scores that rank all nodes alike are no difference: p is 1.
    """
    truth, one, reason_one = check_scores(labels, first)
    _, two, reason_two = check_scores(labels, second)
    reason = reason_one or reason_two or one_class(truth)
    if reason:
        return DelongTest(None, None, missing(reason, truth.size), None, None, reason)
    areas, covariance = _areas(truth, np.stack([one, two]))
    area_one, area_two = float(areas[0]), float(areas[1])
    gap = area_one - area_two
    if covariance is None:
        reason = "only one node of a class, so no test"
        return DelongTest(area_one, area_two, Estimate(gap, reason=reason, n=truth.size), None, None, reason)
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if variance <= 1e-15:
        return _no_variance(area_one, area_two, truth.size)
    spread = float(np.sqrt(variance))
    reach = _Z * spread
    z = gap / spread
    estimate = Estimate(gap, max(gap - reach, -1.0), min(gap + reach, 1.0), n=truth.size)
    return DelongTest(area_one, area_two, estimate, z, float(2 * stats.norm.sf(abs(z))))


def _no_variance(first: float, second: float, n: int) -> DelongTest:
    """The test where the difference has no variance: scores that rank alike, or areas of 0 and 1."""
    if abs(first - second) < 1e-12:
        return DelongTest(first, second, Estimate(0.0, 0.0, 0.0, n=n), 0.0, 1.0)
    reason = "the estimated variance of the difference is 0, so no test"
    return DelongTest(first, second, Estimate(first - second, reason=reason, n=n), None, None, reason)


def _areas(truth: Floats, scores: Floats) -> tuple[Floats, Floats | None]:
    """Area of each row of scores, and the covariance of the areas; None for one node of a class."""
    positive, negative = scores[:, truth == 1], scores[:, truth == 0]
    m, n = positive.shape[1], negative.shape[1]
    together = stats.rankdata(np.concatenate([positive, negative], axis=1), axis=1)
    above = (together[:, :m] - stats.rankdata(positive, axis=1)) / n
    below = 1.0 - (together[:, m:] - stats.rankdata(negative, axis=1)) / m
    if m < 2 or n < 2:
        return above.mean(axis=1), None
    covariance = np.atleast_2d(np.cov(above)) / m + np.atleast_2d(np.cov(below)) / n
    return above.mean(axis=1), covariance


# Weighted statistics for the cluster bootstrap


def auc(labels: Floats, scores: Floats) -> Statistic:
    """The statistic area under the ROC curve (ties count half); NaN where a resample holds one class only."""
    order, ends = _falling(scores)

    def statistic(weights: Floats) -> Floats:
        hits, false = _sums(weights, labels, order, ends)
        rise, run = np.diff(hits, axis=1, prepend=0.0), np.diff(false, axis=1, prepend=0.0)
        area = (run * (hits - rise / 2)).sum(axis=1)
        whole = hits[:, -1] * false[:, -1]
        return np.where(whole > 0, area / np.where(whole > 0, whole, 1.0), np.nan)

    return statistic


def average_precision(labels: Floats, scores: Floats) -> Statistic:
    """The statistic average precision: precision at each threshold, weighed by the recall it adds."""
    order, ends = _falling(scores)

    def statistic(weights: Floats) -> Floats:
        hits, false = _sums(weights, labels, order, ends)
        rise = np.diff(hits, axis=1, prepend=0.0)
        kept = hits + false
        precision = hits / np.where(kept > 0, kept, 1.0)
        total = hits[:, -1]
        gained = (rise * precision).sum(axis=1)
        return np.where(total > 0, gained / np.where(total > 0, total, 1.0), np.nan)

    return statistic


def _falling(scores: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows in falling order of score, and where each run of equal scores ends."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(scores) - 1)
    return order.astype(np.int64), ends.astype(np.int64)


def _sums(
    weights: Floats,
    labels: Floats,
    order: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
) -> tuple[Floats, Floats]:
    """Positives and negatives (resamples, thresholds) at or over each threshold."""
    drawn = weights[:, order]
    positive = labels[order]
    return (drawn * positive).cumsum(axis=1)[:, ends], (drawn * (1 - positive)).cumsum(axis=1)[:, ends]


# Interval of a proportion


def wilson(successes: int, n: int, *, nothing: str = "nothing to count") -> Estimate:
    """A share with Wilson's score interval (J. Am. Stat. Assoc. 22, 1927).

    It takes the n as independent. Written out: SciPy's `proportion_ci` differs in the last digit, and results
    keep their bytes.

    Parameters
    ----------
    successes : 0 to n.
    nothing : the reason that is given where n is 0.

    Raises
    ------
    UsageError : counts that cannot be.
    """
    if not 0 <= successes <= n:
        raise UsageError(f"{successes} of {n} is not a proportion.")
    if n == 0:
        return missing(nothing)
    share = successes / n
    z = _Z
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, middle - reach)
    high = 1.0 if successes == n else min(1.0, middle + reach)
    return Estimate(share, low, high, n=n)
