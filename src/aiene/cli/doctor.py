"""`aiene doctor`: what is wrong with this install or site, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aiene.cli.console import echo, echo_json, stderr_console, user_errors

if TYPE_CHECKING:
    from aiene.doctor.finding import Check, Finding
    from aiene.pacs.config import Peer


def doctor(
    peers: Annotated[
        list[str] | None,
        typer.Option(
            "--peer",
            metavar="PEER",
            help="AET@HOST:PORT, a DICOMweb URL, or a peer of --config. Can be repeated.",
        ),
    ] = None,
    store: Annotated[
        bool, typer.Option("--store/--no-store", help="Store a test object at the peer; it stays there.")
    ] = True,
    ae_title: Annotated[str, typer.Option("--ae-title", help="AE title of this computer.")] = "AIENE",
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Also check this configuration of aiene dicom listen."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Skip the self-test of the networks.")] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="FILE.zip",
            help="Also write the findings to a ZIP file that you can attach to a bug report.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Check this installation (or site), and say how to fix what is wrong; exit code 1 if something is."""
    from aiene.doctor import machine
    from aiene.doctor.finding import Finding, examine
    from aiene.pacs.config import parse_peer, read_config

    console = stderr_console()

    def tell(finding: Finding) -> None:
        if not as_json:
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            echo(f"{finding.level:<8} {finding.area}: {finding.text}{remedy}.")

    with user_errors("aiene doctor"):
        settings = None if config is None else read_config(config)
        checks: list[Check] = [
            machine.python,
            machine.core,
            machine.torch_and_device,
            machine.engine,
            machine.cores_and_threads,
            machine.memory,
            machine.disk_and_folders,
            machine.extras,
            machine.pictures,
            partial(_bundles, quick),
        ]
        title = ae_title if settings is None else settings.listen.ae_title
        wanted = [parse_peer(text, settings) for text in peers or ()]
        if settings is not None:
            checks.append(lambda: iter([Finding("configuration", "ok", "every entry is valid")]))
            wanted += [settings.peers[name] for name in settings.send_to if not peers]
        checks += [partial(_peer, one, title, store) for one in wanted]
        found = examine(checks, tell)
        if bundle is not None:
            from aiene.doctor.report import write_report

            names = write_report(bundle, found, settings)
            console.print(f"{bundle.name}: {', '.join(names)}. Look at it before you send it.", markup=False)
    if as_json:
        echo_json(found.to_json())
    raise typer.Exit(found.exit_code)


def _bundles(quick: bool) -> Iterator[Finding]:
    from aiene.doctor.bundles import bundles

    return bundles(quick=quick)


def _peer(wanted: Peer, title: str, store: bool) -> Iterator[Finding]:
    from aiene.doctor.peer import peer

    return peer(wanted, title, store=store)
