"""Make the weights of the default bundle from seeds and the real CTs of OpenKBP.

    python training/train_default.py --work DIR --openkbp DIR
                                     [--stage data|segmenter|point|nodes|classifier|pack|all]

The stages, each of which goes on where it was cut off:

data        nodes planted into 77 real CTs, phantoms, and phantoms of necks alone, on the crop (15 GB in DIR)
segmenter   the U-Net on all of them; half-way it is shown what it wrongly calls a node in real CTs
point       how sure it must be of a node, from 8 other real CTs and other phantoms
nodes       inputs of the classifier from true and found nodes
classifier  the DualNet on them, its calibration and its threshold
pack        the bundle in the package; float16 in the classifier only, since in the segmenter it moves labels

All nodes are synthetic. Two cores need some two and a half hours for all of it. The 20 kept-out CTs
(`holdout`) take no part; seeds of training, validation and test persons never meet (`phantom_crops`).
"""

from __future__ import annotations

import argparse
import functools
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

import fit_classifier
import fit_segmenter
import operating_point
from aiene.preprocess import OPEN, read_template
from aiene.segment import load_segmenter
from bundle_card import DEFAULT_BUNDLE, MIRRORING, NECK_CENTRE, pack
from crop_store import CropStore, write_store
from figures import youden_threshold
from hard_places import hard_places
from phantom_crops import (
    NECK_SEED,
    NECK_VALIDATION_SEED,
    TRAINING_SEED,
    VALIDATION_SEED,
    load_crop,
    write_necks,
    write_set,
)
from real_crops import real_patients, write_real

SEED = 20_261_129
CROPS_SEED = 20_261_126
PHANTOM_PLANTINGS = 2
REAL_PLANTINGS = 16
VALIDATION_PLANTINGS = 2
SHARES = {"real": 0.7, "training": 0.12, "necks": 0.18}
"""Of the segmenter's patches: phantoms keep the edge of nodes sharp; most are real."""
MOST = {"real": None, "training": None, "necks": 60}
"""Crops of which the segmenter learns; the other necks are for the classifier."""
MINED = 4
"""Every so manieth real crop is searched for false places."""
NODE_SETS = {
    "training": (("necks", 1), ("training", 1), ("real", 8)),
    "validation": (("necks_validation", 1), ("validation", 1), ("real_validation", 1)),
}
"""Folders of crops, and that every so manieth crop is taken."""


def main() -> None:
    """Run the stages that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder outside the repository for caches")
    parser.add_argument("--openkbp", type=Path, required=True, help="the real CTs")
    parser.add_argument("--stage", default="all", choices=["all", *STAGES])
    parser.add_argument("--persons", type=int, default=40, help="training phantoms")
    parser.add_argument("--necks", type=int, default=160, help="more training phantoms, neck only")
    parser.add_argument("--validation", type=int, default=16, help="validation phantoms")
    parser.add_argument("--validation-necks", type=int, default=40)
    parser.add_argument("--segmenter-steps", type=int, default=fit_segmenter.Schedule.steps)
    parser.add_argument("--classifier-steps", type=int, default=fit_classifier.Schedule.steps)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.processes)
    options.work.mkdir(parents=True, exist_ok=True)
    for name, stage in STAGES.items():
        if options.stage in ("all", name):
            stage(options)


def data(options: argparse.Namespace) -> None:
    """Crops of everybody who is learned from or chosen on."""
    work, workers = options.work, options.processes
    template = read_template(DEFAULT_BUNDLE / "template.nrrd", OPEN, NECK_CENTRE)
    people = real_patients(options.openkbp)
    real = functools.partial(write_real, openkbp=options.openkbp, template=template, seed=CROPS_SEED)
    failures = [
        *real(work / "real", patients=people.training, plantings=REAL_PLANTINGS, workers=workers),
        *real(
            work / "real_validation",
            patients=people.validation,
            plantings=VALIDATION_PLANTINGS,
            workers=workers,
        ),
        *write_set(work / "training", TRAINING_SEED, options.persons, PHANTOM_PLANTINGS, template, workers),
        *write_set(work / "validation", VALIDATION_SEED, options.validation, 1, template, workers),
    ]
    write_necks(work / "necks", NECK_SEED, options.necks, workers)
    write_necks(work / "necks_validation", NECK_VALIDATION_SEED, options.validation_necks, workers)
    (work / "failures.json").write_text(json.dumps(failures, indent=1))


def segmenter(options: argparse.Namespace) -> None:
    """The segmenter, and its folder in nnU-Net v2's layout."""
    work, processes = options.work, options.processes
    stores = {
        name: write_store(crop_files(work / name)[: MOST[name]], work / "stores" / name) for name in SHARES
    }
    schedule = fit_segmenter.Schedule(steps=options.segmenter_steps)
    lessons = [fit_segmenter.Lesson(stores[name], share) for name, share in SHARES.items()]
    half = schedule.steps // 2
    fit_segmenter.train_together(lessons, schedule, work, SEED, processes, until=half)
    hard = mined(work, stores["real"], processes)
    lessons[0] = replace(lessons[0], hard=hard)
    fit_segmenter.train_together(lessons, schedule, work, SEED, processes)
    fit_segmenter.write_nnunet_folder(work, work / "segmenter", half=False)


