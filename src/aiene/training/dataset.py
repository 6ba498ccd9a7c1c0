"""Training data: CTs paired with their label maps by case id and checked, crops and their files, and folds.

Crops are made by the same preprocessing as at inference. A patient is in one fold only; folds depend on the
seed and the ids alone.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from aiene.csv_tables import plain_id
from aiene.device import available_cores
from aiene.errors import AieneError, InputError, TrainingDataError, case_name, file_name, said
from aiene.geometry.grid import Grid, RigidTransform, Volume
from aiene.geometry.resample import pull_labels
from aiene.hashing import digest
from aiene.ingest.case import Case, Refusal
from aiene.ingest.find import find_cases
from aiene.ingest.fingerprint import content_sha256
from aiene.ingest.formats import volume_endings
from aiene.ingest.masks import mask_files, read_mask
from aiene.ingest.read import read_case
from aiene.models.bundle import Bundle, read_bundle
from aiene.parallel import ENDED, work_through
from aiene.preprocess import profile
from aiene.preprocess.preprocess import Preparation, load_preparation, prepare
from aiene.results.atomic import make_folder, write_bytes
from aiene.results.ownership import refuse_files_within
from aiene.results.reviews import are_reviewed
from aiene.training.patients import PatientTable, Slices, leaks, slices_of

LABELS: Final = {"background": 0, "GTVp": 1, "GTVn": 2}
FOLDS = 5


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


@dataclass(frozen=True, eq=False)
class TrainingCrop:
    """A CT and its labels as the networks see them.

    Parameters
    ----------
    image : float32, HU scaled to [0, 1], on the crop's grid in the template's space.
    labels : uint8 on the same grid: 0, 1 GTVp, 2 GTVn.
    to_native : takes points of the template's space to points of the CT.
    native : grid of the CT.
    """

    case_id: str
    patient_id: str
    image: Volume
    labels: Volume
    to_native: RigidTransform
    native: Grid


@dataclass(frozen=True)
class LeftOut:
    """A case that could not be preprocessed, and why."""

    case_id: str
    reason: str


def read_crop(file: Path, patient_id: str) -> TrainingCrop:
    """A crop that was kept.

    Parameters
    ----------
    file : of `prepared_crops`; its stem is the case id.
    patient_id : whose it is.
    """
    with np.load(file) as stored:
        grid = _grid(stored["grid"], stored["image"].shape)
        return TrainingCrop(
            file.stem,
            patient_id,
            Volume(stored["image"], grid),
            Volume(stored["labels"], grid),
            RigidTransform.from_matrix(stored["to_native"]),
            _grid(stored["native"], stored["native_size"]),
        )


def _grid(affine: npt.NDArray[np.float64], size: Sequence[int]) -> Grid:
    z, y, x = (int(n) for n in size)
    return Grid.from_affine(affine, (z, y, x))


def packed(crop: TrainingCrop, key: str) -> bytes:
    """The bytes of a crop's file; `key` says what it was made of."""
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        key=np.array(key),
        image=crop.image.array,
        labels=crop.labels.array,
        grid=crop.image.grid.affine,
        to_native=crop.to_native.matrix,
        native=crop.native.affine,
        native_size=np.array(crop.native.size),
    )
    return stream.getvalue()


def is_of(file: Path, key: str) -> bool:
    """Whether a crop lies there that was made from the same input in the same way."""
    try:
        with np.load(file) as stored:
            return str(stored["key"]) == key
    except (OSError, ValueError, KeyError):
        return False


OnNote = Callable[[str], None]
"""Told a sentence that the user should know, though nothing is wrong enough to stop."""


