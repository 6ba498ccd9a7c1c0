"""Incremental value of the node count: every number of a comparison of models on the same patients; tables.

With three centres or more that have 20 events each, also internal-external validation: each centre evaluates
models that were fitted without it (Steyerberg and Harrell 2016, J Clin Epidemiol 69:245).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd

from aiene.report.document import Figure, Item
from aiene.report.formatting import plain_rows
from aiene.risk.analyse.bootstrap_refit import Refit, measures, values_of
from aiene.risk.analyse.charts.models import draw_auc, draw_calibration, draw_decision
from aiene.risk.analyse.cohort import LABELS, Outcome
from aiene.risk.analyse.design import varying
from aiene.risk.analyse.model_comparison import (
    RELEARNED,
    Added,
    ModelComparison,
    Predictions,
    compared,
    matrices_without,
    predict,
    reached,
    scores,
)
from aiene.risk.analyse.records import (
    THRESHOLDS,
    AnalysisSettings,
    Part,
    Skipped,
    ends,
    fields_of,
    figure_of,
    interval_cells,
    resampling,
    table_of,
)
from aiene.stats.calibration import calibration
from aiene.stats.centre_models import pooled, validation_centres
from aiene.stats.clinical_utility import decision_curve, groome, reclassification
from aiene.stats.concordance import concordance
from aiene.stats.cox_model import fit_cox, nested_lrt
from aiene.stats.internal_validation import optimism
from aiene.stats.records import Difference, Interval, NotEstimableError
from aiene.stats.sample_size import MIN_EVENTS_PER_PARAMETER
from aiene.stats.tests import log_rank
from aiene.stats.time_dependent_accuracy import compared_brier, integrated_brier, time_dependent_aucs

GRID = 20
"""Points in time of the integrated Brier score."""


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

    @property
    def outcome(self) -> Outcome:
        """Of the patients."""
        return self.comparison.outcome

    def label(self, name: str) -> str:
        """What a reader calls a score."""
        if name == RELEARNED:
            return f"{self.comparison.old.label}, order learned here"
        return next(m.label for m in self.comparison.models if m.name == name)


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
        c = pooled(own, ("c", "lower", "upper"), "logit", settings.confidence)
        if c is None:
            continue
        values = {"c": c.value, **fields_of(c, "lower", "upper", "i2")}
        gain = pooled(own, ("delta", "delta_lower", "delta_upper"), "plain", settings.confidence)
        if gain is not None:
            values |= interval_cells("delta", gain) | {"delta_i2": gain.i2}
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
    result = concordance(time[held], event[held], risks, compare=pairs, **resampling(settings))
    gains = dict(zip((new for _, new in pairs), result.differences.values(), strict=True))
    for model in comparison.models:
        values: dict[str, Any] = {"c": result.values[model.name].value}
        values |= ends(result.values[model.name], settings)
        values["slope"] = _slope(time[held], event[held], fitted[model.name])
        if model.name in gains:
            limits = ends(gains[model.name], settings)
            values |= {"delta": gains[model.name].value, **{f"delta_{k}": v for k, v in limits.items()}}
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
    comparison, settings, outcome = work.comparison, work.settings, work.outcome
    horizon = settings.decision_years
    if not comparison.ranks_old.size or horizon not in reached(work.comparison, (horizon,)):
        return
    names_old, names_new = comparison.levels_old, comparison.levels_new
    if len(names_old) != len(names_new):  # the scale may have more groups than the old ones
        names_old = names_new
    levels = [f"group {i + 1}" for i in range(len(names_new))]
    result = reclassification(
        outcome.time,
        outcome.state,
        np.array([levels[r] for r in comparison.ranks_old], dtype=object),
        np.array([levels[r] for r in comparison.ranks_new], dtype=object),
        levels=levels,
        horizon=horizon,
        **resampling(settings, most=500),
    )
    for cell in result.cells:
        named = {"old": names_old[levels.index(cell.old)], "new": names_new[levels.index(cell.new)]}
        work.put("reclassified", **named, **fields_of(cell, "n", "risk", "lower", "upper"))
    values = fields_of(result, "n", "up", "down")
    parts = {"event": result.event_part, "non_event": result.non_event_part, "nri": result.nri}
    for name, part in parts.items():
        limits = ends(part, work.settings)
        values |= {name: part.value, f"{name}_lower": limits.get("lower")}
        values |= {f"{name}_upper": limits.get("upper")}
    work.put("nri", **values)


def _separation(work: _Work) -> None:
    """Groome's criteria of the old and the combined groups."""
    comparison, outcome, horizon = work.comparison, work.outcome, work.settings.decision_years
    if (
        not comparison.ranks_old.size
        or comparison.groups is None
        or horizon not in reached(work.comparison, (horizon,))
    ):
        return
    for model, ranks in ((comparison.old, comparison.ranks_old), (comparison.groups, comparison.ranks_new)):
        order = [int(r) for r in np.unique(ranks)]
        if len(order) > 1:
            of = outcome.time, outcome.event, ranks
            found = groome(*of, order=order, horizon=horizon, subgroups=comparison.cells)
            work.put("separation", model=model.label, **found._asdict())


