"""Train the default bundle's segmenter: a small plain U-Net in nnU-Net v2's terms, on cached crops.

One process, or several that share each step's batch and average their gradients: the draws are the same.
Tumour and organs are classes of one network. An organ that a patient lacks an outline of may lie in what is
labelled background: there, and only there, the two are one class to the loss (the marginal loss of
G. Shi et al., Med. Image Anal. 70:101979, 2021).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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
from torch.multiprocessing.spawn import start_processes
from torch.nn import functional

from aiene.segment.engines import bfloat16_pays
from aiene.segment.network import read_checkpoint, tensors_of
from aiene.segment.plans import PLAIN_LAYERS
from tools.default_bundle.organs import CLASSES, IGNORE, NODE, PRIMARY
from tools.default_bundle.phantom_crops import Crop

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
    **PLAIN_LAYERS,
}
SPACING = (3.0, 1.0, 1.0)
TUMOUR = 3
"""Labels under this are background and tumour; those from it on are organs."""
LEAST_RATE = 0.05
"""The learning rate never falls below this share of its height, so that whole crops still teach."""
CLASS_WEIGHTS = (1.0, 3.0, 5.0)
"""Of background, GTVp and GTVn in the cross entropy at first: lesions are thousandths of the voxels. Organs
weigh as much as background."""
DICE_WEIGHTS = (0.5, 1.0)
"""Of GTVp and GTVn in the soft Dice: nodes first. Organs are many voxels: cross entropy alone will do."""
ABSENT_WEIGHT = 0.05
"""Of the soft Dice of a class that the patch does not hold."""
AVERAGED_SHARE = 0.2
"""The weights that are judged and packed are an exponential average over this share of the cooling, so that
little of what was learned at the full rate is left in it."""
CHECKPOINT_SECONDS = 300.0


@dataclass(frozen=True)
class Schedule:
    """How long and on what the segmenter is trained.

    The learning rate stays at its height and falls only at the end (cooling; A. Haegele et al., 2024,
    arXiv:2405.18392): how long a training lasts may be decided while it runs, and a longer one goes on from
    where an earlier one began to cool.

    Parameters
    ----------
    steps : gradient steps in all.
    cooling : the last so many of them: the rate falls linearly, and rare classes lose their weight.
    warm_up : first steps, in which the rate rises.
    batch : patches of a step.
    patch : voxels of a training patch.
    whole_share : share of the steps that learn from whole crops, so that instance normalisation sees what it
        will see.
    whole_from : share of the cooling after which all steps do.
    learning_rate : at its height.
    hard_share : share of the patches that lie about a place that fooled the network, where such are known.
    """

    steps: int = 75_000
    cooling: int = 15_000
    warm_up: int = 1250
    batch: int = 2
    patch: tuple[int, int, int] = (48, 96, 96)
    whole_share: float = 0.06
    whole_from: float = 0.85
    learning_rate: float = 1e-3
    hard_share: float = 0.4

    def cooled(self, step: int) -> float:
        """Share of the cooling that lies behind a step; 0 before it begins."""
        return min(max(0.0, (step - self.steps + self.cooling) / self.cooling), 1.0)


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
    """One of several processes that train together; `torch.distributed` must be up where count is above 1.

    Parameters
    ----------
    starter : process id of whoever started them; they end with it.
    """

    rank: int = 0
    count: int = 1
    starter: int | None = None


class OneImageNorm(nn.InstanceNorm3d):
    """Instance normalisation of one image: the same numbers without a copy into another order in memory."""

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if len(x) > 1:
            return super().forward(x)
        return functional.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)


def new_network(seed: int) -> PlainConvUNet:
    """The untrained network."""
    torch.manual_seed(seed)
    kinds = {
        "conv_op": nn.Conv3d,
        "norm_op": OneImageNorm,
        "nonlin": nn.LeakyReLU,
    }
    arguments = {**ARCHITECTURE, **kinds}
    network = PlainConvUNet(input_channels=1, num_classes=len(CLASSES), deep_supervision=False, **arguments)
    network.apply(network.initialize)
    return network.to(memory_format=torch.channels_last_3d)


def warm_start(network: nn.Module, checkpoint: Path) -> None:
    """Take over the weights of a trained model of the same architecture, in place.

    A head that knows fewer classes gives its own; the further ones start as nearly impossible.

    Raises
    ------
    ModelError : the checkpoint cannot be read.
    ValueError : another architecture.
    """
    given = tensors_of(checkpoint, read_checkpoint(checkpoint).get("network_weights"))
    own = network.state_dict()
    for name, tensor in own.items():
        if name not in given:
            raise ValueError(f"{checkpoint} is of another architecture: it lacks {name}")
        other = given[name]
        if other.shape == tensor.shape:
            tensor.copy_(other)
        elif ".seg_layers." in name and other.shape[1:] == tensor.shape[1:] and len(other) < len(tensor):
            tensor[: len(other)].copy_(other)
            tensor[len(other) :] = -4.0 if name.endswith(".bias") else 0.0
        else:
            raise ValueError(f"{checkpoint} is of another architecture: {name} has another shape")
    network.load_state_dict(own)


@dataclass(frozen=True, eq=False)
class Batch:
    """One peer's part of a step.

    Parameters
    ----------
    step : its number.
    images : (n, 1, z, y, x).
    labels : (n, z, y, x).
    organs : labels of the organs that were outlined, for each image.
    """

    step: int
    images: Tensor
    labels: Tensor
    organs: tuple[tuple[int, ...], ...]


Source = Callable[[], Sequence[Lesson]]
"""Lessons as they are now, where crops are still being made."""
REFRESH_STEPS = 50


def examples(
    lessons: Sequence[Lesson] | Source, schedule: Schedule, seed: int, steps: range, peer: Peer = Peer()
) -> Iterator[Batch]:
    """Each step's images and labels; each draw depends on step and place alone (and on the crops there are).

    Parameters
    ----------
    lessons : a source is asked again every `REFRESH_STEPS` steps.
    peer : gets its part of each batch; None may be left over.
    """
    now = [] if callable(lessons) else lessons
    for step in steps:
        if callable(lessons) and (not now or step % REFRESH_STEPS == 0):
            now = lessons()
        alone = float(np.random.default_rng((seed, step)).random()) < schedule.whole_share
        whole = alone or schedule.cooled(step) >= schedule.whole_from
        drawn = [
            _example(now, schedule, np.random.default_rng((seed, step, k)), whole=whole)
            for k in range(peer.rank, schedule.batch, peer.count)
        ]
        yield Batch(
            step,
            torch.from_numpy(np.stack([image for image, _, _ in drawn])[:, None]),
            torch.from_numpy(np.stack([labels for _, labels, _ in drawn])).long(),
            tuple(organs for *_, organs in drawn),
        )


class _Steps(torch.utils.data.Dataset[Batch]):
    """The examples of each step, for loaders that draw several steps at once."""

    def __init__(
        self, lessons: Sequence[Lesson] | Source, schedule: Schedule, seed: int, steps: range
    ) -> None:
        self._rest = lessons, schedule, seed
        self._steps = steps

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> Batch:
        lessons, schedule, seed = self._rest
        now = lessons() if callable(lessons) else lessons
        return next(examples(now, schedule, seed, self._steps[index : index + 1]))


def drawn_ahead(
    lessons: Sequence[Lesson] | Source, schedule: Schedule, seed: int, steps: range, workers: int
) -> Iterator[Batch]:
    """The same as `examples`, drawn by so many processes while something else, such as a GPU, is at work."""
    loader = torch.utils.data.DataLoader(
        _Steps(lessons, schedule, seed, steps),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4,
        multiprocessing_context="spawn",
    )
    yield from loader


def _example(
    lessons: Sequence[Lesson], schedule: Schedule, rng: np.random.Generator, *, whole: bool
) -> tuple[Floats, Labels, tuple[int, ...]]:
    shares = np.array([lesson.share for lesson in lessons])
    lesson = lessons[int(rng.choice(len(lessons), p=shares / shares.sum()))]
    about: npt.NDArray[np.int64] | None
    if lesson.hard and rng.random() < schedule.hard_share:
        number, *middle = lesson.hard[int(rng.integers(len(lesson.hard)))]
        crop, about = lesson.crops[number], np.array(middle)
    else:
        crop = lesson.crops[int(rng.integers(len(lesson.crops)))]
        about = _some_tumour(crop.labels, rng) if rng.random() < 0.6 else None
    size = CROP if whole else schedule.patch
    start = _start(crop.labels.shape, size, about, rng)
    image, labels = _cut(crop, start, size, rng)
    image = augmented(image, rng)
    if rng.random() < 0.5:
        image, labels = image[:, :, ::-1], labels[:, :, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(labels), crop.organs


def _some_tumour(labels: Labels, rng: np.random.Generator) -> npt.NDArray[np.int64] | None:
    """A voxel of a node or, every fourth time, of a primary; None where there is none."""
    wanted = NODE if rng.random() < 0.75 else PRIMARY
    found = np.flatnonzero(labels == wanted)
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


def loss_of(logits: Tensor, labels: Tensor, done: float = 0.0, organs: Sequence[int] = ()) -> Tensor:
    """Soft Dice of tumour, the nodes first, plus weighted cross entropy of tumour and organs.

    Parameters
    ----------
    logits : (n, classes, z, y, x).
    labels : (n, z, y, x); `IGNORE` where nobody knows.
    done : share of the cooling behind; the weights of rare classes fade out, since they cost false nodes.
    organs : labels of the organs that were outlined; the others count as background.
    """
    logits, labels = _merged(logits, labels, organs)
    known = labels != IGNORE
    rare = torch.ones(logits.shape[1], device=logits.device)
    rare[:TUMOUR] = torch.tensor(CLASS_WEIGHTS, device=logits.device) ** (1 - done)
    log_probability = torch.log_softmax(logits, 1)
    entropy = functional.nll_loss(log_probability, labels, weight=rare, ignore_index=IGNORE)
    if not known.any():  # the mean of nothing is no number
        return (logits * 0).sum()
    dice = logits.new_zeros(())
    for number, weight in enumerate(DICE_WEIGHTS, start=1):
        mine = labels == number
        ours = log_probability[:, number].exp() * known
        size = ours.sum() + mine.sum()
        factor = weight if bool(mine.any()) else ABSENT_WEIGHT * weight / max(DICE_WEIGHTS)
        dice = dice + factor * (1 - (2 * (ours * mine).sum() + 1) / (size + 1))
    return entropy + dice / sum(DICE_WEIGHTS)


def _merged(logits: Tensor, labels: Tensor, organs: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Logits and labels of background (with every organ that was not outlined), tumour and those organs."""
    absent = [0, *(c for c in range(TUMOUR, logits.shape[1]) if c not in organs)]
    kept = [1, 2, *organs]
    background = torch.logsumexp(logits[:, absent], 1, keepdim=True)
    numbers = torch.zeros(256, dtype=torch.long, device=labels.device)
    numbers[kept] = torch.arange(1, len(kept) + 1, device=labels.device)
    numbers[IGNORE] = IGNORE
    chosen = logits.index_select(1, torch.tensor(kept, device=logits.device))
    return torch.cat([background, chosen], 1), numbers[labels]


