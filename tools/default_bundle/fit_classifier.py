"""Train the default bundle's classifier: a narrow DualNet on the inputs that the road makes."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import convert_conv3d_weight_memory_format

from aiene.classify.classifier import Classifier, ClassifierInputs, classifier_inputs
from aiene.classify.dualnet import DualNet, DualNetWidths
from aiene.geometry.grid import Volume
from aiene.nodes.split import split_nodes
from aiene.segment.segmenter import Segmenter
from aiene.training.classifier_fit import temperature
from tools.default_bundle.matching import match
from tools.default_bundle.organs import IGNORE
from tools.default_bundle.phantom_crops import CROP_GRID, Crop

NORMALISATION: Final = "legacy"
WIDTHS = DualNetWidths(
    box=(4, 8, 16, 16, 24, 24), box_dense=(64, 64), small=(8, 16, 24, 24, 32, 32, 16), head=4
)
UNKNOWN = -1.0
MOST_UNKNOWN = 1 / 3
"""A found node that lies by more of itself where nobody knows is left out."""
BACKGROUND = 0.0015
"""Values up to this are outside the mask (0.001 after the legacy normalisation)."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Node:
    """One example for the classifier.

    Parameters
    ----------
    box, small : float16, the two inputs.
    pos : 1 a planted node, 0 anything else.
    ene : 1 or 0, and 0 for what is no node; `UNKNOWN` is left out of the loss.
    strength : of the signs of extension.
    real : 1 on a real CT, 0 on a phantom.
    """

    box: npt.NDArray[np.float16]
    small: npt.NDArray[np.float16]
    pos: float
    ene: float
    strength: float
    real: float = 0.0


def true_nodes(crop: Crop) -> list[Node]:
    """Nodes of the true label map, each with the planted node that fills most of it."""
    return nodes_of(crop, crop.labels)


def found_nodes(crop: Crop, segmenter: Segmenter) -> list[Node]:
    """Nodes that the segmenter finds, false ones and fragments too."""
    found = segmenter.predict(Volume(crop.image.astype(np.float32), CROP_GRID))
    return nodes_of(crop, found.array)


def nodes_of(crop: Crop, labels: npt.NDArray[np.uint8]) -> list[Node]:
    """Examples of a label map of the crop."""
    nodes = split_nodes(Volume(labels, CROP_GRID), fg_labels=(2,), axes=False)
    matched = match([n.mask for n in nodes], crop.numbers)
    image = crop.image.astype(np.float32)
    unknown = crop.labels == IGNORE
    examples = []
    for k, node in enumerate(nodes):
        inputs = classifier_inputs(image, node.dilated, NORMALISATION)
        partner = matched.partner[k]
        in_doubt = k in matched.fragments or (not partner and unknown[node.mask].mean() > MOST_UNKNOWN)
        if inputs is None or in_doubt:
            continue
        strength = float(crop.ene[partner - 1]) if partner else 0.0
        examples.append(
            Node(
                inputs.box.astype(np.float16),
                inputs.small.astype(np.float16),
                float(partner > 0),
                float(strength > 0),
                strength,
                float(unknown.any()),
            )
        )
    return examples


@dataclass(frozen=True)
class Schedule:
    """How long the classifier is trained."""

    steps: int = 900
    batch: int = 12
    learning_rate: float = 2e-3


def loss_of(logits: Tensor, pos: Tensor, ene: Tensor) -> Tensor:
    """Binary cross entropy of both outputs; unknown extension is left out."""
    known = ene >= 0
    of_pos = functional.binary_cross_entropy_with_logits(logits[:, 0], pos)
    if not known.any():
        return of_pos
    return of_pos + 2 * functional.binary_cross_entropy_with_logits(logits[known, 1], ene[known])


def batch_of(nodes: list[Node], rng: np.random.Generator, size: int) -> tuple[Tensor, ...]:
    """Box and small (n, 1, ...), pos and ene of a random batch, augmented; a quarter is false nodes."""
    groups = [[n for n in nodes if n.pos == value] for value in (0.0, 1.0)]
    drawn = []
    for _ in range(size):
        group = groups[0] if groups[0] and rng.random() < 0.25 else groups[1]
        drawn.append(group[int(rng.integers(len(group)))])
    pairs = [_augmented(n, rng) for n in drawn]
    box, small = (torch.from_numpy(np.stack([p[i] for p in pairs])[:, None]) for i in (0, 1))
    return box, small, torch.tensor([n.pos for n in drawn]), torch.tensor([n.ene for n in drawn])


def _augmented(node: Node, rng: np.random.Generator) -> tuple[Array, Array]:
    """Both inputs mirrored, shifted and noisier together; the background stays background."""
    flip, back = rng.random() < 0.5, rng.random() < 0.3
    gain, offset, noise = rng.uniform(0.9, 1.1), rng.normal(0, 0.025), rng.uniform(0, 0.03)
    both = []
    for stored in (node.box, node.small):
        values = stored.astype(np.float32)
        inside = values > BACKGROUND
        changed = values * np.float32(gain) + np.float32(offset)
        changed += rng.standard_normal(values.shape, dtype=np.float32) * np.float32(noise)
        values = np.where(inside, np.clip(changed, 0.001, 1), values)
        values = values[:, :, ::-1] if flip else values
        values = values[::-1] if back else values
        both.append(np.ascontiguousarray(values))
    return both[0], both[1]


