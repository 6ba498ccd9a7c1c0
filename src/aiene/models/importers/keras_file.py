"""Reading a Keras 2 model file (HDF5) as plain data: no TensorFlow, nothing in the file is run.

Only what belongs to the model is opened: the configuration (JSON) and the arrays that it names. Optimizer
weights and the training configuration stay closed; links to other files are refused, and sizes are bounded
before reading.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import h5py
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, ValidationError

from aiene.errors import ModelError

Weights = Mapping[str, npt.NDArray[np.float32]]

REMEDY = "give the published DualNet file, or a whole Keras 2 model of the same architecture saved as .h5"
MOST_WEIGHTS = 2**28
"""Numbers in one model that are read at most (1 GiB); the published network has a fifth of it."""


@dataclass(frozen=True, eq=False)
class KerasLayer:
    """One layer of the graph.

    Parameters
    ----------
    kind : its Keras class.
    name : unique in the model.
    config : its settings as in the file.
    inputs : names of the layers that feed it, in order.
    weights : by the last part of their names: `kernel`, `bias`, `gamma`, `beta`, `moving_mean`,
        `moving_variance`; axes as Keras has them, channels last.
    """

    kind: str
    name: str
    config: Mapping[str, Any]
    inputs: tuple[str, ...]
    weights: Weights = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class KerasModel:
    """A model as it lies in its file.

    Parameters
    ----------
    file : where it was read.
    version : of Keras, as the file says.
    layers : by name, in the file's order.
    outputs : names of the layers whose values the model returns.
    """

    file: Path
    version: str
    layers: Mapping[str, KerasLayer]
    outputs: tuple[str, ...]


class _Layer(BaseModel):
    class_name: str
    config: dict[str, Any]
    name: str
    inbound_nodes: Annotated[list[list[tuple[str, int, int, dict[str, Any]]]], Field(max_length=1)]


class _Graph(BaseModel):
    layers: Annotated[list[_Layer], Field(min_length=1, max_length=1000)]
    output_layers: list[tuple[str, int, int]]


class _Root(BaseModel):
    class_name: Literal["Functional", "Model"]
    config: _Graph


def read_keras_model(file: Path) -> KerasModel:
    """The graph and weights of a whole model that Keras 2 saved as HDF5.

    Raises
    ------
    ModelError : no HDF5 file, no whole model, a layer's array that is missing, no plain array of this file,
        too large or not finite.
    """
    try:
        with h5py.File(file, "r") as h5:
            return _read(file, h5)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        problem = "cannot be read as HDF5 (.h5): it is damaged or another kind of file"
        raise ModelError(file, problem, REMEDY) from error


def _read(file: Path, h5: h5py.File) -> KerasModel:
    if "model_config" not in h5.attrs:
        raise ModelError(file, "holds no Keras model configuration (weights alone are not enough)", REMEDY)
    graph = _parse(file, _text(h5.attrs["model_config"]))
    if len({layer.name for layer in graph.layers}) != len(graph.layers):
        raise ModelError(file, "two layers of the model have one name", REMEDY)
    groups = _child(file, h5, "model_weights", h5py.Group)
    layers = {}
    room = MOST_WEIGHTS
    for layer in graph.layers:
        weights = _weights(file, groups, layer.name, room)
        room -= sum(array.size for array in weights.values())
        inputs = tuple(node[0] for nodes in layer.inbound_nodes for node in nodes)
        layers[layer.name] = KerasLayer(layer.class_name, layer.name, layer.config, inputs, weights)
    version = _text(h5.attrs.get("keras_version", "unknown"))
    return KerasModel(file, version, layers, tuple(output[0] for output in graph.output_layers))


def _parse(file: Path, text: str) -> _Graph:
    try:
        return _Root.model_validate_json(text).config
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        problem = f"its model configuration is not that of a Keras 2 functional model ({where})"
        raise ModelError(file, problem, REMEDY) from error


def _weights(file: Path, groups: h5py.Group, layer: str, room: int) -> Weights:
    """The arrays of a layer; none for a layer that the file does not list or that has no weights."""
    if layer not in groups:
        return {}
    group = _child(file, groups, layer, h5py.Group)
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    for name in map(_text, group.attrs.get("weight_names", ())):
        array = _array(file, group, layer, name, room)
        room -= array.size
        arrays[name.rsplit("/", 1)[-1].split(":", 1)[0]] = array
    return arrays


def _array(file: Path, group: h5py.Group, layer: str, name: str, room: int) -> npt.NDArray[np.float32]:
    *folders, last = name.split("/")
    for folder in folders:
        group = _child(file, group, folder, h5py.Group)
    dataset = _child(file, group, last, h5py.Dataset)
    if dataset.dtype.kind != "f" or dataset.is_virtual or dataset.external:
        raise ModelError(file, f"weights {name} of layer {layer} are not a plain array of numbers", REMEDY)
    if math.prod(dataset.shape) > room:
        raise ModelError(file, f"layer {layer} is far larger than a DualNet's", REMEDY)
    array = np.asarray(dataset[()], dtype=np.float32)
    if not np.isfinite(array).all():
        raise ModelError(file, f"weights {name} of layer {layer} are not finite", REMEDY)
    return array


def _child(file: Path, group: h5py.Group, name: str, kind: type) -> Any:
    """A member of a group that lies in this very file."""
    if name not in group or not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ModelError(file, f"{name} is missing, or only a link, in {group.name}", REMEDY)
    member = group[name]
    if not isinstance(member, kind):
        raise ModelError(file, f"{name} in {group.name} is not a {kind.__name__.lower()}", REMEDY)
    return member


def _text(value: Any) -> str:
    """Text of an attribute: Keras 2.4 wrote bytes of fixed length, later versions text of variable length."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


