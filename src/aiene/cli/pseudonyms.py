"""`aiene pseudonyms`: the way back from pseudonyms to ids, for the owner of the key."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

from aiene.cells import rows_bytes
from aiene.cli.console import echo_json, stderr_console, user_errors


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
            console.print(f"warning: {warning}", markup=False, style="yellow")
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
    from aiene.errors import InputError

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
