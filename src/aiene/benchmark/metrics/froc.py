"""The free-response curve: nodes found against false nodes per case, as the confidence asked for falls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aiene.benchmark.metrics.matching import NodeMatch, one_to_one

FALSE_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False nodes per case at which sensitivity is read, as in LUNA16."""


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
