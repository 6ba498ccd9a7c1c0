"""A v1 network in nnU-Net v2's trained-model layout: weights by name, kernels widened, files written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from aiene.errors import ModelError
from aiene.models.importers.nnunet_v1 import V1_REMEDY as REMEDY
from aiene.models.importers.nnunet_v1 import Tensors, V1Plan
from aiene.segment.network import empty_network
from aiene.segment.plans import NNUNET_V1, ORIGIN_KEY, Plan

TRAINER = "nnUNetTrainer"
CHECKPOINT = "checkpoint_final.pth"
_MOST_FEATURES = 320
_SCHEMES = {"CT": "CTNormalization", "noNorm": "NoNormalization"}
_RESIZER = "resample_data_or_seg_to_shape"


def plans_json(plan: V1Plan) -> dict[str, Any]:
    """v2's `plans.json` for a v1 plan."""
    stage = {
        "data_identifier": f"nnUNetPlans_{plan.configuration}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(plan.patch),
        "median_image_size_in_voxels": list(map(float, plan.patch)),
        "spacing": list(plan.spacing),
        "normalization_schemes": [_SCHEMES.get(plan.scheme, "ZScoreNormalization")],
        "use_mask_for_norm": [False],
        **_resampling(plan),
        "batch_dice": plan.batch_dice,
        "architecture": _architecture(plan),
    }
    return {
        "dataset_name": "Dataset501_ENE",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": list(plan.spacing),
        "original_median_shape_after_transp": list(plan.patch),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(plan.forward),
        "transpose_backward": list(plan.backward),
        "configurations": {plan.configuration: stage},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
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
        raise ModelError(file, f"has weights that no part of the network takes: {_some(strangers)}", REMEDY)
    absent = sorted(new for new in expected if new not in renamed and not _v1_lacks(new))
    if absent:
        raise ModelError(file, f"lacks the weights for {_some(absent)}", REMEDY)
    filled = {
        new: _centred(file, new, tensors[renamed[new]], shape) if new in renamed else torch.zeros(shape)
        for new, shape in expected.items()
    }
    return _with_aliases(network, filled)


def write_layout(target: Path, plans: Mapping[str, Any], dataset: Mapping[str, Any]) -> None:
    """Write `plans.json` and `dataset.json` into a folder."""
    for name, content in (("plans.json", plans), ("dataset.json", dataset)):
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (target / name).write_text(text + "\n", encoding="utf-8")


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
    torch.save(content, folder / CHECKPOINT)


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
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [*kernels, list(plan.kernels[-1])],
            "strides": [[1, 1, 1], *map(list, plan.strides)],
            "n_conv_per_stage": [plan.convs_per_level] * levels,
            "n_conv_per_stage_decoder": [plan.convs_per_level] * (levels - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _resampling(plan: V1Plan) -> dict[str, Any]:
    back = {
        "is_seg": False,
        "order": plan.export.get("interpolation_order", 1),
        "order_z": plan.export.get("interpolation_order_z", 0),
        "force_separate_z": plan.export.get("force_separate_z"),
    }
    image = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    labels = {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None}
    kinds = {"data": image, "seg": labels, "probabilities": back}
    named = {f"resampling_fn_{kind}": _RESIZER for kind in kinds}
    return named | {f"resampling_fn_{kind}_kwargs": how for kind, how in kinds.items()}


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


def _v1_lacks(name: str) -> bool:
    return re.fullmatch(r"decoder\.(transpconvs|seg_layers)\.\d+\.bias", name) is not None


def _centred(file: Path, name: str, weight: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """A weight in the middle of a kernel that is as large or larger."""
    spare = [new - old for new, old in zip(shape, weight.shape, strict=False)]
    fits = len(shape) == weight.ndim and not any(spare[:2]) and all(n >= 0 and n % 2 == 0 for n in spare[2:])
    if not fits:
        problem = f"has a weight of shape {tuple(weight.shape)} where {name} takes {shape}"
        raise ModelError(file, problem, REMEDY)
    edges = [edge for n in reversed(spare[2:]) for edge in (n // 2, n // 2)]
    return F.pad(weight, edges) if any(edges) else weight


def _with_aliases(network: torch.nn.Module, filled: Tensors) -> dict[str, torch.Tensor]:
    """All names of the state dict: several of them stand for one weight."""
    first = {id(weight): name for name, weight in network.named_parameters()}
    every = network.named_parameters(remove_duplicate=False)
    return {name: filled[first[id(weight)]] for name, weight in every}


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
