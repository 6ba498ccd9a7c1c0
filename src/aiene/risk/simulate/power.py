"""Planning: how many events a hazard ratio needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from aiene.errors import UsageError


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
    sd : standard deviation of the covariate; of a skewed count, see `effective_sd`.
    r_squared : with the other covariates.
    alpha : two-sided.

    Raises
    ------
    UsageError : a number out of its range.
    """
    for holds, sentence in (
        (n >= 1, "a study has at least one patient."),
        (hazard_ratio > 0 and hazard_ratio != 1, "the hazard ratio must be above 0 and not 1."),
        (0 < event_rate <= 1, "the event rate lies between 0 and 1."),
        (sd > 0, "the covariate must vary."),
        (0 <= r_squared < 1, "R squared lies between 0 and 1."),
        (0 < alpha < 1, "alpha lies between 0 and 1."),
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


def effective_sd(values: np.ndarray, hazard_ratio: float) -> float:
    """The standard deviation that a skewed covariate has for `power`.

    Events happen to those at risk exp(b x), so the information of an event is the variance V(u) of the
    covariate weighted by exp(u x), which for a skewed count is more than its plain variance. A rare event
    adds twice the integral of u V(u) from 0 to b to the expected likelihood ratio; the spread returned here
    gives the same. For a hazard ratio near 1 it is the plain one.

    Parameters
    ----------
    values : (n,) the covariate of each patient.
    hazard_ratio : per unit, above 0.
    """
    beta = math.log(hazard_ratio)
    if beta == 0:
        return float(np.std(values))
    steps = (np.arange(64) + 0.5) / 64
    variances = np.array([_weighted_variance(values, step * beta) for step in steps])
    return float(np.sqrt(2 * np.mean(steps * variances)))


def _weighted_variance(values: np.ndarray, log_ratio: float) -> float:
    exponent = log_ratio * values
    weights = np.exp(exponent - exponent.max())
    mean = np.average(values, weights=weights)
    return float(np.average((values - mean) ** 2, weights=weights))
