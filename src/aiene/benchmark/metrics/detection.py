"""Node detection over a cohort: sensitivity, false nodes, and the free-response (FROC) curve.

The FROC curve gives the share of nodes found against false nodes per case as the confidence threshold falls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aiene.benchmark.metrics.matching import IOU_THRESHOLD, SIZE_CLASSES, NodeMatch, SizeClass, one_to_one
from aiene.errors import UsageError
from aiene.stats.bootstrap import cluster_bootstrap, ratio
from aiene.stats.records import Estimate, missing

FloatArray = npt.NDArray[np.float64]

FALSE_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False nodes per case at which sensitivity is read, as in LUNA16."""


@dataclass(frozen=True)
class SizeDetection:
    """Detection of one class of size.

    Parameters
    ----------
    n_truth, n_matched : true nodes of this size, and how many of them are found.
    n_predicted, n_false : predicted nodes of this size, by their own short axis, and how many are false.
    precision : share of the predicted nodes of this size that have a partner of whatever size.
    """

    size_class: SizeClass
    n_truth: int
    n_matched: int
    n_predicted: int
    n_false: int
    sensitivity: Estimate
    precision: Estimate
    false_per_case: Estimate


@dataclass(frozen=True)
class Detection:
    """Node-wise detection over a cohort; intervals by bootstrap over patients.

    Parameters
    ----------
    sensitivity, precision, f1 : over all nodes of the cohort together; None where there is nothing to count.
    splits, merges : true nodes in several predicted parts, predicted nodes that hold several true ones.
    iou_threshold : from which a pair could match.
    """

    n_cases: int
    n_truth: int
    n_predicted: int
    n_matched: int
    n_false: int
    sensitivity: Estimate
    precision: Estimate
    f1: Estimate
    false_per_case: Estimate
    splits: int
    merges: int
    iou_threshold: float
    by_size: tuple[SizeDetection, ...]


