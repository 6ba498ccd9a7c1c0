"""The effect of the count in other models: of other covariates, and where hazards are not proportional.

Other covariates are multiply imputed ones, pooled by Rubin's rules, and the number and volume of nodes, which
tell AI-ENE from just more nodes; a user's own columns can stand beside them. Over time: restricted means,
weighted tests, periods, landmarks and late entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from aiene.errors import UsageError
from aiene.report.document import Table, Text
from aiene.risk.analyse.cohort import Outcome, check_events, numeric, words
from aiene.risk.analyse.design import Design, estimable, varying
from aiene.risk.analyse.grouping import Stratum
from aiene.risk.analyse.records import AnalysisSettings, Part, Skipped, effect, table_of
from aiene.risk.analyse.regression import MARKER, MARKER_TERM, Sample, cox, tried, with_count
from aiene.stats.count_covariate import restricted_cubic_spline
from aiene.stats.cox_model import nested_lrt
from aiene.stats.imputation import Imputed, Pooled, impute, rubin
from aiene.stats.proportional_hazards import cox_with_entry, piecewise_cox
from aiene.stats.records import NotEstimableError
from aiene.stats.survival_curves import rmst_difference
from aiene.stats.tests import WEIGHTS, weighted_log_rank

_HELPERS = ("smoking_status",)
"""Columns that predict missing covariates without being in the model."""


def imputed_part(sample: Sample, settings: AnalysisSettings) -> Part:
    """The adjusted model on imputed covariates (never HPV, count or outcome), pooled by Rubin's rules."""
    design, outcome = sample.design, sample.outcome
    what = f"Multiple imputation, {outcome.label}, {sample.label}"
    fixed = [c for c in design.matrix if str(c).startswith("hpv")]
    kept = design.matrix[fixed].notna().all(axis=1).to_numpy(dtype=bool)
    outcome, design = outcome.take(kept), estimable(design, kept)
    factors, gaps = _as_factors(design)
    table = sample.table.loc[kept].reset_index(drop=True)
    matrix = factors.assign(**{MARKER: sample.count[kept]})
    helpers = [name for name in _HELPERS if name not in factors and table[name].nunique() > 1]
    matrix = matrix.assign(**{name: table[name] for name in helpers})
    if not gaps:
        return Part((Text(f"{what}: no covariate is missing, so there is nothing to impute."),))
    try:
        imputed = impute(
            matrix,
            gaps,
            time=outcome.time,
            event=outcome.state,
            predictors=[str(c) for c in matrix if c not in gaps],
            bounds={"pack_years": pack_years_bounds(table)} if "pack_years" in gaps else None,
            m=settings.imputations,
            seed=settings.seed,
        )
        fits = [
            cox(outcome.time, outcome.event, _as_columns(t, design), confidence=settings.confidence)
            for t in imputed.tables
        ]
        pooled = rubin(fits, confidence=settings.confidence)
    except NotEstimableError as error:
        return Part.failed(what, error, asked=True)
    return Part((_table(sample, pooled, imputed, design, int((~kept).sum()), helpers, settings),))


