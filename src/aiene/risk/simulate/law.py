"""The power of a simulated study from the law of its patients: no draw, so no seed.

Every kind of patient (HPV, T4, N, smoking, age, count) has its share; sums over them give the share of
patients with an event and the spread of the count, from which Schoenfeld's formula gives the power.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from scipy import stats

from aiene.errors import UsageError
from aiene.risk.simulate.cohort import (
    AGE,
    DISPERSION,
    MEAN_ENE,
    MOST,
    N_SHARES,
    NEVER_SMOKED,
    PACK_YEARS,
    T_SHARES,
    CohortSettings,
    log_hazard,
)
from aiene.stats.records import Floats
from aiene.stats.sample_size import Power, power

_COLUMNS = ("n_ai_ene", "hpv_negative", "heavy_smoker", "t4", "n2c_n3", "age_decade")
_AGES = 5  # nodes of the Gauss-Hermite rule over age
_STEPS = 24  # nodes of the Gauss-Legendre rule over time, before and after the first end of follow-up


@dataclass(frozen=True)
class Expected:
    """What the law of a cohort says.

    Parameters
    ----------
    event_rate : share of patients with an event of the endpoint.
    baseline_rate : hazard per year of the reference patient that gives it.
    sd : standard deviation of the count among all patients.
    """

    event_rate: float
    baseline_rate: float
    sd: float


def planned_power(
    settings: CohortSettings,
    endpoint: str,
    n: int,
    *,
    event_rate: float | None = None,
    r_squared: float = 0.0,
    alpha: float = 0.05,
) -> Power | None:
    """Power of one linear term of the count by Schoenfeld's formula; None where nothing is planted.

    The formula takes the variance of the count among all patients. Where a skewed count raises the hazard,
    the events happen to patients whose counts vary more, so repeated cohorts find it rather more often.

    Parameters
    ----------
    n : patients.
    event_rate : see `expected`.
    r_squared : of the count with the other covariates of the model.

    Raises
    ------
    UsageError : see `expected`, `aiene.stats.sample_size.power`.
    """
    ratio, law = getattr(settings, endpoint).n_ai_ene, expected(settings, endpoint, event_rate)
    if ratio == 1 or law.sd == 0:
        return None
    return power(
        n, hazard_ratio=ratio, event_rate=law.event_rate, sd=law.sd, r_squared=r_squared, alpha=alpha
    )


def count_pmf(mean: float, most: int = MOST) -> Floats:
    """Chances (most + 1,) of each count, negative binomial of this mean; `most` stands for all above."""
    chance = DISPERSION / (DISPERSION + mean)
    chances = stats.nbinom.pmf(np.arange(most + 1), DISPERSION, chance)
    chances[-1] += stats.nbinom.sf(most, DISPERSION, chance)
    return np.asarray(chances)


def expected(settings: CohortSettings, endpoint: str, event_rate: float | None = None) -> Expected:
    """Event rate and spread of the count by the law of the cohort.

    Parameters
    ----------
    endpoint : `os`, `dm` or `lrf`.
    event_rate : share of patients with an event; sets the baseline hazard as `simulate_cohort` does.

    Raises
    ------
    UsageError : the rate cannot be reached.
    """
    people, share = _kinds(settings)
    chosen = settings
    if event_rate is not None:
        low, high = -15.0, 5.0
        chosen = settings.with_rate(endpoint, float(np.exp(high)))
        if _event_share(people, share, chosen, endpoint) < event_rate:
            raise UsageError(f"an event rate of {event_rate:g} cannot be reached within this follow-up.")
        for _ in range(40):
            middle = (low + high) / 2
            chosen = settings.with_rate(endpoint, float(np.exp(middle)))
            reached = _event_share(people, share, chosen, endpoint)
            low, high = (middle, high) if reached < event_rate else (low, middle)
    count = people["n_ai_ene"].to_numpy()
    return Expected(
        event_rate=_event_share(people, share, chosen, endpoint),
        baseline_rate=float(getattr(chosen, f"{endpoint}_rate")),
        sd=float(np.sqrt(share @ (count - share @ count) ** 2)),
    )


def _kinds(settings: CohortSettings) -> tuple[pd.DataFrame, Floats]:
    """Every kind of patient, with the columns that hazards are made of, and its share."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_AGES)
    ages = list(zip((AGE[0] + AGE[1] * nodes - 60) / 10, weights / weights.sum(), strict=True))
    heavy_if_ever = float(stats.gamma.sf(10.05, PACK_YEARS[0], scale=PACK_YEARS[1]))
    rows, shares = [], []
    for negative in (False, True):
        hpv = 1 - settings.hpv_positive if negative else settings.hpv_positive
        t4 = sum(T_SHARES[not negative][3:])
        heavy = (1 - NEVER_SMOKED[negative]) * heavy_if_ever
        n_shares = dict(zip(MEAN_ENE, N_SHARES[not negative], strict=True))
        for is_t4, is_heavy, (n, of_n), (age, of_age) in product((0, 1), (0, 1), n_shares.items(), ages):
            chance = hpv * of_n * of_age * (t4 if is_t4 else 1 - t4) * (heavy if is_heavy else 1 - heavy)
            for count, of_count in enumerate(count_pmf(MEAN_ENE[n])):
                rows.append((count, float(negative), is_heavy, is_t4, float(n in ("N2c", "N3")), age))
                shares.append(chance * of_count)
    return pd.DataFrame(rows, columns=list(_COLUMNS)).astype(float), np.array(shares)


def _event_share(people: pd.DataFrame, share: Floats, settings: CohortSettings, endpoint: str) -> float:
    """Share of patients with the event: an integral over time, which is stretched to t^shape.

    In that time every hazard is constant; death ends the follow-up of a failure.
    """
    risk = {
        name: getattr(settings, f"{name}_rate") * np.exp(log_hazard(people, getattr(settings, name)))
        for name in dict.fromkeys((endpoint, "os"))
    }
    total = np.sum(list(risk.values()), axis=0)
    first, last = (end**settings.shape for end in settings.follow_up)
    nodes, weights = np.polynomial.legendre.leggauss(_STEPS)
    events = 0.0
    for low, high in ((0.0, first), (first, last)):
        half = (high - low) / 2
        for u, width in zip((high + low) / 2 + half * nodes, half * weights, strict=True):
            followed = _followed(u ** (1 / settings.shape), settings)
            events += width * followed * float(share @ (risk[endpoint] * np.exp(-total * u)))
    return float(events)


def _followed(years: float, settings: CohortSettings) -> float:
    """Chance that the study still follows a patient then."""
    low, high = settings.follow_up
    ended = 0.0 if years <= low else (years - low) / (high - low)
    return float((1 - ended) * np.exp(-settings.lost_per_year * years))
