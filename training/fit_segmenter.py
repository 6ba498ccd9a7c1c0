"""Train the default bundle's segmenter: a small plain U-Net in nnU-Net v2's terms, on cached crops."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import Tensor, nn
from torch.nn import functional

from phantom_crops import Crop

CROP = (64, 160, 160)
ARCHITECTURE: dict[str, Any] = {
    "n_stages": 5,
    "features_per_stage": [8, 16, 32, 64, 96],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
    "n_conv_per_stage": [2, 2, 2, 2, 2],
    "n_conv_per_stage_decoder": [1, 1, 1, 1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
CLASSES = 3
IGNORE = 255
"""Label of voxels that neither teach nor count."""
LEAST_RATE = 0.05
"""The learning rate never falls below this share of its start, so that whole crops still teach."""
CLASS_WEIGHTS = (1.0, 3.0, 5.0)
"""Of background, GTVp and GTVn in the cross entropy at first: lesions are thousandths of the voxels."""


@dataclass(frozen=True)
class Schedule:
    """How long and on what the segmenter is trained.

    Parameters
    ----------
    steps : gradient steps in all.
    patch : voxels of a training patch.
    whole_from : share of the steps after which whole crops take the place of patches, so that instance
        normalisation sees what it will see.
    learning_rate : at the start; falls as a half cosine.
    """

    steps: int = 4420
    patch: tuple[int, int, int] = (48, 96, 96)
    whole_from: float = 0.948
    learning_rate: float = 2e-3


def new_network(seed: int) -> PlainConvUNet:
    """The untrained network."""
    torch.manual_seed(seed)
    kinds = {
        "conv_op": nn.Conv3d,
        "norm_op": nn.InstanceNorm3d,
        "nonlin": nn.LeakyReLU,
    }
    arguments = {**ARCHITECTURE, **kinds}
    network = PlainConvUNet(input_channels=1, num_classes=CLASSES, deep_supervision=False, **arguments)
    network.apply(network.initialize)
    return network.to(memory_format=torch.channels_last_3d)


def examples(
    crops: list[Crop], schedule: Schedule, seed: int, steps: range
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Step number, image (1, 1, z, y, x) and labels (1, z, y, x); each step's draw depends on it alone."""
    for step in steps:
        rng = np.random.default_rng((seed, step))
        crop = crops[int(rng.integers(len(crops)))]
        whole = step >= schedule.whole_from * schedule.steps
        box = tuple(slice(0, n) for n in CROP) if whole else _patch(crop.labels, schedule.patch, rng)
        image = augmented(crop.image[box].astype(np.float32), rng)
        labels = crop.labels[box]
        if rng.random() < 0.5:
            image, labels = image[:, :, ::-1], labels[:, :, ::-1]
        yield (
            step,
            torch.from_numpy(np.ascontiguousarray(image))[None, None],
            torch.from_numpy(np.ascontiguousarray(labels)).long()[None],
        )


def _patch(
    labels: npt.NDArray[np.uint8], size: tuple[int, int, int], rng: np.random.Generator
) -> tuple[slice, ...]:
    """A patch that holds a voxel of a node every other time."""
    limit = np.array(labels.shape) - size
    found = np.argwhere(labels == 2) if rng.random() < 0.5 else np.empty((0, 3))
    if len(found):
        middle = found[int(rng.integers(len(found)))]
        start = middle - (rng.random(3) * size).astype(int)
    else:
        start = (rng.random(3) * (limit + 1)).astype(int)
    start = np.clip(start, 0, limit)
    return tuple(slice(int(s), int(s + n)) for s, n in zip(start, size, strict=True))


