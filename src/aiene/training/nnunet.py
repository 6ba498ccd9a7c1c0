"""nnU-Net v2 in a process of its own, started on the right device and never left alone.

It takes its folders from the environment when it is imported, hence the process. Run as `python -m
aiene.training.nnunet JOB.json [--tied PID]`; what it reports are lines of JSON on stdout that begin with
`MARK`, among nnU-Net's own words. Tied to the process that started it, it ends with it, also where that one
was killed: standard input is then at its end.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Final

from aiene.device import keep_freed_memory
from aiene.errors import ModelError, OutputError, TrainingDataError
from aiene.results.atomic import make_folder, write_bytes, write_json, writing
from aiene.results.nifti import nifti_bytes
from aiene.training.dataset import LABELS, Pair, read_crop

DATASET: Final = "Dataset501_ENE"
DATASET_ID: Final = 501
CONFIGURATION: Final = "3d_fullres"
SPLITS: Final = "splits_final.json"

MARK: Final = "aiene-report "
TIED: Final = "--tied"
_LOOK_S: Final = 1.0
_OUTPUTS: Final = "decoder.seg_layers."
"""Layers of nnU-Net's networks that tell the labels apart."""

PLANS: Final = "nnUNetPlans"
_FINE_RATE: Final = 1e-3
"""Learning rate at the start where the weights are not new; nnU-Net's own is 1e-2."""


def write_dataset(raw: Path, crops: Sequence[Path], splits: Sequence[Mapping[str, Sequence[str]]]) -> Path:
    """Write `Dataset501_ENE` (imagesTr, labelsTr, dataset.json) and the split beside it.

    Parameters
    ----------
    raw : the folder that nnU-Net calls `nnUNet_raw`.
    crops : kept crops; the stem is the case id.
    splits : `train` and `val` case ids of each fold.

    Returns
    -------
    The dataset's folder. `splits_final.json` lies in it; nnU-Net wants it in its `nnUNet_preprocessed`.

    Raises
    ------
    OutputError : it cannot be written.
    """
    folder = raw / DATASET
    images, labels = folder / "imagesTr", folder / "labelsTr"
    make_folder(images)
    make_folder(labels)
    for file in crops:
        crop = read_crop(file, "")
        write_bytes(images / f"{file.stem}_0000.nii.gz", nifti_bytes(crop.image))
        write_bytes(labels / f"{file.stem}.nii.gz", nifti_bytes(crop.labels))
    _drop_strangers(images, {f"{f.stem}_0000.nii.gz" for f in crops})
    _drop_strangers(labels, {f"{f.stem}.nii.gz" for f in crops})
    write_json(
        folder / "dataset.json",
        {
            "channel_names": {"0": "CT"},
            "labels": LABELS,
            "numTraining": len(crops),
            "file_ending": ".nii.gz",
            "name": "ENE",
            "description": "CTs cropped on the template's grid by aiene; HU of the window scaled to [0, 1]",
        },
    )
    write_bytes(folder / SPLITS, (json.dumps([dict(s) for s in splits], indent=2) + "\n").encode())
    return folder


def check_names(pairs: Sequence[Pair]) -> None:
    """Refuse case ids that nnU-Net would take for something else.

    Raises
    ------
    TrainingDataError : every case whose files it would pass over or mix up.
    """
    problems = [
        f"{pair.case_id}: nnU-Net treats {what} as a file of its own; rename the case."
        for pair in pairs
        for what, is_so in (
            ("a name that ends in _seg", pair.case_id.endswith("_seg")),
            ("a name that begins with a dot", pair.case_id.startswith(".")),
            ("a name with segFromPrevStage", "segFromPrevStage" in pair.case_id),
        )
        if is_so
    ]
    if problems:
        raise TrainingDataError(problems)


