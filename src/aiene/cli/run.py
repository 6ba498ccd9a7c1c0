"""`aiene run`: CTs in, nodes out."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aiene.cli.console import RESEARCH_ONLY, stderr_console, tell_case, user_errors

if TYPE_CHECKING:
    from aiene.cohort import RunSummary, Selection
    from aiene.results import CaseResult


def run(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A CT, or a folder of CTs.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for the results.")] = None,
    input_format: Annotated[
        Literal["auto", "dicom", "nrrd", "nii", "nii.gz"],
        typer.Option("--format", help="How the CTs are stored."),
    ] = "auto",
    model: Annotated[str, typer.Option(help="Name or folder of a model bundle.")] = "default",
    device: Annotated[str, typer.Option("-d", "--device", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    gpu: Annotated[str | None, typer.Option(hidden=True, help="cpu, auto or a number; as --device.")] = None,
    fg_labels: Annotated[
        str, typer.Option(help="Labels that hold nodes: 2, any, or a list such as 1,2.")
    ] = "2",
    include_short_axes: Annotated[
        bool, typer.Option("--include-short-axes", help="Measure long and short axes too.")
    ] = False,
    num_parts: Annotated[int, typer.Option(help="Share the cases among so many calls.")] = 1,
    part_id: Annotated[int, typer.Option(help="Which share this call takes, from 0.")] = 0,
    ene_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Instead of the bundle's own.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Take the first so many cases.")] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Cases prepared side by side (default: one per core).")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of own masks by case id, instead of the segmenter.")
    ] = None,
    keep_prepared: Annotated[
        bool, typer.Option("--keep-prepared", help="Keep the networks' input and the rigid transform.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that lie in OUT.")] = False,
    series: Annotated[str | None, typer.Option(help="SeriesInstanceUID to take.")] = None,
    list_only: Annotated[
        bool, typer.Option("--list", help="Show what would be run and what is left aside, and end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Find the lymph nodes of every CT and estimate their probability of extranodal extension."""
    from aiene.cli.published import device_of
    from aiene.cohort import Selection, run_cohort  # torch is loaded here, not by --help
    from aiene.errors import UsageError

    chosen = Selection(input_format, series, limit, num_parts, part_id)
    console = stderr_console()

    with user_errors():
        if list_only:
            _list(source, chosen, as_json)
            return
        if out is None:
            raise UsageError("no folder for the results; name one with -o.")
        summary = run_cohort(
            source,
            out,
            model=model,
            device=device if gpu is None else device_of(gpu),
            selection=chosen,
            fg_labels=fg_labels,
            include_short_axes=include_short_axes,
            ene_threshold=ene_threshold,
            masks=masks,
            keep_prepared=keep_prepared,
            jobs=jobs,
            overwrite=overwrite,
            on_case=partial(tell_case, console),
        )
    _tell_end(summary, out, as_json)
    raise typer.Exit(summary.exit_code)


def _tell_end(summary: RunSummary, out: Path, as_json: bool) -> None:
    console = stderr_console()
    counts = {s: sum(r.status == s for r in summary.results) for s in ("ok", "no_nodes", "failed", "skipped")}
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    console.print(f"{len(summary.results)} cases: {said}. Results in {out}", markup=False)
    console.print(f"{summary.notice} {RESEARCH_ONLY}", markup=False, style="bold")
    if as_json:
        content = {
            "exit_code": summary.exit_code,
            "counts": counts,
            "tables": {name: str(path) for name, path in summary.tables.items()},
            "cases": [_case_json(result) for result in summary.results],
            "left_aside": list(summary.left_aside),
            "notice": f"{summary.notice} {RESEARCH_ONLY}",
        }
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))


def _case_json(result: CaseResult) -> dict[str, Any]:
    return {
        "case_id": result.case_id,
        "status": result.status,
        "reason": result.reason,
        "n_nodes": len(result.nodes),
        "n_ene": result.n_ene,
        "warnings": list(result.warnings),
    }


def _list(source: Path, chosen: Selection, as_json: bool) -> None:
    from aiene.ingest import Case, find_cases

    found, left_aside = find_cases(source, format=chosen.format, series=chosen.series)
    if as_json:
        rows = [
            {
                "case_id": item.case_id,
                "kind": item.kind if isinstance(item, Case) else None,
                "files": len(item.files) if isinstance(item, Case) else None,
                "series": item.series_uid if isinstance(item, Case) else None,
                "notes": list(item.notes) if isinstance(item, Case) else [],
                "warnings": list(item.warnings) if isinstance(item, Case) else [],
                "reason": "" if isinstance(item, Case) else item.reason,
            }
            for item in found
        ]
        typer.echo(json.dumps({"cases": rows, "left_aside": list(left_aside)}, indent=2, ensure_ascii=False))
        return
    for item in found:
        if isinstance(item, Case):
            typer.echo(f"{item.case_id}: {item.kind}, {len(item.files)} file{'s' * (len(item.files) > 1)}")
            for line in (*item.notes, *(f"warning: {w}" for w in item.warnings)):
                typer.echo(f"    {line}")
        else:
            typer.echo(f"{item.case_id}: cannot be run: {item.reason}")
    for line in left_aside:
        typer.echo(f"left aside: {line}")
