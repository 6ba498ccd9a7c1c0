"""Whether probabilities mean what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.special import expit, logit

from aiene.benchmark.estimate import Estimate, missing
from aiene.benchmark.metrics.intervals import wilson
from aiene.benchmark.statistics.bootstrap import cluster_codes
from aiene.benchmark.statistics.delong import check_scores
from aiene.errors import UsageError

FloatArray = npt.NDArray[np.float64]

CLIP = 1e-6
"""Probabilities are kept this far from 0 and 1 before their logit is taken."""
_STEPS = 100


@dataclass(frozen=True)
class Reliability:
    """One bin of the reliability table, `low` < probability <= `high` (the first bin holds 0 too).

    Parameters
    ----------
    predicted : mean probability; None for an empty bin.
    observed : share of positive nodes, with Wilson's interval; None for an empty bin.
    """

    low: float
    high: float
    n: int
    predicted: float | None
    observed: float | None
    observed_low: float | None
    observed_high: float | None


@dataclass(frozen=True)
class Calibration:
    """Calibration of probabilities.

    Parameters
    ----------
    slope : 1 is right; under 1 the probabilities are too extreme.
    intercept : calibration in the large, the intercept with the slope held at 1; 0 is right, under 0 the
        probabilities are too high.
    recalibration_intercept : the intercept that belongs to `slope`.
    expected_error : mean distance of predicted and observed over the bins, weighed by their nodes.
    reason : why slope and intercept are None; empty where they are there.
    """

    slope: Estimate
    intercept: Estimate
    recalibration_intercept: Estimate
    table: tuple[Reliability, ...]
    expected_error: float | None
    reason: str = ""


def check_probabilities(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike
) -> tuple[FloatArray, FloatArray, str]:
    """`check_scores`, and the scores must be probabilities.

    Raises
    ------
    UsageError : not one probability for each label.
    """
    truth, numbers, reason = check_scores(labels, probabilities)
    if not reason and (numbers.min() < 0 or numbers.max() > 1):
        outside = int(((numbers < 0) | (numbers > 1)).sum())
        reason = f"{outside} of {numbers.size} scores are not between 0 and 1, so they are no probabilities"
    return truth, numbers, reason


def calibration(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    patients: Sequence[str] | None = None,
    *,
    bins: int = 10,
    confidence: float = 0.95,
) -> Calibration:
    """Logistic recalibration and reliability table.

    The label is regressed on the logit of the probability by maximum likelihood (Cox 1958; Steyerberg and
    Vergouwe, Eur. Heart J. 35, 2014). Intervals are Wald's; where patients are named, with standard errors
    that allow for several nodes of one (sandwich, factor G / (G - 1)).

    Parameters
    ----------
    labels : 0 or 1, one per node.
    probabilities : 0 to 1.
    patients : of each node; None: nodes are independent.
    bins : of equal width.

    Returns
    -------
    Slope and intercepts are None, with the reason, for one class only, for probabilities that are all the
    same, and for those that part the classes completely (the slope is infinite).

    Raises
    ------
    UsageError : lengths that differ, or no bin.
    """
    if bins < 1:
        raise UsageError("a reliability table needs one bin or more.")
    truth, numbers, reason = check_probabilities(labels, probabilities)
    codes, count = cluster_codes(truth.size, patients)
    if reason:
        nothing = missing(reason, truth.size)
        return Calibration(nothing, nothing, nothing, (), None, reason)
    table = _reliability(truth, numbers, bins)
    error = sum(row.n * abs((row.predicted or 0.0) - (row.observed or 0.0)) for row in table) / truth.size
    reason = "" if 0 < truth.sum() < truth.size else "only one class of nodes, so no recalibration"
    reason = reason or ("one patient only, so no recalibration" if count < 2 else "")
    if reason:
        nothing = missing(reason, truth.size)
        return Calibration(nothing, nothing, nothing, table, float(error), reason)
    groups = None if patients is None else codes
    slope, intercept, beside, reason = _recalibrated(truth, numbers, groups, confidence)
    return Calibration(slope, intercept, beside, table, float(error), reason)


def _recalibrated(
    truth: FloatArray, probabilities: FloatArray, groups: npt.NDArray[np.int64] | None, confidence: float
) -> tuple[Estimate, Estimate, Estimate, str]:
    """Slope, intercept in the large, intercept beside the slope, and why there is no slope."""
    n = truth.size
    scores = logit(np.clip(probabilities, CLIP, 1 - CLIP))
    ones = np.ones((n, 1))
    large = _estimate(_fit(ones, truth, scores, groups), 0, confidence, n)
    reason = _no_slope(truth, scores)
    if reason:
        return missing(reason, n), large, missing(reason, n), reason
    both = _fit(np.column_stack([ones, scores]), truth, np.zeros(n), groups)
    slope, beside = _estimate(both, 1, confidence, n), _estimate(both, 0, confidence, n)
    return slope, large, beside, slope.reason


def _no_slope(truth: FloatArray, scores: FloatArray) -> str:
    """Why no finite slope exists; empty where one does."""
    if scores.max() - scores.min() < 1e-9:
        return "all probabilities are the same, so there is no slope"
    positive, negative = scores[truth == 1], scores[truth == 0]
    if negative.max() <= positive.min() or positive.max() <= negative.min():
        return "the probabilities part the classes completely, so the slope is infinite"
    return ""


def _fit(
    design: FloatArray, truth: FloatArray, offset: FloatArray, groups: npt.NDArray[np.int64] | None
) -> tuple[FloatArray, FloatArray] | None:
    """Coefficients of a logistic regression and their standard errors, by Newton's method."""
    beta = np.zeros(design.shape[1])
    likelihood = _log_likelihood(design, truth, offset, beta)
    for _ in range(_STEPS):
        p = expit(design @ beta + offset)
        information = (design * (p * (1 - p))[:, None]).T @ design
        try:
            step = np.linalg.solve(information, design.T @ (truth - p))
        except np.linalg.LinAlgError:
            return None
        size = 1.0
        while size > 1e-8 and _log_likelihood(design, truth, offset, beta + size * step) < likelihood - 1e-12:
            size /= 2
        beta = beta + size * step
        likelihood = _log_likelihood(design, truth, offset, beta)
        if np.abs(size * step).max() < 1e-10:
            return beta, _errors(design, truth, expit(design @ beta + offset), groups)
    return None


