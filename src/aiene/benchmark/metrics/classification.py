"""How well probabilities of ENE tell nodes apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aiene.benchmark.estimate import Estimate, missing
from aiene.benchmark.metrics.calibration import Calibration, calibration, check_probabilities
from aiene.benchmark.metrics.intervals import wilson
from aiene.benchmark.statistics import curves
from aiene.benchmark.statistics.bootstrap import Statistic, bootstrap, cluster_codes, mean
from aiene.benchmark.statistics.delong import check_scores, delong_auc, one_class

FloatArray = npt.NDArray[np.float64]

PUBLISHED_THRESHOLD = 0.3
"""A node is ENE where its probability is over this, in the published code."""


@dataclass(frozen=True)
class Operating:
    """What a threshold gives. A node is positive where its probability is over it, as everywhere in aiene.

    Parameters
    ----------
    sensitivity, specificity, ppv, npv : with Wilson's interval, which takes nodes as independent.
    reason : why there are no counts; empty where there are.
    """

    threshold: float
    tp: int
    fp: int
    tn: int
    fn: int
    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate
    reason: str = ""


@dataclass(frozen=True)
class RocCurve:
    """Points of a ROC curve from (0, 0) to (1, 1); a node counts where its score is at least the threshold.

    Parameters
    ----------
    thresholds : of every point but the first, falling.
    """

    false_positive: tuple[float, ...]
    true_positive: tuple[float, ...]
    thresholds: tuple[float, ...]


@dataclass(frozen=True)
class Classification:
    """Classification of the nodes of a cohort.

    Parameters
    ----------
    auc : with DeLong's interval, which takes nodes as independent.
    auc_clustered : the same area, with an interval by bootstrap over patients.
    average_precision, brier : with an interval by bootstrap over patients.
    operating : at each threshold asked for.
    roc : None where there is no curve.
    reason : why nothing can be given; empty where at least something can.
    """

    n: int
    n_positive: int
    n_patients: int
    auc: Estimate
    auc_clustered: Estimate
    average_precision: Estimate
    brier: Estimate
    operating: tuple[Operating, ...]
    calibration: Calibration
    roc: RocCurve | None
    reason: str = ""


def classification(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    thresholds: Sequence[float] = (PUBLISHED_THRESHOLD,),
    patients: Sequence[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Classification:
    """Every metric of a classifier of nodes.

    A missing or impossible probability (None, NaN, outside 0 to 1) is never left out in silence: every metric
    is then a reason instead of a number. Leave such nodes out yourself, and say so, if that is meant.

    Parameters
    ----------
    labels : 0 or 1, one per node.
    probabilities : 0 to 1, of label 1.
    thresholds : the bundle's, and the published 0.3.
    patients : of each node; None: each node is a patient.

    Raises
    ------
    UsageError : not one probability, or not one patient, for each label.
    """
    truth, scores, reason = check_probabilities(labels, probabilities)
    _, n_patients = cluster_codes(truth.size, patients)

    def resampled(statistic: Statistic, without: str = "") -> Estimate:
        lack = reason or without
        if lack:
            return missing(lack, n_patients)
        return bootstrap(statistic, truth.size, patients, resamples=resamples, seed=seed)

    single = "" if reason else one_class(truth)
    unfound = "" if reason or truth.any() else "no positive nodes, so there is no average precision"
    return Classification(
        n=truth.size,
        n_positive=int((truth == 1).sum()),
        n_patients=n_patients,
        auc=missing(reason, truth.size) if reason else delong_auc(truth, scores),
        auc_clustered=resampled(curves.auc(truth, scores), single),
        average_precision=resampled(curves.average_precision(truth, scores), unfound),
        brier=resampled(mean((scores - truth) ** 2)),
        operating=tuple(operating_point(truth, scores, threshold) for threshold in thresholds),
        calibration=calibration(truth, scores, patients),
        roc=None if reason else roc_curve(truth, scores),
        reason=reason,
    )


def operating_point(labels: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float) -> Operating:
    """Counts and shares at one threshold.

    Parameters
    ----------
    labels : 0 or 1, one per node.
    probabilities : 0 to 1; positive where over the threshold.

    Raises
    ------
    UsageError : not one probability for each label.
    """
    truth, scores, reason = check_probabilities(labels, probabilities)
    if not reason and not np.isfinite(threshold):
        reason = "the threshold is no finite number"
    if reason:
        nothing = missing(reason, truth.size)
        level = float(threshold) if np.isfinite(threshold) else 0.0
        return Operating(level, 0, 0, 0, 0, nothing, nothing, nothing, nothing, reason)
    return counted(truth == 1, scores > threshold, float(threshold))


def counted(truth: npt.NDArray[np.bool_], called: npt.NDArray[np.bool_], threshold: float) -> Operating:
    """The table of two by two, and its shares."""
    tp, fp = int((truth & called).sum()), int((~truth & called).sum())
    tn, fn = int((~truth & ~called).sum()), int((truth & ~called).sum())
    return Operating(
        threshold=threshold,
        tp=tp,
        fp=fp,
        tn=tn,
        fn=fn,
        sensitivity=wilson(tp, tp + fn, nothing="nothing is positive in the truth"),
        specificity=wilson(tn, tn + fp, nothing="nothing is negative in the truth"),
        ppv=wilson(tp, tp + fp, nothing="nothing is called positive"),
        npv=wilson(tn, tn + fn, nothing="nothing is called negative"),
    )


def roc_curve(labels: npt.ArrayLike, scores: npt.ArrayLike) -> RocCurve | None:
    """The ROC curve, one point per distinct score; None where there is none (one class, missing scores).

    Raises
    ------
    UsageError : not one score for each label.
    """
    truth, numbers, reason = check_scores(labels, scores)
    if reason or one_class(truth):
        return None
    order = np.argsort(-numbers, kind="stable")
    ranked, positive = numbers[order], truth[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), truth.size - 1)
    hits, false = positive.cumsum()[ends], (1 - positive).cumsum()[ends]
    return RocCurve(
        false_positive=(0.0, *(float(v) for v in false / false[-1])),
        true_positive=(0.0, *(float(v) for v in hits / hits[-1])),
        thresholds=tuple(float(v) for v in ranked[ends]),
    )
