"""Metrics of ENE classification: discrimination, operating points, calibration, and agreement by patient.

Discrimination and operating points are over nodes; agreement is of counts over patients: any node with ENE,
and how many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.special import expit, logit

from aiene.errors import UsageError
from aiene.stats import roc as curves
from aiene.stats.bootstrap import Statistic, cluster_bootstrap, cluster_codes, mean
from aiene.stats.records import Estimate, missing
from aiene.stats.roc import as_floats, check_scores, delong_auc, one_class, wilson

CLIP = 1e-6
"""Probabilities are kept this far from 0 and 1 before their logit is taken."""
_STEPS = 100

FloatArray = npt.NDArray[np.float64]
PUBLISHED_THRESHOLD = 0.3
"""A node is ENE where its probability is over this, in the published code."""


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
        reason = f"{outside} of {numbers.size} scores are not between 0 and 1, so they are not probabilities"
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
        return Calibration(*(missing(reason, truth.size),) * 3, (), None, reason)
    table = _reliability(truth, numbers, bins)
    error = sum(row.n * abs((row.predicted or 0.0) - (row.observed or 0.0)) for row in table) / truth.size
    reason = "" if 0 < truth.sum() < truth.size else "only one class of nodes, so no recalibration"
    reason = reason or ("one patient only, so no recalibration" if count < 2 else "")
    if reason:
        return Calibration(*(missing(reason, truth.size),) * 3, table, float(error), reason)
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
    lost: Sequence[bool] | None = None,
    calibrated: npt.ArrayLike | None = None,
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
    lost : nodes whose probability stands for one that was not given: a positive one is never found, however
        low the threshold, which average precision would else not see among ties.
    calibrated : probabilities of which the calibration is, where they are not those above.

    Raises
    ------
    UsageError : not one probability, or not one patient, for each label.
    """
    truth, scores, reason = check_probabilities(labels, probabilities)
    never = np.zeros(truth.size, dtype=bool) if lost is None else np.array(lost, dtype=bool) & (truth == 1)
    _, n_patients = cluster_codes(truth.size, patients)

    def resampled(statistic: Statistic, without: str = "") -> Estimate:
        lack = reason or without
        if lack:
            return missing(lack, n_patients)
        return cluster_bootstrap(statistic, truth.size, patients, resamples=resamples, seed=seed)

    single = "" if reason else one_class(truth)
    unfound = "" if reason or truth.any() else "no positive nodes, so there is no average precision"
    return Classification(
        n=truth.size,
        n_positive=int((truth == 1).sum()),
        n_patients=n_patients,
        auc=missing(reason, truth.size) if reason else delong_auc(truth, scores),
        auc_clustered=resampled(curves.auc(truth, scores), single),
        average_precision=resampled(_average_precision(truth, scores, never), unfound),
        brier=resampled(mean((scores - truth) ** 2)),
        operating=tuple(operating_point(truth, scores, threshold) for threshold in thresholds),
        calibration=calibration(truth, scores if calibrated is None else calibrated, patients),
        roc=None if reason else roc_curve(truth, scores),
        reason=reason,
    )


def _average_precision(truth: FloatArray, scores: FloatArray, never: npt.NDArray[np.bool_]) -> Statistic:
    """Average precision where some positive nodes are never found."""
    found = curves.average_precision(truth[~never], scores[~never])
    if not never.any():
        return found

    def statistic(weights: FloatArray) -> FloatArray:
        kept, total = weights[:, ~never] @ truth[~never], weights @ truth
        share = np.where(total > 0, kept / np.where(total > 0, total, 1.0), np.nan)
        return np.where(kept > 0, np.nan_to_num(found(weights[:, ~never])), 0.0) * share

    return statistic


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
        reason = "the threshold is not a finite number"
    if reason:
        return _not_operating(float(threshold) if np.isfinite(threshold) else 0.0, reason, truth.size)
    return counted(truth == 1, scores > threshold, float(threshold))


def _not_operating(threshold: float, reason: str, n: int) -> Operating:
    return Operating(threshold, 0, 0, 0, 0, *(missing(reason, n),) * 4, reason)


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


# Agreement by patient


