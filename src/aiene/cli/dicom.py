"""`aiene dicom`: listen, pull, push and status."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aiene.cli.console import (
    RESEARCH_ONLY,
    AsJson,
    echo,
    echo_json,
    print_table,
    stderr_console,
    tally,
    user_errors,
)
from aiene.errors import UsageError, counted

if TYPE_CHECKING:
    from aiene.pacs.config import Settings
    from aiene.pacs.pull import PulledRow
    from aiene.pacs.push import PushSummary
    from aiene.pacs.queue import Outcome

app = typer.Typer(
    help="Work with a DICOM archive: receive studies and send results back, pull, push, status.",
    no_args_is_help=True,
)

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="The configuration of aiene dicom listen (docs/hospital.md)."
    ),
]
OwnTitle = Annotated[
    str | None,
    typer.Option("--ae-title", help="AE title of this computer (default: from the configuration, or AIENE)."),
]


@app.command()
def listen(
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="The configuration (YAML).")],
    check: Annotated[bool, typer.Option("--check", help="Check the configuration and exit.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="First try every failed study again.")
    ] = False,
    show_uids: Annotated[
        bool, typer.Option("--show-uids", help="Show StudyInstanceUIDs in the log.")
    ] = False,
) -> None:
    """Receive studies, run each complete one and send the results back, until stopped (Ctrl-C, SIGTERM)."""
    from aiene.pacs.config import read_config

    with user_errors("aiene dicom listen"):
        settings = read_config(config)
        if check:
            echo(f"{config.name}: in order.")
            return

        from aiene.pacs.service import Service

        console = stderr_console()

        def ready(where: str) -> None:
            console.print(f"listening as {where}; results in {settings.store}. {RESEARCH_ONLY}")

        try:
            Service(settings, work=_work, show_uids=show_uids, retry_failed=retry_failed).run(ready)
        except KeyboardInterrupt:
            console.print("stopped; what was received is kept, and the next start continues from here.")


def _work(settings: Settings, name: str, generation: int) -> Outcome:
    """See `worker.work`; the process that listens never loads the networks, so it begins at once."""
    from aiene.pacs.worker import work

    return work(settings, name, generation)


@app.command()
def push(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The results folder of aiene run, after aiene export.")
    ],
    to: Annotated[
        str,
        typer.Option("--to", metavar="PEER", help="AET@HOST:PORT, a DICOMweb URL, or a peer of --config."),
    ],
    config: ConfigFile = None,
    ae_title: OwnTitle = None,
    tries: Annotated[
        int, typer.Option(min=1, help="Number of attempts when the problem may be temporary.")
    ] = 4,
    commit: Annotated[bool, typer.Option("--commit", help="Ask the archive for storage commitment.")] = False,
    commit_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of this computer for the answer of the archive."),
    ] = None,
    commit_host: Annotated[
        str, typer.Option(help="Address of this computer for the answer of the archive.")
    ] = "127.0.0.1",
    as_json: AsJson = False,
) -> None:
    """Send the DICOM objects of a run to an archive; objects that it has already are not sent again."""
    from aiene.pacs.config import parse_peer
    from aiene.pacs.push import Commitment, push_run

    console = stderr_console()
    with user_errors("aiene dicom push"):
        settings = _settings(config)
        peer = parse_peer(to, settings)
        wanted = None
        if commit or peer.commitment:
            wanted = Commitment(None if commit_port is None else (commit_host, commit_port))
        summary = push_run(
            out,
            peer,
            _title(ae_title, settings),
            tries=tries,
            commitment=wanted,
            on_pause=lambda reason, s: console.print(f"{reason} Trying again in {s:.0f} s."),
        )
    _tell_push(summary, as_json)
    raise typer.Exit(summary.exit_code)


def _tell_push(summary: PushSummary, as_json: bool) -> None:
    console = stderr_console()
    for delivery in summary.deliveries:
        if delivery.reason:
            console.print(f"{delivery.object.kind}: {delivery.status}: {delivery.reason}")
    said = tally(summary.counts)
    console.print(f"{counted(len(summary.deliveries), 'object')}: {said or 'none'}. {summary.commitment}")
    if as_json:
        echo_json(summary.to_json())


@app.command()
def pull(
    source: Annotated[
        str,
        typer.Option("--from", metavar="PEER", help="AET@HOST:PORT, a DICOMweb URL, or a peer of --config."),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for the series; it can be the input of aiene run.")
    ],
    listed: Annotated[
        Path | None,
        typer.Option(
            "--list", metavar="CSV", help="CSV with a column patient_id, accession_number or study_uid."
        ),
    ] = None,
    date: Annotated[
        str | None,
        typer.Option(metavar="DATE[-DATE]", help="Study date or range, such as 20240101-20240131."),
    ] = None,
    description: Annotated[str | None, typer.Option(help="StudyDescription; * matches anything.")] = None,
    modality: Annotated[str, typer.Option(help="Modality of the series.")] = "CT",
    body_part: Annotated[
        list[str] | None,
        typer.Option(
            help="SeriesDescription to accept; series without one are accepted too. Can be repeated."
        ),
    ] = None,
    by: Annotated[
        Literal["get", "move"], typer.Option(help="C-GET, or C-MOVE to --port, which the archive must know.")
    ] = "get",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of this computer for C-MOVE.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address of this computer for C-MOVE.")] = "127.0.0.1",
    rate: Annotated[
        float, typer.Option(min=0, help="Maximum number of instances per second; 0: no limit.")
    ] = 0.0,
    tries: Annotated[
        int, typer.Option(min=1, help="Number of attempts when the problem may be temporary.")
    ] = 3,
    config: ConfigFile = None,
    ae_title: OwnTitle = None,
    as_json: AsJson = False,
) -> None:
    """Retrieve CT series from an archive into a folder; existing series are not retrieved again."""
    from aiene.pacs.config import parse_peer
    from aiene.pacs.pull import Choice, archive_of, query, read_list
    from aiene.pacs.pull import pull as pull_series

    console = stderr_console()

    def tell(row: PulledRow) -> None:
        console.print(f"{row.wanted}: {row.status} {row.folder} {row.reason}".rstrip())

    with user_errors("aiene dicom pull"):
        settings = _settings(config)
        if listed is not None and (date or description):
            raise UsageError("give --list, or a query by --date and --description, not both.")
        wanted = read_list(listed) if listed is not None else [query(modality, date, description)]
        choice = Choice(modality.upper(), tuple(p.upper() for p in body_part or ()), rate, tries)
        back = None if port is None else (host, port)
        with archive_of(parse_peer(source, settings), _title(ae_title, settings), by, back) as archive:
            summary = pull_series(archive, wanted, out, choice, on_row=tell)
    said = tally(summary.counts)
    console.print(f"{len(summary.rows)} series and queries: {said}. In {out}")
    if as_json:
        echo_json(summary.to_json())
    raise typer.Exit(summary.exit_code)


@app.command()
def status(
    config: Annotated[
        Path, typer.Option("--config", metavar="FILE", help="The configuration of the listener.")
    ],
    as_json: AsJson = False,
    show_uids: Annotated[
        bool, typer.Option("--show-uids", help="Show StudyInstanceUIDs instead of pseudonyms.")
    ] = False,
) -> None:
    """Show the state of every study; exit code 1 if a study failed."""
    from aiene.pacs.config import read_config
    from aiene.pacs.http import COLUMNS, open_queue, snapshot

    with user_errors("aiene dicom status"):
        told = snapshot(open_queue(read_config(config).store), show_uids=show_uids)
    if as_json:
        echo_json(told)
    else:
        from rich.table import Table

        table = Table(title=", ".join(f"{count} {state}" for state, count in told["counts"].items()))
        for name in COLUMNS:
            table.add_column(name)
        for row in told["studies"]:
            table.add_row(*(str(row[name]) for name in COLUMNS))
        print_table(table, width=200)
    raise typer.Exit(int(told["counts"]["failed"] > 0))


def _settings(config: Path | None) -> Settings | None:
    from aiene.pacs.config import read_config

    return None if config is None else read_config(config)


def _title(given: str | None, settings: Settings | None) -> str:
    from pydantic import TypeAdapter, ValidationError

    from aiene.pacs.config import AeTitle

    title = given or (settings.listen.ae_title if settings is not None else "AIENE")
    try:
        return str(TypeAdapter(AeTitle).validate_python(title))
    except ValidationError:
        raise UsageError(f"--ae-title {title}: give 1 to 16 ASCII characters without a backslash.") from None
