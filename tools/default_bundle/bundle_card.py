"""Pack trained weights into the default bundle, and write its cards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import aiene
from aiene.classify.classifier import save_classifier
from aiene.classify.dualnet import DualNet
from aiene.hashing import file_sha256
from aiene.models.bundle import CARD, Tumour, read_bundle, write_card
from tools.default_bundle.fit_classifier import NORMALISATION
from tools.default_bundle.fit_segmenter import ARCHITECTURE

MIRRORING = True
"""Both networks of the default bundle also look at mirror images."""
TUMOURS = {"GTVp": 1, "GTVn": 2}
"""Labels of the segmenter's own output that count."""
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
| architectures | nnU-Net's plain U-Net ({features} features) and DualNet with narrow layers |
| profile | `open` |
| real CTs with planted nodes (OpenKBP) | {real} crops of {patients} patients |
| organs, as further classes | {organs} |
| phantoms (`aiene.phantom`) | {training} crops, and {necks} of necks at 0.5 to 1 mm \
({segmenter_necks} for the segmenter) |
| thresholds chosen on | {real_validation} crops of 8 other patients, {validation} and {necks_validation} of \
other phantoms |
| steps | segmenter {segmenter_steps} of two patches, classifier {classifier_steps} of 12 nodes |
| the segmenter started from | {start} |
| the classifier learned from | {classifier_data} |
| ENE threshold | {threshold} (Youden, validation phantoms) |
| licence | {licence} |

## Nodes in real CTs that it has never seen

Nodes planted into 20 CTs of OpenKBP that no training and no template saw, by the older planter (round nodes,
`tools/default_bundle/real_planting.py`) and by real numbers
(`tools/default_bundle/disease.py`); what is found in the real patient's high-dose target, where real tumour
lies that nobody outlined, counts for nothing. {rule}
Command: `{real_command}`.

{real_table}

By real numbers:

{numbers_table}

The first planting of each CT by the older planter, disturbed:

{robustness}

## Operating points

On the 8 validation patients, both planters. `balanced` is what a run gives, and `aiene run --operating-point
sensitive` the other.
Command: `python -m tools.default_bundle.choose_points`.

{points}

{cores}

## Which nodes count

{counting}

## Extension

Planted nodes found in unseen phantoms of necks at 0.5 to 1 mm in plane. Half of the nodes without extension
look a little like it, and the weakest extension shows no more than they do.
Command: `{ene_command}`.

{ene_table}

{calibration}

## Phantoms that it has never seen, on the whole road

{table}

Fragments are further parts of a planted node that is found already. Command:
`python -m tools.default_bundle.evaluate_default`. The weights come from
`python -m tools.default_bundle.train_default`.
{note}

## Limits

Planted nodes are simpler than real ones: the figures say nothing of how well nodes are found, or their
extension judged, in people. No real contour or pathology was used. The real CTs are coarse in plane (2.7 to
5.1 mm), too coarse for the signs of extension: what the classifier knows of these comes from phantoms.
Real nodes outside the high-dose target, normal or not, were taught as background. {misses}

## Template

