"""The effect of the count in subgroups and centres, whether it differs, and p values over endpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from aiene.report.document import Column, Figure, Section, Table
from aiene.report.formatting import NOTHING, interval_text, p_text, plain_rows
from aiene.risk.analyse.centres import pooled
from aiene.risk.analyse.charts.forest import draw_forest
from aiene.risk.analyse.cohort import LABELS, Outcome, numeric, words
from aiene.risk.analyse.records import AnalysisSettings, Endpoint, Part, Skipped
from aiene.risk.analyse.regression import COUNT_MODELS, MARKER, Sample, cox
from aiene.stats.centre_models import cluster_robust_cox, frailty_cox
from aiene.stats.competing_risks import fine_gray
from aiene.stats.cox_model import nested_lrt
from aiene.stats.elementary import holm
from aiene.stats.records import Coefficient, NotEstimableError

FEWEST_EVENTS = 10
"""Events that a subgroup needs for a hazard ratio."""
_COLUMNS = (
    Column("factor", "Factor"),
    Column("level", "Subgroup"),
    Column("n", "n", "count"),
    Column("events", "Events", "count"),
    Column("hr", "HR per AI-ENE node (interval)", "number", "lower", "upper"),
    Column("p", "p", "p"),
    Column("interaction_p", "p of interaction", "p"),
    Column("remark", "Remark"),
)


def subgroups_part(sample: Sample, settings: AnalysisSettings) -> Part:
    """Hazard ratios of the count in subgroups of the complete cases; one test of interaction by factor."""
    complete, design, count = sample.complete()
    what = f"{complete.label}: subgroups"
    if complete.n_events < 2 * FEWEST_EVENTS or len(set(count)) < 2:
        return Part((), (Skipped(what, "too few events for subgroups, or one count."),))
    matrix = design.matrix.assign(**{MARKER: count})[[MARKER, *design.matrix.columns]]
    table = sample.table.loc[sample.design.complete].reset_index(drop=True)
    rows = [{"factor": "All", "level": "", **_effect(complete, matrix, settings)}]
    for factor, (labels, levels, prefix) in _factors(table).items():
        rows += _of_factor(factor, labels, levels, prefix, complete, matrix, settings)
    if complete.competes:
        rows += _subdistribution(table, complete, matrix, settings)
    note = (
        "Adjusted for the covariates less the factor itself. A difference between subgroups is read off the "
        "test of interaction (likelihood ratio of the products of count and levels), not off two p values; "
        f"the tests are not adjusted for their number. A subgroup needs {FEWEST_EVENTS} events; with fewer "
        f"than {FEWEST_EVENTS} a covariate its hazard ratio is unadjusted."
    )
    name = f"subgroups_{complete.name}"
    return Part((_figure(name, what, rows, settings), Table(name, what, _COLUMNS, plain_rows(rows), note)))


_Factor = tuple[np.ndarray, tuple[str, ...], str]


def _factors(table: pd.DataFrame) -> dict[str, _Factor]:
    """Label of each patient (empty: in none), the levels in their order, and the covariate that it is."""
    found: dict[str, _Factor] = {}
    hpv = words(table, "hpv")
    found["HPV"] = (hpv, ("positive", "negative"), "hpv_")
    for name in ("t", "n"):
        column = f"{name}_covariate"
        if column in table:
            category = words(table, column)
            late = {"t": ("T3", "T4", "T4a", "T4b"), "n": ("N2", "N2a", "N2b", "N2c", "N3", "N3a", "N3b")}[
                name
            ]
            labels = np.where(
                category == "", "", np.where(np.isin(category, late), late[0], f"below {late[0]}")
            )
            named = np.where(labels == late[0], f"{late[0]} or more", labels)
            found[name.upper()] = (named, (f"below {late[0]}", f"{late[0]} or more"), f"{name}_")
    smoking = words(table, "pack_years_class")
    smoked = np.select(
        [smoking == "le10", smoking == "gt10"], ["10 pack-years or fewer", "over 10 pack-years"], ""
    )
    found["Smoking"] = (smoked, ("10 pack-years or fewer", "over 10 pack-years"), "pack_years")
    age = numeric(table, "age")
    old = np.where(np.isnan(age), "", np.where(age >= 65, "65 or older", "under 65"))
    found["Age"] = (old, ("under 65", "65 or older"), "age")
    found["Sex"] = (words(table, "sex"), ("male", "female"), "sex_")
    centre = words(table, "center")
    found["Centre"] = (centre, tuple(sorted({str(c) for c in centre} - {""})), "center_")
    return {name: f for name, f in found.items() if len(set(f[0]) - {""}) > 1}


def _effect(outcome: Outcome, matrix: pd.DataFrame, settings: AnalysisSettings) -> dict[str, Any]:
    columns = matrix[[c for c in matrix if matrix[c].nunique() > 1]]
    row: dict[str, Any] = {"n": outcome.n, "events": outcome.n_events}
    if outcome.n_events < FEWEST_EVENTS or MARKER not in columns:
        return row | {"remark": f"fewer than {FEWEST_EVENTS} events, or one count"}
    if outcome.n_events < FEWEST_EVENTS * columns.shape[1]:
        columns, row["remark"] = columns[[MARKER]], "unadjusted"
    try:
        found = cox(outcome.time, outcome.event, columns, confidence=settings.confidence).rows[0]
    except NotEstimableError as error:
        return row | {"remark": str(error)}
    return row | {"hr": found.hr, "lower": found.lower, "upper": found.upper, "p": found.p}


def _of_factor(
    factor: str,
    labels: np.ndarray,
    levels: Sequence[str],
    prefix: str,
    outcome: Outcome,
    matrix: pd.DataFrame,
    settings: AnalysisSettings,
) -> list[dict[str, Any]]:
    others = matrix[[c for c in matrix if c == MARKER or not str(c).startswith(prefix)]]
    rows: list[dict[str, Any]] = []
    for level in levels:
        inside = labels == level
        if inside.any():
            own = others.loc[inside].reset_index(drop=True)
            rows.append({"factor": factor, "level": level, **_effect(outcome.take(inside), own, settings)})
    if rows:
        rows[0]["interaction_p"] = _interaction(labels, levels, outcome, others)
    return rows


def _interaction(
    labels: np.ndarray, levels: Sequence[str], outcome: Outcome, others: pd.DataFrame
) -> float | None:
    known = labels != ""
    present = [level for level in levels if (labels == level).any()]
    main = pd.DataFrame({f"is {level}": (labels[known] == level).astype(float) for level in present[1:]})
    base = pd.concat([others.loc[known].reset_index(drop=True), main], axis=1)
    base = base[[c for c in base if base[c].nunique() > 1]]
    if MARKER not in base:
        return None
    products = main.mul(base[MARKER], axis=0).add_prefix(f"{MARKER} x ")
    own = outcome.take(known)
    try:
        smaller = cox(own.time, own.event, base)
        return nested_lrt(smaller, cox(own.time, own.event, pd.concat([base, products], axis=1))).p
    except NotEstimableError:
        return None


def _subdistribution(
    table: pd.DataFrame, outcome: Outcome, matrix: pd.DataFrame, settings: AnalysisSettings
) -> list[dict[str, Any]]:
    """Count by HPV on the subdistribution hazard: the product's ratio and Wald test."""
    hpv = words(table, "hpv")
    known = np.isin(hpv, ("positive", "negative"))
    if len(set(hpv[known])) < 2:
        return []
    own = outcome.take(known)
    columns = matrix.loc[known].reset_index(drop=True)
    columns = columns[[c for c in columns if c == MARKER or not str(c).startswith("hpv_")]]
    negative = (hpv[known] == "negative").astype(float)
    design = columns.assign(hpv_negative=negative, product=negative * columns[MARKER])
    design = design[[c for c in design if design[c].nunique() > 1]]
    row: dict[str, Any] = {"factor": "Fine-Gray", "n": own.n, "events": own.n_events}
    row["level"] = "sHR if HPV-negative / sHR if HPV-positive"
    try:
        found = fine_gray(own.time, own.state, design, confidence=settings.confidence).rows[-1]
    except NotEstimableError as error:
        return [row | {"remark": str(error)}]
    row |= {"hr": found.hr, "lower": found.lower, "upper": found.upper, "interaction_p": found.p}
    return [row | {"remark": "ratio of subdistribution hazard ratios, Wald test"}]


