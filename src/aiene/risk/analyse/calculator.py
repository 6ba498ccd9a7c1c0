"""A locked model to calculate with: a page for one patient, and a nomogram."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from aiene.report.document import RESEARCH_ONLY, Figure
from aiene.report.formatting import plain
from aiene.report.write import filled
from aiene.risk.analyse.charts.nomogram import draw_nomogram
from aiene.risk.analyse.cohort import EVENTS
from aiene.risk.analyse.regression import MARKER, Sample
from aiene.stats.elementary import step

if TYPE_CHECKING:
    from aiene.risk.analyse.locked_model import LockedModel

YEARS = (1.0, 2.0, 3.0, 5.0)
_NUMBERS = {
    MARKER: ("AI-ENE nodes", 1.0),
    "age": ("Age, years", 10.0),
    "pack_years": ("Pack-years", 10.0),
    "ecog": ("ECOG performance status", 1.0),
}
"""Numbers as a person gives them, and by what the model divides them."""
_RISKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def calculator_page(model: LockedModel, *, banner: str) -> str:
    """The model as a page that computes the risks of one patient in the browser; nothing leaves it.

    Values can be given after `#`, as `#age=60&n_ai_ene=2`.

    Parameters
    ----------
    banner : what must not be overlooked, such as that the count was simulated; empty for nothing.
    """
    years = [y for y in YEARS if y <= model.last_year]
    hazards = step(np.array(model.baseline_years), np.array(model.baseline_hazard), np.array(years), 0.0)
    terms = _terms(model)
    content = json.dumps({"terms": terms, "hazards": plain(hazards)}).replace("<", "\\u003c")
    return filled(
        "calculator.html.j2",
        title=model.title,
        notice=RESEARCH_ONLY,
        banner=banner,
        fields=[{"name": t["name"], "label": t["label"], "levels": t["levels"]} for t in terms],
        event=EVENTS[model.endpoint],
        years=[f"{y:g} year{'s' * (y != 1)}" for y in years],
        about=_about(model),
        content=content,
    )


def _about(model: LockedModel) -> str:
    told, kind = model.development, "Fine-Gray (death competes)" if model.kind == "fine_gray" else "Cox"
    return (
        f"{kind} model of {told['patients']} patients with {told['events']} events; file {model.name}.json, "
        f"SHA-256 {model.sha256}. How good a model is, only its validation on other patients can show."
    )


def _terms(model: LockedModel) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    betas = dict(zip(model.columns, zip(model.coefficients, model.means, strict=True), strict=True))
    for term in model.terms:
        label, per = _NUMBERS.get(term.name, (term.label, 1.0)) if not term.reference else (term.label, 1.0)
        columns = [
            {"level": level, "beta": betas[column][0], "mean": betas[column][1]}
            for column, level in zip(term.columns, term.levels, strict=True)
        ]
        levels = [term.reference, *term.levels] if term.reference else []
        cap = model.marker_cap if term.name == MARKER else None
        row = {"name": term.name, "label": label, "per": per, "cap": cap}
        found.append(row | {"levels": levels, "columns": columns})
    return found


def nomogram(model: LockedModel, sample: Sample) -> Figure:
    """The model as a nomogram: points of each value, their sum, and the risks that belong to it.

    Parameters
    ----------
    sample : whose values span the axes of numbers, from the first to the 99th percentile.
    """
    complete, design, count = sample.complete()
    axes = []
    for term in _terms(model):
        beta = [c["beta"] for c in term["columns"]]
        if term["levels"]:
            values = list(zip(term["levels"], [0.0, *beta], strict=True))
        elif term["name"] == MARKER:
            values = [(str(k), beta[0] * k) for k in range(int(min(count.max(), model.marker_cap)) + 1)]
        else:
            raw = design.matrix[term["name"]].to_numpy() * term["per"]
            values = [(f"{v:g}", beta[0] * v / term["per"]) for v in _round_values(raw)]
        axes.append({"label": term["label"], "values": values})
    spread = max(max(v for _, v in a["values"]) - min(v for _, v in a["values"]) for a in axes) or 1.0
    lowest = [min(v for _, v in a["values"]) for a in axes]
    for axis, low in zip(axes, lowest, strict=True):
        axis["values"] = [(name, 100 * (value - low) / spread) for name, value in axis["values"]]
    total = sum(max(p for _, p in a["values"]) for a in axes)
    mean_score = float(np.dot(model.means, model.coefficients))
    scales = []
    for year in (y for y in (2.0, 5.0) if y <= model.last_year):
        hazard = float(
            step(np.array(model.baseline_years), np.array(model.baseline_hazard), np.array([year]), 0.0)[0]
        )
        points = [
            (risk, 100 * (np.log(-np.log(1 - risk) / hazard) + mean_score - sum(lowest)) / spread)
            for risk in _RISKS
            if hazard > 0
        ]
        inside = [(f"{risk:.0%}", float(p)) for risk, p in points if 0 <= p <= total]
        scales.append({"label": f"Risk at {year:g} years", "values": inside})
    content = {"axes": axes, "total": total, "scales": scales}
    rows = [(a["label"], name, p) for a in (*axes, *scales) for name, p in a["values"]]
    data = {k: [r[i] for r in rows] for i, k in enumerate(("axis", "value", "points"))}
    legend = (
        f"{model.title}: read off the points of each value, add them, and read the risk below the sum; "
        f"n = {complete.n}, events = {complete.n_events}. For research."
    )
    return Figure(
        f"nomogram_{model.endpoint}",
        f"{model.title}: nomogram",
        legend,
        partial(draw_nomogram, content),
        data,
        wide=True,
    )


def _round_values(raw: np.ndarray) -> list[float]:
    """About six round values that span the first to the 99th percentile."""
    low, high = np.percentile(raw, (1, 99))
    width = max(float(high - low), 1e-9) / 5
    size = 10 ** np.floor(np.log10(width))
    width = float(min((s * size for s in (1, 2, 5, 10)), key=lambda s: abs(s - width)))
    first = np.ceil(low / width) * width
    return [round(float(v), 6) + 0.0 for v in np.arange(first, high + 1e-9, width)] or [round(float(low), 2)]
