"""Would predictions change what is done: net benefit over thresholds, reclassification, Groome's criteria."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from aiene.errors import UsageError
from aiene.stats.bootstrap import OnProgress, percentile, resample_counts
from aiene.stats.competing_risks import cumulative_incidence
from aiene.stats.cox_model import fit_cox
from aiene.stats.records import (
    Floats,
    Interval,
    Ints,
    NotEstimableError,
    check_events,
    check_followed,
    check_groups,
    check_horizons,
    check_outcome,
    check_probabilities,
    check_several,
)
from aiene.stats.survival_curves import Moments, kaplan_meier


@dataclass(frozen=True)
class NetBenefit:
    """Net benefit at each threshold (t,) with its percentile interval; NaN limits without a bootstrap."""

    net_benefit: Floats
    lower: Floats
    upper: Floats


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit of acting on each prediction.

    Parameters
    ----------
    treat_all : (t,) of acting on everybody; acting on nobody is 0.
    curves : by name of the prediction.
    differences : of each two neighbouring names, `later - earlier`, on the same resamples.
    n_failed : resamples in which nobody was followed up to the horizon.
    """

    thresholds: Floats
    treat_all: Floats
    curves: dict[str, NetBenefit]
    differences: dict[str, NetBenefit]
    n_failed: int


def decision_curve(
    time: ArrayLike,
    event: ArrayLike,
    predicted: Mapping[str, ArrayLike],
    horizon: float,
    thresholds: ArrayLike,
    *,
    n_boot: int = 500,
    seed: int = 1,
    confidence: float = 0.95,
    on_progress: OnProgress | None = None,
) -> DecisionCurve:
    """Net benefit: true positives less false ones, those weighted by the odds of the threshold, per patient.

    Parameters
    ----------
    event : (n,) 0 censored, 1 event, 2 competing event. Risk among those treated is observed by Kaplan-Meier,
        by Aalen-Johansen with competing events.
    predicted : (n,) risk of the event by the horizon, by name; act where it is not under the threshold.
    thresholds : rising, over 0 and under 1.
    n_boot : resamples for the intervals; none if 0.

    Raises
    ------
    UsageError : see `check_outcome`, `check_probabilities`; or thresholds that do not fit.
    NotEstimableError : nobody is followed up to the horizon.

    References
    ----------
    Vickers and Elkin 2006, Med Decis Making 26:565; Vickers et al. 2008, BMC Med Inform Decis Mak 8:53.
    """
    times, codes = check_outcome(time, event, competing=True)
    end = float(check_horizons(horizon)[0])
    levels = np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
    if levels.size == 0 or not ((levels > 0) & (levels < 1)).all() or (np.diff(levels) <= 0).any():
        raise UsageError("thresholds must rise, over 0 and under 1.")
    chances = {name: check_probabilities(value, times.size, name) for name, value in predicted.items()}
    if not chances:
        raise UsageError("no prediction is given.")
    check_followed(times, codes, end)
    moments = Moments(times, codes)
    ones = np.ones((times.size, 1))
    at_data = {name: _benefit(moments, value, levels, end, ones)[:, 0] for name, value in chances.items()}
    everybody = np.ones(times.size)
    drawn = {name: [np.empty((levels.size, 0))] for name in chances}
    for counts in resample_counts(times.size, n_boot, seed, on_progress) if n_boot else ():
        for name, value in chances.items():
            drawn[name].append(_benefit(moments, value, levels, end, counts))
    replicates = {name: np.concatenate(parts, axis=1) for name, parts in drawn.items()}
    names = list(chances)
    return DecisionCurve(
        thresholds=levels,
        treat_all=_benefit(moments, everybody, levels, end, ones)[:, 0],
        curves={name: _with_limits(at_data[name], replicates[name], confidence) for name in names},
        differences={
            f"{later} - {earlier}": _with_limits(
                at_data[later] - at_data[earlier], replicates[later] - replicates[earlier], confidence
            )
            for earlier, later in pairwise(names)
        },
        n_failed=int((~np.isfinite(replicates[names[0]])).any(axis=0).sum()),
    )


def _benefit(moments: Moments, chances: Floats, levels: Floats, end: float, counts: Floats) -> Floats:
    """Net benefit (t, b) in each resample with these counts (n, b)."""
    total = counts.sum(axis=0)
    out = np.empty((levels.size, counts.shape[1]))
    seen: dict[int, tuple[Floats, Floats]] = {}
    for place, level in enumerate(levels):
        treated = chances >= level
        number = int(treated.sum())  # thresholds with as many treated treat the same patients
        if number not in seen:
            chosen = counts * treated[:, None]
            seen[number] = chosen.sum(axis=0) / total, moments.incidence(chosen, end)
        share, risk = seen[number]
        out[place] = share * (risk - (1.0 - risk) * level / (1.0 - level))
    return out


