"""Models on the same patients: paired differences and tests, superiority, equivalence, summaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from aiene.errors import UsageError
from aiene.stats.bootstrap import (
    Statistic,
    cluster_bootstrap,
    cluster_codes,
    drawn_estimate,
    mean,
    median,
    one_sided_p,
)
from aiene.stats.records import Estimate, Floats, missing
from aiene.stats.roc import as_floats

Scores = Mapping[str, Sequence[float | None]]

_ALL_FLIPS_TO = 13
"""Patients up to which every pattern of signs is tried."""

_RANDOM_FLIPS = 9999


class ScoreTable(NamedTuple):
    """Mean score of each patient (rows) for each model (columns).

    Parameters
    ----------
    left_out : cases in which a model has no score, so that they were left out for every model.
    """

    models: tuple[str, ...]
    values: Floats
    left_out: int


def score_table(
    scores: Scores, patients: Sequence[str] | None = None, *, higher_is_better: bool | None = True
) -> ScoreTable:
    """One value per patient and model.

    Parameters
    ----------
    scores : of each model, in one order of cases; None or NaN where there is none.
    patients : of each case; several cases of one are averaged. None: each case is a patient.
    higher_is_better : None: nearest to 0 is best, so absolute values are taken.

    Raises
    ------
    UsageError : the models have different numbers of cases, or patients are not one for each.
    """
    if len({len(values) for values in scores.values()}) > 1:
        raise UsageError("the models have scores of different numbers of cases; they must be the same cases.")
    columns = [as_floats(values) for values in scores.values()]
    table = np.stack(columns, axis=1) if columns else np.zeros((0, 0))
    table = np.abs(table) if higher_is_better is None else table
    codes, count = cluster_codes(len(table), patients)
    whole = np.isfinite(table).all(axis=1)
    sums = np.zeros((count, len(columns)))
    np.add.at(sums, codes[whole], table[whole])
    cases = np.bincount(codes[whole], minlength=count)
    means = sums[cases > 0] / cases[cases > 0, None]
    return ScoreTable(tuple(scores), means, int((~whole).sum()))


def oriented(values: Floats, higher_is_better: bool | None) -> Floats:
    """The values of a `ScoreTable`, turned so that more is better."""
    return values if higher_is_better else -values


@dataclass(frozen=True)
class Paired:
    """Two models on the same patients, the first less the second.

    Parameters
    ----------
    n : patients in which both have a value.
    left_out : cases that lack one.
    mean_difference, median_difference : of the patients' means; of absolute values if nearest to 0 is best.
    wilcoxon_p, permutation_p : two-sided; None for fewer than two patients.
    superiority : share of patients in whom the first is better, ties counting half.
    reason : why something is None; empty where all is there.
    """

    n: int
    left_out: int
    mean_difference: Estimate
    median_difference: Estimate
    wilcoxon_p: float | None
    permutation_p: float | None
    superiority: Estimate
    reason: str = ""


def paired(
    first: Sequence[float | None],
    second: Sequence[float | None],
    patients: Sequence[str] | None = None,
    *,
    higher_is_better: bool | None = True,
    resamples: int = 2000,
    seed: int = 0,
) -> Paired:
    """Compare two models patient by patient.

    Wilcoxon's signed-rank test (zeros left out), and the sign-flip permutation test of the mean difference:
    all patterns up to 13 patients, else 9,999 random ones and the observed one.

    Parameters
    ----------
    first, second : one value per case, in one order; None or NaN where there is none.
    patients : of each case; several cases of one are averaged first. None: each case is a patient.
    higher_is_better : None: nearest to 0 is best.

    Raises
    ------
    UsageError : not the same number of values, or patients not one for each.
    """
    table = score_table({"first": first, "second": second}, patients, higher_is_better=higher_is_better)
    n = len(table.values)
    if n == 0:
        nothing = missing("no patient has a value of both")
        return Paired(0, table.left_out, nothing, nothing, None, None, nothing, nothing.reason)
    difference = _rounded(table.values[:, 0] - table.values[:, 1], table.values)
    gain = oriented(difference, higher_is_better)
    better = (gain > 0) + 0.5 * (gain == 0)
    alone = "one patient only, so no test and no interval" if n == 1 else ""
    interval = partial(cluster_bootstrap, n=n, resamples=resamples, seed=seed, of_difference=True)
    return Paired(
        n=n,
        left_out=table.left_out,
        mean_difference=interval(mean(difference)),
        median_difference=interval(median(difference)),
        wilcoxon_p=None if alone else _wilcoxon(difference),
        permutation_p=None if alone else sign_flip_p(difference, seed=seed),
        superiority=interval(mean(better)),
        reason=alone,
    )


def sign_flip_p(differences: npt.ArrayLike, *, seed: int = 0) -> float:
    """Two-sided p of the mean difference when each patient's sign could as well be the other.

    Parameters
    ----------
    differences : one per patient, at least one.
    """
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    observed = abs(values.sum())
    slack = 1e-12 * float(np.abs(values).sum())
    if n <= _ALL_FLIPS_TO:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return float((np.abs((2 * bits - 1) @ values) >= observed - slack).mean())
    random = np.random.default_rng(seed)
    extreme = 1
    for block in np.array_split(np.arange(_RANDOM_FLIPS), 10):
        signs = 2 * random.integers(2, size=(len(block), n)) - 1
        extreme += int((np.abs(signs @ values) >= observed - slack).sum())
    return extreme / (_RANDOM_FLIPS + 1)


def _wilcoxon(difference: Floats) -> float:
    """P of the signed-rank test; 1 where every difference is 0."""
    moved = difference[difference != 0]
    if moved.size == 0:
        return 1.0
    return float(stats.wilcoxon(moved).pvalue)


def _rounded(difference: Floats, values: Floats) -> Floats:
    """Differences to 12 digits of the largest value, so that ties and zeros are not undone by rounding."""
    scale = float(np.abs(values).max()) or 1.0
    rounded: Floats = np.round(difference / scale, 12) * scale
    return rounded


@dataclass(frozen=True)
class SuperiorityTable:
    """For each pair of models the share of patients in whom the row's is better, ties counting half.

    Parameters
    ----------
    probability : rows and columns in the order of `models`; None on the diagonal, and for no patient.
    """

    models: tuple[str, ...]
    probability: tuple[tuple[float | None, ...], ...]
    n: int
    left_out: int
    reason: str = ""


def superiority_table(
    scores: Scores, patients: Sequence[str] | None = None, *, higher_is_better: bool | None = True
) -> SuperiorityTable:
    """Probability of superiority of each model over each other, on the patients that all have.

    Raises
    ------
    UsageError : the scores do not fit together.
    """
    table = score_table(scores, patients, higher_is_better=higher_is_better)
    good = oriented(table.values, higher_is_better)
    k = len(table.models)
    ahead = (good[:, :, None] > good[:, None, :]) + 0.5 * (good[:, :, None] == good[:, None, :])
    share = ahead.mean(axis=0) if len(good) else None
    rows = tuple(
        tuple(None if share is None or a == b else float(share[a, b]) for b in range(k)) for a in range(k)
    )
    reason = "" if len(good) else "no patient has a value of every model"
    return SuperiorityTable(table.models, rows, len(good), table.left_out, reason)


# Summary of one list of values


@dataclass(frozen=True)
class Summary:
    """What a metric is over a cohort; intervals by bootstrap over patients.

    Parameters
    ----------
    n, missing : values that are there, and that are not (None, NaN, infinite).
    sd : with n - 1; None for one value.
    reason : why there is no number; empty where there is one.
    """

    n: int
    missing: int
    n_patients: int
    mean: Estimate
    median: Estimate
    sd: float | None
    q1: float | None
    q3: float | None
    minimum: float | None
    maximum: float | None
    reason: str = ""


def summarise(
    values: Sequence[float | None],
    patients: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Summary:
    """Mean, median and spread of a metric.

    Parameters
    ----------
    values : one per case; what is missing is left out and counted.
    patients : of each case; None: each case is a patient.

    Raises
    ------
    UsageError : patients are not one for each value.
    """
    numbers = as_floats(values)
    cluster_codes(len(numbers), patients)
    there = np.isfinite(numbers)
    lost = int((~there).sum())
    kept = numbers[there]
    if kept.size == 0:
        reason = f"none of {lost} cases has a value" if lost else "no cases"
        nothing = missing(reason)
        return Summary(0, lost, 0, nothing, nothing, None, None, None, None, None, reason)
    names = None if patients is None else [p for p, good in zip(patients, there, strict=True) if good]
    n_patients = cluster_codes(len(kept), names)[1]
    q1, q3 = (float(v) for v in np.quantile(kept, [0.25, 0.75]))
    return Summary(
        n=len(kept),
        missing=lost,
        n_patients=n_patients,
        mean=cluster_bootstrap(mean(kept), len(kept), names, resamples=resamples, seed=seed),
        median=cluster_bootstrap(median(kept), len(kept), names, resamples=resamples, seed=seed),
        sd=float(kept.std(ddof=1)) if len(kept) > 1 else None,
        q1=q1,
        q3=q3,
        minimum=float(kept.min()),
        maximum=float(kept.max()),
    )


LEVEL = 0.05


@dataclass(frozen=True)
class DifferenceTest:
    """The first statistic less the second.

    Parameters
    ----------
    difference : with its 95 % interval.
    p : two-sided, of the same resamples, so that it is under 0.05 where the interval leaves 0 out.
    """

    difference: Estimate
    p: float | None


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests (Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987).

    Parameters
    ----------
    margin : the largest difference that is taken for none, in the unit of the statistic.
    interval : the difference with its 90 % interval; equal within the margin where that lies inside it.
    p : the larger of both one-sided tests.
    equivalent : `p` is under 0.05; None where there is no test.
    """

    margin: float
    interval: Estimate
    p: float | None
    equivalent: bool | None


