"""A trained model of nnU-Net v1: its files read safely, its network as plain functions."""

from __future__ import annotations

import collections
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch.nn import functional as F

from aiene.errors import ModelError
from aiene.segment.network import CHECKPOINT_REMEDY as REMEDY
from aiene.segment.network import NUMPY_GLOBALS, read_checkpoint, tensors_of

# Reading the pickles of strangers (nnU-Net v1's plans) without running what they ask for.


_ALLOWED: dict[str, Any] = {"collections.OrderedDict": collections.OrderedDict, **NUMPY_GLOBALS}
_LARGEST_BYTES = 512 * 1024**2


class _Forbidden(pickle.UnpicklingError):
    """The pickle names something that is not on the list."""


class _Restricted(pickle.Unpickler):
    """Knows ordered dictionaries and numpy arrays and scalars; looks nothing else up."""

    def find_class(self, module: str, name: str) -> Any:
        """The object of that name, if it is on the list; the module is never imported."""
        full = f"{module}.{name}"
        if full not in _ALLOWED:
            raise _Forbidden(full)
        return _ALLOWED[full]


def read_pickle(file: Path) -> Any:
    """The content of a pickle that holds plain values, ordered dictionaries and numpy arrays or scalars.

    Raises
    ------
    ModelError : not readable, damaged, or it names anything else: nothing of that is looked up or run.
    """
    try:
        if file.stat().st_size > _LARGEST_BYTES:
            raise ModelError(file, "is too large for a file of plans", REMEDY)
        with file.open("rb") as stream:
            return _load(stream)
    except OSError as error:
        raise ModelError(file, "cannot be read", "name a complete nnU-Net model folder") from error
    except _Forbidden as error:
        problem = f"asks for {error}, which no plan needs, and was not opened"
        raise ModelError(file, problem, REMEDY) from error
    except _DAMAGED as error:
        raise ModelError(file, "is not a pickle, or is damaged", REMEDY) from error


_DAMAGED = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


def _load(stream: IO[bytes]) -> Any:
    return _Restricted(stream).load()


def plain(value: Any) -> Any:
    """The same content as JSON types: arrays and tuples as lists, numpy scalars as numbers, keys as text."""
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    return value


CHECKPOINT = "model_final_checkpoint.model"
V1_REMEDY = "download the model again, or train it with nnU-Net v1's standard trainer"

Tensors = Mapping[str, torch.Tensor]
Sizes = tuple[tuple[int, int, int], ...]

_TRAINERS = re.compile(
    r"nnUNetTrainerV2(_DP|_DDP|_fp32|_fast|_noMirroring|_noDataAugmentation|_insaneDA|_DA[235]?|_fullEvals"
    r"|_epochs_?\d+|_Loss_\w+|_Adam\w*|_SGD\w*|_momentum\w+|_warmup)*"
)
"""Trainers of nnunet 1.7 that leave the network and its activation as they are."""

_SLOPE = 0.01
_EPSILON = 1e-5


@dataclass(frozen=True)
class V1Plan:
    """What a v1 model's plans decide about inference. Axes are (z, y, x) after the transposition.

    Parameters
    ----------
    trainer : name of its class.
    configuration : v2's name for the stage.
    patch, spacing : voxels and mm.
    strides : from each level to the next.
    kernels : of each level, one more than `strides`.
    base_features, convs_per_level, modalities, classes : classes without background.
    scheme : `CT`, `noNorm`, or any other for the z-score.
    intensities : of the training foreground, by v1's names; empty where there are none.
    forward, backward : transposition of the axes.
    export : order, order along z and separate treatment of z for the way back.
    content : the whole of `plans` as JSON types.
    """

    trainer: str
    configuration: str
    patch: tuple[int, int, int]
    spacing: tuple[float, float, float]
    strides: Sizes
    kernels: Sizes
    base_features: int
    convs_per_level: int
    modalities: int
    classes: int
    scheme: str
    intensities: dict[str, Any]
    forward: tuple[int, int, int]
    backward: tuple[int, int, int]
    export: dict[str, Any]
    content: dict[str, Any]
    batch_dice: bool


def read_plan(file: Path) -> V1Plan:
    """The plan inside `model_final_checkpoint.model.pkl`: the one that v1 itself goes by.

    Raises
    ------
    ModelError : the file cannot be read or is no such file, or the model is one that cannot be brought over.
    """
    info = plain(read_pickle(file))
    try:
        plan = _plan_of(info)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ModelError(file, f"is not what nnU-Net v1 leaves ({error!r:.80})", V1_REMEDY) from error
    _refuse_what_cannot_come_over(file, plan, info["plans"])
    return plan


def read_modalities(file: Path) -> int:
    """Number of input channels in `plans.pkl`, all that v1 takes from that file."""
    content = plain(read_pickle(file))
    count = content.get("num_modalities") if isinstance(content, dict) else None
    if not isinstance(count, int):
        raise ModelError(file, "does not say how many modalities the model takes", V1_REMEDY)
    return count


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """The network's weights in a v1 checkpoint, float32."""
    return tensors_of(file, read_checkpoint(file).get("state_dict"))