def train(
    lessons: Sequence[Lesson] | Source,
    schedule: Schedule,
    work: Path,
    seed: int,
    *,
    until: int | None = None,
    start: Path | None = None,
    peer: Peer = Peer(),
    device: str = "cpu",
) -> list[float]:
    """Train, or go on where the last checkpoint stands; returns this peer's loss of each step of this call.

    The checkpoint holds network, its average, optimiser and step, and is written every few minutes; each step
    draws by its own number, so that a run that was cut off ends as one that was not (up to the rounding of
    the processor, and to the crops that have come since). `loss.jsonl` gets a line every 50 steps.

    Parameters
    ----------
    until : stop after this step, to go on later; None: at the schedule's end.
    start : checkpoint of a trained model to start from, where there is none of this training.
    device : where the network learns; on a GPU other processes draw the examples, and peers make no sense.
    """
    network = new_network(seed)
    if start is not None:
        warm_start(network, start)
    network.to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=schedule.learning_rate, weight_decay=1e-2)
    kept = _checkpoint(work, schedule)
    first, average = _restore(kept, network, optimiser)
    _keep_uncooled(kept, work, peer.rank == 0 and first >= schedule.steps - schedule.cooling)
    losses: list[float] = []
    began = saved = time.monotonic()
    network.train()
    last = min(schedule.steps, schedule.steps if until is None else until)
    steps = range(first, last)
    if device == "cpu":
        batches = examples(lessons, schedule, seed, steps, peer)
    else:
        batches = drawn_ahead(lessons, schedule, seed, steps, max(1, (os.cpu_count() or 2) - 1))
    for batch in _while_started(batches, peer):
        step = batch.step
        for group in optimiser.param_groups:
            group["lr"] = _rate(step, schedule)
        optimiser.zero_grad()
        losses.append(_learn(network, batch, schedule.cooled(step), schedule.batch))
        _share_gradients(network, peer)
        norm = nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        if torch.isfinite(norm):  # a patch of nothing but air can overflow in the normalisation's gradient
            optimiser.step()
        if peer.rank != 0:
            continue
        _into_average(average, network, step, schedule)
        if (step + 1) % LOG_STEPS == 0 or step + 1 == last:
            _log(work, step + 1, losses, time.monotonic() - began)
        if step + 1 == last or time.monotonic() - saved > CHECKPOINT_SECONDS:
            cooled = schedule.cooled(step) > 0
            _save(work / STATE, network, average, optimiser, step + 1, cooled=cooled)
            saved = time.monotonic()
        if step + 1 == schedule.steps - schedule.cooling:
            _save(work / UNCOOLED, network, average, optimiser, step + 1)
    return losses