def augmented(image: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Another contrast, brightness, gamma, noise and sharpness; still in [0, 1]."""
    if rng.random() < 0.5:
        image = (image - 0.5) * np.float32(rng.uniform(0.85, 1.15)) + np.float32(0.5 + rng.normal(0, 0.03))
    if rng.random() < 0.3:
        image = np.clip(image, 0, 1) ** np.float32(rng.uniform(0.75, 1.35))
    if rng.random() < 0.25:
        share = np.float32(rng.uniform(0.2, 0.5))
        image = image * (1 - share) + share * _smoothed(image)
    if rng.random() < 0.4:
        image = image + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(0, 0.05))
    return np.clip(image, 0, 1).astype(np.float32)


def _smoothed(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Mean of each voxel and its four neighbours in plane."""
    total = image.copy()
    for axis, step in ((1, 1), (1, -1), (2, 1), (2, -1)):
        total += np.roll(image, step, axis)
    return total / np.float32(5)


def loss_of(logits: Tensor, labels: Tensor, done: float = 0.0) -> Tensor:
    """Soft Dice of both labels, the nodes first, plus weighted cross entropy.

    Parameters
    ----------
    logits : (n, classes, z, y, x).
    labels : (n, z, y, x); `IGNORE` where nobody knows.
    done : share of the training behind; the weights of rare classes fade out, since they cost false nodes.
    """
    known = (labels != IGNORE)[:, None].float()
    target = functional.one_hot(labels * (labels != IGNORE), CLASSES).movedim(-1, 1).float() * known
    probability = torch.softmax(logits, 1) * known
    axes = (0, 2, 3, 4)
    both = (probability * target).sum(axes)[1:]
    size = (probability.sum(axes) + target.sum(axes))[1:]
    present = target.sum(axes)[1:] > 0
    dice = (2 * both + 1) / (size + 1)
    weight = torch.where(present, torch.tensor([0.5, 1.0]), 0.05)
    rare = torch.tensor(CLASS_WEIGHTS) ** (1 - done)
    return (
        functional.cross_entropy(logits, labels, weight=rare, ignore_index=IGNORE)
        + ((1 - dice) * weight).sum() / 1.5
    )


def train(
    crops: list[Crop],
    schedule: Schedule,
    work: Path,
    seed: int,
    *,
    save_every: int = 50,
    until: int | None = None,
    start: dict[str, Tensor] | None = None,
) -> list[float]:
    """Train, or go on where the last checkpoint stands; returns the loss of each step of this call.

    The checkpoint holds network, optimiser and step; each step draws by its own number, so that a run that
    was cut off ends as one that was not (up to the rounding of the processor).

    Parameters
    ----------
    until : stop after this step, to go on later; None: at the schedule's end.
    start : weights to begin with; None: random ones.
    """
    network = new_network(seed)
    if start is not None:
        network.load_state_dict(start)
    optimiser = torch.optim.AdamW(network.parameters(), lr=schedule.learning_rate, weight_decay=1e-2)
    state_file = work / "segmenter_state.pth"
    first = _restore(state_file, network, optimiser)
    losses: list[float] = []
    began = time.monotonic()
    network.train()
    last = min(schedule.steps, schedule.steps if until is None else until)
    for step, image, labels in examples(crops, schedule, seed, range(first, last)):
        for group in optimiser.param_groups:
            group["lr"] = _rate(step, schedule)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(image.contiguous(memory_format=torch.channels_last_3d))
        loss = loss_of(logits.float(), labels, step / schedule.steps)
        optimiser.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        if torch.isfinite(norm):  # a patch of nothing but air can overflow in the normalisation's gradient
            optimiser.step()
        losses.append(float(loss.detach()))
        if (step + 1) % save_every == 0 or step + 1 == last:
            _save(state_file, network, optimiser, step + 1)
            each = (time.monotonic() - began) / len(losses)
            print(
                f"step {step + 1}: loss {np.mean(losses[-save_every:]):.3f}, {each:.2f} s a step", flush=True
            )
    return losses


def _rate(step: int, schedule: Schedule) -> float:
    warm = min(1.0, (step + 1) / max(1.0, schedule.steps / 60))
    fallen = max(0.5 * (1 + math.cos(math.pi * step / schedule.steps)), LEAST_RATE)
    return schedule.learning_rate * warm * fallen


def _restore(file: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    if not file.exists():
        return 0
    state = torch.load(file, weights_only=True)
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


def _save(file: Path, network: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> None:
    partial = file.with_suffix(".part")
    torch.save({"network": network.state_dict(), "optimiser": optimiser.state_dict(), "step": step}, partial)
    partial.rename(file)


def write_nnunet_folder(work: Path, folder: Path, *, half: bool, node_offset: float = 0.0) -> None:
    """The trained network in nnU-Net v2's trained-model layout.

    Parameters
    ----------
    work : holds `segmenter_state.pth`.
    folder : gets plans.json, dataset.json and fold_0/checkpoint_final.pth.
    half : store the weights as float16.
    node_offset : taken off the nodes' logit (`operating_point`).
    """
    network = torch.load(work / "segmenter_state.pth", weights_only=True)["network"]
    last = max(name for name in network if name.startswith("decoder.seg_layers.") and name.endswith(".bias"))
    network[last][2] -= node_offset
    weights = _stored(network, half=half)
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    torch.save(
        {
            "network_weights": weights,
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": "3d_fullres", "fold": 0},
            "inference_allowed_mirroring_axes": [2],
        },
        folder / "fold_0" / "checkpoint_final.pth",
    )
    (folder / "plans.json").write_text(json.dumps(_plans(), indent=2) + "\n", encoding="utf-8")
    dataset = {
        "channel_names": {"0": "CT scaled to [0, 1]"},
        "labels": {"background": 0, "GTVp": 1, "GTVn": 2},
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(dataset, indent=2) + "\n", encoding="utf-8")


def _stored(network: dict[str, Tensor], *, half: bool) -> dict[str, Tensor]:
    """The weights to write; layers that have several names are written once."""
    written: dict[int, Tensor] = {}
    for tensor in network.values():
        if tensor.data_ptr() not in written:
            written[tensor.data_ptr()] = (tensor.half() if half else tensor).contiguous()
    return {name: written[tensor.data_ptr()] for name, tensor in network.items()}


def _plans() -> dict[str, Any]:
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": "Dataset501_ENE",
        "plans_name": "nnUNetPlans",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "configurations": {
            "3d_fullres": {
                "patch_size": list(CROP),
                "spacing": [3.0, 1.0, 1.0],
                "batch_size": 2,
                "normalization_schemes": ["NoNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": resampling,
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                    "arch_kwargs": ARCHITECTURE,
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
            }
        },
    }
