"""The search: cut-offs of the count, and how the cells of old group and class fall into ordered groups.

Expected events come from the cohort's own cumulative hazard (the full-likelihood relative risk of LeBlanc and
Crowley 1992, Biometrics 48:411), so that the likelihood of a group needs only its observed and expected
events and every ordered partition can be searched. Every step that looks at outcomes is in `search`, so that
it can be repeated in each resample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from aiene.stats.records import NotEstimableError
from aiene.stats.survival_curves import nelson_aalen

SMALLEST_SHARE = 0.05
"""Least share of the patients in a class or group."""
FEWEST_EVENTS = 10
"""Fewest events in a class of the count."""
FEWEST_IN_GROUP = 5
"""Fewest events in a group."""
HIGHEST = 5
"""Highest cut-off that is tried."""
MOST_GROUPS = 5
_STEPS = 25
"""Alternating updates of old groups and classes; the additive model settles within ten or so."""


class Trial(NamedTuple):
    """One candidate of the search.

    Parameters
    ----------
    step : `cut-offs` or `groups`.
    candidate : in words.
    smallest_n, fewest_events : of its classes or groups.
    log_likelihood, aic : NaN where it was not fitted.
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
    old : place of each old group in the comparator, int (bases,): neighbours whose order these patients
        contradict are taken together, in the derived groups and in the comparator alike.
    trials : the whole search space.
    """

    cutoffs: tuple[int, ...]
    group: np.ndarray
    old: np.ndarray
    trials: tuple[Trial, ...]

    @property
    def n_groups(self) -> int:
        """How many new groups."""
        return int(self.group.max()) + 1

    @property
    def order_held(self) -> bool:
        """The patients that chose it do not contradict the order of the old groups."""
        return bool((np.diff(self.old) == 1).all())

    def assign(self, base: np.ndarray, count: np.ndarray) -> np.ndarray:
        """The new group of each patient; int (n,)."""
        return np.asarray(self.group[base, class_of(count, self.cutoffs)])


class _Cells(NamedTuple):
    """Patients, events and expected events; (levels of the old groups, counts or classes) each."""

    n: np.ndarray
    events: np.ndarray
    expected: np.ndarray

    def classes(self, cutoffs: Sequence[int]) -> _Cells:
        """The counts summed within classes."""
        return _Cells(*(np.add.reduceat(part, [0, *cutoffs], axis=1) for part in self))


def class_of(count: np.ndarray, cutoffs: Sequence[int]) -> np.ndarray:
    """The class of each count, 0 the lowest; int (n,)."""
    return np.searchsorted(np.asarray(cutoffs), count, side="right").astype(int)


def search(
    time: np.ndarray, event: np.ndarray, base: np.ndarray, count: np.ndarray, *, n_bases: int
) -> Derived:
    """Find cut-offs by AIC beside the old groups in their fixed order, then ordered groups of any number.

    The order of the old groups is fixed: rates of neighbours that contradict it are pooled. Step 1: no
    cut-off, and each set of one or two from 1 to `HIGHEST` whose classes are large enough; the additive model
    of old groups and classes, its rates rising with both, with the lowest AIC wins. Step 2: the cells of old
    group and class, ordered by that model, are cut into up to `MOST_GROUPS` ordered groups, each large
    enough; the highest likelihood wins. The old groups stay as they are where step 1 has no cut-off, or where
    they have a lower AIC than the groups of step 2.

    Parameters
    ----------
    time, event : (n,); event 0 or 1.
    base : (n,) places of the old groups, from 0, best first.
    count : (n,) AI-ENE nodes.
    n_bases : number of old groups.

    Raises
    ------
    NotEstimableError : no event.
    """
    if not event.any():
        raise NotEstimableError("no event happened", "choose another endpoint or more patients")
    whole = _counted(base, count, event, nelson_aalen(time, event), n_bases)
    old = _rising(whole.events.sum(axis=1), whole.expected.sum(axis=1))
    levels = _Cells(*(np.stack([part[old == k].sum(axis=0) for k in range(old.max() + 1)]) for part in whole))
    trials: list[Trial] = []
    cutoffs, score = _best_cutoffs(levels, trials)
    group = _best_partition(levels.classes(cutoffs), score, trials) if cutoffs else None
    if group is None:
        places = np.arange(n_bases)
        return Derived((), places[:, None], places, tuple(trials))
    return Derived(cutoffs, group[old], old, tuple(trials))


def _counted(
    base: np.ndarray, count: np.ndarray, event: np.ndarray, expected: np.ndarray, n_bases: int
) -> _Cells:
    place = base * (HIGHEST + 1) + np.minimum(count, HIGHEST)
    shape = (n_bases, HIGHEST + 1)
    sums = (np.bincount(place, weights=w, minlength=shape[0] * shape[1]) for w in (None, event, expected))
    return _Cells(*(np.asarray(s, dtype=float).reshape(shape) for s in sums))


def _rising(events: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Block of each place after neighbours whose rates fall are pooled; places without patients join one."""
    blocks: list[list[float]] = []
    for o, e in zip(events, expected, strict=True):
        blocks.append([o, e, 1])
        while len(blocks) > 1 and (
            blocks[-1][1] == 0
            or blocks[-2][1] == 0
            or blocks[-2][0] * blocks[-1][1] > blocks[-1][0] * blocks[-2][1]
        ):
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    return np.repeat(np.arange(len(blocks)), [int(b[2]) for b in blocks])


