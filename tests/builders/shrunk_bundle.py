"""The default bundle with a network that trains in a moment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet

from aiene.models.bundle import default_folder, write_card
from aiene.segment.plans import read_plan

PATCH = (32, 64, 64)


def shrunk_bundle(folder: Path, patch: tuple[int, int, int] = PATCH) -> PlainConvUNet:
    """Write the bundle `tiny`, whose card names an organ as one with organs would; its untrained network."""
    shutil.copytree(default_folder(), folder)
    plans_file = folder / "segmenter" / "plans.json"
    plans = json.loads(plans_file.read_text())
    chosen = plans["configurations"]["3d_fullres"]
    chosen["patch_size"] = list(patch)
    chosen["architecture"]["arch_kwargs"].update(
        n_stages=3,
        features_per_stage=[4, 4, 4],
        kernel_sizes=[[1, 1, 1], [3, 3, 3], [3, 3, 3]],  # most of the time goes into the finest stage
        strides=[[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        n_conv_per_stage=[1, 1, 1],
        n_conv_per_stage_decoder=[1, 1],
    )
    plans_file.write_text(json.dumps(plans))
    dataset_file = folder / "segmenter" / "dataset.json"
    tumour = {"labels": {"background": 0, "GTVp": 1, "GTVn": 2}}
    dataset_file.write_text(json.dumps({**json.loads(dataset_file.read_text()), **tumour}))
    arguments = dict(read_plan(folder / "segmenter", "3d_fullres").architecture.arch_kwargs)
    arguments.update(conv_op=torch.nn.Conv3d, norm_op=torch.nn.InstanceNorm3d, nonlin=torch.nn.LeakyReLU)
    torch.manual_seed(0)
    net = PlainConvUNet(input_channels=1, num_classes=3, deep_supervision=False, **arguments)
    pack(folder, net)
    return net


def pack(folder: Path, net: PlainConvUNet) -> None:
    """Put a network's weights into the bundle, and write its card anew."""
    file = folder / "segmenter" / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=True)
    torch.save({**content, "network_weights": net.state_dict()}, file)
    card = json.loads((folder / "model.json").read_text())
    card.pop("files")
    card["segmenter"] |= {"auxiliary": {"larynx": 7}, "mirroring": False, "cores": {}, "operating_points": {}}
    write_card(folder, {**card, "name": "tiny"})
