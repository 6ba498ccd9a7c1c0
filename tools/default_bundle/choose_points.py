"""The default bundle's operating points and which nodes count: chosen on validation patients, onto its card.

    python -m tools.default_bundle.choose_points --work DIR [--processes 2] [--plantings 3]
    python -m tools.default_bundle.choose_points --work DIR --curve FILE --pos-from 0.5

Measures the packed bundle on the validation crops of a long training (`long_training.py crops`), by both
planters and CTs as they are, and writes the card anew: the sensitive operating point and the whole FROC curve
against the bundle as it is, and the least `pos` of a node that counts. What was measured of a crop is
kept in DIR/points, and made anew only where the networks have changed. With `--curve` the FROC curve is that
of a line that `long_training curve` wrote for these very weights (without the mirror image), and the least
`pos` is one that was fixed beforehand.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from aiene.classify.classifier import load_dualnet
from aiene.geometry.grid import Volume
from aiene.hashing import file_sha256
from aiene.models.bundle import Tumour, read_bundle
from aiene.segment.segmenter import at_the_point, load_bundle_segmenter
from tools.default_bundle import fit_classifier
from tools.default_bundle.bundle_card import DEFAULT_BUNDLE, KEPT, stored
from tools.default_bundle.curve import LARGE_MM, Bar, CropCounts, counts_from
from tools.default_bundle.growing_store import GrowingStore
from tools.default_bundle.long_training import crops_folder
from tools.default_bundle.operating_point import FALSE_PER_CASE, OperatingPoints, chosen, froc
from tools.default_bundle.phantom_crops import CROP_GRID

OFFSETS = (-6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
"""Of the FROC curve, against the bundle as it is."""
PLANTERS = ("disease", "round")
KINDS = (*PLANTERS, "plain")
NETWORKS = ("segmenter/fold_0/checkpoint_final.pth", "classifier/weights.safetensors")


class Measured(NamedTuple):
    """One crop.

    Parameters
    ----------
    counts : at every one of `OFFSETS`; None for a CT as it is.
    pos : (n, 2), of each found node what the classifier gives and whether it is a planted one.
    """

    counts: CropCounts | None
    pos: npt.NDArray[np.float64]


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="work folder of the long training")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--plantings", type=int, default=3, help="of each patient and planter")
    parser.add_argument("--curve", type=Path, help="line of a curve instead of a measurement")
    parser.add_argument("--pos-from", type=float, default=0.0, help="with --curve")
    options = parser.parse_args()
    if options.curve is not None:
        line = json.loads(options.curve.read_text(encoding="utf-8"))
        stored(DEFAULT_BUNDLE, "operating_point", points_of_line(line, large_nodes(options.work)))
        stored(DEFAULT_BUNDLE, "counting", {"pos_from": options.pos_from})
        return
    cores = dict(read_bundle(DEFAULT_BUNDLE).card.segmenter.cores)
    bars = [bar_at(cores, offset) for offset in OFFSETS]
    key = [
        *(file_sha256(DEFAULT_BUNDLE / f)[:12] for f in NETWORKS),
        *(f"{value:g}" for bar in bars for value in bar),
    ]
    kept = options.work / "points" / "_".join(key)
    kept.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        jobs = validation_crops(options.work, options.plantings)
        measured = list(pool.map(of_crop, *zip(*jobs, strict=True), [kept] * len(jobs)))
    card = {
        **at_the_weights(froc([m.counts for m in measured if m.counts is not None], OFFSETS)).card(),
        "crops": len(measured),
        "cores": cores,
    }
    counting = counting_of(np.concatenate([m.pos for m in measured]))
    print(json.dumps({**card, "counting": counting}, indent=1))
    stored(DEFAULT_BUNDLE, "operating_point", card)
    stored(DEFAULT_BUNDLE, "counting", counting)


def bar_at(cores: Mapping[Tumour, float], offset: float) -> Bar:
    """Of an operating point's offset, by the logits as the packed network gives them."""
    contour, there = at_the_point(cores, offset)
    return Bar(contour, contour + there.get("GTVn", 0.0))


def large_nodes(work: Path) -> dict[str, int]:
    """How many planted nodes of 10 mm and more the validation crops of each planter hold."""
    stores = {kind: GrowingStore(crops_folder(work) / "validation" / kind) for kind in PLANTERS}
    return {
        kind: sum(a >= LARGE_MM for k in range(len(store)) for a in store.facts(k)["short_axes_mm"])
        for kind, store in stores.items()
    }


