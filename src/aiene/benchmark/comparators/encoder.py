"""Image encoders and classifiers as comparators: frozen features of the nodes.

SwinV2, ViT, DINOv2 and CLIP's vision tower come from the transformers library, others from timm (an
architecture's name with weights beside it, or a folder in timm's hub layout). The features of a node are
those of its axial, coronal and sagittal patch, one after the other. The probe that is fitted on them
afterwards, over all cases, is in `aiene.benchmark.ene_evaluation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aiene.benchmark.comparators import hub
from aiene.benchmark.comparators.adapters import Adapter
from aiene.benchmark.comparators.protocol import Answer, CaseInput, ModelFacts, Request
from aiene.benchmark.comparators.semantic import picture_size
from aiene.benchmark.comparators.slices import PictureScale, node_patches
from aiene.benchmark.config import Kind, ModelEntry
from aiene.benchmark.resources import count_parameters
from aiene.device import resolve_device
from aiene.errors import ModelError, need
from aiene.geometry.grid import Volume
from aiene.ingest.read import read_case

FEATURE_THRESHOLD = 0.5
_PIXELS = 224
_SAID = {
    "linear": "logistic regression on its frozen features, in cross-validation by patient",
    "knn": "k nearest neighbours on its frozen features, in cross-validation by patient",
}

PREFIX = "timm:"


@dataclass(frozen=True, eq=False)
class _Loaded:
    case: CaseInput
    ct: Volume


class EncoderComparator:
    """A network that turns pictures (n, channels, size, size) into features (n, d)."""

    def __init__(
        self,
        encode: Callable[[Any], Any],
        facts: ModelFacts,
        request: Request,
        scale: PictureScale,
        pixels: int,
    ) -> None:
        self._encode, self._facts, self._entry = encode, facts, request.entry
        self._scale, self._pixels = scale, pixels
        self._device = resolve_device(request.device)

    @property
    def facts(self) -> ModelFacts:
        """What its files say."""
        return self._facts

    def load(self, case: CaseInput) -> _Loaded:
        """Read the CT."""
        return _Loaded(case, read_case(case.case).volume)

    def preprocess(self, loaded: _Loaded) -> dict[int, Any]:
        """The pictures of each of the truth's nodes."""
        side, pixels = self._entry.patch_mm, self._pixels
        patches = node_patches(loaded.ct, loaded.case.truth_nodes, side_mm=side, pixels=pixels)
        return {value: self._scale.pictures(hu) for value, hu in patches.items()}

    def infer(self, prepared: dict[int, Any]) -> dict[int, npt.NDArray[np.float32]]:
        """Features of each node, node by node."""
        import torch

        with torch.inference_mode():
            return {
                value: self._encode(pictures.to(self._device)).float().cpu().numpy().ravel()
                for value, pictures in prepared.items()
            }

    def answer(self, inferred: dict[int, npt.NDArray[np.float32]]) -> Answer:
        """The features, but for those that are not finite."""
        bad = sorted(value for value, f in inferred.items() if not np.isfinite(f).all())
        warnings = tuple(f"GTVn_{value:02d}: the features are not finite numbers" for value in bad)
        return Answer(features={v: f for v, f in inferred.items() if v not in bad}, warnings=warnings)


def open_encoder(request: Request) -> EncoderComparator:
    """The model of a folder; of a two-tower model (CLIP, SigLIP) the vision tower.

    Raises
    ------
    ModelError : it cannot be loaded, or takes no pictures.
    """
    folder = request.folder or hub.model_folder(request.entry.source, request.entry.revision)
    config = hub.read_json(folder, hub.CONFIG)
    hub.check_no_code(folder, config)
    files = hub.weight_files(folder)
    model, missing = hub.pretrained("AutoModel", folder, may_lack=("pooler", "position_ids"))
    tower = getattr(model, "vision_model", model)
    if getattr(tower, "main_input_name", "pixel_values") != "pixel_values":
        raise ModelError(folder, "it takes no pictures", "give an image encoder or classifier")
    tower = tower.to(resolve_device(request.device)).eval()
    vision = getattr(model.config, "vision_config", model.config)
    facts = encoder_facts("encoder", files, [tower], request.entry)
    content = hub.read_json(folder, hub.PREPROCESSOR)
    scale = PictureScale.from_config(request.entry.window_hu, content, _channels(vision))
    pixels = request.entry.input_size or picture_size(content, vision) or _PIXELS
    trusted = not any("pooler" in name for name in missing)

    def encode(pictures: Any) -> Any:
        return pooled(tower(pixel_values=pictures), vision, trust_pooler=trusted)

    _try(encode, folder, (1, _channels(vision), pixels, pixels), request.device)
    return EncoderComparator(encode, facts, request, scale, pixels)


