"""`aiene demo`: two phantom patients through the whole road."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from aiene.cli.console import print_nodes, stderr_console, tell_case, user_errors
from aiene.cli.report import write_report


def demo(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for the phantoms and their results.")
    ] = Path("aiene-demo"),
    jobs: Annotated[
        int | None, typer.Option(help="Cases to prepare in parallel (default: one per core).")
    ] = None,
) -> None:
    """Make two synthetic patients (a DICOM series and a NIfTI file) and run them with the included model."""
    from aiene.demo import run_demo  # torch is loaded here, not by --help

    console = stderr_console()

    with user_errors():
        console.print("Making two phantom patients ...")
        summary = run_demo(out, jobs=jobs, on_case=partial(tell_case, console))
        console.print("Drawing their pages ...")
        write_report(out / "results", jobs=jobs)
    print_nodes(summary)
    console.print(f"Tables and masks on the phantoms' own grids: {out / 'results'}", markup=False)
    console.print(f"Open in a browser: {(out / 'results' / 'report.html').resolve()}", markup=False)
    raise typer.Exit(summary.exit_code)
