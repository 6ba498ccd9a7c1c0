"""The cohorts that R's numbers are of: simulated ones, kept beside this script, and two of public packages.

    python tests/stats/reference/cohorts.py FOLDER     writes all of them into FOLDER
    Rscript tests/stats/reference/r_numbers.R FOLDER > tests/stats/reference/r_numbers.csv

R and its packages come from Debian: r-base-core r-cran-survival r-cran-cmprsk r-cran-riskregression.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent


def months(n: int = 160, *, seed: int = 14) -> pd.DataFrame:
    """Follow-up in whole months, as archives have it: events and censorings tie.

    `group` is ordered by name only: group 1 has the worst outcome, and group 3 a better one than group 2.
    """
    random = np.random.default_rng(seed)
    group = random.integers(0, 4, n)
    x, z = random.normal(size=n).round(3), random.integers(0, 2, n)
    hazard = 0.10 * np.exp(0.5 * x + 0.4 * z + np.array([0.0, 1.0, 0.6, 0.2])[group])
    event, other = random.exponential(1 / hazard), random.exponential(1 / 0.06, n)
    last = random.uniform(0.5, 8, n)
    whole = np.maximum(np.ceil(12 * np.minimum(np.minimum(event, other), last)), 1)
    state = np.where((event <= other) & (event <= last), 1, np.where(other <= last, 2, 0))
    risk = (1 / (1 + np.exp(-(0.5 * x + 0.4 * z - 1)))).round(6)
    return pd.DataFrame(
        {"months": whole.astype(int), "state": state, "x": x, "z": z, "group": group, "risk": risk}
    )


def public(name: str) -> pd.DataFrame:
    """Time, event and a score: the lung trial by age, sex and ECOG, or whas500 by five covariates."""
    sys.path.insert(0, str(HERE.parents[1]))
    from aiene.stats.cox_model import fit_cox
    from builders.survival_cohorts import lung, sksurv_data

    if name == "lung":
        table = lung("age", "sex", "ph.ecog")
        X, time, event = table[["age", "sex", "ph.ecog"]], table.time, table.status
    else:
        X, time, event = sksurv_data(name)  # type: ignore[assignment]
        X = X[["age", "hr", "sysbp", "bmi", "los"]].astype(float)
    return pd.DataFrame({"time": time, "event": event, "risk": fit_cox(time, event, X).risk(X)})


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    months().to_csv(HERE / "months.csv", index=False)
    months().to_csv(folder / "months.csv", index=False)
    for cohort in ("lung", "whas500"):
        public(cohort).to_csv(folder / f"{cohort}.csv", index=False, float_format="%.17g")
