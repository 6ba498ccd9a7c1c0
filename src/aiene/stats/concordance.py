"""How well a score orders patients by their outcome: Harrell's and Uno's C, from counted pairs of patients.

A pair counts where one patient has the event at a time at which the other is still followed (a censoring at
that very time counts as later). Two patients with the event at the same time are no pair. Equal scores count
one half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from aiene.errors import UsageError
from aiene.stats.bootstrap import OnProgress, percentiles, resample_counts
from aiene.stats.records import (
    Difference,
    Floats,
    Interval,
    Ints,
    NotEstimableError,
    check_horizons,
    check_outcome,
    check_scores,
)
from aiene.stats.survival_curves import Moments, censoring_steps, step


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
    moment = np.unique(time, return_inverse=True)[1]
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


def _earlier_and_less(values: Ints) -> Ints:
    """For each place of a sequence how many earlier places hold a smaller value.

    Blocks of twice the size at a time are sorted: an upper half counts what of its lower half is smaller.
    """
    n = values.size
    size = 1 << max(n - 1, 0).bit_length()
    ranks = np.unique(values, return_inverse=True)[1]
    key = np.concatenate([ranks, np.full(size - n, n)])
    counts, places, half = np.zeros(size, dtype=np.int64), np.arange(size), 1
    while half < size:
        lower, upper = np.split(places.reshape(-1, 2, half), 2, axis=1)
        apart = (n + 1) * np.arange(size // (2 * half))[:, None]  # so that one search serves all blocks
        below = np.searchsorted((key[lower[:, 0]] + apart).ravel(), key[upper[:, 0]] + apart)
        counts[upper[:, 0]] += below - half * np.arange(size // (2 * half))[:, None]
        half *= 2
        blocks = places.reshape(-1, half)
        order = np.argsort(key[blocks], axis=1, kind="stable")
        places = np.take_along_axis(blocks, order, axis=1).ravel()
    return counts[:n]


Kind = Literal["harrell", "uno"]
_AT_ONCE = 40_000_000  # entries of an (events x patients) matrix held in memory


def uno_c(
    time: ArrayLike,
    event: ArrayLike,
    risk: ArrayLike,
    *,
    tau: float | None = None,
) -> float:
    """Uno's C: pairs weighted by 1 / G(T-)^2, so that it does not depend on who was censored when.

    T is the time of the event, G(T-) the censoring curve just before it, as in R's survival::concordance.

    Parameters
    ----------
    time, event, risk : (n,) see `harrell_c`.
    tau : only events before this time count; None takes all.

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
    limit = np.inf if tau is None else float(check_horizons(tau)[0])
    counts = pair_counts(times, codes, scores)
    counted = times[counts.who] < limit
    at_event = times[counts.who[counted]]
    g = step(*censoring_steps(times, codes), at_event, 1.0, left=True)
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


# C of several scores on the same resamples, with paired differences


@dataclass(frozen=True)
class Concordances:
    """C of each score, and differences.

    Parameters
    ----------
    values : by name of the score.
    differences : by `new - old`.
    n_failed : resamples in which no pair could be compared.
    """

    values: dict[str, Interval]
    differences: dict[str, Difference]
    n_failed: int


