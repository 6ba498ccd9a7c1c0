"""The count in its forms, its interaction with HPV, and multiple imputation of what it is adjusted for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from aiene.risk.analyse.design import estimable
from aiene.risk.analyse.dose import dose_figure
from aiene.risk.analyse.outcome import words
from aiene.risk.analyse.record import Column, Part, Skipped, Table
from aiene.risk.analyse.regression import Sample
from aiene.risk.analyse.safe import cox
from aiene.risk.analyse.settings import AnalysisSettings
from aiene.risk.analyse.show import plain_rows
from aiene.risk.stats import NotEstimableError, count_columns, nested_lrt

FORMS = ("continuous", "capped", "log1p", "categorical", "spline")
_FORM_WORDS = {
    "continuous": "per node",
    "capped": "per node, capped at {cap}",
    "log1p": "log(1 + nodes)",
    "categorical": "in classes",
    "spline": "restricted cubic spline, 3 knots",
}


def forms_part(sample: Sample, settings: AnalysisSettings, cutoffs: Sequence[int]) -> Part:
    """Each form of the count alone and adjusted, with the likelihood-ratio test of what it adds."""
    complete, design, count = sample.complete()
    title = (
        f"{sample.outcome.label}, "
        f"{sample.label[0].lower() + sample.label[1:] if sample.name == 'all' else sample.label}"
    )
    if not complete.n_events or len(set(count)) < 2:
        reason = "no event" if not complete.n_events else "the count is the same in all"
        return Part((), (Skipped(f"Forms of the count, {title}", f"{reason} among the complete cases."),))
    rows: list[dict[str, Any]] = []
    covariates = design.matrix
    for form in FORMS:
        head = {
            "form": _FORM_WORDS[form].format(cap=settings.marker_cap),
            "n": complete.n,
            "events": complete.n_events,
        }
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
            a = adjusted[r.name]
            rows.append(
                head
                | {
                    "term": _form_term(r.name),
                    "uni_hr": None if form == "spline" else r.hr,
                    "uni_lower": None if form == "spline" else r.lower,
                    "uni_upper": None if form == "spline" else r.upper,
                    "adj_hr": None if form == "spline" else a.hr,
                    "adj_lower": None if form == "spline" else a.lower,
                    "adj_upper": None if form == "spline" else a.upper,
                    "adj_p": a.p,
                    "coef": a.coef,
                }
            )
    note = (
        f"Complete cases, n = {complete.n}, events = {complete.n_events}. LRT: does this form add to the "
        "covariates. A lower AIC is better. Coefficients of a spline have no meaning one by one."
    )
    table = Table(
        f"forms_{complete.name}_{sample.name}", f"{title}: forms of the count", _FORMS, plain_rows(rows), note
    )
    figure = dose_figure(sample, settings)
    return Part((figure, table) if figure else (table,))


_FORMS = (
    Column("form", "Form"),
    Column("term", "Term"),
    Column("uni_hr", "HR alone (interval)", "number", "uni_lower", "uni_upper"),
    Column("adj_hr", "HR adjusted (interval)", "number", "adj_lower", "adj_upper"),
    Column("adj_p", "p", "p"),
    Column("lrt", "LRT", "number"),
    Column("lrt_df", "df", "count"),
    Column("lrt_p", "p of LRT", "p"),
    Column("aic", "AIC", "number"),
    Column("reason", "Remark"),
)


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


def _form_term(name: str) -> str:
    return name.replace("n_ai_ene", "nodes").replace("_", " ")


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
            larger = cox(outcome.time, outcome.event, pd.concat([matrix, columns, products], axis=1))
            test = nested_lrt(smaller, larger)
        except NotEstimableError as error:
            rows.append(row | {"reason": str(error)})
            continue
        row |= {
            "n": outcome.n,
            "events": outcome.n_events,
            "statistic": test.statistic,
            "df": test.df,
            "p": test.p,
        }
        if form == "capped":
            product = larger.rows[-1]
            row |= {"ratio": product.hr, "ratio_lower": product.lower, "ratio_upper": product.upper}
        rows.append(row)
    return rows


def interaction_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The tests of all endpoints."""
    columns = (
        Column("endpoint", "Endpoint"),
        Column("form", "Count"),
        Column("n", "n", "count"),
        Column("events", "Events", "count"),
        Column(
            "ratio",
            "HR in HPV-negative / HR in HPV-positive (interval)",
            "number",
            "ratio_lower",
            "ratio_upper",
        ),
        Column("statistic", "LRT", "number"),
        Column("df", "df", "count"),
        Column("p", "p", "p"),
        Column("reason", "Remark"),
    )
    note = (
        "Adjusted for the covariates. A difference between strata is read off this test, not off two "
        "p-values."
    )
    return Table("interaction", "AI-ENE count by HPV: test of interaction", columns, plain_rows(rows), note)
