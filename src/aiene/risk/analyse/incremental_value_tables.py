"""The comparisons of one endpoint as tables and figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

from aiene.report.document import Column, Figure, Item, Table
from aiene.report.formatting import plain_rows
from aiene.risk.analyse.charts.models import draw_auc, draw_calibration, draw_decision
from aiene.risk.analyse.cohort import LABELS
from aiene.risk.analyse.model_comparison import Added
from aiene.risk.analyse.records import COUNTS, AnalysisSettings, Part

_HEAD = (Column("population", "Patients"), Column("comparison", "Old system"))
_MODEL = Column("model", "Model")

_TABLES: dict[str, tuple[str, tuple[Column, ...], str]] = {
    "lrt": (
        "likelihood-ratio test of adding the count",
        (
            *COUNTS,
            Column("hr", "HR per AI-ENE node (interval)", "number", "lower", "upper"),
            Column("statistic", "LRT", "number"),
            Column("df", "df", "count"),
            Column("p", "p", "p"),
            Column("aic_old", "AIC old", "number"),
            Column("aic_new", "AIC new", "number"),
            Column("reason", "Remark"),
        ),
        "Nested Cox models on the same patients; the count enters capped at {cap}.",
    ),
    "order": (
        "do the groups keep their order?",
        (
            Column("model", "Groups"),
            Column("ratios", "Events over expected, best group first"),
            Column("verdict", "The order"),
        ),
        "Expected as in the log-rank test. C and AUC of groups come from the order that they are given. If "
        "it does not hold, the count is compared with the old groups in the order learned here, and so not "
        "credited with putting them in order.",
    ),
    "c": (
        "concordance",
        (_MODEL, Column("kind", "Kind"), Column("c", "C (interval)", "number3", "lower", "upper")),
        "Of ordered groups by their given order; of models apparent: they were fitted on these patients. "
        "Percentile intervals, {boot} resamples of patients, seed {seed}; ties in risk count 0.5. Uno's C is "
        "weighted for censoring, up to the last horizon.",
    ),
    "delta": (
        "paired difference in concordance to the old system",
        (
            _MODEL,
            Column("against", "Compared with"),
            Column("kind", "Kind"),
            Column("delta", "Difference in C (interval)", "number3", "lower", "upper"),
            Column("p", "p", "p"),
        ),
        "Both on the same resamples.",
    ),
    "optimism": (
        "corrected for optimism",
        (
            _MODEL,
            Column("measure", "Measure"),
            Column("apparent", "Apparent", "number3"),
            Column("optimism", "Optimism", "number3"),
            Column("corrected", "Corrected (interval)", "number3", "lower", "upper"),
            Column("remark", "Remark"),
        ),
        "Harrell's bootstrap: the models are refitted in each of {boot} resamples (seed {seed}); "
        "intervals: the resamples' own values less the optimism (Noma). Ordered groups are not here, since "
        "nothing of their C is fitted; the gain of a model over groups is that over the same groups with "
        "effects fitted in the same resample. Slopes of one covariate say nothing and are left out.",
    ),
    "centres": (
        "leave one centre out",
        (
            Column("centre", "Centre left out"),
            _MODEL,
            *COUNTS,
            Column("c", "C (interval)", "number3", "lower", "upper"),
            Column("i2", "I²", "percent"),
            Column("delta", "Difference in C (interval)", "number3", "delta_lower", "delta_upper"),
            Column("delta_i2", "I² of the difference", "percent"),
            Column("slope", "Calibration slope", "number"),
            Column("reason", "Remark"),
        ),
        "Internal-external validation: models fitted on all other centres, judged in this one; Harrell's C; "
        "pooled by random effects. Centres with fewer than 20 events take part in the fits only.",
    ),
    "auc": (
        "time-dependent AUC",
        (
            _MODEL,
            Column("year", "Years", "number"),
            Column("auc", "AUC (interval)", "number3", "lower", "upper"),
            Column("p", "p", "p"),
        ),
        "Cumulative cases, dynamic controls, weighted for censoring; who died first counts as a control. "
        "{boot} resamples, seed {seed}.",
    ),
    "brier": (
        "integrated Brier score",
        (
            _MODEL,
            Column("ibs", "Integrated Brier", "number3"),
            Column("null", "without any model", "number3"),
            Column("scaled", "Scaled (share explained)", "number3"),
            Column("end", "up to, years", "number"),
        ),
        "Apparent values; smaller is better, scaled: larger is better.",
    ),
    "brier_at": (
        "Brier score at {decide:g} years",
        (
            _MODEL,
            Column("score", "Brier (interval)", "number3", "lower", "upper"),
            Column("gap", "Difference to the old system (interval)", "number3", "gap_lower", "gap_upper"),
            Column("p", "p", "p"),
        ),
        "Apparent values, death competing where it does; a difference below 0 is a gain. Normal intervals, "
        "the curve of censoring taken as known, the models as they are.",
    ),
    "calibration": (
        "calibration",
        (
            _MODEL,
            Column("year", "Years", "number"),
            Column("predicted", "Mean predicted", "percent"),
            Column("observed", "Observed", "percent"),
            Column("oe", "Observed/expected (interval)", "number", "oe_lower", "oe_upper"),
            Column("slope", "Slope (interval)", "number", "slope_lower", "slope_upper"),
            Column("ici", "ICI", "number3"),
            Column("e90", "E90", "number3"),
        ),
        "Apparent values, near-perfect by construction on the patients the model was fitted on; see the "
        "corrected slope above. Models of groups alone, whose calibration here is perfect by construction, "
        "are left out.",
    ),
    "reclassified": (
        "reclassification at {decide:g} years",
        (
            Column("old", "Old group"),
            Column("new", "Combined group"),
            Column("n", "n", "count"),
            Column("risk", "Observed risk (interval)", "percent", "lower", "upper"),
        ),
        "Observed risk by Kaplan-Meier; with death competing by Aalen-Johansen.",
    ),
    "nri": (
        "categorical net reclassification at {decide:g} years",
        (
            Column("n", "n", "count"),
            Column("up", "Moved up", "count"),
            Column("down", "Moved down", "count"),
            Column("event", "Event part (interval)", "number3", "event_lower", "event_upper"),
            Column("non_event", "Non-event part (interval)", "number3", "non_event_lower", "non_event_upper"),
            Column("nri", "NRI (interval)", "number3", "nri_lower", "nri_upper"),
        ),
        "To be read with the cross-table above, never alone: it can be positive for a useless marker.",
    ),
    "separation": (
        "separation of the groups",
        (
            _MODEL,
            Column("consistency", "Hazard consistency", "number3"),
            Column("discrimination", "Hazard discrimination", "number3"),
            Column("balance", "Balance", "number3"),
            Column("explained", "Explained variation", "number3"),
        ),
        "Groome's criteria at {decide:g} years, by Kaplan-Meier; smaller is better, except for explained "
        "variation. Consistency is over the old groups' patients by class of the count.",
    ),
}


def added_part(endpoint: str, found: Sequence[Added], settings: AnalysisSettings) -> Part:
    """Tables of all comparisons of an endpoint, and figures of the main one in all patients."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)  # of the figures too, which have no table
    for added in found:
        for name, own in added.rows.items():
            rows[name] += own
    words = {
        "cap": settings.marker_cap,
        "boot": settings.bootstraps,
        "seed": settings.seed,
        "decide": settings.decision_years,
    }
    tables: list[Item] = []
    for name, (title, columns, note) in _TABLES.items():
        if rows[name]:
            heading, told = f"{LABELS[endpoint]}: {title.format(**words)}", note.format(**words)
            tables.append(
                Table(f"{name}_{endpoint}", heading, (*_HEAD, *columns), plain_rows(rows[name]), told)
            )
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
    figures: list[Item] = []
    if points := [r for r in own("auc") if not r["key"].startswith("delta")]:
        figures.append(_auc(endpoint, points, counted, settings))
    if groups := own("calibration_groups"):
        figures.append(_calibration(endpoint, groups, counted, settings))
    if lines := own("decision"):
        figures.append(_decision(endpoint, lines, counted, settings))
    return figures


