"""`train_classifier`: nodes with their pathology in, a bundle with a DualNet out.

What it is trained on is the user's choice, checked, and the nodes of the crops.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from aiene.classify.classifier import load_dualnet, save_classifier
from aiene.classify.dualnet import DualNet, DualNetWidths
from aiene.csv_tables import unknown_case
from aiene.errors import TrainingDataError, UsageError, need
from aiene.hashing import digest
from aiene.models.bundle import Bundle
from aiene.results.atomic import make_folder, read_json, write_json, writing
from aiene.training.bundle import (
    RECORDS,
    Ground,
    Trained,
    assemble,
    check_record,
    check_same,
    ground_of,
    preparation_identity,
    preparation_of,
)
from aiene.training.classifier_fit import (
    FitSettings,
    Fitted,
    Floats,
    Rule,
    calibration_plot,
    figures_of,
    fit,
    logits_of,
    reliability,
    sigmoid,
    temperature,
    threshold,
)
from aiene.training.dataset import (
    FEWEST_PATIENTS,
    LeftOut,
    OnNote,
    OnStep,
    Pair,
    Step,
    check_folds,
    check_pairs,
    find_pairs,
    fold_sizes,
    folds_of,
    prepared_crops,
    read_crop,
)
from aiene.training.nodes import Example, NodeRow, examples_of, read_nodes
from aiene.training.patients import PatientTable, read_patients
from aiene.training.place import check_not_trained, claim, locked


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


@dataclass(frozen=True)
class _Chosen:
    """The pairs that the table of nodes names, its rows by case, and the table of patients."""

    pairs: list[Pair]
    rows: dict[str, list[NodeRow]]
    patients: PatientTable


def _chosen_nodes(settings: ClassifierTraining, places: tuple[Path, ...], on_note: OnNote) -> _Chosen:
    """The pairs that are named in the table of nodes; no CT is read yet. `places` are written."""
    patients = read_patients(settings.patients)
    by_case: dict[str, list[NodeRow]] = defaultdict(list)
    for row in read_nodes(settings.nodes):
        by_case[row.case_id].append(row)
    pairs = find_pairs(settings.images, settings.labels, patients, places)
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
    return _Chosen(pairs, by_case, patients)


def _data(
    settings: ClassifierTraining, base: Bundle, chosen: _Chosen, work: Path, on_step: OnStep
) -> ClassifierData:
    """Prepare the CTs, split their nodes, and give each its row and its fold."""
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
    return folds_of(strata, table, settings.fit.seed)


def _record(settings: ClassifierTraining, base: Bundle) -> dict[str, Any]:
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


def _check_work(work: Path, settings: ClassifierTraining, record: dict[str, Any]) -> None:
    """Refuse a work folder of another training, or of this one where it is not to be taken up."""
    check_record(work, "classifier", record, go_on=settings.go_on)
    if read_json(work / RECORDS["classifier"]) and not settings.go_on:
        raise UsageError(f"{work.name} holds a training already; continue it with --continue, or remove it.")


def _note_nodes(work: Path, record: dict[str, Any], data: ClassifierData) -> None:
    """The models of earlier calls are only taken up where they were trained on the same nodes."""
    nodes = [
        (
            e.case_id,
            e.name,
            e.patient_id,
            e.pos,
            e.ene,
            hashlib.sha256(np.packbits(e.mask).tobytes()).hexdigest(),
        )
        for e in data.examples
    ]
    begun = bool(read_json(work / RECORDS["classifier"]))
    now = digest([nodes, data.fold_of])
    check_same(work / "nodes.sha256", now, "the nodes or patients", begun=begun)
    make_folder(work / "models")
    write_json(work / RECORDS["classifier"], record)


SMALL = DualNetWidths(
    box=(4, 8, 16, 16, 24, 24), box_dense=(64, 64), small=(8, 16, 24, 24, 32, 32, 16), head=4
)
"""Widths that train on two cores; those of the default bundle."""
_FIGURE = "calibration_ene.png"


class _Outside(NamedTuple):
    """What the models of all folds say of the nodes that each did not see.

    `raw` (n, 2) logits; `calibrated` after the temperature, and `thresholds` by the rule, both of the fold
    that stopped that model: the node's own fold had no part in them.
    """

    examples: list[Example]
    raw: Floats
    calibrated: Floats
    thresholds: Floats


def train_classifier(
    settings: ClassifierTraining, on_step: OnStep = lambda _: None, on_note: OnNote = lambda _: None
) -> tuple[Bundle, tuple[LeftOut, ...]]:
    """Cross-validate a DualNet patient-wise, train the final one, calibrate it, and put it into a bundle.

    For every fold a model is trained on the others but the next, which stops it early, gives its temperature
    and its threshold; the fold itself is only judged. The final model is trained on all folds but the first,
    which stops it; its temperature and threshold come from the judged probabilities of all folds.

    Parameters
    ----------
    settings : what the user chose.
    on_step : told of progress.
    on_note : told what the user should know of the input.

    Returns
    -------
    The bundle, and the cases that could not be prepared.

    Raises
    ------
    TrainingDataError, InputError : images, labels or tables cannot be used.
    UsageError : work of other settings lies there, or there is none to go on with; something at `out` is not
        ours, or is prepared otherwise; another training runs there.
    ModelError : the bundle to start from cannot be used.
    OutputError : something cannot be written; what was done stays.
    MissingExtraError : a library of the training extra is missing.
    """
    need("sklearn", extra="train", purpose="Training a classifier")
    inputs = {f"--{name}": getattr(settings, name) for name in ("images", "labels", "nodes", "patients")}
    ground = ground_of(settings.out, settings.start_from, inputs)
    normalisation = ground.base.card.classifier.normalisation
    settings = replace(settings, fit=replace(settings.fit, normalisation=normalisation))
    record = _record(settings, ground.base)
    check_not_trained(ground.there, "classifier", digest(record))
    _check_work(ground.work, settings, record)
    chosen = _chosen_nodes(settings, (ground.out, ground.work), on_note)
    claim(ground.work)
    with locked(ground.work):
        _check_work(ground.work, settings, record)  # another call may have ended meanwhile
        check_pairs(chosen.pairs, needs_nodes=True)
        data = _data(settings, ground.base, chosen, ground.work, on_step)
        _note_nodes(ground.work, record, data)
        return _trained(settings, ground, data, digest(record), on_step), data.left_out


def _trained(
    settings: ClassifierTraining, ground: Ground, data: ClassifierData, training: str, on_step: OnStep
) -> Bundle:
    """Everything after the data are there."""
    began, base, work = time.monotonic(), ground.base, ground.work
    outside = _cross_validated(settings, base, data, work, on_step)
    final = _fit(settings, base, data, "final", (0,), tuple(range(1, data.folds)), work, on_step)
    net, temperatures = _tempered(final.network, outside)
    chosen, figures, fifths = _judged(outside, temperatures, settings)
    facts = {
        **_facts(settings, base, data),
        "epochs_of_the_final_model": final.epoch,
        "temperature_pos": round(temperatures[0], 4),
        "temperature_ene": round(temperatures[1], 4),
        "threshold_rule": settings.rule
        if settings.rule == "youden"
        else f"sensitivity {settings.sensitivity:g}",
        **figures,
        "figure": _FIGURE,
        "preparation": preparation_of(base),
        "training": training,
        "seconds": round(time.monotonic() - began),
    }
    folder = work / "classifier"
    shutil.rmtree(folder, ignore_errors=True)
    with writing(folder):
        save_classifier(folder, net)
    plot = calibration_plot(fifths, "ENE, nodes of unseen patients")
    trained = Trained("classifier", folder, facts, ene_threshold=chosen, figures={_FIGURE: plot})
    return assemble(ground, trained)


def _cross_validated(
    settings: ClassifierTraining, base: Bundle, data: ClassifierData, work: Path, on_step: OnStep
) -> _Outside:
    examples: list[Example] = []
    raw, calibrated, thresholds = [], [], []
    for fold in range(data.folds):
        stops = (fold + 1) % data.folds
        learned = tuple(k for k in range(data.folds) if k not in (fold, stops)) or (stops,)
        fitted = _fit(settings, base, data, f"fold {fold}", (stops,), learned, work, on_step)
        held, judged = data.of(stops), data.of(fold)
        t = _temperatures(logits_of(fitted.network, held, settings.fit), held)
        cut = _cut(logits_of(fitted.network, held, settings.fit)[:, 1] / t[1], held, settings)
        logits = logits_of(fitted.network, judged, settings.fit)
        examples += judged
        raw.append(logits)
        calibrated.append(logits / np.array(t))
        thresholds.append(np.full(len(judged), cut))
    return _Outside(examples, np.concatenate(raw), np.concatenate(calibrated), np.concatenate(thresholds))


def _fit(
    settings: ClassifierTraining,
    base: Bundle,
    data: ClassifierData,
    name: str,
    stops: tuple[int, ...],
    learned: tuple[int, ...],
    work: Path,
    on_step: OnStep,
) -> Fitted:
    from torch.utils.tensorboard import SummaryWriter

    short = name.replace(" ", "_")
    with writing(work), SummaryWriter(str(work / "tensorboard" / f"classifier_{short}")) as writer:

        def log(epoch: int, values: dict[str, float]) -> None:
            for key, value in values.items():
                writer.add_scalar(key, value, epoch)

        return fit(
            lambda: _start(settings, base),
            data.of(*learned),
            data.of(*stops),
            settings.fit,
            work / "models" / f"{short}.pth",
            log,
            lambda step: on_step(replace(step, stage=f"train {name}")),
        )


def _start(settings: ClassifierTraining, base: Bundle) -> DualNet:
    """The network to begin with: the bundle's, or a new one by the seed."""
    import torch

    if settings.start_from is not None:
        return load_dualnet(base.classifier_folder).train()
    torch.manual_seed(settings.fit.seed)
    rates = {"box_dropout": 0.1, "small_dropout": 0.1} if settings.widths == "small" else {}
    net = DualNet(SMALL if settings.widths == "small" else DualNetWidths(), **rates)
    torch.nn.init.constant_(net.box.values.bias, 0.5)  # so that no rectified value starts dead
    return net


