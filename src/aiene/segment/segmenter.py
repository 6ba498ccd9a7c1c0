"""`Segmenter`: a trained nnU-Net model that takes a crop to its label map, by a sliding window."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import nn

from aiene.errors import ModelError, file_name, joined, said
from aiene.geometry.grid import Volume
from aiene.models.bundle import LABEL_VALUES, Bundle, OperatingPoint, Tumour
from aiene.segment.engines import Answer, Engine, Grade, exact_engine, fast_engine
from aiene.segment.network import CHECKPOINT_REMEDY as REMEDY
from aiene.segment.network import build_network, read_checkpoint, softmax, tensors_of
from aiene.segment.plans import Plan, Shape, read_plan
from aiene.segment.preprocessing import NetworkInput, coarse_axis, network_input, resized

_LEAST = 1e-12
"""A softmax of 0 has a logit all the same."""
_SIGMA = 1 / 8
"""Standard deviation of the Gaussian weight, as a share of the patch."""


def tile_starts(size: int, patch: int, step_size: float) -> list[int]:
    """First voxels of the tiles along one axis: at most `step_size` patches apart, evenly spread."""
    count = math.ceil((size - patch) / (patch * step_size)) + 1
    if count < 2:
        return [0]
    return [round((size - patch) / (count - 1) * i) for i in range(count)]


@lru_cache(maxsize=2)
def gaussian(patch: Shape) -> torch.Tensor:
    """Weight of each voxel of a tile, float32, 1 in the middle, nowhere 0. Source: nnU-Net."""
    peak = np.zeros(patch)
    peak[tuple(n // 2 for n in patch)] = 1
    weight = ndimage.gaussian_filter(peak, [n * _SIGMA for n in patch], order=0, mode="constant", cval=0)
    small: npt.NDArray[np.float32] = (weight / weight.max()).astype(np.float32)
    small[small == 0] = small[small != 0].min()
    return torch.from_numpy(small)


def padding(shape: Sequence[int], patch: Shape) -> list[tuple[int, int]]:
    """Voxels to put before and behind each axis so that it holds a patch; the odd one comes behind."""
    missing = [max(p - n, 0) for n, p in zip(shape, patch, strict=True)]
    return [(d // 2, d - d // 2) for d in missing]


def slide(
    image: torch.Tensor,
    patch: Shape,
    step_size: float,
    classes: int,
    predict: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Weighted mean of a network's answers over all tiles.

    Parameters
    ----------
    image : float32, three axes, of any size; padded with 0 where it is smaller than the patch.
    patch : voxels of a tile.
    step_size : largest distance of two tiles, as a share of the patch.
    classes : channels of the answer.
    predict : takes (1, 1, *patch) to (classes, *patch), which it gives away; on any device.

    Returns
    -------
    float32 (classes, *image.shape) on the CPU. One tile is taken as it is, without weights.
    """
    margins = padding(image.shape, patch)
    padded = torch.nn.functional.pad(image, [n for pair in reversed(margins) for n in pair])
    starts = itertools.product(
        *(tile_starts(n, p, step_size) for n, p in zip(padded.shape, patch, strict=True))
    )
    tiles = [tuple(slice(s, s + p) for s, p in zip(start, patch, strict=True)) for start in starts]
    keep = tuple(slice(low, low + n) for (low, _), n in zip(margins, image.shape, strict=True))
    if len(tiles) == 1:
        return predict(padded[None, None])[(slice(None), *keep)].cpu()
    weight = gaussian(patch)
    total = torch.zeros((classes, *padded.shape))
    weights = torch.zeros(padded.shape)
    for tile in tiles:
        total[(slice(None), *tile)] += predict(padded[(None, None, *tile)]).cpu().mul_(weight)
        weights[tile] += weight
    return total.div_(weights)[(slice(None), *keep)]


Scores = npt.NDArray[np.float32]
Fold = int | Literal["all"]

TOUCHING = np.ones((3, 3, 3), dtype=np.bool_)
"""Voxels are of one piece where they share a corner."""


def pieces_with_core(
    called: npt.NDArray[np.bool_], lead: npt.NDArray[np.floating[Any]], core: float
) -> npt.NDArray[np.bool_]:
    """The pieces of a mask that hold a voxel of which the network is sure enough.

    What is sure makes the find, what is likely its contour: thresholding with hysteresis (J. Canny, IEEE
    Trans. Pattern Anal. Mach. Intell. 8, 1986). One threshold for both would make sure nodes too small.

    Parameters
    ----------
    called : mask (z, y, x).
    lead : of the same shape, how far the class's logit lies over the best other one.
    core : a piece stays where some voxel leads by more than this.
    """
    pieces, _ = ndimage.label(called, TOUCHING)
    stays = np.zeros(int(pieces.max(initial=0)) + 1, dtype=np.bool_)
    stays[pieces[called & (lead > core)]] = True
    kept: npt.NDArray[np.bool_] = stays[pieces] & called
    return kept