def new_network(seed: int) -> DualNet:
    """The untrained network."""
    torch.manual_seed(seed)
    net = DualNet(WIDTHS, box_dropout=0.1, small_dropout=0.1)
    convert_conv3d_weight_memory_format(net, torch.channels_last_3d)
    torch.nn.init.constant_(net.box.values.bias, 0.5)  # so that no rectified value starts dead
    _start_head(net)
    return net


def _start_head(net: DualNet) -> None:
    """Let the narrow head begin as a sum, or its few rectified values block the gradient for long.

    ENE begins as the small branch's value plus the box branch's second, pos as the first less the third.
    """
    with torch.no_grad():
        net.head.weight.copy_(torch.tensor([[1.0, 0, 1, 0], [-1, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]))
        net.head.bias.zero_()
        net.out.weight.copy_(torch.tensor([[0.0, 0, 1, -1], [1, -1, 0, 0]]))
        net.out.bias.zero_()


def train(
    nodes: list[Node], schedule: Schedule, work: Path, seed: int, *, save_every: int = 100
) -> list[float]:
    """Train, or go on where the last checkpoint stands; returns the loss of each step of this call."""
    net = new_network(seed)
    optimiser = torch.optim.AdamW(net.parameters(), lr=schedule.learning_rate, weight_decay=2e-2)
    state_file = work / "classifier_state.pth"
    first = _restore(state_file, net, optimiser)
    losses: list[float] = []
    began = time.monotonic()
    net.train()
    for step in range(first, schedule.steps):
        torch.manual_seed(seed * 1_000_003 + step)  # dropout
        box, small, pos, ene = batch_of(nodes, np.random.default_rng((seed, step)), schedule.batch)
        rate = 0.5 * (1 + math.cos(math.pi * step / schedule.steps))
        rate *= min(1.0, (step + 1) / max(1.0, schedule.steps / 40))
        for group in optimiser.param_groups:
            group["lr"] = schedule.learning_rate * rate
        logits = net.logits(_last(box), _last(small))  # bfloat16 overflows in its gradients
        loss = loss_of(logits, pos, ene)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        if torch.isfinite(norm):
            optimiser.step()
        losses.append(float(loss.detach()))
        if (step + 1) % save_every == 0 or step + 1 == schedule.steps:
            _save(state_file, net, optimiser, step + 1)
            each = (time.monotonic() - began) / len(losses)
            print(
                f"step {step + 1}: loss {np.mean(losses[-save_every:]):.3f}, {each:.2f} s a step", flush=True
            )
    return losses


def _last(batch: Tensor) -> Tensor:
    return batch.contiguous(memory_format=torch.channels_last_3d)


def trained(work: Path) -> DualNet:
    """The network of the last checkpoint, in `eval` mode."""
    net = DualNet(WIDTHS)
    net.load_state_dict(torch.load(work / "classifier_state.pth", weights_only=True)["network"])
    return net.eval()


def scores(net: DualNet, nodes: list[Node]) -> npt.NDArray[np.float64]:
    """(n, 2): pos and ene of each node, over its mirror images, as the packed bundle gives them."""
    classifier = Classifier(net, NORMALISATION, torch.device("cpu"), mirroring=True)
    return classifier.probabilities(
        [ClassifierInputs(n.box.astype(np.float32), n.small.astype(np.float32)) for n in nodes]
    )


def calibrate(net: DualNet, known: list[Node]) -> dict[str, float]:
    """Scale both logits, and shift that of extension, within the last layer; returns what was done.

    `pos` is divided by its temperature (C. Guo et al., ICML 2017). Extension is calibrated by a logistic
    regression on its logit (J. Platt, 1999), on nodes of phantoms alone, whose signs of it are fine enough.

    Parameters
    ----------
    known : of persons whom the network has not seen.
    """
    of_pos = temperature(_logits(net, known, 0), np.array([n.pos for n in known]))
    phantoms = [n for n in known if n.pos == 1 and not n.real and n.ene >= 0]
    platt = LogisticRegression(C=np.inf)
    platt.fit(_logits(net, phantoms, 1)[:, None], np.array([n.ene for n in phantoms]))
    slope, shift = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    with torch.no_grad():
        net.out.weight[0] /= of_pos
        net.out.bias[0] /= of_pos
        net.out.weight[1] *= slope
        net.out.bias[1] = net.out.bias[1] * slope + shift
    return {"pos_temperature": of_pos, "ene_slope": slope, "ene_shift": shift}


def _logits(net: DualNet, nodes: list[Node], column: int) -> npt.NDArray[np.float64]:
    found = np.clip(scores(net, nodes)[:, column], 1e-7, 1 - 1e-7)
    return np.log(found / (1 - found))


def _restore(file: Path, net: DualNet, optimiser: torch.optim.Optimizer) -> int:
    if not file.exists():
        return 0
    state = torch.load(file, weights_only=True)
    net.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


def _save(file: Path, net: DualNet, optimiser: torch.optim.Optimizer, step: int) -> None:
    partial = file.with_suffix(".part")
    torch.save({"network": net.state_dict(), "optimiser": optimiser.state_dict(), "step": step}, partial)
    partial.rename(file)
