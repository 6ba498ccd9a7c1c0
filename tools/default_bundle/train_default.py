"""Make the default bundle from seeds, the real CTs of OpenKBP, and a long training's segmenter.

    python -m tools.default_bundle.long_training crops --work DIR --openkbp DIR [--more DIR]
    python -m tools.default_bundle.long_training train --work DIR
    python -m tools.default_bundle.train_default --work DIR --openkbp DIR
                                     [--stage data|segmenter|nodes|classifier|pack|all]

`long_training` makes the segmenter, over days if one will; the stages here take it as it stands in DIR. Each
of them goes on where it was cut off:

data        phantoms, and phantoms of necks alone, on the crop, for the classifier
segmenter   the averaged weights as a model, and how sure it must be of a node, from 8 other real CTs
nodes       inputs of the classifier from true and found nodes
classifier  the DualNet on them, its calibration and its threshold
pack        the bundle in the package; float16 in the classifier only, since in the segmenter it moves labels

All disease is synthetic. The 20 kept-out CTs (`holdout`) take no part; seeds of training, validation and test
persons never meet (`phantom_crops`).
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from aiene.models.bundle import OperatingPoint
from aiene.preprocess.preprocess import read_template
from aiene.preprocess.profile import OPEN
from aiene.segment.segmenter import at_the_point, load_segmenter
from tools.default_bundle import fit_classifier, fit_segmenter, operating_point
from tools.default_bundle.bundle_card import (
    DEFAULT_BUNDLE,
    MIRRORING,
    NECK_CENTRE,
    TUMOURS,
    pack,
    pack_segmenter,
)
from tools.default_bundle.figures import youden_threshold
from tools.default_bundle.growing_store import GrowingStore
from tools.default_bundle.long_training import crops_folder
from tools.default_bundle.phantom_crops import (
    NECK_SEED,
    NECK_VALIDATION_SEED,
    TRAINING_SEED,
    VALIDATION_SEED,
    Crop,
    load_crop,
    write_necks,
    write_set,
)

SEED = 20_261_129
PHANTOM_PLANTINGS = 2
REAL_KINDS = ("disease", "round")
NODE_SETS = {
    "training": (("necks", 1), ("training", 1)),
    "validation": (("necks_validation", 1), ("validation", 1)),
}
"""Folders of phantom crops, and that every so manieth crop is taken."""
REAL_NODES = {"training": (*REAL_KINDS, "plain"), "validation": REAL_KINDS}
"""Kinds of real crops; in a CT as it is every node outside the target is a false one."""
EVERY_REAL = {"training": 4, "validation": 1}
"""Of the real crops of each kind, every so manieth teaches the classifier, or judges it."""


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
    parser.add_argument("--classifier-steps", type=int, default=fit_classifier.Schedule.steps)
    parser.add_argument(
        "--keep-classifier",
        action="store_true",
        help="pack the segmenter alone, beside the classifier of now",
    )
    parser.add_argument(
        "--calibrated-anew",
        action="store_true",
        help="with --keep-classifier: with the calibration that the stage classifier made of it",
    )
    parser.add_argument(
        "--node-sets",
        nargs="+",
        choices=list(NODE_SETS),
        default=list(NODE_SETS),
        help="of the stage nodes; for a calibration alone: validation",
    )
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.processes)
    options.work.mkdir(parents=True, exist_ok=True)
    for name, stage in STAGES.items():
        if options.stage in ("all", name):
            stage(options)


def data(options: argparse.Namespace) -> None:
    """Phantoms on the crop."""
    work, workers = options.work, options.processes
    template = read_template(DEFAULT_BUNDLE / "template.nrrd", OPEN, NECK_CENTRE)
    failures = [
        *write_set(work / "training", TRAINING_SEED, options.persons, PHANTOM_PLANTINGS, template, workers),
        *write_set(work / "validation", VALIDATION_SEED, options.validation, 1, template, workers),
    ]
    write_necks(work / "necks", NECK_SEED, options.necks, workers)
    write_necks(work / "necks_validation", NECK_VALIDATION_SEED, options.validation_necks, workers)
    (work / "failures_of_phantoms.json").write_text(json.dumps(failures, indent=1))


def segmenter(options: argparse.Namespace) -> None:
    """The long training's segmenter as a model, at its operating point."""
    work = options.work
    if not (work / "segmenter_state.pth").exists():
        raise SystemExit(f"{work} holds no segmenter_state.pth: run long_training first")
    plain = work / "segmenter_plain"
    fit_segmenter.write_nnunet_folder(work, plain, half=False)
    stores = [crops_folder(work) / "validation" / kind for kind in REAL_KINDS]
    counts = operating_point.measured(stores, plain, options.processes)
    found = operating_point.chosen(operating_point.curves(counts))
    print(*found.froc, sep="\n", flush=True)
    border, core = operating_point.primary_contour(counts), operating_point.primary_core(counts)
    print(f"contours: nodes {found.contour:g}, primaries {border:g}; core of primaries {core:g}", flush=True)
    fit_segmenter.write_nnunet_folder(
        work, work / "segmenter", half=False, node_offset=found.contour, primary_offset=border
    )
    cores = {"GTVn": found.points["balanced"].offset, "GTVp": core - border}
    card = {**found.card(), "cores": cores}
    (work / "operating_point.json").write_text(json.dumps(card))


