"""What the ENE threshold changes: counts, groups and hazard ratios at other thresholds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aiene.report.document import Figure, Item, Section, Table, Text
from aiene.risk.analyse.charts.bars import draw_heat
from aiene.risk.analyse.cohort import LABELS, Cohort, numeric, words
from aiene.risk.analyse.design import estimable
from aiene.risk.analyse.grouping import Groupings
from aiene.risk.analyse.records import (
    AnalysisSettings,
    Endpoint,
    Part,
    Skipped,
    effect,
    fields_of,
    figure_of,
    table_of,
)
from aiene.risk.analyse.regression import MARKER, cox, sample_of_all
from aiene.stats.concordance import harrell_c
from aiene.stats.count_covariate import (
    count_chances,
    count_distribution,
    drawn_counts,
    probability_at_least,
    simex,
)
from aiene.stats.records import NotEstimableError

if TYPE_CHECKING:
    from aiene.risk.schemes.scheme import Scheme


TITLE = "What the ENE threshold changes"
NEAR = 0.1
"""A patient is near a cut where the probability of the other side is above this."""


def threshold_chapter(
    cohort: Cohort,
    groupings: Groupings,
    scheme: Scheme,
    nodes: pd.DataFrame,
    endpoints: Sequence[Endpoint],
    settings: AnalysisSettings,
) -> tuple[Section, Part]:
    """The count made anew from node probabilities at each threshold.

    Parameters
    ----------
    nodes : one row per node, `patient_id` (else `case_id`) and `ene`, a probability; a node
        without one is not counted, nor is one whose `counts`, where there is such a column, is 0.
    """
    key = "patient_id" if "patient_id" in nodes else "case_id"
    if key not in nodes or "ene" not in nodes:
        return _failed("the node table has no patient_id (or case_id) and ene")
    ids, owner, ene = words(cohort.table, "patient_id"), words(nodes, key), numeric(nodes, "ene")
    if "counts" in nodes:
        ene = np.where(numeric(nodes, "counts") == 0, np.nan, ene)
    known = np.isin(ids, owner)
    # A patient of the run without a node has no row; a count of 0 nodes found says the same.
    known |= numeric(cohort.table, "n_ai_nodes") == 0 if "n_ai_nodes" in cohort.table else False
    if not np.isin(owner, ids).any():
        return _failed("no patient of the node table is in the cohort")
    own = {float(t) for t in numeric(cohort.table, "ai_threshold")[known] if not np.isnan(t)}
    thresholds = sorted({*settings.ene_thresholds, *own})
    counts = {t: _counts(ids, owner, ene, t) for t in thresholds}
    rows = [_row(cohort, scheme, groupings, counts[t], known, t) for t in thresholds]
    models = [_model(cohort, counts[t], known, t, e, settings) for e in endpoints for t in thresholds]
    for row in (*rows, *models):
        row["own"] = "of this run" if row["threshold"] in own else ""
    by_owner = _nodes_of(owner, ene)
    chances = [np.array(by_owner.get(str(i), [])) for i in ids]
    corrected = [r for e in endpoints for r in _corrected(cohort, chances, known, e, settings)]
    items: tuple[Item, ...] = (
        Text(
            f"Node probabilities are there for {int(known.sum())} of {len(ids)} analysed patients; the "
            "rest keep out of this chapter."
        ),
        _heat(rows, scheme),
        table_of("thresholds", rows, part=[(n, n.replace(">=", "≥ ")) for n in scheme.classes]),
        table_of("threshold_models", models),
        table_of("threshold_corrected", corrected, seed=settings.seed),
        _near(ids[known], by_owner, scheme.cutoffs),
    )
    return Section("thresholds", TITLE, items), Part(items)


def _failed(reason: str) -> tuple[Section, Part]:
    items: tuple[Item, ...] = (Text(f"Not done: {reason}.", kind="warning"),)
    skipped = Skipped("Sensitivity to the ENE threshold", f"{reason}.", asked=True)
    return Section("thresholds", TITLE, items), Part(items, (skipped,))


def _counts(ids: np.ndarray, owner: np.ndarray, ene: np.ndarray, threshold: float) -> np.ndarray:
    """Nodes above the threshold, as in a run; int (patients,)."""
    above = pd.Series(np.nan_to_num(ene, nan=-1.0) > threshold).groupby(owner).sum()
    return above.reindex(ids).fillna(0).to_numpy(dtype=int)


def _row(
    cohort: Cohort,
    scheme: Scheme,
    groupings: Groupings,
    counts: np.ndarray,
    known: np.ndarray,
    threshold: float,
) -> dict[str, Any]:
    now, then = numeric(cohort.table, "n_ai_ene")[known].astype(int), counts[known]
    before, classes = (np.searchsorted(np.asarray(scheme.cutoffs), n, side="right") for n in (now, then))
    row: dict[str, Any] = {
        "threshold": threshold,
        "n": int(known.sum()),
        "changed_count": int((then != now).sum()),
        "changed_class": int((classes != before).sum()),
    }
    for number, name in enumerate(scheme.classes):
        row[f"class_{name}"] = int((classes == number).sum())
        row[f"share_{name}"] = float((classes == number).mean()) if classes.size else None
    if groupings.combined is not None:
        base, old = (words(cohort.table, column)[known] for column in ("base_group", "combined_group"))
        row["changed_group"] = sum(
            scheme.combined(group, int(count)) != was
            for group, count, was in zip(base, then, old, strict=True)
            if group in scheme.mapping
        )
    return row


def _heat(rows: Sequence[dict[str, Any]], scheme: Scheme) -> Figure:
    names = list(scheme.classes)
    content = {
        "rows": [f"{r['threshold']:g}" for r in rows],
        "columns": [n.replace(">=", "≥ ") for n in names],
        "values": [[r[f"share_{n}"] for n in names] for r in rows],
        "texts": [[f"{r[f'class_{n}']} ({100 * (r[f'share_{n}'] or 0):.0f} %)" for n in names] for r in rows],
        "row_title": "ENE threshold",
        "column_title": "AI-ENE nodes per patient",
    }
    data = {
        "threshold": [r["threshold"] for r in rows for _ in names],
        "class": names * len(rows),
        "patients": [r[f"class_{n}"] for r in rows for n in names],
        "share": [r[f"share_{n}"] for r in rows for n in names],
    }
    return figure_of("thresholds", draw_heat, content, data, n=rows[0]["n"])


def _model(
    cohort: Cohort,
    counts: np.ndarray,
    known: np.ndarray,
    threshold: float,
    endpoint: Endpoint,
    settings: AnalysisSettings,
) -> dict[str, Any]:
    """The count alone, and adjusted for the covariates on those who have them all."""
    sample = sample_of_all(cohort, endpoint, settings)
    outcome = sample.outcome
    keep = known[outcome.rows]
    own, count = outcome.take(keep), counts[outcome.rows][keep].astype(float)
    row: dict[str, Any] = {"endpoint": LABELS[endpoint], "threshold": threshold, **own.counts}
    try:
        alone = pd.DataFrame({MARKER: count})
        row |= effect(cox(own.time, own.event, alone, confidence=settings.confidence).rows[0])
        row["c"] = harrell_c(own.time, own.event, count).c
        complete, design, _ = sample.complete()
        rows = outcome.rows[sample.design.complete]
        inside = known[rows]
        matrix = estimable(design, inside).matrix.assign(**{MARKER: counts[rows][inside].astype(float)})
        joint = complete.take(inside)
        fitted = cox(joint.time, joint.event, matrix, confidence=settings.confidence).rows[-1]
        row |= {"adj_n": joint.n, **effect(fitted, "adj_")}
    except NotEstimableError as error:
        row["reason"] = str(error)
    return row


def _nodes_of(owner: np.ndarray, ene: np.ndarray) -> dict[str, list[float]]:
    """Probabilities of each patient's nodes."""
    found: dict[str, list[float]] = {}
    for who, p in zip(owner, ene, strict=True):
        if not np.isnan(p):
            found.setdefault(str(who), []).append(float(p))
    return found


