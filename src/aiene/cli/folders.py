"""Commands on the folders of runs: `aiene report`, `retable`, `merge`, `export` and `pseudonyms`.

They draw pages, tell another threshold, put parts together, write DICOM objects, and lead back from
pseudonyms for the owner of the key.
"""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aiene.cli.console import (
    RESEARCH_ONLY,
    AsJson,
    IdPatternOption,
    RunFolder,
    echo,
    echo_json,
    picked,
    stderr_console,
    tally,
    tell_row,
    user_errors,
)
from aiene.csv_tables import rows_bytes
from aiene.errors import InputError, UsageError, counted

if TYPE_CHECKING:
    from aiene.export.run import ExportSummary
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


def report(
    out: RunFolder,
    images: ImagesOption = None,
    clinical: ClinicalOption = None,
    id_pattern: IdPatternOption = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Number of processes (default: one per core).")
    ] = None,
    as_json: AsJson = False,
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
        console.print(f"{counted(summary.unseen, 'page')} cannot show everything: {first}", style="yellow")
    where = Path(shown or out) / PAGE
    console.print(f"Report of {counted(len(summary.cards), 'patient')}, to open in a browser: {where}")
    return summary


def retable(
    out: RunFolder,
    ene_threshold: Annotated[
        float | None,
        typer.Option(help="New ENE threshold: a node counts if `ene` is over it (default: as in the run)."),
    ] = None,
    pos_from: Annotated[
        float | None,
        typer.Option(
            help="New minimum of `pos`: a node counts if `pos` is this or more (default: as in the run)."
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder for the tables (default: OUT/ene-threshold-T)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count the nodes of a run again at another threshold and write new tables; no network runs."""
    from aiene.finished_runs import retable as make

    with user_errors():
        if ene_threshold is None and pos_from is None:
            raise UsageError("nothing to change; give --ene-threshold, --pos-from or both.")
        made = make(out, ene_threshold=ene_threshold, pos_from=pos_from, to=to)
    counts = {
        when: {
            "nodes": sum(len(result.nodes) for result in results),
            "n_ai_ene": sum(result.n_ai_ene for result in results),
            "cases_with_ene": sum(result.n_ai_ene > 0 for result in results),
        }
        for when, results in (("before", made.before), ("after", made.after))
    }
    if as_json:
        tables = {name: str(path) for name, path in made.tables.items()}
        echo_json({"counts": counts, "finished": made.finished, "tables": tables, "notice": made.notice})
        return
    if not made.finished:
        echo("warning: the run is not finished; the tables hold the cases that are done.", err=True)
    told = {"nodes": "nodes", "n_ai_ene": "AI-ENE nodes", "cases_with_ene": "cases with an AI-ENE node"}
    for key, words in told.items():
        echo(f"{words}: {counts['before'][key]} in the run, {counts['after'][key]} now")
    echo(f"Tables: {made.tables['cases'].parent}")
    stderr_console().print(f"{made.notice} {RESEARCH_ONLY}", style="bold")


def merge(
    parts: Annotated[
        list[Path], typer.Argument(metavar="OUT...", help="Folders that the parts of one run filled.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="New folder for the whole run.")],
    as_json: AsJson = False,
) -> None:
    """Put the parts of a run (--num-parts) into one folder with one set of tables; say what is missing."""
    from aiene.finished_runs import merge as make

    with user_errors():
        merged = make(parts, out)
    done = sum(result.status in ("ok", "no_nodes") for result in merged.results)
    failed = sum(result.status == "failed" for result in merged.results)
    if as_json:
        echo_json(
            {
                "cases": len(merged.results),
                "done": done,
                "failed": failed,
                "missing": list(merged.missing),
                "absent_parts": list(merged.absent),
                "notice": merged.notice,
            }
        )
        raise typer.Exit(merged.exit_code)
    echo(f"{len(merged.results)} cases: {done} done, {failed} failed, {len(merged.missing)} missing.")
    if merged.missing:
        shown = ", ".join(merged.missing[:5]) + (", ..." if len(merged.missing) > 5 else "")
        echo(f"missing: {shown}", err=True)
    if merged.absent:
        parts_absent = ", ".join(str(part) for part in merged.absent)
        echo(f"no folder of --part-id {parts_absent} was named.", err=True)
    echo(f"Tables: {out}")
    stderr_console().print(f"{merged.notice} {RESEARCH_ONLY}", style="bold")
    raise typer.Exit(merged.exit_code)


_USUAL = ["dicom-seg", "dicom-sr", "rtstruct", "secondary-capture"]


def export(
    out: RunFolder,
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
    as_json: AsJson = False,
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
    console.print(
        f"{counted(len(summary.rows), 'case')}: {tally(summary.counts) or 'none'}. Objects in {out}"
    )
    console.print(f"{summary.notice} {RESEARCH_ONLY}", style="bold")
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
            picked(row, "case_id", "status", "reason", "files", "warnings", "seconds") for row in summary.rows
        ],
        "notice": f"{summary.notice} {RESEARCH_ONLY}",
    }


def pseudonyms(
    keyfile: Annotated[Path, typer.Argument(metavar="KEYFILE", help="The key file of the run.")],
    source: Annotated[
        Path,
        typer.Argument(metavar="INPUT", help="The CTs of the run, or a CSV with a column of case ids."),
    ],
    column: Annotated[str, typer.Option(help="Column of the ids, if INPUT is a CSV.")] = "case_id",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of CSV.")] = False,
) -> None:
    """Print each case id with its pseudonym in `aiene run --pseudonymise`; keep this table safe."""
    from aiene.deidentify import all_pseudonyms, read_key

    console = stderr_console()
    with user_errors():
        key, warnings = read_key(keyfile)
        for warning in warnings:
            console.print(f"warning: {warning}", style="yellow")
        table = all_pseudonyms(key, _case_ids(source, column))
    if as_json:
        echo_json(table)
        return
    typer.echo(rows_bytes([("case_id", "pseudonym"), *table.items()]).decode(), nl=False)


def _case_ids(source: Path, column: str) -> list[str]:
    """The ids of the cases of an input, as a run would find them, or of a table."""
    from aiene.ingest.find import find_cases

    if source.is_file() and source.suffix.lower() in (".csv", ".tsv"):
        return _column(source, column)
    found, _ = find_cases(source)
    return [case.case_id for case in found]


def _column(table: Path, column: str) -> list[str]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream, delimiter="\t" if table.suffix.lower() == ".tsv" else ",")
            names = rows.fieldnames or []
            if column not in names:
                raise InputError(
                    table, f"it has no column {column}", f"name one with --column ({', '.join(names)})"
                )
            return [value for row in rows if (value := (row[column] or "").strip())]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(table, "it cannot be read as a table", "save it as CSV in UTF-8") from error
