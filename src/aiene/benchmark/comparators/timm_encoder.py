"""Encoders of timm: an architecture's name with weights beside it, or a folder in timm's hub layout.

Written by timm's documented interface (`create_model`, `num_classes=0`); where timm is not installed, the
model is a row that says so.
"""

from __future__ import annotations

from typing import Any

from aiene.benchmark.comparators import hub
from aiene.benchmark.comparators.encoder import EncoderComparator, encoder_facts
from aiene.benchmark.comparators.protocol import Request
from aiene.benchmark.comparators.slices import PictureScale
from aiene.device import resolve_device
from aiene.errors import ModelError
from aiene.extras import need

PREFIX = "timm:"


def open_timm(request: Request) -> EncoderComparator:
    """The encoder of a folder with timm's `config.json` and safetensors, or of `timm:ID`, a hub id.

    Raises
    ------
    ModelError : no such architecture, or weights that do not fit it.
    MissingExtraError : timm is not installed.
    """
    timm = need("timm", extra="benchmark", purpose="A timm model")
    source = request.entry.source.removeprefix(PREFIX)
    folder = request.folder or hub.model_folder(source, request.entry.revision)
    config = hub.read_json(folder, hub.CONFIG)
    architecture = str(config.get("architecture", ""))
    if not timm.is_model(architecture):
        raise ModelError(folder, f"timm knows no architecture {architecture!r}", "check its config.json")
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
        raise ModelError(name, "its weights do not fit its architecture", "get the model again") from error
