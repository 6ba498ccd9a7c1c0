"""Incremental value of the node count: every number of one comparison of models, on the same patients.

With three centres or more that have 20 events each, also internal-external validation: each centre evaluates
models that were fitted without it (Steyerberg and Harrell 2016, J Clin Epidemiol 69:245).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from aiene.risk.analyse.bootstrap_refit import Refit, measures, values_of
from aiene.risk.analyse.centres import pooled, validation_centres
from aiene.risk.analyse.model_comparison import (
    RELEARNED,
    Added,
    ModelComparison,
    Predictions,
    compared,
    ends,
    matrices_without,
    predict,
    reached,
    resamples,
    scores,
    varying,
)
from aiene.risk.analyse.records import AnalysisSettings, Skipped
from aiene.stats.calibration import calibration
from aiene.stats.concordance import concordance
from aiene.stats.cox_model import fit_cox, nested_lrt
from aiene.stats.decision_curve import decision_curve
from aiene.stats.internal_validation import optimism
from aiene.stats.reclassification import groome, reclassification
from aiene.stats.records import Difference, Interval, NotEstimableError
from aiene.stats.sample_size import MIN_EVENTS_PER_PARAMETER
from aiene.stats.tests import log_rank
from aiene.stats.time_dependent_accuracy import compared_brier, integrated_brier, time_dependent_aucs

GRID = 20
"""Points in time of the integrated Brier score."""

THRESHOLDS = tuple(round(0.01 * i, 2) for i in range(1, 51))
"""Threshold risks of the decision curve."""

_KINDS = {"harrell": "Harrell", "uno": "Uno"}


@dataclass(frozen=True)
class _Work:
    """A comparison while it is assessed, and where its rows go.

    Parameters
    ----------
    head : the columns that every row begins with.
    found : the predictions of its models.
    added : where rows go.
    """

    comparison: ModelComparison
    settings: AnalysisSettings
    head: dict[str, Any]
    found: Predictions
    added: Added

    def put(self, table: str, **values: Any) -> None:
        """Add a row to a table."""
        self.added.put(table, self.head, **values)

    def reached(self, years: Sequence[float]) -> tuple[float, ...]:
        """The horizons that the follow-up reaches."""
        return reached(self.comparison, years)

    def ends(self, value: Interval | Difference) -> dict[str, Any]:
        """Ends of an interval, and p of a difference."""
        return ends(value, self.settings)

    def label(self, name: str) -> str:
        """What a reader calls a score."""
        if name == RELEARNED:
            return f"{self.comparison.old.label}, order learned here"
        return next(m.label for m in self.comparison.models if m.name == name)

    def resampling(self, most: int | None = None) -> dict[str, Any]:
        """How the statistics resample; at `most` so many times."""
        times = resamples(self.settings)
        times = times if most is None else min(times, most)
        return {"n_boot": times, "seed": self.settings.seed, "confidence": self.settings.confidence}


def internal_external_validation(
    comparison: ModelComparison, head: dict[str, Any], added: Added, settings: AnalysisSettings
) -> None:
    """C of each model in each centre, and the difference to the old one, fitted on the other centres."""
    outcome = comparison.outcome
    for centre in validation_centres(comparison.center, outcome.event):
        held = comparison.center == centre
        row = head | {"centre": centre, "n": int(held.sum()), "events": int(outcome.event[held].sum())}
        try:
            _validate(comparison, held, row, added, settings)
        except NotEstimableError as error:
            added.put("centres", row, reason=str(error))
    rows = added.rows.get("centres", [])
    for model in comparison.models:
        own = [r for r in rows if r.get("key") == model.name]
        c = pooled(own, ("c", "lower", "upper"), "logit", settings)
        if c is None:
            continue
        values = {"c": c.value, "lower": c.lower, "upper": c.upper, "i2": c.i2}
        gain = pooled(own, ("delta", "delta_lower", "delta_upper"), "plain", settings)
        if gain is not None:
            values |= {"delta": gain.value, "delta_lower": gain.lower, "delta_upper": gain.upper}
            values |= {"delta_i2": gain.i2}
        label = f"pooled over {c.k} (random effects)"
        added.put("centres", head | {"centre": label}, model=model.label, key=model.name, **values)


def _validate(
    comparison: ModelComparison,
    held: np.ndarray,
    row: dict[str, Any],
    added: Added,
    settings: AnalysisSettings,
) -> None:
    time, event = comparison.outcome.time, comparison.outcome.event
    matrices = matrices_without(comparison, held)
    fitted = {m.name: _risk(matrices[m.name], time, event, held) for m in comparison.models}
    risks: dict[str, np.ndarray] = {}
    for model in comparison.models:
        inside = model if model.ranks is None else replace(model, ranks=model.ranks[held])
        risks |= scores(inside, fitted[model.name])
    pairs = compared(risks)
    result = concordance(
        time[held],
        event[held],
        risks,
        compare=pairs,
        n_boot=resamples(settings),
        seed=settings.seed,
        confidence=settings.confidence,
    )
    gains = dict(zip((new for _, new in pairs), result.differences.values(), strict=True))
    for model in comparison.models:
        values: dict[str, Any] = {"c": result.values[model.name].value}
        values |= ends(result.values[model.name], settings)
        values["slope"] = _slope(time[held], event[held], fitted[model.name])
        if model.name in gains:
            gain = gains[model.name]
            values |= {"delta": gain.value}
            values |= {f"delta_{k}": v for k, v in ends(gain, settings).items()}
        added.put("centres", row, model=model.label, key=model.name, **values)


def _risk(matrix: pd.DataFrame, time: np.ndarray, event: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Linear predictor of the patients of one centre by a model of all others."""
    learn = varying(matrix.loc[~held])
    if not learn.shape[1]:
        return np.zeros(int(held.sum()))
    model = fit_cox(time[~held], event[~held], learn.to_numpy(dtype=float))
    if not model.converged:
        raise NotEstimableError("the model of the other centres did not converge", "merge sparse levels")
    return np.asarray(model.risk(matrix.loc[held, list(learn.columns)].to_numpy(dtype=float)))


