"""Promptable segmenters of Hugging Face (the SAM family), slice by slice with one box for each node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aiene.benchmark.comparators import hub
from aiene.benchmark.comparators.adapters import Adapter
from aiene.benchmark.comparators.protocol import Answer, CaseInput, ModelFacts, Request, count_parameters
from aiene.benchmark.comparators.slices import AxialView, PictureScale
from aiene.benchmark.config import GTVN, GTVP, LABEL_VALUES
from aiene.device import resolve_device
from aiene.errors import CaseError, ModelError
from aiene.geometry.grid import Volume
from aiene.ingest.read import read_case

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
class _Loaded:
    case: CaseInput
    ct: Volume


@dataclass(frozen=True, eq=False)
class Prompted:
    """The slices that hold a prompt.

    Parameters
    ----------
    shape : of the turned volume.
    slices : place, the grey picture (1, 1, rows, columns) before padding, the prompted objects' numbers (-1
        GTVp) and their boxes in pixels of the picture.
    """

    ct: Volume
    view: AxialView
    shape: tuple[int, int, int]
    slices: tuple[tuple[int, Any, tuple[int, ...], Any], ...]


@dataclass(frozen=True, eq=False)
class _Found:
    at: Prompted
    objects: npt.NDArray[np.int32]
    scores: dict[int, list[float]]


class PromptableComparator:
    """A SAM-like model that is loaded."""

    def __init__(self, model: Any, facts: ModelFacts, request: Request, scale: PictureScale) -> None:
        self._model, self._facts, self._entry, self._scale = model, facts, request.entry, scale
        self._device = resolve_device(request.device)
        self._size = int(model.config.prompt_encoder_config.image_size)
        self._padded = model.config.model_type in PADDED

    @property
    def facts(self) -> ModelFacts:
        """What its files say."""
        return self._facts

    def load(self, case: CaseInput) -> _Loaded:
        """Read the CT."""
        if case.prompts is None:
            problem = "there is nothing to prompt the model with: the bundle gave no result for this case"
            raise CaseError(problem, "see that bundle's row, or use prompts: truth")
        return _Loaded(case, read_case(case.case).volume)

    def preprocess(self, loaded: _Loaded) -> Prompted:
        """Pictures and boxes of every slice that holds a prompt."""
        ct, prompts = loaded.ct, loaded.case.prompts
        view = AxialView.of(ct.grid)
        hu = view.turn(ct.array)
        objects = view.turn(prompt_objects(prompts)) if prompts else np.zeros(hu.shape, np.int32)
        margin = (self._entry.box_margin_mm / view.spacing[1], self._entry.box_margin_mm / view.spacing[2])
        rows, columns = (self._fitted(n, hu.shape[1:]) for n in hu.shape[1:])
        factor = np.array([columns / hu.shape[2], rows / hu.shape[1]] * 2, np.float32)
        slices = []
        for place in np.flatnonzero(objects.any(axis=(1, 2))):
            boxes = slice_boxes(objects[place], margin)
            picture = self._picture(hu[place], (rows, columns))
            at = np.array(list(boxes.values()), np.float32) * factor
            slices.append((int(place), picture, tuple(boxes), at))
        return Prompted(ct, view, (hu.shape[0], hu.shape[1], hu.shape[2]), tuple(slices))

    def infer(self, prepared: Prompted) -> _Found:
        """One mask for each box; where masks overlap, the surer one."""
        import torch

        found = np.zeros(prepared.shape, np.int32)
        scores: dict[int, list[float]] = {}
        with torch.inference_mode():
            for place, picture, numbers, boxes in prepared.slices:
                output = self._model(
                    pixel_values=self._padded_picture(picture).to(self._device),
                    input_boxes=torch.from_numpy(boxes)[None].to(self._device),
                    multimask_output=False,
                )
                logits = self._on_slice(output.pred_masks[0, :, 0].float(), prepared.shape[1:])
                best, which = logits.max(dim=0)
                chosen = np.array(numbers, np.int32)[which.cpu().numpy()]
                found[place] = np.where(best.cpu().numpy() > 0, chosen, 0)
                for number, score in zip(numbers, output.iou_scores[0, :, 0].tolist(), strict=True):
                    scores.setdefault(number, []).append(float(np.clip(score, 0, 1)))
        return _Found(prepared, found, scores)

    def answer(self, inferred: _Found) -> Answer:
        """Each prompted node with its mask; its confidence is the model's own estimate of its overlap."""
        at = inferred.at
        objects = np.ascontiguousarray(at.view.back(inferred.objects))
        labels = np.zeros(objects.shape, np.uint8)
        labels[objects < 0] = LABEL_VALUES[GTVP]
        labels[objects > 0] = LABEL_VALUES[GTVN]
        sure = {n: float(np.mean(s)) for n, s in inferred.scores.items() if n > 0 and np.isfinite(s).all()}
        nodes = np.where(objects > 0, objects, 0).astype(np.uint16)
        return Answer(at.ct.with_array(labels), at.ct.with_array(nodes), confidence=sure)

    def _fitted(self, side: int, sides: tuple[int, ...]) -> int:
        """A side of the slice in pixels of the model's picture, before padding."""
        return max(1, int(side * self._size / max(sides) + 0.5)) if self._padded else self._size

    def _picture(self, hu: npt.NDArray[Any], fitted: tuple[int, int]) -> Any:
        from torch.nn import functional

        whole = self._scale.grey(np.ascontiguousarray(hu)[None])
        return functional.interpolate(whole, size=fitted, mode="bilinear", antialias=True)

    def _padded_picture(self, grey: Any) -> Any:
        from torch.nn import functional

        rows, columns = grey.shape[2:]
        return functional.pad(self._scale.normalised(grey), (0, self._size - columns, 0, self._size - rows))

    def _on_slice(self, logits: Any, shape: tuple[int, ...]) -> Any:
        """Mask logits (objects, h, w) of the model at the slice's own pixels."""
        from torch.nn import functional

        large = functional.interpolate(logits[None], size=(self._size, self._size), mode="bilinear")
        rows, columns = (self._fitted(n, shape) for n in shape)
        return functional.interpolate(large[..., :rows, :columns], size=tuple(shape), mode="bilinear")[0]