def _best_cutoffs(levels: _Cells, trials: list[Trial]) -> tuple[tuple[int, ...], np.ndarray]:
    """The cut-offs, and the log rate of each cell; (levels, classes)."""
    values, total = range(1, HIGHEST + 1), float(levels.n.sum())
    fitted: list[tuple[float, tuple[int, ...], int, np.ndarray]] = []
    for cutoffs in ((), *combinations(values, 1), *combinations(values, 2)):
        cells = levels.classes(cutoffs)
        words = " and ".join(f"≥ {c}" for c in cutoffs) or "none (old groups alone)"
        n, events = cells.n.sum(axis=0), cells.events.sum(axis=0)
        sizes = int(n.min()), int(events.min())
        if cutoffs and not _large_enough(n, events, total).all():
            trials.append(Trial("cut-offs", words, *sizes, np.nan, np.nan, "a class is too small"))
            continue
        score = _additive(cells)
        value = float((cells.events * score - cells.expected * np.exp(score)).sum())
        aic = 2.0 * (levels.n.shape[0] - 1 + len(cutoffs)) - 2.0 * value
        fitted.append((aic, cutoffs, len(trials), score))
        trials.append(Trial("cut-offs", words, *sizes, value, aic, "tried"))
    _, best, place, score = min(fitted, key=lambda f: (f[0], len(f[1]), f[1]))
    trials[place] = trials[place]._replace(verdict="chosen")
    return best, score


def _additive(cells: _Cells) -> np.ndarray:
    """Log rate of each cell, the sum of one part that rises with the old group and one with the class."""
    of_base, of_class = np.zeros(cells.n.shape[0]), np.zeros(cells.n.shape[1])
    for _ in range(_STEPS):
        before = of_base
        of_base = _margin(cells.events.sum(axis=1), cells.expected @ np.exp(of_class))
        of_class = _margin(cells.events.sum(axis=0), np.exp(of_base) @ cells.expected)
        if np.abs(of_base - before).max() < 1e-7:
            break
    return np.round(of_base[:, None] + of_class[None, :], 6)


def _margin(events: np.ndarray, expected: np.ndarray) -> np.ndarray:
    block = _rising(events, expected)
    o, e = np.bincount(block, weights=events), np.bincount(block, weights=expected)
    return np.asarray(np.log(np.maximum(o, 0.5) / e)[block])  # the half keeps a block without an event finite


def _best_partition(cells: _Cells, score: np.ndarray, trials: list[Trial]) -> np.ndarray | None:
    """Group of each cell, by dynamic programming over the bounds; None where the old groups are no worse."""
    rank = np.unique(score, return_inverse=True)[1].reshape(score.shape)
    size, total = int(rank.max()) + 1, float(cells.n.sum())
    sums = [np.bincount(rank.ravel(), weights=part.ravel(), minlength=size) for part in cells]
    runs = [np.concatenate([[0.0], np.cumsum(part)]) for part in sums]
    n, o, e = (run[None, :] - run[:, None] for run in runs)  # of the cells from the row up to the column
    with np.errstate(divide="ignore", invalid="ignore"):
        likelihood = np.where(_large_enough(n, o, total, FEWEST_IN_GROUP), o * np.log(o / e) - o, -np.inf)
    best, bounds = likelihood[0], [np.zeros(size + 1, dtype=int)]
    found: tuple[float, int, np.ndarray] | None = None
    alone, alone_place = _old_alone(cells), len(trials)
    trials.append(alone)
    for groups in range(2, min(MOST_GROUPS, size) + 1):
        joined = best[:, None] + likelihood
        bounds.append(joined.argmax(axis=0))
        best = joined.max(axis=0)
        words = f"{groups} groups of the {size} ordered cells"
        if not np.isfinite(best[size]):
            trials.append(Trial("groups", words, 0, 0, np.nan, np.nan, "a group is too small"))
            continue
        own = _walked_back(bounds, size)
        least_n, least_events = (int(np.bincount(own, weights=part).min()) for part in sums[:2])
        value = float(best[size])
        aic = 2.0 * (groups - 1) - 2.0 * value
        trials.append(Trial("groups", words, least_n, least_events, value, aic, "tried"))
        if found is None or value > found[0] + 1e-9:
            found = value, len(trials) - 1, own
    if found is None or trials[found[1]].aic > alone.aic:
        trials[alone_place] = alone._replace(verdict="chosen")
        return None
    trials[found[1]] = trials[found[1]]._replace(verdict="chosen")
    return np.asarray(found[2][rank])


def _old_alone(cells: _Cells) -> Trial:
    n, o, e = (part.sum(axis=1) for part in cells)
    value = float((o * np.log(np.where(o > 0, o, 1) / e) - o).sum())
    words = "the old groups as they are"
    return Trial(
        "groups", words, int(n.min()), int(o.min()), value, 2.0 * (n.size - 1) - 2.0 * value, "tried"
    )


def _walked_back(bounds: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Group of each ordered cell from the best last bound of each number of groups."""
    cuts, end = [], size
    for last in reversed(bounds[1:]):
        end = int(last[end])
        cuts.append(end)
    return np.searchsorted(np.asarray(cuts[::-1]), np.arange(size), side="right").astype(int)


def _large_enough(n: np.ndarray, events: np.ndarray, total: float, fewest: int = FEWEST_EVENTS) -> np.ndarray:
    return np.asarray((n >= SMALLEST_SHARE * total) & (events >= fewest))
