"""How fast clinical tables are read, staged and stratified; writes results/risk_staging_speed.json.

    python -m tools.measurements.risk_staging_speed [--n 100000] [--big]

The table is simulated, with missing inputs of every kind; `--big` also takes a million rows, from a CSV file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from aiene.risk.schemes.scheme import read_scheme
from aiene.risk.simulate.cohort import simulate_cohort
from aiene.risk.staging.stage import StagingOptions, stage_table
from aiene.risk.stratify import stratify
from aiene.risk.table.files import write_table
from aiene.risk.table.read import read_table

RESULTS = Path(__file__).parent / "results" / "risk_staging_speed.json"


def cohort(n: int) -> pd.DataFrame:
    """A simulated cohort, half of it with measured nodes instead of N, and with holes."""
    random = np.random.default_rng(0)
    table = simulate_cohort(n, seed=0)
    measured = random.random(n) < 0.5
    table["n7"] = table["n7"].mask(measured)
    table["edition_n"] = table["edition_n"].mask(measured)
    counts = pd.array(random.integers(0, 6, n), dtype="Int64")
    table["n_nodes"] = pd.Series(counts).where(measured)
    sides = pd.Series(random.choice(["ipsilateral", "contralateral", "bilateral"], n), dtype="string")
    table["node_laterality"] = sides.where(measured & (table["n_nodes"] > 1).fillna(False))
    table["largest_node_cm"] = pd.Series(random.uniform(0.5, 8, n).round(2)).where(measured)
    for name in ("hpv", "pack_years_class", "m", "t7"):
        table[name] = table[name].mask(random.random(n) < 0.05)
    return table


def timed(n: int, folder: Path) -> dict[str, float]:
    """Seconds of each step."""
    table = cohort(n)
    path = folder / "cohort.csv"
    write_table(table, path)
    steps: dict[str, float] = {}
    start = time.perf_counter()
    read = read_table(path)
    steps["read_csv"] = time.perf_counter() - start
    start = time.perf_counter()
    stage_table(read, options=StagingOptions(ene_unknown="negative"))
    steps["stage"] = time.perf_counter() - start
    start = time.perf_counter()
    stratify(read, read_scheme("rtog0129-plus-count"))
    steps["stage_and_stratify"] = time.perf_counter() - start
    return {name: round(seconds, 2) for name, seconds in steps.items()}


def main() -> None:
    """Time it and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--big", action="store_true")
    arguments = parser.parse_args()
    sizes = [arguments.n, *([1_000_000] if arguments.big else [])]
    with tempfile.TemporaryDirectory() as folder:
        seconds = {str(n): timed(n, Path(folder)) for n in sizes}
    result = {
        "command": "python -m tools.measurements.risk_staging_speed" + (" --big" if arguments.big else ""),
        "seconds": seconds,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "pandas": pd.__version__,
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
