"""Make the weights of the default bundle from nothing but seeds.

    python training/train_default.py --work DIR --openkbp DIR
                                     [--stage data|segmenter|real|point|nodes|classifier|pack|all]

The stages, each of which goes on where it was cut off:

data        phantoms laid onto the template by the road itself, as crops in DIR (about 0.5 GB)
segmenter   the U-Net on those crops
real        nodes planted into real CTs (not the 20 kept out), and the U-Net trained on, on both
point       how sure the segmenter must be of a node, from the validation phantoms
nodes       inputs of the classifier from true and found nodes
classifier  the DualNet on them
pack        the bundle in the package; float16 in the classifier only, since in the segmenter it moves labels

All nodes are synthetic. One core needs some four hours for all of it. Seeds of training, validation and test
persons never meet (`phantom_crops`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import fit_classifier
import fit_segmenter
import operating_point
from aiene.prepare import OPEN, read_template
from aiene.segment import Segmenter, load_segmenter
from bundle_card import DEFAULT_BUNDLE, NECK_CENTRE, pack
from figures import youden_threshold
from phantom_crops import (
    NECK_SEED,
    TRAINING_SEED,
    VALIDATION_SEED,
    Crop,
    load_crop,
    write_necks,
    write_set,
)
from real_crops import real_patients, write_real

SEED = 20_261_125
PLANTINGS = 2
REAL_PLANTINGS = 4
MOST_CROPS = {"real": None, "training": 80, "necks": 60}
"""Phantoms keep the edge of nodes sharp; most crops are real."""
REAL_TRAINING = "on_real"


def main() -> None:
    """Run the stages that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder outside the repository for caches")
    parser.add_argument("--openkbp", type=Path, required=True, help="the real CTs")
    parser.add_argument("--stage", default="all", choices=["all", *STAGES])
    parser.add_argument("--persons", type=int, default=70, help="training phantoms")
    parser.add_argument("--necks", type=int, default=150, help="more training phantoms, neck only")
    parser.add_argument("--validation", type=int, default=16, help="validation phantoms")
    parser.add_argument("--segmenter-steps", type=int, default=4420)
    parser.add_argument("--real-steps", type=int, default=3000)
    parser.add_argument("--until", type=int, help="stop the segmenter after this step, to go on later")
    parser.add_argument("--classifier-steps", type=int, default=1200)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    for name, stage in STAGES.items():
        if options.stage in ("all", name):
            stage(options)


def data(options: argparse.Namespace) -> None:
    """Crops of training and validation persons."""
    template = read_template(DEFAULT_BUNDLE / "template.nrrd", OPEN, NECK_CENTRE)
    write_necks(options.work / "necks", NECK_SEED, options.necks)
    failures = write_set(
        options.work / "validation", VALIDATION_SEED, options.validation, 1, template
    ) + write_set(options.work / "training", TRAINING_SEED, options.persons, PLANTINGS, template)
    (options.work / "failures.json").write_text(json.dumps(failures, indent=1))


def segmenter(options: argparse.Namespace) -> None:
    """The segmenter, and its folder in nnU-Net v2's layout."""
    schedule = fit_segmenter.Schedule(steps=options.segmenter_steps)
    known = crops(options.work / "training") + crops(options.work / "necks")
    fit_segmenter.train(known, schedule, options.work, SEED, until=options.until)
    folder = options.work / "segmenter"
    fit_segmenter.write_nnunet_folder(options.work, folder, half=False)


def real(options: argparse.Namespace) -> None:
    """The segmenter trained on, on real CTs with planted nodes and on phantoms."""
    template = read_template(DEFAULT_BUNDLE / "template.nrrd", OPEN, NECK_CENTRE)
    patients, _ = real_patients(options.openkbp)
    write_real(options.work / "real", options.openkbp, patients, REAL_PLANTINGS, template, SEED)
    known = [
        c for name in ("real", "training", "necks") for c in crops(options.work / name)[: MOST_CROPS[name]]
    ]
    schedule = fit_segmenter.Schedule(steps=options.real_steps, whole_from=0.9, learning_rate=1.5e-3)
    start = torch.load(options.work / "segmenter_state.pth", weights_only=True)["network"]
    folder = options.work / REAL_TRAINING
    folder.mkdir(exist_ok=True)
    fit_segmenter.train(known, schedule, folder, SEED, until=options.until, start=start)
    fit_segmenter.write_nnunet_folder(folder, options.work / "segmenter", half=False)


