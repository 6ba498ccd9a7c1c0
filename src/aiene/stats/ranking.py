"""Ranks of several models, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from aiene.stats.bootstrap import Statistic, cluster_codes, drawn_weights
from aiene.stats.paired import Scores, oriented, score_table
from aiene.stats.records import Estimate, Floats, missing

RankBy = Literal["mean_then_rank", "rank_then_mean", "value"]


@dataclass(frozen=True)
class RankedModel:
    """The place of one model.

    Parameters
    ----------
    rank : 1 is best; models that tie share the better place.
    mean : of its patients' values (absolute ones where nearest to 0 is best).
    mean_rank : of its rank patient by patient, ties averaged.
    rank_low, rank_high : between which 95 % of its ranks over the resamples lie.
    share_by_rank : share of the resamples in which it has rank 1, 2, ...; empty where nothing was resampled.
    """

    model: str
    rank: int
    mean: float
    mean_rank: float
    rank_low: int | None
    rank_high: int | None
    share_by_rank: tuple[float, ...]


@dataclass(frozen=True)
class Ranking:
    """Models from best to worst.

    Parameters
    ----------
    kendall_tau : mean agreement of a resample's ranking with this one (1: always the same), and between which
        95 % of the resamples lie.
    n : patients, and `left_out` cases that one model or more lack.
    """

    models: tuple[RankedModel, ...]
    kendall_tau: Estimate
    by: RankBy
    n: int
    left_out: int
    resamples: int
    reason: str = ""


@dataclass(frozen=True)
class CriticalDifference:
    """Friedman's test over all models, and Nemenyi's over each pair.

    Parameters
    ----------
    models : from best to worst mean rank.
    nemenyi_p : rows and columns in the order of `models`; 1 on the diagonal.
    groups : longest runs of models that cannot be told apart (mean ranks within the critical difference).
    """

    models: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    friedman_p: float | None
    critical_difference: float | None
    nemenyi_p: tuple[tuple[float, ...], ...]
    groups: tuple[tuple[str, ...], ...]
    n: int
    left_out: int
    reason: str = ""


def ranking(
    scores: Scores,
    patients: Sequence[str] | None = None,
    *,
    higher_is_better: bool | None = True,
    by: RankBy = "mean_then_rank",
    resamples: int = 1000,
    seed: int = 0,
) -> Ranking:
    """Rank models, and rank them again on resampled patients (Wiesenfarth et al., Sci. Rep. 11:2369, 2021).

    Parameters
    ----------
    scores : of each model, in one order of cases. A case that a model lacks is left out for all, so give a
        failed case its worst value (`LabelMetrics.cohort_value`).
    by : rank the means, or take the mean of the ranks in each patient (`value` is `rank_statistics`).

    Raises
    ------
    UsageError : the scores do not fit together.
    """
    table = score_table(scores, patients, higher_is_better=higher_is_better)
    n = len(table.values)
    if n == 0 or not table.models:
        reason = "no patient has a value of every model" if table.models else "no models"
        return Ranking((), missing(reason), by, n, table.left_out, 0, reason)
    good = oriented(table.values, higher_is_better)
    in_patient = stats.rankdata(-good, axis=1)
    worth = good if by == "mean_then_rank" else -in_patient
    full = _ranks(worth.mean(axis=0)[None])[0]
    drawn: npt.NDArray[np.int64] | None = None
    if n > 1:
        blocks = drawn_weights(np.arange(n), n, resamples=resamples, seed=seed)
        drawn = np.concatenate([_ranks(weights @ worth / n) for weights in blocks])
    models = [
        _ranked(model, column, full, table.values, in_patient, drawn)
        for column, model in enumerate(table.models)
    ]
    tau, reason = _stability(full, drawn, n)
    order = sorted(range(len(models)), key=lambda column: (models[column].rank, column))
    return Ranking(
        tuple(models[column] for column in order),
        tau,
        by,
        n,
        table.left_out,
        0 if drawn is None else len(drawn),
        reason,
    )


def rank_statistics(
    statistics: Mapping[str, Statistic],
    n: int,
    clusters: Sequence[str] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Ranking:
    """Rank models by a statistic of which more is better, and again on resampled patients.

    Parameters
    ----------
    statistics : of each model, over the same `n` rows.
    clusters : patient of each row; None: each row is a patient.
    """
    codes, count = cluster_codes(n, clusters)
    models = tuple(statistics)

    def worth(weights: Floats) -> Floats:
        return np.stack([statistic(weights) for statistic in statistics.values()], axis=1)

    if not models or not n:
        reason = "no observations" if models else "no models"
        return Ranking((), missing(reason), "value", count, 0, 0, reason)
    values = worth(np.ones((1, n)))
    if not np.isfinite(values).all():
        reason = "it is undefined for these observations"
        return Ranking((), missing(reason), "value", count, 0, 0, reason)
    full = _ranks(values)[0]
    drawn: npt.NDArray[np.int64] | None = None
    if count > 1:
        blocks = [worth(w) for w in drawn_weights(codes, count, resamples=resamples, seed=seed)]
        draws = np.concatenate(blocks)
        drawn = _ranks(draws[np.isfinite(draws).all(axis=1)])
        drawn = drawn if len(drawn) else None
    order = sorted(range(len(models)), key=lambda column: (int(full[column]), column))
    ranked = [_ranked(models[c], c, full, values, full[None].astype(np.float64), drawn) for c in order]
    tau, reason = _stability(full, drawn, count)
    return Ranking(tuple(ranked), tau, "value", count, 0, 0 if drawn is None else len(drawn), reason)


def critical_difference(
    scores: Scores,
    patients: Sequence[str] | None = None,
    *,
    higher_is_better: bool | None = True,
    alpha: float = 0.05,
) -> CriticalDifference:
    """Which models can be told apart by their mean ranks (Demsar, J. Mach. Learn. Res. 7, 2006).

    Parameters
    ----------
    scores : of three models or more, in one order of cases.

    Raises
    ------
    UsageError : the scores do not fit together.
    """
    table = score_table(scores, patients, higher_is_better=higher_is_better)
    n, k = len(table.values), len(table.models)
    if k < 3 or n < 2:
        reason = "Friedman's test needs three models" if k < 3 else "Friedman's test needs two patients"
        return CriticalDifference(table.models, (), None, None, (), (), n, table.left_out, reason)
    ranks = stats.rankdata(-oriented(table.values, higher_is_better), axis=1)
    means = ranks.mean(axis=0)
    order = np.argsort(means, kind="stable")
    models = tuple(table.models[column] for column in order)
    rising = means[order]
    unit = float(np.sqrt(k * (k + 1) / (6 * n)))
    reach = float(stats.studentized_range.ppf(1 - alpha, k, np.inf) / np.sqrt(2) * unit)
    apart = np.abs(rising[:, None] - rising[None]) / unit * np.sqrt(2)
    p = stats.studentized_range.sf(apart, k, np.inf)
    np.fill_diagonal(p, 1.0)
    return CriticalDifference(
        models=models,
        mean_ranks=tuple(float(v) for v in rising),
        friedman_p=_friedman(ranks),
        critical_difference=reach,
        nemenyi_p=tuple(tuple(float(min(v, 1.0)) for v in row) for row in p),
        groups=_groups(models, rising, reach),
        n=n,
        left_out=table.left_out,
    )


def _friedman(ranks: Floats) -> float:
    """P of Friedman's test; 1 where every patient's ranks are tied."""
    if (ranks == ranks[:, :1]).all():
        return 1.0
    return float(stats.friedmanchisquare(*ranks.T).pvalue)


def _groups(models: Sequence[str], rising: Floats, reach: float) -> tuple[tuple[str, ...], ...]:
    """Longest runs of two models or more whose mean ranks lie within the critical difference."""
    runs: list[tuple[int, int]] = []
    for start in range(len(models)):
        end = int(np.flatnonzero(rising - rising[start] <= reach)[-1])
        if end > start and (not runs or end > runs[-1][1]):
            runs.append((start, end))
    return tuple(tuple(models[start : end + 1]) for start, end in runs)


def _ranks(worth: Floats) -> npt.NDArray[np.int64]:
    """Rank of each column in each row, 1 for the largest; what differs by rounding only is a tie."""
    slack = 1e-12 * np.maximum(np.abs(worth).max(axis=1), 1e-300)
    ahead = worth[:, None, :] > worth[:, :, None] + slack[:, None, None]
    return np.asarray(ahead.sum(axis=2) + 1, dtype=np.int64)


def _ranked(
    model: str,
    column: int,
    full: npt.NDArray[np.int64],
    values: Floats,
    in_patient: Floats,
    drawn: npt.NDArray[np.int64] | None,
) -> RankedModel:
    low: int | None = None
    high: int | None = None
    shares: tuple[float, ...] = ()
    if drawn is not None:
        mine = drawn[:, column]
        low, high = (
            int(np.quantile(mine, 0.025, method="lower")),
            int(np.quantile(mine, 0.975, method="higher")),
        )
        shares = tuple(float(v) for v in np.bincount(mine, minlength=len(full) + 1)[1:] / len(mine))
    mean = float(values[:, column].mean())
    return RankedModel(model, int(full[column]), mean, float(in_patient[:, column].mean()), low, high, shares)


def _stability(
    full: npt.NDArray[np.int64], drawn: npt.NDArray[np.int64] | None, n: int
) -> tuple[Estimate, str]:
    if drawn is None:
        return missing("one patient only, so no stability", n), "one patient only, so no stability"
    taus = kendall_taus(full, drawn)
    good = taus[np.isfinite(taus)]
    if good.size == 0:
        return missing("all models tie, so no stability", n), ""
    low, high = (float(v) for v in np.quantile(good, [0.025, 0.975]))
    return Estimate(float(good.mean()), low, high, n=n), ""


def kendall_taus(full: npt.ArrayLike, drawn: npt.ArrayLike) -> Floats:
    """Kendall's tau-b of a ranking with each of several; NaN where one of the two has only ties.

    Parameters
    ----------
    full : ranks (models).
    drawn : ranks (resamples, models).
    """
    one, many = np.asarray(full), np.asarray(drawn)
    above = np.triu_indices(len(one), 1)
    signs = np.sign(one[:, None] - one[None])[above].astype(np.float64)
    drawn_signs = np.sign(many[:, :, None] - many[:, None, :])[:, above[0], above[1]].astype(np.float64)
    below = np.sqrt((signs**2).sum() * (drawn_signs**2).sum(axis=1))
    agreement = drawn_signs @ signs
    return np.where(below > 0, agreement / np.where(below > 0, below, 1.0), np.nan)
