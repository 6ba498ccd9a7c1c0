"""Old staging against old staging with AI-ENE: which models are compared, and what each predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from aiene.risk.analyse.cohort import Outcome, words
from aiene.risk.analyse.design import categorical, varying
from aiene.risk.analyse.grouping import Grouping, Groupings
from aiene.risk.analyse.records import Skipped
from aiene.risk.analyse.regression import Sample, cox
from aiene.stats.competing_risks import cumulative_incidence, fine_gray
from aiene.stats.cox_model import CoxFit
from aiene.stats.records import NotEstimableError

RELEARNED = "relearned"
FEWEST = 5
"""Fewer patients make no group of a model."""


@dataclass(frozen=True)
class Model:
    """One of the models of a comparison.

    Parameters
    ----------
    name : for machines; label : in words.
    matrix : its columns; no missing value.
    groups : names of ordered groups, best first; empty for a model of covariates.
    ranks : of ordered groups the place of each patient's, (n,): what their C and AUC are of, since the order
        is given and not learned from the outcome; None for a model of covariates.
    """

    name: str
    label: str
    matrix: pd.DataFrame
    ranks: np.ndarray | None = None
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelComparison:
    """Models that are compared on the same patients.

    Parameters
    ----------
    name, title : of the comparison.
    population : in words.
    outcome : of the n patients.
    old, new : the same columns without and with the count: nested.
    groups : the combined groups as a third model; None where there are none.
    ranks_old, ranks_new : places of the old and of the combined groups on one scale; empty where there is
        no such scale.
    levels_old, levels_new : names of the places on that scale.
    cells : old group and class of the count of each patient, (n,) in words.
    note : which groups were taken together to be estimable.
    center : centre of each patient, (n,), empty where not known.
    """

    name: str
    title: str
    population: str
    outcome: Outcome
    old: Model
    new: Model
    groups: Model | None = None
    ranks_old: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))
    ranks_new: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))
    levels_old: tuple[str, ...] = ()
    levels_new: tuple[str, ...] = ()
    cells: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=object))
    note: str = ""
    center: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=object))

    @property
    def models(self) -> tuple[Model, ...]:
        """All models, the old one first."""
        return tuple(m for m in (self.old, self.new, self.groups) if m is not None)


@dataclass(frozen=True)
class Predictions:
    """What the fitted models say about the patients they were fitted on.

    Parameters
    ----------
    fits : Cox model by name; none for a model without a column.
    risk : what C and AUC are of, by model; float (n,): places of ordered groups, else the linear predictor.
        Where the old groups' own order does not hold, `RELEARNED` has them by effects fitted here: the count
        is compared with these, or it would be credited with putting the old groups in order.
    horizons : in time, (k,).
    absolute : risk of the event by each horizon, by model; float (n, k).
    """

    fits: dict[str, CoxFit]
    risk: dict[str, np.ndarray]
    horizons: tuple[float, ...]
    absolute: dict[str, np.ndarray]

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """What each other model is compared with."""
        return compared(self.risk)

    def by(self, horizons: Sequence[float]) -> dict[str, np.ndarray]:
        """Risk of the event by some of the horizons; (n, len(horizons)) by model."""
        places = [self.horizons.index(h) for h in horizons]
        return {name: values[:, places] for name, values in self.absolute.items()}


def model_comparisons(sample: Sample, groupings: Groupings, cap: int) -> tuple[ModelComparison, ...]:
    """The comparisons of one endpoint in one population: covariates, the scheme's base, other systems."""
    found = []
    outcome, design, count = sample.complete()
    capped = np.minimum(count, cap)
    center = words(sample.table, "center")
    if design.matrix.shape[1]:
        clinical = _comparison("clinical", "Clinical factors", sample.label, outcome, design.matrix, capped)
        found.append(replace(clinical, center=center[sample.design.complete]))
    capped = np.minimum(sample.count, cap)
    combined = groupings.combined
    for base in groupings.bases:
        if combined is None:
            break
        old, new = base.rank(sample.table), combined.rank(sample.table)
        keep = (old >= 0) & (new >= 0)
        if keep.any():
            groups = _with_groups(sample, base, combined, keep, old[keep], new[keep], capped[keep])
            found.append(replace(groups, center=center[keep]))
    for other in groupings.others:
        ranks = other.rank(sample.table)
        keep = ranks >= 0
        outcome = sample.outcome.take(keep)
        merged, note = _without_sparse(ranks[keep], outcome.event, other)
        matrix = categorical(merged, other.labels, other.name)
        if keep.any() and matrix.shape[1]:
            named = other.name, other.title, sample.label
            comparison = _comparison(*named, outcome, matrix, capped[keep], ranks[keep], other.labels)
            found.append(replace(comparison, note=note, center=center[keep]))
    return tuple(c for c in found if c.outcome.n_events and c.new.matrix["n_ai_ene"].nunique() > 1)


