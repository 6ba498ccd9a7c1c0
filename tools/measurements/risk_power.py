"""Is the power that `aiene risk simulate` states the one that repeated cohorts show?

    python -m tools.measurements.risk_power                 500 cohorts for each of a few sizes, in one run
    python -m tools.measurements.risk_power --patients 308  this size anew, the others stay as stored

The cohorts are drawn at the baseline hazard that the law gives for the wanted event rate, and the count is
tested at 5 % in the Cox model of all planted covariates, by Wald's and by the likelihood-ratio test. Writes
results/risk_power.json: the stated power, the shares found, and their Monte Carlo error.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aiene.risk.simulate.cohort import CohortSettings, expected, planned_power, simulate_cohort
from aiene.stats.cox_model import fit_cox
from aiene.stats.records import NotEstimableError

RESULT = Path(__file__).parent / "results" / "risk_power.json"
DESIGNS = ((1.3, 0.13, 308), (1.3, 0.13, 560))
"""Hazard ratio per node, share with the event, patients."""


def settings_of(ratio: float) -> CohortSettings:
    """The usual cohort with this hazard ratio per node on distant metastasis."""
    plain = CohortSettings()
    return plain.changed({"dm": replace(plain.dm, n_ai_ene=ratio)})


def found_in(settings: CohortSettings, n: int, cohorts: int) -> tuple[float, float]:
    """Share of cohorts in which Wald's and the likelihood-ratio test find the count."""
    table = simulate_cohort(n * cohorts, seed=1, settings=settings)
    columns = {
        "n_ai_ene": table["n_ai_ene"],
        "hpv_negative": table["hpv"] == "negative",
        "heavy_smoker": table["pack_years"] > 10,
        "t4": table["t7"].isin(["T4a", "T4b"]),
        "n2c_n3": table["n7"].isin(["N2c", "N3"]),
        "age_decade": (table["age"] - 60) / 10,
    }
    design = np.stack([np.asarray(column, dtype=float) for column in columns.values()], axis=1)
    time, event = table["dm_time"].to_numpy(float), table["dm_event"].to_numpy(int)
    wald = likelihood = 0
    for rows in np.arange(n * cohorts).reshape(cohorts, n):
        try:
            full = fit_cox(time[rows], event[rows], design[rows])
            without = fit_cox(time[rows], event[rows], design[rows, 1:])
        except NotEstimableError:
            continue
        error = math.sqrt(np.linalg.inv(full.information)[0, 0])
        wald += abs(full.beta[0]) > 1.959964 * error
        likelihood += 2 * (full.log_likelihood - without.log_likelihood) > 3.841459
    return wald / cohorts, likelihood / cohorts


def main() -> None:
    """Run and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cohorts", type=int, default=500)
    parser.add_argument("--patients", type=int, choices=[n for *_, n in DESIGNS], help="only this size")
    args = parser.parse_args()
    stored = json.loads(RESULT.read_text())["designs"] if args.patients and RESULT.exists() else []
    rows: list[dict[str, Any]] = [row for row in stored if row["patients"] != args.patients]
    for ratio, rate, n in (d for d in DESIGNS if args.patients in (None, d[2])):
        started = time.perf_counter()
        settings = settings_of(ratio)
        planned = planned_power(settings, "dm", n, event_rate=rate)
        if planned is None:
            raise ValueError(f"nothing is planted at a hazard ratio of {ratio:g}")
        drawn = settings.with_rate("dm", expected(settings, "dm", rate).baseline_rate)
        wald, likelihood = found_in(drawn, n, args.cohorts)
        rows.append(
            {
                "cohorts": args.cohorts,
                "hazard_ratio": ratio,
                "event_rate": rate,
                "patients": n,
                "stated_power": round(planned.power, 4),
                "found_wald": round(float(wald), 4),
                "found_likelihood_ratio": round(float(likelihood), 4),
                "standard_error": round(float(np.sqrt(wald * (1 - wald) / args.cohorts)), 4),
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
        print(rows[-1], flush=True)
    rows.sort(key=lambda row: row["patients"])
    RESULT.write_text(json.dumps({"designs": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
