"""Is a cohort large enough to develop a prediction model: Riley's criteria for time-to-event outcomes."""

from __future__ import annotations

import math
from typing import NamedTuple

from aiene.errors import UsageError

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
