"""Cohorts for the tests of the analysis: eight patients by hand, and a few hundred drawn ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from aiene.risk.schemes.scheme import Scheme, SchemeSource, read_scheme
from aiene.risk.stratify import stratify
from aiene.risk.table.read import complete

SCHEME = "rtog0129-plus-count"


def plain_scheme() -> Scheme:
    """Classes 0 and 1 or more, no base."""
    return Scheme(
        name="two-classes",
        base="none",
        cutoffs=(1,),
        mapping={"all": ("low", "high")},
        groups=("low", "high"),
        source=SchemeSource(kind="prespecified", by="the tests"),
    )


def eight() -> pd.DataFrame:
    """Eight patients whose numbers can be computed by hand.

    Group 0 nodes: A 1+ B 3+ C 4 D 5; group >= 1: E 1+ F 2+ G 2 H 6+ (time in years, + death).
    """
    rows = {
        "patient_id": list("ABCDEFGH"),
        "site": ["oropharynx"] * 8,
        "hpv": ["positive", "positive", "negative", "negative", "positive", "negative", "negative", None],
        "sex": ["male"] * 6 + ["female"] * 2,
        "age": [50.0, 60, 70, 80, 55, 65, 75, np.nan],
        "n_ai_ene": [0, 0, 0, 0, 1, 2, 3, 1],
        "ai_ene_source": ["given"] * 8,
        "os_time": [1.0, 3, 4, 5, 1, 2, 2, 6],
        "os_event": [1, 1, 0, 0, 1, 1, 0, 1],
        "dm_time": [1.0, 2, 4, 5, 0.5, 2, 2, 6],
        "dm_event": [0, 1, 0, 0, 1, 1, 0, 0],
    }
    return stratify(complete(pd.DataFrame(rows)), plain_scheme())


def drawn(n: int = 240, *, seed: int = 1, effect: float = 0.4, **columns: Any) -> pd.DataFrame:
    """Patients with HPV, stage, smoking and a count that raises hazards; `columns` take others' place."""
    random = np.random.default_rng(seed)
    hpv = random.choice(np.array(["positive", "negative", None], dtype=object), n, p=[0.55, 0.38, 0.07])
    count = np.minimum(random.negative_binomial(0.8, 0.45, n), 9)
    t = random.choice(["T1", "T2", "T3", "T4a"], n)
    risk = effect * np.minimum(count, 5) + 0.9 * (hpv == "negative") + 0.3 * (t == "T4a")
    death = random.exponential(1 / (0.07 * np.exp(0.8 * risk - 0.6)))
    metastasis = random.exponential(1 / (0.07 * np.exp(risk - 0.6)))
    failure = random.exponential(1 / (0.05 * np.exp(0.5 * risk)))
    last = random.uniform(1, 9, n)
    end = np.minimum(death, last)
    table: dict[str, Any] = {
        "patient_id": [f"P{i:04d}" for i in range(n)],
        "site": "oropharynx",
        "hpv": hpv,
        "t7": t,
        "n7": random.choice(["N0", "N1", "N2a", "N2b", "N2c", "N3"], n),
        "m": "M0",
        "edition_t": "7",
        "edition_n": "7",
        "pack_years": np.where(random.random(n) < 0.06, np.nan, random.gamma(1.2, 18, n)),
        "age": random.normal(60, 9, n).clip(20, 95),
        "sex": random.choice(["male", "female"], n, p=[0.75, 0.25]),
        "time_origin": "rt_start",
        "n_ai_ene": count,
        "ai_ene_source": "given",
        "os_time": end,
        "os_event": (death <= last).astype(int),
        "dm_time": np.minimum(end, metastasis),
        "dm_event": (metastasis <= end).astype(int),
        "lrf_time": np.minimum(end, failure),
        "lrf_event": (failure <= end).astype(int),
    }
    return stratify(complete(pd.DataFrame(table | columns)), read_scheme(SCHEME))