# What a Keras model computes, in float64 and straight from its file: the reference for an imported network.
#
# It follows the graph and the settings of the file itself, channels last, with numpy alone, and shares
# nothing with the network that it checks.


Array = npt.NDArray[np.float64]


def keras_logits(model: KerasModel, inputs: Mapping[str, Array]) -> Array:
    """Values (n, k) of the model's one output layer before its activation.

    Parameters
    ----------
    model : a tree: each layer feeds one other; its output is dense.
    inputs : by name of the input layer, channels last.

    Raises
    ------
    ModelError : a kind of layer that this reference does not know.
    """
    last = model.layers[model.outputs[0]]
    return _affine(last, _value(model, last.inputs[0], inputs))


def _value(model: KerasModel, name: str, inputs: Mapping[str, Array]) -> Array:
    if name in inputs:
        return inputs[name]
    layer = model.layers[name]
    if layer.kind not in _LAYERS:
        raise ModelError(model.file, f"layer {name} is of the unknown kind {layer.kind}", REMEDY)
    return _LAYERS[layer.kind](layer, [_value(model, source, inputs) for source in layer.inputs])


def _convolution(layer: KerasLayer, values: list[Array]) -> Array:
    """One matrix product for each voxel of the kernel."""
    (x,) = values
    kernel = layer.weights["kernel"].astype(np.float64)
    size = kernel.shape[:3]
    if layer.config["padding"] == "same":
        x = np.pad(x, [(0, 0), *(((n - 1) // 2, n // 2) for n in size), (0, 0)])
    shape = (len(x), *(n - k + 1 for n, k in zip(x.shape[1:4], size, strict=True)))
    result = np.tile(layer.weights["bias"].astype(np.float64), (math.prod(shape), 1))
    for z, row, column in product(*map(range, size)):
        window = x[:, z : z + shape[1], row : row + shape[2], column : column + shape[3]]
        result += window.reshape(-1, x.shape[4]) @ kernel[z, row, column]
    return result.reshape(*shape, -1)


def _normalisation(layer: KerasLayer, values: list[Array]) -> Array:
    w = {name: array.astype(np.float64) for name, array in layer.weights.items()}
    scale = w["gamma"] / np.sqrt(w["moving_variance"] + layer.config["epsilon"])
    return np.asarray((values[0] - w["moving_mean"]) * scale + w["beta"])


def _pooling(reduce: Callable[..., Any]) -> Callable[[KerasLayer, list[Array]], Array]:
    def pool(layer: KerasLayer, values: list[Array]) -> Array:
        """Windows that do not overlap; what does not fill a window is left out."""
        x = values[0]
        size = layer.config["pool_size"]
        n = [length // step for length, step in zip(x.shape[1:4], size, strict=True)]
        cut = x[:, : n[0] * size[0], : n[1] * size[1], : n[2] * size[2]]
        windows = cut.reshape(len(x), n[0], size[0], n[1], size[1], n[2], size[2], -1)
        return np.asarray(reduce(windows, axis=(2, 4, 6)))

    return pool


def _affine(layer: KerasLayer, x: Array) -> Array:
    return np.asarray(x @ layer.weights["kernel"].astype(np.float64) + layer.weights["bias"])


def _dense(layer: KerasLayer, values: list[Array]) -> Array:
    result = _affine(layer, values[0])
    return np.maximum(result, 0) if layer.config["activation"] == "relu" else result


_LAYERS: Mapping[str, Callable[[KerasLayer, list[Array]], Array]] = {
    "AveragePooling3D": _pooling(np.mean),
    "BatchNormalization": _normalisation,
    "Concatenate": lambda layer, values: np.concatenate(values, axis=-1),
    "Conv3D": _convolution,
    "Dense": _dense,
    "Dropout": lambda layer, values: values[0],
    "Flatten": lambda layer, values: values[0].reshape(len(values[0]), -1),
    "LeakyReLU": lambda layer, values: np.where(values[0] > 0, values[0], values[0] * layer.config["alpha"]),
    "MaxPooling3D": _pooling(np.max),
    "ZeroPadding3D": lambda layer, values: np.pad(values[0], [(0, 0), *layer.config["padding"], (0, 0)]),
}
