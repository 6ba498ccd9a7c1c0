"""Pack trained weights into the default bundle, and write its cards."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import json
import aiene
from fit_classifier import NORMALISATION

from aiene.classify import DualNet, save_classifier
from aiene.models.bundle import CARD, write_card

DEFAULT_BUNDLE = Path(aiene.__file__).parent / "models" / "default"
NECK_CENTRE = (0.0, 0.0, 0.0)
"""The template's own space has its origin there (`make_template.py`)."""
NOTICE = "Demonstration weights, trained on synthetic data, not for patients."
INTENDED_USE = (
    "Demonstration and tests of the software. Trained on synthetic phantoms only; "
    "never to be used for decisions about patients."
)
TEMPLATE_SOURCE = (
    "Mean of rigidly aligned CTs of OpenKBP (MIT licence; A. Babier et al., Med. Phys. 48:5549, 2021; drawn from "
    "public collections of The Cancer Imaging Archive); no person can be recognised in it."
)


def pack(work: Path, bundle: Path, classifier: DualNet) -> None:
    """Copy the trained networks into the bundle and write `model.json`, without figures yet."""
    for name in ("segmenter", "classifier"):
        shutil.rmtree(bundle / name, ignore_errors=True)
    shutil.copytree(work / "segmenter", bundle / "segmenter")
    save_classifier(bundle / "classifier", classifier, half=True)
    threshold = json.loads((work / "threshold.json").read_text())["ene_threshold"]
    write(bundle, threshold, provenance(work))


def provenance(work: Path) -> dict[str, Any]:
    """Where the weights come from."""
    return {
        "data": {
            "training_crops": len(list((work / "training").glob("*_?.npz"))),
            "validation_crops": len(list((work / "validation").glob("*_?.npz"))),
            "kind": "parametric head-and-neck phantoms (aiene.phantom) with planted nodes",
        },
        "commands": [
            "python training/train_default.py --work DIR",
            "python training/evaluate_default.py",
        ],
        "template": TEMPLATE_SOURCE,
    }


def write(bundle: Path, threshold: float, provenance: dict[str, Any]) -> None:
    """Write `model.json` with the hash of every file."""
    (bundle / CARD).unlink(missing_ok=True)
    write_card(
        bundle,
        {
            "name": "default",
            "version": "1",
            "licence": "Apache-2.0",
            "intended_use": INTENDED_USE,
            "notice": NOTICE,
            "profile": "open",
            "rescue_registration": True,
            "ene_threshold": threshold,
            "labels": {"GTVp": 1, "GTVn": 2},
            "classifier": {"folder": "classifier", "normalisation": NORMALISATION},
            "neck_centre_lps_mm": NECK_CENTRE,
            "provenance": provenance,
        },
    )
