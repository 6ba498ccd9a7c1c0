"""What a simulated study is expected to find, from the law of its patients: no draw, so no seed.

Every kind of patient (HPV, T4, N, smoking, age, count) has its share; sums over them give the share of
patients with an event and the expected information of Cox's partial likelihood at the planted hazard ratios.
The power is that of Wald's test of the count in the model that the cohort is made by.
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

COVARIATES = ("n_ai_ene", "hpv_negative", "heavy_smoker", "t4", "n2c_n3", "age_decade")
_AGES = 5  # nodes of the Gauss-Hermite rule over age
_STEPS = 24  # nodes of the Gauss-Legendre rule over time, before and after the first end of follow-up


@dataclass(frozen=True)
class Expected:
    """What one patient is expected to contribute.

    Parameters
    ----------
    event_rate : share of patients with an event of the endpoint.
    baseline_rate : hazard per year of the reference patient that gives it.
    sd : standard deviation of the count.
    spread : of the count in the risk sets, where the hazard that it raises counts its bearers more often: the
        root of the information of one event about its coefficient.
    r_squared : share of that information that the other covariates take.
    """

    event_rate: float
    baseline_rate: float
    sd: float
    spread: float
    r_squared: float


@dataclass(frozen=True)
class PlannedPower:
    """The power of a simulated study, by its law.

    Parameters
    ----------
    power : by the expected information at the planted hazard ratio; its `sd` is the spread of the count in
        the risk sets. This is the one that repeated cohorts show.
    schoenfeld : of the count alone by Schoenfeld's formula, whose `sd` is that among all patients; where a
        skewed count raises the hazard, it asks for more events than are needed.
    baseline_rate : hazard per year of the reference patient.
    """

    power: Power
    schoenfeld: Power
    baseline_rate: float


def planned_power(
    settings: CohortSettings,
    endpoint: str,
    n: int,
    *,
    event_rate: float | None = None,
    r_squared: float | None = None,
    alpha: float = 0.05,
) -> PlannedPower | None:
    """Power of Wald's test of the count, adjusted for the planted covariates; None where nothing is planted.

    Parameters
    ----------
    n : patients; those whose HPV status will be missing are of no use.
    event_rate : see `expected`.
    r_squared : share of the count's information that covariates take; None takes that of the law.

    Raises
    ------
    UsageError : see `expected`, `aiene.stats.sample_size.power`.
    """
    ratio = getattr(settings, endpoint).n_ai_ene
    law = expected(settings, endpoint, event_rate)
    if ratio == 1 or law.sd == 0:
        return None
    usable = max(round(n * (1 - settings.hpv_missing)), 1)
    by_law, plain = (
        power(usable, hazard_ratio=ratio, event_rate=law.event_rate, sd=sd, alpha=alpha,
              r_squared=own if r_squared is None else r_squared)
        for sd, own in ((law.spread, law.r_squared), (law.sd, 0.0))
    )  # fmt: skip
    return PlannedPower(by_law, plain, law.baseline_rate)


def count_pmf(mean: Floats, most: int = MOST) -> Floats:
    """Chances (k, most + 1) of each count, negative binomial of these means; `most` stands for all above."""
    means = np.asarray(mean, dtype=np.float64)[:, None]
    values = np.arange(most + 1)
    chances = stats.nbinom.pmf(values, DISPERSION, DISPERSION / (DISPERSION + means))
    chances[:, -1] += stats.nbinom.sf(most, DISPERSION, DISPERSION / (DISPERSION + means))[:, 0]
    return np.asarray(chances)


def expected(settings: CohortSettings, endpoint: str, event_rate: float | None = None) -> Expected:
    """Event rate and information by the law of the cohort.

    Parameters
    ----------
    endpoint : `os`, `dm` or `lrf`.
    event_rate : share of patients with an event; sets the baseline hazard as `simulate_cohort` does.

    Raises
    ------
    UsageError : the rate cannot be reached.
    """
    people, share = kinds(settings)
    chosen = (
        settings if event_rate is None else _with_event_rate(settings, endpoint, event_rate, people, share)
    )
    rate, information = _events(people, share, chosen, endpoint)
    count = people["n_ai_ene"].to_numpy()
    return Expected(
        event_rate=rate,
        baseline_rate=float(getattr(chosen, f"{endpoint}_rate")),
        sd=float(np.sqrt(share @ (count - share @ count) ** 2)),
        spread=float(np.sqrt(information[0, 0] / rate)),
        r_squared=_explained(information),
    )


def _explained(products: Floats) -> float:
    """Share of the first variable's own product that the others explain; constant ones say nothing."""
    varies = np.diag(products) > 1e-12
    if not varies[0]:
        return 0.0
    return float(1 - 1 / (np.linalg.inv(products[np.ix_(varies, varies)])[0, 0] * products[0, 0]))


