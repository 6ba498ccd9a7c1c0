"""`aiene run`: CTs in, nodes out."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aiene.cli.console import (
    RESEARCH_ONLY,
    AsJson,
    DeviceOption,
    RunProgress,
    echo,
    echo_json,
    picked,
    stderr_console,
    tally,
    user_errors,
)
from aiene.cli.folders import ClinicalOption, write_report
from aiene.errors import UsageError, counted, file_name, need, said, visible

if TYPE_CHECKING:
    from rich.console import Console

    from aiene.cohort import Progress, RunSummary, Selection
    from aiene.deidentify import Key
    from aiene.export.run import ExportSummary
    from aiene.ingest.case import Case, Refusal

DICOM_KINDS = "dicom-seg,dicom-sr,rtstruct"


def _known_format(word: str) -> str:
    """The word of `--format`; for the default the table is not loaded: `--help` stays quick."""
    if word == "auto":
        return word
    from aiene.ingest.formats import choices

    if word not in choices():
        known = ", ".join(map(repr, choices()))
        raise typer.BadParameter(f"{word!r} is not one of {known}.")
    return word


def run(
    place: Annotated[
        str,
        typer.Argument(
            metavar="INPUT", help="A CT, a folder of CTs, or a CSV that lists them; or s3://BUCKET/PREFIX."
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option("-o", "--out", metavar="OUT", help="Folder for the results, or s3://BUCKET/PREFIX."),
    ] = None,
    input_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            callback=_known_format,
            help="Format of the CTs: auto, dicom, nii, nrrd, mha, ...",
        ),
    ] = "auto",
    model: Annotated[str, typer.Option(help="Name or folder of a model bundle.")] = "default",
    device: DeviceOption = "auto",
    gpu: Annotated[
        str | None, typer.Option(hidden=True, help="Same as --device: cpu, auto or the number of a GPU.")
    ] = None,
    fg_labels: Annotated[
        str | None,
        typer.Option(help="Labels that are nodes: 2 (usual), any, or a list such as 1,2."),
    ] = None,
    include_short_axes: Annotated[
        bool, typer.Option("--include-short-axes", help="Also write the published long and short axes.")
    ] = False,
    num_parts: Annotated[int, typer.Option(help="Divide the cases into N parts, one per call.")] = 1,
    part_id: Annotated[int, typer.Option(help="Part that this call processes, from 0.")] = 0,
    ene_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="ENE threshold, instead of that of the model.")
    ] = None,
    pos_from: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Minimum `pos` of a node that counts as AI-ENE, instead of that of the model; 0: any.",
        ),
    ] = None,
    operating_point: Annotated[
        Literal["balanced", "sensitive"] | None,
        typer.Option(help="How readily the segmenter finds nodes, if the model offers a choice."),
    ] = None,
    engine: Annotated[
        Literal["exact", "fast"],
        typer.Option(
            help="How the segmenter is computed: exact, or fast, which takes a fraction of the time and "
            "changes a few voxels of the contours (extra `fast`; figures in docs/clusters.md)."
        ),
    ] = "exact",
    registration: Annotated[
        Literal["exact", "fast"],
        typer.Option(
            help="How a bundle of the published profile registers: exact, or fast, which takes a tenth of "
            "the time and moves the crop by some mm (figures in docs/clusters.md)."
        ),
    ] = "exact",
    limit: Annotated[int | None, typer.Option(help="Process only the first N cases.")] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Cases to work on in parallel (default: one per core, by memory).")
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="Folder of your own contours, named by case id, instead of the segmenter."),
    ] = None,
    keep_prepared: Annotated[
        bool, typer.Option("--keep-prepared", help="Keep the input of the networks and the rigid transform.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="First remove the results of earlier runs from OUT, and nothing else."
        ),
    ] = False,
    check_content: Annotated[
        bool,
        typer.Option(
            "--check-content",
            help=(
                "Compare every byte of the inputs with those of earlier results in OUT. Without it, a file "
                "counts as the same where its name, size, time of change and the system's own time (ctime) "
                "are; where ctime alone differs, its bytes are compared."
            ),
        ),
    ] = False,
    series: Annotated[str | None, typer.Option(help="SeriesInstanceUID of the series to use.")] = None,
    affine: Annotated[
        Literal["auto", "sform", "qform"],
        typer.Option(help="Which affine of a NIfTI file to use if its two differ."),
    ] = "auto",
    id_from: Annotated[
        str | None,
        typer.Option(
            "--id-from",
            metavar="RULE",
            help="How cases and patients are named: PatientID, folder:N (1 is directly in INPUT, -1 contains "
            "the CT) or a regular expression over the path below INPUT. --list shows the result.",
        ),
    ] = None,
    timepoint: Annotated[
        Literal["auto", "first", "latest"],
        typer.Option(
            help="Which CT of a patient counts in patients.csv. auto: the latest before treatment if an "
            "input list gives the date of treatment, else the first."
        ),
    ] = "auto",
    pseudonymise: Annotated[
        Path | None,
        typer.Option(
            metavar="KEYFILE",
            help="Key file: replace case ids, file names and UIDs by pseudonyms everywhere.",
        ),
    ] = None,
    dicom_out: Annotated[
        bool, typer.Option("--dicom-out", help="Also write the results as DICOM objects; see aiene export.")
    ] = False,
    to: Annotated[
        list[str] | None,
        typer.Option("--to", help=f"Which DICOM objects, with commas (default: {DICOM_KINDS})."),
    ] = None,
    source_dicom: Annotated[
        Path | None,
        typer.Option("--source-dicom", help="Folder of the source series, if INPUT is not DICOM."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="Process the cases on Dask workers: local, slurm, tcp://HOST:8786 or a .yaml file.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Report only failed cases.")] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Report the seconds of each stage.")
    ] = False,
    log_file: Annotated[
        Path | None,
        typer.Option(
            "--log-file", metavar="FILE", help="Also write all messages, and tracebacks, to this file."
        ),
    ] = None,
    report: Annotated[
        bool,
        typer.Option("--report", help="Also write a page for each patient and the cohort; see aiene report."),
    ] = False,
    clinical: ClinicalOption = None,
    list_only: Annotated[
        bool, typer.Option("--list", help="List what would be run and what is left out, and exit.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find the lymph nodes of every CT and estimate their probability of extranodal extension."""
    from aiene.cli.console import device_of, logging_to, search_bar
    from aiene.cohort import Selection, run_cohort  # torch is loaded here, not by --help
    from aiene.deidentify import Disguised, Plain
    from aiene.object_store import at_home, is_url

    chosen = Selection(input_format, series, limit, num_parts, part_id, affine, id_from, timepoint)
    console = stderr_console()

    with user_errors():
        if list_only and pseudonymise is not None:
            raise UsageError("--list shows the names of the input; leave out --list or --pseudonymise.")
        if list_only:
            with at_home(place, "") as home:
                _list(home.source, chosen, as_json)
            return
        if target is None:
            raise UsageError("no folder for the results; name one with -o.")
        key = None if pseudonymise is None else _key(pseudonymise, Path(target), console)
        with (Plain() if key is None else Disguised(key)).errors():
            kinds = _dicom_kinds(dicom_out, to, source_dicom, chosen)
        if clinical is not None and not report:
            raise UsageError("--clinical is only for the pages; add --report.")
        telling = RunProgress(console, quiet=quiet, verbose=verbose)
        images_after = bool(kinds) or report
        with at_home(place, target, part=chosen.part, whole=images_after) as (source, results, supply):
            out = results.folder

            def done(progress: Progress) -> None:
                telling.tell(progress)
                results.done(progress.result.case_id)

            with logging_to(log_file), telling, search_bar() as show:
                summary = run_cohort(
                    source,
                    out,
                    model=model,
                    device=device if gpu is None else device_of(gpu),
                    selection=chosen,
                    fg_labels=fg_labels,
                    include_short_axes=include_short_axes,
                    ene_threshold=ene_threshold,
                    pos_from=pos_from,
                    operating_point=operating_point,
                    engine=engine,
                    registration=registration,
                    masks=masks,
                    keep_prepared=keep_prepared,
                    jobs=jobs,
                    overwrite=overwrite,
                    check_content=check_content,
                    scheduler=scheduler,
                    key=key,
                    supply=supply,
                    parquet=is_url(target),
                    on_case=done,
                    on_search=show,
                )
            hidden = key is not None
            exported = None
            if kinds:
                exported = _export(summary, source, out, kinds, source_dicom, overwrite, hidden=hidden)
            if report:
                images = source if hidden else None
                write_report(
                    out, images=images, clinical=clinical, jobs=jobs, shown=out.name if hidden else ""
                )
    url = target if is_url(target) else ""
    _tell_end(summary, exported, out, url=url, as_json=as_json, hidden=hidden)
    raise typer.Exit(max(summary.exit_code, 0 if exported is None else exported.exit_code))


