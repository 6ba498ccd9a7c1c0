"""`aiene export`: a run's results as DICOM objects."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aiene.cli.console import RESEARCH_ONLY, echo_json, stderr_console, tell_row, user_errors
from aiene.errors import counted

if TYPE_CHECKING:
    from aiene.export.run import ExportSummary

_USUAL = ["dicom-seg", "dicom-sr", "rtstruct", "secondary-capture"]


def export(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The results folder of aiene run.")],
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            help=(
                "What to write, with commas or several times: dicom-seg, dicom-sr, rtstruct, "
                "secondary-capture (all four unless given), dicom-seg-fractional."
            ),
        ),
    ] = None,
    source_dicom: Annotated[
        Path | None,
        typer.Option(
            "--source-dicom",
            help="Folder of the source series, if they were moved or the input was not DICOM.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing objects that differ.")
    ] = False,
    reviewed: Annotated[
        bool,
        typer.Option("--reviewed", help="Export only what a reader accepted or corrected (aiene review)."),
    ] = False,
    reader: Annotated[str | None, typer.Option(help="Name of the reader, if there are several.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Write the results of a run as DICOM objects that reference the source images."""
    from aiene.export.run import export_run

    console = stderr_console()
    with user_errors():
        summary = export_run(
            out,
            to or _USUAL,
            source_dicom=source_dicom,
            on_case=partial(tell_row, console),
            overwrite=overwrite,
            reviewed=reviewed,
            reader=reader,
        )
    said = ", ".join(f"{count} {status}" for status, count in summary.counts.items())
    console.print(f"{counted(len(summary.rows), 'case')}: {said or 'none'}. Objects in {out}", markup=False)
    console.print(f"{summary.notice} {RESEARCH_ONLY}", markup=False, style="bold")
    if as_json:
        echo_json(_as_json(summary))
    raise typer.Exit(summary.exit_code)


def _as_json(summary: ExportSummary) -> dict[str, object]:
    return {
        "exit_code": summary.exit_code,
        "counts": summary.counts,
        "kinds": list(summary.kinds),
        "tables": {name: str(path) for name, path in summary.tables.items()},
        "cases": [
            {
                "case_id": row.case_id,
                "status": row.status,
                "reason": row.reason,
                "files": list(row.files),
                "warnings": list(row.warnings),
                "seconds": row.seconds,
            }
            for row in summary.rows
        ],
        "notice": f"{summary.notice} {RESEARCH_ONLY}",
    }
