"""What `--registration fast` saves and moves against the published registration, on the CTs of a folder.

    OMP_NUM_THREADS=1 python -m tools.measurements.registration_fast ../shared/data/openkbp [--cases N]
                             [--seconds S] [--turned N] [--look PICTURE.png]

Each CT is prepared by both and goes through the networks of the default bundle, since the published weights
are not public; template, crop and window are those that these were trained with, as in `storage_order`. Times
are processor seconds of one core for the whole preparation. The metric (negative mutual information, lower is
better) is taken over the same voxels for both. The first N CTs are registered as published once more with
rows and columns stored in reverse (`storage_order`): how far the published result moves where nothing about
the patient changes is what the fast one's distance from it must be held against; the fast one is turned as
well. Writes `results/registration_fast.json` after every CT, and goes on from there; `--seconds` stops after
so many. `--look` draws the six CTs that lie farthest apart: the template's bone and body outlined on both.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch

from aiene.device import keep_freed_memory
from aiene.errors import AieneError
from aiene.geometry.resample import resample
from aiene.ingest.case import Case, NativeCt
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from aiene.models.bundle import find_bundle
from aiene.pipeline import Networks, load_networks
from aiene.preprocess.preprocess import Preparation, load_preparation, prepare
from aiene.preprocess.profile import PUBLISHED, Profile, profile_named
from tools.measurements.case_rows import store, taken_up
from tools.measurements.storage_order import ORDERS, Answer, against, answer_of

RESULTS = Path(__file__).parent / "results" / "registration_fast.json"
GRADES = {"exact": PUBLISHED, "fast": profile_named("published", rescue=False, registration="fast")}
_LOOKED_AT = 6


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--turned", type=int, default=30)
    parser.add_argument("--look", type=Path)
    words = parser.parse_args()
    began, bundle = time.monotonic(), find_bundle("default")
    torch.set_num_threads(1)
    keep_freed_memory()
    preparation = load_preparation(bundle)
    networks = load_networks(bundle, torch.device("cpu"), own_masks=False)
    rows = taken_up(RESULTS, bundle.sha256)
    files = spread_out(sorted(words.folder.glob("*/ct.nii.gz")))[: words.cases]
    threshold = bundle.card.ene_threshold
    for number, path in enumerate(files):
        row = rows.setdefault(path.parent.name, {})
        wanted = ["exact_s", *(["turned", "fast_turned"] if number < words.turned else [])]
        if "failed" in row or all(name in row for name in wanted) or time.monotonic() - began > words.seconds:
            continue
        try:
            ct = ct_of(path)
            if "exact_s" not in row:
                row |= compared(ct, preparation, networks, threshold)
            if number < words.turned:
                for grade, name in (("exact", "turned"), ("fast", "fast_turned")):
                    if name not in row:
                        row[name] = against_turned(ct, grade, preparation, networks, threshold)
        except AieneError as error:
            row["failed"] = str(error)
        print(path.parent.name, json.dumps(row), flush=True)
        store(RESULTS, bundle.sha256, summary(rows), rows)
    if words.look:
        far = sorted((r["corner_mm"], name) for name, r in rows.items() if "corner_mm" in r)[-_LOOKED_AT:]
        draw({name: ct_of(words.folder / name / "ct.nii.gz") for _, name in far}, preparation, words.look)


def ct_of(path: Path) -> NativeCt:
    """The one CT of a file."""
    (case,) = (c for c in find_cases(path)[0] if isinstance(c, Case))
    return read_case(case)


def spread_out(files: list[Path]) -> list[Path]:
    """The files in an order whose first few are spread over all of them."""
    step = 8
    return [file for first in range(step) for file in files[first::step]]


def compared(ct: NativeCt, preparation: Preparation, networks: Networks, threshold: float) -> dict[str, Any]:
    """One CT by both registrations: seconds, metrics, and what differs in the end."""
    row: dict[str, Any] = {}
    answers = {}
    for name, profile in GRADES.items():
        start = time.process_time()
        prepared = prepare(ct, preparation.template, how_of(profile, preparation))
        row[f"{name}_s"] = round(time.process_time() - start, 2)
        row[f"{name}_metric"] = round(prepared.registration.metric, 5)
        row[f"{name}_trusted"] = prepared.registration.trusted
        answers[name] = answer_of(prepared, preparation, networks)
    row["metric_gained"] = round(row["exact_metric"] - row["fast_metric"], 5)
    return row | beside(answers["fast"], answers["exact"], threshold)


def against_turned(
    ct: NativeCt, grade: str, preparation: Preparation, networks: Networks, threshold: float
) -> dict[str, Any]:
    """What one registration changes where rows and columns of the same CT are stored in reverse."""
    other = NativeCt(ct.volume.reordered(ORDERS["rows and columns reversed"]), ct.pixel_type)
    profile = how_of(GRADES[grade], preparation)
    one, two = (
        answer_of(prepare(stored, preparation.template, profile), preparation, networks)
        for stored in (ct, other)
    )
    return beside(two, one, threshold)


def how_of(profile: Profile, preparation: Preparation) -> Profile:
    """A profile's registration with the crop that the default networks were trained with."""
    return replace(profile, crop="patient", outside_hu=preparation.profile.outside_hu)


