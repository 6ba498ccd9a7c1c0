"""Writes narrow DualNets in Keras 2's HDF5 format, whole or with a fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Layers = dict[str, dict[str, Any]]


class Builder:
    """A narrow DualNet as Keras 2 would save it; layer names carry no meaning."""

    def __init__(self) -> None:
        self.layers: Layers = {}
        self.weights: dict[str, dict[str, np.ndarray]] = {}
        self.random = np.random.default_rng(3)
        self.output = self.model()

    def add(
        self, kind: str, *inputs: str, weights: dict[str, np.ndarray] | None = None, **config: Any
    ) -> str:
        name = f"layer_{100 - len(self.layers)}"
        nodes = [[[i, 0, 0, {}] for i in inputs]] if inputs else []
        config = {"name": name, **config}
        self.layers[name] = {"class_name": kind, "name": name, "config": config, "inbound_nodes": nodes}
        self.weights[name] = weights or {}
        return name

    def normal(self, *shape: int) -> np.ndarray:
        scale = np.sqrt(2 / np.prod(shape[:-1])) if len(shape) > 1 else 0.1
        return (self.random.standard_normal(shape) * scale).astype(np.float32)

    def convolution(self, x: str, wide: int, out: int, kernel: int, padding: str) -> str:
        weights = {"kernel": self.normal(kernel, kernel, kernel, wide, out), "bias": self.normal(out)}
        settings = {
            "kernel_size": [kernel] * 3,
            "strides": [1, 1, 1],
            "padding": padding,
            "activation": "linear",
        }
        return self.add("Conv3D", x, weights=weights, data_format="channels_last", **settings)

    def dense(self, x: str, wide: int, out: int, activation: str) -> str:
        weights = {"kernel": self.normal(wide, out), "bias": self.normal(out) + 0.3}
        return self.add("Dense", x, weights=weights, activation=activation)

    def norm_and_leaky(self, x: str, wide: int, axis: int) -> str:
        weights = {
            "gamma": 1 + self.normal(wide),
            "beta": self.normal(wide),
            "moving_mean": self.normal(wide),
            "moving_variance": self.random.uniform(0.5, 2, wide).astype(np.float32),
        }
        x = self.add("BatchNormalization", x, weights=weights, axis=[axis], epsilon=0.001)
        return self.add("LeakyReLU", x, alpha=0.029999999329447746)

    def block(self, x: str, wide: int, out: int, kernel: int = 3, padding: str = "same") -> str:
        return self.norm_and_leaky(self.convolution(x, wide, out, kernel, padding), out, 4)

    def pool(self, x: str, *size: int) -> str:
        x = self.add("MaxPooling3D", x, pool_size=list(size), strides=list(size), padding="valid")
        return self.add("Dropout", x, rate=0.4)

    def start(self, *size: int) -> str:
        x = self.add("InputLayer", batch_input_shape=[None, *size, 1])
        return self.add("AveragePooling3D", x, pool_size=[2, 1, 1], strides=[2, 1, 1], padding="same")

    def box(self) -> str:
        x = self.pool(self.block(self.start(32, 118, 118), 1, 2), 1, 2, 2)
        x = self.pool(self.block(x, 2, 3), 2, 2, 2)
        x = self.pool(self.block(x, 3, 4), 2, 2, 2)
        x = self.pool(self.block(x, 4, 5), 2, 2, 2)
        x = self.block(self.block(x, 5, 6), 6, 7)
        x = self.pool(self.add("ZeroPadding3D", x, padding=[[0, 0], [1, 1], [1, 1]]), 2, 2, 2)
        x = self.add("Flatten", x)
        x = self.norm_and_leaky(self.dense(x, 112, 8, "linear"), 8, 1)
        x = self.norm_and_leaky(self.dense(x, 8, 9, "linear"), 9, 1)
        return self.dense(x, 9, 3, "relu")

    def small(self) -> str:
        x = self.pool(self.block(self.start(32, 32, 32), 1, 2), 1, 2, 2)
        x = self.pool(self.block(x, 2, 3), 2, 2, 2)
        x = self.pool(self.block(self.block(x, 3, 4), 4, 5), 2, 2, 2)
        x = self.pool(self.block(self.block(x, 5, 6), 6, 7), 2, 2, 2)
        x = self.block(x, 7, 3, 2, "valid")
        return self.add("Flatten", self.convolution(x, 3, 1, 1, "valid"))

    def model(self) -> str:
        box = self.box()
        x = self.add("Concatenate", self.small(), box, axis=-1)
        return self.dense(self.dense(x, 4, 5, "relu"), 5, 2, "sigmoid")

    def layer(self, kind: str, number: int = 0) -> str:
        return [name for name, layer in self.layers.items() if layer["class_name"] == kind][number]

    def write(self, file: Path) -> None:
        graph = {"layers": list(self.layers.values()), "output_layers": [[self.output, 0, 0]]}
        with h5py.File(file, "w") as h5:
            h5.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": graph})
            h5.attrs["keras_version"] = np.bytes_("2.4.0")
            for layer, weights in self.weights.items():
                group = h5.create_group(f"model_weights/{layer}")
                group.attrs["weight_names"] = np.array([f"{layer}/{n}:0" for n in weights], dtype="S")
                for name, array in weights.items():
                    group[f"{layer}/{name}:0"] = array


def write(file: Path, change: Callable[[Builder], None] | None = None) -> Builder:
    """A model file, changed before it is written."""
    builder = Builder()
    if change is not None:
        change(builder)
    builder.write(file)
    return builder
