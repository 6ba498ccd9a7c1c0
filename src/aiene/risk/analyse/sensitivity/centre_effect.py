"""The effect of the count where patients come from several centres, and whether it differs between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from aiene.report.document import Column, Table
from aiene.report.formatting import plain_rows
from aiene.risk.analyse.centres import pooled
from aiene.risk.analyse.cohort import Outcome, words
from aiene.risk.analyse.records import Part, Skipped
from aiene.risk.analyse.regression import MARKER, Sample, cox
from aiene.risk.analyse.settings import AnalysisSettings
from aiene.stats.centre_models import cluster_robust_cox, frailty_cox
from aiene.stats.cox_model import nested_lrt
from aiene.stats.records import Coefficient, NotEstimableError

FEWEST_EVENTS = 10
"""Events that a centre needs for a hazard ratio of its own, and for each of its parameters."""
_COLUMNS = (
    Column("model", "Model"),
    Column("n", "n", "count"),
    Column("events", "Events", "count"),
    Column("hr", "HR per AI-ENE node (interval)", "number", "lower", "upper"),
    Column("p", "p", "p"),
    Column("remark", "Remark"),
)


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
        f"Adjusted for the covariates; patients of {len(set(centre))} centres. Robust: Lin and Wei, "
        "centres as "
        "clusters; with few centres its error is too small. Frailty: a normal random effect of each "
        "centre on the "
        f"log hazard. A centre needs {FEWEST_EVENTS} events; where they are too few for the covariates, its "
        "hazard ratio is unadjusted. Pooled: random effects (restricted maximum likelihood, Knapp "
        "and Hartung)."
    )
    return Part((Table(f"centre_effect_{complete.name}", what, _COLUMNS, plain_rows(rows), note),))


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
        return row | _effect(found)
    return row | _effect(found.rows[0]) | {"remark": f"variance of the centres {found.variance:.3f}"}


def _effect(row: Coefficient) -> dict[str, Any]:
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
        if own.n_events < FEWEST_EVENTS or MARKER not in columns:
            rows.append(row | {"remark": f"fewer than {FEWEST_EVENTS} events, or one count"})
            continue
        if own.n_events < FEWEST_EVENTS * columns.shape[1]:
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
    rows.append(_interaction(outcome, matrix, centre))
    return rows


def _alone(own: Outcome, columns: pd.DataFrame, settings: AnalysisSettings) -> Any:
    return lambda: cox(own.time, own.event, columns, confidence=settings.confidence).rows[0]


def _interaction(outcome: Outcome, matrix: pd.DataFrame, centre: np.ndarray) -> dict[str, Any]:
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
