"""Covariates as columns of a design matrix: how each is coded, and against what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aiene.risk.analyse.cohort import numeric, words

_T = {"T0": 0, "Tis": 0, "T1": 0, "T2": 0, "T3": 1, "T4": 2, "T4a": 2, "T4b": 2}
_N = {"N0": 0, "N1": 0, "N2": 1, "N2a": 1, "N2b": 1, "N2c": 1, "N3": 2, "N3a": 2, "N3b": 2}


@dataclass(frozen=True)
class Term:
    """One covariate.

    Parameters
    ----------
    name : of the setting.
    label : in words.
    reference : level that the others are compared with; empty for a number.
    columns : of the design matrix.
    levels : what each column stands for.
    """

    name: str
    label: str
    reference: str
    columns: tuple[str, ...]
    levels: tuple[str, ...]


@dataclass(frozen=True)
class Design:
    """Covariates of some patients.

    Parameters
    ----------
    matrix : floats, NaN where missing; one row per patient.
    terms : in the order asked for.
    dropped : (name, reason) of those that cannot be used here.
    """

    matrix: pd.DataFrame
    terms: tuple[Term, ...]
    dropped: tuple[tuple[str, str], ...]

    @property
    def complete(self) -> np.ndarray:
        """Patients without a missing covariate; bool (n,)."""
        return np.asarray(self.matrix.notna().all(axis=1).to_numpy(dtype=bool))


def make_design(table: pd.DataFrame, names: Sequence[str]) -> Design:
    """Code the covariates of a table.

    A covariate that is missing everywhere, or does not vary among those who have all the others, is
    dropped with its reason; a level without a patient has no column.
    """
    parts: list[tuple[Term, pd.DataFrame]] = []
    dropped: list[tuple[str, str]] = []
    for name in names:
        term, columns = _CODES[name](table)
        known = columns.notna().all(axis=1)
        varying = [c for c in columns if columns[c][known].nunique() > 1]
        if not known.any():
            dropped.append((term.label, "missing in every patient"))
        elif not varying:
            dropped.append((term.label, "the same in every patient"))
        else:
            trimmed = _trimmed(term, columns.loc[known])
            parts.append((trimmed, columns[list(trimmed.columns)]))
    matrix = pd.concat([c for _, c in parts], axis=1) if parts else pd.DataFrame(index=range(len(table)))
    return Design(matrix, tuple(t for t, _ in parts), tuple(dropped))


def estimable(design: Design, rows: np.ndarray) -> Design:
    """The design of some patients, without the columns that do not vary among them."""
    matrix = design.matrix.loc[rows].reset_index(drop=True)
    dropped = list(design.dropped)
    terms = []
    for term in design.terms:
        trimmed = _trimmed(term, matrix)
        if trimmed.columns:
            terms.append(trimmed)
        else:
            dropped.append((term.label, "the same in every patient with complete data"))
    return Design(matrix[[c for t in terms for c in t.columns]], tuple(terms), tuple(dropped))


def _trimmed(term: Term, matrix: pd.DataFrame) -> Term:
    """The term without columns that do not vary; where nobody has its reference, the first level is it."""
    kept = [i for i, c in enumerate(term.columns) if matrix[c].nunique() > 1]
    reference = term.reference
    columns = [term.columns[i] for i in kept]
    if len(kept) > 1 and reference and bool((matrix[columns].sum(axis=1) == 1).all()):
        reference, kept = term.levels[kept[0]], kept[1:]
    return Term(
        term.name,
        term.label,
        reference,
        tuple(term.columns[i] for i in kept),
        tuple(term.levels[i] for i in kept),
    )


def categorical(ranks: np.ndarray, labels: Sequence[str], name: str) -> pd.DataFrame:
    """Indicator columns of ordered groups against the first that holds a patient; NaN in none (rank -1)."""
    present = [int(r) for r in np.unique(ranks[ranks >= 0])]
    columns = {
        f"{name}: {labels[r]}": np.where(ranks < 0, np.nan, (ranks == r).astype(float)) for r in present[1:]
    }
    return pd.DataFrame(columns, index=range(ranks.size))


_Coded = tuple[Term, pd.DataFrame]


def _number(name: str, label: str, column: str, per: float) -> Callable[[pd.DataFrame], _Coded]:
    def code(table: pd.DataFrame) -> _Coded:
        return Term(name, label, "", (name,), ("",)), pd.DataFrame({name: numeric(table, column) / per})

    return code


def _levels(
    name: str, label: str, column: str, levels: dict[str, str], reference: str
) -> Callable[[pd.DataFrame], _Coded]:
    """Indicators of `levels` (value -> words) against the reference; other values are missing."""

    def code(table: pd.DataFrame) -> _Coded:
        values = words(table, column)
        known = np.isin(values, [*levels, reference])
        columns = {f"{name}_{v}": np.where(known, (values == v).astype(float), np.nan) for v in levels}
        shown = f"{reference.replace('_', ' ')}"
        return Term(name, label, shown, tuple(columns), tuple(levels.values())), pd.DataFrame(columns)

    return code


def _stage(
    name: str, label: str, codes: dict[str, int], levels: tuple[str, str, str]
) -> Callable[[pd.DataFrame], _Coded]:
    """T or N in three classes: edition 7 where the patient has it, else edition 8."""

    def code(table: pd.DataFrame) -> _Coded:
        seven, eight = words(table, f"{name}7"), words(table, f"{name}8")
        ranks = np.array([codes.get(a or b, -1) for a, b in zip(seven, eight, strict=True)])
        columns = {
            f"{name}_{levels[r]}": np.where(ranks < 0, np.nan, (ranks == r).astype(float)) for r in (1, 2)
        }
        return Term(name, label, levels[0], tuple(columns), levels[1:]), pd.DataFrame(columns)

    return code


def _center(table: pd.DataFrame) -> _Coded:
    values = words(table, "center")
    centers = sorted({str(v) for v in values} - {""})
    columns = {
        f"center_{c}": np.where(values == "", np.nan, (values == c).astype(float)) for c in centers[1:]
    }
    reference = centers[0] if centers else ""
    frame = pd.DataFrame(columns, index=range(len(table)))
    return Term("center", "Centre", reference, tuple(columns), tuple(centers[1:])), frame


_CODES: dict[str, Callable[[pd.DataFrame], _Coded]] = {
    "hpv": _levels("hpv", "HPV", "hpv", {"positive": "positive"}, "negative"),
    "pack_years": _number("pack_years", "Pack-years, per 10", "pack_years", 10),
    "t": _stage("t", "T", _T, ("T0-T2", "T3", "T4")),
    "n": _stage("n", "N", _N, ("N0-N1", "N2", "N3")),
    "age": _number("age", "Age, per 10 years", "age", 10),
    "sex": _levels("sex", "Sex", "sex", {"male": "male"}, "female"),
    "ecog": _number("ecog", "ECOG, per point", "ecog", 1),
    "smoking_status": _levels(
        "smoking_status", "Smoking", "smoking_status", {"former": "former", "current": "current"}, "never"
    ),
    "treatment": _levels(
        "treatment", "Treatment", "treatment", {"crt": "chemoradiation", "rt_egfr": "RT + EGFR"}, "rt"
    ),
    "center": _center,
}


def coded(table: pd.DataFrame, name: str) -> tuple[Term, pd.DataFrame]:
    """One covariate with all its columns, whether or not they vary in this table; NaN where missing."""
    return _CODES[name](table)