def encoder_facts(kind: Kind, files: list[Path], modules: list[Any], entry: ModelEntry) -> ModelFacts:
    """What is known of an encoder."""
    return ModelFacts(
        kind=kind,
        sha256=hub.weights_sha256(files),
        classifies=True,
        features=True,
        parameters=count_parameters(modules),
        size_bytes=sum(file.stat().st_size for file in files),
        ene_threshold=FEATURE_THRESHOLD,
        said=(_SAID[entry.probe], "judges the nodes of the ground truth; it does not find nodes"),
    )


def pooled(output: Any, config: Any, *, trust_pooler: bool) -> Any:
    """One vector for a picture: the model's own pooling where it was trained, else the class token or mean.

    The class token is taken where the model has one (ViT, DINOv2, CLIP); a feature map is averaged.
    """
    own = getattr(output, "pooler_output", None)
    if own is not None and trust_pooler:
        return own.flatten(1)
    hidden = output.last_hidden_state
    if hidden.ndim == 4:
        return hidden.mean(dim=(2, 3))
    return hidden.mean(dim=1) if "swin" in str(config.model_type) else hidden[:, 0]


def _try(encode: Callable[[Any], Any], folder: Path, shape: tuple[int, ...], device: str) -> None:
    """One empty picture, so that a size that does not fit is told once and not case by case."""
    import torch

    try:
        with torch.inference_mode():
            encode(torch.zeros(shape, device=resolve_device(device)))
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        said = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        problem = f"it cannot take pictures of {shape[-1]} x {shape[-1]} ({said})"
        raise ModelError(folder, problem, "set `input_size` to what it was trained with") from error


def _channels(config: Any) -> int:
    return int(getattr(config, "num_channels", 3) or 3)


# timm


def open_timm(request: Request) -> EncoderComparator:
    """The encoder of a folder with timm's `config.json` and safetensors, or of `timm:ID`, a hub id.

    Raises
    ------
    ModelError : no such architecture, or weights that do not fit it.
    MissingExtraError : timm is not installed.
    """
    timm = need("timm", extra="timm", purpose="A timm model")
    source = request.entry.source.removeprefix(PREFIX)
    folder = request.folder or hub.model_folder(source, request.entry.revision)
    config = hub.read_json(folder, hub.CONFIG)
    architecture = str(config.get("architecture", ""))
    if not timm.is_model(architecture):
        raise ModelError(folder, f"timm has no architecture {architecture!r}", "check its config.json")
    files = hub.weight_files(folder)
    model = timm.create_model(architecture, pretrained=False, num_classes=0)
    _fill(model, files[0], folder.name)
    data = {**config.get("pretrained_cfg", {}), **config.get("pretrained_config", {})}
    channels, pixels, _ = data.get("input_size", (3, 224, 224))
    content = {"image_mean": data.get("mean"), "image_std": data.get("std")}
    model = model.eval().to(resolve_device(request.device))
    return EncoderComparator(
        model,
        encoder_facts("timm", files, [model], request.entry),
        request,
        PictureScale.from_config(request.entry.window_hu, content, int(channels)),
        request.entry.input_size or int(pixels),
    )


def _fill(model: Any, file: Any, name: str) -> None:
    """Load the weights; those of a head, which the features do without, are passed over."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        known = set(model.state_dict())
        model.load_state_dict({key: value for key, value in load_file(file).items() if key in known})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            name, "its weights do not fit its architecture", "download the model again"
        ) from error


def _is_of_timm(config: Mapping[str, Any]) -> bool:
    return "architecture" in config and "model_type" not in config


ADAPTERS = (
    Adapter("encoder", "image encoder with probe", open_encoder, from_hub=True),
    Adapter("timm", "image encoder of timm", open_timm, from_hub=True, takes_config=_is_of_timm),
)