def _comparison(
    name: str,
    title: str,
    population: str,
    outcome: Outcome,
    matrix: pd.DataFrame,
    capped: np.ndarray,
    ranks: np.ndarray | None = None,
    groups: tuple[str, ...] = (),
) -> ModelComparison:
    matrix = matrix.reset_index(drop=True)
    old = Model("old", title, matrix, ranks, groups)
    new = Model("new", f"{title} + AI-ENE count", matrix.assign(n_ai_ene=capped))
    return ModelComparison(name, title, population, outcome, old, new)


def _with_groups(
    sample: Sample,
    base: Grouping,
    combined: Grouping,
    keep: np.ndarray,
    old: np.ndarray,
    new: np.ndarray,
    capped: np.ndarray,
) -> ModelComparison:
    outcome = sample.outcome.take(keep)
    merged, note = _without_sparse(old, outcome.event, base)
    merged_new, note_new = _without_sparse(new, outcome.event, combined)
    matrix, groups = (
        categorical(merged, base.labels, base.name),
        categorical(merged_new, combined.labels, combined.name),
    )
    cells = words(sample.table, "base_group") + " | " + words(sample.table, "marker_class")
    found = replace(
        _comparison(base.name, base.title, sample.label, outcome, matrix, capped, old, base.labels),
        groups=Model("groups", combined.title, groups, new, combined.labels) if groups.shape[1] else None,
        cells=cells[keep],
        note=" ".join(n for n in (note, note_new) if n),
    )
    scale = _one_scale(base, combined)
    if not scale.size:
        return found
    own = combined.labels if set(base.order) <= set(combined.order) else base.labels
    ranks = {"ranks_old": scale[old], "ranks_new": new}
    return replace(found, **ranks, levels_old=own, levels_new=combined.labels)


def _without_sparse(ranks: np.ndarray, event: np.ndarray, grouping: Grouping) -> tuple[np.ndarray, str]:
    """Groups that are too small or have no event join the next worse one (the last: the next better)."""
    merged, joins = _joined(ranks, event)
    said = ", ".join(f"{grouping.labels[rank]} with {grouping.labels[target]}" for rank, target in joins)
    return merged, f"Taken together: {said}." if said else ""


