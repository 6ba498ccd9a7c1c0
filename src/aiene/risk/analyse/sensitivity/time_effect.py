"""Where hazards are not proportional: restricted means, weighted tests, periods, landmarks, late entry."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from aiene.errors import UsageError
from aiene.risk.analyse.cohort import check_events, numeric
from aiene.risk.analyse.design import varying
from aiene.risk.analyse.grouping import Stratum
from aiene.risk.analyse.records import AnalysisSettings, Part, Skipped, effect, table_of
from aiene.risk.analyse.regression import MARKER, Sample, cox, too_few, with_count
from aiene.stats.count_covariate import restricted_cubic_spline
from aiene.stats.cox_model import nested_lrt
from aiene.stats.proportional_hazards import cox_with_entry, piecewise_cox
from aiene.stats.records import Coefficient, NotEstimableError
from aiene.stats.survival_curves import rmst_difference
from aiene.stats.tests import WEIGHTS, weighted_log_rank

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
    rows: list[dict[str, Any]] = []
    head = {"n": complete.n, "events": complete.n_events}

    def tried(name: str, model: Any, **row: Any) -> Coefficient | None:
        try:
            found: Coefficient = model()
        except (NotEstimableError, np.linalg.LinAlgError) as error:
            rows.append({"model": name, **row, "remark": too_few(error)})
            return None
        rows.append({"model": name, **row, **effect(found)})
        return found

    confidence, time, event = settings.confidence, complete.time, complete.event
    plain = tried(
        "Proportional hazards", partial(_first_row, time, event, matrix, confidence=confidence), **head
    )
    if plain is not None:
        common = complete.n_events / complete.n > COMMON
        value = e_value(plain.hr, plain.lower, plain.upper, common=common)
        rows[-1]["remark"] = f"E-value {value.estimate:.2f}, of the interval {value.interval:.2f}"
    rows += _periods(sample, settings)
    for landmark in LANDMARKS:
        kept = time > landmark
        own, columns = complete.take(kept), varying(matrix.loc[kept].reset_index(drop=True))
        if MARKER in columns and own.n_events:
            args = own.time - landmark, own.event, columns
            model = partial(_first_row, *args, confidence=confidence)
            tried(f"Landmark: at risk after {12 * landmark:g} months", model, n=own.n, events=own.n_events)
    rows += _splines(sample, settings)
    if ENTRY in sample.table and sample.table[ENTRY].notna().any():
        entry = numeric(sample.table, ENTRY)[sample.design.complete]
        kept = np.isfinite(entry) & (entry < time)
        own, columns = complete.take(kept), matrix.loc[kept].reset_index(drop=True)
        tried(
            f"Delayed entry ({ENTRY})",
            lambda: cox_with_entry(entry[kept], own.time, own.event, columns, confidence=confidence)[0],
            n=own.n,
            events=own.n_events,
        )
    return Part((table_of("time_effect", rows, of=complete.name, what=what),))


def _first_row(time: np.ndarray, event: np.ndarray, matrix: pd.DataFrame, confidence: float) -> Coefficient:
    return cox(time, event, matrix, confidence=confidence).rows[0]


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
    row: dict[str, Any] = {"model": "Splines of age and pack-years", "n": complete.n}
    row["events"] = complete.n_events
    try:
        straight = cox(complete.time, complete.event, matrix)
        whole = pd.concat([matrix, *curved], axis=1)
        fit = cox(complete.time, complete.event, whole, confidence=settings.confidence)
        test = nested_lrt(straight, fit)
    except NotEstimableError as error:
        return [row | {"remark": str(error)}]
    told = f"curvature: likelihood ratio {test.statistic:.2f}, df {test.df}, p = {test.p:.2g}"
    return [row | effect(fit.rows[0]) | {"remark": told}]


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
