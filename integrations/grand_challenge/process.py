"""Grand Challenge's contract: a CT below /input, results below /output, no network.

Reads `images/head-neck-ct/*.mha` (or `.nii.gz`); writes `images/lymph-node-segmentation/NAME.mha` (1 GTVp,
2 GTVn, on the CT's grid), `extranodal-extension.json` (one entry a node) and `results.json` (status and
reason of every case).
"""

from __future__ import annotations

import csv
import json
import os
import sys
import tempfile
from pathlib import Path

import SimpleITK as sitk

from aiene.cohort import RunSummary, run_cohort

INPUT, OUTPUT = Path(os.environ.get("GC_INPUT", "/input")), Path(os.environ.get("GC_OUTPUT", "/output"))
IMAGES, LABELS = "images/head-neck-ct", "images/lymph-node-segmentation"


def main() -> int:
    """Run every CT; the exit code of `aiene run`."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "out"
        summary = run_cohort(INPUT / IMAGES, out, jobs=1)
        write(summary, out)
    return summary.exit_code


def write(summary: RunSummary, out: Path) -> None:
    """Results where the platform looks for them."""
    (OUTPUT / LABELS).mkdir(parents=True, exist_ok=True)
    for result in summary.results:
        if result.status in ("ok", "no_nodes"):
            image = sitk.ReadImage(str(out / "cases" / result.case_id / "labels.nii.gz"))
            sitk.WriteImage(image, str(OUTPUT / LABELS / f"{result.case_id}.mha"), useCompression=True)
    with (out / "nodes.csv").open(encoding="utf-8", newline="") as stream:
        nodes = list(csv.DictReader(stream))
    statuses = [{"case": r.case_id, "status": r.status, "reason": r.reason} for r in summary.results]
    (OUTPUT / "extranodal-extension.json").write_text(json.dumps(nodes, indent=2), encoding="utf-8")
    (OUTPUT / "results.json").write_text(json.dumps(statuses, indent=2), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
