"""What more training brings: the averaged weights on the validation crops, and what still fools them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from aiene.geometry.grid import Volume
from aiene.nodes.split import split_nodes
from aiene.segment.segmenter import TOUCHING, Segmenter, lead_of, load_segmenter, pieces_with_core
from tools.default_bundle.fit_classifier import MOST_UNKNOWN
from tools.default_bundle.fit_segmenter import write_nnunet_folder
from tools.default_bundle.growing_store import GrowingStore
from tools.default_bundle.matching import LEAST_OF_PRIMARY, LEAST_OWN, match
from tools.default_bundle.organs import IGNORE, NODE, PRIMARY
from tools.default_bundle.phantom_crops import CROP_GRID, Crop

OFFSETS = (-2.0, -1.0, 0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.25, 4.5, 4.75, 5.0, 6.0, 8.0)
"""Taken off the nodes' logit, one after the other: the points of the FROC curve of a training."""
FALSE_PER_CASE = 1.0
LARGE_MM = 10.0
PAUSE_SECONDS = 60.0
EVERY_SECONDS, EVERY_GROWTH = 3600.0, 1.3
"""A new checkpoint is measured an hour after the last one, or once it has so many times its steps."""
HARD_KINDS = ("plain", "disease")
"""Of the training crops, those in which false tumour is looked for."""
CROPS_SEARCHED = 12
"""Of each kind, at each checkpoint, one after the other."""
LEAST_HARD_VOXELS = 30

PRIMARY_CONTOURS = (-3.0, -2.0, -1.0, 0.0, 1.0)
"""About the network's own border."""

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class Bar(NamedTuple):
    """What the nodes' logit must lead by.

    Parameters
    ----------
    contour : in every voxel that is called a node.
    core : in some voxel of each piece; no other piece stays (`pieces_with_core`).
    """

    contour: float
    core: float


@dataclass(frozen=True)
class CropCounts:
    """One crop at each bar.

    Parameters
    ----------
    short_axes : mm of each planted node that lies in the crop.
    dice : (bars, nodes) of the partner; 0 where it was missed.
    false : (bars,) found nodes that are none, outside what nobody outlined.
    primary : share of the planted primary that is called tumour of any kind; None without one.
    false_primaries : of each piece that is wrongly called a primary, outside what nobody outlined, how far
        its logit leads at most.
    primary_lead : how far it leads at most in the planted one.
    primary_dice : of the planted primary at each of `PRIMARY_CONTOURS`, the pieces that meet it.
    """

    short_axes: tuple[float, ...]
    dice: Floats
    false: Floats
    primary: float | None
    false_primaries: tuple[float, ...] = ()
    primary_lead: float | None = None
    primary_dice: tuple[float, ...] = ()


BARS = tuple(Bar(offset, offset) for offset in OFFSETS)


