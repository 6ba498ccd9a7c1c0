"""Harrell's concordance from counted pairs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from aiene.stats.records import Floats, Ints, NotEstimableError, check_outcome, check_scores


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
