"""`aiene`: the commands, put together."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from aiene.cli import benchmark, dicom, doctor, folders, models, review, risk, risk_analyse, run, train

app = typer.Typer(
    name="aiene",
    help=(
        "From a head-and-neck CT to its lymph nodes and their probability of extranodal extension. "
        "Research software, not a medical device."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(name="run")(run.run)
app.command(name="demo")(doctor.demo)
app.add_typer(models.app, name="models")
app.command(name="report")(folders.report)
app.add_typer(review.app, name="review")
app.command(name="export")(folders.export)
app.command(name="merge")(folders.merge)
app.command(name="retable")(folders.retable)
app.add_typer(dicom.app, name="dicom")
app.command(name="doctor")(doctor.doctor)
app.command(name="pseudonyms")(folders.pseudonyms)
app.add_typer(benchmark.app, name="benchmark")
risk.app.command(name="analyse")(risk_analyse.analyse)
risk.app.command(name="simulate")(risk.simulate)
risk.app.command(name="validate")(risk_analyse.validate)
app.add_typer(risk.app, name="risk")
app.add_typer(train.app, name="train")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"aiene {version('aiene')}")
        raise typer.Exit


@app.callback()
def _common(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


def main() -> None:
    """Entry point of the `aiene` command."""
    app()
