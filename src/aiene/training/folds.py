"""Patients dealt into folds: fixed by the seed and their ids, never one patient in two."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from aiene.errors import InputError, TrainingDataError

FOLDS = 5


def deal(strata: Mapping[str, str], folds: int, seed: int) -> dict[str, int]:
    """The fold of each patient, with every stratum spread evenly.

    Parameters
    ----------
    strata : patient id to the name of its stratum; one name for all where nothing is to be balanced.
    folds : how many; at least two, and no more than patients.
    seed : decides the order within a stratum, by SHA-256 of seed and id, so that it does not depend on the
        other patients.

    Raises
    ------
    ValueError : more folds than patients, or fewer than two.
    """
    if not 2 <= folds <= len(strata):
        raise ValueError(f"{folds} folds of {len(strata)} patients")
    groups: dict[str, list[str]] = defaultdict(list)
    for patient in sorted(strata, key=lambda p: hashlib.sha256(f"{seed}/{p}".encode()).hexdigest()):
        groups[strata[patient]].append(patient)
    dealt: dict[str, int] = {}
    for stratum in sorted(groups, key=lambda s: (len(groups[s]), s)):
        for patient in groups[stratum]:
            sizes = Counter(dealt.values())
            in_stratum = Counter(dealt[p] for p in groups[stratum] if p in dealt)
            dealt[patient] = min(range(folds), key=lambda k: (in_stratum[k], sizes[k], k))
    return dealt


def read_patients(file: Path) -> tuple[dict[str, str], dict[str, int] | None]:
    """Whose CT each case is, and the user's own folds where the table has them.

    Parameters
    ----------
    file : CSV with `case_id`, `patient_id` and, if wanted, `fold` (0, 1, ...).

    Returns
    -------
    Case id to patient id, and patient id to fold or None.

    Raises
    ------
    InputError : a column or value that is missing.
    TrainingDataError : each patient that stands in two folds.
    """
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(
            file, "it cannot be read as a CSV table", "give case_id,patient_id[,fold]"
        ) from error
    missing = [c for c in ("case_id", "patient_id") if c not in table]
    if missing or (table[["case_id", "patient_id"]] == "").any(axis=None):
        what = f"the column {missing[0]} is missing" if missing else "a case_id or patient_id is empty"
        raise InputError(file, what, "give case_id,patient_id[,fold] with a value in each row")
    patients = dict(zip(table["case_id"], table["patient_id"], strict=True))
    if "fold" not in table:
        return patients, None
    if not table["fold"].str.fullmatch(r"\d{1,3}").all():
        raise InputError(file, "a fold is no whole number", "number the folds 0, 1, ...")
    by_patient = table.groupby("patient_id")["fold"].agg(lambda column: sorted(set(column)))
    split = [
        f"{p}: in the folds {', '.join(f)}; a patient is in one fold."
        for p, f in by_patient.items()
        if len(f) > 1
    ]
    if split:
        raise TrainingDataError(split)
    return patients, {str(p): int(f[0]) for p, f in by_patient.items()}


def fold_sizes(dealt: Mapping[str, int]) -> list[int]:
    """How many patients each fold has."""
    counts = Counter(dealt.values())
    return [counts[k] for k in range(max(counts, default=-1) + 1)]


def check_folds(patients: Sequence[str], dealt: Mapping[str, int], file: Path) -> None:
    """The user's own folds name every patient, and are 0, 1, ... without a gap.

    Raises
    ------
    InputError : they do not.
    """
    lacking = sorted(set(patients) - dealt.keys())
    if lacking:
        raise InputError(
            file, f"{len(lacking)} patients have no fold, {lacking[0]} first", "give each a fold"
        )
    sizes = fold_sizes({p: dealt[p] for p in patients})
    if len(sizes) < 2 or 0 in sizes:
        raise InputError(file, "the folds are not 0, 1, ... each with a patient", "number them without gaps")
