"""Axial slices as pictures, and the segmenters of Hugging Face that take them one by one.

Slices are turned as radiologists look at them and scaled as image models take them. Semantic segmenters
(SegFormer and its like) label every pixel; promptable ones (the SAM family) are given one box for each node
and slice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aiene.benchmark.comparators import hub
from aiene.benchmark.comparators.protocol import Adapter, Answer, CaseInput, Request
from aiene.benchmark.config import GTVN, GTVP, LABEL_VALUES
from aiene.benchmark.metrics.nodes import components
from aiene.device import resolve_device
from aiene.errors import CaseError, ModelError
from aiene.geometry.grid import Grid, Volume
from aiene.ingest.read import read_case

if TYPE_CHECKING:
    from torch import Tensor


IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class AxialView:
    """How the axes of a grid are turned so that slices are axial, rows go to the back, columns to the left.

    Parameters
    ----------
    order : which of the array's axes becomes slice, row and column.
    flips : which of these three then run backwards.
    spacing : mm along slice, row, column.
    """

    order: tuple[int, int, int]
    flips: tuple[int, ...]
    spacing: tuple[float, float, float]

    @classmethod
    def of(cls, grid: Grid) -> AxialView:
        """The view of a grid; an oblique one is looked at along its axis nearest to head and feet."""
        from scipy.optimize import linear_sum_assignment

        along = np.array(grid.direction)[:, [2, 1, 0]]  # rows: array axes; columns: z, y, x of the patient
        axes, places = linear_sum_assignment(-np.abs(along))
        first, second, third = (int(axis) for _, axis in sorted(zip(places, axes, strict=True)))
        order = (first, second, third)
        flips = tuple(place for place, axis in enumerate(order) if along[axis, place] < 0)
        steps = [grid.spacing[axis] for axis in order]
        return cls(order, flips, (steps[0], steps[1], steps[2]))

    def turn(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """An array of the grid as (slice, row, column)."""
        return np.flip(array.transpose(self.order), self.flips)

    def back(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The opposite of `turn`."""
        return np.flip(array, self.flips).transpose(np.argsort(self.order))


@dataclass(frozen=True)
class PictureScale:
    """How HU become an image model's input.

    Parameters
    ----------
    window_hu : what becomes 0 and 1.
    mean, sd : subtracted and divided by then, a channel.
    """

    window_hu: tuple[float, float]
    mean: tuple[float, ...]
    sd: tuple[float, ...]

    @classmethod
    def from_config(
        cls, window_hu: tuple[float, float], content: dict[str, Any], channels: int
    ) -> PictureScale:
        """As the model's own preprocessor file says; ImageNet's numbers where it says nothing."""
        normalise = content.get("do_normalize", True)
        mean = content.get("image_mean") or IMAGENET_MEAN
        sd = content.get("image_std") or IMAGENET_SD
        if not normalise:
            mean, sd = (0.0,), (1.0,)
        return cls(window_hu, _channels(mean, channels), _channels(sd, channels))

    def pictures(self, hu: npt.NDArray[Any]) -> Tensor:
        """(n, channels, rows, columns) float32 of slices (n, rows, columns) in HU."""
        return self.normalised(self.grey(hu))

    def grey(self, hu: npt.NDArray[Any]) -> Tensor:
        """(n, 1, rows, columns) float32 from 0 to 1: a third of the memory, until the model wants colours."""
        import torch

        low, high = self.window_hu
        return torch.from_numpy(np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1))[:, None]

    def normalised(self, grey: Tensor) -> Tensor:
        """Grey pictures in the model's channels, with its mean and deviation."""
        import torch

        mean = torch.tensor(self.mean).reshape(1, -1, 1, 1)
        return (grey - mean) / torch.tensor(self.sd).reshape(1, -1, 1, 1)


def _channels(values: Any, channels: int) -> tuple[float, ...]:
    numbers = [float(v) for v in (values if isinstance(values, (list, tuple)) else [values])]
    if len(numbers) == channels:
        return tuple(numbers)
    return (float(np.mean(numbers)),) * channels


_BATCH = 4


@dataclass(frozen=True, eq=False)
class _Pictures:
    ct: Volume
    view: AxialView
    shape: tuple[int, int, int]
    pictures: Any


