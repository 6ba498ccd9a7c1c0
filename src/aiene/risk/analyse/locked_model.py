"""A prediction model as a file: all that is needed to apply it to other patients, under its own hash.

`analyse` locks its models; `aiene risk validate` applies them as they are. The hash is over the content, so a
coefficient that was changed afterwards is seen. Each comes with its points, a page that calculates for one
patient, a nomogram, and whether the patients are enough.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from aiene.errors import InputError, UsageError
from aiene.hashing import digest
from aiene.provenance import version
from aiene.report.document import RESEARCH_ONLY, Figure, Item, Section, Table, Text
from aiene.report.formatting import plain
from aiene.report.write import filled
from aiene.results.atomic import make_folder
from aiene.results.ownership import Owned
from aiene.risk.analyse.charts.forest import draw_nomogram
from aiene.risk.analyse.cohort import EVENTS, LABELS, Cohort, numeric, words
from aiene.risk.analyse.design import Term, coded
from aiene.risk.analyse.records import (
    AnalysisSettings,
    Endpoint,
    Part,
    Skipped,
    fields_of,
    figure_of,
    table_of,
)
from aiene.risk.analyse.regression import MARKER, MARKER_TERM, Sample, cox, sample_of_all
from aiene.risk.schemes.scheme import Scheme
from aiene.stats.competing_risks import cumulative_incidence, fine_gray
from aiene.stats.concordance import harrell_c
from aiene.stats.records import NotEstimableError
from aiene.stats.sample_size import required_sample
from aiene.stats.survival_curves import step

FORMAT = "aiene locked model 1"
Kind = Literal["cox", "fine_gray"]


@dataclass(frozen=True)
class LockedModel:
    """Coefficients, baseline and coding of a model that is not fitted again.

    Parameters
    ----------
    name, title : for files; in words.
    endpoint : os, dc, lrc or dfs.
    kind : `cox`, or `fine_gray` where death competes.
    terms : covariates in their coding, the count first where it is one.
    coefficients, std_errors, means : by column of the terms, in order; the linear predictor of a patient
        with the means is 0.
    marker_cap : no count above this.
    baseline_years, baseline_hazard : cumulative (subdistribution) hazard of a patient with the means.
    last_year : longest follow-up; no risk is predicted beyond.
    editions : of T and N, where they are covariates.
    development : patients, events, concordance, spread of the linear predictor, observed risks.
    source : scheme, simulated counts, time origin, version.
    """

    name: str
    title: str
    endpoint: str
    kind: Kind
    terms: tuple[Term, ...]
    coefficients: tuple[float, ...]
    std_errors: tuple[float, ...]
    means: tuple[float, ...]
    marker_cap: int
    baseline_years: tuple[float, ...]
    baseline_hazard: tuple[float, ...]
    last_year: float
    editions: Mapping[str, str]
    development: Mapping[str, Any]
    source: Mapping[str, Any]

    def __post_init__(self) -> None:
        numbers = (self.coefficients, self.std_errors, self.means)
        if any(len(part) != len(self.columns) or not np.isfinite(part).all() for part in numbers):
            raise UsageError(f"model {self.name}: coefficients, errors and means do not fit its covariates.")
        steps = np.diff([0.0, *self.baseline_hazard]), np.diff([0.0, *self.baseline_years])
        if len(self.baseline_years) != len(self.baseline_hazard) or any((s < 0).any() for s in steps):
            raise UsageError(f"model {self.name}: its cumulative baseline hazard decreases with time.")
        if self.endpoint not in LABELS or self.kind not in ("cox", "fine_gray"):
            raise UsageError(f"model {self.name}: unknown endpoint or kind of model.")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the design, in the order of the coefficients."""
        return tuple(column for term in self.terms for column in term.columns)

    def content(self) -> dict[str, Any]:
        """The model as JSON values."""
        return {"format": FORMAT, **plain(asdict(self))}

    @property
    def sha256(self) -> str:
        """Hash of the content, which signs the file."""
        return digest(self.content())

    def linear_predictor(self, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Linear predictor (n,), NaN where there is none, and why there is none, (n,) of text.

        Raises
        ------
        UsageError : T or N of the table are of another edition than the model's, or a covariate is coded
            differently by this version.
        """
        self._check_editions(table)
        score, reason = np.zeros(len(table)), np.full(len(table), "", dtype=object)
        betas, means = (
            dict(zip(self.columns, part, strict=True)) for part in (self.coefficients, self.means)
        )
        for term in self.terms:
            whole, matrix = _columns_of(table, term.name, self.marker_cap)
            if matrix.isna().to_numpy().all():
                raise UsageError(
                    f"model {self.name} needs {term.label}, and no patient of the table has a value of it."
                )
            if term.label != whole.label:
                raise UsageError(
                    f"model {self.name} was made with '{term.label}', and this table gives '{whole.label}'; "
                    "they are not the same covariate."
                )
            missing = matrix.isna().any(axis=1).to_numpy(dtype=bool)
            unseen = _unseen(term, whole, matrix)
            whys = ((missing, "is missing"), (unseen, "has a level that the model was not fitted on"))
            for gone, why in whys:
                reason[gone & (reason == "")] = f"{term.label} {why}"
            for column in term.columns:
                score += betas[column] * (matrix[column].to_numpy(dtype=float) - means[column])
        return np.where(reason == "", score, np.nan), reason

    def hazard(self, years: Sequence[float]) -> np.ndarray:
        """Cumulative baseline hazard by each year, (k,)."""
        return step(np.array(self.baseline_years), np.array(self.baseline_hazard), np.array(years), 0.0)

    def risk(self, linear_predictor: np.ndarray, years: Sequence[float]) -> np.ndarray:
        """Risk of the event by each year, (n, k).

        Raises
        ------
        NotEstimableError : a year lies beyond the follow-up that the model was made with.
        """
        if beyond := [y for y in years if y > self.last_year]:
            raise NotEstimableError(
                f"the model was followed for {self.last_year:.1f} years and gives no risk at {beyond[0]:g}",
                "choose an earlier year",
            )
        hazard = self.hazard(years)
        with np.errstate(over="ignore"):
            return np.asarray(1 - np.exp(-np.exp(linear_predictor)[:, None] * hazard[None, :]))

    def _check_editions(self, table: pd.DataFrame) -> None:
        for letter, mine in self.editions.items():
            theirs = editions_of(table, letter)
            if not set(theirs.split(", ")) <= {"", *mine.split(", ")}:
                raise UsageError(
                    f"model {self.name} was made with {letter.upper()} of edition {mine}, and the table has "
                    f"edition {theirs}: the categories are not the same."
                )


def editions_of(table: pd.DataFrame, letter: str) -> str:
    """The editions of T or N that a table names, such as `7` or `7, 8`."""
    column = f"edition_{letter}"
    return ", ".join(sorted(set(words(table, column)) - {""})) if column in table else ""


def _columns_of(table: pd.DataFrame, name: str, cap: int) -> tuple[Term, pd.DataFrame]:
    if name == MARKER:
        return MARKER_TERM, pd.DataFrame({MARKER: np.minimum(numeric(table, MARKER), cap)})
    return coded(table, name)


def _unseen(term: Term, whole: Term, matrix: pd.DataFrame) -> np.ndarray:
    """Patients of a level that nobody had when the model was made; bool (n,)."""
    if not whole.reference:
        return np.zeros(len(matrix), dtype=bool)
    seen = {c for c, level in zip(whole.columns, whole.levels, strict=True) if level == term.reference}
    others = matrix[[c for c in matrix if c not in seen and c not in term.columns]].eq(1).any(axis=1)
    in_reference = matrix[list(whole.columns)].eq(0).all(axis=1) & (term.reference != whole.reference)
    return np.asarray((others | in_reference).to_numpy(dtype=bool))


def lock(sample: Sample, *, cap: int, years: Sequence[float], with_marker: bool, scheme: str) -> LockedModel:
    """Fit a model on the complete cases and lock it.

    Parameters
    ----------
    sample : patients and covariates.
    cap : the count enters capped at this.
    years : at which the observed risk is noted, where the follow-up reaches them.
    with_marker : the count is a covariate.
    scheme : name and hash of the scheme that the analysis used, for the record.

    Raises
    ------
    NotEstimableError : the model cannot be fitted, or cannot be applied elsewhere.
    """
    outcome, design, count = sample.complete()
    if any(term.name == "center" for term in design.terms):
        raise NotEstimableError("a centre is a covariate, so no other centre can apply it", "leave it out")
    terms = (MARKER_TERM, *design.terms) if with_marker else design.terms
    capped = np.minimum(count, cap)
    matrix = design.matrix.assign(**{MARKER: capped})[[c for t in terms for c in t.columns]]
    if not matrix.shape[1]:
        raise NotEstimableError("it has no covariate", "name at least one")
    values = matrix.to_numpy(dtype=float)
    if outcome.competes:
        regression = fine_gray(outcome.time, outcome.state, matrix)
        rows, times, hazard = regression.rows, regression.baseline_times, regression.baseline_hazard
    else:
        fit = cox(outcome.time, outcome.event, matrix)
        if fit.model is None or fit.separation:
            raise NotEstimableError("a covariate separates those with the event", "merge sparse levels")
        rows, times, hazard = fit.rows, fit.model.baseline_times, fit.model.baseline_hazard
    beta, means = np.array([r.coef for r in rows]), values.mean(axis=0)
    score = ((values - means) * beta).sum(axis=1)
    curve = cumulative_incidence(outcome.time, outcome.state)
    reached = [float(y) for y in sorted(set(years)) if y < outcome.time.max()]
    kept = sample.table.loc[sample.design.complete]
    suffix, what = ("_count", " + AI-ENE count") if with_marker else ("", "")
    return LockedModel(
        name=f"{outcome.name}_clinical{suffix}",
        title=f"{outcome.label}: clinical factors{what}",
        endpoint=outcome.name,
        kind="fine_gray" if outcome.competes else "cox",
        terms=tuple(terms),
        coefficients=tuple(beta.tolist()),
        std_errors=tuple(float(r.std_error) for r in rows),
        means=tuple(means.tolist()),
        marker_cap=cap,
        baseline_years=tuple(times.tolist()),
        baseline_hazard=tuple((hazard * np.exp(means @ beta)).tolist()),
        last_year=float(outcome.time.max()),
        editions={t.name: editions_of(kept, t.name) for t in terms if t.name in ("t", "n")},
        development={
            "patients": outcome.n,
            "events": outcome.n_events,
            "c": harrell_c(outcome.time, outcome.event, score).c,
            "sd_linear_predictor": float(score.std()),
            "observed": {f"{y:g}": e.value for y, e in zip(reached, curve.at(reached), strict=True)},
        },
        source={
            "aiene": version(),
            "scheme": scheme,
            "simulated": bool((words(kept, "ai_ene_source") == "simulated").any()),
            "time_origin": ", ".join(sorted(set(words(kept, "time_origin")) - {""})),
        },
    )


def model_bytes(model: LockedModel) -> bytes:
    """The file of a model."""
    return (json.dumps({**model.content(), "sha256": model.sha256}, indent=1) + "\n").encode()


def is_model(path: Path) -> bool:
    """Whether a file says that it is a locked model."""
    try:
        return path.is_file() and f'"format": "{FORMAT}"'.encode() in path.read_bytes()[:4096]
    except OSError:
        return False


def read_model(path: Path) -> LockedModel:
    """A model from its file.

    Raises
    ------
    InputError : the file is no locked model, or was changed after it was locked.
    """
    if not path.is_file():
        raise InputError(path, "no such file", "name a file that `analyse` wrote")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        signed = content.pop("sha256")
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        terms = tuple(Term(**_tuples(term)) for term in content.pop("terms"))
        model = LockedModel(terms=terms, **_tuples(content))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            path, "it is not a locked model of aiene", "name a file that `analyse` wrote"
        ) from error
    if model.sha256 != signed:
        raise InputError(
            path, "its content does not match its signature: it was changed after it was locked",
            "use the file as `analyse` wrote it",
        )  # fmt: skip
    return model


def _tuples(content: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}


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
    return Section("locked", "Locked models", tuple(items)), Part(tuple(items), tuple(skipped))


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
    row |= {**outcome.counts, "parameters": parameters}
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
