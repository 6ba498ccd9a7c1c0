"""What a locked scheme or model is worth on other patients: nothing is fitted to them but the slope.

The groups of a scheme are judged by their ranks alone. A model also by its absolute risks: calibration, Brier
score, decision curve; and both in each centre, pooled by random effects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from aiene.risk.analyse.centres import Scale, pooled
from aiene.risk.analyse.cohort import Outcome
from aiene.risk.analyse.records import AnalysisSettings, ends, interval_cells, resampling
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
    """What is judged, on whom, and what was found.

    Parameters
    ----------
    outcome : of n patients.
    predictors : the first is what the others are compared with.
    years : (k,) horizons of the risks, all within the follow-up of these patients.
    center : (n,) names, empty where not known.
    discrimination, calibration, brier, centres : rows of each table.
    smooth : calibration by model and year; decision : net benefit.
    skipped : what could not be computed, and why.
    """

    outcome: Outcome
    predictors: Sequence[Predictor]
    years: Sequence[float]
    center: np.ndarray
    settings: AnalysisSettings
    discrimination: list[dict[str, Any]] = field(default_factory=list)
    calibration: list[dict[str, Any]] = field(default_factory=list)
    brier: list[dict[str, Any]] = field(default_factory=list)
    centres: list[dict[str, Any]] = field(default_factory=list)
    smooth: dict[tuple[str, float], Calibration] = field(default_factory=dict)
    decision: DecisionCurve | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)

    @property
    def risks(self) -> list[tuple[str, float, np.ndarray]]:
        """Label, year and risks (n,) of each model at each horizon."""
        return [
            (p.label, year, p.risk[:, place])
            for p in self.predictors
            if p.risk is not None
            for place, year in enumerate(self.years)
        ]

    def resampling(self, most: int) -> dict[str, Any]:
        """How the statistics resample that can do without: at `most` so many times, or not at all."""
        return resampling(self.settings) | {"n_boot": min(self.settings.bootstraps, most)}


def measured(
    outcome: Outcome,
    predictors: Sequence[Predictor],
    years: Sequence[float],
    center: np.ndarray,
    settings: AnalysisSettings,
) -> Found:
    """Every measure on the same n patients; see `Found`."""
    found = Found(outcome, predictors, years, center, settings)
    steps: tuple[tuple[str, Callable[[Found], None]], ...] = (
        ("concordance", _discrimination),
        ("calibration", _calibration),
        ("Brier score", _brier),
        ("decision curve", _decision),
        ("centres", _centres),
    )
    for what, step in steps:
        try:
            step(found)
        except NotEstimableError as error:
            found.skipped.append((what, str(error)))
    return found


def _discrimination(found: Found) -> None:
    outcome, years, settings = found.outcome, found.years, found.settings
    scores = {p.label: p.score for p in found.predictors}
    first, *others = scores
    kinds: list[tuple[Literal["harrell", "uno"], float | None]] = [("harrell", None)]
    kinds += [("uno", max(years))] if years else []
    for kind, tau in kinds:
        how: dict[str, Any] = {
            "compare": [(first, other) for other in others],
            "tau": tau,
            **resampling(settings),
        }
        result = concordance(outcome.time, outcome.event, scores, kind=kind, **how)
        gains = dict(zip(others, result.differences.values(), strict=True))
        for label, value in result.values.items():
            row = {"model": label, "kind": kind.capitalize(), "c": value.value, **ends(value, settings)}
            if label in gains:
                limits = ends(gains[label], settings)
                row |= {"delta": gains[label].value}
                row |= {key if key == "p" else f"delta_{key}": v for key, v in limits.items()}
            found.discrimination.append(row)


def _calibration(found: Found) -> None:
    outcome = found.outcome
    for label, year, risk in found.risks:
        result = calibration(outcome.time, outcome.state, risk, year, **found.resampling(100))
        found.smooth[label, year] = result
        row: dict[str, Any] = {"model": label, "year": year, "ici": result.ici}
        row |= {"predicted": result.mean_predicted, "observed": result.observed, "e90": result.e90}
        named = {"oe": result.observed_expected, "slope": result.slope, "large": result.in_the_large}
        named |= {} if result.ici_interval is None else {"ici": result.ici_interval}
        for name, value in named.items():
            row |= interval_cells(name, value)
        found.calibration.append(row)


def _brier(found: Found) -> None:
    outcome = found.outcome
    for label, year, risk in found.risks:

        def scores(rows: np.ndarray, risk: np.ndarray = risk, year: float = year) -> list[float]:
            result = brier_score(outcome.time[rows], outcome.state[rows], risk[rows], [year])
            return [float(result.score[0]), float(result.scaled[0])]

        score, scaled = scores(np.arange(outcome.n))
        row: dict[str, Any] = {"model": label, "year": year, "brier": score, "ipa": scaled}
        row["null"] = float(brier_score(outcome.time, outcome.state, risk, [year]).null[0])
        if found.settings.bootstraps:
            how = found.resampling(_MOST_RESAMPLES)
            drawn = bootstrap(scores, outcome.n, names=("brier", "ipa"), **how)
            for name, value in drawn.values.items():
                row |= {f"{name}_lower": value.lower, f"{name}_upper": value.upper}
        found.brier.append(row)


def _decision(found: Found) -> None:
    outcome, at = found.outcome, found.settings.decision_years
    risks = {label: risk for label, year, risk in found.risks if year == at}
    if risks:
        of = outcome.time, outcome.state, risks, at, THRESHOLDS
        found.decision = decision_curve(*of, **found.resampling(_MOST_RESAMPLES))


_POOLED: tuple[tuple[str, Scale], ...] = (("c", "logit"), ("oe", "log"), ("slope", "plain"))


def _centres(found: Found) -> None:
    names = [str(c) for c in np.unique(found.center.astype(str)) if c]
    if len(names) < 2:
        return
    for predictor in found.predictors:
        rows = [_of_centre(found, predictor, name) for name in names]
        found.centres += rows
        whole: dict[str, Any] = {}
        for name, scale in _POOLED:
            result = pooled(rows, (name, f"{name}_lower", f"{name}_upper"), scale, found.settings)
            if result is not None:
                whole |= interval_cells(name, result) | {f"{name}_i2": result.i2, f"{name}_k": result.k}
                whole |= {f"{name}_next_lower": result.expected_low}
                whole |= {f"{name}_next_upper": result.expected_high}
        if whole:
            found.centres.append({"model": predictor.label, "centre": "Pooled (random effects)", **whole})


def _of_centre(found: Found, predictor: Predictor, name: str) -> dict[str, Any]:
    settings, years = found.settings, found.years
    own = np.flatnonzero(found.center == name)
    part = found.outcome.take(own)
    row: dict[str, Any] = {"model": predictor.label, "centre": name, "n": part.n, "events": part.n_events}
    if part.n_events < FEWEST_EVENTS:
        return row | {"reason": f"fewer than {FEWEST_EVENTS} events"}
    values: dict[str, Interval] = {}
    try:
        drawn = concordance(part.time, part.event, {"c": predictor.score[own]}, **resampling(settings))
        values["c"] = drawn.values["c"]
        within = [k for k, year in enumerate(years) if year < part.time.max()]
        if predictor.risk is not None and within:
            row["year"] = years[within[-1]]
            of = part.time, part.state, predictor.risk[own, within[-1]], years[within[-1]]
            result = calibration(*of, confidence=settings.confidence)
            values |= {"oe": result.observed_expected, "slope": result.slope}
    except NotEstimableError as error:
        row["reason"] = str(error)
    for key, value in values.items():
        shown = key != "c" or settings.bootstraps
        row |= interval_cells(key, value) if shown else {key: value.value}
    return row