{template}
"""

STARTED = "started.json"
"""In a training's folder: what the weights that it began with had learned."""
REPEATABLE = (
    "The same commands give weights of the same kind, not these bytes: the processor's rounding differs from "
    "run to run."
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
    write(bundle, threshold, provenance(work, {**data_of_segmenter(work), **data_of_classifier(work)}))


def pack_segmenter(work: Path, bundle: Path, calibrated: DualNet | None = None) -> None:
    """Replace the bundle's segmenter; classifier and threshold stay, and all figures of before go.

    The card then tells what the segmenter of now and the classifier of before learned from.

    Parameters
    ----------
    calibrated : the classifier of before with another calibration; its threshold lies in `work`.
    """
    card = read_bundle(bundle).card
    threshold = card.ene_threshold
    if calibrated is not None:
        save_classifier(bundle / "classifier", calibrated, half=True)
        threshold = json.loads((work / "threshold.json").read_text())["ene_threshold"]
    before: dict[str, Any] = card.provenance["data"]
    shutil.rmtree(bundle / "segmenter")
    shutil.copytree(work / "segmenter", bundle / "segmenter")
    for file in (bundle / "segmenter").rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    real = {name: before[name] for name in ("real_crops", "real_patients")}
    data = {
        **before,
        **data_of_segmenter(work),
        "classifier_learned": before.get("classifier_learned", real),
    }
    write(bundle, threshold, provenance(work, data))
    write_readme(bundle)


def note_start(work: Path, checkpoint: Path) -> None:
    """Keep beside a training what its first weights had learned; of others than the bundle's, the hash."""
    bundle = read_bundle(DEFAULT_BUNDLE)
    sha256 = file_sha256(checkpoint)
    facts: dict[str, Any] = {"sha256": sha256}
    if sha256 == bundle.card.files["segmenter/fold_0/checkpoint_final.pth"]:
        data = bundle.card.provenance["data"]
        facts |= {name: data[name] for name in ("segmenter_steps", "real_crops", "real_patients")}
    (work / STARTED).write_text(json.dumps(facts), encoding="utf-8")


def data_of_segmenter(work: Path) -> dict[str, Any]:
    """What the long training learned from, and how long."""

    def stored_crops(name: str) -> int:
        return len(list((work / "crops" / name).glob("*.json")))

    real = {kind: stored_crops(kind) for kind in ("disease", "round", "plain")}
    hosts = {f.stem.rsplit("_", 1)[0] for kind in real for f in (work / "crops" / kind).glob("*.json")}
    started = work / STARTED
    return {
        "real_crops": sum(real.values()),
        "real_crops_by_kind": real,
        "real_patients": len(hosts),
        "real_validation_crops": sum(stored_crops(f"validation/{kind}") for kind in real),
        "segmenter_neck_crops": stored_crops("necks"),
        "segmenter_steps": steps_done(work / "segmenter_state.pth"),
        "segmenter_started": json.loads(started.read_text(encoding="utf-8")) if started.exists() else None,
        "kind": KIND,
    }


def data_of_classifier(work: Path) -> dict[str, Any]:
    """Phantoms that the classifier learned from, and how long; of the real crops it takes some."""

    def count(name: str) -> int:
        return len(list((work / name).glob("*_*.npz")))

    return {
        "training_crops": count("training"),
        "training_neck_crops": count("necks"),
        "validation_crops": count("validation"),
        "validation_neck_crops": count("necks_validation"),
        "classifier_steps": steps_done(work / "classifier_state.pth"),
    }


def provenance(work: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Where the weights come from."""
    return {
        "data": data,
        "commands": [
            "python -m tools.default_bundle.long_training crops --work DIR --openkbp DIR --more DIR",
            "python -m tools.default_bundle.long_training train --work DIR",
            "python -m tools.default_bundle.train_default --work DIR --openkbp DIR",
            "python -m tools.default_bundle.choose_points --work DIR",
            "python -m tools.default_bundle.evaluate --openkbp DIR --store",
            "python -m tools.default_bundle.evaluate_ene",
            "python -m tools.default_bundle.evaluate_default",
            "python -m tools.default_bundle.evaluate_default --first-seed 91000 --store-as second_evaluation",
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
            "pos_from": provenance.get("counting", {}).get("pos_from", 0.0),
            "labels": TUMOURS,
            "segmenter": {
                "folder": "segmenter",
                "mirroring": MIRRORING,
                "auxiliary": auxiliary_labels(bundle / "segmenter"),
                "cores": _cores(provenance.get("operating_point")),
                "operating_points": _offsets(provenance.get("operating_point")),
            },
            "classifier": {"folder": "classifier", "normalisation": NORMALISATION, "mirroring": MIRRORING},
            "neck_centre_lps_mm": NECK_CENTRE,
            "provenance": provenance,
        },
    )


def _offsets(points: Any) -> dict[str, float]:
    """Of the operating points, what a run needs of them."""
    if not isinstance(points, dict):
        return {}
    return {name: points[name]["offset"] for name in ("balanced", "sensitive")}


def _cores(points: Any) -> dict[str, float]:
    """The cores that the balanced point asks for; a card of before has none."""
    found: dict[str, float] = points.get("cores", {}) if isinstance(points, dict) else {}
    return found


def _core_words(cores: Mapping[Tumour, float]) -> str:
    """What a piece needs to stay, and what the offsets of the table above are."""
    if not cores:
        return "An offset is taken off the nodes' logit."
    needs = " and ".join(f"{core:g} for {name}" for name, core in sorted(cores.items()))
    return (
        "A voxel is called what its highest logit says; a piece of such voxels stays only where that logit "
        f"leads somewhere by its core: {needs}. An offset is added to the nodes' core, so contours stay; "
        "what would take it below 0 is taken off their logit. Other programs that run the segmenter know no "
        "cores, and find more false pieces."
    )


def auxiliary_labels(folder: Path) -> dict[str, int]:
    """Labels of a trained model that are neither background nor tumour, by its `dataset.json`."""
    labels = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["labels"]
    return {name: value for name, value in labels.items() if value > 2}


def stored(bundle: Path, name: str, figures: dict[str, Any]) -> None:
    """Put figures onto the bundle's cards, in place of those of that name."""
    card = read_bundle(bundle).card
    write(bundle, card.ene_threshold, {**card.provenance, name: figures})
    write_readme(bundle)


def write_readme(bundle: Path) -> None:
    """Write the model card for people, from `model.json`."""
    card = read_bundle(bundle).card
    data = card.provenance["data"]
    on_phantoms = [card.provenance.get(name, {}) for name in ("evaluation", "second_evaluation")]
    on_real, of_ene = (card.provenance.get(name, {}) for name in ("real_evaluation", "ene_evaluation"))
    (bundle / "README.md").write_text(
        README.format(
            notice=card.notice,
            intended_use=card.intended_use,
            licence=card.licence,
            threshold=card.ene_threshold,
            template=TEMPLATE_SOURCE,
            features=", ".join(str(n) for n in ARCHITECTURE["features_per_stage"]),
            training=data["training_crops"],
            necks=data["training_neck_crops"],
            validation=data["validation_crops"],
            necks_validation=data["validation_neck_crops"],
            real=data["real_crops"],
            patients=data["real_patients"],
            real_validation=data["real_validation_crops"],
            organs=", ".join(card.segmenter.auxiliary) or "none",
            segmenter_necks=data.get("segmenter_neck_crops", 60),
            numbers_table=_numbers_table(on_real),
            counting=_counting(card.pos_from, card.provenance.get("counting")),
            points=_points(card.provenance.get("operating_point")),
            cores=_core_words(card.segmenter.cores),
            segmenter_steps=data["segmenter_steps"],
            classifier_steps=data["classifier_steps"],
            start=_start(data.get("segmenter_started")),
            classifier_data=_learned(data.get("classifier_learned")),
            misses=_misses(on_real.get("planted_in_real")),
            table=_table(on_phantoms),
            rule=RULE,
            real_command=on_real.get("command", "not run yet"),
            real_table=_real_table(on_real),
            robustness=_robustness(on_real),
            ene_command=of_ene.get("command", "not run yet"),
            ene_table=_ene_table(of_ene),
            calibration=_calibration(of_ene),
            note=card.provenance["note"],
        ),
        encoding="utf-8",
    )


def _start(before: dict[str, Any] | None) -> str:
    """Row of the weights that the training began with."""
    if before is None:
        return "random weights"
    if "segmenter_steps" not in before:
        return f"weights with the SHA-256 {before['sha256']}"
    return (
        f"the weights of before: {before['segmenter_steps']} steps on {before['real_crops']} real crops of "
        f"{before['real_patients']} patients"
    )


def _learned(of_classifier: dict[str, Any] | None) -> str:
    """Row of the real crops of the classifier, where the segmenter was replaced without it."""
    if of_classifier is None:
        return "some of the real crops and phantoms above"
    return (
        f"nodes in {of_classifier['real_crops']} real crops of {of_classifier['real_patients']} patients and "
        "in the phantoms, found by a segmenter of before; it was not trained anew"
    )


def _misses(planted: dict[str, Any] | None) -> str:
    """What it is to be expected to do wrong."""
    if planted is None:
        return ""
    missed, false = 1 - planted["sensitivity_10_mm_and_more"], planted["false_nodes_per_case"]
    return (
        f"In the real CTs {missed:.0%} of the round planted nodes of 10 mm and more are missed, and "
        f"{false:.1f} structures a case (muscle, glands, vessels) are taken for nodes."
    )


def _table(sets: list[dict[str, Any]]) -> str:
    """The figures of each set of phantoms, one column a set."""
    columns = [_column(figures) for figures in sets if figures]
    if not columns:
        return NOT_YET
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
    """What `evaluate.py` found on the kept-out CTs."""
    if not figures:
        return NOT_YET
    lines = ["| | |", "| --- | --- |"]
    rows = {title: figures.get(part, {}).get(key) for title, (part, key) in _REAL_ROWS.items()}
    lines += [f"| {title} | {value} |" for title, value in rows.items() if value is not None]
    if "pos_from" not in figures:  # measured before a bundle had a rule
        lines = [f"{line[:-1]}(before the rule below) |" if "as AI-ENE" in line else line for line in lines]
    lines += _by_pos(figures["planted_in_real"])
    for name, one in figures["planted_in_real"]["by_short_axis"].items():
        lines.append(f"| found, short axis {name} | {one['found']} of {one['nodes']} |")
    return "\n".join(lines)


def _by_pos(found: dict[str, Any]) -> list[str]:
    """What is left where the classifier has a word: from the bundle's own `pos` on, and from a sure one."""
    titles = {
        "sensitivity_10_mm_and_more": "sensitivity, 10 mm and more",
        "sensitivity_10_mm_and_3_voxels": "sensitivity, 10 mm and 3 voxels and more",
        "false_nodes_per_case": "false nodes per case",
    }
    return [
        f"| where `pos` is {one['pos_from']:g} and more: {title} | {one[key]} |"
        for one in found.get("by_pos", ())
        for key, title in titles.items()
        if one[key] is not None
    ]


def _numbers_table(figures: dict[str, Any]) -> str:
    """What was found of disease that was planted by real numbers, in groups."""
    found = figures.get("planted_by_real_numbers")
    if not found:
        return NOT_YET
    lines = ["| | |", "| --- | --- |"]
    lines += [f"| {title} | {found[key]} |" for title, key in _NUMBERS_ROWS.items() if key in found]
    lines += _by_pos(found)
    for group in _GROUPS:
        for name, one in found[group].items():
            lines.append(f"| found, {_GROUPS[group]} {name} | {one['found']} of {one['nodes']} |")
    return "\n".join(lines)


def _points(points: Any) -> str:
    """The operating points, and the FROC curve."""
    if not isinstance(points, dict):
        return NOT_YET
    lines = [
        "| | offset | sensitivity | 10 mm and more | false nodes per case | Dice |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    rows = [*((name, points[name]) for name in ("balanced", "sensitive")), *(("", p) for p in points["froc"])]
    for name, one in rows:
        cells = (one[key] for key in ("sensitivity", "sensitivity_10_mm", "false_per_case", "dice"))
        shown = " | ".join("" if cell is None else f"{cell:.2f}" for cell in cells)
        lines.append(f"| {name} | {one['offset']:+.1f} | {shown} |")
    if points.get("mirrored") is False:
        lines += ["", "Measured without the mirror image, which a run looks at too."]
    return "\n".join(lines)


def _counting(pos_from: float, figures: dict[str, Any] | None) -> str:
    """The rule for `pos`, and what it costs and brings."""
    if not figures:
        return "Every found node."
    if "planted_nodes" not in figures:
        return (
            f"A found node counts towards the AI-ENE number where its `pos` is {pos_from:g} or more. `pos` "
            "is calibrated on nodes and on what the segmenter wrongly takes for nodes in the validation "
            "patients, so 0.5 means: rather a node than not. What that costs and brings on the kept-out CTs "
            "stands above, in the rows of `pos`. Other nodes are shown all the same."
        )
    return (
        f"A found node counts towards the AI-ENE number where its `pos` is {pos_from:g} or more: the highest "
        f"value that keeps {KEPT:.0%} of the planted nodes found in the validation patients. There "
        f"{figures['planted_nodes_that_count']:.0%} of {figures['planted_nodes']} planted nodes count, and "
        f"{figures['hard_negatives_that_count']:.0%} of {figures['hard_negatives']} structures that were "
        "wrongly taken for nodes. Other nodes are shown all the same."
    )


def _robustness(figures: dict[str, Any]) -> str:
    """Each figure where the CTs are disturbed, and its difference to the undisturbed one."""
    if not figures.get("robustness"):
        return NOT_YET
    rows = figures["robustness"]
    plain = rows[AS_IT_IS]
    lines = [
        f"| | {' | '.join(_FALLS)} | cases without a neck |",
        f"| --- |{' --- |' * len(_FALLS)} --- |",
    ]
    for name in (AS_IT_IS, *(n for n in rows if n != AS_IT_IS)):
        one = rows[name]
        cells = [f"{one[key]:.3f} ({one[key] - plain[key]:+.3f})" for key in _FALLS.values()]
        lines.append(f"| {name} | {' | '.join(cells)} | {one['cases_failed']} |")
    return "\n".join(lines)


def _ene_table(figures: dict[str, Any]) -> str:
    """What `evaluate_ene.py` found, by the strength of the signs."""
    if not figures:
        return NOT_YET
    certain = figures["certain"]
    low, high = figures["auc_95"]
    lines = [
        f"AUC {figures['auc']:.3f} ({low:.3f} to {high:.3f}, 95 % bootstrap over patients) on "
        f"{figures['nodes']} nodes, {figures['ene_nodes']} with extension; "
        f"Brier score {figures['brier']:.3f}.",
        "",
        f"| signs | nodes | AUC against none | mean probability | called | over {certain} "
        f"| under {1 - certain:.2f} |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in ("none", "weak", "plain", "strong"):
        one = figures["by_strength"].get(name)
        if one is None:
            continue
        area = f"{one['auc_against_none']:.3f}" if "auc_against_none" in one else ""
        lines.append(
            f"| {name} | {one['nodes']} | {area} | {one['mean_probability']:.2f} | {one['called']:.2f} "
            f"| {one['certain_yes']:.2f} | {one['certain_no']:.2f} |"
        )
    return "\n".join(lines)


def _calibration(figures: dict[str, Any]) -> str:
    """What was said and what was true, in fifths of the nodes."""
    if not figures:
        return NOT_YET
    bins = figures["calibration"]
    rows = [
        ["calibration, fifths of the nodes", *(str(k + 1) for k in range(len(bins)))],
        ["---"] * (len(bins) + 1),
        ["mean probability", *(f"{one['predicted']:.2f}" for one in bins)],
        ["share with extension", *(f"{one['observed']:.2f}" for one in bins)],
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\nExpected calibration error {figures['expected_calibration_error']:.3f}."


AS_IT_IS = "as it is"
"""Name of the undisturbed CTs among the disturbed ones."""
NOT_YET = "Not evaluated yet."
KEPT = 0.9
"""Share of the found planted nodes that must go on counting. On the validation patients 0.95 would let six of
ten structures count that are wrongly taken for nodes, for four more of 78 nodes; 0.9 lets three or four."""
RULE = (
    "Found: one found node, used once, holds at least 30 % of the planted node's voxels; false: less than "
    "10 % of it lies in planted nodes."
)
PERFECT = "Dice of the same nodes drawn by a perfect hand on the CT's own voxels, mean"
_REAL_ROWS = {
    "planted nodes": ("planted_in_real", "nodes"),
    "sensitivity": ("planted_in_real", "sensitivity"),
    "sensitivity, short axis of 10 mm and more": ("planted_in_real", "sensitivity_10_mm_and_more"),
    "false nodes per case": ("planted_in_real", "false_nodes_per_case"),
    "Dice per found node, mean": ("planted_in_real", "dice_per_found_node"),
    PERFECT: ("planted_in_real", "dice_of_a_perfect_hand"),
    "false nodes per case that would count as AI-ENE": ("planted_in_real", "false_ene_nodes_per_case"),
    "plantings without a node": ("blank_plantings", "places"),
    "of these, called a node": ("blank_plantings", "new_nodes_found"),
    "unchanged CTs: nodes per patient, median": ("real_nodes", "nodes_per_patient_median"),
    "share of their volume in the high-dose target": (
        "real_nodes",
        "share_of_found_volume_in_high_dose_target",
    ),
    "the same by chance": ("real_nodes", "the_same_by_chance"),
    "the same by chance, at places as bright and of the same level": (
        "real_nodes",
        "by_chance_at_like_places",
    ),
    "patients with a node in the target": ("real_nodes", "patients_with_a_node_in_the_target"),
    "of nodes that count: share of their volume in the high-dose target": (
        "real_nodes_that_count",
        "share_of_found_volume_in_high_dose_target",
    ),
    "of nodes that count: by chance, at places as bright and of the same level": (
        "real_nodes_that_count",
        "by_chance_at_like_places",
    ),
    "of nodes that count: patients with one in the target": (
        "real_nodes_that_count",
        "patients_with_a_node_in_the_target",
    ),
}
_NUMBERS_ROWS = {
    "planted nodes": "nodes",
    "sensitivity": "sensitivity",
    "sensitivity, 10 mm and more": "sensitivity_10_mm_and_more",
    "sensitivity, 10 mm and 3 voxels and more": "sensitivity_10_mm_and_3_voxels",
    "false nodes per case": "false_nodes_per_case",
    "Dice per found node, mean": "dice_per_found_node",
    PERFECT: "dice_of_a_perfect_hand",
    "planted primaries outside the target": "primaries",
    "of these, found (half of the volume)": "primaries_found",
    "pieces called a primary that are none, per case": "false_primaries_per_case",
}
_GROUPS = {
    "by_short_axis": "short axis",
    "by_voxels_across": "voxels across",
    "by_level": "level",
    "by_contrast": "solid part",
    "by_enhancement": "CT",
}
_FALLS = {
    "sensitivity, 10 mm and more": "sensitivity_10_mm_and_more",
    "false nodes per case": "false_nodes_per_case",
    "Dice": "dice_per_found_node",
}
