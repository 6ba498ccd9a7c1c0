"""More than one centre: which can judge a model, their values pooled, and the effect of the count in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from aiene.report.document import Table
from aiene.report.formatting import plain_rows
from aiene.risk.analyse.cohort import Outcome, words
from aiene.risk.analyse.design import varying
from aiene.risk.analyse.records import AnalysisSettings, Part, Skipped, effect
from aiene.risk.analyse.regression import (
    COUNT_MODELS,
    FEWEST_FOR_EFFECT,
    MARKER,
    Sample,
    count_effect,
    cox,
    too_few,
    with_count,
)
from aiene.stats.centre_models import Frailty, RandomEffects, cluster_robust_cox, frailty_cox, random_effects
from aiene.stats.cox_model import nested_lrt
from aiene.stats.elementary import normal_quantile
from aiene.stats.records import Coefficient, NotEstimableError

FEWEST_CENTRES = 3
FEWEST_EVENTS = 20
"""Events that a centre needs to judge a model."""

Scale = Literal["plain", "log", "logit"]
_SCALES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[float], float]]] = {
    "plain": (lambda x: x, float),
    "log": (np.log, lambda x: float(np.exp(x))),
    "logit": (lambda x: np.log(x / (1 - x)), lambda x: float(1 / (1 + np.exp(-x)))),
}


def validation_centres(center: np.ndarray, event: np.ndarray) -> tuple[str, ...]:
    """The centres with events enough, in the order of their names; none where they are fewer than three.

    Parameters
    ----------
    center : (n,) names, empty where not known; such patients take part in every fit and judge none.
    event : (n,) 0 or 1.
    """
    found = [str(c) for c in np.unique(center.astype(str)) if c and event[center == c].sum() >= FEWEST_EVENTS]
    return tuple(found) if len(found) >= FEWEST_CENTRES else ()


def pooled(
    rows: Sequence[Mapping[str, Any]], keys: tuple[str, str, str], scale: Scale, settings: AnalysisSettings
) -> RandomEffects | None:
    """Random effects over the rows of centres, back on the scale that they are shown in.

    Parameters
    ----------
    keys : of the value and of the ends of its interval, whose width on `scale` gives the standard error.

    Returns
    -------
    None where fewer than two rows have a value and an interval with a width.
    """
    to, back = _SCALES[scale]
    parts = np.array([[row.get(k) for k in keys] for row in rows], dtype=float).reshape(-1, 3)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = to(parts)
    error = (moved[:, 2] - moved[:, 1]) / (2 * normal_quantile(0.5 + settings.confidence / 2))
    good = np.isfinite(moved).all(axis=1) & (error > 0)
    if good.sum() < 2:
        return None
    found = random_effects(moved[good, 0], error[good], confidence=settings.confidence)
    shown = ("value", "lower", "upper", "expected_low", "expected_high")
    return found._replace(**{name: back(getattr(found, name)) for name in shown})


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
    rows = [_tried(name, outcome, model) for name, model in _models(outcome, matrix, centre, settings)]
    rows += _by_centre(outcome, matrix, centre, settings)
    note = (
        f"Adjusted for the covariates; patients of {len(set(centre))} centres. Robust: Lin and Wei, centres "
        "as clusters; with few centres its error is too small. Frailty: a normal random effect of each "
        f"centre on the log hazard. A centre needs {FEWEST_FOR_EFFECT} events; where they are too few for "
        "the covariates, its hazard ratio is unadjusted. Pooled: random effects (restricted maximum "
        "likelihood, Knapp and Hartung)."
    )
    return Part((Table(f"centre_effect_{complete.name}", what, COUNT_MODELS, plain_rows(rows), note),))


def _models(
    outcome: Outcome, matrix: pd.DataFrame, centre: np.ndarray, settings: AnalysisSettings
) -> list[tuple[str, Callable[[], Coefficient | Frailty]]]:
    of, level = (outcome.time, outcome.event), settings.confidence
    fixed = pd.get_dummies(pd.Series(centre), prefix="center", drop_first=True, dtype=float)
    joined = pd.concat([matrix, fixed], axis=1)
    stratified = "Baseline of each centre (stratified)"
    return [
        ("Centres not respected", lambda: cox(*of, matrix, confidence=level).rows[0]),
        ("Centre as covariate", lambda: cox(*of, joined, confidence=level).rows[0]),
        (stratified, lambda: cox(*of, matrix, strata=centre, confidence=level).rows[0]),
        ("Cluster-robust errors", lambda: cluster_robust_cox(*of, matrix, centre, confidence=level)[0]),
        ("Frailty of centres", lambda: frailty_cox(*of, matrix, centre, confidence=level)),
    ]


def _tried(name: str, outcome: Outcome, model: Callable[[], Coefficient | Frailty]) -> dict[str, Any]:
    row: dict[str, Any] = {"model": name, "n": outcome.n, "events": outcome.n_events}
    try:
        found = model()
    except (NotEstimableError, np.linalg.LinAlgError) as error:
        return row | {"remark": too_few(error)}
    if isinstance(found, Coefficient):
        return row | effect(found)
    return row | effect(found.rows[0]) | {"remark": f"variance of the centres {found.variance:.3f}"}


def _by_centre(
    outcome: Outcome, matrix: pd.DataFrame, centre: np.ndarray, settings: AnalysisSettings
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in sorted({str(c) for c in centre}):
        inside = centre == name
        own = matrix.loc[inside].reset_index(drop=True)
        rows.append({"model": f"Centre {name}", **count_effect(outcome.take(inside), own, settings)})
    found = pooled([r for r in rows if "hr" in r], ("hr", "lower", "upper"), "log", settings)
    if found is not None:
        told = f"I² {found.i2:.0%}, Cochran's Q p = {found.q_p:.2g}"
        if np.isfinite(found.expected_low):
            range_of = f"{found.expected_low:.2f} to {found.expected_high:.2f}"
            told += f"; a further centre is expected from {range_of}"
        pool = {"model": f"Pooled over {found.k} centres", "hr": found.value, "lower": found.lower}
        rows.append(pool | {"upper": found.upper, "remark": told, "i2": found.i2, "q_p": found.q_p})
    rows.append(_interaction(outcome, matrix, centre))
    return rows


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
