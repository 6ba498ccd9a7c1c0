"""What a locked scheme or model is worth on other patients: nothing is fitted to them but the slope.

The groups of a scheme are judged by their ranks alone. A model also by its absolute risks: calibration, Brier
score, decision curve; and both in each centre, pooled by random effects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from aiene.parallel import Job, OnProgress, run_jobs
from aiene.report.document import Figure, Item, Table
from aiene.report.formatting import plain
from aiene.risk.analyse.charts.models import draw_centres, draw_decision, draw_smooth_calibration
from aiene.risk.analyse.cohort import Outcome
from aiene.risk.analyse.records import (
    THRESHOLDS,
    AnalysisSettings,
    ends,
    figure_of,
    interval_cells,
    resampling,
    table_of,
)
from aiene.stats.bootstrap import bootstrap
from aiene.stats.calibration import Calibration, calibration
from aiene.stats.centre_models import Scale, pooled
from aiene.stats.clinical_utility import DecisionCurve, decision_curve
from aiene.stats.concordance import concordance
from aiene.stats.records import Interval, NotEstimableError
from aiene.stats.time_dependent_accuracy import brier_score

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
    """Every measure on the same n patients; see `Found`."""
    of = outcome, predictors, years, center, settings
    each = settings.bootstraps * outcome.n * len(predictors) / _PATIENTS_A_UNIT
    jobs = [Job(what, _measure, (what, *of), each * share) for what, (_, share) in _STEPS.items()]
    found = Found(*of)
    for part in run_jobs(jobs, workers=settings.jobs, on_progress=on_progress):
        found.add(part)
    return found


def _measure(what: str, *of: Any) -> Found:
    """One kind of measure, or why it could not be computed."""
    found = Found(*of)
    try:
        _STEPS[what][0](found)
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
            result = pooled(rows, (name, f"{name}_lower", f"{name}_upper"), scale, found.settings.confidence)
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
    row: dict[str, Any] = {"model": predictor.label, "centre": name, **part.counts}
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


_STEPS: dict[str, tuple[Callable[[Found], None], float]] = {
    "concordance": (_discrimination, 0.4),
    "calibration": (_calibration, 0.2),
    "Brier score": (_brier, 0.2),
    "decision curve": (_decision, 0.1),
    "centres": (_centres, 0.1),
}
"""Every kind of measure, with its share of the work, roughly."""


# Tables and figures


def discrimination_table(found: Found) -> Table:
    """C of each model, and its difference to the first."""
    settings = found.settings
    resampled = (
        f"{settings.confidence:.0%} percentile intervals, {settings.bootstraps} resamples of patients."
    )
    told = resampled if settings.bootstraps else "Without resamples there are no intervals."
    return table_of("discrimination", found.discrimination, resampled=told)


def calibration_items(found: Found) -> tuple[Item, ...]:
    """The figure of smooth curves, and the table; nothing for a scheme."""
    if not found.calibration:
        return ()
    resamples = min(found.settings.bootstraps, 100)
    table = table_of("validated_calibration", found.calibration, resamples=resamples)
    return _calibration_figure(found), table


def _calibration_figure(found: Found) -> Figure:
    panels: list[dict[str, Any]] = []
    data: dict[str, list[Any]] = {k: [] for k in ("model", "year", "predicted", "observed")}
    for year in sorted({year for _, year in found.smooth}):
        models: list[dict[str, Any]] = []
        top = 0.05
        for (label, at), result in found.smooth.items():
            if at != year:
                continue
            predicted, observed = result.curve
            within = np.unique(np.linspace(0, predicted.size - 1, 200).astype(int))
            seen = [
                r.observed for r in result.rows if np.isfinite(r.observed)
            ]  # some are not followed so far
            top = max(top, float(np.quantile(predicted, 0.99)), *seen)
            keys = {"predicted": "predicted", "observed": "observed", "low": "lower", "high": "upper"}
            groups = {key: plain([getattr(r, name) for r in result.rows]) for key, name in keys.items()}
            curve = plain(predicted[within]), plain(observed[within])
            models.append({"label": label, "predicted": predicted, "curve": curve, "groups": groups})
            for key, column in zip(data, ([label] * within.size, [year] * within.size, *curve), strict=True):
                data[key] += column
        top = min(1.0, 1.1 * top)
        for model in models:
            own = model.pop("predicted")
            shares, edges = np.histogram(own, bins=40, range=(0, top))
            model["spread"] = (plain(edges), plain(shares / own.size))
        panels.append({"title": f"{year:g} years", "models": models, "top": top})
    content, wide = {"panels": panels}, len(panels) > 1
    return figure_of("validated_calibration", draw_smooth_calibration, content, data, wide=wide, found=found)


def decision_items(found: Found) -> tuple[Figure, ...]:
    """Net benefit of each model against acting on all and on none; nothing for a scheme."""
    curve, settings = found.decision, found.settings
    if curve is None:
        return ()
    models = {label: plain(c.net_benefit) for label, c in curve.curves.items()}
    useful = [k for k in range(len(THRESHOLDS)) if any(abs(v[k] or 0) > 1e-3 for v in models.values())]
    end = max(useful, default=len(THRESHOLDS) - 1) + 1
    lines: list[dict[str, Any]] = []
    for number, (label, values) in enumerate(models.items()):
        line: dict[str, Any] = {"label": label, "look": number, "value": values[:end]}
        if number == len(models) - 1 and settings.bootstraps:
            own = curve.curves[label]
            line |= {"low": plain(own.lower)[:end], "high": plain(own.upper)[:end]}
        lines.append(line)
    everybody = plain(curve.treat_all)
    lines.append({"label": "Treat all", "look": 4, "value": everybody[:end]})
    lines.append({"label": "Treat none", "look": 3, "value": [0.0] * end})
    high = max([0.02, *(v for values in models.values() for v in values[:end] if v is not None)])
    data: dict[str, list[Any]] = {"model": [], "threshold": [], "benefit": []}
    for label, values in [*models.items(), ("Treat all", everybody)]:
        data["model"] += [label] * len(THRESHOLDS)
        data["threshold"] += list(THRESHOLDS)
        data["benefit"] += values
    shaded = f" Shaded: {settings.confidence:.0%} interval of the last model." if settings.bootstraps else ""
    content = {
        "threshold": list(THRESHOLDS)[:end],
        "lines": lines,
        "y_low": -0.15 * high,
        "y_high": 1.12 * high,
        "x_label": f"Threshold risk at {settings.decision_years:g} years",
    }
    return (figure_of("validated_decision", draw_decision, content, data, found=found, shaded=shaded),)


_CENTRE_MEASURES = (
    {"key": "c", "title": "C", "ideal": None, "log": False},
    {"key": "oe", "title": "Observed/expected", "ideal": 1.0, "log": True},
    {"key": "slope", "title": "Slope", "ideal": 1.0, "log": False},
)


def centre_items(found: Found) -> tuple[Item, ...]:
    """A figure and a table of the centres with the pooled values; nothing with one centre."""
    if not found.centres:
        return ()
    last = found.centres[-1]["model"]
    rows = [r for r in found.centres if r["model"] == last]
    measures = [m for m in _CENTRE_MEASURES if any(r.get(str(m["key"])) is not None for r in rows)]
    shown = [
        {
            "label": r["centre"] + (f" (n = {r['n']}, events = {r['events']})" if "n" in r else ""),
            "pooled": "n" not in r,
            **{str(m["key"]): _triple(r, str(m["key"])) for m in measures},
        }
        for r in rows
    ]
    data = {"centre": [r["label"] for r in shown]} | {
        f"{m['key']}_{part}": [r[str(m["key"])][place] for r in shown]
        for m in measures
        for place, part in enumerate(("value", "lower", "upper"))
    }
    table = table_of("centres", found.centres)
    if not measures:
        return (table,)
    content = {"rows": shown, "measures": measures}
    return figure_of("centres", draw_centres, content, data, wide=True, found=found, last=last), table


def _triple(row: dict[str, Any], key: str) -> tuple[Any, ...]:
    return tuple(plain(row.get(k)) for k in (key, f"{key}_lower", f"{key}_upper"))