def splits_of(patient_of: Mapping[str, str], fold_of: Mapping[str, int]) -> list[dict[str, list[str]]]:
    """Case ids to train and to validate on, for each fold.

    Parameters
    ----------
    patient_of : case id to patient id.
    fold_of : patient id to fold.
    """
    count = max(fold_of.values()) + 1
    cases = sorted(patient_of)
    return [
        {
            "train": [c for c in cases if fold_of[patient_of[c]] != fold],
            "val": [c for c in cases if fold_of[patient_of[c]] == fold],
        }
        for fold in range(count)
    ]


def _drop_strangers(folder: Path, wanted: set[str]) -> None:
    """Files of an earlier call with other cases would be trained on."""
    for file in folder.iterdir():
        if file.name not in wanted:
            file.unlink()


@dataclass(frozen=True)
class Job:
    """What the worker is to do.

    Parameters
    ----------
    work : holds `nnUNet_raw`, `nnUNet_preprocessed` and `nnUNet_results`.
    fold : to leave out of the training.
    epochs, iterations : gradient steps are their product.
    device : cpu, cuda or mps.
    go_on : take up the last checkpoint.
    seed : of everything random, anew in every epoch: so a training that was taken up ends with the same
        weights on a CPU.
    processes : for nnU-Net's own helpers; with 0 they work in this process, so that the training repeats.
    gpu_memory_gb : the planner sizes patch and network for it.
    start_configuration, start_plan : entries that the new plan takes over, see `Start`; may be empty.
    start_checkpoint : file of the weights that are the start.
    start_same_labels : whether its outputs mean what ours do; else the last layers stay new.
    """

    work: str
    fold: int
    epochs: int
    iterations: int
    device: str
    go_on: bool
    seed: int
    processes: int
    gpu_memory_gb: float
    start_configuration: dict[str, Any] = field(default_factory=dict)
    start_plan: dict[str, Any] = field(default_factory=dict)
    start_checkpoint: str | None = None
    start_same_labels: bool = True

    def to_json(self) -> str:
        """Taken back by `Job(**json.loads(text))`."""
        return json.dumps(asdict(self), indent=2)


def main(job_file: Path) -> None:
    """Plan, preprocess and train as the job says."""
    job = Job(**json.loads(job_file.read_text(encoding="utf-8")))
    work = Path(job.work)
    keep_freed_memory()
    if job.processes == 0:
        # nnU-Net's pools of one process, each of which would load torch anew, become threads of this process
        vars(get_context("spawn"))["Pool"] = ThreadPool
    if not (work / "planned.json").exists():
        _plan(job, work)
    _train(job, work)


def _plan(job: Job, work: Path) -> None:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )

    processes = max(1, job.processes)
    prepared = work / "nnUNet_preprocessed" / DATASET
    shutil.rmtree(prepared, ignore_errors=True)  # of a call that was killed: nnU-Net would take half a file
    _report(stage="plan")
    extract_fingerprints([DATASET_ID], num_processes=processes, check_dataset_integrity=True)
    plan_experiments([DATASET_ID], gpu_memory_target_in_gb=job.gpu_memory_gb, overwrite_plans_name=PLANS)
    if job.start_checkpoint is not None:
        _take_over_plan(job, prepared / f"{PLANS}.json")
    _report(stage="preprocess")
    preprocess([DATASET_ID], PLANS, configurations=(CONFIGURATION,), num_processes=(processes,))
    shutil.copyfile(work / "nnUNet_raw" / DATASET / SPLITS, prepared / SPLITS)
    write_bytes(work / "planned.json", job.to_json().encode())


def _take_over_plan(job: Job, plans_file: Path) -> None:
    """The network, patch and normalisation of another model, in the plan of this dataset."""
    ours = json.loads(plans_file.read_text(encoding="utf-8"))
    ours.update(job.start_plan)
    ours["configurations"][CONFIGURATION].update(job.start_configuration)
    write_bytes(plans_file, json.dumps(ours, indent=2).encode())


