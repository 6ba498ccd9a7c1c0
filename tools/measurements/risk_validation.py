"""Does external validation find a shift between centres that was planted?

    python -m tools.measurements.risk_validation [--pairs 40] [--n 1500] [-o RESULT.json]

A model of overall survival with the count is locked on one simulated centre and applied to another: drawn by
the same law; with a baseline hazard of 1.6 times; with half of each log hazard ratio. The calibration slope
planted is 1, 1 and 0.5. The ratio of observed to expected risk planted is that of the mean risks under the
two laws, over the patients of the second centre. Told are the means found, how often the 95 % intervals held
what was planted (they take the locked model as it is, so its own error is not in them), and the spread.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aiene.risk.analyse.cohort import make_cohort, outcome_of
from aiene.risk.analyse.design import with_one_edition
from aiene.risk.analyse.locked_model import lock
from aiene.risk.analyse.records import AnalysisSettings
from aiene.risk.analyse.regression import make_sample
from aiene.risk.schemes.scheme import read_scheme
from aiene.risk.simulate.cohort import CohortSettings, Effects, simulate_cohort
from aiene.risk.stratify import stratify
from aiene.stats.calibration import calibration

RESULT = Path(__file__).parent / "results" / "risk_validation.json"
YEARS = 2.0
SETTINGS = AnalysisSettings(bootstraps=0)
HOME = CohortSettings()


def halved(effects: Effects) -> Effects:
    """Half of each log hazard ratio."""
    return replace(effects, **{name: value**0.5 for name, value in asdict(effects).items()})


SCENES = {
    "same law": (HOME, 1.0),
    "baseline hazard x 1.6": (HOME.with_rate("os", 1.6 * HOME.os_rate), 1.0),
    "effects halved": (HOME.changed({"os": halved(HOME.os)}), 0.5),
}
"""Law of the second centre, and the slope that follows."""


def patients(law: CohortSettings, n: int, seed: int) -> pd.DataFrame:
    """Analysed patients of one centre, T and N by one edition."""
    table = stratify(simulate_cohort(n, seed=seed, settings=law), read_scheme("count-0-1-2plus"))
    return with_one_edition(make_cohort(table, SETTINGS).table, SETTINGS.covariates)


def mean_risk(table: pd.DataFrame, law: CohortSettings) -> float:
    """Mean risk of death by the horizon under a law, over the patients of a table."""
    columns = {
        "n_ai_ene": table["n_ai_ene"],
        "hpv_negative": table["hpv"] == "negative",
        "heavy_smoker": table["pack_years"] > 10,
        "t4": table["t7"].isin(["T4a", "T4b"]),
        "n2c_n3": table["n7"].isin(["N2c", "N3"]),
        "age_decade": (table["age"] - 60) / 10,
    }
    score = sum(np.asarray(x, dtype=float) * law.os.log[name] for name, x in columns.items())
    return float(np.mean(1 - np.exp(-law.os_rate * YEARS * np.exp(score))))


def scene(name: str, n: int, pairs: int) -> dict[str, Any]:
    """One row of the study."""
    law, slope = SCENES[name]
    found: dict[str, list[float]] = {"slope": [], "oe": [], "oe_planted": []}
    held = {"slope": 0, "oe": 0}
    for seed in range(pairs):
        home, away = patients(HOME, n, 2 * seed), patients(law, n, 2 * seed + 1)
        outcome, _ = outcome_of(home, "os")
        sample = make_sample("all", "All patients", home, outcome, SETTINGS.covariates)
        model = lock(sample, cap=9, years=(YEARS,), with_marker=True, scheme="none")
        score, _ = model.linear_predictor(away)
        known = np.isfinite(score)
        there, _ = outcome_of(away.loc[known].reset_index(drop=True), "os")
        told = calibration(
            there.time, there.state, model.risk(score[known], [YEARS])[:, 0][there.rows], YEARS
        )
        planted = mean_risk(away, law) / mean_risk(away, HOME)
        for key, value, truth in (
            ("slope", told.slope, slope),
            ("oe", told.observed_expected, planted),
        ):
            found[key].append(value.value)
            held[key] += value.lower <= truth <= value.upper
        found["oe_planted"].append(planted)
    return {
        "slope_planted": slope,
        "slope_found": round(float(np.mean(found["slope"])), 3),
        "slope_spread": round(float(np.std(found["slope"], ddof=1)), 3),
        "slope_held": held["slope"] / pairs,
        "oe_planted": round(float(np.mean(found["oe_planted"])), 3),
        "oe_found": round(float(np.mean(found["oe"])), 3),
        "oe_spread": round(float(np.std(found["oe"], ddof=1)), 3),
        "oe_held": held["oe"] / pairs,
    }


def main() -> int:
    """Run the study and store it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--n", type=int, default=1500)
    parser.add_argument("-o", "--out", type=Path, default=RESULT)
    words = parser.parse_args()
    started = time.perf_counter()
    rows = {}
    for name in SCENES:
        rows[name] = scene(name, words.n, words.pairs)
        print(name, rows[name], flush=True)
    result = {"pairs": words.pairs, "patients_each": words.n, "years": YEARS, "scenes": rows}
    result["seconds"] = round(time.perf_counter() - started, 1)
    words.out.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
