"""Does the count add anything: the numbers of one contest, each on the same patients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from aiene.risk.analyse.centres import left_out
from aiene.risk.analyse.contest import Contest, Predictions, predict, varying
from aiene.risk.analyse.gains import Added, ends, reached, resamples
from aiene.risk.analyse.moved import reclassified, separation
from aiene.risk.analyse.record import Skipped
from aiene.risk.analyse.refit import Refit, names_of, values_of
from aiene.risk.analyse.settings import AnalysisSettings
from aiene.risk.stats import (
    Interval,
    NotEstimableError,
    calibration,
    concordance,
    decision_curve,
    integrated_brier,
    nested_lrt,
    optimism,
    time_dependent_aucs,
)

GRID = 20
"""Points in time of the integrated Brier score."""
THRESHOLDS = tuple(round(0.01 * i, 2) for i in range(1, 51))
"""Threshold risks of the decision curve."""


def assess(contest: Contest, settings: AnalysisSettings) -> Added:
    """Every comparison of one contest; a part that cannot be computed leaves its reason."""
    added = Added()
    head = {"population": contest.population, "comparison": contest.title, "contest": contest.name}
    try:
        found = predict(contest, sorted({*reached(contest, settings.every_year), *_grid(contest, settings)}))
    except NotEstimableError as error:
        added.put("lrt", head, reason=str(error))
        added.skipped.append(Skipped(_what(contest, "models"), str(error)))
        return added
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("likelihood-ratio test", lambda: _lrt(contest, found, head, added)),
        ("concordance", lambda: _concordance(contest, found, head, added, settings)),
        ("optimism", lambda: _optimism(contest, head, added, settings)),
        ("leaving one centre out", lambda: left_out(contest, head, added, settings)),
        ("AUC", lambda: _auc(contest, found, head, added, settings)),
        ("Brier score", lambda: _brier(contest, found, head, added, settings)),
        ("calibration", lambda: _calibration(contest, found, head, added, settings)),
        ("decision curve", lambda: _decision(contest, found, head, added, settings)),
        ("reclassification", lambda: reclassified(contest, head, added, settings)),
        ("separation", lambda: separation(contest, head, added, settings)),
    )
    for name, step in steps:
        try:
            step()
        except NotEstimableError as error:
            added.skipped.append(Skipped(_what(contest, name), str(error)))
    return added


def _what(contest: Contest, part: str) -> str:
    return f"{contest.outcome.label}, {contest.population}, {contest.title}: {part}"


def _lrt(contest: Contest, found: Predictions, head: dict[str, Any], added: Added) -> None:
    outcome = contest.outcome
    counted = {"n": outcome.n, "events": outcome.n_events}
    larger = found.fits["new"]
    if "old" in found.fits:
        test = nested_lrt(found.fits["old"], larger)
        values: tuple[Any, ...] = (test.statistic, test.df, test.p, test.aic_smaller, test.aic_larger)
    else:
        values = (larger.lrt, larger.lrt_df, larger.lrt_p, None, larger.aic)
    marker = next(r for r in larger.rows if r.name == "n_ai_ene")
    named = dict(zip(("statistic", "df", "p", "aic_old", "aic_new"), values, strict=True))
    added.put(
        "lrt",
        head,
        **counted,
        **named,
        reason=contest.note,
        hr=marker.hr,
        lower=marker.lower,
        upper=marker.upper,
        method=larger.method,
    )


def _pairs(contest: Contest) -> list[tuple[str, str]]:
    return [("old", m.name) for m in contest.models[1:]]


def _label(contest: Contest, name: str) -> str:
    return next(m.label for m in contest.models if m.name == name)


def _concordance(
    contest: Contest, found: Predictions, head: dict[str, Any], added: Added, settings: AnalysisSettings
) -> None:
    outcome = contest.outcome
    tau = max(reached(contest, settings.horizons), default=None)
    for kind, limit in (("harrell", None), ("uno", tau)):
        result = concordance(
            outcome.time,
            outcome.event,
            found.risk,
            compare=_pairs(contest),
            kind=kind,  # type: ignore[arg-type]
            tau=limit,
            n_boot=resamples(settings),
            seed=settings.seed,
            confidence=settings.confidence,
        )
        for name, value in result.values.items():
            row = {"model": _label(contest, name), "kind": _KINDS[kind], "key": name}
            added.put("c", head, **row, c=value.value, **ends(value, settings), tau=limit)
        for pair, difference in zip(_pairs(contest), result.differences.values(), strict=True):
            row = {"model": _label(contest, pair[1]), "kind": _KINDS[kind], "key": pair[1]}
            added.put("delta", head, **row, delta=difference.value, **ends(difference, settings))


_KINDS = {"harrell": "Harrell", "uno": "Uno"}


def _optimism(contest: Contest, head: dict[str, Any], added: Added, settings: AnalysisSettings) -> None:
    """C and calibration slope of each model and the difference in C, corrected for being fitted here."""
    if not settings.bootstraps:
        return
    outcome = contest.outcome
    everybody = np.arange(outcome.n)
    arrays = {
        m.name: varying(m.matrix).to_numpy(dtype=float) for m in contest.models if varying(m.matrix).shape[1]
    }
    refit = Refit(outcome.time, outcome.event, arrays)
    compared = [p for p in _pairs(contest) if p[0] in arrays and p[1] in arrays]

    def score(betas: dict[str, np.ndarray], rows: np.ndarray) -> list[float]:
        return values_of(refit, betas, None if np.array_equal(rows, everybody) else rows, compared)

    result = optimism(
        lambda rows, _: refit.fit(rows),
        score,
        outcome.n,
        names=names_of(list(arrays), compared),
        n_boot=settings.bootstraps,
        seed=settings.seed,
    )
    for row in result.rows:
        measure, name = row.name.split(" ", 1)
        added.put(
            "optimism",
            head,
            measure={"c": "C (Harrell)", "slope": "Calibration slope", "delta": "Difference in C to old"}[
                measure
            ],
            model=_label(contest, name),
            key=row.name,
            apparent=row.apparent,
            optimism=row.optimism,
            corrected=row.corrected,
            failed=result.n_failed,
        )


def _auc(
    contest: Contest, found: Predictions, head: dict[str, Any], added: Added, settings: AnalysisSettings
) -> None:
    outcome = contest.outcome
    years = reached(contest, settings.horizons)
    if not years:
        return
    result = time_dependent_aucs(
        outcome.time,
        outcome.state,
        found.risk,
        years,
        compare=_pairs(contest),
        n_boot=resamples(settings),
        seed=settings.seed,
    )
    for name, values in result.values.items():
        for year, value in zip(years, values, strict=True):
            row = {"model": _label(contest, name), "key": name, "year": year}
            added.put("auc", head, **row, auc=value.value, **ends(value, settings))
    for pair, gains in zip(_pairs(contest), result.differences.values(), strict=True):
        for year, d in zip(years, gains, strict=True):
            row = {
                "model": f"{_label(contest, pair[1])} - {contest.old.label}",
                "key": f"delta {pair[1]}",
                "year": year,
            }
            added.put("auc", head, **row, auc=d.value, **ends(d, settings))


def _grid(contest: Contest, settings: AnalysisSettings) -> tuple[float, ...]:
    end = max(reached(contest, settings.horizons), default=0.0)
    return tuple(np.linspace(end / GRID, end, GRID).tolist()) if end else ()


def _brier(
    contest: Contest, found: Predictions, head: dict[str, Any], added: Added, settings: AnalysisSettings
) -> None:
    outcome, times = contest.outcome, _grid(contest, settings)
    if not times:
        return
    absolute = found.by(times)
    for model in contest.models:
        score = integrated_brier(outcome.time, outcome.state, absolute[model.name], times)
        added.put(
            "brier",
            head,
            model=model.label,
            key=model.name,
            ibs=score.value,
            null=score.null,
            scaled=score.scaled,
            start=score.start,
            end=score.end,
        )


def _calibration(
    contest: Contest,
    found: Predictions,
    head: dict[str, Any],
    added: Added,
    settings: AnalysisSettings,
) -> None:
    outcome = contest.outcome
    for year in reached(contest, settings.calibration_years):
        absolute = found.by([year])
        for model in contest.models:
            row = {"model": model.label, "key": model.name, "year": year}
            result = calibration(outcome.time, outcome.state, absolute[model.name][:, 0], year)
            added.put(
                "calibration",
                head,
                **row,
                predicted=result.mean_predicted,
                observed=result.observed,
                slope=result.slope.value,
                slope_lower=result.slope.lower,
                slope_upper=result.slope.upper,
                oe=result.observed_expected.value,
                oe_lower=result.observed_expected.lower,
                oe_upper=result.observed_expected.upper,
                ici=result.ici,
                e90=result.e90,
            )
            for r in result.rows:
                added.put(
                    "calibration_groups",
                    head,
                    **row,
                    n=r.n,
                    events=r.events,
                    predicted=r.predicted,
                    observed=r.observed,
                    lower=r.lower,
                    upper=r.upper,
                )


def _decision(
    contest: Contest,
    found: Predictions,
    head: dict[str, Any],
    added: Added,
    settings: AnalysisSettings,
) -> None:
    outcome, year = contest.outcome, settings.decision_years
    if year not in found.horizons:
        return
    absolute = found.by([year])
    result = decision_curve(
        outcome.time,
        outcome.state,
        {m.name: absolute[m.name][:, 0] for m in contest.models},
        year,
        THRESHOLDS,
        n_boot=min(resamples(settings), 500),
        seed=settings.seed,
    )
    for number, threshold in enumerate(THRESHOLDS):
        added.put(
            "decision",
            head,
            model="Treat all",
            key="all",
            threshold=threshold,
            benefit=result.treat_all[number],
        )
        for model in contest.models:
            curve = result.curves[model.name]
            added.put(
                "decision",
                head,
                model=model.label,
                key=model.name,
                threshold=threshold,
                benefit=curve.net_benefit[number],
                **ends(Interval(0.0, curve.lower[number], curve.upper[number]), settings),
            )
