"""Import of the published classifier, a Keras 2 model in HDF5, without TensorFlow.

The file is read as plain data, nothing in it is run: the configuration (JSON) and the arrays that it names.
Optimizer weights and the training configuration stay closed; links to other files are refused, and sizes are
bounded before reading.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import h5py
import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor

from aiene.classify.classifier import save_classifier
from aiene.classify.dualnet import BOX_SIZE, LEAKY_SLOPE, NORM_EPSILON, SMALL_SIZE, DualNet, DualNetWidths
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


TOLERANCE = 1e-5
"""Largest difference in probability between the imported network and the file, on random inputs."""
_CHECKED_INPUTS = 2


@dataclass(frozen=True)
class ImportReport:
    """How an import went.

    Parameters
    ----------
    source : the file's name.
    keras_version : as the file says.
    widths : of the network, read from the file.
    parameters : numbers in the network, running statistics included (published: 48,265,890).
    max_difference : in probability.
    max_logit_difference : in what the last sigmoid takes.
    """

    source: str
    keras_version: str
    widths: DualNetWidths
    parameters: int
    max_difference: float
    max_logit_difference: float

    def __str__(self) -> str:
        return (
            f"DualNet of {self.parameters} parameters (Keras {self.keras_version}), probability within "
            f"{self.max_difference:.1e}, logit within {self.max_logit_difference:.1e} of the original network"
        )


@dataclass(frozen=True)
class _Step:
    """A layer that must come next: its kind, its settings, and where its weights go.

    A tuple of settings means one of these, where None stands for a setting that the file leaves out.
    """

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    target: str = ""


def import_classifier(h5: Path, target_folder: Path) -> ImportReport:
    """Turn the published `.h5` into `config.json` and `weights.safetensors`.

    Layers are found by their place in the graph, not by name; widths are read from the file. The end is a
    check: the imported network against a float64 evaluation straight from the file. Nothing is written before
    it.

    Parameters
    ----------
    h5 : a whole Keras 2 model of the DualNet architecture, trained or not.
    target_folder : made if needed.

    Raises
    ------
    ModelError : no such file, another architecture, a layer that is missing, misshapen or set differently, or
        a network that does not compute what the file does.
    """
    model = read_keras_model(h5)
    net = _network(model)
    probability, logit = _differences(model, net)
    if not probability <= TOLERANCE:
        problem = f"the imported network differs from the file by {probability:.1e} in probability"
        raise ModelError(h5, problem, "report it with the file's origin")
    save_classifier(target_folder, net)
    parameters = sum(t.numel() for t in net.state_dict().values() if t.is_floating_point())
    return ImportReport(h5.name, model.version, net.widths, parameters, probability, logit)


_CHANNELS_LAST = ("channels_last", None)


def _block(target: str, kernel: int = 3) -> list[_Step]:
    convolution = {
        "kernel_size": [kernel] * 3,
        "padding": "same" if kernel == 3 else "valid",
        **_PLAIN_CONVOLUTION,
    }
    return [
        _Step("Conv3D", convolution, f"{target}.conv"),
        _Step("BatchNormalization", {"epsilon": NORM_EPSILON, "axis": ([4], 4, -1)}, f"{target}.norm"),
        _Step("LeakyReLU", {"alpha": LEAKY_SLOPE}),
    ]


def _dense_block(target: str) -> list[_Step]:
    return [
        _Step("Dense", {"activation": "linear"}, f"{target}.dense"),
        _Step("BatchNormalization", {"epsilon": NORM_EPSILON, "axis": ([1], 1, -1)}, f"{target}.norm"),
        _Step("LeakyReLU", {"alpha": LEAKY_SLOPE}),
    ]


def _pool(*size: int, kind: str = "MaxPooling3D", padding: Any = "valid") -> _Step:
    settings = {"pool_size": list(size), "strides": (list(size), None), "padding": padding}
    return _Step(kind, {**settings, "data_format": _CHANNELS_LAST})


_PLAIN_CONVOLUTION = {
    "strides": [1, 1, 1],
    "dilation_rate": ([1, 1, 1], None),
    "groups": (1, None),
    "activation": "linear",
    "data_format": _CHANNELS_LAST,
}
_FLATTEN = _Step("Flatten", {"data_format": _CHANNELS_LAST})
_HALVE_DEPTH = _pool(2, 1, 1, kind="AveragePooling3D", padding=("same", "valid"))

_BOX = [
    _HALVE_DEPTH,
    *(*_block("box.conv1"), _pool(1, 2, 2)),
    *(*_block("box.conv2"), _pool(2, 2, 2)),
    *(*_block("box.conv3a"), _pool(2, 2, 2)),
    *(*_block("box.conv3b"), _pool(2, 2, 2)),
    *(*_block("box.conv4a"), *_block("box.conv4b")),
    _Step("ZeroPadding3D", {"padding": [[0, 0], [1, 1], [1, 1]], "data_format": _CHANNELS_LAST}),
    *(_pool(2, 2, 2), _FLATTEN),
    *(*_dense_block("box.dense1"), *_dense_block("box.dense2")),
    _Step("Dense", {"activation": "relu"}, "box.values"),
]
_SMALL = [
    _HALVE_DEPTH,
    *(*_block("small.conv1"), _pool(1, 2, 2)),
    *(*_block("small.conv2"), _pool(2, 2, 2)),
    *(*_block("small.conv3a"), *_block("small.conv3b"), _pool(2, 2, 2)),
    *(*_block("small.conv4a"), *_block("small.conv4b"), _pool(2, 2, 2)),
    *_block("small.last", kernel=2),
    _Step("Conv3D", {"kernel_size": [1, 1, 1], **_PLAIN_CONVOLUTION}, "small.value"),
    _FLATTEN,
]
_HEAD = [
    _Step("Concatenate", {"axis": (-1, 1)}),
    _Step("Dense", {"activation": "relu"}, "head"),
    _Step("Dense", {"activation": "sigmoid"}, "out"),
]


def _network(model: KerasModel) -> DualNet:
    """The network with the file's weights, in `eval` mode."""
    targets = _targets(model)
    net = DualNet(_widths(model, targets))
    state = net.state_dict()
    for target, layer in targets.items():
        for name, tensor in _tensors(model, layer):
            wanted = state[f"{target}.{name}"]
            if wanted.shape != tensor.shape:
                shapes = f"{tuple(tensor.shape)} instead of {tuple(wanted.shape)} ({target}.{name})"
                raise ModelError(model.file, f"layer {layer.name} is misshapen: {shapes}", REMEDY)
            state[f"{target}.{name}"] = tensor
    net.load_state_dict(state)
    return net.eval()