def kinds(settings: CohortSettings) -> tuple[pd.DataFrame, Floats]:
    """Every kind of patient, with the columns of `COVARIATES`, and its share."""
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
            for count, of_count in enumerate(count_pmf(np.array([MEAN_ENE[n]]))[0]):
                rows.append((count, float(negative), is_heavy, is_t4, float(n in ("N2c", "N3")), age))
                shares.append(chance * of_count)
    return pd.DataFrame(rows, columns=list(COVARIATES)).astype(float), np.array(shares)


def _with_event_rate(
    settings: CohortSettings, endpoint: str, wanted: float, people: pd.DataFrame, share: Floats
) -> CohortSettings:
    low, high = -15.0, 5.0
    tried = settings.with_rate(endpoint, float(np.exp(high)))
    if _events(people, share, tried, endpoint, derivatives=False)[0] < wanted:
        raise UsageError(f"an event rate of {wanted:g} cannot be reached within this follow-up.")
    for _ in range(40):
        middle = (low + high) / 2
        tried = settings.with_rate(endpoint, float(np.exp(middle)))
        reached = _events(people, share, tried, endpoint, derivatives=False)[0]
        low, high = (middle, high) if reached < wanted else (low, middle)
    return tried


def _events(
    people: pd.DataFrame, share: Floats, settings: CohortSettings, endpoint: str, *, derivatives: bool = True
) -> tuple[float, Floats]:
    """Share of patients with the event, and the information of one patient (p, p), by integrals over time.

    Time is stretched to t^shape, in which every hazard is constant.
    """
    risk = {
        name: getattr(settings, f"{name}_rate") * np.exp(log_hazard(people, getattr(settings, name)))
        for name in dict.fromkeys((endpoint, "os"))
    }
    total = sum(risk.values())
    first, last = (end**settings.shape for end in settings.follow_up)
    nodes, weights = np.polynomial.legendre.leggauss(_STEPS)
    columns = people[list(COVARIATES)].to_numpy()
    events, information = 0.0, np.zeros((columns.shape[1],) * 2)
    for low, high in ((0.0, first), (first, last)):
        for u, width in zip(
            (high + low) / 2 + (high - low) / 2 * nodes, (high - low) / 2 * weights, strict=True
        ):
            years = u ** (1 / settings.shape)
            hazard = share * risk[endpoint] * np.exp(-total * u) * _followed(years, settings)
            of_all, sums = hazard.sum(), hazard @ columns
            events += width * of_all
            if derivatives and of_all > 0:
                squares = (columns * hazard[:, None]).T @ columns
                information += width * (squares - np.outer(sums, sums) / of_all)
    return float(events), information


def _followed(years: float, settings: CohortSettings) -> float:
    """Chance that the study still follows a patient then."""
    low, high = settings.follow_up
    ended = 0.0 if years <= low else (years - low) / (high - low)
    return (1 - ended) * float(np.exp(-settings.lost_per_year * years))
