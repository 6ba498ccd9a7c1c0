"""What each engine of the segmenter costs and changes, on the CTs of a folder.

    OMP_NUM_THREADS=1 python -m tools.measurements.engines ../shared/data/openkbp [--cases N]

Each CT is prepared once and segmented by every engine that this machine offers, the exact one first; times
are processor seconds of one core. Writes `results/engines.json` after every CT, and goes on from there.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from aiene.classify.classifier import Classifier
from aiene.errors import AieneError
from aiene.geometry.grid import Volume
from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from aiene.models.bundle import find_bundle
from aiene.nodes.node import GTVN, GTVP, CountingRule, contours
from aiene.nodes.split import split_nodes
from aiene.pipeline import load_networks
from aiene.preprocess.preprocess import load_preparation, prepare
from aiene.segment.engines import Engine, exact_engine, offered
from aiene.segment.segmenter import Segmenter
from tools.measurements.case_rows import store, taken_up

RESULTS = Path(__file__).parent / "results" / "engines.json"


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so many, to be gone on with")
    words = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    bundle = find_bundle("default")
    preparation = load_preparation(bundle)
    networks = load_networks(bundle, torch.device("cpu"), own_masks=False)
    if networks.segmenter is None:
        raise ValueError("no segmenter")
    roads = roads_of(networks.segmenter)
    rows = taken_up(RESULTS, bundle.sha256)
    for file in sorted(words.folder.glob("*/ct.nii.gz"))[: words.cases]:
        if file.parent.name in rows or time.monotonic() - began > words.seconds:
            continue
        (case,) = (c for c in find_cases(file)[0] if isinstance(c, Case))
        try:
            prepared = prepare(read_case(case), preparation.template, preparation.profile)
        except AieneError as error:
            print(file.parent.name, error)
            continue
        fed = prepared.crop_hu if networks.segmenter.takes_hu else prepared.crop
        answers: dict[str, Answer] = {}
        row: dict[str, Any] = {}
        for name, segmenter in roads.items():
            start = time.process_time()
            labels = segmenter(fed)  # type: ignore[arg-type]
            seconds = time.process_time() - start
            answers[name] = answered(labels, prepared.crop, networks.classifier, bundle.card.rule)
            row[name] = {"seconds": round(seconds, 3), **beside(answers[name], answers["torch float32"])}
        rows[file.parent.name] = row
        print(file.parent.name, json.dumps(row), flush=True)
        store(RESULTS, bundle.sha256, summary(rows), rows)


def roads_of(segmenter: Segmenter) -> dict[str, Segmenter]:
    """The segmenter by each engine, the exact one first."""
    found = {"torch float32": replace(segmenter, engine=exact_engine(segmenter.networks))}
    for name, make in offered(segmenter.device):
        with torch.inference_mode():
            answers = tuple(make(network, segmenter.plan.patch) for network in segmenter.networks)
        found[name] = replace(segmenter, engine=Engine(name, answers, exact=False))
    return found


@dataclass(frozen=True, eq=False)
class Answer:
    """What an engine found in one CT.

    Parameters
    ----------
    contours : label map on the crop, 1 for GTVp and 2 for GTVn.
    nodes : bool masks of the nodes' contours.
    ene : of each node; None where there is nothing to classify.
    ai_ene : how many nodes count.
    """

    contours: npt.NDArray[np.uint8]
    nodes: tuple[npt.NDArray[np.bool_], ...]
    ene: tuple[float | None, ...]
    ai_ene: int


def answered(labels: Volume, crop: Volume, classifier: Classifier, rule: CountingRule) -> Answer:
    """The nodes of a label map, and how many count."""
    marked = labels.with_array(contours(labels.array, (GTVN,), primary=GTVP))
    nodes = split_nodes(marked, fg_labels=(GTVN,), axes=False)
    scores = classifier.scores(crop, nodes)
    return Answer(
        marked.array,
        tuple(node.contour for node in nodes),
        tuple(None if s is None else s.ene for s in scores),
        sum(s is not None and rule.counts(s.pos) and s.ene > rule.ene_threshold for s in scores),
    )


def beside(found: Answer, exact: Answer) -> dict[str, Any]:
    """What an engine changes against the exact one; a node is the same where contours share a voxel."""
    mine, theirs = found.contours == GTVN, exact.contours == GTVN
    both = int(mine.sum() + theirs.sum())
    pairs = [
        (abs(a - b))
        for node, a in zip(exact.nodes, exact.ene, strict=True)
        for other, b in zip(found.nodes, found.ene, strict=True)
        if a is not None and b is not None and bool((node & other).any())
    ]
    return {
        "voxels": int(theirs.sum()),
        "changed": int((found.contours != exact.contours).sum()),
        "dice": round(2 * int((mine & theirs).sum()) / both, 5) if both else None,
        "nodes": len(exact.nodes),
        "lost": sum(not (node & mine).any() for node in exact.nodes),
        "gained": sum(not (node & theirs).any() for node in found.nodes),
        "ene_moved": round(max(pairs, default=0.0), 5),
        "ai_ene": exact.ai_ene,
        "ai_ene_moved": found.ai_ene - exact.ai_ene,
    }


def summary(rows: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Over all CTs, by engine."""
    result = {}
    for name in next(iter(rows.values())):
        of = [row[name] for row in rows.values()]
        dice = [r["dice"] for r in of if r["dice"] is not None]
        result[name] = {
            "cts": len(of),
            "seconds_ratio": round(
                sum(r["seconds"] for r in of) / sum(row["torch float32"]["seconds"] for row in rows.values()),
                3,
            ),
            "voxels": sum(r["voxels"] for r in of),
            "changed": sum(r["changed"] for r in of),
            "dice_median": round(float(np.median(dice)), 4) if dice else None,
            "dice_least": min(dice, default=None),
            **{word: sum(r[word] for r in of) for word in ("nodes", "lost", "gained")},
            "ene_moved_p95": round(float(np.quantile([r["ene_moved"] for r in of], 0.95)), 4),
            "patients_with_other_ai_ene": sum(r["ai_ene_moved"] != 0 for r in of),
        }
    return result


if __name__ == "__main__":
    main()