def detection(
    cases: Sequence[NodeMatch],
    patients: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Detection:
    """Detection over the cases of a cohort, in all and by class of size.

    Parameters
    ----------
    cases : matched with one threshold; a case without any node belongs here too.
    patients : of each case; None: each case is a patient.

    Raises
    ------
    UsageError : the cases were matched with different thresholds, or patients are not one for each.
    """
    thresholds = {case.iou_threshold for case in cases}
    if len(thresholds) > 1:
        raise UsageError("the cases were matched with different IoU thresholds; match them with one.")

    def rate(above: FloatArray, below: FloatArray, nothing: str) -> Estimate:
        if not cases:
            return missing("no cases")
        if below.sum() == 0:
            return missing(nothing, len(cases))
        return cluster_bootstrap(ratio(above, below), len(cases), patients, resamples=resamples, seed=seed)

    truth, found = _counts(cases, lambda c: len(c.truth)), _counts(cases, lambda c: len(c.predicted))
    hits, false = _counts(cases, lambda c: len(c.pairs)), _counts(cases, lambda c: len(c.false))
    return Detection(
        n_cases=len(cases),
        n_truth=int(truth.sum()),
        n_predicted=int(found.sum()),
        n_matched=int(hits.sum()),
        n_false=int(false.sum()),
        sensitivity=rate(hits, truth, "no true nodes"),
        precision=rate(hits, found, "no predicted nodes"),
        f1=rate(2 * hits, truth + found, "no nodes"),
        false_per_case=rate(false, np.ones(len(cases)), "no cases"),
        splits=sum(len(case.splits) for case in cases),
        merges=sum(len(case.merges) for case in cases),
        iou_threshold=thresholds.pop() if thresholds else IOU_THRESHOLD,
        by_size=tuple(_of_size(name, cases, rate) for name in SIZE_CLASSES),
    )


def _of_size(
    name: SizeClass, cases: Sequence[NodeMatch], rate: Callable[[FloatArray, FloatArray, str], Estimate]
) -> SizeDetection:
    truth = _counts(cases, lambda c: sum(n.size_class == name for n in c.truth))
    missed = _counts(cases, lambda c: sum(n.size_class == name and n.number in c.missed for n in c.truth))
    found = _counts(cases, lambda c: sum(n.size_class == name for n in c.predicted))
    false = _counts(cases, lambda c: sum(n.size_class == name and n.number in c.false for n in c.predicted))
    return SizeDetection(
        size_class=name,
        n_truth=int(truth.sum()),
        n_matched=int((truth - missed).sum()),
        n_predicted=int(found.sum()),
        n_false=int(false.sum()),
        sensitivity=rate(truth - missed, truth, "no true nodes of this size"),
        precision=rate(found - false, found, "no predicted nodes of this size"),
        false_per_case=rate(false, np.ones(len(cases)), "no cases"),
    )


def _counts(cases: Sequence[NodeMatch], count: Callable[[NodeMatch], int]) -> FloatArray:
    return np.array([count(case) for case in cases], dtype=np.float64)


# Free-response curve


@dataclass(frozen=True)
class Froc:
    """A free-response curve.

    Parameters
    ----------
    thresholds : confidences, falling; a node counts where its own is at least this.
    sensitivity, false_per_case : at each threshold; both rise.
    at : for each of `FALSE_RATES` the largest sensitivity with no more false nodes per case than that.
    score : the mean of these (competition performance metric, Setio et al., Med. Image Anal. 2017).
    reason : why there is no curve; empty where there is one.
    """

    thresholds: tuple[float, ...]
    sensitivity: tuple[float, ...]
    false_per_case: tuple[float, ...]
    at: tuple[tuple[float, float | None], ...]
    score: float | None
    n_cases: int
    n_truth: int
    reason: str = ""


def froc(cases: Sequence[NodeMatch]) -> Froc:
    """The free-response curve of a cohort.

    At each threshold the nodes that are confident enough are matched anew, one to one. Between two points of
    the curve nothing is interpolated.

    Parameters
    ----------
    cases : a case without nodes belongs here too.

    Returns
    -------
    No curve, and the reason, where a predicted node has no confidence or there is no true node.
    """
    n_truth = sum(len(case.truth) for case in cases)
    bare = sum(node.confidence is None for case in cases for node in case.predicted)
    if n_truth == 0:
        return _no_curve(cases, n_truth, "no true nodes")
    if bare:
        return _no_curve(cases, n_truth, f"{bare} predicted nodes have no confidence")
    thresholds: list[float] = []
    sensitivity: list[float] = []
    false: list[float] = []
    for threshold, kept, hits in _steps(cases):
        thresholds.append(threshold)
        sensitivity.append(hits / n_truth)
        false.append((kept - hits) / len(cases))
    at = [_best_within(rate, sensitivity, false) for rate in FALSE_RATES]
    return Froc(
        thresholds=tuple(thresholds),
        sensitivity=tuple(sensitivity),
        false_per_case=tuple(false),
        at=tuple(zip(FALSE_RATES, at, strict=True)),
        score=sum(at) / len(at),
        n_cases=len(cases),
        n_truth=n_truth,
    )


def _steps(cases: Sequence[NodeMatch]) -> list[tuple[float, int, int]]:
    """For each confidence, falling: how many nodes are kept, and how many of them match."""
    events = sorted(
        (
            (node.confidence, place, node.number)
            for place, case in enumerate(cases)
            for node in case.predicted
            if node.confidence is not None
        ),
        key=lambda event: -event[0],
    )
    kept: list[set[int]] = [set() for _ in cases]
    hits = [0] * len(cases)
    steps: list[tuple[float, int, int]] = []
    for done, (confidence, place, number) in enumerate(events, start=1):
        kept[place].add(number)
        allowed = [pair for pair in cases[place].candidates if pair.predicted in kept[place]]
        hits[place] = len(one_to_one(allowed))
        if done == len(events) or events[done][0] != confidence:
            steps.append((confidence, done, sum(hits)))
    return steps


def _best_within(rate: float, sensitivity: Sequence[float], false: Sequence[float]) -> float:
    return max((s for s, f in zip(sensitivity, false, strict=True) if f <= rate), default=0.0)


def _no_curve(cases: Sequence[NodeMatch], n_truth: int, reason: str) -> Froc:
    at = tuple((rate, None) for rate in FALSE_RATES)
    return Froc((), (), (), at, None, len(cases), n_truth, reason)
