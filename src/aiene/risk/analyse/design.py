"""Covariates as columns of a design matrix: how each is coded, and against what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from aiene.errors import UsageError
from aiene.risk.analyse.cohort import numeric, words
from aiene.risk.staging.stage import stage_table

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

    def against(self, level: str) -> str:
        """A level with what it is compared with; empty for a number."""
        return f"{level} (against {self.reference})" if self.reference else ""


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

    def labels(self, *more: Term) -> dict[str, tuple[Term, str]]:
        """Term and level of each column; of those of further terms too."""
        return {
            column: (term, level)
            for term in (*more, *self.terms)
            for column, level in zip(term.columns, term.levels, strict=True)
        }


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


def varying(matrix: pd.DataFrame) -> pd.DataFrame:
    """The columns that vary."""
    return matrix[[c for c in matrix if matrix[c].nunique() > 1]]


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
    kept = [(c, level) for c, level in zip(term.columns, term.levels, strict=True) if matrix[c].nunique() > 1]
    reference, columns = term.reference, [c for c, _ in kept]
    if len(kept) > 1 and reference and bool((matrix[columns].sum(axis=1) == 1).all()):
        reference, kept = kept[0][1], kept[1:]
    columns_left, levels = tuple(c for c, _ in kept), tuple(level for _, level in kept)
    return replace(term, reference=reference, columns=columns_left, levels=levels)


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
    """T or N in three classes, of one edition, which the label names."""

    def code(table: pd.DataFrame) -> _Coded:
        known = table if f"{name}_covariate" in table else with_one_edition(table, [name])
        edition = next(iter(known[f"{name}_covariate_edition"]), "")
        ranks = np.array([codes.get(word, -1) for word in words(known, f"{name}_covariate")])
        in_words = f"{label}, edition {edition}" if edition else label
        columns = {
            f"{name}_{levels[r]}": np.where(ranks < 0, np.nan, (ranks == r).astype(float)) for r in (1, 2)
        }
        return Term(name, in_words, levels[0], tuple(columns), levels[1:]), pd.DataFrame(columns)

    return code


def with_one_edition(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The table with T and N as covariates: `t_covariate`, `n_covariate` and their `_edition`.

    Edition 7 where every patient with a category has one of it, else 8 where every one has that. Where
    the table mixes them, edition 7 is converted to 8, which loses nothing in p16-positive
    disease and, where the extension is known, in p16-negative disease.

    Parameters
    ----------
    names : covariates; only `t` and `n` among them are looked at.

    Raises
    ------
    UsageError : the editions are mixed and a patient's category cannot be converted.
    """
    out = table.copy()
    for name in (n for n in ("t", "n") if n in names):
        seven, eight = (_told(table, f"{name}{edition}") for edition in (7, 8))
        known = (seven != "") | (eight != "")
        if not (seven == "")[known].any():
            category, edition = seven, "7"
        elif not (eight == "")[known].any():
            category, edition = eight, "8"
        else:
            category, edition = np.where(eight != "", eight, _converted(table, name)), "8"
            lost = int((known & (category == "")).sum())
            if lost:
                raise UsageError(
                    f"{name.upper()} is of edition 7 in {int((seven != '').sum())} patients and of edition 8 "
                    f"in {int((eight != '').sum())}, and {lost} of edition 7 cannot be converted without "
                    f"loss{_WHY[name]}: bring {name.upper()} to one edition, or leave {name} out of "
                    "--covariates."
                )
        out[f"{name}_covariate"] = pd.array(category, dtype="string")
        out[f"{name}_covariate_edition"] = edition if known.any() else ""
    return out


def edition_warnings(table: pd.DataFrame) -> list[str]:
    """What a reader must know of the edition that T and N were taken by, see `with_one_edition`."""
    warnings = []
    for name in ("t", "n"):
        if f"{name}_covariate" not in table or "8" not in set(words(table, f"{name}_covariate_edition")):
            continue
        converted = int(((_told(table, f"{name}8") == "") & (_told(table, f"{name}7") != "")).sum())
        if converted:
            warnings.append(
                f"{name.upper()} of edition 7 in {converted} patients was converted to edition 8, which the "
                "others have."
            )
        if name == "n" and len(set(words(table, "hpv")) - {""}) > 1:
            warnings.append(
                "N of edition 8 means another thing in p16-positive than in p16-negative disease; in all "
                "patients its hazard ratios mix the two, so read them within HPV strata."
            )
    return warnings


_WHY = {
    "t": " (not of the oropharynx)",
    "n": " (p16-negative or untested with clinical_ene unknown, else --ene-unknown negative; or a bare N2)",
}


def _told(table: pd.DataFrame, column: str) -> np.ndarray:
    """T or N of a column, empty where it is missing or X."""
    found = words(table, column)
    return np.where(np.array([str(word).endswith("X") for word in found], dtype=bool), "", found)


def _converted(table: pd.DataFrame, name: str) -> np.ndarray:
    """T or N of edition 8 as the staging converts it; empty where it does not.

    T of the oropharynx has the same classes in both, but for T4a and T4b, which are one here anyway.
    """
    staged = table if "ajcc8_n" in table else stage_table(table)
    own = words(staged, "ajcc8_n") if name == "n" else _told(table, "t7")
    inside = np.isin(words(table, "site"), ("oropharynx", "unknown_primary", ""))
    return np.where(inside & np.isin(own, [*_N, *_T]), own, "")


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
