"""`aiene risk validate`: a locked scheme or model on another cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aiene.cli.console import SchedulerOption, user_errors
from aiene.cli.risk_options import (
    AiEneOption,
    IdPatternOption,
    JsonOption,
    Reading,
    StagingChoices,
    join,
    progress,
    read,
    simulated,
    tell,
    tell_end,
    with_records,
)


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
    as_json: JsonOption = False,
) -> None:
    """Validate a locked scheme or model on another cohort, without refitting; one report."""
    from aiene.cluster import crews_of
    from aiene.errors import UsageError
    from aiene.risk.analyse.locked_model import is_model, read_model
    from aiene.risk.analyse.records import AnalysisSettings
    from aiene.risk.schemes.scheme import read_scheme
    from aiene.risk.stratify import stratify
    from aiene.risk.validate.run import validate as run_validation

    with user_errors():
        whole = _years(years)
        sites = () if site == "all" else tuple(s.strip() for s in site.split(",") if s.strip())
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
        tell(made, out, as_json=as_json, is_simulated=simulated(cohort))
        tell_end(cohort)
    raise typer.Exit(max(made.exit_code, int(bool(found.dropped) or bool(joined and joined.only_table))))


def _years(text: str) -> tuple[float, ...]:
    from aiene.errors import UsageError

    try:
        found = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(f"--years {text}: write years as 2,3,5.") from error
    if not found or len(set(found)) != len(found):
        raise UsageError(f"--years {text}: name each year once.")
    return found