_Classes = tuple[_Pictures, npt.NDArray[np.uint8], npt.NDArray[np.float32]]
"""The label value of each pixel, and how sure the model is of GTVn there."""


class SemanticComparator:
    """A segmenter of pictures that is loaded.

    Raises
    ------
    ModelError : it cannot be loaded, or it is not stated which of its classes are GTVp and GTVn.
    """

    def __init__(self, request: Request) -> None:
        entry = request.entry
        found = hub.pretrained("AutoModelForSemanticSegmentation", request, may_lack=("auxiliary_head",))
        config, content = found.model.config, found.preprocessor
        self._map = entry.label_map or named_classes(config.id2label)
        if not self._map:
            problem = "it is not stated which of its classes are GTVp and GTVn"
            remedy = "give `label_map` for it in the configuration, such as {1: GTVn}"
            raise ModelError(found.folder, problem, remedy)
        number = int(config.num_labels)
        beyond = [n for n in self._map if not 0 <= n < number]
        if beyond:
            problem = f"it has no class {beyond[0]}"
            raise ModelError(found.folder, problem, f"its classes are 0 to {number - 1}")
        said = ("slice by slice; nodes are connected parts of its GTVn",)
        self.facts = hub.weights_facts("semantic", found.files, [found.model], segments=True, said=said)
        self._scale = PictureScale.from_config(entry.window_hu, content, channels_of(config))
        self._size = entry.input_size or picture_size(content, config)
        self._device = resolve_device(request.device)
        self._model = found.model.to(self._device)

    def load(self, case: CaseInput) -> Volume:
        """Read the CT."""
        return read_case(case.case).volume

    def preprocess(self, loaded: Volume) -> _Pictures:
        """Every axial slice as a picture of the model's size."""
        from torch.nn import functional

        view = AxialView.of(loaded.grid)
        hu = np.ascontiguousarray(view.turn(loaded.array))
        pictures = self._scale.grey(hu)
        if self._size is not None:
            size = (self._size, self._size)
            pictures = functional.interpolate(pictures, size=size, mode="bilinear", antialias=True)
        return _Pictures(loaded, view, (hu.shape[0], hu.shape[1], hu.shape[2]), pictures)

    def infer(self, prepared: _Pictures) -> _Classes:
        """The likeliest class of each pixel, and how sure the model is of GTVn."""
        import torch
        from torch.nn import functional

        values = np.zeros(prepared.shape, np.uint8)
        sureness = np.zeros(prepared.shape, np.float32)
        table = torch.zeros(int(self._model.config.num_labels), dtype=torch.uint8)
        for number, name in self._map.items():
            table[number] = LABEL_VALUES[name]
        node_classes = [number for number, name in self._map.items() if name == GTVN]
        with torch.inference_mode():
            for start in range(0, prepared.shape[0], _BATCH):
                grey = prepared.pictures[start : start + _BATCH]
                part = self._scale.normalised(grey).to(self._device)
                logits = self._model(pixel_values=part).logits.float()
                logits = functional.interpolate(logits, size=prepared.shape[1:], mode="bilinear")
                values[start : start + _BATCH] = table[logits.argmax(dim=1).cpu()].numpy()
                sureness[start : start + _BATCH] = (
                    logits.softmax(dim=1)[:, node_classes].sum(dim=1).cpu().numpy()
                )
        return prepared, values, sureness

    def answer(self, inferred: _Classes) -> Answer:
        """The label map; a node is a connected part, its confidence the mean probability within it."""
        at, values, sureness = inferred
        home = np.ascontiguousarray(at.view.back(values))
        return answer_of_classes(at.ct, home, np.ascontiguousarray(at.view.back(sureness)))


def named_classes(names: Mapping[Any, Any]) -> dict[int, Any]:
    """The classes (number to name) of a model whose own names are GTVp or GTVn."""
    ours = {name.lower(): name for name in LABEL_VALUES}
    return {int(n): ours[str(said).lower()] for n, said in names.items() if str(said).lower() in ours}


