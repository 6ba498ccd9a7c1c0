"""A simulated cohort with known hazards, the power of a study on it by its law, and example tables.

The power needs no draw, so no seed. Every kind of patient (HPV, T4, N, smoking, age, count) has its share;
sums over them give the share of patients with an event and the spread of the count, from which Schoenfeld's
formula gives the power.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from aiene.errors import UsageError
from aiene.results.ownership import Owned
from aiene.risk.table.files import table_bytes
from aiene.risk.table.read import complete
from aiene.stats.records import Floats
from aiene.stats.sample_size import Power, power

_T = ("T1", "T2", "T3", "T4a", "T4b")
T_SHARES = {True: (0.20, 0.38, 0.25, 0.13, 0.04), False: (0.12, 0.30, 0.30, 0.20, 0.08)}
_N = ("N0", "N1", "N2a", "N2b", "N2c", "N3")
N_SHARES = {True: (0.10, 0.09, 0.07, 0.43, 0.25, 0.06), False: (0.28, 0.13, 0.03, 0.25, 0.24, 0.07)}
MEAN_ENE = {"N0": 0.0, "N1": 0.25, "N2a": 0.45, "N2b": 0.9, "N2c": 1.3, "N3": 1.5}
"""Mean AI-ENE nodes by N; shares and means are round numbers of our own choice."""

DISPERSION = 1.5
MOST = 12
AGE = (60.0, 9.5)
"""Mean and standard deviation."""

NEVER_SMOKED = (0.4, 0.1)
"""Share of never smokers in HPV-positive and HPV-negative disease."""

PACK_YEARS = (1.6, 16.0)
"""Shape and scale of the gamma law of those who smoked."""

ENDPOINTS = ("os", "dm", "lrf")


# Parameters of the simulation


@dataclass(frozen=True)
class Effects:
    """Hazard ratios of one endpoint, each with the others held.

    Parameters
    ----------
    hpv_negative : against positive.
    heavy_smoker : more than 10 pack-years against at most 10.
    t4 : T4 against T1-T3.
    n2c_n3 : N2c or N3 of edition 7 against N0-N2b.
    age_decade : per ten years.
    n_ai_ene : per AI-ENE node, linear in the log hazard.
    n_ai_ene_if_hpv_negative : further factor per node where HPV is negative; 1 is no interaction.

    Raises
    ------
    UsageError : a hazard ratio that is not above 0.
    """

    hpv_negative: float = 2.5
    heavy_smoker: float = 1.5
    t4: float = 1.5
    n2c_n3: float = 1.4
    age_decade: float = 1.25
    n_ai_ene: float = 1.2
    n_ai_ene_if_hpv_negative: float = 1.0

    def __post_init__(self) -> None:
        wrong = [name for name, ratio in asdict(self).items() if not (ratio > 0 and math.isfinite(ratio))]
        if wrong:
            raise UsageError(f"the hazard ratio {wrong[0]} must be above 0.")

    @property
    def log(self) -> dict[str, float]:
        """Log hazard ratios by name: what a Cox model of the same covariates should find."""
        return {name: math.log(ratio) for name, ratio in asdict(self).items()}


@dataclass(frozen=True)
class CohortSettings:
    """How a cohort is made.

    Parameters
    ----------
    os, dm, lrf : effects on death, on distant metastasis, on locoregional failure (cause-specific hazards).
    os_rate, dm_rate, lrf_rate : baseline hazard per year of the reference patient (HPV-positive, at most 10
        pack-years, T1-T3, N0-N2b, 60 years, no AI-ENE node).
    shape : of the Weibull time; 1 is a constant hazard, below 1 one that falls. Hazards stay proportional.
    hpv_positive : share.
    hpv_missing : share whose HPV status is not known.
    follow_up : least and most years from treatment to the end of the study, uniform.
    lost_per_year : hazard of being lost to follow-up.

    Raises
    ------
    UsageError : a rate or share out of its range.
    """

    os: Effects = field(default_factory=lambda: Effects(n_ai_ene=1.2))
    dm: Effects = field(
        default_factory=lambda: Effects(
            hpv_negative=1.6, heavy_smoker=1.3, t4=1.6, n2c_n3=1.8, age_decade=1.0, n_ai_ene=1.4
        )
    )
    lrf: Effects = field(
        default_factory=lambda: Effects(hpv_negative=2.5, t4=1.8, n2c_n3=1.3, age_decade=1.1, n_ai_ene=1.15)
    )
    os_rate: float = 0.02
    dm_rate: float = 0.011
    lrf_rate: float = 0.011
    shape: float = 1.0
    hpv_positive: float = 0.7
    hpv_missing: float = 0.0
    follow_up: tuple[float, float] = (2.0, 9.0)
    lost_per_year: float = 0.02

    def __post_init__(self) -> None:
        low, high = self.follow_up
        for holds, sentence in (
            (min(self.os_rate, self.dm_rate, self.lrf_rate) > 0, "hazards per year must be above 0."),
            (self.shape > 0, "the shape of the Weibull time must be above 0."),
            (0 <= self.hpv_positive <= 1 and 0 <= self.hpv_missing < 1, "shares must be between 0 and 1."),
            (0 < low <= high, "follow-up must be above 0 and rise."),
            (self.lost_per_year >= 0, "the hazard of being lost must not be negative."),
        ):
            if not holds:
                raise UsageError(sentence)

    def with_rate(self, endpoint: str, rate: float) -> CohortSettings:
        """The same with another baseline hazard per year of `os`, `dm` or `lrf`."""
        return self.changed({f"{endpoint}_rate": rate})

    def changed(self, values: Mapping[str, Any]) -> CohortSettings:
        """The same with other values of some fields."""
        return replace(self, **values)


def simulate_cohort(
    n: int,
    *,
    seed: int = 0,
    settings: CohortSettings | None = None,
    event_rate: float | None = None,
    endpoint: str = "dm",
) -> pd.DataFrame:
    """A canonical table of patients that do not exist.

    Given the covariates, the times to death, metastasis and locoregional failure are independent Weibull
    times with proportional hazards; so Cox regression of death, and of each failure with death censoring, is
    exactly the right model: its true log hazard ratios are `settings.os.log`, `settings.dm.log` and
    `settings.lrf.log`.

    Parameters
    ----------
    n : patients.
    seed : of the random numbers; the same seed gives the same table.
    settings : what is planted.
    event_rate : share of patients with an event of `endpoint`; sets its baseline hazard.
    endpoint : `os`, `dm` or `lrf`.

    Raises
    ------
    UsageError : no patients, an unknown endpoint, or a rate that cannot be reached.
    """
    if n < 1:
        raise UsageError("a cohort has at least one patient.")
    chosen = settings or CohortSettings()
    random = np.random.default_rng(seed)
    people = _people(n, chosen, random)
    draws = {name: random.exponential(size=n) for name in ENDPOINTS}
    end = np.minimum(
        random.uniform(*chosen.follow_up, size=n),
        random.exponential(1 / chosen.lost_per_year, size=n) if chosen.lost_per_year else np.inf,
    )
    if event_rate is not None:
        chosen = _with_event_rate(chosen, endpoint, event_rate, people, draws, end)
    table = _followed(people, chosen, draws, end)
    missing = random.random(n) < chosen.hpv_missing
    table["hpv"] = pd.Series(np.where(people["hpv_negative"], "negative", "positive")).mask(missing)
    out = complete(table, name="simulated cohort")
    out.attrs.update(source="simulated", source_name="simulated cohort")
    out.attrs["notes"] = [f"simulated cohort of {n} patients, seed {seed}: these patients do not exist"]
    return out


def log_hazard(people: pd.DataFrame, effects: Effects) -> np.ndarray:
    """Log hazard ratio of each patient against the reference patient."""
    log = effects.log
    interaction = people["n_ai_ene"] * people["hpv_negative"] * log["n_ai_ene_if_hpv_negative"]
    columns = ("hpv_negative", "heavy_smoker", "t4", "n2c_n3", "age_decade", "n_ai_ene")
    return np.asarray(sum(people[name] * log[name] for name in columns) + interaction, dtype=float)


def _people(n: int, settings: CohortSettings, random: np.random.Generator) -> pd.DataFrame:
    """Covariates, as the columns of the canonical table and as the numbers that hazards are made of."""
    negative = random.random(n) >= settings.hpv_positive
    t, nodes = np.empty(n, dtype=object), np.empty(n, dtype=object)
    for positive in (True, False):
        here = negative != positive
        t[here] = random.choice(_T, size=here.sum(), p=T_SHARES[positive])
        nodes[here] = random.choice(_N, size=here.sum(), p=N_SHARES[positive])
    never = random.random(n) < np.where(negative, NEVER_SMOKED[1], NEVER_SMOKED[0])
    pack_years = np.where(never, 0.0, np.minimum(np.round(random.gamma(*PACK_YEARS, size=n), 1), 150))
    age = np.clip(random.normal(*AGE, size=n), 25, 95).round(1)
    mean = np.array([MEAN_ENE[word] for word in nodes])
    ene = np.minimum(random.poisson(mean * random.gamma(DISPERSION, 1 / DISPERSION, size=n)), MOST)
    return pd.DataFrame(
        {
            "t7": t,
            "n7": nodes,
            "pack_years": pack_years,
            "smoking_status": np.where(never, "never", np.where(random.random(n) < 0.4, "current", "former")),
            "age": age,
            "sex": np.where(random.random(n) < 0.8, "male", "female"),
            "treatment": np.where(random.random(n) < 0.6, "crt", "rt"),
            "center": random.choice(["A", "B", "C"], size=n, p=[0.5, 0.3, 0.2]),
            "n_ai_ene": ene,
            "n_ai_nodes": ene + np.where(nodes == "N0", 0, 1) + random.poisson(0.8, size=n) * (nodes != "N0"),
            "hpv_negative": negative.astype(float),
            "heavy_smoker": (pack_years > 10).astype(float),
            "t4": np.isin(t, ("T4a", "T4b")).astype(float),
            "n2c_n3": np.isin(nodes, ("N2c", "N3")).astype(float),
            "age_decade": (age - 60) / 10,
        }
    )


def _time(
    people: pd.DataFrame, settings: CohortSettings, name: str, draws: dict[str, np.ndarray]
) -> np.ndarray:
    """Latent years to one kind of event."""
    hazard = getattr(settings, f"{name}_rate") * np.exp(log_hazard(people, getattr(settings, name)))
    return np.asarray((draws[name] / hazard) ** (1 / settings.shape))


def _followed(
    people: pd.DataFrame, settings: CohortSettings, draws: dict[str, np.ndarray], end: np.ndarray
) -> pd.DataFrame:
    """What a study sees of the latent times."""
    death = _time(people, settings, "os", draws)
    out = people.drop(columns=["hpv_negative", "heavy_smoker", "t4", "n2c_n3", "age_decade"])
    last = np.minimum(death, end)
    out["os_time"], out["os_event"] = last, (death <= end).astype(int)
    for name in ("dm", "lrf"):
        failure = _time(people, settings, name, draws)
        out[f"{name}_time"] = np.minimum(failure, last)
        out[f"{name}_event"] = (failure <= last).astype(int)
    width = len(str(len(out)))
    out.insert(0, "patient_id", [f"SIM-{number:0{width}d}" for number in range(1, len(out) + 1)])
    return out.assign(
        site="oropharynx", m="M0", edition_t="7", edition_n="7", time_origin="rt_start",
        ai_model="simulated", ai_ene_source="simulated",
    )  # fmt: skip


def _with_event_rate(
    settings: CohortSettings,
    endpoint: str,
    wanted: float,
    people: pd.DataFrame,
    draws: dict[str, np.ndarray],
    end: np.ndarray,
) -> CohortSettings:
    """The settings whose baseline hazard gives the wanted share of events, by bisection on fixed draws."""
    if endpoint not in ENDPOINTS:
        raise UsageError(f"{endpoint}: events can be planned for {', '.join(ENDPOINTS)}.")
    if not 0 < wanted < 1:
        raise UsageError("the event rate must be between 0 and 1.")

    def share(rate: float) -> float:
        tried = settings.with_rate(endpoint, rate)
        return float(_followed(people, tried, draws, end)[f"{endpoint}_event"].mean())

    return settings.with_rate(endpoint, _rates(share, wanted)[1])


def _rates(share: Callable[[float], float], wanted: float) -> tuple[float, float]:
    """The last baseline hazard that a bisection tried, and the least that gives the wanted share."""
    low, high = -15.0, 5.0
    if share(float(np.exp(high))) < wanted:
        raise UsageError(f"an event rate of {wanted:g} cannot be reached within this follow-up.")
    middle = high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if share(float(np.exp(middle))) < wanted else (low, middle)
    return float(np.exp(middle)), float(np.exp(high))


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

        def reached(rate: float) -> float:
            return _event_share(people, share, settings.with_rate(endpoint, rate), endpoint)

        chosen = settings.with_rate(endpoint, _rates(reached, event_rate)[0])
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
            followed = _share_followed(u ** (1 / settings.shape), settings)
            events += width * followed * float(share @ (risk[endpoint] * np.exp(-total * u)))
    return float(events)


def _share_followed(years: float, settings: CohortSettings) -> float:
    """Chance that the study still follows a patient then."""
    low, high = settings.follow_up
    ended = 0.0 if years <= low else (years - low) / (high - low)
    return float((1 - ended) * np.exp(-settings.lost_per_year * years))


COHORTS = {"cohort.csv": (300, 0), "other_hospital.csv": (250, 1)}
"""Simulated cohorts: how many patients, and the random seed."""

_OWN_PATIENTS = 40
_FILES = ("mapping.toml", "demo_patients.csv", "README.txt")


def write_example(out: Path) -> tuple[str, ...]:
    """Write the tables of the example; what is there of an earlier example is replaced.

    Returns
    -------
    The names of the files.

    Raises
    ------
    UsageError : something that is not ours lies in the way.
    OutputError : nothing can be written there.
    """
    cohorts = {name: simulate_cohort(n, seed=seed) for name, (n, seed) in COHORTS.items()}
    files = {name: table_bytes(table, Path(name)) for name, table in cohorts.items()}
    files["own_table.csv"] = table_bytes(own_table(cohorts["cohort.csv"].head(_OWN_PATIENTS)), Path("t.csv"))
    own = resources.files("aiene.risk") / "example_files"
    files |= {name: (own / name).read_bytes() for name in _FILES}
    owned = Owned(out)
    owned.check(*files)
    for name, content in files.items():
        owned.write(out / name, content)
    return tuple(files)


def own_table(table: pd.DataFrame) -> pd.DataFrame:
    """Some patients of a canonical table in a form of its own: other headers, codes, and months."""
    return pd.DataFrame(
        {
            "Patient": table["patient_id"].str.replace("SIM", "H"),
            "p16": table["hpv"].map({"positive": "p16 pos", "negative": "p16 neg"}).fillna("not tested"),
            "cT": table["t7"],
            "cN": table["n7"].where(table["n7"].str.len() < 3, "N1"),
            "cM": table["m"],
            "PY": table["pack_years"].round().astype("Int64"),
            "Age": np.floor(table["age"]).astype("Int64"),
            "Sex": table["sex"].str[0].str.upper(),
            "FU (months)": (12 * table["os_time"]).round(1),
            "Status": table["os_event"] + 1,
        }
    )