def _key(file: Path, out: Path, console: Console) -> Key:
    """The key of the pseudonyms, with what its owner should look at said."""
    from aiene.deidentify import read_key

    key, warnings = read_key(file)
    if out.resolve() in file.resolve().parents:
        raise UsageError(
            f"{file.name} is in the results folder, so whoever gets the results gets the key; "
            "put it elsewhere."
        )
    for warning in warnings:
        console.print(f"warning: {warning}", style="yellow")
    return key


def _dicom_kinds(
    wanted: bool, words: list[str] | None, source_dicom: Path | None, chosen: Selection
) -> tuple[str, ...]:
    """The DICOM objects to write after the run, checked before it begins; none where not asked for."""
    if not wanted and not words:
        if source_dicom is not None:
            raise UsageError("--source-dicom is only for DICOM objects; add --dicom-out.")
        return ()
    if source_dicom is not None and not source_dicom.exists():
        template = "--source-dicom {}: no such folder; name that of the source series."
        raise UsageError(said(template, file_name(source_dicom)))
    from aiene.export.run import parse_kinds

    if chosen.num_parts > 1:
        raise UsageError(
            "--dicom-out writes the objects of a whole run; after the last part, use aiene export OUT."
        )
    need("highdicom", extra="dicom", purpose="Writing DICOM objects")
    return parse_kinds(words or [DICOM_KINDS])