def _targets(model: KerasModel) -> dict[str, KerasLayer]:
    """The file's layers by the name of their part in `DualNet`, once the graph has been compared with it."""
    box, small = _input(model, BOX_SIZE), _input(model, SMALL_SIZE)
    box_layers, box_end = _follow(model, box, _BOX)
    small_layers, small_end = _follow(model, small, _SMALL)
    head_layers, end = _follow(model, small_end, _HEAD)
    if head_layers[0].inputs != (small_end.name, box_end.name):
        problem = (
            f"layer {head_layers[0].name} does not join the small branch and the box branch, in this order"
        )
        raise ModelError(model.file, problem, REMEDY)
    if model.outputs != (end.name,):
        raise ModelError(model.file, f"layer {end.name} is not the model's one output", REMEDY)
    steps = [*_BOX, *_SMALL, *_HEAD]
    found = [*box_layers, *small_layers, *head_layers]
    return {step.target: layer for step, layer in zip(steps, found, strict=True) if step.target}


def _input(model: KerasModel, size: tuple[int, int, int]) -> KerasLayer:
    shape = [None, *size, 1]
    for layer in model.layers.values():
        if layer.kind == "InputLayer" and layer.config.get("batch_input_shape") == shape:
            return layer
    raise ModelError(model.file, f"it has no input of {' x '.join(map(str, size))} voxels", REMEDY)


def _follow(
    model: KerasModel, start: KerasLayer, steps: Sequence[_Step]
) -> tuple[list[KerasLayer], KerasLayer]:
    """The layers behind `start`, each compared with its step; dropout is passed over."""
    found = []
    layer = start
    for step in steps:
        layer = _next(model, layer)
        while layer.kind == "Dropout" and len(layer.inputs) == 1:
            layer = _next(model, layer)
        _compare(model, layer, step)
        found.append(layer)
    return found, layer


