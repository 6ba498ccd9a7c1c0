"""`aiene risk`: clinical tables and AI-ENE counts in, stages and risk groups out; simulated cohorts."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aiene.cli.console import AsJson, IdPatternOption, echo, stderr_console, user_errors
from aiene.cli.risk_options import (
    AiEneOption,
    FromOption,
    MapOption,
    OwnReading,
    Reading,
    ReviewedOption,
    RtogOption,
    SchemeOption,
    StagingChoices,
    TableArgument,
    counts,
    counts_of,
    echo_json,
    join,
    print_counts,
    print_preview,
    read,
    simulated,
    tell_end,
    with_records,
    write_with_record,
)
from aiene.errors import OutputError, UsageError, counted

if TYPE_CHECKING:
    import pandas as pd

    from aiene.risk.simulate.cohort import CohortSettings


app = typer.Typer(
    help="From AI-ENE node counts to risk groups: staging, stratifying, survival. Research only.",
    no_args_is_help=True,
)

OutOption = Annotated[
    Path | None,
    typer.Option("-o", "--out", help="Table to write. NAME.json beside it records how it was made."),
]
_STAGES = ("ajcc7_n", "ajcc7_stage", "ajcc8_stage", "ajcc8_p_stage", "v9_stage", "rtog0129")


@app.command(name="import")
@with_records
def import_(
    *,
    table: Annotated[Path | None, typer.Argument(metavar="TABLE", help="The clinical table to read.")] = None,
    out: OutOption = None,
    reading: OwnReading,
    template: Annotated[
        Path | None,
        typer.Option(help="Write a mapping file to fill in, with the headers of TABLE, and exit."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read a clinical table, show how it was understood, and write it as a canonical table."""
    with user_errors():
        if template is not None:
            _write_template(template, table, reading.sheet)
            return
        if table is None:
            raise UsageError("no table; name one, or write a mapping file with --template.")
        found = read(table, reading)
        record = {
            "provenance": found.provenance,
            "warnings": list(found.warnings),
            "notes": list(found.notes),
            "preview": [asdict(line) for line in found.preview],
            "simulated": simulated(found.table),
        }
        if out is not None:
            write_with_record(found.table, out, record)
        if as_json:
            echo_json(record)
        else:
            _show_import(found.provenance, found.preview)
        tell_end(found.table)
    raise typer.Exit(int(bool(found.dropped)))


def _write_template(path: Path, table: Path | None, sheet: str | None) -> None:
    from aiene.results.atomic import write_bytes
    from aiene.risk.importers.generic import template
    from aiene.risk.table.files import read_raw

    if path.exists():
        raise OutputError(path, "it exists already", "choose another name, so that no mapping is overwritten")
    headers = () if table is None else tuple(str(name) for name in read_raw(table, sheet=sheet).columns)
    write_bytes(path, template(headers).encode())
    stderr_console().print(f"mapping file written: {path.name}; fill it in, then name it with --map")


def _show_import(provenance: dict[str, Any], preview: Any) -> None:
    print_preview(preview)
    echo(
        f"{counted(provenance['patients'], 'patient')}; "
        f"times start at {provenance['time_origin'] or 'an unstated origin'}; "
        f"endpoints: {', '.join(provenance['endpoints']) or 'none'}"
    )
    if provenance["ignored_columns"]:
        echo(f"columns left out: {', '.join(provenance['ignored_columns'])}")


@app.command()
def example(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the tables.")],
) -> None:
    """Write example tables (simulated patients), with a list of commands to try on them."""
    from aiene.risk.simulate.cohort import write_example

    with user_errors():
        names = write_example(out)
        echo(f"{counted(len(names), 'file')} in {out}: {', '.join(names)}")
        echo(
            f"next: aiene risk stage {shlex.quote(str(out / 'cohort.csv'))}; README.txt there lists the rest"
        )


