"""What a Keras model computes, in float64 and straight from its file: the reference for an imported network.

It follows the graph and the settings of the file itself, channels last, with numpy alone, and shares nothing
with the network that it checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from aiene.errors import ModelError
from aiene.models.keras_file import REMEDY, KerasLayer, KerasModel

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


def _leaky(layer: KerasLayer, values: list[Array]) -> Array:
    x = values[0]
    return np.where(x > 0, x, x * layer.config["alpha"])


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


def _padding(layer: KerasLayer, values: list[Array]) -> Array:
    return np.pad(values[0], [(0, 0), *layer.config["padding"], (0, 0)])


def _flatten(layer: KerasLayer, values: list[Array]) -> Array:
    return values[0].reshape(len(values[0]), -1)


def _affine(layer: KerasLayer, x: Array) -> Array:
    return np.asarray(x @ layer.weights["kernel"].astype(np.float64) + layer.weights["bias"])


def _dense(layer: KerasLayer, values: list[Array]) -> Array:
    result = _affine(layer, values[0])
    return np.maximum(result, 0) if layer.config["activation"] == "relu" else result


def _concatenate(layer: KerasLayer, values: list[Array]) -> Array:
    return np.concatenate(values, axis=-1)


def _unchanged(layer: KerasLayer, values: list[Array]) -> Array:
    return values[0]


_LAYERS: Mapping[str, Callable[[KerasLayer, list[Array]], Array]] = {
    "AveragePooling3D": _pooling(np.mean),
    "BatchNormalization": _normalisation,
    "Concatenate": _concatenate,
    "Conv3D": _convolution,
    "Dense": _dense,
    "Dropout": _unchanged,
    "Flatten": _flatten,
    "LeakyReLU": _leaky,
    "MaxPooling3D": _pooling(np.max),
    "ZeroPadding3D": _padding,
}
