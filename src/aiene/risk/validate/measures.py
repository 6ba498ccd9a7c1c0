"""What a locked scheme or model is worth on other patients: nothing is fitted to them but the slope.

The groups of a scheme are judged by their ranks alone. A model also by its absolute risks: calibration, Brier
score, decision curve; and both in each centre, pooled by random effects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aiene.parallel import Job, OnProgress, run_jobs
from aiene.risk.analyse.centres import Scale, pooled
from aiene.risk.analyse.cohort import Outcome
from aiene.risk.analyse.records import AnalysisSettings
from aiene.stats.bootstrap import bootstrap
from aiene.stats.calibration import Calibration, calibration
from aiene.stats.clinical_utility import DecisionCurve, decision_curve
from aiene.stats.concordance import concordance
from aiene.stats.records import Interval, NotEstimableError
from aiene.stats.time_dependent_accuracy import brier_score

THRESHOLDS = tuple(round(0.01 * i, 2) for i in range(1, 51))
FEWEST_EVENTS = 10
"""Events that a centre needs for a row of its own."""
_MOST_RESAMPLES = 500
"""Of the slower measures."""
_PATIENTS_A_UNIT = 2000.0
"""A resample of so many patients is one unit of work, see `parallel.Job`."""


@dataclass(frozen=True)
class Predictor:
    """One scheme or model applied to the patients of an outcome.

    Parameters
    ----------
    label : in words.
    score : (n,) ranks or linear predictors, higher is worse.
    risk : (n, k) of the event by the horizons; None for a scheme.
    """

    label: str
    score: np.ndarray
    risk: np.ndarray | None = None


@dataclass
class Found:
    """Rows of each table, curves for the figures, and what could not be computed."""

    discrimination: list[dict[str, Any]] = field(default_factory=list)
    calibration: list[dict[str, Any]] = field(default_factory=list)
    brier: list[dict[str, Any]] = field(default_factory=list)
    centres: list[dict[str, Any]] = field(default_factory=list)
    smooth: dict[tuple[str, float], Calibration] = field(default_factory=dict)
    decision: DecisionCurve | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def add(self, other: Found) -> None:
        """Take in what was found by another step."""
        self.discrimination += other.discrimination
        self.calibration += other.calibration
        self.brier += other.brier
        self.centres += other.centres
        self.smooth |= other.smooth
        self.decision = self.decision or other.decision
        self.skipped += other.skipped


def measured(
    outcome: Outcome,
    predictors: Sequence[Predictor],
    years: Sequence[float],
    center: np.ndarray,
    settings: AnalysisSettings,
    on_progress: OnProgress | None = None,
) -> Found:
    """Every measure on the same n patients; the first predictor is what the others are compared with.

    Parameters
    ----------
    years : (k,) horizons of the risks, all within the follow-up of these patients.
    center : (n,) names, empty where not known.
    """
    each = settings.bootstraps * outcome.n * len(predictors) / _PATIENTS_A_UNIT
    jobs = [
        Job(what, _measure, (what, outcome, predictors, years, center, settings), each * share)
        for what, (_, share) in _STEPS.items()
    ]
    found = Found()
    for part in run_jobs(jobs, workers=settings.jobs, on_progress=on_progress):
        found.add(part)
    return found


def _measure(
    what: str,
    outcome: Outcome,
    predictors: Sequence[Predictor],
    years: Sequence[float],
    center: np.ndarray,
    settings: AnalysisSettings,
) -> Found:
    """One kind of measure, or why it could not be computed."""
    found = Found()
    try:
        _STEPS[what][0](found, outcome, predictors, years, center, settings)
    except NotEstimableError as error:
        found.skipped.append((what, str(error)))
    return found


def _limits(value: Any, settings: AnalysisSettings) -> dict[str, Any]:
    return {"lower": value.lower, "upper": value.upper} if settings.bootstraps else {}


def _discrimination(
    found: Found,
    outcome: Outcome,
    predictors: Sequence[Predictor],
    years: Sequence[float],
    _center: np.ndarray,
    settings: AnalysisSettings,
) -> None:
    scores = {p.label: p.score for p in predictors}
    first, *others = scores
    for kind, tau in (("Harrell", None), *((("Uno", max(years)),) if years else ())):
        result = concordance(
            outcome.time,
            outcome.event,
            scores,
            compare=[(first, other) for other in others],
            kind="harrell" if kind == "Harrell" else "uno",
            tau=tau,
            n_boot=settings.bootstraps or 2,
            seed=settings.seed,
            confidence=settings.confidence,
        )
        gains = dict(zip(others, result.differences.values(), strict=True))
        for label, value in result.values.items():
            row = {"model": label, "kind": kind, "c": value.value, **_limits(value, settings)}
            if label in gains:
                gain = gains[label]
                row |= {"delta": gain.value, **{f"delta_{k}": v for k, v in _limits(gain, settings).items()}}
                row |= {"p": gain.p} if settings.bootstraps else {}
            found.discrimination.append(row)


def _calibration(
    found: Found,
    outcome: Outcome,
    predictors: Sequence[Predictor],
    years: Sequence[float],
    _center: np.ndarray,
    settings: AnalysisSettings,
) -> None:
    for predictor, place, year, risk in _risks(predictors, years):
        result = calibration(
            outcome.time,
            outcome.state,
            risk,
            year,
            n_boot=min(settings.bootstraps, 100),
            seed=settings.seed,
            confidence=settings.confidence,
        )
        found.smooth[predictor.label, year] = result
        named = {"oe": result.observed_expected, "slope": result.slope, "large": result.in_the_large}
        named |= {} if result.ici_interval is None else {"ici": result.ici_interval}
        row: dict[str, Any] = {"model": predictor.label, "year": years[place], "ici": result.ici}
        row |= {"predicted": result.mean_predicted, "observed": result.observed, "e90": result.e90}
        for name, value in named.items():
            row |= {name: value.value, f"{name}_lower": value.lower, f"{name}_upper": value.upper}
        found.calibration.append(row)


def _risks(
    predictors: Sequence[Predictor], years: Sequence[float]
) -> list[tuple[Predictor, int, float, np.ndarray]]:
    return [
        (p, place, year, p.risk[:, place])
        for p in predictors
        if p.risk is not None
        for place, year in enumerate(years)
    ]


def _brier(
    found: Found,
    outcome: Outcome,
    predictors: Sequence[Predictor],
    years: Sequence[float],
    _center: np.ndarray,
    settings: AnalysisSettings,
) -> None:
    for predictor, _, year, risk in _risks(predictors, years):

        def scores(rows: np.ndarray, risk: np.ndarray = risk, year: float = year) -> list[float]:
            result = brier_score(outcome.time[rows], outcome.state[rows], risk[rows], [year])
            return [float(result.score[0]), float(result.scaled[0])]

        everyone = np.arange(outcome.n)
        score, scaled = scores(everyone)
        row: dict[str, Any] = {"model": predictor.label, "year": year, "brier": score, "ipa": scaled}
        row["null"] = float(brier_score(outcome.time, outcome.state, risk, [year]).null[0])
        if settings.bootstraps:
            drawn = bootstrap(
                scores,
                outcome.n,
                names=("brier", "ipa"),
                n_boot=min(settings.bootstraps, _MOST_RESAMPLES),
                seed=settings.seed,
                confidence=settings.confidence,
            )
            for name, value in drawn.values.items():
                row |= {f"{name}_lower": value.lower, f"{name}_upper": value.upper}
        found.brier.append(row)


def _decision(
    found: Found,
    outcome: Outcome,
    predictors: Sequence[Predictor],
    years: Sequence[float],
    _center: np.ndarray,
    settings: AnalysisSettings,
) -> None:
    if settings.decision_years not in years:
        return
    risks = {
        p.label: risk for p, _, year, risk in _risks(predictors, years) if year == settings.decision_years
    }
    if risks:
        found.decision = decision_curve(
            outcome.time,
            outcome.state,
            risks,
            settings.decision_years,
            THRESHOLDS,
            n_boot=min(settings.bootstraps, _MOST_RESAMPLES),
            seed=settings.seed,
            confidence=settings.confidence,
        )


_POOLED: tuple[tuple[str, Scale], ...] = (("c", "logit"), ("oe", "log"), ("slope", "plain"))


def _centres(
    found: Found,
    outcome: Outcome,
    predictors: Sequence[Predictor],
    years: Sequence[float],
    center: np.ndarray,
    settings: AnalysisSettings,
) -> None:
    names = [str(c) for c in np.unique(center.astype(str)) if c]
    if len(names) < 2:
        return
    for predictor in predictors:
        rows = [_of_centre(outcome, predictor, years, center, name, settings) for name in names]
        found.centres += rows
        whole: dict[str, Any] = {}
        for name, scale in _POOLED:
            result = pooled(rows, (name, f"{name}_lower", f"{name}_upper"), scale, settings)
            if result is not None:
                whole |= {name: result.value, f"{name}_lower": result.lower, f"{name}_upper": result.upper}
                whole |= {f"{name}_i2": result.i2, f"{name}_k": result.k}
                whole |= {
                    f"{name}_next_lower": result.expected_low,
                    f"{name}_next_upper": result.expected_high,
                }
        if whole:
            found.centres.append({"model": predictor.label, "centre": "Pooled (random effects)", **whole})


def _of_centre(
    outcome: Outcome,
    predictor: Predictor,
    years: Sequence[float],
    center: np.ndarray,
    name: str,
    settings: AnalysisSettings,
) -> dict[str, Any]:
    own = np.flatnonzero(center == name)
    part = outcome.take(own)
    row: dict[str, Any] = {"model": predictor.label, "centre": name, "n": part.n, "events": part.n_events}
    if part.n_events < FEWEST_EVENTS:
        return row | {"reason": f"fewer than {FEWEST_EVENTS} events"}
    values: dict[str, Interval] = {}
    try:
        drawn = concordance(
            part.time,
            part.event,
            {"c": predictor.score[own]},
            n_boot=settings.bootstraps or 2,
            seed=settings.seed,
            confidence=settings.confidence,
        )
        values["c"] = drawn.values["c"]
        within = [k for k, year in enumerate(years) if year < part.time.max()]
        if predictor.risk is not None and within:
            row["year"] = years[within[-1]]
            chances = predictor.risk[own, within[-1]]
            result = calibration(
                part.time, part.state, chances, years[within[-1]], confidence=settings.confidence
            )
            values |= {"oe": result.observed_expected, "slope": result.slope}
    except NotEstimableError as error:
        row["reason"] = str(error)
    for key, value in values.items():
        row[key] = value.value
        if key != "c" or settings.bootstraps:
            row |= {f"{key}_lower": value.lower, f"{key}_upper": value.upper}
    return row


_Step = Callable[[Found, Outcome, Sequence[Predictor], Sequence[float], np.ndarray, AnalysisSettings], None]
_STEPS: dict[str, tuple[_Step, float]] = {
    "concordance": (_discrimination, 0.4),
    "calibration": (_calibration, 0.2),
    "Brier score": (_brier, 0.2),
    "decision curve": (_decision, 0.1),
    "centres": (_centres, 0.1),
}
"""Every kind of measure, with its share of the work, roughly."""