def _corrected(
    cohort: Cohort,
    chances: Sequence[np.ndarray],
    known: np.ndarray,
    endpoint: Endpoint,
    settings: AnalysisSettings,
) -> list[dict[str, Any]]:
    """Adjusted hazard ratio per node of the count as it is, and corrected for its error in three ways."""
    sample = sample_of_all(cohort, endpoint, settings)
    complete, design, count = sample.complete()
    rows = sample.outcome.rows[sample.design.complete]
    inside = known[rows]
    own, seen = complete.take(inside), count[inside]
    nodes = [chances[row] for row in rows[inside]]
    others = estimable(design, inside).matrix.to_numpy(dtype=float)
    expected = np.array([p.sum() for p in nodes])
    variance = np.array([(p * (1 - p)).sum() for p in nodes]) + (seen - expected) ** 2
    of = own.time, own.event
    how: dict[str, Any] = {"seed": settings.seed, "confidence": settings.confidence}

    def plain(of_count: np.ndarray) -> Any:
        columns = {MARKER: of_count, **{f"x{k}": others[:, k] for k in range(others.shape[1])}}
        return cox(*of, pd.DataFrame(columns), confidence=settings.confidence).rows[0]

    steps: dict[str, Callable[[], Any]] = {
        "nodes over the run's threshold, as counted": lambda: plain(seen),
        "expected count (sum of the probabilities)": lambda: plain(expected),
        "draws from probabilities and outcome, Rubin's rules": lambda: drawn_counts(
            *of, count_chances(nodes), others, m=10, iterations=6, **how
        ),
        "SIMEX of the count as counted": lambda: simex(*of, seen, variance, others, n_sim=25, **how),
    }
    found = []
    for name, step in steps.items():
        row: dict[str, Any] = {"endpoint": LABELS[endpoint], "method": name, **own.counts}
        try:
            row |= fields_of(step(), "hr", "lower", "upper")
        except (NotEstimableError, np.linalg.LinAlgError) as error:
            row["reason"] = str(error)
        found.append(row)
    return found


def _near(ids: np.ndarray, by_owner: Mapping[str, Sequence[float]], cutoffs: Sequence[int]) -> Table:
    """Patients who could as well lie on the other side of a cut, by their nodes' probabilities."""
    own = [by_owner.get(str(i)) for i in ids]
    rows = []
    for cut in cutoffs:
        chance = np.array([probability_at_least(nodes, cut) if nodes else 0.0 for nodes in own])
        undecided = int(((chance > NEAR) & (chance < 1 - NEAR)).sum())
        row = {"cut": f"≥ {cut}", "n": int(ids.size), "undecided": undecided}
        rows.append(row | {"expected": float(chance.sum())})
    mean = [float(np.dot(np.arange(len(d)), d)) for d in map(count_distribution, filter(None, own))]
    average = f" Mean expected count of those with a node: {np.mean(mean):.2f}." if mean else ""
    return table_of("threshold_undecided", rows, average=average)
