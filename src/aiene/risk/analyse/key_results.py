"""What an analysis says in short, read off its tables: key results by endpoint, p values over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiene.report.document import Row, Section, Table
from aiene.risk.analyse.cohort import LABELS
from aiene.risk.analyse.records import AnalysisSettings, Endpoint, table_of
from aiene.risk.analyse.regression import MARKER
from aiene.stats.tests import holm

NAME = "key_results"


def key_results(
    sections: Sequence[Section], endpoints: Sequence[Endpoint], settings: AnalysisSettings
) -> Section:
    """The first section of the report: patients, events, hazard ratio, gain in C and interaction with HPV.

    Parameters
    ----------
    sections : chapters of the analysis, whose tables are read.
    """
    tables = {table.name: table for section in sections for table in section.tables}
    rows = [_row(endpoint, tables) for endpoint in endpoints]
    bases = {row["base"] for row in rows if row.get("base")}
    base = bases.pop() if len(bases) == 1 else "the old groups"
    corrected = "corrected for optimism" if settings.bootstraps else "apparent"
    table = table_of(NAME, rows, base=base, corrected=corrected, settings=settings)
    return Section("key-results", "Key results", (table,), boxed=True)


def _row(endpoint: Endpoint, tables: Mapping[str, Table]) -> dict[str, Any]:
    row: dict[str, Any] = {"endpoint": LABELS[endpoint]}
    effect = _first(tables, f"cox_{endpoint}_all", column=MARKER)
    if effect.get("adj_hr") is None:
        row |= {"n": effect.get("uni_n"), "events": effect.get("uni_events")}
        row["reason"] = "no adjusted model; see what was not done"
    else:
        row |= {"n": effect["adj_n"], "events": effect["adj_events"], "hr": effect["adj_hr"]}
        row |= {"hr_lower": effect["adj_lower"], "hr_upper": effect["adj_upper"], "hr_p": effect["adj_p"]}
    for contest, name in (("clinical", "gain"), ("base", "base")):
        found = _gain(endpoint, tables, contest)
        row[name if name == "gain" else "gain_base"] = found.get("value")
        row |= {f"{name}_lower": found.get("lower"), f"{name}_upper": found.get("upper")}
        if name == "base" and found:
            row["base"] = found["comparison"]
    test = _first(tables, "interaction", endpoint=LABELS[endpoint])
    row |= {"ratio": test.get("ratio"), "ratio_p": test.get("p")}
    return row | {key: test.get(key) for key in ("ratio_lower", "ratio_upper")}


def _gain(endpoint: Endpoint, tables: Mapping[str, Table], contest: str) -> dict[str, Any]:
    """What the count adds to C: corrected for optimism where it was resampled, else apparent."""
    of = {"population": "All patients", "contest": contest}
    row = _first(tables, f"optimism_{endpoint}", key="delta new", **of)
    if row:
        return {**row, "value": row["corrected"]}
    row = _first(tables, f"delta_{endpoint}", key="new", kind="Harrell", **of)
    return {**row, "value": row["delta"]} if row else {}


def _first(tables: Mapping[str, Table], name: str, **wanted: str) -> Row:
    rows = tables[name].rows if name in tables else ()
    return next((r for r in rows if all(r.get(k) == v for k, v in wanted.items())), {})


def multiplicity_section(
    sections: Sequence[Section], endpoints: Sequence[Endpoint], populations: Sequence[tuple[str, str]]
) -> Section:
    """The adjusted effect of the count over endpoints and populations, corrected by a plan that is stated.

    Parameters
    ----------
    sections : chapters of the analysis, whose tables are read.
    populations : name and label of each.
    """
    tables = {t.name: t for s in sections for t in s.tables}
    rows: list[dict[str, Any]] = []
    for family, chosen in (("all patients", populations[:1]), ("within HPV strata", populations[1:])):
        own: list[dict[str, Any]] = []
        for endpoint in endpoints:
            for name, label in chosen:
                table = tables.get(f"cox_{endpoint}_{name}")
                effect = next((r for r in table.rows if r["column"] == MARKER), {}) if table else {}
                row = {"family": family, "endpoint": LABELS[endpoint], "population": label}
                own.append(row | {"hr": effect.get("adj_hr"), "p": effect.get("adj_p")})
        corrected = holm([r["p"] for r in own])
        rows += [r | {"p_holm": p} for r, p in zip(own, corrected, strict=True)]
    return Section("multiplicity", "Several endpoints and populations", (table_of("multiplicity", rows),))
