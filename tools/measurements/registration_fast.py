"""What `--registration fast` saves and moves against the published registration, on the CTs of a folder.

    OMP_NUM_THREADS=1 python -m tools.measurements.registration_fast ../shared/data/openkbp [--cases N]
                             [--template TEMPLATE.nrrd] [--seconds S]

Each CT is prepared by both and goes through the networks of the default bundle, since the published weights
are not public; crop and window are those that these were trained with, as in `storage_order`. With a template
of one's own (such as the published one) only the registration is compared. Times are processor seconds of one
core. Writes `results/registration_fast.json` after every CT, and goes on from there; `--seconds` stops after
so many.
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
from aiene.hashing import file_sha256
from aiene.ingest.case import Case, NativeCt
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from aiene.models.bundle import find_bundle
from aiene.pipeline import load_networks
from aiene.preprocess.profile import PUBLISHED, Profile, profile_named
from aiene.preprocess.registration import Template
from aiene.preprocess.registration_quality import register
from aiene.preprocess.resampling import published_working
from aiene.preprocess.template import load_preparation, read_template
from tools.measurements.storage_order import Answer, against, answered

RESULTS = Path(__file__).parent / "results" / "registration_fast.json"
FAST = profile_named("published", rescue=False, registration="fast")


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--template", type=Path)
    parser.add_argument("--seconds", type=float, default=1e9)
    words = parser.parse_args()
    began, bundle = time.monotonic(), find_bundle("default")
    torch.set_num_threads(1)
    keep_freed_memory()
    preparation = load_preparation(bundle)
    networks = load_networks(bundle, torch.device("cpu"), own_masks=False)
    hybrid = replace(PUBLISHED, crop="patient", outside_hu=preparation.profile.outside_hu)
    file = words.template or bundle.template_file
    template = read_template(file, PUBLISHED) if words.template else preparation.template
    made_with = {"template": file_sha256(file), "reach_mm": FAST.reach_mm, "bundle": bundle.sha256}
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    rows = stored["cases"] if stored.get("made_with") == made_with else {}
    files = sorted(words.folder.glob("*/ct.nii.gz"))
    for path in spread_out(files)[: words.cases]:
        if path.parent.name in rows or time.monotonic() - began > words.seconds:
            continue
        (case,) = (c for c in find_cases(path)[0] if isinstance(c, Case))
        try:
            ct = read_case(case)
            row = registered(ct, template)
            if words.template is None:
                answers = {
                    name: answered(
                        ct, replace(preparation, profile=replace(hybrid, reach_mm=reach)), networks
                    )
                    for name, reach in (("exact", None), ("fast", FAST.reach_mm))
                }
                row |= beside(answers["fast"], answers["exact"], bundle.card.ene_threshold)
        except AieneError as error:
            row = {"failed": str(error)}
        rows[path.parent.name] = row
        print(path.parent.name, json.dumps(row), flush=True)
        content = {"made_with": made_with, "summary": summary(rows), "cases": rows}
        RESULTS.write_text(json.dumps(content, indent=1) + "\n")


def spread_out(files: list[Path]) -> list[Path]:
    """The files in an order whose first few are spread over all of them."""
    step = 8
    return [file for first in range(step) for file in files[first::step]]


def registered(ct: NativeCt, template: Template) -> dict[str, Any]:
    """Seconds of both registrations, and how far apart they lay the template's corners."""
    working, corners, row = published_working(ct), template.volume.grid.corners(), {}
    poses = {}
    profiles: dict[str, Profile] = {"exact": PUBLISHED, "fast": FAST}
    for name, profile in profiles.items():
        start = time.process_time()
        fit = register(working, template, profile)
        row[f"{name}_s"] = round(time.process_time() - start, 2)
        row[f"{name}_metric"] = round(fit.kept.verdict.metric, 5)
        poses[name] = fit.kept.pose.rigid().apply(corners)
    row["template_corner_mm"] = round(float(np.linalg.norm(poses["fast"] - poses["exact"], axis=1).max()), 4)
    return row


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
        "template_corner_mm": spread("template_corner_mm"),
        "crop_corner_mm": spread("corner_mm"),
        "dice": spread("dice"),
        "ene_moved": spread("ene_moved"),
        "nodes": sum(r.get("exact_nodes", 0) for r in done),
        "nodes_lost": sum(r.get("unpaired", 0) for r in done),
        "patients_with_other_ai_ene": sum(r.get("ai_ene") != r.get("exact_ai_ene") for r in done),
    }


if __name__ == "__main__":
    main()
