"""A trained model of nnU-Net v1, read safely, and written again in nnU-Net v2's trained-model layout.

Its network is plain functions; in the new layout weights have other names and kernels are widened.
"""

from __future__ import annotations

import collections
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from aiene.errors import ModelError
from aiene.geometry.grid import triple
from aiene.segment.network import CHECKPOINT_REMEDY as REMEDY
from aiene.segment.network import NUMPY_GLOBALS, empty_network, read_checkpoint, tensors_of
from aiene.segment.plans import CONVOLUTION, NNUNET_V1, ORIGIN_KEY, PLAIN_LAYERS, Plan

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
            return _Restricted(stream).load()
    except OSError as error:
        raise ModelError(file, "cannot be read", "name a complete nnU-Net model folder") from error
    except _Forbidden as error:
        problem = f"asks for {error}, which no plan needs, and was not opened"
        raise ModelError(file, problem, REMEDY) from error
    except _DAMAGED as error:
        raise ModelError(file, "is not a pickle, or is damaged", REMEDY) from error


_DAMAGED = (
    *(pickle.UnpicklingError, ArithmeticError, AttributeError, EOFError, LookupError, MemoryError),
    *(RecursionError, TypeError, ValueError),
)


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


V1_CHECKPOINT = "model_final_checkpoint.model"
V1_REMEDY = "download the model again, or train it with nnU-Net v1's standard trainer"

Tensors = Mapping[str, torch.Tensor]
Sizes = tuple[tuple[int, int, int], ...]

_TRAINERS = re.compile(
    r"nnUNetTrainerV2(_DP|_DDP|_fp32|_fast|_noMirroring|_noDataAugmentation|_insaneDA|_DA[235]?|_fullEvals"
    r"|_epochs_?\d+|_Loss_\w+|_Adam\w*|_SGD\w*|_momentum\w+|_warmup)*"
)
"""Trainers of nnunet 1.7 that leave the network and its activation as they are."""

