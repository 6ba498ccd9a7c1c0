"""Patients dealt into folds: fixed by the seed and their ids, never one patient in two."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from aiene.errors import InputError

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


def fold_count(patients: Sequence[str], own: Mapping[str, int] | None, file: Path | None) -> int:
    """How many folds there will be, where all these patients can be prepared.

    Raises
    ------
    InputError : the user's own folds do not fit the patients.
    """
    if own is None or file is None:
        return min(FOLDS, len(set(patients)))
    check_folds(patients, own, file)
    return len(fold_sizes({p: own[p] for p in patients}))