def _log_likelihood(design: FloatArray, truth: FloatArray, offset: FloatArray, beta: FloatArray) -> float:
    linear = design @ beta + offset
    return float((truth * linear - np.logaddexp(0.0, linear)).sum())


def _errors(
    design: FloatArray, truth: FloatArray, p: FloatArray, groups: npt.NDArray[np.int64] | None
) -> FloatArray:
    inverse = np.linalg.inv((design * (p * (1 - p))[:, None]).T @ design)
    if groups is not None:
        count = int(groups.max()) + 1
        scores = np.zeros((count, design.shape[1]))
        np.add.at(scores, groups, design * (truth - p)[:, None])
        inverse = inverse @ (scores.T @ scores * count / (count - 1)) @ inverse
    errors: FloatArray = np.sqrt(np.diag(inverse))
    return errors


def _estimate(fit: tuple[FloatArray, FloatArray] | None, place: int, confidence: float, n: int) -> Estimate:
    if fit is None:
        return missing("the recalibration does not settle", n)
    value, error = float(fit[0][place]), float(fit[1][place])
    reach = float(stats.norm.ppf((1 + confidence) / 2)) * error
    return Estimate(value, value - reach, value + reach, n=n)


def _reliability(truth: FloatArray, probabilities: FloatArray, bins: int) -> tuple[Reliability, ...]:
    edges = np.linspace(0.0, 1.0, bins + 1)
    places = np.clip(np.searchsorted(edges, probabilities, side="left") - 1, 0, bins - 1)
    rows = []
    for place in range(bins):
        mine = places == place
        n = int(mine.sum())
        share = wilson(int(truth[mine].sum()), n)
        mean = float(probabilities[mine].mean()) if n else None
        low, high = float(edges[place]), float(edges[place + 1])
        rows.append(Reliability(low, high, n, mean, share.value, share.low, share.high))
    return tuple(rows)