@app.command()
@with_records
def stage(
    *,
    table: TableArgument,
    out: OutOption = None,
    reading: Reading,
    staging: StagingChoices,
    rtog: RtogOption = "fakhry2019",
    own_edition: Annotated[
        list[Path] | None,
        typer.Option("--own-edition", help="TOML file with rules of your own, for two more columns; repeat."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Stage every patient (AJCC/UICC 7, 8 and version 9, RTOG-0129), with the rule used or why unknown."""
    import pandas as pd

    from aiene.risk.staging.own_edition import read_editions
    from aiene.risk.staging.stage import stage_table

    with user_errors():
        own = read_editions(own_edition or [])
        found = read(table, reading)
        chosen = staging.options(rtog)
        staged = stage_table(found.table, options=chosen, own=own)
        whole = pd.concat([found.table.drop(columns=[n for n in staged if n in found.table]), staged], axis=1)
        whole = whole[["patient_id", *(n for n in whole if n != "patient_id")]]
        tally = counts(staged, (*_STAGES, *(name for one in own for name in one.columns)))
        record = {
            "provenance": found.provenance,
            "warnings": list(found.warnings),
            "staging": asdict(chosen),
            **({"own_editions": [one.name for one in own]} if own else {}),
            "counts": tally,
            "simulated": simulated(found.table),
        }
        if out is not None:
            write_with_record(whole, out, record)
        echo_json(record) if as_json else print_counts(tally)
        tell_end(found.table)
    raise typer.Exit(int(bool(found.dropped)))


@app.command()
@with_records
def stratify(
    *,
    table: TableArgument,
    ai_ene: AiEneOption = None,
    reviewed: ReviewedOption = False,
    out: OutOption = None,
    scheme: SchemeOption = "count-0-1-2plus",
    reading: Reading,
    id_pattern: IdPatternOption = None,
    staging: StagingChoices,
    as_json: AsJson = False,
) -> None:
    """Join the AI-ENE counts and assign every patient to a risk group by a scheme, step by step."""
    from aiene.risk import stratify as stratifying
    from aiene.risk.schemes.scheme import read_scheme

    with user_errors():
        chosen = read_scheme(scheme)
        found = read(table, reading)
        ai_ene = counts_of(ai_ene, reviewed)
        with_counts, joined = join(found, ai_ene, id_pattern)
        decided = staging.options(chosen.base_definition)
        groups = stratifying.stratify(with_counts, chosen, options=decided)
        tally = counts(groups, ("base_group", "marker_class", "combined_group", "combined_reason"))
        record = {
            "provenance": found.provenance,
            "warnings": list(found.warnings),
            "staging": asdict(decided),
            "scheme": {**chosen.content(), "sha256": chosen.sha256, "file_sha256": chosen.file_sha256},
            "join": None
            if joined is None
            else {
                "matched": joined.matched,
                "only_table": list(joined.only_table),
                "only_ai": list(joined.only_ai),
                "warnings": list(joined.warnings),
            },
            "counts": tally,
            "simulated": simulated(groups),
        }
        if out is not None:
            write_with_record(groups, out, record)
        echo_json(record) if as_json else _show_scheme(chosen, tally)
        tell_end(groups)
    raise typer.Exit(int(bool(found.dropped) or bool(joined and joined.only_table)))


def _show_scheme(scheme: Any, tally: dict[str, dict[str, int]]) -> None:
    echo(f"scheme {scheme.name} ({scheme.source.kind} by {scheme.source.by}), sha256 {scheme.sha256}")
    if scheme.source.note:
        echo(f"  {scheme.source.note}")
    for group in scheme.base_groups:
        row = ", ".join(f"{c}: {to}" for c, to in zip(scheme.classes, scheme.mapping[group], strict=True))
        echo(f"  {group} -> {row}")
    print_counts({name: words for name, words in tally.items() if name != "combined_reason"})
    for reason, n in tally["combined_reason"].items():
        if reason:
            echo(f"  unclassifiable, {reason}: {n}")


SCHOENFELD = "Schoenfeld's formula for one linear term, for the simulated patients"


def simulate(
    n: Annotated[int, typer.Option("--n", min=1, help="Number of patients.")] = 1733,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Table to write.")] = None,
    onto: Annotated[
        Path | None,
        typer.Option(help="Add a simulated count to the patients of this real table instead."),
    ] = None,
    source: FromOption = "canonical",
    mapping: MapOption = None,
    endpoint: Annotated[
        Literal["os", "dc", "lrc", "dm", "lrf"],
        typer.Option(help="Endpoint of --hr, --event-rate and the power; dm is dc, and lrf is lrc."),
    ] = "dc",
    hr: Annotated[
        float | None, typer.Option("--hr", help="Hazard ratio per AI-ENE node (default: 1.4 for dc).")
    ] = None,
    event_rate: Annotated[
        float | None, typer.Option(help="Proportion of patients with an event; sets the baseline hazard.")
    ] = None,
    effect: Annotated[
        list[str] | None,
        typer.Option(help="Another effect to simulate: hpv_negative=2.5, dm.t4=1.8, os_rate=0.02, ..."),
    ] = None,
    r_squared: Annotated[
        float,
        typer.Option(min=0, max=0.99, help="Power: R squared of the count given the covariates."),
    ] = 0.0,
    alpha: Annotated[float, typer.Option(help="Power: two-sided significance level.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Simulate a cohort with known hazards and compute the power, or add a simulated count to a table."""
    from aiene.risk.simulate.cohort import planned_power
    from aiene.risk.table.endpoints import ALIASES

    failure = ALIASES[endpoint]
    with user_errors():
        if onto is not None:
            if effect or event_rate is not None:
                raise UsageError(
                    "--onto keeps the real outcomes: --effect and --event-rate do not go with it."
                )
            made, record = _onto(onto, source, mapping, failure, 1.5 if hr is None else hr, seed)
            record["power"] = _power_onto(made, failure, record["hazard_ratio"], r_squared, alpha)
        else:
            if event_rate is not None and not 0 < event_rate < 1:
                raise UsageError("--event-rate must be between 0 and 1.")
            settings = _settings(effect or [], failure, hr)
            made, record = _cohort(n, seed, settings, event_rate, failure)
            planned = planned_power(
                settings, failure, n, event_rate=event_rate, r_squared=r_squared, alpha=alpha
            )
            record["power"] = planned and {"method": SCHOENFELD, **asdict(planned)}
        if out is not None:
            write_with_record(made, out, record)
        echo_json(record) if as_json else _show(record)
        tell_end(made)


def _cohort(
    n: int, seed: int, settings: CohortSettings, event_rate: float | None, endpoint: str
) -> tuple[pd.DataFrame, dict[str, Any]]:
    from aiene.risk.simulate.cohort import simulate_cohort

    made = simulate_cohort(n, seed=seed, settings=settings, event_rate=event_rate, endpoint=endpoint)
    ratio = getattr(settings, endpoint).n_ai_ene
    more = {"event_rate_asked_for": event_rate, "planted": asdict(settings)}
    return made, _record(made, "a cohort of patients that do not exist", seed, endpoint, ratio, more)


def _onto(
    table: Path, source: str, mapping: Path | None, endpoint: str, ratio: float, seed: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    from aiene.risk.simulate.conditional_marker import simulate_onto

    found = read(table, Reading(source, mapping))
    made = simulate_onto(found.table, endpoint=endpoint, hazard_ratio=ratio, seed=seed)
    what = "a simulated AI-ENE count on real patients; their outcomes are real"
    more = {"provenance": found.provenance, "warnings": list(found.warnings)}
    return made, _record(made, what, seed, endpoint, ratio, more)


def _record(
    table: pd.DataFrame, what: str, seed: int, endpoint: str, ratio: float, more: dict[str, Any]
) -> dict[str, Any]:
    from aiene.risk.table.endpoints import CONTROL

    return {
        "simulated": True,
        "what": what,
        "n": len(table),
        "seed": seed,
        "endpoint": CONTROL.get(endpoint, endpoint),
        "hazard_ratio": ratio,
        **more,
        "events": {name: int(table[f"{name}_event"].sum()) for name in ("os", "dm", "lrf", "dfs")},
    }


def _power_onto(
    table: pd.DataFrame, endpoint: str, ratio: float, r_squared: float, alpha: float
) -> dict[str, Any] | None:
    """Power of one linear term of the count by Schoenfeld's formula; None where nothing is planted."""
    from aiene.risk.simulate.conditional_marker import planted_sd
    from aiene.stats.sample_size import power

    usable = table[f"{endpoint}_event"].notna()
    rate = float(table.loc[usable, f"{endpoint}_event"].astype(float).mean()) if usable.any() else 0.0
    sd = planted_sd(table, endpoint)
    if ratio == 1 or rate == 0 or sd == 0:
        return None
    n = int(usable.sum())
    found = power(n, hazard_ratio=ratio, event_rate=rate, sd=sd, r_squared=r_squared, alpha=alpha)
    return {"method": SCHOENFELD, **asdict(found)}


def _settings(effects: list[str], endpoint: str, hr: float | None) -> CohortSettings:
    """The settings with the user's `name=value` pairs; `dm.t4=1.8` is one endpoint, `t4=1.8` all of them."""
    from dataclasses import replace

    from aiene.risk.simulate.cohort import CohortSettings
    from aiene.risk.table.endpoints import ALIASES

    settings = CohortSettings()
    for pair in effects:
        name, _, text = pair.partition("=")
        where, _, effect = name.strip().rpartition(".")
        try:
            value = float(text)
        except ValueError:
            raise UsageError(f"--effect {pair}: write name=number, such as hpv_negative=2.5.") from None
        targets = [ALIASES.get(where, where)] if where else ["os", "dm", "lrf"]
        if not where and isinstance(getattr(settings, effect, None), float):
            settings = settings.changed({effect: value})
        elif all(t in ("os", "dm", "lrf") and hasattr(getattr(settings, t), effect) for t in targets):
            changed = {t: replace(getattr(settings, t), **{effect: value}) for t in targets}
            settings = settings.changed(changed)
        else:
            raise UsageError(f"--effect {pair}: no such effect; --json lists the simulated ones.")
    if hr is not None:
        settings = settings.changed({endpoint: replace(getattr(settings, endpoint), n_ai_ene=hr)})
    return settings


def _show(record: dict[str, Any]) -> None:
    echo(f"{record['n']} patients, seed {record['seed']}: {record['what']}")
    echo("events: " + ", ".join(f"{name} {count}" for name, count in record["events"].items()))
    echo(f"simulated: hazard ratio {record['hazard_ratio']:g} per AI-ENE node for {record['endpoint']}")
    found = record["power"]
    if found is None:
        stderr_console().print("no power: no effect is simulated, or the covariate does not vary")
        return
    echo(
        f"{found['method']}: power {found['power']:.3f} with {found['events']:.0f} expected events (standard "
        f"deviation of the count {found['sd']:.2f}, R squared {found['r_squared']:g}, two-sided "
        f"{found['alpha']:g}); 80 % needs {found['events_80']} events ({found['patients_80']} patients), "
        f"90 % {found['events_90']} ({found['patients_90']})"
    )