def _while_started(batches: Iterator[Batch], peer: Peer) -> Iterator[Batch]:
    """The batches, for as long as the process lives that started the peers.

    Without it they would go on alone, and write the checkpoint of whoever trains after them.
    """
    for batch in batches:
        if peer.starter is not None and os.getppid() != peer.starter:
            raise SystemExit("the process that started this training has ended")
        yield batch


LOG_STEPS = 50
STATE, UNCOOLED = "segmenter_state.pth", "segmenter_uncooled.pth"
"""Checkpoints: the last one, and the one from before the cooling, from which a longer training goes on."""


def _log(work: Path, step: int, losses: list[float], seconds: float) -> None:
    """A line of `loss.jsonl`: step, mean loss since the last line, seconds a step of this call, and when."""
    line = {
        "step": step,
        "loss": round(float(np.mean(losses[-LOG_STEPS:])), 4),
        "seconds_a_step": round(seconds / len(losses), 3),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    with (work / "loss.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


Weights = dict[str, Tensor]


def _into_average(average: Weights, network: nn.Module, step: int, schedule: Schedule) -> None:
    """Let the average follow the weights, in place; quickly at first."""
    keep = min(1 - 1 / max(AVERAGED_SHARE * schedule.cooling, 1.0), (1 + step) / (10 + step))
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            average[name].lerp_(tensor, 1 - keep)


def _learn(network: nn.Module, mine: Batch, done: float, batch: int) -> float:
    """Add the gradients of some examples, each by its share of the batch; returns their mean loss."""
    total = 0.0
    device = next(network.parameters()).device
    for image, label, organs in zip(mine.images, mine.labels, mine.organs, strict=True):
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16_pays(device)):
            logits = network(image[None].to(device).contiguous(memory_format=torch.channels_last_3d))
        loss = loss_of(logits.float(), label[None].to(device), done, organs)
        (loss / batch).backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total / len(mine.images)


def _share_gradients(network: nn.Module, peer: Peer) -> None:
    """Every peer has the sum of all peers' gradients."""
    if peer.count == 1:
        return
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    torch.distributed.all_reduce(flat)
    for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def train_together(
    lessons: Sequence[Lesson] | Source,
    schedule: Schedule,
    work: Path,
    seed: int,
    count: int,
    *,
    until: int | None = None,
    start: Path | None = None,
) -> None:
    """Train as `train` does, on the GPU where there is one, else in so many processes of one thread each."""
    if torch.cuda.is_available():
        train(lessons, schedule, work, seed, until=until, start=start, device="cuda")
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{folder}/peers"
        arguments = (os.getpid(), count, meeting, lessons, schedule, work, seed, until, start)
        start_processes(_train_as, arguments, nprocs=count, start_method="spawn")  # type: ignore[no-untyped-call]


def _train_as(
    rank: int,
    starter: int,
    count: int,
    meeting: str,
    lessons: Sequence[Lesson] | Source,
    schedule: Schedule,
    work: Path,
    seed: int,
    until: int | None,
    start: Path | None,
) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    train(lessons, schedule, work, seed, until=until, start=start, peer=Peer(rank, count, starter))
    torch.distributed.destroy_process_group()


def _rate(step: int, schedule: Schedule) -> float:
    warm = min(1.0, (step + 1) / max(1, schedule.warm_up))
    return schedule.learning_rate * warm * max(1 - schedule.cooled(step), LEAST_RATE)


def _checkpoint(work: Path, schedule: Schedule) -> Path:
    """What to go on from: the last checkpoint, or the one before cooling where that came too soon."""
    last, uncooled = work / STATE, work / UNCOOLED
    if not (last.exists() and uncooled.exists()):
        return last
    state = torch.load(last, weights_only=True, map_location="cpu")
    too_soon = state.get("cooled", False) and schedule.cooled(int(state["step"])) == 0
    return uncooled if too_soon else last


def _keep_uncooled(kept: Path, work: Path, cooling: bool) -> None:
    """A cooling that begins with a checkpoint of an earlier call: a longer training goes on from there."""
    if cooling and kept.exists() and not torch.load(kept, weights_only=True, map_location="cpu")["cooled"]:
        shutil.copyfile(kept, work / UNCOOLED)


def _restore(file: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[int, Weights]:
    """Take up the last checkpoint, in place; the step to go on with, and the average of the weights."""
    if not file.exists():
        return 0, {name: tensor.detach().clone() for name, tensor in network.named_parameters()}
    state = torch.load(file, weights_only=True, map_location="cpu")
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    device = next(network.parameters()).device
    return int(state["step"]), {name: tensor.to(device) for name, tensor in state["average"].items()}


def _save(
    file: Path,
    network: nn.Module,
    average: Weights,
    optimiser: torch.optim.Optimizer,
    step: int,
    *,
    cooled: bool = False,
) -> None:
    partial = file.with_suffix(".part")
    torch.save(
        {
            "network": network.state_dict(),
            "average": average,
            "optimiser": optimiser.state_dict(),
            "step": step,
            "cooled": cooled,
        },
        partial,
    )
    partial.rename(file)


def write_nnunet_folder(
    work: Path, folder: Path, *, half: bool, node_offset: float = 0.0, primary_offset: float = 0.0
) -> None:
    """The trained network, averaged over its last steps, in nnU-Net v2's trained-model layout.

    Parameters
    ----------
    work : holds the training's last checkpoint.
    folder : gets plans.json, dataset.json and fold_0/checkpoint_final.pth.
    half : store the weights as float16.
    node_offset, primary_offset : taken off the logit of nodes and of primaries (`operating_point`).
    """
    average = torch.load(work / STATE, weights_only=True, map_location="cpu")["average"]
    whole = new_network(0)
    whole.load_state_dict(average, strict=False)  # shared layers have one name in the average
    network = whole.state_dict()
    last = max(name for name in network if name.startswith("decoder.seg_layers.") and name.endswith(".bias"))
    network[last][NODE] -= node_offset
    network[last][PRIMARY] -= primary_offset
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
        "labels": CLASSES,
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
