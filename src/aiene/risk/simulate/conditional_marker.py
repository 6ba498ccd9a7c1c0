"""An AI-ENE count planted onto real patients, so that it goes with their real outcome by a stated hazard."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import nbinom

from aiene.errors import UsageError
from aiene.risk.simulate.cohort import DISPERSION, MEAN_ENE, count_pmf
from aiene.risk.table.endpoints import Endpoint
from aiene.risk.table.endpoints import endpoint as outcome_of
from aiene.stats.survival_curves import nelson_aalen

_MEAN_ENE = MEAN_ENE | {"N2": 0.9}
_MOST = 8
_FEW = 10


def simulate_onto(
    table: pd.DataFrame, *, endpoint: str = "dm", hazard_ratio: float = 1.5, seed: int = 0
) -> pd.DataFrame:
    """The table with a simulated `n_ai_ene`, `ai_ene_source` = `simulated`.

    Within each stratum of HPV and N, the count X has a prior (negative binomial by N) and multiplies the
    hazard of the endpoint by `hazard_ratio` per node. The baseline is chosen so that the stratum keeps
    its own survival curve, and X is drawn from its posterior given the patient's real time and event: so
    time, event and X are distributed as if X had been there from the start. Times and events are not touched.

    Parameters
    ----------
    table : canonical, with the endpoint.
    endpoint : whose hazard the count goes with: os, dm (dc), lrf (lrc) or dfs.
    hazard_ratio : per node, above 0.
    seed : of the random numbers.

    Raises
    ------
    UsageError : no such endpoint in the table, or a hazard ratio that is not above 0.
    """
    if not hazard_ratio > 0:
        raise UsageError("the hazard ratio must be above 0.")
    outcome = outcome_of(table, endpoint)
    if not outcome.event.any():
        raise UsageError(f"the table has no event of {outcome.name} that a count could go with.")
    random = np.random.default_rng(seed)
    uniform = random.random(len(table))
    counts = np.zeros(len(table), dtype=int)
    for rows, mean in _strata(table, outcome):
        counts[rows] = _draw(outcome, rows, mean, hazard_ratio, uniform[rows])
    out = table.copy()
    out["n_ai_ene"] = pd.array(counts, dtype="Int64")
    out["n_ai_nodes"] = pd.array([pd.NA] * len(out), dtype="Int64")
    out["ai_threshold"] = np.nan
    out["ai_model"] = f"simulated: hazard ratio {hazard_ratio:g} per node on {outcome.name}, seed {seed}"
    out["ai_ene_source"] = "simulated"
    out = out.astype({"ai_model": "string", "ai_ene_source": "string"})
    sentence = f"n_ai_ene is SIMULATED: hazard ratio {hazard_ratio:g} per node on {outcome.name}, seed {seed}"
    out.attrs = {**table.attrs, "warnings": [sentence, *table.attrs.get("warnings", [])]}
    return out


def planted_sd(table: pd.DataFrame, endpoint: str) -> float:
    """Standard deviation of the count that `simulate_onto` plants, by its law in these patients: no seed."""
    values, shares = np.arange(_MOST + 1), np.zeros(_MOST + 1)
    for rows, mean in _strata(table, outcome_of(table, endpoint)):
        shares += rows.size * count_pmf(mean, _MOST)
    shares /= shares.sum()
    return float(np.sqrt(shares @ (values - shares @ values) ** 2))


def _strata(table: pd.DataFrame, outcome: Endpoint) -> list[tuple[np.ndarray, float]]:
    """Rows and mean count of each stratum of HPV and N; small ones share a stratum over HPV."""
    category = table["n7"].fillna(table["n8"]).str[:3].fillna("N2").to_numpy(dtype=object)
    mean = np.array([_MEAN_ENE.get(word, _MEAN_ENE.get(word[:2], 0.7)) for word in category])
    hpv = table["hpv"].fillna("unknown").to_numpy(dtype=object)
    found: list[tuple[np.ndarray, float]] = []
    for value in np.unique(mean):
        left = np.zeros(len(table), dtype=bool)
        for word in ("positive", "negative", "unknown"):
            here = (mean == value) & (hpv == word)
            if outcome.event[here].sum() >= _FEW:
                found.append((np.flatnonzero(here), float(value)))
            else:
                left |= here
        if left.any():
            found.append((np.flatnonzero(left), float(value)))
    return found


def _draw(outcome: Endpoint, rows: np.ndarray, mean: float, ratio: float, uniform: np.ndarray) -> np.ndarray:
    """Counts of one stratum, from their posterior."""
    values = np.arange(_MOST + 1)
    prior = _prior(mean)
    times, events, usable = outcome.time[rows], outcome.event[rows], outcome.usable[rows]
    factor = ratio ** values.astype(float)
    weights = np.tile(prior, (len(rows), 1))
    if usable.any():
        survival = np.exp(-nelson_aalen(times[usable], events[usable]))
        hazard = _baseline(survival, prior, factor)
        likelihood = np.exp(-hazard[:, None] * factor) * factor ** events[usable][:, None]
        weights[usable] = prior * likelihood
    below = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
    return np.asarray((uniform[:, None] > below).sum(axis=1))


def _prior(mean: float) -> np.ndarray:
    """Negative binomial probabilities of 0 to `_MOST`."""
    if mean == 0:
        return np.asarray(np.arange(_MOST + 1) == 0, dtype=float)
    made = nbinom.pmf(np.arange(_MOST + 1), DISPERSION, DISPERSION / (DISPERSION + mean))
    return np.asarray(made / made.sum())


def _baseline(survival: np.ndarray, prior: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Cumulative hazard of a patient without a node, so that the mixture has the given survival."""
    low, high = np.zeros(len(survival)), np.full(len(survival), 1e3)
    for _ in range(60):
        middle = (low + high) / 2
        mixed = np.exp(-middle[:, None] * factor) @ prior
        low, high = np.where(mixed > survival, middle, low), np.where(mixed > survival, high, middle)
    return np.asarray((low + high) / 2)
