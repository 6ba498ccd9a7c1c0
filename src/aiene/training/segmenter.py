"""`train_segmenter`: contours in, a bundle with an nnU-Net v2 segmenter out."""

from __future__ import annotations

import io
import json
import math
import shutil
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aiene.errors import TrainingDataError, UsageError, need
from aiene.hashing import digest
from aiene.ingest.fingerprint import content_sha256
from aiene.models.bundle import Bundle
from aiene.results.atomic import make_folder, write_bytes, write_json, writing
from aiene.results.ownership import refuse_overlap
from aiene.segment.network import read_checkpoint
from aiene.training.bundle import (
    RECORDS,
    Start,
    Trained,
    assemble,
    begin_with,
    check_record,
    check_same,
    ground_of,
    preparation_identity,
    preparation_of,
    start_of,
)
from aiene.training.dataset import (
    FOLDS,
    LABELS,
    LeftOut,
    OnNote,
    OnStep,
    Pair,
    Step,
    check_pairs,
    find_pairs,
    fold_sizes,
    folds_of,
    prepared_crops,
)
from aiene.training.nnunet import (
    CONFIGURATION,
    DATASET,
    PLANS,
    Job,
    check_names,
    run_worker,
    splits_of,
    write_dataset,
)
from aiene.training.patients import PatientTable, read_patients
from aiene.training.place import check_claim, check_not_trained, claim, locked, whole_path

_RESAMPLES: Final = 1000
_KEPT: Final = ("network_weights", "init_args", "trainer_name", "inference_allowed_mirroring_axes")


@dataclass(frozen=True)
class SegmenterTraining:
    """What a user chooses for the training of a segmenter.

    Parameters
    ----------
    images, labels : folders of CTs and of label maps on their grids.
    out : the bundle's folder; its work lies beside it in `<out>.training`.
    patients : table of case and patient ids, and of own folds.
    fold : left out of the training, and validated on.
    epochs, iterations : nnU-Net's are 1000 of 250.
    device : cpu, mps, cuda or cuda:N.
    go_on : take up a training that was stopped.
    start_from : name or folder of a bundle whose segmenter is the start.
    seed : of everything random.
    gpu_memory_gb : nnU-Net's planner sizes patch and network for it.
    processes : helpers of nnU-Net; 0 repeats bit for bit on a CPU.
    """

    images: Path
    labels: Path
    out: Path
    patients: Path | None = None
    fold: int = 0
    epochs: int = 1000
    iterations: int = 250
    device: str = "cpu"
    go_on: bool = False
    start_from: str | None = None
    seed: int = 0
    gpu_memory_gb: float = 8.0
    processes: int = 0


@dataclass(frozen=True)
class Dataset:
    """What is trained on.

    Parameters
    ----------
    folder : in nnU-Net's raw layout.
    patient_of : case id to patient id, of the cases that are in it.
    fold_of : patient id to fold.
    left_out : cases that could not be prepared.
    """

    folder: Path
    patient_of: dict[str, str]
    fold_of: dict[str, int]
    left_out: tuple[LeftOut, ...]


def export_dataset(
    settings: SegmenterTraining, on_step: OnStep = lambda _: None, on_note: OnNote = lambda _: None
) -> Dataset:
    """Check the pairs, lay them onto the template, and write `settings.out/Dataset501_ENE`.

    Raises
    ------
    TrainingDataError, InputError : the pairs cannot be used.
    UsageError : `settings.out` overlaps an input, or holds a dataset of another's.
    OutputError : the dataset cannot be written.
    """
    out = whole_path(settings.out)
    refuse_overlap(out, _inputs(settings))
    base = begin_with(settings.start_from, None)
    refuse_overlap(out, {"--from": base.path if settings.start_from else None})
    folder, crops = out / DATASET, out / ".crops"
    for place in (folder, crops):
        check_claim(place)
    pairs, patients = _chosen(settings, (folder, crops), on_note)
    check_pairs(pairs)
    for place in (folder, crops):
        claim(place)
    with locked(folder):
        return _dataset(settings, base, pairs, patients, out, crops, on_step)