def _joined(ranks: np.ndarray, event: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Ranks with sparse groups joined, and which were joined to which."""
    merged, joins = ranks.copy(), []
    for rank in np.unique(ranks):
        inside = merged == rank
        others = np.unique(merged[~inside])
        if inside.any() and others.size and (inside.sum() < FEWEST or not event[inside].any()):
            worse = others[others > rank]
            target = int(worse[0] if worse.size else others[-1])
            merged[inside] = target
            joins.append((int(rank), target))
    return merged, joins


def matrices_without(comparison: ModelComparison, held: np.ndarray) -> dict[str, pd.DataFrame]:
    """Columns of each model, (n, p), groups joined by the outcome of those patients alone that are not held.

    Parameters
    ----------
    held : bool (n,); a group that only these have is taken for the next worse one, the worst for the next
        better.
    """
    event = comparison.outcome.event
    found = {model.name: model.matrix for model in comparison.models}
    for model in (comparison.old, comparison.groups):
        if model is not None and model.ranks is not None:
            joined = _joined_elsewhere(model.ranks, event, held)
            found[model.name] = categorical(joined, [str(r) for r in range(joined.max() + 1)], "group")
    if comparison.old.ranks is not None:
        count = comparison.new.matrix["n_ai_ene"].to_numpy()
        found["new"] = found["old"].assign(n_ai_ene=count)
    return found


def _joined_elsewhere(ranks: np.ndarray, event: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Rank of each patient after sparse groups of the patients not held out were joined."""
    own = ranks[~held]
    merged, _ = _joined(own, event[~held])
    to = dict(zip(own.tolist(), merged.tolist(), strict=True))
    present = np.unique(merged)
    for rank in set(ranks.tolist()) - set(to):
        worse = present[present >= rank]
        to[rank] = int(worse[0] if worse.size else present[-1])
    return np.array([to[r] for r in ranks.tolist()], dtype=int)


def _one_scale(base: Grouping, combined: Grouping) -> np.ndarray:
    """Place of each base group among the combined groups: by name, else by order where there are as many."""
    if set(base.order) <= set(combined.order):
        return np.array([combined.order.index(g) for g in base.order], dtype=int)
    if len(base.order) == len(combined.order):
        return np.arange(len(base.order))
    return np.zeros(0, dtype=int)


def predict(
    comparison: ModelComparison, horizons: Sequence[float], *, confidence: float = 0.95
) -> Predictions:
    """Fit every model and predict.

    With death competing, absolute risks are those of Fine-Gray models; linear predictors are always those of
    (cause-specific) Cox models. A model without a column predicts the same for all. Absolute risks of ordered
    groups need a model of them; their ranks do not.

    Raises
    ------
    NotEstimableError : a model cannot be fitted.
    """
    outcome = comparison.outcome
    fits: dict[str, CoxFit] = {}
    risk: dict[str, np.ndarray] = {}
    absolute: dict[str, np.ndarray] = {}
    for model in comparison.models:
        matrix = varying(model.matrix)
        if not matrix.shape[1]:
            risk |= scores(model, np.zeros(outcome.n))
            absolute[model.name] = _marginal(outcome, horizons)
            continue
        fit = fits[model.name] = cox(outcome.time, outcome.event, matrix, confidence=confidence)
        if fit.model is None:
            raise NotEstimableError(f"{model.label} gives no prediction", "use another model")
        values = matrix.to_numpy(dtype=float)
        fitted = np.asarray(fit.model.risk(values))
        risk |= scores(model, fitted)
        if outcome.competes:
            absolute[model.name] = fine_gray(outcome.time, outcome.state, matrix).predict(matrix, horizons)
        else:
            absolute[model.name] = 1 - np.asarray(fit.model.survival(values, horizons))
    return Predictions(fits, risk, tuple(horizons), absolute)


def scores(model: Model, fitted: np.ndarray) -> dict[str, np.ndarray]:
    """What C and AUC of a model are of, see `Predictions`.

    Parameters
    ----------
    fitted : (n,) linear predictor of the model.
    """
    if model.ranks is None:
        return {model.name: fitted}
    ranks = model.ranks.astype(float)
    if model.name != "old" or same_order(ranks, fitted):
        return {model.name: ranks}
    return {model.name: ranks, RELEARNED: fitted}


def same_order(ranks: np.ndarray, fitted: np.ndarray) -> bool:
    """Whether effects that were fitted rise with the places of the groups; (n,) each."""
    _, first = np.unique(ranks, return_index=True)
    return bool((np.diff(fitted[first]) > 0).all())


def compared(risk: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Pairs of scores: groups with the old groups as they are given, models with what is fitted alike."""
    fitted = RELEARNED if RELEARNED in risk else "old"
    return tuple((fitted if name == "new" else "old", name) for name in ("new", "groups") if name in risk)


def _marginal(outcome: Outcome, horizons: Sequence[float]) -> np.ndarray:
    curve = cumulative_incidence(outcome.time, outcome.state)
    values = np.array([e.value for e in curve.at(horizons)])
    return np.broadcast_to(values, (outcome.n, len(values))).copy()


# Results of one comparison


@dataclass
class Added:
    """What is found about one comparison: rows by table, and what could not be computed."""

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)

    def put(self, table: str, head: dict[str, Any], **values: Any) -> None:
        """Add a row to a table."""
        self.rows.setdefault(table, []).append(head | values)


def reached(comparison: ModelComparison, years: Sequence[float]) -> tuple[float, ...]:
    """The horizons that the follow-up reaches."""
    last = float(comparison.outcome.time.max())
    return tuple(sorted({y for y in years if y < last}))
