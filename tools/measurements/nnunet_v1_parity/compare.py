"""Our segmenter against nnU-Net v1's own code, on the model and answers that make_v1_model.py left.

    python -m tools.measurements.nnunet_v1_parity.compare WORK_FOLDER

Imports WORK_FOLDER/model, runs every case and setting, prints the differences and writes them to results.json
beside this file. Ends with 1 where softmax differs by more than 1e-3 or labels by more than 0.01 %.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from aiene.geometry.grid import Volume, volume_of
from aiene.models.importers.bundle import import_segmenter
from aiene.segment.preprocessing import network_input
from aiene.segment.segmenter import Segmenter, load_segmenter

SOFTMAX_DEMAND, LABEL_DEMAND = 1e-3, 1e-4
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"folds": (0,), "mirroring": False},
    "mirrored": {"folds": (0,), "mirroring": True},
    "two_folds": {"folds": (0, 1), "mirroring": False},
}


def compare(segmenter: Segmenter, crop: Volume, answer: Path) -> dict[str, Any]:
    """Largest difference of input and softmax, and how many labels differ."""
    theirs = np.load(answer)
    labels = volume_of(sitk.ReadImage(str(answer.with_suffix(".nii.gz")))).array
    prepared = network_input(crop, segmenter.plan)
    softmax = segmenter.scores(prepared)
    differing = int((segmenter.labels(prepared, softmax) != labels).sum())
    return {
        "network_size": list(prepared.image.shape),
        "max_input_difference": float(np.abs(prepared.image - theirs["network_input"]).max()),
        "max_softmax_difference": float(np.abs(softmax - theirs["softmax"]).max()),
        "labels_differing": differing,
        "share_of_labels_differing": differing / labels.size,
        "labels_of_v1": np.bincount(labels.ravel(), minlength=3).tolist(),
    }


def main(work: Path) -> int:
    """Import, compare, write down."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as room:
        target = Path(room) / "segmenter"
        report = import_segmenter(work / "model", target)
        cases: dict[str, dict[str, Any]] = {}
        for answer in sorted((work / "v1").glob("*.npz")):
            case, setting = answer.stem.split("__")
            crop = volume_of(sitk.ReadImage(str(work / "inputs" / f"{case}_0000.nii.gz")))
            cases[answer.stem] = compare(load_segmenter(target, **SETTINGS[setting]), crop, answer)
            print(answer.stem, cases[answer.stem])
    worst = max(case["max_softmax_difference"] for case in cases.values())
    share = max(case["share_of_labels_differing"] for case in cases.values())
    results = {
        "import": str(report),
        "patch": list(report.patch),
        "demands": {"softmax": SOFTMAX_DEMAND, "share_of_labels": LABEL_DEMAND},
        "worst": {"softmax": worst, "share_of_labels": share},
        "torch": torch.__version__,
        "cases": cases,
    }
    file = Path(__file__).parent / "results.json"
    file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return int(not cases or worst > SOFTMAX_DEMAND or share > LABEL_DEMAND)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
