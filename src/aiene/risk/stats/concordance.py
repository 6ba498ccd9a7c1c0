"""How well a score orders patients by their outcome: Harrell's and Uno's C.

A pair counts where one patient has the event at a time at which the other is still followed (a censoring at
that very time counts as later). Two patients with the event at the same time are no pair. Equal scores count
one half.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from aiene.risk.stats.checks import Floats, Ints, check_horizons, check_outcome, check_scores
from aiene.risk.stats.errors import NotEstimableError
from aiene.risk.stats.life_table import censoring_steps, step


class Concordance(NamedTuple):
    """Harrell's C and the pairs behind it."""

    c: float
    concordant: int
    discordant: int
    tied_risk: int
    comparable: int


class PairCounts(NamedTuple):
    """For each event (by patient number `who`) the patients known to outlive it, by their score."""

    who: Ints
    lower: Ints
    equal: Ints
    outliving: Ints


def pair_counts(time: Floats, event: Ints, risk: Floats) -> PairCounts:
    """Count, for each event, those who outlive it with a lower and with an equal score: O(n log n)."""
    moment = _ranks(time)
    key = -(2 * moment - event)  # at one time censored patients come before events
    _, risk_rank = np.unique(risk, return_inverse=True)
    order = np.lexsort((-risk_rank, key))
    _, key_start = np.unique(key[order], return_index=True)
    block = np.searchsorted(key_start, np.arange(key.size), side="right") - 1
    outliving = key_start[block]
    lower = _earlier_and_less(risk_rank[order])
    backwards = np.lexsort((risk_rank, key))
    higher = np.empty(key.size, dtype=np.int64)
    higher[backwards] = _earlier_and_less(-risk_rank[backwards])
    here = event[order] == 1
    who = order[here]
    less, more, out = lower[here], higher[who], outliving[here]
    return PairCounts(who, less, out - less - more, out)


def harrell_c(time: ArrayLike, event: ArrayLike, risk: ArrayLike) -> Concordance:
    """Harrell's C: the share of pairs in which the higher score has the earlier event.

    Parameters
    ----------
    time, event : (n,) see `check_outcome`; 0 and 1 only (censor competing events first).
    risk : (n,) higher is worse.

    Raises
    ------
    UsageError : see `check_outcome`; or scores that do not fit.
    NotEstimableError : no pair can be compared.

    References
    ----------
    Harrell, Lee and Mark 1996, Stat Med 15:361.
    """
    times, codes = check_outcome(time, event)
    scores = check_scores(risk, times.size)
    counts = pair_counts(times, codes, scores)
    comparable = int(counts.outliving.sum())
    if comparable == 0:
        raise NotEstimableError("no two patients can be compared", "C needs an event that others outlive")
    concordant, tied = int(counts.lower.sum()), int(counts.equal.sum())
    c = (concordant + 0.5 * tied) / comparable
    return Concordance(c, concordant, comparable - concordant - tied, tied, comparable)


def stratified_c(time: Floats, event: Ints, risk: Floats, strata: Ints | None) -> float:
    """Harrell's C with pairs within strata only; NaN where none can be compared."""
    layers = np.zeros(time.size, dtype=np.int64) if strata is None else strata
    won, comparable = 0.0, 0
    for layer in np.unique(layers):
        inside = layers == layer
        counts = pair_counts(time[inside], event[inside], risk[inside])
        won += float(counts.lower.sum() + 0.5 * counts.equal.sum())
        comparable += int(counts.outliving.sum())
    return won / comparable if comparable else float("nan")


def uno_c(
    time: ArrayLike,
    event: ArrayLike,
    risk: ArrayLike,
    *,
    tau: float | None = None,
    train: tuple[ArrayLike, ArrayLike] | None = None,
) -> float:
    """Uno's C: pairs weighted by 1 / G(time)^2, so that it does not depend on who was censored when.

    Parameters
    ----------
    time, event, risk : (n,) see `harrell_c`.
    tau : only events before this time count; None takes all.
    train : time and event of the patients that give the censoring curve G; the same patients if None.

    Raises
    ------
    UsageError : see `harrell_c`.
    NotEstimableError : no pair can be compared, or G is 0 at an event: set `tau` earlier.

    References
    ----------
    Uno et al. 2011, Stat Med 30:1105.
    """
    times, codes = check_outcome(time, event)
    scores = check_scores(risk, times.size)
    source = (times, codes) if train is None else check_outcome(*train)
    limit = np.inf if tau is None else float(check_horizons(tau)[0])
    counts = pair_counts(times, codes, scores)
    counted = times[counts.who] < limit
    at_event = times[counts.who[counted]]
    g = step(*censoring_steps(source[0], source[1]), at_event, 1.0)
    useful = counts.outliving[counted] > 0
    if (g[useful] <= 0).any():
        raise NotEstimableError("no patient is followed up to the last events", "set an earlier tau")
    weight = np.zeros_like(g)
    weight[useful] = 1.0 / g[useful] ** 2
    total = float(weight @ counts.outliving[counted])
    if total == 0:
        raise NotEstimableError("no two patients can be compared", "C needs an event that others outlive")
    won = counts.lower[counted] + 0.5 * counts.equal[counted]
    return float(weight @ won) / total


def _ranks(values: Floats) -> Ints:
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _earlier_and_less(values: Ints) -> Ints:
    """For each place of a sequence how many earlier places hold a smaller value.

    The places are sorted by value (of equal ones the later first, so that they do not count), then split by
    the bits of the place from the highest down: at each bit an upper place counts the lower ones met before
    it.
    """
    n = values.size
    counts = np.zeros(n, dtype=np.int64)
    places = np.lexsort((-np.arange(n), values))
    for bit in range(max(n - 1, 0).bit_length() - 1, -1, -1):
        is_lower = (places >> bit) & 1 == 0
        block = places >> (bit + 1)
        met = np.cumsum(is_lower)
        starts = np.flatnonzero(np.concatenate([[True], block[1:] != block[:-1]]))
        before = np.concatenate([[0], met])[starts]
        lengths = np.diff(np.concatenate([starts, [n]]))
        met = met - np.repeat(before, lengths)
        upper = ~is_lower
        counts[places[upper]] += met[upper]
        # a stable split of each block by the bit keeps the order of values within the halves
        half = np.repeat(starts, lengths) + np.where(
            is_lower,
            met - 1,
            np.repeat(np.add.reduceat(is_lower, starts), lengths) + _met_upper(upper, starts, lengths),
        )
        split = np.empty_like(places)
        split[half] = places
        places = split
    return counts


def _met_upper(upper: np.ndarray, starts: Ints, lengths: Ints) -> Ints:
    met = np.cumsum(upper)
    before = np.concatenate([[0], met])[starts]
    return np.asarray(met - np.repeat(before, lengths) - 1)