def beside(fast: Answer, exact: Answer, threshold: float) -> dict[str, Any]:
    """What another registration changes in the result."""
    told: dict[str, Any] = against(fast, exact, threshold)
    mine, theirs = fast.nodes > 0, exact.nodes > 0
    both = int(mine.sum() + theirs.sum())
    pairs = told["ene_pairs"]
    return {
        **told,
        "dice": round(2 * int((mine & theirs).sum()) / both, 5) if both else None,
        "exact_nodes": len(exact.ene),
        "exact_ai_ene": sum(ene > threshold for ene in exact.ene.values()),
        "ene_moved": round(max((abs(a - b) for a, b in pairs), default=0.0), 5),
    }


def summary(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Over all CTs that both registered."""
    done = [row for row in rows.values() if "failed" not in row]
    if not done:
        return {"failed": len(rows)}

    return {
        "cts": len(done),
        "failed": len(rows) - len(done),
        "exact_s": spread(done, "exact_s"),
        "fast_s": spread(done, "fast_s"),
        "seconds_ratio": round(sum(r["fast_s"] for r in done) / sum(r["exact_s"] for r in done), 3),
        "fast_has_the_better_metric": sum(r["fast_metric"] < r["exact_metric"] for r in done),
        "metric_gained": spread(done, "metric_gained"),
        "trusted": {name: sum(r[f"{name}_trusted"] for r in done) for name in ("exact", "fast")},
        "fast_against_exact": moved(done),
        "fast_against_exact_where_turned": moved([row for row in done if "turned" in row]),
        "exact_against_itself_turned": moved([row["turned"] for row in done if "turned" in row]),
        "fast_against_itself_turned": moved([row["fast_turned"] for row in done if "fast_turned" in row]),
    }


def draw(cts: dict[str, NativeCt], preparation: Preparation, to: Path) -> None:
    """Coronal and sagittal slices of the registered CTs, exact above fast, with the template's outlines."""
    template = preparation.template.volume
    _, y, x = (n // 2 for n in template.grid.size)
    planes = {"coronal": (slice(None, None, -1), y), "sagittal": (slice(None, None, -1), slice(None), x)}
    aspect = template.grid.spacing[0] / template.grid.spacing[2]
    figure, axes = plt.subplots(4, len(cts), figsize=(2.4 * len(cts), 9), squeeze=False)
    for column, (name, ct) in enumerate(cts.items()):
        for below, grade in enumerate(GRADES):
            place = prepare(ct, preparation.template, how_of(GRADES[grade], preparation)).to_native
            seen = resample(ct.volume, template.grid, order=1, outside=-1024.0, world=place)
            for row, (plane, cut) in enumerate(planes.items(), start=2 * below):
                axis = axes[row, column]
                axis.imshow(seen.array[cut], cmap="gray", vmin=-300, vmax=500, aspect=aspect)
                axis.contour(template.array[cut], levels=(-300, 250), colors=("cyan", "red"), linewidths=0.5)
                axis.set_title(f"{name}, {grade}, {plane}", fontsize=7)
                axis.axis("off")
    figure.tight_layout()
    figure.savefig(to, dpi=110)


def moved(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What changed over some CTs."""
    return {
        "cts": len(rows),
        "crop_corner_mm": spread(rows, "corner_mm"),
        "dice": spread(rows, "dice"),
        "ene_moved_most_of_a_patient": spread(rows, "ene_moved"),
        "ene_moved_of_a_node": spread(
            [{"ene": abs(a - b)} for row in rows for a, b in row["ene_pairs"]], "ene"
        ),
        "nodes": sum(row["exact_nodes"] for row in rows),
        "nodes_lost": sum(row["unpaired"] for row in rows),
        "patients_with_other_ai_ene": sum(row["ai_ene"] != row["exact_ai_ene"] for row in rows),
    }


def spread(rows: list[dict[str, Any]], name: str) -> dict[str, float] | None:
    """Least, median, 95th percentile and most of what the rows have of it."""
    values = [row[name] for row in rows if row.get(name) is not None]
    levels = {"least": 0.0, "median": 0.5, "p95": 0.95, "most": 1.0}
    return {k: round(float(np.quantile(values, q)), 4) for k, q in levels.items()} if values else None


if __name__ == "__main__":
    main()
