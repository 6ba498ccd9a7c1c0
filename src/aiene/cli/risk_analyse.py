"""`aiene risk analyse` and `validate`: a cohort in one report; a locked scheme or model on another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aiene.cli.console import AsJson, IdPatternOption, SchedulerOption, stderr_console, user_errors
from aiene.cli.risk_options import (
    AiEneOption,
    Reading,
    ReviewedOption,
    SchemeOption,
    StagingChoices,
    TableArgument,
    counts_of,
    join,
    progress,
    read,
    tell_report,
    with_records,
)
from aiene.errors import UsageError

if TYPE_CHECKING:
    from aiene.risk.analyse.records import AnalysisSettings


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
    as_json: AsJson = False,
) -> None:
    """Analyse a cohort: survival, distant control, and whether the AI-ENE count adds to them; one report."""
    stderr_console().print(f"reading {table.name}")  # the libraries take seconds to load
    from aiene.cluster import crews_of
    from aiene.risk.schemes.scheme import read_scheme

    with user_errors():
        chosen = read_scheme(scheme)
        settings = _settings(site, covariates, bootstraps=bootstraps, seed=seed, impute=impute,
                             dm_censor_at=dm_censor_at,
                             also=_listed(also),
                             derive=derive_how or ("split" if derive or derive_endpoint else "no"),
                             derive_endpoint=derive_endpoint,
                             jobs=jobs, title=title, date=date)  # fmt: skip
        found = read(table, reading)
        ai_ene = counts_of(ai_ene, reviewed)
        with_counts, joined = join(found, ai_ene, id_pattern)
        decided = staging.options(chosen.base_definition)
        with crews_of(scheduler, jobs):
            stderr_console().print("staging the cohort and loading the statistics")
            from aiene.risk.analyse.run import analyse as run_analysis
            from aiene.risk.join import run_nodes
            from aiene.risk.stratify import stratify

            groups = stratify(with_counts, chosen, options=decided)
            nodes = None if ai_ene is None else run_nodes(ai_ene, id_pattern=id_pattern)
            with progress() as on_progress:
                made = run_analysis(
                    groups,
                    endpoints=[name for name in endpoint.split(",") if name.strip()],
                    scheme=chosen,
                    out=out,
                    settings=settings,
                    nodes=nodes,
                    on_progress=on_progress,
                )
        code = tell_report(made, out, with_counts, found, joined, as_json=as_json)
    raise typer.Exit(code)


def _listed(words: str) -> tuple[str, ...]:
    """The words between commas."""
    return tuple(word.strip() for word in words.split(",") if word.strip())


def _settings(
    site: str, covariates: str | None, *, title: str | None, derive_endpoint: str | None, **rest: Any
) -> AnalysisSettings:
    from aiene.risk.analyse.records import AnalysisSettings, parse_endpoints
    from aiene.risk.table.columns import SITES

    sites = () if site == "all" else _listed(site)
    unknown = [s for s in sites if s not in SITES]
    if unknown:
        raise UsageError(f"--site {unknown[0]}: no such site; known are {', '.join(SITES)} and all.")
    if covariates is not None:
        rest["covariates"] = _listed(covariates)
    if title is not None:
        rest["title"] = title
    if derive_endpoint is not None:
        rest["derive_endpoint"] = parse_endpoints([derive_endpoint])[0]
    return AnalysisSettings(sites=sites, **rest)


@with_records
def validate(
    *,
    locked: Annotated[
        str,
        typer.Argument(
            metavar="SCHEME-or-MODEL",
            help="Scheme (file or name), or a models/NAME.json written by `analyse`.",
        ),
    ],
    table: Annotated[
        Path, typer.Argument(metavar="COHORT", help="One row per patient: .csv, .tsv, .xlsx or .parquet.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the report.")],
    against: Annotated[
        list[Path] | None, typer.Option(help="Locked model to compare MODEL with. Can be repeated.")
    ] = None,
    ai_ene: AiEneOption = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Endpoint for a scheme, if not its own: os, dc, lrc or dfs.")
    ] = None,
    reading: Reading,
    id_pattern: IdPatternOption = None,
    site: Annotated[str, typer.Option(help="Sites to include, separated by commas, or all.")] = "oropharynx",
    years: Annotated[
        str,
        typer.Option(
            help="Years at which calibration and accuracy are measured, separated by commas; the last is the "
            "main one."
        ),
    ] = "2,5,3",
    bootstraps: Annotated[int, typer.Option(min=0, help="Number of bootstrap resamples.")] = 1000,
    confidence: Annotated[float, typer.Option(help="Confidence level of all intervals.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 20260101,
    jobs: Annotated[int | None, typer.Option(min=1, help="Worker processes (default: one per core).")] = None,
    scheduler: SchedulerOption = None,
    title: Annotated[str, typer.Option(help="Heading of the report.")] = "External validation",
    date: Annotated[str, typer.Option(help="Date to print on the report, as you write it.")] = "",
    staging: StagingChoices,
    as_json: AsJson = False,
) -> None:
    """Validate a locked scheme or model on another cohort, without refitting; one report."""
    from aiene.cluster import crews_of
    from aiene.risk.analyse.locked_model import is_model, read_model
    from aiene.risk.analyse.records import AnalysisSettings
    from aiene.risk.schemes.scheme import read_scheme
    from aiene.risk.stratify import stratify
    from aiene.risk.validate.run import validate as run_validation

    with user_errors():
        whole = _years(years)
        sites = () if site == "all" else _listed(site)
        settings = AnalysisSettings(
            bootstraps=bootstraps,
            seed=seed,
            confidence=confidence,
            sites=sites,
            horizons=tuple(sorted(whole)),
            calibration_years=tuple(sorted(whole)),
            decision_years=whole[-1],
            jobs=jobs,
            title=title,
            date=date,
        )
        model = Path(locked).suffix == ".json" or is_model(Path(locked))
        if against and not model:
            raise UsageError("--against compares models; a scheme is compared with its own base groups.")
        if endpoint and model:
            raise UsageError("--endpoint belongs to a scheme; a model has its own.")
        chosen = None if model else read_scheme(locked)
        models = [read_model(p) for p in (*(against or ()), *([Path(locked)] if model else ()))]
        found = read(table, reading)
        cohort, joined = join(found, ai_ene, id_pattern)
        if chosen is not None:
            cohort = stratify(cohort, chosen, options=staging.options(chosen.base_definition))
        elif cohort["n_ai_ene"].isna().all():
            raise UsageError("the table has no n_ai_ene; name the patients.csv of a run with --ai-ene.")
        with crews_of(scheduler, jobs), progress() as on_progress:
            made = run_validation(
                chosen or models,
                cohort,
                out=out,
                settings=settings,
                endpoint=endpoint,
                on_progress=on_progress,
            )
        code = tell_report(made, out, cohort, found, joined, as_json=as_json)
    raise typer.Exit(code)


def _years(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(f"--years {text}: write years as 2,3,5.") from error
    if not found or len(set(found)) != len(found):
        raise UsageError(f"--years {text}: name each year once.")
    return found