def _known(
    examples: Sequence[Example], logits: Floats, column: int
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Logits and truth of the nodes whose truth is known and that were scored, and which they are."""
    truth = np.array([(e.pos, e.ene)[column] for e in examples])
    seen = (truth >= 0) & np.isfinite(logits)
    return logits[seen], truth[seen], seen


def _temperatures(logits: Floats, examples: Sequence[Example]) -> tuple[float, float]:
    pos, ene = (temperature(*_known(examples, logits[:, k], k)[:2]) for k in (0, 1))
    return pos, ene


def _cut(logits: Floats, examples: Sequence[Example], settings: ClassifierTraining) -> float:
    """The ENE threshold of some nodes by the rule; 0.5 where they hold one class only."""
    values, truth, _ = _known(examples, logits, 1)
    if len(set(truth.tolist())) < 2:
        return 0.5
    return threshold(sigmoid(values), truth, settings.rule, settings.sensitivity)


def _tempered(net: DualNet, outside: _Outside) -> tuple[DualNet, tuple[float, float]]:
    """The network with its temperatures folded into its last layer: no other code need know of them."""
    import torch

    t = _temperatures(outside.raw, outside.examples)
    with torch.no_grad():
        scale = torch.tensor(t, dtype=net.out.weight.dtype, device=net.out.weight.device)
        net.out.weight.div_(scale[:, None])
        net.out.bias.div_(scale)
    return net.cpu().eval(), t


def _judged(
    outside: _Outside, temperatures: tuple[float, float], settings: ClassifierTraining
) -> tuple[float, dict[str, Any], list[dict[str, float]]]:
    """The final threshold; figures, and reliability of ENE, of the nodes that the models had not seen."""
    patients = np.array([e.patient_id for e in outside.examples])
    figures = {}
    for column, name in enumerate(("pos", "ene")):
        logits, truth, seen = _known(outside.examples, outside.calibrated[:, column], column)
        cuts = outside.thresholds[seen] if name == "ene" else np.full(len(truth), 0.5)
        values = sigmoid(logits)
        figures[name] = figures_of(values, truth, values > cuts, patients[seen].tolist())
    chosen = _cut(outside.raw[:, 1] / temperatures[1], outside.examples, settings)
    return chosen, figures, reliability(values, truth)


def _facts(settings: ClassifierTraining, base: Bundle, data: ClassifierData) -> dict[str, Any]:
    known = [e.ene for e in data.examples if e.ene >= 0]
    return {
        "patients": len(data.fold_of),
        "nodes": len(data.examples),
        "nodes_with_known_ene": len(known),
        "nodes_with_ene": int(sum(known)),
        "nodes_not_in_the_table": data.unnamed,
        "left_out": [left.reason for left in data.left_out],
        "patients_per_fold": fold_sizes(data.fold_of),
        "figures": "out of fold: each node is judged by a model that saw no node of its patient",
        "seed": settings.fit.seed,
        "device": settings.fit.device,
        "started_from": f"{base.card.name} ({base.sha256[:12]})" if settings.start_from else "random weights",
        "widths": "as the start" if settings.start_from else settings.widths,
    }