def _export(
    summary: RunSummary,
    source: Path,
    out: Path,
    kinds: tuple[str, ...],
    source_dicom: Path | None,
    overwrite: bool,
    *,
    hidden: bool,
) -> ExportSummary:
    """The results as DICOM objects; a pseudonymised record does not say where the input lies, so we do."""
    from aiene.cli.console import tell_row
    from aiene.export.run import export_run

    console = stderr_console()
    if hidden:
        console.print(
            "The DICOM objects contain the patients' names and ids, as they must; no other file does.",
            style="yellow",
        )
        from_dicom = any(r.facts.get("input", {}).get("kind") == "dicom" for r in summary.results)
        source_dicom = source_dicom or (source if from_dicom else None)
    return export_run(
        out, kinds, source_dicom=source_dicom, on_case=partial(tell_row, console), overwrite=overwrite
    )


def _tell_end(
    summary: RunSummary,
    exported: ExportSummary | None,
    out: Path,
    *,
    url: str,
    as_json: bool,
    hidden: bool,
) -> None:
    console = stderr_console()
    counts = {s: sum(r.status == s for r in summary.results) for s in ("ok", "no_nodes", "failed", "skipped")}
    said = tally(counts)
    shown = url or (out.name if hidden else str(out))  # the folders above may name a patient
    console.print(f"{counted(len(summary.results), 'case')}: {said}. Results in {shown}")
    if summary.tables and not as_json:
        names = ", ".join(path.name for name, path in summary.tables.items() if name != "prediction")
        console.print(f"Tables: {names}. Next: {_next_step(shown, counts)}")
    if exported is not None:
        done = tally(exported.counts)
        console.print(f"DICOM objects of {counted(len(exported.rows), 'case')}: {done or 'none'}.")
    console.print(f"{summary.notice} {RESEARCH_ONLY}", style="bold")
    if not as_json:
        return
    content: dict[str, Any] = {
        "exit_code": summary.exit_code,
        "counts": counts,
        "tables": {
            n: f"{url}/{p.relative_to(out)}" if url else str(p.relative_to(out) if hidden else p)
            for n, p in summary.tables.items()
        },
        "cases": [
            {
                **picked(result, "case_id", "source", "status", "reason"),
                "n_ai_nodes": len(result.nodes),
                **picked(result, "n_ai_ene", "warnings"),
            }
            for result in summary.results
        ],
        "left_aside": list(summary.left_aside),
        "notice": f"{summary.notice} {RESEARCH_ONLY}",
    }
    if exported is not None:
        content["exit_code"] = max(summary.exit_code, exported.exit_code)
        content["dicom"] = {
            "exit_code": exported.exit_code,
            "counts": exported.counts,
            "cases": [picked(row, "case_id", "status", "reason", "files") for row in exported.rows],
        }
    echo_json(content)


