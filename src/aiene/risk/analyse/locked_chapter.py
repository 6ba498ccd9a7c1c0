"""The models of an analysis locked as files, with their points, and whether the patients are enough.

Each comes with a page that calculates for one patient, and a nomogram.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aiene.report.document import RESEARCH_ONLY, Figure, Item, Section, Table, Text
from aiene.report.formatting import plain
from aiene.report.write import filled
from aiene.results.atomic import make_folder
from aiene.results.ownership import Owned
from aiene.risk.analyse.charts.forest import draw_nomogram
from aiene.risk.analyse.cohort import EVENTS, LABELS, Cohort
from aiene.risk.analyse.locked_model import LockedModel, lock, model_bytes
from aiene.risk.analyse.records import (
    AnalysisSettings,
    Endpoint,
    Part,
    Skipped,
    fields_of,
    figure_of,
    table_of,
)
from aiene.risk.analyse.regression import MARKER, Sample, cox, sample_of_all
from aiene.risk.schemes.scheme import Scheme
from aiene.stats.records import NotEstimableError
from aiene.stats.sample_size import required_sample

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
    terms = _terms(model)
    numbers = {"terms": terms, "hazards": plain(model.hazard(years))}
    content = json.dumps(numbers).replace("<", "\\u003c")
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
        hazard = float(model.hazard([year])[0])
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
    said = {"of": model.endpoint, "title": model.title, "outcome": complete}
    return figure_of("nomogram", draw_nomogram, content, data, wide=True, **said)


def _round_values(raw: np.ndarray) -> list[float]:
    """About six round values that span the first to the 99th percentile."""
    low, high = np.percentile(raw, (1, 99))
    width = max(float(high - low), 1e-9) / 5
    size = 10 ** np.floor(np.log10(width))
    width = float(min((s * size for s in (1, 2, 5, 10)), key=lambda s: abs(s - width)))
    first = np.ceil(low / width) * width
    return [round(float(v), 6) + 0.0 for v in np.arange(first, high + 1e-9, width)] or [round(float(low), 2)]


FOLDER = "models"
SIMULATED = "SIMULATED AI-ENE COUNT: the model says nothing about patients."
TITLE = "Locked models"


def locked_chapter(
    cohort: Cohort, scheme: Scheme, endpoints: Sequence[Endpoint], settings: AnalysisSettings, out: Path
) -> tuple[Section, Part]:
    """Lock the models with and without the count of each endpoint, on all complete cases.

    Parameters
    ----------
    out : folder of the results; the files go into `models/`.
    """
    make_folder(out / FOLDER)
    owned = Owned(out)
    rows: list[dict[str, Any]] = []
    items: list[Item] = []
    skipped: list[Skipped] = []
    for endpoint in endpoints:
        sample = sample_of_all(cohort, endpoint, settings)
        for with_marker in (False, True):
            try:
                model = lock(
                    sample,
                    cap=settings.marker_cap,
                    years=settings.every_year,
                    with_marker=with_marker,
                    scheme=f"{scheme.name} {scheme.sha256}",
                )
                owned.write(out / FOLDER / f"{model.name}.json", model_bytes(model))
                rows.append(_row(model, sample, settings))
            except (NotEstimableError, np.linalg.LinAlgError) as error:
                what = f"{LABELS[endpoint]}: locked model {'with' if with_marker else 'without'} the count"
                skipped.append(Skipped(what, str(error)))
                continue
        if with_marker and rows and rows[-1]["name"] == f"{endpoint}_clinical_count":
            items += [nomogram(model, sample), _points(model)]
            page = calculator_page(model, banner=SIMULATED if cohort.simulated else "")
            owned.write(out / FOLDER / f"{model.name}.html", page.encode())
    nothing = Text("No model could be locked; see what was not done.", kind="warning")
    items.insert(0, table_of("locked_models", rows, decide=settings.decision_years) if rows else nothing)
    return Section("locked", TITLE, tuple(items)), Part(tuple(items), tuple(skipped))


def _row(model: LockedModel, sample: Sample, settings: AnalysisSettings) -> dict[str, Any]:
    outcome, design, count = sample.complete()
    matrix = design.matrix
    if any(t.name == "n_ai_ene" for t in model.terms):
        matrix = matrix.assign(n_ai_ene=np.minimum(count, settings.marker_cap))
    fit = cox(outcome.time, outcome.event, matrix)
    parameters = len(model.columns)
    of = outcome.n, outcome.n_events, float(outcome.time.sum())
    needed = required_sample(*of, parameters, fit.lrt, settings.decision_years)
    row: dict[str, Any] = {"name": model.name, "file": f"{FOLDER}/{model.name}.json", "model": model.title}
    row |= {"n": outcome.n, "events": outcome.n_events, "parameters": parameters}
    row |= {"epp": outcome.n_events / parameters, "c": model.development["c"], "shrinkage": needed.shrinkage}
    row |= {"needed": needed.patients if needed.patients < 10**9 else None}
    row |= fields_of(needed, "for_shrinkage", "for_optimism", "for_risk")
    return row | {"sha256": model.sha256}


def _points(model: LockedModel) -> Table:
    """A points table: the coefficient of one node is the unit, so that points can be added in the head."""
    unit = abs(model.coefficients[0]) or 1.0
    shown = [(t, level) for t in model.terms for level in t.levels]
    rows = [
        {"term": term.label, "level": level or "each", "points": beta / unit}
        for (term, level), beta in zip(shown, model.coefficients, strict=True)
    ]
    score = float(np.dot(model.means, model.coefficients)) / unit
    years = [y for y in (2.0, 3.0, 5.0) if y <= model.last_year]
    for points in np.round(np.linspace(score - 4, score + 8, 7)) + 0.0:
        risks = model.risk(np.array([(points - score) * unit]), years)[0] if years else []
        row: dict[str, Any] = {"term": "Sum of points", "level": f"{points:.0f}"}
        rows.append(row | {f"risk{y:g}": r for y, r in zip(years, risks, strict=True)})
    said = {"of": model.endpoint, "title": model.title, "unit": unit, "cap": model.marker_cap}
    return table_of("points", rows, year=years, **said)
