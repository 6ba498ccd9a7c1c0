"""How many cases a second the scheduler hands out, and how near to linear many workers come.

    python -m tools.measurements.cluster_scale [--cases 2000] [--wait-s 12.0] [--only NAME]

Cases go through `aiene.case_worker.ClusterWork`, the road of `aiene run --scheduler`, with the networks' work
stood in for by a wait: what is measured is the client, Dask's scheduler, what travels and the writing of case
folders and tables by `RunStore`. Each answer carries 100 kB, about the compressed label maps of a CT.

- `two`: many cases without a wait through two worker processes: time a case, memory and open files of the
  client (with the scheduler) and of the workers, halfway and at the end.
- `16` to `256`: so many workers. They live as threads in this process (two cores hold no 256 processes) and
  share its one interpreter lock with the scheduler and the client, so a real cluster does better.
- `tables`: seconds to write cases and tables of cohorts of some sizes; they grow with these alone.

Writes `results/cluster_scale.json` after each part, goes on from there, and draws `docs/images/scale.svg`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import psutil
from distributed import Client, LocalCluster

from aiene import case_worker
from aiene.case_worker import Made, Order
from aiene.ingest.case import Case
from aiene.models.bundle import find_bundle
from aiene.nodes.node import CountingRule
from aiene.pipeline import Settings
from aiene.results.records import CaseResult
from aiene.results.store import RunStore

mpl.use("svg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "cluster_scale.json"
FIGURE = ROOT / "docs" / "images" / "scale.svg"
WORKERS = (16, 32, 64, 128, 256)
_ANSWER_BYTES = 100_000
_ROUNDS = 10
_RULE = CountingRule(0.5)


class Waiting:
    """In the place of `case_worker.work`: waits as long as a case would take.

    Parameters
    ----------
    seconds : that a case takes.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __call__(self, case: Case, order: Order, sent: bytes | None) -> Made:
        """A case without nodes."""
        del order, sent
        time.sleep(self._seconds)
        return Made(CaseResult(case.case_id, "no_nodes"), {"labels.nii.gz": os.urandom(_ANSWER_BYTES)})


def main() -> None:
    """Measure, print, store and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--wait-s", type=float, default=12.0)
    parser.add_argument("--only", help="two, 16, 32, ..., 256 or tables")
    words = parser.parse_args()
    stored: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    made_with = {"cases": words.cases, "wait_s": words.wait_s, "answer_bytes": _ANSWER_BYTES}
    done = stored.get("parts", {}) if stored.get("made_with") == made_with else {}
    parts = {
        "two": lambda: measured(2, words.cases, 0.0, processes=True),
        **{
            str(n): lambda n=n: measured(n, n * _ROUNDS, words.wait_s, processes=False)  # type: ignore[misc]
            for n in WORKERS
        },
        "tables": tables,
    }
    for name, work in parts.items():
        if words.only == name or (words.only is None and name not in done):
            done[name] = work()
            print(name, json.dumps(done[name]), flush=True)
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps({"made_with": made_with, "parts": done}, indent=1) + "\n")
    draw(done)


def measured(workers: int, cases: int, wait_s: float, *, processes: bool) -> dict[str, Any]:
    """One cohort through so many workers: seconds, share of the ideal, memory, open files."""
    case_worker.work = Waiting(wait_s)
    bundle, us = find_bundle("default"), psutil.Process()
    order = case_worker.order_of(bundle, Settings(0.5), "cpu", own_masks=False)
    every = [Case(f"case-{n}", "nifti", (Path(__file__),)) for n in range(cases)]
    with (
        tempfile.TemporaryDirectory() as folder,
        RunStore(Path(folder)) as store,
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=processes,
            dashboard_address=None,
            memory_limit=None,  # threads of one process would each count all of its memory, and pause
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        store.open({}, overwrite=False)
        road = case_worker.ClusterWork(client, bundle, order)
        road.check(every)
        for _, get in road.each(every[:workers]):  # the first answers pay for what is made once
            get()
        held: list[dict[str, Any]] = [_held(us)]
        start = time.monotonic()
        for number, (_, get) in enumerate(road.each(every), start=1):
            made = get()
            store.write_case(made.result, made.files)
            if number in (cases // 2, cases):
                held.append(_held(us))
        seconds = time.monotonic() - start
    ideal = cases * wait_s / workers
    return {
        "workers": workers,
        "cases": cases,
        "wait_s": wait_s,
        "seconds": round(seconds, 2),
        "cases_a_second": round(cases / seconds, 2),
        "ms_a_case_beyond_the_wait": round(1000 * max(0.0, seconds - ideal) / cases, 2),
        "share_of_ideal": round(ideal / seconds, 3),
        "held": dict(zip(("before", "halfway", "end"), held, strict=True)),
    }


def _held(us: psutil.Process) -> dict[str, Any]:
    """Memory and open files of this process and of the workers that are processes of their own."""
    workers = [p for p in us.children(recursive=True) if p.memory_info().rss > 50e6]
    return {
        "rss_mb": round(us.memory_info().rss / 1e6),
        "open_files": us.num_fds(),
        "workers_rss_mb": [round(p.memory_info().rss / 1e6) for p in workers],
        "workers_open_files": [p.num_fds() for p in workers],
    }


def tables() -> dict[str, Any]:
    """Seconds to write the tables, and to read every case's record, of cohorts of growing size."""
    rows = []
    for cases in (1000, 3000, 10000):
        results = [CaseResult(f"case-{n:06d}", "no_nodes") for n in range(cases)]
        with tempfile.TemporaryDirectory() as folder, RunStore(Path(folder)) as store:
            store.open({}, overwrite=False)
            start = time.monotonic()
            for result in results:
                store.write_case(result, {"labels.nii.gz": b"x"})
            written = time.monotonic()
            store.write_tables(results, axes=False, model="default", rule=_RULE, now=datetime.now())
            tabled = time.monotonic()
            store.results([result.case_id for result in results])
            rows.append(
                {
                    "cases": cases,
                    "write_ms_a_case": round(1000 * (written - start) / cases, 3),
                    "tables_s": round(tabled - written, 3),
                    "read_records_s": round(time.monotonic() - tabled, 3),
                }
            )
    return {"rows": rows}


def draw(parts: dict[str, Any]) -> None:
    """Throughput against workers, with the ideal."""
    rows = [parts[str(n)] for n in WORKERS if str(n) in parts]
    if not rows:
        return
    workers = [row["workers"] for row in rows]
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(workers, [n / rows[0]["wait_s"] for n in workers], color="0.6", ls="--", label="linear")
    seen = [row["cases_a_second"] for row in rows]
    axes.plot(workers, seen, "o-", label="measured")
    for row in rows:
        axes.annotate(
            f"{row['share_of_ideal']:.2f}",
            (row["workers"], row["cases_a_second"]),
            textcoords="offset points",
            xytext=(6, -12),
        )
    axes.set(xscale="log", yscale="log", xlabel="Workers", ylabel="Cases a second")
    axes.set_xticks(workers, [str(n) for n in workers], minor=False)
    axes.set_yticks(seen, [f"{value:.1f}" for value in seen], minor=False)
    axes.minorticks_off()
    axes.margins(0.14)  # room for the shares beside the outermost points
    axes.legend(title=f"Cases of {rows[0]['wait_s']:g} s; share of linear")
    mpl.rcParams["svg.hashsalt"] = "aiene"
    figure.savefig(FIGURE, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
