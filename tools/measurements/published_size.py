"""A bundle whose networks have the published size and random weights, for measuring time and memory."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from aiene.classify.classifier import save_classifier
from aiene.classify.dualnet import DualNet, DualNetWidths
from aiene.models.bundle import Bundle, write_card
from aiene.segment.plans import PLAIN_LAYERS

_FEATURES = [32, 64, 128, 256, 320, 320]
_STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]


def make_bundle(folder: Path, template: Path, profile: str = "published") -> Bundle:
    """Write the bundle: a U-Net as nnU-Net plans it for crops of 64 x 160 x 160, and the whole DualNet."""
    torch.manual_seed(0)
    segmenter = folder / "segmenter"
    (segmenter / "fold_0").mkdir(parents=True)
    arguments = {
        "n_stages": 6,
        "features_per_stage": _FEATURES,
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * 6,
        "strides": _STRIDES,
        "n_conv_per_stage": [2] * 6,
        "n_conv_per_stage_decoder": [2] * 5,
        **PLAIN_LAYERS,
    }
    configuration = {
        "patch_size": [64, 160, 160],
        "spacing": [3.0, 1.0, 1.0],
        "normalization_schemes": ["NoNormalization"],
        "use_mask_for_norm": [False],
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": arguments,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    plans = {"dataset_name": "Dataset501_ENE", "plans_name": "nnUNetPlans"}
    write = {
        "plans.json": {**plans, "configurations": {"3d_fullres": configuration}},
        "dataset.json": {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, "GTVp": 1, "GTVn": 2},
            "file_ending": ".nii.gz",
            "numTraining": 0,
        },
    }
    for name, content in write.items():
        (segmenter / name).write_text(json.dumps(content, indent=1))
    checkpoint = {
        "network_weights": _network(arguments).state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "3d_fullres", "fold": 0},
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(checkpoint, segmenter / "fold_0" / "checkpoint_final.pth")
    save_classifier(folder / "classifier", DualNet(DualNetWidths()))
    (folder / "template.nrrd").write_bytes(template.read_bytes())
    return write_card(
        folder,
        {
            "name": "published-size",
            "licence": "none",
            "intended_use": "Measuring time and memory.",
            "notice": "Random weights: the results mean nothing.",
            "profile": profile,
            "rescue_registration": False,
        },
    )


def _network(arguments: dict[str, object]) -> torch.nn.Module:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    classes = {
        "conv_op": torch.nn.Conv3d,
        "norm_op": torch.nn.InstanceNorm3d,
        "nonlin": torch.nn.LeakyReLU,
    }
    network: torch.nn.Module = PlainConvUNet(
        input_channels=1, num_classes=3, deep_supervision=False, **{**arguments, **classes}
    )
    return network