def forward(tensors: Tensors, plan: V1Plan, image: torch.Tensor) -> torch.Tensor:
    """nnU-Net v1's network straight from its state dict: logits (1, classes, z, y, x).

    Nothing but functions of torch and the names of v1, so that it can bear witness for a network that was
    brought over. `image` is (1, modalities, z, y, x), divisible by all strides.
    """
    skips = []
    levels = len(plan.strides)
    for level in range(levels + 1):
        parts = [f"{level}.0", f"{level}.1"] if level == levels else [f"{level}"]
        stride: tuple[int, ...] = plan.strides[level - 1] if level else (1, 1, 1)
        for name in (n for part in parts for n in _blocks(tensors, f"conv_blocks_context.{part}")):
            image = _block(tensors, name, image, stride)
            stride = (1, 1, 1)
        skips.append(image)
    for step in range(levels):
        up = plan.strides[-(step + 1)]
        image = F.conv_transpose3d(image, tensors[f"tu.{step}.weight"], None, up)
        image = torch.cat((image, skips[-(step + 2)]), 1)
        for part in (0, 1):
            for name in _blocks(tensors, f"conv_blocks_localization.{step}.{part}"):
                image = _block(tensors, name, image, (1, 1, 1))
    last = f"seg_outputs.{levels - 1}"
    return F.conv3d(image, tensors[f"{last}.weight"], tensors.get(f"{last}.bias"))


def _blocks(tensors: Tensors, part: str) -> list[str]:
    names: list[str] = []
    while f"{part}.blocks.{len(names)}.conv.weight" in tensors:
        names.append(f"{part}.blocks.{len(names)}")
    return names


def _block(tensors: Tensors, name: str, image: torch.Tensor, stride: tuple[int, ...]) -> torch.Tensor:
    weight = tensors[f"{name}.conv.weight"]
    edges = [size // 2 for size in weight.shape[2:]]
    image = F.conv3d(image, weight, tensors[f"{name}.conv.bias"], stride, edges)
    scale, shift = tensors[f"{name}.instnorm.weight"], tensors[f"{name}.instnorm.bias"]
    return F.leaky_relu(F.instance_norm(image, weight=scale, bias=shift, eps=_EPSILON), _SLOPE)


def _plan_of(info: dict[str, Any]) -> V1Plan:
    plans = info["plans"]
    stages = plans["plans_per_stage"]
    chosen = info["init"][5]
    number = str(chosen if chosen is not None else sorted(stages)[0])
    stage = stages[number]
    pools = [int(n) for n in stage["num_pool_per_axis"]]
    kernels = stage.get("conv_kernel_sizes") or [[3, 3, 3]] * (max(pools) + 1)
    return V1Plan(
        trainer=str(info["name"]),
        configuration="3d_fullres" if int(number) == max(map(int, stages)) else "3d_lowres",
        patch=_three(stage["patch_size"]),
        spacing=_millimetres(stage["current_spacing"]),
        strides=tuple(_three(s) for s in stage.get("pool_op_kernel_sizes") or _strides(pools)),
        kernels=tuple(_three(k) for k in kernels),
        base_features=int(plans["base_num_features"]),
        convs_per_level=int(plans.get("conv_per_stage", 2)),
        modalities=int(plans["num_modalities"]),
        classes=int(plans["num_classes"]),
        scheme=str(plans["normalization_schemes"]["0"]),
        intensities=(plans["dataset_properties"].get("intensityproperties") or {}).get("0", {}),
        forward=_three(plans.get("transpose_forward") or [0, 1, 2]),
        backward=_three(plans.get("transpose_backward") or [0, 1, 2]),
        export=plans.get("segmentation_export_params") or {},
        content=plans,
        batch_dice=bool(info["init"][4]),
    )


def _strides(pools: list[int]) -> list[list[int]]:
    """Strides of plans from before they were written down."""
    deepest = max(pools)
    return [[2 if deepest - n <= level else 1 for n in pools] for level in range(deepest)]


def _three(values: Any) -> tuple[int, int, int]:
    a, b, c = (int(v) for v in values)
    return a, b, c


def _millimetres(values: Any) -> tuple[float, float, float]:
    a, b, c = (float(v) for v in values)
    return a, b, c


def _refuse_what_cannot_come_over(file: Path, plan: V1Plan, plans: dict[str, Any]) -> None:
    problem = None
    if not _TRAINERS.fullmatch(plan.trainer):
        problem = f"its trainer {plan.trainer} may build another network than nnUNetTrainerV2"
    elif plan.modalities != 1:
        problem = f"the model takes {plan.modalities} images at a time, not one CT"
    elif plan.scheme == "CT2" or any((plans.get("use_mask_for_norm") or {}).values()):
        problem = "it normalises in a way that cannot be brought over"
    elif [int(c) for c in plans["all_classes"]] != list(range(1, plan.classes + 1)):
        problem = "its classes are regions or do not count up from 1"
    elif plans.get("keep_only_largest_region"):
        problem = "it keeps only the largest region of a class, which cannot be brought over"
    elif len(plan.kernels) != len(plan.strides) + 1 or not plan.strides:
        problem = "its lists of kernels and strides do not fit together"
    elif any(size not in (1, 3) for kernel in plan.kernels for size in kernel):
        problem = "it has kernels other than 1 and 3"
    if problem:
        raise ModelError(file, problem, V1_REMEDY)