def lead_of(logits: Scores, number: int) -> Scores:
    """How far the logit of one class lies over the best other one, (z, y, x); from (classes, z, y, x)."""
    others = [k for k in range(len(logits)) if k != number]
    best: Scores = logits[others[0]].copy()
    for k in others[1:]:
        np.maximum(best, logits[k], out=best)
    lead: Scores = logits[number] - best
    return lead


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A trained model in memory; `load_segmenter` makes it.

    Parameters
    ----------
    plan : what the model's files say.
    networks : one per fold, in evaluation mode, on `device`.
    step_size : largest distance of two tiles, as a share of the patch.
    mirror_axes : axes (0 z, 1 y, 2 x, after the plan's transposition) over whose mirror images the answer is
        averaged; empty: none.
    device : where the networks run.
    values : label value of each of the network's classes in the label map; None: the class's own number.
    takes_hu : it is fed the crop in HU, not scaled to [0, 1].
    node_offset : taken off the nodes' logit: the lower, the more is called a node.
    cores : by label value, how far the class's logit must lead somewhere in a piece that it calls, or the
        piece is background.
    engine : what computes the networks.
    """

    plan: Plan
    networks: tuple[nn.Module, ...]
    step_size: float
    mirror_axes: tuple[int, ...]
    device: torch.device
    values: tuple[int, ...] | None = None
    takes_hu: bool = False
    node_offset: float = 0.0
    cores: Mapping[int, float] = field(default_factory=dict)
    engine: Engine = field(kw_only=True)

    def __call__(self, crop: Volume) -> Volume:
        """The same as `predict`."""
        return self.predict(crop)

    def predict(self, crop: Volume) -> Volume:
        """The label map of a crop.

        Parameters
        ----------
        crop : float32 (z, y, x), as `prepare` makes it: in HU where the segmenter takes HU.

        Returns
        -------
        uint8 labels (`values`) on the crop's grid; 0 outside the box of non-zero voxels.

        Raises
        ------
        CaseError : the crop is zero everywhere, or holds values that are not numbers.
        """
        prepared = network_input(crop, self.plan)
        return crop.with_array(self.labels(prepared, self.scores(prepared)))

    def labels(self, prepared: NetworkInput, scores: Scores) -> npt.NDArray[np.uint8]:
        """The label map (z, y, x) on the crop's grid that follows from the model's answer."""
        return self._labels(prepared, self._on_the_cut(scores, prepared))

    def look(self, crop: Volume) -> tuple[npt.NDArray[np.uint8], Scores]:
        """What `predict` and `probabilities` give, by one look of the networks."""
        prepared = network_input(crop, self.plan)
        on_cut = self._on_the_cut(self.scores(prepared), prepared)
        return self._labels(prepared, on_cut), self._probabilities(prepared, on_cut)

    def _labels(self, prepared: NetworkInput, on_cut: Scores) -> npt.NDArray[np.uint8]:
        labels = np.zeros(prepared.whole, dtype=np.uint8)
        labels[prepared.box] = self._with_cores(self.in_values(on_cut.argmax(axis=0)), on_cut)
        return np.ascontiguousarray(np.transpose(labels, self.plan.backward))

    def _with_cores(self, labels: npt.NDArray[np.uint8], on_cut: Scores) -> npt.NDArray[np.uint8]:
        """The label map without pieces of which the network is nowhere sure enough."""
        if not self.cores:
            return labels
        logits = np.log(np.maximum(on_cut, _LEAST)) if self.plan.from_v1 else on_cut
        numbers = self.in_values(np.arange(self.plan.classes))
        for value, core in self.cores.items():
            called = labels == value
            lead = lead_of(logits, int(np.flatnonzero(numbers == value)[0]))
            labels[called & ~pieces_with_core(called, lead, core)] = 0
        return labels

    def in_values(self, classes: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """The label map of a map of the network's classes."""
        if self.values is None:
            return classes.astype(np.uint8)
        mapped: npt.NDArray[np.uint8] = np.array(self.values, dtype=np.uint8)[classes]
        return mapped

    def probabilities(self, crop: Volume) -> Scores:
        """Probability of each of the network's classes, float32 (classes, z, y, x) on the crop's grid.

        Outside the box of non-zero voxels the background has probability 1.
        """
        prepared = network_input(crop, self.plan)
        return self._probabilities(prepared, self._on_the_cut(self.scores(prepared), prepared))

    def _probabilities(self, prepared: NetworkInput, on_cut: Scores) -> Scores:
        found = on_cut if self.plan.from_v1 else softmax(torch.from_numpy(on_cut)).numpy()
        result = np.zeros((self.plan.classes, *prepared.whole), dtype=np.float32)
        result[0] = 1
        result[(slice(None), *prepared.box)] = found
        return np.ascontiguousarray(np.transpose(result, (0, *(axis + 1 for axis in self.plan.backward))))

    def scores(self, prepared: NetworkInput) -> Scores:
        """The model's answer, float32 (classes, ...) at the network's spacing.

        Softmax for a model that comes from nnU-Net v1, logits for one of v2: what each averages over tiles,
        mirror images and folds.
        """
        image = torch.from_numpy(prepared.image)
        with torch.inference_mode():
            answers = self.engine.answers
            total = self._slide(image, answers[0])
            for answer in answers[1:]:
                total += self._slide(image, answer)
            return self._at_the_point(total.div_(len(answers))).numpy()

    def _at_the_point(self, answer: torch.Tensor) -> torch.Tensor:
        """The answer as if the offset stood in the network's last bias."""
        if not self.node_offset:
            return answer
        nodes = self.in_values(np.arange(self.plan.classes)) == LABEL_VALUES["GTVn"]
        shift = torch.from_numpy(np.where(nodes, self.node_offset, 0.0)).float()[:, None, None, None]
        if not self.plan.from_v1:
            return answer - shift
        odds = answer * torch.exp(-shift)
        return odds / odds.sum(0, keepdim=True)

    def _slide(self, image: torch.Tensor, answer: Answer) -> torch.Tensor:
        return slide(
            image, self.plan.patch, self.step_size, self.plan.classes, lambda t: self._tile(answer, t)
        )

    def _tile(self, answer: Answer, tile: torch.Tensor) -> torch.Tensor:
        """(1, 1, *patch) to (classes, *patch), averaged over mirror images."""
        tile = tile.to(self.device)
        total = self._answer(answer, tile)
        counts = range(1, len(self.mirror_axes) + 1)
        mirrored = [axes for n in counts for axes in itertools.combinations(self.mirror_axes, n)]
        for axes in mirrored:
            flipped = self._answer(answer, torch.flip(tile, [a + 2 for a in axes]))
            total += torch.flip(flipped, [a + 1 for a in axes])
        return total.div_(len(mirrored) + 1)

    def _answer(self, answer: Answer, tile: torch.Tensor) -> torch.Tensor:
        logits = answer(tile)[0]
        return softmax(logits) if self.plan.from_v1 else logits

    def _on_the_cut(self, scores: Scores, prepared: NetworkInput) -> Scores:
        """Scores resampled to the part that was cut from the crop."""
        if scores.shape[1:] == prepared.cut:
            return scores
        spacings = (prepared.spacing, self.plan.spacing)
        if not self.plan.from_v1:  # v2 looks at the spacing that it comes from first, v1 at the original
            spacings = (self.plan.spacing, prepared.spacing)
        how = self.plan.score_resizing
        axis = coarse_axis(spacings, how)
        return np.stack([resized(channel, prepared.cut, how, axis) for channel in scores])


def load_segmenter(
    folder: Path,
    *,
    folds: Sequence[Fold] = (0,),
    checkpoint: str = "checkpoint_final.pth",
    step_size: float = 0.5,
    mirroring: bool = False,
    device: torch.device | None = None,
    labels: Mapping[str, int] | None = None,
    takes_hu: bool = False,
    node_offset: float = 0.0,
    cores: Mapping[Tumour, float] | None = None,
) -> Segmenter:
    """Read a model in nnU-Net v2's trained-model layout.

    Parameters
    ----------
    folder : holds `plans.json`, `dataset.json` and `fold_K/<checkpoint>`, or one sub-folder that does
        (`nnUNetTrainer__nnUNetPlans__3d_fullres`).
    folds : their answers are averaged.
    checkpoint : file name in each fold.
    step_size : largest distance of two tiles, as a share of the patch; over 0, at most 1.
    mirroring : average over mirror images along the axes that the training allows.
    device : the CPU where None.
    labels : which of the network's classes are `GTVp` and `GTVn`; the label map then holds 1 for GTVp, 2 for
        GTVn, and 0 for all other classes. None: the network's own numbers.
    takes_hu : the crop is fed in HU.
    node_offset : see `Segmenter`.
    cores : the same by name, `GTVp` or `GTVn`; only beside `labels` that name it.

    Raises
    ------
    ModelError : the folder, or a file in it, is no model that can be run here.
    ValueError : no fold asked for, or a step size out of range.
    """
    if not folds or not 0 < step_size <= 1:
        raise ValueError(f"folds {folds} and step size {step_size}: at least one fold, a step over 0 up to 1")
    home = model_folder(folder)
    where = device or torch.device("cpu")
    files = [home / f"fold_{fold}" / checkpoint for fold in folds]
    contents = [read_checkpoint(file) for file in files]
    plan = read_plan(home, _configuration_of(files[0], contents[0]))
    networks = tuple(
        build_network(file, plan, tensors_of(file, content.get("network_weights"))).to(where)
        for file, content in zip(files, contents, strict=True)
    )
    axes = _mirror_axes(files[0], contents[0]) if mirroring else ()
    values = None if labels is None else _values(home, plan, labels)
    return Segmenter(
        plan,
        networks,
        step_size,
        axes,
        where,
        values,
        takes_hu,
        node_offset,
        {LABEL_VALUES[name]: core for name, core in (cores or {}).items()},
        engine=exact_engine(networks),
    )


def model_folder(folder: Path) -> Path:
    """The folder of `plans.json`: the one given, or its only sub-folder that has one.

    Raises
    ------
    ModelError : none, or several.
    """
    if (folder / "plans.json").is_file():
        return folder
    found = sorted(file.parent for file in folder.glob("*__*__*/plans.json"))
    if len(found) == 1:
        return found[0]
    if found:
        names = joined(", ", map(file_name, found))
        raise ModelError(folder, said("holds several trained models ({})", names), "name one of them")
    raise ModelError(folder, "holds no plans.json", "name a trained model's folder in nnU-Net v2's layout")


def _values(home: Path, plan: Plan, labels: Mapping[str, int]) -> tuple[int, ...]:
    values = [0] * plan.classes
    for name, value in LABEL_VALUES.items():
        if name not in labels:
            continue
        if not 0 < labels[name] < plan.classes:
            problem = said(
                "{} should be its class {}, but it has the classes 1 to {}",
                name,
                labels[name],
                plan.classes - 1,
            )
            raise ModelError(home, problem, "import the model again")
        values[labels[name]] = value
    return tuple(values)


def _configuration_of(file: Path, content: dict[str, Any]) -> str:
    arguments = content.get("init_args")
    name = arguments.get("configuration") if isinstance(arguments, dict) else None
    if not isinstance(name, str):
        raise ModelError(file, "does not say which configuration it belongs to", REMEDY)
    return name


def _mirror_axes(file: Path, content: dict[str, Any]) -> tuple[int, ...]:
    axes = content.get("inference_allowed_mirroring_axes") or ()
    if not isinstance(axes, list | tuple) or not all(axis in (0, 1, 2) for axis in axes):
        raise ModelError(file, said("its mirroring axes {!r} are none", axes), REMEDY)
    return tuple(int(axis) for axis in axes)


def load_bundle_segmenter(
    bundle: Bundle,
    device: torch.device | None = None,
    operating_point: OperatingPoint | None = None,
    engine: Grade = "exact",
) -> Segmenter:
    """The segmenter of a bundle, run as its card says; its label maps hold 1 for GTVp and 2 for GTVn.

    Parameters
    ----------
    operating_point : one of its card's; None: as its weights are.
    engine : see `engines`; the exact one stands in where nothing quicker passes its test.

    Raises
    ------
    ModelError : it cannot be loaded, or has no such labels as the card says.
    """
    chosen = bundle.card.segmenter
    node_offset, cores = at_the_point(
        chosen.cores, 0.0 if operating_point is None else chosen.operating_points[operating_point]
    )
    loaded = load_segmenter(
        bundle.segmenter_folder,
        folds=chosen.folds,
        checkpoint=chosen.checkpoint,
        step_size=chosen.step_size,
        mirroring=chosen.mirroring,
        device=device,
        labels=bundle.card.labels,
        takes_hu=chosen.intensities == "hu",
        node_offset=node_offset,
        cores=cores,
    )
    if engine == "exact":
        return loaded
    return replace(loaded, engine=fast_engine(loaded.networks, loaded.plan.patch, loaded.device))


def at_the_point(cores: Mapping[Tumour, float], offset: float) -> tuple[float, dict[Tumour, float]]:
    """What an operating point's offset comes to: off the nodes' logit, and the cores that are asked for.

    Where nodes need a core the offset moves that, so that the contours stay; only what would take it below 0,
    where every piece has one, moves the logit.
    """
    if "GTVn" not in cores:
        return offset, dict(cores)
    wanted = cores["GTVn"] + offset
    return min(wanted, 0.0), {**cores, "GTVn": max(wanted, 0.0)}
