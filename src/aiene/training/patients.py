"""Whose CT each case is: the table of patients and folds, and the same CT under two case ids.

The same CT is found by what it shows, not by its files. A copy may lie in another format, order of storage or
compression, may have lost slices at its ends, or have more air around it. So axial slices are compared one by
one, each by how often each HU occurs in it: that is the same in whatever order its voxels are stored. Noise
makes the slices of two scans differ. A CT that was resampled, smoothed or rescaled is not recognised.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from aiene.csv_tables import Table, plain_id, read_table, unknown_case
from aiene.errors import InputError, TrainingDataError
from aiene.geometry.grid import Volume

Key = TypeVar("Key", bound=Hashable)
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
    return [
        f"{table.file.name}, line {line}: the case {case} is already in line {first}; keep one row per case."
        for line, first, case in repeats((row.line, plain_id(row.values["case_id"])) for row in table.rows)
    ]


def repeats(rows: Iterable[tuple[int, Key]]) -> list[tuple[int, int, Key]]:
    """Lines that are about what an earlier one is about: the line, that earlier one, and what it is."""
    first: dict[Key, int] = {}
    return [(line, first[key], key) for line, key in rows if first.setdefault(key, line) != line]


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


_OVER_HU: Final = -500
"""Air and padding differ between copies; what is denser is the patient, and the couch."""
_SHARE: Final = 0.1
"""Two scans share no slice at all; an empty couch below the chin may look the same in a few."""

Slices = frozenset[bytes]


def slices_of(ct: Volume) -> Slices:
    """A digest of every axial slice that shows anything denser than air.

    Parameters
    ----------
    ct : HU in any order of storage; values are rounded, and those that are no numbers left out.
    """
    axis = int(np.argmax(np.abs(np.array(ct.grid.direction)[:, 2])))
    planes = np.moveaxis(ct.array, axis, 0)
    return frozenset(digest for digest in map(_digest, planes) if digest is not None)


def same_cts(slices: Mapping[str, Slices]) -> list[tuple[str, str]]:
    """Pairs of cases that share a tenth of the slices of the shorter one, and at least one.

    Parameters
    ----------
    slices : case id to `slices_of` its CT.
    """
    holders: dict[bytes, list[str]] = defaultdict(list)
    for case in sorted(slices):
        for digest in slices[case]:
            holders[digest].append(case)
    shared: dict[tuple[str, str], int] = defaultdict(int)
    for cases in holders.values():
        for pair in combinations(cases, 2):
            shared[pair] += 1
    return sorted(
        pair
        for pair, count in shared.items()
        if count >= _SHARE * min(len(slices[pair[0]]), len(slices[pair[1]]))
    )


def leaks(slices: Mapping[str, Slices], patient_of: Mapping[str, str]) -> list[str]:
    """One sentence for every CT that would be used for training and evaluation, under two names.

    Parameters
    ----------
    slices : case id to `slices_of` its CT.
    patient_of : case id to patient id.
    """
    return [
        f"{first}, {second}: they show the same CT; remove one, or give both one patient_id with --patients."
        for first, second in same_cts(slices)
        if patient_of[first] != patient_of[second]
    ]


def _digest(plane: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes | None:
    finite = plane[np.isfinite(plane)]
    values, counts = np.unique(np.rint(finite[finite > _OVER_HU]).astype(np.int64), return_counts=True)
    if not len(values):
        return None
    return hashlib.blake2b(np.stack([values, counts]).tobytes(), digest_size=16).digest()