def _slope(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> float | None:
    """Cox's coefficient of the linear predictor: 1 where the effects hold, less where they are too strong."""
    if not risk.std() > 0:
        return None
    model = fit_cox(time, event, risk[:, None])
    return float(model.beta[0]) if model.converged else None


# Reclassification between old and combined groups


def _reclassified(work: _Work) -> None:
    """Old groups against combined ones on one ordered scale, where both have the same number of groups."""
    comparison, settings = work.comparison, work.settings
    outcome = comparison.outcome
    if not comparison.ranks_old.size or settings.decision_years not in work.reached(
        (settings.decision_years,)
    ):
        return
    levels = [f"group {i + 1}" for i in range(len(comparison.levels_new))]
    old_name, new_name = (
        dict(zip(levels, names, strict=True)) for names in (_named(comparison), comparison.levels_new)
    )
    old = np.array([levels[r] for r in comparison.ranks_old], dtype=object)
    new = np.array([levels[r] for r in comparison.ranks_new], dtype=object)
    result = reclassification(
        outcome.time,
        outcome.state,
        old,
        new,
        levels=levels,
        horizon=settings.decision_years,
        **work.resampling(500),
    )
    for cell in result.cells:
        work.put(
            "reclassified",
            old=old_name[cell.old],
            new=new_name[cell.new],
            n=cell.n,
            risk=cell.risk,
            lower=cell.lower,
            upper=cell.upper,
        )
    work.put(
        "nri",
        n=result.n,
        up=result.up,
        down=result.down,
        **_part("event", result.event_part, settings),
        **_part("non_event", result.non_event_part, settings),
        **_part("nri", result.nri, settings),
    )


def _named(comparison: ModelComparison) -> tuple[str, ...]:
    """Names of the old groups on the scale of the combined ones, which may have more."""
    own = comparison.levels_old
    return own if len(own) == len(comparison.levels_new) else comparison.levels_new


def _part(name: str, interval: Interval, settings: AnalysisSettings) -> dict[str, Any]:
    limits = ends(interval, settings)
    return {name: interval.value, f"{name}_lower": limits.get("lower"), f"{name}_upper": limits.get("upper")}


def _separation(work: _Work) -> None:
    """Groome's criteria of the old and the combined groups."""
    comparison, settings = work.comparison, work.settings
    outcome, horizon = comparison.outcome, settings.decision_years
    if not comparison.ranks_old.size or comparison.groups is None or horizon not in work.reached((horizon,)):
        return
    for model, ranks in ((comparison.old, comparison.ranks_old), (comparison.groups, comparison.ranks_new)):
        order = [int(r) for r in np.unique(ranks)]
        if len(order) < 2:
            continue
        g = groome(
            outcome.time, outcome.event, ranks, order=order, horizon=horizon, subgroups=comparison.cells
        )
        work.put(
            "separation",
            model=model.label,
            consistency=g.consistency,
            discrimination=g.discrimination,
            balance=g.balance,
            explained=g.explained,
        )


def assess(comparison: ModelComparison, settings: AnalysisSettings) -> Added:
    """Every number of one comparison; a part that cannot be computed leaves its reason."""
    added = Added()
    head = {"population": comparison.population, "comparison": comparison.title, "contest": comparison.name}
    try:
        found = predict(
            comparison,
            sorted({*reached(comparison, settings.every_year), *_grid(comparison, settings)}),
            confidence=settings.confidence,
        )
    except NotEstimableError as error:
        added.put("lrt", head, reason=str(error))
        added.skipped.append(Skipped(_what(comparison, "models"), str(error)))
        return added
    work = _Work(comparison, settings, head, found, added)
    steps: tuple[tuple[str, Callable[[_Work], None]], ...] = (
        ("likelihood-ratio test", _lrt),
        ("order of the groups", _order),
        ("concordance", _concordance),
        ("optimism", _optimism),
        ("leaving one centre out", lambda _: internal_external_validation(comparison, head, added, settings)),
        ("AUC", _auc),
        ("Brier score", _brier),
        ("calibration", _calibration),
        ("decision curve", _decision),
        ("reclassification", _reclassified),
        ("separation", _separation),
    )
    for name, step in steps:
        try:
            step(work)
        except NotEstimableError as error:
            added.skipped.append(Skipped(_what(comparison, name), str(error)))
    return added


def _what(comparison: ModelComparison, part: str) -> str:
    return f"{comparison.outcome.label}, {comparison.population}, {comparison.title}: {part}"


def _lrt(work: _Work) -> None:
    comparison, found = work.comparison, work.found
    outcome = comparison.outcome
    counted = {"n": outcome.n, "events": outcome.n_events}
    larger = found.fits["new"]
    if "old" in found.fits:
        test = nested_lrt(found.fits["old"], larger)
        values: tuple[Any, ...] = (test.statistic, test.df, test.p, test.aic_smaller, test.aic_larger)
    else:
        values = (larger.lrt, larger.lrt_df, larger.lrt_p, None, larger.aic)
    marker = next(r for r in larger.rows if r.name == "n_ai_ene")
    named = dict(zip(("statistic", "df", "p", "aic_old", "aic_new"), values, strict=True))
    work.put(
        "lrt",
        **counted,
        **named,
        reason=comparison.note,
        hr=marker.hr,
        lower=marker.lower,
        upper=marker.upper,
        method=larger.method,
    )


def _order(work: _Work) -> None:
    """Whether the hazard rises with the groups as they are ordered: events over those expected (log-rank)."""
    comparison = work.comparison
    outcome = comparison.outcome
    for model in comparison.models:
        if model.ranks is None or np.unique(model.ranks).size < 2:
            continue
        labels = np.array([model.groups[rank] for rank in model.ranks], dtype=object)
        rows = log_rank(outcome.time, outcome.event, labels, order=model.groups).rows
        ratios = [row.observed / row.expected for row in rows]
        wrong = [
            f"{rows[place + 1].group} is below {rows[place].group}"
            for place in range(len(rows) - 1)
            if ratios[place + 1] < ratios[place]
        ]
        work.put(
            "order",
            model=model.label,
            key=model.name,
            ratios=", ".join(f"{row.group} {ratio:.2f}" for row, ratio in zip(rows, ratios, strict=True)),
            holds=not wrong,
            verdict="holds" if not wrong else f"does not hold: {'; '.join(wrong)}",
        )


def _concordance(work: _Work) -> None:
    comparison, settings, found = work.comparison, work.settings, work.found
    outcome = comparison.outcome
    tau = max(work.reached(settings.horizons), default=None)
    for kind, limit in (("harrell", None), ("uno", tau)):
        result = concordance(
            outcome.time,
            outcome.event,
            found.risk,
            compare=found.pairs,
            kind=kind,  # type: ignore[arg-type]
            tau=limit,
            **work.resampling(),
        )
        for name, value in result.values.items():
            row = {"model": work.label(name), "kind": _KINDS[kind], "key": name}
            work.put("c", **row, c=value.value, **work.ends(value), tau=limit)
        for pair, difference in zip(found.pairs, result.differences.values(), strict=True):
            row = {"model": work.label(pair[1]), "kind": _KINDS[kind], "key": pair[1]}
            row["against"] = work.label(pair[0])
            work.put("delta", **row, delta=difference.value, **work.ends(difference))


def _optimism(work: _Work) -> None:
    """C and calibration slope of each model and the difference in C, corrected for being fitted here.

    Ordered groups are not among them: nothing of their C is fitted. Neither are slopes of one covariate,
    which its coefficient alone moves.
    """
    comparison, settings = work.comparison, work.settings
    if not settings.bootstraps:
        return
    outcome = comparison.outcome
    everybody = np.arange(outcome.n)
    arrays = {
        m.name: varying(m.matrix).to_numpy(dtype=float)
        for m in (comparison.old, comparison.new)
        if varying(m.matrix).shape[1]
    }
    refit = Refit(outcome.time, outcome.event, arrays)
    pairs = [("old", "new")] if len(arrays) == 2 else []
    given = {"old"} if comparison.old.ranks is not None else set()
    sloped = [name for name, x in arrays.items() if name not in given and x.shape[1] > 1]
    named = measures(list(arrays), sloped, pairs)

    def score(betas: dict[str, np.ndarray], rows: np.ndarray) -> list[float]:
        return values_of(refit, betas, None if np.array_equal(rows, everybody) else rows, sloped, pairs)

    result = optimism(
        lambda rows, _: refit.fit(rows),
        score,
        outcome.n,
        names=[f"{measure} {name}" for measure, name in named],
        n_boot=settings.bootstraps,
        seed=settings.seed,
        confidence=settings.confidence,
    )
    for (measure, name), row in zip(named, result.rows, strict=True):
        if measure == "c" and name in given:
            continue
        work.put(
            "optimism",
            measure={"c": "C (Harrell)", "slope": "Calibration slope", "delta": "Difference in C to old"}[
                measure
            ],
            model=work.label(name),
            key=row.name,
            apparent=row.apparent,
            optimism=row.optimism,
            corrected=row.corrected,
            lower=row.lower,
            upper=row.upper,
            remark=_small_sample(outcome.n_events, arrays),
            failed=result.n_failed,
        )


def _small_sample(events: int, arrays: Mapping[str, np.ndarray]) -> str:
    """What a reader must know where the events are few for the parameters."""
    most = max(x.shape[1] for x in arrays.values())
    if events >= MIN_EVENTS_PER_PARAMETER * most:
        return ""
    return f"{events / most:.1f} events per parameter: C can stay near 0.53 where nothing predicts"


def _auc(work: _Work) -> None:
    comparison, settings, found = work.comparison, work.settings, work.found
    outcome = comparison.outcome
    years = work.reached(settings.horizons)
    if not years:
        return
    result = time_dependent_aucs(
        outcome.time, outcome.state, found.risk, years, compare=found.pairs, **work.resampling()
    )
    for name, values in result.values.items():
        for year, value in zip(years, values, strict=True):
            row = {"model": work.label(name), "key": name, "year": year}
            work.put("auc", **row, auc=value.value, **work.ends(value))
    for pair, gains in zip(found.pairs, result.differences.values(), strict=True):
        for year, d in zip(years, gains, strict=True):
            row = {
                "model": f"{work.label(pair[1])} - {work.label(pair[0])}",
                "key": f"delta {pair[1]}",
                "year": year,
            }
            work.put("auc", **row, auc=d.value, **work.ends(d))


def _grid(comparison: ModelComparison, settings: AnalysisSettings) -> tuple[float, ...]:
    end = max(reached(comparison, settings.horizons), default=0.0)
    return tuple(np.linspace(end / GRID, end, GRID).tolist()) if end else ()


def _brier(work: _Work) -> None:
    comparison, settings, found = work.comparison, work.settings, work.found
    outcome, times = comparison.outcome, _grid(comparison, settings)
    if not times:
        return
    absolute = found.by(times)
    for model in comparison.models:
        score = integrated_brier(outcome.time, outcome.state, absolute[model.name], times)
        work.put(
            "brier",
            model=model.label,
            key=model.name,
            ibs=score.value,
            null=score.null,
            scaled=score.scaled,
            start=score.start,
            end=score.end,
        )
    year = settings.decision_years
    if year not in found.horizons:
        return
    risks = {model.name: found.by([year])[model.name][:, 0] for model in comparison.models}
    others = [(comparison.old.name, name) for name in risks if name != comparison.old.name]
    of = outcome.time, outcome.state, risks, year, others
    scores_at, gaps = compared_brier(*of, confidence=settings.confidence)
    for model in comparison.models:
        at = scores_at[model.name]
        row: dict[str, Any] = {"model": model.label, "key": model.name, "year": year}
        row |= {"score": at.value, "lower": at.lower, "upper": at.upper}
        gap = gaps.get((comparison.old.name, model.name))
        if gap is not None:
            row |= {"gap": gap.value, "gap_lower": gap.lower, "gap_upper": gap.upper, "p": gap.p}
        work.put("brier_at", **row)


def _calibration(work: _Work) -> None:
    comparison, settings, found = work.comparison, work.settings, work.found
    outcome = comparison.outcome
    for year in work.reached(settings.calibration_years):
        absolute = found.by([year])
        for model in (
            m for m in comparison.models if m.ranks is None
        ):  # of groups it is zero by construction
            row = {"model": model.label, "key": model.name, "year": year}
            result = calibration(
                outcome.time, outcome.state, absolute[model.name][:, 0], year, confidence=settings.confidence
            )
            work.put(
                "calibration",
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
                work.put(
                    "calibration_groups",
                    **row,
                    n=r.n,
                    events=r.events,
                    predicted=r.predicted,
                    observed=r.observed,
                    lower=r.lower,
                    upper=r.upper,
                )


def _decision(work: _Work) -> None:
    comparison, settings, found = work.comparison, work.settings, work.found
    outcome, year = comparison.outcome, settings.decision_years
    if year not in found.horizons:
        return
    absolute = found.by([year])
    result = decision_curve(
        outcome.time,
        outcome.state,
        {m.name: absolute[m.name][:, 0] for m in comparison.models},
        year,
        THRESHOLDS,
        **work.resampling(500),
    )
    for number, threshold in enumerate(THRESHOLDS):
        work.put(
            "decision", model="Treat all", key="all", threshold=threshold, benefit=result.treat_all[number]
        )
        for model in comparison.models:
            curve = result.curves[model.name]
            work.put(
                "decision",
                model=model.label,
                key=model.name,
                threshold=threshold,
                benefit=curve.net_benefit[number],
                **work.ends(Interval(0.0, curve.lower[number], curve.upper[number])),
            )