def nodes(options: argparse.Namespace) -> None:
    """Classifier inputs of both sets, from the true label maps and from the segmenter's."""
    work, processes = options.work, options.processes
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for name in options.node_sets:
            files: list[Source] = [
                f for folder, every in NODE_SETS[name] for f in crop_files(work / folder)[::every]
            ]
            real = crops_folder(work) / ("validation" if name == "validation" else "")
            for kind in REAL_NODES[name]:
                store = real / kind
                files += [(store, k) for k in range(0, len(GrowingStore(store)), EVERY_REAL[name])]
            at: OperatingPoint = "sensitive" if name == "training" else "balanced"
            jobs = [
                pool.submit(node_set, files[k::processes], work / "segmenter", at) for k in range(processes)
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
    """The bundle in the package; with `--keep-classifier` its segmenter alone."""
    if options.keep_classifier and not options.calibrated_anew:
        pack_segmenter(options.work, DEFAULT_BUNDLE)
        return
    net = fit_classifier.new_network(SEED)
    net.load_state_dict(torch.load(options.work / "classifier_calibrated.pth", weights_only=True)["network"])
    if options.keep_classifier:
        pack_segmenter(options.work, DEFAULT_BUNDLE, net.eval())
    else:
        pack(options.work, DEFAULT_BUNDLE, net.eval())


STAGES = {
    "data": data,
    "segmenter": segmenter,
    "nodes": nodes,
    "classifier": classifier,
    "pack": packing,
}


def crop_files(folder: Path) -> list[Path]:
    """Every crop of a folder, by name and number of the planting."""
    return sorted(
        folder.glob("*_*.npz"), key=lambda f: (f.stem.rsplit("_", 1)[0], int(f.stem.rsplit("_", 1)[1]))
    )


Source = Path | tuple[Path, int]
"""A crop: its file, or its number in a store."""


def crop_from(source: Source) -> Crop:
    """Read a crop from where it lies."""
    if isinstance(source, Path):
        return load_crop(source)
    folder, number = source
    return GrowingStore(folder).whole(number)


def node_set(sources: list[Source], folder: Path, point: OperatingPoint) -> list[fit_classifier.Node]:
    """Found nodes of all crops, and those of the true label maps; in a process of its own.

    Parameters
    ----------
    folder : of the segmenter; its operating points lie beside it.
    point : at which nodes are found. A segmenter makes few mistakes in the crops that it has learned: the
        classifier learns what a false node is from those of the sensitive point.
    """
    torch.set_num_threads(1)
    points = json.loads((folder.parent / "operating_point.json").read_text())
    offset, cores = at_the_point(points["cores"], points[point]["offset"])
    network = load_segmenter(folder, mirroring=MIRRORING, labels=TUMOURS, node_offset=offset, cores=cores)
    made: list[fit_classifier.Node] = []
    for source in sources:
        crop = crop_from(source)
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
