"""Two phantom patients, one as a DICOM series and one as NIfTI, through the whole road."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aiene.cli.console import print_nodes, stderr_console, tell_case, user_errors

if TYPE_CHECKING:
    from aiene.cohort import Progress, RunSummary

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
    from aiene.cohort import run_cohort
    from aiene.phantom.phantom import make_phantom, write_dicom_series
    from aiene.phantom.settings import PhantomSettings
    from aiene.results.atomic import writing
    from aiene.results.nifti import write_nifti
    from aiene.results.ownership import Owned

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


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for phantoms and results.")] = Path(
        "aiene-demo"
    ),
    jobs: Annotated[
        int | None, typer.Option(help="Cases prepared side by side (default: one per core).")
    ] = None,
) -> None:
    """Run two phantom patients (one DICOM series, one NIfTI file) with the open default bundle."""
    from aiene.models.bundle import find_bundle

    console = stderr_console()

    with user_errors():
        console.print("Making two phantom patients ...")
        summary = run_demo(out, jobs=jobs, on_case=partial(tell_case, console))
        threshold = find_bundle("default").card.ene_threshold
    print_nodes(summary, threshold)
    console.print(f"Tables and masks on the phantoms' own grids: {out / 'results'}", markup=False)
    raise typer.Exit(summary.exit_code)
