"""`aiene benchmark`: models against ground truth and each other, and the leaderboard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from aiene.cli.console import (
    RESEARCH_ONLY,
    AsJson,
    SchedulerOption,
    echo,
    echo_json,
    print_table,
    stderr_console,
    user_errors,
)
from aiene.errors import UsageError, counted

if TYPE_CHECKING:
    from rich.console import Console

    from aiene.benchmark.config import BenchmarkConfig
    from aiene.benchmark.leaderboard.entry import Entry
    from aiene.benchmark.leaderboard.store import Board
    from aiene.benchmark.run import BenchmarkRun, Step


_HELP = ("-h", "--help")


class _ShowByDefault(TyperGroup):
    """`leaderboard BOARD` means `leaderboard show BOARD`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in _HELP):
            args = ["show", *args]
        return super().parse_args(ctx, args)


leaderboard_app = typer.Typer(
    cls=_ShowByDefault,
    help=(
        "Show, verify, export and import the leaderboard. Without a command: show. "
        "Only runs on the same data set with the same settings are compared."
    ),
    context_settings={"help_option_names": list(_HELP)},
)

BoardPath = Annotated[
    Path,
    typer.Argument(
        metavar="BOARD",
        envvar="AIENE_LEADERBOARD",
        help="Leaderboard: its file, or the folder that holds leaderboard.sqlite.",
    ),
]
DataSet = Annotated[
    str | None, typer.Option("--data", help="Show only this data set (first characters of its hash).")
]


