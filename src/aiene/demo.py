"""Two phantom patients, one as a DICOM series and one as NIfTI, through the whole road."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aiene.cohort import Progress, RunSummary, run_cohort
from aiene.phantom.phantom import PhantomSettings, make_phantom, write_dicom_series
from aiene.results.atomic import writing
from aiene.results.nifti import write_nifti
from aiene.results.ownership import Owned

SEEDS = {"phantom-dicom": 900_001, "phantom-nifti": 900_002}
"""Seeds of the two patients; never used in training."""


def run_demo(
    out: Path, *, jobs: int | None = None, on_case: Callable[[Progress], None] = lambda _: None
) -> RunSummary:
    """Make the phantoms in `out/phantoms` and run them into `out/results`.

    The true label maps lie beside, in `out/truth`, for who wants to compare.

    Raises
    ------
    OutputError : nothing can be written there.
    UsageError : files of the user's are in the way there.
    """
    phantoms, truth = out / "phantoms", out / "truth"
    for folder in (phantoms, truth):
        Owned(out).claim(folder.name)
    for case_id, seed in SEEDS.items():
        phantom = make_phantom(seed, PhantomSettings())
        write_nifti(phantom.labels, truth / f"{case_id}.nii.gz")
        if case_id.endswith("dicom"):
            with writing(phantoms):
                write_dicom_series(phantom.ct, phantoms / case_id, name=case_id)
        else:
            write_nifti(phantom.ct, phantoms / f"{case_id}.nii.gz")
    return run_cohort(phantoms, out / "results", jobs=jobs, overwrite=True, on_case=on_case)
