"""`aiene benchmark leaderboard`: show, export and import what runs have added."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from aiene.cli.console import RESEARCH_ONLY, echo, echo_json, stderr_console, user_errors

if TYPE_CHECKING:
    from aiene.benchmark.leaderboard.entry import Entry
    from aiene.benchmark.leaderboard.ranks import Board

_HELP = ("-h", "--help")


class _ShowByDefault(TyperGroup):
    """`leaderboard BOARD` means `leaderboard show BOARD`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in _HELP):
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
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
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


@app.command()
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
    from aiene.benchmark.leaderboard.ranks import boards, check_metric, newest_only
    from aiene.benchmark.leaderboard.store import read_board, read_entries
    from aiene.results.atomic import elsewhere

    with user_errors():
        entries = read_entries(board, data_sha256=data)
        rejected = read_board(board).rejected
        entries = newest_only(entries) if latest else entries
        for name in metric or []:
            check_metric(entries, name)
        standings = boards(entries, sort=sort, descending=False if ascending else None)
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
    stderr_console().print(RESEARCH_ONLY, markup=False, style="bold")


@app.command()
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


@app.command("export")
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


@app.command("import")
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
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    said = board.settings
    title = f"Data set {board.data_sha256[:12]}, IoU {said['iou_threshold']:g}, prompts {said['prompts']}"
    title += f", ranked by {board.sort} (95 % interval)"
    table = Table(title=escape(title), caption=RESEARCH_ONLY, caption_style="bold")
    chosen = list(dict.fromkeys([board.sort, *more, *board.metrics]))[: max(3, 1 + len(more))]
    for name in ("", "model", *chosen, "cases", "model hash", "version", "site", "created"):
        table.add_column(escape(name), justify="right" if name in ("", "cases", *chosen) else "left")
    for place in board.places:
        table.add_row(*(escape(text) for text in _cells(place.rank, place.entry, chosen)))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _cells(rank: int | None, entry: Entry, metrics: list[str]) -> list[str]:
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