def _figure(name: str, what: str, rows: Sequence[Mapping[str, Any]], settings: AnalysisSettings) -> Figure:
    shown: list[dict[str, Any]] = []
    for row in rows:
        if row["factor"] == "Fine-Gray":
            continue
        value, text = row.get("hr"), NOTHING
        if value is not None:
            text = interval_text(value, row["lower"], row["upper"])
        if row.get("interaction_p") is not None:
            text += f"   p interaction {p_text(row['interaction_p'])}"
        label = f"{row['factor']}: {row['level']}" if row["level"] else "All patients"
        head = not row["level"]
        line = {
            "label": label,
            "head": head,
            "value": value,
            "low": row.get("lower"),
            "high": row.get("upper"),
        }
        counts = f"{row['n']} / {row['events']}"
        shown.append(line | {"text": text, "look": 2 if head else 0, "counts": counts})
    shown = list(plain_rows(shown))
    content = {
        "rows": shown,
        "x_label": "Hazard ratio per AI-ENE node (logarithmic axis)",
        "heading": "HR (interval), interaction",
    }
    data = {
        "subgroup": [r["label"] for r in shown],
        "hr": [r["value"] for r in shown],
        "lower": [r["low"] for r in shown],
        "upper": [r["high"] for r in shown],
    }
    legend = (
        f"{what}: adjusted hazard ratio per AI-ENE node in subgroups of the complete cases, "
        f"{settings.confidence:.0%} Wald intervals; p of the likelihood-ratio test of interaction beside the "
        "first subgroup of each factor."
    )
    return Figure(name, what, legend, partial(draw_forest, content), data, wide=True)