def _with_limits(value: Floats, replicates: Floats, confidence: float) -> NetBenefit:
    if replicates.shape[1] < 2:
        nothing = np.full_like(value, np.nan)
        return NetBenefit(value, nothing, nothing)
    tail = (1.0 - confidence) / 2
    lower, upper = np.nanquantile(replicates, [tail, 1.0 - tail], axis=1)
    return NetBenefit(value, lower, upper)


_CAUTION = (
    "a net reclassification index can be positive for a useless marker: read the cross table and the "
    "difference of C first"
)


class Cell(NamedTuple):
    """Patients of one old and one new level.

    `risk` is that of the event by the horizon, observed in the cell, with its interval (NaN where nobody
    there was followed so far); `events` and `non_events` are n times risk and the rest.
    """

    old: str
    new: str
    n: int
    risk: float
    lower: float
    upper: float
    events: float
    non_events: float


@dataclass(frozen=True)
class Reclassification:
    """Cross table of an old and a new grouping, and the categorical net reclassification.

    Parameters
    ----------
    cells : all pairs of levels, old outer.
    n, up, down : patients, and those moved to a higher and to a lower level.
    event_part : of those with the event, the share moved up less the share moved down.
    non_event_part : of those without, the share moved down less the share moved up.
    nri : their sum; never to be shown without the two parts and the table.
    n_failed : resamples in which nobody had the event, or everybody.
    """

    cells: tuple[Cell, ...]
    n: int
    up: int
    down: int
    event_part: Interval
    non_event_part: Interval
    nri: Interval
    n_failed: int
    warnings: tuple[str, ...]


def reclassification(
    time: ArrayLike,
    event: ArrayLike,
    old: ArrayLike,
    new: ArrayLike,
    *,
    levels: Sequence[str],
    horizon: float,
    n_boot: int = 500,
    seed: int = 1,
    confidence: float = 0.95,
    on_progress: OnProgress | None = None,
) -> Reclassification:
    """Compare two groupings on one scale of levels.

    Parameters
    ----------
    event : (n,) 0 censored, 1 event, 2 competing event.
    old, new : (n,) labels out of `levels`.
    levels : lowest risk first.
    horizon : by which the event counts; censored patients enter by Kaplan-Meier (Aalen-Johansen) in those
        moved up, moved down and all.

    Raises
    ------
    UsageError : see `check_outcome`; or a label that is no level.
    NotEstimableError : nobody is followed up to the horizon, or nobody had the event by then.

    References
    ----------
    Pencina, D'Agostino and Steyerberg 2011, Stat Med 30:11; caution by Hilden and Gerds 2014, Stat Med
    33:3405.
    """
    times, codes = check_outcome(time, event, competing=True)
    end = float(check_horizons(horizon)[0])
    before, after = (_ranks(labels, times.size, levels) for labels in (old, new))
    check_followed(times, codes, end)
    moments = Moments(times, codes)
    at_data = _parts(moments, before, after, end, np.ones((times.size, 1)))[:, 0]
    if not np.isfinite(at_data).all():
        raise NotEstimableError(f"nobody or everybody had the event by {end:g}", "choose another horizon")
    replicates = np.full((2, 0), np.nan)
    if n_boot:
        chunks = resample_counts(times.size, n_boot, seed, on_progress)
        replicates = np.concatenate([_parts(moments, before, after, end, c) for c in chunks], axis=1)
    return Reclassification(
        cells=_cells(times, codes, before, after, tuple(map(str, levels)), end, confidence),
        n=times.size,
        up=int((after > before).sum()),
        down=int((after < before).sum()),
        event_part=percentile(at_data[0], replicates[0], confidence),
        non_event_part=percentile(at_data[1], replicates[1], confidence),
        nri=percentile(at_data.sum(), replicates.sum(axis=0), confidence),
        n_failed=int((~np.isfinite(replicates)).any(axis=0).sum()),
        warnings=(_CAUTION,),
    )