def _next(model: KerasModel, layer: KerasLayer) -> KerasLayer:
    followers = [other for other in model.layers.values() if layer.name in other.inputs]
    if len(followers) != 1:
        problem = f"layer {layer.name} feeds {len(followers)} layers instead of one"
        raise ModelError(model.file, problem, REMEDY)
    return followers[0]


def _compare(model: KerasModel, layer: KerasLayer, step: _Step) -> None:
    joins = 2 if step.kind == "Concatenate" else 1
    if layer.kind != step.kind or len(layer.inputs) != joins:
        problem = f"layer {layer.name} is a {layer.kind} of {len(layer.inputs)} inputs"
        raise ModelError(model.file, f"{problem} where a {step.kind} of {joins} belongs", REMEDY)
    for name, wanted in step.settings.items():
        value = layer.config.get(name)
        if not _agrees(value, wanted):
            problem = f"layer {layer.name} has {name} {value} instead of {wanted}"
            raise ModelError(model.file, problem, REMEDY)


def _agrees(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, tuple):
        return any(_agrees(value, one) for one in wanted)
    if isinstance(wanted, float):  # stored by way of float32
        return isinstance(value, float) and math.isclose(value, wanted, rel_tol=1e-6)
    return bool(value == wanted)


def _widths(model: KerasModel, targets: Mapping[str, KerasLayer]) -> DualNetWidths:
    width = {target: _width(model, layer) for target, layer in targets.items() if "norm" not in target}
    box = ("conv1", "conv2", "conv3a", "conv3b", "conv4a", "conv4b")
    return DualNetWidths(
        box=tuple(width[f"box.{name}.conv"] for name in box),
        box_dense=(width["box.dense1.dense"], width["box.dense2.dense"]),
        box_values=width["box.values"],
        small=tuple(width[f"small.{name}.conv"] for name in (*box, "last")),
        head=width["head"],
    )


def _width(model: KerasModel, layer: KerasLayer) -> int:
    kernel = _weight(model, layer, "kernel")
    wanted = 5 if layer.kind == "Conv3D" else 2
    if kernel.ndim != wanted or kernel.size == 0:
        problem = f"layer {layer.name} is misshapen: its kernel has shape {kernel.shape}"
        raise ModelError(model.file, problem, REMEDY)
    return int(kernel.shape[-1])


def _weight(model: KerasModel, layer: KerasLayer, name: str) -> npt.NDArray[np.float32]:
    if name not in layer.weights:
        raise ModelError(model.file, f"layer {layer.name} lacks its {name}", REMEDY)
    return layer.weights[name]


def _tensors(model: KerasModel, layer: KerasLayer) -> Iterator[tuple[str, Tensor]]:
    """A layer's weights under PyTorch's names and with its axes: channels first, outputs before inputs."""
    names = _NORM_NAMES if layer.kind == "BatchNormalization" else _KERNEL_NAMES
    for keras, name in names.items():
        tensor = torch.from_numpy(_weight(model, layer, keras))
        if keras == "kernel":
            tensor = tensor.permute(4, 3, 0, 1, 2) if tensor.ndim == 5 else tensor.T
        yield name, tensor


_KERNEL_NAMES = {"kernel": "weight", "bias": "bias"}
_NORM_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def _differences(model: KerasModel, net: DualNet) -> tuple[float, float]:
    """Largest difference of network and file in probability and in logit, on random inputs."""
    random = np.random.default_rng(0)
    box, small = (_like_a_node(random, size) for size in (BOX_SIZE, SMALL_SIZE))
    names = _input(model, BOX_SIZE).name, _input(model, SMALL_SIZE).name
    given = {name: x[..., None].astype(np.float64) for name, x in zip(names, (box, small), strict=True)}
    reference = keras_logits(model, given)
    with torch.inference_mode():
        ours = net.logits(*(torch.from_numpy(x[:, None]) for x in (box, small))).double().numpy()
    apart = np.abs(_sigmoid(ours) - _sigmoid(reference))
    return float(apart.max()), float(np.abs(ours - reference).max())


def _like_a_node(random: np.random.Generator, size: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """Noise of the range that `legacy` inputs have; half of the voxels are background."""
    shape = (_CHECKED_INPUTS, *size)
    noise = random.random(shape) * (random.random(shape) < 0.5)
    return np.minimum(noise + 0.001, 1).astype(np.float32)


def _sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -x))