def open_promptable(request: Request) -> PromptableComparator:
    """The model of a folder.

    Raises
    ------
    ModelError : it is none of the SAM family, or cannot be loaded.
    """
    folder, entry = _folder(request), request.entry
    config = hub.read_json(folder, hub.CONFIG)
    if config.get("model_type") not in FAMILY:
        problem = f"a {config.get('model_type')} model takes no boxes"
        raise ModelError(folder, problem, f"give one of {', '.join(FAMILY)}, or another kind")
    hub.check_no_code(folder, config)
    files = hub.weight_files(folder)
    model, _ = hub.pretrained("AutoModelForMaskGeneration", folder)
    channels = int(getattr(model.config.vision_config, "num_channels", 3) or 3)
    scale = PictureScale.from_config(entry.window_hu, hub.read_json(folder, hub.PREPROCESSOR), channels)
    facts = ModelFacts(
        kind="promptable",
        sha256=hub.weights_sha256(files),
        segments=True,
        parameters=count_parameters([model]),
        size_bytes=sum(file.stat().st_size for file in files),
        said=(_SAID[entry.prompts],),
    )
    return PromptableComparator(model.to(resolve_device(request.device)), facts, request, scale)


def prompt_objects(prompts: tuple[Volume, Volume]) -> npt.NDArray[np.int32]:
    """What is prompted for: -1 the primary tumour, k the k-th node, 0 nothing."""
    labels, nodes = prompts
    objects = nodes.array.astype(np.int32)
    objects[(labels.array == LABEL_VALUES[GTVP]) & (objects == 0)] = -1
    return objects


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


def _folder(request: Request) -> Any:
    return request.folder or hub.model_folder(request.entry.source, request.entry.revision)


def _takes(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") in FAMILY


ADAPTERS = (
    Adapter("promptable", "promptable segmenter", open_promptable, from_hub=True, takes_config=_takes),
)