def operating_point_stage(options: argparse.Namespace) -> None:
    """The segmenter's offset, from the validation persons."""
    found = operating_point.points(
        crops(options.work / "validation"), load_segmenter(options.work / "segmenter")
    )
    for point in found:
        print(point, flush=True)
    point = operating_point.chosen(found)
    fit_segmenter.write_nnunet_folder(
        options.work / REAL_TRAINING, options.work / "segmenter", half=False, node_offset=point.offset
    )
    (options.work / "operating_point.json").write_text(json.dumps(point._asdict()))


def nodes(options: argparse.Namespace) -> None:
    """Classifier inputs of both sets, from the true label maps and from the segmenter's."""
    network = load_segmenter(options.work / "segmenter")
    for name, folders in (("training", ("training", "necks")), ("validation", ("validation",))):
        known = [crop for folder in folders for crop in crops(options.work / folder)]
        made = node_set(known, network)
        save_nodes(options.work / f"{name}_nodes.npz", made)
        false = sum(n.pos == 0 for n in made)
        print(
            f"{name}: {len(made)} nodes, {false} false, {sum(n.ene == 1 for n in made)} with ENE", flush=True
        )


def classifier(options: argparse.Namespace) -> None:
    """The classifier, and its threshold from the validation persons."""
    schedule = fit_classifier.Schedule(steps=options.classifier_steps)
    fit_classifier.train(load_nodes(options.work / "training_nodes.npz"), schedule, options.work, SEED)
    known = [n for n in load_nodes(options.work / "validation_nodes.npz") if n.ene >= 0]
    ene = fit_classifier.scores(fit_classifier.trained(options.work), known)[:, 1]
    truth = np.array([n.ene for n in known]) == 1
    threshold = youden_threshold(ene, truth)
    (options.work / "threshold.json").write_text(json.dumps({"ene_threshold": threshold}))
    print(f"ENE threshold {threshold} by Youden on {len(known)} validation nodes", flush=True)


def packing(options: argparse.Namespace) -> None:
    """The bundle in the package."""
    pack(options.work, DEFAULT_BUNDLE, fit_classifier.trained(options.work))


STAGES = {
    "data": data,
    "segmenter": segmenter,
    "real": real,
    "point": operating_point_stage,
    "nodes": nodes,
    "classifier": classifier,
    "pack": packing,
}


def crops(folder: Path) -> list[Crop]:
    """Every crop of a folder, by name."""
    return [load_crop(file) for file in sorted(folder.glob("*_?.npz"))]


def node_set(crops: list[Crop], network: Segmenter) -> list[fit_classifier.Node]:
    """Found nodes of all crops, and those of the true label maps."""
    made: list[fit_classifier.Node] = []
    for crop in crops:
        made += fit_classifier.found_nodes(crop, network)
        made += fit_classifier.true_nodes(crop)
    return made


def save_nodes(file: Path, made: list[fit_classifier.Node]) -> None:
    """Keep classifier inputs."""
    partial = file.with_suffix(".part.npz")
    np.savez_compressed(
        partial,
        box=np.stack([n.box for n in made]),
        small=np.stack([n.small for n in made]),
        rest=np.array([(n.pos, n.ene, n.strength) for n in made]),
    )
    partial.rename(file)


def load_nodes(file: Path) -> list[fit_classifier.Node]:
    """Read them back."""
    with np.load(file) as stored:
        box, small, rest = stored["box"], stored["small"], stored["rest"]
    return [
        fit_classifier.Node(b, s, *(float(v) for v in r)) for b, s, r in zip(box, small, rest, strict=True)
    ]


if __name__ == "__main__":
    main()