def points_of_line(line: dict[str, Any], large: dict[str, int]) -> dict[str, Any]:
    """Operating points and FROC curve from a line of `curve.jsonl`; both planters have as many crops.

    Parameters
    ----------
    large : nodes of 10 mm and more by planter.
    """
    rows = []
    for of_kinds in zip(*(line[kind]["froc_10_mm"] for kind in PLANTERS), strict=True):
        found = sum(row[2] * large[kind] for row, kind in zip(of_kinds, PLANTERS, strict=True))
        rows.append(
            {
                "offset": of_kinds[0][0],
                "sensitivity": None,
                "sensitivity_10_mm": round(found / sum(large.values()), 3),
                "false_per_case": round(float(np.mean([row[1] for row in of_kinds])), 3),
                "dice": None,
            }
        )
    balanced = next(row for row in rows if row["offset"] == 0)
    sensitive = next(row for row in rows if row["false_per_case"] <= FALSE_PER_CASE["sensitive"])
    return {"balanced": balanced, "sensitive": sensitive, "froc": rows, "mirrored": False}


def validation_crops(work: Path, plantings: int) -> list[tuple[Path, str]]:
    """Folder and name of each crop, the first planting of everybody first."""
    folders = [crops_folder(work) / "validation" / kind for kind in KINDS]
    crops = [(folder, name) for folder in folders for name in GrowingStore(folder).names]
    number = {name: int(name.rsplit("_", 1)[1]) for _, name in crops}
    return sorted((c for c in crops if number[c[1]] < plantings), key=lambda c: number[c[1]])


def of_crop(store: Path, name: str, kept: Path) -> Measured:
    """One validation crop by the packed bundle, in a process of its own.

    Parameters
    ----------
    kept : folder of what was measured before.
    """
    file = kept / f"{store.name}_{name}.npz"
    if not file.exists():
        torch.set_num_threads(1)
        made = _measured(store, name)
        counted = {} if made.counts is None else asdict(made.counts)
        values: dict[str, Any] = {
            k: np.array(v, dtype=float) for k, v in {**counted, "pos": made.pos}.items()
        }
        partial = file.with_suffix(".part.npz")
        np.savez(partial, **values)
        partial.rename(file)
    with np.load(file) as stored_arrays:
        found = dict(stored_arrays)
    pos = found.pop("pos")
    if not found:
        return Measured(None, pos)
    primary, lead = (None if np.isnan(found[k]) else float(found[k]) for k in ("primary", "primary_lead"))
    axes, false, drawn = (tuple(found[k].tolist()) for k in ("short_axes", "false_primaries", "primary_dice"))
    return Measured(CropCounts(axes, found["dice"], found["false"], primary, false, lead, drawn), pos)


def _measured(store: Path, name: str) -> Measured:
    crops, bundle = GrowingStore(store), read_bundle(DEFAULT_BUNDLE)
    segmenter, net = load_bundle_segmenter(bundle), load_dualnet(bundle.classifier_folder)
    number = crops.names.index(name)
    crop = crops.whole(number)
    labels, probability = segmenter.look(Volume(crop.image.astype(np.float32), CROP_GRID))
    counts = None
    if store.name != "plain":
        bars = [bar_at(bundle.card.segmenter.cores, offset) for offset in OFFSETS]
        counts = counts_from(probability, crop, crops.facts(number)["short_axes_mm"], bars)
    found = fit_classifier.nodes_of(crop, labels)
    pos = fit_classifier.scores(net, found)[:, 0]
    return Measured(counts, np.column_stack([pos, [n.pos for n in found]]))


def at_the_weights(curve: Sequence[Any]) -> OperatingPoints:
    """The points of a bundle that already stands at the balanced one."""
    sensitive = chosen({0.0: curve}).points["sensitive"]
    balanced = next(point for point in curve if point.offset == 0)
    return OperatingPoints(
        {"balanced": balanced, "sensitive": min(sensitive, balanced, key=lambda p: p.offset)}, tuple(curve)
    )


def counting_of(pos: npt.NDArray[np.float64], kept: float = KEPT) -> dict[str, Any]:
    """The highest least `pos` (two decimals) that keeps such a share of the planted nodes; what it brings.

    Parameters
    ----------
    pos : (n, 2), what the classifier gives, and 1 for a planted node, 0 for a hard negative: anything else
        that the segmenter takes for one.
    """
    true, false = (np.sort(pos[pos[:, 1] == value, 0]) for value in (1, 0))
    if not len(true):
        raise ValueError("no planted node was found, so no least `pos` can be chosen")
    most_lost = int((1 - kept) * len(true) + 1e-9)
    least = float(np.floor(true[most_lost] * 100) / 100)
    return {
        "pos_from": least,
        "planted_nodes": len(true),
        "planted_nodes_that_count": round(float((true >= least).mean()), 3),
        "hard_negatives": len(false),
        "hard_negatives_that_count": round(float((false >= least).mean()), 3) if len(false) else None,
    }


if __name__ == "__main__":
    main()
