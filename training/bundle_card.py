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

MIRRORING = True
"""The default bundle's segmenter also looks at the mirrored crop."""
DEFAULT_BUNDLE = Path(aiene.__file__).parent / "models" / "default"
NECK_CENTRE = (0.0, 0.0, 0.0)
"""The template's own space has its origin there (`make_template.py`)."""
NOTICE = "Demonstration weights, trained on synthetic nodes, not for patients."
INTENDED_USE = (
    "Demonstration and tests of the software. Trained on synthetic nodes only, in phantoms and planted into "
    "real CTs; never to be used for decisions about patients."
)
KIND = "phantoms (aiene.phantom) and real CTs of OpenKBP (MIT licence), both with planted nodes"
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
| the segmenter, then | {real} crops of {patients} real CTs (OpenKBP) with planted nodes, 140 of phantoms |
| validation data | {validation} crops of other phantoms |
| steps | segmenter {segmenter_steps} on phantoms, then {real_steps} on both; classifier {classifier_steps} |
| ENE threshold | {threshold} (Youden, validation phantoms) |
| licence | {licence} |

## Figures on phantoms that it has never seen

{table}

The ENE classifier was trained on phantoms alone; both sets had been looked at with the segmenter's earlier
weights, which knew nothing but phantoms.

Rule: {rule}. Fragments are further parts of a planted node that is found already.
Command: `python training/evaluate_default.py`. The weights come from `python training/train_default.py`.
{note}

## Figures on real CTs that it has never seen

Nodes planted into 20 CTs of OpenKBP that no training and no template saw (`training/real_planting.py`); what
is found in the real patient's high-dose target, where real tumour lies that nobody outlined, counts for
nothing.
Command: `{real_command}`.

{real_table}

## Limits

Planted nodes are simpler than real ones: the figures say nothing of how well nodes are found, or their
extension judged, in people. No real contour or pathology was used. The real CTs are coarse in plane (2.7 to
5.1 mm), too coarse for the signs of extension: what the classifier knows of these comes from phantoms at 0.75
to 1.2 mm. Muscle, glands and vessels are still taken for nodes.

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
            "real_steps": steps_done(work / "on_real" / "segmenter_state.pth"),
            "real_crops": len(list((work / "real").glob("*_?.npz"))),
            "real_patients": len({f.stem.rsplit("_", 1)[0] for f in (work / "real").glob("*_?.npz")}),
            "kind": KIND,
        },
        "commands": [
            "python training/train_default.py --work DIR --openkbp DIR",
            "python training/evaluate.py --openkbp DIR",
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
            real=data.get("real_crops", "?"),
            patients=data.get("real_patients", "?"),
            real_steps=data.get("real_steps", "?"),
            real_command=card.provenance.get("real_evaluation", {}).get("command", "?"),
            real_table=_real_table(card.provenance.get("real_evaluation", {})),
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


def _real_table(figures: dict[str, Any]) -> str:
    """What `evaluate.py` found on the kept-out CTs, beside the weights before where they were judged too."""
    if not figures:
        return "Not evaluated yet."
    columns = {"these weights": figures, "weights of phantoms alone": figures.get("before", {})}
    columns = {name: one for name, one in columns.items() if one}
    lines = [f"| | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    for title, (part, key) in _REAL_ROWS.items():
        lines.append(f"| {title} | {' | '.join(str(one[part][key]) for one in columns.values())} |")
    return "\n".join(lines)


_REAL_ROWS = {
    "planted nodes": ("planted_in_real", "nodes"),
    "sensitivity": ("planted_in_real", "sensitivity"),
    "sensitivity, short axis of 10 mm and more": ("planted_in_real", "sensitivity_10_mm_and_more"),
    "false nodes per case": ("planted_in_real", "false_nodes_per_case"),
    "Dice per found node, mean": ("planted_in_real", "dice_per_found_node"),
    "blank plantings called a node, of 75": ("blank_plantings", "new_nodes_found"),
    "unchanged CTs: nodes per patient, median": ("real_nodes", "nodes_per_patient_median"),
    "share of their volume in the high-dose target": (
        "real_nodes",
        "share_of_found_volume_in_high_dose_target",
    ),
    "the same by chance": ("real_nodes", "the_same_by_chance"),
    "patients with a node in the target": ("real_nodes", "patients_with_a_node_in_the_target"),
}