def _models(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((r["key"], r["model"]) for r in rows))


def _columns(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> dict[str, list[Any]]:
    return {key: [r.get(key) for r in rows] for key in keys}


def _auc(endpoint: str, rows: list[dict[str, Any]], counted: str, settings: AnalysisSettings) -> Figure:
    years = sorted({r["year"] for r in rows})
    models = []
    for key, label in _models(rows):
        own = _columns([r for r in rows if r["key"] == key], ("auc", "lower", "upper"))
        models.append({"label": label, "value": own["auc"], "low": own["lower"], "high": own["upper"]})
    legend = (
        f"{LABELS[endpoint]}, all patients: time-dependent AUC of the old system and with AI-ENE (apparent); "
        f"{counted}; bars: {settings.confidence:.0%} percentile intervals of {settings.bootstraps} "
        f"bootstraps, seed {settings.seed}."
    )
    content = {"years": years, "models": models}
    data = _columns(rows, ("model", "year", "auc", "lower", "upper"))
    title = f"{LABELS[endpoint]}: AUC over time"
    return Figure(f"auc_{endpoint}", title, legend, partial(draw_auc, content), data)


def _calibration(
    endpoint: str, rows: list[dict[str, Any]], counted: str, settings: AnalysisSettings
) -> Figure:
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
    legend = (
        f"{LABELS[endpoint]}, all patients: observed against predicted risk in groups of predicted risk; "
        f"{counted}; bars: {settings.confidence:.0%} intervals; apparent, on the patients that the models "
        "were fitted on."
    )
    draw = partial(draw_calibration, {"panels": panels})
    data = _columns(rows, ("model", "year", "n", "events", "predicted", "observed", "lower", "upper"))
    return Figure(
        f"calibration_{endpoint}", f"{LABELS[endpoint]}: calibration", legend, draw, data, wide=True
    )


def _decision(endpoint: str, rows: list[dict[str, Any]], counted: str, settings: AnalysisSettings) -> Figure:
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
    legend = (
        f"{LABELS[endpoint]}, all patients: net benefit of acting on the {settings.decision_years:g}-year "
        f"risk of each model, against acting on all and on none; {counted}; apparent. Shaded: "
        f"{settings.confidence:.0%} interval of the old system + count ({min(settings.bootstraps, 500)} "
        f"bootstraps, seed {settings.seed}); the others' are in the CSV."
    )
    content = {
        "threshold": [thresholds[i] for i in kept],
        "lines": lines,
        "y_low": -0.15 * high,
        "y_high": 1.12 * high,
        "x_label": f"Threshold risk at {settings.decision_years:g} years",
    }
    data = _columns(rows, ("model", "threshold", "benefit", "lower", "upper"))
    title = f"{LABELS[endpoint]}: decision curve"
    return Figure(f"decision_{endpoint}", title, legend, partial(draw_decision, content), data)
