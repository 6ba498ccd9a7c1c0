"""Would it help to act on a predicted risk: net benefit over thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from aiene.errors import UsageError
from aiene.stats.bootstrap import OnProgress, resample_counts
from aiene.stats.records import Floats, check_followed, check_horizons, check_outcome, check_probabilities
from aiene.stats.survival_curves import Moments


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

    horizon: float
    thresholds: Floats
    treat_all: Floats
    curves: dict[str, NetBenefit]
    differences: dict[str, NetBenefit]
    n_boot: int
    n_failed: int
    seed: int


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
    replicates = {name: np.full((levels.size, n_boot), np.nan) for name in chances}
    chunks = resample_counts(times.size, n_boot, seed, on_progress) if n_boot else ()
    done = 0
    for counts in chunks:
        until = done + counts.shape[1]
        for name, value in chances.items():
            replicates[name][:, done:until] = _benefit(moments, value, levels, end, counts)
        done = until
    names = list(chances)
    return DecisionCurve(
        horizon=end,
        thresholds=levels,
        treat_all=_benefit(moments, everybody, levels, end, ones)[:, 0],
        curves={name: _with_limits(at_data[name], replicates[name], confidence) for name in names},
        differences={
            f"{later} - {earlier}": _with_limits(
                at_data[later] - at_data[earlier], replicates[later] - replicates[earlier], confidence
            )
            for earlier, later in pairwise(names)
        },
        n_boot=n_boot,
        n_failed=int((~np.isfinite(replicates[names[0]])).any(axis=0).sum()),
        seed=seed,
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
