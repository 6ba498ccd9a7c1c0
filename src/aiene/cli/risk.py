"""`aiene risk`: clinical tables and AI-ENE counts in, stages, risk groups and analyses out."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from aiene.cli.console import echo, stderr_console, user_errors
from aiene.cli.risk_options import (
    AiEneOption,
    IdPatternOption,
    JsonOption,
    OwnReading,
    Reading,
    ReviewedOption,
    RtogOption,
    SchemeOption,
    StagingChoices,
    TableArgument,
    counts,
    counts_of,
    echo_json,
    join,
    print_counts,
    print_preview,
    read,
    simulated,
    tell_end,
    with_records,
    write_with_record,
)
from aiene.errors import counted

app = typer.Typer(
    help="From AI-ENE node counts to risk groups: staging, stratifying, survival. Research only.",
    no_args_is_help=True,
)

OutOption = Annotated[
    Path | None,
    typer.Option("-o", "--out", help="Table to write. NAME.json beside it records how it was made."),
]
_STAGES = ("ajcc7_n", "ajcc7_stage", "ajcc8_stage", "ajcc8_p_stage", "v9_stage", "rtog0129")


@app.command(name="import")
@with_records
def import_(
    *,
    table: Annotated[Path | None, typer.Argument(metavar="TABLE", help="The clinical table to read.")] = None,
    out: OutOption = None,
    reading: OwnReading,
    template: Annotated[
        Path | None,
        typer.Option(help="Write a mapping file to fill in, with the headers of TABLE, and exit."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read a clinical table, show how it was understood, and write it as a canonical table."""
    from aiene.errors import UsageError

    with user_errors():
        if template is not None:
            _write_template(template, table, reading.sheet)
            return
        if table is None:
            raise UsageError("no table; name one, or write a mapping file with --template.")
        found = read(table, reading)
        record = {
            "provenance": found.provenance,
            "warnings": list(found.warnings),
            "notes": list(found.notes),
            "preview": [asdict(line) for line in found.preview],
            "simulated": simulated(found.table),
        }
        if out is not None:
            write_with_record(found.table, out, record)
        if as_json:
            echo_json(record)
        else:
            _show_import(found.provenance, found.preview)
        tell_end(found.table)
    raise typer.Exit(int(bool(found.dropped)))


def _write_template(path: Path, table: Path | None, sheet: str | None) -> None:
    from aiene.errors import OutputError
    from aiene.results.atomic import write_bytes
    from aiene.risk.importers.generic import template
    from aiene.risk.table.files import read_raw

    if path.exists():
        raise OutputError(path, "it exists already", "choose another name, so that no mapping is overwritten")
    headers = () if table is None else tuple(str(name) for name in read_raw(table, sheet=sheet).columns)
    write_bytes(path, template(headers).encode())
    stderr_console().print(
        f"mapping file written: {path.name}; fill it in, then name it with --map", markup=False
    )


def _show_import(provenance: dict[str, Any], preview: Any) -> None:
    print_preview(preview)
    echo(
        f"{counted(provenance['patients'], 'patient')}; "
        f"times start at {provenance['time_origin'] or 'an unstated origin'}; "
        f"endpoints: {', '.join(provenance['endpoints']) or 'none'}"
    )
    if provenance["ignored_columns"]:
        echo(f"columns left out: {', '.join(provenance['ignored_columns'])}")


@app.command()
def example(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the tables.")],
) -> None:
    """Write example tables (simulated patients), with a list of commands to try on them."""
    from aiene.risk.example import write_example

    with user_errors():
        names = write_example(out)
        echo(f"{counted(len(names), 'file')} in {out}: {', '.join(names)}")
        echo(
            f"next: aiene risk stage {shlex.quote(str(out / 'cohort.csv'))}; README.txt there lists the rest"
        )