def pack_years_bounds(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Least and most pack-years of each patient by their class, in tens as the covariate is; (n,) each."""
    known = words(table, "pack_years_class")
    above = np.nextafter(1.0, 2.0)  # exactly ten pack-years are at most ten
    return np.where(known == "gt10", above, 0.0), np.where(known == "le10", 1.0, np.inf)


def _table(
    sample: Sample,
    pooled: Pooled,
    imputed: Imputed,
    design: Design,
    lost: int,
    helpers: Sequence[str],
    settings: AnalysisSettings,
) -> Table:
    labels = design.labels(MARKER_TERM)
    rows = [
        {"term": labels[r.name][0].label, "level": labels[r.name][1], **effect(r)}
        | {"fraction_missing": r.fraction_missing}
        for r in pooled.rows
    ]
    filled = ", ".join(f"{name} {n}" for name, n in imputed.filled.items())
    death = ", death before it" if sample.outcome.competes else ""
    others = "".join(f", {name.replace('_', ' ')}" for name in helpers)
    within = " Pack-years are drawn within the patient's pack-years class."
    inside = within if "pack_years" in imputed.filled else ""
    return table_of(
        "imputed",
        rows,
        of=f"{sample.outcome.name}_{sample.name}",
        title=f"{sample.outcome.label}, {sample.label}",
        pooled=pooled,
        death=death,
        others=others,
        inside=inside,
        filled=filled,
        lost=lost,
        settings=settings,
    )


def _as_factors(design: Design) -> tuple[pd.DataFrame, list[str]]:
    """One column per term, so that the levels of a factor are imputed together; and those with gaps."""
    factors: dict[str, Any] = {}
    for term in design.terms:
        own = design.matrix[list(term.columns)]
        if term.reference:
            codes = own.to_numpy(dtype=float) @ np.arange(1, own.shape[1] + 1)
            names = ("reference", *term.columns)
            levels = [None if np.isnan(c) else names[int(c)] for c in codes]
            factors[term.name] = pd.Series(levels, dtype="string")
        else:
            factors[term.name] = own.iloc[:, 0]
    frame = pd.DataFrame(factors)
    return frame, [str(c) for c in frame if frame[c].isna().any()]


def _as_columns(table: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Back to the columns of the design, the count first."""
    columns: dict[str, Any] = {MARKER: table[MARKER].to_numpy(dtype=float)}
    for term in design.terms:
        for column in term.columns:
            values = table[term.name] == column if term.reference else table[term.name]
            columns[column] = values.to_numpy(dtype=float)
    return pd.DataFrame(columns)


BURDEN = {
    "n_ai_nodes": "Nodes found by the software",
    "ai_node_volume_ml": "Volume of all nodes",
    "n_nodes": "Involved nodes, as reported",
    "largest_node_cm": "Largest node",
}


def check_also(table: pd.DataFrame, names: tuple[str, ...]) -> None:
    """That each column named on the command line is there and holds numbers.

    Raises
    ------
    UsageError : one is not, with what can be done.
    """
    for name in names:
        if name not in table:
            raise UsageError(
                f"--also {name}: the table has no such column; it has {', '.join(table.columns)}."
            )
        values = pd.to_numeric(table[name], errors="coerce")
        bad = table[name].notna() & values.isna()
        if bad.any() or not values.notna().any():
            shown = f'"{table[name][bad].iloc[0]}"' if bad.any() else "no value"
            raise UsageError(
                f"--also {name}: a covariate must be a column of numbers, this one holds {shown}."
            )


def burden_part(sample: Sample, settings: AnalysisSettings) -> Part:
    """The hazard ratio of the count beside each measure of nodes alone, and beside all of them."""
    what = f"{sample.outcome.label}: AI-ENE, or just more nodes?"
    names = {**BURDEN, **{name: name for name in settings.also}}
    columns = {label: _standard(sample.table, name) for name, label in names.items() if name in sample.table}
    measures = [(label, pd.DataFrame({label: v})) for label, v in columns.items() if v is not None]
    if not measures:
        return Part((), (Skipped(what, "the table has no number, volume or size of nodes."),))
    complete = sample.design.complete
    rows = [_row("nothing more", sample, complete, pd.DataFrame(index=range(int(complete.sum()))), settings)]
    if len(measures) > 1:
        measures.append(("all of these", pd.concat([frame for _, frame in measures], axis=1)))
    for label, frame in measures:
        known = complete & frame.notna().all(axis=1).to_numpy()
        rows.append(_row(label, sample, known, frame.loc[known].reset_index(drop=True), settings))
    return Part((table_of("burden", rows, of=sample.outcome.name, what=what),))


def _standard(table: pd.DataFrame, name: str) -> np.ndarray | None:
    values = numeric(table.assign(**{name: pd.to_numeric(table[name], errors="coerce")}), name)
    spread = float(np.nanstd(values)) if np.isfinite(values).any() else 0.0
    return values / spread if spread > 0 else None


def _row(
    label: str, sample: Sample, known: np.ndarray, frame: pd.DataFrame, settings: AnalysisSettings
) -> dict[str, Any]:
    outcome: Outcome = sample.outcome.take(known)
    covariates = varying(sample.design.matrix.loc[known].reset_index(drop=True))
    marker = pd.DataFrame({MARKER: sample.count[known]})
    row: dict[str, Any] = {"adjusted": label, **outcome.counts}
    try:
        whole = pd.concat([marker, frame, covariates], axis=1)
        fit = cox(outcome.time, outcome.event, whole, confidence=settings.confidence)
        row |= effect(fit.rows[0])
        del row["p"]  # of the likelihood ratio, not of Wald
        for key, left_out in (("p", [MARKER]), ("other_p", list(frame))):
            rest = whole.drop(columns=left_out)
            if left_out and rest.shape[1]:
                row[key] = nested_lrt(cox(outcome.time, outcome.event, rest), fit).p
        if frame.shape[1] == 1:
            other = fit.rows[1]
            row |= {"other_hr": other.hr, "other_lower": other.lower, "other_upper": other.upper}
    except NotEstimableError as error:
        row["remark"] = str(error)
    return row


PERIODS = (1.0, 3.0)
"""Years between the periods of the follow-up."""
LANDMARKS = (0.5, 1.0)
"""Years from which on those still at risk are analysed alone."""
COMMON = 0.15
"""Share with the event above which the E-value takes the hazard ratio for one of a common outcome."""
ENTRY = "entry_time"
_WORDS = {
    "early": "early events weigh more (Fleming and Harrington, rho 1)",
    "at risk": "by numbers at risk (Gehan)",
    "late": "late events weigh more (Fleming and Harrington, gamma 1)",
}


def groups_part(stratum: Stratum, settings: AnalysisSettings) -> Part:
    """Restricted means of each group against the first, and tests that weigh early or late events."""
    outcome, present, title = stratum.outcome, stratum.present, stratum.grouping.title
    what = f"{outcome.label} by {title}, hazards not proportional"
    if len(present) < 2:
        return Part((), (Skipped(what, "every patient is in one group."),))
    check_events(outcome.n_events)
    tau = min(max(settings.horizons), *(float(stratum.of(r).time.max()) for r in present))
    if tau <= 0:
        return Part((), (Skipped(what, "a group is not followed beyond time 0."),))
    rows: list[dict[str, Any]] = []
    first = stratum.grouping.labels[present[0]]
    for rank in present[1:]:
        pair = np.isin(stratum.ranks, (present[0], rank))
        row: dict[str, Any] = {"group": stratum.grouping.labels[rank], "against": first, "years": tau}
        try:
            args = outcome.time[pair], outcome.event[pair], stratum.ranks[pair], tau
            found = rmst_difference(*args, order=[present[0], rank], confidence=settings.confidence)
            gap = found.difference
            row |= {"difference": gap.value, "lower": gap.lower, "upper": gap.upper, "p": found.p}
        except NotEstimableError as error:
            row["remark"] = str(error)
        rows.append(row)
    tests: list[dict[str, Any]] = []
    for weight in WEIGHTS:
        with suppress(NotEstimableError):
            of = outcome.time, outcome.event, stratum.labels, weight
            found_test = weighted_log_rank(*of, order=stratum.order)
            values = zip(("statistic", "df", "p"), found_test, strict=True)
            tests.append({"test": _WORDS[weight], **dict(values)})
    said = {"of": outcome.name, "title": f"{outcome.label} by {title}"}
    weighted = (table_of("weighted", tests, **said),) if tests else ()
    return Part((table_of("rmst", rows, **said), *weighted))


def models_part(sample: Sample, settings: AnalysisSettings) -> Part:
    """The adjusted hazard ratio by period, from landmarks on, with splines, with delayed entry; E-values."""
    complete, design, count = sample.complete()
    what = f"{complete.label}: the effect over time and under other models"
    matrix = with_count(design.matrix, count)
    if complete.n_events < 3 or len(set(count)) < 2:
        return Part((), (Skipped(what, "fewer than three events, or one count."),))
    level, time = settings.confidence, complete.time
    rows = [tried("Proportional hazards", complete, partial(_plain, complete, matrix, level, e_values=True))]
    rows += _periods(sample, settings)
    for landmark in LANDMARKS:
        kept = time > landmark
        own, columns = complete.take(kept), varying(matrix.loc[kept].reset_index(drop=True))
        if MARKER in columns and own.n_events:
            later = replace(own, time=own.time - landmark)
            name = f"Landmark: at risk after {12 * landmark:g} months"
            rows.append(tried(name, own, partial(_plain, later, columns, level)))
    rows += _splines(sample, settings)
    if ENTRY in sample.table and sample.table[ENTRY].notna().any():
        entry = numeric(sample.table, ENTRY)[sample.design.complete]
        kept = np.isfinite(entry) & (entry < time)
        own, columns = complete.take(kept), matrix.loc[kept].reset_index(drop=True)
        args = entry[kept], own.time, own.event, columns
        cells = partial(cox_with_entry, *args, confidence=level)
        rows.append(tried(f"Delayed entry ({ENTRY})", own, lambda: effect(cells()[0])))
    return Part((table_of("time_effect", rows, of=complete.name, what=what),))


def _plain(outcome: Outcome, matrix: pd.DataFrame, level: float, *, e_values: bool = False) -> dict[str, Any]:
    """Cells of the first column's effect, with its E-values where they are wanted."""
    found = cox(outcome.time, outcome.event, matrix, confidence=level).rows[0]
    if not e_values:
        return effect(found)
    common = outcome.n_events / outcome.n > COMMON
    value = e_value(found.hr, found.lower, found.upper, common=common)
    told = f"E-value {value.estimate:.2f}, of the interval {value.interval:.2f}"
    return effect(found) | {"remark": told}


def _periods(sample: Sample, settings: AnalysisSettings) -> list[dict[str, Any]]:
    complete, design, count = sample.complete()
    time, event = complete.time, complete.event
    edges = [0.0, *PERIODS, np.inf]
    names = [f"In years {low:g} to {high:g}" for low, high in pairwise(edges[:-1])]
    names.append(f"After {PERIODS[-1]:g} years")
    rows: list[dict[str, Any]] = []
    for name, (low, high) in zip(names, pairwise(edges), strict=True):
        events = int(((time > low) & (time <= high) & (event == 1)).sum())
        rows.append({"model": name, "n": int((time > low).sum()), "events": events})
    try:
        found = piecewise_cox(time, event, count, design.matrix, PERIODS, confidence=settings.confidence)
    except NotEstimableError as error:
        return [row | {"remark": str(error)} for row in rows]
    return [row | effect(r) for row, r in zip(rows, found, strict=True)]


def _splines(sample: Sample, settings: AnalysisSettings) -> list[dict[str, Any]]:
    complete, design, count = sample.complete()
    curved, others = [], design.matrix
    for name in ("age", "pack_years"):
        if name in others:
            try:
                basis = restricted_cubic_spline(others[name].to_numpy())[:, 1:]
            except NotEstimableError:
                continue
            names = [f"{name} curved {k + 1}" for k in range(basis.shape[1])]
            curved.append(pd.DataFrame(basis, columns=names))
    if not curved:
        return []
    matrix = with_count(others, count)

    def cells() -> dict[str, Any]:
        straight = cox(complete.time, complete.event, matrix)
        whole = pd.concat([matrix, *curved], axis=1)
        fit = cox(complete.time, complete.event, whole, confidence=settings.confidence)
        test = nested_lrt(straight, fit)
        told = f"curvature: likelihood ratio {test.statistic:.2f}, df {test.df}, p = {test.p:.2g}"
        return effect(fit.rows[0]) | {"remark": told}

    return [tried("Splines of age and pack-years", complete, cells)]


# Unmeasured confounding


class EValue(NamedTuple):
    """Of the estimate, and of the end of its interval that is nearer to 1 (1 where the interval holds 1)."""

    estimate: float
    interval: float


def e_value(hr: float, lower: float, upper: float, *, common: bool) -> EValue:
    """The E-value of a hazard ratio.

    Parameters
    ----------
    hr, lower, upper : over 0, with the ends of its interval around it.
    common : more than some 15 % have the event, so the hazard ratio is first brought to a risk ratio.

    Raises
    ------
    UsageError : not a hazard ratio with its interval.

    References
    ----------
    VanderWeele and Ding 2017, Ann Intern Med 167:268.
    """
    if not 0 < lower <= hr <= upper:
        raise UsageError("an E-value needs a hazard ratio over 0 within its interval.")
    near = lower if hr >= 1 else upper
    crosses = lower <= 1 <= upper
    return EValue(_as_e_value(hr, common), 1.0 if crosses else _as_e_value(near, common))


def _as_e_value(hr: float, common: bool) -> float:
    ratio = (1 - 0.5 ** (hr**0.5)) / (1 - 0.5 ** (1 / hr**0.5)) if common else hr
    ratio = max(ratio, 1 / ratio)
    return float(ratio + (ratio * (ratio - 1)) ** 0.5)
