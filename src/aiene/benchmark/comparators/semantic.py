"""Semantic segmenters of Hugging Face (SegFormer and its like), slice by slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aiene.benchmark.comparators import hub
from aiene.benchmark.comparators.adapters import Adapter
from aiene.benchmark.comparators.protocol import Answer, CaseInput, ModelFacts, Request, count_parameters
from aiene.benchmark.comparators.slices import AxialView, PictureScale
from aiene.benchmark.config import GTVN, LABEL_VALUES
from aiene.benchmark.metrics.matching import components
from aiene.device import resolve_device
from aiene.errors import ModelError
from aiene.geometry.grid import Volume
from aiene.ingest.read import read_case

_BATCH = 4


@dataclass(frozen=True, eq=False)
class _Pictures:
    ct: Volume
    view: AxialView
    shape: tuple[int, int, int]
    pictures: Any


@dataclass(frozen=True, eq=False)
class _Classes:
    at: _Pictures
    values: npt.NDArray[np.uint8]
    sureness: npt.NDArray[np.float32]


class SemanticComparator:
    """A segmenter of pictures that is loaded."""

    def __init__(
        self, model: Any, facts: ModelFacts, request: Request, scale: PictureScale, size: int | None
    ) -> None:
        self._model, self._facts, self._scale, self._size = model, facts, scale, size
        self._device = resolve_device(request.device)
        self._map = request.entry.label_map or named_classes(model.config.id2label)

    @property
    def facts(self) -> ModelFacts:
        """What its files say."""
        return self._facts

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
        return _Classes(prepared, values, sureness)

    def answer(self, inferred: _Classes) -> Answer:
        """The label map; a node is a connected part, its confidence the mean probability within it."""
        at = inferred.at
        values = np.ascontiguousarray(at.view.back(inferred.values))
        sureness = np.ascontiguousarray(at.view.back(inferred.sureness))
        return answer_of_classes(at.ct, values, sureness)


def open_semantic(request: Request) -> SemanticComparator:
    """The model of a folder.

    Raises
    ------
    ModelError : it cannot be loaded, or it is not stated which of its classes are GTVp and GTVn.
    """
    folder, entry = (
        request.folder or hub.model_folder(request.entry.source, request.entry.revision),
        request.entry,
    )
    config = hub.read_json(folder, hub.CONFIG)
    hub.check_no_code(folder, config)
    files = hub.weight_files(folder)
    model, _ = hub.pretrained("AutoModelForSemanticSegmentation", folder, may_lack=("auxiliary_head",))
    _check_map(folder, model, entry.label_map)
    content = hub.read_json(folder, hub.PREPROCESSOR)
    channels = int(getattr(model.config, "num_channels", 3) or 3)
    facts = ModelFacts(
        kind="semantic",
        sha256=hub.weights_sha256(files),
        segments=True,
        parameters=count_parameters([model]),
        size_bytes=sum(file.stat().st_size for file in files),
        said=("slice by slice; nodes are connected parts of its GTVn",),
    )
    scale = PictureScale.from_config(entry.window_hu, content, channels)
    size = entry.input_size or picture_size(content, model.config)
    return SemanticComparator(model.to(resolve_device(request.device)), facts, request, scale, size)


def named_classes(id2label: dict[int, str]) -> dict[int, Any]:
    """The classes of a model whose own names are GTVp or GTVn."""
    ours = {name.lower(): name for name in LABEL_VALUES}
    return {int(n): ours[said.lower()] for n, said in id2label.items() if said.lower() in ours}


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


def _check_map(folder: Path, model: Any, label_map: dict[int, Any] | None) -> None:
    chosen = label_map or named_classes(model.config.id2label)
    number = int(model.config.num_labels)
    if not chosen:
        problem = "it is not stated which of its classes are GTVp and GTVn"
        raise ModelError(folder, problem, "give `label_map` for it in the configuration, such as {1: GTVn}")
    beyond = [n for n in chosen if not 0 <= n < number]
    if beyond:
        raise ModelError(folder, f"it has no class {beyond[0]}", f"its classes are 0 to {number - 1}")


def _takes(config: Mapping[str, Any]) -> bool:
    named = config.get("architectures")
    return isinstance(named, list) and any(str(name).endswith("ForSemanticSegmentation") for name in named)


ADAPTERS = (Adapter("semantic", "semantic segmenter", open_semantic, from_hub=True, takes_config=_takes),)
