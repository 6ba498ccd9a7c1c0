"""Commands on the folders of runs: `aiene retable` (another threshold) and `aiene merge` (parts)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aiene.cli.console import RESEARCH_ONLY, echo, echo_json, stderr_console, user_errors


def retable(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The results folder of aiene run.")],
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
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Count the nodes of a run again at another threshold and write new tables; no network runs."""
    from aiene.errors import UsageError
    from aiene.retable import retable as make

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
    stderr_console().print(f"{made.notice} {RESEARCH_ONLY}", markup=False, style="bold")


def merge(
    parts: Annotated[
        list[Path], typer.Argument(metavar="OUT...", help="Folders that the parts of one run filled.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="New folder for the whole run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Put the parts of a run (--num-parts) into one folder with one set of tables; say what is missing."""
    from aiene.merge import merge as make

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
    stderr_console().print(f"{merged.notice} {RESEARCH_ONLY}", markup=False, style="bold")
    raise typer.Exit(merged.exit_code)
