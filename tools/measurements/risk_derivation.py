"""Is the count credited only with what is its own: derived cut-offs under null and alternative.

    python -m tools.measurements.risk_derivation                   every scene, in one run
    python -m tools.measurements.risk_derivation --scene "HR 1.3"  this one anew, the others stay as stored

Cohorts with old groups of hazard 1, 1.8 and 3 (in the right order, or upside down) and a skewed count that
knows nothing of them. `aiene risk analyse --derive` splits each; the gain in C of the derived groups is that
of the test part, with its bootstrap p, beside what a Cox model of old groups and count gains there.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from aiene.risk.analyse.derive.validate import GAIN, Data, split_mask, split_rows
from aiene.risk.analyse.records import AnalysisSettings
from aiene.stats.concordance import harrell_c
from aiene.stats.cox_model import fit_cox

RIGHT, WRONG = (1.0, 1.8, 3.0), (3.0, 1.8, 1.0)
SCENES = {
    "null, right order": (1.0, RIGHT, 0.035, 100),
    "null, wrong order": (1.0, WRONG, 0.035, 100),
    "null, wrong order, few events": (1.0, WRONG, 0.012, 100),
    "HR 1.15": (1.15, RIGHT, 0.035, 100),
    "HR 1.3": (1.3, RIGHT, 0.035, 40),
    "HR 1.3, few events": (1.3, RIGHT, 0.012, 40),
}
"""Hazard ratio per node, relative hazards of the old groups, hazard per year of the best, cohorts."""


def cohort(n: int, seed: int, hazard_ratio: float, rates: tuple[float, ...], rate: float) -> Data:
    """One cohort: constant hazards, censored between 1 and 8 years."""
    random = np.random.default_rng(seed)
    base = random.choice(3, n, p=[0.45, 0.3, 0.25])
    count = np.minimum(random.negative_binomial(0.8, 0.45, n), 9)
    hazard = rate * np.array(rates)[base] * hazard_ratio**count
    failure, last = random.exponential(1 / hazard), random.uniform(1, 8, n)
    return Data(np.minimum(failure, last), (failure <= last).astype(int), base, count, 3)


def cox_gain(data: Data, test: np.ndarray) -> float:
    """What a Cox model gains from the count on the test part."""
    old = np.column_stack([data.base == 1, data.base == 2]).astype(float)
    both = np.column_stack([old, np.minimum(data.count, 5)])
    c = []
    for x in (old, both):
        model = fit_cox(data.time[~test], data.event[~test], x[~test])
        c.append(harrell_c(data.time[test], data.event[test], model.risk(x[test])).c)
    return c[1] - c[0]


def scene(name: str, n: int, share: float) -> dict[str, float]:
    """One row of the study; `share` of its cohorts."""
    started = time.perf_counter()
    hazard_ratio, rates, rate, cohorts = SCENES[name]
    cohorts = max(2, round(share * cohorts))
    gains, by_cox, found, significant, groups, events = [], [], 0, 0, [], []
    for seed in range(cohorts):
        data = cohort(n, seed, hazard_ratio, rates, rate)
        settings = AnalysisSettings(bootstraps=200, seed=seed)
        test = ~split_mask(data.event, settings)
        derived = data.derive(np.flatnonzero(~test))
        gain = next(r for r in split_rows(data, derived, test, settings) if r["measure"] == GAIN)
        gains.append(gain["value"])
        by_cox.append(cox_gain(data, test))
        found += bool(derived.cutoffs)
        significant += bool(gain.get("p", 1.0) < 0.05)
        groups.append(derived.n_groups)
        events.append(int(data.event.sum()))
    return {
        "cohorts": cohorts,
        "events_mean": float(np.mean(events)),
        "cut_off_found": found / cohorts,
        "groups_mean": float(np.mean(groups)),
        "gain_derived": round(float(np.mean(gains)), 5),
        "gain_derived_error": round(float(np.std(gains, ddof=1) / cohorts**0.5), 5),
        "gain_cox": round(float(np.mean(by_cox)), 5),
        "share_p_under_0.05": significant / cohorts,
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> int:
    """Run the study and store it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scene", choices=list(SCENES), action="append", help="only this; may be repeated")
    parser.add_argument("--share", type=float, default=1.0, help="of the cohorts of each scene")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("tools/measurements/results/risk_derivation.json")
    )
    words = parser.parse_args()
    stored = json.loads(words.out.read_text())["scenes"] if words.scene and words.out.exists() else {}
    for name in words.scene or SCENES:
        stored[name] = scene(name, words.n, words.share)
        print(name, stored[name], flush=True)
        rows = {known: stored[known] for known in SCENES if known in stored}
        words.out.parent.mkdir(parents=True, exist_ok=True)
        words.out.write_text(json.dumps({"patients_each": words.n, "scenes": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
