"""Metrics of a training: classifier on held-out nodes, nnU-Net's validation, calibration, threshold."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from aiene.results.atomic import write_bytes
from aiene.segment.network import read_checkpoint
from aiene.training.dataset import LABELS

Floats = npt.NDArray[np.float64]
_RESAMPLES = 1000

_KEPT = ("network_weights", "init_args", "trainer_name", "inference_allowed_mirroring_axes")
Rule = Literal["youden", "sensitivity"]


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


# nnU-Net: validation metrics, and the checkpoint without its training state


def validation_figures(summary: Path) -> dict[str, Any]:
    """Mean Dice of each label over the validation cases, with a 95 % bootstrap interval.

    Cases where neither the labels nor the network show the structure have no Dice and are not counted.

    Parameters
    ----------
    summary : nnU-Net's `validation/summary.json`.
    """
    content = json.loads(summary.read_text(encoding="utf-8"))
    figures: dict[str, Any] = {"cases": len(content["metric_per_case"])}
    for name, value in LABELS.items():
        if value == 0:
            continue
        dice = [case["metrics"].get(str(value), {}).get("Dice") for case in content["metric_per_case"]]
        known = np.array([d for d in dice if d is not None and not math.isnan(d)])
        figures[name] = _interval(known)
    return figures


def _interval(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    if not len(values):
        return {"n": 0, "dice_mean": None, "dice_95": None}
    rng = np.random.default_rng(0)
    means = rng.choice(values, size=(_RESAMPLES, len(values))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "n": len(values),
        "dice_mean": round(float(values.mean()), 4),
        "dice_95": [round(float(low), 4), round(float(high), 4)],
    }


def weights_only(source: Path, target: Path) -> None:
    """A checkpoint for use, not for going on: a third of the size.

    Raises
    ------
    ModelError : the source is no checkpoint.
    OutputError : the target cannot be written.
    """
    import torch

    content = read_checkpoint(source)
    stream = io.BytesIO()
    torch.save({key: content[key] for key in _KEPT if key in content}, stream)
    write_bytes(target, stream.getvalue())


# Temperature scaling, and the threshold on its probabilities


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
    found = minimize_scalar(
        lambda log_t: _loss(logits / np.exp(log_t), truth),
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


def _loss(logits: Floats, truth: Floats) -> float:
    return float(np.mean(np.logaddexp(0, logits) - truth * logits))