@dataclass(frozen=True)
class PatientAgreement:
    """Counts of nodes with ENE, true and predicted, over patients.

    Parameters
    ----------
    any_ene : patients with one node or more (its `threshold` is 0: more than none).
    any_agreement : share of patients in whom both say any, or both none; Wilson's interval.
    count_exact, count_within_one : share of patients whose counts are the same, or differ by one at most.
    kappa_linear, kappa_quadratic : weighted kappa of the counts (Cohen, Psychol. Bull. 70, 1968), with an
        interval by bootstrap over patients; None where all counts, true and predicted, are the same.
    reason : why nothing can be given; empty where something can.
    """

    n: int
    any_ene: Operating
    any_agreement: Estimate
    count_exact: Estimate
    count_within_one: Estimate
    kappa_linear: Estimate
    kappa_quadratic: Estimate
    reason: str = ""


def patient_agreement(
    truth_counts: Sequence[int | None],
    predicted_counts: Sequence[int | None],
    *,
    lost: Sequence[bool] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> PatientAgreement:
    """Compare counts of nodes with ENE.

    Parameters
    ----------
    truth_counts, predicted_counts : one whole number per patient, in one order. A failed CT has no count
        (None), which is not 0: then everything is a reason instead of a number.
    lost : patients for whom the model gave no whole answer: they count as wrong in every share, whatever
        their predicted count, and there is no kappa.

    Raises
    ------
    UsageError : different numbers of patients.
    """
    truth, found = as_floats(truth_counts), as_floats(predicted_counts)
    if truth.shape != found.shape:
        raise UsageError(f"{truth.size} true counts but {found.size} predicted ones; one for each patient.")
    n = truth.size
    reason = _unfit(truth, found)
    if reason:
        return PatientAgreement(n, _not_operating(0.0, reason, n), *(missing(reason, n),) * 5, reason)
    wrong = np.zeros(n, dtype=bool) if lost is None else np.array(lost, dtype=bool)
    apart = np.where(wrong, np.inf, np.abs(truth - found))
    called = np.where(wrong, truth == 0, found > 0)

    def kappa(power: int) -> Estimate:
        if wrong.any():
            lacking = f"{int(wrong.sum())} of {n} patients have an incomplete answer"
            return missing(f"{lacking}, so there is no kappa", n)
        if len(np.unique([truth, found])) == 1:
            return missing("all counts are the same, so there is no kappa", n)
        return cluster_bootstrap(weighted_kappa(truth, found, power), n, resamples=resamples, seed=seed)

    return PatientAgreement(
        n=n,
        any_ene=counted(truth > 0, called, 0.0),
        any_agreement=wilson(int(((truth > 0) == called).sum()), n),
        count_exact=wilson(int((apart == 0).sum()), n),
        count_within_one=wilson(int((apart <= 1).sum()), n),
        kappa_linear=kappa(1),
        kappa_quadratic=kappa(2),
    )


def weighted_kappa(first: FloatArray, second: FloatArray, power: int) -> Statistic:
    """The statistic weighted kappa of two lists of whole numbers.

    Parameters
    ----------
    power : 1 weighs a disagreement by its size, 2 by the square of it.

    Returns
    -------
    NaN for a resample in which all are the same.
    """
    codes = np.unique(np.concatenate([first, second]), return_inverse=True)
    values, places = codes[0], codes[1].reshape(2, -1)
    one, two = (np.eye(len(values))[row] for row in places)
    cost = np.abs(values[:, None] - values[None]) ** power
    own = np.abs(first - second) ** power

    def statistic(weights: FloatArray) -> FloatArray:
        total = weights.sum(axis=1)
        by_chance = np.einsum("ri,ij,rj->r", weights @ one, cost, weights @ two) / total
        return np.where(by_chance > 0, 1 - weights @ own / np.where(by_chance > 0, by_chance, 1.0), np.nan)

    return statistic


def _unfit(truth: FloatArray, found: FloatArray) -> str:
    """Why the counts cannot be compared; empty where they can."""
    if truth.size == 0:
        return "no patients"
    lost = int((~np.isfinite(truth) | ~np.isfinite(found)).sum())
    if lost:
        return f"{lost} of {truth.size} patients have no count"
    both: npt.NDArray[np.float64] = np.concatenate([truth, found])
    if (both < 0).any() or (both != np.rint(both)).any():
        return "there are counts that are not whole numbers from 0"
    return ""
