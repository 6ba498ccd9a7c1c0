"""`aiene risk simulate`: cohorts with known hazards, counts planted onto a real table, and power."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aiene.cli.console import echo, stderr_console, user_errors
from aiene.cli.risk_options import (
    FromOption,
    JsonOption,
    MapOption,
    Reading,
    echo_json,
    read,
    tell_end,
    write_with_record,
)

if TYPE_CHECKING:
    import pandas as pd

    from aiene.risk.simulate.cohort import CohortSettings


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
    as_json: JsonOption = False,
) -> None:
    """Simulate a cohort with known hazards and compute the power, or add a simulated count to a table."""
    from aiene.errors import UsageError
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
    from aiene.risk.table.endpoints import CONTROL

    made = simulate_cohort(n, seed=seed, settings=settings, event_rate=event_rate, endpoint=endpoint)
    ratio = getattr(settings, endpoint).n_ai_ene
    record = {
        "simulated": True,
        "what": "a cohort of patients that do not exist",
        "n": n,
        "seed": seed,
        "endpoint": CONTROL.get(endpoint, endpoint),
        "hazard_ratio": ratio,
        "event_rate_asked_for": event_rate,
        "planted": asdict(settings),
        "events": _events(made),
    }
    return made, record


def _onto(
    table: Path, source: str, mapping: Path | None, endpoint: str, ratio: float, seed: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    from aiene.risk.simulate.conditional_marker import simulate_onto
    from aiene.risk.table.endpoints import CONTROL

    found = read(table, Reading(source, mapping))
    made = simulate_onto(found.table, endpoint=endpoint, hazard_ratio=ratio, seed=seed)
    record = {
        "simulated": True,
        "what": "a simulated AI-ENE count on real patients; their outcomes are real",
        "n": len(made),
        "seed": seed,
        "endpoint": CONTROL.get(endpoint, endpoint),
        "hazard_ratio": ratio,
        "provenance": found.provenance,
        "warnings": list(found.warnings),
        "events": _events(made),
    }
    return made, record


def _events(table: pd.DataFrame) -> dict[str, int]:
    return {name: int(table[f"{name}_event"].sum()) for name in ("os", "dm", "lrf", "dfs")}


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

    from aiene.errors import UsageError
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
        stderr_console().print(
            "no power: no effect is simulated, or the covariate does not vary", markup=False
        )
        return
    echo(
        f"{found['method']}: power {found['power']:.3f} with {found['events']:.0f} expected events (standard "
        f"deviation of the count {found['sd']:.2f}, R squared {found['r_squared']:g}, two-sided "
        f"{found['alpha']:g}); 80 % needs {found['events_80']} events ({found['patients_80']} patients), "
        f"90 % {found['events_90']} ({found['patients_90']})"
    )
