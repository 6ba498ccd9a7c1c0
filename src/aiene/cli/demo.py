"""`aiene demo`: two phantom patients, one as a DICOM series and one as NIfTI, through the whole road."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aiene.cli.console import print_nodes, stderr_console, tell_case, user_errors
from aiene.cli.report import write_report

if TYPE_CHECKING:
    from aiene.cohort import Progress, RunSummary

SEEDS = {"phantom-dicom": 900_001, "phantom-nifti": 900_002}
"""Seeds of the two patients; never used in training."""


def demo(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for the phantoms and their results.")
    ] = Path("aiene-demo"),
    jobs: Annotated[
        int | None, typer.Option(help="Cases to prepare in parallel (default: one per core).")
    ] = None,
) -> None:
    """Make two synthetic patients (a DICOM series and a NIfTI file) and run them with the included model."""
    console = stderr_console()

    with user_errors():
        console.print("Making two phantom patients ...")
        summary = _run(out, jobs=jobs, on_case=partial(tell_case, console))
        console.print("Drawing their pages ...")
        write_report(out / "results", jobs=jobs)
    print_nodes(summary)
    console.print(f"Tables and masks on the phantoms' own grids: {out / 'results'}", markup=False)
    console.print(f"Open in a browser: {(out / 'results' / 'report.html').resolve()}", markup=False)
    raise typer.Exit(summary.exit_code)


def _run(out: Path, *, jobs: int | None, on_case: Callable[[Progress], None]) -> RunSummary:
    """Make the phantoms in `out/phantoms` and run them into `out/results`.

    The true label maps lie beside, in `out/truth`, for who wants to compare.

    Raises
    ------
    OutputError : nothing can be written there.
    UsageError : files of the user's are in the way there.
    """
    from aiene.cohort import run_cohort  # torch is loaded here, not by --help
    from aiene.phantom.phantom import PhantomSettings, make_phantom, write_dicom_series
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
