"""The models of an analysis locked as files, with their points, and whether the patients are enough."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aiene.report.document import Column, Item, Section, Table, Text
from aiene.report.formatting import plain_rows
from aiene.results.atomic import make_folder
from aiene.results.ownership import Owned
from aiene.risk.analyse.calculator import calculator_page, nomogram
from aiene.risk.analyse.cohort import LABELS, Cohort, outcome_of
from aiene.risk.analyse.locked_model import LockedModel, lock, model_bytes
from aiene.risk.analyse.records import Part, Skipped
from aiene.risk.analyse.regression import Sample, cox, make_sample
from aiene.risk.analyse.settings import AnalysisSettings, Endpoint
from aiene.risk.schemes.scheme import Scheme
from aiene.stats.records import NotEstimableError
from aiene.stats.sample_size import required_sample

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
        outcome, _ = outcome_of(cohort.table, endpoint)
        sample = make_sample("all", "All patients", cohort.table, outcome, settings.covariates)
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
            banner = SIMULATED if cohort.simulated else ""
            page = calculator_page(model, banner=banner)
            owned.write(out / FOLDER / f"{model.name}.html", page.encode())
    if not rows:
        items.append(Text("No model could be locked; see what was not done.", kind="warning"))
    else:
        items.insert(0, _files(rows, settings))
    return Section("locked", TITLE, tuple(items)), Part(tuple(items), tuple(skipped))


def _row(model: LockedModel, sample: Sample, settings: AnalysisSettings) -> dict[str, Any]:
    outcome, design, count = sample.complete()
    matrix = design.matrix
    if any(t.name == "n_ai_ene" for t in model.terms):
        matrix = matrix.assign(n_ai_ene=np.minimum(count, settings.marker_cap))
    fit = cox(outcome.time, outcome.event, matrix)
    parameters = len(model.columns)
    needed = required_sample(
        outcome.n, outcome.n_events, float(outcome.time.sum()), parameters, fit.lrt, settings.decision_years
    )
    return {
        "name": model.name,
        "file": f"{FOLDER}/{model.name}.json",
        "model": model.title,
        "n": outcome.n,
        "events": outcome.n_events,
        "parameters": parameters,
        "epp": outcome.n_events / parameters,
        "c": model.development["c"],
        "shrinkage": needed.shrinkage,
        "needed": needed.patients if needed.patients < 10**9 else None,
        "for_shrinkage": needed.for_shrinkage,
        "for_optimism": needed.for_optimism,
        "for_risk": needed.for_risk,
        "sha256": model.sha256,
    }


def _files(rows: Sequence[dict[str, Any]], settings: AnalysisSettings) -> Item:
    columns = (
        Column("model", "Model"),
        Column("n", "n", "count"),
        Column("events", "Events", "count"),
        Column("parameters", "Parameters", "count"),
        Column("epp", "Events each", "number"),
        Column("c", "C, apparent", "number3"),
        Column("shrinkage", "Expected slope elsewhere", "number"),
        Column("needed", "Patients needed (Riley)", "count"),
        Column("file", "File"),
    )
    note = (
        "Complete cases of all patients. Each file holds coding, coefficients, baseline and editions under "
        "its "
        "own hash, and beside the models with the count is a calculator page (`.html`); "
        "`aiene risk validate FILE COHORT` applies it to other patients without refitting. "
        "Expected "
        "slope: van Houwelingen and le Cessie's heuristic. Patients needed: for an expected slope of 0.9, an "
        "optimism of 0.05 in R², and the overall risk at "
        f"{settings.decision_years:g} years known within 0.05, whichever is most; each of them is in the "
        "CSV."
    )
    return Table("locked_models", "Models locked for other cohorts", columns, plain_rows(rows), note)


def _points(model: LockedModel) -> Table:
    """A points table: the coefficient of one node is the unit, so that the points can be added in the "
    "head."""
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
    columns = (
        Column("term", "Factor"),
        Column("level", "Level"),
        Column("points", "Points", "number"),
        *(Column(f"risk{y:g}", f"Risk at {y:g} years", "percent") for y in years),
    )
    note = (
        f"One point is the effect of one AI-ENE node (coefficient {unit:.3f}; nodes above {model.marker_cap} "
        "do not "
        "count). Add the points of a patient and read the risk off the lower rows. For research."
    )
    return Table(f"points_{model.endpoint}", f"{model.title}: points", columns, plain_rows(rows), note)
