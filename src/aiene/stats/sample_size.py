"""Sample size: events per variable, the power of a study, Riley's criteria.

Riley's criteria say whether a cohort is large enough to develop a prediction model of time to an event.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

from aiene.errors import UsageError

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


SHRINKAGE = 0.9
"""Least expected calibration slope on other patients."""
OPTIMISM = 0.05
"""Most that the apparent share of explained variation may be too large."""
MARGIN = 0.05
"""Half width of the interval of the overall risk that is wanted at the horizon."""


class Required(NamedTuple):
    """Patients that each criterion needs, and what those at hand give.

    Parameters
    ----------
    r2 : Cox and Snell's, corrected for optimism.
    r2_max : the greatest that it can be at this event rate.
    for_shrinkage, for_optimism, for_risk : patients for a slope of 0.9, an optimism of 0.05 in Nagelkerke's
        R2, and the overall risk known within 0.05.
    patients : the largest of the three.
    shrinkage : expected calibration slope with the patients at hand.
    """

    r2: float
    r2_max: float
    for_shrinkage: int
    for_optimism: int
    for_risk: int
    patients: int
    shrinkage: float


def required_sample(
    n: int, events: int, person_years: float, parameters: int, likelihood_ratio: float, horizon: float
) -> Required:
    """Riley's criteria from a model that was fitted.

    Parameters
    ----------
    n, events : of the model.
    person_years : total follow-up.
    parameters : all candidate parameters.
    likelihood_ratio : statistic of the whole model.
    horizon : years of the predicted risk.

    Raises
    ------
    UsageError : no patient, event or parameter, or no follow-up.

    References
    ----------
    Riley et al. 2019, Stat Med 38:1276; van Houwelingen and le Cessie 1990, Stat Med 9:1303.
    """
    if min(n, events, parameters) < 1 or not person_years > 0 or not horizon > 0:
        raise UsageError("a sample size needs patients, events, parameters and follow-up.")
    rate, mean_years = events / person_years, person_years / n
    null = events * math.log(rate) - events
    r2_max = 1.0 - math.exp(2.0 * null / n) if null < 0 else 1.0
    shrinkage = max(0.0, 1.0 - parameters / likelihood_ratio) if likelihood_ratio > 0 else 0.0
    r2 = shrinkage * (1.0 - math.exp(-likelihood_ratio / n))
    for_shrinkage, for_optimism = (
        patients_for(parameters, r2, goal) for goal in (SHRINKAGE, r2 / (r2 + OPTIMISM * r2_max))
    )
    # The interval of a rate from rate * mean_years * m events, turned into one of 1 - exp(-rate * horizon)
    survival = math.exp(-rate * horizon)
    for_risk = math.ceil((1.96 * survival * horizon / MARGIN) ** 2 * rate / mean_years)
    largest = max(for_shrinkage, for_optimism, for_risk)
    return Required(r2, r2_max, for_shrinkage, for_optimism, for_risk, largest, shrinkage)


_UNREACHABLE = 10**9
"""Where the model explains nothing, no number of patients is enough."""


def patients_for(parameters: int, r2: float, shrinkage: float) -> int:
    """Patients whose expected calibration slope elsewhere is `shrinkage`, for Cox and Snell's `r2`."""
    if r2 <= 0 or r2 >= shrinkage:
        return _UNREACHABLE
    return math.ceil(parameters / ((shrinkage - 1.0) * math.log(1.0 - r2 / shrinkage)))
