"""`train_segmenter`: contours in, a bundle with an nnU-Net v2 segmenter out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiene.errors import ModelError, OutputError, UsageError
from aiene.extras import need
from aiene.ingest.fingerprint import content_sha256
from aiene.models.bundle import LABEL_VALUES, Bundle, verify_bundle
from aiene.models.store import find_bundle
from aiene.pipeline import load_preparation
from aiene.provenance import digest
from aiene.results.atomic import make_folder, write_bytes, write_json
from aiene.segment.segmenter import model_folder
from aiene.training.bundle import Trained, assemble
from aiene.training.folds import FOLDS, check_folds, deal, fold_sizes, read_patients
from aiene.training.nnunet_dataset import CONFIGURATION, DATASET, splits_of, write_dataset
from aiene.training.nnunet_worker import MARK, PLANS, Job
from aiene.training.pairs import Pair, check_pairs, find_pairs
from aiene.training.prepared import LeftOut, prepared_crops
from aiene.training.progress import Step
from aiene.training.segmenter_figures import validation_figures, weights_only


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
    device : cpu, cuda or mps.
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


def export_dataset(settings: SegmenterTraining, on_step: Callable[[Step], None] = lambda _: None) -> Dataset:
    """Check the pairs, lay them onto the template, and write `settings.out/Dataset501_ENE`.

    Raises
    ------
    TrainingDataError, InputError : the pairs cannot be used.
    OutputError : the dataset cannot be written.
    """
    base = _base(settings)
    return _dataset(settings, base, settings.out, settings.out / ".crops", on_step)


def train_segmenter(
    settings: SegmenterTraining, on_step: Callable[[Step], None] = lambda _: None
) -> tuple[Bundle, Dataset]:
    """Train nnU-Net v2 on the road's own crops, and put the result into a bundle.

    Everything that has been done lies in `<out>.training`: with `go_on` a training that was killed goes on
    from its last epoch, and on a CPU ends with the same weights.

    Parameters
    ----------
    settings : what the user chose.
    on_step : told of progress.

    Raises
    ------
    TrainingDataError, InputError : the pairs cannot be used.
    UsageError : work of other settings lies there, or there is none to go on with.
    ModelError : the training failed, or the bundle to start from cannot be used.
    OutputError : something cannot be written; what was done stays.
    MissingExtraError : nnU-Net is not installed.
    """
    need("nnunetv2", extra="train", purpose="Training a segmenter")
    base = _base(settings)
    work = work_folder(settings.out)
    _open(work, settings, base)
    dataset = _dataset(settings, base, work / "nnUNet_raw", work / "crops", on_step)
    if not 0 <= settings.fold < len(fold_sizes(dataset.fold_of)):
        raise UsageError(f"--fold must be from 0 to {len(fold_sizes(dataset.fold_of)) - 1}.")
    _same_dataset(work, dataset)
    began, first = time.monotonic(), 0
    for report in _run(_job(settings, base, work), work):
        if report["stage"] == "start":
            began, first = time.monotonic(), int(report["epoch"])
        on_step(_step(report, settings, time.monotonic() - began, first))
    model = work / "nnUNet_results" / DATASET / f"nnUNetTrainer__{PLANS}__{CONFIGURATION}"
    trained = _packed(model, settings, work)
    facts = {
        **_facts(settings, dataset, base),
        "validation": validation_figures(model / f"fold_{settings.fold}" / "validation" / "summary.json"),
        "seconds": round(time.monotonic() - began),
    }
    bundle = assemble(base, settings.out, Trained("segmenter", trained, facts, fold=settings.fold))
    return bundle, dataset


def work_folder(out: Path) -> Path:
    """Where the crops, the dataset, the checkpoints and the logs of a training lie."""
    return out.with_name(f"{out.name}.training")


def _base(settings: SegmenterTraining) -> Bundle:
    base = find_bundle(settings.start_from or "default")
    verify_bundle(base)
    if settings.start_from is not None:
        _check_start(base)
    return base


def _check_start(base: Bundle) -> None:
    """Weights that start a training must have been trained on such crops and such labels."""
    if base.card.segmenter.intensities != "crop":
        raise UsageError(f"the segmenter of {base.card.name} takes HU; leave --from out, or name another.")
    if base.card.labels | LABEL_VALUES != base.card.labels:
        raise UsageError(
            f"the labels of {base.card.name} are not 1 GTVp and 2 GTVn; leave --from out, or name another."
        )


def _open(work: Path, settings: SegmenterTraining, base: Bundle) -> None:
    """Make the work folder ready; what lies there must be of the same training."""
    record = {
        "images": str(settings.images.resolve()),
        "labels": str(settings.labels.resolve()),
        "iterations": settings.iterations,
        "epochs": settings.epochs,
        "seed": settings.seed,
        "gpu_memory_gb": settings.gpu_memory_gb,
        "start": settings.start_from is not None,
        "base_sha256": base.sha256,
    }
    file = work / "segmenter.json"
    make_folder(work)
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        changed = sorted(k for k in before.keys() | record.keys() if before.get(k) != record.get(k))
        if changed:
            raise UsageError(
                f"{work.name} holds a training of other settings ({', '.join(changed)} differ); "
                "choose another -o, or remove that folder."
            )
    elif settings.go_on:
        raise UsageError(f"{work.name} holds no training to go on with; leave --continue out.")
    write_json(file, record)


def _dataset(
    settings: SegmenterTraining, base: Bundle, raw: Path, crops: Path, on_step: Callable[[Step], None]
) -> Dataset:
    patients, own_folds = read_patients(settings.patients) if settings.patients else ({}, None)
    pairs = find_pairs(settings.images, settings.labels, patients)
    check_pairs(pairs)
    files, left_out = prepared_crops(
        pairs,
        load_preparation(base),
        crops,
        preparation_identity(base),
        lambda done, of: on_step(Step("prepare", done, of)),
    )
    patient_of = {pair.case_id: pair.patient_id for pair in pairs if _is_in(pair, files)}
    fold_of = _folds(settings, sorted(set(patient_of.values())), own_folds)
    folder = write_dataset(raw, files, splits_of(patient_of, fold_of))
    return Dataset(folder, patient_of, fold_of, tuple(left_out))


def preparation_identity(base: Bundle) -> str:
    """What decides how a CT is laid onto the template."""
    card = base.card
    return digest(
        [card.files.get(card.template), card.profile, card.neck_centre_lps_mm, card.rescue_registration]
    )


def _is_in(pair: Pair, files: list[Path]) -> bool:
    return any(file.stem == pair.case_id for file in files)


def _folds(settings: SegmenterTraining, patients: list[str], own: dict[str, int] | None) -> dict[str, int]:
    if own is not None and settings.patients is not None:
        check_folds(patients, own, settings.patients)
        return {p: own[p] for p in patients}
    if len(patients) < 2:
        raise UsageError("fewer than two patients could be prepared; see the reasons above.")
    return deal(dict.fromkeys(patients, "all"), min(FOLDS, len(patients)), settings.seed)


def _same_dataset(work: Path, dataset: Dataset) -> None:
    """Images, labels and folds are those that were planned for."""
    folders = (dataset.folder / "imagesTr", dataset.folder / "labelsTr")
    files = [f for folder in folders for f in sorted(folder.iterdir())]
    now = digest([content_sha256(files), dataset.fold_of, dataset.patient_of])
    record = work / "dataset.sha256"
    if record.exists() and record.read_text(encoding="ascii") != now:
        raise UsageError(
            f"the images, labels or patients have changed since {work.name} was begun; "
            "choose another -o, or remove that folder."
        )
    write_bytes(record, now.encode())


def _job(settings: SegmenterTraining, base: Bundle, work: Path) -> Job:
    start = settings.start_from is not None
    return Job(
        work=str(work.resolve()),
        fold=settings.fold,
        epochs=settings.epochs,
        iterations=settings.iterations,
        device=settings.device.split(":")[0],
        go_on=settings.go_on,
        seed=settings.seed,
        processes=settings.processes,
        gpu_memory_gb=settings.gpu_memory_gb,
        start_from=str(model_folder(base.segmenter_folder).resolve()) if start else None,
        start_fold=base.card.segmenter.folds[0],
        start_checkpoint=base.card.segmenter.checkpoint,
    )


def _run(job: Job, work: Path) -> Iterator[dict[str, Any]]:
    """What the worker reports, line by line; its own words go to a log."""
    file = work / "job.json"
    write_bytes(file, job.to_json().encode())
    folders = {name: str(work / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    environment = {
        **os.environ,
        **folders,
        "nnUNet_n_proc_DA": str(max(1, job.processes)),  # the planner takes no 0
        "nnUNet_def_n_proc": str(max(1, job.processes)),
        "nnUNet_compile": "f",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    line = [sys.executable, "-m", "aiene.training.nnunet_worker", str(file)]
    log = work / "nnunet.log"
    with (
        log.open("a", encoding="utf-8") as words,
        subprocess.Popen(
            line,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        try:
            for said in process.stdout or ():
                if said.startswith(MARK):
                    yield json.loads(said.removeprefix(MARK))
                else:
                    words.write(said)
        finally:
            if process.poll() is None and sys.exc_info()[0] is not None:
                process.terminate()
    if process.returncode:
        raise _failure(log, process.returncode)


def _failure(log: Path, code: int) -> ModelError | OutputError:
    tail = log.read_text(encoding="utf-8", errors="replace")[-4000:]
    if "No space left" in tail or "Disk quota" in tail or "PytorchStreamWriter failed" in tail:
        return OutputError(log.parent, "the disk is full", "make room, and go on with --continue")
    if "out of memory" in tail or code == -9:
        return OutputError(log.parent, "the training ran out of memory", "lower --gpu-memory")
    return ModelError(
        log, f"nnU-Net ended with code {code}", "read the end of that log, and go on with --continue"
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
