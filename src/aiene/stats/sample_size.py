"""Sample size: events per variable, probabilities of a node count, and the power of a study."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from aiene.errors import UsageError
from aiene.stats.records import Floats

MIN_EVENTS_PER_PARAMETER = 10
MIN_EVENTS_IN_GROUP = 5


class Information(NamedTuple):
    """Events, candidate parameters and whether what is derived from them is unstable, with the reasons."""

    events: int
    parameters: int
    epv: float
    unstable: bool
    reasons: tuple[str, ...]


def information(n_events: int, n_parameters: int, *, smallest_group_events: int | None = None) -> Information:
    """Judge the events per candidate parameter.

    Parameters
    ----------
    n_parameters : all that were tried, not only those kept.
    smallest_group_events : events in the smallest new group.

    Raises
    ------
    UsageError : a number is negative, or there is no parameter.

    References
    ----------
    Peduzzi et al. 1995, J Clin Epidemiol 48:1503.
    """
    if n_events < 0 or n_parameters < 1 or (smallest_group_events or 0) < 0:
        raise UsageError("events must not be negative, and there is at least one parameter.")
    epv = n_events / n_parameters
    reasons = []
    if epv < MIN_EVENTS_PER_PARAMETER:
        reasons.append(
            f"{n_events} events for {n_parameters} candidate parameters: {epv:.1f} each, fewer than "
            f"{MIN_EVENTS_PER_PARAMETER}"
        )
    if smallest_group_events is not None and smallest_group_events < MIN_EVENTS_IN_GROUP:
        reasons.append(
            f"{smallest_group_events} events in the smallest group, fewer than {MIN_EVENTS_IN_GROUP}"
        )
    return Information(n_events, n_parameters, epv, bool(reasons), tuple(reasons))


def count_distribution(probabilities: ArrayLike) -> Floats:
    """Chances (k + 1,) that 0, 1, ..., k of k nodes are positive, if they are independent (Poisson-binomial).

    Parameters
    ----------
    probabilities : (k,) of each node; none gives a count of 0 for certain.

    Raises
    ------
    UsageError : a probability is missing or outside 0 to 1.
    """
    chances = np.asarray(probabilities, dtype=np.float64).ravel()
    if not ((chances >= 0) & (chances <= 1)).all():
        raise UsageError("probabilities must lie from 0 to 1, none missing.")
    distribution = np.ones(1)
    for chance in chances:
        distribution = np.convolve(distribution, [1.0 - chance, chance])
    return distribution


def probability_at_least(probabilities: ArrayLike, cutoff: int) -> float:
    """Chance that at least `cutoff` nodes are positive.

    Raises
    ------
    UsageError : see `count_distribution`.
    """
    if cutoff <= 0:
        return 1.0
    return float(min(1.0, count_distribution(probabilities)[cutoff:].sum()))


# Power for a hazard ratio


@dataclass(frozen=True)
class Power:
    """What a study of this size can find.

    Parameters
    ----------
    n, events : patients and expected events.
    hazard_ratio : per unit of the covariate (per AI-ENE node).
    sd : standard deviation of the covariate that was used.
    r_squared : share of its variance that the other covariates explain.
    alpha : two-sided level.
    power : probability of finding it.
    events_80, events_90 : events that 80 and 90 % power need.
    patients_80, patients_90 : patients at the same event rate.
    """

    n: int
    events: float
    hazard_ratio: float
    sd: float
    r_squared: float
    alpha: float
    power: float
    events_80: int
    events_90: int
    patients_80: int
    patients_90: int


def power(
    n: int,
    *,
    hazard_ratio: float,
    event_rate: float,
    sd: float,
    r_squared: float = 0.0,
    alpha: float = 0.05,
) -> Power:
    """Power of the Wald test of one covariate in a Cox model.

    Schoenfeld, Biometrics 1983, and Hsieh and Lavori, Control Clin Trials 2000: D events give the test
    statistic a mean of |log HR| sd sqrt(D (1 - R2)). For a group of share p, sd is sqrt(p (1 - p)).

    Parameters
    ----------
    n : patients.
    hazard_ratio : above 0, not 1.
    event_rate : share of patients with an event.
    sd : standard deviation of the covariate.
    r_squared : with the other covariates.
    alpha : two-sided.

    Raises
    ------
    UsageError : a number out of its range.
    """
    for holds, sentence in (
        (n >= 1, "a study has at least one patient."),
        (hazard_ratio > 0 and hazard_ratio != 1, "the hazard ratio must be above 0 and not 1."),
        (0 < event_rate <= 1, "the event rate must be between 0 and 1."),
        (sd > 0, "the covariate must vary."),
        (0 <= r_squared < 1, "R squared must be between 0 and 1."),
        (0 < alpha < 1, "alpha must be between 0 and 1."),
    ):
        if not holds:
            raise UsageError(sentence)
    normal = NormalDist()
    critical = normal.inv_cdf(1 - alpha / 2)
    unit = (math.log(hazard_ratio) * sd) ** 2 * (1 - r_squared)
    events = n * event_rate
    shift = math.sqrt(unit * events)
    found = normal.cdf(shift - critical) + normal.cdf(-shift - critical)
    needed = [math.ceil((critical + normal.inv_cdf(goal)) ** 2 / unit) for goal in (0.8, 0.9)]
    patients = [math.ceil(count / event_rate) for count in needed]
    return Power(n, events, hazard_ratio, sd, r_squared, alpha, found, *needed, *patients)
