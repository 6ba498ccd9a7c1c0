"""Train a small nnU-Net v1 model on phantoms and run it, all by nnunet 1.7's own code.

Runs in the environment of requirements-v1.txt, not in that of aiene:

    python make_v1_model.py WORK_FOLDER

Leaves in WORK_FOLDER: `model/` (the published flat layout, two folds), `inputs/<case>_0000.nii.gz`, and per
case and setting `v1/<case>__<setting>.npz` (`softmax` and `network_input` at the network's spacing, float32)
and `.nii.gz` (v1's label map).
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

WORK = Path(sys.argv[1]).resolve()
for name, folder in (
    ("nnUNet_raw_data_base", "raw"),
    ("nnUNet_preprocessed", "preprocessed"),
    ("RESULTS_FOLDER", "results"),
):
    os.environ[name] = str(WORK / folder)
    (WORK / folder).mkdir(parents=True, exist_ok=True)
os.environ |= {"nnUNet_n_proc_DA": "1", "OMP_NUM_THREADS": "1", "nnUNet_def_n_proc": "1"}

import SimpleITK as sitk  # noqa: E402
import torch  # noqa: E402

torch.load = functools.partial(torch.load, weights_only=False)  # v1 is older than the safer default
torch.set_num_threads(1)

from batchgenerators.utilities.file_and_folder_operations import load_pickle, save_pickle  # noqa: E402
from nnunet.experiment_planning.experiment_planner_baseline_3DUNet_v21 import (  # noqa: E402
    ExperimentPlanner3D_v21,
)
from nnunet.experiment_planning.utils import crop  # noqa: E402
from nnunet.inference.segmentation_export import save_segmentation_nifti_from_softmax  # noqa: E402
from nnunet.preprocessing.sanity_checks import verify_dataset_integrity  # noqa: E402
from nnunet.training.model_restore import load_model_and_checkpoint_files  # noqa: E402
from nnunet.training.network_training.nnUNetTrainerV2 import nnUNetTrainerV2  # noqa: E402

TASK = "Task501_ENE"
TRAINING_CASES = 8
PATCH = (32, 64, 64)
BASE_FEATURES = 8
EPOCHS, BATCHES = 3, 10
CASES = {  # spacing (z, y, x) in mm, size (z, y, x): as trained, finer, and with slices resampled one by one
    "same": ((3.0, 1.0, 1.0), (48, 112, 120)),
    "finer": ((2.1, 1.3, 0.9), (70, 90, 130)),
    "coarse": ((5.0, 1.2, 1.2), (30, 100, 104)),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"folds": (0,), "mirroring": False},
    "mirrored": {"folds": (0,), "mirroring": True},
    "two_folds": {"folds": (0, 1), "mirroring": False},
}


def phantom(seed: int, spacing: tuple[float, ...], size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """An ellipse of tissue with two kinds of bright balls, intensities 0 to 1, and their labels."""
    numbers = np.random.default_rng(seed)
    extent = np.array(size) * spacing
    axes = [
        (np.arange(n) + 0.5) * mm - length / 2 for n, mm, length in zip(size, spacing, extent, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    inside = (y / (0.42 * extent[1])) ** 2 + (x / (0.46 * extent[2])) ** 2 < 1
    image = np.where(inside, 0.45 + 0.05 * np.sin(z / 9) + numbers.normal(0, 0.04, size), 0)
    labels = np.zeros(size, np.uint8)
    for label, level in ((1, 0.75), (2, 0.9), (2, 0.9), (1, 0.75)):
        centre = numbers.uniform(-0.25, 0.25, 3) * extent
        radius = numbers.uniform(7, 12)
        ball = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2
        image[ball] = level + numbers.normal(0, 0.05, ball.sum())
        labels[ball] = label
    return np.where(inside, np.clip(image, 0.001, 1), 0).astype(np.float32), labels * inside


def write(array: np.ndarray, spacing: tuple[float, ...], file: Path) -> None:
    """Write an array (z, y, x) as NIfTI."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(tuple(reversed(spacing)))
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(file))


def make_data() -> None:
    """Training phantoms in nnU-Net v1's raw layout, and the inputs of the comparison."""
    raw = WORK / "raw" / "nnUNet_raw_data" / TASK
    for seed in range(TRAINING_CASES):
        image, labels = phantom(seed, (3.0, 1.0, 1.0), (48, 100 + 4 * seed, 110))
        write(image, (3.0, 1.0, 1.0), raw / "imagesTr" / f"P_{seed:03d}_0000.nii.gz")
        write(labels, (3.0, 1.0, 1.0), raw / "labelsTr" / f"P_{seed:03d}.nii.gz")
    listed = [
        {"image": f"./imagesTr/P_{i:03d}.nii.gz", "label": f"./labelsTr/P_{i:03d}.nii.gz"} for i in range(8)
    ]
    described = {
        "name": "ENE",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "GTVp", "2": "GTVn"},
        "numTraining": TRAINING_CASES,
        "numTest": 0,
        "training": listed,
        "test": [],
    }
    (raw / "dataset.json").write_text(json.dumps(described))
    for number, (case, (spacing, size)) in enumerate(CASES.items()):
        write(phantom(100 + number, spacing, size)[0], spacing, WORK / "inputs" / f"{case}_0000.nii.gz")


