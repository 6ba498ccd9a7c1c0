"""What a report says in words and in short: methods, checklists, key results, p values over all endpoints.

The checklists say which item the report answers, where, and which ones the authors must fill in. Item titles
are our own short wording of Altman et al. 2012 (REMARK, doi 10.1371/journal.pmed.1001216) and Collins et al.
2024 (TRIPOD+AI, doi 10.1136/bmj-2023-078378).
"""

from __future__ import annotations

import csv
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any

from aiene.report.document import RESEARCH_ONLY, Row, Section, Table
from aiene.risk.analyse.cohort import COMPETING, EVENTS, LABELS, Cohort
from aiene.risk.analyse.design import make_design
from aiene.risk.analyse.records import AnalysisSettings, Endpoint, table_of, text_of
from aiene.risk.analyse.regression import MARKER
from aiene.stats.tests import holm

if TYPE_CHECKING:
    from aiene.risk.schemes.scheme import Scheme


_PACKAGES = ("aiene", "lifelines", "comprisk", "numpy", "scipy", "pandas", "matplotlib")


def software() -> dict[str, str]:
    """Versions of what computes and draws."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}}


def head_of(settings: AnalysisSettings) -> dict[str, Any]:
    """What a report was made with, for the head of `analysis.json`."""
    # The number of processes changes no result, and so has no place in files that are the same on each run.
    kept = {k: v for k, v in asdict(settings).items() if k != "jobs"}
    head = {"title": settings.title, "date": settings.date, "notice": RESEARCH_ONLY}
    return head | {"software": software(), "settings": kept}


def methods_text(
    cohort: Cohort, scheme: Scheme, endpoints: Sequence[Endpoint], settings: AnalysisSettings
) -> str:
    """Paragraphs, parted by an empty line."""
    table, versions = cohort.table, software()
    origins = sorted({str(o).replace("_", " ") for o in table["time_origin"].dropna()})
    origin = f"Times run from {' or '.join(origins)}" if origins else "The origin of the times was not stated"
    models = sorted({str(m) for m in table["ai_model"].dropna()})
    thresholds = sorted({float(t) for t in table["ai_threshold"].dropna()})
    by = f" by model {', '.join(models)}" if models else ""
    at = f" at a threshold of {', '.join(f'{t:g}' for t in thresholds)}" if thresholds else ""
    competes, late = any(e in COMPETING for e in endpoints), _LATE_DEATH[settings.dm_censor_at]
    design, coded = make_design(table, settings.covariates), []
    for term in design.terms:
        levels = f" ({', '.join((term.reference, *term.levels))}; reference first)" if term.reference else ""
        coded.append(f"{term.label}{levels}")
    words = {
        "cohort": cohort,
        "scheme": scheme,
        "settings": settings,
        "versions": versions,
        "n": len(table),
        "out": "; ".join(f"{s.reason} (n = {len(s.left)})" for s in cohort.steps if s.left) or "none",
        "origin": origin,
        "count": text_of("simulated") if cohort.simulated else text_of("counted", by=by, at=at),
        "base": "no base grouping" if scheme.base == "none" else f"base grouping {scheme.base}",
        "classes": ", ".join(scheme.classes),
        "source": "pre-specified" if scheme.source.kind == "prespecified" else "derived",
        "sha256": scheme.sha256[:12],
        "endpoints": "; ".join(f"{LABELS[e].lower()} (event: {EVENTS[e]})" for e in endpoints) or "none",
        "competing": text_of("competing", late=late) if competes else "",
        "coded": ", ".join(coded) or "nothing",
        "missing": text_of("imputed", settings=settings) if settings.impute else "complete cases",
        "unused": "".join(f" {label} was not used: {why}." for label, why in design.dropped),
        "years": ", ".join(f"{y:g}" for y in settings.horizons),
        "calibrated": " and ".join(f"{y:g}" for y in settings.calibration_years),
        "also": f" and {', '.join(settings.also)}" if settings.also else "",
        "endpoint": LABELS[settings.derive_endpoint or "dc"].lower(),
        "how": text_of(f"derived_{settings.derive}", settings=settings) if settings.derive != "no" else "",
        "named": ", ".join(f"{n} {versions[n]}" for n in ("lifelines", "comprisk", "numpy", "scipy")),
    }
    derived = ("derived",) if settings.derive != "no" else ()
    kinds = ("patients", "marker", "survival", "regression", "added", "robust", *derived, "made")
    return "\n\n".join(text_of(kind, **words) for kind in kinds)


_LATE_DEATH = {
    None: "when it happened unless the table says otherwise (dm_censor_at)",
    "last_followup": "when it happened",
    "last_imaging": "not at all, the patient being censored there",
}


# Checklists


def checklists(
    sections: Sequence[Section], endpoints: Sequence[Endpoint], settings: AnalysisSettings
) -> dict[str, list[dict[str, Any]]]:
    """Both lists, from `checklists.csv`; an item whose chapter is not in the report is left to the authors.

    `places` of the file is the anchor of a chapter, then those of its tables and figures; `derived` marks an
    item that the chapter of derived cut-offs answers where there is one.
    """
    there = {s.name for s in sections} | {"methods", "made-with"}
    first = endpoints[0] if endpoints else ""
    found: dict[str, list[dict[str, Any]]] = {}
    text = (resources.files("aiene.risk.analyse") / "checklists.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        told, (anchor, *shows) = row["found"], row["places"].format(first=first).split() or [""]
        if row["derived"] and settings.derive != "no":
            told, anchor = "Cut-offs derived from the data", "derived"
        if anchor and anchor not in there:
            told, anchor, shows = "", "", []
        item = {"item": row["item"], "topic": row["topic"], "found": told, "anchor": anchor, "shows": shows}
        found.setdefault(row["checklist"], []).append(item)
    return found


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
                effect = _first(tables, f"cox_{endpoint}_{name}", column=MARKER)
                row = {"family": family, "endpoint": LABELS[endpoint], "population": label}
                own.append(row | {"hr": effect.get("adj_hr"), "p": effect.get("adj_p")})
        corrected = holm([r["p"] for r in own])
        rows += [r | {"p_holm": p} for r, p in zip(own, corrected, strict=True)]
    return Section("multiplicity", "Several endpoints and populations", (table_of("multiplicity", rows),))
