"""Small trained-model folders in nnU-Net v2's layout, with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

HOME = "dynamic_network_architectures.architectures.unet"
PATCH = (16, 32, 32)
ARGUMENTS: dict[str, Any] = {
    "n_stages": 3,
    "features_per_stage": [4, 8, 16],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "n_conv_per_stage_decoder": [2, 2],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}


def network_of(kind: str, seed: int, classes: int = 3) -> nn.Module:
    """A network with random weights, built by its own class without our code."""
    torch.manual_seed(seed)
    parts = {"conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d, "nonlin": nn.LeakyReLU}
    depth = {"n_conv_per_stage" if kind == "PlainConvUNet" else "n_blocks_per_stage": [2, 2, 2]}
    network_class = PlainConvUNet if kind == "PlainConvUNet" else ResidualEncoderUNet
    network = network_class(1, num_classes=classes, **{**ARGUMENTS, **parts, **depth})
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.5)
    return network.eval()


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., tuple[Path, list[nn.Module]]]:
    """Builder of a model folder; gives it and its networks, one per seed (fold)."""

    def make(
        kind: str = "PlainConvUNet",
        seeds: tuple[int, ...] = (0,),
        *,
        folder: str = "model",
        configuration: dict[str, Any] | None = None,
        arguments: dict[str, Any] | None = None,
        plans: dict[str, Any] | None = None,
        dataset: dict[str, Any] | None = None,
        checkpoint: dict[str, Any] | None = None,
        classes: int = 3,
        name: str = "checkpoint_final.pth",
        change: Callable[[nn.Module], object] | None = None,
    ) -> tuple[Path, list[nn.Module]]:
        home = tmp_path / folder
        home.mkdir(parents=True)
        depth = {"n_conv_per_stage" if kind == "PlainConvUNet" else "n_blocks_per_stage": [2, 2, 2]}
        stage = {
            "patch_size": list(PATCH),
            "spacing": [3.0, 1.0, 1.0],
            "normalization_schemes": ["CTNormalization"],
            "use_mask_for_norm": [False],
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": {"order": 3, "order_z": 0, "force_separate_z": None},
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": {"order": 1, "order_z": 0, "force_separate_z": None},
            "architecture": {
                "network_class_name": f"{HOME}.{kind}",
                "arch_kwargs": {**ARGUMENTS, **depth, **(arguments or {})},
            },
            **(configuration or {}),
        }
        content = {
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "configurations": {"3d_fullres": stage},
            "foreground_intensity_properties_per_channel": {
                "0": {"mean": 0.6, "std": 0.2, "percentile_00_5": 0.05, "percentile_99_5": 0.95}
            },
            **(plans or {}),
        }
        described = {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, "GTVp": 1, "GTVn": 2},
            **(dataset or {}),
        }
        (home / "plans.json").write_text(json.dumps(content))
        (home / "dataset.json").write_text(json.dumps(described))
        networks = []
        for fold, seed in enumerate(seeds):
            network = network_of(kind, seed, classes)
            if change is not None:
                change(network)
            saved = {
                "network_weights": network.state_dict(),
                "trainer_name": "nnUNetTrainer",
                "init_args": {"configuration": "3d_fullres"},
                "inference_allowed_mirroring_axes": (0, 1, 2),
                **(checkpoint or {}),
            }
            (home / f"fold_{fold}").mkdir()
            torch.save(saved, home / f"fold_{fold}" / name)
            networks.append(network)
        return home, networks

    return make
