"""Pack trained weights into the default bundle, and write its cards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

import aiene
from aiene.classify import DualNet, save_classifier
from aiene.models.bundle import CARD, read_bundle, write_card
from fit_classifier import NORMALISATION

DEFAULT_BUNDLE = Path(aiene.__file__).parent / "models" / "default"
NECK_CENTRE = (0.0, 0.0, 0.0)
"""The template's own space has its origin there (`make_template.py`)."""
NOTICE = "Demonstration weights, trained on synthetic data, not for patients."
INTENDED_USE = (
    "Demonstration and tests of the software. Trained on synthetic phantoms only; "
    "never to be used for decisions about patients."
)
TEMPLATE_SOURCE = (
    "Mean of rigidly aligned CTs of OpenKBP (MIT licence; A. Babier et al., Med. Phys. 48:5549, 2021; drawn "
    "from public collections of The Cancer Imaging Archive); no person can be recognised in it."
)

README = """# The default bundle

**{notice}**

{intended_use}

| | |
| --- | --- |
| architectures | nnU-Net's plain U-Net (8 to 96 features) and DualNet with narrow layers |
| profile | `open` |
| training data | {training} crops of parametric phantoms (`aiene.phantom`) and {necks} of necks alone |
| validation data | {validation} crops of other phantoms |
| steps | segmenter {segmenter_steps}, classifier {classifier_steps} |
| ENE threshold | {threshold} (Youden, validation phantoms) |
| licence | {licence} |

## Figures on phantoms that it has never seen

{table}

The second set was not looked at before everything was fixed. The first had been looked at once, with weights
of an earlier state; after that training went on, and the bound on false nodes, by which the operating point
is chosen on the validation phantoms, was set from 0.6 to 0.75 a case.

Rule: {rule}. Fragments are further parts of a planted node that is found already.
Command: `python training/evaluate_default.py`. The weights come from `python training/train_default.py`.
{note}

## Limits

Phantoms are far simpler than patients: the figures say that the road works, and nothing of how well nodes are
found, or their extension judged, in people. No real CT, contour or pathology was used for the networks.
On five real CTs of OpenKBP they called 13 to 25 nodes a patient, many of them plainly muscle, glands or
vessels.

## Template

{template}
"""

REPEATABLE = (
    "These weights were trained in several sittings on one shared core, while crops were still being made "
    "and the schedule was being lengthened. The same commands give weights of the same kind, not these bytes."
)


def pack(work: Path, bundle: Path, classifier: DualNet) -> None:
    """Copy the trained networks into the bundle and write `model.json`, without figures yet."""
    for name in ("segmenter", "classifier"):
        shutil.rmtree(bundle / name, ignore_errors=True)
    shutil.copytree(work / "segmenter", bundle / "segmenter")
    save_classifier(bundle / "classifier", classifier, half=True)
    for file in bundle.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    threshold = json.loads((work / "threshold.json").read_text())["ene_threshold"]
    write(bundle, threshold, provenance(work))


def provenance(work: Path) -> dict[str, Any]:
    """Where the weights come from."""
    return {
        "data": {
            "training_crops": len(list((work / "training").glob("*_?.npz"))),
            "training_neck_crops": len(list((work / "necks").glob("*_?.npz"))),
            "validation_crops": len(list((work / "validation").glob("*_?.npz"))),
            "segmenter_steps": steps_done(work / "segmenter_state.pth"),
            "classifier_steps": steps_done(work / "classifier_state.pth"),
            "kind": "parametric head-and-neck phantoms (aiene.phantom) with planted nodes",
        },
        "commands": [
            "python training/train_default.py --work DIR",
            "python training/evaluate_default.py",
            "python training/evaluate_default.py --first-seed 91000 --store-as second_evaluation",
        ],
        "note": REPEATABLE,
        "operating_point": json.loads((work / "operating_point.json").read_text()),
        "template": TEMPLATE_SOURCE,
    }


def steps_done(state_file: Path) -> int:
    """How many steps a training state has behind it."""
    return int(torch.load(state_file, weights_only=True)["step"])


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


def write_readme(bundle: Path) -> None:
    """Write the model card for people, from `model.json`."""
    card = read_bundle(bundle).card
    data = card.provenance.get("data", {})
    figures = card.provenance.get("evaluation", {})
    (bundle / "README.md").write_text(
        README.format(
            notice=card.notice,
            intended_use=card.intended_use,
            licence=card.licence,
            threshold=card.ene_threshold,
            template=TEMPLATE_SOURCE,
            training=data.get("training_crops", "?"),
            necks=data.get("training_neck_crops", "?"),
            validation=data.get("validation_crops", "?"),
            segmenter_steps=data.get("segmenter_steps", "?"),
            classifier_steps=data.get("classifier_steps", "?"),
            table=_table([figures, card.provenance.get("second_evaluation", {})]),
            rule=figures.get("rule", ""),
            note=card.provenance.get("note", ""),
        ),
        encoding="utf-8",
    )


def _table(sets: list[dict[str, Any]]) -> str:
    """The figures of each set of phantoms, one column a set."""
    columns = [_column(figures) for figures in sets if figures]
    if not columns:
        return "Not evaluated yet."
    names = list(columns[0])
    head = ["", *(f"seeds from {figures['first_seed']}" for figures in sets if figures)]
    rows = [head, ["---"] * len(head), *([name, *(c[name] for c in columns)] for name in names)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _column(figures: dict[str, Any]) -> dict[str, str]:
    """The figures of one set of phantoms, by name."""
    low, high = figures["ene_auc_95"]
    return {
        "unseen phantoms": f"{figures['cases']} ({figures['cases_failed']} failed)",
        "planted nodes": f"{figures['planted_nodes']}",
        "sensitivity per node": f"{figures['sensitivity']:.3f}",
        "false nodes per case": f"{figures['false_nodes_per_case']:.2f}",
        "fragments per case": f"{figures['fragments_per_case']:.2f}",
        "Dice per found node, mean": f"{figures['dice_per_found_node_mean']:.3f}",
        "ENE AUC, found nodes (95 % bootstrap over patients)": f"{figures['ene_auc']:.3f} "
        f"({low:.3f} to {high:.3f})",
        "ENE sensitivity at the threshold": f"{figures['ene_sensitivity_at_threshold']:.3f}",
        "ENE specificity at the threshold": f"{figures['ene_specificity_at_threshold']:.3f}",
    }