_V1_LACKS = re.compile(r"decoder\.(transpconvs|seg_layers)\.\d+\.bias")
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
    deepest = max(pools)
    kernels = stage.get("conv_kernel_sizes") or [[3, 3, 3]] * (deepest + 1)
    strides = stage.get("pool_op_kernel_sizes")
    if not strides:  # of plans from before they were written down
        strides = [[2 if deepest - n <= level else 1 for n in pools] for level in range(deepest)]
    return V1Plan(
        trainer=str(info["name"]),
        configuration="3d_fullres" if int(number) == max(map(int, stages)) else "3d_lowres",
        patch=_three(stage["patch_size"]),
        spacing=triple(stage["current_spacing"]),
        strides=tuple(map(_three, strides)),
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


def _three(values: Any) -> tuple[int, int, int]:
    a, b, c = (int(v) for v in values)
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


TRAINER = "nnUNetTrainer"
V2_CHECKPOINT = "checkpoint_final.pth"
_MOST_FEATURES = 320
_SCHEMES = {"CT": "CTNormalization", "noNorm": "NoNormalization"}
_EXPORT = {
    "order": "interpolation_order",
    "order_z": "interpolation_order_z",
    "force_separate_z": "force_separate_z",
}
"""v2's words for how v1 brings its answer back."""


def plans_json(plan: V1Plan) -> dict[str, Any]:
    """v2's `plans.json` for a v1 plan: what is null in `v2_plans.json` is what the v1 plan says."""
    text = (resources.files("aiene.models.importers") / "v2_plans.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    stage = content["configurations"].pop("stage")
    back = {key: plan.export[name] for key, name in _EXPORT.items() if name in plan.export}
    stage["resampling_fn_probabilities_kwargs"] |= back
    stage |= {
        "data_identifier": f"nnUNetPlans_{plan.configuration}",
        "patch_size": list(plan.patch),
        "median_image_size_in_voxels": list(map(float, plan.patch)),
        "spacing": list(plan.spacing),
        "normalization_schemes": [_SCHEMES.get(plan.scheme, "ZScoreNormalization")],
        "batch_dice": plan.batch_dice,
        "architecture": _architecture(plan),
    }
    return content | {
        "original_median_spacing_after_transp": list(plan.spacing),
        "original_median_shape_after_transp": list(plan.patch),
        "transpose_forward": list(plan.forward),
        "transpose_backward": list(plan.backward),
        "configurations": {plan.configuration: stage},
        "foreground_intensity_properties_per_channel": {"0": _intensities(plan)},
        ORIGIN_KEY: NNUNET_V1,
    }


def dataset_json(plan: V1Plan, labels: Mapping[str, int]) -> dict[str, Any]:
    """v2's `dataset.json` for a v1 plan."""
    modality = plan.content.get("modalities", {}).get("0", plan.scheme)
    return {
        "channel_names": {"0": str(modality)},
        "labels": {"background": 0, **labels},
        "numTraining": len(plan.content.get("list_of_npz_files", [])),
        "file_ending": ".nii.gz",
    }


def brought_over(file: Path, tensors: Tensors, plan: V1Plan, target: Plan) -> dict[str, torch.Tensor]:
    """v2's `network_weights`: every v1 weight under its v2 name, centred in the (perhaps wider) kernel.

    Parameters
    ----------
    file : where the weights come from, for messages.
    tensors : v1's state dict.
    plan : v1's plan.
    target : the plan of the network that the weights go into.

    Raises
    ------
    ModelError : a weight of v1 that has no place, a place that stays empty, or a shape that does not fit.
    """
    network = empty_network(target)
    expected = {name: tuple(weight.shape) for name, weight in network.named_parameters()}
    renamed = {_v2_name(name, plan): name for name in tensors}
    strangers = sorted(old for new, old in renamed.items() if new not in expected)
    if strangers:
        raise ModelError(
            file, f"has weights that no part of the network takes: {_some(strangers)}", V1_REMEDY
        )
    absent = sorted(new for new in expected if new not in renamed and not _V1_LACKS.fullmatch(new))
    if absent:
        raise ModelError(file, f"lacks the weights for {_some(absent)}", V1_REMEDY)
    filled = {
        new: _centred(file, new, tensors[renamed[new]], shape) if new in renamed else torch.zeros(shape)
        for new, shape in expected.items()
    }
    # all names of the state dict: several of them stand for one weight
    first = {id(weight): name for name, weight in network.named_parameters()}
    every = network.named_parameters(remove_duplicate=False)
    return {name: filled[first[id(weight)]] for name, weight in every}


def write_checkpoint(
    folder: Path, weights: Tensors, plan: V1Plan, plans: Mapping[str, Any], dataset: Mapping[str, Any]
) -> None:
    """Write one fold's `checkpoint_final.pth` as nnU-Net v2 reads it."""
    folder.mkdir(parents=True)
    mirrored = [] if "noMirroring" in plan.trainer else [0, 1, 2]
    number = folder.name.removeprefix("fold_")
    fold: int | str = int(number) if number.isdecimal() else number
    content = {
        "network_weights": dict(weights),
        "trainer_name": TRAINER,
        "init_args": {
            "plans": dict(plans),
            "configuration": plan.configuration,
            "fold": fold,
            "dataset_json": dict(dataset),
        },
        "inference_allowed_mirroring_axes": mirrored,
        "current_epoch": 0,
    }
    torch.save(content, folder / V2_CHECKPOINT)


def _architecture(plan: V1Plan) -> dict[str, Any]:
    """PlainConvUNet, each level with the larger of its own and the next level's kernel.

    v1's decoder uses the kernel of the level it comes from, v2's that of the level it arrives at.
    """
    kernels = [list(map(max, own, after)) for own, after in zip(plan.kernels, plan.kernels[1:], strict=False)]
    levels = len(plan.kernels)
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": levels,
            "features_per_stage": [min(plan.base_features * 2**d, _MOST_FEATURES) for d in range(levels)],
            "conv_op": CONVOLUTION,
            "kernel_sizes": [*kernels, list(plan.kernels[-1])],
            "strides": [[1, 1, 1], *map(list, plan.strides)],
            "n_conv_per_stage": [plan.convs_per_level] * levels,
            "n_conv_per_stage_decoder": [plan.convs_per_level] * (levels - 1),
            **PLAIN_LAYERS,
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _intensities(plan: V1Plan) -> dict[str, float]:
    """Of the training foreground, under v2's names; zeros where a scheme needs none."""
    names = {
        "mean": "mean",
        "std": "sd",
        "median": "median",
        "min": "mn",
        "max": "mx",
        "percentile_00_5": "percentile_00_5",
        "percentile_99_5": "percentile_99_5",
    }
    return {new: float(plan.intensities.get(old, 0.0)) for new, old in names.items()}


def _v2_name(name: str, plan: V1Plan) -> str:
    levels, last = len(plan.strides), plan.convs_per_level - 1
    part = {"conv": "conv", "instnorm": "norm"}
    if found := re.fullmatch(
        r"conv_blocks_(context|localization)\.(\d+)\.(?:([01])\.)?blocks\.(\d+)\.(conv|instnorm)\.(\w+)", name
    ):
        side, level, half, block, kind, leaf = found.groups()
        home = f"encoder.stages.{level}.0" if side == "context" else f"decoder.stages.{level}"
        if (half is None) == (side == "localization" or int(level) == levels):
            return name  # a bottleneck or decoder step that is not in two halves: has no place
        number = last + int(block) if half == "1" else int(block)
        return f"{home}.convs.{number}.{part[kind]}.{leaf}"
    name = re.sub(r"^tu\.(\d+)\.", r"decoder.transpconvs.\1.", name)
    return re.sub(r"^seg_outputs\.(\d+)\.", r"decoder.seg_layers.\1.", name)


def _centred(file: Path, name: str, weight: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """A weight in the middle of a kernel that is as large or larger."""
    spare = [new - old for new, old in zip(shape, weight.shape, strict=False)]
    fits = len(shape) == weight.ndim and not any(spare[:2]) and all(n >= 0 and n % 2 == 0 for n in spare[2:])
    if not fits:
        problem = f"has a weight of shape {tuple(weight.shape)} where {name} takes {shape}"
        raise ModelError(file, problem, V1_REMEDY)
    edges = [edge for n in reversed(spare[2:]) for edge in (n // 2, n // 2)]
    return F.pad(weight, edges) if any(edges) else weight


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
