"""Train the default bundle's segmenter: a small plain U-Net in nnU-Net v2's terms, on cached crops.

One process, or several that share each step's batch and average their gradients: the draws are the same.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch import Tensor, nn
from torch.nn import functional

from phantom_crops import Crop

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]

CROP = (64, 160, 160)
ARCHITECTURE: dict[str, Any] = {
    "n_stages": 5,
    "features_per_stage": [8, 16, 48, 96, 160],
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
SPACING = (3.0, 1.0, 1.0)
CLASSES = 3
NODE = 2
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
    batch : patches of a step.
    patch : voxels of a training patch.
    whole_from : share of the steps after which whole crops take the place of patches, so that instance
        normalisation sees what it will see.
    learning_rate : at the start; falls as a half cosine.
    hard_share : share of the patches that lie about a place that fooled the network, where such are known.
    """

    steps: int = 7000
    batch: int = 2
    patch: tuple[int, int, int] = (48, 96, 96)
    whole_from: float = 0.93
    learning_rate: float = 2e-3
    hard_share: float = 0.25


@dataclass(frozen=True, eq=False)
class Lesson:
    """Crops of one kind.

    Parameters
    ----------
    crops : image and labels are used.
    share : of the patches.
    hard : (crop, z, y, x) of places that were called a node and are none (`hard_places`).
    """

    crops: Sequence[Crop]
    share: float = 1.0
    hard: tuple[tuple[int, int, int, int], ...] = ()