def _train(job: Job, work: Path) -> None:
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

    os.environ.update(nnUNet_n_proc_DA=str(job.processes))
    torch.use_deterministic_algorithms(job.device == "cpu")
    _seed(job.seed, -1)
    trainer = get_trainer_from_args(
        str(DATASET_ID), CONFIGURATION, job.fold, "nnUNetTrainer", PLANS, device=torch.device(job.device)
    )
    trainer.num_epochs = job.epochs
    trainer.num_iterations_per_epoch = job.iterations
    trainer.num_val_iterations_per_epoch = max(1, job.iterations // 5)
    trainer.save_every = 1
    if job.start_checkpoint is not None:
        trainer.initial_lr = _FINE_RATE
    _watch(trainer, job, work)
    trainer.initialize()
    if job.start_checkpoint is not None:
        _load_weights(trainer, job)
    begun = any(Path(trainer.output_folder).glob("checkpoint_*.pth"))
    maybe_load_checkpoint(trainer, job.go_on and begun, False)
    trainer.save_checkpoint = _whole(trainer.save_checkpoint)
    _report(stage="start", epoch=int(trainer.current_epoch))
    trainer.run_training()
    _report(stage="validate")
    trainer.perform_actual_validation(False)
    _report(stage="done", folder=str(trainer.output_folder))


def _whole(save: Any) -> Any:
    """A checkpoint appears complete or not at all: a kill while one is written loses nothing."""

    def save_whole(filename: str) -> None:
        partial = f"{filename}.partial"
        save(partial)
        if Path(partial).exists():
            Path(partial).replace(filename)

    return save_whole


def _load_weights(trainer: Any, job: Job) -> None:
    """The other model's weights, where names and shapes agree; how many did not is reported."""
    from aiene.segment.network import read_checkpoint, tensors_of

    file = Path(str(job.start_checkpoint))
    theirs = tensors_of(file, read_checkpoint(file).get("network_weights"))
    ours = trainer.network.state_dict()
    fitting = {
        name: value
        for name, value in theirs.items()
        if name in ours
        and ours[name].shape == value.shape
        and (job.start_same_labels or not name.startswith(_OUTPUTS))
    }
    trainer.network.load_state_dict({**ours, **fitting})
    _report(stage="weights", taken=len(fitting), new=len(ours) - len(fitting))


def _watch(trainer: Any, job: Job, work: Path) -> None:
    """Seed every epoch, and report it when it ends."""
    from torch.utils.tensorboard import SummaryWriter

    begin, end = trainer.on_epoch_start, trainer.on_epoch_end
    log = SummaryWriter(str(work / "tensorboard" / f"segmenter_fold_{job.fold}"))

    def on_epoch_start() -> None:
        _seed(job.seed, trainer.current_epoch)
        begin()

    def on_epoch_end() -> None:
        epoch = trainer.current_epoch
        end()
        history = trainer.logger.my_fantastic_logging
        facts = {
            "train_loss": float(history["train_losses"][-1]),
            "val_loss": float(history["val_losses"][-1]),
            "pseudo_dice": float(history["mean_fg_dice"][-1]),
        }
        for name, value in facts.items():
            log.add_scalar(name, value, epoch)
        log.flush()
        _report(stage="epoch", epoch=epoch + 1, of=job.epochs, **facts)

    trainer.on_epoch_start, trainer.on_epoch_end = on_epoch_start, on_epoch_end


def _seed(seed: int, epoch: int) -> None:
    import numpy as np
    import torch

    value = (seed * 1_000_003 + epoch + 1) % 2**32
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002 - nnU-Net draws from numpy's global generator
    torch.manual_seed(value)


def _end_with(parent: int) -> None:
    """End this process and its helpers as soon as the one that started it has gone."""

    def watch() -> None:
        while os.getppid() == parent:
            if select.select([0], [], [], _LOOK_S)[0] and not os.read(0, 4096):
                break
        if os.getpgrp() == os.getpid():  # a group of our own
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _report(**facts: Any) -> None:
    sys.stdout.write(MARK + json.dumps(facts) + "\n")
    sys.stdout.flush()


_POSIX: Final = os.name == "posix"
_GRACE_S: Final = 10.0
"""For a worker that was asked to end; a checkpoint is whole or not there, so it may be killed after that."""
_NO_ROOM: Final = ("No space left", "Disk quota", "PytorchStreamWriter failed", "the disk is full")


def run_worker(job: Job, work: Path, device: str, lock: int) -> Generator[dict[str, Any], None, None]:
    """What the worker reports, line by line; its own words go to a log.

    It and the helpers that it starts are a process group of their own, which ends with this generator, with
    this process, and where the worker itself fails.

    Parameters
    ----------
    job : what it is to do.
    work : its folder.
    device : cpu, mps, cuda or cuda:N.
    lock : descriptor that holds `work`; the worker holds it too, so that nobody comes in before it has ended.

    Raises
    ------
    ModelError, OutputError : it failed.
    """
    file, log = work / "job.json", work / "nnunet.log"
    write_bytes(file, job.to_json().encode())
    folders = {name: str(work / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    environment = {
        **os.environ,
        **folders,
        **visible_gpu(device, os.environ),
        "nnUNet_n_proc_DA": str(max(1, job.processes)),  # the planner takes no 0
        "nnUNet_def_n_proc": str(max(1, job.processes)),
        "nnUNet_compile": "f",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    line = [sys.executable, "-m", "aiene.training.nnunet", str(file), TIED, str(os.getpid())]
    with writing(log):
        words = log.open("a", encoding="utf-8", buffering=1)  # whole also after a kill
    with words:
        process = subprocess.Popen(
            line,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=_POSIX,
            pass_fds=(lock,) if _POSIX else (),
        )
        watch = threading.Thread(target=_end_helpers_after, args=(process,), daemon=True)
        watch.start()
        try:
            for said in process.stdout or ():
                if said.startswith(MARK):
                    yield json.loads(said.removeprefix(MARK))
                else:
                    with writing(log):
                        words.write(said)
            process.wait()
        finally:
            _end(process)
            watch.join(_GRACE_S)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
    if process.returncode:
        raise failure(log, process.returncode)


def visible_gpu(device: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment that makes `cuda:N` the only GPU, since nnU-Net takes the first that it sees.

    Parameters
    ----------
    device : cpu, mps, cuda or cuda:N, where N counts the GPUs that this process sees.
    environment : of this process.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda" or not number:
        return {}
    seen = environment.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in seen.split(",")] if seen else []
    return {"CUDA_VISIBLE_DEVICES": names[int(number)] if int(number) < len(names) else number}


def failure(log: Path, code: int) -> ModelError | OutputError:
    """What to tell where the worker ended with a code other than 0."""
    tail = log.read_text(encoding="utf-8", errors="replace")[-4000:]
    if any(said in tail for said in _NO_ROOM):
        return OutputError(log.parent, "the disk is full", "free some space, and continue with --continue")
    if "Read-only file system" in tail:
        return OutputError(log.parent, "the file system is read-only", "choose another folder with -o")
    if "out of memory" in tail or code == -signal.SIGKILL.value:
        return OutputError(log.parent, "the training ran out of memory", "lower --gpu-memory")
    return ModelError(
        log, f"nnU-Net ended with code {code}", "read the end of that log, and continue with --continue"
    )


def _end(process: subprocess.Popen[str]) -> None:
    """Ask the worker to end, then make it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            _kill_group(process)
            process.wait()


def _end_helpers_after(process: subprocess.Popen[str]) -> None:
    """Helpers of a worker that has ended would hold its output open, and wait for ever."""
    process.wait()
    _kill_group(process)


def _kill_group(process: subprocess.Popen[str]) -> None:
    if _POSIX:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


if __name__ == "__main__":
    if TIED in sys.argv and os.name == "posix":
        _end_with(int(sys.argv[-1]))
    main(Path(sys.argv[1]))