def train_segmenter(
    settings: SegmenterTraining, on_step: OnStep = lambda _: None, on_note: OnNote = lambda _: None
) -> tuple[Bundle, Dataset]:
    """Train nnU-Net v2 on the crops that inference sees, and put the result into a bundle.

    Everything that has been done lies in `<out>.training`: with `go_on` a training that was killed goes on
    from its last epoch, and on a CPU ends with the same weights.

    Parameters
    ----------
    settings : what the user chose.
    on_step : told of progress.
    on_note : told what the user should know of the input.

    Raises
    ------
    TrainingDataError, InputError : the pairs cannot be used.
    UsageError : work of other settings lies there, or there is none to go on with; something at `out` is not
        ours, or is prepared otherwise; another training runs there.
    ModelError : the training failed, or the bundle to start from cannot be used.
    OutputError : something cannot be written; what was done stays.
    MissingExtraError : nnU-Net is not installed.
    """
    need("nnunetv2", extra="train", purpose="Training a segmenter")
    ground = ground_of(settings.out, settings.start_from, _inputs(settings))
    start = start_of(ground.base) if settings.start_from is not None else None
    record = _record(settings, ground.base)
    training = digest([record, settings.fold])
    check_not_trained(ground.there, "segmenter", training)
    _check_work(ground.work, settings, record)
    pairs, patients = _chosen(settings, (ground.out, ground.work), on_note)
    claim(ground.work)
    with locked(ground.work) as lock:
        work = ground.work
        _check_work(work, settings, record)  # another call may have ended meanwhile
        check_pairs(pairs)
        raw, crops = work / "nnUNet_raw", work / "crops"
        dataset = _dataset(settings, ground.base, pairs, patients, raw, crops, on_step)
        folders = (dataset.folder / "imagesTr", dataset.folder / "labelsTr")
        images = content_sha256([file for folder in folders for file in sorted(folder.iterdir())])
        now = digest([images, dataset.fold_of, dataset.patient_of])
        check_same(work / "dataset.sha256", now, "the images, labels or patients")
        write_json(work / RECORDS["segmenter"], record)
        began, first = time.monotonic(), 0
        with closing(run_worker(_job(settings, start, work), work, settings.device, lock)) as reports:
            for report in reports:
                if report["stage"] == "start":
                    began, first = time.monotonic(), int(report["epoch"])
                on_step(_step(report, settings, time.monotonic() - began, first))
        model = _model(work)
        facts = {
            **_facts(settings, dataset, ground.base),
            "validation": validation_figures(model / f"fold_{settings.fold}" / "validation" / "summary.json"),
            "seconds": round(time.monotonic() - began),
            "preparation": preparation_of(ground.base),
            "training": training,
        }
        trained = Trained("segmenter", _packed(model, settings, work), facts, fold=settings.fold)
        return assemble(ground, trained), dataset


def _model(work: Path) -> Path:
    """Where nnU-Net puts what it trains."""
    return work / "nnUNet_results" / DATASET / f"nnUNetTrainer__{PLANS}__{CONFIGURATION}"


def _inputs(settings: SegmenterTraining) -> dict[str, Path | None]:
    return {f"--{name}": getattr(settings, name) for name in ("images", "labels", "patients")}


def _record(settings: SegmenterTraining, base: Bundle) -> dict[str, Any]:
    """What must be the same for a training to be taken up."""
    return {
        "images": str(settings.images.resolve()),
        "labels": str(settings.labels.resolve()),
        "iterations": settings.iterations,
        "epochs": settings.epochs,
        "seed": settings.seed,
        "gpu_memory_gb": settings.gpu_memory_gb,
        "start": base.sha256 if settings.start_from is not None else None,
        "preparation": preparation_of(base),
    }


def _check_work(work: Path, settings: SegmenterTraining, record: dict[str, Any]) -> None:
    """Without --continue, nnU-Net would begin again and write over the epochs that are done."""
    check_record(work, "segmenter", record, go_on=settings.go_on)
    if not settings.go_on and any((_model(work) / f"fold_{settings.fold}").glob("checkpoint_*.pth")):
        raise UsageError(
            f"{work.name} holds a training of fold {settings.fold} already; continue it with --continue, or "
            "remove that folder."
        )


def _chosen(
    settings: SegmenterTraining, places: tuple[Path, ...], on_note: OnNote
) -> tuple[list[Pair], PatientTable]:
    """The pairs and the table of their patients, with all that can be told before a CT is read."""
    patients = read_patients(settings.patients)
    if patients.file is None:
        _check_fold(settings.fold, FOLDS)
    pairs = find_pairs(settings.images, settings.labels, patients, places)
    for note in (*patients.notes, *patients.check_cases(pair.case_id for pair in pairs)):
        on_note(note)
    people = sorted({pair.patient_id for pair in pairs})
    _check_fold(
        settings.fold, len(fold_sizes(folds_of(dict.fromkeys(people, "all"), patients, settings.seed)))
    )
    check_names(pairs)
    return pairs, patients


def _check_fold(fold: int, count: int) -> None:
    if not 0 <= fold < count:
        raise UsageError(f"--fold {fold}: there are {count} folds; name one from 0 to {count - 1}.")