def mined(work: Path, real: CropStore, processes: int) -> tuple[tuple[int, int, int, int], ...]:
    """False places of the real crops, kept once they are known."""
    file = work / "hard_places.json"
    if not file.exists():
        fit_segmenter.write_nnunet_folder(work, work / "half_way", half=False)
        found = hard_places(real, range(0, len(real), MINED), work / "half_way", processes)
        file.write_text(json.dumps(found))
    places = tuple((k, z, y, x) for k, z, y, x in json.loads(file.read_text()))
    print(f"{len(places)} false places", flush=True)
    return places


def operating_point_stage(options: argparse.Namespace) -> None:
    """The segmenter's offset, from the validation persons and patients."""
    kinds = [
        operating_point.points(crop_files(options.work / name), options.work / "segmenter", options.processes)
        for name in ("real_validation", "validation")
    ]
    for kind in kinds:
        print(*kind, sep="\n", flush=True)
    point = operating_point.chosen(*kinds)
    fit_segmenter.write_nnunet_folder(
        options.work, options.work / "segmenter", half=False, node_offset=point[0].offset
    )
    (options.work / "operating_point.json").write_text(json.dumps([p._asdict() for p in point]))


def nodes(options: argparse.Namespace) -> None:
    """Classifier inputs of both sets, from the true label maps and from the segmenter's."""
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for name, folders in NODE_SETS.items():
            files = [f for folder, every in folders for f in crop_files(options.work / folder)[::every]]
            jobs = [
                pool.submit(node_set, files[k :: options.processes], options.work / "segmenter")
                for k in range(options.processes)
            ]
            made = [node for job in jobs for node in job.result()]
            save_nodes(options.work / f"{name}_nodes.npz", made)
            false = sum(n.pos == 0 for n in made)
            print(
                f"{name}: {len(made)} nodes, {false} false, {sum(n.ene == 1 for n in made)} with ENE",
                flush=True,
            )


def classifier(options: argparse.Namespace) -> None:
    """The classifier, its calibration, and its threshold, from the validation persons."""
    schedule = fit_classifier.Schedule(steps=options.classifier_steps)
    fit_classifier.train(load_nodes(options.work / "training_nodes.npz"), schedule, options.work, SEED)
    net = fit_classifier.trained(options.work)
    known = load_nodes(options.work / "validation_nodes.npz")
    print(fit_classifier.calibrate(net, known), flush=True)
    torch.save({"network": net.state_dict()}, options.work / "classifier_calibrated.pth")
    phantoms = [n for n in known if n.ene >= 0 and n.pos == 1 and not n.real]
    ene = fit_classifier.scores(net, phantoms)[:, 1]
    truth = np.array([n.ene for n in phantoms]) == 1
    threshold = youden_threshold(ene, truth)
    (options.work / "threshold.json").write_text(json.dumps({"ene_threshold": threshold}))
    print(f"ENE threshold {threshold} by Youden on {len(phantoms)} validation nodes", flush=True)


def packing(options: argparse.Namespace) -> None:
    """The bundle in the package."""
    net = fit_classifier.new_network(SEED)
    net.load_state_dict(torch.load(options.work / "classifier_calibrated.pth", weights_only=True)["network"])
    pack(options.work, DEFAULT_BUNDLE, net.eval())


STAGES = {
    "data": data,
    "segmenter": segmenter,
    "point": operating_point_stage,
    "nodes": nodes,
    "classifier": classifier,
    "pack": packing,
}


def crop_files(folder: Path) -> list[Path]:
    """Every crop of a folder, by name and number of the planting."""
    return sorted(
        folder.glob("*_*.npz"), key=lambda f: (f.stem.rsplit("_", 1)[0], int(f.stem.rsplit("_", 1)[1]))
    )


def node_set(files: list[Path], folder: Path) -> list[fit_classifier.Node]:
    """Found nodes of all crops, and those of the true label maps; in a process of its own."""
    torch.set_num_threads(1)
    network = load_segmenter(folder, mirroring=MIRRORING)
    made: list[fit_classifier.Node] = []
    for file in files:
        crop = load_crop(file)
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
        rest=np.array([(n.pos, n.ene, n.strength, n.real) for n in made]),
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
