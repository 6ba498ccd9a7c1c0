"""What a classifier is trained on: the user's choice, checked, and the nodes of the crops."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from aiene.csv_tables import unknown_case
from aiene.errors import TrainingDataError, UsageError
from aiene.hashing import digest
from aiene.models.bundle import Bundle
from aiene.results.atomic import make_folder, write_bytes, write_json
from aiene.training.classifier_fit import FitSettings
from aiene.training.dataset import FEWEST_PATIENTS, check_folds, deal, pairs_of, prepared_crops
from aiene.training.metrics import Rule
from aiene.training.nodes import Example, NodeRow, examples_of, read_nodes
from aiene.training.patients import PatientTable, read_patients
from aiene.training.place import read_record
from aiene.training.records import FOLDS, LeftOut, OnNote, OnStep, Pair, Step, read_crop
from aiene.training.start import RECORDS, check_record, preparation_identity, preparation_of


@dataclass(frozen=True)
class ClassifierTraining:
    """What a user chooses for the training of a classifier.

    Parameters
    ----------
    images, labels : folders of CTs and of label maps on their grids; nodes are split from label 2.
    nodes : table of what pathology says of each node, see `read_nodes`.
    out : the bundle's folder; its work lies beside it in `<out>.training`.
    patients : table of case and patient ids, and of own folds.
    widths : `small` or `published`; not used with `start_from`.
    start_from : name or folder of a bundle whose classifier is the start.
    rule, sensitivity : how the ENE threshold is chosen, see `threshold`.
    go_on : take up a training that was stopped.
    fit : schedule, seed and device.
    """

    images: Path
    labels: Path
    nodes: Path
    out: Path
    patients: Path | None = None
    widths: Literal["small", "published"] = "small"
    start_from: str | None = None
    rule: Rule = "youden"
    sensitivity: float = 0.9
    go_on: bool = False
    fit: FitSettings = field(default_factory=FitSettings)


@dataclass(frozen=True)
class ClassifierData:
    """The nodes to learn from.

    Parameters
    ----------
    examples : every node that the table names, in the cases that could be prepared.
    fold_of : patient id to fold.
    left_out : cases that could not be prepared.
    unnamed : how many nodes of these cases no row names.
    """

    examples: tuple[Example, ...]
    fold_of: dict[str, int]
    left_out: tuple[LeftOut, ...]
    unnamed: int

    @property
    def folds(self) -> int:
        """How many there are."""
        return max(self.fold_of.values()) + 1

    def of(self, *folds: int) -> list[Example]:
        """The nodes of some folds."""
        return [e for e in self.examples if self.fold_of[e.patient_id] in folds]


def inputs_of(settings: ClassifierTraining) -> dict[str, Path | None]:
    """What is read, by its option."""
    return {
        "--images": settings.images,
        "--labels": settings.labels,
        "--nodes": settings.nodes,
        "--patients": settings.patients,
    }


@dataclass(frozen=True)
class ChosenNodes:
    """The pairs that the table of nodes names, its rows by case, and the table of patients."""

    pairs: list[Pair]
    rows: dict[str, list[NodeRow]]
    patients: PatientTable


def chosen_nodes(settings: ClassifierTraining, places: tuple[Path, ...], on_note: OnNote) -> ChosenNodes:
    """The pairs that are named in the table of nodes; no CT is read yet.

    Parameters
    ----------
    settings : what the user chose.
    places : folders that are written.
    on_note : told what the user should know of the input.

    Raises
    ------
    TrainingDataError, InputError : images, labels or tables cannot be used.
    UsageError : an input lies where the training writes.
    """
    patients = read_patients(settings.patients)
    by_case: dict[str, list[NodeRow]] = defaultdict(list)
    for row in read_nodes(settings.nodes):
        by_case[row.case_id].append(row)
    pairs = pairs_of(settings.images, settings.labels, patients, places)
    known = {pair.case_id for pair in pairs}
    for note in (*patients.notes, *patients.check_cases(known)):
        on_note(note)
    strangers = [
        unknown_case(settings.nodes, rows[0].line, case, known)
        for case, rows in by_case.items()
        if case not in known
    ]
    if strangers:
        raise TrainingDataError(strangers)
    pairs = [pair for pair in pairs if pair.case_id in by_case]
    people = {pair.patient_id for pair in pairs}
    _check_enough(len(people))
    if patients.fold_of is not None and patients.file is not None:
        check_folds(sorted(people), patients.fold_of, patients.file)
    return ChosenNodes(pairs, by_case, patients)


def classifier_data(
    settings: ClassifierTraining, base: Bundle, chosen: ChosenNodes, work: Path, on_step: OnStep
) -> ClassifierData:
    """Prepare the CTs, split their nodes, and give each its row and its fold.

    Raises
    ------
    TrainingDataError : rows that fit no node, nodes with two rows, one class of ENE only, too few patients.
    OutputError : a crop cannot be written.
    """
    files, left_out = prepared_crops(
        chosen.pairs,
        base,
        work / "crops",
        preparation_identity(base),
        lambda done, of: on_step(Step("prepare", done, of)),
    )
    patient_of = {pair.case_id: pair.patient_id for pair in chosen.pairs}
    matched = [examples_of(read_crop(f, patient_of[f.stem]), chosen.rows[f.stem]) for f in files]
    problems = [f"{settings.nodes.name}, {problem}" for one in matched for problem in one.problems]
    if problems:
        raise TrainingDataError(problems)
    examples = tuple(e for one in matched for e in one.examples)
    if {e.ene for e in examples} < {0.0, 1.0}:
        reasons = [f"{left.case_id}: {left.reason}" for left in left_out]
        last = "The cases that could be prepared hold nodes of one class of ENE only; both are needed."
        raise TrainingDataError([*reasons, last])
    fold_of = _folds(settings, examples, chosen.patients)
    return ClassifierData(examples, fold_of, tuple(left_out), sum(one.unnamed for one in matched))


def _check_enough(patients: int) -> None:
    if patients < FEWEST_PATIENTS:
        problem = f"{patients} patients have a node that the table names; at least five are needed."
        raise TrainingDataError([problem])


def _folds(settings: ClassifierTraining, examples: Sequence[Example], table: PatientTable) -> dict[str, int]:
    """Patients with extension, with known nodes without, and others, each spread over the folds."""
    kinds: dict[str, set[float]] = defaultdict(set)
    for example in examples:
        kinds[example.patient_id].add(example.ene)
    strata = {p: "ene" if 1.0 in seen else "none" if 0.0 in seen else "unknown" for p, seen in kinds.items()}
    _check_enough(len(strata))
    if table.fold_of is not None and table.file is not None:
        check_folds(sorted(strata), table.fold_of, table.file)
        return {p: table.fold_of[p] for p in strata}
    return deal(strata, FOLDS, settings.fit.seed)


def record_of(settings: ClassifierTraining, base: Bundle) -> dict[str, Any]:
    """What must be the same for a training to be taken up, besides the nodes."""
    return {
        "images": str(settings.images.resolve()),
        "labels": str(settings.labels.resolve()),
        "table": str(settings.nodes.resolve()),
        "fit": {**asdict(settings.fit), "device": settings.fit.device.split(":")[0]},
        "widths": settings.widths,
        "start": base.sha256 if settings.start_from is not None else None,
        "preparation": preparation_of(base),
    }


def check_work(work: Path, settings: ClassifierTraining, record: dict[str, Any]) -> None:
    """Whether the work folder is free for this training.

    Raises
    ------
    UsageError : it holds another training, or this one, which is not to be taken up.
    """
    check_record(work, "classifier", record, go_on=settings.go_on)
    if read_record(work / RECORDS["classifier"]) and not settings.go_on:
        raise UsageError(f"{work.name} holds a training already; continue it with --continue, or remove it.")


def note_nodes(work: Path, record: dict[str, Any], data: ClassifierData) -> None:
    """The models of earlier calls are only taken up where they were trained on the same nodes."""
    nodes = [(e.case_id, e.name, e.patient_id, e.pos, e.ene, _mask_hash(e)) for e in data.examples]
    now, file = digest([nodes, data.fold_of]), work / "nodes.sha256"
    if (
        read_record(work / RECORDS["classifier"])
        and file.exists()
        and file.read_text(encoding="ascii") != now
    ):
        raise UsageError(
            f"the nodes or patients have changed since {work.name} was begun; choose another -o, or remove "
            "that folder."
        )
    make_folder(work / "models")
    write_bytes(file, now.encode())
    write_json(work / RECORDS["classifier"], record)


def _mask_hash(example: Example) -> str:
    return hashlib.sha256(np.packbits(example.mask).tobytes()).hexdigest()
