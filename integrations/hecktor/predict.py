"""HECKTOR's contract for task 1: a mask a patient (1 GTVp, 2 GTVn, 0 nothing) on its CT's grid, and the ZIP.

    python predict.py IMAGES OUT

IMAGES holds `PATIENT__CT.nii.gz` (2022: in one folder; 2025: in one a patient); the PET is not used. OUT gets
`run` (of `aiene run`), `masks/PATIENT.nii.gz`, `masks.zip` to hand in, and `cases.csv` with the status
and reason of every patient: who failed has no mask. Task 2 (recurrence) is no task of this software.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from aiene.cohort import RunSummary, run_cohort

ENDING = "__CT.nii.gz"


def main(words: Sequence[str] | None = None) -> int:
    """Run every CT; the exit code of `aiene run`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args(words)
    cts, out = find(given.images), given.out
    if not cts:
        parser.error(f"{given.images.name}: no file *{ENDING} lies there; name HECKTOR's folder of images.")
    out.mkdir(parents=True, exist_ok=True)
    write_list(cts, out / "cts.csv")
    summary = run_cohort(out / "cts.csv", out / "run")
    write(summary, out)
    return summary.exit_code


def find(images: Path) -> dict[str, Path]:
    """The CT of every patient, by the patient's id."""
    return {file.name.removesuffix(ENDING): file for file in sorted(images.rglob(f"*{ENDING}"))}


def write_list(cts: dict[str, Path], file: Path) -> None:
    """The input list of a run."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        rows = [("case_id", "image"), *((patient, str(ct.resolve())) for patient, ct in cts.items())]
        csv.writer(stream).writerows(rows)


def write(summary: RunSummary, out: Path) -> None:
    """The masks as they are handed in."""
    masks = out / "masks"
    shutil.rmtree(masks, ignore_errors=True)
    masks.mkdir()
    for result in summary.results:
        if result.status in ("ok", "no_nodes"):
            labels = out / "run" / "cases" / result.case_id / "labels.nii.gz"
            shutil.copyfile(labels, masks / f"{result.case_id}.nii.gz")
    with zipfile.ZipFile(out / "masks.zip", "w") as archive:
        for mask in sorted(masks.iterdir()):
            archive.write(mask, f"masks/{mask.name}")
    with (out / "cases.csv").open("w", encoding="utf-8", newline="") as stream:
        rows = [(r.case_id, r.status, r.reason) for r in summary.results]
        csv.writer(stream).writerows([("patient", "status", "reason"), *rows])


if __name__ == "__main__":
    sys.exit(main())