def follow(work: Path, *, forever: bool) -> None:
    """Measure the checkpoint that is there, or new ones: often at first, then every hour."""
    torch.set_num_threads(1)
    state_file = work / "segmenter_state.pth"
    measured, at = _last_step(work), time.monotonic()
    while True:
        step = int(torch.load(state_file, weights_only=True)["step"]) if state_file.exists() else -1
        late = not forever or time.monotonic() - at > EVERY_SECONDS
        if step > measured and (late or step >= EVERY_GROWTH * measured):
            folder = work / "measured"
            write_nnunet_folder(work, folder, half=False)
            segmenter = load_segmenter(folder)
            line = {"step": step, "time": time.strftime("%Y-%m-%dT%H:%M:%S"), **measure(work, segmenter)}
            with (work / "curve.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
            look_for_hard_places(work, segmenter, step)
            measured, at = step, time.monotonic()
        if not forever:
            return
        time.sleep(PAUSE_SECONDS)


def _last_step(work: Path) -> int:
    file = work / "curve.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else -1


def measure(work: Path, segmenter: Segmenter) -> dict[str, Any]:
    """Sensitivity at one false node per case on the validation crops, by planter."""
    figures: dict[str, Any] = {}
    for kind in ("disease", "round"):
        store = GrowingStore(work / "crops" / "validation" / kind)
        counts = [
            counts_of(store.whole(k), segmenter, store.facts(k)["short_axes_mm"]) for k in range(len(store))
        ]
        if counts:
            figures[kind] = summary(counts)
    return figures


def counts_of(
    crop: Crop, segmenter: Segmenter, short_axes: Sequence[float], bars: Sequence[Bar] = BARS
) -> CropCounts:
    """One crop against its truth, at every bar.

    Parameters
    ----------
    short_axes : mm of node 1, 2, ...
    """
    probability = segmenter.probabilities(Volume(crop.image.astype(np.float32), CROP_GRID))
    return counts_from(probability, crop, short_axes, bars)


def counts_from(
    probability: npt.NDArray[np.float32],
    crop: Crop,
    short_axes: Sequence[float],
    bars: Sequence[Bar] = BARS,
) -> CropCounts:
    """The same from what the segmenter says of the crop: (classes, z, y, x)."""
    logits = np.log(np.maximum(probability, 1e-12))
    lead, of_primary = lead_of(logits, NODE), lead_of(logits, PRIMARY)
    unknown = crop.labels == IGNORE
    there = [k for k in range(1, len(short_axes) + 1) if (crop.numbers == k).any()]
    dice, false = np.zeros((len(bars), len(there))), np.zeros(len(bars))
    for row, bar in enumerate(bars):
        called = pieces_with_core(lead > bar.contour, lead, bar.core)
        labels = np.where(called, NODE, 0).astype(np.uint8)
        nodes = split_nodes(Volume(labels, CROP_GRID), fg_labels=(NODE,), axes=False)
        matched = match([n.mask for n in nodes], crop.numbers, segmented=called)
        dice[row] = [matched.dice.get(k, 0.0) for k in there]
        false[row] = sum(_is_false(nodes[f].mask, crop, unknown) for f in matched.false)
    tumour = crop.labels == PRIMARY
    called = probability[PRIMARY] + probability[NODE] > 0.5
    return CropCounts(
        tuple(float(short_axes[k - 1]) for k in there),
        dice,
        false,
        float(called[tumour].mean()) if tumour.any() else None,
        _leads(of_primary, *false_pieces(of_primary > 0, tumour, unknown)),
        float(of_primary[tumour].max()) if tumour.any() else None,
        tuple(_dice(of_primary > c, tumour, unknown) for c in PRIMARY_CONTOURS) if tumour.any() else (),
    )


def _dice(called: Mask, tumour: Mask, unknown: Mask) -> float:
    """Of a primary and the pieces that meet it; what nobody outlined is no part of them."""
    pieces, _ = ndimage.label(called, TOUCHING)
    drawn = np.isin(pieces, np.unique(pieces[called & tumour])) & called & ~unknown
    shared = np.count_nonzero(drawn & tumour)
    return 2 * shared / (np.count_nonzero(drawn) + np.count_nonzero(tumour))


def false_pieces(called: Mask, tumour: Mask, nowhere: Mask) -> tuple[npt.NDArray[np.integer[Any]], list[int]]:
    """Numbered pieces of a mask, and the numbers of those outside the tumour that hardly meet the unknown."""
    pieces, count = ndimage.label(called, TOUCHING)
    numbers = range(1, count + 1)
    real, unknown = (ndimage.mean(m.astype(np.float32), pieces, numbers) for m in (tumour, nowhere))
    return pieces, [n for n in numbers if real[n - 1] < LEAST_OWN and unknown[n - 1] <= MOST_UNKNOWN]


def _leads(lead: npt.NDArray[np.float32], pieces: npt.NDArray[Any], numbers: list[int]) -> tuple[float, ...]:
    return tuple(float(v) for v in ndimage.maximum(lead, pieces, numbers)) if numbers else ()


def _is_false(mask: npt.NDArray[np.bool_], crop: Crop, unknown: npt.NDArray[np.bool_]) -> bool:
    """Outside the unknown, and no part of a planted primary."""
    return bool(unknown[mask].mean() <= MOST_UNKNOWN and (crop.labels[mask] == PRIMARY).mean() < MOST_UNKNOWN)


def summary(counts: Sequence[CropCounts], offsets: Sequence[float] = OFFSETS) -> dict[str, Any]:
    """Figures at the lowest offset with at most one false node a case, and the FROC curve."""
    axes = np.array([a for c in counts for a in c.short_axes])
    dice = np.concatenate([c.dice for c in counts], axis=1)
    false = np.mean([c.false for c in counts], axis=0)
    fit = np.flatnonzero(false <= FALSE_PER_CASE)
    row = int(fit[0]) if len(fit) else len(offsets) - 1
    large = axes >= LARGE_MM
    primaries = [c.primary for c in counts if c.primary is not None]
    return {
        "nodes": len(axes),
        "offset": offsets[row],
        "false_per_case": _rounded(false[row]),
        "sensitivity": _rounded((dice[row] > 0).mean()),
        "sensitivity_10_mm": _rounded((dice[row][large] > 0).mean()) if large.any() else None,
        "dice": _rounded(dice[row][dice[row] > 0].mean()) if (dice[row] > 0).any() else None,
        "primaries_found": _rounded(np.mean([p >= LEAST_OF_PRIMARY for p in primaries]))
        if primaries
        else None,
        "froc_10_mm": [
            [o, _rounded(false[k]), _rounded((dice[k][large] > 0).mean()) if large.any() else None]
            for k, o in enumerate(offsets)
        ],
    }


def search_all(work: Path) -> None:
    """Look for hard places in every training crop, by the checkpoint that is there."""
    torch.set_num_threads(1)
    folder = work / "measured"
    write_nnunet_folder(work, folder, half=False)
    step = int(torch.load(work / "segmenter_state.pth", weights_only=True)["step"])
    look_for_hard_places(work, load_segmenter(folder), step, most=None)


def look_for_hard_places(
    work: Path, segmenter: Segmenter, step: int, most: int | None = CROPS_SEARCHED
) -> None:
    """Search some more training crops, and keep what was found, of each crop the last search.

    Outside the high-dose target nothing is gross disease but what was planted: whatever else is called tumour
    there is none.

    Parameters
    ----------
    most : crops of each kind that are searched; None: all.
    """
    file = work / "hard_places.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    starts = found.get("next")
    after: dict[str, int] = dict(starts) if isinstance(starts, dict) else {}
    for kind in HARD_KINDS:
        store = GrowingStore(work / "crops" / kind)
        start = after.get(kind, 0)
        count = len(store) if most is None else min(most, len(store))
        chosen = [(start + k) % len(store) for k in range(count)]
        names = {store.names[k] for k in chosen}
        places = [place for place in found.get(kind, []) if place[0] not in names]
        for k in chosen:
            places += [[store.names[k], *place] for place in false_places(store[k], segmenter)]
        found[kind], after[kind] = places, start + count
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps({**found, "next": after, "step": step}), encoding="utf-8")
    partial.rename(file)


def false_places(crop: Crop, segmenter: Segmenter) -> list[tuple[int, int, int]]:
    """(z, y, x) of the inmost voxel of each piece that is wrongly called tumour and meets nothing unknown."""
    labels = segmenter.predict(Volume(np.asarray(crop.image, dtype=np.float32), CROP_GRID)).array
    called = (labels == NODE) | (labels == PRIMARY)
    pieces, count = ndimage.label(called)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    true = np.unique(pieces[np.isin(crop.labels, (NODE, PRIMARY, IGNORE))])
    false = [n for n in range(1, count + 1) if sizes[n] >= LEAST_HARD_VOXELS and n not in true]
    depth = ndimage.distance_transform_edt(called) if false else called
    places = ndimage.maximum_position(depth, pieces, false) if false else []
    return [(int(z), int(y), int(x)) for z, y, x in places]


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 3)
