"""A classifier on disk: `config.json` (the widths) and `weights.safetensors`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from aiene.classify.dualnet import DualNet, DualNetWidths
from aiene.errors import ModelError, OutputError

CONFIG = "config.json"
WEIGHTS = "weights.safetensors"
_AGAIN = "get the model again"

_Width = Annotated[int, Field(ge=1, le=65536)]


class _Widths(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    box: Annotated[tuple[_Width, ...], Field(min_length=6, max_length=6)]
    box_dense: Annotated[tuple[_Width, ...], Field(min_length=2, max_length=2)]
    box_values: _Width
    small: Annotated[tuple[_Width, ...], Field(min_length=7, max_length=7)]
    head: _Width


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    architecture: Literal["DualNet"] = "DualNet"
    widths: _Widths


def save_classifier(folder: Path, net: DualNet, *, half: bool = False) -> None:
    """Write a network's widths and weights into a folder, which is made if needed.

    The normalisation of the inputs is not written here: it stands on the bundle's card.

    Parameters
    ----------
    folder : holds `config.json` and `weights.safetensors` afterwards.
    net : on any device.
    half : store kernels as float16 (half the size); batch-normalisation and biases stay float32.

    Raises
    ------
    ModelError : a weight that is not finite, or too large for float16.
    OutputError : the folder cannot be written.
    """
    state = {name: _stored(tensor, half) for name, tensor in net.state_dict().items()}
    _check_finite(folder / WEIGHTS, state)
    config = {"format": 1, "architecture": "DualNet", "widths": asdict(net.widths)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(state, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise OutputError(folder, "the classifier cannot be written there", "choose another place") from error


def load_dualnet(folder: Path) -> DualNet:
    """The network of a folder, in float32 on the CPU, in `eval` mode.

    Raises
    ------
    ModelError : a file that is missing or damaged, a layer that is missing, unknown or misshapen, or a weight
        that is not finite.
    """
    widths = _read_widths(folder / CONFIG)
    with torch.device("meta"):  # shapes without memory: the file brings the values
        net = DualNet(widths)
    file = folder / WEIGHTS
    state = _read_weights(file)
    _check_layers(file, state, net.state_dict())
    _check_finite(file, state)
    net.load_state_dict({name: _computed(tensor) for name, tensor in state.items()}, assign=True)
    return net.eval()


def _stored(tensor: Tensor, half: bool) -> Tensor:
    kernel = half and tensor.is_floating_point() and tensor.ndim > 1
    return tensor.detach().to("cpu", torch.float16 if kernel else tensor.dtype).contiguous()


def _computed(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _read_widths(file: Path) -> DualNetWidths:
    try:
        config = _Config.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ModelError(file, "cannot be read", _AGAIN) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ModelError(file, f"no classifier's configuration: {where}: {first['msg']}", _AGAIN) from error
    return DualNetWidths(**config.widths.model_dump())


def _read_weights(file: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = load_file(file)
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(file, "cannot be read as weights (safetensors)", _AGAIN) from error
    return state


def _check_layers(file: Path, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    if missing := sorted(wanted.keys() - found.keys()):
        raise ModelError(file, f"layer {missing[0]} is missing", _AGAIN)
    if unknown := sorted(found.keys() - wanted.keys()):
        raise ModelError(file, f"layer {unknown[0]} belongs to another network", _AGAIN)
    for name, tensor in wanted.items():
        shape, kind = found[name].shape, found[name].is_floating_point()
        if shape != tensor.shape or kind != tensor.is_floating_point():
            problem = f"layer {name} has shape {tuple(shape)} instead of {tuple(tensor.shape)}"
            raise ModelError(file, problem, _AGAIN)


def _check_finite(file: Path, state: dict[str, Tensor]) -> None:
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(file, f"layer {name} holds values that are not finite", "take other weights")