def assess(comparison: ModelComparison, settings: AnalysisSettings) -> Added:
    """Every number of one comparison; a part that cannot be computed leaves its reason."""
    added = Added()
    head = {"population": comparison.population, "comparison": comparison.title, "contest": comparison.name}
    years = sorted({*reached(comparison, settings.every_year), *_grid(comparison, settings)})
    try:
        found = predict(comparison, years, confidence=settings.confidence)
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
    fits, larger = work.found.fits, work.found.fits["new"]
    values: dict[str, Any] = {**work.outcome.counts}
    if "old" in fits:
        test = nested_lrt(fits["old"], larger)
        values |= fields_of(test, "statistic", "df", "p")
        values |= {"aic_old": test.aic_smaller, "aic_new": test.aic_larger}
    else:
        values |= {"statistic": larger.lrt, "df": larger.lrt_df, "p": larger.lrt_p}
        values |= {"aic_old": None, "aic_new": larger.aic}
    marker = next(r for r in larger.rows if r.name == "n_ai_ene")
    values |= {"reason": work.comparison.note, **fields_of(marker, "hr", "lower", "upper")}
    work.put("lrt", **values, method=larger.method)


def _order(work: _Work) -> None:
    """Whether the hazard rises with the groups as they are ordered: events over those expected (log-rank)."""
    for model in work.comparison.models:
        if model.ranks is None or np.unique(model.ranks).size < 2:
            continue
        labels = np.array([model.groups[rank] for rank in model.ranks], dtype=object)
        rows = log_rank(work.outcome.time, work.outcome.event, labels, order=model.groups).rows
        ratios = [row.observed / row.expected for row in rows]
        wrong = [
            f"{worse.group} is below {better.group}"
            for (better, before), (worse, after) in pairwise(zip(rows, ratios, strict=True))
            if after < before
        ]
        shown = ", ".join(f"{row.group} {ratio:.2f}" for row, ratio in zip(rows, ratios, strict=True))
        verdict = f"does not hold: {'; '.join(wrong)}" if wrong else "holds"
        row = {"model": model.label, "key": model.name, "ratios": shown}
        work.put("order", **row, holds=not wrong, verdict=verdict)


def _concordance(work: _Work) -> None:
    settings, outcome, found = work.settings, work.outcome, work.found
    tau = max(reached(work.comparison, settings.horizons), default=None)
    kinds: tuple[tuple[Literal["harrell", "uno"], float | None], ...] = (("harrell", None), ("uno", tau))
    for kind, limit in kinds:
        how: dict[str, Any] = {"compare": found.pairs, "tau": limit, **resampling(settings)}
        result = concordance(outcome.time, outcome.event, found.risk, kind=kind, **how)
        for name, value in result.values.items():
            row = {"model": work.label(name), "kind": kind.capitalize(), "key": name, "c": value.value}
            work.put("c", **row, **ends(value, settings), tau=limit)
        for (old, new), difference in zip(found.pairs, result.differences.values(), strict=True):
            row = {"model": work.label(new), "kind": kind.capitalize(), "key": new}
            row |= {"against": work.label(old), "delta": difference.value}
            work.put("delta", **row, **ends(difference, settings))


