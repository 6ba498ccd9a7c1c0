"""`aiene report`: the pages of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aiene.cli.console import RESEARCH_ONLY, echo_json, stderr_console, user_errors
from aiene.errors import counted

if TYPE_CHECKING:
    from aiene.viewer.run import ReportSummary

ImagesOption = Annotated[
    Path | None,
    typer.Option("--images", help="Folder of the CTs, if they were moved or the run was pseudonymised."),
]
ClinicalOption = Annotated[
    Path | None,
    typer.Option(
        "--clinical", help="Table from aiene risk stratify, to show the risk group of each patient."
    ),
]
IdPatternOption = Annotated[
    str | None,
    typer.Option("--id-pattern", help="Regular expression that finds the patient id in a case id."),
]


def report(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The results folder of aiene run.")],
    images: ImagesOption = None,
    clinical: ClinicalOption = None,
    id_pattern: IdPatternOption = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Number of processes (default: one per core).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Write a page for each patient and one for the cohort, to open in a browser (no server or network)."""
    with user_errors():
        summary = write_report(out, images=images, clinical=clinical, id_pattern=id_pattern, jobs=jobs)
    if as_json:
        pages = {card.result.case_id: card.href for card in summary.cards}
        shown = {card.result.case_id: list(card.problems) for card in summary.cards if card.problems}
        echo_json({"cohort": str(summary.cohort), "pages": pages, "problems": shown, "notice": RESEARCH_ONLY})


def write_report(
    out: Path,
    *,
    images: Path | None = None,
    clinical: Path | None = None,
    id_pattern: str | None = None,
    jobs: int | None = None,
    shown: str = "",
) -> ReportSummary:
    """Write the pages, and say where they are and what they cannot show.

    Parameters
    ----------
    shown : how the folder is called on the screen, where its whole path may name a patient.
    """
    from aiene.viewer.run import PAGE, report_run

    console = stderr_console()
    summary = report_run(out, images=images, clinical=clinical, id_pattern=id_pattern, jobs=jobs)
    if summary.unseen:
        first = next(line for card in summary.cards for line in card.problems)
        console.print(
            f"{counted(summary.unseen, 'page')} cannot show everything: {first}", markup=False, style="yellow"
        )
    where = Path(shown or out) / PAGE
    console.print(
        f"Report of {counted(len(summary.cards), 'patient')}, to open in a browser: {where}", markup=False
    )
    return summary