# Several tests


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
    columns = (
        Column("family", "Family of tests"),
        Column("endpoint", "Endpoint"),
        Column("population", "Patients"),
        Column("hr", "HR per AI-ENE node, adjusted", "number"),
        Column("p", "p", "p"),
        Column("p_holm", "p, Holm", "p"),
    )
    note = (
        "The plan: one test for each endpoint and population, that of the count in the adjusted Cox model. "
        "Holm's correction within two families: all endpoints in all patients; all endpoints in the HPV "
        "strata. All other p values of this report are uncorrected and describe."
    )
    table = Table("multiplicity", "The count over endpoints and populations", columns, plain_rows(rows), note)
    return Section("multiplicity", "Several endpoints and populations", (table,))


FEWEST_CENTRE_EVENTS = 10
"""Events that a centre needs for a hazard ratio of its own, and for each of its parameters."""


def centre_part(sample: Sample, settings: AnalysisSettings) -> Part:
    """The adjusted hazard ratio by models that respect centres, in each centre, pooled; heterogeneity."""
    complete, design, count = sample.complete()
    centre = words(sample.table, "center")[sample.design.complete]
    known = centre != ""
    what = f"{complete.label}: more than one centre"
    if len(set(centre[known])) < 2 or not complete.event[known].any():
        return Part((), (Skipped(what, "the patients with complete covariates are of one centre."),))
    outcome, centre = complete.take(known), centre[known]
    others = design.matrix.loc[known].reset_index(drop=True)
    others = others[[c for c in others if not str(c).startswith("center_") and others[c].nunique() > 1]]
    matrix = others.assign(**{MARKER: count[known]})[[MARKER, *others.columns]]
    rows = [
        _tried(name, outcome, model, settings) for name, model in _models(outcome, matrix, centre, settings)
    ]
    rows += _by_centre(outcome, matrix, centre, settings)
    note = (
        f"Adjusted for the covariates; patients of {len(set(centre))} centres. Robust: Lin and Wei, centres "
        "as clusters; with few centres its error is too small. Frailty: a normal random effect of each "
        f"centre on the log hazard. A centre needs {FEWEST_CENTRE_EVENTS} events; where they are too few for "
        "the covariates, its hazard ratio is unadjusted. Pooled: random effects (restricted maximum "
        "likelihood, Knapp and Hartung)."
    )
    return Part((Table(f"centre_effect_{complete.name}", what, COUNT_MODELS, plain_rows(rows), note),))