@app.command()
@with_records
def stage(
    *,
    table: TableArgument,
    out: OutOption = None,
    reading: Reading,
    staging: StagingChoices,
    rtog: RtogOption = "fakhry2019",
    own_edition: Annotated[
        list[Path] | None,
        typer.Option("--own-edition", help="TOML file with rules of your own, for two more columns; repeat."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Stage every patient (AJCC/UICC 7, 8 and version 9, RTOG-0129), with the rule used or why unknown."""
    import pandas as pd

    from aiene.risk.staging.own_edition import read_editions
    from aiene.risk.staging.stage import stage_table

    with user_errors():
        own = read_editions(own_edition or [])
        found = read(table, reading)
        chosen = staging.options(rtog)
        staged = stage_table(found.table, options=chosen, own=own)
        whole = pd.concat([found.table.drop(columns=[n for n in staged if n in found.table]), staged], axis=1)
        whole = whole[["patient_id", *(n for n in whole if n != "patient_id")]]
        tally = counts(staged, (*_STAGES, *(name for one in own for name in one.columns)))
        record = {
            "provenance": found.provenance,
            "warnings": list(found.warnings),
            "staging": asdict(chosen),
            **({"own_editions": [one.name for one in own]} if own else {}),
            "counts": tally,
            "simulated": simulated(found.table),
        }
        if out is not None:
            write_with_record(whole, out, record)
        echo_json(record) if as_json else print_counts(tally)
        tell_end(found.table)
    raise typer.Exit(int(bool(found.dropped)))


@app.command()
@with_records
def stratify(
    *,
    table: TableArgument,
    ai_ene: AiEneOption = None,
    reviewed: ReviewedOption = False,
    out: OutOption = None,
    scheme: SchemeOption = "count-0-1-2plus",
    reading: Reading,
    id_pattern: IdPatternOption = None,
    staging: StagingChoices,
    as_json: JsonOption = False,
) -> None:
    """Join the AI-ENE counts and assign every patient to a risk group by a scheme, step by step."""
    from aiene.risk import stratify as stratifying
    from aiene.risk.schemes.scheme import read_scheme

    with user_errors():
        chosen = read_scheme(scheme)
        found = read(table, reading)
        ai_ene = counts_of(ai_ene, reviewed)
        with_counts, joined = join(found, ai_ene, id_pattern)
        decided = staging.options(chosen.base_definition)
        groups = stratifying.stratify(with_counts, chosen, options=decided)
        tally = counts(groups, ("base_group", "marker_class", "combined_group", "combined_reason"))
        record = {
            "provenance": found.provenance,
            "warnings": list(found.warnings),
            "staging": asdict(decided),
            "scheme": {**chosen.content(), "sha256": chosen.sha256, "file_sha256": chosen.file_sha256},
            "join": None
            if joined is None
            else {
                "matched": joined.matched,
                "only_table": list(joined.only_table),
                "only_ai": list(joined.only_ai),
                "warnings": list(joined.warnings),
            },
            "counts": tally,
            "simulated": simulated(groups),
        }
        if out is not None:
            write_with_record(groups, out, record)
        echo_json(record) if as_json else _show_scheme(chosen, tally)
        tell_end(groups)
    raise typer.Exit(int(bool(found.dropped) or bool(joined and joined.only_table)))


def _show_scheme(scheme: Any, tally: dict[str, dict[str, int]]) -> None:
    echo(f"scheme {scheme.name} ({scheme.source.kind} by {scheme.source.by}), sha256 {scheme.sha256}")
    if scheme.source.note:
        echo(f"  {scheme.source.note}")
    for group in scheme.base_groups:
        row = ", ".join(f"{c}: {to}" for c, to in zip(scheme.classes, scheme.mapping[group], strict=True))
        echo(f"  {group} -> {row}")
    print_counts({name: words for name, words in tally.items() if name != "combined_reason"})
    for reason, n in tally["combined_reason"].items():
        if reason:
            echo(f"  unclassifiable, {reason}: {n}")
