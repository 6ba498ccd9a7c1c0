"""How many cases a second the scheduler hands out, and how near to linear many workers come.

    python -m tools.measurements.cluster_scale [--cases 2000] [--wait-s 2.0]

Cases go through `aiene.case_worker.ClusterWork`, the road of `aiene run --scheduler`, with the networks' work
stood in for by a wait: what is measured is the client, Dask's scheduler and what travels. All workers live
in this process (a machine of two cores holds no 256 others), so they share its one interpreter lock with the
scheduler, and a real cluster does better. Each answer carries 100 kB, about the compressed label maps of a
CT.
Writes `results/cluster_scale.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import psutil
from distributed import Client, LocalCluster

from aiene import case_worker
from aiene.case_worker import Made, Order
from aiene.ingest.case import Case
from aiene.models.bundle import find_bundle
from aiene.pipeline import Settings
from aiene.results.records import CaseResult

RESULTS = Path(__file__).parent / "results" / "cluster_scale.json"
_ANSWER = os.urandom(100_000)
_wait_s = 0.0


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--wait-s", type=float, default=2.0)
    words = parser.parse_args()
    rows = [measured(2, words.cases, 0.0)]
    for workers in (16, 64, 128, 256):
        rows.append(measured(workers, workers * 12, words.wait_s))
    RESULTS.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


def waiting(case: Case, order: Order, sent: bytes | None) -> Made:
    """In the place of `case_worker.work`."""
    del order, sent
    time.sleep(_wait_s)
    return Made(CaseResult(case.case_id, "no_nodes"), {"labels.nii.gz": _ANSWER})


def measured(workers: int, cases: int, wait_s: float) -> dict[str, float]:
    """One cohort through so many workers: seconds, share of the ideal, memory, open files."""
    global _wait_s
    _wait_s = wait_s
    case_worker.work = waiting
    bundle, process = find_bundle("default"), psutil.Process()
    order = Order(str(bundle.path), bundle.sha256, Settings(0.5), "cpu", False, case_worker.versions())
    every = [Case(f"case-{n}", "nifti", (Path(__file__),)) for n in range(cases)]
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=False, dashboard_address=None
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        road = case_worker.ClusterWork(client, bundle, order)
        road.check(every)
        for _, get in road.each(every[:workers]):  # the first answers pay for what is made once
            get()
        memory, files, start = process.memory_info().rss, process.num_fds(), time.monotonic()
        halfway = 0
        for number, (_, get) in enumerate(road.each(every)):
            get()
            halfway = process.memory_info().rss if number == cases // 2 else halfway
        seconds = time.monotonic() - start
        row = {
            "workers": workers,
            "cases": cases,
            "wait_s": wait_s,
            "seconds": round(seconds, 2),
            "ms_a_case": round(1000 * seconds / cases, 2),
            "share_of_ideal": round(cases * wait_s / workers / seconds, 3),
            "rss_mb": round(memory / 1e6),
            "rss_mb_halfway": round(halfway / 1e6),
            "rss_mb_end": round(process.memory_info().rss / 1e6),
            "open_files": process.num_fds() - files,
        }
    print(json.dumps(row), flush=True)
    return row


if __name__ == "__main__":
    main()
