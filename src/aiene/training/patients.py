"""The table of patients: whose CT each case is, and the user's own folds."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiene.errors import InputError, TrainingDataError
from aiene.user_table import Table, plain_id, read_table, unknown_case

_REMEDY: Final = "give case_id,patient_id[,fold] with a value in each row"


@dataclass(frozen=True)
class PatientTable:
    """What `patients.csv` says.

    Parameters
    ----------
    file : where it lies; None where no table was given, so that each case is a patient of its own.
    patient_of : case id to patient id.
    line_of : case id to the line of the table.
    fold_of : patient id to the user's own fold; None where the table has no folds.
    notes : what the user should know of it, one sentence each.
    """

    file: Path | None = None
    patient_of: dict[str, str] | None = None
    line_of: dict[str, int] | None = None
    fold_of: dict[str, int] | None = None
    notes: tuple[str, ...] = ()

    def check_cases(self, known: Iterable[str]) -> tuple[str, ...]:
        """Compare the table with the cases of which there are CTs.

        Returns
        -------
        A note where cases are not in the table, and so are patients of their own.

        Raises
        ------
        TrainingDataError : every row whose case has no CT: a typing error would put one patient's CTs into
            two folds.
        """
        if self.file is None:
            return ()
        cases, lines = set(known), self.line_of or {}
        problems = [
            unknown_case(self.file, line, case, cases) for case, line in lines.items() if case not in cases
        ]
        if problems:
            raise TrainingDataError(problems)
        lacking = sorted(cases - lines.keys())
        if not lacking:
            return ()
        which = f"{len(lacking)} cases are not in it, {lacking[0]} first; each is a patient of its own."
        return (f"{self.file.name}: {which}",)


def read_patients(file: Path | None) -> PatientTable:
    """Read the table of patients.

    Parameters
    ----------
    file : CSV with `case_id`, `patient_id` and, if wanted, `fold` (0, 1, ...); None: there is no table.
        nnU-Net's `_0000` at the end of a case id is not part of it.

    Raises
    ------
    InputError : a column or value that is missing, or a table without rows.
    TrainingDataError : every case that has two rows, patients whose ids differ only in case, each patient
        that stands in two folds.
    """
    if file is None:
        return PatientTable()
    table = read_table(file, _REMEDY)
    missing = [name for name in ("case_id", "patient_id") if name not in table.columns]
    if missing:
        raise InputError(file, f"the column {missing[0]} is missing", _REMEDY)
    if not table.rows:
        raise InputError(file, "it has no rows", _REMEDY)
    for row in table.rows:
        if not plain_id(row.values["case_id"]) or not row.values["patient_id"]:
            raise InputError(file, f"line {row.line}: a case_id or patient_id is empty", _REMEDY)
    problems = [*_doubled(table), *_alike(table)]
    folds, split = _folds(table)
    if problems or split:
        raise TrainingDataError([*problems, *split])
    return PatientTable(
        file,
        {plain_id(row.values["case_id"]): row.values["patient_id"] for row in table.rows},
        {plain_id(row.values["case_id"]): row.line for row in table.rows},
        folds,
        table.notes,
    )


def _doubled(table: Table) -> list[str]:
    """A case in two rows: which of them counts, nobody can say."""
    first: dict[str, int] = {}
    problems = []
    for row in table.rows:
        case = plain_id(row.values["case_id"])
        if case in first:
            problems.append(
                f"{table.file.name}, line {row.line}: the case {case} is already in line {first[case]}; "
                "keep one row per case."
            )
        first.setdefault(case, row.line)
    return problems


def _alike(table: Table) -> list[str]:
    """Patients that are two only by upper and lower case."""
    written: dict[str, set[str]] = defaultdict(set)
    for row in table.rows:
        written[row.values["patient_id"].casefold()].add(row.values["patient_id"])
    return [
        f"{table.file.name}: the patients {' and '.join(sorted(names))} differ only in upper and lower case; "
        "spell one patient identically, or give two patients different names."
        for names in written.values()
        if len(names) > 1
    ]


def _folds(table: Table) -> tuple[dict[str, int] | None, list[str]]:
    if "fold" not in table.columns:
        return None, []
    by_patient: dict[str, set[int]] = defaultdict(set)
    for row in table.rows:
        if not re.fullmatch(r"[0-9]{1,3}", row.values["fold"]):
            problem = f"line {row.line}: a fold is not a whole number"
            raise InputError(table.file, problem, "number the folds 0, 1, ...")
        by_patient[row.values["patient_id"]].add(int(row.values["fold"]))
    split = [
        f"{patient}: in the folds {', '.join(map(str, sorted(folds)))}; a patient must be in one fold."
        for patient, folds in by_patient.items()
        if len(folds) > 1
    ]
    return {patient: min(folds) for patient, folds in by_patient.items()}, split