_MEASURES = {"c": "C (Harrell)", "slope": "Calibration slope", "delta": "Difference in C to old"}


def _optimism(work: _Work) -> None:
    """C and calibration slope of each model and the difference in C, corrected for being fitted here.

    Ordered groups are not among them: nothing of their C is fitted. Neither are slopes of one covariate,
    which its coefficient alone moves.
    """
    comparison, settings, outcome = work.comparison, work.settings, work.outcome
    if not settings.bootstraps:
        return
    everybody = np.arange(outcome.n)
    columns = {m.name: varying(m.matrix) for m in (comparison.old, comparison.new)}
    arrays = {name: x.to_numpy(dtype=float) for name, x in columns.items() if x.shape[1]}
    refit = Refit(outcome.time, outcome.event, arrays)
    pairs = [("old", "new")] if len(arrays) == 2 else []
    given = {"old"} if comparison.old.ranks is not None else set()
    sloped = [name for name, x in arrays.items() if name not in given and x.shape[1] > 1]
    named = measures(list(arrays), sloped, pairs)

    def score(betas: dict[str, np.ndarray], rows: np.ndarray) -> list[float]:
        return values_of(refit, betas, None if np.array_equal(rows, everybody) else rows, sloped, pairs)

    names = [f"{measure} {name}" for measure, name in named]
    result = optimism(lambda rows, _: refit.fit(rows), score, outcome.n, names=names, **resampling(settings))
    remark = _small_sample(outcome.n_events, max(x.shape[1] for x in arrays.values()))
    for (measure, name), row in zip(named, result.rows, strict=True):
        if measure != "c" or name not in given:
            values = {"measure": _MEASURES[measure], "model": work.label(name), "key": row.name}
            values |= fields_of(row, "apparent", "optimism", "corrected", "lower", "upper")
            work.put("optimism", **values, remark=remark, failed=result.n_failed)


def _small_sample(events: int, most: int) -> str:
    """What a reader must know where the events are few for the `most` parameters of a model."""
    if events >= MIN_EVENTS_PER_PARAMETER * most:
        return ""
    return f"{events / most:.1f} events per parameter: C can stay near 0.53 where nothing predicts"


def _auc(work: _Work) -> None:
    settings, outcome, found = work.settings, work.outcome, work.found
    years = reached(work.comparison, settings.horizons)
    if not years:
        return
    of = outcome.time, outcome.state, found.risk, years
    result = time_dependent_aucs(*of, compare=found.pairs, **resampling(settings))
    rows: list[tuple[dict[str, str], Sequence[Interval | Difference]]] = [
        ({"model": work.label(name), "key": name}, values) for name, values in result.values.items()
    ]
    rows += [
        ({"model": f"{work.label(new)} - {work.label(old)}", "key": f"delta {new}"}, gains)
        for (old, new), gains in zip(found.pairs, result.differences.values(), strict=True)
    ]
    for head, values in rows:
        for year, value in zip(years, values, strict=True):
            work.put("auc", **head, year=year, auc=value.value, **ends(value, settings))


def _grid(comparison: ModelComparison, settings: AnalysisSettings) -> tuple[float, ...]:
    end = max(reached(comparison, settings.horizons), default=0.0)
    return tuple(np.linspace(end / GRID, end, GRID).tolist()) if end else ()