def subtracted(first: Statistic, second: Statistic) -> Statistic:
    """The statistic first less second, without what is mere rounding."""

    def statistic(weights: Floats) -> Floats:
        one, two = first(weights), second(weights)
        apart = one - two
        return np.where(np.abs(apart) <= 1e-12 * np.maximum(np.abs(one), np.abs(two)), 0.0, apart)

    return statistic


def difference_test(
    difference: Statistic, n: int, clusters: Sequence[str] | None, *, resamples: int, seed: int
) -> DifferenceTest:
    """Whether a difference is 0, by bootstrap over patients.

    Parameters
    ----------
    difference, n, clusters : as of `cluster_bootstrap`.
    """
    found, draws = drawn_estimate(difference, n, clusters, resamples=resamples, seed=seed, of_difference=True)
    if not draws.size:
        return DifferenceTest(found, None)
    count = found.n
    above = one_sided_p(draws, 0.0, count)
    below = one_sided_p(-draws, 0.0, count)
    return DifferenceTest(found, min(1.0, 2 * min(above, below)))


def equivalence(
    difference: Statistic, n: int, clusters: Sequence[str] | None, margin: float, *, resamples: int, seed: int
) -> Equivalence:
    """Whether a difference lies within a margin on both sides of 0.

    Raises
    ------
    UsageError : the margin is not over 0.
    """
    if not margin > 0:
        raise UsageError(f"an equivalence margin of {margin:g} is none; it must be over 0.")
    found, draws = drawn_estimate(
        difference, n, clusters, resamples=resamples, seed=seed, confidence=1 - 2 * LEVEL, of_difference=True
    )
    if not draws.size:
        return Equivalence(margin, found, None, None)
    count = found.n
    p = max(one_sided_p(draws, -margin, count), one_sided_p(-draws, -margin, count))
    return Equivalence(margin, found, p, p < LEVEL)
