"""Crops as an nnU-Net v2 raw dataset, with a fixed patient-wise split."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from aiene.errors import TrainingDataError
from aiene.results.atomic import make_folder, write_bytes, write_json
from aiene.results.images import nifti_bytes
from aiene.training.pairs import LABELS, Pair
from aiene.training.prepared import read_crop

DATASET: Final = "Dataset501_ENE"
DATASET_ID: Final = 501
CONFIGURATION: Final = "3d_fullres"
SPLITS: Final = "splits_final.json"


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
        f"{pair.case_id}: nnU-Net takes {what} for a file of its own; rename the case."
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
