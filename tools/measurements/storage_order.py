"""How far the storage order of one CT moves its registration, its nodes' ENE and the AI-ENE number.

    python -m tools.measurements.storage_order ../shared/data/openkbp [--cases 10] [--profile published|open]

Each CT goes through preparation and networks as it is stored and with rows and columns reversed: the same
voxels at the same places. The weights of the published code are not public, so the networks are those of the
default bundle. With `published`, resampling and registration are the published ones, bit for bit; crop and
window are those that the default networks were trained with. Writes
`results/storage_order_PROFILE.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from aiene.geometry.grid import AxisOrder, RigidTransform
from aiene.ingest.case import Case, NativeCt
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from aiene.models.bundle import find_bundle
from aiene.nodes.node import GTVN, ranks_by_volume
from aiene.nodes.placement import native_nodes
from aiene.nodes.split import split_nodes
from aiene.pipeline import Networks, load_networks
from aiene.preprocess.preprocess import Preparation, Prepared, load_preparation, prepare, to_native
from aiene.preprocess.profile import PUBLISHED

RESULTS = Path(__file__).parent / "results"
ORDERS = {
    "as stored": AxisOrder((0, 1, 2), (False, False, False)),
    "rows and columns reversed": AxisOrder((0, 1, 2), (False, True, True)),
}


@dataclass(frozen=True, eq=False)
class Answer:
    """What a road said of one CT.

    Parameters
    ----------
    corners : LPS mm (8, 3) of the crop's corners in the patient.
    to_native : of the preparation.
    nodes : ranks on the native CT, in the anatomical order of axes.
    ene : of each rank.
    """

    corners: npt.NDArray[np.float64]
    to_native: RigidTransform
    nodes: npt.NDArray[np.uint16]
    ene: dict[int, float]


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--profile", choices=("published", "open"), default="published")
    words = parser.parse_args()
    bundle = find_bundle("default")
    preparation = load_preparation(bundle)
    if words.profile == "published":
        hybrid = replace(PUBLISHED, crop="patient", outside_hu=preparation.profile.outside_hu)
        preparation = replace(preparation, profile=hybrid)
    networks = load_networks(bundle, torch.device("cpu"), own_masks=False)
    threshold = bundle.card.ene_threshold
    files = sorted(words.folder.glob("*/ct.nii.gz"))
    rows: list[dict[str, object]] = []
    stride = max(1, len(files) // words.cases)
    for file in files[stride // 2 :: stride][: words.cases]:
        (case,) = (c for c in find_cases(file)[0] if isinstance(c, Case))
        ct, first = read_case(case), None
        for name, order in ORDERS.items():
            began = time.monotonic()
            stored = NativeCt(ct.volume.reordered(order), ct.pixel_type)
            answer = answered(stored, preparation, networks)
            first = first or answer
            rows.append({"case": file.parent.name, "order": name, **against(answer, first, threshold)})
            print(json.dumps(rows[-1]), f"{time.monotonic() - began:.0f} s", flush=True)
        store(words.profile, threshold, rows)


def answered(ct: NativeCt, preparation: Preparation, networks: Networks) -> Answer:
    """One CT through preparation and networks."""
    return answer_of(prepare(ct, preparation.template, preparation.profile), preparation, networks)


def answer_of(prepared: Prepared, preparation: Preparation, networks: Networks) -> Answer:
    """What the networks say of a prepared CT."""
    if networks.segmenter is None:
        raise ValueError("no segmenter")
    labels = networks.segmenter(prepared.crop)
    nodes = split_nodes(labels, fg_labels=(GTVN,), axes=False)
    scores = networks.classifier.scores(prepared.crop, nodes)
    marked = to_native(labels, prepared)
    home = native_nodes(
        nodes,
        prepared.crop.grid,
        marked.with_array(marked.array == GTVN),
        prepared.to_native,
        midline_x=preparation.midline_x,
    )
    ranks = ranks_by_volume(nodes)
    ene = {rank: score.ene for rank, score in zip(ranks, scores, strict=True) if score is not None}
    corners = prepared.to_native.apply(prepared.crop.grid.corners())
    return Answer(corners, prepared.to_native, home.map.anatomical().array, ene)


def against(answer: Answer, first: Answer, threshold: float) -> dict[str, object]:
    """One order's answer beside that of the CT as it is stored."""
    pairs = []
    for rank in first.ene:
        there = np.bincount(answer.nodes[first.nodes == rank])[1:]
        if there.size and there.max() > 0 and int(there.argmax()) + 1 in answer.ene:
            pairs.append((first.ene[rank], answer.ene[int(there.argmax()) + 1]))
    return {
        "corner_mm": round(float(np.linalg.norm(answer.corners - first.corners, axis=1).max()), 3),
        "nodes": len(answer.ene),
        "unpaired": len(first.ene) - len(pairs),
        "ai_ene": sum(ene > threshold for ene in answer.ene.values()),
        "ene_pairs": [[round(a, 7), round(b, 7)] for a, b in pairs],
    }


def store(profile: str, threshold: float, rows: list[dict[str, object]]) -> None:
    """The rows with their summary, as far as they have come."""
    other = [row for row in rows if row["order"] != "as stored"]
    if not other:
        return
    pairs = np.array([pair for row in other for pair in row["ene_pairs"]]).reshape(-1, 2)  # type: ignore[attr-defined]
    moved = np.abs(np.diff(pairs, axis=1)).ravel()
    stored = {row["case"]: row["ai_ene"] for row in rows if row["order"] == "as stored"}
    corners = np.array([row["corner_mm"] for row in other], dtype=float)
    summary = {
        "cases": len(stored),
        "comparisons": len(other),
        "corner_mm": _spread(corners),
        "paired_nodes": len(moved),
        "unpaired_nodes": sum(int(str(row["unpaired"])) for row in other),
        "ene_moved": _spread(moved),
        "nodes_over_the_threshold_and_back": int(np.sum((pairs > threshold).sum(axis=1) == 1)),
        "ai_ene_number_differs": sum(row["ai_ene"] != stored[row["case"]] for row in other),
    }
    target = RESULTS / f"storage_order_{profile}.json"
    target.write_text(json.dumps({"threshold": threshold, "summary": summary, "rows": rows}, indent=1) + "\n")
    print(json.dumps(summary), flush=True)


def _spread(values: npt.NDArray[np.float64]) -> dict[str, float]:
    if values.size == 0:
        return {}
    levels = {"median": 0.5, "p90": 0.9, "p95": 0.95, "most": 1.0}
    return {name: round(float(np.quantile(values, q)), 7) for name, q in levels.items()}


if __name__ == "__main__":
    main()