def _ranks(labels: ArrayLike, n: int, levels: Sequence[str]) -> Ints:
    place, present = check_groups(labels, n, levels)
    scale = list(map(str, levels))
    if len(set(scale)) != len(scale):
        raise UsageError("a level is named twice.")
    return np.array([scale.index(name) for name in present], dtype=np.int64)[place]


def _parts(moments: Moments, old: Ints, new: Ints, end: float, counts: Floats) -> Floats:
    """Event and non-event part (2, b)."""
    total = counts.sum(axis=0)
    risk = moments.incidence(counts, end)
    with np.errstate(divide="ignore", invalid="ignore"):
        events, rest = np.zeros_like(total), np.zeros_like(total)
        for sign, moved in ((1.0, new > old), (-1.0, new < old)):
            chosen = counts * moved[:, None]
            share, inside = chosen.sum(axis=0) / total, moments.incidence(chosen, end)
            events = events + sign * inside * share / risk
            rest = rest - sign * (1.0 - inside) * share / (1.0 - risk)
    return np.where((risk > 0) & (risk < 1), np.stack([events, rest]), np.nan)


def _cells(
    time: Floats, event: Ints, old: Ints, new: Ints, names: tuple[str, ...], end: float, confidence: float
) -> tuple[Cell, ...]:
    nan = float("nan")
    cells = []
    for first, before in enumerate(names):
        for second, after in enumerate(names):
            inside = (old == first) & (new == second)
            n = int(inside.sum())
            found = (nan, nan, nan, 0.0, 0.0)
            if n:
                seen = cumulative_incidence(time[inside], event[inside], confidence=confidence).at([end])[0]
                found = (seen.value, seen.lower, seen.upper, n * seen.value, n * (1 - seen.value))
                found = (nan,) * 5 if seen.beyond_followup else found
            cells.append(Cell(before, after, n, *found))
    return tuple(cells)


# Groome's criteria: consistency, discrimination, balance, explained variation


class Groome(NamedTuple):
    """Criteria of one grouping.

    Parameters
    ----------
    consistency : mean distance of the survival of subgroups from that of their group, weighted by patients; 0
        where no subgroups are given. Smaller is better.
    discrimination : distance of the groups' survivals from equal steps over the range seen, plus what that
        range lacks of 1. Smaller is better.
    balance : mean distance of the groups' shares from equal ones. Smaller is better.
    explained : 1 - exp(-LRT / n), Cox and Snell's share of variation. Larger is better.
    """

    consistency: float
    discrimination: float
    balance: float
    explained: float


def groome(
    time: ArrayLike,
    event: ArrayLike,
    group: ArrayLike,
    *,
    order: Sequence[Any],
    horizon: float,
    subgroups: ArrayLike | None = None,
) -> Groome:
    """Criteria in the spirit of Groome's, written out in `Groome`: only compare values of this function.

    Parameters
    ----------
    order : labels, lowest risk first.
    horizon : at which survival is compared.
    subgroups : (n,) finer labels within the groups, such as T and N together.

    Raises
    ------
    UsageError : see `check_outcome`, `check_groups`.
    NotEstimableError : one group, or no event.

    References
    ----------
    Groome et al. 2001, Head Neck 23:613.
    """
    times, codes = check_outcome(time, event)
    end = float(check_horizons(horizon)[0])
    place, names = check_groups(group, times.size, order)
    check_several(names, "comparing a staging")
    check_events(codes)
    survival = np.array(
        [kaplan_meier(times[place == k], codes[place == k]).at([end])[0].value for k in range(len(names))]
    )
    span = float(survival.max() - survival.min())
    ideal = np.linspace(survival.max(), survival.min(), len(names))
    shares = np.bincount(place) / times.size
    dummies = (place[:, None] == np.arange(1, len(names))[None, :]).astype(np.float64)
    fit = fit_cox(times, codes, dummies)
    statistic = 2.0 * (fit.log_likelihood - fit.log_likelihood_null)
    consistency = 0.0
    if subgroups is not None:
        finer, labels = check_groups(subgroups, times.size)
        for k in range(len(names)):
            for part in range(len(labels)):
                inside = (place == k) & (finer == part)
                if inside.any():
                    own = kaplan_meier(times[inside], codes[inside]).at([end])[0].value
                    consistency += float(inside.sum()) / times.size * abs(own - float(survival[k]))
    return Groome(
        consistency=consistency,
        discrimination=float(np.abs(survival - ideal).mean()) + 1.0 - span,
        balance=float(np.abs(shares - 1.0 / len(names)).mean()),
        explained=1.0 - float(np.exp(-statistic / times.size)),
    )
