"""Parity of the whole road with the published code: a bundle of the golden networks, run on two real CTs.

    python -m tools.measurements.stage_parity --shared ../shared

Imports the golden nnU-Net v1 folder, the golden Keras file and the golden template as a bundle of profile
`published`, runs `pt_193` and `pt_97` through `aiene run --keep-prepared`, and compares the crop that reached
the networks with the golden one, then label map, nodes and probabilities with those of the golden crop.
Writes `results/stage_parity.json`.
"""

from __future__ import annotations

import argparse
import json
import lzma
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from aiene.cohort import Selection, run_cohort
from aiene.geometry.grid import Grid, Volume
from aiene.models.bundle import Bundle
from aiene.models.importers.bundle import Imported, import_bundle
from aiene.nodes.split import split_nodes
from aiene.pipeline import Networks, load_networks

RESULTS = Path(__file__).parent / "results" / "stage_parity.json"
CASES = {"wide": "pt_193", "limited": "pt_97"}


def main() -> None:
    """Import, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    shared = parser.parse_args().shared
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        imported = _import(shared / "golden", work)
        cts = work / "cts"
        cts.mkdir()
        for name in CASES.values():
            shutil.copyfile(shared / "data" / "openkbp" / name / "ct.nii.gz", cts / f"{name}.nii.gz")
        run_cohort(
            cts,
            work / "out",
            model=str(imported.bundle.path),
            device="cpu",
            selection=Selection(),
            include_short_axes=True,
            keep_prepared=True,
            on_case=lambda step: print(step.result.case_id, step.result.status, step.result.warnings),
        )
        content = {
            "segmenter": imported.segmenter,
            "classifier": imported.classifier,
            "cases": {
                golden: _compare(shared / "golden", golden, work / "out", name, imported.bundle)
                for golden, name in CASES.items()
            },
        }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content, indent=1))


def _import(golden: Path, work: Path) -> Imported:
    h5 = work / "0208-1531-1_DualNet.h5"
    with lzma.open(golden / "networks" / "dualnet" / f"{h5.name}.xz") as packed, h5.open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    return import_bundle(
        name="golden",
        segmenter=golden / "networks" / "nnunet" / "nnUNet" / "Task501_ENE",
        classifier=h5,
        template=golden / "template" / "template_image.nrrd",
        out=work / "bundle",
    )


def _compare(golden: Path, case: str, out: Path, name: str, bundle: Bundle) -> dict[str, Any]:
    import torch

    expected = np.load(golden / "preprocess" / case / "crop.npz")["crop"]
    image = nib.load(out / "cases" / name / "prepared.nii.gz")
    crop = np.asanyarray(image.dataobj).transpose(2, 1, 0)
    networks = load_networks(bundle, torch.device("cpu"), own_masks=False)
    ours, theirs = (_rows(_on_crop(a), networks) for a in (crop, expected))
    table = (
        pd.read_csv(next(out.glob("prediction_list/*/*.csv"))).query("case_id == @name").sort_values("node")
    )
    return {
        "crop_max_difference": float(np.abs(crop - expected).max()),
        "crop_voxels_off_by_1e-4": int((np.abs(crop - expected) > 1e-4).sum()),
        "label_voxels_that_differ": int((ours["labels"] != theirs["labels"]).sum()),
        "nodes": len(theirs["ene"]),
        "nodes_in_the_run": len(table),
        "max_ene_difference": _largest(table["ene"].to_numpy(), theirs["ene"]),
        "max_pos_difference": _largest(table["pos"].to_numpy(), theirs["pos"]),
        "max_volume_difference_mm3": _largest(
            table["tumor_volume_before_dilation"].to_numpy(), theirs["volume"]
        ),
    }


def _on_crop(array: np.ndarray) -> Volume:
    return Volume(
        np.ascontiguousarray(array, dtype=np.float32), Grid(array.shape, (3.0, 1.0, 1.0), (0, 0, 0))
    )


def _rows(crop: Volume, networks: Networks) -> dict[str, np.ndarray]:
    """What the road makes of a crop; scored nodes only, by published number."""
    if networks.segmenter is None:
        raise ValueError("the bundle was loaded without its segmenter")
    labels = networks.segmenter(crop)
    nodes = split_nodes(labels, fg_labels=(2,), axes=False)
    scores = [s for s in networks.classifier.scores(crop, nodes) if s is not None]
    return {
        "labels": labels.array,
        "ene": np.array([s.ene for s in scores]),
        "pos": np.array([s.pos for s in scores]),
        "volume": np.array([n.volume_before_mm3 for n in nodes]),
    }


def _largest(ours: np.ndarray, theirs: np.ndarray) -> float | None:
    if ours.shape != theirs.shape:
        return None
    return float(np.abs(ours - theirs).max()) if len(ours) else 0.0


if __name__ == "__main__":
    main()