def _brier(work: _Work) -> None:
    comparison, settings, outcome, found = work.comparison, work.settings, work.outcome, work.found
    times = _grid(comparison, settings)
    if not times:
        return
    absolute = found.by(times)
    for model in comparison.models:
        score = integrated_brier(outcome.time, outcome.state, absolute[model.name], times)
        values = fields_of(score, "null", "scaled", "start", "end")
        work.put("brier", model=model.label, key=model.name, ibs=score.value, **values)
    year, old = settings.decision_years, comparison.old.name
    if year not in found.horizons:
        return
    risks = {model.name: found.by([year])[model.name][:, 0] for model in comparison.models}
    of = outcome.time, outcome.state, risks, year, [(old, name) for name in risks if name != old]
    scores_at, gaps = compared_brier(*of, confidence=settings.confidence)
    for model in comparison.models:
        at, gap = scores_at[model.name], gaps.get((old, model.name))
        row: dict[str, Any] = {"model": model.label, "key": model.name, "year": year, "score": at.value}
        row |= fields_of(at, "lower", "upper")
        work.put("brier_at", **row, **({} if gap is None else interval_cells("gap", gap) | {"p": gap.p}))


def _calibration(work: _Work) -> None:
    settings, outcome, found = work.settings, work.outcome, work.found
    for year in reached(work.comparison, settings.calibration_years):
        for model in work.comparison.models:
            if model.ranks is not None:  # of groups it is zero by construction
                continue
            row = {"model": model.label, "key": model.name, "year": year}
            of = outcome.time, outcome.state, found.by([year])[model.name][:, 0], year
            result = calibration(*of, confidence=settings.confidence)
            values = {"predicted": result.mean_predicted, "observed": result.observed}
            values |= interval_cells("slope", result.slope) | interval_cells("oe", result.observed_expected)
            work.put("calibration", **row, **values, **fields_of(result, "ici", "e90"))
            for r in result.rows:
                cells = fields_of(r, "n", "events", "predicted", "observed", "lower", "upper")
                work.put("calibration_groups", **row, **cells)


def _decision(work: _Work) -> None:
    comparison, settings, outcome = work.comparison, work.settings, work.outcome
    year = settings.decision_years
    if year not in work.found.horizons:
        return
    risks = {m.name: work.found.by([year])[m.name][:, 0] for m in comparison.models}
    of = outcome.time, outcome.state, risks, year, THRESHOLDS
    result = decision_curve(*of, **resampling(settings, most=500))
    for number, threshold in enumerate(THRESHOLDS):
        at = {"threshold": threshold, "benefit": result.treat_all[number]}
        work.put("decision", model="Treat all", key="all", **at)
        for model in comparison.models:
            curve = result.curves[model.name]
            at = {"threshold": threshold, "benefit": curve.net_benefit[number]}
            limits = ends(Interval(0.0, curve.lower[number], curve.upper[number]), settings)
            work.put("decision", model=model.label, key=model.name, **at, **limits)


_TABLES = (
    *("lrt", "order", "c", "delta", "optimism", "centres", "auc", "brier", "brier_at", "calibration"),
    *("reclassified", "nri", "separation"),
)
"""In the order of the report."""