def concordance(
    time: ArrayLike,
    event: ArrayLike,
    risks: Mapping[str, ArrayLike],
    *,
    compare: Sequence[tuple[str, str]] = (),
    kind: Kind = "harrell",
    tau: float | None = None,
    n_boot: int = 1000,
    seed: int = 1,
    confidence: float = 0.95,
    on_progress: OnProgress | None = None,
) -> Concordances:
    """C of several scores with percentile intervals; the scores are held fixed, patients are resampled.

    Parameters
    ----------
    time, event : (n,) 0 and 1.
    risks : (n,) of each name; higher is worse.
    compare : pairs (old, new) whose difference new - old is wanted.
    kind : `harrell`, or `uno` (up to `tau`), whose weights are made anew in each resample.

    Raises
    ------
    UsageError : see `harrell_c`; or a name in `compare` that is not in `risks`.
    NotEstimableError : no pair can be compared.
    """
    times, codes = check_outcome(time, event)
    scores = {name: check_scores(risk, times.size, name) for name, risk in risks.items()}
    check_compared(scores, compare)
    if kind not in ("harrell", "uno"):
        raise UsageError(f"kind {kind}: choose harrell or uno.")
    at_data = {
        name: harrell_c(times, codes, risk).c if kind == "harrell" else uno_c(times, codes, risk, tau=tau)
        for name, risk in scores.items()
    }
    limit = np.inf if kind == "harrell" or tau is None else float(check_horizons(tau)[0])
    pairs = _Pairs(times, codes, scores, kind, limit)
    chunks = [pairs.chunk(counts) for counts in resample_counts(times.size, n_boot, seed, on_progress)]
    replicates = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in scores}
    failed = int((~np.isfinite(np.stack(list(replicates.values())))).any(axis=0).sum())
    return Concordances(*percentiles(at_data, replicates, compare, confidence), failed)


def check_compared(scores: Mapping[str, object], compare: Sequence[tuple[str, str]]) -> None:
    """Refuse a comparison of a score that is not there, or no score at all.

    Raises
    ------
    UsageError : so it is.
    """
    if not scores:
        raise UsageError("no score is given.")
    if unknown := {name for pair in compare for name in pair} - set(scores):
        raise UsageError(f"no such score: {', '.join(sorted(unknown))}.")


class _Pairs:
    """All pairs as matrices (events x patients), so that many resamples are one matrix product.

    The products are of small whole numbers and halves, which 32-bit floats hold exactly: no rounding, so the
    same bits for any number of threads. A large cohort is taken by some of its events at a time.
    """

    def __init__(
        self, time: Floats, event: Ints, scores: dict[str, Floats], kind: Kind, limit: float
    ) -> None:
        self._time, self._event, self._scores = time, event, scores
        who = np.flatnonzero((event == 1) & (time < limit))
        self._parts = np.array_split(who, max(1, -(-who.size * time.size // _AT_ONCE)))
        self._moments = Moments(time, event) if kind == "uno" else None
        self._kept = [self._matrices(self._parts[0])] if len(self._parts) == 1 else None

    def _matrices(self, who: Ints) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.float32]]]:
        """Who outlives each of these events, and by score who of them has a lower (1) or equal (1/2) one."""
        later = self._time[None, :] > self._time[who, None]
        also = (self._time[None, :] == self._time[who, None]) & (self._event == 0)[None, :]
        outlives = (later | also).astype(np.float32)
        return outlives, {name: _wins(risk, who) * outlives for name, risk in self._scores.items()}

    def chunk(self, counts: Floats) -> dict[str, Floats]:
        """C (b,) of each score in the resamples with these counts (n, b)."""
        small = counts.astype(np.float32)
        total = np.zeros(counts.shape[1])
        won = {name: np.zeros(counts.shape[1]) for name in self._scores}
        uncensored = None if self._moments is None else self._moments.uncensored(counts)
        for who, (outlives, wins) in zip(
            self._parts, self._kept or map(self._matrices, self._parts), strict=True
        ):
            comparable = (outlives @ small).astype(np.float64)
            weight = counts[who]
            if self._moments is not None and uncensored is not None:
                g = self._moments.steps_at(uncensored, self._time[who], left=True)
                weight = np.divide(weight, g**2, out=np.zeros_like(weight), where=(g > 0) & (comparable > 0))
            total += (weight * comparable).sum(axis=0)
            for name, of_score in wins.items():
                won[name] += (weight * (of_score @ small).astype(np.float64)).sum(axis=0)
        return {name: _ratio(part, total) for name, part in won.items()}


def _wins(risk: Floats, who: Ints) -> np.ndarray:
    higher = (risk[who, None] > risk[None, :]).astype(np.float32)
    return np.asarray(higher + np.float32(0.5) * (risk[who, None] == risk[None, :]), dtype=np.float32)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0))