def answer_of_classes(ct: Volume, values: npt.NDArray[np.uint8], sureness: npt.NDArray[np.float32]) -> Answer:
    """A label map with its connected nodes and their mean probability.

    Parameters
    ----------
    values : 1 GTVp, 2 GTVn, on the CT's grid.
    sureness : probability of GTVn there.
    """
    from scipy import ndimage

    nodes = components(values == LABEL_VALUES[GTVN]).astype(np.uint16)
    present = np.arange(1, int(nodes.max()) + 1)
    means: Any = ndimage.mean(sureness, nodes, present) if len(present) else []
    confidence = {int(n): float(m) for n, m in zip(present, means, strict=True) if np.isfinite(m)}
    return Answer(ct.with_array(values), ct.with_array(nodes), confidence=confidence)


def picture_size(content: dict[str, Any], config: Any) -> int | None:
    """The side to which a model's pictures are scaled, as its files say; None: nothing is said."""
    size = content.get("crop_size") or content.get("size")
    if isinstance(size, dict):
        size = next((size[k] for k in ("height", "shortest_edge", "longest_edge") if k in size), None)
    said = size or getattr(config, "image_size", None)
    if isinstance(said, (list, tuple)):
        said = said[0]
    return int(said) if said else None


def channels_of(config: Any) -> int:
    """Channels of the pictures that a model takes; colour where its configuration says nothing."""
    return int(getattr(config, "num_channels", 3) or 3)


def _is_semantic(config: Mapping[str, Any]) -> bool:
    named = config.get("architectures")
    return isinstance(named, list) and any(str(name).endswith("ForSemanticSegmentation") for name in named)


PADDED, STRETCHED = ("sam", "sam_hq"), ("sam2", "sam2_video", "edgetam", "sam3_tracker")
FAMILY = (*PADDED, *STRETCHED)
"""Model types; the first scale a picture by its longest side and pad it, the others stretch it."""

_SAID = {
    "truth": "prompted slice by slice with the ground truth's boxes: it segments what it was shown, so its "
    "detection figures tell nothing about finding nodes",
    "road": "prompted slice by slice with the boxes of what a bundle found",
}

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Prompted:
    """The slices that hold a prompt.

    Parameters
    ----------
    shape : of the turned volume.
    slices : place, the grey picture (1, 1, rows, columns) before padding, the prompted objects' numbers (-1
        GTVp, k the k-th node) and their boxes in pixels of the picture.
    """

    ct: Volume
    view: AxialView
    shape: tuple[int, int, int]
    slices: tuple[tuple[int, Any, tuple[int, ...], Any], ...]


_Found = tuple[Prompted, npt.NDArray[np.int32], dict[int, list[float]]]
"""The prompted object of each pixel, 0 where there is none, and the scores of each object's masks."""