@dataclass(frozen=True)
class Peer:
    """One of several processes that train together; `torch.distributed` must be up where count is above 1."""

    rank: int = 0
    count: int = 1


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
    lessons: Sequence[Lesson], schedule: Schedule, seed: int, steps: range, peer: Peer = Peer()
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Step number, images (n, 1, z, y, x) and labels (n, z, y, x); each draw depends on step and place alone.

    Parameters
    ----------
    peer : gets its part of each batch; None may be left over.
    """
    for step in steps:
        whole = step >= schedule.whole_from * schedule.steps
        drawn = [
            _example(lessons, schedule, np.random.default_rng((seed, step, k)), whole=whole)
            for k in range(peer.rank, schedule.batch, peer.count)
        ]
        yield (
            step,
            torch.from_numpy(np.stack([image for image, _ in drawn])[:, None]),
            torch.from_numpy(np.stack([labels for _, labels in drawn])).long(),
        )


def _example(
    lessons: Sequence[Lesson], schedule: Schedule, rng: np.random.Generator, *, whole: bool
) -> tuple[Floats, Labels]:
    shares = np.array([lesson.share for lesson in lessons])
    lesson = lessons[int(rng.choice(len(lessons), p=shares / shares.sum()))]
    if lesson.hard and rng.random() < schedule.hard_share:
        number, *middle = lesson.hard[int(rng.integers(len(lesson.hard)))]
        crop, about = lesson.crops[number], np.array(middle)
    else:
        crop = lesson.crops[int(rng.integers(len(lesson.crops)))]
        about = _some_node(crop.labels, rng) if rng.random() < 0.5 else None
    size = CROP if whole else schedule.patch
    start = _start(crop.labels.shape, size, about, rng)
    image, labels = _cut(crop, start, size, rng)
    image = augmented(image, rng)
    if rng.random() < 0.5:
        image, labels = image[:, :, ::-1], labels[:, :, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(labels)


def _some_node(labels: Labels, rng: np.random.Generator) -> npt.NDArray[np.int64] | None:
    """A voxel of a node; None where there is none."""
    found = np.flatnonzero(labels == NODE)
    if not len(found):
        return None
    return np.array(np.unravel_index(found[int(rng.integers(len(found)))], labels.shape))


def _start(
    shape: tuple[int, ...],
    size: tuple[int, int, int],
    about: npt.NDArray[np.int64] | None,
    rng: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """First voxel of a patch that holds a place, or of any patch."""
    limit = np.array(shape) - size
    if about is None:
        return (rng.random(3) * (limit + 1)).astype(np.int64)
    return np.clip(about - (rng.random(3) * size).astype(np.int64), 0, limit)


def _cut(
    crop: Crop, start: npt.NDArray[np.int64], size: tuple[int, int, int], rng: np.random.Generator
) -> tuple[Floats, Labels]:
    """The patch; every other time turned by up to some ten degrees and scaled by up to a tenth."""
    if rng.random() < 0.5:
        box = tuple(slice(int(s), int(s + n)) for s, n in zip(start, size, strict=True))
        return crop.image[box].astype(np.float32), crop.labels[box]
    turn = Rotation.from_euler("zyx", rng.normal(0, (6.0, 3.0, 3.0)), degrees=True).as_matrix()
    scale = np.exp(rng.uniform(-0.1, 0.1)) * np.exp(rng.uniform(-0.04, 0.04, size=3))
    spacing = np.array(SPACING)
    matrix = turn * scale * spacing / spacing[:, None]
    centre = (np.array(size) - 1) / 2
    margin = (np.array(size) * 0.2).astype(int) + 4
    low = np.maximum(start - margin, 0)
    high = np.minimum(start + size + margin, crop.labels.shape)
    block = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    shift = start - low + centre - matrix @ centre
    image = ndimage.affine_transform(
        crop.image[block].astype(np.float32), matrix, shift, output_shape=size, order=1
    )
    labels = ndimage.affine_transform(crop.labels[block], matrix, shift, output_shape=size, order=0)
    return image, labels


def augmented(image: Floats, rng: np.random.Generator) -> Floats:
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


def _smoothed(image: Floats) -> Floats:
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
    lessons: Sequence[Lesson],
    schedule: Schedule,
    work: Path,
    seed: int,
    *,
    save_every: int = 100,
    until: int | None = None,
    peer: Peer = Peer(),
) -> list[float]:
    """Train, or go on where the last checkpoint stands; returns this peer's loss of each step of this call.

    The checkpoint holds network, optimiser and step; each step draws by its own number, so that a run that
    was cut off ends as one that was not (up to the rounding of the processor).

    Parameters
    ----------
    until : stop after this step, to go on later; None: at the schedule's end.
    """
    network = new_network(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=schedule.learning_rate, weight_decay=1e-2)
    state_file = work / "segmenter_state.pth"
    first = _restore(state_file, network, optimiser)
    losses: list[float] = []
    began = time.monotonic()
    network.train()
    last = min(schedule.steps, schedule.steps if until is None else until)
    for step, images, labels in examples(lessons, schedule, seed, range(first, last), peer):
        for group in optimiser.param_groups:
            group["lr"] = _rate(step, schedule)
        optimiser.zero_grad()
        losses.append(_learn(network, images, labels, step / schedule.steps, schedule.batch))
        _share_gradients(network, peer)
        norm = nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        if torch.isfinite(norm):  # a patch of nothing but air can overflow in the normalisation's gradient
            optimiser.step()
        if peer.rank == 0 and ((step + 1) % save_every == 0 or step + 1 == last):
            _save(state_file, network, optimiser, step + 1)
            each = (time.monotonic() - began) / len(losses)
            print(
                f"step {step + 1}: loss {np.mean(losses[-save_every:]):.3f}, {each:.2f} s a step", flush=True
            )
    return losses


def _learn(network: nn.Module, images: Tensor, labels: Tensor, done: float, batch: int) -> float:
    """Add the gradients of some examples, each by its share of the batch; returns their mean loss."""
    total = 0.0
    for image, label in zip(images, labels, strict=True):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(image[None].contiguous(memory_format=torch.channels_last_3d))
        loss = loss_of(logits.float(), label[None], done)
        (loss / batch).backward()
        total += float(loss.detach())
    return total / len(images)


def _share_gradients(network: nn.Module, peer: Peer) -> None:
    """Every peer has the sum of all peers' gradients."""
    if peer.count == 1:
        return
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    torch.distributed.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def train_together(
    lessons: Sequence[Lesson],
    schedule: Schedule,
    work: Path,
    seed: int,
    count: int,
    *,
    until: int | None = None,
) -> None:
    """Train in so many processes of one thread each; as `train`, which see."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{folder}/peers"
        arguments = (count, meeting, lessons, schedule, work, seed, until)
        torch.multiprocessing.start_processes(_train_as, arguments, nprocs=count, start_method="spawn")  # type: ignore[no-untyped-call]


def _train_as(
    rank: int,
    count: int,
    meeting: str,
    lessons: Sequence[Lesson],
    schedule: Schedule,
    work: Path,
    seed: int,
    until: int | None,
) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    train(lessons, schedule, work, seed, until=until, peer=Peer(rank, count))
    torch.distributed.destroy_process_group()


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
    (folder / "plans.json").write_text(json.dumps(plans(), indent=2) + "\n", encoding="utf-8")
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


def plans() -> dict[str, Any]:
    """The content of `plans.json`: all that nnU-Net v2's own predictor asks for.

    No intensities were measured, and none are needed without normalisation, but the predictor wants the key.
    """
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": "Dataset501_ENE",
        "plans_name": "nnUNetPlans",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "experiment_planner_used": "ExperimentPlanner",
        "original_median_spacing_after_transp": [3.0, 1.0, 1.0],
        "original_median_shape_after_transp": list(CROP),
        "foreground_intensity_properties_per_channel": {"0": {}},
        "configurations": {
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "patch_size": list(CROP),
                "median_image_size_in_voxels": list(CROP),
                "spacing": [3.0, 1.0, 1.0],
                "batch_size": 2,
                "batch_dice": False,
                "normalization_schemes": ["NoNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": resampling,
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
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
