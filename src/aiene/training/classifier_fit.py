"""One DualNet, trained on some nodes and stopped by others, and what it says of nodes that it has not seen.

The training is seeded step by step and taken up after a kill. Figures, calibration, temperature and threshold
are of held-out nodes.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from torch import Tensor
from torch.nn import functional

from aiene.classify.classifier import ClassifierInputs, Normalisation
from aiene.classify.dualnet import DualNet
from aiene.results.atomic import write_bytes
from aiene.training.dataset import Step
from aiene.training.nodes import Augmentation, Example, augmented_inputs, plain_inputs

Floats = npt.NDArray[np.float64]
Rule = Literal["youden", "sensitivity"]
_RESAMPLES = 1000


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


# Figures of held-out nodes, temperature scaling, and the threshold on its probabilities


def figures_of(
    probabilities: Floats, truth: Floats, called: npt.NDArray[np.bool_], patients: Sequence[str]
) -> dict[str, Any]:
    """AUC, average precision, Brier, sensitivity and specificity, with 95 % intervals over patients.

    Parameters
    ----------
    probabilities, truth : (n,) of nodes whose truth is known, 0 or 1.
    called : where the threshold was passed.
    patients : whose node each is; the bootstrap draws patients, so that nodes of one stay together.
    """
    figures: dict[str, Any] = {"nodes": len(truth), "positive": int(truth.sum())}
    if len(set(truth.tolist())) < 2:
        return {**figures, "reason": "one class only"}
    measures: dict[str, Callable[[npt.NDArray[np.int64]], float]] = {
        "auc": lambda k: roc_auc_score(truth[k], probabilities[k]),
        "average_precision": lambda k: average_precision_score(truth[k], probabilities[k]),
        "brier": lambda k: brier_score_loss(truth[k], probabilities[k]),
        "sensitivity": lambda k: called[k][truth[k] == 1].mean(),
        "specificity": lambda k: (~called[k])[truth[k] == 0].mean(),
    }
    everyone = np.arange(len(truth))
    resamples = [k for k in _resampled(patients) if 0 < truth[k].sum() < len(k)]
    for name, measure in measures.items():
        figures[name] = round(float(measure(everyone)), 4)
        low, high = np.percentile([measure(k) for k in resamples], [2.5, 97.5])
        figures[f"{name}_95"] = [round(float(low), 4), round(float(high), 4)]
    return figures


def reliability(probabilities: Floats, truth: Floats, bins: int = 5) -> list[dict[str, float]]:
    """Mean probability against share of positives, in bins of equal numbers."""
    order = np.argsort(probabilities, kind="stable")
    return [
        {
            "n": float(len(part)),
            "predicted": float(probabilities[part].mean()),
            "observed": float(truth[part].mean()),
        }
        for part in np.array_split(order, min(bins, len(order)))
        if len(part)
    ]


def calibration_plot(rows: Sequence[dict[str, float]], title: str) -> bytes:
    """The reliability table as a PNG: perfect is the diagonal; the area of a point is its number of nodes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="perfect")
    predicted, observed = ([row[name] for row in rows] for name in ("predicted", "observed"))
    axes.plot(predicted, observed, color="#0072B2", linewidth=1)
    axes.scatter(predicted, observed, s=[8 + 4 * row["n"] for row in rows], color="#0072B2", label="nodes")
    axes.set(
        xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel="share with extension", title=title
    )
    axes.set_aspect("equal")
    axes.legend(frameon=False, loc="upper left")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return stream.getvalue()


def _resampled(patients: Sequence[str]) -> list[npt.NDArray[np.int64]]:
    names = sorted(set(patients))
    of = {name: np.flatnonzero(np.array(patients) == name) for name in names}
    rng = np.random.default_rng(0)
    return [
        np.concatenate([of[names[k]] for k in rng.integers(len(names), size=len(names))])
        for _ in range(_RESAMPLES)
    ]


def temperature(logits: Floats, truth: Floats) -> float:
    """The number by which logits are divided so that their log-likelihood is largest.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017. Between 0.05 and 20; 1 where a class is
    missing.

    Parameters
    ----------
    logits : (n,).
    truth : (n,), 0 or 1.
    """
    if len(set(truth.tolist())) < 2:
        return 1.0

    def loss(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        return float(np.mean(np.logaddexp(0, scaled) - truth * scaled))

    found = minimize_scalar(
        loss,
        bounds=(np.log(0.05), np.log(20.0)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def threshold(probabilities: Floats, truth: Floats, rule: Rule, sensitivity: float = 0.9) -> float:
    """The threshold by a stated rule; a node is called where its probability is over it.

    Parameters
    ----------
    probabilities, truth : (n,), with both classes.
    rule : `youden` maximises sensitivity + specificity (Youden 1950), the lower of equal ones;
        `sensitivity` is the highest threshold that still calls the wanted share of the positive nodes.
    sensitivity : the wanted share.

    Raises
    ------
    ValueError : a class is missing.
    """
    positive, negative = np.sort(probabilities[truth == 1]), np.sort(probabilities[truth == 0])
    if not len(positive) or not len(negative):
        raise ValueError("a threshold needs both classes")
    values = np.unique(probabilities)
    cuts = np.concatenate([[max(0.0, values[0] / 2)], (values[1:] + values[:-1]) / 2])
    called = np.array([(positive > cut).mean() for cut in cuts])
    spared = np.array([(negative <= cut).mean() for cut in cuts])
    if rule == "sensitivity":
        return float(cuts[np.flatnonzero(called >= sensitivity)[-1]])
    return float(cuts[np.argmax(called + spared)])


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-logit)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(logits / 2)))