def added_part(endpoint: str, found: Sequence[Added], settings: AnalysisSettings) -> Part:
    """Tables of all comparisons of an endpoint, and figures of the main one in all patients."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)  # of the figures too, which have no table
    for added in found:
        for name, own in added.rows.items():
            rows[name] += own
    words = {
        "endpoint": endpoint,
        "label": LABELS[endpoint],
        "cap": settings.marker_cap,
        "boot": settings.bootstraps,
        "seed": settings.seed,
        "decide": settings.decision_years,
    }
    tables = [table_of(f"added_{name}", rows[name], **words) for name in _TABLES if rows[name]]
    skipped = tuple(s for added in found for s in added.skipped)
    return Part((*_figures(endpoint, rows, settings), *tables), skipped)


def _figures(endpoint: str, rows: dict[str, list[dict[str, Any]]], settings: AnalysisSettings) -> list[Item]:
    names = sorted({r["contest"] for r in rows["lrt"] if r["population"] == "All patients"})
    bases = [name for name in names if name.startswith("base")]
    main = next(iter([*bases, *(n for n in names if n == "clinical"), *names]), "")

    def own(table: str) -> list[dict[str, Any]]:
        chosen = [r for r in rows[table] if r["contest"] == main and r["population"] == "All patients"]
        return list(plain_rows(chosen))

    counted = next((f"n = {r['n']}, events = {r['events']}" for r in own("lrt") if "n" in r), "")
    said = {"endpoint": endpoint, "label": LABELS[endpoint], "counted": counted, "settings": settings}
    figures: list[Item] = []
    if points := [r for r in own("auc") if not r["key"].startswith("delta")]:
        figures.append(_auc_figure(points, said))
    if groups := own("calibration_groups"):
        figures.append(_calibration_figure(groups, said))
    if lines := own("decision"):
        figures.append(_decision_figure(lines, said))
    return figures


def _models(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((r["key"], r["model"]) for r in rows))


def _columns(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> dict[str, list[Any]]:
    return {key: [r.get(key) for r in rows] for key in keys}


def _auc_figure(rows: list[dict[str, Any]], said: dict[str, Any]) -> Figure:
    years = sorted({r["year"] for r in rows})
    models = []
    for key, label in _models(rows):
        own = _columns([r for r in rows if r["key"] == key], ("auc", "lower", "upper"))
        models.append({"label": label, "value": own["auc"], "low": own["lower"], "high": own["upper"]})
    content = {"years": years, "models": models}
    data = _columns(rows, ("model", "year", "auc", "lower", "upper"))
    return figure_of("auc", draw_auc, content, data, **said)


def _calibration_figure(rows: list[dict[str, Any]], said: dict[str, Any]) -> Figure:
    panels = []
    for year in sorted({r["year"] for r in rows}):
        models = []
        for key, label in _models(rows):
            own = [r for r in rows if r["key"] == key and r["year"] == year and r["observed"] is not None]
            columns = {"predicted": "predicted", "observed": "observed", "low": "lower", "high": "upper"}
            models.append({"label": label, **{k: [r[c] for r in own] for k, c in columns.items()}})
        values = [v for m in models for k in ("predicted", "observed", "high") for v in m[k] if v is not None]
        top = min(1.0, max(0.1, round(max(values, default=0.1) * 1.08 + 0.005, 2)))
        panels.append({"title": f"{year:g} years", "models": models, "top": top})
    data = _columns(rows, ("model", "year", "n", "events", "predicted", "observed", "lower", "upper"))
    return figure_of("calibration", draw_calibration, {"panels": panels}, data, wide=True, **said)


def _decision_figure(rows: list[dict[str, Any]], said: dict[str, Any]) -> Figure:
    settings: AnalysisSettings = said["settings"]
    thresholds = sorted({r["threshold"] for r in rows})
    lines: list[dict[str, Any]] = []
    looks = {"all": 4, "old": 0, "new": 1, "groups": 2}
    for key, label in _models(rows):
        own = sorted((r for r in rows if r["key"] == key), key=lambda r: r["threshold"])
        line: dict[str, Any] = {"label": label, "look": looks[key], "value": [r["benefit"] for r in own]}
        if key == "new" and all(r.get("lower") is not None for r in own):
            line |= {"low": [r["lower"] for r in own], "high": [r["upper"] for r in own]}
        lines.append(line)
    lines.append({"label": "Treat none", "look": 3, "value": [0.0] * len(thresholds)})
    of_models = [r for r in rows if r["key"] != "all"]
    high = max([r["benefit"] for r in of_models if r["benefit"] is not None], default=0.1)
    high = max(high, 0.02)
    useful = [r["threshold"] for r in of_models if abs(r["benefit"] or 0) > 1e-3]
    end = max(useful, default=thresholds[-1])
    kept = [i for i, t in enumerate(thresholds) if t <= end]
    for line in lines:
        line |= {k: [line[k][i] for i in kept] for k in ("value", "low", "high") if k in line}
    content = {
        "threshold": [thresholds[i] for i in kept],
        "lines": lines,
        "y_low": -0.15 * high,
        "y_high": 1.12 * high,
        "x_label": f"Threshold risk at {settings.decision_years:g} years",
    }
    data = _columns(rows, ("model", "threshold", "benefit", "lower", "upper"))
    resamples = min(settings.bootstraps, 500)
    return figure_of("decision", draw_decision, content, data, resamples=resamples, **said)
