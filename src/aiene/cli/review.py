"""`aiene review`: look, correct and measure again, in the browser."""

from __future__ import annotations

import secrets
import socket
import ssl
import webbrowser
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from aiene.cli.console import (
    RESEARCH_ONLY,
    AsJson,
    DeviceOption,
    IdPatternOption,
    RunFolder,
    echo_json,
    stderr_console,
    user_errors,
)
from aiene.cli.folders import ClinicalOption, ImagesOption
from aiene.errors import UsageError, counted, need


class _Group(TyperGroup):
    """`aiene review OUT` is `aiene review start OUT`: what is no command's name is a folder."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["start", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Group,
    help="View and correct the cases of a run in the browser (aiene review OUT); compare readers.",
    no_args_is_help=True,
)
PORT = 8432
"""The same at each start: what a browser kept of unsaved strokes belongs to the address."""


@app.command()
def start(
    out: RunFolder,
    reader: Annotated[
        str, typer.Option(help="Your name as a reader; each reader sees only their own work.")
    ] = "reader",
    blind: Annotated[
        bool, typer.Option("--blind", help="Hide the contours and numbers of the model.")
    ] = False,
    images: ImagesOption = None,
    clinical: ClinicalOption = None,
    id_pattern: IdPatternOption = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the address.")] = PORT,
    host: Annotated[
        str, typer.Option(help="Listen on another address; needs --certfile and --keyfile.")
    ] = "127.0.0.1",
    certfile: Annotated[Path | None, typer.Option(help="TLS certificate for --host.")] = None,
    keyfile: Annotated[Path | None, typer.Option(help="Private key of the certificate.")] = None,
    device: DeviceOption = "auto",
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Only print the address; do not open a browser.")
    ] = False,
) -> None:
    """Start the review of a run on this computer, and open it in the browser."""
    with user_errors():
        _check_tls(host, certfile, keyfile)
        _check_port(host, port)

        from aiene.review.server import make_app
        from aiene.review.session import Review
        from aiene.viewer.risk_groups import read_risk_groups

        uvicorn = need("uvicorn", extra="review", purpose="The review")
        console = stderr_console()
        groups = None if clinical is None else read_risk_groups(clinical, id_pattern)
        review = Review(out, reader, images=images, groups=groups, blind=blind, device=device)
        token = secrets.token_urlsafe(24)
        scheme = "https" if certfile else "http"
        shown = f"[{host}]" if ":" in host else host
        url = f"{scheme}://{shown}:{port}/?token={token}"
        console.print(f"Review of {counted(len(review.results), 'case')} by {reader}: {url}")
        console.print(f"Ctrl-C ends it; all that was saved is in {out / 'review' / reader}")
        console.print(f"{review.run.maker.notice} {RESEARCH_ONLY}", style="bold")
        if not no_browser:
            webbrowser.open(url)
        uvicorn.run(
            make_app(review, token, _hosts(host, port), secure=certfile is not None),
            host=host,
            port=port,
            log_level="warning",
            access_log=False,  # addresses hold case ids
            server_header=False,
            ssl_certfile=None if certfile is None else str(certfile),
            ssl_keyfile=None if keyfile is None else str(keyfile),
        )


@app.command()
def agreement(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The results folder of a run that was reviewed.")
    ],
    as_json: AsJson = False,
) -> None:
    """Compare the readers of a run with each other and with the model; a page and a table."""
    from aiene.review import agreement as compared

    with user_errors():
        found = compared.agreement(out)
        page = compared.write_agreement(out, found)
    stderr_console().print(f"Agreement of {len(found)} pairs: {page}")
    if as_json:
        echo_json({"pairs": [asdict(pair) for pair in found], "page": str(page), "notice": RESEARCH_ONLY})


def _hosts(host: str, port: int) -> frozenset[str]:
    """What a browser may call the server."""
    local = ("127.0.0.1", "localhost")
    names = {host, *(local if host in local else (socket.getfqdn(),))}
    return frozenset(f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name in names)


def _check_tls(host: str, certfile: Path | None, keyfile: Path | None) -> None:
    """Refuse what the server could not use; a key with a password would make it wait for somebody to type."""
    if host not in ("127.0.0.1", "localhost", "::1") and (certfile is None or keyfile is None):
        raise UsageError("--host beyond this machine needs --certfile and --keyfile.")
    if bool(certfile) != bool(keyfile):
        raise UsageError("--certfile and --keyfile belong together.")
    if certfile is None or keyfile is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certfile, keyfile, password="")
    except OSError as error:
        why = error.strerror if error.filename or error.strerror else str(error)
        raise UsageError(
            f"--certfile {certfile.name} and --keyfile {keyfile.name} are not a certificate and its key "
            f"without a password, in PEM format ({why})."
        ) from error


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"{host}:{port} cannot be listened on ({error.strerror}); name another --port."
            ) from error