def _dataset(
    settings: SegmenterTraining,
    base: Bundle,
    pairs: list[Pair],
    patients: PatientTable,
    raw: Path,
    crops: Path,
    on_step: OnStep,
) -> Dataset:
    files, left_out = prepared_crops(
        pairs,
        base,
        crops,
        preparation_identity(base),
        lambda done, of: on_step(Step("prepare", done, of)),
    )
    there = {file.stem for file in files}
    patient_of = {pair.case_id: pair.patient_id for pair in pairs if pair.case_id in there}
    people = sorted(set(patient_of.values()))
    if len(people) < 2:
        reasons = [f"{left.case_id}: {left.reason}" for left in left_out]
        raise TrainingDataError([*reasons, "Fewer than two patients could be prepared."])
    fold_of = folds_of(dict.fromkeys(people, "all"), patients, settings.seed)
    _check_fold(settings.fold, len(fold_sizes(fold_of)))
    folder = write_dataset(raw, files, splits_of(patient_of, fold_of))
    return Dataset(folder, patient_of, fold_of, tuple(left_out))


def _job(settings: SegmenterTraining, start: Start | None, work: Path) -> Job:
    return Job(
        work=str(work),
        fold=settings.fold,
        epochs=settings.epochs,
        iterations=settings.iterations,
        device=settings.device.split(":")[0],
        go_on=settings.go_on,
        seed=settings.seed,
        processes=settings.processes,
        gpu_memory_gb=settings.gpu_memory_gb,
        start_configuration={} if start is None else start.configuration,
        start_plan={} if start is None else start.plan,
        start_checkpoint=None if start is None else str(start.checkpoint.resolve()),
        start_same_labels=start is None or start.same_labels,
    )


def _step(report: dict[str, Any], settings: SegmenterTraining, seconds: float, first: int) -> Step:
    stage = str(report["stage"])
    if stage != "epoch":
        return Step(stage, 0, 0, said={k: v for k, v in report.items() if k not in ("stage", "folder")})
    said = {k: report[k] for k in ("train_loss", "val_loss", "pseudo_dice")}
    return Step("train", int(report["epoch"]), settings.epochs, seconds=seconds, first=first, said=said)


def _packed(model: Path, settings: SegmenterTraining, work: Path) -> Path:
    """The trained model without what only the training needs."""
    packed = work / "segmenter"
    shutil.rmtree(packed, ignore_errors=True)
    fold = f"fold_{settings.fold}"
    make_folder(packed / fold)
    with writing(packed):
        for name in ("plans.json", "dataset.json", "dataset_fingerprint.json"):
            shutil.copyfile(model / name, packed / name)
    weights_only(model / fold / "checkpoint_final.pth", packed / fold / "checkpoint_final.pth")
    return packed


def _facts(settings: SegmenterTraining, dataset: Dataset, base: Bundle) -> dict[str, Any]:
    return {
        "patients": len(dataset.fold_of),
        "cases": len(dataset.patient_of),
        "left_out": [left.reason for left in dataset.left_out],
        "patients_per_fold": fold_sizes(dataset.fold_of),
        "fold_left_out": settings.fold,
        "epochs": settings.epochs,
        "iterations_per_epoch": settings.iterations,
        "seed": settings.seed,
        "device": settings.device,
        "started_from": f"{base.card.name} ({base.sha256[:12]})" if settings.start_from else "random weights",
        "trainer": "nnunetv2 nnUNetTrainer",
    }


# Validation metrics of nnU-Net, and the checkpoint without its training state


def validation_figures(summary: Path) -> dict[str, Any]:
    """Mean Dice of each label over the validation cases, with a 95 % bootstrap interval.

    Cases where neither the labels nor the network show the structure have no Dice and are not counted.

    Parameters
    ----------
    summary : nnU-Net's `validation/summary.json`.
    """
    content = json.loads(summary.read_text(encoding="utf-8"))
    figures: dict[str, Any] = {"cases": len(content["metric_per_case"])}
    for name, value in LABELS.items():
        if value == 0:
            continue
        dice = [case["metrics"].get(str(value), {}).get("Dice") for case in content["metric_per_case"]]
        known = np.array([d for d in dice if d is not None and not math.isnan(d)])
        figures[name] = _interval(known)
    return figures


def _interval(values: npt.NDArray[np.float64]) -> dict[str, Any]:
    if not len(values):
        return {"n": 0, "dice_mean": None, "dice_95": None}
    rng = np.random.default_rng(0)
    means = rng.choice(values, size=(_RESAMPLES, len(values))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "n": len(values),
        "dice_mean": round(float(values.mean()), 4),
        "dice_95": [round(float(low), 4), round(float(high), 4)],
    }


def weights_only(source: Path, target: Path) -> None:
    """A checkpoint for use, not for going on: a third of the size.

    Raises
    ------
    ModelError : the source is no checkpoint.
    OutputError : the target cannot be written.
    """
    import torch

    content = read_checkpoint(source)
    stream = io.BytesIO()
    torch.save({key: content[key] for key in _KEPT if key in content}, stream)
    write_bytes(target, stream.getvalue())
