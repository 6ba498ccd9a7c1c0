"""The comparisons of one endpoint as tables and figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from aiene.report.document import Figure, Item
from aiene.report.formatting import plain_rows
from aiene.risk.analyse.charts.models import draw_auc, draw_calibration, draw_decision
from aiene.risk.analyse.cohort import LABELS
from aiene.risk.analyse.model_comparison import Added
from aiene.risk.analyse.records import AnalysisSettings, Part, figure_of, table_of

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
        figures.append(_auc(points, said))
    if groups := own("calibration_groups"):
        figures.append(_calibration(groups, said))
    if lines := own("decision"):
        figures.append(_decision(lines, said))
    return figures


def _models(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((r["key"], r["model"]) for r in rows))


def _columns(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> dict[str, list[Any]]:
    return {key: [r.get(key) for r in rows] for key in keys}


def _auc(rows: list[dict[str, Any]], said: dict[str, Any]) -> Figure:
    years = sorted({r["year"] for r in rows})
    models = []
    for key, label in _models(rows):
        own = _columns([r for r in rows if r["key"] == key], ("auc", "lower", "upper"))
        models.append({"label": label, "value": own["auc"], "low": own["lower"], "high": own["upper"]})
    content = {"years": years, "models": models}
    data = _columns(rows, ("model", "year", "auc", "lower", "upper"))
    return figure_of("auc", draw_auc, content, data, **said)


def _calibration(rows: list[dict[str, Any]], said: dict[str, Any]) -> Figure:
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


def _decision(rows: list[dict[str, Any]], said: dict[str, Any]) -> Figure:
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
