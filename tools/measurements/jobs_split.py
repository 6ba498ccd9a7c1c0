"""How near `aiene run --jobs N` on N cores comes to N times the pace of one job on one core.

    python -m tools.measurements.jobs_split ../shared/data/openkbp [--cases 8] [--repeats 3]

The installed command, each time into a new folder, held to so many cores (`sched_setaffinity`); seconds of
wall time with all that a user waits for: starting, loading, writing. `share_of_ideal` is the time of one job
on one core over N times that of N jobs on N cores; `..._after_start` leaves out the time that a run
over one case takes, which a large cohort pays once. Says whether maps and tables are the same bytes. For
a quiet machine. Writes `results/jobs_split.json` after each run, and goes on from there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "jobs_split.json"


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    words = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    rows: dict[str, Any] = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else {}
    for repeat in range(words.repeats):
        for jobs in (1, len(cores)):
            for cases in (1, words.cases):
                name = f"{cases} cases, {jobs} jobs, repeat {repeat}"
                if name not in rows:
                    rows[name] = run(words.folder, cases, jobs, set(cores[:jobs]))
                    print(name, json.dumps(rows[name]), flush=True)
                    store(rows, words.cases, len(cores))


def run(folder: Path, cases: int, jobs: int, cores: set[int]) -> dict[str, Any]:
    """One run of the command: seconds, and a hash of what it has made."""
    with tempfile.TemporaryDirectory() as place:
        listed = Path(place) / "list.csv"
        files = sorted(folder.glob("*/ct.nii.gz"))[:cases]
        listed.write_text("case_id,image\n" + "".join(f"{f.parent.name},{f.resolve()}\n" for f in files))
        out = Path(place) / "out"
        line = [sys.executable, "-m", "aiene", "run", str(listed), "-o", str(out), "-d", "cpu", "-q"]
        start = time.monotonic()
        subprocess.run(
            [*line, "--jobs", str(jobs)],
            check=True,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        seconds = time.monotonic() - start
        made = [*sorted(out.glob("cases/*/*.nii.gz")), out / "nodes.csv", out / "patients.csv"]
        sha256 = hashlib.sha256(b"".join(file.read_bytes() for file in made)).hexdigest()
    return {"cases": cases, "jobs": jobs, "seconds": round(seconds, 2), "sha256": sha256}


def store(rows: dict[str, Any], cases: int, cores: int) -> None:
    """The rows with their summary, as far as they have come."""

    def median(of: int, jobs: int) -> float:
        taken = [r["seconds"] for r in rows.values() if (r["cases"], r["jobs"]) == (of, jobs)]
        return float(statistics.median(taken))

    content: dict[str, Any] = {"cores": cores, "rows": rows}
    if {(r["cases"], r["jobs"]) for r in rows.values()} >= {(n, j) for n in (1, cases) for j in (1, cores)}:
        alone, beside = median(cases, 1), median(cases, cores)
        content["share_of_ideal"] = round(alone / (cores * beside), 3)
        more, more_beside = alone - median(1, 1), beside - median(1, cores)
        content["share_of_ideal_after_start"] = round(more / (cores * more_beside), 3)
        content["same_bytes"] = len({r["sha256"] for r in rows.values() if r["cases"] == cases}) == 1
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
