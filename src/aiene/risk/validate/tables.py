"""The measures of an external validation as tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from aiene.report.document import Column, Figure, Item, Table
from aiene.report.formatting import plain, plain_rows
from aiene.risk.analyse.charts.models import draw_centres, draw_decision, draw_smooth_calibration
from aiene.risk.analyse.records import AnalysisSettings
from aiene.risk.validate.measures import THRESHOLDS, Found

_MODEL = Column("model", "Model")
_YEAR = Column("year", "Years", "number")


def discrimination_table(found: Found, settings: AnalysisSettings) -> Table:
    """C of each model, and its difference to the first."""
    columns = (
        _MODEL,
        Column("kind", "Kind"),
        Column("c", "C (interval)", "number3", "lower", "upper"),
        Column("delta", "Difference to the first (interval)", "number3", "delta_lower", "delta_upper"),
        Column("p", "p", "p"),
    )
    note = (
        "From the ranks of the groups or the linear predictor, nothing refitted; ties 0.5; deaths before the "
        f"event are censored. {_resampling(settings)} Uno's C is weighted for censoring, up to the last "
        "horizon."
    )
    rows = plain_rows(found.discrimination)
    return Table("discrimination", "Concordance", columns, rows, note)


def _resampling(settings: AnalysisSettings) -> str:
    if not settings.bootstraps:
        return "Without resamples there are no intervals."
    return f"{settings.confidence:.0%} percentile intervals, {settings.bootstraps} resamples of patients."


def calibration_items(found: Found, n: int, settings: AnalysisSettings) -> tuple[Item, ...]:
    """The figure of smooth curves, and the table; nothing for a scheme."""
    if not found.calibration:
        return ()
    columns = (
        _MODEL,
        _YEAR,
        Column("predicted", "Mean predicted", "percent"),
        Column("observed", "Observed", "percent"),
        Column("oe", "Observed/expected (interval)", "number", "oe_lower", "oe_upper"),
        Column("large", "In the large (interval)", "number", "large_lower", "large_upper"),
        Column("slope", "Slope (interval)", "number", "slope_lower", "slope_upper"),
        Column("ici", "ICI (interval)", "number3", "ici_lower", "ici_upper"),
        Column("e90", "E90", "number3"),
    )
    note = (
        "Perfect: observed/expected 1, in the large (log ratio of cumulative hazards) 0, slope 1. A slope "
        "under 1: predictions are too extreme for these patients. Observed risk by Kaplan-Meier, with death "
        "competing by Aalen-Johansen. ICI: mean distance of prediction and smooth curve; its interval from "
        f"{min(settings.bootstraps, 100)} resamples."
    )
    table = Table("calibration", "Calibration", columns, plain_rows(found.calibration), note)
    return _calibration_figure(found, n, settings), table


def _calibration_figure(found: Found, n: int, settings: AnalysisSettings) -> Figure:
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
            keys = ("predicted", "observed", "lower", "upper")
            groups = {k: [getattr(r, k) for r in result.rows] for k in keys}
            seen = [o for o in groups["observed"] if np.isfinite(o)]  # a group may not be followed so far
            top = max(top, float(np.quantile(predicted, 0.99)), *seen)
            models.append(
                {
                    "label": label,
                    "predicted": predicted,
                    "curve": (plain(predicted[within]), plain(observed[within])),
                    "groups": {
                        "predicted": plain(groups["predicted"]),
                        "observed": plain(groups["observed"]),
                        "low": plain(groups["lower"]),
                        "high": plain(groups["upper"]),
                    },
                }
            )
            data["model"] += [label] * within.size
            data["year"] += [year] * within.size
            data["predicted"] += plain(predicted[within])
            data["observed"] += plain(observed[within])
        top = min(1.0, 1.1 * top)
        for model in models:
            own = model.pop("predicted")
            shares, edges = np.histogram(own, bins=40, range=(0, top))
            model["spread"] = (plain(edges), plain(shares / own.size))
        panels.append({"title": f"{year:g} years", "models": models, "top": top})
    legend = (
        f"Observed against predicted risk, nothing refitted; n = {n}. Lines: smooth (restricted cubic spline "
        f"of the prediction); points: groups of rising prediction with {settings.confidence:.0%} intervals."
    )
    content = {"panels": panels}
    draw = partial(draw_smooth_calibration, content)
    return Figure("calibration", "Calibration", legend, draw, data, wide=len(panels) > 1)


def brier_table(found: Found, settings: AnalysisSettings) -> Table:
    """Brier score and the index of prediction accuracy."""
    columns = (
        _MODEL,
        _YEAR,
        Column("brier", "Brier score (interval)", "number3", "brier_lower", "brier_upper"),
        Column("null", "without any model", "number3"),
        Column("ipa", "IPA (interval)", "percent", "ipa_lower", "ipa_upper"),
    )
    note = (
        "Weighted for censoring; smaller is better. IPA: index of prediction accuracy, 1 - Brier / Brier of "
        "these patients' own curve for everybody; under 0 the model is worse than that."
    )
    return Table("brier", "Accuracy of the absolute risks", columns, plain_rows(found.brier), note)


def decision_figure(found: Found, n: int, settings: AnalysisSettings) -> Figure | None:
    """Net benefit of each model against acting on all and on none."""
    if found.decision is None:
        return None
    curve = found.decision
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
    legend = (
        f"Net benefit of acting on the {settings.decision_years:g}-year risk, against acting on all and on "
        f"none; n = {n}; nothing refitted.{shaded}"
    )
    content = {
        "threshold": list(THRESHOLDS)[:end],
        "lines": lines,
        "y_low": -0.15 * high,
        "y_high": 1.12 * high,
        "x_label": f"Threshold risk at {settings.decision_years:g} years",
    }
    return Figure("decision", "Decision curve", legend, partial(draw_decision, content), data)


_CENTRE_MEASURES = (
    {"key": "c", "title": "C", "ideal": None, "log": False},
    {"key": "oe", "title": "Observed/expected", "ideal": 1.0, "log": True},
    {"key": "slope", "title": "Slope", "ideal": 1.0, "log": False},
)


def centre_items(found: Found, settings: AnalysisSettings) -> tuple[Item, ...]:
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
    legend = (
        f"{last}, centre by centre and pooled by random effects (restricted maximum likelihood, Knapp and "
        f"Hartung's {settings.confidence:.0%} interval)."
    )
    data = {"centre": [r["label"] for r in shown]} | {
        f"{m['key']}_{part}": [r[str(m["key"])][place] for r in shown]
        for m in measures
        for place, part in enumerate(("value", "lower", "upper"))
    }
    counts = (Column("n", "n", "count"), Column("events", "Events", "count"))
    columns: list[Column] = [_MODEL, Column("centre", "Centre"), *counts, _YEAR]
    for key, title, kind in (("c", "C", "number3"), ("oe", "O/E", "number"), ("slope", "Slope", "number")):
        columns += [
            Column(key, f"{title} (interval)", kind, f"{key}_lower", f"{key}_upper"),  # type: ignore[arg-type]
            Column(f"{key}_i2", f"I² of {title}", "percent"),
        ]
    columns.append(Column("reason", "Remark"))
    note = (
        "O/E and slope at the last horizon that the centre's follow-up reaches. C is pooled as a logit, O/E "
        "as a logarithm. I²: share of the variance between centres that is not due to chance. The range in "
        "which a further centre is expected is in the CSV (next_lower, next_upper)."
    )
    table = Table("centres", "Centres", tuple(columns), plain_rows(found.centres), note)
    if not measures:
        return (table,)
    content = {"rows": shown, "measures": measures}
    return Figure("centres", "Centres", legend, partial(draw_centres, content), data, wide=True), table


def _triple(row: dict[str, Any], key: str) -> tuple[Any, ...]:
    return tuple(plain(row.get(k)) for k in (key, f"{key}_lower", f"{key}_upper"))


def left_out_table(rows: Sequence[dict[str, Any]]) -> Table:
    """How many patients could not be judged, by reason."""
    columns = (Column("reason", "Reason"), Column("n", "Patients", "count"))
    note = "They are listed in excluded.csv."
    return Table("left_out", "Patients who were not included", columns, plain_rows(rows), note)
