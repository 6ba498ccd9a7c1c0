"""A prediction model as a file: all that is needed to apply it to other patients, under its own hash.

`analyse` locks its models; `aiene risk validate` applies them as they are. The hash is over the content, so a
coefficient that was changed afterwards is seen.
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
from aiene.report.formatting import plain
from aiene.risk.analyse.cohort import LABELS, numeric, words
from aiene.risk.analyse.design import Term, coded
from aiene.risk.analyse.regression import MARKER, MARKER_TERM, Sample, cox
from aiene.stats.competing_risks import cumulative_incidence, fine_gray
from aiene.stats.concordance import harrell_c
from aiene.stats.records import NotEstimableError
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