@dataclass(frozen=True)
class Step:
    """A step that is done.

    Parameters
    ----------
    stage : `prepare`, `plan`, `preprocess`, `train`, `validate`, ...
    done, of : how many of how many; 0 of 0 where a stage has no steps.
    seconds : since the stage began in this call.
    first : the step at which this call began, so that the time left can be told.
    said : figures of the step, by name.
    """

    stage: str
    done: int
    of: int
    seconds: float = 0.0
    first: int = 0
    said: dict[str, float] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float | None:
        """At the pace of this call; None before the first step, or where there are none."""
        here = self.done - self.first
        if not self.of or here <= 0 or self.seconds <= 0:
            return None
        return self.seconds / here * (self.of - self.done)


OnStep = Callable[[Step], None]


FEWEST_PATIENTS: Final = 5


def find_pairs(
    images: Path, labels: Path, patients: PatientTable | None = None, places: Sequence[Path] = ()
) -> list[Pair]:
    """Every CT of a folder with its label map; nothing is left unpaired.

    Of a review, what its reader is done with: the other CTs have no mask, and take no part.

    Parameters
    ----------
    images : folder of CTs, as `aiene run` takes it; nnU-Net's `_0000` at the end of a name is not part of
        the case id.
    labels : folder of label maps by case id.
    patients : whose CT each is; a case that is not named is a patient of its own.
    places : where the training writes.

    Raises
    ------
    UsageError : a file lies where the training writes.
    TrainingDataError : every CT without labels, every label map without CT, every CT that cannot be used,
        every two CTs with one case id, in one list; also fewer than five patients.
    InputError : a folder that is not there, or holds no CT.
    """
    if not labels.is_dir():
        raise InputError(labels, "there is no such folder", "name the folder of the label maps")
    found, _ = find_cases(images)
    problems = [item.reason for item in found if isinstance(item, Refusal)]
    patient_of = (patients.patient_of if patients else None) or {}
    of_review = are_reviewed(labels)
    pairs: list[Pair] = []
    used: set[Path] = set()
    for item in found:
        if isinstance(item, Refusal):
            used.update(_label_files(labels, item.case_id))
            continue
        case_id = plain_id(item.case_id) or item.case_id
        files = _label_files(labels, item.case_id)
        used.update(files)
        if not files and of_review:
            continue
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
        said("{}: no CT of this case id; add the CT, or remove the label map.", file_name(file))
        for file in sorted(set(labels.iterdir()) - used)
        if file.is_file() and file.name.lower().endswith(volume_endings())
    ]
    problems += [
        said(f"{{}}: {count} CTs have this case id (with and without _0000?); keep one.", case_name(case))
        for case, count in Counter(pair.case_id for pair in pairs).items()
        if count > 1
    ]
    people = len({pair.patient_id for pair in pairs})
    if not problems and people < FEWEST_PATIENTS:
        problems = [said(f"There are {people} patients; training and an honest test need at least five.")]
    if problems:
        raise TrainingDataError(problems)
    for place in places:
        refuse_files_within(place, (file for pair in pairs for file in pair.case.files), "one of the CTs")
        refuse_files_within(place, (pair.label for pair in pairs), "one of the label maps")
    return sorted(pairs, key=lambda pair: pair.case_id.encode())