class PromptableComparator:
    """A SAM-like model that is loaded.

    Raises
    ------
    ModelError : it is none of the SAM family, or cannot be loaded.
    """

    def __init__(self, request: Request) -> None:
        folder, entry = hub.folder_of(request), request.entry
        config = hub.read_json(folder, hub.CONFIG)
        if not _is_promptable(config):
            problem = f"a {config.get('model_type')} model takes no boxes"
            raise ModelError(folder, problem, f"give one of {', '.join(FAMILY)}, or another kind")
        found = hub.pretrained("AutoModelForMaskGeneration", request)
        model, said = found.model, (_SAID[entry.prompts],)
        self.facts = hub.weights_facts("promptable", found.files, [model], segments=True, said=said)
        channels = channels_of(model.config.vision_config)
        self._scale = PictureScale.from_config(entry.window_hu, found.preprocessor, channels)
        self._entry, self._device = entry, resolve_device(request.device)
        self._model = model.to(self._device)
        self._size = int(model.config.prompt_encoder_config.image_size)
        self._padded = model.config.model_type in PADDED

    def load(self, case: CaseInput) -> tuple[Volume, tuple[Volume, Volume]]:
        """Read the CT."""
        if case.prompts is None:
            problem = "there is nothing to prompt the model with: the bundle gave no result for this case"
            raise CaseError(problem, "see that bundle's row, or use prompts: truth")
        return read_case(case.case).volume, case.prompts

    def preprocess(self, loaded: tuple[Volume, tuple[Volume, Volume]]) -> Prompted:
        """Pictures and boxes of every slice that holds a prompt."""
        from torch.nn import functional

        ct, (labels, nodes) = loaded
        view = AxialView.of(ct.grid)
        hu = view.turn(ct.array)
        numbers = nodes.array.astype(np.int32)
        numbers[(labels.array == LABEL_VALUES[GTVP]) & (numbers == 0)] = -1
        objects = view.turn(numbers)
        margin = (self._entry.box_margin_mm / view.spacing[1], self._entry.box_margin_mm / view.spacing[2])
        rows, columns = (self._fitted(n, hu.shape[1:]) for n in hu.shape[1:])
        factor = np.array([columns / hu.shape[2], rows / hu.shape[1]] * 2, np.float32)
        slices = []
        for place in np.flatnonzero(objects.any(axis=(1, 2))):
            boxes = slice_boxes(objects[place], margin)
            grey = self._scale.grey(np.ascontiguousarray(hu[place])[None])
            picture = functional.interpolate(grey, size=(rows, columns), mode="bilinear", antialias=True)
            at = np.array(list(boxes.values()), np.float32) * factor
            slices.append((int(place), picture, tuple(boxes), at))
        return Prompted(ct, view, (hu.shape[0], hu.shape[1], hu.shape[2]), tuple(slices))

    def infer(self, prepared: Prompted) -> _Found:
        """One mask for each box; where masks overlap, the surer one."""
        import torch
        from torch.nn import functional

        found = np.zeros(prepared.shape, np.int32)
        scores: dict[int, list[float]] = {}
        with torch.inference_mode():
            for place, picture, numbers, boxes in prepared.slices:
                rows, columns = picture.shape[2:]
                margins = (0, self._size - columns, 0, self._size - rows)
                output = self._model(
                    pixel_values=functional.pad(self._scale.normalised(picture), margins).to(self._device),
                    input_boxes=torch.from_numpy(boxes)[None].to(self._device),
                    multimask_output=False,
                )
                large = functional.interpolate(
                    output.pred_masks[:1, :, 0].float(), size=(self._size, self._size), mode="bilinear"
                )[..., :rows, :columns]
                logits = functional.interpolate(large, size=prepared.shape[1:], mode="bilinear")[0]
                best, which = logits.max(dim=0)
                chosen = np.array(numbers, np.int32)[which.cpu().numpy()]
                found[place] = np.where(best.cpu().numpy() > 0, chosen, 0)
                for number, score in zip(numbers, output.iou_scores[0, :, 0].tolist(), strict=True):
                    scores.setdefault(number, []).append(float(np.clip(score, 0, 1)))
        return prepared, found, scores

    def answer(self, inferred: _Found) -> Answer:
        """Each prompted node with its mask; its confidence is the model's own estimate of its overlap."""
        at, found, scores = inferred
        objects = np.ascontiguousarray(at.view.back(found))
        labels = np.zeros(objects.shape, np.uint8)
        labels[objects < 0] = LABEL_VALUES[GTVP]
        labels[objects > 0] = LABEL_VALUES[GTVN]
        sure = {n: float(np.mean(s)) for n, s in scores.items() if n > 0 and np.isfinite(s).all()}
        nodes = np.where(objects > 0, objects, 0).astype(np.uint16)
        return Answer(at.ct.with_array(labels), at.ct.with_array(nodes), confidence=sure)

    def _fitted(self, side: int, sides: tuple[int, ...]) -> int:
        """A side of the slice in pixels of the model's picture, before padding."""
        return max(1, int(side * self._size / max(sides) + 0.5)) if self._padded else self._size


def slice_boxes(objects: npt.NDArray[np.int32], margin: tuple[float, float]) -> dict[int, Box]:
    """The box around each object of a slice, (left, top, right, bottom) in pixels.

    Pixel i reaches from i to i + 1. The margin (pixels along rows, columns) is cut off at the slice's edge.
    """
    boxes = {}
    for number in np.unique(objects[objects != 0]).tolist():
        rows, columns = np.nonzero(objects == number)
        top, left = max(0.0, rows.min() - margin[0]), max(0.0, columns.min() - margin[1])
        bottom = min(float(objects.shape[0]), rows.max() + 1 + margin[0])
        right = min(float(objects.shape[1]), columns.max() + 1 + margin[1])
        boxes[int(number)] = (float(left), float(top), float(right), float(bottom))
    return boxes


def _is_promptable(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") in FAMILY


ADAPTERS = (
    Adapter(
        "promptable", "promptable segmenter", PromptableComparator, from_hub=True, takes_config=_is_promptable
    ),
    Adapter("semantic", "semantic segmenter", SemanticComparator, from_hub=True, takes_config=_is_semantic),
)
