"""What `--registration fast` saves and moves against the published registration, on the CTs of a folder.

    OMP_NUM_THREADS=1 python -m tools.measurements.registration_fast ../shared/data/openkbp [--cases N]
                             [--seconds S]

Each CT is prepared by both and goes through the networks of the default bundle, since the published weights
are not public; template, crop and window are those that these were trained with, as in `storage_order`. Times
are processor seconds of one core for the whole preparation. The metric (negative mutual information, lower is
better) is taken over the same voxels for both. Writes `results/registration_fast.json` after every CT, and
goes on from there; `--seconds` stops after so many.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aiene.device import keep_freed_memory
from aiene.errors import AieneError
from aiene.ingest.case import Case, NativeCt
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from aiene.models.bundle import find_bundle
from aiene.pipeline import Networks, load_networks
from aiene.preprocess.preprocess import Preparation, load_preparation, prepare
from aiene.preprocess.profile import PUBLISHED, profile_named
from tools.measurements.storage_order import Answer, against, answer_of

RESULTS = Path(__file__).parent / "results" / "registration_fast.json"
FAST = profile_named("published", rescue=False, registration="fast")


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1e9)
    words = parser.parse_args()
    began, bundle = time.monotonic(), find_bundle("default")
    torch.set_num_threads(1)
    keep_freed_memory()
    preparation = load_preparation(bundle)
    networks = load_networks(bundle, torch.device("cpu"), own_masks=False)
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    rows = stored["cases"] if stored.get("bundle") == bundle.sha256 else {}
    for path in spread_out(sorted(words.folder.glob("*/ct.nii.gz")))[: words.cases]:
        if path.parent.name in rows or time.monotonic() - began > words.seconds:
            continue
        (case,) = (c for c in find_cases(path)[0] if isinstance(c, Case))
        try:
            row = compared(read_case(case), preparation, networks, bundle.card.ene_threshold)
        except AieneError as error:
            row = {"failed": str(error)}
        rows[path.parent.name] = row
        print(path.parent.name, json.dumps(row), flush=True)
        content = {"bundle": bundle.sha256, "summary": summary(rows), "cases": rows}
        RESULTS.write_text(json.dumps(content, indent=1) + "\n")


def spread_out(files: list[Path]) -> list[Path]:
    """The files in an order whose first few are spread over all of them."""
    step = 8
    return [file for first in range(step) for file in files[first::step]]


def compared(ct: NativeCt, preparation: Preparation, networks: Networks, threshold: float) -> dict[str, Any]:
    """One CT by both registrations: seconds, metrics, and what differs in the end."""
    row: dict[str, Any] = {}
    answers = {}
    for name, profile in {"exact": PUBLISHED, "fast": FAST}.items():
        how = replace(profile, crop="patient", outside_hu=preparation.profile.outside_hu)
        start = time.process_time()
        prepared = prepare(ct, preparation.template, how)
        row[f"{name}_s"] = round(time.process_time() - start, 2)
        row[f"{name}_metric"] = round(prepared.registration.metric, 5)
        row[f"{name}_trusted"] = prepared.registration.trusted
        answers[name] = answer_of(prepared, preparation, networks)
    row["metric_gained"] = round(row["exact_metric"] - row["fast_metric"], 5)
    return row | beside(answers["fast"], answers["exact"], threshold)


def beside(fast: Answer, exact: Answer, threshold: float) -> dict[str, Any]:
    """What the fast registration changes in the result."""
    told = against(fast, exact, threshold)
    mine, theirs = fast.nodes > 0, exact.nodes > 0
    both = int(mine.sum() + theirs.sum())
    pairs = told.pop("ene_pairs")
    return {
        **told,
        "dice": round(2 * int((mine & theirs).sum()) / both, 5) if both else None,
        "exact_nodes": len(exact.ene),
        "exact_ai_ene": sum(ene > threshold for ene in exact.ene.values()),
        "ene_moved": round(max((abs(a - b) for a, b in pairs), default=0.0), 5),  # type: ignore[attr-defined]
    }


def summary(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Over all CTs that both registered."""
    done = [row for row in rows.values() if "failed" not in row]
    if not done:
        return {"failed": len(rows)}

    def spread(name: str) -> dict[str, float] | None:
        values = [row[name] for row in done if row.get(name) is not None]
        levels = {"least": 0.0, "median": 0.5, "p95": 0.95, "most": 1.0}
        return {k: round(float(np.quantile(values, q)), 4) for k, q in levels.items()} if values else None

    return {
        "cts": len(done),
        "failed": len(rows) - len(done),
        "exact_s": spread("exact_s"),
        "fast_s": spread("fast_s"),
        "seconds_ratio": round(sum(r["fast_s"] for r in done) / sum(r["exact_s"] for r in done), 3),
        "fast_has_the_better_metric": sum(r["fast_metric"] < r["exact_metric"] for r in done),
        "metric_gained": spread("metric_gained"),
        "trusted": {name: sum(r[f"{name}_trusted"] for r in done) for name in ("exact", "fast")},
        "crop_corner_mm": spread("corner_mm"),
        "dice": spread("dice"),
        "ene_moved": spread("ene_moved"),
        "nodes": sum(r.get("exact_nodes", 0) for r in done),
        "nodes_lost": sum(r.get("unpaired", 0) for r in done),
        "patients_with_other_ai_ene": sum(r.get("ai_ene") != r.get("exact_ai_ene") for r in done),
    }


if __name__ == "__main__":
    main()