def _models(
    outcome: Outcome, matrix: pd.DataFrame, centre: np.ndarray, settings: AnalysisSettings
) -> list[tuple[str, Any]]:
    confidence = settings.confidence
    time, event = outcome.time, outcome.event
    fixed = pd.get_dummies(pd.Series(centre), prefix="center", drop_first=True, dtype=float)
    return [
        ("Centres not respected", lambda: cox(time, event, matrix, confidence=confidence).rows[0]),
        (
            "Centre as covariate",
            lambda: cox(time, event, pd.concat([matrix, fixed], axis=1), confidence=confidence).rows[0],
        ),
        (
            "Baseline of each centre (stratified)",
            lambda: cox(time, event, matrix, strata=centre, confidence=confidence).rows[0],
        ),
        (
            "Cluster-robust errors",
            lambda: cluster_robust_cox(time, event, matrix, centre, confidence=confidence)[0],
        ),
        ("Frailty of centres", lambda: frailty_cox(time, event, matrix, centre, confidence=confidence)),
    ]


def _tried(name: str, outcome: Outcome, model: Any, settings: AnalysisSettings) -> dict[str, Any]:
    row: dict[str, Any] = {"model": name, "n": outcome.n, "events": outcome.n_events}
    try:
        found = model()
    except (NotEstimableError, np.linalg.LinAlgError) as error:
        reason = str(error) if isinstance(error, NotEstimableError) else "there are too few patients for it"
        return row | {"remark": reason}
    if isinstance(found, Coefficient):
        return row | _effect_within_centres(found)
    return (
        row
        | _effect_within_centres(found.rows[0])
        | {"remark": f"variance of the centres {found.variance:.3f}"}
    )


def _effect_within_centres(row: Coefficient) -> dict[str, Any]:
    return {"hr": row.hr, "lower": row.lower, "upper": row.upper, "p": row.p}


def _by_centre(
    outcome: Outcome, matrix: pd.DataFrame, centre: np.ndarray, settings: AnalysisSettings
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in sorted({str(c) for c in centre}):
        inside = centre == name
        own = outcome.take(inside)
        row: dict[str, Any] = {"model": f"Centre {name}", "n": own.n, "events": own.n_events}
        columns = matrix.loc[inside].reset_index(drop=True)
        columns = columns[[c for c in columns if columns[c].nunique() > 1]]
        if own.n_events < FEWEST_CENTRE_EVENTS or MARKER not in columns:
            rows.append(row | {"remark": f"fewer than {FEWEST_CENTRE_EVENTS} events, or one count"})
            continue
        if own.n_events < FEWEST_CENTRE_EVENTS * columns.shape[1]:
            columns, row["remark"] = columns[[MARKER]], "unadjusted"
        rows.append(row | _tried(str(row["model"]), own, _alone(own, columns, settings), settings) | row)
    found = pooled([r for r in rows if "hr" in r], ("hr", "lower", "upper"), "log", settings)
    if found is not None:
        told = f"I² {found.i2:.0%}, Cochran's Q p = {found.q_p:.2g}"
        if np.isfinite(found.expected_low):
            told += (
                f"; a further centre is expected from {found.expected_low:.2f} to {found.expected_high:.2f}"
            )
        pool = {"model": f"Pooled over {found.k} centres", "hr": found.value, "lower": found.lower}
        rows.append(pool | {"upper": found.upper, "remark": told, "i2": found.i2, "q_p": found.q_p})
    rows.append(_interaction_with_centres(outcome, matrix, centre))
    return rows


def _alone(own: Outcome, columns: pd.DataFrame, settings: AnalysisSettings) -> Any:
    return lambda: cox(own.time, own.event, columns, confidence=settings.confidence).rows[0]


def _interaction_with_centres(outcome: Outcome, matrix: pd.DataFrame, centre: np.ndarray) -> dict[str, Any]:
    """Likelihood-ratio test of count by centre, each centre with its own baseline."""
    row: dict[str, Any] = {"model": "Test: does the effect differ by centre?"}
    names = sorted({str(c) for c in centre})[1:]
    products = {f"{MARKER} x {c}": matrix[MARKER].to_numpy() * (centre == c) for c in names}
    try:
        smaller = cox(outcome.time, outcome.event, matrix, strata=centre)
        joined = pd.concat([matrix, pd.DataFrame(products)], axis=1)
        test = nested_lrt(smaller, cox(outcome.time, outcome.event, joined, strata=centre))
    except NotEstimableError as error:
        return row | {"remark": str(error)}
    told = f"likelihood ratio {test.statistic:.2f}, df {test.df}, baseline of each centre"
    return row | {"n": outcome.n, "events": outcome.n_events, "p": test.p, "remark": told}
