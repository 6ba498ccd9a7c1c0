"""`aiene risk analyse`: the whole analysis of a cohort in one report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aiene.cli.console import SchedulerOption, stderr_console, user_errors
from aiene.cli.risk_options import (
    AiEneOption,
    IdPatternOption,
    JsonOption,
    Reading,
    ReviewedOption,
    SchemeOption,
    StagingChoices,
    TableArgument,
    counts_of,
    join,
    progress,
    read,
    simulated,
    tell,
    tell_end,
    with_records,
)

if TYPE_CHECKING:
    import pandas as pd

    from aiene.risk.analyse.records import Analysis, AnalysisSettings
    from aiene.risk.schemes.scheme import Scheme
    from aiene.risk.staging.stage import StagingOptions


@with_records
def analyse(
    *,
    table: TableArgument,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the report.")],
    ai_ene: AiEneOption = None,
    reviewed: ReviewedOption = False,
    endpoint: Annotated[
        str, typer.Option(help="Endpoints, separated by commas: os, dc, lrc, dfs, dmfs.")
    ] = "os,dc",
    scheme: SchemeOption = "count-0-1-2plus",
    reading: Reading,
    id_pattern: IdPatternOption = None,
    site: Annotated[str, typer.Option(help="Sites to analyse, separated by commas, or all.")] = "oropharynx",
    bootstraps: Annotated[int, typer.Option(min=0, help="Number of bootstrap resamples.")] = 1000,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 20260101,
    covariates: Annotated[
        str | None, typer.Option(help="Covariates of the multivariable models, separated by commas.")
    ] = None,
    also: Annotated[
        str,
        typer.Option(
            help="Numeric columns, separated by commas, to compare with the count, as node volumes are."
        ),
    ] = "",
    dm_censor_at: Annotated[
        Literal["last_followup", "last_imaging"] | None,
        typer.Option(
            help="Deaths after the end of imaging: last_followup (default) counts them as competing, "
            "last_imaging censors before them."
        ),
    ] = None,
    impute: Annotated[
        bool, typer.Option("--impute", help="Also analyse with imputed missing covariates.")
    ] = False,
    derive: Annotated[
        bool,
        typer.Option(
            "--derive", help="Derive cut-offs on a training part and report them on a test part only."
        ),
    ] = False,
    derive_how: Annotated[
        Literal["split", "nested"] | None,
        typer.Option(help="How --derive is validated: on a test part, or by nested cross-validation."),
    ] = None,
    derive_endpoint: Annotated[
        str | None, typer.Option(help="Endpoint that chooses the cut-offs (default: dc, else the first).")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Worker processes (default: one per core).")] = None,
    scheduler: SchedulerOption = None,
    title: Annotated[str | None, typer.Option(help="Heading of the report.")] = None,
    date: Annotated[str, typer.Option(help="Date to print on the report, as you write it.")] = "",
    staging: StagingChoices,
    as_json: JsonOption = False,
) -> None:
    """Analyse a cohort: survival, distant control, and whether the AI-ENE count adds to them; one report."""
    stderr_console().print(f"reading {table.name}", markup=False)  # the libraries take seconds to load
    from aiene.cluster import crews_of
    from aiene.risk.schemes.scheme import read_scheme

    with user_errors():
        chosen = read_scheme(scheme)
        settings = _settings(site, covariates, bootstraps=bootstraps, seed=seed, impute=impute,
                             dm_censor_at=dm_censor_at,
                             also=tuple(c.strip() for c in also.split(",") if c.strip()),
                             derive=derive_how or ("split" if derive or derive_endpoint else "no"),
                             derive_endpoint=derive_endpoint,
                             jobs=jobs, title=title, date=date)  # fmt: skip
        found = read(table, reading)
        ai_ene = counts_of(ai_ene, reviewed)
        with_counts, joined = join(found, ai_ene, id_pattern)
        decided = staging.options(chosen.base_definition)
        run = (ai_ene, id_pattern)
        with crews_of(scheduler, jobs):
            made = _analysed(with_counts, chosen, decided, endpoint.split(","), out, settings, run)
        tell(made, out, as_json=as_json, is_simulated=simulated(with_counts))
        tell_end(with_counts)
    raise typer.Exit(max(made.exit_code, int(bool(found.dropped) or bool(joined and joined.only_table))))


def _analysed(
    table: pd.DataFrame,
    scheme: Scheme,
    staging: StagingOptions,
    endpoints: Sequence[str],
    out: Path,
    settings: AnalysisSettings,
    run: tuple[Path | None, str | None],
) -> Analysis:
    """Stratify and analyse, with a bar; `run` is the run's place and how its cases name patients."""
    stderr_console().print("staging the cohort and loading the statistics", markup=False)
    from aiene.risk.analyse.run import analyse as run_analysis
    from aiene.risk.join import run_nodes
    from aiene.risk.stratify import stratify

    ai_ene, id_pattern = run
    groups = stratify(table, scheme, options=staging)
    nodes = None if ai_ene is None else run_nodes(ai_ene, id_pattern=id_pattern)
    with progress() as on_progress:
        return run_analysis(
            groups,
            endpoints=[name for name in endpoints if name.strip()],
            scheme=scheme,
            out=out,
            settings=settings,
            nodes=nodes,
            on_progress=on_progress,
        )


def _settings(
    site: str, covariates: str | None, *, title: str | None, derive_endpoint: str | None, **rest: Any
) -> AnalysisSettings:
    from aiene.errors import UsageError
    from aiene.risk.analyse.records import AnalysisSettings, parse_endpoints
    from aiene.risk.table.columns import SITES

    sites = [] if site == "all" else [s.strip() for s in site.split(",") if s.strip()]
    unknown = [s for s in sites if s not in SITES]
    if unknown:
        raise UsageError(f"--site {unknown[0]}: no such site; known are {', '.join(SITES)} and all.")
    if covariates is not None:
        rest["covariates"] = tuple(c.strip() for c in covariates.split(",") if c.strip())
    if title is not None:
        rest["title"] = title
    if derive_endpoint is not None:
        rest["derive_endpoint"] = parse_endpoints([derive_endpoint])[0]
    return AnalysisSettings(sites=tuple(sites), **rest)
