"""The search: all sets of one or two cut-offs, then all ordered partitions of the cells that they make.

Exhaustive, so that the search space can be written down whole; every step that looks at outcomes is in
`search`, so that it can be repeated in each resample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from aiene.stats.cox_model import fit_cox
from aiene.stats.records import NotEstimableError

SMALLEST_SHARE = 0.05
"""Least share of the patients in a class or group."""
FEWEST_EVENTS = 10
"""Fewest events in a class or group."""
HIGHEST = 5
"""Highest cut-off that is tried."""


class Trial(NamedTuple):
    """One candidate of the search.

    Parameters
    ----------
    step : `cut-offs` or `groups`.
    candidate : in words.
    smallest_n, fewest_events : of its classes or groups.
    log_likelihood, aic : of its Cox model; NaN where it was not fitted.
    verdict : `chosen`, `tried`, or why it was not.
    """

    step: str
    candidate: str
    smallest_n: int
    fewest_events: int
    log_likelihood: float
    aic: float
    verdict: str


@dataclass(frozen=True)
class Derived:
    """A grouping that was found.

    Parameters
    ----------
    cutoffs : least count of the second class, the third, ...; empty where no cut-off is better than none.
    group : place of the new group by base place and class, best first; int (bases, classes).
    trials : the whole search space.
    """

    cutoffs: tuple[int, ...]
    group: np.ndarray
    trials: tuple[Trial, ...]

    @property
    def n_groups(self) -> int:
        """How many new groups."""
        return int(self.group.max()) + 1

    def assign(self, base: np.ndarray, count: np.ndarray) -> np.ndarray:
        """The new group of each patient; int (n,)."""
        return np.asarray(self.group[base, class_of(count, self.cutoffs)])


def class_of(count: np.ndarray, cutoffs: Sequence[int]) -> np.ndarray:
    """The class of each count, 0 the lowest; int (n,)."""
    return np.searchsorted(np.asarray(cutoffs), count, side="right").astype(int)


def search(
    time: np.ndarray, event: np.ndarray, base: np.ndarray, count: np.ndarray, *, n_bases: int
) -> Derived:
    """Find cut-offs by AIC beside the base groups, then groups by likelihood.

    Step 1: each set of one or two cut-offs from 1 to `HIGHEST` whose classes are large enough; Cox model of
    base groups and classes; the lowest AIC wins, against no cut-off at all. Step 2: the cells of base and
    class are ordered by that model (more nodes never lower), and cut into as many ordered groups as there
    are base groups (two or more) where each is large enough; the highest likelihood wins.

    Parameters
    ----------
    time, event : (n,); event 0 or 1.
    base : (n,) places of the old groups, from 0.
    count : (n,) AI-ENE nodes.
    n_bases : number of old groups.

    Raises
    ------
    NotEstimableError : no event, or the base model cannot be fitted.
    """
    trials: list[Trial] = []
    cutoffs = _best_cutoffs(time, event, base, count, trials)
    if not cutoffs:
        return Derived((), np.arange(n_bases)[:, None], tuple(trials))
    cells = _cell_risk(time, event, base, class_of(count, cutoffs), n_bases, len(cutoffs) + 1)
    group = _best_partition(time, event, base, class_of(count, cutoffs), cells, max(2, n_bases), trials)
    if group is None:
        return Derived((), np.arange(n_bases)[:, None], tuple(trials))
    return Derived(cutoffs, group, tuple(trials))


def _best_cutoffs(
    time: np.ndarray, event: np.ndarray, base: np.ndarray, count: np.ndarray, trials: list[Trial]
) -> tuple[int, ...]:
    dummies = _dummies(base)
    none = _aic(time, event, dummies)
    scored: list[tuple[float, tuple[int, ...], int]] = [(none[1], (), len(trials))]
    trials.append(Trial("cut-offs", "none (old groups alone)", *_smallest(base, event), *none, "tried"))
    values = range(1, HIGHEST + 1)
    for cut in (*combinations(values, 1), *combinations(values, 2)):
        classes = class_of(count, cut)
        n, events = _smallest(classes, event, len(cut) + 1)
        words = " and ".join(f"≥ {c}" for c in cut)
        if not _large_enough(n, events, time.size):
            trials.append(Trial("cut-offs", words, n, events, np.nan, np.nan, "a class is too small"))
            continue
        try:
            fitted = _aic(time, event, np.column_stack([dummies, _dummies(classes)]))
        except NotEstimableError:
            trials.append(Trial("cut-offs", words, n, events, np.nan, np.nan, "cannot be fitted"))
            continue
        scored.append((fitted[1], cut, len(trials)))
        trials.append(Trial("cut-offs", words, n, events, *fitted, "tried"))
    _, best, place = min(scored, key=lambda s: (s[0], len(s[1]), s[1]))
    trials[place] = trials[place]._replace(verdict="chosen")
    return best


def _cell_risk(
    time: np.ndarray, event: np.ndarray, base: np.ndarray, classes: np.ndarray, n_bases: int, n_classes: int
) -> np.ndarray:
    """Linear predictor of each cell; (bases, classes), rising with the class."""
    present = np.unique(base)
    matrix = np.column_stack([_dummies(base), _dummies(classes)])
    beta = fit_cox(time, event, matrix).beta
    of_base = np.zeros(n_bases)
    of_base[present[1:]] = beta[: present.size - 1]
    for place in sorted(
        set(range(n_bases)) - set(present.tolist())
    ):  # no patient here: as the nearest better group
        below = present[present < place]
        of_base[place] = of_base[below[-1] if below.size else present[0]]
    of_class = np.maximum.accumulate(np.concatenate([[0.0], beta[present.size - 1 :]]))[:n_classes]
    return np.asarray(of_base[:, None] + of_class[None, :])


def _best_partition(
    time: np.ndarray,
    event: np.ndarray,
    base: np.ndarray,
    classes: np.ndarray,
    cells: np.ndarray,
    wanted: int,
    trials: list[Trial],
) -> np.ndarray | None:
    levels = np.unique(np.round(cells, 9))
    rank = np.searchsorted(levels, np.round(cells, 9))
    of_patient = rank[base, classes]
    scored: list[tuple[float, tuple[int, ...], int]] = []
    for groups in range(min(wanted, levels.size), 1, -1):
        for bounds in combinations(range(1, levels.size), groups - 1):
            own = np.searchsorted(np.asarray(bounds), of_patient, side="right")
            n, events = _smallest(own, event, groups)
            words = (
                f"{groups} groups of the {levels.size} ordered cells, cut before "
                f"{', '.join(str(b + 1) for b in bounds)}"
            )
            if not _large_enough(n, events, time.size):
                trials.append(Trial("groups", words, n, events, np.nan, np.nan, "a group is too small"))
                continue
            fitted = _aic(time, event, _dummies(own))
            scored.append((-fitted[0], bounds, len(trials)))
            trials.append(Trial("groups", words, n, events, *fitted, "tried"))
        if scored:
            break
    if not scored:
        return None
    _, best, place = min(scored)
    trials[place] = trials[place]._replace(verdict="chosen")
    return np.searchsorted(np.asarray(best), rank, side="right").astype(int)


def _dummies(labels: np.ndarray) -> np.ndarray:
    present = np.unique(labels)
    return np.asarray((labels[:, None] == present[None, 1:]).astype(float))


def _aic(time: np.ndarray, event: np.ndarray, matrix: np.ndarray) -> tuple[float, float]:
    """Log-likelihood and AIC; of the null model where there is no column."""
    if not matrix.shape[1]:
        value = fit_cox(time, event, np.arange(time.size, dtype=float)[:, None]).log_likelihood_null
        return value, -2 * value
    value = fit_cox(time, event, matrix).log_likelihood
    return value, 2 * matrix.shape[1] - 2 * value


def _smallest(labels: np.ndarray, event: np.ndarray, groups: int | None = None) -> tuple[int, int]:
    size = int(labels.max()) + 1 if groups is None else groups
    n = np.bincount(labels, minlength=size)
    events = np.bincount(labels, weights=event, minlength=size)
    if groups is None:
        events, n = events[n > 0], n[n > 0]
    return int(n.min()), int(events.min())


def _large_enough(n: int, events: int, total: int) -> bool:
    return n >= SMALLEST_SHARE * total and events >= FEWEST_EVENTS