def plan() -> Path:
    """v1's own planner; then a smaller patch and fewer features: the window slides and time is short."""
    verify_dataset_integrity(str(WORK / "raw" / "nnUNet_raw_data" / TASK))
    crop(TASK, False, 1)
    cropped = WORK / "raw" / "nnUNet_cropped_data" / TASK
    home = WORK / "preprocessed" / TASK
    from nnunet.experiment_planning.DatasetAnalyzer import DatasetAnalyzer

    DatasetAnalyzer(str(cropped), overwrite=False, num_processes=1).analyze_dataset(True)
    home.mkdir(exist_ok=True)
    shutil.copy(cropped / "dataset_properties.pkl", home)
    shutil.copy(WORK / "raw" / "nnUNet_raw_data" / TASK / "dataset.json", home)
    planner = ExperimentPlanner3D_v21(str(cropped), str(home))
    planner.plan_experiment()
    plans = planner.plans
    stage = max(plans["plans_per_stage"])
    plans["base_num_features"] = BASE_FEATURES
    settings = plans["plans_per_stage"][stage]
    pools = [[1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
    settings |= {
        "patch_size": np.array(PATCH),
        "num_pool_per_axis": [3, 4, 4],
        "pool_op_kernel_sizes": pools,
        "conv_kernel_sizes": [[1, 3, 3], *[[3, 3, 3]] * 4],
    }
    save_pickle(plans, planner.plans_fname)
    planner.run_preprocessing(1)
    return Path(planner.plans_fname)


def train(plans: Path, fold: int) -> Path:
    """v1's own trainer for a few steps; it saves the checkpoint."""
    home = WORK / "preprocessed" / TASK
    results = WORK / "results" / "nnUNet" / "3d_fullres" / TASK / "nnUNetTrainerV2__nnUNetPlansv2.1"
    torch.manual_seed(fold)
    np.random.seed(fold)  # noqa: NPY002 - what nnU-Net v1 draws from
    stage = max(load_pickle(str(plans))["plans_per_stage"])
    trainer = nnUNetTrainerV2(str(plans), fold, str(results), str(home), False, stage, True, False, True)
    trainer.max_num_epochs, trainer.num_batches_per_epoch, trainer.num_val_batches_per_epoch = (
        EPOCHS,
        BATCHES,
        1,
    )
    trainer.initialize(True)
    trainer.run_training()
    return results


def flat(results: Path) -> Path:
    """The model in the published flat layout: three files a fold and the plans."""
    model = WORK / "model"
    shutil.rmtree(model, ignore_errors=True)
    for fold in (0, 1):
        (model / f"fold_{fold}").mkdir(parents=True)
        for ending in ("model", "model.pkl"):
            name = f"fold_{fold}/model_final_checkpoint.{ending}"
            shutil.copy(results / name, model / name)
    shutil.copy(results / "plans.pkl", model)
    return model


def predict(model: Path, case: str, setting: str) -> None:
    """As nnunet.inference.predict.predict_cases does it, but the softmax is kept in float32."""
    folds, mirroring = SETTINGS[setting]["folds"], SETTINGS[setting]["mirroring"]
    trainer, params = load_model_and_checkpoint_files(
        str(model), list(folds), mixed_precision=True, checkpoint_name="model_final_checkpoint"
    )
    data, _, properties = trainer.preprocess_patient([str(WORK / "inputs" / f"{case}_0000.nii.gz")])
    total: Any = 0
    for parameters in params:
        trainer.load_checkpoint_ram(parameters, False)
        total = (
            total
            + trainer.predict_preprocessed_data_return_seg_and_softmax(
                data,
                do_mirroring=mirroring,
                mirror_axes=trainer.data_aug_params["mirror_axes"],
                use_sliding_window=True,
                step_size=0.5,
                use_gaussian=True,
                all_in_gpu=False,
                mixed_precision=True,
            )[1]
        )
    softmax = total / len(params)
    out = WORK / "v1"
    out.mkdir(exist_ok=True)
    np.savez_compressed(out / f"{case}__{setting}.npz", softmax=softmax, network_input=data[0])
    back = softmax.transpose([0] + [i + 1 for i in trainer.plans["transpose_backward"]])
    save_segmentation_nifti_from_softmax(back, str(out / f"{case}__{setting}.nii.gz"), properties)


def main() -> None:
    """Data, plan, two folds, answers."""
    make_data()
    plans = plan()
    for fold in (0, 1):
        results = train(plans, fold)
    model = flat(results)
    for case in CASES:
        for setting in SETTINGS:
            predict(model, case, setting)


if __name__ == "__main__":
    main()
