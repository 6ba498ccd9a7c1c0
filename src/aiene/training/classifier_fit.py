"""One DualNet, trained on some nodes and stopped by others: seeded step by step, taken up after a kill."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from aiene.classify.classifier import ClassifierInputs, Normalisation
from aiene.classify.dualnet import DualNet
from aiene.results.atomic import write_bytes
from aiene.training.dataset import Step
from aiene.training.nodes import Augmentation, Example, augmented_inputs, plain_inputs


@dataclass(frozen=True)
class FitSettings:
    """How a DualNet is trained.

    Parameters
    ----------
    epochs : at most.
    patience : epochs without a better validation score before it stops.
    steps : gradient steps of an epoch.
    batch : nodes of a step.
    learning_rate : at the start; falls as a half cosine over the epochs.
    weight_decay : of AdamW (Loshchilov and Hutter, ICLR 2019).
    normalisation : of the inputs.
    augmentation : how far the views differ.
    seed : each step's draw depends on it and on the step alone.
    device : of PyTorch.
    """

    epochs: int = 60
    patience: int = 12
    steps: int = 40
    batch: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    normalisation: Normalisation = "legacy"
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    device: str = "cpu"


class Fitted(NamedTuple):
    """The best network of a training, its epoch and score, and how many epochs were run."""

    network: DualNet
    epoch: int
    score: float
    epochs: int


def fit(
    start: Callable[[], DualNet],
    train: Sequence[Example],
    validation: Sequence[Example],
    settings: FitSettings,
    state_file: Path,
    log: Callable[[int, dict[str, float]], None] = lambda _epoch, _values: None,
    on_step: Callable[[Step], None] = lambda _: None,
) -> Fitted:
    """Train until the validation score stops rising; go on where the last whole epoch stands.

    The score is the mean of the AUCs of both outputs, each where both classes are there; without any, the
    negative loss.

    Parameters
    ----------
    start : makes the network to begin with.
    train, validation : nodes of different patients.
    settings : how.
    state_file : written after every epoch, whole or not at all.
    log : told the figures of every epoch.
    on_step : told of every epoch that is done.
    """
    device = torch.device(settings.device)
    net = start().to(device)
    optimiser = torch.optim.AdamW(
        net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    state = _restored(state_file, net, optimiser)
    fixed = [plain_inputs(example, settings.normalisation) for example in validation]
    began, first = time.monotonic(), state["epoch"]
    while state["epoch"] < settings.epochs and state["epoch"] - state["best_epoch"] < settings.patience:
        epoch = state["epoch"]
        loss = _epoch(net, optimiser, train, settings, epoch)
        figures = {"train_loss": loss, **_figures(_logits(net, fixed, device), validation)}
        state["epoch"] = epoch + 1
        if figures["score"] > state["best_score"]:
            weights = {k: v.detach().cpu().clone() for k, v in net.state_dict().items()}
            state.update(best_score=figures["score"], best_epoch=epoch + 1, best=weights)
        _save(state_file, net, optimiser, state)
        log(epoch, figures)
        on_step(Step("train", epoch + 1, settings.epochs, time.monotonic() - began, first, figures))
    best = start()
    best.load_state_dict(state["best"])
    return Fitted(best.eval(), state["best_epoch"], state["best_score"], state["epoch"])


def logits_of(net: DualNet, examples: Sequence[Example], settings: FitSettings) -> npt.NDArray[np.float64]:
    """(n, 2): logits of pos and ene of each node as it is; NaN where there is nothing but air."""
    fixed = [plain_inputs(example, settings.normalisation) for example in examples]
    return _logits(net.to(settings.device), fixed, torch.device(settings.device))


def loss_of(logits: Tensor, pos: Tensor, ene: Tensor) -> Tensor:
    """Binary cross entropy of both outputs; what is unknown (-1) is masked.

    Parameters
    ----------
    logits : (n, 2).
    pos, ene : (n,), 1, 0 or -1.
    """
    total = logits.new_zeros(())
    for column, truth in enumerate((pos, ene)):
        known = truth >= 0
        if known.any():
            total = total + functional.binary_cross_entropy_with_logits(logits[known, column], truth[known])
    return total


def draw(examples: Sequence[Example], size: int, rng: np.random.Generator) -> list[Example]:
    """A batch in which every kind of node (extension, none, not positive, unknown) is as frequent."""
    kinds: dict[tuple[float, float], list[Example]] = {}
    for example in examples:
        kinds.setdefault((example.pos, example.ene), []).append(example)
    groups = [kinds[key] for key in sorted(kinds)]
    chosen = (groups[int(rng.integers(len(groups)))] for _ in range(size))
    return [group[int(rng.integers(len(group)))] for group in chosen]


def _epoch(
    net: DualNet,
    optimiser: torch.optim.Optimizer,
    examples: Sequence[Example],
    settings: FitSettings,
    epoch: int,
) -> float:
    net.train()
    rate = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / settings.epochs))
    for group in optimiser.param_groups:
        group["lr"] = rate
    losses = []
    for step in range(epoch * settings.steps, (epoch + 1) * settings.steps):
        rng = np.random.default_rng((settings.seed, step))
        torch.manual_seed(settings.seed * 1_000_003 + step)  # dropout
        batch = _batch(draw(examples, settings.batch, rng), settings, rng)
        if batch is None:
            continue
        box, small, pos, ene = (tensor.to(settings.device) for tensor in batch)
        loss = loss_of(net.logits(box, small), pos, ene)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        if torch.isfinite(norm):
            optimiser.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses)) if losses else math.nan


def _batch(
    drawn: Sequence[Example], settings: FitSettings, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """None where fewer than two views hold anything (batch normalisation needs two), or nothing is known."""
    views = [
        (view, example)
        for example in drawn
        if (view := augmented_inputs(example, settings.normalisation, settings.augmentation, rng)) is not None
    ]
    if len(views) < 2 or all(example.pos < 0 and example.ene < 0 for _, example in views):
        return None
    pos = torch.tensor([example.pos for _, example in views])
    ene = torch.tensor([example.ene for _, example in views])
    return (*_stacked([view for view, _ in views]), pos, ene)


def _stacked(views: Sequence[ClassifierInputs]) -> tuple[Tensor, Tensor]:
    box = torch.from_numpy(np.stack([view.box for view in views])[:, None])
    small = torch.from_numpy(np.stack([view.small for view in views])[:, None])
    return box, small


def _logits(
    net: DualNet, fixed: Sequence[ClassifierInputs | None], device: torch.device
) -> npt.NDArray[np.float64]:
    net.eval()
    result = np.full((len(fixed), 2), np.nan)
    there = [k for k, view in enumerate(fixed) if view is not None]
    with torch.inference_mode():
        for start in range(0, len(there), 8):
            part = there[start : start + 8]
            box, small = _stacked([view for k in part if (view := fixed[k]) is not None])
            result[part] = net.logits(box.to(device), small.to(device)).double().cpu().numpy()
    return result


def _figures(logits: npt.NDArray[np.float64], examples: Sequence[Example]) -> dict[str, float]:
    pos, ene = (torch.tensor([getattr(e, name) for e in examples]) for name in ("pos", "ene"))
    seen = torch.from_numpy(np.isfinite(logits).all(axis=1))
    loss = float(loss_of(torch.from_numpy(logits)[seen], pos.double()[seen], ene.double()[seen]))
    aucs = {}
    for column, (name, truth) in enumerate((("pos", pos), ("ene", ene))):
        known = seen.numpy() & (truth.numpy() >= 0)
        if len(set(truth.numpy()[known].tolist())) == 2:
            aucs[f"{name}_auc"] = float(roc_auc_score(truth.numpy()[known], logits[known, column]))
    return {"val_loss": loss, **aucs, "score": float(np.mean(list(aucs.values()))) if aucs else -loss}


def _restored(file: Path, net: DualNet, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    if not file.exists():
        return {"epoch": 0, "best_epoch": 0, "best_score": -math.inf, "best": net.state_dict()}
    content = torch.load(file, weights_only=True, map_location="cpu")
    net.load_state_dict(content.pop("network"))
    optimiser.load_state_dict(content.pop("optimiser"))
    state: dict[str, Any] = content
    return state


def _save(file: Path, net: DualNet, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    stream = io.BytesIO()
    torch.save({**state, "network": net.state_dict(), "optimiser": optimiser.state_dict()}, stream)
    write_bytes(file, stream.getvalue())
