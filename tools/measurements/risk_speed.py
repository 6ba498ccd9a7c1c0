"""How long the whole risk analysis takes, and that its result does not depend on the number of processes.

    python -m tools.measurements.risk_speed    1,733 simulated patients, 1,000 bootstraps, all four endpoints
    python -m tools.measurements.risk_speed --check  the same with one process too, and every file compared

Writes results/risk_speed.json: wall time, processor time of all processes, and the load
of the machine before the run, since a busy machine makes the wall time mean little.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from aiene.device import available_cores
from aiene.risk.analyse.records import AnalysisSettings
from aiene.risk.analyse.run import analyse
from aiene.risk.schemes.scheme import read_scheme
from aiene.risk.simulate.cohort import simulate_cohort
from aiene.risk.stratify import stratify

RESULT = Path(__file__).parent / "results" / "risk_speed.json"
ENDPOINTS = ("os", "dc", "lrc", "dfs")


def timed(patients: int, bootstraps: int, jobs: int, out: Path) -> dict[str, Any]:
    """One whole run into a folder."""
    scheme = read_scheme("rtog0129-plus-count")
    table = stratify(simulate_cohort(patients, seed=1), scheme)
    settings = AnalysisSettings(bootstraps=bootstraps, jobs=jobs)
    load = os.getloadavg()[0]
    before, start = _processor_seconds(), time.perf_counter()
    made = analyse(table, endpoints=ENDPOINTS, scheme=scheme, out=out, settings=settings)
    return {
        "processes": jobs,
        "wall_seconds": round(time.perf_counter() - start, 1),
        "processor_seconds": round(_processor_seconds() - before, 1),
        "load_before": round(load, 1),
        "tables": len(made.tables),
        "figures": len(made.figures),
        "megabytes": round(sum(f.stat().st_size for f in out.rglob("*") if f.is_file()) / 1e6, 1),
    }


def digest(folder: Path) -> str:
    """SHA-256 over the names and contents of all files."""
    total = hashlib.sha256()
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        total.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return total.hexdigest()


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def main() -> None:
    """Run and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patients", type=int, default=1733)
    parser.add_argument("--bootstraps", type=int, default=1000)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    result: dict[str, Any] = {
        "patients": args.patients,
        "bootstraps": args.bootstraps,
        "endpoints": list(ENDPOINTS),
        "cores": available_cores(),
    }
    with tempfile.TemporaryDirectory() as folder:
        many, one = Path(folder, "many"), Path(folder, "one")
        result["runs"] = [timed(args.patients, args.bootstraps, available_cores(), many)]
        if args.check:
            result["runs"].append(timed(args.patients, args.bootstraps, 1, one))
            result["same_bytes_with_one_process"] = digest(many) == digest(one)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
