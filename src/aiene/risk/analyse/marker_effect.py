"""Effect of the AI-ENE node count: its functional forms, interaction with HPV, and imputed covariates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from aiene.report.document import Figure
from aiene.report.formatting import interval_text, p_phrase, plain
from aiene.risk.analyse.charts.forest import draw_dose
from aiene.risk.analyse.cohort import Outcome, small, words
from aiene.risk.analyse.design import estimable
from aiene.risk.analyse.records import AnalysisSettings, Part, Skipped, fields_of, figure_of, table_of
from aiene.risk.analyse.regression import Sample, cox
from aiene.stats.count_covariate import count_columns
from aiene.stats.cox_model import nested_lrt
from aiene.stats.records import Coefficient, NotEstimableError

FORMS = ("continuous", "capped", "log1p", "categorical", "spline")
_FORM_WORDS = {
    "continuous": "per node",
    "capped": "per node, capped at {cap}",
    "log1p": "log(1 + nodes)",
    "categorical": "in classes",
    "spline": "restricted cubic spline, 3 knots",
}


# Hazard ratio by number of AI-ENE nodes


def dose_figure(sample: Sample, settings: AnalysisSettings) -> Figure | None:
    """Hazard ratios by number of nodes against none, with the line of the capped count; of all patients."""
    complete, design, count = sample.complete()
    cap = settings.marker_cap
    capped = np.minimum(count, cap)
    values = [v for v in range(cap + 1) if (capped == v).any()]
    if sample.name != "all" or len(values) < 2 or values[0] != 0:
        return None
    of = complete.time, complete.event
    indicators = pd.DataFrame({f"nodes {v}": (capped == v).astype(float) for v in values[1:]})
    try:
        classes, line = (
            cox(*of, pd.concat([own, design.matrix], axis=1), confidence=settings.confidence).rows
            for own in (indicators, pd.DataFrame({"nodes": capped}))
        )
    except NotEstimableError:
        return None
    return _figure(complete, capped, values, {r.name: r for r in classes}, line[0], settings)


def _figure(
    complete: Outcome,
    capped: np.ndarray,
    values: list[int],
    by_count: dict[str, Coefficient],
    slope: Coefficient,
    settings: AnalysisSettings,
) -> Figure:
    cap = settings.marker_cap
    xs = np.linspace(0, values[-1], 41)
    found = [by_count[f"nodes {v}"] for v in values[1:] if f"nodes {v}" in by_count]
    slopes = {"value": slope.coef, "low": np.log(slope.lower), "high": np.log(slope.upper)}
    ends = {"value": "hr", "low": "lower", "high": "upper"}
    points = {key: plain([1.0, *(getattr(p, name) for p in found)]) for key, name in ends.items()}
    points |= {"x": values, "n": [int((capped == v).sum()) for v in values]}
    content: dict[str, Any] = {
        "points": points,
        "line": {"x": plain(xs), **{key: plain(np.exp(b * xs)) for key, b in slopes.items()}},
        "labels": [str(v) if v < cap else f"≥ {cap}" for v in values],
        "x_label": "AI-ENE nodes",
        "y_label": "Adjusted hazard ratio (log axis)",
        "line_label": f"per node (capped at {cap}): HR {interval_text(slope.hr, slope.lower, slope.upper)}",
        "point_label": "each count against none",
    }
    data = {"n_ai_ene": content["labels"], "patients": points["n"], "hr": points["value"]}
    data |= {"lower": points["low"], "upper": points["high"]}
    p = p_phrase(plain(slope.p))
    return figure_of("dose", draw_dose, content, data, outcome=complete, settings=settings, p=p)


def forms_part(sample: Sample, settings: AnalysisSettings, cutoffs: Sequence[int]) -> Part:
    """Each form of the count alone and adjusted, with the likelihood-ratio test of what it adds."""
    complete, design, count = sample.complete()
    title = f"{sample.outcome.label}, {small(sample.label)}"
    if not complete.n_events or len(set(count)) < 2:
        reason = "no event" if not complete.n_events else "the count is the same in all"
        return Part((), (Skipped(f"Forms of the count, {title}", f"{reason} among the complete cases."),))
    rows: list[dict[str, Any]] = []
    covariates = design.matrix
    for form in FORMS:
        words_of = _FORM_WORDS[form].format(cap=settings.marker_cap)
        head = {"form": words_of, **complete.counts}
        try:
            columns = _columns(count, form, settings, cutoffs)
            alone = cox(complete.time, complete.event, columns, confidence=settings.confidence)
            joined = pd.concat([columns, covariates], axis=1)
            both = cox(complete.time, complete.event, joined, confidence=settings.confidence)
            head |= _added(complete, covariates, both)
        except NotEstimableError as error:
            rows.append(head | {"reason": str(error)})
            continue
        adjusted = {r.name: r for r in both.rows}
        for r in alone.rows:
            row: dict[str, Any] = {"term": r.name.replace("n_ai_ene", "nodes").replace("_", " ")}
            for prefix, one in (("uni", r), ("adj", adjusted[r.name])):
                ends = (None, None, None) if form == "spline" else (one.hr, one.lower, one.upper)
                keys = (f"{prefix}_hr", f"{prefix}_lower", f"{prefix}_upper")
                row |= dict(zip(keys, ends, strict=True))
            rows.append(head | row | {"adj_p": adjusted[r.name].p, "coef": adjusted[r.name].coef})
    of = f"{complete.name}_{sample.name}"
    table = table_of("forms", rows, of=of, title=title, outcome=complete)
    figure = dose_figure(sample, settings)
    return Part((figure, table) if figure else (table,))


def _columns(
    count: np.ndarray, form: str, settings: AnalysisSettings, cutoffs: Sequence[int]
) -> pd.DataFrame:
    columns = count_columns(count, form=form, cap=settings.marker_cap, cutoffs=tuple(cutoffs))  # type: ignore[arg-type]
    return columns[[c for c in columns if columns[c].nunique() > 1]]


def _added(complete: Any, covariates: pd.DataFrame, both: Any) -> dict[str, Any]:
    if not covariates.shape[1]:
        return {"lrt": both.lrt, "lrt_df": both.lrt_df, "lrt_p": both.lrt_p, "aic": both.aic}
    test = nested_lrt(cox(complete.time, complete.event, covariates), both)
    return {"lrt": test.statistic, "lrt_df": test.df, "lrt_p": test.p, "aic": both.aic}


def interaction_row(
    sample: Sample, settings: AnalysisSettings, cutoffs: Sequence[int]
) -> list[dict[str, Any]]:
    """Does the effect of the count differ between HPV strata: likelihood-ratio tests of the product terms."""
    complete, design, count = sample.complete()
    hpv = words(sample.table, "hpv")[sample.design.complete]
    head = {"endpoint": complete.label}
    if len(set(count)) < 2:
        return [head | {"reason": "the count is the same in all patients"}]
    known = np.isin(hpv, ("positive", "negative"))
    if len(set(hpv[known])) < 2:
        return [head | {"reason": "needs HPV-positive and HPV-negative patients with complete covariates"}]
    outcome, count = complete.take(known), count[known]
    if len(set(count)) < 2:
        return [head | {"reason": "the count is the same in all of these patients"}]
    matrix = estimable(design, known).matrix
    negative = (hpv[known] == "negative").astype(float)
    if not any(str(c).startswith("hpv_") for c in matrix):
        matrix = matrix.assign(hpv_negative=negative)
    rows = []
    for form in ("capped", "categorical"):
        row: dict[str, Any] = head | {"form": _FORM_WORDS[form].format(cap=settings.marker_cap)}
        try:
            columns = _columns(count, form, settings, cutoffs)
            products = columns.mul(negative, axis=0).add_prefix("HPV-negative x ")
            smaller = cox(outcome.time, outcome.event, pd.concat([matrix, columns], axis=1))
            joined = pd.concat([matrix, columns, products], axis=1)
            larger = cox(outcome.time, outcome.event, joined, confidence=settings.confidence)
            test = nested_lrt(smaller, larger)
        except NotEstimableError as error:
            rows.append(row | {"reason": str(error)})
            continue
        row |= {**outcome.counts, **fields_of(test, "statistic", "df", "p")}
        if form == "capped":
            product = larger.rows[-1]
            row |= {"ratio": product.hr, "ratio_lower": product.lower, "ratio_upper": product.upper}
        rows.append(row)
    return rows