@leaderboard_app.command()
def show(
    board: BoardPath,
    sort: Annotated[
        str | None, typer.Option(help="Metric to rank by, such as dice_GTVn, hd95_mm_GTVn or auc_on_truth.")
    ] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Another metric to show. Can be repeated.")] = None,
    ascending: Annotated[
        bool, typer.Option("--ascending", help="Sort the smallest value first, instead of the best.")
    ] = False,
    latest: Annotated[bool, typer.Option("--latest", help="Show only the newest run of each model.")] = False,
    data: DataSet = None,
    html: Annotated[Path | None, typer.Option(help="Also write an HTML page.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the leaderboard in the terminal, and as an HTML page."""
    from aiene.benchmark.leaderboard.page import write_page
    from aiene.benchmark.leaderboard.store import boards, check_metric, newest_only, read_board, read_entries
    from aiene.results.atomic import elsewhere

    with user_errors():
        entries = read_entries(board, data_sha256=data)
        rejected = read_board(board).rejected
        entries = newest_only(entries) if latest else entries
        for name in metric or []:
            check_metric(entries, name)
        standings = boards(entries, sort=sort, ascending=ascending)
        if html is not None:
            with elsewhere("choose another file with --html"):
                write_page(entries, html, sort=sort, rejected=rejected)
            echo(f"Page: {html}", err=True)
    for name, reason in rejected:
        echo(f"not ranked: {name}: {reason}", err=True)
    if as_json:
        echo_json([_board_json(one) for one in standings])
        return
    for one in standings:
        _print_board(one, metric or [])
    if not standings:
        echo("There are no entries.")
    stderr_console().print(RESEARCH_ONLY, style="bold")


@leaderboard_app.command()
def verify(board: BoardPath) -> None:
    """Check every entry: hash, format, and impossible values. Exit code 1 if any fails."""
    from aiene.benchmark.leaderboard.store import read_board

    with user_errors():
        found = read_board(board)
    for entry in found.entries:
        echo(f"{entry.identity[:12]}  ok  {entry.model}{f' ({entry.site})' if entry.site else ''}")
    for name, reason in found.rejected:
        echo(f"{name}  {reason}")
    echo(f"{len(found.entries)} entries are valid, {len(found.rejected)} are not.", err=True)
    raise typer.Exit(int(bool(found.rejected)))


@leaderboard_app.command("export")
def export_board(
    board: BoardPath,
    out: Annotated[Path, typer.Option("-o", "--out", help="JSON file to write.")],
    data: DataSet = None,
) -> None:
    """Export the entries as JSON for other sites: numbers and hashes, no patient data."""
    from aiene.benchmark.leaderboard.store import export_json, read_board

    with user_errors():
        rejected = read_board(board).rejected
        count = export_json(board, out, data_sha256=data)
    for name, reason in rejected:
        echo(f"not exported: {name}: {reason}", err=True)
    echo(f"{count} entries written to {out}", err=True)


@leaderboard_app.command("import")
def import_board(
    board: BoardPath,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Exports of other sites.")],
) -> None:
    """Add the entries exported by other sites; nothing is added from a malformed file."""
    from aiene.benchmark.leaderboard.store import import_json

    for file in files:
        with user_errors():
            added, known = import_json(board, file)
        echo(f"{file.name}: {added} new entries, {known} known already", err=True)


def _board_json(board: Board) -> dict[str, Any]:
    from aiene.benchmark.leaderboard.entry import entry_to_json

    return {
        "data_sha256": board.data_sha256,
        "settings": board.settings,
        "sort": board.sort,
        "entries": [{"rank": place.rank, **entry_to_json(place.entry)} for place in board.places],
    }


def _print_board(board: Board, more: list[str]) -> None:
    from rich.table import Table

    said = board.settings
    title = f"Data set {board.data_sha256[:12]}, IoU {said['iou_threshold']:g}, prompts {said['prompts']}"
    title += f", ranked by {board.sort} (95 % interval)"
    table = Table(title=title, caption=RESEARCH_ONLY, caption_style="bold")
    chosen = list(dict.fromkeys([board.sort, *more, *board.metrics]))[: max(3, 1 + len(more))]
    for name in ("", "model", *chosen, "cases", "model hash", "version", "site", "created"):
        table.add_column(name, justify="right" if name in ("", "cases", *chosen) else "left")
    for place in board.places:
        table.add_row(*_place_cells(place.rank, place.entry, chosen))
    print_table(table, width=140)


def _place_cells(rank: int | None, entry: Entry, metrics: list[str]) -> list[str]:
    figures = [(entry.metrics.get(name), entry.intervals.get(name)) for name in metrics]
    return [
        "-" if rank is None else str(rank),
        entry.model,
        *("-" if value is None else f"{value:.4g}{_between(ends)}" for value, ends in figures),
        f"{entry.n_done}/{entry.n_cases}",
        (entry.model_sha256 or "-")[:12],
        entry.version,
        entry.site or "-",
        entry.created[:16],
    ]


def _between(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f" ({ends[0]:.3g}-{ends[1]:.3g})"


SEVERAL = ("--hf-models", "--models", "--predictions")
"""Options that take several words, as the published command line does."""


class _Group(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread(args))


app = typer.Typer(
    cls=_Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Compare models with ground truth and with each other.",
)
app.add_typer(leaderboard_app, name="leaderboard")


def spread(words: Sequence[str]) -> list[str]:
    """`--models A B` as `--models A --models B`, for every option that takes several words."""
    result: list[str] = []
    option, first = "", False
    for word in words:
        if word.startswith("-"):
            option, first = (word, True) if word in SEVERAL else ("", False)
            result.append(word)
            continue
        if option and not first:
            result.append(option)
        result.append(word)
        first = False
    return result


@app.callback()
def benchmark(
    ctx: typer.Context,
    image_dir: Annotated[Path | None, typer.Option(help="Folder of the CTs.")] = None,
    seg_dir: Annotated[
        Path | None, typer.Option(help="Folder of the true label maps, named by case id.")
    ] = None,
    ene_csv: Annotated[Path | None, typer.Option(help="CSV with the true ENE of each node (0 or 1).")] = None,
    config: Annotated[Path | None, typer.Option(help="Configuration file (benchmark_config.yaml).")] = None,
    hf_models: Annotated[
        list[str] | None, typer.Option(metavar="ID|PATH ...", help="Hugging Face models.")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BUNDLE ...", help="Model bundles of this software, or folders of MONAI bundles."
        ),
    ] = None,
    predictions: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR ...", help="Folders of predictions, named by case id."),
    ] = None,
    max_cases: Annotated[int | None, typer.Option(min=1, help="Use only the first N cases.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")] = Path(
        "benchmark_results"
    ),
    reference: Annotated[
        str | None, typer.Option(help="Model to compare the others with (default: the first).")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Cases to process in parallel (default: one per core).")
    ] = None,
    scheduler: SchedulerOption = None,
    resample: Annotated[
        bool, typer.Option("--resample", help="Accept masks on another grid than their CT and resample them.")
    ] = False,
    primary: Annotated[
        str | None,
        typer.Option(help="Primary endpoint, such as dice_GTVn, node_sensitivity or auc_end_to_end."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Random seed of bootstrap and permutations.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:N or mps.")
    ] = None,
    board: Annotated[
        Path | None, typer.Option("--leaderboard", help="Leaderboard (file or folder) to add this run to.")
    ] = None,
    site: Annotated[str | None, typer.Option(help="Name of your site, shown in the leaderboard.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")] = False,
) -> None:
    """Compare models with ground truth and with each other, with intervals, tests and a report."""
    if ctx.invoked_subcommand is not None:
        return
    given = {
        "image_dir": image_dir,
        "seg_dir": seg_dir,
        "ene_csv": ene_csv,
        "hf_models": hf_models,
        "models": models,
        "predictions": predictions,
        "max_cases": max_cases,
        "reference": reference,
        "primary": primary,
        "leaderboard": board,
        "site": site,
        "resample": resample or None,
        "seed": seed,
        "device": device,
    }
    with user_errors():
        code = compare(config, given, out, jobs=jobs, as_json=as_json, scheduler=scheduler)
    raise typer.Exit(code)


def compare(
    config_file: Path | None,
    given: dict[str, Any],
    out: Path,
    *,
    jobs: int | None = None,
    as_json: bool = False,
    scheduler: str | None = None,
) -> int:
    """Run a benchmark from the words of a command line, and tell its end; the exit code.

    Parameters
    ----------
    given : options by name; None where it was not given, so that the configuration's counts.
    scheduler : whose workers do the cases; None: this machine.
    """
    from aiene.benchmark.report.write import write_report
    from aiene.benchmark.run import run_benchmark
    from aiene.cluster import crews_of

    console = stderr_console()
    config = configuration(config_file, given)
    with crews_of(scheduler, jobs, sees=(config.image_dir, config.seg_dir), writes=out):
        run = run_benchmark(
            config, out, jobs=jobs, apart=True, on_step=lambda step: _tell_step(console, step)
        )
    report = write_report(out) if "html" in config.output_formats else None
    if config.leaderboard is not None:
        _add_to_board(console, run, config.leaderboard, config.site)
    _tell_end(console, run, report, as_json)
    return run.exit_code


def configuration(config_file: Path | None, given: dict[str, Any]) -> BenchmarkConfig:
    """The configuration file with the command's own words over it.

    Raises
    ------
    InputError : the file cannot be used.
    UsageError : a word that does not fit.
    """
    from pydantic import ValidationError

    from aiene.benchmark.config import BenchmarkConfig, ModelEntry, read_config
    from aiene.results.reviews import reviewed_masks

    base = BenchmarkConfig() if config_file is None else read_config(config_file)
    words = {name: value for name, value in given.items() if value not in (None, [], ())}
    if "seg_dir" in words:
        words["seg_dir"] = reviewed_masks(words["seg_dir"])
    if "predictions" in words:
        words["predictions"] = _named_folders(words["predictions"])
    if "models" in words:
        words["models"] = tuple(
            ModelEntry(source=source, kind=None if Path(source).is_dir() else "bundle")
            for source in words["models"]
        )
    if "hf_models" in words:
        words["hf_models"] = tuple(words["hf_models"])
    if any(not str(name).strip() for name in words.get("hf_models", ())):
        raise UsageError("--hf-models: an empty value; give the folder or id of a model.")
    try:
        return BenchmarkConfig.model_validate({**base.model_dump(), **words})
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"--{option}: {str(first['msg']).lower()}.") from error


def _named_folders(words: Sequence[str]) -> dict[str, Path]:
    from aiene.results.reviews import reviewed_masks

    folders: dict[str, Path] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not (name and equals and folder):
            raise UsageError(f"--predictions {word}: write NAME=DIR.")
        if name in folders:
            raise UsageError(f"--predictions: {name} is named twice; give each folder its own name.")
        folders[name] = reviewed_masks(Path(folder))
    return folders


def _add_to_board(console: Console, run: BenchmarkRun, board: Path, site: str) -> None:
    from aiene.benchmark.leaderboard.entry import entries_of
    from aiene.benchmark.leaderboard.store import add_entries

    entries = entries_of(run.summary, site)
    if entries:
        add_entries(board, entries)
        return
    console.print("leaderboard: no model has an answer to any case, so nothing was added", style="yellow")


def _tell_step(console: Console, step: Step) -> None:
    what = step.model or "ground truth"
    said = "already done" if step.reused else step.status
    if step.status == "failed":
        said = f"failed: {step.reason}"
    style = "red" if step.status == "failed" else None
    console.print(f"{what} [{step.number}/{step.total}] {step.case_id}: {said}", style=style)


def _tell_end(console: Console, run: BenchmarkRun, report: Path | None, as_json: bool) -> None:
    pairing = run.summary["pairing"]
    for name in ("images_without_mask", "masks_without_image"):
        if pairing[name]:
            listed = ", ".join(pairing[name])
            console.print(f"{name.replace('_', ' ')}: {listed}", style="yellow")
    for refused in pairing["refused"]:
        console.print(f"{refused['case_id']}: {refused['reason']}", style="red")
    for unmatched in (run.summary["ene_csv"] or {}).get("unmatched", []):
        said = f"ENE file, row {unmatched['row']}: {unmatched['reason']}"
        console.print(said, style="yellow")
    for model in run.summary["models"]:
        if model["status"] == "failed":
            console.print(f"{model['name']}: {model['reason']}", style="red")
    for path in (run.results_file, run.summary_file, report):
        if path is not None and path.is_file():
            console.print(str(path))
    if as_json:
        echo_json(run.summary)
    else:
        _print_table(run.summary)
    console.print(RESEARCH_ONLY, style="bold")


def _print_table(summary: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(
        title=counted(summary["data"]["cases"], "case"), caption=RESEARCH_ONLY, caption_style="bold red"
    )
    for name in (
        "model",
        "cases",
        "Dice GTVp",
        "Dice GTVn",
        "sensitivity",
        "false a case",
        "ENE AUC",
        "seconds",
    ):
        table.add_column(name, justify="left" if name == "model" else "right")
    for model in summary["models"]:
        if model["status"] != "ok":
            table.add_row(model["name"], "failed", *[""] * 6)
            continue
        cases = f"{model['cases']['ok']}/{model['cases']['ok'] + model['cases']['failed']}"
        segmentation, found = model["segmentation"] or {}, model["detection"] or {}
        judged = model["classification"] or {}
        track = judged.get("end_to_end") or judged.get("on_truth") or {}
        table.add_row(
            model["name"],
            cases,
            *(_figure(segmentation.get(label, {}).get("dice", {}).get("mean")) for label in ("GTVp", "GTVn")),
            _figure(found.get("sensitivity")),
            _figure(found.get("false_per_case")),
            _figure(track.get("auc_clustered")),
            _figure(model["resources"]["seconds"]["total"]["median"], digits=1, interval=False),
        )
    print_table(table, width=120)


def _figure(estimate: dict[str, Any] | None, *, digits: int = 2, interval: bool = True) -> str:
    if not estimate or estimate.get("value") is None:
        return "-"
    said = f"{estimate['value']:.{digits}f}"
    if not interval or estimate.get("low") is None:
        return said
    return f"{said} ({estimate['low']:.{digits}f}-{estimate['high']:.{digits}f})"
