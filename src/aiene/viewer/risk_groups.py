"""The risk group of a patient for any AI-ENE number, by the scheme and the staging of a stratified table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from aiene.errors import InputError, UsageError
from aiene.results.atomic import read_json
from aiene.risk.schemes.scheme import Scheme, SchemeSource, read_scheme
from aiene.risk.staging.stage import StagingOptions
from aiene.risk.stratify import UNCLASSIFIABLE, stratify
from aiene.risk.table.read import read_table

_AGAIN = "make it with aiene risk stratify TABLE --ai-ene OUT -o groups.csv"


@dataclass(frozen=True)
class Group:
    """A patient's risk group.

    Parameters
    ----------
    name : the combined group, or that there is none.
    words : base group, class of the count and scheme; or why there is no group.
    """

    name: str
    words: str


@dataclass(frozen=True, eq=False)
class RiskGroups:
    """A clinical table that was stratified, ready to be asked with other counts.

    Parameters
    ----------
    table : canonical, one row per patient.
    scheme, options : as the table was stratified.
    pattern : finds the patient's id in a case id; None: they are the same.
    """

    table: pd.DataFrame
    scheme: Scheme
    options: StagingOptions
    pattern: re.Pattern[str] | None = None

    def of(self, counts: Mapping[str, int | None]) -> dict[str, Group]:
        """The group of each case by its id, for its AI-ENE number; None has no group."""
        patients = {case_id: self._patient(case_id) for case_id in counts}
        known = set(self.table["patient_id"])
        asked = pd.DataFrame({"patient_id": [p for p in patients.values() if p in known]})
        found = {case_id: Group("none", "not in the clinical table") for case_id in counts}
        if asked.empty:
            return found
        rows = self.table.set_index("patient_id").loc[asked["patient_id"]].reset_index()
        by_patient = {patients[case_id]: count for case_id, count in counts.items()}
        numbers = [by_patient[patient] for patient in rows["patient_id"]]
        rows[self.scheme.marker] = pd.array(numbers, dtype="Int64")
        if all(number is None for number in numbers):
            return found | {c: Group("none", "no AI-ENE number") for c, p in patients.items() if p in known}
        groups = stratify(rows, self.scheme, options=self.options).set_index("patient_id")
        return found | {
            case_id: _group(groups.loc[patient], self.scheme)
            for case_id, patient in patients.items()
            if patient in known
        }

    def _patient(self, case_id: str) -> str:
        if self.pattern is None:
            return case_id
        match = self.pattern.search(case_id)
        if match is None:
            return ""
        return str(match.group(1) or "") if self.pattern.groups else match.group(0)


def read_risk_groups(path: Path, id_pattern: str | None = None) -> RiskGroups:
    """A table that `aiene risk stratify` wrote.

    Raises
    ------
    InputError : it cannot be read, or is no such table.
    UsageError : the pattern is no regular expression, or the scheme is not here.
    """
    table = read_table(path, lenient=True)
    if "scheme" not in table or table["scheme"].dropna().nunique() != 1:
        raise InputError(path, "it has no column scheme, so no risk groups", _AGAIN)
    record = read_json(path.with_suffix(".json")) or {}
    scheme = _scheme(str(table["scheme"].dropna().iloc[0]), record)
    stored = record.get("staging", {})
    known = {field.name for field in fields(StagingOptions)}
    options = StagingOptions(**{name: value for name, value in stored.items() if name in known})
    try:
        pattern = None if id_pattern is None else re.compile(id_pattern)
    except re.error as error:
        raise UsageError(f"--id-pattern is not a regular expression ({error}).") from error
    return RiskGroups(table, scheme, options, pattern)


def _scheme(name: str, record: Mapping[str, Any]) -> Scheme:
    """The scheme by its shipped name, else from the record beside the table, which holds all of it."""
    content = record.get("scheme")
    if not isinstance(content, dict):
        return read_scheme(name)
    kept: dict[str, Any] = {f.name: content[f.name] for f in fields(Scheme) if f.name in content}
    try:
        kept["source"] = SchemeSource(**kept["source"])
        kept["mapping"] = {group: tuple(row) for group, row in kept["mapping"].items()}
        kept |= {key: tuple(kept[key]) for key in ("cutoffs", "groups")}
        return Scheme(**kept)
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"the record next to the clinical table contains no scheme; {_AGAIN}.") from error


def _group(row: Any, scheme: Scheme) -> Group:
    name = str(row["combined_group"])
    if name == UNCLASSIFIABLE:
        return Group(name, str(row["combined_reason"]))
    base = "" if scheme.base == "none" else f"{scheme.base} {row['base_group']}, "
    return Group(name, f"{base}count {row['marker_class']}; scheme {scheme.name}")
