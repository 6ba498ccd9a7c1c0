"""CTs and their label maps, paired by case id and checked before anything is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from aiene.errors import AieneError, InputError, TrainingDataError
from aiene.ingest import Case, Refusal, find_cases, read_case
from aiene.ingest.masks import mask_files, read_mask
from aiene.training.patients import PatientTable
from aiene.training.same_ct import Slices, slices_of
from aiene.training.table import plain_id
from aiene.wording import case_name, file_name, said

LABELS: Final = {"background": 0, "GTVp": 1, "GTVn": 2}
FEWEST_PATIENTS: Final = 5
_ENDINGS: Final = (".nii.gz", ".nii", ".nrrd", ".nhdr")


@dataclass(frozen=True)
class Pair:
    """A CT and its label map.

    Parameters
    ----------
    case_id : of both.
    patient_id : cases of one patient share it, and are never in two folds.
    case : the CT, not read yet.
    label : file of the label map (0 background, 1 GTVp, 2 GTVn) on the CT's grid.
    """

    case_id: str
    patient_id: str
    case: Case
    label: Path


def find_pairs(images: Path, labels: Path, patients: PatientTable | None = None) -> list[Pair]:
    """Every CT of a folder with its label map; nothing is left unpaired.

    Parameters
    ----------
    images : folder of CTs, as `aiene run` takes it; nnU-Net's `_0000` at the end of a name is not part of
        the case id.
    labels : folder of label maps by case id.
    patients : whose CT each is; a case that is not named is a patient of its own.

    Raises
    ------
    TrainingDataError : every CT without labels, every label map without CT, every CT that cannot be used,
        every two CTs with one case id, in one list; also fewer than five patients.
    InputError : a folder that is not there, or holds no CT.
    """
    if not labels.is_dir():
        raise InputError(labels, "there is no such folder", "name the folder of the label maps")
    found, _ = find_cases(images)
    problems = [item.reason for item in found if isinstance(item, Refusal)]
    patient_of = (patients.patient_of if patients else None) or {}
    pairs: list[Pair] = []
    used: set[Path] = set()
    for item in found:
        if isinstance(item, Refusal):
            used.update(_label_files(labels, item.case_id))
            continue
        case_id = plain_id(item.case_id) or item.case_id
        files = _label_files(labels, item.case_id)
        used.update(files)
        if len(files) != 1:
            what = "has no label map" if not files else f"has {len(files)} label maps"
            problems.append(
                said(
                    f"{{}}: {what}; there must be one file {{}} in {{}}.",
                    case_name(case_id),
                    file_name(f"{case_id}.nii.gz"),
                    file_name(labels),
                )
            )
            continue
        pairs.append(Pair(case_id, patient_of.get(case_id, case_id), item, files[0]))
    problems += [
        said("{}: no CT of this case id; add the CT, or take the label map away.", file_name(file))
        for file in sorted(set(_all_labels(labels)) - used)
    ]
    problems += [
        said(f"{{}}: {count} CTs have this case id (with and without _0000?); keep one.", case_name(case))
        for case, count in Counter(pair.case_id for pair in pairs).items()
        if count > 1
    ]
    problems += map(said, _few({pair.patient_id for pair in pairs}) if not problems else [])
    if problems:
        raise TrainingDataError(problems)
    return sorted(pairs, key=lambda pair: pair.case_id.encode())


def check_pairs(pairs: Sequence[Pair], *, needs_nodes: bool = False) -> dict[str, Slices]:
    """Read every CT and label map, and compare them.

    Parameters
    ----------
    pairs : of `find_pairs`.
    needs_nodes : every case must hold the label 2.

    Returns
    -------
    Case id to what tells its CT from others, see `same_ct`.

    Raises
    ------
    TrainingDataError : every CT or label map that cannot be read, geometry that differs, values other than 0,
        1, 2, empty label maps; and, over all cases, no voxel of GTVn.
    """
    problems: list[str] = []
    seen: set[int] = set()
    shown: dict[str, Slices] = {}
    for pair in pairs:
        try:
            ct = read_case(pair.case).volume
            values = {int(v) for v in np.unique(read_mask(pair.label, like=ct.grid).array)}
        except AieneError as error:
            problems.append(str(error) if isinstance(error, InputError) else f"{pair.case_id}: {error}")
            continue
        shown[pair.case_id] = slices_of(ct)
        strange = sorted(values - set(LABELS.values()))
        if strange:
            values_found = ", ".join(map(str, strange))
            problems.append(
                f"{pair.label.name}: it holds the values {values_found}; only 0, 1 (GTVp) and 2 (GTVn)."
            )
        elif not values - {0}:
            problems.append(f"{pair.label.name}: the label map is empty; draw it, or leave the case out.")
        elif needs_nodes and 2 not in values:
            problems.append(f"{pair.label.name}: it holds no node (label 2); leave the case out.")
        seen |= values
    if not problems and 2 not in seen:
        problems.append("No label map holds a node (label 2); nothing can be learned.")
    if problems:
        raise TrainingDataError(problems)
    return shown


def _label_files(folder: Path, case_id: str) -> tuple[Path, ...]:
    short = case_id.removesuffix("_0000")
    return mask_files(folder, short) or mask_files(folder, case_id)


def _all_labels(folder: Path) -> list[Path]:
    return [f for f in folder.iterdir() if f.is_file() and f.name.lower().endswith(_ENDINGS)]


def _few(patients: set[str]) -> list[str]:
    if len(patients) >= FEWEST_PATIENTS:
        return []
    return [f"There are {len(patients)} patients; training and an honest test need at least five."]