def check_pairs(pairs: Sequence[Pair], *, needs_nodes: bool = False) -> None:
    """Read every CT and label map, and compare them.

    Parameters
    ----------
    pairs : of `find_pairs`.
    needs_nodes : every case must hold the label 2.

    Raises
    ------
    TrainingDataError : every CT or label map that cannot be read, geometry that differs, values other than 0,
        1, 2, empty label maps; over all cases, no voxel of GTVn; and then each two cases of two patients that
        show the same CT, which would be used for training and evaluation.
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
    problems = problems or leaks(shown, {pair.case_id: pair.patient_id for pair in pairs})
    if problems:
        raise TrainingDataError(problems)


def _label_files(folder: Path, case_id: str) -> tuple[Path, ...]:
    short = case_id.removesuffix("_0000")
    return mask_files(folder, short) or mask_files(folder, case_id)


# Crops


def prepared_crops(
    pairs: Sequence[Pair],
    preparation: Preparation | Bundle,
    folder: Path,
    identity: str,
    on_case: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[list[Path], list[LeftOut]]:
    """Lay every pair onto the template, and keep the crops on disk; what lies there is not made again.

    Within `parallel.elsewhere` other workers make them; the bytes are the same.

    Parameters
    ----------
    pairs : checked.
    preparation : template and profile of the bundle that is trained, or that bundle, which other processes
        can load by themselves.
    folder : for the crops, one `.npz` a case; made if needed.
    identity : of the template and profile; a crop made otherwise, or by another version of the preparation,
        is made anew.
    on_case : told how many of how many cases are done.

    Returns
    -------
    The file of each crop in the order of the pairs, and the cases that were left out: no neck in the CT, or
    labels that lie wholly outside the crop.

    Raises
    ------
    OutputError : a crop cannot be written; what is there stays.
    """
    make_folder(folder)
    tasks: list[tuple[Pair, str]] = []
    for pair in pairs:
        made_of = (content_sha256(pair.case.files), content_sha256([pair.label]))
        key = digest([profile.PREPARATION, identity, *made_of])
        if not is_of(_crop_file(folder, pair), key):
            tasks.append((pair, key))
    failed: dict[str, str] = {}
    done = len(pairs) - len(tasks)
    if done:
        on_case(done, len(pairs))
    work = partial(_packed_crop, preparation=preparation)
    for (pair, _), made in work_through(work, tasks, jobs=1, threads=available_cores(), lost=lambda _: ENDED):
        if isinstance(made, str):
            failed[pair.case_id] = made
        else:
            write_bytes(_crop_file(folder, pair), made)
        done += 1
        on_case(done, len(pairs))
    files = [_crop_file(folder, pair) for pair in pairs if pair.case_id not in failed]
    return files, [LeftOut(pair.case_id, failed[pair.case_id]) for pair in pairs if pair.case_id in failed]


def _crop_file(folder: Path, pair: Pair) -> Path:
    return folder / f"{pair.case_id}.npz"


def _packed_crop(task: tuple[Pair, str], preparation: Preparation | Bundle) -> bytes | str:
    """The content of a crop's file, or why there is none."""
    pair, key = task
    try:
        if isinstance(preparation, Bundle):
            preparation = _preparation_of(str(preparation.path), preparation.sha256)
        return packed(crop_of(pair, preparation), key)
    except AieneError as error:
        return str(error)


@lru_cache(maxsize=1)
def _preparation_of(folder: str, _sha256: str) -> Preparation:
    return load_preparation(read_bundle(Path(folder)))


def crop_of(pair: Pair, preparation: Preparation) -> TrainingCrop:
    """One pair on the template's crop.

    Raises
    ------
    InputError : the CT or its labels cannot be read, or no labelled voxel lies in the crop.
    CaseError : no neck is found in the CT.
    """
    ct = read_case(pair.case)
    labels = read_mask(pair.label, like=ct.volume.grid)
    prepared = prepare(ct, preparation.template, preparation.profile)
    on_crop = pull_labels(labels, prepared.crop.grid, prepared.to_native)
    if not on_crop.array.any():
        raise InputError(
            pair.label, "its labels are outside the crop that the networks see", "leave the case out"
        )
    image = prepared.crop.with_array(prepared.crop.array.astype(np.float32))
    return TrainingCrop(pair.case_id, pair.patient_id, image, on_crop, prepared.to_native, prepared.native)


# Folds


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


def folds_of(strata: Mapping[str, str], table: PatientTable, seed: int) -> dict[str, int]:
    """The user's own folds of these patients where the table has any, else five (or fewer) dealt ones.

    Parameters
    ----------
    strata : patient id to the name of its stratum, as for `deal`.

    Raises
    ------
    InputError : the user's own folds do not fit the patients.
    """
    if table.fold_of is None or table.file is None:
        return deal(strata, min(FOLDS, len(strata)), seed)
    check_folds(sorted(strata), table.fold_of, table.file)
    return {patient: table.fold_of[patient] for patient in strata}
