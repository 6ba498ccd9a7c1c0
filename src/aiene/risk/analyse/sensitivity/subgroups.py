"""The effect of the count in subgroups and centres, and whether it differs between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from aiene.report.document import Figure
from aiene.report.formatting import NOTHING, interval_text, p_text, plain_rows
from aiene.risk.analyse.charts.forest import draw_forest
from aiene.risk.analyse.cohort import Outcome, numeric, words
from aiene.risk.analyse.design import varying
from aiene.risk.analyse.records import AnalysisSettings, Part, Skipped, effect, figure_of, table_of
from aiene.risk.analyse.regression import (
    FEWEST_FOR_EFFECT,
    MARKER,
    Sample,
    count_effect,
    cox,
    tried,
    with_count,
)
from aiene.stats.centre_models import cluster_robust_cox, frailty_cox, pooled
from aiene.stats.competing_risks import fine_gray
from aiene.stats.cox_model import nested_lrt
from aiene.stats.records import NotEstimableError


def subgroups_part(sample: Sample, settings: AnalysisSettings) -> Part:
    """Hazard ratios of the count in subgroups of the complete cases; one test of interaction by factor."""
    complete, design, count = sample.complete()
    what = f"{complete.label}: subgroups"
    if complete.n_events < 2 * FEWEST_FOR_EFFECT or len(set(count)) < 2:
        return Part((), (Skipped(what, "too few events for subgroups, or one count."),))
    matrix = with_count(design.matrix, count)
    table = sample.table.loc[sample.design.complete].reset_index(drop=True)
    rows = [{"factor": "All", "level": "", **count_effect(complete, matrix, settings)}]
    for factor, (labels, levels, prefix) in _factors(table).items():
        rows += _of_factor(factor, labels, levels, prefix, complete, matrix, settings)
    if complete.competes:
        rows += _subdistribution(table, complete, matrix, settings)
    said = {"of": complete.name, "what": what, "fewest": FEWEST_FOR_EFFECT, "settings": settings}
    return Part((_figure(rows, said), table_of("subgroups", rows, **said)))


_Factor = tuple[np.ndarray, tuple[str, ...], str]


def _factors(table: pd.DataFrame) -> dict[str, _Factor]:
    """Label of each patient (empty: in none), the levels in their order, and the covariate that it is."""

    def split(early: np.ndarray, late: np.ndarray, named: tuple[str, str], prefix: str) -> _Factor:
        return np.select([early, late], named, ""), named, prefix

    found: dict[str, _Factor] = {"HPV": (words(table, "hpv"), ("positive", "negative"), "hpv_")}
    for name, first in (("t", "T3"), ("n", "N2")):
        if f"{name}_covariate" in table:
            category = words(table, f"{name}_covariate")
            late = np.array([word[1:2].isdigit() and word[:2] >= first for word in category], dtype=bool)
            named = (f"below {first}", f"{first} or more")
            found[name.upper()] = split((category != "") & ~late, late, named, f"{name}_")
    smoking, age, centre = words(table, "pack_years_class"), numeric(table, "age"), words(table, "center")
    named = ("10 pack-years or fewer", "over 10 pack-years")
    found["Smoking"] = split(smoking == "le10", smoking == "gt10", named, "pack_years")
    found["Age"] = split(age < 65, age >= 65, ("under 65", "65 or older"), "age")
    found["Sex"] = (words(table, "sex"), ("male", "female"), "sex_")
    found["Centre"] = (centre, tuple(sorted({str(c) for c in centre} - {""})), "center_")
    return {name: f for name, f in found.items() if len(set(f[0]) - {""}) > 1}


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
            rows.append(
                {"factor": factor, "level": level, **count_effect(outcome.take(inside), own, settings)}
            )
    if rows:
        rows[0]["interaction_p"] = _interaction(labels, levels, outcome, others)
    return rows


def _interaction(
    labels: np.ndarray, levels: Sequence[str], outcome: Outcome, others: pd.DataFrame
) -> float | None:
    known = labels != ""
    present = [level for level in levels if (labels == level).any()]
    main = pd.DataFrame({f"is {level}": (labels[known] == level).astype(float) for level in present[1:]})
    base = varying(pd.concat([others.loc[known].reset_index(drop=True), main], axis=1))
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
    design = varying(columns.assign(hpv_negative=negative, product=negative * columns[MARKER]))
    row: dict[str, Any] = {"factor": "Fine-Gray", **own.counts}
    row["level"] = "sHR if HPV-negative / sHR if HPV-positive"
    try:
        found = fine_gray(own.time, own.state, design, confidence=settings.confidence).rows[-1]
    except NotEstimableError as error:
        return [row | {"remark": str(error)}]
    row |= {"hr": found.hr, "lower": found.lower, "upper": found.upper, "interaction_p": found.p}
    return [row | {"remark": "ratio of subdistribution hazard ratios, Wald test"}]


def _figure(rows: Sequence[Mapping[str, Any]], said: dict[str, Any]) -> Figure:
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
        head, counts = not row["level"], f"{row['n']} / {row['events']}"
        line = {"label": label, "head": head, "value": value, "low": row.get("lower")}
        line |= {"high": row.get("upper"), "text": text, "look": 2 if head else 0, "counts": counts}
        shown.append(line)
    shown = list(plain_rows(shown))
    content = {
        "rows": shown,
        "x_label": "Hazard ratio per AI-ENE node (logarithmic axis)",
        "heading": "HR (interval), interaction",
    }
    keys = {"subgroup": "label", "hr": "value", "lower": "low", "upper": "high"}
    data = {name: [row[key] for row in shown] for name, key in keys.items()}
    return figure_of("subgroups", draw_forest, content, data, wide=True, **said)


# The effect of the count where there are several centres


def centre_part(sample: Sample, settings: AnalysisSettings) -> Part:
    """The adjusted hazard ratio by models that respect centres, in each centre, pooled; heterogeneity."""
    complete, design, count = sample.complete()
    centre = words(sample.table, "center")[sample.design.complete]
    known = centre != ""
    what = f"{complete.label}: more than one centre"
    if len(set(centre[known])) < 2 or not complete.event[known].any():
        return Part((), (Skipped(what, "the patients with complete covariates are of one centre."),))
    outcome, centre = complete.take(known), centre[known]
    others = varying(design.matrix.loc[known].reset_index(drop=True))
    others = others[[c for c in others if not str(c).startswith("center_")]]
    matrix = with_count(others, count[known])
    rows = [tried(name, outcome, cells) for name, cells in _centre_models(outcome, matrix, centre, settings)]
    rows += _by_centre(outcome, matrix, centre, settings)
    said = {"of": complete.name, "what": what, "centres": len(set(centre)), "fewest": FEWEST_FOR_EFFECT}
    return Part((table_of("centre_effect", rows, **said),))


def _centre_models(
    outcome: Outcome, matrix: pd.DataFrame, centre: np.ndarray, settings: AnalysisSettings
) -> list[tuple[str, Callable[[], dict[str, Any]]]]:
    of, level = (outcome.time, outcome.event), settings.confidence
    fixed = pd.get_dummies(pd.Series(centre), prefix="center", drop_first=True, dtype=float)
    joined = pd.concat([matrix, fixed], axis=1)
    stratified = "Baseline of each centre (stratified)"

    def frailty() -> dict[str, Any]:
        found = frailty_cox(*of, matrix, centre, confidence=level)
        return effect(found.rows[0]) | {"remark": f"variance of the centres {found.variance:.3f}"}

    return [
        ("Centres not respected", lambda: effect(cox(*of, matrix, confidence=level).rows[0])),
        ("Centre as covariate", lambda: effect(cox(*of, joined, confidence=level).rows[0])),
        (stratified, lambda: effect(cox(*of, matrix, strata=centre, confidence=level).rows[0])),
        (
            "Cluster-robust errors",
            lambda: effect(cluster_robust_cox(*of, matrix, centre, confidence=level)[0]),
        ),
        ("Frailty of centres", frailty),
    ]


def _by_centre(
    outcome: Outcome, matrix: pd.DataFrame, centre: np.ndarray, settings: AnalysisSettings
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in sorted({str(c) for c in centre}):
        inside = centre == name
        own = matrix.loc[inside].reset_index(drop=True)
        rows.append({"model": f"Centre {name}", **count_effect(outcome.take(inside), own, settings)})
    found = pooled([r for r in rows if "hr" in r], ("hr", "lower", "upper"), "log", settings.confidence)
    if found is not None:
        told = f"I² {found.i2:.0%}, Cochran's Q p = {found.q_p:.2g}"
        if np.isfinite(found.expected_low):
            range_of = f"{found.expected_low:.2f} to {found.expected_high:.2f}"
            told += f"; a further centre is expected from {range_of}"
        pool = {"model": f"Pooled over {found.k} centres", "hr": found.value, "lower": found.lower}
        rows.append(pool | {"upper": found.upper, "remark": told, "i2": found.i2, "q_p": found.q_p})
    rows.append(_interaction_with_centres(outcome, matrix, centre))
    return rows


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
    return row | {**outcome.counts, "p": test.p, "remark": told}
