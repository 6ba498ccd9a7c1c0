"""How much of the bias by measurement error of the count does each correction recover.

    python -m tools.measurements.risk_measurement_error [--cohorts 40] [--n 1200] [-o RESULT.json]

Each patient has up to six nodes with calibrated probabilities of extension; the true count raises the
hazard by the planted ratio per node. The plain estimate takes the nodes over 0.3; beside it the expected
count, draws that do not look at the outcome, draws that do (pooled by Rubin's rules), and SIMEX.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from aiene.stats.count_covariate import count_chances, drawn_counts, simex
from aiene.stats.cox_model import fit_cox
from aiene.stats.imputation import rubin_estimates

THRESHOLD = 0.3


def estimates(n: int, seed: int, log_ratio: float) -> dict[str, tuple[float, float]]:
    """Log hazard ratio and standard error of each method on one cohort."""
    random = np.random.default_rng(seed)
    nodes = random.integers(0, 7, n)
    chances = [random.beta(0.6, 1.4, k) for k in nodes]
    truth = np.array([(random.random(p.size) < p).sum() for p in chances], dtype=float)
    failure, last = random.exponential(1 / (0.03 * np.exp(log_ratio * truth))), random.uniform(2, 8, n)
    observed, event = np.minimum(failure, last), (failure <= last).astype(int)
    seen = np.array([(p > THRESHOLD).sum() for p in chances], dtype=float)
    expected = np.array([p.sum() for p in chances])
    variance = np.array([(p * (1 - p)).sum() for p in chances]) + (seen - expected) ** 2
    nothing = np.zeros((n, 0))
    found = {}
    for name, x in (("true count", truth), ("plain, over 0.3", seen), ("expected count", expected)):
        model = fit_cox(observed, event, x[:, None])
        found[name] = float(model.beta[0]), float(model.information[0, 0] ** -0.5)
    blind = []
    for _ in range(20):
        drawn = np.array([(random.random(p.size) < p).sum() for p in chances], dtype=float)
        blind.append(fit_cox(observed, event, drawn[:, None]))
    pooled = rubin_estimates(
        [m.beta for m in blind],
        [np.linalg.inv(m.information) for m in blind],
        ["x"],
        n,
        events=int(event.sum()),
    ).rows[0]
    found["draws without the outcome"] = pooled.coef, pooled.std_error
    proper = drawn_counts(observed, event, count_chances(chances), nothing, m=10, iterations=6, seed=seed)
    found["draws with the outcome"] = proper.coef, proper.std_error
    back = simex(observed, event, seen, variance, nothing, n_sim=20, seed=seed)
    found["SIMEX"] = back.coef, back.std_error
    return found


def main() -> int:
    """Run the study and store it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cohorts", type=int, default=40)
    parser.add_argument("--n", type=int, default=1200)
    parser.add_argument("--hr", type=float, default=1.3)
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("tools/measurements/results/risk_measurement_error.json")
    )
    words = parser.parse_args()
    started, truth = time.perf_counter(), float(np.log(words.hr))
    cohorts = [estimates(words.n, seed, truth) for seed in range(words.cohorts)]
    rows = {}
    for name in cohorts[0]:
        coef, error = np.array([c[name] for c in cohorts]).T
        held = np.abs(coef - truth) < 1.96 * error
        rows[name] = {
            "hazard_ratio": round(float(np.exp(coef.mean())), 4),
            "log_ratio_over_truth": round(float(coef.mean() / truth), 3),
            "error_of_that": round(float(coef.std(ddof=1) / words.cohorts**0.5 / truth), 3),
            "coverage": float(held.mean()),
        }
        print(name, rows[name])
    result = {
        "cohorts": words.cohorts,
        "patients_each": words.n,
        "planted_hazard_ratio": words.hr,
        "methods": rows,
        "seconds": round(time.perf_counter() - started, 1),
    }
    words.out.parent.mkdir(parents=True, exist_ok=True)
    words.out.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
