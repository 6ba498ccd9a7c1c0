"""Figures of merit: area under the ROC curve with its interval, and Youden's threshold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

Scores = npt.NDArray[np.float64]
Truth = npt.NDArray[np.bool_]


class Interval(NamedTuple):
    """A figure with the 2.5th and 97.5th percentile of its bootstrap."""

    value: float
    low: float
    high: float


def auc(scores: Scores, truth: Truth) -> float:
    """Area under the ROC curve; ties count half. Not a number where one class is absent."""
    return float(roc_auc_score(truth, scores)) if 0 < truth.sum() < len(truth) else float("nan")


def auc_interval(scores: Scores, truth: Truth, groups: npt.NDArray[np.int64], rounds: int = 2000) -> Interval:
    """AUC with a bootstrap over patients.

    Parameters
    ----------
    scores, truth : one per node.
    groups : number of each node's patient.
    """
    rng = np.random.default_rng(0)
    names = np.unique(groups)
    members = {g: np.flatnonzero(groups == g) for g in names}
    values = []
    for _ in range(rounds):
        drawn = np.concatenate([members[g] for g in rng.choice(names, size=len(names))])
        values.append(auc(scores[drawn], truth[drawn]))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Interval(auc(scores, truth), float(low), float(high))


def youden_threshold(scores: Scores, truth: Truth) -> float:
    """The threshold of the largest sensitivity plus specificity, in the middle of its gap, two decimals."""
    order = np.unique(scores)
    middles = (order[1:] + order[:-1]) / 2
    if not len(middles):
        return 0.5
    gains = [float((scores[truth] > t).mean() + (scores[~truth] <= t).mean()) for t in middles]
    best = np.flatnonzero(np.isclose(gains, max(gains)))
    return round(float(np.clip(middles[best[len(best) // 2]], 0.05, 0.95)), 2)