def _next_step(out: str, counts: dict[str, int]) -> str:
    """The command that a user most likely wants now."""
    if counts["failed"] or counts["skipped"]:
        return f"cases.csv says why {counts['failed'] or counts['skipped']} of them have no result."
    if "://" in out:
        return "copy the results to a folder for aiene report, export and risk."
    out = shlex.quote(out)
    return (
        f"aiene report {out} (pages to look at), aiene export {out} (DICOM objects), "
        f"aiene risk stratify TABLE --ai-ene {out} (risk groups)."
    )


def _list(source: Path, chosen: Selection, as_json: bool) -> None:
    """What a run of these words would process, and why not the rest; headers only."""
    from aiene.cli.console import search_bar
    from aiene.ingest.find import find_cases
    from aiene.ingest.identity import parse_id_rule

    chosen.check()
    with search_bar() as show:
        found, left_aside = find_cases(
            source,
            format=chosen.format,
            series=chosen.series,
            affine=chosen.affine,
            on_progress=show,
            id_rule=parse_id_rule(chosen.id_from),
            timepoint=chosen.timepoint,
        )
    mine = [item for place, item in enumerate(found) if place % chosen.num_parts == chosen.part_id]
    listed = [_listed(item, place, chosen.limit) for place, item in enumerate(mine)]
    if as_json:
        content = {"cases": listed, "left_aside": left_aside, "notice": RESEARCH_ONLY}
        echo_json(content)
        return
    told = {f"{item.case_id}: {note}" for item in found for note in item.notes}
    for row in listed:
        count = row["files"]
        kind = f"{row['kind']}, {count} file{'s' * (count != 1)}"
        why = {
            "run": kind,
            "skipped": f"skipped: {row['reason']}",
            "failed": f"cannot be run: {row['reason']}",
        }
        echo(f"{row['case_id']}: {why[row['status']]}")
        if row["source"] != row["case_id"]:
            echo(f"    from {row['source']}")
        if row["patient_id"] != row["case_id"]:
            day = f", CT of {row['date']}" if row["date"] else ""
            echo(f"    patient {row['patient_id']}{day}{'' if row['counts'] else ', does not count'}")
        for line in (*row["notes"], *(f"warning: {w}" for w in row["warnings"])):
            echo(f"    {line}")
    for line in left_aside:
        if line not in told:
            echo(f"left out: {line}")


def _listed(item: Case | Refusal, place: int, limit: int | None) -> dict[str, Any]:
    """One case of `--list`: run, skipped or failed, as its row in cases.csv would be."""
    from aiene.ingest.case import Case

    beyond = limit is not None and place >= limit
    reason = f"beyond --limit {limit}" if beyond else "" if isinstance(item, Case) else item.reason
    return {
        "case_id": item.case_id,
        "status": "skipped" if beyond else "run" if isinstance(item, Case) else "failed",
        "reason": reason,
        "kind": item.kind if isinstance(item, Case) else None,
        "files": item.file_count if isinstance(item, Case) else 0,
        "source": visible(item.source),
        "patient_id": visible(item.patient),
        "date": item.date,
        "counts": item.counts,
        "series": item.series_uid if isinstance(item, Case) else None,
        "series_left_aside": [
            {"series": aside.series_uid, "slices": aside.slices, "reason": aside.why} for aside in item.aside
        ],
        "notes": list(item.notes),
        "warnings": list(item.warnings) if isinstance(item, Case) else [],
    }
